"""`factory bench code`: how often programs are judged right, what a test costs, and whether hostile programs get out.

Cases are JSON Lines: a problem with ``style`` (stdin, function, assert), ``tests``, ``compare`` and limits, and
``solutions`` with the ``expected`` word each (accept, wrong_answer, or a reason; ``also_ok`` names others). Costs are
medians of interleaved runs, beside a bare fork of the same process, a fresh interpreter, and a bare start of the same
binary; the ratios are what counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from factory.measured import Errors, count_errors
from jobs.bench import hostile, mutants
from schemas.errors import ConfigError
from schemas.problem import AssertTest, Compare, FunctionTest, Limits, StdinTest, TestCase, Tests
from schemas.verdict import CodeDetail, Outcome, Verdict
from verifiers import cpp
from verifiers.code import judge_program
from verifiers.sandbox import Sandbox, SlotError, wire
from verifiers.sandbox.slots import TIERS, interpreter

ACCEPT: Final = "accept"
REJECT: Final = "reject"  # for whatever reason
WORDS: Final = {"wrong_output": "wrong_answer"}  # in the cases' words
GENERATOR_LIMITS: Final = Limits(cpu_time_s=30.0, wall_time_s=60.0, memory_mb=1_024)
COST_LIMITS: Final = Limits(cpu_time_s=5.0, wall_time_s=10.0, memory_mb=256)
KILL_WALL_S: Final = 0.1  # limit of the runs whose kill is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A solution of a problem, and what is true of it."""

    name: str
    style: str
    source: str
    tests: Tests
    expected: str
    also_ok: tuple[str, ...] = ()
    change: str = ""  # what was done to a right solution


def read_cases(path: Path, sandbox: Sandbox) -> list[Case]:
    """Return the cases of a file; tests that a row generates are made in the sandbox.

    Raises:
        ConfigError: If it cannot be read, or a line is no problem; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--cases {path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found += _cases(json.loads(line), sandbox) if line.strip() else []
        except (ValueError, KeyError, TypeError, AttributeError, SlotError) as error:
            raise ConfigError(
                f"--cases {path}, line {number}: {error!r}; a problem is a JSON object with id, language, style, "
                "tests, compare, time_limit_s, memory_limit_mb and solutions"
            ) from error
    if not found:
        raise ConfigError(f"--cases {path}: no case in it")
    return found


def _cases(row: dict[str, Any], sandbox: Sandbox) -> list[Case]:
    if mutants.is_humaneval(row):
        return list(_humaneval_cases(row, sandbox))
    seconds = float(row["time_limit_s"])
    tests = Tests(
        cases=tuple(_test(row, one, sandbox) for one in row["tests"]),
        compare=Compare(**row["compare"]),
        limits=Limits(cpu_time_s=seconds, wall_time_s=2 * seconds + 0.5, memory_mb=int(row["memory_limit_mb"])),
        language=row["language"],
    )
    return [
        Case(
            name=f"{row['id']}/{number}",
            style=f"{row['language']} {row['style']}",
            source=one["code"],
            tests=tests,
            expected=one["expected"],
            also_ok=tuple(one.get("also_ok", ())),
        )
        for number, one in enumerate(row["solutions"])
    ]


def _humaneval_cases(row: dict[str, Any], sandbox: Sandbox) -> Iterator[Case]:
    """Yield the data set's own solution, which is right, and changed ones, of which plain Python says it."""
    source, entry = mutants.solution(row), row["entry_point"]
    tests = Tests(cases=(AssertTest(entry=entry, source=row["test"]),), limits=mutants.PLAIN_LIMITS)
    yield Case(name=row["task_id"], style="HumanEval", source=source, tests=tests, expected=ACCEPT)
    for number, (other, change) in enumerate(mutants.changed(source, entry), 1):
        yield Case(
            name=f"{row['task_id']}/{number}",
            style="HumanEval, one operator changed",
            source=other,
            tests=tests,
            expected=ACCEPT if mutants.passes_plainly(other, row, sandbox) else REJECT,
            change=change,
        )


def _test(row: dict[str, Any], one: dict[str, Any], sandbox: Sandbox) -> TestCase:
    if "gen" in one:
        ran = sandbox.call(one["gen"].encode(), "gen", ["[]"], GENERATOR_LIMITS)
        if not ran.ended_well:
            raise ValueError(f"its generator failed: {ran.stderr[-300:].decode('utf-8', 'replace')}")
        given, expected = wire.loads(ran.written.splitlines()[0])["v"]
        one = {"input": given, "args": given, "expected": expected}
    match row["style"]:
        case "stdin":
            return StdinTest(input=one["input"], expected=one["expected"])
        case "function":
            return FunctionTest(entry=row["entry"], args=json.dumps(one["args"]), expected=json.dumps(one["expected"]))
        case "assert":
            return AssertTest(entry=row["entry"], source=one["assert"])
        case style:
            raise ValueError(f"style={style!r} must be stdin, function or assert")


def run(cases: Sequence[Case], sandbox: Sandbox, num_threads: int, done: Callable[[int], None]) -> dict[str, Verdict]:
    """Return the verdicts by name."""

    def judge(case: Case) -> Verdict:
        return judge_program(case.source, case.tests, sandbox=sandbox)

    verdicts = {}
    with ThreadPoolExecutor(num_threads) as threads:
        for number, (case, verdict) in enumerate(zip(cases, threads.map(judge, cases), strict=True), 1):
            verdicts[case.name] = verdict
            done(number)
    return verdicts


def word(verdict: Verdict) -> str:
    """Return what a verdict says in the words of the cases."""
    if verdict.outcome is Outcome.CORRECT:
        return ACCEPT
    return WORDS.get(str(verdict.reason), str(verdict.reason))


def agrees(case: Case, verdict: Verdict) -> bool:
    """Return whether a verdict says what the case expects, or what is also right."""
    if case.expected == REJECT:
        return verdict.outcome not in (Outcome.CORRECT, Outcome.UNJUDGED)
    return word(verdict) in (case.expected, *case.also_ok)


def summary(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """Return the figures over all cases."""
    said = [(case, verdicts[case.name]) for case in cases]
    details = [one.detail for _, verdict in said for one in verdict.checks if isinstance(one.detail, CodeDetail)]
    return {
        "cases": len(cases),
        "agreement": sum(agrees(*one) for one in said) / len(said),
        "false accepts": sum(word(verdict) == ACCEPT and not agrees(case, verdict) for case, verdict in said),
        "false rejects": sum(case.expected == ACCEPT and not agrees(case, verdict) for case, verdict in said),
        "unjudged": sum(verdict.outcome is Outcome.UNJUDGED for _, verdict in said),
        "tiers": ", ".join(sorted({detail.tier for detail in details})),
        "ms per program, median": statistics.median(check.ms for _, verdict in said for check in verdict.checks),
    }


def errors(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> Errors:
    """Return the sums for a record, without cases of which either word is right."""
    sure = [case for case in cases if case.expected == ACCEPT or ACCEPT not in case.also_ok]
    said = {name: None if one.outcome is Outcome.UNJUDGED else word(one) == ACCEPT for name, one in verdicts.items()}
    return count_errors((f"{case.style}, {case.expected}", case.expected == ACCEPT, said[case.name]) for case in sure)


def by_style(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> list[dict[str, Any]]:
    """Return per style the cases, those judged as expected, and the median time of a program in ms."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    times: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        verdict = verdicts[case.name]
        counts[case.style]["cases"] += 1
        counts[case.style]["right"] += agrees(case, verdict)
        times[case.style].append(sum(check.ms for check in verdict.checks))
    return [{"style": style, **counts[style], "ms": statistics.median(times[style])} for style in sorted(counts)]


def mistakes(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> list[dict[str, str]]:
    """Return the cases that came out otherwise than expected."""
    return [
        {"case": case.name, "style": case.style, "expected": case.expected, "said": word(verdicts[case.name])}
        for case in cases
        if not agrees(case, verdicts[case.name])
    ]


def accepted_changes(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> list[dict[str, str]]:
    """Return the changed solutions that were accepted, with the change: the tests are weak, or it means nothing."""
    return [
        {"case": case.name, "change": case.change}
        for case in cases
        if case.change and verdicts[case.name].outcome is Outcome.CORRECT
    ]


def measure(
    cases: Path | None,
    hostile_rows: Path | None,
    *,
    endure: int,
    tier: str,
    rounds: int,
    repeat: int,
    threads: int | None,
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> dict[str, Any]:
    """Return all figures that were asked for, as JSON values; empty where they were not.

    Raises:
        ConfigError: If a file or the tier is none.
        SlotError: If the sandbox failed.
    """
    if tier not in TIERS:
        raise ConfigError(f"--tier {tier!r} must be one of {', '.join(TIERS)}")
    tiers: dict[str, Any] = {"tier": tier, "lowest": "D" if tier == "D" else "C"}
    num_threads = threads or len(os.sched_getaffinity(0))
    body: dict[str, Any] = {
        "figures": {},
        "styles": [],
        "errors": None,
        "mistakes": [],
        "accepted changes": [],
        "costs": [],
        "rates": [],
        "kill latency": {},
    }
    for _ in range(repeat if cases is not None else 0):
        with closing(Sandbox(**tiers)) as sandbox:
            assert cases is not None
            found = read_cases(cases, sandbox)
            with counting("programs", len(found)) as done:
                verdicts = run(found, sandbox, num_threads, done)
            body["figures"], body["styles"] = summary(found, verdicts), by_style(found, verdicts)
            body["errors"] = asdict(errors(found, verdicts))
            body["mistakes"] += mistakes(found, verdicts)
            body["accepted changes"] = accepted_changes(found, verdicts)
    with closing(Sandbox(**tiers)) as sandbox:
        body["tier"], _ = sandbox.probe()
        if rounds:
            with counting("rounds", rounds) as done:
                body["costs"] = costs(sandbox, rounds, done)
            body["rates"] = rates(sandbox, rounds, num_threads)
            body["kill latency"] = kill_latency(sandbox, rounds)
        if hostile_rows is not None:
            body |= _hostile(hostile.read_rows(hostile_rows), sandbox, endure, num_threads, counting)
    return body


def _hostile(
    rows: Sequence[hostile.Row],
    sandbox: Sandbox,
    endure: int,
    num_threads: int,
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> dict[str, Any]:
    found = {}
    with hostile.host() as host, counting("hostile programs", len(rows)) as done:
        for number, row in enumerate(rows, 1):
            if said := hostile.findings(row, sandbox, host):
                found[f"{row.name} {row.category}"] = said
            done(number)
    left: dict[str, Any] = {}
    if endure:
        hostile.endure(rows[:1], 4 * num_threads, sandbox, num_threads, lambda _: None)  # slots are up before the count
        before = hostile.remains()
        with counting("runs", endure) as done:
            unjudged = hostile.endure(rows, endure, sandbox, num_threads, done)
        left = {"runs": endure, "unjudged": unjudged, "slots replaced": sandbox.num_replaced}
        left |= hostile.remains().minus(before)
    return {"hostile programs": len(rows), "hostile": found, "left": left}


# --- costs -----------------------------------------------------------------------------------------------------------

_SUM: Final = "import sys\nfrom collections import defaultdict\n\na, b = map(int, input().split())\nprint(a + b)\n"
_FUNCTION: Final = "def f(n, a):\n    return n + sum(a)\n"
_CPP: Final = "#include <iostream>\nint main() { long long a, b; std::cin >> a >> b; std::cout << a + b; }\n"
_INPUT: Final = "1 2\n"


def costs(sandbox: Sandbox, rounds: int, done: Callable[[int], None]) -> list[dict[str, Any]]:
    """Return the median ms of each kind of program and what it is compared with, all taking turns.

    Each program is judged under another input, so that no verdict is remembered.

    Raises:
        SlotError: If the sandbox failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        kinds = {**_python_kinds(sandbox, Path(folder)), **_cpp_kinds(sandbox, Path(folder))}
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(1, rounds + 1):
            for name, one in kinds.items():
                start = time.perf_counter()
                took = one(number)
                times[name].append(1_000 * (time.perf_counter() - start if took is None else took))
            done(number)
    medians = {name: statistics.median(values[1:] or values) for name, values in times.items()}
    return [_cost(name, medians, times[name]) for name in kinds]


_CALLS: Final = "Python, a function with 10 tests"
_ASSERTS: Final = "Python, asserts in a second process"
_FLOOR: Final = "bare fork and wait of the same zygote"
_FRESH: Final = "fresh interpreter (subprocess)"
_STDIN: Final = "Python, one test on standard input"
_START: Final = "bare start of the same binary"
_AGAINST: Final = {
    _STDIN: (_FLOOR, _FRESH),
    _CALLS: (_FLOOR, _STDIN),
    _ASSERTS: (_FLOOR, _STDIN),
    "C++, one test on standard input": (_START,),
}


def _cost(name: str, medians: dict[str, float], times: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(times)
    against = ", ".join(
        f"{medians[name] / medians[other]:.2f}x {other}" for other in _AGAINST.get(name, ()) if other in medians
    )
    return {
        "what": name,
        "ms, median": medians[name],
        "ms, p95": ordered[int(0.95 * (len(ordered) - 1))],
        "per second": 1_000 / medians[name],
        "against": against,
    }


_Kind = Callable[[int], float | None]  # of the round; returns seconds if it measured itself


def _python_kinds(sandbox: Sandbox, folder: Path) -> dict[str, _Kind]:
    script = folder / "main.py"
    script.write_text(_SUM)
    asserts = "for i in range(3):\n    assert f(i, [{0}]) == i + {0}"

    def fresh(number: int) -> None:
        command = [interpreter(), "-I", "-S", str(script)]
        subprocess.run(command, input=f"{number} 2\n".encode(), capture_output=True, check=True, env={})

    def calls(number: int) -> list[FunctionTest]:
        return [
            FunctionTest(entry="f", args=json.dumps([i, [number, i]]), expected=json.dumps(2 * i + number))
            for i in range(10)
        ]

    def judged(source: str, tests: Callable[[int], Sequence[TestCase]], language: str = "python") -> _Kind:
        def one(number: int) -> None:
            _must_pass(source, tests(number), language, sandbox)

        return one

    return {
        _FLOOR: lambda number: sandbox.fork_s(1),
        _STDIN: judged(_SUM, lambda number: [StdinTest(input=f"{number} 2\n", expected=f"{number + 2}\n")]),
        _CALLS: judged(_FUNCTION, calls),
        _ASSERTS: judged(_FUNCTION, lambda number: [AssertTest(entry="f", source=asserts.format(number))]),
        _FRESH: fresh,
    }


def _must_pass(source: str, cases: Sequence[TestCase], language: str, sandbox: Sandbox) -> None:
    verdict = judge_program(source, cases, language=language, limits=COST_LIMITS, sandbox=sandbox)
    if verdict.outcome is not Outcome.CORRECT:
        raise SlotError(f"a program of the benchmark itself was not accepted: {verdict.checks}")


def _cpp_kinds(sandbox: Sandbox, folder: Path) -> dict[str, _Kind]:
    """Return nothing on a machine without a compiler."""
    try:
        program = cpp.Compiler(sandbox).compile(_CPP.encode())
    except SlotError:
        return {}
    binary, given, taken = folder / "program", folder / "input", folder / "output"
    binary.write_bytes(program.binary or b"")
    binary.chmod(0o755)
    given.write_text(_INPUT)

    def start(number: int) -> None:
        with given.open("rb") as source, taken.open("wb") as target:
            actions = [(os.POSIX_SPAWN_DUP2, source.fileno(), 0), (os.POSIX_SPAWN_DUP2, target.fileno(), 1)]
            os.waitpid(os.posix_spawn(str(binary), [str(binary)], {}, file_actions=actions), 0)

    def judge(number: int) -> None:
        _must_pass(_CPP, [StdinTest(input=f"{number} 2\n", expected=f"{number + 2}\n")], "cpp", sandbox)

    return {"C++, one test on standard input": judge, _START: start}


def rates(sandbox: Sandbox, rounds: int, num_threads: int) -> list[dict[str, Any]]:
    """Return how many programs are judged per second, each kind by itself: one after the other, and on all cores.

    In the cost table kinds take turns, so that each finds the caches full of the others; a run is mostly one kind.
    """
    with tempfile.TemporaryDirectory() as folder:
        kinds = _python_kinds(sandbox, Path(folder))
        found = []
        for name in (_STDIN, _CALLS, _ASSERTS):
            numbers = iter(range(1_000_000, 1_000_000 + 2 * rounds))  # inputs that were not judged yet
            row: dict[str, Any] = {"what": name}
            for threads in (1, num_threads):
                batch = [next(numbers) for _ in range(rounds)]
                with ThreadPoolExecutor(threads) as pool:
                    start = time.perf_counter()
                    list(pool.map(kinds[name], batch))
                    row[f"{threads} at a time, per second"] = rounds / (time.perf_counter() - start)
            found.append(row)
        return found


def kill_latency(sandbox: Sandbox, rounds: int) -> dict[str, float]:
    """Return by how many ms programs outlive their wall limit: those that sleep, and those that compute."""
    late: list[float] = []
    limits = Limits(cpu_time_s=5.0, wall_time_s=KILL_WALL_S, memory_mb=256)
    for number in range(rounds):
        source = b"import time\ntime.sleep(9)" if number % 2 else b"while True: pass"
        late.append(1_000 * (sandbox.run_script(source, b"", limits).wall_s - KILL_WALL_S))
    late.sort()
    return {"p50": statistics.median(late), "p99": late[int(0.99 * (len(late) - 1))], "max": late[-1]}
