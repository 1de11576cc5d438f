"""The text of a dataset's card for whoever uses the tables: contamination, cost, licences, limits, loading, checksums.

The second half of `sections`: each function returns blocks of Markdown, and what the run does not say is said not to be
known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from factory.clean import CleaningRecord
from factory.facts import Facts
from factory.frontmatter import loadable
from factory.markdown import Safe, fenced, plain, table
from factory.selection import RejectReason
from schemas.config import RECORDED_KINDS
from schemas.problem import QuarantineReason
from schemas.tables import SCHEMAS
from schemas.trace import FinishReason

MAX_SOURCES: Final = 100  # rows of the table of sources
MAX_TEACHERS: Final = 5  # that are named
MAX_FILES: Final = 40  # files whose checksums are printed; manifest.json has all


# What was looked for in the problems.


def cleaning(facts: Facts) -> list[str]:
    """Return the evidence against contamination and duplicates, and what was not looked for."""
    found = facts.cleaning
    blocks = ["## Contamination and duplicates", *_benchmarks(found)]
    if found.rules is None or found.near_duplicates is None:
        blocks.append("Near-duplicates among the problems were not looked for, as far as the run says.")
    else:
        blocks.append(
            f"Near-duplicate problems (Jaccard similarity of 5-word shingles from {found.near_duplicates:g} on, the "
            f"same numbers and reference) set aside: {found.dropped.get(QuarantineReason.NEAR_DUPLICATE, 0):,}. "
            f"Exact duplicates: {found.dropped.get(QuarantineReason.DUPLICATE, 0):,}."
        )
    threshold = facts.selection["selection"].get("near_duplicates")
    if threshold is None:
        blocks.append("Nearly equal completions of one problem were not looked for.")
    else:
        count = facts.counts["rejected"].get(RejectReason.NEAR_DUPLICATE, 0)
        blocks.append(f"Nearly equal completions of one problem (from {threshold:g} on) rejected: {count:,}.")
    if not found.is_audited:
        blocks.append("Statements were not looked through for missing figures, several questions and the like.")
    if found.dropped:
        blocks.append("Rows of the sources that were set aside before anything was generated:")
        blocks.append(table(["reason", "rows"], found.dropped.items()))
    return blocks


def _benchmarks(found: CleaningRecord) -> list[str]:
    missing = ", ".join(map(plain, found.not_covered))
    if found.rules is None:
        return [
            "The run has no record of cleaning: nothing says that items of benchmarks were looked for in its problems."
        ]
    if not found.covered:
        return [f"Items of benchmarks were not looked for. Not looked for: {missing or 'any'}."]
    rows = [
        [one.name, one.version, one.num_items, found.dropped_for.get(f"{one.name} ({one.version})", 0), one.sha256[:12]]
        for one in found.covered
    ]
    return [
        f"Problems that are, or quote, items of these benchmarks were set aside (rules: {plain(found.rules)}; compared "
        "by hashes of words, so that a translation or a free rewording is not found):",
        table(["benchmark", "version", "its items", "problems set aside", "fingerprint"], rows),
        f"Known benchmarks that were not looked for: {missing or 'none'}.",
        "Only what the teacher was asked was compared; what the teacher itself was trained on is not known.",
    ]


# What it cost.


def cost(facts: Facts) -> list[str]:
    """Return tokens and engine time, in all and for each accepted completion, by domain."""
    costs = facts.status.costs
    unit = facts.unit.partition(" ")[0]
    accepted = facts.counts["accepted"]
    is_going_on = facts.manifest.counts.pending > 0  # what ledgers say moves then, with nothing committed between
    parts = [(one.name, one.num_tokens, facts.tally.accepted_of(one.name), one.device_s) for one in costs.by_domain]
    whole = ("all", costs.whole.num_tokens, accepted, costs.whole.device_s)
    rows: list[list[Any]] = [
        [name, tokens, count, _each(tokens, count), seconds / 3600, _each(seconds, count)]
        for name, tokens, count, seconds in (whole, *parts)
    ]
    head = ["domain", f"output {unit}", "accepted", f"{unit} for each accepted"]
    if costs.whole.device_s and facts.config["teacher"]["kind"] not in RECORDED_KINDS:
        head += [f"{costs.device}-hours", f"{costs.device}-seconds for each accepted"]
    rows = [row[: len(head)] for row in rows]
    blocks = [
        "## What it cost",
        table(head, rows),
        f"Output {unit} are those of all attempts that are committed, whatever became of them"
        + (
            "."
            if is_going_on
            else f"; {costs.num_tokens_unkept:,} more were lost with an engine or a start and are in no row."
        ),
    ]
    if facts.config["teacher"]["kind"] in RECORDED_KINDS:
        blocks.append("This run generated nothing: the completions were recorded, and what they cost is not known.")
    elif is_going_on:
        blocks.append("The run is not finished: engine time, and what was lost with an engine, are not stated.")
    elif not costs.whole.device_s:
        blocks.append("The run has no record of engine time.")
    elif costs.device == "GPU":
        blocks.append("GPU time is all time of all starts: loading, idle and dead too. It is shared out by tokens.")
    else:
        blocks.append(
            "No GPU of the run's own is known: the time is that of whole engines, on CPUs or in front of an endpoint, "
            "each counted once, loading and idle too. It says nothing about GPUs. It is shared out by tokens."
        )
    return blocks


def _each(amount: float, count: int) -> Any:
    return amount / count if count else "none accepted"


# Where problems come from.


def sources(facts: Facts) -> list[str]:
    """Return the sources with their licences."""
    found = facts.tally
    ordered = sorted(found.rows, key=lambda origin: (-found.rows[origin], origin))
    rows = [
        [*origin, found.problems[origin], found.rows[origin], found.accepted[origin]]
        for origin in ordered[:MAX_SOURCES]
    ]
    teachers = " and of ".join(plain(name) for name in sorted(found.teachers)[:MAX_TEACHERS])
    languages = ", ".join(f"{plain(name)} {count:,}" for name, count in sorted(found.languages.items()))
    left = len(ordered) - len(rows)
    return [
        "## Sources and licences",
        table(["domain", "source", "licence", "problems", "completions", "accepted"], rows),
        *([f"{left:,} more sources are not listed; the columns `source` and `license` have all."] if left > 0 else []),
        "The licence is what the job states of each source, `unknown` where it states none; it is that of the "
        "problems. On which terms the outputs of the teacher may be training data, the run does not say: look at the "
        f"licence of {teachers or 'the teacher'}.",
        f"Languages of the problems, by completions: {languages or 'none'}.",
    ]


# Limits.


def limits(facts: Facts) -> list[str]:
    """Return what a reader must not take these tables for, each point where the run gives cause."""
    counts, status, found = facts.counts, facts.status, facts.tally
    config = facts.config
    is_recorded = config["teacher"]["kind"] in RECORDED_KINDS
    points = [
        "How the completions were sampled is not known. The tables follow from the stored completions."
        if is_recorded
        else "Sampling is not repeatable bit by bit: batching and kernels change digits. The tables follow from the "
        "stored completions, not from the model.",
        "Accepted means that the rules found no fault in the form, and that the final answer is the reference's. A "
        "chain of thought with a mistake in the middle and a right end is accepted.",
    ]
    if config["teacher"]["kind"] == "scripted":
        points.append("The completions were made up by a script to exercise the factory. Train nothing on them.")
    if config["teacher"]["kind"] == "openai":
        points.append(
            "An endpoint says neither revision nor precision of its model: the revision is what the job states."
        )
    if facts.manifest.counts.pending:
        points.append(f"The run is not finished: {facts.manifest.counts.pending:,} attempts are pending.")
    if counts["unjudged"]:
        points.append(f"{counts['unjudged']:,} completions could not be judged, by our fault; they are in no rate.")
    if status.num_suspects:
        points.append(
            f"{status.num_suspects:,} problems have attempts that agree with one another and never with the reference: "
            "either it is wrong, or the teacher always errs in the same way. They count as wrong answers."
        )
    if unverified := counts["rejected"].get(RejectReason.UNVERIFIED, 0):
        points.append(f"{unverified:,} completions had nothing to be compared with, and were not accepted.")
    for ending, what in (
        (FinishReason.LENGTH, "were cut by the token limit"),
        (FinishReason.ABORT, "were ended early"),
    ):
        if count := found.endings[ending]:
            points.append(f"{count:,} of {found.num_rows:,} completions {what}.")
    if oversized := facts.selection.get("oversized", {}).get("rows", 0):
        points.append(f"{oversized:,} rows are larger than what the Hub's viewer shows; `load_dataset` reads them.")
    if not facts.cleaning.covered:
        points.append("Items of benchmarks were not looked for: do not report scores on one without doing so.")
    return ["## Limits", "\n".join(f"- {point}" for point in points)]


# How to load it, and how to build it again.


def loading(facts: Facts, repo: str | None) -> list[str]:
    """Return a line to load each table with."""
    where = "path/to/this/folder" if repo is None else repo
    lines = ["from datasets import load_dataset", ""]
    for name, splits in loadable(facts.selection).items():
        for split in splits:
            variable = name if split == "train" else f"{name}_{split}"
            arguments = f"{json.dumps(where)}, {json.dumps(name)}, split={json.dumps(split)}"
            lines.append(f"{variable} = load_dataset({arguments})")
    pin = "Pin a version by `revision=` and a tag or commit." if repo else "In a copy of this folder, give its path."
    empty = [f"`{name}`" for name in SCHEMAS if name in facts.selection["configs"] and not facts.rows_of(name)]
    left_out = [f"Without rows, and so not to be loaded: {', '.join(empty)}."] if empty else []
    return ["## How to load", fenced("\n".join(lines), "python"), pin, *left_out]


def rebuilding(facts: Facts) -> list[str]:
    """Return how the tables are made anew from what is published."""
    return [
        "## How to build it again",
        "`candidates` has all that the other tables are made of. In a copy of this folder, this makes them anew and "
        "compares each row:",
        fenced("factory rederive .", "sh"),
        "A problem's rows are all in one split. Digests: "
        f"of the selection {plain(facts.selection['selection_digest'])}, of the verdicts "
        f"{plain(facts.selection['verdict_digest'])}, of the run {plain(facts.selection['fingerprint'])}. Every row "
        "has the first and the last, but for `runs`, which has the last alone.",
    ]


def checksums(facts: Facts) -> list[str]:
    """Return digests of rows and of files."""
    configs: Mapping[str, Any] = facts.selection["configs"]
    rows = [
        [Safe(f"`{name}`"), split, sizes["rows"], Safe(f"`{sizes['rows_sha256']}`")]
        for name in SCHEMAS
        if name in configs
        for split, sizes in configs[name]["splits"].items()
    ]
    files: Sequence[Mapping[str, Any]] = facts.selection["files"]
    blocks = [
        "## Checksums",
        "Of the rows in order, whatever files and codecs they are in:",
        table(["table", "split", "rows", "sha256 of the rows"], rows),
        f"`manifest.json` has sha256 `{facts.selection_sha256}` and lists the {len(files):,} files with theirs"
        + (":" if len(files) <= MAX_FILES else "."),
    ]
    if len(files) <= MAX_FILES:
        listed = [[Safe(f"`{one['name']}`"), one["num_bytes"], Safe(f"`{one['sha256']}`")] for one in files]
        blocks.append(table(["file", "bytes", "sha256"], listed))
    return [*blocks, "A published copy has `SHA256SUMS`, too: `sha256sum -c SHA256SUMS` checks a download."]
