"""What drills need: a `factory` command as a child process, the processes of its run, and what that holds on disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from factory.journal import encode_trace, scan_segment
from factory.storage import AnyPath
from factory.store import RunFolder, read_traces
from schemas.arrow import traces_from_table
from schemas.errors import FactoryError
from schemas.manifest import Manifest, Shard
from schemas.trace import Trace

MARK: Final = "FACTORY_DRILL"  # environment variable by which a drill finds every process that its run started
POLL_S: Final = 0.1

Key = tuple[str, int]  # problem id, sample index
T = TypeVar("T")


class DrillError(FactoryError):
    """A drill could not be done: something did not come in time."""


# Processes


def wait_until(is_so: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return once ``is_so`` is true.

    Raises:
        DrillError: If it is not within ``timeout_s``; says ``what``.
    """
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise DrillError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Return whether a process with that id runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def parent_of(pid: int) -> int:
    """Return the id of a process's parent; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def processes_of(mark: Path) -> dict[int, str]:
    """Return the living processes that carry ``MARK`` with this path, with their command lines; not this one."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def wait_for_no_process(mark: Path, timeout_s: float = 60) -> None:
    """Return once no process of a run is left.

    Raises:
        DrillError: If some stay; names them.
    """
    deadline = time.monotonic() + timeout_s
    while left := processes_of(mark):
        if time.monotonic() > deadline:
            raise DrillError(f"still alive after {timeout_s:g} s: {left}")
        time.sleep(POLL_S)


def _heed_interrupts() -> None:
    """Undo what a shell does to what it starts in the background: SIGINT ignored, by all its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class FactoryProcess:
    """A ``factory`` command in a child process; what it printed lies in ``out`` and ``err``."""

    def __init__(
        self,
        arguments: Sequence[object],
        mark: Path,
        *,
        environment: Mapping[str, str] = {},
        folder: Path | None = None,
    ) -> None:
        self.mark = mark
        self.out, self.err = mark.with_suffix(".out"), mark.with_suffix(".err")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobs", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, MARK: str(mark), "COLUMNS": "200", "NO_COLOR": "1", **environment},
                preexec_fn=_heed_interrupts,
                cwd=folder,
            )

    def wait(self, timeout_s: float = 300) -> int:
        """Return the exit code."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Kill the command itself with -9, nothing else."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Return what it printed so far on stderr."""
        return self.err.read_text(encoding="utf-8")


def kill_all(mark: Path) -> None:
    """Kill, by its id, whatever is left of a run."""
    for pid in processes_of(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextmanager
def factory_process(
    arguments: Sequence[object], mark: Path, *, environment: Mapping[str, str] = {}, folder: Path | None = None
) -> Iterator[FactoryProcess]:
    """Start a ``factory`` command, in ``folder``; at the end kill whatever is left of it."""
    child = FactoryProcess(arguments, mark, environment=environment, folder=folder)
    try:
        yield child
    finally:
        if child.process.poll() is None:
            child.kill()
        kill_all(mark)


# What a run holds


def committed_traces(path: AnyPath, manifest: Manifest | None = None) -> list[Trace]:
    """Return the traces that the newest manifest names, doubles and all."""
    folder = RunFolder(path)
    manifest = manifest or folder.manifest()
    return [trace for table in folder.tables_of("traces", manifest.traces) for trace in traces_from_table(table)]


@dataclass(slots=True)
class Findings:
    """What must not be; all empty in a run that is right."""

    lost: set[Key] = field(default_factory=set)  # traces that were on disk and are not any more, or never came
    doubled: set[Key] = field(default_factory=set)  # attempts with two traces, or a trace and another end
    changed: set[Key] = field(default_factory=set)  # attempts whose trace is not the one that was seen first
    digests: set[str] = field(default_factory=set)  # shards that are not what their manifest says
    others: set[str] = field(default_factory=set)

    @property
    def are_none(self) -> bool:
        """True if nothing was found."""
        return not (self.lost or self.doubled or self.changed or self.digests or self.others)


@dataclass(slots=True)
class Disk:
    """Looks at a run's folder again and again while others work on it, and remembers every trace that it ever saw."""

    path: AnyPath
    seen: dict[Key, bytes] = field(default_factory=dict)  # digest of the trace, as it was seen first
    findings: Findings = field(default_factory=Findings)
    num_committed: int = 0  # traces in the manifest that was looked at last
    _shards: dict[str, list[tuple[Key, bytes]]] = field(default_factory=dict)  # read once: they never change

    def look(self) -> int:
        """Compare what is there with what was seen before; return how many traces are there.

        The journal is read before the manifest: a trace moves from there to a shard, never back.
        """
        folder = RunFolder(self.path)
        found: dict[Key, set[bytes]] = {}
        for segment in folder.leftover_segments():
            try:
                traces = read_traces(folder, [traced.position for traced in scan_segment(segment).traces])
            except FileNotFoundError:  # committed since the listing
                continue
            for trace in traces:
                found.setdefault(*_keyed(trace, set())).add(digest_of(trace))
        manifest = folder.find_manifest()
        self.num_committed = 0 if manifest is None else manifest.counts.generated
        for shard in () if manifest is None else manifest.traces:
            for key, digest in self._rows(folder, shard):
                found.setdefault(key, set()).add(digest)
        self._compare(found)
        return len(found)

    def _rows(self, folder: RunFolder, shard: Shard) -> list[tuple[Key, bytes]]:
        if shard.name not in self._shards:
            traces = (trace for table in folder.tables_of("traces", [shard]) for trace in traces_from_table(table))
            self._shards[shard.name] = [_keyed(trace, digest_of(trace)) for trace in traces]
        return self._shards[shard.name]

    def _compare(self, found: Mapping[Key, set[bytes]]) -> None:
        self.findings.lost |= self.seen.keys() - found.keys()
        for key, digests in found.items():
            if len(digests) > 1:
                self.findings.doubled.add(key)
            elif self.seen.setdefault(key, next(iter(digests))) not in digests:
                self.findings.changed.add(key)

    def look_at_the_end(self) -> None:
        """Check a run that is complete: every attempt once, every digest, every sum, and all that was ever seen."""
        self.look()
        folder = RunFolder(self.path)
        manifest = folder.manifest()
        shards = [*manifest.problems, *manifest.quarantine, *manifest.traces, *manifest.untraced]
        for shard in [*shards, *(shard for several in manifest.verdicts.values() for shard in several)]:
            path = self.path / shard.name
            data = path.read_bytes() if path.exists() else b""
            if (hashlib.sha256(data).hexdigest(), len(data)) != (shard.sha256, shard.num_bytes):
                self.findings.digests.add(shard.name)
        if not self.findings.digests:  # else they may not be readable at all
            self._check_rows(folder, manifest)

    def _check_rows(self, folder: RunFolder, manifest: Manifest) -> None:
        traces = committed_traces(self.path, manifest)
        ended = Counter((trace.problem_id, trace.sample_index) for trace in traces)
        for table in folder.tables_of("untraced", manifest.untraced):
            ended.update(zip(table["problem_id"].to_pylist(), table["sample_index"].to_pylist(), strict=True))
        problems = [problem.problem_id for problem, _ in folder.problems(manifest)]
        wanted = {(problem_id, index) for problem_id in problems for index in range(manifest.num_samples)}
        self.findings.lost |= wanted - ended.keys()
        self.findings.doubled |= {key for key, count in ended.items() if count > 1}
        judged: Counter[str] = Counter()
        for table in folder.tables_of("verdicts", manifest.verdicts.get(manifest.verifiers, ()), ["trace_id"]):
            judged.update(table["trace_id"].to_pylist())
        counts = manifest.counts
        complaints = {  # and whether there is no reason for them
            "there are attempts that nobody asked for": not ended.keys() - wanted,
            "a trace has no verdict, or two": judged == Counter(trace.trace_id for trace in traces),
            "attempts are pending": counts.pending == 0,
            "the sums do not hold": counts.requested
            == counts.judged + counts.unjudged + counts.failed + counts.cancelled + counts.pending
            == len(wanted),
            "the sums are not those of the rows": counts.generated == len(traces) == counts.judged + counts.unjudged,
            "the journal is not empty": not folder.leftover_segments(),
        }
        self.findings.others |= {complaint for complaint, is_fine in complaints.items() if not is_fine}


def digest_of(trace: Trace) -> bytes:
    """Return a digest over all of a trace, which is the same in a segment and in a shard."""
    return hashlib.blake2b(encode_trace(trace), digest_size=16).digest()


def _keyed(trace: Trace, value: T) -> tuple[Key, T]:
    return (trace.problem_id, trace.sample_index), value
