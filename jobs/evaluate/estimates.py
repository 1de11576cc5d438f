"""Statistics of repeated attempts at problems: pure functions on counts and shares, each with its source.

The unit is the problem: attempts at one problem are alike, so intervals are drawn over problems, and each problem
weighs the same however many of its attempts could be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np

RESAMPLES: Final = 10_000  # 2.5 % of them, 250, lie beyond each end of an interval
LEVEL: Final = 0.95
SEED: Final = 0  # of all intervals: the same scores give the same interval
DRAWN_AT_ONCE: Final = 2_000_000  # numbers, 16 MB
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


class Interval(NamedTuple):
    """Ends of a confidence interval of 95 %."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean over problems; the interval is null for a single problem, which says nothing of others."""

    value: float
    interval: Interval | None
    num_problems: int


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k for one problem, in [0, 1].

    Counts judged attempts only; an unjudged one is in neither number. With k=1 it is the share of correct ones.

    Raises:
        ValueError: If not 0 <= num_correct <= num_samples, or k is outside [1, num_samples].

    Source: Chen et al. 2021, arXiv:2107.03374, section 2.1.
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct={num_correct} must be in [0, num_samples={num_samples}]")
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} must be in [1, num_samples={num_samples}]")
    draws = comb(num_samples, k)
    return (draws - comb(num_samples - num_correct, k)) / draws


def consensus(num_right: int, wrong_groups: Sequence[int]) -> float:
    """Return whether a majority vote is right: 1 or 0, or the chance of it where the right answer ties with others.

    ``wrong_groups`` are the sizes of the groups of equal wrong answers. The most frequent answer wins; a tie is broken
    by chance, and the score is the expectation, so it depends on no order. Attempts without an answer do not vote.

    Source: self-consistency, Wang et al. 2022, arXiv:2203.11171, which leaves ties open; cons@64 of DeepSeek-R1,
    arXiv:2501.12948, is this over 64 attempts.
    """
    most = max(wrong_groups, default=0)
    if num_right == 0 or num_right < most:
        return 0.0
    return 1.0 / (1 + sum(size == num_right for size in wrong_groups))


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of one value per problem with its interval; None if there is no problem."""
    if not values:
        return None
    return Estimate(fmean(values), bootstrap_interval(values), len(values))


def bootstrap_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """Return the 95 % percentile interval of the mean over problems drawn with replacement; None below two problems.

    The same values in any order give the same interval. Differences of two models on the same problems, given as
    values, give the paired interval.

    Source: Efron 1979, Ann. Statist. 7(1); percentile method.
    """
    if len(values) < 2:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(seed)
    means: list[float] = []
    step = max(1, DRAWN_AT_ONCE // len(ordered))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(ordered), (min(step, resamples - start), len(ordered)))
        means.extend(ordered[drawn].mean(axis=1))
    return percentile_interval(means)


def percentile_interval(values: Sequence[float]) -> Interval:
    """Return the values between which 95 % lie."""
    low, high = np.quantile(np.asarray(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def quantiles_of(values: Sequence[int]) -> Mapping[str, float]:
    """Return mean, quantiles and maximum of lengths; an empty mapping for none."""
    if not values:
        return {}
    found = np.quantile(np.asarray(values), QUANTILES)
    named = {f"p{round(100 * share)}": float(value) for share, value in zip(QUANTILES, found, strict=True)}
    return {"mean": fmean(values), **named, "max": float(max(values))}
