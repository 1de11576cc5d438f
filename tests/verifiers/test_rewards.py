"""Verdicts as rewards: accuracy, format, language consistency."""

import pytest

from schemas.verdict import Check, Outcome, Verdict
from verifiers.math import judge_answer
from verifiers.readability import judge_trace
from verifiers.rewards import rewards_of


def both(text: str, reference: str = "42") -> Verdict:
    form = judge_trace(text, domain="math", language="en", format="zero")
    return Verdict(reference_hash=None, checks=(*form.checks, *judge_answer(text, reference).checks))


@pytest.mark.parametrize(
    ("text", "accuracy", "form"),
    [
        ("<think>six sevens are 42</think><answer>42</answer>", 1.0, 1.0),
        ("<think>six sevens are 42</think><answer>41</answer>", 0.0, 1.0),
        ("<think></think><answer>42</answer>", 1.0, 0.0),
        ("<answer>42</answer>", 1.0, 0.0),
    ],
)
def test_accuracy_and_format_are_apart(text: str, accuracy: float, form: float) -> None:
    assert rewards_of(both(text))[:2] == (accuracy, form)


def test_a_loop_is_no_matter_of_format_and_mixing_lowers_the_consistency() -> None:
    text = "<think>" + "Weiter so, das ist noch nicht die Lösung. " * 30 + "</think><answer>42</answer>"
    rewards = rewards_of(both(text))
    assert rewards.format == 1.0
    assert rewards.language_consistency < 0.5


def test_without_an_answer_check_there_is_no_accuracy() -> None:
    verdict = judge_trace("<think>six</think><answer>42</answer>", domain="math", language="en", format="zero")
    assert rewards_of(verdict).accuracy is None


def test_a_verdict_without_readability_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no readability"):
        rewards_of(Verdict(reference_hash=None, checks=(Check(name="math", version="1", outcome=Outcome.CORRECT),)))
