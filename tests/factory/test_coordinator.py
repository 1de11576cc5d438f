"""The coordinator with a real journal and a real committer: whatever dies, every attempt ends in the run once.

No Ray: engines and verifiers are played here, message by message, so that deaths fall anywhere between two messages.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from factory.actors import CoordinatorActor, RunSpec, load_coordinator
from factory.committer import Committer
from factory.coordinator import Coordinator, JudgeItem
from factory.dispatch import Dispatch, FailReason, Key
from factory.feeder import Aborted, Finished, Holding, Lease, Orders, Refused, Report, SavedPiece
from factory.journal import Piece, Position, SegmentHeader, SegmentWriter, read_saved, scan_segment
from factory.lengths import Lengths
from factory.state import JUDGED, TRACED, FrozenProblems, RunState
from factory.store import RunFolder, read_traces
from jobs.bench.drill import committed_traces
from schemas.arrow import problems_to_table, untraced_from_table
from schemas.config import AdaptiveConfig, JobConfig, SamplingConfig, ScheduleConfig, parse_config
from schemas.errors import CorruptRunError, FencedError
from schemas.manifest import Counts
from schemas.problem import Domain
from schemas.trace import Partial, Trace, make_trace_id
from schemas.verdict import JudgedTrace, Outcome, Reason
from tests.runs import (
    FINGERPRINT,
    make_problem,
    make_prompt,
    make_trace,
    make_verdict,
    start_run,
    traces_on_disk,
    write_segment,
)

NUM_SAMPLES = 3
PROBLEMS = [make_problem(number) for number in range(12)]
BY_ID = {problem.problem_id: problem for problem in PROBLEMS}
JOB = parse_config(
    {
        "name": "simulated",
        "sources": [{"kind": "reasoning_gym", "task": "chain_sum", "size": 1}],
        "teacher": {"kind": "scripted"},
        "sampling": {"num_samples": NUM_SAMPLES},
    },
    origin="test",
)
ADAPTIVE_SAMPLES = 7
ADAPTIVE_JOB = JOB.model_copy(
    update={
        "sampling": SamplingConfig(num_samples=ADAPTIVE_SAMPLES),
        "schedule": ScheduleConfig(adaptive=AdaptiveConfig(useful=2, min_samples=3, give_up_below=0.25)),
    }
)
FIRST_TOKENS = 30  # of the traces here, which have a hundred or so
CUTTING = JOB.model_copy(
    update={"schedule": JOB.schedule.model_copy(update={"first_max_tokens": FIRST_TOKENS, "continue_cut": "unsolved"})}
)


class Engine:
    """What an engine actor does, one step at a time; dropping it without ``stop`` is a kill."""

    def __init__(self, engine_id: str, journal: Path, chance: random.Random) -> None:
        self.engine_id, self.journal, self.chance = engine_id, journal, chance
        self.in_flight: list[Lease] = []
        self.appended: list[Finished] = []
        self.synced: list[Finished] = []
        self.refused: list[Refused] = []
        self.aborted: list[Aborted] = []
        self.pieces: list[SavedPiece] = []
        self.saved: list[SavedPiece] = []
        self.lengths: dict[Key, int] = {}  # tokens of attempts in flight that lie in this engine's segments
        self.closed: list[str] = []
        self.writer: SegmentWriter | None = None
        self.sequence = 0
        self.is_stopped = False
        self.num_given = 0  # tokens that others made

    def work(self) -> None:
        """Finish a few attempts; sync or close the segment now and then."""
        for _ in range(self.chance.randint(0, min(2, len(self.in_flight)))):
            lease = self.in_flight.pop(self.chance.randrange(len(self.in_flight)))
            if lease.may_go_on:
                self.in_flight.append(lease)
                continue
            if self.chance.random() < 0.03:
                self.refused.append(Refused(lease.key, FailReason.ENGINE_ERROR, "refused"))
                continue
            trace = make_trace(lease.prompt.problem_id, lease.key.sample_index, engine_id=self.engine_id)
            position = self.open().append(trace)
            self.appended.append(Finished(key=lease.key, position=position, num_tokens=trace.num_completion_tokens))
        for lease in list(self.in_flight):
            if self.chance.random() < 0.3:
                self.save(lease)
        if self.writer is not None and self.chance.random() < 0.5:
            self.writer.sync()
            self.flushed()
            if self.chance.random() < 0.3:
                self.close()

    def open(self) -> SegmentWriter:
        """Return the segment that is open now."""
        if self.writer is None:
            self.sequence += 1
            header = SegmentHeader(fingerprint=FINGERPRINT, engine_id=self.engine_id, sequence=self.sequence)
            self.writer = SegmentWriter(self.journal, header)
        return self.writer

    def save(self, lease: Lease) -> None:
        """Make some tokens of an attempt, and journal them; what it was given goes with the first."""
        whole = make_trace(lease.prompt.problem_id, lease.key.sample_index).token_ids
        offset = self.lengths.get(lease.key, 0)
        begin = offset or len(read_saved(self.journal, lease.saved).token_ids)
        most = lease.max_tokens if lease.may_go_on and lease.max_tokens else len(whole) - 1
        assert begin <= most, "a turn that was over is had again"
        end = min(begin + self.chance.randint(1, 20), most)
        if end > begin:
            problem_id, index = lease.prompt.problem_id, lease.key.sample_index
            token_ids = whole[offset:end]
            partial = Partial(problem_id=problem_id, sample_index=index, offset=offset, token_ids=token_ids)
            is_cut = lease.may_go_on and end == most
            self.pieces.append(SavedPiece(lease.key, self.open().append_partial(partial), is_cut))
            self.lengths[lease.key] = end
            if is_cut:
                self.in_flight.remove(lease)
                del self.lengths[lease.key]

    def flushed(self) -> None:
        """Take note that all is on disk."""
        self.synced += self.appended
        self.saved += self.pieces
        self.appended, self.pieces = [], []

    def close(self) -> None:
        """Close the segment."""
        if self.writer is not None:
            self.writer.close()
            self.flushed()
            self.closed.append(self.writer.name)
            self.writer = None

    def report(self, *, is_leaving: bool = False) -> Report:
        """Say what is safe."""
        report = Report(
            engine_id=self.engine_id,
            capacity=max(0, 8 - len(self.in_flight)),
            in_flight=len(self.in_flight),
            num_tokens_out=0,
            finished=tuple(self.synced),
            saved=tuple(self.saved),
            refused=tuple(self.refused),
            aborted=tuple(self.aborted),
            closed=tuple(self.closed),
            is_leaving=is_leaving,
        )
        self.synced, self.saved, self.refused, self.aborted, self.closed = [], [], [], [], []
        for item in (*report.finished, *report.refused, *report.aborted):
            self.lengths.pop(item.key, None)
        return report

    def holding(self) -> Holding:
        """Say what is held, in flight or not yet reported."""
        ended = [item.key for item in (*self.appended, *self.synced, *self.refused, *self.aborted)]
        ended += [item.key for item in (*self.pieces, *self.saved) if item.is_cut]
        return Holding((*(lease.key for lease in self.in_flight), *ended), self.sequence - (self.writer is not None))

    def lose_report(self, coordinator: Coordinator) -> None:
        """Report to a coordinator that dies before its answer is out."""
        before = list(self.synced), list(self.saved), list(self.refused), list(self.aborted), list(self.closed)
        coordinator.engine_report(self.report())
        self.synced, self.saved, self.refused, self.aborted, self.closed = before

    def pull(self, coordinator: Coordinator) -> None:
        """Report, and take what is ordered."""
        orders = coordinator.engine_report(self.report())
        for lease in orders.leases:
            saved = read_saved(self.journal, lease.saved).token_ids
            assert saved == make_trace(lease.prompt.problem_id, lease.key.sample_index).token_ids[: len(saved)]
            self.num_given += len(saved)
        self.in_flight += orders.leases
        for lease in [lease for lease in self.in_flight if lease.key in orders.abort]:
            self.in_flight.remove(lease)
            self.aborted.append(Aborted(lease.key, self.chance.randint(0, 9)))
        if orders.stop:
            self.in_flight = []
            self.close()
            coordinator.engine_report(self.report())
            self.is_stopped = True

    def leave(self, coordinator: Coordinator) -> None:
        """Hand back what is in flight, as an engine does whose node is taken away."""
        self.in_flight = []
        self.close()
        coordinator.engine_report(self.report(is_leaving=True))
        self.is_stopped = True

    def die(self) -> None:
        """Be killed: what was not synced is gone; a frame may be torn."""
        if self.writer is not None:
            path, self.writer = self.writer.path, None
            gc.collect()  # drops the file, and with it the lock
            if self.chance.random() < 0.5:
                with path.open("ab") as file:
                    file.write(self.chance.randbytes(self.chance.randint(1, 40)))


class Simulation:
    """One start of a run: engines, verifiers and a committer around a coordinator."""

    def __init__(self, path: Path, chance: random.Random, job: JobConfig = JOB) -> None:
        self.path, self.chance = path, chance
        self.folder = RunFolder(path)
        self.committer = Committer(path, verifiers="v1")
        self.epoch = self.committer.manifest.epoch
        self.spec = RunSpec(path=path, job=job, fingerprint=FINGERPRINT)
        self.coordinator = load_coordinator(self.spec, generate=True)
        self.num_started = 0
        self.engines = [self.start_engine() for _ in range(2)]
        self.batches: dict[str, list[JudgeItem]] = {"verifier-1": [], "verifier-2": []}
        self.num_verifiers = 2
        self.late: list[Report] = []

    def start_engine(self) -> Engine:
        self.num_started += 1
        return Engine(f"engine-0-e{self.epoch}-{self.num_started}", self.folder.journal, self.chance)

    def step(self) -> None:
        place = self.chance.randrange(2)
        engine = self.engines[place]
        what = self.chance.random()
        if what < 0.05:
            self.kill_engine(place)
        elif what < 0.08:
            self.kill_coordinator(engine)
        elif what < 0.11 and not engine.is_stopped:
            engine.work()
            engine.leave(self.coordinator)
            self.engines[place] = self.start_engine()
        elif what < 0.6 and not engine.is_stopped:
            engine.work()
            engine.pull(self.coordinator)
            held = [lease.key for engine in self.engines for lease in engine.in_flight]
            assert len(held) == len(set(held)), "an attempt is made twice"
        elif what < 0.9:
            self.judge(self.chance.choice(sorted(self.batches)))
        elif what < 0.94 and self.late:
            self.coordinator.engine_report(self.late.pop())
        else:
            self.commit()

    def kill_engine(self, place: int) -> None:
        engine = self.engines[place]
        if engine.is_stopped:
            return
        engine.work()
        if self.chance.random() < 0.5:
            self.late.append(engine.report())  # on its way when the engine died
        engine.die()
        self.coordinator.mark_dead(engine.engine_id)
        segments = [path for path in self.folder.leftover_segments() if path.name.startswith(f"{engine.engine_id}-")]
        scans = {path.name: scan_segment(path) for path in segments if self.coordinator.lacks(path.name)}
        self.coordinator.engine_died(engine.engine_id, scans)
        self.engines[place] = self.start_engine()

    def kill_coordinator(self, engine: Engine) -> None:
        living = [one for one in self.engines if not one.is_stopped]
        if engine in living and self.chance.random() < 0.5:
            engine.lose_report(self.coordinator)
        if self.chance.random() < 0.5:
            self.coordinator.take_commit()  # to a driver that did not get it
        holdings = {one.engine_id: one.holding() for one in living}
        for one in living:
            one.work()  # while the next coordinator loads
        self.coordinator = load_coordinator(self.spec, generate=True, living=holdings)
        self.late.clear()
        self.batches = {worker: [] for worker in self.batches}
        for place, one in enumerate(self.engines):  # an end that was not committed is to be found again
            if one.is_stopped and self.coordinator.dispatch.num_queued:
                self.engines[place] = self.start_engine()

    def judge(self, worker: str) -> None:
        if self.batches[worker] and self.chance.random() < 0.1:
            self.coordinator.verifier_died(worker)
            del self.batches[worker]
            self.num_verifiers += 1
            self.batches[f"verifier-{self.num_verifiers}"] = []
            return
        held = self.batches[worker]
        ended = [held.pop(self.chance.randrange(len(held))) for _ in range(self.chance.randint(0, len(held)))]
        judged: list[JudgedTrace] = []
        for trace, item in zip(read_traces(self.folder, [item.position for item in ended]), ended, strict=True):
            assert trace.trace_id == item.trace_id, "the journal has another trace at that place"
            judged.append(make_verdict(trace, BY_ID[trace.problem_id], self.outcome(trace)))
        self.coordinator.judge_report(worker, judged)
        held += self.coordinator.take_batch(worker, self.chance.choice([0, 5, 5]))
        assert len(held) <= 5
        at_work = [item.trace_id for batch in self.batches.values() for item in batch]
        assert len(at_work) == len(set(at_work)), "two verifiers judge one trace"

    def outcome(self, trace: Trace) -> Outcome:
        """Return what a verifier says; in an adaptive run one that was lost is given again as it was."""
        if self.spec.job is JOB:
            return self.chance.choice([Outcome.CORRECT, Outcome.WRONG_ANSWER, Outcome.UNJUDGED])
        rights = int(BY_ID[trace.problem_id].source_row_id) // 2  # of six
        words = [Outcome.CORRECT] * rights + [Outcome.WRONG_ANSWER] * (6 - rights)
        return random.Random(trace.trace_id).choice(words)

    def commit_all(self) -> None:
        """Commit until nothing is left, as the driver does at the end."""
        while self.commit():
            pass

    def commit(self) -> bool:
        """Commit what is ready; return whether there was anything."""
        batch = self.coordinator.take_commit()
        self.committer.commit(
            segments=batch.segments,
            kept=batch.kept,
            judged=batch.judged,
            untraced=batch.untraced,
            cancelled=batch.cancelled,
        )
        state = RunState.load(self.folder, self.folder.manifest())
        assert state.num_with(TRACED) == state.num_with(JUDGED), "a trace was committed that nobody judged"
        return not batch.is_empty

    def is_done(self) -> bool:
        return self.coordinator.progress(sum(not engine.is_stopped for engine in self.engines)).is_done


def _check_end(path: Path, progress: Counts, num_samples: int = NUM_SAMPLES) -> None:
    folder = RunFolder(path)
    manifest = folder.manifest()
    counts = manifest.counts
    assert counts == progress
    assert counts.requested == len(PROBLEMS) * num_samples
    assert counts.pending == 0
    assert counts.judged + counts.unjudged + counts.failed + counts.cancelled == counts.requested
    state = RunState.load(folder, manifest)  # raises if an attempt is there twice
    assert state.counts() == counts
    assert not state.pending()
    assert len(committed_traces(path)) == counts.generated
    assert not folder.leftover_segments()


@pytest.mark.parametrize("seed", range(12))
def test_a_run_in_which_anything_dies_ends_with_every_attempt_once(tmp_path: Path, seed: int) -> None:
    start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    simulation = Simulation(tmp_path, random.Random(seed), CUTTING if seed % 2 else JOB)
    for _ in range(20_000):
        simulation.step()
        if simulation.is_done():
            break
    assert simulation.is_done()
    while simulation.late:
        simulation.coordinator.engine_report(simulation.late.pop())
    assert simulation.is_done(), "a late report undoes the end"
    simulation.commit_all()
    _check_end(tmp_path, simulation.coordinator.progress(0).counts)


def _check_adaptive_end(path: Path) -> None:
    """Every problem has what it needs, or there was a reason to stop."""
    folder = RunFolder(path)
    manifest = folder.manifest()
    rule = ADAPTIVE_JOB.schedule.adaptive
    assert rule is not None
    state = RunState.load(folder, manifest)
    tally = state.tally(rule.min_samples)
    untraced = [
        item for table in folder.tables_of("untraced", manifest.untraced) for item in untraced_from_table(table)
    ]
    cancelled = [item for item in untraced if item.ending == "cancelled"]
    for item in cancelled:
        place = int(state.problems.places([item.problem_id])[0])
        assert item.sample_index >= rule.min_samples
        assert item.trace_id == make_trace_id(FINGERPRINT, item.problem_id, item.sample_index)
        assert item.reason == "hopeless" or tally.useful[place] >= rule.useful
    assert {item.reason for item in cancelled} == {"hopeless", "quota_reached"}
    assert len(cancelled) == manifest.counts.cancelled


@pytest.mark.parametrize("seed", range(5))
def test_an_adaptive_run_in_which_anything_dies_ends_with_every_attempt_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(f"adaptive/{seed}")
    start_run(tmp_path, PROBLEMS, num_samples=ADAPTIVE_SAMPLES)
    while True:
        simulation = Simulation(tmp_path, chance, ADAPTIVE_JOB)
        for _ in range(chance.choice([60, 1_000])):
            simulation.step()
            if simulation.is_done():
                break
        if simulation.is_done():
            break
        for engine in simulation.engines:
            engine.die()
    simulation.commit_all()
    _check_end(tmp_path, simulation.coordinator.progress(0).counts, ADAPTIVE_SAMPLES)
    _check_adaptive_end(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_a_run_whose_every_start_is_killed_goes_on_and_loses_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(f"starts/{seed}")
    start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    seen: dict[tuple[str, int], object] = {}
    num_given = 0
    for _ in range(40):
        simulation = Simulation(tmp_path, chance, CUTTING if seed % 2 else JOB)
        for _ in range(chance.randint(1, 60)):
            simulation.step()
            if simulation.is_done():
                simulation.commit_all()
                break
        else:
            for engine in simulation.engines:
                engine.die()
                num_given += engine.num_given
            on_disk = traces_on_disk(tmp_path)
            assert seen.keys() <= on_disk.keys(), "a trace that was on disk is gone"
            assert all(on_disk[key] == trace for key, trace in seen.items()), "a trace was replaced by another"
            seen = dict(on_disk)
            stale = simulation.committer
            Committer(tmp_path, verifiers="v1")
            with pytest.raises(FencedError):
                stale._write(note="committed")
            continue
        break
    assert simulation.is_done()
    _check_end(tmp_path, simulation.coordinator.progress(0).counts)
    final = {(trace.problem_id, trace.sample_index): trace for trace in committed_traces(tmp_path)}
    assert all(final[key] == trace for key, trace in seen.items())
    assert num_given, "no attempt went on from what a former start had saved"


# One part at a time


def _coordinator(num_problems: int = 1, max_tries: int = 3, num_samples: int = 1) -> Coordinator:
    problems = PROBLEMS[:num_problems]
    keys = [Key(place, index) for place in range(num_problems) for index in range(num_samples)]
    tables = problems_to_table((one, make_prompt(one)) for one in problems)
    return Coordinator(
        fingerprint=FINGERPRINT,
        state=RunState(FrozenProblems(tables), num_samples=num_samples),
        dispatch=Dispatch(keys, max_deaths=3),
        base=Counts(requested=len(keys), pending=len(keys)),
        base_outcomes=Counter(),
        base_reasons=Counter(),
        max_tries=max_tries,
    )


def _report(engine_id: str = "e1", **fields: object) -> Report:
    return Report(**{"engine_id": engine_id, "capacity": 8, "in_flight": 0, "num_tokens_out": 0, **fields})


def _finished(number: int) -> Finished:
    return Finished(key=Key(number, 0), position=Position("e1-000001.seg", number), num_tokens=1)


def _verdict(item: JudgeItem, outcome: Outcome) -> JudgedTrace:
    trace = make_trace(item.problem_id, 0)
    assert trace.trace_id == item.trace_id
    return make_verdict(trace, BY_ID[item.problem_id], outcome)


@pytest.mark.parametrize("max_tries", [1, 2, 3])
def test_what_stays_unjudged_ends_as_such_after_max_tries(max_tries: int) -> None:
    coordinator = _coordinator(max_tries=max_tries)
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(finished=(_finished(0),), closed=("e1-000001.seg",)))
    judged: list[JudgedTrace] = []
    for _ in range(max_tries):
        assert coordinator.take_commit().is_empty, "offered for commit before its last try"
        coordinator.judge_report("v", judged)
        batch = coordinator.take_batch("v", 8)
        assert len(batch) == 1
        judged = [_verdict(batch[0], Outcome.UNJUDGED)]
    coordinator.judge_report("v", judged)
    assert coordinator.take_batch("v", 8) == []
    batch = coordinator.take_commit()
    assert batch.segments == ("e1-000001.seg",)
    assert [item.verdict.outcome for item in batch.judged] == [Outcome.UNJUDGED]
    counts = coordinator.progress(0).counts
    assert (counts.judged, counts.unjudged, counts.pending) == (0, 1, 0)


def test_a_trace_that_kills_its_verifier_ends_as_unjudged_and_takes_no_other_with_it() -> None:
    coordinator = _coordinator(num_problems=8)
    coordinator.engine_report(_report())
    finished = tuple(_finished(number) for number in range(8))
    coordinator.engine_report(_report(finished=finished, closed=("e1-000001.seg",)))
    killer = make_trace(PROBLEMS[3].problem_id, 0).trace_id
    judged: list[JudgedTrace] = []
    deaths = 0
    for _ in range(100):
        worker = f"v{deaths}"
        coordinator.judge_report(worker, judged)
        batch = coordinator.take_batch(worker, 8)
        judged = []
        if not batch:
            break
        if killer in {item.trace_id for item in batch}:
            coordinator.verifier_died(worker)
            deaths += 1
        else:
            judged = [_verdict(item, Outcome.CORRECT) for item in batch]
    assert coordinator.is_judged
    assert deaths == 3
    outcomes = {item.trace_id: item.verdict for item in coordinator.take_commit().judged}
    assert len(outcomes) == 8
    assert outcomes[killer].reason is Reason.WORKER_DIED
    assert outcomes[killer].reference_hash == PROBLEMS[3].reference_hash
    assert Counter(verdict.outcome for verdict in outcomes.values()) == {Outcome.CORRECT: 7, Outcome.UNJUDGED: 1}


def test_a_segment_waits_for_its_last_verdict_and_its_close() -> None:
    coordinator = _coordinator(num_problems=2)
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(finished=(_finished(0), _finished(1))))
    coordinator.judge_report("v", [])
    first, second = coordinator.take_batch("v", 8)
    coordinator.judge_report("v", [_verdict(first, Outcome.CORRECT)])
    assert coordinator.take_commit().is_empty
    coordinator.engine_report(_report(closed=("e1-000001.seg",)))
    assert coordinator.take_commit().is_empty
    assert coordinator.take_batch("v", 8) == []
    assert not coordinator.is_judged
    coordinator.judge_report("v", [_verdict(second, Outcome.WRONG_ANSWER)])
    assert len(coordinator.take_commit().judged) == 2
    assert coordinator.take_commit().is_empty


def test_a_verifier_that_has_reported_a_part_keeps_the_rest_and_is_given_no_more_than_fits() -> None:
    coordinator = _coordinator(num_problems=8)
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(finished=tuple(_finished(number) for number in range(8))))
    first = coordinator.take_batch("v", 5)
    coordinator.judge_report("v", [_verdict(item, Outcome.CORRECT) for item in first[:3]])
    assert coordinator.progress(1).counts.judged == 3
    assert coordinator.take_batch("v", 0) == []
    second = coordinator.take_batch("v", 4)
    assert [len(first), len(second)] == [5, 2]
    assert coordinator.progress(1).num_to_judge == 5
    twice = [_verdict(item, Outcome.WRONG_ANSWER) for item in (first[0], first[3])]
    coordinator.judge_report("v", twice)
    assert coordinator.progress(1).outcomes == {Outcome.CORRECT: 3, Outcome.WRONG_ANSWER: 1}
    coordinator.verifier_died("v")
    (fresh,) = coordinator.take_batch("w", 8)
    assert fresh not in first + second, "what was there at a death goes alone"
    assert coordinator.take_batch("w", 8) == [], "and waits until nothing else is judged there"
    coordinator.judge_report("w", [_verdict(fresh, Outcome.CORRECT)])
    for item in [first[4], *second]:
        assert coordinator.take_batch("w", 8) == [item]
        assert coordinator.take_batch("w", 8) == [], "nothing comes beside it"
        coordinator.judge_report("w", [_verdict(item, Outcome.CORRECT)])
    assert coordinator.is_judged


def test_a_verdict_of_a_worker_that_was_declared_dead_is_ignored() -> None:
    coordinator = _coordinator()
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(finished=(_finished(0),)))
    (item,) = coordinator.take_batch("v1", 8)
    coordinator.verifier_died("v1")
    assert coordinator.take_batch("v1", 8) == [], "its message was under way when it died"
    assert coordinator.take_batch("v2", 8) == [item]
    coordinator.judge_report("v1", [_verdict(item, Outcome.CORRECT)])
    assert coordinator.progress(1).counts.judged == 0
    coordinator.judge_report("v2", [_verdict(item, Outcome.WRONG_ANSWER)])
    assert coordinator.progress(1).outcomes == {Outcome.WRONG_ANSWER: 1}


def test_a_prompt_that_fills_the_context_fails_with_the_numbers_and_takes_no_slot() -> None:
    coordinator = _coordinator(num_problems=2)
    length = coordinator.state.problems.prompt_length(0)
    coordinator.max_model_len = length
    orders = coordinator.engine_report(_report())
    assert (orders.leases, orders.stop) == ((), False)
    assert coordinator.engine_report(_report()).stop
    batch = coordinator.take_commit()
    assert [item.reason for item in batch.untraced] == ["prompt_too_long"] * 2
    assert str(length) in batch.untraced[0].detail
    assert coordinator.progress(0).counts == Counts(requested=2, failed=2)
    assert coordinator.progress(0).is_done


def test_an_interrupted_run_leases_nothing_more() -> None:
    coordinator = _coordinator(num_problems=2)
    coordinator.is_draining = True
    orders = coordinator.engine_report(_report())
    assert orders.stop
    assert orders.leases == ()


def test_seeds_differ_by_attempt_and_agree_between_starts() -> None:
    def seeds() -> list[int | None]:
        coordinator = _coordinator(num_problems=8)
        coordinator.base_seed = 7
        return [lease.seed for lease in coordinator.engine_report(_report()).leases]

    assert seeds() == seeds()
    assert len(set(seeds())) == 8
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds())


# Attempts that go on elsewhere


def _piece(segment: str, offset: int, num_tokens: int) -> SavedPiece:
    piece = Piece(PROBLEMS[0].problem_id, 0, Position(segment, offset), offset, num_tokens)
    return SavedPiece(Key(0, 0), piece)


def test_a_segment_stays_until_nobody_needs_what_is_saved_in_it() -> None:
    coordinator = _coordinator(num_problems=2)
    coordinator.engine_report(_report("e1"))
    finished = Finished(key=Key(1, 0), position=Position("e1-000001.seg", 1000), num_tokens=1)
    saved = (_piece("e1-000001.seg", 0, 5), _piece("e1-000001.seg", 5, 5))
    coordinator.engine_report(_report("e1", finished=(finished,), saved=saved, closed=("e1-000001.seg",)))
    coordinator.judge_report("v", [])
    (item,) = coordinator.take_batch("v", 8)
    coordinator.judge_report("v", [_verdict(item, Outcome.CORRECT)])
    batch = coordinator.take_commit()
    assert (batch.segments, batch.kept) == (("e1-000001.seg",), ("e1-000001.seg",))
    assert len(batch.judged) == 1
    assert coordinator.take_commit().is_empty
    coordinator.engine_died("e1", {})
    (lease,) = coordinator.engine_report(_report("e2")).leases
    assert lease.saved == (Position("e1-000001.seg", 0), Position("e1-000001.seg", 5))
    assert coordinator.take_commit().is_empty
    coordinator.engine_report(_report("e2", saved=(_piece("e2-000001.seg", 0, 11),)))
    batch = coordinator.take_commit()
    assert (batch.segments, batch.kept, batch.judged) == (("e1-000001.seg",), (), ())
    assert coordinator.take_commit().is_empty


def test_tokens_that_were_saved_clear_an_attempt_of_the_deaths_before() -> None:
    """Longer than any that engines lived for, and still never blamed."""
    coordinator = _coordinator(num_problems=1)
    for death in range(1, 21):
        engine_id, segment = f"e{death}", f"e{death}-000001.seg"
        assert coordinator.engine_report(_report(engine_id)).leases
        coordinator.engine_report(_report(engine_id, capacity=0, saved=(_piece(segment, 0, 10 * death),)))
        assert coordinator.engine_died(engine_id, {})
    assert coordinator.progress(0).counts.failed == 0


@pytest.mark.parametrize("num_tokens", [0, 5, 10_000])
def test_a_prompt_that_kills_engines_at_some_token_fails_however_much_of_it_was_saved(num_tokens: int) -> None:
    coordinator = _coordinator(num_problems=1)
    for death in range(1, 10):
        engine_id, segment = f"e{death}", f"e{death}-000001.seg"
        if not coordinator.engine_report(_report(engine_id)).leases:
            break
        if num_tokens:  # up to the same token each time
            coordinator.engine_report(_report(engine_id, capacity=0, saved=(_piece(segment, 0, num_tokens),)))
        has_progressed = coordinator.engine_died(engine_id, {})
        is_blamed = coordinator.progress(0).counts.failed == 1  # it is known now: that is progress, too
        assert has_progressed == ((bool(num_tokens) and death == 1) or is_blamed)
    assert coordinator.progress(0).counts.failed == 1


def test_a_prompt_that_kills_engines_fails_with_all_its_attempts_and_those_of_others_go_on() -> None:
    coordinator = _coordinator(num_problems=2, num_samples=3)
    for death in range(1, 20):
        orders = coordinator.engine_report(_report(f"e{death}", capacity=2))
        if not any(lease.key.problem == 0 for lease in orders.leases):
            break
        coordinator.engine_died(f"e{death}", {})
    counts = coordinator.progress(0).counts
    assert (counts.failed, counts.pending) == (3, 3)
    assert {item.reason for item in coordinator.take_commit().untraced} == {FailReason.ENGINE_DIED}
    held = {lease.key for lease in orders.leases}
    held |= {lease.key for lease in coordinator.engine_report(_report(f"e{death}", capacity=9)).leases}
    assert held == {Key(1, index) for index in range(3)}


def test_an_engine_whose_node_is_taken_away_blames_nobody() -> None:
    coordinator = _coordinator(num_problems=1)
    for death in range(1, 21):
        engine_id = f"e{death}"
        assert len(coordinator.engine_report(_report(engine_id)).leases) == 1
        if death % 2:
            assert coordinator.engine_report(_report(engine_id, capacity=0, is_leaving=True)).stop
        else:
            coordinator.engine_died(engine_id, {}, was_taken=True)
        assert coordinator.engine_report(_report(engine_id)) == Orders(stop=True)
    assert coordinator.progress(0).counts.failed == 0


def test_an_attempt_that_was_refused_begins_anew() -> None:
    coordinator = _coordinator()
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(capacity=0, saved=(_piece("e1-000001.seg", 0, 5),)))
    orders = coordinator.engine_report(_report(refused=(Refused(Key(0, 0), FailReason.ENGINE_ERROR, "no"),)))
    assert [lease.saved for lease in orders.leases] == [()]


def test_what_an_engine_saved_of_an_attempt_that_it_does_not_hold_counts_for_nothing() -> None:
    coordinator = _coordinator()
    coordinator.engine_report(_report("e1", capacity=0))
    coordinator.engine_report(_report("e1", capacity=0, saved=(_piece("e1-000001.seg", 0, 5),)))
    assert [lease.saved for lease in coordinator.engine_report(_report("e2")).leases] == [()]


CUT = Lengths(max_tokens=100, by_domain={}, first=10)
CUT_PIECE = _piece("e1-000001.seg", 0, 10)._replace(is_cut=True)


def test_a_cut_attempt_goes_on_from_its_tokens_once_the_fresh_ones_are_leased() -> None:
    coordinator = _coordinator(num_problems=3)
    coordinator.lengths = CUT
    (first,) = coordinator.engine_report(_report(capacity=1)).leases
    assert (first.max_tokens, first.may_go_on) == (10, True)
    orders = coordinator.engine_report(_report(saved=(CUT_PIECE,)))
    assert [(lease.key.problem, lease.max_tokens, lease.may_go_on) for lease in orders.leases] == [
        (1, 10, True),
        (2, 10, True),
        (0, 100, False),
    ]
    assert orders.leases[-1].saved == (CUT_PIECE.piece.position,)
    assert not coordinator.is_generated


@pytest.mark.parametrize(("continue_cut", "cancelled"), [("all", 0), ("unsolved", 1)])
def test_a_cut_attempt_at_a_solved_problem_is_cancelled_where_it_does_not_pay(
    continue_cut: str, cancelled: int
) -> None:
    coordinator = _coordinator()
    coordinator.lengths = replace(CUT, continue_cut=continue_cut)
    coordinator.engine_report(_report(capacity=1))
    coordinator.state.is_solved[0] = True
    orders = coordinator.engine_report(_report(saved=(CUT_PIECE,)))
    assert len(orders.leases) == 1 - cancelled
    counts = coordinator.progress(1).counts
    assert (counts.cancelled, counts.pending) == (cancelled, 1 - cancelled)
    untraced = coordinator.take_commit().untraced
    assert [(item.ending, item.reason, item.num_tokens) for item in untraced] == [
        ("cancelled", "solved", 10)
    ] * cancelled
    assert coordinator.dispatch.is_done == bool(cancelled)


def test_a_problem_is_solved_by_the_first_good_verdict() -> None:
    coordinator = _coordinator()
    coordinator.engine_report(_report())
    coordinator.engine_report(_report(finished=(_finished(0),)))
    (item,) = coordinator.take_batch("v", 8)
    assert not coordinator.state.is_solved[0]
    coordinator.judge_report("v", [_verdict(item, Outcome.CORRECT)])
    assert coordinator.state.is_solved[0]


def test_limits_by_domain_stand_in_the_leases() -> None:
    coordinator = _coordinator()
    coordinator.lengths = Lengths(max_tokens=100, by_domain={Domain.MATH: 40}, first=50)
    (lease,) = coordinator.engine_report(_report()).leases
    assert (lease.max_tokens, lease.may_go_on, lease.language) == (40, False, "en")


def test_others_are_answered_while_the_journal_of_a_dead_engine_is_read(tmp_path: Path) -> None:
    start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    traces = [make_trace(problem.problem_id, 0) for problem in PROBLEMS[:4]]

    async def see_to_death() -> Counts:
        actor = CoordinatorActor(RunSpec(path=tmp_path, job=JOB, fingerprint=FINGERPRINT))
        await actor.load(True, {})
        path = tmp_path / "journal" / write_segment(tmp_path / "journal", traces, engine_id="e1", sequence=1)
        data = path.read_bytes()
        path.unlink()
        os.mkfifo(path)  # a segment whose end does not come before it is written below: a slow disk
        disk = os.open(path, os.O_RDWR)
        in_vain = Timer(10, os.close, (disk,))
        in_vain.start()
        death = asyncio.create_task(actor.engine_died("e1", False, False))
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert not (await actor.pull(_report("e2"))).stop
            assert (await actor.pull(_report("e1"))).stop
        assert not death.done()
        in_vain.cancel()
        os.write(disk, data)
        os.close(disk)
        await death
        return (await actor.progress(0)).counts

    assert asyncio.run(see_to_death()).generated == len(traces)


def test_verifiers_that_wait_hear_of_a_trace_at_once_and_a_dead_one_gets_none(tmp_path: Path) -> None:
    start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)

    async def wait() -> None:
        actor = CoordinatorActor(RunSpec(path=tmp_path, job=JOB, fingerprint=FINGERPRINT))
        await actor.load(True, {})
        await actor.pull(_report())
        assert await actor.judge("v1", [], 8) == []
        assert await actor.judge("v1", [], 8, wait_s=0.05) == []
        waiting = [asyncio.create_task(actor.judge(name, [], 1, wait_s=60)) for name in ("v1", "v2", "v3")]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        await actor.verifier_died("v1")
        await actor.pull(_report(finished=(_finished(0), _finished(1))))
        assert await actor.judge("v5", [], 0) == [], "a busy verifier asks for nothing, and wakes and stops nobody"
        (_,), (second,) = [await asyncio.wait_for(task, 10) for task in waiting[1:]]
        assert not waiting[0].done()
        waiting[0].cancel()
        late = asyncio.create_task(actor.judge("v4", [], 1, wait_s=60))
        await asyncio.sleep(0.05)
        await actor.verifier_died("v3")
        assert await asyncio.wait_for(late, 10) == [second], "what a dead one had is told of, too"

    asyncio.run(wait())


def test_what_cannot_be_read_of_the_journal_is_said_and_made_again(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    traces = [make_trace(problem.problem_id, 0) for problem in PROBLEMS[:4]]
    path = tmp_path / "journal" / write_segment(tmp_path / "journal", traces, sequence=1)
    places = [traced.position.offset for traced in scan_segment(path).traces]
    data = bytearray(path.read_bytes())
    data[places[1] + 40] ^= 1
    path.write_bytes(data[:-3])
    spec = RunSpec(path=tmp_path, job=JOB, fingerprint=FINGERPRINT)
    coordinator = load_coordinator(spec, generate=True)
    damaged, torn = coordinator.progress(0).damage
    assert f"{path.name}: 1 frames are damaged, the first at byte {places[1]}" in damaged
    assert f"its last {len(data) - 3 - places[3]:,} bytes cannot be read" in torn
    assert coordinator.dispatch.num_queued == len(PROBLEMS) * NUM_SAMPLES - 2
    judged = [make_verdict(traces[place], PROBLEMS[place]) for place in (0, 1)]
    with pytest.raises(CorruptRunError, match="holds it no more"):
        committer.commit(segments=[path.name], judged=judged)
    assert path.exists()


def test_once_first_attempts_have_shown_their_lengths_the_longest_come_next(tmp_path: Path) -> None:
    start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    coordinator = load_coordinator(RunSpec(path=tmp_path, job=JOB, fingerprint=FINGERPRINT), generate=True)
    orders = coordinator.engine_report(_report(capacity=len(PROBLEMS)))
    firsts = [Key(place, 0) for place in range(len(PROBLEMS))]
    assert [lease.key for lease in orders.leases] == firsts
    coordinator.engine_report(
        _report(
            capacity=0,
            refused=(Refused(firsts[1], FailReason.NOT_RECORDED, "no"),),
            finished=tuple(replace(_finished(place), num_tokens=100 - place) for place in range(2, len(PROBLEMS))),
        )
    )
    orders = coordinator.engine_report(_report(capacity=len(PROBLEMS) * NUM_SAMPLES))
    given = [lease.key.problem for lease in orders.leases]
    mean = [2, 3, 4, 5, 6]  # above the mean, by which the one that failed goes; 0 is in flight
    assert given == [place for place in [0, *mean, 1, 7, 8, 9, 10, 11] for _ in range(NUM_SAMPLES - 1)]
