"""Whether a completion's final answer is the reference: a ladder of comparers, cheapest first.

Public seam: ``judge_answer``, and ``judge_answers`` for many. The reference is read and typed once; its type picks the
rung: "string" (the same text), numbers and pairs as most are written (``plain``), "form" (a kind whose form counts),
"choice", "text", then what ``compare`` does with parsed answers, named after the reference's type; "limit" where a text
breaks a bound, and last "sympy" (math-verify) in a process that can be killed. Invariants: never raises on what a model
wrote, nothing a model wrote is evaluated, no absolute tolerance but the reference's own precision; a failure of ours
is ``unjudged``, never "wrong".
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

from schemas.problem import Answer, Choice
from schemas.verdict import Reason, Verdict
from verifiers.batch import compare_all
from verifiers.choice import compare_choice, extract_choice, judge_choice
from verifiers.compare import How, compare
from verifiers.extract import Extracted, Missing, Origin, extract_answer
from verifiers.finding import Finding, to_check
from verifiers.forms import BLOCK_KINDS, COMPARERS, BadReferenceError, compare_reals
from verifiers.limits import MAX_ANSWER_CHARS, MAX_FORM_CHARS, MAX_LETTERS_CHARS, MAX_SCORED_CHARS
from verifiers.parser import normal_form, parse
from verifiers.plain import Monomial, read_plain
from verifiers.pool import Died, Done, TimedOut, TooBig, default_pool
from verifiers.relations import UndecidedError
from verifiers.terms import NotParsedError, Term, TooBigError, TooDeepError, symbols, text_of
from verifiers.tokens import DIGIT_COMMA, TooManyTokensError, groups_commas
from verifiers.words import as_words, has_same_words, is_worded

logger = logging.getLogger(__name__)

NAME: Final = "math"
VERSION: Final = "2"

NUMBER_KIND: Final = "number"  # the answer must be written out: "2 + 3" is not an answer to "what is 2 + 3"
GRID_KIND: Final = "grid"  # rows of numbers; the one kind besides numbers that knows a precision
CHOICE_KIND: Final = "choice"
PERCENT_KIND: Final = "percent"  # here a bare p stands for p percent too
CHOICE_LETTER: Final = re.compile(
    r"[\s$]*(?:\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{\s*)?\(?([A-J])\)?(?:(?:,\s?(?:and )?| and )\(?[A-J]\)?){0,9}"
    r"[.\s]*\}?[\s$.]*"
)
OPTION: Final = re.compile(r"\(?([A-J])[.):] {1,3}(\S.*)")  # "C. x = 42": a letter with its text
UNEVALUATED: Final = re.compile(
    r"\\(?:i{1,3}nt|oint|lim|sum|prod)(?![A-Za-z])"
)  # restates the problem: sympy solves it
PROSE: Final = re.compile(r"(?<![\\A-Za-z])(?!sqrt|arc|sinh|cosh|tanh|infty|theta|alpha|beta|gamma)[A-Za-z]{4,}")
# How a reference that is one of these is called in a verdict: its type is the rung.
TYPE_NAMES: Final = {
    "number": "number",
    "decimal": "number",
    "group": "tuple",
    "set": "set",
    "builder": "set",
    "union": "set",
    "intersection": "set",
    "difference": "set",
    "member": "set",
    "items": "list",
    "relation": "relation",
    "matrix": "matrix",
    "based": "base",
    "quantity": "unit",
    "degree": "unit",
    "percent": "percent",
    "text": "text",
    "ratio": "ratio",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference's text as read once: its type, and its term where it is a formula."""

    text: str
    type: str
    term: Term | None = None
    plain: tuple[Monomial, ...] | None = None  # one number, or a pair in round brackets
    form: str | None = None
    is_for_sympy: bool = False


def judge_answer(
    completion: str, reference: str | Answer | Choice, *, kind: str | None = None, strict: bool = False
) -> Verdict:
    """Return the verdict on the final answer of a completion, with one check, "math" (or "choice" for a Choice).

    ``kind`` overrides the reference's own; ``strict`` makes no guess where no answer is marked. Never raises, whatever
    the texts hold; safe from any thread. Times are in milliseconds.
    """
    start = time.perf_counter()
    wanted = _as_answer(reference, kind)
    if isinstance(wanted, Choice):
        return judge_choice(completion, wanted, strict=strict)
    found = find_answer(completion, wanted, strict=strict)
    finding = Finding(found.reason, "extraction") if isinstance(found, Missing) else compare_texts(found.text, wanted)
    return Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start),))


def judge_answers(
    samples: Sequence[tuple[str, str | Answer | Choice]],
    *,
    kind: str | None = None,
    strict: bool = False,
    num_workers: int | None = None,
) -> list[Verdict]:
    """Return the verdicts on many (completion, reference) samples, in their order.

    The same verdicts as ``judge_answer`` gives; each pair of reference and extracted answer is compared once, and many
    of them on all usable cores, in ``num_workers`` processes. ``kind`` and ``strict`` are for all samples.
    """
    asked: list[tuple[Answer, Extracted | Missing, float] | None] = []  # None: a choice, which costs nothing
    for completion, reference in samples:
        start, wanted = time.perf_counter(), _as_answer(reference, kind)
        found = None if isinstance(wanted, Choice) else find_answer(completion, wanted, strict=strict)
        asked.append(None if found is None or isinstance(wanted, Choice) else (wanted, found, start))
    pairs = [(one[1].text, one[0]) for one in asked if one is not None and isinstance(one[1], Extracted)]
    findings = compare_all(pairs, compare_texts, num_workers)
    verdicts = []
    for (completion, reference), one in zip(samples, asked, strict=True):
        if one is None:
            verdicts.append(judge_answer(completion, reference, strict=strict))
            continue
        wanted, found, start = one
        finding = findings[found.text, wanted] if isinstance(found, Extracted) else Finding(found.reason, "extraction")
        verdicts.append(Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start),)))
    return verdicts


def _as_answer(reference: str | Answer | Choice, kind: str | None) -> Answer | Choice:
    if isinstance(reference, Choice):
        return reference
    wanted = Answer(text=reference, kind=kind) if isinstance(reference, str) else reference
    return wanted if kind is None or wanted.kind == kind else replace(wanted, kind=kind)


def find_answer(completion: str, reference: Answer, *, strict: bool = False) -> Extracted | Missing:
    """Return the answer of a completion to compare with a reference, or why there is none."""
    wanted = read_reference(reference.text, reference.kind)
    if wanted.type == CHOICE_KIND:
        return extract_choice(completion, strict=strict)
    found = extract_answer(completion, strict=strict, is_block=reference.kind in BLOCK_KINDS)
    if wanted.type == "text" and isinstance(found, Extracted) and found.origin is Origin.MARKER:
        line = extract_answer(completion, strict=strict, is_line=True)
        if isinstance(line, Extracted) and has_same_words(line.text, wanted.text):  # June 20, not the 20 of it
            return line
    return found


def compare_texts(answer: str, reference: Answer) -> Finding:
    """Return how an extracted answer compares with the reference: the ladder, without extraction."""
    return compare_exactly(answer, reference) or _ask_sympy(answer, reference)


def compare_exactly(answer: str, reference: Answer) -> Finding | None:
    """Return how they compare by all rungs but the last; None where only sympy can tell."""
    if reference.kind in COMPARERS or reference.kind == GRID_KIND:
        return _compare_forms(answer, reference)
    wanted = read_reference(reference.text, reference.kind)
    if wanted.type == "empty":
        return Finding(Reason.UNPARSED_REFERENCE, "extraction")
    if answer.strip() == wanted.text:
        return Finding(None, "string", answer[:MAX_FORM_CHARS], wanted.text[:MAX_FORM_CHARS])
    is_worked_out = reference.kind != NUMBER_KIND or "\\sqrt" not in answer
    if wanted.plain is not None and reference.precision is None and is_worked_out:
        plain = read_plain(answer)
        if plain is not None and len(plain) == len(wanted.plain):
            reason = None if plain == wanted.plain else Reason.VALUE_DIFFERS
            return Finding(reason, wanted.type, answer[:MAX_FORM_CHARS], wanted.form)
    if len(answer) > MAX_ANSWER_CHARS:
        return Finding(Reason.TOO_LONG, "limit")
    if len(wanted.text) > MAX_ANSWER_CHARS:
        return Finding(Reason.UNPARSED_REFERENCE, "limit")
    if wanted.type == CHOICE_KIND:
        return _compare_letters(answer, wanted)
    try:
        return _climb(answer, wanted, reference)
    except RecursionError:  # depths are bounded: the caller's own stack was nearly full
        logger.warning("unjudged: no room on the stack for an answer of %d characters", len(answer))
        return Finding(Reason.WORKER_DIED, "limit")


@lru_cache(maxsize=4_096)
def read_reference(text: str, kind: str | None = None) -> Reference:
    """Return a reference as read: its box, or the last formula of a sentence, else all of it; typed, parsed."""
    stated = text.strip()
    if "\\boxed" in text or "\\fbox" in text or "$" in text:
        found = extract_answer(text, strict=True)
        if isinstance(found, Extracted):
            stated = found.text
    if not stated:
        return Reference("", "empty")
    if kind == CHOICE_KIND or (kind is None and len(stated) <= MAX_LETTERS_CHARS and CHOICE_LETTER.fullmatch(stated)):
        return Reference(stated, CHOICE_KIND)
    if kind is None and (option := OPTION.fullmatch(stated)):
        return Reference(option[1], CHOICE_KIND, form=option[2])
    if (plain := read_plain(stated)) is not None:
        return Reference(stated, _plain_type(stated, plain), None, plain, stated[:MAX_FORM_CHARS])
    if kind == "text" or is_worded(stated):
        words = as_words(stated)
        return Reference(stated, "text", Term("text", (), words), form=words[:MAX_FORM_CHARS])
    try:
        term = parse(stated)
    except NotParsedError as error:
        is_text = not error.is_for_sympy and PROSE.search(stated) is not None
        return Reference(stated, "text" if is_text else "unparsed", is_for_sympy=error.is_for_sympy)
    except (TooDeepError, TooBigError, TooManyTokensError, RecursionError):
        return Reference(stated, "limit")
    form = text_of(term)[:MAX_FORM_CHARS]
    return Reference(stated, TYPE_NAMES.get(term.op, "expression"), term, form=form)


def _plain_type(text: str, plain: tuple[Monomial, ...]) -> str:
    if len(plain) > 1:
        return "tuple"
    if plain[0].radicand > 1 or plain[0].num_pi:
        return "expression"
    return "integer" if plain[0].coefficient.q == 1 and "." not in text else "number"


@lru_cache(maxsize=4_096)
def term_of(text: str) -> Term:
    """Return the term of a reference that ``read_plain`` knows: needed where the answer is written another way."""
    return parse(text)


def _compare_forms(answer: str, reference: Answer) -> Finding:
    """Compare by a kind whose form counts."""
    wanted = reference.text.strip()
    max_chars = MAX_SCORED_CHARS if reference.kind in BLOCK_KINDS else MAX_ANSWER_CHARS
    if not wanted or len(wanted) > max_chars:
        return Finding(Reason.UNPARSED_REFERENCE, "limit" if wanted else "extraction")
    if len(answer) > max_chars:
        return Finding(Reason.TOO_LONG, "limit")
    forms = (answer[:MAX_FORM_CHARS], wanted[:MAX_FORM_CHARS])
    try:
        if reference.kind in COMPARERS:
            return Finding(COMPARERS[reference.kind](answer, wanted), "form", *forms)
        return Finding(compare_reals(answer, wanted, _tolerance(reference) or Fraction(0)), "form", *forms)
    except BadReferenceError:
        return Finding(Reason.UNPARSED_REFERENCE, "form", reference_form=forms[1])
    except (TooBigError, TooDeepError, TooManyTokensError):
        return Finding(Reason.TOO_BIG, "form")


def _tolerance(reference: Answer) -> Fraction | None:
    return None if reference.precision is None else Fraction(repr(float(reference.precision)))


def _compare_letters(answer: str, wanted: Reference) -> Finding:
    stated = OPTION.fullmatch(answer.strip())
    if wanted.form is not None and stated is not None and _is_other_number(stated[2], wanted.form):
        return Finding(Reason.VALUE_DIFFERS, CHOICE_KIND, answer[:MAX_FORM_CHARS], wanted.form[:MAX_FORM_CHARS])
    if wanted.form is not None and normal_form(answer) == normal_form(wanted.form):
        return Finding(None, "choice", answer[:MAX_FORM_CHARS], wanted.form[:MAX_FORM_CHARS])
    return compare_choice(answer, wanted.text)


def _is_other_number(left: str, right: str) -> bool:
    """Return whether two texts of an option both hold numbers, and not the same."""
    first, second = (re.findall(r"\d+", text) for text in (left, right))
    return bool(first and second and first != second)


def _climb(answer: str, wanted: Reference, reference: Answer) -> Finding | None:
    """Parse the answer and compare it by the reference's type."""
    words = as_words(answer)
    if (wanted.type == "text" and has_same_words(answer, wanted.text)) or (
        is_worded(answer) and words == as_words(wanted.text) != ""
    ):
        return Finding(None, "text", words[:MAX_FORM_CHARS], wanted.form)
    if wanted.type == "limit":
        return Finding(Reason.UNPARSED_REFERENCE, "limit")
    try:
        term = Term("text", (), words) if is_worded(answer) else parse(answer)
    except NotParsedError as error:
        if wanted.type == "text":
            return Finding(Reason.VALUE_DIFFERS, "text", words[:MAX_FORM_CHARS], wanted.form)
        if PROSE.search(answer) or not (error.is_for_sympy or wanted.type == "unparsed"):
            return Finding(Reason.UNPARSED_ANSWER, wanted.type, None, wanted.form)
        return None
    except (TooDeepError, RecursionError):
        return Finding(Reason.TOO_DEEP, "limit", None, wanted.form)
    except TooBigError:
        return Finding(Reason.TOO_BIG, "limit", None, wanted.form)
    except TooManyTokensError:
        return Finding(Reason.TOO_LONG, "limit", None, wanted.form)
    form = text_of(term)[:MAX_FORM_CHARS]
    wanted_term = wanted.term if wanted.plain is None else term_of(wanted.text)
    if wanted_term is None:
        if wanted.type == "text" or term.op == "text":
            return Finding(Reason.VALUE_DIFFERS, "text", form, wanted.form)
        return None
    if reference.kind == NUMBER_KIND and not is_written_out(term):
        return Finding(Reason.TYPE_MISMATCH, NUMBER_KIND, form, wanted.form)
    how = How(_tolerance(reference), reference.kind == PERCENT_KIND)
    try:
        reason = compare(term, wanted_term, how)
        if reason is not None and "," in answer and term.op in ("number", "group", "items", "set"):
            reason = _other_reading(answer, wanted_term, how, reason)
        if reason is not None and term.op == "items" and DIGIT_COMMA.search(wanted.text):
            reason = _as_list(term, wanted.text, how, reason)
    except UndecidedError:
        return None
    return Finding(reason, wanted.type, form, wanted.form)


def _other_reading(answer: str, wanted: Term, how: How, reason: Reason) -> Reason | None:
    """Return how the answer compares with its commas read the other way: 1,234 as two items, beside a list."""
    is_grouped = groups_commas(answer)
    if not is_grouped or wanted.op not in ("items", "set", "group"):
        return reason
    try:
        return None if compare(parse(answer, group_commas=False), wanted, how) is None else reason
    except (NotParsedError, TooDeepError, TooBigError, TooManyTokensError, UndecidedError):
        return reason


def _as_list(answer: Term, wanted: str, how: How, reason: Reason) -> Reason | None:
    """Return how a list compares with a reference such as 70,110, which may be one number or two."""
    try:
        return None if compare(answer, parse(wanted, group_commas=False), how) is None else reason
    except (NotParsedError, TooDeepError, TooBigError, TooManyTokensError, UndecidedError):
        return reason


def is_written_out(term: Term) -> bool:
    """Return whether a term is a number written out: digits, a fraction of them, a percentage, a power of ten."""
    match term.op:
        case "number" | "decimal" | "based":
            return True
        case "neg" | "percent":
            return is_written_out(term.args[0])
        case "div":
            return all(arg.op in ("number", "decimal") for arg in term.args)
        case "mul":
            is_scientific = term.args[-1].op == "pow" and term.args[-1].args[0] == Term("number", (), Fraction(10))
            return len(term.args) == 2 and is_scientific and is_written_out(term.args[0])
        case "quantity" | "degree":
            return is_written_out(term.args[0])
        case "add":
            first, second = term.args[0], term.args[-1]
            is_mixed = first.op == "number" and second.op == "div" and is_written_out(second)
            return len(term.args) == 2 and (is_mixed or (is_written_out(first) and _is_imaginary(second)))
        case "relation":
            return len(term.args) == 2 and not symbols(term.args[1]) and is_written_out(term.args[1])
        case _:
            return _is_imaginary(term)


def _is_imaginary(term: Term) -> bool:
    """Return whether a term is i with a number before it, or alone."""
    if term.op == "neg":
        return _is_imaginary(term.args[0])
    factors = term.args if term.op == "mul" else (term,)
    return factors[-1] == Term("constant", (), "i") and all(map(is_written_out, factors[:-1]))


def _ask_sympy(answer: str, reference: Answer) -> Finding:
    wanted = read_reference(reference.text, reference.kind)
    if UNEVALUATED.search(answer) and not UNEVALUATED.search(wanted.text):
        return Finding(Reason.TYPE_MISMATCH, wanted.type, None, wanted.form)
    tolerance = _tolerance(reference)
    payload = {
        "answer": answer,
        "reference": wanted.text,
        "precision": None if tolerance is None else f"{tolerance.numerator}/{tolerance.denominator}",
    }
    match default_pool().call("math_verify", payload):
        case Done(value=value):
            forms = (value["answer_form"], value["reference_form"])
            if not value["has_reference"]:
                return Finding(Reason.UNPARSED_REFERENCE, "sympy", *forms)
            if not value["has_answer"]:
                return Finding(Reason.UNPARSED_ANSWER, "sympy", *forms)
            return Finding(None if value["is_equal"] else Reason.VALUE_DIFFERS, "sympy", *forms)
        case TimedOut():
            return Finding(Reason.TIMEOUT, "sympy")
        case TooBig():
            return Finding(Reason.TOO_BIG, "sympy")
        case Died(detail=detail):
            logger.warning("unjudged: %s", detail)
            return Finding(Reason.WORKER_DIED, "sympy")
