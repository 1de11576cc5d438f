"""`factory run` killed with -9 at ten moments of its life, started again each time: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from factory.store import RunFolder
from schemas.trace import Trace
from tests.runs import (
    FactoryProcess,
    Key,
    committed_traces,
    factory_process,
    traces_on_disk,
    wait_for_no_process,
    wait_until,
    write_job,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_PROBLEMS = 500
NUM_SAMPLES = 4
SEED = 20_260_401
# What has to be seen of a start before it is killed, up to a random pause later. All ten are moments of the same life.
STAGES = (
    "begun",
    "begun",
    "frozen",
    "generating",
    "generating",
    "generating",
    "judging",
    "judging",
    "committing",
    "committing",
)


def _journal_bytes(path: Path) -> int:
    total = 0
    for segment in RunFolder(path).leftover_segments():
        try:
            total += segment.stat().st_size
        except FileNotFoundError:  # committed since the listing
            continue
    return total


def _stage(stage: str, path: Path) -> Callable[[], bool]:
    """Return what becomes true when a start has come that far; looks at the disk alone."""
    folder = RunFolder(path)
    manifest = folder.find_manifest()
    number = 0 if manifest is None else manifest.number
    engines = len(list(folder.logs.glob("engine-*.log")))
    written = _journal_bytes(path)

    def is_frozen() -> bool:
        found = folder.find_manifest()
        return found is not None and found.number > number

    def has_committed() -> bool:
        found = folder.find_manifest()
        return found is not None and found.number > number and found.note == "committed"

    return {
        "begun": lambda: True,
        "frozen": is_frozen,
        "generating": lambda: len(list(folder.logs.glob("engine-*.log"))) > engines and _journal_bytes(path) > written,
        "judging": lambda: _journal_bytes(path) > written + 60_000,
        "committing": has_committed,
    }[stage]


def _has_ended_or(child: FactoryProcess, is_there: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: child.process.poll() is not None or is_there()


def _check_kept(seen: dict[Key, Trace], now: dict[Key, Trace]) -> None:
    lost = seen.keys() - now.keys()
    assert not lost, f"{len(lost)} traces that were on disk are gone"
    changed = [key for key, trace in seen.items() if now[key] != trace]
    assert not changed, f"{len(changed)} traces were replaced, such as {seen[changed[0]]} by {now[changed[0]]}"


@pytest.mark.timeout(900)
def test_a_run_killed_at_ten_moments_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    path = tmp_path / "run"
    job = write_job(
        tmp_path,
        num_problems=NUM_PROBLEMS,
        teacher={"kind": "scripted", "num_engines": 2, "max_num_seqs": 16, "tokens_per_s": 3000},
        sampling={"num_samples": NUM_SAMPLES, "max_tokens": 400},
        store={"segment_s": 1, "commit_interval_s": 0.5, "fsync_interval_s": 0.2},
    )
    command = ["run", job, "--run", path]
    stages = chance.sample(STAGES, len(STAGES))
    seen: dict[Key, Trace] = {}
    kept_after: list[tuple[str, int]] = []
    with ExitStack() as starts:  # nothing is cleaned up before the end: each start meets the remains of the last
        for number, stage in enumerate(stages):
            child = starts.enter_context(factory_process(command, tmp_path / f"start-{number}"))
            wait_until(_has_ended_or(child, _stage(stage, path)), 120, f"{stage}: {child.said()}")
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(chance.uniform(0, 6 if stage == "begun" else 0.8))
            assert child.process.poll() is None, f"it ended before its kill: {child.said()}"
            child.kill()
            now = traces_on_disk(path)
            _check_kept(seen, now)
            seen = now
            kept_after.append((stage, len(seen)))
        last = starts.enter_context(factory_process(command, tmp_path / f"start-{len(stages)}"))
        assert last.wait(600) == 0, last.said()
        for number in range(len(stages) + 1):
            # Killed while Ray itself starts, its agents end after a minute or so, of their own accord.
            wait_for_no_process(tmp_path / f"start-{number}", 180)

    traces = committed_traces(path)
    times = Counter((trace.problem_id, trace.sample_index) for trace in traces)
    problems = {problem.problem_id for problem, _ in RunFolder(path).problems(RunFolder(path).manifest())}
    assert len(problems) == NUM_PROBLEMS
    wanted = {(problem_id, index) for problem_id in problems for index in range(NUM_SAMPLES)}
    lost, doubled = wanted - times.keys(), [key for key, count in times.items() if count > 1]
    assert not lost
    assert not doubled
    assert times.keys() == wanted
    _check_kept(seen, {(trace.problem_id, trace.sample_index): trace for trace in traces})
    manifest = RunFolder(path).manifest()
    assert manifest.counts.judged == manifest.counts.requested == len(wanted)
    held = [count for _, count in kept_after]
    assert 0 < held[-1] < len(wanted), f"the kills came too early or too late to show anything: {kept_after}"
