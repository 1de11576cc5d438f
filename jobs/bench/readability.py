"""`factory bench readability`: how often traces are rightly accepted and rejected, for the right reason, and the cost.

Cases are JSON Lines of ``trace``, ``problem``, ``domain``, ``style`` (the format), ``target_language`` and ``expected``
(accept, or one of the 13 reasons); ``think_language`` and ``finish_reason`` where known. Rows of another kind, with a
``completion`` and no ``expected``, are real traces without a verdict: whatever is rejected of them is listed with its
evidence, for a reader to decide. The cost is measured on the cases and on texts put together from them, by length.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from factory.measured import Errors, count_errors
from schemas.errors import ConfigError
from schemas.verdict import Outcome, Verdict
from verifiers.identifier import forget_sentences, identify
from verifiers.readability import judge_trace

ACCEPT: Final = "accept"
SIZES_KB: Final = (2, 8, 32, 128)  # of the texts whose cost is measured
TEXTS_OF_SIZE: Final = 8
SEED: Final = 1
EVIDENCE_CHARS: Final = 100
DOMAIN: Final = "math"  # of the cases that texts are put together from, and of the texts
TAG: Final = re.compile("</?(?:think|answer)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trace, and what a reader says of it; None where nobody has."""

    name: str
    trace: str
    problem: str
    domain: str
    language: str
    format: str | None
    expected: str | None
    think_language: str | None = None
    finish_reason: str | None = None


def read_cases(path: Path, max_cases: int | None = None) -> list[Case]:
    """Return the cases of a file.

    Raises:
        ConfigError: If it cannot be read, or a line is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--cases {path}: cannot be read: {error}") from error
    cases = [_case(path, number, line) for number, line in enumerate(lines, 1) if line.strip()][:max_cases]
    if not cases:
        raise ConfigError(f"--cases {path}: no case in it")
    times = Counter(case.name for case in cases)  # a file of several authors has some ids twice
    return [
        case if times[case.name] == 1 else replace(case, name=f"{case.name}, case {number}")
        for number, case in enumerate(cases, 1)
    ]


def _case(path: Path, number: int, line: str) -> Case:
    try:
        row = json.loads(line)
        return Case(
            name=str(row.get("id", number)),
            trace=row["trace"] if "trace" in row else row["completion"],
            problem=row.get("problem", ""),
            domain=row.get("domain", "math"),
            language=row.get("target_language", "en"),
            format=row.get("style", "plain" if "trace" not in row else None),
            expected=row.get("expected"),
            think_language=row.get("think_language"),
            finish_reason=row.get("finish_reason"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--cases {path}, line {number}: {error!r}; a case is a JSON object with trace, problem, domain, style, "
            "target_language and expected, or with completion"
        ) from error


def judge(case: Case) -> Verdict:
    """Return the verdict on a case."""
    return judge_trace(
        case.trace,
        problem=case.problem,
        domain=case.domain,
        language=case.language,
        think_language=case.think_language,
        format=case.format,
        finish_reason=case.finish_reason,
    )


def run(cases: Sequence[Case], done: Callable[[int], None]) -> dict[str, Verdict]:
    """Return the verdicts by name."""
    verdicts = {}
    for number, case in enumerate(cases, 1):
        verdicts[case.name] = judge(case)
        done(number)
    return verdicts


def word(verdict: Verdict) -> str:
    """Return what a verdict says in the words of the cases."""
    return ACCEPT if verdict.reason is None else str(verdict.reason)


def summary(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """Return the figures: decisions and reasons right, good traces rejected, bad ones accepted; counts by reason."""
    known = [case for case in cases if case.expected is not None]
    said = {case.name: word(verdicts[case.name]) for case in cases}
    good = [case for case in known if case.expected == ACCEPT]
    bad = [case for case in known if case.expected != ACCEPT]
    right = sum((said[case.name] == ACCEPT) == (case.expected == ACCEPT) for case in known)
    return {
        "cases": len(cases),
        "with a reader's word": len(known),
        "decision right": right / len(known) if known else None,
        "reason right": sum(said[case.name] == case.expected for case in known) / len(known) if known else None,
        "good rejected": sum(said[case.name] != ACCEPT for case in good),
        "good": len(good),
        "bad accepted": sum(said[case.name] == ACCEPT for case in bad),
        "bad": len(bad),
        "rejected": dict(Counter(reason for reason in said.values() if reason != ACCEPT).most_common()),
    }


def errors(cases: Sequence[Case], verdicts: Mapping[str, Verdict]) -> Errors:
    """Return the sums for a record, over the cases that a reader judged."""
    known = [(case.expected, word(verdicts[case.name])) for case in cases if case.expected is not None]
    return count_errors(
        (
            f"good, called {said}" if expected == ACCEPT else f"{expected}, overlooked",
            expected == ACCEPT,
            said == ACCEPT,
        )
        for expected, said in known
    )


def by_reason(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> list[dict[str, Any]]:
    """Return per expected word how many decisions and reasons are right."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        if case.expected is not None:
            said = word(verdicts[case.name])
            rows[case.expected]["cases"] += 1
            rows[case.expected]["decision"] += (said == ACCEPT) == (case.expected == ACCEPT)
            rows[case.expected]["reason"] += said == case.expected
    return [{"expected": name, **counts} for name, counts in sorted(rows.items())]


def to_look_at(cases: Sequence[Case], verdicts: dict[str, Verdict]) -> list[dict[str, Any]]:
    """Return the cases that came out otherwise than a reader says, and all rejected ones of which nobody has said."""
    found = []
    for case in cases:
        said = word(verdicts[case.name])
        if said == (ACCEPT if case.expected is None else case.expected):
            continue
        check = next((c for c in verdicts[case.name].checks if c.outcome is Outcome.UNREADABLE), None)
        start = 0 if check is None or check.start is None else check.start
        found.append(
            {
                "case": case.name,
                "expected": case.expected,
                "said": said,
                "value": None if check is None else check.value,
                "threshold": None if check is None else check.threshold,
                "evidence": " ".join(case.trace[start : start + EVIDENCE_CHARS].split()),
            }
        )
    return found


def costs(cases: Sequence[Case], verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return microseconds per KB (1,024 bytes of UTF-8) by language and length.

    Measured in CPU time, over texts put together from different accepted cases of a language and a domain; the
    identifier has not seen their sentences. Beside it the time that zlib takes for the same text at level 1: a
    yardstick for the machine (6 us per KB on the one where the target of 150 was set). Lengths for which the cases do
    not suffice are left out.
    """
    identify("The model of the language identifier is loaded before any time is taken.")
    good = [
        case
        for case in cases
        if word(verdicts[case.name]) == ACCEPT
        and case.domain == DOMAIN
        and case.think_language in (None, case.language)
    ]
    rows = []
    for language in sorted({case.language for case in good}, key=lambda language: (language != "en", language)):
        for size in SIZES_KB:
            texts = _joined([case for case in good if case.language == language], size * 1_024)[:TEXTS_OF_SIZE]
            if texts:
                measured = [_measured(text, language) for text in texts]
                rows.append(
                    {
                        "language": language,
                        "KB": size,
                        "texts": len(texts),
                        "us per KB, median": statistics.median(one for one, _ in measured),
                        "us per KB, slowest": max(one for one, _ in measured),
                        "zlib level 1": statistics.median(yardstick for _, yardstick in measured),
                    }
                )
    return rows


def _measured(text: str, language: str) -> tuple[float, float]:
    """Return microseconds per KB of the checks and of zlib, each the faster of two."""
    data = text.encode()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2):
        forget_sentences()
        start = time.thread_time()
        judge_trace(text, problem="What is it?", domain=DOMAIN, language=language, format="r1")
        middle = time.thread_time()
        zlib.compress(data, 1)
        times[0].append(middle - start)
        times[1].append(time.thread_time() - middle)
    return min(times[0]) * 1e6 * 1_024 / len(data), min(times[1]) * 1e6 * 1_024 / len(data)


def _joined(cases: Sequence[Case], size: int) -> list[str]:
    """Return traces of about so many bytes, each of different cases in a shuffled order: none is a loop."""
    texts: list[str] = []
    thoughts: list[bytes] = []
    for case in random.Random(SEED).sample(list(cases), len(cases)):
        thoughts.append(TAG.sub("", case.trace).encode())
        if sum(map(len, thoughts)) >= size:
            thought = b"\n\n".join(thoughts)[:size].decode(errors="ignore")
            texts.append(f"<think>\n{thought}\n</think>\n\n$\\boxed{{5}}$")
            thoughts = []
    return texts
