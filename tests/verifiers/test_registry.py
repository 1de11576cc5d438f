"""All checks of a trace, what is supported, versions, and the canaries that watch over them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from schemas.errors import VerifierError
from schemas.problem import AssertTest, Problem, Scorer, Tests
from schemas.readability import Profile, ReadabilitySettings
from schemas.trace import Trace
from schemas.verdict import Check, Outcome, Reason, Verdict
from verifiers import canaries, check_canaries, judge, one_pair, supports, verifier_versions, versions_digest
from verifiers.readability import CHECKS


def test_every_canary_gets_its_verdict() -> None:
    check_canaries()


def test_canaries_hold_right_and_wrong_of_each_kind_and_every_outcome_of_a_model() -> None:
    found = list(canaries())
    assert len({canary.name for canary in found}) == len(found)
    assert {type(canary.problem.reference).__name__ for canary in found} >= {"Answer", "Choice", "Scorer", "NoneType"}
    wanted = {Outcome.CORRECT, Outcome.WRONG_ANSWER, Outcome.NO_ANSWER, Outcome.UNREADABLE, Outcome.READABLE}
    assert {canary.outcome for canary in found} == wanted
    assert all(supports(canary.problem) for canary in found)


def test_the_pairs_are_one_right_and_one_wrong_and_take_turns() -> None:
    pairs = [one_pair(turn) for turn in range(100)]
    assert all((right.is_correct, wrong.is_correct) == (True, False) for right, wrong in pairs)
    assert len({right.name for right, _ in pairs}) > 20
    check_canaries(subset=one_pair(7))


@pytest.mark.parametrize("outcome", [Outcome.CORRECT, Outcome.READABLE])
def test_a_verifier_that_always_says_one_thing_is_noticed(outcome: Outcome) -> None:
    def yes(problem: Problem, trace: Trace) -> Verdict:
        return Verdict(reference_hash=None, checks=(Check(name="math", version="0", outcome=outcome),))

    with pytest.raises(VerifierError, match="canary 'integer, r1"):
        check_canaries(judge=yes)


def _busy(num_times: int) -> Callable[[Problem, Trace], Verdict]:
    """Return a verifier whose processes die so many times, and which then judges for real."""
    left = iter(range(num_times))

    def maybe(problem: Problem, trace: Trace) -> Verdict:
        if next(left, None) is None:
            return judge(problem, trace)
        check = Check(name="math", version="0", outcome=Outcome.UNJUDGED, reason=Reason.WORKER_DIED)
        return Verdict(reference_hash=None, checks=(check,))

    return maybe


def test_a_canary_that_could_not_be_judged_is_judged_again_and_says_nothing_of_right_and_wrong() -> None:
    check_canaries(judge=_busy(2), subset=one_pair(3))
    with pytest.raises(VerifierError, match=r"could not be judged in 3 tries \(reason=worker_died\)") as caught:
        check_canaries(judge=_busy(3), subset=one_pair(3))
    assert "trusted" not in str(caught.value)


def test_a_verdict_carries_the_reference_and_one_check_of_each_kind() -> None:
    canary = next(iter(canaries()))
    verdict = judge(canary.problem, canary.trace)
    assert verdict.reference_hash == canary.problem.reference_hash
    assert [check.name for check in verdict.checks] == [*(name for name, _ in CHECKS), "statistics", "math"]


def test_an_unreadable_trace_keeps_the_word_of_the_answer_check() -> None:
    canary = next(canary for canary in canaries() if canary.name == "empty think")
    verdict = judge(canary.problem, canary.trace)
    assert (verdict.outcome, verdict.reason, verdict.is_correct) == (Outcome.UNREADABLE, Reason.EMPTY_THINK, True)


def test_unknown_scorers_and_tests_that_no_program_can_take_are_not_supported() -> None:
    problem = next(iter(canaries())).problem
    program = Tests(cases=(AssertTest(entry="f", source="assert f() == 1"),))
    assert supports(replace(problem, reference=program))
    assert not supports(replace(problem, reference=replace(program, language="cpp")))
    assert not supports(replace(problem, reference=replace(program, language="rust")))
    assert not supports(replace(problem, reference=Scorer(name="reasoning_gym/n_queens", payload="{}")))
    assert supports(replace(problem, reference=None))


def test_versions_name_our_parts_and_the_packages_that_are_asked() -> None:
    versions = verifier_versions()
    assert {"math", "choice", "logic", "readability", "math-verify", "sympy", "reasoning-gym"} <= versions.keys()
    assert "absent" not in versions.values()
    assert versions_digest() == versions_digest()


def test_settings_of_readability_are_part_of_the_digest_and_reach_the_checks() -> None:
    settings = ReadabilitySettings(profile=Profile.NONE)
    assert versions_digest(settings) != versions_digest()
    canary = next(canary for canary in canaries() if canary.name == "empty think")
    verdict = judge(canary.problem, canary.trace, settings)
    assert verdict.outcome is Outcome.CORRECT
    assert Reason.EMPTY_THINK in {check.reason for check in verdict.checks}
