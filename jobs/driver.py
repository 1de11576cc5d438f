"""The driver of runs: freezes their problems and has every attempt made and judged, over one set of engines.

Holds no state that matters: all of it is in the runs' folders, and the same command goes on after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from factory import faults
from factory.actors import RunSpec
from factory.committer import Committer
from factory.plan import Plan, check_agreement
from factory.storage import AnyPath, path_for_roles
from factory.store import RunFolder, lock_run
from jobs.cluster import local_ray
from jobs.engines import Engines
from jobs.freezing import Warn, freeze, signer, verdicts_digest, versions_now, write_run_yaml
from jobs.meters import Gauges
from jobs.queue import Queue
from jobs.signals import termination_interrupts
from jobs.supervisor import Supervisor, Watch
from schemas.config import parse_config
from schemas.errors import ConfigError, FactoryError, FingerprintError, SourceError, StoreError

Ended = Callable[[int, FactoryError | None], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A job to do in a folder. ``watch`` is called a few times a second with where it stands."""

    plan: Plan
    path: AnyPath
    watch: Watch


def run_job(plan: Plan, path: AnyPath, *, address: str | None, watch: Watch, warn: Warn) -> None:
    """Do or resume a run up to its last verdict; a run that has it already starts nothing.

    ``watch`` is called a few times a second; ``warn`` with what the user should know, though the run goes on.

    Raises:
        FactoryError: If the run cannot go on; what was journaled is safe.
        InterruptedRun: If the user pressed Ctrl-C, SIGTERM came, ``schedule.time_limit_s`` is near, or
            ``schedule.budget`` spent.
    """
    (error,) = run_jobs([Job(plan, path, watch)], address=address, warn=warn)
    if error is not None:
        raise error


def run_jobs(
    jobs: Sequence[Job], *, address: str | None, warn: Warn, ended: Ended = lambda _number, _error: None
) -> list[FactoryError | None]:
    """Do or resume several runs over one set of engines; return why each did not end well, None where it did.

    Engines make attempts of a job only where those before it leave them room. ``ended`` is called with a job's number
    and its error once it has ended, and its folder is free, while the others go on.

    Raises:
        ConfigError: If the jobs cannot share engines, or a folder: nothing was started.
        RunLockedError, FingerprintError: If a folder is another's: nothing was started.
    """
    began_at = time.monotonic()
    faults.begin(faults.Role.DRIVER)
    check_agreement([job.plan for job in jobs])
    paths = [path_for_roles(job.path) for job in jobs]
    check_folders(paths)
    errors: list[FactoryError | None] = [None] * len(jobs)
    with ExitStack() as all_locks:
        locks = [all_locks.enter_context(ExitStack()) for _ in jobs]
        for lock, path in zip(locks, paths, strict=True):
            lock.enter_context(lock_run(path))

        def end(number: int, error: FactoryError | None) -> None:
            errors[number] = error
            locks[number].close()
            ended(number, error)

        todo: list[int] = []
        for number, (job, path) in enumerate(zip(jobs, paths, strict=True)):
            try:
                has_work = _begin(job.plan, path, warn, address)
            except (SourceError, StoreError, OSError) as error:
                if len(jobs) == 1 or isinstance(error, FingerprintError):
                    raise
                warn(f"{path}: {error}\nthe other jobs go on")
                end(number, error if isinstance(error, FactoryError) else StoreError(str(error)))
                continue
            if has_work:
                todo.append(number)
            else:
                end(number, None)
        if todo:
            works = [
                _Work(_spec(jobs[number].plan, paths[number]), jobs[number].plan, jobs[number].watch) for number in todo
            ]
            _supervise(works, address, warn, began_at, lambda place, error: end(todo[place], error))
    return errors


def _begin(plan: Plan, path: AnyPath, warn: Warn, address: str | None) -> bool:
    """Freeze a job's problems; return whether anything is left to do."""
    freeze(plan, path, warn, signer(address))
    for leftover in (*path.glob(".run.yaml.*.tmp"), *(path / "manifest").glob(".newest.*.tmp")):
        leftover.unlink(missing_ok=True)  # of a start that was killed; the committer sees to all others
    return _has_work(path)


def check_folders(paths: Sequence[AnyPath]) -> None:
    """Check that no two jobs have one folder.

    Raises:
        ConfigError: If two have.
    """
    names = [str(path.absolute()) if isinstance(path, Path) else str(path) for path in paths]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(
                f"jobs {names.index(name) + 1} and {number + 1} have one run folder, {paths[number]}: give each its "
                "own `name`, or a folder by --run"
            )


def _spec(plan: Plan, path: AnyPath) -> RunSpec:
    return RunSpec(path=path, job=plan.job, fingerprint=plan.fingerprint)


def verify_run(path: AnyPath, *, address: str | None, watch: Watch, warn: Warn) -> None:
    """Judge the stored traces that the verifiers of today have not judged.

    Raises:
        FactoryError: As ``run_job``.
    """
    began_at = time.monotonic()
    faults.begin(faults.Role.DRIVER)
    path = path_for_roles(path)
    manifest = RunFolder(path).manifest()
    job = parse_config(manifest.config, origin=str(RunFolder(path).manifest_path(manifest.number)))
    spec = RunSpec(path=path, job=job, fingerprint=manifest.fingerprint)
    with lock_run(path):
        Committer(path, verifiers=verdicts_digest(job))
        write_run_yaml(RunFolder(path).run_yaml() | versions_now(), path)
        if _has_work(path):
            errors: list[FactoryError | None] = []
            _supervise([_Work(spec, None, watch)], address, warn, began_at, lambda _, error: errors.append(error))
            if errors[0] is not None:
                raise errors[0]


def _has_work(path: AnyPath) -> bool:
    """Return whether anything is left to do: the committer has just counted."""
    folder = RunFolder(path)
    return bool(folder.manifest().counts.pending or folder.leftover_segments())


@dataclass(frozen=True, slots=True)
class _Work:
    """A run on which something is left to do; without a plan nothing is generated."""

    spec: RunSpec
    plan: Plan | None
    watch: Watch


def _supervise(works: Sequence[_Work], address: str | None, warn: Warn, began_at: float, ended: Ended) -> None:
    """Start the roles of all runs, and work on them until they have ended."""
    plans = [work.plan for work in works if work.plan is not None]
    with local_ray(address), termination_interrupts() as notice:  # in that order: Ray takes SIGTERM for itself
        engines = Engines(plans[0].teacher if plans else None, [plan.job.sampling for plan in plans], warn)
        gauges: Gauges = {}
        runs = [
            Supervisor(work.spec, work.plan, engines, gauges, work.watch, warn, order)
            for order, work in enumerate(works)
        ]
        Queue(runs, engines, lambda run: ended(run.order, run.error)).work(notice, began_at)
