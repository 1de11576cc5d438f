"""A run on disk, to be read: frozen problems, compacted traces, verdicts, and the numbered manifests that name them.

For every command, while another process may write. Invariant: what the newest manifest does not name does not exist,
and what it names is there with as many rows as it says. Writing is the committer's (``committer``).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from factory.journal import SEGMENT_SUFFIX, Position, list_segments, read_trace, segment_size
from factory.objectlock import ObjectLock
from factory.storage import AnyPath, parquet_source, require_storage
from schemas.arrow import (
    PROBLEMS,
    QUARANTINE,
    TRACES,
    UNTRACED,
    VERDICTS,
    check_schema,
    problem_from_row,
    prompt_from_row,
    traces_from_table,
    upgraded,
)
from schemas.errors import ConfigError, CorruptRunError, FingerprintError, RunLockedError
from schemas.manifest import Manifest, Shard, manifest_from_json
from schemas.problem import Problem, Prompt
from schemas.trace import Trace

MANIFEST_NAME: Final = re.compile(r"\d{6,}")
NEWEST: Final = "manifest/newest"  # the number of the newest manifest, so that a missing one is missed
OLD_WRITER_TIMEOUT_S: Final = 30.0  # engines of a killed driver end within a few seconds; guess with a margin
ShardKind = Literal["problems", "quarantine", "traces", "untraced", "verdicts"]
_SCHEMAS: Final[dict[ShardKind, pa.Schema]] = {
    "problems": PROBLEMS,
    "quarantine": QUARANTINE,
    "traces": TRACES,
    "untraced": UNTRACED,
    "verdicts": VERDICTS,
}


class RunFolder:
    """The read side of a run, for every command; works while another process writes."""

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self.journal = path / "journal"
        self.logs = path / "logs"
        self.tables = path / "tables"

    def manifest(self) -> Manifest:
        """Return the newest manifest.

        Raises:
            ConfigError: If the folder holds no run.
        """
        found = self.find_manifest()
        if found is None:
            raise ConfigError(
                f"{self.path}: holds no run (no manifest); start one with `factory run JOB.yaml --run DIR`"
            )
        return found

    def find_manifest(self) -> Manifest | None:
        """Return the newest manifest; None where no run has been started."""
        names = (path.stem for path in (self.path / "manifest").glob("*.json"))
        newest = max((int(name) for name in names if MANIFEST_NAME.fullmatch(name)), default=0)
        if newest < (written := self._newest_written()):
            raise CorruptRunError(
                f"{self.manifest_path(written)}: is gone, though it was written; restore it from a copy. Without one, "
                f"delete {self.path / NEWEST} to go on from manifest {newest}: what came later is made again"
            )
        return self.read_manifest(newest) if newest else None

    def _newest_written(self) -> int:
        """Return the number of the newest manifest that is known to have been written; 0 where nothing is known."""
        try:
            return int((self.path / NEWEST).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except ValueError as error:
            raise CorruptRunError(f"{self.path / NEWEST}: holds no number; delete it") from error

    def read_manifest(self, number: int) -> Manifest:
        """Return one manifest by its number.

        Raises:
            CorruptRunError: If it is not readable as one.
        """
        path = self.manifest_path(number)
        try:
            body = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CorruptRunError(f"{path}: cannot be read: {error}; restore it from a copy") from error
        return manifest_from_json(body, where=str(path))

    def manifest_path(self, number: int) -> AnyPath:
        """Return where the manifest of that number lies."""
        return self.path / "manifest" / f"{number:06d}.json"

    def run_yaml(self) -> dict[str, Any]:
        """Return what run.yaml says: config, fingerprint and its parts, versions.

        Raises:
            CorruptRunError: If it is missing or says something else.
        """
        path = self.path / "run.yaml"
        try:
            body = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CorruptRunError(f"{path}: cannot be read: {error}; put it back from a copy") from error
        if not isinstance(body, dict) or not isinstance(body.get("fingerprint_parts"), dict):
            raise CorruptRunError(f"{path}: is not what a run wrote (no fingerprint_parts); put it back from a copy")
        return body

    def tables_of(
        self, kind: ShardKind, shards: Sequence[Shard], columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the shards as tables, one row group at a time.

        Raises:
            CorruptRunError: If a shard is missing, unreadable, or has another number of rows than its manifest says.
        """
        for shard in shards:
            with self._opened(kind, shard) as file:
                for group in range(file.num_row_groups):
                    yield upgraded(file.read_row_group(group, columns=columns), _SCHEMAS[kind], columns)

    @contextmanager
    def _opened(self, kind: ShardKind, shard: Shard) -> Iterator[pq.ParquetFile]:
        path = self.path / shard.name
        pre_buffer = not isinstance(path, Path)  # few large requests, where each takes its time
        try:
            source = parquet_source(path)
            with pq.ParquetFile(source, pre_buffer=pre_buffer, page_checksum_verification=True) as file:
                check_schema(file.schema_arrow, _SCHEMAS[kind], where=str(path))
                if file.metadata.num_rows != shard.rows:
                    raise CorruptRunError(
                        f"shard {shard.name} has {file.metadata.num_rows} rows, the manifest says {shard.rows}; "
                        "restore it from a copy"
                    )
                yield file
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise CorruptRunError(
                f"shard {shard.name} cannot be read: {error}; restore it from a copy ({shard.rows} rows, "
                f"sha256 {shard.sha256})"
            ) from error

    def columns_of(self, kind: ShardKind, shards: Sequence[Shard], columns: list[str]) -> pa.Table:
        """Return a few columns of all shards as one table.

        Raises:
            CorruptRunError: As ``tables_of``.
        """
        tables = [pa.schema([_SCHEMAS[kind].field(name) for name in columns]).empty_table()]
        for shard in shards:
            with self._opened(kind, shard) as file:
                table = upgraded(file.read(columns=columns), _SCHEMAS[kind], columns)
            tables.append(table.select(columns).replace_schema_metadata())
        return pa.concat_tables(tables)

    def problems(self, manifest: Manifest) -> Iterator[tuple[Problem, Prompt]]:
        """Yield the frozen problems with their prompts, in frozen order, each with its newest reference."""
        rows: dict[str, dict[str, Any]] = {}
        for table in self.tables_of("problems", manifest.problems):
            for row in table.to_pylist():
                rows[row["problem_id"]] = row  # a repaired reference keeps the place of the first
        for row in rows.values():
            yield problem_from_row(row), prompt_from_row(row)

    def leftover_segments(self) -> list[AnyPath]:
        """Return the journal segments on disk, by name."""
        return list_segments(self.journal)

    def journal_bytes(self) -> int:
        """Return the bytes of all segments: what is on disk, and in no manifest yet or still needed."""
        total = 0
        for path in self.leftover_segments():
            with suppress(FileNotFoundError):  # committed since the listing
                total += segment_size(path)
        return total


def lock_run(path: AnyPath) -> RunLock | ObjectLock:
    """Return the lock on a run, taken; on an object store that can hold a run.

    Raises:
        RunLockedError: If another living process holds it; names it.
        ConfigError: If no run can lie there.
    """
    if isinstance(path, Path):
        return RunLock(path)
    require_storage(path)
    return ObjectLock(path)


class RunLock:
    """The exclusive lock of one process on a run; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            RunLockedError: If another living process holds it; names it.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; give a folder, or a name that is not there yet")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be made: {error.strerror}; give another folder") from error
        self._path = folder / "lock"
        self._file: IO[str] = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unnamed process"
            self._file.close()
            raise RunLockedError(
                f"{folder}: {holder} works on this run; wait for it, end it, or give another folder"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def fileno(self) -> int:
        """Return the open file that holds the lock: a child that is given it holds the lock, too, until it ends."""
        return self._file.fileno()

    def release(self) -> None:
        """Free the lock."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def read_traces(folder: RunFolder, positions: Sequence[Position]) -> list[Trace]:
    """Return the traces at these places, in their order: bytes of journal segments, or rows of trace shards."""
    found: dict[Position, Trace] = {}
    by_shard: dict[str, list[Position]] = {}
    for position in positions:
        if position.file.endswith(SEGMENT_SUFFIX):
            found[position] = read_trace(folder.journal, position)
        else:
            by_shard.setdefault(position.file, []).append(position)
    for name, group in by_shard.items():
        try:
            source = parquet_source(folder.path / name)
            table = pq.read_table(source, schema=TRACES, memory_map=True, page_checksum_verification=True)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise CorruptRunError(f"shard {name} cannot be read: {error}; restore it from a copy") from error
        rows = table.take([position.offset for position in group])
        found |= dict(zip(group, traces_from_table(rows), strict=True))
    return [found[position] for position in positions]


def check_fingerprint(folder: RunFolder, fingerprint: str, parts: Mapping[str, Any]) -> None:
    """Check that a run was made with this fingerprint.

    Raises:
        FingerprintError: If not; lists every part that differs.
    """
    body = folder.run_yaml()
    if body["fingerprint"] == fingerprint:
        return
    there, here = _flatten(body["fingerprint_parts"]), _flatten(parts)
    lines = [
        f"  {key}: the run has {there.get(key)!r}, the job says {here.get(key)!r}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    raise FingerprintError(
        f"{folder.path}: was made with fingerprint {body['fingerprint']}, this job has {fingerprint}:\n"
        + "\n".join(lines)
        + "\nits samples and yours must not mix; give another --run folder, or change the job back"
    )


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
