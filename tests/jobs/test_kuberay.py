"""The RayJob manifest: KubeRay knows its fields, and what it runs is what this project has."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from jobs.cli import app
from schemas.config import VllmTeacher, load_config

ROOT = Path(__file__).parents[2]
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "jobs" / "kuberay" / "rayjob.yaml").read_text())
SCHEMA = json.loads((ROOT / "tests" / "data" / "kuberay_rayjob.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CLUSTER = MANIFEST["spec"]["rayClusterSpec"]
HEAD = CLUSTER["headGroupSpec"]["template"]["spec"]
(WORKER,) = (group["template"]["spec"] for group in CLUSTER["workerGroupSpecs"])


def test_the_manifest_has_only_fields_that_kuberay_documents() -> None:
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(MANIFEST)


def _worker(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]


SPOILED: dict[str, Callable[[dict[str, Any]], object]] = {
    "misspelt field": lambda m: m["spec"].update(entryPoint="x"),
    "no entrypoint": lambda m: m["spec"].pop("entrypoint"),
    "old API": lambda m: m.update(apiVersion="ray.io/v1alpha1"),
    "a number where ray start wants text": lambda m: m["spec"]["rayClusterSpec"]["headGroupSpec"].update(
        rayStartParams={"num-cpus": 0}
    ),
    "time to live of a cluster that stays": lambda m: m["spec"].update(shutdownAfterJobFinishes=False),
    "unknown submission mode": lambda m: m["spec"].update(submissionMode="ssh"),
    "container without image": lambda m: _worker(m).pop("image"),
    "GPUs as words": lambda m: _worker(m)["resources"]["limits"].update({"nvidia.com/gpu": "eight"}),
    "bad name": lambda m: m["metadata"].update(name="Factory_1"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_manifest_is_seen(spoil: Callable[[dict[str, Any]], object]) -> None:
    manifest = copy.deepcopy(MANIFEST)
    spoil(manifest)
    assert not VALIDATOR.is_valid(manifest)


def test_its_entrypoint_is_a_command_that_parses_on_a_job_that_ships() -> None:
    words = shlex.split(MANIFEST["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "jobs", "run"]
    typer.main.get_command(app).commands["run"].make_context("run", words[4:])
    mounts = {mount["name"]: mount["mountPath"] for mount in HEAD["containers"][0]["volumeMounts"]}
    job_file = ROOT / "jobs" / "configs" / Path(words[4]).relative_to(mounts["jobs"])
    job = load_config(job_file)
    assert words[words.index("--run") + 1] == f"{mounts['runs']}/{job.name}"
    assert MANIFEST["metadata"]["name"] == f"factory-{job.name}"
    assert isinstance(job.teacher, VllmTeacher)
    gpus = job.teacher.num_engines * job.teacher.engine.num_gpus
    assert WORKER["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == gpus


def test_every_mount_has_its_volume_and_the_run_lies_on_all_pods_at_the_same_place() -> None:
    for pod in (HEAD, WORKER):
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    paths = [
        {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "runs"}
        for pod in (HEAD, WORKER)
    ]
    assert paths == [{"/runs"}, {"/runs"}]


def test_it_asks_for_the_ray_that_the_project_is_tested_with_and_for_a_token() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert CLUSTER["rayVersion"] == pinned[1]
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert HEAD["containers"][0]["image"] == WORKER["containers"][0]["image"]
