"""A trace cut into its parts once, for all readability checks: tags, thinking, response, code.

First step of judging readability. Linear in the text; no guess about a prefilled tag; tags inside fenced or inline code
are text, not tags. Decides nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from schemas.problem import Domain
from schemas.readability import Thresholds
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Reason
from verifiers.extract import Box, Span, find_boxes

TAG: Final = re.compile(
    r"<[ \t]{0,3}(?P<slash>[/\\]?)[ \t]{0,3}(?P<name>think|thinking|thought|answer)[ \t]{0,3}(?P<end>/?)>",
    re.IGNORECASE,
)
OTHER_TAG: Final = re.compile(
    r"(?P<open>\[|\\begin\{|(?P<slash>\[/|\\end\{))(?P<name>think|thinking)[\]}]", re.IGNORECASE
)
# One of these stands in such a tag: behind a bracket, in braces.
OTHER_TAG_ENDS: Final = ("hink]", "HINK]", "hinking]")
IN_BRACES: Final = ("{think", "{Think", "{THINK")
# At the beginning of a line: names that other models have, misspelt ones, those of other languages.
LINE_TAG: Final = re.compile(r"<(?<![^\n]<)(?P<slash>/?)(?P<name>[^\W\d_]{2,12})>")
ODD_NAMES: Final = frozenset(
    [
        *("reasoning", "thoughts", "scratchpad", "reflection"),
        *("thnik", "thikn", "tihnk", "thnk", "thinkk", "thinks", "htink", "thinkng", "thining"),
        *("思考", "思维", "denken", "gedanken", "pensée", "pensées", "réflexion", "pensamiento", "pensamento"),
        *("мысли", "размышление"),
    ]
)
ODD_ANSWERS: Final = frozenset(
    [
        *("anwser", "awnser", "asnwer", "ansewr", "answr", "anser", "answere"),
        *("antwort", "réponse", "respuesta", "resposta", "ответ", "答案", "回答", "答え", "답", "정답", "คำตอบ"),
    ]
)
ANSWER_NAMES: Final = ODD_ANSWERS | {"answer"}
LINE_NAMES: Final = ODD_NAMES | ODD_ANSWERS
PAGE_TAG: Final = re.compile(r"&lt;(?P<slash>/?)(?P<name>think|thinking|answer)&gt;", re.IGNORECASE)  # of a web page
CANONICAL: Final = frozenset({"<think>", "</think>", "<answer>", "</answer>"})
FENCE: Final = re.compile(r"[ \t]{0,3}(?:```|~~~)")  # at the beginning of a line
NEXT_FENCE: Final = re.compile(rf"\n{FENCE.pattern}")  # goes from line break to line break, as ^ would not
INLINE_CODE: Final = re.compile(r"``[^`\n]{1,200}``|`[^`\n]{1,200}`")


ASCII: Final = bytes(range(128))


def _class_of(code: int) -> int:
    character = chr(code)
    if character == "?":  # what is beyond Latin-1: the sign itself is taken out before
        return ord("u")
    if character in " \n":
        return code
    if code < 32 or 127 <= code < 160:
        return ord("c") if character not in "\t\r" else ord(" ")
    if character.isdigit():
        return ord("0")
    if character == "_" or character.isupper():
        return ord("A")
    return ord("a") if character.isalpha() else ord("s")


CLASSES: Final = bytes(map(_class_of, range(256)))


class Tag(NamedTuple):
    """A think or answer tag outside code."""

    start: int
    end: int
    name: str
    is_closing: bool
    is_canonical: bool


class Part(NamedTuple):
    """The thinking or the response: its place in the text, its language, and its text."""

    name: str  # think | response
    start: int
    language: str
    text: str


class Finding(NamedTuple):
    """A defect, or with ``is_flag`` something worth knowing: its place, and what was measured against which bound."""

    reason: Reason
    start: int | None = None
    end: int | None = None
    value: float | None = None
    threshold: float | None = None
    is_flag: bool = False


@dataclass(frozen=True, kw_only=True)
class View:
    """A trace cut into its parts. ``think`` is None where there is no thinking part; its end where it never closes."""

    text: str
    problem: str
    domain: Domain
    language: str
    think_language: str
    format: TraceFormat
    finish_reason: FinishReason | None
    limits: Thresholds
    tags: tuple[Tag, ...]
    think: Span | None
    response: Span
    read: dict[str, Any] = field(default_factory=dict)  # what one step found out and another needs, by part

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Return thinking and response, where there is any text in them, in order."""
        found = []
        for name, span, language in (
            ("think", self.think, self.think_language),
            ("response", self.response, self.language),
        ):
            if span is not None:
                text = self.text[span.start : len(self.text) if span.end is None else span.end]
                if text and not text.isspace():
                    found.append(Part(name, span.start, language, text))
        return tuple(found)

    @cached_property
    def boxes(self) -> list[Box]:
        """Return the boxes of the response; found once for all that ask."""
        return find_boxes(self.text, self.response.start)

    @cached_property
    def has_fences(self) -> bool:
        """True where blocks of code may stand in the text."""
        return may_have_fences(self.text)

    @cached_property
    def has_angles(self) -> bool:
        """True where the text has a ``<`` that belongs to no tag."""
        return self.text.count("<") > sum(self.text[tag.start] == "<" for tag in self.tags)

    @cached_property
    def num_inner_capitals(self) -> int:
        """Return how many capitals stand right behind a small letter."""
        return self.classes.count(b"aA")

    @cached_property
    def letters(self) -> frozenset[str]:
        """Return the characters beyond ASCII that occur: what cannot match is not looked for."""
        if self.text.isascii():
            return frozenset()
        data = self.text.encode("utf-8", "surrogatepass").translate(None, ASCII)
        return frozenset(data.decode("utf-8", "surrogatepass"))

    @cached_property
    def classes(self) -> bytes:
        """Return the text as one byte a character: a small letter, A capital or underscore, 0 digit, s sign, c control.

        Spaces and line breaks stay; what is beyond Latin-1 is ``u``.
        """
        return self.text.replace("?", "!").encode("latin-1", "replace").translate(CLASSES)

    @property
    def is_cut(self) -> bool:
        """True where the text did not end by itself, by the engine's word or by a thinking part that never closes."""
        if self.finish_reason is not None and self.finish_reason is not FinishReason.STOP:
            return True
        return self.think is not None and self.think.end is None


def make_view(
    completion: str,
    *,
    problem: str,
    domain: Domain,
    language: str,
    think_language: str | None,
    format: TraceFormat | None,
    finish_reason: FinishReason | None,
    limits: Thresholds,
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
        language=_primary(language),
        think_language=_primary(think_language or language),
        format=layout,
        finish_reason=finish_reason,
        limits=limits,
        tags=tags,
        think=think,
        response=response,
    )


def _primary(language: str) -> str:
    """Return a language without its script and region: zh of zh-Hant-TW (BCP 47)."""
    return language.partition("-")[0].lower()


def holds(text: str, mark: str) -> bool:
    """Return whether a mark occurs. Its first character is looked for first: one that is rare is soon found missing."""
    return mark[0] in text and mark in text


def may_have_fences(text: str) -> bool:
    """Return whether the signs of fenced code occur."""
    return holds(text, "```") or holds(text, "~~~")


def find_tags(text: str) -> Iterator[Tag]:
    """Yield think and answer tags outside fenced and inline code. Unclosed fences are text."""
    matches = list(TAG.finditer(text))
    in_brackets = "[" in text and any(map(text.__contains__, OTHER_TAG_ENDS))
    if in_brackets or ("{" in text and any(map(text.__contains__, IN_BRACES))):
        matches += OTHER_TAG.finditer(text)
    matches += [match for match in LINE_TAG.finditer(text) if match["name"].lower() in LINE_NAMES]
    if holds(text, "&lt;"):
        matches += PAGE_TAG.finditer(text)
    if not matches:
        return
    code = code_spans(text)
    index = 0
    for match in sorted(matches, key=lambda match: match.start()):
        while index < len(code) and code[index][1] <= match.start():
            index += 1
        if index < len(code) and code[index][0] <= match.start():
            continue
        groups = match.groupdict()
        yield Tag(
            match.start(),
            match.end(),
            "answer" if match["name"].lower() in ANSWER_NAMES else "think",
            bool(groups["slash"] or groups.get("end")),
            match.group() in CANONICAL,
        )


def fence_starts(text: str, start: int = 0) -> list[int]:
    """Return where the lines begin that open or close a fenced block, from ``start`` on."""
    first = [0] if start == 0 and FENCE.match(text) else []
    return first + [match.start() + 1 for match in NEXT_FENCE.finditer(text, max(0, start - 1))]


def fenced_spans(text: str) -> list[tuple[int, int]]:
    """Return the fenced blocks, in order, up to the fence that closes each; one that is never closed is none."""
    fences = fence_starts(text)
    return list(zip(fences[::2], fences[1::2], strict=False))


def code_spans(text: str) -> list[tuple[int, int]]:
    """Return fenced blocks and inline code, in order, not overlapping."""
    if "`" not in text and not holds(text, "~~~"):
        return []
    spans = fenced_spans(text) + [match.span() for match in INLINE_CODE.finditer(text)]
    merged: list[tuple[int, int]] = []
    for span in sorted(spans):
        if not merged or span[0] >= merged[-1][1]:
            merged.append(span)
    return merged


class Cover:
    """Spans of a text, in order and not overlapping, that can be asked whether they hold a place."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans: list[tuple[int, int]] = []
        for span in sorted(spans):
            if not self._spans or span[0] >= self._spans[-1][1]:
                self._spans.append(span)
        self._starts = [start for start, _ in self._spans]

    def holds(self, start: int, end: int) -> bool:
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and end <= self._spans[place][1]


def infer_format(tags: tuple[Tag, ...]) -> TraceFormat:
    """Return the format that the tags speak of; a closing tag alone is a defect of r1, not a prefilled tag."""
    if any(tag.name == "answer" for tag in tags):
        return TraceFormat.ZERO
    return TraceFormat.R1 if tags else TraceFormat.PLAIN
