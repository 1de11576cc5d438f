"""The job file: every option of a run, with its default, its unit and what it may be.

Read from YAML with overrides, resolved, and stored with the run. Unknown keys are errors that name the nearest valid
key. The models are frozen; nothing here touches a network, a model or a process.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.errors import ConfigError
from schemas.problem import Domain
from schemas.readability import DEFAULTS, THRESHOLD_NAMES, Profile, ReadabilitySettings
from schemas.trace import TraceFormat


class Part(BaseModel):
    """Base of every part of a job file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyPart = TypeVar("AnyPart", bound=Part)
TableName = Literal["sft", "sft_prompt_completion", "preference", "rl_prompts", "grpo_groups", "candidates", "runs"]
Difficulty = Literal["easy", "medium", "hard"]  # pass rate above 2/3, from 1/3 on, below
FIXED_NUMBERS: Final[Mapping[str, str]] = {  # what rules take of a problem, whatever `max_per_problem` says
    "one_random": "one",
    "shortest_correct": "one",
    "long_short_mix": "two",
}

# Known datasets whose rows `factory/mappings.py` knows how to read.
READY_MAPPINGS: Final = (
    "numina_math_cot",
    "numina_math_1.5",
    "openr1_math",
    "openthoughts",
    "mixture_of_thoughts",
    "synthetic1",
    "openmathreasoning",
    "math",
    "math500",
    "gsm8k",
    "aime",
    "humaneval",
    "mbpp",
    "livecodebench",
    "taco",
    "apps",
    "code_contests",
    "codeforces",
    "function_tests",
    "gpqa",
)


class Columns(Part):
    """Which column of the source holds what. A dotted name reaches into a struct (``reward_model.ground_truth``).

    In place of a mapping a job may give the name of a known dataset (``columns: gsm8k``), which is ``ready``.
    """

    ready: str | None = None  # a known dataset, in place of problem, messages, answer, letter and options
    problem: str | None = None  # text of the question; or give `messages`
    messages: str | None = None  # list of {role, content}
    answer: str | None = None  # final answer
    letter: str | None = None  # letter of the right option
    options: str | None = None  # list of option texts
    id: str | None = None  # the source's own row id; default: the row number
    license: str | None = None
    language: str | None = None
    domain: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_name(cls, value: Any) -> Any:
        return {"ready": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _asks_something(self) -> Columns:
        if self.ready is not None:
            if self.ready not in READY_MAPPINGS:
                near = difflib.get_close_matches(self.ready.lower(), READY_MAPPINGS, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{self.ready!r} is no known dataset; {hint}there are: {', '.join(READY_MAPPINGS)}")
            both = [key for key in ("problem", "messages", "answer", "letter", "options") if getattr(self, key)]
            if both:
                raise ValueError(f"give `ready` or `{both[0]}`, not both")
            return self
        if (self.problem is None) == (self.messages is None):
            raise ValueError("give exactly one of `problem` and `messages`")
        if self.letter is not None and self.answer is not None:
            raise ValueError("give `answer` or `letter`, not both")
        return self


class SourceBase(Part):
    """What every source of problems has."""

    name: str | None = None  # stands in every problem's `source`; default: from the path or task
    weight: float = Field(default=1.0, gt=0)  # share of the mix when `schedule.max_problems` cuts it
    limit: int | None = Field(default=None, ge=1)  # rows taken at most
    license: str = "unknown"
    language: str = "en"


class RowSource(SourceBase):
    """What every source of rows has."""

    path: str
    columns: Columns
    domain: Domain = Domain.MATH
    answer_kind: str | None = None  # type of the answers, where all have one (text, integer, ...)
    answer_precision: float | None = Field(default=None, gt=0)  # accepted absolute error of every answer
    program_language: Literal["python", "cpp"] = "python"  # of the programs that a known dataset with tests asks for

    @model_validator(mode="after")
    def _has_programs(self) -> RowSource:
        if self.program_language != "python" and self.columns.ready is None:
            raise ValueError("`program_language` is for known datasets with tests: `columns` must be the name of one")
        return self


class FileSource(RowSource):
    """Rows of JSONL or Parquet files; ``path`` may hold a glob."""

    kind: Literal["jsonl", "parquet"]


class DatasetSource(RowSource):
    """A name or local path that ``datasets.load_dataset`` knows."""

    kind: Literal["dataset"]
    config: str | None = None
    split: str = "train"
    revision: str | None = None


class GymSource(SourceBase):
    """Procedurally generated problems of reasoning-gym; ``config`` sets the task's difficulty."""

    kind: Literal["reasoning_gym"]
    task: str
    size: int = Field(ge=1)
    seed: int = 0
    config: dict[str, Any] = Field(default_factory=dict)
    license: str = "Apache-2.0"  # the licence of reasoning-gym, which writes the problems


Source = Annotated[FileSource | DatasetSource | GymSource, Field(discriminator="kind")]


class PromptConfig(Part):
    """How a problem becomes the text that the teacher is given."""

    template: str = "boxed"  # boxed | zero | plain | path of a Jinja file that uses `problem` (and `messages`)
    system: str | None = None  # a system turn put before the problem's own turns
    chat_template: bool | None = None  # wrap in the teacher's chat template; default: all but `zero`
    format: TraceFormat | None = None  # default: from the template and from what was rendered


class Speculation(Part):
    """Tokens drafted cheaply and checked by the model itself: the distribution of the texts stays what it was."""

    method: Literal["mtp", "ngram", "suffix"]  # mtp: by layers that came with the model, as DeepSeek's
    num_tokens: int = Field(ge=1)  # drafted at a time


class EngineOptions(Part):
    """Settings of one vLLM engine; both batch limits are set, since AsyncLLM's own defaults are far too low."""

    max_model_len: int | None = Field(default=None, ge=16)  # tokens; default: the model's own context
    max_num_seqs: int = Field(default=256, ge=1)
    max_num_batched_tokens: int = Field(default=8192, ge=1)
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"  # such as fp8: twice the sequences, other numbers
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    enable_expert_parallel: bool = False  # mixtures of experts: whole experts per GPU, not a slice of each
    # Default: mp, which stays on one node, and ray, in a placement group, where an engine is larger than any node.
    distributed_executor_backend: Literal["mp", "ray"] | None = None
    speculation: Speculation | None = None
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    cpu_kvcache_gib: int | None = Field(default=None, ge=1)  # CPU builds only, which read whole GiB
    enforce_eager: bool = False
    watermark: float = Field(default=0.02, ge=0, lt=1)  # vllm-project/vllm#44594: +4.8 % with long outputs
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _context_fits(self) -> EngineOptions:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} must be >= max_num_seqs={self.max_num_seqs}"
            )
        return self

    @property
    def num_gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class Price(Part):
    """What `--dry-run` prices a job with: stated by you, not measured. It changes nothing of what is run."""

    tokens_per_s: float | None = Field(default=None, gt=0)  # output tokens of one engine, all its GPUs together
    mean_tokens: float | None = Field(default=None, gt=0)  # of a completion, by the teacher's tokenizer
    gpu_hour_cost: float | None = Field(default=None, ge=0)
    currency: str = "USD"


class VllmTeacher(Part):
    """A local vLLM engine per actor. ``model`` is a folder, a Hub name, or ``demo`` for the one in this package."""

    kind: Literal["vllm"]
    model: str
    revision: str | None = None
    tokenizer: str | None = None  # folder or Hub name; default: the model's own
    stage_to: str | None = None  # folder on each node's own disk; `model`, a folder, is copied there once, then loaded
    num_engines: int = Field(default=1, ge=1)
    engine: EngineOptions = EngineOptions()
    price: Price = Price()
    # To get the GPUs of several nodes, and again to load, copying included.
    start_timeout_s: float = Field(default=1800, gt=0)


class OpenaiTeacher(Part):
    """An endpoint that speaks OpenAI's HTTP interface: a vLLM server elsewhere, or a hosted teacher."""

    kind: Literal["openai"]
    model: str  # as the endpoint calls it
    base_url: str  # up to `/v1`, such as http://teacher.example:8000/v1
    revision: str | None = None  # of the model that the endpoint serves, where you know it
    api_key_env: str | None = None  # name of the environment variable that holds the key
    api: Literal["chat", "completions"] | None = None  # default: chat, and completions where prompts are raw text
    num_engines: Literal[1] = 1  # one client: the limits are the endpoint's
    max_in_flight: int = Field(default=64, ge=1)  # requests at a time
    requests_per_min: float | None = Field(default=None, gt=0)  # default: no limit but the endpoint's own (429)
    tokens_per_min: float | None = Field(default=None, gt=0)  # prompt and completion
    max_model_len: int | None = Field(default=None, ge=16)  # tokens; default: what the endpoint says of the model
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # some hosted models know the second
    extra_body: dict[str, Any] = Field(default_factory=dict)  # more keys of every request, such as chat_template_kwargs
    max_tries: int = Field(default=5, ge=1)  # of one request that fails while others succeed
    patience_s: float = Field(default=300, gt=0)  # without any success, until the endpoint is given up
    idle_timeout_s: float = Field(default=300, gt=0)  # without a byte of an answer, until a request is tried again
    start_timeout_s: float = Field(default=60, gt=0)

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.username is not None:
            raise PydanticCustomError("hidden", "must hold no user name or password; keys go by teacher.api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL such as http://teacher.example:8000/v1")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isidentifier()):
            raise PydanticCustomError("hidden", "must be the name of an environment variable, such as TEACHER_KEY")
        return value


class ReplayColumns(Part):
    """Which column of a recording holds what; ``completion`` and its companions may also be lists, one per attempt."""

    problem: str | None = None  # text of the question; or give `messages`
    messages: str | None = None  # list of {role, content}, without the teacher's turn
    completion: str
    reasoning: str | None = None  # where the recording keeps the thinking apart
    finish_reason: str | None = None  # default: every completion ended by itself (`stop`)
    num_tokens: str | None = None  # default: counted with `tokenizer`
    label: str | None = None  # the publisher's word on whether the answer is right
    label_answer: str | None = None  # the answer that the publisher read
    id: str | None = None  # of the attempt; the same twice is refused

    @model_validator(mode="after")
    def _says_what_is_answered(self) -> ReplayColumns:
        if (self.problem is None) == (self.messages is None):
            raise ValueError("give exactly one of `problem` and `messages`")
        return self


class ReplayTeacher(Part):
    """Recorded completions, matched to problems by the text of the question. Nothing is sampled: of ``sampling`` only
    ``num_samples`` counts, and its default is the largest number recorded for one problem."""

    kind: Literal["replay"]
    path: str | None = None  # JSONL or Parquet files; may hold a glob; default: the files of the job's one source
    columns: ReplayColumns
    model: str = "recorded"  # who made them
    revision: str | None = None  # default: a hash of the files and of `columns`
    tokenizer: str = "bytes"  # folder or Hub name of the one that counts tokens; `bytes` counts UTF-8 bytes
    domains: tuple[Domain, ...] = ()  # of the problems; default: those of the job's sources
    num_engines: Literal[1] = 1
    start_timeout_s: float = Field(default=3600, gt=0)  # large recordings are read through once


class ImportedTeacher(Part):
    """Completions of a published set, stored by `factory import`. Nothing is generated; of ``sampling`` only
    ``num_samples`` counts, and its default is the largest number published for one problem."""

    kind: Literal["imported"]
    model: str = "unknown"  # who wrote them, where the rows do not say
    revision: str | None = None  # a hash of the files
    # Folder or Hub name of the one that counts tokens; `bytes` counts UTF-8 bytes. Null: the publisher's counts where
    # there are some, else bytes.
    tokenizer: str | None = None
    num_engines: Literal[1] = 1
    start_timeout_s: float = Field(default=60, gt=0)


RECORDED_KINDS: Final = ("replay", "imported")  # of teachers that sample nothing


class ScriptedTeacher(Part):
    """Made-up completions at a given speed, with failures to order: for drills, tests and simulations."""

    kind: Literal["scripted"]
    num_engines: int = Field(default=1, ge=1)
    max_num_seqs: int = Field(default=32, ge=1)
    max_model_len: int = Field(default=4096, ge=16)
    tokens_per_s: float = Field(default=20_000, gt=0)  # of one engine, shared by what is in flight
    tokens_per_s_each: float | None = Field(default=None, gt=0)  # of one attempt at most, however few are in flight
    mean_tokens: int = Field(default=64, ge=4)
    correct_rate: float = Field(default=0.6, ge=0, le=1)
    loop_rate: float = Field(default=0.0, ge=0, le=1)  # share of completions that say the same until they are ended
    seed: int = 0
    num_gpus: int = Field(default=0, ge=0)  # that an engine reserves one by one, anywhere, and leaves idle
    start_s: float = Field(default=0.0, ge=0)
    dies_after: int | None = Field(default=None, ge=1)  # completions until the first incarnation kills itself
    stalls_after: int | None = Field(default=None, ge=1)  # completions until the first incarnation stops answering
    start_timeout_s: float = Field(default=60, gt=0)


Teacher = Annotated[
    VllmTeacher | OpenaiTeacher | ReplayTeacher | ImportedTeacher | ScriptedTeacher, Field(discriminator="kind")
]


class SamplingConfig(Part):
    """What each attempt is sampled with. All but ``num_samples`` are part of the run's fingerprint."""

    num_samples: int = Field(default=4, ge=1, le=32_767)  # attempts per problem
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)  # 0: off
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=4096, ge=1)  # of the completion; less where the context ends first
    max_tokens_by_domain: dict[Domain, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)  # in place of it
    # Tokens of thinking after which the teacher has to close it. For vllm, and openai where vLLM serves (with its
    # --reasoning-parser).
    thinking_budget: int | None = Field(default=None, ge=1)
    min_tokens: int = Field(default=0, ge=0)  # of the completion, before it may end; teachers of kind vllm only
    stop: tuple[str, ...] = ()
    seed: int | None = None  # gives every attempt a seed of its own; slow on some engines, no promise of equal text

    @model_validator(mode="after")
    def _has_room(self) -> SamplingConfig:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} must be <= max_tokens={self.max_tokens}")
        return self


class AdaptiveConfig(Part):
    """Attempts where they help: at most ``sampling.num_samples`` per problem, and no more than it takes."""

    useful: int = Field(default=2, ge=1)  # right and readable samples that a problem needs; then it gets no more
    min_samples: int = Field(default=2, ge=1)  # attempts that every problem gets, whatever they give
    # A problem is given up where the chance to get there within what is left falls below this; 0: never.
    give_up_below: float = Field(default=0.1, ge=0, lt=1)


class EarlyAbort(Part):
    """When an attempt in flight is given up: its text is past hope, and would be rejected (factory/early.py)."""

    # That repeat themselves exactly at the end, five times or more (three times from 4,096 tokens on). With 1,024 the
    # last passes of a bubble sort, ten equal lists, were taken for a loop (`factory bench early`).
    loop_tokens: int = Field(default=1536, ge=64)


class CleanConfig(Part):
    """Which problems are kept aside, with the reason, before a token is spent on them (factory/CLEAN.md)."""

    # Benchmarks that must not be trained on: `shipped`, names of shipped ones, fingerprint files, or JSONL or Parquet
    # files of their items. An empty list: none.
    against: tuple[str, ...] = ("shipped",)
    rules: Literal["default", "open-r1"] = "default"  # open-r1: one shared 8-gram is enough
    near_duplicates: float | None = Field(default=0.8, gt=0, le=1)  # Jaccard of 5-word shingles; null: not looked for
    audit: bool = True  # truncated statements, missing figures, several questions, no answer, unreadable references


class BudgetConfig(Part):
    """What all starts of a run together may spend: the run stops at what is reached first, and can go on with more."""

    max_gpu_hours: float | None = Field(default=None, gt=0)  # of all engines, busy or not; without GPUs: engine hours
    max_tokens: int | None = Field(default=None, ge=1)  # output tokens of all attempts, whatever became of them


class ScheduleConfig(Part):
    """Which problems are worked on, and how work is handed to the engines."""

    max_problems: int | None = Field(default=None, ge=1)  # of the weighted mix of all sources
    clean: CleanConfig = CleanConfig()
    adaptive: AdaptiveConfig | None = None  # null: every problem gets sampling.num_samples attempts
    oversubscribe: float = Field(default=0.1, ge=0, le=1)  # in flight beyond max_num_seqs, as a share of it
    max_engine_restarts: int = Field(default=6, ge=0)  # of one engine in a row, without progress between
    early_abort: EarlyAbort | None = EarlyAbort()  # null or false: every attempt goes on to its end
    # A moderate limit at first: attempts that it cuts wait with their tokens, and go on once no fresh ones are left.
    first_max_tokens: int | None = Field(default=None, ge=1)  # null: none. For teachers that can go on: vllm, scripted
    # Which of these go on: all, or those at problems without an accepted answer; the others are cancelled.
    continue_cut: Literal["all", "unsolved"] = "all"
    max_deaths_per_attempt: int = Field(default=3, ge=3)  # engines that may die under an attempt before it fails
    # Without a token while attempts are in flight, or without a report while none is: the engine is killed. So is a
    # coordinator or a verifier that says nothing for so long, or a committer at one commit; they have 60 s at least.
    stall_s: float = Field(default=600, gt=0)
    time_limit_s: float | None = Field(default=None, gt=0)  # of the scheduler that runs the job; null: none
    stop_before_s: float = Field(default=60, ge=0)  # so long before it the run stops itself (exit code 3), resumable
    budget: BudgetConfig | None = None  # null: none. Used up, the run stops itself (exit code 3), resumable

    @field_validator("early_abort", mode="before")
    @classmethod
    def _is_switched(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _has_time(self) -> ScheduleConfig:
        if self.time_limit_s is not None and self.stop_before_s >= self.time_limit_s:
            raise ValueError(
                f"stop_before_s={self.stop_before_s:g} must be below time_limit_s={self.time_limit_s:g}: "
                "the run would stop at once"
            )
        return self


class ReadabilityConfig(Part):
    """How strictly traces are read, and in which language the teacher thinks."""

    profile: Profile = Profile.R1
    think_language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}$")  # null: the problem's own; en for many
    # By name (schemas/readability.py); those left out keep their default. `factory calibrate` proposes some.
    thresholds: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @field_validator("thresholds")
    @classmethod
    def _are_known(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in THRESHOLD_NAMES:
                near = difflib.get_close_matches(name, THRESHOLD_NAMES, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise PydanticCustomError(
                    "threshold", f"{name!r} is no threshold{hint} There are: {', '.join(THRESHOLD_NAMES)}"
                )
        return value

    def settings(self) -> ReadabilitySettings:
        """Return what the verifiers take."""
        return ReadabilitySettings(
            profile=self.profile,
            think_language=self.think_language,
            thresholds=replace(DEFAULTS, **self.thresholds),
        )


class VerifyConfig(Part):
    """How traces are judged."""

    readability: ReadabilityConfig = ReadabilityConfig()

    num_workers: int = Field(default=1, ge=1)  # verifier actors, each with its own killable processes
    num_processes: int = Field(default=2, ge=1)  # killable processes that one actor keeps busy at most
    batch_size: int = Field(default=64, ge=1)
    max_tries: int = Field(default=3, ge=1)  # of a trace that stays unjudged
    # The least isolation in which programs are judged (`factory doctor` says what a machine has); below it they stay
    # unjudged. D is none: limits, but no walls. For machines with nothing to lose.
    lowest_tier: Literal["A", "B", "C", "D"] = "C"


class Quotas(Part):
    """Most accepted traces per domain, difficulty and length, and in all; what is over a quota is ``over_quota``.

    What has no key here is not bounded.
    """

    domain: dict[Domain, Annotated[int, Field(ge=0)]] = {}  # such as {math: 20000, code: 10000}
    difficulty: dict[Difficulty, Annotated[int, Field(ge=0)]] = {}  # by pass rate
    # Completion tokens up to the key, above the next lower key: {4096: 1000, 16384: 500}; longer ones are not bounded.
    length: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = Field(default={}, max_length=256)
    total: int | None = Field(default=None, ge=1)

    @property
    def is_set(self) -> bool:
        """Whether anything is bounded."""
        return bool(self.domain or self.difficulty or self.length) or self.total is not None


class PreferenceConfig(Part):
    """Which pairs of traces of one problem enter the table ``preference``."""

    rules: tuple[Literal["long2short_dpo", "correct_wrong_pairs"], ...] = ("long2short_dpo", "correct_wrong_pairs")
    max_per_problem: int = Field(default=2, ge=1)  # of each rule
    # long2short_dpo: a correct trace is worse from so many times the shortest correct one's length on.
    longer: float = Field(default=1.5, gt=1)
    # correct_wrong_pairs: the two lengths differ by this share of the longer one at most.
    similar: float = Field(default=0.25, gt=0, lt=1)


class SelectConfig(Part):
    """Which correct traces enter the tables; a pure function of traces, verdicts and this."""

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    rule: Literal[
        "all_correct",
        "one_random",
        "shortest_correct",
        "k_diverse",
        "difficulty_balanced",
        "hard_subset",
        "long_short_mix",
    ] = "all_correct"
    # Of a rule that may take any number (all_correct, k_diverse, difficulty_balanced, hard_subset). Null: all; 4 of
    # k_diverse.
    max_per_problem: int | None = Field(default=None, ge=1)
    # Of correct traces of a problem that are so similar (5-word shingles) only the shortest is in the choice; such as
    # 0.85. Null: all are.
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    max_pass_rate: float = Field(default=0.5, gt=0, le=1)  # of `hard_subset`: harder problems alone
    quotas: Quotas = Quotas()
    seed: int = 0  # of what is chosen by chance: another one gives another choice, the same one the same
    preference: PreferenceConfig = PreferenceConfig()
    validation_share: float = Field(default=0, ge=0, lt=1)  # of the problems, by their hash; all traces of one go along
    configs: tuple[TableName, ...] = Field(default=get_args(TableName), min_length=1)  # the tables that are written
    # First turn of every row that a student is given; the prompt's own instructions are not repeated there.
    system: str | None = None

    @field_validator("max_per_problem")
    @classmethod
    def _is_free(cls, most: int | None, info: ValidationInfo) -> int | None:
        rule = info.data.get("rule", "")
        if most is not None and rule in FIXED_NUMBERS:
            number = FIXED_NUMBERS[rule]
            raise ValueError(
                f"is not heeded: rule {rule} takes {number} of each problem; leave it out, or set it to null"
            )
        return most

    @field_validator("max_pass_rate")
    @classmethod
    def _is_of_hard_subset(cls, rate: float, info: ValidationInfo) -> float:
        rule, default = info.data.get("rule"), cls.model_fields["max_pass_rate"].default
        if rate != default and rule not in (None, "hard_subset"):
            raise ValueError(
                f"is not heeded: rule is {rule}, and hard_subset alone looks at it; leave it out, or at its {default}"
            )
        return rate

    @field_validator("quotas")
    @classmethod
    def _leave_balance(cls, quotas: Quotas, info: ValidationInfo) -> Quotas:
        if quotas.difficulty and info.data.get("rule") == "difficulty_balanced":
            raise ValueError(
                "bounds `difficulty`, which rule difficulty_balanced does not heed: it takes the same number of each; "
                "bound `total` instead, or take rule all_correct"
            )
        return quotas

    @field_validator("seed")
    @classmethod
    def _has_chance(cls, seed: int, info: ValidationInfo) -> int:
        rule, quotas = info.data.get("rule"), info.data.get("quotas")
        is_chance = rule in (None, "one_random", "difficulty_balanced") or quotas is None or quotas.is_set
        if seed != cls.model_fields["seed"].default and not is_chance:
            raise ValueError(
                f"is not heeded: rule {rule} without quotas leaves nothing to chance; leave it out, or at 0"
            )
        return seed

    @field_validator("configs")
    @classmethod
    def _are_named_once(cls, names: tuple[TableName, ...]) -> tuple[TableName, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"{list(names)} names a table twice; name each once")
        return names


class StoreConfig(Part):
    """How a run is kept on disk."""

    fsync_interval_s: float = Field(default=0.5, gt=0, le=60)  # the most that a kill can cost
    segment_s: float = Field(default=60, gt=0)  # a journal segment is closed after this time ...
    segment_mb: int = Field(default=64, ge=1)  # ... or this size, and compacted once it is judged
    commit_interval_s: float = Field(default=120, gt=0)  # between two manifests at least, while work goes on
    # Longer attempts are journaled on the way, by as many tokens: the most that a dead engine costs each, beside those
    # of fsync_interval_s. Null: not at all. For teachers that can go on from them: vllm, scripted.
    partial_tokens: int | None = Field(default=4096, ge=1)


# A dataset on the Hub, as its client takes it.
REPO: Final = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,94}/[A-Za-z0-9][A-Za-z0-9._-]{0,94}(?<![.-])")


class PublishConfig(Part):
    """Where `factory publish` puts the tables, and how; its options come first. Nothing is published by itself."""

    repo: str  # ORG/NAME of a dataset on the Hub
    private: bool = True
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # default: v1, v2, ...
    token_env: str | None = None  # name of the environment variable; default: HF_TOKEN, or the login

    @field_validator("token_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isidentifier() and value.isupper()):
            raise PydanticCustomError("hidden", "must be the name of an environment variable, such as HF_TOKEN")
        return value

    @field_validator("repo")
    @classmethod
    def _is_a_repository(cls, value: str) -> str:
        if not REPO.fullmatch(value):
            raise ValueError("must be ORG/NAME, such as my-org/math-traces")
        return value


class JobConfig(Part):
    """One job: `factory run` resolves it, stores it as run.yaml, and does it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sources: tuple[Source, ...] = Field(min_length=1)
    prompt: PromptConfig = PromptConfig()
    teacher: Teacher
    sampling: SamplingConfig = SamplingConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    verify: VerifyConfig = VerifyConfig()
    select: SelectConfig = SelectConfig()
    store: StoreConfig = StoreConfig()
    publish: PublishConfig | None = None  # null: `factory publish` asks for --repo

    @model_validator(mode="after")
    def _is_heeded(self) -> JobConfig:
        if self.sampling.min_tokens and not isinstance(self.teacher, VllmTeacher):
            raise ValueError(
                f"sampling.min_tokens={self.sampling.min_tokens} is for teachers of kind vllm; "
                f"teacher.kind={self.teacher.kind!r} does not heed it: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _has_attempts(self) -> JobConfig:
        adaptive, most = self.schedule.adaptive, self.sampling.num_samples
        if adaptive is not None and max(adaptive.min_samples, adaptive.useful) > most:
            raise ValueError(
                f"schedule.adaptive: useful={adaptive.useful} and min_samples={adaptive.min_samples} must be <= "
                f"sampling.num_samples={most}, which is the most that a problem gets"
            )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> JobConfig:
        first, most = self.schedule.first_max_tokens, self.sampling.max_tokens
        if first is not None and not isinstance(self.teacher, VllmTeacher | ScriptedTeacher):
            raise ValueError(
                f"schedule.first_max_tokens={first} needs a teacher that can go on from its own tokens (vllm, "
                f"scripted); teacher.kind={self.teacher.kind!r} would begin anew: leave it out"
            )
        if first is not None and first >= most:
            raise ValueError(f"schedule.first_max_tokens={first} must be below sampling.max_tokens={most}")
        if self.sampling.thinking_budget is not None and not isinstance(self.teacher, VllmTeacher | OpenaiTeacher):
            raise ValueError(
                f"sampling.thinking_budget={self.sampling.thinking_budget}: teacher.kind={self.teacher.kind!r} has no "
                "thinking that it could end; leave it out"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Return the job of a YAML file with ``a.b=c`` overrides applied; values of overrides are read as YAML.

    Relative paths in the file stay relative to the working directory.

    Raises:
        ConfigError: If the file is missing, is no YAML mapping, or any key or value is not allowed; names each.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; give the path of a job file, such as jobs/configs/demo.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{path}: holds {type(body).__name__}, must be a mapping with the keys {_keys(JobConfig)}")
    return parse_config(override_config(body, overrides), origin=str(path))


def override_config(body: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a job's mapping with ``a.b=c`` overrides applied.

    Raises:
        ConfigError: If an override is no ``key=value``, or its key leads nowhere.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(body))
    for override in overrides:
        _apply_override(changed, override)
    return changed


def parse_config(body: Mapping[str, Any], *, origin: str) -> JobConfig:
    """Return the job of a mapping; ``origin`` (a file name) stands in front of every error.

    Raises:
        ConfigError: As ``load_config``.
    """
    return parse_part(JobConfig, body, origin=origin)


def parse_select(body: Mapping[str, Any], *, origin: str) -> SelectConfig:
    """Return the config of a selection as its manifest says it.

    Raises:
        ConfigError: As ``load_config``.
    """
    return parse_part(SelectConfig, body, origin=origin)


def parse_part(model: type[AnyPart], body: Mapping[str, Any], *, origin: str) -> AnyPart:
    """Return a mapping as a model of such parts, with errors as a job file has them.

    Raises:
        ConfigError: As ``load_config``.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        items = [dict(item) for item in error.errors() if item["type"] != "too_short" or item["input"] == []]
        raise ConfigError(f"{origin}: " + f"\n{origin}: ".join(_explain(item, model) for item in items)) from None


def _apply_override(body: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: must be key=value, such as sampling.num_samples=8")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML: {error}") from error
    *parents, last = key.split(".")
    node: Any = body
    for position, name in enumerate(parents):
        child = node[int(name)] if isinstance(node, list) and _is_index(name, node) else None
        if isinstance(node, dict):
            child = node.get(name)
            if child is None:
                child = node[name] = {}
        if not isinstance(child, dict | list):
            seen = ".".join(parents[: position + 1])
            raise ConfigError(f"--set {override!r}: {seen} is not a mapping or a list with that index")
        node = child
    if isinstance(node, list):
        if not _is_index(last, node):
            raise ConfigError(f"--set {override!r}: {last!r} is no index of a list of {len(node)}")
        node[int(last)] = value
    else:
        node[last] = value


def _is_index(name: str, items: list[Any]) -> bool:
    return name.isdecimal() and int(name) < len(items)


def _explain(item: dict[str, Any], root: type[BaseModel]) -> str:
    """Return one pydantic error as `key=value problem (what is allowed)`."""
    loc = [part for part in item["loc"] if not _is_union_tag(part)]
    key = ".".join(str(part) for part in loc)
    kind = item["type"]
    if kind in _PLAIN_WORDS:
        return f"{key}={item.get('input')!r} {_PLAIN_WORDS[kind]}"
    if kind == "extra_forbidden":
        allowed = _allowed_keys(item["loc"], root)
        near = difflib.get_close_matches(str(loc[-1]), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"{key}: is missing and has no default"
    value = item.get("input")
    # `hidden`: somebody may have put the secret itself where its name belongs.
    seen = f"={value!r}" if not isinstance(value, Mapping | list | tuple) and kind != "hidden" else ""
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "union_tag_invalid":
        return f"{key}.kind={item['ctx']['tag']!r} must be one of {item['ctx']['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{key}.kind: is missing; it says which kind of {loc[0]} this is"
    return f"{key}{seen} {message[0].lower()}{message[1:]}".lstrip()  # an error of the whole job has no key


# What pydantic calls by the names of its own types.
_PLAIN_WORDS = {
    "too_short": "must have at least one entry",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "must be letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
}
_UNION_TAGS = {"jsonl", "parquet", "dataset", "reasoning_gym", "vllm", "openai", "replay", "imported", "scripted"}


def _is_union_tag(part: object) -> bool:
    return isinstance(part, str) and part in _UNION_TAGS


def _allowed_keys(loc: Sequence[object], root: type[BaseModel]) -> list[str]:
    """Return the keys that the mapping around ``loc`` may have, by walking the models along it."""
    model: Any = root
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        if _is_union_tag(part):
            model = next(m for m in _models(model) if part in get_args(m.model_fields["kind"].annotation))
        else:
            model = model.model_fields[str(part)].annotation
            models = _models(model)
            model = models[0] if len(models) == 1 else model
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation such as ``tuple[Annotated[A | B, ...], ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, tuple, Annotated) or hasattr(annotation, "__args__"):
        return [model for arg in get_args(annotation) for model in _models(arg)]
    return []


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
