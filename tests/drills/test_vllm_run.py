"""The demo on real vLLM and real Ray, with its engine core killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.bench.drill import committed_traces, factory_process, processes_of, wait_for_no_process, wait_until
from tests.runs import traces_on_disk

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

DEMO = Path(__file__).parents[2] / "jobs" / "configs" / "demo.yaml"
NUM_PROBLEMS, NUM_SAMPLES = 150, 4


def test_the_demo_survives_the_death_of_its_engine_core_and_its_tables_load(tmp_path: Path) -> None:
    """The engine is one over two processes, of which none may be left; its model is on the node's own disk."""
    run = tmp_path / "run"
    arguments = ["run", DEMO, "--run", run, "--json", "--set", f"schedule.max_problems={NUM_PROBLEMS}"]
    disk = tmp_path / "disk"
    arguments += ["--set", "teacher.engine.tensor_parallel_size=2", "--set", f"teacher.stage_to={disk}"]
    with factory_process(arguments, tmp_path / "mark") as child:
        wait_until(lambda: child.process.poll() is not None or traces_on_disk(run), 600, "a trace")
        assert child.process.poll() is None, child.said()
        processes = processes_of(child.mark)
        core = [pid for pid, line in processes.items() if "EngineCore" in line]
        assert len(core) == 1, (processes, child.said())
        workers = [pid for pid, line in processes.items() if "VLLM::Worker" in line]
        assert len(workers) == 2, processes
        os.kill(core[0], signal.SIGKILL)
        before = traces_on_disk(run)
        assert child.wait(1000) == 0, child.said()
        status = json.loads(child.out.read_text())
        wait_for_no_process(child.mark)
    assert sum(status["engine_seconds"].values()) > 0
    (copy,) = [path for path in disk.iterdir() if path.is_dir()]
    log = "".join(path.read_text(errors="replace") for path in (run / "logs").glob("engine-*.log"))
    assert log.count(f"model='{copy}'") >= 2  # both incarnations loaded it
    _check_complete(run, status, before=before)
    (row,) = pq.read_table(run / "tables" / "default" / "runs").to_pylist()
    assert [one["tensor_parallel_size"] for one in row["engines"]] == [2], "of both incarnations, once"
    assert row["tokenizer_sha256"] is not None
    _check_tables(run, status, tmp_path / "hf")


def _check_complete(run: Path, status: dict[str, object], *, before: dict[tuple[str, int], object]) -> None:
    counts = status["counts"]
    assert isinstance(counts, dict)
    assert counts["requested"] == counts["generated"] == counts["judged"] == NUM_PROBLEMS * NUM_SAMPLES
    traces = committed_traces(run)
    times = Counter((trace.problem_id, trace.sample_index) for trace in traces)
    assert set(times.values()) == {1}
    assert len({trace.engine_id for trace in traces}) == 2  # the second went on where the first had died
    after = {(trace.problem_id, trace.sample_index): trace for trace in traces}
    assert {key: after[key] for key in before} == before


def _check_tables(run: Path, status: dict[str, object], cache: Path) -> None:
    """Check that `load_dataset` gives the accepted rows, in a process of its own with an empty cache."""
    accepted = status["accepted"]
    assert isinstance(accepted, int)
    assert accepted > NUM_PROBLEMS // 2  # the demo teacher passes more than a third of its attempts
    script = (
        "import sys, datasets\n"
        "rows = datasets.load_dataset('parquet', data_files=sys.argv[1], split='train')\n"
        "assert all(row['messages'][-1]['content'].count('</think>') == 1 for row in rows)\n"
        "print(len(rows), sorted(rows.column_names))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(run / "tables" / "default" / "sft" / "train-*.parquet")],
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert shown.startswith(f"{accepted} ")
    assert "'messages'" in shown
