"""Answers as most of them are written, read without a parser: whole numbers, decimals, fractions, a root, pi, pairs.

First rung of the mathematics ladder after the string itself: exact, decides both ways, some microseconds. Anything it
does not know at a glance is None, and goes to ``parser``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from flint import fmpq, fmpz

from verifiers.limits import EXACT_DECIMAL_DIGITS, MAX_PLAIN_CHARS, MAX_PLAIN_DIGITS
from verifiers.tokens import DIGIT_COMMA


class Monomial(NamedTuple):
    """coefficient * sqrt(radicand) * pi^num_pi, the radicand free of squares: equal values are equal tuples."""

    coefficient: fmpq
    radicand: int
    num_pi: int


_DIGITS: Final = rf"\d{{1,{MAX_PLAIN_DIGITS}}}"
_WHOLE: Final = rf"[1-9]\d{{0,2}}(?:(?:,|\{{,\}}|,\\!)\d{{3}})+(?!\d)|{_DIGITS}"
_DECIMALS: Final = rf"\.\d{{1,{EXACT_DECIMAL_DIGITS - 1}}}"  # longer ones may be printed doubles


def _factors(name: str) -> str:
    root = rf"\\sqrt\s?(?:\{{\s?(?P<{name}_root>\d{{1,15}})\s?\}}|(?P<{name}_digit>\d))"
    return rf"(?P<{name}>{_WHOLE})?(?P<{name}_decimals>{_DECIMALS})?\s?(?:{root})?\s?(?P<{name}_pi>\\pi)?"


INTEGER: Final = re.compile(r"\s*(-?)(\d{1,200})\s*", re.ASCII)
PRODUCT: Final = re.compile(rf"\s*(?P<sign>-?)\s?{_factors('top')}\s*", re.ASCII)
FRACTION: Final = re.compile(
    rf"\s*(?P<sign>-?)\s?\\[dt]?frac\s?\{{\s?(?P<minus>-?)\s?{_factors('top')}\s?\}}\s?\{{\s?(?P<bottom>{_DIGITS})\s?\}}"
    rf"\s?{_factors('behind')}\s*",
    re.ASCII,
)
QUOTIENT: Final = re.compile(rf"\s*(?P<sign>-?)(?P<top>{_DIGITS})/(?P<bottom>{_DIGITS})\s*", re.ASCII)
PAIR: Final = re.compile(r"\s*(?:\\left\s?)?\(([^()]*[^()\\])(?:\\right\s?)?\)\s*")
MARKS: Final = re.compile(r"[^\d]+")


def read_plain(text: str) -> tuple[Monomial, ...] | None:
    """Return the one number, or the pair of numbers in round brackets, that a text is; None for anything else."""
    if len(text) > MAX_PLAIN_CHARS:
        return None
    number = _read_number(text)
    if number is not None:
        return (number,)
    if "(" not in text or (pair := PAIR.fullmatch(text)) is None or DIGIT_COMMA.search(text):
        return None
    first, comma, second = pair[1].partition(",")
    left, right = _read_number(first), _read_number(second)
    return None if not comma or left is None or right is None else (left, right)


def _read_number(text: str) -> Monomial | None:
    if (match := INTEGER.fullmatch(text)) is not None:
        return Monomial(fmpq(int(match[1] + match[2])), 1, 0)
    if (match := QUOTIENT.fullmatch(text)) is not None:
        return _signed(match, fmpq(int(match["top"])), int(match["bottom"]))
    if (match := PRODUCT.fullmatch(text)) is not None:
        return _product(match, 1)
    if "frac" not in text or (match := FRACTION.fullmatch(text)) is None:
        return None
    if match["behind"] or match["behind_decimals"]:
        return None
    return _product(match, int(match["bottom"]))


def _product(match: re.Match[str], divisor: int) -> Monomial | None:
    """Return the product of what stands there: of nothing there is none."""
    groups: dict[str, str | None] = match.groupdict()
    whole, decimals = groups["top"], groups["top_decimals"]
    roots = [text for name in ("top", "behind") for text in (groups.get(f"{name}_root"), groups.get(f"{name}_digit"))]
    roots = [text for text in roots if text]
    num_pi = sum(bool(groups.get(f"{name}_pi")) for name in ("top", "behind"))
    if len(roots) > 1 or not (whole or decimals or roots or groups["top_pi"]):
        return None
    value = fmpq(int(whole if whole.isdecimal() else MARKS.sub("", whole))) if whole else fmpq(not decimals)
    if decimals:
        value += fmpq(int(decimals[1:]), 10 ** (len(decimals) - 1))
    return _signed(match, value, divisor, int(roots[0] or 1) if roots else 1, num_pi)


def _signed(match: re.Match[str], value: fmpq, divisor: int, radicand: int = 1, num_pi: int = 0) -> Monomial | None:
    if divisor == 0:
        return None
    outer, inner = square_part(radicand)
    value = value * outer / divisor
    if match["sign"]:
        value = -value
    if "minus" in match.re.groupindex and match["minus"]:
        value = -value
    return Monomial(value, inner, num_pi) if value != 0 else Monomial(value, 1, 0)


@lru_cache(maxsize=4_096)
def square_part(number: int) -> tuple[int, int]:
    """Return (a, b) with number = a * a * b, b free of squares; (0, 1) for 0. The number has at most 15 digits."""
    if number == 0:
        return 0, 1
    outer = inner = 1
    for prime, power in fmpz(number).factor():
        outer *= int(prime) ** (power // 2)
        inner *= int(prime) ** (power % 2)
    return outer, inner
