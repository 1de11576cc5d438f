"""The proof: arms differ in what they say they do and nothing else, the plan is kept, every sign is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.students.proof.arms import (
    NO_THINKING,
    READ,
    TABLE,
    arm_rows,
    fresh_problems,
    questions,
    split_start,
    start_rows,
    write_arm,
)
from jobs.students.proof.plan import Plan, detectable, load_plan, shipped_plans
from jobs.students.proof.report import Student, as_markdown, compare, equal_look, interval_of_runs, read_report
from jobs.students.proof.stages import Step, Trained, claim, run_steps, students_of
from jobs.students.proof.times import note, read_times, timed
from jobs.students.rows import open_data, open_table
from schemas.config import parse_config
from schemas.errors import ConfigError, FactoryError, FingerprintError
from schemas.tables import CANDIDATES

ROOT = Path(__file__).parents[3]


def _plan(**changes: Any) -> Plan:
    return Plan.model_validate(load_plan("three-minutes").model_dump(mode="json") | changes)


def _candidates(rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([CANDIDATES.field(name) for name in READ])
    return pa.Table.from_pylist([{name: row.get(name) for name in READ} for row in rows], schema=schema)


def _trace(
    number: int, *, right: bool | None, accepted: bool = False, response: str | None = "Done: 3."
) -> dict[str, Any]:
    return {
        "trace_id": f"t{number}",
        "problem_id": f"p{number // 2}",
        "messages": [{"role": "user", "content": f"What is {number // 2}?"}],
        "text": f"<think>\n{number} + 1 = {number + 1}\n</think>\n\n{response or ''}",
        "response": response,
        "is_correct": right,
        "is_accepted": accepted,
    }


TRACES = st.lists(
    st.tuples(st.sampled_from([True, False, None]), st.booleans(), st.sampled_from(["It is 42.", None])),
    min_size=1,
    max_size=40,
).map(
    lambda drawn: _candidates(
        [
            _trace(number, right=right, accepted=right is True and accepted, response=response)
            for number, (right, accepted, response) in enumerate(drawn)
        ]
    )
)


def _ids(table: pa.Table) -> list[str]:
    found: list[str] = table["trace_id"].to_pylist()
    return found


def _said(table: pa.Table) -> dict[str, str]:
    turns = table["completion"].to_pylist()
    return {trace_id: turn[0]["content"] for trace_id, turn in zip(_ids(table), turns, strict=True)}


@given(TRACES)
def test_arms_hold_the_traces_that_their_kind_says_word_for_word(candidates: pa.Table) -> None:
    by_id = {row["trace_id"]: row for row in candidates.to_pylist()}
    every, verified, selected, answers = (
        _said(arm_rows(candidates, kind)) for kind in ("all", "verified", "selected", "answers")
    )
    assert every == {trace_id: row["text"] for trace_id, row in by_id.items()}
    assert verified == {trace_id: text for trace_id, text in every.items() if by_id[trace_id]["is_correct"]}
    assert selected == {trace_id: text for trace_id, text in every.items() if by_id[trace_id]["is_accepted"]}
    assert answers == {
        trace_id: NO_THINKING + by_id[trace_id]["response"] for trace_id in verified if by_id[trace_id]["response"]
    }


def test_no_arm_has_a_trace_with_a_control_token() -> None:
    bad = _trace(0, right=True, accepted=True) | {"text": "<think>\n3<|im_start|>\n</think>\n\n3"}
    candidates = _candidates(
        [bad, _trace(1, right=True, accepted=True) | {"text": "<think>\n|x| < 3 > |y|\n</think>\n\n3"}]
    )
    assert [_ids(arm_rows(candidates, kind)) for kind in ("all", "verified", "selected", "answers")] == [["t1"]] * 4


@given(TRACES, st.floats(0.05, 0.95))
def test_no_problem_of_the_start_is_in_an_arm(candidates: pa.Table, share: float) -> None:
    first, rest = split_start(candidates, share)
    assert sorted(_ids(first) + _ids(rest)) == sorted(_ids(candidates))
    assert not set(first["problem_id"].to_pylist()) & set(rest["problem_id"].to_pylist())


@given(TRACES)
def test_the_start_learns_the_form_of_traces_and_no_number_of_theirs(candidates: pa.Table) -> None:
    selected, start = _said(arm_rows(candidates, "selected")), _said(start_rows(candidates))
    form = {trace_id: re.sub(r"\d", "0", text) for trace_id, text in selected.items()}
    assert {trace_id: re.sub(r"\d", "0", text) for trace_id, text in start.items()} == form
    many = _candidates([_trace(number, right=True, accepted=True) for number in range(200)])
    digits = [
        re.sub(r"\D", "", "".join(_said(rows).values())) for rows in (arm_rows(many, "selected"), start_rows(many))
    ]
    same = np.mean([one == other for one, other in zip(*digits, strict=True)])
    assert 0.02 < same < 0.2  # a tenth by chance


def test_an_arm_is_a_table_that_training_reads(tmp_path: Path) -> None:
    rows = arm_rows(_candidates([_trace(number, right=number % 2 == 0) for number in range(6)]), "verified")
    write_arm(rows, tmp_path / "c")
    table = open_table(open_data(str(tmp_path / "c")), TABLE)
    assert table is not None
    read = [row for batch in table.rows() for row in batch]
    assert [row.completion for row in read] == list(_said(rows).values())


def test_fresh_problems_were_not_asked_and_come_once() -> None:
    job = parse_config(_plan().job(), origin="run")
    first = list(fresh_problems(job, [], size=30, seed=5))
    asked = [problem["problem"] for problem in first[::3]]
    again = [problem["problem"] for problem in fresh_problems(job, asked, size=30, seed=5)]
    assert len(first) > 40
    assert sorted(again) == sorted({problem["problem"] for problem in first} - set(asked))
    assert list(questions(_candidates([_trace(0, right=True)]))) == ["What is 0?"]


@pytest.mark.parametrize("name", shipped_plans())
def test_shipped_plans_are_small_students_of_one_start(name: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    plan = load_plan(name)
    assert plan.start is not None
    for student in plan.students:
        base = plan.students[student]
        assert base.model is None
        assert base.shape is not None
        kind = {"qwen": "qwen2", "llama": "llama"}[base.family]
        config = AutoConfig.for_model(
            kind,
            vocab_size=base.shape.vocabulary,
            hidden_size=base.shape.hidden,
            intermediate_size=base.shape.intermediate,
            num_hidden_layers=base.shape.layers,
            num_attention_heads=base.shape.heads,
            num_key_value_heads=base.shape.kv_heads,
            tie_word_embeddings=base.shape.tied,
        )
        assert AutoModelForCausalLM.from_config(config).num_parameters() <= 1_000_000
    recipes = {plan.recipe(one.student, seed=one.seed).train.max_steps for one in students_of(plan)}
    assert recipes == {plan.train.max_steps}


def test_the_plan_of_the_proof_is_what_was_asked_for() -> None:
    plan = load_plan("miniature")
    assert dict(plan.arms) == {"a": "answers", "b": "all", "c": "verified", "d": "selected"}
    assert len(plan.seeds) == 3
    assert {base.family for base in plan.students.values()} == {"qwen", "llama"}
    assert set(plan.compare) == {("c", "a"), ("c", "b"), ("d", "c")}
    assert plan.job()["select"]["rule"] == "shortest_correct"
    assert plan.equal_tokens is not None
    job = parse_config(plan.job(), origin="run")
    assert len(job.sources) >= 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": [["c", "x"]]}, "no arm 'x'; there are a, c"),
        ({"run": None}, "without `run` every arm is a folder"),
        ({"equal_tokens": {"seed": 9, "arm": "c"}}, r"equal_tokens.seed=9 must be one of seeds=\[0\]"),
        ({"fresh": {"set": ["prompt.template=boxed"]}}, "asked as they are trained"),
    ],
)
def test_a_plan_that_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _plan(**changes)


def test_a_plan_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'miniature'"):
        load_plan("miniatur")
    with pytest.raises(ConfigError, match="learning_rat"):
        load_plan("three-minutes", ["train.learning_rat=1"])


def test_a_folder_keeps_its_plan(tmp_path: Path) -> None:
    claim(_plan(), tmp_path)
    claim(_plan(), tmp_path)
    with pytest.raises(FingerprintError, match="another plan; seeds differ"):
        claim(_plan(seeds=[0, 1]), tmp_path)


def test_more_problems_and_less_scatter_detect_less() -> None:
    assert detectable(100, 0.5) == pytest.approx(0.14)
    assert detectable(400, 0.5) == pytest.approx(0.07)


def test_the_second_look_stands_beside_the_students_that_it_was_made_equal_to() -> None:
    plan = _plan(seeds=[0, 1], equal_tokens={"seed": 1, "arm": "c"})
    student = next(iter(plan.students))
    arms = list(plan.arms)
    first = [replace(_student(arm, seed, {"p": 0.0}), student=student) for seed in (0, 1) for arm in arms]
    second = [replace(one, is_equal_tokens=True) for one in first if one.seed == 1 and one.arm != "c"]
    assert equal_look(plan, first) == []
    found = equal_look(plan, first + second)
    assert [(one.arm, one.seed, one.is_equal_tokens) for one in found] == [(arm, 1, arm != "c") for arm in arms]


def _student(arm: str, seed: int, rates: dict[str, float]) -> Student:
    return Student(
        name=f"s-{arm}-{seed}",
        student="s",
        arm=arm,
        seed=seed,
        is_equal_tokens=False,
        rates=rates,
        groups={},
        num_unjudged=0,
        truncated=0,
        mean_tokens=1.0,
        steps=1,
        seen_tokens=1,
        learnt_tokens=1,
        last_loss=0.0,
    )


def test_arms_are_compared_problem_by_problem_over_the_runs_that_both_have() -> None:
    students = [
        _student("a", 0, {"p": 0.0, "q": 1.0, "r": 0.0}),
        _student("c", 0, {"p": 1.0, "q": 1.0, "s": 0.0}),
        _student("a", 1, {"p": 0.0, "q": 0.0}),
        _student("c", 1, {"p": 1.0, "q": 0.0}),
        _student("c", 2, {"p": 0.0, "q": 0.0}),
    ]
    found = compare(students, "c", "a", {"p": "sum", "q": "gcd"})
    assert found is not None
    assert found.num_problems == 2
    assert found.difference == pytest.approx(0.5)
    assert found.by_run == {"s-0": 0.5, "s-1": 0.5}
    assert found.by_group == {"gcd": 0.0, "sum": 1.0}
    other = compare(students, "a", "c", {})
    assert other is not None
    assert other.difference == -found.difference
    assert compare(students, "c", "b", {}) is None


def test_the_interval_of_runs_is_that_of_drawn_tables_and_wider_when_runs_differ() -> None:
    rng = np.random.default_rng(1)
    alike = rng.normal(0.1, 0.5, (6, 300))
    apart = alike + rng.normal(0, 0.3, (6, 1))
    drawn = []
    for _ in range(4_000):
        runs, problems = rng.integers(0, 6, 6), rng.integers(0, 300, 300)
        drawn.append(apart[runs][:, problems].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    found, narrow = interval_of_runs(apart), interval_of_runs(alike)
    assert found is not None
    assert narrow is not None
    assert found == pytest.approx((low, high), abs=0.03)
    assert found.high - found.low > 2 * (narrow.high - narrow.low)
    assert interval_of_runs(alike[:1]) is None


def test_a_step_that_fails_says_its_command_and_its_log_and_one_that_is_done_is_not_run(tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.touch()
    words = ["prove", "no-such-plan"]
    run_steps([Step(name="done", words=words, needs=(), makes=done)], tmp_path, print, 1)
    with pytest.raises(FactoryError, match=r"(?s)exit code 2.*neither a file nor a plan.*factory prove no-such-plan"):
        run_steps([Step(name="bad", words=words, needs=(), makes=tmp_path / "never")], tmp_path, print, 1)


def test_what_every_start_of_a_step_took_is_kept_and_one_whose_end_is_not_known_is_counted(tmp_path: Path) -> None:
    bad = Step(name="bad", words=["prove", "no-such-plan"], needs=(), makes=tmp_path / "never")
    for _ in range(2):
        with pytest.raises(FactoryError):
            run_steps([bad], tmp_path, print, 1)
    note(tmp_path, "bad", None)  # and killed with the command
    with pytest.raises(KeyboardInterrupt), timed(tmp_path, "all"):
        raise KeyboardInterrupt
    with (tmp_path / "times.jsonl").open("a") as file:
        file.write('{"part": "bad", "sec')  # torn
    found = read_times(tmp_path)
    assert (found["bad"].num_starts, found["bad"].num_lost) == (3, 1)
    assert 0.2 < found["bad"].seconds < 60
    assert (found["all"].num_starts, found["all"].num_lost) == (1, 0)
    assert read_times(tmp_path / "before") == {}


def _proof(out: Path, plan: Plan) -> None:
    """Write what a proof of a plan leaves that the report reads, of students that answered one problem."""
    claim(plan, out)
    (out / "evaluations").mkdir()
    for one in [Trained(student="qwen"), *students_of(plan)]:
        folder = out / "students" / one.name
        (folder / "rows").mkdir(parents=True)
        table = pa.table({"input_ids": [[1, 2]], "labels": [[-100, 2]]})
        with pa.OSFile(str(folder / "rows" / "train.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as to:
            to.write_table(table)
        (folder / "rows" / "tokens.json").write_text('{"input_ids": 2, "labels": 1}')
        (folder / "progress.jsonl").write_text('{"step": 20, "loss": 1.0}\n')
        scores = {
            "counted": {"requested": 1, "judged": 1, "truncated": 0},
            "groups": {},
            "lengths": {},
            "problems": [{"row_id": "1", "num_judged": 1, "num_right": 1}],
        }
        (out / "evaluations" / f"{one.name}.json").write_text(json.dumps(scores))


def test_the_report_says_how_long_each_arm_took_and_what_was_not_recorded(tmp_path: Path) -> None:
    plan = load_plan("three-minutes")
    _proof(tmp_path, plan)
    before = as_markdown(read_report(tmp_path))
    assert "| a | 1 | not recorded | not recorded | 2 |" in before
    assert "The command, but for a second look, took: not recorded, of the 3 that the plan allows." in before
    note(tmp_path, "all", None)
    note(tmp_path, "train qwen-a-0", None)
    begun = as_markdown(read_report(tmp_path))
    assert "| a | 1 | not recorded | not recorded | 2 |" in begun
    assert (
        "took: not recorded, of the 3 that the plan allows; 1 start(s) without an end, killed or still at wo" in begun
    )
    (tmp_path / "times.jsonl").unlink()
    for part, seconds in (
        ("run", 30.0),
        ("train qwen-start", 6.0),
        ("evaluate qwen-start", 12.0),
        ("train qwen-a-0", 60.0),
        ("train qwen-a-0", 30.0),
        ("evaluate qwen-a-0", 36.0),
        ("all", 150.0),
    ):
        note(tmp_path, part, None)
        note(tmp_path, part, seconds)
    note(tmp_path, "all", None)
    said = as_markdown(read_report(tmp_path))
    assert "| start | 1 | 0.1 | 0.2 |  |" in said
    assert "| a | 1 | 1.5 | 0.6 |  |" in said
    assert "| c | 1 | not recorded | not recorded | 2 |" in said
    assert "| **sum** | 3 | 1.6 | 0.8 | 2 |" in said
    assert "The run took 0.5 minutes in 1 start(s)." in said
    assert (
        "The command, but for a second look, took 2.5 minutes in 2 start(s), of the 3 that the plan allows; of 1 of "
        "them the end is not known, and they are not in it." in said
    )


def test_the_time_that_a_plan_allows_is_no_part_of_what_a_folder_keeps(tmp_path: Path) -> None:
    body = load_plan("three-minutes").model_dump(mode="json")
    del body["minutes"]  # a plan of before
    (tmp_path / "plan.json").write_text(json.dumps(body, indent=1))
    claim(load_plan("three-minutes"), tmp_path)
    with pytest.raises(FingerprintError, match="another plan; seeds differ"):
        claim(_plan(seeds=[0, 1]), tmp_path)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_the_proof_in_three_minutes_is_killed_goes_on_and_tells_all_arms(tmp_path: Path) -> None:
    out = tmp_path / "proof"
    command = [sys.executable, "-m", "jobs", "prove", "three-minutes", "--out", str(out), "--workers", "2"]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while not (out / "students" / "qwen-start" / "rows").exists():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    stamp = (out / "run.json").stat().st_mtime_ns
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1100)
    assert again.returncode == 0, again.stderr
    assert (out / "run.json").stat().st_mtime_ns == stamp
    shown = subprocess.run(
        [*command[:-2], "--report", "--json"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(shown.stdout)
    assert [student["arm"] for student in found["students"]] == ["start", "a", "c"]
    assert found["missing"] == []
    assert all(part["training"] > 0 < part["evaluation"] for part in found["times"])
    assert found["spent"]["all"]["num_lost"] == 1  # the start that was killed
    assert [student["steps"] for student in found["students"]] == [20, 20, 20]
    assert all(student["num_unjudged"] == 0 for student in found["students"])
    assert all(len(student["rates"]) == found["num_problems"] for student in found["students"])
    assert found["comparisons"][0]["num_problems"] == found["num_problems"] > 40
    assert "| c - a |" in again.stdout
    rows = pq.read_table(out / "arms" / "a" / TABLE)
    assert all(turn[0]["content"].startswith(NO_THINKING) for turn in rows["completion"].to_pylist())
    assert yaml.safe_load((out / "job.yaml").read_text())["select"]["rule"] == "shortest_correct"
