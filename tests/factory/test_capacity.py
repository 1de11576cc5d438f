"""Capacity: an engine is kept full, and is not given more than its cache holds at the lengths that were seen."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from factory.capacity import MIN_BACKLOG, MIN_LENGTHS, SeenLengths, in_flight, kv_tokens


def test_what_the_cache_may_hold_leaves_the_watermark_free() -> None:
    assert kv_tokens({"num_gpu_blocks": 1_000, "block_size": 16, "watermark": 0.02}) == 15_680
    assert kv_tokens({"num_gpu_blocks": 1_000, "block_size": 16, "watermark": None}) == 16_000
    assert kv_tokens({"max_num_seqs": 8}) is None


@given(seqs=st.integers(1, 2_000), share=st.floats(0, 1), cache=st.integers(1, 10**7), held=st.floats(1, 1e5))
def test_in_flight_is_the_limit_and_a_backlog_unless_the_cache_is_smaller(
    seqs: int, share: float, cache: int, held: float
) -> None:
    free = in_flight(seqs, share, None, held)
    assert free == in_flight(seqs, share, cache, None)
    assert seqs + MIN_BACKLOG <= free <= seqs + max(MIN_BACKLOG, share * seqs + 1)
    found = in_flight(seqs, share, cache, held)
    assert 1 <= found <= free
    assert found == 1 or found * held <= cache * (1 + 1e-9)
    assert found == free or (found + 1) * held > cache * (1 - 1e-9)


def test_what_attempts_hold_is_what_a_clock_sees() -> None:
    """Attempts of a few lengths follow each other in one slot; what the slot holds is looked at in every step."""
    chance = random.Random(1)
    lengths, seen, steps = SeenLengths(), 0.0, 0
    for number in range(400):
        assert (lengths.mean_held is None) == (number < MIN_LENGTHS)
        prompt, completion = chance.randint(1, 50), chance.choice([10, 100, 1_000])
        lengths.add(prompt, completion)
        seen += sum(prompt + step + 0.5 for step in range(completion))
        steps += completion
    assert lengths.mean_held is not None
    assert math.isclose(lengths.mean_held, seen / steps)
