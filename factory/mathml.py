r"""Mathematics in a text, rendered offline: LaTeX in its delimiters becomes MathML, all else stays escaped text.

What a model writes is hostile: formulas are bounded in length, depth and number before the library sees them, and hold
only commands of a list: none that defines another (expansion is exponential), doubles what it is given, hides it, or
draws at a size of its own choice. Of what the library makes only known elements without attributes that act pass,
written anew with everything escaped. A formula that cannot be rendered is shown as its source.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from latex2mathml import commands, exceptions
from latex2mathml.converter import convert_to_element
from latex2mathml.symbols_parser import convert_symbol

from factory.visible import visible

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_FORMULA: Final = 800  # characters
MAX_DEPTH: Final = 24  # of braces
MAX_FORMULAS: Final = 120  # of one text
MAX_MATHML: Final = 40_000  # characters of one text's formulas

# The library tells bad LaTeX by many errors, and by whatever its code stumbles over.
_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
)
# fmt: off
_ELEMENTS: Final = frozenset((
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msup", "msub", "msubsup", "mover", "munder", "munderover",
    "mfrac", "msqrt", "mroot", "mtable", "mtr", "mtd", "menclose", "mpadded", "mphantom", "mstyle", "mmultiscripts",
    "mprescripts", "none",
))
_ATTRIBUTES: Final = frozenset((
    "display", "stretchy", "fence", "form", "largeop", "movablelimits", "accent", "linethickness", "notation",
    "mathvariant", "displaystyle", "columnalign", "rowspacing", "columnspacing", "width", "minsize", "maxsize",
    "separator", "lspace", "rspace",
))
# fmt: on
_VALUE: Final = re.compile(r"[A-Za-z0-9.%+\- ]{0,64}")
# Commands that take or change something, and are known to keep what they are given. Plain symbols come on top.
# fmt: off
_COMMANDS: Final = frozenset((
    "frac", "dfrac", "tfrac", "cfrac", "binom", "dbinom", "tbinom", "choose", "over", "sqrt", "boxed", "fbox",
    "begin", "end", "left", "right", "middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl",
    "biggr", "Biggl", "Biggr", "text", "textbf", "textit", "textrm", "textnormal", "texttt", "textsf", "emph", "mbox",
    "mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathbb", "mathcal", "mathscr", "mathfrak", "boldsymbol", "bold",
    "bm", "rm", "bf", "operatorname", "arg", "gcd", "det", "Pr", "argmax", "argmin", "lim", "liminf", "limsup", "max",
    "min", "sup", "inf", "sum", "prod", "int", "prime", "overline", "underline", "hat", "bar", "vec", "dot", "ddot",
    "tilde", "widehat", "widetilde", "overrightarrow", "overleftarrow", "overbrace", "underbrace", "xrightarrow",
    "xleftarrow", "stackrel", "overset", "underset", "limits", "nolimits", "pmod", "bmod", "mod", "not", "quad",
    "qquad", "enspace", "displaystyle", "textstyle", "scriptstyle", "hline", "nonumber", "notag",
))
# Environments, and what the library knows them as.
_ENVIRONMENTS: Final = {
    **{name: name for name in ("array", "cases", "align", "align*", "split", "smallmatrix")},
    **{f"{kind}matrix": f"{kind}matrix" for kind in ("p", "b", "B", "v", "V")},
    **dict.fromkeys(("aligned", "eqnarray", "eqnarray*"), "align*"),
    **dict.fromkeys(("gather", "gather*", "gathered", "equation", "equation*"), "matrix"),
}
# fmt: on
_SIGNS: Final = frozenset(",;:!{}|%$&#_\\ ()[]\n")  # that may follow a backslash
_LIBRARYS_OWN: Final = frozenset(
    word
    for value in vars(commands).values()
    for word in ([value] if isinstance(value, str) else value if isinstance(value, tuple | list | dict) else ())
)
_WORD: Final = re.compile(r"\\(begin|end)\{([^{}]*)\}|\\([A-Za-z]+|.)", re.DOTALL)
_SILENT: Final = re.compile(r"\\begin\{array\}(?:\{[^{}]*\})?|\\(?:begin|end)\{[^{}]*\}|\\[A-Za-z]+")
_COMMENT: Final = re.compile(r"(?<!\\)((?:\\\\)*)%")  # to TeX; to whoever wrote it a percent sign
# Where a formula may begin; what is found is looked at again by hand, so this needs no backtracking.
_OPEN: Final = re.compile(
    r"\\\(|\\\[|\$\$?|\\boxed\{|\\fbox\{"
    r"|\\begin\{(align\*?|aligned|equation\*?|gather\*?|eqnarray\*?|cases|array|[pbvBV]?matrix)\}"
)


def render(text: str) -> str:
    """Return a text as HTML with its formulas as MathML; linear in its length."""
    parts: list[str] = []
    room = MAX_MATHML
    is_after_display = False  # which makes lines of its own: those of the source would stand there as gaps
    for is_formula, piece, is_display in _pieces(text):
        mathml = _formula(piece, is_display=is_display) if is_formula and room > 0 else None
        if mathml is None or len(mathml) > room:
            parts.append(html.escape(piece.lstrip("\n") if is_after_display else piece))
            is_after_display = False
            continue
        room -= len(mathml)
        if is_display and parts:
            parts[-1] = parts[-1].rstrip("\n")
        parts.append(mathml)
        is_after_display = is_display
    return "".join(parts)


def _pieces(text: str) -> Iterator[tuple[bool, str, bool]]:
    """Yield what is a formula and what is not, in order: its source with delimiters, and whether it is displayed."""
    start = 0  # of what is not yielded yet
    position = count = 0
    while count < MAX_FORMULAS and (found := _OPEN.search(text, position)):
        end = _end(text, found)
        if end is None:
            position = found.end()
            continue
        if start < found.start():
            yield False, text[start : found.start()], False
        yield True, text[found.start() : end], found[0] in ("\\[", "$$") or found[0].startswith("\\begin")
        start = position = end
        count += 1
    yield False, text[start:], False


def _end(text: str, found: re.Match[str]) -> int | None:
    """Return where the formula that begins here ends, within reach; None if it does not."""
    opener, begin = found[0], found.end()
    reach = begin + MAX_FORMULA
    if opener in ("\\boxed{", "\\fbox{"):
        return _closing_brace(text, begin, reach)
    closer = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}.get(opener) or f"\\end{{{found[1]}}}"
    at = text.find(closer, begin, reach)
    if at <= begin:
        return None
    if (
        opener == "$"
    ):  # money is no formula: no space inside the signs, no digit after them (as pandoc reads it), one line
        after = text[at + 1 : at + 2]
        if text[begin].isspace() or text[at - 1].isspace() or after.isdigit() or "\n" in text[begin:at]:
            return None
    return at + len(closer)


def _closing_brace(text: str, begin: int, reach: int) -> int | None:
    depth = 1
    for at in range(begin, min(reach, len(text))):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    return None


def _formula(source: str, *, is_display: bool) -> str | None:
    """Return a formula with its delimiters as MathML; None if it is out of bounds, or the library cannot read it."""
    inner = source
    if source.startswith(("\\(", "\\[", "$$")):
        inner = source[2:-2]
    elif source.startswith("$"):
        inner = source[1:-1]
    if _depth(inner) > MAX_DEPTH or not all(map(_is_known, _WORD.finditer(inner))):
        return None
    try:
        made = convert_to_element(_WORD.sub(_translated, _COMMENT.sub(r"\1\\%", inner)))
        parts: list[str] = []
        _write(made, parts)
    except _ERRORS:
        return None
    if _letters(_SILENT.sub(" ", inner)) - _letters("".join(made.itertext())):
        return None  # something would be hidden
    body = "".join(parts)
    opened = '<math display="block">' if is_display else "<math>"
    return f"{opened}{body}</math>"


def _letters(text: str) -> Counter[str]:
    """Return what a reader would miss: letters and digits, in any font."""
    return Counter(char for char in unicodedata.normalize("NFKC", html.unescape(text)) if char.isalnum())


def _is_known(word: re.Match[str]) -> bool:
    if word[1]:
        return word[2] in _ENVIRONMENTS
    name = word[3]
    if not name.isascii() or not name.isalpha():
        return name in _SIGNS
    command = f"\\{name}"
    is_symbol = convert_symbol(command) is not None and command not in _LIBRARYS_OWN
    return name in _COMMANDS or command in commands.FUNCTIONS or is_symbol


def _translated(word: re.Match[str]) -> str:
    """Return a command under the name by which the library knows it."""
    if word[1]:
        return f"\\{word[1]}{{{_ENVIRONMENTS[word[2]]}}}"
    return {"dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac"}.get(word[3], word[0])


def _depth(source: str) -> int:
    depth = deepest = 0
    for char in source:
        depth += {"{": 1, "}": -1}.get(char, 0)
        deepest = max(deepest, depth)
    return max(deepest, source.count("\\left"), source.count("\\begin"))


def _write(element: Element, parts: list[str]) -> None:
    """Write the content of an element anew; of elements that are not known only what is in them."""
    parts.append(_text(element.text))
    for child in element:
        if child.tag in _ELEMENTS:
            kept = [(name, value) for name, value in child.items() if name in _ATTRIBUTES and _VALUE.fullmatch(value)]
            parts.append(" ".join([f"<{child.tag}", *(f'{name}="{value}"' for name, value in kept)]) + ">")
            _write(child, parts)
            parts.append(f"</{child.tag}>")
        else:
            _write(child, parts)
        parts.append(_text(child.tail))


def _text(text: str | None) -> str:
    return "" if text is None else html.escape(visible(html.unescape(text)))
