"""A place in the tokens of an answer: looking ahead, taking what is there, and the bound on nesting.

Under ``atoms`` and ``parser``. Knows no grammar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifiers.limits import MAX_DEPTH
from verifiers.terms import NotParsedError, Term, TooDeepError
from verifiers.tokens import Token

END: Final = Token("end", "")
LOOK_AHEAD: Final = (END,) * 8  # behind the last token: no look ahead reaches further


class Cursor:
    """Reads one text; ``position`` is the next token's."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.position, self.depth = [*tokens, *LOOK_AHEAD], 0, 0
        self.num_bars = 0  # open absolute values: there a bar closes, and never opens
        self.num_braces = 0
        self.is_in_set = 0  # there "|" and ":" stand before the condition

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[self.position + ahead]

    def next(self) -> Token:
        token = self.tokens[self.position]
        self.position += token.kind != "end"
        return token

    def is_sign(self, *texts: str, ahead: int = 0) -> bool:
        token = self.tokens[self.position + ahead]
        return token.text in texts and token.kind == "sign"

    def take_sign(self, *texts: str) -> bool:
        token = self.tokens[self.position]
        if token.text in texts and token.kind == "sign":
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
