"""The recipe of a student: base, family, training settings, hardware. Every option, with its default and its unit.

Read from YAML with overrides, resolved, and kept with what was trained (`sft.yaml`). Unknown keys are errors that name
the nearest valid one. Frozen; nothing here touches a network, a model or a process.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from schemas.config import AnyPart, Part, override_config, parse_part
from schemas.errors import ConfigError

HERE: Final = Path(__file__).parent
RECIPES: Final = HERE / "recipes"

LaunchKind = Literal["single", "cpu", "fsdp2", "zero3", "sequence_parallel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What students of one family have in common: how turns are written, and which tokens mean what."""

    name: str
    template: Path
    end: str  # token that ends a turn: the last that is learnt, and where a student stops
    pad: str  # never `end`: a mask by pad tokens would take every end out of the loss
    start: str | None  # of a text; once, at its beginning
    others: tuple[str, ...]  # what else its template is written with
    model_type: str  # in transformers


FAMILIES: Final[Mapping[str, Family]] = {
    "qwen": Family(
        name="qwen",
        template=HERE / "templates" / "chatml_think.jinja",
        end="<|im_end|>",
        pad="<|endoftext|>",
        start=None,
        others=("<|im_start|>",),
        model_type="qwen2",
    ),
    "llama": Family(
        name="llama",
        template=HERE / "templates" / "llama3_think.jinja",
        end="<|eot_id|>",
        pad="<|finetune_right_pad_id|>",
        start="<|begin_of_text|>",
        others=("<|start_header_id|>", "<|end_header_id|>"),
        model_type="llama",
    ),
}


class Shape(Part):
    """How large a model is: for the estimate of memory, for random weights, and to see that a base is the one meant."""

    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    vocabulary: int = Field(ge=1)  # rows of the embedding, which may be more than the tokenizer has
    tied: bool = False  # the head is the embedding

    @model_validator(mode="after")
    def _heads_fit(self) -> Shape:
        for name, divisor in (("hidden", self.heads), ("heads", self.kv_heads)):
            if getattr(self, name) % divisor:
                raise ValueError(f"{name}={getattr(self, name)} must be a multiple of {divisor}")
        return self


class Base(Part):
    """What training starts from."""

    model: str | None = None  # folder or Hub name, `demo` for the demo teacher; null: random weights of `shape`
    revision: str | None = None  # of a Hub name
    tokenizer: str | None = None  # folder or Hub name, where it is not the model's; of random weights always
    family: Literal["qwen", "llama"]
    template: Path | None = None  # chat template; null: the family's own. Another one has to pass the same guards
    shape: Shape | None = None  # null: whatever the base has
    # Extends the base's positions to `train.max_length` by another theta of its rotary embedding, read back from what
    # was saved. Null: the base has to have them already.
    rope_theta: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_something(self) -> Base:
        if self.model is None and (self.shape is None or self.tokenizer is None):
            raise ValueError("without `model` the weights are random: give `shape` and `tokenizer`")
        return self

    @property
    def of(self) -> Family:
        """The family, with this recipe's template."""
        family = FAMILIES[self.family]
        return family if self.template is None else replace(family, template=self.template)


class Train(Part):
    """How it is trained."""

    learning_rate: float = Field(gt=0)
    min_rate_share: float = Field(default=0.1, ge=0, le=1)  # where the cosine ends, of the highest rate
    warmup_share: float = Field(default=0.03, ge=0, lt=1)  # of all steps
    batch: int = Field(
        default=64, ge=1
    )  # rows of an optimizer step over all GPUs; packs of rows, where rows are packed
    epochs: float = Field(default=2, gt=0)
    max_steps: int | None = Field(default=None, ge=1)  # optimizer steps, in place of epochs
    max_length: int = Field(default=32_768, ge=8)  # tokens of a row; longer ones are dropped and counted, never cut
    packing: Literal["none", "bfd"] = "none"  # bfd: several whole rows side by side that do not see each other
    rows_per_device: int = Field(default=1, ge=1)  # at a time; the rest of `batch` is gradient accumulation
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"  # of the computation; weights and optimizer are kept in float32
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    activation_checkpointing: bool = True
    seed: int = Field(default=0, ge=0)
    save_steps: int = Field(default=100, ge=1)  # between two checkpoints: what a kill can cost
    keep_checkpoints: int = Field(default=2, ge=1)  # beside the newest, which a kill may tear
    log_steps: int = Field(default=1, ge=1)

    @field_validator("packing", mode="before")
    @classmethod
    def _keeps_rows_apart(cls, value: Any) -> Any:
        if value in ("wrapped", "bfd_split"):
            raise ValueError("cuts rows, or lets one see another: must be none or bfd")
        return value


class Preference(Part):
    """How `factory dpo` differs from `train`. Not published for these students: TRL's defaults, but for the batch."""

    learning_rate: float = Field(default=1e-6, gt=0)
    beta: float = Field(default=0.1, gt=0)
    batch: int = Field(default=64, ge=1)  # pairs of an optimizer step over all GPUs
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)


class Launch(Part):
    """On what, and how it is spread."""

    kind: LaunchKind = "single"  # launch/KIND.yaml is accelerate's part of it
    processes: int = Field(default=1, ge=1)  # GPUs over all nodes; of kind cpu, processes
    per_node: int = Field(default=8, ge=1)
    memory_gib: float = Field(default=80, gt=0)  # of a GPU
    sequence_parallel: int = Field(default=1, ge=1)  # GPUs that share the tokens of one row

    @model_validator(mode="after")
    def _adds_up(self) -> Launch:
        if self.kind == "single" and self.processes != 1:
            raise ValueError(f"processes={self.processes}: kind single has one; choose cpu, fsdp2 or zero3")
        if self.processes > self.per_node and self.processes % self.per_node:
            raise ValueError(f"processes={self.processes} must fill whole nodes of per_node={self.per_node}")
        if self.processes % self.sequence_parallel:
            raise ValueError(f"sequence_parallel={self.sequence_parallel} must divide processes={self.processes}")
        if (self.kind == "sequence_parallel") != (self.sequence_parallel > 1):
            raise ValueError("sequence_parallel > 1 and kind sequence_parallel go together")
        return self

    @property
    def nodes(self) -> int:
        """How many machines."""
        return max(1, self.processes // self.per_node)

    @property
    def data_parallel(self) -> int:
        """How many rows are worked on at a time, for one row per device."""
        return self.processes // self.sequence_parallel


class Guards(Part):
    """What the data is held against before the first step."""

    # Benchmarks that must not be trained on: as `schedule.clean.against` of a job.
    against: tuple[str, ...] = ("shipped",)


class Recipe(Part):
    """One student."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    evidence: Literal["trained", "validated"]  # validated: settings and mechanics were checked, nothing was trained
    base: Base
    train: Train
    dpo: Preference = Preference()
    launch: Launch = Launch()
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _batch_divides(self) -> Recipe:
        for key, batch in (("train", self.train.batch), ("dpo", self.dpo.batch)):
            at_once = self.launch.data_parallel * self.train.rows_per_device
            if batch % at_once:
                raise ValueError(
                    f"{key}.batch={batch} must be a multiple of {at_once}, the rows worked on at a time "
                    "(launch.processes / launch.sequence_parallel * train.rows_per_device)"
                )
        if self.launch.kind == "sequence_parallel" and self.train.packing != "none":
            raise ValueError("train.packing must be none with sequence parallelism")
        return self

    def accumulation(self, batch: int) -> int:
        """Return over how many passes the gradients of a step are summed."""
        return batch // (self.launch.data_parallel * self.train.rows_per_device)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the factory."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a name or file with ``a.b=c`` overrides applied.

    Relative paths stay relative to the working directory.

    Raises:
        ConfigError: If there is none of the name, the file is no YAML mapping, or a key or value is not allowed.
    """
    return read_named(Recipe, "recipe", "--recipe", name, RECIPES, overrides)


def read_named(
    kind: type[AnyPart], what: str, label: str, name: str, folder: Path, overrides: Sequence[str]
) -> AnyPart:
    """Return a part that is kept in a YAML file: one of a folder that comes with the factory, by its name, or any.

    Raises:
        ConfigError: As ``load_recipe``; ``what`` it is, and by which ``label`` it was asked for, stand in the message.
    """
    shipped = sorted(path.stem for path in folder.glob("*.yaml"))
    path = folder / f"{name}.yaml" if name in shipped else Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, shipped, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{label} {name}: neither a file nor a {what} that comes with the factory; {hint}there are: "
            f"{', '.join(shipped)}"
        )
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{label} {path}: cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{label} {path}: must be a mapping with the keys {', '.join(kind.model_fields)}")
    return parse_part(kind, override_config(body, overrides), origin=f"{what} {name}")
