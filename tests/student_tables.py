"""Selection folders as `factory select` writes them, small and made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import SCHEMAS


def make_rows(count: int, *, per_problem: int = 2, words: int = 0) -> list[dict[str, Any]]:
    """Return rows of `sft_prompt_completion`: sums, thought about in lines, with signs of several bytes and blanks."""
    rows = []
    for n in range(count):
        a, b = 17 + n // per_problem, 25 + 3 * (n // per_problem)
        more = " ".join(f"{a}+{k}={a + k}," for k in range(words))
        text = (
            f"<think>\nI am asked for {a} + {b}, so I add: first {a}, then {b} more. {more}\n\n    {a}\n  + {b}\n"
            f"  = {a + b}\n\nCheck:  {a + b} − {b} = {a}, and {a + b} ≥ {a}{'.' * (1 + n % per_problem)}\n</think>\n\n"
            f"The sum of ${a}$ and ${b}$ is\n\n$$\\boxed{{{a + b}}}$$"
        )
        rows.append(
            {
                "trace_id": f"trace-{n:05d}",
                "problem_id": f"problem-{n // per_problem:05d}",
                "prompt": [{"role": "user", "content": f"What is {a} + {b}?"}],
                "completion": [{"role": "assistant", "content": text}],
            }
        )
    return rows


def make_pairs(count: int) -> list[dict[str, Any]]:
    """Return rows of `preference`: a right sum before a wrong one."""
    pairs = []
    for n, row in enumerate(make_rows(count, per_problem=1)):
        right = row["completion"][0]["content"]
        wrong = right.replace("boxed{", "boxed{1")
        pairs.append(
            {
                "pair_id": f"pair-{n:05d}",
                "problem_id": row["problem_id"],
                "prompt": row["prompt"],
                "chosen": row["completion"],
                "rejected": [{"role": "assistant", "content": wrong}],
                "rule": "correct_wrong_pairs",
                "chosen_trace_id": f"right-{n:05d}",
                "rejected_trace_id": f"wrong-{n:05d}",
            }
        )
    return pairs


def write_table(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, split: str = "train", shards: int = 1
) -> Path:
    """Write rows as a table of a selection folder, columns that they lack being null; return the folder."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // shards) or 1
    for shard in range(shards):
        part: Iterable[Mapping[str, Any]] = rows[shard * size : (shard + 1) * size]
        table = pa.Table.from_pylist([dict(row) for row in part], schema=SCHEMAS[name])
        pq.write_table(table, folder / name / f"{split}-{shard:05d}-of-{shards:05d}.parquet")
    return folder
