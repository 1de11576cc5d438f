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
from verifiers.latin_words import ALPHA, OWN, flags_in, having, tokens_of
from verifiers.view import Cover, Finding, View, code_spans, holds

CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
REPLACEMENT: Final = re.compile("\ufffd")
PRIVATE: Final = re.compile(r"[\ue000-\uf8ff\U000f0000-\U0010fffd]|[\ufdd0-\ufdef\ufffe\uffff]|[\ud800-\udfff]")
# UTF-8 read as Latin-1 or Windows-1252: a lead byte as a letter, then continuation bytes as odd signs.
MOJIBAKE: Final = re.compile(
    r"[ÂÃ][\u0080-\u00bf\u2013-\u203a\u20ac\u0152-\u0192\u02c6\u02dc]|â€[\u0080-\u00bf\u2013-\u203a\u0153\u2122œž™¦¢]?|"
    r"[Ðà-ïåæçèé][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{2}|[ÎÏÐÑØÙÚÛ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
)
# Another encoding read as Latin-1: no language has so many of its letters in a row.
READ_AS_LATIN_1: Final = re.compile(r"[\u00a0-\u00ff]{8,}")
LONG_HIGH: Final = b"h" * 8  # in Latin-1, where the above may stand
HIGH: Final = bytes(ord("h") if code >= 0xA0 else ord(" ") for code in range(256))
MIN_DISTINCT_HIGH: Final = 5  # letters of such a run: a row of dots or bars has one (guess)
# The first two letters of each of the above, as one pattern that goes from letter to letter.
MOJIBAKE_PAIR: Final = re.compile(r"[ÂÃÎÏÐÑØÙÚÛà-ï][\u0080-\u00bf\u2013-\u203a\u20ac\u0152-\u0192\u02c6\u02dc\u2122]")
RAW_TOKENS: Final = re.compile(r"[ĠĊ](?=[A-Za-z0-9ĠĊ\\$(.,])|(?<=[a-z.])[ĠĊ]|▁(?=\w)|<0x[0-9A-F]{2}>")
ENTITIES: Final = re.compile(r"&amp;(?:lt|gt|quot|amp|nbsp|apos|#\d{1,5});|&(?:amp;){2,}")
READ_AS_GBK: Final = re.compile(r"锟斤拷|烫烫|屯屯|[銆锛鐨鍦杩涓]{2}")  # UTF-8 or nothing, read as GBK
READ_AS_SHIFT_JIS: Final = re.compile(r"[縺繧繝]")  # Japanese in UTF-8, read so: letters that nobody writes
HAN_RUN: Final = re.compile(r"[\u3400-\u9fff\ue000-\uf8ff]{6,}")
MIN_DECODED: Final = 4  # letters that a run of Han letters, as GBK, is as UTF-8: no real one has three (guess)
# UTF-8 read as Windows-1251: a lead byte as Р or С, then signs and letters that Russian never has there.
READ_AS_1251: Final = re.compile(
    r"(?:[РСЃЌвЏ][\u00a0-\u00bf\u0402-\u040f\u0451-\u045f\u0490\u0491\u2013-\u203a\u20ac\u2116\u2122]\s?){3,}"
)
# Russian in one encoding read as another one, in which small letters and capitals change places; mRNA is "мРНК".
TURNED_CASE: Final = re.compile(r"(?<![а-яёА-ЯЁ])[а-яё][А-ЯЁ]{4,}(?![а-яё])")
READ_AS_1251_PAIR: Final = re.compile(READ_AS_1251.pattern.removeprefix("(?:").removesuffix(r"\s?){3,}"))
ESCAPES: Final = re.compile(r"(?:\\u[0-9a-fA-F]{4}\s?){6,}")
# Words that nobody can say: five consonants in a row, or four letters without a vowel.
UNSAYABLE: Final = re.compile(rb"c{5,}|(?<![cvx])c{4}(?![cvx])")  # in sounds: c consonant, v vowel, x other
SOUNDS: Final = bytes(
    ord(
        "v"
        if chr(code) in "aeiouy"
        else "c"
        if "a" <= chr(code) <= "z"
        else "x"
        if chr(code) == "?" or chr(code).isalnum()
        else " "
    )
    for code in range(256)
)
DRAWN_OUT: Final = re.compile(r"([a-z])\1\1")  # hmmm, brrr
MIN_UNSAYABLE: Final = 5  # of 16 words in a row (guess)
UNSAYABLE_REACH: Final = 16 * 8  # characters
CIPHER: Final = re.compile(
    r"cipher|cypher|encrypt|decrypt|decode|encode|caesar|anagram|scrambl|rot-?13|letters|string", re.I
)
MIN_RAW_CHARS: Final = 160  # of a row of letters and digits (guess)
MIN_RAW_LINE: Final = 60  # of such a row's lines: encoders break at 64 or 76
RAW_DATA: Final = re.compile(  # an address has other signs
    rf"(?<![^\s\"'`(])[A-Za-z0-9+/_-]{{{MIN_RAW_LINE},}}(?:\n[A-Za-z0-9+/_-]{{{MIN_RAW_LINE},}})*"
)
UNSPACED: Final = bytes(ord(" ") if chr(code) in " \n" else ord("x") for code in range(256))
LONG_UNSPACED: Final = b"x" * MIN_RAW_LINE  # in classes, between spaces: where such a row may stand
MIN_RAW_CAPITALS: Final = 10  # behind a small letter, in the text (guess)
MIN_RAW_SHARE: Final = 20  # at least one in so many is a small letter, a capital and a digit each (guess)
DATA: Final = re.compile(rf"{CIPHER.pattern}|base ?-?64|\bhash|\bkeys?\b|\btokens?\b|\bbytes?\b", re.I)
# Words one after another that no sentence holds together: few of the words that tie, many that link, no sign between.
BARE_RUN: Final = re.compile(r"(?<![A-Za-z])[A-Za-z]{1,20}(?: [A-Za-z][a-z]{0,20}(?![A-Za-z])){23,400}")
BARE: Final = bytes(ord("a") if chr(code) in "aA " else ord(".") for code in range(256))
LONG_BARE: Final = b"a" * 100  # in classes, letters and spaces: where such a row may stand
LINKS: Final = frozenset(
    [
        "because",
        "therefore",
        "although",
        "however",
        "whereas",
        "hence",
        "whereby",
        "unless",
        "upon",
        "beyond",
        "under",
        "within",
        "against",
        "although",
        "since",
        "while",
        "whether",
        "though",
        "until",
        "into",
        "across",
        "among",
        "seldom",
        "almost",
        "thus",
        "besides",
        "despite",
    ]
)
MIN_LINKS: Final = 4  # different ones within BARE_WORDS words (guess)
BARE_WORDS: Final = 40
MAX_TIES: Final = 0.16  # share of the words that tie: half of what prose has at the least (measured on real traces)
LOOSE_WORDS: Final = 64  # tokens of a window
MAX_LOOSE_OWN: Final = 8  # function words in it: with as many it is prose (guess: half of what prose has)
MIN_LOOSE_BARE: Final = 41  # letters and nothing else, in it: nine tenths are words, and a quarter have a sign
STOPS: Final = ".,;:?!"
STACKED: Final = re.compile(r"[\u0300-\u036f\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3,}")
MIXED_WORD: Final = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
OMICRON: Final = re.compile(r"[A-Za-z]ο|ο[A-Za-z]")  # no formula has an omicron: it stands for an o
MIXED_PAIRS: Final = (b"au", b"Au", b"ua", b"uA")  # in classes, where a word may mix
MIXED_EXCEPT: Final = re.compile(r"[\u0400-\u04ff]{3,}[A-Z]\b|\b[A-Z]{1,4}[\u0400-\u04ff]{3,}")  # ABCшный, вектораA
SYMBOLS: Final = re.compile(r"[^\w\s](?: ?[^\w\s]){20,}")
SIGNS: Final = b"s" * 21
SIGNS_IN_A_ROW: Final = re.compile(rb"s(?: ?s){20,}")  # in classes, where the above may stand
WIDE_AS_SIGNS: Final = bytes(ord("s") if chr(code) == "u" else code for code in range(256))
SIGNS_ALONE: Final = re.compile(r"[^\w\s]{21}")  # in a text with signs beyond Latin-1, without its spaces
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
LATIN_SCRIPT: Final = SCRIPTS[0]
SALAD_LINE: Final = re.compile(r"[^\n]+(?:\n[^\n]{1,80}(?![^\n]))?")  # with a short one below it
MIN_SALAD_SCRIPTS: Final = 4  # in one window: no text of one problem has so many (guess)
ODD_TOKEN: Final = re.compile(  # propTypes, Mul_assoc_thrift, ",[", "/**<"
    r"(?<![A-Za-z\\_$])[a-z]{2,}[A-Z][A-Za-z]*[a-z](?![A-Za-z])|[A-Za-z]{2,}_[A-Za-z]{2,}|"
    r"(?<!\S)[,;'\"\[\]{}()<>/*|.]{2,}(?!\S)"
)
INNER_CAPITAL: Final = re.compile(b"aA")
DISCUSSED_AGAIN: Final = 4  # times that a trace may show each replacement character of its problem (guess)
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
CYRILLIC_LINE: Final = re.compile(r"[\u0400-\u04ff][^\n]*")  # from its first letter on
LETTERS: Final = tuple(re.compile(pattern.pattern.removesuffix("{2}")) for pattern in SCRIPTS)
COUNTED: Final = (  # what must occur, the pattern, how many are one too many
    (re.compile(r"[ĠĊ▁]"), RAW_TOKENS, 5),
    (re.compile(r"[锟烫屯銆锛鐨鍦杩涓]"), READ_AS_GBK, 2),
    (READ_AS_SHIFT_JIS, READ_AS_SHIFT_JIS, 3),
    (re.compile(STACKED.pattern.removesuffix("{3,}")), STACKED, 2),
    (PRIVATE, PRIVATE, 5),
    (re.compile("ο"), OMICRON, 2),
)


MOJIBAKE_FIRST: Final = re.compile(r"[ÂÃÎÏÐÑØÙÚÛà-ï]")
READ_AS_GBK_MARKS: Final = re.compile(r"[銆锛鐨鍦杩涓鎶姹鏁鍙鏄鎴绗鍏璁鏈]")


def find_garbled(view: View) -> Finding | None:
    """Return the first kind of wreckage that there is too much of."""
    return next(filter(None, _candidates(view)), None)


def _candidates(view: View) -> Iterator[Finding | None]:
    text, limits = view.text, view.limits
    if b"c" in view.classes:
        yield _too_many(text, CONTROL, limits.max_control_chars + 1)
    if holds(text, "&amp;"):
        yield _too_many(text, ENTITIES, 6)
    if view.has_angles and "<0x" in text:
        yield _too_many(text, RAW_TOKENS, 5)
    if view.domain is not Domain.CODE and holds(text, "\\u") and "\\u" not in view.problem:
        yield _too_many(text, ESCAPES, 1)
    if view.domain is not Domain.CODE:
        yield _symbol_soup(view)
        yield _token_soup(view)
        yield _unsayable(view)
        yield _raw_data(view)
        if view.language == "en":
            yield _bare_words(view)
            yield _loose_words(view)
    if text.isascii():
        return
    discussed = DISCUSSED_AGAIN * view.problem.count("\ufffd")
    yield _too_many(text, REPLACEMENT, limits.max_replacement_chars + 1 + discussed)
    odd = "".join(view.letters)
    if MOJIBAKE_FIRST.search(odd) and MOJIBAKE_PAIR.search(text):
        yield _too_many(text, MOJIBAKE, 4)
    if any("\u00a0" <= letter <= "\u00ff" for letter in view.letters):
        yield _read_as_latin_1(view)
    for needed, pattern, least in COUNTED:
        if needed.search(odd):
            yield _too_many(text, pattern, least)
    if READ_AS_GBK_MARKS.search(odd):
        yield _read_as_gbk(view)
    if max(view.letters) >= "\u0400" and CYRILLIC.search(odd):
        if any(map(view.classes.__contains__, MIXED_PAIRS)):
            yield _mixed_words(view)
        if READ_AS_1251_PAIR.search(text):
            yield _too_many(text, READ_AS_1251, 1)
        if view.language == "ru":
            yield _too_many(text, TURNED_CASE, 1)
    found = [script for script, letter in zip(SCRIPTS, LETTERS, strict=True) if letter.search(odd)]
    if len(found) + 1 >= MIN_SALAD_SCRIPTS:
        yield _salad(view, {LATIN_SCRIPT, *found})


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
    lines = ((max(0, line.start() - 1), line.end()) for line in CYRILLIC_LINE.finditer(view.text))
    found = [match for start, end in lines for match in MIXED_WORD.finditer(view.text, start, end)]
    if len(found) < 2 or MIXED_WORD.search(view.problem):
        return None
    odd = [match for match in found if not MIXED_EXCEPT.match(view.text, max(match.start() - 6, 0))]
    return Finding(Reason.GARBLED, odd[0].start(), odd[-1].end(), len(odd), 2) if len(odd) >= 2 else None


def _read_as_latin_1(view: View) -> Finding | None:
    """Letters and signs of Latin-1 in a row, which are the bytes of another encoding."""
    if LONG_HIGH not in view.text.encode("latin-1", "replace").translate(HIGH):
        return None
    for match in islice(READ_AS_LATIN_1.finditer(view.text), MAX_COUNTED):
        num_distinct = len(set(match[0]))
        is_list = match[0].isalpha() and num_distinct == len(match[0])  # each letter with an accent, once
        if num_distinct >= MIN_DISTINCT_HIGH and not is_list:
            return Finding(Reason.GARBLED, match.start(), match.end(), num_distinct, MIN_DISTINCT_HIGH)
    return None


def _read_as_gbk(view: View) -> Finding | None:
    """Han letters that are other Han letters when their bytes in GBK are read as UTF-8, which no real text is."""
    for match in islice(HAN_RUN.finditer(view.text), MAX_COUNTED):
        again = match[0].encode("gb18030", "ignore").decode("utf-8", "ignore")
        num_letters = sum("\u3000" <= letter <= "\u9fff" or letter >= "\uff00" for letter in again)
        if num_letters >= MIN_DECODED and num_letters * 2 >= len(match[0]):
            return Finding(Reason.GARBLED, match.start(), match.end(), num_letters, MIN_DECODED)
    return None


def _unsayable(view: View) -> Finding | None:
    """Several words that nobody can say within a few words: keys struck at random."""
    sounds = view.text.encode("latin-1", "replace").translate(SOUNDS)
    num_odd = sounds.count(b"ccccc") + sounds.count(b" cccc ")
    if num_odd < MIN_UNSAYABLE or num_odd - view.text.count("sqrt") < MIN_UNSAYABLE or CIPHER.search(view.problem):
        return None
    code = Cover(code_spans(view.text))
    matches = islice(UNSAYABLE.finditer(sounds), MAX_COUNTED)
    found = [match.span() for match in matches if not code.holds(*match.span())]
    found = [(start, end) for start, end in found if not DRAWN_OUT.search(view.text, start, end)]
    for index in range(len(found) - MIN_UNSAYABLE + 1):
        start, end = found[index][0], found[index + MIN_UNSAYABLE - 1][1]
        words = {view.text[first:last] for first, last in found[index : index + MIN_UNSAYABLE]}
        if end - start <= UNSAYABLE_REACH and len(words) == MIN_UNSAYABLE:
            return Finding(Reason.GARBLED, start, end, MIN_UNSAYABLE, MIN_UNSAYABLE)
    return None


def _raw_data(view: View) -> Finding | None:
    """A long row of letters and digits of all kinds, such as bytes in base 64: no word, no number."""
    if view.num_inner_capitals < MIN_RAW_CAPITALS or DATA.search(view.problem):
        return None
    if LONG_UNSPACED not in view.classes.translate(UNSPACED):
        return None
    code = Cover(code_spans(view.text))
    for match in islice(RAW_DATA.finditer(view.text), MAX_COUNTED):
        kinds = view.classes[match.start() : match.end()]
        if len(kinds) < MIN_RAW_CHARS:
            continue
        is_mixed = all(kinds.count(kind) * MIN_RAW_SHARE >= len(kinds) for kind in (b"a", b"A", b"0"))
        if is_mixed and not code.holds(match.start(), match.start()) and match[0] not in view.problem:
            return Finding(Reason.GARBLED, match.start(), match.end(), len(match[0]), MIN_RAW_CHARS)
    return None


def _long_rows(bare: bytes) -> Iterator[tuple[int, int]]:
    """Yield the places of letters and spaces in a row that are long enough."""
    start = bare.find(LONG_BARE)
    while start >= 0:
        end = bare.find(b".", start + len(LONG_BARE))
        end = len(bare) if end < 0 else end
        yield start, end
        start = bare.find(LONG_BARE, end)


def _bare_words(view: View) -> Finding | None:
    """A row of words without any sign between them, of which few tie and many link: word salad."""
    rows = list(_long_rows(view.classes.translate(BARE)))
    rows = [(start, end) for start, end in rows if len(LINKS.intersection(view.text[start:end].split())) >= MIN_LINKS]
    for match in (run for row in rows for run in BARE_RUN.finditer(view.text, *row)):
        words = match[0].lower().split()
        for start in range(0, max(1, len(words) - BARE_WORDS // 2), BARE_WORDS // 2):
            window = words[start : start + BARE_WORDS]
            num_links = len(LINKS.intersection(window))
            num_ties = sum(word in TIES for word in window)
            if num_links >= MIN_LINKS and num_ties <= MAX_TIES * len(window):
                return Finding(Reason.GARBLED, match.start(), match.end(), num_links, MIN_LINKS)
    return None


def _loose_words(view: View) -> Finding | None:
    """Words, now and then with a sign, that few function words hold together: word salad in sentences.

    Prose has far more of them in every window of that size. Words that the problem gives, as for sorting, are no salad.
    """
    for part in (part for part in view.parts if part.language == "en"):
        flags = flags_in(view, part)
        if len(flags) < LOOSE_WORDS:
            continue
        own, bare = flags.translate(having(OWN)), flags.translate(having(ALPHA))
        for first in range(0, len(flags) - LOOSE_WORDS + 1, LOOSE_WORDS // 2):
            if own.count(1, first, first + LOOSE_WORDS) >= MAX_LOOSE_OWN:
                continue
            if bare.count(1, first, first + LOOSE_WORDS) < MIN_LOOSE_BARE:
                continue
            window = tokens_of(view, part).all[first : first + LOOSE_WORDS]
            if not _is_loose(window) or CIPHER.search(view.problem) or _are_given(window, view.problem):
                continue
            start = part.text.find(" ".join(window[:2]))
            place = part.start + max(0, start)
            return Finding(
                Reason.GARBLED,
                place,
                part.start + len(part.text),
                own.count(1, first, first + LOOSE_WORDS),
                MAX_LOOSE_OWN,
            )
    return None


def _is_loose(window: list[str]) -> bool:
    """Return whether tokens are words in small letters, most without a sign behind them, of which many differ."""
    bare = [token.rstrip(STOPS) for token in window]
    num_words = sum(map(str.isalpha, bare))
    num_signs = sum(token[-1] in STOPS for token in window)
    num_small = sum(token[0].islower() for token in window)
    return (
        num_words * 10 >= 9 * len(window)
        and num_signs * 4 <= len(window)
        and num_small * 10 >= 7 * len(window)
        and len(set(bare)) * 3 >= len(window)
    )


def _are_given(window: list[str], problem: str) -> bool:
    given = set(problem.lower().split())
    return sum(token.lower() in given for token in window) * 2 >= len(window)


def _salad(view: View, scripts: set[re.Pattern[str]]) -> Finding | None:
    """Many of the scripts that occur within a few lines."""
    text = view.text
    allowed = sum(pattern.search(view.problem) is not None for pattern in SCRIPTS)
    for match in SALAD_LINE.finditer(text):
        start, window = match.start(), match[0]
        if window.isascii():
            continue
        num_scripts = sum(pattern.search(window) is not None for pattern in scripts)
        if num_scripts >= max(MIN_SALAD_SCRIPTS, allowed + 2):
            return Finding(Reason.GARBLED, start, start + len(window), num_scripts, MIN_SALAD_SCRIPTS)
    return None


def _token_soup(view: View) -> Finding | None:
    """A sentence of tokens as they stand in programs, without the words that hold a sentence together."""
    if view.num_inner_capitals < MIN_ODD_TOKENS - 1:
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
        if len(TIES.intersection(tokens)) > 1:
            continue
        num_odd = sum(ODD_TOKEN.search(token) is not None and not set("\\$=^`") & set(token) for token in tokens)
        if num_odd >= MIN_ODD_TOKENS and num_odd * 5 >= len(tokens):
            return Finding(Reason.GARBLED, start, start + len(window), num_odd, MIN_ODD_TOKENS)
    return None


def _symbol_soup(view: View) -> Finding | None:
    """A run of many different signs without a letter or a digit between them."""
    has_wide_signs = not all(letter.isalnum() or letter <= "\u00ff" for letter in view.letters)
    classes = view.classes.translate(WIDE_AS_SIGNS) if has_wide_signs else view.classes
    if SIGNS not in classes.translate(None, b" "):
        return None
    if has_wide_signs and SIGNS_ALONE.search(view.text.replace(" ", "")) is None:  # they were letters
        return None
    rows = (row.span() for row in SIGNS_IN_A_ROW.finditer(classes))
    for match in (found for row in rows for found in SYMBOLS.finditer(view.text, *row)):
        num_distinct = len(set(match[0]) - {" "})
        if num_distinct >= MIN_DISTINCT_SYMBOLS:
            return Finding(Reason.GARBLED, match.start(), match.end(), num_distinct, MIN_DISTINCT_SYMBOLS)
    return None
