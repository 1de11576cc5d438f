"""Preference pairs: two traces of one problem, of which a student should rather write the first.

After the decisions, beside the tables. Pure, whatever the order of the traces. Invariants: the chosen side is correct
in every respect and no lucky guess; the rejected side is shown to be wrong, or is correct and longer; a problem that
the selection takes nothing of has no pairs; of a problem's pairs no two reject the same trace. Reads no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from factory.rules import Candidate, Decision, split_lucky
from schemas.config import PreferenceConfig
from schemas.problem import digest
from schemas.verdict import Outcome, Reason

# Complete texts whose answer is not the reference's. Not unreadable ones: a text that was cut off, loops or mixes
# languages would teach the form, or that long is bad, and not which answer is right.
WORSE_OUTCOMES: Final = frozenset(
    outcome.value for outcome in (Outcome.WRONG_ANSWER, Outcome.NO_ANSWER, Outcome.OVER_LIMIT)
)
# Not shown to be wrong: we could not read or compare the answer within our limits.
UNDECIDED: Final = frozenset(
    reason.value
    for reason in (Reason.UNPARSED_ANSWER, Reason.TOO_LONG, Reason.TOO_DEEP, Reason.TOO_BIG, Reason.TIMEOUT)
)

_by_length: Final = attrgetter("num_completion_tokens", "sample_index", "trace_id")


class Pair(NamedTuple):
    """Two traces of one problem, by their ids."""

    pair_id: str  # hash of the rest but the problem, which a trace's id covers
    problem_id: str
    rule: str
    chosen: str
    rejected: str


def pairs(group: Sequence[Candidate], decisions: Sequence[Decision], config: PreferenceConfig) -> list[Pair]:
    """Return the pairs of one problem, by rule and pair_id; ``decisions`` are those after quotas.

    The sides come from all of the problem's traces, not the accepted alone: where a rule accepts one, no pair of two
    correct ones would be left.
    """
    if not any(decision.is_accepted for decision in decisions):
        return []
    right = [c for c in group if c.outcome == Outcome.CORRECT and c.is_correct and c.like is None]
    _, right = split_lucky(right)
    right.sort(key=_by_length)
    wrong = sorted(filter(_is_worse, group), key=_by_length)
    made: list[Pair] = []
    if "long2short_dpo" in config.rules:
        made += _named("long2short_dpo", _long_to_short(right, wrong, config))
    if "correct_wrong_pairs" in config.rules:
        used = {pair.rejected for pair in made}
        left = [candidate for candidate in wrong if candidate.trace_id not in used]
        made += _named("correct_wrong_pairs", _similar(right, left, config))
    return made


def _is_worse(candidate: Candidate) -> bool:
    return candidate.is_correct is False and candidate.outcome in WORSE_OUTCOMES and candidate.reason not in UNDECIDED


_Sides = tuple[Candidate, Candidate]


def _long_to_short(right: list[Candidate], wrong: list[Candidate], config: PreferenceConfig) -> list[_Sides]:
    """Return the shortest correct trace with longer ones, of both kinds in turn, wrong ones first, longest first.

    Source: Kimi k1.5 (arXiv:2501.12599), long2short DPO: longer wrong ones, and correct ones 1.5 times as long. It
    says neither how many nor which; the longest, as Sky-T1-Flash takes them.
    """
    shortest = right[0]
    length = shortest.num_completion_tokens
    longer_wrong = [c for c in reversed(wrong) if c.num_completion_tokens > length]
    longer_right = [
        c for c in reversed(right) if c.num_completion_tokens >= config.longer * length and c is not shortest
    ]
    turns = [
        kind[place]
        for place in range(max(len(longer_wrong), len(longer_right)))
        for kind in (longer_wrong, longer_right)
        if place < len(kind)
    ]
    return [(shortest, rejected) for rejected in turns[: config.max_per_problem]]


def _similar(right: list[Candidate], wrong: list[Candidate], config: PreferenceConfig) -> list[_Sides]:
    """Return correct and wrong traces of the most similar lengths, each in one pair at most.

    Those are neighbours by length: of a correct and a wrong one with others between them, two are at least as near.
    """
    is_right = {candidate.trace_id for candidate in right}
    ordered = sorted([*right, *wrong], key=_by_length)
    found: list[_Sides] = []
    while len(found) < config.max_per_problem:
        places = [n for n in range(len(ordered) - 1) if _differ(ordered[n], ordered[n + 1], is_right)]
        if not places:
            break
        place = min(places, key=lambda n: _gap(*ordered[n : n + 2]))
        shorter, longer = ordered[place : place + 2]
        if _gap(shorter, longer) > config.similar:
            break
        found.append((shorter, longer) if shorter.trace_id in is_right else (longer, shorter))
        del ordered[place : place + 2]
    return found


def _gap(shorter: Candidate, longer: Candidate) -> float:
    """Return by which share of the longer one's length the two differ, in [0, 1]."""
    length = longer.num_completion_tokens
    return (length - shorter.num_completion_tokens) / length if length else 0.0


def _differ(one: Candidate, other: Candidate, is_right: set[str]) -> bool:
    return (one.trace_id in is_right) != (other.trace_id in is_right)


def _named(rule: str, sides: list[_Sides]) -> list[Pair]:
    made = []
    for chosen, rejected in sides:
        pair_id = digest(["pair", rule, chosen.trace_id, rejected.trace_id])
        made.append(Pair(pair_id, chosen.problem_id, rule, chosen.trace_id, rejected.trace_id))
    return sorted(made)
