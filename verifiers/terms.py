"""Answers as trees: what the parser makes of a text, and what the comparers work on.

Part of the mathematics ladder, between ``parser`` and ``values``, ``sets``, ``compare``. A term is a plain immutable
value; two texts that differ in notation alone give equal terms wherever that costs nothing. Computes nothing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, Literal, NamedTuple

from verifiers.limits import MAX_SHOWN_BITS

Op = Literal[
    "number",  # value: Fraction
    "decimal",  # value: Decimal
    "symbol",  # value: its name, subscripts and primes included
    "constant",  # value: one of CONSTANTS
    "add",  # two or more args
    "mul",  # two or more args
    "neg",
    "div",
    "pow",
    "root",  # radicand, index
    "call",  # value: one of FUNCTIONS
    "apply",  # value: the name of an unknown function
    "factorial",
    "double_factorial",
    "percent",
    "degree",
    "plus_minus",  # first +- second; value: +1 or -1, the sign of the first branch
    "group",  # value: both brackets, such as "(]": a tuple or an interval
    "set",
    "builder",  # the set of all args[0] with args[1]
    "items",  # a bare list; value: True where an "or" joins it
    "relation",  # args joined by the signs in value
    "member",  # args[0] in args[1]
    "union",
    "intersection",
    "difference",
    "matrix",  # args: rows
    "row",
    "based",  # value: Based
    "ratio",
    "text",  # value: words, normalised
    "quantity",  # value: units.Unit
]

CONSTANTS: Final = frozenset(
    {"pi", "e", "i", "infinity", "reals", "integers", "naturals", "rationals", "complexes", "empty"}
)
SETS: Final = frozenset({"reals", "integers", "naturals", "rationals", "complexes", "empty"})
COLLECTIONS: Final = ("group", "set", "items", "matrix")


class Term(NamedTuple):
    """A node: what it is, what it is made of, and the value that belongs to its kind."""

    op: Op
    args: tuple[Term, ...] = ()
    value: Any = None


class Decimal(NamedTuple):
    """A decimal as written: exact value, digits after the point, significant digits."""

    value: Fraction
    num_decimals: int
    num_digits: int


class Based(NamedTuple):
    """A number written in a base: digits without leading zeros, base."""

    digits: str
    base: int


class NotParsedError(ValueError):
    """The text is no formula that we read; ``is_for_sympy`` where a computer algebra system may know it."""

    def __init__(self, message: str, *, is_for_sympy: bool = False) -> None:
        super().__init__(message)
        self.is_for_sympy = is_for_sympy


class TooDeepError(ValueError):
    """Brackets, fractions or powers are nested beyond ``MAX_DEPTH``."""


class TooBigError(ValueError):
    """A number is too long to compute with."""


def number(value: int | Fraction) -> Term:
    """Return the term of an exact number."""
    return Term("number", (), Fraction(value))


def negated(term: Term) -> Term:
    """Return minus the term; a number stays a number."""
    if term.op == "number":
        return Term("number", (), -term.value)
    if term.op == "decimal":
        return Term("decimal", (), term.value._replace(value=-term.value.value))
    return term.args[0] if term.op == "neg" else Term("neg", (term,))


def walk(term: Term) -> list[Term]:
    """Return the term and all terms inside it, outer ones first."""
    nodes = [term]
    for node in nodes:  # grows while it is read
        if node.args:
            nodes.extend(node.args)
    return nodes


def depth_of(term: Term) -> int:
    """Return how many levels the tree has."""
    depth, level = 0, [term]
    while level:
        depth += 1
        level = [arg for node in level for arg in node.args]
    return depth


def symbols(*terms: Term) -> list[str]:
    """Return the names of the variables, in order; the functions that are not known are none."""
    return sorted({node.value for term in terms for node in walk(term) if node.op == "symbol"})


def has_op(term: Term, *ops: str) -> bool:
    """Return whether a node of one of these kinds is in the term."""
    return any(node.op in ops for node in walk(term))


def has_constant(term: Term, *names: str) -> bool:
    """Return whether one of these constants is in the term."""
    return any(node.op == "constant" and node.value in names for node in walk(term))


def has_operator(term: Term) -> bool:
    """Return whether a sum, product, integral or limit stands there, not worked out."""
    return any(node.op == "apply" and node.value.startswith("\\") for node in walk(term))


def is_label(term: Term) -> bool:
    """Return whether the term can name a value: x, x_1, f(x), AB, |AB|, A:B, \\Delta p, \\angle ABC; not x + 1, xy."""
    match term.op:
        case "symbol":
            return True
        case "apply":
            return not has_operator(term)
        case "constant":
            return term.value in ("e", "i")
        case "mul":
            first = term.args[0]
            return all(map(_is_name, term.args[1:])) and (_is_name(first) or first == Term("symbol", (), "m"))
        case "ratio" | "div":
            return all(map(_is_name, term.args))
        case "call":
            return term.value == "abs" and (_is_name(term.args[0]) or term.args[0].value in SIZED)
        case "group":
            return term.value == "()" and all(arg.op == "symbol" for arg in term.args)
        case _:
            return False


SIZED: Final = frozenset("zwuvab")  # letters whose absolute value is a thing to ask for; of x it is half an equation


def _is_name(term: Term) -> bool:
    """Return whether a factor belongs to a name: a capital, or a symbol with a name of its own; AB, \\Delta p."""
    if term.op == "mul":
        return all(_is_name(arg) for arg in term.args)
    return term.op == "symbol" and (term.value[:1].isupper() or len(term.value) > 1 or term.value in SIZED)


_BRACKETS: Final = {"add": ("", " + ", ""), "mul": ("", "*", ""), "div": ("", "/", ""), "pow": ("", "^", "")}


def text_of(term: Term) -> str:
    """Return the normal form for readers, in plain notation with every grouping shown."""
    match term.op:
        case "number":
            return _number_text(term.value)
        case "decimal":
            return _number_text(term.value.value)
        case "symbol" | "constant" | "text":
            return str(term.value)
        case "neg":
            return f"-{_inner(term.args[0])}"
        case "add" | "mul" | "div" | "pow":
            return _BRACKETS[term.op][1].join(_inner(arg) for arg in term.args)
        case "root":
            return f"root({text_of(term.args[0])}, {text_of(term.args[1])})"
        case "call" | "apply":
            return f"{term.value}({_listed(term)})"
        case "group":
            return f"{term.value[0]}{_listed(term)}{term.value[1]}"
        case "set":
            return f"{{{_listed(term)}}}"
        case "items":
            return (" or " if term.value else ", ").join(map(text_of, term.args))
        case "relation":
            parts = [text_of(term.args[0])]
            for sign, side in zip(term.value, term.args[1:], strict=True):
                parts += [sign, text_of(side)]
            return " ".join(parts)
        case "based":
            return f"{term.value.digits}_{term.value.base}"
        case "quantity":
            dimensions = "*".join(f"{name}^{power}" for name, power in term.value.dimensions)
            return f"{text_of(term.args[0])} [{term.value.label or f'{term.value.factor} {dimensions}'}]"
        case _:
            return f"{term.op}({_listed(term)})"


def _number_text(value: Fraction) -> str:
    bits = max(abs(value.numerator).bit_length(), value.denominator.bit_length())
    return str(value) if bits <= MAX_SHOWN_BITS else f"<{bits} bits>"


def _listed(term: Term) -> str:
    return ", ".join(map(text_of, term.args))


def _inner(term: Term) -> str:
    text = text_of(term)
    return text if term.op in ("number", "symbol", "constant", "call", "apply", "root") else f"({text})"
