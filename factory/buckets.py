"""Buckets: rows of any number come in in any order and come out by problem, within bounded memory.

Serves `tables`. Rows are cut into parts by the first digits of their problem_id, whose order is that of the parts; what
does not fit in memory waits in one file. Invariant: a part has every row of its problems, in the order in which they
came. Knows no column but ``problem_id``; sorts nothing inside a part.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CorruptRunError

# By the first nine bits of an id: a part of a run with 50 GB of text is 100 MB, and a piece of it in the file 128 KB.
NUM_PARTS: Final = 512
SPILL_BYTES: Final = 64 * 2**20  # of rows held before they go to the file; while they do, three times as much
BUCKET_BYTES: Final = 96 * 2**20  # of neighbouring parts that are read together

_NOT_HEX: Final = 255
_NIBBLES: Final = np.full(256, _NOT_HEX, np.uint8)
_NIBBLES[list(b"0123456789abcdef")] = np.arange(16)
_DIGITS: Final = 3  # of an id that are looked at


class _Cut(NamedTuple):
    """Rows in the order of their parts; part n is at ``bounds[n]`` to ``bounds[n + 1]``."""

    rows: pa.Table
    bounds: npt.NDArray[np.int64]

    def part(self, first: int, last: int) -> pa.Table:
        start, end = int(self.bounds[first]), int(self.bounds[last])
        return self.rows.slice(start, end - start)


class _Place(NamedTuple):
    offset: int
    num_bytes: int


class Buckets:
    """Tables with a column ``problem_id`` come in; after ``close``, parts can be read as often as needed."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, *, spill_bytes: int = SPILL_BYTES) -> None:
        self._path, self._schema, self._spill_bytes = folder / f"{name}.rows", schema, spill_bytes
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._file: int | None = None
        self._end = 0
        self._places: list[list[_Place]] = [[] for _ in range(NUM_PARTS)]
        self._held: _Cut | None = None
        self.num_bytes = np.zeros(NUM_PARTS, np.int64)  # by part, about

    def add(self, table: pa.Table) -> None:
        """Take rows.

        Raises:
            ValueError: If their columns are not those of the schema.
            CorruptRunError: If a problem_id is none.
        """
        if not table.schema.equals(self._schema):
            raise ValueError(f"a table with the columns {table.schema.names} came in, not {self._schema.names}")
        step = max(1, table.num_rows * self._spill_bytes // max(1, table.nbytes))
        for start in range(0, table.num_rows, step):
            piece = table.slice(start, step)
            self._pending.append(piece)
            self._pending_bytes += piece.nbytes
            if self._pending_bytes >= self._spill_bytes:
                self._spill()

    def close(self) -> None:
        """Make what was added readable."""
        if self._file is None:
            self._held = self._cut()
        elif self._pending:
            self._spill()

    def read(self, first: int, last: int) -> pa.Table:
        """Return the rows of parts ``first`` to ``last - 1``; those of one problem in the order in which they came."""
        if self._file is None:
            assert self._held is not None, "read before close"
            return self._held.part(first, last)
        batches = [
            pa.ipc.read_record_batch(pa.py_buffer(os.pread(self._file, place.num_bytes, place.offset)), self._schema)
            for places in self._places[first:last]
            for place in places
        ]
        return pa.Table.from_batches(batches, self._schema)

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._path.unlink()

    def _cut(self) -> _Cut:
        """Take what is pending as rows in the order of their parts."""
        rows = pa.concat_tables([self._schema.empty_table(), *self._pending]).combine_chunks()
        self._pending, self._pending_bytes = [], 0
        numbers = _part_numbers(rows["problem_id"])
        sizes = np.bincount(numbers, minlength=NUM_PARTS)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        self.num_bytes += sizes * rows.nbytes // max(1, rows.num_rows)
        return _Cut(rows.take(pa.array(np.argsort(numbers, kind="stable"))), bounds)

    def _spill(self) -> None:
        """Write what is pending to the file, a piece for each part that has rows."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        cut = self._cut()
        for part in np.flatnonzero(np.diff(cut.bounds)).tolist():
            (batch,) = cut.part(part, part + 1).combine_chunks().to_batches()
            data = batch.serialize()
            self._places[part].append(_Place(self._end, data.size))
            _write(self._file, data, self._end)
            self._end += data.size


def ranges(num_bytes: npt.NDArray[np.int64], most: int = BUCKET_BYTES) -> list[tuple[int, int]]:
    """Return neighbouring parts to read together, as (first, last + 1): up to ``most`` bytes, or one part."""
    found: list[tuple[int, int]] = []
    first, total = 0, 0
    for part, size in enumerate(num_bytes.tolist()):
        if total and total + size > most:
            found.append((first, part))
            first, total = part, 0
        total += size
    return [*found, (first, len(num_bytes))]


def _write(file: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _part_numbers(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the part of each id.

    Raises:
        CorruptRunError: If a value is no id.
    """
    numbers = [np.zeros(0, np.int64), *(_numbers_of(chunk) for chunk in ids.chunks if len(chunk))]
    return np.concatenate(numbers)


def _numbers_of(ids: pa.StringArray) -> npt.NDArray[np.int64]:
    _, offsets, data = ids.buffers()
    ends = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)
    is_short = np.diff(ends) < _DIGITS
    if not is_short.any() and not ids.null_count:
        characters = np.frombuffer(data, np.uint8)
        digits = [_NIBBLES[characters[ends[:-1] + place]].astype(np.int64) for place in range(_DIGITS)]
        if not any((digit == _NOT_HEX).any() for digit in digits):
            found: npt.NDArray[np.int64] = (digits[0] << 8 | digits[1] << 4 | digits[2]) * NUM_PARTS >> (4 * _DIGITS)
            return found
    bad = next(text for text in ids.to_pylist() if text is None or not set(text[:_DIGITS]) <= set("0123456789abcdef")
                or len(text) < _DIGITS)  # fmt: skip
    raise CorruptRunError(f"problem_id {bad!r} is no id (a hash in hexadecimal digits); restore the run's shards")


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; of one without rows, Arrow makes none."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks or [pa.array([], column.type)])


def group_starts(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return where the rows of each problem begin, in a sorted column of their ids."""
    column = one_array(ids)
    if not len(column):
        return np.zeros(0, np.int64)
    is_new = np.ones(len(column), bool)
    is_new[1:] = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_new)
