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
from verifiers.amounts import as_product, as_quantity, is_same_label, says_less, summed_up
from verifiers.balls import NotScalarError, infinite_sign
from verifiers.labels import EQUAL_SIGNS, assignment, chain_value, definitions, renamed, unlabelled, with_argument
from verifiers.limits import MAX_BRANCHES, MAX_PAIRED_ITEMS
from verifiers.matrices import from_basis, rows_of, vector_of
from verifiers.rationals import exact_or_none
from verifiers.relations import UndecidedError, compare_equations, compare_inequalities, directed, is_solved
from verifiers.sets import NoSetError, is_set_like, same_set, solution_of
from verifiers.terms import (
    COLLECTIONS,
    SETS,
    Term,
    has_constant,
    has_op,
    has_operator,
    is_label,
    negated,
    number,
    symbols,
    walk,
)
from verifiers.units import DEGREE
from verifiers.values import TooFarError, same_value

ORDER_SIGNS: Final = ("<", ">", "<=", ">=")
WORDED_CONSTANTS: Final = {
    "no solution": Term("constant", (), "empty"),
    "no real solution": Term("constant", (), "empty"),
    "all real numbers": Term("constant", (), "reals"),
    "infinity": Term("constant", (), "infinity"),
    "positive infinity": Term("constant", (), "infinity"),
    "negative infinity": Term("neg", (Term("constant", (), "infinity"),)),
}


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
    answer, reference = renamed(_plain(answer), _plain(reference))
    if answer.op == reference.op == "relation":
        answer = with_argument(answer, reference)
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
    answer, reference = _plain(unlabelled(answer, reference)), _plain(unlabelled(reference, answer))
    if answer == reference:
        return None
    answer, reference = summed_up(answer, reference), summed_up(reference, answer)
    if "quantity" in (answer.op, reference.op) and not (answer.op in COLLECTIONS or reference.op in COLLECTIONS):
        return _compare_quantities(answer, reference, how)
    answer, reference = _expanded(answer), _expanded(reference)
    answer, reference = _lone(answer, reference), _lone(reference, answer)
    if reference.op == "relation" or answer.op == "relation":
        return _compare_relations(answer, reference, how)
    answer, reference = from_basis(answer, reference), from_basis(reference, answer)
    if "matrix" in (reference.op, answer.op) or has_op(reference, "matrix") or has_op(answer, "matrix"):
        return _compare_matrices(answer, reference, how)
    if reference.op in COLLECTIONS or answer.op in COLLECTIONS:
        return _compare_collections(answer, reference, how)
    return _compare_scalars(answer, reference, how)


class _NotMine:
    """Says that a comparer is not for these two."""


NOT_MINE: Final = _NotMine()


def _members(term: Term) -> Term:
    """Return the set of x in S, beside a set such as the integers."""
    return term.args[1] if term.op == "member" and term.args[0].op == "symbol" else term


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


def _compare_quantities(answer: Term, reference: Term, how: How) -> Reason | None:
    answer, reference = as_quantity(answer, reference), as_quantity(reference, answer)
    answer, reference = as_product(answer, reference), as_product(reference, answer)
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
    if says_less(mine, theirs) or says_less(theirs, mine):
        return compare(answer.args[0], reference.args[0], how)
    if mine.label is not None and theirs.label is not None:
        is_same = mine.label == theirs.label or is_same_label(mine.label, theirs.label)
        return compare(answer.args[0], reference.args[0], how) if is_same else Reason.UNIT_MISMATCH
    if mine.label != theirs.label or mine.dimensions != theirs.dimensions:
        return Reason.UNIT_MISMATCH
    if mine.factor == theirs.factor:
        return compare(answer.args[0], reference.args[0], how)
    scaled = Term("mul", (answer.args[0], number(mine.factor / theirs.factor)))
    reason = compare(scaled, reference.args[0], how)
    return Reason.UNIT_MISMATCH if reason is not None and answer.args == reference.args else reason


# --- labels ---------------------------------------------------------------------------------------------------------
def _compare_definitions(answer: Term, reference: Term, how: How) -> Reason | _NotMine | None:
    """Several named values, on either side: by name where both have names, else in the order of the names."""
    mine, theirs = definitions(answer), definitions(reference)
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
    values = vector_of(other) if other.op == "matrix" else other.args
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
    if term.op == "relation" and (found := assignment(term)) is not None:
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


def _compare_matrices(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op == reference.op and answer.value == reference.value == "cases":
        first, second = ([Term("group", row.args, "()") for row in term.args] for term in (answer, reference))
        return _compare_unordered(first, second, how)
    mine, theirs = rows_of(answer), rows_of(reference)
    if mine is None or theirs is None:
        pair = vector_of(answer), vector_of(reference)
        if pair[0] is None or pair[1] is None:
            return Reason.TYPE_MISMATCH
        mine, theirs = [pair[0]], [pair[1]]
    if [len(row) for row in mine] != [len(row) for row in theirs]:
        return Reason.LENGTH_DIFFERS
    cells = [pair for left, right in zip(mine, theirs, strict=True) for pair in zip(left, right, strict=True)]
    return None if _first(compare(left, right, how) for left, right in cells) is None else Reason.VALUE_DIFFERS


# --- relations ------------------------------------------------------------------------------------------------------
def _compare_relations(answer: Term, reference: Term, how: How) -> Reason | None:
    if answer.op != reference.op:
        is_chain = reference.op != "relation" and all(sign in EQUAL_SIGNS for sign in answer.value)
        if is_chain and len(set(answer.args)) > 1:
            value = chain_value(answer.args, answer.value)
            if value is not None and symbols(value):
                return compare(value, reference, how)
        return Reason.TYPE_MISMATCH
    (mine, my_signs), (theirs, their_signs) = directed(answer), directed(reference)
    if len(mine) != len(theirs):
        return Reason.TYPE_MISMATCH
    if my_signs == their_signs and _are_all(mine, theirs, how):
        return None
    if len(mine) > 2:
        return Reason.VALUE_DIFFERS
    if is_solved(theirs) and not is_solved(mine):
        return Reason.TYPE_MISMATCH  # 2x + 1 < 7 is no answer where x < 3 is asked for
    if theirs[0].op == "symbol" and mine[0].op != "symbol" and not symbols(theirs[1]) and my_signs == ("=",):
        return Reason.TYPE_MISMATCH  # nor is 2x = 6 where x = 3 is
    if my_signs[0] in EQUAL_SIGNS and their_signs[0] in EQUAL_SIGNS:
        return compare_equations(mine, theirs)
    if my_signs[0] in ORDER_SIGNS and their_signs[0] in ORDER_SIGNS:
        return compare_inequalities(mine, my_signs[0], theirs, their_signs[0])
    if my_signs == their_signs and my_signs[0] in ("!=", "perp", "parallel") and _are_all(mine[::-1], theirs, how):
        return None
    return Reason.VALUE_DIFFERS


def _are_all(mine: Sequence[Term], theirs: Sequence[Term], how: How) -> bool:
    try:
        return all(_is_equal(left, right, how) for left, right in zip(mine, theirs, strict=True))
    except UndecidedError:
        return False


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
