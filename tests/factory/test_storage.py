"""One contract for both kinds of storage: what is said to be written is there, whole, once, and by one writer.

What needs the S3 server is marked slow: the server takes seconds to start.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import datasets
import obstore.fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory import objectlock, objects, parts
from factory.committer import Committer
from factory.journal import SegmentHeader, SegmentWriter, Traced, delete_segment, scan_segment, wait_for_writer
from factory.objectlock import ObjectLock
from factory.objects import ObjectPath
from factory.rederive import rederive
from factory.state import RunState, unjudged_places
from factory.storage import (
    AnyPath,
    find_files,
    log_folder,
    parquet_source,
    parse_path,
    replace_folder,
    require_storage,
    write_atomically,
)
from factory.store import RunFolder, lock_run, read_traces
from factory.tables import write_tables
from jobs.bench.drill import committed_traces
from jobs.doctor import examine_run
from schemas.config import SelectConfig
from schemas.errors import ConfigError, FencedError, RunLockedError, StorageError, StoreError
from schemas.trace import Trace
from tests.factory import test_tables as demo_tables
from tests.objectstore import BUCKET, Reply, S3Server, environment, fault, forwarded, odd_s3_server, s3_server
from tests.runs import make_problem, make_trace, make_verdict, start_run, traced, traces_of, write_segment
from tests.strategies import traces

HEADER = SegmentHeader(fingerprint="f" * 32, engine_id="engine-0-e1-1", sequence=1)
PROBLEMS = [make_problem(number) for number in range(3)]
_numbers = itertools.count()
examples = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as found:
        yield found


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """Return a path below which nothing is, on either kind of storage."""
    if request.param == "local":
        return tmp_path
    request.getfixturevalue("server")
    return ObjectPath(BUCKET, f"tests/{next(_numbers)}")


@pytest.fixture
def remote(server: S3Server) -> ObjectPath:
    """Return a path below which nothing is, on the object store."""
    return ObjectPath(BUCKET, f"tests/{next(_numbers)}")


def _fresh(place: AnyPath) -> AnyPath:
    path = place / str(next(_numbers))
    path.mkdir(parents=True)
    return path


# Files


NAMES = ["a.json", "b.json", "a.parquet", "x/a.json", "x/y/a.json", "z/a.json", ".a.tmp"]


@pytest.mark.parametrize("pattern", ["*.json", "a.*", "*/a.json", "x/*", "*/*/*.json", "*", "none/*"])
def test_a_pattern_finds_the_same_on_both(place: AnyPath, tmp_path: Path, pattern: str) -> None:
    beside = tmp_path / "beside"
    for root in (place / "root", beside):
        for name in NAMES:
            path = root
            for part in name.split("/"):
                path = path / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    found = [str(path).removeprefix(str(place / "root")) for path in find_files(place / "root", pattern)]
    assert found == sorted(str(path).removeprefix(str(beside)) for path in beside.glob(pattern))
    assert [path.exists() for path in find_files(place / "root", "*.json")] == [True, True]


@examples
@given(data=st.binary(max_size=300), reads=st.lists(st.tuples(st.integers(0, 310), st.integers(0, 310)), max_size=5))
def test_a_file_is_read_back_whole_and_in_ranges(place: AnyPath, data: bytes, reads: list[tuple[int, int]]) -> None:
    path = _fresh(place) / "file"
    write_atomically(path, b"what was there before")
    write_atomically(path, data)
    assert path.read_bytes() == data
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(data).digest()
        for at, size in reads:
            file.seek(at)
            assert file.read(size) == data[at : at + size]
    path.unlink()
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="file"):
        path.read_bytes()


def test_of_parquet_what_is_asked_for_is_read(place: AnyPath, tmp_path: Path) -> None:
    table = pa.table({"a": list(range(5000)), "b": [str(number) for number in range(5000)]})
    pq.write_table(table, tmp_path / "local.parquet", row_group_size=1000)
    path = _fresh(place) / "table.parquet"
    write_atomically(path, (tmp_path / "local.parquet").read_bytes())
    assert pq.read_table(parquet_source(path)).equals(table)
    with pq.ParquetFile(parquet_source(path)) as file:
        assert file.read_row_group(3, columns=["b"])["b"].to_pylist() == [str(number) for number in range(3000, 4000)]


RACE = """
import sys
from factory.storage import create_manifest, parse_path
folder = parse_path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(30):
    try:
        create_manifest(folder / f"{number:06d}.json", sys.argv[2].encode())
        print(number, flush=True)
    except FileExistsError:
        pass
"""


def test_of_processes_that_create_the_same_files_exactly_one_wins_each(place: AnyPath) -> None:
    folder = _fresh(place)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "other")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    won = {name: child.communicate()[0].split() for name, child in zip(("one", "other"), children, strict=True)}
    assert sorted(map(int, won["one"] + won["other"])) == list(range(30))
    for name, numbers in won.items():
        assert all((folder / f"{int(number):06d}.json").read_bytes() == name.encode() for number in numbers)


@pytest.mark.slow
def test_a_folder_of_tables_replaces_the_one_before_and_its_manifest_comes_last(
    remote: ObjectPath, tmp_path: Path
) -> None:
    for names in (["sft/a", "sft/b", "manifest.json"], ["sft/b", "runs/c", "manifest.json"]):
        built = tmp_path / names[1].replace("/", "-")
        for name in names:
            (built / name).parent.mkdir(parents=True, exist_ok=True)
            (built / name).write_bytes(str(names).encode())
        replace_folder(built, remote)
        assert list(remote.sizes()) == sorted(names)
        assert (remote / "sft" / "b").read_bytes() == str(names).encode()


@pytest.mark.slow
def test_tables_load_from_an_object_store_as_the_command_says(
    remote: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "table.parquet")
    write_atomically(remote / "train-00000-of-00001.parquet", (tmp_path / "table.parquet").read_bytes())
    obstore.fsspec.register("s3")
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{remote}/train-*.parquet", cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert loaded["a"][:] == [1, 2, 3]


def test_tables_are_built_and_follow_from_their_candidates_on_both(place: AnyPath) -> None:
    problem = demo_tables.make_problem(6)
    traces = [demo_tables.make_trace(problem, index) for index in range(3)]
    said = [demo_tables.judged(trace, demo_tables.CORRECT) for trace in traces]
    config = SelectConfig()
    content = demo_tables.make_content([problem], traces, said)
    folder = write_tables(place / "tables", content, config).folder
    found = rederive(folder, with_bytes=True)
    assert found.differences == ()
    assert {one.config: one.rows for one in found.splits}["sft"] == 3


# The journal


@examples
@given(batches=st.lists(st.lists(traces(), max_size=3), max_size=4), unsynced=traces())
def test_a_segment_holds_what_was_synced_each_trace_at_its_position(
    place: AnyPath, batches: list[list[Trace]], unsynced: Trace
) -> None:
    folder = _fresh(place)
    writer = SegmentWriter(folder, HEADER)
    written: list[Traced] = []
    samples: list[Trace] = []
    for batch in batches:
        written += [traced(writer.append(trace), trace) for trace in batch]
        samples += batch
        writer.sync()
    writer.sync()
    last = traced(writer.append(unsynced), unsynced)
    assert scan_segment(writer.path) == (HEADER, written, [], 0, (), ())
    writer.close()
    assert scan_segment(writer.path).traces == [*written, last]
    wait_for_writer(writer.path, 1)
    for _ in range(2):
        assert scan_segment(writer.path) == (HEADER, [*written, last], [], 0, (), ())
    assert traces_of(writer.path) == [*samples, unsynced]
    delete_segment(writer.path)
    with pytest.raises(FileNotFoundError):
        scan_segment(writer.path)


@pytest.mark.slow
def test_a_part_that_is_gone_costs_what_follows_and_nothing_before(remote: ObjectPath) -> None:
    writer = SegmentWriter(remote, HEADER)
    for number in range(4):
        writer.append(make_trace("a" * 32, number))
        writer.sync()
    writer.close()
    (writer.path / parts.list_parts(writer.path)[2].name).unlink()
    scan = scan_segment(writer.path)
    assert [one.sample_index for one in scan.traces] == [0, 1]
    assert scan.torn_bytes > 0


WRITE = """
import sys, time
from factory.journal import SegmentHeader, SegmentWriter
from factory.storage import parse_path
from tests.runs import make_trace
header = SegmentHeader(fingerprint="f", engine_id="engine-0-e1-1", sequence=1)
writer = SegmentWriter(parse_path(sys.argv[1]), header)
number = 0
while True:
    writer.append(make_trace("a" * 32, number))
    writer.sync()
    print(number, flush=True)
    number += 1
    time.sleep(0.2)  # an engine's is fsync_interval_s: one that never pauses could outrun the seal for long
"""


@pytest.mark.slow
def test_a_writer_whose_segment_was_sealed_ends_and_what_it_had_said_to_be_safe_was_seen(remote: ObjectPath) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(remote)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        segment = remote / "engine-0-e1-1-000001.seg"
        wait_for_writer(segment, 30)
        seen = [one.sample_index for one in scan_segment(segment).traces]
        rest, said = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 1
    assert "FencedError" in said
    assert "was sealed at byte" in said
    assert seen == list(range(3 + len(rest.split())))
    assert [one.sample_index for one in scan_segment(segment).traces] == seen


@pytest.mark.slow
def test_a_part_whose_answer_was_lost_is_written_once_and_the_next_ones_after_it(
    server: S3Server, remote: ObjectPath
) -> None:
    lost: list[str] = []

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        said = forwarded(server, method, path, headers, body)
        if method == "PUT" and said.status == 200 and not lost:
            lost.append(path)
            return None
        return said

    with odd_s3_server(answer) as endpoint, environment({**server.environment, "AWS_ENDPOINT_URL": endpoint}):
        writer = SegmentWriter(remote, HEADER)
        with_one = [writer.append(make_trace("a" * 32, 0))]
        with suppress(StorageError):  # whether the library tries again by itself is its own affair
            writer.sync()
        with_one.append(writer.append(make_trace("a" * 32, 1)))
        writer.sync()
    assert lost
    scan = scan_segment(writer.path)
    assert [one.position for one in scan.traces] == with_one
    assert scan.torn_bytes == 0


# The committer


def test_a_stale_committer_is_fenced_and_the_segment_stays(place: AnyPath) -> None:
    stale = start_run(place, PROBLEMS, num_samples=1)
    made = [make_trace(PROBLEMS[0].problem_id, 0)]
    segment = write_segment(place / "journal", made, sequence=1)
    fresh = Committer(place, verifiers="v1")
    for error in (FencedError, StoreError):
        with pytest.raises(error):
            stale.commit(segments=[segment], judged=[make_verdict(made[0], PROBLEMS[0])])
        assert RunFolder(place).manifest() == fresh.manifest
        assert [path.name for path in RunFolder(place).leftover_segments()] == [segment]
    assert fresh.commit(segments=[segment], judged=[make_verdict(made[0], PROBLEMS[0])]).judged == 1
    assert committed_traces(place) == made


def test_a_run_is_started_extended_judged_later_and_found_whole(place: AnyPath) -> None:
    made = [make_trace(problem.problem_id, index) for problem in PROBLEMS for index in range(2)]
    committer = start_run(place, PROBLEMS, num_samples=1)
    with lock_run(place):
        by_index = [[trace for trace in made if trace.sample_index == index] for index in range(2)]
        names = [write_segment(place / "journal", by_index[at], sequence=at + 1) for at in range(2)]
        committer.commit(segments=names[:1], kept=names[:1])
        committer.commit(segments=names[:1])
        committer = start_run(place, PROBLEMS, num_samples=2)
        committer.commit(segments=names)
    folder = RunFolder(place)
    assert folder.leftover_segments() == []
    assert sorted(committed_traces(place), key=made.index) == made
    state = RunState.load(folder, folder.manifest())
    found = read_traces(folder, [position for _, position in unjudged_places(folder, folder.manifest(), state)])
    by_id = {problem.problem_id: problem for problem in PROBLEMS}
    counts = committer.commit(judged=[make_verdict(trace, by_id[trace.problem_id]) for trace in found])
    assert (counts.requested, counts.judged, counts.pending) == (6, 6, 0)
    assert all(finding.is_fine for finding in examine_run(place))


@pytest.mark.slow
def test_the_remains_of_a_segment_whose_deletion_was_cut_short_are_no_segment_and_go(remote: ObjectPath) -> None:
    start_run(remote, PROBLEMS, num_samples=1)
    writer = SegmentWriter(remote / "journal", HEADER)
    for number in range(3):
        writer.append(make_trace(PROBLEMS[number].problem_id, 0))
        writer.sync()
    (writer.path / parts.FIRST).unlink()
    assert RunFolder(remote).leftover_segments() == []
    with pytest.raises(FileNotFoundError):
        scan_segment(writer.path)
    start_run(remote, PROBLEMS, num_samples=1)
    assert (remote / "journal").sizes() == {}


# The lock


HOLD = """
import sys
from factory.storage import parse_path
from factory.store import lock_run
with lock_run(parse_path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_has_a_run_and_a_kill_frees_it(place: AnyPath) -> None:
    run = _fresh(place)
    for _ in range(2):  # after a kill, and after a release
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            with pytest.raises(RunLockedError, match=f"process {child.pid} on "):
                lock_run(run)
        finally:
            child.kill()
            child.communicate()
        lock_run(run).release()


@pytest.mark.slow
def test_a_lock_that_is_held_elsewhere_is_free_once_it_was_not_refreshed(
    remote: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectlock, "EXPIRES_S", 2.0)
    monkeypatch.setattr(objectlock, "REFRESH_S", 0.2)
    holder = ObjectLock(remote)
    body = {**json.loads((remote / "lock" / "000001").read_bytes()), "machine": "another", "host": "far-away"}
    monkeypatch.setattr(holder, "_body", body)
    holder._path.write_bytes(holder._data())
    with pytest.raises(RunLockedError, match="on far-away works on this run"):
        ObjectLock(remote)
    holder._is_released.set()  # it is gone, without a word
    holder._thread.join()
    with ObjectLock(remote):
        assert list((remote / "lock").sizes()) == ["000002"]
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on "):
            ObjectLock(remote)


# What a user is told


@pytest.mark.parametrize("text", ["s3://", "s3:///a", "s3://Bad_Bucket/a", "s3://bucket/a/../b", "gs://bucket/a"])
def test_what_is_no_address_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(ConfigError, match="give s3://BUCKET/NAME"):
        parse_path(text)


@given(st.lists(st.from_regex(r"[a-z0-9._-]{1,5}", fullmatch=True).filter(lambda name: set(name) != {"."}), min_size=1))
def test_an_address_survives_its_text_and_takes_parts_as_a_path_does(names: list[str]) -> None:
    path, local = ObjectPath("bucket"), Path("/bucket")
    for name in names:
        path, local = path / name, local / name
    assert parse_path(str(path)) == path
    assert parse_path(f"{path}/") == path
    assert (path.name, str(path.parent).removeprefix("s3:/").rstrip("/")) == (local.name, str(local.parent))


def _refusal(reply: Reply | None, **variables: str) -> str:
    def answer(method: str, *_: object) -> Reply | None:
        return (
            Reply(200, b"<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>") if method == "POST" else reply
        )

    keys = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
    with (
        odd_s3_server(answer) as endpoint,
        environment({**keys, "AWS_ENDPOINT_URL": endpoint, **variables}),
        pytest.raises(ConfigError) as caught,
    ):
        require_storage(ObjectPath("a-bucket", "run"))
    assert "a-secret" not in str(caught.value)
    return str(caught.value)


def test_a_store_that_cannot_hold_a_run_is_refused_with_bucket_and_remedy() -> None:
    assert "there is no bucket a-bucket at http://127.0.0.1" in _refusal(fault(404, "NoSuchBucket"))
    denied = _refusal(fault(403, "InvalidAccessKeyId"))
    assert "bucket a-bucket" in denied
    assert "refuses these credentials (InvalidAccessKeyId); check AWS_ACCESS_KEY_ID" in denied
    assert "this store writes over an object" in _refusal(Reply(200))
    assert "bucket a-bucket" in (said := _refusal(fault(501, "NotImplemented")))
    assert "NotImplemented" in said


def test_a_store_that_does_not_answer_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "HASTE_S", 0.5)
    said = _refusal(None, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "nothing answers for bucket a-bucket at http://127.0.0.1:9" in said
    assert "check AWS_ENDPOINT_URL" in said
    assert "nothing was started" in said


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"install distillation-factory\[s3\]"):
        ObjectPath("a-bucket", "run").read_bytes()


def test_logs_are_local_and_two_runs_do_not_share_them() -> None:
    one, other = (log_folder(ObjectPath("b", key)) for key in ("x/run", "y/run"))
    assert isinstance(one, Path)
    assert one != other
