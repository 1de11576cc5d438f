"""Published sets from their files to an export: judged like one's own, once, whatever dies on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from factory import faults
from factory.agreement import read_agreement
from factory.report import read_status
from factory.store import RunFolder
from jobs.bench.drill import committed_traces, factory_process
from tests import tracesets

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL = ("--set", "schedule.clean.against=[]", "--set", "schedule.clean.near_duplicates=null")
ADD_ONE = "<think>\nRead it, add one, print it.\n</think>\n\n```python\nprint(int(input()) + {})\n```\n"


def rows_of_synthetic1() -> list[dict[str, object]]:
    """Return mathematics and programs, right and wrong, two of them labelled wrongly, and rows that are none."""
    case = {"type": "stdin_stdout", "input": "4\n", "output": "5\n"}
    tests = json.dumps({"language": "python", "test_cases": [case]})
    rows = [tracesets.synthetic_row(n, n + (k != 1)) for n in range(6) for k in range(3)]
    rows[0]["score"], rows[1]["score"] = 0.0, 1.0
    rows += [
        tracesets.synthetic_row(
            100, 0, task_type="verifiable_code", verification_info=tests, llm_response=ADD_ONE.format(n), score=float(n)
        )
        for n in (1, 0)
    ]
    return [*rows, tracesets.synthetic_row(7, 8, task_type="real_world_swe")]


def test_an_import_that_is_killed_at_any_step_is_judged_selected_and_exported_once(tmp_path: Path) -> None:
    file = tracesets.write(tmp_path / "s.parquet", rows_of_synthetic1(), "synthetic1")
    run, armed = tmp_path / "run", tmp_path / "armed"
    armed.mkdir()
    command = ["import", file, "--run", run, "--teacher", "deepseek-ai/DeepSeek-R1", *SMALL]
    environment = {faults.VARIABLE: str(armed)}
    for point in ("manifest_linked", "commit_begun", "segment_deleted"):
        faults.arm(armed, f"committer.{point}")
        with factory_process(command, run, environment=environment) as child:
            assert child.wait() == -9, child.said()
    with factory_process([*command, "--json"], run) as child:
        assert child.wait() == 0, child.said()
        told = json.loads(child.out.read_text())
    status = read_status(run)
    assert told["accepted"] == status.accepted == 6 * 2 + 1
    assert status.outcomes == {"correct": 13, "wrong_answer": 7}
    assert status.quarantined == {"unsupported_reference": 1}
    assert status.counts.pending == 0
    traces = committed_traces(run)
    assert len({trace.trace_id for trace in traces}) == len(traces) == 20
    assert not RunFolder(run).leftover_segments()
    found = read_agreement(run)
    assert (found.only_verdict, found.only_label, found.num_compared) == (1, 1, 20)
    with factory_process(["export", run, "--format", "openai", "--out", tmp_path / "out"], tmp_path / "x") as child:
        assert child.wait() == 0, child.said()
    accepted = pq.read_table(run / "tables/default/sft", columns=["trace_id", "messages", "teacher", "license"])
    lines = (tmp_path / "out/sft_train.jsonl").read_text().splitlines()
    assert [json.loads(line)["messages"] for line in lines] == accepted["messages"].to_pylist()
    assert set(accepted["teacher"].to_pylist()) == {"deepseek-ai/DeepSeek-R1"}
    assert set(accepted["license"].to_pylist()) == {"Apache-2.0"}
    texts = {trace.trace_id: trace.text for trace in traces}
    for row in accepted.to_pylist():
        assert row["messages"][-1]["content"] == texts[row["trace_id"]]
