"""Engines over several nodes of a cluster, whose GPUs are made up, and nodes that die or are taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from factory.journal import scan_segment
from factory.store import RunFolder
from jobs.bench.chaos import RAY_CONFIG
from jobs.bench.drill import (
    MARK,
    FactoryProcess,
    committed_traces,
    factory_process,
    parent_of,
    processes_of,
    wait_for_no_process,
    wait_until,
)
from jobs.groups import prefix_of
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SHIM = Path(__file__).parent / "vllm_on_ray"
DEMO = Path(__file__).parents[2] / "jobs" / "configs" / "demo.yaml"
NUM_PROBLEMS = 12
NODE = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}


class Nodes:
    """A cluster of nodes with one made-up GPU each, beside a head without."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": RAY_CONFIG})
        self.address = str(self.cluster.address)
        self.add(2)
        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")

    def add(self, number: int = 1) -> None:
        for _ in range(number):
            self.cluster.add_node(**NODE, num_gpus=1)

    def raylet(self, node_id: str) -> int:
        return next(
            node.all_processes["raylet"][0].process.pid for node in self.cluster.worker_nodes if node.node_id == node_id
        )

    def drain(self, node_id: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address]
        command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        subprocess.run([*command, "--deadline-remaining-seconds", "30"], check=True, timeout=60, capture_output=True)

    def groups(self, run: Path | None = None) -> dict[str, dict[str, Any]]:
        """Return the groups that there are, or those of a run, by name."""
        table = placement_group_table().values()
        there = {entry["name"]: entry for entry in table if entry["state"] != "REMOVED"}
        return {name: entry for name, entry in there.items() if run is None or name.startswith(prefix_of(run))}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Yield a cluster with two GPUs."""
    mark = tmp_path_factory.mktemp("nodes") / "mark"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, str(mark))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SHIM), os.environ.get("PYTHONPATH")])))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Nodes()
        try:
            yield found
        finally:
            ray.shutdown()
            found.cluster.shutdown()
    wait_for_no_process(mark)


def _job(folder: Path, **teacher: object) -> Path:
    return write_job(
        folder,
        num_problems=NUM_PROBLEMS,
        teacher={
            "kind": "scripted",
            "num_gpus": 2,
            "max_num_seqs": 4,
            "max_model_len": 40_000,
            "mean_tokens": 8000,
            "tokens_per_s": 250,  # no attempt ends while nodes come and go, however long that takes
            **teacher,
        },
        sampling={"num_samples": 1, "max_tokens": 30_000, "seed": 7},
        schedule={"max_engine_restarts": 1, "max_deaths_per_attempt": 3},
        store={"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.1, "partial_tokens": 50},
    )


def _num_saved(path: Path, engine_id: str) -> int:
    """Return how many pieces of attempts an engine has in the journal."""
    total = 0
    for segment in RunFolder(path).leftover_segments():
        if segment.name.startswith(f"{engine_id}-"):
            try:
                total += len(scan_segment(segment).pieces)
            except FileNotFoundError:  # committed since the listing
                continue
    return total


def _next_engine(nodes: Nodes, path: Path, child: FactoryProcess, former: str = "") -> tuple[str, list[str]]:
    """Return name and nodes of an engine that is no former one and has saved something, its actor's node first."""

    def found() -> list[tuple[str, dict[int, str]]]:
        entries = nodes.groups(path).items()
        placed = [(name, entry["bundles_to_node_id"]) for name, entry in entries if entry["state"] == "CREATED"]
        return [
            (name, places)
            for name, places in placed
            if name != former and _num_saved(path, name.rpartition("/")[2]) > 8
        ]

    wait_until(lambda: child.process.poll() is not None or found(), 300, "an engine that works")
    assert child.process.poll() is None, child.said()
    ((name, places),) = found()
    assert nodes.groups(path)[name]["bundles"] == {0: {"GPU": 1.0}, 1: {"GPU": 1.0}}
    assert nodes.groups(path)[name]["strategy"] == "PACK"
    actors = [pid for pid, line in processes_of(Path(os.environ[MARK])).items() if line.startswith("ray::EngineActor")]
    homes = {parent_of(pid) for pid in actors}
    return name, sorted(places.values(), key=lambda node_id: nodes.raylet(node_id) not in homes)


def test_an_engine_over_two_nodes_loses_them_in_every_way_and_its_groups_come_and_go(
    nodes: Nodes, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    command = ["run", _job(tmp_path), "--run", path, "--address", nodes.address]
    with factory_process(command, tmp_path / "first") as child:
        name, (home, other) = _next_engine(nodes, path, child)
        assert home != other
        nodes.add()
        nodes.drain(home)
        name, (home, other) = _next_engine(nodes, path, child, name)
        assert "is taken away; its attempts go on elsewhere" in child.said()
        nodes.add()
        os.kill(nodes.raylet(other), signal.SIGKILL)  # not where the actor is
        name, (home, other) = _next_engine(nodes, path, child, name)
        assert "died (a node of it died), restarted" in child.said()
        nodes.add()
        os.kill(nodes.raylet(home), signal.SIGTERM)
        name, _ = _next_engine(nodes, path, child, name)
        assert child.said().count("engine 0 died") == 1, child.said()
        wait_until(lambda: list(nodes.groups(path)) == [name], 60, "the groups before are gone")
        child.kill()
    # What Ray itself would leave for ever, and what is another run's.
    stray, foreign = f"{prefix_of(path)}engine-0-e1-9", f"{prefix_of(tmp_path / 'other')}engine-0-e1-1"
    others = [placement_group([{"CPU": 0.1}], name=each, lifetime="detached") for each in (stray, foreign)]
    ray.get([group.ready() for group in others], timeout=60)
    _job(tmp_path, tokens_per_s=10_000_000)
    with factory_process(command, tmp_path / "again") as again:
        assert again.wait() == 0, again.said()
        assert "placement groups that a former start of this run left are removed" in again.said()
    wait_until(lambda: list(nodes.groups()) == [foreign], 120, "all groups but that of another run are gone")
    remove_placement_group(others[1])
    traces = committed_traces(path)
    assert set(Counter((trace.problem_id, trace.sample_index) for trace in traces).values()) == {1}
    assert len(traces) == NUM_PROBLEMS
    assert max(len(trace.resumed_at) for trace in traces) >= 2


def test_a_cluster_that_cannot_give_the_gpus_is_told_of_in_time(nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = ["run", _job(tmp_path, num_gpus=9), "--run", path, "--address", nodes.address]
    with factory_process(command, tmp_path / "never") as never:
        assert never.wait() == 2, never.said()
    assert "teacher.num_gpus=9: all nodes of this cluster have" in never.said()
    total = int(ray.cluster_resources()["GPU"])
    taken = placement_group([{"GPU": 1}] * (total - 1), name="somebody else's")
    ray.get(taken.ready(), timeout=60)
    command = ["run", _job(tmp_path, start_timeout_s=3), "--run", path, "--address", nodes.address]
    with factory_process(command, tmp_path / "busy") as busy:
        assert busy.wait() == 1, busy.said()
    assert "the cluster gave engine 0 no 2 GPUs in 3 s (teacher.start_timeout_s); free are" in busy.said()
    assert "0 of 1 on" in busy.said()
    wait_until(partial(_has_only, nodes, "somebody else's"), 120, "the group that waited is gone")
    remove_placement_group(taken)


@pytest.mark.drill
@pytest.mark.vllm
def test_vllms_own_ray_executor_runs_over_two_nodes_in_the_group_that_the_factory_makes(
    nodes: Nodes, tmp_path: Path
) -> None:
    path, mark = tmp_path / "run", Path(os.environ[MARK])
    settings = ["schedule.max_problems=6", "sampling.max_tokens=64", "teacher.engine.max_num_seqs=8"]
    settings += ["teacher.engine.tensor_parallel_size=2", "teacher.engine.distributed_executor_backend=ray"]
    arguments = ["run", DEMO, "--run", path, "--address", nodes.address]
    arguments += [part for setting in settings for part in ("--set", setting)]
    with factory_process(arguments, tmp_path / "child") as child:
        assert child.wait(500) == 0, child.said()
    counts = RunFolder(path).manifest().counts
    assert counts.requested == counts.judged > 0
    (log,) = (path / "logs").glob("engine-*.log")
    assert "Using the existing placement group" in log.read_text(errors="replace")
    assert "1 tensor parallel stages lie on several nodes" in child.said()
    wait_until(lambda: not nodes.groups(path), 30, "the group is gone")
    left = ("EngineCore", "RayWorkerProc", "EngineActor")
    wait_until(lambda: not any(word in line for line in processes_of(mark).values() for word in left), 30, "all ended")


def _has_only(nodes: Nodes, name: str) -> bool:
    return list(nodes.groups()) == [name]
