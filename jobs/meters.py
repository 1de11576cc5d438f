"""What a run tells of itself while it works: gauges for Ray's metrics, and where the time of its engines went.

The gauges go where Ray's own go: a cluster's Prometheus endpoint. The time of engines is kept by slot, an engine and
those that took its place: loading is known here, the states of feeding from the engines, and what is left was spent
dead, pausing before a new start, or ending. Of engines that several runs share, each has the time that they fed it, and
the first of them the rest, as if it had been alone. What a coordinator was told stays known here when it dies. Decides
nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final

from ray.util.metrics import Gauge

from factory.coordinator import Progress
from factory.ledgers import FEEDING, Spent, ledger_path, spent_in
from factory.sharing import Occupancy
from factory.storage import AnyPath, write_atomically
from factory.store import RunFolder
from factory.teachers import Loaded
from schemas.errors import StoreError

PREFIX: Final = "distillation_factory"
METRICS: Final = {  # labels beside the run's name, and what stands there; README.md has the same list
    "attempts": (("state",), "attempts at problems, by what became of them so far"),
    "verdicts": (("outcome",), "traces that were judged, by what was found"),
    "tokens_out": ((), "output tokens of this start, finished attempts or not"),
    "attempts_in_flight": ((), "attempts that engines hold"),
    "attempts_queued": ((), "attempts that no engine holds yet"),
    "traces_to_judge": ((), "traces that wait for a verdict"),
    "journal_lag_seconds": ((), "age of the oldest frame of a journal that is not yet synced"),
    "journal_bytes": ((), "size of the journal: what no manifest holds yet, or is still needed"),
    "engine_seconds": (("engine", "state"), "time of an engine, and of those that took its place in this start"),
}
STATES: Final = (*FEEDING, "loading", "dead")  # of an engine's time
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
    _fed: dict[int, Mapping[int, float]] = field(default_factory=dict)  # seconds by run and slot, as each last said
    _given: dict[int, tuple[float, float]] = field(default_factory=dict)  # by slot: of loading, and of what is left

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

    def settle(self, run: int, fed_s: Mapping[int, float], first: Meters) -> None:
        """Take note of how long each slot fed a run; give what is new of loading and of the rest to the first one."""
        self._fed[run] = fed_s
        now = self.clock()
        for number, slot in self._slots.items():
            fed = sum(seconds.get(number, 0.0) for seconds in self._fed.values())
            loading = slot.loading_s
            rest = (slot.ended_at or now) - slot.started_at - loading - fed
            given = self._given.get(number, (0.0, 0.0))
            first.loading_s[number] += loading - given[0]
            first.dead_s[number] += rest - given[1]
            self._given[number] = (loading, rest)


def slot_of(engine_id: str) -> int:
    """Return the slot of an engine that is named as ``Supervisor.stamp`` does."""
    return int(engine_id.split("-")[1])


@dataclass(slots=True)
class Meters:
    """The gauges of one start of a run, and its ledger."""

    run: str  # stands with every gauge
    path: AnyPath  # its folder
    epoch: int
    num_gpus: int  # of an engine
    gauges: Gauges
    loading_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))  # by slot, given to this run
    dead_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    _occupancy: dict[str, Occupancy] = field(default_factory=dict)  # by engine, as the tokens
    _tokens: dict[str, int] = field(default_factory=dict)  # by engine; a new coordinator knows no dead ones
    _loaded: list[Loaded] = field(default_factory=list)  # what its engines were loaded as, each different way once
    _written_at: float = -math.inf
    _journal_at: float | None = None  # when it was looked at

    def tokens_made(self, tokens: Mapping[str, int]) -> None:
        """Take note of the output tokens of engines, each since its start."""
        self._tokens |= {name: max(made, self._tokens.get(name, 0)) for name, made in tokens.items()}

    def fed(self, occupancy: Mapping[str, Occupancy]) -> None:
        """Take note of how engines spent the time that they fed this run, each since its start."""
        self._occupancy |= {
            name: max(spent, self._occupancy.get(name, spent), key=sum) for name, spent in occupancy.items()
        }

    def loaded_as(self, loaded: Loaded | None) -> None:
        """Take note of an engine that begins to work for this run; the ledger says it at once."""
        if loaded is not None and loaded not in self._loaded:
            self._loaded.append(loaded)
            self._written_at = -math.inf

    @property
    def num_tokens(self) -> int:
        """The output tokens of all engines of this start."""
        return sum(self._tokens.values())

    @property
    def fed_s(self) -> dict[int, float]:
        """How long each slot fed this run."""
        seconds: defaultdict[int, float] = defaultdict(float)
        for name, spent in self._occupancy.items():
            seconds[slot_of(name)] += sum(spent)
        return seconds

    def spent(self) -> Spent:
        """Return what this start has spent."""
        return spent_in(self.ledger(), num_tokens=self.num_tokens, num_gpus=self.num_gpus)

    def ledger(self) -> dict[str, float]:
        """Return the engines' seconds by what they were spent on; of all runs they sum up to the time of all slots."""
        ledgers = self.ledgers().values()
        return {state: sum(ledger[state] for ledger in ledgers) for state in STATES}

    def ledgers(self) -> dict[str, dict[str, float]]:
        """Return the same for each engine, with those that took its place."""
        fed: defaultdict[int, list[Occupancy]] = defaultdict(list)
        for name, spent in self._occupancy.items():
            fed[slot_of(name)].append(spent)
        return {
            f"engine-{slot}": {state: sum(getattr(spent, state) for spent in fed[slot]) for state in FEEDING}
            | {"loading": self.loading_s[slot], "dead": max(0.0, self.dead_s[slot])}
            for slot in sorted(fed.keys() | self.loading_s.keys() | self.dead_s.keys())
        }

    def show(self, progress: Progress) -> None:
        """Set the gauges."""
        for state, count in asdict(progress.counts).items():
            self._set("attempts", count, state=state)
        for outcome, count in progress.outcomes.items():
            self._set("verdicts", count, outcome=str(outcome))
        self._set("tokens_out", self.num_tokens)
        self._set("attempts_in_flight", progress.in_flight)
        self._set("attempts_queued", progress.num_queued)
        self._set("traces_to_judge", progress.num_to_judge)
        self._set("journal_lag_seconds", progress.journal_lag_s)
        self._show_journal()
        for engine, ledger in self.ledgers().items():
            for state, seconds in ledger.items():
                self._set("engine_seconds", seconds, engine=engine, state=state)

    def _show_journal(self) -> None:
        """Say how much is journaled and not yet in a manifest, now and then: a look at every segment."""
        now = time.monotonic()
        if self._journal_at is None or now - self._journal_at >= JOURNAL_EVERY_S:
            self._journal_at = now
            self._set("journal_bytes", RunFolder(self.path).journal_bytes())

    def _set(self, name: str, value: float, **labels: str) -> None:
        gauge = self.gauges.get(name)
        if gauge is None:
            names, what = METRICS[name]
            gauge = self.gauges[name] = Gauge(f"{PREFIX}_{name}", what, tag_keys=("run", *names))
        gauge.set(value, tags={"run": self.run, **labels})

    def keep(self, progress: Progress, *, is_last: bool = False) -> None:
        """Write the ledger of this start beside the engines' logs, now and then, and at its end."""
        seconds = self.ledger()
        if not any(seconds.values()) or not (is_last or time.monotonic() - self._written_at >= LEDGER_EVERY_S):
            return
        self._written_at = time.monotonic()
        body = {
            "epoch": self.epoch,
            "seconds": seconds,
            "by_engine": self.ledgers(),
            "num_tokens": self.num_tokens,
            "num_gpus": self.num_gpus,
            "engines": [asdict(one) for one in self._loaded],
            "verdict_delays": None if progress.delays is None else progress.delays._asdict(),
        }
        with suppress(OSError, StoreError):  # such as a full disk: told of by those who write samples
            write_atomically(ledger_path(self.path / "logs", self.epoch), json.dumps(body).encode())
