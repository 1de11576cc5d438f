"""`factory run` killed with -9 with a Ray of its own, which dies with it; `test_chaos` kills all else, on a cluster."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from factory.store import RunFolder
from jobs.bench.drill import Disk, factory_process, wait_for_no_process, wait_until
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = 20_260_401
# What has to be seen of a start before it is killed, up to a random pause later. All are moments of the same life.
STAGES = ("begun", "begun", "frozen", "generating", "committing")


def _stage(stage: str, path: Path, disk: Disk) -> Callable[[], bool]:
    """Return what becomes true when a start has come that far; looks at the disk alone."""
    folder = RunFolder(path)
    manifest = folder.find_manifest()
    number = 0 if manifest is None else manifest.number
    seen, committed = disk.look(), disk.num_committed

    def is_frozen() -> bool:
        found = folder.find_manifest()
        return found is not None and found.number > number

    def has_committed() -> bool:
        disk.look()
        return disk.num_committed > committed

    return {
        "begun": lambda: True,
        "frozen": is_frozen,
        "generating": lambda: disk.look() > seen,
        "committing": has_committed,
    }[stage]


@pytest.mark.drill  # `test_chaos` kills drivers, too
@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_with_its_ray_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    path = tmp_path / "run"
    disk = Disk(path)
    job = write_job(
        tmp_path,
        num_problems=400,
        teacher={"kind": "scripted", "num_engines": 2, "max_num_seqs": 16, "tokens_per_s": 3000},
        sampling={"num_samples": 4, "max_tokens": 400},
        store={"segment_s": 1, "commit_interval_s": 0.5, "fsync_interval_s": 0.2},
    )
    command = ["run", job, "--run", path]
    marks = []
    with ExitStack() as starts:  # nothing is cleaned up before the end: each start meets the remains of the last
        for stage in chance.sample(STAGES, len(STAGES)):
            marks.append(tmp_path / f"start-{len(marks)}")
            is_there = _stage(stage, path, disk)
            child = starts.enter_context(factory_process(command, marks[-1]))
            wait_until(lambda: child.process.poll() is not None or is_there(), 120, stage)  # noqa: B023  used at once
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(chance.uniform(0, 6 if stage == "begun" else 0.8))
            assert child.process.poll() is None, f"it ended before its kill: {child.said()}"
            child.kill()
            disk.look()
        assert 0 < len(disk.seen) < 1600, "the kills came too early or too late to show anything"
        marks.append(tmp_path / "last")
        last = starts.enter_context(factory_process(command, marks[-1]))
        assert last.wait(600) == 0, last.said()
        for mark in marks:
            # Killed while Ray itself starts, its agents end after a minute or so, of their own accord.
            wait_for_no_process(mark, 180)
    disk.look_at_the_end()
    assert disk.findings.are_none, disk.findings
    assert disk.num_committed == 1600
