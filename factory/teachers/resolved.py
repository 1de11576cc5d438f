"""What vLLM made of the settings that a job asked for: read back, and compared, since some are changed without a word.

Read in vLLM 0.32: batch limits fall back where nobody sets them (vllm-project/vllm#37393); one kind of model has its
``max_num_seqs`` set to 8, another, on CPUs, its ``max_num_batched_tokens`` set anew; a platform turns to
``enforce_eager``; a type of the cache becomes ``auto``. Knows vLLM's names, and does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas.errors import TeacherError

# Not here: ``quantization``, since vLLM itself refuses what the model's files are not, and else names the kernel that
# it takes (``auto_awq`` for ``awq``); ``cpu_kvcache_gib``, which builds for GPUs do not read.
COMPARED: Final = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "dtype",
    "kv_cache_dtype",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "enable_expert_parallel",
    "distributed_executor_backend",
    "speculation",
    "gpu_memory_utilization",
    "enforce_eager",
    "watermark",
    "trust_remote_code",
    "seed",
)
LEFT_TO_VLLM: Final = (None, "auto")
SYNONYMS: Final = {"half": "float16", "float": "float32", "fp8": "fp8_e4m3"}


def read_settings(config: Any) -> dict[str, Any]:
    """Return the settings of a ``VllmConfig``, by the names of ``EngineOptions`` where it has them; JSON values."""
    model, cache, parallel, scheduler = (
        getattr(config, f"{part}_config") for part in ("model", "cache", "parallel", "scheduler")
    )
    return {
        "max_model_len": model.max_model_len,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization,
        "kv_cache_dtype": str(cache.cache_dtype),
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "pipeline_parallel_size": parallel.pipeline_parallel_size,
        "enable_expert_parallel": parallel.enable_expert_parallel,
        "distributed_executor_backend": str(parallel.distributed_executor_backend),
        "speculation": _speculation(config.speculative_config),
        "gpu_memory_utilization": cache.gpu_memory_utilization,
        "enforce_eager": model.enforce_eager,
        "watermark": scheduler.watermark,
        "trust_remote_code": model.trust_remote_code,
        "seed": model.seed,
        "num_gpu_blocks": cache.num_gpu_blocks,
        "block_size": cache.block_size,
        "enable_prefix_caching": cache.enable_prefix_caching,
        "enable_chunked_prefill": scheduler.enable_chunked_prefill,
        "async_scheduling": scheduler.async_scheduling,
        "use_v2_model_runner": config.use_v2_model_runner,  # the first version is slow with a seed for each attempt
    }


def check_resolved(wanted: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Compare the options of a job, and the engine's seed, with what ``read_settings`` gave.

    Raises:
        TeacherError: If vLLM took another value, or says nothing of its KV cache, which caps what is in flight.
    """
    found = []
    for name in COMPARED:
        asked, got = wanted[name], resolved[name]
        if asked not in LEFT_TO_VLLM and not _is_same(asked, got, resolved):
            found.append(f"{_key(name)}={asked} was asked for, vLLM resolved it to {got}")
    if not resolved["num_gpu_blocks"] or not resolved["block_size"]:
        size = f"num_gpu_blocks={resolved['num_gpu_blocks']}, block_size={resolved['block_size']}"
        found.append(f"vLLM does not say how much its KV cache holds ({size})")
    if found:
        raise TeacherError("; ".join(found))


def _key(name: str) -> str:
    return "the engine's seed" if name == "seed" else f"teacher.engine.{name}"


def _is_same(asked: Any, got: Any, resolved: Mapping[str, Any]) -> bool:
    if not isinstance(asked, str):
        return bool(asked == got)
    if got == "auto":  # a cache in the model's own type, asked for by its name
        got = resolved["dtype"]
    return bool(SYNONYMS.get(asked, asked) == SYNONYMS.get(got, got))


def _speculation(config: Any) -> dict[str, Any] | None:
    """Return what vLLM made of the speculation that was asked for."""
    return None if config is None else {"method": config.method, "num_tokens": config.num_speculative_tokens}
