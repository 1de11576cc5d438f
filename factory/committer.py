"""The committer: the one writer of a run's shards and manifests.

Invariants: a shard is written aside, fsynced and renamed before a manifest names it; manifests are created only if
absent, so that of two committers the one with the lower epoch finds its number taken and stops; a trace enters at most
once, by its id; a journal segment goes only after a manifest holds all its traces; the sums hold at every manifest.
Decides nothing about what to generate or how to judge.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory import parts
from factory.faults import Point, reach
from factory.journal import delete_segment, segment_size, segment_table
from factory.objects import ObjectPath
from factory.state import CANCELLED, ENDED, FAILED, JUDGED, TRACED, UNJUDGED, Flags, Places, RunState
from factory.storage import AnyPath, create_manifest, find_files, write_atomically
from factory.store import NEWEST, RunFolder, ShardKind
from schemas.arrow import (
    cancelled_table,
    problems_to_table,
    quarantine_to_table,
    untraced_to_table,
    verdicts_to_table,
)
from schemas.errors import ConfigError, CorruptRunError, FencedError, StoreError
from schemas.manifest import Counts, Manifest, Shard, manifest_to_json
from schemas.problem import Problem, Prompt, Quarantined
from schemas.trace import Untraced, make_trace_id
from schemas.verdict import JudgedTrace, Outcome

SHARD_BYTES: Final = 32 << 20  # of segments that become one shard; more only where one segment has more
VERDICT_ROWS: Final = 4_096  # that are turned into columns at a time
ROW_GROUP_ROWS: Final = 1024  # at 100 KB a trace, text and token ids, about 100 MB: guess
COUNTED: Final = ("problems", "num_samples", "traces", "untraced", "verdicts")  # what the counts of a manifest are of
NUMBERED: Final = re.compile(r"\.?(?:quarantine-)?(\d{6,})[-.]")  # shards, manifests, and their temporary names
_ENDINGS: Final = {"failed": FAILED, "cancelled": CANCELLED}
MAX_CLAIMS: Final = 10  # tries to claim a run whose former committer still writes; each costs it a commit


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenJob:
    """What a manifest keeps of the job."""

    fingerprint: str
    config: Mapping[str, Any]  # the resolved job
    sources_state: str  # tells whether files behind the sources have changed since they were read
    num_samples: int


class Committer:
    """The one writer of a run's shards and manifests. Not thread-safe."""

    def __init__(self, path: AnyPath, *, verifiers: str) -> None:
        """Claim the run with an epoch above all before; a run without a manifest is started by ``freeze``."""
        self.folder = RunFolder(path)
        self.verifiers = verifiers
        for name in ("problems", "journal", "traces", "untraced", "verdicts", "manifest", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
        if isinstance(path, ObjectPath):
            parts.delete_remains(path / "journal")
        self._is_broken = False
        self._state: RunState | None = None
        self._manifest = self.folder.find_manifest()
        for left in reversed(range(MAX_CLAIMS)):
            if self._manifest is None:
                break
            self._state = None  # of another manifest
            try:
                self._write(note="claimed")
                self._remove_leftovers()
                break
            except FencedError:  # a former committer, not yet dead, was quicker; the next claim stops it
                if not left:
                    raise
                self._manifest = self.folder.find_manifest()

    def _remove_leftovers(self) -> None:
        """Remove what killed committers left: files under temporary names, and shards that no manifest names.

        All such names begin with the number of the manifest that they were written for. Where that is taken, as all are
        up to this claim's, nobody will ever name the file, not even a committer that was fenced just now between its
        shard and its manifest. Higher ones are a successor's. Lists the folders, and reads no shard.
        """
        path, manifest = self.folder.path, self.manifest
        holding = {name: path / name for name in ("traces", "untraced")}
        holding |= {f"verdicts/{folder.name}": folder for folder in find_files(path / "verdicts", "*")}
        if isinstance(path, Path):  # objects have no temporary names
            for folder in (path / "problems", path / "manifest", *holding.values()):
                for leftover in folder.glob(".*.tmp"):
                    if 0 < _number_of(leftover.name) <= manifest.number:
                        leftover.unlink(missing_ok=True)
        found = (f"{name}/{file.name}" for name, folder in holding.items() for file in folder.glob("*.parquet"))
        named = _names(manifest)
        orphans = [name for name in found if name not in named and 0 < _number_of(name) <= manifest.number]
        for number in {_number_of(name) for name in orphans} - {manifest.number}:  # to be quite sure
            if self.folder.manifest_path(number).exists():
                named |= _names(self.folder.read_manifest(number))
        for name in orphans:
            if name not in named:
                (path / name).unlink(missing_ok=True)

    @property
    def state(self) -> RunState:
        """What the run holds by that manifest; read when it is first asked for, so that a claim costs no reading."""
        if self._state is None:
            self._state = RunState.load(self.folder, replace(self.manifest, verifiers=self.verifiers))
        return self._state

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
        fresh = self._new_or_repaired(pairs) if pairs else []
        changes = self._problem_changes(fresh, quarantined, is_read=bool(pairs))
        wanted = {"config": job.config, "sources_state": job.sources_state, "num_samples": job.num_samples}
        is_changed = any(getattr(self._manifest, name) != value for name, value in wanted.items())
        if self._manifest.number == 0 or changes or is_changed:
            note = "started" if self._manifest.number == 0 else f"job changed, {len(fresh)} problems added"
            if fresh or job.num_samples != self._manifest.num_samples:
                shards = changes.get("problems", self._manifest.problems)
                extended = replace(self._manifest, problems=shards, num_samples=job.num_samples)
                self._state = RunState.load(self.folder, extended)
            self._write(note=note, **changes, **wanted)
        return len(fresh)

    def _new_or_repaired(self, pairs: Sequence[tuple[Problem, Prompt]]) -> list[tuple[Problem, Prompt]]:
        if self.manifest.number == 0:
            return list(pairs)
        problems = self.state.problems
        known = dict(zip(problems.ids.to_pylist(), problems.reference_hashes.to_pylist(), strict=True))
        return [pair for pair in pairs if known.get(pair[0].problem_id, "") != pair[0].reference_hash]

    def _problem_changes(
        self, fresh: Sequence[tuple[Problem, Prompt]], quarantined: Sequence[Quarantined], *, is_read: bool
    ) -> dict[str, Any]:
        number = self.manifest.number + 1
        changes: dict[str, Any] = {}
        if fresh:
            shard = self._write_shard("problems", number, problems_to_table(fresh))
            changes["problems"] = (*self.manifest.problems, shard)
        if quarantined:  # of the newest reading of the sources
            changes["quarantine"] = (self._write_shard("quarantine", number, quarantine_to_table(quarantined)),)
        elif is_read and self.manifest.quarantine:  # nothing is kept aside any more
            changes["quarantine"] = ()
        return changes

    def commit(
        self,
        *,
        segments: Sequence[str] = (),
        kept: Sequence[str] = (),
        judged: Iterable[JudgedTrace] = (),
        untraced: Iterable[Untraced] = (),
        cancelled: Mapping[str, Places] = {},
    ) -> Counts:
        """Make journal segments, verdicts and endings part of the run, in one manifest; return the new counts.

        ``cancelled`` are numbers of attempts that were never made, by reason.

        Traces and endings that the run already holds are dropped. The segments are deleted afterwards, but for those
        to be kept, which a later commit takes again; those that are gone before were committed by a committer that
        died before it could say so.

        Raises:
            StoreError: If an earlier commit failed: what this object knows may then not be on disk.
        """
        if self._is_broken:
            raise StoreError(f"{self.folder.path}: an earlier commit failed; run the same command again")
        self._is_broken = True  # until this one is through
        reach(Point.COMMIT_BEGUN)
        number = self.manifest.number + 1
        sizes = self._sizes(segments)
        known: dict[str, int] = {}  # number of the attempt by trace id
        shards: list[Shard] = []
        for group in _groups(sizes):
            traces = pa.concat_tables([segment_table(path) for path in group])
            known |= zip(traces["trace_id"].to_pylist(), self._numbers(traces).tolist(), strict=True)
            shards += self._trace_shards(number, traces)
        changes: dict[str, Any] = {"traces": (*self.manifest.traces, *shards)} if shards else {}
        changes |= self._untraced_changes(number, list(untraced), cancelled)
        changes |= self._verdict_changes(number, judged, known)
        if changes:
            self._write(note="committed", **changes)
        for path in sizes:
            if path.name not in kept:
                delete_segment(path)
                reach(Point.SEGMENT_DELETED)
        self._is_broken = False
        pa.default_memory_pool().release_unused()
        return self.manifest.counts

    def _sizes(self, segments: Sequence[str]) -> dict[AnyPath, int]:
        """Return the bytes of those segments that are there."""
        sizes: dict[AnyPath, int] = {}
        for path in (self.folder.journal / name for name in segments):
            with suppress(FileNotFoundError):
                sizes[path] = segment_size(path)
        return sizes

    def _trace_shards(self, number: int, traces: pa.Table) -> list[Shard]:
        fresh = self._unended(traces, np.full(traces.num_rows, TRACED, np.uint8))
        if not fresh.num_rows:
            return []
        assert pc.all(pc.equal(fresh["fingerprint"], self.manifest.fingerprint)).as_py(), "a segment of another run"
        return [self._write_shard("traces", number, fresh.sort_by("trace_id"))]

    def _untraced_changes(
        self, number: int, untraced: Sequence[Untraced], cancelled: Mapping[str, Places]
    ) -> dict[str, Any]:
        never_made = [self._never_made(reason, numbers) for reason, numbers in cancelled.items()]
        rows = pa.concat_tables([untraced_to_table(untraced), *never_made])
        flags = np.full(rows.num_rows, CANCELLED, np.uint8)
        flags[: len(untraced)] = [_ENDINGS[item.ending] for item in untraced]
        fresh = self._unended(rows, flags)
        if not fresh.num_rows:
            return {}
        shard = self._write_shard("untraced", number, fresh.sort_by("trace_id"))
        return {"untraced": (*self.manifest.untraced, shard)}

    def _never_made(self, reason: str, numbers: Places) -> pa.Table:
        """Return the rows of attempts that were cancelled before they were made."""
        places, indices = np.divmod(numbers, self.state.num_samples)
        problem_ids = self.state.problems.ids.take(pa.array(places))
        fingerprint = self.manifest.fingerprint
        pairs = zip(problem_ids.to_pylist(), indices.tolist(), strict=True)
        return cancelled_table([make_trace_id(fingerprint, *pair) for pair in pairs], problem_ids, indices, reason)

    def _unended(self, rows: pa.Table, flags: Flags) -> pa.Table:
        """Mark the attempts of the rows, unless they have ended before; return the rows of those, each attempt once."""
        numbers = self._numbers(rows)
        _, first = np.unique(numbers, return_index=True)
        fresh = np.sort(first[self.state.flags[numbers[first]] & ENDED == 0])
        self.state.flags[numbers[fresh]] |= flags[fresh]
        return rows.take(fresh)

    def _numbers(self, rows: pa.Table) -> Places:
        return self.state.numbers(rows["problem_id"], rows["sample_index"].to_numpy())

    def _verdict_changes(self, number: int, judged: Iterable[JudgedTrace], known: Mapping[str, int]) -> dict[str, Any]:
        fresh: dict[str, JudgedTrace] = {}
        for item in judged:
            attempt = known.get(item.trace_id)
            if attempt is None:  # a trace of an earlier commit
                attempt = self.state.find(self.manifest.fingerprint, item.trace_id, item.problem_id)
            if not self.state.flags[attempt] & TRACED:
                raise CorruptRunError(
                    f"{self.folder.path}: trace {item.trace_id} was judged, and its segment holds it no more: the "
                    "journal was damaged meanwhile. Run the same command again: what is damaged is made again"
                )
            if not self.state.flags[attempt] & JUDGED:
                self.state.flags[attempt] |= JUDGED | UNJUDGED * (item.verdict.outcome is Outcome.UNJUDGED)
                fresh[item.trace_id] = item
        if not fresh:
            return {}
        (self.folder.path / "verdicts" / self.verifiers).mkdir(exist_ok=True)
        items = iter(fresh.values())
        chunks = iter(lambda: list(islice(items, VERDICT_ROWS)), [])  # rows of Python values are large
        table = pa.concat_tables([verdicts_to_table(chunk) for chunk in chunks])
        shard = self._write_shard("verdicts", number, table.sort_by("trace_id"))
        shards = (*self.manifest.verdicts.get(self.verifiers, ()), shard)
        return {"verdicts": {**self.manifest.verdicts, self.verifiers: shards}}

    def _write_shard(self, kind: ShardKind, number: int, table: pa.Table) -> Shard:
        """Write a table under its final name, which holds manifest number and content digest."""
        folder = {"quarantine": "problems", "verdicts": f"verdicts/{self.verifiers}"}.get(kind, kind)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True)
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
        counted = {name: changes[name] for name in COUNTED if name in changes} | {"verifiers": self.verifiers}
        is_same = all(getattr(self.manifest, name) == value for name, value in counted.items())
        counts = self.manifest.counts if is_same and self.manifest.number else self.state.counts()
        manifest = replace(
            self.manifest,
            number=self.manifest.number + 1,
            epoch=self.manifest.epoch + is_claim,
            note=note,
            created_at=datetime.now(UTC).isoformat(),
            verifiers=self.verifiers,
            counts=counts,
            **changes,
        )
        counts.check()
        self._create(manifest)
        self._manifest = manifest

    def _create(self, manifest: Manifest) -> None:
        path = self.folder.manifest_path(manifest.number)
        body = json.dumps(manifest_to_json(manifest), ensure_ascii=False, indent=1)
        try:
            create_manifest(path, body.encode())
        except (FileExistsError, FileNotFoundError):  # the second where the other one has tidied up
            raise FencedError(
                f"{path}: another process took this run over and wrote this manifest; this one stops, nothing is lost"
            ) from None
        write_atomically(self.folder.path / NEWEST, str(manifest.number).encode())


def _names(manifest: Manifest) -> set[str]:
    """Return the names of the shards of traces, endings and verdicts that a manifest holds."""
    verdicts = (shard for shards in manifest.verdicts.values() for shard in shards)
    return {shard.name for shard in (*manifest.traces, *manifest.untraced, *verdicts)}


def _number_of(name: str) -> int:
    """Return the number of the manifest that a file was written for; 0 where the name is none of ours."""
    found = NUMBERED.match(name.rpartition("/")[2])
    return int(found[1]) if found else 0


def _groups(sizes: Mapping[AnyPath, int]) -> Iterator[list[AnyPath]]:
    """Yield the segments in groups, each of which becomes one shard: one at a time is held in memory."""
    group: list[AnyPath] = []
    size = 0
    for path, num_bytes in sizes.items():
        if group and size + num_bytes > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(path)
        size += num_bytes
    if group:
        yield group
