"""Histograms as PNG images: pass rates and lengths of completions, of all domains and of each.

For the dataset's card, which prints the numbers beside them. Invariant: the same numbers give the same bytes, whatever
matplotlib is configured to, and whatever fonts the machine has; nothing is written of date, program or machine.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from factory.plots import Bin, length_bins, rate_bins
from factory.tally import Tally

ALL: Final = "all domains"
ACCEPTED, REJECTED, PROBLEMS = "accepted", "not accepted", "problems"
COLORS: Final = {ACCEPTED: "#2f7d4f", REJECTED: "#c8c4bc", PROBLEMS: "#3b6ea5"}
COLUMNS: Final = 3  # of panels beside each other
PANEL_INCHES: Final = (4.2, 2.8)
DPI: Final = 100
MAX_TICKS: Final = 6  # labelled bins of a panel
RATE_TICKS: Final = {0: "never", 2: "to 0.2", 4: "to 0.4", 6: "to 0.6", 8: "to 0.8", 11: "always"}  # of `rate_bins`


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts by bin: of all first where there are several domains, then of each. Every panel has the same bins."""

    name: str  # of the file, without its ending
    axis: str  # what the bins are of
    panels: Mapping[str, Sequence[Bin]]  # by domain; counts of a bin by ACCEPTED and REJECTED, or PROBLEMS
    ticks: Mapping[int, str]  # labels below some of the bins, by their places

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(count for bins in self.panels.values() for found in bins for count in found.counts.values())


def rate_histogram(found: Tally) -> Histogram:
    """Return problems by pass rate; those without an attempt that could be judged are left out."""
    panels: dict[str, Counter[tuple[int, int]]] = {}
    for rate, count in found.rates.items():
        for name in _panels(found, rate.domain):
            panels.setdefault(name, Counter())[rate.num_true, rate.num_judged] += count
    drawn = {
        name: [Bin(label=one.label, counts={PROBLEMS: one.counts["all"]}) for one in rate_bins(panels[name])]
        for name in _in_order(found, panels)
    }
    return Histogram(name="pass-rates", axis="pass rate of a problem", panels=drawn, ticks=RATE_TICKS)


def length_histogram(found: Tally, unit: str) -> Histogram:
    """Return completions by length; the bins are those of all domains together."""
    panels: dict[str, dict[str, Counter[int]]] = {}
    for length, count in found.lengths.items():
        for name in _panels(found, length.domain):
            standing = ACCEPTED if length.is_accepted else REJECTED
            panels.setdefault(name, {ACCEPTED: Counter(), REJECTED: Counter()})[standing][length.num_tokens] += count
    longest = max((length.num_tokens for length in found.lengths), default=0)
    drawn = {name: _to_longest(panels[name], longest) for name in _in_order(found, panels)}
    bins = next(iter(drawn.values()), [])
    every = max(1, -(-len(bins) // MAX_TICKS))
    starts = {place: bins[place].label.partition(" to ")[0] for place in range(0, len(bins), every)}
    axis = f"length of a completion in {unit.partition(' ')[0]}"
    return Histogram(name="lengths", axis=axis, panels=drawn, ticks=starts)


def _to_longest(lengths: Mapping[str, Counter[int]], longest: int) -> list[Bin]:
    """Return bins that reach as far as the longest completion of any domain."""
    bins = length_bins({**lengths, ALL: Counter({longest: 0})})
    return [Bin(label=one.label, counts={kind: one.counts.get(kind, 0) for kind in lengths}) for one in bins]


def _panels(found: Tally, domain: str) -> tuple[str, ...]:
    return (domain,) if len(found.domains) == 1 else (ALL, domain)


def _in_order(found: Tally, names: Mapping[str, Any]) -> list[str]:
    return [name for name in (ALL, *found.domains) if name in names]


def draw(histogram: Histogram) -> bytes:
    """Return the histogram as a PNG image, a panel for each domain."""
    import matplotlib
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    num_columns = min(COLUMNS, len(histogram.panels))
    num_rows = -(-len(histogram.panels) // num_columns)
    buffer = io.BytesIO()
    with style.context("default"), matplotlib.rc_context({"text.parse_math": False, "axes.unicode_minus": False}):
        size = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        places = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
        for axes, name in zip(places, histogram.panels, strict=False):
            _draw_panel(axes, name, histogram)
        for axes in places[len(histogram.panels) :]:
            axes.set_axis_off()
        # The font that comes with matplotlib, and not one of the same name that the machine may have.
        font = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
        for text in figure.findobj(Text):
            text.set_fontproperties(FontProperties(fname=font, size=text.get_fontsize()))
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panel(axes: Any, name: str, histogram: Histogram) -> None:
    bins = histogram.panels[name]
    places = list(range(len(bins)))
    floor = [0] * len(bins)
    kinds = [kind for kind in COLORS if any(kind in found.counts for found in bins)]
    for kind in kinds:
        heights = [found.counts.get(kind, 0) for found in bins]
        axes.bar(places, heights, bottom=floor, width=0.9, color=COLORS[kind], label=kind)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.set_xticks(list(histogram.ticks), list(histogram.ticks.values()), fontsize=7)
    axes.set_xlim(-0.7, len(bins) - 0.3)
    top = max(floor, default=0)
    axes.set_ylim(0, max(1, top) * 1.08)
    axes.set_yticks([0, top], ["0", f"{top:,}"], fontsize=7)
    axes.set_xlabel(histogram.axis, fontsize=8)
    axes.set_title(f"{name}: {sum(floor):,}", fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(kinds) > 1:
        axes.legend(fontsize=7, frameon=False)
