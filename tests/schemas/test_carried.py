"""Records come through pickle as they were, whatever protocol carries them."""

from __future__ import annotations

import copy
import pickle

import pytest

from factory.dispatch import Key
from factory.feeder import Finished, Lease, Orders, Report
from factory.journal import Position
from schemas.problem import Prompt
from schemas.verdict import Check, JudgedTrace, Outcome, Verdict

PROMPT = Prompt(problem_id="p", text="2 + 3?", sha256="00", token_ids=(1, 2, 3))
LEASE = Lease(key=Key(1, 2), prompt=PROMPT, seed=None, saved=(Position("a.seg", 4),), max_tokens=9)
FINISHED = Finished(key=Key(1, 2), position=Position("a.seg", 4), num_tokens=7)
CHECK = Check(name="math", version="1", outcome=Outcome.CORRECT)
JUDGED = JudgedTrace(trace_id="t", problem_id="p", verdict=Verdict(reference_hash=None, checks=(CHECK,)))


@pytest.mark.parametrize(
    "record",
    [
        LEASE,
        FINISHED,
        Report(engine_id="e", capacity=3, in_flight=1, num_tokens_out=8, finished=(FINISHED,)),
        Orders(leases=(LEASE,), abort=(Key(1, 2),)),
        JUDGED,
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_comes_back_equal_and_frozen(record: object) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(record, protocol))
        assert back == record
        assert hash(back) == hash(record)
        with pytest.raises(AttributeError):
            setattr(back, next(iter(type(back).__slots__)), None)
    assert copy.deepcopy(record) == record
