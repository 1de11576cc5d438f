"""Small runs on disk and real child processes, for tests of the store, the coordinator and the drills.

Nothing here stands in for product code: records are built by their classes, segments by ``SegmentWriter``, manifests by
``Committer``, and child processes are the installed ``factory`` command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from factory.committer import Committer, FrozenJob
from factory.journal import Position, SegmentHeader, SegmentWriter, Traced, read_trace, scan_segment
from factory.storage import AnyPath, write_atomically
from factory.store import RunFolder
from jobs.bench.drill import (
    Key,
    committed_traces,
    is_alive,
)
from schemas.problem import Answer, Domain, Message, Problem, Prompt
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Verdict

FINGERPRINT = "f" * 32


def make_problem(number: int, answer: str | None = None) -> Problem:
    """Return the problem of that number; another ``answer`` is another reference of the same problem."""
    return Problem(
        domain=Domain.MATH,
        messages=(Message(role="user", content=f"What is {number} + 1?"),),
        source="tests",
        source_row_id=str(number),
        reference=Answer(text=answer or str(number + 1)),
    )


def make_prompt(problem: Problem) -> Prompt:
    """Return the prompt that the scripted teacher would be given: bytes as tokens."""
    text = problem.question
    return Prompt(
        problem_id=problem.problem_id,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        token_ids=tuple(text.encode()),
    )


def make_trace(problem_id: str, sample_index: int, *, text: str = "", engine_id: str = "engine-0-e1-1") -> Trace:
    """Return a trace of the run with ``FINGERPRINT``."""
    text = text or f"<think>\nabout {problem_id} {sample_index}\n</think>\n\n\\boxed{{{sample_index}}}"
    return Trace(
        fingerprint=FINGERPRINT,
        problem_id=problem_id,
        sample_index=sample_index,
        format=TraceFormat.R1,
        text=text,
        token_ids=tuple(text.encode()),
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=3,
        num_completion_tokens=len(text.encode()),
        teacher="scripted",
        teacher_revision="1",
        engine="scripted",
        engine_version="1",
        engine_id=engine_id,
        submitted_at_us=1_000_000,
        finished_at_us=2_000_000 + sample_index,
    )


def make_verdict(trace: Trace, problem: Problem, outcome: Outcome = Outcome.CORRECT) -> JudgedTrace:
    """Return a verdict of one check against the problem's reference."""
    reason = {
        Outcome.UNJUDGED: Reason.WORKER_DIED,
        Outcome.WRONG_ANSWER: Reason.VALUE_DIFFERS,
        Outcome.BAD_REFERENCE: Reason.UNPARSED_REFERENCE,
    }.get(outcome)
    check = Check(name="math", version="1", outcome=outcome, reason=reason)
    verdict = Verdict(reference_hash=problem.reference_hash, checks=(check,))
    return JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=verdict)


def write_segment(journal: Path, traces: Iterable[Trace], *, engine_id: str = "engine-0-e1-1", sequence: int) -> str:
    """Write a closed segment; return its name."""
    writer = SegmentWriter(journal, SegmentHeader(fingerprint=FINGERPRINT, engine_id=engine_id, sequence=sequence))
    for trace in traces:
        writer.append(trace)
    writer.close()
    return writer.name


CONFIG: Mapping[str, object] = {"name": "tests"}


def start_run(
    path: Path,
    problems: Sequence[Problem],
    *,
    num_samples: int,
    verifiers: str = "v1",
    config: Mapping[str, object] = CONFIG,
) -> Committer:
    """Return the committer of a run that holds these problems; call it again to extend or to resume the run."""
    committer = Committer(path, verifiers=verifiers)
    parts = {
        "teacher": {"name": "scripted", "revision": "1"},
        "prompt": {"template": "boxed", "system": None, "chat_template_sha256": None, "format": "r1"},
    }
    body = {"fingerprint": FINGERPRINT, "fingerprint_parts": parts, "verifiers": {"math": "1"}, "versions": {}}
    write_atomically(path / "run.yaml", yaml.safe_dump(body).encode())
    freeze(committer, problems, num_samples=num_samples, config=config)
    return committer


def freeze(
    committer: Committer, problems: Sequence[Problem], *, num_samples: int, config: Mapping[str, object] = CONFIG
) -> int:
    """Freeze these problems; return how many are new, or have a repaired reference."""
    job = FrozenJob(fingerprint=FINGERPRINT, config=config, sources_state="unchanged", num_samples=num_samples)
    return committer.freeze(job, [(problem, make_prompt(problem)) for problem in problems], [])


def traced(position: Position, trace: Trace) -> Traced:
    """Return what a scan has of a trace there."""
    return Traced(trace.problem_id, trace.sample_index, position, trace.num_completion_tokens)


def traces_of(segment: AnyPath) -> list[Trace]:
    """Return the traces of a journal segment, in its order."""
    return [read_trace(segment.parent, one.position) for one in scan_segment(segment).traces]


def traces_on_disk(path: Path) -> dict[Key, Trace]:
    """Return every trace that the journal or the newest manifest holds; a committed one wins over a journaled one.

    The journal is read first: a trace moves from there to a manifest, never back.
    """
    found: dict[Key, Trace] = {}
    folder = RunFolder(path)
    for segment in folder.leftover_segments():
        try:
            traces = traces_of(segment)
        except FileNotFoundError:  # committed since the listing
            continue
        for trace in traces:
            found.setdefault((trace.problem_id, trace.sample_index), trace)
    manifest = folder.find_manifest()
    if manifest is not None:
        found |= {(trace.problem_id, trace.sample_index): trace for trace in committed_traces(path, manifest)}
    return found


# Child processes


def children_of(pid: int) -> set[int]:
    """Return the ids of all living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {child for child in found if is_alive(child)}


def write_job(folder: Path, *, num_problems: int, **parts: object) -> Path:
    """Write a job file with additions as problems and the scripted teacher; return its path."""
    lines = "".join(f'{{"q": "What is {n} + {7 * n}?", "a": "{8 * n}"}}\n' for n in range(num_problems))
    (folder / "problems.jsonl").write_text(lines, encoding="utf-8")
    source = {"kind": "jsonl", "path": str(folder / "problems.jsonl"), "columns": {"problem": "q", "answer": "a"}}
    body = {"name": "drill", "sources": [source], "teacher": {"kind": "scripted"}, **parts}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    return path
