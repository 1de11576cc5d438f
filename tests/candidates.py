"""Hypothesis strategies for selections: candidates of a few problems, and configs."""

from __future__ import annotations

from collections import defaultdict
from typing import get_args

from hypothesis import strategies as st

from factory.selection import Candidate, Decision, has_pass, over_quotas, select
from schemas.config import FIXED_NUMBERS, Quotas, SelectConfig
from schemas.verdict import Outcome
from tests.strategies import summaries

RULES = get_args(SelectConfig.model_fields["rule"].annotation)
LENGTH_ENDS = (5, 20, 39)  # of lengths up to 40


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    # Half of them correct: by chance alone few would be.
    outcome, reason, is_correct = draw(st.just((Outcome.CORRECT, None, True)) | summaries)
    return Candidate(
        trace_id="",
        problem_id=draw(st.sampled_from("pqr")),
        sample_index=draw(st.integers(0, 5)),
        domain="math",
        num_completion_tokens=draw(st.integers(0, 40)),
        outcome=outcome.value,
        reason=None if reason is None else reason.value,
        is_correct=is_correct,
        like=draw(st.sampled_from([None, None, None, "x"])),
    )


def _named(found: list[Candidate]) -> list[Candidate]:
    domains = {"p": "math", "q": "code", "r": "math"}
    return [c._replace(trace_id=f"{i:032x}", domain=domains[c.problem_id]) for i, c in enumerate(found)]


many = st.lists(candidates(), max_size=24).map(_named)  # of several problems
one_group = many.map(lambda found: [c for c in found if c.problem_id == "p"])
counts = st.integers(0, 8)
quotas = st.builds(
    Quotas,
    domain=st.dictionaries(st.sampled_from(["math", "code"]), counts),
    difficulty=st.dictionaries(st.sampled_from(["easy", "medium", "hard"]), counts),
    length=st.dictionaries(st.sampled_from(LENGTH_ENDS), counts),
    total=st.none() | st.integers(1, 12),
)


@st.composite
def configs(draw: st.DrawFn, rules: tuple[str, ...] = RULES, *, bounded: bool | None = None) -> SelectConfig:
    """Return any config that is allowed; ``bounded`` with or without quotas."""
    rule = draw(st.sampled_from(rules))
    bounds = Quotas() if bounded is False or (bounded is None and draw(st.booleans())) else draw(quotas)
    if rule == "difficulty_balanced":
        bounds = bounds.model_copy(update={"difficulty": {}})
    is_chance = rule in ("one_random", "difficulty_balanced") or bounds.is_set
    return SelectConfig(
        rule=rule,
        max_per_problem=None if rule in FIXED_NUMBERS else draw(st.none() | st.integers(1, 3)),
        max_pass_rate=draw(st.sampled_from([0.25, 0.5, 1])) if rule == "hard_subset" else 0.5,
        quotas=bounds,
        seed=draw(st.integers(-3, 3)) if is_chance else 0,
    )


def correct(trace_id: str, *, tokens: int = 10, sample_index: int = 0, problem_id: str = "p") -> Candidate:
    """Return a correct candidate."""
    return Candidate(trace_id, problem_id, sample_index, "math", tokens, "correct", None, True)


def wrong(trace_id: str, *, tokens: int = 10, sample_index: int = 0, problem_id: str = "p") -> Candidate:
    """Return a candidate with another answer than the reference's."""
    return Candidate(trace_id, problem_id, sample_index, "math", tokens, "wrong_answer", "value_differs", False)


def grouped(found: list[Candidate]) -> list[list[Candidate]]:
    """Return candidates by problem."""
    groups = defaultdict(list)
    for candidate in found:
        groups[candidate.problem_id].append(candidate)
    return list(groups.values())


def decided(groups: list[list[Candidate]], config: SelectConfig) -> list[list[Decision]]:
    """Return the decisions on each group, with the pass before where the config needs one."""
    over = over_quotas(groups, config) if has_pass(config) else None
    return list(select(groups, config, over))
