"""Groups: what policy gradients need of a problem's attempts - rewards, and advantages within the group.

Beside `pairs`, for the table ``grpo_groups``. Pure. Invariants: a group's mean is its pass rate; equal rewards have no
variance and advantage 0, exactly; advantages of a group sum to 0 but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from factory.rules import Candidate
from schemas.verdict import Outcome


class GroupRow(NamedTuple):
    """One attempt within its group."""

    trace_id: str
    reward: float  # 1 where the answer is right, else 0, whatever the readability
    group_size: int
    group_mean: float
    group_std: float  # of the group as it is: divided by its size, not by one less
    advantage: float  # (reward - mean) / std; 0 without variance
    has_variance: bool


def advantages(group: Sequence[Candidate]) -> list[GroupRow]:
    """Return a row for each attempt at a problem whose answer was called right or wrong, sorted by trace_id.

    Unjudged ones are our failure and in no group; nor are those with nothing to compare, which have no reward: a 0 in
    its place would teach against texts that nobody found wrong.

    Source: GRPO, arXiv:2402.03300, section 4.1.2, without the small constant below the fraction: trainers add theirs.
    """
    rewarded = [c for c in group if c.is_correct is not None and c.outcome != Outcome.UNJUDGED]
    size, num_right = len(rewarded), sum(1 for candidate in rewarded if candidate.is_correct)
    num_wrong = size - num_right
    std = of_right = of_wrong = 0.0
    has_variance = num_right > 0 and num_wrong > 0
    if has_variance:  # rewards are 0 and 1, so that these are exact; sums of squares would lose digits
        std = math.sqrt(num_right * num_wrong) / size
        of_right, of_wrong = math.sqrt(num_wrong / num_right), -math.sqrt(num_right / num_wrong)
    return sorted(
        GroupRow(
            trace_id=candidate.trace_id,
            reward=float(bool(candidate.is_correct)),
            group_size=size,
            group_mean=num_right / size,
            group_std=std,
            advantage=of_right if candidate.is_correct else of_wrong,
            has_variance=has_variance,
        )
        for candidate in rewarded
    )
