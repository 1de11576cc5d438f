"""Decontamination: is a text, or does it quote, an item of a benchmark?

Runs on problems before a token is spent on them, again on what is imported, and on traces. From `fingerprints`, by the
rules of `factory/CLEAN.md`; each match says which item, by which rule, and how much of it was found. Pure: no file is
read here. Invariants: any text gets an answer; a protected text itself is always found, by every rule set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory.canonical import NUMBER_BIT, Canonical, Hashes, canonical, is_number, with_figures
from factory.fingerprints import (
    GRAM,
    NEAR,
    SHORT,
    Benchmark,
    Fingerprint,
    counted_hashes,
    gram_hashes,
    mixed,
    sequence_hash,
)

RULES_VERSION: Final = 1  # raised when the same text and fingerprints would give another answer

Numbers = npt.NDArray[np.int64]
_NOTHING: Final = np.empty(0, np.int64)

MIN_CONTAINMENT: Final = 0.5  # of an item's grams
MIN_BESIDE_RUN: Final = 0.2  # of them, beside 13 words in a row and the numbers
RUN_GRAMS: Final = 13 - GRAM + 1
MIN_NEAR: Final = 0.4  # of an item's groups of three words, beside the very same numbers; measured, CLEAN.md
MIN_NEAR_LOOSE: Final = 0.5  # of them, beside nearly the same numbers: MIN_NUMBERS of them, and one more
MIN_NEAR_WORDLESS: Final = 0.6  # of them, where the item has no number to agree on
MIN_NUMBERS: Final = 0.8  # of an item's numbers; that one of five is written in an unknown way is borne
MIN_ONE_OFF: Final = 6  # words of a short item that may be found with one more or less (no number): Jaccard 0.86
SENTENCES_AROUND: Final = 3  # before and behind a short item, that are looked away from
MOST_LONGER: Final = (4, 40)  # a text found by numbers has at most so many times the item's words, and so many more


class Rule(StrEnum):
    """By which rule a text was found; closed list, in the order in which they are asked."""

    SAME_TEXT = "same_text"  # the same words in the same order
    CONTAINMENT = "containment"  # half of the item's 8-grams
    RUN = "run"  # 13 words in a row, a fifth of the item's 8-grams, and its numbers
    NUMBERS = "numbers"  # the item's numbers, and 0.4 of its groups of three words, whatever the names
    SHORT = "short"  # an item of fewer than 13 words: the same, or one more or less, perhaps between other sentences
    ONE_GRAM = "one_gram"  # of rule set open-r1: one 8-gram


class RuleSet(StrEnum):
    """Which rules are asked."""

    DEFAULT = "default"  # all but ONE_GRAM
    OPEN_R1 = "open-r1"  # those and one shared 8-gram


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An item of a benchmark that a text is or quotes; ``containment`` is the share of it that the rule found."""

    benchmark: str
    version: str
    item_id: str
    rule: Rule
    containment: float

    def __str__(self) -> str:
        return f"{self.benchmark} ({self.version}) item {self.item_id}, rule {self.rule}, {self.containment:.2f} of it"


class _Lists:
    """Lists of hashes per item, and the way back: which items have a hash."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        lists = column.combine_chunks()
        self._offsets = lists.offsets.to_numpy().astype(np.int64)
        self._flat = lists.values.to_numpy().astype(np.uint64)[self._offsets[0] :]
        self._offsets -= self._offsets[0]
        self.sizes = np.diff(self._offsets)
        order = np.argsort(self._flat, kind="stable")
        self._owners = np.repeat(np.arange(len(self.sizes)), self.sizes)[order]
        self._values, self._starts = np.unique(self._flat[order], return_index=True)
        self._stops = np.append(self._starts[1:], len(order))

    def of(self, item: int) -> Hashes:
        hashes: Hashes = self._flat[self._offsets[item] : self._offsets[item + 1]]
        return hashes

    def shared(self, hashes: Hashes) -> tuple[Numbers, Numbers]:
        """Return the items that have one of these hashes, ascending, and how many different ones each has."""
        if not len(hashes) or not len(self._values):
            return _NOTHING, _NOTHING
        places = np.minimum(np.searchsorted(self._values, hashes), len(self._values) - 1)
        places = np.unique(places[self._values[places] == hashes]).tolist()
        if not places:
            return _NOTHING, _NOTHING
        owners = np.concatenate([self._owners[self._starts[place] : self._stops[place]] for place in places])
        return np.unique(owners, return_counts=True)


class _Found(NamedTuple):
    item: int
    rule: Rule
    containment: float


class Protection:
    """Benchmarks to be kept out of training data, ready to be asked. Never changed: any thread may ask."""

    def __init__(self, fingerprints: Sequence[Fingerprint], rules: RuleSet = RuleSet.DEFAULT) -> None:
        self.benchmarks: tuple[Benchmark, ...] = tuple(fingerprint.benchmark for fingerprint in fingerprints)
        self.rules = rules
        self._of = [benchmark for benchmark in self.benchmarks for _ in range(benchmark.num_items)]
        items = pa.concat_tables([fingerprint.items for fingerprint in fingerprints]) if fingerprints else None
        self._is_empty = items is None
        if items is None:
            return
        self._ids: list[str] = items["item_id"].to_pylist()
        self._num_words = items["num_words"].to_numpy().astype(np.int64)
        self._texts = {text: place for place, text in reversed(list(enumerate(items["text"].to_pylist())))}
        self._grams, self._near, self._numbers, self._words = (
            _Lists(items[name]) for name in ("grams", "near", "numbers", "words")
        )
        times, more = MOST_LONGER
        self._most_words = times * int(self._num_words.max()) + more
        self._sums: dict[int, int] = {}  # of the words of short items; and of all but one of them, which is no number
        self._sums_less_one: dict[int, int] = {}
        for item in np.flatnonzero(self._words.sizes).tolist():
            words = self._words.of(item).tolist()
            total = sum(words) % (1 << 64)
            self._sums.setdefault(total, item)
            if len(words) >= MIN_ONE_OFF:
                for word in words:
                    self._sums_less_one.setdefault((total - word) % (1 << 64), item)

    def find(self, text: str) -> Match | None:
        """Return the item that a text is or quotes, the first rule's best; None if it is clean."""
        if self._is_empty:
            return None
        found = self._find(canonical(text))
        if found is None and (form := with_figures(text)) is not None:
            found = self._find(form)
        return None if found is None else self._match(found)

    def _match(self, found: _Found) -> Match:
        benchmark = self._of[found.item]
        return Match(
            benchmark=benchmark.name,
            version=benchmark.version,
            item_id=self._ids[found.item],
            rule=found.rule,
            containment=round(found.containment, 4),
        )

    def _find(self, form: Canonical) -> _Found | None:
        return self._same_text(form) or self._by_grams(form.words) or self._by_numbers(form) or self._short(form)

    def _same_text(self, form: Canonical) -> _Found | None:
        item = self._texts.get(sequence_hash(form.words)) if len(form.words) else None
        return None if item is None else _Found(item, Rule.SAME_TEXT, 1.0)

    def _by_grams(self, words: Hashes) -> _Found | None:
        in_order = gram_hashes(words, GRAM)
        items, counts = self._grams.shared(in_order)
        if not len(items):
            return None
        shares = counts / self._grams.sizes[items]
        # A short item has too few grams for half of them to say much.
        wanted = np.where(self._num_words[items] >= SHORT, MIN_CONTAINMENT, 1.0)
        best = int(np.argmax(np.where(shares >= wanted, shares + 1, shares)))
        if shares[best] >= wanted[best]:
            return _Found(int(items[best]), Rule.CONTAINMENT, float(shares[best]))
        numbers = counted_hashes(words[is_number(words)])
        for place in np.flatnonzero((shares >= MIN_BESIDE_RUN) & (counts >= RUN_GRAMS)):
            item = int(items[place])
            is_run = _longest_run(np.isin(in_order, self._grams.of(item))) >= RUN_GRAMS
            if is_run and self._shared_numbers(item, numbers) >= MIN_NUMBERS:
                return _Found(item, Rule.RUN, float(shares[place]))
        if self.rules is RuleSet.OPEN_R1:
            return _Found(int(items[best]), Rule.ONE_GRAM, float(shares[best]))
        return None

    def _shared_numbers(self, item: int, numbers: Hashes) -> float:
        """Return the share of an item's numbers that are among these; 1 if it has none."""
        wanted = self._numbers.of(item)
        return float(np.isin(wanted, numbers).mean()) if len(wanted) else 1.0

    def _by_numbers(self, form: Canonical) -> _Found | None:
        if len(form.words) > self._most_words:
            return None
        items, counts = self._near.shared(gram_hashes(form.nameless, NEAR))
        if not len(items):
            return None
        shares = counts / self._near.sizes[items]
        times, more = MOST_LONGER
        is_near = (shares >= MIN_NEAR) & (self._num_words[items] >= SHORT)
        is_near &= len(form.words) <= times * self._num_words[items] + more
        if not is_near.any():
            return None
        numbers = counted_hashes(form.words[is_number(form.words)])
        for place in sorted(np.flatnonzero(is_near).tolist(), key=lambda place: -shares[place]):
            item, share = int(items[place]), float(shares[place])
            shared, num_wanted = self._shared_numbers(item, numbers), int(self._numbers.sizes[item])
            num_more = len(numbers) - round(shared * num_wanted)
            if num_wanted == 0:
                is_it = share >= MIN_NEAR_WORDLESS and num_more <= 1
            elif share >= MIN_NEAR_LOOSE:
                is_it = shared >= MIN_NUMBERS and num_more <= 1
            else:
                is_it = shared == 1 and num_more == 0
            if is_it:
                return _Found(item, Rule.NUMBERS, share)
        return None

    def _short(self, form: Canonical) -> _Found | None:
        """Find short items by the sum of their words' hashes, which no order changes."""
        if not self._sums:
            return None
        hashes = mixed(form.words)
        totals = np.concatenate((np.zeros(1, np.uint64), hashes.cumsum(dtype=np.uint64))).tolist()
        for start, stop in _short_parts(form):
            total = (totals[stop] - totals[start]) % (1 << 64)
            if (item := self._sums.get(total)) is not None:
                return _Found(item, Rule.SHORT, 1.0)
            if (item := self._sums_less_one.get(total)) is not None:
                return _Found(item, Rule.SHORT, 1 - 1 / int(self._num_words[item]))
            for word, extra in zip(form.words[start:stop].tolist(), hashes[start:stop].tolist(), strict=True):
                item = None if word & NUMBER_BIT else self._sums.get((total - extra) % (1 << 64))
                if item is not None and self._num_words[item] >= MIN_ONE_OFF:
                    return _Found(item, Rule.SHORT, 1.0)
        return None


def _short_parts(form: Canonical) -> Iterator[tuple[int, int]]:
    """Yield where the text, and what is left of it without some sentences at either end, begins and ends, if short."""
    size = len(form.words)
    ends = [end for end in form.ends if end < size]
    for start in (0, *ends[:SENTENCES_AROUND]):
        for stop in (size, *reversed(ends[-SENTENCES_AROUND:])):
            if 0 < stop - start <= SHORT:
                yield start, stop


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))
