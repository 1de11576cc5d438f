"""Numbers written out: exact values of plain literals, in LaTeX or plain notation, as Fractions.

Part of the mathematics ladder, rung "number". Invariant: exact or nothing; a text that is not wholly a literal is
None, never a guess. No float, no sympy, no eval.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from verifiers.limits import EXACT_DECIMAL_DIGITS, MAX_EXPONENT, MAX_LITERAL_DIGITS

_INT: Final = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,|,\\!|\\!,)\d{3})+|\d+)"
_DEC: Final = rf"(?:{_INT}(?:\.\d*)?|\.\d+)"
DECIMAL: Final = re.compile(rf"([+-]?)({_DEC})", re.ASCII)
SCIENTIFIC: Final = re.compile(
    rf"([+-]?)({_DEC})(?:[eE]([+-]?\d{{1,9}})|(?:\\times|\\cdot|\*|×)10(?:\^|\*\*)\{{?([+-]?\d{{1,9}})\}}?)",
    re.ASCII,
)
FRACTION: Final = re.compile(rf"([+-]?)(?:\\frac\{{([+-]?{_DEC})\}}\{{([+-]?{_DEC})\}}|({_DEC})/({_DEC}))", re.ASCII)
MIXED: Final = re.compile(rf"([+-]?)({_INT})\\frac\{{(\d+)\}}\{{(\d+)\}}", re.ASCII)
COMPLEX: Final = re.compile(r"([+-]?[^+-]*[^+\-eE*^{])??([+-]?[^+-]*)i")


@dataclass(frozen=True, slots=True)
class Literal:
    """A number written out: its value, the imaginary part, and what its notation says.

    ``num_decimals`` is the count of digits after the point, None unless it is a plain decimal; ``num_digits`` counts
    its significant ones. ``is_percent`` numbers have been divided by 100 already.
    """

    value: Fraction
    imaginary: Fraction = Fraction(0)
    num_decimals: int | None = None
    num_digits: int = 0
    is_percent: bool = False


class TooManyDigitsError(ValueError):
    """A literal beyond ``MAX_LITERAL_DIGITS`` or ``MAX_EXPONENT``: it is a number, but not one to compute with."""


def read_literal(text: str) -> Literal | None:
    """Return the number that the whole of a normalised text (no spaces, \\frac with braces) stands for, or None.

    Raises:
        TooManyDigitsError: If it is a literal that is too large to compute with.
    """
    body, is_percent = text, False
    if body.endswith(("\\%", "%")):
        body, is_percent = body[: -2 if body.endswith("\\%") else -1], True
    real = _read_real(body)
    if real is None:
        return None if is_percent else _read_complex(body)
    if is_percent:
        return Literal(real.value / 100, is_percent=True)
    return real


def _read_real(text: str) -> Literal | None:
    if not text or text[-1] not in "0123456789.}":
        return None
    if len(text) > MAX_LITERAL_DIGITS and re.fullmatch(r"[+-]?[\d.,/]+", text):
        raise TooManyDigitsError(f"{len(text)} characters, allowed are {MAX_LITERAL_DIGITS}")
    if match := DECIMAL.fullmatch(text):
        digits = _plain(match[2])
        decimals = len(digits.partition(".")[2]) if "." in digits else None
        num_digits = len(digits.replace(".", "").lstrip("0"))
        return Literal(_signed(match[1], Fraction(digits)), num_decimals=decimals, num_digits=num_digits)
    if match := SCIENTIFIC.fullmatch(text):
        exponent = int(match[3] or match[4])
        if abs(exponent) > MAX_EXPONENT:
            raise TooManyDigitsError(f"exponent {exponent}, allowed are {MAX_EXPONENT}")
        return Literal(_signed(match[1], Fraction(_plain(match[2])) * Fraction(10) ** exponent))
    if match := MIXED.fullmatch(text):
        whole, top, bottom = int(_plain(match[2])), int(match[3]), int(match[4])
        return Literal(_signed(match[1], whole + Fraction(top, bottom))) if bottom else None
    if match := FRACTION.fullmatch(text):
        numerator, denominator = (Fraction(_plain(part)) for part in (match[2] or match[4], match[3] or match[5]))
        return Literal(_signed(match[1], numerator / denominator)) if denominator else None
    return None


def _read_complex(text: str) -> Literal | None:
    """Return a + b i with literal parts. ``i`` alone may be the unit or a variable: it counts as the unit here."""
    match = COMPLEX.fullmatch(text.replace("\\mathrm{i}", "i").replace("\\text{i}", "i").removesuffix("*"))
    if match is None:
        return None
    real = Literal(Fraction(0)) if not match[1] else _read_real(match[1])
    imaginary_text = match[2].removesuffix("*")
    if imaginary_text in ("", "+", "-"):
        imaginary_text += "1"
    imaginary = _read_real(imaginary_text)
    if real is None or imaginary is None:
        return None
    return Literal(real.value, imaginary.value)


def _plain(text: str) -> str:
    """Return the digits without grouping marks."""
    if text.isdecimal() and text.isascii():
        return text
    return re.sub(r"[^\d.+-]", "", text).rstrip(".") or "0"


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def is_same_number(answer: Literal, reference: Literal, precision: Fraction | None = None) -> bool:
    """Return whether two literals are the same number.

    Exact, or within ``precision`` (absolute) where the source states one. One side may be the printed double of the
    other: a decimal of at least ``EXACT_DECIMAL_DIGITS`` digits that is the other's value rounded or cut to its digits.
    """
    if answer.imaginary != reference.imaginary:
        return False
    difference = abs(answer.value - reference.value)
    if difference == 0:
        return True
    if precision is not None:
        return difference <= precision
    return _is_printed_double(answer, reference.value) or _is_printed_double(reference, answer.value)


def _is_printed_double(literal: Literal, value: Fraction) -> bool:
    if literal.num_decimals is None or literal.num_digits < EXACT_DECIMAL_DIGITS:
        return False
    if (value * Fraction(10) ** EXACT_DECIMAL_DIGITS).denominator == 1:
        return False  # it could have been written out
    return abs(literal.value - value) < Fraction(1, 10**literal.num_decimals)
