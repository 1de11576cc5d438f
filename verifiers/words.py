"""Answers in words: one form for spelling, case, LaTeX text marks and sentence punctuation.

Part of the mathematics ladder, for text answers and labels. Compares whole texts, never parts of them.
"""

from __future__ import annotations

import re
from typing import Final

from verifiers.notation import CONSTANT_NAMES, FUNCTION_NAMES, GREEK

TEXT_MARKS: Final = re.compile(
    r"\\(?:text|textrm|textbf|textit|textsf|texttt|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|rm|bf|operatorname)"
    r"(?![A-Za-z])"
)
SPACING: Final = re.compile(r"\\[,;:!> ]|\\q?quad(?![A-Za-z])|~|[{}$*]|\\[()\[\]]")
PUNCTUATION: Final = re.compile(r"(?<!\d)[.,;:!?'\"`’]|[.,;:!?'\"`’](?!\d)")
GROUPS: Final = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?")
MORE_THAN_WORDS: Final = re.compile(r"[^\w\s.,:;'\"()!?-]|(?<![^\W\d_])-|-(?![^\W\d_])|_")  # a hyphen joins letters
HALF_DAY: Final = re.compile(r"\b([ap])\.\s?m\.?(?![a-z])", re.IGNORECASE)
NOT_PROSE: Final = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹\u0370-\u03ff]")
LONG_WORD: Final = re.compile(r"[^\W\d_]{3}")
NOTHING_THERE: Final = re.compile(
    r"^(?:there (?:is|are|exists?) )?(no (?:\w{1,9} )?(?:solutions?|roots?))(?: exists?)?$"
)
LETTERS_ONLY: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[' -])*")
# Two ways to say the same; the right side is what they are compared by.
SYNONYMS: Final = {
    "dne": "does not exist",
    "empty set": "no solution",
    "no solutions": "no solution",
    "no real solutions": "no real solution",
    "no real roots": "no real solution",
    "the empty set": "no solution",
    "all reals": "all real numbers",
    "all real": "all real numbers",
    "the real numbers": "all real numbers",
    "real numbers": "all real numbers",
    "infinitely many solutions": "infinitely many",
    "infinite": "infinity",
}


def as_words(text: str) -> str:
    """Return a text answer for comparison: no LaTeX text marks, no case, no sentence punctuation, single spaces."""
    text = SPACING.sub(" ", TEXT_MARKS.sub(" ", text)).replace("\\_", "_")
    text = HALF_DAY.sub(r"\1m ", text)
    words = " ".join(PUNCTUATION.sub(" ", text).casefold().split())
    words = words.removeprefix("the ") if len(words) > 6 else words
    if words.endswith("exist") or words.startswith("there "):
        words = NOTHING_THERE.sub(r"\1", words)
    return SYNONYMS.get(words, words)


def has_same_words(left: str, right: str) -> bool:
    """Return whether two texts are the same words, times and numbers: 1:35 p.m. and 1 : 35 PM. Signs must be equal."""
    first, second = as_words(left), as_words(right)
    if first == second != "":
        return True
    if MORE_THAN_WORDS.search(first) or MORE_THAN_WORDS.search(second):
        return False
    return GROUPS.findall(first) == GROUPS.findall(second) != []


def is_product(word: str) -> bool:
    """Return whether three or four small letters are rather factors than a word: xyz, abc."""
    letters = set(word)
    return (
        word.islower()
        and 3 <= len(word) <= 4
        and len(letters) == len(word)
        and (letters <= set("abcd") or not letters & set("aeiou"))
    )


def is_worded(text: str) -> bool:
    """Return whether a text is words and nothing else: letters alone, with a word of three or more."""
    plain = SPACING.sub(" ", TEXT_MARKS.sub(" ", text)).strip()
    plain = PUNCTUATION.sub(" ", plain).strip()
    if plain.casefold() == "no":
        return True
    if NOT_PROSE.search(plain) or is_product(plain):
        return False
    if plain in GREEK or plain in FUNCTION_NAMES or plain in CONSTANT_NAMES:
        return False
    return LETTERS_ONLY.fullmatch(plain) is not None and LONG_WORD.search(plain) is not None
