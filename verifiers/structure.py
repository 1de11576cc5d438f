"""Whether a trace is laid out to be read: paragraphs, and no program where mathematics is asked for.

Two readability checks. Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.3, which drops chains with long paragraphs
and code blocks and states no bounds; these are measured (note on readability, 7) and belong to the teacher.
"""

from __future__ import annotations

from schemas.problem import Domain
from schemas.verdict import Reason
from verifiers.view import Finding, View, fenced_spans


def find_long_paragraph(view: View) -> Finding | None:
    """Return the longest paragraph, where it is too long, or long enough for a flag."""
    start, end = paragraph_of(view)
    length, limits = end - start, view.limits
    if length > limits.max_paragraph_chars:
        return Finding(Reason.LONG_PARAGRAPH, start, end, length, limits.max_paragraph_chars)
    if length > limits.flag_paragraph_chars:
        return Finding(Reason.LONG_PARAGRAPH, start, end, length, limits.flag_paragraph_chars, is_flag=True)
    return None


def paragraph_of(view: View) -> tuple[int, int]:
    """Return the place of the longest line outside fenced code; looked for once for all that ask."""
    if "paragraph" not in view.read:
        view.read["paragraph"] = _longest_outside_fences(view.text) if view.has_fences else _longest(view.text)
    place: tuple[int, int] = view.read["paragraph"]
    return place


def _longest(text: str) -> tuple[int, int]:
    line = max(text.split("\n"), key=len)
    start = text.find(line)
    return start, start + len(line)


def _longest_outside_fences(text: str) -> tuple[int, int]:
    fences = iter(fenced_spans(text))
    fence = next(fences, None)
    best, place = (0, 0), 0
    for line in text.split("\n"):
        end = place + len(line)
        while fence is not None and fence[1] < place:
            fence = next(fences, None)
        is_code = fence is not None and fence[0] <= place <= fence[1]
        if not is_code and end - place > best[1] - best[0]:
            best = (place, end)
        place = end + 1
    return best


def find_code_block(view: View) -> Finding | None:
    """Return the first fenced block of a trace in mathematics."""
    if view.domain is not Domain.MATH or not view.has_fences:
        return None
    fences = fenced_spans(view.text)
    if not fences:
        return None
    start, end = fences[0]
    return Finding(Reason.CODE_BLOCK_IN_MATH, start, end + 3, len(fences), 0)
