"""Arrow schemas of everything inside a run, and the way of each record to and from them.

Explicit, versioned, never inferred: a file says in its metadata which schema and version it has. A reader takes its own
version and those listed in ``READABLE``; anything else is refused with the reason. Times are timestamps in
microseconds, UTC. The public tables have schemas of their own in ``schemas/tables.py``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.errors import SchemaVersionError
from schemas.problem import (
    Domain,
    Evidence,
    Message,
    Problem,
    Prompt,
    Quarantined,
    QuarantineReason,
    reference_from_json,
    reference_to_json,
)
from schemas.trace import FinishReason, Trace, TraceFormat, Untraced, make_trace_id
from schemas.verdict import Check, CodeDetail, Detail, JudgedTrace, MathDetail, Outcome, Reason, TextDetail, Verdict

VERSION_KEY: Final = b"factory_schema"


def _schema(name: str, version: int, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{name}/{version}".encode()})


def _column(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


MESSAGES_TYPE: Final = pa.list_(pa.struct([_column("role", pa.string()), _column("content", pa.string())]))
TOKENS_TYPE: Final = pa.list_(pa.int32())
TIME_TYPE: Final = pa.timestamp("us", tz="UTC")

PROBLEMS: Final = _schema(
    "problems",
    2,
    [
        _column("problem_id", pa.string()),
        _column("domain", pa.string()),
        _column("messages", MESSAGES_TYPE),
        _column("language", pa.string()),
        _column("source", pa.string()),
        _column("source_row_id", pa.string()),
        _column("source_revision", pa.string(), nullable=True),
        _column("license", pa.string()),
        _column("reference", pa.string(), nullable=True),  # JSON: the one column that is, for its many shapes
        _column("reference_hash", pa.string(), nullable=True),
        _column("prompt_text", pa.string()),  # exactly what the teacher is given
        _column("prompt_sha256", pa.string()),
        _column("prompt_token_ids", TOKENS_TYPE),
    ],
)

QUARANTINE: Final = _schema(
    "quarantine",
    2,
    [
        _column("source", pa.string()),
        _column("row", pa.int64()),
        _column("reason", pa.string()),
        _column("detail", pa.string()),
        _column("raw", pa.string()),
        _column("problem_id", pa.string(), nullable=True),
        pa.field(
            "evidence",
            pa.struct(
                [
                    _column("of", pa.string()),
                    _column("item", pa.string()),
                    _column("rule", pa.string()),
                    _column("share", pa.float64()),
                ]
            ),
        ),
    ],
)

TRACES: Final = _schema(
    "traces",
    2,
    [
        _column("trace_id", pa.string()),
        _column("fingerprint", pa.string()),
        _column("problem_id", pa.string()),
        _column("sample_index", pa.int16()),
        _column("format", pa.string()),
        _column("text", pa.string()),
        _column("token_ids", TOKENS_TYPE),
        _column("finish_reason", pa.string()),
        _column("finish_detail", pa.string(), nullable=True),
        _column("stop_token", pa.string(), nullable=True),
        _column("num_prompt_tokens", pa.int32()),
        _column("num_completion_tokens", pa.int32()),
        _column("num_reasoning_tokens", pa.int32(), nullable=True),
        _column("seed", pa.int64(), nullable=True),
        _column("teacher", pa.string()),
        _column("teacher_revision", pa.string()),
        _column("engine", pa.string()),
        _column("engine_version", pa.string()),
        _column("engine_id", pa.string()),
        _column("submitted_at", TIME_TYPE),
        _column("first_token_at", TIME_TYPE, nullable=True),
        _column("finished_at", TIME_TYPE),
        _column("resumed_at", TOKENS_TYPE),
        _column("label", pa.bool_(), nullable=True),
        _column("label_answer", pa.string(), nullable=True),
    ],
)

TEXT_TYPE: Final = pa.struct(
    [
        _column("num_think_chars", pa.int64()),
        _column("num_response_chars", pa.int64()),
        _column("num_words", pa.int64()),
        _column("num_reflections", pa.int64()),
        _column("think_consistency", pa.float64()),
        _column("response_consistency", pa.float64()),
        _column("compression", pa.float64()),
        _column("tail_compression", pa.float64()),
        _column("longest_paragraph", pa.int64()),
        _column("num_boxes", pa.int64()),
        _column("num_chars_after_box", pa.int64()),
    ]
)

CHECK_TYPE: Final = pa.struct(
    [
        _column("name", pa.string()),
        _column("version", pa.string()),
        _column("outcome", pa.string()),
        _column("reason", pa.string(), nullable=True),
        _column("start", pa.int64(), nullable=True),
        _column("end", pa.int64(), nullable=True),
        _column("value", pa.float64(), nullable=True),
        _column("threshold", pa.float64(), nullable=True),
        _column("ms", pa.float64()),
        pa.field(
            "math",
            pa.struct(
                [
                    _column("rung", pa.string()),
                    _column("extracted", pa.string(), nullable=True),
                    _column("answer_form", pa.string(), nullable=True),
                    _column("reference_form", pa.string(), nullable=True),
                ]
            ),
        ),
        pa.field(
            "code",
            pa.struct(
                [
                    _column("tier", pa.string()),
                    _column("tests_run", pa.int32()),
                    _column("tests_passed", pa.int32()),
                    _column("cpu_ms", pa.float64()),
                    _column("peak_mb", pa.float64()),
                ]
            ),
        ),
        pa.field("text", TEXT_TYPE),
    ]
)

VERDICTS: Final = _schema(
    "verdicts",
    2,
    [
        _column("trace_id", pa.string()),
        _column("problem_id", pa.string()),
        _column("reference_hash", pa.string(), nullable=True),
        _column("outcome", pa.string()),
        _column("reason", pa.string(), nullable=True),
        _column("is_correct", pa.bool_(), nullable=True),
        _column("checks", pa.list_(CHECK_TYPE)),
    ],
)

UNTRACED: Final = _schema(
    "untraced",
    1,
    [
        _column("trace_id", pa.string()),
        _column("problem_id", pa.string()),
        _column("sample_index", pa.int16()),
        _column("ending", pa.string()),  # failed | cancelled
        _column("reason", pa.string()),
        _column("detail", pa.string()),
        _column("num_tokens", pa.int64()),  # generated and thrown away
    ],
)

# Versions of each schema that this code reads; an older one must need no more than nulls (`upgraded`).
READABLE: Final[dict[str, tuple[int, ...]]] = {
    "problems": (1, 2),  # 1: without the revision of the source
    "quarantine": (1, 2),  # 1: without evidence
    "traces": (2,),
    "verdicts": (1, 2),  # 1: without the statistics of a text
    "untraced": (1,),
}


def check_schema(seen: pa.Schema, expected: pa.Schema, *, where: str) -> None:
    """Check that a file can be read as ``expected``.

    Raises:
        SchemaVersionError: If its name, version or columns are others; says which.
    """
    label = (seen.metadata or {}).get(VERSION_KEY, b"none").decode("utf-8", "replace")
    name = expected.metadata[VERSION_KEY].decode().partition("/")[0]
    allowed = [f"{name}/{version}" for version in READABLE[name]]
    if label not in allowed:
        raise SchemaVersionError(
            f"{where}: has schema {label}, this version of the factory reads {', '.join(allowed)}; "
            "use the version of the factory that wrote the run (run.yaml names it)"
        )
    if label == expected.metadata[VERSION_KEY].decode() and not seen.equals(expected):
        odd = sorted(set(seen.names) ^ set(expected.names)) or [f.name for f in expected if seen.field(f.name) != f]
        raise SchemaVersionError(f"{where}: says {label} but differs in {', '.join(odd)}; the file was changed by hand")


def upgraded(table: pa.Table, expected: pa.Schema, columns: Collection[str] | None = None) -> pa.Table:
    """Return a table of an older version as one of today's, with these columns of it: what it has not is null."""
    names = [name for name in expected.names if columns is None or name in columns]
    wanted = pa.schema([expected.field(name) for name in names], metadata=expected.metadata)
    for name in names:
        if name not in table.column_names:
            table = table.append_column(expected.field(name), pa.nulls(table.num_rows, expected.field(name).type))
    table = table.select(names)
    return table if table.schema.equals(wanted) else pa.Table.from_pylist(table.to_pylist(), schema=wanted)


def _rows_to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def problems_to_table(pairs: Iterable[tuple[Problem, Prompt]]) -> pa.Table:
    """Return problems with their rendered prompts as a ``PROBLEMS`` table."""
    return _rows_to_table(
        [
            {
                "problem_id": problem.problem_id,
                "domain": str(problem.domain),
                "messages": [{"role": m.role, "content": m.content} for m in problem.messages],
                "language": problem.language,
                "source": problem.source,
                "source_row_id": problem.source_row_id,
                "source_revision": problem.source_revision,
                "license": problem.license,
                "reference": None
                if problem.reference is None
                else json.dumps(reference_to_json(problem.reference), ensure_ascii=False, sort_keys=True),
                "reference_hash": problem.reference_hash,
                "prompt_text": prompt.text,
                "prompt_sha256": prompt.sha256,
                "prompt_token_ids": prompt.token_ids,
            }
            for problem, prompt in pairs
        ],
        PROBLEMS,
    )


def problem_from_row(row: dict[str, Any]) -> Problem:
    """Return the problem of one ``PROBLEMS`` row."""
    reference = row["reference"]
    return Problem(
        domain=Domain(row["domain"]),
        messages=tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"]),
        language=row["language"],
        source=row["source"],
        source_row_id=row["source_row_id"],
        source_revision=row["source_revision"],
        license=row["license"],
        reference=None if reference is None else reference_from_json(json.loads(reference)),
    )


def prompt_from_row(row: dict[str, Any]) -> Prompt:
    """Return the rendered prompt of one ``PROBLEMS`` row."""
    return Prompt(
        problem_id=row["problem_id"],
        text=row["prompt_text"],
        sha256=row["prompt_sha256"],
        token_ids=tuple(row["prompt_token_ids"]),
    )


def quarantine_to_table(rows: Iterable[Quarantined]) -> pa.Table:
    """Return quarantined rows as a ``QUARANTINE`` table."""
    names = QUARANTINE.names
    return _rows_to_table(
        [
            {
                **{n: getattr(row, n) for n in names},
                "reason": str(row.reason),
                "evidence": None if row.evidence is None else asdict(row.evidence),
            }
            for row in rows
        ],
        QUARANTINE,
    )


def quarantine_from_table(table: pa.Table) -> list[Quarantined]:
    """Return the quarantined rows of a ``QUARANTINE`` table."""
    return [
        Quarantined(
            **{
                **row,
                "reason": QuarantineReason(row["reason"]),
                "evidence": None if row.get("evidence") is None else Evidence(**row["evidence"]),
            }
        )
        for row in table.to_pylist()
    ]


_TIMES: Final = ("submitted_at", "first_token_at", "finished_at")


def traces_to_table(traces: Iterable[Trace]) -> pa.Table:
    """Return traces as a ``TRACES`` table."""
    rows = list(traces)
    columns: list[pa.Array] = []
    for column in TRACES:
        source = f"{column.name}_us" if column.name in _TIMES else column.name
        values = [getattr(row, source) for row in rows]
        if column.name in ("format", "finish_reason"):
            values = [str(value) for value in values]
        columns.append(pa.array(values, type=column.type))
    return pa.Table.from_arrays(columns, schema=TRACES)


def trace_table(headers: Sequence[Mapping[str, Any]], texts: Sequence[bytes], tokens: Sequence[bytes]) -> pa.Table:
    """Return a ``TRACES`` table of traces in parts: their small fields, UTF-8 texts, little-endian int32 token ids."""
    ends = np.cumsum([0, *map(len, tokens)]) // 4
    columns: dict[str, pa.Array] = {
        "trace_id": [make_trace_id(h["fingerprint"], h["problem_id"], h["sample_index"]) for h in headers],
        "text": texts,
        "token_ids": pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), pa.array(np.frombuffer(b"".join(tokens), "<i4"), pa.int32())
        ),
    }
    for column in TRACES:
        if column.name not in columns:
            source = f"{column.name}_us" if column.name in _TIMES else column.name
            columns[column.name] = [header[source] for header in headers]
    arrays = [pa.array(columns[column.name], type=column.type) for column in TRACES]
    return pa.Table.from_arrays(arrays, schema=TRACES)


def traces_from_table(table: pa.Table) -> Iterator[Trace]:
    """Yield the traces of a ``TRACES`` table."""
    for name in _TIMES:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, f"{name}_us", table.column(index).cast(pa.int64()))
    for row in table.drop_columns(["trace_id"]).to_pylist():
        row["format"] = TraceFormat(row["format"])
        row["finish_reason"] = FinishReason(row["finish_reason"])
        row["token_ids"] = tuple(row["token_ids"])
        row["resumed_at"] = tuple(row["resumed_at"])
        yield Trace(**row)


DETAILS: Final[dict[str, type[Detail]]] = {"math": MathDetail, "code": CodeDetail, "text": TextDetail}


def _check_to_row(check: Check) -> dict[str, Any]:
    detail = check.detail
    return {
        "name": check.name,
        "version": check.version,
        "outcome": str(check.outcome),
        "reason": None if check.reason is None else str(check.reason),
        "start": check.start,
        "end": check.end,
        "value": check.value,
        "threshold": check.threshold,
        "ms": check.ms,
        **{
            name: {n: getattr(detail, n) for n in detail.__slots__} if isinstance(detail, kind) else None
            for name, kind in DETAILS.items()
        },
    }


def _check_from_row(row: dict[str, Any]) -> Check:
    details = [kind(**row[name]) for name, kind in DETAILS.items() if row[name] is not None]
    return Check(
        name=row["name"],
        version=row["version"],
        outcome=Outcome(row["outcome"]),
        reason=None if row["reason"] is None else Reason(row["reason"]),
        start=row["start"],
        end=row["end"],
        value=row["value"],
        threshold=row["threshold"],
        ms=row["ms"],
        detail=details[0] if details else None,
    )


def verdicts_to_table(judged: Iterable[JudgedTrace]) -> pa.Table:
    """Return verdicts as a ``VERDICTS`` table; outcome, reason and is_correct are written out for queries."""
    return _rows_to_table(
        [
            {
                "trace_id": item.trace_id,
                "problem_id": item.problem_id,
                "reference_hash": item.verdict.reference_hash,
                "outcome": str(item.verdict.outcome),
                "reason": None if item.verdict.reason is None else str(item.verdict.reason),
                "is_correct": item.verdict.is_correct,
                "checks": [_check_to_row(check) for check in item.verdict.checks],
            }
            for item in judged
        ],
        VERDICTS,
    )


def verdicts_from_table(table: pa.Table) -> Iterator[JudgedTrace]:
    """Yield the verdicts of a ``VERDICTS`` table."""
    for row in table.to_pylist():
        checks = tuple(_check_from_row(check) for check in row["checks"])
        yield JudgedTrace(
            trace_id=row["trace_id"],
            problem_id=row["problem_id"],
            verdict=Verdict(reference_hash=row["reference_hash"], checks=checks),
        )


def untraced_to_table(rows: Iterable[Untraced]) -> pa.Table:
    """Return endings without a trace as an ``UNTRACED`` table."""
    return _rows_to_table([{n: getattr(row, n) for n in UNTRACED.names} for row in rows], UNTRACED)


def cancelled_table(trace_ids: Sequence[str], problem_ids: pa.Array, indices: Any, reason: str) -> pa.Table:
    """Return attempts that were cancelled for one reason before a token was made as an ``UNTRACED`` table."""
    same = {"ending": "cancelled", "reason": reason, "detail": "", "num_tokens": 0}
    columns = {"trace_id": trace_ids, "problem_id": problem_ids, "sample_index": indices}
    columns |= {name: pa.repeat(value, len(trace_ids)) for name, value in same.items()}
    return pa.table([pa.array(columns[f.name]).cast(f.type) for f in UNTRACED], schema=UNTRACED)


def untraced_from_table(table: pa.Table) -> list[Untraced]:
    """Return the endings of an ``UNTRACED`` table."""
    return [Untraced(**row) for row in table.to_pylist()]
