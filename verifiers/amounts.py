"""Numbers with units as one side of a comparison needs them: sums of amounts, letters that are units or variables.

Part of ``compare``: reads terms and units, and returns terms.
"""

from __future__ import annotations

from fractions import Fraction

from verifiers.rationals import exact_or_none
from verifiers.terms import COLLECTIONS, Term, number, symbols
from verifiers.units import LETTER_UNITS, UNITS, Unit


def summed_up(term: Term, other: Term) -> Term:
    """Return 1 hour and 15 minutes as one amount, beside one; 7 (mod 11) as 7 beside a number."""
    if term.op == "apply" and term.value == "mod" and other.op == "number":
        modulus = exact_or_none(term.args[1])
        if modulus is not None and 0 <= other.value < Fraction(int(modulus.p), int(modulus.q)):
            return term.args[0]  # 7 (mod 11) beside 7
    if term.op != "items" or term.value or other.op in COLLECTIONS or other.op == "relation":
        return term
    if any(arg.op != "quantity" for arg in term.args) or len({arg.value.dimensions for arg in term.args}) != 1:
        return term
    factors = [arg.value.factor for arg in term.args]
    if factors != sorted(set(factors), reverse=True):
        return term
    parts = tuple(Term("mul", (arg.args[0], number(arg.value.factor / factors[0]))) for arg in term.args)
    return Term("quantity", (Term("add", parts),), term.args[0].value)


def as_quantity(term: Term, other: Term) -> Term:
    """Return 5m as five metres beside a quantity; as it is where its letters are none of a unit."""
    if term.op == "quantity" or other.op != "quantity" or other.value.label is not None:
        return term
    parts = list(term.args) if term.op in ("mul", "div") else []
    if term.op == "mul" and all(arg.op == "symbol" and arg.value in LETTER_UNITS for arg in parts[1:]):
        unit = Unit(Fraction(1), ())
        for part in parts[1:]:
            unit = _times(unit, _letter_unit(part.value), 1)
        return Term("quantity", (parts[0],), unit)
    if term.op == "div" and parts[1].op == "symbol" and parts[1].value in LETTER_UNITS:
        top = as_quantity(parts[0], other)
        if top.op == "quantity":
            return Term("quantity", top.args, _times(top.value, _letter_unit(parts[1].value), -1))
    return term


def _letter_unit(name: str) -> Unit:
    factor, dimensions = UNITS[name]
    return Unit(factor, tuple(sorted(dimensions.items())), is_letter=True)


def _times(left: Unit, right: Unit, sign: int) -> Unit:
    powers = dict(left.dimensions)
    for name, power in right.dimensions:
        powers[name] = powers.get(name, 0) + sign * power
    dimensions = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(left.factor * right.factor**sign, dimensions, is_letter=True)


def as_product(term: Term, other: Term) -> Term:
    """Return 5 m as the product 5 * m beside a term with that variable."""
    if term.op != "quantity" or not term.value.is_letter or other.op == "quantity":
        return term
    names = symbols(other)
    letters = [name for name, _ in _letters_of(term.value)]
    if not letters or not set(letters) <= set(names):
        return term
    factors = [Term("pow", (Term("symbol", (), name), number(power))) for name, power in _letters_of(term.value)]
    return Term("mul", (term.args[0], *factors))


def _letters_of(unit: Unit) -> list[tuple[str, int]]:
    """Return the one letter that stands for a unit, where it is so simple: only then can it have been a variable."""
    for name in sorted(LETTER_UNITS):
        factor, dimensions = UNITS[name]
        if (factor, tuple(sorted(dimensions.items()))) == (unit.factor, unit.dimensions):
            return [(name, 1)]
    return []


def says_less(unit: Unit, other: Unit) -> bool:
    """Return whether a unit is the nameless one of geometry ("square units") and the other a length to that power."""
    if [name for name, _ in unit.dimensions] != ["unit"] or other.label is not None:
        return False
    return other.dimensions in ((("length", unit.dimensions[0][1]),), ())


def is_same_label(left: str, right: str) -> bool:
    """Return whether one label only says more of the same thing: apples, red apples, apples in the basket."""
    short, long = sorted((left.split(), right.split()), key=len)
    return len(short) == 1 and (short[0] == long[-1] or (short[0] == long[0] and long[1:2] in (["of"], ["in"])))
