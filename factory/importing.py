"""Importing: the files of a published set become a run, whose traces are judged and selected like one's own.

Reads the files twice, row by row: for the problems, which are cleaned and frozen, and for the completions, which go
through the journal to the committer as an engine's would. A problem's completions, in the order of the files, are its
attempts 0, 1, 2, ... Invariants: a row is stored, or quarantined with a reason; a completion is stored once, however
often the import is killed: the second reading passes over what the run holds. Judges nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.clean import Cleaner, clean_problems
from factory.columns import column_problem
from factory.committer import Committer, FrozenJob
from factory.journal import SegmentHeader, SegmentWriter, delete_segment
from factory.mappings import READY
from factory.plan import Plan
from factory.prompts import load_counter
from factory.rows import Row, RowError, Wanted, file_rows, listed, nearest
from factory.sources import shown_reference, understand
from factory.state import ENDED
from factory.tracesets import TRACE_SETS, Attempt, TraceSet
from schemas.config import FileSource, ImportedTeacher, JobConfig
from schemas.errors import ConfigError, SourceError
from schemas.problem import Problem, Prompt, Quarantined, QuarantineReason
from schemas.trace import Trace, Untraced, make_trace_id

AUTO: Final = "auto"
LABEL: Final = "FILES"  # what messages name
KEPT_RAW: Final = 1_000  # quarantined rows of a reason that keep their content: a set may hold a million of them
MOST_ATTEMPTS: Final = 32_767  # at one problem: what `sampling.num_samples` may be
ENDED_AT_A_TIME: Final = 50_000  # attempts without a completion that go into one commit
TOLD_EVERY: Final = 256  # rows between two calls of who watches

Watch = Callable[[int], None]  # called with the number of rows read so far


# Files and formats.


def find_files(names: Sequence[str]) -> list[Path]:
    """Return the files to import, each once, in an order that does not depend on how they were named.

    Raises:
        SourceError: If one is not there, or is no Parquet file.
    """
    paths = {Path(name).expanduser().resolve(): Path(name).expanduser() for name in names}
    for path in paths.values():
        if path.is_dir():
            raise SourceError(f"{LABEL}: {path} is a folder; name its files, such as {path}/*.parquet")
        if not path.is_file():
            siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
            raise SourceError(f"{LABEL}: {path}: no such file; {nearest(path.name, siblings)}nothing was imported")
    return sorted(paths.values(), key=lambda path: (path.name, str(path)))


def find_format(paths: Sequence[Path], wanted: str) -> str:
    """Return the format that all files have; ``wanted`` is its name, or ``auto``.

    Raises:
        ConfigError: If there is no such format.
        SourceError: If a file is not readable, of no format, or of another one than wanted, or than the first.
    """
    if wanted not in (AUTO, *TRACE_SETS):
        raise ConfigError(
            f"--format {wanted!r}: is none of {', '.join((AUTO, *TRACE_SETS))}; {nearest(wanted, TRACE_SETS)}".rstrip()
        )
    found: dict[str, Path] = {}
    for path in paths:
        names = _column_names(path)
        fitting = [name for name in TRACE_SETS if _missing(names, name) == ()]
        if wanted != AUTO and wanted not in fitting:
            raise SourceError(f"{_unfit(path, names, wanted)}{_others(fitting)}")
        if not fitting:
            best = min(TRACE_SETS, key=lambda name: len(_missing(names, name) or ()))
            raise SourceError(f"{_unfit(path, names, best)} (the nearest of {', '.join(TRACE_SETS)})")
        # Of several the one that knows most of its columns: OpenR1-Math has `messages` as well.
        name = max(fitting, key=lambda name: len(set(names) & _known(name))) if wanted == AUTO else wanted
        found.setdefault(name, path)
    if len(found) > 1:
        said = ", ".join(f"{path} is {name}" for name, path in found.items())
        raise SourceError(f"{LABEL}: are of several formats: {said}; import each into a run of its own")
    return next(iter(found))


def _column_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{LABEL}: {path} is not readable as Parquet: {error}; restore or convert it") from error


def _missing(names: Sequence[str], format_name: str) -> tuple[str, ...]:
    """Return what a file lacks of the shape that it comes nearest to."""
    shapes = TRACE_SETS[format_name].shapes
    return min((tuple(name for name in shape if name not in names) for shape in shapes), key=len)


def _known(format_name: str) -> set[str]:
    known = TRACE_SETS[format_name]
    return {*known.optional, *(name for shape in known.shapes for name in shape)}


def _unfit(path: Path, names: Sequence[str], format_name: str) -> str:
    missing = ", ".join(_missing(names, format_name))
    return f"{LABEL}: {path} is no file of format {format_name}: it lacks {missing}; its columns are {listed(names)}"


def _others(fitting: Sequence[str]) -> str:
    return f"; it fits {', '.join(fitting)}: leave --format out" if fitting else ""


def hash_files(paths: Sequence[Path], watch: Watch) -> str:
    """Return a hash of the files' bytes, in their order: what tells two imports apart. Watched in MiB."""
    total = hashlib.sha256()
    done = 0
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                done += 1
                watch(done)
        total.update(digest.digest())
    return total.hexdigest()[:16]


# Rows.


class Understood(NamedTuple):
    """What a row holds."""

    problem: Problem
    attempts: list[Attempt]


@dataclass(slots=True)
class Reader:
    """Reads the files of a job's sources, in order, as often as is asked."""

    job: JobConfig
    traceset: TraceSet

    def rows(self, watch: Watch, *, with_revision: bool = False) -> Iterator[tuple[FileSource, Row]]:
        """Yield every row with its source; one that is not the only one of its number says which file it is of."""
        done = 0
        for position, source in enumerate(self.job.sources):
            assert isinstance(source, FileSource), "the job is ours"
            label, wanted = f"sources.{position}", self._wanted(source)
            rows = file_rows(source, wanted, label, with_revision=with_revision)
            for row in islice(rows, source.limit):
                done += 1
                if done % TOLD_EVERY == 0:
                    watch(done)
                is_one = len(self.job.sources) == 1
                yield source, row if is_one else row._replace(row_id=f"{Path(source.path).name}:{row.number}")
        watch(done)

    def _wanted(self, source: FileSource) -> Wanted:
        names = _column_names(Path(source.path))
        shape = next(shape for shape in self.traceset.shapes if set(shape) <= set(names))
        ready = READY[str(source.columns.ready)]
        optional = dict.fromkeys((*ready.columns, *ready.optional, *self.traceset.optional))
        return Wanted(dict.fromkeys(shape, "ready"), tuple(name for name in optional if name not in shape))

    def understand(self, source: FileSource, row: Row) -> Understood:
        """Return what a row holds.

        Raises:
            RowError: If it holds no problem that can be judged, or no completion.
        """
        problem = understand(row, partial(column_problem, source=source, name=str(source.name)))
        assert row.body is not None, "understood"
        attempts = self.traceset.attempts(row.body)
        if not attempts:
            raise RowError(QuarantineReason.BAD_VALUE, "the row holds no completion")
        return Understood(problem, attempts)


# The first reading: problems.


@dataclass(slots=True)
class _First:
    """A problem where it was met first, and what came of all rows that ask it."""

    problem: Problem
    row: int
    where: str
    num_rows: int = 1
    num_attempts: int = 0


@dataclass(slots=True)
class Reading:
    """What the first reading found. Rows = those of problems that are kept + those of ``quarantined``."""

    firsts: dict[str, _First] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)  # met when there were enough: other rows of theirs may disagree
    quarantined: list[Quarantined] = field(default_factory=list)
    reasons: Counter[QuarantineReason] = field(default_factory=Counter)
    num_rows: int = 0
    num_attempts: int = 0

    @property
    def most_attempts(self) -> int:
        """The largest number of completions of one problem."""
        return max((first.num_attempts for first in self.firsts.values()), default=0)

    def set_aside(self, source: str, row: Row, error: RowError, problem_id: str | None = None) -> None:
        """Quarantine a row."""
        self.reasons[error.reason] += 1
        self.quarantined.append(
            Quarantined(
                source=source,
                row=row.number,
                reason=error.reason,
                detail=f"{row.where}: {error.detail}",
                raw=row.raw if self.reasons[error.reason] <= KEPT_RAW else "",
                problem_id=problem_id,
                evidence=error.evidence,
            )
        )

    def drop(self, problem_id: str, error: RowError) -> None:
        """Quarantine a problem with all rows that ask it, as one entry."""
        first = self.firsts.pop(problem_id)
        more = f"; so are {first.num_rows - 1:,} more rows with this problem" if first.num_rows > 1 else ""
        row = Row(first.row, first.where, "", first.problem.question[:2000], None)
        aside = RowError(error.reason, f"{error.detail}{more}", error.evidence)
        self.set_aside(first.problem.source, row, aside, problem_id)


def read_problems(reader: Reader, watch: Watch) -> Reading:
    """Return the problems of all rows, with the rows that hold none.

    A problem with another reference in another row is set aside, with all its rows: nothing says which is right.

    Raises:
        SourceError: If a file cannot be read to its end.
    """
    reading = Reading()
    most = reader.job.schedule.max_problems
    for source, row in reader.rows(watch, with_revision=True):
        reading.num_rows += 1
        try:
            problem, attempts = reader.understand(source, row)
        except RowError as error:
            reading.set_aside(str(source.name), row, error)
            continue
        reading.num_attempts += len(attempts)
        _note(reading, source, row, problem, len(attempts), most)
    return reading


def _note(
    reading: Reading, source: FileSource, row: Row, problem: Problem, num_attempts: int, most: int | None
) -> None:
    problem_id = problem.problem_id
    first = reading.firsts.get(problem_id)
    reason = QuarantineReason.CONFLICTING_REFERENCES
    if problem_id in reading.conflicts:
        says = f"reference {shown_reference(problem)}, and other rows with this problem had a conflict already"
        reading.set_aside(str(source.name), row, RowError(reason, says), problem_id)
    elif first is None:
        if problem_id in reading.beyond or (most is not None and len(reading.firsts) >= most):
            reading.beyond.add(problem_id)
        else:
            reading.firsts[problem_id] = _First(problem, row.number, row.where, num_attempts=num_attempts)
    elif first.problem.reference_hash != problem.reference_hash:
        said, says = shown_reference(first.problem), shown_reference(problem)
        reading.conflicts.add(problem_id)
        reading.drop(problem_id, RowError(reason, f"reference {said}, but {row.where} says {says}"))
        error = RowError(reason, f"reference {says}, but other rows with this problem say {said}")
        reading.set_aside(str(source.name), row, error, problem_id)
    else:
        first.num_rows += 1
        first.num_attempts += num_attempts


def clean(reading: Reading, cleaner: Cleaner) -> None:
    """Quarantine the problems that the job's settings do not want, as a run of one's own would."""
    for problem, error in clean_problems([first.problem for first in reading.firsts.values()], cleaner)[1]:
        reading.drop(problem.problem_id, error)


def render(reading: Reading, plan: Plan) -> list[tuple[Problem, Prompt]]:
    """Return the problems that are left with their prompts.

    Raises:
        SourceError: If none is left; says what became of them.
    """
    pairs = []
    for problem in [first.problem for first in reading.firsts.values()]:
        try:
            pairs.append((problem, plan.renderer.render(problem)))
        except ValueError as error:
            reading.drop(problem.problem_id, RowError(QuarantineReason.UNRENDERABLE, str(error)))
    if not pairs:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reading.reasons.most_common()) or "no rows"
        why = f"; the first: {reading.quarantined[0].detail}" if reading.quarantined else ""
        if QuarantineReason.CONTAMINATED in reading.reasons:
            why += "\n  where a run on a benchmark is what you want: --set schedule.clean.against=[]"
        raise SourceError(f"{LABEL}: nothing is left of {reading.num_rows:,} rows: {counts}{why}")
    return pairs


def job_body(
    paths: Sequence[Path],
    format_name: str,
    *,
    name: str,
    teacher: str,
    revision: str,
    source: str | None,
    license_name: str | None,
) -> dict[str, Any]:
    """Return the job file that an import stands for; ``revision`` is the hash of the files."""
    more = {} if license_name is None else {"license": license_name}
    files = [
        {"kind": "parquet", "path": str(path), "name": source or format_name, "columns": format_name, **more}
        for path in paths
    ]
    return {
        "name": name,
        "sources": files,
        # How they were asked for is not known: the question as it stands. All these sets have <think> blocks.
        "prompt": {"template": "plain", "format": "r1"},
        "teacher": {"kind": "imported", "model": teacher, "revision": revision},
    }


def frozen_job(plan: Plan, most_attempts: int) -> FrozenJob:
    """Return what the manifest keeps of the job; where it does not say, with as many attempts as there are."""
    sampling = plan.job.sampling
    if "num_samples" not in sampling.model_fields_set:
        sampling = sampling.model_copy(update={"num_samples": min(most_attempts, MOST_ATTEMPTS)})
    job = plan.job.model_copy(update={"sampling": sampling})
    return FrozenJob(
        fingerprint=plan.fingerprint,
        config=job.model_dump(mode="json"),
        sources_state=str(plan.identity.revision),
        num_samples=sampling.num_samples,
    )


# The second reading: completions.


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the second reading did: completions stored now, those that the run had before, and those beyond
    ``sampling.num_samples``."""

    num_new: int
    num_held: int
    num_left_out: int


def store_attempts(reader: Reader, committer: Committer, plan: Plan, watch: Watch) -> Stored:
    """Store the completions of all frozen problems, and end the attempts for which there is none.

    Raises:
        SourceError: If a file cannot be read to its end.
    """
    for path in committer.folder.leftover_segments():  # of an import that was killed: read again from the files
        delete_segment(path)
    state, sink = committer.state, _Sink(committer, plan)
    places = {problem_id: place for place, problem_id in enumerate(state.problems.ids.to_pylist())}
    made = np.zeros(len(places), np.int32)
    num_held = num_left_out = 0
    for source, row in reader.rows(watch):
        with suppress(RowError):  # counted in the first reading
            problem, attempts = reader.understand(source, row)
            place = places.get(problem.problem_id)
            if place is None:  # kept aside
                continue
            for attempt in attempts:
                index = int(made[place])
                made[place] += 1
                if index >= state.num_samples:
                    num_left_out += 1
                elif state.flags[place * state.num_samples + index] & ENDED:
                    num_held += 1
                else:
                    sink.add(problem.problem_id, index, attempt)
    sink.flush()
    _end_the_rest(committer, plan.fingerprint, made)
    return Stored(num_new=sink.num_traces, num_held=num_held, num_left_out=num_left_out)


class _Sink:
    """Takes completions, and commits them segment by segment."""

    def __init__(self, committer: Committer, plan: Plan) -> None:
        teacher = plan.teacher
        assert isinstance(teacher, ImportedTeacher), "the job is ours"
        self._committer, self._plan, self._tokenizer = committer, plan, teacher.tokenizer
        self._count = load_counter(teacher.tokenizer or "bytes")
        self._engine_id = f"import-e{committer.manifest.epoch}"
        self._most_bytes = plan.job.store.segment_mb << 20
        self._now_us = time.time_ns() // 1000
        self._writer: SegmentWriter | None = None
        self._num_segments = 0
        self.num_traces = 0

    def add(self, problem_id: str, sample_index: int, attempt: Attempt) -> None:
        if self._writer is None:
            self._num_segments += 1
            header = SegmentHeader(
                fingerprint=self._plan.fingerprint, engine_id=self._engine_id, sequence=self._num_segments
            )
            self._writer = SegmentWriter(self._committer.folder.journal, header)
        self._writer.append(self._trace(problem_id, sample_index, attempt))
        self.num_traces += 1
        if self._writer.size >= self._most_bytes:
            self.flush()

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._committer.commit(segments=[self._writer.name])
            self._writer = None

    def _trace(self, problem_id: str, sample_index: int, attempt: Attempt) -> Trace:
        counted = attempt.num_tokens if self._tokenizer is None else None
        return Trace(
            fingerprint=self._plan.fingerprint,
            problem_id=problem_id,
            sample_index=sample_index,
            format=self._plan.renderer.format,
            text=attempt.text,
            token_ids=(),
            finish_reason=attempt.finish_reason,
            num_prompt_tokens=0,
            num_completion_tokens=self._count(attempt.text) if counted is None else counted,
            teacher=attempt.teacher or self._plan.identity.name,
            teacher_revision=self._plan.identity.revision,
            engine="imported",
            engine_version="1",
            engine_id=self._engine_id,
            submitted_at_us=self._now_us,
            finished_at_us=self._now_us,
            label=attempt.label,
        )


def _end_the_rest(committer: Committer, fingerprint: str, made: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """End the attempts that no file has: a problem may have fewer than another."""
    state = committer.state
    missing = np.flatnonzero(state.flags & ENDED == 0)
    for start in range(0, len(missing), ENDED_AT_A_TIME):
        untraced = []
        for number in missing[start : start + ENDED_AT_A_TIME].tolist():
            place, index = divmod(number, state.num_samples)
            problem_id = state.problems.problem_id(place)
            untraced.append(
                Untraced(
                    trace_id=make_trace_id(fingerprint, problem_id, index),
                    problem_id=problem_id,
                    sample_index=index,
                    ending="failed",
                    reason="not_recorded",
                    detail=f"the files have {made[place]} completions of this problem",
                )
            )
        committer.commit(untraced=untraced)
