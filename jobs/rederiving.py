"""`factory rederive`: whether a published dataset follows from its candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import show

if TYPE_CHECKING:
    from factory.rederive import Compared, Rederived
    from factory.storage import AnyPath
else:
    AnyPath = Path  # the parser decides; typer takes no union


def _path(text: str) -> AnyPath:
    from factory.storage import parse_path

    if not text:
        raise typer.BadParameter("is empty; give the folder of a selection")
    return parse_path(text)


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: factory rederive runs/demo/tables/default --bytes")(rederive)


def rederive(
    path: Annotated[
        AnyPath,
        typer.Argument(
            metavar="PATH", help="Folder of a selection, or a downloaded copy of a published one.", parser=_path
        ),
    ],
    with_bytes: Annotated[
        bool,
        typer.Option(
            "--bytes",
            help="Write the files anew, too, and compare their bytes: of the same pyarrow alone.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Check that every table follows from `candidates` and the config in manifest.json, and that files are whole.

    Exit code: 0 if all is the same, 1 if something differs (each table's first difference is named), 2 if the folder
    holds no dataset of this version.
    """
    from factory.rederive import rederive as rederive_folder
    from factory.visible import visible

    found = rederive_folder(path, with_bytes=with_bytes)
    show.json_line(asdict(found)) if as_json else show.plain([visible(line) for line in _lines(found)])
    if found.differences:
        raise typer.Exit(1)


def _lines(found: Rederived) -> Iterator[str]:
    yield from map(_line, found.splits)
    for difference in found.differences:
        yield f"differs: {difference.message}"
    if not found.differences:
        yield f"{found.folder}: every table follows from its candidates (selection {found.selection_digest})"


def _line(compared: Compared) -> str:
    rows = {None: "not compared", True: "rows as they follow", False: "rows differ"}[compared.has_same_rows]
    files = {None: "", True: ", files byte for byte", False: ", bytes of files differ"}[compared.has_same_bytes]
    if compared.config == "runs":
        rows = "follows from nothing: digest as in the manifest" if compared.has_same_rows else "digest differs"
    digest = "" if compared.rows_sha256 is None else f", rows_sha256 {compared.rows_sha256[:16]}"
    return f"{compared.config}/{compared.split}: {compared.rows:,} rows, {rows}{files}{digest}"
