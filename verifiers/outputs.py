"""How a program's output, or a function's value, is compared with what a test expects.

Under ``code``, in the caller's process: expected values never go near the program. Texts are bytes. No rule falls back
on another. "tokens" is testlib's wcmp, "lines" its lcmp but for blanks within a line, "float" its rcmp with the
problem's own tolerances; "livecodebench" is that benchmark's own rule. "checker" runs a program and is not here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.problem import Compare

_NUMBER: Final = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
MAX_NUMBER_CHARS: Final = 400  # of a token compared as a number: a double has at most 309 digits before the point


def same_output(output: bytes, expected: bytes, compare: Compare) -> bool:
    """Return whether a program's output is the expected one by the problem's rule.

    Raises:
        ValueError: If the rule needs a program (mode "checker").
    """
    if output == expected and compare.mode != "float":
        return True
    match compare.mode:
        case "exact":
            return False
        case "tokens":
            return output.split() == expected.split()
        case "lines":
            return _lines(output) == _lines(expected)
        case "unordered_tokens":
            return Counter(output.split()) == Counter(expected.split())
        case "float":
            mine, wanted = output.split(), expected.split()
            return len(mine) == len(wanted) and all(map(_close_tokens, mine, wanted, [compare] * len(mine)))
        case "livecodebench":
            return _same_as_livecodebench(output, expected)
        case _:
            raise ValueError(f"mode={compare.mode!r} is not compared here")


def _lines(text: bytes) -> list[bytes]:
    """Return the lines without blanks at their ends, and without empty lines at the end."""
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _close_tokens(token: bytes, expected: bytes, compare: Compare) -> bool:
    if not (_is_number(token) and _is_number(expected)):
        return token == expected and token.lower().lstrip(b"+-") not in (b"nan", b"inf", b"infinity")
    return is_close(float(token), float(expected), compare)


def _is_number(token: bytes) -> bool:
    return len(token) <= MAX_NUMBER_CHARS and _NUMBER.match(token) is not None


def is_close(value: float, expected: float, compare: Compare) -> bool:
    """Return whether a number is within the absolute or the relative tolerance; NaN and infinity are close to nothing.

    Source: testlib's doubleCompare, with its own allowance of 1e-15 for the comparison itself.
    """
    try:
        value, expected = float(value), float(expected)
    except OverflowError:
        return value == expected
    if not (math.isfinite(value) and math.isfinite(expected)):
        return False
    return abs(value - expected) <= max(compare.abs_tol, compare.rel_tol * abs(expected)) + 1e-15


def _same_as_livecodebench(output: bytes, expected: bytes) -> bool:
    """Compare stripped lines, and where they differ their tokens as decimal numbers.

    Source: LiveCodeBench, lcb_runner/evaluation/testing_util.py, grade_stdio (version of July 2025).
    """
    mine, wanted = ([line.strip() for line in text.strip().split(b"\n")] for text in (output, expected))
    if len(mine) != len(wanted):
        return False
    return all(a == b or _same_decimals(a, b) for a, b in zip(mine, wanted, strict=True))


def _same_decimals(line: bytes, expected: bytes) -> bool:
    mine, wanted = line.split(), expected.split()
    if len(mine) != len(wanted) or any(len(token) > MAX_NUMBER_CHARS for token in (*mine, *wanted)):
        return False
    try:
        return [Decimal(token.decode()) for token in mine] == [Decimal(token.decode()) for token in wanted]
    except (InvalidOperation, UnicodeDecodeError):
        return False


def same_value(value: Any, expected: Any, compare: Compare) -> bool:
    """Return whether a function's value is the expected JSON value.

    Numbers by value, a tuple as a list (JSON has no other), keys of a mapping as text (JSON has no others); all else as
    Python compares it. In mode "float" numbers at any depth may differ by the tolerances, in mode "unordered_tokens"
    the order of the outermost list is free.
    """
    if compare.mode == "unordered_tokens" and isinstance(value, (list, tuple, set, frozenset)):
        return isinstance(expected, list) and _same_items(list(value), expected)
    return _same(value, expected, compare if compare.mode == "float" else None)


def _same(value: Any, expected: Any, tolerant: Compare | None) -> bool:
    if isinstance(expected, list):
        if not isinstance(value, (list, tuple)) or len(value) != len(expected):
            return False
        return all(_same(a, b, tolerant) for a, b in zip(value, expected, strict=True))
    if isinstance(expected, dict):
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        named = {_as_key(key): item for key, item in value.items()}
        return named.keys() == expected.keys() and all(_same(named[key], expected[key], tolerant) for key in expected)
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return False
    if tolerant is not None and _is_real(value) and _is_real(expected):
        return is_close(value, expected, tolerant)
    return bool(value == expected)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_key(key: Any) -> str:
    """Return a key as JSON writes it."""
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)


def _same_items(values: list[Any], expected: list[Any]) -> bool:
    """Return whether two lists hold the same items in any order."""
    return len(values) == len(expected) and sorted(map(_sort_key, values)) == sorted(map(_sort_key, expected))


def _sort_key(value: Any) -> str:
    """Return a text that is the same for the same values, whatever their order in sets and mappings."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, (int, float)):
        return repr(int(value)) if isinstance(value, int) or value.is_integer() else repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_sort_key, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_as_key(key)!r}:{_sort_key(item)}" for key, item in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "<" + ",".join(sorted(map(_sort_key, value))) + ">"
    return repr(value)
