"""From a run's folder to its tables: reads what the newest manifest names, and has `tables` write a selection.

The seam between the store and the tables; decides nothing itself. Works without Ray and without the teacher.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from factory.dispatch import CancelReason
from factory.joining import PROBLEM_COLUMNS, TRACE_COLUMNS
from factory.ledgers import engines_in, read_ledgers
from factory.state import FrozenProblems, current_verdicts
from factory.storage import AnyPath
from factory.store import RunFolder
from factory.tables import RunContent, WrittenTables, write_tables
from schemas.arrow import UNTRACED
from schemas.config import SelectConfig
from schemas.manifest import Manifest
from schemas.problem import digest
from schemas.tables import RunRow
from schemas.verdict import Outcome

FIRST_MANIFEST: Final = 1


class FirstAttempts(NamedTuple):
    """Which attempts `pass_rate_unbiased` counts."""

    num_first: int  # per problem, by sample index, that were made whatever the others gave
    incomplete: pa.StringArray  # ids of problems of which one of these was cancelled all the same


def build_tables(path: AnyPath, config: SelectConfig | None = None) -> WrittenTables:
    """Write a selection (default: the job's own) from the committed part of a run; return what was written.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    first = first_attempts(folder, manifest)
    content = RunContent(
        problems=folder.tables_of("problems", manifest.problems, PROBLEM_COLUMNS),
        traces=folder.tables_of("traces", manifest.traces, TRACE_COLUMNS),
        verdicts=current_verdicts(folder, manifest, FrozenProblems.load(folder, manifest)),
        runs=[_run_row(folder, manifest)],
        fingerprint=manifest.fingerprint,
        verdict_digest=manifest.verifiers,
        num_first=first.num_first,
        incomplete=first.incomplete,
        state=state_of(folder, manifest),
    )
    return write_tables(folder.tables, content, config or SelectConfig(**manifest.config["select"]))


def state_of(folder: RunFolder, manifest: Manifest) -> str:
    """Return a digest of all that tables are made from, selection apart; reads no shard.

    Shards are named by it: their sha256 stand in the manifest. One more commit without anything new changes nothing.
    """
    kinds = {
        "problems": manifest.problems,
        "traces": manifest.traces,
        "untraced": manifest.untraced,
        "verdicts": [shard for _, shards in sorted(manifest.verdicts.items()) for shard in shards],
    }
    shards = {kind: [(shard.name, shard.sha256) for shard in some] for kind, some in kinds.items()}
    body = folder.run_yaml()
    code = [body["verifiers"], body["versions"].get("distillation-factory")]
    made = [body.get("tokenizer_sha256"), engines_in(read_ledgers(folder.logs))]
    return digest(["tables", manifest.fingerprint, manifest.verifiers, dict(manifest.config), code, made, shards])


def first_attempts(folder: RunFolder, manifest: Manifest) -> FirstAttempts:
    """Return how many attempts at every problem were made whatever the others gave, and which problems lack some.

    The job says how many; a run that was once adaptive with fewer has cancelled some of them by its rule, and goes by
    those, at all problems. What is cancelled for other grounds leaves the other problems alone: ADAPTIVE.md says why.
    """
    adaptive = manifest.config.get("schedule", {}).get("adaptive")
    asked: int = manifest.num_samples if adaptive is None else adaptive["min_samples"]
    lowest = _lowest_cancelled(folder, manifest, asked)
    is_hopeless = pc.equal(lowest["reason"], CancelReason.HOPELESS.value)
    unusable = _once_unusable(folder, manifest, lowest["problem_id"].filter(is_hopeless))
    is_other = pc.or_(
        pc.equal(lowest["reason"], CancelReason.SOLVED.value),
        pc.and_(is_hopeless, pc.is_in(lowest["problem_id"], value_set=unusable)),
    )
    by_rule = lowest["sample_index"].filter(pc.invert(is_other))
    num_first = pc.min(by_rule).as_py() if len(by_rule) else asked
    return FirstAttempts(num_first, _unique(lowest["problem_id"].filter(pc.less(lowest["sample_index"], num_first))))


def _lowest_cancelled(folder: RunFolder, manifest: Manifest, below: int) -> pa.Table:
    """Return, of every problem and reason, the lowest index of a cancelled attempt, where that is below a number."""
    columns = ["problem_id", "sample_index", "reason"]
    # As groups come out: no column says that it holds no null, in which tables must agree to be put together.
    schema = pa.schema([pa.field(name, UNTRACED.field(name).type) for name in columns])
    found = schema.empty_table()
    for table in folder.tables_of("untraced", manifest.untraced, [*columns, "ending"]):
        is_wanted = pc.and_(pc.equal(table["ending"], "cancelled"), pc.less(table["sample_index"], below))
        found = pa.concat_tables([found, table.filter(is_wanted).select(columns).cast(schema)])
        grouped = found.group_by(["problem_id", "reason"]).aggregate([("sample_index", "min")])
        found = grouped.rename_columns({"sample_index_min": "sample_index"}).select(columns).cast(schema)
    return found


def _once_unusable(folder: RunFolder, manifest: Manifest, problem_ids: pa.ChunkedArray) -> pa.StringArray:
    """Return which of these problems had a reference that could not be read, by any verdict, older ones included."""
    wanted, found = _unique(problem_ids), [pa.array([], pa.string())]
    for shards in manifest.verdicts.values() if len(wanted) else ():
        for table in folder.tables_of("verdicts", shards, ["problem_id", "outcome"]):
            is_bad = pc.equal(table["outcome"], Outcome.BAD_REFERENCE.value)
            found.append(_unique(table["problem_id"].filter(is_bad)))
    return _unique(pa.chunked_array(found))


def _unique(column: pa.ChunkedArray) -> pa.StringArray:
    return pc.unique(column.cast(pa.string()))


def _run_row(folder: RunFolder, manifest: Manifest) -> RunRow:
    body = folder.run_yaml()
    prompt, teacher = body["fingerprint_parts"]["prompt"], body["fingerprint_parts"]["teacher"]
    engines = _light_columns(folder, manifest)
    started_at = datetime.fromisoformat(folder.read_manifest(FIRST_MANIFEST).created_at)
    return RunRow(
        fingerprint=manifest.fingerprint,
        name=manifest.config["name"],
        teacher=teacher["name"],
        teacher_revision=teacher["revision"],
        tokenizer_sha256=body.get("tokenizer_sha256"),  # null: of an older version's run
        engine=engines["engine"],
        engine_version=engines["engine_version"],
        engines=engines_in(read_ledgers(folder.logs)),
        sampling=manifest.config["sampling"],
        prompt_template=prompt["template"],
        system=prompt["system"],
        chat_template_sha256=prompt["chat_template_sha256"],
        format=prompt["format"],
        verifiers=body["verifiers"],
        code_version=body["versions"].get("distillation-factory", "unknown"),
        config=json.dumps(manifest.config, ensure_ascii=False, sort_keys=True),
        started_at_us=int(started_at.timestamp() * 1e6),
        finished_at_us=engines["finished_at_us"],
    )


def _light_columns(folder: RunFolder, manifest: Manifest) -> dict[str, Any]:
    """Return engine, its version and the time of the last trace; empty names where nothing was generated."""
    found: dict[str, Any] = {"engine": "", "engine_version": "", "finished_at_us": None}
    for table in _trace_times(folder, manifest):
        last = pc.max(table["finished_at"].cast(pa.int64())).as_py()
        found["finished_at_us"] = max(last, found["finished_at_us"] or 0)
        found["engine"], found["engine_version"] = (table[name][0].as_py() for name in ("engine", "engine_version"))
    return found


def _trace_times(folder: RunFolder, manifest: Manifest) -> Iterator[pa.Table]:
    columns = ["engine", "engine_version", "finished_at"]
    return (table for table in folder.tables_of("traces", manifest.traces, columns) if table.num_rows)
