"""What a run tells of itself: names that README.md lists, in Ray's own endpoint; sums that no death makes smaller."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from factory.coordinator import Progress
from factory.ledgers import read_ledgers
from factory.sharing import Occupancy
from factory.teachers import Loaded
from jobs.cluster import local_ray
from jobs.meters import METRICS, PREFIX, EngineTime, Meters
from schemas.manifest import Counts
from schemas.verdict import Outcome

README = Path(__file__).parents[2] / "README.md"
ENDPOINT_S = 120.0  # that Ray's agent may take until it shows what was set


def _documented() -> dict[str, set[str]]:
    """Return the labels of each metric as README.md has them."""
    section = README.read_text(encoding="utf-8").split("### Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)
    return {name: {"run", *re.findall(r"`(\w+)`", labels)} for name, labels in rows}


def _progress(occupancy: Mapping[str, Occupancy]) -> Progress:
    return Progress(
        counts=Counts(requested=8, pending=8),
        num_problems=8,
        outcomes={Outcome.CORRECT: 1},
        reasons={},
        num_tokens=0,
        num_tokens_out=0,
        in_flight=0,
        is_done=False,
        occupancy=occupancy,
    )


def _meters(path: Path) -> Meters:
    return Meters("tests", path, 1, 0, {})


def test_all_metrics_are_in_the_readme_with_their_labels() -> None:
    assert _documented() == {name: {"run", *labels} for name, (labels, _) in METRICS.items()}


@pytest.mark.ray
def test_rays_endpoint_has_every_metric_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    (tmp_path / "journal").mkdir()
    meters = _meters(tmp_path)
    with local_ray():
        progress = _progress({"engine-0-e1-1": Occupancy(1, 2, 3)})
        meters.fed(progress.occupancy)
        meters.show(progress)
        port = ray.nodes()[0]["MetricsExportPort"]
        found: dict[str, set[str]] = {}
        deadline = time.monotonic() + ENDPOINT_S
        while found.keys() != METRICS.keys() and time.monotonic() < deadline:
            time.sleep(0.2)
            found = _exported(port)
    documented = _documented()
    assert found.keys() == documented.keys()
    assert all(documented[name] <= labels for name, labels in found.items())


def _exported(port: int) -> dict[str, set[str]]:
    """Return the labels of our metrics in a node's endpoint, by name."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:  # not up yet
        return {}
    lines = re.findall(rf"^(?:ray_)?{PREFIX}_(\w+)\{{(.*)\}} ", text, re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in lines}


LOADED = Loaded(
    dtype="bfloat16", quantization="none", tensor_parallel_size=1, pipeline_parallel_size=1, host_class="NVIDIA H200"
)
SECONDS = st.floats(0, 1e6)
SEEN = st.dictionaries(st.sampled_from([f"engine-{n % 2}-e1-{n}" for n in range(4)]), SECONDS, max_size=4)


@given(st.lists(st.tuples(SEEN, st.dictionaries(st.sampled_from(["engine-0-e1-0", "engine-1-e1-1"]), st.integers(0)))))
def test_neither_tokens_nor_time_shrink_when_a_coordinator_dies_that_knew_of_dead_engines(steps: list) -> None:
    meters = _meters(Path())
    for seconds, tokens in steps:
        before = meters.num_tokens, meters.ledger()["full"]
        meters.tokens_made(tokens)
        meters.fed({name: Occupancy(full=spent) for name, spent in seconds.items()})
        assert meters.num_tokens >= max(before[0], sum(tokens.values()))
        assert meters.ledger()["full"] >= max(before[1], 0.999999 * sum(seconds.values()))
        assert sum(meters.fed_s.values()) == pytest.approx(meters.ledger()["full"])
    assert set(meters.ledgers()) <= {"engine-0", "engine-1"}, "a label for each engine that died"


def test_each_engine_has_its_own_time_with_that_of_those_whose_place_it_took(tmp_path: Path) -> None:
    clock = [0.0]
    times = EngineTime(clock=lambda: clock[0])
    meters = _meters(tmp_path)
    (tmp_path / "logs").mkdir()
    for slot, loading_s in ((0, 1.0), (1, 2.0)):
        times.spawned(slot)
        times.loaded(slot, loading_s)
    clock[0] = 10.0
    meters.fed(
        {"engine-0-e3-1": Occupancy(4, 1, 0), "engine-0-e3-3": Occupancy(2, 0, 0), "engine-1-e3-2": Occupancy(8)}
    )
    times.settle(0, meters.fed_s, meters)
    meters.keep(_progress({}))
    assert read_ledgers(tmp_path / "logs")[0]["engines"] == []
    for loaded in (None, LOADED, replace(LOADED, host_class=None), LOADED):
        meters.loaded_as(loaded)
    meters.keep(_progress({}))  # at once, though the last time was just now: a kill would take it
    expected = {
        "engine-0": {"full": 6, "starved": 1, "blocked": 0, "loading": 1, "dead": 2},
        "engine-1": {"full": 8, "starved": 0, "blocked": 0, "loading": 2, "dead": 0},
    }
    (kept,) = read_ledgers(tmp_path / "logs")
    assert kept["by_engine"] == meters.ledgers() == expected
    assert kept["engines"] == [asdict(LOADED), asdict(LOADED) | {"host_class": None}]
    assert kept["seconds"] == {"full": 14, "starved": 1, "blocked": 0, "loading": 3, "dead": 2}
