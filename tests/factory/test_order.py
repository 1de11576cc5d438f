"""The order of a run with a fixed number of attempts: each once, whatever ends when, and short ones fill its end.

That dispatch keeps its promises with this order, too, is tested with it (`test_dispatch.py`).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.dispatch import InOrder, Key
from factory.order import MAX_TAIL, LongFirst
from factory.state import PendingKeys
from jobs.bench.adaptive import alike_lengths, orders, ticks_of

NUM_SAMPLES = 4


def _all(supply: LongFirst) -> list[Key]:
    """Return what is left of a supply, if nothing ends meanwhile."""
    return [key for _ in range(supply.num_left) if (key := supply.take()) is not None]


@given(
    numbers=st.sets(st.integers(0, 20 * NUM_SAMPLES - 1)),
    max_tail=st.integers(0, 25),
    slots=st.integers(1, 20),
    fates=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 99)), max_size=20 * NUM_SAMPLES),
)
def test_every_attempt_comes_once_and_those_before_the_tail_in_order(
    numbers: set[int], max_tail: int, slots: int, fates: list[tuple[int, bool, int]]
) -> None:
    """Whatever a former start left, and however attempts end: with a length, without, or never."""
    keys = list(PendingKeys(np.array(sorted(numbers), np.int64), NUM_SAMPLES))
    supply = LongFirst(keys, max_tail)
    held: list[Key] = []
    given_out: list[Key] = []
    for which, has_trace, num_tokens in fates:
        while len(held) < slots and (key := supply.take()) is not None:
            held.append(key)
            given_out.append(key)
        assert supply.num_left == len(keys) - len(given_out)
        if held:
            key = held.pop(which % len(held))
            if has_trace:
                supply.made(key, num_tokens)
            else:
                supply.ended(key)
    given_out += _all(supply)
    assert (supply.num_left, supply.take()) == (0, None)
    assert sorted(given_out) == keys
    in_tail = sorted({key.problem for key in keys})[-max_tail:] if max_tail else []
    before = [key for key in keys if key.problem not in in_tail]
    assert given_out[: len(before)] == before


def _taken(supply: LongFirst, num: int) -> list[Key]:
    return [key for _ in range(num) if (key := supply.take()) is not None]


def test_of_the_last_problems_the_first_attempts_come_first_and_then_the_longest() -> None:
    keys = [Key(problem, index) for problem in range(9) for index in range(2, 5)]
    supply = LongFirst(keys, max_tail=6)
    assert _taken(supply, 9) == keys[:9], "before the tail all of a problem come together"
    assert _taken(supply, 6) == [Key(problem, 2) for problem in range(3, 9)]
    for problem, num_tokens in ((3, 50), (4, 400), (5, 300), (8, 40)):
        supply.made(Key(problem, 2), num_tokens)
    supply.made(Key(0, 2), 1_000)  # the run's mean is 358
    supply.ended(Key(6, 2))  # so nothing is known of its length
    in_flight = 7
    expected = [in_flight, 4, 6, 5, 3, 8]
    assert _all(supply) == [Key(problem, index) for problem in expected for index in (3, 4)]


def test_what_ends_later_is_heeded() -> None:
    supply = LongFirst([Key(problem, index) for problem in range(3) for index in range(2)])
    _taken(supply, 3)
    supply.made(Key(0, 0), 10)
    assert supply.take() == Key(1, 1), "it has been in flight for longest"
    supply.made(Key(2, 0), 5)
    assert _all(supply) == [Key(0, 1), Key(2, 1)]


def test_a_problem_of_which_the_journal_knows_the_length_needs_no_first_attempt() -> None:
    """As after the death of a coordinator: attempts at it were made that the sequence has no more."""
    supply = LongFirst([Key(problem, index) for problem in range(3) for index in range(1, 3)])
    supply.made(Key(1, 0), 7)
    assert _taken(supply, 2) == [Key(0, 1), Key(2, 1)]
    for problem, num_tokens in ((0, 9), (2, 5)):
        supply.made(Key(problem, 1), num_tokens)
    assert _all(supply) == [Key(0, 2), Key(1, 1), Key(1, 2), Key(2, 2)]


class _Counted(PendingKeys):
    """Pending attempts that count how many of them were made into keys."""

    num_read = 0

    def __getitem__(self, place: int) -> Key:  # type: ignore[override]
        type(self).num_read += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("num_samples", [1, 8, 64])
def test_of_ten_million_attempts_only_the_tail_is_looked_at(num_samples: int) -> None:
    keys = _Counted(np.arange(10_000_000), num_samples)
    _Counted.num_read = 0
    supply = LongFirst(keys)
    assert len(_taken(supply, 1_000)) == 1_000
    assert _Counted.num_read < 1_000 + MAX_TAIL * (2 + num_samples.bit_length())


@pytest.mark.parametrize("problems_per_slot", [2, 8])
def test_slots_are_done_sooner_than_in_order_where_lengths_differ_by_problem(problems_per_slot: int) -> None:
    sooner = []
    for seed in range(20):
        tokens = alike_lengths(32 * problems_per_slot, NUM_SAMPLES, seed)
        in_order, long_first = (ticks_of(order, tokens, 32) for order in (InOrder, LongFirst))
        least = max(tokens.sum() / 32, tokens.max())  # no order is done before
        assert long_first >= least
        sooner.append((in_order - long_first) / (in_order - least))
    assert np.mean(sooner) > 0.3, "of the time that the slots of the end stand empty"


def test_the_benchmark_says_how_busy_slots_are_in_either_order() -> None:
    rows = orders(alike_lengths(200, 4, seed=0))
    assert [row["attempts"] for row in rows] == [2, 4]
    for row in rows:
        assert 0.5 < row["busy, in the run's order"] < row["busy, longest first"] <= 1


def test_where_each_first_attempt_ends_before_the_next_the_others_come_longest_first() -> None:
    tokens = np.random.default_rng(1).integers(1, 1_000, 50)
    supply = LongFirst([Key(problem, index) for problem in range(50) for index in range(3)])
    for problem in range(50):
        assert supply.take() == Key(problem, 0)
        supply.made(Key(problem, 0), int(tokens[problem]))
    expected = sorted(range(50), key=lambda problem: -tokens[problem])
    assert [key.problem for key in _all(supply)] == [problem for problem in expected for _ in range(2)]
