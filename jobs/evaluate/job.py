"""The job of an evaluation: a benchmark's frozen rows, a teacher, a preset's sampling; the engine does the rest.

Pure but for reading YAML. What a training run does to its problems (cleaning of benchmarks, early abort) is off here:
every item counts, and every attempt goes on to its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from jobs.evaluate.benchmarks import (
    NO_WINDOW,
    ROWS,
    About,
    Benchmark,
    Row,
    Window,
    find_benchmark,
    freeze_benchmark,
    read_rows,
    window_of,
)
from schemas.config import JobConfig, SamplingConfig, override_config, parse_config
from schemas.errors import ConfigError

DEFAULT_PRESET: Final = "r1"
PRESETS: Final = Path(__file__).parent / "presets"
SMALL: Final = {"segment_s": 5, "commit_interval_s": 5}  # a benchmark is small: commit soon
KEPT: Final = ("prompt", "teacher", "sampling", "verify", "store")  # of a job file given by --job


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Published settings: sampling, and by benchmark the attempts at each problem and a window of their dates."""

    name: str
    sampling: Mapping[str, Any]
    samples: Mapping[str, int]
    windows: Mapping[str, Window]


def load_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ConfigError: If there is none.
    """
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise ConfigError(f"--preset {name!r}: there are: {there}")
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    SamplingConfig.model_validate(body["sampling"])
    windows = {benchmark: window_of(*dates) for benchmark, dates in body["windows"].items()}
    return Preset(**body | {"windows": windows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command was given. Who is evaluated: one of model, endpoint (with its model's name), replay, and job."""

    benchmark: str
    data: Path | None = None
    window: Window = NO_WINDOW  # in place of the preset's
    all_dates: bool = False  # whatever the preset says
    model: str | None = None
    endpoint: str | None = None
    api_key_env: str | None = None
    replay: Path | None = None
    job: Path | None = None
    preset: str | None = None
    samples: int | None = None
    run: Path | None = None
    overrides: Sequence[str] = ()


class Prepared(NamedTuple):
    """What is to be run, where, and on which rows."""

    job: JobConfig
    run: Path
    about: About


def prepare(asked: Asked) -> Prepared:
    """Return the job of an evaluation, its benchmark frozen in the folder of the run.

    Raises:
        ConfigError: If the benchmark, the teacher or a setting is not clear, or the run evaluates something else.
    """
    benchmark, path = find_benchmark(asked.benchmark, asked.data)
    base = _base(asked)
    run = asked.run or Path("runs") / f"evaluate-{_name(asked)}-{benchmark.name}"
    if run.parts[:1] == ("s3:",):
        raise ConfigError(f"--run {asked.run}: an evaluation holds its benchmark's rows; give a local or shared folder")
    preset = _preset(asked)
    if asked.all_dates and asked.window != NO_WINDOW:
        raise ConfigError(f"--all-dates and {asked.window.flags}: give one of them")
    window, chosen_by = asked.window, "--since, --before"
    if window == NO_WINDOW and not asked.all_dates and preset is not None and benchmark.name in preset.windows:
        window, chosen_by = preset.windows[benchmark.name], f"preset {preset.name}"
    about = freeze_benchmark(benchmark, path, window, run, chosen_by)
    body = job_body(base, _source(benchmark, run), preset, asked.samples)
    return Prepared(parse_config(override_config(body, asked.overrides), origin="factory evaluate"), run, about)


def _preset(asked: Asked) -> Preset | None:
    """Return the preset asked for; by default that of R1, but nobody samples a recording, and a job says it itself."""
    if asked.preset is not None:
        return load_preset(asked.preset)
    return None if asked.replay is not None or asked.job is not None else load_preset(DEFAULT_PRESET)


def _name(asked: Asked) -> str:
    """Return a short name of who is evaluated, for the folder of the run; of OUT/model, as students are kept, OUT's."""
    files = (path.stem for path in (asked.replay, asked.job) if path is not None)
    named = Path(asked.model).name if asked.model else next(files, "model")
    if asked.model and named == "model" and Path(asked.model).parent.name:
        named = Path(asked.model).parent.name
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in named)


def job_body(
    base: Mapping[str, Any], source: Mapping[str, Any], preset: Preset | None, samples: int | None
) -> dict[str, Any]:
    """Return the job as a job file would state it: a teacher and its prompt, one source, a preset's sampling.

    Raises:
        ConfigError: If neither the preset nor the user says how many samples.
    """
    sampling = {**base.get("sampling", {}), **(preset.sampling if preset else {})}
    if samples is None and preset is not None:
        samples = preset.samples.get(source["name"])
        if samples is None:
            raise ConfigError(f"--samples: preset {preset.name} does not say how many for {source['name']}; give it")
    return {
        "store": SMALL,
        **base,
        "name": f"evaluate-{source['name']}",
        "sources": [source],
        "sampling": sampling | ({} if samples is None else {"num_samples": samples}),
        # A benchmark is what cleaning would drop; an attempt that loops ends at its limit, as in the papers.
        "schedule": {"clean": {"against": [], "near_duplicates": None, "audit": False}, "early_abort": None},
        "select": {"configs": ["candidates", "runs"]},  # an evaluation is never training data
    }


def _base(asked: Asked) -> dict[str, Any]:
    """Return teacher and prompt, or all that counts of a job file."""
    given = [name for name in ("endpoint", "replay", "job") if getattr(asked, name) is not None]
    if len(given) > 1 or (asked.model is not None and given not in ([], ["endpoint"])):
        raise ConfigError("give one of --model, --endpoint with --model, --replay and --job")
    if asked.job is not None:
        return _of_job_file(asked.job)
    if asked.replay is not None:
        return _replay(asked.replay)
    if asked.model is None:
        raise ConfigError("--model: is missing; give a folder or Hub name, with --endpoint URL its name there")
    if asked.endpoint is not None:
        teacher = {"kind": "openai", "model": asked.model, "base_url": asked.endpoint, "api_key_env": asked.api_key_env}
        return {"teacher": {key: value for key, value in teacher.items() if value is not None}}
    return {"teacher": {"kind": "vllm", "model": asked.model}}


def _of_job_file(path: Path) -> dict[str, Any]:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--job {path}: cannot be read as a job file: {error}") from error
    if not isinstance(body, dict) or "teacher" not in body:
        raise ConfigError(f"--job {path}: is no job file with a teacher")
    return {key: body[key] for key in KEPT if key in body}


def _replay(path: Path) -> dict[str, Any]:
    """Return the teacher of recorded outputs; which columns they are in is seen from the first row."""
    row: Row = next((read.row for read in read_rows(path)), {})
    columns = {"problem": next((name for name in ("problem", "question") if name in row), "problem")}
    columns["completion"] = next((name for name in ("completion", "completions", "generations") if name in row), "")
    if not columns["completion"]:
        raise ConfigError(f"--replay {path}: has no column completion(s) or generations; it has {sorted(row)}")
    columns |= {key: name for key, name in (("label", "is_correct"), ("finish_reason", "finish_reason")) if name in row}
    teacher = {"kind": "replay", "path": str(path.resolve()), "columns": columns}
    return {"teacher": teacher, "prompt": {"template": "plain"}}


def _source(benchmark: Benchmark, run: Path) -> dict[str, Any]:
    path = (run / "benchmark" / ROWS).resolve()
    source: dict[str, Any] = {"kind": "jsonl", "name": benchmark.name, "path": str(path)}
    if benchmark.ready is not None:
        return source | {"columns": benchmark.ready}
    row: Row = next(read.row for read in read_rows(path))
    columns = {}
    for key, names in (("problem", benchmark.problem), ("answer", benchmark.answer), ("id", benchmark.row_id)):
        name = next((name for name in names if row.get(name) is not None), None)
        if name is not None:
            columns[key] = name
        elif key != "id":
            raise ConfigError(
                f"--benchmark {benchmark.name}: its rows have no column {' or '.join(names)}; they have {sorted(row)}"
            )
    return source | {"columns": columns}
