"""A time of day that jumps, hours back and forth: times of records are odd then, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.build import build_tables
from factory.page import build_page
from factory.report import read_status
from jobs.bench.drill import committed_traces
from schemas.config import parse_config
from schemas.trace import Trace
from tests.runs import make_problem, make_trace, make_verdict, start_run, traces_of, write_segment

PROBLEMS = [make_problem(number) for number in range(4)]
HOUR_US = 3600 * 1_000_000
NOON_US = 1_800_000_000 * 1_000_000
CONFIG = parse_config(
    {
        "name": "clock",
        "sources": [{"kind": "jsonl", "path": "none.jsonl", "columns": {"problem": "q", "answer": "a"}}],
        "teacher": {"kind": "scripted"},
    },
    origin="test",
).model_dump(mode="json")

jumps = st.integers(-5 * HOUR_US, 5 * HOUR_US)


def _run(path: Path, times: list[tuple[int, int, int]]) -> list[Trace]:
    """Make a complete run whose traces have these times of being asked, begun and finished; return them."""
    committer = start_run(path, PROBLEMS, num_samples=1, config=CONFIG)
    traces = [
        replace(
            make_trace(problem.problem_id, 0), submitted_at_us=asked, first_token_at_us=begun, finished_at_us=finished
        )
        for problem, (asked, begun, finished) in zip(PROBLEMS, times, strict=True)
    ]
    segment = write_segment(path / "journal", traces, sequence=1)
    assert traces_of(path / "journal" / segment) == traces
    judged = [make_verdict(trace, problem) for trace, problem in zip(traces, PROBLEMS, strict=True)]
    committer.commit(segments=[segment], judged=judged)
    return traces


def _ids(path: Path) -> list[str]:
    (table,) = (path / "tables" / "default" / "sft").glob("train-*.parquet")
    return [str(value) for value in pq.read_table(table)["trace_id"].to_pylist()]


@settings(max_examples=3, deadline=None)
@given(st.lists(st.tuples(jumps, jumps, jumps), min_size=4, max_size=4))
@example([(0, 1, 2), (5 * HOUR_US, 1, -5 * HOUR_US), (2, 1, 0), (-HOUR_US, HOUR_US, -HOUR_US)])
def test_traces_that_end_before_they_began_are_kept_counted_and_published_like_others(
    offsets: list[tuple[int, int, int]],
) -> None:
    with TemporaryDirectory() as folder:
        plain, odd = Path(folder) / "plain", Path(folder) / "odd"
        _run(plain, [(NOON_US, NOON_US + 1, NOON_US + 2)] * 4)
        traces = _run(odd, [(NOON_US + a, NOON_US + b, NOON_US + c) for a, b, c in offsets])
        assert sorted(committed_traces(odd), key=lambda trace: trace.trace_id) == sorted(
            traces, key=lambda trace: trace.trace_id
        )
        build_tables(plain)
        build_tables(odd)
        assert _ids(odd) == _ids(plain)
        statuses = [read_status(path) for path in (plain, odd)]
        assert statuses[0].counts == statuses[1].counts
        assert (statuses[0].accepted, statuses[0].rejected) == (statuses[1].accepted, statuses[1].rejected)
        assert statuses[0].num_tokens == statuses[1].num_tokens
        rate = statuses[1].tokens_per_s
        assert rate is None or rate > 0
        assert "<html" in build_page(odd)
