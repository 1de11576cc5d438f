"""Thresholds of readability for one teacher, from a few hundred of its traces.

A threshold belongs to a teacher: Phi-4-reasoning writes paragraphs of 2,262 characters in the median, DeepSeek-R1 none
above 1,140 (note beside ``schemas/readability.py``). Proposes bounds beyond what the teacher's right traces do, and the
language of its thinking where that is not the problems'. Reads a run's candidates, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from factory.readings import Readings, read_readings
from factory.samples import Asked, Samples
from factory.storage import AnyPath
from schemas.errors import ConfigError
from schemas.readability import Thresholds
from verifiers.identifier import identify
from verifiers.masking import masked

MIN_TRACES: Final = 100  # fewer say nothing about one trace in a hundred
MARGIN: Final = 1.25  # beyond the 99th percentile (guess)
STEP_CHARS: Final = 100  # paragraphs are proposed in steps of it
OTHER_SHARE: Final = 0.2  # of traces that think in another language than the problem's, which make it a setting (guess)
LOOKED_AT: Final = 200  # traces whose thinking is identified, each of another problem
SHOWN: Final = ("longest_paragraph", "tail_compression", "compression", "think_consistency", "response_consistency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was seen, and what is proposed."""

    num_traces: int
    quantiles: dict[str, dict[str, float]]  # by statistic: p1, p50, p95, p99, max
    thresholds: dict[str, float]  # that differ from the present ones
    think_language: str | None  # None: the problems' own


def calibrate(path: AnyPath, selection: str, limits: Thresholds) -> Calibration:
    """Return the thresholds that fit the teacher of a run.

    Raises:
        ConfigError: If the tables are not built, or hold too few judged traces.
    """
    samples = Samples(path, selection)
    readings = read_readings(samples)
    values = readings.statistics_of_correct
    num_traces = len(values.get("longest_paragraph", ()))
    if num_traces < MIN_TRACES:
        raise ConfigError(
            f"{path}: {num_traces} traces with a right answer (or none with a reference); at least {MIN_TRACES} are "
            "needed to see what one in a hundred does"
        )
    return Calibration(
        num_traces=num_traces,
        quantiles={name: _quantiles(values[name]) for name in SHOWN},
        thresholds=_proposed(readings, limits),
        think_language=_think_language(samples, readings),
    )


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    found = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (1, 50, 95, 99)}
    return {**found, "max": ordered[-1]}


def _proposed(readings: Readings, limits: Thresholds) -> dict[str, float]:
    paragraphs = _quantiles(readings.statistics_of_correct["longest_paragraph"])
    tails = _quantiles(readings.statistics_of_correct["tail_compression"])
    # Never stricter than now: that a teacher's right traces are all short says nothing against a long one.
    proposed: dict[str, float] = {
        "max_paragraph_chars": max(limits.max_paragraph_chars, _steps(MARGIN * paragraphs["p99"])),
        "flag_paragraph_chars": max(limits.flag_paragraph_chars, _steps(paragraphs["p95"])),
    }
    if tails["p1"] < limits.min_tail_ratio:  # right traces are rejected by it
        proposed["min_tail_ratio"] = round(tails["p1"] / MARGIN, 3)
    return {name: value for name, value in proposed.items() if value != getattr(limits, name)}


def _steps(chars: float) -> int:
    return max(STEP_CHARS, ceil(chars / STEP_CHARS) * STEP_CHARS)


def _think_language(samples: Samples, readings: Readings) -> str | None:
    """Return the language that many traces think in though their problem is in another."""
    if "language_mixing" not in readings.reasons:
        return None
    languages: Counter[str] = Counter()
    num_looked = 0
    seen: set[str] = set()
    for number in samples.find(Asked()):
        row = samples.row(number)
        if row["reasoning"] and row["problem_id"] not in seen:
            seen.add(row["problem_id"])
            num_looked += 1
            found = identify(" ".join(masked(row["reasoning"][:4_000]).split()))
            if found is not None and found != row["language"]:
                languages[found] += 1
        if num_looked == LOOKED_AT:
            break
    name, count = languages.most_common(1)[0] if languages else ("", 0)
    return name if count >= OTHER_SHARE * max(1, num_looked) else None


def as_yaml(found: Calibration) -> str:
    """Return what a job file takes."""
    lines: list[str] = ["verify:", "  readability:"]
    if found.think_language is not None:
        lines.append(f"    think_language: {found.think_language}")
    if found.thresholds:
        lines.append("    thresholds:")
        lines += [f"      {name}: {value:g}" for name, value in found.thresholds.items()]
    return "\n".join(lines) if len(lines) > 2 else "the present thresholds fit this teacher"


def as_body(found: Calibration) -> dict[str, Any]:
    """Return the calibration as JSON values."""
    return {
        "traces": found.num_traces,
        "quantiles": found.quantiles,
        "thresholds": found.thresholds,
        "think_language": found.think_language,
    }
