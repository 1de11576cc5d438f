from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.journal import Position
from factory.waiting import Unjudged, Waiting

ITEMS = st.builds(
    Unjudged,
    st.integers(0, 2**63 - 1),
    st.builds(
        Position,
        st.sampled_from(["engine-0-1.seg", "engine-1-1.seg", "traces/000001-ab.parquet"]),
        st.integers(0, 2**40),
    ),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ITEMS),
        st.tuples(st.just("extend"), st.lists(ITEMS, max_size=5)),
        st.tuples(st.just("pop"), st.none()),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_is_a_queue_that_gives_back_what_it_was_given(steps) -> None:
    waiting, model = Waiting(), deque()
    for step, what in steps:
        if step == "pop":
            if model:
                assert waiting.first == model[0]
                assert waiting.pop() == model.popleft()
        else:
            getattr(waiting, step)(what)
            getattr(model, step)(what)
        assert len(waiting) == len(model)
    assert [waiting.pop() for _ in range(len(waiting))] == list(model)


def test_an_empty_one_has_no_first() -> None:
    with pytest.raises(IndexError):
        Waiting().pop()
    assert not Waiting()
