"""The roles of a run as Ray actors: coordinator, engines, verifiers, committer. Each is thin around plain code.

Samples never pass through Ray: engines write them to the journal, and messages carry places and counts. Every actor is
owned by the driver and ends with it. Deciding what to restart is the supervisor's (``jobs/supervisor.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

import verifiers
from factory import faults
from factory.adaptive import Adaptive
from factory.committer import Committer
from factory.coordinator import CommitBatch, Coordinator, JudgeItem, Progress, scanned_keys
from factory.dispatch import Dispatch
from factory.early import Rules
from factory.feeder import Feeder, Holding, Orders, Report, TraceStamp
from factory.journal import SegmentScan, scan_segment, split_name, wait_for_writer
from factory.lengths import Lengths
from factory.niceness import TEACHER, set_niceness, verifier_niceness
from factory.notice import on_termination
from factory.order import LongFirst
from factory.sharing import Slots
from factory.shingles import Signatures, sign
from factory.signs import Signs
from factory.staging import ready_teacher
from factory.state import RunState, unjudged_places
from factory.storage import AnyPath, log_folder
from factory.store import OLD_WRITER_TIMEOUT_S, RunFolder, read_traces
from factory.teachers import EngineInfo, TeacherEngine, make_engine
from schemas.config import JobConfig, SamplingConfig, Teacher
from schemas.errors import EngineDeadError
from schemas.manifest import Counts
from schemas.problem import Tests
from schemas.trace import Trace
from schemas.verdict import JudgedTrace
from verifiers.sandbox import require_tier

STARTED: Final = "engine started"  # key of the line in an engine's log that holds its settings
WAIT_S: Final = 1.0  # that a verifier with nothing to do waits at the coordinator for a trace; guess
IDLE_S: Final = 0.1  # between two looks of a verifier for a new coordinator
REPORT_S: Final = 0.25  # that a verifier keeps a verdict while it still judges others
TERMINATED: Final = 128 + signal.SIGTERM  # exit code of an engine whose node is taken away while it loads
ORPHAN_S: Final = 600.0  # that an engine or verifier waits for the successor of a dead coordinator, which loads; guess


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What every actor of a run is given."""

    path: AnyPath
    job: JobConfig
    fingerprint: str


def engine_log(path: AnyPath, engine_id: str) -> Path:
    """Return where an engine, and all processes it starts, write what they print."""
    return log_folder(path) / f"{engine_id}.log"


def load_coordinator(spec: RunSpec, *, generate: bool, living: Mapping[str, Holding] = {}) -> Coordinator:
    """Return the coordinator of a run as its manifest and its journal have it; waits for writers of a killed start.

    ``living`` are engines that outlived the coordinator before, and take no leases until this one is there: what they
    hold is leased to them, and segments that they may still write stay open.
    """
    folder = RunFolder(spec.path)
    manifest = folder.manifest()
    state = RunState.load(folder, manifest, with_prompts=True)
    base = state.counts()
    scans = recover_segments(folder, living)
    journaled = {key for scan in scans.values() for key in scanned_keys(state, scan)}
    held = {
        engine_id: [key for key in holding.keys if key not in journaled and not state.has_ended(key)]
        for engine_id, holding in living.items()
    }
    out = journaled.union(*held.values())
    rule = spec.job.schedule.adaptive if generate else None
    adaptive = None if rule is None else Adaptive(state, rule, out)
    order = LongFirst(state.pending(out)) if generate and adaptive is None else None
    coordinator = Coordinator(
        fingerprint=spec.fingerprint,
        state=state,
        dispatch=Dispatch(adaptive or order or [], max_deaths=spec.job.schedule.max_deaths_per_attempt),
        base=base,
        base_outcomes=state.outcomes,
        base_reasons=state.reasons,
        base_seed=spec.job.sampling.seed,
        max_tries=spec.job.verify.max_tries,
        adaptive=adaptive,
        order=order,
        lengths=Lengths.of(spec.job),
    )
    coordinator.add_backlog(unjudged_places(folder, manifest, state))
    for engine_id, held_keys in held.items():
        coordinator.dispatch.adopt(engine_id, held_keys)
    for name, scan in scans.items():
        coordinator.add_scan(name, scan, is_closed=not _may_grow(name, living))
    for scan in scans.values():  # once all traces are known
        coordinator.add_saved(scan)
    coordinator.queue_cut()
    coordinator.close_finished()
    return coordinator


def recover_segments(folder: RunFolder, living: Mapping[str, Holding] = {}) -> dict[str, SegmentScan]:
    """Return what a killed start left in the journal, by segment; a torn tail is what was never synced.

    Engines that live are not waited for: of what they still write, there is what has been written by now.
    """
    scans = {}
    for path in folder.leftover_segments():
        try:
            may_be_written = split_name(path.name).engine_id in living
            scans[path.name] = scan_segment(path) if may_be_written else _scan_ended(path)
        except FileNotFoundError:  # the former committer, not yet dead, finished with it
            continue
    return scans


def _scan_ended(path: AnyPath) -> SegmentScan:
    """Return what a segment holds, once its writer is dead."""
    wait_for_writer(path, OLD_WRITER_TIMEOUT_S)
    return scan_segment(path)


def _may_grow(name: str, living: Mapping[str, Holding]) -> bool:
    """True if a living engine may add to a segment; its lock would not tell: a fresh one has it a moment late."""
    engine_id, sequence = split_name(name)
    return engine_id in living and sequence > living[engine_id].num_closed


def spawn(role: type, *arguments: Any, num_gpus: int = 0, place: PlacementGroupSchedulingStrategy | None = None) -> Any:
    """Start an actor of this role, owned by this process. No CPU is reserved: roles share them, and mostly wait.

    Engines and verifiers, which do the work, go to all nodes, unless a place is given; the others stay near the driver.
    """
    strategy: PlacementGroupSchedulingStrategy | Literal["SPREAD", "DEFAULT"]
    strategy = place or ("SPREAD" if role in (EngineActor, VerifierActor) else "DEFAULT")
    return ray.remote(num_cpus=0, num_gpus=num_gpus, scheduling_strategy=strategy)(role).remote(*arguments)


def sign_over_ray(batches: Iterator[pa.LargeStringArray]) -> Iterator[Signatures]:
    """Yield the signatures of batches of texts, in their order, made on all nodes of the Ray that is connected.

    Two batches per CPU are on the way at most, so that neither this process nor the object store fills up.
    """
    sign_there = ray.remote(num_cpus=1)(_sign_message)
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    waiting: deque[Any] = deque()
    for batch in batches:
        while len(waiting) >= most:
            yield ray.get(waiting.popleft())
        waiting.append(sign_there.remote(_as_message(batch)))
    while waiting:
        yield ray.get(waiting.popleft())


def _as_message(batch: pa.LargeStringArray) -> bytes:
    """Return a batch by itself: pickled, a slice would take all of the array along that it is a slice of."""
    sink = pa.BufferOutputStream()
    record = pa.record_batch([batch], ["text"])
    with pa.ipc.new_stream(sink, record.schema) as writer:
        writer.write_batch(record)
    return bytes(sink.getvalue())


def _sign_message(message: bytes) -> Signatures:
    return sign(pa.ipc.open_stream(message).read_next_batch().column(0))


class CommitterActor:
    """The one writer of manifests. Claims the run at its first commit, so that a failure is that commit's."""

    def __init__(self, path: AnyPath, verifiers_digest: str) -> None:
        faults.begin(faults.Role.COMMITTER)
        self._path = path
        self._verifiers = verifiers_digest
        self._committer: Committer | None = None
        pa.array([0])  # the first array has Arrow import pandas, a second of work: now, not beside a working engine

    def commit(self, batch: CommitBatch) -> Counts:
        """Write one manifest; see ``Committer.commit``."""
        if self._committer is None:
            self._committer = Committer(self._path, verifiers=self._verifiers)
        return self._committer.commit(
            segments=batch.segments,
            kept=batch.kept,
            judged=batch.judged,
            untraced=batch.untraced,
            cancelled=batch.cancelled,
        )


class CoordinatorActor:
    """Carries messages between engines, verifiers, committer and the plain coordinator."""

    def __init__(self, spec: RunSpec) -> None:
        set_niceness(TEACHER)  # as far as that is allowed
        self._spec = spec
        self._folder = RunFolder(spec.path)
        self._coordinator: Coordinator
        self._may_judge = asyncio.Event()  # there may be something for verifiers that wait

    async def load(self, generate: bool, living: Mapping[str, Holding]) -> None:
        """Read the run; comes before anything else, and apart from the start so that its errors keep their names."""
        self._coordinator = load_coordinator(self._spec, generate=generate, living=living)

    async def num_to_make(self) -> int:
        """Return how many attempts no engine has taken yet."""
        return self._coordinator.dispatch.num_queued

    async def context_known(self, max_model_len: int) -> None:
        """Take note of the teacher's context, in tokens: prompts that fill it fail when their turn comes."""
        self._coordinator.max_model_len = max_model_len

    async def pull(self, report: Report) -> Orders:
        """An engine reports and gets leases."""
        orders = self._coordinator.engine_report(report)
        self._wake_verifiers()
        return orders

    async def judge(
        self,
        worker_id: str,
        judged: Sequence[JudgedTrace],
        size: int,
        delays_s: Sequence[float] = (),
        wait_s: float = 0.0,
    ) -> list[JudgeItem]:
        """A verifier reports and gets more, once there is more, or after ``wait_s``: see ``Coordinator.take_batch``.

        ``delays_s``: how long those of its last report took to come.
        """
        self._coordinator.judge_report(worker_id, judged)
        self._coordinator.delays.add(delays_s)
        self._wake_verifiers()  # what stayed unjudged may be another one's
        deadline = time.monotonic() + wait_s
        while not (batch := self._coordinator.take_batch(worker_id, size)) and wait_s > 0:
            self._may_judge.clear()
            try:
                await asyncio.wait_for(self._may_judge.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        return batch

    def _wake_verifiers(self) -> None:
        if self._coordinator.has_to_judge:
            self._may_judge.set()

    async def take_commit(self) -> CommitBatch:
        """Hand over what may be committed."""
        return self._coordinator.take_commit()

    async def engine_died(self, engine_id: str, was_taken: bool, has_others: bool) -> bool:
        """Take back a dead engine's leases and read what its journal holds; return whether it made any progress.

        Where its node ``was_taken`` away, no attempt is to blame; where it ``has_others``, perhaps none of this run.
        """
        # Comes first: the others' messages are answered meanwhile, and none of its own may change what is read here.
        self._coordinator.mark_dead(engine_id)
        scans = {}
        for path in await asyncio.to_thread(self._folder.leftover_segments):
            if path.name.startswith(f"{engine_id}-") and self._coordinator.lacks(path.name):
                scans[path.name] = await asyncio.to_thread(_scan_ended, path)
        has_progressed = self._coordinator.engine_died(engine_id, scans, was_taken=was_taken, has_others=has_others)
        self._wake_verifiers()
        return has_progressed

    async def verifier_died(self, worker_id: str) -> None:
        """Take back what a dead verifier had."""
        self._coordinator.verifier_died(worker_id)
        self._wake_verifiers()

    async def drain(self) -> None:
        """Lease nothing more and stop the engines."""
        self._coordinator.is_draining = True

    async def progress(self, num_engines_running: int) -> Progress:
        """Return where the run stands."""
        return self._coordinator.progress(num_engines_running)

    async def signs(self) -> dict[str, Signs]:
        """Return the signs of life of every engine that has reported."""
        return self._coordinator.signs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an engine lies that is spread over bundles of a placement group."""

    bundles: tuple[int, ...] = ()  # in the order of ranks
    node_ids: tuple[str, ...] = ()


class Started(NamedTuple):
    """What an engine says when it has loaded."""

    info: EngineInfo
    node_id: str


class _Work:
    """What an engine does for one run."""

    def __init__(self, spec: RunSpec, stamp: TraceStamp, coordinator: Any) -> None:
        self.spec = spec
        self.stamp = stamp
        self.feeder: Feeder | None = None
        self.task: asyncio.Task[None] | None = None
        self._coordinator: Any = coordinator  # none while the last has died and the next is not known
        self._lost_at = 0.0

    def attach(self, coordinator: Any) -> None:
        """Report to this coordinator from now on."""
        self._coordinator = coordinator

    def lose_coordinator(self) -> None:
        """Take no more leases of the coordinator that there was."""
        self._coordinator, self._lost_at = None, time.monotonic()

    async def pull(self, report: Report) -> Orders | None:
        """Report to the coordinator there is; None if there is none, or another by the time that it answers.

        Raises:
            EngineDeadError: If the driver names no other within ``ORPHAN_S``.
        """
        coordinator = self._coordinator
        if coordinator is None:
            if time.monotonic() - self._lost_at > ORPHAN_S:
                raise EngineDeadError(f"its coordinator died, and no other came in {ORPHAN_S:g} s")
            return None
        try:
            orders: Orders = await coordinator.pull.remote(report)
        except RayActorError:
            if self._coordinator is coordinator:
                self.lose_coordinator()
            return None
        return orders if self._coordinator is coordinator else None

    def rules(self) -> Rules | None:
        """Return by what its attempts are ended early."""
        early = self.spec.job.schedule.early_abort
        if early is None:
            return None
        settings = self.spec.job.verify.readability.settings()
        return Rules(loop_tokens=early.loop_tokens, format=self.stamp.format, settings=settings)


class EngineActor:
    """One engine: loads the teacher, then feeds it for each run until told to stop, or until its node is taken away.

    ``first`` is the run whose logs hold what it prints. Runs are told apart by their place in the queue of runs, by
    which they also go: see ``sharing``.
    """

    def __init__(
        self,
        first: RunSpec,
        teacher: Teacher,
        sampling: SamplingConfig,
        stamp: TraceStamp,
        incarnation: int,
        place: Place,
    ) -> None:
        faults.begin(faults.Role.ENGINE)
        set_niceness(TEACHER)  # as far as that is allowed
        if place.bundles:
            # vLLM's own order may split a stage that fits into a node.
            os.environ["VLLM_RAY_BUNDLE_INDICES"] = ",".join(map(str, place.bundles))
            # Its engine core joins Ray by this. vLLM 0.32 sets it itself, but not where VLLM_WORKER_MULTIPROC_METHOD
            # is `spawn` already: then the core would start a Ray of its own.
            os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        self._log = engine_log(first.path, stamp.engine_id)
        self._oversubscribe = first.job.schedule.oversubscribe
        self._stamp = stamp
        self._redirect_output(self._log)
        self._teacher = teacher
        self._sampling = sampling
        self._incarnation = incarnation
        self._node_ids = place.node_ids
        self._engine: TeacherEngine
        self._info: EngineInfo | None = None
        self._slots: Slots
        self._works: dict[int, _Work] = {}  # by place of the run in the queue
        self._is_leaving = False
        self._loop: asyncio.AbstractEventLoop | None = None
        on_termination(self._terminated)

    async def start(self) -> Started:
        """Load the teacher; its log says what the settings were resolved to.

        Raises:
            NodeError: If this node, or another of this engine, lacks what it needs.
            TeacherError: If the model cannot be loaded.
        """
        here = ray.get_runtime_context().get_node_id()
        teacher = await self._make_ready(here)
        engine_id = self._stamp.engine_id
        self._engine = make_engine(teacher, self._sampling, engine_id=engine_id, incarnation=self._incarnation)
        self._info = await self._engine.start()
        self._slots = Slots.of(self._info, self._oversubscribe)
        sys.stdout.write(json.dumps({STARTED: asdict(self._info)}) + "\n")
        sys.stdout.flush()
        return Started(self._info, here)

    async def _make_ready(self, here: str) -> Teacher:
        """Have the model on all nodes of this engine; return the teacher as it is loaded from there."""
        revision = self._stamp.teacher_revision
        others = [
            ray.remote(num_cpus=0, max_retries=0)(ready_teacher)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
            .remote(self._teacher, revision)
            for node_id in self._node_ids
            if node_id != here
        ]
        teacher = await asyncio.to_thread(ready_teacher, self._teacher, revision)
        for other in others:
            try:
                await other
            except RayTaskError as error:
                raise error.cause from None
        return teacher

    async def feed(self, order: int, spec: RunSpec, stamp: TraceStamp, coordinator: Any) -> bool:
        """Make a run's attempts until its coordinator says stop; return whether the node is taken away.

        Whoever calls this again for a run gives another engine id: segments are named by it.
        """
        assert self._info is not None, "start() comes first"
        self._loop = asyncio.get_running_loop()
        work = self._works[order] = _Work(spec, stamp, coordinator)
        work.feeder = Feeder(
            engine=self._engine,
            info=self._info,
            stamp=stamp,
            store=spec.job.store,
            journal=spec.path / "journal",
            slots=self._slots,
            pull=work.pull,
            rules=work.rules(),
            sampling=spec.job.sampling,
            order=order,
        )
        if (log := engine_log(spec.path, stamp.engine_id)) != self._log:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(json.dumps({STARTED: asdict(self._info)}) + f"\nwhat it prints: {self._log}\n")
        if self._is_leaving:
            work.feeder.leave()
        work.task = asyncio.create_task(work.feeder.run())
        try:
            await work.task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
        return work.feeder.has_left

    async def drop(self, order: int) -> None:
        """Make no more attempts of a run; what is journaled of them stays."""
        work = self._works.pop(order, None)
        if work is not None and work.task is not None:
            work.task.cancel()
            with suppress(asyncio.CancelledError, OSError):  # a journal that cannot be written: the driver knows
                await work.task

    async def close(self) -> None:
        """End the engine."""
        await self._engine.close()

    async def leave(self) -> None:
        """Give up what is in flight, with its tokens so far in the journals: the node is to be taken away."""
        self._leave()

    def _leave(self) -> None:
        self._is_leaving = True
        for work in self._works.values():
            if work.feeder is not None:
                work.feeder.leave()

    def _terminated(self) -> None:
        """Heed SIGTERM; called in a thread. An engine that loads has nothing to save, and its loop may not turn."""
        if self._loop is None:
            os._exit(TERMINATED)
        self._loop.call_soon_threadsafe(self._leave)

    async def detach(self, order: int) -> Holding:
        """Take no more leases of the coordinator that a run had; return what its next one has to know.

        Also of a run that the engine has ended its work for: perhaps nobody has heard of its last segments.
        """
        work = self._works.get(order)
        if work is None or work.feeder is None:
            return Holding((), 0)
        work.lose_coordinator()
        return work.feeder.holding()

    async def attach(self, order: int, coordinator: Any) -> None:
        """Report to this coordinator of a run from now on."""
        if order in self._works:
            self._works[order].attach(coordinator)

    def _redirect_output(self, log: Path) -> None:
        """Send this process's output, and that of all it starts, to the engine's own log."""
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)


class VerifierActor:
    """Judges traces in its own killable processes. A canary rides along in every report.

    What is judged is reported within ``REPORT_S`` while the rest of a batch goes on, so that one slow program delays no
    other verdict; more traces are asked for as soon as a thread has nothing to do.
    """

    def __init__(self, spec: RunSpec, worker_id: str) -> None:
        set_niceness(verifier_niceness())
        self._spec = spec
        self._worker_id = worker_id
        self._settings = spec.job.verify.readability.settings()
        self._folder = RunFolder(spec.path)
        self._problems = {problem.problem_id: problem for problem, _ in self._folder.problems(self._folder.manifest())}
        require_tier(spec.job.verify.lowest_tier)
        self._has_programs = any(isinstance(one.reference, Tests) for one in self._problems.values())
        self._threads = ThreadPoolExecutor(spec.job.verify.num_processes)
        self._turn = 0
        self._began_at_us = 0
        self._running: dict[asyncio.Future[JudgedTrace], int] = {}  # and when each one's trace ended
        self._delays_s: list[float] = []  # of the report before
        self._coordinator: Any = None

    async def run(self, coordinator: Any) -> None:
        """Judge until the actor is ended.

        Raises:
            VerifierError: If a canary comes out wrong; what it rode along with is not reported.
        """
        watched = tuple(verifiers.canaries(programs=self._has_programs))
        await asyncio.to_thread(verifiers.check_canaries, subset=watched)
        self._coordinator = self._coordinator or coordinator
        self._began_at_us = time.time_ns() // 1000
        while True:
            judged = await self._judged()
            await self._begin(await self._exchange(judged))

    async def attach(self, coordinator: Any) -> None:
        """Report to this coordinator from now on."""
        self._coordinator = coordinator

    async def _judged(self) -> list[tuple[JudgedTrace, int]]:
        """Return what has been judged once all is, or in ``REPORT_S``; with each, when its trace ended."""
        if not self._running:
            return []
        await asyncio.wait(self._running, timeout=REPORT_S)
        judged = [(one.result(), self._running.pop(one)) for one in list(self._running) if one.done()]
        if judged:
            self._turn += 1
            pair = verifiers.one_pair(self._turn, programs=self._has_programs)
            await asyncio.to_thread(verifiers.check_canaries, subset=pair)
        return judged

    async def _begin(self, batch: Sequence[JudgeItem]) -> None:
        """Have a batch judged in the threads, programs last: they may take seconds each."""
        if not batch:
            return
        traces = await asyncio.to_thread(read_traces, self._folder, [item.position for item in batch])
        loop = asyncio.get_running_loop()
        for trace in sorted(traces, key=lambda one: isinstance(self._problems[one.problem_id].reference, Tests)):
            self._running[loop.run_in_executor(self._threads, self._judge_one, trace)] = trace.finished_at_us

    async def _exchange(self, judged: Sequence[tuple[JudgedTrace, int]]) -> Sequence[JudgeItem]:
        """Report, and return what is to be judged next; nothing while no thread would begin with it.

        Where the coordinator has died, its successor has the traces judged again, and ignores what it did not give.

        Raises:
            RayActorError: If the driver names no successor within ``ORPHAN_S``.
        """
        coordinator, verify = self._coordinator, self._spec.job.verify
        size = verify.batch_size if len(self._running) < verify.num_processes else 0
        try:
            batch: Sequence[JudgeItem] = await coordinator.judge.remote(
                self._worker_id,
                [verdict for verdict, _ in judged],
                size,
                self._delays_s,
                wait_s=0.0 if judged or self._running else WAIT_S,
            )
            # Those from before waited for this verifier to start.
            ended = [ended_at_us for _, ended_at_us in judged if ended_at_us >= self._began_at_us]
            self._delays_s = [time.time() - ended_at_us / 1e6 for ended_at_us in ended]
            return batch
        except RayActorError:
            deadline = time.monotonic() + ORPHAN_S
            while self._coordinator is coordinator:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(IDLE_S)
            return []

    def _judge_one(self, trace: Trace) -> JudgedTrace:
        verdict = verifiers.judge(self._problems[trace.problem_id], trace, self._settings)
        return JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=verdict)
