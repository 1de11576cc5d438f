"""Terms modulo a prime: decides rational functions and integer powers of any size.

Part of the mathematics ladder, between exact arithmetic and balls. A difference modulo a prime is a difference;
sameness at random values modulo two primes of 61 bits is sameness but for a chance of degree / 2^61 (Schwartz 1980,
doi:10.1145/322217.322225), unless somebody builds multiples of the primes in: ``values`` asks balls too.
"""

from __future__ import annotations

import zlib
from functools import cache, lru_cache
from typing import Final

from verifiers.limits import MAX_MODULAR_FACTORIAL
from verifiers.rationals import exact
from verifiers.terms import Term

PRIMES: Final = (2305843009213693921, 2305843009213693693)  # just below 2^61, both 1 mod 4: -1 has a root


class NotModularError(Exception):
    """The term is no rational function with integer powers, or has a pole at the point."""


@lru_cache(maxsize=4_096)
def seed(name: str, salt: int) -> int:
    """Return a number that depends on a name alone, the same in every process: points must not vary."""
    text = f"{name}/{salt}".encode("utf-8", "surrogatepass")
    return (zlib.crc32(text) << 32 | zlib.crc32(text[::-1] + b"?")) * 2_654_435_761 + 97


def modular(term: Term, prime: int, salt: int) -> int:
    """Return the term modulo a prime, its variables (and pi, e) at values that ``salt`` chooses.

    Variables are whole numbers there, so that they may stand in exponents. Raises NotModularError.
    """
    match term.op:
        case "number" | "decimal":
            value = term.value if term.op == "number" else term.value.value
            whole = int(value.numerator) % prime
            return whole if value.denominator == 1 else whole * inverse(value.denominator, prime) % prime
        case "symbol":
            return seed(term.value, salt) % (1 << 59)
        case "constant":
            if term.value == "i":
                return _root_of_minus_one(prime)
            if term.value in ("pi", "e"):
                return seed(f"constant {term.value}", salt) % prime
            raise NotModularError
        case "neg":
            return -modular(term.args[0], prime, salt) % prime
        case "percent":
            return modular(term.args[0], prime, salt) * inverse(100, prime) % prime
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
            return modular(term.args[0], prime, salt) * inverse(modular(term.args[1], prime, salt), prime) % prime
        case "pow":
            base = modular(term.args[0], prime, salt)
            if term.args[0] == Term("constant", (), "e"):
                raise NotModularError
            power = _whole(term.args[1], prime - 1, salt)
            if base == 0:
                raise NotModularError
            return pow(base, power, prime)
        case "root":
            value = exact(term)
            if value is None:
                raise NotModularError
            return int(value.p) * inverse(int(value.q), prime) % prime
        case "factorial":
            count = exact(term.args[0])
            if count is None or count.q != 1 or not 0 <= count <= MAX_MODULAR_FACTORIAL:
                raise NotModularError
            product = 1
            for factor in range(2, int(count.p) + 1):
                product = product * factor % prime
            return product
        case "apply":
            total = product = seed(f"function {term.value}", salt) % prime
            for place, arg in enumerate(term.args):  # an unknown function: neither odd nor additive
                point = modular(arg, prime, salt)
                total += seed(f"function {term.value} {place}", salt) * (point + 2 * point**2 + pow(point, 3, prime))
                product = product * (point + place + 1) % prime
            return (total + product) % prime
        case _:
            raise NotModularError


def inverse(value: int, prime: int) -> int:
    try:
        return pow(value, -1, prime)
    except ValueError as error:
        raise NotModularError from error


def _whole(term: Term, modulus: int, salt: int) -> int:
    """Return an exponent: whole for whole values of its variables, reduced by Fermat's little theorem."""
    value = exact(term)
    if value is not None:
        if value.q != 1:
            raise NotModularError
        return int(value.p) % modulus
    match term.op:
        case "symbol":
            return seed(term.value, salt) % (1 << 59)
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
                raise NotModularError
            return pow(_whole(term.args[0], modulus, salt), int(power.p), modulus)
        case _:
            raise NotModularError


@cache
def _root_of_minus_one(prime: int) -> int:
    base = 2
    while pow(base, (prime - 1) // 2, prime) != prime - 1:
        base += 1
    return pow(base, (prime - 1) // 4, prime)


def same_modular(left: Term, right: Term) -> bool | None:
    """Return whether two terms are the same rational function, or None where they are none."""
    try:
        return all(
            modular(left, prime, salt) == modular(right, prime, salt)
            for prime, salt in zip(PRIMES, (1, 2), strict=True)
        )
    except NotModularError:
        return None
