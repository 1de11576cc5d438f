"""Sets of real numbers are compared as sets, whatever they are written as."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.parser import parse
from verifiers.sets import NoSetError, same_set, solution_of

ENDS = st.fractions(min_value=-5, max_value=5, max_denominator=4)


def is_same(left: str, right: str) -> bool:
    return same_set(solution_of(parse(left)).set, solution_of(parse(right)).set)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x \\ge \\sqrt2", "[\\sqrt2, \\infty)"),
        ("-793 < a < 10", "(-793, 10)"),
        ("x < 1 \\text{ or } x > 3", "(-\\infty,1)\\cup(3,\\infty)"),
        ("x > 1 \\text{ and } x \\le 3", "(1,3]"),
        ("\\mathbb{R}\\setminus\\{2\\}", "x \\ne 2"),
        ("\\{x : x > 2\\}", "(2,\\infty)"),
        ("x \\in [0,7) \\cup \\{-1\\}", "\\{-1\\}\\cup[0,7)"),
        ("(1,2]\\cup(2,3)", "(1,3)"),
        ("(0,5)\\setminus[2,3]", "(0,2)\\cup(3,5)"),
        ("(-\\infty,\\infty)", "\\mathbb R"),
        ("|x| < 3", "(-3,3)"),
        ("5 \\le x", "x \\geq 5"),
        ("\\mathbb{R}^+", "x > 0"),
        ("(1,2)\\cap(3,4)", "\\emptyset"),
    ],
)
def test_one_set_in_two_ways(left: str, right: str) -> None:
    assert is_same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(2,5)", "[2,5)"),
        ("x > 2", "x \\ge 2"),
        ("x > 2", "x < 2"),
        ("(1,2)\\cup(2,3)", "(1,3)"),
        ("(-\\infty,1)\\cup(3,\\infty)", "(1,3)"),
        ("\\mathbb{R}\\setminus\\{2\\}", "\\mathbb{R}\\setminus\\{-2\\}"),
    ],
)
def test_two_sets_that_look_alike(left: str, right: str) -> None:
    assert not is_same(left, right)


@pytest.mark.parametrize("text", ["2x + 1 < 5", "|x-3| < 5", "(5,2)", "(a,b)", "x < y", "(2,-\\infty)", "x^2 < 4"])
def test_what_is_no_solved_set_is_none(text: str) -> None:
    with pytest.raises(NoSetError):
        solution_of(parse(text))


@settings(deadline=None)
@given(st.lists(st.tuples(ENDS, ENDS, st.booleans(), st.booleans()), min_size=1, max_size=4), st.randoms())
def test_the_order_of_a_union_does_not_matter_and_its_complement_is_another_set(parts: list, dice: object) -> None:
    def interval(low: Fraction, high: Fraction, has_low: bool, has_high: bool) -> str:
        low, high = sorted((low, high))
        return f"{'[' if has_low else '('}{low}, {high}{']' if has_high else ')'}"

    texts = [interval(*part) for part in parts]
    shuffled = list(texts)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    union = "\\cup".join(texts)
    assert is_same(union, "\\cup".join(shuffled))
    assert not is_same(union, f"\\mathbb{{R}}\\setminus({union})")
    assert is_same(union, f"\\mathbb{{R}}\\setminus(\\mathbb{{R}}\\setminus({union}))")
