"""Recipes: what was published, complete, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.students.launching import launch_config
from jobs.students.memory import GIB, count_parameters, describe_plan, estimate, layer_bytes
from jobs.students.recipe import FAMILIES, HERE, RECIPES, Shape, load_recipe, shipped_recipes
from schemas.errors import ConfigError

# Learning rate, epochs, parameters in billions: arXiv:2501.12948v2, appendix B.4.3; the models' own cards.
PUBLISHED = {
    "qwen-1.5b": (1e-4, "Qwen/Qwen2.5-Math-1.5B", 1.54),
    "qwen-7b": (8e-5, "Qwen/Qwen2.5-Math-7B", 7.62),
    "qwen-14b": (7e-5, "Qwen/Qwen2.5-14B", 14.77),
    "qwen-32b": (6e-5, "Qwen/Qwen2.5-32B", 32.76),
    "llama-8b": (5e-5, "meta-llama/Llama-3.1-8B", 8.03),
    "llama-70b": (2e-5, "meta-llama/Llama-3.3-70B-Instruct", 70.55),
}


def test_the_six_students_have_the_published_settings() -> None:
    assert set(shipped_recipes()) == {*PUBLISHED, "tiny-qwen", "tiny-llama"}
    for name, (rate, model, billions) in PUBLISHED.items():
        recipe = load_recipe(name)
        train = recipe.train
        assert (recipe.name, recipe.base.model, train.learning_rate) == (name, model, rate)
        assert (train.batch, train.max_length, train.min_rate_share) == (64, 32_768, 0.1)
        assert 2 <= train.epochs <= 3
        assert (recipe.base.rope_theta is not None) == ("Math" in model)
        assert recipe.base.shape is not None
        assert count_parameters(recipe.base.shape, has_bias=name.startswith("qwen")) / 1e9 == pytest.approx(
            billions, abs=0.01
        )


def test_a_recipe_that_was_not_trained_says_so_in_its_file_and_its_plan(tmp_path: Path) -> None:
    for name in PUBLISHED:
        assert "never trained here" in (RECIPES / f"{name}.yaml").read_text().partition("name:")[0]
        said = describe_plan(load_recipe(name), tmp_path)
        assert "validated, not trained" in said
        assert "not measured" in said


def test_what_a_recipe_asks_for_fits_by_its_own_estimate() -> None:
    for name in PUBLISHED:
        recipe = load_recipe(name)
        assert recipe.base.shape is not None
        assert estimate(recipe, recipe.base.shape, recipe.launch.processes).total < 0.9 * recipe.launch.memory_gib * GIB


def test_pairs_take_both_sides_and_a_reference_beside_what_rows_take(tmp_path: Path) -> None:
    for name in PUBLISHED:
        recipe = load_recipe(name, ["launch.kind=zero3", "launch.sequence_parallel=1"])
        shape = recipe.base.shape
        assert shape is not None
        count = count_parameters(shape, has_bias=name.startswith("qwen"))
        for processes in (1, 8, 64):
            rows, pairs = (estimate(recipe, shape, processes, method) for method in ("sft", "dpo"))
            assert pairs[:4] == rows[:4]  # weights, gradients, optimizer and what is put together
            assert pairs.reference == 4 * count / processes
            assert pairs.activations == 2 * rows.activations
            assert pairs.logits == rows.logits  # a tile is a tile
            assert (rows.reference, rows.loading, pairs.loading) == (0, 0, 0)
            assert pairs.total == sum(pairs[:-1]) > rows.total
    said = describe_plan(load_recipe("qwen-7b"), tmp_path, "dpo")
    assert "a step: 64 pairs, both sides of at most 32768 tokens = 8 at a time x 1 x 8 accumulated" in said
    assert " reference " in said
    assert "reference" not in describe_plan(load_recipe("qwen-7b"), tmp_path)


def test_fsdp2_holds_a_whole_reference_while_it_is_loaded_and_while_it_is_asked() -> None:
    recipe = load_recipe("qwen-32b")
    assert recipe.launch.kind == "fsdp2"
    shape = recipe.base.shape
    assert shape is not None
    count = count_parameters(shape, has_bias=True)
    for processes in (8, 32, 512):
        found = estimate(recipe, shape, processes, "dpo")
        assert found.loading == 4 * count
        assert found.gathered >= 2 * count
        assert found.total >= 4 * count
    assert estimate(recipe, shape, 512, "sft").total < 2 * count  # rows alone are shared out as far as one likes


def test_processes_on_a_cpu_hold_all_of_it_each() -> None:
    recipe = load_recipe("tiny-qwen", ["launch.processes=2", "train.rows_per_device=4"])
    assert recipe.base.shape is not None
    for method in ("sft", "dpo"):
        assert estimate(recipe, recipe.base.shape, 2, method) == estimate(recipe, recipe.base.shape, 1, method)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning=1", "train.learning: unknown key; did you mean 'learning_rate'?"),
        ("train.learning_rate=0", "train.learning_rate=0 must be greater than 0"),
        ("train.batch=60", "train.batch=60 must be a multiple of 8"),
        ("launch.processes=12", "processes=12 must fill whole nodes"),
        ("launch.sequence_parallel=2", "sequence_parallel > 1 and kind sequence_parallel go together"),
        ("base.shape.heads=27", "hidden=3584 must be a multiple of 27"),
        ("base.model=null", "give `shape` and `tokenizer`"),
        ("evidence=sure", "evidence='sure' must be 'trained' or 'validated'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe("qwen-7b", [override])
    assert message in str(raised.value)


def test_an_unknown_recipe_is_named_beside_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen-32b'"):
        load_recipe("qwen-32")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="must be a mapping with the keys name, evidence, base"):
        load_recipe(str(tmp_path / "list.yaml"))


def test_every_launch_file_is_one_that_accelerate_reads_and_is_the_recipes(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    kinds: dict[str, list[str]] = {
        "fsdp2": [],
        "zero3": ["launch.kind=zero3"],
        "sequence_parallel": ["launch.kind=sequence_parallel", "launch.sequence_parallel=2"],
        "cpu": ["launch.kind=cpu"],
    }
    assert {path.stem for path in (HERE / "launch").glob("*.yaml")} == set(kinds)
    for kind, changes in kinds.items():
        config = launch_config(load_recipe("qwen-14b", changes))
        assert config is not None
        path = tmp_path / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(config))
        read = load_config_from_file(str(path))  # refuses keys that it does not know
        assert (read.num_processes, read.num_machines) == (16, 2)
        assert (read.fsdp_config.get("fsdp_version") == 2) == (kind == "fsdp2")
        assert (read.deepspeed_config.get("zero_stage") == 3) == (kind in ("zero3", "sequence_parallel"))
        assert read.parallelism_config.get("parallelism_config_sp_size") == (2 if kind == "sequence_parallel" else None)


def test_every_process_loads_the_reference_of_pairs_and_one_alone_the_weights_of_rows() -> None:
    # trl shares a reference out by itself, from what each process has
    for method, loads_once in (("sft", True), ("dpo", False)):
        config = launch_config(load_recipe("qwen-7b"), method)
        assert config is not None
        assert config["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] is loads_once


SHAPES = (
    Shape(layers=3, hidden=128, intermediate=352, heads=4, kv_heads=1, vocabulary=160, tied=True),
    Shape(layers=3, hidden=128, intermediate=256, heads=4, kv_heads=4, vocabulary=160, tied=False),
)


def _model(family: str, shape: Shape, layers: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from jobs.students.prepare_base import _NAMES

    sizes = {theirs: getattr(shape, ours) for ours, theirs in _NAMES.items()} | {"num_hidden_layers": layers}
    config = AutoConfig.for_model(FAMILIES[family].model_type, **sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.config.use_cache = False
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_counted_exactly_and_activations_closely(family: str, shape: Shape) -> None:
    import torch

    model = _model(family, shape, shape.layers)
    assert count_parameters(shape, has_bias=family == "qwen") == model.num_parameters()
    kept, tokens = {}, 64
    for layers in (1, 3):
        model, found, alive = _model(family, shape, layers), {}, []
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:  # noqa: B023
                found[storage.data_ptr()] = storage.nbytes()  # noqa: B023
                alive.append(tensor)  # noqa: B023  else its address would be given again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=torch.zeros((1, tokens), dtype=torch.long))
        kept[layers] = sum(found.values())
    assert (kept[3] - kept[1]) / 2 / tokens == pytest.approx(layer_bytes(shape), rel=0.02)
