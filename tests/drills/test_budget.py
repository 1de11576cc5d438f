"""A run with a budget: it stops when that is spent, says what it spent, and goes on with more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.ledgers import read_ledgers, spent_of
from factory.pilot import Pilot, read_pilot
from factory.plan import Plan, make_plan
from factory.store import RunFolder
from jobs import show
from jobs.bench.drill import committed_traces, factory_process, wait_for_no_process
from schemas.config import load_config
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_PROBLEMS = 40
NUM_ATTEMPTS = 2 * NUM_PROBLEMS
MAX_TOKENS = 40_000
TOKENS_PER_S = 4_000  # whoever looks may be away for seconds


def _job(folder: Path, max_tokens: int, tokens_per_s: int = TOKENS_PER_S) -> Path:
    return write_job(
        folder,
        num_problems=NUM_PROBLEMS,
        teacher={
            "kind": "scripted",
            "max_num_seqs": 8,
            "max_model_len": 40_000,
            "mean_tokens": 2000,
            "tokens_per_s": tokens_per_s,
        },
        sampling={"num_samples": 2, "max_tokens": 30_000},
        schedule={"budget": {"max_tokens": max_tokens}},
        store={"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.1, "partial_tokens": 500},
    )


def _plan(job: Path, *overrides: str) -> Plan:
    return make_plan(load_config(job, overrides), {}, is_dry=True)


def test_a_run_stops_at_its_budget_of_tokens_and_goes_on_with_a_higher_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    job = _job(tmp_path, MAX_TOKENS)
    with factory_process(["run", job, "--run", path], tmp_path / "first") as child:
        assert child.wait(120) == 3, child.said()
        wait_for_no_process(child.mark)
    folder = RunFolder(path)
    counts = folder.manifest().counts
    assert 0 < counts.judged == counts.generated, "all that was made is judged"
    assert counts.pending == NUM_ATTEMPTS - counts.judged > 0
    spent = spent_of(read_ledgers(folder.logs))
    assert MAX_TOKENS <= spent.num_tokens < MAX_TOKENS + 15 * TOKENS_PER_S, "what is made between two looks"
    assert spent.device_s > 0
    said = " ".join(child.said().split())
    assert f"{spent.num_tokens:,} tokens of schedule.budget.max_tokens={MAX_TOKENS:,} are spent" in said
    assert f"{counts.pending:,} attempts are pending" in said

    job = _job(tmp_path, 100 * MAX_TOKENS, 40_000)
    with factory_process(["run", job, "--run", path, "--json"], tmp_path / "more") as child:
        assert child.wait(120) == 0, child.said()
        status = json.loads(child.out.read_text())
    traces = committed_traces(path)
    assert len(traces) == NUM_ATTEMPTS == status["counts"]["judged"]
    assert not folder.leftover_segments()
    costs, made = status["costs"], sum(trace.num_completion_tokens for trace in traces)
    assert costs["whole"]["num_tokens"] == made == status["num_tokens"]
    assert costs["whole"]["num_accepted"] == status["accepted"] > 0
    both = spent_of(read_ledgers(folder.logs))
    assert costs["whole"]["device_s"] == pytest.approx(both.device_s)
    assert costs["num_tokens_unkept"] == max(0, both.num_tokens - made)
    assert both.num_tokens >= made

    pilot = read_pilot(_plan(job), path)
    assert isinstance(pilot, Pilot)
    assert (pilot.tokens.sum(), pilot.accepted.sum(), pilot.num_open) == (made, status["accepted"], 0)
    assert pilot.spent == both
    for other, why in (
        ("sampling.num_samples=3", "another sampling.num_samples"),
        ("sampling.top_k=9", "another teacher"),
    ):
        said = read_pilot(_plan(job, other), path)
        assert isinstance(said, str)
        assert why in said

    show.plan(_plan(job), path, as_json=True)
    body = json.loads(capsys.readouterr().out)
    by_domain = body["estimate_by_domain"]["math"]  # the pilot is the whole job, and all of one domain
    assert by_domain["accepted"]["value"] == status["accepted"]
    assert by_domain["tokens_per_accepted"] == body["estimate"]["tokens_per_accepted"]
    assert by_domain["gpu_s_per_accepted"] == body["estimate"]["gpu_s_per_accepted"]
    show.plan(_plan(job), path, as_json=False)
    printed = capsys.readouterr().out
    assert "by domain" in printed.partition("what it would make and cost")[2]
