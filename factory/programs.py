"""Known datasets of programming problems: their tests, as they lie in a row, become ours.

Part of the first step of the flow: `mappings` names these functions. Invariant: any row gives a rewritten row or a
``RowError``. Nothing in a row is evaluated or unpickled.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from factory.cells import (
    Body,
    as_list,
    bad_value,
    dump_json,
    get_json,
    get_list,
    get_text,
    join_lines,
    load_json,
    number_of,
    pairs_of,
)
from factory.rows import RowError
from schemas.problem import (
    AssertTest,
    Compare,
    FunctionTest,
    Limits,
    QuarantineReason,
    StdinTest,
    TestCase,
    Tests,
)

MAX_CASES: Final = 1_000  # of one problem; CodeContests' generated ones go beyond any use

_CALLED: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")


def humaneval(body: Body) -> dict[str, Any]:
    """``test`` defines ``check(candidate)``; the prompt is a signature with a docstring."""
    entry = get_text(body, "entry_point")
    start = get_text(body, "prompt").rstrip()
    question = f"Complete this Python function. Give the whole function.\n\n```python\n{start}\n```"
    return program(question, [AssertTest(entry=entry, source=get_text(body, "test"))], row_id=body.get("task_id"))


def mbpp(body: Body) -> dict[str, Any]:
    """`text` in the full set, `prompt` in the sanitized one; the first assert shows the function's name."""
    statement = get_text(body, "prompt" if "prompt" in body else "text")
    asserts = [str(line) for line in get_list(body, "test_list")]
    setup = "\n".join(map(str, body.get("test_imports") or [])) or str(body.get("test_setup_code") or "")
    if not asserts:
        raise RowError(QuarantineReason.BAD_VALUE, "column 'test_list': holds no test")
    entry = _called_name(asserts[0])
    question = f"{statement.strip()}\n\nYour Python function must pass this test:\n\n```python\n{asserts[0]}\n```"
    cases = [AssertTest(entry=entry, source=f"{setup}\n{line}".strip()) for line in asserts]
    return program(question, cases, row_id=body.get("task_id"))


def _called_name(line: str) -> str:
    """Return the name of the function that an assert is about: the first it calls that is no builtin and no method."""
    names = [name for name in _CALLED.findall(line) if not hasattr(builtins, name)]
    if not names:
        raise bad_value("test_list", line, "calls no function that can be named")
    return str(names[0])


def apps(body: Body) -> dict[str, Any]:
    """`input_output` is JSON (APPS and TACO)."""
    cases = paired_tests(get_json(body, "input_output"), "input_output")
    question = with_starter(get_text(body, "question"), str(body.get("starter_code") or ""))
    return program(question, cases, row_id=body.get("problem_id", body.get("id")))


def paired_tests(tests: Any, column: str) -> list[TestCase]:
    """Return the tests of an object with `inputs`, `outputs` and, for function tests, `fn_name`."""
    if not isinstance(tests, Mapping):
        raise bad_value(column, tests, "must be an object with inputs and outputs")
    entry = tests.get("fn_name")
    pairs = pairs_of(tests.get("inputs"), tests.get("outputs"), column)
    if not entry:
        return [StdinTest(input=join_lines(given), expected=join_lines(expected)) for given, expected in pairs]
    return [
        FunctionTest(entry=str(entry), args=dump_json(given), expected=dump_json(expected)) for given, expected in pairs
    ]


def code_contests(body: Body) -> dict[str, Any]:
    """Three structs of parallel lists; the time limit is a protobuf duration, memory is in bytes."""
    pairs = [
        pair
        for name in ("public_tests", "private_tests", "generated_tests")
        if isinstance(body.get(name), Mapping)
        for pair in pairs_of(body[name].get("input"), body[name].get("output"), name)
    ]
    cases = [StdinTest(input=join_lines(given), expected=join_lines(expected)) for given, expected in pairs[:MAX_CASES]]
    duration = body.get("time_limit")
    seconds = (
        number_of(duration.get("seconds")) + number_of(duration.get("nanos")) / 1e9
        if isinstance(duration, Mapping)
        else 0
    )
    memory = number_of(body.get("memory_limit_bytes"))
    default = Limits()
    limits = Limits(
        cpu_time_s=seconds or default.cpu_time_s,
        wall_time_s=2 * seconds or default.wall_time_s,
        memory_mb=int(memory) >> 20 or default.memory_mb,
    )
    return program(get_text(body, "description"), list(cases), limits=limits, row_id=body.get("name"))


def codeforces(body: Body) -> dict[str, Any]:
    """Statements in parts; all official tests that are short enough to stand there, judged by the problem's checker."""
    for column, allowed in (("input_mode", ("stdio",)), ("interaction_format", ())):
        if (value := body.get(column)) and value not in allowed:
            raise bad_value(column, value, "is no problem of standard input and output")
    pairs = {
        (case["input"], case["output"]): None
        for name in ("official_tests", "examples")
        for case in as_list(body.get(name) or [], name)
        if isinstance(case, Mapping) and {"input", "output"} <= set(case)
    }
    cases = [StdinTest(input=join_lines(given), expected=join_lines(expected)) for given, expected in pairs]
    seconds, memory = number_of(body.get("time_limit")), number_of(body.get("memory_limit"))
    default = Limits()
    limits = Limits(
        cpu_time_s=seconds or default.cpu_time_s,
        wall_time_s=2 * seconds or default.wall_time_s,
        memory_mb=int(memory) or default.memory_mb,
    )
    script = body.get("generated_checker")
    compare = Compare("checker", checker=_checker_of_files(script)) if isinstance(script, str) and script else None
    question = _codeforces_statement(body, seconds, int(memory))
    return program(question, list(cases), limits=limits, compare=compare, row_id=body.get("id"))


def _codeforces_statement(body: Body, seconds: float, memory_mb: int) -> str:
    title = str(body.get("title") or "").strip()
    parts = [f"# {title}" if title else "", get_text(body, "description").strip()]
    if seconds and memory_mb:
        parts.append(f"Time limit: {seconds:g} s. Memory limit: {memory_mb} MB.")
    for name, heading in (("input_format", "Input"), ("output_format", "Output")):
        if text := str(body.get(name) or "").strip():
            parts.append(f"## {heading}\n\n{text}")
    for case in as_list(body.get("examples") or [], "examples"):
        if isinstance(case, Mapping):
            given, expected = (join_lines(case.get(name, "")).rstrip() for name in ("input", "output"))
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


def live_code_bench(body: Body) -> dict[str, Any]:
    """`public_test_cases` is JSON; `private_test_cases` is JSON or a packed pickle, which is never opened.

    Judged by the public cases alone where the private ones are packed: convert the file first to have them all.
    """
    listed_cases = get_json(body, "public_test_cases")
    private = body.get("private_test_cases")
    if isinstance(private, str) and private.lstrip().startswith("["):
        listed_cases = [
            *as_list(listed_cases, "public_test_cases"),
            *as_list(get_json(body, "private_test_cases"), "private_test_cases"),
        ]
    metadata = get_json(body, "metadata") if body.get("metadata") else {}
    entry = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    cases = [_live_case(case, entry) for case in as_list(listed_cases, "public_test_cases")]
    question = with_starter(get_text(body, "question_content"), str(body.get("starter_code") or ""))
    rule = Compare("livecodebench" if all(isinstance(case, StdinTest) for case in cases) else "tokens")
    return program(question, cases, compare=rule, row_id=body.get("question_id"))


def _live_case(case: Any, entry: object) -> TestCase:
    if (
        not isinstance(case, Mapping)
        or not isinstance(case.get("input"), str)
        or not isinstance(case.get("output"), str)
    ):
        raise bad_value("public_test_cases", case, "must be objects with input, output and testtype")
    if case.get("testtype") != "functional":
        return StdinTest(input=case["input"], expected=case["output"])
    if not isinstance(entry, str) or not entry:
        raise RowError(QuarantineReason.BAD_VALUE, "column 'metadata': names no func_name for its functional tests")
    arguments = [load_json(line, "public_test_cases") for line in case["input"].splitlines()]  # one JSON value a line
    return FunctionTest(
        entry=entry, args=dump_json(arguments), expected=dump_json(load_json(case["output"], "public_test_cases"))
    )


def function_tests(body: Body) -> dict[str, Any]:
    """`tests` are objects of `args` and `expected`, each a JSON value or its text, for the function `entry`."""
    entry = get_text(body, "entry")
    cases = []
    for i, case in enumerate(get_list(body, "tests")):
        if not isinstance(case, Mapping) or not {"args", "expected"} <= set(case):
            raise bad_value(f"tests.{i}", case, "must be an object with args and expected")
        args, expected = (_as_json(case[name], f"tests.{i}.{name}") for name in ("args", "expected"))
        if not isinstance(args, list):
            raise bad_value(f"tests.{i}.args", args, "must be a list of arguments")
        cases.append(FunctionTest(entry=entry, args=dump_json(args), expected=dump_json(expected)))
    return program(get_text(body, "question"), cases, row_id=body.get("id"))


def _as_json(value: Any, column: str) -> Any:
    return load_json(value, column) if isinstance(value, str) else value


def program(
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


def with_starter(question: str, starter: str) -> str:
    if not starter.strip():
        return question
    return f"{question.rstrip()}\n\nUse this starter code:\n\n```python\n{starter.rstrip()}\n```"
