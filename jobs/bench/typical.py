"""Made-up cases as a run meets most of them: whole numbers, fractions, roots and points, boxed after a long trace.

For `factory bench math --typical N`. The mix is that of the note behind the targets: 55 % integers, 20 % fractions,
15 % square roots, 10 % pairs, each about half right and half nearly right, after some 3,400 characters. The same seed
gives the same cases.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

TRACE_CHARS: Final = 3_400  # of reasoning before the answer
SEED: Final = 11
STEPS: Final = (
    "First I write down what is given, $a_{n} = {a}n + {b}$, and look at small cases.",
    "Then \\[ {a}x^2 + {b}x = x({a}x + {b}), \\] so one factor vanishes when $x = 0$.",
    "Substituting back gives ${a} \\cdot {b} = {c}$, which agrees with the bound from before.",
    "Wait, let me check this once more: the sum of the first {a} terms is not {b} but {c}.",
    "Since both sides are positive, we may square them and compare, which leaves {b} cases.",
)


class Sample(NamedTuple):
    """A completion with its reference, whether it is right, and which of the four kinds it is."""

    completion: str
    reference: str
    is_right: bool
    kind: str


class _Answer(NamedTuple):
    reference: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def typical_samples(count: int, seed: int = SEED) -> list[Sample]:
    """Return so many samples."""
    dice = random.Random(seed)
    makers = {"integer": _integer, "fraction": _fraction, "root": _root, "pair": _pair}
    samples = []
    for kind in dice.choices(list(makers), weights=(55, 20, 15, 10), k=count):
        answer = makers[kind](dice)
        is_right = dice.random() < 0.5
        shown = dice.choice(answer.right if is_right else answer.wrong)
        samples.append(
            Sample(f"{_trace(dice)}\n\nThe answer is $\\boxed{{{shown}}}$.", answer.reference, is_right, kind)
        )
    return samples


def _trace(dice: random.Random) -> str:
    parts: list[str] = []
    while sum(map(len, parts)) < TRACE_CHARS:
        step = dice.choice(STEPS)
        for name in ("a", "b", "c"):
            step = step.replace("{" + name + "}", str(dice.randint(2, 99)))
        parts.append(step)
    return "\n".join(parts)


def _integer(dice: random.Random) -> _Answer:
    value = dice.choice((dice.randint(1, 999), dice.randint(1_000, 999_999)))
    return _Answer(
        str(value), (str(value), f"{value:,}", f"{value:,}".replace(",", "{,}")), (str(value + 1), f"-{value}")
    )


def _fraction(dice: random.Random) -> _Answer:
    top, bottom = dice.randint(1, 40), dice.choice((3, 7, 11, 13, 17, 19))
    while top % bottom == 0:
        top += 1
    right = (f"\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}")
    return _Answer(
        right[0], (*right, f"\\frac{{{3 * top}}}{{{3 * bottom}}}"), (f"\\frac{{{bottom}}}{{{top}}}", f"{top}")
    )


def _root(dice: random.Random) -> _Answer:
    outer, inner = dice.randint(2, 12), dice.choice((2, 3, 5, 6, 7, 10, 11))
    right = (f"{outer}\\sqrt{{{inner}}}", f"\\sqrt{{{outer * outer * inner}}}", f"{outer} \\sqrt {{{inner}}}")
    return _Answer(
        right[0], right, (f"{outer + 1}\\sqrt{{{inner}}}", f"{outer}\\sqrt{{{inner + 1}}}", f"{outer * inner}")
    )


def _pair(dice: random.Random) -> _Answer:
    first, second = dice.randint(-20, 20), dice.randint(21, 50)
    right = (f"({first},{second})", f"({first}, {second})", f"\\left({first},{second}\\right)")
    return _Answer(right[1], right, (f"({second}, {first})", f"({first}, {second + 1})", f"[{first}, {second}]"))
