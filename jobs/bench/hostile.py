"""Hostile programs run for real in the sandbox, and what is checked from outside: listeners, canaries, returned bytes.

A row is JSON with ``id``, ``category``, ``language``, ``program``, ``must`` and ``run`` (style and tests); placeholders
such as ``@@TCP_PORT@@`` stand for what this host puts out to be reached. A program says ESCAPED at the start of a line
if it got out. Part of ``factory bench code --hostile FILE``; the tests run it on their own files.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from schemas.errors import ConfigError
from schemas.problem import AssertTest, FunctionTest, Limits, StdinTest, TestCase
from schemas.verdict import Outcome
from verifiers.code import judge_program, run_program
from verifiers.sandbox import Ran, Sandbox
from verifiers.sandbox.jail import FIRST_USER

TOKEN: Final = "hf_canary_7Qw3xZ"  # in the environment and in a file: in no returned byte
WALL_GRACE_S: Final = 1.0  # beyond its wall limit after which a program must be dead (the rows' own)
CANARY_TIME_S: Final = 1_000_000_000  # time of change of the canary
SHORT_S: Final = 0.3  # limit of a run of the endurance drill
MEMORY_MARGIN: Final = 1.1  # of the limit that a program may have touched before it is killed (the rows' own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A hostile program, what must hold of it, and the tests that it is judged by."""

    name: str
    category: str
    language: str
    program: str
    must: str
    run: dict[str, Any]
    limits: Limits


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        ConfigError: If it cannot be read, or a line is no row; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--hostile {path}: cannot be read: {error}") from error
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> Row:
    try:
        body = json.loads(line)
        seconds = float(body.get("time_limit_s", 5))
        return Row(
            name=str(body["id"]),
            category=str(body["category"]),
            language=str(body["language"]),
            program=body["program"],
            must=str(body["must"]),
            run={"style": "stdin", **body.get("run", {})},
            limits=Limits(
                cpu_time_s=seconds,
                wall_time_s=2 * seconds + 0.5,
                memory_mb=int(body.get("memory_limit_mb", 256)),
                output_mb=16,
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--hostile {path}, line {number}: {error!r}; a row is a JSON object with id, category, language, program "
            "and must"
        ) from error


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
        os.utime(found.canary, (CANARY_TIME_S, CANARY_TIME_S))
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


def findings(row: Row, sandbox: Sandbox, found: Host) -> list[str]:
    """Run a row's program and judge it; return what is not as it must be.

    Raises:
        SlotError: If the sandbox failed where it is asked directly.
    """
    mark = f"mark-{row.name}-{os.getpid()}"
    source = found.fill(row.program, mark)
    contacts = len(found.contacts)
    said, wrong = "", []
    if row.run["style"] == "stdin":
        ran = run_program(source, row.run.get("stdin", ""), language=row.language, limits=row.limits, sandbox=sandbox)
        if ran is not None:
            said = (ran.written + b"\n" + ran.stderr).decode("utf-8", "replace")
            wrong += _broken_limits(row, ran)
    cases = cases_of(row.run)
    verdict = judge_program(source, cases, language=row.language, limits=row.limits, sandbox=sandbox)
    is_accepted = verdict.outcome is Outcome.CORRECT
    if verdict.outcome is Outcome.UNJUDGED:
        wrong.append("is unjudged")
    if row.must in ("no_result_forgery", "memory_capped") and is_accepted:
        wrong.append("was accepted")
    if any(line.startswith("ESCAPED") for line in said.splitlines()):
        wrong.append(f"escaped: {said[:200]!r}")
    if TOKEN in said:
        wrong.append("the token leaked")
    if len(found.contacts) > contacts:
        wrong.append(f"contacts: {found.contacts[contacts:]}")
    if found.canary.read_text() != TOKEN or found.canary.stat().st_mtime != CANARY_TIME_S:
        wrong.append("the canary was changed")
    return wrong + [f"left {path}" for path in marked(mark, found)]


def _broken_limits(row: Row, ran: Ran) -> list[str]:
    wrong = []
    if ran.wall_s > row.limits.wall_time_s + WALL_GRACE_S:
        wrong.append(f"took {ran.wall_s:.1f} s")
    if row.must == "memory_capped" and ran.peak_mb > MEMORY_MARGIN * row.limits.memory_mb:
        wrong.append(f"used {ran.peak_mb:.0f} MB of {row.limits.memory_mb}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What runs can leave behind on a host, counted."""

    processes: int
    mounts: int
    temporary_files: int
    listening_sockets: int

    def minus(self, before: Remains) -> dict[str, int]:
        """Return what has come since."""
        return {name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__}


def remains() -> Remains:
    """Count processes below this one, mounts, own files in the temporary folders, and listening sockets."""
    listening = 0
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            listening += sum(line.split()[3] == "0A" for line in lines)
    folders = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")}
    return Remains(
        processes=len(below(os.getpid())),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        temporary_files=sum(_is_own(path) for folder in folders if folder.is_dir() for path in folder.iterdir()),
        listening_sockets=listening,
    )


def _is_own(path: Path) -> bool:
    """Return whether the sandbox or a program in it made a file, by name or by user."""
    try:
        return path.name.startswith(("factory-", "mark-")) or path.lstat().st_uid >= FIRST_USER
    except OSError:  # somebody else's, gone this moment
        return False


def endure(rows: Sequence[Row], runs: int, sandbox: Sandbox, num_threads: int, done: Callable[[int], None]) -> int:
    """Run the programs over and over, ``runs`` times in all, with short limits; return how many stayed unjudged."""
    unjudged = 0

    def one(number: int) -> bool:
        row = rows[number % len(rows)]
        limits = replace(row.limits, cpu_time_s=SHORT_S, wall_time_s=SHORT_S)
        source = found.fill(row.program, f"mark-{row.name}-{os.getpid()}")
        cases = cases_of(
            {**row.run, "stdin": f"{row.run.get('stdin', '')}{number}"}
        )  # another input: no cached verdict
        verdict = judge_program(source, cases, language=row.language, limits=limits, sandbox=sandbox)
        return verdict.outcome is Outcome.UNJUDGED

    with host() as found, ThreadPoolExecutor(num_threads) as threads:
        for number, is_unjudged in enumerate(threads.map(one, range(runs)), 1):
            unjudged += is_unjudged
            done(number)
    return unjudged
