"""What a proof found: every student in a table, every comparison with its interval, whatever its sign.

A pure function of OUT's files. The unit is the problem: a difference of two arms is, for each problem, the mean over
students and seeds of one arm minus that of the other. The first interval draws problems anew; the second draws the
training runs (pairs of student and seed) anew as well, and so knows that another run of the same arm differs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluate.estimates import (
    RESAMPLES,
    SEED,
    Interval,
    bootstrap_interval,
    percentile_interval,
)
from jobs.students.proof.plan import Plan, detectable
from jobs.students.proof.stages import (
    RUN,
    START,
    Trained,
    equal_tokens_of,
    evaluate_step,
    read_plan,
    students_of,
    tokens_per_row,
    train_step,
)
from jobs.students.proof.times import ALL, EQUAL, Spent, read_times

Rates = Mapping[str, float]  # by problem: share of right attempts among the judged ones
AT_ONCE: Final = 200  # resamples of problems and runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """One student and its scores."""

    name: str
    student: str
    arm: str  # START for a start
    seed: int
    is_equal_tokens: bool
    rates: Rates
    groups: Mapping[str, float]  # pass@1 by kind of problem
    num_unjudged: int  # attempts in no rate
    truncated: int
    mean_tokens: float  # of a completion
    steps: int
    seen_tokens: int  # of prompts and completions: the mean of its rows times the rows of all steps
    learnt_tokens: int  # of completions alone, the same way
    last_loss: float

    @property
    def pass_at_1(self) -> float:
        """Mean over problems."""
        return fmean(self.rates.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm minus another, on the problems that all their students have a rate for."""

    first: str
    second: str
    difference: float
    problems: Interval | None  # drawn anew: problems
    runs: Interval | None  # drawn anew: problems, and pairs of student and seed
    standard_deviation: float  # over problems, of the difference
    num_problems: int
    by_run: Mapping[str, float]  # by student and seed
    by_group: Mapping[str, float]  # by kind of problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What the students of an arm took together: wall-clock seconds of their processes; null where none was kept."""

    part: str  # an arm, or START
    is_equal_tokens: bool
    training: float | None
    evaluation: float | None
    num_students: int
    num_unknown: int  # of their trainings and evaluations: not kept at all, or with a start whose end was not


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found."""

    plan: Plan
    rows: Mapping[str, int]  # by arm: different rows to learn from
    num_problems: int
    detectable: float  # by the plan's guess of the standard deviation
    students: Sequence[Student]
    missing: Sequence[str]  # students of the plan without scores yet
    comparisons: Sequence[Comparison]
    equal_tokens: Sequence[Student]  # of the second look, and the students that it was made equal to
    equal_comparisons: Sequence[Comparison]
    times: Sequence[Times]
    spent: Mapping[str, Spent]  # by part: the run (RUN), the command (ALL), its second look (EQUAL)


def read_report(out: Path) -> Report:
    """Return what OUT holds so far."""
    plan = Plan.model_validate(read_plan(out))
    starts = [Trained(student=student) for student in plan.students] if plan.start is not None else []
    wanted = [*starts, *students_of(plan)]
    if plan.equal_tokens is not None and not [one for one in wanted if not _is_there(out, one)]:
        wanted += [one for one in equal_tokens_of(plan, out) if _is_there(out, one)]
    there = [one for one in wanted if _is_there(out, one)]
    students = [_student(plan, out, one) for one in there]
    groups, spent = _group_of(out, plan), read_times(out)
    arms = [student for student in students if student.arm != START and not student.is_equal_tokens]
    equal = equal_look(plan, students)
    num_problems = len(set.union(set(), *(student.rates for student in students)))
    return Report(
        plan=plan,
        rows=_rows(plan, out),
        num_problems=num_problems,
        detectable=detectable(max(1, num_problems), plan.assumed_sd),
        students=students,
        missing=[one.name for one in wanted if one not in there],
        comparisons=_compare_all(plan, arms, groups),
        equal_tokens=equal,
        equal_comparisons=_compare_all(plan, equal, groups),
        times=_times(there, spent),
        spent={part: spent[part] for part in (RUN, ALL, EQUAL) if part in spent},
    )


def equal_look(plan: Plan, students: Sequence[Student]) -> list[Student]:
    """Return the students of the second look with those of the arm that they were made equal to; none without any."""
    wanted = plan.equal_tokens
    if wanted is None or not any(one.is_equal_tokens for one in students):
        return []
    found = [one for one in students if one.is_equal_tokens or (one.arm, one.seed) == (wanted.arm, wanted.seed)]
    return sorted(found, key=lambda one: (list(plan.students).index(one.student), list(plan.arms).index(one.arm)))


def _compare_all(plan: Plan, students: Sequence[Student], groups: Mapping[str, str]) -> list[Comparison]:
    found = [compare(students, first, second, groups) for first, second in plan.compare]
    return [one for one in found if one is not None]


def compare(students: Sequence[Student], first: str, second: str, groups: Mapping[str, str]) -> Comparison | None:
    """Return one arm minus another over the pairs of student and seed that both have; None without any."""
    by_arm: dict[str, dict[str, Rates]] = defaultdict(dict)
    for one in students:
        by_arm[one.arm][f"{one.student}-{one.seed}"] = one.rates
    runs = [run for run in by_arm[first] if run in by_arm[second]]
    if not runs:
        return None
    rates = [by_arm[arm][run] for arm, run in product((first, second), runs)]
    problems = sorted(set.intersection(*(set(one) for one in rates)))
    differences = np.array(
        [[by_arm[first][run][problem] - by_arm[second][run][problem] for problem in problems] for run in runs]
    )
    means = differences.mean(axis=0)
    by_group = defaultdict(list)
    for problem, mean in zip(problems, means.tolist(), strict=True):
        by_group[groups.get(problem, "")].append(mean)
    return Comparison(
        first=first,
        second=second,
        difference=float(means.mean()),
        problems=bootstrap_interval(means.tolist()),
        runs=interval_of_runs(differences),
        standard_deviation=float(means.std(ddof=1)) if len(problems) > 1 else 0.0,
        num_problems=len(problems),
        by_run={run: float(row.mean()) for run, row in zip(runs, differences, strict=True)},
        by_group={group: fmean(values) for group, values in sorted(by_group.items())},
    )


def interval_of_runs(differences: npt.NDArray[np.float64]) -> Interval | None:
    """Return the interval of the mean of differences (runs, problems), runs and problems drawn anew; None for one run.

    Source: two-way bootstrap of crossed factors, Owen 2007, arXiv:0712.1111 ("pigeonhole bootstrap").
    """
    num_runs, num_problems = differences.shape
    if num_runs < 2 or num_problems < 2:
        return None
    rng = np.random.default_rng(SEED)
    means: list[float] = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        # How often each run and each problem was drawn weighs it: the mean of the drawn table without drawing it.
        runs = rng.multinomial(num_runs, np.full(num_runs, 1 / num_runs), AT_ONCE) / num_runs
        problems = rng.multinomial(num_problems, np.full(num_problems, 1 / num_problems), AT_ONCE) / num_problems
        means.extend(np.einsum("ir,rp,ip->i", runs, differences, problems, optimize=True))
    return percentile_interval(means)


def _times(there: Sequence[Trained], spent: Mapping[str, Spent]) -> list[Times]:
    """Return what training and evaluation took, by arm."""
    parts: dict[tuple[bool, str], list[Trained]] = defaultdict(list)
    for one in there:
        parts[one.is_equal_tokens, START if one.arm is None else one.arm].append(one)
    found = []
    for (is_equal, part), own in sorted(parts.items(), key=lambda item: item[0][0]):
        trained = [spent.get(train_step(one)) for one in own]
        evaluated = [spent.get(evaluate_step(one)) for one in own]
        found.append(
            Times(
                part=part,
                is_equal_tokens=is_equal,
                training=_seconds(trained),
                evaluation=_seconds(evaluated),
                num_students=len(own),
                num_unknown=sum(one is None or one.num_lost > 0 for one in [*trained, *evaluated]),
            )
        )
    return found


def _seconds(found: Sequence[Spent | None]) -> float | None:
    known = [one.seconds for one in found if one is not None and one.num_starts > one.num_lost]
    return sum(known) if known else None


def _is_there(out: Path, one: Trained) -> bool:
    return (out / "evaluations" / f"{one.name}.json").exists()


def _student(plan: Plan, out: Path, one: Trained) -> Student:
    scores: dict[str, Any] = json.loads((out / "evaluations" / f"{one.name}.json").read_text())
    folder = out / "students" / one.name
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines)
    counted = scores["counted"]
    groups = scores["groups"].get("subject", {})
    return Student(
        name=one.name,
        student=one.student,
        arm=START if one.arm is None else one.arm,
        seed=one.seed,
        is_equal_tokens=one.is_equal_tokens,
        rates={row["row_id"]: row["num_right"] / row["num_judged"] for row in scores["problems"] if row["num_judged"]},
        groups={name: estimate["value"] for name, estimate in groups.items()},
        num_unjudged=counted["requested"] - counted["judged"],
        truncated=counted["truncated"],
        mean_tokens=scores["lengths"].get("all", {}).get("mean", 0.0),
        steps=steps,
        seen_tokens=round(tokens_per_row(folder, "input_ids") * steps * plan.train.batch),
        learnt_tokens=round(tokens_per_row(folder, "labels") * steps * plan.train.batch),
        last_loss=fmean(line["loss"] for line in lines[-20:]),
    )


def _rows(plan: Plan, out: Path) -> Mapping[str, int]:
    import pyarrow.parquet as pq

    found = {}
    for arm in [*([START] if plan.start is not None else []), *plan.arms]:
        files = sorted((out / "arms" / arm).glob("*/*.parquet"))
        if files:
            found[arm] = sum(pq.read_metadata(path).num_rows for path in files)
    return found


def _group_of(out: Path, plan: Plan) -> Mapping[str, str]:
    path = plan.fresh.benchmark or out / "fresh.jsonl"
    if not path.exists() or path.suffix != ".jsonl":
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(row["id"]): str(row.get("subject", "")) for row in rows if "id" in row}


# As Markdown: the same text in the terminal and in the documents.


def as_markdown(report: Report) -> str:
    """Return the tables of a report."""
    first = [student for student in report.students if not student.is_equal_tokens]
    groups = sorted({group for one in report.students for group in one.groups})
    parts = [_head(report), _students(first, groups, _means(first, groups)), _comparisons(report.comparisons)]
    if report.equal_tokens:
        seed = report.plan.equal_tokens.seed if report.plan.equal_tokens is not None else 0
        parts += [f"Equal learnt tokens, seed {seed} alone:", _students(report.equal_tokens, groups)]
        parts.append(_comparisons(report.equal_comparisons))
    parts += [_duration(report.times), _wall_clock(report)]
    return "\n\n".join(parts)


def _head(report: Report) -> str:
    rows = ", ".join(f"{arm} {count:,}" for arm, count in report.rows.items())
    lines = [
        f"Plan `{report.plan.name}`: {report.num_problems} fresh problems, asked {report.plan.fresh.samples} time(s); "
        f"rows to learn from: {rows}.",
        f"By the plan's guess (standard deviation {report.plan.assumed_sd:g}) a difference of {report.detectable:.3f} "
        "can be detected.",
    ]
    if report.missing:
        lines.append(f"**Not there yet: {len(report.missing)} students**: {', '.join(report.missing)}.")
    return "\n".join(lines)


def _students(found: Sequence[Student], groups: Sequence[str], means: Sequence[list[str]] = ()) -> str:
    head = [
        "student",
        "arm",
        "seed",
        "pass@1",
        *groups,
        "mean tokens",
        "cut",
        "no word",
        "steps",
        "tokens seen",
        "learnt",
        "loss",
    ]
    rows = [
        [
            one.student,
            one.arm,
            "" if one.arm == START else str(one.seed),
            f"{one.pass_at_1:.3f}",
            *(f"{one.groups[group]:.3f}" if group in one.groups else "" for group in groups),
            f"{one.mean_tokens:.0f}",
            str(one.truncated),
            str(one.num_unjudged),
            str(one.steps),
            f"{one.seen_tokens:,}",
            f"{one.learnt_tokens:,}",
            f"{one.last_loss:.3f}",
        ]
        for one in found
    ]
    return _table(head, [*rows, *means])


def _means(found: Sequence[Student], groups: Sequence[str]) -> list[list[str]]:
    rows = []
    for arm in dict.fromkeys(one.arm for one in found if one.arm != START):
        own = [one for one in found if one.arm == arm]
        row = ["**all**", arm, f"{len(own)} runs", f"**{fmean(one.pass_at_1 for one in own):.3f}**"]
        row += [f"{fmean(one.groups.get(group, 0.0) for one in own):.3f}" for group in groups]
        row += [f"{fmean(one.mean_tokens for one in own):.0f}", str(sum(one.truncated for one in own))]
        row += [str(sum(one.num_unjudged for one in own)), "", f"{sum(one.seen_tokens for one in own):,}"]
        rows.append([*row, f"{sum(one.learnt_tokens for one in own):,}", ""])
    return rows


def _comparisons(found: Sequence[Comparison]) -> str:
    groups = sorted({group for one in found for group in one.by_group})
    head = ["comparison", "difference", "95 %, problems", "95 %, problems and runs", "sd", *groups, "by run"]
    rows = [
        [
            f"{one.first} - {one.second}",
            f"{one.difference:+.3f}",
            _interval(one.problems),
            _interval(one.runs),
            f"{one.standard_deviation:.2f}",
            *(f"{one.by_group[group]:+.3f}" if group in one.by_group else "" for group in groups),
            ", ".join(f"{run} {value:+.3f}" for run, value in one.by_run.items()),
        ]
        for one in found
    ]
    return _table(head, rows)


def _duration(found: Sequence[Times]) -> str:
    head = ["time, minutes", "students", "training", "evaluation", "not recorded"]
    rows = [
        [
            f"{one.part}, equal tokens" if one.is_equal_tokens else one.part,
            str(one.num_students),
            _minutes(one.training),
            _minutes(one.evaluation),
            str(one.num_unknown or ""),
        ]
        for one in found
    ]
    known = [[one.training, one.evaluation] for one in found]
    sums = [[seconds for seconds in column if seconds is not None] for column in zip(*known, strict=True)]
    cells = [_minutes(sum(column) if column else None) for column in sums] or ["", ""]
    unknown = sum(one.num_unknown for one in found)
    rows.append(["**sum**", str(sum(one.num_students for one in found)), *cells, str(unknown or "")])
    return _table(head, rows)


def _wall_clock(report: Report) -> str:
    lines = []
    limit = "" if report.plan.minutes is None else f", of the {report.plan.minutes:g} that the plan allows"
    said = {RUN: ("The run", ""), ALL: ("The command, but for a second look,", limit), EQUAL: ("The second look", "")}
    for part, (what, beside) in said.items():
        spent = report.spent.get(part)
        if part == EQUAL and spent is None and not report.equal_tokens:
            continue
        if part == RUN and report.plan.run is None:
            continue
        if spent is None or spent.num_starts == spent.num_lost:
            unseen = "" if spent is None else f"; {spent.num_lost} start(s) without an end, killed or still at work"
            lines.append(f"{what} took: not recorded{beside}{unseen}.")
            continue
        lost = f"; of {spent.num_lost} of them the end is not known, and they are not in it" if spent.num_lost else ""
        lines.append(f"{what} took {_minutes(spent.seconds)} minutes in {spent.num_starts} start(s){beside}{lost}.")
    return "\n".join(lines)


def _minutes(seconds: float | None) -> str:
    return "not recorded" if seconds is None else f"{seconds / 60:.1f}"


def _interval(found: Interval | None) -> str:
    return "none" if found is None else f"{found.low:+.3f} to {found.high:+.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
