"""The text of a dataset's card, part by part: how rows were made, which were accepted, and who judged them.

Each function returns blocks of Markdown. Words of others enter through `markdown` alone. What a reader needs to use the
tables stands in `guidance`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import yaml

from factory.facts import Facts, Step
from factory.figures import ACCEPTED, ALL, PROBLEMS, REJECTED, Histogram
from factory.markdown import Safe, fenced, plain, table
from factory.measured import READABILITY, Measurement, differences, verifier_of
from factory.plots import Bin
from factory.samples import NONE
from schemas.config import RECORDED_KINDS
from schemas.readability import DEFAULTS, THRESHOLD_NAMES, ReadabilitySettings
from schemas.tables import SCHEMAS
from schemas.verdict import ANSWER_CHECKS

MAX_WEAK: Final = 8  # kinds of cases that are named
ROWS: Final[Mapping[str, str]] = {  # what a row of each table is
    "sft": "an accepted completion as a conversation (`messages`)",
    "sft_prompt_completion": "the same, as `prompt` and `completion`",
    "preference": "two completions of one problem, one better than the other",
    "rl_prompts": "a problem with its reference and its pass rate",
    "grpo_groups": "a judged completion with reward and advantage in its group",
    "candidates": "every completion, accepted or not, with all that was found in it",
    "runs": "the run that made them",
}


def head(facts: Facts) -> list[str]:
    """Return the title, what this is, and the tables."""
    counts, configs = facts.counts, facts.selection["configs"]
    splits = [split for split in ("train", "validation") if any(split in body["splits"] for body in configs.values())]
    rows = [
        [
            Safe(f"`{name}`"),
            Safe(ROWS[name]),
            *(configs[name]["splits"].get(split, {}).get("rows") for split in splits),
            sum(sizes["num_bytes"] for sizes in configs[name]["splits"].values()),
        ]
        for name in SCHEMAS
        if name in configs
    ]
    problems = sum(facts.tally.problems.values())
    return [
        f"# {plain(facts.run['name'])}",
        f"{counts['accepted']:,} accepted completions out of {counts['traces']:,} that {_teachers(facts)} gave "
        f"to {problems:,} problems. All others are in the table `candidates`, each with the reason. Every figure "
        "on this card is counted from the files of the run that made the data, but for the error rates of the "
        "verifiers, which were recorded when those were measured.",
        table(["table", "a row is", *splits, "bytes"], rows),
    ]


def _teachers(facts: Facts) -> str:
    """Return who wrote the completions: an imported set may have several."""
    names = sorted(facts.tally.teachers) or [facts.run["teacher"]]
    return plain(names[0]) if len(names) == 1 else f"{len(names)} teachers"


# How it was made.

_TEACHERS: Final[Mapping[str, str]] = {
    "vllm": "sampled by engines of the run itself",
    "openai": "asked over an endpoint",
    "replay": "recorded elsewhere and judged here; how they were sampled is not known to the run",
    "imported": "imported from a published dataset and judged here; how they were sampled is not known to the run",
    "scripted": "made up by a script; no model wrote them",
}


def how_it_was_made(facts: Facts) -> list[str]:
    """Return teacher, engine, sampling, prompt and rules of the run."""
    run, kind, written = facts.run, str(facts.config["teacher"]["kind"]), dict(sorted(facts.tally.teachers.items()))
    teacher = facts.parts["teacher"]
    others = {key: value for key, value in teacher.items() if key not in ("name", "revision") and value is not None}
    rows: list[tuple[str, Any]] = [
        ("teacher", run["teacher"]),
        *((f"completions of {name}", count) for name, count in written.items() if len(written) > 1),
        ("revision", run["teacher_revision"]),
        *((key.replace("_", " "), value) for key, value in others.items()),
        ("completions", Safe(_TEACHERS.get(kind, plain(kind)))),
        *([] if run["tokenizer_sha256"] is None else [("tokenizer.json", f"sha256 {run['tokenizer_sha256']}")]),
        ("engine", f"{run['engine']} {run['engine_version']}"),
        *(("loaded as", _loaded(one)) for one in run["engines"] or ()),
        *_sampling(facts, kind),
        ("format", run["format"]),
        *([] if kind in RECORDED_KINDS else _asked(facts)),
        ("code version", f"{run['code_version']}, tables of version {facts.selection['version']}"),
        ("the run began", _time(run["started_at"])),
        ("its last completion", _time(run["finished_at"])),
        ("run", run["fingerprint"]),
    ]
    selection = yaml.safe_dump(dict(facts.selection["selection"]), sort_keys=False, allow_unicode=True)
    return [
        "## How it was made",
        table(["what", "value"], rows),
        "How these were asked for is not known; the job states:"
        if kind in RECORDED_KINDS
        else "The prompt, `{{ problem }}` standing for the question:",
        fenced(run["prompt_template"] or ""),
        *([] if run["system"] is None else ["The system turn before it:", fenced(run["system"])]),
        "What was accepted, and which tables were built (`select`):",
        fenced(selection.rstrip(), "yaml"),
    ]


def _loaded(engine: Mapping[str, Any]) -> str:
    """Return in words what an engine's model was loaded as."""
    words = "{dtype}, quantization {quantization}, tensor parallel {tensor_parallel_size}, "
    words += "pipeline parallel {pipeline_parallel_size}, on {host_class}"
    return words.format(**{**engine, "host_class": engine["host_class"] or "a device without a name"})


def _sampling(facts: Facts, kind: str) -> list[tuple[str, Any]]:
    sampling = dict(facts.config["sampling"])
    adaptive = facts.config["schedule"].get("adaptive")
    most = "at most " if adaptive else ""
    rows: list[tuple[str, Any]] = [("attempts at a problem", f"{most}{facts.manifest.num_samples:,}")]
    if kind in RECORDED_KINDS:
        return rows
    words = [
        f"{key} {value}"
        for key, value in sampling.items()
        if key not in ("num_samples", "seed") and value not in (None, [], {})
    ]
    return [*rows, ("sampling", ", ".join(words)), ("seed", _or(sampling.get("seed"), "{}", "none was set"))]


def _asked(facts: Facts) -> list[tuple[str, Any]]:
    """Return by which template and rules the teacher was asked."""
    schedule, template = facts.config["schedule"], facts.run["chat_template_sha256"]
    rows: list[tuple[str, Any]] = [("chat template", _or(template, "sha256 {}", "none: raw text"))]
    if adaptive := schedule.get("adaptive"):
        rule = "until {useful} useful ones, {min_samples} at least, given up below a chance of {give_up_below:g}"
        rows.append(("adaptive sampling", rule.format(**adaptive)))
    else:
        rows.append(("adaptive sampling", "none: the same number of attempts at every problem"))
    if early := schedule.get("early_abort"):
        rows.append(
            ("ended early", f"attempts that repeat {early['loop_tokens']:,} tokens, or whose form is past hope")
        )
    else:
        rows.append(("ended early", "none"))
    if first := schedule.get("first_max_tokens"):
        rows.append(("first limit", f"{first:,} tokens; continued later: {schedule.get('continue_cut')}"))
    return rows


def _or(value: Any, form: str, none: str) -> str:
    return none if value is None else form.format(value)


def _time(value: datetime | None) -> str:
    return "unknown" if value is None else value.strftime("%Y-%m-%d %H:%M:%S UTC")


# The way from attempts to rows.


def way(facts: Facts, steps: Sequence[Step]) -> list[str]:
    """Return the funnel, down to the rows of each table."""
    counts = facts.counts
    rows = [
        [Safe(f"… {step.label}" if step.level else f"**{step.label}**"), step.reason or None, step.number]
        for step in steps
    ]
    tables = [f"`{name}` {facts.rows_of(name):,}" for name in SCHEMAS if name in facts.selection["configs"]]
    blocks = [
        "## From attempts to rows",
        table(["step", "reason", "count"], rows),
        "Each bold line is the one before it without the lines between; the sums were checked when this card was "
        f"built. Outcomes of the judged and unjudged: {_listed(counts['outcomes'])}.",
        f"Rows of the tables that follow: {', '.join(tables)}.",
    ]
    if facts.status.ended_early:
        ended = {reason: found.count for reason, found in facts.status.ended_early.items()}
        blocks.append(f"Ended early, and judged like the others: {_listed(ended)}.")
    return blocks


def _listed(counts: Mapping[str, int], most: int | None = None) -> str:
    pairs = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{plain(name)} {count:,}" for name, count in pairs[:most])
    return (told or "none") + (f" and {len(pairs) - most} more kinds" if most is not None and len(pairs) > most else "")


# Verifiers.


def verifiers(facts: Facts) -> list[str]:
    """Return who judged, what was found, and how often such verifiers err."""
    versions = table(["verifier, or a package it asks", "version"], sorted(facts.verifiers.items()))
    blocks = ["## What the verifiers found", versions]
    blocks.append(f"How strictly texts were read: {plain(_readability(facts), 2_000)}.")
    if not facts.are_verifiers_sure:
        blocks.append(
            "These are the versions of the run's last start. The verdicts of these tables have another digest, "
            f"{plain(facts.selection['verdict_digest'])}: they were made by other versions or settings."
        )
    found = [
        (finding.check, finding.outcome, None if finding.reason == NONE else finding.reason, count)
        for finding, count in sorted(facts.tally.findings.items())
        if finding.reason != NONE or finding.check in ANSWER_CHECKS
    ]
    blocks.append(
        "Checks of the text that passed are left out. A completion can have several findings; its outcome is that of "
        "the first in the order of `schemas/verdict.py`. Findings that are `readable` are flags and reject nothing."
    )
    blocks.append(table(["check", "outcome", "reason", "completions"], found))
    return [*blocks, *error_rates(facts)]


def _readability(facts: Facts) -> str:
    """Return the settings of readability in words."""
    settings = facts.readability
    changed = [
        f"{name} {getattr(settings.thresholds, name):g} (as it comes: {getattr(DEFAULTS, name):g})"
        for name in THRESHOLD_NAMES
        if getattr(settings.thresholds, name) != getattr(DEFAULTS, name)
    ]
    language = f", thinking in {settings.think_language}" if settings.think_language else ""
    return f"profile {settings.profile}{language}, thresholds {', '.join(changed) or 'as they come'}"


def error_rates(facts: Facts) -> list[str]:
    """Return measured errors of the verifiers that judged, and for which versions they are not known."""
    used = sorted({verifier_of(finding.check) for finding in facts.tally.findings})
    measured = [one for one in facts.measurements if one.verifier in used]
    blocks = ["### How often they err"]
    missing = [name for name in used if name not in {one.verifier for one in measured}]
    if missing:
        blocks.append(f"Not measured: {', '.join(map(plain, missing))}. Nothing is known here of how often they err.")
    if not measured:
        return blocks
    head = ["verifier", "cases", "right ones rejected", "wrong ones accepted", "unjudged", "measured", "same versions"]
    others = [", ".join(differences(one, facts.verifiers)) for one in measured]
    rows = [[*_error_row(one), "no" if told else "yes"] for one, told in zip(measured, others, strict=True)]
    blocks.append(table(head, rows))
    blocks.append(
        "The files of cases and the commands, in `factory/shipped/measured.json`, come with the factory's code. Cases "
        "are no sample of this run's completions."
    )
    for one in measured:
        if weak := one.errors.weak:
            blocks.append(f"{plain(one.verifier)} on {plain(one.cases)} was wrong on: {_listed(weak, MAX_WEAK)}.")
    for note in dict.fromkeys(one.note for one in measured if one.note):
        of = ", ".join(plain(one.cases) for one in measured if one.note == note)
        blocks.append(f"Of {of}: {plain(note, 2_000)}")
    for name, told in dict.fromkeys(zip((one.verifier for one in measured), others, strict=True)):
        if told:
            blocks.append(f"Not measured for the versions of this run: {plain(name)} with {plain(told, 2_000)}.")
    if READABILITY in used and facts.readability != ReadabilitySettings():
        blocks.append("The checks of the text were measured as they come; this run has other settings.")
    return blocks


def _error_row(found: Measurement) -> list[Any]:
    errors = found.errors
    return [
        found.verifier,
        f"{found.cases}, sha256 {found.cases_sha256[:12]}",
        _share(errors.num_rejected, errors.num_right),
        _share(errors.num_accepted, errors.num_wrong),
        errors.num_unjudged,
        f"{found.date}, commit {found.commit[:12]}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.2%})" if whole else "no such case"


# How pass rates and lengths are spread.


def shapes(facts: Facts, drawn: Sequence[Histogram]) -> list[str]:
    """Return the histograms with their numbers."""
    blocks = ["## Pass rates and lengths"]
    for one in drawn:
        blocks += [f"![{plain(_alt(one), 500)}](figures/{one.name}.png)", _bins(one)]
    without = sum(count for rate, count in facts.tally.rates.items() if not rate.num_judged)
    lines = [
        "A pass rate is the share of a problem's judged attempts whose answer is right, whatever the form of the text."
        f" {without:,} problems have no attempt whose answer could be judged, and are in no bin."
    ]
    if facts.config["schedule"].get("adaptive"):
        lines.append(
            "Attempts stopped when a problem had enough right ones, which biases these rates; `pass_rate_unbiased` "
            f"counts only the first {facts.selection['num_first']:,} attempts, made whatever they gave. Where "
            "one of those was cancelled all the same, it is null."
        )
    if facts.config["schedule"].get("first_max_tokens") and facts.config["schedule"].get("continue_cut") == "unsolved":
        lines.append(
            "Attempts that a first limit cut went on only at problems without an accepted answer: rates lack long "
            "attempts at the others, and `pass_rate_unbiased` is null where one of its attempts is lacking."
        )
    lines.append(f"Lengths are in {plain(facts.unit)}.")
    rows = [
        [name, kind, *_quantiles(facts, name, is_accepted=kind == ACCEPTED)]
        for name in facts.tally.domains
        for kind in (ACCEPTED, REJECTED)
    ]
    head = ["domain", "standing", "completions", "median", "nine in ten up to", "longest"]
    return [*blocks, *lines, table(head, rows)]


def _alt(histogram: Histogram) -> str:
    name, bins = next(iter(histogram.panels.items()))
    total = sum(sum(found.counts.values()) for found in bins)
    top = max(bins, key=lambda found: sum(found.counts.values()))
    kinds = PROBLEMS if PROBLEMS in top.counts else "completions"
    domains = f", and of {len(histogram.panels) - 1} domains apart" if len(histogram.panels) > 1 else ""
    return (
        f"Histogram of the {histogram.axis}: {total:,} {kinds} of {name}{domains}; most, "
        f"{sum(top.counts.values()):,}, in the bin {top.label}. The numbers are in the table below."
    )


def _bins(histogram: Histogram) -> str:
    panels = histogram.panels
    first = next(iter(panels.values()))
    kinds = list(dict.fromkeys(kind for found in first for kind in found.counts))
    columns: list[tuple[str, list[int]]] = []
    if len(kinds) > 1:
        columns += [(kind, [found.counts.get(kind, 0) for found in first]) for kind in kinds]
    shown = panels if len(kinds) == 1 else _domains(panels)
    columns += [(name, [_total(found) for found in bins]) for name, bins in shown.items()]
    rows = [[found.label, *(values[place] for _, values in columns)] for place, found in enumerate(first)]
    return table([histogram.axis, *(name for name, _ in columns)], [row for row in rows if any(row[1:])])


def _domains(panels: Mapping[str, Sequence[Bin]]) -> dict[str, Sequence[Bin]]:
    """Return the panels that say more than the sum of the columns before."""
    return {name: bins for name, bins in panels.items() if name != ALL} if len(panels) > 1 else {}


def _total(found: Bin) -> int:
    return sum(found.counts.values())


def _quantiles(facts: Facts, domain: str, *, is_accepted: bool) -> list[int | None]:
    """Return the number of completions, their median length, the ninth decile, and the longest."""
    counts: Counter[int] = Counter()
    for length, count in facts.tally.lengths.items():
        if length.domain == domain and length.is_accepted == is_accepted:
            counts[length.num_tokens] += count
    total = counts.total()
    if not total:
        return [0, None, None, None]
    found: list[int | None] = [total]
    for share in (0.5, 0.9, 1.0):
        rest = share * total
        for value in sorted(counts):
            rest -= counts[value]
            if rest <= 1e-9:
                found.append(value)
                break
    return found
