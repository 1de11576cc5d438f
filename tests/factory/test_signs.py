"""Tests of what counts as a sign of life of an engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factory.signs import Signs, added, shows_life

signs = st.builds(Signs, num_tokens=st.integers(-1, 9), num_reports=st.integers(0, 9), has_leases=st.booleans())


@given(signs, st.integers(1, 9))
def test_reports_are_a_sign_of_life_only_where_nothing_is_in_flight(before: Signs, more: int) -> None:
    now = before._replace(num_reports=before.num_reports + more)
    assert shows_life(before, now) == (not before.has_leases)


@given(signs, st.integers(1, 9))
def test_tokens_and_the_end_of_all_that_was_in_flight_are_signs_of_life(before: Signs, more: int) -> None:
    assert shows_life(before, before._replace(num_tokens=before.num_tokens + more))
    assert shows_life(before, before._replace(has_leases=not before.has_leases))


@given(st.lists(signs, min_size=1, max_size=3))
def test_a_process_that_does_nothing_for_any_run_shows_no_life(of_runs: list[Signs]) -> None:
    assert not shows_life(added(of_runs), added(of_runs))


@given(signs, signs, st.integers(1, 9))
def test_a_run_without_attempts_in_flight_hides_no_stall_at_another(held: Signs, idle: Signs, more: int) -> None:
    held, idle = held._replace(has_leases=True), idle._replace(has_leases=False)
    now = idle._replace(num_reports=idle.num_reports + more)
    assert not shows_life(added([held, idle]), added([held, now]))
