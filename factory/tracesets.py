"""Published sets of traces: how a row says what was asked, what was answered, and what its publisher thought of that.

Part of the first step of the flow, for `importing`; as sources of problems the same sets are in `mappings`. Invariant:
any row gives what it holds or a ``RowError``. A completion is taken to the letter, but for OpenThoughts' four markers,
which become the tags that every other set has. JSON inside a column is data from anywhere: bounded, never evaluated.

Shapes: open-r1/OpenR1-Math-220k, open-thoughts/OpenThoughts-114k (both configs; OpenThoughts2 and 3 have the default
one's), open-r1/Mixture-of-Thoughts, PrimeIntellect/SYNTHETIC-1, nvidia/OpenMathReasoning, as their pages on the Hub
give them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from factory.cells import (
    Body,
    as_list,
    bad_value,
    dump_json,
    get_json,
    get_list,
    get_text,
    get_value,
    join_lines,
    load_json,
)
from factory.programs import paired_tests, program, with_starter
from factory.rows import RowError
from schemas.problem import FunctionTest, QuarantineReason, StdinTest, TestCase, Tests
from schemas.trace import THINK_CLOSE, THINK_OPEN, FinishReason
from verifiers.extract import find_boxes

# OpenThoughts' marks around the two parts of an answer.
THOUGHT: Final = ("<|begin_of_thought|>", "<|end_of_thought|>")
SOLUTION: Final = ("<|begin_of_solution|>", "<|end_of_solution|>")
ROLES: Final = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
DOMAINS: Final = {  # their words, and ours
    "math": "math",
    "code": "code",
    "puzzle": "logic",
    "science": "stem",
    "biology": "stem",
    "chemistry": "stem",
    "physics": "stem",
}
# Mixture-of-Thoughts names in `source` where a row comes from, and that says what it is about.
MIXED_DOMAINS: Final = {"math": "math", "codeforces": "code", "nemotron": "stem", "science": "stem"}
NOTHING: Final = ("", "n/a")  # OpenMathReasoning's words for a value that is not there


class Attempt(NamedTuple):
    """One recorded completion."""

    text: str
    finish_reason: FinishReason = FinishReason.STOP
    num_tokens: int | None = None  # by the publisher's count
    label: bool | None = None  # the publisher's word on whether it is right
    teacher: str | None = None  # who wrote it, where the row says so


Attempts = Callable[[Body], list[Attempt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSet:
    """A set whose files can be imported."""

    shapes: tuple[tuple[str, ...], ...]  # the columns by which its files are known: all of one of these
    optional: tuple[str, ...] = ()  # that are read where they are
    attempts: Attempts  # of a row; texts only, what is null is left out


# OpenR1-Math: all attempts at a problem in one row, with labels in lists beside them.


def _openr1_attempts(body: Body) -> list[Attempt]:
    return [
        Attempt(
            text,
            finish_reason=_openr1_end(body, place),
            label=_bool(_item(body, "correctness_math_verify", place)),
        )
        for place, text in enumerate(get_list(body, "generations"))
        if isinstance(text, str)
    ]


def _openr1_end(body: Body, place: int) -> FinishReason:
    """``finish_reasons`` is null in many rows; ``is_reasoning_complete`` then says what can be said."""
    word = _item(body, "finish_reasons", place)
    is_complete = _bool(_item(body, "is_reasoning_complete", place))
    is_cut = word == "length" or (not isinstance(word, str) and is_complete is False)
    return FinishReason.LENGTH if is_cut else FinishReason.STOP


# OpenThoughts: `metadata` with the parts in columns of their own, `default` as a conversation.


def openthoughts(body: Body) -> dict[str, Any]:
    """A conversation's system turn is left out: it is what the student shall be given, not what the teacher was."""
    if "deepseek_solution" not in body:
        return {**_asked(body, "conversations"), **_domain(body.get("domain"))}
    domain = _domain(body.get("domain"))
    question = with_starter(get_text(body, "problem"), str(body.get("starter_code") or ""))
    row: dict[str, Any] = {"problem": question, **domain}
    tests, solution = body.get("test_cases"), body.get("ground_truth_solution")
    if domain.get("domain") == "code" and isinstance(tests, str) and tests.strip():
        row["tests"] = _tests(paired_tests(load_json(tests, "test_cases"), "test_cases"))
    elif domain.get("domain") == "math" and isinstance(solution, str) and (boxes := find_boxes(solution)):
        answer = solution[slice(*boxes[-1].inner)]
        row |= {"answer": answer} if answer.strip() else {}
    return row


def _openthoughts_attempts(body: Body) -> list[Attempt]:
    if "deepseek_solution" not in body:
        return [Attempt(tagged(text)) for text in _answered(body, "conversations")]
    reasoning, solution = body.get("deepseek_reasoning"), body.get("deepseek_solution")
    if not isinstance(solution, str):
        return []
    return [Attempt(_joined(reasoning, solution) if isinstance(reasoning, str) and reasoning else solution)]


def tagged(text: str) -> str:
    """Return a completion in OpenThoughts' marks with tags in their place; any other text as it is."""
    before, opened, rest = text.partition(THOUGHT[0])
    thought, closed, rest = rest.partition(THOUGHT[1])
    between, begun, rest = rest.partition(SOLUTION[0])
    solution, ended, after = rest.rpartition(SOLUTION[1])
    if not (opened and closed and begun and ended) or before.strip() or between.strip() or after.strip():
        return text
    return _joined(thought, solution.rstrip("\n"))


def _joined(reasoning: str, response: str) -> str:
    newline = "\n"
    return f"{THINK_OPEN}\n{reasoning.strip(newline)}\n{THINK_CLOSE}\n\n{response.lstrip(newline)}"


# Mixture-of-Thoughts: conversations, with neither answers nor labels.


def mixture_of_thoughts(body: Body) -> dict[str, Any]:
    source = str(body.get("source") or "").lower()
    domain = next((ours for word, ours in MIXED_DOMAINS.items() if word in source), None)
    return {**_asked(body, "messages"), **({} if domain is None else {"domain": domain})}


def _mixture_attempts(body: Body) -> list[Attempt]:
    counted = body.get("num_tokens")
    num_tokens = counted if isinstance(counted, int) and 0 < counted < 2**31 else None
    return [Attempt(text, num_tokens=num_tokens) for text in _answered(body, "messages")]


# SYNTHETIC-1: what to compare with is JSON.


def synthetic1(body: Body) -> dict[str, Any]:
    """Tasks that only a judge model can decide are set aside: without one a wrong answer would pass."""
    task = get_text(body, "task_type")
    if task not in ("verifiable_math", "verifiable_code"):
        raise RowError(
            QuarantineReason.UNSUPPORTED_REFERENCE,
            f"column 'task_type': {task[:80]!r} is judged by a model or by rules that are not here; verifiable_math "
            "and verifiable_code are taken",
        )
    info = get_json(body, "verification_info")
    if not isinstance(info, Mapping):
        raise bad_value("verification_info", info, "must be a JSON object")
    row: dict[str, Any] = {"problem": get_value(body, "prompt")}
    if isinstance(row_id := body.get("problem_id"), str) and row_id:
        row["id"] = row_id
    if task == "verifiable_math":
        return {**row, "answer": _ground_truth(info), "domain": "math"}
    return {**row, "tests": _synthetic_tests(info), "domain": "code"}


def _ground_truth(info: Mapping[str, Any]) -> str:
    truth = info.get("ground_truth")
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        return str(truth)
    if not isinstance(truth, str):
        raise bad_value("verification_info", info, "has no text `ground_truth`")
    return truth


def _synthetic_tests(info: Mapping[str, Any]) -> Tests:
    language = info.get("language") or "python"
    cases: list[TestCase] = []
    for case in as_list(info.get("test_cases"), "verification_info.test_cases"):
        if not isinstance(case, Mapping) or not {"input", "output"} <= set(case):
            raise bad_value("verification_info.test_cases", case, "must be objects with input and output")
        entry = case.get("fn_name")
        if case.get("type") == "function_call":
            if not isinstance(entry, str) or not entry:
                raise bad_value("verification_info.test_cases", case, "names no `fn_name` for its function call")
            args = as_list(case["input"], "verification_info.test_cases.input")
            cases.append(FunctionTest(entry=entry, args=dump_json(args), expected=dump_json(case["output"])))
        else:
            cases.append(StdinTest(input=join_lines(case["input"]), expected=join_lines(case["output"])))
    return replace(_tests(cases), language=str(language))


def _synthetic_attempts(body: Body) -> list[Attempt]:
    text = body.get("llm_response")
    return [Attempt(text, label=_is_full(body.get("score")))] if isinstance(text, str) else []


def _is_full(score: Any) -> bool | None:
    """Return the word of a score: a program's is the share of tests that it passed, and only all of them is right."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(value) else value >= 1


# OpenMathReasoning: one attempt a row, and all that are published were found right.


def openmathreasoning(body: Body) -> dict[str, Any]:
    """`pass_rate_72b_tir` is text, often "n/a", and another model's: it is not kept."""
    if body.get("inference_mode") == "genselect":
        raise bad_value("inference_mode", "genselect", "chooses among solutions, and is no attempt at the problem")
    answer = body.get("expected_answer")
    is_there = isinstance(answer, str) and answer.strip().lower() not in NOTHING
    return {"problem": get_value(body, "problem"), **({"answer": answer} if is_there else {})}


def _openmath_attempts(body: Body) -> list[Attempt]:
    text, teacher = body.get("generated_solution"), body.get("generation_model")
    if not isinstance(text, str) or text.strip().lower() in NOTHING:
        return []
    is_named = isinstance(teacher, str) and teacher.strip().lower() not in NOTHING
    return [Attempt(text, teacher=str(teacher) if is_named else None)]


# Values.


def _tests(cases: Sequence[TestCase]) -> Tests:
    tests: Tests = program("", cases)["tests"]
    return tests


def _domain(word: Any) -> dict[str, str]:
    ours = DOMAINS.get(word.strip().lower()) if isinstance(word, str) else None
    return {} if ours is None else {"domain": ours}


def _turns(body: Body, column: str) -> list[dict[str, Any]]:
    """Return a conversation as role and content, whichever of the two spellings it has; without system turns."""
    turns: list[dict[str, Any]] = []
    for place, turn in enumerate(get_list(body, column)):
        if not isinstance(turn, Mapping):
            raise bad_value(f"{column}.{place}", turn, "must be {role, content} or {from, value}")
        said = turn.get("role", turn.get("from"))
        role = ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise bad_value(f"{column}.{place}", said, f"must be one of {', '.join(ROLES)}")
        if role != "system":
            turns.append({"role": role, "content": turn.get("content", turn.get("value"))})
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise bad_value(column, [turn["role"] for turn in turns], "must end with the assistant's turn")
    return turns


def _asked(body: Body, column: str) -> dict[str, Any]:
    return {"messages": _turns(body, column)[:-1]}


def _answered(body: Body, column: str) -> list[str]:
    text = _turns(body, column)[-1]["content"]
    return [text] if isinstance(text, str) else []


def _item(body: Body, column: str, place: int) -> Any:
    """Return what a list beside the completions says of one of them; lists may be null or too short."""
    values = body.get(column)
    return values[place] if isinstance(values, list) and place < len(values) else None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


TRACE_SETS: Final[Mapping[str, TraceSet]] = {
    "openr1_math": TraceSet(
        shapes=(("problem", "answer", "uuid", "generations"),),
        optional=("correctness_math_verify", "finish_reasons", "is_reasoning_complete"),
        attempts=_openr1_attempts,
    ),
    "openthoughts": TraceSet(
        shapes=(("problem", "deepseek_reasoning", "deepseek_solution"), ("conversations",)),
        optional=("domain", "ground_truth_solution", "test_cases", "starter_code"),
        attempts=_openthoughts_attempts,
    ),
    "mixture_of_thoughts": TraceSet(shapes=(("messages", "num_tokens", "source"),), attempts=_mixture_attempts),
    "synthetic1": TraceSet(
        shapes=(("prompt", "llm_response", "verification_info", "task_type"),),
        optional=("problem_id", "score"),
        attempts=_synthetic_attempts,
    ),
    "openmathreasoning": TraceSet(
        shapes=(("problem", "generated_solution", "expected_answer"),),
        optional=("generation_model", "inference_mode"),
        attempts=_openmath_attempts,
    ),
}
