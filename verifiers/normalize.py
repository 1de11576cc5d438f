"""Answers in one notation: spacing, LaTeX variants, words, before anything is compared.

Part of the mathematics ladder. Invariant: two texts with the same normal form mean the same; what cannot be normalised
safely is left as it is. Linear in the text. Does no arithmetic.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from verifiers.limits import MAX_TOWER_EXPONENT

# Characters that mean a LaTeX command or a plain ASCII sign.
CHARACTERS: Final = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "﹣": "-",
        "×": "\\times ",
        "·": "\\cdot ",
        "÷": "\\div ",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≥": "\\geq ",
        "≤": "\\leq ",
        "≠": "\\neq ",
        "∪": "\\cup ",
        "∈": "\\in ",
        "±": "\\pm ",
        "°": "^\\circ ",
        "²": "^2",
        "³": "^3",
        "，": ",",
        "：": ":",
        "（": "(",
        "）": ")",
        "\u00a0": " ",
        "\u200b": None,
        "\ufeff": None,
    }
)
MATH_MARKS: Final = re.compile(r"(?<!\\)\$+|\\[()\[\]]|\\displaystyle(?![A-Za-z])")
INVISIBLE: Final = re.compile(
    r"\\left(?![A-Za-z])\.?|\\right(?![A-Za-z])\.?|\\(?:big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])|\\!\s*"
)
GROUPING: Final = re.compile(r"(?<=\d)(?:\{,\}|\\,|,)(?=\d{3}(?!\d))")
GROUPED: Final = re.compile(r"\d,\d{3}(?!\d)")
SPACES: Final = re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~|\s+")
# "1 2" must not become 12, nor "\\pi r" become "\\pir".
FREE_SPACE: Final = re.compile(
    r"(\\[A-Za-z]+) (?![A-Za-z])|(?<![A-Za-z0-9]) | (?![A-Za-z0-9])|(?<=\d) (?!\d)| (?=\d)(?<!\d )"
)
COMMAND: Final = re.compile(r"\\([A-Za-z]+)")
SYNONYMS: Final = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "le": "leq",
    "ge": "geq",
    "ne": "neq",
    "leqslant": "leq",
    "geqslant": "geq",
    "lbrace": "{",
    "rbrace": "}",
    "lbrack": "[",
    "rbrack": "]",
    "mathrm": "text",
    "textrm": "text",
    "mbox": "text",
    "textbf": "text",
    "mathbf": "text",
    "textit": "text",
    "operatorname": "text",
}
SHORT_FRACTION: Final = re.compile(r"\\frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))", re.ASCII)
SHORT_ROOT: Final = re.compile(r"\\sqrt(\d)", re.ASCII)
BLACKBOARD: Final = re.compile(r"\\(?:mathbb|Bbb|mathbf)\s*\{?([NZQRC])\}?(?![A-Za-z])")
BRACED_EXPONENT: Final = re.compile(r"([\^_])\{([A-Za-z0-9])\}", re.ASCII)
COMMA_SPACE: Final = re.compile(r",(?:\s|\\ |\\;|\\:|~)")
TEXT_GROUP: Final = re.compile(r"\\text\{([^{}]*)\}")
LONE_SYMBOL: Final = re.compile(r"(?:[A-Za-z]|\\[a-z]{2,8})(?:_\{?\w\}?)?(?:=|\\in(?![a-z]))")
BASE: Final = re.compile(r"([0-9A-Za-z]+)_\{?(?:\\text\{)?(\d{1,3}|two|eight|ten|sixteen)\}{0,2}", re.ASCII)
TOWER: Final = re.compile(r"\^[{(]{0,3}(\d{1,9})[})]{0,3}\^[{(]{0,3}(\d{1,9})(.?)", re.ASCII)
PUNCTUATION: Final = re.compile(r"(?<!\d)[.,;:!?'\"`]|[.,;:!?'\"`](?!\d)")
WORDS: Final = re.compile(r"[A-Za-z][A-Za-z' -]*")


def normalize(text: str) -> str:
    """Return the normal form: no spaces, no delimiters, one spelling per LaTeX command."""
    text = MATH_MARKS.sub(" ", text.translate(CHARACTERS))
    text = BLACKBOARD.sub(r"\\mathbb{\1}", INVISIBLE.sub("", text))
    text = COMMAND.sub(lambda match: "\\" + SYNONYMS.get(match[1], match[1]), text)
    text = text.strip().rstrip(".")
    if not COMMA_SPACE.search(text):
        text = GROUPING.sub(",", text)
    text = _drop_spaces(text)
    text = text.replace(">=", "\\geq").replace("<=", "\\leq").replace("!=", "\\neq")
    text = SHORT_FRACTION.sub(lambda m: f"\\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    text = BRACED_EXPONENT.sub(r"\1\2", SHORT_ROOT.sub(r"\\sqrt{\1}", text))
    return text


def _drop_spaces(text: str) -> str:
    """Return the text without spaces, but for those that end a command, or lie between words or between digits."""
    return FREE_SPACE.sub(r"\1", SPACES.sub(" ", text))


ARC_FUNCTIONS: Final = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
PLAIN_FUNCTION: Final = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|log|ln|exp|asin|acos|atan)(?=\()"
)
UPRIGHT: Final = re.compile(r"\\(?:mathrm|rm|text)\s*(?:\{\s*([ei])\s*\}|(?<=\s)([ei])(?![A-Za-z]))")
LATEX_GROUPING: Final = re.compile(r"(?<=\d)(?:,\\!|\\!,|\{,\}|\\,)\s*(?=\d{3}(?!\d))")
PLAIN_ROOT: Final = re.compile(r"(?<![\\A-Za-z])sqrt\(([^()]*)\)")
PLAIN_POWER: Final = re.compile(r"\^(?:\(([^()]*)\)|(-?\d\d+|-\d)(?![\d.]))")


def _slanted(match: re.Match[str]) -> str:
    """Return e or i without its upright command, apart from letters beside it."""
    before, after = match.string[max(match.start() - 1, 0) : match.start()], match.string[match.end() : match.end() + 1]
    return f"{' ' * before.isalpha()}{match[1] or match[2]}{' ' * after.isalpha()}"


def to_latex(text: str) -> str:
    """Return plain notation (2*pi*r, x**10, sqrt(2)) as LaTeX; LaTeX stays as it is. Not for nested roots or powers."""
    text = UPRIGHT.sub(_slanted, LATEX_GROUPING.sub("", text).replace("**", "^"))
    text = PLAIN_ROOT.sub(r"\\sqrt{\1}", text)
    text = PLAIN_POWER.sub(lambda match: f"^{{{match[1] or match[2]}}}", text)
    text = PLAIN_FUNCTION.sub(lambda match: "\\" + ARC_FUNCTIONS.get(match[1], match[1]), text)
    return re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)


def may_group(normal: str) -> bool:
    """Return whether a normal form holds what may be thousands, or two items: 1,234."""
    return GROUPED.search(normal) is not None


def is_list_comma(text: str) -> bool:
    """Return whether a comma of the raw text is followed by a space: then it separates items, not thousands."""
    return COMMA_SPACE.search(INVISIBLE.sub("", text)) is not None


def depth_of(text: str) -> int:
    """Return the deepest nesting of brackets of any kind."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def is_power_tower(normal: str) -> bool:
    """Return whether an exponent of numbers has so large an exponent itself that the value cannot be written out."""
    return any(
        match[3] == "^" or len(match[2]) > 3 or int(match[1]) ** int(match[2]) > MAX_TOWER_EXPONENT
        for match in TOWER.finditer(normal)
    )


def as_words(text: str) -> str:
    """Return a text answer for comparison: no LaTeX text marks, no case, no sentence punctuation, single spaces."""
    text = MATH_MARKS.sub(" ", text)
    text = COMMAND.sub(lambda match: "\\" + SYNONYMS.get(match[1], match[1]), text)
    text = TEXT_GROUP.sub(r"\1", text).replace("\\ ", " ").replace("*", " ").replace("\\_", "_")
    return " ".join(PUNCTUATION.sub(" ", text).casefold().split())


def is_text(normal: str) -> bool:
    """Return whether a normal form is words: one \\text group, or letters with a word of at least three."""
    if TEXT_GROUP.fullmatch(normal):
        return not any(character.isdigit() for character in normal)
    return bool(WORDS.fullmatch(normal)) and any(len(word) >= 3 for word in normal.split())


class Based(NamedTuple):
    """A number written in a base: digits without leading zeros, base."""

    digits: str
    base: int


def read_base(normal: str) -> Based | None:
    """Return digits and base of a literal such as 1011_2, or None."""
    match = BASE.fullmatch(normal)
    if match is None or not any(character.isdigit() for character in match[1]):
        return None
    base = {"two": 2, "eight": 8, "ten": 10, "sixteen": 16}.get(match[2])
    return Based(match[1].lstrip("0").lower() or "0", base or int(match[2]))
