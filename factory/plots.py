"""Histograms of the report: counts laid out in the coordinates of an SVG, which the page's template draws.

Pure functions. Every column keeps its label and its counts: the page prints them beside the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NUM_BINS: Final = 24
LEFT, RIGHT, TOP, BOTTOM = 60.0, 750.0, 12.0, 205.0  # of the plotted area, in an SVG of 760 x 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One column of a histogram."""

    label: str  # of its range
    counts: Mapping[str, int]  # by outcome, or `all`


def length_bins(lengths: Mapping[str, Counter[int]]) -> list[Bin]:
    """Return completion lengths in at most ``NUM_BINS`` bins of one round width, from 0 on."""
    longest = max((length for counts in lengths.values() for length in counts), default=0)
    width = _round_up(max(1, longest) / NUM_BINS)
    bins: list[Counter[str]] = [Counter() for _ in range(longest // width + 1)]
    for outcome, counts in lengths.items():
        for length, count in counts.items():
            bins[length // width][outcome] += count
    return [Bin(label=f"{n * width:,} to {(n + 1) * width - 1:,}", counts=counts) for n, counts in enumerate(bins)]


def rate_bins(pass_rates: Mapping[tuple[int, int], int]) -> list[Bin]:
    """Return problems by pass rate: never, always, and tenths between them; those without a judged attempt are out."""
    labels = ["0", *(f"over {n / 10:g} to {(n + 1) / 10:g}" for n in range(9)), "over 0.9, below 1", "1"]
    bins = [0] * len(labels)
    for (num_true, num_judged), count in pass_rates.items():
        if num_judged:
            is_end = num_true in (0, num_judged)
            place = (11 if num_true else 0) if is_end else -(-10 * num_true // num_judged)
            bins[place] += count
    return [Bin(label=label, counts={"all": count}) for label, count in zip(labels, bins, strict=True)]


def _round_up(value: float) -> int:
    """Return the next of 1, 2, 5, 10, 20, 50, ..."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def length_plot(lengths: Mapping[str, Counter[int]], outcomes: Sequence[str], unit: str) -> dict[str, Any]:
    """Return the histogram of completion lengths in ``unit``, stacked in the order of ``outcomes``."""
    bins = length_bins(lengths)
    pairs = _merged(lengths.values())
    num_samples = sum(count for _, count in pairs)
    caption = f"Length of a completion in {unit}, {num_samples:,} samples, stacked by outcome"
    if pairs:
        median, most, longest = _quantile(pairs, 0.5), _quantile(pairs, 0.9), pairs[-1][0]
        caption += f": median {median:,}, nine in ten up to {most:,}, longest {longest:,}."
    starts = [found.label.partition(" to ")[0] for found in bins]
    return _plot(
        "lengths", "Length of completions", caption, bins, outcomes, (unit.partition(" ")[0], "samples"), starts
    )


def rate_plot(pass_rates: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """Return the histogram of problems by pass rate."""
    bins = rate_bins(pass_rates)
    num_problems = sum(count for found in bins for count in found.counts.values())
    without = sum(pass_rates.values()) - num_problems
    caption = (
        f"Share of a problem's judged attempts whose answer is right, {num_problems:,} problems: "
        f"{bins[0].counts['all']:,} never, {bins[-1].counts['all']:,} always"
        + (f"; {without:,} problems without an attempt that could be judged are not in it." if without else ".")
    )
    starts = ["never", *(f"to {n / 10:g}" for n in range(1, 10)), "below 1", "always"]
    return _plot("pass-rates", "Pass rate of problems", caption, bins, ["all"], ("pass rate", "problems"), starts)


def _merged(lengths: Iterable[Mapping[int, int]]) -> list[tuple[int, int]]:
    merged: Counter[int] = Counter()
    for counts in lengths:
        merged.update(counts)
    return sorted(merged.items())


def _quantile(pairs: Sequence[tuple[int, int]], share: float) -> int:
    """Return the smallest value that ``share`` of all do not exceed; ``pairs`` are values with counts, ascending."""
    rest = share * sum(count for _, count in pairs)
    for value, count in pairs:
        rest -= count
        if rest <= 0:
            return value
    return pairs[-1][0]


def bins_plot(name: str, title: str, caption: str, bins: Sequence[Bin], axes: tuple[str, str]) -> dict[str, Any]:
    """Return a histogram of bins that are there already; the label of each begins with its lower edge."""
    starts = [found.label.partition(" ")[0] for found in bins]
    return _plot(name, title, caption, bins, ["all"], axes, starts)


def _plot(
    name: str,
    title: str,
    caption: str,
    bins: Sequence[Bin],
    colors: Sequence[str],
    axes: tuple[str, str],
    starts: Sequence[str],
) -> dict[str, Any]:
    """Return a histogram laid out in the page's coordinates; ``starts`` label the columns on the axis."""
    most = max((sum(found.counts.values()) for found in bins), default=0)
    step = _round_up(max(1, most) / 4)
    top = step * -(-max(1, most) // step)
    width = (RIGHT - LEFT) / max(1, len(bins))
    every = -(-len(bins) // 12)
    bars = []
    for place, found in enumerate(bins):
        floor = BOTTOM
        for color in colors:
            count = found.counts.get(color, 0)
            if not count:
                continue
            height = (BOTTOM - TOP) * count / top
            floor -= height
            of = "" if color == "all" else f" {color}"
            bars.append(
                {
                    "color": color,
                    "x": round(LEFT + place * width + 1, 2),
                    "y": round(floor, 2),
                    "width": round(width - 2, 2),
                    "height": round(height, 2),
                    "title": f"{axes[0]} {found.label}: {count:,}{of} {axes[1]}",
                }
            )
    shift = 0.5 if name == "pass-rates" else 0.0
    return {
        "id": name,
        "title": title,
        "caption": caption,
        "bars": bars,
        "x_label": axes[0],
        "y_label": axes[1],
        "x_ticks": [
            {"at": round(LEFT + (place + shift) * width, 2), "label": label}
            for place, label in enumerate(starts)
            if place % every == 0
        ],
        "y_ticks": [
            {"at": round(BOTTOM - (BOTTOM - TOP) * count / top, 2), "label": f"{count:,}"}
            for count in range(0, top + 1, step)
        ],
        "head": [axes[0], *(axes[1] if color == "all" else color for color in colors)],
        "rows": [[found.label, *(f"{found.counts.get(color, 0):,}" for color in colors)] for found in bins],
    }
