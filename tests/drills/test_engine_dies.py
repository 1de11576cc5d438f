"""Engines and roles that die, stall, hang or never start, a second process, a full disk: the run ends or goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from factory.actors import STARTED
from factory.journal import split_name
from factory.store import RunFolder
from jobs.bench.drill import (
    FactoryProcess,
    committed_traces,
    factory_process,
    processes_of,
    wait_for_no_process,
    wait_until,
)
from jobs.demo_teacher import SHIPPED_MODELS
from tests.runs import traces_on_disk, write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE = {"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.2}


def _job(folder: Path, *, num_problems: int = 60, schedule: dict[str, Any] | None = None, **teacher: object) -> Path:
    return write_job(
        folder,
        num_problems=num_problems,
        teacher={"kind": "scripted", "max_num_seqs": 8, "tokens_per_s": 5000, **teacher},
        sampling={"num_samples": 2, "max_tokens": 400},
        schedule=schedule or {},
        store=STORE,
    )


def _check_complete(path: Path, num_problems: int) -> None:
    counts = RunFolder(path).manifest().counts
    assert counts.requested == counts.judged == 2 * num_problems
    times = Counter((trace.problem_id, trace.sample_index) for trace in committed_traces(path))
    assert len(times) == 2 * num_problems
    assert set(times.values()) == {1}
    assert not RunFolder(path).leftover_segments()


@pytest.mark.parametrize(
    ("teacher", "schedule"),
    [
        pytest.param({"dies_after": 25}, {}, marks=pytest.mark.drill),
        ({"dies_after": 25, "num_engines": 2}, {}),
        ({"stalls_after": 25}, {"stall_s": 15}),
    ],
    ids=["dies", "one of two dies", "stalls"],
)
def test_an_engine_that_dies_or_stalls_is_replaced_and_the_run_ends_complete(
    tmp_path: Path, teacher: dict[str, int], schedule: dict[str, int]
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, schedule=schedule, **teacher)
    with factory_process(["run", job, "--run", path, "--json"], tmp_path / "child") as child:
        assert child.wait() == 0, child.said()
        wait_for_no_process(child.mark)
    assert json.loads(child.out.read_text())["counts"]["judged"] == 120  # and Ray's words are not beside it
    _check_complete(path, 60)
    assert len({trace.engine_id for trace in committed_traces(path)}) > 1


def _pids_of_slot(child: FactoryProcess, slot: int) -> list[int]:
    """Return the processes that write the log of an engine in that slot."""
    found = []
    for pid in processes_of(child.mark):
        with suppress(OSError):  # it ended this moment
            names = [os.readlink(fd).rpartition("/")[2] for fd in Path(f"/proc/{pid}/fd").iterdir()]
            if any(name.startswith(f"engine-{slot}-") and name.endswith(".log") for name in names):
                found.append(pid)
    return found


@pytest.mark.drill
def test_an_engine_that_dies_again_and_again_is_left_out_while_another_works(tmp_path: Path) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, schedule={"max_engine_restarts": 1}, num_engines=2, tokens_per_s=100)
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:

        def is_left_out() -> bool:
            for pid in _pids_of_slot(child, 1):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return "engine 1 is left out, the others go on" in child.said() or child.process.poll() is not None

        wait_until(is_left_out, 120, "that it is given up")
        assert child.wait(240) == 0, child.said()
        wait_for_no_process(child.mark)
    assert "engine 1 is left out, the others go on; next try in 10 minutes" in child.said()
    _check_complete(path, 60)
    assert any(trace.engine_id.startswith("engine-0-") for trace in committed_traces(path))


@pytest.mark.drill
def test_an_engine_that_is_frozen_while_it_has_nothing_to_do_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run"
    job = write_job(
        tmp_path,
        num_problems=1,
        teacher={"kind": "scripted", "num_engines": 2, "tokens_per_s": 100, "loop_rate": 1},
        sampling={"num_samples": 1, "max_tokens": 800},
        schedule={"stall_s": 4, "early_abort": None},
        store=STORE | {"segment_s": 60, "partial_tokens": 50},
    )
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:

        def have_begun() -> bool:
            loaded = [log for log in path.glob("logs/engine-*.log") if STARTED in log.read_text()]
            return len(loaded) == 2 and bool(RunFolder(path).leftover_segments())

        wait_until(lambda: have_begun() or child.process.poll() is not None, 120, "one of two engines works")
        time.sleep(1)  # the other has told that it is loaded, and asked in vain for an attempt
        (segment,) = RunFolder(path).leftover_segments()
        logs = {
            pid: Path(f"/proc/{pid}/fd/1").readlink().stem
            for pid, line in processes_of(child.mark).items()
            if line.startswith("ray::EngineActor")
        }
        (idle,) = (pid for pid, engine_id in logs.items() if engine_id != split_name(segment.name).engine_id)
        os.kill(idle, signal.SIGSTOP)
        assert child.wait() == 0, child.said()
        wait_for_no_process(child.mark)
    assert "was killed: it neither reported nor ended in 4 s" in child.said()
    assert RunFolder(path).manifest().counts.judged == 1


@pytest.mark.drill
@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("CoordinatorActor", "the coordinator did not answer in 60 s, another takes over"),
        ("VerifierActor", "verifier-1 did not report in 60 s, it is killed"),
        ("CommitterActor", "the committer did not end a commit in 60 s, it is killed"),
    ],
)
def test_a_role_that_hangs_is_replaced(tmp_path: Path, role: str, said: str) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, schedule={"stall_s": 30}, tokens_per_s=500)
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:

        def all_work() -> bool:
            manifest = RunFolder(path).find_manifest()
            return manifest is not None and manifest.counts.judged > 0

        wait_until(lambda: all_work() or child.process.poll() is not None, 120, "a commit")
        (pid,) = (pid for pid, line in processes_of(child.mark).items() if line.startswith(f"ray::{role}"))
        os.kill(pid, signal.SIGSTOP)
        assert child.wait(300) == 0, child.said()
        wait_for_no_process(child.mark)
    assert said in " ".join(child.said().split())
    _check_complete(path, 60)


def test_a_teacher_that_never_starts_ends_the_run_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, schedule={"max_engine_restarts": 1}, start_s=600, start_timeout_s=2)
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:
        assert child.wait() == 1, child.said()
        wait_for_no_process(child.mark)
    assert "did not start in 2 s" in child.said()
    assert str(path / "logs") in child.said()
    assert "Traceback" not in child.said()
    assert RunFolder(path).manifest().counts.pending == 120


def test_a_node_without_the_model_ends_the_run_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    path, model = tmp_path / "run", tmp_path / "shared" / "teacher"
    shutil.copytree(SHIPPED_MODELS["demo"], model)
    job = write_job(tmp_path, num_problems=4, teacher={"kind": "vllm", "model": str(model)})
    with factory_process(["run", job, "--run", path], tmp_path / "child") as child:
        wait_until(lambda: RunFolder(path).find_manifest() or child.process.poll() is not None, 120, "a manifest")
        model.rename(tmp_path / "away")  # long before an engine looks for it: Ray is not even started
        assert child.wait(120) == 1, child.said()
    assert f"node {socket.gethostname()}: teacher.model='{model}' is no folder there" in child.said()
    assert "teacher.stage_to copies from shared storage" in child.said()
    assert "died" not in child.said()
    assert "Traceback" not in child.said()


def test_a_second_process_on_a_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path)
    with factory_process(["run", job, "--run", path], tmp_path / "first") as first:
        wait_until(lambda: RunFolder(path).find_manifest() or first.process.poll() is not None, 120, "a manifest")
        first.process.send_signal(signal.SIGSTOP)  # the lock is held, and the run cannot end meanwhile
        for command in (["run", job, "--run", path], ["verify", path]):
            with factory_process(command, tmp_path / "second") as second:
                assert second.wait() == 2, second.said()
            assert f"process {first.process.pid} on" in second.said()
        first.process.send_signal(signal.SIGCONT)
        assert first.wait() == 0, first.said()
    _check_complete(path, 60)


def _interrupt(child: FactoryProcess, path: Path) -> None:
    wait_until(lambda: RunFolder(path).leftover_segments() or child.process.poll() is not None, 120, "a segment")
    child.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("presses", [pytest.param(1, marks=pytest.mark.drill), 2])
def test_an_interrupted_run_exits_with_130_and_goes_on(tmp_path: Path, presses: int) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, num_problems=300)
    with factory_process(["run", job, "--run", path], tmp_path / "first") as first:
        _interrupt(first, path)
        if presses == 2:
            first.process.send_signal(signal.SIGINT)
        assert first.wait() == 130, first.said()
        assert "Traceback" not in first.said()
        wait_for_no_process(first.mark)
    if presses == 1:
        assert "run the same command again" in first.said()
    seen = traces_on_disk(path)
    counts = RunFolder(path).manifest().counts
    assert counts.generated == counts.judged + counts.unjudged, "a trace was committed that nobody judged"
    assert counts.pending
    with factory_process(["run", job, "--run", path], tmp_path / "again") as again:
        assert again.wait() == 0, again.said()
    _check_complete(path, 300)
    final = {(trace.problem_id, trace.sample_index): trace for trace in committed_traces(path)}
    assert all(final[key] == trace for key, trace in seen.items())


@pytest.mark.parametrize("role", ["EngineActor", pytest.param("CommitterActor", marks=pytest.mark.drill)])
def test_a_full_disk_ends_the_run_with_a_clear_message_and_it_goes_on_when_there_is_room(
    tmp_path: Path, role: str
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, num_problems=150, tokens_per_s=1000)
    with factory_process(["run", job, "--run", path], tmp_path / "full") as full:

        def writers() -> list[int]:
            return [pid for pid, command in processes_of(full.mark).items() if command.startswith(f"ray::{role}")]

        wait_until(lambda: RunFolder(path).leftover_segments() or full.process.poll() is not None, 120, "a segment")
        for pid in writers():  # to that process the disk is full from now on
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, 1000))
        assert full.wait() == 1, full.said()
        assert os.strerror(errno.EFBIG) in full.said()
        assert str(path) in full.said()
        assert "Traceback" not in full.said()
        wait_for_no_process(full.mark)
    seen = traces_on_disk(path)
    fast = ("--set", "teacher.tokens_per_s=20000")
    with factory_process(["run", job, "--run", path, "--json", *fast], tmp_path / "again") as again:
        assert again.wait() == 0, again.said()
    _check_complete(path, 150)
    final = {(trace.problem_id, trace.sample_index): trace for trace in committed_traces(path)}
    assert all(final[key] == trace for key, trace in seen.items())
    assert json.loads(again.out.read_text())["counts"]["judged"] == 300
