"""Exact arithmetic on constants made of rationals, square roots, pi and the imaginary unit.

Part of the mathematics ladder, between rational arithmetic and balls. A value is a sum of distinct monomials
q * sqrt(n) * pi^k * i^m with n free of squares, k whole and m in {0, 1}; they are linearly independent over the
rationals (square roots: Besicovitch 1940, doi:10.1112/jlms/s1-15.1.3; pi is transcendental), so two sums are the same
number exactly where they are the same sum. Anything else is None, and goes to balls.
"""

from __future__ import annotations

from typing import Final

from flint import fmpq

from verifiers.limits import MAX_SURD_RADICAND, MAX_SURD_TERMS
from verifiers.plain import square_part
from verifiers.rationals import UndefinedError, exact
from verifiers.terms import Term

Key = tuple[int, int, int]  # radicand, power of pi, power of i
Surd = dict[Key, fmpq]

ONE: Final[Key] = (1, 0, 0)


def surd(term: Term) -> Surd | None:
    """Return the sum that a term is, without zero entries, or None where it is none that we keep exactly.

    Raises:
        UndefinedError: If it divides by zero.
    """
    value = exact(term)
    if value is not None:
        return {ONE: value} if value != 0 else {}
    match term.op:
        case "constant" if term.value in ("pi", "i"):
            return {(1, 1, 0) if term.value == "pi" else (1, 0, 1): fmpq(1)}
        case "neg":
            inner = surd(term.args[0])
            return None if inner is None else {key: -factor for key, factor in inner.items()}
        case "percent":
            inner = surd(term.args[0])
            return None if inner is None else {key: factor / 100 for key, factor in inner.items()}
        case "add":
            return _added(term)
        case "mul":
            total: Surd | None = {ONE: fmpq(1)}
            for arg in term.args:
                total = _multiplied(total, surd(arg))
            return total
        case "div":
            return _multiplied(surd(term.args[0]), _inverse(surd(term.args[1])))
        case "root":
            return _root(term)
        case "pow":
            return _power(term)
        case _:
            return None


def _added(term: Term) -> Surd | None:
    total: Surd = {}
    for arg in term.args:
        part = surd(arg)
        if part is None:
            return None
        for key, factor in part.items():
            total[key] = total.get(key, fmpq(0)) + factor
    return _kept(total)


def _kept(total: Surd) -> Surd | None:
    total = {key: factor for key, factor in total.items() if factor != 0}
    return total if len(total) <= MAX_SURD_TERMS else None


def _multiplied(left: Surd | None, right: Surd | None) -> Surd | None:
    if left is None or right is None or len(left) * len(right) > 4 * MAX_SURD_TERMS:
        return None
    total: Surd = {}
    for (first, first_pi, first_i), factor in left.items():
        for (second, second_pi, second_i), other in right.items():
            if first * second > MAX_SURD_RADICAND:
                return None
            outer, inner = square_part(first * second)
            sign = -1 if first_i and second_i else 1
            key = (inner, first_pi + second_pi, (first_i + second_i) % 2)
            total[key] = total.get(key, fmpq(0)) + factor * other * outer * sign
    return _kept(total)


def _inverse(value: Surd | None) -> Surd | None:
    """Return 1 / value for a single monomial, and for a + b sqrt(n) or a + b i by their conjugate."""
    if value is None:
        return None
    if not value:
        raise UndefinedError("division by zero")
    if len(value) == 1:
        ((radicand, num_pi, num_i), factor) = next(iter(value.items()))
        return {(radicand, -num_pi, num_i): (-1 if num_i else 1) / (factor * radicand)}
    if len(value) != 2:
        return None
    (key, factor), other = value.items()
    conjugate: Surd = {key: factor, other[0]: -other[1]}
    norm = _multiplied(value, conjugate)
    return _multiplied(conjugate, _inverse(norm)) if norm is not None and len(norm) == 1 else None


def _root(term: Term) -> Surd | None:
    index, radicand = exact(term.args[1]), exact(term.args[0])
    if index != 2 or radicand is None:
        return None
    product = abs(int(radicand.p)) * int(radicand.q)
    if product > MAX_SURD_RADICAND:
        return None
    outer, inner = square_part(product)
    return {(inner, 0, int(radicand < 0)): fmpq(outer, int(radicand.q))}


def _power(term: Term) -> Surd | None:
    power = exact(term.args[1])
    if power == fmpq(1, 2):
        return _root(term._replace(args=(term.args[0], Term("number", (), 2))))
    if power is None or power.q != 1 or abs(power) > MAX_SURD_TERMS:
        return None
    base = surd(term.args[0])
    if power < 0:
        base = _inverse(base)
    total: Surd | None = {ONE: fmpq(1)}
    for _ in range(abs(int(power.p))):
        total = _multiplied(total, base)
    return total
