"""Fixtures for all tests, and hypothesis profiles: this project never asserts on time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.hostile import write_hostile_run

settings.register_profile("factory", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("factory")


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run whose texts are hostile; to be read only: a test that changes it takes a copy."""
    path = tmp_path_factory.mktemp("hostile") / "run"
    write_hostile_run(path)
    return path
