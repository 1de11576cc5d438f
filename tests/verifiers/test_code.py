"""Programs judged in the real sandbox: right ones accepted, wrong ones with their reason, forged ones never."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.bench.code import Case, agrees, read_cases, word
from jobs.bench.hostile import below, survivors
from schemas.problem import AssertTest, Compare, FunctionTest, Limits, StdinTest, TestCase, Tests
from schemas.verdict import CodeDetail, Outcome, Reason
from verifiers.code import find_code, judge_code_completion, judge_program, supports
from verifiers.sandbox import Sandbox, SlotError

DATA = Path(__file__).parent.parent / "data"
QUICK = Limits(cpu_time_s=1.0, wall_time_s=2.5, memory_mb=256, output_mb=1)
PATIENT = replace(QUICK, wall_time_s=60)  # for programs that wait for nothing: a busy machine is not their fault
MAX_QUICK_LIMITS = 4  # rows of the blind file that wait for a limit: the others are in `factory bench code`
DOUBLE = (
    FunctionTest(entry="double", args="[2]", expected="4"),
    FunctionTest(entry="double", args="[-3]", expected="-6"),
)
DOUBLE_ASSERTS = (
    AssertTest(entry="double", source="assert double(2) == 4"),
    AssertTest(entry="double", source="for x in (0, -3):\n    assert double(x) == 2 * x"),
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox()) as found:
        yield found


@pytest.fixture(scope="module")
def public(sandbox: Sandbox) -> list[Case]:
    return read_cases(DATA / "code_cases_public.jsonl", sandbox)


def check_all(cases: list[Case], sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(2) as threads:
        verdicts = list(threads.map(lambda case: judge_program(case.source, case.tests, sandbox=sandbox), cases))
    wrong = [
        f"{case.name}: expected {case.expected}, said {word(verdict)}"
        for case, verdict in zip(cases, verdicts, strict=True)
        if not agrees(case, verdict)
    ]
    assert not wrong


def test_public_cases_three_times_and_once_on_a_busy_machine(public: list[Case], sandbox: Sandbox) -> None:
    for _ in range(3):
        with closing(Sandbox()) as fresh:
            check_all(public, fresh)
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(10_000))

    pids = []
    for _ in range(2 * len(os.sched_getaffinity(0))):
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {})
        pids.append(pid)
    try:
        with closing(Sandbox()) as fresh:
            check_all(public, fresh)
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


@pytest.mark.slow
def test_without_walls_programs_are_judged_the_same_and_limits_hold(public: list[Case]) -> None:
    before = below(os.getpid())
    with closing(Sandbox(tier="D", lowest="D")) as sandbox:
        assert sandbox.probe()[0] == "D"
        check_all(public, sandbox)
        forks = "import os, time\nfor _ in range(3): os.fork()\nprint('x')\ntime.sleep(60)"
        ran = sandbox.run_script(forks.encode(), b"", QUICK)
        assert ran.over == "wall"
        assert sandbox.num_replaced == 0
    assert not survivors(before)


@pytest.mark.parametrize(
    ("tiers", "said"),
    [({"tier": "D"}, "below lowest='C'"), ({"lowest": "E"}, "lowest='E' must be one of A, B, C, D")],
)
def test_a_sandbox_that_would_run_nothing_is_refused(tiers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sandbox(**tiers)


def test_a_machine_below_the_lowest_tier_judges_nothing() -> None:
    with closing(Sandbox(num_slots=1, lowest="A")) as sandbox:
        sandbox._wanted = "C"  # as a machine that has no more
        with pytest.raises(SlotError, match="has tier C, asked for is A at least"):
            sandbox.probe()


def test_cases_by_another_hand(sandbox: Sandbox) -> None:
    cases = read_cases(DATA / "code_cases_blind.jsonl", sandbox)
    waiting = [case for case in cases if case.expected in ("time_limit", "memory_limit") or "cpp" in case.style]
    check_all([case for case in cases if case not in waiting], sandbox)
    check_all([case for case in waiting if "python" in case.style][:MAX_QUICK_LIMITS], sandbox)
    check_all([case for case in waiting if "cpp" in case.style][: 2 * MAX_QUICK_LIMITS], sandbox)


CHEATS = [
    "def double(x): return 0\nraise SystemExit",
    "def double(x): return 0\nimport os; os._exit(0)",
    "import os\ndef double(x): os._exit(0)",
    "import sys\ndef double(x): sys.exit(0)",
    "class A:\n    def __eq__(self, other): return True\n    __ne__ = lambda s, o: False\ndef double(x): return A()",
    "class A(int):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\n"
    "def double(x): return A(7)",
    "class A(list):\n    def __eq__(self, other): return True\ndef double(x): return A([1])",
    "import builtins, json\njson.dumps = lambda *a, **k: '4'\nbuiltins.print = print\ndef double(x): return 7",
    "import builtins\nbuiltins.AssertionError = KeyError\nbuiltins.abs = lambda x: 0\ndef double(x): return 7",
    "import os\nfor fd in range(3, 64):\n"
    '    try: os.write(fd, b\'{"v": 4}\\n{"v": -6}\\nok\\nok\\n\')\n    except OSError: pass\n'
    "def double(x): return 7",
    "import os\nos.closerange(3, 64)\ndef double(x): return 7",
    "import gc\ndef double(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and 'expected' in o: return o['expected']\n    return 7",
    "import sys\ndef double(x):\n    f = sys._getframe()\n    while f:\n"
    "        if 'wanted' in f.f_locals: return f.f_locals['wanted']\n"
    "        f = f.f_back\n    return 7",
    "import atexit\natexit.register(lambda: print('ok'))\ndef double(x): return 7",
    "import sys\nsys.modules['__main__'] = None\ndef double(x): return 7",
    "def double(x):\n    yield 4",
    "double = lambda x: NotImplemented",
    "def check(candidate): pass\ndef double(x): return 7",
    "def double(x): raise AssertionError",
    "",
]


@pytest.mark.parametrize("tests", [DOUBLE, DOUBLE_ASSERTS, DOUBLE_ASSERTS[:1]], ids=["calls", "process", "claims"])
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_that_only_looks_right_is_judged_and_never_accepted(
    cheat: str, tests: tuple[TestCase, ...], sandbox: Sandbox
) -> None:
    verdict = judge_program(cheat, tests, limits=QUICK, sandbox=sandbox)
    assert verdict.outcome not in (Outcome.CORRECT, Outcome.UNJUDGED)
    assert verdict.is_correct is False


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(input())\nraise SystemExit(1)", Reason.RUNTIME_ERROR),
        ("print('x' * 3_000_000)", Reason.OUTPUT_LIMIT),
        ("import sys\nsys.stderr.write('x' * 3_000_000)", Reason.OUTPUT_LIMIT),
        ("x = [0]\nwhile True: x += x", Reason.MEMORY_LIMIT),
        ("while True: pass", Reason.TIME_LIMIT),
        ("import time\ntime.sleep(60)", Reason.TIME_LIMIT),
        ("print(1", Reason.COMPILE_ERROR),
        ("import os\nos.kill(os.getpid(), 11)", Reason.RUNTIME_ERROR),
        ("import os\nos.kill(os.getpid(), 9)\nprint('no')", Reason.RUNTIME_ERROR),
        ("import sys\nsys.exit(203)", Reason.RUNTIME_ERROR),
        ("\0", Reason.COMPILE_ERROR),
        ("print(\ud800)", Reason.COMPILE_ERROR),
        ("x" * 2_000_000, Reason.COMPILE_ERROR),
        ("print(2)", Reason.WRONG_OUTPUT),
    ],
)
def test_how_a_program_fails_is_the_reason(source: str, reason: Reason, sandbox: Sandbox) -> None:
    limits = QUICK if "sleep" in source else PATIENT
    verdict = judge_program(source, [StdinTest(input="1\n", expected="1\n")], limits=limits, sandbox=sandbox)
    assert (verdict.reason, verdict.is_correct) == (reason, False)


def test_no_tests_and_tests_that_cannot_be_used_are_the_references_fault(sandbox: Sandbox) -> None:
    def reason(*cases: TestCase, **more: object) -> Reason | None:
        verdict = judge_program("def f(): return 1", Tests(cases=cases, **more), sandbox=sandbox)  # type: ignore[arg-type]
        assert verdict.is_correct is None
        assert verdict.outcome is Outcome.BAD_REFERENCE
        return verdict.reason

    assert reason() is Reason.NO_TESTS
    assert reason(FunctionTest(entry="f", args="[", expected="1")) is Reason.UNPARSED_REFERENCE
    assert reason(FunctionTest(entry="f", args="{}", expected="1")) is Reason.UNPARSED_REFERENCE
    assert reason(AssertTest(entry="f", source="assert f( ==")) is Reason.UNPARSED_REFERENCE
    broken = Compare(mode="checker", checker="def check(inp, out, exp): raise ValueError")
    assert reason(FunctionTest(entry="f", args="[]", expected="1"), compare=broken) is Reason.UNPARSED_REFERENCE
    assert reason(FunctionTest(entry="f", args="[]", expected="1"), language="cpp") is Reason.UNPARSED_REFERENCE


def test_a_checker_that_fails_on_odd_output_only_rejects_it(sandbox: Sandbox) -> None:
    rule = Compare(mode="checker", checker="def check(inp, out, exp): return int(out) > int(inp)")
    tests = Tests(cases=(StdinTest(input="3", expected="4"),), compare=rule)
    assert judge_program("print(9)", tests, sandbox=sandbox).outcome is Outcome.CORRECT
    assert judge_program("print('nine')", tests, sandbox=sandbox).reason is Reason.WRONG_OUTPUT
    assert judge_program("print(1)", tests, sandbox=sandbox).reason is Reason.WRONG_OUTPUT


def test_settings_beside_a_tests_are_refused_and_so_is_an_unknown_language() -> None:
    tests = Tests(cases=DOUBLE)
    with pytest.raises(ValueError, match="limits given beside a Tests"):
        judge_program("", tests, limits=QUICK)
    with pytest.raises(ValueError, match="language='rust' must be one of python, cpp"):
        judge_program("", DOUBLE, language="rust")
    assert supports(tests)
    assert not supports(Tests(cases=DOUBLE, language="cpp"))


def test_detail_counts_tests_and_names_the_tier(sandbox: Sandbox) -> None:
    cases = [StdinTest(input=f"{n}\n", expected=f"{n}\n") for n in (1, 22, 333)]
    check = judge_program("n = input(); print(n if len(n) < 3 else 0)", cases, sandbox=sandbox).checks[0]
    assert isinstance(check.detail, CodeDetail)
    assert (check.detail.tests_run, check.detail.tests_passed) == (3, 2)
    assert check.detail.tier in ("A", "B", "C")
    assert 0 < check.detail.cpu_ms < 10_000
    assert 1 < check.detail.peak_mb < 256
    late = judge_program("while True: pass", cases, limits=PATIENT, sandbox=sandbox).checks[0]
    assert late.threshold == QUICK.cpu_time_s
    assert late.value is not None
    assert late.value >= late.threshold


def test_one_program_in_many_threads_gets_one_verdict(sandbox: Sandbox) -> None:
    def judge(number: int) -> tuple[Outcome, int]:
        cases = [StdinTest(input=f"{number} {n}", expected=str(number + n)) for n in range(3)]
        source = "a, b = map(int, input().split())\nprint(a + b if b < 2 or a % 2 else -1)"
        return judge_program(source, cases, sandbox=sandbox).outcome, number % 2

    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(judge, range(48)))
    assert found == {(Outcome.CORRECT, 1), (Outcome.WRONG_ANSWER, 0)}


def test_a_slot_that_is_killed_costs_nothing_but_time() -> None:
    with closing(Sandbox(num_slots=1)) as own:
        case = [StdinTest(input="", expected="1")]
        assert judge_program("print(1)", case, sandbox=own).outcome is Outcome.CORRECT
        for slot in own._free:
            slot._process.kill()
        assert judge_program("print(1 )", case, sandbox=own).outcome is Outcome.CORRECT
        assert own.num_replaced == 1


def test_a_closed_sandbox_is_our_failure_and_not_the_programs() -> None:
    own = Sandbox(num_slots=1)
    own.close()
    verdict = judge_program("print(1)", [StdinTest(input="", expected="1")], sandbox=own)
    assert (verdict.outcome, verdict.reason, verdict.is_correct) == (Outcome.UNJUDGED, Reason.WORKER_DIED, None)


def test_state_does_not_pass_from_test_to_test_or_program_to_program(sandbox: Sandbox) -> None:
    source = (
        "import os, builtins\nprint(getattr(builtins, 'seen', 0) + len(os.listdir('.')))\nbuiltins.seen = 1\n"
        "try: open('kept', 'w').write('x')\nexcept OSError: pass"
    )
    cases = [StdinTest(input="x" * n, expected="0") for n in range(4)]
    assert judge_program(source, cases, sandbox=sandbox).outcome is Outcome.CORRECT


def test_programs_have_no_more_priority_than_others_whatever_their_slot_has(sandbox: Sandbox) -> None:
    source = "import os\nprint(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0) >= 0)"
    assert judge_program(source, [StdinTest(input="", expected="0 True")], sandbox=sandbox).outcome is Outcome.CORRECT
    source = '#include <sched.h>\n#include <cstdio>\nint main() { printf("%d", sched_getscheduler(0)); }'
    case = [StdinTest(input="", expected="0")]
    assert judge_program(source, case, language="cpp", sandbox=sandbox).outcome is Outcome.CORRECT


def test_tests_see_what_a_function_does_to_its_arguments_and_to_its_objects(sandbox: Sandbox) -> None:
    source = (
        "class Stack(list):\n    push = list.append\n"
        "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n"
        "    def total(self): return self.a + self.b\n"
        "def solve(items):\n    items.sort()\n    return items\n"
        "def apply(f, items): return [f(x) for x in items]\n"
        "def count(n):\n    for i in range(n): yield i\n"
    )
    asserts = [
        "a = [3, 1, 2]\nb = solve(a)\nassert a == [1, 2, 3] and b is a",
        "assert apply(lambda x: x + 1, [1, 2]) == [2, 3]",
        "s = Stack()\ns.push(4)\nassert s == [4] and len(s) == 1 and s[0] == 4",
        "p = Pair(1, 2)\np.a = 5\nassert p.total() == 7 and isinstance(p, Pair) and p != 7",
        "assert list(count(3)) == [0, 1, 2] and sum(count(4)) == 6\ng = count(2)\nassert iter(g) is g and next(g) == 0",
        "try:\n    solve(None)\nexcept AttributeError:\n    pass\nelse:\n    assert False",
    ]
    cases = [AssertTest(entry="solve", source=one) for one in asserts]
    verdict = judge_program(source, cases, sandbox=sandbox)
    assert verdict.outcome is Outcome.CORRECT, verdict


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("<think>\n```python\nprint(1)\n```\n</think>\nSo:\n```python\nprint(2)\n```", "print(2)\n"),
        ("<think>\n```python\nprint(1)\n```\n</think>\nNo code.", None),
        ("```python\nprint(1)\n```\nor\n```py\nprint(2)\n```\nOutput:\n```\n2\n```", "print(2)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```cpp\nint main(){}\n```", None),
        ("~~~python\nprint('```')\n~~~", "print('```')\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("```Python\nprint(1)", "print(1)"),
        ("```python {title=x}\nprint(1)\n```", "print(1)\n"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_block_of_the_response_in_the_language_counts(completion: str, code: str | None) -> None:
    found = find_code(completion, "python")
    assert (None if found is None else completion[slice(*found)]) == code


def test_a_long_line_like_a_fence_is_passed_over_once() -> None:
    for line in ("```" + "a" * 1_000_000 + "`", "`" * 1_000_000, "~" * 500_000 + "`", " " * 1_000_000 + "```"):
        assert find_code(f"{line}\n```python\nprint(1)\n```\n", "python") is not None or line.startswith(("`", "~"))


def test_a_completion_is_judged_by_its_program(sandbox: Sandbox) -> None:
    text = "<think>\nTwice.\n</think>\n\n```python\ndef double(x):\n    return 2 * x\n```\n"
    check = judge_code_completion(text, DOUBLE, sandbox=sandbox).checks[0]
    assert check.outcome is Outcome.CORRECT
    assert text[check.start : check.end] == "def double(x):\n    return 2 * x\n"
    none = judge_code_completion("<think>\nTwice.\n</think>\n\nIt is 2x.", DOUBLE, sandbox=sandbox)
    assert (none.reason, none.is_correct) == (Reason.NO_CODE, False)


def test_function_answers_are_read_by_their_type(sandbox: Sandbox) -> None:
    def outcome(value: str, expected: object) -> bool:
        case = FunctionTest(entry="f", args="[]", expected=json.dumps(expected))
        return judge_program(f"def f(): return {value}", [case], sandbox=sandbox).outcome is Outcome.CORRECT

    assert outcome("(1, [2, (3,)])", [1, [2, [3]]])
    assert outcome("{1: 'a', 2: None}", {"1": "a", "2": None})
    assert outcome("10**4000", 10**4000)
    assert outcome("'\\ud800x'", "\ud800x")
    assert outcome("1.0", 1)
    assert not outcome("{1}", [1])
    assert not outcome("'1'", 1)
    assert not outcome("float('nan')", None)
    assert not outcome("[[]] * 3", [[], []])
    assert not outcome("0.1 + 0.2", 0.3)
