"""The report: one page of a run that needs nothing but itself, to read, to mail, and to keep beside the data.

From `report` (where the attempts are), `samples` (what they sum to, and ten of each outcome) and `agreement`. The page
is a function of the run alone: the same run gives the same bytes. It loads nothing, runs nothing, and is bounded in
size: texts are cut, long lists end with what they leave out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from factory.agreement import Agreement, read_agreement
from factory.clean import read_cleaning
from factory.cost import cost_note, cost_rows
from factory.mathml import render
from factory.plots import length_plot, rate_plot
from factory.readings import Evidence, evidence_text, read_readings, statistic_plots, value_bins
from factory.report import Status, read_status
from factory.samples import NONE, Asked, Samples, Sums, telling
from factory.storage import AnyPath
from factory.store import RunFolder
from factory.visible import shorten, visible
from schemas.config import ReadabilityConfig
from schemas.errors import ConfigError
from schemas.verdict import Outcome

OUTCOMES: Final = (
    *(Outcome.CORRECT, Outcome.READABLE, Outcome.WRONG_ANSWER, Outcome.NO_ANSWER, Outcome.UNREADABLE),
    *(Outcome.OVER_LIMIT, Outcome.BAD_REFERENCE, Outcome.UNJUDGED, NONE),
)
PER_OUTCOME: Final = 10
MAX_ROWS: Final = 40  # of a table of sources
MAX_QUESTION, MAX_REASONING, MAX_RESPONSE, MAX_FORM = 3_000, 6_000, 4_000, 200  # characters
MAX_DROPPED: Final = 500  # problems that were kept aside, of which the page says why
LOOKED_AT: Final = 2_000  # samples of an outcome, in search of ones of different problems


def write_page(path: AnyPath, selection: str | None, out: AnyPath) -> int:
    """Write the page of a run and a selection (default: the job's); return its size in bytes.

    Raises:
        ConfigError: If the folder holds no run, or the selection's tables are not built.
    """
    page = build_page(path, selection).encode("utf-8")
    try:
        out.write_bytes(page)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; give another file") from error
    return len(page)


def build_page(path: AnyPath, selection: str | None = None) -> str:
    """Return the page of a run and a selection (default: the job's) as HTML.

    Raises:
        ConfigError: If the folder holds no run, or the selection's tables are not built.
    """
    status = read_status(path, selection)
    unit = unit_of(RunFolder(path).manifest().config["teacher"])
    samples = Samples(path, status.selection)
    sums = samples.sums()
    shown = [outcome for outcome in OUTCOMES if any(counts[outcome] for counts in sums.by_source.values())]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    return environment.get_template("page.html").render(
        name=status.name,
        path=status.path,
        facts=_facts(path, status),
        warnings=_warnings(status, sums),
        funnel=_funnel(status),
        outcomes=OUTCOMES,
        shown=shown,
        outcome_tables=_outcome_tables(sums, shown),
        costs=cost_rows(status.costs),
        cost_note=cost_note(status.costs),
        plots=[length_plot(sums.lengths, shown, unit), rate_plot(sums.pass_rates)],
        readability=_readability(path, samples),
        agreement=_agreement(path),
        cleaning=_cleaning(path),
        per_outcome=PER_OUTCOME,
        sections=[_section(samples, outcome, unit) for outcome in shown],
    )


def _facts(path: AnyPath, status: Status) -> list[tuple[str, str]]:
    folder = RunFolder(path)
    manifest = folder.manifest()
    teacher = folder.run_yaml()["fingerprint_parts"]["teacher"]
    sampling = manifest.config["sampling"]
    settings = "".join(f", {key} {sampling[key]}" for key in ("temperature", "top_p", "max_tokens"))
    is_recorded = manifest.config["teacher"]["kind"] == "replay"  # then nothing was sampled by these settings
    facts = [
        ("run", status.path),
        ("teacher", f"{teacher['name']} (revision {teacher['revision']})"),
        ("sampling", f"{manifest.num_samples} attempts per problem{'' if is_recorded else settings}"),
        ("problems", f"{status.num_problems:,}"),
        ("teacher tokens", f"{status.num_tokens:,}"),
        ("tokens per accepted sample", _figure(status.tokens_per_accepted, ",.1f")),
        ("tokens per second, while engines worked", _figure(status.tokens_per_s, ",.0f")),
        ("pass rate", _figure(status.pass_rate, ".3f")),
        ("selection", status.selection),
        ("state", f"manifest {manifest.number} of {manifest.created_at}"),
        ("fingerprint", manifest.fingerprint),
    ]
    return [(key, value) for key, value in facts if value]


def unit_of(teacher: Mapping[str, Any]) -> str:
    """Return what a completion's length is counted in; its first word names the axis."""
    if teacher["kind"] == "scripted":
        return "bytes (the scripted teacher has no other tokens)"
    if teacher["kind"] != "replay":
        return "tokens by the teacher's tokenizer"
    if teacher["columns"]["num_tokens"]:
        return "tokens as the recording states them"
    if teacher["tokenizer"] == "bytes":
        return "bytes of UTF-8, for want of a tokenizer (teacher.tokenizer)"
    return f"tokens by {teacher['tokenizer']}"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _warnings(status: Status, sums: Sums) -> list[str]:
    found = []
    if status.counts.pending:
        found.append(f"The run is not finished: {status.counts.pending:,} attempts are pending.")
    if status.num_suspects:
        found.append(
            f"{status.num_suspects:,} problems have attempts that agree with one another and never with the reference, "
            f"which is then probably wrong: `factory report {status.path} --suspects` lists them."
        )
    told: Counter[str] = Counter()
    for outcomes in sums.by_source.values():
        told.update(outcomes)
    del told[NONE]
    if told != Counter(status.outcomes):
        found.append(
            f"The tables of this selection do not say what the run's verdicts say today ({told.total():,} judged "
            f"there, {sum(status.outcomes.values()):,} today): below the funnel the page speaks of the former. "
            f"`factory select {status.path}` builds them anew."
        )
    return found


def _funnel(status: Status) -> list[dict[str, Any]]:
    counts = status.counts
    rows: list[dict[str, Any]] = []

    def row(label: str, count: int, indent: int = 0, color: str = "all", *, is_share: bool = True) -> None:
        share = count / counts.generated if is_share and counts.generated else None
        width = min(1.0, count / counts.requested) if counts.requested else 0.0
        rows.append({"label": label, "count": count, "indent": indent, "color": color, "share": share, "width": width})

    row("requested", counts.requested, is_share=False)
    row("generated", counts.generated, is_share=False)
    for name, count in (("failed", counts.failed), ("cancelled", counts.cancelled), ("pending", counts.pending)):
        if count:
            row(name, count, 1, NONE, is_share=False)
    for ending, reasons in (("failed", status.failed_reasons), ("cancelled", status.cancelled_reasons)):
        for reason, count in _by_count(reasons):
            row(f"{ending}: {reason}", count, 2, NONE, is_share=False)
    for reason, ended in status.ended_early.items():
        row(f"ended early: {reason}, about {ended.num_saved:,} tokens saved", ended.count, 1, NONE)
    row("judged", counts.judged)
    for outcome, count in _by_count(status.outcomes):
        row(outcome, count, 1, outcome)
    for reason, count in _by_count(status.reasons):
        row(f"reason: {reason}", count, 2, NONE)
    if status.accepted is not None:
        row(f"accepted (selection {status.selection})", status.accepted, 0, Outcome.CORRECT)
        for reason, count in _by_count(status.rejected):
            row(f"rejected: {reason}", count, 1, NONE)
    for reason, count in _by_count(status.quarantined):
        row(f"rows of the sources set aside: {reason}", count, 0, NONE, is_share=False)
    return rows


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _outcome_tables(sums: Sums, shown: Sequence[str]) -> list[dict[str, Any]]:
    tables = []
    for title, head, place in (("By domain", "domain", 0), ("By source", "source", 1)):
        counts: dict[str, Counter[str]] = {}
        accepted: Counter[str] = Counter()
        for key, outcomes in sums.by_source.items():
            counts.setdefault(key[place], Counter()).update(outcomes)
            accepted[key[place]] += sums.accepted[key]
        ordered = sorted(counts, key=lambda name: (-counts[name].total(), name))
        rows = [_outcome_row(name, counts[name], accepted[name], shown) for name in ordered[:MAX_ROWS]]
        tables.append({"title": title, "head": head, "rows": rows, "left_out": max(0, len(ordered) - MAX_ROWS)})
    return tables


def _outcome_row(label: str, counts: Counter[str], accepted: int, shown: Sequence[str]) -> dict[str, Any]:
    total = counts.total()
    parts = [(outcome, counts[outcome] / total) for outcome in shown if counts[outcome]]
    shortened = label if len(label) <= MAX_FORM else label[:MAX_FORM] + "..."
    numbers = [counts[outcome] for outcome in shown]
    return {"label": shortened, "total": total, "counts": numbers, "accepted": accepted, "parts": parts}


# Readability.


def _readability(path: AnyPath, samples: Samples) -> dict[str, Any]:
    config = RunFolder(path).manifest().config
    limits = ReadabilityConfig.model_validate(config["verify"].get("readability", {})).settings().thresholds
    readings = read_readings(samples)
    rows = [
        {
            "reason": reason,
            "deciding": found.num_deciding,
            "rejecting": found.num_rejecting,
            "flags": found.num_flags,
            "values": value_bins(found),
            "samples": [_evidence(samples, one) for one in found.samples],
        }
        for reason, found in sorted(readings.reasons.items(), key=lambda item: (-item[1].num_deciding, item[0]))
    ]
    return {"rows": rows, "readings": readings, "plots": statistic_plots(readings, limits)}


def _evidence(samples: Samples, found: Evidence) -> dict[str, Any]:
    text = evidence_text(samples.row(found.row)["text"], found)
    return {
        "id": found.trace_id[:12],
        "value": _figure(found.value, ",.4g"),
        "threshold": _figure(found.threshold, ",.4g"),
        "text": shorten(" ".join(text.split()), MAX_FORM),
    }


# Labels and samples.


def _cleaning(path: AnyPath) -> dict[str, Any]:
    """Return what the problems were cleaned of, and for each that was dropped what it was dropped for."""
    found = read_cleaning(path)
    dropped = [
        {
            "source": f"{row.source} row {row.row}",
            "reason": row.reason,
            "of": "" if row.evidence is None else f"{row.evidence.of}: {row.evidence.item}",
            "rule": "" if row.evidence is None else row.evidence.rule,
            "share": None if row.evidence is None else row.evidence.share,
            "detail": shorten(row.detail, MAX_FORM),
        }
        for row in found.evidence[:MAX_DROPPED]
    ]
    return {"record": found, "dropped": dropped, "left_out": len(found.evidence) - len(dropped)}


def _agreement(path: AnyPath) -> dict[str, Any] | None:
    try:
        found: Agreement = read_agreement(path)
    except ConfigError:  # no labels came along
        return None
    return {
        **{name: getattr(found, name) for name in ("both_true", "both_false", "only_label", "only_verdict")},
        "sentence": _sentence(found),
    }


def _sentence(found: Agreement) -> str:
    """Return in words how verdicts agree with labels."""
    rate = "None could be compared." if found.rate is None else f"{found.rate:.2%} of {found.num_compared:,} compared."
    return f"Verdicts and labels agree on {rate} Not compared: {found.num_not_compared:,}."


def _section(samples: Samples, outcome: str, unit: str) -> dict[str, Any]:
    rows = samples.find(Asked(outcome=outcome))
    return {"outcome": outcome, "count": len(rows), "samples": [_sample(row, unit) for row in _chosen(samples, rows)]}


def _chosen(samples: Samples, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return the first samples of different problems, filled up with others where there are too few problems."""
    chosen: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number in rows[:LOOKED_AT]:
        row = samples.row(number)
        if row["problem_id"] not in seen:
            seen.add(row["problem_id"])
            chosen.append(row)
        elif len(others) < PER_OUTCOME:
            others.append(row)
        if len(chosen) == PER_OUTCOME:
            break
    return (chosen + others)[:PER_OUTCOME]


def _sample(row: Mapping[str, Any], unit: str) -> dict[str, Any]:
    parts = [(turn["role"], "turn", _html(turn["content"], MAX_QUESTION)) for turn in row["messages"]]
    if row["outcome"] == Outcome.UNREADABLE or row["reasoning"] is None:  # as it is: what is wrong may be in its form
        parts.append(("completion", "turn", _html(row["text"], MAX_REASONING)))
    else:
        parts.append(("thinking", "reasoning", _html(row["reasoning"], MAX_REASONING)))
        parts.append(("response", "turn", _html(row["response"] or "", MAX_RESPONSE)))
    words = [
        row["reason"] or "passed",
        f"reference {_short(row['reference'])}",
        f"{row['domain']}, {_short(row['source'])}",
        f"attempt {row['sample_index']}",
        f"{row['num_completion_tokens']:,} {unit.partition(' ')[0]}, ended by {row['finish_reason']}",
        f"problem solved {row['num_true']} of {row['num_judged']} times",
        "accepted" if row["is_accepted"] else f"rejected: {row['reject_reason']}" if row["reject_reason"] else "",
    ]
    return {
        "id": row["trace_id"][:12],
        "line": " · ".join(word for word in words if word),
        "parts": parts,
        "checks": [_check(check) for check in telling(row["checks"])],
    }


def _check(check: Mapping[str, Any]) -> list[str]:
    outcome = f"{check['outcome']}: {check['reason']}" if check["reason"] else str(check["outcome"])
    name = f"{check['name']}@{check['version']}" + (f", rung {check['rung']}" if check["rung"] else "")
    return [name, outcome, *(_short(check[key]) if check[key] is not None else "" for key in _FORMS)]


_FORMS: Final = ("extracted", "answer_form", "reference_form")


def _short(text: str | None) -> str:
    text = "none" if text is None else " ".join(text.split())
    return text if len(text) <= MAX_FORM else text[:MAX_FORM] + "..."


def _html(text: str, most: int) -> Markup:
    return Markup(render(visible(shorten(text.strip(), most))))  # render escapes all but what it writes itself
