"""Train the demo teacher from nothing: problems, tokenizer, model, weights.

Where it sits: run by hand, once in a while; the factory only reads the folder it writes. Everything is made from seeds,
so the same command on the same machine gives the same data and nearly the same weights (floating point sums differ
between machines). Invariant: no held-out question is trained on.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch.nn import functional
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jobs.demo_teacher.corpus import Sample, make_family_samples, make_kind_samples
from jobs.demo_teacher.families import FAMILIES, TRAIN_SEED, held_out_hashes
from jobs.demo_teacher.program_kinds import KINDS
from jobs.demo_teacher.programs import Task, held_out_tasks
from jobs.demo_teacher.tokenizer import CONTEXT, END, PAD, extend_tokenizer, train_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
TOKENIZER_SAMPLES = 15_000  # more did not change the merges that matter
MAX_TOKENS = 768  # of a training sample; only loops are longer, and they are cut
MEAN_TOKENS = 130  # of a sample, rounded down from some 142; says how many samples a number of steps needs
BUCKET_SAMPLES = 1024  # sorted by length before they are cut into batches: padding stays below a tenth
WARMUP_SHARE, DECAY_SHARE = 0.03, 0.6  # of all steps; flat between, linear to zero at the end
HIDDEN_RATE, OTHER_RATE = 3e-3, 3e-3  # learning rates: Muon for the matrices, AdamW for embeddings and norms (guesses)
REPORT_STEPS, SAVE_STEPS = 50, 500  # between two lines of progress, between two writings of the weights
IGNORED = -100  # label of a token without loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One training sample as token ids."""

    token_ids: torch.Tensor  # int16: the vocabulary is small, and a hundred thousand lists of int would take gigabytes
    num_prompt_tokens: int


class Batch(NamedTuple):
    """Samples side by side, padded on the right."""

    token_ids: torch.Tensor  # samples, tokens
    labels: torch.Tensor  # the same shape; IGNORED where there is no loss


def new_model(vocabulary_size: int) -> Qwen2ForCausalLM:
    """Return an untrained model of about two million parameters."""
    config = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,  # 32 wide: the smallest head that vLLM's CPU attention has
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return Qwen2ForCausalLM(config)


def attend_in_float32(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention outside autocast: on a CPU its backward is four times slower in bfloat16."""
    with torch.autocast(query.device.type, enabled=False):
        heads = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True)
    return heads.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("float32", attend_in_float32)


def make_samples(size: int, seed: int, programs: float) -> list[Sample]:
    """Return about `size` shuffled samples: that share of programs, the families in proportion to their shares."""
    held_out = held_out_hashes()
    samples: list[Sample] = []
    for family in FAMILIES.values():
        family_size = int(size * (1 - programs) / len(FAMILIES) * family.share)
        samples += make_family_samples(family, size=family_size, held_out=held_out, seed=seed)
    held_out = held_out_tasks()
    for kind in KINDS.values():
        samples += make_kind_samples(kind, size=int(size * programs / len(KINDS)), held_out=held_out, seed=seed)
    Random(seed).shuffle(samples)
    return samples


def texts_of(samples: list[Sample]) -> Iterator[str]:
    """Yield what a tokenizer learns from."""
    return (f"{sample.problem.user_message}\n{sample.completion}" for sample in samples[:TOKENIZER_SAMPLES])


def grow(model: Qwen2ForCausalLM, old: Qwen2Tokenizer, new: Qwen2Tokenizer) -> None:
    """Give the model the tokens that a tokenizer has more: each starts as the mean of the tokens that it replaces."""
    model.resize_token_embeddings(len(new), mean_resizing=False)
    weight = model.get_input_embeddings().weight.data
    for token, token_id in new.get_vocab().items():
        if token_id >= len(old):
            pieces = [old.convert_tokens_to_ids(piece.value) for piece in old.backend_tokenizer.model.tokenize(token)]
            weight[token_id] = weight[pieces].mean(0)


def encode(tokenizer: Qwen2Tokenizer, samples: list[Sample]) -> list[Encoded]:
    """Return the samples as the chat template and the completion give them."""
    prompts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": sample.problem.user_message}] for sample in samples],
        tokenize=False,
        add_generation_prompt=True,
    )
    prompt_ids = tokenizer(prompts)["input_ids"]
    completion_ids = tokenizer([sample.completion + END * sample.ends for sample in samples])["input_ids"]
    return [
        Encoded(
            token_ids=torch.tensor((prompt + completion)[:MAX_TOKENS], dtype=torch.int16), num_prompt_tokens=len(prompt)
        )
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]


def batches(encoded: list[Encoded], tokens_per_step: int, pad: int, rng: Random) -> Iterator[Batch]:
    """Yield batches of like-long samples, again and again from the start when all are used.

    Prompts carry no loss: their numbers are random, and learning them would cost room that the arithmetic needs.
    """
    while True:
        for start in range(0, len(encoded), BUCKET_SAMPLES):
            bucket = sorted(encoded[start : start + BUCKET_SAMPLES], key=lambda item: len(item.token_ids))
            groups: list[list[Encoded]] = [[]]
            for item in bucket:
                if len(item.token_ids) * (len(groups[-1]) + 1) > tokens_per_step:
                    groups.append([])
                groups[-1].append(item)
            rng.shuffle(groups)
            for group in groups:
                length = max(len(item.token_ids) for item in group)
                token_ids = torch.full((len(group), length), pad)
                labels = torch.full((len(group), length), IGNORED)
                for row, item in enumerate(group):
                    num_prompt, num_all = item.num_prompt_tokens, len(item.token_ids)
                    token_ids[row, :num_all] = item.token_ids
                    labels[row, num_prompt:num_all] = item.token_ids[num_prompt:]
                yield Batch(token_ids, labels)


def loss_of(model: Qwen2ForCausalLM, token_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of the completion tokens; padding stands right, so causality masks it."""
    with torch.autocast(token_ids.device.type, torch.bfloat16):
        hidden = model.model(input_ids=token_ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels[:, 1:] != IGNORED
        logits = model.lm_head(hidden[wanted])
    return functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def rate_factor(progress: float) -> float:
    """Return the learning rate relative to its top, from the share of the training that is done: up, flat, to zero."""
    return min(1.0, progress / WARMUP_SHARE, (1 - progress) / DECAY_SHARE)


def optimizers_of(model: Qwen2ForCausalLM, peak: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices between embedding and head, AdamW for all else; `peak` scales their rates."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=HIDDEN_RATE * peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=OTHER_RATE * peak, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write a model directory as transformers and vLLM read it, weights in bfloat16."""
    copy = Qwen2ForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.config.use_cache = copy.generation_config.use_cache = True
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in (END, PAD))
    for config in (copy.config, copy.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = None, end, pad
    copy.generation_config.do_sample = True
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone


def machine() -> str:
    """Return what the training runs on, in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores, {platform.machine()}"


def fit(
    model: Qwen2ForCausalLM, stream: Iterator[Batch], *, steps: int, limit_s: float, peak: float
) -> Iterator[float]:
    """Train step by step and yield the loss of each, until the steps are done or the time is over."""
    device = next(model.parameters()).device
    optimizers = optimizers_of(model, peak)
    tops = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    began = time.monotonic()
    for step in range(1, steps + 1):
        progress = max(step / (steps + 1), (time.monotonic() - began) / limit_s)
        if progress >= 1:
            return
        token_ids, labels = next(stream)
        loss = loss_of(model, token_ids.to(device), labels.to(device))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, top in zip(optimizers, tops, strict=True):
            for group, rate in zip(optimizer.param_groups, top, strict=True):
                group["lr"] = rate * rate_factor(progress)
            optimizer.step()
        model.zero_grad(set_to_none=True)
        yield loss.item()


def report(step: int, steps: int, spent_s: float, losses: list[float]) -> None:
    """Write one line of progress to stderr."""
    left_s = spent_s / step * (steps - step)
    recent = sum(losses[-REPORT_STEPS:]) / len(losses[-REPORT_STEPS:])
    typer.echo(f"step {step}/{steps}  loss {recent:.4f}  {spent_s:.0f} s, {left_s:.0f} s left", err=True)


def main(
    out: Annotated[Path, typer.Option(help="Model directory to write.")] = WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 5000,
    tokens_per_step: Annotated[int, typer.Option(min=1024, help="Tokens of one step, padding included.")] = 3072,
    seed: Annotated[
        int, typer.Option(help="First reasoning-gym seed of the training problems; seeds all else too.")
    ] = (TRAIN_SEED),
    start: Annotated[Path | None, typer.Option(help="Model directory to go on from, instead of from nothing.")] = None,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="End after this long at the latest; the learning rate falls in time.")
    ] = 120.0,
    peak: Annotated[
        float, typer.Option(min=0.0, help="Highest learning rate, relative to the one from nothing.")
    ] = 1.0,
    programs: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the samples that are programs.")] = 0.42,
    new_tokens: Annotated[
        int, typer.Option(min=0, help="With --start: tokens to add at most, for what the programs are made of.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Train the demo teacher and write its model directory.

    Example: python -m jobs.demo_teacher.train --minutes 25
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    samples = make_samples(steps * tokens_per_step // MEAN_TOKENS, seed, programs)
    if start is None:
        tokenizer = train_tokenizer(texts_of(samples))
        model = new_model(len(tokenizer))
    else:
        tokenizer = Qwen2Tokenizer.from_pretrained(start)
        model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
        if new_tokens:
            old, only_programs = tokenizer, [sample for sample in samples if isinstance(sample.problem, Task)]
            tokenizer = extend_tokenizer(old, texts_of(only_programs), new_tokens)
            grow(model, old, tokenizer)
    model.set_attn_implementation("float32" if device == "cpu" else "sdpa")
    encoded = encode(tokenizer, samples)
    runs: list[dict[str, Any]] = json.loads((start / "training.json").read_text()) if start else []
    run = {
        "started from": "the weights of the row above" if start else "nothing",
        "arguments": (
            f"`--minutes {minutes:g} --steps {steps} --tokens-per-step {tokens_per_step} --seed {seed} --peak {peak:g} "
            f"--programs {programs:g} --new-tokens {new_tokens}`"
        ),
        "steps": steps,
        "samples": len(samples),
        "tokens of samples": sum(len(item.token_ids) for item in encoded),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "machine": machine(),
        "torch": torch.__version__,
    }
    typer.echo(f"{run}, data made in {time.monotonic() - began:.0f} s", err=True)
    del samples
    stream = batches(encoded, tokens_per_step, tokenizer.convert_tokens_to_ids(PAD), Random(seed))
    losses: list[float] = []
    for loss in fit(model.to(device), stream, steps=steps, limit_s=minutes * 60, peak=peak):
        losses.append(loss)
        if len(losses) % REPORT_STEPS == 0:
            report(len(losses), steps, time.monotonic() - began, losses)
        if len(losses) % SAVE_STEPS == 0:
            save(model, tokenizer, out)
    save(model, tokenizer, out)
    last = losses[-REPORT_STEPS:]
    run |= {"steps": len(losses), "last loss": round(sum(last) / len(last), 4)}
    run |= {"minutes": round((time.monotonic() - began) / 60, 1)}
    (out / "training.json").write_text(json.dumps([*runs, run], indent=2) + "\n")
    typer.echo(f"wrote {out}: {run}", err=True)


if __name__ == "__main__":
    typer.run(main)
