"""How long attempts may get: limits by domain, a moderate limit at first, and which of those that it cut go on.

Decisions of the coordinator, as a function of plain facts. A limit by domain changes texts and so stands in
``sampling`` and in the fingerprint. The moderate limit does not: an attempt that it cuts has no end yet, and goes on
from its own tokens, so ``schedule`` may change it, or drop it, between two starts of a run. Which attempts come first,
by the lengths that are expected of them, is for `order` and `adaptive` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from schemas.config import JobConfig
from schemas.problem import Domain


class Limit(NamedTuple):
    """How many tokens an attempt may have by the end of its next turn, and whether another turn may follow."""

    max_tokens: int
    may_go_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """The limits of a run, in tokens of the completion."""

    max_tokens: int
    by_domain: Mapping[Domain, int]
    first: int | None  # of the first turn; None: there is one turn only
    continue_cut: Literal["all", "unsolved"] = "all"

    @classmethod
    def of(cls, job: JobConfig) -> Lengths:
        """Return the limits of a job."""
        return cls(
            max_tokens=job.sampling.max_tokens,
            by_domain=job.sampling.max_tokens_by_domain,
            first=job.schedule.first_max_tokens,
            continue_cut=job.schedule.continue_cut,
        )

    def most(self, domain: Domain) -> int:
        """Return the limit of a whole completion."""
        return self.by_domain.get(domain, self.max_tokens)

    def next_turn(self, domain: Domain, num_saved: int) -> Limit:
        """Return the limit of an attempt that has so many tokens by now."""
        most = self.most(domain)
        if self.first is None or self.first >= most or num_saved >= self.first:
            return Limit(most, may_go_on=False)
        return Limit(self.first, may_go_on=True)

    def is_cut(self, domain: Domain, num_saved: int) -> bool:
        """Return whether an attempt with so many saved tokens has had its first turn."""
        return self.first is not None and self.first <= num_saved < self.most(domain)

    def pays(self, *, is_solved: bool) -> bool:
        """Return whether going on with a cut attempt is worth its tokens: where it may be a problem's only answer.

        Of a long attempt the tokens so far are spent either way, and what it lacks is about what a fresh one costs at
        a problem that takes long. So at a problem that has its answer it is the dearest of what could be sampled.
        """
        return self.continue_cut == "all" or not is_solved
