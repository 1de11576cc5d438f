"""Tokens into a term: a recursive-descent parser for answers in LaTeX, plain notation, or both mixed.

Second half of reading a formula. Never evaluates, never recurses beyond ``MAX_DEPTH``, and takes time linear in the
tokens but for the search of a unit behind a number. Precedence, loosest first: list, relation, set operation, sum,
product (implicit ones too, left to right with division), sign, power, factorial and percent.
"""

from __future__ import annotations

import re
from typing import Final

from verifiers.atoms import Atoms, times
from verifiers.limits import MAX_TERM_DEPTH
from verifiers.notation import CONSTANT_NAMES, FUNCTION_NAMES, GREEK
from verifiers.numerals import based_number, read_base, read_number, split_word
from verifiers.rewrites import rewritten
from verifiers.terms import NotParsedError, Term, TooBigError, TooDeepError, depth_of, negated, number, text_of
from verifiers.tokens import Token, TooManyTokensError, groups_commas, tokenize
from verifiers.units import LETTER_UNITS, SCALES, TEMPERATURES, read_unit
from verifiers.words import as_words

FACTOR_SIGNS: Final = frozenset(
    {"(", "[", "{", "\\{", "frac", "binom", "sqrt", "lfloor", "lceil", "langle", "begin", "angle"}
)
UNIT_ENDS: Final = frozenset({",", ";", ")", "]", "}", "\\}", "newline", "&", "pm", "+", ":", "|"})
PLAIN_SETS: Final = {  # k in Z, without the double stroke
    Term("symbol", (), letter): Term("constant", (), name)
    for letter, name in (("Z", "integers"), ("N", "naturals"), ("Q", "rationals"), ("R", "reals"))
}
PERCENT_WORDS: Final = frozenset({"percent", "percentage", "pct"})
BASED: Final = re.compile(
    r"[\s$]*\(?([0-9A-Za-z]{1,200})\)?_\{?\s?(?:\\(?:text|mathrm)\{)?\(?(\d{1,2}|[a-z]{3,8})\)?\s?\}{0,2}[\s$.]*",
    re.ASCII,
)


def parse(text: str, *, group_commas: bool | None = None) -> Term:
    """Return the term of an answer. ``group_commas`` None lets the look of its commas decide about 1,234.

    Raises:
        NotParsedError: If the text is no formula.
        TooDeepError, TooBigError, TooManyTokensError: If it breaks a limit.
    """
    text = rewritten(text)
    if "_" in text and (based := BASED.fullmatch(text)) is not None:
        base = read_base(based[2])
        if base is not None and all(digit.isalnum() and int(digit, 36) < base for digit in based[1]):
            return based_number(based[1], base)
    tokens = tokenize(text, group_commas=groups_commas(text) if group_commas is None else group_commas)
    parser = _Parser(tokens)
    term = parser.answer()
    if parser.peek().kind != "end":
        raise NotParsedError(f"cannot go on at {parser.peek().text!r}")
    if depth_of(term) > MAX_TERM_DEPTH:  # 1/1/1/..., 5!!!!: deep trees without a bracket
        raise TooDeepError(f"more than {MAX_TERM_DEPTH} levels")
    return term


class _Parser(Atoms):
    """Reads one text."""

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
            return Term("member", (sides[0], PLAIN_SETS.get(sides[1], sides[1])))
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
                term = times(term, self.mixed(self.signed()))
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
            return times(term, self.raised(self.postfixed(fraction)))
        if is_whole and self.peek().kind == "number":
            top = self.next()
            if self.take_sign("/") and self.peek().kind == "number":
                fraction = Term("div", (read_number(top.text), read_number(self.next().text)))
                if _is_proper(fraction):
                    return self.postfixed(_mixed(term, fraction))
            raise NotParsedError("two numbers side by side")
        return times(term, self.power())

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
            return len(token.text) > 3 and split_word(token.text) is None
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
        is_label = unit is not None and (unit.label in ("am", "pm") or split_word(token.text) is None)
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


def _listed(items: list[Term], *, is_or: bool) -> Term:
    return items[0] if len(items) == 1 else Term("items", tuple(items), is_or)


def _added(terms: list[Term]) -> Term:
    return terms[0] if len(terms) == 1 else Term("add", tuple(terms))


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


def _mixed(whole: Term, fraction: Term) -> Term:
    """Return -4 4/9 as minus the sum of its parts."""
    if whole.value < 0:
        return negated(Term("add", (negated(whole), fraction)))
    return Term("add", (whole, fraction))


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


def normal_form(text: str) -> str:
    """Return one spelling for texts that differ in notation alone: of their term, or of their words."""
    try:
        return text_of(parse(text))
    except (NotParsedError, TooDeepError, TooBigError, TooManyTokensError, RecursionError):
        return as_words(text)
