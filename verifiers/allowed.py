"""What a problem lets into its traces: languages that it names or is written in, their scripts, words it discusses.

Between ``latin`` and the finders (``scripts``, ``latin_pieces``, ``latin_rows``): each of these is given an ``Allowed``
and yields a ``Stretch`` for what has no place in a part. What is let in follows from the problem's text alone, but for
programs: what their strings say is under discussion too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from verifiers.language_data import LANGUAGE_NAMES, LANGUAGE_SCRIPTS, LATIN, NAMES_BEHIND_TIENG, SCRIPT_RANGES
from verifiers.latin import latin_language
from verifiers.latin_words import LATIN_WORD
from verifiers.masking import QUOTED, SENTENCE
from verifiers.view import fenced_spans

MIN_NAME_CHARS: Final = 6  # of a language's name, which may have an ending
TIENG: Final = re.compile(rf"tiếng ({'|'.join(NAMES_BEHIND_TIENG)})\b")
IN_QUOTES: Final = re.compile(r"\"[^\"\n]{1,200}\"|'[^'\n]{1,200}'")
WORD: Final = re.compile(r"[^\W\d_]+")
TWO_LETTERS: Final = {name: re.compile(f"[{letters}]{{2}}") for name, letters in SCRIPT_RANGES.items()}
# "in five languages": any may come.
SEVERAL_LANGUAGES: Final = re.compile(
    r"\b(?:local|native|original|their own) (?:languages?|scripts?|names?)\b|"
    r"\b(?:in|into|other|different|foreign) (?:(?!programming)\w+ ){0,2}languages\b|\bSprachen\b|\b(?:en|d['’]autres) "
    r"(?:\w+ )?langues\b|\b(?:idiomas|línguas)\b|\bязыках\b|[か-ん]国語|[种種]语言|[種种]語言|ngôn ngữ khác|언어로",
    re.IGNORECASE,
)
_NAME_BEGINNINGS: Final = frozenset(name[:MIN_NAME_CHARS] for name in LANGUAGE_NAMES)
_NAMES_WITHOUT_SPACES: Final = tuple(name for name in LANGUAGE_NAMES if not name.isascii() and len(name) > 1)


class Stretch(NamedTuple):
    """A piece in another language: its place in the text, how many words it has, the language where known."""

    start: int
    end: int
    num_words: int
    language: str | None


class Allowed(NamedTuple):
    """What a problem lets into a trace: languages that it names or is written in, and its scripts."""

    languages: frozenset[str]
    scripts: frozenset[str]
    words: frozenset[str]
    quoted: frozenset[str]  # words that it puts in quotes: they are under discussion


@lru_cache(maxsize=256)
def allowed_by(problem: str) -> Allowed:
    """Return the languages and scripts that a problem brings along."""
    words = [word.casefold() for word in WORD.findall(problem)]
    languages = {found for word in words if (found := _named(word)) is not None}
    if not problem.isascii():
        languages |= {NAMES_BEHIND_TIENG[name] for name in TIENG.findall(problem.casefold())}
        languages |= {LANGUAGE_NAMES[name] for name in _NAMES_WITHOUT_SPACES if name in problem}
    if SEVERAL_LANGUAGES.search(problem):
        languages |= set(LANGUAGE_SCRIPTS)
    scripts: set[str] = set()
    if not problem.isascii():
        scripts = {name for name, pattern in TWO_LETTERS.items() if pattern.search(problem)}
    for sentence in SENTENCE.findall(problem):
        found = latin_language(sentence, [word.casefold() for word in LATIN_WORD.findall(sentence)], "")
        if found is not None:
            languages.add(found)
    scripts |= {script for language in languages for script in LANGUAGE_SCRIPTS.get(language, ())}
    quotes = " ".join(text for found in QUOTED.findall(problem) for text in found)
    quoted = frozenset(word.casefold() for word in WORD.findall(quotes))
    return Allowed(frozenset(languages), frozenset(scripts - LATIN), frozenset(words), quoted)


def _named(word: str) -> str | None:
    """Return the language that a word names, also with an ending: Englische, japonaise, русского."""
    if len(word) <= MIN_NAME_CHARS or word[:MIN_NAME_CHARS] not in _NAME_BEGINNINGS:
        return LANGUAGE_NAMES.get(word)
    for end in range(len(word), min(len(word), MIN_NAME_CHARS) - 1, -1):
        if word[:end] in LANGUAGE_NAMES:
            return LANGUAGE_NAMES[word[:end]]
    return None


def words_in_strings(text: str) -> frozenset[str]:
    """Return the words between quotes in blocks of code: what a program says is under discussion."""
    blocks = " ".join(text[start:end] for start, end in fenced_spans(text))
    return frozenset(word.casefold() for said in IN_QUOTES.findall(blocks) for word in WORD.findall(said))
