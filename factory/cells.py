"""Values in the rows of known datasets: what a column holds, or a ``RowError`` that names the column and says why not.

Serves `mappings`, `programs` and `tracesets`. Invariant: any value gives what was asked for or a ``RowError``; JSON
inside a column is data from anywhere, bounded before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from factory.rows import MISSING, NumberLiteral, RowError, column_names, listed, lookup, shown
from schemas.problem import QuarantineReason

MAX_JSON_CHARS: Final = 16 << 20  # of JSON inside a text column

Body = Mapping[str, Any]


def get_value(body: Body, column: str) -> Any:
    value = lookup(body, column)
    if value is MISSING:
        there = listed(column_names(body))
        raise RowError(QuarantineReason.MISSING_COLUMN, f"column {column!r} is missing; the row has {there or 'none'}")
    return value


def get_text(body: Body, column: str) -> str:
    value = get_value(body, column)
    if not isinstance(value, str) or isinstance(value, NumberLiteral) or not value.strip():
        raise bad_value(column, value, "must be a text that is not empty")
    return value


def get_list(body: Body, column: str) -> list[Any]:
    return as_list(get_value(body, column), column)


def as_list(value: Any, column: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_value(column, value, "must be a list")
    return value


def get_json(body: Body, column: str) -> Any:
    value = get_value(body, column)
    return load_json(value, column) if isinstance(value, str) else value


def load_json(text: str, column: str) -> Any:
    if len(text) > MAX_JSON_CHARS:
        raise bad_value(column, text, f"is longer than {MAX_JSON_CHARS} characters")
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text, and fits into no file
    except (ValueError, RecursionError) as error:
        raise bad_value(column, text, "is not JSON that can be read") from error
    return value


def dump_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(QuarantineReason.BAD_VALUE, f"a test value {shown(value)} is no JSON") from error


def pairs_of(given: Any, expected: Any, column: str) -> list[tuple[Any, Any]]:
    given, expected = as_list(given, column), as_list(expected, column)
    if len(given) != len(expected):
        raise bad_value(column, len(given), f"inputs stand beside {len(expected)} outputs")
    return list(zip(given, expected, strict=True))


def join_lines(value: Any) -> str:
    """Return what is fed to or expected from a program: a text, or a list of its lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def number_of(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 <= number < 1e12 else 0.0


def bad_value(column: str, value: Any, problem: str) -> RowError:
    return RowError(QuarantineReason.BAD_VALUE, f"column {column!r}: {shown(value)} {problem}")
