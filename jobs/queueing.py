"""What `factory run A.yaml B.yaml` does and shows: each of several runs gets its tables once it is complete.

The tables of a run are built in a thread of their own while the others go on. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import typer

from factory.plan import Plan
from factory.storage import AnyPath
from factory.tables import WrittenTables
from jobs import show
from jobs.options import finish
from schemas.errors import FactoryError


def run_queue(plans: Sequence[Plan], paths: Sequence[AnyPath], *, address: str | None, as_json: bool) -> None:
    """Work on the runs and print what came of each; the exit code is that of the first that did not end well."""
    from factory.build import build_tables
    from jobs.driver import Job, run_jobs

    names = [plan.job.name for plan in plans]
    tables: dict[int, Future[WrittenTables]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="tables") as builder, ExitStack() as screen:
        first = screen.enter_context(show.LiveProgress(plans[0].job.select, name=names[0]))
        lines = [first, *(show.LiveProgress(plan.job.select, name=plan.job.name, beside=first) for plan in plans[1:])]

        def ended(number: int, error: FactoryError | None) -> None:
            if error is None:
                lines[number].note("writing the tables")
                tables[number] = builder.submit(build_tables, paths[number])

        jobs = [Job(plan, path, line.update) for plan, path, line in zip(plans, paths, lines, strict=True)]
        errors = run_jobs(jobs, address=address, warn=show.message, ended=ended)
    codes = []
    for number, error in enumerate(errors):
        if error is None:
            codes.append(_finish(paths[number], tables[number], as_json=as_json))
        else:
            is_said = error in errors[:number]  # one of the engines is that of all
            show.message(f"{names[number]}: {'as before' if is_said else error}")
            codes.append(error.exit_code)
    if code := next(filter(None, codes), 0):
        raise typer.Exit(code)


def _finish(path: AnyPath, tables: Future[WrittenTables], *, as_json: bool) -> int:
    """Print what came of a run that is complete; return its exit code."""
    try:
        show.oversized(tables.result())
        finish(path, as_json=as_json)
    except FactoryError as error:
        show.message(f"{path}: {error}")
        return error.exit_code
    except typer.Exit as ended:
        return ended.exit_code
    return 0
