"""Reviewed scorers of reasoning-gym, inside a worker.

Runs in processes of ``verifiers.pool`` only. The list of families is checked here again: the last line of defence
before a function of that package sees what a model wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from verifiers.logic import REVIEWED_SCORERS

# A scorer that looks things up in its dataset object gets one that covers every difficulty, not the default's.
CONFIGS: Final[dict[str, dict[str, Any]]] = {"word_ladder": {"min_word_length": 3, "max_word_length": 5}}


def load() -> Callable[[Any], Any]:
    """Return the task: payload ``family``, ``answer``, ``entry``; it returns the score."""
    import reasoning_gym

    datasets: dict[str, Any] = {
        family: reasoning_gym.create_dataset(family, size=1, seed=0, **CONFIGS.get(family, {}))
        for family in sorted(REVIEWED_SCORERS)
    }

    def score(payload: Any) -> Any:
        family = payload["family"]
        assert family in REVIEWED_SCORERS, family
        return float(datasets[family].score_answer(payload["answer"], payload["entry"]))

    return score
