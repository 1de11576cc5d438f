"""A run with a moderate limit at first and attempts that loop: what is cut waits, goes on, and is one trace."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from factory.journal import scan_segment
from factory.store import RunFolder
from jobs.bench.drill import committed_traces, factory_process, wait_for_no_process, wait_until
from schemas.trace import FinishReason
from tests.runs import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_ATTEMPTS = 24
FIRST_TOKENS = 3_000
MOST_TOKENS = 30_000


def _num_cut(path: Path) -> int:
    """Return how many attempts lie in the journal with all the tokens of their first turn, and no more."""
    num_cut = 0
    for segment in RunFolder(path).leftover_segments():
        with suppress(FileNotFoundError):  # committed since the listing
            num_cut += sum(piece.offset + piece.num_tokens == FIRST_TOKENS for piece in scan_segment(segment).pieces)
    return num_cut


def test_a_run_that_ends_between_the_turns_of_its_attempts_goes_on_and_each_is_one_trace(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        num_problems=NUM_ATTEMPTS,
        teacher={
            "kind": "scripted",
            "max_num_seqs": 4,
            "max_model_len": 40_000,
            "mean_tokens": 6000,
            "tokens_per_s": 4_000,
            "loop_rate": 0.2,
        },
        sampling={"num_samples": 1, "max_tokens": MOST_TOKENS},
        schedule={"first_max_tokens": FIRST_TOKENS},
        store={"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.1},
    )
    run = tmp_path / "run"
    with factory_process(["run", job, "--run", run], tmp_path / "first") as child:
        wait_until(lambda: child.process.poll() is not None or _num_cut(run) > 4, 120, "attempts that were cut")
        assert child.process.poll() is None, child.said()
        child.process.send_signal(signal.SIGINT)
        assert child.wait(60) == 130, child.said()
        wait_for_no_process(child.mark)
    counts = RunFolder(run).manifest().counts
    assert counts.pending > 4, "what may be continued is pending"
    assert counts.cancelled == counts.failed == 0

    fast = ("--set", "teacher.tokens_per_s=40000")
    with factory_process(["run", job, "--run", run, "--json", *fast], tmp_path / "second") as child:
        assert child.wait(200) == 0, child.said()
        status = json.loads(child.out.read_text())
    traces = committed_traces(run)
    assert len(traces) == NUM_ATTEMPTS
    assert status["counts"]["judged"] == NUM_ATTEMPTS
    assert not RunFolder(run).leftover_segments()
    stopped = [trace for trace in traces if trace.finish_reason is FinishReason.STOP]
    ended = [trace for trace in traces if trace.finish_reason is FinishReason.ABORT]
    assert len(stopped) + len(ended) == NUM_ATTEMPTS
    assert all("</think>\n\nThe sum is" in trace.text for trace in stopped)
    long = [trace for trace in stopped if trace.num_completion_tokens > FIRST_TOKENS]
    assert len(long) > 4
    assert all(FIRST_TOKENS in trace.resumed_at for trace in long)

    assert ended
    said = status["ended_early"]["repetition_loop"]
    made = sum(trace.num_completion_tokens for trace in ended)
    assert said == {"count": len(ended), "num_tokens": made, "num_saved": len(ended) * MOST_TOKENS - made}
    assert status["reasons"]["repetition_loop"] >= len(ended)
