"""What the command prints: a progress bar on stderr while work goes on, tables and samples on stdout at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from factory.cost import Costs, cost_note, cost_rows
from factory.differences import ACCEPTED
from factory.storage import AnyPath, find_files
from factory.visible import visible
from schemas.config import SelectConfig
from schemas.tables import MAX_ROW_BYTES, SCHEMAS
from schemas.verdict import Outcome

if TYPE_CHECKING:
    from factory.agreement import Agreement
    from factory.coordinator import Progress as RunProgress
    from factory.differences import Change
    from factory.estimate import Figure
    from factory.fingerprints import Benchmark
    from factory.plan import Plan
    from factory.report import Status
    from factory.scan import Scan
    from factory.suspects import Suspect
    from factory.tables import WrittenTables
    from jobs.doctor import Finding
    from schemas.problem import Problem, Prompt

WIDE: Final = 160  # columns of a table that goes to a file or a pipe, where rich would cut its cells to fit 80


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


out = _console()
err = _console(stderr=True)
PLAIN_EVERY_S: Final = 15.0  # between two progress lines where stderr is no terminal
RATE_WINDOW_S: Final = 20.0  # over which tokens per second are taken
MAX_SAMPLE_CHARACTERS: Final = 6_000
BAR_CHARACTERS: Final = 40
MAX_DROPPED: Final = 50  # rows of a dataset printed one by one
MAX_EXAMPLES: Final = 20  # of a kind that a benchmark lists
MAX_CHANGES: Final = 5  # of two selections, that `diff` names for each pair of reasons
PLAIN_WIDTH: Final = 120  # of lines for no terminal


def message(text: str) -> None:
    """Print a message for the user on stderr."""
    err.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def json_line(value: Any) -> None:
    """Print one JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


class LiveProgress:
    """A progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self, select: SelectConfig | None = None, name: str = "", beside: LiveProgress | None = None) -> None:
        """Show progress; where every correct trace is accepted, correct ones are shown as accepted.

        One ``beside`` another is a line below it; then both have names.
        """
        is_same = select is not None and select.rule == "all_correct" and select.max_per_problem is None
        self._good_word = "accepted" if is_same else "correct"
        self._prefix = f"{name}: " if name else ""
        self._bar: Progress = (
            beside._bar
            if beside is not None
            else Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[line]}"),
                console=err,
                transient=True,
                disable=not err.is_terminal,
            )
        )
        self._task: TaskID = self._bar.add_task(name or "factory", total=None, line="starting")
        self._history: deque[tuple[float, int, int]] = deque()  # time, tokens, ended attempts
        self._printed_at = time.monotonic()

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Say what is going on."""
        self._show(text, None, None)

    def update(self, progress: RunProgress, note: str) -> None:
        """Show where the run stands."""
        counts = progress.counts
        ended = counts.requested - counts.pending
        now = time.monotonic()
        self._history.append((now, progress.num_tokens_out, ended))
        while now - self._history[0][0] > RATE_WINDOW_S:
            self._history.popleft()
        then, tokens, ended_then = self._history[0]
        rate = max(0, progress.num_tokens_out - tokens) / (now - then) if now > then else 0.0  # a new count may begin
        speed = (ended - ended_then) / (now - then) if now > then else 0.0
        left = str(timedelta(seconds=round(counts.pending / speed))) if speed > 0 else "?"
        correct = progress.outcomes.get(Outcome.CORRECT, 0)
        num_useful = correct + progress.outcomes.get(Outcome.READABLE, 0)
        each = [f"{progress.num_tokens_spent / num_useful:,.0f} tokens per useful sample"] if num_useful else []
        parts = [
            f"{progress.num_problems} problems",
            f"{counts.generated}/{counts.requested} samples",
            f"{counts.judged} judged",
            f"{correct} {self._good_word}",
            f"{rate:,.0f} tokens/s",
            *each,
            f"{left} left",
        ]
        self._show(" · ".join(parts) + (f" · {note}" if note else ""), ended, counts.requested)

    def _show(self, line: str, completed: int | None, total: int | None) -> None:
        if err.is_terminal:
            self._bar.update(self._task, line=escape(line), completed=completed, total=total)
        elif time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            message(self._prefix + line)


def plan(found: Plan, path: AnyPath, *, as_json: bool) -> None:
    """Print what a job resolves to, what it would make and cost, and where each figure comes from."""
    from factory.clean import make_cleaner
    from factory.estimate import as_json as figures_as_json
    from factory.estimate import count_prompts, estimate, estimate_domains
    from factory.pilot import predict, read_pilot
    from factory.sources import load_problems

    schedule = found.job.schedule
    loaded = load_problems(found.job.sources, max_problems=schedule.max_problems, cleaner=make_cleaner(schedule.clean))
    prompts, num_refused = _render(found, loaded.problems)
    pilot = read_pilot(found, path)
    is_none = isinstance(pilot, str)
    num_problems = Counter((one.source, str(one.domain)) for one in loaded.problems)
    predicted = None if isinstance(pilot, str) else predict(pilot, num_problems)
    figures = estimate(found.job, count_prompts(prompts), predicted)
    by_domain = {} if predicted is None else estimate_domains(found.job, predicted)
    is_known = found.why_no_tokenizer is None
    body = {
        "run": str(path),
        "fingerprint": found.fingerprint if is_known else None,
        "teacher": found.identity._asdict(),
        "format": str(found.renderer.format) if is_known else None,
        "quarantined": len(loaded.quarantined) + num_refused,
        **{name: figures[name].value for name in ("problems", "requests", "prompt_tokens", "output_tokens_at_most")},
        "why_no_tokenizer": found.why_no_tokenizer,
        "pilot": None if predicted is None else {"problems": predicted.num_pilot, "not_ended": predicted.num_open},
        "why_no_pilot": pilot if is_none else None,
        "estimate": figures_as_json(figures),
        "estimate_by_domain": {domain: figures_as_json(of_domain) for domain, of_domain in by_domain.items()},
        "job": found.job.model_dump(mode="json"),
    }
    if as_json:
        json_line(body)
        return
    shown = {name: body[name] for name in ("run", "fingerprint", "teacher", "format", "quarantined", "job")}
    out.print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), markup=False, highlight=False)
    if prompts and is_known:
        out.print(Panel(_safe(prompts[0].text), title="the first prompt"), highlight=False)
    _figures(figures)
    if by_domain:
        _domain_figures(by_domain)
    if is_none:
        message(
            f"no prediction: {pilot}. The same command with --set schedule.max_problems=100 in place of --dry-run runs "
            "the job's first 100 problems; a run only grows, so they stay part of it. Then --dry-run predicts the rest"
        )
    if found.why_no_tokenizer is not None:
        message(
            f"{found.why_no_tokenizer}\nfingerprint and format follow from the tokenizer's chat template and are not "
            "known, and prompt tokens are estimated; teacher.tokenizer may name a folder with the tokenizer's files"
        )


def _render(found: Plan, problems: Sequence[Problem]) -> tuple[list[Prompt], int]:
    """Return the prompts of the problems, and how many a template refuses: a run would set these aside."""
    prompts = []
    for problem in problems:
        try:
            prompts.append(found.renderer.render(problem))
        except ValueError:
            continue
    return prompts, len(problems) - len(prompts)


def _figures(figures: Mapping[str, Figure]) -> None:
    table = Table(title="what it would make and cost", title_justify="left")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    has_intervals = any(figure.low is not None for figure in figures.values())
    if has_intervals:
        table.add_column("90 %", justify="right", no_wrap=True)
    table.add_column("from")
    for name, figure in figures.items():
        bounds = "" if figure.low is None else f"{_amount(figure.low)} .. {_amount(figure.high, 'no bound')}"
        shown = [_amount(figure.value, "not known"), *([bounds] if has_intervals else [])]
        table.add_row(name, *shown, escape(figure.origin))
    out.print(table)


def _domain_figures(by_domain: Mapping[str, Mapping[str, Figure]]) -> None:
    """Print a line for each domain; where figures are not known, why, once."""
    table = Table(title="the same by domain, with intervals of 90 %", title_justify="left")
    table.add_column("domain", no_wrap=True)
    for name in next(iter(by_domain.values())):
        table.add_column(name, justify="right", overflow="fold")
    for domain, figures in by_domain.items():
        table.add_row(escape(domain), *map(escape, _with_intervals(figures.values())))
    out.print(table)


def _with_intervals(figures: Iterable[Figure]) -> Iterator[str]:
    said = ""
    for figure in figures:
        if figure.value is not None:
            yield f"{_amount(figure.value)} ({_amount(figure.low)} .. {_amount(figure.high, 'no bound')})"
        else:
            yield "" if figure.origin == said else figure.origin
            said = figure.origin


def _amount(value: float | None, none: str = "") -> str:
    if value is None:
        return none
    return (
        f"{value:,.0f}"
        if isinstance(value, int) or value >= 1000
        else f"{value:,.4g}"
        if value < 1
        else f"{value:,.2f}"
    )


def status(found: Status) -> None:
    """Print where a run stands."""
    funnel(found)
    costs(found.costs)
    if found.quarantined:
        out.print(_counted("rows of the sources set aside", found.quarantined, None))


def funnel(found: Status) -> None:
    """Print the way of the attempts, from requested to accepted."""
    counts = found.counts
    table = Table(title=f"{found.name}: {found.num_problems} problems ({found.path})", title_justify="left")
    table.add_column("attempts")
    table.add_column("count", justify="right")
    table.add_column("of generated", justify="right")

    def row(name: str, count: int, *, share: bool = True) -> None:
        table.add_row(name, f"{count:,}", f"{count / counts.generated:.1%}" if share and counts.generated else "")

    row("requested", counts.requested, share=False)
    row("generated", counts.generated, share=False)
    reasons = {"failed": found.failed_reasons, "cancelled": found.cancelled_reasons}
    for name, count in (("failed", counts.failed), ("cancelled", counts.cancelled), ("pending", counts.pending)):
        if count or name == "pending":
            row(f"  {name}", count, share=False)
        for reason, of_reason in sorted(reasons.get(name, {}).items()):
            row(f"    {name}: {reason}", of_reason, share=False)
    for reason, ended in found.ended_early.items():
        row(f"  ended early: {reason}", ended.count)
    row("judged", counts.judged)
    for outcome, count in found.outcomes.items():
        row(f"  {outcome}", count)
    for reason, count in found.reasons.items():
        row(f"    reason: {reason}", count)
    if found.accepted is not None:
        row(f"accepted (selection {found.selection})", found.accepted)
        for reason, count in sorted(found.rejected.items(), key=lambda item: -item[1]):
            row(f"  rejected: {reason}", count)
    out.print(table)
    rate = "" if found.tokens_per_s is None else f" · {found.tokens_per_s:,.0f} tokens/s while engines worked"
    pass_rate = "" if found.pass_rate is None else f" · pass rate {found.pass_rate:.3f}"
    whole = sum(found.engine_seconds.values())
    if whole:
        shares = ", ".join(f"{seconds / whole:.1%} {state}" for state, seconds in found.engine_seconds.items())
        out.print(f"engines, {whole:,.0f} s in all: {shares}", highlight=False)
    if found.verdict_delays is not None:
        count, median_s, p99_s = found.verdict_delays
        _line(f"verdicts after the end of their traces: {median_s:.2f} s (median), {p99_s:.2f} s (99 %) of {count:,}")
    if found.ended_early:
        saved = ", ".join(f"{reason} {ended.num_saved:,}" for reason, ended in found.ended_early.items())
        out.print(f"tokens saved by early abort, estimated: {saved}", highlight=False)
    per = "" if found.tokens_per_accepted is None else f" · {found.tokens_per_accepted:,.1f} tokens per accepted sample"
    _line(f"{found.num_tokens:,} teacher tokens{rate}{per}{pass_rate}")
    if found.num_suspects:
        _line(
            f"{found.num_suspects:,} problems whose attempts agree with one another and never with the reference: "
            f"factory report {found.path} --suspects"
        )


def costs(found: Costs) -> None:
    """Print what an accepted sample costs: in all, by domain, at the dearest problems."""
    if found.whole.num_tokens:
        rows = cost_rows(found)
        out.print(_table("cost, accepted by the verdicts of today", rows))
        _line(cost_note(found))


def sample(row: Mapping[str, Any]) -> None:
    """Print one accepted sample in full."""
    turns = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in row["messages"])
    if len(turns) > MAX_SAMPLE_CHARACTERS:
        turns = turns[:MAX_SAMPLE_CHARACTERS] + f"\n... ({len(turns) - MAX_SAMPLE_CHARACTERS:,} characters more)"
    rate = "" if row["pass_rate"] is None else f", pass rate {row['num_true']}/{row['num_judged']}"
    title = f"accepted: trace {row['trace_id'][:12]}, {row['num_tokens']} tokens, reference {row['reference']}{rate}"
    out.print(Panel(_safe(turns), title=_safe(title), title_align="left"), highlight=False)


def tables(path: AnyPath, selection: str) -> None:
    """Print where the tables lie and how to load them."""
    folder = path / "tables" / selection
    names = [name for name in SCHEMAS if find_files(folder / name, "train-*.parquet")]
    _line(f"tables: {folder}/{{{','.join(names)}}}/train-*.parquet")
    if not isinstance(path, Path):
        _line('  import obstore.fsspec; obstore.fsspec.register("s3")  # with AWS_ALLOW_HTTP=true for http://')
    if names:
        _line(f'  datasets.load_dataset("parquet", data_files="{folder}/{names[0]}/train-*.parquet")')


def oversized(written: WrittenTables) -> None:
    """Say on stderr that rows are larger than the Hub's viewer shows, if some are."""
    if written.num_oversized:
        row = written.oversized[0]
        message(
            f"{written.num_oversized:,} rows are larger than {MAX_ROW_BYTES:,} bytes, which the Hub's viewer does not "
            f"show; the first: {row.config} {row.id}, {row.num_bytes:,} bytes. They are written, and listed in "
            f"{written.folder}/manifest.json"
        )


def page(path: AnyPath, num_bytes: int) -> None:
    """Print where a page lies."""
    _line(f"{path}: {num_bytes / 1e3:,.0f} kB, one file; open it in any browser")


def plain(lines: Sequence[str]) -> None:
    """Print lines as they are."""
    sys.stdout.write("\n".join(lines) + "\n")


def log(text: str) -> None:
    """Pass on a piece of another process's output as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _safe(text: str) -> str:
    """Return text of a model or a dataset for rich: nothing in it acts, on the terminal or as markup."""
    return escape(visible(text))


def _line(text: str) -> None:
    """Print one line, not wrapped: it may be copied."""
    out.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def _counted(title: str, counts: Mapping[str, int], limit: int | None) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("reason")
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda item: -item[1])[:limit]:
        table.add_row(name, f"{count:,}")
    return table


def explanation(found: Mapping[str, Any]) -> None:
    """Print a problem, its traces, their checks, and what selections made of them."""
    problem = found["problem"]
    out.print(Panel(_safe(problem["prompt"]), title=f"problem {problem['problem_id']}", title_align="left"))
    out.print(visible(f"reference: {problem['reference']}"), markup=False)
    read_from = f" of {problem['source_revision']}" if problem["source_revision"] else ""
    out.print(visible(f"source: {problem['source']} row {problem['source_row_id']}{read_from}"), markup=False)
    for trace in found["traces"]:
        out.print(Panel(_safe(trace["text"]), title=f"trace {trace['trace_id']}", title_align="left"), highlight=False)
        tokens = f"{trace['num_completion_tokens']} tokens"
        out.print(f"attempt {trace['sample_index']}, {tokens}, ended by {trace['finish_reason']}")
        for digest, verdict in trace["verdicts"].items():
            out.print(f"verdict of verifiers {digest[:8]}: {verdict['outcome']} ({verdict['reason'] or 'passed'})")
            for check in verdict["checks"]:
                shown = {key: value for key, value in check.items() if value is not None}
                _line(f"  {json.dumps(shown, ensure_ascii=False)}")
        for selection, decision in trace["selections"].items():
            word = "accepted" if decision["is_accepted"] else f"rejected: {decision['reject_reason']}"
            out.print(f"selection {selection}: {word}")
    for item in found["untraced"]:
        out.print(
            visible(f"attempt {item['sample_index']} {item['ending']}: {item['reason']} ({item['detail']})"),
            markup=False,
        )


def suspects(found: Sequence[Suspect]) -> None:
    """Print the problems whose reference is probably wrong."""
    _line(f"{len(found):,} problems whose attempts agree with one another and never with the reference")
    for item in found:
        _line(
            f"problem {item.problem_id} ({item.source} row {item.source_row_id}): {item.num_agreeing} of "
            f"{item.num_answers} answers are {item.answer!r}, the reference is {item.reference!r}"
        )


def agreement(found: Agreement) -> None:
    """Print how verdicts agree with recorded labels, and every attempt on which they differ."""
    rate = "none was compared" if found.rate is None else f"{found.rate:.2%} of {found.num_compared:,}"
    _line(
        f"agreement with the labels: {rate} · both right {found.both_true:,} · both wrong {found.both_false:,} · "
        f"only the label says right {found.only_label:,} · only the verdict says right {found.only_verdict:,} · "
        f"not compared {found.num_not_compared:,}"
    )
    for item in found.disagreements:
        words = {True: "right", False: "wrong"}
        _line(
            f"trace {item.trace_id} ({item.source} row {item.source_row_id}, attempt {item.sample_index}): "
            f"label {words[item.label]}, verdict {item.outcome}{f' ({item.reason})' if item.reason else ''}"
        )
        _line(f"  reference {item.reference!r} · our answer {item.answer!r} · the publisher's {item.label_answer!r}")


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a long work is: call what is yielded with the number that is done."""
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def counting_up(what: str) -> Iterator[Callable[[int], None]]:
    """Show how far a work of unknown length is: call what is yielded with the number that is done."""
    with Progress(TextColumn("{task.completed:,.0f} " + what), console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)


def contamination(scan: Scan, covered: Sequence[Benchmark], missing: Sequence[str], folder: Path | None) -> None:
    """Print which rows are or quote what, what was looked for and what was not."""
    _line(f"{scan.num_rows:,} rows, {len(scan.dropped):,} of them to drop")
    for row in scan.dropped[:MAX_DROPPED]:
        where = f"{row.file} row {row.row}" + (f" ({row.row_id})" if row.row_id else "")
        if row.match is not None:
            _line(f"  {where}, {row.column}: {row.match}")
        else:
            _line(f"  {where}: nearly the same as {row.like_file} row {row.like_row}, similarity {row.similarity:.2f}")
    if len(scan.dropped) > MAX_DROPPED:
        _line(f"  and {len(scan.dropped) - MAX_DROPPED:,} more: --json or --out for all of them")
    counts: Counter[str] = Counter("near_duplicate" if r.match is None else r.match.benchmark for r in scan.dropped)
    rows = [
        {
            "benchmark": benchmark.name,
            "version": benchmark.version,
            "items": benchmark.num_items,
            "rows": counts[benchmark.name],
        }
        for benchmark in covered
    ]
    if rows:
        out.print(_table("looked for", rows))
    _line(f"not looked for: {', '.join(missing) or 'none of the known benchmarks'}")
    if folder is not None:
        _line(f"the files without these rows, and dropped.jsonl with the evidence: {folder}")


def comparison(
    figures: Mapping[str, Mapping[str, float | None]],
    categories: Mapping[str, Mapping[str, tuple[int, int]]],
    mistakes: Sequence[Mapping[str, Any]],
) -> None:
    """Print a comparison of graders, by figure and by category, and what ours got wrong."""
    table = Table(title="graders", title_justify="left")
    names = list(figures)
    for head in ("", *names):
        table.add_column(head, justify="left" if not head else "right")
    for figure in figures[names[0]]:
        table.add_row(figure, *(_number(figures[name].get(figure)) for name in names))
    out.print(table)
    table = Table(title="right, by category", title_justify="left")
    for head in ("category", "cases", *names):
        table.add_column(head, justify="left" if head == "category" else "right")
    for category, found in categories.items():
        table.add_row(category, str(found[names[0]][1]), *(str(found[name][0]) for name in names))
    out.print(table)
    for item in mistakes:
        _line(f"{item['case']} ({item['category']}): expected {item['expected']}, said {item['word']}")
        _line(f"  reference {item['reference']!r} · completion {item['completion']!r}")


def speed(shares: Mapping[str, float], ratios: Mapping[str, Mapping[str, float]]) -> None:
    """Print for each group of cases which share of them reaches sympy, and how many times as fast ours is."""
    table = Table(title="ours, by group of cases", title_justify="left")
    for head in ("cases", "reach sympy", *(f"times as fast as {rival}" for rival in ratios)):
        table.add_column(head, justify="left" if head == "cases" else "right")
    for group, share in shares.items():
        table.add_row(group, f"{share:.1%}", *(_number(found.get(group)) for found in ratios.values()))
    out.print(table)


def readings(
    figures: Mapping[str, Any],
    reasons: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, float]],
    looked: Sequence[Mapping[str, Any]],
) -> None:
    """Print what the readability checks made of cases, what it cost, and what a reader should look at."""
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in figures["rejected"].items()) or "none"
    table = Table(title="readability", title_justify="left")
    for head in ("", "value"):
        table.add_column(head, justify="left" if not head else "right")
    for name, value in figures.items():
        if name != "rejected":
            table.add_row(name, _number(value))
    out.print(table)
    out.print(f"rejected by reason: {rejected}")
    if reasons:
        out.print(_table("right, by what a reader says", reasons))
    if costs:
        out.print(_table("cost, one thread", costs))
    for item in looked:
        said = f"expected {item['expected']}, said {item['said']}" if item["expected"] else f"said {item['said']}"
        measured = "" if item["value"] is None else f", value {item['value']:,.4g} against {item['threshold']:,.4g}"
        _line(f"{item['case']}: {said}{measured}")
        _line(f"  {item['evidence']!r}")


def early(
    rows: Sequence[Mapping[str, Any]],
    loops: Sequence[Mapping[str, Any]],
    defects: Sequence[Mapping[str, Any]],
    wrong: Sequence[str],
) -> None:
    """Print what early abort made of good traces and of bad ones."""
    out.print(_table("traces that would be accepted", rows))
    accepted = sum(row["accepted"] for row in rows)
    _line(f"false alarms: {len(wrong)} in {2 * accepted:,} looks at {accepted:,} traces: by tokens, and by characters")
    for said in wrong[:20]:
        _line(f"  {said}")
    out.print(_table("made loops by period: found, tokens of the loop until then, share of all tokens saved", loops))
    out.print(_table("made defects: ended for them, unreadable by then, with that reason", defects))


def programs(
    figures: Mapping[str, Any],
    styles: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, Any]],
    rates: Sequence[Mapping[str, Any]],
    latency: Mapping[str, float],
    wrong: Sequence[Mapping[str, str]],
    accepted: Sequence[Mapping[str, str]],
) -> None:
    """Print how programs were judged, and what a test costs; each part only where it was measured."""
    if figures:
        rows = [{"": name, "value": value} for name, value in figures.items()]
        out.print(_table("programs", rows))
        out.print(_table("right, by style", styles))
    if costs:
        out.print(_table("cost, one thread, interleaved", costs))
    if rates:
        out.print(_table("programs judged, each kind by itself", rates))
    if latency:
        out.print(_table("ms from the wall limit to the end", [{"": "killed programs", **latency}]))
    for item in wrong:
        _line(f"{item['case']} ({item['style']}): expected {item['expected']}, said {item['said']}")
    if accepted:
        _line(f"{len(accepted):,} changed solutions pass all tests:")
    for item in accepted:
        _line(f"  {item['case']} {item['change']}")


def hostile(tier: str, num_rows: int, found: Mapping[str, Sequence[str]], left: Mapping[str, Any]) -> None:
    """Print which hostile programs were not held, and what an endurance run left behind."""
    out.print(f"hostile programs, tier {tier}: {num_rows:,} run, {len(found):,} not as they must be", highlight=False)
    for name, said in found.items():
        _line(f"  {name}: {'; '.join(said)}")
    if left:
        out.print(_table("after the endurance run", [left]))


def kills(title: str, rows: Sequence[Mapping[str, Any]], others: Sequence[str]) -> None:
    """Print what was killed how often, and what came of it."""
    out.print(_table(title, rows))
    for line in others:
        _line(line)


def figures(title: str, columns: Sequence[Mapping[str, Any]]) -> None:
    """Print measurements side by side, a figure in each row."""
    out.print(
        _table(title, [{"": name, **{f"#{n}": one[name] for n, one in enumerate(columns, 1)}} for name in columns[0]])
    )


def bars(title: str, counts: Mapping[str, int]) -> None:
    """Print a histogram, a bar in each row."""
    most = max(counts.values(), default=0) or 1
    table = Table(title=title, title_justify="left")
    for name in ("", "count", "bar"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}", "#" * round(BAR_CHARACTERS * count / most))
    out.print(table)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    names = list(rows[0])
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) if isinstance(row[name], str) else _number(row[name]) for name in names))
    return table


def rows(title: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same names."""
    out.print(_table(title, found))


def calibration(num_traces: int, quantiles: Mapping[str, Mapping[str, float]], lines: str) -> None:
    """Print the quantiles of a teacher's traces on stderr and the lines for a job file on stdout."""
    rows = [{"statistic": name, **found} for name, found in quantiles.items()]
    err.print(_table(f"{num_traces:,} traces with a right answer", rows))
    out.print(lines, markup=False, highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if value < 10 else f"{value:,.0f}"


def difference(settings: Mapping[str, tuple[Any, Any]], changes: Iterable[Change]) -> None:
    """Print what in the settings of two selections differs, then by reason what entered and left, with some ids."""
    for key, (before, after) in settings.items():
        _line(f"{key}: {before} -> {after}")
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for change in changes:
        way = (str(change.kind), change.before, change.after)
        counts[way] += 1
        if change.kind != "same" and len(examples[way]) < MAX_CHANGES:
            examples[way].append(f"  {change.trace_id} of problem {change.problem_id}")
    kinds: Counter[str] = Counter()
    for (kind, _, _), count in counts.items():
        kinds[kind] += count
    out.print(
        f"in both: {counts['same', ACCEPTED, ACCEPTED]:,} · entered: {kinds['entered']:,} · left: {kinds['left']:,} · "
        f"out of both, for another reason: {kinds['reworded']:,}"
    )
    for way in sorted(examples, key=lambda way: (way[0], -counts[way], way)):
        name, before, after = way
        _line(f"{name}: {before} -> {after}: {counts[way]:,}{', such as' if counts[way] > MAX_CHANGES else ''}")
        for example in examples[way]:
            _line(example)


def difference_lines(settings: Mapping[str, tuple[Any, Any]], changes: Iterable[Change]) -> None:
    """Print the same as JSON lines: the settings, every change, and the counts."""
    json_line({"settings": {key: list(values) for key, values in settings.items()}})
    counts: Counter[tuple[str, str]] = Counter()
    for change in changes:
        counts[change.before, change.after] += 1
        if change.kind != "same":
            json_line({"change": change.kind, **change._asdict()})
    listed = [{"before": old, "after": new, "count": count} for (old, new), count in sorted(counts.items())]
    json_line({"in_both": counts[ACCEPTED, ACCEPTED], "counts": listed})


def findings(found: Sequence[Finding]) -> None:
    """Print what the doctor found."""
    for finding in found:
        mark = "[green]fine[/]" if finding.is_fine else "[red]broken[/]"
        out.print(f"{mark}  {finding.name}: {escape(finding.detail)}", highlight=False)
