"""What a model wrote, judged: final answers, choices, puzzles, format. Works alone, in any thread, without Ray.

Imports quickly: sympy, math-verify and reasoning-gym are loaded in worker processes only (``verifiers.pool``).
"""

from verifiers.canaries import canaries, check_canaries, one_pair
from verifiers.code import judge_code_completion, judge_program
from verifiers.math import judge_answer, judge_answers
from verifiers.pool import Pool, close_default_pool, default_pool
from verifiers.registry import judge, supports, verifier_versions, versions_digest

__all__ = [
    "Pool",
    "canaries",
    "check_canaries",
    "close_default_pool",
    "default_pool",
    "judge",
    "judge_answer",
    "judge_answers",
    "judge_code_completion",
    "judge_program",
    "one_pair",
    "supports",
    "verifier_versions",
    "versions_digest",
]
