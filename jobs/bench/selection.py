"""`factory bench selection`: how long a selection over many candidates takes, and how much memory.

The candidates are made here, once: a Parquet file with the columns of the table ``candidates`` that decide, sorted by
problem, as a run's own is. What is measured, in a fresh process for each rule, is what `tables` does with them:
reading, grouping, choosing, and the pass for quotas where there is one (then the file is read twice). Decisions are
counted. Texts, of a dozen words each, are read by `k_diverse` alone; near-duplicates are not looked for. One core is
used.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from factory.derived import deciding_columns, find_over, judged_groups
from factory.light import LIGHT_COLUMNS
from factory.rules import RejectReason
from factory.selection import has_pass, select
from factory.storage import parquet_batches
from jobs import show
from schemas.config import SelectConfig
from schemas.problem import ID_HEX_DIGITS

ATTEMPTS: Final = 16  # at each problem
PROBLEMS_AT_ONCE: Final = 1 << 14
BATCH_ROWS: Final = 1 << 16  # read at a time: whole problems
WORDS: Final = pa.array([f"word{number}" for number in range(1_000)])
TEXT_WORDS: Final = 12  # of a text
RULES: Final[tuple[str, ...]] = get_args(SelectConfig.model_fields["rule"].annotation)
WITH_QUOTAS: Final = "all_correct, quotas"
# How attempts end: right, wrong, without an answer, unreadable, too slow, unjudged. Shares of those that are not right.
ENDS: Final = (
    ("wrong_answer", "value_differs", False, 0.6),
    ("no_answer", "no_answer", False, 0.1),
    ("unreadable", "truncated", False, 0.2),
    ("over_limit", "time_limit", False, 0.05),
    ("unjudged", "worker_died", None, 0.05),
)
DOMAINS: Final = ("math", "code", "logic")
TYPES: Final = {"sample_index": pa.int32(), "num_completion_tokens": pa.int32(), "is_correct": pa.bool_()}
SCHEMA: Final = pa.schema([(name, TYPES.get(name, pa.string())) for name in (*LIGHT_COLUMNS, "text")])


def make_candidates(path: Path, num_candidates: int, seed: int = 0) -> None:
    """Write so many made-up candidates, sixteen of each problem, whose pass rates are of all sizes."""
    generator = np.random.default_rng(seed)
    num_problems = -(-num_candidates // ATTEMPTS)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, num_problems, PROBLEMS_AT_ONCE):
            table = _made(generator, range(start, min(num_problems, start + PROBLEMS_AT_ONCE)))
            writer.write_table(table.slice(0, num_candidates - start * ATTEMPTS))


def _made(generator: np.random.Generator, problems: range) -> pa.Table:
    num_problems, num_rows = len(problems), len(problems) * ATTEMPTS
    problem_of = np.repeat(np.arange(num_problems), ATTEMPTS)
    is_right = generator.random(num_rows) < generator.beta(0.7, 0.7, num_problems)[problem_of]
    outcomes, reasons, words, _ = zip(*ENDS, strict=True)
    shares = [share for *_, share in ENDS]
    ends = np.where(is_right, len(ENDS), generator.choice(len(ENDS), num_rows, p=shares))
    lengths = np.exp(generator.normal(8.5, 0.8, num_problems)[problem_of] + generator.normal(0, 0.4, num_rows))
    domains = generator.choice(len(DOMAINS), num_problems, p=[0.6, 0.3, 0.1])
    ids = [f"{number:08x}{rest}" for number, rest in zip(problems, _hex(generator, num_problems, 24), strict=True)]
    columns = {
        "trace_id": pa.array(_hex(generator, num_rows, ID_HEX_DIGITS)),
        "problem_id": pa.array(ids).take(pa.array(problem_of)),
        "sample_index": pa.array(np.tile(np.arange(ATTEMPTS, dtype=np.int32), num_problems)),
        "domain": pa.array(DOMAINS).take(pa.array(domains[problem_of])),
        "num_completion_tokens": pa.array(np.minimum(lengths, 32_768).astype(np.int32)),
        "outcome": pa.array([*outcomes, "correct"]).take(pa.array(ends)),
        "reason": pa.array([*reasons, None], pa.string()).take(pa.array(ends)),
        "is_correct": pa.array([*words, True]).take(pa.array(ends)),
        "text": _texts(generator.spawn(1)[0], num_rows),
    }
    return pa.table(columns, schema=SCHEMA)


def _hex(generator: np.random.Generator, num: int, digits: int) -> npt.NDArray[np.str_]:
    text = generator.bytes(num * digits // 2).hex()
    return np.array([text[start : start + digits] for start in range(0, len(text), digits)])


def _texts(generator: np.random.Generator, num: int) -> pa.Array:
    words = [WORDS.take(pa.array(generator.integers(len(WORDS), size=num))) for _ in range(TEXT_WORDS)]
    return pc.binary_join_element_wise(*words, " ")


def config_of(name: str, num_candidates: int) -> SelectConfig:
    """Return the config of a rule's name, or one with quotas of every kind, of which each is over in part."""
    if name != WITH_QUOTAS:
        return SelectConfig.model_validate({"rule": name})
    tenth = max(1, num_candidates // 10)
    quotas = {
        "domain": {"math": 2 * tenth, "code": tenth},
        "difficulty": {"easy": 2 * tenth},
        "length": {4_096: tenth, 16_384: tenth},
        "total": 3 * tenth,
    }
    return SelectConfig.model_validate({"max_per_problem": 8, "quotas": quotas})


def measure(path: Path, name: str, num_candidates: int) -> dict[str, Any]:
    """Return what a selection took and gave, in a process of its own."""
    command = [sys.executable, "-m", "jobs.bench.selection", str(path), name, str(num_candidates)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def _run(path: Path, config: SelectConfig) -> dict[str, Any]:
    def tables() -> Iterator[pa.Table]:
        batches = parquet_batches(path, deciding_columns(config), BATCH_ROWS)
        return (pa.Table.from_batches([batch]) for batch in batches)

    began, busy = time.perf_counter(), time.process_time()
    over = find_over(tables(), config) if has_pass(config) else None
    decided = (select(judged_groups(table, config), config, over) for table in tables())
    counts = Counter(decision.reason for made in decided for decisions in made for decision in decisions)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    return {
        "s": seconds,
        "CPU s": cpu,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "judged": counts.total(),
        "accepted": counts[None],
        "over quota": counts[RejectReason.OVER_QUOTA],
    }


def add_commands(bench: typer.Typer) -> None:
    """Add `factory bench selection`."""

    @bench.command("selection", epilog="Example: factory bench selection --candidates 1000000 --rule k_diverse")
    def bench_selection(
        candidates: Annotated[int, typer.Option(min=1_000, metavar="N", help="Made-up candidates.")] = 10_000_000,
        rule: Annotated[
            list[str] | None, typer.Option(help="Only this rule; may be repeated. Default: each, and one with quotas.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    ) -> None:
        """Measure how long a selection over many candidates takes, and how much memory, rule by rule."""
        names = tuple(rule or (*RULES, WITH_QUOTAS))
        if unknown := [name for name in names if name not in (*RULES, WITH_QUOTAS)]:
            raise typer.BadParameter(f"--rule {unknown[0]!r} must be one of {', '.join((*RULES, WITH_QUOTAS))}")
        rows = []
        with tempfile.TemporaryDirectory(prefix="factory-selection-") as folder:
            path = Path(folder) / "candidates.parquet"
            make_candidates(path, candidates)
            with show.counting("rules", len(names)) as done:
                for number, name in enumerate(names, start=1):
                    rows.append({"rule": name, **measure(path, name, candidates)})
                    done(number)
        if as_json:
            for row in rows:
                show.json_line(row)
        else:
            show.rows(f"selection over {candidates:,} candidates, one core", rows)


if __name__ == "__main__":
    path, name, num_candidates = sys.argv[1:]
    sys.stdout.write(json.dumps(_run(Path(path), config_of(name, int(num_candidates)))))
