"""Chunks of answers compared inside a worker: all rungs of mathematics but the last.

Runs in processes of ``verifiers.pool`` only, for ``batch``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from schemas.problem import Answer
from verifiers.math import compare_exactly


def load() -> Callable[[Any], Any]:
    """Return the task: rows of (answer, text, kind, precision); it returns findings, null where only sympy can tell."""

    def compare(rows: Any) -> Any:
        findings = [
            compare_exactly(answer, Answer(text=text, kind=kind, precision=precision))
            for answer, text, kind, precision in rows
        ]
        return [None if finding is None else astuple(finding) for finding in findings]

    compare([["\\frac{1}{x+1}", "(x+1)^{-1}", None, None]])  # warms caches
    return compare
