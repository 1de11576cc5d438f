"""Two parsed answers compared: the reference's type picks the comparer.

Part of the mathematics ladder, after ``parser``. ``compare`` returns None for equal, or the reason why not, or raises
``UndecidedError`` where our own rungs cannot tell (the last rung may). What a reference may be: words, a number with
base or unit, a set of numbers, a tuple or list, a matrix, a relation, else a scalar. Invariant: no order of anything is
invented: tuples are ordered, bare lists and sets are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Final

from schemas.verdict import Reason
from verifiers.balls import NotScalarError, infinite_sign
from verifiers.limits import MAX_BRANCHES, MAX_MATRIX_FACTORS, MAX_MATRIX_PRODUCTS, MAX_PAIRED_ITEMS
from verifiers.rationals import exact_or_none
from verifiers.sets import NoSetError, is_set_like, same_set, solution_of
from verifiers.terms import (
    SETS,
    Term,
    depth_of,
    has_constant,
    has_op,
    has_operator,
    is_label,
    negated,
    number,
    symbols,
    walk,
)
from verifiers.units import DEGREE, LETTER_UNITS, UNITS, Unit
from verifiers.values import TooFarError, constant_ratio, same_value

EQUAL_SIGNS: Final = ("=", "~", ":=", "~=")
ORDER_SIGNS: Final = ("<", ">", "<=", ">=")
FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
COLLECTIONS: Final = ("group", "set", "items", "matrix")
WORDED_CONSTANTS: Final = {
    "no solution": Term("constant", (), "empty"),
    "no real solution": Term("constant", (), "empty"),
    "all real numbers": Term("constant", (), "reals"),
    "infinity": Term("constant", (), "infinity"),
    "positive infinity": Term("constant", (), "infinity"),
    "negative infinity": Term("neg", (Term("constant", (), "infinity"),)),
}


class UndecidedError(Exception):
    """Neither equal nor different could be shown."""


@dataclass(frozen=True, slots=True)
class How:
    """What the source says of the comparison: an accepted absolute error; whether p stands for p percent."""

    tolerance: Fraction | None = None
    is_percent: bool = False


EXACTLY: Final = How()


def compare(answer: Term, reference: Term, how: How = EXACTLY) -> Reason | None:
    """Return None where the answer is the reference, else the reason why it is not.

    Raises:
        UndecidedError: If neither can be shown.
    """
    if answer == reference:
        return None
    answer, reference = _renamed(_plain(answer), _plain(reference))
    if answer.op == reference.op == "relation":
        answer = _with_argument(answer, reference)
    if "constant" in (answer.op, reference.op):
        answer, reference = _members(answer), _members(reference)
    if answer == reference:
        return None
    if "based" in (answer.op, reference.op):
        return _compare_based(answer, reference)
    if "text" in (answer.op, reference.op):
        return _compare_text(answer, reference)
    found = _compare_definitions(answer, reference, how)
    if isinstance(found, _NotMine):
        found = _compare_sets(answer, reference)
    if not isinstance(found, _NotMine):
        return found
    answer, reference = _plain(_unlabelled(answer, reference)), _plain(_unlabelled(reference, answer))
    if answer == reference:
        return None
    answer, reference = _summed_up(answer, reference), _summed_up(reference, answer)
    if "quantity" in (answer.op, reference.op) and not (answer.op in COLLECTIONS or reference.op in COLLECTIONS):
        return _compare_quantities(answer, reference, how)
    answer, reference = _expanded(answer), _expanded(reference)
    answer, reference = _lone(answer, reference), _lone(reference, answer)
    if reference.op == "relation" or answer.op == "relation":
        return _compare_relations(answer, reference, how)
    answer, reference = _from_basis(answer, reference), _from_basis(reference, answer)
    if "matrix" in (reference.op, answer.op) or has_op(reference, "matrix") or has_op(answer, "matrix"):
        return _compare_matrices(answer, reference, how)
    if reference.op in COLLECTIONS or answer.op in COLLECTIONS:
        return _compare_collections(answer, reference, how)
    return _compare_scalars(answer, reference, how)


class _NotMine:
    """Says that a comparer is not for these two."""


NOT_MINE: Final = _NotMine()


def _renamed(answer: Term, reference: Term) -> tuple[Term, Term]:
    """Return both with one name for what each may name as it likes: the constant C or c, and a declared integer k."""
    answer, mine = _declared(answer)
    reference, theirs = _declared(reference)
    known, wanted = set(symbols(answer)), set(symbols(reference))
    names = {name.lower(): name for name in wanted - known if name == "C" or name.startswith("C_")}
    names = {name: other for name, other in names.items() if name in known - wanted}
    free, missing = known - wanted - set(names), wanted - known
    if len(free) == len(missing) == 1 and (free == mine or missing == theirs):
        names[free.pop()] = missing.pop()
    return (_substituted(answer, names) if names else answer), reference


def _declared(term: Term) -> tuple[Term, set[str]]:
    """Return n = 3k, k in Z as n = 3k, and the names that were so declared."""
    if term.op != "items":
        return term, set()
    is_declaration = [
        arg.op == "member" and arg.args[0].op == "symbol" and arg.args[1].op == "constant" for arg in term.args
    ]
    names = {
        arg.args[0].value
        for arg, is_one in zip(term.args, is_declaration, strict=True)
        if is_one and arg.args[1].value == "integers"
    }
    left = [arg for arg, is_one in zip(term.args, is_declaration, strict=True) if not is_one]
    if not names or not left or not names <= set(symbols(*left)):
        return term, set()
    return (left[0] if len(left) == 1 else term._replace(args=tuple(left))), names


def _members(term: Term) -> Term:
    """Return the set of x in S, beside a set such as the integers."""
    return term.args[1] if term.op == "member" and term.args[0].op == "symbol" else term


def _substituted(term: Term, names: dict[str, str]) -> Term:
    if term.op == "symbol":
        return term._replace(value=names.get(term.value, term.value))
    return term._replace(args=tuple(_substituted(arg, names) for arg in term.args)) if term.args else term


def _plain(term: Term) -> Term:
    """Return a term with a degree at its top as a quantity, words for sets as sets, and assignments unfolded."""
    if term.op == "degree":
        return Term("quantity", term.args, DEGREE)
    if term.op == "neg" and term.args[0].op in ("degree", "quantity"):
        inner = _plain(term.args[0])
        return Term("quantity", (negated(inner.args[0]),), inner.value)
    if term.op == "text" and term.value in WORDED_CONSTANTS:
        return WORDED_CONSTANTS[term.value]
    if term.op == "group" and term.value == "()" and len(term.args) == 1:
        return _plain(term.args[0])
    return term


# --- words, bases, units --------------------------------------------------------------------------------------------
def _compare_text(answer: Term, reference: Term) -> Reason | None:
    if answer.op != reference.op:
        return Reason.TYPE_MISMATCH
    return None if answer.value == reference.value else Reason.VALUE_DIFFERS


def _compare_based(answer: Term, reference: Term) -> Reason | None:
    if answer.op == reference.op:
        if answer.value.base != reference.value.base:
            return Reason.BASE_MISMATCH
        return None if answer.value.digits == reference.value.digits else Reason.VALUE_DIFFERS
    based, other = (answer, reference) if answer.op == "based" else (reference, answer)
    if other.op == "relation" and is_label(other.args[0]):
        inner = other.args[-1]
        return _compare_based(based, inner) if inner.op == "based" else Reason.BASE_MISMATCH
    return Reason.TYPE_MISMATCH if other.op in (*COLLECTIONS, "text") else Reason.BASE_MISMATCH


def _summed_up(term: Term, other: Term) -> Term:
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


def _as_quantity(term: Term, other: Term) -> Term:
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
        top = _as_quantity(parts[0], other)
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


def _as_product(term: Term, other: Term) -> Term:
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


def _compare_quantities(answer: Term, reference: Term, how: How) -> Reason | None:
    answer, reference = _as_quantity(answer, reference), _as_quantity(reference, answer)
    answer, reference = _as_product(answer, reference), _as_product(reference, answer)
    if answer.op == reference.op == "quantity":
        return _compare_units(answer, reference, how)
    if answer.op == reference.op:
        return compare(answer, reference, how)
    quantity, bare = (answer, reference) if answer.op == "quantity" else (reference, answer)
    inner = quantity.args[0]
    if quantity.value == DEGREE and has_constant(bare, "pi"):
        inner = Term("mul", (inner, Term("constant", (), "pi"), number(Fraction(1, 180))))
    return compare(inner, bare, how) if quantity is answer else compare(bare, inner, how)


def _compare_units(answer: Term, reference: Term, how: How) -> Reason | None:
    mine, theirs = answer.value, reference.value
    if _says_less(mine, theirs) or _says_less(theirs, mine):
        return compare(answer.args[0], reference.args[0], how)
    if mine.label is not None and theirs.label is not None:
        is_same = mine.label == theirs.label or _is_same_label(mine.label, theirs.label)
        return compare(answer.args[0], reference.args[0], how) if is_same else Reason.UNIT_MISMATCH
    if mine.label != theirs.label or mine.dimensions != theirs.dimensions:
        return Reason.UNIT_MISMATCH
    if mine.factor == theirs.factor:
        return compare(answer.args[0], reference.args[0], how)
    scaled = Term("mul", (answer.args[0], number(mine.factor / theirs.factor)))
    reason = compare(scaled, reference.args[0], how)
    return Reason.UNIT_MISMATCH if reason is not None and answer.args == reference.args else reason


def _says_less(unit: Unit, other: Unit) -> bool:
    """Return whether a unit is the nameless one of geometry ("square units") and the other a length to that power."""
    if [name for name, _ in unit.dimensions] != ["unit"] or other.label is not None:
        return False
    return other.dimensions in ((("length", unit.dimensions[0][1]),), ())


def _is_same_label(left: str, right: str) -> bool:
    """Return whether one label only says more of the same thing: apples, red apples, apples in the basket."""
    short, long = sorted((left.split(), right.split()), key=len)
    return len(short) == 1 and (short[0] == long[-1] or (short[0] == long[0] and long[1:2] in (["of"], ["in"])))


# --- labels ---------------------------------------------------------------------------------------------------------
def _assignment(term: Term) -> tuple[Term, Term] | None:
    """Return name and value of x = 5, y = x + 1 or f(x) = x^2: what has a name on one side alone."""
    if term.op == "member" and is_label(term.args[0]):
        return term.args[0], term.args[1]
    if term.op != "relation" or any(sign not in EQUAL_SIGNS for sign in term.value):
        return None
    sides, signs = list(term.args), list(term.value)
    label = None
    while len(sides) > 1 and is_label(sides[0]) and not _mentions(sides[1:], sides[0]):
        label, sides, signs = sides[0], sides[1:], signs[1:]
    if label is None and len(sides) == 2 and is_label(sides[1]) and not _mentions(sides[:1], sides[1]):
        label, sides, signs = sides[1], sides[:1], []
    if label is None:
        return None
    value = _chain_value(sides, signs)
    if value is None or (label.op == "group") != (value.op in ("group", "items") and label.op == "group"):
        return None
    return label, value


def _mentions(sides: Sequence[Term], label: Term) -> bool:
    if label.op == "apply":
        return any(node.op == "apply" and node.value == label.value for side in sides for node in walk(side))
    names = set(symbols(label))
    return any(names & set(symbols(side)) for side in sides)


def _chain_value(sides: Sequence[Term], signs: Sequence[str]) -> Term | None:
    """Return the value of 2 + 4 = 6 or \\pi \\approx 3.14: the exact one, if all sides that say "=" are the same."""
    if len(sides) == 1:
        return sides[0]
    exact_sides = [sides[0]]
    for side, sign in zip(sides[1:], signs, strict=True):
        if sign in ("~", "~="):
            break
        exact_sides.append(side)
    try:
        if all(same_value(side, exact_sides[-1]) for side in exact_sides[:-1]):
            return exact_sides[-1]
    except (NotScalarError, TooFarError):
        return None
    return None


def _unlabelled(term: Term, other: Term) -> Term:
    """Return x = 5 as 5 beside what has no name; a relation beside a relation stays one."""
    if term.op == "relation" and other.op in ("relation", "member"):
        mine, theirs = _assignment(term), _assignment(other)
        if mine is not None and theirs is not None and _is_same_name(mine[0], theirs[0]):
            return mine[1]
        return term
    if term.op == "member" and other.op in COLLECTIONS:
        return term if is_set_like(other) or is_set_like(term) else term.args[1]
    if term.op == "relation":
        found = _assignment(term)
        if found is not None:
            return found[1]
        if all(sign in EQUAL_SIGNS for sign in term.value) and not symbols(term) and len(set(term.args)) > 1:
            return _chain_value(term.args, term.value) or term
    if term.op == "items" and not is_set_like(term):
        return _unlabelled_items(term)
    return term


def _is_same_name(left: Term, right: Term) -> bool:
    """Return whether two names can be of the same value: y and f(x), f(x) and f(t); not f(1) and f(2), x and y."""
    if left == right:
        return True
    applied = [name for name in (left, right) if name.op == "apply"]
    if not applied or any(arg.op != "symbol" for name in applied for arg in name.args):
        return False
    if len(applied) == 2:
        return left.value == right.value and len(left.args) == len(right.args)
    return "^" not in applied[0].value


def _unlabelled_items(term: Term) -> Term:
    """Return x = 2, x = -3 as 2, -3: where all names are the same, or only the first is given."""
    found = [_assignment(arg) if arg.op == "relation" else None for arg in term.args]
    named = [part for part in found if part is not None]
    if not named or len({part[0] for part in named}) != 1:
        return term
    values = tuple(arg if part is None else part[1] for arg, part in zip(term.args, found, strict=True))
    return term._replace(args=values, value=True)  # one name, several values: in no order


def _definitions(term: Term) -> dict[Term, Term] | None:
    """Return what a list of assignments to several names says, in its order: k = 45, n = 2; (x, y) = (1, 2)."""
    if term.op in ("items", "set", "group") and term.value is not True:
        found = [_assignment(arg) for arg in term.args]
        if all(part is not None for part in found):
            named = {part[0]: part[1] for part in found if part is not None}
            return named if len(named) == len(found) > 1 else None
    if term.op == "relation" and term.value == ("=",) and term.args[0].op == term.args[1].op == "group":
        names, values = term.args[0].args, term.args[1].args
        if len(names) == len(values) and all(is_label(name) for name in names) and len(set(names)) == len(names):
            return dict(zip(names, values, strict=True))
    return None


def _compare_definitions(answer: Term, reference: Term, how: How) -> Reason | _NotMine | None:
    """Several named values, on either side: by name where both have names, else in the order of the names."""
    mine, theirs = _definitions(answer), _definitions(reference)
    if mine is None and theirs is None:
        return NOT_MINE
    if answer.op == "items" and answer.value:
        return Reason.TYPE_MISMATCH  # x = 1 or y = 2
    if mine is not None and theirs is not None:
        if len(mine) != len(theirs):
            return Reason.LENGTH_DIFFERS
        if mine.keys() != theirs.keys():
            return Reason.VALUE_DIFFERS
        return _first(compare(mine[name], theirs[name], how) for name in theirs)
    named, other = (mine, reference) if mine is not None else (theirs, answer)
    assert named is not None
    is_list = other.op == "items" and not other.value and not any(arg.op == "relation" for arg in other.args)
    if not is_list and other.op not in ("group", "matrix"):
        return Reason.TYPE_MISMATCH
    values = _vector(other) if other.op == "matrix" else other.args
    if values is None or len(values) != len(named):
        return Reason.LENGTH_DIFFERS
    by_name = [named[name] for name in sorted(named, key=str)]
    is_point = mine is not None and other.op == "group" and all(name.op == "symbol" for name in named)
    orders = [by_name] if is_point else [list(named.values()), by_name]
    reasons = []
    for order in orders:
        pairs = zip(order, values, strict=True) if mine is not None else zip(values, order, strict=True)
        reasons.append(_first(compare(left, right, how) for left, right in pairs))
    return None if None in reasons else reasons[0]


def _first(reasons: Iterable[Reason | None]) -> Reason | None:
    return next((reason for reason in reasons if reason is not None), None)


# --- sets of numbers ------------------------------------------------------------------------------------------------
def _compare_sets(answer: Term, reference: Term) -> Reason | _NotMine | None:
    """Solution sets, where one side can only be one and both can be built."""
    if not (is_set_like(reference) or is_set_like(answer)):
        return NOT_MINE
    if answer.op == "group" and reference.op == "group" and answer.value != reference.value:
        return Reason.BRACKET_DIFFERS if len(answer.args) == len(reference.args) else Reason.LENGTH_DIFFERS
    if answer.op == "constant" and reference.op == "constant":
        return Reason.VALUE_DIFFERS
    if any(infinite_sign(term) for term in (answer, reference)):
        return Reason.TYPE_MISMATCH
    try:
        mine, theirs = solution_of(_expanded(answer)), solution_of(_expanded(reference))
        if mine.name is not None and theirs.name is not None and mine.name != theirs.name:
            return Reason.VALUE_DIFFERS
        return None if same_set(mine.set, theirs.set) else Reason.VALUE_DIFFERS
    except NoSetError:
        if answer.op in ("relation", "items") or reference.op in ("relation", "items"):
            return NOT_MINE
        return _compare_set_parts(answer, reference)


def _compare_set_parts(answer: Term, reference: Term) -> Reason | _NotMine | None:
    """Sets with variables in them: part by part."""
    if answer.op == "member" and reference.op == "member":
        if answer.args[0] != reference.args[0]:
            return Reason.VALUE_DIFFERS
        return compare(answer.args[1], reference.args[1])
    for one, other in ((answer, reference), (reference, answer)):
        if one.op == "member":
            inner = one.args[1]
            return compare(inner, other) if one is answer else compare(other, inner)
    if answer.op == reference.op and answer.op in ("union", "intersection"):
        return _compare_unordered(answer.args, reference.args, EXACTLY)
    if answer.op == reference.op == "difference":
        return _first(compare(left, right) for left, right in zip(answer.args, reference.args, strict=True))
    if answer.op == reference.op == "builder":
        return _compare_builders(answer, reference)
    if answer.op == reference.op and answer.op in ("group", "set", "items"):
        return NOT_MINE
    if "builder" in (answer.op, reference.op):
        raise UndecidedError
    return Reason.TYPE_MISMATCH


def _compare_builders(answer: Term, reference: Term) -> Reason | None:
    reasons = [compare(left, right) for left, right in zip(answer.args, reference.args, strict=True)]
    if _first(reasons) is None:
        return None
    raise UndecidedError


# --- plus-minus, sets of one ----------------------------------------------------------------------------------------
def _expanded(term: Term) -> Term:
    """Return a term with plus-minus signs as the list of its values."""
    if not has_op(term, "plus_minus"):
        return term
    if term.op in ("items", "set"):
        parts: list[Term] = []
        for arg in term.args:
            part = _expanded(arg)
            parts.extend(part.args if part.op == "items" else (part,))
        return term._replace(args=tuple(parts))
    if term.op == "relation" and (found := _assignment(term)) is not None:
        return _expanded(found[1])
    nodes = [node for node in walk(term) if node.op == "plus_minus"]
    is_linked = any(node.value < 0 for node in nodes)
    num_signs = 1 if is_linked else len(nodes)
    if 2**num_signs > MAX_BRANCHES:
        return term
    branches = []
    for choice in product((1, -1), repeat=num_signs):
        signs = list(choice) * len(nodes) if is_linked else list(choice)
        branches.append(_branch(term, signs))
    return Term("items", tuple(dict.fromkeys(branches)), True)


def _branch(term: Term, signs: list[int]) -> Term:
    """Return the term with each plus-minus replaced; takes one sign per plus-minus, in the order of the text."""
    if term.op == "plus_minus":
        sign = signs.pop(0) * term.value
        left, right = (_branch(arg, signs) for arg in term.args)
        return Term("add", (left, right if sign > 0 else negated(right)))
    return term._replace(args=tuple(_branch(arg, signs) for arg in term.args)) if term.args else term


def _lone(term: Term, other: Term) -> Term:
    """Return a set of one element as the element, beside a scalar."""
    if term.op in ("set", "items") and len(term.args) == 1 and other.op not in COLLECTIONS:
        return term.args[0]
    return term


# --- tuples, lists, matrices ----------------------------------------------------------------------------------------
def _compare_collections(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op not in COLLECTIONS:
        return Reason.LENGTH_DIFFERS if reference.op in ("set", "items") else Reason.TYPE_MISMATCH
    if reference.op not in COLLECTIONS:
        return Reason.MULTIPLE_CANDIDATES if answer.op in ("set", "items") else Reason.TYPE_MISMATCH
    mine, theirs = answer.args, reference.args
    is_joined_otherwise = answer.op == reference.op == "items" and bool(answer.value) != bool(reference.value)
    if is_joined_otherwise and any(arg.op == "relation" and arg.value != ("=",) for arg in theirs):
        return Reason.TYPE_MISMATCH  # x > 1 or y > 2; x > 1 and y > 2
    if "group" in (answer.op, reference.op):
        if "set" in (answer.op, reference.op) or True in (answer.value, reference.value):
            return Reason.TYPE_MISMATCH  # no order on one side
        if len(mine) != len(theirs):
            return Reason.LENGTH_DIFFERS
        if answer.op == reference.op and answer.value != reference.value and len(mine) == 2:
            return Reason.BRACKET_DIFFERS
        reason = _first(compare(left, right, how) for left, right in zip(mine, theirs, strict=True))
        return None if reason is None else Reason.VALUE_DIFFERS
    if reference.op == answer.op == "set" or all(arg.op == "group" for arg in (*mine, *theirs)):
        mine, theirs = _distinct(mine), _distinct(theirs)  # solutions have no multiplicity
    return _compare_unordered(mine, theirs, how)


def _distinct(terms: Sequence[Term]) -> tuple[Term, ...]:
    return tuple({_key(term): term for term in reversed(terms)}.values())[::-1]


def _compare_unordered(answers: Sequence[Term], references: Sequence[Term], how: How) -> Reason | None:
    """Compare lists in any order, each item as often as in the reference."""
    if len(answers) != len(references):
        return Reason.LENGTH_DIFFERS
    mine, theirs = ([_key(term) for term in terms] for terms in (answers, references))
    missing = Counter(theirs) - Counter(mine)
    if not missing:
        return None
    extra = Counter(mine) - Counter(theirs)
    if how.tolerance is None and not any(isinstance(key, Term) for key in (*missing, *extra)):
        return Reason.VALUE_DIFFERS  # exact numbers on both sides
    left = [answers[mine.index(key)] for key in extra.elements()]
    if len(left) > MAX_PAIRED_ITEMS:
        return Reason.TOO_BIG
    for key in missing.elements():
        wanted = references[theirs.index(key)]
        place = next((index for index, term in enumerate(left) if _is_equal(term, wanted, how)), None)
        if place is None:
            return Reason.VALUE_DIFFERS
        left.pop(place)
    return None


def _key(term: Term) -> object:
    """Return what equal items surely share: the exact value where there is one, else the term itself."""
    value = exact_or_none(term)
    return term if value is None else (int(value.p), int(value.q))


def _is_equal(answer: Term, reference: Term, how: How) -> bool:
    return compare(answer, reference, how) is None


def _rows(term: Term) -> list[tuple[Term, ...]] | None:
    """Return the rows of a matrix, of a list of lists, or of a multiple of one."""
    match term.op:
        case "matrix" if term.value is None:
            return [row.args for row in term.args]
        case "group" if all(arg.op == "group" for arg in term.args) and len({len(arg.args) for arg in term.args}) == 1:
            return [arg.args for arg in term.args]
        case "neg":
            return _scaled(term.args[0], number(-1))
        case "add":
            return _summed([_rows(arg) for arg in term.args])
        case "mul" if all(has_op(arg, "matrix") for arg in term.args):
            return _multiplied([_rows(arg) for arg in term.args])
        case "mul" if len(term.args) == 2:
            for scalar, matrix in (term.args, term.args[::-1]):
                if not has_op(scalar, "matrix") and scalar.op not in COLLECTIONS:
                    return _scaled(matrix, scalar)
            return None
        case "div":
            return _scaled(term.args[0], Term("div", (number(1), term.args[1])))
        case _:
            return None


def _scaled(term: Term, factor: Term) -> list[tuple[Term, ...]] | None:
    rows = _rows(term)
    return None if rows is None else [tuple(Term("mul", (factor, cell)) for cell in row) for row in rows]


def _summed(parts: Sequence[list[tuple[Term, ...]] | None]) -> list[tuple[Term, ...]] | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({tuple(len(row) for row in part) for part in known}) != 1:
        return None
    return [tuple(Term("add", cells) for cells in zip(*rows, strict=True)) for rows in zip(*known, strict=True)]


def _multiplied(parts: Sequence[list[tuple[Term, ...]] | None]) -> list[tuple[Term, ...]] | None:
    total = parts[0] if len(parts) <= MAX_MATRIX_FACTORS else None
    for part in parts[1:]:
        if total is None or part is None or len(total[0]) != len(part):
            return None
        columns = list(zip(*part, strict=True))
        cells = (cell for rows in (total, part) for row in rows for cell in row)
        if len(total) * len(columns) * len(part) > MAX_MATRIX_PRODUCTS or max(map(depth_of, cells)) > 12:
            return None
        total = [tuple(_dot(row, column) for column in columns) for row in total]
    return total


def _dot(row: Sequence[Term], column: Sequence[Term]) -> Term:
    """Return the sum of the products, as a number where it is one: else each factor doubles the term."""
    term = Term("add", tuple(Term("mul", pair) for pair in zip(row, column, strict=True)))
    value = exact_or_none(term)
    return term if value is None else number(Fraction(int(value.p), int(value.q)))


def _vector(term: Term) -> tuple[Term, ...] | None:
    """Return the components of a column or row, or of a tuple."""
    if term.op in ("group", "items") and not any(arg.op in COLLECTIONS for arg in term.args):
        return term.args
    rows = _rows(term)
    if rows is None:
        return None
    if len(rows) == 1:
        return rows[0]
    return tuple(row[0] for row in rows) if all(len(row) == 1 for row in rows) else None


BASIS: Final = {  # the unit vectors, as they are read
    Term("constant", (), "i"): 0,
    Term("symbol", (), "hat i"): 0,
    Term("symbol", (), "j"): 1,
    Term("symbol", (), "k"): 2,
}


def _from_basis(term: Term, other: Term) -> Term:
    """Return i + 2j as the tuple (1, 2) beside a tuple or a column of two; as it is where it is no sum of those."""
    wanted = _vector(other) if other.op in ("group", "matrix") and other.value in ("()", None) else None
    if wanted is None or not 2 <= len(wanted) <= 3 or term.op not in ("add", "neg", "mul", "symbol", "constant"):
        return term
    parts: list[list[Term]] = [[] for _ in wanted]
    for part in term.args if term.op == "add" else (term,):
        sign, part = (-1, part.args[0]) if part.op == "neg" else (1, part)
        factors = part.args if part.op == "mul" else (part,)
        places = [place for place, factor in enumerate(factors) if factor in BASIS]
        if len(places) != 1 or BASIS[factors[places[0]]] >= len(wanted):
            return term
        rest = [factor for place, factor in enumerate(factors) if place != places[0]]
        parts[BASIS[factors[places[0]]]].append(Term("mul", (number(sign), number(1), *rest)))
    return Term("group", tuple(Term("add", (number(0), *found)) for found in parts), "()")


def _compare_matrices(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op == reference.op and answer.value == reference.value == "cases":
        first, second = ([Term("group", row.args, "()") for row in term.args] for term in (answer, reference))
        return _compare_unordered(first, second, how)
    mine, theirs = _rows(answer), _rows(reference)
    if mine is None or theirs is None:
        pair = _vector(answer), _vector(reference)
        if pair[0] is None or pair[1] is None:
            return Reason.TYPE_MISMATCH
        mine, theirs = [pair[0]], [pair[1]]
    if [len(row) for row in mine] != [len(row) for row in theirs]:
        return Reason.LENGTH_DIFFERS
    cells = [pair for left, right in zip(mine, theirs, strict=True) for pair in zip(left, right, strict=True)]
    return None if _first(compare(left, right, how) for left, right in cells) is None else Reason.VALUE_DIFFERS


# --- relations ------------------------------------------------------------------------------------------------------
def _with_argument(answer: Term, reference: Term) -> Term:
    """Return f(t) = t^2 beside f(x) = x^2 with the letter that the reference has."""
    mine, theirs = answer.args[0], reference.args[0]
    if (mine.op, mine.value) != (theirs.op, theirs.value) or mine.op != "apply":
        return answer
    known, wanted = ([arg.value for arg in term.args if arg.op == "symbol"] for term in (mine, theirs))
    if not len(known) == len(wanted) == len(mine.args) == len(theirs.args) == 1 or wanted[0] in symbols(answer):
        return answer
    return _substituted(answer, {known[0]: wanted[0]})


def _compare_relations(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op != reference.op:
        is_chain = reference.op != "relation" and all(sign in EQUAL_SIGNS for sign in answer.value)
        if is_chain and len(set(answer.args)) > 1:
            value = _chain_value(answer.args, answer.value)
            if value is not None and symbols(value):
                return compare(value, reference, how)
        return Reason.TYPE_MISMATCH
    (mine, my_signs), (theirs, their_signs) = _directed(answer), _directed(reference)
    if len(mine) != len(theirs):
        return Reason.TYPE_MISMATCH
    if my_signs == their_signs and _are_all(mine, theirs, how):
        return None
    if len(mine) > 2:
        return Reason.VALUE_DIFFERS
    if _is_solved(theirs) and not _is_solved(mine):
        return Reason.TYPE_MISMATCH  # 2x + 1 < 7 is no answer where x < 3 is asked for
    if theirs[0].op == "symbol" and mine[0].op != "symbol" and not symbols(theirs[1]) and my_signs == ("=",):
        return Reason.TYPE_MISMATCH  # nor is 2x = 6 where x = 3 is
    if my_signs[0] in EQUAL_SIGNS and their_signs[0] in EQUAL_SIGNS:
        return _compare_equations(mine, theirs)
    if my_signs[0] in ORDER_SIGNS and their_signs[0] in ORDER_SIGNS:
        return _compare_inequalities(mine, my_signs[0], theirs, their_signs[0])
    if my_signs == their_signs and my_signs[0] in ("!=", "perp", "parallel") and _are_all(mine[::-1], theirs, how):
        return None
    return Reason.VALUE_DIFFERS


def _is_solved(sides: Sequence[Term]) -> bool:
    """Return whether a relation has a name on one side, perhaps with a factor, and a constant on the other."""
    for one, other in (sides, sides[::-1]):
        factors = one.args if one.op in ("mul", "neg") else (one,)
        if not symbols(other) and is_label(factors[-1]) and not symbols(*factors[:-1]):
            return True
    return False


def _are_all(mine: Sequence[Term], theirs: Sequence[Term], how: How) -> bool:
    try:
        return all(_is_equal(left, right, how) for left, right in zip(mine, theirs, strict=True))
    except UndecidedError:
        return False


def _directed(term: Term) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Return sides and signs of a relation from small to large: 3 > x as x < 3."""
    if term.value[0] in (">", ">="):
        return term.args[::-1], tuple(FLIPPED.get(sign, sign) for sign in reversed(term.value))
    return term.args, term.value


def _less(sides: Sequence[Term]) -> Term:
    return Term("add", (sides[0], negated(sides[1])))


def _compare_equations(mine: Sequence[Term], theirs: Sequence[Term]) -> Reason | None:
    """Equations are the same where what is zero in one is a multiple of what is zero in the other."""
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


def _compare_inequalities(mine: Sequence[Term], my_sign: str, theirs: Sequence[Term], their_sign: str) -> Reason | None:
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


# --- scalars --------------------------------------------------------------------------------------------------------
def _compare_scalars(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op == reference.op == "ratio":
        return _compare_ratios(answer, reference, how)
    if any(term.op == "constant" and term.value in SETS for term in (answer, reference)):
        return Reason.TYPE_MISMATCH
    if _has_conjugate(answer) or _has_conjugate(reference):
        return Reason.VALUE_DIFFERS  # not the same term, and matrices do not commute
    try:
        same = same_value(answer, reference, how.tolerance)
        if not same and (has_operator(answer) or has_operator(reference)):
            raise UndecidedError
        if same is False and how.is_percent and (answer.op == "percent") != (reference.op == "percent"):
            bare = [term.args[0] if term.op == "percent" else term for term in (answer, reference)]
            same = same_value(bare[0], bare[1], how.tolerance)
    except NotScalarError:
        return Reason.TYPE_MISMATCH
    except TooFarError:
        return Reason.TOO_BIG
    if same is None and not symbols(answer, reference):
        return Reason.TOO_BIG  # beyond what balls can hold, or tell apart
    if same is None:
        raise UndecidedError
    if same:
        return None
    return Reason.POINT_DIFFERS if symbols(answer, reference) else Reason.VALUE_DIFFERS


def _has_conjugate(term: Term) -> bool:
    """Return whether P D P^{-1} stands there: matrices, named by capitals."""
    products = (node.args for node in walk(term) if node.op == "mul" and len(node.args) > 2)
    return any(
        factor.op == "pow"
        and factor.args[1] == number(-1)
        and factor.args[0] in factors
        and factor.args[0].op == "symbol"
        and factor.args[0].value[:1].isupper()
        for factors in products
        for factor in factors
    )


def _compare_ratios(answer: Term, reference: Term, how: How) -> Reason | None:
    """Ratios are the same where all their parts are in proportion."""
    if len(answer.args) != len(reference.args):
        return Reason.LENGTH_DIFFERS
    if reference.value:  # a time of day
        return _first(compare(left, right, how) for left, right in zip(answer.args, reference.args, strict=True))
    if any(all(exact_or_none(part) == 0 for part in term.args) for term in (answer, reference)):
        return Reason.VALUE_DIFFERS  # 0:0 is in proportion to everything
    pivot = next(place for place, part in enumerate(reference.args) if exact_or_none(part) != 0)
    first, other = answer.args[pivot], reference.args[pivot]
    if exact_or_none(first) == 0:
        return Reason.VALUE_DIFFERS
    for left, right in zip(answer.args, reference.args, strict=True):
        crossed = Term("mul", (left, other)), Term("mul", (right, first))
        if compare(*crossed, how) is not None:
            return Reason.VALUE_DIFFERS
    return None
