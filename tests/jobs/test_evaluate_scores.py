"""Scores of an evaluation: the statistics, majority votes over equal answers, the rating, and what is in no rate."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from math import log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.evaluate.benchmarks import BENCHMARKS
from jobs.evaluate.elo import HIGHEST, LOWEST, Rated, rating_of
from jobs.evaluate.estimates import bootstrap_interval, consensus, estimate, pass_at_k, quantiles_of
from jobs.evaluate.groups import Votes, group_wrong, partition
from jobs.evaluate.samples import Item, Sample, Stored
from jobs.evaluate.scores import Scores, score
from schemas.problem import Answer, AssertTest, Choice, Reference, Tests
from schemas.trace import FinishReason
from schemas.verdict import Outcome

counts = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=30)


@given(counts)
def test_pass_at_k_is_the_share_of_draws_with_a_right_attempt(case: tuple[int, int, int]) -> None:
    n, c, k = case
    draws = [any(place < c for place in draw) for draw in combinations(range(n), k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="must be in"):
        pass_at_k(n, c, k)


@given(shares, st.randoms(use_true_random=False))
def test_an_interval_holds_the_mean_and_hangs_on_no_order(values: list[float], rng: random.Random) -> None:
    mean = estimate(values)
    assert mean is not None
    assert mean.interval is not None
    assert mean.interval.low - 1e-9 <= mean.value <= mean.interval.high + 1e-9
    shuffled = rng.sample(values, len(values))
    assert bootstrap_interval(shuffled) == mean.interval


def test_an_interval_is_about_as_wide_as_theory_says() -> None:
    interval = bootstrap_interval([0.0, 1.0] * 50)
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)  # 0.5 / sqrt(100)


def test_one_problem_gives_no_interval_and_none_no_estimate() -> None:
    single = estimate([0.5])
    assert single is not None
    assert single.interval is None
    assert estimate([]) is None
    assert quantiles_of([]) == {}


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (3, [2, 2], 1.0),
        (2, [3], 0.0),
        (2, [2], 0.5),  # a tie is broken by chance
        (2, [2, 2, 1], 1 / 3),
        (0, [], 0.0),  # nobody gave an answer
        (1, [], 1.0),
    ],
)
def test_the_most_frequent_answer_wins_a_vote(right: int, wrong: list[int], expected: float) -> None:
    assert consensus(right, wrong) == pytest.approx(expected)


texts = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12)
pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=6)


@given(texts, pairs, st.randoms(use_true_random=False))
def test_groups_keep_every_vote_and_hang_on_no_order(
    answers: list[str], equal: list[tuple[str, str]], rng: random.Random
) -> None:
    counts = {text: answers.count(text) for text in answers}
    known = [pair for pair in equal if set(pair) <= set(counts)]
    sizes = partition(counts, known)
    assert sum(sizes) == len(answers)
    turned = [pair[::-1] for pair in rng.sample(known, len(known))]
    assert partition(dict(rng.sample(list(counts.items()), len(counts))), turned) == sizes


def test_wrong_answers_that_the_verifier_takes_for_one_another_vote_together() -> None:
    votes = Votes(2, {"0.5": 1, "\\frac{1}{2}": 1, "\\frac{2}{4}": 1, "7": 1})
    assert group_wrong([(votes, Answer(text="3"))]) == [[3, 1]]


def test_answers_are_compared_only_where_it_decides_the_vote() -> None:
    assert group_wrong([(Votes(0, {"0.5": 1, "1/2": 1}), Answer(text="3"))]) == [[1, 1]]
    assert group_wrong([(Votes(3, {"0.5": 1, "1/2": 1}), Answer(text="3"))]) == [[1, 1]]


# The rating.


@given(st.floats(0.02, 0.98), st.integers(800, 3500))
def test_a_rating_from_one_difficulty_is_its_closed_form(share: float, difficulty: int) -> None:
    found = rating_of([Rated(float(difficulty), contest, share) for contest in "ab"])
    assert found is not None
    expected = difficulty + 400 * log10(share / (1 - share))
    assert found.value == pytest.approx(min(max(expected, LOWEST), HIGHEST), abs=0.01)
    assert found.num_contests == 2


def test_a_simulated_contestant_gets_back_the_rating_and_inside_the_interval() -> None:
    rng = random.Random(1)
    problems = []
    for contest in range(40):
        for difficulty in (900, 1200, 1500, 1800, 2100, 2400):
            chance = 1 / (1 + 10 ** ((difficulty - 1700) / 400))
            problems.append(Rated(float(difficulty), str(contest), float(rng.random() < chance)))
    found = rating_of(problems)
    assert found is not None
    assert found.interval is not None
    assert abs(found.value - 1700) < 100
    assert found.interval.low < 1700 < found.interval.high
    assert rating_of(problems[::-1]) == found


def test_solving_more_never_lowers_a_rating_and_the_ends_are_bounds() -> None:
    difficulties = [800.0, 1200.0, 1600.0]
    values = []
    for solved in range(4):
        found = rating_of([Rated(d, str(n), float(n < solved)) for n, d in enumerate(difficulties)])
        assert found is not None
        assert found.is_bound is (solved in (0, 3))
        values.append(found.value)
    assert values == sorted(values)
    assert rating_of([]) is None


# What a stored run amounts to.

PROGRAM = Tests(cases=(AssertTest(entry="f", source="assert f() == 1"),))


def stored(*problems: tuple[Reference, list[tuple[bool | None, str | None]]]) -> Stored:
    """Return an evaluation in which each problem's attempts have these words and answers."""
    items, samples = {}, {}
    for number, (reference, attempts) in enumerate(problems):
        problem_id = f"p{number}"
        items[problem_id] = Item(
            problem_id=problem_id, row_id=str(number), question=f"Question {number}?", reference=reference
        )
        samples[problem_id] = tuple(
            Sample(
                problem_id=problem_id,
                sample_index=index,
                trace_id=f"{problem_id}-{index}",
                is_correct=word,
                outcome=Outcome.UNJUDGED if word is None else Outcome.CORRECT if word else Outcome.WRONG_ANSWER,
                reason=None if word else "value_differs",
                answer=answer,
                num_tokens=10 * (index + 1),
                finish_reason=FinishReason.STOP,
                unreadable=("garbled",) if answer == "garbled" else (),
            )
            for index, (word, answer) in enumerate(attempts)
        )
    return Stored(
        items=items,
        samples=samples,
        num_samples=max(len(attempts) for _, attempts in problems),
        failed={},
        quarantined={},
        teacher={"kind": "scripted"},
        fingerprint={},
        verifiers="v",
    )


def scores_of(*problems: tuple[Reference, list[tuple[bool | None, str | None]]]) -> Scores:
    return score(stored(*problems))


def test_each_problem_weighs_the_same_however_many_attempts_were_judged() -> None:
    found = scores_of(
        (Answer(text="1"), [(True, "1"), (None, None), (None, None), (None, None)]),
        (Answer(text="2"), [(False, "1")] * 4),
    )
    assert found.pass_at_1 is not None
    assert found.pass_at_1.value == 0.5
    assert found.pass_at[4].num_problems == 1  # the other has no four judged attempts


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=8))
def test_unjudged_attempts_are_in_no_rate(words: list[bool | None]) -> None:
    attempts = [(word, None if word is None else "x") for word in words]
    known = [(word, answer) for word, answer in attempts if word is not None]
    with_them, without = scores_of((Answer(text="x"), attempts)), scores_of((Answer(text="x"), known))
    assert with_them.pass_at_1 == without.pass_at_1
    assert with_them.consensus == without.consensus
    assert with_them.counted.no_word == words.count(None)
    assert with_them.counted.has_gaps is (None in words)


def test_attempts_that_are_not_made_yet_are_pending_and_those_without_a_trace_are_not() -> None:
    run = stored((Answer(text="1"), [(True, "1"), (True, "1"), (False, "2")]), (Answer(text="2"), [(True, "2")]))
    found = score(replace(run, failed={"engine_died": 1}))
    assert (found.counted.requested, found.counted.judged, found.counted.pending) == (6, 4, 1)
    assert found.counted.has_gaps
    assert not score(replace(run, failed={"not_recorded": 2})).counted.has_gaps  # known from the input


def test_a_vote_joins_equal_wrong_answers_and_an_unreadable_right_one_counts() -> None:
    attempts = [(True, "3"), (True, "3.0"), (False, "0.5"), (False, "\\frac12"), (False, "1/2")]
    found = scores_of((Answer(text="3"), attempts), (Answer(text="4"), [(True, "garbled")]))
    assert [one.consensus for one in found.problems] == [0.0, 1.0]
    assert found.num_right_and_readable == 2
    assert found.unreadable == {"garbled": 1}


def test_what_the_benchmark_knows_of_its_items_splits_and_rates_them() -> None:
    run = stored(*[(PROGRAM, [(True, None), (number < 1, None)]) for number in range(3)])
    rows = {str(number): {"rating": rating, "contest_id": 7} for number, rating in enumerate((800, 1200, None))}
    rated = score(run, None, BENCHMARKS["codeforces"], rows).rating
    assert rated is not None
    assert (rated.num_problems, rated.num_contests, rated.interval) == (2, 1, None)  # one has no rating
    assert rated.value > 1200
    levels = {str(number): {"level": level, "subject": "x"} for number, level in enumerate((1, 2, 2))}
    groups = score(run, None, BENCHMARKS["math500"], levels).groups
    assert {name: mean.value for name, mean in groups["level"].items()} == {"1": 1.0, "2": 0.5}
    assert list(groups) == ["level"]  # all are of one subject


def test_letters_vote_and_programs_do_not() -> None:
    letters = (Choice(letter="B", options=("x", "y")), [(True, "B"), (True, "B"), (False, "A")])
    assert scores_of(letters).consensus is not None
    assert scores_of((PROGRAM, [(True, None), (False, None)])).consensus is None
