"""The verifier's own loop, with real verifiers and a real coordinator; only Ray, which carries messages, is absent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from factory.actors import CoordinatorActor, RunSpec, VerifierActor
from factory.coordinator import JudgeItem
from schemas.config import JobConfig, parse_config
from schemas.problem import Domain, Limits, Message, Problem, StdinTest, Tests
from schemas.verdict import JudgedTrace
from tests.runs import FINGERPRINT, make_problem, make_trace, start_run, write_segment

BATCH = 8
NUM_QUICK = 4 * BATCH
SLOW_S = 10.0  # that the slow program is let run
ENDLESS = "<think>\nIt never ends.\n</think>\n\n```python\nwhile True: pass\n```"
PROGRAM = Problem(
    domain=Domain.CODE,
    messages=(Message(role="user", content="Print 1."),),
    source="tests",
    source_row_id="program",
    reference=Tests(
        cases=(StdinTest(input="", expected="1"),), limits=Limits(cpu_time_s=2 * SLOW_S, wall_time_s=SLOW_S)
    ),
)


def _job(num_processes: int) -> JobConfig:
    body = {
        "name": "verifying",
        "sources": [{"kind": "reasoning_gym", "task": "chain_sum", "size": 1}],
        "teacher": {"kind": "scripted"},
        "verify": {"batch_size": BATCH, "num_processes": num_processes},
    }
    return parse_config(body, origin="test")


class Desk:
    """A coordinator as an actor's handle has it; remembers who knew what when."""

    def __init__(self, actor: CoordinatorActor) -> None:
        self.actor = actor
        self.reports: list[int] = []  # number of verdicts in each message that had any
        self.judge = SimpleNamespace(remote=self._judge)

    async def _judge(
        self, worker: str, judged: Sequence[JudgedTrace], size: int, delays: Any, wait_s: float
    ) -> list[JudgeItem]:
        self.reports += [len(judged)] if judged else []
        return await self.actor.judge(worker, judged, size, delays, wait_s)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_quick_verdicts_do_not_wait_for_a_slow_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int
) -> None:
    """With one process they come before it, in the batch that it is in; with two also those of later batches."""
    monkeypatch.setattr("factory.actors.set_niceness", lambda _: True)  # it would last as long as this process
    quick = [make_problem(number) for number in range(NUM_QUICK if num_processes > 1 else BATCH - 1)]
    start_run(tmp_path, [PROGRAM, *quick], num_samples=1)
    traces = [make_trace(PROGRAM.problem_id, 0, text=ENDLESS), *(make_trace(one.problem_id, 0) for one in quick)]
    write_segment(tmp_path / "journal", traces, sequence=1)

    async def judge() -> None:
        spec = RunSpec(path=tmp_path, job=_job(num_processes), fingerprint=FINGERPRINT)
        coordinator = CoordinatorActor(spec)
        await coordinator.load(False, {})
        desk = Desk(coordinator)
        verifier = asyncio.create_task(VerifierActor(spec, "verifier-1").run(desk))
        progress = await coordinator.progress(0)
        while not verifier.done() and progress.counts.judged < len(quick):
            await asyncio.sleep(0.02)
            progress = await coordinator.progress(0)
        assert progress.counts.pending == progress.num_to_judge == 1, "the slow one is still judged"
        while not verifier.done() and not progress.is_judged:
            await asyncio.sleep(0.1)
            progress = await coordinator.progress(0)
        verifier.cancel()
        with suppress(asyncio.CancelledError):
            await verifier
        assert progress.reasons["time_limit"] == 1
        assert sum(desk.reports) == len(traces)
        assert len(desk.reports) < len(traces) / 2, "a message for each verdict, or nearly"

    asyncio.run(judge())
