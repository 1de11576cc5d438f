"""Numbers and functions: exactly the same, or not; in any order, whatever their size."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.parser import parse
from verifiers.surds import surd
from verifiers.values import TooFarError, same_value


def same(left: str, right: str) -> bool | None:
    there, back = same_value(parse(left), parse(right)), same_value(parse(right), parse(left))
    assert there is back, (left, right)
    return there


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\sqrt{2}\\sqrt{3}", "\\sqrt{6}"),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt2}{2}"),
        ("(1+\\sqrt2)^2", "3+2\\sqrt2"),
        ("\\frac{1}{1+\\sqrt3}", "\\frac{\\sqrt3-1}{2}"),
        ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"),
        ("5e^{i\\arctan(4/3)}", "3+4i"),
        ("e^{i\\pi}", "-1"),
        ("\\sqrt{-3}", "i\\sqrt3"),
        ("\\sqrt[3]{-8}", "-2"),
        ("(-8)^{1/3}", "-2"),
        ("\\log_2 8", "3"),
        ("\\log 2", "\\ln 2"),
        ("99!\\cdot 100", "100!"),
        ("4^{50}", "2^{100}"),
        ("\\binom{10}{4}", "210"),
        ("\\sin 30^\\circ", "\\frac12"),
        ("2\\cos^2 x - 1", "\\cos 2x"),
        ("\\frac{1}{\\sqrt n}", "\\sqrt{\\frac1n}"),
        ("\\ln(ab)", "\\ln a + \\ln b"),
        ("2^{n+1}", "2\\cdot 2^n"),
        ("(-1)^n", "\\cos(n\\pi)"),
        ("\\frac{x^2-1}{x-1}", "x+1"),
        ("(a+b+c)^{200}", "(c+b+a)^{200}"),
        ("|x|", "\\sqrt{x^2}"),
        ("f(2x)", "f(x+x)"),
        ("0.0833333333333333", "\\frac{1}{12}"),
        ("1.41421356237310", "\\sqrt2"),
        ("0.\\overline{6}", "\\frac23"),
        ("0.666666666667", "\\frac23"),  # rounded
        ("0.666666666666", "\\frac23"),  # cut
        ("-0.333333333333", "-\\frac13"),
    ],
)
def test_the_same_in_another_form_is_the_same(left: str, right: str) -> None:
    assert same(left, right) is True


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
        ("2^{-99}", "2^{-98}"),
        ("10^{100000}", "10^{100000}+1"),
        ("1-e^{-1000}", "1"),
        ("\\sqrt{10^{400}+1}", "10^{200}"),
        ("\\tanh 1000", "1"),
        ("\\sin x + 10^{-100}", "\\sin x"),
        ("10^{60}+\\sin x", "10^{60}+\\cos x"),
        ("|x+10000|-10000", "x"),
        ("|ax|", "ax"),
        ("\\sqrt{x^2}", "x"),
        ("x^{6000}", "x^{5999}"),
        ("x+\\lfloor\\frac{1}{1+x^2}\\rfloor", "x"),
        ("2f(x)", "f(2x)"),
        ("3.14", "\\pi"),
        ("0.333333", "\\frac13"),
        ("0.333333333334", "\\frac13"),
        ("1.41421356238", "\\sqrt2"),
        ("1.41421356236", "\\sqrt2"),
        ("1.414214", "\\sqrt2"),
        ("10^{10^{10}}", "10"),
        ("x+5316911983139662822920755569150140253y", "x"),  # a multiple of two primes of 61 bits
        ("\\frac{1}{0}", "42"),
    ],
)
def test_what_is_nearly_the_same_is_not(left: str, right: str) -> None:
    assert same(left, right) is False


def test_what_is_too_close_to_tell_within_our_limits_is_said_to_be() -> None:
    with pytest.raises(TooFarError):
        same_value(parse("\\sin x + \\frac{1}{2004!}"), parse("\\sin x"))


coefficients = st.lists(st.integers(-9, 9), min_size=1, max_size=4)


def polynomial(numbers: list[int]) -> str:
    return "+".join(f"({number})x^{{{power}}}" for power, number in enumerate(numbers))


@settings(deadline=None)
@given(coefficients, coefficients)
def test_a_product_of_polynomials_is_its_expansion_and_no_other(left: list[int], right: list[int]) -> None:
    product = [0] * (len(left) + len(right) - 1)
    for place, first in enumerate(left):
        for other, second in enumerate(right):
            product[place + other] += first * second
    text = f"({polynomial(left)})({polynomial(right)})"
    assert same(text, polynomial(product))
    product[0] += 1
    assert not same(text, polynomial(product))


surds = st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(surds)
def test_exact_sums_of_roots_agree_with_balls(parts: list[tuple[int, int, int]]) -> None:
    text = "+".join(f"\\frac{{({top})\\sqrt{{{radicand}}}}}{{{bottom}}}" for top, radicand, bottom in parts)
    wrapped = f"\\ln(e^{{{text}}})"  # no exact form: balls decide
    assert surd(parse(text)) is not None
    assert surd(parse(wrapped)) is None
    assert same(text, wrapped)
    assert not same(f"{text}+10^{{-40}}", wrapped)
