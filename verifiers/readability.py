"""Whether a trace is fit to learn from: every readability check, in the order in which they give the reason.

Last step of judging readability. A check is a function ``View -> Finding | None``; all run, each becomes a ``Check``
with its reason, value, threshold and place, and the first that rejects decides. A profile turns findings into flags.
Linear in the text; never raises on what a model wrote; says nothing about whether the answer is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from schemas.problem import Domain
from schemas.readability import DEFAULTS, Profile, Thresholds
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Check, Outcome, Reason, TextDetail, Verdict
from verifiers.echo import find_echo, find_refusal
from verifiers.garbled import find_garbled
from verifiers.languages import consistency_of, find_mixing, read_part
from verifiers.layout import (
    find_empty_think,
    find_malformed_tags,
    find_missing_answer,
    find_multiple_answers,
    find_truncation,
)
from verifiers.repetition import TAIL_CHARS, TAIL_RATIOS, find_repetition, ratio_of
from verifiers.structure import find_code_block, find_long_paragraph, paragraph_of
from verifiers.view import Finding, View, make_view

VERSION: Final = "11"
STATISTICS: Final = "statistics"

# In this order: what makes the rest unreadable first, a loop before the cut that ended it.
CHECKS: Final[tuple[tuple[str, Callable[[View], Finding | None]], ...]] = (
    ("garbled", find_garbled),
    ("echo", find_echo),
    ("repetition", find_repetition),
    ("truncation", find_truncation),
    ("tags", find_malformed_tags),
    ("think", find_empty_think),
    ("refusal", find_refusal),
    ("answer", find_missing_answer),
    ("answers", find_multiple_answers),
    ("language", find_mixing),
    ("paragraph", find_long_paragraph),
    ("code_block", find_code_block),
)
NAMES: Final = frozenset(name for name, _ in CHECKS)
FLAGS: Final[dict[Profile, frozenset[Reason]]] = {
    Profile.R1: frozenset(),
    Profile.LENIENT: frozenset({Reason.LANGUAGE_MIXING, Reason.LONG_PARAGRAPH, Reason.CODE_BLOCK_IN_MATH}),
    Profile.NONE: frozenset(Reason),
}
# By language, counted in the text in small letters; those that share their letters are looked for by these first.
REFLECTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "wait": (" wait", "\nwait"),
        "let me ": (
            *("let me check", "let me verify", "let me double", "let me recon", "let me re-", "let me think again"),
        ),
        "double": ("double-check", "double check"),
        **{alone: (alone,) for alone in ("hmm", "alternatively", "on second thought", "actually,", "hold on")},
    },
    "zh": {
        "检查": ("再检查", "重新检查", "让我检查"),
        **{alone: (alone,) for alone in ("等等", "等一下", "重新考虑", "让我验证")},
    },
    "ja": {alone: (alone,) for alone in ("待って", "もう一度", "確認し")},
    "ko": {alone: (alone,) for alone in ("잠깐", "다시 확인")},
    "ru": {alone: (alone,) for alone in ("подожди", "проверим")},
    "fr": {alone: (alone,) for alone in ("attendez", "vérifions")},
    "de": {alone: (alone,) for alone in ("moment mal", "überprüfen")},
    "es": {alone: (alone,) for alone in ("espera", "verifiquemos")},
}


def judge_trace(
    completion: str,
    *,
    problem: str = "",
    domain: Domain | str,
    language: str,
    think_language: str | None = None,
    format: TraceFormat | str | None = None,
    finish_reason: FinishReason | str | None = None,
    profile: Profile | str = Profile.R1,
    thresholds: Thresholds = DEFAULTS,
) -> Verdict:
    """Return the verdict of all readability checks; the first that rejects gives the reason.

    ``language`` is that of the response, ``think_language`` that of the thinking (None: the same). ``format`` None is
    inferred from the tags, never as prefilled. The last check, "statistics", holds a ``TextDetail``. Never raises on
    what a model wrote.

    Raises:
        ValueError: If domain, format, finish_reason or profile is not on its list.
    """
    view = make_view(
        completion,
        problem=problem,
        domain=Domain(domain),
        language=language,
        think_language=think_language,
        format=None if format is None else TraceFormat(format),
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        limits=thresholds,
    )
    flags = FLAGS[Profile(profile)]
    checks = []
    start = time.perf_counter()
    for name, rule in CHECKS:
        found = rule(view)
        end = time.perf_counter()
        ms = round((end - start) * 1_000, 2)
        checks.append(_passed(name, ms) if found is None else _found(name, found, ms, flags))
        start = end
    return Verdict(reference_hash=None, checks=(*checks, _statistics(view)))


def _found(name: str, found: Finding, ms: float, flags: frozenset[Reason]) -> Check:
    is_flag = found.is_flag or found.reason in flags
    return Check(
        name=name,
        version=VERSION,
        outcome=Outcome.READABLE if is_flag else Outcome.UNREADABLE,
        reason=found.reason,
        start=found.start,
        end=found.end,
        value=found.value,
        threshold=found.threshold,
        ms=ms,
    )


@lru_cache(maxsize=4_096)
def _passed(name: str, ms: float) -> Check:
    """Return the check that most traces pass, made once for a time in steps of 0.01 ms."""
    return Check(name=name, version=VERSION, outcome=Outcome.READABLE, ms=ms)


def _compression(view: View) -> float:
    """Return the mean over windows of 8,192 characters, as the repetition check has seen them."""
    ratios = [ratio for part in view.parts for ratio in view.read.get(f"ratios of {part.name}", ())]
    return round(sum(ratios) / len(ratios) if ratios else ratio_of(view.text[-TAIL_CHARS:]), 4)


def _count_reflections(view: View) -> int:
    """Return how often a trace says that it looks again, in its languages and in English, in which many think."""
    plain = view.text.lower()
    count = 0
    for language in {"en", view.language, view.think_language} & REFLECTIONS.keys():
        for shared, phrases in REFLECTIONS[language].items():
            if shared in plain:
                count += sum(map(plain.count, phrases))
    return count


def _tail_compression(view: View) -> float:
    """Return the lowest of the parts' last 4,000 characters; of the text's where no part is as long as is compared."""
    ratios: list[float] = view.read.get(TAIL_RATIOS, [])
    return round(min(ratios) if ratios else ratio_of(view.text[-TAIL_CHARS:]), 4)


def _statistics(view: View) -> Check:
    start = time.perf_counter()
    words = {part.name: read_part(view, part) for part in view.parts}
    boxes = view.boxes
    last = boxes[-1].outer.end if boxes else None
    first, end = paragraph_of(view)
    sizes = {part.name: len(part.text) for part in view.parts}
    detail = TextDetail(
        num_think_chars=sizes.get("think", 0),
        num_response_chars=sizes.get("response", 0),
        num_words=sum(found.num_words for found in words.values()),
        num_reflections=_count_reflections(view),
        think_consistency=consistency_of(words.get("think")),
        response_consistency=consistency_of(words.get("response")),
        compression=_compression(view),
        tail_compression=_tail_compression(view),
        longest_paragraph=end - first,
        num_boxes=len(boxes),
        num_chars_after_box=0 if last is None else len(view.text) - last,
    )
    ms = (time.perf_counter() - start) * 1_000
    return Check(name=STATISTICS, version=VERSION, outcome=Outcome.READABLE, ms=ms, detail=detail)
