"""Adaptive sampling: how many attempts each problem gets, and which comes next. Facts in, decisions out; no clock.

Sits behind `dispatch` as its supply of fresh attempts; the coordinator tells it of every end. Invariants: a problem
gets at most ``num_samples`` attempts; its first ``min_samples``, by sample index, are made whatever they give and never
given up; a closed problem gets no more; all attempts of a problem are either issued, left, or ended.

The rule, for one problem with t attempts right so far, f that count against it (wrong, or no answer within the limits),
and ``needed`` useful samples still missing:

1. The first ``min_samples`` attempts are made. Until then nothing is decided.
2. ``useful`` reached: the rest is cancelled (``quota_reached``), running attempts included.
3. The pass rate is believed to be Beta(a + t, b + f). Where the chance to find ``needed`` more right answers among all
   attempts that are left (or, where fewer are left, that all of them are right) is below ``give_up_below``, the rest is
   cancelled (``hopeless``). But where the answers, all wrong, agree with one another, not before there are as many as
   it takes to see that the reference is probably wrong (`suspects`); for these, fewer left than needed are too few.
4. Else as many attempts are in flight as are needed: none of them can turn out to be one too many. Only when engines
   would run dry there are as many as it takes on average, needed / mean pass rate, and no more than were judged so far.

(a, b) is fitted to the run's own problems by two moments of their first attempts, which no stopping has touched; before
enough of them are judged it is a guess. What this does to pass rates: `ADAPTIVE.md`.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from factory.dispatch import CancelReason, Key
from factory.state import AGAINST, ENDED, JUDGED, TRACED, TRUE, UNUSABLE, USEFUL, Counts_P, Places, RunState, word_of
from factory.suspects import MIN_AGREEING, answer_of, may_be_suspect
from schemas.config import AdaptiveConfig
from schemas.verdict import Verdict, summarize

ISSUED: Final = 32  # a flag of an attempt beside those of `state`: queued, leased or made in this start
FIRST_PRIOR: Final = (0.5, 0.5)  # Beta, before problems are known: most are easy or out of reach; guess
MIN_FITTED: Final = 100  # problems until the prior is fitted to them; guess
REFIT: Final = 1.1  # growth of their number until it is fitted again
STRENGTHS: Final = (0.3, 30.0)  # bounds of a + b: two moments of few attempts can say anything
MEANS: Final = (0.01, 0.99)
MAX_FILLER: Final = 4_096  # problems with short attempts that wait for the end, to fill it; guess


class Prior(NamedTuple):
    """What is believed of a pass rate before the first attempt: a Beta distribution."""

    a: float
    b: float


class Standing(NamedTuple):
    """What is known of one problem."""

    num_useful: int
    num_true: int
    num_against: int
    num_out: int  # attempts in flight, or made and not yet judged
    num_left: int  # attempts that may still be issued
    num_first_left: int  # of them those that are made whatever comes
    is_unusable: bool = False  # its reference cannot be read: no attempt can be right
    is_agreeing: bool = False  # its attempts, none of them right, agree so far on an answer


class Decision(NamedTuple):
    """What to do about a problem: issue more attempts, or close it."""

    num_more: int = 0
    ending: CancelReason | None = None


class Closing(NamedTuple):
    """A problem that gets no more attempts: their numbers, and those in flight, which are to be given up."""

    reason: CancelReason
    never_made: Places
    running: tuple[Key, ...]


def chance_of(needed: int, attempts: int, prior: Prior) -> float:
    """Return the chance of at least so many right answers among so many attempts: beta-binomial, in [0, 1]."""
    if needed > attempts:
        return 0.0
    a, b = prior
    term = math.prod((b + i) / (a + b + i) for i in range(attempts))  # of none
    below = term if needed > 0 else 0.0
    for x in range(1, needed):
        term *= (attempts - x + 1) / x * (a + x - 1) / (b + attempts - x)
        below += term
    return max(0.0, 1.0 - below)


def decide(now: Standing, rule: AdaptiveConfig, prior: Prior, *, is_tail: bool = False) -> Decision:
    """Return what to do about a problem; ``is_tail``: engines would run dry if nobody asked for more."""
    if now.is_unusable:
        return Decision(ending=CancelReason.HOPELESS)
    if now.num_first_left:
        return Decision(now.num_first_left)
    needed = rule.useful - now.num_useful
    if needed <= 0:
        return Decision(ending=CancelReason.QUOTA_REACHED)
    believed = Prior(prior.a + now.num_true, prior.b + now.num_against)
    num_seen = now.num_true + now.num_against
    rest = now.num_left + now.num_out
    least = needed if now.is_agreeing else min(needed, rest)  # an easy problem gives what it can; that one is not
    is_hopeless = num_seen >= rule.min_samples and chance_of(least, rest, believed) < rule.give_up_below
    num_to_suspect = MIN_AGREEING - num_seen if now.is_agreeing else 0
    if is_hopeless and num_to_suspect <= 0:
        return Decision(ending=CancelReason.HOPELESS)
    most = needed
    if is_hopeless:
        most = num_to_suspect
    elif is_tail:
        most = max(needed, min(num_seen, math.ceil(needed * sum(believed) / believed.a)))
    return Decision(min(now.num_left, max(0, most - now.num_out)))


def fit_prior(num_problems: int, mean: float, mean_of_squares: float) -> Prior:
    """Return the Beta distribution with these two moments, within bounds; a guess where there are too few problems."""
    if num_problems < MIN_FITTED:
        return Prior(*FIRST_PRIOR)
    mean = min(max(mean, MEANS[0]), MEANS[1])
    variance = mean_of_squares - mean * mean
    strength = mean * (1 - mean) / variance - 1 if variance > 0 else STRENGTHS[1]
    strength = min(max(strength, STRENGTHS[0]), STRENGTHS[1])
    return Prior(mean * strength, (1 - mean) * strength)


@dataclass(slots=True)
class Moments:
    """Sums over problems of which two or more of the first attempts were judged right or wrong."""

    num_problems: int = 0
    rates: float = 0.0  # of t / m
    pairs: float = 0.0  # of t (t - 1) / (m (m - 1)), whose mean is that of the squared pass rate

    def add(self, num_true: int, num_words: int, count: int = 1) -> None:
        """Add problems with so many right ones of so many first attempts; a negative count takes them out again."""
        if num_words >= 2:
            self.num_problems += count
            self.rates += count * num_true / num_words
            self.pairs += count * num_true * (num_true - 1) / (num_words * (num_words - 1))

    def prior(self) -> Prior:
        """Return what they say of a pass rate."""
        count = max(1, self.num_problems)
        return fit_prior(self.num_problems, self.rates / count, self.pairs / count)


class Adaptive:
    """The fresh attempts of a run, issued where they help. Not thread-safe; some thirty bytes a problem."""

    def __init__(self, state: RunState, rule: AdaptiveConfig, out: Iterable[Key] = ()) -> None:
        """Take over what a run holds; ``out`` are attempts that engines hold, or that lie unjudged in the journal."""
        self._state, self._rule, self._num_samples = state, rule, state.num_samples
        self._flags = state.flags
        for key in out:
            self._flags[state.number(key)] |= ISSUED
        flags = self._flags.reshape(-1, self._num_samples)
        is_left = flags & (ENDED | ISSUED) == 0
        waits = ((flags & ISSUED > 0) & (flags & ENDED == 0)) | (flags & (TRACED | JUDGED) == TRACED)
        self._left = is_left.sum(axis=1, dtype=np.int16)
        self._first_left = is_left[:, : rule.min_samples].sum(axis=1, dtype=np.int16)
        self._out = waits.sum(axis=1, dtype=np.int16)
        self._is_closed = self._left + self._out == 0
        self._num_left = int(self._left.sum(dtype=np.int64))
        self._tally = state.tally(rule.min_samples)
        self._answers: dict[int, Counter[str]] = {}  # of this start; of problems that may turn out to be suspects
        self._tokens = np.zeros(len(self._left), np.float32)  # of this start, as is the next
        self._made = np.zeros(len(self._left), np.int16)
        self._all_tokens = self._all_made = 0
        self._moments = Moments()
        for num_true, num_words, count in _pairs(self._tally.first_true, self._tally.first_words):
            self._moments.add(num_true, num_words, count)
        self._prior, self._fitted = self._moments.prior(), self._moments.num_problems
        self._long: list[tuple[float, int]] = []  # a heap of problems that want more, longest attempts first
        self._short: deque[int] = deque()
        self._next = 0  # the first problem that may not have been begun
        self._is_tail = False
        self._closings: list[Closing] = []  # of problems whose turn came, not yet told

    @property
    def num_left(self) -> int:
        """Attempts that may still be issued."""
        return self._num_left

    @property
    def prior(self) -> Prior:
        """What is believed of a pass rate before the first attempt."""
        return self._prior

    def resume(self) -> Iterator[Closing]:
        """Yield the problems that an earlier start left with nothing to do, and queue those it left unfinished."""
        is_begun = (self._left < self._num_samples) & ~self._is_closed
        for place in np.flatnonzero(is_begun).tolist():
            closing = self._look_at(place)
            if closing is not None:
                yield closing

    def take(self) -> Key | None:
        """Return the next attempt to make; None if none is wanted now.

        A problem may turn out to be hopeless as its turn comes, by a prior that is newer: see ``take_closings``.
        """
        while (place := self._pop()) is not None:
            decision = self._decide(place) if not self._is_closed[place] else Decision()
            if decision.ending is not None:
                self._closings.append(self._close(place, decision.ending))
            elif decision.num_more:
                if decision.num_more > 1:
                    heapq.heappush(self._long, (-math.inf, place))  # its next one at once: they share a prompt
                return self._issue(place)
        if self._is_tail:
            return None
        self._is_tail = True
        for place in np.flatnonzero((self._out > 0) & ~self._is_closed).tolist():
            self._queue(place)
        return self.take()

    def take_closings(self) -> list[Closing]:
        """Return the problems that were closed as their turn came, and forget them; comes after each ``take``."""
        found, self._closings = self._closings, []
        return found

    def made(self, number: int, num_tokens: int) -> None:
        """Take note of an attempt's length."""
        place = number // self._num_samples
        self._tokens[place] += num_tokens
        self._made[place] += 1
        self._all_tokens += num_tokens
        self._all_made += 1

    def judged(self, number: int, verdict: Verdict) -> Closing | None:
        """Take note of a final verdict; a closing if the problem needs no more."""
        place, index = divmod(number, self._num_samples)
        word = word_of(*summarize(verdict.checks))
        self._tally.useful[place] += word & USEFUL > 0
        self._tally.true[place] += word & TRUE > 0
        self._tally.against[place] += word & AGAINST > 0
        self._tally.is_unusable[place] |= word & UNUSABLE > 0
        self._note_answer(place, answer_of(verdict))
        if index < self._rule.min_samples and word & (TRUE | AGAINST):
            self._learn(place, is_true=word & TRUE > 0)
        return self.ended(number)

    def ended(self, number: int) -> Closing | None:
        """Take note that an issued attempt has ended, and nothing more will come of it; a closing as ``judged``."""
        place = number // self._num_samples
        self._out[place] -= 1
        return None if self._is_closed[place] else self._look_at(place)

    def _note_answer(self, place: int, answer: str | None) -> None:
        """Keep an answer as long as it can matter: the problem is open, none is right, few count against it."""
        if self._is_closed[place] or self._tally.true[place] or self._tally.against[place] > MIN_AGREEING:
            self._answers.pop(place, None)
        elif answer is not None:
            self._answers.setdefault(place, Counter())[answer] += 1

    def _learn(self, place: int, *, is_true: bool) -> None:
        """Correct the moments by another of a problem's first attempts."""
        first_true, first_words = self._tally.first_true, self._tally.first_words
        self._moments.add(int(first_true[place]), int(first_words[place]), count=-1)
        first_true[place] += is_true
        first_words[place] += 1
        self._moments.add(int(first_true[place]), int(first_words[place]))
        if self._moments.num_problems >= max(MIN_FITTED, REFIT * self._fitted):
            self._prior, self._fitted = self._moments.prior(), self._moments.num_problems

    def _decide(self, place: int) -> Decision:
        standing = Standing(
            num_useful=int(self._tally.useful[place]),
            num_true=int(self._tally.true[place]),
            num_against=int(self._tally.against[place]),
            num_out=int(self._out[place]),
            num_left=int(self._left[place]),
            num_first_left=int(self._first_left[place]),
            is_unusable=bool(self._tally.is_unusable[place]),
            is_agreeing=place in self._answers and may_be_suspect(self._answers[place]),
        )
        return decide(standing, self._rule, self._prior, is_tail=self._is_tail)

    def _look_at(self, place: int) -> Closing | None:
        """Queue a problem that wants more; close one that does not, or that has nothing left."""
        decision = self._decide(place)
        if decision.ending is not None:
            return self._close(place, decision.ending)
        if decision.num_more:
            self._queue(place)
        return None

    def _close(self, place: int, reason: CancelReason) -> Closing:
        """Close a problem; its first attempts go on, unless no attempt at it can be right."""
        self._is_closed[place] = True
        self._answers.pop(place, None)
        begin = place * self._num_samples
        kept = 0 if self._tally.is_unusable[place] else self._rule.min_samples
        flags = self._flags[begin + kept : begin + self._num_samples]
        is_open = flags & ENDED == 0
        never_made = np.flatnonzero(is_open & (flags & ISSUED == 0)) + (begin + kept)
        running = np.flatnonzero(is_open & (flags & ISSUED > 0)) + kept
        self._num_left -= len(never_made)
        self._left[place] -= len(never_made)
        return Closing(reason, never_made, tuple(Key(place, index) for index in running.tolist()))

    def _queue(self, place: int) -> None:
        """Queue a problem for more attempts: the longer they are expected to be, the earlier."""
        mean = self._tokens[place] / self._made[place] if self._made[place] else math.inf
        if mean * self._all_made >= self._all_tokens:
            heapq.heappush(self._long, (-float(mean), place))
        else:
            self._short.append(place)

    def _pop(self) -> int | None:
        """Return the next problem that may want an attempt: long ones first, a stock of short ones at the end."""
        if self._long:
            return heapq.heappop(self._long)[1]
        if len(self._short) <= MAX_FILLER:
            while self._next < len(self._left):
                self._next += 1
                if self._left[self._next - 1] == self._num_samples:
                    return self._next - 1
        return self._short.popleft() if self._short else None

    def adopt(self, number: int) -> bool:
        """Take note of an attempt that somebody made without having been given it; False if it was given."""
        if self._flags[number] & (ENDED | ISSUED):
            return False
        self._mark_issued(*divmod(number, self._num_samples))
        return True

    def _issue(self, place: int) -> Key:
        begin = place * self._num_samples
        index = int(np.argmax(self._flags[begin : begin + self._num_samples] & (ENDED | ISSUED) == 0))
        self._mark_issued(place, index)
        return Key(place, index)

    def _mark_issued(self, place: int, index: int) -> None:
        self._flags[place * self._num_samples + index] |= ISSUED
        self._out[place] += 1
        self._left[place] -= 1
        self._first_left[place] -= index < self._rule.min_samples
        self._num_left -= 1


def _pairs(num_true: Counts_P, num_words: Counts_P) -> Iterator[tuple[int, int, int]]:
    """Yield every pair of counts that problems have, and how many have it."""
    codes, counts = np.unique(num_true.astype(np.int64) << 16 | num_words, return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        yield code >> 16, code & 0xFFFF, count
