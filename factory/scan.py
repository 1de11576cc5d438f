"""Published datasets against benchmarks: which rows quote an item, in which column, and the files without them.

For `factory decontaminate`, beside the flow of a run. Every text of a row is looked at, however deep it lies, so a
trace that quotes a benchmark is found as well as a problem that is one. Invariants: a row is either copied as it is or
listed with its evidence; JSON Lines keep their bytes, Parquet files their schema. Holds one batch of rows at a time.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from factory.benchmarks import question_of
from factory.decontaminate import Match, Protection
from factory.duplicates import find_duplicates
from factory.rows import MAX_LINE_BYTES, parse_line
from schemas.errors import ConfigError

BATCH_ROWS: Final = 1_024
MIN_CHARS: Final = 8  # of a text that can be an item of a benchmark
ID_COLUMNS: Final = ("id", "trace_id", "problem_id", "uuid", "task_id")
DROPPED: Final = "dropped.jsonl"
_Place = tuple[int, int]  # number of the file, number of the row
_TEXTS: Final = pa.schema([pa.field("text", pa.large_string())])


class _Row(NamedTuple):
    number: int  # from 1; the line number in JSON Lines
    body: Mapping[str, Any] | None  # None: no JSON object; such a line is copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A row that is, or quotes, an item of a benchmark; or is nearly the same problem as an earlier row."""

    file: str
    row: int
    row_id: str | None
    column: str
    reason: str  # contaminated | near_duplicate
    match: Match | None
    like_row: int | None = None  # the row of `like_file` that is kept
    like_file: str | None = None
    similarity: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the evidence as JSON values."""
        body = asdict(self)
        match = body.pop("match")
        return {**body, **({} if match is None else match)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found in files."""

    num_rows: int
    num_chars: int  # of the texts that were looked at
    dropped: tuple[Dropped, ...]


def scan_files(
    paths: Sequence[Path],
    protection: Protection,
    *,
    columns: Sequence[str] = (),
    near_duplicates: float | None = None,
    out: Path | None = None,
    done: Callable[[int], None] = lambda rows: None,
) -> Scan:
    """Return what is wrong with the rows of files; with ``out`` write each file without those rows there.

    ``columns`` restricts which top-level columns are looked at. With ``near_duplicates``, a Jaccard similarity, rows
    whose question is nearly that of an earlier row, with the same numbers, are dropped too.

    Raises:
        ConfigError: If a file cannot be read, a column is nowhere, or ``out`` cannot be written.
    """
    if out is not None:
        _check_out(paths, out)
    found: dict[_Place, Dropped] = {}
    num_rows = num_chars = 0
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="factory-scan-") as folder:
        questions = _Questions(Path(folder) / "questions.arrow")
        for number, path in enumerate(paths):
            for row in _rows(path):
                body = {} if row.body is None else row.body
                seen.update(name for name in columns if name in body)
                match, column, size = _first_match(body, protection, columns)
                num_rows, num_chars = num_rows + 1, num_chars + size
                if match is not None:
                    found[number, row.number] = _dropped(path, row, column, match)
                elif near_duplicates is not None:
                    questions.add((number, row.number), question_of(body))
                if num_rows % BATCH_ROWS == 0:
                    done(num_rows)
        if missing := [name for name in columns if name not in seen]:
            raise ConfigError(f"--column {missing[0]!r}: no row has it; leave it out to look at all texts")
        if near_duplicates is not None:
            found |= _near_duplicates(paths, questions, near_duplicates)
    dropped = tuple(found[key] for key in sorted(found))
    if out is not None:
        for number, path in enumerate(paths):
            _write_without(path, {row for file, row in found if file == number}, out / path.name)
        lines = [json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in dropped]
        (out / DROPPED).write_text("".join(lines), encoding="utf-8")
    return Scan(num_rows=num_rows, num_chars=num_chars, dropped=dropped)


class _Questions:
    """What is asked in each row, on disk: they are read again where two of them are compared."""

    def __init__(self, path: Path) -> None:
        self.places: list[_Place] = []
        self._path = path
        self._writer = pa.ipc.new_file(str(path), _TEXTS)
        self._batch: list[str] = []

    def add(self, place: _Place, text: str) -> None:
        self.places.append(place)
        self._batch.append(text)
        if len(self._batch) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(pa.record_batch([pa.array(self._batch, pa.large_string())], schema=_TEXTS))
        self._batch = []

    def read(self) -> pa.ChunkedArray:
        """Return all of them, mapped into memory; nothing can be added after that."""
        self._flush()
        self._writer.close()
        return pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()["text"]


def _near_duplicates(paths: Sequence[Path], questions: _Questions, threshold: float) -> dict[_Place, Dropped]:
    found = {}
    for near in find_duplicates(questions.read(), threshold=threshold, same_numbers=True).to_pylist():
        number, row = questions.places[near["row"]]
        like_number, like_row = questions.places[near["representative"]]
        found[number, row] = Dropped(
            file=str(paths[number]),
            row=row,
            row_id=None,
            column="",
            reason="near_duplicate",
            match=None,
            like_row=like_row,
            like_file=str(paths[like_number]),
            similarity=round(near["similarity"], 4),
        )
    return found


def _first_match(
    body: Mapping[str, Any], protection: Protection, columns: Sequence[str]
) -> tuple[Match | None, str, int]:
    size = 0
    for column, text in _texts({name: body[name] for name in columns if name in body} if columns else body):
        size += len(text)
        if len(text) >= MIN_CHARS and (match := protection.find(text)) is not None:
            return match, column, size
    return None, "", size


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text inside a value with the way to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{path}.{place}")


def _dropped(path: Path, row: _Row, column: str, match: Match) -> Dropped:
    body = row.body or {}
    row_id = next((str(body[name]) for name in ID_COLUMNS if body.get(name) is not None), None)
    return Dropped(file=str(path), row=row.number, row_id=row_id, column=column, reason="contaminated", match=match)


# Files.


def _rows(path: Path) -> Iterator[_Row]:
    number = 0
    if path.suffix == ".parquet":
        for batch in _parquet_batches(path):
            for body in batch.to_pylist():
                number += 1
                yield _Row(number, body)
        return
    for number, line in _lines(path):
        body, _ = parse_line(line, is_whole=True)
        yield _Row(number, body)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _opened(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                yield number, line
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _opened(path: Path, mode: str) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode))


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=BATCH_ROWS)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from error


def _check_out(paths: Sequence[Path], out: Path) -> None:
    names = [path.name for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--out {out}: two of the files are called {twice[0]}; clean them one by one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be made a folder: {error.strerror}; give another") from error
    for path in paths:
        if (out / path.name).resolve() == path.resolve():
            raise ConfigError(f"--out {out}: is where {path.name} lies; give another folder")


def _write_without(path: Path, rows: set[int], target: Path) -> None:
    """Write a file without some of its rows, aside first: a file under its name is whole."""
    aside = target.with_name(target.name + ".tmp")
    if path.suffix == ".parquet":
        number = 0
        with pq.ParquetFile(path) as file, pq.ParquetWriter(aside, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                kept = [number + place + 1 not in rows for place in range(len(batch))]
                number += len(batch)
                writer.write_batch(batch.filter(pa.array(kept, pa.bool_())))
    else:
        with gzip.open(aside, "wb") if path.suffix == ".gz" else aside.open("wb") as file:
            for number, line in _lines(path):
                if number not in rows:
                    file.write(line)
    aside.rename(target)
