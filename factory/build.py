"""From a run's folder to its tables: reads what the newest manifest names, and has `tables` write a selection.

The seam between the store and the tables; decides nothing itself. Works without Ray and without the teacher.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from factory.joining import PROBLEM_COLUMNS, TRACE_COLUMNS
from factory.state import FrozenProblems, current_verdicts
from factory.storage import AnyPath
from factory.store import RunFolder
from factory.tables import RunContent, WrittenTables, write_tables
from schemas.config import SelectConfig
from schemas.manifest import Manifest
from schemas.problem import digest
from schemas.tables import RunRow

FIRST_MANIFEST: Final = 1


def build_tables(path: AnyPath, config: SelectConfig | None = None) -> WrittenTables:
    """Write a selection (default: the job's own) from the committed part of a run; return what was written.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    content = RunContent(
        problems=folder.tables_of("problems", manifest.problems, PROBLEM_COLUMNS),
        traces=folder.tables_of("traces", manifest.traces, TRACE_COLUMNS),
        verdicts=current_verdicts(folder, manifest, FrozenProblems.load(folder, manifest)),
        runs=[_run_row(folder, manifest)],
        fingerprint=manifest.fingerprint,
        verdict_digest=manifest.verifiers,
        num_first=first_attempts(folder, manifest),
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
        "verdicts": manifest.verdicts.get(manifest.verifiers, ()),
    }
    shards = {kind: [(shard.name, shard.sha256) for shard in some] for kind, some in kinds.items()}
    body = folder.run_yaml()
    code = [body["verifiers"], body["versions"].get("distillation-factory")]
    return digest(["tables", manifest.fingerprint, manifest.verifiers, dict(manifest.config), code, shards])


def first_attempts(folder: RunFolder, manifest: Manifest) -> int:
    """Return how many attempts at every problem, by sample index, were made whatever the others gave.

    The job says so; a run that was once adaptive with fewer has cancelled some of them, and goes by those.
    """
    adaptive = manifest.config.get("schedule", {}).get("adaptive")
    found: int = manifest.num_samples if adaptive is None else adaptive["min_samples"]
    for table in folder.tables_of("untraced", manifest.untraced, ["sample_index", "ending"]):
        cancelled = table["sample_index"].filter(pc.equal(table["ending"], "cancelled"))
        found = min([found, *([pc.min(cancelled).as_py()] if len(cancelled) else [])])
    return found


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
        engine=engines["engine"],
        engine_version=engines["engine_version"],
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
