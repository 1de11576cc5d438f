"""How many GPUs an engine takes, and whether this cluster can give them; the driver asks before it starts anything.

An engine is one actor with all its GPUs on one node. What would need more is refused here: Ray would let it wait for
ever. Reserves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ray

from schemas.config import EngineOptions, Teacher, VllmTeacher
from schemas.errors import ConfigError

SEVERAL_NODES: Final = "an engine over several nodes needs a placement group, which this version does not make"


def check_backend(engine: EngineOptions) -> None:
    """Check that an engine starts its workers in a way that the factory can give GPUs to.

    Raises:
        ConfigError: If Ray is to place the workers. They would wait for GPUs that the engine's own actor holds.
    """
    if engine.distributed_executor_backend == "ray":
        raise ConfigError(
            f"teacher.engine.distributed_executor_backend='ray' ({engine.num_gpus} GPUs per engine): {SEVERAL_NODES}; "
            "--dry-run plans such a job. To run it, let tensor_parallel_size x pipeline_parallel_size fit into one "
            "node and leave the key out"
        )


def gpus_of_engine(engine: EngineOptions, gpus_of_nodes: Sequence[float]) -> int:
    """Return how many GPUs an engine reserves, all on one node; 0 on a cluster without any: vLLM's CPU build serves.

    Raises:
        ConfigError: If no node has so many.
    """
    check_backend(engine)
    largest = int(max(gpus_of_nodes, default=0))
    if largest == 0:
        return 0
    if engine.num_gpus > largest:
        raise ConfigError(
            f"teacher.engine: tensor_parallel_size={engine.tensor_parallel_size} x pipeline_parallel_size="
            f"{engine.pipeline_parallel_size} are {engine.num_gpus} GPUs, and the largest node of this cluster has "
            f"{largest}: {SEVERAL_NODES}; lower one of them, or take larger nodes (--dry-run plans such a job)"
        )
    return engine.num_gpus


def gpus_of_teacher(teacher: Teacher) -> int:
    """Return how many GPUs an engine of a teacher reserves in the cluster that this process is connected to.

    Raises:
        ConfigError: As ``gpus_of_engine``.
    """
    if not isinstance(teacher, VllmTeacher):
        return 0
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return gpus_of_engine(teacher.engine, [node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]])
