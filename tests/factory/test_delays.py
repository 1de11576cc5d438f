"""Delays: quantiles from a histogram are those of the values, to the width of a bin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factory.delays import Delays


@given(st.lists(st.floats(0.0011, 9_000), min_size=1, max_size=300))
def test_quantiles_are_upper_bounds_and_close(values: list[float]) -> None:
    delays = Delays()
    assert delays.quantiles() is None
    delays.add(values)
    delays.add([])
    found = delays.quantiles()
    assert found is not None
    assert found.num_verdicts == len(values)
    for bound, share in ((found.median_s, 0.5), (found.p99_s, 0.99)):
        assert sum(value <= bound for value in values) >= share * len(values)
        assert sum(value < bound / 1.13 for value in values) <= share * len(values)
