"""Pairs and groups: what is chosen is right and worth learning, what is rejected is worse, and advantages sum to 0."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.groups import advantages
from factory.pairs import UNDECIDED, WORSE_OUTCOMES, Pair, pairs
from factory.rules import Candidate, count_passes, split_lucky
from factory.selection import choose
from schemas.config import PreferenceConfig, SelectConfig
from schemas.verdict import Outcome
from tests.candidates import configs, correct, one_group, wrong

preferences = st.builds(
    PreferenceConfig,
    rules=st.lists(st.sampled_from(["long2short_dpo", "correct_wrong_pairs"]), unique=True).map(tuple),
    max_per_problem=st.integers(1, 4),
    longer=st.sampled_from([1.01, 1.5, 2]),
    similar=st.sampled_from([0.1, 0.25, 0.9]),
)


def paired(group: list[Candidate], config: PreferenceConfig | None = None) -> list[Pair]:
    return pairs(group, choose(group, SelectConfig()), config or PreferenceConfig())


def sides(found: list[Pair], rule: str) -> set[tuple[str, str]]:
    return {(pair.chosen, pair.rejected) for pair in found if pair.rule == rule}


@given(one_group, preferences)
def test_the_chosen_is_correct_and_no_guess_and_the_rejected_is_wrong_or_longer(group, config):
    by_id = {candidate.trace_id: candidate for candidate in group}
    right = [c for c in group if c.outcome == "correct" and c.is_correct and c.like is None]
    lucky = {c.trace_id for c in split_lucky(right)[0]} if right else set()
    for pair in paired(group, config):
        chosen, rejected = by_id[pair.chosen], by_id[pair.rejected]
        assert chosen in right
        assert chosen.trace_id not in lucky
        if rejected.outcome == "correct":
            assert pair.rule == "long2short_dpo"
            assert rejected in right
            assert rejected.num_completion_tokens >= config.longer * chosen.num_completion_tokens
        else:
            assert rejected.is_correct is False
            assert rejected.outcome in WORSE_OUTCOMES
            assert rejected.reason not in UNDECIDED


@given(one_group, preferences)
def test_long2short_sets_the_shortest_against_longer_ones_and_the_others_are_alike(group, config):
    by_id = {candidate.trace_id: candidate.num_completion_tokens for candidate in group}
    right = [c for c in group if c.outcome == "correct" and c.is_correct and c.like is None]
    for pair in paired(group, config):
        if pair.rule == "long2short_dpo":
            assert by_id[pair.chosen] == min(c.num_completion_tokens for c in split_lucky(right)[1])
            assert by_id[pair.rejected] >= by_id[pair.chosen]
        else:
            gap = abs(by_id[pair.rejected] - by_id[pair.chosen])
            assert gap <= config.similar * max(by_id[pair.rejected], by_id[pair.chosen]) + 1e-9


@given(one_group, preferences, st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_the_order_and_keep_to_their_caps(group, config, random):
    found = paired(group, config)
    shuffled = list(group)
    random.shuffle(shuffled)
    assert paired(shuffled, config) == found
    assert all(count <= config.max_per_problem for count in Counter(pair.rule for pair in found).values())
    assert set(pair.rule for pair in found) <= set(config.rules)
    assert len({pair.rejected for pair in found}) == len({pair.pair_id for pair in found}) == len(found)
    similar = [pair.chosen for pair in found if pair.rule == "correct_wrong_pairs"]
    assert len(set(similar)) == len(similar)


@given(one_group, configs(bounded=False), preferences)
def test_a_problem_that_the_selection_takes_nothing_of_has_no_pairs(group, config, preference):
    decisions = choose(group, config)
    if not any(decision.is_accepted for decision in decisions):
        assert pairs(group, decisions, preference) == []


def test_both_kinds_of_longer_ones_come_in_turn_the_longest_first():
    group = [correct("s", tokens=20), *(correct(f"r{n}", tokens=n) for n in (29, 30, 50, 60))]
    group += [wrong(f"w{n}", tokens=n) for n in (20, 25, 80, 90)]
    found = paired(group, PreferenceConfig(rules=("long2short_dpo",), max_per_problem=3))
    assert sides(found, "long2short_dpo") == {("s", "w90"), ("s", "r60"), ("s", "w80")}
    found = paired(group, PreferenceConfig(rules=("long2short_dpo",), max_per_problem=9))
    assert {rejected for _, rejected in sides(found, "long2short_dpo")} == {"w90", "w80", "w25", "r60", "r50", "r30"}


def test_similar_lengths_are_paired_nearest_first():
    group = [correct("a", tokens=100), correct("b", tokens=140)]
    group += [wrong("x", tokens=104), wrong("y", tokens=139), wrong("z", tokens=900)]
    found = paired(group, PreferenceConfig(rules=("correct_wrong_pairs",), max_per_problem=5))
    assert sides(found, "correct_wrong_pairs") == {("a", "x"), ("b", "y")}


@pytest.mark.parametrize(
    ("outcome", "reason", "is_correct"),
    [
        ("unreadable", "truncated", False),
        ("unreadable", "language_mixing", True),
        ("unjudged", "worker_died", None),
        ("unjudged", "worker_died", False),
        ("readable", None, None),
        ("bad_reference", "no_tests", None),
        ("over_limit", "timeout", False),
        ("wrong_answer", "unparsed_answer", False),
        ("wrong_answer", "value_differs", True),  # two checks that contradict one another
    ],
)
def test_what_is_not_shown_to_be_wrong_or_is_no_whole_text_is_on_neither_side(outcome, reason, is_correct):
    other = wrong("x", tokens=30)._replace(outcome=outcome, reason=reason, is_correct=is_correct)
    assert paired([correct("a", tokens=20), other]) == []


@pytest.mark.parametrize("reason", ["time_limit", "memory_limit", "output_limit"])
def test_a_program_over_its_limits_is_wrong(reason):
    slow = wrong("x", tokens=21)._replace(outcome="over_limit", reason=reason, domain="code")
    assert sides(paired([correct("a", tokens=20), slow]), "long2short_dpo") == {("a", "x")}


# Groups.


@given(one_group)
def test_a_group_has_the_mean_and_deviation_of_its_rewards_and_advantages_that_sum_to_zero(group):
    rows = advantages(group)
    rewards = np.array([row.reward for row in rows])
    assert [row.trace_id for row in rows] == sorted(
        c.trace_id for c in group if c.is_correct is not None and c.outcome != Outcome.UNJUDGED
    )
    for row in rows:
        assert row.group_size == len(rows)
        assert row.group_mean == pytest.approx(rewards.mean())
        assert row.group_std == pytest.approx(rewards.std())
        assert row.has_variance == (0 < rewards.sum() < len(rows)) == (row.group_std > 0)
        spread = row.group_std or 1.0
        assert row.advantage == pytest.approx((row.reward - row.group_mean) / spread)
    assert math.fsum(row.advantage for row in rows) == pytest.approx(0, abs=1e-9)


@given(one_group)
def test_the_mean_of_a_group_is_its_pass_rate(group):
    judged = [candidate for candidate in group if candidate.outcome != Outcome.UNJUDGED]
    rate = count_passes(judged)
    assert all(row.group_mean == rate.num_true / rate.num_judged for row in advantages(judged))


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
@pytest.mark.parametrize("make", [correct, wrong])
def test_equal_rewards_have_no_variance_at_all(size, make):
    for row in advantages([make(str(n)) for n in range(size)]):
        assert (row.group_std, row.advantage, row.has_variance) == (0.0, 0.0, False)
        assert row.group_mean == row.reward


def test_an_empty_group_has_no_rows():
    assert advantages([]) == []
