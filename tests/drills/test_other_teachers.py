"""Runs with the teachers that are no engine of ours: an endpoint that goes away, and a recording with labels."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from factory.agreement import read_agreement
from factory.report import read_status
from jobs.bench.drill import factory_process, wait_for_no_process
from tests.jobs.test_cli import factory
from tests.runs import traces_on_disk, write_job
from tests.servers import Exchange, odd_server

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE = {"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.1}
NUM_PROBLEMS, NUM_SAMPLES = 20, 2


def add_rightly(exchange: Exchange) -> None:
    """Answer with the sum of the numbers in the question."""
    question = exchange.body["messages"][-1]["content"].splitlines()[0]
    total = sum(map(int, re.findall(r"\d+", question)))
    exchange.answer(f"<think> I add. </think> The sum is \\boxed{{{total}}}.")


@pytest.mark.drill  # `tests/factory/test_openai.py` has the teacher without the run
def test_an_endpoint_that_goes_away_costs_nothing_that_was_made(tmp_path: Path) -> None:
    is_well = threading.Event()
    path = tmp_path / "run"

    def behave(exchange: Exchange) -> None:
        if exchange.number > 25 and not is_well.is_set():
            exchange.status(503, "gone for lunch")
        else:
            add_rightly(exchange)

    with odd_server(behave) as (base_url, _):
        teacher = {"kind": "openai", "model": "odd", "base_url": base_url, "patience_s": 2, "max_in_flight": 2}
        job = write_job(
            tmp_path,
            num_problems=NUM_PROBLEMS,
            teacher=teacher,
            sampling={"num_samples": NUM_SAMPLES, "max_tokens": 64},
            schedule={"max_engine_restarts": 1},
            store=STORE,
        )
        with factory_process(["run", job, "--run", path], path) as child:
            code = child.wait()
            assert code == 1, child.said()
            assert "gone for lunch" in child.said()
            assert "patience_s=2" in child.said()
        wait_for_no_process(path)
        before = traces_on_disk(path)
        assert len(before) == 25
        is_well.set()
        with factory_process(["run", job, "--run", path], path) as child:
            assert child.wait() == 0, child.said()
    after = traces_on_disk(path)
    assert {key: after[key] for key in before} == before
    status = read_status(path)
    assert (status.counts.generated, status.counts.failed, status.counts.pending) == (NUM_PROBLEMS * NUM_SAMPLES, 0, 0)
    assert status.outcomes == {"correct": NUM_PROBLEMS * NUM_SAMPLES}
    assert status.num_tokens == sum(trace.num_completion_tokens for trace in after.values()) > 0
    assert {trace.engine for trace in after.values()} == {"openai"}


def test_a_recording_is_judged_and_every_disagreement_with_its_labels_is_found(tmp_path: Path) -> None:
    rows = [
        {"q": f"What is {n} + 1?", "a": str(n + 1), "text": f"It is \\boxed{{{n + 1 + (k == 1)}}}.", "ok": k != 1}
        for n in range(10)
        for k in range(3 if n < 5 else 2)
    ]
    rows[0]["ok"] = False  # right, and labelled wrong
    rows[1]["ok"] = True  # wrong, and labelled right
    rows[2]["ok"] = None
    rows.append({"q": "What is 3 + 1?", "a": "4", "text": "", "ok": False})
    recording = tmp_path / "recording.jsonl"
    recording.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "run"
    job = write_job(
        tmp_path,
        num_problems=1,
        sources=[{"kind": "jsonl", "path": str(recording), "columns": {"problem": "q", "answer": "a"}}],
        prompt={"template": "plain", "format": "plain"},
        teacher={"kind": "replay", "columns": {"problem": "q", "completion": "text", "label": "ok"}},
        store=STORE,
    )
    with factory_process(["run", job, "--run", path], path) as child:
        assert child.wait() == 0, child.said()
        assert "9 x problems have" not in child.said()
    status = read_status(path)
    assert status.counts.requested == 10 * 4
    assert status.counts.generated == len(rows)
    assert status.failed_reasons == {"not_recorded": 10 * 4 - len(rows)}
    assert "the recording has" in status.failed_details["not_recorded"]
    assert status.outcomes["correct"] == 15
    found = read_agreement(path)
    assert (found.only_verdict, found.only_label, found.num_not_compared) == (1, 1, 1)
    assert found.num_compared == len(rows) - 1
    assert found.rate == (len(rows) - 3) / (len(rows) - 1)
    right, wrong = found.disagreements
    assert (right.sample_index, right.label, right.is_correct, right.answer, right.reference) == (
        0,
        False,
        True,
        "1",
        "1",
    )
    assert (wrong.sample_index, wrong.label, wrong.is_correct, wrong.answer, wrong.reference) == (
        1,
        True,
        False,
        "2",
        "1",
    )
    told = factory("report", path, "--disagreements")
    assert told.code == 0
    assert f"of {len(rows) - 1}" in told.out
    assert "label wrong, verdict correct" in told.out
    assert "label right, verdict wrong_answer (value_differs)" in told.out
    assert "reference '1' · our answer '1'" in told.out
    assert "reference '1' · our answer '2'" in told.out
    body = json.loads(factory("report", path, "--disagreements", "--json").out)
    assert [item["trace_id"] for item in body["disagreements"]] == [right.trace_id, wrong.trace_id]
    assert body["rate"] == found.rate
    assert factory("report", path).code == 0
    page = (path / "report.html").read_text()
    assert "Agreement with the labels" in page
    assert f"{found.rate:.2%} of {len(rows) - 1} compared" in page
    assert "bytes of UTF-8" in page  # what its lengths are counted in, without a tokenizer
    assert "temperature" not in page  # nothing was sampled
