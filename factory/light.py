"""Light columns: from Arrow batches of candidates to groups that a selection can decide on, one problem at a time.

Between the tables and `selection`. Invariant: holds one batch and one group, whatever the size. Reads no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from factory.rules import Candidate
from schemas.errors import CorruptRunError

LIGHT_COLUMNS: Final = tuple(name for name in Candidate._fields if name != "like")  # of the table ``candidates``


def groups_of(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Candidate]]:
    """Yield the candidates of each problem; the batches have ``LIGHT_COLUMNS`` and are sorted by problem_id.

    Rows without an outcome are not judged yet and left out; a problem that has no others is no group.

    Raises:
        CorruptRunError: If the rows are not sorted by problem_id: a problem would be decided on in two parts.
    """
    last = ""
    candidates = chain.from_iterable(map(_candidates, batches))
    for problem_id, group in groupby(candidates, key=attrgetter("problem_id")):
        if problem_id <= last:
            raise CorruptRunError(
                f"candidates of problem {problem_id} come after those of {last}: build the table again"
            )
        last = problem_id
        yield list(group)


def _candidates(batch: pa.RecordBatch) -> Iterator[Candidate]:
    judged = batch.filter(batch["outcome"].is_valid()) if batch["outcome"].null_count else batch
    columns = [_values(judged[name]) for name in LIGHT_COLUMNS]
    return map(Candidate._make, zip(*columns, repeat(None), strict=False))


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column; by way of NumPy, which is several times as fast as `to_pylist`."""
    return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
