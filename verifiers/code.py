"""Programs judged by their tests: written to standard output, returned by a function, or claimed by asserts.

Public seam: ``judge_program``, and ``judge_code_completion`` for a whole completion. Programs run in ``sandbox``;
everything that is expected stays in this process and is compared here (``outputs``, ``asserts``), but for tests that
only a program can run, which have a process of their own there. Invariants: never raises on what a model wrote; no
tests is never a pass; a failure of the sandbox is ``unjudged`` after a second try, never "wrong".
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from schemas.problem import (
    AssertTest,
    Compare,
    FunctionTest,
    Limits,
    StdinTest,
    TestCase,
    Tests,
)
from schemas.verdict import REASON_OUTCOMES, Check, CodeDetail, Outcome, Reason, Verdict
from verifiers import cpp, outputs
from verifiers.asserts import Claim, rewrite
from verifiers.extract import response_start
from verifiers.limits import MAX_CACHED_VERDICTS, MAX_PROGRAM_CHARS
from verifiers.sandbox import Ran, Sandbox, SlotError, default_sandbox, wire
from verifiers.sandbox.slots import EXIT_COMPILE_ERROR, EXIT_MEMORY

logger = logging.getLogger(__name__)

NAME: Final = "code"
VERSION: Final = "1"
LANGUAGES: Final = ("python", "cpp")
_FENCE_NAMES: Final = {
    "python": frozenset({"python", "python3", "py", "py3"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx", "c++17", "c++20", "cpp17", "cpp20"}),
}
_FENCE: Final = re.compile(  # possessive: a line of a megabyte is passed over once
    r"^[ \t]{0,3}+(?P<mark>`{3,}+|~{3,}+)[ \t]*+(?P<name>[^\s`{]*+)[^\n`]*+$", re.MULTILINE
)
_TRIES: Final = 2  # of one program in the sandbox, before it is unjudged; the factory itself tries three times more
_CHECKER_LIMITS: Final = Limits(cpu_time_s=10.0, wall_time_s=30.0, memory_mb=512)
_SIGKILL: Final = -9
_SIGXCPU: Final = -24
_SIGABRT: Final = -6


@dataclass(slots=True)
class _Tally:
    """What the runs of one program come to."""

    tier: str = "-"
    tests_run: int = 0
    tests_passed: int = 0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    may_repeat: bool = True  # a time limit that counts only after a second run

    def add(self, ran: Ran) -> Ran:
        self.tier = ran.tier
        self.cpu_s = max(self.cpu_s, ran.cpu_s)
        self.peak_mb = max(self.peak_mb, ran.peak_mb)
        return ran

    def passed(self, count: int = 1) -> None:
        self.tests_run += count
        self.tests_passed += count


class _Failed(Exception):
    """A test was not passed, or none can be; ``value`` and ``threshold`` are those of a broken limit."""

    def __init__(self, reason: Reason, value: float | None = None, threshold: float | None = None) -> None:
        self.reason = reason
        self.value = value
        self.threshold = threshold


def judge_program(
    source: str,
    tests: Tests | Sequence[TestCase],
    *,
    language: str | None = None,
    limits: Limits | None = None,
    compare: Compare | None = None,
    sandbox: Sandbox | None = None,
) -> Verdict:
    """Return the verdict on a program, with one check, "code": all tests passed, or why the first failed one did.

    Tests run from the smallest on; without ``sandbox`` in this process's own. For a sequence of cases, language,
    limits and compare are "python", ``Limits()`` and ``Compare("tokens")`` unless given; a ``Tests`` brings its own.
    Never raises on what a model wrote; safe from any thread.

    Raises:
        ValueError: If a ``Tests`` comes with language, limits or compare, or the language is unknown.
    """
    wanted = _as_tests(tests, language, limits, compare)
    return Verdict(reference_hash=None, checks=(_judge(source, wanted, sandbox or default_sandbox()),))


def judge_code_completion(
    completion: str,
    tests: Tests | Sequence[TestCase],
    *,
    language: str | None = None,
    limits: Limits | None = None,
    compare: Compare | None = None,
    sandbox: Sandbox | None = None,
) -> Verdict:
    """Return the verdict on the program in a completion: its response's last fenced block in the language.

    All else is as for ``judge_program``. Code in the thinking never counts. Without a block in the language the last
    block without a language counts; without any, the answer is ``no_code``.
    """
    wanted = _as_tests(tests, language, limits, compare)
    found = find_code(completion, wanted.language)
    if found is None:
        outcome = REASON_OUTCOMES[Reason.NO_CODE]
        return Verdict(
            reference_hash=None,
            checks=(Check(name=NAME, version=VERSION, outcome=outcome, reason=Reason.NO_CODE),),
        )
    start, end = found
    check = _judge(completion[start:end], wanted, sandbox or default_sandbox())
    return Verdict(reference_hash=None, checks=(replace(check, start=start, end=end),))


def supports(tests: Tests) -> bool:
    """Return whether programs can be judged by these tests: C++ has standard input, Python all three kinds."""
    if tests.language == "cpp":
        return all(isinstance(case, StdinTest) for case in tests.cases)
    return tests.language == "python"


def run_program(source: str, stdin: str, *, language: str, limits: Limits, sandbox: Sandbox) -> Ran | None:
    """Return how a program runs on one standard input, with what it wrote; None if it does not compile.

    For people who want to see what a judged program does; a Python program that does not compile says so on its errors.

    Raises:
        SlotError: If the sandbox failed.
    """
    tests = Tests(cases=(), limits=limits, language=language)
    judging = _Judging(_bytes(source), tests, sandbox, _state_of(sandbox).compiler, _Tally())
    try:
        return judging.runner()(_bytes(stdin))
    except _Failed:
        return None


def find_code(completion: str, language: str) -> tuple[int, int] | None:
    """Return where the program stands in a completion: its last block in the language. One pass over the text."""
    start = response_start(completion)
    named: tuple[int, int] | None = None
    plain: tuple[int, int] | None = None
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(completion, start):
        if opened is None:
            opened = fence
            continue
        if fence["mark"][0] != opened["mark"][0] or len(fence["mark"]) < len(opened["mark"]):
            continue
        if fence["name"]:
            continue
        span = (opened.end() + 1, fence.start())
        named, plain = _sorted_in(opened["name"], span, language, named, plain)
        opened = None
    if opened is not None and opened.end() < len(completion):  # never closed: the text ended with the program
        named, plain = _sorted_in(opened["name"], (opened.end() + 1, len(completion)), language, named, plain)
    return named or plain


_Span = tuple[int, int] | None


def _sorted_in(name: str, span: tuple[int, int], language: str, named: _Span, plain: _Span) -> tuple[_Span, _Span]:
    if name.lower() in _FENCE_NAMES[language]:
        return span, plain
    return (named, span) if not name else (named, plain)


def _as_tests(
    tests: Tests | Sequence[TestCase], language: str | None, limits: Limits | None, compare: Compare | None
) -> Tests:
    if isinstance(tests, Tests):
        given = {"language": language, "limits": limits, "compare": compare}
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise ValueError(f"{', '.join(named)} given beside a Tests, which brings its own; pass its cases instead")
    else:
        tests = Tests(
            cases=tuple(tests),
            language="python" if language is None else language,
            limits=limits or Limits(),
            compare=compare or Compare(),
        )
    if tests.language not in LANGUAGES:
        raise ValueError(f"language={tests.language!r} must be one of {', '.join(LANGUAGES)}")
    return tests


def _judge(source: str, tests: Tests, sandbox: Sandbox) -> Check:
    start = time.perf_counter()
    state = _state_of(sandbox)
    key = _key(source, tests)
    check = state.verdicts.get(key)
    if check is None:
        check = _run(source, tests, sandbox, state)
        may_differ = check.outcome is Outcome.UNJUDGED or check.reason is Reason.TIME_LIMIT  # the next time
        if not may_differ:
            state.verdicts.put(key, check)
    return replace(check, ms=(time.perf_counter() - start) * 1_000)


def _run(source: str, tests: Tests, sandbox: Sandbox, state: _State) -> Check:
    """Judge a program; a failure of the sandbox is tried again once."""
    if not tests.cases:
        return _check(Reason.NO_TESTS, _Tally())
    if len(source) > MAX_PROGRAM_CHARS:
        return _check(Reason.COMPILE_ERROR, _Tally(), len(source), MAX_PROGRAM_CHARS)
    program = source.encode("utf-8", "surrogatepass")
    for attempt in range(_TRIES):
        tally = _Tally()
        try:
            _Judging(program, tests, sandbox, state.compiler, tally).all_tests()
        except _Failed as failed:
            return _check(failed.reason, tally, failed.value, failed.threshold)
        except SlotError as error:
            logger.warning("program not judged, try %d of %d: %s", attempt + 1, _TRIES, error)
            continue
        return _check(None, tally)
    return _check(Reason.WORKER_DIED, tally)


def _check(reason: Reason | None, tally: _Tally, value: float | None = None, threshold: float | None = None) -> Check:
    return Check(
        name=NAME,
        version=VERSION,
        outcome=Outcome.CORRECT if reason is None else REASON_OUTCOMES[reason],
        reason=reason,
        value=value,
        threshold=threshold,
        detail=CodeDetail(
            tier=tally.tier,
            tests_run=tally.tests_run,
            tests_passed=tally.tests_passed,
            cpu_ms=round(tally.cpu_s * 1_000, 3),
            peak_mb=round(tally.peak_mb, 3),
        ),
    )


_Case = TypeVar("_Case", StdinTest, FunctionTest, AssertTest)


class _Judging:
    """One program and its tests; raises ``_Failed`` at the first test that is not passed."""

    def __init__(self, source: bytes, tests: Tests, sandbox: Sandbox, compiler: cpp.Compiler, tally: _Tally) -> None:
        self._source = source
        self._tests = tests
        self._limits = tests.limits
        self._sandbox = sandbox
        self._compiler = compiler
        self._tally = tally

    def all_tests(self) -> None:
        """Run all tests, from the smallest on, kind by kind."""
        by_input = self._of(StdinTest, lambda case: len(case.input))
        by_call = self._of(FunctionTest, lambda case: len(case.args))
        by_assert = self._of(AssertTest, lambda case: len(case.source))
        if self._tests.language == "cpp" and (by_call or by_assert):
            raise _Failed(Reason.UNPARSED_REFERENCE)  # a data set that asks C++ for Python's asserts
        if by_input:
            self._on_stdin(by_input)
        for entry in dict.fromkeys(case.entry for case in by_call):
            self._calls(entry, [case for case in by_call if case.entry == entry])
        for entry in dict.fromkeys(case.entry for case in by_assert):
            self._asserts(entry, [case for case in by_assert if case.entry == entry])

    def _of(self, kind: type[_Case], size: Callable[[_Case], int]) -> list[_Case]:
        return sorted((case for case in self._tests.cases if isinstance(case, kind)), key=size)

    # --- standard input ----------------------------------------------------------------------------------------------

    def _on_stdin(self, cases: Sequence[StdinTest]) -> None:
        compare = self._tests.compare
        run = self.runner()
        written: list[bytes] = []
        for case in cases:
            ran = self._timed(lambda case=case: run(_bytes(case.input)))  # type: ignore[misc]
            self._tally.tests_run += 1
            self._fail_unless_well(ran)
            if compare.mode == "checker":
                written.append(ran.written)
            elif not outputs.same_output(ran.written, _bytes(case.expected), compare):
                raise _Failed(Reason.WRONG_OUTPUT)
            self._tally.tests_passed += 1
        if compare.mode == "checker":
            texts = [text.decode("utf-8", "replace") for text in written]
            self._tally.tests_passed -= len(cases)
            self._check_all([(case.input, text, case.expected) for case, text in zip(cases, texts, strict=True)])

    def runner(self) -> Callable[[bytes], Ran]:
        """Return what runs the program on a standard input; compiles it first where its language asks for that."""
        if self._tests.language == "python":
            return lambda stdin: self._sandbox.run_script(self._source, stdin, self._limits)
        program = self._compiler.compile(self._source)
        if program.binary is None:
            raise _Failed(Reason.COMPILE_ERROR)
        binary, key, launcher = program.binary, program.key, cpp.launcher()
        return lambda stdin: self._sandbox.run_binary(binary, launcher, key, stdin, self._limits)

    def _timed(self, run: Callable[[], Ran]) -> Ran:
        """Return a run; one over its time on a loaded machine is run once more in all, and that run counts."""
        ran = self._tally.add(run())
        if self._tally.may_repeat and _is_over_time(ran, self._limits) and _is_loaded():
            self._tally.may_repeat = False
            ran = self._tally.add(run())
        return ran

    def _fail_unless_well(self, ran: Ran) -> None:
        """Raise what a run's end says: limits first, since a killed program says nothing else."""
        limits = self._limits
        if ran.over == "memory" or (ran.exit == EXIT_MEMORY) or _ran_out_of_memory(ran):
            raise _Failed(Reason.MEMORY_LIMIT, round(ran.peak_mb, 1), limits.memory_mb)
        if _is_over_time(ran, limits):
            if ran.over == "wall":
                raise _Failed(Reason.TIME_LIMIT, round(ran.wall_s, 3), limits.wall_time_s)
            raise _Failed(Reason.TIME_LIMIT, round(ran.cpu_s, 3), limits.cpu_time_s)
        if ran.is_cut:
            raise _Failed(Reason.OUTPUT_LIMIT, None, limits.output_mb)
        if ran.over == "threads":
            raise _Failed(Reason.RUNTIME_ERROR)
        if ran.exit == EXIT_COMPILE_ERROR:
            raise _Failed(Reason.COMPILE_ERROR)
        if ran.exit == _SIGKILL:  # the filter lets no program do that to itself
            raise SlotError("a program's process was killed from outside: out of memory on this machine?")
        if ran.exit != 0:
            raise _Failed(Reason.RUNTIME_ERROR)

    # --- functions ---------------------------------------------------------------------------------------------------

    def _calls(self, entry: str, cases: Sequence[FunctionTest]) -> None:
        try:
            lines = [wire.dumps(_json_list(case.args)) for case in cases]
            expected = [json.loads(case.expected) for case in cases]
        except (ValueError, RecursionError):
            raise _Failed(Reason.UNPARSED_REFERENCE) from None
        compare = self._tests.compare
        values, ran = self._values(entry, lines)
        if compare.mode == "checker":
            self._tally.tests_run = len(values)
            self._fail_if_short(ran, values, len(cases))
            triples = [
                (json.loads(line), value, wanted) for line, value, wanted in zip(lines, values, expected, strict=True)
            ]
            self._check_all(triples)
            return
        for value, wanted in zip(values, expected, strict=False):
            self._tally.tests_run += 1
            if isinstance(value, _Odd) or not outputs.same_value(value, wanted, compare):
                raise _Failed(Reason.WRONG_OUTPUT)
            self._tally.tests_passed += 1
        self._fail_if_short(ran, values, len(cases))

    def _values(self, entry: str, lines: Sequence[str]) -> tuple[list[Any], Ran]:
        """Return the values of calls, as many as the program gave, and how it ended."""
        ran = self._timed(lambda: self._sandbox.call(self._source, entry, lines, self._limits))
        answers = ran.written.split(b"\n")[:-1]
        if len(answers) > len(lines):
            raise _Failed(Reason.WRONG_OUTPUT)  # more than was asked: the program writes where it should not
        return [_read_answer(line) for line in answers], ran

    def _fail_if_short(self, ran: Ran, values: Sequence[Any], count: int) -> None:
        if len(values) < count:
            self._tally.tests_run += 1
            self._fail_unless_well(ran)
            raise _Failed(Reason.RUNTIME_ERROR)  # it left, with status 0, before all was answered
        if not ran.ended_well and ran.exit != 0:
            self._fail_unless_well(ran)

    # --- asserts -----------------------------------------------------------------------------------------------------

    def _asserts(self, entry: str, cases: Sequence[AssertTest]) -> None:
        claims = [rewrite(case.source, entry) for case in cases]
        if any(found is None for found in claims):
            self._run_tests(entry, [case.source for case in cases])
            return
        said = [(claim, number) for number, found in enumerate(claims) for claim in found or ()]
        lines = [line for claim, _ in said for line in claim.calls]
        values, ran = self._values(entry, lines)
        if any(isinstance(value, _Odd) for value in values):  # objects: only a program can look into them
            self._run_tests(entry, [case.source for case in cases])
            return
        self._hold(said, values, ran)
        self._fail_if_short(ran, values, len(lines))

    def _hold(self, said: Iterable[tuple[Claim, int]], values: list[Any], ran: Ran) -> None:
        place, before = 0, -1
        for claim, number in said:
            if number != before:
                self._tally.tests_passed += before >= 0
                self._tally.tests_run += 1
                before = number
            own = values[place : place + len(claim.calls)]
            place += len(claim.calls)
            if len(own) < len(claim.calls):
                self._fail_unless_well(ran)
                raise _Failed(Reason.RUNTIME_ERROR)
            try:
                is_right = claim.holds(own)
            except ValueError:
                raise _Failed(Reason.RUNTIME_ERROR) from None
            if not is_right:
                raise _Failed(Reason.WRONG_OUTPUT)
        self._tally.tests_passed += 1

    def _run_tests(self, entry: str, sources: Sequence[str]) -> None:
        ran = self._timed(lambda: self._sandbox.test(self._source, entry, sources, self._limits))
        words = ran.written.decode("ascii", "replace").split("\n")[:-1]
        passed = [word for word in words if word == "ok"]
        self._tally.tests_run = len(words) or 1
        self._tally.tests_passed = len(passed)
        if len(passed) == len(words) == len(sources) and ran.over is None:
            return
        if words and words[-1] == "assert":
            raise _Failed(Reason.WRONG_OUTPUT)
        if words and words[-1] == "bad_test":
            raise _Failed(Reason.UNPARSED_REFERENCE)
        if words[-1:] != ["raised"]:
            self._fail_unless_well(ran)
        raise _Failed(Reason.RUNTIME_ERROR)

    # --- checkers ----------------------------------------------------------------------------------------------------

    def _check_all(self, triples: Sequence[tuple[Any, Any, Any]]) -> None:
        """Ask the problem's own checker about (input, output, expected); it runs in the sandbox like any program."""
        checker = _bytes(self._tests.compare.checker or "")
        for triple, word in zip(triples, self._ask_checker(checker, triples), strict=True):
            if word is True:
                self._tally.tests_passed += 1
                continue
            if word is None:  # it failed: on this output, or on any?
                own = (triple[0], triple[2], triple[2])
                if self._ask_checker(checker, [own])[0] is None:
                    raise _Failed(Reason.UNPARSED_REFERENCE)
            raise _Failed(Reason.WRONG_OUTPUT)

    def _ask_checker(self, checker: bytes, triples: Sequence[tuple[Any, Any, Any]]) -> list[bool | None]:
        """Return the checker's word on each; None from where on it failed."""
        lines = [wire.dumps(list(triple)) for triple in triples]
        ran = self._sandbox.call(checker, "check", lines, _CHECKER_LIMITS)
        if ran.exit == _SIGKILL and ran.over is None:
            raise SlotError("a checker's process was killed from outside")
        answers = [_read_answer(line) for line in ran.written.split(b"\n")[:-1]][: len(lines)]
        words: list[bool | None] = [None if isinstance(answer, _Odd) else bool(answer) for answer in answers]
        return words + [None] * (len(lines) - len(words))


@dataclass(frozen=True, slots=True)
class _Odd:
    """An answer that is no plain value; the text says why."""

    text: str


def _read_answer(line: bytes) -> Any:
    try:
        body = wire.loads(line)
    except wire.NotPlain:
        body = None
    if isinstance(body, dict) and body.keys() == {"v"}:
        return body["v"]
    return _Odd(line[:200].decode("ascii", "replace"))


def _json_list(text: str) -> list[Any]:
    body = json.loads(text)
    if not isinstance(body, list):
        raise ValueError(f"args={text[:100]!r} must be a JSON list")
    return body


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_over_time(ran: Ran, limits: Limits) -> bool:
    return ran.over in ("cpu", "wall") or ran.exit == _SIGXCPU


def _ran_out_of_memory(ran: Ran) -> bool:
    """Return whether the C++ library gave up: it found no more address space."""
    return ran.exit == _SIGABRT and b"std::bad_alloc" in ran.stderr


def _is_loaded() -> bool:
    """Return whether the machine has more to do than cores to do it: times taken then are not the program's alone."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


def _key(source: str, tests: Tests) -> bytes:
    """Return a hash of all that decides a verdict; ``digest`` would copy megabytes of tests for it."""
    hashed = hashlib.sha256(repr((VERSION, tests.language, tests.compare, tests.limits)).encode())
    texts = [source]
    for case in tests.cases:
        texts += [type(case).__name__, *(getattr(case, name) for name in type(case).__dataclass_fields__)]
    for text in texts:
        data = _bytes(text)
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.digest()


class _Verdicts:
    """The verdicts given last, by the hash of program and tests; safe from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Check] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Check | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: bytes, check: Check) -> None:
        with self._lock:
            self._kept[key] = check
            if len(self._kept) > MAX_CACHED_VERDICTS:
                self._kept.popitem(last=False)


class _State:
    """What is kept beside a sandbox: compiled programs and verdicts, which carry its tier."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.compiler = cpp.Compiler(sandbox)
        self.verdicts = _Verdicts()


_states: Final[weakref.WeakKeyDictionary[Sandbox, _State]] = weakref.WeakKeyDictionary()
_states_lock: Final = threading.Lock()


def _state_of(sandbox: Sandbox) -> _State:
    with _states_lock:
        if sandbox not in _states:
            _states[sandbox] = _State(sandbox)
        return _states[sandbox]
