"""A run on disk, to be read: frozen problems, compacted traces, verdicts, and the numbered manifests that name them.

For every command, while another process may write. Invariant: what the newest manifest does not name does not exist,
and what it names is there with as many rows as it says. Writing is the committer's (``committer``).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from factory.journal import (
    SEGMENT_SUFFIX,
    Position,
    read_trace,
    sync_folder,
)
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
from schemas.manifest import Counts, Manifest, Shard, manifest_from_json
from schemas.problem import Problem, Prompt
from schemas.trace import Trace
from schemas.verdict import Outcome

MANIFEST_NAME: Final = re.compile(r"\d{6,}")
OLD_WRITER_TIMEOUT_S: Final = 30.0  # engines of a killed driver end within a few seconds; guess with a margin
ShardKind = Literal["problems", "quarantine", "traces", "untraced", "verdicts"]
_SCHEMAS: Final[dict[ShardKind, pa.Schema]] = {
    "problems": PROBLEMS,
    "quarantine": QUARANTINE,
    "traces": TRACES,
    "untraced": UNTRACED,
    "verdicts": VERDICTS,
}


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


class RunFolder:
    """The read side of a run, for every command; works while another process writes."""

    def __init__(self, path: Path) -> None:
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
        numbers = [int(name) for name in names if MANIFEST_NAME.fullmatch(name)]
        return self.read_manifest(max(numbers)) if numbers else None

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

    def manifest_path(self, number: int) -> Path:
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
            path = self.path / shard.name
            try:
                with pq.ParquetFile(path) as file:
                    check_schema(file.schema_arrow, _SCHEMAS[kind], where=str(path))
                    if file.metadata.num_rows != shard.rows:
                        raise CorruptRunError(
                            f"shard {shard.name} has {file.metadata.num_rows} rows, the manifest says {shard.rows}; "
                            "restore it from a copy"
                        )
                    for group in range(file.num_row_groups):
                        yield upgraded(file.read_row_group(group, columns=columns), _SCHEMAS[kind])
            except (OSError, pa.ArrowInvalid) as error:
                raise CorruptRunError(
                    f"shard {shard.name} cannot be read: {error}; restore it from a copy ({shard.rows} rows, "
                    f"sha256 {shard.sha256})"
                ) from error

    def problems(self, manifest: Manifest) -> Iterator[tuple[Problem, Prompt]]:
        """Yield the frozen problems with their prompts, in frozen order, each with its newest reference."""
        rows: dict[str, dict[str, Any]] = {}
        for table in self.tables_of("problems", manifest.problems):
            for row in table.to_pylist():
                rows[row["problem_id"]] = row  # a repaired reference keeps the place of the first
        for row in rows.values():
            yield problem_from_row(row), prompt_from_row(row)

    def verdicts(self, manifest: Manifest, references: Mapping[str, str | None]) -> Iterator[pa.Table]:
        """Yield the verdicts of the manifest's verifiers that were given against today's references."""
        for table in self.tables_of("verdicts", manifest.verdicts.get(manifest.verifiers, ())):
            pairs = zip(table["problem_id"].to_pylist(), table["reference_hash"].to_pylist(), strict=True)
            yield table.filter(pa.array([references[key] == value for key, value in pairs], pa.bool_()))

    def references(self, manifest: Manifest) -> dict[str, str | None]:
        """Return today's reference hash of every problem."""
        found: dict[str, str | None] = {}
        for table in self.tables_of("problems", manifest.problems, ["problem_id", "reference_hash"]):
            found |= dict(zip(table["problem_id"].to_pylist(), table["reference_hash"].to_pylist(), strict=True))
        return found

    def leftover_segments(self) -> list[Path]:
        """Return the journal segments on disk, by name."""
        return sorted(self.journal.glob(f"*{SEGMENT_SUFFIX}"))


class RunLock:
    """The exclusive lock of one process on a run; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            RunLockedError: If another living process holds it; names it.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--run {folder}: is a file; give a folder, or a name that is not there yet")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--run {folder}: cannot be made: {error.strerror}; give another folder") from error
        self._path = folder / "lock"
        self._file: IO[str] = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unnamed process"
            self._file.close()
            raise RunLockedError(
                f"{folder}: {holder} works on this run; wait for it, end it, or give another --run folder"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Free the lock."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(slots=True)
class Keys:
    """Which attempts a run already holds, as bit masks of sample indices by problem id."""

    masks: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def add(self, problem_id: str, sample_index: int) -> bool:
        """Add one attempt; False if it was there."""
        bit = 1 << sample_index
        mask = self.masks.get(problem_id, 0)
        if mask & bit:
            return False
        self.masks[problem_id] = mask | bit
        self.count += 1
        return True

    def has(self, problem_id: str, sample_index: int) -> bool:
        """True if the attempt is there."""
        return bool(self.masks.get(problem_id, 0) >> sample_index & 1)


@dataclass(slots=True)
class RunState:
    """Which attempts a run holds and which of them today's verifiers have judged, by its shards."""

    references: dict[str, str | None] = field(default_factory=dict)  # reference hash of every problem
    traced: Keys = field(default_factory=Keys)
    untraced: Keys = field(default_factory=Keys)
    num_cancelled: int = 0
    judged: set[str] = field(default_factory=set)  # trace ids
    unjudged: set[str] = field(default_factory=set)  # those of them that stayed unjudged
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, folder: RunFolder, manifest: Manifest) -> RunState:
        """Read the key columns of every shard that the manifest names.

        Raises:
            CorruptRunError: If an attempt is there twice.
        """
        state = cls(references=folder.references(manifest))
        columns = ["problem_id", "sample_index"]
        for table in folder.tables_of("traces", manifest.traces, columns):
            _add_all(state.traced, table, f"{folder.path}: traces")
        for table in folder.tables_of("untraced", manifest.untraced, [*columns, "ending"]):
            _add_all(state.untraced, table, f"{folder.path}: untraced")
            state.num_cancelled += table["ending"].to_pylist().count("cancelled")
        state.load_verdicts(folder, manifest)
        return state

    def load_verdicts(self, folder: RunFolder, manifest: Manifest) -> None:
        """Read anew which traces have a verdict of the manifest's verifiers against today's references."""
        for known in (self.judged, self.unjudged, self.outcomes, self.reasons):
            known.clear()
        for table in folder.verdicts(manifest, self.references):
            ids = table["trace_id"].to_pylist()
            self.judged.update(ids)
            outcomes = table["outcome"].to_pylist()
            self.outcomes.update(outcomes)
            self.reasons.update(reason for reason in table["reason"].to_pylist() if reason is not None)
            self.unjudged.update(i for i, o in zip(ids, outcomes, strict=True) if o == Outcome.UNJUDGED)

    def counts(self, num_samples: int) -> Counts:
        """Return where every requested attempt stands."""
        requested = len(self.references) * num_samples
        return Counts(
            requested=requested,
            generated=self.traced.count,
            judged=len(self.judged) - len(self.unjudged),
            unjudged=len(self.unjudged),
            failed=self.untraced.count - self.num_cancelled,
            cancelled=self.num_cancelled,
            pending=requested - len(self.judged) - self.untraced.count,
        )


def _add_all(keys: Keys, table: pa.Table, where: str) -> None:
    for problem_id, index in zip(table["problem_id"].to_pylist(), table["sample_index"].to_pylist(), strict=True):
        if not keys.add(problem_id, index):
            raise CorruptRunError(f"{where} hold attempt {index} at problem {problem_id} twice")


def unjudged_places(folder: RunFolder, manifest: Manifest, judged: set[str]) -> Iterator[tuple[str, str, Position]]:
    """Yield trace id, problem id and place of every committed trace that is not among ``judged``."""
    for shard in manifest.traces:
        row = 0
        for table in folder.tables_of("traces", [shard], ["trace_id", "problem_id"]):
            for trace_id, problem_id in zip(
                table["trace_id"].to_pylist(), table["problem_id"].to_pylist(), strict=True
            ):
                if trace_id not in judged:
                    yield trace_id, problem_id, Position(shard.name, row)
                row += 1


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
            table = pq.read_table(folder.path / name, schema=TRACES, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
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
