"""Publishing, killed and disturbed at every single request, one by one, against a local stand-in for the Hub.

After each: the same command again, and the repository holds exactly one version, whole, its tag right, and no file was
sent that the Hub held already. Prints a table. Shorter ones of this kind: tests/factory/test_publish.py.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.hub import HubServer, hub_server
from tests.publisher import (
    FAULTS,
    Publisher,
    publish_killed_at,
    publisher,
    require_nothing_half_visible,
    require_one_version,
)
from tests.selections import write_run

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = {"kill before": "hold", "kill after": "hold_done"}


def disturb(hub: HubServer, forker: Publisher, run: Path, number: int, how: str, *more: str) -> bool:
    """Publish with one kill or fault, run again until it is done; return whether there was such a request."""
    hub.control("reset")
    shutil.rmtree(run / "publish", ignore_errors=True)
    command = [str(run), "--repo", "org/data", *more]
    if how in KILLS:
        is_struck = publish_killed_at(hub, forker, command, number, KILLS[how])
    else:
        hub.order({"at": number, **FAULTS[how]})
        done = forker.run(*command)
        is_struck = any(record["fault"] for record in hub.log())
        assert done.code in (0, 6), (how, number, done.err)
        hub.order()
    require_nothing_half_visible(hub, run)
    done = forker.run(*command)
    assert done.code == 0, (how, number, done.err)
    require_one_version(hub, run)
    return is_struck


@pytest.mark.parametrize(
    ("what", "max_files", "more", "kinds"),
    [
        ("one commit", 80, ("--verify", "files"), [*KILLS, *FAULTS]),
        ("by a pull request", 3, ("--verify", "files"), [*KILLS, "cut", "lost"]),
        ("rows read back", 80, (), ["kill before", "cut"]),
    ],
)
def test_a_publication_disturbed_at_every_request_is_one_version_in_the_end(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    max_files: int,
    more: tuple[str, ...],
    kinds: list[str],
) -> None:
    run = write_run(tmp_path / "run", select={"configs": ["sft"]})
    struck: Counter[str] = Counter()
    with (
        hub_server(tmp_path / "hub") as hub,
        publisher(tmp_path / "publisher", hub.environment(), max_files=max_files) as forker,
    ):
        for how in kinds:
            number = 1
            while disturb(hub, forker, run, number, how, *more):
                struck[how] += 1
                number += 1
            with capsys.disabled():
                print(f"\n{what}: {how:12} at each of {struck[how]:3} requests: one version", flush=True)  # noqa: T201
    assert min(struck.values()) > 10
