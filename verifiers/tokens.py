"""An answer's text as tokens: one reading for LaTeX, plain notation and Unicode signs.

First half of reading a formula, before ``parser``. Spacing, delimiters and size commands are gone, synonyms have one
name (``notation``), numbers are whole with their grouping marks. Linear in the text, which the caller has bounded.
Builds no trees.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal, NamedTuple

from verifiers.limits import MAX_TOKENS
from verifiers.notation import (
    ACCENTS,
    BLACKBOARD,
    CHARACTERS,
    CONSTANT_NAMES,
    DOTS,
    DROPPED_WITH_ARGUMENT,
    FUNCTION_NAMES,
    GREEK,
    GREEK_SYNONYMS,
    OPERATORS,
    RELATIONS,
    SIGN_NAMES,
    TEXT_COMMANDS,
)

Kind = Literal[
    "number",  # text: its digits without grouping marks, perhaps with an exponent; or with (repeating) digits
    "word",  # letters of plain text or LaTeX, not split yet
    "symbol",  # a named variable: \\alpha, \\hbar, ...
    "constant",
    "function",
    "text",  # words of \\text{...}
    "separator",  # and, or
    "relation",
    "setop",
    "sign",  # one character, or a name such as "pm", "frac", "sqrt"
    "accent",
    "operator",  # integrals, sums, limits: compared, never worked out
    "end",
]


class Token(NamedTuple):
    """What stands there, and whether space stood before it."""

    kind: Kind
    text: str
    is_spaced: bool = False


class TooManyTokensError(ValueError):
    """The text has more tokens than ``MAX_TOKENS``."""


SUPERSCRIPTS: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
RAISED: Final = re.compile(f"[{SUPERSCRIPTS}]+")
RAISED_TO_PLAIN: Final = str.maketrans(SUPERSCRIPTS, "0123456789+-")
ROOT_SIGN: Final = re.compile(r"√\s?(\d+)")  # the sign takes the whole number: √12
LOWERED: Final = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
LOWERED_TO_PLAIN: Final = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_SPACE: Final = (
    r"(?:\s|~|\$|\\(?:left|right)\s?\.|\\[,;:!>( )\[\]]|\\(?:q?quad|left|right|[bB]igg?[lrm]?|limits|nolimits|"
    r"displaystyle|textstyle|scriptstyle|boxed|fbox|mathstrut|strut|hline|hfill|newline|noindent|cr|medspace|thinspace|thickspace|enspace|"
    r"nobreak|allowbreak|mathop|mathrel|mathbin|mathord|unicode)(?![A-Za-z]))+"
)
_MARK: Final = r"(?:\{,\}|,\\!\s?|\\!,|\\,|\\!|\\ |\{\\,\}|~|[ \u2009\u202f])"
_REAL: Final = r"(?:\.\d+)?(?:[eE][+-]?\d{1,9}(?![\d.A-Za-z]))?"


def _lexer(marks: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<space>{_SPACE})"
        r"|(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s?(?:\{\d{1,40}\}|\d))"
        r"|(?P<going>\d*\.\d{0,20}?(?P<digit>\d)(?P=digit){2,40}\s?(?:\.\.\.|\\[lc]?dots(?![a-z])))"
        rf"|(?P<number>[1-9]\d{{0,2}}(?:{marks}\d{{3}})+(?!\d){_REAL}|\d+{_REAL}|\.\d+(?:[eE][+-]?\d{{1,9}}(?![\d.A-Za-z]))?)"
        r"|(?P<command>\\operatorname\*|\\[A-Za-z]+)"
        r"|(?P<escaped>\\.)"
        r"|(?P<word>[A-Za-z]+)"
        r"|(?P<sign>\*\*|<=|>=|!=|==|\.\.\.|<-?>|.)",
        re.DOTALL | re.ASCII,
    )


PLAIN_LEXER: Final = _lexer(_MARK)
COMMA_LEXER: Final = _lexer(rf"(?:{_MARK}|,)")
GROUP_MARKS: Final = re.compile(r"(?<=\d)[^\d.eE+-]+(?=\d)")
LIST_COMMA: Final = re.compile(
    r"(?<!\\),(?:\s|~|\\ |\\;|\\:|\\q?quad|\$|\\text|\\\))|(?<![\d\\]),(?!\\!)|(?<!\\),(?!\\!)(?!\d{3}(?!\d))"
)
SPACED_COMMA: Final = re.compile(r",(?:\s|~|\\ |\\;|\\:|\\q?quad)")
DIGIT_COMMA: Final = re.compile(r"\d,\d{3}(?!\d)")

ARGUMENT: Final = re.compile(r"\s*\{([^{}]*)\}")
NESTED_ARGUMENT: Final = re.compile(r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
BARE_ARGUMENT: Final = re.compile(r"\s*(\\[A-Za-z]+|[A-Za-z0-9])")
JOINED_TEXT: Final = re.compile(r"\s*,?\s+(and|or)\b\s*")  # "apples and": two things, one after the other
FORMULA_MARK: Final = re.compile(r"\\(?:[dt]?frac|sqrt|pi|cdot|times|left|infty)(?![a-z])|\$")
ROW_SKIP: Final = re.compile(r"\s?\[-?\d{0,3}\.?\d{1,3}\s?(?:pt|em|ex|mm|cm|in|px)\]")  # \\[4pt] between rows
IN_BRACKETS: Final = re.compile(
    r"(?:[(\[]|\\\{|(?<![A-Za-z}\]_^\\])\{)[^()\[\]{}]{0,40}\d,\d{3}(?!\d)[^()\[\]{}+*/^-]{0,40}[)\]}]"
)
# 2e-1 with nothing behind and no point before is 2e - 1; 1e-7 and 3.2e5 are numbers, as programs print them.
EULER: Final = re.compile(r"(?<![\d.])([2-9])e([-+][1-9])(?![\d.])")
UNIT_TEXT: Final = re.compile(r"[mgsNJWKVALlh](?:/[mgsh])?")  # these letters of text, behind an amount, are units
NUMERIC: Final = frozenset("0123456789-+.,/%$ \\!")
SEPARATOR_TEXT: Final = re.compile(r"[,;.\s~]*(and|or|AND|OR|And|Or)[,;.\s~]*")
FORMULA_TEXT: Final = re.compile(r"[A-Za-z]?(?:\s*[-+=*/^(),]\s*(?:[A-Za-z]{1,2}|\d+)(?![A-Za-z]))+\s*\)?")


def tokenize(text: str, *, group_commas: bool) -> list[Token]:
    """Return the tokens of a text, the last of kind "end". ``group_commas``: whether 1,234 is one number.

    Raises:
        TooManyTokensError: If there are more than ``MAX_TOKENS``.
    """
    if not text.isascii():
        text = to_ascii(text)
    if "e" in text:
        text = EULER.sub(r"\1 e\2", text)
    tokens: list[Token] = []
    _scan(text, COMMA_LEXER if group_commas else PLAIN_LEXER, tokens)
    while tokens and tokens[-1].kind == "sign" and tokens[-1].text in ".,;!:?"[:3]:
        tokens.pop()
    tokens.append(Token("end", ""))
    return tokens


def to_ascii(text: str) -> str:
    """Return the text with Unicode signs as LaTeX commands, and compatibility forms (full-width digits) as plain."""
    text = ROOT_SIGN.sub(r"\\sqrt{\1}", text)
    text = RAISED.sub(lambda match: "^{" + match[0].translate(RAISED_TO_PLAIN) + "}", text)
    text = LOWERED.sub(lambda match: "_{" + match[0].translate(LOWERED_TO_PLAIN) + "}", text)
    return unicodedata.normalize("NFKC", text.translate(CHARACTERS)).translate(CHARACTERS)


def groups_commas(text: str) -> bool:
    """Return whether commas between digits of this text are thousands separators: never in what looks like a list."""
    if "," not in text or not DIGIT_COMMA.search(text):
        return False
    if IN_BRACKETS.search(text):
        return SPACED_COMMA.search(text) is not None
    return LIST_COMMA.search(text) is None or SPACED_COMMA.search(text) is not None


def _scan(text: str, lexer: re.Pattern[str], tokens: list[Token]) -> None:
    position, end, is_spaced = 0, len(text), False
    while position < end:
        match = lexer.match(text, position)
        assert match is not None, "the last alternative takes any character"
        kind, found = match.lastgroup, match[0]
        position = match.end()
        if kind == "space":
            is_spaced = True
            continue
        if len(tokens) > MAX_TOKENS:
            raise TooManyTokensError(f"more than {MAX_TOKENS} tokens")
        if kind == "number" and " " in found and tokens and tokens[-1].text in ("^", "_"):
            found = found[: found.index(" ")]  # x^2 345 is no x to the 2345
            position = match.start() + len(found)
        if kind == "number":
            digits = found if found.isdecimal() else GROUP_MARKS.sub("", found)
            tokens.append(Token("number", digits, is_spaced))
        elif kind == "word":
            lowered = found.lower()
            if lowered in ("and", "or"):
                tokens.append(Token("separator", lowered, is_spaced))
            else:
                tokens.append(Token("word", found, is_spaced))
        elif kind == "sign":
            _add_sign(found, is_spaced, tokens)
        elif kind == "command":
            position = _add_command(text, found[1:], position, is_spaced, lexer, tokens)
        elif kind in ("going", "digit"):  # 0.333...
            digits = found.rstrip(" .\\lcdots").rstrip(match["digit"])
            tokens.append(Token("number", f"{digits}({match['digit']})", is_spaced))
        elif kind == "repeating":
            point, _, block = found.partition("\\")
            tokens.append(Token("number", f"{point or '0'}({''.join(filter(str.isdigit, block))})", is_spaced))
        else:
            _add_escaped(found[1], is_spaced, tokens)
            if found == "\\\\" and (skip := ROW_SKIP.match(text, position)):
                position = skip.end()
        is_spaced = False


def _add_sign(found: str, is_spaced: bool, tokens: list[Token]) -> None:
    if found in RELATIONS:
        tokens.append(Token("relation", RELATIONS[found], is_spaced))
    elif found == "...":
        tokens.append(Token("symbol", "...", is_spaced))
    elif found in ("**",):
        tokens.append(Token("sign", "^", is_spaced))
    elif found not in '"`':
        tokens.append(Token("sign", found, is_spaced))


def _add_escaped(character: str, is_spaced: bool, tokens: list[Token]) -> None:
    if character == "\\":
        tokens.append(Token("sign", "newline", is_spaced))
    elif character in "{}":
        tokens.append(Token("sign", "\\" + character, is_spaced))
    elif character == "$":
        tokens.append(Token("sign", "usd", is_spaced))
    elif character in "%|&#":
        tokens.append(Token("sign", character, is_spaced))
    elif character == "-":
        tokens.append(Token("sign", "-", is_spaced))
    elif character not in "\n\t/":
        tokens.append(Token("sign", "\\" + character, is_spaced))


def _add_command(
    text: str, name: str, position: int, is_spaced: bool, lexer: re.Pattern[str], tokens: list[Token]
) -> int:
    """Add what a command stands for and return where to go on."""
    if name in TEXT_COMMANDS:
        return _add_text(text, name, position, is_spaced, lexer, tokens)
    if name in DROPPED_WITH_ARGUMENT:
        argument = ARGUMENT.match(text, position)
        return argument.end() if argument else position
    if name in ("mathbb", "Bbb"):
        argument = ARGUMENT.match(text, position) or BARE_ARGUMENT.match(text, position)
        if argument is None:
            return position
        letter = argument[1].strip()
        kind: Kind = "constant" if letter in BLACKBOARD else "symbol"
        tokens.append(Token(kind, BLACKBOARD.get(letter, f"mathbb {letter}"), is_spaced))
        return argument.end()
    if name == "not":
        following = lexer.match(text, position)
        for spelling, sign in (("=", "!="), ("\\in", "notin"), ("\\equiv", "notequiv"), ("<", ">="), (">", "<=")):
            if following is not None and following[0] == spelling:
                tokens.append(Token("relation", sign, is_spaced))
                return following.end()
        tokens.append(Token("sign", "\\not", is_spaced))
        return position
    if name in ("begin", "end"):
        argument = ARGUMENT.match(text, position)
        tokens.append(Token("sign", name, is_spaced))
        tokens.append(Token("text", argument[1].strip("*") if argument else "", False))
        return argument.end() if argument else position
    tokens.append(_named(name, is_spaced))
    return position


def _named(name: str, is_spaced: bool) -> Token:
    if name in SIGN_NAMES:
        return Token("sign", SIGN_NAMES[name], is_spaced)
    if name in CONSTANT_NAMES:
        return Token("constant", CONSTANT_NAMES[name], is_spaced)
    if name in FUNCTION_NAMES:
        return Token("function", FUNCTION_NAMES[name], is_spaced)
    if name in RELATIONS:
        return Token("relation", RELATIONS[name], is_spaced)
    if name in ("cup", "cap", "setminus", "backslash", "union"):
        return Token("setop", {"union": "cup", "backslash": "setminus"}.get(name, name), is_spaced)
    if name in DOTS:
        return Token("symbol", "...", is_spaced)
    if name in ACCENTS:
        return Token("accent", name, is_spaced)
    if name in OPERATORS:
        return Token("operator", name, is_spaced)
    return Token("symbol", GREEK_SYNONYMS.get(name, name if name in GREEK else f"\\{name}"), is_spaced)


def _is_numeric(text: str) -> bool:
    return set(text) <= NUMERIC and any(character.isdigit() for character in text)


def _add_text(text: str, name: str, position: int, is_spaced: bool, lexer: re.Pattern[str], tokens: list[Token]) -> int:
    argument = NESTED_ARGUMENT.match(text, position)
    if argument is None and name not in ("rm", "bf", "it"):
        argument = BARE_ARGUMENT.match(text, position)
    if argument is None:
        return position  # deeper braces: only a font
    content = " ".join(argument[1].replace("\\ ", " ").replace("~", " ").split())
    if not content or content in ".,":
        if content == ",":
            tokens.append(Token("sign", ",", is_spaced))
        return argument.end()
    if content.startswith("\\") and content[1:].isalpha():  # \mathbf\alpha
        tokens.append(_named(content[1:], is_spaced))
    elif "\\" in content and FORMULA_MARK.search(content):  # \mathbf{\frac{9}{16}}
        _scan(content, lexer, tokens)
    elif separator := SEPARATOR_TEXT.fullmatch(content):
        tokens.append(Token("separator", separator[1].lower(), True))
    elif UNIT_TEXT.fullmatch(content) and tokens and (tokens[-1].kind == "number" or argument[1][:1] in " ~\\"):
        tokens.append(Token("text", content, is_spaced))  # 144 \mbox{ m}^3
    elif len(content) == 1 and content.isalpha():
        tokens.append(Token("word", content, is_spaced))
    elif content in ("min", "sec") and not name.startswith("operatorname"):
        tokens.append(Token("text", content, is_spaced))
    elif content in FUNCTION_NAMES:
        tokens.append(Token("function", FUNCTION_NAMES[content], is_spaced))
    elif _is_numeric(content) or FORMULA_TEXT.fullmatch(content):
        _scan(content, lexer, tokens)
    elif content == "$" or content == "\\$":
        tokens.append(Token("sign", "usd", is_spaced))
    elif content in ("\\%", "%"):
        tokens.append(Token("sign", "%", is_spaced))
    else:
        for place, part in enumerate(JOINED_TEXT.split(content)):
            if place % 2:
                tokens.append(Token("separator", part.lower(), True))
            elif part:
                tokens.append(Token("text", part, is_spaced))
    return argument.end()
