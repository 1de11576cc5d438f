"""What a job will make and cost, predicted from its own first problems: `--dry-run` on the folder of a run.

A run only grows, so a pilot is a start of the job with a small `schedule.max_problems`, and stays part of the run. The
unit is the problem, since attempts at one problem are not independent: intervals come from drawing the pilot's problems
anew, source by source, since the pilot's mix of sources need not be the job's. A domain is predicted as if its problems
were all there is. Reads only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from factory.cost import Labels, Tokens_P, has_ended, read_journaled, read_problems
from factory.ledgers import Spent, read_ledgers, spent_of
from factory.plan import Plan
from factory.state import ENDED, RunState
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.errors import StorageError

MIN_PROBLEMS: Final = 30  # of a pilot; of fewer, heavy tails are not seen (guess)
MIN_OF_SOURCE: Final = 10  # for a mean of its own; sources with fewer go by that of the whole pilot (guess)
MAX_DRAWN: Final = 2_000  # problems of a source that are drawn from: more change nothing and cost time
NUM_DRAWS: Final = 1_000
LEVEL: Final = 0.9  # of the intervals


class Predicted(NamedTuple):
    """A figure of the whole job, and its interval; null where nothing bounds it."""

    value: float | None
    low: float | None
    high: float | None


UNKNOWN: Final = Predicted(None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What the ended problems of a run cost and gave, by problem; and what its engines did in that time."""

    tokens: Tokens_P
    accepted: Tokens_P
    sources: Labels
    domains: Labels
    num_open: int  # problems that were begun and have not ended
    spent: Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What some problems take and give, those of the pilot included."""

    num_pilot: int  # ended problems that it is predicted from
    tokens: Predicted
    accepted: Predicted
    tokens_per_accepted: Predicted

    @property
    def is_known(self) -> bool:
        """Whether the pilot had enough of them."""
        return self.num_pilot >= MIN_PROBLEMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Totals):
    """What the whole job takes and gives."""

    by_domain: Mapping[str, Totals]
    num_open: int
    spent: Spent  # by the pilot


class _Stratum(NamedTuple):
    """Problems that are drawn from, and how many like them are to come."""

    tokens: Tokens_P
    accepted: Tokens_P
    num_left: int


def read_pilot(plan: Plan, path: AnyPath) -> Pilot | str:
    """Return the pilot that a folder holds for a job; why not, where it holds none."""
    if plan.why_no_tokenizer is not None:
        return "the teacher's tokenizer is not at hand, so nobody knows whether the run is this job's"
    folder = RunFolder(path)
    try:
        manifest = folder.find_manifest()
    except StorageError as error:
        return str(error)
    if manifest is None:
        return f"{path} holds no run yet"
    if manifest.fingerprint != plan.fingerprint:
        return f"{path} holds a run of another teacher, prompt or sampling"
    adaptive = plan.job.model_dump(mode="json")["schedule"]["adaptive"]
    if (manifest.num_samples, manifest.config["schedule"].get("adaptive")) != (plan.job.sampling.num_samples, adaptive):
        return f"{path} was run with another sampling.num_samples or schedule.adaptive"
    state = RunState.load(folder, manifest)
    found = read_problems(folder, manifest, state, read_journaled(folder, state), plan.job.select)
    is_ended = has_ended(state)
    is_begun = (state.flags.reshape(-1, state.num_samples) & ENDED > 0).any(axis=1) | (found.tokens > 0)
    if (num_ended := int(is_ended.sum())) < MIN_PROBLEMS:
        return f"{path} holds {num_ended} problems that have ended, and {MIN_PROBLEMS} are needed"
    return Pilot(
        tokens=found.tokens[is_ended],
        accepted=found.accepted[is_ended],
        sources=found.sources.at(is_ended),
        domains=found.domains.at(is_ended),
        num_open=int((is_begun & ~is_ended).sum()),
        spent=spent_of(read_ledgers(folder.logs)),
    )


def predict(pilot: Pilot, num_problems: Mapping[tuple[str, str], int], *, seed: int = 0) -> Prediction:
    """Return what a job with so many problems of each source and domain takes and gives, from a pilot of some."""
    by_source: Counter[str] = Counter()
    by_domain: dict[str, Counter[str]] = {}
    for (source, domain), num in num_problems.items():
        by_source[source] += num
        by_domain.setdefault(domain, Counter())[source] += num
    whole = _totals(pilot, by_source, seed)
    return Prediction(
        num_pilot=whole.num_pilot,
        tokens=whole.tokens,
        accepted=whole.accepted,
        tokens_per_accepted=whole.tokens_per_accepted,
        by_domain={domain: _totals(_of_domain(pilot, domain), nums, seed) for domain, nums in by_domain.items()},
        num_open=pilot.num_open,
        spent=pilot.spent,
    )


def _of_domain(pilot: Pilot, domain: str) -> Pilot:
    """Return the part of a pilot that is of a domain."""
    is_its = pilot.domains.are(domain)
    return replace(
        pilot,
        tokens=pilot.tokens[is_its],
        accepted=pilot.accepted[is_its],
        sources=pilot.sources.at(is_its),
        domains=pilot.domains.at(is_its),
    )


def _totals(pilot: Pilot, num_problems: Mapping[str, int], seed: int) -> Totals:
    """Return the totals of so many problems of each source; with none if the pilot has too few to predict from."""
    num_pilot = len(pilot.tokens)
    if num_pilot < MIN_PROBLEMS:
        return Totals(num_pilot=num_pilot, tokens=UNKNOWN, accepted=UNKNOWN, tokens_per_accepted=UNKNOWN)
    generator = np.random.default_rng(seed)
    tokens = np.full(NUM_DRAWS + 1, pilot.tokens.sum(), np.float64)  # the last is the mean, no draw
    accepted = np.full(NUM_DRAWS + 1, pilot.accepted.sum(), np.float64)
    for stratum in _strata(pilot, num_problems):
        drawn = _draw(stratum, generator)
        tokens += drawn @ stratum.tokens
        accepted += drawn @ stratum.accepted
    each = np.divide(tokens, accepted, out=np.full_like(tokens, np.inf), where=accepted > 0)
    return Totals(
        num_pilot=num_pilot,
        tokens=_predicted(tokens),
        accepted=_predicted(accepted),
        tokens_per_accepted=_predicted(each),
    )


def _strata(pilot: Pilot, num_problems: Mapping[str, int]) -> Sequence[_Stratum]:
    """Return a stratum for each source that the pilot knows well enough, and one for all others together."""
    strata: list[_Stratum] = []
    num_others = 0
    for source, num in num_problems.items():
        is_its = pilot.sources.are(source)
        num_seen = int(is_its.sum())
        num_left = max(0, num - num_seen)
        if num_seen >= MIN_OF_SOURCE:
            strata.append(_Stratum(pilot.tokens[is_its][:MAX_DRAWN], pilot.accepted[is_its][:MAX_DRAWN], num_left))
        else:
            num_others += num_left
    if num_others:
        strata.append(_Stratum(pilot.tokens[:MAX_DRAWN], pilot.accepted[:MAX_DRAWN], num_others))
    return strata


def _draw(stratum: _Stratum, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return how often each problem stands for one to come, by draw; in the last row as often as the next.

    First the pilot itself is drawn anew: so much its means may be off. Then the problems to come are drawn from that:
    few of them are not like their mean.
    """
    num = len(stratum.tokens)
    shares = generator.multinomial(num, np.full(num, 1 / num), size=NUM_DRAWS) / num
    drawn = generator.multinomial(stratum.num_left, shares)
    return np.vstack([drawn, np.full(num, stratum.num_left / num)])


def _predicted(drawn: npt.NDArray[np.float64]) -> Predicted:
    tail = (1 - LEVEL) / 2
    bounds = np.quantile(drawn[:-1], [tail, 1 - tail], method="nearest").tolist()
    return Predicted(*(value if np.isfinite(value) else None for value in (float(drawn[-1]), *bounds)))
