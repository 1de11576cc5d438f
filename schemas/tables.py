"""Arrow schemas of the public tables of a run, explicit and the same in every shard.

What `factory/tables.py` writes and people load. ``candidates`` has everything; all others but ``runs`` follow from it.
Rows are sorted by problem_id, then by their own id, so that all of a problem lies together. Every column may be null
for Arrow, since `datasets` drops that mark and files that differ in it cannot be concatenated; which are ever null is
said here. Text is plain ``string``: `datasets` refuses to join it with ``large_string``. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from schemas.arrow import TEXT_TYPE, VERSION_KEY

TABLES_VERSION: Final = 3
MAX_ROW_BYTES: Final = 2_000_000  # what the Hub's viewer shows of a row (hub-docs, datasets-upload-guide-llm)

# Texts of few values, wherever they stand: only these are dictionary encoded in the files.
FEW_VALUES: Final = frozenset(
    [
        *("source", "license", "domain", "language", "format", "teacher", "teacher_revision", "engine"),
        *("engine_version", "fingerprint", "selection_digest", "finish_reason", "stop_token", "outcome", "reason"),
        *("reject_reason", "rejected_outcome", "rejected_reason", "rule", "reference_kind", "answer_kind", "ability"),
        *("data_source", "style", "split", "role", "name", "version", "rung", "source_revision"),
        "element",  # of a list of texts
    ]
)

_TEXT: Final = pa.string()
_TURNS: Final = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_TIME: Final = pa.timestamp("us", tz="UTC")


def _schema(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{name}/{TABLES_VERSION}".encode()})


_PROBLEM: Final = [  # where a row's problem comes from
    ("source", _TEXT),
    ("source_row_id", _TEXT),
    ("license", _TEXT),
    ("domain", _TEXT),
    ("language", _TEXT),
    ("reference", _TEXT),  # the answer or letter as text; tests and scorers as JSON
]
_GROUP: Final = [  # what the attempts at the problem gave
    ("pass_rate", pa.float64()),  # num_true / num_judged
    ("pass_rate_unbiased", pa.float64()),  # of the first attempts alone: factory/ADAPTIVE.md
    ("num_true", pa.int32()),  # attempts at this problem whose answer is right
    ("num_judged", pa.int32()),  # attempts whose answer is right or wrong: what pass_rate counts
]
_ORIGIN: Final = [  # who made the row
    ("teacher", _TEXT),
    ("teacher_revision", _TEXT),
    ("fingerprint", _TEXT),  # of the run: key into `runs`
    ("selection_digest", _TEXT),
]
_ACCEPTED: Final = [
    ("num_tokens", pa.int32()),  # of the completion, by the teacher's tokenizer
    ("reasoning_tokens", pa.int32()),  # of them up to and including the closing tag; null if not known
    *_PROBLEM,
    ("outcome", _TEXT),
    ("checks", pa.list_(_TEXT)),  # name@version:outcome
    *_GROUP,
    *_ORIGIN,
]

# One accepted trace, ready for fine-tuning.
SFT: Final = _schema(
    "sft",
    [
        ("trace_id", _TEXT),
        ("problem_id", _TEXT),
        ("messages", _TURNS),  # optional system turn, the problem's turns, the completion as the assistant's
        *_ACCEPTED,
    ],
)

# The same rows for trainers that mask by prompt: ``messages`` of SFT = ``prompt`` + ``completion``.
SFT_PROMPT_COMPLETION: Final = _schema(
    "sft_prompt_completion",
    [
        ("trace_id", _TEXT),
        ("problem_id", _TEXT),
        ("prompt", _TURNS),  # all turns but the last
        ("completion", _TURNS),  # one turn, the assistant's
        *_ACCEPTED,
    ],
)

# In these and the next tables turns before the assistant's are those of SFT: the selection's system turn comes first.

# Two traces of one problem, one better than the other.
PREFERENCE: Final = _schema(
    "preference",
    [
        ("pair_id", _TEXT),  # hash of rule, chosen and rejected trace
        ("problem_id", _TEXT),
        ("prompt", _TURNS),
        ("chosen", _TURNS),  # one turn, the assistant's
        ("rejected", _TURNS),
        ("rule", _TEXT),  # long2short_dpo | correct_wrong_pairs
        ("chosen_trace_id", _TEXT),
        ("rejected_trace_id", _TEXT),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("rejected_outcome", _TEXT),  # correct where it is only longer
        ("rejected_reason", _TEXT),
        *_PROBLEM,
        *_GROUP,
        *_ORIGIN,
    ],
)

# One judged attempt with what policy gradients need of its group (all judged attempts at its problem).
GRPO_GROUPS: Final = _schema(
    "grpo_groups",
    [
        ("trace_id", _TEXT),
        ("problem_id", _TEXT),
        ("prompt", _TURNS),
        ("completion", _TURNS),  # one turn, the assistant's
        ("num_tokens", pa.int32()),
        ("outcome", _TEXT),
        ("reason", _TEXT),
        ("reward", pa.float64()),  # 1 where the answer is right, else 0
        ("group_size", pa.int32()),
        ("group_mean", pa.float64()),
        ("group_std", pa.float64()),  # of the group as it is (divided by its size)
        ("advantage", pa.float64()),  # (reward - mean) / std; 0 without variance
        ("has_variance", pa.bool_()),
        *_PROBLEM,
        *_ORIGIN,
    ],
)

# One problem for reinforcement learning, if it has a reference that could be used; `data_source` to `extra_info` are
# what verl reads.
RL_PROMPTS: Final = _schema(
    "rl_prompts",
    [
        ("problem_id", _TEXT),
        ("prompt", _TURNS),
        ("data_source", _TEXT),
        ("ability", _TEXT),  # the domain
        ("reward_model", pa.struct([("style", _TEXT), ("ground_truth", _TEXT)])),
        ("extra_info", pa.struct([("index", _TEXT), ("source_row_id", _TEXT), ("split", _TEXT)])),
        ("answer", _TEXT),  # the reference as text: what a TRL reward function gets as a column
        ("answer_kind", _TEXT),  # answer | choice | tests | scorer
        *_PROBLEM,
        *_GROUP,
        ("num_attempts", pa.int32()),  # traces, judged or not
        ("num_unjudged", pa.int32()),  # our failures: in no rate
        ("num_truncated", pa.int32()),  # ended at the token limit
        *_ORIGIN,
    ],
)

CHECK_ROW: Final = pa.struct(
    [
        ("name", _TEXT),
        ("version", _TEXT),
        ("outcome", _TEXT),
        ("reason", _TEXT),
        ("start", pa.int64()),  # characters of `text`
        ("end", pa.int64()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("rung", _TEXT),  # final answers: how it was compared
        ("extracted", _TEXT),
        ("answer_form", _TEXT),
        ("reference_form", _TEXT),
        ("tests_run", pa.int32()),  # programs
        ("tests_passed", pa.int32()),
        ("text", pa.struct([(field.name, field.type) for field in TEXT_TYPE])),  # of the check "statistics" alone
    ]
)


class SelectedFor(StrEnum):
    """What a selection takes a trace for, whether ``select.configs`` has the table written or not; closed list."""

    SFT = "sft"  # also of sft_prompt_completion, which has the same rows
    PREFERENCE_CHOSEN = "preference_chosen"  # the better side of a pair at least
    PREFERENCE_REJECTED = "preference_rejected"  # the worse side of one
    RL_PROMPTS = "rl_prompts"  # its problem is a row, whose rates count it
    GRPO_GROUPS = "grpo_groups"


# Columns of a candidate that follow from the others, the selection's config, and how many first attempts there were.
DECIDED: Final = (
    *("raw_sha256", "is_accepted", "reject_reason", "rank", "selected_for"),
    *("pass_rate", "pass_rate_unbiased", "num_true", "num_judged", "selection_digest"),
)

# One trace, accepted or not, with all that was found in it.
CANDIDATES: Final = _schema(
    "candidates",
    [
        ("trace_id", _TEXT),
        ("problem_id", _TEXT),
        ("sample_index", pa.int32()),
        ("fingerprint", _TEXT),
        ("domain", _TEXT),
        ("language", _TEXT),
        ("source", _TEXT),
        ("source_row_id", _TEXT),
        # What the row was read from: sha256:HEX of its file (of all files of a local dataset), the commit on the Hub,
        # or the version of reasoning-gym. Null: not known, as of problems that were frozen by an older version.
        ("source_revision", _TEXT),
        ("license", _TEXT),
        ("messages", _TURNS),  # the problem's own turns
        ("prompt_sha256", _TEXT),  # of the text that the teacher was given
        ("reference", _TEXT),
        ("reference_kind", _TEXT),  # answer | choice | tests | scorer; null without a reference
        ("reference_hash", _TEXT),  # null without a reference
        ("format", _TEXT),
        ("text", _TEXT),  # the completion as the engine gave it; the next three are derived from it
        ("raw_sha256", _TEXT),  # of its UTF-8
        ("reasoning", _TEXT),  # null where no thinking part is found
        ("response", _TEXT),
        ("finish_reason", _TEXT),
        ("finish_detail", _TEXT),
        ("stop_token", _TEXT),
        ("num_prompt_tokens", pa.int32()),
        ("num_completion_tokens", pa.int32()),
        ("num_reasoning_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("outcome", _TEXT),  # null: not judged yet
        ("reason", _TEXT),
        ("is_correct", pa.bool_()),
        ("checks", pa.list_(CHECK_ROW)),
        ("is_accepted", pa.bool_()),  # null: not judged, so neither accepted nor rejected
        ("reject_reason", _TEXT),
        ("rank", pa.int32()),  # among the problem's correct traces, in the order of the rule
        ("selected_for", pa.list_(_TEXT)),  # `SelectedFor`, in that order; empty: for nothing
        ("pass_rate", pa.float64()),
        ("pass_rate_unbiased", pa.float64()),
        ("num_true", pa.int32()),
        ("num_judged", pa.int32()),
        ("teacher", _TEXT),
        ("teacher_revision", _TEXT),
        ("engine", _TEXT),
        ("engine_version", _TEXT),
        ("submitted_at", _TIME),
        ("finished_at", _TIME),
        ("selection_digest", _TEXT),
    ],
)

LOADED: Final[Mapping[str, pa.DataType]] = {  # of an engine's model, as it resolved its settings
    "dtype": _TEXT,
    "quantization": _TEXT,  # `none`: the weights as they are
    "tensor_parallel_size": pa.int32(),
    "pipeline_parallel_size": pa.int32(),
    "host_class": _TEXT,  # name of the GPU, or of the CPU where there is none; null where it has no name
}

# One generation run.
RUNS: Final = _schema(
    "runs",
    [
        ("fingerprint", _TEXT),
        ("name", _TEXT),
        ("teacher", _TEXT),
        ("teacher_revision", _TEXT),
        ("tokenizer_sha256", _TEXT),  # of its tokenizer.json; null where there is none here, or it was not noted
        ("engine", _TEXT),
        ("engine_version", _TEXT),
        # What the teacher was loaded as, each different way once: a run may go on with other hardware. Null where the
        # engine does not say (an endpoint, a recording), or nobody noted it.
        ("engines", pa.list_(pa.struct([(name, kind) for name, kind in LOADED.items()]))),
        (
            "sampling",
            pa.struct(
                [
                    ("num_samples", pa.int32()),
                    ("temperature", pa.float64()),
                    ("top_p", pa.float64()),
                    ("top_k", pa.int32()),
                    ("min_p", pa.float64()),
                    ("repetition_penalty", pa.float64()),
                    ("max_tokens", pa.int32()),
                    ("stop", pa.list_(_TEXT)),
                    ("seed", pa.int64()),
                ]
            ),
        ),
        ("prompt_template", _TEXT),  # its text, `{{ problem }}` standing for the question
        ("system", _TEXT),
        ("chat_template_sha256", _TEXT),  # null: raw text
        ("format", _TEXT),
        ("verifiers", pa.list_(pa.struct([("name", _TEXT), ("version", _TEXT)]))),
        ("code_version", _TEXT),
        ("config", _TEXT),  # the resolved job as JSON: the one column that is, for its many shapes
        ("started_at", _TIME),
        ("finished_at", _TIME),
    ],
)

FOUND: Final = pa.schema([field for field in CANDIDATES if field.name not in DECIDED])  # a candidate before selection

SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "sft": SFT,  # the default of `load_dataset`
    "sft_prompt_completion": SFT_PROMPT_COMPLETION,
    "preference": PREFERENCE,
    "rl_prompts": RL_PROMPTS,
    "grpo_groups": GRPO_GROUPS,
    "candidates": CANDIDATES,
    "runs": RUNS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """What the table ``runs`` says of one run. Times are Unix microseconds (UTC)."""

    fingerprint: str
    name: str
    teacher: str
    teacher_revision: str
    tokenizer_sha256: str | None = None
    engine: str
    engine_version: str
    engines: Sequence[Mapping[str, Any]] | None = None  # with the keys of ``LOADED``
    sampling: Mapping[str, Any]  # the fields of ``SamplingConfig``
    prompt_template: str
    system: str | None
    chat_template_sha256: str | None
    format: str
    verifiers: Mapping[str, str]  # name: version
    code_version: str
    config: str
    started_at_us: int
    finished_at_us: int | None = None


def run_to_row(run: RunRow) -> dict[str, Any]:
    """Return the run as a row of ``RUNS``."""
    row: dict[str, Any] = {name: getattr(run, name) for name in RUNS.names if not name.endswith("_at")}
    row["sampling"] = {**run.sampling, "stop": list(run.sampling.get("stop", ()))}
    row["engines"] = None if run.engines is None else list(run.engines)
    row["verifiers"] = [{"name": name, "version": version} for name, version in sorted(run.verifiers.items())]
    row["started_at"] = to_time(run.started_at_us)
    row["finished_at"] = None if run.finished_at_us is None else to_time(run.finished_at_us)
    return row


def to_time(us: int) -> datetime:
    """Return Unix microseconds as a time, exactly: a float of seconds would lose the last digit."""
    seconds, rest = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest)
