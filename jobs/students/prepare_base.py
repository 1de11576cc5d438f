"""Prepare what a student starts from: a model folder with our template and end token, extended, and read back.

First step of `factory sft`, on a CPU and before any GPU process starts; alone, for other trainers:
`python -m jobs.students.prepare_base --recipe qwen-7b --out base`. Weights are linked or copied. Invariant: what
is checked is what was written, read by the same classes that training and serving read it with.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from factory.teachers import hash_model_folder
from jobs.demo_teacher import SHIPPED_MODELS
from jobs.students.recipe import Base, Recipe, Shape
from schemas.errors import ConfigError, GuardError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_WEIGHTS: Final = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
_SMALL: Final = ("*.json", "*.jinja", "*.model", "*.txt")  # all but the weights
# Names of a shape in a model's configuration.
_NAMES: Final = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocabulary": "vocab_size",
    "tied": "tie_word_embeddings",
}


def prepare_base(recipe: Recipe, folder: Path, *, with_weights: bool = True, copies_weights: bool = False) -> Path:
    """Write the model folder that training starts from, whole or not at all; return it. One that is there is checked.

    Without weights it has what the guards need, and only that is downloaded of a Hub model. Weights are linked to where
    they lie; a folder that other machines read has to copy them, for they need not see the cache of this one.

    Raises:
        ConfigError: If the base, its tokenizer or its shape is not what the recipe says.
        GuardError: If what was written, read back, lacks positions, the end token, or tells it from padding.
    """
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(recipe, part, with_weights=with_weights, copies_weights=copies_weights)
        part.rename(folder)
    check_base(recipe, folder)
    return folder


def pin_base(recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the commit of a base on the Hub, and hashes of what else a base is made of.

    They tell whether a folder, or a template, is what it was when a training began: at the same path may lie another.
    A tokenizer of its own that is on the Hub is known by its name alone.

    Raises:
        ConfigError: If there is no such base, tokenizer or template.
    """
    base = recipe.base
    found = {"template": sha256(read_template(base).encode()).hexdigest()[:16]}
    for key, name in (("model", base.model), ("tokenizer", base.tokenizer)):
        if name is not None and (folder := _given(name)) is not None:
            found[key] = hash_model_folder(folder)
        elif name is not None and key == "tokenizer":
            _fetch(name, None, _SMALL)  # that it is there at all
    if base.model is None or "model" in found:
        return recipe, found
    commit = _fetch(base.model, base.revision, ("config.json",)).name  # a snapshot's folder has the name of its commit
    return recipe.model_copy(update={"base": base.model_copy(update={"revision": commit})}), found


def check_base(recipe: Recipe, folder: Path) -> None:
    """Read a model folder as serving will, and see that it is what the recipe asks for.

    Raises:
        GuardError: If it has too few positions, another theta, another end token, or pads with it.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config, family = AutoConfig.from_pretrained(folder), recipe.base.of
    theta = recipe.base.rope_theta
    if theta is not None and theta_of(config) != theta:
        raise GuardError(
            f"{folder}: guard context: its rope_parameters say theta {theta_of(config)}, the recipe base.rope_theta="
            f"{theta:g}: the context is not extended; set `rope_parameters`, not `rope_theta`, and save again"
        )
    if config.max_position_embeddings < recipe.train.max_length:
        raise GuardError(
            f"{folder}: guard context: it has {config.max_position_embeddings} positions, train.max_length="
            f"{recipe.train.max_length}; extend it (base.rope_theta), or train on shorter rows"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_tokens(tokenizer, recipe.base)
    end = tokenizer.convert_tokens_to_ids(family.end)
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    if end not in (ends if isinstance(ends, list) else [ends]):
        raise GuardError(
            f"{folder}: guard end: generation stops at tokens {ends}, not at {end} ({family.end}): a student that "
            "has learnt to end its turn would go on; add it to generation_config.json"
        )


def check_tokens(tokenizer: PreTrainedTokenizerBase, base: Base) -> None:
    """See that the tokenizer has the family's tokens, ends with its end token, and does not pad with it.

    Raises:
        GuardError: If not.
    """
    family = base.of
    known = tokenizer.get_vocab()
    missing = [
        token for token in (family.end, family.pad, family.start, *family.others) if token and token not in known
    ]
    if missing:
        raise GuardError(
            f"guard end: the tokenizer lacks {', '.join(missing)}, which the template of family {family.name} is "
            "written with; choose the base's own family"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == known[family.end]:
        raise GuardError(
            f"guard padding: the tokenizer pads with {tokenizer.pad_token!r}, which ends a turn: masks by pad tokens "
            f"would take every end out of the loss; pad with {family.pad}"
        )
    if tokenizer.eos_token_id != known[family.end]:
        raise GuardError(
            f"guard end: the tokenizer ends with {tokenizer.eos_token!r}, turns of family {family.name} with "
            f"{family.end}; a student would be served without its own end"
        )


def theta_of(config: PretrainedConfig) -> float | None:
    """Return the theta that the rotary embedding of a configuration really has."""
    theta = (config.rope_parameters or {}).get("rope_theta")
    return None if theta is None else float(theta)


def shape_of(config: PretrainedConfig) -> Shape:
    """Return how large the model of a configuration is."""
    return Shape(**{ours: getattr(config, theirs) for ours, theirs in _NAMES.items()})


def _write(recipe: Recipe, folder: Path, *, with_weights: bool, copies_weights: bool) -> None:
    from transformers import AutoConfig, GenerationConfig

    base = recipe.base
    wanted = [*_SMALL, *(_WEIGHTS if with_weights else ())]
    source = None if base.model is None else _fetch(base.model, base.revision, wanted)
    config = _new_config(base, recipe.train.max_length) if source is None else _read(AutoConfig, source, "base.model")
    _check_shape(base, config)
    tokenizer = _tokenizer(base, source)
    if base.rope_theta is not None:
        # In transformers 5 the attribute `rope_theta` of a configuration does nothing.
        config.rope_parameters = {**(config.rope_parameters or {}), "rope_theta": base.rope_theta}
        config.max_position_embeddings = max(config.max_position_embeddings, recipe.train.max_length)
    # How long and how freely a base generates is not the student's: Qwen2.5 says max_new_tokens 2048, do_sample false
    generation, ends = GenerationConfig(bos_token_id=tokenizer.bos_token_id), None
    if source is not None and (source / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(source).eos_token_id
    end = tokenizer.eos_token_id
    others = [token for token in (ends if isinstance(ends, list) else [ends]) if token not in (None, end)]
    generation.eos_token_id = [end, *others] if others else end
    config.eos_token_id, config.bos_token_id = end, tokenizer.bos_token_id
    config.pad_token_id = generation.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    if source is not None:
        config.save_pretrained(folder)
        if with_weights:
            _take_weights(source, folder, copies=copies_weights)
    elif with_weights:
        _new_weights(config, recipe.train.seed, folder)
    else:
        config.save_pretrained(folder)
    generation.save_pretrained(folder)


def _given(name: str) -> Path | None:
    """Return the folder of a model that is given or shipped; None of one on the Hub."""
    path = SHIPPED_MODELS.get(name, Path(name).expanduser())
    return path.resolve() if path.is_dir() else None


def _fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of a model: given, shipped, or downloaded, of which only some files are."""
    if (path := _given(name)) is not None:
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"base {name}: neither a folder, nor to be had from the Hub ({' '.join(str(error).split())[:300]}); give a "
            "folder: --set base.model=/path/to/model"
        ) from error


def _tokenizer(base: Base, source: Path | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    family = base.of
    if base.tokenizer is None:
        tokenizer = _read(AutoTokenizer, source, "base.model")
    else:
        tokenizer = _read(AutoTokenizer, _fetch(base.tokenizer, None, _SMALL), "base.tokenizer")
    if source is None:  # random weights know no tokens, so it may be given any
        tokens = [token for token in (family.pad, family.end, family.start, *family.others) if token is not None]
        tokenizer.add_tokens([token for token in tokens if token not in tokenizer.get_vocab()], special_tokens=True)
    known = tokenizer.get_vocab()
    if family.end in known and family.pad in known:
        tokenizer.eos_token, tokenizer.pad_token = family.end, family.pad
    if family.start is not None and family.start in known:
        tokenizer.bos_token = family.start
    check_tokens(tokenizer, base)
    tokenizer.chat_template = read_template(base)
    return tokenizer


def _read(reader: Any, folder: Path | None, key: str) -> Any:
    try:
        return reader.from_pretrained(folder)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{key}={folder}: holds nothing that {reader.__name__} can read: {said}") from error


def read_template(base: Base) -> str:
    """Return the text of a base's chat template.

    Raises:
        ConfigError: If it cannot be read.
    """
    path = base.of.template
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"base.template={path}: cannot be read: {error}") from error


def _check_shape(base: Base, config: PretrainedConfig) -> None:
    if config.model_type != base.of.model_type:
        raise ConfigError(
            f"base.model={base.model}: is a {config.model_type} model, base.family={base.family} means "
            f"{base.of.model_type}"
        )
    found = shape_of(config)
    if base.shape is None or found == base.shape:
        return
    wrong = [name for name in _NAMES if getattr(found, name) != getattr(base.shape, name)]
    seen = ", ".join(f"{name} {getattr(found, name)}, not {getattr(base.shape, name)}" for name in wrong)
    raise ConfigError(
        f"base.model={base.model}: is not the model of this recipe: {seen}; --set base.shape=null for any"
    )


def _new_config(base: Base, positions: int) -> Any:
    from transformers import AutoConfig

    assert base.shape is not None
    sizes = {theirs: getattr(base.shape, ours) for ours, theirs in _NAMES.items()}
    return AutoConfig.for_model(base.of.model_type, **sizes, max_position_embeddings=positions)


def _new_weights(config: Any, seed: int, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)


def _take_weights(source: Path, folder: Path, *, copies: bool) -> None:
    files = sorted({path for pattern in _WEIGHTS for path in source.glob(pattern)})
    if not files:
        raise ConfigError(f"base.model={source}: holds no weights ({', '.join(_WEIGHTS)})")
    for path in files:
        if copies:
            shutil.copyfile(path, folder / path.name)
        else:
            (folder / path.name).symlink_to(path.resolve())


def main(
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="Recipe of the student.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    overrides: Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Override a key.")] = [],  # noqa: B006
) -> None:
    """Write a base with its context extended, our chat template and end token, and read it back."""
    from jobs.students.recipe import load_recipe

    typer.echo(prepare_base(load_recipe(recipe, overrides), out))


if __name__ == "__main__":
    typer.run(main)
