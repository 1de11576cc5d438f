"""`factory card`: the dataset's card of a run, to read on stdout, or to be written beside its tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import show
from jobs.options import AsJson, RunPath, Selection, parse_folder, selection_of
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from factory.storage import AnyPath
else:
    AnyPath = Path  # the parser decides; typer takes no union


def add_commands(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog="Example: factory card runs/demo --out runs/demo/tables/default")(card)


def card(
    run_path: RunPath,
    selection: Selection = None,
    out: Annotated[
        AnyPath | None,
        typer.Option(
            metavar="FOLDER",
            help="Write README.md and figures/*.png there.  [default: print README.md on stdout]",
            parser=parse_folder,
        ),
    ] = None,
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Where the tables will be published: how they are loaded.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the dataset's card of a selection: all of it computed from the run, nothing typed."""
    from factory.card import build_card

    found = build_card(run_path, selection or selection_of(run_path), repo=repo)
    if out is None:
        body = {"readme": found.readme, "figures": sorted(found.figures)}
        show.json_line(body) if as_json else show.plain(found.readme.splitlines())
        return
    files = {"README.md": found.readme.encode(), **found.figures}
    for name, data in files.items():
        _write(out, name, data)
    sizes = {name: len(data) for name, data in files.items()}
    show.json_line({"folder": str(out), "files": sizes}) if as_json else show.plain(
        [f"{out}/{name}: {size:,} bytes" for name, size in sizes.items()]
    )


def _write(out: AnyPath, name: str, data: bytes) -> None:
    target = out
    for part in name.split("/"):
        target /= part
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from error
