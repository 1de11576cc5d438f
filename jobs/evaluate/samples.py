"""Samples: what a run stored of each attempt at a benchmark, as scoring needs it. Reads a run and writes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory.state import FrozenProblems, current_verdicts
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.arrow import untraced_from_table
from schemas.manifest import Manifest
from schemas.problem import Choice, Reference, reference_from_json
from schemas.trace import FinishReason
from schemas.verdict import ANSWER_CHECKS, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A problem of the benchmark; ``row_id`` is its id there."""

    problem_id: str
    row_id: str
    question: str
    reference: Reference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One attempt that has a trace. ``is_correct`` is the answer check's word; null is no word: unjudged, or no check.

    ``unreadable`` are the reasons for which a data set would not take the text, whatever its answer is.
    """

    problem_id: str
    sample_index: int
    trace_id: str
    is_correct: bool | None
    outcome: Outcome | None  # null: not judged yet
    reason: str | None  # of the answer check
    answer: str | None  # that was read, in the words of the text; of a choice the letters
    num_tokens: int
    finish_reason: FinishReason
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """All that a run says of an evaluation."""

    items: Mapping[str, Item]  # by problem id, in the order of the benchmark
    samples: Mapping[str, tuple[Sample, ...]]  # by problem id, in the order of the attempts
    num_samples: int  # asked for at each problem
    failed: Mapping[str, int]  # attempts without a trace, by reason
    quarantined: Mapping[str, int]  # rows of the benchmark that became no problem, by reason
    teacher: Mapping[str, Any]  # of the job
    fingerprint: Mapping[str, Any]  # what decided the texts: teacher, prompt, sampling
    verifiers: str  # digest of the verifiers that judged


def read_stored(path: AnyPath) -> Stored:
    """Return what a run holds, by its committed verdicts.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    items = _items(folder, manifest)
    samples: dict[str, list[Sample]] = {problem_id: [] for problem_id in items}
    verdicts = _verdicts(folder, manifest)
    columns = ["trace_id", "problem_id", "sample_index", "num_completion_tokens", "finish_reason"]
    for table in folder.tables_of("traces", manifest.traces, columns):
        for row in table.to_pylist():
            samples[row["problem_id"]].append(_sample(row, verdicts.get(row["trace_id"]), items[row["problem_id"]]))
    untraced = [row for table in folder.tables_of("untraced", manifest.untraced) for row in untraced_from_table(table)]
    return Stored(
        items=items,
        samples={one: tuple(sorted(found, key=lambda sample: sample.sample_index)) for one, found in samples.items()},
        num_samples=manifest.num_samples,
        failed=_counted(row.reason for row in untraced),
        quarantined=_counted(
            row
            for table in folder.tables_of("quarantine", manifest.quarantine, ["reason"])
            for row in table["reason"].to_pylist()
        ),
        teacher=manifest.config.get("teacher", {}),
        fingerprint=folder.run_yaml()["fingerprint_parts"],
        verifiers=manifest.verifiers,
    )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words))


def _items(folder: RunFolder, manifest: Manifest) -> dict[str, Item]:
    columns = ["problem_id", "source_row_id", "messages", "reference"]
    items = {}
    for table in folder.tables_of("problems", manifest.problems, columns):
        for row in table.to_pylist():
            reference = None if row["reference"] is None else reference_from_json(json.loads(row["reference"]))
            question = next(turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user")
            items[row["problem_id"]] = Item(
                problem_id=row["problem_id"], row_id=row["source_row_id"], question=question, reference=reference
            )
    return items


def _verdicts(folder: RunFolder, manifest: Manifest) -> dict[str, dict[str, Any]]:
    columns = ["trace_id", "problem_id", "reference_hash", "outcome", "is_correct", "checks"]
    problems = FrozenProblems.load(folder, manifest)
    return {
        row["trace_id"]: row
        for table in current_verdicts(folder, manifest, problems, columns)
        for row in table.to_pylist()
    }


def _sample(trace: Mapping[str, Any], verdict: Mapping[str, Any] | None, item: Item) -> Sample:
    checks = [] if verdict is None else verdict["checks"]
    answers = [check for check in checks if check["name"] in ANSWER_CHECKS]
    detail = next((check["math"] for check in answers if check["math"] is not None), None)
    is_letter = isinstance(item.reference, Choice)
    return Sample(
        problem_id=trace["problem_id"],
        sample_index=trace["sample_index"],
        trace_id=trace["trace_id"],
        is_correct=None if verdict is None else verdict["is_correct"],
        outcome=None if verdict is None else Outcome(verdict["outcome"]),
        reason=next((check["reason"] for check in answers), None),
        answer=None if detail is None else detail["answer_form" if is_letter else "extracted"],
        num_tokens=trace["num_completion_tokens"],
        finish_reason=FinishReason(trace["finish_reason"]),
        unreadable=tuple(check["reason"] for check in checks if check["outcome"] == Outcome.UNREADABLE),
    )
