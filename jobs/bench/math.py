"""`factory bench math`: how often and how fast final answers are judged right, beside math-verify called both ways.

Cases are JSON Lines of ``gold``, ``prediction`` (or ``prediction_parts``: texts with how often each is repeated),
``expected`` and ``category``, or of ``reference``, ``completion``, ``is_correct`` and ``origin``; ``hostile`` and
``disputed`` are flags, and disputed cases are not scored. Typical cases are made up (``typical``). Graders take turns,
some cases each. A time is the median of the rounds, so that a reference is known from the round before, as it is in a
run after a problem's first attempt. math-verify bounds itself by SIGALRM, so all run on the main thread, as it asks
for.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from factory.measured import Errors, count_errors
from factory.rows import listed
from jobs.bench.typical import typical_samples
from schemas.errors import ConfigError
from schemas.verdict import MathDetail
from verifiers.math import judge_answer

OURS: Final = "factory"
RIVALS: Final = ("math-verify",)
TURN_CASES: Final = 20  # that a grader judges before the next has its turn: another one's work leaves the caches cold
WARM_UP: Final = ("\\boxed{6x}", "\\sum_{k=1}^3 kx")  # reaches the last rung: its processes are up before all timing

Grader = Callable[[str, str], bool | None]  # of a completion and a reference; None: neither right nor wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A completion with its reference and what is true of it."""

    name: str
    completion: str
    reference: str
    expected: bool | None
    category: str
    is_hostile: bool = False
    is_typical: bool = False

    @property
    def group(self) -> str:
        """What its time is counted with."""
        return "hostile" if self.is_hostile else "typical" if self.is_typical else "plain"


@dataclass(slots=True)
class Score:
    """What a grader made of the cases."""

    words: dict[str, bool | None] = field(default_factory=dict)  # case name: verdict
    raised: dict[str, str] = field(default_factory=dict)  # case name: exception
    times_s: dict[str, float] = field(default_factory=dict)  # case name: median over the rounds

    def right(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that were judged as expected."""
        return [case for case in cases if case.name in self.words and self.words[case.name] == case.expected]

    def accepted_wrongly(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that were called right and are not."""
        return [case for case in cases if self.words.get(case.name) and not case.expected]


def read_cases(path: Path) -> list[Case]:
    """Return the scored cases of a file.

    Raises:
        ConfigError: If the file cannot be read, or a line is no case; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--cases {path}: cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            case = _case(row, f"line {number}")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--cases {path}, line {number}: is no case ({type(error).__name__}: {error}); wanted is an object "
                "with gold, prediction or prediction_parts, expected and category"
            ) from error
        if not row.get("disputed"):
            cases.append(case)
    if not cases:
        raise ConfigError(f"--cases {path}: holds no case that can be scored")
    return cases


def _case(row: Mapping[str, Any], name: str) -> Case:
    if "completion" in row:
        names = {"gold": "reference", "prediction": "completion", "expected": "is_correct", "category": "origin"}
        row = {**row, **{name: row[other] for name, other in names.items()}}
    completion = row["prediction"]
    if completion is None:
        completion = "".join(text * count for text, count in row["prediction_parts"])
    if not isinstance(completion, str) or not isinstance(row["gold"], str):
        raise TypeError("gold and prediction must be texts")
    return Case(
        name=str(row.get("id", name)),
        completion=completion,
        reference=row["gold"],
        expected=row["expected"],
        category=str(row["category"]),
        is_hostile=bool(row.get("hostile")),
    )


def typical_cases(count: int) -> list[Case]:
    """Return so many made-up cases of a run's typical mix."""
    return [
        Case(
            name=f"typical {number}",
            completion=sample.completion,
            reference=sample.reference,
            expected=sample.is_right,
            category=f"typical: {sample.kind}",
            is_typical=True,
        )
        for number, sample in enumerate(typical_samples(count), 1)
    ]


def share_of_sympy(cases: Sequence[Case]) -> dict[str, float]:
    """Return for each group of cases which share of them only sympy could decide, of ours."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        detail = judge_answer(case.completion, case.reference).checks[0].detail
        assert isinstance(detail, MathDetail)
        groups[case.group].append(detail.rung == "sympy")
    return {group: sum(found) / len(found) for group, found in groups.items()}


def graders(against: str | None) -> dict[str, Grader]:
    """Return the graders by name: ours, and a rival in each way of calling it.

    Raises:
        ConfigError: If there is no such rival.
    """
    found: dict[str, Grader] = {OURS: lambda completion, reference: judge_answer(completion, reference).is_correct}
    if against is None:
        return found
    if against not in RIVALS:
        raise ConfigError(f"--against {against}: is not known; there is: {listed(RIVALS)}")
    return found | _math_verify()


def _math_verify() -> dict[str, Grader]:
    from math_verify import parse, verify
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it tells each timeout, with the text
    box_first = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def as_documented(completion: str, reference: str) -> bool:
        return bool(verify(parse(reference), parse(completion)))

    def boxed(completion: str, reference: str) -> bool:
        gold = parse(f"\\boxed{{{reference}}}", box_first)
        return bool(verify(gold, parse(completion, box_first)))

    return {"math-verify, as in its README": as_documented, "math-verify, box first": boxed}


def run(
    cases: Sequence[Case], found: Mapping[str, Grader], rounds: int, done: Callable[[int], None]
) -> dict[str, Score]:
    """Return the scores of graders that take turns; ``done`` is told how many cases are behind."""
    names = list(found)
    scores = {name: Score() for name in names}
    for grade in found.values():
        grade(*WARM_UP)
    for first in range(0, len(cases), TURN_CASES):
        part = cases[first : first + TURN_CASES]
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for turn in range(rounds):
            shift = (first // TURN_CASES + turn) % len(names)
            for name in names[shift:] + names[:shift]:
                for case in part:
                    start = time.perf_counter()
                    try:
                        scores[name].words[case.name] = found[name](case.completion, case.reference)
                    except Exception as error:  # noqa: BLE001  that a grader raises is what is counted here
                        scores[name].raised[case.name] = f"{type(error).__name__}: {error}"[:200]
                    times[name, case.name].append(time.perf_counter() - start)
        for name in names:
            scores[name].times_s |= {case.name: statistics.median(times[name, case.name]) for case in part}
        done(first + len(part))
    return scores


def summary(cases: Sequence[Case], scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Return the figures of each grader: counts over all cases, and times of the plain and of the hostile ones."""
    return {name: _figures(cases, score) for name, score in scores.items()}


def _figures(cases: Sequence[Case], score: Score) -> dict[str, Any]:
    groups: dict[str, list[Case]] = {"plain": [], "hostile": [], "typical": []}
    for case in cases:
        groups[case.group].append(case)
    right = score.right(cases)
    accepted = score.accepted_wrongly(cases)
    names = {case.name for case in right} | {case.name for case in accepted} | set(score.raised)
    return {
        "cases": len(cases),
        "right": len(right),
        "accuracy": len(right) / len(cases),
        **{f"accuracy, {name}": len(score.right(group)) / len(group) for name, group in groups.items() if group},
        "false accepts": len(accepted),
        "false rejects": len([case for case in cases if case.name not in names and case.expected]),
        "exceptions": len(score.raised),
        **{
            name: figure
            for kind, group in groups.items()
            for name, figure in _times(kind, [score.times_s[case.name] for case in group]).items()
        },
    }


def speed_ratios(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how many times as many verdicts per second ours gives as each rival, by group of cases."""
    return {
        rival: {
            name.removeprefix("verdicts/s, "): figures[OURS][name] / theirs[name]
            for name in theirs
            if name.startswith("verdicts/s")
        }
        for rival, theirs in figures.items()
        if rival != OURS
    }


def _times(kind: str, times_s: Sequence[float]) -> dict[str, float | None]:
    """Return milliseconds at p50, p95 and the maximum, and verdicts per second of one process."""
    ordered = sorted(times_s)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    figures: dict[str, float | None] = {
        f"{name} ms, {kind}": 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for name, share in at.items()
    }
    return figures | {f"verdicts/s, {kind}": len(ordered) / sum(ordered)}


def errors(cases: Sequence[Case], score: Score) -> Errors:
    """Return the sums for a record. A case without a verdict was not accepted: so it would be in a run."""
    return count_errors((case.category, case.expected is True, bool(score.words.get(case.name))) for case in cases)


def by_category(cases: Sequence[Case], scores: Mapping[str, Score]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return for each category how many each grader judged right, of how many."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.category].append(case)
    return {
        category: {name: (len(score.right(group)), len(group)) for name, score in scores.items()}
        for category, group in sorted(groups.items())
    }


def mistakes(cases: Sequence[Case], score: Score) -> list[dict[str, Any]]:
    """Return the cases that a grader judged otherwise than expected, with its word or its exception."""
    right = {case.name for case in score.right(cases)}
    return [
        {
            "case": case.name,
            "category": case.category,
            "reference": case.reference,
            "completion": case.completion[:200],
            "expected": case.expected,
            "word": score.raised.get(case.name, score.words.get(case.name)),
        }
        for case in cases
        if case.name not in right
    ]
