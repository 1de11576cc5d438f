"""What names stand for in an answer: x = 5, f(x) = x^2, k = 45 and n = 2, a constant C that each may name as it likes.

Part of ``compare``: reads terms and returns terms, compares nothing but the sides of one chain of equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from verifiers.balls import NotScalarError
from verifiers.sets import is_set_like
from verifiers.terms import COLLECTIONS, Term, is_label, symbols, walk
from verifiers.values import TooFarError, same_value

EQUAL_SIGNS: Final = ("=", "~", ":=", "~=")


def renamed(answer: Term, reference: Term) -> tuple[Term, Term]:
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


def _substituted(term: Term, names: dict[str, str]) -> Term:
    if term.op == "symbol":
        return term._replace(value=names.get(term.value, term.value))
    return term._replace(args=tuple(_substituted(arg, names) for arg in term.args)) if term.args else term


def with_argument(answer: Term, reference: Term) -> Term:
    """Return f(t) = t^2 beside f(x) = x^2 with the letter that the reference has."""
    mine, theirs = answer.args[0], reference.args[0]
    if (mine.op, mine.value) != (theirs.op, theirs.value) or mine.op != "apply":
        return answer
    known, wanted = ([arg.value for arg in term.args if arg.op == "symbol"] for term in (mine, theirs))
    if not len(known) == len(wanted) == len(mine.args) == len(theirs.args) == 1 or wanted[0] in symbols(answer):
        return answer
    return _substituted(answer, {known[0]: wanted[0]})


def assignment(term: Term) -> tuple[Term, Term] | None:
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
    value = chain_value(sides, signs)
    if value is None or (label.op == "group") != (value.op in ("group", "items") and label.op == "group"):
        return None
    return label, value


def _mentions(sides: Sequence[Term], label: Term) -> bool:
    if label.op == "apply":
        return any(node.op == "apply" and node.value == label.value for side in sides for node in walk(side))
    names = set(symbols(label))
    return any(names & set(symbols(side)) for side in sides)


def chain_value(sides: Sequence[Term], signs: Sequence[str]) -> Term | None:
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


def unlabelled(term: Term, other: Term) -> Term:
    """Return x = 5 as 5 beside what has no name; a relation beside a relation stays one."""
    if term.op == "relation" and other.op in ("relation", "member"):
        mine, theirs = assignment(term), assignment(other)
        if mine is not None and theirs is not None and _is_same_name(mine[0], theirs[0]):
            return mine[1]
        return term
    if term.op == "member" and other.op in COLLECTIONS:
        return term if is_set_like(other) or is_set_like(term) else term.args[1]
    if term.op == "relation":
        found = assignment(term)
        if found is not None:
            return found[1]
        if all(sign in EQUAL_SIGNS for sign in term.value) and not symbols(term) and len(set(term.args)) > 1:
            return chain_value(term.args, term.value) or term
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
    found = [assignment(arg) if arg.op == "relation" else None for arg in term.args]
    named = [part for part in found if part is not None]
    if not named or len({part[0] for part in named}) != 1:
        return term
    values = tuple(arg if part is None else part[1] for arg, part in zip(term.args, found, strict=True))
    return term._replace(args=values, value=True)  # one name, several values: in no order


def definitions(term: Term) -> dict[Term, Term] | None:
    """Return what a list of assignments to several names says, in its order: k = 45, n = 2; (x, y) = (1, 2)."""
    if term.op in ("items", "set", "group") and term.value is not True:
        found = [assignment(arg) for arg in term.args]
        if all(part is not None for part in found):
            named = {part[0]: part[1] for part in found if part is not None}
            return named if len(named) == len(found) > 1 else None
    if term.op == "relation" and term.value == ("=",) and term.args[0].op == term.args[1].op == "group":
        names, values = term.args[0].args, term.args[1].args
        if len(names) == len(values) and all(is_label(name) for name in names) and len(set(names)) == len(names):
            return dict(zip(names, values, strict=True))
    return None
