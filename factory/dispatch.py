"""Dispatch: which attempt goes to which engine next. Facts in, decisions out; no clock, no process, no network.

Invariant: every requested attempt is in exactly one of queued, leased and ended, and ends once; a report of an attempt
that has ended, or of an engine that is dead, is ignored. Attempts that were in flight when an engine died come back
first. One that has seen two deaths, without more of it saved between, is a suspect: an engine with nothing else in
flight tries few suspects at a time, each of another problem and nothing beside, half as many after each death, until
one is left to blame. So a prompt that kills engines at once is found by the sixth death in a row (2, and those with 8,
4, 2 and 1 suspects). It fails with all attempts at its problem that have not ended, and takes no other one with it. One
that was cut at its moderate limit waits until no fresh one is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

SUSPECT_DEATHS: Final = 2  # engine deaths after which an attempt is leased with few others like it
MAX_SUSPECTS: Final = 8  # that one engine gets at a time, at first; guess


class FailReason(StrEnum):
    """Why an attempt ends without a trace; closed list."""

    PROMPT_TOO_LONG = "prompt_too_long"  # the prompt fills the teacher's context
    ENGINE_ERROR = "engine_error"  # the engine refused this request
    NOT_RECORDED = "not_recorded"  # the recording that is replayed has no such attempt
    ENGINE_DIED = "engine_died"  # engines died under it again and again


class CancelReason(StrEnum):
    """Why an attempt is not made, or not made to its end; closed list."""

    QUOTA_REACHED = "quota_reached"  # its problem has the useful samples that it needs
    HOPELESS = "hopeless"  # its problem will hardly get them
    SOLVED = "solved"  # it was cut, and its problem has an answer without it


class Key(NamedTuple):
    """One attempt: the problem's place in the run's order, and which attempt at it."""

    problem: int
    sample_index: int


class Failure(NamedTuple):
    """An attempt that ends without a trace."""

    key: Key
    reason: FailReason
    detail: str


class Supply(Protocol):
    """Attempts that no engine has had yet."""

    @property
    def num_left(self) -> int:
        """How many there may still be."""

    def take(self) -> Key | None:
        """Return the next one; None if there is none now."""


class InOrder:
    """All attempts of a sequence, in its order; it is read as they are taken. A run has `order.LongFirst`."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys, self._next = keys, 0

    @property
    def num_left(self) -> int:
        """Attempts not yet taken."""
        return len(self._keys) - self._next

    def take(self) -> Key | None:
        """Return the next one."""
        if not self.num_left:
            return None
        self._next += 1
        return self._keys[self._next - 1]


@dataclass(slots=True)
class EngineState:
    """What one engine incarnation has in flight, and what it has done."""

    leased: set[Key] = field(default_factory=set)
    has_progressed: bool = False  # finished an attempt, or saved more of one than there was
    is_alone: bool = False  # holds one suspect, and must get nothing beside it
    is_trial: bool = False  # began with suspects, and gets nothing else before they are cleared


class Dispatch:
    """The queue of attempts and the leases of every engine. Not thread-safe."""

    def __init__(self, keys: Sequence[Key] | Supply, *, max_deaths: int, max_errors: int = 2) -> None:
        """Queue the attempts of a sequence in their order, or those that a supply gives when it is asked.

        An attempt fails when ``max_deaths`` engines (3 or more) died under it, the last with nothing else in flight, or
        when engines refused it ``max_errors`` times.
        """
        self._fresh: Supply = InOrder(keys) if isinstance(keys, Sequence) else keys
        self._back: deque[Key] = deque()  # was in flight at a death: goes first
        self._cut: deque[Key] = deque()  # had a turn, and goes on after the fresh ones
        self._had_turn: frozenset[Key] = frozenset()  # of the fresh ones: had it before this start
        self._refused: deque[Key] = deque()  # an engine in trouble should not see it at once again: goes last
        self._suspects: deque[Key] = deque()
        self._suspects_at_once = MAX_SUSPECTS
        self._alone: deque[Key] = deque()  # to be leased with nothing beside
        self._blamed: set[int] = set()  # problems whose prompt kills engines
        self._engines: dict[str, EngineState] = {}
        self._dead: set[str] = set()
        self._deaths: dict[Key, int] = {}
        self._errors: dict[Key, int] = {}
        self._num_ended = 0
        self.num_total = self._fresh.num_left
        self._max_deaths = max_deaths
        self._max_errors = max_errors

    @property
    def num_queued(self) -> int:
        """Attempts that no engine holds; of a supply those that may still come."""
        waiting = (self._back, self._cut, self._refused, self._suspects, self._alone)
        return self._fresh.num_left + sum(map(len, waiting))

    @property
    def num_leased(self) -> int:
        """Attempts in flight."""
        return sum(len(engine.leased) for engine in self._engines.values())

    @property
    def is_done(self) -> bool:
        """True when every attempt has ended."""
        assert self.num_queued + self.num_leased + self._num_ended == self.num_total, "an attempt is lost"
        return self._num_ended == self.num_total

    def has_progressed(self, engine_id: str) -> bool:
        """True if this incarnation brought an attempt to an end, or nearer to it."""
        engine = self._engines.get(engine_id)
        return engine is not None and engine.has_progressed

    def has_leases(self, engine_id: str) -> bool:
        """True while the engine has attempts in flight."""
        engine = self._engines.get(engine_id)
        return engine is not None and bool(engine.leased)

    def holds(self, engine_id: str, key: Key) -> bool:
        """True while the engine has that attempt in flight."""
        engine = self._engines.get(engine_id)
        return engine is not None and key in engine.leased

    @property
    def has_suspects(self) -> bool:
        """True while there are suspects, queued or in flight: all that an engine has is in question with them."""
        suspects = {key for key in self._deaths if self._is_suspect(key)}
        return bool(suspects) and (
            bool(self._suspects or self._alone)
            or any(not suspects.isdisjoint(engine.leased) for engine in self._engines.values())
        )

    def lease(self, engine_id: str, capacity: int, *, has_others: bool = False) -> list[Key]:
        """Give an engine up to ``capacity`` attempts; a dead one gets none.

        One that ``has_others``, of another job, is not the place to try suspects.
        """
        if engine_id in self._dead:
            return []
        engine = self._engines.setdefault(engine_id, EngineState())
        if engine.is_alone:
            return []
        if self._alone and capacity > 0 and not engine.leased and not has_others:
            engine.leased.add(self._alone[0])
            engine.is_alone = True
            return [self._alone.popleft()]
        if self._suspects and not has_others and (engine.is_trial or not engine.leased):
            engine.is_trial = True
            keys = self._take_suspects(engine, capacity)
        elif engine.is_trial and self._suspects_of(engine):
            keys = []
        else:
            engine.is_trial = False
            keys = []
            while len(keys) < capacity and (key := self._pop()) is not None:
                keys.append(key)
        engine.leased.update(keys)
        return keys

    def _take_suspects(self, engine: EngineState, capacity: int) -> list[Key]:
        """Return some suspects, of each problem one: those of the same prompt would only hide which one it is."""
        tried = self._suspects_of(engine)
        problems = {key.problem for key in tried}
        room = min(capacity, self._suspects_at_once - len(tried))
        keys: list[Key] = []
        others: list[Key] = []
        while self._suspects and len(keys) < room:
            key = self._suspects.popleft()
            (others if key.problem in problems else keys).append(key)
            problems.add(key.problem)
        self._suspects.extendleft(reversed(others))
        return keys

    def adopt(self, engine_id: str, keys: Sequence[Key]) -> None:
        """Take note of attempts, beside those that were queued, that an engine holds from an earlier start of this."""
        self._engines.setdefault(engine_id, EngineState()).leased.update(keys)
        self.num_total += len(keys)

    def _pop(self) -> Key | None:
        """Return the next attempt that is no suspect."""
        if self._back:
            return self._back.popleft()
        while (key := self._fresh.take()) is not None:
            if key not in self._had_turn:
                return key
            self._cut.append(key)
        waiting = self._cut or self._refused
        return waiting.popleft() if waiting else None

    def had_turn(self, keys: Iterable[Key]) -> None:
        """Take note of queued attempts that had a turn in an earlier start: they wait like those of this one."""
        self._had_turn = frozenset(keys)

    def cut(self, engine_id: str, key: Key) -> None:
        """Take back an attempt whose turn is over; it goes on once no fresh one is left."""
        engine = self._engines.get(engine_id)
        if engine is not None and key in engine.leased:
            engine.leased.discard(key)
            engine.is_alone &= bool(engine.leased)
            engine.has_progressed = True
            (self._suspects if self._is_suspect(key) else self._cut).append(key)

    def cancel(self, engine_id: str, key: Key) -> None:
        """End an attempt that the engine was to get, and will not."""
        engine = self._engines[engine_id]
        engine.leased.remove(key)
        engine.is_alone &= bool(engine.leased)
        self._num_ended += 1

    def is_dead(self, engine_id: str) -> bool:
        """True for an engine that ``engine_died`` was told of."""
        return engine_id in self._dead

    def finish(self, engine_id: str, keys: Sequence[Key]) -> list[Key]:
        """End attempts that an engine has safely journaled; return those that it had leased, the rest is ignored."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return []
        ended = [key for key in dict.fromkeys(keys) if key in engine.leased]
        engine.leased.difference_update(ended)
        engine.is_alone &= bool(engine.leased)
        engine.has_progressed |= bool(ended)
        self._num_ended += len(ended)
        if any(self._is_suspect(key) for key in ended):
            self._suspects_at_once = min(2 * self._suspects_at_once, MAX_SUSPECTS)
        for key in ended:
            self._deaths.pop(key, None)
        return ended

    def advance(self, engine_id: str, key: Key) -> None:
        """An engine that has it leased saved more of an attempt than ever: the deaths before were not its fault.

        A prompt that kills engines at some token never comes beyond that, so it is blamed all the same.
        """
        self._engines[engine_id].has_progressed = True
        self._deaths.pop(key, None)

    def refuse(self, engine_id: str, key: Key, reason: FailReason, detail: str) -> Failure | None:
        """Take back an attempt that the engine refused; a failure when that was the last try, or trying is no use."""
        engine = self._engines.get(engine_id)
        if engine is None or key not in engine.leased:
            return None
        engine.leased.discard(key)
        engine.is_alone &= bool(engine.leased)
        self._errors[key] = self._errors.get(key, 0) + 1
        if reason is FailReason.ENGINE_ERROR and self._errors[key] < self._max_errors:
            (self._suspects if self._is_suspect(key) else self._refused).append(key)
            return None
        self._num_ended += 1
        return Failure(key, reason, detail)

    def drop_fresh(self, count: int) -> None:
        """End attempts that the supply will not give any more."""
        self._num_ended += count

    def give_up(self, key: Key) -> str | None:
        """Return which engine holds an attempt that nobody needs; None if none did: then it has ended now."""
        for engine_id, engine in self._engines.items():
            if key in engine.leased:
                return engine_id
        for queue in (self._back, self._cut, self._refused, self._suspects, self._alone):
            if key in queue:
                queue.remove(key)
                self._num_ended += 1
        return None

    def take_back(self, engine_id: str, key: Key) -> None:
        """Queue an attempt that an engine let go."""
        engine = self._engines.get(engine_id)
        if engine is not None and key in engine.leased:
            engine.leased.discard(key)
            engine.is_alone &= bool(engine.leased)
            (self._suspects if self._is_suspect(key) else self._back).append(key)

    def engine_left(self, engine_id: str) -> None:
        """Take back all leases of an engine whose node was taken away: no attempt is to blame."""
        self._dead.add(engine_id)
        engine = self._engines.pop(engine_id, EngineState())
        for key in sorted(engine.leased, reverse=True):
            if engine.is_alone:
                self._alone.append(key)
            elif self._is_suspect(key):
                self._suspects.append(key)
            else:
                self._back.appendleft(key)

    def engine_died(self, engine_id: str, *, has_others: bool = False) -> list[Failure]:
        """Take back all leases of a dead engine; return those that fail, if it is sure which problem is to blame.

        It is not where the engine ``has_others``, of another job.
        """
        self._dead.add(engine_id)
        engine = self._engines.pop(engine_id, EngineState())
        if known := sorted(key for key in engine.leased if key.problem in self._blamed):
            for key in sorted(engine.leased.difference(known), reverse=True):
                (self._suspects if self._is_suspect(key) else self._back).appendleft(key)
            return [self._failed(key, "engines died under another attempt at its problem") for key in known]
        suspects = self._suspects_of(engine)
        if len(suspects) > 1:
            self._suspects_at_once = max(1, len(suspects) // 2)
        for key in sorted(engine.leased, reverse=True):
            if key not in suspects:
                self._deaths[key] = self._deaths.get(key, 0) + 1
                (self._suspects.append if self._is_suspect(key) else self._back.appendleft)(key)
            elif len(suspects) > 1:
                self._suspects.appendleft(key)  # one of these it was: they are tried before any other
            elif failures := self._blame(key, is_sure=len(engine.leased) == 1 and not has_others):
                return failures
        return []

    def is_blamed(self, key: Key) -> bool:
        """True for an attempt at a problem whose prompt kills engines."""
        return key.problem in self._blamed

    def _blame(self, key: Key, *, is_sure: bool) -> list[Failure]:
        """Take note that an engine died under the only suspect that it had; failures if that was one too many.

        They are those of the attempt and of all queued ones at its problem, for they have the same prompt.
        """
        self._deaths[key] += 1
        if not is_sure or self._deaths[key] < self._max_deaths:
            self._alone.append(key)
            return []
        self._blamed.add(key.problem)
        failures = [self._failed(key, f"{self._deaths[key]} engines died under it")]
        for queue in (self._back, self._cut, self._refused, self._suspects, self._alone):
            for other in [one for one in queue if one.problem == key.problem]:
                queue.remove(other)
                failures.append(self._failed(other, "engines died under another attempt at its problem"))
        return failures

    def _failed(self, key: Key, detail: str) -> Failure:
        self._num_ended += 1
        return Failure(key, FailReason.ENGINE_DIED, detail)

    def _suspects_of(self, engine: EngineState) -> set[Key]:
        return {key for key in engine.leased if self._is_suspect(key)}

    def _is_suspect(self, key: Key) -> bool:
        return self._deaths.get(key, 0) >= SUSPECT_DEATHS
