from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.selection import (
    LUCKY_GUESS_SHARE,
    Candidate,
    Decision,
    RejectReason,
    Sums,
    diff_selections,
    select,
    selection_digest,
    sum_decisions,
    unjudged,
)
from schemas.config import SelectConfig
from schemas.verdict import Outcome, Reason
from tests.strategies import summaries

SHORTEST = SelectConfig(rule="shortest_correct")


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    # Half of them correct: by chance alone few would be.
    correct = st.just((Outcome.CORRECT, None, True))
    outcome, reason, is_correct = draw(correct | summaries)
    return Candidate(
        trace_id="",
        problem_id=draw(st.sampled_from("pqr")),
        sample_index=draw(st.integers(0, 5)),
        num_completion_tokens=draw(st.integers(0, 40)),
        outcome=outcome,
        reason=reason,
        is_correct=is_correct,
    )


groups = st.lists(candidates(), max_size=24).map(
    lambda found: [replace(candidate, trace_id=f"{i:032x}") for i, candidate in enumerate(found)]
)
configs = st.builds(
    SelectConfig,
    rule=st.sampled_from(["all_correct", "shortest_correct"]),
    max_per_problem=st.none() | st.integers(1, 3),
)


def correct(trace_id: str, *, tokens: int = 10, sample_index: int = 0, problem_id: str = "p") -> Candidate:
    return Candidate(
        trace_id=trace_id,
        problem_id=problem_id,
        sample_index=sample_index,
        num_completion_tokens=tokens,
        outcome=Outcome.CORRECT,
        reason=None,
        is_correct=True,
    )


def accepted(decisions: list[Decision]) -> list[str]:
    return [decision.trace_id for decision in decisions if decision.is_accepted]


def reasons(decisions: list[Decision]) -> dict[str, str | None]:
    return {decision.trace_id: decision.reason for decision in decisions}


@given(groups, configs, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_nothing(found, config, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert select(shuffled, config) == select(found, config)


@given(groups, configs)
def test_every_judged_trace_is_accepted_or_rejected_for_one_reason_and_no_other_is_counted(found, config):
    decisions = select(found, config)
    sums = sum_decisions(decisions)
    assert sums.judged == len(found) - len(unjudged(found))
    assert sums.judged == sums.accepted + sum(sums.rejected.values())
    assert {d.trace_id for d in decisions} | set(unjudged(found)) == {c.trace_id for c in found}
    assert set(sums.rejected) <= set(Reason) | set(RejectReason)


@given(groups, configs)
def test_only_a_trace_that_is_correct_in_every_respect_is_accepted(found, config):
    by_id = {candidate.trace_id: candidate for candidate in found}
    for trace_id in accepted(select(found, config)):
        assert by_id[trace_id].outcome is Outcome.CORRECT
        assert by_id[trace_id].is_correct is True


@given(groups, configs)
def test_a_rejected_trace_keeps_the_reason_of_its_verdict(found, config):
    by_id = {candidate.trace_id: candidate for candidate in found}
    for decision in select(found, config):
        candidate = by_id[decision.trace_id]
        if candidate.outcome not in (Outcome.CORRECT, Outcome.READABLE):
            assert decision.reason == candidate.reason


@given(groups, st.integers(1, 3))
def test_all_correct_takes_the_lowest_sample_indices_up_to_the_cap(found, most):
    chosen = set(accepted(select(found, SelectConfig(max_per_problem=most))))
    for problem_id in "pqr":
        group = [c for c in found if c.problem_id == problem_id and c.outcome is Outcome.CORRECT and c.is_correct]
        ordered = sorted(group, key=lambda c: (c.sample_index, c.trace_id))
        assert chosen & {c.trace_id for c in group} == {c.trace_id for c in ordered[:most]}


@given(groups)
def test_shortest_correct_takes_one_of_each_problem_and_none_shorter_is_left_but_lucky_guesses(found):
    decisions = reasons(select(found, SHORTEST))
    for problem_id in "pqr":
        group = [c for c in found if c.problem_id == problem_id and c.outcome is Outcome.CORRECT and c.is_correct]
        if not group:
            continue
        (chosen,) = [c for c in group if decisions[c.trace_id] is None]
        bound = LUCKY_GUESS_SHARE * median(c.num_completion_tokens for c in group)
        for other in group:
            is_lucky = other.num_completion_tokens < bound
            assert (decisions[other.trace_id] == RejectReason.LUCKY_GUESS) == is_lucky
            assert is_lucky or other.num_completion_tokens >= chosen.num_completion_tokens


def test_a_right_answer_in_an_unreadable_trace_is_rejected_for_being_unreadable():
    candidate = replace(correct("a"), outcome=Outcome.UNREADABLE, reason=Reason.EMPTY_THINK)
    assert reasons(select([candidate], SelectConfig())) == {"a": "empty_think"}


def test_a_readable_trace_without_a_reference_is_unverified():
    candidate = replace(correct("a"), outcome=Outcome.READABLE, is_correct=None)
    assert reasons(select([candidate], SelectConfig())) == {"a": "unverified"}


def test_a_judge_model_alone_does_not_make_a_trace_accepted():
    candidate = replace(correct("a"), is_correct=None)
    assert reasons(select([candidate], SelectConfig())) == {"a": "unverified"}


def test_a_trace_below_a_quarter_of_the_median_is_a_lucky_guess_and_exactly_a_quarter_is_not():
    group = [correct("a", tokens=24), correct("b", tokens=100), correct("c", tokens=100)]
    assert reasons(select(group, SHORTEST)) == {"a": "lucky_guess", "b": None, "c": "not_chosen"}
    group[0] = correct("a", tokens=25)
    assert reasons(select(group, SHORTEST)) == {"a": None, "b": "not_chosen", "c": "not_chosen"}


def test_equal_lengths_go_to_the_lower_sample_index():
    group = [correct("a", sample_index=2), correct("b", sample_index=1)]
    assert accepted(select(group, SHORTEST)) == ["b"]


def test_a_trace_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="trace a comes twice"):
        select([correct("a"), correct("a")], SelectConfig())


def test_sums_that_do_not_add_up_are_our_own_bug():
    with pytest.raises(AssertionError, match="judged 3 is not accepted 1"):
        Sums(judged=3, accepted=1, rejected={"not_chosen": 1})


def test_reject_reasons_and_verdict_reasons_share_no_word():
    assert not set(RejectReason) & set(Reason)


def test_the_digest_changes_with_the_rule_and_the_verdicts_but_not_with_the_name():
    digest = selection_digest(SelectConfig(), {"verdicts": "a"})
    assert selection_digest(SelectConfig(name="other"), {"verdicts": "a"}) == digest
    assert selection_digest(SHORTEST, {"verdicts": "a"}) != digest
    assert selection_digest(SelectConfig(max_per_problem=2), {"verdicts": "a"}) != digest
    assert selection_digest(SelectConfig(), {"verdicts": "b"}) != digest


@given(groups, configs, configs)
def test_a_diff_accounts_for_every_accepted_row_of_both_sides(found, config_a, config_b):
    a, b = ({d.trace_id: d for d in select(found, config)} for config in (config_a, config_b))
    diff = diff_selections(a, b)
    assert sum(d.is_accepted for d in b.values()) == diff.num_in_both + len(diff.entered)
    assert sum(d.is_accepted for d in a.values()) == diff.num_in_both + len(diff.left)
    back = diff_selections(b, a)
    assert [change.trace_id for change in back.left] == [change.trace_id for change in diff.entered]


def test_a_diff_says_why_a_row_entered_or_left():
    a = {d.trace_id: d for d in select([correct("x", tokens=9), correct("y", tokens=5)], SelectConfig())}
    wrong = replace(correct("z"), outcome=Outcome.WRONG_ANSWER, reason=Reason.VALUE_DIFFERS, is_correct=False)
    b = {d.trace_id: d for d in select([correct("x", tokens=9), correct("y", tokens=5), wrong], SHORTEST)}
    diff = diff_selections(a, b)
    assert [(c.trace_id, c.before, c.after) for c in diff.left] == [("x", "accepted", "not_chosen")]
    assert [(c.trace_id, c.before, c.after) for c in diff.reworded] == [("z", "absent", "value_differs")]
    assert diff.entered == ()
    assert diff.num_in_both == 1
