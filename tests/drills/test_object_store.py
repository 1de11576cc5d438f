"""A run on an object store: killed, resumed through an outage, and equal in the end to one in a local folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from factory.objects import ObjectPath
from factory.storage import AnyPath, find_files, parquet_source
from factory.store import RunFolder
from jobs.bench.drill import Disk, FactoryProcess, factory_process, wait_for_no_process, wait_until
from tests.objectstore import BUCKET, s3_server
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.drill]

OUTAGE_S = 4.0
# What says where and when a sample was made, not what it is.
OF_THE_START = ("engine_id", "submitted_at", "first_token_at", "finished_at", "started_at", "config")


@pytest.mark.timeout(900)
def test_a_run_killed_on_an_object_store_goes_on_and_ends_as_in_a_local_folder(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        num_problems=60,
        teacher={"kind": "scripted", "num_engines": 2, "max_num_seqs": 16, "tokens_per_s": 1500},
        sampling={"num_samples": 4, "max_tokens": 400, "seed": 7},
        store={"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.2},
    )
    local, remote = tmp_path / "run", ObjectPath(BUCKET, "some/where/run")
    with s3_server(tmp_path / "s3.log") as server:
        disk = Disk(remote)
        with factory_process(["run", job, "--run", remote], tmp_path / "killed") as child:
            wait_until(lambda: child.process.poll() is not None or disk.look() >= 80, 120, "some traces")
            assert child.process.poll() is None, child.said()
            child.kill()
            disk.look()
            assert 0 < len(disk.seen) < 240, "the kill came too early or too late to show anything"
        with factory_process(["run", job, "--run", remote], tmp_path / "resumed") as child:
            seen = len(disk.seen)
            wait_until(lambda: child.process.poll() is not None or disk.look() > seen, 120, "more traces")
            assert child.process.poll() is None, child.said()
            with server.paused():
                time.sleep(OUTAGE_S)
            assert child.wait() == 0, child.said()
        disk.look_at_the_end()
        assert disk.findings.are_none, disk.findings
        assert disk.num_committed == 240
        status = _said(["status", remote, "--json"], tmp_path / "status")
        assert status["counts"]["judged"] == 240
        selected = _said(["select", remote, "--set", "select.name=short", "--json"], tmp_path / "select")
        assert selected["accepted"] == status["accepted"]
        remote_digests = _digests(remote)
        assert _said(["doctor", remote, "--json"], tmp_path / "doctor")
    with factory_process(["run", job, "--run", local], tmp_path / "local") as child:
        assert child.wait() == 0, child.said()
    assert _digests(local) == remote_digests
    for name in ("killed", "resumed", "local"):
        wait_for_no_process(tmp_path / name, 180)


def _said(arguments: list[object], mark: Path) -> Any:
    """Return what a command printed as JSON."""
    child = FactoryProcess(arguments, mark)
    assert child.wait(60) == 0, child.said()
    return json.loads(child.out.read_text())


def _digests(path: AnyPath) -> Mapping[str, str]:
    """Return digests of the tables of a run, without what no two runs have in common."""
    found = {}
    for file in find_files(path / "tables" / "default", "*/train-*.parquet"):
        table = pq.read_table(parquet_source(file))
        table = table.drop_columns([name for name in table.column_names if name in OF_THE_START])
        found[f"{file.parent.name}/{file.name}"] = hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()
    found["run"] = str(RunFolder(path).manifest().counts)
    return found
