import pytest
import ray

from jobs.cluster import local_ray
from schemas.errors import ConfigError, FactoryError


def test_a_ray_that_does_not_start_in_time_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(FactoryError, match=r"a local Ray cannot be started: .*timed out.*can be run again"),
        local_ray(),
    ):
        raise AssertionError("never reached")


def test_an_address_where_nothing_answers_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1: nothing answers"), local_ray("127.0.0.1:1"):
        raise AssertionError("never reached")
