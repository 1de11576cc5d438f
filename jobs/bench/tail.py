"""`factory bench saturation --tail N`: N jobs one after the other, and the same jobs over one set of engines.

Real: the command, Ray, journal, verification, tables. The teacher is scripted: every attempt goes at the same speed
however few there are, as in an engine whose batch is not full, and some are as long as the limit allows. Slots used are
those that made tokens, as a share of the time in which the engine was there; that of loading stands beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from factory.ledgers import read_ledgers
from factory.store import RunFolder
from jobs.bench.drill import factory_process
from schemas.errors import FactoryError

SLOTS: Final = 16
TOKENS_PER_S: Final = 40.0  # of one attempt
LOAD_S: Final = 10.0
NUM_PROBLEMS: Final = 60
TEACHER: Final = {
    "kind": "scripted",
    "max_num_seqs": SLOTS,
    "tokens_per_s": 1e6,
    "tokens_per_s_each": TOKENS_PER_S,
    "mean_tokens": 60,
    "loop_rate": 0.05,
    "start_s": LOAD_S,
}


def measure(folder: Path, num_jobs: int, done: Callable[[int], None]) -> list[dict[str, Any]]:
    """Return a row for each way: seconds of it all, of engines by what they did, and the share of slots used.

    Raises:
        FactoryError: If a run does not end well.
    """
    ways = {"one after the other": range(num_jobs), "over one set of engines": [range(num_jobs)]}
    rows = []
    for number, (way, starts) in enumerate(ways.items()):
        place = folder / str(number)
        place.mkdir(parents=True)
        jobs = [_write_job(place, job) for job in range(num_jobs)]
        began = time.monotonic()
        for start in starts:
            _run([jobs[start]] if isinstance(start, int) else jobs, place / f"start-{start}")
        rows.append({"jobs": way, "seconds": time.monotonic() - began} | _figures(jobs))
        done(number + 1)
    return rows


def _write_job(folder: Path, number: int) -> Path:
    problems, path = folder / f"{number}.jsonl", folder / f"{number}.yaml"
    rows = [{"q": f"What is {one} + {number}?", "a": str(one + number)} for one in range(NUM_PROBLEMS)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = {
        "name": f"tail-{number}",
        "sources": [{"kind": "jsonl", "path": str(problems), "columns": {"problem": "q", "answer": "a"}}],
        "teacher": TEACHER,
        "sampling": {"num_samples": 2, "max_tokens": 480},
        "schedule": {"early_abort": False},
    }
    path.write_text(yaml.safe_dump(body))
    return path


def _folder(job: Path) -> Path:
    return job.with_suffix("")


def _run(jobs: Sequence[Path], mark: Path) -> None:
    folders = [word for job in jobs for word in ("--run", str(_folder(job)))]
    with factory_process(["run", *jobs, *folders], mark) as child:
        if code := child.wait():
            raise FactoryError(f"a run ended with {code}: {child.said()[-1000:]}")


def _figures(jobs: Sequence[Path]) -> dict[str, float]:
    """Return the engine's seconds by what it did, and how much of its slots was used while it was there."""
    ledgers = [ledger for job in jobs for ledger in read_ledgers(RunFolder(_folder(job)).logs)]
    seconds = {state: sum(ledger["seconds"][state] for ledger in ledgers) for state in ledgers[0]["seconds"]}
    feeding = sum(seconds[state] for state in ("full", "starved", "blocked"))
    used = sum(ledger["num_tokens"] for ledger in ledgers) / TOKENS_PER_S / SLOTS
    return {
        **{f"engine s, {state}": found for state, found in seconds.items()},
        "engine s": sum(seconds.values()),
        "slots used": used / feeding,
    }
