"""The parts of `MODEL_CARD.md` that hold numbers: written by commands, between markers, never by hand."""

import json
from pathlib import Path
from typing import Any

CARD = Path(__file__).parent / "MODEL_CARD.md"


def between(text: str, name: str, content: str) -> str:
    """Return the text with everything between the markers of a name replaced.

    Raises:
        ValueError: If the text lacks one of the markers.
    """
    begin, end = f"<!-- {name}: written by measure.py -->", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{CARD.name} lacks {begin!r} or {end!r}; put both back")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def rates_table(title: str, count: str, found_by_name: dict[str, Any], overall: dict[str, Any]) -> str:
    """Return pass and defect rates as a Markdown table, one row a name and one for all."""
    defects = list(overall["defects"])
    head = [title, count, "pass rate", "95 %", "mean tokens", "at limit", *defects]
    rows = [head, ["---"] * len(head)]
    for name, found in [*found_by_name.items(), ("all", overall)]:
        low, high = found["pass_rate_95"]
        rates = [f"{found['defects'][defect]:.1%}" for defect in defects]
        cells = [f"{found['pass_rate']:.3f}", f"{low:.3f} to {high:.3f}", f"{found['mean_tokens']:.0f}"]
        rows.append([name, str(found["num_problems"]), *cells, f"{found['at_token_limit']:.1%}", *rates])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured_table(measured: dict[str, Any]) -> str:
    """Return the rates by family."""
    return rates_table("family", "problems", measured["families"], measured["overall"])


def programs_table(measured: dict[str, Any]) -> str:
    """Return the rates by kind of programming task."""
    return rates_table("kind", "tasks", measured["programs"]["kinds"], measured["programs"]["overall"])


def config_table(measured: dict[str, Any]) -> str:
    """Return the reasoning-gym config of each family as a Markdown table."""
    rows = ["| family | reasoning-gym config (all else at its default) |", "| --- | --- |"]
    for name, found in measured["families"].items():
        config = ", ".join(f"{key}={value}" for key, value in found["config"].items())
        rows.append(f"| {name} | `{config}` |")
    return "\n".join(rows)


def training_table(runs: list[dict[str, Any]]) -> str:
    """Return what each training command did as a Markdown table."""
    keys = list(runs[0])
    rows = [f"| {' | '.join(keys)} |", f"|{' --- |' * len(keys)}"]
    rows += [f"| {' | '.join(str(run[key]) for key in keys)} |" for run in runs]
    return "\n".join(rows)


def write_card(weights: Path, measured: dict[str, Any]) -> None:
    """Write the tables into the card, if the weights are the ones that the card is about."""
    if weights.resolve() != (CARD.parent / "weights").resolve():
        return
    runs = json.loads((weights / "training.json").read_text())
    text = between(CARD.read_text(), "families", config_table(measured))
    text = between(text, "training", training_table(runs))
    text = between(text, "measured", measured_table(measured))
    CARD.write_text(between(text, "programs", programs_table(measured)))
