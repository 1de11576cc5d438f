"""The command `factory prove`: arguments, and what is printed."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml

from jobs import show
from jobs.options import AsJson


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: factory prove three-minutes --out runs/proof")(prove)


def prove(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="miniature, ten-minutes or three-minutes; or a YAML file.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the proof.  [default: runs/proof-PLAN]")
    ] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="a.b=c", help="Override a key of the plan; may be repeated.")
    ] = [],  # noqa: B006  typer reads it once
    show_plan: Annotated[
        bool, typer.Option("--plan", help="Print the plan and what it can detect; start nothing.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report", help="Print what --out holds so far; start nothing.")
    ] = False,
    equal_tokens: Annotated[
        bool,
        typer.Option("--equal-tokens", help="Then train one seed again with equal tokens in place of equal steps."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Students at a time.  [default: one per core; with GPUs 1]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether students learn from the data: train one per arm, student and seed, and ask them fresh problems.

    The plan is fixed before: another one is refused in the same folder. Run it again after any interruption: it goes
    on. With another base and two datasets as arms it is a regression test for datasets.
    """
    from jobs.students.proof.plan import detectable, load_plan
    from jobs.students.proof.report import as_markdown, read_report
    from jobs.students.proof.stages import carry_out, read_plan
    from schemas.errors import ConfigError

    loaded = load_plan(plan, overrides)
    folder = out or Path("runs") / f"proof-{loaded.name}"
    if show_plan:
        typer.echo(
            yaml.safe_dump(loaded.model_dump(mode="json", exclude_unset=True), sort_keys=False, width=120).strip()
        )
        num_sources = len((loaded.run or {}).get("sources", []))
        if loaded.fresh.benchmark is None:
            most = num_sources * loaded.fresh.problems
            typer.echo(f"\nat most {most} fresh problems: detects {detectable(most, loaded.assumed_sd):.3f}")
        return
    if report_only and (not (folder / "plan.json").exists() or "method" in read_plan(folder)):
        raise ConfigError(f"--out {folder}: holds no proof yet; leave out --report to begin one")
    if not report_only:
        at_once = workers or (os.cpu_count() or 1 if loaded.launch.kind == "cpu" else 1)
        carry_out(loaded, folder, show.message, workers=at_once, with_equal_tokens=equal_tokens)
    found = read_report(folder)
    if as_json:
        show.json_line(asdict(found) | {"plan": found.plan.model_dump(mode="json")})
    else:
        typer.echo(as_markdown(found))
