"""Benchmarks by name or file: what a user means by ``against``, as fingerprints.

A name is a shipped one; a file is a fingerprint, or JSONL or Parquet of the benchmark's items, which is hashed in
memory and never written. Part of cleaning; `fingerprints` holds the hashes, `decontaminate` compares.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from factory.fingerprints import (
    SHIPPED,
    Fingerprint,
    Item,
    build_fingerprint,
    is_fingerprint,
    read_fingerprint,
    shipped_names,
)
from factory.rows import parse_line
from schemas.errors import ConfigError

ALL_SHIPPED: Final = "shipped"
# Where the datasets that are benchmarks keep what is asked; the first that a row has.
TEXT_COLUMNS: Final = ("problem", "Problem", "question", "Question", "question_content", "prompt", "statement", "text")
TITLE_COLUMNS: Final = ("description",)  # Codeforces: the statement
ID_COLUMNS: Final = ("id", "ID", "task_id", "question_id", "Record ID", "unique_id", "problem_id", "name")


def load_benchmarks(against: Sequence[str], key: str) -> list[Fingerprint]:
    """Return the fingerprints of names and files, each once, in their order; ``key`` stands in front of errors.

    Raises:
        ConfigError: If one is neither a shipped name nor a file that can be read, or two have one name.
    """
    found: dict[str, Fingerprint] = {}
    for asked in against:
        for name in shipped_names() if asked == ALL_SHIPPED else (asked,):
            fingerprint = _load(name, key)
            there = found.setdefault(fingerprint.benchmark.name, fingerprint)
            if there.benchmark.sha256 != fingerprint.benchmark.sha256:
                raise ConfigError(
                    f"{key}: two different benchmarks are called {fingerprint.benchmark.name!r}; "
                    "name the file otherwise, or leave one out"
                )
    return list(found.values())


def _load(name: str, key: str) -> Fingerprint:
    if name in shipped_names():
        return read_fingerprint(SHIPPED / f"{name}.parquet")
    path = Path(name).expanduser()
    if not path.is_file():
        near = difflib.get_close_matches(name, shipped_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{key}: {name!r} is neither a file nor a benchmark that comes with the factory; {hint}"
            f"there are: {ALL_SHIPPED}, {', '.join(shipped_names())}"
        )
    if is_fingerprint(path):
        return read_fingerprint(path)
    version = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return build_fingerprint(path.name.partition(".")[0], version, "unknown", read_items(path))


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a benchmark's file: what is asked, whole, with the file's own ids, or row numbers.

    Raises:
        ConfigError: If the file cannot be read, or a row has none of the known columns.
    """
    for number, body in enumerate(_bodies(path), 1):
        name = next((name for name in (*TEXT_COLUMNS, *TITLE_COLUMNS) if _text_of(body.get(name))), None)
        if name is None:
            raise ConfigError(
                f"{path} row {number}: has no text in any of {', '.join((*TEXT_COLUMNS, *TITLE_COLUMNS))}; "
                f"it has {', '.join(map(str, body)) or 'none'}: rename one"
            )
        row_id = next((body[key] for key in ID_COLUMNS if body.get(key) is not None), number)
        yield Item(str(row_id), _text_of(body[name]))


def _text_of(value: Any) -> str:
    """Return a text, or those of the turns of a conversation that are not the model's."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, Mapping)]
        asked = [turn for turn in turns if turn.get("role", turn.get("from")) not in ("assistant", "gpt")]
        return "\n".join(str(turn.get("content", turn.get("value", ""))) for turn in asked).strip()
    return ""


def question_of(body: Mapping[str, Any]) -> str:
    """Return what a row of a dataset asks, by the names that such columns have; empty if none is there."""
    names = (*TEXT_COLUMNS, *TITLE_COLUMNS, "messages", "conversations")
    return next((text for name in names if (text := _text_of(body.get(name)))), "")


def _bodies(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1_024):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from error
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    body, defect = parse_line(line, is_whole=True)
                    if body is None:
                        raise ConfigError(f"{path} line {number}: {defect}; a benchmark is JSON Lines or Parquet")
                    yield body
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
