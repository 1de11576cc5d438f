"""The journal: whatever happens to its bytes, it gives back what was synced, or less; never anything else."""

from __future__ import annotations

import ast
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory import journal, shards, store
from factory.journal import (
    FRAME,
    MAGIC,
    Piece,
    Position,
    Saved,
    SegmentHeader,
    SegmentWriter,
    decode_partial,
    decode_trace,
    encode_partial,
    encode_trace,
    read_saved,
    read_trace,
    scan_segment,
    segment_table,
    wait_for_writer,
)
from schemas.errors import CorruptRunError, RunLockedError, SchemaVersionError
from schemas.trace import Partial, Trace
from tests.runs import make_trace, traced, traces_of, write_segment
from tests.strategies import partials, traces

HEADER = SegmentHeader(fingerprint="f" * 32, engine_id="engine-0-e1-1", sequence=1)
# Texts of many shapes; zero tokens look like an empty frame to a careless reader.
SAMPLES = [
    make_trace("a" * 32, 0),
    make_trace("a" * 32, 1, text="\0" * 40),
    make_trace("b" * 32, 0, text="è 中文 \U0001f600\n"),
    make_trace("b" * 32, 2, text="x" * 300),
]


def _segment_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return (Path(folder) / write_segment(Path(folder), SAMPLES, sequence=1)).read_bytes()


SEGMENT = _segment_bytes()


def _scanned(data: bytes) -> list[Trace]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine-0-e1-1-000001.seg"
        path.write_bytes(data)
        return traces_of(path)


@given(traces())
def test_a_trace_survives_its_frame(trace: Trace) -> None:
    assert decode_trace(encode_trace(trace)) == trace


@given(partials)
def test_a_partial_survives_its_frame(partial: Partial) -> None:
    assert decode_partial(encode_partial(partial)) == partial


@settings(max_examples=25)
@given(st.lists(traces() | partials, max_size=6))
def test_traces_and_partials_share_a_segment_and_none_is_taken_for_the_other(written: list[Trace | Partial]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = SegmentWriter(folder, HEADER)
        samples = [frame for frame in written if isinstance(frame, Trace)]
        found = [traced(writer.append(sample), sample) for sample in samples]
        pieces = [writer.append_partial(frame) for frame in written if isinstance(frame, Partial)]
        writer.close()
        scan = scan_segment(writer.path)
        assert (scan.traces, scan.pieces, scan.torn_bytes) == (found, pieces, 0)
        assert traces_of(writer.path) == samples
        for piece in pieces:
            with pytest.raises(CorruptRunError, match="is no trace's"):
                read_trace(folder, piece.position)
        for one in found:
            with pytest.raises(CorruptRunError, match="does not go on from 0 tokens"):
                read_saved(folder, [one.position])


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5), min_size=1, max_size=6), st.data())
def test_what_was_saved_piece_by_piece_is_read_as_one_and_never_over_a_gap(
    deltas: list[list[int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pieces: list[Piece] = []
        token_ids: list[int] = []
        for sequence, delta in enumerate(deltas):  # each in another segment, as of an attempt that takes long
            writer = SegmentWriter(folder, replace(HEADER, sequence=sequence))
            pieces.append(writer.append_partial(_partial(len(token_ids), tuple(delta))))
            token_ids += delta
            writer.close()
        positions = [piece.position for piece in pieces]
        assert read_saved(folder, positions) == Saved(tuple(token_ids), (7,))
        assert sum(piece.num_tokens for piece in pieces) == len(token_ids)
        if len(pieces) > 1:
            left_out = data.draw(st.integers(0, len(pieces) - 2))
            with pytest.raises(CorruptRunError, match="does not go on from"):
                read_saved(folder, positions[:left_out] + positions[left_out + 1 :])


def _partial(offset: int, token_ids: tuple[int, ...]) -> Partial:
    return Partial(problem_id="a" * 32, sample_index=3, offset=offset, token_ids=token_ids, resumed_at=(7,))


def test_a_segment_from_before_there_were_partials_is_read(tmp_path: Path) -> None:
    header = json.dumps({"fingerprint": "f", "engine_id": "e", "sequence": 1, "schema": "trace-frame/1"}).encode()
    frames = [header, *map(encode_trace, SAMPLES)]
    path = tmp_path / "e-000001.seg"
    path.write_bytes(MAGIC + b"".join(FRAME.pack(len(frame), zlib.crc32(frame)) + frame for frame in frames))
    scan = scan_segment(path)
    assert traces_of(path) == SAMPLES
    assert scan.pieces == []


@settings(max_examples=25)
@given(st.lists(traces(), max_size=5))
def test_a_segment_gives_back_its_traces_in_order_and_each_at_its_position(written: list[Trace]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = SegmentWriter(folder, HEADER)
        positions = [writer.append(trace) for trace in written]
        writer.close()
        scan = scan_segment(writer.path)
        assert scan.header == HEADER
        assert scan.torn_bytes == 0
        assert scan.traces == list(map(traced, positions, written))
        assert [read_trace(folder, position) for position in positions] == written


@given(st.integers(0, len(SEGMENT)))
def test_a_segment_cut_anywhere_gives_a_prefix(cut: int) -> None:
    found = _scanned(SEGMENT[:cut])
    assert found == SAMPLES[: len(found)]
    assert len(found) == len(SAMPLES) or cut < len(SEGMENT)


@given(st.integers(0, len(SEGMENT) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_gives_another_trace(place: int, mask: int) -> None:
    damaged = bytearray(SEGMENT)
    damaged[place] ^= mask
    found = _scanned(bytes(damaged))
    assert all(trace in SAMPLES for trace in found)
    assert found == sorted(found, key=SAMPLES.index)


def test_a_damaged_frame_costs_itself_and_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "s.seg"
    path.write_bytes(SEGMENT)
    places = [one.position.offset for one in scan_segment(path).traces]
    assert len(places) >= 3
    for number, place in enumerate(places[:-1]):
        damaged = bytearray(SEGMENT)
        damaged[place + FRAME.size + 30] ^= 4
        path.write_bytes(damaged)
        scan = scan_segment(path)
        assert scan.damaged == (place,)
        assert traces_of(path) == SAMPLES[:number] + SAMPLES[number + 1 :]
        assert segment_table(path).num_rows == len(SAMPLES) - 1
    path.write_bytes(SEGMENT[:40] + bytes([SEGMENT[40] ^ 1]) + SEGMENT[41:])  # in the header
    assert traces_of(path) == SAMPLES


def test_a_flipped_bit_in_a_length_costs_nothing_and_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "s.seg"
    path.write_bytes(SEGMENT)
    whole = scan_segment(path).traces
    for place in (len(MAGIC), *(one.position.offset for one in whole)):
        for bit in range(32):
            damaged = bytearray(SEGMENT)
            damaged[place + bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            scan = scan_segment(path)
            assert (scan.mended, scan.damaged, scan.torn_bytes) == ((place,), (), 0)
            assert scan.traces == whole
            assert traces_of(path) == SAMPLES  # each by its position
            assert segment_table(path).num_rows == len(SAMPLES)


@given(st.binary(max_size=64) | st.integers(0, 64).map(bytes))
@example(bytes(8))  # a power loss leaves zeros behind the last write: an empty payload has the checksum 0
@example(bytes(4096))
@example(FRAME.pack(0, 0))
@example(FRAME.pack(4, zlib.crc32(b"none")) + b"none")
def test_garbage_behind_the_last_frame_costs_nothing(tail: bytes) -> None:
    assert _scanned(SEGMENT + tail) == SAMPLES


@given(st.integers(0, len(SEGMENT) + 8))
def test_no_position_gives_another_trace(offset: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s.seg").write_bytes(SEGMENT)
        starts = {one.position.offset: one for one in scan_segment(folder / "s.seg").traces}
        if offset in starts:
            position = Position("s.seg", offset)
            assert starts[offset] == traced(position, read_trace(folder, position))
        elif offset != len(MAGIC):  # the header's own frame
            with pytest.raises(CorruptRunError):
                read_trace(folder, Position("s.seg", offset))


def test_what_was_appended_is_on_disk_once_sync_has_returned(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, HEADER)
    assert not writer.path.exists(), "whoever appends does not wait for the disk"
    writer.sync()
    for number, trace in enumerate(SAMPLES, start=1):
        writer.append(trace)
        assert len(scan_segment(writer.path).traces) == number - 1
        writer.sync()
        assert len(scan_segment(writer.path).traces) == number
    writer.close()


def test_two_writers_never_share_a_segment(tmp_path: Path) -> None:
    SegmentWriter(tmp_path, HEADER).close()
    with pytest.raises(FileExistsError):
        SegmentWriter(tmp_path, HEADER).sync()


@pytest.mark.parametrize("extra", [{}, {"compression": "zstd"}])
def test_a_segment_of_another_version_is_refused_with_the_reason(tmp_path: Path, extra: dict[str, str]) -> None:
    header = {"fingerprint": "f", "engine_id": "e", "sequence": 1, "schema": "trace-frame/9"} | extra
    payload = json.dumps(header).encode()
    path = tmp_path / "e-000001.seg"
    path.write_bytes(MAGIC + FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
    with pytest.raises(SchemaVersionError, match="trace-frame/9"):
        scan_segment(path)


HOLD = """
import sys
from pathlib import Path
from factory.journal import SegmentHeader, SegmentWriter
from tests.runs import make_trace
writer = SegmentWriter(Path(sys.argv[1]), SegmentHeader(fingerprint="f", engine_id="engine-0-e1-1", sequence=1))
writer.append(make_trace("a" * 32, 0))
writer.sync()
writer.append(make_trace("a" * 32, 1))  # never synced
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_living_writer_is_waited_for_and_a_killed_one_is_not(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        path = tmp_path / "engine-0-e1-1-000001.seg"
        with pytest.raises(RunLockedError, match=r"engine-0-e1-1-000001\.seg"):
            wait_for_writer(path, 0.3)
        os.kill(child.pid, signal.SIGKILL)
        wait_for_writer(path, 30)
        assert [one.sample_index for one in scan_segment(path).traces] == [0]
    finally:
        child.kill()
        child.communicate()


FILL = """
import resource, sys
from pathlib import Path
from factory.journal import SegmentHeader, SegmentWriter
from tests.runs import make_trace
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
writer = SegmentWriter(Path(sys.argv[1]), SegmentHeader(fingerprint="f", engine_id="engine-0-e1-1", sequence=1))
number = 0
try:
    while number < 1000:
        writer.append(make_trace("a" * 32, number, text="x" * 500))
        number += 1
        writer.sync()
        print("synced", number, flush=True)
except OSError as error:
    print("refused", number, flush=True)
    if sys.argv[3] == "more":  # somebody made room
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.close()
"""


@pytest.mark.parametrize("then", ["die", "more"])
def test_a_full_disk_raises_and_loses_nothing_that_was_synced(tmp_path: Path, then: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path), "20000", then], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = child.stdout.split()
    synced, refused = int(lines[-3]), int(lines[-1])
    assert lines[-2] == "refused"
    assert refused == synced + 1
    found = [one.sample_index for one in scan_segment(tmp_path / "engine-0-e1-1-000001.seg").traces]
    assert found == list(range(synced if then == "die" else refused))


@pytest.mark.parametrize("module", [journal, store, shards])
def test_what_lies_on_disk_is_never_pickled(module: ModuleType) -> None:
    names = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not names & {"pickle", "marshal", "shelve", "multiprocessing"}
