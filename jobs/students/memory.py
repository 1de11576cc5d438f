"""How much memory a recipe needs on a GPU, by formula, and what `factory sft --plan` and `factory dpo --plan` print.

An estimate: weights, gradients, optimizer, the reference of pairs and activations are counted, the rest is a stated
margin. Nothing here was measured on a GPU; parameters are counted exactly, and the activations of a layer are those
that PyTorch keeps on a CPU (tests hold both against real models, `test_recipe.py`, and what pairs keep against a real
trainer, `test_student_training.py`).

Sources: 16 bytes of state per parameter and its sharing out: Rajbhandari et al. 2020, arXiv:1910.02054, section 3. Full
recomputation keeps each layer's input: Korthikanti et al. 2022, arXiv:2205.05198, section 5; their count of a layer
(34 bytes per token and hidden unit) is of GPT's layers with dropout, ours of Qwen2's and Llama's: see `layer_bytes`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from jobs.students.launching import launch_command, launch_config
from jobs.students.recipe import Recipe, Shape

GIB: Final = 1 << 30
STATE_BYTES: Final = 16  # a parameter: weight 4, gradient 4, Adam's two moments 8, all float32
LOGIT_TILE: Final = (4096, 32_768)  # tokens and words of which trl's fused head holds logits at a time (trl 1.16)
RESERVED: Final = (
    0.9  # of a GPU's memory that may be used: context, NCCL's buffers, fragmentation have the rest (guess)
)
PAIRS: Final = (
    "reference: the model that training starts from, float32; total: the larger of loading, when it is not yet shared "
    "out, and\nall the others. Shorter pairs (train.max_length) need less, and launch.kind=zero3 less than fsdp2"
)
# What other hardware would mean: GPUs and the memory of each.
HARDWARE: Final = ((1, 80), (8, 80), (8, 141), (16, 80), (32, 80), (64, 80))


class Memory(NamedTuple):
    """Bytes on one GPU."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float  # layers put together from all GPUs, and the gradients of one
    activations: float
    logits: float
    reference: float = 0  # of pairs: the model that training started from, weights alone
    loading: float = 0  # before all others: a reference that is yet to be shared out

    @property
    def total(self) -> float:
        """The most that is there at a time."""
        return max(sum(self[:-1]), self.loading)


def count_parameters(shape: Shape, *, has_bias: bool) -> int:
    """Return how many parameters a model has; Qwen2's query, key and value have a bias, Llama's have none."""
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * _layer_parameters(shape, has_bias=has_bias) + shape.hidden


def layer_bytes(shape: Shape) -> float:
    """Return what a layer keeps of one token for the way back, in bytes, in bfloat16 and with fused attention.

    20 h + 4 h kv/heads + 8 i: inputs of both norms and what they normalize in float32 (6 h each), their outputs (2 h
    each), query and attention (2 h each), keys and values (4 h kv/heads), and gate, its activation, up and their
    product (2 i each).
    """
    return 20 * shape.hidden + 4 * shape.hidden * shape.kv_heads / shape.heads + 8 * shape.intermediate


def estimate(recipe: Recipe, shape: Shape, processes: int, method: str = "sft") -> Memory:
    """Return the memory on one GPU, if the state is shared out over so many; of kind cpu every process holds all of it.

    Of pairs (method dpo) both sides are shown at a time, and the reference is a second model in float32, asked after
    the first, whose activations are kept meanwhile. FSDP2 shares the reference out as one piece (trl 1.16,
    `prepare_fsdp`): it is loaded whole onto each GPU, and put together whole when it is asked. ZeRO-3 goes by layers.
    """
    train, kind, is_pairs = recipe.train, recipe.launch.kind, method == "dpo"
    has_bias = recipe.base.family == "qwen"
    count = count_parameters(shape, has_bias=has_bias)
    state = count if kind == "cpu" else count / processes
    width = 2 if train.precision == "bf16" else 4
    rows = train.rows_per_device * (2 if is_pairs else 1)
    tokens = train.max_length * rows / min(recipe.launch.sequence_parallel, processes)
    layer = layer_bytes(shape) * width / 2
    kept = shape.layers * (2 * shape.hidden if train.activation_checkpointing else layer)
    # A layer that is computed again, or one of the reference: what it needs is less than what a layer keeps.
    working = layer if train.activation_checkpointing or is_pairs else 0
    ends = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    # Two layers at a time, the next being fetched, beside embedding and head; and the gradients of the larger of them.
    apart = _layer_parameters(shape, has_bias=has_bias)
    is_shared = kind != "cpu" and processes > 1
    gathered = width * (2 * apart + ends + max(apart, ends)) if is_shared else 0
    is_whole = is_pairs and is_shared and kind == "fsdp2"
    if is_whole:  # beside embedding and head of the student
        gathered = max(gathered, width * (count + ends))
    # Logits, their softmax and gradient, in float32.
    logits = 3 * 4 * min(LOGIT_TILE[0], tokens) * min(LOGIT_TILE[1], shape.vocabulary)
    return Memory(
        weights=4 * state,
        gradients=4 * state,
        optimizer=8 * state,
        gathered=gathered,
        activations=tokens * (kept + working),
        logits=logits,
        reference=4 * state if is_pairs else 0,
        loading=4 * count if is_whole else 0,
    )


def describe_plan(recipe: Recipe, out: Path, method: str = "sft") -> str:
    """Return recipe, launch and memory in words and a table."""
    launch, train = recipe.launch, recipe.train
    batch, rows = train.batch, "rows" if train.packing == "none" else "packs of rows"
    if method == "dpo":
        batch, rows = recipe.dpo.batch, "pairs, both sides"
    said = {
        "validated": "validated, not trained: settings were checked, nothing was trained with this recipe",
        "trained": "trained on a CPU by the tests, in a smaller shape and with fewer steps",
    }
    lines = [
        yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip(),
        "",
        f"evidence: {said[recipe.evidence]}",
        f"a step: {batch} {rows} of at most {train.max_length} tokens = {launch.data_parallel} at a time x "
        f"{train.rows_per_device} x {recipe.accumulation(batch)} accumulated",
        f"spread: {launch.kind}, {launch.processes} processes on {launch.nodes} nodes",
        f"command: {shlex.join(launch_command(recipe, out))}",
    ]
    if (config := launch_config(recipe, method)) is not None:
        lines += [f"{out / 'launch.yaml'}:", *(f"  {line}" for line in yaml.safe_dump(config).splitlines())]
    if recipe.base.shape is None:
        return "\n".join([*lines, "memory: no estimate without base.shape"])
    return "\n".join([*lines, "", memory_table(recipe, recipe.base.shape, method)])


def memory_table(recipe: Recipe, shape: Shape, method: str = "sft") -> str:
    """Return the estimate for the recipe's hardware and some other, as a table in GiB."""
    launch = recipe.launch
    count = count_parameters(shape, has_bias=recipe.base.family == "qwen")
    columns = [name for name in Memory._fields if method == "dpo" or name not in ("reference", "loading")]
    head = ["GPUs", "GiB each", *columns, "total", "fits"]
    hardware = [(launch.processes, launch.memory_gib)] + (list(HARDWARE) if launch.kind != "cpu" else [])
    body = []
    for processes, memory_gib in dict.fromkeys(hardware):
        if processes % launch.sequence_parallel and processes != 1:
            continue
        memory = estimate(recipe, shape, processes, method)
        fits = "yes" if memory.total <= RESERVED * memory_gib * GIB else "no"
        parts = [*(getattr(memory, name) for name in columns), memory.total]
        body.append([str(processes), f"{memory_gib:g}", *(f"{part / GIB:.1f}" for part in parts), fits])
    widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
    table = [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *body]]
    return "\n".join(
        [
            f"memory, estimated (GiB on one GPU; {count:,} parameters; fits: at most {RESERVED:.0%}; not measured):",
            *table,
            *([PAIRS] if method == "dpo" else []),
        ]
    )


def _layer_parameters(shape: Shape, *, has_bias: bool) -> int:
    h, kv = shape.hidden, shape.hidden // shape.heads * shape.kv_heads
    attention = 2 * h * h + 2 * h * kv + (h + 2 * kv if has_bias else 0)
    return attention + 3 * h * shape.intermediate + 2 * h
