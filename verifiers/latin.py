"""Which language a sentence in Latin letters is in.

Between the tables of ``latin_words`` and those who cut a text into sentences. Function words decide, and letters with
tones; the identifier is asked about what these leave open. In doubt a sentence is in the language that it should be in.
A function of the sentence alone: what a problem lets in, and what is quoted, is for the caller to know.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from verifiers.identifier import identify, score_of
from verifiers.language_data import FUNCTION_WORDS, PINYIN, PINYIN_TONES, VIETNAMESE
from verifiers.latin_words import LATIN_WORD, count_function_words, own_and_other_words, tones_of_others

MIN_WORDS: Final = 4  # of a sentence that is looked at (guess)
MIN_LETTERS: Final = 12  # of a sentence that is in another language (guess)
MIN_ASKED_CHARS: Final = 24  # shorter sentences the identifier guesses (note on readability, 2.2: 30)
MIN_NO_FUNCTION_WORDS: Final = 5  # words of a sentence without a function word, before the identifier is asked (guess)
MIN_UNKNOWN_WORDS: Final = 6  # of a sentence that may be in no language we know (guess) ...
MIN_UNKNOWN_LETTERS: Final = 30
MAX_UNLIKE_SCORE: Final = 0.2  # ... where the identifier gives less to the target language (guess) ...
MAX_SOFT_SCORE: Final = 0.4  # ... or where words end as romanised Russian does (guess)
SOFT_SIGN: Final = re.compile(r"(?<=[^\W\d_]{2})[b-df-hj-np-tv-z]['’](?!\w)")  # f' and g' are functions
MIN_PINYIN_WORDS: Final = 10  # of Chinese without tones; a tenth may be function words of the language (guess)


def latin_language(sentence: str, words: list[str], language: str) -> str | None:
    """Return the language of a sentence in Latin letters, ``language`` where it may be that; None: none is seen."""
    if not words:
        return None
    has_tones = not sentence.isascii() and tones_of_others(language).search(" ".join(words)) is not None
    if language in FUNCTION_WORDS and not has_tones:
        own, others = own_and_other_words(language)
        num_foreign = len(others.intersection(words))
        if num_foreign == 0 and not FUNCTION_WORDS[language].isdisjoint(words):
            return language  # as below: what both have counts for both
        if 0 < num_foreign <= len(own.intersection(words)):
            return language
    counts = count_function_words(words)
    mine = num_own = counts.pop(language, 0)
    best = max(counts, key=lambda other: counts[other], default=None)
    most = counts[best] if best is not None else 0
    if not sentence.isascii():
        num_vietnamese = sum(VIETNAMESE.search(word) is not None for word in words)
        if language != "vi" and num_vietnamese >= 3 and num_vietnamese * 3 >= len(words):
            return "vi"
        if language != "zh" and sum(PINYIN_TONES.search(word) is not None for word in words) >= 3:
            return "zh"
    if len(words) >= MIN_PINYIN_WORDS and num_own * MIN_PINYIN_WORDS <= len(words) and _is_pinyin(words):
        return "zh"
    if mine >= most and mine > 0:
        return language
    if best is not None:  # what both have says nothing
        both = len(FUNCTION_WORDS[best].intersection(FUNCTION_WORDS.get(language, ()), words))
        mine, most = mine - both, most - both
    if sum(map(len, words)) < MIN_LETTERS:  # of a hex dump, of a list of variables
        return language or None
    if best is not None and most >= 2 and most >= 2 * mine + 1 and (most >= 3 or mine == 0):
        if len(sentence) < MIN_ASKED_CHARS:
            return best if most >= 3 else language or best
        asked = identify(sentence)
        return best if asked in (best, None) or most >= 4 else asked
    is_long = len(sentence.strip()) >= MIN_ASKED_CHARS
    if mine == 0 and most == 1 and is_long and _is_prose(sentence, words) and identify(sentence) == best:
        return best
    if mine == 0 and len(words) >= MIN_NO_FUNCTION_WORDS:
        if num_own == 0 and most < 2 and _is_pinyin(words):
            return "zh"
        if is_long and _is_prose(sentence, words):
            return identify(sentence) or _if_unlike(sentence, words, language)
    return language or None


def _is_pinyin(words: list[str]) -> bool:
    """Return whether nine in ten words are syllables of Chinese."""
    num_others_let_pass = len(words) // 10
    others = (word for word in words if PINYIN.fullmatch(word) is None)
    return len(list(islice(others, num_others_let_pass + 1))) <= num_others_let_pass


def _if_unlike(sentence: str, words: list[str], language: str) -> str | None:
    """Return the language, or "und" for a long sentence that is in no language we know, as Russian in Latin letters."""
    is_long = len(words) >= MIN_UNKNOWN_WORDS and sum(map(len, words)) >= MIN_UNKNOWN_LETTERS
    bound = MAX_SOFT_SCORE if len(SOFT_SIGN.findall(sentence)) > 1 else MAX_UNLIKE_SCORE
    if language and is_long and score_of(sentence, language) < bound:
        return "und"
    return language or None


def _is_prose(sentence: str, words: list[str]) -> bool:
    """Return whether a sentence is words in small letters: lists of names, terms and letters are none."""
    num_long = sum(len(word) > 2 for word in words)
    letters = sum(map(len, words))
    if num_long * 2 < len(words) or letters * 10 < 6 * len(sentence.strip()):
        return False
    return sum(map(str.islower, LATIN_WORD.findall(sentence))) * 2 > len(words)
