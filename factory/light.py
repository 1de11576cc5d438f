"""Light columns: from Arrow rows of candidates to what a selection decides on, without their texts.

Between the tables and `selection`. ``groups_of`` holds one batch and one group, whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from factory.rules import Candidate
from schemas.errors import CorruptRunError

LIGHT_COLUMNS: Final = tuple(name for name in Candidate._fields if name != "like")  # of the table ``candidates``


def candidates_of(found: pa.Table | pa.RecordBatch, like: Mapping[str, str] | None = None) -> Iterator[Candidate]:
    """Yield the rows of a table with ``LIGHT_COLUMNS`` as candidates, those without a verdict too.

    ``like`` says which traces are nearly the same as which others.
    """
    columns = [_values(found[name]) for name in LIGHT_COLUMNS]
    likes = map(like.get, columns[0]) if like else repeat(None)
    return map(Candidate._make, zip(*columns, likes, strict=False))


def groups_of(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Candidate]]:
    """Yield the candidates of each problem that have a verdict; the batches are sorted by problem_id.

    Raises:
        CorruptRunError: If they are not: a problem would be decided on in two parts.
    """
    last = ""
    candidates = chain.from_iterable(map(candidates_of, batches))
    for problem_id, group in groupby(candidates, key=attrgetter("problem_id")):
        if problem_id <= last:
            raise CorruptRunError(
                f"candidates of problem {problem_id} come after those of {last}; build the table again"
            )
        last = problem_id
        judged = [candidate for candidate in group if candidate.outcome is not None]
        if judged:
            yield judged


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of a column; by way of NumPy, which is several times as fast as `to_pylist`."""
    array = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return array.tolist()  # type: ignore[no-any-return]
