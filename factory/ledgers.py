"""What the starts of a run have spent: one ledger for each, written by the driver while it goes on (`jobs/meters.py`).

A start that is killed leaves the ledger of some seconds before. So what is known to be spent is at least what lies in
traces and journal, and whoever needs it takes the larger of the two. Reads only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from factory.storage import AnyPath, find_files
from schemas.config import BudgetConfig

FEEDING: Final = ("full", "starved", "blocked")  # of an engine's time: it has loaded, and lives


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Sums over starts. Time is that of all engines times the GPUs of each; an engine without a GPU counts as one."""

    num_tokens: int = 0  # output, whatever became of it
    device_s: float = 0.0  # all of it: full, starved, blocked, loading, dead
    feeding_s: float = 0.0  # of it with a loaded engine
    loading_s: float = 0.0
    has_gpus: bool = False

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            num_tokens=self.num_tokens + other.num_tokens,
            device_s=self.device_s + other.device_s,
            feeding_s=self.feeding_s + other.feeding_s,
            loading_s=self.loading_s + other.loading_s,
            has_gpus=self.has_gpus or other.has_gpus,
        )

    @property
    def device(self) -> str:
        """What the time is of."""
        return "GPU" if self.has_gpus else "engine"


def spent_in(seconds: Mapping[str, float], *, num_tokens: int, num_gpus: int) -> Spent:
    """Return what one start spent: the seconds of its engines by state, its tokens, the GPUs of an engine."""
    each = max(1, num_gpus)
    return Spent(
        num_tokens=num_tokens,
        device_s=each * sum(seconds.values()),
        feeding_s=each * sum(seconds.get(state, 0.0) for state in FEEDING),
        loading_s=each * seconds.get("loading", 0.0),
        has_gpus=num_gpus > 0,
    )


def ledger_path(logs: AnyPath, epoch: int) -> AnyPath:
    """Return where the ledger of a start lies."""
    return logs / f"engine-time-{epoch:06d}.json"


def read_ledgers(logs: AnyPath) -> list[dict[str, Any]]:
    """Return the ledgers of all starts that wrote one, the newest last."""
    return [json.loads(path.read_bytes()) for path in find_files(logs, "engine-time-*.json")]


def engines_in(ledgers: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return what the engines of all starts were loaded as, each different way once; None where nobody noted it."""
    found = {json.dumps(one, sort_keys=True): one for body in ledgers for one in body.get("engines", ())}
    return [found[key] for key in sorted(found)] or None


def spent_of(ledgers: list[dict[str, Any]]) -> Spent:
    """Return what they sum to. Ledgers of older versions say nothing of tokens and GPUs."""
    return sum(
        (
            spent_in(body["seconds"], num_tokens=body.get("num_tokens", 0), num_gpus=body.get("num_gpus", 0))
            for body in ledgers
        ),
        start=Spent(),
    )


def why_stop(budget: BudgetConfig | None, spent: Spent) -> str | None:
    """Return which part of a budget is used up, with the figures; None while there is some left."""
    if budget is None:
        return None
    hours = spent.device_s / 3600
    if budget.max_gpu_hours is not None and hours >= budget.max_gpu_hours:
        return f"{hours:,.4g} {spent.device}-hours of schedule.budget.max_gpu_hours={budget.max_gpu_hours:g} are spent"
    if budget.max_tokens is not None and spent.num_tokens >= budget.max_tokens:
        return f"{spent.num_tokens:,} tokens of schedule.budget.max_tokens={budget.max_tokens:,} are spent"
    return None
