"""`factory bench tables`: the command; what it measures is in `writing`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import show


def add_commands(bench: typer.Typer) -> None:
    """Add the command."""
    bench.command("tables", epilog="Example: factory bench tables --gigabytes 1 --pairs 3")(bench_tables)


def bench_tables(
    gigabytes: Annotated[
        float, typer.Option(min=0.01, help="Of candidates in Arrow; needs four times that on disk.")
    ] = 0.5,
    pairs: Annotated[int, typer.Option(min=1, help="Times that ours and the bare writer take turns.")] = 3,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files lie meanwhile.  [default: a temporary folder]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is made.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Write tables with our writer and a bare pyarrow writer in turn, then the whole way from a run to its tables."""
    from jobs.bench import writing as measured

    work = Path(tempfile.mkdtemp(prefix="factory-tables-", dir=folder))
    try:
        found = measured.measure(work, gigabytes, pairs, seed, show.message)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if as_json:
        show.json_line(found)
        return
    show.plain([f"{name}: {_text(value)}" for name, value in found.items()])


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"
