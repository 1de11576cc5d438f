"""Another language written in Latin letters, in a part whose own language is written in them too.

Finder of ``languages``. Every sentence of another language has some tokens in a row of which none is a function word of
the own one. Such rows are found by set membership over the tokens; only where one holds a word or an accent of another
language, or is long or a whole sentence, is the text itself looked at: its sentences, each once, then the row as a
clause inside a sentence of the own language. What is too short for a row is left to ``latin_pieces``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from schemas.problem import Domain
from verifiers.allowed import Allowed, Stretch
from verifiers.identifier import MAX_LINE_CHARS, identify
from verifiers.language_data import FUNCTION_WORDS
from verifiers.latin import MIN_NO_FUNCTION_WORDS, MIN_WORDS, latin_language
from verifiers.latin_pieces import MAX_SHORT_WORDS, short_pieces, telling_words
from verifiers.latin_words import (
    ALPHA,
    ANY_FUNCTION_WORD,
    ENDS,
    LATIN_WORD,
    ODD,
    OTHERS,
    OWN,
    SHARED,
    Tokens,
    TokenTable,
    accent_of_others,
    count_function_words,
    having,
    known_as_written,
    own_and_other_words,
    tones_of_others,
)
from verifiers.masking import ADDRESS, IN_BRACKETS, MATH, QUOTED, SENTENCE, STRICT_DOMAINS, blank, is_quoted
from verifiers.view import Cover, Part, code_spans

# Tokens in a row of which none is a function word of the language (see ``_suspicious_rows``).
MIN_ROW: Final = 4
LONG_ROW: Final = re.compile(rb"\x00{5,}")
MIN_BARE_WORDS: Final = 3  # letters alone, of a bare sentence's tokens: one may have a mark, and one a sign before it
# What tokens are, for sentences without a function word of the language: 1 is one, 2 ends its sentence, 3 is both.
KINDS: Final = bytes((1 if flags & (OWN | SHARED) else 0) + (2 if flags & ENDS else 0) for flags in range(256))
BARE_SENTENCE: Final = re.compile(rb"[\x02\x03]\x00{3,}(?=\x02)")
SENTENCE_ENDS: Final = ".!?。！？\n;:"
MIN_SENTENCE_CHARS: Final = 2 * MIN_WORDS - 1  # a shorter one has no room for so many words
MIN_ROW_FUNCTION: Final = 2  # function words of another language in a row that holds none of its own
MIN_ROW_WORDS: Final = 6  # of such a row, where there are no more than that
MAY_HIDE: Final = re.compile(r"[\\$/@]")  # what stands beside these may be a formula or an address ...
MAY_HIDE_OR_QUOTE: Final = re.compile(r"[\\$/@\"“”«»„‘「『《*_(（]")  # ... or in quotes
TITLE: Final = re.compile(r"[^.!?\n,;:()]{3,80} (?=\((?:1\d|20)\d\d[a-z]?\))")  # of a work, before its year
YEAR_REACH: Final = 8  # characters behind a row in which a year in brackets ends
MIN_TITLES: Final = 3
CODE_LIKE: Final = re.compile(
    r"[A-Za-z]\w*\([\w(,)]|[A-Za-z]_[A-Za-z]|\)--|--\("
)  # a call, a name, a path that is drawn


def latin_in_latin(
    part: Part, tokens: Tokens, flags: bytes, allowed: Allowed, domain: Domain, letters: str
) -> Iterator[Stretch]:
    """Sentences in another language, and single words that only another language has.

    A sentence is looked at where some words in a row hold no function word of the language, as in every sentence of
    another one, and where one of another language stands among them, or the row is long or a whole sentence.
    """
    seen: list[Stretch] = []
    plain, language = part.text, part.language
    has_accents = accent_of_others(language).search(letters) is not None
    is_clean = not has_accents and 1 not in flags.translate(having(OTHERS))
    if is_clean and len(flags) < MIN_BARE_WORDS:
        return
    code = Cover(code_spans(plain))
    done = 0
    has_tones = tones_of_others(language).search(letters.lower()) is not None
    may_hide = MAY_HIDE if domain in STRICT_DOMAINS else MAY_HIDE_OR_QUOTE
    rows = list(_suspicious_rows(flags, domain))
    for (first, last, is_odd), place in zip(rows, tokens.places(first for first, _, _ in rows), strict=True):
        words = tokens.all[first:last]
        stop = place + sum(map(len, words)) + len(words) - 1
        start = done if done > place else max(_sentence_start(plain, place), done)
        num_before = len(seen)
        for match in SENTENCE.finditer(plain, start, stop + MAX_LINE_CHARS) if start < stop else ():
            if match.start() >= stop:
                break
            done = match.end()
            sentence = match[0]
            if len(sentence) < MIN_SENTENCE_CHARS:
                continue
            if not has_tones and _is_mostly_own(sentence.split(), language) and may_hide.search(sentence) is None:
                continue
            found = _foreign_sentence(sentence, match.start(), language, allowed, domain)
            if found is None or code.holds(found.start, found.start):
                continue
            if domain in STRICT_DOMAINS or not is_quoted(plain, found.start, found.end):
                seen.append(found)
                yield found
        is_open = is_odd and len(seen) == num_before
        row = _foreign_row(words, plain, place, stop, language, allowed) if is_open else None
        is_title = row is not None and domain not in STRICT_DOMAINS and TITLE.search(plain, start, stop + YEAR_REACH)
        if row is not None and not (is_title or code.holds(place, place) or is_quoted(plain, row.start, row.end)):
            seen.append(row)
            yield row
    if is_clean or language not in FUNCTION_WORDS:
        return
    if domain in STRICT_DOMAINS or domain is Domain.TRANSLATION:
        known = Cover(piece[:2] for piece in seen)
        pieces = short_pieces(tokens, flags, language, allowed)
        yield from (piece for piece in pieces if not known.holds(piece.start, piece.end - 1))
    if domain in STRICT_DOMAINS:
        yield from telling_words(plain, flags, language, allowed)


def _suspicious_rows(flags: bytes, domain: Domain) -> Iterator[tuple[int, int, bool]]:
    """Yield rows of tokens without a function word of the language, in order: first, behind the last, whether odd.

    Odd ones hold one of another language, or accents. The others are long; where nothing is hidden in quotes and
    brackets, whole sentences: one that holds a function word of the language, and no odd row, is in it.
    """
    odd, own, words = (flags.translate(having(bits)) for bits in (ODD, OWN, ALPHA))
    rows = []
    place = odd.find(1)
    while place >= 0:
        start = own.rfind(1, 0, place) + 1
        end = own.find(1, place + 1)
        end = len(own) if end < 0 else end
        if end - start >= MIN_ROW:
            rows.append((start, end, True))
        place = odd.find(1, end)
    if domain in STRICT_DOMAINS:  # one place on, by the byte put before: from the first token to behind the last
        found, least = BARE_SENTENCE.finditer(b"\x02" + flags.translate(KINDS)), MIN_BARE_WORDS
    else:
        found, least = LONG_ROW.finditer(own), MIN_NO_FUNCTION_WORDS
    for match in found:
        start, end = match.span()
        if odd.find(1, start, end) < 0 and words.count(1, start, end) >= least:
            rows.append((start, end, False))
    rows.sort(key=lambda row: (row[0], -row[1]))
    done = 0
    for first, last, is_odd in rows:
        if first >= done:
            yield first, last, is_odd
            done = last


def _sentence_start(text: str, place: int) -> int:
    low = max(0, place - MAX_LINE_CHARS)
    return low + max(map(text[low : place + 1].rfind, SENTENCE_ENDS)) + 1


def _is_mostly_own(tokens: list[str], language: str) -> bool:
    """Return whether function words of this language stand there, and of others only those that it has itself.

    Or no more that only others have than there are that only it has. Such a sentence is in this language
    (``latin_language``), if it has no letters with tones.
    """
    known = known_as_written(language)
    found = known.keys() & tokens
    if not found:
        return False
    num_foreign = sum(map(_foreign_words(language).__getitem__, tokens))
    if num_foreign == 0:
        return True
    return num_foreign <= len({known[token] for token in found} & own_and_other_words(language)[0])


@lru_cache(maxsize=32)
def _foreign_words(language: str) -> TokenTable:
    """Return how many function words that only other languages have a token holds."""
    others = ANY_FUNCTION_WORD - FUNCTION_WORDS.get(language, frozenset())
    return TokenTable(lambda token: sum(word in others for word in LATIN_WORD.findall(token.lower())))


def _foreign_sentence(sentence: str, place: int, language: str, allowed: Allowed, domain: Domain) -> Stretch | None:
    """Return the sentence where it is in a language that has no place there; formulas and addresses do not count."""
    size = len(sentence)
    if "\\" in sentence or "$" in sentence or "/" in sentence or "@" in sentence:
        sentence = ADDRESS.sub(" ", MATH.sub(blank, sentence))
    if domain not in STRICT_DOMAINS:  # words in quotes and brackets are spoken of
        if "(" in sentence:
            sentence = TITLE.sub(" ", sentence)
        sentence = IN_BRACKETS.sub(" ", QUOTED.sub(" ", sentence))
    words = LATIN_WORD.findall(sentence.lower())
    if len(words) < MIN_WORDS:
        return None
    found = latin_language(sentence, words, language)
    if found is None or found == language or found in allowed.languages:
        return None
    told = [word for word in words if len(word) > 1 or not word.isascii()]
    if len(set(told)) < 3:  # ha ha ha; A, B, C, D
        return None
    if CODE_LIKE.search(sentence) and len(FUNCTION_WORDS.get(found, frozenset()).intersection(told)) < 2:
        return None
    if domain not in STRICT_DOMAINS and _is_list_of_titles(sentence):
        return None
    num_given = len(allowed.words.intersection(words))
    is_discussed = num_given > 0 and domain not in STRICT_DOMAINS and _has_quote_of(sentence, allowed)
    if num_given * 2 > len(words) or is_discussed:
        return None
    return Stretch(place, place + size, len(words), found)


def _is_list_of_titles(sentence: str) -> bool:
    """Return whether a sentence is some short pieces that all begin with a capital: titles, names."""
    pieces = [piece.strip() for piece in sentence.split(",")]
    is_short = all(len(piece.split()) <= MAX_SHORT_WORDS for piece in pieces)
    return len(pieces) >= MIN_TITLES and is_short and all(piece[:1].isupper() for piece in pieces)


def _has_quote_of(sentence: str, allowed: Allowed) -> bool:
    return any(word in allowed.quoted for word in re.findall(r"[^\W\d_]+", sentence.casefold()))


def _foreign_row(
    tokens: list[str], text: str, place: int, stop: int, language: str, allowed: Allowed
) -> Stretch | None:
    """Return the row itself where it is a clause of another language inside a sentence of the own one."""
    if len(tokens) < MIN_NO_FUNCTION_WORDS:
        return None
    if language in FUNCTION_WORDS and sum(map(_foreign_words(language).__getitem__, tokens)) < MIN_ROW_FUNCTION:
        return None
    words = LATIN_WORD.findall(" ".join(tokens).lower())
    own = FUNCTION_WORDS.get(language, frozenset())
    counts = count_function_words(word for word in words if word not in own)
    best = max(counts, key=lambda other: counts[other], default=language)
    if best == language or best in allowed.languages:
        return None
    if counts[best] < MIN_ROW_FUNCTION or counts[best] * 5 < len(words):
        return None
    num_small = sum(map(str.islower, tokens))  # of titles and names most have a capital
    if counts[best] == MIN_ROW_FUNCTION and (len(words) < MIN_ROW_WORDS or num_small * 5 < len(tokens) * 3):
        return None
    if allowed.words.intersection(words) or identify(text[place:stop]) != best:
        return None
    return Stretch(place, stop, len(words), best)
