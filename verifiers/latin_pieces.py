"""Pieces of a few words, and single words, of another language written in Latin letters.

The last step of ``latin_rows``, for what is too short to show as a row without function words. A piece stands between
two signs ("Das ist klar."): that all its words are another language's says so, or half of them and the identifier. A
telling word says so alone. What cannot be there is seen from the tokens, before the text is cut into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import compress
from typing import Final

from verifiers.allowed import Allowed, Stretch
from verifiers.identifier import identify
from verifiers.language_data import BORROWED_PHRASES, COMMON_WORDS, FUNCTION_WORDS, TELLING, VIETNAMESE
from verifiers.latin_words import (
    EVERYDAY,
    LATIN_WORD,
    TELLS,
    TONED,
    Tokens,
    TokenTable,
    everyday,
    everyday_of_others,
    having,
    own_words,
)
from verifiers.masking import QUOTED, is_inside, masked

PIECE: Final = re.compile(r"[^.!?。！？\n;:,()\[\]—–…=+*/<>|]+")
MAX_SHORT_WORDS: Final = 6  # of a piece that is looked up word by word: a longer one shows by its function words
MIN_ASKED_WORDS: Final = 3  # of such a piece about which the identifier is asked
MIN_SHORT_LETTERS: Final = 6
MIN_SHORT_FOREIGN: Final = 2  # words of such a piece that its own language does not have
TWO_NEAR: Final = re.compile(rb"\x01[\x00\x01]{0,4}\x01")  # odd tokens within a piece
TWO_WORDS: Final = re.compile(rb"\x02|\x01\x00*\x01")  # of other languages in a piece, in weights of tokens
NO_WORD: Final = b"\x03"  # the weight of a token without any
BORDER: Final = ";"  # between two pieces, of which none holds it
BORDER_WEIGHT: Final = b"\x04"


def short_pieces(tokens: Tokens, flags: bytes, language: str, allowed: Allowed) -> Iterator[Stretch]:
    """Pieces of a few words, between signs, that are all everyday words of another language: "Das ist klar"."""
    odd = flags.translate(having(EVERYDAY | TONED))
    if 1 not in odd:
        return
    is_telling = any(not token.isascii() or "'" in token for token in compress(tokens.all, odd))  # c'est, très
    if not is_telling and TWO_NEAR.search(odd) is None:
        return  # one word is no piece
    plain = tokens.text
    for match in _pieces_with_others(masked(plain), tokens.lines_with(odd), language):
        words = LATIN_WORD.findall(match[0])
        if not MIN_SHORT_FOREIGN <= len(words) <= MAX_SHORT_WORDS:
            continue
        small = [word.lower() for word in words]
        if _weight_of(small, language) < MIN_SHORT_FOREIGN or any(map(str.isdigit, match[0])):
            continue
        other = _language_of_piece(words, small, language)
        if other is None or other in allowed.languages or " ".join(small) in BORROWED_PHRASES:
            continue
        if allowed.words.issuperset(small) or is_inside(match, plain, QUOTED):
            continue
        yield Stretch(match.start(), match.end(), len(words), other)


def _pieces_with_others(text: str, lines: Iterable[tuple[int, int]], language: str) -> list[re.Match[str]]:
    """Return the pieces with two words of other languages, counted over the tokens of all these lines at once."""
    pieces = [piece for line in lines for piece in PIECE.finditer(text, *line)]
    tokens = f" {BORDER} ".join(piece[0] for piece in pieces).split()
    weights = bytes(map(_weights(language).__getitem__, tokens)).replace(NO_WORD, b"")
    if TWO_WORDS.search(weights) is None:
        return []
    by_piece = weights.replace(b"\x00", b"").split(BORDER_WEIGHT)
    return [piece for piece, words in zip(pieces, by_piece, strict=True) if words and sum(words) >= 2]


@lru_cache(maxsize=32)
def _weights(language: str) -> TokenTable:
    def weight_in(token: str) -> int:
        if token == BORDER:
            return BORDER_WEIGHT[0]
        words = LATIN_WORD.findall(token.lower())
        return min(2, _weight_of(words, language)) if words else NO_WORD[0]

    return TokenTable(weight_in)


def _weight_of(words: list[str], language: str) -> int:
    """Return how many of the words only other languages have, in small letters; one with an accent counts as two."""
    others = everyday_of_others(language)
    weight = 0
    for word in words:
        if word in others:
            weight += 1 if word.isascii() and word.isalpha() else 2
        elif not word.isascii() and VIETNAMESE.search(word):
            weight += 1
    return weight


def _language_of_piece(words: list[str], small: list[str], language: str) -> str | None:
    if sum(map(len, small)) < MIN_SHORT_LETTERS:
        return None
    if language != "vi" and sum(word.islower() and VIETNAMESE.search(word) is not None for word in words) >= 2:
        return "vi"
    own = own_words(language)
    new = [word for word in small if word not in own]
    if sum(1 if word.isascii() and word.isalpha() else 2 for word in new) < MIN_SHORT_FOREIGN:  # c'est, très say more
        return None
    for other in COMMON_WORDS:
        is_written_so = other == "de" or all(word[0].islower() for word in words[1:])  # else it is a name
        if other != language and is_written_so and everyday(other).issuperset(small):
            return other
    if len(words) < MIN_ASKED_WORDS or not own.isdisjoint(small) or not all(map(str.islower, words[1:])):
        return None
    asked = identify(" ".join(small))  # half of the words are known: the identifier may tell
    num_known = sum(word in everyday(asked) for word in small) if asked in COMMON_WORDS else 0
    return asked if asked != language and num_known * 2 >= len(small) and num_known >= MIN_SHORT_FOREIGN else None


def telling_words(text: str, flags: bytes, language: str, allowed: Allowed) -> Iterator[Stretch]:
    """Single words that only one other language has."""
    if 1 not in flags.translate(having(TELLS)):
        return
    for match in _telling(language).finditer(masked(text)):
        word = match[0].lower()
        if word in allowed.words or TELLING[word] in allowed.languages or is_inside(match, text, QUOTED):
            continue
        yield Stretch(match.start(), match.end(), 1, TELLING[word])


@lru_cache(maxsize=32)
def _telling(language: str) -> re.Pattern[str]:
    words = sorted(
        word for word, other in TELLING.items() if other != language and word not in FUNCTION_WORDS.get(language, ())
    )
    return re.compile(rf"(?<![\w'-])(?:{'|'.join(words)})(?![\w'-])")  # small letters: a name has a capital
