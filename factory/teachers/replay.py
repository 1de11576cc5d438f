"""The replay teacher: recorded completions of JSONL or Parquet files become traces, to be judged like any other.

A problem's recorded completions, in the order of the files, are its attempts 0, 1, 2, ... They are matched by the text
of the question (``problem_id``), so a recording needs no ids of ours. Only their places are held in memory; texts are
read when they are asked for. Invariant: a completion is replayed to the letter or not at all. Nothing is sampled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from factory.prompts import load_counter
from factory.rows import (
    MAX_LINE_BYTES,
    MISSING,
    NumberLiteral,
    column_names,
    find_files,
    listed,
    lookup,
    nearest,
    parse_line,
    shown,
)
from factory.teachers import Completion, EngineInfo, Request
from schemas.config import ReplayTeacher
from schemas.errors import NotRecordedError, SourceError, TeacherError
from schemas.problem import Domain, Message, Problem
from schemas.trace import THINK_CLOSE, THINK_OPEN, FinishReason

LABEL: Final = "teacher"  # the part of the job file that messages name
ROWS_LOOKED_AT: Final = 100  # in search of the columns: a row may lack an optional one
MAX_SHOWN_IDS: Final = 5
TRUE_WORDS: Final = ("true", "correct", "1", "1.0", "yes")
FALSE_WORDS: Final = ("false", "incorrect", "wrong", "0", "0.0", "no")
READ_AHEAD: Final = 64  # attempts that wait for a completion at a time: they are read from a file one by one
# What publishers write for how a completion ended, beside the engine's own words.
FINISH_WORDS: Final = {"eos": FinishReason.STOP, "end_turn": FinishReason.STOP, "max_tokens": FinishReason.LENGTH}


class Place(NamedTuple):
    """Where a completion is: file, row (byte offset in JSONL; row group and row in it in Parquet), item of a list."""

    file: int
    offset: int
    row: int
    item: int | None


@dataclass(slots=True)
class Recording:
    """The places of all completions, by problem id."""

    teacher: ReplayTeacher
    files: Sequence[Path]
    columns: Sequence[tuple[str, ...]]  # of each file, as far as they are read; empty for JSONL
    places: dict[str, list[Place]] = field(default_factory=dict)
    num_completions: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # rows and completions that cannot be replayed, by why

    def attempts(self, problem_id: str) -> Sequence[Place]:
        """Return the places of a problem's attempts, in order."""
        return self.places.get(problem_id, ())

    @property
    def most_attempts(self) -> int:
        """The largest number of attempts at one problem."""
        return max(map(len, self.places.values()), default=0)

    def findings(self, problem_ids: Sequence[str], num_samples: int) -> list[str]:
        """Return what a user should know of a recording and a run's problems, one line each.

        Raises:
            SourceError: If no completion answers any of the problems.
        """
        found = [len(self.attempts(problem_id)) for problem_id in problem_ids]
        if not any(found):
            raise SourceError(
                f"{LABEL}.path={self.teacher.path!r}: none of its {self.num_completions:,} completions answers one of "
                f"the {len(problem_ids):,} problems of `sources`: the questions must be the same but for white space"
            )
        left_out = sum(max(0, count - num_samples) for count in found)
        lines = {
            f"completions beyond sampling.num_samples={num_samples} are left out": left_out,
            "completions answer no problem of the run, and are left out": self.num_completions - sum(found),
            "problems have no recorded completion": found.count(0),
            **{f"{what} was skipped": count for what, count in self.skipped.items()},
        }
        found_lines = [f"recording: {count:,} x {line}" for line, count in lines.items() if count > 0]
        if self.teacher.tokenizer == "bytes" and self.teacher.columns.num_tokens is None:
            found_lines.append("recording: tokens are counted as bytes of UTF-8; name a tokenizer: teacher.tokenizer")
        return found_lines

    def read(self, place: Place) -> Mapping[str, Any]:
        """Return the row of a place."""
        path = self.files[place.file]
        if path.suffix == ".parquet":
            row: dict[str, Any] = _row_group(path, place.offset, self.columns[place.file])[place.row]
            return row
        with path.open("rb") as file:
            file.seek(place.offset)
            body, defect = parse_line(file.readline(MAX_LINE_BYTES), is_whole=True)
        if body is None:
            raise TeacherError(
                f"{path}, byte {place.offset}: {defect}; the recording was changed while it was replayed"
            )
        return body


def open_recording(teacher: ReplayTeacher) -> Recording:
    """Return the index of a recording, read through once.

    Raises:
        SourceError: If a file cannot be read, lacks a column, or names one attempt twice with different texts.
    """
    files = find_files(_path(teacher), "parquet", LABEL)
    recording = Recording(teacher, files, [_columns_to_read(teacher, path) for path in files])
    domains = teacher.domains or tuple(Domain)
    seen: dict[str, bytes] = {}
    clashes: list[str] = []
    for number, path in enumerate(recording.files):
        for count, (offset, row, body) in enumerate(_bodies(path, recording.columns[number], teacher), 1):
            if body is None:
                recording.skipped["a row that cannot be read"] += 1
                continue
            problem_ids = _problem_ids(body, teacher, domains)
            if not problem_ids:
                recording.skipped["a row without a question"] += 1
                continue
            if (clash := _note_id(body, teacher, seen)) is not None:
                if clash:
                    clashes.append(f"{clash} ({path.name} row {count})")
                else:
                    recording.skipped["the same attempt again"] += 1
                continue
            for item in _items(body, teacher, recording.skipped):
                recording.num_completions += 1
                for problem_id in problem_ids:
                    recording.places.setdefault(problem_id, []).append(Place(number, offset, row, item))
    if clashes:
        more = f" and {len(clashes) - MAX_SHOWN_IDS} more" if len(clashes) > MAX_SHOWN_IDS else ""
        raise SourceError(
            f"{LABEL}.columns.id={teacher.columns.id!r}: the same id stands before different completions: "
            f"{', '.join(clashes[:MAX_SHOWN_IDS])}{more}; give a column that tells attempts apart, or leave it out"
        )
    if not recording.num_completions:
        raise SourceError(f"{LABEL}.path={teacher.path!r}: holds no completion; {_said(recording.skipped)}")
    return recording


def hash_recording(teacher: ReplayTeacher) -> str:
    """Return a hash of the files' bytes and of what is read from them: what tells two recordings apart.

    Raises:
        SourceError: If there is no such file.
    """
    total = hashlib.sha256(json.dumps([teacher.columns.model_dump(), teacher.tokenizer]).encode())
    for path in find_files(_path(teacher), "parquet", LABEL):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


class ReplayEngine:
    """Answers a problem's n-th attempt with its n-th recorded completion."""

    def __init__(self, config: ReplayTeacher) -> None:
        self._config = config
        self._recording: Recording | None = None
        self._count = load_counter(config.tokenizer)
        self._num_tokens_out = 0

    async def start(self) -> EngineInfo:
        """Read the recording through once."""
        try:
            self._recording = await asyncio.to_thread(open_recording, self._config)
        except SourceError as error:
            raise TeacherError(str(error)) from error
        return EngineInfo(
            engine="replay",
            engine_version="1",
            max_model_len=None,
            max_num_seqs=READ_AHEAD,
            max_num_batched_tokens=None,
            settings=self._config.model_dump(mode="json") | {"skipped": dict(self._recording.skipped)},
        )

    async def generate(self, request: Request) -> Completion:
        """Return a recorded completion.

        Raises:
            NotRecordedError: If there are not as many for this problem.
        """
        assert self._recording is not None, "start() comes first"
        places = self._recording.attempts(request.problem_id)
        if request.sample_index >= len(places):
            raise NotRecordedError(
                f"attempt {request.sample_index} at problem {request.problem_id}: the recording has {len(places)}"
            )
        place = places[request.sample_index]
        completion = self._completion(self._recording.read(place), place.item)
        self._num_tokens_out += completion.num_tokens
        await asyncio.sleep(0)  # one long queue of them must not starve the journal
        return completion

    async def abort(self, request_id: str) -> None:
        """Do nothing: an answer is there as soon as it is asked for."""

    @property
    def num_tokens_out(self) -> int:
        """Tokens replayed so far."""
        return self._num_tokens_out

    async def close(self) -> None:
        """Forget the recording."""
        self._recording = None

    def _completion(self, body: Mapping[str, Any], item: int | None) -> Completion:
        columns, now_us = self._config.columns, time.time_ns() // 1000
        text = _recorded_text(body, self._config, item)
        counted = _value(body, columns.num_tokens, item)
        return Completion(
            text=text,
            token_ids=(),
            num_tokens=_whole(counted) if columns.num_tokens and _whole(counted) else self._count(text),
            finish_reason=_finish_reason(_value(body, columns.finish_reason, item)),
            stop_token=None,
            num_reasoning_tokens=None,
            submitted_at_us=now_us,
            first_token_at_us=None,
            finished_at_us=now_us,
            label=_label(_value(body, columns.label, item)),
            label_answer=_plain(_value(body, columns.label_answer, item)),
        )


# Rows.


def _path(teacher: ReplayTeacher) -> str:
    assert teacher.path is not None, "the plan fills it in"
    return teacher.path


def _bodies(
    path: Path, names: tuple[str, ...], teacher: ReplayTeacher
) -> Iterator[tuple[int, int, Mapping[str, Any] | None]]:
    """Yield place and content of every row of a file, after its columns were found there."""
    rows = _parquet_bodies(path, names) if path.suffix == ".parquet" else _jsonl_bodies(path)
    head = list(islice(rows, ROWS_LOOKED_AT))
    bodies = [body for _, _, body in head if body is not None]
    if head and not bodies:
        _refuse_unreadable(path)
    if bodies:
        _check_columns(bodies, teacher, path)
    yield from chain(head, rows)


def _refuse_unreadable(path: Path) -> None:
    """Refuse a file that has rows, of which none can be read; say why by the first."""
    with path.open("rb") as file:
        line = next(line for line in iter(lambda: file.readline(MAX_LINE_BYTES), b"") if line.strip())
    defect = parse_line(line.removeprefix(b"\xef\xbb\xbf"), is_whole=True)[1]
    hint = "it is packed (gzip): unpack it" if line.startswith(b"\x1f\x8b") else "CSV and JSON arrays must be converted"
    raise SourceError(
        f"{LABEL}.path: {path}: none of its first rows can be read; the first: {defect}; JSON Lines (one object a "
        f"line) or Parquet is wanted: {hint}"
    )


def _jsonl_bodies(path: Path) -> Iterator[tuple[int, int, Mapping[str, Any] | None]]:
    if path.suffix == ".gz":
        raise SourceError(f"{LABEL}.path: {path} is packed, and its rows are read out of order: unpack it first")
    offset = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
            while not is_whole and (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            if line.strip():
                yield offset, -1, parse_line(line.removeprefix(b"\xef\xbb\xbf"), is_whole=is_whole)[0]
            offset = file.tell()


def _parquet_bodies(path: Path, names: tuple[str, ...]) -> Iterator[tuple[int, int, Mapping[str, Any] | None]]:
    for group in range(pq.read_metadata(path).num_row_groups):
        for row, body in enumerate(_row_group(path, group, names)):
            yield group, row, body


@lru_cache(maxsize=2)
def _row_group(path: Path, group: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of a row group; two are kept, since attempts come in the order of the files."""
    try:
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = file.read_row_group(group, columns=list(names)).to_pylist()
            return rows
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{LABEL}.path: {path}, row group {group} cannot be read: {error}; restore it") from error


def _columns_to_read(teacher: ReplayTeacher, path: Path) -> tuple[str, ...]:
    """Return those columns of a Parquet file that are mapped."""
    if path.suffix != ".parquet":
        return ()
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{LABEL}.path: {path} is not readable as Parquet: {error}; restore the file") from error
    wanted = [name for name in teacher.columns.model_dump().values() if name is not None]
    return tuple(
        sorted({top for name in wanted if (top := name if name in names else name.partition(".")[0]) in names})
    )


def _check_columns(bodies: Sequence[Mapping[str, Any]], teacher: ReplayTeacher, path: Path) -> None:
    """Check that the first row has every column that is mapped.

    Raises:
        SourceError: If one is missing; names it and those there are.
    """
    names = (
        pq.read_schema(path).names
        if path.suffix == ".parquet"
        else list(dict.fromkeys(name for body in bodies for name in column_names(body)))
    )
    problems = [
        f"{LABEL}.columns.{key}={name!r}: {path.name} has no such column; "
        f"{nearest(name, names)}there are: {listed(names)}"
        for key, name in teacher.columns.model_dump().items()
        if name is not None and all(lookup(body, name) is MISSING for body in bodies)
    ]
    if problems:
        raise SourceError("\n".join(problems))


def _problem_ids(body: Mapping[str, Any], teacher: ReplayTeacher, domains: Sequence[Domain]) -> list[str]:
    """Return the ids that this row's question has in each domain; none if it asks nothing."""
    columns = teacher.columns
    if columns.problem is not None:
        question = lookup(body, columns.problem)
        turns = [{"role": "user", "content": question}]
    else:
        turns = lookup(body, str(columns.messages))
    try:
        if not all(_is_text(turn["content"]) for turn in turns):
            return []
        messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)
        return [
            Problem(domain=domain, messages=messages, source="", source_row_id="", reference=None).problem_id
            for domain in domains
        ]
    except (ValueError, TypeError, LookupError, AttributeError):
        return []


def _note_id(body: Mapping[str, Any], teacher: ReplayTeacher, seen: dict[str, bytes]) -> str | None:
    """Return None for a new id (or no id column), "" for the same attempt again, else the id that clashes."""
    if teacher.columns.id is None:
        return None
    name = str(lookup(body, teacher.columns.id))
    text = json.dumps([lookup(body, teacher.columns.completion)], default=str).encode()
    content = hashlib.blake2b(text, digest_size=16).digest()
    if name not in seen:
        seen[name] = content
        return None
    return "" if seen[name] == content else shown(name)


def _items(body: Mapping[str, Any], teacher: ReplayTeacher, skipped: Counter[str]) -> Iterator[int | None]:
    """Yield the places of a row's completions in its list; None where it holds one text."""
    value = lookup(body, teacher.columns.completion)
    items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
    for item, text in items:
        if _is_text(text):
            yield item
        else:
            skipped["a completion that is null" if text is None else "a completion that is no text"] += 1


def _value(body: Mapping[str, Any], column: str | None, item: int | None) -> Any:
    """Return what a column says of one completion; None where it says nothing."""
    value = None if column is None else lookup(body, column)
    if isinstance(value, list):
        value = value[item] if item is not None and item < len(value) else None
    return None if value is MISSING else value


def _recorded_text(body: Mapping[str, Any], teacher: ReplayTeacher, item: int | None) -> str:
    """Return the completion; with a reasoning column, both parts with the tags that stood between them."""
    text = str(_value(body, teacher.columns.completion, item))
    reasoning = _value(body, teacher.columns.reasoning, item)
    if isinstance(reasoning, str) and reasoning:
        text = f"{THINK_OPEN}\n{reasoning.strip(chr(10))}\n{THINK_CLOSE}\n\n{text.lstrip(chr(10))}"
    return text.encode("utf-8", "replace").decode()  # a lone surrogate fits into no Arrow string


def _finish_reason(value: Any) -> FinishReason:
    word = str(value).lower()
    if word in FINISH_WORDS:
        return FINISH_WORDS[word]
    return FinishReason(word) if word in set(FinishReason) else FinishReason.STOP


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, NumberLiteral)


def _label(value: Any) -> bool | None:
    word = str(value).strip().lower()
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def _plain(value: Any) -> str | None:
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def _whole(value: Any) -> int:
    """Return a count; 0 where it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _said(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in skipped.items()) or "its files are empty"
