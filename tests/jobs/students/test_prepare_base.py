"""Bases: what is written is what was asked for, read back by the classes that train and serve it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs.students.prepare_base import check_base, prepare_base, theta_of
from jobs.students.recipe import load_recipe
from schemas.errors import ConfigError, GuardError
from tests.jobs.students.conftest import TINY


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Qwen2 model with 512 positions and theta 10,000, as Qwen2.5-Math has 4,096."""
    return prepare_base(load_recipe("tiny-qwen", TINY), tmp_path_factory.mktemp("short") / "base")


def test_positions_are_extended_in_what_is_saved_and_in_what_the_model_turns_by(short: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    changes = [*TINY, f"base.model={short}", "base.tokenizer=null", "base.rope_theta=300000", "train.max_length=2048"]
    folder = prepare_base(load_recipe("tiny-qwen", changes), tmp_path / "base")
    assert theta_of(AutoConfig.from_pretrained(short)) == 10_000
    saved = json.loads((folder / "config.json").read_text())
    assert saved["rope_parameters"]["rope_theta"] == 300_000
    assert saved["max_position_embeddings"] == 2048
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 2048
    model = AutoModelForCausalLM.from_pretrained(folder)
    width = 32 // 2
    expected = [300_000 ** (-2 * n / width) for n in range(width // 2)]
    assert model.model.rotary_emb.inv_freq.tolist() == pytest.approx(expected, rel=1e-6)
    # the weights are the base's own, by a link
    assert (folder / "model.safetensors").resolve() == (short / "model.safetensors").resolve()


def test_a_base_that_is_not_extended_is_refused(short: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    long = load_recipe("tiny-qwen", [*TINY, f"base.model={short}", "base.tokenizer=null", "train.max_length=2048"])
    with pytest.raises(GuardError, match=r"guard context: it has 512 positions, train.max_length=2048"):
        prepare_base(long, tmp_path / "base")
    # what setting the attribute does, which transformers 4 heeded
    wanted = load_recipe("tiny-qwen", [*TINY, "base.rope_theta=300000"])
    folder = shutil.copytree(short, tmp_path / "attribute")
    config = AutoConfig.from_pretrained(folder)
    config.rope_theta = 300_000.0
    config.save_pretrained(folder)
    with pytest.raises(
        GuardError, match=r"theta 10000.0, the recipe base.rope_theta=300000: the context is not extended"
    ):
        check_base(wanted, folder)


def test_a_base_that_ends_otherwise_or_pads_with_its_end_is_refused(short: Path, tmp_path: Path) -> None:
    recipe = load_recipe("tiny-qwen", TINY)
    for name, change, message in (
        ("generation_config.json", {"eos_token_id": 0}, "guard end: generation stops at tokens 0, not at 2"),
        ("tokenizer_config.json", {"pad_token": "<|im_end|>"}, "guard padding: the tokenizer pads with '<|im_end|>'"),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, "guard end: the tokenizer ends with '<|endoftext|>'"),
    ):
        folder = shutil.copytree(short, tmp_path / f"{len(message)}")
        body = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(body | change))
        with pytest.raises(GuardError) as raised:
            check_base(recipe, folder)
        assert message in str(raised.value)


def test_of_how_a_base_generates_only_its_end_stays_beside_the_familys(short: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    # as Qwen2.5's own checkpoints: they end and pad with <|endoftext|>, stop after 2048 tokens and never sample
    limits = {"max_new_tokens": 2048, "do_sample": False, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.1}
    base = shutil.copytree(short, tmp_path / "published")
    for name, change in (
        ("generation_config.json", {"eos_token_id": 0, **limits}),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}),
    ):
        body = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps(body | change))
    folder = prepare_base(load_recipe("tiny-qwen", [*TINY, f"base.model={base}"]), tmp_path / "base")
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, 0]
    assert set(json.loads((folder / "generation_config.json").read_text())) <= {
        "_from_model_config",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "transformers_version",
    }
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    assert (folder / "chat_template.jinja").read_text() == load_recipe("tiny-qwen").base.of.template.read_text()


def test_a_model_that_is_not_the_recipes_is_named(short: Path, tmp_path: Path) -> None:
    changes = [f"base.model={short}", "base.rope_theta=null"]
    for recipe, message in (
        ("qwen-7b", "is not the model of this recipe: layers 1, not 28, hidden 32, not 3584"),
        ("llama-8b", "is a qwen2 model, base.family=llama means llama"),
    ):
        with pytest.raises(ConfigError) as raised:
            prepare_base(load_recipe(recipe, changes), tmp_path / recipe, with_weights=False)
        assert message in str(raised.value)
    with pytest.raises(ConfigError, match="neither a folder, nor to be had from the Hub"):
        prepare_base(load_recipe("tiny-qwen", ["base.model=nobody/nothing"]), tmp_path / "none")


def test_weights_are_linked_here_and_copied_for_other_machines(short: Path, tmp_path: Path) -> None:
    recipe = load_recipe("tiny-qwen", [*TINY, f"base.model={short}"])
    here, shared = (
        prepare_base(recipe, tmp_path / "here"),
        prepare_base(recipe, tmp_path / "shared", copies_weights=True),
    )
    weights = [folder / "model.safetensors" for folder in (here, shared)]
    assert [path.is_symlink() for path in weights] == [True, False]
    assert weights[0].read_bytes() == weights[1].read_bytes() == (short / "model.safetensors").read_bytes()
