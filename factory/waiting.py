"""Traces that wait for a verifier: first in, first out.

There may be millions, so none is an object: each is packed into some sixty bytes, a third of what a pair of named
tuples takes, and the garbage collector passes over it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from factory.journal import Position

ROW: Final = struct.Struct("<qiq")  # number of the attempt, place of the file's name, offset in the file


class Unjudged(NamedTuple):
    """An attempt whose trace waits for a verifier, and where it lies."""

    number: int
    position: Position


class Waiting:
    """A queue of unjudged traces."""

    def __init__(self) -> None:
        self._rows: deque[bytes] = deque()
        self._files: list[str] = []
        self._places: dict[str, int] = {}  # of the names in that list

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def first(self) -> Unjudged:
        """The one whose turn is next.

        Raises:
            IndexError: If none waits.
        """
        return self._unpacked(self._rows[0])

    def append(self, item: Unjudged) -> None:
        """Queue one behind the others."""
        self._rows.append(self._packed(item))

    def extend(self, items: Iterable[Unjudged]) -> None:
        """Queue some behind the others, in their order."""
        self._rows.extend(map(self._packed, items))

    def pop(self) -> Unjudged:
        """Take the one whose turn it is.

        Raises:
            IndexError: If none waits.
        """
        return self._unpacked(self._rows.popleft())

    def _packed(self, item: Unjudged) -> bytes:
        name = item.position.file
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(self._files)
            self._files.append(name)
        return ROW.pack(item.number, place, item.position.offset)

    def _unpacked(self, row: bytes) -> Unjudged:
        number, place, offset = ROW.unpack(row)
        return Unjudged(number, Position(self._files[place], offset))
