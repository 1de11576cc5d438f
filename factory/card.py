"""The dataset's card: README.md and figures that say how each row came to be, computed from the run and never typed.

From `facts` (what the folders say, sums checked), `frontmatter` (the YAML), `sections` and `guidance` (the text) and
`figures`. A pure function of the run's folder and the selection's: the same folders give the same bytes, wherever they
lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from factory import guidance, sections
from factory.facts import check_funnel, funnel, read_facts
from factory.figures import draw, length_histogram, rate_histogram
from factory.frontmatter import front_matter
from factory.storage import AnyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is written beside the tables: README.md, and images by their paths (``figures/...png``)."""

    readme: str
    figures: Mapping[str, bytes] = field(default_factory=dict)


def build_card(path: AnyPath, selection: str, *, repo: str | None = None) -> Card:
    """Return the card of a run's selection; ``repo`` is the name by which the text says how to load it.

    Raises:
        ConfigError: If the folder holds no run, or the selection's tables are not built.
        StoreError: If its tables cannot be read, or are of another version.
        CorruptRunError: If a sum does not hold: no card says what cannot be added up.
    """
    facts = read_facts(path, selection)
    steps = funnel(facts)
    check_funnel(steps)
    histograms = (rate_histogram(facts.tally), length_histogram(facts.tally, facts.unit))
    drawn = [one for one in histograms if not one.is_empty]
    parts = (
        sections.head(facts),
        guidance.loading(facts, repo),
        sections.how_it_was_made(facts),
        sections.way(facts, steps),
        sections.verifiers(facts),
        sections.shapes(facts, drawn),
        guidance.cleaning(facts),
        guidance.cost(facts),
        guidance.sources(facts),
        guidance.limits(facts),
        guidance.rebuilding(facts),
        guidance.checksums(facts),
    )
    body = "\n\n".join(block for part in parts for block in part)
    return Card(
        readme=f"{front_matter(facts)}\n{body}\n",
        figures={f"figures/{one.name}.png": draw(one) for one in drawn},
    )
