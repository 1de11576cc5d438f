"""Training as a Ray job: submitted, guarded, trained by two processes on a node, and followed to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.drill import factory_process
from tests.jobs.students.conftest import TINY
from tests.jobs.test_submit import Cluster, cluster  # noqa: F401  a fixture
from tests.student_tables import make_rows, write_table

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.drill]


def test_a_student_is_trained_by_the_processes_of_a_cluster_and_a_refusal_is_ours(
    cluster: Cluster,  # noqa: F811
    selection: Path,
    tmp_path: Path,
) -> None:
    changes = [*TINY, "launch={kind: cpu, processes: 2}"]
    words = ["sft", "--recipe", "tiny-qwen", *(word for change in changes for word in ("--set", change))]
    bad = write_table(tmp_path / "bad", "sft_prompt_completion", make_rows(4) * 2)
    for data, out, code, said in (
        (selection, tmp_path / "out", 0, "spread: multi_cpu, 2 processes"),
        (bad, tmp_path / "refused", 2, "guard ids: 4 of 8 rows"),
    ):
        asked = [*words, "--data", data, "--out", out, "--submit", cluster.address]
        with factory_process(
            asked, tmp_path / f"mark-{code}", environment=cluster.environment, folder=tmp_path
        ) as child:
            assert child.wait(300) == code, child.said() + child.out.read_text()
            assert said in child.out.read_text()
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "refused" / "rows").exists()
