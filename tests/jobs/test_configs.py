"""The shipped job files say what they claim to say."""

from __future__ import annotations

from pathlib import Path

from jobs.demo_teacher.families import DEMO_SEED, DEMO_SIZE, FAMILIES
from schemas.config import GymSource, VllmTeacher, load_config

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def test_the_demo_asks_only_what_its_teacher_was_never_trained_on() -> None:
    job = load_config(CONFIGS / "demo.yaml")
    sources = {source.task: source for source in job.sources if isinstance(source, GymSource)}
    assert sources.keys() == FAMILIES.keys()
    for name, family in FAMILIES.items():
        assert sources[name].config == family.config
        assert sources[name].seed == DEMO_SEED
        assert sources[name].size <= DEMO_SIZE


def test_the_demo_makes_four_attempts_at_300_problems_or_more_on_vllm() -> None:
    job = load_config(CONFIGS / "demo.yaml")
    assert isinstance(job.teacher, VllmTeacher)
    assert job.sampling.num_samples == 4
    assert sum(source.size for source in job.sources if isinstance(source, GymSource)) >= 300
