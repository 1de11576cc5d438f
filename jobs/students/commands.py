"""The commands `factory sft` and `factory dpo`: arguments, and what is printed. What trains is imported late."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import show

if TYPE_CHECKING:
    from jobs.students.recipe import Recipe
    from jobs.students.sft import Launcher

RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="qwen-1.5b, qwen-7b, qwen-14b, qwen-32b, llama-8b, llama-70b; on a CPU tiny-qwen, tiny-llama; or a file.",
    ),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="a.b=c", help="Override a key of the recipe; may be repeated.")
]
Data = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|REPO", help="RUN/tables/SELECTION, or a published dataset: org/name[@revision]."),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the training.  [default: runs/students/RECIPE]")
]
CheckData = Annotated[
    bool, typer.Option("--check-data", help="Run the guards alone: on the ids of all rows, and on a sample of rows.")
]
Submit = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Train on a Ray cluster: address of its dashboard, such as http://HEAD:8265. --data and --out must be on "
        "storage that all nodes see.",
    ),
]
EnvNames = Annotated[
    list[str],
    typer.Option(
        "--env",
        metavar="NAME",
        help="With --submit: environment variable of this shell that the job gets, such as HF_TOKEN; the cluster's "
        "users can read it.",
    ),
]
# Given to itself on the cluster.
OnNodes = Annotated[bool, typer.Option("--on-nodes", hidden=True)]
Plan = Annotated[bool, typer.Option("--plan", help="Print the recipe, how it is launched and the memory it needs.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of students."""
    app.command(epilog="Example: factory sft --recipe tiny-qwen --data runs/demo/tables/default")(sft)
    app.command(
        epilog="\b\nExample: factory dpo --recipe tiny-qwen --model runs/students/tiny-qwen/model "
        "--data runs/demo/tables/default"
    )(dpo)


def sft(
    recipe: RecipeName,
    data: Data = None,
    out: Out = None,
    overrides: Overrides = [],  # noqa: B006  typer reads it once
    check_data: CheckData = False,
    plan: Plan = False,
    submit: Submit = None,
    env_names: EnvNames = [],  # noqa: B006
    on_nodes: OnNodes = False,
) -> None:
    """Fine-tune a student on a table. Run it again after any interruption: it goes on from the newest checkpoint."""
    from jobs.students.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    if plan:
        from jobs.students.memory import describe_plan

        typer.echo(describe_plan(loaded, _out(out, loaded.name)))
        return
    _check_flags(submit, env_names, check_data=check_data)
    given, out = _given(data), _out(out, loaded.name)
    if submit is not None:
        _submit(
            submit,
            ["sft", "--recipe", recipe, "--data", _absolute(given)],
            recipe,
            overrides,
            f"sft-{loaded.name}",
            out,
            env_names,
        )
        return
    _quiet()
    from jobs.students import sft as fine_tuning

    if check_data:
        with tempfile.TemporaryDirectory(prefix="factory-check-") as folder:
            fine_tuning.check_data(loaded, given, Path(folder), typer.echo)
        return
    _check_machine(loaded, out, on_nodes=on_nodes)
    typer.echo(fine_tuning.fine_tune(loaded, given, out, show.message, _launcher(on_nodes), is_shared=on_nodes))


def dpo(
    recipe: RecipeName,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A student that `factory sft` saved: OUT/model.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the training.  [default: runs/students/RECIPE-dpo]")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    check_data: CheckData = False,
    plan: Plan = False,
    submit: Submit = None,
    env_names: EnvNames = [],  # noqa: B006
    on_nodes: OnNodes = False,
) -> None:
    """Train a saved student on the table `preference`. Run it again after any interruption: it goes on."""
    from jobs.students.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    out = _out(out, f"{loaded.name}-dpo")
    from jobs.students.dpo import check_spread

    check_spread(loaded)
    if plan:
        from jobs.students.memory import describe_plan

        typer.echo(describe_plan(loaded, out, "dpo"))
        return
    if model is None:
        raise typer.BadParameter("is missing; give what `factory sft` saved: OUT/model", param_hint="--model")
    _check_flags(submit, env_names, check_data=check_data)
    given = _given(data)
    if submit is not None:
        words = ["dpo", "--recipe", recipe, "--model", str(model.absolute()), "--data", _absolute(given)]
        _submit(submit, words, recipe, overrides, f"dpo-{loaded.name}", out, env_names)
        return
    _quiet()
    from jobs.students import dpo as preferring

    if check_data:
        with tempfile.TemporaryDirectory(prefix="factory-check-") as folder:
            preferring.check_pairs(loaded, model, given, Path(folder), typer.echo)
        return
    _check_machine(loaded, out, on_nodes=on_nodes)
    typer.echo(preferring.prefer(loaded, model, given, out, show.message, _launcher(on_nodes), is_shared=on_nodes))


def _check_flags(submit: str | None, env_names: list[str], *, check_data: bool) -> None:
    """See that no flag would be passed over."""
    if check_data and submit is not None:
        raise typer.BadParameter("checks on this machine; leave out --submit", param_hint="--check-data")
    if env_names and submit is None:
        raise typer.BadParameter("hands variables on to a cluster; give --submit, too", param_hint="--env")


def _check_machine(recipe: Recipe, out: Path, *, on_nodes: bool) -> None:
    """See that a training that begins here can, before hours of encoding; a cluster's nodes are not this machine."""
    if on_nodes or (out / "model").exists():
        return
    from jobs.students.launching import check_hardware

    check_hardware(recipe)


def _given(data: str | None) -> str:
    if not data:
        raise typer.BadParameter(
            "is missing; give RUN/tables/SELECTION, or org/name of a published dataset", param_hint="--data"
        )
    return data


def _out(out: Path | None, name: str) -> Path:
    return Path("runs", "students", name) if out is None else out


def _absolute(data: str) -> str:
    """Return a folder as the cluster sees it; the name of a dataset as it is."""
    return str(Path(data).absolute()) if Path(data).is_dir() else data


def _launcher(on_nodes: bool) -> Launcher:
    if on_nodes:
        from jobs.students.nodes import launch_on_nodes

        return launch_on_nodes
    from jobs.students.launching import launch

    return launch


def _submit(
    address: str, words: list[str], recipe: str, overrides: list[str], name: str, out: Path, env_names: list[str]
) -> None:
    from jobs.students.nodes import submit_training
    from jobs.students.recipe import shipped_recipes

    files = [] if recipe in shipped_recipes() else [Path(recipe)]
    words = [*words, *(word for override in overrides for word in ("--set", override)), "--on-nodes"]
    if code := submit_training(words, files, address, name, out.absolute(), env_names):
        raise typer.Exit(code)


def _quiet() -> None:
    """Have libraries draw no bars: progress is one line per step."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
