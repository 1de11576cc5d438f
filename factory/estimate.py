"""What a job would make and cost, before anything is started: `--dry-run` prints it.

Every figure says where it comes from. Where the job's run has enough problems already, they are a pilot (`pilot`), and
tokens, time and accepted samples are predicted from it, with an interval. Else what only the user can know (how fast an
engine is, how long completions get) is stated in ``teacher.price``; without it the figures that need it are missing,
and say what is. Nothing is guessed but what names itself an estimate, and nothing is started here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from factory.pilot import LEVEL, MIN_PROBLEMS, Predicted, Prediction, Totals
from schemas.config import ImportedTeacher, JobConfig, ReplayTeacher, VllmTeacher
from schemas.problem import Prompt

CHARACTERS_PER_TOKEN: Final = 4  # of English, a rule of thumb, for prompts whose tokenizer is not at hand

# A journal frame holds text and token ids as they are, 4 bytes an id. Text is 2.6 bytes a token in 400 chains of
# thought of Qwen2.5-Math (a byte-level BPE of 18,000 tokens); the rest of a frame was 591 bytes in a run of the demo
# (1,200 traces, vLLM). Segments go once they are judged and committed, so this is the most there can be at a time.
JOURNAL_BYTES_PER_TOKEN: Final = 6.6
JOURNAL_BYTES_PER_ATTEMPT: Final = 590
# zstd Parquet. 0.9 bytes a token for the text and as much for the ids, in 50 of those chains, each of another problem;
# the text is kept four times (traces; text and its parts in `candidates`; `sft`), the ids once. With eight attempts at
# each problem it was less than half of that, so this is the upper end. All else was 394 bytes an attempt in the demo's
# run: ids, times, verdicts, the other columns of the tables.
STORED_BYTES_PER_TOKEN: Final = 4.5
STORED_BYTES_PER_ATTEMPT: Final = 400


_AT_MOST: Final = ", at most: schedule.adaptive makes what is needed, and what follows is of all of them"


class Figure(NamedTuple):
    """A number, None where it cannot be known, and where it comes from or what is missing."""

    value: float | None
    origin: str
    low: float | None = None  # of the interval of a prediction
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCount:
    """The prompts of a job, each counted once."""

    num_prompts: int
    num_tokens: int
    is_estimated: bool  # from characters: nobody here knows the tokenizer


def count_prompts(prompts: Iterable[Prompt]) -> PromptCount:
    """Return how many prompts there are, and their tokens; estimated where a prompt came without token ids."""
    num_prompts = num_tokens = 0
    is_estimated = False
    for prompt in prompts:
        num_prompts += 1
        num_tokens += len(prompt.token_ids) or -(-_num_characters(prompt.text) // CHARACTERS_PER_TOKEN)
        is_estimated |= not prompt.token_ids
    return PromptCount(num_prompts=num_prompts, num_tokens=num_tokens, is_estimated=is_estimated)


def _num_characters(text: str) -> int:
    """Return the length of a prompt: of its turns' contents, where it is the JSON of turns."""
    if not text.startswith("["):
        return len(text)
    try:
        return sum(len(turn["content"]) for turn in json.loads(text))
    except (ValueError, TypeError, KeyError):  # raw text that begins so
        return len(text)


def estimate(job: JobConfig, counted: PromptCount, predicted: Prediction | None = None) -> dict[str, Figure]:
    """Return the figures of a job by name, with the unit in it, in the order in which they follow from one another."""
    num_samples = job.sampling.num_samples
    requests = counted.num_prompts * num_samples
    bound = "" if job.schedule.adaptive is None else _AT_MOST if predicted is None else ", at most"
    how = f"characters / {CHARACTERS_PER_TOKEN}, an estimate" if counted.is_estimated else "the teacher's tokenizer"
    figures = {
        "problems": Figure(counted.num_prompts, "the sources, without rows set aside"),
        "requests": Figure(requests, f"problems x sampling.num_samples ({num_samples}){bound}"),
        "prompt_tokens": Figure(counted.num_tokens * num_samples, f"{how}; a prompt counts once per request"),
        "output_tokens_at_most": _output_tokens_at_most(job, requests),
        "output_tokens": _output_tokens(job, requests) if predicted is None else _predicted_tokens(predicted),
    }
    speed = _speed_of(job, predicted)
    figures |= _engine_figures(job, figures["output_tokens"], speed)
    if predicted is not None:
        figures |= _accepted_figures(predicted, speed, _num_gpus(job))
    return figures | _disk_figures(requests, figures["output_tokens"])


def estimate_domains(job: JobConfig, predicted: Prediction) -> dict[str, dict[str, Figure]]:
    """Return what each domain of a job takes and gives, as predicted for the whole; of some the pilot has too few."""
    speed, num_gpus = _speed_of(job, predicted), _num_gpus(job)
    return {
        domain: {"output_tokens": _of(found.tokens, _origin_of(found))} | _accepted_figures(found, speed, num_gpus)
        for domain, found in predicted.by_domain.items()
    }


def _most_tokens(job: JobConfig) -> tuple[int, str]:
    """Return how many tokens a completion can have, and which key says so."""
    context = getattr(job.teacher, "engine", job.teacher)
    limit = getattr(context, "max_model_len", None)
    most = max((job.sampling.max_tokens, *job.sampling.max_tokens_by_domain.values()))
    if limit is not None and limit < most:
        return limit, "max_model_len"
    return most, "sampling.max_tokens"


def _output_tokens_at_most(job: JobConfig, requests: int) -> Figure:
    if isinstance(job.teacher, ReplayTeacher | ImportedTeacher):
        return Figure(None, "a recording is as long as it is")
    most, key = _most_tokens(job)
    return Figure(requests * most, f"requests x {key} ({most:,})")


def _output_tokens(job: JobConfig, requests: int) -> Figure:
    if not isinstance(job.teacher, VllmTeacher):
        return Figure(None, f"only a teacher of kind vllm has a price, this one is of kind {job.teacher.kind}")
    mean = job.teacher.price.mean_tokens
    most, key = _most_tokens(job)
    if mean is None:
        return Figure(None, "teacher.price.mean_tokens is not stated: the tokens of an average completion")
    if mean > most:
        return Figure(
            requests * most,
            f"requests x {key} ({most:,}): teacher.price.mean_tokens ({mean:,g}) is above it",
        )
    return Figure(round(requests * mean), f"requests x teacher.price.mean_tokens ({mean:,g}, stated)")


class _Speed(NamedTuple):
    """Output tokens per second of one engine, all its GPUs; None where nobody said."""

    tokens_per_s: float | None
    origin: str


def _num_gpus(job: JobConfig) -> int:
    """Return the GPUs of an engine; one that needs none counts as one."""
    if isinstance(job.teacher, VllmTeacher):
        return job.teacher.engine.num_gpus
    return max(1, getattr(job.teacher, "num_gpus", 1))


def _stated_speed(job: JobConfig) -> _Speed:
    speed = job.teacher.price.tokens_per_s if isinstance(job.teacher, VllmTeacher) else None
    if speed is None:
        return _Speed(
            None, "teacher.price.tokens_per_s is not stated: output tokens per second of one engine, all its GPUs"
        )
    return _Speed(speed, f"teacher.price.tokens_per_s ({speed:,g}, stated)")


def _speed_of(job: JobConfig, predicted: Prediction | None) -> _Speed:
    return _stated_speed(job) if predicted is None or not predicted.spent.num_tokens else _pilot_speed(job, predicted)


def _pilot_speed(job: JobConfig, predicted: Prediction) -> _Speed:
    """Return the speed of the pilot's engines while they were loaded; its time without GPUs is that of engines."""
    spent = predicted.spent
    each = _num_gpus(job) if spent.has_gpus else 1
    speed = spent.num_tokens / max(spent.feeding_s, 1e-3) * each
    what = "" if spent.has_gpus else ", on engines without GPUs, which count as one"
    return _Speed(speed, f"the pilot's {speed:,.0f} tokens/s per engine, without loading, its tail included{what}")


def _engine_figures(job: JobConfig, output_tokens: Figure, speed: _Speed) -> dict[str, Figure]:
    """Return time and cost at the speed of an engine that is always full: no start, no tail, no deaths."""
    missing = None
    if output_tokens.value is None:
        missing = Figure(None, f"needs output_tokens: {output_tokens.origin}")
    elif speed.tokens_per_s is None:
        missing = Figure(None, speed.origin)
    if missing is not None or speed.tokens_per_s is None:
        return dict.fromkeys(("gpu_hours", "wall_clock_hours", "cost"), missing or Figure(None, speed.origin))
    num_gpus, num_engines = _num_gpus(job), job.teacher.num_engines
    hours_per_token = 1 / speed.tokens_per_s / 3600
    gpu_hours = _scaled(
        output_tokens, hours_per_token * num_gpus, f"output_tokens / {speed.origin} / 3600 x {num_gpus} GPUs per engine"
    )
    hours = _scaled(
        output_tokens, hours_per_token / num_engines, f"gpu_hours / {num_gpus} / {num_engines} engines, all busy"
    )
    return {"gpu_hours": gpu_hours, "wall_clock_hours": hours, "cost": _cost(job, gpu_hours)}


def _scaled(figure: Figure, factor: float, origin: str) -> Figure:
    value, low, high = (None if one is None else float(one) * factor for one in (figure.value, figure.low, figure.high))
    return Figure(value, origin, low, high)


def _cost(job: JobConfig, gpu_hours: Figure) -> Figure:
    price = job.teacher.price if isinstance(job.teacher, VllmTeacher) else None
    if price is None:
        return Figure(None, f"only a teacher of kind vllm has a price, this one is of kind {job.teacher.kind}")
    if price.gpu_hour_cost is None:
        return Figure(None, "teacher.price.gpu_hour_cost is not stated: what a GPU costs per hour")
    origin = f"{price.currency}: gpu_hours x teacher.price.gpu_hour_cost ({price.gpu_hour_cost:g}, stated)"
    return _scaled(gpu_hours, price.gpu_hour_cost, origin)


def _predicted_tokens(predicted: Prediction) -> Figure:
    return _of(
        predicted.tokens,
        f"the means of {_pilot_words(predicted)} by source x problems; interval of {LEVEL:.0%}, drawing problems anew. "
        "Of a sorted source the first problems are not like the others",
    )


def _pilot_words(predicted: Prediction) -> str:
    still_open = f" ({predicted.num_open} more are not ended: long attempts may be missing)"
    return f"the run's {predicted.num_pilot:,} ended problems{still_open if predicted.num_open else ''}"


def _accepted_figures(predicted: Totals, speed: _Speed, num_gpus: int) -> dict[str, Figure]:
    origin = _origin_of(predicted)
    each = _of(predicted.tokens_per_accepted, "output_tokens / accepted, drawn together")
    if not predicted.is_known:
        each = Figure(None, origin)
    elif predicted.tokens_per_accepted.value is None:
        each = Figure(None, "the run has no accepted sample yet")
    seconds = Figure(None, each.origin if each.value is None else speed.origin)
    if speed.tokens_per_s is not None and each.value is not None:
        seconds = _scaled(each, num_gpus / speed.tokens_per_s, "tokens_per_accepted x gpu_hours x 3600 / output_tokens")
    return {"accepted": _of(predicted.accepted, origin), "tokens_per_accepted": each, "gpu_s_per_accepted": seconds}


def _origin_of(predicted: Totals) -> str:
    if not predicted.is_known:
        return f"too few: {predicted.num_pilot} problems of the run have ended, and {MIN_PROBLEMS} are needed"
    return f"as output_tokens, from {predicted.num_pilot:,} problems of the run"


def _of(predicted: Predicted, origin: str) -> Figure:
    return Figure(predicted.value, origin, predicted.low, predicted.high)


def _disk_figures(requests: int, output_tokens: Figure) -> dict[str, Figure]:
    if output_tokens.value is None:
        missing = Figure(None, f"needs output_tokens: {output_tokens.origin}")
        return {"journal_bytes_at_most": missing, "stored_bytes": missing}
    tokens = float(output_tokens.value)
    return {
        "journal_bytes_at_most": Figure(
            round(tokens * JOURNAL_BYTES_PER_TOKEN + requests * JOURNAL_BYTES_PER_ATTEMPT),
            f"{JOURNAL_BYTES_PER_TOKEN} per output token and {JOURNAL_BYTES_PER_ATTEMPT} per request, measured; "
            "if nothing were judged before the end, and gone once all is",
        ),
        "stored_bytes": Figure(
            round(tokens * STORED_BYTES_PER_TOKEN + requests * STORED_BYTES_PER_ATTEMPT),
            f"{STORED_BYTES_PER_TOKEN} per output token and {STORED_BYTES_PER_ATTEMPT} per request, measured, "
            "upper end: traces, verdicts and tables in zstd Parquet",
        ),
    }


def as_json(figures: Mapping[str, Figure]) -> dict[str, dict[str, float | str | None]]:
    """Return the figures as JSON values."""
    return {
        name: {"value": figure.value, "low": figure.low, "high": figure.high, "from": figure.origin}
        for name, figure in figures.items()
    }
