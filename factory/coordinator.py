"""The coordinator's state: what is leased to engines and verifiers, and what may be committed.

Plain synchronous code; the actor around it only carries messages. Facts in (reports of engines and verifiers, deaths),
decisions out (leases, batches to judge, segments to commit). Invariants: a segment is offered for commit only when it
is closed and every trace in it has a final verdict, so a committed manifest never has traces that nobody judged; it
stays on disk as long as an attempt may go on from tokens that are saved in it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from factory.adaptive import Adaptive, Closing
from factory.delays import Delays, Quantiles
from factory.dispatch import CancelReason, Dispatch, FailReason, Failure, Key
from factory.feeder import Finished, Lease, Orders, Report
from factory.journal import Piece, Position, SegmentScan
from factory.lengths import Lengths
from factory.order import LongFirst
from factory.saved import SavedAttempts
from factory.sharing import Occupancy
from factory.signs import Signs
from factory.state import CANCELLED, ENDED, FAILED, GOOD_OUTCOMES, TRACED, Places, RunState
from factory.waiting import Unjudged, Waiting
from schemas.manifest import Counts
from schemas.problem import digest
from schemas.trace import Untraced, make_trace_id
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Verdict

BACKLOG_STEP: Final = 1_000  # committed traces without a verdict that are looked up at a time
MAX_CANCELLED_PER_COMMIT: Final = 100_000  # attempts that were never made; a row of ids each (guess)
MAX_TRACES_PER_COMMIT: Final = 20_000  # unless one segment has more: their verdicts are in memory (guess)
SEED_BITS: Final = 63  # seeds fill a signed 64-bit column


class JudgeItem(NamedTuple):
    """A trace to judge, and where it lies."""

    number: int  # of the attempt
    trace_id: str
    problem_id: str
    reference_hash: str | None
    position: Position


def died_under(item: JudgeItem) -> JudgedTrace:
    """Return the verdict of a trace under which verifiers died again and again: our failure, not the model's."""
    check = Check(name="worker", version="1", outcome=Outcome.UNJUDGED, reason=Reason.WORKER_DIED)
    verdict = Verdict(reference_hash=item.reference_hash, checks=(check,))
    return JudgedTrace(trace_id=item.trace_id, problem_id=item.problem_id, verdict=verdict)


@dataclass(slots=True)
class Segment:
    """A journal segment: how many of its traces still lack a verdict, and the verdicts so far."""

    num_waiting: int = 0
    judged: list[JudgedTrace] = field(default_factory=list)
    is_closed: bool = False
    is_kept: bool = False  # its traces are committed, and it is still needed


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitBatch:
    """What one commit takes: whole segments with their verdicts, verdicts of older traces, endings without a trace."""

    segments: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # those of them that are still needed; they come again
    judged: tuple[JudgedTrace, ...] = ()
    untraced: tuple[Untraced, ...] = ()
    cancelled: Mapping[str, Places] = field(default_factory=dict)  # numbers of attempts never made, by reason
    is_last: bool = True  # nothing more could be committed now: the next may wait its time

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return not (self.segments or self.judged or self.untraced or self.cancelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a user sees while a run goes on; all counts are of the whole run, earlier starts included."""

    counts: Counts
    num_problems: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    num_tokens: int  # of finished attempts of this start
    num_tokens_out: int  # generated in this start, finished or not
    num_tokens_spent: int = 0  # in all starts; the driver fills it in
    in_flight: int
    is_done: bool
    is_judged: bool = True  # no trace waits for a verdict
    damage: tuple[str, ...] = ()  # what could not be read of the journal
    num_queued: int = 0  # attempts that no engine holds
    num_to_judge: int = 0  # traces that wait for a verifier
    journal_lag_s: float = 0.0  # since the oldest frame of any engine was appended that is not yet synced
    occupancy: Mapping[str, Occupancy] = field(default_factory=dict)  # by engine that this coordinator heard of
    verifier_reports: Mapping[str, int] = field(default_factory=dict)  # how many came of each: signs of life
    delays: Quantiles | None = None  # from the end of a trace until its verdict was here; null: none was


@dataclass(slots=True)
class Coordinator:
    """All leases of a run. Not thread-safe."""

    fingerprint: str
    state: RunState  # with prompts; gets a flag for every trace that is made
    dispatch: Dispatch
    base: Counts  # what the manifest said when this start began
    base_outcomes: Counter[str]
    base_reasons: Counter[str]
    base_seed: int | None = None
    max_tries: int = 3
    is_draining: bool = False
    adaptive: Adaptive | None = None  # the supply of ``dispatch``; null: all attempts are made
    order: LongFirst | None = None  # the supply of ``dispatch`` where all attempts are made
    delays: Delays = field(default_factory=Delays)
    lengths: Lengths | None = None  # None: attempts have one turn, as long as ``sampling`` says
    max_model_len: int | None = None  # the teacher's context in tokens: a prompt that fills it fails in its turn
    _segments: dict[str, Segment] = field(default_factory=dict)
    _to_judge: Waiting = field(default_factory=Waiting)
    _backlog: Iterator[Unjudged] | None = None  # committed traces that today's verifiers have not judged
    _judging: dict[str, dict[str, JudgeItem]] = field(default_factory=dict)  # worker -> what it has, by id of the trace
    _tries: Counter[int] = field(default_factory=Counter)  # by number of the attempt
    _older: list[JudgedTrace] = field(default_factory=list)  # verdicts of traces that were committed before
    _untraced: list[Untraced] = field(default_factory=list)
    _outcomes: Counter[str] = field(default_factory=Counter)
    _reasons: Counter[str] = field(default_factory=Counter)
    _num_judged: int = 0
    _num_made: int = 0
    _num_failed: int = 0
    _num_tokens: int = 0
    _tokens_out: dict[str, int] = field(default_factory=dict)
    _num_reports: Counter[str] = field(default_factory=Counter)  # by engine
    _dead_verifiers: set[str] = field(default_factory=set)  # names are given once
    _num_judge_reports: Counter[str] = field(default_factory=Counter)  # by verifier
    _dying: set[str] = field(default_factory=set)
    _occupancy: dict[str, Occupancy] = field(default_factory=dict)
    _journal_lags: dict[str, float] = field(default_factory=dict)  # seconds, as each living engine last said
    _damage: list[str] = field(default_factory=list)  # what could not be read of the journal, in words
    _handed_over: set[str] = field(default_factory=set)  # segments given to the committer
    _saved: SavedAttempts = field(default_factory=SavedAttempts)
    _never_made: dict[CancelReason, array[int]] = field(default_factory=dict)  # numbers, until they are committed
    _num_cancelled: int = 0
    _given_up: dict[Key, CancelReason] = field(default_factory=dict)  # in flight, to be aborted
    _aborts: dict[str, list[Key]] = field(default_factory=dict)  # orders by engine, not yet sent

    def add_backlog(self, places: Iterator[tuple[int, Position]]) -> None:
        """Queue committed traces (number of the attempt, place) that today's verifiers have not judged."""
        self._backlog = (Unjudged(*place) for place in places)
        self._refill()

    def add_scan(self, name: str, scan: SegmentScan, *, is_closed: bool = True) -> list[Key]:
        """Take over what a segment holds; return the keys of the attempts in it.

        Traces that a manifest already holds are left out: the segment outlived its own commit. A segment whose writer
        lives is not closed: the rest of it comes with the writer's reports.
        """
        if scan.damaged:
            self._damage.append(
                f"journal/{name}: {len(scan.damaged)} frames are damaged, the first at byte {scan.damaged[0]} (the "
                "disk?); what they held is made again, the rest is kept"
            )
        if scan.mended:
            self._damage.append(
                f"journal/{name}: {len(scan.mended)} frames have a wrong bit in their length, the first at byte "
                f"{scan.mended[0]} (the disk?); nothing is lost by it"
            )
        if scan.torn_bytes and is_closed:  # of a writer that lives it is what it writes right now
            self._damage.append(
                f"journal/{name}: its last {scan.torn_bytes:,} bytes cannot be read: not yet synced when their writer "
                "died, or damaged since; what they held is made again"
            )
        self._segments.setdefault(name, Segment()).is_closed |= is_closed
        keys = scanned_keys(self.state, scan)
        for key, traced in zip(keys, scan.traces, strict=True):
            self._add_trace(key, traced.position, traced.num_tokens)
        return keys

    def add_saved(self, scan: SegmentScan, engine_id: str | None = None) -> None:
        """Take note of what a segment holds of attempts that have not ended; only of those that this engine holds."""
        if scan.header is None or not scan.pieces:
            return
        ids, indices = [piece.problem_id for piece in scan.pieces], [piece.sample_index for piece in scan.pieces]
        numbers = self.state.numbers(ids, indices)
        for number, piece in zip(numbers.tolist(), scan.pieces, strict=True):
            key = self.state.key(number)
            is_open = not self.state.flags[number] & ENDED
            if is_open and engine_id is None:
                self._saved.add(key, scan.header.engine_id, piece)
            elif is_open and engine_id is not None and self.dispatch.holds(engine_id, key):
                self._save(key, engine_id, piece)

    def _save(self, key: Key, engine_id: str, piece: Piece) -> None:
        """Take note of a piece by the engine that has the attempt."""
        if self._saved.add(key, engine_id, piece):
            self.dispatch.advance(engine_id, key)

    def engine_report(self, report: Report) -> Orders:
        """Take an engine's report; answer with leases, or the order to stop.

        A late report of an engine that was declared dead is ignored: its journal has been read.
        """
        if report.engine_id in self._dying or self.dispatch.is_dead(report.engine_id):
            return Orders(stop=True)
        self._tokens_out[report.engine_id] = report.num_tokens_out
        self._num_reports[report.engine_id] += 1
        self._occupancy[report.engine_id] = report.occupancy
        self._journal_lags[report.engine_id] = report.journal_lag_s
        for item in report.saved:
            if self.dispatch.holds(report.engine_id, item.key):
                self._save(item.key, report.engine_id, item.piece)
                if item.is_cut:
                    self._cut(report.engine_id, item.key)
        by_key = {item.key: item for item in report.finished}
        for key in self.dispatch.finish(report.engine_id, list(by_key)):
            self._finish(by_key[key])
        for key, num_tokens in report.aborted:
            if key not in self._given_up:  # by order of a former coordinator, who knew more
                self.dispatch.take_back(report.engine_id, key)
            elif self.dispatch.finish(report.engine_id, [key]):
                self._cancel(key, num_tokens)
        for refused in report.refused:
            if self.dispatch.holds(report.engine_id, refused.key):
                self._saved.drop(refused.key)  # what was saved may be why
                if refused.key in self._given_up:
                    self.dispatch.finish(report.engine_id, [refused.key])
                    self._cancel(refused.key)
            failure = self.dispatch.refuse(report.engine_id, *refused)
            if failure is not None:
                self._fail(failure)
        for name in set(report.closed) - self._handed_over:  # what a former coordinator knew is reported again
            self._segments.setdefault(name, Segment()).is_closed = True
        if report.is_leaving:
            self.dispatch.engine_left(report.engine_id)
            self._end_given_up(report.engine_id)
            return Orders(stop=True)
        if self.is_draining or self.dispatch.is_done:
            return Orders(stop=True)
        keys = self.dispatch.lease(report.engine_id, report.capacity, has_others=report.num_others > 0)
        for closing in self.adaptive.take_closings() if self.adaptive is not None else ():
            self._close(closing)
        leases = tuple(self._lease(key) for key in keys if self._is_to_make(report.engine_id, key))
        return Orders(
            leases=leases,
            abort=tuple(self._aborts.pop(report.engine_id, ())),
            lets_others=len(keys) < report.capacity and not self.dispatch.has_suspects,
        )

    def _cut(self, engine_id: str, key: Key) -> None:
        """Take back an attempt whose turn is over; one that was given up meanwhile ends by that."""
        if key in self._given_up:
            self.dispatch.cancel(engine_id, key)
            self._cancel(key, self._saved.num_tokens(key))
        else:
            self.dispatch.cut(engine_id, key)

    def queue_cut(self) -> None:
        """Have attempts that an earlier start cut wait for the fresh ones; comes once all that is saved is known."""
        if self.lengths is not None:
            self.dispatch.had_turn(key for key in self._saved.keys() if self._is_cut(key))  # noqa: SIM118  no mapping

    def _is_cut(self, key: Key) -> bool:
        """Return whether an attempt has had its first turn."""
        if self.lengths is None or not (num_saved := self._saved.num_tokens(key)):
            return False
        return self.lengths.is_cut(self.state.problems.asked(key.problem).domain, num_saved)

    def _is_to_make(self, engine_id: str, key: Key) -> bool:
        if self.dispatch.is_blamed(key):
            detail = "engines died under another attempt at its problem"
            return self._refuse(engine_id, key, FailReason.ENGINE_DIED, detail)
        return self._pays(engine_id, key) and self._has_room(engine_id, key)

    def _refuse(self, engine_id: str, key: Key, reason: FailReason, detail: str) -> bool:
        """End an attempt that the engine was to get; return False, for it gets it not."""
        failure = self.dispatch.refuse(engine_id, key, reason, detail)
        assert failure is not None, "such a refusal is final"
        self._fail(failure)
        return False

    def _pays(self, engine_id: str, key: Key) -> bool:
        """Return whether to go on with an attempt, if it was cut; if not, it is cancelled by that."""
        if self.lengths is None or not self._is_cut(key):
            return True
        if self.lengths.pays(is_solved=bool(self.state.is_solved[key.problem])):
            return True
        self.dispatch.cancel(engine_id, key)
        self._given_up[key] = CancelReason.SOLVED
        self._cancel(key, self._saved.num_tokens(key))
        return False

    def _has_room(self, engine_id: str, key: Key) -> bool:
        """Return whether the attempt's prompt leaves room for a token; if not, the attempt has failed by that."""
        length = self.state.problems.prompt_length(key.problem)
        if self.max_model_len is None or length < self.max_model_len:
            return True
        detail = f"the prompt has {length} tokens, the teacher's context is {self.max_model_len}"
        return self._refuse(engine_id, key, FailReason.PROMPT_TOO_LONG, detail)

    def lacks(self, name: str) -> bool:
        """True if a segment on disk has to be read, since its writer did not live to report it closed."""
        segment = self._segments.get(name)
        return name not in self._handed_over and (segment is None or not segment.is_closed)

    def mark_dead(self, engine_id: str) -> None:
        """Take no more reports of an engine whose death is being seen to."""
        self._journal_lags.pop(engine_id, None)
        self._dying.add(engine_id)

    def engine_died(
        self, engine_id: str, scans: Mapping[str, SegmentScan], *, was_taken: bool = False, has_others: bool = False
    ) -> bool:
        """Take back a dead engine's leases; what its journal holds counts as made. Return whether it made anything.

        Where its node ``was_taken`` away, that is no death of the attempts that it had; where it ``has_others``, an
        attempt of another job may be to blame.
        """
        for name, scan in scans.items():
            keys = self.add_scan(name, scan)
            self.dispatch.finish(engine_id, keys)
            self.add_saved(scan, engine_id)
        has_progressed = self.dispatch.has_progressed(engine_id)
        if was_taken:
            self.dispatch.engine_left(engine_id)
        failures = self.dispatch.engine_died(engine_id, has_others=has_others)
        for failure in failures:
            if not self.state.flags[self.state.number(failure.key)] & ENDED:  # the end of one may close its problem
                self._fail(failure)
        self._end_given_up(engine_id)
        return has_progressed or bool(failures)  # it is known now what killed the engines

    def _end_given_up(self, engine_id: str) -> None:
        """End what was to be given up by an engine that is gone."""
        self._aborts.pop(engine_id, None)
        for key in list(self._given_up):
            if self.dispatch.give_up(key) is None:
                self._cancel(key)

    def close_finished(self) -> None:
        """Close the problems that an earlier start left with nothing to do; comes once all that is held is known."""
        for closing in self.adaptive.resume() if self.adaptive is not None else ():
            self._close(closing)

    @property
    def has_to_judge(self) -> bool:
        """True if a trace waits for a verifier."""
        return bool(self._to_judge)

    def take_batch(self, worker_id: str, size: int) -> list[JudgeItem]:
        """Give a verifier more traces to judge; with those that it still has, it has up to ``size``.

        One that was declared dead gets none.
        """
        if worker_id in self._dead_verifiers:  # its message was under way, or waited
            return []
        held = self._judging.setdefault(worker_id, {})
        batch: list[JudgeItem] = []
        if len(self._to_judge) < size:
            self._refill()
        while self._to_judge and len(held) < size:
            # A trace that was tried before may have killed its verifier: it goes alone.
            if held and (self._has_tried(held) or self._to_judge.first.number in self._tries):
                break
            item = self._judge_item(self._to_judge.pop())
            held[item.trace_id] = item
            batch.append(item)
        return batch

    def _has_tried(self, held: Mapping[str, JudgeItem]) -> bool:
        """Return whether a verifier has a trace that was tried before, alone as it went."""
        return len(held) == 1 and next(iter(held.values())).number in self._tries

    def judge_report(self, worker_id: str, judged: Sequence[JudgedTrace]) -> None:
        """Take a verifier's verdicts; what stayed unjudged is tried again, up to ``max_tries`` times.

        What it has been given and says nothing of, it still has. Verdicts on anything else are ignored.
        """
        self._num_judge_reports[worker_id] += 1
        held = self._judging.get(worker_id, {})
        for verdict in judged:
            item = held.pop(verdict.trace_id, None)
            if item is None:
                continue
            self._tries[item.number] += 1
            if verdict.verdict.outcome is Outcome.UNJUDGED and self._tries[item.number] < self.max_tries:
                self._to_judge.append(Unjudged(item.number, item.position))
            else:
                self._settle(item, verdict)

    def verifier_died(self, worker_id: str) -> None:
        """Take back what a dead verifier still had; a trace that was there at ``max_tries`` deaths ends as unjudged."""
        self._dead_verifiers.add(worker_id)
        self._num_judge_reports.pop(worker_id, None)
        for item in self._judging.pop(worker_id, {}).values():
            self._tries[item.number] += 1
            if self._tries[item.number] < self.max_tries:
                self._to_judge.append(Unjudged(item.number, item.position))
            else:
                self._settle(item, died_under(item))

    def take_commit(self) -> CommitBatch:
        """Return all that may be committed now, and forget it."""
        closed = [name for name, segment in self._segments.items() if self._is_ready(name, segment)]
        ready: list[str] = []
        num_traces = 0
        for name in closed:
            num_traces += len(self._segments[name].judged)
            if ready and num_traces > MAX_TRACES_PER_COMMIT:
                break
            ready.append(name)
        self._handed_over.update(ready)
        kept = tuple(name for name in ready if self._saved.needs(name))
        judged = [verdict for name in ready for verdict in self._segments.pop(name).judged]
        self._segments |= {name: Segment(is_closed=True, is_kept=True) for name in kept}
        older, self._older = self._older, []
        untraced, self._untraced = self._untraced, []
        cancelled = self._take_cancelled()
        return CommitBatch(
            segments=tuple(ready),
            kept=kept,
            judged=(*judged, *older),
            untraced=tuple(untraced),
            cancelled=cancelled,
            is_last=len(ready) == len(closed) and not any(self._never_made.values()),
        )

    def _take_cancelled(self) -> dict[str, Places]:
        """Return the numbers of some attempts that are never made, by reason, and forget them."""
        taken: dict[str, Places] = {}
        room = MAX_CANCELLED_PER_COMMIT
        for reason, numbers in self._never_made.items():
            if some := numbers[-room:] if room else None:
                del numbers[-len(some) :]
                room -= len(some)
                taken[reason] = np.array(some, np.int64)
        return taken

    def _is_ready(self, name: str, segment: Segment) -> bool:
        return segment.is_closed and not segment.num_waiting and not (segment.is_kept and self._saved.needs(name))

    def signs(self) -> dict[str, Signs]:
        """Return the signs of life of every engine that has reported."""
        return {
            name: Signs(num_tokens, self._num_reports[name], self.dispatch.has_leases(name))
            for name, num_tokens in self._tokens_out.items()
        }

    @property
    def is_generated(self) -> bool:
        """True when every attempt has ended and every segment is closed."""
        return self.dispatch.is_done and all(segment.is_closed for segment in self._segments.values())

    @property
    def is_judged(self) -> bool:
        """True when no trace waits for a verdict."""
        return self._backlog is None and not self._to_judge and not any(self._judging.values())

    def progress(self, num_engines_running: int) -> Progress:
        """Return where the run stands."""
        requested = self.base.requested
        unjudged = self.base.unjudged + self._outcomes[Outcome.UNJUDGED]
        judged = self.base.judged + self._num_judged - self._outcomes[Outcome.UNJUDGED]
        failed = self.base.failed + self._num_failed
        cancelled = self.base.cancelled + self._num_cancelled
        return Progress(
            counts=Counts(
                requested=requested,
                generated=self.base.generated + self._num_made,
                judged=judged,
                unjudged=unjudged,
                failed=failed,
                cancelled=cancelled,
                pending=requested - judged - unjudged - failed - cancelled,
            ),
            num_problems=len(self.state.problems),
            outcomes=dict(self.base_outcomes + self._outcomes),
            reasons=dict(self.base_reasons + self._reasons),
            num_tokens=self._num_tokens,
            num_tokens_out=sum(self._tokens_out.values()),
            in_flight=self.dispatch.num_leased,
            is_done=self.is_generated and self.is_judged and num_engines_running == 0,
            is_judged=self.is_judged,
            damage=tuple(self._damage),
            num_queued=self.dispatch.num_queued,
            num_to_judge=len(self._to_judge) + sum(map(len, self._judging.values())),
            delays=self.delays.quantiles(),
            verifier_reports=dict(self._num_judge_reports),
            journal_lag_s=max(self._journal_lags.values(), default=0.0),
            occupancy=dict(self._occupancy),
        )

    def _lease(self, key: Key) -> Lease:
        prompt, domain, language = self.state.problems.asked(key.problem)
        seed = None
        if self.base_seed is not None:
            seed = int(digest([self.base_seed, prompt.problem_id, key.sample_index]), 16) >> (128 - SEED_BITS)
        lease = Lease(
            key=key,
            prompt=prompt,
            seed=seed,
            saved=self._saved.positions(key),
            language=language,
        )
        if self.lengths is None:
            return lease
        limit = self.lengths.next_turn(domain, self._saved.num_tokens(key))
        return replace(lease, max_tokens=limit.max_tokens, may_go_on=limit.may_go_on)

    def _trace_id(self, key: Key) -> str:
        return make_trace_id(self.fingerprint, self.state.problems.problem_id(key.problem), key.sample_index)

    def _finish(self, item: Finished) -> None:
        self._add_trace(item.key, item.position, item.num_tokens)

    def _judge_item(self, waiting: Unjudged) -> JudgeItem:
        key = self.state.key(waiting.number)
        problems = self.state.problems
        problem_id, reference_hash = problems.problem_id(key.problem), problems.reference_hash(key.problem)
        return JudgeItem(waiting.number, self._trace_id(key), problem_id, reference_hash, waiting.position)

    def _refill(self) -> None:
        """Take some of the backlog; at its end there is none."""
        if self._backlog is not None:
            items = list(islice(self._backlog, BACKLOG_STEP))
            self._to_judge.extend(items)
            if len(items) < BACKLOG_STEP:
                self._backlog = None

    def _add_trace(self, key: Key, position: Position, num_tokens: int) -> None:
        number = self.state.number(key)
        if self.state.flags[number] & TRACED:
            return
        if self.adaptive is not None and self.adaptive.adopt(number):
            self.dispatch.drop_fresh(1)
        self.state.flags[number] |= TRACED
        self._saved.drop(key)
        self._num_made += 1
        self._num_tokens += num_tokens
        self._given_up.pop(key, None)  # it was quicker
        if self.adaptive is not None:
            self.adaptive.made(number, num_tokens)
        if self.order is not None:
            self.order.made(key, num_tokens)
        segment = self._segments.get(position.file)
        if segment is None:
            segment = self._segments[position.file] = Segment()
        segment.num_waiting += 1
        self._to_judge.append(Unjudged(number, position))

    def _settle(self, item: JudgeItem, verdict: JudgedTrace) -> None:
        self._num_judged += 1
        self._outcomes[verdict.verdict.outcome] += 1
        if verdict.verdict.outcome in GOOD_OUTCOMES:
            self.state.is_solved[self.state.key(item.number).problem] = True
        if verdict.verdict.reason is not None:
            self._reasons[verdict.verdict.reason] += 1
        self._tries.pop(item.number, None)
        segment = self._segments.get(item.position.file)
        if segment is None:
            self._older.append(verdict)
        else:
            segment.num_waiting -= 1
            segment.judged.append(verdict)
        if self.adaptive is not None:
            self._close(self.adaptive.judged(item.number, verdict.verdict))

    def _close(self, closing: Closing | None) -> None:
        """Cancel what a closed problem has left, and give up what it has in flight."""
        if closing is None:
            return
        self.state.flags[closing.never_made] |= CANCELLED
        self.dispatch.drop_fresh(len(closing.never_made))
        self._num_cancelled += len(closing.never_made)
        numbers = self._never_made.setdefault(closing.reason, array("q"))
        numbers.frombytes(closing.never_made.astype(np.int64).tobytes())
        for key in closing.running:
            self._given_up[key] = closing.reason
            self._give_up(key)

    def _give_up(self, key: Key) -> None:
        """Have an engine abort an attempt that nobody needs any more; where none has it, it ends at once."""
        engine_id = self.dispatch.give_up(key)
        if engine_id is None:
            self._cancel(key)
        else:
            self._aborts.setdefault(engine_id, []).append(key)

    def _cancel(self, key: Key, num_tokens: int = 0) -> None:
        """End an attempt that was given up; so many tokens of it were made."""
        self._num_cancelled += 1
        self._num_tokens += num_tokens
        self._end_untraced(key, "cancelled", self._given_up.pop(key), num_tokens=num_tokens)

    def _fail(self, failure: Failure) -> None:
        self._num_failed += 1
        self._given_up.pop(failure.key, None)
        self._end_untraced(failure.key, "failed", failure.reason, detail=failure.detail[:500])

    def _end_untraced(self, key: Key, ending: str, reason: str, *, detail: str = "", num_tokens: int = 0) -> None:
        number = self.state.number(key)
        self.state.flags[number] |= CANCELLED if ending == "cancelled" else FAILED
        self._saved.drop(key)
        self._untraced.append(
            Untraced(
                trace_id=self._trace_id(key),
                problem_id=self.state.problems.problem_id(key.problem),
                sample_index=key.sample_index,
                ending=ending,
                reason=reason,
                detail=detail,
                num_tokens=num_tokens,
            )
        )
        if self.adaptive is not None:
            self._close(self.adaptive.ended(number))
        if self.order is not None:
            self.order.ended(key)


def scanned_keys(state: RunState, scan: SegmentScan) -> list[Key]:
    """Return the attempts whose traces a segment holds, in its order."""
    ids, indices = [traced.problem_id for traced in scan.traces], [traced.sample_index for traced in scan.traces]
    numbers = state.numbers(ids, indices)
    return [state.key(number) for number in numbers.tolist()]
