"""The loop inside an engine actor: pull leases, keep the engine full, journal what finishes, report what is safe.

Sits between one teacher engine and the coordinator. Invariant: an attempt is reported finished only after a sync that
began after its append has returned, so whatever the coordinator believes is on disk. Never waits for the coordinator
while there is room and work: it asks again as soon as its backlog falls below the low-water mark.

Long attempts are journaled piece by piece, synced and reported like finished ones, so that another engine can go on
from there. What this engine goes on from itself is written again with its own first piece: see ``journal``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from factory.dispatch import FailReason, Key
from factory.journal import Piece, Position, Saved, SegmentHeader, SegmentWriter, read_saved
from factory.storage import AnyPath
from factory.teachers import Completion, EngineInfo, Request, TeacherEngine, Watch
from schemas.config import StoreConfig
from schemas.errors import CorruptRunError, NotRecordedError, RequestError
from schemas.problem import Prompt
from schemas.trace import FinishReason, Partial, Trace, TraceFormat

TICK_S: Final = 0.05  # longest time that a finished attempt waits before room is asked for again; guess
HEARTBEAT_S: Final = 1.0  # between two pulls when there is nothing to say, so that progress is seen
EVACUATE_S: Final = 10.0  # that an engine gets to give up what it has in flight; vLLM needs far less than one: guess
MIN_BACKLOG: Final = 8  # attempts beyond max_num_seqs at least, so that a freed slot never waits for a lease

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An attempt that an engine is to make."""

    key: Key
    prompt: Prompt
    seed: int | None
    saved: tuple[Position, ...] = ()  # of the journal: what the attempt goes on from


class Refused(NamedTuple):
    """An attempt that the engine cannot make."""

    key: Key
    reason: FailReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that is safe in the journal."""

    key: Key
    position: Position
    num_tokens: int


class SavedPiece(NamedTuple):
    """Tokens of an attempt in flight that are safe in the journal."""

    key: Key
    piece: Piece


class Occupancy(NamedTuple):
    """Seconds of an engine's feeding, each in one of three states; their sum is the whole of it."""

    full: float = 0.0  # as many attempts in flight as it takes at a time, or more
    starved: float = 0.0  # fewer, and the coordinator has no more to give
    blocked: float = 0.0  # fewer, while leases were asked for or should have been


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an engine says when it pulls."""

    engine_id: str
    capacity: int
    in_flight: int
    num_tokens_out: int
    finished: tuple[Finished, ...] = ()
    saved: tuple[SavedPiece, ...] = ()
    refused: tuple[Refused, ...] = ()
    closed: tuple[str, ...] = ()  # segments that get no more frames
    occupancy: Occupancy = field(default_factory=Occupancy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the coordinator answers. ``stop`` ends the engine: nothing is left to do, or the job is interrupted."""

    leases: tuple[Lease, ...] = ()
    stop: bool = False


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
    num_given: int = 0  # tokens of that which the engine took; known with the first piece
    num_saved: int = 0  # tokens in this engine's pieces, those given included

    @property
    def request_id(self) -> str:
        """Name of the request; the same on every engine."""
        return f"{self.lease.prompt.problem_id}-{self.lease.key.sample_index}"

    def resumed_at(self, num_given: int) -> tuple[int, ...]:
        """Return where engines changed, if this one took ``num_given`` of the tokens it was given."""
        return (*(count for count in self.given.resumed_at if count < num_given), num_given) if num_given else ()


@dataclass(slots=True)
class Feeder:
    """Feeds one engine until it is told to stop."""

    engine: TeacherEngine
    info: EngineInfo
    stamp: TraceStamp
    store: StoreConfig
    journal: AnyPath
    oversubscribe: float
    pull: Callable[[Report], Awaitable[Orders | None]]  # None: nobody took the report, which is then made again
    _held: set[Key] = field(default_factory=set)  # leased, not yet reported as ended
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _appended: list[Finished] = field(default_factory=list)  # in the journal's memory
    _synced: list[Finished] = field(default_factory=list)  # on disk, not yet reported
    _pieces: list[SavedPiece] = field(default_factory=list)  # in the journal's memory
    _saved: list[SavedPiece] = field(default_factory=list)  # on disk, not yet reported
    _in_flight: set[str] = field(default_factory=set)  # requests that the engine has
    _is_evacuating: bool = False
    _failure: OSError | None = None  # of the journal, while the engine worked
    _refused: list[Refused] = field(default_factory=list)
    _closed: list[str] = field(default_factory=list)
    _writer: SegmentWriter | None = None
    _opened_at: float = 0.0
    _sequence: int = 0
    _num_closed: int = 0
    _occupancy: Occupancy = field(default_factory=Occupancy)
    _accounted_at: float | None = None  # until when it tells; None: it has not begun
    _has_no_more: bool = False  # the last leases were fewer than asked for
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def _can_save(self) -> bool:
        return self.info.can_resume and self.store.partial_tokens is not None

    @property
    def target(self) -> int:
        """Attempts that the engine should have in flight: its own limit and a small backlog."""
        slots = self.info.max_num_seqs
        return slots + max(MIN_BACKLOG, math.ceil(slots * self.oversubscribe))

    async def run(self) -> None:
        """Feed the engine until told to stop; what is there by then, whole or not, is synced and reported.

        Raises:
            EngineDeadError: If the engine died; its attempts in flight are lost, the journal is not.
            OSError: If the journal cannot be written (a full disk).
        """
        flusher = asyncio.create_task(self._flush_regularly())
        try:
            while (orders := await self._pull()) is None or not orders.stop:
                await self._wait(flusher)
            await self._evacuate()
        finally:
            await self._end(flusher)
        while await self._pull() is None:
            await asyncio.sleep(TICK_S)

    def holding(self) -> Holding:
        """Return what the next coordinator has to know of this engine."""
        return Holding(tuple(self._held), self._num_closed)

    async def _pull(self) -> Orders | None:
        """Report and take new leases; None if the report reached nobody."""
        finished, self._synced = self._synced, []
        saved, self._saved = self._saved, []
        refused, self._refused = self._refused, []
        closed, self._closed = self._closed, []
        capacity = max(0, self.target - len(self._tasks))
        self._account(starved=self._has_no_more)
        orders = await self.pull(
            Report(
                engine_id=self.stamp.engine_id,
                capacity=capacity,
                in_flight=len(self._tasks),
                num_tokens_out=self.engine.num_tokens_out,
                finished=tuple(finished),
                saved=tuple(saved),
                refused=tuple(refused),
                closed=tuple(closed),
                occupancy=self._occupancy,
            )
        )
        self._account(starved=False)
        if orders is None:
            self._synced[:0], self._saved[:0] = finished, saved
            self._refused[:0], self._closed[:0] = refused, closed
            return None
        self._held.difference_update(item.key for item in finished)
        self._held.difference_update(item.key for item in refused)
        self._has_no_more = len(orders.leases) < capacity
        for lease in orders.leases:
            self._held.add(lease.key)
            self._tasks.add(asyncio.create_task(self._attempt(lease)))
        return orders

    async def _wait(self, flusher: asyncio.Task[None]) -> None:
        """Return when a pull is due: room below the mark, something safe to report, or a heartbeat."""
        deadline = time.monotonic() + HEARTBEAT_S
        while time.monotonic() < deadline:
            await asyncio.sleep(TICK_S)
            self._account(starved=self._has_no_more)
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                task.result()  # a dead engine ends the feeder
            if flusher.done():
                flusher.result()
            if self._failure is not None:
                raise self._failure
            if (
                self._synced
                or self._saved
                or self._refused
                or self._closed
                or len(self._tasks) < self.info.max_num_seqs
            ):
                return

    def _account(self, *, starved: bool) -> None:
        """Add the time since the last call to the state that the engine was in."""
        now = time.monotonic()
        elapsed = 0.0 if self._accounted_at is None else now - self._accounted_at
        self._accounted_at = now
        full, starved_s, blocked = self._occupancy
        if sum(not task.done() for task in self._tasks) >= self.info.max_num_seqs:
            self._occupancy = Occupancy(full + elapsed, starved_s, blocked)
        elif starved:
            self._occupancy = Occupancy(full, starved_s + elapsed, blocked)
        else:
            self._occupancy = Occupancy(full, starved_s, blocked + elapsed)

    async def _attempt(self, lease: Lease) -> None:
        """Make one attempt and append it to the journal; a refusal is reported, a dead engine raised."""
        work = Work(lease, await self._read_saved(lease))
        if self._is_evacuating:
            return
        try:
            completion = await self._generate(work)
        except NotRecordedError as error:
            self._refused.append(Refused(lease.key, FailReason.NOT_RECORDED, str(error)))
            return
        except RequestError as error:
            self._refused.append(Refused(lease.key, FailReason.ENGINE_ERROR, str(error)))
            return
        if self._is_evacuating and completion.finish_reason is FinishReason.ABORT:
            begin = work.num_saved or completion.resumed_at or 0
            if completion.num_tokens > begin:
                self._save(work, begin, completion.token_ids[begin:])
            return
        trace = self._trace(work, completion)
        position = self._open_writer().append(trace)
        num_tokens = trace.num_completion_tokens
        self._appended.append(Finished(key=lease.key, position=position, num_tokens=num_tokens))

    async def _generate(self, work: Work) -> Completion:
        lease = work.lease
        watch = None
        if self._can_save:
            assert self.store.partial_tokens is not None, "nothing is to be saved"
            watch = Watch(num_tokens=self.store.partial_tokens, take=partial(self._take, work))
        request = Request(
            request_id=work.request_id,
            problem_id=lease.prompt.problem_id,
            sample_index=lease.key.sample_index,
            prompt_text=lease.prompt.text,
            prompt_token_ids=lease.prompt.token_ids,
            seed=lease.seed,
            saved=work.given.token_ids,
            watch=watch,
        )
        self._in_flight.add(work.request_id)
        try:
            return await self.engine.generate(request)
        finally:
            self._in_flight.discard(work.request_id)

    async def _read_saved(self, lease: Lease) -> Saved:
        """Return what the attempt goes on from. Where that cannot be read, it begins anew: nothing but time is lost."""
        if not lease.saved or not self.info.can_resume:
            return Saved()
        try:
            return await asyncio.to_thread(read_saved, self.journal, lease.saved)
        except (CorruptRunError, OSError) as error:
            log.warning("attempt %s at %s begins anew: %s", lease.key.sample_index, lease.prompt.problem_id, error)
            return Saved()

    def _take(self, work: Work, offset: int, token_ids: Sequence[int]) -> None:
        """Save tokens for a watch. A journal that cannot be written ends the feeder, not the engine that calls this."""
        try:
            self._save(work, offset, token_ids)
        except OSError as error:
            self._failure = error

    def _save(self, work: Work, offset: int, token_ids: Sequence[int]) -> None:
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
        work.num_saved = offset + piece.num_tokens
        self._pieces.append(SavedPiece(key, piece))

    def _trace(self, work: Work, completion: Completion) -> Trace:
        lease = work.lease
        counted = completion.num_prompt_tokens
        return Trace(
            fingerprint=self.stamp.fingerprint,
            problem_id=lease.prompt.problem_id,
            sample_index=lease.key.sample_index,
            format=self.stamp.format,
            text=completion.text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
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
        return self._writer

    async def _flush_regularly(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=self.store.fsync_interval_s)
            await self._flush()
            writer = self._writer
            if writer is not None and self._is_full(writer):
                await self._close_writer()

    def _is_full(self, writer: SegmentWriter) -> bool:
        age_s = time.monotonic() - self._opened_at
        return age_s >= self.store.segment_s or writer.size >= self.store.segment_mb << 20

    async def _flush(self) -> None:
        """Sync the journal; what was appended before is then safe."""
        appended, self._appended = self._appended, []
        pieces, self._pieces = self._pieces, []
        if (appended or pieces) and self._writer is not None:
            await asyncio.to_thread(self._writer.sync)
            self._synced += appended
            self._saved += pieces

    async def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            appended, self._appended = self._appended, []
            pieces, self._pieces = self._pieces, []
            await asyncio.to_thread(writer.close)
            self._synced += appended
            self._saved += pieces
            self._closed.append(writer.name)
            self._num_closed += 1

    async def _evacuate(self) -> None:
        """Give up what is in flight, with its tokens so far in the journal."""
        if not self._can_save:
            return
        self._is_evacuating = True
        aborts = {asyncio.create_task(self.engine.abort(request_id)) for request_id in self._in_flight}
        if work := self._tasks | aborts:
            _, late = await asyncio.wait(work, timeout=EVACUATE_S)
            for task in late & aborts:
                task.cancel()

    async def _end(self, flusher: asyncio.Task[None]) -> None:
        """Drop what is still in flight, let a sync that is under way finish, close the journal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._stopping.set()
        await flusher
        await self._close_writer()
        self._held &= {item.key for item in self._synced} | {item.key for item in self._refused}
