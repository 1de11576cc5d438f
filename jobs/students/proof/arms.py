"""The data of each arm, from the candidates of one run; and the problems that students are asked, which it has not.

Pure functions on Arrow tables, and what writes them as a selection's folder. What an arm holds is said by its kind
alone, so that arms differ in nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.gym import gym_rows
from jobs.students.proof.plan import Kind
from schemas.config import GymSource, JobConfig
from schemas.errors import ConfigError
from schemas.tables import SFT_PROMPT_COMPLETION

TABLE: Final = "sft_prompt_completion"
SCHEMA: Final = pa.schema(
    [SFT_PROMPT_COMPLETION.field(name) for name in ("trace_id", "problem_id", "prompt", "completion")]
)
READ: Final = ("trace_id", "problem_id", "messages", "text", "response", "is_correct", "is_accepted")
CONTROL: Final = r"<\|[^|<>]*\|>"  # as both families write them
NO_THINKING: Final = "<think>\n</think>\n\n"
_DIGIT: Final = re.compile(r"[0-9]")


def read_candidates(selection: Path) -> pa.Table:
    """Return what arms are made of: all traces of a run's selection, in the table's order."""
    return pa.concat_tables(pq.read_table(path, columns=list(READ)) for path in sorted(selection.glob("candidates/*")))


def split_start(candidates: pa.Table, share: float) -> tuple[pa.Table, pa.Table]:
    """Return the traces of the problems that the start learns from, and those of all others; by the problem's hash."""
    ids = candidates["problem_id"].to_pylist()
    is_start = pa.array([_fraction(problem_id) < share for problem_id in ids], pa.bool_())
    return candidates.filter(is_start), candidates.filter(pc.invert(is_start))


def _fraction(problem_id: str) -> float:
    return int.from_bytes(hashlib.sha256(f"start {problem_id}".encode()).digest()[:8]) / 2**64


def arm_rows(candidates: pa.Table, kind: Kind) -> pa.Table:
    """Return the rows that an arm learns: ``all`` traces; ``verified``, the answer is right; ``selected`` by the run.

    ``answers`` are the responses of verified traces, with nothing in the thinking. No arm has traces with a control
    token in their text: the guards of training refuse them in any.
    """
    candidates = candidates.filter(pc.invert(pc.match_substring_regex(candidates["text"], CONTROL)))
    if kind == "all":
        return _table(candidates, candidates["text"].to_pylist())
    if kind == "selected":
        found = candidates.filter(pc.fill_null(candidates["is_accepted"], False))
        return _table(found, found["text"].to_pylist())
    found = candidates.filter(pc.fill_null(candidates["is_correct"], False))
    if kind == "verified":
        return _table(found, found["text"].to_pylist())
    found = found.filter(pc.is_valid(found["response"]))
    return _table(found, [NO_THINKING + text.strip() for text in found["response"].to_pylist()])


def start_rows(candidates: pa.Table) -> pa.Table:
    """Return accepted traces whose digits are drawn by chance: tags, lines and words are right, and no number is."""
    found = candidates.filter(pc.fill_null(candidates["is_accepted"], False))
    return _table(found, [_scramble(row["text"], row["trace_id"]) for row in found.to_pylist()])


def _scramble(text: str, seed: str) -> str:
    rng = Random(seed)
    return _DIGIT.sub(lambda _: rng.choice("0123456789"), text)


def _table(found: pa.Table, completions: Iterable[str]) -> pa.Table:
    turns = [[{"role": "assistant", "content": text}] for text in completions]
    columns = [found["trace_id"], found["problem_id"], found["messages"], pa.array(turns, SCHEMA.field(3).type)]
    return pa.Table.from_arrays(
        [_cast(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def _cast(column: Any, kind: pa.DataType) -> Any:
    return column if column.type == kind else column.cast(kind)


def write_arm(rows: pa.Table, folder: Path) -> None:
    """Write rows as a selection's folder, which `factory sft --data` reads; it appears whole."""
    part = folder.with_name(f"{folder.name}.part")
    (part / TABLE).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, part / TABLE / "train-00000-of-00001.parquet")
    part.rename(folder)


def fresh_problems(job: JobConfig, asked: Iterable[str], *, size: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield problems of the run's kinds that the run did not ask, each once; up to ``size`` of each source.

    Raises:
        ConfigError: If the run has no source of reasoning-gym.
    """
    seen = {question.strip() for question in asked}
    sources = [source for source in job.sources if isinstance(source, GymSource)]
    if not sources:
        raise ConfigError("fresh.benchmark: the run has no source of kind reasoning_gym; give a file of problems")
    for source in sources:
        again = source.model_copy(update={"size": size, "seed": seed})
        for index, row in enumerate(gym_rows(again, f"fresh {source.task}")):
            entry = row.body or {}
            question = str(entry["question"]).strip()
            if question not in seen:
                seen.add(question)
                row_id = f"{source.task}-{seed}-{index}"
                yield {"id": row_id, "problem": question, "answer": str(entry["answer"]), "subject": source.task}


def write_fresh(problems: Iterable[dict[str, str]], path: Path) -> None:
    """Write problems as a benchmark of answers; the file appears whole."""
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(json.dumps(problem) + "\n" for problem in problems), encoding="utf-8")
    part.rename(path)


def questions(candidates: pa.Table) -> Iterator[str]:
    """Yield what the traces' problems ask, as the run's problems have it."""
    for turns in candidates["messages"].to_pylist():
        yield turns[-1]["content"]
