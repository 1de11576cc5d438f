"""What a run tells of itself while it works: gauges for Ray's metrics, and where the time of its engines went.

The gauges go where Ray's own go: a cluster's Prometheus endpoint. The time of engines is kept by slot, an engine and
those that took its place: loading is known here, the states of feeding from the engines, and what is left was spent
dead, pausing before a new start, or ending. Of engines that several runs share, each has the time that they fed it, and
the first of them the rest, as if it had been alone. Decides nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final

from ray.util.metrics import Gauge

from factory.coordinator import Progress
from factory.ledgers import Spent, ledger_path, spent_in
from factory.storage import AnyPath, write_atomically
from factory.store import RunFolder
from schemas.errors import StoreError

PREFIX: Final = "distillation_factory"
JOURNAL_EVERY_S: Final = 5.0  # between two looks at the journal's files
LEDGER_EVERY_S: Final = 10.0  # between two writings of the ledger: what a kill takes from it


Gauges = dict[str, Gauge]  # by name: a process has each once, whatever runs it works on


@dataclass(slots=True)
class _Slot:
    started_at: float
    ended_at: float | None = None
    loading_s: float = 0.0


@dataclass(slots=True)
class EngineTime:
    """The time of all slots of a start, and who has been given what."""

    clock: Callable[[], float] = time.monotonic
    _slots: dict[int, _Slot] = field(default_factory=dict)
    _fed: dict[int, float] = field(default_factory=dict)  # seconds by run, as each last said
    _given: tuple[float, float] = (0.0, 0.0)  # seconds of loading, and of what is left, to the first of each moment

    def spawned(self, slot: int) -> None:
        """An engine begins to load in a slot, the first or another."""
        self._slots.setdefault(slot, _Slot(self.clock())).ended_at = None

    def loaded(self, slot: int, loading_s: float) -> None:
        """It took so long."""
        self._slots[slot].loading_s += loading_s

    def ended(self, slot: int) -> None:
        """Nothing is left for this slot."""
        if slot in self._slots:  # else its engine never got its GPUs
            self._slots[slot].ended_at = self.clock()

    def settle(self, run: int, fed_s: float, first: Meters) -> None:
        """Take note of how long engines fed a run; give what is new of loading and of the rest to the first one."""
        self._fed[run] = fed_s
        now = self.clock()
        whole = sum((slot.ended_at or now) - slot.started_at for slot in self._slots.values())
        loading = sum(slot.loading_s for slot in self._slots.values())
        rest = whole - loading - sum(self._fed.values())
        first.loading_s += loading - self._given[0]
        first.dead_s += rest - self._given[1]
        self._given = (loading, rest)


@dataclass(slots=True)
class Meters:
    """The gauges of one start of a run, and its ledger."""

    run: str  # stands with every gauge
    path: AnyPath  # its folder
    epoch: int
    num_gpus: int  # of an engine
    gauges: Gauges
    loading_s: float = 0.0  # of engines, given to this run
    dead_s: float = 0.0
    _tokens: dict[str, int] = field(default_factory=dict)  # by engine; a new coordinator knows no dead ones
    _written_at: float = -math.inf
    _journal_at: float | None = None  # when it was looked at

    def tokens_made(self, tokens: Mapping[str, int]) -> None:
        """Take note of the output tokens of engines, each since its start."""
        self._tokens |= {name: max(made, self._tokens.get(name, 0)) for name, made in tokens.items()}

    def spent(self, progress: Progress) -> Spent:
        """Return what this start has spent."""
        return spent_in(self.ledger(progress), num_tokens=sum(self._tokens.values()), num_gpus=self.num_gpus)

    def ledger(self, progress: Progress) -> dict[str, float]:
        """Return the engines' seconds by what they were spent on; of all runs they sum up to the time of all slots."""
        return progress.occupancy._asdict() | {"loading": self.loading_s, "dead": max(0.0, self.dead_s)}

    def show(self, progress: Progress) -> None:
        """Set the gauges."""
        for state, count in asdict(progress.counts).items():
            self._set("attempts", count, state=state)
        for outcome, count in progress.outcomes.items():
            self._set("verdicts", count, outcome=str(outcome))
        self._set("tokens_out", progress.num_tokens_out)
        self._set("attempts_in_flight", progress.in_flight)
        self._set("attempts_queued", progress.num_queued)
        self._set("traces_to_judge", progress.num_to_judge)
        self._set("journal_lag_seconds", progress.journal_lag_s)
        self._show_journal()
        for state, seconds in self.ledger(progress).items():
            self._set("engine_seconds", seconds, state=state)

    def _show_journal(self) -> None:
        """Say how much is journaled and not yet in a manifest, now and then: a look at every segment."""
        now = time.monotonic()
        if self._journal_at is None or now - self._journal_at >= JOURNAL_EVERY_S:
            self._journal_at = now
            self._set("journal_bytes", RunFolder(self.path).journal_bytes())

    def _set(self, name: str, value: float, **labels: str) -> None:
        labels = {"run": self.run, **labels}
        gauge = self.gauges.get(name)
        if gauge is None:
            gauge = self.gauges[name] = Gauge(f"{PREFIX}_{name}", tag_keys=tuple(labels))
        gauge.set(value, tags=labels)

    def keep(self, progress: Progress, *, is_last: bool = False) -> None:
        """Write the ledger of this start beside the engines' logs, now and then, and at its end."""
        seconds = self.ledger(progress)
        if not any(seconds.values()) or not (is_last or time.monotonic() - self._written_at >= LEDGER_EVERY_S):
            return
        self._written_at = time.monotonic()
        body = {
            "epoch": self.epoch,
            "seconds": seconds,
            "num_tokens": sum(self._tokens.values()),
            "num_gpus": self.num_gpus,
            "verdict_delays": None if progress.delays is None else progress.delays._asdict(),
        }
        with suppress(OSError, StoreError):  # such as a full disk: told of by those who write samples
            write_atomically(ledger_path(self.path / "logs", self.epoch), json.dumps(body).encode())
