"""Rules of a selection: which correct traces of one problem are chosen, and why each other judged one is not.

Pure: one problem's candidates in, decisions out, whatever their order. Reads no text and no files. Invariant: every
judged trace gets one decision, every rejection one reason. ``unjudged`` is our failure, so such a trace gets none.
What bounds a whole selection comes after (`quotas`). Why the rules are as they are: factory/SELECTION.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise
from operator import attrgetter, itemgetter
from statistics import median
from typing import Final, NamedTuple

from factory.diversity import spread
from schemas.config import Difficulty, SelectConfig
from schemas.verdict import Outcome

# Below this share of the median length of a problem's correct traces one of them is taken for a lucky guess: guess,
# from the practice of long2short training; not measured here.
LUCKY_GUESS_SHARE: Final = 0.25
DIVERSE_PER_PROBLEM: Final = 4  # what `k_diverse` takes unless the config says another number
# Rules that look for extreme lengths, where a lucky guess would be the first to be taken.
LENGTH_RULES: Final = frozenset({"shortest_correct", "k_diverse", "long_short_mix"})

# As they stand in Arrow columns: comparing plain strings is faster than members, and this is done ten million times.
_CORRECT: Final = Outcome.CORRECT.value
_UNJUDGED: Final = Outcome.UNJUDGED.value
_WITHOUT_REASON: Final = (Outcome.CORRECT.value, Outcome.READABLE.value)


class RejectReason(StrEnum):
    """Why a judged trace without a reason of its own is rejected; closed list, disjoint from ``Reason``."""

    NOT_CHOSEN = "not_chosen"  # correct, but over the cap of its problem, or not the one that the rule takes
    LUCKY_GUESS = "lucky_guess"  # correct, but far shorter than the other correct ones of its problem
    NEAR_DUPLICATE = "near_duplicate"  # correct, but nearly the same text as a shorter correct one of its problem
    UNVERIFIED = "unverified"  # nothing to compare with: no answer check said that it is right
    TOO_EASY = "too_easy"  # correct, but its problem's pass rate is above that of `hard_subset`
    OVER_QUOTA = "over_quota"  # chosen among its problem's, but a quota, or its difficulty's share, was full


_NOT_CHOSEN: Final = RejectReason.NOT_CHOSEN.value
_LUCKY_GUESS: Final = RejectReason.LUCKY_GUESS.value
_NEAR_DUPLICATE: Final = RejectReason.NEAR_DUPLICATE.value
_TOO_EASY: Final = RejectReason.TOO_EASY.value


class Candidate(NamedTuple):
    """What a selection knows of a trace and its verdict: light, since it is made ten million times."""

    trace_id: str
    problem_id: str
    sample_index: int
    domain: str
    num_completion_tokens: int
    outcome: str  # of ``Outcome``
    reason: str | None  # of ``Reason``
    is_correct: bool | None
    like: str | None = None  # the trace of its problem that it is nearly the same as, where the config asks for that
    signature: bytes | None = None  # MinHash of its text (`shingles`), where the rule looks at texts


class Decision(NamedTuple):
    """What became of one judged trace. ``rank`` counts from 1 in the rule's order of its problem's correct traces."""

    trace_id: str
    is_accepted: bool
    reason: str | None  # of ``Reason`` or ``RejectReason``; null when accepted
    rank: int | None  # null when the trace was never in the choice


class PassCount(NamedTuple):
    """How many attempts at a problem are right, and how many are right or wrong."""

    num_true: int
    num_judged: int


_by_index: Final = attrgetter("sample_index", "trace_id")
_by_length: Final = attrgetter("num_completion_tokens", "sample_index", "trace_id")


def choose(group: Sequence[Candidate], config: SelectConfig) -> list[Decision]:
    """Return one decision per judged candidate of a problem, sorted by trace_id; before quotas.

    The group is all that has a verdict, unjudged ones too. Accepted needs the outcome ``correct`` and the answer
    check's word: a right answer in an unreadable trace is out.

    Raises:
        ValueError: If a trace comes twice, one is of another problem, or one lacks the reason that its outcome needs.
    """
    decisions: list[Decision] = []
    right: list[Candidate] = []
    for candidate in group:
        if candidate.outcome == _CORRECT and candidate.is_correct:
            if candidate.like is None:
                right.append(candidate)
            else:
                decisions.append(Decision(candidate.trace_id, False, _NEAR_DUPLICATE, None))
        elif candidate.outcome != _UNJUDGED:
            decisions.append(_rejected(candidate))
    if right:
        decisions += _choose(right, group, config)
    decisions.sort(key=itemgetter(0))
    _check(group)
    return decisions


def _rejected(candidate: Candidate) -> Decision:
    reason = candidate.reason
    if reason is None or candidate.outcome == Outcome.READABLE:
        if candidate.outcome not in _WITHOUT_REASON:
            raise ValueError(f"trace {candidate.trace_id}: outcome {candidate.outcome} needs a reason")
        reason = RejectReason.UNVERIFIED
    return Decision(candidate.trace_id, False, str(reason), None)


def _check(group: Sequence[Candidate]) -> None:
    if len({candidate[0] for candidate in group}) != len(group):
        ids = sorted(candidate.trace_id for candidate in group)
        twice = next(one for one, other in pairwise(ids) if one == other)
        raise ValueError(f"trace {twice} comes twice; a selection takes each trace once")
    if len({candidate[1] for candidate in group}) > 1:
        problems = sorted({candidate.problem_id for candidate in group})
        raise ValueError(f"a group holds traces of the problems {problems[0]} and {problems[1]}; give one at a time")


def _choose(right: list[Candidate], group: Sequence[Candidate], config: SelectConfig) -> list[Decision]:
    """Return the decisions on the correct traces of one problem."""
    if config.rule == "hard_subset":
        rate = count_passes(group)
        if rate.num_true / rate.num_judged > config.max_pass_rate:  # a right one is there, so one was judged
            return [Decision(candidate.trace_id, False, _TOO_EASY, None) for candidate in right]
    most = most_per_problem(config)
    if config.rule not in LENGTH_RULES:
        return _ranked(_ordered(right, config), most)
    lucky, others = split_lucky(right)
    decisions = [Decision(candidate.trace_id, False, _LUCKY_GUESS, None) for candidate in lucky]
    return decisions + _ranked(_ordered(others, config), most)


def split_lucky(right: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Return the lucky guesses among a problem's correct traces, then the others, of which there is at least one."""
    shortest_allowed = LUCKY_GUESS_SHARE * median([candidate.num_completion_tokens for candidate in right])
    lucky = [candidate for candidate in right if candidate.num_completion_tokens < shortest_allowed]
    return lucky, [candidate for candidate in right if candidate.num_completion_tokens >= shortest_allowed]


def most_per_problem(config: SelectConfig) -> int | None:
    """Return how many traces of a problem the rule takes at most; null: all."""
    match config.rule:
        case "one_random" | "shortest_correct":
            return 1
        case "long_short_mix":
            return 2
        case "k_diverse":
            return config.max_per_problem or DIVERSE_PER_PROBLEM
        case _:
            return config.max_per_problem


def _ordered(right: list[Candidate], config: SelectConfig) -> list[Candidate]:
    """Return the traces in the order of the rule, which takes the first ones."""
    match config.rule:
        case "one_random":
            return sorted(right, key=lambda candidate: priority(config.seed, candidate.trace_id))
        case "shortest_correct":
            return sorted(right, key=_by_length)
        case "long_short_mix":
            shortest, *others = sorted(right, key=_by_length)
            return [shortest, *others[-1:], *others[:-1]]
        case "k_diverse":
            return _diverse(sorted(right, key=_by_length), config.max_per_problem or DIVERSE_PER_PROBLEM)
        case _:  # all_correct, hard_subset, difficulty_balanced
            return sorted(right, key=_by_index)


def _diverse(ordered: list[Candidate], most: int) -> list[Candidate]:
    """Return traces sorted by length in the order in which they are taken, then those that are not, by length."""
    lengths = [candidate.num_completion_tokens for candidate in ordered]
    taken = spread(lengths, [candidate.signature for candidate in ordered], most)
    return [ordered[place] for place in taken] + [c for place, c in enumerate(ordered) if place not in taken]


def _ranked(ordered: Iterable[Candidate], most: int | None) -> list[Decision]:
    return [
        Decision(candidate.trace_id, True, None, rank)
        if most is None or rank <= most
        else Decision(candidate.trace_id, False, _NOT_CHOSEN, rank)
        for rank, candidate in enumerate(ordered, start=1)
    ]


def priority(seed: int, trace_id: str) -> bytes:
    """Return what a trace is chosen by where chance is to choose: 16 bytes, the lowest first, another for each seed."""
    return hashlib.blake2b(f"{seed}:{trace_id}".encode(), digest_size=16).digest()


def count_passes(group: Iterable[Candidate]) -> PassCount:
    """Return how many of a problem's traces are right, of those that an answer check called right or wrong."""
    words = [candidate.is_correct for candidate in group]
    return PassCount(words.count(True), len(words) - words.count(None))


def difficulty_of(rate: PassCount) -> Difficulty:
    """Return the difficulty of a problem by its pass rate: above 2/3 easy, from 1/3 on medium, below hard.

    Raises:
        ValueError: If nothing was judged: then there is no pass rate.
    """
    if not rate.num_judged:
        raise ValueError("no attempt is right or wrong, so there is no pass rate; a difficulty needs one")
    if 3 * rate.num_true > 2 * rate.num_judged:
        return "easy"
    return "medium" if 3 * rate.num_true >= rate.num_judged else "hard"
