"""Notation that is rewritten before an answer is cut into tokens: spellings for which the grammar has one other.

First step of reading a formula, before ``tokens``. Every rule is guarded by a word that must stand in the text, so that
most answers cost a few substring searches.
"""

from __future__ import annotations

import re
from typing import Final

from verifiers.words import HALF_DAY

DOUBLED: Final = re.compile(r"\\\\(?=[a-z]{2})")
OLD_FONT: Final = re.compile(r"\{\s?\\(?:rm|bf|it)(?![A-Za-z])\s?([^{}]{0,80})\}")
CHOSEN: Final = re.compile(r"(?:\{\s?\})?[_^]\{?\s?(\w{1,9})\s?\}?\s?C_\{?\s?(\w{1,9})\s?\}?")  # {}_{10}C_3
IN_BASE: Final = re.compile(  # 52\text{ in base }8, 52 (base 8)
    r"([0-9A-Za-z.]{1,200})\s?(?:\\(?:text|mathrm|mbox)\s?\{)?\s{0,3}\(?(?:in )?base[ }]{1,3}"
    r"(\d{1,2}|[a-z]{3,8})\s?\)?\}?"
)
PREFIXED: Final = re.compile(r"\s?0(?:b([01]{1,200})|o([0-7]{1,200})|x([0-9A-Fa-f]{1,200}))\s?")
_TEXT: Final = r"\\(?:text|mbox|mathrm|textrm)\s?\{"
_SPACE: Final = r"(?:[\s,;~]|\\[,;:! ]|\\q?quad(?![A-Za-z]))"
_ABOUT: Final = r"\s?\(?(?:approximately|approx\.?|about|roughly|exactly)\)?\s?"
ABOUT: Final = re.compile(rf"{_TEXT}{_ABOUT}\}}", re.IGNORECASE)
# \quad (k \in \mathbb{Z}); \text{ for any integer } k; , where k \text{ is an integer}; k = 0, \pm 1, \pm 2, \ldots
DECLARED: Final = re.compile(
    rf"{_SPACE}{{0,9}}\(?{_SPACE}{{0,3}}(?:{_TEXT})?\s?"
    r"(?:(?:for|where|with|and)\s)?(?:(?:some|any|all|every|each|an|arbitrary)\s)?(?P<before>integers?\s)?"
    rf"[\s}}]{{0,3}}(?:\\forall\s?)?{_SPACE}{{0,3}}\$?(?P<name>[a-zA-Z])\$?{_SPACE}{{0,3}}"
    r"(?P<behind>\\in\s?\\(?:mathbb|mathbf|Bbb)\s?\{?\s?Z\s?\}?"
    rf"|(?:{_TEXT})?\s?(?:is|are|be|=)?\s?(?:an|any)?\s?integers?\s?\}}?"
    rf"|=\s?0\s?,{_SPACE}{{0,3}}\\pm\s?1\s?,(?:{_SPACE}{{0,3}}\\pm\s?2\s?,)?{_SPACE}{{0,3}}\\[lc]?dots)?"
    r"\s?\}?\s?\)?\s?\.?"
)


def rewritten(text: str) -> str:
    """Return an answer with rare spellings replaced by common ones of the same meaning."""
    if "\\\\" in text and "\\begin" not in text:  # escaped once too often: \\\\frac
        text = DOUBLED.sub(r"\\", text)
    if "\\rm" in text or "\\bf" in text or "\\it" in text:
        text = OLD_FONT.sub(r"\\text{\1}", text)
    if "C_" in text:
        text = CHOSEN.sub(r"\\binom{\1}{\2}", text)
    if ".m" in text:
        text = HALF_DAY.sub(r" \1m ", text)
    if "base" in text:
        text = IN_BASE.sub(r"\1_{\2}", text)
    if "0b" in text or "0x" in text or "0o" in text:
        text = _from_prefix(text)
    if "ppro" in text or "about" in text or "oughly" in text or "xactly" in text:
        text = ABOUT.sub(" ", text)
    if "integer" in text or "\\pm" in text or "Z" in text:
        text = _with_declaration(text)
    return text


def _from_prefix(text: str) -> str:
    """Return 0b1011 as 1011_{2}, where that is all."""
    found = PREFIXED.fullmatch(text)
    if found is None:
        return text
    base, digits = next((base, digits) for base, digits in zip((2, 8, 16), found.groups(), strict=True) if digits)
    return f"{digits}_{{{base}}}"


def _with_declaration(text: str) -> str:
    r"""Return 3k \text{ for any integer } k as 3k, k \in \mathbb{Z}: the last words, where something stands before."""
    for start in range(max(1, len(text) - 100), len(text)):
        found = DECLARED.fullmatch(text, start)
        if found is not None and (found["before"] or found["behind"]) and not text[start - 1].isalpha():
            return f"{text[:start]}, {found['name']} \\in \\mathbb{{Z}}"
    return text
