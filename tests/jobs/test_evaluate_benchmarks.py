"""Benchmarks as they come from the Hub: small files of each shape, made here; what an evaluation makes of them."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from factory.sources import load_problems
from jobs.evaluate.benchmarks import (
    BENCHMARKS,
    Window,
    find_benchmark,
    freeze_benchmark,
    read_about,
    read_frozen,
    refuse_evaluation,
    unpacked,
    window_of,
)
from jobs.evaluate.job import PRESETS, Asked, load_preset, prepare
from schemas.config import OpenaiTeacher, ReplayTeacher
from schemas.errors import ConfigError
from schemas.problem import Answer, Choice, Problem, Tests
from tests.runs import make_problem, start_run


def packed(cases: list[dict[str, str]]) -> str:
    """Return tests as LiveCodeBench packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def live(number: int, date: str, difficulty: str) -> dict[str, Any]:
    cases = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    return {
        "question_title": "Next",
        "question_content": f"Print the number after the one given. ({number})",
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_id": f"abc{number}",
        "contest_date": date,
        "starter_code": "",
        "difficulty": difficulty,
        "public_test_cases": json.dumps(cases),
        "private_test_cases": packed([{"input": "5\n", "output": "6\n", "testtype": "stdin"}]),
        "metadata": "{}",
    }


def forces(number: int, rating: int) -> dict[str, Any]:
    return {
        "id": f"{number}/A",
        "contest_id": str(number),
        "rating": rating,
        "title": "Next",
        "description": f"Print the number after the one given. ({number})",
        "input_format": "A number.",
        "output_format": "A number.",
        "official_tests": [{"input": "1\n", "output": "2\n"}],
        "examples": [{"input": "1\n", "output": "2\n"}],
        "time_limit": 1.0,
        "memory_limit": 256.0,
    }


ROWS: Mapping[str, list[dict[str, Any]]] = {
    "aime24": [
        {"ID": "2024-I-1", "Problem": "What is 200 + 4?", "Solution": "It is 204.", "Answer": 204},
        {"ID": "2024-I-2", "Problem": "What is 20 + 5?", "Solution": "It is 25.", "Answer": 25},
    ],
    "aime25": [{"question": "What is 60 + 10?", "answer": "70"}, {"question": "What is 5 * 5?", "answer": "025"}],
    "math500": [
        {
            "problem": f"What is {n} / 2?",
            "solution": "?",
            "answer": f"\\frac{{{n}}}{{2}}",
            "subject": "Prealgebra",
            "level": n,
            "unique_id": f"test/prealgebra/{n}.json",
        }
        for n in (1, 3)
    ],
    "gpqa": [
        {
            "Question": f"Which is the {word}?",
            "Correct Answer": word,
            "Incorrect Answer 1": "third",
            "Incorrect Answer 2": "fourth",
            "Incorrect Answer 3": "fifth",
            "High-level domain": domain,
        }
        for word, domain in (("first", "Physics"), ("second", "Biology"))
    ],
    "livecodebench": [live(1, "2024-07-28T00:00:00", "easy"), live(2, "2024-11-02T00:00:00", "hard")],
    "codeforces": [forces(1900, 800), forces(1901, 1600)],
    "gsm8k": [
        {"question": f"Ann has {n} eggs and gets 1,000 more. How many?", "answer": f"So {n}+1000.\n#### 1,00{n}"}
        for n in (1, 2)
    ],
    "humaneval": [
        {
            "task_id": f"HumanEval/{n}",
            "prompt": f'def f{n}() -> int:\n    """Return {n}."""\n',
            "canonical_solution": f"    return {n}\n",
            "test": f"def check(candidate):\n    assert candidate() == {n}\n",
            "entry_point": f"f{n}",
        }
        for n in (1, 2)
    ],
    "functions": [
        {"id": str(n), "question": f"Write f{n} that returns {n}.", "entry": f"f{n}", "tests": [case]}
        for n, case in ((1, {"args": [], "expected": 1}), (2, {"args": [], "expected": 2}))
    ],
    "answers": [{"id": str(n), "problem": f"What is {n} + 1?", "answer": str(n + 1)} for n in (1, 2)],
}
KINDS = {"gpqa": Choice, "livecodebench": Tests, "codeforces": Tests, "humaneval": Tests, "functions": Tests}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as what the name of the file says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems_of(asked: Asked) -> list[Problem]:
    """Return the problems that the engine would read for an evaluation."""
    loaded = load_problems(prepare(asked).job.sources, max_problems=None)
    assert not loaded.quarantined, loaded.quarantined
    return loaded.problems


def asked(tmp_path: Path, name: str, data: Path | None, **more: Any) -> Asked:
    return Asked(benchmark=name, data=data, model="m", samples=2, run=tmp_path / "run", **more)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_row_of_a_known_shape_becomes_a_problem(tmp_path: Path, name: str, suffix: str) -> None:
    rows = ROWS[name]
    if name == "functions" and suffix == "parquet":
        rows = [
            {**row, "tests": [{k: json.dumps(v) for k, v in case.items()} for case in row["tests"]]} for row in rows
        ]
    problems = problems_of(asked(tmp_path, name, write(tmp_path / f"{name}.{suffix}", rows), all_dates=True))
    assert len(problems) == len(rows)
    assert all(isinstance(problem.reference, KINDS.get(name, Answer)) for problem in problems)
    assert set(read_frozen(tmp_path / "run", BENCHMARKS[name])) == {problem.source_row_id for problem in problems}


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if not name.startswith("aime")])
def test_a_file_is_known_by_its_columns(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "unnamed.jsonl", ROWS[name])
    assert find_benchmark(str(path), None) == (BENCHMARKS[name], path)


def test_what_a_benchmark_knows_of_its_items_is_kept(tmp_path: Path) -> None:
    problems_of(asked(tmp_path, "codeforces", write(tmp_path / "c.jsonl", ROWS["codeforces"])))
    rows = read_frozen(tmp_path / "run", BENCHMARKS["codeforces"])
    assert rows["1901/A"] == {"rating": 1600, "contest_id": "1901", "contest_start": None}


def test_the_order_of_options_is_the_same_each_time_and_not_always_the_same_letter(tmp_path: Path) -> None:
    rows = [{**ROWS["gpqa"][0], "Question": f"Which comes at place {n}?"} for n in range(20)]
    path = write(tmp_path / "g.jsonl", rows)
    first = problems_of(asked(tmp_path, "gpqa", path))
    again = problems_of(asked(tmp_path, "gpqa", path))
    assert first == again
    letters = {problem.reference.letter for problem in first if isinstance(problem.reference, Choice)}
    assert letters == set("ABCD")


# LiveCodeBench.


def test_hidden_tests_are_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ROWS["livecodebench"])
    (problem, _) = problems_of(asked(tmp_path, "livecodebench", path, all_dates=True))
    assert isinstance(problem.reference, Tests)
    assert [getattr(case, "input", None) for case in problem.reference.cases] == ["1\n", "5\n"]


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("harmless", [{"a": "b"}, ["x", "y"], 3, b"[]"])
def test_a_pickle_that_is_not_one_text_is_never_opened(tmp_path: Path, harmless: object) -> None:
    for value in (Attack(tmp_path / "made"), harmless):
        row = {"question_id": "q", "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(value))).decode()}
        with pytest.raises(ConfigError, match="question_id 'q': private_test_cases: its pickle"):
            unpacked(row)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["rubbish!", base64.b64encode(b"no zlib").decode()])
def test_tests_packed_another_way_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is neither JSON nor packed"):
        unpacked({"question_id": "q", "private_test_cases": text})


def test_a_window_of_dates_chooses_rows_and_stands_in_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ROWS["livecodebench"])
    window = Window("2024-08-01", "2025-02-01")
    (problem,) = problems_of(asked(tmp_path, "livecodebench", path, window=window))
    assert problem.source_row_id == "abc2_a"
    about = read_about(tmp_path / "run")
    assert about is not None
    assert (about.window, about.num_rows, about.num_kept) == (window, 2, 1)
    with pytest.raises(ConfigError, match="holds no row from 2030-01-01"):
        freeze_benchmark(BENCHMARKS["livecodebench"], path, Window("2030-01-01", None), tmp_path / "other")
    with pytest.raises(ConfigError, match="rows of gsm8k have no dates"):
        freeze_benchmark(BENCHMARKS["gsm8k"], path, Window("2030-01-01", None), tmp_path / "other")


WINDOW = Window("2024-08-01", "2025-02-01")  # arXiv:2501.12948v1, section 3: "between August 2024 and January 2025"


@pytest.mark.parametrize("column", ["contest_date", "release_date"])
@pytest.mark.parametrize(
    "dates",
    [
        ["2024-07-31T23:59:59", "2024-08-01T00:00:00", "2025-01-31T23:59:59", "2025-02-01T00:00:00"],
        ["2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01"],
        [1_722_470_399, 1_722_470_400, 1_738_367_999, 1_738_368_000],
        [1_722_470_399_000, 1_722_470_400_000, 1_738_367_999_000, 1_738_368_000_000],
    ],
    ids=["times", "days", "seconds", "milliseconds"],
)
def test_the_preset_takes_the_problems_of_the_papers_window(tmp_path: Path, column: str, dates: list[Any]) -> None:
    rows = [live(number, "", "easy") | {column: date} for number, date in enumerate(dates)]
    prepared = prepare(asked(tmp_path, "livecodebench", write(tmp_path / "l.jsonl", rows)))
    assert list(read_frozen(tmp_path / "run", BENCHMARKS["livecodebench"])) == ["abc1_a", "abc2_a"]
    assert (prepared.about.window, prepared.about.num_kept, prepared.about.num_rows) == (WINDOW, 2, 4)


def test_other_dates_or_all_of_them_take_the_place_of_the_presets(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ROWS["livecodebench"])

    def kept(run: str, **more: Any) -> tuple[Window, int]:
        about = prepare(replace(asked(tmp_path, "livecodebench", path), run=tmp_path / run, **more)).about
        return about.window, about.num_kept

    assert kept("a") == (WINDOW, 1)
    assert kept("b", all_dates=True) == (Window(), 2)
    assert kept("c", window=Window("2024-01-01", None)) == (Window("2024-01-01", None), 2)
    recorded = write(tmp_path / "r.jsonl", [{"problem": "p", "completion": "c"}])
    assert kept("d", model=None, replay=recorded) == (Window(), 2)  # nobody's settings
    assert kept("e", model=None, replay=recorded, preset="r1") == (WINDOW, 1)
    with pytest.raises(ConfigError, match="--all-dates and --since 2024-01-01: give one of them"):
        kept("f", all_dates=True, window=Window("2024-01-01", None))


@pytest.mark.parametrize("date", [None, "", "soon", "08/01/2024", 1e30])
def test_a_row_without_a_date_is_named_where_the_preset_chooses_by_it(tmp_path: Path, date: Any) -> None:
    rows = [ROWS["livecodebench"][1], live(3, "", "easy") | {"contest_date": date}]
    path = write(tmp_path / "l.jsonl", rows)
    said = (
        r"l\.jsonl row 2: has no date in contest_date or release_date, and preset r1 takes rows from 2024-08-01 to "
        r"before 2025-02-01; give a file that has dates, or --all-dates"
    )
    with pytest.raises(ConfigError, match=said):
        prepare(asked(tmp_path, "livecodebench", path))
    assert not (tmp_path / "run").exists()
    assert prepare(asked(tmp_path, "livecodebench", path, all_dates=True)).about.num_kept == 2


def test_a_window_without_rows_says_whose_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ROWS["livecodebench"][:1])
    with pytest.raises(ConfigError, match=r"holds no row from .* \(preset r1\); --all-dates takes every row"):
        prepare(asked(tmp_path, "livecodebench", path))


def test_a_run_that_was_begun_with_other_dates_says_which(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ROWS["livecodebench"])
    problems = problems_of(asked(tmp_path, "livecodebench", path, all_dates=True))
    start_run(tmp_path / "run", problems, num_samples=2)
    with pytest.raises(ConfigError, match=r"rows of all dates, and this is .* or the dates that .*: --all-dates"):
        prepare(asked(tmp_path, "livecodebench", path))


def test_a_date_in_seconds_is_one_too(tmp_path: Path) -> None:
    rows = [{**forces(1, 800), "contest_start": 1_704_067_199}, {**forces(2, 800), "contest_start": 1_704_067_200}]
    path = write(tmp_path / "c.jsonl", rows)  # a second before 2024, and its first
    (problem,) = problems_of(asked(tmp_path, "codeforces", path, window=Window("2024-01-01", None)))
    assert problem.source_row_id == "2/A"


@pytest.mark.parametrize(("since", "before"), [("2024-8-1", None), (None, "soon"), ("2025-01-01", "2025-01-01")])
def test_a_window_is_made_of_dates(since: str | None, before: str | None) -> None:
    with pytest.raises(ConfigError, match=r"--since|--before"):
        window_of(since, before)


# What is refused, and what a run must stay.


def test_a_run_stays_an_evaluation_of_the_same_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    problems = problems_of(asked(tmp_path, str(path), None))
    frozen = tmp_path / "run" / "benchmark" / "rows.jsonl"
    changed_at = frozen.stat().st_mtime_ns
    start_run(tmp_path / "run", problems, num_samples=2)
    problems_of(asked(tmp_path, str(path), None))
    assert frozen.stat().st_mtime_ns == changed_at  # so that its sources are not read again
    write(path, ROWS["answers"][:1])
    with pytest.raises(ConfigError, match=r"evaluates answers, a\.jsonl .* give another folder by --run"):
        prepare(asked(tmp_path, str(path), None))


def test_rows_of_a_benchmark_never_enter_a_run_that_is_no_evaluation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    start_run(tmp_path / "run", [make_problem(0)], num_samples=2)
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(ConfigError, match="holds a run that is no evaluation; give another --run"):
        prepare(asked(tmp_path, str(path), None))
    assert sorted((tmp_path / "run").rglob("*")) == before
    refuse_evaluation(tmp_path / "run")
    prepare(replace(asked(tmp_path, str(path), None), run=tmp_path / "evaluation"))
    with pytest.raises(ConfigError, match="its rows are never training data; give another --run, or go on by factory"):
        refuse_evaluation(tmp_path / "evaluation")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm9k", "did you mean 'gsm8k'"),
        ("gsm8k", "give its file by --data FILE.*openai/gsm8k"),
        ("odd.jsonl", "no known benchmark has the columns of its rows"),
        ("broken.jsonl", "broken.jsonl line 2: is no JSON: Expecting property name"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "odd.jsonl", [{"a": 1}])
    (tmp_path / "broken.jsonl").write_text('{"problem": "p", "answer": "a"}\n{')
    with pytest.raises(ConfigError, match=said):
        prepare(asked(tmp_path, name, None))


# The job.


def test_an_evaluation_leaves_no_item_out_and_ends_no_attempt_early(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    job = prepare(asked(tmp_path, str(path), None)).job
    clean = job.schedule.clean
    assert (clean.against, clean.near_duplicates, clean.audit, job.schedule.early_abort) == ((), None, False, None)
    assert job.select.configs == ("candidates", "runs")  # never training data
    assert (job.sampling.temperature, job.sampling.top_p, job.sampling.max_tokens) == (0.6, 0.95, 32_768)


def test_two_students_have_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = write(tmp_path / "a.jsonl", ROWS["answers"])
    runs = [
        prepare(Asked(benchmark=str(rows), model=model, samples=1)).run
        for model in ("runs/students/a/model", "runs/students/b/model", "org/named")
    ]
    assert [run.name for run in runs] == ["evaluate-a-answers", "evaluate-b-answers", "evaluate-named-answers"]


def test_a_preset_says_how_many_attempts_or_the_user_does(tmp_path: Path) -> None:
    aime = write(tmp_path / "a.jsonl", ROWS["aime24"])
    by_preset = Asked(benchmark="aime24", data=aime, model="m", run=tmp_path / "run")
    assert prepare(by_preset).job.sampling.num_samples == 64
    gsm8k = write(tmp_path / "g.jsonl", ROWS["gsm8k"])
    with pytest.raises(ConfigError, match="preset r1 does not say how many for gsm8k"):
        prepare(Asked(benchmark="gsm8k", data=gsm8k, model="m", run=tmp_path / "other"))


def test_every_preset_can_be_loaded_and_names_known_benchmarks() -> None:
    for path in PRESETS.glob("*.yaml"):
        preset = load_preset(path.stem)
        assert {*preset.samples, *preset.windows} <= set(BENCHMARKS)
        assert all(BENCHMARKS[name].date for name in preset.windows)
    with pytest.raises(ConfigError, match="there are: r1"):
        load_preset("r2")


def test_a_job_file_lends_its_teacher_and_a_recording_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    body = {"name": "x", "sources": [], "teacher": {"kind": "scripted"}, "sampling": {"max_tokens": 99}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(body))
    lent = prepare(Asked(benchmark=str(path), job=tmp_path / "job.yaml", samples=3, run=tmp_path / "run")).job
    assert (lent.teacher.kind, lent.sampling.max_tokens, lent.sampling.num_samples) == ("scripted", 99, 3)
    rows = [{**row, "completion": "2", "is_correct": True} for row in ROWS["answers"]]
    recorded = write(tmp_path / "r.jsonl", rows)
    teacher = prepare(Asked(benchmark=str(path), replay=recorded, run=tmp_path / "run")).job.teacher
    assert isinstance(teacher, ReplayTeacher)
    assert (teacher.columns.completion, teacher.columns.label) == ("completion", "is_correct")


def test_an_endpoint_is_asked_for_its_model_with_the_name_of_a_key(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    who = Asked(benchmark=str(path), model="org/m", endpoint="http://x/v1", api_key_env="KEY", samples=1)
    found = prepare(replace(who, run=tmp_path / "run")).job.teacher
    assert isinstance(found, OpenaiTeacher)
    assert (found.model, found.base_url, found.api_key_env) == ("org/m", "http://x/v1", "KEY")


@pytest.mark.parametrize(
    "who",
    [{}, {"model": "m", "replay": Path("r")}, {"endpoint": "http://x/v1"}, {"job": Path("j"), "replay": Path("r")}],
)
def test_it_must_be_clear_who_is_evaluated(tmp_path: Path, who: dict[str, Any]) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["answers"])
    with pytest.raises(ConfigError, match="--model"):
        prepare(Asked(benchmark=str(path), samples=1, run=tmp_path / "run", **who))
