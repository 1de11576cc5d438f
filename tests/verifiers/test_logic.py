"""Scorers of reasoning-gym: only reviewed ones, total on any text, right on their own answers, wrong on others'."""

import ast
import importlib
import inspect
import json
import random
import textwrap
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import pytest

from schemas.problem import Answer, Reference, Scorer
from schemas.verdict import Outcome, Reason, Verdict
from verifiers.logic import REVIEWED_SCORERS, REVIEWED_VERSION, judge_scored, reference_for
from verifiers.math import judge_answer

EVALUATING = {"spiral_matrix", "n_queens", "string_insertion", "binary_matrix", "countdown", "puzzle24"}
EVALUATING |= {"number_sorting", "simple_integration", "intermediate_integration", "polynomial_multiplication"}
LAX = {
    "complex_arithmetic",
    "gsm_symbolic",
    "calendar_arithmetic",
    "game_of_life_halting",
    "figlet_font",
    "game_of_life",
}
UNBOUNDED = {"rush_hour", "rubiks_cube", "boxnet", "prime_factorization"}
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "sympify",
    "parse_expr",
    "literal_eval",
    "simplify",
    "open",
    "system",
}
ODD_TEXTS = [
    "",
    "0",
    "nan",
    "[]",
    "{}",
    "[[[[]]]]",
    '"a"',
    "null",
    "[1, null]",
    "A=1,A=2",
    "=",
    ",,,",
    "→",
    "\ud800",
    "\0",
]
ODD_TEXTS += [
    "Move disk 9 from Peg 9 to Peg 9",
    "fill Z",
    '["fill Z"]',
    '["pour A->"]',
    "w,A1",
    '{"0": {}}',
    "1 " * 500,
]
ODD_TEXTS += [
    '["w,A1,B2"]',
    "up down",
    "RLUD" * 200,
    "ABCABC" * 200,
    "is a an and",
    "1\n2\n\n3",
    '[{"a": 1}]',
    "9" * 5_000,
]


@cache
def dataset(family: str, size: int = 8, seed: int = 3) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gym = importlib.import_module("reasoning_gym")
        made = gym.create_dataset(family, size=size, seed=seed)
        return [made[index] for index in range(size)]


@cache
def scoring_class(family: str) -> type:
    factory = importlib.import_module("reasoning_gym.factory")
    importlib.import_module("reasoning_gym")
    found: type = factory.DATASETS[family][0]
    return found


def judge_reference(answer: str, reference: Reference) -> Verdict:
    completion = f"<think>x</think>\n<answer>{answer}</answer>"
    if isinstance(reference, Scorer):
        return judge_scored(completion, reference)
    assert isinstance(reference, Answer)
    return judge_answer(completion, reference)


def test_the_list_was_reviewed_for_the_installed_version() -> None:
    assert version("reasoning-gym") == REVIEWED_VERSION, "read the scorers of the new version, then move the constant"


def test_families_that_evaluate_accept_wrong_answers_or_run_on_are_not_on_the_list() -> None:
    assert not REVIEWED_SCORERS & (EVALUATING | LAX | UNBOUNDED)


def called_names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            names.add(node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", ""))
        if isinstance(node, ast.Name):
            names.add(node.id)  # also when a function is handed on
    return names


def reachable_sources(family: str) -> dict[str, str]:
    """Source of score_answer and of every function of the package that it names, to a fixed point."""
    cls = scoring_class(family)
    found: dict[str, str] = {}
    todo: list[Any] = [cls.score_answer]
    while todo:
        function = todo.pop()
        key = f"{function.__module__}.{function.__qualname__}"
        if key in found:
            continue
        found[key] = textwrap.dedent(inspect.getsource(function))
        module = inspect.getmodule(function)
        for name in called_names(ast.parse(found[key])):
            for scope in (cls, module):
                target = inspect.unwrap(getattr(scope, name, None)) if hasattr(scope, name) else None
                if inspect.isclass(target) and target.__module__.startswith("reasoning_gym"):
                    todo += [
                        member
                        for _, member in inspect.getmembers(target, inspect.isfunction)
                        if member.__module__.startswith("reasoning_gym") and member.__name__ != "__getitem__"
                    ]
                elif inspect.isroutine(target) and getattr(target, "__module__", "").startswith("reasoning_gym"):
                    todo.append(target)
    return found


@pytest.mark.parametrize("family", sorted(REVIEWED_SCORERS))
def test_no_reviewed_scorer_can_reach_an_evaluating_function(family: str) -> None:
    for where, source in reachable_sources(family).items():
        assert not called_names(ast.parse(source)) & FORBIDDEN, where


@pytest.mark.parametrize("family", sorted(EVALUATING - {"number_sorting"}))
def test_the_scan_would_find_an_evaluating_scorer(family: str) -> None:
    assert any(called_names(ast.parse(source)) & FORBIDDEN for source in reachable_sources(family).values())


@pytest.mark.parametrize("family", sorted(REVIEWED_SCORERS - {"graph_color"}))
def test_a_reviewed_family_accepts_its_own_answer_and_is_total_on_odd_texts(family: str) -> None:
    for entry in dataset(family, size=3):
        reference = reference_for(family, entry)
        assert isinstance(reference, Scorer)
        assert judge_reference(entry["answer"], reference).is_correct, entry["answer"]
        for text in ODD_TEXTS:
            verdict = judge_reference(text, reference)
            assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.NO_ANSWER, Outcome.OVER_LIMIT), (text, verdict)


def mutated(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("0123456789abcXYZ[]{},=→ \n") + text[place + rng.randrange(2) :]


@pytest.mark.parametrize("family", sorted(REVIEWED_SCORERS - {"graph_color"}))
def test_mutated_answers_never_break_a_scorer(family: str) -> None:
    rng = random.Random(5)
    entry = dataset(family, size=3)[0]
    reference = reference_for(family, entry)
    for _ in range(40):
        verdict = judge_reference(mutated(entry["answer"], rng), reference)
        assert verdict.outcome not in (Outcome.UNJUDGED, Outcome.BAD_REFERENCE), verdict


def colouring(puzzle: dict[str, Any]) -> dict[str, int]:
    """Colour greedily with as many orders as it takes."""
    rng = random.Random(1)
    while True:
        found: dict[Any, int] = {}
        for vertex in rng.sample(puzzle["vertices"], len(puzzle["vertices"])):
            taken = {found.get(b if a == vertex else a) for a, b in puzzle["edges"] if vertex in (a, b)}
            free = [colour for colour in puzzle["color_options"] if colour not in taken]
            if not free:
                break
            found[vertex] = rng.choice(free)
        else:
            return {str(vertex): colour for vertex, colour in found.items()}


def test_any_valid_colouring_is_right_and_an_invalid_one_is_wrong() -> None:
    entry = dataset("graph_color")[0]
    reference = reference_for("graph_color", entry)
    right = colouring(entry["metadata"]["puzzle"])
    assert judge_reference(json.dumps(right), reference).is_correct
    assert not judge_reference(json.dumps(dict.fromkeys(right, 1)), reference).is_correct
    for text in ODD_TEXTS:
        assert judge_reference(text, reference).outcome not in (Outcome.UNJUDGED, Outcome.CORRECT), text


OWN = ["chain_sum", "basic_arithmetic", "gcd", "simple_equations", "leg_counting", "gsm_symbolic", "number_sorting",
       "fraction_simplification", "dice", "prime_factorization", "spiral_matrix", "n_queens", "binary_matrix",
       "string_insertion", "complex_arithmetic", "power_function", "calendar_arithmetic", "game_of_life",
       "pool_matrix", "caesar_cipher", "syllogism", "simple_integration", "decimal_arithmetic", "number_format",
       "countdown", "time_intervals", "list_functions", "emoji_mystery", "codeio"]  # fmt: skip


@pytest.mark.parametrize("family", OWN)
def test_a_family_on_no_list_is_judged_by_our_own_comparers(family: str) -> None:
    entries = dataset(family)
    for entry in entries:
        reference = reference_for(family, entry)
        assert isinstance(reference, Answer)
        assert judge_reference(entry["answer"], reference).is_correct, entry["answer"]
        for other in entries[:4]:
            if other["answer"] != entry["answer"]:
                assert judge_reference(other["answer"], reference).is_correct is False, (other["answer"], reference)


@pytest.mark.parametrize("family", ["chain_sum", "fraction_simplification", "gsm_symbolic", "number_sorting"])
def test_the_question_restated_or_a_near_miss_is_wrong(family: str) -> None:
    entry = dataset(family)[0]
    reference = reference_for(family, entry)
    metadata = entry["metadata"]
    wrong = {
        "chain_sum": str(metadata.get("expression")),
        "fraction_simplification": f"{metadata.get('numerator')}/{metadata.get('denominator')}",
        "gsm_symbolic": f"-{entry['answer']}",
        "number_sorting": entry["answer"].replace("'", "").replace("[", "[1e1, ", 1),
    }[family]
    assert judge_reference(wrong, reference).is_correct is False


def test_an_entry_without_an_answer_and_a_reviewed_scorer_is_refused() -> None:
    with pytest.raises(ValueError, match="rubiks_cube"):
        reference_for("rubiks_cube", {"question": "", "answer": None, "metadata": {}})


@pytest.mark.parametrize(
    "reference",
    [
        Scorer(name="reasoning_gym/spiral_matrix", payload='{"question": "", "answer": "1", "metadata": {}}'),
        Scorer(name="other/sudoku", payload='{"question": "", "answer": "1", "metadata": {}}'),
        Scorer(name="reasoning_gym/sudoku", payload="not JSON"),
        Scorer(name="reasoning_gym/sudoku", payload="[]"),
    ],
)
def test_an_unknown_scorer_or_a_broken_payload_is_a_bad_reference(reference: Scorer) -> None:
    verdict = judge_reference("__import__('os').system('touch pwned')", reference)
    assert verdict.reason is Reason.UNPARSED_REFERENCE
    assert verdict.is_correct is None


def test_a_giant_answer_is_over_the_limit() -> None:
    reference = reference_for("jugs", dataset("jugs")[0])
    assert judge_reference("[" * 50_000, reference).reason is Reason.TOO_DEEP
    assert judge_reference("x" * 100_000, reference).reason is Reason.TOO_LONG


def test_a_scorer_survives_the_way_into_a_problem() -> None:
    entry = dataset("jugs")[0]
    reference = reference_for("jugs", entry)
    assert isinstance(reference, Scorer)
    assert json.loads(reference.payload)["metadata"]["puzzle"] == entry["metadata"]["puzzle"]
