"""The factors of an answer: numbers, letters, functions, roots, brackets, matrices, with powers and what is fastened.

The inner half of the grammar; ``parser`` has the outer one, which the abstract methods stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from verifiers.cursor import Cursor
from verifiers.notation import FUNCTION_NAMES
from verifiers.numerals import based_number, read_base, read_number, split_word
from verifiers.terms import NotParsedError, Term, negated, number
from verifiers.tokens import Token

CLOSING: Final = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "langle": "rangle", "lfloor": "rfloor", "lceil": "rceil"}
# Letters that before "(" are functions, not factors; all but f only before a single number or letter: g(x), g(2).
APPLIED: Final = frozenset({"f", "g", "F", "G", "phi", "psi"})
MATRICES: Final = frozenset(
    ["matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "psmallmatrix"]
)
ENVIRONMENTS: Final = frozenset(["aligned", "align", "equation", "gathered", "split", "gather", "cases"])
CHANGES: Final = frozenset({"Delta", "\\partial", "\\nabla"})
CASE_WORDS: Final = frozenset({"if", "for", "when", "where", "and"})


class Atoms(Cursor, ABC):
    """Reads one factor at a time."""

    @abstractmethod
    def listed(self) -> Term:
        """Return items separated by commas and the like; one item is itself."""

    @abstractmethod
    def item(self) -> Term:
        """Return one of them."""

    @abstractmethod
    def product(self) -> Term:
        """Return factors up to a plus or minus sign."""

    @abstractmethod
    def is_unit_word(self, term: Term) -> bool:
        """Return whether the word behind an amount is a unit, not variables."""

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
            return self.postfixed(read_number(self.next().text))
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
                return self.based(read_number(token.text), token)
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
        pieces = split_word(token.text)
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
        if name == "Gamma" and self.is_sign("("):
            argument = self.nested(self.listed_in_brackets)
            return Term("factorial", (Term("add", (argument, number(-1))),))
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
        base = read_base(self.script())
        if base is None:
            raise NotParsedError("a subscript that is no base")
        return based_number(token.text, base)

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
        if self.peek().kind == "number" and self.is_sign("}", ahead=1):  # nearly all braces: a shortcut, no other rule
            self.position += 2
            return read_number(self.tokens[self.position - 2].text)
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
        elif token.kind == "word" and len(token.text) > 1 and split_word(token.text) is not None:
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
        if name == "cis" and len(arguments) == 1:
            term = Term("pow", (Term("constant", (), "e"), times(Term("constant", (), "i"), arguments[0])))
        else:
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
            term = times(term, self.power())
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
                    if bottom == DX and top.args[:1] == (DIFFERENTIAL,) and top.args[1].op == "symbol":
                        return _primed(top.args[1])  # dy/dx is y'
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


def times(left: Term, right: Term) -> Term:
    if right.op in ("relation", "member") and left.op == "symbol":  # P(X > 1)
        return Term("apply", (right,), left.value)
    if left.op == "mul":
        return Term("mul", (*left.args, right))
    return Term("mul", (left, right))


def _sides_as_arguments(term: Term) -> Term:
    """Return k = 0 below a sum as something that has a value."""
    return Term("apply", term.args, "range") if term.op in ("relation", "items", "member") else term


DIFFERENTIAL: Final = Term("symbol", (), "d")
DX: Final = Term("mul", (DIFFERENTIAL, Term("symbol", (), "x")))


def _is_differential(term: Term) -> bool:
    """Return whether a term is dx, dx^2 or d^2 y."""
    if term.op != "mul" or len(term.args) != 2:
        return False
    first = term.args[0]
    return first == DIFFERENTIAL or (first.op == "pow" and first.args[0] == DIFFERENTIAL)


def _primed(term: Term) -> Term:
    if term.op in ("symbol", "apply"):
        return Term(term.op, term.args, term.value + "'")
    raise NotParsedError("a prime behind what is no variable")
