"""Sources: rows of files, datasets and generators become problems, in one weighted order.

First step of the flow. Invariant: every row taken ends as exactly one problem or one ``Quarantined``; no row, whatever
its bytes, raises. What cannot be read at all (a missing file, an unknown column, task or split) is a ``SourceError``
before the first row is taken. Rows are taken only as the mix needs them: with ``max_problems`` a conflict or a defect
beyond the last row taken is not seen. Renders no prompts and judges nothing.
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from factory.clean import Cleaner, agree
from factory.columns import column_problem
from factory.duplicates import Sign, sign_here
from factory.gym import gym_problem, gym_rows
from factory.mappings import wanted_columns
from factory.rows import MAX_RAW_CHARS, Row, RowError, dataset_rows, file_rows, name_of, shown
from schemas.config import DatasetSource, GymSource, Source
from schemas.errors import SourceError
from schemas.problem import Answer, Choice, Evidence, Problem, Quarantined, QuarantineReason, digest, reference_to_json
from verifiers.registry import supports


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """What became of one source's rows: ``rows`` = ``problems`` + the sum of ``quarantined``."""

    name: str
    rows: int
    problems: int
    quarantined: Mapping[QuarantineReason, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Problems in the order of the mix, rows kept aside in the order met, and one count per source, in their order."""

    problems: list[Problem]
    quarantined: list[Quarantined]
    counts: tuple[SourceCount, ...]


def load_problems(
    sources: Sequence[Source],
    *,
    max_problems: int | None,
    cleaner: Cleaner | None = None,
    sign_batches: Sign = sign_here,
) -> Loaded:
    """Return the problems of all sources, interleaved by weight, with the rows that became none.

    The same problem again is set aside: with the same reference as a duplicate, with another one as a conflict that
    takes the first with it, since nothing says which is right. ``limit`` counts rows, good or bad. With a ``cleaner``
    what it finds is set aside too; ``sign_batches`` says where near-duplicates are signed.

    Raises:
        SourceError: If a source cannot be read at all, or no problem is left.
    """
    readers = [_open(position, source) for position, source in enumerate(sources)]
    weights = [Fraction(source.weight) for source in sources]
    live = [True] * len(readers)
    taken = _Taken(readers, cleaner)
    is_clean = False
    while not is_clean:
        while any(live) and (max_problems is None or len(taken.kept) < max_problems):
            position = next_source(taken.problems, weights, live)
            live[position] = taken.take_from(readers[position])
        is_clean = not taken.drop_near_duplicates(sign_batches)  # others take the places of those that went
    if not taken.kept:
        raise SourceError(_nothing_left(taken, sources))
    return taken.loaded()


def next_source(counts: Sequence[int], weights: Sequence[Fraction], live: Sequence[bool]) -> int:
    """Return which live source gives the next problem, so that every prefix of the mix keeps the weights' shares.

    After n problems each source has its share n * w / sum(w) rounded up or down, as long as all are live.

    Source: the quota method of Balinski and Young 1975, "The quota method of apportionment", Amer. Math. Monthly 82.
    The simpler rule, least (count + 1) / weight, gives heavy sources more than their share rounded up.
    """
    alive = [i for i, is_live in enumerate(live) if is_live]
    total = sum(counts[i] for i in alive) + 1
    weight = sum((weights[i] for i in alive), Fraction())
    below_quota = [i for i in alive if counts[i] * weight < total * weights[i]]
    return min(below_quota, key=lambda i: (counts[i] + 1) / weights[i])


@dataclass(slots=True, kw_only=True)
class _Reader:
    """A source that was found readable: its rows, and the function that makes one a problem."""

    position: int
    name: str
    rows: Iterator[Row]
    to_problem: Callable[[Row], Problem]
    is_generated: bool  # by a program: then problems differ in what it drew, and none is broken


def _open(position: int, source: Source) -> _Reader:
    label = f"sources.{position}"
    to_problem: Callable[[Row], Problem]
    if isinstance(source, GymSource):
        name, rows = source.name or source.task, gym_rows(source, label)
        to_problem = partial(gym_problem, source=source, name=name)
    elif isinstance(source, DatasetSource):
        # A name on the Hub stays whole: it is where people look.
        name = source.name or (name_of(source.path) if Path(source.path).exists() else source.path)
        rows, to_problem = (
            dataset_rows(source, wanted_columns(source.columns), label),
            partial(column_problem, source=source, name=name),
        )
    else:
        name, rows = source.name or name_of(source.path), file_rows(source, wanted_columns(source.columns), label)
        to_problem = partial(column_problem, source=source, name=name)
    return _Reader(
        position=position,
        name=name,
        rows=islice(rows, source.limit),
        to_problem=to_problem,
        is_generated=isinstance(source, GymSource),
    )


class _First(NamedTuple):
    """Where a problem was met first. ``row`` is without its content: that would double the memory."""

    position: int
    row: Row
    reference_hash: str | None


class _Taken:
    """All that was taken so far. ``problems``, ``rows`` and ``reasons`` count by source position."""

    def __init__(self, readers: Sequence[_Reader], cleaner: Cleaner | None) -> None:
        self.cleaner = cleaner
        self.readers = readers
        self.names = [reader.name for reader in readers]
        self.kept: dict[str, Problem] = {}  # by problem_id, in the order of the mix
        self.firsts: dict[str, _First] = {}
        self.spellings: dict[int, str] = {}  # the first problem_id of a statement, however it is set
        self.quarantined: list[Quarantined] = []
        self.rows = [0] * len(readers)
        self.problems = [0] * len(readers)
        self.reasons: list[Counter[QuarantineReason]] = [Counter() for _ in readers]

    def take_from(self, reader: _Reader) -> bool:
        """Take rows of the source until one is a new problem; return False when there are no more."""
        for row in reader.rows:
            self.rows[reader.position] += 1
            try:
                problem = understand(row, reader.to_problem)
            except RowError as error:
                self._set_aside(reader.position, row, error)
                continue
            defect = (
                None if self.cleaner is None else self.cleaner.find_defect(problem, is_generated=reader.is_generated)
            )
            if defect is not None:
                self._set_aside(reader.position, row, defect, problem)
            elif self._add(reader, row, problem):
                return True
        return False

    def drop_near_duplicates(self, sign_batches: Sign) -> int:
        """Set problems aside that are nearly the same as an earlier one; return how many."""
        if self.cleaner is None or self.cleaner.near_duplicates is None:
            return 0
        problems = [p for p in self.kept.values() if not self.readers[self.firsts[p.problem_id].position].is_generated]
        found = self.cleaner.find_near_duplicates(problems, sign_batches)
        for near in found:
            first = self.firsts[near.problem.problem_id]
            other = self.firsts[near.representative.problem_id]
            there = f"{other.row.where} ({self.names[other.position]})"
            evidence = Evidence(
                of="problems", item=near.representative.problem_id, rule="jaccard", share=near.similarity
            )
            detail = f"nearly the same problem as {there}, similarity {near.similarity:.2f}, and the same reference"
            del self.kept[near.problem.problem_id]
            self.problems[first.position] -= 1
            error = RowError(QuarantineReason.NEAR_DUPLICATE, detail, evidence)
            self._set_aside(first.position, first.row, error, near.problem)
        return len(found)

    def _add(self, reader: _Reader, row: Row, problem: Problem) -> bool:
        """Keep a new problem and return True; set a repeated one aside, with the first if their references differ."""
        position, problem_id = reader.position, problem.problem_id
        first_id = problem_id
        if self.cleaner is not None and not reader.is_generated and problem_id not in self.firsts:
            spelling = self.cleaner.spelling(problem)
            first_id = problem_id if spelling is None else self.spellings.setdefault(spelling, problem_id)
        first = self.firsts.get(first_id)
        if first is None:
            self.firsts[problem_id] = _First(position, row._replace(raw="", body=None), problem.reference_hash)
            self.kept[problem_id] = problem
            self.problems[position] += 1
            return True
        there = f"{first.row.where} ({self.names[first.position]})"
        kept = self.kept.get(first_id)
        is_same = first.reference_hash == problem.reference_hash
        if kept is not None and (is_same or (first_id != problem_id and agree(kept.reference, problem.reference))):
            what = "the same problem and reference as" if first_id == problem_id else "the same, set another way, as"
            evidence = Evidence(of="problems", item=first_id, rule="same_text", share=1.0)
            error = RowError(QuarantineReason.DUPLICATE, f"{what} {there}", evidence)
        else:
            error = self._conflict(first_id, first, there, row, problem)
        self._set_aside(position, row, error, problem)
        return False

    def _conflict(self, first_id: str, first: _First, there: str, row: Row, problem: Problem) -> RowError:
        """Return what is wrong with the later row; the first, if it is still in, is set aside as well."""
        reason = QuarantineReason.CONFLICTING_REFERENCES
        kept = self.kept.pop(first_id, None)
        if kept is None:
            return RowError(reason, f"reference {shown_reference(problem)}, but {there} had a conflict already")
        said, says = shown_reference(kept), shown_reference(problem)
        self.problems[first.position] -= 1
        self._set_aside(
            first.position, first.row, RowError(reason, f"reference {said}, but {row.where} says {says}"), kept
        )
        return RowError(reason, f"reference {says}, but {there} says {said}")

    def _set_aside(self, position: int, row: Row, error: RowError, problem: Problem | None = None) -> None:
        self.reasons[position][error.reason] += 1
        self.quarantined.append(
            Quarantined(
                source=self.names[position],
                row=row.number,
                reason=error.reason,
                detail=f"{row.where}: {error.detail}",
                raw=row.raw or ("" if problem is None else _raw_problem(problem)),
                problem_id=None if problem is None else problem.problem_id,
                evidence=error.evidence,
            )
        )

    def loaded(self) -> Loaded:
        counts = tuple(
            SourceCount(name=name, rows=rows, problems=problems, quarantined=dict(reasons))
            for name, rows, problems, reasons in zip(self.names, self.rows, self.problems, self.reasons, strict=True)
        )
        return Loaded(problems=list(self.kept.values()), quarantined=self.quarantined, counts=counts)


def understand(row: Row, to_problem: Callable[[Row], Problem]) -> Problem:
    """Return the problem of a row.

    Raises:
        RowError: If it can be none, or no verifier can judge its traces.
    """
    if row.body is None:
        raise RowError(QuarantineReason.UNREADABLE_ROW, row.defect)
    problem = to_problem(row)
    if not supports(problem):
        raise RowError(
            QuarantineReason.UNSUPPORTED_REFERENCE,
            f"no verifier can compare with the reference {shown_reference(problem)} (domain {problem.domain})",
        )
    return problem


def _raw_problem(problem: Problem) -> str:
    body = {
        "messages": [{"role": message.role, "content": message.content} for message in problem.messages],
        "reference": None if problem.reference is None else reference_to_json(problem.reference),
    }
    return json.dumps(body, ensure_ascii=False)[:MAX_RAW_CHARS]


def shown_reference(problem: Problem) -> str:
    """Return a problem's reference as a message may show it."""
    match problem.reference:
        case None:
            return "none"
        case Answer(text=text):
            return shown(text)
        case Choice(letter=letter):
            return letter
        case other:
            return shown(json.dumps(reference_to_json(other), ensure_ascii=False))


def _nothing_left(taken: _Taken, sources: Sequence[Source]) -> str:
    lines = ["no problems are left of all sources"]
    for source, rows, reasons in zip(sources, taken.rows, taken.reasons, strict=True):
        name = source.task if isinstance(source, GymSource) else source.path
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        lines.append(f"  {name}: {rows} rows" + (f", {counts}" if counts else ""))
    if taken.quarantined:
        lines.append(f"  the first: {taken.quarantined[0].detail}")
    if any(QuarantineReason.CONTAMINATED in reasons for reasons in taken.reasons):
        lines.append("  where a run on a benchmark is what you want, set schedule.clean.against to an empty list")
    lines.append("  fix the rows, or the columns under `sources`")
    return "\n".join(lines)


def sources_state(sources: Sequence[Source], cleaner: Cleaner | None = None) -> str:
    """Return a digest that changes when a file behind the sources does: its name, size or time of change; or what they
    are cleaned of.

    A name on the Hub counts as unchanged: give it another `revision` to have it read again.
    """
    seen: list[list[object]] = []
    for source in sources:
        if isinstance(source, GymSource):
            seen.append(["reasoning-gym", version("reasoning-gym")])
            continue
        folder = Path(source.path).expanduser()
        paths = folder.rglob("*") if folder.is_dir() else map(Path, glob.glob(str(folder), recursive=True))
        seen += [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(paths) if path.is_file()]
    return digest(["sources", seen, None if cleaner is None else cleaner.state])
