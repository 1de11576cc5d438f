"""A made-up run for benchmarks of the machinery: real problems frozen as always, traces of a kilobyte, one verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from factory.plan import Plan, make_plan
from factory.store import RunFolder
from jobs.freezing import freeze
from schemas.config import parse_config
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Check, JudgedTrace, Outcome, Verdict

TEXT: Final = f"<think>\n{'I add the numbers one after the other and check the sum. ' * 17}\n</think>\n\n\\boxed{{3}}"
TOKENS: Final = tuple(range(1_000, 1_250))  # a token is four bytes of text or so


@dataclass(frozen=True, slots=True)
class MadeRun:
    """A run whose problems are frozen, and what all its traces have in common."""

    plan: Plan
    path: Path

    @property
    def folder(self) -> RunFolder:
        """The run on disk."""
        return RunFolder(self.path)

    def trace(self, problem_id: str, sample_index: int, engine_id: str = "engine-0-e1-1") -> Trace:
        """Return the trace of an attempt."""
        return Trace(
            fingerprint=self.plan.fingerprint,
            problem_id=problem_id,
            sample_index=sample_index,
            format=TraceFormat.R1,
            text=TEXT,
            token_ids=TOKENS,
            finish_reason=FinishReason.STOP,
            num_prompt_tokens=80,
            num_completion_tokens=len(TOKENS),
            teacher=self.plan.identity.name,
            teacher_revision=self.plan.identity.revision,
            engine="scripted",
            engine_version="1",
            engine_id=engine_id,
            submitted_at_us=1_000_000,
            finished_at_us=2_000_000,
        )


def verdict(trace_id: str, problem_id: str, reference_hash: str | None) -> JudgedTrace:
    """Return the word that a trace is correct; nobody has read it."""
    check = Check(name="math", version="1", outcome=Outcome.CORRECT)
    return JudgedTrace(
        trace_id=trace_id, problem_id=problem_id, verdict=Verdict(reference_hash=reference_hash, checks=(check,))
    )


def plan_of(folder: Path, num_samples: int) -> Plan:
    """Return the plan of the job whose problems lie in the folder."""
    job = {
        "name": "made",
        "sources": [
            {
                "kind": "jsonl",
                "path": str(folder / "problems.jsonl"),
                "columns": {"problem": "question", "answer": "answer"},
            }
        ],
        "teacher": {"kind": "scripted"},
        "sampling": {"num_samples": num_samples, "max_tokens": 400},
    }
    return make_plan(parse_config(job, origin="the benchmark"), {})


def freeze_run(folder: Path, num_problems: int, num_samples: int) -> MadeRun:
    """Write problems into the folder and freeze them as a new run, as `factory run` does."""
    with (folder / "problems.jsonl").open("w") as file:
        for number in range(num_problems):
            question = f"What is {number} + {7 * number}? {'Think about it. ' * 15}"
            file.write(json.dumps({"question": question, "answer": str(8 * number)}) + "\n")
    plan, path = plan_of(folder, num_samples), folder / "run"
    path.mkdir()
    freeze(plan, path, lambda _: None)
    return MadeRun(plan, path)
