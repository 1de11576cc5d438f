"""What of a text is not prose: code, formulas and addresses, which become spaces, and what stands in quotes.

Below all checks of languages. A text that is masked keeps its length, so that what is found in it stands there in the
original; only words inside a formula move to the formula's beginning. Patterns of what has two ends are bounded: what
is never closed costs its own length. Decides nothing about languages.
"""

from __future__ import annotations

import re
from typing import Final

from schemas.problem import Domain
from verifiers.view import code_spans

ADDRESS: Final = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4}")
MATH: Final = re.compile(  # never across another opening: what is not closed costs its own length
    r"\$\$[^$]{0,600}\$\$|\$[^$\n]{1,400}\$|\\\((?:[^\n\\]|\\(?![()])){0,300}\\\)|\\\[(?:[^\\]|\\(?![\[\]])){0,600}\\\]|"
    r"\\begin\{(\w{1,12}\*?)\}(?:[^\\]|\\(?!end|begin)){0,600}\\end\{\w{1,12}\*?\}|"
    r"\\boxed\s?\{[^{}]{0,200}\}|\\[A-Za-z]+"
)
TEXT_IN_MATH: Final = re.compile(r"\\(?:text|mbox|textbf|textit|mathrm|operatorname)\s?\{([^{}]{8,300})\}")
QUOTED: Final = re.compile(
    r"[\"“”«»„‘「『《]([^\"“”«»„‘’「」『』《》\n]{1,200})[\"“”»«’」』》]|\*([^*\n]{1,80})\*|_([^_\n]{1,80})_"
)
IN_BRACKETS: Final = re.compile(r"[（(]([^()（）\n]{1,60})[)）]")
SENTENCE: Final = re.compile(r"[^.!?。！？\n;:]+")
STRICT_DOMAINS: Final = frozenset({Domain.MATH, Domain.CODE, Domain.LOGIC})  # where a quoted word has no business


def masked(text: str, *, keep_math: bool = False) -> str:
    """Return the text with code, formulas and addresses as spaces; every other character keeps its place."""
    code, place = [], 0
    for start, end in code_spans(text):
        code += [text[place:start], " " * (end - start)]
        place = end
    text = "".join([*code, text[place:]]) if code else text
    if not keep_math and ("\\" in text or "$" in text):
        text = MATH.sub(blank, text)
    if "://" in text or "www." in text or "@" in text:
        text = ADDRESS.sub(blank, text)
    return text


def blank(match: re.Match[str]) -> str:
    """Return spaces of the length of a match, between full stops the words that a formula holds."""
    said = [text for text in TEXT_IN_MATH.findall(match[0])] if "{" in match[0] else []
    return "." + " ".join(said).ljust(len(match[0]) - 2)[: len(match[0]) - 2] + "." if said else " " * len(match[0])


def is_inside(match: re.Match[str], text: str, pattern: re.Pattern[str]) -> bool:
    """Return whether a match of another pattern holds this one, as quotes hold a word."""
    return any(
        found.start() <= match.start() and match.end() <= found.end()
        for found in pattern.finditer(text, max(0, match.start() - 64), min(len(text), match.end() + 64))
    )


def is_quoted(text: str, start: int, end: int) -> bool:
    """Return whether most of a sentence stands in quotes."""
    found = QUOTED.finditer(text, max(0, start - 2), min(len(text), end + 2))
    return any(2 * (match.end() - match.start()) > end - start for match in found)
