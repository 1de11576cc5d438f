"""C++ programs: compiled once in the sandbox, kept by the hash of their source, with the great header read beforehand.

Under ``code``. The compiler runs in a jail, since a source may include any file and its messages would show it. What is
ours runs outside: the launcher that starts programs (``sandbox/launcher.c``), and the precompiled ``bits/stdc++.h``,
which lies in the user's cache folder. A machine without a compiler cannot judge: ``SlotError``, not a compile error of
the program.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from verifiers.limits import MAX_CACHED_PROGRAMS
from verifiers.sandbox import Sandbox, SlotError
from verifiers.sandbox.slots import HEADERS, header_folder

VERSION: Final = "1"
COMPILERS: Final = ("g++", "c++")
# Judges of programming contests compile so; a source that needs C++20 gets a second try.
STANDARDS: Final = ("gnu++17", "gnu++20")
FLAGS: Final = ("-O2", "-w", "-pipe", "-fmax-errors=3", "-x", "c++")
LAUNCHER_FLAGS: Final = (  # without a C library, and without calls into one
    "-x", "c", "-O2", "-static", "-no-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
    "-fno-tree-loop-distribute-patterns",
)  # fmt: skip
COMPILE_TIMEOUT_S: Final = 300.0  # of our own two texts: some seconds, on a broken machine minutes (guess)
_GREAT_HEADER: Final = "bits/stdc++.h"


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled program, or the compiler's words on why there is none."""

    key: bytes
    binary: bytes | None
    messages: str = ""


@lru_cache(maxsize=1)
def compiler() -> str:
    """Return the path of the C++ compiler.

    Raises:
        SlotError: If there is none.
    """
    for name in COMPILERS:
        if path := shutil.which(name):
            return os.path.realpath(path)
    raise SlotError(f"no C++ compiler: none of {', '.join(COMPILERS)} is on the PATH; install g++")


class Compiler:
    """Compiles sources in a sandbox and keeps the programs that were used last; safe from any thread."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._programs: OrderedDict[bytes, Program] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, source: bytes) -> Program:
        """Return the program of a source.

        Raises:
            SlotError: If the compiler could not be run.
        """
        key = hashlib.sha256(source).digest()
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        program = self._compile(key, source)
        with self._lock:
            self._programs[key] = program
            if len(self._programs) > MAX_CACHED_PROGRAMS:
                self._programs.popitem(last=False)
        return program

    def _compile(self, key: bytes, source: bytes) -> Program:
        messages = ""
        for standard in STANDARDS:
            headers = ["-I", HEADERS] if standard == STANDARDS[0] and precompile_headers() else []
            made = self._sandbox.compile([compiler(), f"-std={standard}", *FLAGS, *headers], source)
            if made.binary is not None:
                return Program(key, made.binary)
            messages = messages or made.messages or f"the compiler broke its limit of {made.over}"
            if made.over is not None:  # another standard would not be faster
                break
        return Program(key, None, messages)


@lru_cache(maxsize=1)
def launcher() -> bytes:
    """Return the binary that starts programs; compiled here from our own text.

    Raises:
        SlotError: If it cannot be compiled.
    """
    source = Path(__file__).parent / "sandbox" / "launcher.c"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "launcher"
        done = _run([compiler(), *LAUNCHER_FLAGS, "-o", str(output), str(source)])
        if done.returncode == 0:
            return output.read_bytes()
    raise SlotError(f"the launcher of compiled programs cannot be compiled by {compiler()}: {done.stderr[-500:]}")


@lru_cache(maxsize=1)
def precompile_headers() -> bool:
    """Make the precompiled header once per machine and compiler; return whether it is there."""
    folder = header_folder()
    if folder is None:
        return False
    version = _run([compiler(), "-v"]).stderr
    name = hashlib.sha256("\n".join([version, VERSION, *FLAGS]).encode()).hexdigest()[:16]
    made = folder / _GREAT_HEADER.replace("/", os.sep)
    target = made.with_name(made.name + ".gch")
    mark = folder / f"made-for-{name}"
    if mark.exists() and target.exists():
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            text = f"#include_next <{_GREAT_HEADER}>\n"
        made.write_text(text, encoding="ascii")
        command = [compiler(), f"-std={STANDARDS[0]}", *FLAGS[:-1], "c++-header", "-o", file.name, "-"]
        done = subprocess.run(
            command, input=f"#include <{_GREAT_HEADER}>\n", capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S,
            env={"PATH": os.defpath}, check=False,
        )  # fmt: skip
        if done.returncode:
            os.unlink(file.name)
            return False
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
        for old in folder.glob("made-for-*"):
            old.unlink()
        mark.touch()
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of ours on texts of ours."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, env={"PATH": os.defpath}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlotError(f"the compiler cannot be run: {error}") from error
