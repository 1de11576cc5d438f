"""`factory browse`: one sample at a time on a terminal, by outcome, reason, domain and source; plain text elsewhere.

A loop of draw, key, change. What is shown is text of a model and made visible first; nothing of it reaches the
terminal as it is. Reads only.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, Final

from rich.cells import cell_len, chop_cells

from factory.samples import FACETS, Asked, Samples, telling
from factory.visible import visible
from schemas.errors import ConfigError

KEYS: Final = {"o": "outcome", "r": "reason", "d": "domain", "s": "source"}  # each goes to the facet's next value
HELP: Final = "n next · p previous · space, b scroll · o r d s: next outcome, reason, domain, source · a all · q quit"
_ARROWS: Final = {
    "\x1b[C": "n",
    "\x1b[D": "p",
    "\x1b[B": "j",
    "\x1b[A": "k",
    "\x1b[6~": " ",
    "\x1b[5~": "b",
    "\x1b[H": "g",
    "\x1b[F": "G",
}
MAX_MARKS: Final = 8  # characters per cell
_ESCAPE_S: Final = 0.05  # within which the rest of an arrow key's sequence comes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the reader is: what was asked for, which of the samples found, which line is on top."""

    asked: Asked
    rows: list[int] = field(repr=False)
    number: int = 0
    top: int = 0


def lines_of(row: dict[str, Any], width: int) -> list[str]:
    """Return a sample as lines of at most ``width`` cells."""
    found = [_headline(row), _checks(row)]
    for turn in row["messages"]:
        found += ["", f"--- {turn['role']}", turn["content"]]
    found += ["", "--- completion", row["text"]]
    return [part for text in found for line in visible(text).expandtabs(4).split("\n") for part in _fold(line, width)]


def _headline(row: dict[str, Any]) -> str:
    said = row["outcome"] or "not judged"
    words = [
        f"{said} ({row['reason'] or 'passed'})" if row["outcome"] else said,
        f"{row['domain']}, {row['source']} row {row['source_row_id']}, attempt {row['sample_index']}",
        f"{row['num_completion_tokens']} tokens, ended by {row['finish_reason']}",
        "accepted" if row["is_accepted"] else f"rejected: {row['reject_reason']}" if row["reject_reason"] else "",
        f"problem solved {row['num_true']} of {row['num_judged']} times",
    ]
    return f"trace {row['trace_id']}\n{' · '.join(word for word in words if word)}"


def _checks(row: dict[str, Any]) -> str:
    found = [f"reference {row['reference']!r}"]
    for check in telling(row["checks"]):
        read = f", read {check['extracted']!r} by {check['rung']}" if check["rung"] else ""
        reason = f" ({check['reason']})" if check["reason"] else ""
        found.append(f"check {check['name']}@{check['version']}: {check['outcome']}{reason}{read}")
    return "\n".join(found)


def _fold(line: str, width: int) -> list[str]:
    """Return a line as lines that fit; one of marks without width is cut as well, by its characters."""
    pieces = [line[at : at + MAX_MARKS * width] for at in range(0, max(1, len(line)), MAX_MARKS * width)]
    return [part for piece in pieces for part in (chop_cells(piece, width) if cell_len(piece) > width else [piece])]


def start(samples: Samples, asked: Asked) -> Place:
    """Return the first place of what is asked for.

    Raises:
        ConfigError: If there is no such sample.
    """
    rows = samples.find(asked)
    if not len(samples):
        raise ConfigError("the run has no samples: nothing was generated, or nothing is committed yet")
    if not rows:
        wanted = ", ".join(f"{facet} {value}" for facet in FACETS if (value := getattr(asked, facet)) is not None)
        raise ConfigError(f"no sample has {wanted} at once; leave one of them out")
    return Place(asked=asked, rows=rows)


def move(samples: Samples, place: Place, key: str, num_lines: int, page: int) -> Place:
    """Return where a key leads: a pure step; a key without meaning leads nowhere."""
    last = max(0, num_lines - page)
    match key:
        case "n":
            return replace(place, number=min(place.number + 1, len(place.rows) - 1), top=0)
        case "p":
            return replace(place, number=max(place.number - 1, 0), top=0)
        case " ":
            return replace(place, top=min(place.top + page, last))
        case "b":
            return replace(place, top=max(place.top - page, 0))
        case "j" | "k":
            return replace(place, top=min(max(place.top + (1 if key == "j" else -1), 0), last))
        case "g" | "G":
            return replace(place, top=0 if key == "g" else last)
        case "a":
            return start(samples, Asked())
        case _ if key in KEYS:
            return _turn(samples, place, KEYS[key])
        case _:
            return place


def _turn(samples: Samples, place: Place, facet: str) -> Place:
    """Return the place with a facet's next value among the samples that the other facets leave; after the last, any."""
    open_rows = samples.find(replace(place.asked, **{facet: None}))
    values = list(samples.counts(facet, open_rows))
    now = getattr(place.asked, facet)
    following: list[str | None] = [*values, None]
    value = following[(following.index(now) + 1) % len(following)] if now in following else following[0]
    return start(samples, replace(place.asked, **{facet: value}))


def browse(samples: Samples, asked: Asked) -> None:
    """Page through samples on this terminal until the reader quits.

    Raises:
        ConfigError: If there is no such sample.
    """
    place = start(samples, asked)
    with _screen():
        while True:
            width, height = shutil.get_terminal_size()
            lines = lines_of(samples.row(place.rows[place.number]), max(20, width))
            page = max(1, height - 2)
            _draw(place, samples, lines, width, page)
            key = _key()
            if key in ("q", "\x03", "\x04", ""):
                return
            place = move(samples, place, key, len(lines), page)


def _draw(place: Place, samples: Samples, lines: list[str], width: int, page: int) -> None:
    chosen = " · ".join(f"{facet}: {visible(getattr(place.asked, facet) or 'any')}" for facet in FACETS)
    share = f"{min(place.top + page, len(lines))}/{len(lines)} lines"
    head = f"sample {place.number + 1:,} of {len(place.rows):,} (run: {len(samples):,}) · {chosen} · {share}"
    body = lines[place.top : place.top + page]
    body += [""] * (page - len(body))
    shown = [f"\x1b[7m{_fold(head, width)[0]}\x1b[0m", *body, f"\x1b[2m{_fold(HELP, width)[0]}\x1b[0m"]
    sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(shown) + "\x1b[K")
    sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    """Take the terminal's other screen, keys one by one and unechoed, and give all back whatever happens."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    handlers = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(handle)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _key() -> str:
    """Wait for a key and return it; empty when there will be no more."""
    handle = sys.stdin.fileno()
    pressed = os.read(handle, 1)
    if pressed == b"\x1b":
        while select.select([handle], [], [], _ESCAPE_S)[0] and len(pressed) < 8:
            pressed += os.read(handle, 1)
            if len(pressed) > 2 and (pressed[-1:].isalpha() or pressed[-1:] == b"~"):
                break
    text = pressed.decode("utf-8", errors="replace")
    return _ARROWS.get(text, text)
