"""A small run on disk whose texts are hostile: to a terminal, to a page, and to whoever reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from factory.build import build_tables
from schemas.config import parse_config
from schemas.problem import Message
from schemas.trace import FinishReason, Trace
from schemas.verdict import Check, JudgedTrace, MathDetail, Outcome, Reason, Verdict
from tests.runs import make_problem, make_trace, start_run, write_segment

HOSTILE = (
    '<script>alert(1)</script> \x1b[2J\x1b]0;owned\x07 \u202e"><img src=x onerror=alert(2)> {{ 7*7 }} '
    "\\(\\href{javascript:x}{y}\\)"
)
NUM_PROBLEMS, NUM_SAMPLES = 13, 4
JOB = {
    "name": "page-tests",
    "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
    "teacher": {"kind": "scripted"},
    "sampling": {"num_samples": NUM_SAMPLES},
}
# The word on the attempts of a problem, in order; from the last problem one attempt is missing.
ENDS = (
    (Outcome.CORRECT, None),
    (Outcome.WRONG_ANSWER, Reason.VALUE_DIFFERS),
    (Outcome.UNREADABLE, Reason.REPETITION_LOOP),
    (Outcome.NO_ANSWER, Reason.EMPTY_BOX),
    (Outcome.OVER_LIMIT, Reason.TOO_LONG),
    (Outcome.UNJUDGED, Reason.WORKER_DIED),
)


def _end(problem: int, attempt: int) -> tuple[Outcome, Reason | None]:
    return ENDS[0] if attempt == 0 else ENDS[(problem * NUM_SAMPLES + attempt) % len(ENDS)]


def write_hostile_run(path: Path) -> None:
    """Write a run of ``NUM_PROBLEMS`` problems of three sources, with tables; one attempt is pending."""
    problems = [
        replace(make_problem(n), source=f"source {n % 3}", messages=(Message(role="user", content=f"{n}? {HOSTILE}"),))
        for n in range(NUM_PROBLEMS)
    ]
    config = parse_config(JOB, origin="test").model_dump(mode="json")
    committer = start_run(path, problems, num_samples=NUM_SAMPLES, config=config)
    traces: list[Trace] = []
    judged = []
    for place, problem in enumerate(problems):
        for attempt in range(NUM_SAMPLES - (place == NUM_PROBLEMS - 1)):
            outcome, reason = _end(place, attempt)
            text = f"<think>\nI see {HOSTILE}\n</think>\n\n\\boxed{{{attempt}}} {HOSTILE}"
            made = make_trace(problem.problem_id, attempt, text=text)
            trace = replace(made, num_completion_tokens=10 * (1 + place) + attempt, finish_reason=FinishReason.STOP)
            detail = MathDetail(rung="string", extracted=HOSTILE, answer_form="1", reference_form=HOSTILE)
            check = Check(name="math", version="1", outcome=outcome, reason=reason, detail=detail)
            verdict = Verdict(reference_hash=problem.reference_hash, checks=(check,))
            traces.append(trace)
            judged.append(JudgedTrace(trace_id=trace.trace_id, problem_id=problem.problem_id, verdict=verdict))
    segment = write_segment(path / "journal", traces, sequence=1)
    committer.commit(segments=[segment], judged=judged)
    build_tables(path)
