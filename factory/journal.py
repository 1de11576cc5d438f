"""The journal: finished attempts on disk within about a second, before anybody judges them, and long ones piecewise.

One writer per segment, append-only, locked while its writer lives. A segment is a header frame, and frames of traces
and of partials (tokens of attempts that go on), each ``length, crc32, payload``. A torn tail costs only what was not
yet synced; a damaged frame that good ones follow is skipped and told of, and costs itself; a flipped bit in a length
costs nothing. A trace counts as made when
``append`` and then ``sync`` have returned. The partials of one attempt by one engine follow each other without a gap,
the first at offset 0: an engine that goes on from what another made writes that again with its own first piece, so no
two engines' pieces are ever put together. Does not know about manifests: the coordinator decides when a segment may go.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pyarrow as pa

from factory import parts
from factory.faults import Point, reach
from factory.parts import PartsWriter
from factory.storage import AnyPath, sync_folder
from schemas.arrow import trace_table
from schemas.errors import CorruptRunError, RunLockedError, SchemaVersionError
from schemas.trace import FinishReason, Partial, Trace, TraceFormat

MAGIC: Final = b"DFJ1"
FRAME: Final = struct.Struct("<II")  # payload length in bytes, crc32 of the payload
PARTS: Final = struct.Struct("<III")  # lengths of: header JSON, text, token ids
HEADER_AT: Final = len(MAGIC)  # where the first frame lies
MAX_FRAME_BYTES: Final = 1 << 30  # a length beyond this is a torn or damaged frame, not a trace
SEGMENT_SUFFIX: Final = ".seg"
FRAME_SCHEMA: Final = "trace-frame/2"
READABLE_SCHEMAS: Final = ("trace-frame/1", FRAME_SCHEMA)  # 1: traces only
PARTIAL: Final = "partial"  # `kind` in the header of a partial; a trace's has no such key
PARTIAL_HEAD: Final = f'{{"kind":"{PARTIAL}",'.encode()  # how the payload of a partial goes on behind its lengths


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


class Traced(NamedTuple):
    """Where a trace lies, and what is counted of it; its text and tokens stay on disk."""

    problem_id: str
    sample_index: int
    position: Position
    num_tokens: int  # of the completion


class Piece(NamedTuple):
    """Where a partial lies, and how it goes on from those before; its tokens stay on disk."""

    problem_id: str
    sample_index: int
    position: Position
    offset: int
    num_tokens: int


class Saved(NamedTuple):
    """What an attempt goes on from: its tokens so far, and at which counts of them another engine went on."""

    token_ids: tuple[int, ...] = ()
    resumed_at: tuple[int, ...] = ()


def encode_trace(trace: Trace) -> bytes:
    """Return a trace as a frame's payload: small fields as JSON, text as UTF-8, token ids as little-endian int32."""
    fields = {name: getattr(trace, name) for name in Trace.__slots__ if name not in ("text", "token_ids")}
    return _payload(fields, trace.text, trace.token_ids)


def encode_partial(partial: Partial) -> bytes:
    """Return a partial as a frame's payload, laid out as a trace's, without text: the teacher makes it of the ids."""
    fields = {name: getattr(partial, name) for name in Partial.__slots__ if name != "token_ids"}
    return _payload({"kind": PARTIAL} | fields, "", partial.token_ids)


_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _payload(fields: Mapping[str, Any], text: str, token_ids: Sequence[int]) -> bytes:
    header = _COMPACT.encode(fields).encode()
    body = text.encode()
    tokens = struct.pack(f"<{len(token_ids)}i", *token_ids)
    return PARTS.pack(len(header), len(body), len(tokens)) + header + body + tokens


def _fields(payload: bytes) -> dict[str, Any]:
    """Return the small fields of a payload; ``resumed_at`` is a tuple again."""
    fields: dict[str, Any] = json.loads(payload[PARTS.size : PARTS.size + PARTS.unpack_from(payload)[0]])
    fields["resumed_at"] = tuple(fields["resumed_at"])
    return fields


def _token_ids(payload: bytes) -> tuple[int, ...]:
    size = PARTS.unpack_from(payload)[2]
    return struct.unpack(f"<{size // 4}i", payload[len(payload) - size :])


def decode_trace(payload: bytes) -> Trace:
    """Return the trace that ``encode_trace`` wrote; the payload's checksum has been compared before."""
    header_size, text_size, _ = PARTS.unpack_from(payload)
    text_at = PARTS.size + header_size
    fields = _fields(payload)
    fields["format"] = TraceFormat(fields["format"])
    fields["finish_reason"] = FinishReason(fields["finish_reason"])
    text = payload[text_at : text_at + text_size].decode()
    return Trace(text=text, token_ids=_token_ids(payload), **fields)


def decode_partial(payload: bytes) -> Partial:
    """Return the partial that ``encode_partial`` wrote."""
    fields = _fields(payload)
    assert fields.pop("kind") == PARTIAL, "the frame of a trace"
    return Partial(token_ids=_token_ids(payload), **fields)


def _is_partial(payload: bytes) -> bool:
    return payload.startswith(PARTIAL_HEAD, PARTS.size)


def _frame(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class _FileWriter:
    """Writes one new local segment, made by the first ``write``; holds a lock on the file while it lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._is_listed = False  # its name is on disk, too

    def write(self, frames: bytearray) -> None:
        """Write and fsync; what was written is taken off ``frames``, also where the rest was not."""
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        while frames:
            written = self._file.write(frames)
            del frames[:written]
        reach(Point.FRAMES_WRITTEN)
        os.fsync(self._file.fileno())
        reach(Point.FRAMES_SYNCED)
        if not self._is_listed:
            sync_folder(self._path.parent)
            self._is_listed = True
            reach(Point.SEGMENT_CREATED)

    def close(self) -> None:
        """Unlock and close."""
        if self._file is not None:
            self._file.close()
        reach(Point.SEGMENT_CLOSED)


class SegmentWriter:
    """Appends traces and partials to one new segment; from one thread, ``sync`` from one (other) thread at a time.

    A recovering run waits until the writer of a local segment is really dead, and makes sure that the writer of one on
    an object store can add nothing more: see ``wait_for_writer``.
    """

    def __init__(self, folder: AnyPath, header: SegmentHeader) -> None:
        """Begin the segment, named after engine and sequence. The first sync makes it: whoever appends never waits."""
        self.name = f"{header.engine_id}-{header.sequence:06d}{SEGMENT_SUFFIX}"
        self.path = folder / self.name
        self._pending = bytearray(MAGIC + _frame(json.dumps(asdict(header)).encode()))
        self.size = len(self._pending)  # bytes, synced or not
        self.num_traces = 0
        self._is_closed = False
        self._writer = _FileWriter(self.path) if isinstance(self.path, Path) else PartsWriter(self.path)

    def append(self, trace: Trace) -> Position:
        """Queue a trace; it is safe once a ``sync`` that began afterwards has returned."""
        self.num_traces += 1
        return self._append(encode_trace(trace))

    def append_partial(self, partial: Partial) -> Piece:
        """Queue a partial; it is safe as a trace is."""
        position = self._append(encode_partial(partial))
        return Piece(partial.problem_id, partial.sample_index, position, partial.offset, len(partial.token_ids))

    def _append(self, payload: bytes) -> Position:
        frame = _frame(payload)
        position = Position(self.name, self.size)
        self.size += len(frame)
        self._pending += frame
        reach(Point.TRACE_APPENDED)
        return position

    def sync(self) -> None:
        """Write and fsync what was appended so far.

        Raises:
            OSError: If the disk is full or gone; what was not written stays queued, in order.
            FileExistsError: If it is there at the first sync: two writers with one identity, a bug that must not pass.
            StorageError: If the object store is away; as above.
            FencedError: If another start sealed the segment.
        """
        chunk, self._pending = self._pending, bytearray()
        try:
            self._writer.write(chunk)
        finally:
            self._pending[:0] = chunk

    def close(self) -> None:
        """Sync, unlock and close."""
        if not self._is_closed:
            self.sync()
            self._is_closed = True
            self._writer.close()


class SegmentName(NamedTuple):
    """What a segment's name says: who writes it, and the how-manieth of that writer it is, from 1."""

    engine_id: str
    sequence: int


def split_name(name: str) -> SegmentName:
    """Return what a segment's name says."""
    engine_id, _, sequence = name.removesuffix(SEGMENT_SUFFIX).rpartition("-")
    return SegmentName(engine_id, int(sequence))


class SegmentScan(NamedTuple):
    """What a segment holds: where its good frames lie, and the bytes behind the last one (a torn tail)."""

    header: SegmentHeader | None
    traces: list[Traced]
    pieces: list[Piece]
    torn_bytes: int
    damaged: tuple[int, ...] = ()  # places of bad frames that good ones follow
    mended: tuple[int, ...] = ()  # places of frames that were read though a bit of their length is wrong


def list_segments(journal: AnyPath) -> list[AnyPath]:
    """Return the segments of a journal, by name."""
    if isinstance(journal, Path):
        return sorted(journal.glob(f"*{SEGMENT_SUFFIX}"))
    return sorted(parts.segments_in(journal))


def segment_size(path: AnyPath) -> int:
    """Return the bytes of a segment.

    Raises:
        FileNotFoundError: If it is gone.
    """
    return path.stat().st_size if isinstance(path, Path) else parts.end_of(parts.list_parts(path))


def delete_segment(path: AnyPath) -> None:
    """Delete a segment that a manifest holds."""
    path.unlink() if isinstance(path, Path) else parts.delete_segment(path)


def _read_segment(path: AnyPath) -> bytes:
    return path.read_bytes() if isinstance(path, Path) else parts.read_segment(path)


def wait_for_writer(path: AnyPath, timeout_s: float) -> None:
    """Return once no living writer holds the segment; on an object store it is sealed, which ends one that lives.

    Raises:
        RunLockedError: If one still does after ``timeout_s``.
    """
    if not isinstance(path, Path):
        parts.seal(path, timeout_s)
        return
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


def scan_segment(path: AnyPath) -> SegmentScan:
    """Return where all lies that a segment holds up to its last good frame; one torn in its header holds nothing.

    Every checksum is compared. What comes back takes little memory, however long the traces are.

    Raises:
        SchemaVersionError: If another version of the frames wrote it.
    """
    data = _read_segment(path)
    header: SegmentHeader | None = None
    traces: list[Traced] = []
    pieces: list[Piece] = []
    damaged: list[int] = []
    mended: list[int] = []
    good = 0
    for offset, payload in _frames(data, damaged, mended):
        if offset == HEADER_AT:
            header = _check_header(path, payload)
        elif _is_partial(payload):
            pieces.append(_piece(Position(path.name, offset), payload))
        else:
            traces.append(_traced(Position(path.name, offset), payload))
        good = offset + FRAME.size + len(payload)
    return SegmentScan(header, traces, pieces, len(data) - good, tuple(damaged), tuple(mended))


def _traced(position: Position, payload: bytes) -> Traced:
    fields = _fields(payload)
    problem_id = sys.intern(fields["problem_id"])  # held once, however many attempts at it a journal has
    return Traced(problem_id, fields["sample_index"], position, fields["num_completion_tokens"])


def _piece(position: Position, payload: bytes) -> Piece:
    fields = _fields(payload)
    num_tokens = PARTS.unpack_from(payload)[2] // 4
    return Piece(sys.intern(fields["problem_id"]), fields["sample_index"], position, fields["offset"], num_tokens)


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a frame's fields; texts that many frames have are held once."""
    return {name: sys.intern(value) if isinstance(value, str) else value for name, value in pairs}


def _check_header(path: AnyPath, payload: bytes) -> SegmentHeader:
    """Return what a segment's first frame says."""
    fields = json.loads(payload)
    if fields.get("schema") not in READABLE_SCHEMAS:
        raise SchemaVersionError(
            f"{path}: has frames {fields.get('schema')}, this version reads {' and '.join(READABLE_SCHEMAS)}; "
            "use the version of the factory that wrote the run (run.yaml names it)"
        )
    return SegmentHeader(**fields)


def segment_table(path: AnyPath) -> pa.Table:
    """Return the traces of a segment as a ``TRACES`` table, in its order, up to its last good frame.

    No object is made of a trace: a segment takes about as much memory as on disk, however many tokens it holds.

    Raises:
        SchemaVersionError: As ``scan_segment``.
    """
    headers: list[dict[str, Any]] = []
    texts: list[bytes] = []
    tokens: list[bytes] = []
    for offset, payload in _frames(_read_segment(path), [], []):
        if offset == HEADER_AT:
            _check_header(path, payload)
            continue
        if _is_partial(payload):
            continue
        header_size, text_size, _ = PARTS.unpack_from(payload)
        text_at = PARTS.size + header_size
        headers.append(json.loads(payload[PARTS.size : text_at], object_pairs_hook=_shared))
        texts.append(payload[text_at : text_at + text_size])
        tokens.append(payload[text_at + text_size :])
    return trace_table(headers, texts, tokens)


def _frames(data: bytes, damaged: list[int], mended: list[int]) -> Iterator[tuple[int, bytes]]:
    """Yield offset and payload of the good frames, and add those of bad ones that a good one follows to ``damaged``.

    What follows is found by the bad frame's own length, never by looking for a frame: a text may hold what looks like
    one. Where one bit of the length is wrong, the checksum tells which: such a frame is good, and added to ``mended``.
    Where the length is bad beyond that, or nothing good follows, reading ends.
    """
    offset = HEADER_AT
    bad: list[int] = []
    while (payload := _payload_at(data, offset)) is not None:
        size, checksum = FRAME.unpack_from(data, offset)
        if zlib.crc32(payload) == checksum:
            damaged += bad
            bad.clear()
            if len(payload) != size:
                mended.append(offset)
            yield offset, payload
        else:
            bad.append(offset)
        offset += FRAME.size + len(payload)


def _payload_at(data: bytes, offset: int) -> bytes | None:
    """Return the payload of the frame at an offset, good or not; None if no whole frame is there."""
    room = len(data) - offset - FRAME.size
    if room < PARTS.size:
        return None
    size, checksum = FRAME.unpack_from(data, offset)
    begin = offset + FRAME.size
    # A size below the smallest payload is a tail of zeros, which some file systems leave after a power loss.
    sizes = [one for one in (size, *(size ^ 1 << bit for bit in range(32))) if PARTS.size <= one <= room]
    for one in sizes:
        payload = data[begin : begin + one]
        if one <= MAX_FRAME_BYTES and zlib.crc32(payload) == checksum:
            return payload
    return data[begin : begin + size] if size in sizes and size <= MAX_FRAME_BYTES else None


def read_trace(folder: AnyPath, position: Position) -> Trace:
    """Return the trace at a position that was synced.

    Raises:
        CorruptRunError: If no good frame of a trace is there.
    """
    payload = _read_payload(folder, position)
    if _is_partial(payload):
        raise CorruptRunError(f"{folder / position.file}: the frame at byte {position.offset} is no trace's")
    return decode_trace(payload)


def read_saved(folder: AnyPath, positions: Sequence[Position]) -> Saved:
    """Return what the partials at these positions, of one attempt and by one engine, amount to.

    Raises:
        CorruptRunError: If they do not follow each other from offset 0, or one of them is damaged.
        FileNotFoundError: If a segment is gone: the attempt has ended.
    """
    saved = Saved()
    for position in positions:
        payload = _read_payload(folder, position)
        if not _is_partial(payload) or (partial := decode_partial(payload)).offset != len(saved.token_ids):
            raise CorruptRunError(
                f"{folder / position.file}: the frame at byte {position.offset} does not go on from "
                f"{len(saved.token_ids)} tokens"
            )
        saved = Saved(saved.token_ids + partial.token_ids, partial.resumed_at)
    return saved


def _read_payload(folder: AnyPath, position: Position) -> bytes:
    path = folder / position.file
    with _open_at(path, position.offset) as file:
        frame = file.read(FRAME.size)
        size, checksum = FRAME.unpack(frame) if len(frame) == FRAME.size else (0, 0)
        frame += file.read(size) if size <= MAX_FRAME_BYTES else b""
        payload = frame[FRAME.size :]
        if len(payload) != size or zlib.crc32(payload) != checksum:
            payload = _payload_at(frame + file.read(), 0) or b""
    if len(payload) < PARTS.size or zlib.crc32(payload) != checksum:
        raise CorruptRunError(f"{path}: no good frame at byte {position.offset}; it was changed after its sync")
    return payload


def _open_at(path: AnyPath, offset: int) -> IO[bytes]:
    """Return a segment, or that part of it which holds the byte, as a file that is read from there on."""
    if isinstance(path, Path):
        file: IO[bytes] = path.open("rb")
        begin = 0
    else:
        begin, data = parts.read_part(path, offset)
        file = io.BytesIO(data)
    file.seek(offset - begin)
    return file
