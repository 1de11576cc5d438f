"""Asserts rewritten into calls, whose answers are compared here and not where the program runs.

``assert f(2) == 4`` becomes the call f(2) and a claim about its value. A claim is checked by walking the test's own
syntax tree over plain values: constants, containers, comparisons, numbers, and a closed list of functions; nothing is
evaluated as code, and no method of a value is called. What cannot be said this way (loops, helper functions,
attributes) is None, and runs in a process of its own (``sandbox.proxies``). Follows ``assert`` statements of MBPP and
HumanEval's ``check``.
"""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from verifiers.limits import MAX_CLAIM_BITS, MAX_CLAIM_ITEMS
from verifiers.sandbox import wire

_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.USub: operator.neg,
    ast.UAdd: operator.pos, ast.Invert: operator.invert, ast.Not: operator.not_,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_,
    ast.IsNot: operator.is_not, ast.In: lambda item, holder: item in holder,
    ast.NotIn: lambda item, holder: item not in holder,
}  # fmt: skip
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs, "all": all, "any": any, "bool": bool, "complex": complex, "dict": dict, "float": float,
    "frozenset": frozenset, "int": int, "len": len, "list": list, "max": max, "min": min, "round": round, "set": set,
    "sorted": sorted, "str": str, "sum": lambda items: sum(map(operator.pos, items)), "tuple": tuple, "type": type,
    "isinstance": isinstance,
    "math.isclose": math.isclose, "math.fabs": math.fabs, "math.sqrt": math.sqrt, "math.floor": math.floor,
    "math.ceil": math.ceil, "math.isnan": math.isnan, "math.isinf": math.isinf, "Counter": Counter, "deque": deque,
    "Fraction": Fraction, "Decimal": Decimal,
}  # fmt: skip
_TYPES: Final = {kind.__name__: kind for kind in (bool, complex, dict, float, frozenset, int, list, set, str, tuple)}
_CONSTANTS: Final = {"math.inf": math.inf, "math.nan": math.nan, "math.pi": math.pi, "math.e": math.e}
_NUMBERS: Final = (int, float, complex, Fraction, Decimal)


class _NotSayable(Exception):
    """The expression is beyond what is walked here."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one assert says of the values of its calls; ``calls`` are lines of arguments."""

    expression: ast.expr
    calls: tuple[str, ...]
    entries: frozenset[str]

    def holds(self, values: list[Any]) -> bool:
        """Return whether the assert holds for these values of its calls, in their order.

        Raises:
            ValueError: If it cannot be said of them: their types do not fit the assert.
        """
        try:
            return bool(_Walk(self.entries, list(values)).value(self.expression))
        except (_NotSayable, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from error


def rewrite(source: str, entry: str) -> list[Claim] | None:
    """Return the claims of a test source in their order, or None if it says more than can be rewritten.

    The source is asserts, or one function ``check(candidate)`` of asserts, with assignments of constants among them.
    """
    try:
        body = ast.parse(source).body
        names = {entry, "candidate"}
        checks = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "check"]
        if len(checks) == 1 and len(checks[0].args.args) == 1:
            names = {checks[0].args.args[0].arg}
            body = [*(node for node in body if not _is_check(node)), *checks[0].body]
        claims = [_claim(node.test, names) for node in body if isinstance(node, ast.Assert)]
    except (_NotSayable, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError):
        return None
    others = [node for node in body if not isinstance(node, ast.Assert) and not _says_nothing(node)]
    return None if others or not claims else claims


def _is_check(node: ast.stmt) -> bool:
    """Return whether a statement is the check itself, or its call at the end, which happens anyway."""
    if isinstance(node, ast.FunctionDef):
        return node.name == "check"
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check"


def _says_nothing(node: ast.stmt) -> bool:
    """Return whether a statement does nothing to the asserts: a docstring, an import, HumanEval's METADATA."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)] == ["METADATA"]
    return isinstance(node, (ast.Pass, ast.Import, ast.ImportFrom)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _claim(expression: ast.expr, names: set[str]) -> Claim:
    calls: list[str] = []
    for node in _in_order(expression):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
                raise _NotSayable
            values = [_Walk(frozenset(), []).value(argument) for argument in node.args]
            calls.append(wire.dumps(values))
    claim = Claim(expression, tuple(calls), frozenset(names))
    _Walk(frozenset(names), None).value(expression)  # raises where it cannot be said of any value
    return claim


def _in_order(node: ast.AST) -> list[ast.AST]:
    """Return the nodes below one in the order in which they are evaluated: calls after their arguments."""
    below = [found for child in ast.iter_child_nodes(node) for found in _in_order(child)]
    return [*below, node]


class _Unknown:
    """Stands for any value while a claim is only looked through."""


_UNKNOWN: Final = _Unknown()


class _Walk:
    """A walk over an expression; ``values`` are those of the entry's calls, None while it is only looked through."""

    def __init__(self, entries: frozenset[str], values: list[Any] | None) -> None:
        self._entries = entries
        self._values = values

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression."""
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name) if name in _TYPES:
                return _TYPES[name]
            case ast.Attribute(value=ast.Name(id=module), attr=name) if f"{module}.{name}" in _CONSTANTS:
                return _CONSTANTS[f"{module}.{name}"]
            case ast.List(elts=items):
                return self._made(list, [self.value(item) for item in items])
            case ast.Tuple(elts=items):
                return self._made(tuple, [self.value(item) for item in items])
            case ast.Set(elts=items):
                return self._made(set, [self.value(item) for item in items])
            case ast.Dict(keys=keys, values=values) if None not in keys:
                named = [(self.value(key), self.value(item)) for key, item in zip(keys, values, strict=True) if key]
                return self._made(lambda pairs: dict(pairs), named)
            case ast.UnaryOp(op=op, operand=operand):
                return self._done(type(op), self.value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return self._done(type(op), self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=values):
                return self._joined(isinstance(op, ast.And), values)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._compared(left, ops, others)
            case ast.Call(func=ast.Name(id=name)) if name in self._entries:
                return self._answer(node)
            case ast.Call(func=function, args=args, keywords=keywords):
                return self._called(_name_of(function), args, keywords)
            case ast.Subscript(value=holder, slice=ast.expr() as index) if not isinstance(index, ast.Slice):
                return self._item(self.value(holder), self.value(index))
            case _:
                raise _NotSayable(type(node).__name__)

    def _made(self, kind: Callable[[list[Any]], Any], items: list[Any]) -> Any:
        return _UNKNOWN if _is_unknown(items) else kind(items)

    def _answer(self, node: ast.Call) -> Any:
        for argument in node.args:
            self.value(argument)
        return _UNKNOWN if self._values is None else self._values.pop(0)

    def _done(self, kind: type[ast.AST], *operands: Any) -> Any:
        if kind not in _OPERATORS:
            raise _NotSayable(kind.__name__)
        if _is_unknown(operands):
            return _UNKNOWN
        if kind in (ast.Pow, ast.Mult, ast.Add, ast.Mod):
            _check_size(kind, operands)
        return _OPERATORS[kind](*operands)

    def _joined(self, is_and: bool, nodes: list[ast.expr]) -> Any:
        """All sides are walked, so that each answer is taken; the calls were made anyway."""
        values = [self.value(node) for node in nodes]
        if _is_unknown(values):
            return _UNKNOWN
        return next((item for item in values[:-1] if bool(item) != is_and), values[-1])

    def _compared(self, left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr]) -> Any:
        values = [self.value(left), *(self.value(node) for node in others)]
        if any(type(op) not in _OPERATORS for op in ops):
            raise _NotSayable
        if _is_unknown(values):
            return _UNKNOWN
        pairs = zip(ops, values, values[1:], strict=False)
        return all(_OPERATORS[type(op)](first, second) for op, first, second in pairs)

    def _called(self, name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        if name not in _FUNCTIONS or any(keyword.arg is None for keyword in keywords):
            raise _NotSayable(name)
        values = [self.value(argument) for argument in args]
        named = {str(keyword.arg): self.value(keyword.value) for keyword in keywords}
        if _is_unknown([*values, *named.values()]):
            return _UNKNOWN
        return _FUNCTIONS[name](*values, **named)

    def _item(self, holder: Any, index: Any) -> Any:
        return _UNKNOWN if _is_unknown((holder, index)) else holder[index]


def _is_unknown(values: Any) -> bool:
    return any(value is _UNKNOWN for value in values)


def _name_of(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return f"{module}.{name}"
        case _:
            raise _NotSayable


def _check_size(kind: type[ast.AST], operands: tuple[Any, ...]) -> None:
    """Refuse what would take long or much: a repeated text, a high power."""
    if kind is ast.Add and all(isinstance(item, (str, list, tuple)) for item in operands):
        if sum(map(len, operands)) > MAX_CLAIM_ITEMS:
            raise _NotSayable("too long")
        return
    if kind is ast.Mult and any(isinstance(item, (str, list, tuple)) for item in operands):
        sizes = [len(item) if isinstance(item, (str, list, tuple)) else item for item in operands]
        if not all(isinstance(size, int) for size in sizes) or math.prod(sizes) > MAX_CLAIM_ITEMS:
            raise _NotSayable("too long")
        return
    if not all(isinstance(item, _NUMBERS) for item in operands):
        raise _NotSayable("no numbers")
    if kind is ast.Pow:
        base, exponent = operands
        bits = 1.0 if isinstance(base, (float, complex)) else float(sum(map(_bits, (base, exponent))))
        if bits * abs(complex(exponent)) > MAX_CLAIM_BITS and not isinstance(exponent, float):
            raise _NotSayable("too big")


def _bits(number: Any) -> int:
    if isinstance(number, Fraction):
        return number.numerator.bit_length() + number.denominator.bit_length()
    return number.bit_length() if isinstance(number, int) else 64
