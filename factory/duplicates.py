"""Duplicates: which texts of a large set are nearly the same as an earlier one.

Arrow in, Arrow out. Of each text 160 bytes are kept, whatever its length; the texts are read once to sign them and
again where a pair is to be compared. Signing is the only part that takes long, and each batch is signed by itself:
`actors.sign_over_ray` does it on all nodes. Invariants: a text is reported with a kept, earlier one that it is
truly as similar to (exact Jaccard of five-word shingles, not the estimate); what is kept does not depend on batches;
a hundred thousand equal texts cost no more than as many different ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory.shingles import BANDS, Hashes, Signatures, batch_words, minhash, mixed, shingles, sign

Places = npt.NDArray[np.int64]

THRESHOLD: Final = 0.8  # Jaccard of problems; note on readability, section 4.3
BATCH_ROWS: Final = 16_384  # texts signed at a time, 15 MB of problems
PAIRS_AT_ONCE: Final = 2_048  # compared at a time: their texts' shingles are in memory

DUPLICATES: Final = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # ascending; counts from 0
        pa.field("representative", pa.int64(), nullable=False),  # an earlier row that is kept
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)

Sign = Callable[[Iterator[pa.LargeStringArray]], Iterable[Signatures]]


def sign_here(batches: Iterator[pa.LargeStringArray]) -> Iterator[Signatures]:
    """Return the signatures of batches, made in this process."""
    return map(sign, batches)


def find_duplicates(
    texts: pa.ChunkedArray | Sequence[str | None],
    *,
    threshold: float = THRESHOLD,
    same_numbers: bool = False,
    keys: npt.NDArray[np.uint64] | None = None,
    sign_batches: Sign = sign_here,
) -> pa.Table:
    """Return the rows that are nearly the same as an earlier, kept one, as ``DUPLICATES``; the first of each is kept.

    With ``same_numbers`` only texts with the same numbers and operators, in the same order, count: a problem with
    another number in it is another problem. Only texts with the same of ``keys`` (one per text) are compared. Texts
    without words are duplicates of nothing.
    """
    column = _as_column(texts)
    signatures = _signed(column, sign_batches)
    keys = np.zeros(len(column), np.uint64) if keys is None else keys
    alike = mixed(keys + (signatures.fixed if same_numbers else np.uint64(0)))
    # Operators and numbers are words: the same words have the same of those.
    words = np.where(signatures.words > 0, mixed(signatures.words + keys), np.uint64(0))
    firsts, rows, equal_to = _equal(words)
    pairs = _candidates(signatures.bands, firsts, alike)
    found = dict(zip(rows.tolist(), ((first, 1.0) for first in equal_to.tolist()), strict=True))
    near = _near(column, pairs, threshold)
    for row, (first, _) in list(found.items()):  # what was equal to a near one is as near to that one's
        if first in near:
            found[row] = near[first]
    found |= near
    ordered = sorted(found)
    return pa.table(
        {
            "row": ordered,
            "representative": [found[row][0] for row in ordered],
            "similarity": [found[row][1] for row in ordered],
        },
        schema=DUPLICATES,
    )


class LikeTraces:
    """Finds traces that are nearly the same as a shorter one of their problem.

    Keeps half a kilobyte per trace, not its text: similarities are estimates, within 0.04 or so.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._traces: dict[str, list[tuple[int, str, npt.NDArray[np.uint32]]]] = {}  # by problem

    def add(self, problem_ids: Sequence[str], trace_ids: Sequence[str], texts: Sequence[str]) -> None:
        """Take traces in, of any problems."""
        signatures = minhash(pa.array(texts, pa.large_string()))
        for problem_id, trace_id, text, signature in zip(problem_ids, trace_ids, texts, signatures, strict=True):
            self._traces.setdefault(problem_id, []).append((len(text), trace_id, signature))

    def found(self) -> dict[str, str]:
        """Return the traces that are like a shorter, kept one of their problem, and which."""
        like: dict[str, str] = {}
        for traces in self._traces.values():
            kept: list[tuple[str, npt.NDArray[np.uint32]]] = []
            for _, trace_id, signature in sorted(traces, key=lambda trace: trace[:2]):
                shares = [float((signature == other).mean()) for _, other in kept]
                if shares and max(shares) >= self._threshold:
                    like[trace_id] = kept[shares.index(max(shares))][0]
                else:
                    kept.append((trace_id, signature))
        return like


def _as_column(texts: pa.ChunkedArray | Sequence[str | None]) -> pa.ChunkedArray:
    if not isinstance(texts, pa.ChunkedArray):
        texts = pa.chunked_array([pa.array(texts, pa.large_string())])
    return texts if texts.type == pa.large_string() else texts.cast(pa.large_string())


def _batches(column: pa.ChunkedArray) -> Iterator[pa.LargeStringArray]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), BATCH_ROWS):
            yield chunk.slice(start, BATCH_ROWS)


def _signed(column: pa.ChunkedArray, sign_batches: Sign) -> Signatures:
    bands = np.zeros((len(column), BANDS), np.uint64)
    words, fixed = np.zeros(len(column), np.uint64), np.zeros(len(column), np.uint64)
    start = 0
    for part in sign_batches(_batches(column)):
        stop = start + len(part.words)
        bands[start:stop], words[start:stop], fixed[start:stop] = part
        start = stop
    assert start == len(column), f"{start} of {len(column)} texts were signed"
    return Signatures(bands, words, fixed)


def _equal(words: Hashes) -> tuple[Places, Places, Places]:
    """Return the first row of each text, then the rows with the same words as one of those, and which."""
    has_words = np.flatnonzero(words)
    order = has_words[np.argsort(words[has_words], kind="stable")]
    values = words[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = values[1:] != values[:-1]
    owners = order[is_first][np.cumsum(is_first) - 1]
    return np.sort(order[is_first]), order[~is_first], owners[~is_first]


def _candidates(bands: Hashes, rows: Places, alike: Hashes) -> Places:
    """Return pairs (later, earlier) of alike rows that share a band, each once, sorted; of a bucket each row with the
    first and with the one before, so that a bucket of n gives fewer than 2n."""
    found = np.empty((0, 2), np.int64)
    for band in range(BANDS):
        keys = mixed(bands[rows, band] + alike[rows])
        order = np.argsort(keys, kind="stable")
        ordered, keys = rows[order], keys[order]
        is_first = np.ones(len(keys), bool)
        is_first[1:] = keys[1:] != keys[:-1]
        later = np.flatnonzero(~is_first)
        firsts = np.flatnonzero(is_first)[np.cumsum(is_first)[later] - 1]
        pairs = np.concatenate(
            (
                np.stack((ordered[later], ordered[firsts]), axis=1),
                np.stack((ordered[later], ordered[later - 1]), axis=1),
            )
        )
        found = _distinct(np.concatenate((found, pairs)))
    return found


def _distinct(pairs: Places) -> Places:
    if not len(pairs):
        return pairs
    width = int(pairs.max()) + 1
    assert width < 1 << 31, "more rows than fit in one set; split it"
    keys = np.unique(pairs[:, 0] * width + pairs[:, 1])
    return np.stack((keys // width, keys % width), axis=1)


def _near(column: pa.ChunkedArray, pairs: Places, threshold: float) -> dict[int, tuple[int, float]]:
    """Return the later rows of similar pairs with a kept row that they are similar to, and how much."""
    shared = similarities(column, pairs)
    similar = shared >= threshold
    edges: dict[int, list[tuple[float, int]]] = {}
    for (later, earlier), value in zip(pairs[similar].tolist(), shared[similar].tolist(), strict=True):
        edges.setdefault(later, []).append((value, earlier))
    found: dict[int, tuple[int, float]] = {}
    for later in sorted(edges):
        kept = [(value, earlier) for value, earlier in edges[later] if earlier not in found]
        if kept:
            value, earlier = max(kept, key=lambda edge: (edge[0], -edge[1]))
            found[later] = (earlier, value)
            continue
        # Similar only to rows that went: that says nothing about those that stayed for them.
        representatives = sorted({found[earlier][0] for _, earlier in edges[later]})
        others = np.array([[later, earlier] for earlier in representatives], np.int64)
        values = similarities(column, others)
        best = int(np.argmax(values))
        if values[best] >= threshold:
            found[later] = (representatives[best], float(values[best]))
    return found


def similarities(column: pa.ChunkedArray, pairs: Places) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarity of the texts of each pair of rows, as sets of shingles; exact."""
    values = np.zeros(len(pairs))
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        rows, places = np.unique(part, return_inverse=True)
        hashes, offsets = shingles(batch_words(_taken(column, rows)))
        owners = np.repeat(np.arange(len(rows), dtype=np.int64), np.diff(offsets))
        order = np.lexsort((hashes, owners))
        hashes, owners = hashes[order], owners[order]
        is_new = np.ones(len(hashes), bool)
        is_new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        sets = np.split(hashes[is_new], np.searchsorted(owners[is_new], np.arange(1, len(rows))))
        for place, (left, right) in enumerate(places.reshape(-1, 2).tolist()):
            values[start + place] = _jaccard(sets[left], sets[right])
    return values


def _jaccard(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> float:
    if not len(left) or not len(right):
        return 0.0
    places = np.minimum(np.searchsorted(left, right), len(left) - 1)
    shared = int(np.count_nonzero(left[places] == right))
    return shared / (len(left) + len(right) - shared)


def _taken(column: pa.ChunkedArray, rows: Places) -> pa.LargeStringArray:
    """Return the texts of rows, ascending, without a copy of what is between them."""
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    parts = []
    for number, (end, chunk) in enumerate(zip(ends, column.chunks, strict=True)):
        start = end - len(chunk)
        inside = rows[(rows >= start) & (rows < end)] if number or len(ends) > 1 else rows
        if len(inside):
            parts.append(chunk.take(pa.array(inside - start)))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())
