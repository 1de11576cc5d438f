"""Predicting a job from its first problems: intervals cover what comes, and sources count by the job's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from factory.cost import Labels
from factory.estimate import PromptCount, estimate, estimate_domains
from factory.ledgers import spent_in
from factory.pilot import MIN_PROBLEMS, Pilot, predict, read_pilot
from factory.plan import make_plan
from schemas.config import JobConfig, load_config, parse_config
from tests.runs import write_job

SPENT = spent_in({"full": 90.0, "starved": 10.0, "loading": 50.0}, num_tokens=200_000, num_gpus=2)


def _pilot(
    tokens: np.ndarray, accepted: np.ndarray, codes: np.ndarray | None = None, domains: np.ndarray | None = None
) -> Pilot:
    none = np.zeros(len(tokens), np.int64)
    return Pilot(
        tokens=tokens,
        accepted=accepted,
        sources=Labels(["a", "b"], none if codes is None else codes),
        domains=Labels(["math", "code"], none if domains is None else domains),
        num_open=0,
        spent=SPENT,
    )


def _of_math(**num_problems: int) -> dict[tuple[str, str], int]:
    """Return so many problems of each source, all of one domain."""
    return {(source, "math"): num for source, num in num_problems.items()}


def _priced() -> JobConfig:
    """Return a job on engines of two GPUs."""
    body = {
        "name": "priced",
        "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
        "prompt": {"template": "boxed"},
        "teacher": {
            "kind": "vllm",
            "model": "m",
            "num_engines": 3,
            "engine": {"tensor_parallel_size": 2},
            "price": {"tokens_per_s": 1, "mean_tokens": 1, "gpu_hour_cost": 2.0},
        },
    }
    return parse_config(body, origin="test")


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    num_covered = np.zeros(3)
    for _ in range(100):
        hard = generator.beta(0.6, 0.6, 600)  # of one problem the attempts are alike
        accepted = generator.binomial(8, hard)
        tokens = generator.lognormal(8, 0.7, 600).astype(np.int64) + (8 - accepted) * 1_000
        found = predict(_pilot(tokens[:60], accepted[:60]), _of_math(a=600))
        truth = (tokens.sum(), accepted.sum(), tokens.sum() / accepted.sum())
        for place, one in enumerate((found.tokens, found.accepted, found.tokens_per_accepted)):
            num_covered[place] += one.low <= truth[place] <= one.high
    assert (num_covered >= 80).all(), f"of 100, 90 are expected: {num_covered}"
    assert (num_covered <= 99).all(), f"too wide: {num_covered}"


def test_what_is_known_has_no_interval() -> None:
    tokens, accepted = np.arange(40), np.ones(40, np.int64)
    found = predict(_pilot(tokens, accepted), _of_math(a=40))
    assert set(found.tokens) == {tokens.sum()}
    assert set(found.accepted) == {40.0}


def test_sources_count_as_often_as_the_job_has_them_not_the_pilot() -> None:
    tokens = np.array([100] * 50 + [1_000] * 50)
    codes = np.array([0] * 50 + [1] * 50)
    found = predict(_pilot(tokens, np.ones(100, np.int64), codes), _of_math(a=950, b=50))
    assert found.tokens == (950 * 100 + 50 * 1_000,) * 3


def test_a_source_that_the_pilot_hardly_saw_goes_by_the_whole_pilot() -> None:
    tokens = np.array([100] * 98 + [1_000] * 2)
    codes = np.array([0] * 98 + [1] * 2)
    found = predict(_pilot(tokens, np.zeros(100, np.int64), codes), _of_math(a=98, b=1_002))
    assert found.tokens.value == pytest.approx(tokens.sum() + 1_000 * tokens.mean())
    assert found.tokens_per_accepted == (None, None, None)


def test_the_figures_of_a_job_follow_from_its_pilot_and_say_so() -> None:
    found = predict(_pilot(np.full(100, 2_000), np.full(100, 2)), _of_math(a=1_000))
    counted = PromptCount(num_prompts=1_000, num_tokens=1_000, is_estimated=False)
    figures = estimate(_priced(), counted, found)
    assert figures["output_tokens"].value == 2_000_000
    assert "100 ended problems" in figures["output_tokens"].origin
    speed = 200_000 / 100  # of an engine of two GPUs, while it was loaded
    hours = 2_000_000 / speed / 3600
    assert figures["gpu_hours"][:1] + figures["gpu_hours"][2:] == pytest.approx((2 * hours,) * 3)
    assert figures["wall_clock_hours"].value == pytest.approx(hours / 3)
    assert figures["cost"].value == pytest.approx(4 * hours)
    assert figures["accepted"].value == 2_000
    assert figures["tokens_per_accepted"].value == 1_000
    assert figures["gpu_s_per_accepted"].value == pytest.approx(2 * 1_000 / speed)


def test_a_domain_is_predicted_as_if_its_problems_were_all_there_is() -> None:
    generator = np.random.default_rng(3)
    tokens, accepted = generator.integers(1, 10_000, 200), generator.binomial(8, 0.5, 200)
    codes, domains = generator.integers(0, 2, 200), np.arange(200) % 2
    job = {("a", "math"): 300, ("b", "math"): 200, ("b", "code"): 900}
    found = predict(_pilot(tokens, accepted, codes, domains), job)
    assert list(found.by_domain) == ["math", "code"]
    of_math = domains == 0
    alone = predict(_pilot(tokens[of_math], accepted[of_math], codes[of_math]), _of_math(a=300, b=200))
    assert found.by_domain["math"].tokens_per_accepted == alone.tokens_per_accepted
    assert (found.by_domain["math"].tokens, found.by_domain["math"].num_pilot) == (alone.tokens, 100)


def test_domains_of_one_source_each_add_up_to_the_whole() -> None:
    tokens, accepted, codes = np.arange(1, 101), np.arange(100) % 3, np.arange(100) % 2
    found = predict(_pilot(tokens, accepted, codes, codes), {("a", "math"): 70, ("b", "code"): 500})
    for name in ("tokens", "accepted"):
        parts = [getattr(one, name).value for one in found.by_domain.values()]
        assert sum(parts) == pytest.approx(getattr(found, name).value)
    figures = estimate_domains(_priced(), found)
    speed = 200_000 / 100
    for domain, of_domain in figures.items():
        each = found.by_domain[domain].tokens_per_accepted
        assert of_domain["tokens_per_accepted"].value == each.value
        seconds = of_domain["gpu_s_per_accepted"]
        assert (seconds.low, seconds.value, seconds.high) == pytest.approx(
            tuple(one * 2 / speed for one in (each.low, each.value, each.high))
        )
        assert seconds.low < seconds.value < seconds.high


@pytest.mark.parametrize("num_seen", [0, MIN_PROBLEMS - 1])
def test_of_a_domain_with_too_few_problems_in_the_pilot_nothing_is_predicted_and_that_is_said(num_seen: int) -> None:
    domains = (np.arange(100) < num_seen).astype(np.int64)
    job = {("a", "math"): 500, ("a", "code"): 500}
    found = predict(_pilot(np.full(100, 2_000), np.full(100, 2), domains=domains), job)
    math, code = estimate_domains(_priced(), found).values()
    assert math["tokens_per_accepted"].value == 1_000
    for figure in code.values():
        assert figure.value is None
        assert figure.origin == f"too few: {num_seen} problems of the run have ended, and {MIN_PROBLEMS} are needed"


def test_a_domain_of_which_nothing_is_accepted_yet_says_so() -> None:
    found = predict(_pilot(np.full(40, 2_000), np.zeros(40, np.int64)), _of_math(a=400))
    (figures,) = estimate_domains(_priced(), found).values()
    assert figures["output_tokens"].value == 800_000
    for name in ("tokens_per_accepted", "gpu_s_per_accepted"):
        assert (figures[name].value, figures[name].origin) == (None, "the run has no accepted sample yet")


def test_without_a_run_there_is_no_pilot(tmp_path: Path) -> None:
    plan = make_plan(load_config(write_job(tmp_path, num_problems=1), []), {}, is_dry=True)
    assert read_pilot(plan, tmp_path / "run") == f"{tmp_path}/run holds no run yet"
