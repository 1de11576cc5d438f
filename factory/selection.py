"""Selection: which correct traces enter the tables, and why each other one does not.

After the verdicts, before the tables. Pure: plain values in, plain values out, whatever their order. Invariant:
judged = accepted + rejected, each rejection with exactly one reason. ``unjudged`` is our failure, so such a trace is
neither: it gets no decision. Reads no text and no files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from schemas.config import SelectConfig
from schemas.problem import digest
from schemas.verdict import Outcome, Reason

SELECTION_VERSION: Final = "1"  # raised when the same candidates and config would give other decisions
# Below this share of the group's median correct length a correct trace is taken for a lucky guess: guess, from the
# "shorter chains" practice of long2short training; not measured here.
LUCKY_GUESS_SHARE: Final = 0.25


class RejectReason(StrEnum):
    """Why a judged trace without a reason of its own is rejected; closed list, disjoint from ``Reason``."""

    NOT_CHOSEN = "not_chosen"  # correct, but over the cap, or not the shortest
    LUCKY_GUESS = "lucky_guess"  # correct, but far shorter than the other correct ones of its group
    NEAR_DUPLICATE = "near_duplicate"  # correct, but nearly the same text as a shorter correct one of its group
    UNVERIFIED = "unverified"  # nothing to compare with: no answer check said that it is right


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a selection knows of a trace and its verdict."""

    trace_id: str
    problem_id: str
    sample_index: int
    num_completion_tokens: int
    outcome: Outcome
    reason: Reason | None
    is_correct: bool | None
    like: str | None = None  # the trace of its group that it is nearly the same as, where the config asks for that

    def __post_init__(self) -> None:
        if self.reason is None and self.outcome not in (Outcome.CORRECT, Outcome.READABLE, Outcome.UNJUDGED):
            raise ValueError(f"trace {self.trace_id}: outcome {self.outcome} needs a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of one judged trace. ``rank`` counts from 1 in the rule's order of its group's correct traces."""

    trace_id: str
    is_accepted: bool
    reason: str | None = None  # of ``Reason`` or ``RejectReason``; null when accepted
    rank: int | None = None  # null when the trace was never in the choice

    def __post_init__(self) -> None:
        if self.is_accepted != (self.reason is None):
            raise ValueError(f"trace {self.trace_id}: is_accepted={self.is_accepted} with reason={self.reason!r}")


def select(candidates: Iterable[Candidate], config: SelectConfig) -> list[Decision]:
    """Return one decision per judged candidate, sorted by trace_id.

    Accepted needs the outcome ``correct`` and the answer check's word: a right answer in an unreadable trace is out.

    Raises:
        ValueError: If a trace comes twice.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    decisions: dict[str, Decision] = {}
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.trace_id in seen:
            raise ValueError(f"trace {candidate.trace_id} comes twice; a selection takes each trace once")
        seen.add(candidate.trace_id)
        if candidate.outcome is Outcome.UNJUDGED:
            continue
        if candidate.outcome is Outcome.CORRECT and candidate.is_correct and candidate.like is not None:
            reason = str(RejectReason.NEAR_DUPLICATE)
            decisions[candidate.trace_id] = Decision(trace_id=candidate.trace_id, is_accepted=False, reason=reason)
        elif candidate.outcome is Outcome.CORRECT and candidate.is_correct:
            groups[candidate.problem_id].append(candidate)
        else:
            decisions[candidate.trace_id] = _reject(candidate)
    for group in groups.values():
        for decision in _choose(group, config):
            decisions[decision.trace_id] = decision
    return [decisions[trace_id] for trace_id in sorted(decisions)]


def _reject(candidate: Candidate) -> Decision:
    reason: str = RejectReason.UNVERIFIED
    if candidate.reason is not None and candidate.outcome is not Outcome.READABLE:
        reason = candidate.reason
    return Decision(trace_id=candidate.trace_id, is_accepted=False, reason=str(reason))


def _choose(correct: Sequence[Candidate], config: SelectConfig) -> list[Decision]:
    """Return the decisions on the correct traces of one problem."""
    if config.rule == "all_correct":
        ordered = sorted(correct, key=lambda c: (c.sample_index, c.trace_id))
        return _rank(ordered, config.max_per_problem)
    shortest_allowed = LUCKY_GUESS_SHARE * median(c.num_completion_tokens for c in correct)
    lucky = [c for c in correct if c.num_completion_tokens < shortest_allowed]
    others = [c for c in correct if c.num_completion_tokens >= shortest_allowed]
    ordered = sorted(others, key=lambda c: (c.num_completion_tokens, c.sample_index, c.trace_id))
    reason = str(RejectReason.LUCKY_GUESS)
    return _rank(ordered, 1) + [Decision(trace_id=c.trace_id, is_accepted=False, reason=reason) for c in lucky]


def _rank(ordered: Sequence[Candidate], most: int | None) -> list[Decision]:
    decisions = []
    for rank, candidate in enumerate(ordered, start=1):
        is_accepted = most is None or rank <= most
        reason = None if is_accepted else str(RejectReason.NOT_CHOSEN)
        decisions.append(Decision(trace_id=candidate.trace_id, is_accepted=is_accepted, reason=reason, rank=rank))
    return decisions


def unjudged(candidates: Iterable[Candidate]) -> list[str]:
    """Return the ids of the traces that no selection may count as judged, sorted."""
    return sorted(c.trace_id for c in candidates if c.outcome is Outcome.UNJUDGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """How a selection ends: ``judged`` = ``accepted`` + the sum of ``rejected`` by reason."""

    judged: int
    accepted: int
    rejected: Mapping[str, int]

    def __post_init__(self) -> None:
        total = self.accepted + sum(self.rejected.values())
        assert self.judged == total, f"judged {self.judged} is not accepted {self.accepted} + rejected {self.rejected}"


def sum_decisions(decisions: Iterable[Decision]) -> Sums:
    """Return the counts of a selection, reasons in alphabetical order."""
    judged = accepted = 0
    rejected: Counter[str] = Counter()
    for decision in decisions:
        judged += 1
        if decision.reason is None:
            accepted += 1
        else:
            rejected[decision.reason] += 1
    return Sums(judged=judged, accepted=accepted, rejected=dict(sorted(rejected.items())))


def selection_digest(config: SelectConfig, versions: Mapping[str, str]) -> str:
    """Return what identifies a selection: this module's rules, the config but for its name, and ``versions``.

    ``versions`` holds what the candidates depend on: verifier versions, or the digest of a set of verdicts.
    """
    body = config.model_dump(mode="json", exclude={"name"})
    return digest(["selection", SELECTION_VERSION, body, dict(versions)])


# Comparing two selections.

ABSENT: Final = "absent"  # the trace was not judged in that selection, or not there
ACCEPTED: Final = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How one trace stands in two selections: ``accepted``, ``absent``, or the reason of its rejection."""

    trace_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionDiff:
    """Which rows a second selection has that the first had not, which it lacks, and how many are in both.

    ``reworded`` are rejected, or absent, in both, for different reasons. Each is sorted by trace_id.
    """

    entered: tuple[Change, ...]
    left: tuple[Change, ...]
    reworded: tuple[Change, ...]
    num_in_both: int


def diff_selections(a: Mapping[str, Decision], b: Mapping[str, Decision]) -> SelectionDiff:
    """Return what changed from selection ``a`` to selection ``b``, and why."""
    entered, left, reworded, num_in_both = [], [], [], 0
    for trace_id in sorted(a.keys() | b.keys()):
        change = Change(trace_id=trace_id, before=_standing(a.get(trace_id)), after=_standing(b.get(trace_id)))
        if change.before == change.after:
            num_in_both += change.after == ACCEPTED
        elif change.after == ACCEPTED:
            entered.append(change)
        elif change.before == ACCEPTED:
            left.append(change)
        else:
            reworded.append(change)
    return SelectionDiff(entered=tuple(entered), left=tuple(left), reworded=tuple(reworded), num_in_both=num_in_both)


def _standing(decision: Decision | None) -> str:
    if decision is None:
        return ABSENT
    return ACCEPTED if decision.reason is None else decision.reason
