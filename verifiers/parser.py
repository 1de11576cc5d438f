"""Tokens into a term: a recursive-descent parser for answers in LaTeX, plain notation, or both mixed.

Second half of reading a formula. Never evaluates, never recurses beyond ``MAX_DEPTH``, and takes time linear in the
tokens but for the search of a unit behind a number. Precedence, loosest first: list, relation, set operation, sum,
product (implicit ones too, left to right with division), sign, power, factorial and percent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from verifiers.limits import MAX_DEPTH, MAX_LITERAL_DIGITS, MAX_NUMBER_EXPONENT, MAX_TERM_DEPTH
from verifiers.terms import Based, Decimal, Term, depth_of, negated, number, text_of
from verifiers.tokens import (
    CONSTANT_NAMES,
    FUNCTION_NAMES,
    GREEK,
    GREEK_SYNONYMS,
    Token,
    TooManyTokensError,
    groups_commas,
    tokenize,
)
from verifiers.units import LETTER_UNITS, SCALES, TEMPERATURES, read_unit
from verifiers.words import HALF_DAY, as_words, is_product


class NotParsedError(ValueError):
    """The text is no formula that we read; ``is_for_sympy`` where a computer algebra system may know it."""

    def __init__(self, message: str, *, is_for_sympy: bool = False) -> None:
        super().__init__(message)
        self.is_for_sympy = is_for_sympy


class TooDeepError(ValueError):
    """Brackets, fractions or powers are nested beyond ``MAX_DEPTH``."""


class TooBigError(ValueError):
    """A number is too long to compute with."""


CLOSING: Final = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "langle": "rangle", "lfloor": "rfloor", "lceil": "rceil"}
FACTOR_SIGNS: Final = frozenset(
    {"(", "[", "{", "\\{", "frac", "binom", "sqrt", "lfloor", "lceil", "langle", "begin", "angle"}
)
# Letters that before "(" are functions, not factors; all but f only before a single number or letter: g(x), g(2).
APPLIED: Final = frozenset({"f", "g", "F", "G", "phi", "psi"})
BASE_WORDS: Final = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
BASE_WORDS_MORE: Final = {"ten": 10, "eleven": 11, "twelve": 12, "sixteen": 16}
MATRICES: Final = frozenset(
    ["matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "psmallmatrix"]
)
ENVIRONMENTS: Final = frozenset(["aligned", "align", "equation", "gathered", "split", "gather", "cases"])
UNIT_ENDS: Final = frozenset({",", ";", ")", "]", "}", "\\}", "newline", "&", "pm", "+", ":", "|"})
PERCENT_WORDS: Final = frozenset({"percent", "percentage", "pct"})
DOUBLED: Final = re.compile(r"\\\\(?=[a-z]{2})")
BASED: Final = re.compile(
    r"[\s$]*\(?([0-9A-Za-z]{1,200})\)?_\{?\s?(?:\\(?:text|mathrm)\{)?\(?(\d{1,2}|[a-z]{3,8})\)?\s?\}{0,2}[\s$.]*",
    re.ASCII,
)
IN_BASE: Final = re.compile(  # 52\text{ in base }8, 52 (base 8)
    r"([0-9A-Za-z.]{1,200})\s?(?:\\(?:text|mathrm|mbox)\s?\{)?\s{0,3}\(?(?:in )?base[ }]{1,3}"
    r"(\d{1,2}|[a-z]{3,8})\s?\)?\}?"
)
OLD_FONT: Final = re.compile(r"\{\s?\\(?:rm|bf|it)(?![A-Za-z])\s?([^{}]{0,80})\}")
CHOSEN: Final = re.compile(r"(?:\{\s?\})?[_^]\{?\s?(\w{1,9})\s?\}?\s?C_\{?\s?(\w{1,9})\s?\}?")  # {}_{10}C_3
CHANGES: Final = frozenset({"Delta", "\\partial", "\\nabla"})
DIGITS: Final = frozenset("0123456789abcdefghijklmnopqrstuvwxyz.")
CASE_WORDS: Final = frozenset({"if", "for", "when", "where", "and"})
END: Final = Token("end", "")


def parse(text: str, *, group_commas: bool | None = None) -> Term:
    """Return the term of an answer. ``group_commas`` None lets the look of its commas decide about 1,234.

    Raises:
        NotParsedError: If the text is no formula.
        TooDeepError, TooBigError, TooManyTokensError: If it breaks a limit.
    """
    if "\\\\" in text and "\\begin" not in text:  # escaped once too often: \\\\frac
        text = DOUBLED.sub(r"\\", text)
    if "\\rm" in text or "\\bf" in text or "\\it" in text:
        text = OLD_FONT.sub(r"\\text{\1}", text)
    if "C_" in text:
        text = CHOSEN.sub(r"\\binom{\1}{\2}", text)
    if ".m" in text:
        text = HALF_DAY.sub(r" \1m ", text)
    if "base" in text:
        text = IN_BASE.sub(r"\1_{\2}", text)
    if "_" in text and (based := BASED.fullmatch(text)) is not None:
        base = _base(based[2])
        if base is not None and all(digit.isalnum() and int(digit, 36) < base for digit in based[1]):
            return _based(based[1], base)
    tokens = tokenize(text, group_commas=groups_commas(text) if group_commas is None else group_commas)
    parser = _Parser(tokens)
    term = parser.answer()
    if parser.peek().kind != "end":
        raise NotParsedError(f"cannot go on at {parser.peek().text!r}")
    if depth_of(term) > MAX_TERM_DEPTH:  # 1/1/1/..., 5!!!!: deep trees without a bracket
        raise TooDeepError(f"more than {MAX_TERM_DEPTH} levels")
    return term


class _Parser:
    """Reads one text; ``position`` is the next token's."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.num_bars = 0  # open absolute values: there a bar closes, and never opens
        self.num_braces = 0
        self.is_in_set = 0  # there "|" and ":" stand before the condition

    # --- tokens -------------------------------------------------------------------------------------------------
    def peek(self, ahead: int = 0) -> Token:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else END

    def next(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def is_sign(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind == "sign" and token.text in texts

    def take_sign(self, *texts: str) -> bool:
        if self.is_sign(*texts):
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take_sign(text):
            raise NotParsedError(f"expected {text!r}, found {self.peek().text!r}")

    def nested(self, read: Callable[[], Term]) -> Term:
        """Return what ``read`` reads one level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeepError(f"more than {MAX_DEPTH} levels")
        term = read()
        self.depth -= 1
        return term

    # --- lists, relations, sets ---------------------------------------------------------------------------------
    def answer(self) -> Term:
        while self.take_sign("newline", "&", ":", ",") or (
            self.peek().kind == "relation" and self.peek().text in ("=", "~")
        ):
            self.position += self.peek().kind == "relation"
        if self.peek().kind == "end":
            raise NotParsedError("nothing is there")
        term = self.listed()
        if self.take_sign("over"):  # TeX's fraction without its braces
            return Term("div", (term, self.listed()))
        return term

    def listed(self) -> Term:
        """Items separated by commas, semicolons, "and", "or" or line ends; one item is itself.

        Where semicolons separate what commas separate too, they do so first: p=5, q=2; p=7, q=2.
        """
        outer: list[Term] = []
        items, is_or, has_comma = [self.item()], False, False
        while True:
            separators = []
            while self.is_sign(",", ";", "newline", "&") or self.peek().kind == "separator":
                separators.append(self.next().text)
            if not separators:
                break
            if self.peek().kind == "end" or self.is_sign(")", "]", "\\}", "}", "rangle", "."):
                break
            is_or |= "or" in separators
            if ";" in separators:
                outer.append(_listed(items, is_or=False))
                items = []
            has_comma |= "," in separators
            items.append(self.item())
        if not outer:
            return _listed(items, is_or=is_or)
        outer.append(_listed(items, is_or=False))
        if has_comma and len({len(part.args) for part in outer}) == 1:
            return _listed(outer, is_or=is_or)
        flat = [item for part in outer for item in (part.args if part.op == "items" else (part,))]
        return _listed(flat, is_or=is_or)

    def item(self) -> Term:
        if self.peek().kind == "text":
            return self.worded()
        return self.relation()

    def worded(self) -> Term:
        """Text up to the next separator; a formula after the text of a label ("so", "the point") is no answer."""
        words = []
        while self.peek().kind in ("text", "word"):
            words.append(self.next().text)
        last = words[-1].split()[-1].lower().strip(":") if words[-1].split() else ""
        if self.peek().kind == "relation" and self.peek().text == "=":  # \text{Area} = 5
            self.position += 1
            return Term("relation", (Term("symbol", (), as_words(" ".join(words))), self.relation()), ("=",))
        if last in ("is", "are", "equals") and self.peek().kind != "end":  # \text{The answer is } 5
            return self.relation()
        if self.peek().kind != "end" and self.peek().kind != "separator" and not self.is_sign(",", ";", ")", "\\}"):
            raise NotParsedError(f"a formula follows the words {words}")
        return Term("text", (), as_words(" ".join(words)))

    def relation(self) -> Term:
        sides, signs = [self.operand()], []
        while self.peek().kind == "relation":
            if self.peek().text == "|":
                if self.is_in_set or self.num_bars:
                    break
                raise NotParsedError("a bar without its pair")
            signs.append(self.next().text)
            sides.append(self.operand())
        if not signs:
            return sides[0]
        if "lor" in signs or "land" in signs:
            return _joined(sides, signs)
        if "in" in signs and len(signs) > 1 and signs[-1] == "in" and set(signs[:-1]) != {"in"}:
            raise NotParsedError("a chain with a membership")
        if signs == ["in"]:
            return Term("member", (sides[0], sides[1]))
        if signs == ["notin"]:
            whole = Term("constant", (), "reals")
            return Term("member", (sides[0], Term("difference", (whole, sides[1]))))
        return Term("relation", tuple(sides), tuple(signs))

    def operand(self) -> Term:
        """A set operation or a sum, perhaps a ratio, with the unit behind it."""
        term = self.sets()
        if self.is_ratio():
            parts, is_time = [term], self.is_time_of_day()
            while self.is_ratio():
                self.position += 1
                parts.append(self.sets())
            term = Term("ratio", tuple(parts), is_time)
        if self.is_sign("pmod"):
            self.position += 1
            return Term("apply", (term, self.sum()), "mod")
        if self.peek().kind in ("text", "word") or self.is_sign("€", "£", "¢", "usd"):
            return self.with_unit(term)
        return term

    def is_ratio(self) -> bool:
        """Return whether a colon, or the word "to" between numbers, goes on here."""
        if self.is_sign(":"):
            return not self.is_in_set
        return self.peek().text == "to" and self.peek().kind in ("text", "word") and self.peek(1).kind == "number"

    def is_time_of_day(self) -> bool:
        """Return whether 12:30 stands around here: then 4:10 is another time than 2:05."""
        hour, minute = self.tokens[self.position - 1], self.peek(1)
        if self.is_sign(":", ahead=2) and len(self.peek(3).text) != 2:
            return False
        return hour.kind == minute.kind == "number" and len(minute.text) == 2 and len(hour.text) <= 2

    def with_unit(self, term: Term) -> Term:
        stop = self.unit_stop()
        words = self.tokens[self.position : stop]
        if len(words) == 1 and words[0].text.lower() in PERCENT_WORDS:
            self.position = stop
            return Term("percent", (term,))
        if term.op == "degree" and len(words) == 1 and words[0].text in TEMPERATURES:
            self.position = stop
            return Term("quantity", term.args, TEMPERATURES[words[0].text])
        term, words = _scaled(term, words)
        if not words:
            self.position = stop
            return term
        unit = read_unit(words)
        if unit is None:
            raise NotParsedError(f"no unit: {' '.join(token.text for token in words)[:80]!r}")
        self.position = stop
        quantity = Term("quantity", (term,), unit)
        if self.peek().kind == "number" and self.tokens[stop - 1].kind in ("text", "word"):  # 2 hours 30 minutes
            more = self.operand()
            return Term("items", (quantity, *(more.args if more.op == "items" else (more,))), False)
        return quantity

    def unit_stop(self) -> int:
        """Return the place behind what may be a unit: up to a separator, a relation or a bracket that closes."""
        stop, depth = self.position, 0
        while (token := self.tokens[stop]).kind not in ("end", "relation", "separator", "setop"):
            if token.kind == "number" and stop > self.position and self.tokens[stop - 1].kind in ("text", "word"):
                break
            if token.kind == "sign":
                if token.text in "({":
                    depth += 1
                elif token.text in ")}" and depth:
                    depth -= 1
                elif token.text in UNIT_ENDS:
                    break
            stop += 1
        return stop

    def sets(self) -> Term:
        term = self.sum()
        while True:
            token = self.peek()
            if token.kind == "setop":
                op = token.text
            elif (
                token.kind == "word"
                and token.text in ("U", "union", "u")
                and term.op in ("group", "set", "union")
                and self.is_bracket(self.peek(1))
            ):
                op = "cup"
            elif self.is_sign("\\", "-") and term.op in ("constant", "group", "union"):
                op = "setminus"
            else:
                return term
            self.position += 1
            other = self.sum()
            if op == "cup":
                parts = term.args if term.op == "union" else (term,)
                term = Term("union", (*parts, other))
            else:
                term = Term("intersection" if op == "cap" else "difference", (term, other))

    @staticmethod
    def is_bracket(token: Token) -> bool:
        return token.kind == "sign" and token.text in ("(", "[", "\\{", "{")

    # --- sums and products --------------------------------------------------------------------------------------
    def sum(self) -> Term:
        return self.nested(self._sum)

    def _sum(self) -> Term:
        terms = [self.product()]
        while self.peek().kind == "sign":
            sign = self.peek().text
            if sign == "+" and self.peek(1).kind == "sign" and self.peek(1).text == "-" and self.is_sign("-", ahead=2):
                raise NotParsedError("+--")
            if sign == "+":
                self.position += 1
                if self.take_sign("/"):  # +/- for plus or minus
                    self.expect("-")
                    terms = [Term("plus_minus", (_added(terms), self.product()), 1)]
                else:
                    terms.append(self.product())
            elif sign == "-" and terms[-1].op != "group" and not self.is_set_difference(terms):
                self.position += 1
                terms.append(negated(self.product()))
            elif sign in ("pm", "mp"):
                self.position += 1
                terms = [Term("plus_minus", (_added(terms), self.product()), 1 if sign == "pm" else -1)]
            else:
                break
        return _added(terms)

    def is_set_difference(self, terms: list[Term]) -> bool:
        return len(terms) == 1 and terms[0] == Term("constant", (), "reals")

    def product(self) -> Term:
        term = self.signed()
        while True:
            if self.take_sign("*"):
                term = _times(term, self.mixed(self.signed()))
            elif self.take_sign("/"):
                term = Term("div", (term, self.signed()))
            elif self.is_sign("bmod"):
                self.position += 1
                term = Term("call", (term, self.signed()), "mod")
            elif self.is_sign("choose") or (self.peek().kind == "word" and self.peek().text == "choose"):
                self.position += 1
                term = Term("call", (term, self.signed()), "binom")
            elif self.starts_factor(term):
                term = self.with_factor(term)
            else:
                return term

    def mixed(self, term: Term) -> Term:
        """Return 3 before a proper fraction as one number: in 2 \\times 3\\frac12 it is no factor."""
        if term.op != "number" or not self.tokens[self.position - 1].text.isdecimal() or not self.is_sign("frac"):
            return term
        return self.with_factor(term)

    def with_factor(self, term: Term) -> Term:
        """Return the term times the factor that follows; a whole number before a proper fraction is a mixed number."""
        is_whole = term.op == "number" and self.tokens[self.position - 1].text.isdecimal()
        if is_whole and self.is_sign("frac"):
            fraction = self.primary()
            if _is_proper(fraction):
                return self.raised(self.postfixed(_mixed(term, fraction)))
            return _times(term, self.raised(self.postfixed(fraction)))
        if is_whole and self.peek().kind == "number":
            top = self.next()
            if self.take_sign("/") and self.peek().kind == "number":
                fraction = Term("div", (_number(top.text), _number(self.next().text)))
                if _is_proper(fraction):
                    return self.postfixed(_mixed(term, fraction))
            raise NotParsedError("two numbers side by side")
        return _times(term, self.power())

    def starts_factor(self, term: Term) -> bool:
        token = self.peek()
        match token.kind:
            case "number":
                if term.op == "number":
                    return token.is_spaced and self.is_sign("/", ahead=1)
                if term.op == "factorial":
                    return True
                return token.is_spaced and (term.op == "pow" or (term.op == "mul" and term.args[-1].op == "pow"))
            case "word":
                if term.op == "degree" and token.text in TEMPERATURES:
                    return False
                return token.text != "choose" and not self.is_unit_word(term)
            case "symbol" | "constant" | "function" | "accent" | "operator":
                return True
            case "sign":
                if token.text == "[":  # [2, \\infty[ in French notation
                    return any(later.text == "]" for later in self.tokens[self.position :])
                return token.text in FACTOR_SIGNS or (token.text == "|" and not self.num_bars and not self.is_in_set)
            case _:
                return False

    def is_unit_word(self, term: Term) -> bool:
        """Return whether the word is a unit, not variables: 5 cm, 5 m, but 5m and 5xy."""
        token = self.peek()
        is_time = token.text in ("min", "sec") and not self.is_sign("(", ahead=1)
        if not is_time and (token.text in FUNCTION_NAMES or token.text in CONSTANT_NAMES or token.text in GREEK):
            return False
        if token.text in ("U", "union") and self.is_bracket(self.peek(1)) and term.op in ("group", "set"):
            return True
        if not _is_amount(term):
            return len(token.text) > 3 and _split(token.text) is None
        if len(token.text) == 1:
            # In braces, or behind a command, space says nothing: \\frac{x}{5\\pi g} holds no grams.
            is_apart = token.is_spaced and not self.num_braces and self.tokens[self.position - 1].kind != "constant"
            if not is_apart or token.text not in LETTER_UNITS:
                return False
        elif len(token.text) == 2 and token.text.lower() == token.text and token.text in ("xy", "ab", "pq", "mn"):
            return False
        words = self.tokens[self.position : min(self.unit_stop(), self.position + 12)]
        if token.text.lower() in SCALES or (len(words) == 1 and token.text.lower() in PERCENT_WORDS):
            return True
        unit = read_unit(words)
        is_label = unit is not None and (unit.label in ("am", "pm") or _split(token.text) is None)
        return unit is not None and (unit.label is None or is_label)

    # --- signs, powers, factors ---------------------------------------------------------------------------------
    def signed(self) -> Term:
        is_negative = False
        while self.peek().kind == "sign" and self.peek().text in "+-":
            is_negative ^= self.next().text == "-"
        if self.is_sign("pm", "mp"):
            sign = 1 if self.next().text == "pm" else -1
            term = Term("plus_minus", (number(0), self.product()), sign)
        elif self.is_sign("usd", "€", "£"):
            currency = read_unit([self.next()])
            term = Term("quantity", (self.power(),), currency)
            if self.peek().kind in ("text", "word"):
                return self.scaled_amount(term, is_negative)
        else:
            term = self.power()
        return negated(term) if is_negative else term

    def scaled_amount(self, term: Term, is_negative: bool) -> Term:
        """Return an amount of money with the word behind it: $3 million, $5 per hour, $5 dollars."""
        inner = self.with_unit(term.args[0])
        if inner.op == "quantity":
            unit = inner.value
            is_repeated = unit.dimensions == term.value.dimensions and unit.label is None
            inner = Term("quantity", inner.args, unit if is_repeated or unit.label is None else term.value)
            if not is_repeated and unit.label is None:
                raise NotParsedError("an amount with two units")
        else:
            inner = Term("quantity", (inner,), term.value)
        return negated(inner) if is_negative else inner

    def power(self) -> Term:
        term = self.primary()
        if term.op == "number" and self.is_sign("_"):  # (3120)_4
            term = self.based(term, Token("number", str(term.value)))
        return self.raised(self.postfixed(term))

    def raised(self, base: Term) -> Term:
        if not self.is_sign("^"):
            return base
        self.position += 1
        if self.is_degree():
            return self.raised(self.postfixed(Term("degree", (base,))))
        if self.is_sign("'") or (self.is_sign("{") and self.is_sign("'", ahead=1) and self.is_sign("}", ahead=2)):
            self.position += 3 if self.is_sign("{") else 1
            return self.raised(_primed(base))
        exponent = self.nested(self.exponent)
        if exponent == number(-1) and base.op == "symbol" and base.value in APPLIED and self.is_sign("("):
            return self.subscripted(f"{base.value}^-1")
        if base.op == "symbol" and self.take_sign("_"):  # v^2_0 is v_0^2
            base = Term("symbol", (), f"{base.value}_{self.script()}")
        if self.is_sign("^"):
            exponent = self.nested(lambda: self.raised(exponent))
        power = Term("pow", (base, exponent))
        return self.nested(lambda: self.raised(self.postfixed(power)))

    def is_degree(self) -> bool:
        """Take \\circ, {\\circ} or the letter o in braces."""
        if self.take_sign("circ", "degree"):
            return True
        if self.is_sign("{") and self.is_sign("circ", "degree", ahead=1) and self.is_sign("}", ahead=2):
            self.position += 3
            return True
        return False

    def exponent(self) -> Term:
        if self.peek().kind == "number":  # in v^2_0 the 0 belongs to v: no base
            return self.postfixed(_number(self.next().text))
        if self.take_sign("-"):
            return negated(self.exponent())
        if self.take_sign("+"):
            return self.exponent()
        if self.is_sign("{"):
            return self.braced()
        if self.peek().kind == "word" and len(self.peek().text) > 1:  # x^ab is x^a b in LaTeX
            self.split_word()
        return self.postfixed(self.primary())

    def postfixed(self, term: Term) -> Term:
        while self.peek().kind == "sign":
            if self.is_sign("!") and not (self.is_sign("=", ahead=1)):
                self.position += 1
                if self.is_sign("!"):
                    self.position += 1
                    term = Term("double_factorial", (term,))
                else:
                    term = Term("factorial", (term,))
            elif self.take_sign("%"):
                term = Term("percent", (term,))
            elif self.is_sign("degree"):
                self.position += 1
                term = Term("degree", (term,))
            elif self.is_sign("'") and term.op in ("symbol", "apply"):
                self.position += 1
                term = _primed(term)
            else:
                return term
        return term

    def primary(self) -> Term:
        return self.nested(self._primary)

    def _primary(self) -> Term:
        token = self.next()
        match token.kind:
            case "number":
                return self.based(_number(token.text), token)
            case "symbol":
                return self.subscripted(token.text)
            case "constant":
                return self.constant(token.text)
            case "function":
                return self.function(token.text)
            case "accent":
                return self.accented(token.text)
            case "word":
                self.position -= 1
                self.split_word()
                token = self.next()
                if token.kind != "word":
                    self.position -= 1
                    return self._primary()
                counted = self.counted(token.text)
                if counted is not None:
                    return counted
                if token.text in ("e", "i") and not self.is_sign("_"):
                    return Term("constant", (), token.text)
                return self.subscripted(token.text)
            case "sign":
                return self.bracketed(token)
            case "operator":
                return self.operator(token.text)
            case _:
                raise NotParsedError(f"{token.text or 'the end'!r} where a number or a variable should be")

    def split_word(self) -> None:
        """Put the pieces of a word of plain text in its place: functions, Greek names, single letters."""
        token = self.peek()
        pieces = _split(token.text)
        if pieces is None:
            name = Token("symbol", token.text, token.is_spaced)
            self.tokens[self.position] = name
            return
        if len(pieces) > 1 or pieces[0].kind != "word":
            self.tokens[self.position : self.position + 1] = pieces

    def constant(self, name: str) -> Term:
        if name in ("reals", "integers", "naturals", "rationals", "complexes"):
            if self.is_sign("^") and not self.is_sign("+", ahead=1) and not self.is_sign("+", ahead=2):
                self.position += 1
                exponent = self.exponent()
                plain = exponent == number(1) or exponent.op == "symbol"
                return Term("constant", (), name) if plain else Term("pow", (Term("constant", (), name), exponent))
            if self.is_positive():
                return Term("group", (number(0), Term("constant", (), "infinity")), "()")
            if self.is_sign("_") or self.is_sign("+"):
                sign = self.tokens[self.position + 1 : self.position + 4]
                raise NotParsedError(f"part of a number set {[part.text for part in sign]}")
        return Term("constant", (), name)

    def is_positive(self) -> bool:
        """Take ^+, _+ or _{>0} behind a set of numbers."""
        if not self.is_sign("^", "_"):
            return False
        for shape in (("+",), ("{", "+", "}"), ("{", ">", "0", "}")):
            if tuple(self.peek(1 + place).text for place in range(len(shape))) == shape:
                self.position += 1 + len(shape)
                return True
        return False

    def subscripted(self, name: str) -> Term:
        if name in CHANGES and self.peek().kind in ("word", "symbol"):  # \\Delta y is one thing
            if self.peek().kind == "word":
                self.split_word()
            if self.peek().kind in ("word", "symbol"):
                return self.subscripted(f"{name} {self.next().text}")
        if self.take_sign("_"):
            name = f"{name}_{self.script()}"
        elif (token := self.peek()).kind == "number" and not token.is_spaced and token.text.isdecimal():
            name = f"{name}_{self.next().text}"  # x3 in plain text
        elif self.is_sign("[") and self.peek(1).kind == "number" and self.is_sign("]", ahead=2):
            name = f"{name}_{self.peek(1).text}"  # a[0] in plain text
            self.position += 3
        while self.is_sign("'"):
            self.position += 1
            name += "'"
        if self.is_sign("(") and self.is_applied(name.rstrip("'").partition("_")[0].removesuffix("^-1")):
            self.position += 1
            arguments = self.nested(self.listed)
            self.expect(")")
            parts = arguments.args if arguments.op == "items" else (arguments,)
            return Term("apply", parts, name)
        if self.is_sign("(") and self.is_function_head(name):
            self.position += 3
            return Term("apply", (Term("symbol", (), self.tokens[self.position - 2].text),), name)
        return Term("symbol", (), name)

    def is_applied(self, name: str) -> bool:
        """Return whether a letter before a bracket is a function."""
        if name == "f":
            return True
        return name in APPLIED and self.peek(1).kind in ("word", "number") and self.is_sign(")", ahead=2)

    def is_function_head(self, name: str) -> bool:
        """Return whether a definition starts here: P(x) = ..., y(t) = ..."""
        is_head = self.peek(1).kind == "word" and len(self.peek(1).text) == 1 and self.is_sign(")", ahead=2)
        return (
            is_head
            and self.position == 1 + 2 * ("_" in name)
            and self.peek(3) == Token("relation", "=", self.peek(3).is_spaced)
        )

    def script(self) -> str:
        """Return a subscript as plain text: x_{n+1} and x_{n + 1} have the same."""
        if not self.is_sign("{"):
            return self.next().text
        parts, depth = [], 0
        while self.peek().kind != "end":
            token = self.next()
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                break
            if token.text not in "{}":
                parts.append(token.text)
        else:
            raise NotParsedError("a subscript that is not closed")
        return "".join(parts)

    def based(self, term: Term, token: Token) -> Term:
        if not self.is_sign("_"):
            return term
        self.position += 1
        base = _base(self.script())
        if base is None:
            raise NotParsedError("a subscript that is no base")
        return _based(token.text, base)

    def accented(self, name: str) -> Term:
        if name == "underline" and self.is_sign("{"):
            return self.braced()
        inner = self.script() if self.is_sign("{") else self.next().text
        if name in ("vec", "hat", "widehat", "overrightarrow") and not inner.isdigit():
            return self.subscripted(inner if inner not in ("i", "e") else f"{name} {inner}")
        return self.subscripted(f"{name} {inner}")

    def braced(self) -> Term:
        self.expect("{")
        if self.take_sign("}"):
            raise NotParsedError("empty braces")
        self.num_braces += 1
        term = self.nested(self.listed)
        if self.take_sign("over"):
            term = Term("div", (term, self.nested(self.listed)))
        self.expect("}")
        self.num_braces -= 1
        return term

    def argument(self) -> Term:
        """The argument of a LaTeX command: braces, or one digit or letter or command."""
        if self.is_sign("{"):
            return self.braced()
        token = self.peek()
        if token.kind == "word" and len(token.text) == 1:  # in \\frac x2 the 2 is no index
            self.position += 1
            constant = Term("constant", (), token.text) if token.text in ("e", "i") else Term("symbol", (), token.text)
            return constant
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            self.tokens[self.position : self.position + 1] = [
                Token("number", token.text[0], token.is_spaced),
                Token("number", token.text[1:]),
            ]
        elif token.kind == "word" and len(token.text) > 1 and _split(token.text) is not None:
            self.split_word()
        return self.primary()

    def operator(self, name: str) -> Term:
        """A sum, product, integral or limit as an unknown function of its range and of what stands behind it."""
        parts: list[Term] = []
        while self.is_sign("_", "^"):
            self.position += 1
            parts.append(self.nested(self.script_term))
        return Term("apply", (*parts, self.nested(self.product)), f"\\{name}")

    def script_term(self) -> Term:
        if not self.take_sign("{"):
            return self.primary()
        term = self.listed()
        self.expect("}")
        return _sides_as_arguments(term)

    # --- functions ----------------------------------------------------------------------------------------------
    def function(self, name: str) -> Term:
        if name in ("sqrt", "cbrt"):
            return self.root(name)
        base: Term | None = None
        exponent: Term | None = None
        while self.is_sign("_", "^"):
            if self.next().text == "_":
                is_plain = self.peek().kind == "number" and self.is_sign("(", ahead=1)  # log_10(100)
                base = self.nested(self.exponent if is_plain else self.argument)
            else:
                if self.is_degree():
                    raise NotParsedError("degrees of a function's name")
                exponent = self.nested(self.exponent)
        arguments = self.function_arguments(name)
        if name == "log" and base is not None:
            arguments = (*arguments, base)
        elif base is not None:
            raise NotParsedError(f"a subscript of {name}")
        if name == "factorial":
            return Term("factorial", arguments)
        if exponent == number(-1) and name in ("sin", "cos", "tan", "cot", "sec", "csc"):
            return Term("call", arguments, "arc" + name)
        term = Term("call", arguments, name)
        return term if exponent is None else Term("pow", (term, exponent))

    def function_arguments(self, name: str) -> tuple[Term, ...]:
        if self.is_sign("(", "["):
            closing = CLOSING[self.next().text]
            inner = self.nested(self.listed)
            self.expect(closing)
            return inner.args if inner.op == "items" else (inner,)
        if self.is_sign("{"):
            inner = self.braced()
            return inner.args if inner.op == "items" else (inner,)
        return (self.nested(self.unbracketed),)

    def unbracketed(self) -> Term:
        """The argument of sin 2x, ln 3: factors up to a sign, a bracket or another function."""
        is_negative = self.take_sign("-")
        term = self.power()
        while self.peek().kind in ("symbol", "constant", "word") or self.is_sign("frac", "sqrt"):
            if self.peek().kind == "word" and (self.peek().text in FUNCTION_NAMES or self.is_unit_word(term)):
                break
            term = _times(term, self.power())
        if self.is_sign("/") and term in (number(1), Term("constant", (), "pi")):  # \\sin \\pi/6
            self.position += 1
            term = Term("div", (term, self.power()))
        return negated(term) if is_negative else term

    def root(self, name: str) -> Term:
        index = number(3 if name == "cbrt" else 2)
        if self.take_sign("["):
            index = self.nested(self.listed)
            self.expect("]")
        radicand = self.nested(self.listed_in_brackets) if self.is_sign("(") else self.nested(self.argument)
        return Term("root", (radicand, index))

    def listed_in_brackets(self) -> Term:
        self.expect("(")
        term = self.listed()
        self.expect(")")
        return term

    # --- brackets -----------------------------------------------------------------------------------------------
    def bracketed(self, token: Token) -> Term:
        match token.text:
            case "(" | "[" | "langle":
                return self.tuple_or_group(token.text)
            case "]":  # French: ]a,b[
                return self.french_interval()
            case "\\{":
                return self.set_of("\\}")
            case "{":
                self.position -= 1
                inner = self.braced()
                return Term("set", inner.args) if inner.op == "items" else inner
            case "|":
                return self.absolute()
            case "lfloor" | "lceil":
                inner = self.nested(self.listed)
                self.expect(CLOSING[token.text])
                return Term("call", (inner,), "floor" if token.text == "lfloor" else "ceil")
            case "frac":
                top = self.nested(self.argument)
                bottom = self.nested(self.argument)
                if _is_differential(bottom) and (top == DIFFERENTIAL or _is_differential(top)):
                    return Term("apply", (top, bottom), "derivative")
                return Term("div", (top, bottom))
            case "binom":
                top = self.nested(self.argument)
                return Term("call", (top, self.nested(self.argument)), "binom")
            case "sqrt":
                return self.root("sqrt")
            case "begin":
                return self.environment()
            case "angle":
                return Term("symbol", (), "angle " + "".join(self.letters()))
            case _:
                raise NotParsedError(f"{token.text!r} where a number or a variable should be")

    def letters(self) -> list[str]:
        found = []
        while self.peek().kind == "word" or self.peek().kind == "symbol":
            found.append(self.next().text)
        return found

    def counted(self, letter: str) -> Term | None:
        """Return C(10, 4) or P(10, 4) as what it counts."""
        start = self.position
        if letter in ("C", "P") and self.is_sign("("):
            inner = self.power()
            if inner.op == "group" and len(inner.args) == 2 and inner.value == "()":
                return Term("call", inner.args, "nCr" if letter == "C" else "nPr")
            self.position = start
        return None

    def tuple_or_group(self, opening: str) -> Term:
        bars, self.num_bars = self.num_bars, 0
        inside, self.is_in_set = self.is_in_set, 0
        if self.is_sign(")", "]"):
            raise NotParsedError("empty brackets")
        inner = self.nested(self.listed)
        closing = self.next()
        self.num_bars, self.is_in_set = bars, inside
        if closing.kind != "sign" or closing.text not in (")", "]", "rangle", "["):
            raise NotParsedError(f"expected a closing bracket, found {closing.text!r}")
        if opening == "langle":
            opening, closing = "(", Token("sign", ")")
        elif closing.text == "[":
            closing = Token("sign", ")")
        if inner.op == "items":
            return Term("group", inner.args, opening + closing.text)
        if opening + closing.text in ("(]", "[)"):
            raise NotParsedError("brackets that do not match")
        if opening == "[" and inner.op in ("group", "set"):
            return Term("group", (inner,), "[]")
        return inner

    def french_interval(self) -> Term:
        inner = self.nested(self.listed)
        if not self.is_sign("[", "]") or inner.op != "items":
            raise NotParsedError("brackets that do not match")
        return Term("group", inner.args, "(" + (")" if self.next().text == "[" else "]"))

    def set_of(self, closing: str) -> Term:
        if self.take_sign(closing):
            return Term("constant", (), "empty")
        self.is_in_set += 1
        inner = self.nested(self.listed)
        if self.is_sign(":", "|") or self.peek()[:2] == ("relation", "|"):
            self.position += 1
            self.is_in_set -= 1
            condition = self.nested(self.listed)
            self.expect(closing)
            return Term("builder", (inner, condition))
        self.is_in_set -= 1
        self.expect(closing)
        return Term("set", inner.args if inner.op == "items" else (inner,))

    def absolute(self) -> Term:
        self.num_bars += 1
        inside, self.is_in_set = self.is_in_set, 0
        inner = self.nested(self.listed)
        self.num_bars -= 1
        self.is_in_set = inside
        if not self.is_sign("|") and self.peek()[:2] != ("relation", "|"):
            raise NotParsedError("a bar without its pair")
        self.position += 1
        return Term("call", (inner,), "abs")

    def environment(self) -> Term:
        name = self.next().text
        if name not in MATRICES and name not in ENVIRONMENTS:
            raise NotParsedError(f"environment {name!r}")
        if name == "array" and self.is_sign("{"):
            self.script()
        rows: list[Term] = []
        cells: list[Term] = []
        while not self.is_sign("end"):
            if self.peek().kind == "end":
                raise NotParsedError(f"environment {name!r} is not closed")
            if self.take_sign("newline"):
                if cells:
                    rows.append(Term("row", tuple(cells)))
                cells = []
            elif not self.take_sign("&", ","):
                while name == "cases" and self.peek().kind == "text" and self.peek().text.strip(" ,") in CASE_WORDS:
                    self.position += 1
                cells.append(self.nested(self.item))
        if cells:
            rows.append(Term("row", tuple(cells)))
        self.position += 2
        if name in ENVIRONMENTS:
            parts = tuple(cell for row in rows for cell in row.args)
            if name == "cases" and rows:
                return Term("matrix", tuple(rows), "cases")
            if not parts:
                raise NotParsedError(f"environment {name!r}")
            return parts[0] if len(parts) == 1 else Term("items", parts, False)
        if not rows or len({len(row.args) for row in rows}) != 1:
            raise NotParsedError("a matrix with rows of several lengths")
        return Term("matrix", tuple(rows), "det" if name.lower() == "vmatrix" else None)


def _listed(items: list[Term], *, is_or: bool) -> Term:
    return items[0] if len(items) == 1 else Term("items", tuple(items), is_or)


def _added(terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else Term("add", tuple(terms))


def _times(left: Term, right: Term) -> Term:
    if right.op in ("relation", "member") and left.op == "symbol":  # P(X > 1)
        return Term("apply", (right,), left.value)
    if left.op == "mul":
        return Term("mul", (*left.args, right))
    return Term("mul", (left, right))


def _sides_as_arguments(term: Term) -> Term:
    """Return k = 0 below a sum as something that has a value."""
    return Term("apply", term.args, "range") if term.op in ("relation", "items", "member") else term


def _joined(sides: list[Term], signs: list[str]) -> Term:
    """Return x < 1 \\lor x > 3 as a list of relations; p \\lor q stays one relation."""
    parts: list[tuple[list[Term], list[str]]] = [([sides[0]], [])]
    for sign, side in zip(signs, sides[1:], strict=True):
        if sign in ("lor", "land"):
            parts.append(([side], []))
        else:
            parts[-1][0].append(side)
            parts[-1][1].append(sign)
    if len({sign for sign in signs if sign in ("lor", "land")}) > 1 or not all(found for _, found in parts):
        return Term("relation", tuple(sides), tuple(signs))
    return Term("items", tuple(Term("relation", tuple(one), tuple(found)) for one, found in parts), "lor" in signs)


DIFFERENTIAL: Final = Term("symbol", (), "d")


def _is_differential(term: Term) -> bool:
    """Return whether a term is dx, dx^2 or d^2 y."""
    if term.op != "mul" or len(term.args) != 2:
        return False
    first = term.args[0]
    return first == DIFFERENTIAL or (first.op == "pow" and first.args[0] == DIFFERENTIAL)


def _mixed(whole: Term, fraction: Term) -> Term:
    """Return -4 4/9 as minus the sum of its parts."""
    if whole.value < 0:
        return negated(Term("add", (negated(whole), fraction)))
    return Term("add", (whole, fraction))


def _primed(term: Term) -> Term:
    if term.op in ("symbol", "apply"):
        return Term(term.op, term.args, term.value + "'")
    raise NotParsedError("a prime behind what is no variable")


def _scaled(term: Term, words: list[Token]) -> tuple[Term, list[Token]]:
    """Return 3 million dollars as 3,000,000 and dollars."""
    if not words:
        return term, words
    first, space, rest = words[0].text.strip().partition(" ")
    scale = SCALES.get(first.lower())
    if scale is None:
        return term, words
    left = [words[0]._replace(text=rest)] if space else []
    return Term("mul", (term, number(scale))), [*left, *words[1:]]


def _is_proper(term: Term) -> bool:
    if term.op != "div" or any(arg.op != "number" or arg.value.denominator != 1 for arg in term.args):
        return False
    return bool(0 < term.args[0].value < term.args[1].value)


def _is_amount(term: Term) -> bool:
    """Return whether a unit can stand behind the term: a number, or one with letters that only name constants."""
    match term.op:
        case "number" | "decimal" | "factorial" | "percent":
            return True
        case "constant":
            return bool(term.value == "pi")
        case "add" | "mul" | "div" | "pow" | "root" | "neg" | "plus_minus":
            return all(_is_amount(arg) for arg in term.args)
        case _:
            return False


def _based(digits: str, base: int) -> Term:
    digits = digits.lstrip("0").lower() or "0"
    if not set(digits) <= DIGITS or any(int(digit, 36) >= base for digit in digits if digit != "."):
        raise NotParsedError(f"digits that base {base} has not")
    return Term("based", (), Based(digits, base))


def _base(script: str) -> int | None:
    script = script.strip("()").lower().removeprefix("base").strip()
    if script.isdecimal() and len(script) <= 2:
        return int(script) if 2 <= int(script) <= 36 else None
    return BASE_WORDS.get(script) or BASE_WORDS_MORE.get(script)


def _number(text: str) -> Term:
    """Return the term of a number token: digits, perhaps a point, an exponent, or a repeating block in brackets."""
    if "." in text and len(text) > MAX_LITERAL_DIGITS and "e" not in text.lower():
        text = text.rstrip("0")
    if len(text) > MAX_LITERAL_DIGITS:
        raise TooBigError(f"{len(text)} digits, allowed are {MAX_LITERAL_DIGITS}")
    if text.isdecimal():
        return Term("number", (), Fraction(int(text)))
    if text.endswith(")"):
        plain, _, block = text[:-1].partition("(")
        decimals = plain.partition(".")[2]
        repeating = Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(decimals))
        return number(Fraction(plain if plain not in ("", ".") else "0") + repeating)
    mantissa, _, exponent = text.lower().partition("e")
    if exponent:
        if abs(int(exponent)) > MAX_NUMBER_EXPONENT:
            raise TooBigError(f"exponent {exponent}, allowed are {MAX_NUMBER_EXPONENT}")
        return number(Fraction(mantissa) * Fraction(10) ** int(exponent))
    decimals = mantissa.partition(".")[2]
    digits = mantissa.replace(".", "").lstrip("0")
    return Term("decimal", (), Decimal(Fraction(mantissa), len(decimals), len(digits)))


def _split(word: str) -> list[Token] | None:
    """Return the pieces of a word of plain text, or None where it is one name: radius."""
    if len(word) == 1:
        return [Token("word", word)]
    if word in FUNCTION_NAMES:
        return [Token("function", FUNCTION_NAMES[word])]
    if word in CONSTANT_NAMES and len(word) > 1:
        return [Token("constant", CONSTANT_NAMES[word])]
    if word in GREEK:
        return [Token("symbol", GREEK_SYNONYMS.get(word, word))]
    for length in (7, 6, 5, 4, 3, 2):
        for start in (0, 1, 2):
            name = word[start : start + length]
            if len(name) == length and name in FUNCTION_NAMES and len(word) - length <= 2:
                letters = [Token("word", letter) for letter in word[:start]]
                behind = _split(word[start + length :]) if word[start + length :] else []
                return [*letters, Token("function", FUNCTION_NAMES[name]), *(behind or [])]
    if len(word) <= 4 and (word.startswith("pi") or word.endswith("pi")):
        rest = word.removeprefix("pi") if word.startswith("pi") else word.removesuffix("pi")
        return [Token("constant", "pi"), *(Token("word", letter) for letter in rest)]
    if len(word) <= 3 or is_product(word):
        return [Token("word", letter) for letter in word]
    return None


def normal_form(text: str) -> str:
    """Return one spelling for texts that differ in notation alone: of their term, or of their words."""
    try:
        return text_of(parse(text))
    except (NotParsedError, TooDeepError, TooBigError, TooManyTokensError, RecursionError):
        return as_words(text)
