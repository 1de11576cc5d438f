"""Limits of attempts: what a turn may have, what goes on, and which of the keys are part of a run's fingerprint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.lengths import Lengths
from factory.plan import make_plan
from schemas.config import parse_config
from schemas.problem import Domain

MINIMAL = {
    "name": "lengths",
    "sources": [{"kind": "reasoning_gym", "task": "chain_sum", "size": 1}],
    "teacher": {"kind": "scripted"},
}
limits = st.integers(1, 60)


@given(limits, st.none() | limits, st.none() | limits)
def test_every_attempt_comes_to_its_whole_limit_in_two_turns_at_most(
    most: int, first: int | None, of_code: int | None
) -> None:
    by_domain = {} if of_code is None else {Domain.CODE: of_code}
    lengths = Lengths(max_tokens=most, by_domain=by_domain, first=first)
    assert lengths.most(Domain.MATH) == most
    for domain, whole in ((Domain.MATH, most), (Domain.CODE, of_code or most)):
        limit = lengths.next_turn(domain, 0)
        assert limit.may_go_on == (first is not None and first < whole)
        if limit.may_go_on:
            assert limit.max_tokens == first
            assert lengths.is_cut(domain, limit.max_tokens)
            limit = lengths.next_turn(domain, limit.max_tokens)
        assert limit == (whole, False)
        for saved in range(60):  # by an engine that died
            assert lengths.next_turn(domain, saved).may_go_on == (first is not None and saved < first < whole)


@pytest.mark.parametrize(("continue_cut", "pays"), [("all", True), ("unsolved", False)])
def test_a_cut_attempt_pays_where_its_problem_has_no_answer(continue_cut: Any, pays: bool) -> None:
    lengths = Lengths(max_tokens=9, by_domain={}, first=3, continue_cut=continue_cut)
    assert lengths.pays(is_solved=False)
    assert lengths.pays(is_solved=True) == pays


def _fingerprint(**parts: dict[str, Any]) -> str:
    return make_plan(parse_config(MINIMAL | parts, origin="test"), {}).fingerprint


def test_a_limit_by_domain_is_part_of_the_fingerprint_and_the_schedule_is_not() -> None:
    plain = _fingerprint()
    parts = make_plan(parse_config(MINIMAL, origin="test"), {}).fingerprint_parts
    assert not {"max_tokens_by_domain", "thinking_budget"} & parts["sampling"].keys(), "older runs go on"
    assert _fingerprint(schedule={"first_max_tokens": 100, "early_abort": False}) == plain
    assert _fingerprint(sampling={"max_tokens_by_domain": {"code": 100}}) != plain
    assert _fingerprint(sampling={"max_tokens": 100}) != plain
