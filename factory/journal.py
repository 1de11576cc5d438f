"""The journal: finished attempts on disk within about a second, before anybody judges them.

One writer per segment, append-only, locked while its writer lives. A segment is a header frame and trace frames, each
``length, crc32, payload``; the first bad frame ends what is read, so a torn tail costs only what was not yet synced. A
trace counts as made when ``append`` and then ``sync`` have returned. Does not know about manifests: the store decides
when a segment may go.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from factory.faults import Point, reach
from schemas.arrow import trace_table
from schemas.errors import CorruptRunError, RunLockedError, SchemaVersionError
from schemas.trace import FinishReason, Trace, TraceFormat

MAGIC: Final = b"DFJ1"
FRAME: Final = struct.Struct("<II")  # payload length in bytes, crc32 of the payload
PARTS: Final = struct.Struct("<III")  # lengths of: header JSON, text, token ids
MAX_FRAME_BYTES: Final = 1 << 30  # a length beyond this is a torn or damaged frame, not a trace
SEGMENT_SUFFIX: Final = ".seg"
FRAME_SCHEMA: Final = "trace-frame/1"


class Position(NamedTuple):
    """Where a trace lies: a segment's name and the byte of its frame, or a trace shard's name and the row in it."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """Who wrote a segment, and for which run."""

    fingerprint: str
    engine_id: str
    sequence: int
    schema: str = FRAME_SCHEMA


def encode_trace(trace: Trace) -> bytes:
    """Return a trace as a frame's payload: small fields as JSON, text as UTF-8, token ids as little-endian int32."""
    fields = {name: getattr(trace, name) for name in Trace.__slots__ if name not in ("text", "token_ids")}
    header = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text = trace.text.encode()
    tokens = struct.pack(f"<{len(trace.token_ids)}i", *trace.token_ids)
    return PARTS.pack(len(header), len(text), len(tokens)) + header + text + tokens


def decode_trace(payload: bytes) -> Trace:
    """Return the trace that ``encode_trace`` wrote; the payload's checksum has been compared before."""
    header_size, text_size, token_size = PARTS.unpack_from(payload)
    text_at = PARTS.size + header_size
    tokens_at = text_at + text_size
    fields: dict[str, Any] = json.loads(payload[PARTS.size : text_at])
    fields["format"] = TraceFormat(fields["format"])
    fields["finish_reason"] = FinishReason(fields["finish_reason"])
    fields["resumed_at"] = tuple(fields["resumed_at"])
    return Trace(
        text=payload[text_at:tokens_at].decode(),
        token_ids=struct.unpack(f"<{token_size // 4}i", payload[tokens_at : tokens_at + token_size]),
        **fields,
    )


def _frame(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class SegmentWriter:
    """Appends traces to one new segment. ``append`` from one thread, ``sync`` from one (other) thread at a time.

    Holds a lock on the file while it lives, so that a recovering run waits until this writer is really dead.
    """

    def __init__(self, folder: Path, header: SegmentHeader) -> None:
        """Create the segment, named after engine and sequence.

        Raises:
            FileExistsError: If it exists: two writers with one identity, a bug that must not pass.
        """
        self.name = f"{header.engine_id}-{header.sequence:06d}{SEGMENT_SUFFIX}"
        self.path = folder / self.name
        self._file = self.path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._pending = bytearray(MAGIC + _frame(json.dumps(asdict(header)).encode()))
        self.size = len(self._pending)  # bytes, synced or not
        self.num_traces = 0
        self.sync()
        sync_folder(folder)
        reach(Point.SEGMENT_CREATED)

    def append(self, trace: Trace) -> Position:
        """Queue a trace; it is safe once a ``sync`` that began afterwards has returned."""
        frame = _frame(encode_trace(trace))
        position = Position(self.name, self.size)
        self.size += len(frame)
        self.num_traces += 1
        self._pending += frame
        reach(Point.TRACE_APPENDED)
        return position

    def sync(self) -> None:
        """Write and fsync what was appended so far.

        Raises:
            OSError: If the disk is full or gone; what was not written stays queued, in order.
        """
        chunk, self._pending = self._pending, bytearray()
        try:
            while chunk:
                written = self._file.write(chunk)
                del chunk[:written]
            reach(Point.FRAMES_WRITTEN)
            os.fsync(self._file.fileno())
            reach(Point.FRAMES_SYNCED)
        finally:
            self._pending[:0] = chunk

    def close(self) -> None:
        """Sync, unlock and close."""
        if not self._file.closed:
            self.sync()
            self._file.close()
            reach(Point.SEGMENT_CLOSED)


class SegmentName(NamedTuple):
    """What a segment's name says: who writes it, and the how-manieth of that writer it is, from 1."""

    engine_id: str
    sequence: int


def split_name(name: str) -> SegmentName:
    """Return what a segment's name says."""
    engine_id, _, sequence = name.removesuffix(SEGMENT_SUFFIX).rpartition("-")
    return SegmentName(engine_id, int(sequence))


class SegmentScan(NamedTuple):
    """What a segment holds: positions of its good frames, and the bytes behind the last one (a torn tail)."""

    header: SegmentHeader | None
    traces: list[tuple[Position, Trace]]
    torn_bytes: int


def wait_for_writer(path: Path, timeout_s: float) -> None:
    """Return once no living writer holds the segment.

    Raises:
        RunLockedError: If one still does after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    with path.open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RunLockedError(
                        f"{path}: an engine of an earlier start of this run still writes to it after {timeout_s:g} s; "
                        "end that process, then run the same command again"
                    ) from None
                time.sleep(0.1)


def scan_segment(path: Path) -> SegmentScan:
    """Return all traces of a segment up to its last good frame. A segment torn in its header holds nothing.

    Raises:
        SchemaVersionError: If another version of the frames wrote it.
    """
    data = path.read_bytes()
    header: SegmentHeader | None = None
    traces: list[tuple[Position, Trace]] = []
    good = 0
    for offset, payload in _frames(data):
        if header is None:
            header = _check_header(path, (offset, payload))
        else:
            traces.append((Position(path.name, offset), decode_trace(payload)))
        good = offset + FRAME.size + len(payload)
    return SegmentScan(header, traces, len(data) - good)


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a frame's fields; texts that many frames have are held once."""
    return {name: sys.intern(value) if isinstance(value, str) else value for name, value in pairs}


def _check_header(path: Path, frame: tuple[int, bytes] | None) -> SegmentHeader | None:
    """Return what a segment's first frame says; None where it was torn before that was written."""
    if frame is None:
        return None
    fields = json.loads(frame[1])
    if fields.get("schema") != FRAME_SCHEMA:
        raise SchemaVersionError(
            f"{path}: has frames {fields.get('schema')}, this version reads {FRAME_SCHEMA}; "
            "use the version of the factory that wrote the run (run.yaml names it)"
        )
    return SegmentHeader(**fields)


def segment_table(path: Path) -> pa.Table:
    """Return the traces of a segment as a ``TRACES`` table, in its order, up to its last good frame.

    No object is made of a trace: a segment takes about as much memory as on disk, however many tokens it holds.

    Raises:
        SchemaVersionError: As ``scan_segment``.
    """
    headers: list[dict[str, Any]] = []
    texts: list[bytes] = []
    tokens: list[bytes] = []
    frames = _frames(path.read_bytes())
    _check_header(path, next(frames, None))
    for _, payload in frames:
        header_size, text_size, _ = PARTS.unpack_from(payload)
        text_at = PARTS.size + header_size
        headers.append(json.loads(payload[PARTS.size : text_at], object_pairs_hook=_shared))
        texts.append(payload[text_at : text_at + text_size])
        tokens.append(payload[text_at + text_size :])
    return trace_table(headers, texts, tokens)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield offset and payload of the good frames; stop at the first that is short or fails its checksum."""
    if not data.startswith(MAGIC):
        return
    offset = len(MAGIC)
    while offset + FRAME.size <= len(data):
        size, checksum = FRAME.unpack_from(data, offset)
        start = offset + FRAME.size
        payload = data[start : start + size]
        # A size below the smallest payload is a tail of zeros, which some file systems leave after a power loss.
        if not PARTS.size <= size <= MAX_FRAME_BYTES or len(payload) < size or zlib.crc32(payload) != checksum:
            return
        yield offset, payload
        offset = start + size


def read_trace(folder: Path, position: Position) -> Trace:
    """Return the trace at a position that was synced.

    Raises:
        CorruptRunError: If no good frame is there.
    """
    path = folder / position.file
    with path.open("rb") as file:
        file.seek(position.offset)
        head = file.read(FRAME.size)
        size, checksum = FRAME.unpack(head) if len(head) == FRAME.size else (0, 0)
        payload = file.read(size) if PARTS.size <= size <= MAX_FRAME_BYTES else b""
    if not payload or len(payload) != size or zlib.crc32(payload) != checksum:
        raise CorruptRunError(f"{path}: no good frame at byte {position.offset}; it was changed after its sync")
    return decode_trace(payload)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that names created or renamed in it survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
