"""Unbiased pass rates, through a run on disk and its tables: what is cancelled at one problem is no other's matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from factory.build import build_tables
from factory.committer import Committer
from factory.rederive import rederive
from schemas.config import parse_config
from schemas.problem import Problem
from schemas.trace import Untraced, make_trace_id
from schemas.verdict import Outcome
from tests.runs import FINGERPRINT, make_problem, make_trace, make_verdict, start_run, write_segment

RIGHT, WRONG, BAD = Outcome.CORRECT, Outcome.WRONG_ANSWER, Outcome.BAD_REFERENCE
PROBLEMS = [make_problem(0), make_problem(1)]
JOB = {
    "name": "rates",
    "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
    "teacher": {"kind": "scripted"},
    "sampling": {"num_samples": 4},
}
Ends = Sequence[Outcome | str]  # of the attempts at a problem, by index; a text is why one was cancelled


def _config(min_samples: int | None) -> dict[str, Any]:
    adaptive = None if min_samples is None else {"useful": 1, "min_samples": min_samples}
    return parse_config(JOB | {"schedule": {"adaptive": adaptive}}, origin="test").model_dump(mode="json")


def _write_run(path: Path, ends: Sequence[Ends], *, min_samples: int | None) -> Committer:
    committer = start_run(path, PROBLEMS, num_samples=4, config=_config(min_samples))
    traces, judged, untraced = [], [], []
    for problem, of_problem in zip(PROBLEMS, ends, strict=True):
        for index, end in enumerate(of_problem):
            if isinstance(end, Outcome):
                traces.append(make_trace(problem.problem_id, index))
                judged.append(make_verdict(traces[-1], problem, end))
            else:
                untraced.append(_cancelled(problem, index, end))
    segment = write_segment(path / "journal", traces, sequence=1)
    committer.commit(segments=[segment], judged=judged)
    for one in untraced:  # a shard for each, as in a run that commits again and again
        committer.commit(untraced=[one])
    return committer


def _cancelled(problem: Problem, index: int, reason: str) -> Untraced:
    return Untraced(
        trace_id=make_trace_id(FINGERPRINT, problem.problem_id, index),
        problem_id=problem.problem_id,
        sample_index=index,
        ending="cancelled",
        reason=reason,
    )


def _rates(path: Path) -> list[float | None]:
    """Return the unbiased rate of each problem, as tables are built; they follow from their candidates, too."""
    folder = build_tables(path).folder
    assert not rederive(folder).differences
    (file,) = Path(folder).glob("candidates/*")
    rows = pq.read_table(file).to_pylist()
    found = [{row["pass_rate_unbiased"] for row in rows if row["problem_id"] == one.problem_id} for one in PROBLEMS]
    return [rate for (rate,) in found]


FULL = (RIGHT, WRONG, WRONG, WRONG)


def test_a_cut_attempt_that_was_dropped_at_a_solved_problem_takes_no_rate_from_the_others(tmp_path: Path) -> None:
    _write_run(tmp_path, [("solved", RIGHT, WRONG, WRONG), FULL], min_samples=None)
    assert _rates(tmp_path) == [None, 0.25]


def test_an_unreadable_reference_takes_no_rate_from_the_other_problems_and_has_none_when_it_is_repaired(
    tmp_path: Path,
) -> None:
    committer = _write_run(tmp_path, [(BAD, *["hopeless"] * 3), FULL], min_samples=2)
    assert _rates(tmp_path) == [None, 0.5]
    repaired = make_problem(0, answer="7")
    committer = start_run(tmp_path, [repaired, PROBLEMS[1]], num_samples=4, config=_config(2))
    committer.commit(judged=[make_verdict(make_trace(repaired.problem_id, 0), repaired, RIGHT)])
    assert _rates(tmp_path) == [None, 0.5]


@pytest.mark.parametrize("reason", ["quota_reached", "hopeless"])
@pytest.mark.parametrize("min_samples", [3, None])
def test_where_a_former_job_asked_for_fewer_the_rates_of_all_problems_are_of_as_few(
    tmp_path: Path, reason: str, min_samples: int | None
) -> None:
    """By more attempts where the first two decided to go on, and by two where not, they would be biased."""
    first = (RIGHT, RIGHT) if reason == "quota_reached" else (WRONG, WRONG)
    _write_run(tmp_path, [(*first, reason, reason), FULL], min_samples=min_samples)
    assert _rates(tmp_path) == [float(first[0] is RIGHT), 0.5]


def test_a_problem_may_lack_an_attempt_of_as_few_as_a_former_job_asked_for(tmp_path: Path) -> None:
    _write_run(
        tmp_path, [(RIGHT, RIGHT, "quota_reached", "quota_reached"), (RIGHT, "solved", WRONG, WRONG)], min_samples=3
    )
    assert _rates(tmp_path) == [1.0, None]


def test_with_a_fixed_number_of_attempts_the_unbiased_rate_is_that_of_all(tmp_path: Path) -> None:
    _write_run(tmp_path, [(RIGHT, RIGHT, RIGHT, WRONG), FULL], min_samples=None)
    assert _rates(tmp_path) == [0.75, 0.25]
