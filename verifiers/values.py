"""Whether two scalar terms are the same number or the same function: exactly where possible, else by rigorous balls.

Part of the mathematics ladder. Three ways, in this order: exact arithmetic (``surds``); arithmetic modulo two primes
(``modular``); ball arithmetic (``balls``), where disjoint balls prove a difference, and sameness means agreement to 300
digits for constants and at several of a dozen points for functions. No absolute tolerance, no float, no sympy.
Variables are real: a point where either side is not real is outside the domain, and a letter i is the imaginary unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

from flint import acb, arb, fmpq

from verifiers.balls import Evaluator, Point, Reach, infinite_sign, precision, real_ball
from verifiers.limits import EXACT_DECIMAL_DIGITS, MAX_BALL_BITS, MAX_CORNERS, MAX_SIGNS, SHARED_DECIMAL_DIGITS
from verifiers.modular import PRIMES, NotModularError, inverse, modular, same_modular, seed
from verifiers.rationals import UndefinedError, exact_or_none
from verifiers.surds import ONE, surd
from verifiers.terms import Term, has_constant, has_op, symbols, walk

LOW_BITS: Final = 128  # of a ball: shows nearly every difference
HIGH_BITS: Final = 1_088  # more than 300 digits: shows the others
POINT_BITS: Final = 192  # at a random point a difference is not tiny
MIN_REAL_POINTS: Final = 3  # fewer points where both sides are real say too little (guess)
ENOUGH_POINTS: Final = 6  # of a function without corners: small, large and negative ones are among them
NUM_COMPLEX_POINTS: Final = 4
# Ranges that the points come from: small, below 1 (arcsin), large (roots of x - 5), negative, mixed.
_FIRST_RANGES: Final = ((1, 3), (0, 1), (5, 60), (-3, 0), (-1, 1), (0, 2))
RANGES: Final = (*_FIRST_RANGES, (-40, 40), (-30, -5), (0, 1), (-1, 1), (-9_000, -2_000), (2_000, 9_000))


def _same_constant(left: Term, right: Term) -> bool | None:
    """Return whether two constants agree to 300 digits, or differ for sure; None where neither can be shown."""
    readings = (None, 10) if has_log(left) != has_log(right) else (None,)
    answers = [_same_balls(left, right, log_base) for log_base in readings]
    return True if True in answers else None if None in answers else False


class TooFarError(ArithmeticError):
    """The two may be the same, but a difference would be too small beside them to show within our limits."""


def has_log(term: Term) -> bool:
    """Return whether a logarithm stands there without a base: natural, or to base 10."""
    return any(node.op == "call" and node.value == "log" and len(node.args) == 1 for node in walk(term))


def _same_balls(left: Term, right: Term, log_base: int | None) -> bool | None:
    radii = []
    for bits in (LOW_BITS, HIGH_BITS):
        with precision(bits):
            difference = _difference(left, right, log_base)
            if difference is None:
                return None
            if not difference.contains(0):
                return False
            radii.append(_radius(difference))
    low, high = radii
    with precision(LOW_BITS):
        if not (high <= low * arb(2) ** (-(HIGH_BITS - LOW_BITS) // 2) or high == 0):
            return None
    bits = 2 * _reach(left, right, {}, log_base) + HIGH_BITS - LOW_BITS
    if bits <= HIGH_BITS:
        return True
    if bits > 2 * MAX_BALL_BITS:
        raise TooFarError(f"{bits} bits")
    with precision(bits):  # e^-1000 beside 1: it takes more digits than those to show
        difference = _difference(left, right, log_base)
        return None if difference is None else bool(difference.contains(0))


def _reach(left: Term, right: Term, point: Point, log_base: int | None) -> int:
    """Return how many bits lie between the largest or smallest value inside the terms and 1."""
    found = 0
    with precision(LOW_BITS):
        for term in (left, right):
            for is_complex in (False, True):
                evaluate = Reach(point, is_complex=is_complex, log_base=log_base)
                if evaluate(term).is_finite():
                    break
            found = max(found, evaluate.bits)
    return found


def _radius(ball: acb) -> arb:
    return arb(ball.real.rad()) + arb(ball.imag.rad())


def _difference(left: Term, right: Term, log_base: int | None) -> acb | None:
    """Return the ball of the difference of two constants; None where a side is not finite."""
    for is_complex in (False, True):
        evaluate = Evaluator({}, is_complex=is_complex, log_base=log_base)
        first, second = evaluate(left), evaluate(right)
        if first.is_finite() and second.is_finite():
            return acb(first - second)
    return None


# --- functions ------------------------------------------------------------------------------------------------------
PIECEWISE: Final = frozenset({"abs", "min", "max", "floor", "ceil", "sgn", "mod"})


def _points(names: list[str], *terms: Term) -> Iterator[dict[str, arb]]:
    """Yield points of fixed random values; for piecewise functions some more, on both sides of their constants."""
    ranges: list[tuple[Any, Any]] = list(RANGES)
    for corner in _corners(terms):
        ranges += [(-3 * corner, -corner), (-corner, corner), (corner, 3 * corner)]
    whole = _whole_names(terms)
    if _has_corners(terms):
        for turn in range(2 ** min(len(names), MAX_SIGNS)):  # every pattern of signs
            yield {
                name: arb(fmpq(seed(name, turn) % 997 + 300, 499) * (-1 if turn >> place & 1 else 1))
                for place, name in enumerate(names)
            }
        for turn in range(-2, 4):  # whole numbers, zero among them
            yield {name: arb(turn + place) for place, name in enumerate(names)}
    for turn, (low, high) in enumerate(ranges):
        yield {
            name: arb(seed(name, turn) % 40 + 1)
            if name in whole
            else arb(fmpq(low) + fmpq(high - low) * fmpq(seed(name, turn) % 99_991 + 1, 99_993))
            for name in names
        }


def _whole_names(terms: Sequence[Term]) -> set[str]:
    """Return the variables that stand in exponents of negative numbers: whole, as n in (-1)^n."""
    found: set[str] = set()
    for node in (node for term in terms for node in walk(term) if node.op == "pow"):
        base = exact_or_none(node.args[0])
        if base is not None and base < 0:
            found.update(symbols(node.args[1]))
    return found


def _has_corners(terms: Sequence[Term]) -> bool:
    """Return whether a function is made of pieces: |x|, the floor, also sqrt(x^2), but no odd root."""
    return any(
        (node.op == "call" and node.value in PIECEWISE) or (node.op == "root" and not _is_odd(node.args[1]))
        for term in terms
        for node in walk(term)
    )


def _is_odd(index: Term) -> bool:
    return index.op == "number" and index.value.denominator == 1 and index.value.numerator % 2 == 1


def _corners(terms: Sequence[Term]) -> list[fmpq]:
    if not _has_corners(terms):
        return []
    found: list[fmpq] = []
    for node in (node for term in terms for node in walk(term)):
        value = None if symbols(node) else exact_or_none(node)
        if value is not None and value != 0 and abs(value) not in found:
            found.append(abs(value))
    return sorted(found, reverse=True)[:MAX_CORNERS]


def _same_function(left: Term, right: Term) -> bool | None:
    """Return whether two terms agree wherever both are real, else at complex points; None where too few points say."""
    readings = (None, 10) if has_log(left) != has_log(right) else (None,)
    names = symbols(left, right)
    answers: list[bool | None] = []
    for log_base in readings:
        said = _agree(left, right, names, log_base, POINT_BITS)
        if said:
            point = next(_points(names, left, right))
            bits = 2 * _reach(left, right, point, log_base) + POINT_BITS // 2
            if bits > MAX_BALL_BITS:
                raise TooFarError(f"{bits} bits")
            if bits > POINT_BITS:
                said = _agree(left, right, names, log_base, bits)
        answers.append(said)
    return True if True in answers else None if None in answers else False


def _agree(left: Term, right: Term, names: list[str], log_base: int | None, bits: int) -> bool | None:
    with precision(bits):
        points = _points(names, left, right)
        enough = None if _has_corners((left, right)) else ENOUGH_POINTS
        said = _agree_at(
            points, left, right, is_complex=False, log_base=log_base, needed=MIN_REAL_POINTS, enough=enough
        )
        if said is not None:
            return said
        whole = _whole_names((left, right))
        complex_points = (
            {
                name: acb(value) if name in whole else acb(value, fmpq(seed(name, 77 + turn) % 1_009 + 1, 1_000))
                for name, value in point.items()
            }
            for turn, point in zip(range(NUM_COMPLEX_POINTS), _points(names, left, right), strict=False)
        )
        return _agree_at(complex_points, left, right, is_complex=True, log_base=log_base, needed=2)


def _agree_at(
    points: Iterator[Any],
    left: Term,
    right: Term,
    *,
    is_complex: bool,
    log_base: int | None,
    needed: int,
    enough: int | None = None,
) -> bool | None:
    """Return False at the first point where the sides differ, True if they agree at ``needed`` points or more.

    After ``enough`` points no more are asked.
    """
    num_agreed = 0
    for point in points:
        evaluate = Evaluator(point, is_complex=is_complex, log_base=log_base)
        first, second = evaluate(left), evaluate(right)
        if not (first.is_finite() and second.is_finite()):
            continue
        difference = acb(first - second)
        if not difference.contains(0):
            return False
        size = arb(abs(first).abs_upper()) + arb(abs(second).abs_upper()) + evaluate.scale
        if bool(_radius(difference) <= size * arb(2) ** (-POINT_BITS // 3)) or bool(_radius(difference) == 0):
            num_agreed += 1
            if num_agreed == enough:
                return True
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
        first, second = surd(answer), surd(reference)
    except UndefinedError:
        return False
    if first is not None and second is not None:
        if first == second:
            return True
        if tolerance is None:
            return _is_printed_double(answer, reference) or _is_printed_double(reference, answer)
        if first.keys() | second.keys() <= {ONE}:
            difference = first.get(ONE, fmpq(0)) - second.get(ONE, fmpq(0))
            return bool(abs(difference) <= fmpq(tolerance.numerator, tolerance.denominator))
    if symbols(answer, reference):
        same = None if has_op(answer, "degree") or has_op(reference, "degree") else same_modular(answer, reference)
        if same is False:
            return False
        return _same_function(answer, reference) if same is None else _is_confirmed(answer, reference)
    if tolerance is not None:
        return _is_within(answer, reference, tolerance)
    return _same_number(answer, reference)


def _is_confirmed(answer: Term, reference: Term) -> bool | None:
    """Return whether two functions that are the same modulo the primes agree at points too; None where none tells."""
    names = symbols(answer, reference)
    with precision(POINT_BITS):
        points = (point for _, point in zip(range(3), _points(names, answer, reference), strict=False))
        said = _agree_at(points, answer, reference, is_complex=False, log_base=None, needed=1)
        if said is None and not has_constant(answer, "i"):
            raise TooFarError("no point where both have a value")
        return True if said is None else said


def _same_number(answer: Term, reference: Term) -> bool | None:
    same = same_modular(answer, reference)
    if same is False and not has_constant(answer, "pi", "e") and not has_constant(reference, "pi", "e"):
        return False  # rational (or Gaussian) numbers of any size
    by_ball = _same_constant(answer, reference)
    if by_ball is False and (_is_printed_double(answer, reference) or _is_printed_double(reference, answer)):
        return True
    if by_ball is None and same:
        raise TooFarError("equal modulo the primes, and too large to compare")
    return by_ball


def _is_within(answer: Term, reference: Term, tolerance: Fraction) -> bool | None:
    with precision(LOW_BITS):
        difference = _difference(answer, reference, None)
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
    if other.op == "decimal" and min(term.value.num_digits, other.value.num_digits) < SHARED_DECIMAL_DIGITS:
        return False
    if value is not None and (value * fmpq(10) ** EXACT_DECIMAL_DIGITS).q == 1:
        return False  # it could have been written out
    printed = fmpq(term.value.value.numerator, term.value.value.denominator) * sign
    # Rounded, or cut towards zero; the last of 16 digits or more may be the double's own error.
    is_exact_to_last = term.value.num_digits <= SHARED_DECIMAL_DIGITS
    with precision(LOW_BITS):
        error = (real_ball(other) if value is None else arb(value)) - arb(printed)
        if not error.is_finite() or not abs(error) < arb(step):
            return False
        is_cut = bool(error > 0) == (printed > 0)
        return not is_exact_to_last or is_cut or bool(2 * abs(error) <= arb(step))


def constant_ratio(left: Term, right: Term) -> int | None:
    """Return the sign of c where left = c * right for a constant c, or 0 where there is none; None if not shown.

    Both must have variables.
    """
    names = symbols(left, right)
    ratios = []
    enough = None if _has_corners((left, right)) else ENOUGH_POINTS
    try:
        for prime in PRIMES:
            values = [(modular(left, prime, salt), modular(right, prime, salt)) for salt in (1, 2, 3)]
            ratios.append({first * inverse(second, prime) % prime for first, second in values})
        if not all(len(found) == 1 for found in ratios) or ratios[0] == {0}:
            return 0
        enough = MIN_REAL_POINTS
    except NotModularError:
        pass
    with precision(POINT_BITS):
        for is_complex in (False, True):
            found = _ratios(left, right, names, is_complex=is_complex, enough=enough)
            if found is None:
                return 0
            if len(found) >= MIN_REAL_POINTS:
                if found[0].contains(0):
                    return None
                return -1 if not is_complex and found[0] < 0 else 1
    return None


def _ratios(left: Term, right: Term, names: list[str], *, is_complex: bool, enough: int | None) -> list[Any] | None:
    """Return the balls of the quotient at the points where it has one, or None where two of them differ."""
    found: list[Any] = []
    for point in _points(names):
        evaluate = Evaluator(point, is_complex=is_complex)
        ratio = evaluate(left) / evaluate(right)
        if not ratio.is_finite():
            continue
        if found and not ratio.overlaps(found[0]):
            return None
        found.append(ratio)
        if len(found) == enough:
            break
    return found
