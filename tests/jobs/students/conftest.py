"""Selections and prepared students that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.students.prepare_base import prepare_base
from jobs.students.recipe import Recipe, load_recipe
from jobs.students.rows import Student, load_student
from tests.student_tables import make_pairs, make_rows, write_table

# So small that a step takes milliseconds.
TINY = (
    "base.shape={layers: 1, hidden: 32, intermediate: 32, heads: 2, kv_heads: 1, vocabulary: 1792, tied: true}",
    "train.max_length=512",
    "train.batch=4",
    "train.rows_per_device=2",
    "train.max_steps=6",
    "train.save_steps=2",
    "dpo={batch: 4, max_steps: 2, learning_rate: 0.001}",
)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selection")
    write_table(folder, "sft_prompt_completion", make_rows(48), shards=2)
    return write_table(folder, "preference", make_pairs(16))


@pytest.fixture(scope="session", params=["qwen", "llama"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(f"tiny-{request.param}", TINY)


@pytest.fixture(scope="session")
def base(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_base(recipe, tmp_path_factory.mktemp(recipe.name) / "base", with_weights=False)


@pytest.fixture(scope="session")
def student(recipe: Recipe, base: Path) -> Student:
    return load_student(base, recipe)
