"""The canonical form of a text: words and numbers as 64-bit hashes, whatever its spacing, notation and LaTeX style.

What `decontaminate` compares. Invariants: any text has one; hashes are the same in every process and on every platform.
Operators and punctuation are not part of it, so `a + b` and `a - b` are the same words: `duplicates`, which throws
problems away for being one, looks at operators too.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

CANONICAL_VERSION: Final = 1  # raised when a text would give other hashes: fingerprints of another are refused
MAX_CACHED_WORDS: Final = 1 << 20  # about 100 MB; the words of ordinary corpora fit
SEED: Final = 0
NUMBER_BIT: Final = 1  # the lowest bit of a word's hash says whether it is a number

_DIGIT_WORDS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS: Final = "thirty forty fifty sixty seventy eighty ninety"
_SPELLED: Final = (
    {word: str(value) for value, word in enumerate(_DIGIT_WORDS.split())}
    | {word: str(10 * value) for value, word in enumerate(_TENS.split(), 3)}
    | {"hundred": "100", "thousand": "1000", "million": "1000000"}
)

# LaTeX commands that say how something looks, or that ordinary notation writes without a word.
_STYLE_COMMANDS: Final = (
    "left right big bigl bigr bigg biggl biggr middle frac dfrac tfrac cfrac text textbf textit textrm texttt textsc "
    "mathrm mathbf mathit mathsf mathbb mathcal mathfrak operatorname mbox hbox displaystyle textstyle limits nolimits "
    "cdot times ast quad qquad hspace vspace hfill ldots dots cdots dotsc dotsb dotsm vdots ddots overline underline "
    "vec hat bar boldsymbol bf it rm sf tt em emph boxed begin end hline nonumber label tag phantom hphantom vphantom "
    "noindent smallskip medskip bigskip newline par thinspace lvert rvert lbrace rbrace lfloor rfloor lceil rceil mid "
    "vert percent"
)
_STYLE: Final = frozenset(_STYLE_COMMANDS.split())
_RENAMED: Final = {
    **{"leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "dbinom": "binom", "tbinom": "binom"},
    **{"circ": "degrees", "degree": "degrees", "rightarrow": "to", "longrightarrow": "to", "varphi": "phi"},
    **{"choose": "binom", "varepsilon": "epsilon", "div": "", "pm": "", "mp": "", "colon": "", "mod": "mod"},
    **{"pmod": "mod", "bmod": "mod", "iff": "", "implies": "", "lt": "", "gt": "", "land": "and", "lor": "or"},
}
_PLAIN_RENAMED: Final = {"degree": "degrees", "deg": "degrees", "percent": "", **_SPELLED}
_GREEK: Final = "αβγδεζηθικλμνξρστυφχψωϕς"
_GREEK_NAMES: Final = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "phi sigma"
)
_SIGNS: Final = str.maketrans(
    {
        **{"≤": " le ", "≥": " ge ", "≠": " ne ", "π": " pi ", "√": " sqrt ", "∞": " infty ", "∑": " sum "},
        **{"∫": " int ", "∈": " in ", "∪": " cup ", "∩": " cap ", "⊂": " subset ", "⊆": " subseteq ", "∠": " angle "},
        **{"△": " triangle ", "°": " degrees ", "→": " to ", "⊥": " perp ", "∥": " parallel ", "∏": " prod "},
        **{sign: f" {name} " for sign, name in zip(_GREEK, _GREEK_NAMES.split(), strict=True)},
        **{"’": "'", "‘": "'", "“": '"', "”": '"', "−": "-", "–": "-", "—": " "},
    }
)

_FIGURE: Final = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_THOUSANDS: Final = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!|,\\!|\\ |\{,\}\\!|_)(?=\d{3}(?!\d))")
_BARE_FRACTION: Final = re.compile(r"\\[dtc]?frac\s*(\d)\s*(?=\d|\{|\\)")
_RAISED: Final = re.compile(r"[\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]+|[\u00bc-\u00be\u2150-\u215e]")
_ENVIRONMENT: Final = re.compile(r"\\(?:begin|end)\s*\{[^{}]{0,40}\}")
_POSSESSIVE: Final = re.compile(r"(?<=[a-z])'(?:s\b|(?=[a-z]))|(?<=s)'(?=\s)")
_END: Final = "\n"
_WORD: Final = re.compile(r"\\?[^\W\d_]+|\d*\.\d+|\d+|[.?!:](?=\s|$|\$)|\n")
_NAME: Final = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}(?![\w\\])")
_ANY_NAME: Final = np.uint64(2)  # no word's hash


class Canonical(NamedTuple):
    """A text's words and numbers in order; the same with one word for every name; and where sentences end (positions
    among the words, ascending)."""

    words: Hashes
    nameless: Hashes
    ends: tuple[int, ...]


def canonical(text: str) -> Canonical:
    """Return the canonical form of any text, without the code of its figures."""
    return _read(_FIGURE.sub(" ", text) if "[asy]" in text else text)


def with_figures(text: str) -> Canonical | None:
    """Return the canonical form with the code of figures; None if there is none."""
    return _read(text) if "[asy]" in text else None


def canonical_words(text: str) -> list[str]:
    """Return the canonical words of a text, for people and tests; ``canonical`` has their hashes."""
    return [word for token in _WORD.findall(_plain(text)) for word in _canonical_token(token)[0].split()]


def is_number(words: Hashes) -> npt.NDArray[np.bool_]:
    """Return which words are numbers."""
    return (words & np.uint64(NUMBER_BIT)).astype(bool)


def _read(text: str) -> Canonical:
    hashes: list[int] = []
    ends: list[int] = []
    for token in _WORD.findall(_plain(text)):
        found = _cache.get(token)
        if found is None:
            found = _remember(token)
        if found:
            hashes.append(found)
        elif found == 0 and hashes and (not ends or ends[-1] != len(hashes)) and token in _STOPS:
            ends.append(len(hashes))
    words = np.array(hashes, np.uint64)
    return Canonical(words, _without_names(text, words), tuple(ends))


def _without_names(text: str, words: Hashes) -> Hashes:
    """Return the words with one and the same in place of single letters, and of those that stand with a capital inside
    a sentence."""
    names = set(_NAME.findall(text))
    hashes = np.array([_cache.get(name.lower()) or _remember(name.lower()) for name in names], np.uint64)
    return np.where(np.isin(words, np.concatenate((_LETTERS, hashes))), _ANY_NAME, words)


_STOPS: Final = frozenset(".?!:\n")
_cache: dict[str, int] = {}


def _remember(token: str) -> int:
    """Return the hash of a token, 0 for one that is no word."""
    word, is_a_number = _canonical_token(token)
    value = 0
    if word:
        value = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"), SEED) | 2  # never 0
        value = value | 1 if is_a_number else value & ~1
    if len(_cache) >= MAX_CACHED_WORDS:
        _cache.clear()
    _cache[token] = value
    return value


def _canonical_token(token: str) -> tuple[str, bool]:
    """Return a token's word, empty if it has none, and whether it is a number."""
    first = token[0]
    if first == "\\":
        name = token[1:]
        word = "" if name in _STYLE else _RENAMED.get(name, name)
        word = _PLAIN_RENAMED.get(word, word)
        return word, word.isdigit()
    if first.isdigit() or (first == "." and len(token) > 1):
        return _number(token), True
    if token in _STOPS:
        return "", False
    word = _PLAIN_RENAMED.get(token, token)
    return word, word.isdigit()


def _number(token: str) -> str:
    whole, _, rest = token.partition(".")
    rest = rest.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{rest}" if rest else whole


def _plain(text: str) -> str:
    """Return the text in lower case with one spelling for each sign, number and fraction."""
    if not text.isascii():
        text = _RAISED.sub(lambda found: f" {found[0]} ", text)  # 2² is no 22
        text = unicodedata.normalize("NFKC", text).lower().translate(_SIGNS)
        text = unicodedata.normalize("NFKC", text)  # lower case may have undone it
    else:
        text = text.lower()
    if "," in text or "\\" in text or "_" in text:
        text = _THOUSANDS.sub("", text)
    if "\\" in text:
        if "frac" in text:
            text = _BARE_FRACTION.sub(r" \1 ", text)
        text = _ENVIRONMENT.sub(" ", text)
    if "'" in text:
        text = _POSSESSIVE.sub("", text)
    return _SPELLED_NUMBER.sub(_digits_of, text)


_NUMBER_WORD: Final = "|".join(sorted(_SPELLED, key=len, reverse=True))
_SPELLED_NUMBER: Final = re.compile(rf"\b(?:{_NUMBER_WORD})(?:[-\s]+(?:and\s+)?(?:{_NUMBER_WORD}))+\b")


def _digits_of(found: re.Match[str]) -> str:
    """Return a number that is spelled in several words as digits; words that make none as they are."""
    total = group = 0
    last = 10**9  # a number goes from large to small: 'two three' is two numbers
    for word in re.split(r"[-\s]+", found[0]):
        value = int(_SPELLED.get(word, "0"))
        if word == "and":
            continue
        if value >= 1000 and 0 < group < 1000:
            total, group, last = total + group * value, 0, value
        elif value == 100 and 0 < group < 100:
            group, last = group * 100, 100
        elif 0 < value < last and not (10 <= value < 20 and last < 100) and not (value < 10 and 10 <= last < 20):
            group, last = group + value, value
        else:
            return found[0]
    return str(total + group)


_LETTERS: Final = np.array([_remember(letter) for letter in "abcdefghijklmnopqrstuvwxyz"], np.uint64)
