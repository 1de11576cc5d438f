"""The demo teacher's programming tasks: references pass their tests, nothing held out is trained on."""

import json
import re
from functools import cache
from pathlib import Path
from random import Random

import pytest

from jobs.demo_teacher import programs
from jobs.demo_teacher.card import CARD, programs_table
from jobs.demo_teacher.corpus import SLIP_SHARE, Defect, make_kind_samples, make_program_sample
from jobs.demo_teacher.families import DEMO_SEED, MEASURE_SEED, TRAIN_SEED, hash_question
from jobs.demo_teacher.measure import Attempt, defects_of, is_passed, last_program, passes_tests
from jobs.demo_teacher.program_kinds import KINDS, NUMBER_WORDS
from jobs.demo_teacher.programs import (
    MAX_TESTS,
    MIN_TESTS,
    Case,
    Task,
    break_code,
    compile_reference,
    held_out_tasks,
    make_task,
    make_tasks,
    program_rows,
    respond,
    think,
)
from jobs.demo_teacher.tokenizer import extend_tokenizer, train_tokenizer
from jobs.demo_teacher.train import WEIGHTS
from schemas.problem import Domain, FunctionTest, Message, Problem, Tests

TASKS = Path(programs.__file__).parent / "tasks.jsonl"
MAX_TASKS_BYTES = 150_000
MEASURED = json.loads((WEIGHTS / "measured.json").read_text())


@cache
def tasks_of(name: str) -> list[Task]:
    return make_tasks(KINDS[name], seed=31, size=20)


@cache
def held_out_hashes_of_tasks() -> frozenset[str]:
    return held_out_tasks()


def attempt(completion: str, task: Task, finish_reason: str = "stop") -> Attempt:
    return Attempt(problem=task, completion=completion, num_tokens=1, finish_reason=finish_reason)


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) >= 36


@pytest.mark.parametrize("name", KINDS)
def test_tests_are_json_and_the_reference_passes_them(name: str) -> None:
    for task in tasks_of(name):
        assert MIN_TESTS <= len({case.args for case in task.cases}) == len(task.cases) <= MAX_TESTS
        assert len({case.expected for case in task.cases}) > 1, "a constant would pass"
        function = compile_reference(task.code, task.entry)
        for case in task.cases:
            args = json.loads(case.args)
            assert isinstance(args, list)
            assert json.dumps(function(*args)) == case.expected
            assert f"`{task.entry}(" in task.question
        assert re.fullmatch(r"[a-z_][a-z0-9_]*", task.entry)
        assert "$" not in task.question + task.code + "".join(task.lines)
        assert 1 <= task.code.count("\n") <= 6


@pytest.mark.parametrize("name", KINDS)
def test_in_a_process_of_its_own_only_the_reference_passes(name: str) -> None:
    task = tasks_of(name)[0]
    head, _ = task.code.split("\n", 1)
    assert passes_tests(task.code, task)
    assert not passes_tests(f"{head}\n    return None", task)


@pytest.mark.parametrize("name", [kind.name for kind in KINDS.values() if "k" in kind.constants])
def test_a_wrong_constant_is_found_out(name: str) -> None:
    found = []
    for task in tasks_of(name):
        body = task.code.partition("\n")[2]
        constants = [i for i in re.finditer(r"(?<![\w.])\d+(?![\w.])", body) if int(i[0]) > 2]
        for constant in constants:
            wrong = f"{body[: constant.start()]}{int(constant[0]) + 1}{body[constant.end() :]}"
            function = compile_reference(f"{task.code.partition(chr(10))[0]}\n{wrong}", task.entry)
            values = [json.dumps(function(*json.loads(case.args))) for case in task.cases]
            found.append(values != [case.expected for case in task.cases])
    assert not found or sum(found) / len(found) >= 0.6


@pytest.mark.parametrize("name", KINDS)
def test_training_never_asks_a_held_out_question(name: str) -> None:
    held_out = held_out_hashes_of_tasks()
    for seed in (MEASURE_SEED, DEMO_SEED):  # the very seeds that made the held-out questions
        samples = list(make_kind_samples(KINDS[name], size=100, held_out=held_out, seed=seed))
        assert all(hash_question(sample.problem.question) not in held_out for sample in samples)
    samples = list(make_kind_samples(KINDS[name], size=300, held_out=held_out, seed=TRAIN_SEED))
    assert len({sample.problem.question for sample in samples}) >= 50, "too few questions are left to learn from"


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    kind = KINDS["linear"]
    assert make_task(kind, 5) == make_task(kind, 5)
    assert len({task.question for task in make_tasks(kind, seed=5, size=30)}) == 30
    assert list(program_rows(70, 7)) == list(program_rows(70, 7))


def test_rows_are_problems_with_distinct_ids() -> None:
    rows = list(program_rows(len(KINDS), DEMO_SEED))
    held_out, ids = held_out_hashes_of_tasks(), set()
    for row in rows:
        cases = tuple(FunctionTest(entry=row["entry"], **test) for test in row["tests"])
        problem = Problem(
            domain=Domain.CODE,
            messages=(Message(role="user", content=row["question"]),),
            source="tasks",
            source_row_id=row["id"],
            reference=Tests(cases=cases),
        )
        ids.add(problem.problem_id)
        assert hash_question(row["question"]) in held_out
    assert len(ids) == len({row["id"] for row in rows}) == len(rows) == len(KINDS)


def test_the_task_file_is_what_the_command_writes() -> None:
    assert TASKS.stat().st_size <= MAX_TASKS_BYTES
    rows = [json.loads(line) for line in TASKS.read_text().splitlines()]
    assert rows == list(program_rows(len(KINDS), DEMO_SEED))


@pytest.mark.parametrize("name", KINDS)
def test_a_completion_ends_in_a_fenced_block_with_the_reference(name: str) -> None:
    rng = Random(0)
    for task in tasks_of(name):
        assert last_program(respond(task.code, rng)) == task.code
        assert respond(task.code, rng).endswith(f"```python\n{task.code}\n```")
        assert len(think(task, rng)) >= 2


@pytest.mark.parametrize("name", ["add_constant", "unique", "title_case"])
def test_a_training_sample_passes_unless_its_defect_or_slip_spoils_it(name: str) -> None:
    rng = Random(0)
    seen, samples = set(), [make_program_sample(task, rng) for task in tasks_of(name) for _ in range(10)]
    for sample in samples:
        task = sample.problem
        assert isinstance(task, Task)
        made = attempt(sample.completion, task, "stop" if sample.ends else "length")
        assert defects_of(made) == ({sample.defect} - {None})
        if not sample.has_slip:  # a slip may leave the program right
            assert is_passed(made) == (sample.defect in (None, Defect.LANGUAGE_MIX))
        seen.add(sample.has_slip)
    assert sum(sample.has_slip for sample in samples) / len(samples) == pytest.approx(SLIP_SHARE, abs=0.06)
    assert seen == {True, False}


def test_a_slip_changes_the_body_alone() -> None:
    for kind in KINDS.values():
        task = make_task(kind, 3)
        broken = break_code(task.code, Random(0))
        if broken is not None:
            assert broken != task.code
            assert broken.partition("\n")[0] == task.code.partition("\n")[0]


@pytest.mark.parametrize(
    "program",
    [
        "def f(n):\n    return n + 1",  # wrong
        "def f(n):\n    return str(n)",  # "1" is not 1
        "def f(n):\n    return n",
        "def g(n):\n    return n + 2",
        "def f(n)\n    return n + 2",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "",
    ],
)
def test_only_what_the_tests_expect_passes(program: str) -> None:
    task = Task(
        kind="add_constant",
        question="",
        entry="f",
        code="def f(n):\n    return n + 2",
        lines=(),
        cases=(Case(args="[1]", expected="3"), Case(args="[0]", expected="2")),
    )
    assert passes_tests(task.code, task)
    assert not passes_tests(program, task)


def test_a_program_without_end_is_stopped() -> None:
    task = make_task(KINDS["add_constant"], 0)
    assert not passes_tests("while True:\n    pass", task)


def test_a_grown_tokenizer_reads_old_text_as_before_and_new_text_in_fewer_tokens() -> None:
    old = train_tokenizer(["a: 12 * 3 = 36, b"] * 2)
    text = "def add_three(n):\n    return n + 3"
    new = extend_tokenizer(old, [text] * 30, 100)
    assert len(new) <= len(old) + 100
    assert old.get_vocab().items() <= new.get_vocab().items()
    assert sorted(new.get_vocab().values()) == list(range(len(new)))
    assert new.tokenize("a: 12 * 3 = 36") == old.tokenize("a: 12 * 3 = 36")
    assert len(new.tokenize(text)) < len(old.tokenize(text)) / 2
    assert new.decode(new(text)["input_ids"]) == text


def test_number_words_cover_the_constants_that_are_named() -> None:
    for kind in KINDS.values():
        if any("$word" in entry for entry in kind.entries):
            assert all(isinstance(k, int) and k < len(NUMBER_WORDS) for k in kind.constants["k"])


def test_measured_rates_of_programs_lie_where_a_demo_needs_them() -> None:
    found = MEASURED["programs"]
    assert found["kinds"].keys() == KINDS.keys(), "measured with other kinds: run measure.py again"
    assert 0.4 <= found["overall"]["pass_rate"] <= 0.9
    assert found["overall"]["num_problems"] == programs.MEASURE_SIZE * len(KINDS)
    assert sum(0.1 <= kind["pass_rate"] <= 1.0 for kind in found["kinds"].values()) >= 30


def test_model_card_holds_the_table_of_programs() -> None:
    assert programs_table(MEASURED) in CARD.read_text()
