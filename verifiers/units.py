"""Units of measurement: what stands after a number, as an exact factor and dimensions.

Part of the mathematics ladder, used by ``parser`` and ``compare``. A missing unit is no mismatch, another unit is; the
same quantity in another unit (5 km, 5000 m) is the same. Words that are no unit we know (``6 students``) are a label:
compared as a word. Exact; the factors are those of the SI brochure (9th edition) and, for customary units, of the
international yard and pound agreement of 1959.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from verifiers.limits import MAX_LABEL_WORDS
from verifiers.tokens import Token


class Unit(NamedTuple):
    """A unit as a factor on base dimensions, or a label (``label`` is then the words, singular).

    ``is_letter`` marks one that may as well be variables: 5 m, 2 s.
    """

    factor: Fraction
    dimensions: tuple[tuple[str, int], ...]
    label: str | None = None
    is_letter: bool = False


_LENGTH, _MASS, _TIME, _MONEY = "length", "mass", "time", "usd"
_NEWTON: Final = {"mass": 1, "length": 1, "time": -2}
_JOULE: Final = {"mass": 1, "length": 2, "time": -2}
_WATT: Final = {"mass": 1, "length": 2, "time": -3}
_PASCAL: Final = {"mass": 1, "length": -1, "time": -2}

# symbols that take SI prefixes: factor and dimensions
_PREFIXED: Final[dict[str, tuple[Fraction, dict[str, int]]]] = {
    "m": (Fraction(1), {_LENGTH: 1}),
    "g": (Fraction(1, 1000), {_MASS: 1}),
    "s": (Fraction(1), {_TIME: 1}),
    "N": (Fraction(1), _NEWTON),
    "J": (Fraction(1), _JOULE),
    "W": (Fraction(1), _WATT),
    "Pa": (Fraction(1), _PASCAL),
    "Hz": (Fraction(1), {_TIME: -1}),
    "V": (Fraction(1), {**_WATT, "current": -1}),
    "A": (Fraction(1), {"current": 1}),
    "C": (Fraction(1), {"current": 1, _TIME: 1}),
    "F": (Fraction(1), {"mass": -1, "length": -2, "time": 4, "current": 2}),
    "T": (Fraction(1), {"mass": 1, "time": -2, "current": -1}),
    "Wb": (Fraction(1), {"mass": 1, "length": 2, "time": -2, "current": -1}),
    "ohm": (Fraction(1), {"mass": 1, "length": 2, "time": -3, "current": -2}),
    "eV": (Fraction("1.602176634e-19"), _JOULE),
    "cal": (Fraction("4.184"), _JOULE),
    "mol": (Fraction(1), {"amount": 1}),
    "L": (Fraction(1, 1000), {_LENGTH: 3}),
    "l": (Fraction(1, 1000), {_LENGTH: 3}),
    "K": (Fraction(1), {"temperature": 1}),
    "Wh": (Fraction(3600), _JOULE),
}
_PREFIXES: Final = {
    "": 0,
    "f": -15,
    "p": -12,
    "n": -9,
    "u": -6,
    "m": -3,
    "c": -2,
    "d": -1,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
}
_OTHERS: Final[dict[str, tuple[Fraction, dict[str, int]]]] = {
    "min": (Fraction(60), {_TIME: 1}),
    "minute": (Fraction(60), {_TIME: 1}),
    "h": (Fraction(3600), {_TIME: 1}),
    "hr": (Fraction(3600), {_TIME: 1}),
    "hour": (Fraction(3600), {_TIME: 1}),
    "sec": (Fraction(1), {_TIME: 1}),
    "second": (Fraction(1), {_TIME: 1}),
    "day": (Fraction(86_400), {_TIME: 1}),
    "week": (Fraction(604_800), {_TIME: 1}),
    "month": (Fraction(1), {"month": 1}),
    "year": (Fraction(12), {"month": 1}),
    "yr": (Fraction(12), {"month": 1}),
    "in": (Fraction("0.0254"), {_LENGTH: 1}),
    "inch": (Fraction("0.0254"), {_LENGTH: 1}),
    "inche": (Fraction("0.0254"), {_LENGTH: 1}),
    "ft": (Fraction("0.3048"), {_LENGTH: 1}),
    "foot": (Fraction("0.3048"), {_LENGTH: 1}),
    "feet": (Fraction("0.3048"), {_LENGTH: 1}),
    "yd": (Fraction("0.9144"), {_LENGTH: 1}),
    "yard": (Fraction("0.9144"), {_LENGTH: 1}),
    "mi": (Fraction("1609.344"), {_LENGTH: 1}),
    "mile": (Fraction("1609.344"), {_LENGTH: 1}),
    "gm": (Fraction(1, 1000), {_MASS: 1}),
    "lb": (Fraction("0.45359237"), {_MASS: 1}),
    "pound": (Fraction("0.45359237"), {_MASS: 1}),
    "oz": (Fraction("0.028349523125"), {_MASS: 1}),
    "ounce": (Fraction("0.028349523125"), {_MASS: 1}),
    "tonne": (Fraction(1000), {_MASS: 1}),
    "mph": (Fraction("0.44704"), {_LENGTH: 1, _TIME: -1}),
    "kmph": (Fraction(5, 18), {_LENGTH: 1, _TIME: -1}),
    "kph": (Fraction(5, 18), {_LENGTH: 1, _TIME: -1}),
    "acre": (Fraction("4046.8564224"), {_LENGTH: 2}),
    "hectare": (Fraction(10_000), {_LENGTH: 2}),
    "ha": (Fraction(10_000), {_LENGTH: 2}),
    "cc": (Fraction(1, 1_000_000), {_LENGTH: 3}),
    "gallon": (Fraction(1), {"gallon": 1}),
    "gal": (Fraction(1), {"gallon": 1}),
    "quart": (Fraction(1, 4), {"gallon": 1}),
    "pint": (Fraction(1, 8), {"gallon": 1}),
    "cup": (Fraction(1, 16), {"gallon": 1}),
    "atm": (Fraction(101_325), _PASCAL),
    "bar": (Fraction(100_000), _PASCAL),
    "degree": (Fraction(1), {"degree": 1}),
    "deg": (Fraction(1), {"degree": 1}),
    "radian": (Fraction(1), {"radian": 1}),
    "rad": (Fraction(1), {"radian": 1}),
    "celsius": (Fraction(1), {"celsius": 1}),
    "fahrenheit": (Fraction(1), {"fahrenheit": 1}),
    "rpm": (Fraction(1, 60), {_TIME: -1}),
    "usd": (Fraction(1), {_MONEY: 1}),
    "USD": (Fraction(1), {_MONEY: 1}),
    "dollar": (Fraction(1), {_MONEY: 1}),
    "buck": (Fraction(1), {_MONEY: 1}),
    "cent": (Fraction(1, 100), {_MONEY: 1}),
    "penny": (Fraction(1, 100), {_MONEY: 1}),
    "pennie": (Fraction(1, 100), {_MONEY: 1}),
    "¢": (Fraction(1, 100), {_MONEY: 1}),
    "€": (Fraction(1), {"eur": 1}),
    "euro": (Fraction(1), {"eur": 1}),
    "EUR": (Fraction(1), {"eur": 1}),
    "£": (Fraction(1), {"gbp": 1}),
    "GBP": (Fraction(1), {"gbp": 1}),
    "yen": (Fraction(1), {"yen": 1}),
    "rupee": (Fraction(1), {"rupee": 1}),
    "unit": (Fraction(1), {"unit": 1}),
}
_LONG_NAMES: Final = {
    "meter": "m",
    "metre": "m",
    "gram": "g",
    "newton": "N",
    "joule": "J",
    "watt": "W",
    "pascal": "Pa",
    "hertz": "Hz",
    "volt": "V",
    "ampere": "A",
    "amp": "A",
    "coulomb": "C",
    "farad": "F",
    "tesla": "T",
    "weber": "Wb",
    "electronvolt": "eV",
    "calorie": "cal",
    "mole": "mol",
    "liter": "L",
    "litre": "L",
    "kelvin": "K",
}
_LONG_PREFIXES: Final = {
    "": 0,
    "femto": -15,
    "pico": -12,
    "nano": -9,
    "micro": -6,
    "milli": -3,
    "centi": -2,
    "deci": -1,
    "kilo": 3,
    "mega": 6,
    "giga": 9,
}


def _table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    found = dict(_OTHERS)
    for symbol, (factor, dimensions) in _PREFIXED.items():
        for prefix, power in _PREFIXES.items():
            found.setdefault(prefix + symbol, (factor * Fraction(10) ** power, dimensions))
    for name, symbol in _LONG_NAMES.items():
        for prefix, power in _LONG_PREFIXES.items():
            factor, dimensions = _PREFIXED[symbol]
            found[prefix + name] = (factor * Fraction(10) ** power, dimensions)
    return found


UNITS: Final = _table()
LETTER_UNITS: Final = frozenset(name for name in UNITS if len(name) == 1)
TEMPERATURES: Final = {
    "C": Unit(Fraction(1), (("celsius", 1),)),
    "F": Unit(Fraction(1), (("fahrenheit", 1),)),
}
DEGREE: Final = Unit(Fraction(1), (("degree", 1),))
# Words beside a number that say something else than what is counted.
_NO_LABELS: Final = """
    gross tens ones millionth millionths billionth lakh lakhs crore couples fewer south west north east ago
    deficit short scores trillions zeros mod less loss debt lower higher early late away apart remaining extra
    additional other or and to not no if when is are be was were for all any where with between but then than more
    less least most about approximately approx roughly nearly maybe perhaps possibly probably alternatively either
    neither both only mod base modulo choose plus minus times over under above below divided by of does do exist
    real integer number numbers solution solutions undefined infinity none true false yes wait actually correct
    incorrect wrong right answer as an the from except without even odd positive negative root roots arbitrary
    constant i squared cubed doubled tripled halved too many few zero one two three four five six seven eight nine
    ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands
    million millions billion billions trillion dozen dozens half halves third thirds quarter quarters fourth
    fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth
    hundredths thousandth thousandths pair pairs couple score grand kilo mega giga milli micro percent percentage
    factorial power per twice thrice mixed reciprocal inverse opposite absolute value remainder thou factorials
"""
NO_LABELS: Final = frozenset(_NO_LABELS.split())
# The same with these, the digits before them count something else: no unit and no label.
SCALES: Final = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
SPACING: Final = re.compile(r"\\[,;:! ]")
WORD: Final = re.compile(r"\\?[A-Za-z]+|\d+|[€£¢]|\S")


class _NoUnitError(ValueError):
    """The words are no unit that we know."""


def find_unit(name: str) -> tuple[Fraction, dict[str, int]] | None:
    """Return factor and dimensions of a unit's name or symbol, singular or plural, or None."""
    for spelling in (name, name.removesuffix("s"), name.lower(), name.lower().removesuffix("s")):
        if len(spelling) == 1 and spelling != name:
            continue
        if spelling in UNITS:
            return UNITS[spelling]
    return None


def read_unit(tokens: Sequence[Token]) -> Unit | None:
    """Return the unit that all of the tokens name, or the label that they are, or None."""
    words = [word for token in tokens for word in _words_of(token)]
    while words and words[-1] in (".", ",", ";", "!"):
        words.pop()
    if not words:
        return None
    if "".join(words).lower().replace(".", "") in ("am", "pm"):
        return _label(words)
    if [word.lower() for word in words[:1]] in (["degree"], ["degrees"]) and len(words) == 2:
        return _label(words)
    try:
        return _Reader(words).read()
    except _NoUnitError:
        return _label(words)


def _words_of(token: Token) -> list[str]:
    match token.kind:
        case "text":
            plain = SPACING.sub(" ", token.text)
            return [word.lstrip("\\") for word in WORD.findall(plain) if word != "\\" and word not in "{}()"]
        case "symbol" if token.text in ("\\Omega", "Omega"):
            return ["ohm"]
        case "symbol" if token.text == "mu":
            return ["mu"]
        case _:
            return [token.text]


def _label(words: list[str]) -> Unit | None:
    lowered = [word.lower() for word in words]
    if lowered in (["degree", "celsius"], ["degrees", "celsius"]):
        return TEMPERATURES["C"]
    if lowered in (["degree", "fahrenheit"], ["degrees", "fahrenheit"]):
        return TEMPERATURES["F"]
    if "".join(lowered).replace(".", "") in ("am", "pm"):
        return Unit(Fraction(1), (), label="".join(lowered).replace(".", ""))
    if len(words) > MAX_LABEL_WORDS or not all(word.isalpha() and word not in NO_LABELS for word in lowered):
        return None
    if any(len(word) < 2 for word in lowered) or not any(len(word) > 2 for word in lowered) or lowered[-1] in SCALES:
        return None
    return Unit(Fraction(1), (), label=" ".join(singular(word) for word in lowered))


def singular(word: str) -> str:
    """Return a word without the ending of the plural, roughly: only to compare labels."""
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("sses", "ss"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


class _Reader:
    """Reads factors of a unit: names with powers, joined by products, fractions and "per"."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.position = words, 0
        self.factor, self.dimensions = Fraction(1), Counter[str]()
        self.names: list[str] = []

    def read(self) -> Unit:
        sign = 1
        self._name(sign)
        while self.position < len(self.words):
            word = self.words[self.position]
            if word in ("/", "per", "an", "a") and self.position + 1 < len(self.words):
                sign, self.position = -1, self.position + 1
            elif word in ("*", "-", "."):
                sign, self.position = (sign if word == "*" else 1), self.position + 1
            elif word in ("(", ")"):
                self.position += 1
                continue
            self._name(sign)
        dimensions = tuple(sorted((name, power) for name, power in self.dimensions.items() if power))
        is_letter = all(name in LETTER_UNITS for name in self.names)
        return Unit(self.factor, dimensions, is_letter=is_letter)

    def _next(self) -> str:
        if self.position >= len(self.words):
            raise _NoUnitError
        self.position += 1
        return self.words[self.position - 1]

    def _name(self, sign: int) -> None:
        word, power = self._next(), 1
        while word == "(":
            word = self._next()
        if word.lower() in ("square", "sq", "cubic", "cu"):
            power, word = (2 if word.lower().startswith("sq") else 3), self._next()
            if word == ".":
                word = self._next()
        if word == "mu" and self.position < len(self.words):
            word = "u" + self._next()
        found = find_unit(word)
        if found is None:
            raise _NoUnitError
        self.names.append(word)
        power *= self._power()
        self.factor *= found[0] ** (sign * power)
        for name, count in found[1].items():
            self.dimensions[name] += sign * power * count

    def _power(self) -> int:
        following = self.words[self.position : self.position + 4]
        if following[:1] in (["squared"], ["cubed"]):
            self.position += 1
            return 2 if following[0] == "squared" else 3
        if following[:1] != ["^"]:
            return 1
        self.position += 1
        digits = ""
        while self.position < len(self.words) and (self.words[self.position] in "{}()-" or not digits.strip("-")):
            word = self._next()
            digits += "" if word in "{}()" else word
        try:
            power = int(digits)
        except ValueError as error:
            raise _NoUnitError from error
        if not -6 <= power <= 6:
            raise _NoUnitError
        return power
