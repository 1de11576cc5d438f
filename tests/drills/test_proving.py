"""The proof in ten minutes: all arms, on real training and real vLLM. That of three minutes is in `make test`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.ray, pytest.mark.vllm]


@pytest.mark.timeout(3_000)
def test_students_of_all_arms_learn_from_one_run_and_every_comparison_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "prove", "ten-minutes", "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    students = {student["arm"]: student for student in found["students"]}
    assert list(students) == ["start", "a", "b", "c", "d"]
    assert [(one["first"], one["second"]) for one in found["comparisons"]] == [("c", "a"), ("c", "b"), ("d", "c")]
    assert {student["steps"] for arm, student in students.items() if arm != "start"} == {250}
    assert found["rows"]["b"] > found["rows"]["c"] > found["rows"]["d"] > 500
    assert students["c"]["last_loss"] < students["start"]["last_loss"]
    assert found["num_problems"] > 150
