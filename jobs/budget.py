"""The budget of a run: what its starts have spent, and when that is enough. The driver asks, and stops the run.

Tokens and time of starts before are read once, those of this start come from its meters. Nothing is reserved: what
engines make between two looks and their abort comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.coordinator import Progress
from factory.cost import read_spent
from factory.ledgers import Spent, read_ledgers, spent_of, why_stop
from factory.store import RunFolder
from jobs.meters import Meters
from schemas.config import BudgetConfig
from schemas.errors import BudgetRun


@dataclass(slots=True)
class Budget:
    """What one start of a run may still spend."""

    limits: BudgetConfig | None
    meters: Meters
    before: Spent  # by the starts before

    @classmethod
    def of(cls, limits: BudgetConfig | None, meters: Meters) -> Budget:
        """Return the budget of a start that begins now; without limits the ledgers of those before will do."""
        folder = RunFolder(meters.path)
        return cls(limits, meters, spent_of(read_ledgers(folder.logs)) if limits is None else read_spent(folder))

    def spent(self) -> Spent:
        """Return what all starts have spent until now."""
        return self.before + self.meters.spent()

    def is_spent(self) -> bool:
        """Return whether nothing more should be made."""
        return self.limits is not None and why_stop(self.limits, self.spent()) is not None

    def stopped(self, progress: Progress) -> BudgetRun:
        """Return what to tell the user of a run that was stopped."""
        spent = self.spent()
        return BudgetRun(
            f"stopped: {why_stop(self.limits, spent)} ({spent.num_tokens:,} tokens and {spent.device_s / 3600:,.4g} "
            f"{spent.device}-hours by all starts); {progress.counts.pending:,} attempts are pending, all that was "
            f"made is safe and judged in {self.meters.path}; raise schedule.budget and run the same command to go on, "
            f"or `factory select {self.meters.path}` builds the tables of what there is"
        )
