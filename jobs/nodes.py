"""What the cluster says of its nodes: which are being drained, and which were taken away on purpose.

Ray says the first only in the state that it gives its autoscaler (``ray.nodes()`` shows a draining node as any other),
and the second in ``ray.nodes()``. A node whose raylet gets SIGTERM is gone at once, with the actors on it. Decides
nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayError

TIMEOUT_S: Final = 1  # of asking the cluster's head
TAKEN: Final = (
    1,
    3,
    4,
)  # Ray's numbers of why a node is gone: stopped by SIGTERM, drained as preempted, drained as idle


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that are being drained; none where Ray does not say, such as to a Ray client."""
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        return set()
    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=TIMEOUT_S)
    except (RayError, RuntimeError, OSError):  # the head is busy or away: who needs it more will say so
        return set()
    nodes = (*status.active_nodes, *status.idle_nodes)
    return {str(node.node_id) for node in nodes if node.node_status == "DRAINING"}


def is_taken(node_ids: Collection[str]) -> bool:
    """Return whether one of these nodes was stopped or drained, in place of having died."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["NodeID"] in node_ids and not node["Alive"] and node.get("DeathReason") in TAKEN for node in nodes)


def free_gpus() -> str:
    """Return in words how many GPUs each node has free, for messages."""
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        return ""
    status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=TIMEOUT_S)
    found = [
        f"{usage.total - usage.used:g} of {usage.total:g} on {node.ip_address}"
        for node in (*status.active_nodes, *status.idle_nodes)
        for usage in (() if node.resource_usage is None else node.resource_usage.usage)
        if usage.resource_name == "GPU"
    ]
    return ", ".join(found)
