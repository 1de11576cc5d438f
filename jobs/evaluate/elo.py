"""A Codeforces rating from which problems of a few contests were solved.

Method: on Codeforces a problem's rating d is set so that a contestant of rating r solves it with probability
1 / (1 + 10^((d - r) / 400)). The rating here is the r under which what was solved is most likely, over all problems of
all contests; each attempt is one submission and weighs 1 / (attempts at its problem). The interval draws contests, as
problems of one contest are alike. It is not the rating by rank among a contest's participants (CodeElo,
arXiv:2501.01257, which needs standings, and gives several submissions with penalties); the two need not agree.

Source: M. Mirzayanov, "Codeforces: Problem Difficulties", codeforces.com/blog/entry/62865.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.evaluate.estimates import SEED, Interval, percentile_interval

LOWEST: Final = 0.0  # all ratings are inside; problems have 800 to 3500
HIGHEST: Final = 4000.0
RESAMPLES: Final = 2_000
HALVINGS: Final = 30  # of 4,000 points: the rest is below 1e-5

Floats = npt.NDArray[np.float64]


class Rated(NamedTuple):
    """A problem with its rating, and the share of attempts that solved it, in [0, 1]."""

    rating: float
    contest: str
    share: float


class Rating(NamedTuple):
    """The most likely rating; at an end of the scale (all or nothing was solved) it is a bound, and no estimate."""

    value: float
    interval: Interval | None  # null for a single contest
    is_bound: bool
    num_problems: int
    num_contests: int


def rating_of(problems: Sequence[Rated]) -> Rating | None:
    """Return the rating that fits best; None without problems. The same problems in any order give the same."""
    if not problems:
        return None
    ordered = sorted(problems)
    contests = sorted({one.contest for one in ordered})
    place = {contest: number for number, contest in enumerate(contests)}
    of_contest = np.asarray([place[one.contest] for one in ordered])
    ratings = np.asarray([one.rating for one in ordered], np.float64)
    shares = np.asarray([one.share for one in ordered], np.float64)
    value = float(most_likely(ratings, shares, np.ones((1, len(ordered))))[0])
    interval = None
    if len(contests) > 1:
        drawn = np.random.default_rng(SEED).multinomial(len(contests), [1 / len(contests)] * len(contests), RESAMPLES)
        interval = percentile_interval(most_likely(ratings, shares, drawn[:, of_contest].astype(np.float64)).tolist())
    is_bound = not LOWEST + 1 < value < HIGHEST - 1
    return Rating(value, interval, is_bound, len(ordered), len(contests))


def most_likely(ratings: Floats, shares: Floats, weights: Floats) -> Floats:
    """Return the most likely rating for each row of weights of the problems, by halving.

    The likelihood is concave in the rating: expected and seen solves are equal at its top, and the first grow with it.
    """
    low, high = np.full(len(weights), LOWEST), np.full(len(weights), HIGHEST)
    seen = weights @ shares
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        chances = 1 / (1 + 10 ** ((ratings[None, :] - middle[:, None]) / 400))
        is_low = (weights * chances).sum(axis=1) < seen
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    found: Floats = (low + high) / 2
    return found
