"""Whether thinking and response keep to their languages, and how much of their words is in it.

A readability check, in three steps from cheap to dear. Letters of another script are found by one pattern
(``scripts``); sentences in Latin letters are told by their function words (``latin_rows``, ``latin_pieces``); an
identifier of languages is asked only about sentences that these leave open. Code, formulas, addresses, quotes, names
and what the problem itself brings along (``allowed``) are not counted. A translation task allows the languages that it
names and the one it is written in, no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.allowed import Allowed, Stretch, allowed_by, words_in_strings
from verifiers.language_data import LANGUAGE_SCRIPTS
from verifiers.latin_rows import latin_in_latin
from verifiers.latin_words import flags_in, tokens_of
from verifiers.masking import masked
from verifiers.scripts import (
    UNSPACED,
    chinese_in_japanese,
    has_foreign_run,
    latin_in_other,
    more_words,
    other_scripts,
    ukrainian_in_russian,
)
from verifiers.view import Finding, Part, View

NOT_LATIN: Final = re.compile(  # a character beyond Latin letters, their marks, and signs of any script
    r"[^\x00-\u036f\u1e00-\u1eff\u2000-\u2bff\u2e00-\u303f\ufe00-\ufe0f\uff00-\uffef\U0001d400-\U0001faff]"
)
MAX_PIECES: Final = 5_000  # of a part that are kept: as many are no slip


class Reading(NamedTuple):
    """What a part is written in: its number of words, and the pieces in a language that has no place there."""

    num_words: int
    pieces: tuple[Stretch, ...]


def read_part(view: View, part: Part) -> Reading:
    """Return what a part is written in; read once for all that ask."""
    if part.name not in view.read:
        allowed = allowed_by(view.problem)
        if view.domain is Domain.CODE and view.has_fences:
            allowed = allowed._replace(words=allowed.words | words_in_strings(view.text))
        letters = "".join(view.letters)
        pieces = tuple(islice(foreign_in(view, part, allowed, letters), MAX_PIECES))
        num_words = len(tokens_of(view, part).all) + (more_words(part.text) if UNSPACED.search(letters) else 0)
        view.read[part.name] = Reading(num_words, pieces)
    reading: Reading = view.read[part.name]
    return reading


def find_mixing(view: View) -> Finding | None:
    """Return the first piece in a language that has no place there; a flag where a job lets some words pass."""
    for part in view.parts:
        reading = read_part(view, part)
        pieces = reading.pieces
        num_words = sum(piece.num_words for piece in pieces)
        bound = view.limits.max_foreign_words
        if pieces:
            is_slip = num_words <= bound and consistency_of(reading) >= view.limits.min_consistency
            first = min(pieces)
            start, end = part.start + first.start, part.start + first.end
            return Finding(Reason.LANGUAGE_MIXING, start, end, num_words, bound, is_slip)
    return None


def consistency_of(reading: Reading | None) -> float:
    """Return the share of words in the target language, in [0, 1]; 1 where there is no word.

    Words of Chinese, Japanese and Thai are counted as pairs of letters. Source: DeepSeek-R1, arXiv:2501.12948, section
    2.3.2, which does not say how words are counted.
    """
    if reading is None or reading.num_words == 0:
        return 1.0
    num_foreign = min(reading.num_words, sum(piece.num_words for piece in reading.pieces))
    return round(1 - num_foreign / reading.num_words, 4)


def foreign_in(view: View, part: Part, allowed: Allowed, letters: str) -> Iterator[Stretch]:
    """Yield the pieces of a part that are in a language which has no place there, in the order of the steps.

    ``letters`` are those beyond ASCII that occur in the trace: what cannot match is not looked for.
    """
    domain = view.domain
    has_own_script = part.language in LANGUAGE_SCRIPTS
    has_others = (has_own_script or NOT_LATIN.search(letters) is not None) and has_foreign_run(part, letters)
    if has_own_script or has_others:
        text = masked(part.text, keep_math=True)  # words of another script hide in formulas, too
        if has_others:
            yield from other_scripts(text, part, allowed, domain)
        if part.language == "ja":
            yield from chinese_in_japanese(text, allowed)
        if part.language == "ru" and "uk" not in allowed.languages:
            yield from ukrainian_in_russian(text, allowed)
        if has_own_script:
            yield from latin_in_other(masked(text), part, allowed, domain)
            return
    yield from latin_in_latin(part, tokens_of(view, part), flags_in(view, part), allowed, domain, letters)
