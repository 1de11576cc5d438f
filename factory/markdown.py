"""Markdown around text that nobody vouches for: names of sources, licences and models, prompts, and words of models.

For the dataset's card. Invariant: what a run holds never becomes structure; whatever it is made of, it stays one cell,
one paragraph or one block, is shown as it is, and is neither a link, nor HTML, nor mathematics. Blocks are joined by
empty lines; a paragraph begins with a word of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from factory.visible import visible

MAX_CELL: Final = 200  # characters of a name in a table; longer ones are cut
# Punctuation that no Markdown in use gives a meaning inside a line; all other ASCII punctuation is written as a number.
_HARMLESS: Final = frozenset(" .,;%/'?()=")
# The same of punctuation that means something elsewhere: inside a word, of a time of day, after a word.
_IN_WORDS: Final = re.compile(r"(?<=[A-Za-z0-9])[-_](?=[A-Za-z0-9])|:(?= )|(?<=[0-9]):(?=[0-9])")
_FENCE: Final = re.compile(r"`{3,}")
_LINE_ENDS: Final = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINKS: Final = re.compile(r"(?i)\b(?:https?|ftp|mailto|xmpp)(?=:)|\bwww(?=\.)")
_WORD_JOINER: Final = "&#8288;"  # has no width, and makes of an address a text that is none


def plain(value: Any, most: int = MAX_CELL) -> str:
    """Return a value as one piece of text within a line; empty text gives a word for it, since it would show nothing.

    Characters that act or hide are replaced by signs of them (`visible`), line ends and rows of spaces by one space.
    """
    text = " ".join(_encodable(visible(str(value))).split())
    if len(text) > most:
        text = text[:most] + "..."
    text = _LINKS.sub(lambda found: f"{found[0]}\0", text)
    kept = {found.start() for found in _IN_WORDS.finditer(text)}
    return "".join(char if place in kept else _safe(char) for place, char in enumerate(text)) or "(empty)"


def _safe(char: str) -> str:
    if char == "\0":  # none is left in a visible text
        return _WORD_JOINER
    return char if char.isalnum() or char in _HARMLESS or ord(char) > 0x7F else f"&#{ord(char)};"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def fenced(text: str, language: str = "text") -> str:
    """Return a block that shows the text as it is, between fences longer than any in it."""
    text = _encodable(visible(_LINE_ENDS.sub("\n", text)))
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; numbers stand right, and whole ones in groups of three digits.

    A cell is a number, a text that ``plain`` makes safe, or ``Safe`` where that was done; None is an empty cell.
    """
    cells = [list(row) for row in rows]
    right = [
        all(isinstance(row[place], int | float) or row[place] is None for row in cells) for place in range(len(head))
    ]
    marks = ["---:" if is_right and cells else "---" for is_right in right]
    return "\n".join([_row(list(map(plain, head))), _row(marks), *(_row(list(map(_cell, row))) for row in cells)])


class Safe(str):
    """Markdown that this package wrote itself, or has made safe."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Safe):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    return f"{value:,}" if isinstance(value, int) else figure(value)


def figure(value: float) -> str:
    """Return a measured number with as many digits as are of use."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
