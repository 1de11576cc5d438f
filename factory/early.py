"""Whether an attempt in flight is past hope: it runs in circles, goes on in a foreign script, or lacks its first tag.

A plain state machine between the stream of one attempt and the feeder that ends it: tokens and text in, an alarm or
nothing out. No clock, no engine. An alarm must be something that readability rejects in the finished trace, and sure: a
good attempt that is given up costs more than some hundred tokens of a bad one. Time is linear in the tokens, memory
bounded; nothing is raised on what a model wrote.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.readability import ReadabilitySettings
from schemas.trace import THINK_OPEN, TraceFormat
from schemas.verdict import Reason
from verifiers.allowed import allowed_by
from verifiers.language_data import LANGUAGE_SCRIPTS, LATIN, SCRIPT_RANGES
from verifiers.readability import FLAGS
from verifiers.repetition import periods_ending_at

LOOK_TOKENS: Final = 256  # between two looks; vLLM hands a delta over at each, so not less (guess)
KEPT: Final = 32_768  # last tokens that are looked at: three times a period of 10,900
# A stretch that repeats itself exactly is a loop from so many times and `loop_tokens` on. With a character or more to
# a token that is what readability rejects even where the text goes on behind it (``min_inner_repeats``).
LOOP_REPEATS: Final = 5
LONG_LOOP_REPEATS: Final = 3  # fewer times will do ...
LONG_LOOP_TOKENS: Final = 4_096  # ... from here on: one more of a period of 10,000 tokens would cost as many
CHARS_PER_TOKEN: Final = 4  # where an endpoint gives no token ids, characters are looked at (guess)
SCRIPT_LETTERS: Final = 800  # the last ones, over which scripts are counted (guess)
FOREIGN_SHARE: Final = 0.5  # of them: no quotation, no list of words (guess)
ALWAYS_ALLOWED: Final = LATIN | {"greek"}  # formulas
CODE_POINTS: Final = 0x110000  # no vocabulary has more


class Alarm(NamedTuple):
    """Why an attempt should end: the reason that readability will have, and what was seen."""

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the attempts of a run are held to."""

    loop_tokens: int  # that repeat themselves exactly, at least
    format: TraceFormat
    settings: ReadabilitySettings

    def rejects(self, reason: Reason) -> bool:
        """Return whether a finished trace would be rejected for that; what is only flagged ends no attempt."""
        if reason is Reason.LANGUAGE_MIXING and self.settings.thresholds.max_foreign_words > 0:
            return False
        return reason not in FLAGS[self.settings.profile]


@dataclass(slots=True)
class Detector:
    """Looks at one attempt. Not thread-safe."""

    rules: Rules
    language: str
    prompt: str
    _tokens: str = ""  # the last ones, a character each: Python searches and compares texts quickest
    _head: str | None = ""  # the first characters of the text, until the tag is decided
    _foreign: deque[tuple[int, int]] = field(default_factory=deque)  # by look: foreign letters, and all
    _is_text: bool = False  # characters stand in for tokens

    def go_on_from(self, token_ids: Sequence[int]) -> None:
        """Take what another engine made; its text, and so its first tag, is not known here."""
        self._add(token_ids, "")
        self._head = None

    def take(self, token_ids: Sequence[int], text: str) -> Alarm | None:
        """Take what came since the last call; return why the attempt should end, if so."""
        self._add(token_ids, text)
        return self._missing_tag(text) or self._loop() or self._foreign_script(text)

    def _add(self, token_ids: Sequence[int], text: str) -> None:
        self._is_text |= bool(text) and not token_ids
        fresh = text if self._is_text else "".join([chr(token_id % CODE_POINTS) for token_id in token_ids])
        kept = KEPT * self._unit
        self._tokens += fresh
        if len(self._tokens) > kept + (kept >> 3):  # not at every call: what is kept is copied
            self._tokens = self._tokens[-kept:]

    @property
    def _unit(self) -> int:
        """Symbols of a token."""
        return CHARS_PER_TOKEN if self._is_text else 1

    def _loop(self) -> Alarm | None:
        least = self.rules.loop_tokens * self._unit
        if len(self._tokens) < least or not self.rules.rejects(Reason.REPETITION_LOOP):
            return None
        for found in periods_ending_at(self._tokens, len(self._tokens), len(self._tokens)):
            if found.num_chars < least or found.repeats < LONG_LOOP_REPEATS:
                continue
            is_long = found.num_chars >= LONG_LOOP_TOKENS * self._unit
            if is_long or found.repeats >= LOOP_REPEATS:
                what = "characters" if self._is_text else "tokens"
                return Alarm(
                    Reason.REPETITION_LOOP,
                    f"the last {found.num_chars:,} {what} are the same {found.period:,} {found.repeats:.1f} times",
                )
        return None

    def _missing_tag(self, text: str) -> Alarm | None:
        if self._head is None:
            return None
        self._head = (self._head + text).lstrip()[: len(THINK_OPEN)]
        if len(self._head) < len(THINK_OPEN):
            return None
        head, self._head = self._head, None
        is_wanted = self.rules.format in (TraceFormat.R1, TraceFormat.ZERO)
        if not is_wanted or head == THINK_OPEN or not self.rules.rejects(Reason.MALFORMED_TAGS):
            return None
        return Alarm(Reason.MALFORMED_TAGS, f"the text does not begin with {THINK_OPEN}")

    def _foreign_script(self, text: str) -> Alarm | None:
        if text.isascii() and not self._foreign:
            return None
        if not self.rules.rejects(Reason.LANGUAGE_MIXING):
            return None
        found = () if text.isascii() else self._pattern().findall(text)
        if not found and not any(count for count, _ in self._foreign):
            return None
        self._foreign.append((sum(map(len, found)), sum(map(str.isalpha, text))))
        foreign, letters = (sum(counts) for counts in zip(*self._foreign, strict=True))
        while letters - self._foreign[0][1] >= SCRIPT_LETTERS:
            count, of = self._foreign.popleft()
            foreign, letters = foreign - count, letters - of
        if letters < SCRIPT_LETTERS or foreign < FOREIGN_SHARE * letters:
            return None
        return Alarm(Reason.LANGUAGE_MIXING, f"{foreign:,} of the last {letters:,} letters are of a foreign script")

    def _pattern(self) -> re.Pattern[str]:
        languages = (self.language, self.rules.settings.think_language or self.language)
        scripts = {script for language in languages for script in LANGUAGE_SCRIPTS.get(language, ())}
        return foreign_letters(frozenset(scripts | allowed_by(self.prompt).scripts))


@lru_cache(maxsize=256)
def foreign_letters(scripts: frozenset[str]) -> re.Pattern[str]:
    """Return the pattern of letters of all scripts but these and those of formulas."""
    own = scripts | ALWAYS_ALLOWED
    return re.compile("[" + "".join(letters for name, letters in SCRIPT_RANGES.items() if name not in own) + "]+")
