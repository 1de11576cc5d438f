"""Adaptive sampling: whatever verdicts come, no problem gets too few or too many attempts, and each ends once."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factory.adaptive import Adaptive, CancelReason, Closing, Prior, Standing, chance_of, decide, fit_prior
from factory.dispatch import Dispatch, Key
from factory.state import CANCELLED, ENDED, JUDGED, TRACED, FrozenProblems, RunState, word_of
from factory.suspects import MIN_AGREEING, read_suspects
from schemas.arrow import problems_to_table
from schemas.config import AdaptiveConfig
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Verdict, summarize
from tests.runs import make_problem, make_prompt, make_trace, start_run, write_segment
from verifiers.math import judge_answer

MATH = {
    Outcome.CORRECT: None,
    Outcome.WRONG_ANSWER: Reason.VALUE_DIFFERS,
    Outcome.NO_ANSWER: Reason.NO_ANSWER,
    Outcome.UNJUDGED: Reason.WORKER_DIED,
    Outcome.BAD_REFERENCE: Reason.UNPARSED_REFERENCE,
}
FORMS = (None, Reason.MALFORMED_TAGS, Reason.TRUNCATED)


def _state(num_problems: int, num_samples: int) -> RunState:
    problems = [make_problem(number) for number in range(num_problems)]
    return RunState(FrozenProblems(problems_to_table((one, make_prompt(one)) for one in problems)), num_samples)


def _verdict(outcome: Outcome, form: Reason | None = None) -> Verdict:
    checks = [Check(name="math", version="1", outcome=outcome, reason=MATH[outcome])]
    if form is not None:
        checks.append(Check(name="form", version="1", outcome=Outcome.UNREADABLE, reason=form))
    return Verdict(reference_hash="0", checks=tuple(checks))


RIGHT, WRONG = _verdict(Outcome.CORRECT), _verdict(Outcome.WRONG_ANSWER)

rules = st.builds(
    AdaptiveConfig,
    useful=st.integers(1, 4),
    min_samples=st.integers(1, 4),
    give_up_below=st.sampled_from([0.0, 0.1, 0.3]),
)
verdicts = st.builds(
    _verdict,
    st.sampled_from([Outcome.CORRECT, Outcome.WRONG_ANSWER, *MATH]),
    st.sampled_from([None, None, *FORMS]),
)


class Sampling(RuleBasedStateMachine):
    """One engine, verdicts of any kind in any order, and starts that are lost at any moment."""

    @initialize(num_problems=st.integers(1, 6), num_samples=st.integers(4, 7), rule=rules)
    def begin(self, num_problems: int, num_samples: int, rule: AdaptiveConfig) -> None:
        self.rule, self.num_problems, self.num_samples = rule, num_problems, num_samples
        self.traced: set[Key] = set()
        self.words: dict[Key, Verdict] = {}
        self.failed: set[Key] = set()
        self.cancelled: dict[Key, CancelReason] = {}
        self.start(held=set())

    def start(self, held: set[Key]) -> None:
        """Build everything from what is on record; the engine holds these, or nothing."""
        self.state = _state(self.num_problems, self.num_samples)
        for keys, flag in ((self.traced, TRACED), (self.words, JUDGED), (self.failed, ENDED & ~TRACED)):
            for key in keys:
                self.state.flags[self.state.number(key)] |= flag
        for key in self.cancelled:
            self.state.flags[self.state.number(key)] |= CANCELLED
        for key, verdict in self.words.items():
            self.state.words[self.state.number(key)] = word_of(*summarize(verdict.checks))
        self.adaptive = Adaptive(self.state, self.rule, held)
        self.dispatch = Dispatch(self.adaptive, max_deaths=3)
        self.dispatch.adopt("e", sorted(held))
        self.held = set(held)
        self.unwanted: dict[Key, CancelReason] = {}
        for closing in self.adaptive.resume():
            self.close(closing)

    def close(self, closing: Closing | None) -> None:
        if closing is None:
            return
        self.dispatch.drop_fresh(len(closing.never_made))
        for number in closing.never_made.tolist():
            self.cancel(Key(*divmod(number, self.num_samples)), closing.reason)
        for key in closing.running:
            assert self.dispatch.give_up(key) == "e"
            self.unwanted[key] = closing.reason

    def cancel(self, key: Key, reason: CancelReason) -> None:
        assert key not in self.cancelled, "cancelled twice"
        self.cancelled[key] = reason
        self.state.flags[self.state.number(key)] |= CANCELLED

    @rule(capacity=st.integers(1, 5))
    def lease(self, capacity: int) -> None:
        keys = self.dispatch.lease("e", capacity)
        for closing in self.adaptive.take_closings():
            self.close(closing)
        assert not set(keys) & (self.held | self.ended()), "issued twice"
        assert len(keys) == len(set(keys)) <= capacity
        self.held |= set(keys)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_failure=st.integers(0, 9).map(lambda n: n == 0), tokens=st.integers(1, 9))
    def finish(self, data: st.DataObject, is_failure: bool, tokens: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.held.remove(key)
        self.dispatch.finish("e", [key])
        number = self.state.number(key)
        if (reason := self.unwanted.pop(key, None)) and data.draw(st.booleans()):
            self.cancel(key, reason)
            self.close(self.adaptive.ended(number))
        elif is_failure:
            self.failed.add(key)
            self.state.flags[number] |= ENDED & ~TRACED & ~CANCELLED
            self.close(self.adaptive.ended(number))
        else:
            self.traced.add(key)
            self.state.flags[number] |= TRACED
            self.adaptive.made(number, tokens)

    @precondition(lambda self: self.traced - self.words.keys())
    @rule(data=st.data(), verdict=verdicts)
    def judge(self, data: st.DataObject, verdict: Verdict) -> None:
        key = data.draw(st.sampled_from(sorted(self.traced - self.words.keys())))
        self.words[key] = verdict
        self.close(self.adaptive.judged(self.state.number(key), verdict))

    @rule(keeps=st.booleans())
    def restart(self, keeps: bool) -> None:
        self.start(self.held if keeps else set())

    def ended(self) -> set[Key]:
        return self.traced | self.failed | set(self.cancelled)

    @invariant()
    def every_attempt_is_in_one_place(self) -> None:
        assert not self.traced & (self.failed | self.cancelled.keys())
        left = self.num_problems * self.num_samples - len(self.ended()) - len(self.held)
        assert self.adaptive.num_left == self.dispatch.num_queued == left

    @invariant()
    def the_first_attempts_are_made(self) -> None:
        for key in self.cancelled:
            if not any(v.outcome is Outcome.BAD_REFERENCE for k, v in self.words.items() if k.problem == key.problem):
                assert key.sample_index >= self.rule.min_samples

    @invariant()
    def nothing_is_cancelled_without_ground(self) -> None:
        for key, reason in self.cancelled.items():
            words = [verdict for k, verdict in self.words.items() if k.problem == key.problem]
            useful = sum(verdict.outcome is Outcome.CORRECT for verdict in words)
            if reason is CancelReason.QUOTA_REACHED:
                assert useful >= self.rule.useful
            else:
                assert any(v.outcome is Outcome.BAD_REFERENCE or v.is_correct is False for v in words)

    def teardown(self) -> None:
        """Whatever has happened, the run comes to its end: nothing waits for nothing."""
        chance = random.Random(0)
        for _ in range(10_000):
            if not hasattr(self, "dispatch") or (self.dispatch.is_done and self.traced == self.words.keys()):
                return
            self.lease(5)
            for key in sorted(self.held):
                self.held.remove(key)
                self.dispatch.finish("e", [key])
                self.traced.add(key)
                self.unwanted.pop(key, None)
                self.state.flags[self.state.number(key)] |= TRACED
            for key in sorted(self.traced - self.words.keys()):
                self.words[key] = chance.choice([RIGHT, WRONG])
                self.close(self.adaptive.judged(self.state.number(key), self.words[key]))
        raise AssertionError("the run does not end")


TestSampling = Sampling.TestCase
TestSampling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def _run(outcomes: list[list[bool]], rule: AdaptiveConfig, *, capacity: int, seed: int = 0) -> Adaptive:
    """Make every attempt that is wanted, in an engine of that capacity, with these answers."""
    words = [[RIGHT if is_right else WRONG for is_right in answers] for answers in outcomes]
    return _run_verdicts(words, rule, capacity=capacity, seed=seed)


def _run_verdicts(outcomes: list[list[Verdict]], rule: AdaptiveConfig, *, capacity: int, seed: int = 0) -> Adaptive:
    """Make every attempt that is wanted, with these verdicts; as ``_run``."""
    state = _state(len(outcomes), len(outcomes[0]))
    adaptive = Adaptive(state, rule)
    chance = random.Random(seed)
    held: list[Key] = []
    while True:
        while len(held) < capacity and (key := adaptive.take()) is not None:
            held.append(key)
        if not held:
            return adaptive
        key = held.pop(chance.randrange(len(held)))
        number = state.number(key)
        if state.flags[number] & CANCELLED:
            closing = adaptive.ended(number)
        else:
            state.flags[number] |= TRACED
            closing = adaptive.judged(number, outcomes[key.problem][key.sample_index])
        if closing is not None:
            state.flags[closing.never_made] |= CANCELLED
            for running in closing.running:
                state.flags[state.number(running)] |= CANCELLED


@given(outcomes=st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=40, max_size=40), rule=rules)
@settings(max_examples=25, deadline=None)
def test_while_others_wait_no_attempt_is_one_too_many(outcomes: list[list[bool]], rule: AdaptiveConfig) -> None:
    # One slot: engines never run dry, so nothing is asked for in advance.
    adaptive = _run(outcomes, rule, capacity=1)
    for place, answers in enumerate(outcomes):
        made = adaptive._state.flags.reshape(-1, 8)[place] & TRACED > 0
        count = int(made.sum())
        assert made[:count].all(), "attempts are made in the order of their index"
        assert count >= rule.min_samples
        if count > rule.min_samples:
            assert sum(answers[: count - 1]) < rule.useful


@given(
    num_true=st.integers(0, 5),
    num_against=st.integers(0, 12),
    left=st.integers(0, 12),
    needed=st.integers(0, 6),
    prior=st.sampled_from([(1, 1), (2, 1), (1, 3)]),
)
def test_the_chance_to_get_there_is_that_of_the_beta_binomial_distribution(
    num_true: int, num_against: int, left: int, needed: int, prior: tuple[int, int]
) -> None:
    a, b = prior[0] + num_true, prior[1] + num_against

    def rising(start: int, count: int) -> Fraction:
        product = Fraction(1)
        for step in range(count):
            product *= start + step
        return product

    exact = Fraction(0)
    for right in range(needed, left + 1):
        ways = len(list(itertools.combinations(range(left), right)))
        exact += ways * rising(a, right) * rising(b, left - right) / rising(a + b, left)
    assert chance_of(needed, left, Prior(a, b)) == pytest.approx(float(exact), abs=1e-9)


def _standing(**known: int) -> Standing:
    counts = {"num_useful": 0, "num_true": 0, "num_against": 0, "num_out": 0, "num_left": 30, "num_first_left": 0}
    return Standing(**(counts | known))


def test_a_problem_whose_attempts_fail_for_their_form_alone_is_not_hopeless() -> None:
    rule, prior = AdaptiveConfig(), Prior(0.5, 0.5)
    assert decide(_standing(num_left=10), rule, prior).num_more == 2
    assert decide(_standing(num_left=10, num_against=20), rule, prior).ending is CancelReason.HOPELESS
    assert decide(_standing(num_left=10, num_true=20), rule, prior).num_more == 2


def test_an_easy_problem_that_cannot_get_there_gives_what_it_can() -> None:
    rule, prior = AdaptiveConfig(useful=4, min_samples=1), Prior(0.5, 0.5)
    assert decide(_standing(num_true=1, num_left=3), rule, prior).num_more == 3
    assert decide(_standing(num_against=3, num_left=3), rule, prior).ending is CancelReason.HOPELESS
    assert decide(_standing(num_against=3, num_left=0), rule, prior) == (0, None), "nothing is left to cancel"


def test_more_is_asked_for_in_advance_only_when_engines_would_run_dry() -> None:
    rule, prior = AdaptiveConfig(), Prior(0.5, 0.5)
    known = _standing(num_true=1, num_useful=1, num_against=3, num_out=1)
    assert decide(known, rule, prior).num_more == 0
    assert decide(known, rule, prior, is_tail=True).num_more == 3  # 1 / (1.5 / 5) is 3.3 attempts, one is out
    assert decide(_standing(num_out=2), rule, prior, is_tail=True).num_more == 0, "nothing is known of it yet"


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.4), (2.0, 3.0), (0.2, 1.5)])
def test_the_prior_is_that_of_the_problems(a: float, b: float) -> None:
    mean, squares = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
    assert fit_prior(1_000, mean, squares) == pytest.approx((a, b))
    assert fit_prior(10, mean, squares) == Prior(0.5, 0.5)


def test_problems_with_long_attempts_go_on_first_and_short_ones_fill_the_end() -> None:
    state = _state(4, 4)
    adaptive = Adaptive(state, AdaptiveConfig(useful=4, min_samples=1))
    lengths = [10, 1_000, 500]
    for place, length in enumerate(lengths):
        key = adaptive.take()
        assert key == Key(place, 0)
        number = state.number(key)
        state.flags[number] |= TRACED
        adaptive.made(number, length)
    for place in range(3):
        assert adaptive.judged(place * 4, RIGHT) is None
    order = [key.problem for key in iter(adaptive.take, None)]
    assert order[:6] == [1, 1, 1, 3, 0, 0], "after those of 1, which are above the mean, a new problem, then the others"


def test_a_run_that_asks_for_more_goes_on_with_what_it_knows() -> None:
    """Attempts that were cancelled stay so; new ones take their place."""
    small, large = _state(3, 4), _state(3, 8)
    for state in (small, large):
        for place in range(3):
            numbers = [place * state.num_samples + index for index in range(4)]
            state.flags[numbers[:2]] |= TRACED | JUDGED
            state.words[numbers[:2]] = word_of(*summarize((RIGHT if place == 0 else WRONG).checks))
            state.flags[numbers[2:]] |= CANCELLED
    rule = AdaptiveConfig(useful=2, give_up_below=0)
    assert Adaptive(small, rule).take() is None
    adaptive = Adaptive(large, rule)
    closed = list(adaptive.resume())
    assert [closing.reason for closing in closed] == [CancelReason.QUOTA_REACHED]
    assert closed[0].never_made.tolist() == [4, 5, 6, 7]
    assert [adaptive.take() for _ in range(4)] == [Key(1, 4), Key(1, 5), Key(2, 4), Key(2, 5)]
    assert not np.any(large.flags[[10, 11, 18, 19]] & TRACED)


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("right", [Fraction(1, 10), Fraction(1, 2), Fraction(4, 5)])
def test_the_rate_of_the_first_attempts_is_unbiased_and_that_of_all_is_not(right: Fraction, capacity: int) -> None:
    """Every run of six attempts at one problem, each as likely as it is: an expectation without a chance in it."""
    rule, all_of_them, first = AdaptiveConfig(useful=1, min_samples=2), Fraction(0), Fraction(0)
    for answers in itertools.product([True, False], repeat=6):
        likely = right ** sum(answers) * (1 - right) ** (6 - sum(answers))
        made = _run([list(answers)], rule, capacity=capacity)._state.flags & TRACED > 0
        words = [answer for answer, is_made in zip(answers, made.tolist(), strict=True) if is_made]
        all_of_them += likely * Fraction(sum(words), len(words))
        assert made[: rule.min_samples].all()
        first += likely * Fraction(sum(words[: rule.min_samples]), rule.min_samples)
    assert first == right
    assert all_of_them > right


# Wrong references


def _answered(answer: str | None, reference: str = "1") -> Verdict:
    """Return the verdict on a text that gives this answer, or none."""
    return judge_answer("I do not know." if answer is None else rf"\boxed{{{answer}}}", reference)


FIVES = ("5", "5.0", r"\frac{10}{2}")
answers_of = st.lists(st.sampled_from([*FIVES, "7", "8", None]), min_size=6, max_size=6)


@given(answers=answers_of, num_samples=st.integers(2, 6), min_samples=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_problem_is_given_up_later_only_where_its_wrong_answers_agree_and_are_too_few_to_flag_it(
    answers: list[str | None], num_samples: int, min_samples: int
) -> None:
    rule = AdaptiveConfig(useful=2, min_samples=min(min_samples, num_samples))
    silent = _run([[False] * num_samples], rule, capacity=1)  # no verdict says what the answer was
    found = _run_verdicts([[_answered(answer) for answer in answers[:num_samples]]], rule, capacity=1)
    before, now = (int((one._state.flags & TRACED > 0).sum()) for one in (silent, found))
    same = [_num_same(answers[:count]) for count in range(rule.min_samples, before + 1)]
    if max(same, default=0) < 2:
        assert now == before, "they never agreed"
    assert now <= max(before, min(num_samples, MIN_AGREEING))
    if _num_same(answers[:MIN_AGREEING]) == MIN_AGREEING <= num_samples:
        assert now >= MIN_AGREEING


def _num_same(answers: list[str | None]) -> int:
    """Return how many give the most frequent answer."""
    return max(Counter("5" if answer in FIVES else answer for answer in answers if answer).values(), default=0)


def test_by_default_a_problem_whose_attempts_agree_against_its_reference_is_flagged(tmp_path: Path) -> None:
    given_answers = [["5", "5.0", "5", "5"], ["7", "8", "9", "10"]]  # references are 1 and 2
    problems = [make_problem(number) for number in range(2)]
    verdicts = [
        [_answered(answer, problem.reference.text) for answer in answers]
        for problem, answers in zip(problems, given_answers, strict=True)
    ]
    adaptive = _run_verdicts(verdicts, AdaptiveConfig(), capacity=1)
    made = adaptive._state.flags.reshape(2, 4) & TRACED > 0
    assert made.sum(axis=1).tolist() == [MIN_AGREEING, 2]
    config = {"name": "t", "select": {"name": "default"}, "teacher": {"kind": "x"}}
    committer = start_run(tmp_path, problems, num_samples=4, config=config)
    traces, judged = [], []
    for place, index in np.argwhere(made).tolist():
        problem = problems[place]
        verdict = Verdict(reference_hash=problem.reference_hash, checks=verdicts[place][index].checks)
        traces.append(make_trace(problem.problem_id, index))
        judged.append(JudgedTrace(trace_id=traces[-1].trace_id, problem_id=problem.problem_id, verdict=verdict))
    committer.commit(segments=[write_segment(tmp_path / "journal", traces, sequence=1)], judged=judged)
    assert [suspect.problem_id for suspect in read_suspects(tmp_path)] == [problems[0].problem_id]


def test_only_as_many_more_are_asked_for_as_it_takes_to_flag_a_problem() -> None:
    rule, prior = AdaptiveConfig(), Prior(0.5, 0.5)
    known = Standing(num_useful=0, num_true=0, num_against=2, num_out=0, num_left=2, num_first_left=0, is_agreeing=True)
    for is_tail in (False, True):
        assert decide(known, rule, prior, is_tail=is_tail) == (1, None)
        assert decide(known._replace(num_out=1, num_left=1), rule, prior, is_tail=is_tail) == (0, None)
    assert decide(known._replace(num_against=3), rule, prior).ending is CancelReason.HOPELESS


def test_a_problem_that_is_known_to_be_hopeless_only_when_its_turn_comes_ends_all_the_same() -> None:
    """Short ones wait for the end; by then the prior, fitted to a hundred more, says other than when they queued."""
    state = _state(120, 6)
    adaptive = Adaptive(state, AdaptiveConfig())
    while (key := adaptive.take()) is not None:
        number = state.number(key)
        state.flags[number] |= TRACED
        adaptive.made(number, 1_000 - key.problem)
        closings = [adaptive.judged(number, WRONG), *adaptive.take_closings()]
        for closing in filter(None, closings):
            state.flags[closing.never_made] |= CANCELLED
    assert adaptive.num_left == 0
    assert [closing.reason for closing in adaptive.take_closings()] == [CancelReason.HOPELESS] * 98
