"""Start training: in this process, under accelerate on this machine, or on several nodes of a Ray cluster.

Thin: what is trained lies in OUT, and every way runs `jobs.students.training` over it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from jobs.signals import termination_interrupts
from jobs.students.recipe import HERE, Recipe
from schemas.errors import ConfigError, FactoryError

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)  # looked up here: between fork and exec little is allowed
PORT = 29_500  # on which the processes of several nodes find each other; torch's own default


def launch_config(recipe: Recipe, method: str = "sft") -> dict[str, Any] | None:
    """Return accelerate's config of a recipe; None where one process trains."""
    launch = recipe.launch
    if launch.processes == 1 and launch.kind in ("single", "cpu"):
        return None
    body: dict[str, Any] = yaml.safe_load((HERE / "launch" / f"{launch.kind}.yaml").read_text())
    body |= {"num_processes": launch.processes, "num_machines": launch.nodes}
    body["mixed_precision"] = "bf16" if recipe.train.precision == "bf16" else "no"
    if "fsdp_config" in body:
        body["fsdp_config"]["fsdp_activation_checkpointing"] = recipe.train.activation_checkpointing
        # One process alone would load weights, for accelerate to hand out; trl 1.16 shares the reference of pairs out
        # by itself (`prepare_fsdp`), and would take the zeros of the other processes for theirs.
        body["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] = method != "dpo"
    if "parallelism_config" in body:
        body["parallelism_config"]["parallelism_config_sp_size"] = launch.sequence_parallel
        body["parallelism_config"]["parallelism_config_sp_attn_implementation"] = recipe.train.attention
    return body


def launch_command(recipe: Recipe, out: Path, *, rank: int = 0, head: str = "127.0.0.1") -> list[str]:
    """Return the command that trains on one node."""
    module = ["jobs.students.training", str(out)]
    if launch_config(recipe) is None:
        return [sys.executable, "-m", *module]
    nodes = [] if recipe.launch.nodes == 1 else ["--machine_rank", str(rank), "--main_process_ip", head]
    port = ["--main_process_port", str(PORT if nodes else 0)]  # 0: any that is free
    words = ["-m", "accelerate.commands.launch", "--config_file", str(out / "launch.yaml"), *nodes, *port]
    return [sys.executable, *words, "-m", *module]


def check_hardware(recipe: Recipe) -> None:
    """See that this machine can begin with the recipe.

    Raises:
        ConfigError: If it lacks GPUs, or the library that spreads the work.
    """
    import torch

    launch = recipe.launch
    if launch.kind in ("zero3", "sequence_parallel") and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            f"launch.kind={launch.kind}: needs DeepSpeed, which is not installed: pip install deepspeed, or "
            "--set launch.kind=fsdp2"
        )
    wanted = min(launch.processes, launch.per_node)
    if launch.kind != "cpu" and torch.cuda.device_count() < wanted:
        raise ConfigError(
            f"launch.kind={launch.kind}: needs {wanted} GPUs on a node, {torch.cuda.device_count()} are visible; "
            "submit it to a cluster that has them (--submit http://HEAD:8265), or change launch.processes and "
            "launch.per_node"
        )


def launch(recipe: Recipe, out: Path, lock: int) -> None:
    """Train on this machine; the processes that do hold OUT's lock, an open file, until they have ended.

    Raises:
        ConfigError: As `training.train`, and if the machine lacks what is needed.
        FactoryError: If a process of several died.
    """
    check_hardware(recipe)
    if launch_config(recipe) is None:
        from jobs.students.training import train

        train(out)
    else:
        check_ended(run(launch_command(recipe, out), [lock]), out)


def run(command: Sequence[str], files: Sequence[int] = ()) -> int:
    """Run a command with our own output and open files, and return its exit code; it ends with us, however we end."""
    with termination_interrupts():
        mine = os.getpid()
        child = subprocess.Popen(command, pass_fds=files, preexec_fn=lambda: end_with(mine))
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


def end_with(parent: int) -> None:
    """Have the system send this process SIGTERM when its parent ends; one whose parent has gone ends at once."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def check_ended(code: int, out: Path) -> None:
    """Say what an exit code of training means.

    Raises:
        FactoryError: If it is not 0.
    """
    if code:
        raise FactoryError(
            f"training in {out} ended with exit code {code}; what it said is above. Run the same command again: it "
            "goes on from the newest checkpoint"
        )
