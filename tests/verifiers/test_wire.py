"""Values cross between processes with their types, and what is no value does not cross."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifiers.sandbox import wire


def plain_values() -> st.SearchStrategy[Any]:
    """Values of the types that cross; keys and items of sets are hashable, and equal to nothing but themselves."""
    hashable = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8)
    )
    keys = hashable | st.tuples(hashable, hashable) | st.frozensets(st.integers(), max_size=3)
    return st.recursive(
        keys,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
            | st.sets(keys, max_size=3)
        ),
        max_leaves=12,
    )


def same_types(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, (list, tuple)):
        return all(map(same_types, one, other))
    return not isinstance(one, dict) or all(same_types(one[key], other[key]) for key in one)


@given(plain_values())
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert same_types(wire.loads(wire.dumps(value)), value)


def test_values_json_has_no_form_for() -> None:
    for value in (
        {"~": "tuple", "v": 1},
        complex(1, -2),
        range(2, 9, 3),
        deque([1, (2,)]),
        Fraction(1, 3),
        Decimal("1.50"),
        bytearray(b"\xff"),
        2**60_000,
        -(2**60_000),
        "\ud800",
        float("-inf"),
    ):
        assert wire.loads(wire.dumps(value)) == value
        assert type(wire.loads(wire.dumps(value))) is type(value)
    assert math.isnan(wire.loads(wire.dumps(float("nan"))))
    assert wire.loads(wire.dumps(Counter("aab"))) == {"a": 2, "b": 1}
    assert wire.loads(wire.dumps(OrderedDict(x=1))) == {"x": 1}


class Odd(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def test_subclasses_are_read_as_what_they_hold() -> None:
    assert type(wire.loads(wire.dumps(Odd(7)))) is int
    assert wire.dumps(Odd(7)) == "7"


def test_objects_cross_only_where_somebody_keeps_them() -> None:
    kept: list[Any] = []

    def export(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    line = wire.dumps([len, int], export)
    assert wire.loads(line, lambda number, is_class: (kept[number], is_class)) == [(len, False), (int, True)]
    with pytest.raises(wire.NotPlain, match="object of type"):
        wire.dumps([len])
    with pytest.raises(wire.NotPlain):
        wire.loads(line)


def test_what_is_too_big_or_without_end_does_not_leave() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep, 2**2_000_000):
        with pytest.raises(wire.NotPlain):
            wire.dumps(value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "NaN",
        '{"~": "float", "v": "1"}',
        '{"~": "os.system", "v": "x"}',
        '{"~": "set", "v": [[1]]}',
        '{"~": "range", "v": [0, 1000000000, 1]}',
        '{"~": "Decimal", "v": "1E+999999999"}',
        '{"~": "int", "v": 5}',
        '{"~": "Fraction", "v": [1, 0]}',
        '{"~": "tuple"}',
        '{"~": []}',
        "[" * 100_000,
        "1" * 5_000,
        "\xff",
    ],
)
def test_what_nobody_wrote_is_refused(line: str) -> None:
    with pytest.raises(wire.NotPlain):
        wire.loads(line.encode("latin-1"))


def test_items_made_to_share_a_hash_are_refused_before_they_cost_anything() -> None:
    same = [(2**61 - 1) * n for n in range(100_000)]
    for kind in ("set", "frozenset"):
        with pytest.raises(wire.NotPlain, match="one hash"):
            wire.loads(json.dumps({"~": kind, "v": same}))
    with pytest.raises(wire.NotPlain, match="one hash"):
        wire.loads(json.dumps({"~": "dict", "v": [[key, 1] for key in same]}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["~", "v", "x"]), inner, max_size=3)
        ),
    )
)
def test_any_json_is_a_value_or_refused(body: Any) -> None:
    try:
        wire.loads(json.dumps(body))
    except wire.NotPlain:
        return
