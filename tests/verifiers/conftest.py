"""One pool of worker processes for the folder, and none left behind."""

from collections.abc import Iterator

import pytest

from verifiers import close_default_pool


@pytest.fixture(scope="session", autouse=True)
def _default_pool_is_closed() -> Iterator[None]:
    yield
    close_default_pool()
