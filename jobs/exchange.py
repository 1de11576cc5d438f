"""The commands `factory export` and `factory import`: to trainers, and from what others have published.

Exit codes and streams as in `cli`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from jobs import show
from jobs.options import Address, AnyPath, AsJson, Overrides, RunPath, Selection, finish, parse_folder

NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")  # what the name of a job must not have
EXPORT_FORMATS = "llamafactory, axolotl, verl, nemo or openai"
IMPORT_FORMATS = "auto, openr1_math, openthoughts, mixture_of_thoughts, synthetic1 or openmathreasoning"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("export", epilog="Example: factory export runs/demo --format llamafactory --out exports/demo")(export)
    app.command(
        "import",
        epilog="Example: factory import data/train-*.parquet --run runs/openr1",
    )(import_files)


def export(
    run_path: RunPath,
    format_name: Annotated[str, typer.Option("--format", metavar="FORMAT", help=f"{EXPORT_FORMATS}.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go; empty, or a former export.")],
    selection: Selection = None,
    as_json: AsJson = False,
) -> None:
    """Write a selection's tables as files for a trainer, with its settings and what goes wrong silently.

    RUN may also be the folder of a selection, or a downloaded copy of one.
    """
    from factory import export as exporting

    folder = exporting.selection_folder(run_path, selection)
    with show.counting_up("rows") as done:
        exported = exporting.export_selection(folder, format_name, out, done)
    if as_json:
        show.json_line(exporting.as_body(exported))
        return
    show.rows(str(out), [{"file": file.name, "rows": file.rows, "bytes": file.num_bytes} for file in exported.files])
    for hint in exported.hints:
        show.message(f"- {hint}")


def import_files(
    files: Annotated[list[str], typer.Argument(metavar="FILES", help="Parquet files of one published set.")],
    run_path: Annotated[
        AnyPath,
        typer.Option("--run", metavar="DIR", help="Folder of the run, or s3://BUCKET/NAME.", parser=parse_folder),
    ],
    format_name: Annotated[str, typer.Option("--format", metavar="FORMAT", help=f"{IMPORT_FORMATS}.")] = "auto",
    teacher: Annotated[
        str, typer.Option(metavar="NAME", help="Who wrote the completions, where the rows do not say.")
    ] = "unknown",
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Stands in every row's `source`, such as the Hub's name.  [the format's]"),
    ] = None,
    license_name: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="Of the problems and completions.  [the known set's]"),
    ] = None,
    overrides: Overrides = [],  # noqa: B006  typer reads it once
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make a run of what others have published, and judge and select it like one's own. Run again, it goes on.

    Rows that hold no problem, no completion or no reference that can be judged are quarantined, with the reason.
    Settings are those of a job file, such as --set select.rule=shortest_correct or --set prompt.format=plain.
    """
    from factory import importing
    from factory.build import build_tables
    from factory.plan import make_plan
    from jobs.driver import verify_run
    from jobs.importer import import_run
    from schemas.config import override_config, parse_config

    paths = importing.find_files(files)
    found = importing.find_format(paths, format_name)
    with show.counting_up("MiB of the files hashed") as done:
        revision = importing.hash_files(paths, done)
    name = NO_NAME.sub("-", run_path.name).strip("-._") or found
    body = importing.job_body(
        paths, found, name=name, teacher=teacher, revision=revision, source=source, license_name=license_name
    )
    job = parse_config(override_config(body, overrides), origin="factory import")
    if teacher == "unknown" and found != "openmathreasoning":
        show.message("the rows do not say who wrote the completions; --teacher NAME states it, for good")
    import_run(make_plan(job, {}), found, run_path, show.counting_up, show.message)
    with show.LiveProgress(job.select) as live:
        verify_run(run_path, address=address, watch=live.update, warn=show.message)
        live.note("writing the tables")
        build_tables(run_path)
    finish(run_path, as_json=as_json)
