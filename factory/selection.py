"""Selection: which correct traces enter the tables, and why each other one does not.

After the verdicts, before the tables. Pure: plain values in, plain values out, whatever their order. Invariant:
judged = accepted + rejected, each rejection with exactly one reason. The choice within a problem is in `rules`, what
bounds the whole in `quotas`; pairs and groups of one problem in `pairs` and `groups`. Why: factory/SELECTION.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from factory.quotas import Over, QuotaPass, cut, has_pass
from factory.rules import Candidate, Decision, RejectReason, choose
from schemas.config import SelectConfig
from schemas.problem import digest

__all__ = [
    "Candidate",
    "Decision",
    "Over",
    "QuotaPass",
    "RejectReason",
    "Sums",
    "choose",
    "cut",
    "has_pass",
    "over_quotas",
    "select",
    "selection_digest",
    "split_of",
]

SELECTION_VERSION: Final = "3"  # raised when the same candidates and config would give other rows


def select(
    groups: Iterable[Sequence[Candidate]], config: SelectConfig, over: Over | None = None
) -> Iterator[list[Decision]]:
    """Yield the decisions on each group (all candidates of one problem), in the order of the groups.

    ``over``, of all groups, is needed where all of them must be seen before one is decided (`has_pass`). Holds one
    group at a time.

    Raises:
        ValueError: As `choose`.
    """
    for group in groups:
        decisions = choose(group, config)
        yield decisions if over is None else cut(decisions, over)


def over_quotas(groups: Iterable[Sequence[Candidate]], config: SelectConfig) -> Over:
    """Return the traces that the rule would take and a quota does not."""
    quotas = QuotaPass(config)
    for group in groups:
        quotas.add_group(group, choose(group, config))
    return quotas.over()


def split_of(problem_id: str, share: float) -> Literal["train", "validation"]:
    """Return the split of all rows of a problem, by its hash alone; ``share`` of the problems are for validation.

    No seed: a problem stays in its split in every selection and run, and a larger share only adds to the smaller one's.
    """
    place = int.from_bytes(hashlib.sha256(f"split:{problem_id}".encode()).digest()[:8]) / 2**64
    return "validation" if place < share else "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """How a selection ends: ``judged`` = ``accepted`` + the sum of ``rejected`` by reason."""

    judged: int
    accepted: int
    rejected: Mapping[str, int]

    def __post_init__(self) -> None:
        total = self.accepted + sum(self.rejected.values())
        assert self.judged == total, f"judged {self.judged} is not accepted {self.accepted} + rejected {self.rejected}"


def selection_digest(config: SelectConfig, versions: Mapping[str, str]) -> str:
    """Return what identifies the rows of a selection: these rules, what of the config changes rows, and ``versions``.

    Neither the selection's name nor which of its tables are written changes a row. ``versions`` holds what the
    candidates depend on: verifier versions, or the digest of a set of verdicts.
    """
    body = config.model_dump(mode="json", exclude={"name", "configs"})
    return digest(["selection", SELECTION_VERSION, body, dict(versions)])
