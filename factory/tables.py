"""Tables: a run's problems, traces and verdicts become the Parquet files that people load.

Last step of a run: `<root>/<selection>/<config>/<split>-00000-of-0000N.parquet` and a `manifest.json`. Invariants:
``candidates`` has every trace, ``sft`` exactly the accepted ones; the same input gives the same bytes; a selection's
folder appears whole, in place of the one before; memory does not grow with the run. Judges nothing; what is accepted,
`selection` decides, what follows from that, `derived`. Why it is built so: factory/TABLES.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory.buckets import SPILL_BYTES
from factory.derived import OWN_ID, TRAIN, Decided, Rules, decide, deciding_columns, derive, find_over, splits_of
from factory.joining import Joined
from factory.rowdigest import schema_sha256
from factory.selection import Sums, has_pass, selection_digest
from factory.shards import ShardWriter
from factory.storage import LAST, AnyPath, replace_folder, sync_folder
from schemas.config import SelectConfig, TableName
from schemas.manifest import Shard
from schemas.tables import MAX_ROW_BYTES, RUNS, SCHEMAS, TABLES_VERSION, RunRow, run_to_row
from schemas.verdict import Outcome

MANIFEST: Final = LAST
TABLE_NAMES: Final[tuple[TableName, ...]] = get_args(TableName)
ALWAYS: Final[tuple[TableName, ...]] = ("candidates", "runs")  # written whatever a selection asks for
WRITING_THREADS: Final = 2  # tables that are compressed at once, each with up to two row groups in memory
OVERSIZED_NAMED: Final = 20  # of the rows beyond it, in the manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """What tables are made of, each as `schemas/arrow.py` defines it, in any order; more columns do no harm.

    Of a problem, or a trace's verdict, that comes twice, the later one counts. Each iterable is read once.
    """

    problems: Iterable[pa.Table]  # with `joining.PROBLEM_COLUMNS`
    traces: Iterable[pa.Table]  # with `joining.TRACE_COLUMNS`
    verdicts: Iterable[pa.Table]  # with `joining.VERDICT_COLUMNS`; against today's references
    runs: Sequence[RunRow]
    fingerprint: str  # of the run
    verdict_digest: str  # which verifiers judged
    num_first: int = 32_767  # attempts per problem, by sample index, that were made whatever the others gave
    # Ids of problems of which one of these was cancelled all the same.
    incomplete: pa.StringArray = field(default_factory=lambda: pa.array([], pa.string()))
    state: str | None = None  # digest of what the run held (`build.state_of`); null: not said, tables count as outdated


@dataclass(frozen=True, slots=True, kw_only=True)
class Oversized:
    """A row that is larger than the Hub's viewer shows."""

    config: str
    split: str
    id: str
    num_bytes: int  # in Arrow


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTables:
    """What was written. ``num_traces`` = ``sums.judged`` + ``num_unjudged`` + ``num_waiting`` (no verdict yet)."""

    folder: AnyPath
    selection_digest: str
    sums: Sums
    num_problems: int  # with a trace
    num_traces: int
    num_unjudged: int
    num_waiting: int
    outcomes: Mapping[str, int]
    files: tuple[Shard, ...]
    num_oversized: int  # rows beyond MAX_ROW_BYTES
    oversized: tuple[Oversized, ...]  # the first of them


def write_tables(
    root: AnyPath, content: RunContent, config: SelectConfig, *, spill_bytes: int = SPILL_BYTES
) -> WrittenTables:
    """Return what was written to ``<root>/<config.name>``; a selection of that name is replaced.

    Waits, in a local folder, for who else builds that selection there.

    Raises:
        CorruptRunError: If a trace belongs to no problem, or is there twice; the folder is left as it was.
    """
    with _work_folder(root, config.name) as work:
        built = work / config.name
        with Joined(work, content.problems, content.traces, content.verdicts, spill_bytes=spill_bytes) as joined:
            digest = selection_digest(config, {"verdicts": content.verdict_digest})
            rules = Rules(config=config, num_first=content.num_first, incomplete=content.incomplete, digest=digest)
            if has_pass(config):
                rules = replace(rules, over=find_over(joined.tables(deciding_columns(config)), config))
            counts, tables = _Counts(), TableSet(built, config)
            with tables:
                for found in joined.tables():
                    decided = decide(found, rules)
                    counts.add(decided)
                    tables.write(decided)
                tables.write_runs(content.runs)
        written = counts.written(root / config.name, rules, tables)
        _write_json(built / MANIFEST, _manifest(written, tables, content, config))
        tables_sha256 = hashlib.sha256((built / MANIFEST).read_bytes()).hexdigest()
        _put_in_place(built, written.folder)
        if content.state is not None:
            _note_origin(work, origin_path(root, config.name), Origin(tables_sha256, content.state))
    return written


class Origin(NamedTuple):
    """What a selection's tables were built from. Not in their manifest: the same rows, cut into other shards by a run
    that was killed, are the same tables, byte for byte; and a version on the Hub is named by those bytes."""

    tables_sha256: str  # of the manifest of the tables that this is said of
    state: str  # of the run


def origin_path(root: AnyPath, name: str) -> AnyPath:
    """Return where the origin of a selection's tables is noted: beside its folder, which is what people pass on."""
    return root / f".{name}.origin.json"


def read_origin(root: AnyPath, name: str) -> Origin | None:
    """Return what a selection's tables were built from; None where nobody noted it (older tables)."""
    try:
        body = json.loads(origin_path(root, name).read_bytes())
        return Origin(body["tables_sha256"], body["state"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _note_origin(work: Path, path: AnyPath, origin: Origin) -> None:
    """Say what tables were built from, after they are in place: said of others, it would not count (their sha256)."""
    aside = work / "origin"
    _write_json(aside, origin._asdict())
    if isinstance(path, Path):
        aside.rename(path)
    else:
        path.write_bytes(aside.read_bytes())


@contextmanager
def _work_folder(root: AnyPath, name: str) -> Iterator[Path]:
    """Give a folder to build a selection in, and remove it; in a local root those of killed builds, too.

    The lock makes that safe: who holds it builds alone, so that any other work folder of the name is a dead one's.
    """
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if isinstance(root, Path):
            fcntl.flock(stack.enter_context((root / f".{name}.lock").open("a")), fcntl.LOCK_EX)  # ends with the process
            for path in root.iterdir():
                if re.fullmatch(rf"\.{re.escape(name)}\.\w{{8}}\.tmp", path.name):  # not one of `name.more`
                    shutil.rmtree(path, ignore_errors=True)
        beside = root if isinstance(root, Path) else None  # else where temporary files lie: the upload comes last
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=beside))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


class TableSet:
    """The tables of one selection while they are written: a writer for each split of each."""

    def __init__(self, folder: Path, config: SelectConfig) -> None:
        self._config = config
        self._stack = ExitStack()
        wanted = {*config.configs, *ALWAYS}
        self._names = [name for name in TABLE_NAMES if name in wanted]
        self._writers = {
            (name, split): ShardWriter(folder / name, SCHEMAS[name], split=split, may_be_absent=split != TRAIN)
            for name in self._names
            for split in splits_of(name, config)
        }
        self._threads = ThreadPoolExecutor(max_workers=WRITING_THREADS)
        self.num_oversized = 0
        self._oversized: dict[tuple[TableName, str], list[Oversized]] = {key: [] for key in self._writers}  # the first

    def write(self, decided: Decided) -> None:
        """Take the candidates of whole problems, and write what follows from them; tables side by side."""
        tables = {
            (name, split): table
            for name in self._names
            if name != "runs"
            for split, table in derive(decided, name, self._config)
        }
        sizes = self._threads.map(lambda key: self._writers[key].write(tables[key]), tables)
        for (name, split), found in zip(tables, sizes, strict=True):
            self._note_oversized(name, split, tables[name, split], found)

    def write_runs(self, runs: Sequence[RunRow]) -> None:
        """Write the table of runs."""
        rows = [run_to_row(run) for run in sorted(runs, key=lambda run: run.fingerprint)]
        self._writers["runs", TRAIN].write(pa.Table.from_pylist(rows, schema=RUNS))

    def _note_oversized(self, name: TableName, split: str, table: pa.Table, sizes: npt.NDArray[np.int64]) -> None:
        large: npt.NDArray[np.int64] = np.flatnonzero(sizes > MAX_ROW_BYTES)
        self.num_oversized += len(large)
        known = self._oversized[name, split]
        for row in large[: OVERSIZED_NAMED - len(known)].tolist():
            own_id = table[OWN_ID[name]][row].as_py()
            known.append(Oversized(config=name, split=split, id=own_id, num_bytes=int(sizes[row])))

    @property
    def oversized(self) -> tuple[Oversized, ...]:
        """The first of the rows that are too large, by table, split and row: whatever pieces they came in."""
        return tuple(islice(chain.from_iterable(self._oversized.values()), OVERSIZED_NAMED))

    def written(self) -> Iterator[tuple[TableName, str, ShardWriter]]:
        """Yield name, split and closed writer of what there is; a split other than ``train`` may have no file."""
        for (name, split), writer in self._writers.items():
            if writer.shards:
                yield name, split, writer

    def __enter__(self) -> TableSet:
        for writer in self._writers.values():
            self._stack.enter_context(writer)
        self._stack.enter_context(self._threads)  # ends first
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)


@dataclass(slots=True)
class _Counts:
    """What the manifest counts, summed up over the candidates."""

    rejected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    num_problems: int = 0
    num_traces: int = 0
    num_accepted: int = 0

    def add(self, decided: Decided) -> None:
        table = decided.table
        self.num_problems += len(decided.starts)
        self.num_traces += table.num_rows
        self.num_accepted += pc.sum(table["is_accepted"]).as_py() or 0
        self.rejected.update(_value_counts(table["reject_reason"]))
        self.outcomes.update(_value_counts(table["outcome"]))

    def written(self, folder: AnyPath, rules: Rules, tables: TableSet) -> WrittenTables:
        rejected = dict(sorted(self.rejected.items()))
        judged = self.num_accepted + sum(rejected.values())
        num_unjudged = self.outcomes[Outcome.UNJUDGED]
        return WrittenTables(
            folder=folder,
            selection_digest=rules.digest,
            sums=Sums(judged=judged, accepted=self.num_accepted, rejected=rejected),
            num_problems=self.num_problems,
            num_traces=self.num_traces,
            num_unjudged=num_unjudged,
            num_waiting=self.num_traces - judged - num_unjudged,
            outcomes=dict(sorted(self.outcomes.items())),
            files=tuple(shard for _, _, writer in tables.written() for shard in writer.shards),
            num_oversized=tables.num_oversized,
            oversized=tables.oversized,
        )


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column.drop_null()).to_pylist()}


# Writing.


def _manifest(written: WrittenTables, tables: TableSet, content: RunContent, config: SelectConfig) -> dict[str, Any]:
    """Return what says what a selection is; without a date: the same input gives the same bytes."""
    configs: dict[str, Any] = {}
    for name, split, writer in tables.written():
        entry = configs.setdefault(name, {"schema_sha256": schema_sha256(SCHEMAS[name]), "splits": {}})
        entry["splits"][split] = {
            "rows": sum(shard.rows for shard in writer.shards),
            "num_bytes": sum(shard.num_bytes for shard in writer.shards),
            "text_bytes": writer.text_bytes,
            "rows_sha256": writer.rows_sha256,
        }
    return {
        "version": TABLES_VERSION,
        "selection": config.model_dump(mode="json"),
        "selection_digest": written.selection_digest,
        "verdict_digest": content.verdict_digest,
        "fingerprint": content.fingerprint,
        "num_first": content.num_first,
        "counts": {
            "problems": written.num_problems,
            "traces": written.num_traces,
            "judged": written.sums.judged,
            "accepted": written.sums.accepted,
            "rejected": dict(written.sums.rejected),
            "unjudged": written.num_unjudged,
            "waiting": written.num_waiting,
            "outcomes": dict(written.outcomes),
        },
        "configs": configs,
        "oversized": {
            "max_row_bytes": MAX_ROW_BYTES,
            "rows": written.num_oversized,
            "first": [asdict(row) for row in written.oversized],
        },
        "files": [asdict(shard) for shard in written.files],
        "pyarrow": pa.__version__,
    }


def _write_json(path: Path, body: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(built: Path, folder: AnyPath) -> None:
    """Move a finished selection to its name. A folder cannot be replaced in one step: for a moment neither is there.

    A crash in that moment costs a rerun: tables follow from the run, and the next call makes them again.
    """
    if not isinstance(folder, Path):
        replace_folder(built, folder)
        return
    for inner in [path for path in built.iterdir() if path.is_dir()]:
        sync_folder(inner)
    sync_folder(built)
    if folder.exists():
        folder.rename(built.parent / "replaced")  # goes with the work folder
    built.rename(folder)
    sync_folder(folder.parent)
