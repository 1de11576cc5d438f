"""What an accepted sample costs: nothing that was spent is left out, and parts sum up to the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.build import build_tables
from factory.cost import Labels, Problems, costs_of, num_accepted, read_spent
from factory.ledgers import Spent, ledger_path, spent_in, why_stop
from factory.report import read_status
from factory.selection import choose
from factory.storage import write_atomically
from factory.store import RunFolder
from schemas.config import BudgetConfig, SelectConfig
from schemas.verdict import Outcome
from tests.candidates import configs, correct, wrong
from tests.runs import make_problem, make_trace, make_verdict, start_run, write_segment

NAMES = ["code", "logic", "math"]
at_problems = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=40)


def _problems(rows: list[tuple[int, int, int]]) -> Problems:
    tokens, accepted, domains = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    labels = Labels(NAMES, domains)
    return Problems(tokens=tokens, accepted=accepted, domains=labels, sources=labels)


@given(at_problems, st.floats(0, 1e9))
def test_domains_and_problems_sum_up_to_the_whole(rows: list[tuple[int, int, int]], device_s: float) -> None:
    found, ids = _problems(rows), pa.array([f"p{place}" for place in range(len(rows))])
    costs = costs_of(found, ids, Spent(num_tokens=7, device_s=device_s))
    assert costs.whole.num_tokens == sum(tokens for tokens, _, _ in rows)
    assert costs.whole.device_s == device_s
    if costs.whole.num_tokens:
        assert sum(cost.num_tokens for cost in costs.by_domain) == costs.whole.num_tokens
        assert sum(cost.device_s for cost in costs.by_domain) == pytest.approx(device_s)
    if sum(tokens > 0 for tokens, _, _ in rows) <= len(costs.dearest) and costs.dearest:
        assert sum(cost.device_s for cost in costs.dearest) == pytest.approx(device_s)
    assert all(cost.tokens_per_accepted is None for cost in costs.dearest if not cost.num_accepted)


def test_problems_without_an_accepted_sample_are_the_dearest_by_their_tokens() -> None:
    found = _problems([(100, 1, 0), (50, 0, 0), (1000, 2, 0), (80, 0, 0), (0, 0, 0)])
    costs = costs_of(found, pa.array(list("abcde")), Spent())
    assert [cost.name for cost in costs.dearest] == ["d", "b", "c", "a"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6), configs(bounded=False))
def test_as_many_are_accepted_as_the_selection_chooses(counts: list[tuple[int, int]], config: SelectConfig) -> None:
    groups = []
    for place, (num_right, num_wrong) in enumerate(counts):
        group = [correct(f"{place}-{n}", problem_id=str(place), tokens=10 + 7 * n) for n in range(num_right)]
        groups.append([*group, *(wrong(f"{place}-w{n}", problem_id=str(place)) for n in range(num_wrong))])
    said = sum(decision.is_accepted for group in groups for decision in choose(group, config))
    num_right, num_wrong = (np.array(column, np.int64) for column in zip(*counts, strict=True))
    assert num_accepted(num_right, num_right, num_right + num_wrong, config).sum() == said


def test_tokens_count_whatever_became_of_the_attempts_and_journaled_ones_too(tmp_path: Path) -> None:
    problems = [make_problem(number) for number in range(3)]
    config = {"name": "t", "select": {"name": "default"}, "teacher": {"kind": "x"}, "sampling": {}}
    committer = start_run(tmp_path, problems, num_samples=2, config=config)
    traces = [make_trace(problem.problem_id, index, text="x" * 10) for problem in problems for index in range(2)]
    outcomes = [Outcome.CORRECT, Outcome.CORRECT, Outcome.CORRECT, Outcome.WRONG_ANSWER, Outcome.WRONG_ANSWER]
    judged = [
        make_verdict(trace, problems[place // 2], outcome)
        for place, (trace, outcome) in enumerate(zip(traces[:5], outcomes, strict=True))
    ]
    committer.commit(segments=[write_segment(tmp_path / "journal", traces[:5], sequence=1)], judged=judged)
    write_segment(tmp_path / "journal", traces[5:], sequence=2)  # not judged yet
    for epoch, num_gpus in ((1, 2), (2, 1)):
        body = f'{{"seconds": {{"full": 60, "dead": 15}}, "num_tokens": 35, "num_gpus": {num_gpus}}}'
        write_atomically(ledger_path(tmp_path / "logs", epoch), body.encode())
    build_tables(tmp_path)
    status = read_status(tmp_path)
    whole = status.costs.whole
    assert (whole.num_tokens, whole.num_accepted) == (60, status.accepted) == (60, 3)
    assert (status.costs.device, whole.device_s) == ("GPU", 3 * 75)
    assert whole.tokens_per_accepted == status.tokens_per_accepted == 20
    assert status.costs.num_tokens_unkept == 70 - 60
    (math,) = status.costs.by_domain
    assert (math.num_tokens, math.device_s) == (60, pytest.approx(225))
    none, half, _ = status.costs.dearest
    assert (none.name, none.num_tokens, none.tokens_per_accepted) == (problems[2].problem_id, 20, None)
    assert (half.tokens_per_accepted, half.device_s_per_accepted) == (20, pytest.approx(75))
    assert read_spent(RunFolder(tmp_path)).num_tokens == 70


def test_what_a_killed_start_kept_counts_though_its_ledger_is_old(tmp_path: Path) -> None:
    problem = make_problem(1)
    start_run(tmp_path, [problem], num_samples=2)
    write_segment(tmp_path / "journal", [make_trace(problem.problem_id, 0, text="x" * 10)], sequence=1)
    assert read_spent(RunFolder(tmp_path)).num_tokens == 10


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 8))
def test_a_budget_is_spent_by_all_starts_together(limit: int, num_tokens: int, num_gpus: int) -> None:
    starts = [spent_in({"full": 1800.0, "dead": 1800.0}, num_tokens=num_tokens, num_gpus=num_gpus)] * 2
    spent = starts[0] + starts[1]
    assert spent.device_s == 7200 * max(1, num_gpus)
    assert (why_stop(BudgetConfig(max_tokens=limit), spent) is not None) == (2 * num_tokens >= limit)
    hours = 2 * max(1, num_gpus)
    assert why_stop(BudgetConfig(max_gpu_hours=hours + 0.1), spent) is None
    said = why_stop(BudgetConfig(max_gpu_hours=hours), spent)
    assert said is not None
    assert ("GPU-hours" if num_gpus else "engine-hours") in said
    assert why_stop(None, spent) is None
