"""How long a proof took: each start and end of a part, kept in OUT/times.jsonl as it happens.

Read by the report. A start without an end was killed together with the command; what it took is not known, and said.
Folders of before have no such file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = "times.jsonl"
ALL: Final = "all"  # the command itself, but for the second look
EQUAL: Final = "equal tokens"  # the command's second look


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a part took, over all its starts."""

    seconds: float  # of the starts that ended, however they did
    num_starts: int
    num_lost: int  # of them, those whose end was never written


@contextmanager
def timed(out: Path, part: str) -> Iterator[None]:
    """Keep what the block takes as that of a part."""
    began = time.monotonic()
    note(out, part, None)
    try:
        yield
    finally:
        note(out, part, time.monotonic() - began)


def note(out: Path, part: str, seconds: float | None) -> None:
    """Keep that a part has started (None), or ended after so long."""
    with (out / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"part": part, "seconds": seconds}) + "\n")


def read_times(out: Path) -> Mapping[str, Spent]:
    """Return what each part took; nothing of a part whose starts were not kept."""
    path = out / FILE
    starts: dict[str, int] = {}
    ends: dict[str, list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            body = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if body["seconds"] is None:
            starts[body["part"]] = starts.get(body["part"], 0) + 1
        else:
            ends.setdefault(body["part"], []).append(body["seconds"])
    return {
        part: Spent(seconds=sum(ends.get(part, [])), num_starts=count, num_lost=count - len(ends.get(part, [])))
        for part, count in starts.items()
    }
