"""Small edits that leave a problem the same problem, for `factory bench clean`: names, the look of numbers, spacing,
LaTeX style, sentences around it. Each takes a text and a random generator and returns a text, perhaps the same one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

Edit = Callable[[str, random.Random], str]

_NAMES: Final = (
    "Aisha Bruno Carla Dmitri Elena Farid Greta Hiro Ingrid Jamal Katya Lorenzo Mei Nadia Omar Priya Quentin Rosa "
    "Stefan Tomoko Umar Vera Wanda Ximena Yusuf Zelda"
)
NAMES: Final = tuple(_NAMES.split())
_NOT_NAMES: Final = (
    "A An And As At Are All Also Assume After Among Before Both But By Calculate Compute Consider Define Determine "
    "Do Does Each Enter Evaluate Every Express Find For From Give Given Has Have Her His How However I If In Is It "
    "Its Let Next No Not Note Now Of On One Only Or Our Out Point Points Prove Round Round She He Show Simplify "
    "Since So Solve Some Suppose Ten That The Their Then There These They This Three Thus To Today Tomorrow Two "
    "Under Until Use Using We What When Where Which While Who Why Will With Write You Your Return Input Output "
    "List Check True False None Dict Any Tuple Optional Example Examples Create Implement Task Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday January February March April May June July August September October "
    "November December Four Five Six Seven Eight Nine Half During Triangle Circle Square Line Problem Answer"
)
NOT_NAMES: Final = frozenset(_NOT_NAMES.split())
FRONT: Final = (
    "Solve the following problem.",
    "Here is a question from a contest.",
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "You are given an exercise; think about it carefully before you answer.",
    "Question 7.",
    "Answer the question below and show all of your work.",
    "I found this one in an old textbook.",
)
BEHIND: Final = (
    "Give the final answer only.",
    "Show your work.",
    "Put the answer in a box.",
    "Let's think step by step.",
)
_SMALL: Final = "zero one two three four five six seven eight nine ten eleven twelve"
SMALL: Final = tuple(_SMALL.split())


def names(text: str, rng: random.Random) -> str:
    """Give every person another name; where there is none, a variable of one letter."""
    words = set(re.findall(r"(?<![\\\w$])[A-Z][a-z]{2,}(?=\b|'s)", text))
    people = sorted(words - NOT_NAMES)
    fresh = rng.sample(NAMES, min(len(people), len(NAMES)))
    for old, new in zip(people, fresh, strict=False):
        text = re.sub(rf"\b{old}\b", new, text)
    return text


def numbers(text: str, rng: random.Random) -> str:
    """Write numbers another way: thousands with and without commas, words for small ones, zeros, percent."""

    def rewritten(found: re.Match[str]) -> str:
        digits = found[0]
        if len(digits) > 3:
            comma = rng.choice((",", "{,}", "\\,")) if "$" in text else ","
            return f"{int(digits):,}".replace(",", comma)
        value = int(digits)
        return SMALL[value] if value < len(SMALL) and rng.random() < 0.5 and is_prose(found) else digits

    def is_prose(found: re.Match[str]) -> bool:
        return text[: found.start()].count("$") % 2 == 0 and found.start() > 0 and text[found.start() - 1] == " "

    if rng.random() < 0.5:
        text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<![\w.,\\^_{/])\d+(?![\w.,}])", rewritten, text)
    text = re.sub(r"(?<![\d.])0(?=\.\d)", "" if rng.random() < 0.5 else "0", text)
    if rng.random() < 0.5:
        text = re.sub(r"(?<=\d)\\?%", " percent", text)
    return re.sub(r"(?<=\s)(\d{1,2})(?=\s)", r"\1.0", text, count=1) if rng.random() < 0.3 else text


def spacing(text: str, rng: random.Random) -> str:
    """Change white space: between words, at line ends, around operators and dollars."""
    way = rng.randrange(4)
    if way == 0:
        return re.sub(r" ", lambda _: " " * rng.choice((1, 1, 2, 3)), text)
    if way == 1:
        return re.sub(r" ", lambda _: "\n" if rng.random() < 0.15 else " ", text)
    if way == 2:
        return re.sub(r"\s*([=+<>])\s*", r" \1 " if rng.random() < 0.5 else r"\1", text)
    return " ".join(text.split())


def latex(text: str, rng: random.Random) -> str:
    """Change LaTeX style: delimiters, fractions, sizes, multiplication, relations, Unicode signs."""
    changes: list[Callable[[str], str]] = [
        lambda t: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", t),
        lambda t: re.sub(r"\\\[(.*?)\\\]", r"$$\1$$", t, flags=re.DOTALL),
        lambda t: t.replace("\\frac", "\\dfrac"),
        lambda t: re.sub(r"\\d?frac\{([^{}]+)\}\{([^{}]+)\}", r"(\1)/(\2)", t),
        lambda t: re.sub(r"\\(?:left|right)", "", t),
        lambda t: t.replace("\\cdot", "\\times"),
        lambda t: t.replace("\\le ", "\\leq ").replace("\\ge ", "\\geq "),
        lambda t: t.replace("\\le ", "≤ ").replace("\\ge ", "≥ ").replace("\\pi", "π").replace("^\\circ", "°"),
        lambda t: re.sub(r"\\text\{([^{}]*)\}", r"\\mathrm{\1}", t),
        lambda t: re.sub(r"\^2\b", "²", t),
        lambda t: re.sub(r"\^(\w)", r"^{\1}", t),
        lambda t: t.replace("\\sqrt{", "\\sqrt {").replace("\\ldots", "\\dots"),
        lambda t: t.replace("$", ""),
    ]
    for change in rng.sample(changes, rng.randint(2, 6)):
        text = change(text)
    return text


def sentence(text: str, rng: random.Random) -> str:
    """Put a sentence in front, at times one behind as well."""
    text = f"{rng.choice(FRONT)}{rng.choice((' ', chr(10), chr(10) * 2))}{text}"
    return f"{text} {rng.choice(BEHIND)}" if rng.random() < 0.25 else text


EDITS: Final[dict[str, Edit]] = {
    "names": names,
    "numbers": numbers,
    "spacing": spacing,
    "LaTeX style": latex,
    "a sentence in front": sentence,
}


def edited(text: str, rng: random.Random, *, most: int = 3) -> tuple[str, tuple[str, ...]]:
    """Return a copy with one to ``most`` kinds of small edits, and their names; it is never the same text."""
    while True:
        kinds = [kind for kind in EDITS if kind in rng.sample(sorted(EDITS), rng.randint(1, most))]
        copy = text
        for kind in kinds:
            copy = EDITS[kind](copy, rng)
        if copy != text:
            return copy, tuple(kinds)
