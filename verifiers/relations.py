"""Equations and inequalities of two sides: the same where what is zero, or less than zero, is in proportion.

Part of ``compare``, for relations whose sides are not the same one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas.verdict import Reason
from verifiers.balls import NotScalarError
from verifiers.terms import Term, is_label, negated, number, symbols
from verifiers.values import constant_ratio

FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class UndecidedError(Exception):
    """Neither equal nor different could be shown."""


def is_solved(sides: Sequence[Term]) -> bool:
    """Return whether a relation has a name on one side, perhaps with a factor, and a constant on the other."""
    for one, other in (sides, sides[::-1]):
        factors = one.args if one.op in ("mul", "neg") else (one,)
        if not symbols(other) and is_label(factors[-1]) and not symbols(*factors[:-1]):
            return True
    return False


def directed(term: Term) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Return sides and signs of a relation from small to large: 3 > x as x < 3."""
    if term.value[0] in (">", ">="):
        return term.args[::-1], tuple(FLIPPED.get(sign, sign) for sign in reversed(term.value))
    return term.args, term.value


def _less(sides: Sequence[Term]) -> Term:
    return Term("add", (sides[0], negated(sides[1])))


def compare_equations(mine: Sequence[Term], theirs: Sequence[Term]) -> Reason | None:
    """Equations are the same where what is zero in one is a multiple of what is zero in the other.

    Raises:
        UndecidedError: If neither the same nor different can be shown.
    """
    left, right = _less(mine), _less(theirs)
    if set(symbols(left)) != set(symbols(right)) or not symbols(left):
        return Reason.VALUE_DIFFERS
    try:
        ratios = [constant_ratio(left, right)]
        if ratios == [0]:
            ratios = [constant_ratio(_numerator(left), _numerator(right))]
    except NotScalarError:
        return Reason.TYPE_MISMATCH
    if ratios[0] is None:
        raise UndecidedError
    return None if ratios[0] else Reason.POINT_DIFFERS


def _numerator(term: Term) -> Term:
    return _fraction(term)[0]


def _fraction(term: Term) -> tuple[Term, Term]:
    """Return numerator and denominator of a sum or product of fractions; of anything else itself and one."""
    one = number(1)
    match term.op:
        case "add":
            top, bottom = _fraction(term.args[0])
            for arg in term.args[1:]:
                other_top, other_bottom = _fraction(arg)
                if other_bottom == one and bottom == one:
                    top = Term("add", (top, other_top))
                else:
                    top = Term("add", (Term("mul", (top, other_bottom)), Term("mul", (other_top, bottom))))
                    bottom = Term("mul", (bottom, other_bottom))
            return top, bottom
        case "neg":
            top, bottom = _fraction(term.args[0])
            return negated(top), bottom
        case "mul":
            parts = [_fraction(arg) for arg in term.args]
            return Term("mul", tuple(top for top, _ in parts)), Term("mul", tuple(bottom for _, bottom in parts))
        case "div":
            (top, bottom), (other_top, other_bottom) = _fraction(term.args[0]), _fraction(term.args[1])
            if not symbols(term.args[1]):
                return term, one
            return Term("mul", (top, other_bottom)), Term("mul", (bottom, other_top))
        case _:
            return term, one


def compare_inequalities(mine: Sequence[Term], my_sign: str, theirs: Sequence[Term], their_sign: str) -> Reason | None:
    """Inequalities are the same where what is less than zero in one is a multiple of that in the other.

    A negative multiple turns the sign.

    Raises:
        UndecidedError: If neither the same nor different can be shown.
    """
    left, right = _less(mine), _less(theirs)
    if set(symbols(left)) != set(symbols(right)) or not symbols(left):
        return Reason.VALUE_DIFFERS
    if (my_sign in ("<", ">")) != (their_sign in ("<", ">")):
        return Reason.BRACKET_DIFFERS
    try:
        ratio = constant_ratio(left, right)
    except NotScalarError:
        return Reason.TYPE_MISMATCH
    if ratio is None:
        raise UndecidedError
    if ratio == 0:
        return Reason.POINT_DIFFERS
    is_flipped = (my_sign in ("<", "<=")) != (their_sign in ("<", "<="))
    return None if (ratio < 0) == is_flipped else Reason.POINT_DIFFERS
