"""The final answer in a completion: where it stands and how it was found.

First step of every answer check. Invariant: linear in the length of the text, no regular expression with nested
quantifiers, and nothing inside the thinking part ever counts. The last box binds, wherever it stands; all that is less
binding is looked for in the last ``MAX_TAIL_CHARS`` only. Reads text: what the answer means is the comparers' matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.trace import THINK_CLOSE, THINK_OPEN
from schemas.verdict import Reason
from verifiers.limits import (
    MAX_ANSWER_CHARS,
    MAX_BARE_CHARS,
    MAX_BOX_CHARS,
    MAX_BOX_GAP_CHARS,
    MAX_JOINED_BOXES,
    MAX_LINE_CHARS,
    MAX_MATH_CHARS,
    MAX_TAIL_CHARS,
)
from verifiers.words import is_worded

VERSION: Final = "2"


class Origin(StrEnum):
    """How an answer was found, most binding first."""

    BOX = "box"  # the last \\boxed, \\fbox or \\framebox of the response
    ANSWER_TAG = "answer_tag"  # <answer> ... </answer>
    MARKER = "marker"  # "final answer is", "Answer:", "####", "A:" at the start of a line
    WHOLE = "whole"  # a response that is nothing but an answer
    LAST_MATH = "last_math"  # the last $...$, \\(...\\) or \\[...\\]
    LAST_LINE = "last_line"  # a guess, not made in strict mode
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


NOT_SPACE: Final = re.compile(r"\S")
BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is none
BOX_START: Final = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])[ \t\n]{0,9}(\{?)")
BARE_BOX_END: Final = re.compile(r"[\s$.,;]")
CONTROL_TOKEN: Final = re.compile(r"<\|[A-Za-z_]{1,30}\|>")  # an engine that went on after its end token
MARKER: Final = re.compile(
    r"final[ \t]+answer[*_ \t]{0,9}(?:is\b|are\b|:|=|)[*_ \t]{0,9}:?|"
    r"answer[*_ \t]{0,9}(?:is\b|are\b|:|=)[ \t]{0,9}:?|####|"
    r"^[*_ \t]{0,9}(?:A|result|answer|solution)[*_]{0,3}[ \t]?:|(?:答案|答え)[*_ \t]{0,3}(?:是|为|は|)[:： \t]{0,3}|"
    r"r[ée]ponse(?:[ \t]finale)?[ \t]?(?:est\b|:)|antwort[ \t]?(?:ist\b|:)|ответ[ \t]?:|respuesta[ \t]?(?:es\b|:)",
    re.IGNORECASE | re.MULTILINE,
)
# Between two boxes that are one answer: nothing but these, and a comma or a word that joins.
JOINT_TEXT: Final = re.compile(r"\\text ?\{([^{}]{0,60})\}")
JOINT_NOISE: Final = re.compile(r"\$|\\[,;!() \[\]]|\\q?quad(?![A-Za-z])|\\\\|&")
JOINT_LABEL: Final = re.compile(r"(?:[A-Za-z]|\\[a-z]{2,8})(?:_\{?\w{1,3}\}?)?\s?=\s*$")
COMMAS: Final = re.compile(r"[\s,;]*[,;][\s,;]*")
JOINT: Final = re.compile(r"[\s,;]{0,9}(?:[A-Za-z()]{1,12}[\s,;]{1,9}){0,7}(?:and|or)[\s,;]{0,9}")
# Another candidate, hedged: "or maybe", "/", "vs". Where nothing stands between two boxes, the last one counts.
HEDGED: Final = re.compile(
    r"[ \t,;(]{0,9}(?:or\b[ \t,;(]{0,9}[A-Za-z= ,]{0,40}|(?:and[ ,]{1,3})?(?:maybe|possibly|perhaps|respectively)|"
    r"vs\.?|versus|/|\||\\(?:lor|vee))[ \t,;(]{0,9}"
)
NO_JOINT: Final = re.compile(
    r"\b(?:is|are|was|were|not|no|but|then|so|thus|hence|therefore|since|gives?|instead|rather|wrong|incorrect|actually|"
    r"wait|correct|check|because|if|final|answer|earlier|previously|found|got|claimed|should|be)\b",
    re.IGNORECASE,
)
FASTENED_BEFORE: Final = re.compile(
    r"((?:(?<=[=:({])|(?<=\bis)|^|(?<=\$))\s*-\s?(?:\\,)?|(?<=[\d)}])\s?[+*/^_]|(?<=\w)\s?[+/^]|\\(?:cdot|times|ne[gq]?|pm|log|ln)\s?|\bnot|"
    r"\\text\s?\{\s?not\s?\}|\\[dt]?frac\{|\\sqrt\{|\\verb\|)$"
)
FASTENED_BEHIND: Final = re.compile(
    r"\\?%|\^\{?[^\s$]{1,10}|\\(?:cdot|times)\s?10\^\{?-?\d+\}?|(?:hundred|thousand|million|billion|trillion|percent)\b|"
    r"(?:or|\\text\s?\{\s?or\s?\})\s+\$?\s?[-\d\\][^\s.$]*|is (?:wrong|incorrect|not)\b|[xyi](?![A-Za-z])|"
    r"_\{?\w+\}?|\.?\d+|\\[dt]?frac\s?\{?\d+\}?\s?\{?\d+\}?"
)
ANSWER_TAG: Final = re.compile(r"<(/?)answer>")
MATH_SPAN: Final = re.compile(r"\$\$?([^$]{1,2000})\$|\\\(((?:[^\\]|\\(?![()])){1,2000})\\\)", re.DOTALL)
DISPLAY: Final = re.compile(r"\\\[((?:[^\\]|\\(?![\[\]])){1,2000})\\\]", re.DOTALL)
MATRIX: Final = re.compile(r"(\\begin\{[a-zA-Z]?(?:matrix|array)\}(?:[^\\]|\\(?!end)){1,2000}\\end\{\w+\})", re.DOTALL)
SPAN_JOINT: Final = re.compile(r"\$?\$?\s*,?\s*(?:or|and)\s*|\$?\$?\s*,\s*")
SPAN_HEDGE: Final = re.compile(r"\b(not|between|than|at most|at least|minus|or)\s*[$(\\\[]{0,2}$")
NUMBER: Final = re.compile(
    r"(?<![\w.])(?:-|\\\$|\$){0,2}(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)?(?:\.\d+)?(?:/\d+)?(?:\\?%)?(?<=[\d%])"
    r"|-?\\d?frac\{-?\d+\}\{\d+\}",
    re.ASCII,
)
WORD: Final = re.compile(r"(?<![\\A-Za-z])(?!(?:and|or|pi)\b)[A-Za-z]{2,}")
OTHER_SCRIPT: Final = re.compile(r"[\u0370-\u1fff\u3000-\u9fff\uac00-\ud7af]{2}")
FUNCTION_NAMES: Final = re.compile(r"a?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|exp|sqrt|mod|in")
COMMAND_TEXT: Final = re.compile(
    r"\\(?:begin|end)\s?\{[^{}]{0,40}\}|\\(?:text|mathrm|mbox|textbf|textrm|operatorname)\s?\{[^{}]{0,200}\}|\\[A-Za-z]+"
)
AMOUNT: Final = re.compile(r"[^A-Za-z]{0,40}\d[^A-Za-z]{0,40}(?:[A-Za-z/^.{}\d]{1,20}\s?){1,3}")
CLAUSE: Final = re.compile(
    r"\b(?:is|are|be|equals|gives|get|(?:comes|out|evaluates|simplifies|reduces|equal|leads|sums?|amounts|up) to)\b"
    r"[ \t]*:?"
)
HEDGE: Final = re.compile(
    r"\b(?:not|no|never|either|neither|or|than|most|least|between|twice|thrice|half|double|minus|negative|if|unless|but|"
    r"except|probably|maybe|perhaps|possibly|roughly|about|approximately|nearly|root|power|squared?|cubed?|below|above|"
    r"under|over|plus|times|divided|depending|depends|hundred|thousand|million|billion|dozen|any|anything|from|"
    r"one of)\b",
    re.IGNORECASE,
)
CONDITION: Final = re.compile(r"\b(?:if|unless|not|either|when)\b", re.IGNORECASE)
FORMULA_BEFORE: Final = re.compile(r"[\d+*/=^<>\\]|(?<!\w)-")  # then the last number is only the end of a formula
SENTENCE_END: Final = re.compile(r"(?:(?<!\d)!|[.?])(?=\s+[A-Z(\"'*$]|\s*$)|(?<!\d)!(?=\s*$)|。")
ASIDE: Final = re.compile(
    r",?\s+(?:because|since|as|which|where|when|after|though|although|so)\b|"
    r",\s+(?:obviously|clearly|indeed|of course|it|not|i|we|and so|respectively)\b",
    re.IGNORECASE,
)


def last_match(pattern: re.Pattern[str], text: str, start: int, end: int) -> re.Match[str] | None:
    """Return the last match that is not empty."""
    last = None
    for match in pattern.finditer(text, start, end):
        if match.group():
            last = match
    return last


def response_start(completion: str) -> int:
    """Return where the response begins: the end of the text when the thinking is never closed.

    The same place as ``schemas.trace.split_completion`` says, without copying the text.
    """
    closed = completion.rfind(THINK_CLOSE)
    if closed >= 0:
        return closed + len(THINK_CLOSE)
    return len(completion) if THINK_OPEN in completion else 0


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
    """Return where the brace opened before ``start`` closes, or None if it never does, or not within its limit."""
    depth = 1
    for token in BRACE.finditer(text, start, start + MAX_BOX_CHARS):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                return token.start()
    return None


def extract_answer(
    completion: str, *, strict: bool = False, is_block: bool = False, is_line: bool = False
) -> Extracted | Missing:
    """Return the final answer of the response, or why there is none.

    A box is authoritative even if it is empty or cut off. ``strict`` makes no guesses (last line, last number).
    ``is_block`` is for answers of several lines, such as grids: a marker then takes all that follows, and a response
    without any marker is taken whole. ``is_line`` takes a marked line whole, where words are expected.
    """
    start, end = response_start(completion), len(completion)
    if (lone := _lone_box(completion, start)) is not None:
        return lone
    if (control := completion.find("<|", start)) >= 0:
        end = _without_control_tokens(completion, start, control)
    if NOT_SPACE.search(completion, start, end) is None:
        return Missing(reason=Reason.NO_ANSWER)
    region = _last_answer_tag(completion, start, end)
    if region is not None:
        start, end = region
    boxed = _from_boxes(completion, start, end)
    if boxed is not None:
        return boxed
    if not is_block:
        start = max(start, end - MAX_TAIL_CHARS)
    marked = _from_marker(completion, start, end, is_block=is_block, is_line=is_line)
    if marked is not None:
        return marked
    if is_block:
        origin = Origin.WHOLE if region is None else Origin.ANSWER_TAG
        return _stripped(completion, start, end, origin) or Missing(reason=Reason.NO_ANSWER)
    if region is not None:
        found = _trimmed(completion, start, end, Origin.ANSWER_TAG)
        return Missing(reason=Reason.NO_ANSWER) if found is None else _clause(completion, found)
    return _unmarked(completion, start, end, strict=strict) or Missing(reason=Reason.NO_ANSWER)


def _without_control_tokens(text: str, start: int, first: int) -> int:
    """Return where the response ends: before the first control token that something stands before."""
    for token in CONTROL_TOKEN.finditer(text, first):
        if text[start : token.start()].strip():
            return token.start()
    return len(text)


def _unmarked(text: str, start: int, end: int, *, strict: bool) -> Extracted | None:
    """Return what a response without box and marker answers: all of it, its last formula, its last line or number."""
    whole = _trimmed(text, start, end, Origin.WHOLE)
    if whole is not None and len(whole.text) <= MAX_BARE_CHARS and "\n" not in whole.text and not _is_prose(whole.text):
        return whole
    found = _last_math(text, start, end)
    if found is not None or strict:
        return found
    if whole is not None and "\n" in whole.text:
        line = _trimmed(text, text.rindex("\n", whole.start, whole.end), whole.end, Origin.LAST_LINE)
        if line is not None and len(line.text) <= MAX_BARE_CHARS and not _is_prose(line.text):
            return line
    return _last_number(text, start, end)


def _last_answer_tag(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the inside of the last <answer> block, to the end of the text if it is never closed."""
    opened = text.rfind("<answer>", start, end)
    if opened < 0:
        return None
    inside = opened + len("<answer>")
    closed = text.find("</answer>", inside, end)
    return inside, closed if closed >= 0 else end


def _lone_box(text: str, start: int) -> Extracted | None:
    """Return the answer of a response with one box and no tags: most are so, and this is quick. None for the others."""
    place = text.rfind("\\boxed{", start)
    if place < 0 or text.find("<", start) >= 0:
        return None
    inside = place + len("\\boxed{")
    if text.rfind("box", max(start, place - MAX_BOX_GAP_CHARS), place) >= 0 or text.find("box", inside) >= 0:
        return None
    closing = text.find("}", inside)
    if closing < 0 or text.find("{", inside, closing) >= 0 or text[closing - 1] == "\\":
        found = _closing_brace(text, inside)
        closing = -1 if found is None else found
    answer = text[inside:closing].strip(" \t\r\n") if closing >= 0 else ""
    if not answer or answer[0].isspace():
        return None
    answer = unwrap(answer) if answer[0] in "{*" else answer
    answer = _in_context(text, place, closing + 1, answer)
    return Extracted(text=answer, start=place, end=closing + 1, origin=Origin.BOX)


def _in_context(text: str, start: int, end: int, answer: str) -> str:
    """Return what a box says with what is fastened to it: a sign before, a percent sign behind, "or 6", "not"."""
    before = text[max(start - 24, 0) : start].rstrip(" $")
    if before and (match := FASTENED_BEFORE.search(before)):
        answer = f"{match[1]}{answer}"
    elif text[start - 1 : start].isdigit():
        answer = f"{text[start - 1]}{answer}"
    after = text[end : end + 40]
    is_digit = after[:1].isdigit() or (after[:1] == "." and after[1:2].isdigit())
    after = after.lstrip(" $")
    if after and (is_digit or after[0] in "%^\\_htmbopix") and (match := FASTENED_BEHIND.match(after)):
        answer = f"{answer}{match[0]}"
    return answer


def _from_boxes(text: str, start: int, end: int) -> Extracted | Missing | None:
    boxes = _last_boxes(text, start, end)
    if not boxes:
        return None
    last = boxes[-1]
    if last.inner.end is None or last.inner.end > end:
        return Missing(reason=Reason.UNTERMINATED_BOX, start=last.outer.start, end=end)
    parts = [last] if len(boxes) == 1 else _joined(text, boxes)
    texts = list(dict.fromkeys(unwrap(text[part.inner.start : part.inner.end]) for part in parts))
    if not unwrap(text[last.inner.start : last.inner.end]):
        return Missing(reason=Reason.EMPTY_BOX, start=last.outer.start, end=last.outer.end)
    first = parts[0] if len(texts) > 1 else last
    stop = last.outer.end
    assert stop is not None
    answer = ", ".join(filter(None, texts)) if len(texts) > 1 else _in_context(text, last.outer.start, stop, texts[0])
    return Extracted(text=answer, start=first.outer.start, end=stop, origin=Origin.BOX)


def _last_boxes(text: str, start: int, end: int) -> list[Box]:
    """Return the last box and those close before it, in order; boxes inside a box count as part of it."""
    place = _last_box_start(text, start, end)
    if place < 0:
        return []
    for _ in range(MAX_JOINED_BOXES):
        before = _last_box_start(text, max(start, place - MAX_BOX_GAP_CHARS), place)
        if before < 0:
            break
        place = before
    return [box for box in find_boxes(text, place) if box.outer.start < end]


def _last_box_start(text: str, start: int, end: int) -> int:
    place = text.rfind("\\boxed", start, end)
    for name in ("\\fbox", "\\framebox"):
        place = max(place, text.rfind(name, max(place, start), end))
    return place


def _joined(text: str, boxes: list[Box]) -> list[Box]:
    """Return the last box with those before it that only commas, "and" and the like separate from it."""
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.outer.end : parts[0].outer.start] if box.outer.end is not None else ""
        if not _is_joint(between):
            break
        parts.insert(0, box)
    return parts


def _is_joint(between: str) -> bool:
    """Return whether what stands between two boxes makes them one answer: "and", ", ", " papers and ", "and $y =$"."""
    if len(between) > 80:
        return False
    plain = JOINT_NOISE.sub(" ", JOINT_TEXT.sub(r" \1 ", between))
    plain = JOINT_LABEL.sub("", plain)
    if HEDGED.fullmatch(plain):
        return True
    return bool(COMMAS.fullmatch(plain) or (JOINT.fullmatch(plain) and not NO_JOINT.search(plain)))


def unwrap(text: str) -> str:
    """Return the content of a box without boxes and emphasis that wrap all of it."""
    text = text.strip()
    boxes = find_boxes(text) if "box" in text else []
    depth = 0
    while len(boxes) == 1 and boxes[0].outer == Span(0, len(text)) and depth < 8:  # deeper nesting is a caller's limit
        text = text[boxes[0].inner.start : boxes[0].inner.end].strip()
        boxes, depth = find_boxes(text), depth + 1
    if len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    is_braced = len(text) <= MAX_ANSWER_CHARS and text.startswith("{") and text.endswith("}") and "," not in text
    if is_braced and _closing_brace(text, 1) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _from_marker(text: str, start: int, end: int, *, is_block: bool, is_line: bool) -> Extracted | None:
    last = last_match(MARKER, text, start, end)
    if last is None:
        return None
    if is_block:
        return _stripped(text, last.end(), end, Origin.MARKER)
    # An answer on its own line below the marker counts too.
    begin = last.end()
    while begin < end and text[begin] in " \t\r\n*_:":
        begin += 1
    if text.startswith(("$$", "\\[", "\\("), begin):
        found = _first_math(text, begin, end)
        if found is not None:
            return found
    stop = text.find("\n", begin, end)
    stop = end if stop < 0 else stop
    if stop - begin > MAX_LINE_CHARS:
        return None
    if sentence := SENTENCE_END.search(text, begin, stop):
        stop = sentence.start()
    if (aside := ASIDE.search(text, begin, stop)) and aside.start() > begin:
        stop = aside.start()
    found = _trimmed(text, begin, stop, Origin.MARKER)
    if found is None or is_line or text[found.start - 1] in "$([" or "__" in found.text:
        return found  # all of it is a formula, or code: no sentence to look into
    return _clause(text, found)


def _clause(text: str, found: Extracted) -> Extracted:
    """Return the part of a marked line that is the answer: all of it, unless it is a sentence that ends in one.

    A sentence that hedges, bounds or describes ("at most 5", "twice 5", "not 5") is no answer: it is returned whole.
    """
    if not _is_prose(found.text):
        return found
    clause = last_match(CLAUSE, text, found.start, found.end)
    if clause is not None:
        rest = _trimmed(text, clause.end(), found.end, Origin.MARKER)
        if rest is not None and is_worded(found.text) and len(rest.text.split()) > 1:
            return found  # a sentence in words is an answer in words: "Optical science is your specialty"
        if CONDITION.search(text, found.start, clause.end()):
            return found
        if rest is not None and not _is_prose(rest.text):
            return rest
    start = found.start if clause is None else clause.end()
    if HEDGE.search(text, start, found.end):
        return found
    last = _last_math(text, start, found.end) or _last_number(text, start, found.end)
    if last is None or FORMULA_BEFORE.search(text, start, last.start):
        return found
    return Extracted(text=last.text, start=last.start, end=last.end, origin=Origin.MARKER)


def _is_prose(text: str) -> bool:
    """Return whether the text holds more than a formula, an amount with its unit, or a few words alone."""
    if OTHER_SCRIPT.search(text) and any(character.isdigit() for character in text):
        return True
    words = [word for word in WORD.findall(COMMAND_TEXT.sub(" ", text)) if not FUNCTION_NAMES.fullmatch(word)]
    if not words:
        return False
    if is_worded(text):
        return len(words) > 4
    return "$" in text.replace("\\$", "") or "\\(" in text or not AMOUNT.fullmatch(text)


def _trimmed(text: str, start: int, end: int, origin: Origin) -> Extracted | None:
    """Return the stretch without space, emphasis, math delimiters and a final full stop around it."""
    while start < end and text[start] in " \t\r\n*_`":
        start += 1
    while end > start and (text[end - 1] in " \t\r\n*_`,;" or _is_full_stop(text, end)):
        end -= 1
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if (
            end - start > len(left) + len(right)
            and text.startswith(left, start)
            and text.endswith(right, start, end)
            and left not in text[start + len(left) : end - len(right)]
        ):
            start, end = start + len(left), end - len(right)
    while end > start and (text[end - 1] in " \t\r\n" or _is_full_stop(text, end)):
        end -= 1
    return Extracted(text=text[start:end], start=start, end=end, origin=origin) if end > start else None


def _is_full_stop(text: str, end: int) -> bool:
    """Return whether the character before ``end`` ends a sentence; three dots do not."""
    return text[end - 1] == "." and text[max(end - 2, 0) : end] != ".."


def _stripped(text: str, start: int, end: int, origin: Origin) -> Extracted | None:
    """Return the stretch without space around it: in a block every other character may count."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Extracted(text=text[start:end], start=start, end=end, origin=origin) if end > start else None


def _last_math(text: str, start: int, end: int) -> Extracted | None:
    best = None
    start = max(start, end - MAX_MATH_CHARS)
    last_environment = text.rfind("\\begin{", start, end)
    for pattern in (MATH_SPAN, DISPLAY, MATRIX):
        if pattern is MATRIX and last_environment < 0:
            continue
        for match in pattern.finditer(text, last_environment if pattern is MATRIX else start, end):
            group = next(i for i in range(1, pattern.groups + 1) if match.group(i) is not None)
            if best is None or match.start(group) > best.start:
                found = _trimmed(text, match.start(group), match.end(group), Origin.LAST_MATH)
                if found is not None and best is not None and SPAN_JOINT.fullmatch(text, best.end, match.start()):
                    found = Extracted(
                        text=text[best.start : found.end], start=best.start, end=found.end, origin=found.origin
                    )
                best = found or best
    if best is not None and (hedge := SPAN_HEDGE.search(text[max(best.start - 24, 0) : best.start])):
        return Extracted(text=hedge[1] + " " + best.text, start=best.start, end=best.end, origin=best.origin)
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
    return Extracted(
        text=last.group().replace("\\$", "").replace("$", ""),
        start=last.start(),
        end=last.end(),
        origin=Origin.LAST_NUMBER,
    )
