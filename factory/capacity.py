"""Capacity: how many attempts an engine should have in flight. Facts in, a number out.

Between the engine's own word on its memory and the feeder, which keeps it full. An engine that is given more sequences
than its KV cache can hold at their full length preempts: it throws work away and makes it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MIN_BACKLOG: Final = 8  # attempts beyond max_num_seqs at least, so that a freed slot never waits for a lease
MIN_LENGTHS: Final = 32  # attempts that must have ended before their lengths say anything; guess


@dataclass(slots=True)
class SeenLengths:
    """What attempts that ended held of the cache while they were made."""

    num_attempts: int = 0
    num_steps: int = 0  # each makes one token of its completion
    held: float = 0.0  # tokens in the cache, summed over the steps

    def add(self, prompt: int, completion: int) -> None:
        """Add an attempt with so many tokens: over its steps it holds its prompt and half of its completion."""
        self.num_attempts += 1
        self.num_steps += completion
        self.held += completion * (prompt + completion / 2)

    @property
    def mean_held(self) -> float | None:
        """Tokens that an attempt in flight holds on average; None while too few have ended.

        Long ones are in flight for longer and count by that: with exponential lengths this is their mean, not its half.
        """
        if self.num_attempts < MIN_LENGTHS or not self.num_steps:
            return None
        return self.held / self.num_steps


def kv_tokens(settings: Mapping[str, Any]) -> int | None:
    """Return how many tokens an engine's cache may hold by its settings, watermark left free; None if it has none.

    For models whose layers share blocks in several groups (sliding windows beside full attention) this is too much: the
    cap comes late there, or never.
    """
    blocks, size = settings.get("num_gpu_blocks"), settings.get("block_size")
    if not blocks or not size:
        return None
    return int(blocks * size * (1 - (settings.get("watermark") or 0.0)))


def in_flight(max_num_seqs: int, oversubscribe: float, cache: int | None, mean_held: float | None) -> int:
    """Return how many attempts to keep in flight: the engine's limit and a small backlog, if its cache can hold them.

    ``cache`` is how many tokens it may hold, ``mean_held`` how many an attempt is expected to; None: not known.
    """
    wanted = max_num_seqs + max(MIN_BACKLOG, math.ceil(max_num_seqs * oversubscribe))
    if cache is None or not mean_held:
        return wanted
    return max(1, min(wanted, int(cache / mean_held)))
