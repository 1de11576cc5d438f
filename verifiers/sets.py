"""Sets of real numbers: intervals, unions, complements, solution sets of inequalities, compared as sets.

Part of the mathematics ladder. Relations are read where they are solved (x < 3, |x| < 3); nothing is solved here: that
2x + 1 < 7 is no answer to itself. A set is kept as what it was built from; two are the same if they hold the same of
the cells that all their end points cut the line into. Exact as far as ``values`` orders the end points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Final

from verifiers.balls import NotScalarError, infinite_sign, precision, real_ball
from verifiers.limits import MAX_SET_PARTS
from verifiers.rationals import exact_or_none
from verifiers.terms import Term, is_label, negated, number, symbols
from verifiers.values import HIGH_BITS, LOW_BITS, same_value

INFINITY: Final = Term("constant", (), "infinity")
MINUS_INFINITY: Final = Term("neg", (INFINITY,))
FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class NoSetError(ValueError):
    """The term is no set of real numbers that we know how to build."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers between two ends; a point where both are the same and belong to it."""

    low: Term
    high: Term
    has_low: bool
    has_high: bool


@dataclass(frozen=True, slots=True)
class Combined:
    """Two sets joined by "or", "and" or "but not"."""

    left: RealSet
    right: RealSet
    op: str


RealSet = Interval | Combined

WHOLE: Final = Interval(MINUS_INFINITY, INFINITY, False, False)
EMPTY: Final = Interval(number(0), number(0), False, False)


@dataclass(frozen=True, slots=True)
class Solution:
    """A set, and the name of the variable that is in it where one is given."""

    set: RealSet
    name: str | None = None


def solution_of(term: Term) -> Solution:
    """Return the set of real numbers that a term states.

    Raises:
        NoSetError: If it is none: no set, more than one variable, or no linear relation.
    """
    match term.op:
        case "constant" if term.value == "reals":
            return Solution(WHOLE)
        case "constant" if term.value == "empty":
            return Solution(EMPTY)
        case "group" if len(term.args) == 2:
            return Solution(_interval(term))
        case "set":
            return Solution(_joined([_point(arg) for arg in term.args], "or"))
        case "union" | "intersection" | "difference":
            op = {"union": "or", "intersection": "and", "difference": "without"}[term.op]
            return Solution(_joined([solution_of(arg).set for arg in term.args], op))
        case "member":
            return Solution(solution_of(term.args[1]).set, _name(term.args[0]))
        case "builder":
            return _built(term)
        case "relation":
            return _related(term)
        case "items":
            return _listed(term)
        case _:
            raise NoSetError(term.op)


def is_set_like(term: Term) -> bool:
    """Return whether a term can only be a set of numbers: then a pair in brackets beside it is an interval."""
    match term.op:
        case "union" | "intersection" | "difference" | "builder":
            return True
        case "constant":
            return term.value in ("reals", "empty")
        case "member":
            return term.args[1].op != "constant" or term.args[1].value == "reals"
        case "group":
            return len(term.args) == 2 and (term.value in ("(]", "[)") or any(infinite_sign(arg) for arg in term.args))
        case "relation":
            return all(sign in ("<", ">", "<=", ">=", "!=") for sign in term.value)
        case "items":
            return all(is_set_like(arg) for arg in term.args)
        case _:
            return False


def _name(term: Term) -> str:
    if not is_label(term) or term.op == "ratio":
        raise NoSetError("no variable")
    return str(term.value) if term.op in ("symbol", "constant") else str(term)


def _constant(term: Term) -> Term:
    if symbols(term):
        raise NoSetError("an end with a variable")
    return term


def _interval(term: Term) -> Interval:
    low, high = (_constant(arg) for arg in term.args)
    if infinite_sign(low) > 0 or infinite_sign(high) < 0:
        raise NoSetError("infinity at the wrong end")
    if not infinite_sign(low) and not infinite_sign(high) and _order(low, high) > 0:
        raise NoSetError("the ends are the wrong way round")
    return Interval(
        low,
        high,
        term.value[0] == "[" and not infinite_sign(low),
        term.value[1] == "]" and not infinite_sign(high),
    )


def _point(term: Term) -> Interval:
    if infinite_sign(term) or term.op in ("items", "group", "relation", "set"):
        raise NoSetError("no point")
    return Interval(_constant(term), term, True, True)


def _joined(parts: list[RealSet], op: str) -> RealSet:
    if len(parts) > MAX_SET_PARTS:
        raise NoSetError(f"{len(parts)} parts, allowed are {MAX_SET_PARTS}")
    total = parts[0]
    for part in parts[1:]:
        total = Combined(total, part, op)
    return total


def _built(term: Term) -> Solution:
    variable, condition = term.args
    inner = solution_of(condition)
    if variable.op == "member":
        inner = Solution(Combined(solution_of(variable).set, inner.set, "and"), inner.name)
        variable = variable.args[0]
    if inner.name is not None and inner.name != _name(variable):
        raise NoSetError("the condition is about another variable")
    return Solution(inner.set)


def _listed(term: Term) -> Solution:
    if any(arg.op not in ("relation", "member", "items") for arg in term.args):
        raise NoSetError("a list of other things")
    parts = [solution_of(arg) for arg in term.args]
    if len({part.name for part in parts}) != 1:
        raise NoSetError("several variables")
    sets = [part.set for part in parts]
    is_or = bool(term.value)
    total = _joined(sets, "or" if is_or else "and")
    if not is_or and same_set(total, EMPTY):  # "x < 1, x > 3" and "x < 1 and x > 3" mean either
        total = _joined(sets, "or")
    return Solution(total, parts[0].name)


def _related(term: Term) -> Solution:
    sides, signs = term.args, term.value
    if any(sign not in FLIPPED for sign in signs):
        raise NoSetError("a relation that is no order")
    places = [place for place, side in enumerate(sides) if symbols(side)]
    if len(places) != 1:
        raise NoSetError("no variable, or one on several sides")
    place = places[0]
    if sides[place].op == "call" and sides[place].value == "abs" and len(sides) == 2:
        return _within(sides[place].args[0], sides[1 - place], signs[0] if place == 0 else FLIPPED[signs[0]])
    name = _name(sides[place])
    parts: list[RealSet] = []
    for index, sign in enumerate(signs):
        other = index + 1 if index >= place else index
        is_left = index >= place  # the variable stands left of the sign
        if abs(other - place) != 1:
            if _order_holds(sides[index], sides[index + 1], sign):
                continue
            raise NoSetError("a chain that does not hold")
        parts.append(_half_line(sides[other], sign if is_left else FLIPPED[sign]))
    return Solution(_joined(parts, "and"), name)


def _within(inner: Term, bound: Term, sign: str) -> Solution:
    """Return where the absolute value of a variable is below, at or above a bound that is not negative."""
    if infinite_sign(bound) or _order(bound, number(0)) < 0:
        raise NoSetError("a bound that is negative or infinite")
    above, below = _half_line(bound, sign), _half_line(negated(bound), FLIPPED[sign])
    return Solution(Combined(above, below, "and" if sign in ("<", "<=", "!=") else "or"), _name(inner))


def _order_holds(left: Term, right: Term, sign: str) -> bool:
    order = _order(left, right)
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "=": order == 0}.get(sign, order != 0)


def _half_line(bound: Term, sign: str) -> RealSet:
    """Return the numbers less than, equal to or greater than the bound."""
    sense = infinite_sign(bound)
    if sense:
        if (sign in ("<", "<=") and sense > 0) or (sign in (">", ">=") and sense < 0):
            return WHOLE
        raise NoSetError("beyond infinity")
    match sign:
        case "<" | "<=":
            return Interval(MINUS_INFINITY, bound, False, sign == "<=")
        case ">" | ">=":
            return Interval(bound, INFINITY, sign == ">=", False)
        case "=":
            return Interval(bound, bound, True, True)
        case _:
            return Combined(WHOLE, Interval(bound, bound, True, True), "without")


# --- the comparison -------------------------------------------------------------------------------------------------
def _order(left: Term, right: Term) -> int:
    """Return -1, 0 or 1 as the left constant is less than, equal to or greater than the right one.

    Raises:
        NoSetError: If that cannot be shown.
    """
    signs = infinite_sign(left), infinite_sign(right)
    if any(signs):
        return (signs[0] > signs[1]) - (signs[0] < signs[1])
    first, second = exact_or_none(left), exact_or_none(right)
    if first is not None and second is not None:
        return (first > second) - (first < second)
    try:
        for bits in (LOW_BITS, HIGH_BITS):
            with precision(bits):
                difference = real_ball(left) - real_ball(right)
                if difference > 0 or difference < 0:
                    return 1 if difference > 0 else -1
        if same_value(left, right):
            return 0
    except NotScalarError as error:
        raise NoSetError("an end that is no number") from error
    raise NoSetError("ends that cannot be ordered")


def _ends(part: RealSet) -> list[Term]:
    if isinstance(part, Combined):
        return _ends(part.left) + _ends(part.right)
    return [end for end in (part.low, part.high) if not infinite_sign(end)]


def same_set(left: RealSet, right: RealSet) -> bool:
    """Return whether two sets hold the same numbers.

    Raises:
        NoSetError: If their ends cannot be ordered.
    """
    places: dict[Term, int] = {}  # of each end: odd numbers; the open cells between them have even ones
    last: Term | None = None
    for end in sorted(_ends(left) + _ends(right), key=cmp_to_key(_order)):
        if last is None:
            places[end] = 1
        elif end not in places:
            places[end] = places[last] + (2 if _order(last, end) else 0)
        last = end
    num_cells = max(places.values(), default=-1) + 2

    def place(end: Term) -> int:
        sense = infinite_sign(end)
        return places[end] if not sense else -1 if sense < 0 else num_cells

    def tester(part: RealSet) -> Callable[[int], bool]:
        if isinstance(part, Combined):
            first, second, op = tester(part.left), tester(part.right), part.op
            if op == "or":
                return lambda cell: first(cell) or second(cell)
            if op == "and":
                return lambda cell: first(cell) and second(cell)
            return lambda cell: first(cell) and not second(cell)
        low, high = place(part.low), place(part.high)
        return lambda cell: low < cell < high or (part.has_low and cell == low) or (part.has_high and cell == high)

    in_left, in_right = tester(left), tester(right)
    return all(in_left(cell) == in_right(cell) for cell in range(num_cells))
