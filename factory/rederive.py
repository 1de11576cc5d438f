"""Deriving again: does a published dataset follow from its own candidates?

Reads the folder of a selection, or a downloaded copy of what was published, and changes nothing. The rules are those
that built it: the same functions make the tables anew, which must say row for row what is there. What the attempts at a
problem were is taken from ``candidates``, and for which problems no unbiased rate can be said; ``runs`` follows from
nothing, so of it files and digest alone are checked. Invariant: the first difference of each table is named by id and
column; memory does not grow with the dataset.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.buckets import group_starts
from factory.derived import OWN_ID, TRAIN, Rules, decide, deciding_columns, derive, find_over
from factory.published import Difference, TableFolder
from factory.rowdigest import RowDigest, row_groups
from factory.selection import has_pass
from factory.shards import ShardWriter
from factory.storage import AnyPath, parquet_source
from schemas.config import TableName
from schemas.errors import StoreError
from schemas.tables import FOUND, SCHEMAS

UNBIASED: Final = "pass_rate_unbiased"

Key = tuple[TableName, str]  # a table and its split


@dataclass(slots=True, kw_only=True)
class Compared:
    """How one split of a table compares."""

    config: str
    split: str
    rows: int  # that are there
    rows_sha256: str | None = None  # of the rows that follow, of ``runs`` those that are there; null: not looked at
    has_same_rows: bool | None = None
    has_same_bytes: bool | None = None  # null: not asked for, or rows differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Rederived:
    """What was compared, and what differs; nothing does where ``differences`` is empty."""

    folder: str
    selection_digest: str
    splits: tuple[Compared, ...]
    differences: tuple[Difference, ...]


def rederive(path: AnyPath, *, with_bytes: bool = False) -> Rederived:
    """Return how the tables of a folder compare with what follows from its candidates; ``with_bytes``: files, too.

    Raises:
        ConfigError: If the folder holds no selection of this version.
        StoreError: If its candidates are not sorted, or a file cannot be read to its end.
    """
    folder = TableFolder(path)
    differences = [*folder.check_files(), *folder.check_manifest()]
    columns = list(folder.check_columns())
    splits: dict[Key, Compared] = {}
    if not columns and folder.files("candidates", TRAIN):
        try:
            comparison = _Comparison(folder)
            comparison.derive_all(with_bytes)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: a file cannot be read to its end: {error}; download it again") from error
        splits, columns = comparison.compared, comparison.differences
    return Rederived(
        folder=str(path),
        selection_digest=folder.manifest["selection_digest"],
        splits=tuple(splits.values()),
        differences=(*differences, *columns),
    )


class _Comparison:
    """The rows that follow and those that are there, table by table."""

    def __init__(self, folder: TableFolder) -> None:
        self._folder = folder
        self.compared = {
            (name, split): Compared(config=name, split=split, rows=_num_rows(folder.files(name, split)))
            for name, split in folder.splits()
        }
        self.differences: list[Difference] = []

    def derive_all(self, with_bytes: bool) -> None:
        rules = self._rules()
        sides = {key: _Side(self._folder, key) for key in self.compared}
        runs = sides.pop(("runs", TRAIN))
        runs.follow_itself()
        with _Files(list(sides) if with_bytes else []) as files:
            for found in _candidates(self._folder, [*FOUND.names, UNBIASED]):
                decided = decide(found, replace(rules, incomplete=_without_rate(found)))
                for name in self._folder.names:
                    for split, table in derive(decided, name, rules.config) if name != "runs" else ():
                        if (name, split) not in sides and table.num_rows:
                            sides[name, split] = self._absent(name, split)
                        if (name, split) in sides:
                            sides[name, split].compare(table)
                            files.write(name, split, table)
        for key, side in (sides | {("runs", TRAIN): runs}).items():
            self._conclude(key, side, files)

    def _rules(self) -> Rules:
        manifest, config = self._folder.manifest, self._folder.config
        over = None
        if has_pass(config):
            over = find_over(_candidates(self._folder, deciding_columns(config)), config)
        return Rules(config=config, num_first=manifest["num_first"], digest=manifest["selection_digest"], over=over)

    def _absent(self, name: TableName, split: str) -> _Side:
        """Return the side of a split that is nowhere; no row of it must follow."""
        self.compared[name, split] = Compared(config=name, split=split, rows=0)
        return _Side(self._folder, (name, split))

    def _conclude(self, key: Key, side: _Side, files: _Files) -> None:
        compared = self.compared[key]
        compared.rows_sha256 = side.end()
        said = self._folder.said(*key) or {"rows": 0, "rows_sha256": side.nothing}
        if side.found is None:
            for name, value in (("rows", compared.rows), ("rows_sha256", compared.rows_sha256)):
                if said.get(name) != value and side.found is None:
                    side.differ(f"{name} is {value}, the manifest says {said.get(name)}")
        compared.has_same_rows = side.found is None
        odd = files.odd(key, self._folder) if side.found is None else None
        if files.is_asked and side.found is None and key[0] != "runs":
            compared.has_same_bytes = odd is None
        if odd is not None:
            side.differ(odd)
        if side.found is not None:
            self.differences.append(side.found)


class _Side:
    """The rows of one split that are there, read along with those that follow."""

    def __init__(self, folder: TableFolder, key: Key) -> None:
        self._name, self._split = key
        self._schema = SCHEMAS[self._name]
        self._groups = (group for group in row_groups(folder.files(*key)) if group.num_rows)
        self._held = self._schema.empty_table()
        self._digest = RowDigest()
        self._digest.update(self._held)
        self.nothing = self._digest.hexdigest()  # of no rows
        self.found: Difference | None = None  # the first one

    def compare(self, follows: pa.Table) -> None:
        """Compare the next rows that follow with those that are there."""
        self._digest.update(follows)
        while follows.num_rows and self.found is None:
            if not self._has_more():
                self._missing(follows)
                return
            size = min(self._held.num_rows, follows.num_rows)
            self._compare(self._held.slice(0, size), follows.slice(0, size))
            self._held, follows = self._held.slice(size), follows.slice(size)

    def follow_itself(self) -> None:
        """Take the rows that are there as those that follow."""
        for group in self._groups:
            self._digest.update(group)

    def end(self) -> str:
        """Return the digest of the rows that follow; no more must be there."""
        if self.found is None and self._has_more():
            own_id = self._held[OWN_ID[self._name]][0].as_py()
            self.differ(f"{own_id} is there and does not follow from the candidates", own_id)
        return self._digest.hexdigest()

    def differ(self, text: str, own_id: str | None = None, column: str | None = None) -> None:
        """Note a difference."""
        text = f"{self._name}, {self._split}: {text}"
        self.found = Difference(config=self._name, split=self._split, id=own_id, column=column, message=text)

    def _has_more(self) -> bool:
        if not self._held.num_rows:
            group = next(self._groups, None)
            if group is not None:
                self._held = group.cast(self._schema)
        return bool(self._held.num_rows)

    def _missing(self, follows: pa.Table) -> None:
        own_id = follows[OWN_ID[self._name]][0].as_py()
        self.differ(f"{own_id} follows from the candidates and is not there", own_id)

    def _compare(self, there: pa.Table, follows: pa.Table) -> None:
        if there.equals(follows):
            return
        row = next(row for row in range(there.num_rows) if not there.slice(row, 1).equals(follows.slice(row, 1)))
        one, other = there.slice(row, 1), follows.slice(row, 1)
        own_id, wanted = (side[OWN_ID[self._name]][0].as_py() for side in (one, other))
        if own_id != wanted:
            self.differ(f"{own_id} stands where {wanted} follows from the candidates", own_id)
            return
        column = next(name for name in self._schema.names if not one[name].equals(other[name]))
        self.differ(f"{own_id}: column {column!r} is not what follows from the candidates", own_id, column)


class _Files:
    """What follows as files in a temporary folder, for their bytes; nothing where none are asked for."""

    def __init__(self, keys: list[Key]) -> None:
        self.is_asked = bool(keys)
        self._stack = ExitStack()
        self._keys = keys
        self._writers: dict[Key, ShardWriter] = {}

    def __enter__(self) -> _Files:
        if self._keys:
            folder = Path(tempfile.mkdtemp(prefix="rederive-"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for name, split in self._keys:
                writer = ShardWriter(folder / name, SCHEMAS[name], split=split, may_be_absent=split != TRAIN)
                self._writers[name, split] = self._stack.enter_context(writer)
        return self

    def write(self, name: TableName, split: str, table: pa.Table) -> None:
        """Write rows that follow."""
        writer = self._writers.get((name, split))
        if writer is not None:
            writer.write(table)

    def odd(self, key: Key, folder: TableFolder) -> str | None:
        """Return in words which file of a split has other bytes than the manifest says; its rows are the same."""
        if key not in self._writers:
            return None
        name, split = key
        said = {file["name"]: file["sha256"] for file in folder.manifest["files"]}
        listed = {file for file in said if file.startswith(f"{name}/{split}-")}
        made = {shard.name: shard.sha256 for shard in self._writers[key].shards}
        odd = sorted(file for file in made.keys() | listed if made.get(file) != said.get(file))
        if not odd:
            return None
        wrote, here = folder.manifest["pyarrow"], pa.__version__
        why = "" if wrote == here else f"; they were written by pyarrow {wrote}, this is {here}, which may be why"
        return f"{odd[0]}: the same rows have other bytes{why}"

    def __exit__(self, *raised: object) -> None:
        self._stack.__exit__(*raised)  # type: ignore[arg-type]


def _candidates(folder: TableFolder, columns: list[str]) -> Iterator[pa.Table]:
    """Yield these columns of the candidates that are there, all of a problem in one table.

    Raises:
        StoreError: If they are not sorted, each once: a problem's attempts would be taken apart.
    """
    held: list[pa.Table] = []  # of the problem that the last row group ended with
    last = ("", "")
    schema = pa.schema([SCHEMAS["candidates"].field(name) for name in columns])
    for group in row_groups(folder.files("candidates", TRAIN), columns):
        if not group.num_rows:
            continue
        table = group.select(columns).cast(schema)
        last = _check_order(table, last)
        starts = group_starts(table["problem_id"])
        if held and held[-1]["problem_id"][0].as_py() != table["problem_id"][0].as_py():
            yield pa.concat_tables(held)
            held = []
        if len(starts) > 1:
            yield pa.concat_tables([*held, table.slice(0, int(starts[-1]))])
            held = []
        held.append(table.slice(int(starts[-1])))
    if held:
        yield pa.concat_tables(held)


def _without_rate(found: pa.Table) -> pa.StringArray:
    """Return the problems of which candidates say no unbiased rate: what was cancelled is only in the run."""
    return pc.unique(found["problem_id"].filter(pc.is_null(found[UNBIASED])))


def _check_order(table: pa.Table, last: tuple[str, str]) -> tuple[str, str]:
    """Return the last key; each must be above the one before."""
    keys = list(zip(table["problem_id"].to_pylist(), table["trace_id"].to_pylist(), strict=True))
    for before, after in pairwise([last, *keys]):
        if after <= before:
            what = "comes twice" if after == before else f"stands behind {before[1]}"
            raise StoreError(
                f"candidates: trace {after[1]} {what}; rows are sorted by problem_id and trace_id, each once: build or "
                "download the folder again"
            )
    return keys[-1]


def _num_rows(files: list[AnyPath]) -> int:
    return sum(pq.read_metadata(parquet_source(path)).num_rows for path in files)
