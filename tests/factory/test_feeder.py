"""The feeder: keeps its engine full, and says of nothing that it is safe before it is on disk."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from factory.capacity import MIN_BACKLOG
from factory.dispatch import Key
from factory.early import Rules
from factory.feeder import Feeder, Lease, Orders, Report, TraceStamp
from factory.journal import read_saved, read_trace, scan_segment
from factory.saved import SavedAttempts
from factory.sharing import Slots
from factory.teachers import Completion, Request
from factory.teachers.scripted import ScriptedEngine
from schemas.config import SamplingConfig, ScriptedTeacher, StoreConfig
from schemas.errors import EngineDeadError
from schemas.problem import Prompt
from schemas.readability import ReadabilitySettings
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Reason
from tests.runs import traces_of
from verifiers.readability import judge_trace

STAMP = TraceStamp(
    fingerprint="f" * 32, format=TraceFormat.R1, teacher="scripted", teacher_revision="1", engine_id="engine-0-e1-1"
)


@dataclass(slots=True)
class Desk:
    """The coordinator's side: a list of leases to give, and what was reported, checked at the moment of the report."""

    journal: Path
    num_leases: int
    stop_after: int | None = None  # finished attempts; default: all
    prompt: Sequence[int] = b"What is 2 + 3?"
    reports: list[Report] = field(default_factory=list)
    finished: list[Key] = field(default_factory=list)
    refused: list[Key] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    saved: SavedAttempts = field(default_factory=SavedAttempts)
    ended: set[Key] = field(default_factory=set)  # before this start
    num_given: int = 0

    async def pull(self, report: Report) -> Orders:
        """Check that what is reported can be read back, then give what there is room for."""
        self.reports.append(report)
        for item in report.finished:
            trace = read_trace(self.journal, item.position)
            assert (trace.problem_id, trace.sample_index) == (f"p{item.key.problem}", item.key.sample_index)
            assert trace.num_completion_tokens == item.num_tokens
            self.finished.append(item.key)
        for key, piece, _ in report.saved:
            self.saved.add(key, report.engine_id, piece)
            assert read_saved(self.journal, self.saved.positions(key)).token_ids
        self.refused += [refused.key for refused in report.refused]
        self.closed += report.closed
        ended = len(self.finished) + len(self.refused) + len(self.ended)
        if ended >= (self.num_leases if self.stop_after is None else self.stop_after):
            return Orders(stop=True)
        fresh = range(self.num_given, min(self.num_given + report.capacity, self.num_leases))
        self.num_given += len(fresh)
        return Orders(leases=tuple(self._lease(number) for number in fresh if Key(number, 0) not in self.ended))

    def _lease(self, number: int) -> Lease:
        prompt = Prompt(problem_id=f"p{number}", text="p", sha256="", token_ids=tuple(self.prompt))
        return Lease(key=Key(number, 0), prompt=prompt, seed=None, saved=self.saved.positions(Key(number, 0)))

    def on_disk(self) -> list[Key]:
        """Return the attempts that lie in the journal."""
        return [Key(int(trace.problem_id[1:]), trace.sample_index) for trace in self.traces()]

    def traces(self) -> list[Trace]:
        """Return the traces that lie in the journal."""
        return [trace for path in sorted(self.journal.glob("*.seg")) for trace in traces_of(path)]


async def _feed(
    desk: Desk,
    *,
    engine: DyingEngine | None = None,
    store: StoreConfig | None = None,
    max_num_seqs: int = 8,
    max_tokens: int = 400,
    engine_id: str = "engine-0-e1-1",
    rules: Rules | None = None,
    **teacher: float,
) -> Feeder:
    config = ScriptedTeacher(
        kind="scripted", max_num_seqs=max_num_seqs, **{"tokens_per_s": 50_000, "mean_tokens": 20, **teacher}
    )
    scripted = ScriptedEngine(config, SamplingConfig(max_tokens=max_tokens), engine_id=engine_id, incarnation=2)
    info = await scripted.start()
    feeder = Feeder(
        engine=engine or scripted,
        info=info,
        stamp=replace(STAMP, engine_id=engine_id),
        store=store or StoreConfig(fsync_interval_s=0.05, segment_s=600),
        journal=desk.journal,
        slots=Slots.of(info, 0.1),
        pull=desk.pull,
        rules=rules,
    )
    if isinstance(desk, LeavingDesk):
        desk.feeder = feeder
    try:
        await asyncio.wait_for(feeder.run(), 60)
    finally:
        await scripted.close()
    return feeder


def test_everything_leased_is_reported_once_and_only_when_it_is_on_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=100)
    asyncio.run(_feed(desk))
    assert sorted(desk.finished) == [Key(number, 0) for number in range(100)]
    assert sorted(desk.on_disk()) == sorted(desk.finished)
    assert desk.closed == [path.name for path in sorted(tmp_path.glob("*.seg"))]


class SlowDiskDesk(Desk):
    """A desk that knows up to which byte each segment was made to stay, by an fsync that has returned."""

    kept: dict[int, int]

    async def pull(self, report: Report) -> Orders:
        """Check every place that is reported against what is kept."""
        for item in report.finished:
            assert item.position.offset < self.kept[(self.journal / item.position.file).stat().st_ino]
        return await Desk.pull(self, report)


def test_nothing_is_reported_while_its_fsync_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = SlowDiskDesk(tmp_path, num_leases=60)
    desk.kept = {}
    fsync = os.fsync

    def slow_fsync(handle: int) -> None:
        before = os.fstat(handle)
        time.sleep(0.2)  # a disk this slow: some ticks of the feeder long
        fsync(handle)
        desk.kept[before.st_ino] = before.st_size

    monkeypatch.setattr(os, "fsync", slow_fsync)
    asyncio.run(_feed(desk))
    assert sorted(desk.finished) == sorted(desk.on_disk())
    assert max(report.journal_lag_s for report in desk.reports) > 0.1  # and the disk is seen to be slow
    assert desk.reports[-1].journal_lag_s == 0


def test_the_engine_is_kept_full_with_a_small_backlog(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=150)
    feeder = asyncio.run(_feed(desk, max_num_seqs=16, tokens_per_s=5000))  # slow beside the feeder's own tick
    assert feeder.slots.target == 16 + MIN_BACKLOG
    assert all(report.in_flight + report.capacity == feeder.slots.target for report in desk.reports)
    assert max(report.in_flight for report in desk.reports) > 16
    assert desk.reports[-1].num_tokens_out > 0


@pytest.mark.parametrize("fsync_interval_s", [0.001, 0.02, 60])
def test_a_feeder_that_is_stopped_reports_all_that_is_in_its_closed_journal(
    tmp_path: Path, fsync_interval_s: float
) -> None:
    # With a short interval a sync is nearly always under way when the order to stop comes.
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        desk = Desk(folder, num_leases=10_000, stop_after=20 * turn if fsync_interval_s < 60 else 0)
        store = StoreConfig(fsync_interval_s=fsync_interval_s, segment_s=0.05 if turn % 2 else 600)
        asyncio.run(_feed(desk, store=store, tokens_per_s=200_000))
        assert sorted(desk.finished) == sorted(desk.on_disk())
        assert sorted(desk.closed) == sorted(path.name for path in folder.glob("*.seg"))


@pytest.mark.parametrize("num_leases", [1, 9, 30])
def test_the_last_attempts_do_not_wait_for_the_next_regular_sync(tmp_path: Path, num_leases: int) -> None:
    """A minute between two syncs: the run ends all the same, since nothing more would share the sync."""
    desk = Desk(tmp_path, num_leases=num_leases)
    asyncio.run(asyncio.wait_for(_feed(desk, store=StoreConfig(fsync_interval_s=60, segment_s=600)), timeout=20))
    assert sorted(desk.finished) == sorted(desk.on_disk()) == [Key(number, 0) for number in range(num_leases)]


def test_segments_are_closed_by_age_and_each_name_is_reported_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=200)
    asyncio.run(_feed(desk, store=StoreConfig(fsync_interval_s=0.02, segment_s=0.05), tokens_per_s=10_000))
    assert len(desk.closed) > 2
    assert sorted(desk.closed) == sorted(path.name for path in tmp_path.glob("*.seg"))
    assert sorted(desk.on_disk()) == sorted(desk.finished)


def test_a_prompt_that_is_refused_is_reported_and_others_go_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=20, prompt=b"x" * 200)
    asyncio.run(_feed(desk, max_model_len=100))
    assert sorted(desk.refused) == [Key(number, 0) for number in range(20)]
    assert desk.on_disk() == []


# Attempts that nobody needs any more


@dataclass(slots=True)
class FickleDesk(Desk):
    """A desk that has every third attempt given up: in flight, in the backlog, or when it has ended already."""

    aborted: dict[Key, int] = field(default_factory=dict)

    async def pull(self, report: Report) -> Orders:
        """Change its mind about some, the later of which are leased with this very answer."""
        for key, num_tokens in report.aborted:
            assert key not in self.aborted, "given up twice"
            self.aborted[key] = num_tokens
        self.ended = set(self.aborted)
        orders = await Desk.pull(self, report)
        unwanted = tuple(Key(number, 0) for number in range(0, self.num_given, 3))
        return replace(orders, abort=unwanted)


def test_attempts_that_are_given_up_leave_no_trace_and_end_once(tmp_path: Path) -> None:
    desk = FickleDesk(tmp_path, num_leases=60)
    asyncio.run(_feed(desk, mean_tokens=400, max_tokens=3_000, tokens_per_s=100_000))
    assert sorted([*desk.finished, *desk.aborted]) == [Key(number, 0) for number in range(60)]
    assert sorted(desk.on_disk()) == sorted(desk.finished)
    assert set(desk.aborted) == {Key(number, 0) for number in range(0, 60, 3)}
    assert not any(report.aborted for report in desk.reports[:1])


# Long attempts, and what is saved of them

LONG = {"mean_tokens": 3000, "max_model_len": 20_000, "max_tokens": 19_000, "tokens_per_s": 40_000.0}
SAVING = StoreConfig(fsync_interval_s=0.05, segment_s=0.3, partial_tokens=100)  # pieces over several segments


@dataclass(slots=True)
class ImpatientDesk(Desk):
    """A desk that orders a stop after a number of reports with pieces, in the middle of everything."""

    patience: int = 5

    async def pull(self, report: Report) -> Orders:
        """Lose patience."""
        self.patience -= bool(report.saved)
        orders = await Desk.pull(self, report)
        return orders if self.patience > 0 else Orders(stop=True)


@dataclass(slots=True)
class LeavingDesk(Desk):
    """A desk whose engine is told, in the middle of everything, that its node is taken away."""

    feeder: Feeder | None = None
    leave_after: int | None = None  # finished attempts; default: at the first piece

    async def pull(self, report: Report) -> Orders:
        """Tell it when it is time; lease nothing to an engine that leaves."""
        if report.is_leaving:
            self.reports.append(report)
            self.finished += [item.key for item in report.finished]
            for key, piece, _ in report.saved:
                self.saved.add(key, report.engine_id, piece)
            self.closed += report.closed
            return Orders(stop=True)
        has_come = report.saved if self.leave_after is None else len(self.finished) >= self.leave_after
        if has_come and self.feeder is not None:
            self.feeder.leave()
            if isinstance(self.feeder.engine, DyingEngine):
                self.feeder.engine.die()  # its core gets the signal, too
        return await Desk.pull(self, report)


def test_an_engine_that_leaves_says_so_once_all_that_it_had_in_flight_is_safe(tmp_path: Path) -> None:
    desk = LeavingDesk(tmp_path, num_leases=12)
    feeder = asyncio.run(_feed(desk, store=SAVING, **LONG | {"tokens_per_s": 4000}))
    assert feeder.has_left
    assert [report.is_leaving for report in desk.reports] == [False] * (len(desk.reports) - 1) + [True]
    assert sorted(desk.closed) == sorted(path.name for path in tmp_path.glob("*.seg"))
    given_up = [Key(number, 0) for number in range(8) if Key(number, 0) not in desk.finished]
    assert given_up
    assert all(read_saved(tmp_path, desk.saved.positions(key)).token_ids for key in given_up)


def _undisturbed(folder: Path, num_leases: int) -> dict[str, Trace]:
    folder.mkdir()
    desk = Desk(folder, num_leases=num_leases)
    asyncio.run(_feed(desk, store=SAVING, **LONG | {"tokens_per_s": 10_000_000}))
    return {trace.problem_id: trace for trace in desk.traces()}


def test_attempts_that_were_given_up_go_on_elsewhere_from_their_last_token(tmp_path: Path) -> None:
    """Feeders are stopped again and again; in the end all texts are those of a run that nobody stopped."""
    num_leases = 12
    whole = _undisturbed(tmp_path / "whole", num_leases)
    folder = tmp_path / "broken"
    folder.mkdir()
    saved, ended = SavedAttempts(), set[Key]()
    num_starts = 0
    while len(ended) < num_leases:
        num_starts += 1
        assert num_starts < 60
        desk = ImpatientDesk(folder, num_leases=num_leases, saved=saved, ended=ended, patience=2)
        speed = 10_000 if num_starts < 8 else 40_000  # so slow at first that whoever is away for a second misses no end
        asyncio.run(_feed(desk, store=SAVING, engine_id=f"engine-0-e1-{num_starts}", **LONG | {"tokens_per_s": speed}))
        ended |= set(desk.finished)
    assert num_starts > 3
    found = {trace.problem_id: trace for trace in desk.traces()}
    assert len(desk.traces()) == num_leases
    for problem_id, trace in found.items():
        undisturbed = whole[problem_id]
        assert (trace.text, trace.token_ids) == (undisturbed.text, undisturbed.token_ids)
        assert list(trace.resumed_at) == sorted(set(trace.resumed_at))
        assert all(0 < count < trace.num_completion_tokens for count in trace.resumed_at)
    assert any(len(trace.resumed_at) > 1 for trace in found.values())


def test_a_segment_that_cannot_be_opened_for_a_piece_ends_the_feeder(tmp_path: Path) -> None:
    (tmp_path / "engine-0-e1-1-000001.seg").touch()
    desk = Desk(tmp_path, num_leases=4)
    with pytest.raises(FileExistsError, match="engine-0-e1-1-000001"):
        asyncio.run(_feed(desk, store=SAVING, **LONG | {"tokens_per_s": 2000}))


def test_without_partials_nothing_is_saved(tmp_path: Path) -> None:
    desk = ImpatientDesk(tmp_path, num_leases=12, stop_after=2)
    asyncio.run(_feed(desk, store=SAVING.model_copy(update={"partial_tokens": None}), **LONG))
    assert not any(report.saved for report in desk.reports)
    assert not any(scan_segment(path).pieces for path in tmp_path.glob("*.seg"))


def test_an_attempt_whose_saved_part_is_gone_or_damaged_begins_anew(tmp_path: Path) -> None:
    whole = _undisturbed(tmp_path / "whole", 4)
    folder = tmp_path / "broken"
    folder.mkdir()
    desk = ImpatientDesk(folder, num_leases=4)
    asyncio.run(_feed(desk, store=SAVING, **LONG))
    first, *_ = sorted(folder.glob("*.seg"))
    damaged = bytearray(first.read_bytes())
    for place in range(200, len(damaged), 100):
        damaged[place] ^= 1
    first.write_bytes(damaged)
    again = Desk(folder, num_leases=4, saved=desk.saved, ended=set(desk.finished))
    asyncio.run(_feed(again, store=SAVING, engine_id="engine-0-e1-2", **LONG))
    assert len(again.finished) == 4 - len(desk.finished)
    for path in folder.glob("engine-0-e1-2-*.seg"):
        for trace in traces_of(path):
            assert trace.text == whole[trace.problem_id].text
            assert trace.resumed_at == ()


# Attempts that are past hope, and such as have more than one turn

RULES = Rules(loop_tokens=1536, format=TraceFormat.R1, settings=ReadabilitySettings())


def test_attempts_that_loop_are_ended_and_kept_with_the_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=24)
    asyncio.run(_feed(desk, rules=RULES, loop_rate=0.5, **LONG | {"tokens_per_s": 20_000.0}))
    traces = desk.traces()
    assert sorted(desk.finished) == [Key(number, 0) for number in range(24)]
    ended = [trace for trace in traces if trace.finish_reason is FinishReason.ABORT]
    assert 5 < len(ended) < 20
    for trace in ended:
        assert (trace.finish_detail or "").startswith("repetition_loop: the last ")
        assert RULES.loop_tokens <= trace.num_completion_tokens < 19_000
        verdict = judge_trace(trace.text, domain="math", language="en", format="r1", finish_reason="abort")
        assert verdict.reason is Reason.REPETITION_LOOP
    assert {trace.finish_reason for trace in traces} == {FinishReason.ABORT, FinishReason.STOP}
    assert all(trace.finish_detail is None for trace in traces if trace.finish_reason is FinishReason.STOP)


def test_a_loop_that_another_engine_began_is_seen_at_once(tmp_path: Path) -> None:
    """The detector gets the tokens that came from elsewhere, too."""
    desk = ImpatientDesk(tmp_path, num_leases=1, patience=4)
    asyncio.run(_feed(desk, store=SAVING, loop_rate=1.0, **LONG | {"tokens_per_s": 5_000.0}))
    assert not desk.finished
    again = Desk(tmp_path, num_leases=1, saved=desk.saved)
    slow = LONG | {"tokens_per_s": 1_000.0}  # what comes until it is ended is few, though that may be late
    asyncio.run(_feed(again, store=SAVING, rules=RULES, loop_rate=1.0, engine_id="engine-0-e1-2", **slow))
    (trace,) = again.traces()
    assert trace.finish_reason is FinishReason.ABORT
    (given,) = trace.resumed_at
    assert trace.num_completion_tokens <= max(given, RULES.loop_tokens) + 3_000


@dataclass(slots=True)
class TurnsDesk(Desk):
    """A desk that gives every attempt a first turn of some tokens, and when that is over, a second one without end."""

    cut: list[Key] = field(default_factory=list)

    async def pull(self, report: Report) -> Orders:
        """Give what was cut once all had their turn."""
        orders = await Desk.pull(self, report)
        self.cut += [item.key for item in report.saved if item.is_cut]
        leases = [replace(lease, max_tokens=FIRST_TOKENS, may_go_on=True) for lease in orders.leases]
        room = report.capacity - len(leases)
        while self.num_given == self.num_leases and self.cut and room > 0:
            leases.append(self._lease(self.cut.pop().problem))
            room -= 1
        return replace(orders, leases=tuple(leases))


FIRST_TOKENS = 2_000


@pytest.mark.parametrize("partial_tokens", [None, 300, 2_000], ids=["not saved on the way", "saved", "saved just now"])
def test_a_cut_attempt_and_its_continuation_are_one_trace(tmp_path: Path, partial_tokens: int | None) -> None:
    whole = _undisturbed(tmp_path / "whole", 16)
    folder = tmp_path / "cut"
    folder.mkdir()
    desk = TurnsDesk(folder, num_leases=16)
    store = SAVING.model_copy(update={"partial_tokens": partial_tokens})
    asyncio.run(_feed(desk, store=store, **LONG | {"tokens_per_s": 10_000_000}))
    traces = desk.traces()
    assert sorted(desk.finished) == [Key(number, 0) for number in range(16)]
    assert {trace.problem_id: trace.text for trace in traces} == {name: trace.text for name, trace in whole.items()}
    for trace in traces:
        assert trace.resumed_at == ((FIRST_TOKENS,) if trace.num_completion_tokens > FIRST_TOKENS else ())
    assert 4 < sum(bool(trace.resumed_at) for trace in traces) < 16


class DyingEngine:
    """An engine of the protocol that serves a few requests and then is dead."""

    num_tokens_out = 0

    def __init__(self, num_served: int) -> None:
        self._left: Iterator[int] = itertools.count(num_served, -1)

    def die(self) -> None:
        """Serve nothing more."""
        self._left = itertools.repeat(0)

    async def start(self) -> None:
        """Be there."""

    async def generate(self, request: Request) -> Completion:
        """Serve, or die."""
        await asyncio.sleep(0.01)
        if next(self._left) <= 0:
            raise EngineDeadError("the core is gone")
        return Completion(
            text="x",
            token_ids=(1,),
            num_tokens=1,
            finish_reason=FinishReason.STOP,
            stop_token=None,
            num_reasoning_tokens=None,
            submitted_at_us=1,
            first_token_at_us=None,
            finished_at_us=2,
        )

    async def abort(self, request_id: str) -> None:
        """Nothing to abort."""

    async def close(self) -> None:
        """Nothing to close."""


def test_room_is_asked_for_when_attempts_end_not_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.feeder.TICK_S", 3_600.0)
    desk = Desk(tmp_path, num_leases=100_000, stop_after=100)
    asyncio.run(asyncio.wait_for(_feed(desk), timeout=60))
    assert len(desk.finished) >= 100


def test_a_dead_engine_ends_the_feeder_and_what_had_finished_is_on_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_leases=100)
    with pytest.raises(EngineDeadError, match="the core is gone"):
        asyncio.run(_feed(desk, engine=DyingEngine(num_served=30)))
    assert len(desk.on_disk()) == 30
    assert set(desk.finished) <= set(desk.on_disk())


def test_an_engine_that_dies_while_it_leaves_has_left(tmp_path: Path) -> None:
    desk = LeavingDesk(tmp_path, num_leases=1000, leave_after=20)
    assert asyncio.run(_feed(desk, engine=DyingEngine(num_served=500))).has_left
    assert desk.reports[-1].is_leaving
    assert set(desk.finished) == set(desk.on_disk())


def test_a_full_disk_ends_the_feeder_and_nothing_unsaved_was_reported(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    desk = Desk(tmp_path, num_leases=1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            asyncio.run(_feed(desk, tokens_per_s=2_000))  # so that there is a sync before the disk is full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert desk.finished
    assert set(desk.finished) <= set(desk.on_disk())


class DeafDesk(Desk):
    """A coordinator that is away two times of three."""

    turn = 0

    async def pull(self, report: Report) -> Orders | None:
        """Answer every third report."""
        self.turn += 1
        if self.turn % 3:
            return None
        return await Desk.pull(self, report)


def test_what_nobody_heard_is_reported_again_and_held_until_then(tmp_path: Path) -> None:
    desk = DeafDesk(tmp_path, num_leases=200)
    feeder = asyncio.run(_feed(desk, store=StoreConfig(fsync_interval_s=0.02, segment_s=0.1), tokens_per_s=20_000))
    assert sorted(desk.finished) == [Key(number, 0) for number in range(200)]
    assert sorted(desk.closed) == sorted(path.name for path in tmp_path.glob("*.seg"))
    assert feeder.holding() == ((), len(desk.closed))


class LostDesk(Desk):
    """A coordinator that goes away in the middle."""

    async def pull(self, report: Report) -> Orders:
        """Answer for a while."""
        if len(self.finished) > 30:
            raise ConnectionError("the coordinator is gone")
        return await Desk.pull(self, report)


def test_a_pull_that_fails_ends_the_feeder_and_closes_the_journal(tmp_path: Path) -> None:
    desk = LostDesk(tmp_path, num_leases=1000)
    with pytest.raises(ConnectionError):
        asyncio.run(_feed(desk))
    assert set(desk.finished) <= set(desk.on_disk())


@dataclass(slots=True)
class TimedDesk(Desk):
    """A desk that remembers when it was asked."""

    pulled_at: list[float] = field(default_factory=list)

    async def pull(self, report: Report) -> Orders:
        """Look at the clock."""
        self.pulled_at.append(time.monotonic())
        return await Desk.pull(self, report)


@pytest.mark.parametrize(("num_leases", "most"), [(400, "full"), (3, "starved")])
def test_every_second_of_an_engine_is_accounted_for_once(tmp_path: Path, num_leases: int, most: str) -> None:
    desk = TimedDesk(tmp_path, num_leases=num_leases)
    start = time.monotonic()
    asyncio.run(_feed(desk, tokens_per_s=20_000, mean_tokens=200))
    elapsed = time.monotonic() - start
    seen = desk.reports[-1].occupancy
    whole = sum(seen)
    assert 0.5 * (desk.pulled_at[-1] - desk.pulled_at[0]) <= whole <= elapsed
    assert getattr(seen, most) == max(seen)
    times = [sum(report.occupancy) for report in desk.reports]
    assert times == sorted(times)


# Two jobs on one engine


@dataclass(slots=True)
class SharingDesk(Desk):
    """A desk that says when it has nothing more to give, and remembers when it gave."""

    given_at: list[float] = field(default_factory=list)

    async def pull(self, report: Report) -> Orders:
        """Let others in at the end."""
        orders = await Desk.pull(self, report)
        self.given_at += [time.monotonic()] * len(orders.leases)
        return replace(orders, lets_others=len(orders.leases) < report.capacity)


async def _feed_both(desks: Sequence[Desk], limits: Sequence[int]) -> int:
    """Return what the engine made, by its own count."""
    config = ScriptedTeacher(kind="scripted", max_num_seqs=8, tokens_per_s=20_000, mean_tokens=200)
    scripted = ScriptedEngine(config, SamplingConfig(), engine_id="e", incarnation=2)
    info = await scripted.start()
    slots = Slots.of(info, 0.1)
    feeders = [
        Feeder(
            engine=scripted,
            info=info,
            stamp=STAMP,
            store=StoreConfig(fsync_interval_s=0.05),
            journal=desk.journal,
            slots=slots,
            pull=desk.pull,
            sampling=SamplingConfig(max_tokens=limit),
            order=order,
        )
        for order, (desk, limit) in enumerate(zip(desks, limits, strict=True))
    ]
    await asyncio.wait_for(asyncio.gather(*(feeder.run() for feeder in feeders)), 60)
    await scripted.close()
    return scripted.num_tokens_out


def test_two_jobs_on_one_engine_make_what_each_makes_alone_and_the_second_waits_for_its_turn(tmp_path: Path) -> None:
    """They have the same problems, so that all that tells them apart is whose they are."""
    desks, limits = [], (1_000, 150)
    for name in ("first", "second", "alone-1000", "alone-150"):
        (tmp_path / name).mkdir()
        desks.append(SharingDesk(tmp_path / name, num_leases=40))
    made = asyncio.run(_feed_both(desks[:2], limits))
    for desk, limit in zip(desks[2:], limits, strict=True):
        asyncio.run(_feed_both([desk], [limit]))
    texts = [{trace.problem_id: trace.text for trace in desk.traces()} for desk in desks]
    assert texts[:2] == texts[2:]
    assert [len(text) for text in texts] == [40] * 4
    assert max(desks[0].given_at) <= min(desks[1].given_at)
    shared = [desk.reports[-1].num_tokens_out for desk in desks[:2]]
    assert made - 2 <= sum(shared) <= made  # each is cut to whole tokens
    assert min(shared) > 0
