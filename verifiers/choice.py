"""Whether a completion chooses the right option of a multiple-choice question.

Reads the letter (``A``, ``(A)``, ``A.``, ``\\text{A}``, ``A: text``) or the option's text alone. Invariant: an answer
that names several options is none: ``multiple_candidates``. Exact; no process, no guess beyond the extraction's.
"""

from __future__ import annotations

import re
import time
from typing import Final

from schemas.problem import Choice
from schemas.verdict import Reason, Verdict
from verifiers.extract import Extracted, Missing, Origin, extract_answer, last_match, response_start
from verifiers.limits import MAX_ANSWER_CHARS, MAX_BARE_CHARS
from verifiers.math import Finding, to_check
from verifiers.normalize import as_words, normalize

NAME: Final = "choice"
VERSION: Final = "1"

LATEX_TEXT: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|textrm|mathsf|rm|bf)\s*\{([^{}]*)\}")
OPENING: Final = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*)?[(\[]?([A-Z])(?:[)\].:,]|\s*[-–]\s|\s|$)",
    re.IGNORECASE,
)
LONE_LETTER: Final = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z'’])")
JOINED_LETTER: Final = re.compile(r"(?:\bor\b|\band\b|[,/&;])\s*\(?([B-HJ-Z])\)?(?![A-Za-z'’])")
SENTENCE: Final = re.compile(r"(?<![A-Za-z])(?!and\b)[a-z]{3,}")
LAST_CHOICE: Final = re.compile(r"(?:option|choice|answer)[*_ ]{0,4}(?:is|:)?[*_ ]{0,4}\(?([A-Z])\)?(?![A-Za-z])")


def judge_choice(completion: str, reference: Choice, *, strict: bool = False) -> Verdict:
    """Return the verdict, with one check, on which option the response chooses. Never raises on what a model wrote."""
    start = time.perf_counter()
    found = _extract(completion, strict=strict)
    if isinstance(found, Missing):
        finding = Finding(found.reason, "extraction")
    else:
        finding = compare_choice(found.text, reference)
    return Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start),))


def _extract(completion: str, *, strict: bool) -> Extracted | Missing:
    found = extract_answer(completion, strict=True)
    is_guess = isinstance(found, Missing) or found.origin is Origin.LAST_MATH
    if not is_guess or strict or (isinstance(found, Missing) and found.reason is not Reason.NO_ANSWER):
        return found
    last = last_match(LAST_CHOICE, completion, response_start(completion), len(completion))
    return found if last is None else Extracted(text=last[1], start=last.start(), end=last.end(), origin=Origin.MARKER)


def compare_choice(answer: str, reference: Choice) -> Finding:
    """Return how an extracted text compares with the right option."""
    form = reference.letter
    if len(answer) > MAX_ANSWER_CHARS:
        return Finding(Reason.TOO_LONG, "limit", None, form)
    letters = read_letters(answer, reference)
    if letters is None:
        return Finding(Reason.UNPARSED_ANSWER, "choice", answer[:MAX_BARE_CHARS], form)
    if len(letters) > 1:
        return Finding(Reason.MULTIPLE_CANDIDATES, "choice", ", ".join(letters), form)
    reason = None if letters[0] == reference.letter else Reason.VALUE_DIFFERS
    return Finding(reason, "choice", letters[0], form)


def read_letters(answer: str, reference: Choice) -> list[str] | None:
    """Return the letters that the answer chooses, in order, or None if it names no option."""
    num_options = len(reference.options) or 26
    text = LATEX_TEXT.sub(r"\1", answer.replace("\\ ", " ").replace("~", " ")).replace("*", "").replace("$", "").strip()
    by_text = _by_text(text, reference)
    if by_text is not None:
        return [by_text]
    opening = OPENING.match(text)
    if opening is None or not _is_option(opening[1].upper(), num_options):
        return None
    if opening[1].islower() and len(text.strip("()[]. ")) > 1:
        return None  # "a train": an article, no letter
    first = opening[1].upper()
    rest = text[opening.end() :].strip()
    option = reference.options[ord(first) - ord("A")] if reference.options else None
    if option is not None and rest and _same_text(rest, option):
        return [first]
    # In a sentence about the chosen option a capital is not a choice, unless it is joined to the letter: "B, or C".
    pattern = JOINED_LETTER if SENTENCE.search(rest) else LONE_LETTER
    others = [letter for letter in pattern.findall(rest) if _is_option(letter, num_options)]
    return list(dict.fromkeys([first, *others]))


def _is_option(letter: str, num_options: int) -> bool:
    return "A" <= letter <= "Z" and ord(letter) - ord("A") < num_options


def _by_text(text: str, reference: Choice) -> str | None:
    """Return the letter of the one option that has this text."""
    hits = [chr(ord("A") + index) for index, option in enumerate(reference.options) if _same_text(text, option)]
    return hits[0] if len(hits) == 1 else None


def _same_text(left: str, right: str) -> bool:
    if as_words(left) == as_words(right) != "":
        return True
    return normalize(left) == normalize(right) != ""
