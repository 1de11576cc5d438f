"""The command `factory evaluate`: a model on a benchmark, the scores of a stored run, agreement with others' scores.

Exit codes and streams as in `cli`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import show
from jobs.options import Address, AnyPath, AsJson, Overrides, parse_folder
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from jobs.evaluate.job import Asked


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        "evaluate",
        epilog="Example: factory evaluate --model demo --benchmark tasks.jsonl --samples 4",
    )(evaluate)


def evaluate(
    run_path: Annotated[
        AnyPath | None,
        typer.Argument(metavar="[RUN]", help="A run to score again; nothing is generated.", parser=parse_folder),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Folder or Hub name for vLLM; with --endpoint its name there.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible endpoint, up to /v1, that serves the model.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the endpoint's key.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recorded outputs in place of a model: rows of problem and completion."),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(metavar="JOB.yaml", help="Job file whose teacher, prompt and sampling are evaluated."),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="aime24, aime25, math500, gpqa, livecodebench, codeforces, gsm8k, humaneval, functions or answers; or "
            "a file that is known by its columns.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The named benchmark's file, JSON Lines or Parquet.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Only rows from this date on (livecodebench, codeforces), in place of the preset's window.",
        ),
    ] = None,
    before: Annotated[str | None, typer.Option(metavar="DATE", help="Only rows before this date.")] = None,
    all_dates: Annotated[
        bool,
        typer.Option("--all-dates", help="Rows of every date, where the preset names a window (r1: of livecodebench)."),
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Attempts at each problem.  [default: the preset's]")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Published settings: r1.  [default: r1; with --job and --replay none]"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="Folder of the run.  [default: runs/evaluate-MODEL-BENCHMARK]"),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scores of another harness on the same outputs: lm-eval's samples_*.jsonl, or lighteval's details "
            "(Parquet); prints every sample on which they differ from ours.",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of its metrics, such as exact_match,strict-match.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006  typer reads it once
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run a model on a benchmark and score it: pass@1, pass@k, majority vote, intervals, lengths. Again, it goes on.

    An evaluation is an ordinary run, with the same store and verifiers: a killed one goes on, and every attempt can be
    looked at (factory browse). With RUN alone its stored verdicts are scored.
    """
    from jobs.evaluate.benchmarks import window_of
    from jobs.evaluate.job import Asked

    if run_path is not None and benchmark is not None:
        raise ConfigError("give RUN to score what is stored, or --benchmark to run a model on one; not both")
    if run_path is not None:
        given: dict[str, object] = {
            "--model": model,
            "--endpoint": endpoint,
            "--api-key-env": api_key_env,
            "--replay": replay,
            "--job": job,
        }
        given |= {"--data": data, "--since": since, "--before": before, "--all-dates": all_dates or None}
        given |= {"--samples": samples, "--preset": preset, "--run": run, "--set": overrides or None}
        if named := [flag for flag, value in given.items() if value is not None]:
            raise ConfigError(f"RUN is scored as it is stored; leave out {', '.join(named)}")
    if metric is not None and against is None:
        raise ConfigError("--metric: names one of the scores of --against FILE, which is missing")
    if benchmark is not None:
        asked = Asked(
            benchmark=benchmark,
            data=data,
            window=window_of(since, before),
            all_dates=all_dates,
            model=model,
            endpoint=endpoint,
            api_key_env=api_key_env,
            replay=replay,
            job=job,
            preset=preset,
            samples=samples,
            run=run,
            overrides=overrides,
        )
        run_path = _run(asked, address)
    if run_path is None:
        raise ConfigError("give RUN to score what is stored, or --benchmark and a model; see factory evaluate --help")
    if against is not None:
        _compare(run_path, against, metric, as_json=as_json)
        return
    _show(run_path, as_json=as_json)


def _run(asked: Asked, address: str | None) -> Path:
    """Make or resume the run of an evaluation; return its folder."""
    from factory.build import build_tables
    from factory.plan import make_plan
    from jobs.demo_teacher import SHIPPED_MODELS
    from jobs.driver import run_job
    from jobs.evaluate.benchmarks import NO_WINDOW
    from jobs.evaluate.job import prepare
    from jobs.evaluate.printing import rows_of

    prepared = prepare(asked)
    if prepared.about.window != NO_WINDOW:
        show.message(f"{prepared.about.benchmark}: {rows_of(prepared.about)}")
    plan = make_plan(prepared.job, SHIPPED_MODELS)
    with show.LiveProgress(prepared.job.select) as live:
        run_job(plan, prepared.run, address=address, watch=live.update, warn=show.message)
        live.note("writing the tables")
        build_tables(prepared.run)
    return prepared.run


def _show(path: AnyPath, *, as_json: bool) -> None:
    from jobs.evaluate import printing
    from jobs.evaluate.scores import score_run

    found = score_run(path)
    if as_json:
        show.json_line(printing.as_body(found))
    else:
        printing.scores(found)
    if found.counted.has_gaps:
        raise typer.Exit(1)


def _compare(path: AnyPath, against: Path, metric: str | None, *, as_json: bool) -> None:
    from jobs.evaluate import printing
    from jobs.evaluate.agreement import compare_run

    found = compare_run(path, against, metric)
    show.json_line(asdict(found) | {"rate": found.rate}) if as_json else printing.compared(found)
