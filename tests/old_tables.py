"""Folders of selections as `factory select` leaves them, for tests of what reads them; made from a run on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import SCHEMAS


def complete_selection(folder: Path) -> None:
    """Turn the tables of version 1 in a folder into those of version 2: all seven, sorted by problem, a full manifest.

    To be deleted when `factory/tables.py` writes them.
    """
    body = json.loads((folder / "manifest.json").read_text())
    if "configs" in body:
        return
    files = []
    configs: dict[str, Any] = {}
    for name, schema in SCHEMAS.items():
        old = sorted((folder / name).glob("*.parquet"))
        rows = [row for path in old for row in pq.ParquetFile(path).read().to_pylist()]
        for path in old:
            path.unlink()
        if name != "runs":
            rows.sort(key=lambda row: (row["problem_id"], row.get("trace_id", "")))
        if name == "sft_prompt_completion":
            rows = [_halved(row) for path in sorted((folder / "sft").glob("*.parquet")) for row in _rows(path)]
        table = pa.Table.from_pylist([{key: row.get(key) for key in schema.names} for row in rows], schema)
        (folder / name).mkdir(exist_ok=True)
        target = folder / name / "train-00000-of-00001.parquet"
        pq.write_table(table, target, compression="zstd", row_group_size=7)
        data = target.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        relative = f"{name}/{target.name}"
        files.append({"name": relative, "rows": len(table), "num_bytes": len(data), "sha256": digest})
        sizes = {"rows": len(table), "num_bytes": len(data), "text_bytes": table.nbytes, "rows_sha256": digest}
        configs[name] = {"schema_sha256": digest, "splits": {"train": sizes}}
    body |= {"num_first": body.get("num_first", 2), "configs": configs, "files": files}
    (folder / "manifest.json").write_text(json.dumps(body, indent=2))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows


def _halved(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
