"""Verdicts: what the verifiers found in one trace.

Third record of the flow. Invariant: a verdict stores checks alone; outcome, reason and ``is_correct`` are derived
from them by one pure function. Two closed lists, ``Outcome`` and ``Reason``: a new way to end gets a new member, never
a reused one. ``unjudged`` is our own failure and never the model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.carried import carried


class Outcome(StrEnum):
    """How a check, and a whole trace, ends."""

    CORRECT = "correct"  # the answer is the reference's
    READABLE = "readable"  # all checks passed and there was nothing to compare; also a form check that passes
    WRONG_ANSWER = "wrong_answer"  # an answer was read, and it is not the reference's
    NO_ANSWER = "no_answer"  # nothing to compare: no box, no code
    UNREADABLE = "unreadable"  # the text has a defect that a student must not learn
    OVER_LIMIT = "over_limit"  # the answer broke a stated limit of size or time
    BAD_REFERENCE = "bad_reference"  # the problem's own reference cannot be used
    UNJUDGED = "unjudged"  # our own sandbox, parser or worker failed: tried again, never in a rate


# The first of these that any check has is the trace's outcome.
PRECEDENCE: Final = (
    Outcome.BAD_REFERENCE,
    Outcome.UNJUDGED,
    Outcome.UNREADABLE,
    Outcome.OVER_LIMIT,
    Outcome.NO_ANSWER,
    Outcome.WRONG_ANSWER,
    Outcome.CORRECT,
    Outcome.READABLE,
)


class Reason(StrEnum):
    """Why a check did not simply pass; each belongs to one outcome (``REASON_OUTCOMES``)."""

    # readability
    ANSWER_ONLY_IN_THINK = "answer_only_in_think"
    CODE_BLOCK_IN_MATH = "code_block_in_math"
    EMPTY_THINK = "empty_think"
    GARBLED = "garbled"
    LANGUAGE_MIXING = "language_mixing"
    LONG_PARAGRAPH = "long_paragraph"
    MALFORMED_TAGS = "malformed_tags"
    MISSING_ANSWER = "missing_answer"
    MULTIPLE_ANSWERS = "multiple_answers"
    PROMPT_ECHO = "prompt_echo"
    REFUSAL = "refusal"
    REPETITION_LOOP = "repetition_loop"
    TRUNCATED = "truncated"
    # programs
    WRONG_OUTPUT = "wrong_output"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    NO_CODE = "no_code"
    NO_TESTS = "no_tests"
    # final answers
    NO_ANSWER = "no_answer"
    EMPTY_BOX = "empty_box"
    UNTERMINATED_BOX = "unterminated_box"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    TOO_BIG = "too_big"
    TIMEOUT = "timeout"
    UNPARSED_REFERENCE = "unparsed_reference"
    WORKER_DIED = "worker_died"
    UNPARSED_ANSWER = "unparsed_answer"
    MULTIPLE_CANDIDATES = "multiple_candidates"
    TYPE_MISMATCH = "type_mismatch"
    UNIT_MISMATCH = "unit_mismatch"
    BASE_MISMATCH = "base_mismatch"
    VALUE_DIFFERS = "value_differs"
    POINT_DIFFERS = "point_differs"
    LENGTH_DIFFERS = "length_differs"
    BRACKET_DIFFERS = "bracket_differs"


_RANKS: Final = {outcome: rank for rank, outcome in enumerate(PRECEDENCE)}


READABILITY_REASONS: Final = frozenset(list(Reason)[:13])

REASON_OUTCOMES: Final[dict[Reason, Outcome]] = {
    **dict.fromkeys(READABILITY_REASONS, Outcome.UNREADABLE),
    **dict.fromkeys((Reason.WRONG_OUTPUT, Reason.RUNTIME_ERROR, Reason.COMPILE_ERROR), Outcome.WRONG_ANSWER),
    **dict.fromkeys((Reason.TIME_LIMIT, Reason.MEMORY_LIMIT, Reason.OUTPUT_LIMIT), Outcome.OVER_LIMIT),
    **dict.fromkeys((Reason.TOO_LONG, Reason.TOO_DEEP, Reason.TOO_BIG, Reason.TIMEOUT), Outcome.OVER_LIMIT),
    **dict.fromkeys(
        (Reason.NO_CODE, Reason.NO_ANSWER, Reason.EMPTY_BOX, Reason.UNTERMINATED_BOX),
        Outcome.NO_ANSWER,
    ),
    **dict.fromkeys((Reason.NO_TESTS, Reason.UNPARSED_REFERENCE), Outcome.BAD_REFERENCE),
    Reason.WORKER_DIED: Outcome.UNJUDGED,
    **dict.fromkeys(
        (
            Reason.UNPARSED_ANSWER,
            Reason.MULTIPLE_CANDIDATES,
            Reason.TYPE_MISMATCH,
            Reason.UNIT_MISMATCH,
            Reason.BASE_MISMATCH,
            Reason.VALUE_DIFFERS,
            Reason.POINT_DIFFERS,
            Reason.LENGTH_DIFFERS,
            Reason.BRACKET_DIFFERS,
        ),
        Outcome.WRONG_ANSWER,
    ),
}

# Checks that compare an answer; their word alone makes ``is_correct``. "judge" is reserved for a judge model.
ANSWER_CHECKS: Final = frozenset({"math", "choice", "logic", "code"})


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class MathDetail:
    """How an answer was compared: the deciding rung, what was extracted, both normal forms."""

    rung: str
    extracted: str | None
    answer_form: str | None = None
    reference_form: str | None = None


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDetail:
    """How a program ran: isolation tier (A to D), tests, and the peak use over them."""

    tier: str
    tests_run: int
    tests_passed: int
    cpu_ms: float
    peak_mb: float


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class TextDetail:
    """What a text is like, kept for accepted and rejected traces alike; lengths in characters, shares in [0, 1].

    Tokens of thinking and response are the trace's own columns.
    """

    num_think_chars: int
    num_response_chars: int
    num_words: int
    num_reflections: int  # "wait", "let me check", "alternatively": signs of going back
    think_consistency: float  # words of the target language / all words (arXiv:2501.12948, section 2.3.2)
    response_consistency: float
    compression: float  # compressed / plain bytes, zlib level 1, mean over windows of 8,192 characters
    tail_compression: float  # of the last 4,000 characters of thinking or response, whichever is lower
    longest_paragraph: int
    num_boxes: int
    num_chars_after_box: int  # behind the last one; 0 where there is none


Detail = MathDetail | CodeDetail | TextDetail


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one verifier found. ``start`` and ``end`` (characters of the raw text) show where, if it is a place.

    A form check that passes is ``readable``; with a reason it is a flag: worth knowing, no ground for rejection.
    """

    name: str
    version: str
    outcome: Outcome
    reason: Reason | None = None
    start: int | None = None
    end: int | None = None
    value: float | None = None
    threshold: float | None = None
    ms: float = 0.0
    detail: Detail | None = None

    def __post_init__(self) -> None:
        if self.reason is None:
            assert self.outcome in (Outcome.CORRECT, Outcome.READABLE), f"{self.name}: {self.outcome} needs a reason"
        else:
            expected = REASON_OUTCOMES[self.reason]
            is_flag = self.outcome is Outcome.READABLE and self.reason in READABILITY_REASONS
            assert is_flag or self.outcome is expected, f"{self.name}: {self.reason} belongs to {expected}"


class Summary(NamedTuple):
    """What follows from a verdict's checks."""

    outcome: Outcome
    reason: Reason | None
    is_correct: bool | None


def summarize(checks: Iterable[Check]) -> Summary:
    """Return outcome, the deciding check's reason, and the answer check's word, which readability never changes.

    ``is_correct`` is true for correct, false for wrong_answer, no_answer and over_limit, else null.

    Raises:
        ValueError: If there is no check: nothing was judged, so nothing can be said.
    """
    ordered = list(checks)
    if not ordered:
        raise ValueError("a verdict needs at least one check")
    deciding = min(ordered, key=lambda check: _RANKS[check.outcome])  # min keeps the first of equals
    flag_free_reason = None if deciding.outcome is Outcome.READABLE else deciding.reason
    answers = [check for check in ordered if check.name in ANSWER_CHECKS]
    is_correct: bool | None = None
    if answers:
        answer = min(answers, key=lambda check: _RANKS[check.outcome])
        if answer.outcome is Outcome.CORRECT:
            is_correct = True
        elif answer.outcome in (Outcome.WRONG_ANSWER, Outcome.NO_ANSWER, Outcome.OVER_LIMIT):
            is_correct = False
    return Summary(deciding.outcome, flag_free_reason, is_correct)


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all checks found in one trace, against the reference with ``reference_hash`` (null without one)."""

    reference_hash: str | None
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("a verdict needs at least one check")

    @property
    def outcome(self) -> Outcome:
        """The first of ``PRECEDENCE`` that any check has."""
        return summarize(self.checks).outcome

    @property
    def reason(self) -> Reason | None:
        """The deciding check's reason; null when it passed."""
        return summarize(self.checks).reason

    @property
    def is_correct(self) -> bool | None:
        """The answer check's word, whatever readability says; null where there is nothing to say."""
        return summarize(self.checks).is_correct


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTrace:
    """A verdict with the trace that it is about."""

    trace_id: str
    problem_id: str
    verdict: Verdict


def is_useful(outcome: Outcome, is_correct: bool | None) -> bool:
    """Return whether a trace is what a run looks for: right and readable, or readable where nothing is to compare."""
    return (outcome is Outcome.CORRECT and is_correct is True) or (outcome is Outcome.READABLE and is_correct is None)


# Defects of form that mean that no answer was reached, however long the text.
GIVEN_UP: Final = frozenset({Reason.TRUNCATED, Reason.REPETITION_LOOP})


def counts_against(outcome: Outcome, reason: Reason | None, is_correct: bool | None) -> bool:
    """Return whether a trace says that its problem is hard: a wrong answer, or none within the limits.

    One that fails for its form alone does not: a group whose attempts all forget a tag is not hard.
    """
    return is_correct is False and (outcome is not Outcome.UNREADABLE or reason in GIVEN_UP)


def pass_rate(words: Iterable[bool | None]) -> float | None:
    """Return true / (true + false) of ``is_correct`` over a group of traces; null when none is either."""
    said = [word for word in words if word is not None]
    return sum(said) / len(said) if said else None
