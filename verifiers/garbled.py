"""Whether a trace holds wreckage: broken encodings, control and private characters, raw tokens, words of mixed scripts.

A readability check. One pass of one pattern over the text finds every candidate; most texts are ASCII and have none.
Marks that belong to a script (Thai, Hindi, Arabic, Vietnamese) and a single odd character under discussion pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.view import Finding, View

CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
REPLACEMENT: Final = re.compile("\ufffd")
PRIVATE: Final = re.compile(r"[\ue000-\uf8ff\U000f0000-\U0010fffd]|[\ufdd0-\ufdef\ufffe\uffff]|[\ud800-\udfff]")
# UTF-8 read as Latin-1 or Windows-1252: a lead byte as a letter, then continuation bytes as odd signs.
MOJIBAKE: Final = re.compile(
    r"[ÂÃ][\u0080-\u00bf\u2013-\u203a\u20ac\u0152-\u0192\u02c6\u02dc]|â€[\u0080-\u00bf\u2013-\u203a\u0153\u2122œž™¦¢]?|"
    r"[Ðà-ïåæçèé][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{2}|[ÐÑ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
)
RAW_TOKENS: Final = re.compile(r"[ĠĊ](?=[A-Za-z0-9ĠĊ\\$(.,])|(?<=[a-z.])[ĠĊ]|▁(?=\w)|<0x[0-9A-F]{2}>")
ENTITIES: Final = re.compile(r"&amp;(?:lt|gt|quot|amp|nbsp|apos|#\d{1,5});|&(?:amp;){2,}")
READ_AS_GBK: Final = re.compile(r"锟斤拷|烫烫|屯屯|[銆锛鐨鍦杩涓]{2}")  # UTF-8 or nothing, read as GBK
STACKED: Final = re.compile(r"[\u0300-\u036f\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3,}")
MIXED_WORD: Final = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
OMICRON: Final = re.compile(r"[A-Za-z]ο|ο[A-Za-z]")  # no formula has an omicron: it stands for an o
MIXED_EXCEPT: Final = re.compile(r"[\u0400-\u04ff]{3,}[A-Z]\b|\b[A-Z]{1,4}[\u0400-\u04ff]{3,}")  # ABCшный, вектораA
SYMBOLS: Final = re.compile(r"[^\w\s](?: ?[^\w\s]){20,}")
SIGNS: Final = b"s" * 21
SIGNS_ALONE: Final = bytes(ord("s") if chr(code) in "su" else code for code in range(256))
MIN_DISTINCT_SYMBOLS: Final = 9  # of such a run: frames and closing brackets have a few (guess)
SCRIPTS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"[A-Za-z\u00c0-\u024f]{2}",
        r"[\u0400-\u052f]{2}",
        r"[\u0590-\u05ff]{2}",
        r"[\u0600-\u06ff]{2}",
        r"[\u0900-\u097f]{2}",
        r"[\u0980-\u0dff]{2}",
        r"[\u0e00-\u0eff]{2}",
        r"[\u1000-\u10ff]{2}",
        r"[\u3040-\u30ff\u4e00-\u9fff]{2}",
        r"[\uac00-\ud7af]{2}",
        r"[\u0530-\u058f]{2}",
    )
)
SALAD_LINE: Final = re.compile(r"[^\n]+(?:\n[^\n]{1,80}(?![^\n]))?")  # with a short one below it
MIN_SALAD_SCRIPTS: Final = 4  # in one window: no text of one problem has so many (guess)
ODD_TOKEN: Final = re.compile(  # propTypes, Mul_assoc_thrift, ",[", "/**<"
    r"(?<![A-Za-z\\_$])[a-z]{2,}[A-Z][A-Za-z]*[a-z](?![A-Za-z])|[A-Za-z]{2,}_[A-Za-z]{2,}|"
    r"(?<!\S)[,;'\"\[\]{}()<>/*|.]{2,}(?!\S)"
)
INNER_CAPITAL: Final = re.compile(b"aA")
MAX_COUNTED: Final = 1_000  # matches of one kind: a thousand say no more than all
MAX_WINDOWS: Final = 1_000  # that are looked at
TOKEN_WINDOW_CHARS: Final = 240
MIN_ODD_TOKENS: Final = 5  # of a window with at most one word that ties (guess)
TIES: Final = frozenset(
    [
        "the",
        "of",
        "and",
        "is",
        "are",
        "to",
        "in",
        "that",
        "for",
        "we",
        "so",
        "it",
        "with",
        "this",
        "a",
        "an",
        "be",
        "by",
        "as",
        "if",
        "then",
        "from",
        "on",
        "at",
        "I",
    ]
)
CYRILLIC: Final = re.compile(r"[\u0400-\u04ff]")
LETTERS: Final = tuple(re.compile(pattern.pattern.removesuffix("{2}")) for pattern in SCRIPTS)
COUNTED: Final = (  # what must occur, the pattern, how many are one too many
    (re.compile(r"[ÂÃâÐÑàïåæçèé]"), MOJIBAKE, 4),
    (re.compile(r"[ĠĊ▁]"), RAW_TOKENS, 5),
    (re.compile(r"[锟烫屯銆锛鐨鍦杩涓]"), READ_AS_GBK, 2),
    (re.compile(STACKED.pattern.removesuffix("{3,}")), STACKED, 2),
    (PRIVATE, PRIVATE, 5),
    (re.compile("ο"), OMICRON, 2),
)


def find_garbled(view: View) -> Finding | None:
    """Return the first kind of wreckage that there is too much of."""
    return next(filter(None, _candidates(view)), None)


def _candidates(view: View) -> Iterator[Finding | None]:
    text, limits = view.text, view.limits
    if b"c" in view.classes:
        yield _too_many(text, CONTROL, limits.max_control_chars + 1)
    if "&amp;" in text:
        yield _too_many(text, ENTITIES, 6)
    if "<0x" in text:
        yield _too_many(text, RAW_TOKENS, 5)
    if view.domain is not Domain.CODE:
        yield _symbol_soup(view)
        yield _token_soup(view)
    if text.isascii():
        return
    yield _too_many(text, REPLACEMENT, limits.max_replacement_chars + 1)
    odd = "".join(view.letters)
    for needed, pattern, least in COUNTED:
        if needed.search(odd):
            yield _too_many(text, pattern, least)
    if max(view.letters) >= "\u0400" and CYRILLIC.search(odd):
        yield _mixed_words(view)
    if sum(pattern.search(odd) is not None for pattern in LETTERS) + 1 >= MIN_SALAD_SCRIPTS:
        yield _salad(view)


def _too_many(text: str, pattern: re.Pattern[str], least: float) -> Finding | None:
    """Return from the first match to the last, where there are ``least`` or more."""
    first = pattern.search(text)
    if first is None:
        return None
    matches = list(islice(pattern.finditer(text, first.start()), MAX_COUNTED))
    if len(matches) < least:
        return None
    return Finding(Reason.GARBLED, first.start(), matches[-1].end(), len(matches), least)


def _mixed_words(view: View) -> Finding | None:
    """Words that mix Latin and Cyrillic letters, which look alike; two of them, or one word that mixes twice."""
    found = [match for match in MIXED_WORD.finditer(view.text)]
    if len(found) < 2 or MIXED_WORD.search(view.problem):
        return None
    odd = [match for match in found if not MIXED_EXCEPT.match(view.text, max(match.start() - 6, 0))]
    return Finding(Reason.GARBLED, odd[0].start(), odd[-1].end(), len(odd), 2) if len(odd) >= 2 else None


def _salad(view: View) -> Finding | None:
    """Many scripts within a few lines."""
    text = view.text
    allowed = sum(pattern.search(view.problem) is not None for pattern in SCRIPTS)
    for match in SALAD_LINE.finditer(text):
        start, window = match.start(), match[0]
        if window.isascii():
            continue
        num_scripts = sum(pattern.search(window) is not None for pattern in SCRIPTS)
        if num_scripts >= max(MIN_SALAD_SCRIPTS, allowed + 2):
            return Finding(Reason.GARBLED, start, start + len(window), num_scripts, MIN_SALAD_SCRIPTS)
    return None


def _token_soup(view: View) -> Finding | None:
    """A sentence of tokens as they stand in programs, without the words that hold a sentence together."""
    if view.classes.count(b"aA") < MIN_ODD_TOKENS - 1:
        return None
    places = [match.start() for match in INNER_CAPITAL.finditer(view.classes)]
    windows = (
        (first, last) for first, last in zip(places, places[3:], strict=False) if last - first <= TOKEN_WINDOW_CHARS
    )
    for first, _ in islice(windows, MAX_WINDOWS):
        start = view.text.rfind("\n", 0, first) + 1
        start = max(start, first - TOKEN_WINDOW_CHARS // 4)
        window = view.text[start : first + TOKEN_WINDOW_CHARS].partition("\n")[0]
        tokens = window.split()
        num_odd = sum(ODD_TOKEN.search(token) is not None and not set("\\$=^`") & set(token) for token in tokens)
        if num_odd >= MIN_ODD_TOKENS and num_odd * 5 >= len(tokens) and len(TIES.intersection(tokens)) <= 1:
            return Finding(Reason.GARBLED, start, start + len(window), num_odd, MIN_ODD_TOKENS)
    return None


def _symbol_soup(view: View) -> Finding | None:
    """A run of many different signs without a letter or a digit between them."""
    if SIGNS not in view.classes.translate(SIGNS_ALONE, b" "):
        return None
    for match in SYMBOLS.finditer(view.text):
        num_distinct = len(set(match[0]) - {" "})
        if num_distinct >= MIN_DISTINCT_SYMBOLS:
            return Finding(Reason.GARBLED, match.start(), match.end(), num_distinct, MIN_DISTINCT_SYMBOLS)
    return None
