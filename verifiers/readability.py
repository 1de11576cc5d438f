"""Whether a trace is fit to learn from. First form: the format check; loops, languages and structure come later.

A check is a function ``View -> Check`` in ``CHECKS``; the view is cut once and shared. Invariants: linear in the text,
no guess about a prefilled tag, and a check says nothing about whether the answer is right. Tags inside fenced or
inline code are text, not tags.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final, NamedTuple

from schemas.problem import Domain
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Check, Outcome, Reason, Verdict
from verifiers.extract import MARKER, Span, find_boxes
from verifiers.parser import normal_form
from verifiers.words import as_words

NAME: Final = "format"
VERSION: Final = "1"

TAG: Final = re.compile(
    r"<[ \t]{0,3}(?P<slash>[/\\]?)[ \t]{0,3}(?P<name>think|thinking|thought|answer)[ \t]{0,3}>"
    r"|\[(?P<square_slash>/?)(?P<square>think|thinking)\]",
    re.IGNORECASE,
)
CANONICAL: Final = frozenset({"<think>", "</think>", "<answer>", "</answer>"})
FENCE: Final = re.compile(r"^[ \t]{0,3}```", re.MULTILINE)
INLINE_CODE: Final = re.compile(r"`[^`\n]{1,200}`")
NOT_A_THOUGHT: Final = re.compile(r"\s*(?:n\s*/\s*a|none|null)[\s.]*", re.IGNORECASE)
INVISIBLE: Final = re.compile(r"[\s\u200b\u200c\u200d\u2060\ufeff]+")
MIN_THOUGHT_LETTERS: Final = 4  # fewer letters and no digit: nothing was thought (note on readability, 3.3)
MATH_IN_TEXT: Final = re.compile(r"\\\(|\\\[|\$[^$]")
SHORT_VERDICT: Final = re.compile(r"\b(?:yes|no|true|false|none|never|always|impossible)\b", re.IGNORECASE)
# English words that cannot end a sentence: a text that stops after one was cut.
DANGLING: Final = re.compile(
    r"\b(?:the|an|of|that|and|or|because|with|from|by|than|is|are|was|were|we|let|which|into|if|where|when|so|its)\Z",
    re.IGNORECASE,
)
HEDGE: Final = re.compile(
    r"\b(?:alternatively|or maybe|or perhaps|perhaps|maybe|either|could also be|might be|another possib\w+|not sure|"
    r"i guess|or possibly)\b",
    re.IGNORECASE,
)
HEDGE_REACH: Final = 200  # characters before a box in which a hedge counts (guess)


class Tag(NamedTuple):
    """A think or answer tag outside code."""

    start: int
    end: int
    name: str
    is_closing: bool
    is_canonical: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A trace cut into its parts, once for all checks. ``think`` is None where there is no thinking part."""

    text: str
    problem: str
    domain: Domain
    language: str
    think_language: str
    format: TraceFormat
    finish_reason: FinishReason | None
    profile: str
    tags: tuple[Tag, ...]
    think: Span | None
    response: Span


class Finding(NamedTuple):
    """A defect and its place."""

    reason: Reason
    start: int | None = None
    end: int | None = None


def judge_trace(
    completion: str,
    *,
    problem: str = "",
    domain: Domain | str,
    language: str,
    think_language: str | None = None,
    format: TraceFormat | str | None = None,
    finish_reason: FinishReason | str | None = None,
    profile: str = "r1",
) -> Verdict:
    """Return the verdict of all readability checks; the first that fails gives the reason.

    ``language`` is that of the response, ``think_language`` that of the thinking (None: the same). ``format`` None is
    inferred from the tags, never as prefilled. Never raises on what a model wrote.

    Raises:
        ValueError: If domain, format or finish_reason is not on its list.
    """
    view = make_view(
        completion,
        problem=problem,
        domain=Domain(domain),
        language=language,
        think_language=think_language,
        format=None if format is None else TraceFormat(format),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        profile=profile,
    )
    return Verdict(reference_hash=None, checks=tuple(check(view) for check in CHECKS))


def make_view(
    completion: str,
    *,
    problem: str,
    domain: Domain,
    language: str,
    think_language: str | None,
    format: TraceFormat | None,
    finish_reason: FinishReason | None,
    profile: str,
) -> View:
    """Return the completion cut at its tags."""
    tags = tuple(find_tags(completion))
    layout = infer_format(tags) if format is None else format
    opening = next((tag for tag in tags if tag.name == "think" and not tag.is_closing), None)
    closings = [tag for tag in tags if tag.name == "think" and tag.is_closing]
    think: Span | None = None
    response = Span(0, len(completion))
    if closings:
        think = Span(opening.end if opening and opening.end <= closings[-1].start else 0, closings[-1].start)
        response = Span(closings[-1].end, len(completion))
    elif opening is not None or layout is TraceFormat.R1_PREFILLED:
        think = Span(opening.end if opening else 0, None)
        response = Span(len(completion), len(completion))
    return View(
        text=completion,
        problem=problem,
        domain=domain,
        language=language,
        think_language=think_language or language,
        format=layout,
        finish_reason=finish_reason,
        profile=profile,
        tags=tags,
        think=think,
        response=response,
    )


def find_tags(text: str) -> Iterator[Tag]:
    """Yield think and answer tags outside fenced and inline code. Unclosed fences are text."""
    matches = list(TAG.finditer(text))
    if not matches:
        return
    code = _code_spans(text)
    index = 0
    for match in matches:
        while index < len(code) and code[index][1] <= match.start():
            index += 1
        if index < len(code) and code[index][0] <= match.start():
            continue
        name = (match["name"] or match["square"]).lower()
        yield Tag(
            match.start(),
            match.end(),
            "answer" if name == "answer" else "think",
            bool(match["slash"] or match["square_slash"]),
            match.group() in CANONICAL,
        )


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Return fenced blocks and inline code, in order, not overlapping."""
    spans: list[tuple[int, int]] = []
    fences = [match.start() for match in FENCE.finditer(text)]
    for start, end in zip(fences[::2], fences[1::2], strict=False):
        spans.append((start, end))
    inline = [match.span() for match in INLINE_CODE.finditer(text)]
    merged: list[tuple[int, int]] = []
    for span in sorted(spans + inline):
        if not merged or span[0] >= merged[-1][1]:
            merged.append(span)
    return merged


def infer_format(tags: tuple[Tag, ...]) -> TraceFormat:
    """Return the format that the tags speak of; a closing tag alone is a defect of r1, not a prefilled tag."""
    if any(tag.name == "answer" for tag in tags):
        return TraceFormat.ZERO
    return TraceFormat.R1 if tags else TraceFormat.PLAIN


# --- the format check -------------------------------------------------------------------------------------------------


def check_format(view: View) -> Check:
    """Return whether the trace has the layout of its format, with something in each part and one answer."""
    start = time.perf_counter()
    finding = next(filter(None, (rule(view) for rule in FORMAT_RULES)), None)
    reason = finding.reason if finding else None
    return Check(
        name=NAME,
        version=VERSION,
        outcome=Outcome.UNREADABLE if reason else Outcome.READABLE,
        reason=reason,
        start=finding.start if finding else None,
        end=finding.end if finding else None,
        ms=(time.perf_counter() - start) * 1_000,
    )


def find_truncation(view: View) -> Finding | None:
    """A limit ended it; or, where the engine's word is not known, a part that must be closed is not."""
    end = len(view.text)
    if view.finish_reason is FinishReason.REPETITION:
        return Finding(Reason.REPETITION_LOOP, None, end)
    if view.finish_reason in (FinishReason.LENGTH, FinishReason.ABORT):
        return Finding(Reason.TRUNCATED, end, end)
    if view.finish_reason is FinishReason.STOP:
        return None  # the engine says that it ended by itself: a part left open is malformed, not cut
    answers = [tag for tag in view.tags if tag.name == "answer"]
    if view.think is not None and view.think.end is None:
        return None if answers else Finding(Reason.TRUNCATED, view.think.start, end)
    if answers and not answers[-1].is_closing:
        return Finding(Reason.TRUNCATED, answers[-1].start, end)
    boxes = find_boxes(view.text, view.response.start)
    if boxes and boxes[-1].outer.end is None:
        return Finding(Reason.TRUNCATED, boxes[-1].outer.start, end)
    return _find_cut_sentence(view)


def _find_cut_sentence(view: View) -> Finding | None:
    """Where the engine's word is not known: the response stops in the middle of a sentence."""
    end = len(view.text)
    response = view.text[view.response.start :].rstrip()
    if DANGLING.search(response[-20:]):
        return Finding(Reason.TRUNCATED, end, end)
    if view.domain is Domain.MATH and response[-1:].isalpha() and not _has_answer(view, response):
        return Finding(Reason.TRUNCATED, end, end)
    return None


def find_malformed_tags(view: View) -> Finding | None:
    """The tags must be exactly those of the format, in order, spelt right, with nothing outside them."""
    for tag in view.tags:
        if not tag.is_canonical and (tag.name == "think" or view.format is TraceFormat.ZERO):
            return Finding(Reason.MALFORMED_TAGS, tag.start, tag.end)
    thinks = [tag for tag in view.tags if tag.name == "think"]
    wanted = {TraceFormat.PLAIN: [], TraceFormat.R1_PREFILLED: [True]}.get(view.format, [False, True])
    found = [tag.is_closing for tag in thinks]
    if found != wanted:
        odd = next((tag for tag, want in zip(thinks, wanted, strict=False) if tag.is_closing != want), None)
        odd = odd or (thinks[len(wanted)] if len(thinks) > len(wanted) else None)
        return Finding(Reason.MALFORMED_TAGS, odd.start if odd else 0, odd.end if odd else 0)
    if wanted[:1] == [False] and view.text[: thinks[0].start].strip():
        return Finding(Reason.MALFORMED_TAGS, 0, thinks[0].start)
    return _find_malformed_answer_tags(view) if view.format is TraceFormat.ZERO else None


def _find_malformed_answer_tags(view: View) -> Finding | None:
    """Zero format: after the thinking one answer block, or several (another rule's matter), and nothing else."""
    answers = [tag for tag in view.tags if tag.name == "answer"]
    position = view.response.start
    if answers and answers[0].start < position:
        return Finding(Reason.MALFORMED_TAGS, answers[0].start, answers[0].end)
    for index, tag in enumerate(answers):
        if tag.is_closing != bool(index % 2):
            return Finding(Reason.MALFORMED_TAGS, tag.start, tag.end)
        if not tag.is_closing and view.text[position : tag.start].strip():
            return Finding(Reason.MALFORMED_TAGS, position, tag.start)
        position = tag.end
    if answers and view.text[position:].strip():
        return Finding(Reason.MALFORMED_TAGS, position, len(view.text))
    return None


def find_empty_think(view: View) -> Finding | None:
    """There is a thinking part and nothing in it: spaces, punctuation, N/A."""
    if view.think is None or view.think.end is None:
        return None
    thought = INVISIBLE.sub(" ", view.text[view.think.start : view.think.end])
    if any(character.isdigit() for character in thought) and not NOT_A_THOUGHT.fullmatch(thought):
        return None
    letters = islice(filter(str.isalpha, thought), MIN_THOUGHT_LETTERS)
    if len(list(letters)) < MIN_THOUGHT_LETTERS or NOT_A_THOUGHT.fullmatch(thought):
        return Finding(Reason.EMPTY_THINK, view.think.start, view.think.end)
    return None


def answer_blocks(view: View) -> list[Span]:
    """Return the insides of the answer tags, in order."""
    answers = [tag for tag in view.tags if tag.name == "answer" and tag.start >= view.response.start]
    return [
        Span(first.end, second.start)
        for first, second in pairwise(answers)
        if not first.is_closing and second.is_closing
    ]


def find_missing_answer(view: View) -> Finding | None:
    """The response must hold something, and in mathematics something that can be an answer."""
    blocks = answer_blocks(view)
    start, end = blocks[-1] if blocks else view.response
    assert end is not None
    part = view.text[start:end]
    if view.format is TraceFormat.ZERO and not blocks:
        part = ""
    is_empty = not any(character.isalnum() or ord(character) > 0x2000 for character in INVISIBLE.sub("", part))
    if not is_empty and (view.domain is not Domain.MATH or _has_answer(view, part)):
        return None
    thought = view.text[view.think.start : view.think.end] if view.think else ""
    in_think = find_boxes(thought) or MARKER.search(thought)
    reason = Reason.ANSWER_ONLY_IN_THINK if in_think else Reason.MISSING_ANSWER
    return Finding(reason, start, end)


def _has_answer(view: View, part: str) -> bool:
    """Return whether a text of a mathematics response can hold an answer: a number, a formula, a marked word."""
    if any(character.isdigit() for character in part) or MATH_IN_TEXT.search(part) or find_boxes(part):
        return True
    if MARKER.search(part) or "**" in part or SHORT_VERDICT.search(part):
        return True
    thought = view.text[view.think.start : view.think.end] if view.think else ""
    boxes = find_boxes(thought)
    if boxes and boxes[-1].inner.end is not None:  # a word boxed in the thinking and repeated here
        boxed = as_words(thought[boxes[-1].inner.start : boxes[-1].inner.end])
        if boxed and boxed in part.casefold():
            return True
    return not boxes and len(part.split()) <= 3  # "odd", "Jessica won": a bare answer in words


def find_multiple_answers(view: View) -> Finding | None:
    """Several answer blocks; or boxes that differ where the words between them hedge."""
    blocks = answer_blocks(view)
    if len(blocks) > 1:
        return Finding(Reason.MULTIPLE_ANSWERS, blocks[1].start, blocks[-1].end)
    boxes = [box for box in find_boxes(view.text, view.response.start) if box.inner.end is not None]
    if len(boxes) < 2:
        return None
    first = normal_form(view.text[boxes[0].inner.start : boxes[0].inner.end])
    for before, box in pairwise(boxes):
        assert before.outer.end is not None
        if normal_form(view.text[box.inner.start : box.inner.end]) == first:
            continue
        start = max(before.outer.end, box.outer.start - HEDGE_REACH)
        if HEDGE.search(view.text, start, box.outer.start):
            return Finding(Reason.MULTIPLE_ANSWERS, box.outer.start, box.outer.end)
    return None


FORMAT_RULES: Final[tuple[Callable[[View], Finding | None], ...]] = (
    find_truncation,
    find_malformed_tags,
    find_empty_think,
    find_missing_answer,
    find_multiple_answers,
)
CHECKS: Final[tuple[Callable[[View], Check], ...]] = (check_format,)
