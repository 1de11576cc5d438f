"""Fixtures for all tests, and hypothesis profiles: this project never asserts on time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("factory", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("factory")
