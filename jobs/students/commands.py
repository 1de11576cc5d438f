"""The commands `factory sft` and `factory dpo`: arguments, and what is printed. Libraries that train are imported late."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from jobs import show

RecipeName = Annotated[
    str, typer.Option("--recipe", metavar="NAME|FILE", help="A recipe that comes along, or a YAML file.")
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
CheckData = Annotated[bool, typer.Option("--check-data", help="Run the guards and nothing else; no GPU is needed.")]
Plan = Annotated[bool, typer.Option("--plan", help="Print the recipe, how it is launched and the memory it needs.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of students."""
    app.command(epilog="Example: factory sft --recipe tiny-qwen --data runs/demo/tables/default --out runs/students/tiny")(
        sft
    )
    app.command(epilog="Example: factory dpo --recipe tiny-qwen --model runs/students/tiny/model --data runs/demo/tables/default")(
        dpo
    )


def sft(
    recipe: RecipeName,
    data: Data = None,
    out: Out = None,
    overrides: Overrides = [],  # noqa: B006  typer reads it once
    check_data: CheckData = False,
    plan: Plan = False,
) -> None:
    """Fine-tune a student on a table. Run it again after any interruption: it goes on from the newest checkpoint."""
    from jobs.students.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    if plan:
        from jobs.students.memory import describe_plan

        typer.echo(describe_plan(loaded, _out(out, loaded.name)))
        return
    given = _given(data)
    _quiet()
    from jobs.students import sft as fine_tuning

    if check_data:
        with tempfile.TemporaryDirectory(prefix="factory-check-") as folder:
            fine_tuning.check_data(loaded, given, Path(folder), typer.echo)
        return
    typer.echo(fine_tuning.fine_tune(loaded, given, _out(out, loaded.name), show.message))


def dpo(
    recipe: RecipeName,
    model: Annotated[Path, typer.Option(metavar="DIR", help="A student that `factory sft` saved: OUT/model.")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the training.  [default: runs/students/RECIPE-dpo]")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    check_data: CheckData = False,
) -> None:
    """Train a saved student on the table `preference`. Run it again after any interruption: it goes on."""
    from jobs.students.recipe import load_recipe

    loaded, given = load_recipe(recipe, overrides), _given(data)
    _quiet()
    from jobs.students import dpo as preferring

    if check_data:
        with tempfile.TemporaryDirectory(prefix="factory-check-") as folder:
            preferring.check_pairs(loaded, model, given, Path(folder), typer.echo)
        return
    typer.echo(preferring.prefer(loaded, model, given, _out(out, f"{loaded.name}-dpo"), show.message))


def _given(data: str | None) -> str:
    if not data:
        raise typer.BadParameter("is missing; give RUN/tables/SELECTION, or org/name of a published dataset", param_hint="--data")
    return data


def _out(out: Path | None, name: str) -> Path:
    return Path("runs", "students", name) if out is None else out


def _quiet() -> None:
    """Have libraries draw no bars: progress is one line per step."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
