"""Delays: how long verdicts take to reach the scheduler, as a histogram that costs the same however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

BOUNDS_S: Final = np.geomspace(0.001, 10_000, 141)  # twenty bins per factor of ten: a quantile is right to 12 %


class Quantiles(NamedTuple):
    """Seconds within which half, and 99 of 100, of so many verdicts came."""

    num_verdicts: int
    median_s: float
    p99_s: float


class Delays:
    """Seconds from the end of a trace until the coordinator has its verdict."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(BOUNDS_S) + 1, np.int64)

    def add(self, seconds: Sequence[float]) -> None:
        """Count some."""
        np.add.at(self._counts, np.searchsorted(BOUNDS_S, seconds), 1)

    def quantiles(self) -> Quantiles | None:
        """Return upper bounds of the median and of the 99th percentile; None if there is nothing."""
        count = int(self._counts.sum())
        if not count:
            return None
        reached = self._counts.cumsum()
        places = [min(int(np.searchsorted(reached, share * count)), len(BOUNDS_S) - 1) for share in (0.5, 0.99)]
        return Quantiles(count, *(float(BOUNDS_S[place]) for place in places))
