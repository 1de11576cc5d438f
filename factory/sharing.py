"""Sharing: whose attempts an engine takes next where several jobs use it. Facts in, numbers out; no clock, no network.

Between the feeders of one engine, one for each job, in the order of the jobs. Invariants: a job gets room only while
every job before it has said that it has nothing to give now; the backlog beyond the engine's slots is the first one's
alone, so what the first still gets waits for the next slot that frees, and for nothing else; all jobs together hold no
more than one alone would; and the engine's time and tokens are divided among them without a rest. A job alone has all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from factory.capacity import SeenLengths, in_flight, kv_tokens
from factory.teachers import EngineInfo


class Occupancy(NamedTuple):
    """Seconds of an engine's feeding, each in one of three states; their sum is the whole of it.

    Of an engine that several jobs share, a job has the part of them that its attempts have of those in flight.
    """

    full: float = 0.0  # as many attempts in flight as it takes at a time, or more
    starved: float = 0.0  # fewer, and no coordinator has more to give
    blocked: float = 0.0  # fewer, while leases were asked for or should have been


@dataclass(slots=True, eq=False)
class Seat:
    """What one job has at an engine."""

    order: int  # jobs with lower ones come first
    wake: Callable[[], None]  # called when there may be leases to ask for
    in_flight: int = 0
    asked: int = 0  # leases that it asks for, until the answer: they may all come
    is_asking: bool = False
    has_no_more: bool = False  # its last leases were fewer than asked for
    lets_others: bool = False  # and jobs behind it may have the room
    occupancy: Occupancy = field(default_factory=Occupancy)
    num_tokens: float = 0.0  # its part of what the engine made


@dataclass(slots=True)
class Slots:
    """The slots of one engine. Not thread-safe."""

    max_num_seqs: int
    oversubscribe: float
    cache: int | None = None  # tokens that fit; None: not known
    lengths: SeenLengths = field(default_factory=SeenLengths)  # of all jobs: the cache is one
    _seats: list[Seat] = field(default_factory=list)  # by order
    _accounted_at: float | None = None  # until when seats have their time; None: nobody had any yet
    _num_tokens: int = 0  # of which they have their part

    @classmethod
    def of(cls, info: EngineInfo, oversubscribe: float) -> Slots:
        """Return the slots of an engine that has loaded."""
        return cls(info.max_num_seqs, oversubscribe, kv_tokens(info.settings))

    def join(self, order: int, wake: Callable[[], None] = lambda: None) -> Seat:
        """Return a seat for the job of that place."""
        seat = Seat(order, wake)
        self._seats = sorted([*self._seats, seat], key=lambda one: one.order)
        return seat

    def leave(self, seat: Seat) -> None:
        """Take a seat away, with all that it has in flight; what it was given of time and tokens stays with it."""
        self._seats.remove(seat)
        seat.in_flight = seat.asked = 0
        self._wake()

    @property
    def target(self) -> int:
        """Attempts that the engine should have in flight: its own limit and a small backlog, if its cache has room."""
        return in_flight(self.max_num_seqs, self.oversubscribe, self.cache, self.lengths.mean_held)

    @property
    def num_slots(self) -> int:
        """Attempts with which the engine is full."""
        return min(self.max_num_seqs, self.target)

    def room(self, seat: Seat) -> int:
        """Return how many leases a job may ask for now."""
        if not self._may_ask(seat):
            return 0
        limit = self.target if seat is self._seats[0] else self.num_slots
        return max(0, limit - sum(one.in_flight + one.asked for one in self._seats))

    def num_others(self, seat: Seat) -> int:
        """Return how many attempts of other jobs are in flight, or may be in a moment."""
        return sum(one.in_flight + one.asked for one in self._seats if one is not seat)

    def is_short(self, seat: Seat) -> bool:
        """Return whether a job should ask without waiting for something to report."""
        return seat.in_flight < self.num_slots and self.room(seat) > 0

    def ask(self, seat: Seat) -> int:
        """Return how many leases the job asks for, and keep the room for them until it is answered."""
        seat.asked = self.room(seat)
        seat.is_asking = True
        return seat.asked

    def answered(self, seat: Seat, num_leases: int, *, lets_others: bool) -> None:
        """Take note of the leases that came. That a job has nothing counts only where it was asked for something."""
        asked, seat.asked, seat.is_asking = seat.asked, 0, False
        seat.in_flight += num_leases
        seat.has_no_more = num_leases < asked
        seat.lets_others = lets_others
        self._wake()

    def unheard(self, seat: Seat) -> None:
        """Take note that no answer came: the job knows no more than before."""
        seat.asked, seat.is_asking = 0, False
        self._wake()

    def ended(self, seat: Seat) -> None:
        """Take note that an attempt has ended."""
        seat.in_flight -= 1
        self._wake()

    def account(self, now: float, num_tokens: int) -> None:
        """Divide the time since the last call, in seconds, and the tokens that the engine made in it."""
        if not self._seats:
            self._accounted_at = None
            return
        elapsed = 0.0 if self._accounted_at is None else now - self._accounted_at
        made = num_tokens - self._num_tokens
        self._accounted_at, self._num_tokens = now, num_tokens
        state = self._state()
        for seat, share in self._shares():
            spent = {state: getattr(seat.occupancy, state) + elapsed * share}
            seat.occupancy = seat.occupancy._replace(**spent)
            seat.num_tokens += made * share

    def _may_ask(self, seat: Seat) -> bool:
        return all(one.lets_others for one in self._seats if one.order < seat.order)

    def _state(self) -> str:
        if sum(seat.in_flight for seat in self._seats) >= self.num_slots:
            return "full"
        has_nothing = all(seat.has_no_more and not seat.is_asking for seat in self._seats if self._may_ask(seat))
        return "starved" if has_nothing else "blocked"

    def _shares(self) -> list[tuple[Seat, float]]:
        """Return each job's part of what is in flight; where nothing is, all is the first one's."""
        whole = sum(seat.in_flight for seat in self._seats)
        if not whole:
            return [(self._seats[0], 1.0)]
        return [(seat, seat.in_flight / whole) for seat in self._seats if seat.in_flight]

    def _wake(self) -> None:
        """Have those ask who may get something for slots that are free."""
        if sum(seat.in_flight + seat.asked for seat in self._seats) < self.num_slots:
            for seat in self._seats:
                if not seat.has_no_more and not seat.is_asking and self.room(seat):
                    seat.wake()
