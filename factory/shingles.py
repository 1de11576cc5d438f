"""Texts as sets of hashed five-word shingles, and their MinHash signatures: what `duplicates` compares.

All of a batch at once, on the bytes of an Arrow array: there is no object per word. Invariants: any text, of any bytes,
gets an answer; hashes are the same in every process and on every platform. Words are runs of letters and digits in
lower case (bytes beyond ASCII are letters, as they are); a mathematical operator is a word of its own; everything else
stands between words.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rensa import RMinHash

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

SHINGLE: Final = 5  # words
NUM_PERM: Final = 126
# Signature values per band: with 18 bands pairs of Jaccard 0.85, 0.8, 0.5 are candidates with 0.999, 0.985, 0.13.
ROWS: Final = 7
BANDS: Final = NUM_PERM // ROWS
SEED: Final = 1
# Of text hashed at once, so that all of it stays near the core; more if one text has more.
MAX_BATCH_BYTES: Final = 1 << 17

_POWERS: Final = np.full(1 << 16, 0x9E3779B97F4A7C15, np.uint64).cumprod(dtype=np.uint64)
_MASKS: Final = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # of the first bytes of eight
_WORD_BASE: Final = np.uint64(0xD6E8FEB86659FD93)
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # splitmix64's
_OPERATORS: Final = b"+-*/=<>^!"


def _table(kind: str) -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        is_letter = chr(byte).isalnum() if byte < 128 else True
        if kind == "lower":
            table[byte] = ord(chr(byte).lower()) if byte < 128 and is_letter else byte
        elif kind == "kind":  # 0 between words, 1 part of a word, 2 a word by itself
            table[byte] = 1 if is_letter else 2 if byte in _OPERATORS else 0
        else:
            table[byte] = byte in b"0123456789" or byte in _OPERATORS
    return table


_LOWER: Final = _table("lower")
_KIND: Final = _table("kind")
_IS_FIXED: Final = _table("fixed")


class Words(NamedTuple):
    """The words of a batch: hashes in order, where each text's begin (one more than texts), and which must not change
    for a problem to stay the same problem: numbers and operators."""

    hashes: Hashes
    offsets: Places
    is_fixed: npt.NDArray[np.bool_]


class Signatures(NamedTuple):
    """What is kept of each text of a batch: the bands of its MinHash; all its words; its numbers and operators.

    Texts without words have 0 in all of it.
    """

    bands: Hashes  # (texts, BANDS)
    words: Hashes
    fixed: Hashes


def mixed(values: Hashes) -> Hashes:
    """Return hashes whose every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def batch_words(texts: pa.LargeStringArray) -> Words:
    """Return the words of texts; null is a text without words."""
    offsets, data = _bytes(texts)
    if not len(data):
        return Words(np.empty(0, np.uint64), np.zeros(len(texts) + 1, np.int64), np.empty(0, bool))
    kind = _KIND[data]
    in_word = kind > 0
    begins = in_word & (kind == 2)
    begins[0] |= in_word[0]
    begins[1:] |= in_word[1:] & (kind[1:] != kind[:-1])
    inner = offsets[(offsets > 0) & (offsets < len(data))]
    begins[inner] |= in_word[inner]  # the first word of a text does not go on from the last of the one before
    starts = np.flatnonzero(begins)
    leaves = np.append(begins[1:] | ~in_word[1:], True) & in_word
    stops = np.flatnonzero(leaves) + 1
    is_fixed = np.zeros(len(starts), bool)
    is_fixed[np.searchsorted(starts, np.flatnonzero(_IS_FIXED[data]), side="right") - 1] = True
    return Words(_word_hashes(_LOWER[data], starts, stops - starts), np.searchsorted(starts, offsets), is_fixed)


def _word_hashes(data: npt.NDArray[np.uint8], starts: Places, sizes: Places) -> Hashes:
    """Return a hash of each run of bytes, read eight at a time."""
    padded = np.concatenate((data, np.zeros(8, np.uint8)))
    eights = np.ndarray((len(data) + 1,), np.dtype("<u8"), padded, strides=(1,))
    total = (eights[starts] & _MASKS[np.minimum(sizes, 8)]).astype(np.uint64)
    longer, done = np.flatnonzero(sizes > 8), 8
    while len(longer):
        left = np.minimum(sizes[longer] - done, 8)
        total[longer] = mixed(total[longer]) + (eights[starts[longer] + done] & _MASKS[left])
        done += 8
        longer = longer[sizes[longer] > done]
    return mixed(total + sizes.astype(np.uint64) * _WORD_BASE)


def _bytes(texts: pa.LargeStringArray) -> tuple[Places, npt.NDArray[np.uint8]]:
    """Return the texts' bytes and where each begins, without a copy where there is no null."""
    if texts.null_count:
        texts = texts.fill_null("")
    if not len(texts):
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is None:
        return places - places[0], np.empty(0, np.uint8)
    return places - places[0], np.frombuffer(data, np.uint8)[places[0] : places[-1]]


def shingles(words: Words) -> tuple[Hashes, Places]:
    """Return the shingles of each text, in order, perhaps some twice, and where each text's begin.

    A text of fewer than five words has one shingle, of all of them; one without words has none.
    """
    count = len(words.hashes)
    padded = np.concatenate((words.hashes, np.zeros(SHINGLE, np.uint64)))
    total = padded[:count].copy()
    for step in range(1, SHINGLE):
        total *= _WORD_BASE
        total += padded[step : step + count]
    is_kept = np.ones(count, bool)
    sizes = np.diff(words.offsets)
    for back in range(1, SHINGLE):  # the last words of a text begin no whole shingle
        is_kept[(words.offsets[1:] - back)[sizes >= back]] = False
    for size in range(1, SHINGLE):
        short = words.offsets[:-1][sizes == size]
        is_kept[short] = True
        total[short] = sum(
            (padded[short + step] * _WORD_BASE ** np.uint64(SHINGLE - step) for step in range(size)),
            start=np.zeros(len(short), np.uint64),
        )
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(is_kept)))[words.offsets]
    return mixed(total[is_kept]), offsets


def sign(texts: pa.LargeStringArray) -> Signatures:
    """Return the signatures of texts."""
    parts = [_sign_part(part) for part in _parts(texts)]
    if not parts:
        return Signatures(np.zeros((0, BANDS), np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return Signatures(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _parts(texts: pa.LargeStringArray) -> list[pa.LargeStringArray]:
    """Return slices of at most ``MAX_BATCH_BYTES``, of one text at least."""
    if not len(texts):
        return []
    offsets, _ = _bytes(texts)
    cuts = [0]
    while cuts[-1] < len(texts):
        stop = int(np.searchsorted(offsets, offsets[cuts[-1]] + MAX_BATCH_BYTES, side="right")) - 1
        cuts.append(min(len(texts), max(stop, cuts[-1] + 1)))
    return [texts.slice(start, stop - start) for start, stop in pairwise(cuts)]


def minhash(texts: pa.LargeStringArray) -> npt.NDArray[np.uint32]:
    """Return the MinHash of each text: the share of equal values of two estimates their Jaccard, within 0.04 or so."""
    parts = [_minhash_part(batch_words(part)) for part in _parts(texts)]
    return np.concatenate(parts) if parts else np.zeros((0, NUM_PERM), np.uint32)


def _minhash_part(words: Words) -> npt.NDArray[np.uint32]:
    hashes, offsets = shingles(words)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), NUM_PERM, SEED)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(offsets) - 1, NUM_PERM)


def _sign_part(texts: pa.LargeStringArray) -> Signatures:
    words = batch_words(texts)
    values = _minhash_part(words).astype(np.uint64).reshape(len(texts), BANDS, ROWS)
    bands = np.zeros((len(texts), BANDS), np.uint64)
    for row in range(ROWS):
        bands = bands * _WORD_BASE + values[:, :, row]
    bands = mixed(bands + np.arange(BANDS, dtype=np.uint64))
    has_words = np.diff(words.offsets) > 0
    bands[~has_words] = 0
    every = np.ones(len(words.hashes), bool)
    return Signatures(bands, _sequence(words, every), _sequence(words, words.is_fixed))


def _sequence(words: Words, is_taken: npt.NDArray[np.bool_]) -> Hashes:
    """Return one hash per text of the words that are taken, in their order; 0 where there is none."""
    counts = np.concatenate((np.zeros(1, np.int64), np.cumsum(is_taken)))
    ranks = counts[:-1][is_taken] - np.repeat(counts[words.offsets[:-1]], np.diff(counts[words.offsets]))
    terms = words.hashes[is_taken] * _POWERS[ranks % len(_POWERS)]
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms)))
    taken = counts[words.offsets]
    totals = sums[taken[1:]] - sums[taken[:-1]] + np.diff(taken).astype(np.uint64)
    return np.where(np.diff(taken) > 0, mixed(totals) | np.uint64(1), np.uint64(0))
