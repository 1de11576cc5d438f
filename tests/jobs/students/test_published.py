"""From a run to a student by way of the Hub: published, taken by its tag, guarded, trained on; against a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.students.rows import open_table
from tests.hub import hub_server
from tests.publisher import REPO, arguments, publisher
from tests.selections import write_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NUM_PROBLEMS = 12
RECIPE = ("--recipe", "tiny-qwen", "--set", "train.max_steps=2")
READ = """
import json, sys
from factory.sources import load_problems
from schemas.config import Columns, DatasetSource
columns = Columns(messages="prompt", answer="answer")
source = DatasetSource(kind="dataset", path=sys.argv[1], config="rl_prompts", revision=sys.argv[2], columns=columns)
print(json.dumps([problem.source_revision for problem in load_problems([source], max_problems=None).problems]))
"""


def python(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_published_version_teaches_a_student_and_is_a_source_of_problems(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", NUM_PROBLEMS)
    student = tmp_path / "student"
    with hub_server(tmp_path / "hub") as hub, publisher(tmp_path / "publisher", hub.environment()) as forker:
        published = forker.run(*arguments(run, "--json"))
        assert published.code == 0, published.err
        tag = json.loads(published.out)["tag"]
        environment = {**hub.environment(), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        sft = ["-m", "jobs", "sft", *RECIPE, "--out", str(student), "--data"]
        missing = python(environment, *sft, f"{REPO}@v9")
        assert missing.returncode == 2
        said = " ".join(missing.stderr.split())
        assert f"--data {REPO}@v9: {REPO} has no tag, branch or commit v9; its tags are {tag}" in said
        assert not (student / "plan.json").exists(), "nothing was begun"
        trained = python(environment, *sft, f"{REPO}@{tag}")
        assert trained.returncode == 0, trained.stderr
        read = python(environment, "-c", READ, REPO, tag)
        assert read.returncode == 0, read.stderr
        repo = hub.repo()
    assert repo is not None
    assert json.loads(read.stdout) == [repo["refs"][f"refs/tags/{tag}"]] * NUM_PROBLEMS, "the commit, not the tag"
    plan = json.loads((student / "plan.json").read_text())
    table = open_table(run / "tables" / "default", "sft_prompt_completion")
    assert table is not None
    assert plan["data"] == table.digest, "what was trained on is what the run has"
    steps = [json.loads(line)["step"] for line in (student / "progress.jsonl").read_text().splitlines()]
    assert max(steps) == 2
    assert (student / "model" / "model.safetensors").exists()
