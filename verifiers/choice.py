"""Whether a completion chooses the right option of a multiple-choice question.

Reads the letter (``A``, ``(A)``, ``A.``, ``\\text{A}``, ``A: text``) or the option's text alone. Invariant: an answer
that names several options is none (``multiple_candidates``), unless the reference names several. Exact; no process, no
guess beyond the extraction's.
"""

from __future__ import annotations

import re
import time
from typing import Final

from schemas.problem import Choice
from schemas.verdict import Reason, Verdict
from verifiers.extract import Extracted, Missing, Origin, extract_answer, response_start
from verifiers.finding import Finding, to_check
from verifiers.limits import CLAUSE_CHARS, MAX_ANSWER_CHARS, MAX_BARE_CHARS, MAX_NAMED_LETTERS, MAX_TAIL_CHARS
from verifiers.parser import normal_form
from verifiers.words import as_words

NAME: Final = "choice"
VERSION: Final = "2"

LATEX_TEXT: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|textrm|mathsf|rm|bf)\s*\{([^{}]*)\}")
OPENING: Final = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*)?[(\[]?([A-Z])(?:[)\].:,]|\s*[-–]\s|\s|$)",
    re.IGNORECASE,
)
LONE_LETTER: Final = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z'’])")
JOINED_LETTER: Final = re.compile(
    r"(?:\b(?:or|and|alternatively|maybe|possibly|perhaps)\b|[,/&;|]|\\(?:lor|vee))[\s,(]*([A-HJ-Z])\)?(?![A-Za-z'’])"
)
SMALL_LETTERS: Final = re.compile(r"\W*(?:(?:and|or)?\W*\b[a-j]\b\W*)+")  # "B, c"
# Behind a letter without a colon or a bracket, these words unsay it.
UNSAID: Final = re.compile(
    r"\b(?:not|wrong|incorrect|false|out|or|alternatively|possibly|maybe|perhaps|although|but|except|excluded|no|never)\b|"
    r"n['’]t\b|\\(?:lor|vee|neg)"
)
LETTERS: Final = re.compile(r"[A-Z]")
RUN_TOGETHER: Final = re.compile(r"\s*\(?([A-Z]{2,10})\)?[\s.]*")
SENTENCE: Final = re.compile(r"(?<![A-Za-z])(?!and\b)[a-z]{3,}")
# The last letter of a response that stands apart as one: "option B", "(B)", "it's B." at the end, a line of its own.
LAST_CHOICE: Final = re.compile(
    r"(?:(?i:option|choice|answer|choose|pick|with|it's|it is)[*_ ]{0,4}(?:is|:)?[*_ ]{0,4}\(?|\(|^[*_ ]{0,4}\(?)"
    r"([B-HJ]|A(?! [a-z])|A(?=[).:,]))(?![A-Za-z'’])(?!\)\w)",
    re.MULTILINE,
)
# Words in the same clause that make a letter no choice: "not option B", "(B) is wrong", "between (A) and (B)".
UNCHOSEN: Final = re.compile(
    r"\b(?:not|cannot|never|wrong|incorrect|out|between|either|neither|excluded|eliminated?|unlikely|sure)\b|n['’]t\b"
)
CLAUSE_END: Final = re.compile(r"[.,;!?\n]|\b(?:but|so|therefore|hence|rather)\b")
FIRST_LETTER: Final = re.compile(r"[\s*_(]{0,9}([A-J])[).:*](?!\w)")
# What follows "The answer is": its first letter that is no word.
MARKED_LETTER: Final = re.compile(
    r"[\s*_(:$\"'`]{0,9}(?:(?:for sure|definitely|clearly|certainly|option|choice|letter|the)[^A-Za-z\n]{1,9}){0,3}"
    r"\(?([A-J])\)?(?![A-Za-z'’])(?! (?!because|since|as|and|or|is|with)[a-z])(?! is (?:not|wrong|incorrect))"
)
LETTER_BEFORE: Final = re.compile(r"(?<![A-Za-z])\(?[A-J]\)?\s?(?:,|/|&|\bor\b|\band\b)\s?\(?$")
NEXT_LETTER: Final = re.compile(
    r"\)?[*_]{0,3}[\s,;(]{0,3}(?:or|and|alternatively|maybe|possibly|perhaps|,|/|&|\|)[\s,]{0,3}[*_]{0,3}"
    r"\(?([A-J])\)?(?![A-Za-z'’])(?! [a-z])"
)


def judge_choice(completion: str, reference: Choice, *, strict: bool = False) -> Verdict:
    """Return the verdict, with one check, on which option the response chooses. Never raises on what a model wrote."""
    start = time.perf_counter()
    found = extract_choice(completion, strict=strict)
    if isinstance(found, Missing):
        finding = Finding(found.reason, "extraction")
    else:
        finding = compare_choice(found.text, reference.letter, reference.options)
    return Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start),))


def extract_choice(completion: str, *, strict: bool = False) -> Extracted | Missing:
    """Return the text that names an option, or why there is none: a letter in prose counts if nothing is marked."""
    found = extract_answer(completion, strict=True)
    if isinstance(found, Extracted):
        if found.origin in (Origin.BOX, Origin.ANSWER_TAG) or strict:
            return found
        if found.origin is Origin.MARKER:
            line = completion.find("\n", found.start)
            named = MARKED_LETTER.match(completion, found.start, len(completion) if line < 0 else line)
            return found if named is None else _letters_at(completion, named)
        if read_letters(found.text) is not None and found.origin is Origin.WHOLE and not SENTENCE.search(found.text):
            return found
    elif strict or found.reason is not Reason.NO_ANSWER:
        return found
    start = max(response_start(completion), len(completion) - MAX_TAIL_CHARS)
    opening = FIRST_LETTER.match(completion, start)
    letters = list(LAST_CHOICE.finditer(completion, start))[-MAX_NAMED_LETTERS:]
    last = next((match for match in reversed(letters) if _is_chosen(completion, match)), None)
    if last is None and opening is not None and _is_chosen(completion, opening):
        last = opening
    if last is None:
        return found if isinstance(found, Missing) else Missing(reason=Reason.NO_ANSWER)
    return _letters_at(completion, last)


def _is_chosen(text: str, match: re.Match[str]) -> bool:
    """Return whether the clause around a letter does not unsay it."""
    ends = [end.end() for end in CLAUSE_END.finditer(text, max(match.start() - CLAUSE_CHARS, 0), match.start(1))]
    start = ends[-1] if ends else max(match.start() - CLAUSE_CHARS, 0)
    stop = CLAUSE_END.search(text, match.end(1), match.end(1) + CLAUSE_CHARS)
    return UNCHOSEN.search(text, start, stop.start() if stop else match.end(1) + CLAUSE_CHARS) is None


def _letters_at(text: str, match: re.Match[str]) -> Extracted:
    """Return the letter that was matched, with those that "or", "and" or a comma joins to it."""
    start, end = match.start(1), match.end(1)
    while before := LETTER_BEFORE.search(text[max(start - 16, 0) : start]):
        start -= len(before[0])
    while joined := NEXT_LETTER.match(text, end):
        end = joined.end(1)
    return Extracted(text=text[start:end], start=start, end=end, origin=Origin.MARKER)


def compare_choice(answer: str, reference: str, options: tuple[str, ...] = ()) -> Finding:
    """Return how an extracted text compares with the right letter, or with all of the right letters (``A, C``, ``AC``).

    ``options`` are the texts behind A, B, C, ..., where they are known.
    """
    wanted = sorted(set(LETTERS.findall(LATEX_TEXT.sub(r"\1", reference))))
    form = ", ".join(wanted)
    if not wanted:
        return Finding(Reason.UNPARSED_REFERENCE, "choice", None, reference[:MAX_BARE_CHARS])
    if len(answer) > MAX_ANSWER_CHARS:
        return Finding(Reason.TOO_LONG, "limit", None, form)
    letters = read_letters(answer, options)
    if letters is not None and len(wanted) > 1 and len(letters) == 1:
        letters = _run_together(answer) or letters
    if letters is None and len(wanted) > 1:
        letters = _run_together(answer)
    if letters is None:
        return Finding(Reason.UNPARSED_ANSWER, "choice", answer[:MAX_BARE_CHARS], form)
    said = ", ".join(sorted(letters))
    if len(wanted) > 1 and re.search(r"\bor\b|\\lor|\\vee", answer):
        return Finding(Reason.MULTIPLE_CANDIDATES, "choice", said, form)
    if len(letters) > 1 == len(wanted):
        return Finding(Reason.MULTIPLE_CANDIDATES, "choice", said, form)
    if len(letters) != len(wanted):
        return Finding(Reason.LENGTH_DIFFERS, "choice", said, form)
    return Finding(None if sorted(letters) == wanted else Reason.VALUE_DIFFERS, "choice", said, form)


def _run_together(answer: str) -> list[str] | None:
    """Return the letters of ACD."""
    match = RUN_TOGETHER.fullmatch(LATEX_TEXT.sub(r"\1", answer).replace("$", ""))
    return sorted(set(match[1])) if match else None


def read_letters(answer: str, options: tuple[str, ...] = ()) -> list[str] | None:
    """Return the letters that the answer chooses, in order, or None if it names no option."""
    num_options = len(options) or 26
    text = LATEX_TEXT.sub(r"\1", answer.replace("\\ ", " ").replace("~", " ")).replace("*", "").replace("$", "").strip()
    by_text = _by_text(text, options)
    if by_text is not None:
        return [by_text]
    if answer.strip()[:1] in ("~", "¬", "!", "-"):
        return None  # not B
    opening = OPENING.match(text)
    if opening is None or not _is_option(opening[1].upper(), num_options):
        return None
    if opening[1].islower() and len(text.strip("()[]. ")) > 1:
        return None  # "a train": an article, no letter
    first = opening[1].upper()
    rest = text[opening.end() :].strip()
    is_apart = opening[0].rstrip()[-1:] in ").:]"
    behind = text[opening.end(1) :]
    is_doubtful = UNSAID.search(rest) is not None or (first in "AI" and SENTENCE.match(rest) is not None)
    if not is_apart and is_doubtful and not JOINED_LETTER.search(behind):
        return None  # "B is wrong"; "A mystery"
    if UNSAID.match(rest) and not JOINED_LETTER.match(rest):
        return None
    if rest and SMALL_LETTERS.fullmatch(rest):
        return [first, *(letter.upper() for letter in re.findall(r"\b[a-j]\b", rest))]
    option = options[ord(first) - ord("A")] if options else None
    if option is not None and rest and _same_text(rest, option):
        return [first]
    # In a sentence about the chosen option a capital is not a choice, unless it is joined to the letter: "B, or C".
    pattern = JOINED_LETTER if SENTENCE.search(rest) else LONE_LETTER
    others = [letter for letter in pattern.findall(behind) if _is_option(letter, num_options)]
    return list(dict.fromkeys([first, *others]))


def _is_option(letter: str, num_options: int) -> bool:
    return "A" <= letter <= "Z" and ord(letter) - ord("A") < num_options


def _by_text(text: str, options: tuple[str, ...]) -> str | None:
    """Return the letter of the one option that has this text."""
    hits = [chr(ord("A") + index) for index, option in enumerate(options) if _same_text(text, option)]
    return hits[0] if len(hits) == 1 else None


def _same_text(left: str, right: str) -> bool:
    if as_words(left) == as_words(right) != "":
        return True
    return normal_form(left) == normal_form(right) != ""
