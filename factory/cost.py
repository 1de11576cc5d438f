"""What an accepted sample costs: output tokens and engine time, in all, by domain, and of the dearest problems.

Cost is everything spent at a problem over the samples of it that are accepted: attempts that were wrong, cut, aborted
or cancelled count, and so do tokens saved of attempts that go on. Engine time is known of whole engines only, so it is
shared out over problems by their tokens. Used by status, the report and the prediction of a job. Reads only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory.journal import Piece, scan_segment
from factory.ledgers import Spent, read_ledgers, spent_of
from factory.rules import most_per_problem
from factory.saved import SavedAttempts
from factory.state import ENDED, FALSE, JUDGED, TRACED, TRUE, USEFUL, RunState
from factory.store import RunFolder
from schemas.config import SelectConfig
from schemas.manifest import Manifest

NUM_DEAREST: Final = 10

Tokens_P = npt.NDArray[np.int64]  # P: by the place of a problem
Codes_P = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was spent at some problems, and per accepted sample of theirs; null where none is accepted."""

    name: str  # a domain, or the id of a problem
    num_tokens: int
    num_accepted: int
    device_s: float
    tokens_per_accepted: float | None
    device_s_per_accepted: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of a run. ``by_domain`` sums up to ``whole``."""

    device: str  # what ``device_s`` is of: GPU; engine, where engines have no GPUs
    whole: Cost
    by_domain: tuple[Cost, ...]  # the dearest first
    dearest: tuple[Cost, ...]  # problems; those without an accepted sample first, by their tokens
    num_tokens_unkept: int  # in no other figure: lost with an engine or a start, or in flight and not yet saved


class Labels(NamedTuple):
    """A word for every problem: ``names[codes[place]]``."""

    names: list[str]
    codes: Codes_P

    def at(self, places: npt.NDArray[np.bool_]) -> Labels:
        """Return the words of these problems alone."""
        return Labels(self.names, self.codes[places])

    def are(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which problems have this word."""
        found: npt.NDArray[np.bool_] = self.codes == (self.names.index(name) if name in self.names else -1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """What was spent and made at every problem of a run, by place."""

    tokens: Tokens_P
    accepted: Tokens_P
    domains: Labels
    sources: Labels


class Journaled(NamedTuple):
    """What the journal holds and no manifest."""

    num_traces: int
    tokens: Tokens_P  # of them, and of what is saved of attempts that have not ended


def read_journaled(folder: RunFolder, state: RunState) -> Journaled:
    """Return what the journal holds and no manifest."""
    made: dict[int, int] = {}
    pieces: list[tuple[str, Piece]] = []  # with the engine; their tokens are not read
    for path in folder.leftover_segments():
        try:
            scan = scan_segment(path)
        except FileNotFoundError:  # committed and removed since the listing
            continue
        ids, indices = [traced.problem_id for traced in scan.traces], [traced.sample_index for traced in scan.traces]
        made |= {
            number: traced.num_tokens
            for number, traced in zip(state.numbers(ids, indices).tolist(), scan.traces, strict=True)
            if not state.flags[number] & TRACED
        }
        pieces += [(scan.header.engine_id, piece) for piece in scan.pieces] if scan.header is not None else []
    tokens = np.zeros(len(state.problems), np.int64)
    for number, num_tokens in (made | _saved(pieces, state, made)).items():
        tokens[number // state.num_samples] += num_tokens
    return Journaled(len(made), tokens)


def _saved(pieces: list[tuple[str, Piece]], state: RunState, made: dict[int, int]) -> dict[int, int]:
    """Return the tokens saved of attempts that have not ended, by number."""
    saved = SavedAttempts()
    numbers = state.numbers([piece.problem_id for _, piece in pieces], [piece.sample_index for _, piece in pieces])
    for number, (engine_id, piece) in zip(numbers.tolist(), pieces, strict=True):
        if number not in made and not state.flags[number] & ENDED:
            saved.add(state.key(number), engine_id, piece)
    return {state.number(key): saved.num_tokens(key) for key in saved.keys()}  # noqa: SIM118  no mapping


def num_accepted(num_correct: Tokens_P, num_true: Tokens_P, num_judged: Tokens_P, select: SelectConfig) -> Tokens_P:
    """Return how many of a problem's correct traces a selection chooses: which ones does not matter to their number.

    ``num_correct`` are readable and right, ``num_true`` right, ``num_judged`` right or wrong. Before quotas: what is
    over one was made and judged all the same. Texts and lengths are not looked at, so that near-duplicates, and lucky
    guesses of a rule that takes several, are counted.
    """
    most = most_per_problem(select)
    chosen = num_correct if most is None else np.minimum(num_correct, most)
    if select.rule != "hard_subset":
        return chosen
    return np.where(num_true / np.maximum(1, num_judged) > select.max_pass_rate, 0, chosen)


def read_problems(
    folder: RunFolder, manifest: Manifest, state: RunState, journaled: Journaled, select: SelectConfig
) -> Problems:
    """Return what was spent at every problem, and what of it a selection accepts by the verdicts of today."""
    tokens = journaled.tokens.copy()
    for kind, shards, column in (
        ("traces", manifest.traces, "num_completion_tokens"),
        ("untraced", manifest.untraced, "num_tokens"),
    ):
        rows = folder.columns_of(kind, shards, ["problem_id", column])  # type: ignore[arg-type]  # both are kinds
        np.add.at(tokens, state.problems.places(rows["problem_id"]), rows[column].to_numpy())
    words = state.words.reshape(-1, state.num_samples)
    correct, true, judged = (
        has.sum(axis=1, dtype=np.int64)
        for has in (words & (USEFUL | TRUE) == USEFUL | TRUE, words & TRUE > 0, words & (TRUE | FALSE) > 0)
    )
    rows = folder.columns_of("problems", manifest.problems, ["problem_id", "domain", "source"])
    places = state.problems.places(rows["problem_id"])
    return Problems(
        tokens=tokens,
        accepted=num_accepted(correct, true, judged, select),
        domains=_labels(rows["domain"], places, len(state.problems)),
        sources=_labels(rows["source"], places, len(state.problems)),
    )


def _labels(words: pa.ChunkedArray, places: npt.NDArray[np.int64], num_problems: int) -> Labels:
    codes = np.zeros(num_problems, np.int64)
    if not len(words):
        return Labels([], codes)
    encoded = words.combine_chunks().dictionary_encode()
    codes[places] = encoded.indices.to_numpy()
    return Labels(encoded.dictionary.to_pylist(), codes)


def has_ended(state: RunState) -> npt.NDArray[np.bool_]:
    """Return by place whether all is done at a problem: every attempt has ended, and every trace is judged."""
    flags = state.flags.reshape(-1, state.num_samples)
    is_done = (flags & JUDGED > 0) | ((flags & ENDED > 0) & (flags & TRACED == 0))
    done: npt.NDArray[np.bool_] = is_done.all(axis=1)
    return done


def share_out(total_s: float, tokens: Tokens_P) -> npt.NDArray[np.float64]:
    """Return the time of each problem: as its tokens are to all of them. The sum is ``total_s``, if there are any."""
    return tokens.astype(np.float64) * np.float64(total_s / max(1, int(tokens.sum())))


def costs_of(found: Problems, ids: pa.Array, spent: Spent) -> Costs:
    """Return the costs of a run: of the whole, of its domains, of its dearest problems (``ids`` by place)."""
    seconds = share_out(spent.device_s, found.tokens)
    total = int(found.tokens.sum())
    num_domains = len(found.domains.names)
    sums = [_sums_by(found.domains.codes, values, num_domains) for values in (found.tokens, found.accepted, seconds)]
    domains = [_cost(name, *row) for name, *row in zip(found.domains.names, *sums, strict=True)]
    spent_at = np.flatnonzero(found.tokens)
    ratios = np.where(found.accepted > 0, found.tokens / np.maximum(1, found.accepted), np.inf)[spent_at]
    order = spent_at[np.lexsort((-found.tokens[spent_at], -ratios))][:NUM_DEAREST].tolist()
    return Costs(
        device=spent.device,
        whole=_cost("all", total, int(found.accepted.sum()), spent.device_s),
        by_domain=tuple(sorted((one for one in domains if one.num_tokens), key=_dearness)),
        dearest=tuple(
            _cost(str(ids[place]), int(found.tokens[place]), int(found.accepted[place]), float(seconds[place]))
            for place in order
        ),
        num_tokens_unkept=max(0, spent.num_tokens - total),
    )


def _sums_by(codes: Codes_P, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], num: int) -> list[float]:
    sums = np.zeros(num, values.dtype)
    np.add.at(sums, codes, values)
    listed: list[float] = sums.tolist()
    return listed


def _cost(name: str, num_tokens: float, num_accepted: float, device_s: float) -> Cost:
    return Cost(
        name=name,
        num_tokens=int(num_tokens),
        num_accepted=int(num_accepted),
        device_s=device_s,
        tokens_per_accepted=num_tokens / num_accepted if num_accepted else None,
        device_s_per_accepted=device_s / num_accepted if num_accepted else None,
    )


def _dearness(cost: Cost) -> tuple[bool, float, str]:
    ratio = cost.num_tokens if cost.tokens_per_accepted is None else cost.tokens_per_accepted
    return (cost.tokens_per_accepted is not None, -ratio, cost.name)


def cost_rows(found: Costs) -> list[dict[str, str]]:
    """Return the costs as rows of a table, by column."""
    rows = [("all", found.whole)]
    rows += [(f"domain {cost.name}", cost) for cost in found.by_domain]
    rows += [(cost.name[:12], cost) for cost in found.dearest]
    return [
        {
            "": label,
            "tokens": f"{cost.num_tokens:,}",
            "accepted": f"{cost.num_accepted:,}",
            "tokens each": _ratio(cost.tokens_per_accepted),
            f"{found.device}-seconds each": _ratio(cost.device_s_per_accepted),
        }
        for label, cost in rows
    ]


def _ratio(value: float | None) -> str:
    return "none accepted" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:,.3g}"


def cost_note(found: Costs) -> str:
    """Return what the figures mean, and what is in none of them."""
    what = "GPUs" if found.device == "GPU" else "engines (no GPU is known)"
    return (
        f"{found.whole.device_s:,.0f} {found.device}-seconds: all starts, all time of {what}, idle, loading and dead "
        "too, shared out over problems by their tokens; tokens are of all attempts, whatever became of them; "
        f"{found.num_tokens_unkept:,} more were lost with an engine or a start, or are in flight"
    )


def read_spent(folder: RunFolder) -> Spent:
    """Return what the starts of a run have spent until now.

    Of tokens that is what their ledgers say, or what is kept where that is more: a killed start leaves an old ledger.
    """
    manifest = folder.manifest()
    state = RunState.load(folder, manifest)
    kept = read_problems(folder, manifest, state, read_journaled(folder, state), SelectConfig()).tokens.sum()
    spent = spent_of(read_ledgers(folder.logs))
    return replace(spent, num_tokens=max(spent.num_tokens, int(kept)))
