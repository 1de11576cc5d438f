"""Agreement: our verdicts against the labels that came with a recording, and every attempt on which they differ.

Reads a run and writes nothing. Says who said what, never who is right: a label is another grader's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.joining import reference_text
from factory.state import FrozenProblems, current_verdicts
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.errors import ConfigError
from schemas.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An attempt that its publisher and our verifiers judge differently."""

    trace_id: str
    problem_id: str
    source: str
    source_row_id: str
    sample_index: int
    label: bool
    is_correct: bool
    outcome: str
    reason: str | None
    answer: str | None  # that we extracted
    label_answer: str | None  # that the publisher read
    reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Counts by label and our word; ``num_not_compared`` traces lack a label or a word of ours, and are in no rate."""

    both_true: int
    both_false: int
    only_label: int  # the label says right, we do not
    only_verdict: int  # we say right, the label does not
    num_not_compared: int
    disagreements: tuple[Disagreement, ...]

    @property
    def num_compared(self) -> int:
        """Traces with a label and a verdict."""
        return self.both_true + self.both_false + self.only_label + self.only_verdict

    @property
    def rate(self) -> float | None:
        """Share of the compared on which both agree; null if there are none."""
        return (self.both_true + self.both_false) / self.num_compared if self.num_compared else None


def read_agreement(path: AnyPath) -> Agreement:
    """Return how a run's verdicts (``is_correct``) agree with its recorded labels.

    Raises:
        ConfigError: If the folder holds no run, or none of its traces has a label.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    traces = _labelled(folder, manifest)
    if not traces:
        raise ConfigError(
            f"{path}: no trace has a label to compare with; labels come with a recording: teacher.kind replay with "
            "teacher.columns.label, as in jobs/configs/replay.yaml"
        )
    counts = {(label, word): 0 for label in (True, False) for word in (True, False)}
    found: list[Mapping[str, Any]] = []
    for table in current_verdicts(folder, manifest, FrozenProblems.load(folder, manifest)):
        for verdict in table.to_pylist():
            trace = traces.get(verdict["trace_id"])
            if trace is None or verdict["is_correct"] is None:
                continue
            counts[trace["label"], verdict["is_correct"]] += 1
            if trace["label"] != verdict["is_correct"]:
                found.append({**trace, **verdict})
    compared = sum(counts.values())
    return Agreement(
        both_true=counts[True, True],
        both_false=counts[False, False],
        only_label=counts[True, False],
        only_verdict=counts[False, True],
        num_not_compared=sum(table.num_rows for table in folder.tables_of("traces", manifest.traces, [])) - compared,
        disagreements=tuple(_disagreements(folder, manifest, found)),
    )


def _labelled(folder: RunFolder, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the traces that have a label, by id, without their texts."""
    columns = ["trace_id", "problem_id", "sample_index", "label", "label_answer"]
    tables = folder.tables_of("traces", manifest.traces, columns)
    return {row["trace_id"]: row for table in tables for row in table.to_pylist() if row["label"] is not None}


def _disagreements(folder: RunFolder, manifest: Manifest, found: list[Mapping[str, Any]]) -> list[Disagreement]:
    """Return them in the order of the problems and their attempts."""
    wanted = {row["problem_id"] for row in found}
    columns = ["problem_id", "source", "source_row_id", "reference"]
    rows = (row for table in folder.tables_of("problems", manifest.problems, columns) for row in table.to_pylist())
    problems = {row["problem_id"]: (place, row) for place, row in enumerate(rows) if row["problem_id"] in wanted}
    ordered = sorted(found, key=lambda row: (problems[row["problem_id"]][0], row["sample_index"]))
    return [_disagreement(row, problems[row["problem_id"]][1]) for row in ordered]


def _disagreement(row: Mapping[str, Any], problem: Mapping[str, Any]) -> Disagreement:
    details = [check["math"] for check in row["checks"] if check["math"] is not None]
    return Disagreement(
        trace_id=row["trace_id"],
        problem_id=row["problem_id"],
        source=problem["source"],
        source_row_id=problem["source_row_id"],
        sample_index=row["sample_index"],
        label=row["label"],
        is_correct=row["is_correct"],
        outcome=row["outcome"],
        reason=row["reason"],
        answer=details[0]["extracted"] if details else None,
        label_answer=row["label_answer"],
        reference=reference_text(problem["reference"]),
    )
