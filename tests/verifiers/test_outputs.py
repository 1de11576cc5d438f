"""Rules of comparison: each does what it says, and none falls back on another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.problem import Compare, CompareMode
from verifiers.outputs import same_output, same_value

TIGHT = Compare("float", abs_tol=1e-6, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("mode", "output", "expected", "same"),
    [
        ("tokens", "1  2\r\n3\n\n", "1 2\n3", True),
        ("tokens", "1 2 3", "1 2", False),
        ("tokens", "1.0", "1", False),
        ("tokens", "yes", "YES", False),
        ("tokens", "", "\n", True),
        ("lines", "a b \nc\n\n", "a b\nc", True),
        ("lines", "a  b", "a b", False),
        ("lines", "a\n\nb", "a\nb", False),
        ("lines", " a", "a", False),
        ("exact", "a\n", "a", False),
        ("exact", "a\n", "a\n", True),
        ("unordered_tokens", "3 1\n2 2", "1 2 2 3", True),
        ("unordered_tokens", "1 2", "1 2 2", False),
        ("livecodebench", " 1.0 2\n", "1 2.00", True),
        ("livecodebench", "1\n2", "1 2", False),
        ("livecodebench", "1.0000001", "1", False),
        ("livecodebench", "a b", "a  b", False),
        ("livecodebench", "\n\n1\n", "1", True),
    ],
)
def test_each_rule(mode: CompareMode, output: str, expected: str, same: bool) -> None:
    assert same_output(output.encode(), expected.encode(), Compare(mode)) is same


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1.0000005", "1", True),
        ("1.00001", "1", False),
        ("1000000.5", "1000000", True),
        ("1e-7", "0", True),
        ("-0.0", "0", True),
        ("1E3", "1000", True),
        (".5", "0.5", True),
        ("nan", "nan", False),
        ("inf", "inf", False),
        ("nan", "1", False),
        ("1_0", "10", False),
        ("0x10", "16", False),
        ("yes 1.0", "yes 1", True),
        ("no 1.0", "yes 1", False),
        ("1 1", "1", False),
        ("9" * 500, "9" * 500, True),
        ("1e999", "1e999", False),
    ],
)
def test_floats_within_a_tolerance(output: str, expected: str, same: bool) -> None:
    assert same_output(output.encode(), expected.encode(), TIGHT) is same


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_equal_bytes_are_the_same_and_sameness_is_symmetric(one: bytes, other: bytes) -> None:
    for mode in ("tokens", "lines", "exact", "unordered_tokens", "livecodebench"):
        rule = Compare(mode)
        assert same_output(one, one, rule)
        assert same_output(one, other, rule) == same_output(other, one, rule)


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        ((1, [2, (3,)]), [1, [2, [3]]], True),
        ({1: "a"}, {"1": "a"}, True),
        ({True: 1, None: 2, 1.5: 3}, {"true": 1, "null": 2, "1.5": 3}, True),
        (True, 1, True),
        (1.0, 1, True),
        ("1", 1, False),
        ([1], 1, False),
        ({1}, [1], False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        (None, None, True),
        ([], None, False),
        (0.30000000000000004, 0.3, False),
    ],
)
def test_values_as_json_and_python_have_them(value: Any, expected: Any, same: bool) -> None:
    assert same_value(value, expected, Compare("tokens")) is same


def test_values_with_a_tolerance_or_in_any_order() -> None:
    assert same_value([0.1 + 0.2, {"x": 1.0000001}], [0.3, {"x": 1}], TIGHT)
    assert not same_value([0.31], [0.3], TIGHT)
    assert not same_value(10**400, 10**400 + 1, TIGHT)
    free = Compare("unordered_tokens")
    assert same_value([[2, 1], [1, 2.0]], [[1, 2], [2, 1]], free)
    assert not same_value([[1, 2], [1, 2]], [[1, 2], [2, 1]], free)
    assert not same_value([True], [1], free)
    assert same_value({"a", "b"}, ["b", "a"], free)
    assert not same_value(3, 4, free)
