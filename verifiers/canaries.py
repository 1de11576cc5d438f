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
from schemas.problem import Answer, Choice, Domain, Message, Problem, Reference, Scorer
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Outcome, Verdict
from verifiers.registry import judge as judge_all

VERSION: Final = "2"


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


def _problem(name: str, reference: Reference | None) -> Problem:
    return Problem(
        domain=Domain.MATH if not isinstance(reference, Scorer) else Domain.LOGIC,
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


def _lay_out(answer: str, layout: TraceFormat) -> str:
    thought = "I work this out step by step and check it once."
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


@lru_cache(maxsize=1)
def _all() -> tuple[Canary, ...]:
    found = []
    for name, reference, right, wrong in _ANSWERS:
        problem = _problem(name, reference)
        for layout in (TraceFormat.R1, TraceFormat.ZERO):
            for answer, word in ((right, True), (wrong, False)):
                outcome = Outcome.CORRECT if word else Outcome.WRONG_ANSWER
                label = f"{name}, {layout}, {'right' if word else 'wrong'}"
                found.append(Canary(label, problem, _trace(problem, _lay_out(answer, layout), layout), outcome, word))
    problem = _problem("defects", Answer(text="42"))
    for name, layout, text, outcome, defect_word in _DEFECTS:
        found.append(Canary(name, problem, _trace(problem, text, layout), outcome, defect_word))
    open_ended = _problem("no reference", None)
    text = "<think>I greet back.</think>\nHello, number 1!"
    found.append(Canary("no reference", open_ended, _trace(open_ended, text, TraceFormat.R1), Outcome.READABLE, None))
    return tuple(found)


def canaries() -> Iterator[Canary]:
    """Yield all canaries: right and wrong of each kind of reference, in several formats, and the defects of format."""
    yield from _all()


def one_pair(turn: int) -> tuple[Canary, Canary]:
    """Return one right and one wrong canary; another pair each turn, until all had theirs."""
    pairs = [pair for pair in zip(_all()[::2], _all()[1::2], strict=False) if pair[0].problem == pair[1].problem]
    return pairs[turn % len(_ANSWERS * 2)]


def check_canaries(
    judge: Callable[[Problem, Trace], Verdict] = judge_all, subset: Sequence[Canary] | None = None
) -> None:
    """Judge canaries (all, or a subset) and return if each gets the verdict that it must get.

    Raises:
        VerifierError: If one does not: the verifiers are broken, and nothing they said lately may be used.
    """
    for canary in _all() if subset is None else subset:
        verdict = judge(canary.problem, canary.trace)
        seen = (verdict.outcome, verdict.is_correct)
        if seen != (canary.outcome, canary.is_correct):
            raise VerifierError(
                f"canary {canary.name!r}: expected {canary.outcome} (is_correct={canary.is_correct}), "
                f"got {verdict.outcome} (is_correct={verdict.is_correct}, reason={verdict.reason}); "
                f"the verifiers of this installation cannot be trusted, checks: {verdict.checks}"
            )
