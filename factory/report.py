"""What a run's folder says to people: status, one item explained, two selections compared. Reads only.

All numbers are counted from the shards and the journal, none is kept beside them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.cost import Costs, Journaled, costs_of, read_journaled, read_problems
from factory.delays import Quantiles
from factory.ledgers import read_ledgers, spent_of
from factory.lengths import Lengths
from factory.state import FrozenProblems, RunState, current_verdicts
from factory.storage import AnyPath, find_files, parquet_source
from factory.store import RunFolder
from factory.suspects import find_suspects
from schemas.arrow import untraced_from_table
from schemas.config import RECORDED_KINDS, SelectConfig, parse_config
from schemas.errors import ConfigError, StoreError
from schemas.manifest import Counts, Manifest
from schemas.problem import Domain, Problem
from schemas.trace import FinishReason
from schemas.verdict import Reason

MIN_ID_CHARACTERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedEarly:
    """Attempts that early abort ended for one reason. What that saved is an estimate: nobody knows their other end."""

    count: int
    num_tokens: int  # made until then
    num_saved: int  # of a loop: up to its limit; else up to the mean length of the attempts that ended otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a run stands. ``counts.generated`` includes what lies in the journal, not yet judged or committed."""

    name: str
    path: str
    num_problems: int
    counts: Counts
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    pass_rate: float | None  # true / (true + false) of all judged traces
    failed_reasons: Mapping[str, int]
    failed_details: Mapping[str, str]  # what was said of one of them, by reason
    cancelled_reasons: Mapping[str, int]
    ended_early: Mapping[str, EndedEarly]  # by reason
    quarantined: Mapping[str, int]
    num_suspects: int  # problems whose reference is probably wrong: see `suspects`
    selection: str
    accepted: int | None  # null: its tables are not built
    rejected: Mapping[str, int]
    num_tokens: int  # of committed completions, and of what was cancelled on the way
    tokens_per_s: float | None  # over the time in which they were made, without pauses; null for a recording
    tokens_per_accepted: float | None
    costs: Costs  # by today's verdicts and the selection's rule: tables need not be built
    engine_seconds: dict[str, float]  # of the last start: full, starved, blocked, loading, dead
    verdict_delays: Quantiles | None  # of that start: from the end of a trace until the scheduler had its verdict


def read_status(path: AnyPath, selection: str | None = None) -> Status:
    """Return the status of a run, whether it is going on or not, with the counts of a selection (default: the job's).

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    state = RunState.load(folder, manifest)
    return _status(folder, manifest, state, selection, read_journaled(folder, state), read_ledgers(folder.logs))


def committed_status(folder: RunFolder, manifest: Manifest, selection: str) -> Status:
    """Return the status of a run as one manifest has it: the same at any time, whatever goes on.

    The journal is not read, and ledgers, which move while engines live, are where no attempt is pending.
    """
    state = RunState.load(folder, manifest)
    nothing = Journaled(0, np.zeros(len(state.problems), np.int64))
    ledgers = [] if manifest.counts.pending else read_ledgers(folder.logs)
    return _status(folder, manifest, state, selection, nothing, ledgers)


def _status(
    folder: RunFolder,
    manifest: Manifest,
    state: RunState,
    selection: str | None,
    journaled: Journaled,
    ledgers: list[dict[str, Any]],
) -> Status:
    counts = state.counts()
    untraced = _untraced(folder, manifest)
    ledger = ledgers[-1] if ledgers else {}
    counts = Counts(**{**asdict(counts), "generated": counts.generated + journaled.num_traces})
    words = _words(folder, manifest, state.problems)
    num_tokens, busy_s = _tokens(folder, manifest)
    is_recorded = manifest.config["teacher"]["kind"] in RECORDED_KINDS
    num_tokens += untraced.num_tokens
    selection = selection or str(manifest.config["select"]["name"])
    tables = _tables_manifest(folder, selection)
    rule = SelectConfig(**(manifest.config["select"] if tables is None else tables["selection"]))
    problems = read_problems(folder, manifest, state, journaled, rule)
    costs = costs_of(problems, state.problems.ids, spent_of(ledgers))
    accepted = None if tables is None else tables["counts"]["accepted"]
    return Status(
        name=manifest.config["name"],
        path=str(folder.path),
        num_problems=len(state.problems),
        counts=counts,
        outcomes=dict(state.outcomes.most_common()),
        reasons=dict(state.reasons.most_common()),
        pass_rate=words[True] / (words[True] + words[False]) if words[True] + words[False] else None,
        failed_reasons=untraced.failed,
        failed_details=untraced.details,
        cancelled_reasons=untraced.cancelled,
        ended_early=_ended_early(folder, manifest),
        quarantined=_quarantined(folder, manifest),
        num_suspects=len(find_suspects(folder, manifest, state)),
        selection=selection,
        accepted=accepted,
        rejected={} if tables is None else tables["counts"]["rejected"],
        num_tokens=num_tokens,
        tokens_per_s=None if is_recorded or not busy_s else num_tokens / busy_s,
        tokens_per_accepted=costs.whole.tokens_per_accepted,
        costs=costs,
        engine_seconds=ledger.get("seconds", {}),
        verdict_delays=Quantiles(**delays) if (delays := ledger.get("verdict_delays")) else None,
    )


def _words(folder: RunFolder, manifest: Manifest, problems: FrozenProblems) -> Counter[bool | None]:
    words: Counter[bool | None] = Counter()
    for table in current_verdicts(folder, manifest, problems, ["problem_id", "reference_hash", "is_correct"]):
        words.update(table["is_correct"].to_pylist())
    return words


def _tokens(folder: RunFolder, manifest: Manifest) -> tuple[int, float]:
    """Return completion tokens, and the seconds in which engines made them, summed over each engine's own life."""
    total = 0
    spans: dict[str, tuple[int, int]] = {}
    columns = ["num_completion_tokens", "engine_id", "submitted_at", "finished_at"]
    for table in folder.tables_of("traces", manifest.traces, columns):
        total += pc.sum(table["num_completion_tokens"]).as_py() or 0
        grouped = table.group_by("engine_id").aggregate([("submitted_at", "min"), ("finished_at", "max")])
        for name, first, last in zip(
            grouped["engine_id"].to_pylist(),
            grouped["submitted_at_min"].cast(pa.int64()).to_pylist(),
            grouped["finished_at_max"].cast(pa.int64()).to_pylist(),
            strict=True,
        ):
            begin, end = spans.get(name, (first, last))
            spans[name] = (min(begin, first), max(end, last))
    return total, _union_s(spans.values())


def _union_s(spans: Any) -> float:
    """Return the length in seconds of the union of intervals in microseconds."""
    total, end = 0, 0
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total / 1e6


class _Untraced(NamedTuple):
    """Attempts that ended without a trace: counts by reason, what was said of the first that failed, tokens made."""

    failed: dict[str, int]
    details: dict[str, str]
    cancelled: dict[str, int]
    num_tokens: int


def _untraced(folder: RunFolder, manifest: Manifest) -> _Untraced:
    counts: Counter[tuple[str, str]] = Counter()
    details: dict[str, str] = {}
    num_tokens = 0
    for table in folder.tables_of("untraced", manifest.untraced, ["ending", "reason", "detail", "num_tokens"]):
        num_tokens += pc.sum(table["num_tokens"]).as_py() or 0
        for row in table.group_by(["ending", "reason"]).aggregate([("detail", "min"), ("detail", "count")]).to_pylist():
            counts[row["ending"], row["reason"]] += row["detail_count"]
            if row["ending"] == "failed":
                details.setdefault(row["reason"], row["detail_min"])
    by_ending = {
        ending: {reason: count for (found, reason), count in counts.items() if found == ending}
        for ending in ("failed", "cancelled")
    }
    return _Untraced(by_ending["failed"], details, by_ending["cancelled"], num_tokens)


def _ended_early(folder: RunFolder, manifest: Manifest) -> dict[str, EndedEarly]:
    """Return what early abort ended, by reason, the most frequent first."""
    columns = ["finish_reason", "finish_detail", "problem_id", "num_prompt_tokens", "num_completion_tokens"]
    aborted: list[dict[str, Any]] = []
    num_others = tokens_of_others = 0
    for table in folder.tables_of("traces", manifest.traces, columns):
        is_abort = pc.equal(table["finish_reason"], str(FinishReason.ABORT))
        aborted += table.filter(is_abort).to_pylist()
        others = table.filter(pc.invert(is_abort))["num_completion_tokens"]
        num_others, tokens_of_others = num_others + len(others), tokens_of_others + (pc.sum(others).as_py() or 0)
    if not aborted:
        return {}
    mean = tokens_of_others / num_others if num_others else 0.0
    limit_of = _limits(folder, manifest)
    found: dict[str, EndedEarly] = {}
    for row in aborted:
        reason, made = (row["finish_detail"] or "unknown").partition(":")[0], row["num_completion_tokens"]
        end = limit_of(row) if reason == Reason.REPETITION_LOOP else mean
        old = found.get(reason, EndedEarly(count=0, num_tokens=0, num_saved=0))
        found[reason] = EndedEarly(
            count=old.count + 1, num_tokens=old.num_tokens + made, num_saved=old.num_saved + max(0, round(end) - made)
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].count))


def _limits(folder: RunFolder, manifest: Manifest) -> Callable[[Mapping[str, Any]], int]:
    """Return a function from a trace's row to the tokens that it could have had."""
    job = parse_config(manifest.config, origin=str(folder.path))
    lengths = Lengths.of(job)
    context = getattr(getattr(job.teacher, "engine", job.teacher), "max_model_len", None)
    domains: dict[str, Domain] = {}
    if lengths.by_domain:
        for table in folder.tables_of("problems", manifest.problems, ["problem_id", "domain"]):
            domains |= {row["problem_id"]: Domain(row["domain"]) for row in table.to_pylist()}

    def limit_of(row: Mapping[str, Any]) -> int:
        most = lengths.most(domains[row["problem_id"]]) if domains else lengths.max_tokens
        return most if context is None else min(most, context - row["num_prompt_tokens"])

    return limit_of


def _quarantined(folder: RunFolder, manifest: Manifest) -> dict[str, int]:
    tables = folder.tables_of("quarantine", manifest.quarantine, ["reason"])
    return dict(Counter(reason for table in tables for reason in table["reason"].to_pylist()))


def _tables_manifest(folder: RunFolder, selection: str) -> dict[str, Any] | None:
    try:
        body: dict[str, Any] = json.loads((folder.tables / selection / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{folder.tables / selection}/manifest.json: cannot be read: {error}; run `factory select` again"
        ) from error
    return body


def accepted_sample(path: AnyPath, selection: str) -> dict[str, Any] | None:
    """Return the first accepted row of a selection; None if it accepted none."""
    for file in find_files(path / "tables" / selection / "sft", "train-*.parquet"):
        table = pq.ParquetFile(parquet_source(file))
        if table.metadata.num_rows:
            rows: list[dict[str, Any]] = table.read_row_group(0).slice(0, 1).to_pylist()
            return rows[0]
    return None


def explain_item(path: AnyPath, item_id: str) -> dict[str, Any]:
    """Return all that a run knows of a trace or a problem, found by the beginning of its id.

    Raises:
        ConfigError: If no id, or more than one, begins so.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    if len(item_id) < MIN_ID_CHARACTERS:
        raise ConfigError(f"id {item_id!r} is too short; give at least {MIN_ID_CHARACTERS} characters")
    traces = list(_matching(folder, manifest, item_id))
    known = FrozenProblems.load(folder, manifest).ids
    problem_ids = set(known.filter(pc.starts_with(known, item_id)).to_pylist())
    found = {row["trace_id"] for row in traces if row["trace_id"].startswith(item_id)} | problem_ids
    if len(found) != 1:
        many = f"{len(found)} ids begin so: {', '.join(sorted(found)[:5])}" if found else "no trace or problem has it"
        raise ConfigError(
            f"{path}: {item_id!r}: {many}; `factory status` says what the run holds, tables/*/candidates ids"
        )
    problem_id = next(iter(problem_ids), None) or traces[0]["problem_id"]
    problem, prompt = next(pair for pair in folder.problems(manifest) if pair[0].problem_id == problem_id)
    return {
        "problem": _problem_summary(problem) | {"prompt": prompt.text, "prompt_sha256": prompt.sha256},
        "traces": [_explained_trace(folder, manifest, row) for row in sorted(traces, key=lambda r: r["sample_index"])],
        "untraced": [
            asdict(item)
            for table in folder.tables_of("untraced", manifest.untraced)
            for item in untraced_from_table(table)
            if item.problem_id == problem_id
        ],
    }


def _matching(folder: RunFolder, manifest: Manifest, item_id: str) -> Iterator[dict[str, Any]]:
    for table in folder.tables_of("traces", manifest.traces):
        wanted = pc.or_(pc.starts_with(table["trace_id"], item_id), pc.starts_with(table["problem_id"], item_id))
        yield from table.filter(wanted).drop_columns(["token_ids"]).to_pylist()


def _problem_summary(problem: Problem) -> dict[str, Any]:
    return {"problem_id": problem.problem_id, "reference_hash": problem.reference_hash, **asdict(problem)}


def _explained_trace(folder: RunFolder, manifest: Manifest, row: dict[str, Any]) -> dict[str, Any]:
    """Return a trace with the verdicts of every set of verifiers, and what each selection decided."""
    verdicts = {}
    for digest, shards in manifest.verdicts.items():
        for table in folder.tables_of("verdicts", shards):
            for verdict in table.filter(pc.equal(table["trace_id"], row["trace_id"])).to_pylist():
                verdicts[digest] = verdict
    selections = {}
    columns = ["trace_id", "is_accepted", "reject_reason", "rank"]
    for selection in find_files(folder.tables, "*/candidates"):
        for file in find_files(selection, "train-*.parquet"):
            is_wanted = pc.field("trace_id") == row["trace_id"]
            rows = pq.read_table(parquet_source(file), columns=columns, filters=is_wanted).to_pylist()
            if rows:
                selections[selection.parent.name] = rows[0]
    return {**row, "verdicts": verdicts, "selections": selections}
