"""The engines of one start: started, placed, watched and restarted, and lent to all runs of a queue at once.

An engine is fed for each run by a feeder of its own (``factory/sharing.py`` says whose attempts it takes), so a run
knows an engine by the name of that feeding alone. Holds nothing that matters: what engines have in flight is known to
the coordinators. Decides what to restart and when to give up; an error raised here is of the engines, and so of all
runs; what goes wrong with one run is that run's ``error``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from factory.actors import EngineActor, Place, engine_log, spawn
from factory.feeder import Holding, TraceStamp
from factory.signs import Signs, added, shows_life
from factory.teachers import EngineInfo, Loaded
from jobs.freezing import Warn
from jobs.gpus import Demand, demand_of_teacher, placed_by_ray
from jobs.groups import Group, bundles_by_rank, make_group, num_split_stages, sweep
from jobs.meters import EngineTime
from jobs.nodes import draining_nodes, free_gpus, is_taken
from schemas.config import SamplingConfig, Teacher
from schemas.errors import NodeError, StoreError, TeacherError

if TYPE_CHECKING:
    from jobs.supervisor import Supervisor

LOG_TAIL_LINES: Final = 12  # of an engine's log, shown when it is given up
LOG_ERROR_LINES: Final = 6  # distinct lines of it that name an error, from the first
ERROR_LINE: Final = re.compile(r"\b[\w.]*(?:Error|Exception): .*")
DRAINING_POLL_S: Final = 2.0  # between two looks for nodes that are being drained; a look takes milliseconds
DETACH_S: Final = 30.0  # that an engine gets to say what it holds when a coordinator has died; guess
FIRST_PAUSE_S: Final = 1.0  # before an engine that died twice in a row is started again; doubled at each further death
MAX_PAUSE_S: Final = 60.0
GIVEN_UP_PAUSE_S: Final = 600.0  # before one that failed too often is tried again, while others work; guess
CLOSE_S: Final = 10.0  # that an engine gets to end its own processes before it is killed; guess


@dataclass(frozen=True, slots=True)
class _Feed:
    """What an engine does for one run."""

    run: Supervisor
    engine_id: str  # by which the run knows the engine
    ref: Any


@dataclass(slots=True)
class _Engine:
    """One engine slot: the incarnation that serves it now."""

    slot: int
    first: Supervisor  # the run whose logs hold what it prints
    stamp: TraceStamp  # by which that run knows it
    incarnation: int
    group: Group | None = None  # its GPUs, where they are not the actor's own
    actor: Any = None  # none while the group waits for room
    ref: Any = None  # of its start
    is_running: bool = False  # started, and feeding
    has_fed_first: bool = False  # the next time it is known by another name
    feeds: dict[int, _Feed] = field(default_factory=dict)  # by the run's place in the queue
    restarts: int = 0  # in a row, without an attempt that was finished or came further between
    node_ids: tuple[str, ...] = ()  # known once it has loaded, as is this
    loaded: Loaded | None = None
    is_leaving: bool = False  # was told that a node of it is being drained
    signs: Signs = field(default_factory=Signs)  # over all runs, when they last changed
    progress_at: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        """Kill its actor, if there is one, and whatever else runs on its GPUs."""
        if self.actor is not None:
            ray.kill(self.actor)
        if self.group is not None:
            self.group.remove()


class Engines:
    """Starts and watches the engines, as many as the teacher of the runs has."""

    def __init__(self, teacher: Teacher | None, samplings: Sequence[SamplingConfig], warn: Warn) -> None:
        """Start nothing yet; without a teacher nothing is generated. The runs' samplings, in the order of the runs."""
        self._teacher = teacher
        self._demand = Demand() if teacher is None else demand_of_teacher(teacher)
        # Requests bring their own; that of the engine says what it must be able to do.
        self._samplings = sorted(samplings, key=lambda sampling: sampling.thinking_budget is None)
        self._warn = warn
        self._runs: list[Supervisor] = []  # in the order of the queue
        self._has_gaps = False  # there may be attempts to make, and slots without an engine
        self._unfed: list[Supervisor] = []  # runs for which that may hold of engines that are there
        self._engines: dict[int, _Engine] = {}
        self._closing: dict[Any, _Engine] = {}  # by the reference of what they were told
        self._pausing: dict[int, tuple[float, int]] = {}  # slot -> (when it is started again, deaths in a row)
        self._incarnations = 0
        self._info: EngineInfo | None = None
        self._time = EngineTime()
        self._looked_at_nodes = time.monotonic()
        self.note = "starting"

    @property
    def num_gpus(self) -> int:
        """GPUs of an engine."""
        return self._demand.num_gpus

    # What runs ask

    def sweep(self, run: Supervisor) -> None:
        """Remove the placement groups that former starts of a run left."""
        if strays := sweep(run.path):
            self._warn(f"{strays} placement groups that a former start of this run left are removed")

    def serve(self, run: Supervisor) -> None:
        """Work for a run's coordinator, which is new: engines that work for the run already go on with it."""
        if run not in self._runs:
            self._runs = sorted([*self._runs, run], key=lambda one: one.order)
        self._has_gaps = True
        self._unfed.append(run)
        if self._info is not None and self._info.max_model_len is not None:
            ray.get(run.coordinator.context_known.remote(self._info.max_model_len))
        for engine, _ in self._feeds_of(run):
            engine.actor.attach.remote(run.order, run.coordinator)

    def detach(self, run: Supervisor) -> dict[str, Holding]:
        """Return what each engine holds of a run; one that does not answer is killed, and its death seen to later."""
        feeds = self._feeds_of(run)
        refs = {feed.engine_id: engine.actor.detach.remote(run.order) for engine, feed in feeds}
        ray.wait(list(refs.values()), num_returns=len(refs), timeout=DETACH_S) if refs else None
        holdings = {}
        for engine, feed in feeds:
            try:
                holdings[feed.engine_id] = ray.get(refs[feed.engine_id], timeout=0)
            except (RayActorError, GetTimeoutError):
                ray.kill(engine.actor)
        return holdings

    def num_feeding(self, run: Supervisor) -> int:
        """Return how many engines work for a run."""
        return len(self._feeds_of(run))

    def wait_for(self, runs: Iterable[Supervisor], timeout_s: float) -> None:
        """Give the engines time to end what they do for some runs."""
        refs = [feed.ref for run in runs for _, feed in self._feeds_of(run)]
        if refs:
            ray.wait(refs, timeout=timeout_s, num_returns=len(refs))

    def release(self, run: Supervisor) -> None:
        """Do no more for a run; engines that work for no other end."""
        self._runs = [one for one in self._runs if one is not run]
        for engine, feed in self._feeds_of(run):
            del engine.feeds[run.order]
            if not ray.wait([feed.ref], timeout=0)[0]:
                engine.actor.drop.remote(run.order)
        if any(one.takes_engines for one in self._runs):
            idle = [engine for engine in self._engines.values() if engine.is_running and not engine.feeds]
        else:
            idle = list(self._engines.values())
            for slot in self._pausing:
                self._time.ended(slot)
            self._pausing.clear()
        for engine in idle:
            self._close(engine)

    def settle(self, run: Supervisor, fed_s: Mapping[int, float]) -> None:
        """Divide the engines' time, of which feeding a run took so much by slot: what took none is the first one's."""
        first = next((one for one in self._runs if one.takes_engines), run)
        self._time.settle(run.order, fed_s, first.meters)

    def end(self) -> None:
        """Kill all, but let those end that were told to."""
        if self._closing:
            ray.wait(list(self._closing), timeout=CLOSE_S, num_returns=len(self._closing))
        for engine in [*self._engines.values(), *self._closing.values()]:
            engine.end()

    # What the queue asks

    def refs(self) -> list[Any]:
        """Return what to wait for."""
        starts = [engine.ref for engine in self._engines.values() if engine.ref is not None and not engine.is_running]
        return starts + [feed.ref for engine in self._engines.values() for feed in engine.feeds.values()]

    def moved(self, ref: Any) -> None:
        """See to an engine whose start, or whose work for a run, has ended, well or not."""
        for engine in list(self._engines.values()):
            feed = next((feed for feed in engine.feeds.values() if feed.ref == ref), None)
            if feed is not None or (engine.ref == ref and not engine.is_running):
                self._moved(engine, feed, ref)
                return

    def step(self) -> None:
        """See to what no reference tells."""
        self._end_closed()
        self._place()
        self._kill_stalled()
        self._look_at_nodes()
        self.fill()

    def fill(self) -> None:
        """Start the engines whose pause is over, and those that a new coordinator has work for, if any is left."""
        due = {slot: restarts for slot, (at, restarts) in self._pausing.items() if time.monotonic() >= at}
        if self._has_gaps and self._teacher is not None:
            slots = set(range(self._teacher.num_engines)) - self._engines.keys() - self._pausing.keys()
            due |= dict.fromkeys(slots, 0)
        self._has_gaps = False
        if due and self._has_work():
            for slot, restarts in due.items():
                self._start(slot, restarts=restarts)
        for slot in due:
            self._pausing.pop(slot, None)
        unfed, self._unfed = self._unfed, []
        for run in [run for run in unfed if run.takes_engines]:
            gaps = [engine for engine in self._engines.values() if engine.is_running and run.order not in engine.feeds]
            if gaps and run.ask_or(0, "num_to_make"):
                for engine in gaps:
                    self._feed(engine, run)

    # Starting

    def _feeds_of(self, run: Supervisor) -> list[tuple[_Engine, _Feed]]:
        engines = list(self._engines.values())
        return [(engine, engine.feeds[run.order]) for engine in engines if run.order in engine.feeds]

    def _has_work(self) -> bool:
        return any(run.takes_engines and run.ask_or(0, "num_to_make") for run in self._runs)

    def _start(self, slot: int, *, restarts: int) -> None:
        assert self._teacher is not None, "no teacher, no attempts to make"
        first = next(run for run in self._runs if run.takes_engines)
        self._incarnations += 1
        is_first = restarts == 0 and self._incarnations <= self._teacher.num_engines
        engine = _Engine(slot, first, first.stamp(slot), 1 if is_first else 2, restarts=restarts)
        self._engines[slot] = engine
        if self._demand.is_group:
            engine.group = make_group(first.path, engine.stamp.engine_id, self._demand.num_gpus)
            self.note = f"waiting for {self._demand.num_gpus} GPUs"
        else:
            self._load(engine, num_gpus=self._demand.num_gpus)

    def _load(self, engine: _Engine, *, num_gpus: int = 0, nodes: Sequence[str] = ()) -> None:
        """Start the actor of an engine: with GPUs of its own, or with those of its group, whose bundles lie there."""
        assert self._teacher is not None, "no teacher, no attempts to make"
        teacher, strategy = self._teacher, None
        place = Place(bundles=bundles_by_rank(nodes, self._demand.num_per_stage), node_ids=tuple(set(nodes)))
        if engine.group is not None:
            teacher = placed_by_ray(teacher)
            strategy = PlacementGroupSchedulingStrategy(
                engine.group.handle,
                placement_group_bundle_index=place.bundles[0],
                placement_group_capture_child_tasks=True,
            )
        self._time.spawned(engine.slot)
        arguments = (engine.first.spec, teacher, self._samplings[0], engine.stamp, engine.incarnation, place)
        engine.actor = spawn(EngineActor, *arguments, num_gpus=num_gpus, place=strategy)
        engine.ref = engine.actor.start.remote()
        engine.node_ids, engine.progress_at = place.node_ids, time.monotonic()
        self.note = "loading the teacher"

    def _place(self) -> None:
        """Load the engines whose GPUs there are now.

        Raises:
            TeacherError: If none came in ``teacher.start_timeout_s``, and no other engine works.
        """
        for engine in [engine for engine in self._engines.values() if engine.actor is None]:
            assert engine.group is not None, "it has an actor at once"
            assert self._teacher is not None, "no teacher, no engines"
            limit_s = self._teacher.start_timeout_s
            if not self._has_work():
                self._stopped(engine)
            elif nodes := engine.group.nodes():
                if split := num_split_stages(nodes, self._demand.num_per_stage):
                    self._warn(f"engine {engine.slot}: {split} tensor parallel stages lie on several nodes: slow")
                self._load(engine, nodes=nodes)
            elif time.monotonic() - engine.progress_at > limit_s:
                engine.progress_at = time.monotonic()
                why = (
                    f"the cluster gave engine {engine.slot} no {self._demand.num_gpus} GPUs in {limit_s:g} s "
                    f"(teacher.start_timeout_s); free are {free_gpus() or 'none'}"
                )
                if not any(other.actor is not None for other in self._engines.values()):
                    raise TeacherError(f"{why}; start more nodes, or lower what an engine takes, and run again")
                self._warn(f"{why}; the others go on")

    def _moved(self, engine: _Engine, feed: _Feed | None, ref: Any) -> None:
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            cause = cause_of(error)
            if feed is not None and isinstance(cause, OSError | StoreError):  # another engine would meet it too
                said = f"{feed.run.path}: the journal cannot be written: {cause}; mend it and run again"
                feed.run.fail(StoreError(said))
                return
            if isinstance(cause, NodeError) or (feed is None and self._info is None):
                # It never worked, or cannot there: starting it again will hardly help.
                engine.end()
                self._give_up(engine, str(cause), error)
                return
            self._died(engine, str(cause))
        except RayActorError as error:
            was_taken = is_taken(engine.node_ids)
            why = "its node was stopped" if was_taken else f"its process ended: {first_line(error)}"
            self._died(engine, why, was_taken=was_taken)
        else:
            if feed is None:
                self._loaded(engine, *result)
                return
            del engine.feeds[feed.run.order]
            if not engine.feeds:
                self._stopped(engine, has_left=result)

    def _loaded(self, engine: _Engine, info: EngineInfo, node_id: str) -> None:
        """Have it work for all runs, in their order."""
        self._info, engine.node_ids, engine.loaded = info, engine.node_ids or (node_id,), info.loaded
        engine.is_running = True
        self._time.loaded(engine.slot, time.monotonic() - engine.progress_at)
        engine.progress_at = time.monotonic()
        self.note = ""
        for run in [run for run in self._runs if run.takes_engines]:
            if info.max_model_len is not None:
                run.ask_or(None, "context_known", info.max_model_len)
            if run.error is None:
                self._feed(engine, run)
        if not engine.feeds:
            self._stopped(engine)

    def _feed(self, engine: _Engine, run: Supervisor) -> None:
        is_own = run is engine.first and not engine.has_fed_first
        engine.has_fed_first |= is_own
        stamp = engine.stamp if is_own else run.stamp(engine.slot)
        ref = engine.actor.feed.remote(run.order, run.spec, stamp, run.coordinator)
        engine.feeds[run.order] = _Feed(run, stamp.engine_id, ref)
        run.meters.loaded_as(engine.loaded)

    # Ends

    def _stopped(self, engine: _Engine, *, has_left: bool = False) -> None:
        """See to an engine that ended well: told to stop, or, if it ``has_left``, since its node is taken away."""
        self._close(engine)
        if has_left and self._has_work():
            self._start(engine.slot, restarts=engine.restarts)
            self._warn(f"the node of engine {engine.slot} is taken away; its attempts go on elsewhere")
        # Else nothing is left for it: what others hold comes back if they die.

    def _close(self, engine: _Engine) -> None:
        """Free its slot, and have it end with time to end what it started itself; nobody waits for that.

        It takes seconds with vLLM, and with a hundred engines that end in a row nothing else would be seen to.
        """
        del self._engines[engine.slot]
        if engine.is_running:
            engine.progress_at = time.monotonic()
            self._closing[engine.actor.close.remote()] = engine
        else:
            engine.end()
            self._time.ended(engine.slot)

    def _end_closed(self) -> None:
        """Kill what is left of engines that have closed, or had the time for it."""
        if not self._closing:
            return
        closed, _ = ray.wait(list(self._closing), timeout=0, num_returns=len(self._closing))
        for ref, engine in list(self._closing.items()):
            if ref in closed or time.monotonic() - engine.progress_at > CLOSE_S:
                del self._closing[ref]
                engine.end()
                if engine.slot not in self._engines:
                    self._time.ended(engine.slot)

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
                self._died(engine, "a node of it died", was_taken=is_taken(engine.node_ids))

    def _died(self, engine: _Engine, why: str, *, was_taken: bool = False) -> None:
        """Take back its leases, read its journals, start the next incarnation; give up after too many in a row.

        Where it was not the first death in a row, the next incarnation waits, longer each time; where its node
        ``was_taken`` away, it was no death.

        Raises:
            TeacherError: If it died more than ``schedule.max_engine_restarts`` times in a row, and no other works.
        """
        engine.end()
        engine.is_running = False
        has_progressed = self._take_back(engine, was_taken=was_taken)
        if was_taken or not self._has_work():
            self._stopped(engine, has_left=was_taken)
            return
        restarts = 1 if has_progressed else engine.restarts + 1
        limit = max(run.job.schedule.max_engine_restarts for run in self._runs)
        if restarts > limit:
            self._give_up(
                engine,
                f"engine {engine.slot} died {restarts} times in a row without progress (limit "
                f"schedule.max_engine_restarts={limit}); the last time: {why}",
            )
            return
        if restarts == 1:
            self._start(engine.slot, restarts=restarts)
            self._warn(f"engine {engine.slot} died ({why[:80]}), restarted")
            return
        del self._engines[engine.slot]
        pause_s = min(FIRST_PAUSE_S * 2 ** (restarts - 2), MAX_PAUSE_S)
        self._pausing[engine.slot] = (time.monotonic() + pause_s, restarts)
        self.note = f"engine {engine.slot} died {restarts} times in a row ({why[:80]}), next try in {pause_s:g} s"
        self._warn(self.note)

    def _give_up(self, engine: _Engine, why: str, cause: BaseException | None = None) -> None:
        """Leave an engine that has ended alone for a long while: its node may be mended, and others work.

        Raises:
            TeacherError: If no other does.
        """
        said = f"{why}\n{self._log_tail(engine)}"
        del self._engines[engine.slot]
        if not any(other.actor is not None for other in self._engines.values()):
            raise TeacherError(said) from cause
        limit = max(run.job.schedule.max_engine_restarts for run in self._runs)
        self._pausing[engine.slot] = (time.monotonic() + GIVEN_UP_PAUSE_S, limit)
        minutes = GIVEN_UP_PAUSE_S / 60
        self._warn(f"engine {engine.slot} is left out, the others go on; next try in {minutes:g} minutes: {said}")

    def _take_back(self, engine: _Engine, *, was_taken: bool) -> bool:
        """Have the coordinators see to its death; return whether any run made progress by it.

        Where attempts of several runs were in flight, any of them may be to blame.
        """
        feeds = list(engine.feeds.values())
        engine.feeds.clear()
        leased = [feed for feed in feeds if feed.run.signs().get(feed.engine_id, Signs()).has_leases]
        has_progressed = False
        for feed in feeds:
            has_others = any(other is not feed for other in leased)
            has_progressed |= feed.run.ask_or(False, "engine_died", feed.engine_id, was_taken, has_others)
        return has_progressed

    def _log_tail(self, engine: _Engine) -> str:
        """Return the errors in an engine's log, and its last lines: the root cause often lies far above the end."""
        log = engine_log(engine.first.path, engine.stamp.engine_id)
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
        """Kill engines that hold attempts of any run and generate no token: vLLM can stall with healthy endpoints.

        One that holds none has to report: its process may be frozen, and no run ends before its engines have.
        """
        signs = {run.order: run.signs() for run in self._runs}
        now = time.monotonic()
        for engine in [engine for engine in self._engines.values() if engine.actor is not None]:
            if not engine.is_running:
                limit_s, what = engine.first.job.teacher.start_timeout_s, "did not start"
            else:
                feeds = engine.feeds.values()
                limit_s = max((feed.run.job.schedule.stall_s for feed in feeds), default=math.inf)
                seen = added([signs.get(feed.run.order, {}).get(feed.engine_id, Signs()) for feed in feeds])
                what = "generated no token" if seen.has_leases else "neither reported nor ended"
                if shows_life(engine.signs, seen):
                    engine.signs, engine.progress_at = seen, now
            if now - engine.progress_at > limit_s:
                why = f"it {what} in {limit_s:g} s"
                self._died(engine, why)
                if engine.slot not in self._engines.keys() | self._pausing.keys():  # else its restart was told of
                    self._warn(f"engine {engine.slot} was killed: {why}; nothing was left for it")


def cause_of(error: BaseException) -> BaseException:
    """Return what was raised in the actor, without Ray's wrapping."""
    return error.cause if isinstance(error, RayTaskError) and error.cause is not None else error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
