"""Long attempts whose engine, driver or machine is taken away: they go on from what was saved, without a seam."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from factory.early import LOOK_TOKENS
from factory.journal import Position, scan_segment, split_name
from factory.store import RunFolder
from jobs.bench.drill import (
    FactoryProcess,
    Key,
    committed_traces,
    factory_process,
    is_alive,
    processes_of,
    wait_for_no_process,
    wait_until,
)
from schemas.trace import Trace
from tests.runs import traces_on_disk, write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_PROBLEMS = 24
NUM_SLOTS = 8
TOKENS_PER_S = 16_000  # 2,000 per slot: an attempt takes three seconds
FAST = 10_000_000  # a speed is no part of a text
PARTIAL_TOKENS = 500
FSYNC_INTERVAL_S = 0.1


def _job(folder: Path, *, schedule: dict[str, Any] | None = None, **teacher: object) -> Path:
    folder.mkdir(exist_ok=True)
    return write_job(
        folder,
        num_problems=NUM_PROBLEMS,
        teacher={
            "kind": "scripted",
            "max_num_seqs": NUM_SLOTS,
            "max_model_len": 40_000,
            "mean_tokens": 6000,
            "tokens_per_s": TOKENS_PER_S,
            **teacher,
        },
        sampling={"num_samples": 1, "max_tokens": 30_000, "seed": 7},
        schedule=schedule or {},
        store={
            "segment_s": 1,
            "commit_interval_s": 1,
            "fsync_interval_s": FSYNC_INTERVAL_S,
            "partial_tokens": PARTIAL_TOKENS,
        },
    )


def _texts(path: Path) -> dict[Key, tuple[str, tuple[int, ...]]]:
    """Return what the attempts of a complete run amount to."""
    traces = committed_traces(path)
    counts = RunFolder(path).manifest().counts
    assert counts.requested == counts.judged == len(traces) == NUM_PROBLEMS
    assert not RunFolder(path).leftover_segments(), "a segment stays that nobody needs"
    return {(trace.problem_id, trace.sample_index): (trace.text, trace.token_ids) for trace in traces}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, tuple[str, tuple[int, ...]]]:
    """Return the texts of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = _job(folder, tokens_per_s=FAST)
    with factory_process(["run", job, "--run", folder / "run"], folder / "child") as child:
        assert child.wait() == 0, child.said()
    assert all(trace.resumed_at == () for trace in committed_traces(folder / "run"))
    return _texts(folder / "run")


def _resumed(path: Path) -> list[Trace]:
    return [trace for trace in committed_traces(path) if trace.resumed_at]


def _is_frozen(pid: int) -> bool:
    """Return whether no thread of a process runs."""
    states = [Path(stat).read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def _num_saved(path: Path) -> dict[Key, int]:
    """Return how many tokens the journal holds of each attempt that has no trace yet."""
    found: dict[Key, int] = {}
    for segment in RunFolder(path).leftover_segments():
        with suppress(FileNotFoundError):  # committed since the listing
            for piece in scan_segment(segment).pieces:
                key = (piece.problem_id, piece.sample_index)
                found[key] = max(found.get(key, 0), piece.offset + piece.num_tokens)
    ended = traces_on_disk(path)
    return {key: count for key, count in found.items() if key not in ended}


def test_the_attempts_of_a_killed_engine_go_on_from_the_last_token_that_was_on_disk(
    tmp_path: Path, undisturbed: dict[Key, tuple[str, tuple[int, ...]]]
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, tokens_per_s=8000)
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:
        wait_until(partial(_has_saved, child, path, set()), 120, "pieces")
        assert child.process.poll() is None, child.said()
        (engine,) = (pid for pid, line in processes_of(child.mark).items() if line.startswith("ray::EngineActor"))
        os.kill(engine, signal.SIGSTOP)  # what is on disk now is what it had saved when it died
        wait_until(partial(_is_frozen, engine), 60, "the engine stands still")
        saved = _num_saved(path)
        os.kill(engine, signal.SIGKILL)
        assert child.wait() == 0, child.said()
        wait_for_no_process(child.mark)
    assert _texts(path) == undisturbed
    assert len(saved) >= NUM_SLOTS // 2
    resumed = {(trace.problem_id, trace.sample_index): trace.resumed_at for trace in _resumed(path)}
    assert resumed == {key: (count,) for key, count in saved.items()}
    each = math.ceil(PARTIAL_TOKENS / LOOK_TOKENS) * LOOK_TOKENS  # no piece waits for more
    assert all(count % each == 0 for count in saved.values()), saved


def _pieces(path: Path) -> set[Position]:
    """Return where pieces of attempts lie in the journal."""
    found: set[Position] = set()
    for segment in RunFolder(path).leftover_segments():
        try:
            found |= {piece.position for piece in scan_segment(segment).pieces}
        except FileNotFoundError:  # committed since the listing
            continue
    return found


def _has_saved(child: FactoryProcess, path: Path, before: set[Position]) -> bool:
    return child.process.poll() is not None or len(_pieces(path) - before) >= 2 * NUM_SLOTS


def _terminate(child: FactoryProcess) -> None:
    child.process.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143, child.said()
    assert "stopped by SIGTERM" in child.said()
    assert "run the same command again" in child.said()
    wait_for_no_process(child.mark)


@pytest.mark.drill
def test_a_run_that_is_stopped_and_then_killed_goes_on_inside_its_attempts(
    tmp_path: Path, undisturbed: dict[Key, tuple[str, tuple[int, ...]]]
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path)
    for end in (_terminate, FactoryProcess.kill):
        before = _pieces(path)
        with factory_process(["run", job, "--run", path], tmp_path / end.__name__) as child:
            wait_until(partial(_has_saved, child, path, before), 120, "pieces of this start")
            assert child.process.poll() is None, child.said()
            end(child)
            assert "Traceback" not in child.said()
        assert RunFolder(path).manifest().counts.pending
    job = _job(tmp_path, tokens_per_s=FAST)
    with factory_process(["run", job, "--run", path], tmp_path / "last") as last:
        assert last.wait() == 0, last.said()
    assert _texts(path) == undisturbed
    assert len(_resumed(path)) >= NUM_SLOTS // 2


def test_an_engine_that_gets_sigterm_leaves_at_once_and_nobody_is_to_blame(
    tmp_path: Path, undisturbed: dict[Key, tuple[str, tuple[int, ...]]]
) -> None:
    """One death that counted would end this run."""
    path = tmp_path / "run"
    job = _job(tmp_path, schedule={"max_engine_restarts": 0}, num_engines=2, max_num_seqs=4, tokens_per_s=4000)

    seen: set[Position] = set()

    def both_have_saved() -> bool:  # the second one may start much later than the first
        seen.update(_pieces(path))
        writers = Counter(split_name(position.file).engine_id for position in seen)
        return child.process.poll() is not None or (len(writers) == 2 and min(writers.values()) >= NUM_SLOTS)

    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:
        wait_until(both_have_saved, 120, "pieces of both")
        engines = [pid for pid, line in processes_of(child.mark).items() if line.startswith("ray::EngineActor")]
        assert len(engines) == 2, child.said()
        os.kill(engines[0], signal.SIGTERM)
        wait_until(lambda: not is_alive(engines[0]) or child.process.poll() is not None, 60, "the engine ends")
        assert child.process.poll() is None, "it ended with the run, not before"
        assert child.wait() == 0, child.said()
    assert "is taken away; its attempts go on elsewhere" in child.said()
    assert "died" not in child.said()
    assert _texts(path) == undisturbed
    assert len(list((path / "logs").glob("engine-*.log"))) == 3  # another one took its place
    assert len(_resumed(path)) >= 3


@pytest.mark.drill  # `test_budget` stops a run in the same way
def test_a_run_stops_before_its_time_limit_and_goes_on(
    tmp_path: Path, undisturbed: dict[Key, tuple[str, tuple[int, ...]]]
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, schedule={"time_limit_s": 3600, "stop_before_s": 3565}, tokens_per_s=500)
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:
        assert child.wait(120) == 3, child.said()
        wait_for_no_process(child.mark)
    assert "stopped 3565 s before schedule.time_limit_s=3600" in child.said()
    assert _pieces(path)
    job = _job(tmp_path, tokens_per_s=FAST)
    with factory_process(["run", job, "--run", path], tmp_path / "again") as again:
        assert again.wait() == 0, again.said()
    assert _texts(path) == undisturbed
    assert _resumed(path)
