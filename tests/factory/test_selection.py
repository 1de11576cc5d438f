"""Selections: every judged trace is accepted or rejected for one reason, by the law of its rule, in whatever order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import combinations
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.diversity import spread
from factory.rules import DIVERSE_PER_PROBLEM, LENGTH_RULES, LUCKY_GUESS_SHARE, count_passes, difficulty_of
from factory.selection import (
    Candidate,
    Decision,
    RejectReason,
    Sums,
    choose,
    selection_digest,
    split_of,
)
from schemas.config import SelectConfig
from schemas.verdict import Outcome, Reason
from tests.candidates import RULES, configs, correct, decided, grouped, many, one_group, wrong

SHORTEST = SelectConfig(rule="shortest_correct")


def decide(found: list[Candidate], config: SelectConfig) -> list[Decision]:
    return sorted(decision for decisions in decided(grouped(found), config) for decision in decisions)


def accepted(decisions: list[Decision]) -> list[str]:
    return [decision.trace_id for decision in decisions if decision.is_accepted]


def reasons(decisions: list[Decision]) -> dict[str, str | None]:
    return {decision.trace_id: decision.reason for decision in decisions}


def in_choice(group: list[Candidate]) -> list[Candidate]:
    return [c for c in group if c.outcome == "correct" and c.is_correct and c.like is None]


# Of every rule.


@given(many, configs(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_nothing(found, config, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert decide(shuffled, config) == decide(found, config)


@given(many, configs())
def test_every_judged_trace_is_accepted_or_rejected_for_one_reason_and_no_other_is_counted(found, config):
    decisions = decide(found, config)
    judged = {c.trace_id for c in found if c.outcome != Outcome.UNJUDGED}
    assert len(decisions) == len(judged)
    assert {d.trace_id for d in decisions} == judged
    assert all(d.is_accepted == (d.reason is None) for d in decisions)
    assert {d.reason for d in decisions} <= {None, *Reason, *RejectReason}


@given(many, configs())
def test_only_a_trace_that_is_correct_in_every_respect_is_accepted(found, config):
    chosen = set(accepted(decide(found, config)))
    assert chosen <= {c.trace_id for c in in_choice(found)}


@given(many, configs())
def test_a_rejected_trace_keeps_the_reason_of_its_verdict(found, config):
    said = reasons(decide(found, config))
    for candidate in found:
        if candidate.outcome not in ("correct", "readable", "unjudged"):
            assert said[candidate.trace_id] == candidate.reason


@given(many, configs())
def test_ranks_are_the_places_in_the_choice_and_the_accepted_come_first(found, config):
    decisions = {d.trace_id: d for d in decide(found, config)}
    for group in grouped(found):
        ranked = [d for c in group if (d := decisions.get(c.trace_id)) is not None and d.rank is not None]
        assert sorted(d.rank for d in ranked) == list(range(1, len(ranked) + 1))
        taken = [d.rank for d in ranked if d.reason in (None, "over_quota")]
        assert sorted(taken) == list(range(1, len(taken) + 1))
        assert {d.trace_id for d in ranked} <= {c.trace_id for c in in_choice(group)}


def test_another_hash_seed_decides_the_same():
    traces = "[Candidate(f'{p}-{i}', p, i, 'math', 9 * i + 5, 'correct', None, True) for i in range(6)]"
    script = (
        "from factory.selection import *; from schemas.config import SelectConfig, Quotas\n"
        f"g = [{traces} for p in 'abc']\n"
        f"for rule in {RULES}:\n"
        "    for quotas in (Quotas(), Quotas(total=2)):\n"
        "        config = SelectConfig(rule=rule, quotas=quotas)\n"
        "        print([*select(g, config, over_quotas(g, config) if has_pass(config) else None)])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


# The law of each rule.


@given(one_group, st.none() | st.integers(1, 3))
def test_all_correct_takes_the_lowest_sample_indices_up_to_the_cap(group, most):
    ordered = sorted(in_choice(group), key=lambda c: (c.sample_index, c.trace_id))
    chosen = accepted(choose(group, SelectConfig(max_per_problem=most)))
    assert chosen == sorted(c.trace_id for c in ordered[:most])


@given(one_group, st.integers())
def test_one_random_takes_one_wherever_there_is_one(group, seed):
    config = SelectConfig(rule="one_random", seed=seed)
    assert len(accepted(choose(group, config))) == min(1, len(in_choice(group)))


def test_one_random_takes_each_of_a_group_about_as_often_and_another_one_by_another_seed():
    groups = [[correct(f"{n}-{i}", problem_id=str(n), sample_index=i) for i in range(4)] for n in range(800)]
    chosen = [
        [accepted(choose(group, SelectConfig(rule="one_random", seed=seed)))[0] for group in groups] for seed in (0, 1)
    ]
    indices = [trace_id.partition("-")[2] for trace_id in chosen[0]]
    assert all(140 < indices.count(str(i)) < 260 for i in range(4))  # 200 each, with five standard deviations of 12
    assert 100 < sum(a == b for a, b in zip(*chosen, strict=True)) < 300


@given(one_group)
def test_shortest_correct_takes_one_and_none_shorter_is_left_but_lucky_guesses(group):
    right = in_choice(group)
    decisions = reasons(choose(group, SHORTEST))
    if not right:
        return
    (chosen,) = [c for c in right if decisions[c.trace_id] is None]
    bound = LUCKY_GUESS_SHARE * median(c.num_completion_tokens for c in right)
    for other in right:
        is_lucky = other.num_completion_tokens < bound
        assert (decisions[other.trace_id] == RejectReason.LUCKY_GUESS) == is_lucky
        assert is_lucky or other.num_completion_tokens >= chosen.num_completion_tokens


@given(one_group, st.sampled_from(sorted(LENGTH_RULES)))
def test_lucky_guesses_are_the_same_for_every_rule_that_looks_at_lengths(group, rule):
    def lucky(name):
        said = reasons(choose(group, SelectConfig(rule=name)))
        return {trace_id for trace_id, reason in said.items() if reason == "lucky_guess"}

    assert lucky(rule) == lucky("shortest_correct")
    assert not lucky("all_correct")


@given(one_group)
def test_long_short_mix_takes_the_shortest_and_the_longest(group):
    decisions = choose(group, SelectConfig(rule="long_short_mix"))
    lengths = {c.trace_id: c.num_completion_tokens for c in group}
    ranked = sorted((d for d in decisions if d.rank is not None), key=lambda d: d.rank)
    chosen = [lengths[d.trace_id] for d in ranked if d.is_accepted]
    assert len(chosen) == min(2, len(ranked))
    if chosen:
        assert (chosen[0], chosen[-1]) == (
            min(lengths[d.trace_id] for d in ranked),
            max(lengths[d.trace_id] for d in ranked),
        )


@given(one_group, st.none() | st.integers(1, 6))
def test_k_diverse_takes_k_of_those_that_are_no_lucky_guesses(group, most):
    decisions = choose(group, SelectConfig(rule="k_diverse", max_per_problem=most))
    num_ranked = sum(decision.rank is not None for decision in decisions)
    assert len(accepted(decisions)) == min(most or DIVERSE_PER_PROBLEM, num_ranked)


def distance(one: tuple[int, bytes], other: tuple[int, bytes]) -> float:
    """Return the distance of two traces, of what it is said to be."""
    shorter, longer = sorted(max(1, length) for length, _ in (one, other))
    texts = [np.frombuffer(text, np.uint32) for _, text in (one, other)]
    return 1 - shorter / longer + 1 - float((texts[0] == texts[1]).mean())


signatures = st.lists(st.integers(0, 2), min_size=4, max_size=4).map(
    lambda values: np.array(values, np.uint32).tobytes()
)


@given(st.lists(st.tuples(st.integers(0, 40), signatures), min_size=1, max_size=9).map(sorted), st.integers(2, 5))
def test_the_most_alike_of_diverse_traces_are_at_least_half_as_far_apart_as_can_be(traces, most):
    def closest(some: Iterable[tuple[int, bytes]]) -> float:
        return min(distance(one, other) for one, other in combinations(some, 2))

    lengths, texts = zip(*traces, strict=True)
    taken = spread(lengths, texts, most)
    assert len(set(taken)) == len(taken) == min(most, len(traces))
    if len(taken) > 1:
        best = max(closest(some) for some in combinations(traces, len(taken)))
        assert closest(traces[place] for place in taken) >= best / 2 - 1e-9


def test_k_diverse_takes_the_middle_length_and_then_the_farthest_by_length_and_text():
    group = [correct(str(n), tokens=tokens) for n, tokens in enumerate([100, 101, 102, 200, 400])]
    config = SelectConfig(rule="k_diverse", max_per_problem=3)
    assert [(d.trace_id, d.rank) for d in choose(group, config)] == [("0", 4), ("1", 5), ("2", 1), ("3", 3), ("4", 2)]
    same, another = bytes(range(16)), bytes(range(16, 32))
    group = [c._replace(signature=another if c.trace_id == "0" else same) for c in group]
    assert [(d.trace_id, d.rank) for d in choose(group, config)] == [("0", 2), ("1", 4), ("2", 1), ("3", 5), ("4", 3)]


@given(one_group, st.sampled_from([0.1, 0.29, 0.5, 1]))
def test_hard_subset_takes_what_all_correct_takes_of_problems_up_to_its_pass_rate(group, rate):
    config = SelectConfig(rule="hard_subset", max_pass_rate=rate)
    decisions = choose(group, config)
    true, judged = count_passes(group)
    if true <= Fraction(str(rate)) * judged:
        assert decisions == choose(group, SelectConfig())
    else:
        assert not accepted(decisions)
        assert all(reasons(decisions)[c.trace_id] == "too_easy" for c in in_choice(group))


@given(st.integers(0, 60), st.integers(1, 60))
def test_difficulties_split_pass_rates_at_the_thirds(true, more):
    judged = max(true, more)
    rate = Fraction(true, judged)
    said = difficulty_of(count_passes([correct("")] * true + [wrong("")] * (judged - true)))
    assert said == ("easy" if rate > Fraction(2, 3) else "medium" if rate >= Fraction(1, 3) else "hard")


# Examples.


def test_a_right_answer_in_an_unreadable_trace_is_rejected_for_being_unreadable():
    candidate = correct("a")._replace(outcome="unreadable", reason="empty_think")
    assert reasons(choose([candidate], SelectConfig())) == {"a": "empty_think"}


def test_a_readable_trace_without_a_reference_is_unverified():
    candidate = correct("a")._replace(outcome="readable", is_correct=None)
    assert reasons(choose([candidate], SelectConfig())) == {"a": "unverified"}


def test_a_judge_model_alone_does_not_make_a_trace_accepted():
    assert reasons(choose([correct("a")._replace(is_correct=None)], SelectConfig())) == {"a": "unverified"}


def test_a_trace_below_a_quarter_of_the_median_is_a_lucky_guess_and_exactly_a_quarter_is_not():
    group = [correct("a", tokens=24), correct("b", tokens=100), correct("c", tokens=100)]
    assert reasons(choose(group, SHORTEST)) == {"a": "lucky_guess", "b": None, "c": "not_chosen"}
    group[0] = correct("a", tokens=25)
    assert reasons(choose(group, SHORTEST)) == {"a": None, "b": "not_chosen", "c": "not_chosen"}


def test_equal_lengths_go_to_the_lower_sample_index():
    assert accepted(choose([correct("a", sample_index=2), correct("b", sample_index=1)], SHORTEST)) == ["b"]


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ([correct("a"), correct("a")], "trace a comes twice"),
        ([correct("a"), correct("b", problem_id="q")], "problems p and q"),
        ([wrong("a")._replace(reason=None)], "trace a: outcome wrong_answer needs a reason"),
    ],
)
def test_a_group_that_is_none_is_refused(group, words):
    with pytest.raises(ValueError, match=words):
        choose(group, SelectConfig())


def test_sums_that_do_not_add_up_are_our_own_bug():
    with pytest.raises(AssertionError, match="judged 3 is not accepted 1"):
        Sums(judged=3, accepted=1, rejected={"not_chosen": 1})


def test_reject_reasons_and_verdict_reasons_share_no_word():
    assert not set(RejectReason) & set(Reason)


# What is beside the decisions.


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "shortest_correct"},
        {"max_per_problem": 2},
        {"near_duplicates": 0.85},
        {"quotas": {"total": 5}},
        {"quotas": {"total": 5}, "seed": 1},
        {"rule": "hard_subset", "max_pass_rate": 0.4},
        {"preference": {"longer": 2}},
        {"validation_share": 0.1},
        {"system": "Think."},
    ],
)
def test_the_digest_changes_with_whatever_changes_rows(change):
    found = {
        selection_digest(SelectConfig(**body), {"verdicts": "a"}) for body in ({}, change, {"quotas": {"total": 5}})
    }
    assert len(found) == 3 - (change == {"quotas": {"total": 5}})


def test_the_digest_changes_with_the_verdicts_but_not_with_the_name_or_the_tables_that_are_written():
    digest = selection_digest(SelectConfig(), {"verdicts": "a"})
    assert selection_digest(SelectConfig(name="other", configs=("sft",)), {"verdicts": "a"}) == digest
    assert selection_digest(SelectConfig(), {"verdicts": "b"}) != digest


@given(st.text(min_size=1), st.floats(0, 0.5), st.floats(0, 0.49))
def test_a_larger_validation_split_holds_the_smaller_one(problem_id, share, more):
    if split_of(problem_id, share) == "validation":
        assert split_of(problem_id, share + more) == "validation"


def test_the_validation_split_has_about_its_share_and_none_without_one():
    ids = [f"{n:032x}" for n in range(2_000)]
    assert 140 < sum(split_of(one, 0.1) == "validation" for one in ids) < 260  # 200, with 4.5 standard deviations of 13
    assert not any(split_of(one, 0) == "validation" for one in ids)
