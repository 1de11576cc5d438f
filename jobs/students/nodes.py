"""Train over the nodes of a Ray cluster: one task per node, each of which starts accelerate's processes there.

What `factory sft --submit` runs on the cluster. OUT lies on storage that all nodes see; data, base and guards were done
before, once. The first node that fails takes the others along, so that none waits for it for ever.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobs.students.launching import check_ended, launch_command, run
from jobs.students.recipe import Recipe
from schemas.errors import ConfigError

START_TIMEOUT_S: Final = 600.0  # for the GPUs of a cluster that scales (guess)


def launch_on_nodes(recipe: Recipe, out: Path, _lock: int) -> None:
    """Train on the nodes of the cluster that this process belongs to, whose tasks end with it; the lock stays here.

    Raises:
        ConfigError: If the cluster does not give the GPUs in time.
        FactoryError: If training broke off on a node.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    launch = recipe.launch
    each = min(launch.processes, launch.per_node)
    bundle = {"CPU": float(each)} if launch.kind == "cpu" else {"CPU": 1.0, "GPU": float(each)}
    ray.init(address="auto", ignore_reinit_error=True, log_to_driver=True)
    group = placement_group([bundle] * launch.nodes, strategy="STRICT_SPREAD" if launch.nodes > 1 else "PACK")
    try:
        if not group.wait(START_TIMEOUT_S):
            raise ConfigError(
                f"the cluster has not had {launch.nodes} nodes with {bundle} free for {START_TIMEOUT_S:.0f} s; free: "
                f"{ray.available_resources()}"  # type: ignore[no-untyped-call]
            )

        def there(index: int) -> PlacementGroupSchedulingStrategy:
            return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)

        needs = {"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0.0), "max_retries": 0}
        head = ray.get(ray.remote(_address).options(num_cpus=0.0, scheduling_strategy=there(0)).remote())
        commands = [launch_command(recipe, out, rank=rank, head=head) for rank in range(launch.nodes)]
        waiting = [
            ray.remote(_run).options(**needs, scheduling_strategy=there(rank)).remote(command)
            for rank, command in enumerate(commands)
        ]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            check_ended(ray.get(done[0]), out)
    finally:
        remove_placement_group(group)


def submit_training(
    words: Sequence[str], files: Sequence[Path], address: str, name: str, out: Path, env_names: Sequence[str] = ()
) -> int:
    """Submit a `factory` command as a Ray job, follow its log, and return its exit code."""
    from jobs import show
    from jobs.submit import Submission, connect, follow, submit

    asked = Submission(
        name=name,
        words=[*words, "--out", str(out)],
        files=files,
        run_path=out,
        address=address,
        env_names=env_names,
    )
    client = connect(address)
    return follow(client, submit(client, asked, show.message), asked, show.log)


def _address() -> str:
    import ray

    # the one that other nodes reach; a host may name itself 127.0.1.1
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _run(command: Sequence[str]) -> int:
    """Run a command that ends when the worker that started it does."""
    sys.stderr.write(f"{socket.gethostname()}: {shlex.join(command)}\n")
    return run(command)
