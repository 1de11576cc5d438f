"""Export: the tables of a selection as files that a trainer reads as they are.

After `tables`; reads a selection's folder, of a run or a downloaded copy, and writes one folder. Row by row, in the
order of the tables, so memory does not grow with them. Invariants: the folder appears whole or not at all; the same
tables give the same bytes; a row is written or counted as left out, with its reason. How rows look is `layouts`'.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from factory.layouts import LAYOUTS, VALIDATION, Layout, LeftOut, Part, Row, json_line
from factory.published import TableFolder
from factory.rows import nearest
from factory.shards import COMPRESSION_LEVEL
from factory.storage import AnyPath, parquet_source, sync_folder
from schemas.errors import ConfigError, StoreError
from schemas.manifest import Shard
from schemas.tables import SCHEMAS

EXPORT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
README: Final = "README.md"
WORK_SUFFIX: Final = ".export.tmp"  # of the folder, beside the target, in which an export is built
SPLITS: Final = ("train", VALIDATION)
BATCH_ROWS: Final = 64  # read at a time: at 2 MB a row, which the Hub's viewer takes at most, 128 MB
ROW_GROUP_BYTES: Final = 64 << 20  # of text, in a Parquet file
MAX_ODD: Final = 5  # files or columns that an error names
_TOKENS: Final = ("num_tokens", "chosen_tokens", "rejected_tokens")

Watch = Callable[[int], None]  # called with the number of rows done


@dataclass(slots=True)
class Exported:
    """What was written. Rows of a table = those of its files + those left out."""

    folder: Path
    format: str
    selection_digest: str
    files: list[Shard] = field(default_factory=list)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)  # rows by table and reason
    longest_tokens: dict[str, int] = field(default_factory=dict)  # of a completion, as the table counts
    hints: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)


def selection_folder(path: AnyPath, selection: str | None) -> AnyPath:
    """Return the folder of a selection: ``path`` itself, or that of a run's selection (default: its job's).

    Raises:
        ConfigError: If there is none.
    """
    if selection is None and (path / MANIFEST).exists():
        return path
    from factory.store import RunFolder

    name = selection or str(RunFolder(path).manifest().config["select"]["name"])
    folder = RunFolder(path).tables / name
    if not (folder / MANIFEST).exists():
        there = sorted({found.parent.name for found in RunFolder(path).tables.glob(f"*/{MANIFEST}")})
        raise ConfigError(
            f"{folder}: holds no tables; {nearest(name, there)}there are: {', '.join(there) or 'none'}: build them "
            f"with `factory select {path}`"
        )
    return folder


def export_selection(folder: AnyPath, format_name: str, out: Path, watch: Watch) -> Exported:
    """Write a selection's tables as ``format_name``; return what was written. A former export is replaced.

    Raises:
        ConfigError: If there is no such format, the folder is no selection of this version, the target holds anything
            else, or no row is left.
        StoreError: If files of the tables that it takes are not as the manifest says, or lack a column.
    """
    if format_name not in LAYOUTS:
        hint = nearest(format_name, LAYOUTS)
        raise ConfigError(f"--format {format_name!r}: is none of {', '.join(LAYOUTS)}; {hint}".rstrip("; "))
    out = out.resolve()
    _check_target(out)
    source, layout = TableFolder(folder), LAYOUTS[format_name]
    _check(source, layout)
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in out.parent.iterdir():  # of exports that were killed
        if path.name.startswith(f".{out.name}.") and path.name.endswith(WORK_SUFFIX):
            shutil.rmtree(path, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=WORK_SUFFIX, dir=out.parent))
    try:
        built = work / "built"
        built.mkdir()
        exported = _write(source, layout, built, Exported(out, format_name, source.manifest["selection_digest"]), watch)
        sync_folder(built)
        put_in_place(built, out, work / "replaced")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return exported


def put_in_place(built: Path, out: Path, aside: Path) -> None:
    """Move an export to its name; a former one goes ``aside``, or stays where the new one cannot take its place."""
    is_there = out.exists()
    if is_there:
        out.rename(aside)
    try:
        built.rename(out)
    except OSError:
        if is_there:
            aside.rename(out)
        raise
    sync_folder(out.parent)


def _check_target(out: Path) -> None:
    """Refuse a target that cannot be replaced, or holds anything but a former export."""
    if out == Path.cwd():
        raise ConfigError(f"--out {out}: is the folder that you are in, which is not replaced; give one inside of it")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; give a folder that is empty or not there yet")
    names = {path.name for path in out.iterdir()}
    others = names - _names_of_export(out)
    if others:
        some = ", ".join(sorted(others)[:5]) + (", ..." if len(others) > 5 else "")
        raise ConfigError(f"--out {out}: holds other files ({some}); give a folder that is empty or not there yet")


def _names_of_export(out: Path) -> set[str]:
    """Return the names that the manifest of a former export gives; none where there is no such manifest."""
    try:
        body = json.loads((out / MANIFEST).read_bytes())
        return {MANIFEST, *(str(file["name"]) for file in body["files"])} if body["kind"] == "export" else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


# Reading.


def _check(source: TableFolder, layout: Layout) -> None:
    """Check the files of the tables that a layout is made of: that they are the manifest's, and have its columns.

    Raises:
        StoreError: If not; names the first of them.
    """
    tables = {part.table for part in layout.parts if part.table in source.names}
    odd = list(islice(chain(source.check_files(tables), source.check_columns(tables)), MAX_ODD))
    if odd:
        said = "".join(f"\n  {one.message}" for one in odd)
        raise StoreError(
            f"{source.path}: its files are not those of its manifest; run `factory select` again, or fetch the folder "
            f"again:{said}"
        )


def _rows(path: AnyPath, columns: tuple[str, ...]) -> Iterator[list[Row]]:
    """Yield the rows of a file, a batch at a time.

    Raises:
        StoreError: If it is not readable.
    """
    try:
        with pq.ParquetFile(parquet_source(path)) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                yield batch.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}; run `factory select` again") from error


# Writing.


class _Writer(Protocol):
    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:
        """Finish the file; it is durable then."""


class _Lines:
    """A file of JSON Lines."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("xb")

    def write(self, row: Row) -> None:
        self._file.write(json_line(row))

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class _Parquet:
    """A Parquet file, cut into row groups by the bytes of its text."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._rows: list[Row] = []
        self._num_bytes = 0
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=COMPRESSION_LEVEL, write_page_index=True
        )

    def write(self, row: Row) -> None:
        self._rows.append(row)
        self._num_bytes += _text_bytes(row)
        if self._num_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._rows, self._num_bytes = [], 0

    def close(self) -> None:
        if self._rows:
            self._write_group()
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _write(source: TableFolder, layout: Layout, built: Path, exported: Exported, watch: Watch) -> Exported:
    names: dict[str, dict[str, str]] = {}
    absent = []
    for part in layout.parts:
        assert set(part.columns) <= set(SCHEMAS[part.table].names), "a column that no table has"
        if part.table not in source.names:
            absent.append(part.table)
            continue
        for split in SPLITS:
            _write_split(source, part, split, built, exported, names, watch)
    if not exported.num_rows:
        raise ConfigError(_nothing(exported, absent))
    exported.hints = (*layout.hints, *_findings(exported, absent))
    texts = {**layout.settings(names), README: _readme(exported)}
    for name, text in texts.items():
        _write_text(built / name, text)
        exported.files.append(_shard(built / name, 0))
    _write_text(built / MANIFEST, _manifest(exported))
    return exported


def _write_split(
    source: TableFolder,
    part: Part,
    split: str,
    built: Path,
    exported: Exported,
    names: dict[str, dict[str, str]],
    watch: Watch,
) -> None:
    """Write a split, if it has rows."""
    suffix = "jsonl" if part.schema is None else "parquet"
    path = built / f"{part.stem}_{split}.{suffix}"
    writer: _Writer | None = None
    num_rows, done = 0, exported.num_rows
    left_out: Counter[str] = Counter()
    try:
        for file in source.files(part.table, split):
            for batch in _rows(file, part.columns):
                for row in batch:
                    try:
                        shown = part.to_row(row)
                    except LeftOut as error:
                        left_out[str(error)] += 1
                        continue
                    if writer is None:
                        writer = _Lines(path) if part.schema is None else _Parquet(path, part.schema)
                    writer.write(shown)
                    num_rows += 1
                    _note_longest(exported, part.table, row)
                watch(done + num_rows)
    finally:
        if writer is not None:
            writer.close()
    if left_out:
        counts = Counter(exported.left_out.get(part.table, {})) + left_out
        exported.left_out[part.table] = dict(sorted(counts.items()))
    if num_rows:
        names.setdefault(part.table, {})[split] = path.name
        exported.files.append(_shard(path, num_rows))


def _note_longest(exported: Exported, table: str, row: Row) -> None:
    counts = [row[name] for name in _TOKENS if row.get(name) is not None]
    if counts:
        exported.longest_tokens[table] = max(exported.longest_tokens.get(table, 0), *counts)


def _shard(path: Path, rows: int) -> Shard:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=path.name, rows=rows, num_bytes=path.stat().st_size, sha256=sha256)


def _write_text(path: Path, text: str) -> None:
    with path.open("xb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _nothing(exported: Exported, absent: list[str]) -> str:
    said = [f"{table}: {count:,} x {reason}" for table, reason, count in _left_out(exported)]
    said += [f"{table}: not written by this selection (select.configs)" for table in absent]
    return f"--format {exported.format}: no row is left to write: {'; '.join(said) or 'the tables are empty'}"


def _left_out(exported: Exported) -> Iterator[tuple[str, str, int]]:
    for table, reasons in exported.left_out.items():
        for reason, count in reasons.items():
            yield table, reason, count


def _findings(exported: Exported, absent: list[str]) -> list[str]:
    lines = [
        f"The longest completion of {table} has {count:,} tokens as its num_tokens counts, its prompt not counted."
        for table, count in exported.longest_tokens.items()
    ]
    lines += [f"Left out of {table}: {count:,} rows: {reason}." for table, reason, count in _left_out(exported)]
    lines += [f"This selection has no table {table} (select.configs)." for table in absent]
    return lines


def _readme(exported: Exported) -> str:
    rows = "\n".join(f"| `{file.name}` | {file.rows:,} |" for file in exported.files)
    hints = "\n".join(f"- {hint}" for hint in exported.hints)
    return (
        f"# Export for {exported.format}\n\nFrom the selection `{exported.selection_digest}`; rows are in the order of "
        f"its tables.\n\n| file | rows |\n|---|---|\n{rows}\n\n{hints}\n"
    )


def _manifest(exported: Exported) -> str:
    # Without a date or a path: the same tables give the same bytes.
    body: dict[str, Any] = {
        "version": EXPORT_VERSION,
        "kind": "export",
        "format": exported.format,
        "selection_digest": exported.selection_digest,
        "files": [asdict(file) for file in exported.files],
        "left_out": exported.left_out,
        "longest_tokens": exported.longest_tokens,
        "pyarrow": pa.__version__,
    }
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def as_body(exported: Exported) -> Mapping[str, Any]:
    """Return what was written as JSON values."""
    return {**asdict(exported), "folder": str(exported.folder)}


def _text_bytes(value: Any) -> int:
    """Return about how many bytes a value takes in Arrow: its texts, and eight bytes for anything else."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8"))
    if isinstance(value, dict):
        return sum(_text_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_text_bytes(item) for item in value)
    return 8
