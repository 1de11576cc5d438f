"""Sharing: the first job has what it would have alone, those behind fill the rest, and nothing is counted twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.capacity import MIN_BACKLOG, MIN_LENGTHS, SeenLengths
from factory.dispatch import Dispatch, Key
from factory.sharing import Seat, Slots
from jobs.meters import EngineTime, Meters

STEPS = st.lists(st.tuples(st.sampled_from(["ask", "answer", "end", "leave", "tick"]), st.integers(0, 2**16)))


def _held(slots: Slots, *seats: Seat) -> int:
    return sum(seat.in_flight + seat.asked for seat in seats)


def _capped(max_num_seqs: int, target: int) -> Slots:
    """Return the slots of an engine whose cache holds so many attempts."""
    lengths = SeenLengths()
    for _ in range(MIN_LENGTHS):
        lengths.add(0, 200)
    return Slots(max_num_seqs, 0.1, cache=100 * target, lengths=lengths)


@given(num_jobs=st.integers(1, 4), seqs=st.integers(1, 40), cache=st.none() | st.integers(1, 40), steps=STEPS)
def test_jobs_hold_no_more_than_one_alone_and_a_job_waits_for_those_before_it(
    num_jobs: int, seqs: int, cache: int | None, steps: Sequence[tuple[str, int]]
) -> None:
    slots = Slots(seqs, 0.1) if cache is None else _capped(seqs, cache)
    seats = [slots.join(order) for order in range(num_jobs)]
    now, made = 0.0, 0
    for name, number in steps:
        if not seats:
            break
        slots.account(now, made)
        seat = seats[number % len(seats)]
        if name == "ask" and not seat.is_asking:
            asked = slots.ask(seat)
            assert asked == seat.asked
            if asked and seat is not seats[0]:
                assert all(one.lets_others for one in seats[: seats.index(seat)])
                assert _held(slots, *seats) <= slots.num_slots, "the backlog is the first one's"
        elif name == "answer" and seat.is_asking:
            given_now = number % (seat.asked + 1)
            slots.answered(seat, given_now, lets_others=given_now < seat.asked)
        elif name == "end" and seat.in_flight:
            slots.ended(seat)
        elif name == "leave" and number % 5 == 0:
            seats.remove(seat)
            slots.leave(seat)
        now, made = now + number % 7, made + number % 11
        assert _held(slots, *seats) <= slots.target
        if seats and not _held(slots, seats[0]):
            assert slots.room(seats[0]) >= min(slots.target - slots.num_slots, slots.target - _held(slots, *seats))


@given(seqs=st.integers(1, 100), in_flight=st.integers(0, 200))
def test_a_job_alone_has_the_whole_engine(seqs: int, in_flight: int) -> None:
    slots = Slots(seqs, 0.1)
    seat = slots.join(0)
    seat.in_flight = in_flight
    assert slots.room(seat) == max(0, slots.target - in_flight)
    assert slots.target == seqs + max(MIN_BACKLOG, -(-seqs // 10))
    assert slots.is_short(seat) == (in_flight < seqs)


def test_what_the_first_gets_later_waits_for_the_next_slot_and_for_nothing_else() -> None:
    slots = Slots(8, 0.1)
    first, second = slots.join(0), slots.join(1)
    assert slots.room(second) == 0, "nobody knows yet that the first has nothing"
    slots.ask(first)
    slots.answered(first, 0, lets_others=True)
    assert slots.ask(second) == 8
    slots.answered(second, 8, lets_others=False)
    assert slots.room(second) == 0
    assert slots.ask(first) == MIN_BACKLOG  # goes into the engine's own queue, and nothing of the second before it
    slots.answered(first, 3, lets_others=False)
    slots.ended(second)
    slots.ended(second)
    assert slots.room(second) == 0
    assert slots.room(first) > 0


def test_a_word_about_no_room_lets_nobody_in() -> None:
    slots = _capped(8, 8)
    first, second = slots.join(0), slots.join(1)
    assert slots.ask(first) == 8
    slots.answered(first, 8, lets_others=False)
    assert slots.ask(first) == 0
    slots.answered(first, 0, lets_others=False)
    slots.ended(first)
    assert slots.room(second) == 0


@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=3), seqs=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_all_is_made_by_wakes_alone_and_time_and_tokens_are_divided_without_a_rest(
    lengths: Sequence[int], seqs: int, seed: int
) -> None:
    """Jobs with so many attempts each, which end in any order; nobody asks but those that are woken."""
    chance = random.Random(seed)
    slots, woken = Slots(seqs, 0.0), list(range(len(lengths)))
    queues = list(lengths)
    seats = [slots.join(order, lambda order=order: woken.append(order)) for order in range(len(lengths))]
    now, made, began = 0.0, 0, [0] * len(lengths)
    slots.account(now, made)
    while any(queues) or any(seat.in_flight for seat in seats):
        slots.account(now, made)
        if woken and chance.random() < 0.7:
            order = woken.pop(chance.randrange(len(woken)))
            asked = slots.ask(seats[order])
            got = min(asked, queues[order])
            if got:
                assert not any(queues[:order]), "a job behind was given something first"
            queues[order] -= got
            began[order] += got
            slots.answered(seats[order], got, lets_others=got < asked)
        elif running := [seat for seat in seats if seat.in_flight]:
            slots.ended(chance.choice(running))
        else:
            assert woken, "free slots, attempts left, and nobody is told"
        now, made = now + chance.random(), made + chance.randrange(9)
    slots.account(now, made)
    assert began == list(lengths)
    assert sum(sum(seat.occupancy) for seat in seats) == pytest.approx(now)
    assert sum(seat.num_tokens for seat in seats) == pytest.approx(made)


def test_an_engine_that_works_for_the_second_job_is_not_starved() -> None:
    slots = Slots(4, 0.0)
    first, second = slots.join(0), slots.join(1)
    for seat, num_leases in ((first, 1), (second, 3)):
        slots.ask(seat)
        slots.answered(seat, num_leases, lets_others=True)
    slots.account(0.0, 0)
    slots.account(8.0, 400)
    assert first.occupancy == (2.0, 0.0, 0.0)
    assert second.occupancy == (6.0, 0.0, 0.0)
    assert (first.num_tokens, second.num_tokens) == (100, 300)
    slots.ended(second)
    slots.ask(second)
    slots.answered(second, 0, lets_others=True)
    slots.account(8.0, 400)
    slots.account(11.0, 400)
    assert (first.occupancy.starved, second.occupancy.starved) == (pytest.approx(1), pytest.approx(2))


@dataclass(slots=True)
class Trickle:
    """Attempts that come now and then, as those of adaptive sampling do."""

    chance: random.Random
    keys: list[Key]

    @property
    def num_left(self) -> int:
        return len(self.keys)

    def take(self) -> Key | None:
        return self.keys.pop() if self.keys and self.chance.random() < 0.6 else None


@dataclass(slots=True)
class Engine:
    """An engine as its feeders have it: two jobs, and what each has in flight."""

    name: str
    slots: Slots = field(default_factory=lambda: Slots(3, 0.0))
    seats: list[Seat] = field(init=False)
    in_flight: list[list[Key]] = field(default_factory=lambda: [[], []])

    def __post_init__(self) -> None:
        self.seats = [self.slots.join(order) for order in range(2)]

    def pull(self, job: int, dispatch: Dispatch) -> None:
        """Do what feeder and coordinator do at a pull."""
        seat = self.seats[job]
        asked = self.slots.ask(seat)
        keys = dispatch.lease(self.name, asked, has_others=self.slots.num_others(seat) > 0)
        self.slots.answered(seat, len(keys), lets_others=len(keys) < asked and not dispatch.has_suspects)
        self.in_flight[job] += keys


@given(
    killers=st.tuples(st.sets(st.integers(0, 11), min_size=1, max_size=4), st.sets(st.integers(0, 11), max_size=4)),
    num_engines=st.integers(1, 2),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=200)
def test_a_prompt_that_kills_engines_is_blamed_and_no_attempt_of_any_job_beside_it(
    killers: tuple[set[int], set[int]], num_engines: int, seed: int
) -> None:
    """Whatever has such a prompt in flight may die at any moment, whosever attempts are beside it."""
    chance = random.Random(seed)
    jobs = [Dispatch(Trickle(chance, [Key(number, 0) for number in range(12)]), max_deaths=3) for _ in range(2)]
    names = map("engine-{}".format, itertools.count())
    engines = [Engine(next(names)) for _ in range(num_engines)]
    blamed: list[set[int]] = [set(), set()]
    for _ in range(6_000):
        if all(job.is_done for job in jobs):
            break
        place = chance.randrange(num_engines)
        engine = engines[place]
        deadly = [any(key.problem in killers[job] for key in engine.in_flight[job]) for job in range(2)]
        job = chance.randrange(2)
        good = [key for key in engine.in_flight[job] if key.problem not in killers[job]]
        if any(deadly) and chance.random() < 0.4:
            leased = [dispatch.has_leases(engine.name) for dispatch in jobs]
            for one, dispatch in enumerate(jobs):
                failures = dispatch.engine_died(engine.name, has_others=leased[1 - one])
                blamed[one] |= {failure.key.problem for failure in failures}
            engines[place] = Engine(next(names))
        elif good and chance.random() < 0.5:
            engine.in_flight[job].remove(good[0])
            engine.slots.ended(engine.seats[job])
            jobs[job].finish(engine.name, [good[0]])
        else:
            engine.pull(job, jobs[job])
    assert all(dispatch.is_done for dispatch in jobs), "some attempt never gets its turn"
    assert blamed == list(killers)


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 5), st.booleans()), max_size=40))
def test_the_time_of_engines_is_divided_among_runs_without_a_rest(steps: Sequence[tuple[int, float, bool]]) -> None:
    """Whatever was fed, whoever was first by then."""
    clock = [0.0]
    times = EngineTime(clock=lambda: clock[0])
    runs = [Meters(f"run-{number}", Path(), 1, 0, {}) for number in range(3)]
    fed, first = [0.0, 0.0, 0.0], 0
    times.spawned(0)
    for run, seconds, is_next in steps:
        clock[0] += seconds
        if first == 0 and clock[0] > 3:
            times.loaded(0, 2.0) if not any(one.loading_s[0] for one in runs) else None
        fed[run] += seconds / 2
        first = min(2, first + is_next)
        times.settle(run, {0: fed[run]}, runs[first])
    times.ended(0)
    times.settle(0, {0: fed[0]}, runs[first])
    whole = sum(fed) + sum(run.loading_s[0] + run.dead_s[0] for run in runs)
    assert whole == pytest.approx(clock[0])


def test_a_suspect_of_the_first_is_tried_alone_though_the_next_job_has_plenty_to_do() -> None:
    first, second = Dispatch([Key(0, 0)], max_deaths=3), Dispatch([Key(n, 0) for n in range(99)], max_deaths=3)
    for name in ("dead-1", "dead-2"):
        first.lease(name, 1)
        first.engine_died(name)
    engine = Engine("engine")
    engine.pull(0, first)
    engine.slots.ended(engine.seats[0])  # the suspect is let go, and its engine dies for the third time elsewhere
    first.engine_died("engine", has_others=True)
    engine = Engine("next")
    engine.pull(1, second)
    assert not engine.in_flight[1], "the first has not spoken yet"
    engine.slots.answered(engine.seats[0], 0, lets_others=True)
    engine.pull(1, second)
    assert len(engine.in_flight[1]) == 3
    engine.pull(0, first)
    assert not engine.in_flight[0], "it would not be alone"
    engine.slots.ended(engine.seats[1])
    engine.pull(1, second)
    assert len(engine.in_flight[1]) == 3, "nobody comes in any more"
    engine.slots.ended(engine.seats[1])
    engine.slots.ended(engine.seats[1])
    engine.pull(0, first)
    assert engine.in_flight[0] == [Key(0, 0)]
    engine.pull(1, second)
    assert len(engine.in_flight[1]) == 3
