"""Other languages that show by their script: its letters, or letters that only one of two languages writes.

Finders of ``languages``: words of other scripts, Chinese in Japanese, Ukrainian in Russian, and sentences in Latin
letters where another script is the language's own; and how words are counted that have no spaces between them. First
comes one quick pattern over the letters that occur at all; only where it matches is a text searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from schemas.problem import Domain
from verifiers.allowed import Allowed, Stretch
from verifiers.identifier import identify
from verifiers.language_data import (
    CHINESE_ONLY,
    FUNCTION_WORDS,
    GREEK_ACCENTS,
    HAN_IN_JAPANESE,
    KEYWORDS,
    LANGUAGE_SCRIPTS,
    LATIN,
    SCRIPT_RANGES,
)
from verifiers.latin import MIN_WORDS, latin_language
from verifiers.latin_words import LATIN_WORD, everyday
from verifiers.masking import IN_BRACKETS, QUOTED, SENTENCE, STRICT_DOMAINS, is_inside
from verifiers.view import Cover, Part

LATIN_RUN: Final = re.compile(
    r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-](?<![A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{2})[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{0,39}[ ,.:;!?]{1,3}"
    r"(?:[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{1,40}[ ,.:;!?]{1,3}){1,199}[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{1,40}"
)
LETTER_MINIMUM: Final = {"greek": 8, "hebrew": 3}  # letters that are symbols too: a short run of them is no word
MIN_RUN: Final = 2  # letters of another script in a row: one is a symbol, as the Sha of Tate and Shafarevich
BEYOND_LATIN_1: Final = re.compile(rb"\?{2,}")  # in Latin-1, whose own question marks were taken out before
MIN_LONG_RUN: Final = 10  # letters, of a script that the problem has: the problem's own words are shorter (guess)
THAI_MARKS: Final = re.compile(r"[\u0e30-\u0e3a\u0e40-\u0e4e]")  # vowels and tones, which belong to a letter
UKRAINIAN: Final = re.compile(r"\b\w*[іїєґІЇЄҐ]\w*\b")
UNSPACED_SCRIPTS: Final = ("han", "kana", "thai")
_NOT_LATIN: Final = "".join(letters for name, letters in SCRIPT_RANGES.items() if name != "latin")
UNSPACED: Final = re.compile("[" + "".join(SCRIPT_RANGES[name] for name in UNSPACED_SCRIPTS) + "]")
UNSPACED_RUN: Final = re.compile(rf"{UNSPACED.pattern}(?<![{_NOT_LATIN}]{{2}})[{_NOT_LATIN}]+")
SCRIPT_PATTERNS: Final = {name: re.compile(f"[{letters}]+") for name, letters in SCRIPT_RANGES.items()}


def has_foreign_run(part: Part, letters: str) -> bool:
    """Return whether letters of another script stand together anywhere, in code and formulas too."""
    if _foreign_letter(part.language).search(letters) is None:
        return False
    return next(_runs(part.text, part.language), None) is not None


def other_scripts(text: str, part: Part, allowed: Allowed, domain: Domain) -> Iterator[Stretch]:
    """Words in letters of another script, where the problem does not let them in and nobody quotes them."""
    quoted: Cover | None = None
    for match in _foreign_runs(text, part.language):
        script = match.lastgroup or ""
        if match[0].casefold() in allowed.words and script not in allowed.scripts:
            continue
        if script in allowed.scripts and not _is_sentence(match, text, allowed):
            continue
        if script == "han" and part.language == "ko" and is_inside(match, text, IN_BRACKETS):
            continue
        if domain not in STRICT_DOMAINS:
            if quoted is None:
                quoted = Cover(found.span() for pattern in (QUOTED, IN_BRACKETS) for found in pattern.finditer(text))
            if quoted.holds(*match.span()):
                continue
        yield Stretch(match.start(), match.end(), _words_in(script, match[0]), None)


def _foreign_runs(text: str, language: str) -> Iterator[re.Match[str]]:
    pattern = _foreign_scripts(language)
    for run in _runs(text, language):  # quick patterns find where the slow one has to look
        yield from pattern.finditer(text, *run.span())


def _runs(text: str, language: str) -> Iterator[re.Match[str]]:
    """Yield the letters of other scripts that stand together; all of these scripts lie beyond Latin-1."""
    pattern = _foreign_run(language)
    data = text.replace("?", " ").encode("latin-1", "replace")
    for beyond in BEYOND_LATIN_1.finditer(data) if b"??" in data else ():
        yield from pattern.finditer(text, *beyond.span())


@lru_cache(maxsize=64)
def _foreign_letter(language: str) -> re.Pattern[str]:
    """Return the pattern of a letter of any script but the language's own and Latin."""
    own = LANGUAGE_SCRIPTS.get(language, LATIN) | LATIN
    return re.compile("[" + "".join(letters for name, letters in SCRIPT_RANGES.items() if name not in own) + "]")


@lru_cache(maxsize=64)
def _foreign_run(language: str) -> re.Pattern[str]:
    return re.compile(f"{_foreign_letter(language).pattern}{{{MIN_RUN},}}")


@lru_cache(maxsize=64)
def _foreign_scripts(language: str) -> re.Pattern[str]:
    """Return the pattern of runs of letters of every script but the language's own and Latin."""
    own = LANGUAGE_SCRIPTS.get(language, LATIN) | LATIN
    runs = []
    for name, letters in SCRIPT_RANGES.items():
        if name not in own:
            run = f"[{letters}]{{{LETTER_MINIMUM.get(name, MIN_RUN)},}}"
            if name == "greek":  # a word has an accent; a product of variables has none
                run = f"(?=[{letters}]*[{GREEK_ACCENTS}])[{letters}]{{3,}}|{run}"
            runs.append(f"(?P<{name}>{run})")
    return re.compile("|".join(runs))


def _is_sentence(match: re.Match[str], text: str, allowed: Allowed) -> bool:
    """Return whether letters of a script that the problem has are more than a word under discussion.

    Of a task that names a language (translation, grammar) everything in its script is under discussion.
    """
    script = match.lastgroup or ""
    if any(script in LANGUAGE_SCRIPTS.get(language, ()) for language in allowed.languages):
        return False
    length = len(match[0]) if script != "thai" else len(THAI_MARKS.sub("", match[0]))
    return length >= MIN_LONG_RUN and match[0] not in allowed.words and not is_inside(match, text, QUOTED)


def chinese_in_japanese(text: str, allowed: Allowed) -> Iterator[Stretch]:
    """Sentences of Han letters alone that hold what only Chinese writes."""
    if "zh" in allowed.languages:
        return
    for match in SENTENCE.finditer(text):
        sentence = match[0]
        if sentence.isascii() or SCRIPT_PATTERNS["kana"].search(sentence):
            continue
        num_han = sum(map(len, SCRIPT_PATTERNS["han"].findall(sentence)))
        if num_han < 4:
            continue
        marks = [mark for mark in CHINESE_ONLY.findall(sentence) if not HAN_IN_JAPANESE.fullmatch(mark)]
        if marks and (len(marks) >= 2 or identify(sentence) == "zh"):
            yield Stretch(match.start(), match.end(), max(1, num_han // 2), "zh")


def ukrainian_in_russian(text: str, allowed: Allowed) -> Iterator[Stretch]:
    """Sentences with words in letters that Ukrainian has and Russian has not, where there are two in all."""
    if not any(letter in text for letter in "іїєґ"):
        return
    if len({word.casefold() for word in UKRAINIAN.findall(text)} - allowed.words) < 2:
        return
    for match in SENTENCE.finditer(text):
        words = {word.casefold() for word in UKRAINIAN.findall(match[0])} - allowed.words
        if words and not is_inside(match, text, QUOTED):
            yield Stretch(match.start(), match.end(), len(words), "uk")


def latin_in_other(text: str, part: Part, allowed: Allowed, domain: Domain) -> Iterator[Stretch]:
    """Sentences in Latin letters; single words, names and terms pass."""
    own = [SCRIPT_PATTERNS[name] for name in LANGUAGE_SCRIPTS[part.language]]
    has_own = any(pattern.search(text) for pattern in own)
    for match in LATIN_RUN.finditer(text):
        words = [word.casefold() for word in LATIN_WORD.findall(match[0])]
        if not words or (domain is Domain.CODE and all(len(word) == 1 or word in KEYWORDS for word in words)):
            continue
        if len(words) < MIN_WORDS and domain in (Domain.MATH, Domain.LOGIC) and not words[0].isupper():
            if len(words) > 2 and everyday("en").issuperset(words) and "en" not in allowed.languages:
                yield Stretch(match.start(), match.end(), len(words), "en")
            continue
        language = latin_language(match[0], words, "")
        if language is None or language in allowed.languages or is_inside(match, text, QUOTED):
            continue
        num_function = sum(word in FUNCTION_WORDS[language] for word in words) if language in FUNCTION_WORDS else 0
        if len(words) >= MIN_WORDS or (num_function >= 2 and not has_own):
            yield Stretch(match.start(), match.end(), len(words), language)
    if has_own:
        return
    words = [word for word in LATIN_WORD.findall(text) if len(word) > 2]
    if sum(map(len, words)) >= 40 and not allowed.languages & {"en"}:  # all of it, without a sentence we know
        yield Stretch(0, len(text), len(words), None)


def more_words(text: str) -> int:
    """Return how many words there are beyond those between spaces: pairs of letters where a script has no spaces."""
    lengths = list(map(len, UNSPACED_RUN.findall(text)))
    return sum(length // 2 for length in lengths) - len(lengths) + lengths.count(1)


def _words_in(script: str, letters: str) -> int:
    return _words_in_pairs(letters) if script in UNSPACED_SCRIPTS else 1


def _words_in_pairs(letters: str) -> int:
    return max(1, len(letters) // 2)
