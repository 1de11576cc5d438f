"""Known right and known wrong traces: a verifier that starts to call everything one thing is noticed.

Run in every worker at start, all of them, and one pair now and then during a run. Each goes through the real ``judge``
and, where its rung needs it, the real worker processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.errors import VerifierError
from schemas.problem import (
    Answer,
    AssertTest,
    Choice,
    Domain,
    FunctionTest,
    Message,
    Problem,
    Reference,
    Scorer,
    StdinTest,
    Tests,
)
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Outcome, Verdict
from verifiers.registry import judge as judge_all

VERSION: Final = "3"
MAX_TRIES: Final = 3  # of a canary that comes out unjudged: as many as a trace gets where a job does not say


class Canary(NamedTuple):
    """A trace with the verdict that it must get."""

    name: str
    problem: Problem
    trace: Trace
    outcome: Outcome
    is_correct: bool | None


_SUDOKU: Final = [[2, 1, 3, 4], [4, 3, 2, 1], [1, 2, 4, 3], [3, 4, 1, 2]]
_GRID: Final = "\n".join(" ".join(map(str, row)) for row in _SUDOKU)
_PALINDROME: Final = Scorer(
    name="reasoning_gym/palindrome_generation",
    payload=json.dumps({"question": "", "answer": "abccba", "metadata": {"letters": list("aabbcc")}}),
)
_MINI_SUDOKU: Final = Scorer(
    name="reasoning_gym/mini_sudoku",
    payload=json.dumps({"question": "", "answer": _GRID, "metadata": {"solution": _SUDOKU}}),
)
_OPTIONS: Final = ("a circle", "a square", "a triangle", "a line")

# name, reference, a right answer, a wrong one: each becomes two canaries in each of two formats
_ANSWERS: Final[tuple[tuple[str, Reference, str, str], ...]] = (
    ("integer", Answer(text="1234"), "1{,}234", "1243"),
    ("fraction", Answer(text="\\frac{3}{4}"), "0.75", "0.7500001"),
    ("lowest terms", Answer(text="3/4", kind="reduced_fraction"), "\\frac34", "\\frac68"),
    ("text", Answer(text="even", kind="text"), "Even.", "odd"),
    ("tuple", Answer(text="(2, -3)"), "(2,-3)", "(-3,2)"),
    ("number list", Answer(text="['-4', '7.5']", kind="tuple"), "[-4, 7.50]", "[7.5, -4]"),
    ("interval", Answer(text="(2,5)"), "(2,5)", "[2,5]"),
    ("expression", Answer(text="x^2+2x+1"), "(x+1)^2", "(x-1)^2"),
    ("radical", Answer(text="\\frac{\\sqrt{2}}{2}"), "\\frac{1}{\\sqrt{2}}", "\\sqrt{2}"),
    ("unit", Answer(text="5\\text{ km}"), "5000\\text{ m}", "5\\text{ m}"),
    ("percent", Answer(text="0.125"), "12.5\\%", "0.125\\%"),
    ("base", Answer(text="1011_2"), "1011_{2}", "1011_3"),
    ("solution set", Answer(text="x \\geq 2"), "[2,\\infty)", "(2,\\infty)"),
    ("equation", Answer(text="2x+4y=3"), "y=\\frac{3}{4}-\\frac{x}{2}", "y=\\frac{3}{4}+\\frac{x}{2}"),
    ("matrix", Answer(text="\\begin{pmatrix}1\\\\2\\end{pmatrix}"), "(1,2)", "(2,1)"),
    ("identity", Answer(text="\\sin 2x"), "2\\sin x\\cos x", "2\\sin x"),
    ("worked out", Answer(text="\\sum_{k=1}^{3} kx"), "6x", "5x"),
    ("choice", Choice(letter="B", options=_OPTIONS), "\\text{(B) a square}", "C"),
    ("puzzle", _PALINDROME, "cabbac", "abcabc"),
    ("grid", _MINI_SUDOKU, _GRID, _GRID.replace("2 1 3 4", "1 2 3 4")),
)
# The same of programs, which need a sandbox and not every run has.
_PROGRAMS: Final[tuple[tuple[str, Reference, str, str], ...]] = (
    (
        "program",
        Tests(cases=(StdinTest(input="2 3\n", expected="5\n"),)),
        "print(sum(map(int, input().split())))",
        "print(input().replace(' ', '+'))",
    ),
    (
        "function",
        Tests(cases=(FunctionTest(entry="double", args="[4]", expected="8"),)),
        "def double(x):\n    return 2 * x",
        "def double(x):\n    return x * x",
    ),
    (
        "asserts",
        Tests(cases=(AssertTest(entry="double", source="for i in range(3):\n    assert double(i) == 2 * i"),)),
        "def double(x):\n    return x + x",
        "class Equal:\n    __eq__ = lambda *_: True\ndouble = lambda x: Equal()",
    ),
)


def _problem(name: str, reference: Reference | None) -> Problem:
    domains = {Scorer: Domain.LOGIC, Tests: Domain.CODE}
    return Problem(
        domain=domains.get(type(reference), Domain.MATH),
        messages=(Message(role="user", content=f"Canary: {name}."),),
        source="canaries",
        source_row_id=name,
        license="Apache-2.0",
        reference=reference,
    )


def _trace(problem: Problem, text: str, layout: TraceFormat) -> Trace:
    return Trace(
        fingerprint="canary",
        problem_id=problem.problem_id,
        sample_index=0,
        format=layout,
        text=text,
        token_ids=(),
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=0,
        num_completion_tokens=0,
        teacher="canary",
        teacher_revision="",
        engine="canary",
        engine_version="",
        engine_id="canary",
        submitted_at_us=0,
        finished_at_us=0,
    )


def _lay_out(answer: str, layout: TraceFormat, *, is_program: bool = False) -> str:
    thought = "I work this out step by step and check it once."
    if is_program:
        block = f"```python\n{answer}\n```"
        if layout is TraceFormat.ZERO:
            return f"<think>{thought}</think>\n<answer>\n{block}\n</answer>"
        return f"<think>\n{thought}\n</think>\n\nThis is the program:\n\n{block}"
    match layout:
        case TraceFormat.R1:
            return f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{{answer}}}"
        case TraceFormat.R1_PREFILLED:
            return f"{thought}\n</think>\n\nThe answer is \\boxed{{{answer}}}"
        case TraceFormat.ZERO:
            return f"<think>{thought}</think>\n<answer>{answer}</answer>"
        case TraceFormat.PLAIN:
            return f"{thought} So the answer is \\boxed{{{answer}}}"


# name, format, text, outcome, word of the answer check; the reference is 42
_DEFECTS: Final[tuple[tuple[str, TraceFormat, str, Outcome, bool | None], ...]] = (
    ("empty think", TraceFormat.R1, "<think>\n\n</think>\nSo \\boxed{42}.", Outcome.UNREADABLE, True),
    ("box only in think", TraceFormat.R1, "<think>It is \\boxed{42}.</think>\nDone.", Outcome.UNREADABLE, False),
    ("never closed", TraceFormat.R1, "<think>It is \\boxed{42}.", Outcome.UNREADABLE, False),
    ("text after", TraceFormat.ZERO, "<think>6 * 7</think><answer>42</answer> Bye.", Outcome.UNREADABLE, True),
    ("empty box", TraceFormat.R1, "<think>6 * 7 is 42.</think>\n42, so \\boxed{}.", Outcome.NO_ANSWER, False),
    ("plain", TraceFormat.PLAIN, "6 * 7 = 42, so \\boxed{42}.", Outcome.CORRECT, True),
    ("prefilled", TraceFormat.R1_PREFILLED, "6 * 7 = 42.</think>\n\\boxed{42}", Outcome.CORRECT, True),
)


def _pairs(answers: Sequence[tuple[str, Reference, str, str]]) -> Iterator[Canary]:
    """Yield a right and a wrong canary of each answer in each format, one after the other."""
    for name, reference, right, wrong in answers:
        problem = _problem(name, reference)
        for layout in (TraceFormat.R1, TraceFormat.ZERO):
            for answer, word in ((right, True), (wrong, False)):
                outcome = Outcome.CORRECT if word else Outcome.WRONG_ANSWER
                label = f"{name}, {layout}, {'right' if word else 'wrong'}"
                text = _lay_out(answer, layout, is_program=isinstance(reference, Tests))
                yield Canary(label, problem, _trace(problem, text, layout), outcome, word)


@lru_cache(maxsize=2)
def _all(*, programs: bool) -> tuple[Canary, ...]:
    found = [*_pairs(_ANSWERS), *(_pairs(_PROGRAMS) if programs else ())]
    problem = _problem("defects", Answer(text="42"))
    for name, layout, text, outcome, defect_word in _DEFECTS:
        found.append(Canary(name, problem, _trace(problem, text, layout), outcome, defect_word))
    open_ended = _problem("no reference", None)
    text = "<think>I greet back.</think>\nHello, number 1!"
    found.append(Canary("no reference", open_ended, _trace(open_ended, text, TraceFormat.R1), Outcome.READABLE, None))
    return tuple(found)


def canaries(*, programs: bool = True) -> Iterator[Canary]:
    """Yield all canaries: right and wrong of each kind of reference, in several formats, and the defects of format.

    Those with ``programs`` need a sandbox.
    """
    yield from _all(programs=programs)


def one_pair(turn: int, *, programs: bool = True) -> tuple[Canary, Canary]:
    """Return one right and one wrong canary; another pair each turn, until all had theirs."""
    found = _all(programs=programs)
    pairs = [pair for pair in zip(found[::2], found[1::2], strict=False) if pair[0].problem == pair[1].problem]
    answers = [pair for pair in pairs if pair[0].problem.source_row_id != "defects"]
    return answers[turn % len(answers)]


def check_canaries(
    judge: Callable[[Problem, Trace], Verdict] = judge_all, subset: Sequence[Canary] | None = None
) -> None:
    """Judge canaries (all, programs too, or a subset) and return if each gets the verdict that it must get.

    One that stays unjudged, say on a machine too busy to judge, is judged again as a trace would be.

    Raises:
        VerifierError: If one does not: the verifiers are broken, and nothing they said lately may be used.
    """
    for canary in canaries() if subset is None else subset:
        verdict = judge(canary.problem, canary.trace)
        for _ in range(MAX_TRIES - 1):
            if verdict.outcome is not Outcome.UNJUDGED:
                break
            verdict = judge(canary.problem, canary.trace)
        if verdict.outcome is Outcome.UNJUDGED:
            raise VerifierError(
                f"canary {canary.name!r} could not be judged in {MAX_TRIES} tries (reason={verdict.reason}): processes "
                f"of the verifiers die here, or get no CPU time; the log says why, checks: {verdict.checks}"
            )
        if (verdict.outcome, verdict.is_correct) != (canary.outcome, canary.is_correct):
            raise VerifierError(
                f"canary {canary.name!r}: expected {canary.outcome} (is_correct={canary.is_correct}), "
                f"got {verdict.outcome} (is_correct={verdict.is_correct}, reason={verdict.reason}); "
                f"the verifiers of this installation cannot be trusted, checks: {verdict.checks}"
            )
