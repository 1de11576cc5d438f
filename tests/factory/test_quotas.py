"""Quotas: never exceeded, filled as far as they can be, and the same whatever the order."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.quotas import QuotaPass
from factory.rules import Candidate, count_passes, difficulty_of
from factory.selection import choose, has_pass, over_quotas
from schemas.config import Quotas, SelectConfig, parse_config
from schemas.errors import ConfigError
from tests.candidates import LENGTH_ENDS, RULES, configs, correct, decided, grouped, many, wrong

Key = tuple[str, object]
UNBALANCED = tuple(rule for rule in RULES if rule != "difficulty_balanced")


def keys_of(found: list[Candidate]) -> dict[str, list[Key]]:
    """Return by trace which quotas may bound it."""
    keys = {}
    for group in grouped(found):
        for c in group:
            if c.outcome == "correct" and c.is_correct:
                end = next((end for end in LENGTH_ENDS if c.num_completion_tokens <= end), None)
                difficulty = difficulty_of(count_passes(group))
                keys[c.trace_id] = [("domain", c.domain), ("difficulty", difficulty), ("length", end), ("total", None)]
    return keys


def limits_of(quotas: Quotas) -> dict[Key, int]:
    limits: dict[Key, int] = {("domain", name): most for name, most in quotas.domain.items()}
    limits |= {("difficulty", name): most for name, most in quotas.difficulty.items()}
    limits |= {("length", end): most for end, most in quotas.length.items()}
    return limits if quotas.total is None else limits | {("total", None): quotas.total}


@st.composite
def bounded(draw: st.DrawFn, rules: tuple[str, ...] = UNBALANCED) -> SelectConfig:
    # Lengths of all ends or of none: keys_of knows their ranges.
    config = draw(configs(rules, bounded=True))
    length = {end: draw(st.integers(0, 8)) for end in LENGTH_ENDS} if config.quotas.length else {}
    return config.model_copy(update={"quotas": config.quotas.model_copy(update={"length": length})})


@given(many, bounded())
def test_no_quota_is_exceeded_and_what_is_over_one_is_over_a_full_one(found, config):
    keys, limits = keys_of(found), limits_of(config.quotas)
    decisions = [d for some in decided(grouped(found), config) for d in some]
    sizes = Counter(key for d in decisions if d.is_accepted for key in keys[d.trace_id])
    assert all(sizes[key] <= most for key, most in limits.items())
    for decision in decisions:
        if decision.reason == "over_quota":
            assert any(key in limits and sizes[key] == limits[key] for key in keys[decision.trace_id])


@given(many, configs())
def test_quotas_only_take_away_and_a_pass_is_made_where_one_is_needed_alone(found, config):
    after = [d for some in decided(grouped(found), config) for d in some]
    before = [d for group in grouped(found) for d in choose(group, config)]
    for old, new in zip(before, after, strict=True):
        assert new == old or (old.is_accepted and (new.reason, new.rank) == ("over_quota", old.rank))
    assert has_pass(config) or before == after


BALANCED = ("difficulty_balanced",)


def chosen_and_kept(found: list[Candidate], config: SelectConfig) -> tuple[set[str], set[str]]:
    """Return the traces that a rule chose, and those of them that quotas leave."""
    groups = grouped(found)
    chosen = {d.trace_id for group in groups for d in choose(group, config) if d.is_accepted}
    return chosen, {d.trace_id for some in decided(groups, config) for d in some if d.is_accepted}


def by_difficulty(traces: Iterable[str], keys: Mapping[str, list[Key]]) -> Counter[str]:
    return Counter(str(dict(keys[trace_id])["difficulty"]) for trace_id in traces)


@given(many, configs(BALANCED))
def test_a_balanced_selection_has_the_same_number_of_each_difficulty_that_quotas_leave_any_of(found, config):
    keys = keys_of(found)
    chosen, kept = (by_difficulty(traces, keys) for traces in chosen_and_kept(found, config))
    assert len(set(kept.values())) <= 1
    if chosen and not config.quotas.is_set:
        assert kept == dict.fromkeys(chosen, min(chosen.values()))
    total = config.quotas.total
    if chosen and total is not None and config.quotas == Quotas(total=total):
        most = min(total // len(chosen), *chosen.values()) if total >= len(chosen) else 1
        assert set(kept.values()) == {most}
        assert len(kept) == min(total, len(chosen))


@given(many, bounded(BALANCED) | configs(BALANCED, bounded=False))
def test_what_a_balanced_selection_leaves_out_is_over_a_full_quota_or_its_difficulty_has_as_many_as_others(
    found, config
):
    keys, limits = keys_of(found), limits_of(config.quotas)
    chosen, taken = chosen_and_kept(found, config)
    kept = by_difficulty(taken, keys)
    sizes = Counter(key for trace_id in taken for key in keys[trace_id])
    assert all(sizes[key] <= most for key, most in limits.items())
    for trace_id in chosen - taken:
        is_full = any(key in limits and sizes[key] == limits[key] for key in keys[trace_id])
        (own,) = by_difficulty([trace_id], keys)
        assert is_full or kept[own] == max(kept.values(), default=0) > 0


def of_difficulty(name: str, count: int, domain: str = "math") -> list[list[Candidate]]:
    """Return problems with one correct trace each, and as many wrong ones as the difficulty takes."""
    others = {"easy": 0, "medium": 1, "hard": 3}[name]
    return [
        [
            candidate._replace(domain=domain, problem_id=f"{name}{domain}{n}")
            for candidate in (correct(f"{name}{domain}{n}"), *(wrong(f"{name}{domain}{n}-{i}") for i in range(others)))
        ]
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        (Quotas(), {"easy": 3, "medium": 3, "hard": 3}),
        (Quotas(domain={"code": 0}), {"easy": 50, "medium": 50}),  # no hard one may be taken
        (Quotas(domain={"code": 2}), {"easy": 2, "medium": 2, "hard": 2}),
        (Quotas(total=2), {"easy": 1, "hard": 1}),  # rarest first, then by name
        (Quotas(total=8), {"easy": 2, "medium": 2, "hard": 2}),
        (Quotas(length={5: 0, 20: 0}), {}),
    ],
)
def test_a_difficulty_that_another_quota_empties_is_none_to_be_balanced_with(quotas, expected):
    groups = [*of_difficulty("easy", 50), *of_difficulty("medium", 50), *of_difficulty("hard", 3, "code")]
    config = SelectConfig(rule="difficulty_balanced", quotas=quotas)
    found = [candidate for group in groups for candidate in group]
    assert by_difficulty(chosen_and_kept(found, config)[1], keys_of(found)) == expected


@given(many, bounded() | bounded(BALANCED), st.randoms(use_true_random=False))
def test_the_order_of_groups_and_of_their_traces_changes_nothing(found, config, random):
    overs = []
    for order in (found, random.sample(found, len(found))):
        quotas = QuotaPass(config)
        for group in grouped(order):
            quotas.add_group(group, choose(group, config))
        over = quotas.over()
        overs.append({c.trace_id for c in found if c.trace_id in over})
        assert len(over) == len(overs[-1])
    assert overs[0] == overs[1]


def test_a_total_takes_one_of_each_problem_before_a_second_of_any():
    groups = [[correct(f"{p}{i}", problem_id=p, sample_index=i) for i in range(4)] for p in "abcde"]
    config = SelectConfig(quotas=Quotas(total=7))
    taken = [sum(d.is_accepted for d in decisions) for decisions in decided(groups, config)]
    assert sorted(taken) == [1, 1, 1, 2, 2]


def test_another_seed_takes_others_and_the_same_one_the_same():
    groups = [[correct(str(n), problem_id=str(n))] for n in range(64)]

    def taken(seed: int) -> set[str]:
        config = SelectConfig(quotas=Quotas(total=32), seed=seed)
        return {d.trace_id for some in decided(groups, config) for d in some if d.is_accepted}

    assert taken(1) == taken(1) != taken(2)
    assert len(taken(2)) == 32


def test_a_domain_with_quota_zero_is_left_out_and_lengths_above_the_last_end_are_not_bounded():
    groups = [
        [correct("a", problem_id="a", tokens=5), wrong("w", problem_id="a")],
        [correct("b", problem_id="b", tokens=500)],
        [correct("c", problem_id="c", tokens=500)._replace(domain="code")],
    ]
    config = SelectConfig(quotas=Quotas(domain={"code": 0}, length={10: 0}))
    found = Counter(d.reason for some in decided(groups, config) for d in some)
    assert found == {None: 1, "over_quota": 2, "value_differs": 1}


def test_a_quota_pass_keeps_tens_of_bytes_of_a_trace():
    def groups() -> Iterable[list[Candidate]]:
        for n in range(8_000):
            yield [correct(f"{n:032x}", problem_id=f"{n:x}")]

    config = SelectConfig(quotas=Quotas(total=4_000))
    tracemalloc.start()
    over = over_quotas(groups(), config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(over) == 4_000
    assert peak / 8_000 < 110  # with Python's numbers of a part of it, which a larger pass has no more of


# What a job may ask for.


def select_config(**select: object) -> SelectConfig:
    body = {
        "name": "t",
        "sources": [{"kind": "jsonl", "path": "x", "mapping": "gsm8k"}],
        "teacher": {"kind": "scripted"},
    }
    return parse_config({**body, "select": select}, origin="job.yaml").select


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (
            {"rule": "one_random", "max_per_problem": 2},
            "select.max_per_problem=2 is not heeded: rule one_random takes one",
        ),
        ({"rule": "long_short_mix", "max_per_problem": 2}, "rule long_short_mix takes two of each problem"),
        ({"max_pass_rate": 0.3}, "select.max_pass_rate=0.3 is not heeded: rule is all_correct"),
        ({"seed": 4}, "select.seed=4 is not heeded: rule all_correct without quotas leaves nothing to chance"),
        ({"quotas": {"domain": {"maths": 3}}}, r"select.quotas.domain.*must be 'math', 'code'"),
        ({"quotas": {"difficulty": {"simple": 3}}}, "must be 'easy', 'medium' or 'hard'"),
        ({"quotas": {"length": {"long": 3}}}, "select.quotas.length.*integer"),
        ({"quotas": {"length": {0: 3}}}, "select.quotas.length.*greater than or equal to 1"),
        ({"quotas": {"total": 0}}, "select.quotas.total=0"),
        ({"rule": "difficulty_balanced", "quotas": {"difficulty": {"easy": 3}}}, "difficulty_balanced does not heed"),
        ({"configs": ["sft", "sft"]}, "names a table twice"),
        ({"preference": {"longer": 1}}, "select.preference.longer=1"),
        ({"validation_share": 1}, "select.validation_share=1"),
        ({"rule": "k_divers"}, "select.rule='k_divers'"),
    ],
)
def test_an_option_that_a_rule_does_not_heed_is_refused_by_name(select, words):
    with pytest.raises(ConfigError, match=words):
        select_config(**select)


@given(configs())
def test_a_config_comes_back_from_its_stored_form(config):
    assert SelectConfig(**config.model_dump(mode="json")) == config
