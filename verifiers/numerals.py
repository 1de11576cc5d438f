"""Numbers and words of an answer's text: what a token of digits is worth, and where a word of letters comes apart.

Under ``parser``. Exact; bounded by ``MAX_LITERAL_DIGITS`` and ``MAX_NUMBER_EXPONENT``. Looks at one token at a time.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from verifiers.limits import MAX_LITERAL_DIGITS, MAX_NUMBER_EXPONENT
from verifiers.notation import CONSTANT_NAMES, FUNCTION_NAMES, GREEK, GREEK_SYNONYMS
from verifiers.terms import Based, Decimal, NotParsedError, Term, TooBigError, number
from verifiers.tokens import Token
from verifiers.words import is_product

BASE_WORDS: Final = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
BASE_WORDS_MORE: Final = {"ten": 10, "eleven": 11, "twelve": 12, "sixteen": 16}
DIGITS: Final = frozenset("0123456789abcdefghijklmnopqrstuvwxyz.")


def read_number(text: str) -> Term:
    """Return the term of a number token: digits, perhaps a point, an exponent, or a repeating block in brackets."""
    if "." in text and len(text) > MAX_LITERAL_DIGITS and "e" not in text.lower():
        text = text.rstrip("0")
    if len(text) > MAX_LITERAL_DIGITS:
        raise TooBigError(f"{len(text)} digits, allowed are {MAX_LITERAL_DIGITS}")
    if text.isdecimal():
        return Term("number", (), Fraction(int(text)))
    if text.endswith(")"):
        plain, _, block = text[:-1].partition("(")
        decimals = plain.partition(".")[2]
        repeating = Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(decimals))
        return number(Fraction(plain if plain not in ("", ".") else "0") + repeating)
    mantissa, _, exponent = text.lower().partition("e")
    if exponent:
        if abs(int(exponent)) > MAX_NUMBER_EXPONENT:
            raise TooBigError(f"exponent {exponent}, allowed are {MAX_NUMBER_EXPONENT}")
        return number(Fraction(mantissa) * Fraction(10) ** int(exponent))
    decimals = mantissa.partition(".")[2]
    digits = mantissa.replace(".", "").lstrip("0")
    return Term("decimal", (), Decimal(Fraction(mantissa), len(decimals), len(digits)))


def read_base(script: str) -> int | None:
    script = script.strip("()").lower().removeprefix("base").strip()
    if script.isdecimal() and len(script) <= 2:
        return int(script) if 2 <= int(script) <= 36 else None
    return BASE_WORDS.get(script) or BASE_WORDS_MORE.get(script)


def based_number(digits: str, base: int) -> Term:
    digits = digits.lstrip("0").lower() or "0"
    if not set(digits) <= DIGITS or any(int(digit, 36) >= base for digit in digits if digit != "."):
        raise NotParsedError(f"digits that base {base} has not")
    return Term("based", (), Based(digits, base))


def split_word(word: str) -> list[Token] | None:
    """Return the pieces of a word of plain text, or None where it is one name: radius."""
    if len(word) == 1:
        return [Token("word", word)]
    if word in FUNCTION_NAMES:
        return [Token("function", FUNCTION_NAMES[word])]
    if word in CONSTANT_NAMES and len(word) > 1:
        return [Token("constant", CONSTANT_NAMES[word])]
    if word in GREEK:
        return [Token("symbol", GREEK_SYNONYMS.get(word, word))]
    for length in (7, 6, 5, 4, 3, 2):
        for start in (0, 1, 2):
            name = word[start : start + length]
            if len(name) == length and name in FUNCTION_NAMES and len(word) - length <= 2:
                letters = [Token("word", letter) for letter in word[:start]]
                behind = split_word(word[start + length :]) if word[start + length :] else []
                return [*letters, Token("function", FUNCTION_NAMES[name]), *(behind or [])]
    if len(word) <= 4 and (word.startswith("pi") or word.endswith("pi")):
        rest = word.removeprefix("pi") if word.startswith("pi") else word.removesuffix("pi")
        return [Token("constant", "pi"), *(Token("word", letter) for letter in rest)]
    if len(word) <= 3 or is_product(word):
        return [Token("word", letter) for letter in word]
    return None
