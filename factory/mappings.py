"""Ready mappings: the rows of known public datasets, rewritten to the columns that every source has.

Part of the first step of the flow: a job says ``columns: gsm8k`` in place of naming columns. A mapping rewrites one row
to ``problem`` or ``messages``, ``answer``, ``letter`` and ``options``, ``id``, ``domain``, or ``tests``; `columns` goes
on from there. Invariant: any row gives a rewritten row or a ``RowError``. Nothing in a row is evaluated or unpickled.

The shapes are those of the datasets' pages on the Hugging Face Hub, named at each; a column that has been renamed there
since is reported as missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from factory import programs, tracesets
from factory.cells import Body, bad_value, get_text, get_value
from factory.rows import MISSING, Wanted, lookup
from schemas.config import Columns, RowSource
from schemas.problem import Domain, digest
from verifiers.extract import find_boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyMapping:
    """A known dataset: which columns its rows must have, and how one is rewritten."""

    columns: tuple[str, ...]  # that every row must have
    optional: tuple[str, ...] = ()  # that are read where they are; the rest of a row is not looked at
    rewrite: Callable[[Body], dict[str, Any]]
    domain: Domain = Domain.MATH
    license: str = "unknown"
    asks_itself: bool = False  # a question with tests says which program is wanted, and the row in which language


# Mathematics.


def _renamed(problem: str, answer: str, row_id: str | None = None) -> Callable[[Body], dict[str, Any]]:
    def rewrite(body: Body) -> dict[str, Any]:
        row = {"problem": get_value(body, problem), "answer": get_value(body, answer)}
        if row_id is not None:
            row["id"] = str(get_value(body, row_id))
        return row

    return rewrite


def _gsm8k(body: Body) -> dict[str, Any]:
    """The final answer stands after the last ``####`` of the worked solution, with commas in its thousands."""
    solution = get_text(body, "answer")
    _, mark, answer = solution.rpartition("####")
    if not mark:
        raise bad_value("answer", solution, "has no '####' before a final answer")
    return {"problem": get_value(body, "question"), "answer": answer.strip().replace(",", "")}


def _boxed(problem: str, solution: str) -> Callable[[Body], dict[str, Any]]:
    """The final answer stands in the last box of the solution."""

    def rewrite(body: Body) -> dict[str, Any]:
        text = get_text(body, solution)
        boxes = find_boxes(text)
        answer = text[slice(*boxes[-1].inner)] if boxes else None
        if not answer or not answer.strip():
            raise bad_value(solution, text, "has no \\boxed answer")
        return {"problem": get_value(body, problem), "answer": answer}

    return rewrite


def _numina_15(body: Body) -> dict[str, Any]:
    """``answer`` may also be a word for there being none: `proof`, `notfound`."""
    answer = get_text(body, "answer")
    if answer.strip().lower() in ("proof", "notfound", "not found"):
        raise bad_value("answer", answer, "says that there is no final answer to compare with")
    return {"problem": get_value(body, "problem"), "answer": answer}


def _aime(body: Body) -> dict[str, Any]:
    """Two spellings of the columns are about: `Problem, Answer, ID` and `problem, answer, id`."""
    big = "Problem" in body
    names = ("Problem", "Answer", "ID") if big else ("problem", "answer", "id")
    row = {"problem": get_value(body, names[0]), "answer": get_value(body, names[1])}
    row_id = lookup(body, names[2])
    return row if row_id is MISSING else {**row, "id": str(row_id)}


def _gpqa(body: Body) -> dict[str, Any]:
    """The right option comes first in the source: the order is drawn from the question, the same at each load."""
    question = get_text(body, "Question").strip()
    right = get_text(body, "Correct Answer").strip()
    options = [right, *(get_text(body, f"Incorrect Answer {n}").strip() for n in (1, 2, 3))]
    if len(set(options)) != len(options):
        raise bad_value("Correct Answer", right, "stands among the wrong answers too, or two of those are the same")
    options.sort()  # whatever order the source has them in
    random.Random(int(digest(["gpqa", question, options]), 16)).shuffle(options)
    return {"problem": question, "options": options, "letter": chr(ord("A") + options.index(right))}


_OPENTHOUGHTS: Final = tracesets.TRACE_SETS["openthoughts"]

READY: Final[Mapping[str, ReadyMapping]] = {
    # AI-MO/NuminaMath-CoT: source, problem, solution, messages
    "numina_math_cot": ReadyMapping(columns=("problem", "solution"), rewrite=_boxed("problem", "solution")),
    # AI-MO/NuminaMath-1.5: problem, solution, answer, problem_type, question_type, ...
    "numina_math_1.5": ReadyMapping(columns=("problem", "answer"), rewrite=_numina_15),
    # open-r1/OpenR1-Math-220k: problem, solution, answer, ..., uuid, generations
    "openr1_math": ReadyMapping(columns=("problem", "answer", "uuid"), rewrite=_renamed("problem", "answer", "uuid")),
    # open-thoughts/OpenThoughts-114k: config metadata, or default (system, conversations); see `tracesets`
    "openthoughts": ReadyMapping(
        columns=(),
        optional=tuple({*chain(*_OPENTHOUGHTS.shapes), *_OPENTHOUGHTS.optional}),
        rewrite=tracesets.openthoughts,
        domain=Domain.QA,
        license="Apache-2.0",
        asks_itself=True,
    ),
    # open-r1/Mixture-of-Thoughts: messages, num_tokens, source
    "mixture_of_thoughts": ReadyMapping(
        columns=("messages",), optional=("source",), rewrite=tracesets.mixture_of_thoughts, domain=Domain.QA
    ),
    # PrimeIntellect/SYNTHETIC-1: problem_id, task_type, prompt, verification_info, llm_response, score, ...
    "synthetic1": ReadyMapping(
        columns=("prompt", "task_type", "verification_info"),
        optional=("problem_id",),
        rewrite=tracesets.synthetic1,
        license="Apache-2.0",
        asks_itself=True,
    ),
    # nvidia/OpenMathReasoning: problem, expected_answer, generation_model, generated_solution, inference_mode, ...
    "openmathreasoning": ReadyMapping(
        columns=("problem", "expected_answer"),
        optional=("inference_mode",),
        rewrite=tracesets.openmathreasoning,
        license="CC-BY-4.0",
    ),
    # Hendrycks et al. 2021, such as EleutherAI/hendrycks_math: problem, level, type, solution
    "math": ReadyMapping(columns=("problem", "solution"), rewrite=_boxed("problem", "solution"), license="MIT"),
    # HuggingFaceH4/MATH-500: problem, solution, answer, subject, level, unique_id
    "math500": ReadyMapping(
        columns=("problem", "answer", "unique_id"), rewrite=_renamed("problem", "answer", "unique_id"), license="MIT"
    ),
    # openai/gsm8k: question, answer
    "gsm8k": ReadyMapping(columns=("question", "answer"), rewrite=_gsm8k, license="MIT"),
    # Maxwell-Jia/AIME_2024 (ID, Problem, Solution, Answer); HuggingFaceH4/aime_2024 (id, problem, solution, answer)
    "aime": ReadyMapping(columns=(), optional=("Problem", "Answer", "ID", "problem", "answer", "id"), rewrite=_aime),
    # openai/openai_humaneval: task_id, prompt, canonical_solution, test, entry_point
    "humaneval": ReadyMapping(
        columns=("prompt", "test", "entry_point"),
        optional=("task_id",),
        rewrite=programs.humaneval,
        domain=Domain.CODE,
        license="MIT",
    ),
    # google-research-datasets/mbpp: full (text, test_setup_code), sanitized (prompt, test_imports)
    "mbpp": ReadyMapping(
        columns=("test_list",),
        optional=("text", "prompt", "test_imports", "test_setup_code", "task_id"),
        rewrite=programs.mbpp,
        domain=Domain.CODE,
        license="CC-BY-4.0",
    ),
    # livecodebench/code_generation_lite: question_content, starter_code, public_test_cases, metadata, ...
    "livecodebench": ReadyMapping(
        columns=("question_content", "public_test_cases"),
        optional=("private_test_cases", "starter_code", "metadata", "question_id"),
        rewrite=programs.live_code_bench,
        domain=Domain.CODE,
    ),
    # BAAI/TACO: question, input_output, starter_code, ...
    "taco": ReadyMapping(
        columns=("question", "input_output"),
        optional=("starter_code", "problem_id", "id"),
        rewrite=programs.apps,
        domain=Domain.CODE,
    ),
    # codeparrot/apps: problem_id, question, input_output, starter_code, ...
    "apps": ReadyMapping(
        columns=("question", "input_output"),
        optional=("starter_code", "problem_id", "id"),
        rewrite=programs.apps,
        domain=Domain.CODE,
        license="MIT",
    ),
    # deepmind/code_contests: name, description, public_tests, private_tests, generated_tests, time_limit, ...
    "code_contests": ReadyMapping(
        columns=("description", "public_tests"),
        optional=("private_tests", "generated_tests", "time_limit", "memory_limit_bytes", "name"),
        rewrite=programs.code_contests,
        domain=Domain.CODE,
        license="CC-BY-4.0",
    ),
    # open-r1/codeforces, best its config "verifiable": id, title, description, input_format, official_tests, ...
    "codeforces": ReadyMapping(
        columns=("description", "official_tests"),
        optional=(
            "id",
            "title",
            "input_format",
            "output_format",
            "interaction_format",
            "note",
            "examples",
            "time_limit",
            "memory_limit",
            "input_mode",
            "generated_checker",
        ),
        rewrite=programs.codeforces,
        domain=Domain.CODE,
        license="CC-BY-4.0",
    ),
    # one's own rows, or what the demo teacher's tasks are: question, entry, tests
    "function_tests": ReadyMapping(
        columns=("question", "entry", "tests"), optional=("id",), rewrite=programs.function_tests, domain=Domain.CODE
    ),
    # Idavidrein/gpqa: Question, Correct Answer, Incorrect Answer 1 to 3
    "gpqa": ReadyMapping(
        columns=("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        rewrite=_gpqa,
        domain=Domain.STEM,
        license="CC-BY-4.0",
    ),
}


def wanted_columns(columns: Columns) -> Wanted:
    """Return the names of the columns that a mapping reads."""
    named = {name: key for key in type(columns).model_fields if key != "ready" and (name := getattr(columns, key))}
    if columns.ready is None:
        return Wanted(named)
    mapping = READY[columns.ready]
    return Wanted({**dict.fromkeys(mapping.columns, "ready"), **named}, mapping.optional)


def domain_of(source: RowSource) -> Domain:
    """Return the domain of a source's problems: what the job says, else that of the known dataset."""
    ready = source.columns.ready
    return source.domain if ready is None or "domain" in source.model_fields_set else READY[ready].domain


def license_of(source: RowSource) -> str:
    """Return the licence of a source's problems: what the job says, else that of the known dataset."""
    ready = source.columns.ready
    return source.license if ready is None or "license" in source.model_fields_set else READY[ready].license
