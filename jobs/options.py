"""What commands share: their arguments, and how a run that has ended is shown.

For `cli` and the modules beside it that hold commands of their own (``add_commands``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs import show
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from factory.storage import AnyPath as AnyPath
else:
    AnyPath = Path  # the parser decides; typer takes no union


def parse_folder(text: str) -> AnyPath:
    """Return a path; an empty one, as of a shell variable that is not set, would mean the current folder."""
    from factory.storage import parse_path

    if not text:
        raise typer.BadParameter("is empty; give the folder of a run")
    try:
        return parse_path(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


JobFiles = Annotated[
    list[Path], typer.Argument(metavar="JOB.yaml ...", help="The job; several share one set of engines.")
]
RunPath = Annotated[
    AnyPath, typer.Argument(metavar="RUN", help="Folder of a run, or s3://BUCKET/NAME.", parser=parse_folder)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="a.b=c", help="Override a key of the job file; may be repeated.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster; default: RAY_ADDRESS, or a local Ray that ends with this command."),
]
Selection = Annotated[
    str | None, typer.Option(metavar="NAME", help="Selection whose tables are read.  [default: the job's]")
]

# Reasons of failed attempts that no new start would mend: known from the input, and reported there.
_NO_FAULT = ("prompt_too_long", "not_recorded")


def selection_of(path: AnyPath) -> str:
    """Return the name of the selection that the run's job asks for."""
    from factory.store import RunFolder

    return str(RunFolder(path).manifest().config["select"]["name"])


def paths_of(names: Sequence[str], given: Sequence[AnyPath] | None) -> list[AnyPath]:
    """Return the folders of jobs with these names.

    Raises:
        ConfigError: If folders are given, and not one for each.
    """
    if not given:
        return [Path("runs") / name for name in names]
    if len(given) != len(names):
        raise ConfigError(
            f"--run is given {len(given)} times for {len(names)} jobs: give it once for each, in their order"
        )
    return list(given)


def finish(path: AnyPath, selection: str | None = None, *, as_json: bool) -> None:
    """Print the funnel, one accepted sample, and where the tables lie; exit 1 if attempts failed."""
    from factory.report import accepted_sample, read_status

    found = read_status(path, selection)
    if as_json:
        show.json_line(asdict(found))
    else:
        show.funnel(found)
        sample: dict[str, Any] | None = accepted_sample(path, found.selection)
        if sample is not None:
            show.sample(sample)
        show.tables(path, found.selection)
    failures = {reason: count for reason, count in found.failed_reasons.items() if reason not in _NO_FAULT}
    if failures or found.counts.unjudged:
        show.message(f"finished with failures: {json.dumps(failures | {'unjudged': found.counts.unjudged})}")
        for reason in failures:
            show.message(f"  {reason}, one of them: {found.failed_details[reason] or 'no more is known'}")
        raise typer.Exit(1)
