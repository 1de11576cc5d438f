"""What makes a trace unreadable, as numbers: the thresholds of the readability checks, and the profiles that set them.

Between a job's settings and the checks. A threshold belongs to a teacher: `factory calibrate` proposes them from its
traces. Holds numbers only; what is done with them stands in ``verifiers``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from schemas.problem import digest


class Profile(StrEnum):
    """How strict the checks are."""

    R1 = "r1"  # all of them, as DeepSeek-R1's filter (arXiv:2501.12948, section 2.3.3)
    LENIENT = "lenient"  # format, garbage, echo, loops, refusals; languages and structure are flags
    NONE = "none"  # statistics only: every finding is a flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Bounds of the checks; lengths in characters. (M) is measured, in the note on readability, sections 3 and 7."""

    max_paragraph_chars: float = 3_000  # without a line break; (M) R1's longest has 1,140, Phi-4-reasoning needs 8,000
    flag_paragraph_chars: float = 1_500
    min_period_repeats: float = 3  # of a stretch that repeats itself exactly up to the end of a cut text (M)
    min_period_chars: float = 1_500  # that such a stretch takes up (M)
    min_short_period_repeats: float = 8  # of a short period at the end of any part (M)
    min_short_period_chars: float = 300
    min_inner_repeats: float = 5  # of a stretch inside a part, after which the text goes on (guess)
    min_inner_chars: float = 1_500
    min_tail_ratio: float = 0.09  # compressed size of the last 4,000 characters, zlib level 1; enumerations reach 0.098
    flag_tail_ratio: float = 0.20
    max_sentence_repeats: float = 7  # of one sentence, where repeated sentences also fill much of the text (M)
    max_repeated_share: float = 0.25  # of the text, in characters, that sentences seen before fill (M)
    max_masked_repeats: float = 29  # of one sentence but for its numbers (M)
    max_foreign_words: float = 0  # of another language in thinking or response
    min_consistency: float = 0.95  # share of words in the target language, below which foreign words are no slip
    max_replacement_chars: float = 2  # U+FFFD
    max_control_chars: float = 4


DEFAULTS: Final = Thresholds()
THRESHOLD_NAMES: Final = tuple(field.name for field in fields(Thresholds))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadabilitySettings:
    """How a run's traces are read: its profile, the language of the thinking where it is set, and its thresholds."""

    profile: Profile = Profile.R1
    think_language: str | None = None  # None: the problem's own
    thresholds: Thresholds = DEFAULTS

    def digest(self) -> str:
        """Return the hash of the settings: verdicts of other settings are other verdicts."""
        bounds = [[name, getattr(self.thresholds, name)] for name in THRESHOLD_NAMES]
        return digest([str(self.profile), self.think_language, bounds])
