"""The logical digest of rows: what a table says, whatever file, batch, codec or version of Arrow carries it.

Serves `tables` (manifests), `rederive` and `publish`. Invariant: two tables have the same digest if and only if they
have the same column names and types, and the same values in the same order (short of a collision of SHA-256); `string`
and `large_string`, lists with 32 and 64 bit offsets, chunks, slices and what lies below a null make no difference, so
that what `datasets` loads has the digest of the file that was written.

Every leaf of every column is up to three streams of bytes, each hashed by itself while rows come in: which values are
there (a byte each), how long they are (8 bytes each, little-endian), and the bytes of those that are there. A stream
over all rows does not know batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.storage import AnyPath, parquet_source

DIGEST_VERSION: Final = 1
Path_ = tuple[str, ...]


class RowDigest:
    """Takes rows in order, in batches of any size; 100 bytes of state per leaf."""

    def __init__(self) -> None:
        self._schema: list[list[str]] | None = None
        self._num_rows = 0
        self._streams: dict[Path_, hashlib._Hash] = {}

    def update(self, table: pa.Table | pa.RecordBatch) -> None:
        """Take the next rows.

        Raises:
            ValueError: If their columns are others than before, or of a type that has no place in a published table.
        """
        schema = described(table.schema)
        if self._schema is None:
            self._schema = schema
            for field in table.schema:
                for path in _paths((field.name,), field.type):
                    self._streams[path] = hashlib.sha256()
        if schema != self._schema:
            raise ValueError(f"columns {schema} follow on columns {self._schema}; one digest is of one table")
        self._num_rows += table.num_rows
        for name, column in zip(table.schema.names, table.columns, strict=True):
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                self._feed((name,), chunk)

    def _feed(self, path: Path_, array: pa.Array) -> None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if array.null_count:
            self._streams[(*path, "valid")].update(_bytes(array.is_valid().cast(pa.uint8())))
            array = array.drop_null()
        else:
            self._streams[(*path, "valid")].update(b"\1" * len(array))
        kind = array.type
        if pa.types.is_struct(kind):
            for field, child in zip(kind, array.flatten(), strict=True):  # flatten heeds slices, unlike `field`
                self._feed((*path, field.name), child)
        elif _is_list(kind):
            self._streams[(*path, "length")].update(_bytes(pc.list_value_length(array).cast(pa.int64())))
            self._feed((*path, "[]"), array.flatten())
        elif _is_text(kind):
            self._streams[(*path, "length")].update(_bytes(pc.binary_length(array).cast(pa.int64())))
            self._streams[(*path, "value")].update(_text_bytes(array))
        else:
            fixed = array.cast(pa.uint8()) if pa.types.is_boolean(kind) else array
            self._streams[(*path, "value")].update(_bytes(fixed))

    def hexdigest(self) -> str:
        """Return the digest of the rows so far."""
        streams = [[*path, stream.hexdigest()] for path, stream in sorted(self._streams.items())]
        body = [DIGEST_VERSION, self._num_rows, self._schema or [], streams]
        return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def digest_of_files(paths: Iterable[AnyPath], columns: list[str] | None = None) -> str:
    """Return the digest of the rows of Parquet files, in the order of the paths; reads a row group at a time."""
    digest = RowDigest()
    for table in row_groups(paths, columns):
        digest.update(table)
    return digest.hexdigest()


def row_groups(paths: Iterable[AnyPath], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of Parquet files as tables; of a file without any its schema as a table without rows."""
    for path in paths:
        with pq.ParquetFile(parquet_source(path)) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns)
            if not file.num_row_groups:
                empty = file.schema_arrow.empty_table()
                yield empty if columns is None else empty.select(columns)


def schema_sha256(schema: pa.Schema) -> str:
    """Return the digest of column names and types, with the same indifference to offsets as the digest of rows."""
    return hashlib.sha256(json.dumps(described(schema)).encode()).hexdigest()


def described(schema: pa.Schema) -> list[list[str]]:
    """Return names and types as the digest sees them.

    Raises:
        ValueError: If a column has a type that no published table has.
    """
    return [[field.name, _described(field.type, field.name)] for field in schema]


def _described(kind: pa.DataType, name: str) -> str:
    if pa.types.is_dictionary(kind):
        return _described(kind.value_type, name)
    if pa.types.is_struct(kind):
        fields = (f"{json.dumps(field.name)}:{_described(field.type, name)}" for field in kind)
        return f"struct<{','.join(fields)}>"
    if _is_list(kind):
        return f"list<{_described(kind.value_type, name)}>"
    if _is_text(kind):
        return "string"
    if pa.types.is_boolean(kind) or pa.types.is_primitive(kind):
        return str(kind)
    raise ValueError(
        f"column {name!r}: type {kind} has no place in a published table; cast it to text, numbers or lists"
    )


def _paths(path: Path_, kind: pa.DataType) -> Iterator[Path_]:
    """Yield the streams of a column."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    yield (*path, "valid")
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _paths((*path, field.name), field.type)
    elif _is_list(kind):
        yield (*path, "length")
        yield from _paths((*path, "[]"), kind.value_type)
    else:
        if _is_text(kind):
            yield (*path, "length")
        yield (*path, "value")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bytes(array: pa.Array) -> memoryview:
    """Return the values of an array of fixed width without nulls; Arrow is little-endian on every machine we run on."""
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    if data is None or not len(array):
        return memoryview(b"")
    return memoryview(data)[array.offset * width : (array.offset + len(array)) * width]


def _text_bytes(array: pa.Array) -> memoryview:
    """Return the bytes of all texts of an array without nulls."""
    if not len(array):
        return memoryview(b"")
    _, offsets, data = array.buffers()
    kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
    ends = np.frombuffer(offsets, kind)
    first, last = int(ends[array.offset]), int(ends[array.offset + len(array)])
    return memoryview(b"") if data is None else memoryview(data)[first:last]
