"""Whether a completion's final answer is the reference: a ladder of comparers, cheapest first.

Public seam: ``judge_answer``. Rungs: "extraction" (there is nothing to compare), "string" (the same normal form),
"form" (a kind whose form counts), "base", "unit", "number" (exact literals), "text", "items" (tuples and sets of
literals), "limit", and last "math_verify" in a process that can be killed. Invariants: never raises on what a model
wrote, nothing a model wrote is evaluated in this process, no absolute tolerance but the reference's own precision, and
a failure of ours is ``unjudged``, never "wrong". First form: relations, expressions and units beyond the common ones
are math-verify's.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

from schemas.problem import Answer, Choice
from schemas.verdict import REASON_OUTCOMES, Check, MathDetail, Outcome, Reason, Verdict
from verifiers import normalize as notation
from verifiers.extract import Extracted, Missing, extract_answer
from verifiers.forms import BLOCK_KINDS, COMPARERS, BadReferenceError, compare_reals, split_items
from verifiers.limits import MAX_ANSWER_CHARS, MAX_DEPTH, MAX_FORM_CHARS, MAX_SCORED_CHARS
from verifiers.literals import Literal, TooManyDigitsError, is_same_number, read_literal
from verifiers.pool import Died, Done, TimedOut, TooBig, default_pool
from verifiers.units import split_unit

logger = logging.getLogger(__name__)

NAME: Final = "math"
VERSION: Final = "1"

NUMBER_KIND: Final = "number"  # the answer must be written out: "2 + 3" is not an answer to "what is 2 + 3"
UNEVALUATED: Final = re.compile(r"\\(?:int|lim)(?![A-Za-z])")  # restates the problem, and sympy would solve it
GRID_KIND: Final = "grid"  # rows of numbers; the one kind besides numbers that knows a precision


@dataclass(frozen=True, slots=True)
class Finding:
    """How two texts compare: None as reason means equal. ``rung`` decided; the forms are for the reader."""

    reason: Reason | None
    rung: str
    answer_form: str | None = None
    reference_form: str | None = None


def judge_answer(
    completion: str, reference: str | Answer | Choice, *, kind: str | None = None, strict: bool = False
) -> Verdict:
    """Return the verdict on the final answer of a completion, with one check, "math" (or "choice" for a Choice).

    ``kind`` overrides the reference's own; ``strict`` makes no guess where no answer is marked. Never raises, whatever
    the texts hold; safe from any thread. Times are in milliseconds.
    """
    if isinstance(reference, Choice):
        from verifiers.choice import judge_choice

        return judge_choice(completion, reference, strict=strict)
    wanted = Answer(text=reference, kind=kind) if isinstance(reference, str) else reference
    if kind is not None and wanted.kind != kind:
        wanted = replace(wanted, kind=kind)
    start = time.perf_counter()
    found = extract_answer(completion, strict=strict, is_block=wanted.kind in BLOCK_KINDS)
    finding = Finding(found.reason, "extraction") if isinstance(found, Missing) else compare(found.text, wanted)
    return Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start),))


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


def compare(answer: str, reference: Answer) -> Finding:
    """Return how an extracted answer compares with the reference: the ladder, without extraction."""
    wanted = read_reference(reference.text) if reference.kind not in COMPARERS else reference.text.strip()
    if not wanted:
        return Finding(Reason.UNPARSED_REFERENCE, "extraction")
    max_chars = MAX_SCORED_CHARS if reference.kind in BLOCK_KINDS else MAX_ANSWER_CHARS
    if answer.strip() == wanted and reference.kind not in COMPARERS:
        return Finding(None, "string", answer[:MAX_FORM_CHARS], wanted[:MAX_FORM_CHARS])
    if len(answer) > max_chars:
        return Finding(Reason.TOO_LONG, "limit")
    if len(wanted) > max_chars:
        return Finding(Reason.UNPARSED_REFERENCE, "limit")
    if notation.depth_of(answer) > MAX_DEPTH:
        return Finding(Reason.TOO_DEEP, "limit")
    precision = None if reference.precision is None else Fraction(repr(float(reference.precision)))
    try:
        if reference.kind in COMPARERS:
            reason = COMPARERS[reference.kind](answer, wanted)
            return Finding(reason, "form", answer[:MAX_FORM_CHARS], wanted[:MAX_FORM_CHARS])
        if reference.kind == GRID_KIND:
            return Finding(compare_reals(answer, wanted, precision or Fraction(0)), "form")
        return _climb(answer, wanted, precision, reference.kind)
    except BadReferenceError:
        return Finding(Reason.UNPARSED_REFERENCE, "form", reference_form=wanted[:MAX_FORM_CHARS])
    except TooManyDigitsError:
        return Finding(Reason.TOO_BIG, "number")


@lru_cache(maxsize=4_096)
def read_reference(text: str) -> str:
    """Return the answer that a reference states: its box, or the last formula of a sentence, else all of it."""
    if "\\boxed" in text or "$" in text:
        found = extract_answer(text, strict=True)
        if isinstance(found, Extracted):
            return found.text
    return text.strip()


def _climb(answer: str, wanted: str, precision: Fraction | None, kind: str | None) -> Finding:
    a, r = notation.normalize(answer), notation.normalize(wanted)
    forms = (a[:MAX_FORM_CHARS], r[:MAX_FORM_CHARS])
    if a == r and (not notation.may_group(a) or notation.is_list_comma(answer) == notation.is_list_comma(wanted)):
        return Finding(None, "string", *forms)
    based = _compare_bases(a, r)
    if based is not None:
        return Finding(based.reason, "base", *forms)
    a_unit, r_unit = split_unit(a), split_unit(r)
    if a_unit.unit and r_unit.unit and a_unit.unit != r_unit.unit:
        return Finding(Reason.UNIT_MISMATCH, "unit", *forms)
    if not a_unit.is_letter or r_unit.unit:
        a = a_unit.body
    if not r_unit.is_letter or a_unit.unit:
        r = r_unit.body
    a, r = _without_symbol(a, r), _without_symbol(r, a)
    literals = _compare_literals(a, r, answer, wanted, precision)
    if literals is not None:
        return Finding(literals.reason, "number", *forms)
    if kind == NUMBER_KIND:
        return Finding(Reason.TYPE_MISMATCH, "number", *forms)
    if notation.is_text(r) and (notation.is_text(a) or "\\text" in r):
        same = notation.as_words(a) == notation.as_words(r)
        return Finding(None if same else Reason.VALUE_DIFFERS, "text", *forms)
    items = _compare_items(a, r)
    if items is not None:
        return Finding(items.reason, "items", *forms)
    if UNEVALUATED.search(a) and not UNEVALUATED.search(r):
        return Finding(Reason.TYPE_MISMATCH, "form", *forms)
    if notation.is_power_tower(a):
        return Finding(Reason.TOO_BIG, "limit", *forms)
    return _ask_math_verify(answer, wanted, precision)


class _Equal:
    """A comparer's decision; None instead of one means that it is not its case."""

    def __init__(self, reason: Reason | None) -> None:
        self.reason = reason


def _compare_bases(a: str, r: str) -> _Equal | None:
    """Numbers with a base: digits and base must be the same; a base on one side only is a mismatch."""
    left, right = notation.read_base(a), notation.read_base(r)
    if left is None and right is None:
        return None
    if left is None or right is None:
        other = a if left is None else r
        is_number = other.replace(",", "").isalnum()
        return _Equal(Reason.BASE_MISMATCH) if is_number else None
    if left.base != right.base:
        return _Equal(Reason.BASE_MISMATCH)
    return _Equal(None if left.digits == right.digits else Reason.VALUE_DIFFERS)


def _without_symbol(text: str, other: str) -> str:
    """Return ``x=5`` as ``5`` where the other side names no variable: only a lone symbol is unwrapped."""
    match = notation.LONE_SYMBOL.match(text)
    if match is None or notation.LONE_SYMBOL.match(other):
        return text
    rest = text[match.end() :]
    has_relation = any(sign in part for part in (rest, other) for sign in ("=", "\\leq", "\\geq", "<", ">"))
    return text if has_relation or "," in rest else rest


def _compare_literals(a: str, r: str, answer: str, wanted: str, precision: Fraction | None) -> _Equal | None:
    left = None if notation.is_list_comma(answer) else read_literal(a)
    right = None if notation.is_list_comma(wanted) else read_literal(r)
    if left is None or right is None:
        return None
    return _Equal(None if is_same_number(left, right, precision) else Reason.VALUE_DIFFERS)


BRACKETS: Final = {"(": ")", "[": "]", "{": "}"}


def _compare_items(a: str, r: str) -> _Equal | None:
    """Tuples, intervals and sets of literals: brackets, length, then values, sets in any order."""
    left, right = _bracketed(a), _bracketed(r)
    if left is None or right is None:
        return None
    (open_a, close_a, items_a), (open_r, close_r, items_r) = left, right
    if (open_a, close_a) != (open_r, close_r) and "{" not in (open_a, open_r):
        return _Equal(Reason.BRACKET_DIFFERS)
    if (open_a == "{") != (open_r == "{"):
        return _Equal(Reason.TYPE_MISMATCH)
    values_a, values_r = _values(items_a), _values(items_r)
    if values_a is None or values_r is None:
        return None
    if len(values_a) != len(values_r):
        return _Equal(Reason.LENGTH_DIFFERS)
    if open_a == "{":
        values_a, values_r = sorted(values_a), sorted(values_r)
    return _Equal(None if values_a == values_r else Reason.VALUE_DIFFERS)


def _bracketed(text: str) -> tuple[str, str, list[str]] | None:
    """Return the outer brackets of one tuple, interval or set, and its items."""
    text = text.replace("\\{", "{").replace("\\}", "}") if text.startswith("\\{") else text
    if len(text) < 3 or text[0] not in BRACKETS or text[-1] not in ")]}":
        return None
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and index < len(text) - 1:
            return None
    items = split_items("(" + text[1:-1] + ")")
    return None if depth or items is None or len(items) < 2 else (text[0], text[-1], items)


def _values(items: list[str]) -> list[tuple[Fraction, Fraction]] | None:
    literals: list[Literal] = []
    for item in items:
        literal = read_literal(item)
        if literal is None:
            return None
        literals.append(literal)
    return [(literal.value, literal.imaginary) for literal in literals]


def _ask_math_verify(answer: str, wanted: str, precision: Fraction | None) -> Finding:
    payload = {
        "answer": notation.to_latex(answer),
        "reference": notation.to_latex(wanted),
        "precision": None if precision is None else f"{precision.numerator}/{precision.denominator}",
    }
    match default_pool().call("math_verify", payload):
        case Done(value=value):
            forms = (value["answer_form"], value["reference_form"])
            if not value["has_reference"]:
                return Finding(Reason.UNPARSED_REFERENCE, "math_verify", *forms)
            if not value["has_answer"]:
                return Finding(Reason.UNPARSED_ANSWER, "math_verify", *forms)
            return Finding(None if value["is_equal"] else Reason.VALUE_DIFFERS, "math_verify", *forms)
        case TimedOut():
            return Finding(Reason.TIMEOUT, "math_verify")
        case TooBig():
            return Finding(Reason.TOO_BIG, "math_verify")
        case Died(detail=detail):
            logger.warning("unjudged: %s", detail)
            return Finding(Reason.WORKER_DIED, "math_verify")
