"""Dispatch: which attempt goes to which engine next. Facts in, decisions out; no clock, no process, no network.

Invariant: every requested attempt is in exactly one of queued, leased and ended, and ends once; a report of an attempt
that has ended, or of an engine that is dead, is ignored. Attempts that were in flight when an engine died come back
first. One that has seen two deaths is a suspect: an engine gets few suspects at a time, half as many after each death
that leaves several of them in question, and only a suspect that was alone is blamed. So a prompt that kills engines
fails in the end, and takes no innocent attempt with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

SUSPECT_DEATHS: Final = 2  # engine deaths after which an attempt is leased with few others like it
MAX_SUSPECTS: Final = 8  # that one engine gets at a time, at first; guess


class FailReason(StrEnum):
    """Why an attempt ends without a trace; closed list."""

    PROMPT_TOO_LONG = "prompt_too_long"  # the prompt fills the teacher's context
    ENGINE_ERROR = "engine_error"  # the engine refused this request
    ENGINE_DIED = "engine_died"  # engines died under it again and again


class Key(NamedTuple):
    """One attempt: the problem's place in the run's order, and which attempt at it."""

    problem: int
    sample_index: int


class Failure(NamedTuple):
    """An attempt that ends without a trace."""

    key: Key
    reason: FailReason
    detail: str


@dataclass(slots=True)
class EngineState:
    """What one engine incarnation has in flight, and what it has done."""

    leased: set[Key] = field(default_factory=set)
    num_finished: int = 0


class Dispatch:
    """The queue of attempts and the leases of every engine. Not thread-safe."""

    def __init__(self, keys: Iterable[Key], *, max_deaths: int, max_errors: int = 2) -> None:
        """Queue the attempts in their order.

        An attempt fails when ``max_deaths`` engines died under it, or engines refused it ``max_errors`` times.
        """
        self._queue: deque[Key] = deque(keys)
        self._suspects: deque[Key] = deque()
        self._suspects_at_once = MAX_SUSPECTS
        self._engines: dict[str, EngineState] = {}
        self._dead: set[str] = set()
        self._deaths: dict[Key, int] = {}
        self._errors: dict[Key, int] = {}
        self._num_ended = 0
        self.num_total = len(self._queue)
        self._max_deaths = max_deaths
        self._max_errors = max_errors

    @property
    def num_queued(self) -> int:
        """Attempts that no engine holds."""
        return len(self._queue) + len(self._suspects)

    @property
    def num_leased(self) -> int:
        """Attempts in flight."""
        return sum(len(engine.leased) for engine in self._engines.values())

    @property
    def is_done(self) -> bool:
        """True when every attempt has ended."""
        assert self.num_queued + self.num_leased + self._num_ended == self.num_total, "an attempt is lost"
        return self._num_ended == self.num_total

    def num_finished(self, engine_id: str) -> int:
        """Attempts that this incarnation brought to an end."""
        engine = self._engines.get(engine_id)
        return 0 if engine is None else engine.num_finished

    def has_leases(self, engine_id: str) -> bool:
        """True while the engine has attempts in flight."""
        engine = self._engines.get(engine_id)
        return engine is not None and bool(engine.leased)

    def lease(self, engine_id: str, capacity: int) -> list[Key]:
        """Give an engine up to ``capacity`` attempts; a dead one gets none."""
        if engine_id in self._dead:
            return []
        engine = self._engines.setdefault(engine_id, EngineState())
        keys: list[Key] = []
        room = self._suspects_at_once - len(self._suspects_of(engine)) if self._suspects else 0
        while self._suspects and len(keys) < min(capacity, room):
            keys.append(self._suspects.popleft())
        while self._queue and len(keys) < capacity:
            keys.append(self._queue.popleft())
        engine.leased.update(keys)
        return keys

    def is_dead(self, engine_id: str) -> bool:
        """True for an engine that ``engine_died`` was told of."""
        return engine_id in self._dead

    def take_out(self, is_out: Callable[[Key], bool]) -> list[Key]:
        """End those queued attempts for which ``is_out`` is true, and return them."""
        out = [key for key in self._queue if is_out(key)]
        if out:
            self._queue = deque(key for key in self._queue if not is_out(key))
            self._num_ended += len(out)
        return out

    def finish(self, engine_id: str, keys: Sequence[Key]) -> list[Key]:
        """End attempts that an engine has safely journaled; return those that it had leased, the rest is ignored."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return []
        ended = [key for key in keys if key in engine.leased]
        engine.leased.difference_update(ended)
        engine.num_finished += len(ended)
        self._num_ended += len(ended)
        if any(self._is_suspect(key) for key in ended):
            self._suspects_at_once = min(2 * self._suspects_at_once, MAX_SUSPECTS)
        return ended

    def refuse(self, engine_id: str, key: Key, detail: str) -> Failure | None:
        """Take back an attempt that the engine refused; a failure when that was the last try."""
        engine = self._engines.get(engine_id)
        if engine is None or key not in engine.leased:
            return None
        engine.leased.discard(key)
        self._errors[key] = self._errors.get(key, 0) + 1
        if self._errors[key] < self._max_errors:
            # To the back: an engine in trouble should not see it at once again.
            (self._suspects if self._is_suspect(key) else self._queue).append(key)
            return None
        self._num_ended += 1
        return Failure(key, FailReason.ENGINE_ERROR, detail)

    def engine_died(self, engine_id: str) -> list[Failure]:
        """Take back all leases of a dead engine; return the attempt that has now seen too many deaths, if any."""
        self._dead.add(engine_id)
        engine = self._engines.pop(engine_id, EngineState())
        suspects = self._suspects_of(engine)
        if len(suspects) > 1:
            self._suspects_at_once = max(1, len(suspects) // 2)
        failures: list[Failure] = []
        for key in sorted(engine.leased, reverse=True):
            if key not in suspects or len(suspects) == 1:
                self._deaths[key] = self._deaths.get(key, 0) + 1
            if self._deaths[key] >= self._max_deaths:
                failures.append(Failure(key, FailReason.ENGINE_DIED, f"{self._deaths[key]} engines died under it"))
            elif self._is_suspect(key):
                self._suspects.append(key)
            else:
                self._queue.appendleft(key)
        self._num_ended += len(failures)
        return failures

    def _suspects_of(self, engine: EngineState) -> set[Key]:
        return {key for key in engine.leased if self._is_suspect(key)}

    def _is_suspect(self, key: Key) -> bool:
        return self._deaths.get(key, 0) >= SUSPECT_DEATHS
