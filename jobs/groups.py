"""Placement groups: the GPUs of one engine, one bundle each, on as few nodes as can be.

One group per incarnation of an engine, made before its actor and removed after it, however it ends; the name says whose
it is. Ray removes the groups of a driver that has died, after a while; a start does not rely on that, and sweeps what
former starts of its run left. Groups of other runs are never touched. vLLM takes the group of the actor that it runs
in, wants one GPU per bundle, and gives ranks to bundles in the order that it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from factory.storage import AnyPath
from schemas.problem import digest

PREFIX: Final = "factory"


@dataclass(frozen=True, slots=True)
class Group:
    """The placement group of one engine; not yet placed when it is made."""

    handle: PlacementGroup

    def nodes(self) -> tuple[str, ...]:
        """Return the node of each bundle; nothing while one has none, also again after a node has died."""
        entry: dict[str, Any] = placement_group_table(self.handle)
        by_bundle: dict[int, str] = entry.get("bundles_to_node_id", {}) if entry.get("state") == "CREATED" else {}
        return tuple(by_bundle[bundle] for bundle in sorted(by_bundle))

    def remove(self) -> None:
        """Give the GPUs back; whatever still runs on them is killed by Ray."""
        remove_placement_group(self.handle)


def prefix_of(run: AnyPath) -> str:
    """Return what the names of all groups of a run begin with."""
    return f"{PREFIX}/{digest(['run', str(run)])[:12]}/"


def make_group(run: AnyPath, engine_id: str, num_gpus: int) -> Group:
    """Ask the cluster for an engine's GPUs; returns at once."""
    bundles = [{"GPU": 1.0}] * num_gpus
    return Group(placement_group(bundles, strategy="PACK", name=prefix_of(run) + engine_id))


def sweep(run: AnyPath) -> int:
    """Remove all groups that there are of a run, before it makes any itself; return how many there were."""
    table: dict[str, dict[str, Any]] = placement_group_table()
    strays = [
        group_id
        for group_id, entry in table.items()
        if entry["name"].startswith(prefix_of(run)) and entry["state"] != "REMOVED"
    ]
    for group_id in strays:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group_id)))
    return len(strays)


def bundles_by_rank(nodes: Sequence[str], num_per_stage: int) -> tuple[int, ...]:
    """Return the bundles in the order of ranks: first the stages that lie whole on a node, then what is left over."""
    by_node: dict[str, list[int]] = {}
    for bundle, node in enumerate(nodes):
        by_node.setdefault(node, []).append(bundle)
    whole: list[int] = []
    rest: list[int] = []
    for bundles in by_node.values():
        end = len(bundles) - len(bundles) % num_per_stage
        whole += bundles[:end]
        rest += bundles[end:]
    return (*whole, *rest)


def num_split_stages(nodes: Sequence[str], num_per_stage: int) -> int:
    """Return how many stages of an engine lie on several nodes, in the order of ``bundles_by_rank``."""
    ranks = bundles_by_rank(nodes, num_per_stage)
    stages = [ranks[begin : begin + num_per_stage] for begin in range(0, len(ranks), num_per_stage)]
    return sum(len({nodes[bundle] for bundle in stage}) > 1 for stage in stages)
