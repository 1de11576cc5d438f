"""Training: packed rows do not see each other, a kill changes nothing, pairs start from what was saved.

Real trainers on models so small that a step takes milliseconds: what is asserted is mechanics, never what was learnt.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.students.dpo import prefer, starting_from
from jobs.students.launching import launch_command, launch_config
from jobs.students.recipe import Recipe, load_recipe
from jobs.students.rows import load_student, open_table
from jobs.students.sft import check_data, fine_tune
from schemas.errors import ConfigError, FingerprintError, GuardError
from tests.jobs.students.conftest import TINY
from tests.student_tables import make_pairs, make_rows, write_table

pytestmark = [pytest.mark.slow]
ROOT = Path(__file__).parents[3]


def _quietly(_: str) -> None:
    pass


def _weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(recipe: Recipe, selection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(f"trained-{recipe.name}") / "out"
    fine_tune(recipe, str(selection), out, _quietly)
    return out


def test_a_student_is_trained_and_saved_with_its_end_and_its_template(recipe: Recipe, trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    losses = [json.loads(line)["loss"] for line in (trained / "progress.jsonl").read_text().splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.3
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    end = tokenizer.convert_tokens_to_ids(recipe.base.of.end)
    assert model.generation_config.eos_token_id == end == tokenizer.eos_token_id
    assert tokenizer.chat_template == recipe.base.of.template.read_text()
    assert model.config.use_cache
    assert not list(trained.glob("*.part"))


def test_the_same_command_is_done_and_another_one_is_refused(recipe: Recipe, trained: Path, selection: Path) -> None:
    before, said = _weights(trained), []
    fine_tune(recipe, str(selection), trained, said.append)
    assert said == [f"{trained / 'model'} is done; nothing to do"]
    assert _weights(trained) == before
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 1.0})})
    with pytest.raises(FingerprintError, match=r"recipe.train.learning_rate: 0.005 there, 1.0 now"):
        fine_tune(other, str(selection), trained, _quietly)


def test_torn_checkpoints_are_thrown_away_and_the_weights_are_the_same_bit_for_bit(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out, symlinks=True)
    shutil.rmtree(out / "model")
    newest = sorted((out / "checkpoints").iterdir())[-1]
    assert newest.name == "checkpoint-6"
    (newest / "whole").unlink()
    (newest / "optimizer.pt").write_bytes(b"torn")
    (out / "model.part").mkdir()
    fine_tune(recipe, str(selection), out, _quietly)
    assert _weights(out) == _weights(trained)


@pytest.mark.drill
def test_a_training_killed_at_random_ends_with_the_same_weights_bit_for_bit(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    if recipe.base.family != "qwen":
        pytest.skip("one family is enough: each run of the command takes ten seconds")
    out = tmp_path / "out"
    words = ["sft", "--recipe", recipe.name, "--data", str(selection), "--out", str(out)]
    command = [sys.executable, "-m", "jobs", *words, *(word for change in TINY for word in ("--set", change))]
    after = random.randrange(1, 6)
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while _steps(out) < after and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (out / "model").exists(), "it was faster than the kill"
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert _weights(out) == _weights(trained), f"killed after step {after}"


def _steps(out: Path) -> int:
    path = out / "progress.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_packed_rows_have_the_loss_of_rows_one_by_one_and_mixed_ones_have_not(trained: Path, recipe: Recipe) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    from jobs.students.packing import check_packing, loss_apart, loss_packed

    rows = list(Dataset.from_file(str(trained / "rows" / "train.arrow")))[:8]
    apart, packed = check_packing(recipe, trained / "base", rows, _quietly)
    assert apart == pytest.approx(packed, abs=0.5e-5)
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    model.config.use_cache = False
    apart = loss_apart(model, rows)
    assert loss_packed(model, rows, "bfd") == pytest.approx(apart, abs=0.5e-5)
    assert abs(loss_packed(model, rows, "wrapped") - apart) > 1e-4


def test_flash_attention_is_not_asked_of_a_cpu_and_that_is_said(trained: Path, recipe: Recipe) -> None:
    from datasets import Dataset

    from jobs.students.packing import check_packing

    rows, said = list(Dataset.from_file(str(trained / "rows" / "train.arrow")))[:8], []
    train = recipe.train.model_copy(update={"attention": "flash_attention_2"})
    check_packing(recipe.model_copy(update={"train": train}), trained / "base", rows, said.append)
    assert "train.attention=flash_attention_2 was not checked" in said[0]


def test_rows_that_several_gpus_share_are_padded_to_what_they_can_share_and_pairs_are_refused(
    trained: Path, recipe: Recipe
) -> None:
    from jobs.students.training import _trainer

    launch = {"kind": "sequence_parallel", "processes": 2, "sequence_parallel": 2}
    train = recipe.train.model_copy(update={"packing": "none"})
    shared = recipe.model_copy(update={"launch": recipe.launch.model_copy(update=launch), "train": train})
    alone = recipe.model_copy(update={"train": train})
    lengths = {}
    for name, each in (("shared", shared), ("alone", alone)):
        trainer = _trainer(each, trained)
        batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
        lengths[name] = [batch["input_ids"].shape[1] for batch in batches]
        assert all(batch["labels"].shape == batch["input_ids"].shape for batch in batches)
    assert any(length % 2 for length in lengths["alone"])
    assert lengths["shared"] == [length + length % 2 for length in lengths["alone"]]
    with pytest.raises(ConfigError, match=r"launch.kind=sequence_parallel: factory dpo cannot share"):
        starting_from(shared, trained / "model")


def test_a_checkpoint_that_is_not_marked_yet_is_never_the_only_one(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    from jobs.students.training import newest_checkpoint

    if recipe.base.family != "qwen":
        pytest.skip("one family is enough")
    train = recipe.train.model_copy(update={"keep_checkpoints": 1})
    fine_tune(recipe.model_copy(update={"train": train}), str(selection), tmp_path, _quietly)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    (folder / "checkpoint-6" / "whole").unlink()  # as a kill before the mark
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "checkpoint-4"


def test_packing_that_leaks_is_refused_before_the_first_step(
    trained: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    from jobs.students import packing

    rows = list(Dataset.from_file(str(trained / "rows" / "train.arrow")))[:8]
    monkeypatch.setattr(packing, "PACKING", "wrapped")
    with pytest.raises(GuardError, match="packed rows see each other"):
        packing.check_packing(recipe, trained / "base", rows, _quietly)


def test_a_trainer_that_cuts_or_changes_rows_is_refused_before_the_first_step(recipe: Recipe, trained: Path) -> None:
    from jobs.students.training import _trainer, check_rows

    tokens = json.loads((trained / "rows" / "tokens.json").read_text())
    check_rows(_trainer(recipe, trained), tokens)
    train = recipe.train.model_copy(update={"max_length": 100})
    cutting = _trainer(recipe.model_copy(update={"train": train}), trained)
    with pytest.raises(GuardError, match="this version of trl cuts or changes rows"):
        check_rows(cutting, tokens)


def test_good_data_pass_all_guards_without_training(recipe: Recipe, selection: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = check_data(recipe, str(selection), tmp_path, said.append)
    assert (found.num_rows, found.num_encoded, dict(found.faults)) == (48, 48, {})
    assert said[0].startswith("guards: 48 rows, no fault; 0 longer than 512 tokens are dropped;")
    assert not (tmp_path / "base" / "model.safetensors").exists()


def test_bad_data_start_nothing_and_leave_the_folder_free(recipe: Recipe, selection: Path, tmp_path: Path) -> None:
    rows = make_rows(8)
    bad = write_table(tmp_path / "bad", "sft_prompt_completion", [*rows, rows[0]])
    out = tmp_path / "out"
    with pytest.raises(GuardError, match="guard ids"):
        fine_tune(recipe, str(bad), out, _quietly)
    assert not (out / "rows").exists()
    assert not (out / "checkpoints").exists()
    (out / "checkpoints").touch()  # so that training cannot begin: the plan is what is looked at
    with pytest.raises(Exception, match="checkpoints"):
        fine_tune(recipe, str(selection), out, _quietly)


def test_pairs_start_from_the_saved_student_and_move_it(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prefer(recipe, trained / "model", str(selection), out, _quietly)
    logs = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert logs[0]["rewards/margins"] == 0  # the reference is what it starts from
    assert logs[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert _weights(out) != _weights(trained)


def test_pairs_take_the_bytes_that_the_estimate_says(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    from jobs.students.memory import estimate
    from jobs.students.training import _preference_trainer

    if recipe.base.family != "qwen":
        pytest.skip("one family is enough: parameters are counted elsewhere")
    out = _prepared_pairs(recipe, trained, selection, tmp_path)
    assert recipe.base.shape is not None
    trainer = _preference_trainer(recipe, out)
    shapes: list[tuple[int, int]] = []
    found: dict[str, int] = {}

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
            found["gradients"] = sum(weight.grad.nbytes for weight in model.parameters())

    trainer.add_callback(Look())
    trainer.ref_model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    trainer.train()
    state = trainer.optimizer.state
    found["weights"] = sum(weight.nbytes for weight in trainer.model.parameters())
    found["optimizer"] = sum(state[weight][key].nbytes for weight in state for key in ("exp_avg", "exp_avg_sq"))
    found["reference"] = sum(weight.nbytes for weight in trainer.ref_model.parameters())
    own = {weight.data_ptr() for weight in trainer.model.parameters()}
    assert own.isdisjoint(weight.data_ptr() for weight in trainer.ref_model.parameters())
    wanted = estimate(recipe, recipe.base.shape, 1, "dpo")
    assert {name: getattr(wanted, name) for name in found} == found
    # both sides of the pairs of a device at a time
    assert {rows for rows, _ in shapes} == {2 * recipe.train.rows_per_device}
    assert max(length for _, length in shapes) <= recipe.train.max_length


def test_a_reference_that_is_another_model_is_refused_before_the_first_step(
    recipe: Recipe, trained: Path, selection: Path, tmp_path: Path
) -> None:
    from jobs.students.training import _preference_trainer, check_reference

    if recipe.base.family != "qwen":
        pytest.skip("one family is enough")
    out = _prepared_pairs(recipe, trained, selection, tmp_path)
    trainer = _preference_trainer(recipe, out)
    for weight in trainer.ref_model.parameters():  # as processes would have them that leave loading to another
        weight.data.zero_()
    with pytest.raises(GuardError, match=r"guard reference: before the first step .* nats a token apart"):
        trainer.train()
    assert not list(out.glob("checkpoints/checkpoint-*"))
    check_reference([1e-3, -1e-3], 0.1, 100)
    with pytest.raises(GuardError, match="guard reference"):
        check_reference([0.0, math.nan], 0.1, 100)


def _prepared_pairs(recipe: Recipe, trained: Path, selection: Path, folder: Path) -> Path:
    """Return a folder as `factory dpo` has prepared it before a trainer begins."""
    out = folder / "out"
    prepared = RuntimeError("prepared")

    def stop(*_: Any) -> None:
        raise prepared

    with pytest.raises(RuntimeError, match="prepared"):
        prefer(recipe, trained / "model", str(selection), out, _quietly, stop)
    return out


def test_pairs_that_teach_nothing_or_another_template_are_refused(
    recipe: Recipe, trained: Path, tmp_path: Path
) -> None:
    pairs = make_pairs(6)
    same = {**pairs[5], "rejected": pairs[5]["chosen"]}
    for name, bad, message in (
        ("same", [*pairs[:5], same], "guard pairs: 1 of 6 rows; row pair-00005"),
        ("twice", [*pairs, pairs[2]], "guard ids: 1 of 7 rows; row pair-00002"),
    ):
        folder = write_table(tmp_path / name, "preference", bad)
        with pytest.raises(GuardError, match=message):
            prefer(recipe, trained / "model", str(folder), tmp_path / f"{name}-out", _quietly)
    folder = write_table(tmp_path / "good", "preference", pairs)
    model = shutil.copytree(trained / "model", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{- messages[0]['content'] -}}")
    with pytest.raises(GuardError, match="guard question: the chat template"):
        prefer(recipe, model, str(folder), tmp_path / "other-out", _quietly)


@pytest.mark.drill
def test_processes_that_accelerate_makes_something_else_of_are_refused(selection: Path, tmp_path: Path) -> None:
    recipe = load_recipe("tiny-qwen", [*TINY, "launch={kind: fsdp2, processes: 2}"])
    with pytest.raises(Exception, match="needs 2 GPUs on a node, 0 are visible"):
        fine_tune(recipe, str(selection), tmp_path, _quietly)
    config: dict[str, Any] = launch_config(recipe) or {}
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump({**config, "use_cpu": True, "mixed_precision": "no"}))
    found = subprocess.run(
        launch_command(recipe, tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode != 0
    assert "launch.kind=fsdp2: asked for fsdp2, 2 processes; what accelerate made of it is " in found.stderr
    assert not list(tmp_path.glob("checkpoints/*"))
    assert not (tmp_path / "progress.jsonl").exists()


@pytest.mark.drill
def test_two_processes_on_a_cpu_train_what_one_does(selection: Path, tmp_path: Path) -> None:
    weights = []
    for processes in (1, 2):
        changes = [*TINY, f"launch={{kind: cpu, processes: {processes}}}"]
        fine_tune(load_recipe("tiny-qwen", changes), str(selection), tmp_path / str(processes), _quietly)
        losses = [json.loads(line)["loss"] for line in (tmp_path / str(processes) / "progress.jsonl").open()]
        weights.append(losses)
    assert weights[0] == pytest.approx(weights[1], abs=1e-3)


def test_rows_as_training_takes_them_are_those_of_the_table(recipe: Recipe, trained: Path, selection: Path) -> None:
    from datasets import Dataset

    student = load_student(trained / "base", recipe)
    table = open_table(selection, "sft_prompt_completion")
    assert table is not None
    stored = [row for batch in table.rows() for row in batch]
    rows = Dataset.from_file(str(trained / "rows" / "train.arrow"))
    assert len(rows) == len(stored)
    for row, own in zip(rows, stored, strict=True):
        learnt = student.tokenizer.decode([label for label in row["labels"] if label != -100])
        assert learnt == own.completion + student.family.end
