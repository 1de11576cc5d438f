"""Terms as balls: real and complex numbers with rigorous error bounds.

The arithmetic is Arb's (Johansson 2017, doi:10.1109/TC.2017.2690633), as part of FLINT. Part of the mathematics ladder,
under ``values`` and ``sets``. Evaluates at given points of the variables and decides
nothing. What is undefined, or beyond what a ball can hold, is a ball that is not finite, never an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from flint import acb, arb, ctx, fmpq

from verifiers.limits import MAX_BALL_BITS
from verifiers.modular import seed
from verifiers.rationals import exact_or_none
from verifiers.terms import Term

_precision_lock = threading.RLock()  # the precision is one of the whole process


FLAT: Final = frozenset({"tanh", "coth", "sech", "csch", "artanh"})  # that come close to a constant far out


class NotScalarError(ValueError):
    """The term is no number and no function: a set, words, a relation."""


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Compute balls with so many bits inside; one thread at a time."""
    with _precision_lock:
        before = ctx.prec
        ctx.prec = bits
        try:
            yield
        finally:
            ctx.prec = before


Point = Mapping[str, Any]

_METHODS: Final = {
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "cot": "cot",
    "sec": "sec",
    "csc": "csc",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "coth": "coth",
    "sech": "sech",
    "csch": "csch",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arsinh": "asinh",
    "arcosh": "acosh",
    "artanh": "atanh",
    "exp": "exp",
    "ln": "log",
}


class Evaluator:
    """Evaluates terms to balls at one point, over the reals or the complex numbers; what is undefined is not finite."""

    def __init__(self, point: Point, *, is_complex: bool, log_base: int | None = None) -> None:
        self.point, self.is_complex, self.log_base = point, is_complex, log_base
        self.make: Any = acb if is_complex else arb
        self.scale = arb(0)  # the largest that was added up: what a difference of sums is small beside

    def __call__(self, term: Term) -> Any:
        method = _OPS.get(term.op)
        if method is None:
            raise NotScalarError(term.op)
        return method(self, term)

    def number(self, term: Term) -> Any:
        return self.make(fmpq(term.value.numerator, term.value.denominator))

    def decimal(self, term: Term) -> Any:
        return self.make(fmpq(term.value.value.numerator, term.value.value.denominator))

    def symbol(self, term: Term) -> Any:
        return self.make(self.point[term.value])

    def add(self, term: Term) -> Any:
        total = self.make(0)
        for arg in term.args:
            ball = self(arg)
            self.scale = self.scale.max(arb(abs(ball).abs_upper()))
            total += ball
        return total

    def mul(self, term: Term) -> Any:
        total = self(term.args[0])
        for arg in term.args[1:]:
            total *= self(arg)
        return total

    def neg(self, term: Term) -> Any:
        return -self(term.args[0])

    def div(self, term: Term) -> Any:
        return self(term.args[0]) / self(term.args[1])

    def ratio(self, term: Term) -> Any:
        if len(term.args) != 2:
            raise NotScalarError("ratio")
        return self.div(term)

    def percent(self, term: Term) -> Any:
        return self(term.args[0]) / 100

    def degree(self, term: Term) -> Any:
        return self(term.args[0]) * self.make(arb.pi()) / 180

    def factorial(self, term: Term) -> Any:
        return (self(term.args[0]) + 1).gamma()

    def constant(self, term: Term) -> Any:
        match term.value:
            case "pi":
                return self.make(arb.pi())
            case "e":
                return self.make(arb.const_e())
            case "i":
                return acb(0, 1) if self.is_complex else arb.nan()
            case "infinity":
                return self.make(arb.pos_inf())
            case _:
                raise NotScalarError(term.value)

    def power(self, term: Term) -> Any:
        base, exponent = term.args
        power = exact_or_none(exponent)
        if power is None:
            if base == Term("constant", (), "e"):
                return self(exponent).exp()
            ball = self(base)
            if not self.is_complex and not ball > 0:
                return arb.nan()
            return ball ** self(exponent)
        ball = self(base)
        if power.q == 1:
            return ball ** int(power.p)
        if int(power.q) % 2 == 1:  # the real power of a negative number, as (-8)^(1/3) is meant
            sign = self.sign(ball)
            if sign < 0:
                size = (-ball) ** self.make(power)
                return -size if int(power.p) % 2 else size
            if sign == 0 and power > 0:
                return self.make(0)
        if not self.is_complex and not ball >= 0:
            return arb.nan()
        return ball ** self.make(power)

    def root(self, term: Term) -> Any:
        radicand, index = term.args
        ball, order = self(radicand), exact_or_none(index)
        if order is None:
            return ball ** (1 / self(index))
        if order == 2:
            return ball.sqrt()
        if order.q != 1 or order <= 0 or order > 10_000:
            return ball ** (1 / self.make(order))
        number = int(order.p)
        if number % 2 == 1 and self.sign(ball) < 0:
            return -((-ball).root(number))
        return ball.root(number)

    def sign(self, ball: Any) -> int:
        """Return the sign of a ball that is real and not around zero, else 0 (for zero itself too)."""
        if self.is_complex:
            if not ball.imag.is_zero():
                return 1  # principal values for what is not real
            ball = ball.real
        return int(bool(ball > 0)) - int(bool(ball < 0))

    def call(self, term: Term) -> Any:
        name, values = term.value, [self(arg) for arg in term.args]
        if name in _METHODS and len(values) == 1:
            return getattr(values[0], _METHODS[name])()
        first = values[0]
        match name, len(values):
            case "log", 1:
                return first.log() if self.log_base is None else first.log() / self.make(self.log_base).log()
            case "log", 2:
                return first.log() / values[1].log()
            case "lg", 1:
                return first.log() / self.make(10).log()
            case "arccot", 1:
                return self.make(arb.pi()) / 2 - first.atan()
            case "arcsec", 1:
                return (1 / first).acos()
            case "arccsc", 1:
                return (1 / first).asin()
            case "abs", 1:
                return self.make(abs(first))
            case "binom" | "nCr", 2:
                return (first + 1).gamma() * (values[1] + 1).rgamma() * (first - values[1] + 1).rgamma()
            case "nPr", 2:
                return (first + 1).gamma() * (first - values[1] + 1).rgamma()
            case (("Re" | "Im" | "conj" | "arg"), 1):
                return acb(self.part(name, first)) if self.is_complex else arb.nan()
        if self.is_complex:
            if not all(value.imag.is_zero() for value in values):
                return acb(arb.nan())
            return acb(self.real_call(name, [value.real for value in values]))
        return self.real_call(name, values)

    @staticmethod
    def part(name: str, ball: acb) -> Any:
        match name:
            case "Re":
                return ball.real
            case "Im":
                return ball.imag
            case "arg":
                return ball.arg()
            case _:
                return ball.conjugate()

    @staticmethod
    def real_call(name: str, values: list[Any]) -> Any:
        match name, len(values):
            case "floor", 1:
                return values[0].floor()
            case "ceil", 1:
                return values[0].ceil()
            case "sgn", 1:
                return values[0].sgn()
            case "min", _:
                total = values[0]
                for value in values[1:]:
                    total = total.min(value)
                return total
            case "max", _:
                total = values[0]
                for value in values[1:]:
                    total = total.max(value)
                return total
            case "mod", 2:
                return values[0] - values[1] * (values[0] / values[1]).floor()
            case _:
                return _opaque(name, values)

    def apply(self, term: Term) -> Any:
        """An unknown function as a fixed polynomial of its arguments: f(2x) and f(x+x) agree, 2 f(x) does not."""
        return _opaque(term.value, [self(arg) for arg in term.args])


_OPS: Final[dict[str, Callable[[Evaluator, Term], Any]]] = {
    "number": Evaluator.number,
    "decimal": Evaluator.decimal,
    "symbol": Evaluator.symbol,
    "constant": Evaluator.constant,
    "add": Evaluator.add,
    "mul": Evaluator.mul,
    "neg": Evaluator.neg,
    "div": Evaluator.div,
    "ratio": Evaluator.ratio,
    "percent": Evaluator.percent,
    "degree": Evaluator.degree,
    "pow": Evaluator.power,
    "root": Evaluator.root,
    "factorial": Evaluator.factorial,
    "call": Evaluator.call,
    "apply": Evaluator.apply,
}


def real_ball(term: Term) -> Any:
    """Return the ball of a real constant in the present precision; not finite where it has no real value."""
    return Evaluator({}, is_complex=False)(term)


def infinite_sign(term: Term) -> int:
    """Return 1 or -1 for plus or minus infinity, else 0."""
    if term.op == "neg":
        return -infinite_sign(term.args[0])
    return int(term.op == "constant" and term.value == "infinity")


def _opaque(name: str, values: list[Any]) -> Any:
    """Return a fixed polynomial of the arguments, neither odd nor additive; of gcd and lcm a symmetric one."""
    total = type(values[0])(seed(f"function {name}", 3) % 1_009) / 97
    product = total
    for place, ball in enumerate(values):
        order = 0 if name in ("gcd", "lcm") else place
        total += (ball + 2 * ball**2 + ball**3) * (seed(f"function {name} {order}", 3) % 1_013 + 1) / 89
        product *= ball + order + 1
    return total + product


class Reach(Evaluator):
    """An evaluator that notes in ``bits`` how far from 1 the largest and the smallest value on its way are.

    As many bits (and some more) are needed before a difference of two such values can be trusted to show.
    """

    def __init__(self, point: Point, *, is_complex: bool, log_base: int | None = None) -> None:
        super().__init__(point, is_complex=is_complex, log_base=log_base)
        self.bits = 0

    def __call__(self, term: Term) -> Any:
        ball = super().__call__(term)
        size = arb(abs(ball).abs_upper())
        if size > 0 and size.is_finite():
            self.note(abs(size.log()))
        if term.op == "call" and term.value in FLAT:  # tanh 1000 is 1 but for 2 e^-2000
            self.note(3 * arb(abs(self.flat_argument(term)).abs_upper()))
        return ball

    def flat_argument(self, term: Term) -> Any:
        return super().__call__(term.args[0])

    def note(self, nats: arb) -> None:
        if not nats.is_finite() or nats > MAX_BALL_BITS:
            self.bits = MAX_BALL_BITS + 1
        else:
            self.bits = max(self.bits, int(float(nats.mid()) * 1.45) + 1)
