"""Units at the end of an answer, and currency signs before it: one name for each spelling.

Part of the mathematics ladder, rung "unit". A missing unit is no mismatch, another unit is. Knows common units only;
converts nothing: 5 km and 5000 m are a mismatch. An unknown unit is left in the text.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

DEGREES: Final = re.compile(r"\^\{?\\circ\}?|\\degree(?![A-Za-z])")
_UNITS: Final = {
    "cm": "cm centimeter centimetre",
    "mm": "mm millimeter millimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "g": "g gram",
    "kg": "kg kilogram",
    "mg": "mg milligram",
    "lb": "lb lbs pound",
    "oz": "oz ounce",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "year yr",
    "l": "l liter litre",
    "ml": "ml milliliter millilitre",
    "mph": "mph mi/h mile/hour miles/hour mileperhour milesperhour",
    "km/h": "km/h kmph km/hr kmperhour kilometersperhour",
    "m/s": "m/s meterspersecond meterpersecond",
    "usd": "dollar usd",
    "cent": "cent ¢",
    "eur": "euro eur €",
    "gbp": "gbp £",
    "unit": "unit",
    "degree": "degree deg",
    "radian": "radian rad",
    "n": "n newton",
    "j": "j joule",
    "w": "w watt",
    "pa": "pa pascal",
    "hz": "hz hertz",
    "ev": "ev",
    "k": "k kelvin",
    "mol": "mol mole",
}
UNITS: Final = {spelling: name for name, spellings in _UNITS.items() for spelling in spellings.split()}
SQUARES: Final = ("square", "sq")
CUBES: Final = ("cubic", "cu")
TEXT_UNIT: Final = re.compile(r"(.*[\d})])\s*\\text\{([^{}]*)\}(?:\^\{?([23])\}?)?", re.DOTALL)
PLAIN_UNIT: Final = re.compile(
    r"([+-]?(?:[\d.,/]+|\\frac\{\d+\}\{\d+\}))\s*([A-Za-z€£¢][A-Za-z/ ]{0,30})(?:\^\{?([23])\}?)?"
)
CURRENCY: Final = re.compile(r"([+-]?)(?:\\\$|\\text\{\\\$\}|\\pounds|\\euro|[€£])(.*)", re.DOTALL)


class Quantity(NamedTuple):
    """A text without its unit, and the unit's name (None where there is none that we know).

    ``is_letter`` marks a unit that may as well be a variable: 5m, 2s.
    """

    body: str
    unit: str | None
    is_letter: bool = False


def split_unit(normal: str) -> Quantity:
    """Return what stands before a known unit or after a currency sign, and the unit."""
    stripped = DEGREES.sub("", normal)
    if stripped != normal and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", normal):
        return Quantity(stripped, "degree")
    if match := CURRENCY.fullmatch(normal):
        sign = "gbp" if "£" in normal or "pounds" in normal else "eur" if "€" in normal or "euro" in normal else "usd"
        inner = split_unit(match[2]) if match[2] else Quantity("", None)
        return Quantity(match[1] + inner.body, sign)
    for pattern in (TEXT_UNIT, PLAIN_UNIT):
        if match := pattern.fullmatch(normal):
            unit = unit_name(match[2], match[3])
            if unit is not None:
                return Quantity(match[1], unit, pattern is PLAIN_UNIT and len(match[2].strip()) == 1)
    return Quantity(normal, None)


def unit_name(text: str, power: str | None = None) -> str | None:
    """Return the one name of a unit in any spelling we know, with its power, or None."""
    base, _, inner_power = text.casefold().replace(".", "").partition("^")
    words = base.split()
    power = power or inner_power.strip("{} ")
    if power not in ("", "2", "3"):
        return None
    if words and words[0] in (*SQUARES, *CUBES):
        power = "2" if words[0] in SQUARES else "3"
        words = words[1:]
    joined = "".join(words)
    name = UNITS.get(joined) or UNITS.get(joined.removesuffix("s"))
    if name is None:
        return None
    return name + power
