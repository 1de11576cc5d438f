"""Multiple choice: the letter, the letter with its text, the text alone; several letters are no answer."""

import pytest

from schemas.problem import Choice
from schemas.verdict import Reason
from verifiers.math import judge_answer

REFERENCE = Choice(letter="B", options=("a circle", "a square", "3.5", "none of them"))


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "B.",
        "\\text{B}",
        "\\textbf{(B)}",
        "B: a square",
        "B) a square",
        "(B) a square",
        "\\text{B: a square}",
        "a square",
        "A square",
        "\\text{a square}",
        "option B",
        "\\mathrm{B}",
    ],
)
def test_the_right_option_is_correct_in_any_form(text: str) -> None:
    assert judge_answer(f"<think>x</think>So \\boxed{{{text}}}.", REFERENCE).is_correct


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A", Reason.VALUE_DIFFERS),
        ("C: 3.5", Reason.VALUE_DIFFERS),
        ("3.5", Reason.VALUE_DIFFERS),
        ("A, B", Reason.MULTIPLE_CANDIDATES),
        ("B or C", Reason.MULTIPLE_CANDIDATES),
        ("A and B", Reason.MULTIPLE_CANDIDATES),
        ("A, B, C, D", Reason.MULTIPLE_CANDIDATES),
        ("E", Reason.UNPARSED_ANSWER),
        ("a triangle", Reason.UNPARSED_ANSWER),
        ("", Reason.EMPTY_BOX),
    ],
)
def test_another_option_several_or_none_are_wrong(text: str, reason: Reason) -> None:
    verdict = judge_answer(f"So \\boxed{{{text}}}.", REFERENCE)
    assert verdict.is_correct is False
    assert verdict.reason is reason
    assert verdict.checks[0].name == "choice"


@pytest.mark.parametrize(
    "text", ["The correct answer is (B).", "Answer: B", "B", "I would choose option B", "**Answer: B**"]
)
def test_a_letter_without_a_box_is_found(text: str) -> None:
    assert judge_answer(text, REFERENCE).is_correct


def test_a_choice_without_options_needs_the_letter_alone() -> None:
    assert judge_answer("\\boxed{C}", Choice(letter="C")).is_correct
    assert judge_answer("\\boxed{C, D}", Choice(letter="C")).reason is Reason.MULTIPLE_CANDIDATES
