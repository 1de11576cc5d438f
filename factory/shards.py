"""Shards: the Parquet files of one split of one table, cut by bytes.

Serves `tables` and `rederive`. Arrow tables come in, in the order of their rows. Invariant: what is written depends on
the rows alone, not on the tables they came in or on memory: the same rows give the same bytes (of one version of
pyarrow). Files are hashed while they are written, rows (`rowdigest`) beside their compression, in a thread. Knows no
columns but those of few values.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.rowdigest import RowDigest
from schemas.manifest import Shard
from schemas.tables import FEW_VALUES

# A row group goes to Arrow's writer in chunks that end with the row that reaches so many bytes: where chunks end can be
# seen in the bytes of a file, so it must depend on the rows alone; joining whole row groups took a fifth of the time.
PIECE_BYTES: Final = 16 * 2**20
ROW_GROUP_BYTES: Final = 64 * 2**20  # uncompressed at most: readers hold one at a time; the Hub's viewer bears 300 MB
ROW_GROUP_ROWS: Final = 2_000  # at most: what a streaming reader takes at a time
SHARD_BYTES: Final = 256 * 2**20  # of a file, which ends with the row group that reaches it; public sets use 180 to 230
COMPRESSION_LEVEL: Final = 3  # of zstd; 9 saves a tenth more in six times the time (measured on synthetic traces)
# The values of `datasets`: a second version of a set shares the chunks of what did not change with the first.
CHUNKING: Final = {"min_chunk_size": 256 * 2**10, "max_chunk_size": 2**20, "norm_level": 0}


def parquet_settings(schema: pa.Schema) -> dict[str, Any]:
    """Return how a published table is written: what ``pyarrow.parquet.ParquetWriter`` takes."""
    return {
        "compression": "zstd",
        "compression_level": COMPRESSION_LEVEL,
        "use_dictionary": [path for path in _leaves(schema) if path.rpartition(".")[2] in FEW_VALUES],
        "write_page_index": True,
        "write_page_checksum": True,
        "use_content_defined_chunking": CHUNKING,
    }


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the columns of a schema as Parquet names them."""
    found: list[str] = []

    def walk(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                walk(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind):
            walk(f"{path}.list.element", kind.value_type)
        else:
            found.append(path)

    for field in schema:
        walk(field.name, field.type)
    return found


class HashedFile(io.RawIOBase):
    """A new file that hashes what is written to it; ``sha256`` and ``num_bytes`` are of what it has so far."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def write(self, data: Any, /) -> int:
        """Append bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        size = len(view)
        while view:
            view = view[self._file.write(view) :]
        self.num_bytes += size
        return size

    def sync(self) -> None:
        """Have it survive a power loss."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    @property
    def sha256(self) -> str:
        """Return the digest in hexadecimal digits."""
        return self._hash.hexdigest()


class _Open(NamedTuple):
    path: Path
    file: HashedFile
    writer: pq.ParquetWriter


class _Finished(NamedTuple):
    path: Path
    rows: int
    num_bytes: int
    sha256: str


class ShardWriter:
    """Writes rows to ``<folder>/<split>-00000-of-0000N.parquet``; the names are final once it is closed."""

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        split: str = "train",
        may_be_absent: bool = False,
        piece_bytes: int = PIECE_BYTES,
        row_group_bytes: int = ROW_GROUP_BYTES,
        row_group_rows: int = ROW_GROUP_ROWS,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._folder, self._schema, self._split, self._may_be_absent = folder, schema, split, may_be_absent
        self._row_group_bytes, self._row_group_rows, self._shard_bytes = row_group_bytes, row_group_rows, shard_bytes
        self._piece_bytes = self._piece_room = piece_bytes
        self._piece: list[pa.Table] = []  # what came of the piece that is open
        self._pieces: list[pa.Table] = []  # of the row group, closed
        self._group_bytes = self._group_rows = self._file_rows = 0
        self._open: _Open | None = None
        self._finished: list[_Finished] = []
        self._digest = RowDigest()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.text_bytes = 0  # of all rows in Arrow, uncompressed
        self.shards: tuple[Shard, ...] = ()  # names relative to the folder above
        self.rows_sha256 = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Take rows; return the bytes of each in Arrow.

        Raises:
            ValueError: If their columns are not those of the schema.
        """
        if not table.schema.equals(self._schema):
            raise ValueError(f"{self._folder.name}: {_difference(table.schema, self._schema)}")
        sizes = row_bytes(table)
        ends = np.cumsum(sizes)
        start = 0
        while start < table.num_rows:
            done = int(ends[start - 1]) if start else 0
            fit = int(np.searchsorted(ends, done + self._row_group_bytes - self._group_bytes, side="right"))
            group_end = min(fit, start + self._row_group_rows - self._group_rows)
            if group_end <= start and not self._group_rows:
                group_end = start + 1  # larger than a row group by itself
            piece_end = int(np.searchsorted(ends, done + self._piece_room, side="left")) + 1
            end = min(group_end, piece_end, table.num_rows)
            if end > start:
                self._take(table.slice(start, end - start), int(ends[end - 1]) - done)
            if end == piece_end:
                self._close_piece()
            if group_end < table.num_rows and end >= group_end:
                self._write_group()
            start = max(start, end)
        self.text_bytes += int(sizes.sum())
        return sizes

    def _take(self, rows: pa.Table, num_bytes: int) -> None:
        self._piece.append(rows)
        self._piece_room -= num_bytes
        self._group_bytes += num_bytes
        self._group_rows += rows.num_rows

    def _close_piece(self) -> None:
        if self._piece:
            rows = pa.concat_tables(self._piece) if len(self._piece) > 1 else self._piece[0]
            self._pieces.append(rows.combine_chunks())  # copies nothing where it is one chunk already
        self._piece, self._piece_room = [], self._piece_bytes

    def _write_group(self) -> None:
        self._close_piece()
        if self._open is None:
            path = self._folder / f"{self._split}-{len(self._finished):05d}.tmp"
            file = HashedFile(path)
            sink = pa.PythonFile(file, mode="w")
            self._open = _Open(path, file, pq.ParquetWriter(sink, self._schema, **parquet_settings(self._schema)))
        group = pa.concat_tables(self._pieces or [self._schema.empty_table()])
        self._pieces, self._group_bytes, self._group_rows = [], 0, 0
        hashing = self._thread.submit(self._digest.update, group)
        if group.num_rows:
            self._open.writer.write_table(group, row_group_size=group.num_rows)
            self._file_rows += group.num_rows
        hashing.result()
        if self._open.file.num_bytes >= self._shard_bytes:
            self._close_file()

    def _close_file(self) -> None:
        assert self._open is not None
        path, file, writer = self._open
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})  # as `datasets` says it
        writer.close()
        file.sync()
        file.close()
        self._finished.append(_Finished(path, self._file_rows, file.num_bytes, file.sha256))
        self._open, self._file_rows = None, 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._thread.shutdown()
            if self._open is not None:
                self._open.file.close()
            return
        is_empty = not (self._group_rows or self._finished or self._open)
        if self._group_rows or (is_empty and not self._may_be_absent):  # no rows: a file with a schema, not no file
            self._write_group()
        if self._open is not None:
            self._close_file()
        self._thread.shutdown()
        self.rows_sha256 = self._digest.hexdigest()
        self.shards = tuple(self._name(number, finished) for number, finished in enumerate(self._finished))

    def _name(self, number: int, finished: _Finished) -> Shard:
        path = self._folder / f"{self._split}-{number:05d}-of-{len(self._finished):05d}.parquet"
        finished.path.rename(path)
        name = f"{self._folder.name}/{path.name}"
        return Shard(name=name, rows=finished.rows, num_bytes=finished.num_bytes, sha256=finished.sha256)


def _difference(seen: pa.Schema, wanted: pa.Schema) -> str:
    unknown, missing = sorted(set(seen.names) - set(wanted.names)), sorted(set(wanted.names) - set(seen.names))
    odd = [field.name for field in wanted if field.name in seen.names and seen.field(field.name).type != field.type]
    parts = [f"{word} {', '.join(names)}" for word, names in
             (("unknown", unknown), ("missing", missing), ("of another type", odd)) if names]  # fmt: skip
    return f"columns {'; '.join(parts)}" if parts else "the order of the columns or their marks differ"


def row_bytes(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return about how many bytes each row takes in Arrow; of a row alone, whatever is beside it."""
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        total += np.concatenate([np.zeros(0, np.int64), *map(_sizes, chunks)])
    return total


def _sizes(array: pa.Array) -> npt.NDArray[np.int64]:
    kind = array.type
    if pa.types.is_struct(kind):
        fields = [_sizes(child) for child in array.flatten()]
        return np.sum(fields, axis=0, dtype=np.int64) if fields else np.zeros(len(array), np.int64)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        below = np.concatenate([[0], np.cumsum(_sizes(array.flatten()))])
        ends = np.cumsum(lengths)
        found: npt.NDArray[np.int64] = 4 + below[ends] - below[ends - lengths]
        return found
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.asarray(4 + lengths, np.int64)
    return np.full(len(array), max(1, kind.bit_width // 8), np.int64)
