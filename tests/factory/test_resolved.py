"""What an engine resolved its settings to, against what a job asked for: no difference is missed, none is made up."""

from __future__ import annotations

from typing import Any

import pytest

from factory.teachers.resolved import COMPARED, check_resolved
from schemas.config import EngineOptions, Speculation
from schemas.errors import TeacherError

OPTIONS = EngineOptions(
    max_model_len=4_096,
    dtype="bfloat16",
    kv_cache_dtype="fp8",
    tensor_parallel_size=2,
    distributed_executor_backend="mp",
    speculation=Speculation(method="mtp", num_tokens=1),
)
WANTED = OPTIONS.model_dump() | {"seed": 7}
RESOLVED = {name: WANTED[name] for name in COMPARED} | {"num_gpu_blocks": 100, "block_size": 16}
OTHER: dict[str, Any] = {
    "max_model_len": 2_048,
    "max_num_seqs": 128,
    "max_num_batched_tokens": 2_048,
    "dtype": "float16",
    "kv_cache_dtype": "auto",
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 2,
    "enable_expert_parallel": True,
    "distributed_executor_backend": "ray",
    "speculation": None,
    "gpu_memory_utilization": 0.92,
    "enforce_eager": True,
    "watermark": 0.0,
    "trust_remote_code": True,
    "seed": 0,
}


def test_every_option_is_compared_but_those_that_say_why_not() -> None:
    assert set(EngineOptions.model_fields) - set(COMPARED) == {"quantization", "cpu_kvcache_gib"}
    check_resolved(WANTED, RESOLVED)


@pytest.mark.parametrize("name", COMPARED)
def test_a_setting_that_became_another_one_is_an_error_that_names_both(name: str) -> None:
    with pytest.raises(TeacherError) as caught:
        check_resolved(WANTED, RESOLVED | {name: OTHER[name]})
    said = str(caught.value)
    assert said.endswith(f"={WANTED[name]} was asked for, vLLM resolved it to {OTHER[name]}")
    assert said.startswith("the engine's seed=7" if name == "seed" else f"teacher.engine.{name}=")


def test_all_differences_are_said_at_once() -> None:
    with pytest.raises(TeacherError, match=r"max_num_seqs=256 .* 128; teacher.engine.watermark=0.02 .* 0.0$"):
        check_resolved(WANTED, RESOLVED | {"max_num_seqs": 128, "watermark": 0.0})


@pytest.mark.parametrize(
    ("name", "asked", "got"),
    [
        ("max_model_len", None, 131_072),
        ("dtype", "auto", "float16"),
        ("dtype", "half", "float16"),
        ("kv_cache_dtype", "auto", "fp8_e4m3"),
        ("kv_cache_dtype", "fp8", "fp8_e4m3"),
        ("kv_cache_dtype", "bfloat16", "auto"),  # the model's own type
        ("distributed_executor_backend", None, "uni"),
    ],
)
def test_what_was_left_to_vllm_or_has_two_names_is_no_difference(name: str, asked: object, got: object) -> None:
    check_resolved(WANTED | {name: asked}, RESOLVED | {name: got})


@pytest.mark.parametrize("unknown", [{"num_gpu_blocks": None}, {"num_gpu_blocks": 0}, {"block_size": None}])
def test_an_engine_that_does_not_say_what_its_cache_holds_is_refused(unknown: dict[str, int | None]) -> None:
    with pytest.raises(TeacherError, match="does not say how much its KV cache holds"):
        check_resolved(WANTED, RESOLVED | unknown)
