"""The final answer in a completion: where it stands and how it was found.

First step of every answer check. Invariant: linear in the length of the text, no regular expression with nested
quantifiers, and nothing inside the thinking part ever counts. Reads text only: what the answer means is the comparers'
matter. First form: adjacent boxes are merged; display mathematics and prose are read by simple rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.trace import split_completion
from schemas.verdict import Reason
from verifiers.limits import MAX_BARE_CHARS, MAX_LINE_CHARS

VERSION: Final = "1"


class Origin(StrEnum):
    """How an answer was found, most binding first."""

    BOX = "box"  # the last \\boxed, \\fbox or \\framebox of the response
    ANSWER_TAG = "answer_tag"  # <answer> ... </answer>
    MARKER = "marker"  # "final answer is", "Answer:", "####", "A:" at the start of a line
    WHOLE = "whole"  # a response that is nothing but an answer
    LAST_MATH = "last_math"  # the last $...$, \\(...\\) or \\[...\\]
    LAST_NUMBER = "last_number"  # a guess, not made in strict mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """An answer's text, its place in the raw completion (characters), and how it was found."""

    text: str
    start: int
    end: int
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Why there is no answer, with the place of the empty or cut box where there is one."""

    reason: Reason
    start: int | None = None
    end: int | None = None


class Span(NamedTuple):
    """A stretch of the text, in characters; ``end`` is None where it is never closed."""

    start: int
    end: int | None


class Box(NamedTuple):
    """A box: its place from the backslash to past the closing brace, and what is inside."""

    outer: Span
    inner: Span


BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is none
BOX_START: Final = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])[ \t\n]{0,9}(\{?)")
BARE_BOX_END: Final = re.compile(r"[\s$.,;]")
ANSWER_TAG: Final = re.compile(r"<(/?)answer>")
MARKER: Final = re.compile(
    r"(?:final[ \t]+answer|answer)[*_ \t]{0,9}(?:is\b|are\b|:|=)[ \t]{0,9}:?|####|^[*_ \t]{0,9}A[ \t]?:",
    re.IGNORECASE | re.MULTILINE,
)
JOINT: Final = re.compile(r"(?:[\s$,;.]|\\[,;!() ]|\\q?quad|\\text ?\{ ?(?:and|or)? ?\}|\band\b|\bor\b){1,20}")
JOINT_WORD: Final = re.compile(r"[,;]|and|or|quad")
MATH_SPAN: Final = re.compile(r"\$\$?([^$]{1,2000})\$|\\\(((?:[^\\]|\\(?![()])){1,2000})\\\)", re.DOTALL)
DISPLAY: Final = re.compile(r"\\\[((?:[^\\]|\\(?![\[\]])){1,2000})\\\]", re.DOTALL)
NUMBER: Final = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)?(?:\.\d+)?(?:/\d+)?%?(?<=[\d%])")
WORD: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
FUNCTION_NAMES: Final = re.compile(r"a?(?:sin|cos|tan)h?|cot|sec|csc|log|exp|sqrt")
COMMAND_TEXT: Final = re.compile(r"\\(?:text|mathrm|mbox|textbf|textrm|operatorname)\s?\{[^{}]{0,200}\}")
CLAUSE: Final = re.compile(r"\b(?:is|are|be|equals|gives|get|to)\b[ \t]*:?")


def last_match(pattern: re.Pattern[str], text: str, start: int, end: int) -> re.Match[str] | None:
    """Return the last match that is not empty."""
    last = None
    for match in pattern.finditer(text, start, end):
        if match.group():
            last = match
    return last


def response_start(completion: str) -> int:
    """Return where the response begins: the end of the text when the thinking is never closed."""
    return len(completion) - len(split_completion(completion).response)


def find_boxes(text: str, start: int = 0) -> list[Box]:
    """Return the outermost boxes from ``start`` on, in order; the last may be unterminated. One pass."""
    boxes: list[Box] = []
    position = start
    while token := BOX_START.search(text, position):
        inside = token.end()
        if token[1]:
            closing = _closing_brace(text, inside)
            position = len(text) if closing is None else closing + 1
            boxes.append(Box(Span(token.start(), None if closing is None else position), Span(inside, closing)))
        else:  # \boxed 5: TeX takes what follows
            end = BARE_BOX_END.search(text, inside)
            position = end.start() if end else len(text)
            boxes.append(Box(Span(token.start(), position), Span(inside, position)))
    return boxes


def _closing_brace(text: str, start: int) -> int | None:
    """Return where the brace opened before ``start`` closes, or None if it never does."""
    depth = 1
    for token in BRACE.finditer(text, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                return token.start()
    return None


def extract_answer(completion: str, *, strict: bool = False, is_block: bool = False) -> Extracted | Missing:
    """Return the final answer of the response, or why there is none.

    A box is authoritative even if it is empty or cut off. ``strict`` makes no guesses (last number). ``is_block`` is
    for answers of several lines, such as grids: a marker then takes all that follows, and a response without any
    marker is taken whole.
    """
    start, end = response_start(completion), len(completion)
    if not completion[start:].strip():
        return Missing(reason=Reason.NO_ANSWER)
    region = _last_answer_tag(completion, start)
    origin = Origin.WHOLE
    if region is not None:
        start, end = region
        origin = Origin.ANSWER_TAG
    boxed = _from_boxes(completion, start, end)
    if boxed is not None:
        return boxed
    marked = _from_marker(completion, start, end, is_block=is_block)
    if marked is not None:
        return marked
    if region is not None or is_block:
        trim = _stripped if is_block else _trimmed
        return trim(completion, start, end, origin) or Missing(reason=Reason.NO_ANSWER)
    whole = _trimmed(completion, start, end, Origin.WHOLE)
    if whole is not None and len(whole.text) <= MAX_BARE_CHARS and not _is_prose(whole.text):
        return whole
    found = _last_math(completion, start, end)
    if found is None and not strict:
        found = _last_number(completion, start, end)
    return found or Missing(reason=Reason.NO_ANSWER)


def _last_answer_tag(text: str, start: int) -> tuple[int, int] | None:
    """Return the inside of the last <answer> block, to the end of the text if it is never closed."""
    opened = text.rfind("<answer>", start)
    if opened < 0:
        return None
    inside = opened + len("<answer>")
    closed = text.find("</answer>", inside)
    return inside, closed if closed >= 0 else len(text)


def _from_boxes(text: str, start: int, end: int) -> Extracted | Missing | None:
    boxes = [box for box in find_boxes(text, start) if box.outer.start < end]
    if not boxes:
        return None
    last = boxes[-1]
    if last.inner.end is None or last.inner.end > end:
        return Missing(reason=Reason.UNTERMINATED_BOX, start=last.outer.start, end=end)
    parts = _joined(text, boxes)
    texts = list(dict.fromkeys(unwrap(text[part.inner.start : part.inner.end]) for part in parts))
    if not any(texts):
        return Missing(reason=Reason.EMPTY_BOX, start=last.outer.start, end=last.outer.end)
    first = parts[0] if len(texts) > 1 else last
    stop = last.outer.end
    assert stop is not None
    return Extracted(text=", ".join(filter(None, texts)), start=first.outer.start, end=stop, origin=Origin.BOX)


def _joined(text: str, boxes: list[Box]) -> list[Box]:
    """Return the last box with those before it that only commas, "and" and the like separate from it."""
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.outer.end : parts[0].outer.start] if box.outer.end is not None else ""
        if len(between) > 60 or not JOINT.fullmatch(between) or not JOINT_WORD.search(between):
            break
        parts.insert(0, box)
        if len(parts) > 50:  # a list of answers is short; this keeps the loop linear
            break
    return parts


def unwrap(text: str) -> str:
    """Return the content of a box without boxes that wrap all of it."""
    text = text.strip()
    boxes = find_boxes(text)
    depth = 0
    while len(boxes) == 1 and boxes[0].outer == Span(0, len(text)) and depth < 8:  # deeper nesting is a caller's limit
        text = text[boxes[0].inner.start : boxes[0].inner.end].strip()
        boxes, depth = find_boxes(text), depth + 1
    return text


def _from_marker(text: str, start: int, end: int, *, is_block: bool) -> Extracted | None:
    last = last_match(MARKER, text, start, end)
    if last is None:
        return None
    if is_block:
        return _stripped(text, last.end(), end, Origin.MARKER)
    # An answer on its own line below the marker counts too.
    begin = last.end()
    while begin < end and text[begin] in " \t\r\n*_":
        begin += 1
    if text.startswith(("$$", "\\[", "\\("), begin):
        found = _first_math(text, begin, end)
        if found is not None:
            return found
    stop = text.find("\n", begin, end)
    stop = end if stop < 0 else stop
    if stop - begin > MAX_LINE_CHARS:
        return None
    found = _trimmed(text, begin, stop, Origin.MARKER)
    return None if found is None else _clause(text, found)


def _clause(text: str, found: Extracted) -> Extracted:
    """Return the part of a marked line that is the answer: all of it, unless it is a sentence."""
    if not _is_prose(found.text):
        return found
    last_math = _last_math(text, found.start, found.end)
    last_number = _last_number(text, found.start, found.end)
    if last_math is not None and (last_number is None or last_number.start <= last_math.end):
        return last_math
    clause = last_match(CLAUSE, text, found.start, found.end)
    if clause is not None:
        rest = _trimmed(text, clause.end(), found.end, Origin.MARKER)
        if rest is not None and not _is_prose(rest.text):
            return rest
    if last_number is not None:
        return Extracted(text=last_number.text, start=last_number.start, end=last_number.end, origin=Origin.MARKER)
    return found


def _is_prose(text: str) -> bool:
    """Return whether the text holds more than a formula, a number with its unit, or one or two words."""
    words = [word for word in WORD.findall(COMMAND_TEXT.sub(" ", text)) if not FUNCTION_NAMES.fullmatch(word)]
    return len(words) > 2 or (bool(words) and "$" in text.replace("\\$", ""))


def _trimmed(text: str, start: int, end: int, origin: Origin) -> Extracted | None:
    """Return the stretch without space, emphasis, math delimiters and a final full stop around it."""
    while start < end and text[start] in " \t\r\n*_`":
        start += 1
    while end > start and (text[end - 1] in " \t\r\n*_`" or (text[end - 1] == "." and text[end - 2 : end] != "..")):
        end -= 1
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if (
            end - start > len(left) + len(right)
            and text.startswith(left, start)
            and text.endswith(right, start, end)
            and left not in text[start + len(left) : end - len(right)]
        ):
            start, end = start + len(left), end - len(right)
    while end > start and text[end - 1] in " \t\r\n.":
        end -= 1
    return Extracted(text=text[start:end], start=start, end=end, origin=origin) if end > start else None


def _stripped(text: str, start: int, end: int, origin: Origin) -> Extracted | None:
    """Return the stretch without space around it: in a block every other character may count."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Extracted(text=text[start:end], start=start, end=end, origin=origin) if end > start else None


def _last_math(text: str, start: int, end: int) -> Extracted | None:
    best = None
    for pattern in (MATH_SPAN, DISPLAY):
        for match in pattern.finditer(text, start, end):
            group = next(i for i in range(1, pattern.groups + 1) if match.group(i) is not None)
            if best is None or match.start(group) > best.start:
                found = _trimmed(text, match.start(group), match.end(group), Origin.LAST_MATH)
                best = found or best
    return best


def _first_math(text: str, start: int, end: int) -> Extracted | None:
    for pattern in (MATH_SPAN, DISPLAY):
        if match := pattern.match(text, start, end):
            group = next(i for i in range(1, pattern.groups + 1) if match.group(i) is not None)
            return _trimmed(text, match.start(group), match.end(group), Origin.MARKER)
    return None


def _last_number(text: str, start: int, end: int) -> Extracted | None:
    last = last_match(NUMBER, text, max(start, end - 10_000), end)  # a last number lies near the end
    if last is None:
        return None
    return Extracted(text=last.group().replace("$", ""), start=last.start(), end=last.end(), origin=Origin.LAST_NUMBER)
