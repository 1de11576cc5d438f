"""What words, tokens and letters say about languages written in Latin letters: tables made from ``language_data``.

Below ``latin``, ``latin_pieces`` and ``latin_rows``. A *word* is letters alone, small ones; a *token* is what stands
between spaces, as written: tables of tokens hold a word also with a capital and before a mark, so that a text is
compared with them without being cut into words. A table is made once for each language. Decides nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from verifiers.language_data import (
    ALSO_ENGLISH,
    ALSO_OWN,
    COMMON_WORDS,
    FUNCTION_WORDS,
    OWN_ACCENTS,
    PINYIN_TONES,
    TELLING,
    VIETNAMESE,
)
from verifiers.view import Part, View

# The first letter stands before the look behind it: a search then goes from letter to letter, not from place to place.
LATIN_WORD: Final = re.compile(
    r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ](?<!\d[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ])[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ]*(?:['’-][A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ]+)*(?!\d)"
)
ACCENTS: Final = r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
TONES: Final = re.compile(VIETNAMESE.pattern[:-1] + PINYIN_TONES.pattern[1:])  # one class of both
MAX_TOKENS_KEPT: Final = 50_000  # of a language, with what is known of them ...
MAX_TOKEN_CHARS: Final = 40  # ... and of no greater length
# Function words of several languages: they say nothing about which one a sentence is in.
SHARED_WORDS: Final = frozenset(
    word
    for word in frozenset().union(*FUNCTION_WORDS.values())
    if sum(word in words for words in FUNCTION_WORDS.values()) > 1
)
ANY_FUNCTION_WORD: Final = frozenset().union(*FUNCTION_WORDS.values())
LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(language for language, words in FUNCTION_WORDS.items() if word in words) for word in ANY_FUNCTION_WORD
}


class TokenTable(dict[str, int]):
    """What a rule says of a token, kept from one text to the next: most tokens come again."""

    def __init__(self, rule: Callable[[str], int]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, token: str) -> int:
        value = self._rule(token)
        if len(self) >= MAX_TOKENS_KEPT:
            self.clear()
        if len(token) <= MAX_TOKEN_CHARS:
            self[token] = value
        return value


def count_function_words(words: Iterable[str]) -> dict[str, int]:
    """Return how many function words of each language occur, in the order of the languages; none that has none."""
    found: dict[str, int] = {}
    for word in ANY_FUNCTION_WORD.intersection(words):
        for language in LANGUAGES_OF[word]:
            found[language] = found.get(language, 0) + 1
    return {language: found[language] for language in FUNCTION_WORDS if language in found} if len(found) > 1 else found


@lru_cache(maxsize=32)
def own_and_other_words(language: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the function words that only this language has, and those that only others have."""
    own = FUNCTION_WORDS[language]
    others = frozenset(word for other, known in FUNCTION_WORDS.items() if other != language for word in known)
    return own - others, others - own


@lru_cache(maxsize=32)
def everyday(language: str) -> frozenset[str]:
    """Return the words of a language that anybody uses, function words among them."""
    words = FUNCTION_WORDS.get(language, frozenset()) | COMMON_WORDS.get(language, frozenset())
    return words | ALSO_ENGLISH if language == "en" else words


@lru_cache(maxsize=32)
def own_words(language: str) -> frozenset[str]:
    """Return the words that show no other language: everyday ones, and some that others have as well."""
    return everyday(language) | ALSO_OWN.get(language, frozenset())


@lru_cache(maxsize=32)
def everyday_of_others(language: str) -> frozenset[str]:
    """Return everyday words of other languages alone, in small letters."""
    return frozenset().union(*(everyday(other) for other in COMMON_WORDS if other != language)) - own_words(language)


@lru_cache(maxsize=32)
def words_of_others(language: str) -> frozenset[str]:
    """Return the function words of the other languages, small and with a capital, but for those that it has itself."""
    words = {word for other, known in FUNCTION_WORDS.items() if other != language for word in known}
    words = {word for word in words - own_words(language) if len(word) > 1}
    return frozenset(words | {word.capitalize() for word in words})


@lru_cache(maxsize=32)
def telling_as_written(language: str) -> frozenset[str]:
    """Return the telling words of other languages as tokens: before a comma or a full stop."""
    words = {word for word, other in TELLING.items() if other != language}
    return frozenset(word + mark for word in words for mark in ("", ",", ".", ":", ";"))


@lru_cache(maxsize=32)
def with_capitals(language: str) -> frozenset[str]:
    """Return the function words of a language as they stand in a text: with a capital, and before a comma."""
    words = FUNCTION_WORDS.get(language, frozenset())
    words = words - SHARED_WORDS
    words = words | {word.capitalize() for word in words} | ({"I"} if language == "en" else set())
    return frozenset(words | {f"{word}," for word in words})


# What a token is, as bits of one byte: a text is looked up once, and each question is a translation of these bytes.
OWN: Final = 1  # a function word of the language, and of no other
ODD: Final = 2  # a function word of others, or with a letter that the language does not write
SHARED: Final = 4  # a function word that the language has with others
EVERYDAY: Final = 8  # an everyday word of others
TONED: Final = 16  # with a letter of Vietnamese
TELLS: Final = 32  # a word that says alone which language it is
ALPHA: Final = 64  # letters and nothing else, but for an apostrophe at the end
ENDS: Final = 128  # a sentence ends in it, or its line behind it
OTHERS: Final = ODD | EVERYDAY | TELLS  # by which other languages show
SENTENCE_END: Final = re.compile(r"[.!?。！？;:]")
TOKEN: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What stands between spaces in a text, and where."""

    text: str
    all: list[str]
    firsts: list[int]  # of each line that has any: its first token ...
    starts: list[int]  # ... and its place in the text

    @classmethod
    def of(cls, text: str) -> Tokens:
        """Cut a text."""
        found: list[str] = []
        firsts, starts = [], []
        place = 0
        for line in text.split("\n"):
            tokens = line.split()
            if tokens:
                firsts.append(len(found))
                starts.append(place)
                found += tokens
            place += len(line) + 1
        return cls(text, found, firsts, starts)

    def flags(self, language: str) -> bytes:
        """Return what each token is in this language, in one byte each."""
        flags = bytearray(map(_flags(language).__getitem__, self.all))
        for first in self.firsts[1:]:
            flags[first - 1] |= ENDS
        if flags:
            flags[-1] |= ENDS
        return bytes(flags)

    def places(self, numbers: Iterable[int]) -> Iterator[int]:
        """Yield where these tokens stand, whose numbers rise: only lines that have one of them are looked at."""
        number = place = 0
        for wanted in numbers:
            line = bisect_right(self.firsts, wanted) - 1
            if self.firsts[line] > number:
                number, place = self.firsts[line], self.starts[line]
            found = next(islice(TOKEN.finditer(self.text, place), wanted - number, None))
            number, place = wanted, found.start()
            yield place

    def lines_with(self, marked: bytes) -> Iterator[tuple[int, int]]:
        """Yield the places of the lines that hold a marked token; ``marked`` has a byte for each token."""
        token = marked.find(1)
        while token >= 0:
            line = bisect_right(self.firsts, token) - 1
            start = self.starts[line]
            end = self.text.find("\n", start)
            yield start, len(self.text) if end < 0 else end
            token = marked.find(1, self.firsts[line + 1]) if line + 1 < len(self.firsts) else -1


def tokens_of(view: View, part: Part) -> Tokens:
    """Return what stands between spaces in a part; cut once for all that ask."""
    key = f"tokens of {part.name}"
    if key not in view.read:
        view.read[key] = Tokens.of(part.text)
    tokens: Tokens = view.read[key]
    return tokens


def flags_in(view: View, part: Part) -> bytes:
    """Return what each token of a part is in its language; looked up once for all that ask."""
    key = f"flags of {part.name}"
    if key not in view.read:
        view.read[key] = tokens_of(view, part).flags(part.language)
    flags: bytes = view.read[key]
    return flags


@lru_cache(maxsize=32)
def having(bits: int) -> bytes:
    """Return the table that translates flags to 1 where any of these bits is set, to 0 elsewhere."""
    return bytes(int(flags & bits != 0) for flags in range(256))


@lru_cache(maxsize=32)
def _flags(language: str) -> TokenTable:
    own, odd = with_capitals(language), words_of_others(language)
    every_day = frozenset(word for word in everyday_of_others(language) if len(word) > 1)  # a letter is a variable
    telling, accent, known = telling_as_written(language), accent_of_others(language), known_as_written(language)

    def rule(token: str) -> int:
        flags = OWN * (token in own) | SHARED * (token in known and token not in own) | ODD * (token in odd)
        flags |= EVERYDAY * (not every_day.isdisjoint(LATIN_WORD.findall(token.lower())))
        flags |= (
            TELLS * (token in telling)
            | ALPHA * token.rstrip("'’").isalpha()
            | ENDS * (SENTENCE_END.search(token) is not None)
        )
        if not token.isascii():
            flags |= ODD * (token not in own and accent.search(token) is not None)
            flags |= TONED * (language != "vi" and VIETNAMESE.search(token) is not None)
        return flags

    return TokenTable(rule)


@lru_cache(maxsize=32)
def known_as_written(language: str) -> dict[str, str]:
    """Return the function words of a language by how they stand in a text: with a capital, and before a comma."""
    words = FUNCTION_WORDS.get(language, frozenset())
    return {token: word for word in words for form in (word, word.capitalize()) for token in (form, f"{form},")}


@lru_cache(maxsize=32)
def accent_of_others(language: str) -> re.Pattern[str]:
    """Return the pattern of letters with a mark that this language does not write."""
    own = OWN_ACCENTS.get(language, "")
    return re.compile(f"(?![{own}{own.upper()}])[{ACCENTS}]" if own else f"[{ACCENTS}]")


@lru_cache(maxsize=32)
def tones_of_others(language: str) -> re.Pattern[str]:
    """Return the pattern of letters that say more than function words, in small letters."""
    return PINYIN_TONES if language == "vi" else TONES
