"""The audit keeps aside what is broken, says why, and lets good problems through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from factory.audit import Defect, find_defect
from schemas.problem import Answer, Domain, Message, Problem, QuarantineReason
from tests.strategies import problems

MADE = Path(__file__).parents[1] / "data" / "benchmark_made.jsonl"


def audited(
    question: str, answer: str | None = "5", domain: Domain = Domain.MATH, kind: str | None = None
) -> Defect | None:
    return find_defect(
        Problem(
            domain=domain,
            messages=(Message(role="user", content=question),),
            source="tests",
            source_row_id="1",
            reference=None if answer is None else Answer(text=answer, kind=kind),
        )
    )


@given(problems())
def test_any_problem_gets_an_answer_the_same_each_time(problem: Problem) -> None:
    assert find_defect(problem) == find_defect(problem)


@pytest.mark.parametrize(
    "question",
    [
        "In the figure, $AB = 5$ and $BC = 12$. Find $AC$.",
        "What is the area of the shaded region in the diagram below?",
        "Based on the graph shown above, what is $f(2)$?",
        "The figure shows a square of side 4. What is its area?",
        "Find $x$ as shown in Figure 1.",
        "In the adjoining figure, find the measure of angle $Q$.",
        "Use the table below to find $f(3)$.",
        "A circle is drawn as pictured below. What is its area?",
        "The shape shown at right is a hexagon; find $x$.",
        "如图, 在三角形 $ABC$ 中, 求 $AB$ 的长.",
    ],
)
def test_a_figure_that_is_not_there_is_missed(question: str) -> None:
    found = audited(question)
    assert found is not None
    assert found.reason is QuarantineReason.MISSING_FIGURE


@pytest.mark.parametrize(
    "question",
    [
        "What is the area of the triangle in the diagram below? [asy] draw((0,0)--(3,0)--(0,4)--cycle); [/asy]",
        "In the figure, find $x$. ![](https://example.org/a.png)",
        "In the picture below, find $x$. \\begin{tikzpicture}\\draw (0,0) -- (1,1);\\end{tikzpicture}",
        "The numbers are shown below. What is their sum?\n\\begin{align*} 1 + 2 \\end{align*}",
        "Use the table below to find $f(3)$.\n| x | 1 | 3 |\n| f | 2 | 7 |",
        "Find the area under the graph below the $x$-axis of $y = x^2 - 1$.",
        "How many significant figures does 0.0030 have?",
        "Yusra has a six-figure salary of 120,000 crowns. How much is that per month?",
        "Find the image of $(1, 2)$ under reflection over the $y$-axis.",
        "She drew a picture of 3 cats. How many legs do they have together?",
    ],
)
def test_a_figure_that_is_there_or_not_spoken_of_is_not_missed(question: str) -> None:
    assert audited(question) is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Prove that $\\sqrt{2}$ is irrational.", "5"),
        ("Let $a, b > 0$. Show that $a + b \\ge 2\\sqrt{ab}$.", None),
        ("Given triangle $ABC$ with $AB = AC$, prove that the angles at $B$ and $C$ are equal.", "5"),
        ("Find $x$ if $2x = 4$.", "proof"),
        ("Find $x$ if $2x = 4$.", "See solution."),
        ("Find $x$ if $2x = 4$.", "N/A"),
    ],
)
def test_what_has_no_final_answer_is_kept_aside(question: str, answer: str | None) -> None:
    found = audited(question, answer)
    assert found is not None
    assert found.reason is QuarantineReason.NO_FINAL_ANSWER


@pytest.mark.parametrize(
    "question",
    [
        "(a) Find $x$ if $2x = 4$. (b) Find $y$ if $3y = 9$.",
        "A box has 3 balls.\n(a) How many ways can two be drawn?\n(b) What is the probability of red?",
        "1. Find the derivative of $x^2$.\n2. Find the integral of $x$.",
        "Let $f(x) = x^2$. Part A: Compute $f(2)$. Part B: Compute $f(3)$.",
        "(1) Find the value of $a$; (2) find the range of $f$.",
        "Let $f(x) = x$. (i) Find the maximum. (ii) Find the minimum.",
    ],
)
def test_several_questions_in_one_are_kept_aside(question: str) -> None:
    found = audited(question)
    assert found is not None
    assert found.reason is QuarantineReason.SEVERAL_QUESTIONS


@pytest.mark.parametrize(
    "question",
    [
        "Let $ABC$ be a triangle with $AB = 5$, $BC = 6$ and",
        "Find the value of $x^2 + \\frac{1",
        "How many positive integers $n$ are there such that",
        "A train travels 60 miles per hour for 3 hours and then 40 miles",
        "Compute \\[ \\int_0^1 x",
        "Solve the system \\begin{align*} x + y &= 2",
        "Evaluate $\\left( 3 + 4",
        "What is [truncated]",
    ],
)
def test_a_statement_that_stops_in_the_middle_is_kept_aside(question: str) -> None:
    found = audited(question)
    assert found is not None
    assert found.reason is QuarantineReason.TRUNCATED_STATEMENT


@pytest.mark.parametrize("answer", ["\\frac{1}{", "x=", "(3, 4", "?", "$"])
def test_a_reference_that_nothing_can_be_compared_with_is_kept_aside(answer: str) -> None:
    found = audited("Find $x$ if $2x = 4$.", answer)
    assert found is not None
    assert found.reason is QuarantineReason.UNPARSED_REFERENCE


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 3 + 4", "7"),
        ("Compute 2+2", "4"),
        ("Which is larger?\n(a) 3\n(b) 4\n(c) 5", "c"),
        ("Points $(a, b)$ and $(c, d)$ lie on the line. Find its slope.", "\\frac{d-b}{c-a}"),
        ("Show that $x = 2$ is a solution, and find all others.", "3"),
        ("Evaluate: $5 \\times 3 =$", "15"),
        ("For which days is it true?", "Monday and Tuesday"),
        ("Find all solutions.", "\\text{no solution}"),
        ("Find the interval.", "x \\in [1, 2) \\cup (3, \\infty)"),
    ],
)
def test_a_good_problem_is_let_through(question: str, answer: str) -> None:
    assert audited(question, answer) is None


def test_made_problems_are_let_through() -> None:
    for line in MADE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        domain = Domain.CODE if row["answer"] is None else Domain.MATH
        assert audited(row["problem"], row["answer"], domain) is None


def test_a_source_that_says_how_to_read_its_answers_is_believed() -> None:
    assert audited("Find the word.", "x=", kind="text") is None
    assert audited("Write a function that returns the sum of all", None, Domain.CODE) is None
