"""What killed committers leave goes with the next claim, and nothing else does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factory import faults
from factory.committer import Committer
from factory.faults import Point, Role
from factory.store import RunFolder
from jobs.bench.drill import committed_traces
from schemas.errors import FencedError
from schemas.trace import Trace
from tests.runs import make_problem, make_trace, make_verdict, start_run, write_segment

PROBLEMS = [make_problem(number) for number in range(6)]
COMMITTING = """
import sys
from pathlib import Path
from factory import faults
from factory.committer import Committer
from tests.runs import make_problem, make_trace, make_verdict
faults.begin(faults.Role.COMMITTER)
problem = make_problem(int(sys.argv[3]))
judged = [make_verdict(make_trace(problem.problem_id, 0), problem)]
Committer(Path(sys.argv[1]), verifiers="v1").commit(segments=[sys.argv[2]], judged=judged)
"""


def _files(path: Path) -> set[str]:
    folders = ("problems", "traces", "untraced", "verdicts", "manifest")
    return {str(file.relative_to(path)) for folder in folders for file in (path / folder).rglob("*") if file.is_file()}


def _expected(path: Path) -> set[str]:
    folder = RunFolder(path)
    manifest = folder.manifest()
    shards = [*manifest.problems, *manifest.quarantine, *manifest.traces, *manifest.untraced]
    shards += [shard for several in manifest.verdicts.values() for shard in several]
    numbers = [f"manifest/{number:06d}.json" for number in range(1, manifest.number + 1)]
    return {shard.name for shard in shards} | {*numbers, "manifest/newest"}


def _commit(committer: Committer, number: int, sequence: int) -> Trace:
    trace = make_trace(PROBLEMS[number].problem_id, 0)
    segment = write_segment(committer.folder.journal, [trace], sequence=sequence)
    committer.commit(segments=[segment], judged=[make_verdict(trace, PROBLEMS[number])])
    return trace


@pytest.mark.parametrize(
    ("point", "nth"), [(Point.FILE_SYNCED, 1), (Point.FILE_RENAMED, 2), (Point.MANIFEST_WRITTEN, 1)]
)
def test_a_killed_committer_leaves_nothing_behind_the_next_claim(tmp_path: Path, point: Point, nth: int) -> None:
    path, armed = tmp_path / "run", tmp_path / "faults"
    armed.mkdir()
    before = _commit(start_run(path, PROBLEMS, num_samples=1), 0, 1)
    trace = make_trace(PROBLEMS[1].problem_id, 0)
    segment = write_segment(path / "journal", [trace], sequence=2)
    faults.arm(armed, f"{Role.COMMITTER}.{point}", nth + 1)  # past the claim
    command = [sys.executable, "-c", COMMITTING, str(path), segment, "1"]
    died = subprocess.run(command, env={**os.environ, faults.VARIABLE: str(armed)}, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert _files(path) > _expected(path), "the kill left nothing, so this shows nothing"
    committer = Committer(path, verifiers="v1")
    assert _files(path) == _expected(path)
    committer.commit(segments=[segment], judged=[make_verdict(trace, PROBLEMS[1])])
    assert {each.problem_id for each in committed_traces(path)} == {before.problem_id, trace.problem_id}
    assert _files(path) == _expected(path)


def test_a_fenced_committer_and_a_successor_cost_each_other_nothing(tmp_path: Path) -> None:
    stale = start_run(tmp_path, PROBLEMS, num_samples=1)
    _commit(stale, 0, 1)
    fresh = Committer(tmp_path, verifiers="v1")
    with pytest.raises(FencedError):
        _commit(stale, 1, 2)  # its shards are there, and its manifest is not
    kept = _commit(fresh, 2, 3)
    assert _files(tmp_path) > _expected(tmp_path)
    stale._remove_leftovers()  # it slept since its claim: what came later is not its to remove
    assert _expected(tmp_path) < _files(tmp_path)
    Committer(tmp_path, verifiers="v1")
    assert _files(tmp_path) == _expected(tmp_path)
    assert kept in committed_traces(tmp_path)


def test_what_an_older_manifest_names_or_others_put_there_stays(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=1)
    _commit(committer, 0, 1)
    older = RunFolder(tmp_path).manifest_path(committer.manifest.number)
    body = json.loads(older.read_text())
    name = f"traces/{committer.manifest.number:06d}-{'0' * 12}.parquet"
    body["traces"].append({**body["traces"][0], "name": name})
    _commit(committer, 1, 2)
    older.write_text(json.dumps(body))
    for kept in (name, "traces/notes.txt", "verdicts/v1/000099-later.parquet"):
        (tmp_path / kept).write_text("kept")
    Committer(tmp_path, verifiers="v1")
    assert _files(tmp_path) == _expected(tmp_path) | {name, "traces/notes.txt", "verdicts/v1/000099-later.parquet"}
