"""The order in which a run with a fixed number of attempts makes them: longest first, once its end is near.

Sits behind `dispatch` as its supply of fresh attempts; the coordinator tells it of every end. All attempts at a problem
come together, in the run's order, since they share a prompt. But for the run's last problems, its tail: of these each
one's first attempt comes first, which shows how long attempts at it are, then the others, longest expected first, so
that short ones fill the slots beside the last long ones. Invariant: each attempt is given once, whatever ends when. No
clock; a tail is bounded, and what is held of other attempts is the sequence they are read from. Why: `ADAPTIVE.md`.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from factory.dispatch import Key

MAX_TAIL: Final = 4_096  # problems that a run which is stopped may leave half done; guess


@dataclass(slots=True)
class _Problem:
    """A problem of the tail that has attempts to give, and what is known of their length."""

    next: int  # place of its next attempt in the sequence; all up to ``end`` are its
    end: int
    probe: Key | None = None  # its first attempt, from when it is given until it ends
    num_made: int = 0
    num_tokens: int = 0
    rank: float = 0.0  # its place among the others: minus the expected length


class LongFirst:
    """All attempts of a sequence, read as they are taken; of its last problems those expected to be long first."""

    def __init__(self, keys: Sequence[Key], max_tail: int = MAX_TAIL) -> None:
        """Take attempts in the run's order, which is that of their keys; at most so many problems are its tail."""
        self._keys, self._num_left = keys, len(keys)
        self._tail = _tail_of(keys, max_tail)
        self._heap: list[tuple[float, int]] = []  # by rank; an entry whose rank is not its problem's any more is void
        self._all_made = self._all_tokens = 0
        self._places = self._order()

    @property
    def num_left(self) -> int:
        """Attempts not yet taken."""
        return self._num_left

    def take(self) -> Key | None:
        """Return the next one."""
        place = next(self._places, None)
        if place is None:
            return None
        self._num_left -= 1
        return self._keys[place]

    def made(self, key: Key, num_tokens: int) -> None:
        """Take note of an attempt's length, whoever gave it out."""
        self._all_made += 1
        self._all_tokens += num_tokens
        problem = self._tail.get(key.problem)
        if problem is not None:
            problem.num_made += 1
            problem.num_tokens += num_tokens
            self._queue(key.problem, problem)

    def ended(self, key: Key) -> None:
        """Take note of an attempt that ended without a trace."""
        problem = self._tail.get(key.problem)
        if problem is not None and problem.probe == key:
            problem.probe = None
            self._queue(key.problem, problem)

    def _order(self) -> Iterator[int]:
        """Yield the place of every attempt once; how it goes on depends on what has ended by then."""
        yield from range(min((problem.next for problem in self._tail.values()), default=len(self._keys)))
        for place, problem in self._tail.items():
            if not problem.num_made:  # else the journal has shown how long its attempts are
                problem.probe = self._keys[problem.next]
                problem.next += 1
                self._queue(place, problem)
                yield problem.next - 1
        while self._heap:
            rank, place = heapq.heappop(self._heap)
            found = self._tail.get(place)
            if found is not None and found.rank == rank:
                del self._tail[place]
                yield from range(found.next, found.end)

    def _queue(self, place: int, problem: _Problem) -> None:
        """Queue a problem by what is expected of its attempts now."""
        problem.rank = -self._expected(problem)
        heapq.heappush(self._heap, (problem.rank, place))

    def _expected(self, problem: _Problem) -> float:
        """Return how many tokens an attempt at a problem will have: its own mean, or the run's if nothing is known."""
        if problem.num_made:
            return problem.num_tokens / problem.num_made
        if problem.probe is not None:
            return math.inf  # others that began when it did have ended
        return self._all_tokens / max(1, self._all_made)


def _tail_of(keys: Sequence[Key], max_tail: int) -> dict[int, _Problem]:
    """Return the last problems of a sequence, in its order."""
    found: list[tuple[int, _Problem]] = []
    end = len(keys)
    while end and len(found) < max_tail:
        problem, index = keys[end - 1]
        begin = bisect_left(keys, Key(problem, 0), max(0, end - 1 - index), end)
        found.append((problem, _Problem(begin, end)))
        end = begin
    return dict(reversed(found))
