"""What the candidates of a selection sum to, by domain: for the dataset's card.

One pass over narrow columns of the published table itself, so that the card says what whoever loads it can count again.
Memory grows with distinct values (lengths, sources), not with rows: a problem's rows lie together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from factory.samples import NONE
from factory.storage import AnyPath
from schemas.errors import StoreError

COLUMNS: Final = [
    *("problem_id", "domain", "source", "license", "language", "finish_reason", "num_completion_tokens", "teacher"),
    *("outcome", "is_accepted", "reject_reason", "num_true", "num_judged"),
    *(f"checks.list.element.{name}" for name in ("name", "outcome", "reason")),
]


class Origin(NamedTuple):
    """Where problems come from, and under which licence."""

    domain: str
    source: str
    license: str


class Length(NamedTuple):
    """How long a completion is, and what became of it."""

    domain: str
    is_accepted: bool
    num_tokens: int


class Rate(NamedTuple):
    """How often a problem's judged attempts were right."""

    domain: str
    num_true: int
    num_judged: int


class Finding(NamedTuple):
    """What a check said: its name, its outcome, its reason (``none`` where it passed)."""

    check: str
    outcome: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of rows, but for ``problems`` and ``rates``, which count problems."""

    num_rows: int = 0
    problems: Counter[Origin] = field(default_factory=Counter)
    rows: Counter[Origin] = field(default_factory=Counter)
    accepted: Counter[Origin] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)  # by finish reason
    outcomes: Counter[str] = field(default_factory=Counter)  # ``none``: not judged yet
    rejected: Counter[str] = field(default_factory=Counter)  # by the selection's reason
    lengths: Counter[Length] = field(default_factory=Counter)
    rates: Counter[Rate] = field(default_factory=Counter)
    findings: Counter[Finding] = field(default_factory=Counter)

    @property
    def domains(self) -> list[str]:
        """The domains, those with most rows first."""
        counts: Counter[str] = Counter()
        for origin, count in self.rows.items():
            counts[origin.domain] += count
        return sorted(counts, key=lambda name: (-counts[name], name))

    def accepted_of(self, domain: str) -> int:
        """Return how many rows of a domain are accepted."""
        return sum(count for origin, count in self.accepted.items() if origin.domain == domain)


def tally(batches: Iterable[pa.Table], where: AnyPath) -> Tally:
    """Return the sums over batches of candidates with ``COLUMNS``, which come in the order of the table.

    Raises:
        StoreError: If they are not sorted by problem.
    """
    found = Tally()
    last = ""
    for table in batches:
        if not len(table):
            continue
        ids = pa.concat_arrays([pa.array([last], pa.string()), *(part for part in table["problem_id"].chunks)])
        before, after = ids.slice(0, len(ids) - 1), ids.slice(1)
        if pc.any(pc.less(after, before)).as_py():
            raise StoreError(f"{where}: its candidates are not sorted by problem_id; run `factory select` again")
        _add_rows(found, table)
        _add_problems(found, table.filter(pc.not_equal(after, before)))
        _add_checks(found, table["checks"])
        last = ids[-1].as_py()
    return found


def _add_rows(found: Tally, table: pa.Table) -> None:
    found.num_rows += len(table)
    for (domain, source, license_name, is_accepted), count in _counts(table, [*_ORIGIN, "is_accepted"]):
        origin = Origin(_word(domain), _word(source), _word(license_name))
        found.rows[origin] += count
        if is_accepted:
            found.accepted[origin] += count
    for (domain, is_accepted, num_tokens), count in _counts(table, ["domain", "is_accepted", "num_completion_tokens"]):
        found.lengths[Length(_word(domain), bool(is_accepted), num_tokens or 0)] += count
    for name, counter in (
        ("language", found.languages),
        ("teacher", found.teachers),
        ("finish_reason", found.endings),
        ("outcome", found.outcomes),
    ):
        for (word,), count in _counts(table, [name]):
            counter[_word(word)] += count
    for (is_accepted, reason), count in _counts(table, ["is_accepted", "reject_reason"]):
        if is_accepted is False:
            found.rejected[_word(reason)] += count


_ORIGIN: Final = ["domain", "source", "license"]


def _add_problems(found: Tally, table: pa.Table) -> None:
    for words, count in _counts(table, _ORIGIN):
        found.problems[Origin(*map(_word, words))] += count
    for (domain, num_true, num_judged), count in _counts(table, ["domain", "num_true", "num_judged"]):
        found.rates[Rate(_word(domain), num_true or 0, num_judged or 0)] += count


def _add_checks(found: Tally, checks: pa.ChunkedArray) -> None:
    flat = pc.list_flatten(checks).combine_chunks() if len(checks) else None
    if flat is None or not len(flat):
        return
    names = ["name", "outcome", "reason"]
    table = pa.table({name: pc.struct_field(flat, name) for name in names})
    for words, count in _counts(table, names):
        found.findings[Finding(*map(_word, words))] += count


def _counts(table: pa.Table, names: list[str]) -> Iterable[tuple[tuple[Any, ...], int]]:
    rows = table.select(names).group_by(names).aggregate([([], "count_all")]).to_pylist()
    return ((tuple(row[name] for name in names), row["count_all"]) for row in rows)


def _word(value: object) -> str:
    return NONE if value is None else str(value)
