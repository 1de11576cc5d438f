"""Benchmarks: the files of known ones, as they come from the Hub, become the frozen rows of an evaluation.

First step of the flow: which benchmark a file is, which of its rows count, and a copy of these inside the run, so that
scores can be computed again without the file. The copy is read by the engine like any other source. Invariant: a row is
copied as it is, or left out by the window of dates; only the packed tests of LiveCodeBench are written out. Nothing in
a file is evaluated or unpickled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import pickletools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from factory.rows import nearest
from factory.storage import AnyPath, write_atomically
from factory.store import RunFolder
from schemas.errors import ConfigError, CorruptRunError

MAX_PACKED_BYTES: Final = 256 << 20  # of one problem's tests, unpacked; guess: LiveCodeBench's largest are tens of MB
MOST_SECONDS: Final = 100_000_000_000  # since 1970, which is the year 5138; as milliseconds it is 1973
ROWS: Final = "rows.jsonl"
ABOUT: Final = "about.json"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark whose rows can be read. The first of the columns named in each tuple that a row has is taken."""

    name: str
    where: str  # on the Hub, or what its rows are
    ready: str | None = None  # the factory's mapping of its rows (factory/mappings.py); else the next three
    problem: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    row_id: tuple[str, ...] = ()  # must be the column that the mapping takes
    marks: tuple[str, ...]  # columns that a file of this shape has
    date: tuple[str, ...] = ()  # by which a window is cut
    groups: tuple[str, ...] = ()  # columns by which scores are split
    rating: str | None = None  # of a problem, for the Elo rating
    contest: str | None = None


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    benchmark.name: benchmark
    for benchmark in (
        # HuggingFaceH4/aime_2024 and Maxwell-Jia/AIME_2024 spell their columns in two ways.
        Benchmark(
            name="aime24",
            where="HuggingFaceH4/aime_2024 or Maxwell-Jia/AIME_2024",
            problem=("problem", "Problem", "question"),
            answer=("answer", "Answer"),
            row_id=("id", "ID"),
            marks=(),
        ),
        Benchmark(
            name="aime25",
            where="math-ai/aime25, yentinglin/aime_2025 or opencompass/AIME2025",
            problem=("problem", "Problem", "question"),
            answer=("answer", "Answer"),
            row_id=("id", "ID"),
            marks=(),
        ),
        Benchmark(
            name="math500",
            where="HuggingFaceH4/MATH-500",
            problem=("problem",),
            answer=("answer",),
            row_id=("unique_id", "id"),
            marks=("unique_id", "subject"),
            groups=("subject", "level"),
        ),
        Benchmark(
            name="gpqa",
            where="Idavidrein/gpqa, config gpqa_diamond (as Parquet)",
            ready="gpqa",
            marks=("Correct Answer", "Incorrect Answer 1"),
            groups=("High-level domain",),
        ),
        Benchmark(
            name="livecodebench",
            where="livecodebench/code_generation_lite (test.jsonl to test6.jsonl)",
            ready="livecodebench",
            row_id=("question_id",),
            marks=("question_content", "public_test_cases"),
            date=("contest_date", "release_date"),
            groups=("difficulty", "platform"),
        ),
        Benchmark(
            name="codeforces",
            where="open-r1/codeforces, config verifiable",
            ready="codeforces",
            row_id=("id",),
            marks=("official_tests", "description"),
            date=("contest_start",),
            rating="rating",
            contest="contest_id",
        ),
        Benchmark(name="gsm8k", where="openai/gsm8k, config main", ready="gsm8k", marks=("question", "answer")),
        Benchmark(
            name="humaneval",
            where="openai/openai_humaneval",
            ready="humaneval",
            row_id=("task_id",),
            marks=("entry_point", "prompt", "test"),
        ),
        Benchmark(
            name="functions",
            where="rows of question, entry and tests (columns: function_tests)",
            ready="function_tests",
            row_id=("id",),
            marks=("question", "entry", "tests"),
        ),
        Benchmark(
            name="answers",
            where="rows of problem and answer",
            problem=("problem", "Problem"),
            answer=("answer", "Answer"),
            row_id=("id", "ID", "unique_id"),
            marks=("problem", "answer"),
            groups=("subject", "level", "domain"),
        ),
    )
}
# In which order a file's columns are compared with the marks: the shapes that say most come first.
_RECOGNISED: Final = ("livecodebench", "codeforces", "gpqa", "humaneval", "functions", "math500", "answers", "gsm8k")


class Window(NamedTuple):
    """Dates (ISO, such as 2024-08-01) between which a row's date must lie, the first included, the second not."""

    since: str | None = None
    before: str | None = None

    def holds(self, day: str) -> bool:
        """Return whether a date is inside; ISO dates and times compare as texts."""
        return (self.since is None or day >= self.since) and (self.before is None or day < self.before)

    def __str__(self) -> str:
        if self.before is None:
            return "of all dates" if self.since is None else f"from {self.since} on"
        return f"before {self.before}" if self.since is None else f"from {self.since} to before {self.before}"

    @property
    def flags(self) -> str:
        """How a user asks for it."""
        given = (("--since", self.since), ("--before", self.before))
        return " ".join(f"{flag} {day}" for flag, day in given if day is not None) or "--all-dates"


def window_of(since: str | None, before: str | None) -> Window:
    """Return the window between two dates.

    Raises:
        ConfigError: If one is no date, or they leave no day.
    """
    for flag, text in (("--since", since), ("--before", before)):
        try:
            if text is not None and date.fromisoformat(text).isoformat() != text:
                raise ValueError(text)
        except ValueError:
            raise ConfigError(f"{flag} {text!r}: must be a date such as 2024-08-01") from None
    if since is not None and before is not None and since >= before:
        raise ConfigError(f"--since {since} --before {before}: leave no day")
    return Window(since, before)


NO_WINDOW: Final = Window()


def find_benchmark(name: str, data: Path | None) -> tuple[Benchmark, Path]:
    """Return what ``--benchmark`` and ``--data`` mean: a known name and its file, or a file known by its columns.

    Raises:
        ConfigError: If the name is unknown, or the file is missing or of no known shape.
    """
    if name in BENCHMARKS:
        benchmark = BENCHMARKS[name]
        if data is None:
            raise ConfigError(
                f"--benchmark {name}: give its file by --data FILE, JSON Lines or Parquet as it comes from the Hub: "
                f"{benchmark.where}"
            )
        return benchmark, _existing(data, "--data")
    if data is not None and Path(name).is_file():
        raise ConfigError(f"--benchmark {name}: is a file, which is known by its columns; leave out --data, or name it")
    if data is not None or not Path(name).exists():
        hint = nearest(name, BENCHMARKS)
        raise ConfigError(
            f"--benchmark {name!r}: is no known benchmark and no file; {hint}there are: {', '.join(BENCHMARKS)}"
        )
    path = _existing(Path(name), "--benchmark")
    columns = next((read.row.keys() for read in read_rows(path)), {}.keys())
    for known in _RECOGNISED:
        if set(BENCHMARKS[known].marks) <= columns:
            return BENCHMARKS[known], path
    raise ConfigError(
        f"--benchmark {path}: no known benchmark has the columns of its rows ({', '.join(sorted(columns)) or 'none'}); "
        "name the benchmark and give the file by --data, or rename columns to problem and answer"
    )


def _existing(path: Path, flag: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{flag} {path}: is no file; give one of JSON Lines (.jsonl) or Parquet (.parquet)")
    return path


class Read(NamedTuple):
    """A row, and its line: that of the file, so that numbers keep their digits, or made from Parquet."""

    row: Row
    line: str


def read_rows(path: Path) -> Iterator[Read]:
    """Yield the rows of a JSON Lines or Parquet file.

    Raises:
        ConfigError: If the file cannot be read as what its name says.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256):
                    yield from (Read(row, _line(row)) for row in batch.to_pylist())
            return
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = _parsed(line, f"{path} line {number}")
                    if not isinstance(row, dict):
                        raise ConfigError(f"{path} line {number}: must be an object")
                    yield Read(row, line.strip())
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as {path.suffix or 'JSON Lines'}: {error}") from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # its own place is that within the line
        raise ConfigError(f"{where}: is no JSON: {getattr(error, 'msg', error)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is evaluated: stands in the run, and must stay what it is."""

    benchmark: str
    file: str  # its name, without its folder
    sha256: str  # of the file
    window: Window
    num_rows: int  # of the file
    num_kept: int  # inside the window


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)


def freeze_benchmark(
    benchmark: Benchmark, path: Path, window: Window, run: Path, chosen_by: str = "--since, --before"
) -> About:
    """Copy the benchmark's rows into ``run/benchmark`` and return what they are; a copy that is there must be the same.

    Raises:
        ConfigError: If a column or a date is missing, no row is left, or the run is no evaluation or holds another
            benchmark; ``chosen_by`` says whose window it is.
    """
    if not benchmark.date and window != NO_WINDOW:
        raise ConfigError(f"--since, --before: rows of {benchmark.name} have no dates")
    lines, num_rows = [], 0
    for row, line in read_rows(path):
        num_rows += 1
        if window != NO_WINDOW:
            day = _date(row, benchmark)
            if day is None:
                raise ConfigError(
                    f"{path} row {num_rows}: has no date in {' or '.join(benchmark.date)}, and {chosen_by} takes rows "
                    f"{window}; give a file that has dates, or --all-dates for every row"
                )
            if not window.holds(day):
                continue
        open_row = unpacked(row) if benchmark.ready == "livecodebench" else row
        lines.append(line if open_row is row else _line(open_row))
    if not lines:
        dates = f" {window} ({chosen_by}); --all-dates takes every row" if num_rows else ""
        raise ConfigError(f"{path}: holds no row{dates}")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    about = About(
        benchmark=benchmark.name,
        file=path.name,
        sha256=sha256,
        window=window,
        num_rows=num_rows,
        num_kept=len(lines),
    )
    _write(about, "\n".join(lines) + "\n", run / "benchmark")
    return about


def _date(row: Row, benchmark: Benchmark) -> str | None:
    """Return when a row's problem came out, in ISO form; None where no column of it is a date."""
    value = next((row[name] for name in benchmark.date if row.get(name) not in (None, "")), None)
    try:
        if isinstance(value, int | float):  # seconds, as Codeforces has them, or milliseconds, as pandas writes them
            return datetime.fromtimestamp(value / 1000 if value > MOST_SECONDS else value, UTC).isoformat()
        return None if value is None else datetime.fromisoformat(str(value)).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _write(about: About, rows: str, folder: Path) -> None:
    """Write both files; rows that are the same keep their time of change, so that sources need not be read again."""
    there = read_about(folder.parent)
    has_run = RunFolder(folder.parent).find_manifest() is not None
    if there is None and has_run:  # its selection may make training data of what it holds
        raise ConfigError(f"--run {folder.parent}: holds a run that is no evaluation; give another --run")
    if there is not None and there != about and has_run:
        is_window = replace(there, window=about.window, num_kept=about.num_kept) == about
        raise ConfigError(
            f"{folder.parent}: evaluates {_shown(there)}, and this is {_shown(about)}; give another folder by --run"
            + (f", or the dates that it was begun with: {there.window.flags}" if is_window else "")
        )
    folder.mkdir(parents=True, exist_ok=True)
    data = rows.encode("utf-8")
    if not (folder / ROWS).exists() or (folder / ROWS).read_bytes() != data:
        write_atomically(folder / ROWS, data)
    body = {name: getattr(about, name) for name in About.__dataclass_fields__}
    write_atomically(folder / ABOUT, json.dumps(body | {"window": list(about.window)}, indent=1).encode())


def _shown(about: About) -> str:
    return f"{about.benchmark}, {about.file} (sha256 {about.sha256[:12]}), rows {about.window}"


def read_about(run: AnyPath) -> About | None:
    """Return what a run evaluates; None where it is no evaluation.

    Raises:
        CorruptRunError: If the file says something else.
    """
    path = run / "benchmark" / ABOUT
    try:
        body = json.loads(path.read_bytes())
        return About(**body | {"window": Window(*body["window"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise CorruptRunError(f"{path}: is not what an evaluation wrote: {error}; put it back from a copy") from error


def refuse_evaluation(run: AnyPath) -> None:
    """See that a folder is free for training data.

    Raises:
        ConfigError: If it holds the rows of a benchmark.
    """
    about = read_about(run) if isinstance(run, Path) else None  # an evaluation is never begun on an object store
    if about is not None:
        raise ConfigError(
            f"--run {run}: evaluates {_shown(about)}: its rows are never training data; give another --run, or go on "
            "by factory evaluate"
        )


def read_frozen(run: AnyPath, benchmark: Benchmark) -> dict[str, Row]:
    """Return the frozen rows by the id that their problems have in the run (``source_row_id``), without their tests.

    Raises:
        CorruptRunError: If the copy is gone.
    """
    wanted = {name for name in (*benchmark.groups, benchmark.rating, benchmark.contest, *benchmark.date) if name}
    path = run / "benchmark" / ROWS
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CorruptRunError(f"{path}: cannot be read: {error}; put it back from a copy") from error
    found = {}
    for number, line in enumerate(filter(None, lines), 1):
        row = json.loads(line)
        column = next((name for name in benchmark.row_id if row.get(name) not in (None, "")), None)
        found[str(number if column is None else row[column])] = {name: row.get(name) for name in wanted}
    return found


# LiveCodeBench's packed tests.


def unpacked(row: Row) -> Row:
    """Return a row of LiveCodeBench with its hidden tests as JSON.

    They are published as base64 of a zlib stream of a pickled text of JSON (lcb_runner/benchmarks/code_generation.py).
    The pickle is read as a list of operations, of which only those that make one text are allowed.

    Raises:
        ConfigError: If they are packed in any other way.
    """
    packed = row.get("private_test_cases")
    if not isinstance(packed, str) or packed.lstrip()[:1] in ("", "["):
        return row
    where = f"question_id {row.get('question_id')!r}: private_test_cases"
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(packed, validate=True), MAX_PACKED_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ConfigError(f"{where}: is neither JSON nor packed as LiveCodeBench does: {error}") from error
    if not stream.eof:
        raise ConfigError(f"{where}: breaks off, or unpacks to more than {MAX_PACKED_BYTES} bytes")
    return {**row, "private_test_cases": pickled_text(data, where)}


_TEXTS: Final = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_AROUND: Final = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}


def pickled_text(data: bytes, where: str) -> str:
    """Return the one text that a pickle holds, without running it.

    Raises:
        ConfigError: If it holds anything else.
    """
    texts = []
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name in _TEXTS:
                texts.append(argument)
            elif operation.name not in _AROUND:
                raise ConfigError(f"{where}: its pickle does more than hold a text ({operation.name}); not opened")
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: is no whole pickle: {error}") from error
    if len(texts) != 1:
        raise ConfigError(f"{where}: its pickle holds {len(texts)} texts, must be one")
    return str(texts[0])
