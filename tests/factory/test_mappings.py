"""Ready mappings of known datasets, on small rows of their shapes that we made."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory.columns import column_problem
from factory.mappings import READY
from factory.rows import Row, RowError
from factory.sources import load_problems
from schemas.config import READY_MAPPINGS, FileSource
from schemas.errors import ConfigError, SourceError
from schemas.problem import (
    Answer,
    AssertTest,
    Choice,
    Domain,
    FunctionTest,
    Problem,
    QuarantineReason,
    StdinTest,
    Tests,
)
from schemas.verdict import Reason
from verifiers.code import judge_program
from verifiers.sandbox import Sandbox
from verifiers.sandbox.slots import TIERS

ADD = "def add(a, b):\n    return a + b\n"
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps([{"input": "9", "output": "9"}])))).decode()

SPLIT_CHECKER = """
import sys

def main(input_path, output_path, submission_path):
    with open(input_path) as file:
        n = int(file.read())
    with open(submission_path, encoding="utf-8") as file:
        parts = list(map(int, file.read().split()))
    if len(parts) != 2 or min(parts) < 1 or sum(parts) != n:
        print(0)
        sys.exit()
    print(1)

if __name__ == "__main__":
    main(*sys.argv[1:4])
"""

# One good row of each shape; our own texts.
ROWS: dict[str, dict[str, Any]] = {
    "numina_math_cot": {"source": "own", "problem": "What is 2 + 2?", "solution": r"So \boxed{3}, no: \boxed{4}."},
    "numina_math_1.5": {
        "problem": "What is 2 + 2?",
        "solution": "...",
        "answer": "4",
        "question_type": "math-word-problem",
    },
    "openr1_math": {"problem": "What is 2 + 2?", "answer": "4", "uuid": "u-1", "generations": ["..."]},
    "math": {"problem": "What is half of 1?", "level": "Level 1", "solution": r"It is $\boxed{\frac{1}{2}}$."},
    "math500": {"problem": "What is 2 + 2?", "answer": "4", "unique_id": "test/own/1.json", "subject": "own"},
    "gsm8k": {"question": "Two thousand and one more?", "answer": "2000 + 1 = <<2000+1=2001>>2001\n#### 2,001"},
    "aime": {"ID": "own-1", "Problem": "What is 2 + 2?", "Answer": 4, "Solution": "..."},
    "humaneval": {
        "task_id": "Own/0",
        "prompt": 'def add(a, b):\n    """Return the sum."""\n',
        "entry_point": "add",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    },
    "mbpp": {
        "task_id": 7,
        "text": "Write a function that adds two numbers.",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
        "test_setup_code": "import math",
    },
    "livecodebench": {
        "question_id": "own_a",
        "question_content": "Print the sum.",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": PACKED,
        "metadata": "{}",
    },
    "taco": {
        "question": "Add two numbers.",
        "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}),
        "starter_code": "def add(a, b):\n",
    },
    "apps": {
        "problem_id": 12,
        "question": "Print the sum.",
        "input_output": json.dumps({"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", "7\n"]}),
        "starter_code": "",
    },
    "code_contests": {
        "name": "own_b",
        "description": "Print the sum.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": ["5 5\n"], "output": ["10\n"]},
        "generated_tests": {"input": [], "output": []},
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
        "memory_limit_bytes": 256 << 20,
    },
    "codeforces": {
        "id": "1/A",
        "title": "Split",
        "description": "Write n as a sum of two positive numbers.",
        "input_format": "One number n.",
        "output_format": "Two numbers.",
        "interaction_format": None,
        "note": None,
        "examples": [{"input": "5\n", "output": "2 3\n"}],
        "official_tests": [{"input": "5\n", "output": "2 3\n"}, {"input": "9\n", "output": "1 8\n"}],
        "time_limit": 1.5,
        "memory_limit": 256.0,
        "input_mode": "stdio",
        "generated_checker": SPLIT_CHECKER,
    },
    "function_tests": {
        "id": "own_c",
        "question": "Add two numbers.",
        "entry": "add",
        "tests": [{"args": "[1, 2]", "expected": "3"}, {"args": "[[1], [2]]", "expected": "[1, 2]"}],
    },
    "openthoughts": {
        "problem": "Print the sum.",
        "deepseek_reasoning": "hm",
        "deepseek_solution": "...",
        "domain": "code",
        "test_cases": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "starter_code": "",
    },
    "mixture_of_thoughts": {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "..."}],
        "num_tokens": 7,
        "source": "open-r1/codeforces-cots",
    },
    "synthetic1": {
        "problem_id": "own_d",
        "task_type": "verifiable_math",
        "prompt": "What is 2 + 2?",
        "verification_info": json.dumps({"ground_truth": "4"}),
        "llm_response": "...",
    },
    "openmathreasoning": {"problem": "What is 2 + 2?", "expected_answer": "4", "inference_mode": "cot"},
    "gpqa": {
        "Question": "Which planet is the largest?",
        "Correct Answer": "Jupiter",
        "Incorrect Answer 1": "Mars",
        "Incorrect Answer 2": "Venus",
        "Incorrect Answer 3": "Saturn\n",
    },
}
ANSWERS = {
    "numina_math_cot": "4",
    "numina_math_1.5": "4",
    "openr1_math": "4",
    "math": r"\frac{1}{2}",
    "math500": "4",
    "gsm8k": "2001",
    "aime": "4",
    "synthetic1": "4",
    "openmathreasoning": "4",
}


def source(name: str, path: str = "x.jsonl", **more: Any) -> FileSource:
    kind = "parquet" if path.endswith(".parquet") else "jsonl"
    return FileSource.model_validate({"kind": kind, "path": path, "columns": name, **more})


def problem_of(name: str, body: dict[str, Any], **more: Any) -> Problem:
    return column_problem(Row(1, "row 1", "1", "", body), source(name, **more), name)


def without(body: dict[str, Any], *names: str, **changed: Any) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in names} | changed


def test_every_mapping_that_a_job_may_name_is_there_and_tested() -> None:
    assert set(READY) == set(READY_MAPPINGS) == set(ROWS)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_final_answer_is_found(name: str) -> None:
    problem = problem_of(name, ROWS[name])
    assert problem.reference == Answer(text=ANSWERS[name])
    assert problem.domain is Domain.MATH


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", ROWS)
def test_a_file_of_each_shape_gives_its_problem(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        path.write_text(json.dumps(ROWS[name]) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist([ROWS[name]]), path)
    loaded = load_problems([source(name, str(path))], max_problems=None)
    assert [problem.problem_id for problem in loaded.problems] == [problem_of(name, ROWS[name]).problem_id]
    assert loaded.problems[0].license == READY[name].license


def test_what_the_job_says_wins() -> None:
    problem = problem_of("gsm8k", ROWS["gsm8k"], domain="qa", license="CC0-1.0")
    assert (problem.domain, problem.license) == (Domain.QA, "CC0-1.0")


def test_options_come_in_an_order_that_is_the_same_each_time_and_hides_the_right_one() -> None:
    rows = [without(ROWS["gpqa"], Question=f"Which planet is the largest, question {n}?") for n in range(200)]
    letters = []
    for row in rows:
        problem = problem_of("gpqa", row)
        assert isinstance(problem.reference, Choice)
        assert problem.reference == problem_of("gpqa", dict(reversed(row.items()))).reference
        letter = problem.reference.letter
        assert f"{letter}. Jupiter" in problem.question
        assert all(option in problem.question for option in ("Mars", "Venus", "Saturn"))
        letters.append(letter)
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")


def cases_of(name: str, body: dict[str, Any]) -> Tests:
    reference = problem_of(name, body).reference
    assert isinstance(reference, Tests)
    return reference


def test_programs_get_the_cases_of_their_dataset() -> None:
    assert cases_of("humaneval", ROWS["humaneval"]).cases == (
        AssertTest(entry="add", source=ROWS["humaneval"]["test"]),
    )
    assert cases_of("mbpp", ROWS["mbpp"]).cases == (
        AssertTest(entry="add", source="import math\nassert add(1, 2) == 3"),
        AssertTest(entry="add", source="import math\nassert add(0, 0) == 0"),
    )
    assert cases_of("livecodebench", ROWS["livecodebench"]).cases == (StdinTest(input="1 2\n", expected="3\n"),)
    assert cases_of("taco", ROWS["taco"]).cases == (FunctionTest(entry="add", args="[1, 2]", expected="3"),)
    assert cases_of("apps", ROWS["apps"]).cases == (
        StdinTest(input="1 2\n", expected="3\n"),
        StdinTest(input="3\n4", expected="7\n"),
    )
    assert cases_of("function_tests", ROWS["function_tests"]).cases == (
        FunctionTest(entry="add", args="[1, 2]", expected="3"),
        FunctionTest(entry="add", args="[[1], [2]]", expected="[1, 2]"),
    )
    assert cases_of("livecodebench", ROWS["livecodebench"]).compare.mode == "livecodebench"
    values = [{"args": [{"a": 1}], "expected": None}]
    assert cases_of("function_tests", {**ROWS["function_tests"], "tests": values}).cases == (
        FunctionTest(entry="add", args='[{"a": 1}]', expected="null"),
    )
    contest = cases_of("code_contests", ROWS["code_contests"])
    assert contest.cases == (StdinTest(input="1 2\n", expected="3\n"), StdinTest(input="5 5\n", expected="10\n"))
    assert (contest.limits.cpu_time_s, contest.limits.wall_time_s, contest.limits.memory_mb) == (2.5, 5.0, 256)


def test_a_published_question_asks_for_its_program_itself() -> None:
    assert cases_of("openthoughts", ROWS["openthoughts"]).cases == (StdinTest(input="1 2\n", expected="3\n"),)
    assert problem_of("openthoughts", ROWS["openthoughts"]).question == "Print the sum."
    assert "standard input" in problem_of("apps", ROWS["apps"]).question


def test_codeforces_is_judged_by_its_own_checkers() -> None:
    tests = cases_of("codeforces", ROWS["codeforces"])
    assert [case.input for case in tests.cases if isinstance(case, StdinTest)] == ["5\n", "9\n"]
    assert (tests.limits.cpu_time_s, tests.limits.wall_time_s, tests.limits.memory_mb) == (1.5, 3.0, 256)
    question = problem_of("codeforces", ROWS["codeforces"]).question
    assert "# Split" in question
    assert "```\n5\n```\n\n```\n2 3\n```" in question
    assert question.endswith("in one ```python block.")
    for tier in TIERS[:3]:  # with a folder to write in, and without
        with closing(Sandbox(num_slots=1, tier=tier)) as sandbox:
            said = [
                judge_program(program, tests, sandbox=sandbox).checks[0].reason
                for program in (
                    "print(1, int(input()) - 1)",
                    "print(0, int(input()))",
                    "print('no', 'number')",
                    "print(2, 3)",
                )
            ]
            assert said == [None, Reason.WRONG_OUTPUT, Reason.WRONG_OUTPUT, Reason.WRONG_OUTPUT]
            broken = cases_of("codeforces", {**ROWS["codeforces"], "generated_checker": "print('maybe')"})
            verdict = judge_program("print(2, 3)", broken, sandbox=sandbox)
            assert verdict.checks[0].reason is Reason.UNPARSED_REFERENCE


def test_programs_can_be_asked_for_in_cpp() -> None:
    problem = problem_of("codeforces", ROWS["codeforces"], program_language="cpp")
    assert isinstance(problem.reference, Tests)
    assert problem.reference.language == "cpp"
    assert problem.question.endswith(
        "Write a C++17 program that reads standard input and writes standard output. "
        "Give it whole, in one ```cpp block."
    )
    with pytest.raises(ValidationError, match="program_language"):
        FileSource.model_validate(
            {"kind": "jsonl", "path": "x.jsonl", "columns": {"problem": "q"}, "program_language": "cpp"}
        )


def test_functional_cases_of_livecodebench_have_one_json_value_a_line() -> None:
    case = {"input": '[1, 2]\n"x"', "output": "3", "testtype": "functional"}
    body = without(
        ROWS["livecodebench"],
        public_test_cases=json.dumps([case]),
        private_test_cases=json.dumps([case]),
        metadata=json.dumps({"func_name": "add"}),
        starter_code=ADD,
    )
    expected = FunctionTest(entry="add", args='[[1, 2], "x"]', expected="3")
    assert cases_of("livecodebench", body).cases == (expected, expected)
    assert ADD.rstrip() in problem_of("livecodebench", body).question


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("assert add(1, 2) == 3", "add"),
        ("assert (add(1, 2)) == 3", "add"),
        ("assert set(add(1, 2)) == {3}", "add"),
        ("assert math.isclose(add(1, 2), 3)", "add"),
    ],
)
def test_the_question_shows_the_name_that_the_tests_call(line: str, entry: str) -> None:
    body = without(ROWS["mbpp"], test_list=[line])
    (case,) = cases_of("mbpp", body).cases
    assert isinstance(case, AssertTest)
    assert case.entry == entry
    assert line in problem_of("mbpp", body).question


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("gsm8k", {"answer": "no mark"}, "has no '####'"),
        ("math", {"solution": "no box"}, "has no \\boxed answer"),
        ("numina_math_1.5", {"answer": "proof"}, "no final answer"),
        ("gpqa", {"Incorrect Answer 1": "Jupiter"}, "among the wrong answers"),
        ("apps", {"input_output": "{"}, "is not JSON"),
        ("apps", {"input_output": '{"inputs": ["1"], "outputs": []}'}, "stand beside 0 outputs"),
        ("apps", {"input_output": ""}, "is not JSON"),
        ("taco", {"input_output": "[" * 100_000}, "is not JSON"),
        ("mbpp", {"test_list": []}, "holds no test"),
        ("code_contests", {"public_tests": None, "private_tests": None}, "has no test"),
        ("livecodebench", {"public_test_cases": "[]"}, "has no test"),
        ("codeforces", {"input_mode": "file"}, "no problem of standard input and output"),
        ("codeforces", {"interaction_format": "Ask."}, "no problem of standard input and output"),
        ("codeforces", {"official_tests": [], "examples": None}, "has no test"),
        ("function_tests", {"tests": [{"args": "[1]"}]}, "must be an object with args and expected"),
        ("function_tests", {"tests": [{"args": "1", "expected": "1"}]}, "must be a list of arguments"),
        ("function_tests", {"tests": []}, "has no test"),
        ("livecodebench", {"public_test_cases": '[{"input": "1"}]'}, "must be objects"),
    ],
)
def test_a_row_without_what_it_needs_is_set_aside_with_the_reason(
    name: str, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RowError, match=reason.replace("\\", "\\\\")):
        problem_of(name, {**ROWS[name], **changed})


def test_a_packed_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "opened").touch, ())

    packed = base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()
    body = without(ROWS["livecodebench"], private_test_cases=packed)
    assert len(cases_of("livecodebench", body).cases) == 1
    assert not (tmp_path / "opened").exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(ROWS)), st.data())
def test_any_row_gives_a_problem_or_a_reason(name: str, data: st.DataObject) -> None:
    body = dict(ROWS[name])
    for column in data.draw(st.lists(st.sampled_from(sorted(body)), min_size=1, max_size=3)):
        body[column] = data.draw(VALUES | st.text(max_size=20).map(lambda text: f"[{text}]"))
    try:
        problem = problem_of(name, body)
    except RowError as error:
        found = error
    else:
        assert problem.question.strip()
        return
    assert found.reason in (
        QuarantineReason.BAD_VALUE,
        QuarantineReason.MISSING_COLUMN,
        QuarantineReason.UNSUPPORTED_REFERENCE,  # of synthetic1's tasks
    )
    assert found.detail


def test_a_name_that_is_no_known_dataset_is_refused_with_the_nearest() -> None:
    from schemas.config import parse_config

    body = {
        "name": "j",
        "sources": [{"kind": "jsonl", "path": "x", "columns": "gsm8"}],
        "teacher": {"kind": "scripted"},
    }
    with pytest.raises(ConfigError, match=r"'gsm8' is no known dataset; did you mean 'gsm8k'\? there are: .*humaneval"):
        parse_config(body, origin="job.yaml")


def test_a_file_of_another_shape_is_refused_before_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"q": "What?", "answer": "#### 4"}) + "\n")
    with pytest.raises(SourceError, match=r"'question'.*has no such column.*there are: answer, q"):
        load_problems([source("gsm8k", str(path))], max_problems=None)
