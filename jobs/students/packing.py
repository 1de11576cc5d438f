"""Packing: rows side by side that do not see each other, shown on a tiny model before the first step.

Whether they do depends on the versions of trl and transformers, the implementation of attention and the cache: so it is
measured, with the trainer's own packing and batches, each time rows are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.students.prepare_base import _NAMES
from jobs.students.recipe import Recipe
from schemas.errors import GuardError

if TYPE_CHECKING:
    from torch.nn import Module

PACKING: Final = "bfd"  # trl's name of the one that keeps rows apart
DECIMALS, FLASH_DECIMALS = 5, 2  # to which both losses are equal, in float32 and bfloat16; a leak shows in the first
_TINY: Final = {"layers": 2, "hidden": 64, "intermediate": 64, "heads": 4, "kv_heads": 2}
_ROWS: Final = 8  # of the check, of these lengths at most
_TOKENS: Final = 96


def check_packing(
    recipe: Recipe, base: Path, rows: Sequence[dict[str, list[int]]], say: Callable[[str], None]
) -> tuple[float, float]:
    """Return the loss of a tiny model of the base's kind on rows one by one, and packed.

    Flash attention needs a GPU: without one, ``say`` is told that another was looked at.

    Raises:
        GuardError: If they differ: packed rows see each other.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    for ours, size in _TINY.items():
        setattr(config, _NAMES[ours], size)
    config.head_dim = _TINY["hidden"] // _TINY["heads"]
    config.initializer_range = 0.2  # ten times the usual: what rows see of each other has to show in a loss
    config.layer_types = ["full_attention"] * _TINY["layers"]
    torch.manual_seed(recipe.train.seed)
    attention = recipe.train.attention
    if attention.startswith("flash") and not torch.cuda.is_available():
        say(f"guard packing: train.attention={attention} was not checked, which takes a GPU; sdpa was, in its place")
        attention = "sdpa"
    is_flash = attention.startswith("flash")  # it knows no float32
    dtype, decimals = (torch.bfloat16, FLASH_DECIMALS) if is_flash else (torch.float32, DECIMALS)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    if recipe.launch.kind != "cpu" and torch.cuda.is_available():
        model = model.cuda()
    few = [{key: ids[-_TOKENS:] for key, ids in row.items()} for row in rows[:_ROWS]]
    apart, packed = loss_apart(model, few), loss_packed(model, few, PACKING)
    if abs(apart - packed) > 0.5 * 10**-decimals:
        raise GuardError(
            f"guard packing: the loss of {len(few)} rows is {apart:.6f} one by one and {packed:.6f} packed: packed "
            f"rows see each other (attention {attention}); set train.packing=none"
        )
    return apart, packed


def loss_apart(model: Module, rows: Sequence[dict[str, list[int]]]) -> float:
    """Return the mean loss of all labels, each row shown alone."""
    total, count = 0.0, 0
    for row in rows:
        labels = sum(label >= 0 for label in row["labels"][1:])  # the first token is nobody's next
        total, count = total + _loss(model, [row], is_packed=False) * labels, count + labels
    return total / count


def loss_packed(model: Module, rows: Sequence[dict[str, list[int]]], strategy: str) -> float:
    """Return the mean loss of all labels, rows packed by the trainer's own means."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    length = sum(len(row["input_ids"]) for row in rows)
    packed = pack_dataset(Dataset.from_list(list(rows)), length, strategy)
    return _loss(model, list(packed), is_packed=strategy != "wrapped")


def _loss(model: Module, rows: list[dict[str, Any]], *, is_packed: bool) -> float:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=is_packed)(rows)
    device = next(model.parameters()).device
    batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    model.eval()
    with torch.no_grad():
        return float(model(**batch).loss)
