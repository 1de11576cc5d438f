"""Text of a model, made safe to look at: whatever would act on a terminal or a page, or hide in it, is shown instead.

An escape sequence can clear a screen, set a title, or paint a wrong answer right; a direction mark can show text in
another order than it has. Pure functions; what is shown is never read back.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_PICTURES: Final = 0x2400  # Unicode's pictures of the C0 controls stand in their order
_KEPT: Final = "\n\t"


def visible(text: str) -> str:
    """Return a text with every control, format and unassigned character replaced by a sign of it; lines stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else _sign(char) for char in text)


def _sign(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(char) == "Zs":  # spaces of other widths
        return " "
    if char in "\u200c\u200d":  # join letters of Persian and Indic scripts, and emoji; harmless
        return char
    return f"\u27e8U+{code:04X}\u27e9"


def shorten(text: str, most: int) -> str:
    """Return a text of about ``most`` characters at most: the beginning and the end, and how much is left out."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail]}\n\n[... {len(text) - most:,} characters are not shown ...]\n\n{text[-tail:]}"
