"""Many at once give the verdicts of one by one, in this process or in several."""

import json
import os
import signal
from pathlib import Path

import pytest

from schemas.problem import Answer, Choice
from verifiers import judge_answer, judge_answers
from verifiers.batch import compare_all
from verifiers.math import compare_texts
from verifiers.pool import Pool

DATA = Path(__file__).parents[1] / "data" / "math_cases_blind.jsonl"
ROWS = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
SAMPLES = [(row["prediction"], row["gold"]) for row in ROWS if row["prediction"] is not None and not row.get("hostile")]


def words(verdicts: list) -> list:
    return [(verdict.outcome, verdict.reason, verdict.checks[0].detail) for verdict in verdicts]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_many_at_once_are_judged_as_one_by_one(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.batch.MIN_SHARED_PAIRS", 100)
    samples = SAMPLES[:600] + SAMPLES[:50]
    one_by_one = [judge_answer(*sample) for sample in samples]
    assert words(judge_answers(samples, num_workers=num_workers)) == words(one_by_one)


def test_references_of_every_kind_go_together_and_kind_is_for_all() -> None:
    samples = [
        ("\\boxed{B}", Choice(letter="B", options=("x", "y"))),
        ("\\boxed{0.65}", Answer(text="0.64", precision=0.01)),
        ("", "5"),
        ("\\boxed{2^{10}}", "1024"),
    ]
    assert [verdict.is_correct for verdict in judge_answers(samples)] == [True, True, False, True]
    assert judge_answers([samples[3]], kind="number")[0].is_correct is False
    assert judge_answers([]) == []


def test_each_pair_is_compared_once() -> None:
    seen = []

    def compare(answer: str, reference: Answer) -> object:
        seen.append(answer)
        return compare_texts(answer, reference)

    pairs = [("1/2", Answer(text="0.5")), ("2", Answer(text="3")), ("1/2", Answer(text="0.5"))]
    found = compare_all(pairs, compare, 1)  # type: ignore[arg-type]
    assert seen == ["1/2", "2"]
    assert [found[pair].reason for pair in pairs] == [None, "value_differs", None]


def test_a_process_that_is_killed_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.batch.MIN_SHARED_PAIRS", 100)
    call, killed = Pool.call, []

    def call_and_kill(pool: Pool, task: str, payload: object) -> object:
        if task == "compare" and not killed:
            pool.call("probe", ["echo", 1])
            killed.append(pool.pids())
            for pid in pool.pids():
                os.kill(pid, signal.SIGKILL)
        return call(pool, task, payload)

    monkeypatch.setattr(Pool, "call", lambda pool, task, payload: call_and_kill(pool, task, payload))
    verdicts = judge_answers(SAMPLES[:300], num_workers=2)
    assert killed
    assert words(verdicts) == words([judge_answer(*sample) for sample in SAMPLES[:300]])
