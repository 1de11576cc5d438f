"""What `factory evaluate` prints: a table of scores, and what must be read with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from factory.visible import visible
from jobs import show
from jobs.evaluate.benchmarks import NO_WINDOW, About, Window
from jobs.evaluate.elo import LOWEST, Rating
from jobs.evaluate.estimates import Estimate, Interval

if TYPE_CHECKING:
    from jobs.evaluate.agreement import Compared, Difference
    from jobs.evaluate.scores import Scores


def as_body(scores: Scores) -> dict[str, Any]:
    """Return the scores as JSON values."""
    body: dict[str, Any] = _plain(asdict(scores))
    return body


def _plain(value: Any) -> Any:
    """Return a value for JSON: named tuples, which would become lists, as objects."""
    if isinstance(value, Estimate | Interval | Rating | Window):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def scores(found: Scores) -> None:
    """Print the scores."""
    named = {"pass@1": found.pass_at_1, **{f"pass@{k}": value for k, value in found.pass_at.items()}}
    if found.num_samples > 1:
        named[f"cons@{found.num_samples}"] = found.consensus
    rows = [_row(name, value) for name, value in named.items() if value is not None]
    if found.rating is not None:
        rows.append(_rating_row(found.rating))
    if rows:
        show.rows(_title(found), rows)
    for column, values in found.groups.items():
        show.rows(f"pass@1 by {column}", [_row(safe(name), value) for name, value in values.items()])
    lengths = [_rounded(name, values) for name, values in found.lengths.items() if values]
    if lengths:
        is_bytes = is_recorded(found) and found.teacher.get("tokenizer") == "bytes"
        show.rows(f"lengths of the completions, in {'bytes' if is_bytes else 'tokens'}", lengths)
    show.plain([visible(line) for line in notes(found)])


def safe(text: str) -> str:
    """Return text of a file for a table: nothing in it acts, on the terminal or as markup."""
    return escape(visible(text))


def _title(found: Scores) -> str:
    what = "this run" if found.about is None else found.about.benchmark
    teacher = found.teacher.get("model") or found.teacher.get("kind", "?")
    return f"{safe(str(teacher))} on {what}: {found.num_problems:,} problems, {found.num_samples} attempts each"


def _row(name: str, value: Estimate) -> dict[str, Any]:
    interval = "" if value.interval is None else f"{value.interval.low:.1%} to {value.interval.high:.1%}"
    return {"": name, "score": f"{value.value:.1%}", "95 %": interval, "problems": value.num_problems}


def _rounded(name: str, values: Mapping[str, float]) -> dict[str, Any]:
    return {"": name, **{key: round(value) for key, value in values.items()}}


def _rating_row(rating: Rating) -> dict[str, Any]:
    interval = "" if rating.interval is None else f"{rating.interval.low:.0f} to {rating.interval.high:.0f}"
    sign = "" if not rating.is_bound else ("at least " if rating.value > LOWEST + 1 else "at most ")
    return {"": "Elo", "score": f"{sign}{rating.value:.0f}", "95 %": interval, "problems": rating.num_problems}


def notes(found: Scores) -> list[str]:
    """Return what a reader of the scores must know, one line each."""
    counted = found.counted
    lines = [
        f"counted: {counted.judged:,} of {counted.requested:,} attempts, by the answer check alone, whatever the form",
        f"truncated {counted.truncated:,} · ended early {counted.aborted:,} · without an answer {counted.no_answer:,}",
        f"readable {found.num_readable:,} of {counted.judged:,}, right and readable {found.num_right_and_readable:,}"
        + "".join(f" · {reason} {count:,}" for reason, count in found.unreadable.items()),
    ]
    apart = {
        "without a word of the verifiers": counted.no_word,
        "not judged yet (factory verify)": counted.not_judged,
        "still to be made (the same command goes on)": counted.pending,
        **{f"without a trace, {reason}": count for reason, count in counted.failed.items()},
    }
    lines += [f"in no score: {count:,} attempts {what}" for what, count in apart.items() if count]
    lines += [f"left out: {count:,} rows of the benchmark, {reason}" for reason, count in found.quarantined.items()]
    if found.about is not None:
        lines.append(f"benchmark: {found.about.file}, sha256 {found.about.sha256[:16]}, {rows_of(found.about)}")
    sampling = found.fingerprint.get("sampling", {})
    shown = " · ".join(f"{name} {sampling[name]}" for name in SHOWN if name in sampling)
    lines.append("sampling: not known, the outputs are recorded" if is_recorded(found) else f"sampling: {shown}")
    if found.rating is not None:
        lines.append(
            f"Elo: most likely rating given {found.rating.num_problems} problems' ratings, {found.rating.num_contests} "
            "contests, one submission an attempt; not the rank among a contest's participants"
        )
    return lines


def rows_of(about: About) -> str:
    """Return how many of a benchmark's rows are evaluated, and between which dates they lie."""
    if about.window == NO_WINDOW:
        return f"all {about.num_rows:,} rows"
    return f"{about.num_kept:,} of {about.num_rows:,} rows, those {about.window}"


def is_recorded(found: Scores) -> bool:
    """Return whether somebody else's outputs were scored."""
    return found.teacher.get("kind") in ("replay", "imported")


SHOWN: Final = ("temperature", "top_p", "top_k", "min_p", "max_tokens")


def compared(found: Compared) -> None:
    """Print how two harnesses agree, and every sample on which they do not."""
    rate = "none was compared" if found.rate is None else f"{found.rate:.2%} of {found.num_compared:,} samples"
    counts = {
        "both right": found.both_right,
        "both wrong": found.both_wrong,
        "only theirs right": found.only_theirs,
        "only ours right": found.only_ours,
    }
    lines = [f"agreement with {found.metric}: {rate}" + "".join(f" · {what} {n:,}" for what, n in counts.items())]
    lines += [f"in no rate: {count:,} {what}" for what, count in found.left_out.items()]
    lines += [line for one in found.differences for line in _difference(one)]
    show.plain([visible(line) for line in lines])


def _difference(one: Difference) -> list[str]:
    words = {True: "right", False: "wrong"}
    reason = f" ({one.our_reason})" if one.our_reason else ""
    return [
        f"row {one.row_id}, attempt {one.sample_index}, trace {one.trace_id}: theirs {words[one.theirs]}, ours "
        f"{words[one.ours]}{reason}",
        f"  reference {one.reference!r} · theirs {one.their_answer!r} · ours {one.our_answer!r}",
    ]
