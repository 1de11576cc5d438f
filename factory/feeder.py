"""The loop inside an engine actor: pull leases, keep the engine full, journal what finishes, report what is safe.

Sits between one teacher engine and the coordinator. Invariant: an attempt is reported finished only after a sync that
began after its append has returned, so whatever the coordinator believes is on disk. Never waits for the coordinator
while there is room and work: it asks again as soon as its backlog falls below the low-water mark.

Long attempts are journaled piece by piece, synced and reported like finished ones, so that another engine can go on
from there. What this engine goes on from itself is written again with its own first piece: see ``journal``. An attempt
that ends at its moderate limit is saved whole and given back; one whose text is past hope is ended, and is a trace.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple

from factory.dispatch import FailReason, Key
from factory.early import LOOK_TOKENS, Alarm, Detector, Rules
from factory.journal import Piece, Position, Saved, SegmentHeader, SegmentWriter, read_saved
from factory.sharing import Occupancy, Seat, Slots
from factory.storage import AnyPath
from factory.teachers import Completion, EngineInfo, Request, TeacherEngine, Watch
from schemas.carried import carried
from schemas.config import SamplingConfig, StoreConfig
from schemas.errors import CorruptRunError, EngineDeadError, NotRecordedError, RequestError
from schemas.problem import Prompt
from schemas.trace import FinishReason, Partial, Trace, TraceFormat

TICK_S: Final = 0.05  # between two looks at what there is to report; guess
HEARTBEAT_S: Final = 1.0  # between two pulls when there is nothing to say, so that progress is seen
EVACUATE_S: Final = 10.0  # that an engine gets to give up what it has in flight; vLLM needs far less than one: guess

log = logging.getLogger(__name__)


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An attempt that an engine is to make."""

    key: Key
    prompt: Prompt
    seed: int | None
    saved: tuple[Position, ...] = ()  # of the journal: what the attempt goes on from
    language: str = "en"  # of the problem
    max_tokens: int | None = None  # of the completion by the end of this turn; None: ``sampling.max_tokens``
    may_go_on: bool = False  # another turn follows where that limit cuts it


class Refused(NamedTuple):
    """An attempt that the engine cannot make."""

    key: Key
    reason: FailReason
    detail: str


class Aborted(NamedTuple):
    """An attempt that was given up by order, and how many tokens of it were made."""

    key: Key
    num_tokens: int


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that is safe in the journal."""

    key: Key
    position: Position
    num_tokens: int


class SavedPiece(NamedTuple):
    """Tokens of an attempt that are safe in the journal. ``is_cut``: its turn is over, the engine gives it back."""

    key: Key
    piece: Piece
    is_cut: bool = False


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an engine says when it pulls."""

    engine_id: str
    capacity: int
    in_flight: int
    num_tokens_out: int
    num_others: int = 0  # attempts of other jobs that the engine has in flight
    finished: tuple[Finished, ...] = ()
    saved: tuple[SavedPiece, ...] = ()
    refused: tuple[Refused, ...] = ()
    aborted: tuple[Aborted, ...] = ()
    closed: tuple[str, ...] = ()  # segments that get no more frames
    occupancy: Occupancy = field(default_factory=Occupancy)
    journal_lag_s: float = 0.0  # since the oldest frame was appended that is not yet synced
    is_leaving: bool = False  # its node is taken away: what it had in flight is for others, and nobody is to blame


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the coordinator answers. ``stop`` ends the engine: nothing is left to do, or the job is interrupted."""

    leases: tuple[Lease, ...] = ()
    abort: tuple[Key, ...] = ()  # attempts in flight that nobody needs any more: no trace is kept of them
    stop: bool = False
    lets_others: bool = False  # nothing more to give now: jobs behind this one may have the room


class Holding(NamedTuple):
    """What an engine that outlives its coordinator has to tell the next one."""

    keys: tuple[Key, ...]  # leased, and not yet reported as ended to anybody who took note
    num_closed: int  # its first segments, which get no more frames; later ones may


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStamp:
    """What all traces of one engine have in common."""

    fingerprint: str
    format: TraceFormat
    teacher: str
    teacher_revision: str
    engine_id: str


@dataclass(slots=True)
class Work:
    """An attempt in flight: what it goes on from, and what this engine has journaled of it."""

    lease: Lease
    given: Saved
    order: int = 0
    num_given: int = 0  # tokens of that which the engine took; known with the first piece
    num_saved: int = 0  # tokens in this engine's pieces, those given included
    unsaved: list[int] = field(default_factory=list)  # what came since, as far as the watch has told
    last_piece: Piece | None = None
    detector: Detector | None = None
    num_seen: int = 0  # tokens that it has taken
    alarm: Alarm | None = None

    @property
    def request_id(self) -> str:
        """Name of the request; jobs that share an engine may have problems in common."""
        return f"{self.order}-{self.lease.prompt.problem_id}-{self.lease.key.sample_index}"

    def resumed_at(self, num_given: int) -> tuple[int, ...]:
        """Return where engines changed, if this one took ``num_given`` of the tokens it was given."""
        return (*(count for count in self.given.resumed_at if count < num_given), num_given) if num_given else ()


@dataclass(slots=True)
class Feeder:
    """Feeds one engine with the attempts of one job until it is told to stop."""

    engine: TeacherEngine
    info: EngineInfo
    stamp: TraceStamp
    store: StoreConfig
    journal: AnyPath
    slots: Slots  # of the engine, perhaps shared with the feeders of other jobs
    pull: Callable[[Report], Awaitable[Orders | None]]  # None: nobody took the report, which is then made again
    rules: Rules | None = None  # by which attempts are given up early; None: none is
    sampling: SamplingConfig | None = None  # of the job; None: what the engine was made with
    order: int = 0  # of the job among those that share the engine
    _seat: Seat = field(init=False)
    _held: set[Key] = field(default_factory=set)  # leased, not yet reported as ended
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _appended: list[Finished] = field(default_factory=list)  # in the journal's memory
    _synced: list[Finished] = field(default_factory=list)  # on disk, not yet reported
    _pieces: list[SavedPiece] = field(default_factory=list)  # in the journal's memory
    _saved: list[SavedPiece] = field(default_factory=list)  # on disk, not yet reported
    _in_flight: dict[Key, str] = field(default_factory=dict)  # requests that the engine has
    _appended_at: float | None = None  # when the oldest of those in the journal's memory was
    _syncing_from: float | None = None  # the same of those whose sync is under way
    _is_evacuating: bool = False
    _is_leaving: bool = False
    _refused: list[Refused] = field(default_factory=list)
    _unwanted: set[Key] = field(default_factory=set)  # to be given up by order
    _aborted: list[Aborted] = field(default_factory=list)
    _aborting: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: list[str] = field(default_factory=list)
    _writer: SegmentWriter | None = None
    _opened_at: float = 0.0
    _sequence: int = 0
    _num_closed: int = 0
    _has_room: asyncio.Event = field(default_factory=asyncio.Event)  # there may be leases to ask for
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _sync_is_due: asyncio.Event = field(default_factory=asyncio.Event)  # before its time

    @property
    def _can_save(self) -> bool:
        return self.info.can_resume and self.store.partial_tokens is not None

    async def run(self) -> None:
        """Feed the engine until told to stop; what is there by then, whole or not, is synced and reported.

        Raises:
            EngineDeadError: If the engine died; its attempts in flight are lost, the journal is not.
            OSError: If the journal cannot be written (a full disk).
        """
        self._seat = self.slots.join(self.order, self._has_room.set)
        try:
            await self._run()
        finally:
            self.slots.leave(self._seat)

    async def _run(self) -> None:
        flusher = asyncio.create_task(self._flush_regularly())
        try:
            while not self._is_leaving and ((orders := await self._pull()) is None or not orders.stop):
                await self._wait(flusher)
            await self._evacuate()
        except EngineDeadError:
            if not self._is_leaving:  # else its own processes heard of the node's end, too, and were quicker
                raise
        finally:
            await self._end(flusher)
        while await self._pull() is None:
            await asyncio.sleep(TICK_S)

    def leave(self) -> None:
        """Take no more leases, and end as if told to stop: this engine's node is to be taken away."""
        self._is_leaving = True

    @property
    def has_left(self) -> bool:
        """True if it ended, or will, because of ``leave``."""
        return self._is_leaving

    def holding(self) -> Holding:
        """Return what the next coordinator has to know of this engine."""
        return Holding(tuple(self._held), self._num_closed)

    async def _pull(self) -> Orders | None:
        """Report and take new leases; None if the report reached nobody."""
        finished, self._synced = self._synced, []
        saved, self._saved = self._saved, []
        refused, self._refused = self._refused, []
        aborted, self._aborted = self._aborted, []
        closed, self._closed = self._closed, []
        self._account()
        capacity = self.slots.ask(self._seat)
        orders = await self.pull(
            Report(
                engine_id=self.stamp.engine_id,
                capacity=capacity,
                in_flight=self._seat.in_flight,
                num_tokens_out=int(self._seat.num_tokens),
                num_others=self.slots.num_others(self._seat),
                finished=tuple(finished),
                saved=tuple(saved),
                refused=tuple(refused),
                aborted=tuple(aborted),
                closed=tuple(closed),
                occupancy=self._seat.occupancy,
                journal_lag_s=self._journal_lag_s(),
                is_leaving=self._is_leaving and self._stopping.is_set(),  # once there is nothing more to report
            )
        )
        self._account()
        if orders is None:
            self.slots.unheard(self._seat)
            self._synced[:0], self._saved[:0] = finished, saved
            self._refused[:0], self._aborted[:0], self._closed[:0] = refused, aborted, closed
            return None
        ended = {item.key for items in (finished, refused, aborted) for item in items}
        ended |= {item.key for item in saved if item.is_cut}
        self._held -= ended
        self._unwanted -= ended
        self.slots.answered(self._seat, len(orders.leases), lets_others=orders.lets_others or orders.stop)
        for lease in orders.leases:
            self._held.add(lease.key)
            task = asyncio.create_task(self._attempt(lease))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        self._sync_if_idle()
        for key in orders.abort:
            self._give_up(key)
        return orders

    def _ended(self, _: asyncio.Task[None]) -> None:
        """Free the slot of an attempt."""
        self.slots.ended(self._seat)
        self._sync_if_idle()

    def _sync_if_idle(self) -> None:
        """Have the journal synced before its time where nothing more would share the sync: a run may wait for it."""
        if not self._seat.in_flight and self._seat.has_no_more:
            self._sync_is_due.set()

    def _give_up(self, key: Key) -> None:
        """Abort an attempt that nobody needs, unless it has ended: then it is a trace as any other."""
        if key not in self._held:
            return
        self._unwanted.add(key)
        if (request_id := self._in_flight.get(key)) is not None:
            task = asyncio.create_task(self.engine.abort(request_id))
            self._aborting.add(task)
            task.add_done_callback(self._aborting.discard)

    async def _wait(self, flusher: asyncio.Task[None]) -> None:
        """Return when a pull is due: room below the mark, something safe to report, or a heartbeat."""
        deadline = time.monotonic() + HEARTBEAT_S
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_room.wait(), TICK_S)
            self._has_room.clear()
            self._account()
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                task.result()  # a dead engine ends the feeder
            if flusher.done():
                flusher.result()
            if (
                self._is_leaving
                or self._synced
                or self._saved
                or self._refused
                or self._aborted
                or self._closed
                or self.slots.is_short(self._seat)
            ):
                return

    def _account(self) -> None:
        """Have the engine's time and tokens divided up to now."""
        self.slots.account(time.monotonic(), self.engine.num_tokens_out)

    async def _attempt(self, lease: Lease) -> None:
        """Make one attempt and append it to the journal; a refusal is reported, a dead engine raised."""
        work = Work(lease, await self._read_saved(lease), self.order)
        if self._is_evacuating:
            return
        if lease.key in self._unwanted:
            self._aborted.append(Aborted(lease.key, 0))
            return
        try:
            completion = await self._generate(work)
        except NotRecordedError as error:
            self._refused.append(Refused(lease.key, FailReason.NOT_RECORDED, str(error)))
            return
        except RequestError as error:
            self._refused.append(Refused(lease.key, FailReason.ENGINE_ERROR, str(error)))
            return
        if lease.key in self._unwanted and completion.finish_reason is FinishReason.ABORT:
            self._aborted.append(Aborted(lease.key, completion.num_tokens))
            return
        if work.alarm is None and self._goes_on(lease, completion):
            self._save_rest(work, completion)
            return
        trace = self._trace(work, completion)
        position = self._open_writer().append(trace)
        num_tokens = trace.num_completion_tokens
        self.slots.lengths.add(trace.num_prompt_tokens, num_tokens)
        self._appended.append(Finished(key=lease.key, position=position, num_tokens=num_tokens))

    def _goes_on(self, lease: Lease, completion: Completion) -> bool:
        """Return whether an attempt has no end yet: this engine gives it up, or its turn is over."""
        if completion.finish_reason is FinishReason.ABORT:
            return self._is_evacuating
        has_turn = lease.may_go_on and lease.max_tokens is not None and self.info.can_resume
        if not has_turn or completion.finish_reason is not FinishReason.LENGTH:
            return False
        context = self.info.max_model_len or math.inf
        return completion.num_tokens >= (lease.max_tokens or 0) < context - len(lease.prompt.token_ids)

    def _save_rest(self, work: Work, completion: Completion) -> None:
        """Save what has not been; an attempt whose turn is over goes back with its last piece."""
        is_cut = completion.finish_reason is FinishReason.LENGTH
        begin = work.num_saved or completion.resumed_at or 0
        if completion.num_tokens > begin:
            self._save(work, begin, completion.token_ids[begin:], is_cut=is_cut)
        elif is_cut:
            assert work.last_piece is not None, "nothing was saved"
            self._pieces.append(SavedPiece(work.lease.key, work.last_piece, is_cut=True))

    async def _generate(self, work: Work) -> Completion:
        lease = work.lease
        request = Request(
            request_id=work.request_id,
            problem_id=lease.prompt.problem_id,
            sample_index=lease.key.sample_index,
            prompt_text=lease.prompt.text,
            prompt_token_ids=lease.prompt.token_ids,
            seed=lease.seed,
            saved=work.given.token_ids,
            watch=self._watch(work),
            max_tokens=lease.max_tokens,
            sampling=self.sampling,
        )
        self._in_flight[lease.key] = work.request_id
        try:
            return await self.engine.generate(request)
        finally:
            del self._in_flight[lease.key]

    def _watch(self, work: Work) -> Watch | None:
        """Return who is told of the tokens on the way; None where nobody wants to know."""
        steps = [self.store.partial_tokens or 0] if self._can_save else []
        if self.rules is not None:
            steps.append(LOOK_TOKENS)
            work.detector = Detector(self.rules, work.lease.language, work.lease.prompt.text)
        return Watch(num_tokens=min(steps), take=partial(self._take, work)) if steps else None

    async def _read_saved(self, lease: Lease) -> Saved:
        """Return what the attempt goes on from. Where that cannot be read, it begins anew: nothing but time is lost."""
        if not lease.saved or not self.info.can_resume:
            return Saved()
        try:
            return await asyncio.to_thread(read_saved, self.journal, lease.saved)
        except (CorruptRunError, OSError) as error:
            log.warning("attempt %s at %s begins anew: %s", lease.key.sample_index, lease.prompt.problem_id, error)
            return Saved()

    def _take(self, work: Work, offset: int, token_ids: Sequence[int], text: str) -> None:
        """Look at what came, and save it once it is enough."""
        if work.detector is not None and work.alarm is None:
            self._look(work, work.detector, offset, token_ids, text)
        if not self._can_save:
            return
        begin = offset - len(work.unsaved)
        work.unsaved += token_ids
        if len(work.unsaved) >= (self.store.partial_tokens or 0):
            self._save(work, begin, work.unsaved)

    def _look(self, work: Work, detector: Detector, offset: int, token_ids: Sequence[int], text: str) -> None:
        """Let the detector see what came; have the engine end an attempt that is past hope."""
        if offset and not work.num_seen:
            detector.go_on_from(work.given.token_ids[:offset])
        elif offset < work.num_seen:  # the answer broke off, and began anew
            detector = work.detector = Detector(detector.rules, detector.language, detector.prompt)
        work.num_seen = max(offset + len(token_ids), offset + 1)
        work.alarm = detector.take(token_ids, text)
        if work.alarm is not None:
            abort = asyncio.create_task(self.engine.abort(work.request_id))
            self._aborting.add(abort)
            abort.add_done_callback(self._aborting.discard)

    def _save(self, work: Work, offset: int, token_ids: Sequence[int], *, is_cut: bool = False) -> None:
        """Append tokens of an attempt in flight to the journal; with the first of them go those that it was given."""
        if not work.num_saved:
            work.num_given = offset
            offset, token_ids = 0, (*work.given.token_ids[:offset], *token_ids)
        key = work.lease.key
        piece = self._open_writer().append_partial(
            Partial(
                problem_id=work.lease.prompt.problem_id,
                sample_index=key.sample_index,
                offset=offset,
                token_ids=tuple(token_ids),
                resumed_at=work.resumed_at(work.num_given),
            )
        )
        work.num_saved, work.last_piece = offset + piece.num_tokens, piece
        work.unsaved.clear()
        self._pieces.append(SavedPiece(key, piece, is_cut))

    def _trace(self, work: Work, completion: Completion) -> Trace:
        lease = work.lease
        is_abort = completion.finish_reason is FinishReason.ABORT
        if work.alarm is not None and self._goes_on(lease, completion):  # the end of its turn came before the abort
            is_abort, completion = True, replace(completion, finish_reason=FinishReason.ABORT)
        counted = completion.num_prompt_tokens
        return Trace(
            fingerprint=self.stamp.fingerprint,
            problem_id=lease.prompt.problem_id,
            sample_index=lease.key.sample_index,
            format=self.stamp.format,
            text=completion.text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
            finish_detail=str(work.alarm) if is_abort and work.alarm is not None else None,
            stop_token=completion.stop_token,
            num_prompt_tokens=len(lease.prompt.token_ids) if counted is None else counted,
            num_completion_tokens=completion.num_tokens,
            num_reasoning_tokens=completion.num_reasoning_tokens,
            seed=lease.seed,
            teacher=self.stamp.teacher,
            teacher_revision=self.stamp.teacher_revision,
            engine=self.info.engine,
            engine_version=self.info.engine_version,
            engine_id=self.stamp.engine_id,
            submitted_at_us=completion.submitted_at_us,
            first_token_at_us=completion.first_token_at_us,
            finished_at_us=completion.finished_at_us,
            resumed_at=work.resumed_at(completion.resumed_at or 0),
            label=completion.label,
            label_answer=completion.label_answer,
        )

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            self._sequence += 1
            header = SegmentHeader(
                fingerprint=self.stamp.fingerprint, engine_id=self.stamp.engine_id, sequence=self._sequence
            )
            self._writer = SegmentWriter(self.journal, header)
            self._opened_at = time.monotonic()
        if self._appended_at is None:
            self._appended_at = time.monotonic()  # whoever asks for it appends at once
        return self._writer

    async def _flush_regularly(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sync_is_due.wait(), timeout=self.store.fsync_interval_s)
            self._sync_is_due.clear()
            await self._flush()
            writer = self._writer
            if writer is not None and self._is_full(writer):
                await self._close_writer()

    def _is_full(self, writer: SegmentWriter) -> bool:
        age_s = time.monotonic() - self._opened_at
        return age_s >= self.store.segment_s or writer.size >= self.store.segment_mb << 20

    def _journal_lag_s(self) -> float:
        since = self._appended_at if self._syncing_from is None else self._syncing_from
        return 0.0 if since is None else time.monotonic() - since

    async def _flush(self) -> None:
        """Sync the journal; what was appended before is then safe."""
        if (self._appended or self._pieces) and self._writer is not None:
            await self._make_safe(self._writer.sync)

    async def _make_safe(self, sync: Callable[[], None]) -> None:
        """Have a thread sync the journal; what was appended before may be reported then."""
        appended, self._appended = self._appended, []
        pieces, self._pieces = self._pieces, []
        self._syncing_from, self._appended_at = self._appended_at, None
        await asyncio.to_thread(sync)
        self._syncing_from = None
        self._synced += appended
        self._saved += pieces

    async def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await self._make_safe(writer.close)
            self._closed.append(writer.name)
            self._num_closed += 1

    async def _evacuate(self) -> None:
        """Give up what is in flight, with its tokens so far in the journal."""
        if not self._can_save:
            return
        self._is_evacuating = True
        aborts = {asyncio.create_task(self.engine.abort(request_id)) for request_id in self._in_flight.values()}
        if work := self._tasks | aborts:
            _, late = await asyncio.wait(work, timeout=EVACUATE_S)
            for task in late & aborts:
                task.cancel()

    async def _end(self, flusher: asyncio.Task[None]) -> None:
        """Drop what is still in flight, let a sync that is under way finish, close the journal."""
        tasks = self._tasks | self._aborting
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._stopping.set()
        self._sync_is_due.set()
        await flusher
        await self._close_writer()
        self._held &= {item.key for items in (self._synced, self._refused, self._aborted) for item in items}
