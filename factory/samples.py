"""Samples of a run and what they sum to, read from a selection's table of candidates: each row has all of one attempt.

Reads only. Sums take one pass over a few narrow columns; texts are read a row group at a time, and only where asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.rows import listed, nearest
from factory.storage import AnyPath, find_files, parquet_source
from schemas.errors import ConfigError, StoreError
from schemas.tables import CANDIDATES
from schemas.verdict import ANSWER_CHECKS

FACETS: Final = ("outcome", "reason", "domain", "source")
NONE: Final = "none"  # the word for a facet without a value: a reason of what passed, an outcome not judged yet


def telling(checks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the checks that say something: answer checks, and those of form that found something."""
    return [check for check in checks if check["reason"] or check["name"] in ANSWER_CHECKS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which samples: those with this value in each facet that is asked for; ``none`` is no value."""

    outcome: str | None = None
    reason: str | None = None
    domain: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the candidates of a selection sum to."""

    num_traces: int = 0
    by_source: Mapping[tuple[str, str], Counter[str]] = field(default_factory=dict)  # (domain, source): outcomes
    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)  # (domain, source)
    lengths: Mapping[str, Counter[int]] = field(default_factory=dict)  # outcome: completion tokens: traces
    pass_rates: Counter[tuple[int, int]] = field(default_factory=Counter)  # (num_true, num_judged): problems


class Samples:
    """The candidates of one selection, in the order of the table: by problem, then by trace_id.

    Both ids are hashes: which problems come first is by chance, but neighbours are attempts at one problem.
    """

    def __init__(self, path: AnyPath, selection: str) -> None:
        """Open the table and read its facets, coded: a few bytes an attempt.

        Raises:
            ConfigError: If the selection's tables are not built.
            StoreError: If they cannot be read.
        """
        folder = path / "tables" / selection
        self._files = find_files(folder / "candidates", "train-*.parquet")
        if not self._files:
            built = {found.parent.parent.name for found in find_files(path / "tables", "*/candidates/train-*.parquet")}
            there = f"--selection takes one of {listed(built)}; " if built else ""
            name = "" if selection == "default" else f" --set select.name={selection}"
            raise ConfigError(
                f"{folder}: the tables of this selection are not built; {there}`factory select {path}{name}` builds "
                "them from what is committed, also of a run that is not finished"
            )
        try:
            self._check_columns()
            self._groups = [
                (file, number, pq.ParquetFile(parquet_source(file)).metadata.row_group(number).num_rows)
                for file in self._files
                for number in range(pq.ParquetFile(parquet_source(file)).metadata.num_row_groups)
            ]
            self._starts = list(accumulate((rows for _, _, rows in self._groups), initial=0))
            self._facets = pa.concat_tables(
                pq.read_table(parquet_source(file), columns=list(FACETS), read_dictionary=list(FACETS))
                for file in self._files
            ).unify_dictionaries()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{folder}: its tables cannot be read: {error}; run `factory select` again") from error
        self._read: tuple[int, pa.Table] | None = None  # the row group read last

    def __len__(self) -> int:
        return len(self._facets)

    def _check_columns(self) -> None:
        for file in self._files:
            schema = pq.read_schema(parquet_source(file))
            for column in CANDIDATES:
                place = schema.get_field_index(column.name)
                if place < 0 or schema.field(place).type != column.type:
                    found = "is missing" if place < 0 else f"is {schema.field(place).type}, not {column.type}"
                    raise StoreError(
                        f"{file}: column {column.name!r} {found}: not of this version; run `factory select` again"
                    )

    def counts(self, facet: str, among: Sequence[int] | None = None) -> dict[str, int]:
        """Return how many samples have each value of a facet, most frequent first."""
        column = self._facets[facet] if among is None else self._facets[facet].take(pa.array(among, pa.int64()))
        pairs = pc.value_counts(column.cast(pa.string())).to_pylist()
        counted: Counter[str] = Counter()
        for pair in pairs:
            counted[NONE if pair["values"] is None else pair["values"]] += pair["counts"]
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def find(self, asked: Asked) -> list[int]:
        """Return the rows of the samples that were asked for, in order.

        Raises:
            ConfigError: If a facet has no such value.
        """
        mask = pa.repeat(True, len(self))
        for facet in FACETS:
            wanted = getattr(asked, facet)
            if wanted is None:
                continue
            column = self._facets[facet].cast(pa.string()).combine_chunks()
            hits = pc.fill_null(pc.equal(column, wanted), wanted == NONE)
            if not pc.any(hits).as_py():
                there = self.counts(facet)
                raise ConfigError(
                    f"--{facet} {wanted}: no sample has it; {nearest(wanted, there)}there are: {listed(there)}"
                )
            mask = pc.and_(mask, hits)
        rows: list[int] = pc.indices_nonzero(mask).to_pylist()
        return rows

    def row(self, number: int) -> dict[str, Any]:
        """Return one sample, all columns."""
        group = bisect_right(self._starts, number) - 1
        if self._read is None or self._read[0] != group:
            file, place, _ = self._groups[group]
            self._read = group, pq.ParquetFile(parquet_source(file)).read_row_group(place)
        rows: list[dict[str, Any]] = self._read[1].slice(number - self._starts[group], 1).to_pylist()
        return rows[0]

    def sums(self) -> Sums:
        """Return what all samples sum to; one pass, memory grows with problems, not with attempts."""
        by_source: dict[tuple[str, str], Counter[str]] = {}
        accepted: Counter[tuple[str, str]] = Counter()
        lengths: dict[str, Counter[int]] = {}
        rates: dict[str, tuple[int, int]] = {}
        columns = ["problem_id", "domain", "source", "outcome", "num_completion_tokens", "is_accepted"]
        for table in self.batches([*columns, "num_true", "num_judged"]):
            outcomes = pc.fill_null(table["outcome"], NONE)
            table = table.set_column(table.schema.get_field_index("outcome"), "outcome", outcomes)
            keys = ["domain", "source", "outcome"]
            for row in table.group_by(keys).aggregate([([], "count_all"), ("is_accepted", "sum")]).to_pylist():
                key = (row["domain"], row["source"])
                by_source.setdefault(key, Counter())[row["outcome"]] += row["count_all"]
                accepted[key] += row["is_accepted_sum"] or 0
            for row in table.group_by(["outcome", "num_completion_tokens"]).aggregate([([], "count_all")]).to_pylist():
                lengths.setdefault(row["outcome"], Counter())[row["num_completion_tokens"]] += row["count_all"]
            problems = table.group_by("problem_id").aggregate([("num_true", "max"), ("num_judged", "max")])
            for row in problems.to_pylist():
                rates[row["problem_id"]] = (row["num_true_max"], row["num_judged_max"])
        return Sums(
            num_traces=len(self),
            by_source=by_source,
            accepted=accepted,
            lengths=lengths,
            pass_rates=Counter(rates.values()),
        )

    def batches(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield the row groups in order, with some columns."""
        for file, number, _ in self._groups:
            yield pq.ParquetFile(parquet_source(file)).read_row_group(number, columns=columns)
