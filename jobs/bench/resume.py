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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from factory.actors import RunSpec, load_coordinator
from factory.committer import Committer
from factory.feeder import Report
from factory.journal import SegmentHeader, SegmentWriter
from factory.store import RunFolder
from jobs.bench import made
from jobs.freezing import freeze

NUM_SAMPLES: Final = 8
PENDING: Final = 64  # problems without a trace, so that there is something to lease
TRACES_PER_COMMIT: Final = 10_000  # a commit each two minutes at 80 traces a second


def make_run(folder: Path, num_traces: int, done: Callable[[int], None]) -> float:
    """Make a run with that many committed traces; return the traces that were committed per second."""
    run = made.freeze_run(folder, -(-num_traces // NUM_SAMPLES) + PENDING, NUM_SAMPLES)
    pairs = run.folder.problems(run.folder.manifest())
    keys = [(problem, index) for problem, _ in pairs for index in range(NUM_SAMPLES)][:num_traces]
    committer = Committer(run.path, verifiers=run.folder.manifest().verifiers)
    seconds = 0.0
    for number, start in enumerate(range(0, num_traces, TRACES_PER_COMMIT), 1):
        header = SegmentHeader(fingerprint=run.plan.fingerprint, engine_id="engine-0-e1-1", sequence=number)
        writer = SegmentWriter(run.folder.journal, header)
        judged = []
        for problem, index in keys[start : start + TRACES_PER_COMMIT]:
            trace = run.trace(problem.problem_id, index)
            writer.append(trace)
            judged.append(made.verdict(trace.trace_id, problem.problem_id, problem.reference_hash))
        writer.close()
        began = time.perf_counter()
        committer.commit(segments=[writer.name], judged=judged)
        seconds += time.perf_counter() - began
        done(start + len(judged))
    return num_traces / seconds


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

    plan = made.plan_of(folder, NUM_SAMPLES)
    mark("plan of the job")
    freeze(plan, path, lambda _: None)
    mark("driver: job and sources unchanged")
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
