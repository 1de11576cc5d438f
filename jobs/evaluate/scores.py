"""Scores: what a stored evaluation amounts to. A pure function of the run; nothing is generated or judged.

What counts as right is ``is_correct``, the answer check's word, whatever readability says: so the papers count.
Attempts without a word (unjudged, a reference that cannot be used) are counted apart and in no rate; so are those
without a trace. Readability stands beside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from factory.storage import AnyPath
from jobs.evaluate.benchmarks import BENCHMARKS, About, Benchmark, Row, read_about, read_frozen
from jobs.evaluate.elo import Rated, Rating, rating_of
from jobs.evaluate.estimates import Estimate, consensus, estimate, pass_at_k, quantiles_of
from jobs.evaluate.groups import Votes, can_vote, group_wrong
from jobs.evaluate.samples import Item, Sample, Stored, read_stored
from schemas.trace import FinishReason
from schemas.verdict import REASON_OUTCOMES, Outcome

NO_FAULT: Final = ("prompt_too_long", "not_recorded")  # known from the input
NO_ANSWERS: Final = frozenset(reason for reason, outcome in REASON_OUTCOMES.items() if outcome is Outcome.NO_ANSWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemScore:
    """One problem: judged attempts, right ones among them, and what the majority vote gives (null: no vote)."""

    row_id: str
    problem_id: str
    num_judged: int
    num_right: int
    consensus: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What became of the attempts: requested = judged + no_word + not_judged + failed + pending, over all problems."""

    requested: int
    judged: int  # with a word: right or wrong
    no_word: int  # a verdict that says neither: unjudged, or a bad reference
    not_judged: int  # traces without a verdict
    failed: Mapping[str, int]  # no trace, by reason
    pending: int
    truncated: int  # of those with a trace: ended by the limit of tokens
    aborted: int  # ended early for a loop or the like
    no_answer: int  # judged wrong because there was nothing to compare

    @property
    def has_gaps(self) -> bool:
        """Whether attempts are in no score for a fault that is not the model's."""
        faults = [count for reason, count in self.failed.items() if reason not in NO_FAULT]
        return bool(self.no_word or self.not_judged or self.pending or faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of an evaluation. Estimates are means over problems; lengths are tokens of the completion."""

    about: About | None  # null: the run is no evaluation, but can be scored as one
    teacher: Mapping[str, Any]  # of the job
    fingerprint: Mapping[str, Any]  # what decided the texts
    verifiers: str
    num_problems: int
    num_samples: int
    pass_at_1: Estimate | None
    pass_at: Mapping[int, Estimate]  # by k; over the problems with so many judged attempts
    consensus: Estimate | None  # cons@num_samples; null where answers cannot be compared
    counted: Counted
    lengths: Mapping[str, Mapping[str, float]]  # of all, right and wrong attempts
    num_readable: int  # judged attempts whose text a data set would take
    num_right_and_readable: int
    unreadable: Mapping[str, int]  # attempts by reason; one may have several
    quarantined: Mapping[str, int]  # rows of the benchmark that became no problem
    groups: Mapping[str, Mapping[str, Estimate]]  # pass@1 by column and value
    rating: Rating | None
    problems: Sequence[ProblemScore]


def score_run(path: AnyPath) -> Scores:
    """Return the scores of a run, by its committed verdicts.

    Raises:
        ConfigError: If the folder holds no run.
    """
    stored = read_stored(path)
    about = read_about(path)
    if about is None:
        return score(stored)
    benchmark = BENCHMARKS[about.benchmark]
    return score(stored, about, benchmark, read_frozen(path, benchmark))


def score(
    stored: Stored,
    about: About | None = None,
    benchmark: Benchmark | None = None,
    rows: Mapping[str, Row] | None = None,
) -> Scores:
    """Return the scores of what was stored; ``rows`` say what the benchmark knows of each item, by its row id."""
    problems = score_problems(stored)
    judged = [one for one in problems if one.num_judged]
    samples = [sample for found in stored.samples.values() for sample in found]
    with_word = [sample for sample in samples if sample.is_correct is not None]
    readable = [sample for sample in with_word if not sample.unreadable]
    return Scores(
        about=about,
        teacher=stored.teacher,
        fingerprint=stored.fingerprint,
        verifiers=stored.verifiers,
        num_problems=len(stored.items),
        num_samples=stored.num_samples,
        pass_at_1=estimate([pass_at_k(one.num_judged, one.num_right, 1) for one in judged]),
        pass_at=_pass_at(judged, stored.num_samples),
        consensus=estimate([one.consensus for one in judged if one.consensus is not None]),
        counted=_counted(stored, samples),
        lengths=_lengths(samples),
        num_readable=len(readable),
        num_right_and_readable=sum(sample.is_correct is True for sample in readable),
        unreadable=dict(Counter(reason for sample in with_word for reason in set(sample.unreadable)).most_common()),
        quarantined=stored.quarantined,
        groups={} if benchmark is None or rows is None else _by_group(judged, benchmark, rows),
        rating=None if benchmark is None or rows is None else _rating(judged, benchmark, rows),
        problems=problems,
    )


def score_problems(stored: Stored) -> list[ProblemScore]:
    """Return the score of each problem, in the order of the benchmark."""
    votes = [_votes(stored.samples[problem_id]) for problem_id in stored.items]
    items = list(stored.items.values())
    sizes = group_wrong([(vote, item.reference) for vote, item in zip(votes, items, strict=True)])
    return [
        _problem_score(item, stored.samples[item.problem_id], vote, groups)
        for item, vote, groups in zip(items, votes, sizes, strict=True)
    ]


def _votes(samples: Iterable[Sample]) -> Votes:
    judged = [sample for sample in samples if sample.is_correct is not None]
    wrong = Counter(sample.answer for sample in judged if not sample.is_correct and sample.answer is not None)
    return Votes(sum(sample.is_correct is True for sample in judged), wrong)


def _problem_score(item: Item, samples: Iterable[Sample], votes: Votes, groups: Sequence[int]) -> ProblemScore:
    num_judged = sum(sample.is_correct is not None for sample in samples)
    return ProblemScore(
        row_id=item.row_id,
        problem_id=item.problem_id,
        num_judged=num_judged,
        num_right=votes.num_right,
        consensus=consensus(votes.num_right, groups) if num_judged and can_vote(item.reference) else None,
    )


def _pass_at(judged: Sequence[ProblemScore], num_samples: int) -> dict[int, Estimate]:
    """Return pass@k for powers of two from 2 on, and for all attempts."""
    ks = {k for k in (2**power for power in range(1, 16)) if k <= num_samples} | ({num_samples} - {1})
    found = {}
    for k in sorted(ks):
        enough = [one for one in judged if one.num_judged >= k]
        value = estimate([pass_at_k(one.num_judged, one.num_right, k) for one in enough])
        if value is not None:
            found[k] = value
    return found


def _counted(stored: Stored, samples: Sequence[Sample]) -> Counted:
    judged = sum(sample.is_correct is not None for sample in samples)
    not_judged = sum(sample.outcome is None for sample in samples)
    requested = len(stored.items) * stored.num_samples
    return Counted(
        requested=requested,
        judged=judged,
        no_word=len(samples) - judged - not_judged,
        not_judged=not_judged,
        failed=stored.failed,
        pending=requested - len(samples) - sum(stored.failed.values()),
        truncated=sum(sample.finish_reason is FinishReason.LENGTH for sample in samples),
        aborted=sum(sample.finish_reason in (FinishReason.ABORT, FinishReason.REPETITION) for sample in samples),
        no_answer=sum(sample.is_correct is False and sample.reason in NO_ANSWERS for sample in samples),
    )


def _lengths(samples: Sequence[Sample]) -> dict[str, Mapping[str, float]]:
    by_word = {
        "all": samples,
        "right": [sample for sample in samples if sample.is_correct is True],
        "wrong": [sample for sample in samples if sample.is_correct is False],
    }
    return {name: quantiles_of([sample.num_tokens for sample in found]) for name, found in by_word.items()}


def _by_group(
    judged: Sequence[ProblemScore], benchmark: Benchmark, rows: Mapping[str, Row]
) -> dict[str, Mapping[str, Estimate]]:
    found: dict[str, Mapping[str, Estimate]] = {}
    for column in benchmark.groups:
        values: dict[str, list[float]] = defaultdict(list)
        for one in judged:
            value = rows.get(one.row_id, {}).get(column)
            if value not in (None, ""):
                values[str(value)].append(pass_at_k(one.num_judged, one.num_right, 1))
        if len(values) > 1:
            found[column] = {name: mean for name in sorted(values) if (mean := estimate(values[name])) is not None}
    return found


def _rating(judged: Sequence[ProblemScore], benchmark: Benchmark, rows: Mapping[str, Row]) -> Rating | None:
    """Return the Elo rating over the problems whose rating is known."""
    if benchmark.rating is None or benchmark.contest is None:
        return None
    rated = []
    for one in judged:
        row = rows.get(one.row_id, {})
        if isinstance(row.get(benchmark.rating), int | float) and row[benchmark.rating] > 0:
            share = one.num_right / one.num_judged
            rated.append(Rated(float(row[benchmark.rating]), str(row.get(benchmark.contest)), share))
    return rating_of(rated)
