"""Verdicts as rewards, for those who train with reinforcement: accuracy, format, language consistency.

A pure function of a verdict. Source: DeepSeek-R1, arXiv:2501.12948, sections 2.2.2 and 2.3.2: accuracy and format are
rules, the share of words in the target language is added to them; how they are weighed is the trainer's matter.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.verdict import Outcome, TextDetail, Verdict

FORMAT_CHECKS: Final = frozenset({"truncation", "tags", "think", "answers"})


class Rewards(NamedTuple):
    """Three numbers in [0, 1]; ``accuracy`` is None where no answer check spoke, ``unjudged`` never being a zero."""

    accuracy: float | None
    format: float
    language_consistency: float  # of the thinking, or of the response where there is none


def rewards_of(verdict: Verdict) -> Rewards:
    """Return the rewards of a verdict that ``verifiers.judge`` or ``judge_trace`` gave.

    Raises:
        ValueError: If the readability checks are not in it.
    """
    details = [check.detail for check in verdict.checks if isinstance(check.detail, TextDetail)]
    if not details:
        raise ValueError("the verdict holds no readability checks: there is no word on its format")
    is_formed = all(check.outcome is not Outcome.UNREADABLE for check in verdict.checks if check.name in FORMAT_CHECKS)
    text = details[0]
    consistency = text.think_consistency if text.num_think_chars else text.response_consistency
    accuracy = None if verdict.is_correct is None else float(verdict.is_correct)
    return Rewards(accuracy, float(is_formed), consistency)
