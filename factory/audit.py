"""The audit of problems: what cannot give a verdict that means anything, told by looks, before a token is spent.

Part of the first step of the flow, for rows that somebody collected; generated problems are not looked at. Each check
returns a reason of its own with what was seen. Invariant: any problem gets an answer, the same every time. Meant never
to take a good problem: a check that is not sure says nothing. `factory bench clean` prints the alarms on real sets.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from schemas.problem import Answer, Domain, Problem, QuarantineReason
from verifiers.math import read_reference

AUDIT_VERSION: Final = 1  # raised when the same problem would get another answer
SEEN_CHARS: Final = 60  # of a statement, shown as evidence
# Where a picture is part of a problem as text, or as an address that a reader can follow.
_FIGURE: Final = re.compile(
    r"\[asy\]|\\begin\s*\{|\\includegraphics|!\[|<img|<svg|<table|\\(?:psset|pspicture|draw)\b|\bhttps?://|data:image|"
    r"^\s*\|.*\|\s*$|\\hline|```",
    re.IGNORECASE | re.MULTILINE,
)
_PICTURE: Final = r"(?:figure|diagram|picture|drawing|illustration|sketch)"
_THING: Final = rf"(?:{_PICTURE}|graph|chart|plot|image|map|grid|number line|histogram|spinner)"
_SHOWN: Final = r"(?:shown|pictured|depicted|illustrated|drawn|displayed)"
_FOLLOWING: Final = r"(?:following |adjoining |accompanying |adjacent |attached )"
# Not "the part of the graph below the axis".
_WHERE: Final = (
    r"(?:below|above|to the (?:right|left)|at (?:the )?(?:right|left)|on the (?:right|left))(?! (?:the|it|\$|[xy]\b))"
)
_REFERS_TO_FIGURE: Final = re.compile(
    rf"\b(?:in|from|on|using|see|consult|refer to|according to) (?:the|this) (?:{_FOLLOWING}|given )?{_PICTURE}\b|"
    rf"\b(?:the|this) {_FOLLOWING}?{_THING}s? (?:is |are )?(?:{_SHOWN}|given) {_WHERE}|"
    rf"\bthe {_FOLLOWING}{_THING}s?\b|"
    rf"\bthe (?:figure|diagram) (?:shows|illustrates|depicts)\b|"
    rf"\b(?:in|see) (?:fig\.|figure) ?\d|"
    rf"\b{_THING}s? {_WHERE}|"
    rf"\b{_SHOWN} (?:in|on) (?:the|this) {_FOLLOWING}?{_THING}\b|"
    # An expression may be shown below as well, and then it is.
    rf"\b(?:as|is|are) {_SHOWN} {_WHERE}(?!.*(?:\n|\\\[|\$\$|:))|\bshown (?:at|to|on) (?:the )?(?:right|left)\b|"
    rf"如图|如圖|(?:下|右|上|左)图",
    re.IGNORECASE,
)
_REFERS_TO_TABLE: Final = re.compile(
    rf"\b(?:table|chart) {_WHERE}|\bthe {_FOLLOWING}table\b|\bthe table shows\b", re.IGNORECASE
)
_PROOF: Final = re.compile(r"(?:^|[.!?:;,]\s+|\n\s*|\bthen )(?:prove|show|demonstrate|verify)\s+that\b", re.IGNORECASE)
_FINDS: Final = re.compile(
    r"\?|\b(?:find|determine|compute|calculate|evaluate|what|how many|how much|solve|which|express)\b", re.IGNORECASE
)
_ASKS: Final = re.compile(
    r"\?|\b(?:find|determine|compute|calculate|evaluate|what|how many|how much|solve|which|express|simplify|give|write|"
    r"convert|factor|expand|graph|add|subtract|multiply|divide|round|rationalize|list|name|sketch|plot|prove|show|who|"
    r"where|when|why|is|are|estimate|state|explain|describe|count|identify|verify|derive|reduce|"
    r"sum of|product of)\b",
    re.IGNORECASE,
)
_NO_ANSWER: Final = re.compile(
    r"\W*(?:proof|proved|proven|q\.?\s*e\.?\s*d|see (?:the )?(?:solution|proof|above|below)|not ?found|n/?a|none|null|"
    r"nan|no answer|unknown|todo|answers? (?:may )?var(?:y|ies))\W*",
    re.IGNORECASE,
)
# (a) ... (b) ..., or 1) ... 2) ...: each list of marks, at the beginning of a line or after the end of a sentence.
_PARTS: Final = tuple(
    re.compile(rf"(?:{before})(?:\*\*)?(?:{mark})(?:\*\*)?\s+(.*?)(?=(?:{before})(?:\*\*)?(?:{mark})|\Z)", re.DOTALL)
    for before, mark in (
        (r"(?:\A|\n)\s*", r"[1-5]\."),
        *(
            (r"(?:\A|\n|[.?!:;,]\)?\s)\s*", mark)
            for mark in (
                *(r"\([a-e]\)", r"[a-e]\)", r"\([1-5]\)", r"[1-5]\)"),
                *(r"\((?:iv|v|i{1,3})\)", r"Part (?:[A-E]|[1-5])[:.]"),
            )
        ),
    )
)
_MARKED: Final = re.compile(r"[a-eiv1-5]\)|Part [A-E1-5][:.]|^\s*1\.\s", re.MULTILINE)
_TASK: Final = re.compile(
    r"\?|^\s*(?:find|determine|compute|calculate|evaluate|prove|show|solve|what|how|simplify|express|give|write|"
    r"estimate|explain|describe|state)\b",
    re.IGNORECASE,
)
_CUT_END: Final = re.compile(
    r"(?:[,(\[{]|(?<![-\w])[-+=*/<>]|(?<=\w)\s[-+=*/<>]|\\(?:frac|sqrt|left|cdot|times|le|ge|in)?|"
    r"\b(?:and|or|the|an|of|to|by|from|if|then|is|are|such that|where|which|when|whose|that|with|has|have|into|than|"
    r"between|every|each|let|suppose|its|their)|\[truncated\]|<truncated>|\[\.\.\.\])\s*\Z"
)
_BEGIN, _END = re.compile(r"\\begin\s*\{"), re.compile(r"\\end\s*\{")


class Defect(NamedTuple):
    """Why a problem is kept aside, and what was seen of it."""

    reason: QuarantineReason
    detail: str


def find_defect(problem: Problem) -> Defect | None:
    """Return what is wrong with a problem; None where nothing was found."""
    text = problem.question
    return _reference_defect(problem) or (None if problem.domain is Domain.CODE else _statement_defect(problem, text))


def _reference_defect(problem: Problem) -> Defect | None:
    reference = problem.reference
    if not isinstance(reference, Answer):
        return None
    if _NO_ANSWER.fullmatch(reference.text) and (reference.kind != "text" or problem.domain is Domain.MATH):
        return Defect(
            QuarantineReason.NO_FINAL_ANSWER, f"the reference {reference.text!r} is a word for there being no answer"
        )
    if reference.kind is not None:  # then the source has said how it is to be read
        return None
    read = read_reference(reference.text)
    if read.type in ("empty", "unparsed", "limit") and not read.is_for_sympy:
        shown = reference.text if len(reference.text) <= SEEN_CHARS else reference.text[:SEEN_CHARS] + "..."
        return Defect(
            QuarantineReason.UNPARSED_REFERENCE,
            f"reference {shown!r} is no number, LaTeX expression or text that can be compared",
        )
    return None


def _statement_defect(problem: Problem, text: str) -> Defect | None:
    if (seen := _truncated(text)) is not None:
        return Defect(QuarantineReason.TRUNCATED_STATEMENT, f"the statement ends in the middle: {seen}")
    found = _REFERS_TO_FIGURE.search(text) or (None if "\n" in text.strip() else _REFERS_TO_TABLE.search(text))
    if found is not None and not _FIGURE.search(text):
        return Defect(QuarantineReason.MISSING_FIGURE, f"{found[0]!r}, and there is no figure")
    if problem.domain is Domain.MATH and _is_proof(text):
        return Defect(QuarantineReason.NO_FINAL_ANSWER, "asks for a proof, not for an answer")
    if _MARKED.search(text) and (parts := _questions(text)) > 1:
        return Defect(QuarantineReason.SEVERAL_QUESTIONS, f"asks {parts} questions in parts of its own, for one answer")
    return None


def _is_proof(text: str) -> bool:
    """Return whether a statement asks to prove something and, from there on, nothing else."""
    found = list(_PROOF.finditer(text))
    return bool(found) and not _FINDS.search(text, found[-1].end())


def _questions(text: str) -> int:
    """Return how many parts of their own, marked by letters or numbers, ask something."""
    return max(sum(bool(_TASK.search(part)) for part in parts.findall(text)) for parts in _PARTS)


def _truncated(text: str) -> str | None:
    """Return the end of a statement that stops inside a sentence or a formula; None if it does not."""
    stripped = text.rstrip()
    if _CUT_END.search(stripped):
        return repr(stripped[-SEEN_CHARS:])
    for opened, closed in (("[asy]", "[/asy]"), ("\\left", "\\right"), ("\\[", "\\]"), ("\\(", "\\)")):
        if _count(stripped, opened) > _count(stripped, closed):
            return f"{opened} is never closed, {stripped[-SEEN_CHARS:]!r}"
    if len(_BEGIN.findall(stripped)) > len(_END.findall(stripped)):
        return f"\\begin without \\end, {stripped[-SEEN_CHARS:]!r}"
    if "\\" in stripped and stripped.replace("\\{", "").count("{") > stripped.replace("\\}", "").count("}"):
        return f"a brace is never closed, {stripped[-SEEN_CHARS:]!r}"
    if stripped[-1:].isalnum() and not _ASKS.search(stripped) and not _TASK.search(stripped):
        return f"nothing is asked, and there is no end, {stripped[-SEEN_CHARS:]!r}"
    return None


def _count(text: str, mark: str) -> int:
    """Return how often a mark occurs; a LaTeX command only where no letter and no second backslash goes with it."""
    if not mark.startswith("\\"):
        return text.count(mark)
    tail = r"(?![a-zA-Z])" if mark[-1].isalpha() else ""
    return len(re.findall(r"(?<!\\)" + re.escape(mark) + tail, text))
