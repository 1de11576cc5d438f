"""The supervisor of one start of a run: starts the roles in Ray, restarts what dies, commits, and ends cleanly.

Holds no state that matters: all of it is in the run's folder. Decides what to restart and when to give up; how attempts
are leased and judged is the coordinator's.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from factory.actors import (
    CommitterActor,
    CoordinatorActor,
    EngineActor,
    Place,
    RunSpec,
    VerifierActor,
    engine_log,
    spawn,
)
from factory.coordinator import CommitBatch, Progress
from factory.feeder import Holding, TraceStamp
from factory.plan import Plan
from factory.store import RunFolder
from factory.teachers import EngineInfo
from jobs.budget import Budget
from jobs.freezing import Warn, verdicts_digest
from jobs.gpus import Demand, demand_of_teacher, placed_by_ray
from jobs.groups import Group, bundles_by_rank, make_group, num_split_stages, sweep
from jobs.meters import Meters
from jobs.nodes import draining_nodes, free_gpus, is_taken
from jobs.signals import Notice
from schemas.errors import (
    FactoryError,
    InterruptedRun,
    NodeError,
    StoreError,
    TeacherError,
    TerminatedRun,
    TimeLimitRun,
    VerifierError,
)

POLL_S: Final = 0.25  # of the supervising loop
LOG_TAIL_LINES: Final = 12  # of an engine's log, shown when it is given up
LOG_ERROR_LINES: Final = 6  # distinct lines of it that name an error, from the first
ERROR_LINE: Final = re.compile(r"\b[\w.]*(?:Error|Exception): .*")
DRAINING_POLL_S: Final = 2.0  # between two looks for nodes that are being drained; a look takes milliseconds
DETACH_S: Final = 30.0  # that an engine gets to say what it holds when the coordinator has died; guess
MAX_DEATHS: Final = 6  # of coordinators or committers in a row, without progress of the run between; guess
FIRST_PAUSE_S: Final = 1.0  # before an engine that died twice in a row is started again; doubled at each further death
MAX_PAUSE_S: Final = 60.0
DRAIN_S: Final = 30.0  # that engines get to flush their journals after an interrupt; guess

Watch = Callable[[Progress, str], None]


@dataclass(slots=True)
class _Engine:
    """One engine slot: the incarnation that serves it now."""

    slot: int
    stamp: TraceStamp
    incarnation: int
    group: Group | None = None  # its GPUs, where they are not the actor's own
    actor: Any = None  # none while the group waits for room
    ref: Any = None
    is_running: bool = False  # started, and feeding
    restarts: int = 0  # in a row, without an attempt that was finished or came further between
    node_ids: tuple[str, ...] = ()  # known once it has loaded
    is_leaving: bool = False  # was told that a node of it is being drained
    tokens: int = -1
    progress_at: float = field(default_factory=time.monotonic)

    @property
    def engine_id(self) -> str:
        """Name of this incarnation."""
        return self.stamp.engine_id

    def end(self) -> None:
        """Kill its actor, if there is one, and whatever else runs on its GPUs."""
        if self.actor is not None:
            ray.kill(self.actor)
        if self.group is not None:
            self.group.remove()


@dataclass(slots=True)
class _Deaths:
    """How often a role died in a row, without progress of the run between."""

    in_a_row: int = 0
    progress: int = -1  # at the last of them

    def add(self, progress: int) -> int:
        """Count a death at this progress, whatever measures it; return how many there were in a row."""
        self.in_a_row = 1 if progress > self.progress else self.in_a_row + 1
        self.progress = progress
        return self.in_a_row


class Supervisor:
    """Starts and watches the actors of one start of a run."""

    def __init__(self, spec: RunSpec, plan: Plan | None, watch: Watch, warn: Warn, began_at: float) -> None:
        """Start nothing yet; without a plan nothing is generated. The time limit counts from ``began_at``."""
        self._spec = spec
        self._plan = plan
        self._job = spec.job
        self._demand = Demand() if plan is None else demand_of_teacher(plan.teacher)
        self._path = path = spec.path
        self._watch = watch
        self._warn = warn
        self._told: set[str] = set()  # damage that was warned of
        self._epoch = RunFolder(path).manifest().epoch
        self._meters = Meters(spec.job.name, path, self._epoch, self._demand.num_gpus)
        self._budget = Budget.of(None if plan is None else spec.job.schedule.budget, self._meters)
        self._committer: Any = None
        self._coordinator: Any = None
        self._num_coordinators = 0
        self._has_gaps = False  # there may be attempts to make, and slots without an engine
        self._engines: dict[int, _Engine] = {}
        self._pausing: dict[int, tuple[float, int]] = {}  # slot -> (when it is started again, deaths in a row)
        self._verifiers: dict[Any, tuple[int, Any]] = {}  # run reference -> (number, actor)
        self._num_verifiers = 0
        self._incarnations = 0
        self._verifier_deaths, self._coordinator_deaths, self._committer_deaths = _Deaths(), _Deaths(), _Deaths()
        self._num_seen = 0  # traces, verdicts and failures, when the coordinator last said
        self._info: EngineInfo | None = None
        self._commit: Any = None
        self._batch: CommitBatch | None = None  # what is being committed, until it is: the committer may die
        self._num_commits = 0
        self._is_draining = False
        self._committed_at = time.monotonic()
        self._note = "starting"
        self._last_progress: Progress | None = None
        schedule = spec.job.schedule
        limit_s = math.inf if schedule.time_limit_s is None else schedule.time_limit_s
        self._stop_at = began_at + limit_s - schedule.stop_before_s
        self._looked_at_nodes = time.monotonic()

    def supervise(self, notice: Notice) -> None:
        """Run until every attempt is judged and committed."""
        try:
            if strays := sweep(self._path):
                self._warn(f"{strays} placement groups that a former start of this run left are removed")
            self._start_committer()
            self._start_coordinator()
            progress = self._progress()
            if not self._budget.is_spent(progress):
                self._fill_slots()
            for _ in range(self._job.verify.num_workers):
                self._start_verifier()
            while not self._is_stopped_by_budget(progress):
                self._step()
                asked = self._num_coordinators
                progress = self._progress()
                if progress.is_done:
                    self._commit_all()
                    if self._num_coordinators == asked:  # a new one may have found something to do again
                        return
                if time.monotonic() >= self._stop_at:
                    self._drain()
                    schedule = self._job.schedule
                    why = f"stopped {schedule.stop_before_s:g} s before schedule.time_limit_s={schedule.time_limit_s:g}"
                    raise TimeLimitRun(self._how_to_go_on(why))
        except KeyboardInterrupt:
            self._drain()
            if notice.has_come:
                raise TerminatedRun(self._how_to_go_on("stopped by SIGTERM")) from None
            raise InterruptedRun(self._how_to_go_on("interrupted")) from None
        except RayError as error:
            raise FactoryError(f"{_cause(error)}\nall finished attempts are safe in {self._path}") from error
        finally:
            with suppress(RayError):  # of a cluster that is gone
                if self._last_progress is not None:
                    self._meters.keep(self._last_progress, is_last=True)
                for engine in self._engines.values():
                    engine.end()

    def _is_stopped_by_budget(self, progress: Progress) -> bool:
        """Return whether the budget is spent and all that was made judged, with nothing left to make.

        Raises:
            BudgetRun: If something is left.
        """
        if not self._budget.is_spent(progress):
            return False
        self._drain()
        for engine in list(self._engines.values()):
            self._engine_stopped(engine, has_left=False)
        for slot in self._pausing:
            self._meters.engine_ended(slot)
        self._note = "judging what was made"
        while not self._progress().is_judged:
            for ref in ray.wait(list(self._verifiers), timeout=POLL_S)[0]:
                self._verifier_ended(ref)
        self._commit_all()
        if self._progress().counts.pending:
            raise self._budget.stopped(self._progress())
        return True

    def _how_to_go_on(self, why: str) -> str:
        return f"{why}; all finished attempts are safe in {self._path}; run the same command again to go on"

    def _progress(self) -> Progress:
        progress: Progress = self._ask("progress", len(self._engines))
        counts = progress.counts
        self._num_seen = counts.generated + counts.judged + counts.unjudged + counts.failed
        self._watch(replace(progress, num_tokens_spent=self._budget.spent(progress).num_tokens), self._note)
        self._meters.show(progress)
        self._meters.keep(progress)
        self._last_progress = progress
        for line in progress.damage:
            if line not in self._told:
                self._told.add(line)
                self._warn(line)
        return progress

    def _step(self) -> None:
        """Wait a moment for anything to end, then see to it."""
        refs = [engine.ref for engine in self._engines.values() if engine.ref is not None] + list(self._verifiers)
        done, _ = ray.wait(refs, timeout=POLL_S, num_returns=1) if refs else ([], [])
        for ref in done:
            if ref in self._verifiers:
                self._verifier_ended(ref)
            else:
                engine = next(engine for engine in self._engines.values() if engine.ref == ref)
                self._engine_moved(engine)
        self._place_engines()
        self._kill_stalled()
        self._look_at_nodes()
        self._fill_slots()
        interval_s = self._job.store.commit_interval_s
        if self._commit is None and time.monotonic() - self._committed_at >= interval_s:
            self._start_commit()
        self._reap_commit(timeout_s=0)

    # The coordinator

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Return what the coordinator answers; where it has died, start another one and ask that."""
        while True:
            try:
                return ray.get(getattr(self._coordinator, method).remote(*arguments))
            except RayActorError as error:
                self._count_coordinator_death(self._coordinator, error)
                self._warn("the coordinator died, another takes over")
                self._start_coordinator()

    def _start_coordinator(self) -> None:
        """Have a new coordinator read the run; engines that live go on meanwhile with what they hold."""
        while True:
            self._finish_commit()  # what it writes and deletes is read below
            coordinator = spawn(CoordinatorActor, self._spec)
            try:
                ray.get(coordinator.load.remote(self._plan is not None, self._detach_engines()))
                if self._info is not None and self._info.max_model_len is not None:
                    ray.get(coordinator.context_known.remote(self._info.max_model_len))
                if self._is_draining:
                    ray.get(coordinator.drain.remote())
                break
            except RayActorError as error:
                self._count_coordinator_death(coordinator, error)
        self._coordinator = coordinator
        self._num_coordinators += 1
        self._has_gaps = True
        verifier_actors = [actor for _, actor in self._verifiers.values()]
        for actor in [*(engine.actor for engine in self._engines.values()), *verifier_actors]:
            if actor is not None:
                actor.attach.remote(self._coordinator)

    def _count_coordinator_death(self, coordinator: Any, error: RayActorError) -> None:
        """Make sure that it is dead; it may only be out of reach.

        Raises:
            FactoryError: If it was one death too many.
        """
        ray.kill(coordinator)
        deaths = self._coordinator_deaths.add(self._num_seen)
        if deaths > MAX_DEATHS:
            raise FactoryError(
                f"the coordinator died {deaths} times without progress between: {_first_line(error)}\n"
                f"all finished attempts are safe in {self._path}"
            ) from error

    def _detach_engines(self) -> dict[str, Holding]:
        """Return what each running engine holds; one that does not answer is killed, and its death seen to later."""
        refs = {
            engine.engine_id: engine.actor.detach.remote() for engine in self._engines.values() if engine.is_running
        }
        ray.wait(list(refs.values()), num_returns=len(refs), timeout=DETACH_S) if refs else None
        holdings = {}
        for engine in self._engines.values():
            try:
                if engine.is_running:
                    holdings[engine.engine_id] = ray.get(refs[engine.engine_id], timeout=0)
            except (RayActorError, GetTimeoutError):
                ray.kill(engine.actor)
        return holdings

    # Engines

    def _start_engine(self, slot: int, *, restarts: int) -> None:
        assert self._plan is not None, "no plan, no attempts to make"
        self._incarnations += 1
        engine_id = f"engine-{slot}-e{self._epoch}-{self._incarnations}"
        stamp = TraceStamp(
            fingerprint=self._plan.fingerprint,
            format=self._plan.renderer.format,
            teacher=self._plan.identity.name,
            teacher_revision=self._plan.identity.revision,
            engine_id=engine_id,
        )
        is_first = restarts == 0 and self._incarnations <= self._job.teacher.num_engines
        engine = self._engines[slot] = _Engine(slot, stamp, 1 if is_first else 2, restarts=restarts)
        if self._demand.is_group:
            engine.group = make_group(self._path, engine_id, self._demand.num_gpus)
            self._note = f"waiting for {self._demand.num_gpus} GPUs"
        else:
            self._load_engine(engine, num_gpus=self._demand.num_gpus)

    def _load_engine(self, engine: _Engine, *, num_gpus: int = 0, nodes: Sequence[str] = ()) -> None:
        """Start the actor of an engine: with GPUs of its own, or with those of its group, whose bundles lie there."""
        assert self._plan is not None, "no plan, no attempts to make"
        teacher, strategy = self._plan.teacher, None
        place = Place(bundles=bundles_by_rank(nodes, self._demand.num_per_stage), node_ids=tuple(set(nodes)))
        if engine.group is not None:
            teacher = placed_by_ray(teacher)
            strategy = PlacementGroupSchedulingStrategy(
                engine.group.handle,
                placement_group_bundle_index=place.bundles[0],
                placement_group_capture_child_tasks=True,
            )
        self._meters.engine_spawned(engine.slot)
        arguments = (self._spec, teacher, engine.stamp, engine.incarnation, place)
        engine.actor = spawn(EngineActor, *arguments, num_gpus=num_gpus, place=strategy)
        engine.ref = engine.actor.start.remote()
        engine.node_ids, engine.progress_at = place.node_ids, time.monotonic()
        self._note = "loading the teacher"

    def _place_engines(self) -> None:
        """Load the engines whose GPUs there are now.

        Raises:
            TeacherError: If none came in ``teacher.start_timeout_s``, and no other engine works.
        """
        limit_s = self._job.teacher.start_timeout_s
        for engine in [engine for engine in self._engines.values() if engine.actor is None]:
            assert engine.group is not None, "it has an actor at once"
            if not self._ask("num_to_make"):
                self._engine_stopped(engine, has_left=False)
            elif nodes := engine.group.nodes():
                if split := num_split_stages(nodes, self._demand.num_per_stage):
                    self._warn(f"engine {engine.slot}: {split} tensor parallel stages lie on several nodes: slow")
                self._load_engine(engine, nodes=nodes)
            elif time.monotonic() - engine.progress_at > limit_s:
                engine.progress_at = time.monotonic()
                why = (
                    f"the cluster gave engine {engine.slot} no {self._demand.num_gpus} GPUs in {limit_s:g} s "
                    f"(teacher.start_timeout_s); free are {free_gpus() or 'none'}"
                )
                if not any(other.actor is not None for other in self._engines.values()):
                    raise TeacherError(f"{why}; start more nodes, or lower what an engine takes, and run again")
                self._warn(f"{why}; the others go on")

    def _engine_moved(self, engine: _Engine) -> None:
        """See to an engine whose start or run has ended, well or not."""
        try:
            result = ray.get(engine.ref)
        except RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, OSError | StoreError):  # such as a full disk: another engine would meet it too
                raise StoreError(
                    f"{self._path}: the journal cannot be written: {cause}; mend it and run again"
                ) from error
            if isinstance(cause, NodeError) or (not engine.is_running and self._info is None):
                # It never worked, or cannot there: starting it again will not help.
                raise TeacherError(f"{cause}\n{self._log_tail(engine)}") from error
            self._engine_died(engine, str(cause))
        except RayActorError as error:
            was_taken = is_taken(engine.node_ids)
            why = "its node was stopped" if was_taken else f"its process ended: {_first_line(error)}"
            self._engine_died(engine, why, was_taken=was_taken)
        else:
            if engine.is_running:
                self._engine_stopped(engine, has_left=result)
                return
            info, node_id = result
            self._info, engine.node_ids = info, engine.node_ids or (node_id,)
            if info.max_model_len is not None:
                self._ask("context_known", info.max_model_len)
            engine.is_running = True
            self._meters.engine_loaded(engine.slot, time.monotonic() - engine.progress_at)
            engine.progress_at = time.monotonic()
            engine.ref = engine.actor.run.remote(self._coordinator)
            self._note = ""

    def _engine_stopped(self, engine: _Engine, *, has_left: bool) -> None:
        """See to an engine that ended well: told to stop, or, if it ``has_left``, since its node is taken away."""
        if has_left and self._ask("num_to_make"):
            engine.end()
            self._start_engine(engine.slot, restarts=engine.restarts)
            self._warn(f"the node of engine {engine.slot} is taken away; its attempts go on elsewhere")
            return
        engine.end()
        del self._engines[engine.slot]  # nothing left for it; what others hold comes back if they die
        self._meters.engine_ended(engine.slot)

    def _look_at_nodes(self) -> None:
        """Tell engines to leave whose node is being drained; see to those that lost one of several nodes."""
        now = time.monotonic()
        if now - self._looked_at_nodes < DRAINING_POLL_S:
            return
        self._looked_at_nodes = now
        running = [engine for engine in self._engines.values() if engine.is_running and not engine.is_leaving]
        draining = draining_nodes() if running else set()
        for engine in running:
            if not draining.isdisjoint(engine.node_ids):
                engine.is_leaving = True
                engine.actor.leave.remote()
        for engine in list(self._engines.values()):  # an engine may not notice, or wait long for an answer
            if (
                engine.group is not None
                and engine.actor is not None
                and set(engine.group.nodes()) != {*engine.node_ids}
            ):
                self._engine_died(engine, "a node of it died", was_taken=is_taken(engine.node_ids))

    def _engine_died(self, engine: _Engine, why: str, *, was_taken: bool = False) -> None:
        """Take back its leases, read its journal, start the next incarnation; give up after too many in a row.

        Where it was not the first death in a row, the next incarnation waits, longer each time; where its node
        ``was_taken`` away, it was no death.

        Raises:
            TeacherError: If the engine died more than ``schedule.max_engine_restarts`` times in a row.
        """
        engine.end()
        has_progressed = self._ask("engine_died", engine.engine_id, was_taken)
        if was_taken or not self._ask("num_to_make"):
            self._engine_stopped(engine, has_left=was_taken)
            return
        restarts = 1 if has_progressed else engine.restarts + 1
        if restarts > self._job.schedule.max_engine_restarts:
            raise TeacherError(
                f"engine {engine.slot} died {restarts} times in a row without progress (limit "
                f"schedule.max_engine_restarts={self._job.schedule.max_engine_restarts}); the last time: {why}\n"
                f"{self._log_tail(engine)}"
            )
        if restarts == 1:
            self._start_engine(engine.slot, restarts=restarts)
            self._warn(f"engine {engine.slot} died ({why[:80]}), restarted")
            return
        del self._engines[engine.slot]
        pause_s = min(FIRST_PAUSE_S * 2 ** (restarts - 2), MAX_PAUSE_S)
        self._pausing[engine.slot] = (time.monotonic() + pause_s, restarts)
        self._note = f"engine {engine.slot} died {restarts} times in a row ({why[:80]}), next try in {pause_s:g} s"
        self._warn(self._note)

    def _fill_slots(self) -> None:
        """Start the engines whose pause is over, and those that a new coordinator has work for, if any is left."""
        due = {slot: restarts for slot, (at, restarts) in self._pausing.items() if time.monotonic() >= at}
        if self._has_gaps and self._plan is not None:
            slots = set(range(self._job.teacher.num_engines)) - self._engines.keys() - self._pausing.keys()
            due |= dict.fromkeys(slots, 0)
        self._has_gaps = False
        if due and self._ask("num_to_make"):
            for slot, restarts in due.items():
                self._start_engine(slot, restarts=restarts)
        for slot in due:
            self._pausing.pop(slot, None)

    def _log_tail(self, engine: _Engine) -> str:
        """Return the errors in an engine's log, and its last lines: the root cause often lies far above the end."""
        log = engine_log(self._path, engine.engine_id)
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return f"it wrote no log ({log})"
        if not lines:
            return f"it wrote nothing to its log ({log})"
        errors = dict.fromkeys(found.group() for line in lines if (found := ERROR_LINE.search(line)))
        shown = [*list(errors)[:LOG_ERROR_LINES], "...", *lines[-LOG_TAIL_LINES:]]
        return f"errors and last lines of {log}:\n" + "\n".join(shown)

    def _kill_stalled(self) -> None:
        """Kill engines that hold attempts and generate no token: vLLM can stall with healthy endpoints."""
        tokens = self._ask("engine_tokens")
        self._meters.tokens_made({name: made for name, (made, _) in tokens.items()})
        now = time.monotonic()
        for engine in [engine for engine in self._engines.values() if engine.actor is not None]:
            seen, has_leases = tokens.get(engine.engine_id, (-1, False))
            if not engine.is_running:
                limit_s, what = self._job.teacher.start_timeout_s, "did not start"
            else:
                limit_s, what = self._job.schedule.stall_s, "generated no token"
                if seen != engine.tokens or not has_leases:
                    engine.tokens, engine.progress_at = seen, now
            if now - engine.progress_at > limit_s:
                self._engine_died(engine, f"it {what} in {limit_s:g} s")

    # Verifiers

    def _start_verifier(self) -> None:
        self._num_verifiers += 1
        actor = spawn(VerifierActor, self._spec, f"verifier-{self._num_verifiers}")
        self._verifiers[actor.run.remote(self._coordinator)] = (self._num_verifiers, actor)

    def _verifier_ended(self, ref: Any) -> None:
        """Start another verifier in place of one that died; one that found itself broken ends the run.

        Raises:
            VerifierError: If a canary came out wrong, or verifiers keep dying.
        """
        number, _ = self._verifiers.pop(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:  # also one that waited in vain for another coordinator
            raise VerifierError(f"verifier {number} failed: {_cause(error)}") from error
        except RayActorError as error:
            self._ask("verifier_died", f"verifier-{number}")
            counts = self._progress().counts
            deaths = self._verifier_deaths.add(counts.judged + counts.unjudged)
            if deaths > self._job.verify.max_tries:
                raise VerifierError(
                    f"verifiers died {deaths} times without a verdict between: {_first_line(error)}"
                ) from error
            self._start_verifier()

    # Commits

    def _start_committer(self) -> None:
        self._committer = spawn(CommitterActor, self._path, verdicts_digest(self._job))

    def _start_commit(self) -> bool:
        """Hand what may be committed to the committer; False if there is nothing."""
        self._committed_at = time.monotonic()
        batch: CommitBatch = self._ask("take_commit")
        if batch.is_empty:
            return False
        self._batch = batch
        self._commit = self._committer.commit.remote(batch)
        if not batch.is_last:
            self._committed_at = -math.inf  # the next follows at once
        return True

    def _reap_commit(self, *, timeout_s: float | None) -> None:
        """Take note of a commit that has ended; where the committer died at it, have another one do it again.

        Raises:
            StoreError: If it failed, or committers die again and again.
        """
        if self._commit is None or not ray.wait([self._commit], timeout=timeout_s)[0]:
            return
        try:
            ray.get(self._commit)
        except RayTaskError as error:
            self._commit = self._batch = None
            raise StoreError(
                f"{self._path}: the commit failed: {_cause(error)}; nothing is lost, run again once this is mended"
            ) from error
        except RayActorError as error:
            ray.kill(self._committer)
            deaths = self._committer_deaths.add(self._num_commits)
            if deaths > MAX_DEATHS:
                raise StoreError(
                    f"{self._path}: committers died {deaths} times at one commit: {_first_line(error)}; "
                    "nothing is lost, run the same command again"
                ) from error
            self._warn("the committer died, another takes over")
            self._start_committer()
            self._commit = self._committer.commit.remote(self._batch)
        else:
            self._commit = self._batch = None
            self._num_commits += 1

    def _finish_commit(self) -> None:
        """Wait for the commit that goes on, if one does."""
        while self._commit is not None:
            self._reap_commit(timeout_s=None)

    def _commit_all(self) -> None:
        """Commit until nothing is left."""
        self._finish_commit()
        while self._start_commit():
            self._finish_commit()

    def _drain(self) -> None:
        """Let the engines save what they have, commit what is judged; what is not is judged by the next start."""
        self._note = "stopping"
        self._is_draining = True
        if self._coordinator is None:  # not even loaded
            return
        self._ask("drain")
        refs = [engine.ref for engine in self._engines.values() if engine.is_running]
        if refs:
            ray.wait(refs, timeout=DRAIN_S, num_returns=len(refs))
        self._meters.tokens_made({name: made for name, (made, _) in self._ask("engine_tokens").items()})
        self._commit_all()


def _cause(error: BaseException) -> BaseException:
    """Return what was raised in the actor, without Ray's wrapping."""
    return error.cause if isinstance(error, RayTaskError) and error.cause is not None else error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
