"""The supervisor of one run in one start: starts its roles in Ray, restarts what dies, commits, and ends it cleanly.

Holds no state that matters: all of it is in the run's folder. The engines are not its own (``jobs/engines.py``): other
runs of the queue (``jobs/queue.py``) may use them, too. How attempts are leased and judged is the coordinator's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from factory.actors import CommitterActor, CoordinatorActor, RunSpec, VerifierActor, spawn
from factory.coordinator import CommitBatch, Progress
from factory.feeder import TraceStamp
from factory.plan import Plan
from factory.signs import Signs
from factory.store import RunFolder
from jobs.budget import Budget
from jobs.engines import Engines, cause_of, first_line
from jobs.freezing import Warn, verdicts_digest
from jobs.meters import Gauges, Meters
from schemas.errors import FactoryError, StoreError, TimeLimitRun, VerifierError

POLL_S: Final = 1.0  # between two looks at a commit that is waited for
MAX_DEATHS: Final = 6  # of coordinators or committers in a row, without progress of the run between; guess
MIN_HUNG_S: Final = 60.0  # without a word, at least, before a role other than an engine is taken for hung; guess
VERIFIER_START_S: Final = 600.0  # that a verifier gets beyond that for its first report: it reads the problems; guess
DRAIN_S: Final = 30.0  # that engines get to flush their journals after an interrupt; guess

Watch = Callable[[Progress, str], None]


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


@dataclass(slots=True)
class _Verifier:
    """A verifier, and when it was last heard of."""

    number: int
    actor: Any
    num_reports: int = 0
    heard_at: float = field(default_factory=lambda: time.monotonic() + VERIFIER_START_S)

    @property
    def name(self) -> str:
        """By which the coordinator knows it."""
        return f"verifier-{self.number}"


class Supervisor:
    """Starts and watches the actors of one start of a run, but for the engines."""

    def __init__(
        self, spec: RunSpec, plan: Plan | None, engines: Engines, gauges: Gauges, watch: Watch, warn: Warn, order: int
    ) -> None:
        """Start nothing yet; without a plan nothing is generated. ``order`` is the run's place in the queue."""
        self.spec = spec
        self.job = spec.job
        self.path = path = spec.path
        self.order = order
        self.error: FactoryError | None = None  # why it ended, or must, before it is complete
        self.is_over = False
        self.coordinator: Any = None
        self._plan = plan
        self._engines = engines
        self._watch = watch
        self._warn = warn
        self._told: set[str] = set()  # damage that was warned of
        self._epoch = RunFolder(path).manifest().epoch
        self.meters = Meters(spec.job.name, path, self._epoch, engines.num_gpus, gauges)
        self._budget = Budget.of(None if plan is None else spec.job.schedule.budget, self.meters)
        self._committer: Any = None
        self._num_coordinators = 0
        self._num_stamps = 0
        self._verifiers: dict[Any, _Verifier] = {}  # by the reference of its work
        self._num_verifiers = 0
        self._verifier_deaths, self._coordinator_deaths, self._committer_deaths = _Deaths(), _Deaths(), _Deaths()
        self._num_seen = 0  # traces, verdicts and failures, when the coordinator last said
        self._commit: Any = None
        self._commit_began_at = 0.0
        self._batch: CommitBatch | None = None  # what is being committed, until it is: the committer may die
        self._num_commits = 0
        self._is_draining = False
        self._is_closing = False  # its budget is spent: what was made is judged, and no more is made
        self._committed_at = time.monotonic()
        self._note = ""
        self._last_progress: Progress | None = None
        self._stop_at = math.inf

    @property
    def _hung_s(self) -> float:
        """Seconds after which a coordinator, a verifier or a committer that says nothing is killed."""
        return max(self.job.schedule.stall_s, MIN_HUNG_S)

    @property
    def takes_engines(self) -> bool:
        """True while engines may make attempts of it."""
        return self._plan is not None and not (self._is_draining or self.is_over or self.error is not None)

    def start(self, began_at: float) -> None:
        """Start its roles; its time limit counts from ``began_at``."""
        schedule = self.job.schedule
        limit_s = math.inf if schedule.time_limit_s is None else schedule.time_limit_s
        self._stop_at = began_at + limit_s - schedule.stop_before_s
        self._engines.sweep(self)
        self._start_committer()
        self._start_coordinator()
        self._progress()
        if self._budget.is_spent():
            self._begin_closing()
        if self.order == 0:
            self._start_verifiers()

    def step(self) -> None:
        """See to what is due; ``is_over`` once every attempt is judged and committed.

        Raises:
            BudgetRun: If its budget is spent, and all that was made is judged and committed.
            TimeLimitRun: If ``schedule.time_limit_s`` is near; what was made is safe.
        """
        interval_s = self.job.store.commit_interval_s
        if self._commit is None and time.monotonic() - self._committed_at >= interval_s:
            self._start_commit()
        self._reap_commit(timeout_s=0)
        asked = self._num_coordinators
        progress = self._progress()
        self._kill_hung_verifiers(progress.verifier_reports)
        if not self._verifiers and (progress.in_flight or progress.num_to_judge):  # not before its turn comes
            self._start_verifiers()
        if progress.is_done or (self._is_closing and progress.is_judged):
            self._commit_all()
            self.is_over = self._num_coordinators == asked  # a new one may have found something to do again
            if self.is_over and self._is_closing and (progress := self._progress()).counts.pending:
                raise self._budget.stopped(progress)
        elif self._is_closing:
            return
        elif self._budget.is_spent():
            self._begin_closing()
        elif time.monotonic() >= self._stop_at:
            self.begin_drain()
            self.end_drain()
            schedule = self.job.schedule
            why = f"stopped {schedule.stop_before_s:g} s before schedule.time_limit_s={schedule.time_limit_s:g}"
            raise TimeLimitRun(self.how_to_go_on(why))

    def _begin_closing(self) -> None:
        """Make no more; engines end what they do for it before the judging, so that it costs no GPU."""
        self._is_closing = True
        self.begin_drain()
        self.end_drain()
        self._note = "judging what was made"

    def begin_drain(self) -> None:
        """Have the engines save what they have of it."""
        self._note = "stopping"
        self._is_draining = True
        if self.coordinator is not None:  # else it is not even loaded
            self.ask("drain")

    def end_drain(self) -> None:
        """Let that end, and commit what is judged; what is not is judged by the next start."""
        if self.coordinator is None:
            return
        self._engines.wait_for([self], DRAIN_S)
        self.signs()
        self._commit_all()
        self._engines.release(self)

    def end(self) -> None:
        """Let go of all that it has."""
        self.is_over = True
        if self._last_progress is not None:
            self.meters.keep(self._last_progress, is_last=True)
        self._engines.release(self)
        verifiers = [verifier.actor for verifier in self._verifiers.values()]
        for actor in (*verifiers, self.coordinator, self._committer):
            if actor is not None:
                ray.kill(actor)
        self._verifiers.clear()

    def fail(self, error: FactoryError | RayError | OSError) -> None:
        """Take note of why it cannot go on; the first reason counts."""
        if not isinstance(error, FactoryError):
            error = FactoryError(f"{cause_of(error)}\nall finished attempts are safe in {self.path}")
        self.error = self.error or error

    def how_to_go_on(self, why: str) -> str:
        """Return what to tell the user of a run that was stopped."""
        return f"{why}; all finished attempts are safe in {self.path}; run the same command again to go on"

    def _progress(self) -> Progress:
        progress: Progress = self.ask("progress", self._engines.num_feeding(self))
        counts = progress.counts
        self._num_seen = counts.generated + counts.judged + counts.unjudged + counts.failed
        self.meters.fed(progress.occupancy)
        self._engines.settle(self, self.meters.fed_s)
        note = self._note or self._engines.note
        self._watch(replace(progress, num_tokens_spent=self._budget.spent().num_tokens), note)
        self.meters.show(progress)
        self.meters.keep(progress)
        self._last_progress = progress
        for line in progress.damage:
            if line not in self._told:
                self._told.add(line)
                self._warn(line)
        return progress

    # What engines ask

    def stamp(self, slot: int) -> TraceStamp:
        """Return what its traces by one engine will have in common, under a name that it never gave."""
        assert self._plan is not None, "no plan, no attempts to make"
        self._num_stamps += 1
        return TraceStamp(
            fingerprint=self._plan.fingerprint,
            format=self._plan.renderer.format,
            teacher=self._plan.identity.name,
            teacher_revision=self._plan.identity.revision,
            engine_id=f"engine-{slot}-e{self._epoch}-{self._num_stamps}",
        )

    def signs(self) -> Mapping[str, Signs]:
        """Return each engine's signs of life at this run; take note of the tokens that it made."""
        signs: dict[str, Signs] = self.ask_or({}, "signs")
        self.meters.tokens_made({name: one.num_tokens for name, one in signs.items()})
        return signs

    # The coordinator

    def ask_or(self, default: Any, method: str, *arguments: Any) -> Any:
        """Return what the coordinator answers; the default where the run has failed, or fails by this."""
        if self.error is None:
            try:
                return self.ask(method, *arguments)
            except (FactoryError, RayError, OSError) as error:
                self.fail(error)
        return default

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what the coordinator answers; where it has died, or hangs, start another one and ask that."""
        while True:
            try:
                return ray.get(getattr(self.coordinator, method).remote(*arguments), timeout=self._hung_s)
            except (RayActorError, GetTimeoutError) as error:
                self._count_coordinator_death(self.coordinator, error)
                what = f"did not answer in {self._hung_s:g} s" if isinstance(error, GetTimeoutError) else "died"
                self._warn(f"the coordinator {what}, another takes over")
                self._start_coordinator()

    def _start_coordinator(self) -> None:
        """Have a new coordinator read the run; engines that live go on meanwhile with what they hold."""
        while True:
            self._finish_commit()  # what it writes and deletes is read below
            coordinator = spawn(CoordinatorActor, self.spec)
            try:
                ray.get(coordinator.load.remote(self._plan is not None, self._engines.detach(self)))
                if self._is_draining:
                    ray.get(coordinator.drain.remote())
                self.coordinator = coordinator
                self._engines.serve(self)
                break
            except RayActorError as error:
                self._count_coordinator_death(coordinator, error)
        self._num_coordinators += 1
        for verifier in self._verifiers.values():
            verifier.actor.attach.remote(self.coordinator)
            verifier.num_reports = 0
            verifier.heard_at = max(verifier.heard_at, time.monotonic())

    def _count_coordinator_death(self, coordinator: Any, error: RayActorError | GetTimeoutError) -> None:
        """Make sure that it is dead; it may only be out of reach.

        Raises:
            FactoryError: If it was one death too many.
        """
        ray.kill(coordinator)
        deaths = self._coordinator_deaths.add(self._num_seen)
        if deaths > MAX_DEATHS:
            raise FactoryError(
                f"the coordinator died {deaths} times without progress between: {first_line(error)}\n"
                f"all finished attempts are safe in {self.path}"
            ) from error

    # Verifiers

    def refs(self) -> list[Any]:
        """Return what to wait for."""
        return list(self._verifiers)

    def _start_verifiers(self) -> None:
        for _ in range(self.job.verify.num_workers):
            self._start_verifier()

    def _start_verifier(self) -> None:
        self._num_verifiers += 1
        verifier = _Verifier(self._num_verifiers, None)
        verifier.actor = spawn(VerifierActor, self.spec, verifier.name)
        self._verifiers[verifier.actor.run.remote(self.coordinator)] = verifier

    def _kill_hung_verifiers(self, num_reports: Mapping[str, int]) -> None:
        """Kill verifiers that do not report: once they have begun they do so every second, come what may.

        What judges is in processes of its own, which have limits of their own.
        """
        now = time.monotonic()
        for verifier in self._verifiers.values():
            count = num_reports.get(verifier.name, 0)
            if count not in (0, verifier.num_reports):
                verifier.num_reports, verifier.heard_at = count, now
            elif now - verifier.heard_at > self._hung_s:
                self._warn(f"{verifier.name} did not report in {self._hung_s:g} s, it is killed")
                verifier.heard_at = math.inf
                ray.kill(verifier.actor)

    def verifier_ended(self, ref: Any) -> None:
        """Start another verifier in place of one that died; one that found itself broken ends the run.

        Raises:
            VerifierError: If a canary came out wrong, or verifiers keep dying.
        """
        verifier = self._verifiers.pop(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:  # also one that waited in vain for another coordinator
            raise VerifierError(f"verifier {verifier.number} failed: {cause_of(error)}") from error
        except RayActorError as error:
            self.ask("verifier_died", verifier.name)
            counts = self._progress().counts
            deaths = self._verifier_deaths.add(counts.judged + counts.unjudged)
            if deaths > self.job.verify.max_tries:
                raise VerifierError(
                    f"verifiers died {deaths} times without a verdict between: {first_line(error)}"
                ) from error
            self._start_verifier()

    # Commits

    def _start_committer(self) -> None:
        self._committer = spawn(CommitterActor, self.path, verdicts_digest(self.job))

    def _start_commit(self) -> bool:
        """Hand what may be committed to the committer; False if there is nothing."""
        self._committed_at = time.monotonic()
        batch: CommitBatch = self.ask("take_commit")
        if batch.is_empty:
            return False
        self._batch = batch
        self._hand_over(batch)
        if not batch.is_last:
            self._committed_at = -math.inf  # the next follows at once
        return True

    def _hand_over(self, batch: CommitBatch | None) -> None:
        self._commit = self._committer.commit.remote(batch)
        self._commit_began_at = time.monotonic()

    def _reap_commit(self, *, timeout_s: float) -> None:
        """Take note of a commit that has ended; where the committer died or hangs, have another one do it again.

        Raises:
            StoreError: If it failed, or committers die again and again.
        """
        if self._commit is None:
            return
        if not ray.wait([self._commit], timeout=timeout_s)[0]:
            if time.monotonic() - self._commit_began_at <= self._hung_s:
                return
            self._warn(f"the committer did not end a commit in {self._hung_s:g} s, it is killed")
            ray.kill(self._committer)  # one that lives on all the same finds its number taken
        try:
            ray.get(self._commit)
        except RayTaskError as error:
            self._commit = self._batch = None
            raise StoreError(
                f"{self.path}: the commit failed: {cause_of(error)}; nothing is lost, run again once this is mended"
            ) from error
        except RayActorError as error:
            ray.kill(self._committer)
            deaths = self._committer_deaths.add(self._num_commits)
            if deaths > MAX_DEATHS:
                raise StoreError(
                    f"{self.path}: committers died {deaths} times at one commit: {first_line(error)}; "
                    "nothing is lost, run the same command again"
                ) from error
            self._warn("the committer died, another takes over")
            self._start_committer()
            self._hand_over(self._batch)
        else:
            self._commit = self._batch = None
            self._num_commits += 1

    def _finish_commit(self) -> None:
        """Wait for the commit that goes on, if one does."""
        while self._commit is not None:
            self._reap_commit(timeout_s=POLL_S)

    def _commit_all(self) -> None:
        """Commit until nothing is left."""
        self._finish_commit()
        while self._start_commit():
            self._finish_commit()
