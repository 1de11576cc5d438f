"""Values as JSON lines: how a judged program's answers leave its process, and how arguments enter it.

Plain values only, and their types stay: a tuple comes back as a tuple. What JSON has no form for is an object with a
``~`` that names it. Objects that are no values travel as a ``Handle``'s number, where the caller keeps a table of them,
and are refused elsewhere. Nothing read here can run code. Knows the standard library only; both sides use it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

MAX_DEPTH: Final = 200  # of nested values; json itself gives up at about 1,000 (guess)
MAX_INT_BITS: Final = 1_000_000  # of an integer: 300,000 digits (guess)
MAX_DECIMAL_BITS: Final = 14_000  # of one written in decimal digits: Python itself reads no more than 4,300 of them
MAX_EXPONENT: Final = 5_000  # of a Decimal: int() of a great one fills the memory (guess)
MAX_RANGE: Final = 1_000_000  # items of a range: list() of it is a few bytes away (guess)
MAX_SAME_HASH: Final = 64  # items of a set or mapping with one hash: multiples of 2**61 - 1 make it quadratic (guess)
MARK: Final = "~"


class NotPlain(ValueError):
    """A value that cannot leave its process: an object, a number too long, a structure too deep or without an end."""


def dumps(value: Any, export: Callable[[Any], int] | None = None) -> str:
    """Return the JSON text of a value; ``export`` gives numbers to objects that are no plain values.

    Subclasses of plain types are read as what they hold, with none of their own methods.

    Raises:
        NotPlain: If the value is not plain and there is no ``export``, or is beyond a bound.
    """
    try:
        return _ENCODER.encode(_plain(value, export, MAX_DEPTH))
    except (RecursionError, MemoryError) as error:
        raise NotPlain(f"the value is too big: {type(error).__name__}") from error


def loads(text: str | bytes, resolve: Callable[[int, bool], Any] | None = None) -> Any:
    """Return the value that ``dumps`` wrote; ``resolve`` turns the number of an object, and whether it
    is a class, into its stand-in.

    Raises:
        NotPlain: If the text is not what ``dumps`` writes.
    """
    try:
        return _value(_DECODER.decode(text if isinstance(text, str) else text.decode("ascii")), resolve)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, AttributeError) as error:
        raise NotPlain(f"no value can be read from it: {type(error).__name__}: {str(error)[:200]}") from error


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


_ENCODER: Final = json.JSONEncoder()
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def _plain(value: Any, export: Callable[[Any], int] | None, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise NotPlain(f"an integer of {value.bit_length()} bits, allowed are {MAX_INT_BITS}")
        return value if value.bit_length() <= MAX_DECIMAL_BITS else {MARK: "int", "v": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {MARK: "float", "v": repr(value)}
    if export is not None and kind.__module__ == "__main__":  # the program's own class, whatever it is made of
        return _exported(value, export)
    if depth == 0:
        raise NotPlain(f"values nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_plain(item, export, depth - 1) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {MARK: "tuple", "v": [_plain(item, export, depth - 1) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return _plain_dict(value, export, depth - 1)
    return _plain_rest(value, export, depth - 1)


def _plain_dict(value: dict[Any, Any], export: Callable[[Any], int] | None, depth: int) -> Any:
    items = [(key, _plain(item, export, depth)) for key, item in dict.items(value)]
    if MARK not in value and all(type(key) is str for key, _ in items):
        return dict(items)
    return {MARK: "dict", "v": [[_plain(key, export, depth), item] for key, item in items]}


def _plain_rest(value: Any, export: Callable[[Any], int] | None, depth: int) -> Any:
    if isinstance(value, int):
        return _plain(int.__add__(value, 0), export, depth)
    if isinstance(value, float):
        return _plain(float.__add__(value, 0.0), export, depth)
    if isinstance(value, str):
        return "".join(str.__iter__(value))
    if isinstance(value, (set, frozenset)):
        kind = "set" if isinstance(value, set) else "frozenset"
        return {MARK: kind, "v": [_plain(item, export, depth) for item in frozenset(value)]}
    if isinstance(value, (bytes, bytearray)):
        return {MARK: "bytes" if isinstance(value, bytes) else "bytearray", "v": bytes.hex(bytes(memoryview(value)))}
    if isinstance(value, complex):
        return {MARK: "complex", "v": [repr(value.real), repr(value.imag)]}
    if type(value) is deque:
        return {MARK: "deque", "v": [_plain(item, export, depth) for item in value]}
    if type(value) is range:
        return {MARK: "range", "v": [value.start, value.stop, value.step]}
    if type(value) is Fraction:
        return {MARK: "Fraction", "v": [value.numerator, value.denominator]}
    if type(value) is Decimal:
        return {MARK: "Decimal", "v": str(value)}
    if export is None:
        raise NotPlain(f"an object of type {type(value).__name__}, which is no plain value")
    return _exported(value, export)


def _exported(value: Any, export: Callable[[Any], int]) -> Any:
    return {MARK: "class" if isinstance(value, type) else "object", "v": export(value)}


def _value(body: Any, resolve: Callable[[int, bool], Any] | None) -> Any:
    if isinstance(body, list):
        return [_value(item, resolve) for item in body]
    if not isinstance(body, dict):
        return body
    if MARK not in body:
        return {key: _value(item, resolve) for key, item in body.items()}
    return _marked(body[MARK], body["v"], resolve)


def _marked(kind: str, body: Any, resolve: Callable[[int, bool], Any] | None) -> Any:
    match kind:
        case "tuple":
            return tuple(_value(item, resolve) for item in body)
        case "dict":
            keys = _spread([_value(key, resolve) for key, _ in body])
            return dict(zip(keys, (_value(item, resolve) for _, item in body), strict=True))
        case "set":
            return set(_spread([_value(item, resolve) for item in body]))
        case "frozenset":
            return frozenset(_spread([_value(item, resolve) for item in body]))
        case "deque":
            return deque(_value(item, resolve) for item in body)
        case "float" if body in ("nan", "inf", "-inf"):
            return float(body)
        case "bytes":
            return bytes.fromhex(body)
        case "bytearray":
            return bytearray.fromhex(body)
        case "complex":
            return complex(float(body[0]), float(body[1]))
        case "range":
            found = range(*map(_small, body))
            if len(found) > MAX_RANGE:
                raise ValueError(f"a range of {len(found)} items, allowed are {MAX_RANGE}")
            return found
        case "Fraction":
            return Fraction(_small(body[0]), _small(body[1]))
        case "Decimal":
            number = Decimal(str(body))
            if number.is_finite() and abs(number.adjusted()) > MAX_EXPONENT:
                raise ValueError(f"a Decimal with exponent {number.adjusted()}, allowed are {MAX_EXPONENT}")
            return number
        case "int":
            if not isinstance(body, str) or len(body) > MAX_INT_BITS // 4 + 8:
                raise ValueError("no integer, or too long a one")
            return int(body, 16)
        case "object" | "class" if resolve is not None:
            return resolve(_small(body), kind == "class")
        case _:
            raise ValueError(f"no such kind of value: {kind!r}")


def _spread(items: list[Any]) -> list[Any]:
    """Return the items if few of them share a hash."""
    counts = Counter(map(hash, items))
    if counts and max(counts.values()) > MAX_SAME_HASH:
        raise ValueError(f"more than {MAX_SAME_HASH} items with one hash")
    return items


def _small(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{type(number).__name__} is no integer")
    return number
