"""`factory bench adaptive`: teacher tokens per useful sample, adaptive sampling against a fixed number of attempts.

Both arms draw on the same pool of attempts: a problem's n-th attempt has the same length and the same verdict in each.
The adaptive arm is the real coordinator, with its dispatch and its rule; the engine is a clock with slots, in which
every attempt in flight makes one token per tick. The fixed arm is the smallest n with which as many problems get their
useful samples. At most ``useful`` samples per problem count in both. A pool is made up (a third of the problems under a
pass rate of 0.1), or it is what a complete run with a fixed n recorded.

Beside it: how busy slots are with a fixed n, in the real order of attempts (`factory/order.py`) and in that of the
problems alone. The former needs attempts at one problem to be of like length; a made-up pool in which they are stands
beside the others.

With early abort on, an attempt that loops is as long as the shipped detector lets it be: it reads the recorded tokens,
or, of a made-up attempt, random ones that begin to repeat themselves.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from factory.adaptive import Adaptive
from factory.coordinator import Coordinator, JudgeItem
from factory.dispatch import Dispatch, InOrder, Key
from factory.early import LOOK_TOKENS, Detector, Rules
from factory.feeder import Aborted, Finished, Lease, Report
from factory.journal import Position
from factory.order import LongFirst
from factory.plots import rate_bins
from factory.state import FrozenProblems, RunState, current_verdicts
from factory.store import RunFolder
from schemas.arrow import problems_to_table
from schemas.config import AdaptiveConfig, EarlyAbort
from schemas.errors import ConfigError
from schemas.manifest import Counts
from schemas.problem import Answer, Domain, Message, Problem, Prompt
from schemas.readability import ReadabilitySettings
from schemas.trace import TraceFormat
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Summary, Verdict, is_useful, summarize

Grid = npt.NDArray[np.int64]  # by problem and attempt
ENGINE: Final = "engine"
PROBLEMS_PER_SLOT: Final = 10  # so that the tail, in which attempts are asked for in advance, is a part as in long runs
# Of made-up pools; all guesses, in the shape of what is published of long chains of thought.
MEAN_TOKENS: Final = 4_000  # of a right answer to an easy problem; gamma with shape 2
HARDER: Final = 1.5  # attempts at a problem that is never right are longer by this share
LOOPS: Final = 0.03  # attempts that loop until the limit
UNREADABLE: Final = 0.03  # right or wrong, and with a defect of form
MAX_TOKENS: Final = 32_768
PERIODS: Final = (1, 5_000)  # tokens of a loop, by a log-uniform chance; those of real teachers are as different
NUM_LOOPS: Final = 200  # different ones that are read
VOCABULARY: Final = 50_000
ALIKE: Final = (0.8, 0.3)  # log-normal: how problems differ in their attempts' length, and attempts at one; guess
FIXED: Final = (2, 4, 8)  # attempts per problem for which orders are compared


@dataclass(frozen=True, slots=True)
class Pool:
    """Attempts at problems: how each would end, and how long it is."""

    kinds: tuple[Verdict, ...]
    kind_of: Grid  # place in ``kinds``
    tokens: Grid
    seen: Grid  # the same with early abort

    @property
    def num_problems(self) -> int:
        """Problems of the pool."""
        return len(self.tokens)

    @property
    def num_samples(self) -> int:
        """Attempts at each."""
        return int(self.tokens.shape[1])

    def marks(self, of: Any) -> npt.NDArray[np.bool_]:
        """Return for each attempt what a function says of its summary."""
        return np.array([bool(of(summarize(kind.checks))) for kind in self.kinds])[self.kind_of]

    @property
    def is_useful(self) -> npt.NDArray[np.bool_]:
        """Which attempts are useful."""
        return self.marks(lambda found: is_useful(found.outcome, found.is_correct))

    def with_early_abort(self) -> Pool:
        """Return the pool with its loops cut short."""
        return replace(self, tokens=self.seen)


def seen_after(token_ids: npt.NDArray[np.int64]) -> int:
    """Return the tokens after which early abort ends an attempt for its loop; all of them if it does not."""
    rules = Rules(loop_tokens=EarlyAbort().loop_tokens, format=TraceFormat.PLAIN, settings=ReadabilitySettings())
    detector = Detector(rules, "en", "")
    for at in range(LOOK_TOKENS, len(token_ids), LOOK_TOKENS):
        if detector.take(token_ids[at - LOOK_TOKENS : at].tolist(), "") is not None:
            return at
    return len(token_ids)


def _seen_loops(starts: npt.NDArray[np.int64], chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the tokens after which made-up attempts end that begin to loop after so many."""
    tails = []
    shortest, longest = np.log(PERIODS)
    for period in np.exp(chance.uniform(shortest, longest, min(NUM_LOOPS, len(starts)))).astype(np.int64):
        before = int(chance.choice(starts))
        token_ids = np.concatenate(
            [chance.integers(0, VOCABULARY, before), np.resize(chance.integers(0, VOCABULARY, period), MAX_TOKENS)]
        )[:MAX_TOKENS]
        tails.append(seen_after(token_ids) - before)
    ends: npt.NDArray[np.int64] = np.minimum(starts + chance.choice(tails, len(starts)), MAX_TOKENS)
    return ends


def _verdict(summary: Summary) -> Verdict:
    """Return a verdict that sums up so."""
    checks = []
    if summary.is_correct is not None:
        outcome = Outcome.CORRECT if summary.is_correct else Outcome.WRONG_ANSWER
        checks.append(Check(name="math", version="1", outcome=outcome, reason=None if summary.is_correct else WRONG))
    if not checks or summarize(checks).outcome is not summary.outcome:
        checks.append(Check(name="other", version="1", outcome=summary.outcome, reason=summary.reason))
    return Verdict(reference_hash=None, checks=tuple(checks))


WRONG: Final = Reason.VALUE_DIFFERS


def made_pool(num_problems: int, num_samples: int, seed: int) -> Pool:
    """Return made-up attempts; a third of the problems has a pass rate under 0.1, the others any above."""
    chance = np.random.default_rng(seed)
    low = num_problems // 3
    rates = np.concatenate([chance.uniform(0, 0.1, low), chance.uniform(0.1, 1, num_problems - low)])
    chance.shuffle(rates)
    shape = (num_problems, num_samples)
    kinds = [
        Summary(Outcome.WRONG_ANSWER, WRONG, is_correct=False),
        Summary(Outcome.CORRECT, None, is_correct=True),
        Summary(Outcome.UNREADABLE, Reason.LANGUAGE_MIXING, is_correct=False),
        Summary(Outcome.UNREADABLE, Reason.LANGUAGE_MIXING, is_correct=True),
        Summary(Outcome.UNREADABLE, Reason.REPETITION_LOOP, is_correct=False),
    ]
    kind_of = (chance.random(shape) < rates[:, None]).astype(np.int64)
    fate = chance.random(shape)
    kind_of = np.where(fate < UNREADABLE, kind_of + 2, kind_of)
    is_loop = fate > 1 - LOOPS
    lengths = chance.gamma(2.0, MEAN_TOKENS / 2, shape) * (1 + HARDER * (1 - rates[:, None]))
    before = np.clip(np.ceil(lengths), 1, MAX_TOKENS).astype(np.int64)  # an end, or a loop
    seen = before.copy()
    seen[is_loop] = _seen_loops(before[is_loop], chance)
    return Pool(tuple(map(_verdict, kinds)), np.where(is_loop, 4, kind_of), np.where(is_loop, MAX_TOKENS, before), seen)


def recorded_pool(path: Path) -> Pool:
    """Return the attempts of a complete run with a fixed number of them; problems that lack one are left out.

    Raises:
        ConfigError: If the folder holds no run, or no problem with all its attempts judged.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    state = RunState.load(folder, manifest)
    shape = (len(state.problems), state.num_samples)
    tokens, seen, kind_of = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    at: dict[str, int] = {}
    for table in folder.tables_of(
        "traces", manifest.traces, ["trace_id", "problem_id", "sample_index", "num_completion_tokens", "token_ids"]
    ):
        numbers = state.numbers(table["problem_id"], table["sample_index"].to_numpy())
        tokens.reshape(-1)[numbers] = table["num_completion_tokens"].to_numpy()
        for number, ids in zip(numbers.tolist(), table["token_ids"], strict=True):
            seen.reshape(-1)[number] = seen_after(ids.values.to_numpy())
        at |= zip(table["trace_id"].to_pylist(), numbers.tolist(), strict=True)
    kinds: dict[Summary, int] = {}
    columns = ["trace_id", "problem_id", "reference_hash", "outcome", "reason", "is_correct"]
    for table in current_verdicts(folder, manifest, state.problems, columns):
        for row in table.to_pylist():
            reason = None if row["reason"] is None else Reason(row["reason"])
            summary = Summary(Outcome(row["outcome"]), reason, row["is_correct"])
            kind_of.reshape(-1)[at[row["trace_id"]]] = kinds.setdefault(summary, len(kinds))
    is_whole = (kind_of >= 0).all(axis=1)
    if not is_whole.any():
        raise ConfigError(f"{path}: no problem has all its {state.num_samples} attempts judged; give a complete run")
    return Pool(tuple(map(_verdict, kinds)), kind_of[is_whole], tokens[is_whole], seen[is_whole])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an arm made of a pool."""

    num_attempts: int  # those aborted included
    num_tokens: int
    num_useful: npt.NDArray[np.int64]  # by problem
    busy: float | None = None  # share of slot time in which something was made; null for the fixed arm

    def row(self, useful: int) -> dict[str, Any]:
        """Return what is printed of it, at most ``useful`` samples counted per problem."""
        counted = int(np.minimum(self.num_useful, useful).sum())
        return {
            "attempts per problem": self.num_attempts / len(self.num_useful),
            "coverage": float((self.num_useful >= useful).mean()),
            "useful samples": counted,
            "tokens": self.num_tokens,
            "tokens per useful sample": self.num_tokens / counted if counted else None,
        }


def fixed_arm(pool: Pool, useful: int, coverage: float) -> tuple[int, Spent]:
    """Return the smallest number of attempts with which that share of problems is covered, and what it costs."""
    by_attempt = pool.is_useful.cumsum(axis=1)
    covered = (by_attempt >= useful).mean(axis=0)
    n = int(np.argmax(covered >= coverage)) + 1
    assert covered[n - 1] >= coverage, "the adaptive arm found more than there is"
    tokens = int(pool.tokens[:, :n].sum())
    return n, Spent(num_attempts=n * pool.num_problems, num_tokens=tokens, num_useful=by_attempt[:, n - 1])


def num_slots(num_problems: int) -> int:
    """Return how many attempts the engine holds."""
    return max(8, num_problems // PROBLEMS_PER_SLOT)


def ticks_of(order: Callable[[Sequence[Key]], InOrder | LongFirst], tokens: Grid, slots: int) -> int:
    """Return when all attempts have ended that so many slots make in this order, each a token per tick."""
    supply = order([Key(*place) for place in np.ndindex(tokens.shape)])
    dispatch = Dispatch(supply, max_deaths=3)
    running: list[tuple[int, Key]] = []  # a heap by end
    now = 0
    while not dispatch.is_done:
        for key in dispatch.lease(ENGINE, slots - len(running)):
            heapq.heappush(running, (now + int(tokens[key]), key))
        now, key = heapq.heappop(running)
        dispatch.finish(ENGINE, [key])
        if isinstance(supply, LongFirst):
            supply.made(key, int(tokens[key]))
    return now


def orders(tokens: Grid) -> list[dict[str, Any]]:
    """Return the share of slots busy with a fixed number of attempts of these lengths, in either order."""
    slots = num_slots(len(tokens))
    rows = []
    for num_samples in (num for num in FIXED if num <= tokens.shape[1]):
        first = tokens[:, :num_samples]
        in_order, long_first = (
            float(first.sum()) / slots / ticks_of(one, first, slots) for one in (InOrder, LongFirst)
        )
        rows.append({"attempts": num_samples, "busy, in the run's order": in_order, "busy, longest first": long_first})
    return rows


def alike_lengths(num_problems: int, num_samples: int, seed: int) -> Grid:
    """Return lengths of made-up attempts that differ by problem more than at one."""
    chance = np.random.default_rng(seed)
    between, within = ALIKE
    means = chance.lognormal(np.log(MEAN_TOKENS), between, (num_problems, 1))
    lengths = np.ceil(means * chance.lognormal(0, within, (num_problems, num_samples)))
    limited: Grid = np.minimum(lengths, MAX_TOKENS).astype(np.int64)
    return limited


class _Run:
    """The adaptive arm: one engine that is a clock, and verdicts that come at once."""

    def __init__(self, pool: Pool, rule: AdaptiveConfig) -> None:
        state = RunState(FrozenProblems(problems_to_table(map(_problem, range(pool.num_problems)))), pool.num_samples)
        self._pool, self._is_useful = pool, pool.is_useful
        adaptive = Adaptive(state, rule)
        self.coordinator = Coordinator(
            fingerprint="0" * 32,
            state=state,
            dispatch=Dispatch(adaptive, max_deaths=3),
            base=state.counts(),
            base_outcomes=Counter(),
            base_reasons=Counter(),
            adaptive=adaptive,
        )
        self._slots = num_slots(pool.num_problems)
        self._running: list[tuple[int, Key]] = []  # a heap by end
        self._began: dict[Key, int] = {}
        self._now = self._num_attempts = self._num_tokens = 0
        self._useful = np.zeros(pool.num_problems, np.int64)

    def run(self) -> Spent:
        """Return what it took until every attempt has ended."""
        finished: tuple[Finished, ...] = ()
        aborted: tuple[Aborted, ...] = ()
        while True:
            capacity = self._slots - len(self._began)
            orders = self.coordinator.engine_report(
                Report(
                    engine_id=ENGINE,
                    capacity=capacity,
                    in_flight=len(self._began),
                    num_tokens_out=self._num_tokens,
                    finished=finished,
                    aborted=aborted,
                )
            )
            if orders.stop:
                break
            self._begin(orders.leases)
            aborted = tuple(self._abort(key) for key in orders.abort if key in self._began)
            finished = () if aborted else self._finish()
            if finished:  # verdicts first: what they decide is in the next orders
                self.coordinator.engine_report(
                    Report(
                        engine_id=ENGINE,
                        capacity=0,
                        in_flight=len(self._began),
                        num_tokens_out=self._num_tokens,
                        finished=finished,
                    )
                )
                self._judge()
        self._check()
        return Spent(
            num_attempts=self._num_attempts,
            num_tokens=self._num_tokens,
            num_useful=self._useful,
            busy=self._num_tokens / (self._now * self._slots),
        )

    def _begin(self, leases: tuple[Lease, ...]) -> None:
        for lease in leases:
            self._num_attempts += 1
            self._began[lease.key] = self._now
            heapq.heappush(self._running, (self._now + int(self._pool.tokens[lease.key]), lease.key))

    def _abort(self, key: Key) -> Aborted:
        num_tokens = self._now - self._began.pop(key)
        self._num_tokens += num_tokens
        return Aborted(key, num_tokens)

    def _finish(self) -> tuple[Finished, ...]:
        """Go on to the next moment at which attempts end; return those."""
        ended: list[Finished] = []
        while self._running and (not ended or self._running[0][0] == self._now):
            end, key = heapq.heappop(self._running)
            if key in self._began:  # else it was aborted
                self._now = end
                del self._began[key]
                num_tokens = int(self._pool.tokens[key])
                self._num_tokens += num_tokens
                ended.append(Finished(key=key, position=Position("segment", 0), num_tokens=num_tokens))
        return tuple(ended)

    def _judge(self) -> None:
        batch = self.coordinator.take_batch("verifier", 1_000_000)
        self.coordinator.judge_report("verifier", [self._judged(item) for item in batch])

    def _judged(self, item: JudgeItem) -> JudgedTrace:
        place = divmod(item.number, self._pool.num_samples)
        self._useful[place[0]] += self._is_useful[place]
        verdict = self._pool.kinds[self._pool.kind_of[place]]
        return JudgedTrace(trace_id=item.trace_id, problem_id=item.problem_id, verdict=verdict)

    def _check(self) -> None:
        counts: Counts = self.coordinator.progress(0).counts
        counts.check()
        assert counts.pending == 0, f"{counts}: attempts were left"


def _problem(number: int) -> tuple[Problem, Prompt]:
    message = Message(role="user", content=f"Problem {number}")
    problem = Problem(
        domain=Domain.MATH, messages=(message,), source="made", source_row_id=str(number), reference=Answer(text="1")
    )
    return problem, Prompt(problem_id=problem.problem_id, text="p", sha256="", token_ids=(1,))


def adaptive_arm(pool: Pool, rule: AdaptiveConfig) -> Spent:
    """Return what adaptive sampling makes of a pool."""
    return _Run(pool, rule).run()


def measure(pool: Pool, rule: AdaptiveConfig) -> list[dict[str, Any]]:
    """Return a column each for adaptive sampling with and without early abort, with the fixed arm of equal coverage.

    The fixed arm has no early abort: it is what one would do without either.
    """
    columns = []
    for has_abort in (True, False):
        spent = adaptive_arm(pool.with_early_abort() if has_abort else pool, rule)
        mine = spent.row(rule.useful)
        n, fixed = fixed_arm(pool, rule.useful, mine["coverage"])
        theirs = fixed.row(rule.useful)
        columns.append(
            {
                "early abort": "on" if has_abort else "off",
                **{f"adaptive: {name}": value for name, value in mine.items()},
                "adaptive: share of slots busy": spent.busy,
                "fixed n of equal coverage": n,
                **{f"fixed: {name}": value for name, value in theirs.items()},
                "tokens, adaptive / fixed": spent.num_tokens / fixed.num_tokens,
                "tokens per useful sample, adaptive / fixed": mine["tokens per useful sample"]
                / theirs["tokens per useful sample"],
            }
        )
    return columns


def histogram(pool: Pool) -> Mapping[str, int]:
    """Return how many problems have which pass rate, over all attempts of the pool."""
    is_true = pool.marks(lambda found: found.is_correct is True).sum(axis=1)
    is_said = pool.marks(lambda found: found.is_correct is not None).sum(axis=1)
    rates = Counter(zip(is_true.tolist(), is_said.tolist(), strict=True))
    return {found.label: found.counts["all"] for found in rate_bins(rates)}
