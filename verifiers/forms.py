"""Answers whose form counts: comparers for the kinds that a source names, without sympy.

Part of the mathematics ladder, rung "form". Each comparer takes answer and reference texts and returns None for equal,
or the reason why not. Exact, no eval. A reference that is not of its
own kind raises ``BadReferenceError``: the problem's fault, not the model's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import chain
from typing import Any, Final

from schemas.verdict import Reason
from verifiers.limits import MAX_FACTORS
from verifiers.parser import normal_form, parse
from verifiers.rationals import exact_or_none
from verifiers.terms import NotParsedError, Term, TooDeepError
from verifiers.words import as_words

Comparer = Callable[[str, str], Reason | None]

FENCE: Final = re.compile(r"\A```[a-z]*\n(.*?)\n?```\Z", re.DOTALL)
WRAPPED_TEXT: Final = re.compile(r"\A\\(?:text|mathrm|texttt|textbf|mathtt)\{(.*)\}\Z", re.DOTALL)


class BadReferenceError(ValueError):
    """The reference is not of the kind that its source claims."""


def bare(text: str) -> str:
    """Return a literal text without what models wrap around it: fences, ticks, $, \\text, quotes around all of it."""
    text = text.strip()
    if match := FENCE.match(text):
        text = match[1]
    for left, right in (("$$", "$$"), ("$", "$"), ("`", "`"), ("**", "**")):
        if len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right):
            text = text[len(left) : len(text) - len(right)].strip()
    if (match := WRAPPED_TEXT.match(text)) and "}" not in match[1]:
        text = match[1]
    return text.strip()


def compare_exact(answer: str, reference: str) -> Reason | None:
    """Compare character by character, but for runs of spaces within lines and space at their ends."""
    return None if _lines(bare(answer)) == _lines(bare(reference)) else Reason.VALUE_DIFFERS


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def compare_text(answer: str, reference: str) -> Reason | None:
    """Compare words: no case, no sentence punctuation, never a substring."""
    expected = as_words(bare(reference))
    if not expected:
        raise BadReferenceError(f"reference {reference!r} holds no words")
    return None if as_words(bare(answer)) == expected else Reason.VALUE_DIFFERS


def compare_json(answer: str, reference: str) -> Reason | None:
    """Compare JSON values; true is not 1, and the order of keys does not count."""
    try:
        expected = _canonical(json.loads(bare(reference)))
    except (ValueError, RecursionError) as error:
        raise BadReferenceError(f"reference {reference[:80]!r} is not JSON") from error
    try:
        found = _canonical(json.loads(bare(answer)))
    except (ValueError, RecursionError):
        return Reason.UNPARSED_ANSWER
    return None if found == expected else Reason.VALUE_DIFFERS


def _canonical(value: Any) -> Any:
    """Return the value with true, false and null marked: for Python true is 1."""
    if isinstance(value, bool) or value is None:
        return ("constant", str(value))
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def split_items(text: str) -> list[str] | None:
    """Return the items between one pair of brackets, or of a bare list, split at commas outside brackets."""
    text = bare(text).replace("\\left", "").replace("\\right", "").replace("\\{", "{").replace("\\}", "}")
    text = text.strip()
    if len(text) >= 2 and text[0] + text[-1] in ("()", "[]", "{}") and _closes_at_end(text):
        text = text[1:-1].strip()
    if not text:
        return []
    items, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth == 0:
            items.append(text[start:index])
            start = index + 1
    if depth != 0:
        return None
    items.append(text[start:])
    return [item.strip().strip("'\"").strip() for item in items]


def _closes_at_end(text: str) -> bool:
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


def _items(text: str) -> list[Any] | None:
    """Return the items as exact numbers where they are numbers, else as normal forms."""
    texts = split_items(text)
    return None if texts is None else [_value(item) for item in texts]


def _value(text: str) -> Any:
    term = _term(text)
    value = None if term is None else exact_or_none(term)
    return normal_form(text) if value is None else value


def _term(text: str) -> Term | None:
    try:
        return parse(text)
    except (NotParsedError, TooDeepError, RecursionError):
        return None


def compare_tuple(answer: str, reference: str) -> Reason | None:
    """Compare items in order: exact numbers, else normal forms. Quotes and the kind of bracket do not count."""
    return _compare_items(answer, reference, is_ordered=True)


def compare_set(answer: str, reference: str) -> Reason | None:
    """Compare items in any order, each as often as in the reference."""
    return _compare_items(answer, reference, is_ordered=False)


def _compare_items(answer: str, reference: str, *, is_ordered: bool) -> Reason | None:
    expected, found = _items(reference), _items(answer)
    if expected is None:
        raise BadReferenceError(f"reference {reference[:80]!r} has unbalanced brackets")
    if found is None:
        return Reason.UNPARSED_ANSWER
    if len(found) != len(expected):
        return Reason.LENGTH_DIFFERS
    is_same = found == expected if is_ordered else Counter(found) == Counter(expected)
    return None if is_same else Reason.VALUE_DIFFERS


def compare_reduced_fraction(answer: str, reference: str) -> Reason | None:
    """Compare numerator and denominator as written: 6/8 is not 3/4."""
    expected = _top_and_bottom(reference)
    if expected is None:
        raise BadReferenceError(f"reference {reference!r} is not a fraction")
    found = _top_and_bottom(answer)
    if found is None:
        return Reason.UNPARSED_ANSWER
    return None if found == expected else Reason.VALUE_DIFFERS


def _top_and_bottom(text: str) -> tuple[int, int] | None:
    """Return numerator and denominator as written, the sign with the numerator."""
    term = _term(bare(text))
    sign = 1
    while term is not None and term.op == "neg":
        term, sign = term.args[0], -sign
    if term is None:
        return None
    if term.op == "number" and term.value.denominator == 1:
        return sign * int(term.value), 1
    if term.op != "div" or any(arg.op != "number" or arg.value.denominator != 1 for arg in term.args):
        return None
    return sign * int(term.args[0].value), int(term.args[1].value)


def compare_factors(answer: str, reference: str) -> Reason | None:
    """Compare factorisations: the same factors as often, in any order and with any product sign; powers count."""
    expected = _factors(reference)
    if expected is None:
        raise BadReferenceError(f"reference {reference!r} is not a product of integers")
    found = _factors(answer)
    if found is None:
        return Reason.UNPARSED_ANSWER
    return None if found == expected else Reason.VALUE_DIFFERS


def _factors(text: str) -> Counter[int] | None:
    term = _term(bare(text))
    if term is None:
        return None
    factors: Counter[int] = Counter()
    parts = term.args if term.op == "mul" else (term,)
    for part in parts:
        base, power = (part.args[0], part.args[1]) if part.op == "pow" else (part, None)
        if base.op != "number" or base.value.denominator != 1 or (power is not None and power.op != "number"):
            return None
        count = 1 if power is None else power.value
        if count.denominator != 1 or not 0 < count <= MAX_FACTORS:
            return None
        factors[int(base.value)] += int(count)
    return factors if len(parts) <= MAX_FACTORS else None


def compare_reals(answer: str, reference: str, precision: Fraction) -> Reason | None:
    """Compare grids of numbers, row by row, each within ``precision``."""
    expected, found = _grid(reference), _grid(answer)
    if expected is None:
        raise BadReferenceError(f"reference {reference[:80]!r} is not a grid of numbers")
    if found is None:
        return Reason.UNPARSED_ANSWER
    if [len(row) for row in found] != [len(row) for row in expected]:
        return Reason.LENGTH_DIFFERS
    pairs = zip(chain.from_iterable(found), chain.from_iterable(expected), strict=True)
    return None if all(abs(a - b) <= precision for a, b in pairs) else Reason.VALUE_DIFFERS


def _grid(text: str) -> list[list[Fraction]] | None:
    rows = []
    for line in bare(text).splitlines():
        row = []
        for word in line.replace(",", " ").strip("[] ").split():
            term = _term(word)
            value = None if term is None else exact_or_none(term)
            if value is None:
                return None
            row.append(Fraction(int(value.p), int(value.q)))
        rows.append(row)
    return rows


COMPARERS: Final[dict[str, Comparer]] = {
    "text": compare_text,
    "exact": compare_exact,
    "json": compare_json,
    "tuple": compare_tuple,
    "set": compare_set,
    "reduced_fraction": compare_reduced_fraction,
    "factors": compare_factors,
}
BLOCK_KINDS: Final = frozenset({"exact", "json", "grid"})  # answers that may take several lines
