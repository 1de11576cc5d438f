"""`factory evaluate` as a user meets it: a run killed and resumed, stored runs scored again, errors that help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from factory.store import RunFolder
from jobs.bench.drill import Disk, factory_process, wait_for_no_process, wait_until
from jobs.evaluate.job import Asked, prepare
from schemas.problem import Answer, Problem
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Verdict
from tests.jobs.test_cli import factory
from tests.runs import make_problem, make_trace, start_run, write_segment
from verifiers.math import judge_answer

CONFIG = {"name": "t", "select": {"name": "default"}, "teacher": {"kind": "scripted"}}


def judged(problem: Problem, index: int, answer: str | None) -> JudgedTrace:
    """Return the verdict on an attempt with that answer; None is one that we failed to judge."""
    trace = make_trace(problem.problem_id, index)
    assert isinstance(problem.reference, Answer)
    if answer is None:
        checks = (Check(name="math", version="1", outcome=Outcome.UNJUDGED, reason=Reason.WORKER_DIED),)
    else:
        checks = judge_answer(rf"\boxed{{{answer}}}", problem.reference).checks
    verdict = Verdict(reference_hash=problem.reference_hash, checks=checks)
    return JudgedTrace(trace_id=trace.trace_id, problem_id=problem.problem_id, verdict=verdict)


def stored_run(path: Path, answers: list[list[str | None]], *, first_row: int = 0) -> None:
    """Write a run whose problems, with the references 1, 2, ..., were answered so."""
    made = [make_problem(number) for number in range(len(answers))]
    problems = [replace(one, source_row_id=str(row)) for row, one in enumerate(made, first_row)]
    committer = start_run(path, problems, num_samples=len(answers[0]), config=CONFIG)
    pairs = [(problem, index) for problem in problems for index in range(len(answers[0]))]
    segment = write_segment(path / "journal", [make_trace(one.problem_id, i) for one, i in pairs], sequence=1)
    verdicts = [judged(one, i, answers[problems.index(one)][i]) for one, i in pairs]
    committer.commit(segments=[segment], judged=verdicts)


def test_a_stored_run_is_scored_without_generating(tmp_path: Path) -> None:
    stored_run(tmp_path / "run", [["1", "1", "7"], ["2", "5", "5.0"]])
    ended = factory("evaluate", tmp_path / "run", "--json")
    body = json.loads(ended.out)
    assert ended.code == 0
    assert body["pass_at_1"] == {"value": 0.5, "interval": {"low": 1 / 3, "high": 2 / 3}, "num_problems": 2}
    assert body["pass_at"]["3"]["value"] == 1.0
    assert [one["consensus"] for one in body["problems"]] == [1.0, 0.0]  # 5 and 5.0 are one answer
    assert body["about"] is None
    table = factory("evaluate", tmp_path / "run")
    assert "cons@3" in table.out
    assert "counted: 6 of 6 attempts" in table.out


def test_attempts_that_we_failed_to_judge_are_named_and_end_with_1(tmp_path: Path) -> None:
    stored_run(tmp_path / "run", [["1", None], ["2", "2"]])
    ended = factory("evaluate", tmp_path / "run")
    assert ended.code == 1
    assert "in no score: 1 attempts without a word of the verifiers" in ended.out
    assert "100.0%" in ended.out


def test_another_harness_is_compared_by_the_texts_of_a_run(tmp_path: Path) -> None:
    stored_run(tmp_path / "run", [["1", "7"]])
    (problem, _) = next(iter(RunFolder(tmp_path / "run").problems(RunFolder(tmp_path / "run").manifest())))
    rows = [
        {
            "doc": {"question": problem.question},
            "resps": [[make_trace(problem.problem_id, index).text]],
            "filtered_resps": ["1"],
            "filter": "none",
            "metrics": ["acc"],
            "acc": 1.0,
        }
        for index in range(2)
    ]
    log = tmp_path / "samples.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    ended = factory("evaluate", tmp_path / "run", "--against", log)
    assert "agreement with acc,none: 50.00% of 2 samples" in ended.out
    assert "theirs right, ours wrong (value_differs)" in ended.out
    assert "reference '1' · theirs '1' · ours '7'" in ended.out
    body = json.loads(factory("evaluate", tmp_path / "run", "--against", log, "--json").out)
    assert (body["rate"], len(body["differences"])) == (0.5, 1)


def test_nothing_that_a_file_or_model_says_acts_on_the_terminal(tmp_path: Path) -> None:
    row = {"problem": "What is 0 + 1?", "answer": "1", "subject": "\x1b[31mred [bold]x"}
    other = {**row, "problem": "What is 1 + 1?", "answer": "2", "subject": "y"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(other) + "\n")
    prepare(Asked(benchmark=str(path), model="m", samples=1, run=tmp_path / "run"))
    stored_run(tmp_path / "run", [["1"], ["\x1b[31m2"]], first_row=1)
    ended = factory("evaluate", tmp_path / "run")
    assert "pass@1 by subject" in ended.out
    assert "[bold]x" in ended.out
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give RUN to score what is stored"),
        (["RUN", "--benchmark", "gsm8k"], "not both"),
        (["RUN"], "holds no run"),
        (["RUN", "--samples", "2", "--all-dates"], "RUN is scored as it is stored; leave out --all-dates, --samples"),
        (["RUN", "--metric", "acc"], "--metric: names one of the scores of --against FILE, which is missing"),
        (["--benchmark", "RUN/rows.jsonl", "--model", "m", "--all-dates", "--since", "2024-01-01"], "give one of them"),
        (["--benchmark", "gsm9k", "--model", "m"], "did you mean 'gsm8k'"),
        (["--benchmark", "livecodebench", "--since", "2024"], "must be a date"),
        (
            ["--benchmark", "RUN/rows.jsonl", "--model", "m", "--run", "s3://bucket/run"],
            "give a local or shared folder",
        ),
    ],
)
def test_what_cannot_be_done_is_explained(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"problem": "What is 1 + 1?", "answer": "2"}')
    ended = factory("evaluate", *(word.replace("RUN", str(tmp_path)) for word in arguments))
    assert ended.code == 2
    assert said in ended.err


def test_a_job_never_runs_in_the_folder_of_an_evaluation(tmp_path: Path) -> None:
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows.write_text('{"problem": "What is 1 + 1?", "answer": "2"}')
    prepare(Asked(benchmark=str(rows), model="m", samples=1, run=run))
    ended = factory("run", "jobs/configs/drill.yaml", "--run", str(run))
    assert ended.code == 2
    assert "its rows are never training data; give another --run" in ended.err
    assert not (run / "run.yaml").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.drill  # an evaluation is a run, and runs are killed elsewhere
def test_an_evaluation_killed_at_work_goes_on_and_scores_every_attempt_once(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {7 * n}?", "answer": f"It is {8 * n}.\n#### {8 * n}"} for n in range(60)]
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"teacher": {"kind": "scripted", "tokens_per_s": 4000}, "store": {"segment_s": 1, "commit_interval_s": 0.5}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    path = tmp_path / "run"
    command = ["evaluate", "--job", tmp_path / "job.yaml", "--benchmark", tmp_path / "gsm8k.jsonl", "--samples", 4]
    command = [*command, "--run", path, "--json"]
    disk = Disk(path)
    with factory_process(command, tmp_path / "first") as child:
        wait_until(lambda: child.process.poll() is not None or disk.look() > 40, 120, "traces")
        assert child.process.poll() is None, child.said()
        child.kill()
    disk.look()
    assert 0 < len(disk.seen) < 240
    with factory_process(command, tmp_path / "second") as child:
        assert child.wait(120) == 0, child.said()
        first_scores: dict[str, Any] = json.loads(child.out.read_text())
    disk.look_at_the_end()
    assert disk.findings.are_none, disk.findings
    again = json.loads(factory("evaluate", path, "--json").out)
    assert again == first_scores
    assert again["counted"]["judged"] == again["counted"]["requested"] == 240
    assert again["about"]["benchmark"] == "gsm8k"
    for mark in ("first", "second"):
        wait_for_no_process(tmp_path / mark)
