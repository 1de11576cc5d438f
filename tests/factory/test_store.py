"""The store: whatever order, repetition or crash, every attempt ends in a manifest once, and the sums hold."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.committer import Committer
from factory.state import JUDGED, RunState, unjudged_places
from factory.store import (
    RunFolder,
    RunLock,
    check_fingerprint,
    read_traces,
    write_atomically,
)
from jobs.bench.drill import Key, committed_traces
from jobs.doctor import examine_run
from schemas.errors import (
    ConfigError,
    CorruptRunError,
    FencedError,
    FingerprintError,
    RunLockedError,
    SchemaVersionError,
    StoreError,
)
from schemas.manifest import Counts
from schemas.trace import Trace, Untraced
from schemas.verdict import Outcome
from tests.runs import freeze, make_problem, make_trace, make_verdict, start_run, traces_on_disk, write_segment

PROBLEMS = [make_problem(number) for number in range(3)]
NUM_SAMPLES = 2
KEYS: list[Key] = [(problem.problem_id, index) for problem in PROBLEMS for index in range(NUM_SAMPLES)]
BY_ID = {problem.problem_id: problem for problem in PROBLEMS}


def _failure(key: Key) -> Untraced:
    trace = make_trace(*key)
    return Untraced(
        trace_id=trace.trace_id, problem_id=key[0], sample_index=key[1], ending="failed", reason="engine_error"
    )


def _judged(traces: list[Trace], outcome: Outcome = Outcome.CORRECT) -> list[object]:
    return [make_verdict(trace, BY_ID[trace.problem_id], outcome) for trace in traces]


def _key(trace: Trace) -> Key:
    return trace.problem_id, trace.sample_index


key_lists = st.lists(st.sampled_from(KEYS), max_size=6)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.lists(key_lists, max_size=3), key_lists), max_size=4), st.sampled_from(Outcome))
def test_commits_in_any_order_with_doubles_hold_every_attempt_once(
    commits: list[tuple[list[list[Key]], list[Key]]], outcome: Outcome
) -> None:
    outcome = outcome if outcome in (Outcome.UNJUDGED, Outcome.WRONG_ANSWER) else Outcome.CORRECT
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        committer = start_run(path, PROBLEMS, num_samples=NUM_SAMPLES)
        first: dict[Key, str] = {}  # which engine's text has to be kept
        failed: set[Key] = set()
        for number, (segments, failures) in enumerate(commits):
            names, traces = [], []
            for place, keys in enumerate(segments):
                engine_id = f"engine-0-e1-{number}"
                made = [make_trace(*key, text=f"{engine_id} {place} {at}") for at, key in enumerate(keys)]
                for trace in made:
                    if _key(trace) not in failed:
                        first.setdefault(_key(trace), trace.text)
                traces += made
                names.append(write_segment(path / "journal", made, engine_id=engine_id, sequence=place + 1))
            failed |= {key for key in failures if key not in first}
            judged = _judged([trace for trace in traces if _key(trace) in first], outcome)
            counts = committer.commit(segments=names, judged=judged, untraced=map(_failure, failures))
            counts.check()
            assert counts.requested == len(KEYS)
            assert counts.failed == len(failed)
            assert counts.generated == counts.judged + counts.unjudged == len(first)
            assert not RunFolder(path).leftover_segments()
        found = committed_traces(path)
        assert len(found) == len(first)
        assert {_key(trace): trace.text for trace in found} == first
        folder = RunFolder(path)
        assert RunState.load(folder, folder.manifest()).counts() == folder.manifest().counts


# Two committers


def test_a_stale_committer_is_fenced_and_nothing_that_it_did_is_seen(tmp_path: Path) -> None:
    stale = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    made = [make_trace(*KEYS[0])]
    segment = write_segment(tmp_path / "journal", made, sequence=1)
    fresh = Committer(tmp_path, verifiers="v1")
    before = fresh.manifest
    for error in (FencedError, StoreError):  # once fenced, it stays so, and the segment is not its to delete
        with pytest.raises(error):
            stale.commit(segments=[segment], judged=_judged(made))
        assert RunFolder(tmp_path).manifest() == before
        assert committed_traces(tmp_path) == []
        assert [path.name for path in RunFolder(tmp_path).leftover_segments()] == [segment]
    assert fresh.commit(segments=[segment], judged=_judged(made)).judged == 1
    assert committed_traces(tmp_path) == made


def test_a_commit_that_failed_can_be_tried_again_and_loses_nothing(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    made = [make_trace(*key) for key in KEYS]
    segment = write_segment(tmp_path / "journal", made, sequence=1)
    (tmp_path / "traces").rename(tmp_path / "away")  # a disk that is gone for a moment
    with pytest.raises(OSError, match="traces"):
        committer.commit(segments=[segment], judged=_judged(made))
    (tmp_path / "away").rename(tmp_path / "traces")
    try:
        committer.commit(segments=[segment], judged=_judged(made))
    except StoreError:
        Committer(tmp_path, verifiers="v1").commit(segments=[segment], judged=_judged(made))
    assert sorted(map(_key, committed_traces(tmp_path))) == sorted(KEYS)


def test_every_start_has_a_higher_epoch(tmp_path: Path) -> None:
    epochs = [start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES).manifest.epoch]
    epochs += [Committer(tmp_path, verifiers="v1").manifest.epoch for _ in range(3)]
    assert epochs == sorted(set(epochs))


# Crashes: an audit hook stops the process at its n-th effect on the disk, and at every later one, as a kill does.


class Killed(BaseException):
    """The process is gone; nothing in it runs any more."""


class _Killer:
    def __init__(self) -> None:
        self.root = ""
        self.effects_left: int | None = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.effects_left is None or event not in ("open", "os.rename", "os.link", "os.remove", "os.mkdir"):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if not str(arguments[0]).startswith(self.root):
            return
        if self.effects_left == 0:
            raise Killed
        self.effects_left -= 1


_killer = _Killer()
sys.addaudithook(_killer)


@contextmanager
def killed_at(effect: int, path: Path) -> Iterator[None]:
    """Let only so many effects on the disk happen."""
    _killer.root, _killer.effects_left = str(path), effect
    try:
        yield
    finally:
        _killer.effects_left = None


def test_a_commit_killed_at_any_effect_loses_and_doubles_nothing(tmp_path: Path) -> None:
    made = [make_trace(*key) for key in KEYS[:4]]
    late = make_trace(*KEYS[4])
    failure = _failure(KEYS[5])
    for effect in range(100):
        path = tmp_path / str(effect)
        committer = start_run(path, PROBLEMS, num_samples=NUM_SAMPLES)
        names = [write_segment(path / "journal", made[place::2], sequence=place + 1) for place in range(2)]
        is_done = False
        try:
            with killed_at(effect, path):
                committer.commit(segments=names, judged=_judged(made), untraced=[failure])
                is_done = True
        except Killed:
            pass
        assert sorted(traces_on_disk(path)) == sorted(map(_key, made))
        _recover(path, late, failure)
        if is_done:
            break
    assert effect >= 10, f"only {effect} effects were seen: the hook sees too little"


def _recover(path: Path, late: Trace, failure: Untraced) -> None:
    """Do what a new start does: claim the run, commit the leftover segments, judge what has no verdict, go on."""
    committer = Committer(path, verifiers="v1")
    folder = RunFolder(path)
    committer.commit(segments=[segment.name for segment in folder.leftover_segments()])
    state = RunState.load(folder, folder.manifest())
    places = [place for _, place in unjudged_places(folder, folder.manifest(), state)]
    committer.commit(judged=_judged(read_traces(folder, places)))
    segment = write_segment(path / "journal", [late], engine_id="engine-0-e2-1", sequence=1)
    counts = committer.commit(segments=[segment], judged=_judged([late]), untraced=[failure])
    assert counts == Counts(requested=6, generated=5, judged=5, failed=1)
    assert sorted(map(_key, committed_traces(path))) == sorted(KEYS[:5])
    assert not folder.leftover_segments()


def test_a_start_killed_at_any_effect_can_be_started_again(tmp_path: Path) -> None:
    for effect in range(100):
        path = tmp_path / str(effect)
        is_done = False
        try:
            with killed_at(effect, path):
                start_run(path, PROBLEMS, num_samples=NUM_SAMPLES)
                is_done = True
        except Killed:
            pass
        committer = start_run(path, PROBLEMS, num_samples=NUM_SAMPLES)
        assert committer.manifest.counts == Counts(requested=6, pending=6)
        folder = RunFolder(path)
        assert [problem for problem, _ in folder.problems(folder.manifest())] == PROBLEMS
        if is_done:
            break
    assert effect >= 5, f"only {effect} effects were seen: the hook sees too little"


def test_a_file_written_atomically_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for effect in range(5):
        path = tmp_path / f"{effect}.yaml"
        path.write_bytes(b"old")
        try:
            with killed_at(effect, tmp_path):
                write_atomically(path, b"new")
        except Killed:
            assert path.read_bytes() == b"old"
        else:
            assert path.read_bytes() == b"new"
            break
    assert effect > 0


# What extends a run, and what is refused


def test_another_fingerprint_is_refused_with_every_part_that_differs(tmp_path: Path) -> None:
    there = {"teacher": {"name": "qwen", "revision": "a1"}, "sampling": {"temperature": 0.6, "top_p": 1.0}}
    here = {"teacher": {"name": "qwen", "revision": "b2"}, "sampling": {"temperature": 1.0, "top_p": 1.0}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"fingerprint": "one", "fingerprint_parts": there}))
    check_fingerprint(RunFolder(tmp_path), "one", there)
    with pytest.raises(FingerprintError) as refused:
        check_fingerprint(RunFolder(tmp_path), "two", here)
    text = str(refused.value)
    assert "teacher.revision: the run has 'a1', the job says 'b2'" in text
    assert "sampling.temperature: the run has 0.6, the job says 1.0" in text
    assert "top_p" not in text
    assert "name" not in text.split("fingerprint")[-1]


def test_fewer_attempts_are_refused_and_more_extend_the_run(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    before = RunFolder(tmp_path).manifest()
    with pytest.raises(ConfigError, match=r"sampling\.num_samples=1"):
        freeze(committer, PROBLEMS, num_samples=1)
    assert RunFolder(tmp_path).manifest() == before
    assert freeze(committer, PROBLEMS, num_samples=5) == 0
    assert RunFolder(tmp_path).manifest().counts == Counts(requested=15, pending=15)


def test_a_repaired_reference_voids_the_verdicts_of_its_problem_and_costs_no_trace(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    made = [make_trace(*key) for key in KEYS]
    committer.commit(segments=[write_segment(tmp_path / "journal", made, sequence=1)], judged=_judged(made))
    repaired = make_problem(1, answer="42")
    assert freeze(committer, [PROBLEMS[0], repaired, PROBLEMS[2]], num_samples=NUM_SAMPLES) == 1
    assert committer.manifest.counts == Counts(requested=6, generated=6, judged=4, pending=2)
    folder = RunFolder(tmp_path)
    assert [problem for problem, _ in folder.problems(folder.manifest())] == [PROBLEMS[0], repaired, PROBLEMS[2]]
    state = RunState.load(folder, folder.manifest())
    places = [place for _, place in unjudged_places(folder, folder.manifest(), state)]
    again = read_traces(folder, places)
    assert {trace.problem_id for trace in again} == {repaired.problem_id}
    counts = committer.commit(judged=[make_verdict(trace, repaired, Outcome.WRONG_ANSWER) for trace in again])
    assert counts == Counts(requested=6, generated=6, judged=6)
    assert RunState.load(folder, folder.manifest()).outcomes == {"correct": 4, "wrong_answer": 2}
    # And back: the verdicts against the first reference count again.
    assert freeze(committer, PROBLEMS, num_samples=NUM_SAMPLES) == 1
    assert committer.manifest.counts == Counts(requested=6, generated=6, judged=6)
    assert RunState.load(folder, folder.manifest()).outcomes == {"correct": 6}


def test_other_verifiers_judge_again_and_change_no_older_verdict(tmp_path: Path) -> None:
    made = [make_trace(*key) for key in KEYS]
    first = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    first.commit(segments=[write_segment(tmp_path / "journal", made, sequence=1)], judged=_judged(made))
    shards = RunFolder(tmp_path).manifest().verdicts["v1"]
    second = Committer(tmp_path, verifiers="v2")
    assert second.manifest.counts == Counts(requested=6, generated=6, pending=6)
    second.commit(judged=_judged(made, Outcome.WRONG_ANSWER))
    manifest = RunFolder(tmp_path).manifest()
    assert manifest.counts == Counts(requested=6, generated=6, judged=6)
    assert manifest.verdicts["v1"] == shards
    assert Committer(tmp_path, verifiers="v1").manifest.counts.judged == 6


def test_a_verdict_without_its_trace_is_never_written(tmp_path: Path) -> None:
    committer = start_run(tmp_path, PROBLEMS, num_samples=NUM_SAMPLES)
    stray = make_verdict(make_trace(*KEYS[0]), PROBLEMS[0])  # a verdict of a trace that no manifest holds
    before = RunFolder(tmp_path).manifest()
    with pytest.raises(CorruptRunError, match="holds it no more"):
        committer.commit(judged=[stray])
    assert RunFolder(tmp_path).manifest() == before


# Damage


def _finished(path: Path) -> Committer:
    committer = start_run(path, PROBLEMS, num_samples=NUM_SAMPLES)
    made = [make_trace(*key) for key in KEYS[:5]]
    segment = write_segment(path / "journal", made, sequence=1)
    committer.commit(segments=[segment], judged=_judged(made), untraced=[_failure(KEYS[5])])
    return committer


@pytest.mark.parametrize("kind", ["problems", "traces", "untraced", "verdicts"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "other rows", "no parquet"])
def test_a_damaged_shard_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    manifest = _finished(tmp_path).manifest
    shard = (manifest.verdicts["v1"] if kind == "verdicts" else getattr(manifest, kind))[0]
    path = tmp_path / shard.name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other rows":
        wrong = replace(shard, rows=shard.rows + 1)
        changes = {"verdicts": {"v1": (wrong,)}} if kind == "verdicts" else {kind: (wrong,)}
        manifest = replace(manifest, **changes)
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "no parquet": b"x" * len(data)}[damage])
    with pytest.raises(CorruptRunError, match=shard.name):
        RunState.load(RunFolder(tmp_path), manifest)


def test_a_bit_that_flips_anywhere_is_noticed(tmp_path: Path) -> None:
    manifest = _finished(tmp_path).manifest
    shard = manifest.traces[0]
    path, good = tmp_path / shard.name, committed_traces(tmp_path)
    data = path.read_bytes()
    assert all(finding.is_fine for finding in examine_run(tmp_path))
    chance = random.Random(12)
    missed = 0
    for _ in range(200):
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        assert shard.name in "".join(finding.detail for finding in examine_run(tmp_path) if not finding.is_fine)
        with suppress(CorruptRunError, SchemaVersionError):
            missed += committed_traces(tmp_path) != good
    assert not missed, "traces were read otherwise than they were written"


def test_a_manifest_that_is_gone_is_missed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    newest = _finished(tmp_path).manifest
    body = folder.manifest_path(newest.number).read_bytes()
    folder.manifest_path(newest.number).unlink()
    for open_run in (folder.manifest, lambda: Committer(tmp_path, verifiers="v1")):
        with pytest.raises(CorruptRunError, match=f"{newest.number:06d}.json: is gone"):
            open_run()
    folder.manifest_path(newest.number).write_bytes(body)
    assert folder.manifest() == newest
    folder.manifest_path(newest.number).unlink()
    (tmp_path / "manifest" / "newest").unlink()
    assert folder.manifest().number == newest.number - 1


def test_a_trace_that_is_wanted_from_a_missing_shard_names_it(tmp_path: Path) -> None:
    manifest = _finished(tmp_path).manifest
    folder = RunFolder(tmp_path)
    state = RunState.load(folder, manifest)
    state.flags &= ~np.uint8(JUDGED)
    places = [place for _, place in unjudged_places(folder, manifest, state)]
    (tmp_path / manifest.traces[0].name).unlink()
    with pytest.raises(CorruptRunError, match=manifest.traces[0].name):
        read_traces(folder, places)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe"])
def test_a_damaged_manifest_is_named(tmp_path: Path, damage: bytes) -> None:
    number = _finished(tmp_path).manifest.number
    path = RunFolder(tmp_path).manifest_path(number)
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=path.name):
        RunFolder(tmp_path).manifest()


@pytest.mark.parametrize("name", [".000009.json.ab.tmp", "000009.json.bak", "000002 copy.json", "notes.txt", "9x.json"])
def test_a_stray_file_beside_the_manifests_is_no_manifest(tmp_path: Path, name: str) -> None:
    manifest = _finished(tmp_path).manifest
    (tmp_path / "manifest" / name).write_bytes(b"{}")
    assert RunFolder(tmp_path).manifest() == manifest


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        RunFolder(tmp_path).manifest()
    assert RunFolder(tmp_path / "nowhere").find_manifest() is None


# The lock

HOLD = """
import sys
from pathlib import Path
from factory.state import JUDGED, RunState, unjudged_places
from factory.store import RunLock
with RunLock(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_first_ones_pid_and_a_kill_frees_the_lock(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(2):  # being refused leaves the holder's name in place
            with pytest.raises(RunLockedError, match=rf"process {child.pid} on"):
                RunLock(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        RunLock(tmp_path).release()
        with RunLock(tmp_path), pytest.raises(RunLockedError, match=rf"process {os.getpid()} on"):
            RunLock(tmp_path)
    finally:
        child.kill()
        child.communicate()
