"""The caller's side of the sandbox: slots that run one program at a time, borrowed by threads.

A slot (``slot``) is a process started by exec with an empty environment. What a program gets and gives are memory files
made here and handed over as descriptors. Invariants: never more slots than cores; a slot that does not answer in time,
or says anything odd, is killed with all in it and replaced; nothing outlives the caller. Every way a run can end is a
``Ran`` or the exception ``SlotError``, which is our failure and never the program's. Knows no test and no verdict.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from schemas.problem import Limits
from verifiers.limits import (
    COMPILE_CPU_S,
    COMPILE_MEMORY_MB,
    MAX_ANSWERS_MB,
    MAX_BINARY_MB,
    MAX_STDERR_BYTES,
    SLOT_GRACE_S,
    SLOT_START_S,
)

VERSION: Final = "1"

Tier = Literal["A", "B", "C", "D"]
TIERS: Final[tuple[Tier, ...]] = ("A", "B", "C", "D")
EXIT_COMPILE_ERROR: Final = 201  # as in ``programs``, which runs where nothing of ours can be imported
EXIT_MEMORY: Final = 202
HEADERS: Final = "/sandbox-headers"  # where a slot of tier A shows ``header_folder``
_FOLDER: Final = Path(__file__).parent
# A slot gets these modules under their own names, and none of what their packages import for callers.
_START: Final = """
import sys, types
folder = sys.argv.pop(1)
for name, place in (("verifiers", folder), ("verifiers.sandbox", folder + "/sandbox")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [place]
from verifiers.sandbox import slot
slot.main()
"""
_READ_CHUNK: Final = 1 << 20


class SlotError(Exception):
    """The sandbox failed, not the program: no slot starts, one died or did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program's processes ended and what they wrote.

    ``over`` is the limit that it broke: cpu, wall, memory or threads. ``exit`` is an exit status, or minus a signal's
    number. ``written`` holds what kind of run asks for: standard output, answers, or the tests' words.
    """

    tier: str
    exit: int
    over: str | None
    cpu_s: float
    peak_mb: float
    written: bytes
    stderr: bytes
    is_cut: bool = False  # it wrote more than the limit allows
    wall_s: float = 0.0

    @property
    def ended_well(self) -> bool:
        """Whether it ended by itself, with status 0 and within its limits."""
        return self.exit == 0 and self.over is None and not self.is_cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiler's result: the program, or None with its messages."""

    binary: bytes | None
    messages: str
    over: str | None
    seconds: float


def _memory_file(content: bytes) -> int:
    """Return a descriptor from which the content can be read, as from a file; others cannot write to it."""
    writable = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(writable, view) :]
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def _output_file() -> int:
    return os.memfd_create("output", os.MFD_CLOEXEC)


def _content(fd: int, limit: int) -> bytes:
    parts = []
    offset = 0
    while offset < limit and (part := os.pread(fd, min(_READ_CHUNK, limit - offset), offset)):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class _Slot:
    """One slot's process and the line to it."""

    def __init__(self, wanted: Tier, lowest: Tier) -> None:
        self.folder = tempfile.mkdtemp(
            prefix="factory-slot-"
        )  # of binaries; tier A has a file system of its own for them
        os.chmod(self.folder, 0o755)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line = ours
        # A shell raises the stack limit before the interpreter is laid out in memory: a fork cannot do that later.
        command = ["/bin/sh", "-c", 'ulimit -s 1048576 2>/dev/null; exec "$0" "$@"']
        command += [interpreter(), "-I", "-S", "-X", "utf8", "-c", _START, str(_FOLDER.parent)]
        command += [wanted, lowest, self.folder, str(header_folder() or "")]
        no_environment: dict[str, str] = {}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=quiet, stderr=quiet, env=no_environment)
        theirs.close()
        self.installed: bytes | None = None  # key of the program that lies there
        self.has_launcher = False
        hello = self._receive(SLOT_START_S)
        tier = hello.get("tier")  # missing where it did not start
        self.why_not: str = str(hello.get("why_not", hello.get("broken", "")))
        if tier is None or tier > lowest:
            self.kill()
            raise SlotError(_refusal(tier, lowest, self.why_not))
        self.tier: str = tier
        if tier == "A":
            os.rmdir(self.folder)

    def ask(self, request: dict[str, Any], fds: Sequence[int], patience_s: float) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            SlotError: If there is none in time, or it says that something went wrong; the slot is gone then.
        """
        try:
            socket.send_fds(self._line, [json.dumps(request).encode()], fds)
            answer = self._receive(patience_s)
        except OSError as error:
            self.kill()
            raise SlotError(f"slot process {self._process.pid} cannot be reached: {error}") from error
        if "broken" in answer:
            self.kill()
            raise SlotError(f"slot process {self._process.pid} failed: {answer['broken']}")
        return answer

    def _receive(self, patience_s: float) -> dict[str, Any]:
        self._line.settimeout(patience_s)
        try:
            message = self._line.recv(1 << 16)
        except TimeoutError as error:
            self.kill()
            raise SlotError(f"no word from slot process {self._process.pid} in {patience_s:.1f} s: killed") from error
        if not message:
            self.kill()
            raise SlotError(f"slot process {self._process.pid} ended without a word, status {self._process.poll()}")
        answer = json.loads(message)
        assert isinstance(answer, dict)
        return answer

    def kill(self) -> None:
        """End the slot and all in it. Its watcher goes with the line and takes the namespaces along."""
        self._line.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _refusal(tier: str | None, lowest: Tier, why_not: str) -> str:
    if tier is None:
        return (
            f"this machine cannot hold judged programs: {why_not}; only a lowest tier of D (verify.lowest_tier) would "
            "run them, without walls"
        )
    return f"this machine has tier {tier}, asked for is {lowest} at least: {why_not}"


def header_folder() -> Path | None:
    """Return the folder in the user's cache for compiled headers; None where none can be made."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "distillation-factory" / "headers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def interpreter() -> str:
    """Return the interpreter itself, not a virtual environment's link to it: its packages are not for programs."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = os.path.join(sysconfig.get_config_var("BINDIR") or "", name)
    return base if os.path.exists(base) else os.path.realpath(sys.executable)


class Sandbox:
    """Slots for judged programs, at most as many as cores. Safe from any thread; close it, or leave that to the exit.

    ``tier`` is the highest that may be used: tests and people with a reason ask for a lower one. ``lowest`` is what a
    machine must have at least; D, where nothing but limits holds a program, is used only if it is named here.
    """

    def __init__(self, *, num_slots: int | None = None, tier: Tier = "A", lowest: Tier = "C") -> None:
        for name, value in (("tier", tier), ("lowest", lowest)):
            if value not in TIERS:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(TIERS)}")
        if tier > lowest:
            raise ValueError(f"tier={tier!r} is below lowest={lowest!r}: programs would run nowhere")
        self._wanted = tier
        self._lowest = lowest
        self._free: list[_Slot] = []
        self._num_started = 0
        self._most = num_slots or len(os.sched_getaffinity(0))
        self._changed = threading.Condition()
        self._is_closed = False
        self.num_replaced = 0

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        slot = self._take()
        try:
            yield slot
        except BaseException:
            slot.kill()
            with self._changed:
                self._num_started -= 1
                self.num_replaced += 1
                self._changed.notify()
            raise
        with self._changed:
            if self._is_closed:
                slot.kill()
            else:
                self._free.append(slot)
            self._changed.notify()

    def _take(self) -> _Slot:
        with self._changed:
            while not self._free:
                if self._is_closed:
                    raise SlotError("the sandbox is closed")
                if self._num_started < self._most:
                    self._num_started += 1
                    break
                self._changed.wait()
            else:
                return self._free.pop()
        try:
            slot = _Slot(self._wanted, self._lowest)
        except BaseException:
            with self._changed:
                self._num_started -= 1
                self._changed.notify()
            raise
        return slot

    def probe(self) -> tuple[str, str]:
        """Return the tier that this machine has, and what keeps it from a higher one.

        Raises:
            SlotError: If none can be had.
        """
        with self._slot() as slot:
            return slot.tier, slot.why_not

    def fork_s(self, count: int) -> float:
        """Return the seconds that ``count`` bare forks of a slot take, with nothing in them: the floor of every run."""
        with self._slot() as slot:
            return float(slot.ask({"kind": "fork", "count": count}, [], count + SLOT_GRACE_S)["seconds"])

    def run_script(self, source: bytes, stdin: bytes, limits: Limits) -> Ran:
        """Run a Python program on a standard input; ``written`` is its standard output."""
        return self._run("script", {}, [source, stdin], limits, limits.output_mb)

    def call(self, source: bytes, entry: str, calls: Sequence[str], limits: Limits) -> Ran:
        """Call a function of a Python program with each list of arguments, as ``wire`` writes them.

        ``written`` has a line for each answer.
        """
        request = {"entry": entry, "calls": len(calls)}
        arguments = f"[{','.join(calls)}]".encode("ascii")
        return self._run("calls", request, [source, arguments], limits, MAX_ANSWERS_MB, num_outputs=3)

    def test(self, source: bytes, entry: str, tests: Sequence[str], limits: Limits) -> Ran:
        """Run test sources against a Python program, in a process of their own; ``written`` has a word for each."""
        contents = [source, json.dumps(list(tests)).encode()]
        return self._run("tests", {"entry": entry}, contents, limits, MAX_ANSWERS_MB, num_outputs=3)

    def run_binary(self, binary: bytes, launcher: bytes, key: bytes, stdin: bytes, limits: Limits) -> Ran:
        """Run a compiled program on a standard input; ``key`` names its binary."""

        def install(slot: _Slot) -> None:
            if not slot.has_launcher:
                self._install(slot, "launcher", launcher)
                slot.has_launcher = True
            if slot.installed != key:
                slot.installed = None
                self._install(slot, "program", binary)
                slot.installed = key

        return self._run("binary", {}, [stdin], limits, limits.output_mb, before=install)

    def compile(self, command: Sequence[str], source: bytes) -> Compiled:
        """Run a compiler, which reads the source from its standard input."""
        started = time.monotonic()
        source_fd, binary_fd, messages_fd = _memory_file(source), _output_file(), _output_file()
        request = {
            "kind": "compile", "command": list(command), "cpu_s": COMPILE_CPU_S, "wall_s": 2 * COMPILE_CPU_S + 0.5,
            "memory_mb": COMPILE_MEMORY_MB, "file_mb": MAX_BINARY_MB,
        }  # fmt: skip
        try:
            with self._slot() as slot:
                answer = slot.ask(request, [source_fd, binary_fd, messages_fd], 2 * COMPILE_CPU_S + SLOT_GRACE_S)
            is_made = answer["exits"][0] == 0 and answer["over"] is None
            return Compiled(
                binary=_content(binary_fd, MAX_BINARY_MB << 20) if is_made else None,
                messages=_content(messages_fd, MAX_STDERR_BYTES).decode("utf-8", "replace"),
                over=answer["over"],
                seconds=time.monotonic() - started,
            )
        finally:
            for fd in (source_fd, binary_fd, messages_fd):
                os.close(fd)

    def _install(self, slot: _Slot, name: str, content: bytes) -> None:
        fd = _memory_file(content)
        try:
            slot.ask({"kind": "install", "name": name}, [fd], SLOT_GRACE_S)
        finally:
            os.close(fd)

    def _run(
        self,
        kind: str,
        request: dict[str, Any],
        contents: Sequence[bytes],
        limits: Limits,
        written_mb: int,
        *,
        num_outputs: int = 2,
        before: Callable[[_Slot], None] | None = None,
    ) -> Ran:
        """Run one request in a free slot. The first output is what is wanted, the last is standard error."""
        message = {
            "kind": kind, "cpu_s": limits.cpu_time_s, "wall_s": limits.wall_time_s, "memory_mb": limits.memory_mb,
            "file_mb": max(limits.output_mb, written_mb), **request,
        }  # fmt: skip
        longest = limits.wall_time_s * int(request.get("calls", 1)) + SLOT_GRACE_S
        outputs = [_output_file() for _ in range(num_outputs)]
        inputs = [_memory_file(content) for content in contents]
        try:
            with self._slot() as slot:
                if before is not None:
                    before(slot)
                started = time.monotonic()
                answer = slot.ask(message, [*inputs, *outputs], longest)
                wall = time.monotonic() - started
                tier = slot.tier
            status = int(answer["exits"][0])
            limit = written_mb << 20
            sizes = [os.fstat(fd).st_size for fd in outputs]
            return Ran(
                tier=tier,
                exit=status,
                over=answer["over"],
                cpu_s=float(answer["cpu_s"]),
                peak_mb=float(answer["peak_mb"]),
                written=_content(outputs[0], limit),
                stderr=_content(outputs[-1], MAX_STDERR_BYTES),
                is_cut=sizes[0] >= limit or max(sizes[1:]) >= max(limits.output_mb, written_mb) << 20,
                wall_s=wall,
            )
        finally:
            for fd in (*inputs, *outputs):
                os.close(fd)

    def close(self) -> None:
        """End all slots; those in use end when their run does."""
        with self._changed:
            self._is_closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
        for slot in free:
            slot.kill()


_default: tuple[int, Sandbox] | None = None
_default_lowest: Tier = "C"
_default_lock: Final = threading.Lock()


def default_sandbox() -> Sandbox:
    """Return the sandbox that this process shares; started at the first use, closed at exit."""
    global _default
    with _default_lock:
        if _default is None or _default[0] != os.getpid():  # a fork has no use for its parent's slots
            _default = (os.getpid(), Sandbox(lowest=_default_lowest))
        return _default[1]


def require_tier(lowest: Tier) -> None:
    """Make the shared sandbox refuse machines below this tier; one that is open already is closed."""
    global _default_lowest
    close_default_sandbox()
    _default_lowest = lowest


def close_default_sandbox() -> None:
    """Close the shared sandbox, if there is one; the next use starts another."""
    global _default
    with _default_lock:
        mine, _default = _default, None
    if mine is not None and mine[0] == os.getpid():
        with suppress(OSError):
            mine[1].close()


atexit.register(close_default_sandbox)
