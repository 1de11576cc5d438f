"""Traces: one attempt of the teacher, exactly as the engine gave it.

Second record of the flow. Invariant: ``text`` and ``token_ids`` are never changed after the engine; ``reasoning`` and
``response`` are derived from ``text``. Holds no judgement: that is a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from schemas.problem import digest

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


class FinishReason(StrEnum):
    """The engine's word for why an attempt ended."""

    STOP = "stop"  # an end token or a stop string
    LENGTH = "length"  # max_tokens, or the context was full
    ABORT = "abort"  # ended early for a defect of its text; the tokens so far are kept
    REPETITION = "repetition"  # the engine's own loop detection


class TraceFormat(StrEnum):
    """How a completion is laid out; a run knows it from its prompt."""

    R1 = "r1"  # <think> reasoning </think> response
    R1_PREFILLED = "r1_prefilled"  # the opening tag was in the prompt
    ZERO = "zero"  # <think> reasoning </think> <answer> response </answer>
    PLAIN = "plain"  # response only


class Split(NamedTuple):
    """The two parts of a completion. ``reasoning`` is None where no thinking part is found."""

    reasoning: str | None
    response: str


def split_completion(text: str) -> Split:
    """Return the reasoning (without its tags) and the response (all after the last closing tag).

    An opening tag that is never closed leaves an empty response: an answer inside the thinking is none. A closing tag
    without an opening one is taken as a prefilled tag: a statement about where the parts are, not that it is allowed.
    """
    close = text.rfind(THINK_CLOSE)
    opened = text.find(THINK_OPEN)
    if close < 0:
        return Split(None, text) if opened < 0 else Split(text[opened + len(THINK_OPEN) :], "")
    start = opened + len(THINK_OPEN) if 0 <= opened < close else 0
    return Split(text[start:close], text[close + len(THINK_CLOSE) :])


def make_trace_id(fingerprint: str, problem_id: str, sample_index: int) -> str:
    """Return the identity of an attempt: what was asked of whom, and which attempt at it."""
    return digest(["trace", fingerprint, problem_id, sample_index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One attempt at one problem. Times are Unix microseconds (UTC); ``None`` where the engine does not say."""

    fingerprint: str
    problem_id: str
    sample_index: int
    format: TraceFormat
    text: str
    token_ids: tuple[int, ...]  # as sampled, end token included; empty where a remote teacher gives none
    finish_reason: FinishReason
    finish_detail: str | None = None  # why an attempt was aborted
    stop_token: str | None = None  # the end token's text, or the stop string
    num_prompt_tokens: int
    num_completion_tokens: int
    num_reasoning_tokens: int | None = None  # up to and including the closing tag
    seed: int | None = None
    teacher: str
    teacher_revision: str
    engine: str
    engine_version: str
    engine_id: str  # which engine incarnation, such as engine-0-e2
    submitted_at_us: int
    first_token_at_us: int | None = None
    finished_at_us: int
    resumed_at: tuple[int, ...] = ()  # token counts at which another engine went on
    label: bool | None = None  # of a replayed attempt: its publisher's word on whether it is right
    label_answer: str | None = None  # of a replayed attempt: the answer that its publisher read from it

    @property
    def trace_id(self) -> str:
        """Hash of (run fingerprint, problem_id, sample_index)."""
        return make_trace_id(self.fingerprint, self.problem_id, self.sample_index)

    @property
    def is_truncated(self) -> bool:
        """True when a limit ended the attempt, not the teacher."""
        return self.finish_reason is FinishReason.LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Some tokens of an attempt that has not ended: what its engine saved since it saved last."""

    problem_id: str
    sample_index: int
    offset: int  # tokens of the completion before these
    token_ids: tuple[int, ...]
    resumed_at: tuple[int, ...] = ()  # as in ``Trace``, so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Untraced:
    """An attempt that ended without a trace: ``failed`` or ``cancelled``, with its reason."""

    trace_id: str
    problem_id: str
    sample_index: int
    ending: str
    reason: str
    detail: str = ""
    num_tokens: int = 0
