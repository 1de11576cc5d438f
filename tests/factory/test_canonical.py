"""Words of a text: one form for every look, the same hashes everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.canonical import canonical, canonical_words

FRAGMENTS = (
    *("\\frac12", "\\dfrac{a}{b}", "$x^2$", "\\left(", "\\right]", "1,000", "1{,}000", "2²", "½", "\\text{cm}", "π"),
    *("twenty-five", "one hundred and seven", "fifty", "3.50", ".5", "00", "Maren's", "dogs' ", "\\one", "\\degree"),
    *(
        "[asy] draw(a--b); [/asy]",
        "[asy]",
        "\\begin{align*}",
        "%",
        "°",
        "İ",
        "ﬁ",
        "٣",
        "x_1",
        "?",
        "\n",
        "—",
        "\\",
        "_",
    ),
)
mixtures = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=6), max_size=12).map(" ".join)


@given(st.text() | mixtures)
def test_the_words_of_a_text_are_their_own_words(text: str) -> None:
    words = canonical_words(text)
    assert canonical_words(" ".join(words)) == words


@given(st.text() | mixtures)
def test_any_text_has_a_canonical_form_of_as_many_hashes_as_words(text: str) -> None:
    form = canonical(text)
    assert form.words.dtype == np.uint64
    assert form.words.shape == form.nameless.shape
    assert list(form.ends) == sorted(set(form.ends))
    assert all(0 < end <= len(form.words) for end in form.ends)
    if "[asy]" not in text:
        assert len(form.words) == len(canonical_words(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $\\frac{1}{2}$.", "find \\dfrac12"),
        ("\\(\\tfrac{a+b}{c}\\)", "(a+b)/(c)"),
        ("It costs 12,500 dollars", "It costs $12{,}500$  dollars"),
        ("seventeen and 4.0", "17 and 4"),
        ("two hundred and six eggs", "206 eggs"),
        ("twenty-five", "25"),
        ("one, two, three", "1, 2, 3"),
        ("$60^\\circ$", "60°"),
        ("$x^2 \\leq 5$", "x² ≤ 5"),
        ("40\\%", "40 percent"),
        ("Maren’s boat", "Maren's boat"),
        ("$a \\cdot b$", "a × b"),
        (".25 of it", "0.250 of it"),
    ],
)
def test_another_look_is_the_same_text(one: str, other: str) -> None:
    assert canonical_words(one) == canonical_words(other)
    assert canonical(one).words.tolist() == canonical(other).words.tolist()


@pytest.mark.parametrize(
    ("one", "other"), [("2²", "22"), ("3.5", "35"), ("x1", "x2"), ("ten five", "fifteen"), ("12 5", "125")]
)
def test_another_number_is_another_text(one: str, other: str) -> None:
    assert canonical_words(one) != canonical_words(other)


def test_hashes_are_the_same_in_every_process_and_on_every_platform() -> None:
    # A constant: a change here voids every fingerprint, and needs another CANONICAL_VERSION.
    assert canonical("Maren climbs 214 steps.").words.tolist() == HASHES


HASHES = [12740271277976238770, 16432754578667983102, 5321262159319168155, 16785282022523518366]
