"""Whether two scalar terms are the same number or the same function: exactly where possible, else by rigorous balls.

Part of the mathematics ladder. Three ways, in this order: rational arithmetic (``exact``); arithmetic modulo two
primes, which decides rational functions and integer powers of any size (Schwartz 1980, doi:10.1145/322217.322225); ball
arithmetic (Arb: Johansson 2017, doi:10.1109/TC.2017.2690633), where disjoint balls prove a difference, and sameness
means agreement to 300 digits for constants and at a dozen points for functions. No absolute tolerance, no float, no
sympy. Variables are real: a point where either side is not real is outside the domain, and a letter i is the imaginary
unit. Time is bounded by the caps in ``limits``.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Any, Final

from flint import acb, arb, ctx, fmpq, fmpz

from verifiers.limits import EXACT_DECIMAL_DIGITS, MAX_EXACT_BITS, MAX_FACTORIAL, MAX_MODULAR_FACTORIAL
from verifiers.terms import Term, has_constant, has_op, symbols

LOW_BITS: Final = 128  # of a ball: shows nearly every difference
HIGH_BITS: Final = 1_088  # more than 300 digits: shows the others
POINT_BITS: Final = 192  # at a random point a difference is not tiny
PRIMES: Final = (2305843009213693921, 2305843009213693693)  # just below 2^61, both 1 mod 4: -1 has a root
NUM_POINTS: Final = 12
MIN_REAL_POINTS: Final = 3  # fewer points where both sides are real say too little (guess)
NUM_COMPLEX_POINTS: Final = 4
# Ranges that the points come from: small, below 1 (arcsin), large (roots of x - 5), negative, mixed.
_FIRST_RANGES: Final = ((1, 3), (0, 1), (5, 60), (-3, 0), (-1, 1), (0, 2))
RANGES: Final = (*_FIRST_RANGES, (-40, 40), (-30, -5), (0, 1), (-1, 1), (-9_000, -2_000), (2_000, 9_000))

_precision_lock = threading.RLock()  # the precision is one of the whole process


class UndefinedError(ArithmeticError):
    """The term has no value: a division by zero."""


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


# --- rational numbers -----------------------------------------------------------------------------------------------
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
    return found if _bits(found) <= MAX_EXACT_BITS else None


def _bits(value: fmpq) -> int:
    return max(int(value.p).bit_length(), int(value.q).bit_length())


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
        if _bits(total) > MAX_EXACT_BITS:
            return None
    return total


def _capped(value: fmpq) -> fmpq | None:
    return value if _bits(value) <= MAX_EXACT_BITS else None


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
    if _bits(base) * abs(power) > MAX_EXACT_BITS + 64:
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


# --- modulo a prime -------------------------------------------------------------------------------------------------
class _NotModularError(Exception):
    """The term is no rational function with integer powers, or has a pole at the point."""


def _seed(name: str, salt: int) -> int:
    """Return a number that depends on a name alone, the same in every process: points must not vary."""
    text = f"{name}/{salt}".encode("utf-8", "surrogatepass")
    return (zlib.crc32(text) << 32 | zlib.crc32(text[::-1] + b"?")) * 2_654_435_761 + 97


def modular(term: Term, prime: int, salt: int) -> int:
    """Return the term modulo a prime, its variables (and pi, e) at values that ``salt`` chooses.

    Variables are whole numbers there, so that they may stand in exponents. Raises _NotModularError.
    """
    match term.op:
        case "number" | "decimal":
            value = term.value if term.op == "number" else term.value.value
            return int(value.numerator) * _inverse(value.denominator, prime) % prime
        case "symbol":
            return _seed(term.value, salt) % (1 << 59)
        case "constant":
            if term.value == "i":
                return _root_of_minus_one(prime)
            if term.value in ("pi", "e"):
                return _seed(f"constant {term.value}", salt) % prime
            raise _NotModularError
        case "neg":
            return -modular(term.args[0], prime, salt) % prime
        case "percent":
            return modular(term.args[0], prime, salt) * _inverse(100, prime) % prime
        case "add":
            total = 0
            for arg in term.args:
                total += modular(arg, prime, salt)
            return total % prime
        case "mul":
            product = 1
            for arg in term.args:
                product = product * modular(arg, prime, salt) % prime
            return product
        case "div":
            return modular(term.args[0], prime, salt) * _inverse(modular(term.args[1], prime, salt), prime) % prime
        case "pow":
            base = modular(term.args[0], prime, salt)
            if term.args[0] == Term("constant", (), "e"):
                raise _NotModularError
            power = _whole(term.args[1], prime - 1, salt)
            if base == 0:
                raise _NotModularError
            return pow(base, power, prime)
        case "root":
            value = exact(term)
            if value is None:
                raise _NotModularError
            return int(value.p) * _inverse(int(value.q), prime) % prime
        case "factorial":
            count = exact(term.args[0])
            if count is None or count.q != 1 or not 0 <= count <= MAX_MODULAR_FACTORIAL:
                raise _NotModularError
            product = 1
            for factor in range(2, int(count.p) + 1):
                product = product * factor % prime
            return product
        case "apply":
            total = _seed(f"function {term.value}", salt) % prime
            for place, arg in enumerate(term.args):
                point = modular(arg, prime, salt)
                total += _seed(f"function {term.value} {place}", salt) * (point + pow(point, 3, prime))
            return total % prime
        case _:
            raise _NotModularError


def _inverse(value: int, prime: int) -> int:
    try:
        return pow(value, -1, prime)
    except ValueError as error:
        raise _NotModularError from error


def _whole(term: Term, modulus: int, salt: int) -> int:
    """Return an exponent: whole for whole values of its variables, reduced by Fermat's little theorem."""
    value = exact(term)
    if value is not None:
        if value.q != 1:
            raise _NotModularError
        return int(value.p) % modulus
    match term.op:
        case "symbol":
            return _seed(term.value, salt) % (1 << 59)
        case "neg":
            return -_whole(term.args[0], modulus, salt) % modulus
        case "add":
            return sum(_whole(arg, modulus, salt) for arg in term.args) % modulus
        case "mul":
            product = 1
            for arg in term.args:
                product = product * _whole(arg, modulus, salt) % modulus
            return product
        case "pow":
            power = exact(term.args[1])
            if power is None or power.q != 1 or power < 0:
                raise _NotModularError
            return pow(_whole(term.args[0], modulus, salt), int(power.p), modulus)
        case _:
            raise _NotModularError


@cache
def _root_of_minus_one(prime: int) -> int:
    base = 2
    while pow(base, (prime - 1) // 2, prime) != prime - 1:
        base += 1
    return pow(base, (prime - 1) // 4, prime)


def _same_modular(left: Term, right: Term) -> bool | None:
    """Return whether two terms are the same rational function, or None where they are none."""
    try:
        return all(
            modular(left, prime, salt) == modular(right, prime, salt)
            for prime, salt in zip(PRIMES, (1, 2), strict=True)
        )
    except _NotModularError:
        return None


# --- balls ----------------------------------------------------------------------------------------------------------
Ball = arb | acb
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


class _Evaluator:
    """Evaluates terms to balls at one point, over the reals or the complex numbers; what is undefined is not finite."""

    def __init__(self, point: Point, *, is_complex: bool, log_base: int | None = None) -> None:
        self.point, self.is_complex, self.log_base = point, is_complex, log_base
        self.make: Any = acb if is_complex else arb

    def __call__(self, term: Term) -> Any:
        match term.op:
            case "number":
                return self.make(fmpq(term.value.numerator, term.value.denominator))
            case "decimal":
                return self.make(fmpq(term.value.value.numerator, term.value.value.denominator))
            case "symbol":
                return self.make(self.point[term.value])
            case "constant":
                return self.constant(term.value)
            case "add":
                total = self(term.args[0])
                for arg in term.args[1:]:
                    total = total + self(arg)
                return total
            case "mul":
                total = self(term.args[0])
                for arg in term.args[1:]:
                    total = total * self(arg)
                return total
            case "neg":
                return -self(term.args[0])
            case "div":
                return self(term.args[0]) / self(term.args[1])
            case "ratio" if len(term.args) == 2:
                return self(term.args[0]) / self(term.args[1])
            case "percent":
                return self(term.args[0]) / 100
            case "degree":
                return self(term.args[0]) * self.make(arb.pi()) / 180
            case "pow":
                return self.power(*term.args)
            case "root":
                return self.root(*term.args)
            case "factorial":
                return (self(term.args[0]) + 1).gamma()
            case "call":
                return self.call(term.value, term.args)
            case "apply":
                return self.apply(term)
            case _:
                raise NotScalarError(term.op)

    def constant(self, name: str) -> Any:
        match name:
            case "pi":
                return self.make(arb.pi())
            case "e":
                return self.make(arb.const_e())
            case "i":
                return acb(0, 1) if self.is_complex else arb.nan()
            case "infinity":
                return self.make(arb.pos_inf())
            case _:
                raise NotScalarError(name)

    def power(self, base: Term, exponent: Term) -> Any:
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

    def root(self, radicand: Term, index: Term) -> Any:
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

    def call(self, name: str, args: tuple[Term, ...]) -> Any:
        values = [self(arg) for arg in args]
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
            case "Re", 1 if self.is_complex:
                return acb(first.real)
            case "Im", 1 if self.is_complex:
                return acb(first.imag)
            case "conj", 1 if self.is_complex:
                return first.conjugate()
            case "arg", 1 if self.is_complex:
                return acb(first.arg())
        if self.is_complex:
            if not all(value.imag.is_zero() for value in values):
                return acb(arb.nan())
            return acb(self.real_call(name, [value.real for value in values]))
        return self.real_call(name, values)

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
                raise NotScalarError(f"{name} of {len(values)}")

    def apply(self, term: Term) -> Any:
        """An unknown function as a fixed polynomial of its arguments: f(2x) and f(x+x) agree, 2 f(x) does not."""
        total = self.make(_seed(f"function {term.value}", 3) % 1_009) / 97
        for place, arg in enumerate(term.args):
            ball = self(arg)
            total += (ball + ball**3) * (_seed(f"function {term.value} {place}", 3) % 1_013) / 89
        return total


def exact_or_none(term: Term) -> fmpq | None:
    """Return ``exact``, or None where there is no value."""
    try:
        return exact(term)
    except UndefinedError:
        return None


def real_ball(term: Term) -> Any:
    """Return the ball of a real constant in the present precision; not finite where it has no real value."""
    return _Evaluator({}, is_complex=False)(term)


def infinite_sign(term: Term) -> int:
    """Return 1 or -1 for plus or minus infinity, else 0."""
    if term.op == "neg":
        return -infinite_sign(term.args[0])
    return int(term.op == "constant" and term.value == "infinity")


def _same_constant(left: Term, right: Term) -> bool | None:
    """Return whether two constants agree to 300 digits, or differ for sure; None where neither can be shown."""
    readings = (None, 10) if has_log(left) != has_log(right) else (None,)
    answers = [_same_balls(left, right, log_base) for log_base in readings]
    return True if True in answers else None if None in answers else False


def has_log(term: Term) -> bool:
    """Return whether a logarithm stands there without a base: natural, or to base 10."""
    return has_op(term, "call") and any(
        node.op == "call" and node.value == "log" and len(node.args) == 1 for node in _nodes(term)
    )


def _nodes(term: Term) -> Iterator[Term]:
    stack = [term]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.args)


def _same_balls(left: Term, right: Term, log_base: int | None) -> bool | None:
    radii = []
    for bits in (LOW_BITS, HIGH_BITS):
        with precision(bits):
            difference, size = _difference(left, right, {}, log_base)
            if difference is None:
                return None
            if not difference.contains(0):
                return False
            radii.append((_radius(difference), size))
    (low, _), (high, size) = radii
    with precision(LOW_BITS):
        # Where both sides are huge, 300 digits may not reach the units: then the caller must know better.
        is_sharp = bool(high <= low * arb(2) ** (-(HIGH_BITS - LOW_BITS) // 2)) or bool(high == 0)
        return True if is_sharp and bool(size < arb(2) ** (HIGH_BITS - LOW_BITS)) else None


def _radius(ball: acb) -> arb:
    return arb(ball.real.rad()) + arb(ball.imag.rad())


def _difference(left: Term, right: Term, point: Point, log_base: int | None) -> tuple[acb | None, arb]:
    """Return the ball of the difference and one of the size of the sides; None where a side is not finite."""
    for is_complex in (False, True):
        evaluate = _Evaluator(point, is_complex=is_complex, log_base=log_base)
        first, second = evaluate(left), evaluate(right)
        if first.is_finite() and second.is_finite():
            return acb(first - second), arb(abs(first).abs_upper()) + arb(abs(second).abs_upper())
    return None, arb(0)


# --- functions ------------------------------------------------------------------------------------------------------
def _points(names: list[str]) -> Iterator[dict[str, arb]]:
    for turn in range(NUM_POINTS):
        low, high = RANGES[turn]
        yield {name: arb(fmpq(low) + fmpq(high - low) * fmpq(_seed(name, turn) % 99_991 + 1, 99_993)) for name in names}


def _same_function(left: Term, right: Term) -> bool | None:
    """Return whether two terms agree wherever both are real, else at complex points; None where too few points say."""
    readings = (None, 10) if has_log(left) != has_log(right) else (None,)
    names = symbols(left, right)
    answers = []
    with precision(POINT_BITS):
        for log_base in readings:
            said = _agree_at(_points(names), left, right, is_complex=False, log_base=log_base, needed=MIN_REAL_POINTS)
            if said is None:
                points = (
                    {name: acb(value, fmpq(_seed(name, 77 + turn) % 1_009 + 1, 1_000)) for name, value in point.items()}
                    for turn, point in zip(range(NUM_COMPLEX_POINTS), _points(names), strict=False)
                )
                said = _agree_at(points, left, right, is_complex=True, log_base=log_base, needed=2)
            answers.append(said)
    return True if True in answers else None if None in answers else False


def _agree_at(
    points: Iterator[Any], left: Term, right: Term, *, is_complex: bool, log_base: int | None, needed: int
) -> bool | None:
    """Return False at the first point where the sides differ, True if they agree at ``needed`` points or more."""
    num_agreed = 0
    for point in points:
        evaluate = _Evaluator(point, is_complex=is_complex, log_base=log_base)
        first, second = evaluate(left), evaluate(right)
        if not (first.is_finite() and second.is_finite()):
            continue
        difference = acb(first - second)
        if not difference.contains(0):
            return False
        size = arb(abs(first).abs_upper()) + arb(abs(second).abs_upper())
        if bool(_radius(difference) <= size * arb(2) ** (-POINT_BITS // 3)) or bool(_radius(difference) == 0):
            num_agreed += 1
    return True if num_agreed >= needed else None


# --- the comparison -------------------------------------------------------------------------------------------------
def same_value(answer: Term, reference: Term, tolerance: Fraction | None = None) -> bool | None:
    """Return whether two scalar terms are the same; None where it cannot be shown.

    ``tolerance`` is an accepted absolute error that the source states. A printed double (``EXACT_DECIMAL_DIGITS``
    digits or more, right to the last) is the number that it was printed from.

    Raises:
        NotScalarError: If a term is no scalar.
    """
    signs = infinite_sign(answer), infinite_sign(reference)
    if any(signs):
        return signs[0] == signs[1]
    try:
        first, second = exact(answer), exact(reference)
    except UndefinedError:
        return False
    if first is not None and second is not None:
        if first == second:
            return True
        if tolerance is not None:
            return bool(abs(first - second) <= fmpq(tolerance.numerator, tolerance.denominator))
        return _is_printed_double(answer, reference) or _is_printed_double(reference, answer)
    if symbols(answer, reference):
        same = None if has_op(answer, "degree") or has_op(reference, "degree") else _same_modular(answer, reference)
        return _same_function(answer, reference) if same is None else same
    if tolerance is not None:
        return _is_within(answer, reference, tolerance)
    return _same_number(answer, reference)


def _same_number(answer: Term, reference: Term) -> bool | None:
    same = _same_modular(answer, reference)
    if same is not None and not has_constant(answer, "pi", "e") and not has_constant(reference, "pi", "e"):
        return same  # rational (or Gaussian) numbers of any size
    by_ball = _same_constant(answer, reference)
    if by_ball is False and (_is_printed_double(answer, reference) or _is_printed_double(reference, answer)):
        return True
    return by_ball if same is None or by_ball is not None else same


def _is_within(answer: Term, reference: Term, tolerance: Fraction) -> bool | None:
    with precision(LOW_BITS):
        difference, _ = _difference(answer, reference, {}, None)
        if difference is None:
            return None
        allowed = arb(fmpq(tolerance.numerator, tolerance.denominator))
        size = abs(difference)
        return True if bool(size <= allowed) else False if bool(size > allowed) else None


def _is_printed_double(term: Term, other: Term) -> bool:
    """Return whether a decimal is another number rounded or cut to its digits, which must be enough."""
    sign, term = (-1, term.args[0]) if term.op == "neg" else (1, term)
    if term.op != "decimal" or term.value.num_digits < EXACT_DECIMAL_DIGITS:
        return False
    step = fmpq(1, 10**term.value.num_decimals)
    value = exact_or_none(other)
    if value is not None and (value * fmpq(10) ** EXACT_DECIMAL_DIGITS).q == 1:
        return False  # it could have been written out
    printed = fmpq(term.value.value.numerator, term.value.value.denominator) * sign
    if value is not None:
        return bool(abs(printed - value) < step)
    with precision(LOW_BITS):
        return bool(abs(real_ball(other) - arb(printed)) < arb(step))


def constant_ratio(left: Term, right: Term) -> int | None:
    """Return the sign of c where left = c * right for a constant c, or 0 where there is none; None if not shown.

    Both must have variables.
    """
    names = symbols(left, right)
    ratios = []
    try:
        for prime in PRIMES:
            values = [(modular(left, prime, salt), modular(right, prime, salt)) for salt in (1, 2, 3)]
            ratios.append({first * _inverse(second, prime) % prime for first, second in values})
        if not all(len(found) == 1 for found in ratios) or ratios[0] == {0}:
            return 0
    except _NotModularError:
        pass
    with precision(POINT_BITS):
        for is_complex in (False, True):
            found = _ratios(left, right, names, is_complex=is_complex)
            if found is None:
                return 0
            if len(found) >= MIN_REAL_POINTS:
                if found[0].contains(0):
                    return None
                return -1 if not is_complex and found[0] < 0 else 1
    return None


def _ratios(left: Term, right: Term, names: list[str], *, is_complex: bool) -> list[Any] | None:
    """Return the balls of the quotient at the points where it has one, or None where two of them differ."""
    found: list[Any] = []
    for point in _points(names):
        evaluate = _Evaluator(point, is_complex=is_complex)
        ratio = evaluate(left) / evaluate(right)
        if not ratio.is_finite():
            continue
        if found and not ratio.overlaps(found[0]):
            return None
        found.append(ratio)
    return found
