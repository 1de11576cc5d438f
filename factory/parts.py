"""A journal segment on an object store: a folder of parts, one object for each sync.

A part holds whole frames, is named by the byte of the segment where it begins, and is created only if absent. So a
position in a segment means the same as in a file, and the name of the next part is known from the parts that are there:
who recovers a segment *seals* it, by an empty part of that name, and a writer that still lives finds its name taken.
The first part goes first when a segment is deleted: parts without it are remains, and hold nothing.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, NamedTuple

from factory.objects import ObjectPath
from schemas.errors import FencedError, RunLockedError

FIRST: Final = f"{0:012d}"  # name of a segment's first part
READERS: Final = 8  # parts that are read at a time: each takes a round trip; guess
MAX_KNOWN: Final = 1_000  # segments whose parts a reader remembers


class Part(NamedTuple):
    """A part of a segment: where it begins, and its length in bytes; 0 of a seal."""

    begin: int
    size: int

    @property
    def name(self) -> str:
        """Name of its object."""
        return f"{self.begin:012d}"


class PartsWriter:
    """Writes the parts of one new segment; nothing is sent before the first ``write``. From one thread at a time."""

    def __init__(self, segment: ObjectPath) -> None:
        self._segment = segment
        self._owner = secrets.token_hex(8)
        self._begin = 0
        self._part = b""  # taken over, and not known to be there

    def write(self, frames: bytearray) -> None:
        """Take over whole frames and write them as one part.

        Raises:
            StorageError: If that did not succeed; they are written first by the next call, as this same part: it may be
                there, and only the answer lost.
            FencedError: If the segment was sealed, since this writer was held for dead.
        """
        self._put()
        self._part = bytes(frames)
        frames.clear()
        self._put()

    def _put(self) -> None:
        if not self._part:
            return
        part = Part(self._begin, len(self._part))
        try:
            (self._segment / part.name).create(self._part, owner=self._owner)
        except FileExistsError:
            raise FencedError(
                f"{self._segment}: was sealed at byte {self._begin}: another start of this run took over, or held this "
                "engine for dead; it stops, and what it had not yet written is made again"
            ) from None
        self._begin += part.size
        self._part = b""

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def segments_in(journal: ObjectPath) -> list[ObjectPath]:
    """Return the segments of a journal, by name."""
    return [journal / name.removesuffix(f"/{FIRST}") for name in journal.sizes() if name.endswith(f"/{FIRST}")]


def list_parts(segment: ObjectPath) -> list[Part]:
    """Return the parts of a segment, in order.

    Raises:
        FileNotFoundError: If it is gone, or only remains are left.
    """
    parts = [Part(int(name), size) for name, size in segment.sizes().items() if name.isdecimal()]
    if not parts or parts[0].begin:
        raise FileNotFoundError(f"{segment}: no such segment")
    return parts


def end_of(parts: list[Part]) -> int:
    """Return the bytes of a segment."""
    return parts[-1].begin + parts[-1].size


def read_segment(segment: ObjectPath) -> bytes:
    """Return all bytes of a segment; zeros, which no frame begins with, stand for a part that is gone.

    Raises:
        FileNotFoundError: As ``list_parts``.
    """
    data = bytearray()
    parts = [part for part in list_parts(segment) if part.size]
    with ThreadPoolExecutor(min(READERS, len(parts))) as pool:
        found = pool.map(lambda part: (segment / part.name).read_bytes(), parts)
        for part, frames in zip(parts, found, strict=True):
            data += bytes(max(0, part.begin - len(data)))
            data += frames
    return bytes(data)


def seal(segment: ObjectPath, timeout_s: float) -> None:
    """Return once nothing can be added to a segment any more.

    Raises:
        FileNotFoundError: As ``list_parts``.
        RunLockedError: If a living writer was quicker each time; engines pause for far longer than this takes.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        parts = list_parts(segment)
        if not parts[-1].size:
            return
        try:
            (segment / Part(end_of(parts), 0).name).create(b"")
            return
        except FileExistsError:  # its writer wrote another part meanwhile
            if time.monotonic() >= deadline:
                raise RunLockedError(
                    f"{segment}: an engine of an earlier start of this run still writes to it after {timeout_s:g} s; "
                    "end that process, then run the same command again"
                ) from None


def delete_segment(segment: ObjectPath) -> None:
    """Delete a segment."""
    (segment / FIRST).unlink()
    segment.delete_all(list(segment.sizes()))


def delete_remains(journal: ObjectPath) -> None:
    """Delete what is left of segments whose deletion was not finished."""
    names = list(journal.sizes())
    whole = {name.partition("/")[0] for name in names if name.endswith(f"/{FIRST}")}
    for segment in {name.partition("/")[0] for name in names} - whole:
        if not (journal / segment / FIRST).exists():  # else an engine began it while the listing went on
            journal.delete_all([name for name in names if name.startswith(f"{segment}/")])


_known: dict[ObjectPath, list[Part]] = {}  # parts never change; those of a segment only become more


def read_part(segment: ObjectPath, offset: int) -> tuple[int, bytes]:
    """Return where the part begins that holds a byte of a segment, and all of that part.

    Raises:
        FileNotFoundError: As ``list_parts``.
    """
    parts = _known.get(segment)
    if parts is None or offset >= end_of(parts):
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        parts = _known[segment] = list_parts(segment)
    part = max(part for part in parts if part.begin <= offset)
    return part.begin, _bytes_of(segment / part.name)


@lru_cache(maxsize=8)  # a part is a second of an engine, longer after an outage
def _bytes_of(part: ObjectPath) -> bytes:
    return part.read_bytes()
