"""What a selection makes of candidates, and the tables that follow from it.

Second half of building tables, and all of deriving them again: `tables` calls it with what a run holds, `rederive` with
what was published. A pure function of candidates (`FOUND`, all of a problem in one table, by problem_id and trace_id)
and a selection's config. Invariant: a row depends on the candidates of its own problem alone, and on which traces are
over a quota; rows come out by (problem_id, own id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory.buckets import group_starts, one_array
from factory.groups import GroupRow, advantages
from factory.light import LIGHT_COLUMNS, candidates_of, compare_texts, reads_texts
from factory.pairs import Pair, pairs
from factory.selection import Candidate, Decision, Over, over_quotas, select, split_of
from schemas.config import SelectConfig, TableName
from schemas.tables import CANDIDATES, SCHEMAS, SelectedFor
from schemas.trace import THINK_OPEN, FinishReason, TraceFormat
from schemas.verdict import Outcome

TRAIN: Final = "train"
VALIDATION: Final = "validation"
OWN_ID: Final[Mapping[str, str]] = {  # the column that rows are told apart by, after problem_id
    "sft": "trace_id",
    "sft_prompt_completion": "trace_id",
    "preference": "pair_id",
    "rl_prompts": "problem_id",
    "grpo_groups": "trace_id",
    "candidates": "trace_id",
    "runs": "fingerprint",
}

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides, beside the candidates of a problem."""

    config: SelectConfig
    num_first: int  # attempts per problem, by sample index, that were made whatever the others gave
    # Ids of problems of which one of these was cancelled all the same.
    incomplete: pa.StringArray = field(default_factory=lambda: pa.array([], pa.string()))
    digest: str  # of the selection
    over: Over | None = None  # the traces that are over a quota; null where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Candidates after selection."""

    table: pa.Table  # as ``CANDIDATES``
    starts: Places  # where the rows of each problem begin
    groups: Sequence[Sequence[Candidate]]  # by problem, those that have a verdict
    pairs: Sequence[Pair]  # by problem_id and pair_id
    rows: Mapping[str, int]  # the row of each trace
    completions: pa.StringArray  # by row, what the assistant says


def find_over(tables: Iterable[pa.Table], config: SelectConfig) -> Over:
    """Return the traces that are over a quota; of all candidates, with at least ``deciding_columns``."""
    return over_quotas((group for table in tables for group in judged_groups(table, config)), config)


def deciding_columns(config: SelectConfig) -> list[str]:
    """Return the columns of candidates that a selection's decisions depend on."""
    return [*LIGHT_COLUMNS, *(["text"] if reads_texts(config) else [])]


def judged_groups(found: pa.Table, config: SelectConfig) -> list[list[Candidate]]:
    """Return the candidates of each problem that have a verdict, as a selection sees them; perhaps none of one."""
    candidates = list(candidates_of(found, compare_texts(found, config)))
    starts = group_starts(found["problem_id"]).tolist()
    groups = [candidates[start:end] for start, end in zip(starts, [*starts[1:], len(candidates)], strict=False)]
    if found["outcome"].null_count == 0:
        return groups
    return [[candidate for candidate in group if candidate.outcome is not None] for group in groups]


def decide(found: pa.Table, rules: Rules) -> Decided:
    """Return candidates with what the selection makes of them."""
    groups = judged_groups(found, rules.config)
    decisions = list(select(groups, rules.config, rules.over))
    starts = group_starts(found["problem_id"])
    trace_ids = found["trace_id"].to_pylist()
    rows = dict(zip(trace_ids, range(len(trace_ids)), strict=True))
    paired = _paired(groups, decisions, rules.config)
    made = _decision_columns(trace_ids, decisions) | _rate_columns(found, starts, rules)
    made["raw_sha256"] = _sha256_of_each(one_array(found["text"]))
    made["selected_for"] = _selected_for(found, starts, made["is_accepted"], paired, rows)
    made["selection_digest"] = pa.repeat(pa.scalar(rules.digest), found.num_rows)
    return Decided(
        table=_table(CANDIDATES, made, found),
        starts=starts,
        groups=groups,
        pairs=paired,
        rows=rows,
        completions=_completions(found),
    )


def _paired(
    groups: Sequence[Sequence[Candidate]], decisions: Sequence[Sequence[Decision]], config: SelectConfig
) -> list[Pair]:
    made: list[Pair] = []
    for group, of_group in zip(groups, decisions, strict=True):
        made += sorted(pairs(group, of_group, config.preference), key=lambda pair: pair.pair_id)
    return made


def _decision_columns(trace_ids: Sequence[str], decisions: Sequence[Sequence[Decision]]) -> dict[str, pa.Array]:
    by_id = {decision.trace_id: decision for made in decisions for decision in made}
    rows = [by_id.get(trace_id) for trace_id in trace_ids]
    return {
        "is_accepted": pa.array([None if row is None else row.is_accepted for row in rows], pa.bool_()),
        "reject_reason": pa.array([None if row is None else row.reason for row in rows], pa.string()),
        "rank": pa.array([None if row is None else row.rank for row in rows], pa.int32()),
    }


def _sha256_of_each(texts: pa.StringArray) -> pa.StringArray:
    """Return the digest of each text's bytes, read where they lie: as Python strings they would be copied twice."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset).tolist() if len(texts) else [0]
    view = memoryview(data or b"")
    return pa.array([hashlib.sha256(view[start:end]).hexdigest() for start, end in pairwise(ends)], pa.string())


def _selected_for(
    found: pa.Table, starts: Places, is_accepted: pa.Array, paired: Sequence[Pair], rows: Mapping[str, int]
) -> pa.ListArray:
    """Return what each row is taken for, as words."""
    is_usable = np.repeat(_is_usable(found, starts), np.diff(np.append(starts, found.num_rows)))
    masks = {
        SelectedFor.SFT: pc.fill_null(is_accepted, False).to_numpy(zero_copy_only=False),
        SelectedFor.PREFERENCE_CHOSEN: _at([rows[pair.chosen] for pair in paired], found.num_rows),
        SelectedFor.PREFERENCE_REJECTED: _at([rows[pair.rejected] for pair in paired], found.num_rows),
        SelectedFor.RL_PROMPTS: is_usable,
        SelectedFor.GRPO_GROUPS: _has_reward(found),
    }
    is_for = np.column_stack([masks[word] for word in SelectedFor])
    words = pa.array([word.value for word in SelectedFor]).take(pa.array(np.nonzero(is_for)[1]))
    ends = np.concatenate([[0], np.cumsum(is_for.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), words)


def _is_usable(found: pa.Table, starts: Places) -> npt.NDArray[np.bool_]:
    """Return of each problem whether it has a reference that could be used."""
    is_bad = _is(found["outcome"], Outcome.BAD_REFERENCE.value)
    has_reference = found["reference"].take(pa.array(starts)).is_valid().to_numpy()
    usable: npt.NDArray[np.bool_] = has_reference & (_sums(is_bad, starts) == 0)
    return usable


def _has_reward(found: pa.Table) -> npt.NDArray[np.bool_]:
    """Return the rows that `advantages` gives a reward."""
    has_word: npt.NDArray[np.bool_] = found["is_correct"].is_valid().to_numpy() & found["outcome"].is_valid().to_numpy()
    return has_word & ~_is(found["outcome"], Outcome.UNJUDGED.value)


def _at(rows: Sequence[int], num_rows: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(num_rows, bool)
    mask[rows] = True
    return mask


def _rate_columns(found: pa.Table, starts: Places, rules: Rules) -> dict[str, pa.Array]:
    """Return what the attempts at a problem gave, on each of its rows."""
    words = found["is_correct"]
    is_word = words.is_valid().to_numpy()
    is_true = pc.fill_null(words, False).to_numpy()
    is_first = found["sample_index"].to_numpy() < rules.num_first
    if len(rules.incomplete):
        is_first &= ~pc.is_in(found["problem_id"], value_set=rules.incomplete).to_numpy()
    sizes = np.diff(np.append(starts, found.num_rows))
    num_true, num_judged, first_true, first_judged = (
        np.repeat(_sums(mask, starts), sizes) for mask in (is_true, is_word, is_true & is_first, is_word & is_first)
    )
    return {
        "pass_rate": _share(num_true, num_judged),
        # Unbiased given how many of the first attempts were judged, as long as that does not depend on what they give:
        # where some were cancelled it does, and there is none (factory/ADAPTIVE.md).
        "pass_rate_unbiased": _share(first_true, first_judged),
        "num_true": pa.array(num_true, pa.int32()),
        "num_judged": pa.array(num_judged, pa.int32()),
    }


def _sums(mask: npt.NDArray[np.bool_], starts: Places) -> Places:
    """Return how many are true of each group."""
    sums: Places = np.add.reduceat(mask.astype(np.int64), starts) if len(starts) else np.zeros(0, np.int64)
    return sums


def _share(parts: Places, wholes: Places) -> pa.Array:
    values = parts / np.maximum(wholes, 1)
    return pa.array(values, pa.float64(), mask=wholes == 0)


# The tables that follow.


def derive(decided: Decided, name: TableName, config: SelectConfig) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of a table that follow from candidates, by split; a split may have none."""
    table = decided.table if name == "candidates" else _BUILDERS[name](decided, config)
    if name == "candidates" or not config.validation_share:
        yield TRAIN, table
        return
    starts = group_starts(table["problem_id"])
    ids = table["problem_id"].take(pa.array(starts)).to_pylist()
    is_validation = np.array([split_of(problem_id, config.validation_share) == VALIDATION for problem_id in ids], bool)
    mask = np.repeat(is_validation, np.diff(np.append(starts, table.num_rows)))
    yield TRAIN, table.filter(pa.array(~mask))
    yield VALIDATION, table.filter(pa.array(mask))


def splits_of(name: TableName, config: SelectConfig) -> tuple[str, ...]:
    """Return the splits that a table may have."""
    both = config.validation_share and name not in ("candidates", "runs")
    return (TRAIN, VALIDATION) if both else (TRAIN,)


def _sft(decided: Decided, config: SelectConfig) -> pa.Table:
    rows = pc.indices_nonzero(pc.fill_null(decided.table["is_accepted"], False))
    found, completions = decided.table.take(rows), decided.completions.take(rows)
    made = _accepted(found) | {"messages": turns(found["messages"], first=config.system, last=completions)}
    return _table(SCHEMAS["sft"], made, found)


def _sft_prompt_completion(decided: Decided, config: SelectConfig) -> pa.Table:
    rows = pc.indices_nonzero(pc.fill_null(decided.table["is_accepted"], False))
    found, completions = decided.table.take(rows), decided.completions.take(rows)
    made = _accepted(found) | _prompts(found, config) | {"completion": _assistant(completions)}
    return _table(SCHEMAS["sft_prompt_completion"], made, found)


def _accepted(found: pa.Table) -> dict[str, pa.Array]:
    return {
        "num_tokens": found["num_completion_tokens"],
        "reasoning_tokens": found["num_reasoning_tokens"],
        "checks": _check_words(found["checks"]),
    }


def _preference(decided: Decided, config: SelectConfig) -> pa.Table:
    chosen, rejected = (
        pa.array([decided.rows[getattr(pair, side)] for pair in decided.pairs], pa.int64())
        for side in ("chosen", "rejected")
    )
    found, worse = decided.table.take(chosen), decided.table.take(rejected)
    made = _prompts(found, config) | {
        "pair_id": pa.array([pair.pair_id for pair in decided.pairs], pa.string()),
        "rule": pa.array([pair.rule for pair in decided.pairs], pa.string()),
        "chosen": _assistant(decided.completions.take(chosen)),
        "rejected": _assistant(decided.completions.take(rejected)),
        "chosen_trace_id": found["trace_id"],
        "rejected_trace_id": worse["trace_id"],
        "chosen_tokens": found["num_completion_tokens"],
        "rejected_tokens": worse["num_completion_tokens"],
        "rejected_outcome": worse["outcome"],
        "rejected_reason": worse["reason"],
    }
    return _table(SCHEMAS["preference"], made, found)


def _grpo_groups(decided: Decided, config: SelectConfig) -> pa.Table:
    rewarded = [row for group in decided.groups for row in advantages(group)]  # by trace_id within a group
    rows = pa.array([decided.rows[row.trace_id] for row in rewarded], pa.int64())
    found = decided.table.take(rows)
    made: dict[str, Any] = {name: [getattr(row, name) for row in rewarded] for name in GroupRow._fields}
    made |= _prompts(found, config) | {
        "completion": _assistant(decided.completions.take(rows)),
        "num_tokens": found["num_completion_tokens"],
    }
    return _table(SCHEMAS["grpo_groups"], made, found)


def _rl_prompts(decided: Decided, config: SelectConfig) -> pa.Table:
    table, starts = decided.table, decided.starts
    is_usable = _is_usable(table, starts)
    found = table.take(pa.array(starts[is_usable]))
    counts = {
        "num_attempts": np.diff(np.append(starts, table.num_rows)),
        "num_unjudged": _sums(_is(table["outcome"], Outcome.UNJUDGED.value), starts),
        "num_truncated": _sums(_is(table["finish_reason"], FinishReason.LENGTH.value), starts),
    }
    ids = found["problem_id"].to_pylist()
    made: dict[str, Any] = {name: pa.array(values[is_usable], pa.int32()) for name, values in counts.items()}
    made |= _prompts(found, config) | {
        "data_source": found["source"],
        "ability": found["domain"],
        "reward_model": _struct(
            style=pa.repeat(pa.scalar("rule"), len(ids)),
            ground_truth=found["reference"],
        ),
        "extra_info": _struct(
            index=found["problem_id"],
            source_row_id=found["source_row_id"],
            split=pa.array([split_of(problem_id, config.validation_share) for problem_id in ids], pa.string()),
        ),
        "answer": found["reference"],
        "answer_kind": found["reference_kind"],
    }
    return _table(SCHEMAS["rl_prompts"], made, found)


_BUILDERS: Final[Mapping[str, Callable[[Decided, SelectConfig], pa.Table]]] = {
    "sft": _sft,
    "sft_prompt_completion": _sft_prompt_completion,
    "preference": _preference,
    "rl_prompts": _rl_prompts,
    "grpo_groups": _grpo_groups,
}


# Columns.


def _table(schema: pa.Schema, made: Mapping[str, Any], found: pa.Table) -> pa.Table:
    """Return a table of what was made, and of what candidates have under the same name."""
    columns = [made[field.name] if field.name in made else found[field.name] for field in schema]
    return pa.Table.from_arrays([_cast(column, field.type) for column, field in zip(columns, schema, strict=True)],
                                schema=schema)  # fmt: skip


def _cast(column: Any, kind: pa.DataType) -> Any:
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        return pa.array(column, kind)
    return column if column.type == kind else column.cast(kind)


def _is(column: pa.ChunkedArray, word: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.fill_null(pc.equal(column, word), False).to_numpy()
    return found


def _struct(**fields: Any) -> pa.StructArray:
    arrays = [one_array(column) for column in fields.values()]
    return pa.StructArray.from_arrays(arrays, names=list(fields))


def _completions(found: pa.Table) -> pa.StringArray:
    texts = one_array(found["text"])
    if not pc.any(pc.equal(found["format"], TraceFormat.R1_PREFILLED.value)).as_py():
        return texts
    formats = map(TraceFormat, found["format"].to_pylist())
    return pa.array(map(assistant_content, texts.to_pylist(), formats), pa.string())


def assistant_content(text: str, trace_format: TraceFormat) -> str:
    """Return a completion as a student must learn it: as it is, with the opening tag that stood in the prompt put back.

    The tag comes with the line break that R1's chat template puts after it, unless the text begins with one.
    """
    if trace_format is not TraceFormat.R1_PREFILLED or text.lstrip().startswith(THINK_OPEN):
        return text
    return THINK_OPEN + ("" if text.startswith("\n") else "\n") + text


def _prompts(found: pa.Table, config: SelectConfig) -> dict[str, pa.Array]:
    return {"prompt": turns(found["messages"], first=config.system)}


def _assistant(completions: pa.StringArray) -> pa.ListArray:
    """Return each completion as one turn."""
    values = _struct(role=pa.repeat(pa.scalar("assistant"), len(completions)), content=completions)
    return pa.ListArray.from_arrays(pa.array(np.arange(len(completions) + 1, dtype=np.int32)), values)


def turns(
    messages: pa.Array | pa.ChunkedArray, *, first: str | None = None, last: pa.StringArray | None = None
) -> pa.ListArray:
    """Return the turns of each row, with one system turn before all of them, and one of the assistant after each."""
    messages = one_array(messages)
    lengths = pc.fill_null(pc.list_value_length(messages), 0).to_numpy().astype(np.int64)
    values = messages.flatten()
    has_first, has_last = int(first is not None), int(last is not None)
    ends = np.cumsum(lengths + has_first + has_last)
    starts = ends - lengths - has_first - has_last
    # Where each turn comes from: the messages' own, then the system turn, then the completions.
    places = np.zeros(ends[-1] if len(ends) else 0, np.int64)
    own = np.arange(len(values))
    places[np.repeat(starts + has_first - (np.cumsum(lengths) - lengths), lengths) + own] = own
    roles, contents = (one_array(part) for part in values.flatten())
    roles, contents = [roles], [contents]
    if first is not None:
        places[starts] = len(values)
        roles, contents = [*roles, pa.array(["system"])], [*contents, pa.array([first])]
    if last is not None:
        places[ends - 1] = len(values) + has_first + np.arange(len(messages))
        roles, contents = [*roles, pa.repeat(pa.scalar("assistant"), len(last))], [*contents, last]
    taken = pa.array(places)
    turn = _struct(role=pa.concat_arrays(roles).take(taken), content=pa.concat_arrays(contents).take(taken))
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), turn)


def _check_words(checks: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """Return checks as words: name@version:outcome."""
    checks = one_array(checks)
    found = checks.flatten()
    fields = dict(zip((field.name for field in found.type), found.flatten(), strict=True))
    named = pc.binary_join_element_wise(fields["name"], fields["version"], "@")
    words = pc.binary_join_element_wise(named, fields["outcome"], ":")
    ends = np.cumsum(pc.fill_null(pc.list_value_length(checks), 0).to_numpy())
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), words)
