"""Arrow schemas of the public tables of a run, explicit and the same in every shard.

What `factory/tables.py` writes and people load. Every column may be null for Arrow, since `datasets` drops that mark
and files that differ in it cannot be concatenated; which are ever null is said here. Text is plain ``string``:
`datasets` refuses to join it with ``large_string``. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from schemas.arrow import TEXT_TYPE, VERSION_KEY

TABLES_VERSION: Final = 1
CONFIGS: Final = ("sft", "candidates", "runs")

_TEXT: Final = pa.string()
_TURNS: Final = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_TIME: Final = pa.timestamp("us", tz="UTC")


def _schema(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={VERSION_KEY: f"{name}/{TABLES_VERSION}".encode()})


# One accepted trace, ready for fine-tuning.
SFT: Final = _schema(
    "sft",
    [
        ("trace_id", _TEXT),
        ("problem_id", _TEXT),
        ("messages", _TURNS),  # optional system turn, the problem's turns, the completion as the assistant's
        ("num_tokens", pa.int32()),  # of the completion, by the teacher's tokenizer
        ("reasoning_tokens", pa.int32()),  # of them up to and including the closing tag; null if not known
        ("source", _TEXT),
        ("source_row_id", _TEXT),
        ("license", _TEXT),
        ("domain", _TEXT),
        ("language", _TEXT),
        ("reference", _TEXT),  # the answer or letter as text; tests and scorers as JSON
        ("outcome", _TEXT),
        ("checks", pa.list_(_TEXT)),  # name@version:outcome
        ("pass_rate", pa.float64()),  # num_true / num_judged
        ("pass_rate_unbiased", pa.float64()),  # of the first attempts alone: factory/ADAPTIVE.md
        ("num_true", pa.int32()),  # attempts at this problem whose answer is right
        ("num_judged", pa.int32()),  # attempts whose answer is right or wrong: what pass_rate counts
        ("teacher", _TEXT),
        ("teacher_revision", _TEXT),
        ("fingerprint", _TEXT),  # of the run: key into `runs`
        ("selection_digest", _TEXT),
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
        ("license", _TEXT),
        ("messages", _TURNS),  # the problem's own turns
        ("prompt_sha256", _TEXT),  # of the text that the teacher was given
        ("reference", _TEXT),
        ("reference_hash", _TEXT),  # null without a reference
        ("format", _TEXT),
        ("text", _TEXT),  # the completion as the engine gave it; the next two are derived from it
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

# One generation run.
RUNS: Final = _schema(
    "runs",
    [
        ("fingerprint", _TEXT),
        ("name", _TEXT),
        ("teacher", _TEXT),
        ("teacher_revision", _TEXT),
        ("engine", _TEXT),
        ("engine_version", _TEXT),
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

SCHEMAS: Final[Mapping[str, pa.Schema]] = {"sft": SFT, "candidates": CANDIDATES, "runs": RUNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """What the table ``runs`` says of one run. Times are Unix microseconds (UTC)."""

    fingerprint: str
    name: str
    teacher: str
    teacher_revision: str
    engine: str
    engine_version: str
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
    row["verifiers"] = [{"name": name, "version": version} for name, version in sorted(run.verifiers.items())]
    row["started_at"] = to_time(run.started_at_us)
    row["finished_at"] = None if run.finished_at_us is None else to_time(run.finished_at_us)
    return row


def to_time(us: int) -> datetime:
    """Return Unix microseconds as a time, exactly: a float of seconds would lose the last digit."""
    seconds, rest = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest)
