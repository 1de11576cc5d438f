"""Hostile programs run for real, and what is checked from outside: listeners, canaries, survivors, returned bytes."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.problem import AssertTest, FunctionTest, Limits, StdinTest, TestCase
from schemas.verdict import Outcome
from verifiers.code import judge_program, run_program
from verifiers.sandbox import Sandbox

TOKEN = "hf_canary_7Qw3xZ"  # in the environment and in a file: in no returned byte
WALL_GRACE_S = 1.0


@dataclass
class Host:
    """The host's side: what a program must not reach."""

    folder: Path
    tcp_port: int
    udp_port: int
    contacts: list[str] = field(default_factory=list)

    @property
    def canary(self) -> Path:
        return self.folder / "canary.txt"

    @property
    def unix_path(self) -> str:
        return str(self.folder / "listener.sock")

    @property
    def abstract(self) -> str:
        return f"factory-abuse-{os.getpid()}"

    def fill(self, text: str, mark: str) -> str:
        """Put this host's ports, paths and names into a program."""
        values = {
            "TCP_PORT": str(self.tcp_port), "UDP_PORT": str(self.udp_port), "CANARY_FILE": str(self.canary),
            "CANARY_TOKEN": TOKEN, "MARK": mark, "UNIX_PATH": self.unix_path, "ABSTRACT": self.abstract,
            "HOST_PID": str(os.getpid()),
        }  # fmt: skip
        for name, value in values.items():
            text = text.replace(f"@@{name}@@", value)
        assert "@@" not in text or "@@" in "".join(values.values()), f"a placeholder is not known: {text[:300]}"
        return text


@contextmanager
def host() -> Iterator[Host]:
    """Listen on TCP, UDP and unix sockets, put canaries out, and put both back."""
    with tempfile.TemporaryDirectory(prefix="factory-abuse-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # only the sandbox keeps a program out
        tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        found = Host(folder, tcp.getsockname()[1], udp.getsockname()[1])
        found.canary.write_text(TOKEN)
        os.utime(found.canary, (1_000_000_000, 1_000_000_000))
        unix, hidden = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        unix.bind(found.unix_path)
        os.chmod(found.unix_path, 0o777)
        hidden.bind("\0" + found.abstract)
        for listener in (tcp, unix, hidden):
            listener.listen()
        for label, listener in (("tcp", tcp), ("udp", udp), ("unix", unix), ("abstract", hidden)):
            threading.Thread(target=_note_contacts, args=(found, label, listener), daemon=True).start()
        os.environ["HF_TOKEN"] = TOKEN
        try:
            yield found
        finally:
            del os.environ["HF_TOKEN"]
            for listener in (tcp, udp, unix, hidden):
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()


def _note_contacts(found: Host, label: str, listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            if label == "udp":
                listener.recv(100)
            else:
                listener.accept()[0].close()
            found.contacts.append(label)


def limits_of(row: dict[str, Any]) -> Limits:
    """Return a row's limits; the wall limit is twice that of CPU time, and half a second."""
    seconds = float(row.get("time_limit_s", 5))
    return Limits(
        cpu_time_s=seconds, wall_time_s=2 * seconds + 0.5, memory_mb=int(row.get("memory_limit_mb", 256)), output_mb=16
    )


def cases_of(run: dict[str, Any]) -> list[TestCase]:
    """Return the tests that a row's program is judged by."""
    if run["style"] == "stdin":
        return [StdinTest(input=run.get("stdin", ""), expected=run.get("expected_stdout", "OK\n"))]
    if run["style"] == "function":
        return [
            FunctionTest(entry=run["entry"], args=json.dumps(one["args"]), expected=json.dumps(one["expected"]))
            for one in run["tests"]
        ]
    asserts = run.get("asserts") or [one["assert"] for one in run["tests"]]
    entry = run.get("entry") or asserts[0].split("(")[0].split()[-1]
    return [AssertTest(entry=entry, source=source) for source in asserts]


def findings(row: dict[str, Any], sandbox: Sandbox, found: Host) -> list[str]:
    """Run a row's program and judge it; return what is not as it must be."""
    mark = f"mark-{row['id']}-{os.getpid()}"
    source = found.fill(row["program"], mark)
    limits = limits_of(row)
    wrong = []
    said = ""
    contacts = len(found.contacts)
    run = {"style": "stdin", **row.get("run", {})}
    if run["style"] == "stdin":
        ran = run_program(source, run.get("stdin", ""), language=row["language"], limits=limits, sandbox=sandbox)
        if ran is not None:
            said = (ran.written + b"\n" + ran.stderr).decode("utf-8", "replace")
            if ran.wall_s > limits.wall_time_s + WALL_GRACE_S:
                wrong.append(f"took {ran.wall_s:.1f} s")
            if row["must"] == "memory_capped" and ran.peak_mb > 1.1 * limits.memory_mb:
                wrong.append(f"used {ran.peak_mb:.0f} MB")
    start = time.monotonic()
    verdict = judge_program(source, cases_of(run), language=row["language"], limits=limits, sandbox=sandbox)
    longest = limits.wall_time_s * (2 * len(cases_of(run)) + 1) + 20 * WALL_GRACE_S
    if time.monotonic() - start > longest:
        wrong.append(f"was judged in {time.monotonic() - start:.1f} s")
    is_accepted = verdict.outcome is Outcome.CORRECT
    if verdict.outcome is Outcome.UNJUDGED:
        wrong.append("is unjudged")
    if row["must"] == "no_result_forgery" and is_accepted:
        wrong.append("was accepted")
    if row["must"] == "memory_capped" and (verdict.reason not in ("memory_limit", "runtime_error")) and not is_accepted:
        wrong.append(f"reason {verdict.reason}")
    if any(line.startswith("ESCAPED") for line in said.splitlines()):
        wrong.append(f"escaped: {said[:200]!r}")
    if TOKEN in said:
        wrong.append("the token leaked")
    if len(found.contacts) > contacts:
        wrong.append(f"contacts: {found.contacts[contacts:]}")
    if found.canary.read_text() != TOKEN or found.canary.stat().st_mtime != 1_000_000_000:
        wrong.append("the canary was changed")
    wrong += [f"left {path}" for path in marked(mark, found)]
    return wrong


def marked(mark: str, found: Host) -> list[Path]:
    """Return the files of that name in the folders of the host where a program may think of leaving one."""
    folders = [Path.home(), Path.cwd(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/"), found.folder]
    return [folder / mark for folder in folders if (folder / mark).exists()]


def below(pid: int) -> list[int]:
    """Return the processes below one, itself not among them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    wanted, reached = {pid}, set()
    while wanted:
        reached |= wanted
        wanted = {child for child, parent in parents.items() if parent in wanted} - reached
    return sorted(reached - {pid})


def survivors(expected: Sequence[int]) -> list[str]:
    """Return the processes below this one that are not expected, with their command lines."""
    found = []
    for pid in below(os.getpid()):
        if pid not in expected:
            with suppress(OSError):
                found.append(f"{pid} {(Path('/proc') / str(pid) / 'cmdline').read_bytes()[:80]!r}")
    return found
