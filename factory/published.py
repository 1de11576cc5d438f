"""The folder of a selection as it lies, or a downloaded copy of it: its manifest, and whether its files are those.

Read side of `tables`, for `rederive`, `export` and `differences`. Changes nothing. What is not as the manifest says is
a `Difference`, which names table, split and, where it is about one, row and column; what cannot be read as a selection
at all is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from factory.derived import TRAIN, splits_of
from factory.rowdigest import schema_sha256
from factory.selection import selection_digest
from factory.storage import AnyPath, find_files, parquet_source
from factory.tables import ALWAYS, MANIFEST, TABLE_NAMES
from schemas.config import SelectConfig, TableName, parse_select
from schemas.errors import ConfigError
from schemas.tables import SCHEMAS, TABLES_VERSION

_NEEDED: Final = {"selection", "selection_digest", "verdict_digest", "num_first", "configs", "files", "pyarrow"}
_HINT: Final = "give the folder of a selection, such as runs/demo/tables/default, or a copy of what was published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it should be; ``id`` and ``column`` are null where it is not about a row."""

    config: str  # a table, or ``manifest``
    split: str | None = None
    id: str | None = None
    column: str | None = None
    message: str


class TableFolder:
    """A selection's folder of this version."""

    def __init__(self, path: AnyPath) -> None:
        """Read the manifest.

        Raises:
            ConfigError: If there is none, or none that this version can read.
        """
        self.path = path
        self.manifest = read_tables_manifest(path)
        self.config: SelectConfig = parse_select(self.manifest["selection"], origin=f"{path / MANIFEST}: selection")
        wanted = {*self.config.configs, *ALWAYS}
        self.names: list[TableName] = [name for name in TABLE_NAMES if name in wanted]

    def said(self, name: str, split: str) -> Mapping[str, Any] | None:
        """Return what the manifest says of one split of a table; None where it has none."""
        entry: Mapping[str, Any] | None = self.manifest["configs"].get(name, {}).get("splits", {}).get(split)
        return entry

    def files(self, name: str, split: str) -> list[AnyPath]:
        """Return the files of one split of a table, in order."""
        return find_files(self.path / name, f"{split}-*.parquet")

    def splits(self) -> Iterator[tuple[TableName, str]]:
        """Yield the splits that are there, or should be."""
        for name in self.names:
            for split in splits_of(name, self.config):
                if split == TRAIN or self.files(name, split) or self.said(name, split):
                    yield name, split

    def check_files(self, tables: Collection[str] = tuple(SCHEMAS)) -> Iterator[Difference]:
        """Yield what of some tables' files is not as the manifest lists it; reads every byte of them."""
        listed = {file["name"]: file for file in self.manifest["files"] if file["name"].partition("/")[0] in tables}
        there = {f"{name}/{path.name}": path for name in tables for path in find_files(self.path / name, "*.parquet")}
        for name in sorted(listed.keys() | there.keys()):
            config, _, file = name.partition("/")
            text = None
            if name not in there:
                text = f"{name}: is in the manifest and not there; download it again"
            elif name not in listed:
                text = f"{name}: is not in the manifest, and would be loaded with the others; take it out"
            else:
                text = _odd_bytes(there[name], listed[name])
            if text is not None:
                yield Difference(config=config, split=file.partition("-")[0], message=text)

    def check_manifest(self) -> Iterator[Difference]:
        """Yield what the manifest says of its own config and of columns that is not so."""
        digest = selection_digest(self.config, {"verdicts": self.manifest["verdict_digest"]})
        if digest != self.manifest["selection_digest"]:
            text = (
                f"selection_digest is {self.manifest['selection_digest']}, and {digest} follows from the config: the "
                "config was changed, or this version selects by other rules than the one that built it"
            )
            yield Difference(config="manifest", message=text)
        for name in self.names:
            said = self.manifest["configs"].get(name, {}).get("schema_sha256")
            if said != schema_sha256(SCHEMAS[name]):
                text = f"schema_sha256 of {name} is {said}, that of this version is {schema_sha256(SCHEMAS[name])}"
                yield Difference(config=name, message=text)

    def check_columns(self, tables: Collection[str] = tuple(SCHEMAS)) -> Iterator[Difference]:
        """Yield columns of some tables' files that are none of theirs, missing or odd, and files that are no tables."""
        for name, split in self.splits():
            if name not in tables:
                continue
            for path in self.files(name, split):
                try:
                    seen = pq.read_schema(parquet_source(path))
                except (OSError, pa.ArrowException) as error:
                    text = f"{name}/{path.name}: cannot be read: {error}; download it again"
                    yield Difference(config=name, split=split, message=text)
                    continue
                for column, text in _odd_columns(seen, SCHEMAS[name]):
                    text = f"{name}/{path.name}: column {column!r} {text}"
                    yield Difference(config=name, split=split, column=column, message=text)


def _odd_columns(seen: pa.Schema, wanted: pa.Schema) -> Iterator[tuple[str, str]]:
    for column in seen:
        if column.name not in wanted.names:
            yield column.name, "is none of this table's; take it out"
    for column in wanted:
        place = seen.get_field_index(column.name)
        if place < 0:
            yield column.name, "is missing"
        elif seen.field(place).type != column.type:
            yield column.name, f"is {seen.field(place).type}, not {column.type}"


def _odd_bytes(path: AnyPath, said: Mapping[str, Any]) -> str | None:
    """Return in words how a file is not the one that the manifest names."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = file.tell()
    if (num_bytes, sha256) == (said["num_bytes"], said["sha256"]):
        return None
    return (
        f"{said['name']}: has {num_bytes} bytes with sha256 {sha256}, the manifest says {said['num_bytes']} with "
        f"{said['sha256']}; download it again"
    )


def read_tables_manifest(folder: AnyPath) -> dict[str, Any]:
    """Return the manifest of a selection's folder.

    Raises:
        ConfigError: If there is none, or one of another version.
    """
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder}: holds no {MANIFEST}; {_HINT}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; {_HINT}") from error
    version = body.get("version") if isinstance(body, dict) else None
    if version != TABLES_VERSION or "selection" not in body:
        raise ConfigError(
            f"{path}: is no manifest of tables of version {TABLES_VERSION} (version {version}); build them again with "
            f"`factory select`, or use the version of the factory that wrote them; {_HINT}"
        )
    missing = sorted(_NEEDED - body.keys())
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}: it was changed; build or download it again")
    return dict(body)
