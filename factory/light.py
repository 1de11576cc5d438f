"""Light columns: from Arrow rows of candidates to what a selection decides on.

Between the tables and `selection`. Texts are read only where a config asks for what follows from them, and what is kept
of one then has half a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from factory.duplicates import LikeTraces
from factory.rules import Candidate
from factory.shingles import minhash
from schemas.config import SelectConfig
from schemas.verdict import Outcome

# Of the table ``candidates``; the other two follow from texts.
LIGHT_COLUMNS: Final = tuple(name for name in Candidate._fields if name not in ("like", "signature"))


class Likeness(NamedTuple):
    """What was seen of correct traces' texts, by trace_id."""

    like: Mapping[str, str] = {}  # which is nearly the same as which shorter one of its problem
    signatures: Mapping[str, bytes] = {}


def compare_texts(found: pa.Table, config: SelectConfig) -> Likeness:
    """Return what a selection must know of texts, nothing where its config does not ask; problems must be whole.

    The table has ``problem_id``, ``trace_id`` and ``outcome``, and where the config asks (`reads_texts`) ``text``.
    """
    if not reads_texts(config):
        return Likeness()
    correct = found.filter(pc.equal(found["outcome"], Outcome.CORRECT.value))
    problem_ids, trace_ids, texts = (correct[name].to_pylist() for name in ("problem_id", "trace_id", "text"))
    like, signatures = {}, {}
    if config.near_duplicates is not None:
        traces = LikeTraces(config.near_duplicates)
        traces.add(problem_ids, trace_ids, texts)
        like = traces.found()
    if config.rule == "k_diverse":
        signed = minhash(pa.array(texts, pa.large_string()))
        signatures = {trace_id: row.tobytes() for trace_id, row in zip(trace_ids, signed, strict=True)}
    return Likeness(like, signatures)


def reads_texts(config: SelectConfig) -> bool:
    """Return whether a selection depends on texts, so that light columns alone are not enough."""
    return config.near_duplicates is not None or config.rule == "k_diverse"


def candidates_of(found: pa.Table | pa.RecordBatch, likeness: Likeness | None = None) -> Iterator[Candidate]:
    """Yield the rows of a table with ``LIGHT_COLUMNS`` as candidates, those without a verdict too."""
    columns = [_values(found[name]) for name in LIGHT_COLUMNS]
    likes, signatures = (map(seen.get, columns[0]) if seen else repeat(None) for seen in likeness or Likeness())
    return map(Candidate._make, zip(*columns, likes, signatures, strict=False))


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of a column; by way of NumPy, which is several times as fast as `to_pylist`."""
    array = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return array.tolist()  # type: ignore[no-any-return]
