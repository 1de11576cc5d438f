r"""Formulas of a hostile text: what can be read becomes MathML, and only text and known MathML comes out."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.mathml import MAX_FORMULAS, MAX_MATHML, render
from factory.visible import shorten, visible

HARMLESS = re.compile(r"[A-Za-z0-9.%+\- ]*")
MATH = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msup", "msub", "msubsup", "mover", "munder", "munderover"),
    *("mfrac", "msqrt", "mroot", "mtable", "mtr", "mtd", "menclose", "mpadded", "mphantom", "mstyle"),
    *("mmultiscripts", "mprescripts", "none"),
}


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(page: str) -> None:
    for tag, attributes in Reader(page).tags:
        assert tag in MATH
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "src", "style", "class", "id", "xlink:href")
            assert HARMLESS.fullmatch(value or "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"so \(\frac{1}{2}\)", "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"),
        (r"is \boxed{42}.", '<menclose notation="box"><mrow><mn>42</mn></mrow></menclose>'),
        (r"$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"),
        ("$$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$$", "<mtable>"),
        (r"\[a<b\]", "<mo>&lt;</mo>"),
        (r"\boxed{\dfrac{3}{4}}", "<mfrac>"),
        (r"\boxed{50%}", "<mn>50</mn><mi>%</mi>"),
        (r"$\text{user&#x202e;gpj}$", "<mtext>user\u27e8U+202E\u27e9gpj</mtext>"),
        ("\\begin{aligned}a&=b\\\\c&=d\\end{aligned}", "<mtr>"),
        (r"\(\mathbb{R}, \binom{n}{k}, \sum_{i=1}^n x_i, \operatorname{lcm}(a, b), \sin x \le 1\)", "<msubsup>"),
        ("\\begin{align*}a&=b\\\\c&=d\\end{align*}", "<mtr>"),
    ],
)
def test_a_formula_is_rendered(text: str, wanted: str) -> None:
    assert wanted in render(text)
    assert_harmless(render(text))


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "a $ b $ c",
        r"\( never closed",
        r"\boxed{never closed",
        "$x\n\ny$",
        r"\(\newcommand{\a}{\b\b}\a\)",
        r"$\def\a{x}\a$",
        r"\(\left( x\)",
        "$" + "{" * 300 + "}" * 300 + "$",
        r"\(" + "x" * 5_000 + r"\)",
        "$" + r"\sideset{}{}" * 16 + "x$",  # doubles what follows, each time
        r"$\newenvironment{a}[1]{#1#1}{}\begin{a}x\end{a}$",
        r"$\def1{\b\b}x$",
        r"$\defé{x}é$",
        r"$\phantom{hidden}$",
        r"$\style{hidden}{x}$",
        r"$\rule{9000em}{9000em}$",
        r"$\smash{\genfrac..{3000em}{0}{a}{b}}$",
        r"$\unicode{202e}abc$",
        r"$\hspace{900em}x$",
        "$a\nb$",
        "\\",
        "",
    ],
)
def test_what_is_no_formula_or_out_of_bounds_stays_as_it_was(text: str) -> None:
    assert unescape(render(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        r"\(\text{<script>alert(1)</script>}\)",
        r"\(\text{&lt;script&gt;}\)",
        r"\(\href{javascript:alert(1)}{x}\)",
        r"\(\style{background:url(//x)}{x}\)",
        r"\(\class{a}{x}\)",
        '<img src=x onerror="alert(1)">',
        r"\boxed{</menclose><script>}",
        "\\(\\text{\"><b onclick='x'>}\\)",
        r"\(\mathrm{<!--}\) --> \(x\)",
        r"\(\color{red;background:url(x)}{y}\)",
        r'\(\hspace{1em" onload="x}\)',
    ],
)
def test_what_would_act_in_a_page_is_text_or_gone(text: str) -> None:
    assert_harmless(render(text))


COMMANDS = "frac sqrt text{ boxed{ left( right) begin{matrix} end{matrix} href sum style limits color hspace{ genfrac"
PIECES = st.sampled_from(
    [
        *"xy12+-=<>&\"' \n^_${}",
        *("$$", "\\(", "\\)", "\\[", "\\]", "\\\\", "&amp;", "<b>", "\\unicode{", "\\operatorname{", "\\not", "\\rule"),
        *(f"\\{command}" for command in COMMANDS.split()),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_no_text_makes_anything_but_text_and_known_elements(text: str) -> None:
    assert_harmless(render(text))


@given(st.text(st.characters(exclude_characters="$\\"), max_size=200))
def test_a_text_without_formulas_is_itself(text: str) -> None:
    assert unescape(render(text)) == unescape(text) or "&" in text
    assert "<" not in render(text)


def test_formulas_of_one_text_are_bounded_in_number_and_size() -> None:
    page = render("$x$ " * 10_000)
    assert page.count("<math>") == MAX_FORMULAS
    assert len(render(("$" + "x" * 700 + "$ ") * 200)) < MAX_MATHML + 200 * 710


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["\\boxed{", "$", "$$", "\\(", "\\begin{align}", "{", "$x", "\\[ $"])
def test_a_long_hostile_text_takes_no_long_time(unit: str) -> None:
    assert_harmless(render(unit * 20_000))


# Signs


def test_controls_and_marks_of_direction_are_shown_by_signs() -> None:
    assert visible("a\x1b[31mb\x07\x00\x7f") == "a\u241b[31mb\u2407\u2400\u2421"
    assert (
        visible("x\u202ey\u2066\ufeff\x9b")
        == "x\u27e8U+202E\u27e9y\u27e8U+2066\u27e9\u27e8U+FEFF\u27e9\u27e8U+009B\u27e9"
    )
    assert visible("tab\tline\nПривет 你好 é नि") == "tab\tline\nПривет 你好 é नि"


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = visible(text)
    assert all(char.isprintable() or char in "\n\t\u200c\u200d" for char in shown)
    assert visible(shown) == shown


def test_a_long_text_keeps_its_beginning_and_its_end_and_says_what_is_missing() -> None:
    text = "".join(chr(97 + n % 26) for n in range(10_000))
    cut = shorten(text, 900)
    assert cut.startswith(text[:600])
    assert cut.endswith(text[-300:])
    assert "9,100 characters" in cut
    assert shorten(text, 10_000) == text
