"""`factory bench resume`: how long a run with many committed traces needs until it leases again.

The run is made here, by the real journal and the real committer, from made-up traces of a kilobyte with a made-up
verdict: a week of generation is not what is measured. Then a new start's steps are taken one after the other in a fresh
process: what the driver does before Ray, the committer's claim, the coordinator's reading, an engine's first pull. In a
run the committer and the coordinator start side by side. Starting Ray and loading the teacher are left out.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from factory.actors import RunSpec, load_coordinator
from factory.committer import Committer
from factory.feeder import Report
from factory.journal import SegmentHeader, SegmentWriter
from factory.plan import Plan, make_plan
from factory.store import RunFolder
from jobs import driver
from schemas.config import parse_config
from schemas.problem import Problem
from schemas.trace import FinishReason, Trace, TraceFormat
from schemas.verdict import Check, JudgedTrace, Outcome, Verdict

NUM_SAMPLES: Final = 8
PENDING: Final = 64  # problems without a trace, so that there is something to lease
TRACES_PER_COMMIT: Final = 10_000  # a commit each two minutes at 80 traces a second
TEXT: Final = f"<think>\n{'I add the numbers one after the other and check the sum. ' * 17}\n</think>\n\n\\boxed{{3}}"
TOKENS: Final = tuple(range(1_000, 1_250))  # a token is four bytes of text or so


def make_run(folder: Path, num_traces: int, done: Callable[[int], None]) -> float:
    """Make a run with that many committed traces; return the traces that were committed per second."""
    plan = _plan(folder, -(-num_traces // NUM_SAMPLES) + PENDING)
    path = folder / "run"
    path.mkdir(parents=True)
    driver.freeze(plan, path, lambda _: None)
    runs = RunFolder(path)
    problems = [problem for problem, _ in runs.problems(runs.manifest())]
    committer = Committer(path, verifiers=runs.manifest().verifiers)
    keys = [(problem, index) for problem in problems[:-PENDING] for index in range(NUM_SAMPLES)][:num_traces]
    seconds = 0.0
    for number, start in enumerate(range(0, num_traces, TRACES_PER_COMMIT), 1):
        traces = [_trace(plan, *key) for key in keys[start : start + TRACES_PER_COMMIT]]
        judged = [_verdict(trace, key[0]) for trace, key in zip(traces, keys[start:], strict=False)]
        segment = _segment(runs, traces, number)
        began = time.perf_counter()
        committer.commit(segments=[segment], judged=judged)
        seconds += time.perf_counter() - began
        done(start + len(traces))
    return num_traces / seconds


def _plan(folder: Path, num_problems: int) -> Plan:
    rows = folder / "problems.jsonl"
    if not rows.exists():
        lines = (
            json.dumps({"question": f"What is {n} + {7 * n}? {'Think about it. ' * 15}", "answer": str(8 * n)}) + "\n"
            for n in range(num_problems)
        )
        rows.write_text("".join(lines))
    job = {
        "name": "resume",
        "sources": [{"kind": "jsonl", "path": str(rows), "columns": {"problem": "question", "answer": "answer"}}],
        "teacher": {"kind": "scripted"},
        "sampling": {"num_samples": NUM_SAMPLES, "max_tokens": 400},
    }
    return make_plan(parse_config(job, origin="the benchmark"), {})


def _trace(plan: Plan, problem: Problem, sample_index: int) -> Trace:
    return Trace(
        fingerprint=plan.fingerprint,
        problem_id=problem.problem_id,
        sample_index=sample_index,
        format=TraceFormat.R1,
        text=TEXT,
        token_ids=TOKENS,
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=80,
        num_completion_tokens=len(TOKENS),
        teacher=plan.identity.name,
        teacher_revision=plan.identity.revision,
        engine="scripted",
        engine_version="1",
        engine_id="engine-0-e1-1",
        submitted_at_us=1_000_000,
        finished_at_us=2_000_000,
    )


def _verdict(trace: Trace, problem: Problem) -> JudgedTrace:
    check = Check(name="math", version="1", outcome=Outcome.CORRECT)
    verdict = Verdict(reference_hash=problem.reference_hash, checks=(check,))
    return JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=verdict)


def _segment(folder: RunFolder, traces: Sequence[Trace], number: int) -> str:
    header = SegmentHeader(fingerprint=traces[0].fingerprint, engine_id="engine-0-e1-1", sequence=number)
    writer = SegmentWriter(folder.journal, header)
    for trace in traces:
        writer.append(trace)
    writer.close()
    return writer.name


def measure(folder: Path) -> dict[str, Any]:
    """Return the seconds of each step of a start, and the MB of memory at its end, in a process of its own."""
    command = [sys.executable, "-m", "jobs.bench.resume", str(folder)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def _steps(folder: Path) -> dict[str, float]:
    """Take the steps."""
    path = folder / "run"
    began = time.perf_counter()
    marks: dict[str, float] = {}

    def mark(name: str) -> None:
        marks[name] = time.perf_counter() - began - sum(marks.values())

    plan = _plan(folder, 0)
    mark("plan of the job")
    driver.freeze(plan, path, lambda _: None)
    mark("driver: claim, sources unchanged")
    Committer(path, verifiers=RunFolder(path).manifest().verifiers)
    mark("committer: claim")
    coordinator = load_coordinator(RunSpec(path=path, job=plan.job, fingerprint=plan.fingerprint), generate=True)
    mark("coordinator: manifest, shards, prompts")
    orders = coordinator.engine_report(Report(engine_id="engine", capacity=256, in_flight=0, num_tokens_out=0))
    mark("first 256 leases")
    assert orders.leases, "nothing was leased"
    marks["in all"] = sum(marks.values())
    return marks | {"MB at the end": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_steps(Path(sys.argv[1]))))
