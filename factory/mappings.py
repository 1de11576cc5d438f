"""Ready mappings: the rows of known public datasets, rewritten to the columns that every source has.

Part of the first step of the flow: a job says ``columns: gsm8k`` in place of naming columns. A mapping rewrites one row
to ``problem``, ``answer``, ``letter`` and ``options``, ``id``, or ``tests``; `columns` goes on from there. Invariant:
any row gives a rewritten row or a ``RowError``. Nothing in a row is evaluated or unpickled.

The shapes are those of the datasets' pages on the Hugging Face Hub, named at each; a column that has been renamed there
since is reported as missing.
"""

from __future__ import annotations

import builtins
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from factory.rows import MISSING, NumberLiteral, RowError, Wanted, column_names, listed, lookup, shown
from schemas.config import Columns, RowSource
from schemas.problem import (
    AssertTest,
    Compare,
    Domain,
    FunctionTest,
    Limits,
    QuarantineReason,
    StdinTest,
    TestCase,
    Tests,
    digest,
)
from verifiers.extract import find_boxes

MAX_CASES: Final = 1_000  # of one problem; CodeContests' generated ones go beyond any use
MAX_JSON_CHARS: Final = 16 << 20  # of tests inside a text column

_CALLED: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyMapping:
    """A known dataset: which columns its rows must have, and how one is rewritten."""

    columns: tuple[str, ...]  # that every row must have
    optional: tuple[str, ...] = ()  # that are read where they are; the rest of a row is not looked at
    rewrite: Callable[[Body], dict[str, Any]]
    domain: Domain = Domain.MATH
    license: str = "unknown"


# Mathematics.


def _renamed(problem: str, answer: str, row_id: str | None = None) -> Callable[[Body], dict[str, Any]]:
    def rewrite(body: Body) -> dict[str, Any]:
        row = {"problem": _get(body, problem), "answer": _get(body, answer)}
        if row_id is not None:
            row["id"] = str(_get(body, row_id))
        return row

    return rewrite


def _gsm8k(body: Body) -> dict[str, Any]:
    """The final answer stands after the last ``####`` of the worked solution, with commas in its thousands."""
    solution = _text(body, "answer")
    _, mark, answer = solution.rpartition("####")
    if not mark:
        raise _bad("answer", solution, "has no '####' before a final answer")
    return {"problem": _get(body, "question"), "answer": answer.strip().replace(",", "")}


def _boxed(problem: str, solution: str) -> Callable[[Body], dict[str, Any]]:
    """The final answer stands in the last box of the solution."""

    def rewrite(body: Body) -> dict[str, Any]:
        text = _text(body, solution)
        boxes = find_boxes(text)
        answer = text[slice(*boxes[-1].inner)] if boxes else None
        if not answer or not answer.strip():
            raise _bad(solution, text, "has no \\boxed answer")
        return {"problem": _get(body, problem), "answer": answer}

    return rewrite


def _numina_15(body: Body) -> dict[str, Any]:
    """``answer`` may also be a word for there being none: `proof`, `notfound`."""
    answer = _text(body, "answer")
    if answer.strip().lower() in ("proof", "notfound", "not found"):
        raise _bad("answer", answer, "says that there is no final answer to compare with")
    return {"problem": _get(body, "problem"), "answer": answer}


def _aime(body: Body) -> dict[str, Any]:
    """Two spellings of the columns are about: `Problem, Answer, ID` and `problem, answer, id`."""
    big = "Problem" in body
    names = ("Problem", "Answer", "ID") if big else ("problem", "answer", "id")
    row = {"problem": _get(body, names[0]), "answer": _get(body, names[1])}
    row_id = lookup(body, names[2])
    return row if row_id is MISSING else {**row, "id": str(row_id)}


def _gpqa(body: Body) -> dict[str, Any]:
    """The right option comes first in the source: the order is drawn from the question, the same at each load."""
    question = _text(body, "Question").strip()
    right = _text(body, "Correct Answer").strip()
    options = [right, *(_text(body, f"Incorrect Answer {n}").strip() for n in (1, 2, 3))]
    if len(set(options)) != len(options):
        raise _bad("Correct Answer", right, "stands among the wrong answers too, or two of those are the same")
    options.sort()  # whatever order the source has them in
    random.Random(int(digest(["gpqa", question, options]), 16)).shuffle(options)
    return {"problem": question, "options": options, "letter": chr(ord("A") + options.index(right))}


# Programs.


def _humaneval(body: Body) -> dict[str, Any]:
    """``test`` defines ``check(candidate)``; the prompt is a signature with a docstring."""
    entry = _text(body, "entry_point")
    question = (
        f"Complete this Python function. Give the whole function.\n\n```python\n{_text(body, 'prompt').rstrip()}\n```"
    )
    return _program(question, [AssertTest(entry=entry, source=_text(body, "test"))], row_id=body.get("task_id"))


def _mbpp(body: Body) -> dict[str, Any]:
    """`text` in the full set, `prompt` in the sanitized one; the first assert shows the function's name."""
    statement = _text(body, "prompt" if "prompt" in body else "text")
    asserts = [str(line) for line in _list(body, "test_list")]
    setup = "\n".join(map(str, body.get("test_imports") or [])) or str(body.get("test_setup_code") or "")
    if not asserts:
        raise RowError(QuarantineReason.BAD_VALUE, "column 'test_list': holds no test")
    entry = _called_name(asserts[0])
    question = f"{statement.strip()}\n\nYour Python function must pass this test:\n\n```python\n{asserts[0]}\n```"
    cases = [AssertTest(entry=entry, source=f"{setup}\n{line}".strip()) for line in asserts]
    return _program(question, cases, row_id=body.get("task_id"))


def _called_name(line: str) -> str:
    """Return the name of the function that an assert is about: the first it calls that is no builtin and no method."""
    names = [name for name in _CALLED.findall(line) if not hasattr(builtins, name)]
    if not names:
        raise _bad("test_list", line, "calls no function that can be named")
    return str(names[0])


def _apps(body: Body) -> dict[str, Any]:
    """`input_output` is JSON with `inputs`, `outputs` and, for function tests, `fn_name` (APPS and TACO)."""
    tests = _json(body, "input_output")
    if not isinstance(tests, Mapping):
        raise _bad("input_output", tests, "must be an object with inputs and outputs")
    entry = tests.get("fn_name")
    pairs = _pairs(tests.get("inputs"), tests.get("outputs"), "input_output")
    cases: list[TestCase] = (
        [StdinTest(input=_lines(given), expected=_lines(expected)) for given, expected in pairs]
        if not entry
        else [FunctionTest(entry=str(entry), args=_dump(given), expected=_dump(expected)) for given, expected in pairs]
    )
    question = _with_starter(_text(body, "question"), str(body.get("starter_code") or ""))
    return _program(question, cases, row_id=body.get("problem_id", body.get("id")))


def _code_contests(body: Body) -> dict[str, Any]:
    """Three structs of parallel lists; the time limit is a protobuf duration, memory is in bytes."""
    pairs = [
        pair
        for name in ("public_tests", "private_tests", "generated_tests")
        if isinstance(body.get(name), Mapping)
        for pair in _pairs(body[name].get("input"), body[name].get("output"), name)
    ]
    cases = [StdinTest(input=_lines(given), expected=_lines(expected)) for given, expected in pairs[:MAX_CASES]]
    duration = body.get("time_limit")
    seconds = (
        _number(duration.get("seconds")) + _number(duration.get("nanos")) / 1e9 if isinstance(duration, Mapping) else 0
    )
    memory = _number(body.get("memory_limit_bytes"))
    default = Limits()
    limits = Limits(
        cpu_time_s=seconds or default.cpu_time_s,
        wall_time_s=2 * seconds or default.wall_time_s,
        memory_mb=int(memory) >> 20 or default.memory_mb,
    )
    return _program(_text(body, "description"), list(cases), limits=limits, row_id=body.get("name"))


def _codeforces(body: Body) -> dict[str, Any]:
    """Statements in parts; all official tests that are short enough to stand there, judged by the problem's checker."""
    for column, allowed in (("input_mode", ("stdio",)), ("interaction_format", ())):
        if (value := body.get(column)) and value not in allowed:
            raise _bad(column, value, "is no problem of standard input and output")
    pairs = {
        (case["input"], case["output"]): None
        for name in ("official_tests", "examples")
        for case in _as_list(body.get(name) or [], name)
        if isinstance(case, Mapping) and {"input", "output"} <= set(case)
    }
    cases = [StdinTest(input=_lines(given), expected=_lines(expected)) for given, expected in pairs]
    seconds, memory = _number(body.get("time_limit")), _number(body.get("memory_limit"))
    default = Limits()
    limits = Limits(
        cpu_time_s=seconds or default.cpu_time_s,
        wall_time_s=2 * seconds or default.wall_time_s,
        memory_mb=int(memory) or default.memory_mb,
    )
    script = body.get("generated_checker")
    compare = Compare("checker", checker=_checker_of_files(script)) if isinstance(script, str) and script else None
    question = _codeforces_statement(body, seconds, int(memory))
    return _program(question, list(cases), limits=limits, compare=compare, row_id=body.get("id"))


def _codeforces_statement(body: Body, seconds: float, memory_mb: int) -> str:
    title = str(body.get("title") or "").strip()
    parts = [f"# {title}" if title else "", _text(body, "description").strip()]
    if seconds and memory_mb:
        parts.append(f"Time limit: {seconds:g} s. Memory limit: {memory_mb} MB.")
    for name, heading in (("input_format", "Input"), ("output_format", "Output")):
        if text := str(body.get(name) or "").strip():
            parts.append(f"## {heading}\n\n{text}")
    for case in _as_list(body.get("examples") or [], "examples"):
        if isinstance(case, Mapping):
            given, expected = (_lines(case.get(name, "")).rstrip() for name in ("input", "output"))
            parts.append(f"## Example\n\n```\n{given}\n```\n\n```\n{expected}\n```")
    if note := str(body.get("note") or "").strip():
        parts.append(f"## Note\n\n{note}")
    return "\n\n".join(part for part in parts if part)


def _checker_of_files(script: str) -> str:
    """Return the source of a ``check`` that runs a script made for the command line.

    Such a script gets the names of the files with input, expected output and output, and prints 1 or 0. It runs where
    no file can be written: what it opens under these names are texts.
    """
    return f"SCRIPT = {script!r}\n{_FILE_CHECKER}"


_FILE_CHECKER: Final = """
import builtins, io, sys
PROGRAM = compile(SCRIPT, "checker.py", "exec")
open_file = builtins.open
def check(inp, out, exp):
    texts = {"input.txt": inp, "expected.txt": exp, "output.txt": out}
    def open_text(name, mode="r", *args, **kwargs):
        if name not in texts:
            return open_file(name, mode, *args, **kwargs)
        return io.BytesIO(texts[name].encode()) if "b" in mode else io.StringIO(texts[name])
    said, sys.stdout = sys.stdout, io.StringIO()
    sys.argv = ["checker.py", *texts]
    builtins.open = io.open = open_text
    try:
        exec(PROGRAM, {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        builtins.open = io.open = open_file
        said, sys.stdout = sys.stdout, said
    return {"1": True, "0": False}[said.getvalue().split()[-1]]
"""


def _live_code_bench(body: Body) -> dict[str, Any]:
    """`public_test_cases` is JSON; `private_test_cases` is JSON or a packed pickle, which is never opened.

    Judged by the public cases alone where the private ones are packed: convert the file first to have them all.
    """
    listed_cases = _json(body, "public_test_cases")
    private = body.get("private_test_cases")
    if isinstance(private, str) and private.lstrip().startswith("["):
        listed_cases = [
            *_as_list(listed_cases, "public_test_cases"),
            *_as_list(_json(body, "private_test_cases"), "private_test_cases"),
        ]
    metadata = _json(body, "metadata") if body.get("metadata") else {}
    entry = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    cases = [_live_case(case, entry) for case in _as_list(listed_cases, "public_test_cases")]
    question = _with_starter(_text(body, "question_content"), str(body.get("starter_code") or ""))
    rule = Compare("livecodebench" if all(isinstance(case, StdinTest) for case in cases) else "tokens")
    return _program(question, cases, compare=rule, row_id=body.get("question_id"))


def _live_case(case: Any, entry: object) -> TestCase:
    if (
        not isinstance(case, Mapping)
        or not isinstance(case.get("input"), str)
        or not isinstance(case.get("output"), str)
    ):
        raise _bad("public_test_cases", case, "must be objects with input, output and testtype")
    if case.get("testtype") != "functional":
        return StdinTest(input=case["input"], expected=case["output"])
    if not isinstance(entry, str) or not entry:
        raise RowError(QuarantineReason.BAD_VALUE, "column 'metadata': names no func_name for its functional tests")
    arguments = [_loads(line, "public_test_cases") for line in case["input"].splitlines()]  # one JSON value a line
    return FunctionTest(entry=entry, args=_dump(arguments), expected=_dump(_loads(case["output"], "public_test_cases")))


def _function_tests(body: Body) -> dict[str, Any]:
    """`tests` are objects of `args` and `expected`, each a JSON value or its text, for the function `entry`."""
    entry = _text(body, "entry")
    cases = []
    for i, case in enumerate(_list(body, "tests")):
        if not isinstance(case, Mapping) or not {"args", "expected"} <= set(case):
            raise _bad(f"tests.{i}", case, "must be an object with args and expected")
        args, expected = (_as_json(case[name], f"tests.{i}.{name}") for name in ("args", "expected"))
        if not isinstance(args, list):
            raise _bad(f"tests.{i}.args", args, "must be a list of arguments")
        cases.append(FunctionTest(entry=entry, args=_dump(args), expected=_dump(expected)))
    return _program(_text(body, "question"), cases, row_id=body.get("id"))


def _as_json(value: Any, column: str) -> Any:
    return _loads(value, column) if isinstance(value, str) else value


def _program(
    question: str,
    cases: Sequence[TestCase],
    *,
    limits: Limits | None = None,
    compare: Compare | None = None,
    row_id: object = None,
) -> dict[str, Any]:
    if not cases:
        raise RowError(QuarantineReason.BAD_VALUE, "the row has no test")
    tests = Tests(cases=tuple(cases[:MAX_CASES]), limits=limits or Limits(), compare=compare or Compare())
    return {"problem": question, "tests": tests, **({} if row_id is None else {"id": str(row_id)})}


def _with_starter(question: str, starter: str) -> str:
    if not starter.strip():
        return question
    return f"{question.rstrip()}\n\nUse this starter code:\n\n```python\n{starter.rstrip()}\n```"


# Values.


def _get(body: Body, column: str) -> Any:
    value = lookup(body, column)
    if value is MISSING:
        there = listed(column_names(body))
        raise RowError(QuarantineReason.MISSING_COLUMN, f"column {column!r} is missing; the row has {there or 'none'}")
    return value


def _text(body: Body, column: str) -> str:
    value = _get(body, column)
    if not isinstance(value, str) or isinstance(value, NumberLiteral) or not value.strip():
        raise _bad(column, value, "must be a text that is not empty")
    return value


def _list(body: Body, column: str) -> list[Any]:
    return _as_list(_get(body, column), column)


def _as_list(value: Any, column: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(column, value, "must be a list")
    return value


def _json(body: Body, column: str) -> Any:
    value = _get(body, column)
    return _loads(value, column) if isinstance(value, str) else value


def _loads(text: str, column: str) -> Any:
    if len(text) > MAX_JSON_CHARS:
        raise _bad(column, text, f"is longer than {MAX_JSON_CHARS} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(column, text, "is not JSON that can be read") from error


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(QuarantineReason.BAD_VALUE, f"a test value {shown(value)} is no JSON") from error


def _pairs(given: Any, expected: Any, column: str) -> list[tuple[Any, Any]]:
    given, expected = _as_list(given, column), _as_list(expected, column)
    if len(given) != len(expected):
        raise _bad(column, len(given), f"inputs stand beside {len(expected)} outputs")
    return list(zip(given, expected, strict=True))


def _lines(value: Any) -> str:
    """Return what is fed to or expected from a program: a text, or a list of its lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 <= number < 1e12 else 0.0


def _bad(column: str, value: Any, problem: str) -> RowError:
    return RowError(QuarantineReason.BAD_VALUE, f"column {column!r}: {shown(value)} {problem}")


READY: Final[Mapping[str, ReadyMapping]] = {
    # AI-MO/NuminaMath-CoT: source, problem, solution, messages
    "numina_math_cot": ReadyMapping(columns=("problem", "solution"), rewrite=_boxed("problem", "solution")),
    # AI-MO/NuminaMath-1.5: problem, solution, answer, problem_type, question_type, ...
    "numina_math_1.5": ReadyMapping(columns=("problem", "answer"), rewrite=_numina_15),
    # open-r1/OpenR1-Math-220k: problem, solution, answer, ..., uuid, generations
    "openr1_math": ReadyMapping(columns=("problem", "answer", "uuid"), rewrite=_renamed("problem", "answer", "uuid")),
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
        rewrite=_humaneval,
        domain=Domain.CODE,
        license="MIT",
    ),
    # google-research-datasets/mbpp: full (text, test_setup_code), sanitized (prompt, test_imports)
    "mbpp": ReadyMapping(
        columns=("test_list",),
        optional=("text", "prompt", "test_imports", "test_setup_code", "task_id"),
        rewrite=_mbpp,
        domain=Domain.CODE,
        license="CC-BY-4.0",
    ),
    # livecodebench/code_generation_lite: question_content, starter_code, public_test_cases, metadata, ...
    "livecodebench": ReadyMapping(
        columns=("question_content", "public_test_cases"),
        optional=("private_test_cases", "starter_code", "metadata", "question_id"),
        rewrite=_live_code_bench,
        domain=Domain.CODE,
    ),
    # BAAI/TACO: question, input_output, starter_code, ...
    "taco": ReadyMapping(
        columns=("question", "input_output"),
        optional=("starter_code", "problem_id", "id"),
        rewrite=_apps,
        domain=Domain.CODE,
    ),
    # codeparrot/apps: problem_id, question, input_output, starter_code, ...
    "apps": ReadyMapping(
        columns=("question", "input_output"),
        optional=("starter_code", "problem_id", "id"),
        rewrite=_apps,
        domain=Domain.CODE,
        license="MIT",
    ),
    # deepmind/code_contests: name, description, public_tests, private_tests, generated_tests, time_limit, ...
    "code_contests": ReadyMapping(
        columns=("description", "public_tests"),
        optional=("private_tests", "generated_tests", "time_limit", "memory_limit_bytes", "name"),
        rewrite=_code_contests,
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
        rewrite=_codeforces,
        domain=Domain.CODE,
        license="CC-BY-4.0",
    ),
    # one's own rows, or what the demo teacher's tasks are: question, entry, tests
    "function_tests": ReadyMapping(
        columns=("question", "entry", "tests"), optional=("id",), rewrite=_function_tests, domain=Domain.CODE
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
