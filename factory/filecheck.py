"""What one Parquet file of a table says about itself before it is published, read once in bounded memory.

Rows, the order of their ids, the largest row, secrets and personal data: a pure function of the file's bytes, so that
a publication that goes on need not read a file again whose sha256 it has read before (`publish_journal`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.derived import OWN_ID
from factory.secretscan import RULES_VERSION, Hit, find_in_text, suspicious
from factory.shards import row_bytes
from factory.storage import parquet_batches
from schemas.errors import ConfigError
from schemas.tables import SCHEMAS

BATCH_ROWS: Final = 512
MAX_PLACES: Final = 20  # findings of a file that are named; all are counted
CHECK_VERSION: Final = f"1.{RULES_VERSION}"

# What makes a row of a table the one that it is, in the order in which rows are sorted.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(dict.fromkeys(key for key in ("problem_id", own) if key in SCHEMAS[name].names))
    for name, own in OWN_ID.items()
}


class Place(NamedTuple):
    """Where something was found."""

    kind: str
    shown: str
    is_secret: bool
    column: str
    row_id: str


@dataclass(slots=True, kw_only=True)
class FileReport:
    """What was found in one file; JSON in the journal."""

    rows: int = 0
    first_key: list[str] | None = None
    last_key: list[str] | None = None
    largest_row_bytes: int = 0  # of its values in Arrow
    largest_row_id: str = ""
    num_large: int = 0  # rows above the limit
    secrets: dict[str, int] = field(default_factory=dict)  # by kind
    personal: dict[str, int] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"places": [list(place) for place in self.places]}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> FileReport:
        """Return the report that ``to_json`` wrote."""
        return cls(**{**body, "places": [Place(*place) for place in body["places"]]})


def check_schema(path: Path, name: str, config: str) -> None:
    """Check that a file has exactly the columns of its table, which every shard and every reader relies on.

    Raises:
        ConfigError: If not; names the columns.
    """
    try:
        seen = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{name}: is no readable Parquet file: {error}; run `factory select` again") from error
    wanted = SCHEMAS[config]
    added = [column for column in seen.names if column not in wanted.names]
    missing = [column for column in wanted.names if column not in seen.names]
    if added or missing:
        odd = [*(f"has {column!r}" for column in added), *(f"lacks {column!r}" for column in missing)]
        raise ConfigError(
            f"{name}: {', '.join(odd)}; the columns of {config} are those of schemas/tables.py, in every file: publish "
            "columns of your own as a dataset of your own, or run `factory select` again"
        )
    if seen.names != wanted.names:
        raise ConfigError(
            f"{name}: its columns are in another order than those of {config}; run `factory select` again"
        )
    for column in wanted:
        if (kind := seen.field(column.name).type) != column.type:
            raise ConfigError(
                f"{name}: column {column.name!r} is {kind}, in {config} it is {column.type}; run `factory select` again"
            )


def read_report(path: Path, name: str, config: str, max_row_bytes: int) -> FileReport:
    """Return what a file holds.

    Raises:
        ConfigError: If its rows are not sorted by their ids, each once, or cannot be read.
    """
    check_schema(path, name, config)
    report = FileReport()
    try:
        for batch in parquet_batches(path, SCHEMAS[config].names, BATCH_ROWS):
            _add(report, batch, name, config, max_row_bytes)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{name}: cannot be read: {error}; run `factory select` again") from error
    return report


def _add(report: FileReport, batch: pa.RecordBatch, name: str, config: str, max_row_bytes: int) -> None:
    if not batch.num_rows:
        return
    keys = list(zip(*(batch.column(column).to_pylist() for column in KEYS[config]), strict=True))
    before = None if report.last_key is None else tuple(report.last_key)
    for key in keys:
        require_after(before, key, name, config)
        before = key
    report.first_key = report.first_key or list(keys[0])
    report.last_key = list(keys[-1])
    report.rows += batch.num_rows
    sizes = row_bytes(batch)
    largest = int(sizes.argmax())
    report.num_large += int((sizes > max_row_bytes).sum())
    if sizes[largest] > report.largest_row_bytes:
        report.largest_row_bytes, report.largest_row_id = int(sizes[largest]), keys[largest][-1]
    secrets, personal = Counter(report.secrets), Counter(report.personal)
    for row, column, hit in scan(batch):
        (secrets if hit.is_secret else personal)[hit.kind] += 1
        if len(report.places) < MAX_PLACES or hit.is_secret:
            report.places = [*report.places, Place(*hit, column, keys[row][-1])][-MAX_PLACES:]
    report.secrets, report.personal = dict(secrets), dict(personal)


def require_after(before: tuple[Any, ...] | None, key: tuple[Any, ...], name: str, config: str) -> None:
    """Check that a row comes after the one before it.

    Raises:
        ConfigError: If it has the same ids, lower ones, or none.
    """
    if None in key:
        raise ConfigError(f"{name}: a row has no {KEYS[config][key.index(None)]}; run `factory select` again")
    if before is None or before < key:
        return
    what = "comes twice" if before == key else f"comes after {'/'.join(before)}"
    raise ConfigError(
        f"{name}: {' and '.join(KEYS[config])} {'/'.join(key)} {what}; each row of {config} has ids of its own, and "
        "rows are sorted by them: run `factory select` again"
    )


class Found(NamedTuple):
    """A finding and the row and column of a batch that it is in."""

    row: int
    column: str
    hit: Hit


def scan(batch: pa.RecordBatch) -> Iterator[Found]:
    """Yield what is found in the texts of a batch."""
    numbers = np.arange(batch.num_rows)
    names, texts, rows = [], [], []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for part, part_rows in _texts(column, numbers):
            names.append(name)
            texts.append(part.cast(pa.string()))
            rows.append(part_rows)
    # All in one call: compiling the pattern costs as much as looking through a megabyte.
    starts = np.cumsum([0, *map(len, texts)])
    for index in suspicious(pa.chunked_array(texts, pa.string())).to_pylist():
        part = int(np.searchsorted(starts, index, side="right")) - 1
        within = index - int(starts[part])
        for hit in find_in_text(texts[part][within].as_py()):
            yield Found(int(rows[part][within]), names[part], hit)


def _texts(array: pa.Array, rows: Any) -> Iterator[tuple[pa.Array, Any]]:
    """Yield every array of texts inside a column, and for each text the number of its row."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array, rows
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _texts(part, rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(array.flatten(), rows[pc.list_parent_indices(array).to_numpy()])
