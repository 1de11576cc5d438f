"""Many answers compared at once: each pair of answer and reference once, on all cores where there are enough of them.

Under ``math.judge_answers``. Pairs go in chunks to killable processes (``task_compare``). What only sympy can tell, and
the chunks of a process that failed, are compared here one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from schemas.problem import Answer
from schemas.verdict import Reason
from verifiers.finding import Finding
from verifiers.limits import CHUNK_DEADLINE_S, CHUNK_PAIRS, MIN_SHARED_PAIRS
from verifiers.pool import Done, Pool, default_num_workers

logger = logging.getLogger(__name__)

Pair = tuple[str, Answer]  # an extracted answer and its reference
TASK: Final = "compare"


def compare_all(
    pairs: Iterable[Pair], compare: Callable[[str, Answer], Finding], num_workers: int | None = None
) -> dict[Pair, Finding]:
    """Return the finding of each pair: what ``compare`` says of it.

    ``num_workers`` processes share the work, by default one per usable core; few pairs are compared in this one.
    """
    todo = list(dict.fromkeys(pairs))
    workers = default_num_workers() if num_workers is None else num_workers
    if workers == 1 or len(todo) < MIN_SHARED_PAIRS:
        return {pair: compare(*pair) for pair in todo}
    found: dict[Pair, Finding] = {}
    chunks = [todo[start : start + CHUNK_PAIRS] for start in range(0, len(todo), CHUNK_PAIRS)]
    with Pool(num_workers=workers, deadline_s=CHUNK_DEADLINE_S) as pool, ThreadPoolExecutor(workers) as threads:
        for part in threads.map(lambda chunk: _compare_chunk(pool, chunk), chunks):
            found.update(part)
        left = [pair for pair in todo if pair not in found]
        found.update(zip(left, threads.map(lambda pair: compare(*pair), left), strict=True))
    return found


def _compare_chunk(pool: Pool, chunk: Sequence[Pair]) -> dict[Pair, Finding]:
    """Return the findings of a chunk, without those that only sympy can tell; none where its process failed."""
    rows = [(answer, reference.text, reference.kind, reference.precision) for answer, reference in chunk]
    result = pool.call(TASK, rows)
    if not isinstance(result, Done):
        logger.warning("%d answers are compared one by one, their process failed: %s", len(chunk), result)
        return {}
    findings = zip(chunk, result.value, strict=True)
    return {pair: _finding(row) for pair, row in findings if row is not None}


def _finding(row: Sequence[Any]) -> Finding:
    reason, *others = row
    return Finding(None if reason is None else Reason(reason), *others)
