"""Carry out a plan: a run, its arms, students, evaluations. Long steps are public commands in processes of their own.

OUT holds `plan.json` (another plan is refused), `run/`, `arms/`, `fresh.jsonl`, `students/`, `evaluations/`, `logs/`.
A step that is done is not done again, and one that was interrupted goes on: `factory run`, `sft` and `evaluate` do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, get_args

import pyarrow as pa
import yaml

from factory.rows import nearest
from factory.store import RunLock
from jobs.evaluate.benchmarks import find_benchmark
from jobs.signals import termination_interrupts
from jobs.students.launching import end_with
from jobs.students.prepare_base import pin_base
from jobs.students.proof.arms import (
    arm_rows,
    fresh_problems,
    questions,
    read_candidates,
    split_start,
    start_rows,
    write_arm,
    write_fresh,
)
from jobs.students.proof.plan import Kind, Plan
from jobs.students.proof.times import ALL, EQUAL, note, timed
from jobs.students.rows import open_data
from jobs.students.sft import TABLES, full_table, write_whole
from schemas.config import parse_config
from schemas.errors import ConfigError, CorruptRunError, FactoryError, FingerprintError

Say = Callable[[str], None]
LOOK_S: Final = 0.2  # between two looks at the processes
LAST_LINES: Final = 12  # of a log, shown when its process failed
START: Final = "start"  # name of a base's start among its students
RUN: Final = "run"  # name of the step that makes the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One student: of a base, an arm and a seed; or a start, which has no arm."""

    student: str
    arm: str | None = None
    seed: int = 0
    steps: int | None = None  # null: as the plan says
    is_equal_tokens: bool = False

    @property
    def name(self) -> str:
        """Name of its folder."""
        if self.arm is None:
            return f"{self.student}-{START}"
        return f"{self.student}-{self.arm}-{self.seed}{'-tokens' if self.is_equal_tokens else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command, what has to be there before it, and what is there after it."""

    name: str
    words: Sequence[str]
    needs: Sequence[Path]
    makes: Path
    is_scores: bool = False  # what it prints on stdout, as JSON, becomes `makes`


@dataclass(slots=True, kw_only=True)
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    cores: list[int]
    began: float


def students_of(plan: Plan) -> list[Trained]:
    """Return all students with an arm, seeds outermost: when time is short, whole seeds are there."""
    return [
        Trained(student=student, arm=arm, seed=seed)
        for seed in plan.seeds
        for student in plan.students
        for arm in plan.arms
    ]


def equal_tokens_of(plan: Plan, out: Path) -> list[Trained]:
    """Return the students of the second look: steps so that each learns as many tokens as the named arm's did."""
    wanted = plan.equal_tokens
    if wanted is None:
        return []
    found = []
    for student in plan.students:
        folders = {
            arm: out / "students" / Trained(student=student, arm=arm, seed=wanted.seed).name for arm in plan.arms
        }
        mean = {arm: tokens_per_row(folder, "labels") for arm, folder in folders.items()}
        for arm in plan.arms:
            steps = max(1, round((plan.train.max_steps or 1) * mean[wanted.arm] / mean[arm]))
            if arm != wanted.arm:
                found.append(Trained(student=student, arm=arm, seed=wanted.seed, steps=steps, is_equal_tokens=True))
    return found


def tokens_per_row(folder: Path, column: str) -> float:
    """Return how many tokens a row has on average, from a training's folder: ``input_ids``, or learnt ``labels``."""
    with pa.memory_map(str(folder / "rows" / "train.arrow")) as file, pa.ipc.open_stream(file) as reader:
        num_rows: int = sum(batch.num_rows for batch in reader)
    tokens: dict[str, int] = json.loads((folder / "rows" / "tokens.json").read_text())
    return tokens[column] / num_rows


def carry_out(plan: Plan, out: Path, say: Say, *, workers: int, with_equal_tokens: bool = False) -> None:
    """Carry out a plan, or go on with it.

    Raises:
        ConfigError: If a data set, base or benchmark of the plan is not there; nothing is started then.
        FingerprintError: If OUT belongs to another plan.
        FactoryError: If a step failed; what is done stays, and the same command goes on.
    """
    check_inputs(plan)
    out = out.resolve()
    with RunLock(out), termination_interrupts():
        claim(plan, out)
        with timed(out, ALL):
            if plan.run is not None:
                path = out / "job.yaml"
                write_whole(path, yaml.safe_dump(plan.job(), sort_keys=False, allow_unicode=True))
                words = ["run", str(path), "--run", str(out / "run"), "--json"]
                run = Step(name=RUN, words=words, needs=(), makes=out / "run.json", is_scores=True)
                run_steps([run], out, say, 1)
                make_arms(plan, out, say)
            run_steps(_steps(plan, out, students_of(plan)), out, say, workers)
        if with_equal_tokens:
            with timed(out, EQUAL):
                run_steps(_steps(plan, out, equal_tokens_of(plan, out)), out, say, workers)


def check_inputs(plan: Plan) -> None:
    """See that all that a plan reads is there: a run and hours of training come before some of it.

    Raises:
        ConfigError: If not.
    """
    kinds = get_args(Kind)
    for arm, data in plan.arms.items():
        if data not in kinds:
            try:
                full_table(open_data(data), TABLES["sft"])
            except ConfigError as error:
                hint = nearest(data, kinds)
                raise ConfigError(f"arms.{arm}={data}: {hint}must be one of {', '.join(kinds)}; or: {error}") from error
    if plan.fresh.benchmark is not None:
        find_benchmark(str(plan.fresh.benchmark), None)
    for student in plan.students:
        pin_base(plan.recipe(student, seed=0))


def read_plan(out: Path) -> dict[str, Any]:
    """Return the plan that a folder holds.

    Raises:
        CorruptRunError: If it is none.
    """
    path = out / "plan.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CorruptRunError(f"{path}: cannot be read: {error}; put it back from a copy") from error
    return found


def claim(plan: Plan, out: Path) -> None:
    """Make OUT that of a plan.

    Raises:
        ConfigError: If it is a training's.
        FingerprintError: If it is another plan's.
    """
    path, now = out / "plan.json", plan.model_dump(mode="json")
    if not path.exists():
        write_whole(path, json.dumps(now, indent=1))
        return
    then = read_plan(out)
    if "method" in then:
        raise ConfigError(f"--out {out}: holds a training, and no proof; give another folder")
    if keys := [key for key in now if key != "minutes" and then.get(key) != now[key]]:
        raise FingerprintError(
            f"{out}: holds another plan; {', '.join(keys)} differ. A plan stays what it was; give another --out"
        )


def make_arms(plan: Plan, out: Path, say: Say) -> None:
    """Write the data of each arm and the problems that students are asked, where they are missing."""
    job = parse_config(plan.job(), origin="run")
    candidates = read_candidates(out / "run" / "tables" / job.select.name)
    rest = candidates
    if plan.start is not None:
        first, rest = split_start(candidates, plan.start.share)
        if not (out / "arms" / START).exists():
            rows = start_rows(first)
            write_arm(rows, out / "arms" / START)
            say(f"start: {rows.num_rows} rows")
    for arm, kind in plan.arms.items():
        if kind in get_args(Kind) and not (out / "arms" / arm).exists():
            rows = arm_rows(rest, kind)  # type: ignore[arg-type]
            write_arm(rows, out / "arms" / arm)
            say(f"arm {arm} ({kind}): {rows.num_rows} rows")
    if plan.fresh.benchmark is None and not (out / "fresh.jsonl").exists():
        write_fresh(
            fresh_problems(job, questions(candidates), size=plan.fresh.problems, seed=plan.fresh.seed),
            out / "fresh.jsonl",
        )


def _steps(plan: Plan, out: Path, trained: Sequence[Trained]) -> list[Step]:
    """Return the steps that train and evaluate students, and the starts of their bases before them."""
    steps = []
    starts = [Trained(student=student) for student in plan.students] if plan.start is not None else []
    for one in [*starts, *trained]:
        steps += [_training(plan, out, one), _evaluation(plan, out, one)]
    return steps


def train_step(one: Trained) -> str:
    """Return the name of the step that trains a student."""
    return f"train {one.name}"


def evaluate_step(one: Trained) -> str:
    """Return the name of the step that evaluates a student."""
    return f"evaluate {one.name}"


def _training(plan: Plan, out: Path, one: Trained) -> Step:
    folder = out / "students" / one.name
    start = out / "students" / f"{one.student}-{START}" / "model"
    if one.arm is None:
        assert plan.start is not None
        recipe, data = plan.recipe(one.student, seed=0, steps=plan.start.steps), str(out / "arms" / START)
    else:
        begins = None if plan.start is None else start
        recipe = plan.recipe(one.student, seed=one.seed, steps=one.steps, start=begins)
        data = str(out / "arms" / one.arm) if plan.arms[one.arm] in get_args(Kind) else plan.arms[one.arm]
    path = out / "recipes" / f"{one.name}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    words = ["sft", "--recipe", str(path), "--data", data, "--out", str(folder)]
    needs = [] if one.arm is None or plan.start is None else [start]
    return Step(name=train_step(one), words=words, needs=needs, makes=folder / "model")


def _evaluation(plan: Plan, out: Path, one: Trained) -> Step:
    name, model = one.name, out / "students" / one.name / "model"
    benchmark = plan.fresh.benchmark or out / "fresh.jsonl"
    words = ["evaluate", "--model", str(model), "--benchmark", str(benchmark), "--samples", str(plan.fresh.samples)]
    words += ["--run", str(out / "evaluations" / name), "--json"]
    for override in ("prompt.template=plain", *plan.fresh.set):  # students learn problems as they are
        words += ["--set", override]
    makes = out / "evaluations" / f"{name}.json"
    return Step(name=evaluate_step(one), words=words, needs=[model], makes=makes, is_scores=True)


def run_steps(steps: Sequence[Step], out: Path, say: Say, workers: int) -> None:
    """Run the steps that are not done, so many at a time, in their order as far as what they need is there.

    Raises:
        FactoryError: If one failed; others that run are ended, and go on where they were the next time.
    """
    waiting = [step for step in steps if not step.makes.exists()]
    num_all, began, done = len(waiting), time.monotonic(), 0
    free = shares_of_cores(workers)
    with _processes(out, say) as running:
        while waiting or running:
            ready = [step for step in waiting if all(path.exists() for path in step.needs)]
            for step in ready[: len(free)]:
                waiting.remove(step)
                running.append(_start(step, out, free.pop(0)))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.cores)
                _finish(one, out)
                done += 1
                spent_s = time.monotonic() - began
                left_min = spent_s / done * (num_all - done) / 60
                took_s = time.monotonic() - one.began
                say(f"{one.step.name}: {took_s:.0f} s; {done} of {num_all}, {left_min:.0f} min left")
            time.sleep(LOOK_S)


def shares_of_cores(workers: int) -> list[list[int]]:
    """Return the cores of each worker: processes that share a core, each with a thread per core, slow each other."""
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        return [cores] * workers
    return [cores[worker::workers] for worker in range(workers)]


@contextmanager
def _processes(out: Path, say: Say) -> Iterator[list[_Running]]:
    """Give a list for processes; those that are in it at the end are asked to end, and waited for."""
    running: list[_Running] = []
    try:
        yield running
    except KeyboardInterrupt:
        say("what is done stays: run the same command again")
        raise
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.output.close()
            note(out, one.step.name, time.monotonic() - one.began)


def _start(step: Step, out: Path, cores: list[int]) -> _Running:
    logs = out / "logs"
    logs.mkdir(exist_ok=True)
    name = step.name.replace(" ", "-")
    output = (logs / f"{name}.out").open("wb")
    mine = os.getpid()

    def begin() -> None:
        end_with(mine)
        os.sched_setaffinity(0, cores)

    note(out, step.name, None)
    began = time.monotonic()
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *step.words], stdout=output, stderr=log, preexec_fn=begin
        )
    return _Running(step=step, process=process, output=output, cores=cores, began=began)


def _finish(one: _Running, out: Path) -> None:
    """See that a step made what it should; keep what it printed where that is its result.

    Raises:
        FactoryError: If it did not.
    """
    one.output.close()
    note(out, one.step.name, time.monotonic() - one.began)
    code, printed = one.process.returncode, Path(one.output.name)
    if one.step.is_scores and code in (0, 1):  # 1: done, with gaps that the scores tell
        body = _json(printed)
        if body is not None:
            write_whole(one.step.makes, json.dumps(body))
    if one.step.makes.exists():
        return
    log = out / "logs" / f"{one.step.name.replace(' ', '-')}.log"
    lines = log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
    raise FactoryError(
        f"{one.step.name} ended with exit code {code} and without {one.step.makes}; its log {log} ends:\n"
        + "\n".join(lines)
        + "\nThe command was: factory "
        + " ".join(one.step.words)
        + "\nWhat is done stays: run the same command again"
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
