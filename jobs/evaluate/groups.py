"""Groups of equal answers, for majority votes: equal is what the verifiers say of one answer against the other.

Right answers are one group: each equals the reference. Wrong ones are in one group where one of them is accepted with
the other as reference, either way around, and where a chain of such pairs joins them. Invariant: the groups do not
depend on the order of the attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from schemas.problem import Answer, Choice, Reference
from verifiers.batch import Pair, compare_all
from verifiers.math import compare_texts

MAX_COMPARED: Final = 64  # different wrong answers of a problem, most frequent first; others are equal by text alone


class Votes(NamedTuple):
    """The votes at one problem; ``wrong`` counts attempts by the text of their answer."""

    num_right: int
    wrong: Mapping[str, int]

    @property
    def is_open(self) -> bool:
        """Whether it matters which wrong answers are equal."""
        return 0 < self.num_right <= sum(self.wrong.values())


def can_vote(reference: Reference | None) -> bool:
    """Return whether answers to such a problem can be compared with one another: programs and puzzles cannot."""
    return isinstance(reference, Answer | Choice)


def group_wrong(asked: Sequence[tuple[Votes, Reference | None]]) -> list[list[int]]:
    """Return, for each problem, the sizes of its groups of equal wrong answers.

    Only where it decides the vote are answers compared; elsewhere they are grouped by text.
    """
    todo = [dict.fromkeys(_pairs(votes, reference)) for votes, reference in asked]
    equal = compare_all((pair for pairs in todo for pair in pairs), compare_texts)
    return [
        partition(votes.wrong, [(pair[0], pair[1].text) for pair in pairs if equal[pair].reason is None])
        for (votes, _), pairs in zip(asked, todo, strict=True)
    ]


def _pairs(votes: Votes, reference: Reference | None) -> Iterator[Pair]:
    if not votes.is_open or not isinstance(reference, Answer):  # letters are equal by text
        return
    ordered = sorted(votes.wrong, key=lambda text: (-votes.wrong[text], text))[:MAX_COMPARED]
    for one, other in combinations(ordered, 2):
        for answer, wanted in ((one, other), (other, one)):
            yield answer, Answer(text=wanted, kind=reference.kind, precision=reference.precision)


def partition(counts: Mapping[str, int], equal: Iterable[tuple[str, str]]) -> list[int]:
    """Return the sizes, largest first, of the groups that pairs of equal texts join."""
    leader = {text: text for text in counts}

    def find(text: str) -> str:
        while leader[text] != text:
            leader[text] = leader[leader[text]]
            text = leader[text]
        return text

    for one, other in equal:
        leader[find(one)] = find(other)
    sizes: Counter[str] = Counter()
    for text, count in counts.items():
        sizes[find(text)] += count
    return sorted(sizes.values(), reverse=True)
