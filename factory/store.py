"""A run on disk: frozen problems, compacted traces, verdicts, and the numbered manifests that name them.

``RunFolder`` reads; ``Committer`` is the one writer of manifests. Invariants: a shard is written aside, fsynced and
renamed before a manifest names it; manifests are created only if absent, so that of two committers the one with the
lower epoch finds its number taken and stops; a trace enters at most once, by its id; a journal segment goes only after
a manifest holds all its traces. Decides nothing about what to generate or how to judge.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from factory.journal import (
    SEGMENT_SUFFIX,
    Position,
    SegmentScan,
    read_trace,
    scan_segment,
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
    problems_to_table,
    prompt_from_row,
    quarantine_to_table,
    traces_from_table,
    traces_to_table,
    untraced_to_table,
    verdicts_to_table,
)
from schemas.errors import ConfigError, CorruptRunError, FencedError, FingerprintError, RunLockedError, StoreError
from schemas.manifest import Counts, Manifest, Shard, manifest_from_json, manifest_to_json
from schemas.problem import Problem, Prompt, Quarantined
from schemas.trace import Trace, Untraced
from schemas.verdict import JudgedTrace, Outcome

ROW_GROUP_ROWS: Final = 1024  # at 100 KB a trace, text and token ids, about 100 MB: guess
MANIFEST_NAME: Final = re.compile(r"\d{6,}")
MAX_CLAIMS: Final = 10  # tries to claim a run whose former committer still writes; each costs it a commit
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
        """Return what run.yaml says: config, fingerprint and its parts, versions."""
        body = yaml.safe_load((self.path / "run.yaml").read_text(encoding="utf-8"))
        assert isinstance(body, dict)
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
                        yield file.read_row_group(group, columns=columns)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenJob:
    """What a manifest keeps of the job."""

    fingerprint: str
    config: Mapping[str, Any]  # the resolved job
    sources_state: str  # tells whether files behind the sources have changed since they were read
    num_samples: int


class Committer:
    """The one writer of a run's shards and manifests. Not thread-safe."""

    def __init__(self, path: Path, *, verifiers: str) -> None:
        """Claim the run with an epoch above all before; a run without a manifest is started by ``freeze``."""
        self.folder = RunFolder(path)
        self.verifiers = verifiers
        for name in ("problems", "journal", "traces", "untraced", "verdicts", "manifest", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
        self._is_broken = False
        self.state = RunState()
        self._manifest = self.folder.find_manifest()
        for left in reversed(range(MAX_CLAIMS)):
            if self._manifest is None:
                break
            self.state = RunState.load(self.folder, replace(self._manifest, verifiers=verifiers))
            try:
                self._write(note="claimed")
                break
            except FencedError:  # a former committer, not yet dead, was quicker; the next claim stops it
                if not left:
                    raise
                self._manifest = self.folder.find_manifest()

    @property
    def manifest(self) -> Manifest:
        """The newest manifest that this committer wrote."""
        assert self._manifest is not None, "freeze() comes first"
        return self._manifest

    def freeze(
        self, job: FrozenJob, pairs: Sequence[tuple[Problem, Prompt]], quarantined: Sequence[Quarantined]
    ) -> int:
        """Start a run or extend it by a changed job, with its problems, in one manifest; return how many are new.

        Problems that the run holds with another reference count as new: the verdicts against the old one become void,
        and no token is spent.

        Raises:
            ConfigError: If the job asks for fewer attempts than the run has: a run only grows.
        """
        if self._manifest is None:
            self._manifest = Manifest(
                number=0,
                epoch=0,
                note="",
                created_at="",
                fingerprint=job.fingerprint,
                config=job.config,
                sources_state=job.sources_state,
                num_samples=job.num_samples,
                verifiers=self.verifiers,
                counts=Counts(),
            )
        assert self._manifest.fingerprint == job.fingerprint, "check_fingerprint comes first"
        if job.num_samples < self._manifest.num_samples:
            raise ConfigError(
                f"sampling.num_samples={job.num_samples} is below the {self._manifest.num_samples} attempts per "
                f"problem of {self.folder.path}; a run only grows: use select.max_per_problem for smaller tables"
            )
        known = self.state.references
        fresh = [pair for pair in pairs if known.get(pair[0].problem_id, "") != pair[0].reference_hash]
        changes = self._problem_changes(fresh, quarantined)
        wanted = {"config": job.config, "sources_state": job.sources_state, "num_samples": job.num_samples}
        is_changed = any(getattr(self._manifest, name) != value for name, value in wanted.items())
        if self._manifest.number == 0 or changes or is_changed:
            note = "started" if self._manifest.number == 0 else f"job changed, {len(fresh)} problems added"
            self._write(note=note, **changes, **wanted)
        return len(fresh)

    def _problem_changes(
        self, fresh: Sequence[tuple[Problem, Prompt]], quarantined: Sequence[Quarantined]
    ) -> dict[str, Any]:
        number = self.manifest.number + 1
        changes: dict[str, Any] = {}
        if fresh:
            shard = self._write_shard("problems", number, problems_to_table(fresh))
            changes["problems"] = (*self.manifest.problems, shard)
            is_repair = any(problem.problem_id in self.state.references for problem, _ in fresh)
            self.state.references |= {problem.problem_id: problem.reference_hash for problem, _ in fresh}
            if is_repair:
                self.state.load_verdicts(self.folder, self.manifest)
        if quarantined:  # of the newest reading of the sources
            changes["quarantine"] = (self._write_shard("quarantine", number, quarantine_to_table(quarantined)),)
        return changes

    def commit(
        self, *, segments: Sequence[str] = (), judged: Iterable[JudgedTrace] = (), untraced: Iterable[Untraced] = ()
    ) -> Counts:
        """Make journal segments, verdicts and endings part of the run, in one manifest; return the new counts.

        Traces and endings that the run already holds are dropped. The segments are deleted afterwards.

        Raises:
            StoreError: If an earlier commit failed: what this object knows may then not be on disk.
        """
        if self._is_broken:
            raise StoreError(f"{self.folder.path}: an earlier commit failed; run the same command again")
        self._is_broken = True  # until this one is through
        number = self.manifest.number + 1
        scans = [scan_segment(self.folder.journal / name) for name in segments]
        changes = self._trace_changes(number, scans) | self._untraced_changes(number, untraced)
        changes |= self._verdict_changes(number, judged)
        if changes:
            self._write(note="committed", **changes)
        for name in segments:
            (self.folder.journal / name).unlink()
        self._is_broken = False
        return self.manifest.counts

    def _trace_changes(self, number: int, scans: Sequence[SegmentScan]) -> dict[str, Any]:
        fresh = [
            trace
            for scan in scans
            for _, trace in scan.traces
            if not self.state.untraced.has(trace.problem_id, trace.sample_index)
            and self.state.traced.add(trace.problem_id, trace.sample_index)
        ]
        if not fresh:
            return {}
        assert all(trace.fingerprint == self.manifest.fingerprint for trace in fresh), "a segment of another run"
        shard = self._write_shard("traces", number, traces_to_table(fresh).sort_by("trace_id"))
        return {"traces": (*self.manifest.traces, shard)}

    def _untraced_changes(self, number: int, untraced: Iterable[Untraced]) -> dict[str, Any]:
        fresh = [
            item
            for item in untraced
            if not self.state.traced.has(item.problem_id, item.sample_index)
            and self.state.untraced.add(item.problem_id, item.sample_index)
        ]
        if not fresh:
            return {}
        self.state.num_cancelled += sum(item.ending == "cancelled" for item in fresh)
        shard = self._write_shard("untraced", number, untraced_to_table(fresh).sort_by("trace_id"))
        return {"untraced": (*self.manifest.untraced, shard)}

    def _verdict_changes(self, number: int, judged: Iterable[JudgedTrace]) -> dict[str, Any]:
        fresh = {item.trace_id: item for item in judged if item.trace_id not in self.state.judged}
        if not fresh:
            return {}
        self.state.judged |= fresh.keys()
        self.state.unjudged |= {key for key, item in fresh.items() if item.verdict.outcome is Outcome.UNJUDGED}
        (self.folder.path / "verdicts" / self.verifiers).mkdir(exist_ok=True)
        shard = self._write_shard("verdicts", number, verdicts_to_table(fresh.values()).sort_by("trace_id"))
        shards = (*self.manifest.verdicts.get(self.verifiers, ()), shard)
        return {"verdicts": {**self.manifest.verdicts, self.verifiers: shards}}

    def _write_shard(self, kind: ShardKind, number: int, table: pa.Table) -> Shard:
        """Write a table under its final name, which holds manifest number and content digest."""
        folder = {"quarantine": "problems", "verdicts": f"verdicts/{self.verifiers}"}.get(kind, kind)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        data = sink.getvalue().to_pybytes()
        sha256 = hashlib.sha256(data).hexdigest()
        prefix = "quarantine-" if kind == "quarantine" else ""
        name = f"{folder}/{prefix}{number:06d}-{sha256[:12]}.parquet"
        write_atomically(self.folder.path / name, data)
        return Shard(name=name, rows=table.num_rows, num_bytes=len(data), sha256=sha256)

    def _write(self, *, note: str, **changes: Any) -> None:
        """Write the next manifest with these changes; a claim raises the epoch.

        Raises:
            FencedError: If its number is taken: another committer claimed the run.
        """
        is_claim = note in ("claimed", "started")
        manifest = replace(
            self.manifest,
            number=self.manifest.number + 1,
            epoch=self.manifest.epoch + is_claim,
            note=note,
            created_at=datetime.now(UTC).isoformat(),
            verifiers=self.verifiers,
            **changes,
        )
        manifest = replace(manifest, counts=self.state.counts(manifest.num_samples))
        manifest.counts.check()
        self._create(manifest)
        self._manifest = manifest

    def _create(self, manifest: Manifest) -> None:
        path = self.folder.manifest_path(manifest.number)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with temporary.open("xb") as file:
            file.write(json.dumps(manifest_to_json(manifest), ensure_ascii=False, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails if the name is there: create-only-if-absent
        except FileExistsError:
            raise FencedError(
                f"{path}: another process took this run over and wrote this manifest; this one stops, nothing is lost"
            ) from None
        finally:
            temporary.unlink()
        sync_folder(path.parent)
