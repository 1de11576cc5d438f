"""The command `factory`: reads arguments, calls the parts, prints what came of it, and returns the right exit code.

Data goes to stdout, progress and messages to stderr. Exit 0: done; 1: finished with failures, listed; 2: bad usage or
config, nothing started; 3: stopped before its time limit
or at its budget, 130: interrupted, 143: SIGTERM; the same command goes on. 4 to 7 are of `publish`.
"""

from __future__ import annotations

import atexit
import io
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import carding, exchange, publishing, queueing, rederiving, show
from jobs.bench import selection as bench_selection
from jobs.bench import tables as bench_tables
from jobs.bench.record import Note, Out, record, require_cases
from jobs.evaluate import commands as evaluating
from jobs.options import (
    Address,
    AnyPath,
    AsJson,
    JobFiles,
    Overrides,
    RunPath,
    Selection,
    finish,
    parse_folder,
    paths_of,
    selection_of,
)
from jobs.students import commands as students
from jobs.students.proof import commands as proof
from schemas.errors import ConfigError, FactoryError, FingerprintError, InterruptedRun, RunLockedError, SourceError

app = typer.Typer(
    name="factory",
    help="Turns a reasoning teacher and a set of problems into verified datasets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure, and print tables.")
app.add_typer(bench, name="bench")
for commands in (carding, evaluating, exchange, proof, publishing, rederiving, students):
    commands.add_commands(app)
for commands in (bench_selection, bench_tables):
    commands.add_commands(bench)


# Nothing was started: the user has to change the command or a file.
_USAGE_ERRORS = (ConfigError, FingerprintError, RunLockedError, SourceError)


class _Ending:
    """Ends the process of a command that has read from an object store before the interpreter takes itself apart.

    pyarrow's threads may let go of a Python file as late as that. They ask for the interpreter, which ends such
    threads, and C++ takes that for a crash ("terminate called without an active exception"): a few of a hundred
    commands on a busy machine, all their work being done.
    """

    def __init__(self) -> None:
        self.code: Any = None  # until the command has ended as it should
        atexit.register(self.leave)  # first, so that it runs last

    def leave(self) -> None:
        """Called when all else that is to be done at the end has been."""
        if "obstore" in sys.modules and isinstance(self.code, int):
            with suppress(OSError, ValueError):  # nobody reads any more
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(self.code)


def command() -> None:
    """Be the command: this process is nothing else, and ends by it."""
    ending = _Ending()
    try:
        main()
    except SystemExit as ended:
        ending.code = ended.code or 0
        raise


def main() -> None:
    """Run the command; every error that is meant for the user ends as one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know every sign
    try:
        app()
    except FactoryError as error:
        _say_at_the_end(str(error))
        if isinstance(error, InterruptedRun):
            sys.exit(error.exit_code)
        sys.exit(2 if isinstance(error, _USAGE_ERRORS) else error.exit_code)
    except KeyboardInterrupt:
        _say_at_the_end("interrupted")
        sys.exit(130)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # the reader of our output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)
        if isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):  # typer ends with 130, mute
            _say_at_the_end("interrupted")
        raise
    except OSError as error:
        show.message(f"{error}; what was finished before is safe, run the same command again once this is mended")
        sys.exit(1)


def _say_at_the_end(text: str) -> None:
    """Print the last message, whatever else the user presses."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    show.message(text)
    signal.signal(signal.SIGINT, handler)


@app.command(epilog="Example: factory run jobs/configs/demo.yaml --set sampling.num_samples=2")
def run(
    job_files: JobFiles,
    run_paths: Annotated[
        list[AnyPath] | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder of the run, or s3://BUCKET/NAME; for several jobs once for each, in their order.  "
            "[default: runs/<job name>]",
            parser=parse_folder,
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006  typer reads it once
    address: Address = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved job, what it would make and cost; start nothing. Where the run holds 30 problems "
            "that have ended, tokens, time and accepted samples are predicted from these, with an interval. A pilot is "
            "the job itself with --set schedule.max_problems=100: a run only grows, so it is part of it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Generate, verify and select into a run folder. Run it again after any interruption: it goes on.

    Several jobs share one set of engines, so their teachers must be the same: what the first leaves free, above all at
    its end, is filled by the next. Each is a run of its own, ends when it is complete, and can go on alone.
    """
    from factory.plan import check_agreement, make_plan
    from jobs.demo_teacher import SHIPPED_MODELS
    from jobs.evaluate.benchmarks import refuse_evaluation
    from schemas.config import load_config

    jobs = [load_config(job_file, overrides) for job_file in job_files]
    paths = paths_of([job.name for job in jobs], run_paths)
    for path in paths:
        refuse_evaluation(path)
    plans = [make_plan(job, SHIPPED_MODELS, is_dry=dry_run) for job in jobs]
    check_agreement(plans)
    if dry_run:
        for plan, path in zip(plans, paths, strict=True):
            show.plan(plan, path, as_json=as_json)
        return
    if len(plans) > 1:
        queueing.run_queue(plans, paths, address=address, as_json=as_json)
        return
    from factory.build import build_tables
    from jobs.driver import run_job

    with show.LiveProgress(jobs[0].select) as live:
        run_job(plans[0], paths[0], address=address, watch=live.update, warn=show.message)
        live.note("writing the tables")
        show.oversized(build_tables(paths[0]))
    finish(paths[0], as_json=as_json)


@app.command(epilog="Example: factory submit jobs/configs/demo.yaml --env HF_TOKEN")
def submit(
    job_files: JobFiles,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Address of the cluster's dashboard.")
    ] = "http://127.0.0.1:8265",
    run_paths: Annotated[
        list[AnyPath] | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder of the run, on storage that all nodes see, or s3://BUCKET/NAME; for several jobs once for "
            "each.  [default: runs/<job name> under this directory]",
            parser=parse_folder,
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    env_names: Annotated[
        list[str],
        typer.Option(
            "--env",
            metavar="NAME",
            help="Environment variable of this shell that the job gets; the cluster's users can read it.",
        ),
    ] = [],  # noqa: B006
    runtime_env: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Ray runtime environment: pip, env_vars, excludes, ...")
    ] = None,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Submit, and do not follow the log.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the job that works on this run.")] = False,
) -> None:
    """Run the job, or several over one set of engines, as a Ray job: upload the working directory, follow the log.

    Exit code: that of the job; 130 if it was stopped, or you detached with Ctrl-C, which leaves it running. The same
    command comes back to a job that goes on, and resumes a run whose job has ended.
    """
    from jobs import submit as submission
    from schemas.config import load_config

    jobs = [load_config(job_file, overrides) for job_file in job_files]
    paths = [path.absolute() for path in paths_of([job.name for job in jobs], run_paths)]
    folders = [word for path in paths for word in ("--run", str(path))]
    changes = [word for override in overrides for word in ("--set", override)]
    asked = submission.Submission(
        name=jobs[0].name,
        words=["run", *map(str, job_files), *folders, "--address", "auto", *changes],
        files=job_files,
        run_path=paths[0],
        more_paths=paths[1:],
        address=address,
        env_names=env_names,
        runtime_env=submission.read_runtime_env(runtime_env),
    )
    client = submission.connect(address)
    if stop:
        submission.stop(client, asked, show.message)
        return
    job_id = submission.submit(client, asked, show.message)
    if not no_follow and (code := submission.follow(client, job_id, asked, show.log)):
        raise typer.Exit(code)


@app.command(epilog="Example: factory verify runs/demo")
def verify(run_path: RunPath, address: Address = None, as_json: AsJson = False) -> None:
    """Judge the stored traces with the verifiers of today, and build the tables again. No GPU is used."""
    from factory.build import build_tables
    from jobs.driver import verify_run

    with show.LiveProgress() as live:
        verify_run(run_path, address=address, watch=live.update, warn=show.message)
        live.note("writing the tables")
        show.oversized(build_tables(run_path))
    finish(run_path, as_json=as_json)


@app.command(epilog="Example: factory select runs/demo --set select.rule=shortest_correct")
def select(run_path: RunPath, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Build the tables again, perhaps by another rule (keys under `select`). Nothing is generated or judged."""
    from factory.build import build_tables
    from factory.store import RunFolder
    from schemas.config import override_config, parse_config

    manifest = RunFolder(run_path).manifest()
    bad = [override for override in overrides if not override.startswith("select.")]
    if bad:
        raise ConfigError(f"--set {bad[0]!r}: this command changes keys under `select` only, such as select.rule")
    body = override_config(manifest.config, overrides)
    config = parse_config(body, origin=str(run_path / "run.yaml")).select
    show.oversized(build_tables(run_path, config))
    finish(run_path, config.name, as_json=as_json)


@app.command(epilog="Example: factory status runs/demo --json")
def status(run_path: RunPath, as_json: AsJson = False) -> None:
    """Show where a run stands: attempts, outcomes, reasons, tokens. Works while it goes on."""
    from factory.report import read_status

    found = read_status(run_path)
    show.json_line(asdict(found)) if as_json else show.status(found)


@app.command(epilog="Example: factory explain runs/demo 4f2a")
def explain(run_path: RunPath, item_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show all of one trace or problem, by the beginning of its id: prompt, text, every check, every selection."""
    from factory.report import explain_item

    found = explain_item(run_path, item_id)
    show.json_line(found) if as_json else show.explanation(found)


@app.command(epilog="Example: factory browse runs/demo --outcome wrong_answer --domain math")
def browse(
    run_path: RunPath,
    outcome: Annotated[str | None, typer.Option(help="Only samples of this outcome, such as unreadable.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only samples of this reason; none: those that passed.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only samples of this domain, such as math.")] = None,
    source: Annotated[str | None, typer.Option(help="Only samples of this source, by its name.")] = None,
    selection: Selection = None,
    limit: Annotated[int, typer.Option(min=1, help="Samples to print where stdout is no terminal.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per sample on stdout.")] = False,
) -> None:
    """Page through samples: n and p move, o, r, d, s turn to the next outcome, reason, domain, source, q quits."""
    from factory.samples import Asked, Samples
    from jobs import browse as pager

    samples = Samples(run_path, selection or selection_of(run_path))
    asked = Asked(outcome=outcome, reason=reason, domain=domain, source=source)
    if not as_json and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        pager.browse(samples, asked)
        return
    rows = pager.start(samples, asked).rows
    for number in rows[:limit]:
        row = samples.row(number)
        show.json_line(row) if as_json else show.plain([*pager.lines_of(row, show.PLAIN_WIDTH), ""])
    if len(rows) > limit:
        show.message(f"{len(rows) - limit:,} more; --limit {len(rows)} prints all {len(rows):,}")


@app.command(epilog="Example: factory report runs/demo --out demo.html")
def report(
    run_path: RunPath,
    out: Annotated[
        AnyPath | None,
        typer.Option(
            metavar="FILE.html", help="Where the page is written.  [default: RUN/report.html]", parser=parse_folder
        ),
    ] = None,
    selection: Selection = None,
    disagreements: Annotated[
        bool,
        typer.Option("--disagreements", help="List instead every attempt whose recorded label is not our verdict."),
    ] = False,
    suspects: Annotated[
        bool,
        typer.Option("--suspects", help="List instead problems whose attempts agree, but never with the reference."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page of a run: funnel, outcomes, plots, samples with their mathematics."""
    from factory.agreement import read_agreement
    from factory.page import write_page
    from factory.suspects import read_suspects

    if disagreements:
        found = read_agreement(run_path)
        show.json_line(asdict(found) | {"rate": found.rate}) if as_json else show.agreement(found)
        return
    if suspects:
        listed = read_suspects(run_path)
        show.json_line([asdict(one) for one in listed]) if as_json else show.suspects(listed)
        return
    page = out or run_path / "report.html"
    num_bytes = write_page(run_path, selection, page)
    show.json_line({"page": str(page), "num_bytes": num_bytes}) if as_json else show.page(page, num_bytes)


@app.command(epilog="Example: factory calibrate runs/demo")
def calibrate(run_path: RunPath, selection: Selection = None, as_json: AsJson = False) -> None:
    """Propose thresholds of readability for a run's teacher, from its traces: lines for the job file on stdout."""
    from factory import calibrate as calibration
    from factory.store import RunFolder
    from schemas.config import ReadabilityConfig

    config = RunFolder(run_path).manifest().config["verify"].get("readability", {})
    limits = ReadabilityConfig.model_validate(config).settings().thresholds
    found = calibration.calibrate(run_path, selection or selection_of(run_path), limits)
    if as_json:
        show.json_line(calibration.as_body(found))
    else:
        show.calibration(found.num_traces, found.quantiles, calibration.as_yaml(found))


@app.command(epilog="Example: factory diff runs/demo/tables/default runs/demo/tables/short")
def diff(
    a: Annotated[
        AnyPath, typer.Argument(metavar="A", help="Folder of a selection: RUN/tables/<selection>.", parser=parse_folder)
    ],
    b: Annotated[AnyPath, typer.Argument(metavar="B", help="Another one.", parser=parse_folder)],
    as_json: AsJson = False,
) -> None:
    """Compare two selections: what in their settings differs, which traces entered, which left, and why."""
    from factory.differences import compare, compare_settings

    settings, changes = compare_settings(a, b), compare(a, b)
    show.difference_lines(settings, changes) if as_json else show.difference(settings, changes)


@app.command(epilog="Example: factory decontaminate train.jsonl --against shipped --out clean")
def decontaminate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]", help="JSON Lines or Parquet of problems or traces; every text is looked at."),
    ] = None,
    against: Annotated[
        list[str],
        typer.Option(
            metavar="BENCHMARK",
            help="shipped (all that come with the factory), one of them by name, a fingerprint file, or JSON Lines or "
            "Parquet of a benchmark's items; may be repeated.",
        ),
    ] = ["shipped"],  # noqa: B006
    rules: Annotated[str, typer.Option(help="default, or open-r1: one shared 8-gram is enough.")] = "default",
    columns: Annotated[
        list[str], typer.Option("--column", metavar="NAME", help="Look at this column only; may be repeated.")
    ] = [],  # noqa: B006
    near_duplicates: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=1.0,
            metavar="JACCARD",
            help="For files of problems: also drop rows whose question is so similar to that of an earlier row, with "
            "the same numbers; such as 0.8.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Folder for the files without such rows and dropped.jsonl; or --build's file."
        ),
    ] = None,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a fingerprint of this benchmark's items instead: hashes, no text."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the benchmark that is built, such as aime-2025.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the benchmark that is built, such as its revision.")] = None,
    license_name: Annotated[str, typer.Option("--license", help="Of the benchmark that is built.")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Find rows that are, or quote, items of benchmarks. Exit 1 if there are some and no --out was given to drop them.

    Or make a fingerprint: factory decontaminate --build aime-2025.jsonl --name aime-2025 --version 2025 --out FILE
    """
    from factory.benchmarks import load_benchmarks
    from factory.decontaminate import Protection, RuleSet
    from factory.fingerprints import not_covered
    from factory.scan import scan_files

    if build is not None:
        _build_fingerprint(build, name, version, license_name, out, as_json=as_json)
        return
    if not files:
        raise typer.BadParameter("give files to look at, or --build FILE to make a fingerprint")
    if rules not in list(RuleSet):
        raise typer.BadParameter(f"--rules {rules!r} must be one of {', '.join(RuleSet)}")
    protection = Protection(load_benchmarks(against, "--against"), RuleSet(rules))
    with show.counting_up("rows") as done:
        scan = scan_files(files, protection, columns=columns, near_duplicates=near_duplicates, out=out, done=done)
    covered = [asdict(benchmark) for benchmark in protection.benchmarks]
    if as_json:
        body = {"rows": scan.num_rows, "characters": scan.num_chars, "dropped": [row.as_json() for row in scan.dropped]}
        show.json_line(body | {"covered": covered, "not_covered": not_covered(protection.benchmarks)})
    else:
        show.contamination(scan, protection.benchmarks, not_covered(protection.benchmarks), out)
    if scan.dropped and out is None:
        raise typer.Exit(1)


def _build_fingerprint(
    build: Path, name: str | None, version: str | None, license_name: str, out: Path | None, *, as_json: bool
) -> None:
    from factory.benchmarks import read_items
    from factory.fingerprints import build_fingerprint, write_fingerprint

    if not name or not version or out is None:
        raise typer.BadParameter("--build needs --name, --version and --out FILE")
    fingerprint = build_fingerprint(name, version, license_name, read_items(build))
    num_bytes = write_fingerprint(fingerprint, out)
    found = asdict(fingerprint.benchmark) | {"file": str(out), "num_bytes": num_bytes}
    show.json_line(found) if as_json else show.figures(f"fingerprint {out}", [found])


@app.command(epilog="Example: factory doctor runs/demo")
def doctor(
    run: Annotated[
        AnyPath | None, typer.Argument(help="A run whose files are checked, every byte of them.", parser=parse_folder)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this environment, or a run's files against its manifest. Exit 1 if something is broken.

    The environment: versions, vLLM, verifiers with their canaries, what the sandbox can do, disk.
    """
    from jobs.doctor import examine, examine_run

    findings = examine() if run is None else examine_run(run)
    show.json_line([asdict(finding) for finding in findings]) if as_json else show.findings(findings)
    if not all(finding.is_fine for finding in findings):
        raise typer.Exit(1)


@bench.command("math", epilog="Example: factory bench math --cases cases.jsonl --typical 500 --against math-verify")
def bench_math(
    cases: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines of gold, prediction, expected, category.")
    ] = None,
    typical: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also judge N made-up answers as a run meets most of them.")
    ] = 0,
    against: Annotated[str | None, typer.Option(metavar="NAME", help="Also measure a rival: math-verify.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over each case; the median time counts.")] = 3,
    out: Out = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Measure the verifier of final answers: accuracy by category, false accepts and rejects, time."""
    from jobs.bench import math as measured

    require_cases(out, cases)
    if cases is None and not typical:
        raise typer.BadParameter("give cases to judge: --cases FILE, --typical N, or both")
    found = [*(measured.read_cases(cases) if cases else []), *measured.typical_cases(typical)]
    with show.counting("cases", len(found)) as done:
        scores = measured.run(found, measured.graders(against), rounds, done)
    figures, categories = measured.summary(found, scores), measured.by_category(found, scores)
    ratios, sympy = measured.speed_ratios(figures), measured.share_of_sympy(found)
    wrong = measured.mistakes(found, scores[measured.OURS])
    of_file = [case for case in found if not case.is_typical]
    record(out, "math", cases, measured.errors(of_file, scores[measured.OURS]), note)
    if as_json:
        body = {"graders": figures, "categories": categories, "speed ratios": ratios, "share of sympy": sympy}
        show.json_line({**body, "mistakes": wrong})
    else:
        show.comparison(figures, categories, wrong)
        show.speed(sympy, ratios)


@bench.command("readability", epilog="Example: factory bench readability --cases cases.jsonl --max-cases 400")
def bench_readability(
    cases: Annotated[
        Path,
        typer.Option(metavar="FILE", help="JSON Lines of trace, problem, domain, style, target_language, expected."),
    ],
    max_cases: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N cases.")] = None,
    out: Out = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Measure the readability checks: decisions and reasons against a reader's, what to look at, cost per KB."""
    from jobs.bench import readability as measured

    found = measured.read_cases(cases, max_cases)
    with show.counting("cases", len(found)) as done:
        verdicts = measured.run(found, done)
    figures, reasons = measured.summary(found, verdicts), measured.by_reason(found, verdicts)
    looked, costs = measured.to_look_at(found, verdicts), measured.costs(found, verdicts)
    record(out, "readability", cases, measured.errors(found, verdicts), note)
    if as_json:
        show.json_line({"figures": figures, "reasons": reasons, "costs": costs, "to look at": looked})
    else:
        show.readings(figures, reasons, costs, looked)


@bench.command("early", epilog="Example: factory bench early --traces traces.jsonl --run runs/demo")
def bench_early(
    traces: Annotated[
        list[Path], typer.Option("--traces", metavar="FILE", help="JSON Lines of problem, completion, is_correct.")
    ] = [],  # noqa: B006
    runs: Annotated[list[Path], typer.Option("--run", metavar="RUN", help="Folder of a run with tables.")] = [],  # noqa: B006
    made: Annotated[
        int, typer.Option(min=0, metavar="N", help="Long traces put together from those of the files.")
    ] = 2400,
    tokenizer: Annotated[str, typer.Option(metavar="NAME", help="Folder or Hub name; `demo`: the demo's.")] = "demo",
    loop_tokens: Annotated[int, typer.Option(min=64, help="As schedule.early_abort.loop_tokens.")] = 1536,
    as_json: AsJson = False,
) -> None:
    """Measure early abort: false alarms over what would be accepted, loops found and tokens saved, cost per token."""
    from factory.prompts import HfTokenizer
    from jobs.bench import early as measured
    from jobs.demo_teacher import SHIPPED_MODELS

    if not traces:
        raise ConfigError("nothing to measure on: give --traces FILE, more than once for more files")
    real = [trace for path in traces for trace in measured.read_traces(path)]
    found = [*real, *(trace for path in runs for trace in measured.read_run(path)), *measured.make_long(made, real)]
    encoder = HfTokenizer(str(SHIPPED_MODELS.get(tokenizer, tokenizer)), key="--tokenizer")
    with show.counting("traces", len(found)) as done:
        rows, wrong = measured.false_alarms(found, encoder, loop_tokens, done)
    texts = [trace.text for trace in real]
    loops, defects = (part(texts, encoder, loop_tokens) for part in (measured.detection, measured.agreement))
    if as_json:
        show.json_line({"false alarms": rows, "loops": loops, "defects": defects, "wrongly ended": wrong})
    else:
        show.early(rows, loops, defects, wrong)


@bench.command("code", epilog="Example: factory bench code --cases cases.jsonl --rounds 50")
def bench_code(
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON Lines of problems with their tests and solutions, or HumanEval's own.",
        ),
    ] = None,
    hostile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines of hostile programs: id, program, must, run.")
    ] = None,
    endure: Annotated[
        int, typer.Option(min=0, metavar="N", help="Run the hostile programs N times in all, and count what is left.")
    ] = 0,
    tier: Annotated[str, typer.Option(help="Highest tier of isolation to use: A, B, C, or D, which is none.")] = "A",
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of the cost table; 0 leaves it out.")] = 100,
    repeat: Annotated[int, typer.Option(min=1, help="Judge the cases so many times, each with a new sandbox.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Programs at a time; default: the cores.")] = None,
    out: Out = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Measure the judge of programs: agreement, what a test costs beside a bare fork, hostile programs."""
    from factory.measured import Errors
    from jobs.bench import code as measured
    from schemas.errors import VerifierError
    from verifiers.sandbox import SlotError

    require_cases(out, cases)
    try:
        body = measured.measure(
            cases,
            hostile,
            endure=endure,
            tier=tier,
            rounds=rounds,
            repeat=repeat,
            threads=threads,
            counting=show.counting,
        )
    except SlotError as error:
        raise VerifierError(str(error)) from error
    if body["errors"] is not None:
        record(out, "code", cases, Errors(**body["errors"]), note)
    if as_json:
        show.json_line(body)
        return
    show.programs(
        body["figures"],
        body["styles"],
        body["costs"],
        body["rates"],
        body["kill latency"],
        body["mistakes"],
        body["accepted changes"],
    )
    if hostile is not None:
        show.hostile(body["tier"], body["hostile programs"], body["hostile"], body["left"])


@bench.command("scale", epilog="Example: factory bench scale --attempts 10000 --attempts 100000")
def bench_scale(
    attempts: Annotated[
        list[int], typer.Option(min=1_000, metavar="N", help="Attempts of a run; give it again for another run.")
    ] = [10_000, 100_000, 1_000_000],  # noqa: B006 typer's way to say several
    engines: Annotated[int, typer.Option(min=4, help="Simulated engines.")] = 1_000,
    in_flight: Annotated[int, typer.Option(min=1, help="Attempts that each engine has in flight.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Measure coordinator, journal and committer under many simulated engines: rate, CPU, memory, disk."""
    from jobs.bench import scale as measured

    rows = []
    for number in attempts:
        with tempfile.TemporaryDirectory(prefix="factory-scale-") as folder, show.counting("attempts", number) as done:
            rows.append(measured.measure(Path(folder), number, engines, in_flight, done))
    if as_json:
        show.json_line({"runs": rows})
    else:
        show.figures("coordinator, journal and committer; engines and verifiers are simulated", rows)


@bench.command("adaptive", epilog="Example: factory bench adaptive --run runs/recorded --useful 2")
def bench_adaptive(
    run: Annotated[
        list[Path],
        typer.Option(metavar="RUN", help="Complete run with a fixed n, to draw attempts from; may be repeated."),
    ] = [],  # noqa: B006 typer's way to say several
    problems: Annotated[int, typer.Option(min=0, help="Made-up problems; 0: none.")] = 3_000,
    samples: Annotated[int, typer.Option(min=2, help="Most attempts at a made-up problem.")] = 32,
    useful: Annotated[int, typer.Option(min=1, help="Useful samples that a problem needs.")] = 2,
    min_samples: Annotated[int, typer.Option(min=1, help="Attempts that every problem gets.")] = 2,
    give_up_below: Annotated[float, typer.Option(min=0, max=1, help="Chance below which a problem is given up.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the made-up problems.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure teacher tokens per useful sample, adaptive sampling against the smallest fixed n of equal coverage.

    And, with a fixed n, the share of slots busy until the end, with long attempts first and in the order of problems.
    """
    from jobs.bench import adaptive as measured
    from schemas.config import AdaptiveConfig

    rule = AdaptiveConfig(useful=useful, min_samples=min_samples, give_up_below=give_up_below)
    pools = {str(path): measured.recorded_pool(path) for path in run}
    if problems:
        pools[f"{problems} made-up problems"] = measured.made_pool(problems, samples, seed)
    found = {name: (measured.histogram(pool), measured.measure(pool, rule)) for name, pool in pools.items()}
    orders = {name: measured.orders(pool.seen) for name, pool in pools.items()}
    if problems:
        name = f"{problems} made-up problems with attempts of like length"
        orders[name] = measured.orders(measured.alike_lengths(problems, samples, seed))
    if as_json:
        arms_of = {name: {"pass rates": rates, "arms": arms} for name, (rates, arms) in found.items()}
        show.json_line({name: arms_of.get(name, {}) | {"orders": rows} for name, rows in orders.items()})
        return
    for name, (rates, arms) in found.items():
        show.bars(f"{name}: problems by pass rate", rates)
        show.figures(f"{name}: at most {useful} useful samples counted per problem", arms)
    for name, rows in orders.items():
        show.figures(f"{name}: a fixed number of attempts at each, share of slots busy", rows)


@bench.command("resume", epilog="Example: factory bench resume --traces 100000")
def bench_resume(
    traces: Annotated[int, typer.Option(min=1_000, metavar="N", help="Committed traces of the run.")] = 1_000_000,
    repeat: Annotated[int, typer.Option(min=1, help="Starts that are measured.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure how long a run with many committed traces needs until it leases again; makes such a run first."""
    from jobs.bench import resume as measured

    with tempfile.TemporaryDirectory(prefix="factory-resume-") as folder, show.counting("traces", traces) as done:
        rate = measured.make_run(Path(folder), traces, done)
        starts = [measured.measure(Path(folder)) for _ in range(repeat)]
    if as_json:
        show.json_line({"traces": traces, "committed per second": rate, "starts": starts})
    else:
        show.figures(f"seconds until the first lease, {traces:,} committed traces ({rate:,.0f}/s)", starts)


@bench.command("saturation", epilog="Example: factory bench saturation --rounds 2 --requests 96 --slots 24")
def bench_saturation(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all three arms.")] = 3,
    requests: Annotated[int, typer.Option(min=8, metavar="N", help="Requests of an arm.")] = 128,
    slots: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that the engine holds at a time.")] = 32,
    tokens: Annotated[int, typer.Option(min=0, metavar="N", help="Length of every output; 0: as they come.")] = 1_024,
    config: Annotated[Path, typer.Option(metavar="JOB.yaml", help="The teacher and its problems.")] = Path(
        "jobs/configs/demo.yaml"
    ),
    tail: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Instead: N jobs of the scripted teacher in a row, and over one set of engines."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the factory's tokens per second, verification and journal on, with bare vLLM's on the same requests."""
    from jobs.bench import saturation as measured
    from jobs.bench import tail as tails

    folder = Path(tempfile.mkdtemp(prefix="factory-saturation-"))
    if tail:
        with show.counting("ways", 2) as done:
            found = tails.measure(folder, tail, done)
        title = f"{tail} jobs, one engine of {tails.SLOTS} slots that loads in {tails.LOAD_S:g} s; {measured.machine()}"
        show.json_line({"ways": found, "machine": measured.machine()}) if as_json else show.figures(title, found)
        shutil.rmtree(folder)
        return
    job = measured.overrides(requests, slots, tokens)
    with show.counting("rounds", rounds + 1) as done:
        bench = measured.prepare(folder / "bench", config, job)
        found, alone = measured.measure_rounds(bench, rounds, done)
    rows, ratios = measured.figures(found, alone, bench.slots), measured.ratios(found, alone, bench.slots)
    by_role = measured.cpu_by_role(alone)
    if as_json:
        show.json_line({"arms": rows, "CPU ms by role": by_role, "ratios": ratios, "machine": measured.machine()})
    else:
        show.figures(f"{requests} requests, {slots} at a time; medians of {rounds} rounds", rows)
        show.figures("factory alone: CPU ms per sample outside the engine", [by_role])
        show.figures(f"ratios; {measured.machine()}", [ratios])
    shutil.rmtree(folder)


@bench.command("clean", epilog="Example: factory bench clean --problems data/problems --rows 0")
def bench_clean(
    problems: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of JSON Lines of problems: benchmarks, and others like them."),
    ] = None,
    benchmark: Annotated[str, typer.Option(metavar="FILE", help="Benchmark in that folder.")] = "math500.jsonl",
    others: Annotated[str, typer.Option(metavar="FILE", help="Problems in it that are none of its items.")] = (
        "math_test.jsonl"
    ),
    documents: Annotated[int, typer.Option(min=0, metavar="N", help="Made-up documents for near-duplicates.")] = 50_000,
    rows: Annotated[int, typer.Option(min=0, metavar="N", help="Made-up documents for the budget; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(help="Of edits and documents.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure cleaning: items found and other problems flagged, false alarms of the audit, near-duplicates, memory."""
    from jobs.bench import clean as measured

    tables, examples, left_out = measured.measure(problems, benchmark, others, documents, rows, seed)
    if as_json:
        show.json_line({"seed": seed, **tables, "examples": examples, "left out": left_out})
        return
    for title, found in tables.items():
        show.rows(title, found)
    for title, lines in examples.items():
        if lines:
            show.plain([f"{title}: {len(lines)}", *(f"  {line}" for line in lines[: show.MAX_EXAMPLES])])
    for line in left_out:
        show.message(f"left out: {line}")


@bench.command("chaos", epilog="Example: factory bench chaos --rounds 180 --vllm-rounds 20 --seed 1")
def bench_chaos(
    rounds: Annotated[int, typer.Option(min=0, metavar="N", help="Kills in runs of the scripted teacher.")] = 20,
    vllm_rounds: Annotated[
        int, typer.Option(min=0, metavar="M", help="Kills in runs of the demo's teacher on vLLM.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(help="Of what is killed when.  [default: a new one]")] = None,
    as_json: AsJson = False,
) -> None:
    """Kill processes of real runs with -9 at random moments and at each step of a commit, and look for what is lost."""
    from jobs.bench import chaos as measured

    if not rounds + vllm_rounds:
        raise typer.BadParameter("give kills to do: --rounds N, --vllm-rounds M, or both")
    seed = secrets.randbits(32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="factory-chaos-"))
    found = []
    with show.counting("kills", rounds + vllm_rounds) as done:
        found += measured.scripted_rounds(rounds, folder / "scripted", seed, done)
        found += measured.vllm_rounds(vllm_rounds, folder / "vllm", seed, lambda number: done(rounds + number))
    if as_json:
        show.json_line({"seed": seed, "targets": measured.summary(found), "others": measured.others(found)})
    else:
        show.kills(f"seed {seed}", measured.summary(found), measured.others(found))
    if not measured.is_fine(found):
        show.message(f"what was found is in {folder}")
        raise typer.Exit(1)
    shutil.rmtree(folder)
