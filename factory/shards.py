"""Shards: rows sorted by id within bounded memory, and Parquet files cut by bytes.

Serves `tables`. Invariant: what is written depends on the rows alone, not on their order, their batches or how much
memory there was: the same rows give the same bytes (of one version of pyarrow). Knows no columns but the id.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.manifest import Shard

NUM_BUCKETS: Final = 256  # by the first two hex digits of an id; one bucket is sorted in memory at a time
SPILL_BYTES: Final = 256 * 2**20  # of rows held before they go to a file: guess, far below the 2 GB of a string column
ROW_GROUP_BYTES: Final = 64 * 2**20  # of text in a row group: readers hold one at a time
SHARD_BYTES: Final = 2**30  # of text in a file; with zstd about 300 MB, near the 500 MB that the Hub recommends: guess
COMPRESSION_LEVEL: Final = 3  # zstd


class SortedRows:
    """Tables with problem_id and trace_id come in, in any order; their rows come out by both, bucket after bucket."""

    def __init__(self, folder: Path, name: str, *, spill_bytes: int = SPILL_BYTES) -> None:
        self._folder, self._name, self._spill_bytes = folder, name, spill_bytes
        self._pending: list[pa.Table] = []
        self._num_bytes = 0
        self._files: list[Path] = []

    def add(self, table: pa.Table) -> None:
        """Take rows; the columns must be the same each time."""
        if table.num_rows == 0:
            return
        self._pending.append(table)
        self._num_bytes += table.nbytes
        if self._num_bytes >= self._spill_bytes:
            self._spill()

    def buckets(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of each bucket in the order of their ids; call it once, when all were added."""
        runs: list[list[pa.Table]] = [_cut(self._pending)] if self._pending else []
        readers = [pa.ipc.open_file(pa.memory_map(str(path))) for path in self._files]
        for number in range(NUM_BUCKETS):
            tables = [run[number] for run in runs]
            tables += [pa.Table.from_batches([reader.get_batch(number)]) for reader in readers]
            rows = [row for table in tables for row in table.to_pylist()]
            yield sorted(rows, key=lambda row: (str(row["problem_id"]), str(row["trace_id"])))

    def _spill(self) -> None:
        """Write what is held as one file with one batch per bucket."""
        path = self._folder / f"{self._name}-{len(self._files):05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._pending[0].schema) as writer:
            for table in _cut(self._pending):
                writer.write_batch(_one_batch(table))
        self._files.append(path)
        self._pending, self._num_bytes = [], 0


def _cut(tables: list[pa.Table]) -> list[pa.Table]:
    """Return the rows as one table per bucket, in the order of the buckets."""
    table = pa.concat_tables(tables)
    numbers = [int(prefix, 16) for prefix in pc.utf8_slice_codeunits(table["problem_id"], 0, 2).to_pylist()]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    # One take and cheap slices: a take joins the chunks of a text column first, each time.
    ordered = table.take(pa.array(order, pa.int64()))
    sizes = Counter(numbers)
    ends = list(accumulate(sizes[number] for number in range(NUM_BUCKETS)))
    return [ordered.slice(end - sizes[number], sizes[number]) for number, end in enumerate(ends)]


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class _Finished(NamedTuple):
    path: Path
    rows: int


class ShardWriter:
    """Writes rows to ``<folder>/train-00000-of-0000N.parquet``; the names are final once it is closed."""

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        row_group_bytes: int = ROW_GROUP_BYTES,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._folder, self._schema = folder, schema
        self._row_group_bytes, self._shard_bytes = row_group_bytes, shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._group_bytes = self._file_bytes = self._file_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._finished: list[_Finished] = []
        self.shards: tuple[Shard, ...] = ()  # names relative to the folder above

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Take one row."""
        self._rows.append(row)
        self._group_bytes += text_bytes(row)
        if self._group_bytes >= self._row_group_bytes:
            self._write_group()

    def _write_group(self) -> None:
        if self._writer is None:
            path = self._folder / f"{len(self._finished):05d}.tmp"
            self._finished.append(_Finished(path, 0))
            self._writer = pq.ParquetWriter(
                path,
                self._schema,
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                write_page_index=True,
                write_page_checksum=True,
            )
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._file_bytes += self._group_bytes
        self._file_rows += table.num_rows
        self._rows, self._group_bytes = [], 0
        if self._file_bytes >= self._shard_bytes:
            self._close_file()

    def _close_file(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._finished[-1] = self._finished[-1]._replace(rows=self._file_rows)
        self._writer, self._file_bytes, self._file_rows = None, 0, 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self._writer is not None:
                self._writer.close()
            return
        if self._rows or not self._finished:  # a table without rows is a file with a schema, not no file
            self._write_group()
        if self._writer is not None:
            self._close_file()
        self.shards = tuple(self._name(number) for number in range(len(self._finished)))

    def _name(self, number: int) -> Shard:
        finished = self._finished[number]
        path = self._folder / f"train-{number:05d}-of-{len(self._finished):05d}.parquet"
        with finished.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        finished.path.rename(path)
        name = f"{self._folder.name}/{path.name}"
        return Shard(name=name, rows=finished.rows, num_bytes=path.stat().st_size, sha256=sha256)


def text_bytes(value: Any) -> int:
    """Return about how many bytes a value takes in Arrow: its texts, and eight bytes for anything else."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8"))
    if isinstance(value, dict):
        return sum(text_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(text_bytes(item) for item in value)
    return 8
