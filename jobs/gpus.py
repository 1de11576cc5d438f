"""How many GPUs an engine takes, and whether this cluster can give them; the driver asks before it starts anything.

Where they fit into one node, they are the actor's own, and vLLM starts its workers there by itself. Where they do not,
or Ray is to place the workers, they are a placement group's (``jobs/groups.py``). What the cluster can never give is
refused here: Ray would let it wait for ever. Reserves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from schemas.config import EngineOptions, ScriptedTeacher, Teacher, VllmTeacher
from schemas.errors import ConfigError


class Demand(NamedTuple):
    """What one engine reserves."""

    num_gpus: int = 0
    is_group: bool = False  # one by one, on as few nodes as can be; else all of them with the actor
    num_per_stage: int = 1  # GPUs in order that should lie on one node: tensor parallel ones talk at every layer


def demand_of_engine(engine: EngineOptions, gpus_of_nodes: Sequence[float]) -> Demand:
    """Return what a vLLM engine reserves; nothing on a cluster without any GPU: vLLM's CPU build serves.

    Raises:
        ConfigError: If the cluster has not so many, or the engine may not be spread over its nodes.
    """
    largest, total = int(max(gpus_of_nodes, default=0)), sum(map(int, gpus_of_nodes))
    asked = (
        f"tensor_parallel_size={engine.tensor_parallel_size} x pipeline_parallel_size={engine.pipeline_parallel_size} "
        f"are {engine.num_gpus} GPUs"
    )
    if largest == 0:
        if engine.distributed_executor_backend == "ray":
            raise ConfigError(
                "teacher.engine.distributed_executor_backend='ray': no node of this cluster has a GPU, and vLLM's CPU "
                "build cannot be placed by Ray; leave the key out for processes on one machine (--dry-run plans such "
                "a job)"
            )
        return Demand()
    if engine.num_gpus > total:
        raise ConfigError(
            f"teacher.engine: {asked}, and all {len(gpus_of_nodes)} nodes of this cluster have {total}: lower one of "
            "them, or start more nodes first (--dry-run plans such a job)"
        )
    if engine.num_gpus > largest and engine.distributed_executor_backend == "mp":
        raise ConfigError(
            f"teacher.engine: {asked}, the largest node of this cluster has {largest}, and "
            "distributed_executor_backend='mp' stays on one node: leave the key out, or give 'ray'"
        )
    is_group = engine.distributed_executor_backend == "ray" or engine.num_gpus > largest
    return Demand(engine.num_gpus, is_group, engine.tensor_parallel_size)


def demand_of_teacher(teacher: Teacher) -> Demand:
    """Return what an engine of a teacher reserves in the cluster that this process is connected to.

    Raises:
        ConfigError: As ``demand_of_engine``.
    """
    if isinstance(teacher, ScriptedTeacher) and teacher.num_gpus:
        total = sum(map(int, _gpus_of_nodes()))
        if teacher.num_gpus > total:
            raise ConfigError(f"teacher.num_gpus={teacher.num_gpus}: all nodes of this cluster have {total}")
        return Demand(teacher.num_gpus, is_group=True)
    return demand_of_engine(teacher.engine, _gpus_of_nodes()) if isinstance(teacher, VllmTeacher) else Demand()


def placed_by_ray(teacher: Teacher) -> Teacher:
    """Return the teacher as an engine in a placement group needs it: vLLM alone would look for GPUs on one node."""
    if not isinstance(teacher, VllmTeacher):
        return teacher
    engine = teacher.engine.model_copy(update={"distributed_executor_backend": "ray"})
    return teacher.model_copy(update={"engine": engine})


def _gpus_of_nodes() -> list[float]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]]
