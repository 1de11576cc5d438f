"""Small folders of selections by the schemas of `schemas/tables.py`, for what reads tables; every text is our own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import SelectConfig
from schemas.tables import SCHEMAS, TABLES_VERSION

Rows = Sequence[Mapping[str, Any]]


def turn(role: str, content: str) -> dict[str, str]:
    """Return one turn."""
    return {"role": role, "content": content}


def sft_row(question: str, completion: str, *before: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """Return a row of ``sft``; turns ``before`` come first."""
    messages = [*before, turn("user", question), turn("assistant", completion)]
    return {"messages": messages, "num_tokens": len(completion), **more}


def preference_row(question: str, chosen: str, rejected: str, *before: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of ``preference``."""
    return {
        "prompt": [*before, turn("user", question)],
        "chosen": [turn("assistant", chosen)],
        "rejected": [turn("assistant", rejected)],
        "chosen_tokens": len(chosen),
        "rejected_tokens": len(rejected),
    }


def rl_row(question: str, truth: str | None) -> dict[str, Any]:
    """Return a row of ``rl_prompts``."""
    return {
        "prompt": [turn("user", question)],
        "data_source": "own",
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": question, "source_row_id": "7", "split": "train"},
        "answer": truth,
        "num_true": 3,
    }


def write_selection(folder: Path, tables: Mapping[str, Mapping[str, Rows]], rows_per_file: int = 3) -> Path:
    """Write tables by name and split, several files of each; return the folder."""
    files = []
    for name, splits in tables.items():
        (folder / name).mkdir(parents=True)
        for split, rows in splits.items():
            cuts = range(0, max(1, len(rows)), rows_per_file)
            for number, start in enumerate(cuts):
                path = folder / name / f"{split}-{number:05d}-of-{len(cuts):05d}.parquet"
                part = list(rows[start : start + rows_per_file])
                pq.write_table(pa.Table.from_pylist(part, schema=SCHEMAS[name]), path)
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                entry = {"name": f"{name}/{path.name}", "rows": len(part), "num_bytes": path.stat().st_size}
                files.append({**entry, "sha256": sha256})
    body = {
        "version": TABLES_VERSION,
        "selection": SelectConfig(configs=tuple(tables), validation_share=0.1).model_dump(mode="json"),
        **{"selection_digest": "d" * 32, "verdict_digest": "v", "num_first": 1, "configs": {}},
        "files": files,
        "pyarrow": pa.__version__,
    }
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder
