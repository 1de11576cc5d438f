"""Small runs with tables, and selection folders with rows to order: what is published.

Rows to order are made up from the tables' schemas; the folder is consistent in itself (manifest, digests, checksums).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.build import build_tables
from factory.committer import Committer
from factory.filecheck import KEYS
from factory.rowdigest import digest_of_files, schema_sha256
from schemas.config import parse_config
from schemas.problem import Problem
from schemas.tables import SCHEMAS, TABLES_VERSION
from schemas.verdict import Outcome
from tests.runs import FINGERPRINT, make_problem, make_trace, make_verdict, start_run, write_segment


def make_value(kind: pa.DataType, chance: random.Random) -> Any:
    """Return some value of a type; texts are short words."""
    if pa.types.is_string(kind):
        return " ".join(chance.choice(("seven", "plus", "ü", "is", "x")) for _ in range(6))
    if pa.types.is_boolean(kind):
        return chance.random() < 0.5
    if pa.types.is_integer(kind):
        return chance.randrange(100)
    if pa.types.is_floating(kind):
        return chance.random()
    if pa.types.is_timestamp(kind):
        return datetime.fromtimestamp(chance.randrange(10**9), UTC)
    if pa.types.is_struct(kind):
        return {field.name: make_value(field.type, chance) for field in kind}
    return [make_value(kind.value_type, chance) for _ in range(2)]


def make_rows(config: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of a table, sorted by their ids."""
    chance = random.Random(f"{config}/{seed}")
    rows = []
    for number in range(count):
        row = {field.name: make_value(field.type, chance) for field in SCHEMAS[config]}
        ids = {key: hashlib.sha256(f"{key}/{number}".encode()).hexdigest()[:32] for key in KEYS[config]}
        rows.append(row | ids)
    return sorted(rows, key=lambda row: [row[key] for key in KEYS[config]])


def write_selection(
    folder: Path,
    rows: Mapping[str, list[dict[str, Any]]],
    *,
    shards: int = 1,
    schemas: Mapping[str, pa.Schema] = SCHEMAS,
    compression: str = "zstd",
) -> None:
    """Write a selection with these rows, each table in so many files."""
    files: list[dict[str, Any]] = []
    configs: dict[str, Any] = {}
    for config, table_rows in rows.items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        count = min(shards, max(1, len(table_rows)))
        paths = [folder / config / f"train-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
        size = -(-len(table_rows) // count)
        for number, path in enumerate(paths):
            table = pa.Table.from_pylist(table_rows[number * size : (number + 1) * size], schema=schemas[config])
            with pq.ParquetWriter(path, schemas[config], compression=compression) as writer:
                if table.num_rows:  # a row group without rows cannot be streamed (datasets 5.2)
                    writer.write_table(table)
            files.append(describe(path, folder, table.num_rows))
        split = {
            "rows": len(table_rows),
            "num_bytes": sum(path.stat().st_size for path in paths),
            "text_bytes": 0,
            "rows_sha256": digest_of_files(paths),
        }
        configs[config] = {"schema_sha256": schema_sha256(schemas[config]), "splits": {"train": split}}
    counts = {"traces": 0, "judged": 0, "accepted": 0, "rejected": {}, "unjudged": 0, "waiting": 0, "outcomes": {}}
    body = {
        "version": TABLES_VERSION,
        "selection": {"name": folder.name},
        "selection_digest": "d" * 32,
        "verdict_digest": "v1",
        "fingerprint": FINGERPRINT,
        "counts": counts | {"problems": 1},
        "configs": configs,
        "files": files,
        "pyarrow": pa.__version__,
    }
    (folder / "manifest.json").write_text(json.dumps(body, indent=2) + "\n")


def describe(path: Path, folder: Path, num_rows: int) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    data = path.read_bytes()
    name = str(path.relative_to(folder))
    return {"name": name, "rows": num_rows, "num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


JOB = {
    "name": "publishing-tests",
    "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
    "teacher": {"kind": "scripted"},
    "sampling": {"num_samples": 2},
}


def write_run(
    path: Path, num_problems: int = 3, *, select: Mapping[str, Any] | None = None, publish: Any = None
) -> Path:
    """Write a run of two attempts at each problem, one right, one wrong, with its tables; return its path."""
    job = {**JOB, "select": dict(select or {}), "publish": publish}
    config = parse_config(job, origin="test").model_dump(mode="json")
    problems = [make_problem(number) for number in range(num_problems)]
    add_attempts(path, start_run(path, problems, num_samples=2, config=config), problems, sequence=1)
    build_tables(path)
    return path


def add_attempts(path: Path, committer: Committer, problems: Sequence[Problem], *, sequence: int) -> None:
    """Commit two attempts at each of these problems."""
    traces = [make_trace(problem.problem_id, attempt) for problem in problems for attempt in range(2)]
    outcomes = [outcome for _ in problems for outcome in (Outcome.CORRECT, Outcome.WRONG_ANSWER)]
    owners = [problem for problem in problems for _ in range(2)]
    judged = [make_verdict(*attempt) for attempt in zip(traces, owners, outcomes, strict=True)]
    segment = write_segment(path / "journal", traces, sequence=sequence)
    committer.commit(segments=[segment], judged=judged)
