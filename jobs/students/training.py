"""Training itself: what `factory sft` and `factory dpo` start, in one process or in many, over a prepared folder.

Reads OUT (`plan.json`, base, rows), trains with TRL, writes checkpoints and in the end OUT/model, whole or not at all.
Every checkpoint that has been written is marked; one that a kill tore is thrown away, so the same command goes on from
the newest good one. Alone, under `accelerate launch`: `python -m jobs.students.training OUT`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from factory.storage import sync_folder
from jobs.students.launching import end_with
from jobs.students.packing import PACKING
from jobs.students.prepare_base import check_base
from jobs.students.recipe import Recipe
from schemas.errors import ConfigError, FactoryError, GuardError

WHOLE: Final = "whole"  # file in a checkpoint that was written to its end
CHECKED_BATCHES: Final = 2  # of the first ones, looked into before the first step
MOST_APART: Final = 0.1  # nats a token between two copies of one model; guess: far above what bfloat16 rounds away


def train(out: Path) -> None:
    """Train what OUT holds, from its newest checkpoint on, and write OUT/model.

    Raises:
        GuardError: If the trainer would not train on the rows that the guards saw.
        ConfigError: If it is not spread as the recipe says.
    """
    plan = json.loads((out / "plan.json").read_text())
    recipe, method = Recipe.model_validate(plan["recipe"]), plan["method"]
    trainer = (_preference_trainer if method == "dpo" else _trainer)(recipe, out)
    say = trainer.accelerator.is_main_process
    if say:
        _say(f"spread: {spread_of(trainer)}; device {trainer.args.device}")
    check_spread(trainer, recipe)
    check_rows(trainer, json.loads((out / "rows" / "tokens.json").read_text()))
    trainer.remove_callback(transformers.PrinterCallback)
    start = newest_checkpoint(out / "checkpoints") if say else None
    trainer.accelerator.wait_for_everyone()
    start = start if say else newest_checkpoint(out / "checkpoints")
    if say and start is not None:
        _say(f"goes on from {start.name}")
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    _save(trainer, recipe, out)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; remove those that were not."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / WHOLE).exists():
            shutil.rmtree(path, ignore_errors=True)
    whole = [path for path in found if (path / WHOLE).exists()]
    return whole[-1] if whole else None


def spread_of(trainer: Any) -> str:
    """Return how the trainer is really spread: by what, and over how many processes."""
    state = trainer.accelerator
    kind = str(state.distributed_type.value).lower()
    if trainer.is_fsdp_enabled:
        kind = f"fsdp{state.state.fsdp_plugin.fsdp_version}"
    elif trainer.is_deepspeed_enabled:
        kind = f"zero{state.state.deepspeed_plugin.zero_stage}"
        sequence = 1 if state.parallelism_config is None else state.parallelism_config.sp_size
        kind = kind if sequence == 1 else f"sequence_parallel {sequence} over {kind}"
    return f"{kind}, {state.num_processes} processes"


def check_spread(trainer: Any, recipe: Recipe) -> None:
    """See that training is spread as the recipe says.

    accelerate falls back without a word: a config that asks for FSDP2 on a CPU becomes plain data parallelism.

    Raises:
        ConfigError: If not.
    """
    launch = recipe.launch
    alone = "no" if launch.processes == 1 else "multi_cpu"
    kinds = {
        "single": "no",
        "cpu": alone,
        "fsdp2": "fsdp2",
        "zero3": "zero3",
        "sequence_parallel": f"sequence_parallel {launch.sequence_parallel} over zero3",
    }
    wanted, found = f"{kinds[launch.kind]}, {launch.processes} processes", spread_of(trainer)
    if found != wanted:
        raise ConfigError(
            f"launch.kind={launch.kind}: asked for {wanted}; what accelerate made of it is {found}. Nothing was "
            "trained; see that as many GPUs are visible, or choose another launch.kind"
        )


def check_rows(trainer: Any, tokens: dict[str, int]) -> None:
    """See that the trainer holds the rows that the guards saw, and gives them to the model whole.

    Raises:
        GuardError: If tokens or labels are missing or new.
    """
    data = trainer.train_dataset
    for column, count in tokens.items():
        found = _count(data, column)
        if found != count:
            raise GuardError(
                f"guard length: the trainer holds {found} tokens of {column}, the guards saw {count}: this version of "
                "trl cuts or changes rows; nothing was trained"
            )
    if "labels" in tokens:
        end = trainer.processing_class.eos_token_id
        for _, batch in zip(range(CHECKED_BATCHES), trainer.get_train_dataloader(), strict=False):
            for row in batch_rows(batch):
                learnt = [place for place, label in enumerate(row) if label != -100]
                if not learnt or learnt != list(range(learnt[0], len(row))) or row[-1] != end or learnt[0] == 0:
                    raise GuardError(
                        f"guard end: a row of the first batch learns tokens {learnt[:1]} to {learnt[-1:]} of "
                        f"{len(row)}, which is not an answer with its end; nothing was trained"
                    )


def batch_rows(batch: dict[str, Any]) -> list[list[int]]:
    """Return the labels of each row of a batch, apart again where they are packed, without padding."""
    if "position_ids" in batch and "attention_mask" not in batch:
        labels = batch["labels"][0].tolist()
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), len(labels)]
        return [labels[start:stop] for start, stop in pairwise(starts) if stop - start > 1]
    lengths = batch["attention_mask"].sum(1).tolist()
    return [row[:length] for row, length in zip(batch["labels"].tolist(), lengths, strict=True)]


class Progress(TrainerCallback):  # type: ignore[misc]
    """Says how far training is, keeps it in OUT/progress.jsonl, and marks checkpoints that are whole."""

    def __init__(self, out: Path) -> None:
        self._out, self._began, self._first = out, time.monotonic(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note where it starts."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Print a line, and keep it."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        spent_s, done = time.monotonic() - self._began, state.global_step - self._first
        left_s = spent_s / max(1, done) * (state.max_steps - state.global_step)
        more = "".join(f"  {key} {logs[key]:.4g}" for key in ("rewards/margins", "rewards/accuracies") if key in logs)
        _say(
            f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  rate {logs['learning_rate']:.2e}"
            f"{more}  {spent_s:.0f} s, {left_s:.0f} s left"
        )
        with (self._out / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint, once all processes have written their part."""
        from accelerate import PartialState

        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        PartialState().wait_for_everyone()
        if state.is_local_process_zero:  # of each node: what a node wrote may lie in its own memory yet
            sync_tree(checkpoint)
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            (checkpoint / WHOLE).touch()
            sync_folder(checkpoint)


def sync_tree(folder: Path) -> None:
    """Fsync a folder's files and folders, and its name, so that all of it survives a power loss."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        sync_folder(path)  # does the same to a file


def _settings(
    recipe: Recipe, out: Path, *, batch: int, rate: float, epochs: float, steps: int | None
) -> dict[str, Any]:
    """Return what both trainers are told."""
    train, kind = recipe.train, recipe.launch.kind
    kinds = {"dtype": "float32", "attn_implementation": train.attention, "use_cache": False}
    return {
        "output_dir": str(out / "checkpoints"),
        "model_init_kwargs": kinds,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": train.min_rate_share},
        "warmup_steps": train.warmup_share,
        "num_train_epochs": epochs,
        "max_steps": steps or -1,
        "per_device_train_batch_size": train.rows_per_device,
        "gradient_accumulation_steps": recipe.accumulation(batch),
        "max_length": train.max_length,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "bf16": train.precision == "bf16",
        # FSDP has its own, by launch/fsdp2.yaml: beside it this one gathers weights twice
        "gradient_checkpointing": train.activation_checkpointing and kind != "fsdp2",
        "seed": train.seed,
        "save_steps": train.save_steps,
        # old ones go before the new one is marked as whole: one more, so that a kill between leaves a whole one
        "save_total_limit": train.keep_checkpoints + 1,
        "logging_steps": train.log_steps,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": kind == "cpu",
        "dataloader_pin_memory": kind != "cpu",
    }


def _trainer(recipe: Recipe, out: Path) -> Any:
    train = recipe.train
    shared = recipe.launch.sequence_parallel  # DeepSpeed's Ulysses refuses rows that it cannot share out evenly
    settings = _settings(
        recipe, out, batch=train.batch, rate=train.learning_rate, epochs=train.epochs, steps=train.max_steps
    )
    return SFTTrainer(
        model=str(out / "base"),
        args=SFTConfig(
            packing=train.packing != "none",
            packing_strategy=PACKING,
            pad_to_multiple_of=shared if shared > 1 else None,
            **settings,
        ),
        train_dataset=Dataset.from_file(str(out / "rows" / "train.arrow")),
        processing_class=transformers.AutoTokenizer.from_pretrained(out / "base"),
        callbacks=[Progress(out)],
    )


def check_reference(rewards: Sequence[float], beta: float, num_tokens: float) -> None:
    """See that the reference of pairs is the model that training starts from, by the first rewards of both sides.

    A reward is ``beta`` times the nats by which the student is more likely to give a text of ``num_tokens`` than the
    reference is: before the first step, nothing.

    Raises:
        GuardError: If it is another model.
    """
    apart = sum(abs(reward) for reward in rewards) / beta / max(1.0, num_tokens)
    if not apart <= MOST_APART:  # not a number is refused, too
        raise GuardError(
            f"guard reference: before the first step the student and its reference are {apart:.3g} nats a token apart, "
            f"must be at most {MOST_APART:g}: they are not the same model; nothing was trained. Where it is spread by "
            "fsdp2, --set launch.kind=zero3 shares the reference out otherwise"
        )


class _Pairs(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on pairs that are tokens already: one tokenizer for guards and training."""

    _is_compared = False

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        loss = super()._compute_loss(model, inputs, return_outputs)
        if self.state.global_step == 0 and not self._is_compared:
            self._is_compared = True
            rewards = [self._metrics["train"][f"rewards/{side}"][-1] for side in ("chosen", "rejected")]
            check_reference(rewards, self.beta, float(inputs["completion_mask"].sum(1).float().mean()))
        return loss


def _preference_trainer(recipe: Recipe, out: Path) -> Any:
    dpo = recipe.dpo
    settings = _settings(recipe, out, batch=dpo.batch, rate=dpo.learning_rate, epochs=dpo.epochs, steps=dpo.max_steps)
    return _Pairs(
        model=str(out / "base"),  # a path, which is then the reference's, too: of a model in memory it need not be
        args=DPOConfig(beta=dpo.beta, pad_to_multiple_of=None, **settings),
        train_dataset=Dataset.from_file(str(out / "rows" / "train.arrow")),
        processing_class=transformers.AutoTokenizer.from_pretrained(out / "base"),
        callbacks=[Progress(out)],
    )


def _count(data: Any, column: str) -> int:
    if column == "labels":
        return sum(
            pc.sum(pc.greater_equal(pc.list_flatten(chunk), 0)).as_py() or 0 for chunk in data.data[column].chunks
        )
    return int(pc.sum(pc.list_value_length(data.data[column])).as_py())


def _save(trainer: Any, recipe: Recipe, out: Path) -> None:
    """Write OUT/model, read it back, and give it its name."""
    part = out / "model.part"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(part))
    trainer.accelerator.wait_for_everyone()
    if not trainer.accelerator.is_main_process:
        return
    # What is no weight is what the base has: its end token, its context, its template; and the cache is on again.
    for path in (out / "base").iterdir():
        if path.suffix in (".json", ".jinja") and not path.name.endswith(".index.json"):
            shutil.copyfile(path, part / path.name)
    (part / "training_args.bin").unlink(missing_ok=True)
    check_base(recipe, part)
    part.rename(out / "model")
    _say(f"wrote {out / 'model'}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:  # one of several: their launcher cannot end them when it is killed
        end_with(os.getppid())
    try:
        train(Path(sys.argv[1]))
    except ConfigError as error:
        _say(str(error))
        sys.exit(2)
    except FactoryError as error:
        _say(str(error))
        sys.exit(1)
