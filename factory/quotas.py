"""Quotas: which chosen traces go because a domain, a difficulty, a length or the whole has enough.

A pass over a whole selection, between the choice within each problem (`rules`) and the tables. Invariants: what goes
depends on the traces and the seed alone, not on their order; no quota is exceeded, and none of the traces that went
would fit in without exceeding one (of `difficulty_balanced`: or having more of its difficulty than of another that
quotas leave any of). Keeps 20 bytes per accepted trace, some 60 while it decides; no ids, no text.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from factory.rules import Candidate, Decision, RejectReason, count_passes, difficulty_of, priority
from schemas.config import SelectConfig

DECIDED_AT_ONCE: Final = 1 << 18  # traces whose places and cells are Python numbers at a time: guess

Words = npt.NDArray[np.uint64]


class _Cell(NamedTuple):
    """What quotas can tell apart: all traces of a cell count against the same ones."""

    domain: str
    difficulty: str
    length: int | None  # upper end of the length's range; null: above the last


class Over:
    """The traces that are over a quota: ``trace_id in over``, ``len(over)``."""

    def __init__(self, seed: int, highs: Words, lows: Words) -> None:
        order = np.lexsort((lows, highs))
        self._seed = seed
        self._highs, self._lows = array("Q", highs[order].tobytes()), array("Q", lows[order].tobytes())

    def __contains__(self, trace_id: str) -> bool:
        high, low = _halves(self._seed, trace_id)
        place = bisect_left(self._highs, high)
        while place < len(self._highs) and self._highs[place] == high:
            if self._lows[place] == low:
                return True
            place += 1
        return False

    def __len__(self) -> int:
        return len(self._highs)


def has_pass(config: SelectConfig) -> bool:
    """Return whether a selection needs a pass over all chosen traces before any is known to be accepted."""
    return config.rule == "difficulty_balanced" or config.quotas.is_set


def cut(decisions: Sequence[Decision], over: Over) -> list[Decision]:
    """Return the decisions with the accepted ones that are over a quota rejected; their ranks stay."""
    return [
        Decision(decision.trace_id, False, RejectReason.OVER_QUOTA.value, decision.rank)
        if decision.is_accepted and decision.trace_id in over
        else decision
        for decision in decisions
    ]


class QuotaPass:
    """Takes the accepted traces of all problems, in any order, then says which are over a quota.

    First come those that are first in their problem by the rule's order, so that a quota holds as many problems as it
    can; within a rank the lowest ``priority``.
    """

    def __init__(self, config: SelectConfig) -> None:
        self._config = config
        self._length_ends = sorted(config.quotas.length)
        self._cells: dict[_Cell, int] = {}
        self._highs, self._lows = array("Q"), array("Q")  # halves of the priority, which stands for the id
        self._ranks, self._numbers = array("H"), array("H")  # of the trace in its problem, of its cell

    def add_group(self, candidates: Sequence[Candidate], decisions: Sequence[Decision]) -> None:
        """Take the candidates of one problem with what `choose` made of them."""
        ranks = {decision.trace_id: decision.rank for decision in decisions if decision.is_accepted}
        if not ranks:
            return
        difficulty = difficulty_of(count_passes(candidates))
        for candidate in candidates:
            rank = ranks.get(candidate.trace_id)
            if rank is not None:
                high, low = _halves(self._config.seed, candidate.trace_id)
                cell = _Cell(candidate.domain, difficulty, self._length_end(candidate.num_completion_tokens))
                self._highs.append(high)
                self._lows.append(low)
                self._ranks.append(rank)
                self._numbers.append(self._cells.setdefault(cell, len(self._cells)))

    def over(self) -> Over:
        """Return the traces that are over a quota."""
        highs, lows = np.frombuffer(self._highs, np.uint64), np.frombuffer(self._lows, np.uint64)
        order = np.lexsort((lows, highs, np.frombuffer(self._ranks, np.uint16)))
        numbers = np.frombuffer(self._numbers, np.uint16)[order]
        rooms = _Rooms(*self._limits())
        if self._config.rule == "difficulty_balanced":
            is_over = _fill_evenly(numbers, rooms, [cell.difficulty for cell in self._cells])
        else:
            is_over = _fill(numbers, rooms)
        places = order[is_over]
        return Over(self._config.seed, highs[places], lows[places])

    def _length_end(self, num_tokens: int) -> int | None:
        place = bisect_left(self._length_ends, num_tokens)
        return self._length_ends[place] if place < len(self._length_ends) else None

    def _limits(self) -> tuple[list[int], list[list[int]]]:
        """Return the limits, and for each cell which of them its traces count against."""
        quotas = self._config.quotas
        by_name: dict[tuple[str, object], int] = {("domain", domain): most for domain, most in quotas.domain.items()}
        by_name |= {("difficulty", str(name)): most for name, most in quotas.difficulty.items()}
        by_name |= {("length", end): most for end, most in quotas.length.items()}
        if quotas.total is not None:
            by_name["total", None] = quotas.total
        places = {name: place for place, name in enumerate(by_name)}
        wanted = [
            (("domain", cell.domain), ("difficulty", cell.difficulty), ("length", cell.length), ("total", None))
            for cell in self._cells
        ]
        return list(by_name.values()), [[places[name] for name in names if name in places] for names in wanted]


class _Rooms:
    """How many more traces each limit lets in, and so which cells are full: for good, nothing is taken out again."""

    def __init__(self, limits: Sequence[int], bounds: Sequence[Sequence[int]]) -> None:
        self._rooms, self._bounds = list(limits), bounds
        self._cells_of = [[cell for cell, names in enumerate(bounds) if limit in names] for limit in range(len(limits))]
        self.is_full = [any(not limits[limit] for limit in names) for names in bounds]  # by cell

    def take(self, cell: int) -> None:
        """Count one trace of a cell that is not full."""
        for limit in self._bounds[cell]:
            self._rooms[limit] -= 1
            if not self._rooms[limit]:
                for other in self._cells_of[limit]:
                    self.is_full[other] = True


def _fill(numbers: npt.NDArray[np.uint16], rooms: _Rooms) -> npt.NDArray[np.bool_]:
    """Return which traces, given by their cells in the order of preference, find a limit that is used up."""
    is_over = np.ones(len(numbers), np.bool_)
    for place, cell in _fitting(numbers, np.arange(len(numbers)), rooms):
        rooms.take(cell)
        is_over[place] = False
    return is_over


def _fill_evenly(numbers: npt.NDArray[np.uint16], rooms: _Rooms, difficulties: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return as ``_fill`` does, with equally many taken of each difficulty of which one is; ``difficulties`` by cell.

    In rounds of one trace of each, rarest first. A difficulty that finds nothing in the first round is none to be
    balanced with; a later round in which one finds nothing is the end, and does not count.
    """
    is_over = np.ones(len(numbers), np.bool_)
    number_of = {name: number for number, name in enumerate(sorted(set(difficulties)))}
    found = np.array([number_of[name] for name in difficulties], np.uint8)[numbers]
    places = sorted((np.flatnonzero(found == number) for number in number_of.values()), key=len)
    streams = [_fitting(numbers, some, rooms) for some in places]
    is_first = True
    while streams:
        taken = [_take_next(stream, rooms) for stream in streams]
        if None in taken and not is_first:
            break
        streams = [stream for stream, place in zip(streams, taken, strict=True) if place is not None]
        is_over[[place for place in taken if place is not None]] = False
        is_first = False
    return is_over


def _take_next(stream: Iterator[tuple[int, int]], rooms: _Rooms) -> int | None:
    place, cell = next(stream, (None, -1))
    if place is not None:
        rooms.take(cell)
    return place


def _fitting(
    numbers: npt.NDArray[np.uint16], places: npt.NDArray[np.int64], rooms: _Rooms
) -> Iterator[tuple[int, int]]:
    """Yield place and cell of those that find room at the moment when they are asked for."""
    for start in range(0, len(places), DECIDED_AT_ONCE):
        part = places[start : start + DECIDED_AT_ONCE]
        for place, cell in zip(part.tolist(), numbers[part].tolist(), strict=True):
            if not rooms.is_full[cell]:
                yield place, cell


def _halves(seed: int, trace_id: str) -> tuple[int, int]:
    both = priority(seed, trace_id)
    return int.from_bytes(both[:8]), int.from_bytes(both[8:])
