"""How an extracted answer compares with a reference, and the check of a verdict that says so.

Between the comparers and ``schemas.verdict``, shared by mathematics, choices and puzzles. Decides nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from schemas.verdict import REASON_OUTCOMES, Check, MathDetail, Outcome, Reason
from verifiers.extract import Extracted, Missing
from verifiers.limits import MAX_ANSWER_CHARS


@dataclass(frozen=True, slots=True)
class Finding:
    """How two texts compare: None as reason means equal. ``rung`` decided; the forms are for the reader."""

    reason: Reason | None
    rung: str
    answer_form: str | None = None
    reference_form: str | None = None


def to_check(name: str, version: str, found: Extracted | Missing, finding: Finding, start_s: float) -> Check:
    """Return the check that states a finding; ``start_s`` is when judging began, by ``time.perf_counter``."""
    outcome = Outcome.CORRECT if finding.reason is None else REASON_OUTCOMES[finding.reason]
    return Check(
        name=name,
        version=version,
        outcome=outcome,
        reason=finding.reason,
        start=found.start,
        end=found.end,
        ms=(time.perf_counter() - start_s) * 1_000,
        detail=MathDetail(
            rung=finding.rung,
            extracted=found.text[:MAX_ANSWER_CHARS] if isinstance(found, Extracted) else None,
            answer_form=finding.answer_form,
            reference_form=finding.reference_form,
        ),
    )
