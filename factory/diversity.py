"""Diversity: which traces of a problem differ most from one another, for the rule `k_diverse`.

Pure, on plain values. A distance of two traces, in [0, 2], is the sum of two in [0, 1]: how little their texts have in
common (1 - Jaccard of five-word shingles, estimated from MinHash signatures) and by which share their lengths differ
(1 - shorter / longer). Both are metrics, and so is their sum. Why both: factory/SELECTION.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.uint32]


def spread(lengths: Sequence[int], signatures: Sequence[bytes | None], most: int) -> list[int]:
    """Return the places of at most so many traces: the middle one, then each time the one farthest from all taken.

    ``lengths`` ascend. Where a trace has no signature, lengths alone count. Of equal distances the first is taken. The
    smallest distance of two that are taken is at least half of the widest possible (Ravi, Rosenkrantz and Tayi 1994).
    """
    known = [signature for signature in signatures if signature is not None]
    texts = None
    if known and len(known) == len(signatures):
        texts = np.frombuffer(b"".join(known), np.uint32).reshape(len(known), -1)
    taken: list[int] = []
    nearest = [float("inf")] * len(lengths)  # distance to the nearest taken; below 0: taken itself
    place = (len(lengths) - 1) // 2
    while len(taken) < min(most, len(lengths)):
        taken.append(place)
        nearest = list(map(min, nearest, _distances(lengths, texts, place)))
        nearest[place] = -1
        place = nearest.index(max(nearest))
    return taken


def _distances(lengths: Sequence[int], texts: Signatures | None, place: int) -> list[float]:
    """Return how far all traces are from one of them."""
    length = max(1, lengths[place])
    far = [1 - (other / length if other < length else length / other) for other in map(_at_least_one, lengths)]
    if texts is None:
        return far
    shares = (texts == texts[place]).mean(axis=1).tolist()
    return [one + 1 - share for one, share in zip(far, shares, strict=True)]


def _at_least_one(length: int) -> int:
    return length or 1
