"""Rows of JSONL files, Parquet files and ``datasets``, read one after the other, not yet understood.

Part of the first step of the flow: `sources` asks for rows, `columns` makes problems of them. Invariant: a row that
cannot be read is a ``Row`` without a body; only what cannot be read at all is a ``SourceError``, and a missing file or
column is one before the first row. Holds one batch at a time.
"""

from __future__ import annotations

import difflib
import glob
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.config import DatasetSource, FileSource
from schemas.errors import SourceError
from schemas.problem import Evidence, QuarantineReason

MAX_LINE_BYTES: Final = 64 * 2**20  # of one JSONL row; a guess: far above any problem, far below the memory
MAX_RAW_CHARS: Final = 2_000  # kept of a quarantined row (``Quarantined.raw``)
MAX_SHOWN_CHARS: Final = 80  # of a value inside a message
MAX_SHOWN_NAMES: Final = 40  # of a list of columns inside a message
BATCH_ROWS: Final = 1_024  # rows of an Arrow batch held at once
COMMIT: Final = re.compile(r"[0-9a-f]{40}")  # on the Hub; a branch or a tag may be moved
MISSING: Final = object()  # what ``lookup`` finds where nothing is: null is a value
JSON_NAMES: Final = {dict: "an object", list: "a list", type(None): "null", bool: "a boolean", str: "text"}


class Row(NamedTuple):
    """One row of a source, read but not yet understood; ``body`` holds the mapped columns at least."""

    number: int  # from 1; the line number in JSONL
    where: str  # for people: "a.jsonl line 3"
    row_id: str  # unless the source has an id of its own
    raw: str
    body: Mapping[str, Any] | None  # None: could not be read, for the reason in `defect`
    defect: str = ""
    revision: str | None = None  # what it was read from (`Problem.source_revision`)


class RowError(Exception):
    """A row that can be no problem; becomes a ``Quarantined`` and never leaves the sources."""

    def __init__(self, reason: QuarantineReason, detail: str, evidence: Evidence | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.evidence = evidence


class NumberLiteral(str):
    """A number in the source's own digits: as a float, 1.50 or a long decimal would not come back as written."""

    __slots__ = ()


# Columns: which there are, and what to say about one that is not.


def lookup(body: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or ``MISSING``. A name that holds a dot is tried as it is before it is a path."""
    if column in body:
        return body[column]
    value: Any = body
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def shown(value: Any) -> str:
    """Return a value as a message may show it: quoted, printable, cut."""
    text = repr(str(value)) if isinstance(value, str) else ascii(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def listed(names: Iterable[str]) -> str:
    """Return a list of names for a message, sorted and cut."""
    ordered = sorted(set(names))
    more = len(ordered) - MAX_SHOWN_NAMES
    return ", ".join(ordered[:MAX_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint at the allowed name that comes nearest; empty when none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def column_names(body: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the keys of an object, and dotted ones for the objects inside it."""
    names: list[str] = []
    for key, value in body.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names += column_names(value, f"{prefix}{key}.")
    return names


class Wanted(NamedTuple):
    """The columns that rows are read for: those there must be, each with its key in the job file."""

    required: Mapping[str, str]
    optional: tuple[str, ...] = ()  # read where they are

    def of(self, names: Iterable[str]) -> list[str]:
        """Return those that a file with such columns has."""
        there = set(names)
        return [*self.required, *(name for name in self.optional if name in there and name not in self.required)]


def _no_column(label: str, what: str, missing: Mapping[str, str], names: Iterable[str]) -> SourceError:
    there = listed(names)
    lines = [
        f"{label}.columns.{key}={name!r}: {what} has no such column; {nearest(name, names)}there are: {there}"
        for name, key in missing.items()
    ]
    return SourceError("\n".join(lines))


# Files.


def name_of(path: str) -> str:
    """Return a source's name from its path: the file's stem, or what stands before the first glob character."""
    fixed = path.split("*")[0].split("?")[0].split("[")[0]
    if fixed == path:
        return Path(path).name.split(".")[0] or "files"
    folder, _, start = fixed.rpartition("/")
    return start.rstrip("-_.") or Path(folder).name or "files"


def file_rows(source: FileSource, wanted: Wanted, label: str, *, with_revision: bool = True) -> Iterator[Row]:
    """Return the rows of JSONL or Parquet files, file after file in the order of their names.

    A row's revision is the sha256 of its file, which is read through once more when its first row is taken.

    Raises:
        SourceError: If there is no such file, or a mapped column is nowhere in it; while reading, if a file breaks off.
    """
    files = find_files(source.path, source.kind, label)
    columns = wanted.required
    if source.kind == "parquet":
        for path in files:
            _check_arrow_columns(_parquet_schema(path, label), columns, label, str(path))
    else:
        _check_jsonl_columns(files, columns, label, source.path)
    return _rows_of_files(files, wanted, source, label, with_revision)


def _rows_of_files(
    files: Sequence[Path], wanted: Wanted, source: FileSource, label: str, with_revision: bool
) -> Iterator[Row]:
    is_glob = glob.has_magic(source.path)  # row numbers alone would not tell the files apart
    for path in files:
        prefix = f"{path.name}:" if is_glob else ""
        revision = _sha256([path], label) if with_revision else None
        if source.kind == "parquet":
            columns = wanted.of(_parquet_schema(path, label).names)
            rows = _arrow_rows(_parquet_batches(path, columns, label), columns, f"{path.name} row", prefix)
        else:
            rows = _jsonl_rows(path, label, prefix)
        yield from (row._replace(revision=revision) for row in rows)


def _sha256(paths: Sequence[Path], label: str) -> str:
    """Return the digest of a file as `sha256sum` gives it; of several, that of their digests in this order."""
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise SourceError(f"{label}.path: {path} cannot be read: {error}; restore the file") from error
    one = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"sha256:{one}"


def find_files(pattern: str, kind: str, label: str) -> list[Path]:
    """Return the files of a path or glob, by name.

    Raises:
        SourceError: If there is none; says what is near.
    """
    path = Path(pattern).expanduser()
    seen = f"{label}.path={pattern!r}"
    if path.is_file():
        return [path]
    if path.is_dir():
        raise SourceError(f"{seen}: is a folder; name its files, such as {pattern.rstrip('/')}/*.{kind}")
    if not glob.has_magic(pattern):
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings)
        raise SourceError(f"{seen}: no such file; {hint}paths are relative to the working directory, {Path.cwd()}")
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise SourceError(f"{seen}: no file matches; paths are relative to the working directory, {Path.cwd()}")
    return found


# JSONL.


def _open_binary(path: Path) -> BinaryIO | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def _lines(path: Path, label: str) -> Iterator[tuple[int, bytes, bool]]:
    """Yield line number, line (or its start), and whether it is whole; lines of white space are passed over."""
    try:
        with _open_binary(path) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                if not is_whole:
                    line = line[: 4 * MAX_RAW_CHARS]  # four bytes make a character at most
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # the byte order mark that Windows tools write
                if line.strip():
                    yield number, line, is_whole
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{label}.path: {path} cannot be read: {error}; restore the file") from error


def parse_line(line: bytes, *, is_whole: bool) -> tuple[dict[str, Any] | None, str]:
    """Return the object of a JSONL line, or None and what is wrong."""
    if not is_whole:
        return None, f"is longer than {MAX_LINE_BYTES} bytes"
    try:
        body = json.loads(line.decode("utf-8"), parse_int=NumberLiteral, parse_float=NumberLiteral)
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg} at character {error.pos + 1}"
    except RecursionError:
        return None, "is not JSON that can be read: nested too deep"
    if isinstance(body, dict):
        return body, ""
    kind = "a number" if isinstance(body, NumberLiteral | float) else JSON_NAMES[type(body)]
    return None, f"is {kind}, must be an object"


def _jsonl_rows(path: Path, label: str, prefix: str) -> Iterator[Row]:
    for number, line, is_whole in _lines(path, label):
        body, defect = parse_line(line, is_whole=is_whole)
        raw = line[: 4 * MAX_RAW_CHARS].decode("utf-8", "backslashreplace").strip()[:MAX_RAW_CHARS]
        yield Row(number, f"{path.name} line {number}", f"{prefix}{number}", raw, body, defect)


def _check_jsonl_columns(files: Sequence[Path], columns: Mapping[str, str], label: str, what: str) -> None:
    """Look for the mapped columns until each was seen once: usually the first row has them all."""
    missing = dict(columns)
    names: set[str] = set()
    for path in files:
        for _, line, is_whole in _lines(path, label):
            body, _ = parse_line(line, is_whole=is_whole)
            if body is not None:
                names.update(column_names(body))
                missing = {name: key for name, key in missing.items() if lookup(body, name) is MISSING}
            if not missing:
                return
    if names:  # without a single object the rows themselves are what is wrong
        raise _no_column(label, what, missing, names)


# Arrow: Parquet files and datasets.


def _not_parquet(label: str, path: Path, error: Exception) -> SourceError:
    return SourceError(f"{label}.path: {path} is not readable as Parquet: {error}; restore the file or change `kind`")


def _parquet_schema(path: Path, label: str) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _not_parquet(label, path, error) from error


def _parquet_batches(path: Path, columns: Iterable[str], label: str) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            tops = _top_columns(columns, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=tops):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise _not_parquet(label, path, error) from error


def _top_columns(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    return sorted({name if name in names else name.partition(".")[0] for name in columns})


def dataset_rows(source: DatasetSource, wanted: Wanted, label: str) -> Iterator[Row]:
    """Return the rows of what ``datasets.load_dataset`` gives.

    Raises:
        SourceError: If it cannot be loaded, or lacks a mapped column.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    revision, is_local = source.revision, Path(source.path).exists()
    try:
        if not is_local:  # which commit a branch or a tag stands for now: just that is loaded
            found = str(datasets.load_dataset_builder(source.path, source.config, revision=revision).hash)
            revision = found if COMMIT.fullmatch(found) else revision
        loaded = datasets.load_dataset(source.path, source.config, split=source.split, revision=revision)
    except (OSError, ValueError, RuntimeError, LookupError, pa.ArrowException, DatasetsError) as error:
        what = f"path={source.path!r} config={source.config!r} split={source.split!r} revision={source.revision!r}"
        raise SourceError(
            f"{label}: datasets.load_dataset does not load {what}: {error}; "
            "correct these (a name on the Hub needs a network, a local path must hold data files)"
        ) from error
    _check_arrow_columns(loaded.features.arrow_schema, wanted.required, label, f"{source.path} ({source.split})")
    columns = wanted.of(loaded.column_names)
    if is_local:
        revision = _sha256(_local_files(Path(source.path)), label)
    elif not COMMIT.fullmatch(revision or ""):  # from a cache that does not say; a branch may have moved since
        revision = None
    batches = loaded.select_columns(_top_columns(columns, loaded.column_names)).with_format("arrow").iter(BATCH_ROWS)
    rows = _arrow_rows(batches, columns, f"{source.path} row", "")
    return (row._replace(revision=revision) for row in rows)


def _local_files(path: Path) -> list[Path]:
    """Return the files of a local dataset by their names, without hidden ones, as `datasets` sees them."""
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _check_arrow_columns(schema: pa.Schema, columns: Mapping[str, str], label: str, what: str) -> None:
    names = [name for column in schema for name in _arrow_names(column)]
    missing = {name: key for name, key in columns.items() if name not in names}
    if missing:
        raise _no_column(label, what, missing, names)


def _arrow_names(column: pa.Field, prefix: str = "") -> list[str]:
    names = [f"{prefix}{column.name}"]
    if pa.types.is_struct(column.type):
        for i in range(column.type.num_fields):
            names += _arrow_names(column.type.field(i), f"{prefix}{column.name}.")
    return names


def _arrow_rows(batches: Iterable[pa.Table], columns: Iterable[str], where: str, prefix: str) -> Iterator[Row]:
    """Yield one row per row of the batches; its body has the mapped columns under the names they are mapped by."""
    number = 0
    for table in batches:
        arrays = {name: _arrow_column(table, name) for name in columns}
        for i in range(table.num_rows):
            number += 1
            body: dict[str, Any] | None = None
            raw = defect = ""
            try:
                body = {name: _arrow_value(array[i]) for name, array in arrays.items()}
                raw = json.dumps(body, ensure_ascii=False, default=str)[:MAX_RAW_CHARS]
            except (ValueError, OverflowError, pa.ArrowException) as error:  # bytes that are no UTF-8, the year 0
                body, defect = None, f"cannot be read: {error}"
            yield Row(number, f"{where} {number}", f"{prefix}{number}", raw, body, defect)


def _arrow_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name in table.column_names:
        return table.column(name)
    first, *rest = name.split(".")
    return pc.struct_field(table.column(first), rest)


def _arrow_value(scalar: pa.Scalar) -> Any:
    """Return the value; a float as its shortest digits in its own width, so that a 32-bit 0.1 stays 0.1."""
    if scalar.is_valid and pa.types.is_floating(scalar.type):
        return NumberLiteral(scalar.cast(pa.string()).as_py())
    return scalar.as_py()
