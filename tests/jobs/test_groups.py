"""Which ranks of an engine get which bundles of its placement group."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobs.groups import bundles_by_rank, num_split_stages


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=24), st.integers(1, 8))
def test_every_bundle_has_one_rank_and_no_stage_is_split_that_a_node_could_hold(nodes: list[str], size: int) -> None:
    ranks = bundles_by_rank(nodes, size)
    assert sorted(ranks) == list(range(len(nodes)))
    stages = [[nodes[bundle] for bundle in ranks[begin : begin + size]] for begin in range(0, len(nodes), size)]
    whole = sum(len(set(stage)) == 1 and len(stage) == size for stage in stages)
    assert whole >= sum(count // size for count in Counter(nodes).values())
    assert num_split_stages(nodes, size) == sum(len(set(stage)) > 1 for stage in stages)


def test_two_stages_of_eight_on_two_nodes_are_a_node_each() -> None:
    nodes = ["a", "b"] * 8
    ranks = bundles_by_rank(nodes, 8)
    assert [nodes[bundle] for bundle in ranks] == ["a"] * 8 + ["b"] * 8
    assert num_split_stages(nodes, 8) == 0
