"""Teachers: what turns a rendered prompt into a completion. One protocol, several shipped implementations.

A teacher serves one engine of one actor. Contract, held by the same tests for each implementation: ``generate`` gives
one completion per request, with no more than ``max_tokens`` tokens and the engine's own finish reason; ``abort`` makes
it return with what there is; a bad request fails alone (``RequestError``), a dead engine fails all
(``EngineDeadError``); after ``close`` no process is left. Nothing is judged, stored or retried here.

Where ``EngineInfo.can_resume``, a request may bring tokens that another engine made: the completion is then the whole,
as if one engine had made it. The teachers that cannot: a recording has nothing to go on with, and of an endpoint nobody
knows that it would take a half answer for its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from schemas.config import (
    ImportedTeacher,
    OpenaiTeacher,
    ReplayTeacher,
    SamplingConfig,
    ScriptedTeacher,
    Teacher,
    VllmTeacher,
)
from schemas.errors import ConfigError, TeacherError
from schemas.problem import digest
from schemas.trace import FinishReason

SAMPLED_BYTES: Final = 1 << 20  # of each end of a weights file: reading 140 GB whole would cost minutes at every start
IMPORTED_ONLY: Final = (
    "teacher.kind='imported' generates nothing: such a run is made by `factory import FILES --run DIR`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who wants to know the tokens of a completion before it has ended. A recording has nothing to tell."""

    num_tokens: int  # made since the last call at least, before ``take`` is called again
    # Number of tokens of the completion before these, these, and their text; never raises. An endpoint may give no
    # token ids. One that begins an answer anew begins at 0 again.
    take: Callable[[int, Sequence[int], str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One attempt to make, with its prompt as text and as the teacher's tokens."""

    request_id: str
    problem_id: str
    sample_index: int
    prompt_text: str
    prompt_token_ids: tuple[int, ...]  # empty where only the teacher knows its tokenizer
    seed: int | None = None
    saved: tuple[int, ...] = ()  # tokens of this completion that another engine made; the engine may drop the last few
    watch: Watch | None = None
    max_tokens: int | None = None  # of the completion; None: ``sampling.max_tokens``
    sampling: SamplingConfig | None = None  # of its job, where several share the engine; None: the engine's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine gave, with what it was given to go on from; times in Unix microseconds, of this engine."""

    text: str
    token_ids: tuple[int, ...]  # empty where the teacher gives none
    num_tokens: int
    num_prompt_tokens: int | None = None  # where only the teacher can count them
    finish_reason: FinishReason
    stop_token: str | None
    num_reasoning_tokens: int | None
    submitted_at_us: int
    first_token_at_us: int | None
    finished_at_us: int
    resumed_at: int | None = None  # tokens that another engine made
    label: bool | None = None  # of a recorded completion, as in ``Trace``
    label_answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What an engine's model was loaded as: the fields of `schemas.tables.LOADED`."""

    dtype: str
    quantization: str  # `none`: the weights as they are
    tensor_parallel_size: int
    pipeline_parallel_size: int
    host_class: str | None  # name of the GPU, or of the CPU where there is none; None where it has no name


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine resolved its settings to, asserted and logged at its start."""

    engine: str
    engine_version: str
    max_model_len: int | None  # tokens; None where it is not known
    max_num_seqs: int
    max_num_batched_tokens: int | None
    settings: dict[str, Any]
    loaded: Loaded | None = None  # where a model is loaded here
    can_resume: bool = False  # takes ``Request.saved``


class TeacherEngine(Protocol):
    """One engine."""

    async def start(self) -> EngineInfo:
        """Load the model; return what its settings were resolved to.

        Raises:
            TeacherError: If the model cannot be loaded.
        """

    async def generate(self, request: Request) -> Completion:
        """Return one completion.

        Raises:
            RequestError: If this request cannot be served.
            EngineDeadError: If no request can be served any more.
        """

    async def abort(self, request_id: str) -> None:
        """End a request early; its ``generate`` returns what there is, with finish reason ``abort``."""

    @property
    def num_tokens_out(self) -> int:
        """Tokens generated so far, finished or not: the watchdog's only measure of life."""

    async def close(self) -> None:
        """End the engine and all its processes."""


class TeacherIdentity(NamedTuple):
    """Which model made a text: part of the fingerprint. Paths are no part of it."""

    name: str
    revision: str


def teacher_identity(teacher: Teacher) -> TeacherIdentity:
    """Return name and revision; a local folder's revision is a hash of its configuration and of samples of its weights.

    A recording's is a hash of its files; an endpoint does not say what it serves, so its is what the job states.

    Raises:
        ConfigError: If a local folder holds no model.
        SourceError: If there is no such recording.
    """
    if isinstance(teacher, ScriptedTeacher):
        script = teacher.model_dump(include={"mean_tokens", "correct_rate", "seed"})
        if teacher.loop_rate:
            script["loop_rate"] = teacher.loop_rate
        return TeacherIdentity("scripted", digest(script))
    if isinstance(teacher, OpenaiTeacher):
        return TeacherIdentity(teacher.model, teacher.revision or "unstated")
    if isinstance(teacher, ImportedTeacher):
        return TeacherIdentity(teacher.model, teacher.revision or "unstated")
    if isinstance(teacher, ReplayTeacher):
        from factory.teachers.replay import hash_recording

        return TeacherIdentity(teacher.model, teacher.revision or hash_recording(teacher))
    folder = Path(teacher.model)
    if not folder.is_dir():
        if teacher.model.startswith((".", "/", "~")):
            raise ConfigError(f"teacher.model={teacher.model!r}: no such folder; give a model folder or a Hub name")
        return TeacherIdentity(teacher.model, teacher.revision or "main")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"teacher.model={teacher.model!r}: holds no config.json, so it is no model folder")
    return TeacherIdentity(folder.resolve().name, hash_model_folder(folder))


def hash_model_folder(folder: Path) -> str:
    """Return a hash of every JSON, Jinja and tokenizer file, and of size, first and last MiB of every weights file."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin"):
            total.update(json.dumps([path.name, path.stat().st_size]).encode())
            for chunk in _sampled_chunks(path):
                total.update(chunk)
    return total.hexdigest()[:16]


def _sampled_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.read(SAMPLED_BYTES)
        if path.stat().st_size > 2 * SAMPLED_BYTES:
            file.seek(-SAMPLED_BYTES, 2)
        yield file.read()


def make_engine(teacher: Teacher, sampling: SamplingConfig, *, engine_id: str, incarnation: int) -> TeacherEngine:
    """Return the engine that a job asks for, not yet started. vLLM is imported only where it is used."""
    if isinstance(teacher, VllmTeacher):
        from factory.teachers.vllm import VllmEngine

        return VllmEngine(teacher, sampling)
    if isinstance(teacher, OpenaiTeacher):
        from factory.teachers.openai import OpenaiEngine

        return OpenaiEngine(teacher, sampling)
    if isinstance(teacher, ReplayTeacher):
        from factory.teachers.replay import ReplayEngine

        return ReplayEngine(teacher)
    if isinstance(teacher, ImportedTeacher):
        raise TeacherError(IMPORTED_ONLY)
    from factory.teachers.scripted import ScriptedEngine

    return ScriptedEngine(teacher, sampling, engine_id=engine_id, incarnation=incarnation)
