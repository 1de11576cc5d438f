"""What the readability checks found in a run: counts and values by reason, samples with their evidence, statistics.

Reads a selection's candidates, for the report and for calibrating thresholds. One pass; texts are read only for the few
samples that are shown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from factory.plots import Bin, bins_plot
from factory.samples import Samples
from schemas.readability import DEFAULTS, Thresholds
from schemas.verdict import READABILITY_REASONS, Outcome

NUM_SAMPLES: Final = 10  # of each reason
EVIDENCE_CHARS: Final = 160
STATISTICS: Final = "statistics"
COLUMNS: Final = ["trace_id", "problem_id", "outcome", "reason", "is_correct", "checks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Where one trace has a defect; ``row`` is its place among the samples."""

    row: int
    trace_id: str
    start: int | None
    end: int | None
    value: float | None
    threshold: float | None


@dataclass(slots=True, kw_only=True)
class Found:
    """What was found of one reason."""

    num_deciding: int = 0  # traces whose verdict has this reason
    num_rejecting: int = 0  # checks that reject for it, deciding or not
    num_flags: int = 0
    values: list[float] = field(default_factory=list)  # of checks that state one
    thresholds: Counter[float] = field(default_factory=Counter)
    samples: list[Evidence] = field(default_factory=list)  # the first ones of different problems, then others
    spare: list[Evidence] = field(default_factory=list)  # further ones of the same problems
    problems: set[str] = field(default_factory=set)  # of ``samples``


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the readability checks found in all candidates."""

    num_judged: int
    reasons: Mapping[str, Found]
    statistics: Mapping[str, Sequence[float]]  # by name, of every judged trace
    statistics_of_correct: Mapping[str, Sequence[float]]  # of those whose answer is right, else of those that ended
    num_problems: int
    num_all_unreadable: int  # problems of which every attempt is unreadable: not hard, the teacher's form is at fault


def read_readings(samples: Samples) -> Readings:
    """Return what was found; memory grows with attempts by some numbers each."""
    reasons = {str(reason): Found() for reason in sorted(READABILITY_REASONS)}
    statistics: dict[str, list[float]] = {}
    correct: dict[str, list[float]] = {}
    problems: dict[str, bool] = {}
    num_judged = 0
    for number, row in _rows(samples):
        if row["outcome"] is None:
            continue
        num_judged += 1
        is_unreadable = row["outcome"] == Outcome.UNREADABLE
        problems[row["problem_id"]] = problems.get(row["problem_id"], True) and is_unreadable
        for check in row["checks"]:
            if check["name"] == STATISTICS and check["text"] is not None:
                for name, value in check["text"].items():
                    statistics.setdefault(name, []).append(value)
                    if row["is_correct"]:
                        correct.setdefault(name, []).append(value)
            elif check["reason"] in reasons:
                _count(reasons[check["reason"]], check, number, row)
    for found in reasons.values():
        found.samples += found.spare[: NUM_SAMPLES - len(found.samples)]
    return Readings(
        num_judged=num_judged,
        reasons={name: found for name, found in reasons.items() if found.num_rejecting or found.num_flags},
        statistics=statistics,
        statistics_of_correct=correct or statistics,
        num_problems=len(problems),
        num_all_unreadable=sum(problems.values()),
    )


def _rows(samples: Samples) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for table in samples.batches(COLUMNS):
        for row in table.to_pylist():
            yield number, row
            number += 1


def _count(found: Found, check: Mapping[str, Any], number: int, row: Mapping[str, Any]) -> None:
    is_rejecting = check["outcome"] == Outcome.UNREADABLE
    found.num_rejecting += is_rejecting
    found.num_flags += not is_rejecting
    is_deciding = is_rejecting and row["reason"] == check["reason"]
    found.num_deciding += is_deciding
    if check["value"] is not None:
        found.values.append(check["value"])
        if check["threshold"] is not None:
            found.thresholds[check["threshold"]] += 1
    if is_deciding and len(found.samples) < NUM_SAMPLES:
        # Rows lie together by problem: ten attempts at the same one would show one defect ten times.
        is_new = row["problem_id"] not in found.problems
        found.problems.add(row["problem_id"])
        (found.samples if is_new else found.spare).append(
            Evidence(
                row=number,
                trace_id=row["trace_id"],
                start=check["start"],
                end=check["end"],
                value=check["value"],
                threshold=check["threshold"],
            )
        )


def evidence_text(text: str, found: Evidence) -> str:
    """Return the piece of a trace that shows the defect, cut in the middle where it is long."""
    if found.start is None:
        return ""
    piece = text[found.start : found.end]
    if len(piece) > EVIDENCE_CHARS:
        piece = f"{piece[: EVIDENCE_CHARS // 2]} [...] {piece[-EVIDENCE_CHARS // 2 :]}"
    return piece or f"{text[max(0, found.start - EVIDENCE_CHARS // 2) : found.start]} <here>"


# --- histograms -------------------------------------------------------------------------------------------------------
EDGES: Final[Mapping[str, tuple[float, ...]]] = {
    "longest_paragraph": (0, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 8_000, 15_000),
    "tail_compression": (0, 0.05, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6),
    "think_consistency": (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1),
}
BOUNDS: Final[Mapping[str, str]] = {  # the threshold that each is held against
    "longest_paragraph": "max_paragraph_chars",
    "tail_compression": "min_tail_ratio",
    "think_consistency": "min_consistency",
}


def statistic_plots(readings: Readings, limits: Thresholds = DEFAULTS) -> list[dict[str, Any]]:
    """Return the histograms of what every trace has a value of, each with its threshold."""
    plots = []
    for name, edges in EDGES.items():
        values = readings.statistics.get(name)
        if not values:
            continue
        bound = getattr(limits, BOUNDS[name])
        title = name.replace("_", " ").capitalize()
        caption = f"{title} of {len(values):,} traces; the threshold {BOUNDS[name]} is {bound:g}."
        plots.append(
            bins_plot(name.replace("_", "-"), title, caption, binned(values, edges), (title.lower(), "traces"))
        )
    return plots


def binned(values: Sequence[float], edges: Sequence[float]) -> list[Bin]:
    """Return the values by the edge that they reach."""
    counts = Counter(bisect_right(edges, value) - 1 for value in values)
    return [
        Bin(
            label=f"{low:g}" + (f" to {edges[place + 1]:g}" if place + 1 < len(edges) else " or more"),
            counts={"all": counts[place]},
        )
        for place, low in enumerate(edges)
    ]


def value_bins(found: Found) -> list[tuple[str, int]]:
    """Return the values of one reason in powers of two of their threshold, ascending."""
    bound = next(iter(found.thresholds), 0) or 1
    counts: Counter[int] = Counter()
    for value in found.values:
        power = 0
        while value > bound * 2**power and power < 12:
            power += 1
        counts[power] += 1
    return [
        (f"up to {bound:g}" if power == 0 else f"over {bound * 2 ** (power - 1):g}, up to {bound * 2**power:g}", count)
        for power, count in sorted(counts.items())
    ]
