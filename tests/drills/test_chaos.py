"""Processes of real runs killed with -9 at random moments and at steps of the commit protocol; many more by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench import chaos

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = 20_261_127


def _check(rounds: list[chaos.Round], number: int) -> None:
    table = chaos.summary(rounds)
    print(*table, *chaos.others(rounds), sep="\n")  # noqa: T201  shown where the test fails
    assert table[-1]["rounds"] == number
    assert table[-1]["hit"] >= 0.9 * number  # no raylet but the head's may have had an engine
    assert chaos.is_fine(rounds)


@pytest.mark.timeout(1800)
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    _check(chaos.scripted_rounds(20, tmp_path / "scripted", SEED, lambda _: None), 20)


@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_a_killed_engine_core_of_vllm_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    _check(chaos.vllm_rounds(1, tmp_path / "vllm", SEED, lambda _: None), 1)
