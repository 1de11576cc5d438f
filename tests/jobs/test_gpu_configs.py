"""The job files for GPUs, where there is none: resolved, planned and priced, and vLLM knows every option they set."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import yaml

from factory.teachers.vllm import engine_arguments
from jobs.gpus import Demand, demand_of_engine, placed_by_ray
from schemas.config import JobConfig, VllmTeacher, load_config
from schemas.errors import ConfigError
from tests.jobs.test_cli import Ended, factory

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
DEMO = Path(__file__).parents[2] / "jobs" / "demo_teacher" / "weights"  # a model folder that is there
GPUS = {"r1-distill-7b": (8, 1, 8), "r1-distill-32b": (4, 2, 8), "deepseek-r1": (1, 16, 16)}  # engines, of GPUs, total
NUM_PROBLEMS = 25


def _load(name: str) -> tuple[JobConfig, VllmTeacher]:
    job = load_config(CONFIGS / f"{name}.yaml")
    assert isinstance(job.teacher, VllmTeacher)
    return job, job.teacher


@pytest.fixture
def dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a dry run of a shipped job over a few local problems instead of a dataset from the Hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    problems = tmp_path / "problems.jsonl"
    rows = ({"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(NUM_PROBLEMS))
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name: str, *words: str) -> Ended:
        body = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        columns = body["sources"][0]["columns"]
        body["sources"] = [{"kind": "jsonl", "path": str(problems), "columns": columns}]
        job = tmp_path / f"{name}.yaml"
        job.write_text(yaml.safe_dump(body))
        return factory("run", job, "--run", tmp_path / "run", "--dry-run", *words)

    return run


@pytest.mark.parametrize("name", GPUS)
def test_a_dry_run_without_a_network_prices_the_job(name: str, dry: Any, tmp_path: Path) -> None:
    ended = dry(name, "--json", "--set", "teacher.price.gpu_hour_cost=3")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    job, teacher = _load(name)
    figures = {key: figure["value"] for key, figure in body["estimate"].items()}
    assert figures["problems"] == NUM_PROBLEMS
    assert figures["requests"] == NUM_PROBLEMS * job.sampling.num_samples
    assert figures["output_tokens_at_most"] == figures["requests"] * job.sampling.max_tokens
    price = teacher.price
    assert price.mean_tokens is not None
    assert price.tokens_per_s is not None
    assert figures["output_tokens"] == figures["requests"] * price.mean_tokens
    engines, gpus, _ = GPUS[name]
    hours = figures["output_tokens"] / price.tokens_per_s / 3600
    assert figures["gpu_hours"] == pytest.approx(hours * gpus)
    assert figures["wall_clock_hours"] == pytest.approx(hours / engines)
    assert figures["cost"] == pytest.approx(hours * gpus * 3)
    assert figures["stored_bytes"] > 0
    assert all(figure["from"] for figure in body["estimate"].values())
    assert body["fingerprint"] is None  # no tokenizer here, and it says so
    assert teacher.model in body["why_no_tokenizer"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", GPUS)
def test_a_dry_run_in_words_names_every_figure_and_what_it_was_made_of(name: str, dry: Any) -> None:
    ended = dry(name)
    assert ended.code == 0, ended.err
    for word in ("requests", "prompt_tokens", "output_tokens", "gpu_hours", "wall_clock_hours", "stored_bytes"):
        assert word in ended.out
    assert "teacher.price.gpu_hour_cost is" in ended.out  # not stated
    assert "tokenizer" in ended.err


def test_with_the_teachers_tokenizer_at_hand_prompts_are_counted_exactly(dry: Any) -> None:
    ended = dry("r1-distill-7b", "--json", "--set", f"teacher.tokenizer={DEMO}")
    body = json.loads(ended.out)
    assert body["why_no_tokenizer"] is None
    assert "tokenizer" in body["estimate"]["prompt_tokens"]["from"]
    assert body["fingerprint"]


@pytest.mark.parametrize("name", GPUS)
def test_vllm_knows_every_engine_option_that_the_job_sets(name: str) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    _, teacher = _load(name)
    arguments = engine_arguments(teacher.model_copy(update={"model": str(DEMO)}))  # vLLM looks for the folder
    known = {item.name for item in dataclasses.fields(AsyncEngineArgs)}
    assert set(arguments) <= known
    made = AsyncEngineArgs(**arguments)
    assert (made.tensor_parallel_size, made.pipeline_parallel_size) == (
        teacher.engine.tensor_parallel_size,
        teacher.engine.pipeline_parallel_size,
    )


def test_an_option_that_vllm_does_not_know_would_be_seen() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    with pytest.raises(TypeError, match="tensor_parallel"):
        AsyncEngineArgs(**(engine_arguments(_load("r1-distill-7b")[1]) | {"tensor_parallel": 2}))


def test_deepseek_r1_spans_two_nodes_in_fp8_and_drafts_with_its_own_layer() -> None:
    job, teacher = _load("deepseek-r1")
    engine = teacher.engine
    assert (engine.tensor_parallel_size, engine.pipeline_parallel_size, engine.num_gpus) == (8, 2, 16)
    assert engine.quantization == "fp8"
    assert engine_arguments(teacher)["speculative_config"] == {"method": "mtp", "num_speculative_tokens": 1}
    assert engine.max_model_len is not None
    assert engine.max_model_len > job.sampling.max_tokens


@pytest.mark.parametrize("name", GPUS)
def test_the_context_holds_a_whole_completion_and_a_prompt(name: str) -> None:
    job, teacher = _load(name)
    assert teacher.engine.max_model_len is not None
    assert teacher.engine.max_model_len >= job.sampling.max_tokens + 1024
    engines, gpus, total = GPUS[name]
    assert (teacher.num_engines, teacher.engine.num_gpus, math.prod((engines, gpus))) == (engines, gpus, total)


def test_an_engine_larger_than_a_node_is_placed_by_ray_and_others_as_they_ask() -> None:
    teacher = _load("deepseek-r1")[1]
    engine = teacher.engine
    assert demand_of_engine(engine, [8, 8]) == Demand(16, is_group=True, num_per_stage=8)
    alone = engine.model_copy(update={"distributed_executor_backend": None})
    assert demand_of_engine(alone, [8, 8, 0]) == Demand(16, is_group=True, num_per_stage=8)
    assert demand_of_engine(alone, [16, 8]) == Demand(16, is_group=False, num_per_stage=8)
    placed = placed_by_ray(teacher.model_copy(update={"engine": alone}))
    assert placed == teacher


@pytest.mark.parametrize(
    ("gpus", "backend", "words"),
    [
        ([8, 4], "ray", ["are 16 GPUs", "all 2 nodes of this cluster have 12", "start more nodes first"]),
        ([8, 8], "mp", ["are 16 GPUs", "largest node of this cluster has 8", "leave the key out"]),
        ([0, 0], "ray", ["no node of this cluster has a GPU", "leave the key out"]),
    ],
)
def test_what_a_cluster_can_never_give_is_refused_and_says_what_to_do(
    gpus: list[int], backend: str, words: list[str]
) -> None:
    engine = _load("deepseek-r1")[1].engine.model_copy(update={"distributed_executor_backend": backend})
    with pytest.raises(ConfigError) as raised:
        demand_of_engine(engine, gpus)
    assert all(word in str(raised.value) for word in words)


def test_a_cluster_without_gpus_serves_an_engine_of_one_with_vllms_cpu_build() -> None:
    assert demand_of_engine(_load("r1-distill-7b")[1].engine, [0, 0]) == Demand()
