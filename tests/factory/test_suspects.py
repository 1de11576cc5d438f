"""Suspects: agreement against the reference is noticed, and nothing else is taken for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from factory.report import read_status
from factory.suspects import agreed_answer, read_suspects
from schemas.problem import Answer
from schemas.verdict import JudgedTrace
from tests.runs import make_problem, make_trace, start_run, write_segment
from verifiers.math import judge_answer


@pytest.mark.parametrize(
    ("answers", "agreed"),
    [
        ({"7": 3}, ("7", 3)),
        ({"1/2": 2, "0.5": 1, r"\\frac{1}{2}": 1}, ("1/2", 4)),
        ({"7": 2}, None),
        ({"7": 3, "8": 2}, None),
        ({"7": 4, "8": 2}, ("7", 4)),
        ({"8": 1, "9": 1, "10": 1}, None),
    ],
)
def test_answers_agree_when_enough_of_them_are_equal(answers: dict[str, int], agreed: tuple[str, int] | None) -> None:
    assert agreed_answer(Counter(answers)) == agreed


def test_a_problem_is_suspect_when_its_attempts_agree_on_another_answer(tmp_path: Path) -> None:
    problems = [make_problem(number) for number in range(3)]
    given = [["5", "5.0", "5"], ["2", "7", "7"], ["8", "9", "10"]]  # references are 1, 2 and 3
    committer = start_run(
        tmp_path, problems, num_samples=3, config={"name": "t", "select": {"name": "default"}, "teacher": {"kind": "x"}}
    )
    traces, judged = [], []
    for problem, answers in zip(problems, given, strict=True):
        for index, answer in enumerate(answers):
            trace = make_trace(problem.problem_id, index)
            assert isinstance(problem.reference, Answer)
            verdict = judge_answer(rf"\boxed{{{answer}}}", problem.reference)
            checks = verdict.checks
            verdict = type(verdict)(reference_hash=problem.reference_hash, checks=checks)
            traces.append(trace)
            judged.append(JudgedTrace(trace_id=trace.trace_id, problem_id=problem.problem_id, verdict=verdict))
    name = write_segment(tmp_path / "journal", traces, sequence=1)
    committer.commit(segments=[name], judged=judged)
    (suspect,) = read_suspects(tmp_path)
    assert (suspect.problem_id, suspect.reference) == (problems[0].problem_id, "1")
    assert (suspect.answer, suspect.num_agreeing, suspect.num_answers) == ("5", 3, 3)
    assert read_status(tmp_path).num_suspects == 1
