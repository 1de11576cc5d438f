"""Columns: a row of a file or dataset becomes a problem, by the mapping of the job file.

Part of the first step of the flow. Invariant: any row gives a problem or a ``RowError``, which `sources` turns into a
quarantined row; numbers keep the digits of the source.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from factory.mappings import READY, domain_of, license_of
from factory.rows import JSON_NAMES, MISSING, NumberLiteral, Row, RowError, column_names, listed, lookup, shown
from schemas.config import Columns, RowSource
from schemas.problem import Answer, Choice, Domain, Message, Problem, QuarantineReason, Reference, StdinTest, Tests

MAX_PLAIN_EXPONENT: Final = 100  # 1e100 is written out, 1e101 stays as it is: the answer must stay short
MAX_OPTIONS: Final = 26  # one letter each
_REWRITTEN: Final = ("problem", "messages", "answer", "letter", "options", "domain")  # what a known dataset's row gives
_ASK: Final = (
    "Write a {} program that reads standard input and writes standard output. Give it whole, in one ```{} block."
)
_ASK_FOR_PROGRAM: Final = {"python": _ASK.format("Python 3", "python"), "cpp": _ASK.format("C++17", "cpp")}


def column_problem(row: Row, source: RowSource, name: str) -> Problem:
    """Return the problem of a row; ``name`` becomes its source.

    Raises:
        RowError: If a mapped column is missing, or holds what no problem can be made of.
    """
    assert row.body is not None
    columns, body = _plain_columns(source.columns, row.body, source.program_language)
    domain = _optional(body, columns.domain)
    return Problem(
        domain=domain_of(source) if domain is None else _domain(domain, str(columns.domain)),
        messages=_messages(body, columns),
        language=_optional(body, columns.language) or source.language,
        source=name,
        source_row_id=_optional(body, columns.id) or row.row_id,
        source_revision=row.revision,
        license=_optional(body, columns.license) or license_of(source),
        reference=_reference(body, columns, source),
    )


def _plain_columns(columns: Columns, body: Mapping[str, Any], language: str) -> tuple[Columns, Mapping[str, Any]]:
    """Return columns and row as they are, or as a known dataset's mapping rewrites them."""
    if columns.ready is None:
        return columns, body
    rewritten = READY[columns.ready].rewrite(body)
    if isinstance(tests := rewritten.get("tests"), Tests):
        asks_itself = READY[columns.ready].asks_itself
        rewritten["tests"] = tests if asks_itself else replace(tests, language=language)
        if isinstance(tests.cases[0], StdinTest) and not asks_itself:
            rewritten["problem"] = f"{rewritten['problem'].rstrip()}\n\n{_ASK_FOR_PROGRAM[language]}"
    names: dict[str, Any] = {name: name for name in _REWRITTEN if name in rewritten}
    row_id = columns.id or ("id" if "id" in rewritten else None)
    plain = columns.model_copy(update={"ready": None, "id": row_id, **names})
    return plain, {**body, **rewritten}


def read_text(value: Any, column: str, *, allow_number: bool = False) -> str:
    """Return a text as it is, or a number in the digits of the source.

    Raises:
        RowError: If it is neither, is empty to the eye, or cannot be written as UTF-8.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        value = NumberLiteral(value)
    if isinstance(value, NumberLiteral):
        if not allow_number:
            raise _bad(column, value, "is a number, must be text")
        return _plain_number(value, column)
    if not isinstance(value, str):
        kind = JSON_NAMES.get(type(value), f"a {type(value).__name__}")
        raise _bad(column, value, f"is {kind}, must be text" + (" or a number" if allow_number else ""))
    # Categories Z and C: white space, controls, zero-width characters, unassigned code points.
    if all(unicodedata.category(char)[0] in "ZC" for char in value):
        raise _bad(column, value, "is empty")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _bad(column, value, "holds half of a surrogate pair, which is no text")
    return value


def _plain_number(literal: str, column: str) -> str:
    """Return the digits as written; an exponent is written out, since 1e5 is no mathematical notation."""
    try:
        number = Decimal(literal)
    except InvalidOperation:
        raise _bad(column, literal, "is no number that can be read") from None
    if not number.is_finite():
        raise _bad(column, literal, "is not a finite number")
    if "e" not in literal.lower() or abs(number.adjusted()) > MAX_PLAIN_EXPONENT:
        return str(literal)
    return f"{number:f}"


def _messages(body: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    if columns.problem is not None:
        question = read_text(_required(body, columns.problem), columns.problem)
        if columns.options is not None:
            question = _with_options(question, _options(body, columns.options))
        return (Message(role="user", content=question),)
    assert columns.messages is not None  # the config takes exactly one of the two
    turns = _required(body, columns.messages)
    if not isinstance(turns, list) or not turns:
        raise _bad(columns.messages, turns, "must be a list of {role, content}")
    messages = tuple(_message(turn, f"{columns.messages}.{i}") for i, turn in enumerate(turns))
    if messages[-1].role != "user":
        raise _bad(f"{columns.messages}.{len(turns) - 1}.role", messages[-1].role, "must be 'user' in the last turn")
    return messages


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
        raise _bad(where, turn, "must be {role, content}")
    content = read_text(turn["content"], f"{where}.content")
    try:
        return Message(role=turn["role"], content=content)
    except ValueError:
        raise _bad(f"{where}.role", turn["role"], "must be system, user or assistant") from None


def _with_options(question: str, options: Sequence[str]) -> str:
    """Return the question with its options as lettered lines, unless it shows every one of them already."""
    if all(option in question for option in options):
        return question
    lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]
    return question + "\n\n" + "\n".join(lines)


def _options(body: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = _required(body, column)
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_OPTIONS:
        raise _bad(column, value, f"must be a list of 2 to {MAX_OPTIONS} texts")
    return tuple(read_text(item, f"{column}.{i}", allow_number=True) for i, item in enumerate(value))


def _reference(body: Mapping[str, Any], columns: Columns, source: RowSource) -> Reference | None:
    tests = body.get("tests") if source.columns.ready is not None else None
    if isinstance(tests, Tests):
        return tests
    if columns.answer is not None:
        text = read_text(_required(body, columns.answer), columns.answer, allow_number=True).strip()
        return Answer(text=text, kind=source.answer_kind, precision=source.answer_precision)
    if columns.letter is None:
        return None
    letter = read_text(_required(body, columns.letter), columns.letter).strip().upper()
    options = () if columns.options is None else _options(body, columns.options)
    try:
        return Choice(letter=letter, options=options)
    except ValueError as error:
        raise RowError(QuarantineReason.BAD_VALUE, f"column {columns.letter!r}: {error}") from None


def _domain(text: str, column: str) -> Domain:
    try:
        return Domain(text.strip().lower())
    except ValueError:
        raise _bad(column, text, f"must be one of {', '.join(Domain)}") from None


def _required(body: Mapping[str, Any], column: str) -> Any:
    value = lookup(body, column)
    if value is MISSING:
        there = listed(column_names(body))
        raise RowError(QuarantineReason.MISSING_COLUMN, f"column {column!r} is missing; the row has {there or 'none'}")
    return value


def _optional(body: Mapping[str, Any], column: str | None) -> str | None:
    """Return the text of a column that says more about a problem; None where the row does not say."""
    value = None if column is None else lookup(body, column)
    if value is None or value is MISSING or value == "":
        return None
    return read_text(value, str(column), allow_number=True)


def _bad(column: str, value: Any, problem: str) -> RowError:
    what = "" if value is None else f"{shown(value)} "
    return RowError(QuarantineReason.BAD_VALUE, f"column {column!r}: {what}{problem}")
