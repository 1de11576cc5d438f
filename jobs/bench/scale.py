"""`factory bench scale`: what the coordinator, the journal and the committer carry, with a thousand engines at once.

Real: Ray, the coordinator actor, the journal (one writer per process, group fsync), the committer actor, manifests and
shards. Simulated: engines, as coroutines in a few actors, each of which holds its leases, ends them after a random time
and says so to the coordinator in messages of its own, one at a time, as a feeder does; and verifiers, which say
"correct" of every trace and never read it. Engines ask for more than there is to carry: what is measured is the rest of
the system, until everything is committed.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray

from factory.actors import CommitterActor, CoordinatorActor, RunSpec, spawn
from factory.coordinator import Progress
from factory.dispatch import Key
from factory.feeder import Finished, Orders, Report
from factory.journal import Position, SegmentHeader, SegmentWriter
from jobs.bench import made
from jobs.bench.hostile import below
from jobs.cluster import local_ray
from schemas.config import StoreConfig
from schemas.verdict import JudgedTrace

NUM_SAMPLES: Final = 64
NUM_HOSTS: Final = 2  # processes in which engines live
ATTEMPT_S: Final = (1.0, 3.0)  # how long an attempt takes, at random between these
TICK_S: Final = 0.5  # between two messages of an engine, at least
NUM_VERIFIERS: Final = 4  # one alone would wait for its turn among a thousand engines, and fall behind
JUDGE_BATCH: Final = 1_024
STORE: Final = StoreConfig(segment_s=5, segment_mb=8, commit_interval_s=5)
POLL_S: Final = 0.25
ROLES: Final = {"CoordinatorActor": "coordinator", "CommitterActor": "committer", "Engines": "journal writers",
                "Verifier": "verifiers (simulated)"}  # fmt: skip
CARRIED: Final = ("coordinator", "committer", "journal writers")  # whose memory is counted together


class _Journal:
    """The journal of one process: all its engines append to one segment, which is synced for all at once."""

    def __init__(self, run: made.MadeRun, name: str) -> None:
        self._run, self._name = run, name
        self._writer: SegmentWriter | None = None
        self._opened_at, self._sequence = 0.0, 0
        self._full: list[SegmentWriter] = []  # segments to be closed at the next sync
        self._unreported: Counter[str] = Counter()  # traces by segment
        self._closed: set[str] = set()  # no more traces come; to be reported after the last of them
        self._synced = asyncio.Event()

    def append(self, problem_id: str, key: Key) -> Finished:
        if self._writer is None:
            self._sequence += 1
            fingerprint = self._run.plan.fingerprint
            header = SegmentHeader(fingerprint=fingerprint, engine_id=self._name, sequence=self._sequence)
            self._writer, self._opened_at = SegmentWriter(self._run.folder.journal, header), time.monotonic()
        writer = self._writer
        position: Position = writer.append(self._run.trace(problem_id, key.sample_index, self._name))
        self._unreported[position.file] += 1
        if writer.size >= STORE.segment_mb << 20:  # hundreds of engines may end their attempts between two syncs
            self._full.append(writer)
            self._writer = None
        return Finished(key=key, position=position, num_tokens=len(made.TOKENS))

    async def synced(self) -> None:
        """Return once what has been appended is on disk."""
        await self._synced.wait()

    async def sync_regularly(self) -> None:
        while True:
            await asyncio.sleep(STORE.fsync_interval_s)
            await self.sync()

    async def sync(self, *, is_last: bool = False) -> None:
        event, self._synced = self._synced, asyncio.Event()
        writer = self._writer
        if writer is not None and (is_last or time.monotonic() - self._opened_at >= STORE.segment_s):
            self._full.append(writer)
            self._writer = writer = None
        full, self._full = self._full, []
        for other in full:
            await asyncio.to_thread(other.close)
            self._closed.add(other.name)
        if writer is not None:
            await asyncio.to_thread(writer.sync)
        event.set()

    def reported(self, finished: tuple[Finished, ...]) -> None:
        for item in finished:
            self._unreported[item.position.file] -= 1

    def take_closed(self) -> tuple[str, ...]:
        done = tuple(name for name in self._closed if not self._unreported[name])
        self._closed -= set(done)
        return done


class Engines:
    """An actor with some of the engines and their journal."""

    def __init__(self, run: made.MadeRun, name: str, num_engines: int, in_flight: int) -> None:
        self._names = [f"{name}-{number}" for number in range(num_engines)]
        self._journal = _Journal(run, name)
        self._in_flight = in_flight

    async def is_there(self) -> bool:
        """Return once its process has started."""
        return True

    async def run(self, coordinator: Any) -> None:
        """Make attempts until the coordinator says stop."""
        syncing = asyncio.create_task(self._journal.sync_regularly())
        await asyncio.gather(*(self._engine(name, coordinator) for name in self._names))
        syncing.cancel()
        await self._journal.sync(is_last=True)
        await self._pull(coordinator, self._names[0], 0, 0, ())

    async def _engine(self, name: str, coordinator: Any) -> None:
        chance = random.Random(name)
        running: list[tuple[float, Key, str]] = []  # a heap by the end of each attempt
        finished: tuple[Finished, ...] = ()
        num_tokens = 0
        while True:
            orders = await self._pull(coordinator, name, self._in_flight - len(running), num_tokens, finished)
            if orders.stop:
                return
            now = time.monotonic()
            for lease in orders.leases:
                heapq.heappush(running, (now + chance.uniform(*ATTEMPT_S), lease.key, lease.prompt.problem_id))
            del orders  # a thousand engines in a few processes: each holds what it has in flight, and no more
            await asyncio.sleep(TICK_S)
            ended = []
            while running and running[0][0] <= time.monotonic():
                _, key, problem_id = heapq.heappop(running)
                ended.append(self._journal.append(problem_id, key))
            finished = tuple(ended)
            num_tokens += len(finished) * len(made.TOKENS)
            if finished:
                await self._journal.synced()

    async def _pull(
        self, coordinator: Any, name: str, capacity: int, num_tokens: int, finished: tuple[Finished, ...]
    ) -> Orders:
        report = Report(
            engine_id=name,
            capacity=capacity,
            in_flight=self._in_flight - capacity,
            num_tokens_out=num_tokens,
            finished=finished,
            closed=self._journal.take_closed(),
        )
        orders: Orders = await coordinator.pull.remote(report)
        self._journal.reported(finished)
        return orders


class Verifier:
    """An actor with all verifiers, which find every trace correct."""

    async def is_there(self) -> bool:
        """Return once its process has started."""
        return True

    async def run(self, coordinator: Any) -> None:
        """Judge until the actor is ended."""
        await asyncio.gather(*(self._judge(coordinator, f"verifier-{number}") for number in range(NUM_VERIFIERS)))

    async def _judge(self, coordinator: Any, name: str) -> None:
        judged: list[JudgedTrace] = []
        while True:
            batch = await coordinator.judge.remote(name, judged, JUDGE_BATCH)
            judged = [made.verdict(item.trace_id, item.problem_id, item.reference_hash) for item in batch]
            if not batch:
                await asyncio.sleep(0.05)


@dataclass(slots=True)
class _Usage:
    """CPU seconds and peak MB by role, read from the system while processes live, without what is mapped from files."""

    cpu_s: dict[tuple[str, int], float] = field(default_factory=dict)
    peak_mb: dict[tuple[str, int], float] = field(default_factory=dict)

    def look(self) -> None:
        for pid, title in _processes():
            role = next((role for name, role in ROLES.items() if title.startswith(f"ray::{name}")), None)
            if role is None:
                continue
            with suppress(OSError, IndexError):  # it ended this moment
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu_s[role, pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                status = Path(f"/proc/{pid}/status").read_text()
                own = int(status.split("RssAnon:")[1].split()[0]) / 1024
                self.peak_mb[role, pid] = max(own, self.peak_mb.get((role, pid), 0.0))

    def by_role(self, values: dict[tuple[str, int], float]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for (role, _), value in values.items():
            sums[role] = sums.get(role, 0.0) + value
        return sums


def _processes() -> Iterator[tuple[int, str]]:
    for pid in below(os.getpid()):  # a local Ray and its workers
        with suppress(OSError):
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")


def measure(
    folder: Path, num_attempts: int, num_engines: int, in_flight: int, done: Callable[[int], None]
) -> dict[str, Any]:
    """Return rate, CPU per sample by role, memory and disk of a run of that many attempts in a new folder."""
    run = made.freeze_run(folder, num_attempts // NUM_SAMPLES, NUM_SAMPLES)
    num_attempts = num_attempts // NUM_SAMPLES * NUM_SAMPLES
    spec = RunSpec(path=run.path, job=run.plan.job, fingerprint=run.plan.fingerprint)
    usage = _Usage()
    with local_ray():
        coordinator = spawn(CoordinatorActor, spec)
        ray.get(coordinator.load.remote(True, {}))
        committer = spawn(CommitterActor, run.path, run.folder.manifest().verifiers)
        ray.get(coordinator.num_to_make.remote())
        hosts = [
            spawn(Engines, run, f"host-{number}", num_engines // NUM_HOSTS, in_flight) for number in range(NUM_HOSTS)
        ]
        verifier = spawn(Verifier)
        ray.get([actor.is_there.remote() for actor in (*hosts, verifier)])  # starting Python is not what is measured
        usage.look()
        began = time.monotonic()
        loops = [host.run.remote(coordinator) for host in hosts]
        judging = verifier.run.remote(coordinator)
        _commit_until_done(coordinator, committer, loops, usage, done)
        seconds = time.monotonic() - began
        ray.get(loops)
        del judging
    counts = run.folder.manifest().counts
    assert counts.judged == num_attempts, f"{counts} is not what was asked for: {num_attempts}"
    cpu = usage.by_role(usage.cpu_s)
    memory = usage.by_role(usage.peak_mb)
    disk = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    return {
        "attempts": num_attempts,
        "seconds": seconds,
        "per second": num_attempts / seconds,
        **{f"us CPU, {role}": 1e6 * cpu.get(role, 0.0) / num_attempts for role in ROLES.values()},
        **{f"peak MB, {role}": memory.get(role, 0.0) for role in ROLES.values()},
        "peak MB, coordinator, journal writers and committer": sum(memory.get(role, 0.0) for role in CARRIED),
        "MB on disk": disk / 1e6,
        "manifests": run.folder.manifest().number,
    }


def _commit_until_done(
    coordinator: Any, committer: Any, loops: list[Any], usage: _Usage, done: Callable[[int], None]
) -> None:
    """Commit as the driver does: at intervals while engines work, and what is left at the end."""
    running = list(loops)
    committed_at = time.monotonic()
    while True:
        if running:
            _, running = ray.wait(running, timeout=POLL_S, num_returns=len(running))
        else:
            time.sleep(POLL_S)
        progress: Progress = ray.get(coordinator.progress.remote(len(running)))
        done(progress.counts.judged)
        usage.look()
        is_due = time.monotonic() - committed_at >= STORE.commit_interval_s
        if is_due or progress.is_done:
            batch = ray.get(coordinator.take_commit.remote())
            if batch.is_empty and progress.is_done:
                return
            if not batch.is_empty:
                ray.get(committer.commit.remote(batch))
            committed_at = time.monotonic() if batch.is_last else 0.0
