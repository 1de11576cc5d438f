"""What a dry run prices: figures follow from what is stated, by arithmetic a reader can do, or say what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from factory.estimate import CHARACTERS_PER_TOKEN, PromptCount, count_prompts, estimate
from schemas.config import AdaptiveConfig, JobConfig, ScheduleConfig, parse_config
from schemas.problem import Prompt

COUNTED = PromptCount(num_prompts=1_000, num_tokens=100_000, is_estimated=False)


def _job(price: dict[str, Any] | None = None, **engine: object) -> JobConfig:
    body = {
        "name": "priced",
        "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
        "prompt": {"template": "boxed"},
        "teacher": {"kind": "vllm", "model": "m", "num_engines": 3, "engine": engine, "price": price or {}},
        "sampling": {"num_samples": 4, "max_tokens": 8_000},
    }
    return parse_config(body, origin="test")


def test_time_and_cost_follow_from_the_stated_speed_and_length() -> None:
    price = {"tokens_per_s": 2_000, "mean_tokens": 3_600, "gpu_hour_cost": 2.5, "currency": "EUR"}
    figures = estimate(_job(price, tensor_parallel_size=2, pipeline_parallel_size=2), COUNTED)
    assert figures["requests"].value == 4_000
    assert figures["prompt_tokens"].value == 400_000
    assert figures["output_tokens_at_most"].value == 32_000_000
    assert figures["output_tokens"].value == 4_000 * 3_600
    engine_hours = 4_000 * 3_600 / 2_000 / 3_600  # 2 hours of one engine
    assert figures["gpu_hours"].value == pytest.approx(engine_hours * 4)
    assert figures["wall_clock_hours"].value == pytest.approx(engine_hours / 3)
    assert figures["cost"].value == pytest.approx(engine_hours * 4 * 2.5)
    assert figures["cost"].origin.startswith("EUR")
    assert 0 < figures["stored_bytes"].value < figures["journal_bytes_at_most"].value


def test_what_is_asked_for_adaptively_is_a_bound() -> None:
    job = _job()
    adaptive = job.model_copy(update={"schedule": ScheduleConfig(adaptive=AdaptiveConfig())})
    assert "at most" not in estimate(job, COUNTED)["requests"].origin
    assert "at most" in estimate(adaptive, COUNTED)["requests"].origin


@pytest.mark.parametrize(
    ("price", "unknown", "key"),
    [
        ({}, ("output_tokens", "gpu_hours", "cost", "stored_bytes"), "teacher.price.mean_tokens"),
        ({"mean_tokens": 10}, ("gpu_hours", "wall_clock_hours", "cost"), "teacher.price.tokens_per_s"),
        ({"mean_tokens": 10, "tokens_per_s": 5}, ("cost",), "teacher.price.gpu_hour_cost"),
    ],
)
def test_a_figure_that_needs_what_nobody_stated_is_missing_and_names_the_key(
    price: dict[str, Any], unknown: tuple[str, ...], key: str
) -> None:
    figures = estimate(_job(price), COUNTED)
    assert {name for name, figure in figures.items() if figure.value is None} >= set(unknown)
    for name in unknown:
        assert key in figures[name].origin


def test_an_average_above_the_limit_counts_as_the_limit() -> None:
    figures = estimate(_job({"mean_tokens": 9_000}), COUNTED)
    assert figures["output_tokens"].value == figures["output_tokens_at_most"].value
    assert "above" in figures["output_tokens"].origin


def test_a_prompt_without_token_ids_is_estimated_from_its_characters_and_the_count_says_so() -> None:
    known = Prompt(problem_id="a", text="x" * 400, sha256="0", token_ids=(1, 2, 3))
    unknown = Prompt(problem_id="b", text="x" * 401, sha256="0", token_ids=())
    assert count_prompts([known]) == PromptCount(num_prompts=1, num_tokens=3, is_estimated=False)
    both = count_prompts([known, unknown])
    assert (both.num_tokens, both.is_estimated) == (3 + 400 // CHARACTERS_PER_TOKEN + 1, True)
    assert "estimate" in estimate(_job(), both)["prompt_tokens"].origin


def test_a_context_that_is_shorter_than_a_completion_may_be_is_the_limit() -> None:
    figures = estimate(_job({"mean_tokens": 6_000}, max_model_len=2_000), COUNTED)
    assert figures["output_tokens_at_most"].value == 4_000 * 2_000
    assert figures["output_tokens"].value == 4_000 * 2_000
    assert "max_model_len" in figures["output_tokens_at_most"].origin


def test_of_a_prompt_that_is_the_json_of_its_turns_the_contents_count() -> None:
    text = '[{"role": "user", "content": "What is 0 + 1?"}]'
    found = count_prompts([Prompt(problem_id="a", text=text, sha256="0", token_ids=())])
    assert found.num_tokens == -(-len("What is 0 + 1?") // CHARACTERS_PER_TOKEN)
    raw = count_prompts([Prompt(problem_id="a", text="[not json", sha256="0", token_ids=())])
    assert raw.num_tokens == -(-len("[not json") // CHARACTERS_PER_TOKEN)


def test_of_a_recording_nobody_knows_the_tokens_beforehand() -> None:
    teacher = {"kind": "replay", "path": "x.jsonl", "columns": {"problem": "p", "completion": "c"}}
    body = {**_job().model_dump(mode="json", exclude_unset=True), "teacher": teacher}
    figures = estimate(parse_config(body, origin="test"), COUNTED)
    assert figures["output_tokens_at_most"].value is None


def test_only_a_teacher_on_gpus_has_a_price() -> None:
    job = _job()
    scripted = parse_config(
        {**job.model_dump(mode="json", exclude_unset=True), "teacher": {"kind": "scripted"}}, origin="test"
    )
    figures = estimate(scripted, COUNTED)
    assert figures["gpu_hours"].value is None
    assert "scripted" in figures["gpu_hours"].origin
