"""A training goes on with the base that it began with: another one of the same path or name is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from jobs.students.dpo import prefer
from jobs.students.prepare_base import pin_base, prepare_base
from jobs.students.recipe import Recipe, load_recipe
from jobs.students.sft import fine_tune
from schemas.errors import FingerprintError
from tests.jobs.students.conftest import TINY


def _quietly(_: str) -> None:
    pass


def _broken_off(recipe: Recipe, out: Path, lock: int) -> None:
    pass


def _ended(recipe: Recipe, out: Path, lock: int) -> None:
    (out / "model").mkdir()


def _student(folder: Path, seed: int) -> Path:
    """Write a student, in the place of one that is there; only its weights depend on the seed."""
    shutil.rmtree(folder, ignore_errors=True)
    return prepare_base(load_recipe("tiny-qwen", [*TINY, f"train.seed={seed}"]), folder)


@pytest.mark.parametrize("launch", [_broken_off, _ended])
def test_pairs_do_not_go_on_from_a_student_that_was_trained_anew(launch, selection: Path, tmp_path: Path) -> None:
    recipe, model, out = load_recipe("tiny-qwen", TINY), _student(tmp_path / "model", 1), tmp_path / "out"
    prefer(recipe, model, str(selection), out, _quietly, launch)
    prefer(recipe, model, str(selection), out, _quietly, _broken_off)
    _student(model, 2)
    with pytest.raises(FingerprintError, match=r"begun otherwise: base.model: \w{16} there, \w{16} now\. Give another"):
        prefer(recipe, model, str(selection), out, _quietly, _broken_off)
    _student(model, 1)
    prefer(recipe, model, str(selection), out, _quietly, _broken_off)


def test_a_base_or_a_template_that_was_changed_is_refused_until_it_is_what_it_was(
    selection: Path, tmp_path: Path
) -> None:
    base, template = _student(tmp_path / "base", 1), tmp_path / "mine.jinja"
    shutil.copyfile(load_recipe("tiny-qwen").base.of.template, template)
    changes = [*TINY, f"base.model={base}", "base.tokenizer=null", f"base.template={template}"]
    recipe, out = load_recipe("tiny-qwen", changes), tmp_path / "out"
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    _student(base, 2)
    with pytest.raises(FingerprintError, match=r"base.model: "):
        fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    _student(base, 1)
    text = template.read_text()
    template.write_text(f"{text}{{#- other -#}}")
    with pytest.raises(FingerprintError, match=r"base.template: "):
        fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    template.write_text(text)
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)


def test_a_training_without_rows_takes_the_base_that_is_there_now(selection: Path, tmp_path: Path) -> None:
    base, out = _student(tmp_path / "base", 1), tmp_path / "out"
    recipe = load_recipe("tiny-qwen", [*TINY, f"base.model={base}", "base.tokenizer=null"])
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    shutil.rmtree(out / "rows")
    _student(base, 2)
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    assert json.loads((out / "plan.json").read_text())["base"]["model"] == pin_base(recipe)[1]["model"]


def test_a_training_that_was_begun_before_plans_knew_their_base_goes_on(selection: Path, tmp_path: Path) -> None:
    recipe, model, out = load_recipe("tiny-qwen", TINY), _student(tmp_path / "model", 1), tmp_path / "out"
    prefer(recipe, model, str(selection), out, _quietly, _broken_off)
    plan = json.loads((out / "plan.json").read_text())
    del plan["base"]
    (out / "plan.json").write_text(json.dumps(plan, indent=1))
    prefer(recipe, model, str(selection), out, _quietly, _broken_off)
    other = recipe.model_copy(update={"dpo": recipe.dpo.model_copy(update={"beta": 9.0})})
    with pytest.raises(FingerprintError, match=r"begun otherwise: recipe.dpo.beta: "):
        prefer(other, model, str(selection), out, _quietly, _broken_off)


def test_a_base_on_the_hub_is_known_by_its_commit(
    selection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is as huggingface_hub lays it out, and offline it is all that there is."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "hub" / "models--me--student"
    (repo / "refs").mkdir(parents=True)
    (repo / "snapshots").mkdir()
    old, new = "a" * 40, "b" * 40
    for commit, seed in ((old, 1), (new, 2)):
        _student(repo / "snapshots" / commit, seed)
    (repo / "refs" / "main").write_text(old)
    changes, out = [*TINY, "base.model=me/student", "base.tokenizer=null"], tmp_path / "out"
    recipe = load_recipe("tiny-qwen", changes)
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    assert (out / "base" / "model.safetensors").resolve().parent.name == old
    (repo / "refs" / "main").write_text(new)
    with pytest.raises(FingerprintError, match=f"begun otherwise: recipe.base.revision: {old} there, {new} now"):
        fine_tune(recipe, str(selection), out, _quietly, _broken_off)
    # the way out that the message shows
    as_before = load_recipe("tiny-qwen", [*changes, f"base.revision={old}"])
    fine_tune(as_before, str(selection), out, _quietly, _broken_off)
    plan = json.loads((out / "plan.json").read_text())
    del plan["base"]
    plan["recipe"]["base"]["revision"] = None  # as it was written before
    (out / "plan.json").write_text(json.dumps(plan, indent=1))
    fine_tune(recipe, str(selection), out, _quietly, _broken_off)
