"""What the drills check with: it finds nothing in a run that is right, and each thing that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.committer import Committer
from factory.journal import SegmentHeader, SegmentWriter
from factory.store import RunFolder
from jobs.bench import chaos
from jobs.bench.drill import Disk
from schemas.trace import Untraced
from tests.runs import FINGERPRINT, make_problem, make_trace, make_verdict, start_run, write_segment

PROBLEMS = [make_problem(number) for number in range(3)]
TRACES = [make_trace(problem.problem_id, index) for problem in PROBLEMS for index in range(2)]
VERDICTS = [make_verdict(trace, PROBLEMS[number // 2]) for number, trace in enumerate(TRACES)]
KEYS = [(trace.problem_id, trace.sample_index) for trace in TRACES]


class Run:
    """A run of two attempts at three problems, with two of the six committed and one in an open segment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committer: Committer = start_run(path, PROBLEMS, num_samples=2)
        self.journal = RunFolder(path).journal
        self.commit(0, 2, sequence=1)
        header = SegmentHeader(fingerprint=FINGERPRINT, engine_id="engine-0-e1-1", sequence=2)
        self.writer = SegmentWriter(self.journal, header)
        self.writer.append(TRACES[2])
        self.writer.sync()
        self.disk = Disk(path)
        assert self.disk.look() == 3

    def commit(self, start: int, end: int, *, sequence: int) -> None:
        name = write_segment(self.journal, TRACES[start:end], sequence=sequence)
        self.committer.commit(segments=[name], judged=VERDICTS[start:end])

    def complete(self) -> None:
        self.writer.close()
        self.committer.commit(segments=[self.writer.name], judged=VERDICTS[2:3])
        self.commit(3, 6, sequence=3)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run.writer.close()


def test_nothing_is_found_in_a_run_that_is_right_at_any_time(run: Run) -> None:
    run.writer.append(TRACES[3])
    assert run.disk.look() == 3
    run.writer.sync()
    assert run.disk.look() == 4
    run.writer.close()
    run.committer.commit(segments=[run.writer.name], judged=VERDICTS[2:4])
    assert run.disk.look() == 4
    run.commit(4, 6, sequence=3)
    run.disk.look_at_the_end()
    assert run.disk.findings.are_none
    assert run.disk.num_committed == 6


def test_a_trace_that_is_gone_is_found(run: Run) -> None:
    run.writer.path.write_bytes(run.writer.path.read_bytes()[:-1])
    run.disk.look()
    assert run.disk.findings.lost == {KEYS[2]}


def test_a_trace_that_became_another_is_found(run: Run) -> None:
    run.writer.path.unlink()
    write_segment(run.journal, [make_trace(*KEYS[2], text="another text")], sequence=3)
    run.disk.look()
    assert run.disk.findings.changed == {KEYS[2]}


@pytest.mark.parametrize("number", [0, 2], ids=["one of them committed", "both in the journal"])
def test_an_attempt_that_was_made_twice_is_found(run: Run, number: int) -> None:
    write_segment(run.journal, [make_trace(*KEYS[number], text="another text")], sequence=3)
    run.disk.look()
    assert run.disk.findings.doubled == {KEYS[number]}


def test_what_a_complete_run_lacks_or_has_twice_is_found(run: Run) -> None:
    run.commit(3, 5, sequence=3)
    run.disk.look_at_the_end()
    assert run.disk.findings.lost == {KEYS[2], KEYS[5]}  # the former still lies in the journal
    assert run.disk.findings.others >= {"attempts are pending", "the journal is not empty"}
    manifest = run.committer.manifest
    run.committer._write(note="twice", traces=(*manifest.traces, manifest.traces[0]))
    run.disk.look_at_the_end()
    assert run.disk.findings.doubled == {KEYS[0], KEYS[1]}


def test_an_attempt_that_failed_counts_as_ended(run: Run) -> None:
    run.writer.close()
    run.committer.commit(segments=[run.writer.name], judged=VERDICTS[2:3])
    trace = TRACES[5]
    ending = Untraced(
        trace_id=trace.trace_id,
        problem_id=trace.problem_id,
        sample_index=trace.sample_index,
        ending="failed",
        reason="engine_error",
        detail="",
    )
    name = write_segment(run.journal, TRACES[3:5], sequence=3)
    run.committer.commit(segments=[name], judged=VERDICTS[3:5], untraced=[ending])
    run.disk.look_at_the_end()
    assert run.disk.findings.are_none


@pytest.mark.parametrize("kind", ["problems", "traces", "verdicts"])
def test_a_flipped_bit_in_any_shard_is_found(run: Run, kind: str) -> None:
    run.complete()
    shard = next((run.path / kind).rglob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    run.disk.look()
    shard.write_bytes(data)
    run.disk.look_at_the_end()
    assert run.disk.findings.digests == {str(shard.relative_to(run.path))}
    assert not run.disk.findings.are_none


def test_a_table_of_kills_has_a_row_for_each_target_and_counts_what_was_found() -> None:
    right, wrong = chaos.Round(target="engine", is_hit=True, seconds=2.0), chaos.Round(target="driver")
    assert chaos.is_fine([right, wrong])
    wrong.findings.lost.add(KEYS[0])
    rows = {row["killed"]: row for row in chaos.summary([right, right, wrong])}
    assert list(rows) == ["engine", "driver", "all"]
    assert (rows["engine"]["rounds"], rows["engine"]["hit"], rows["engine"]["lost"]) == (2, 2, 0)
    assert (rows["driver"]["hit"], rows["driver"]["lost"], rows["all"]["lost"]) == (0, 1, 1)
    assert not chaos.is_fine([right, wrong])
    assert not chaos.is_fine([chaos.Round(target="engine", num_ends=1)])
