"""Suspects: problems whose attempts agree with one another and never with the reference, which is then probably wrong.

Reads a run and writes nothing. Says so of final answers alone: programs and scorers have no answer that two attempts
could share. It changes no verdict: whether the reference is wrong is for a reader to see.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from factory.joining import reference_text
from factory.state import RunState, current_verdicts
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.manifest import Manifest
from schemas.problem import Answer
from schemas.verdict import MathDetail, Verdict
from verifiers.math import compare_exactly, judge_answer

MIN_AGREEING: Final = 3  # attempts with one answer; guess
MIN_SAME: Final = 2  # with one answer, so that they agree so far: one agrees with nothing
MIN_SHARE: Final = 2 / 3  # of the attempts that gave an answer; guess
MAX_ANSWERS: Final = 8  # different ones of a problem that are compared with one another, most frequent first


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A problem whose reference is probably wrong."""

    problem_id: str
    source: str
    source_row_id: str
    reference: str | None
    answer: str  # that the attempts agree on, as one of them wrote it
    num_agreeing: int
    num_answers: int  # attempts that gave any answer; none gave the reference's


def read_suspects(path: AnyPath) -> list[Suspect]:
    """Return the suspects of a run by its committed verdicts, those with most agreeing attempts first.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    return find_suspects(folder, manifest, RunState.load(folder, manifest))


def find_suspects(folder: RunFolder, manifest: Manifest, state: RunState) -> list[Suspect]:
    """Return the suspects of a run whose state is at hand; as ``read_suspects``."""
    tally = state.tally(0)
    places = np.flatnonzero((tally.true == 0) & (tally.against >= MIN_AGREEING))
    if not len(places):
        return []
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    wanted = state.problems.ids.take(pa.array(places))
    for table in current_verdicts(folder, manifest, state.problems, ["problem_id", "reference_hash", "checks"]):
        rows = table.filter(pc.is_in(table["problem_id"], value_set=wanted))
        for problem_id, checks in zip(rows["problem_id"].to_pylist(), rows["checks"].to_pylist(), strict=True):
            answers[problem_id].update(_extracted(checks))
    agreed = {problem_id: found for problem_id, counts in answers.items() if (found := agreed_answer(counts))}
    if not agreed:
        return []
    columns = ["problem_id", "source", "source_row_id", "reference"]
    problems = {
        row["problem_id"]: row
        for table in folder.tables_of("problems", manifest.problems, columns)
        for row in table.filter(pc.is_in(table["problem_id"], value_set=pa.array(agreed))).to_pylist()
    }
    suspects = [
        Suspect(
            **problems[problem_id] | {"reference": reference_text(problems[problem_id]["reference"])},
            answer=answer,
            num_agreeing=count,
            num_answers=answers[problem_id].total(),
        )
        for problem_id, (answer, count) in agreed.items()
    ]
    return sorted(suspects, key=lambda suspect: (-suspect.num_agreeing, suspect.problem_id))


def _extracted(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the answer that was read, if one was."""
    return [check["math"]["extracted"] for check in checks if check["math"] and check["math"]["extracted"]][:1]


def answer_of(verdict: Verdict) -> str | None:
    """Return the answer that was read, if one was."""
    details = (check.detail for check in verdict.checks)
    return next((found.extracted for found in details if isinstance(found, MathDetail) and found.extracted), None)


def may_be_suspect(answers: Counter[str]) -> bool:
    """Return whether answers, none of them right, agree so far: a few more like them make their problem a suspect.

    Answers that only sympy could call equal count as different: nobody has to wait for a process.
    """
    return agreed_answer(answers, least=MIN_SAME, are_equal=_are_plainly_equal) is not None


def _are_plainly_equal(answer: str, reference: str) -> bool:
    found = compare_exactly(answer, Answer(text=reference))
    return found is not None and found.reason is None


def _are_equal(answer: str, reference: str) -> bool:
    return judge_answer(rf"\boxed{{{answer}}}", reference).is_correct is True


def agreed_answer(
    answers: Counter[str], *, least: int = MIN_AGREEING, are_equal: Callable[[str, str], bool] = _are_equal
) -> tuple[str, int] | None:
    """Return the answer that enough attempts agree on, and how many do; answers are equal as the verifier has it."""
    texts = [text for text, _ in answers.most_common(MAX_ANSWERS)]
    for text in texts:
        count = sum(answers[other] for other in texts if other == text or are_equal(other, text))
        if count >= least and count >= MIN_SHARE * answers.total():
            return text, count
    return None
