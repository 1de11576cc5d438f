"""Candidates: a run's problems, traces and verdicts, brought together a bucket at a time.

First half of building tables, before anything is selected. Invariant: every trace becomes one candidate, with its
problem's columns and its verdict's where it has one; candidates come out by (problem_id, trace_id), all of a problem in
one table. Of a problem, or a verdict, that comes twice, the later one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory.buckets import BUCKET_BYTES, SPILL_BYTES, Buckets, group_starts, one_array, ranges
from factory.shards import row_bytes
from schemas.arrow import PROBLEMS, TRACES, VERDICTS
from schemas.errors import CorruptRunError, StoreError
from schemas.problem import Answer, Choice, reference_from_json
from schemas.tables import CHECK_ROW, FOUND
from schemas.trace import split_completion

# Columns of a run's own files that the tables need: all but the token ids, which are half of their bytes.
PROBLEM_COLUMNS: Final = [name for name in PROBLEMS.names if name not in ("prompt_text", "prompt_token_ids")]
TRACE_COLUMNS: Final = [name for name in TRACES.names if name in FOUND.names]
VERDICT_COLUMNS: Final = [name for name in VERDICTS.names if name != "reference_hash"]

MOST_BYTES: Final = 2_000_000_000  # of a bucket: Arrow counts the characters of a column in 31 bits
SLICE_BYTES: Final = 32 * 2**20  # of traces and their problems that become candidates at a time

Places = npt.NDArray[np.int64]


class Joined:
    """The candidates of a run: its rows are read once, the candidates as often as needed."""

    def __init__(
        self,
        work: Path,
        problems: Iterable[pa.Table],
        traces: Iterable[pa.Table],
        verdicts: Iterable[pa.Table],
        *,
        spill_bytes: int = SPILL_BYTES,
    ) -> None:
        """Read all rows; what does not fit in memory goes to files in ``work`` until this is closed."""
        self._stack = ExitStack()
        self._bucket_bytes = min(BUCKET_BYTES, 2 * spill_bytes)
        kinds = (
            ("problems", PROBLEMS, PROBLEM_COLUMNS, problems),
            ("traces", TRACES, TRACE_COLUMNS, traces),
            ("verdicts", VERDICTS, VERDICT_COLUMNS, verdicts),
        )
        self._buckets: list[Buckets] = []
        for name, schema, columns, tables in kinds:
            wanted = pa.schema([schema.field(column) for column in columns])
            buckets = self._stack.enter_context(Buckets(work, name, wanted, spill_bytes=spill_bytes))
            for table in tables:
                buckets.add(table.select(columns).cast(wanted))
            buckets.close()
            self._buckets.append(buckets)

    def tables(self, columns: Sequence[str] = tuple(FOUND.names)) -> Iterator[pa.Table]:
        """Yield the candidates in order, with these columns of ``FOUND``, all of a problem in one table.

        Raises:
            CorruptRunError: If a trace belongs to no problem, or is there twice.
            StoreError: If more text than Arrow bears in a column belongs to one part of the problems.
        """
        total = np.sum([buckets.num_bytes for buckets in self._buckets], axis=0)
        for first, last in ranges(total, self._bucket_bytes):
            yield from _candidates(columns, *(buckets.read(first, last) for buckets in self._buckets))

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _candidates(columns: Sequence[str], problems: pa.Table, traces: pa.Table, verdicts: pa.Table) -> Iterator[pa.Table]:
    if not traces.num_rows:
        return
    if traces.nbytes > MOST_BYTES:
        raise StoreError(
            f"{traces.nbytes:,} bytes of traces share the first digits of their problem_id, such as "
            f"{traces['problem_id'][0]}, and {MOST_BYTES:,} are the most that is sorted at once: a run of a terabyte, "
            "or a problem with so much text; take traces out, or raise NUM_PARTS (4,096 at most) in factory/buckets.py"
        )
    order = pc.sort_indices(traces, sort_keys=[("problem_id", "ascending"), ("trace_id", "ascending")])
    keys = traces.select(["problem_id", "trace_id"]).take(order).combine_chunks()
    _check_once(keys)
    problems = _last_of_each(problems, "problem_id")
    verdicts = _last_of_each(verdicts, "trace_id")
    problem_of = pc.index_in(one_array(keys["problem_id"]), value_set=one_array(problems["problem_id"]))
    verdict_of = pc.index_in(one_array(keys["trace_id"]), value_set=one_array(verdicts["trace_id"]))
    if problem_of.null_count:
        trace_id, problem_id = (keys[name].filter(pc.is_null(problem_of))[0] for name in ("trace_id", "problem_id"))
        raise CorruptRunError(
            f"trace {trace_id} is of problem {problem_id}, which the run does not have; restore its problem shards"
        )
    sizes = row_bytes(traces)[order.to_numpy()] + row_bytes(problems)[problem_of.to_numpy()]
    wanted = pa.schema([field for field in FOUND if field.name in columns])
    if "reference" in columns:
        problems = _for_people(problems, problem_of)
    needed = {*columns, *(["text"] if "reasoning" in columns else [])}
    problems, traces, verdicts = (
        table.select([name for name in table.column_names if name in needed]) for table in (problems, traces, verdicts)
    )
    traces = traces.combine_chunks()
    for start, end in whole_groups(group_starts(keys["problem_id"]), sizes, SLICE_BYTES):
        yield _joined(
            wanted,
            traces.take(order.slice(start, end - start)),
            problems.take(problem_of.slice(start, end - start)),
            verdicts.take(verdict_of.slice(start, end - start)),
        )


def _check_once(keys: pa.Table) -> None:
    """Check that no trace is there twice; equal ids are of one problem, so they are neighbours here.

    Raises:
        CorruptRunError: If one is.
    """
    ids = one_array(keys["trace_id"])
    is_again = pc.equal(ids[1:], ids[:-1]) if len(ids) > 1 else pa.array([], pa.bool_())
    if pc.any(is_again).as_py():
        trace_id = ids[1:].filter(is_again)[0]
        raise CorruptRunError(
            f"trace {trace_id} comes twice; a selection takes each trace once: restore the run's trace shards, or take "
            "out the file that was added"
        )


def _last_of_each(table: pa.Table, name: str) -> pa.Table:
    """Return the rows of different ids, of each the one that came last."""
    codes = one_array(table[name]).dictionary_encode()
    last = np.zeros(len(codes.dictionary), np.int64)
    last[codes.indices.to_numpy()] = np.arange(len(codes))
    return table if len(last) == table.num_rows else table.take(pa.array(last))


def whole_groups(starts: Places, sizes: Places, most: int) -> Iterator[tuple[int, int]]:
    """Yield where to cut rows (start, end): parts of whole groups with up to ``most`` bytes, or of one group."""
    ends = np.append(starts[1:], len(sizes))
    totals = np.concatenate([[0], np.cumsum(sizes)])[ends]
    group = 0
    while group < len(starts):
        done = totals[group - 1] if group else 0
        last = max(int(np.searchsorted(totals, done + most, side="right")), group + 1)
        yield int(starts[group]), int(ends[last - 1])
        group = last


def _for_people(problems: pa.Table, wanted: pa.Array) -> pa.Table:
    """Return problems with their references as people read them, of those that are wanted."""
    column = problems["reference"]
    shown: list[str | None] = [None] * len(column)
    kinds: list[str | None] = [None] * len(column)
    for row in pc.unique(wanted).to_pylist():
        reference = column[row].as_py()
        if reference is not None:
            shown[row], kinds[row] = reference_text(reference), json.loads(reference)["type"].lower()
    problems = problems.set_column(
        problems.schema.get_field_index("reference"), "reference", pa.array(shown, pa.string())
    )
    return problems.append_column("reference_kind", pa.array(kinds, pa.string()))


def reference_text(reference: str | None) -> str | None:
    """Return a reference (JSON, as a run stores it) for people: an answer or a letter plain, all else as JSON."""
    if reference is None:
        return None
    match reference_from_json(json.loads(reference)):
        case Answer(text=text):
            return text
        case Choice(letter=letter):
            return letter
        case _:
            return reference


def _joined(wanted: pa.Schema, traces: pa.Table, problems: pa.Table, verdicts: pa.Table) -> pa.Table:
    """Return rows that belong together as candidates; those of ``verdicts`` are null where there is none."""
    made: dict[str, pa.Array] = {}
    if "reasoning" in wanted.names:
        parts = [split_completion(text) for text in traces["text"].to_pylist()]
        made["reasoning"] = pa.array([part.reasoning for part in parts], pa.string())
        made["response"] = pa.array([part.response for part in parts], pa.string())
    if "checks" in wanted.names:
        made["checks"] = check_rows(one_array(verdicts["checks"]))
    columns = [_pick(field, made, traces, problems, verdicts) for field in wanted]
    return pa.Table.from_arrays(columns, schema=wanted)


def _pick(field: pa.Field, made: dict[str, pa.Array], *tables: pa.Table) -> pa.Array:
    column = made.get(field.name)
    if column is None:
        column = one_array(next(table[field.name] for table in tables if field.name in table.column_names))
    return column.cast(field.type)


def check_rows(checks: pa.ListArray) -> pa.ListArray:
    """Return the checks of verdicts as the public tables have them; no verdict, no checks.

    Without their milliseconds: judging again would change every file. Details of mathematics and of programs become
    columns of the check.
    """
    found = checks.flatten()
    fields = dict(zip((field.name for field in found.type), found.flatten(), strict=True))
    for detail in ("math", "code"):
        inner = fields.pop(detail)
        fields |= dict(zip((field.name for field in inner.type), inner.flatten(), strict=True))
    columns = [_as_field(fields[field.name], field) for field in CHECK_ROW]
    values = pa.StructArray.from_arrays(columns, fields=list(CHECK_ROW))
    lengths = pc.fill_null(pc.list_value_length(checks), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _as_field(array: pa.Array, field: pa.Field) -> pa.Array:
    if not pa.types.is_struct(field.type):
        return array.cast(field.type)
    inner = dict(zip((child.name for child in array.type), array.flatten(), strict=True))
    columns = [inner[child.name].cast(child.type) for child in field.type]
    return pa.StructArray.from_arrays(columns, fields=list(field.type), mask=array.is_null())
