"""Answers as terms: one term for one meaning in any notation, bounded on any text."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verifiers.limits import MAX_DEPTH, MAX_TERM_DEPTH, MAX_TOKENS
from verifiers.parser import normal_form, parse
from verifiers.terms import NotParsedError, TooBigError, TooDeepError, depth_of, text_of
from verifiers.tokens import TooManyTokensError

PIECES = [
    *("\\frac", "{", "}", "(", ")", "[", "]", "\\{", "\\}", "|", "^", "_", "!", "%", "\\%", "'", "+", "-", "*", "/"),
    *("=", "<", "\\le", "\\in", "\\cup", "\\pm", ",", ";", ":", "x", "y", "e", "i", "12", "3.5", "1,234", "2e5"),
    *("\\pi", "\\infty", "\\sqrt", "\\sin", "\\log", "\\text{ km}", "\\text{ or }", "cm", "\\begin{pmatrix}"),
    *("\\\\", "&", "\\end{pmatrix}", "\\mathbb{R}", "\\sum", "\\overline", "^\\circ", "\\$", " ", "\\,", "and"),
    *("dozen", "½", "√", "²", "\ud800", "\x00"),
]
soups = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(soups)
@example("5" + "!" * 300)
@example("1" + "/1" * 400)
@example("1" + "\\pm1" * 300)
@example("x" + "^x" * 200)
@example("-" * 1_000 + "1")
def test_any_text_becomes_a_term_of_bounded_depth_or_a_named_refusal(text: str) -> None:
    try:
        term = parse(text)
    except (NotParsedError, TooBigError, TooDeepError, TooManyTokensError):
        return
    assert depth_of(term) <= MAX_TERM_DEPTH
    assert isinstance(text_of(term), str)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\dfrac{1}{2}", "\\frac12"),
        ("\\tfrac{1}{2}", "½"),
        ("{1 \\over 2}", "\\frac{1}{2}"),
        ("\\left( 1, 2 \\right)", "(1,2)"),
        ("2\\cdot x", "2x"),
        ("2*x", "2 x"),
        ("x**2", "x^{2}"),
        ("x²", "x^2"),
        ("\\sqrt2", "sqrt(2)"),
        ("√12", "\\sqrt{12}"),
        ("\\mathrm{e}^{x}", "e^x"),
        ("\\sin^{-1} x", "arcsin(x)"),
        ("\\log_{2} 8", "\\log_28"),
        ("2pi r", "2\\pi r"),
        ("1{,}234", "1\\,234"),
        ("1,234.5", "1234.5"),
        ("1 234", "1234"),
        ("3.2e5", "3.2E5"),
        ("v^2_0", "v_0^2"),
        ("{}_{10}C_3", "\\binom{10}{3}"),
        ("C(10,3)", "C(10, 3)"),
        ("x \\geqslant 2", "x >= 2"),
        ("\\{1,2\\}", "\\left\\{ 1 , 2 \\right\\}"),
        ("\\langle 1,2\\rangle", "(1,2)"),
        ("]1,2[", "(1,2)"),
        ("\\begin{bmatrix}1\\\\[4pt]2\\end{bmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        ("\\mathbf{\\frac{9}{16}}", "\\frac{9}{16}"),
        ("5{\\rm cm}", "5\\text{ cm}"),
    ],
)
def test_two_notations_of_one_answer_are_one_term(left: str, right: str) -> None:
    assert parse(left) == parse(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2\\frac{3}{8}", "2\\cdot\\frac{3}{8}"),  # a mixed number, not a product
        ("-4 4/9", "-4 + 4/9"),
        ("x^2 345", "x^{2345}"),
        ("1 2 3", "123"),
        ("-x^2", "(-x)^2"),
        ("\\sin 2x", "2\\sin x"),
        ("\\ln x^2", "(\\ln x)^2"),
        ("f(x)", "f x"),
        ("x_1", "x 1"),
        ("(1,2]", "[1,2)"),
        ("\\frac{dy}{dx}", "\\frac{y}{x}"),
        ("0.\\overline{3}", "0.3"),
        ("12:00", "1:00"),
    ],
)
def test_what_looks_alike_is_not_one_term(left: str, right: str) -> None:
    def term(text: str) -> object:
        try:
            return parse(text)
        except NotParsedError:
            return None

    assert term(left) != term(right)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", NotParsedError),
        ("\\frac{x}{}", NotParsedError),
        ("(1, 2", NotParsedError),
        ("|x", NotParsedError),
        ("5 \\text{ or so}", NotParsedError),
        ("29_8", NotParsedError),  # no digit 9 in base 8
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), TooDeepError),
        ("\\frac{1}{" * (MAX_DEPTH + 1) + "2" + "}" * (MAX_DEPTH + 1), TooDeepError),
        ("5" + "\\%" * MAX_TERM_DEPTH, TooDeepError),
        ("7" * 1_001, TooBigError),
        ("1e99999", TooBigError),
        ("1+" * MAX_TOKENS + "1", TooManyTokensError),
    ],
)
def test_what_is_no_answer_or_too_much_of_one_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(text)


@pytest.mark.parametrize(
    "unit", ["\\text{a b} ", "x ", "1,", "\\frac12", "\\text{" + " " * 50 + "}", "'", "5 cm ", "\x0b"]
)
def test_time_grows_with_the_length_and_not_faster(unit: str) -> None:
    def seconds(num_chars: int) -> float:
        text = unit * (num_chars // len(unit))
        start = time.process_time()
        normal_form(text)
        return time.process_time() - start

    small, large = (min(seconds(num_chars) for _ in range(3)) for num_chars in (1_000, 8_000))
    assert large < 8 * small * 4 + 0.05
