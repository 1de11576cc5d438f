"""Rational arithmetic on terms: the value of a constant, exactly, where it is a rational number of bounded size.

Part of the mathematics ladder, under ``surds``, ``values`` and ``sets``. No float, no sympy; the caps in ``limits``
bound the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from flint import fmpq, fmpz

from verifiers.limits import MAX_EXACT_BITS, MAX_FACTORIAL
from verifiers.terms import Term


class UndefinedError(ArithmeticError):
    """The term has no value: a division by zero."""


def exact(term: Term) -> fmpq | None:
    """Return the value of a term that is a rational number of at most ``MAX_EXACT_BITS`` bits, else None.

    Raises:
        UndefinedError: If it divides by zero.
    """
    match term.op:
        case "number":
            return _rational(term.value)
        case "decimal":
            return _rational(term.value.value)
        case "neg":
            inner = exact(term.args[0])
            return None if inner is None else -inner
        case "percent":
            inner = exact(term.args[0])
            return None if inner is None else inner / 100
        case "add" | "mul" | "div" | "pow" | "root" | "factorial" | "double_factorial" | "call" | "ratio":
            values = []
            for arg in term.args:
                value = exact(arg)
                if value is None:
                    return None
                values.append(value)
            return _combined(term, values)
        case _:
            return None


def _rational(value: Fraction) -> fmpq | None:
    found = fmpq(value.numerator, value.denominator)
    return found if found.height_bits() <= MAX_EXACT_BITS else None


def _combined(term: Term, values: list[fmpq]) -> fmpq | None:
    match term.op:
        case "add":
            return _folded(values, lambda left, right: left + right)
        case "mul":
            return _folded(values, lambda left, right: left * right)
        case "div" | "ratio" if len(values) == 2:
            if values[1] == 0:
                raise UndefinedError("division by zero")
            return _capped(values[0] / values[1])
        case "pow":
            return _power(values[0], values[1])
        case "root":
            if values[1].q != 1 or values[1] <= 0:
                return None
            return _root(values[0], int(values[1].p))
        case "factorial":
            return _factorial(values[0], 1)
        case "double_factorial":
            return _factorial(values[0], 2)
        case "call":
            return _called(term.value, values)
        case _:
            return None


def _folded(values: list[fmpq], combine: Callable[[fmpq, fmpq], fmpq]) -> fmpq | None:
    total = values[0]
    for value in values[1:]:
        total = combine(total, value)
        if total.height_bits() > MAX_EXACT_BITS:
            return None
    return total


def _capped(value: fmpq) -> fmpq | None:
    return value if value.height_bits() <= MAX_EXACT_BITS else None


def _power(base: fmpq, exponent: fmpq) -> fmpq | None:
    if exponent.q != 1:
        if exponent.q > 1_000:
            return None
        root = _root(base, int(exponent.q))
        return None if root is None else _power(root, fmpq(exponent.p))
    power = int(exponent.p)
    if base == 0:
        if power < 0:
            raise UndefinedError("a negative power of zero")
        return fmpq(int(power == 0))
    if base in (1, -1):
        return fmpq(1) if base == 1 or power % 2 == 0 else fmpq(-1)
    if base.height_bits() * abs(power) > MAX_EXACT_BITS + 64:
        return None
    return base**power


def _root(value: fmpq, index: int) -> fmpq | None:
    """Return the real root where it is rational."""
    if value < 0 and index % 2 == 0:
        return None
    if index > 1_000:
        return None
    top, bottom = abs(int(value.p)), int(value.q)
    roots = [int(fmpz(part).root(index)) for part in (top, bottom)]
    if roots[0] ** index != top or roots[1] ** index != bottom:
        return None
    return fmpq(roots[0] if value >= 0 else -roots[0], roots[1])


def _factorial(value: fmpq, step: int) -> fmpq | None:
    if value.q != 1 or value < 0 or value > MAX_FACTORIAL:
        return None
    product = fmpz(1)
    for factor in range(int(value.p), 1, -step):
        product *= factor
    return _capped(fmpq(product))


def _called(name: str, values: list[fmpq]) -> fmpq | None:
    whole = [int(value.p) for value in values if value.q == 1]
    match name, len(values):
        case "abs", 1:
            return abs(values[0])
        case "floor", 1:
            return fmpq(values[0].floor())
        case "ceil", 1:
            return fmpq(values[0].ceil())
        case "sgn", 1:
            return fmpq((values[0] > 0) - (values[0] < 0))
        case "mod", 2 if values[1] != 0:
            return values[0] - values[1] * (values[0] / values[1]).floor()
        case "min", _:
            return min(values)
        case "max", _:
            return max(values)
        case "gcd" | "lcm", _ if len(whole) == len(values):
            total = fmpz(whole[0])
            for value in whole[1:]:
                total = total.gcd(value) if name == "gcd" else total.lcm(value)
            return fmpq(abs(int(total)))
        case "binom" | "nCr" | "nPr", 2 if len(whole) == 2 and 0 <= whole[0] <= MAX_FACTORIAL and whole[1] >= 0:
            top, bottom = whole
            chosen = fmpz.bin_uiui(top, bottom) if bottom <= top else fmpz(0)
            if name != "nPr":
                return _capped(fmpq(chosen))
            order = _factorial(fmpq(bottom), 1) if bottom <= top else fmpq(0)
            return None if order is None else _capped(fmpq(chosen) * order)
        case _:
            return None


def exact_or_none(term: Term) -> fmpq | None:
    """Return ``exact``, or None where there is no value."""
    try:
        return exact(term)
    except UndefinedError:
        return None
