"""Several jobs over one set of engines: the next fills what the first leaves, and each run is as if it were alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from factory.plan import make_plan
from factory.store import RunFolder
from jobs.bench.drill import (
    Disk,
    FactoryProcess,
    committed_traces,
    factory_process,
    processes_of,
    wait_for_no_process,
    wait_until,
)
from schemas.config import load_config
from schemas.trace import Trace
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TEACHER = {"kind": "scripted", "max_num_seqs": 8, "tokens_per_s": 4000, "mean_tokens": 100}


def _job(folder: Path, name: str, num_problems: int, max_tokens: int = 800, **teacher: object) -> Path:
    (folder / name).mkdir()
    return write_job(
        folder / name,
        num_problems=num_problems,
        name=name,
        teacher=TEACHER | teacher,
        sampling={"num_samples": 2, "max_tokens": max_tokens},
        store={"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.2},
    )


def _command(jobs: Sequence[Path]) -> list[Any]:
    return ["run", *jobs, *(word for job in jobs for word in ("--run", job.parent / "run")), "--json"]


def _traces_by_status(child: FactoryProcess, jobs: Sequence[Path], num_problems: Sequence[int]) -> list[list[Trace]]:
    """Check that these runs are complete, each with its own fingerprint and its tables; return their traces."""
    said = [json.loads(line) for line in child.out.read_text().splitlines()]
    for status, job, number in zip(said, jobs, num_problems, strict=True):
        folder = RunFolder(job.parent / "run")
        assert status["path"] == str(job.parent / "run")
        assert status["counts"]["judged"] == status["counts"]["requested"] == 2 * number
        assert status["accepted"]
        assert folder.manifest().fingerprint == make_plan(load_config(job), {}).fingerprint
        assert not folder.leftover_segments()
    return [committed_traces(job.parent / "run") for job in jobs]


def test_the_next_job_fills_the_tail_of_the_first_and_a_job_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    names = ("first", "broken", "nothing", "last")
    # The broken one fails as its first attempt ends: after 0.6 s.
    tokens = {name: 20 if name == "broken" else 700 + 10 * len(name) for name in names}
    numbers = {"first": 12, "last": 8}  # so slow that the first one's last eight go on for seconds
    jobs = [_job(tmp_path, name, numbers.get(name, 24), tokens[name], tokens_per_s=250) for name in names]
    (tmp_path / "nothing" / "problems.jsonl").unlink()
    broken = tmp_path / "broken" / "run" / "journal"
    is_frozen = RunFolder(broken.parent).find_manifest
    with factory_process(_command(jobs), tmp_path / "child") as child:
        wait_until(lambda: is_frozen() or child.process.poll() is not None, 120, "the broken one is frozen")
        broken.rmdir()  # before its first attempt: Ray is not even started
        broken.write_text("no folder: nothing can be journaled here")
        assert child.wait() == 1, child.said()
        wait_for_no_process(child.mark)
    first, last = _traces_by_status(child, [jobs[0], jobs[-1]], (12, 8))
    assert f"broken: {broken.parent}: the journal cannot be written" in child.said()
    assert "nothing: sources.0.path" in child.said()
    assert "Traceback" not in child.said()
    assert min(trace.submitted_at_us for trace in last) < max(trace.finished_at_us for trace in first)
    assert min(trace.submitted_at_us for trace in last) >= max(trace.submitted_at_us for trace in first)
    assert {trace.engine_id for trace in (*first, *last)} == {"engine-0-e1-1"}


def test_jobs_that_are_killed_together_go_on_in_another_order_and_every_attempt_is_there_once(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, "first", 30, dies_after=90), _job(tmp_path, "second", 60, dies_after=90)]
    disks = [Disk(job.parent / "run") for job in jobs]
    with factory_process(_command(jobs), tmp_path / "killed") as child:
        wait_until(lambda: disks[1].look() > 10 or child.process.poll() is not None, 120, "both are in the journal")
        assert child.process.poll() is None, child.said()
        child.kill()
    seen = [disk.look() for disk in disks]
    assert 0 < seen[0] <= 60
    assert 0 < seen[1] < 120, "the kill came too late to show anything"
    with factory_process(_command(jobs[::-1]), tmp_path / "again") as child:
        wait_until(lambda: disks[1].look() > seen[1] or child.process.poll() is not None, 120, "it goes on")
        for pid, line in processes_of(child.mark).items():
            if line.startswith("ray::CoordinatorActor"):
                os.kill(pid, signal.SIGKILL)
        assert child.wait() == 0, child.said()
        wait_for_no_process(child.mark)
    _traces_by_status(child, jobs[::-1], (60, 30))
    for disk, count in zip(disks, (60, 120), strict=True):
        disk.look_at_the_end()
        assert disk.findings.are_none, disk.findings
        assert disk.num_committed == count


def test_jobs_that_cannot_share_are_refused_before_anything_starts(tmp_path: Path) -> None:
    first, other = _job(tmp_path, "first", 2), _job(tmp_path, "second", 2, max_num_seqs=9)
    run = tmp_path / "run"
    for words, why in (
        (["run", first, other], "teacher.max_num_seqs: first has 8, second has 9"),
        (["run", first, first, "--run", run, "--run", run], "jobs 1 and 2 have one run folder"),
        (["run", first, first, "--run", run], "--run is given 1 times for 2 jobs"),
    ):
        with factory_process(words, tmp_path / "child", folder=tmp_path) as child:
            assert child.wait() == 2, child.said()
        assert why in " ".join(child.said().split())
    assert not run.exists()
    assert not (tmp_path / "runs").exists()
