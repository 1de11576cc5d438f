"""Tables: a run's problems, traces and verdicts become the Parquet files that people load.

Last step of a run: `<root>/<selection>/{sft,candidates,runs}/train-00000-of-0000N.parquet` and a `manifest.json`.
Invariants: ``candidates`` has every trace, ``sft`` exactly the accepted ones; the same input gives the same bytes; a
selection's folder appears whole, in place of the one before. Judges nothing; what is accepted, `selection` decides.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.duplicates import LikeTraces
from factory.selection import Candidate, Decision, Sums, select, selection_digest, sum_decisions
from factory.shards import SPILL_BYTES, ShardWriter, SortedRows
from factory.storage import AnyPath, find_files, parquet_source, replace_folder, sync_folder
from schemas.arrow import PROBLEMS, TRACES, VERDICTS
from schemas.config import SelectConfig
from schemas.errors import ConfigError, CorruptRunError, StoreError
from schemas.manifest import Shard
from schemas.problem import Answer, Choice, reference_from_json
from schemas.tables import CANDIDATES, RUNS, SFT, TABLES_VERSION, RunRow, run_to_row
from schemas.trace import THINK_OPEN, TraceFormat, split_completion
from schemas.verdict import Outcome

# Columns of a run's own files that the tables need: all but the token ids, which are half of their bytes.
PROBLEM_COLUMNS: Final = [name for name in PROBLEMS.names if name not in ("prompt_text", "prompt_token_ids")]
TRACE_COLUMNS: Final = [
    name for name in TRACES.names if name not in ("token_ids", "engine_id", "first_token_at", "resumed_at")
]
VERDICT_COLUMNS: Final = [name for name in VERDICTS.names if name != "reference_hash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """What tables are made of, each as `schemas/arrow.py` defines it, in any order; more columns do no harm.

    Of a problem, or a trace's verdict, that comes twice, the later one counts. Each iterable is read once.
    """

    problems: Iterable[pa.Table]  # with PROBLEM_COLUMNS
    traces: Iterable[pa.Table]  # with TRACE_COLUMNS
    verdicts: Iterable[pa.Table]  # with VERDICT_COLUMNS; against today's references
    runs: Sequence[RunRow]
    fingerprint: str  # of the run
    verdict_digest: str  # which verifiers judged
    num_first: int = 32_767  # attempts per problem, by sample index, that were made whatever the others gave


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTables:
    """What was written. ``num_traces`` = ``sums.judged`` + ``num_unjudged`` + ``num_waiting`` (no verdict yet)."""

    folder: AnyPath
    selection_digest: str
    sums: Sums
    num_traces: int
    num_unjudged: int
    num_waiting: int
    outcomes: Mapping[str, int]
    files: tuple[Shard, ...]


def write_tables(
    root: AnyPath, content: RunContent, config: SelectConfig, *, spill_bytes: int = SPILL_BYTES
) -> WrittenTables:
    """Return what was written to ``<root>/<config.name>``; a selection of that name is replaced.

    Raises:
        CorruptRunError: If a trace belongs to no problem.
    """
    root.mkdir(parents=True, exist_ok=True)
    beside = root if isinstance(root, Path) else None  # else where temporary files lie: the upload comes last
    work = Path(tempfile.mkdtemp(prefix=f".{config.name}.", suffix=".tmp", dir=beside))
    try:
        joined = _join(work, content, config, spill_bytes)
        built = work / config.name
        shards = _write_configs(built, joined, content.runs)
        written = _written(root / config.name, joined, shards)
        _write_manifest(built / "manifest.json", written, content, config)
        _put_in_place(built, written.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return written


# Reading: light columns first, for the selection; the text waits in sorted buckets.


class _Group(NamedTuple):
    """What the answer checks said about the attempts at one problem."""

    num_true: int = 0
    num_judged: int = 0
    first_true: int = 0  # of the first attempts, which no stopping rule has touched
    first_judged: int = 0

    @property
    def pass_rate(self) -> float | None:
        return self.num_true / self.num_judged if self.num_judged else None

    @property
    def pass_rate_unbiased(self) -> float | None:
        """Unbiased given how many of the first attempts were judged: which those are does not depend on the others."""
        return self.first_true / self.first_judged if self.first_judged else None


class _Joined(NamedTuple):
    problems: dict[str, dict[str, Any]]
    traces: SortedRows
    verdicts: SortedRows
    outcomes: dict[str, str | None]  # by trace_id; null without a verdict
    decisions: dict[str, Decision]
    groups: dict[str, _Group]
    config: SelectConfig
    digest: str


class _Word(NamedTuple):
    """The light columns of a verdict."""

    outcome: str
    reason: str | None
    is_correct: bool | None


def _join(work: Path, content: RunContent, config: SelectConfig, spill_bytes: int) -> _Joined:
    problems = {
        row["problem_id"]: row for table in content.problems for row in table.select(PROBLEM_COLUMNS).to_pylist()
    }
    verdicts = SortedRows(work, "verdicts", spill_bytes=spill_bytes)
    words: dict[str, _Word] = {}
    for table in content.verdicts:
        verdicts.add(table.select(VERDICT_COLUMNS))
        ids, *columns = (table[name].to_pylist() for name in ("trace_id", *_Word._fields))
        words.update(zip(ids, map(_Word._make, zip(*columns, strict=True)), strict=True))
    traces = SortedRows(work, "traces", spill_bytes=spill_bytes)
    outcomes: dict[str, str | None] = {}
    candidates: list[Candidate] = []
    like = None if config.near_duplicates is None else LikeTraces(config.near_duplicates)
    for table in content.traces:
        traces.add(table.select(TRACE_COLUMNS))
        if like is not None:
            _add_correct(like, table, words)
        for row in table.select(["trace_id", "problem_id", "sample_index", "num_completion_tokens"]).to_pylist():
            if row["problem_id"] not in problems:
                raise CorruptRunError(
                    f"trace {row['trace_id']} is of problem {row['problem_id']}, which the run does not have; "
                    "restore its problem shards"
                )
            word = words.get(row["trace_id"])
            outcomes[row["trace_id"]] = None if word is None else word.outcome
            if word is not None:
                candidates.append(Candidate(**row, **word._asdict(), domain=problems[row["problem_id"]]["domain"]))
    if like is not None:
        found = like.found()
        candidates = [candidate._replace(like=found.get(candidate.trace_id)) for candidate in candidates]
    by_problem: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_problem[candidate.problem_id].append(candidate)
    groups = list(by_problem.values())
    return _Joined(
        problems=problems,
        traces=traces,
        verdicts=verdicts,
        outcomes=outcomes,
        decisions={
            decision.trace_id: decision for decisions in select(lambda: groups, config) for decision in decisions
        },
        groups=_group(candidates, content.num_first),
        config=config,
        digest=selection_digest(config, {"verdicts": content.verdict_digest}),
    )


def _add_correct(like: LikeTraces, table: pa.Table, words: Mapping[str, _Word]) -> None:
    """Have the correct traces of a table compared."""
    said = map(words.get, table["trace_id"].to_pylist())
    right = [word is not None and word.outcome == Outcome.CORRECT for word in said]
    names = ["problem_id", "trace_id", "text"]
    like.add(*(column.to_pylist() for column in table.select(names).filter(pa.array(right, pa.bool_())).columns))


def _group(candidates: Iterable[Candidate], num_first: int) -> dict[str, _Group]:
    groups: dict[str, _Group] = defaultdict(_Group)
    for candidate in candidates:
        if (word := candidate.is_correct) is not None:
            true, judged, first_true, first_judged = groups[candidate.problem_id]
            is_first = candidate.sample_index < num_first
            groups[candidate.problem_id] = _Group(
                true + word, judged + 1, first_true + (word and is_first), first_judged + is_first
            )
    return groups


# Rows.


def _rows(joined: _Joined) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield, by problem and trace_id, the row of ``candidates``, and that of ``sft`` where the trace was accepted."""
    for traces, verdicts in zip(joined.traces.buckets(), joined.verdicts.buckets(), strict=True):
        verdict_by_id = {verdict["trace_id"]: verdict for verdict in verdicts}
        for trace in traces:
            problem = joined.problems[trace["problem_id"]]
            shared = _shared_columns(joined, problem, trace)
            candidate = _candidate_row(joined, shared, problem, trace, verdict_by_id.get(trace["trace_id"]))
            yield candidate, _sft_row(joined, candidate) if candidate["is_accepted"] else None


def _shared_columns(joined: _Joined, problem: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    group = joined.groups.get(trace["problem_id"], _Group())
    names = ("domain", "language", "source", "source_row_id", "license", "messages", "prompt_sha256", "reference_hash")
    return {
        **{name: problem[name] for name in names},
        "reference": reference_text(problem["reference"]),
        "reference_kind": None if problem["reference"] is None else json.loads(problem["reference"])["type"].lower(),
        "pass_rate": group.pass_rate,
        "pass_rate_unbiased": group.pass_rate_unbiased,
        "num_true": group.num_true,
        "num_judged": group.num_judged,
        "selection_digest": joined.digest,
    }


def _candidate_row(
    joined: _Joined,
    shared: Mapping[str, Any],
    problem: Mapping[str, Any],
    trace: Mapping[str, Any],
    verdict: Mapping[str, Any] | None,
) -> dict[str, Any]:
    decision = joined.decisions.get(trace["trace_id"])
    reasoning, response = split_completion(trace["text"])
    return {
        **trace,
        **shared,
        "reasoning": reasoning,
        "response": response,
        "outcome": None if verdict is None else verdict["outcome"],
        "reason": None if verdict is None else verdict["reason"],
        "is_correct": None if verdict is None else verdict["is_correct"],
        "checks": [] if verdict is None else [_check_row(check) for check in verdict["checks"]],
        "is_accepted": None if decision is None else decision.is_accepted,
        "reject_reason": None if decision is None else decision.reason,
        "rank": None if decision is None else decision.rank,
    }


def _check_row(check: Mapping[str, Any]) -> dict[str, Any]:
    # Without its milliseconds: judging again would change every file.
    return {**check, **(check["math"] or {}), **(check["code"] or {})}


def _sft_row(joined: _Joined, candidate: Mapping[str, Any]) -> dict[str, Any]:
    system = joined.config.system
    turns = [] if system is None else [{"role": "system", "content": system}]
    content = assistant_content(candidate["text"], TraceFormat(candidate["format"]))
    row = {name: candidate[name] for name in SFT.names if name in candidate}
    return {
        **row,
        "messages": [*turns, *candidate["messages"], {"role": "assistant", "content": content}],
        "num_tokens": candidate["num_completion_tokens"],
        "reasoning_tokens": candidate["num_reasoning_tokens"],
        "checks": [f"{check['name']}@{check['version']}:{check['outcome']}" for check in candidate["checks"]],
    }


def assistant_content(text: str, trace_format: TraceFormat) -> str:
    """Return a completion as a student must learn it: as it is, with the opening tag that stood in the prompt put back.

    The tag comes with the line break that R1's chat template puts after it, unless the text begins with one.
    """
    if trace_format is not TraceFormat.R1_PREFILLED or text.lstrip().startswith(THINK_OPEN):
        return text
    return THINK_OPEN + ("" if text.startswith("\n") else "\n") + text


def reference_text(reference: str | None) -> str | None:
    """Return a reference (JSON, as a run stores it) for people: an answer or a letter plain, all else as JSON."""
    if reference is None:
        return None
    match reference_from_json(json.loads(reference)):
        case Answer(text=text):
            return text
        case Choice(letter=letter):
            return letter
        case _:
            return reference


# Writing.


def _write_configs(built: Path, joined: _Joined, runs: Sequence[RunRow]) -> tuple[Shard, ...]:
    built.mkdir()
    with ShardWriter(built / "sft", SFT) as sft, ShardWriter(built / "candidates", CANDIDATES) as candidates:
        for candidate_row, sft_row in _rows(joined):
            candidates.write(candidate_row)
            if sft_row is not None:
                sft.write(sft_row)
    with ShardWriter(built / "runs", RUNS) as run_table:
        for run in sorted(runs, key=lambda run: run.fingerprint):
            run_table.write(run_to_row(run))
    return sft.shards + candidates.shards + run_table.shards


def _written(folder: AnyPath, joined: _Joined, shards: tuple[Shard, ...]) -> WrittenTables:
    outcomes = Counter(outcome for outcome in joined.outcomes.values() if outcome is not None)
    return WrittenTables(
        folder=folder,
        selection_digest=joined.digest,
        sums=sum_decisions(joined.decisions.values()),
        num_traces=len(joined.outcomes),
        num_unjudged=outcomes[Outcome.UNJUDGED],
        num_waiting=list(joined.outcomes.values()).count(None),
        outcomes=dict(sorted(outcomes.items())),
        files=shards,
    )


def _write_manifest(path: Path, written: WrittenTables, content: RunContent, config: SelectConfig) -> None:
    # Without a date: the same input gives the same bytes.
    body = {
        "version": TABLES_VERSION,
        "selection": config.model_dump(mode="json"),
        "selection_digest": written.selection_digest,
        "verdict_digest": content.verdict_digest,
        "fingerprint": content.fingerprint,
        "counts": {
            "traces": written.num_traces,
            "judged": written.sums.judged,
            "accepted": written.sums.accepted,
            "rejected": dict(written.sums.rejected),
            "unjudged": written.num_unjudged,
            "waiting": written.num_waiting,
            "outcomes": dict(written.outcomes),
        },
        "files": [asdict(shard) for shard in written.files],
        "pyarrow": pa.__version__,
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(built: Path, folder: AnyPath) -> None:
    """Move a finished selection to its name. A folder cannot be replaced in one step: for a moment neither is there.

    A crash in that moment costs a rerun: tables follow from the run, and the next call makes them again.
    """
    if not isinstance(folder, Path):
        replace_folder(built, folder)
        return
    for inner in [path for path in built.iterdir() if path.is_dir()]:
        sync_folder(inner)
    sync_folder(built)
    if folder.exists():
        folder.rename(built.parent / "replaced")  # goes with the work folder
    built.rename(folder)
    sync_folder(folder.parent)


# Reading back.


def read_decisions(folder: AnyPath) -> dict[str, Decision]:
    """Return the decisions of a selection's folder by trace_id; traces that were not judged have none.

    Raises:
        ConfigError: If the folder holds no selection.
        StoreError: If its table of candidates cannot be read.
    """
    files = find_files(folder / "candidates", "train-*.parquet")
    if not files:
        raise ConfigError(
            f"{folder}: holds no candidates/train-*.parquet; give the folder of a selection, such as "
            "runs/demo/tables/default"
        )
    decisions: dict[str, Decision] = {}
    for path in files:
        try:
            table = pq.read_table(parquet_source(path), columns=["trace_id", "is_accepted", "reject_reason", "rank"])
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"{path}: is no readable table of candidates: {error}; run `factory select` again"
            ) from error
        for row in table.filter(pc.is_valid(table["is_accepted"])).to_pylist():
            row["reason"] = row.pop("reject_reason")
            decisions[row["trace_id"]] = Decision(**row)
    return decisions
