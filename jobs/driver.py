"""The driver of a run: freezes the problems and has a supervisor make and judge every attempt.

Holds no state that matters: all of it is in the run's folder, and the same command goes on after a kill.
"""

from __future__ import annotations

import time

from factory import faults
from factory.actors import RunSpec
from factory.committer import Committer
from factory.plan import Plan
from factory.storage import AnyPath, path_for_roles
from factory.store import RunFolder, lock_run
from jobs.cluster import local_ray
from jobs.freezing import Warn, freeze, signer, verdicts_digest, versions_now, write_run_yaml
from jobs.signals import termination_interrupts
from jobs.supervisor import Supervisor, Watch
from schemas.config import parse_config


def run_job(plan: Plan, path: AnyPath, *, address: str | None, watch: Watch, warn: Warn) -> None:
    """Do or resume a run up to its last verdict; a run that has it already starts nothing.

    ``watch`` is called a few times a second; ``warn`` with what the user should know, though the run goes on.

    Raises:
        FactoryError: If the run cannot go on; what was journaled is safe.
        InterruptedRun: If the user pressed Ctrl-C, SIGTERM came, ``schedule.time_limit_s`` is near, or
            ``schedule.budget`` spent.
    """
    began_at = time.monotonic()
    faults.begin(faults.Role.DRIVER)
    path = path_for_roles(path)
    with lock_run(path):
        freeze(plan, path, warn, signer(address))
        for leftover in (*path.glob(".run.yaml.*.tmp"), *(path / "manifest").glob(".newest.*.tmp")):
            leftover.unlink(missing_ok=True)  # of a start that was killed; the committer sees to all others
        spec = RunSpec(path=path, job=plan.job, fingerprint=plan.fingerprint)
        _supervise(spec, plan, address, watch, warn, began_at)


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
        _supervise(spec, None, address, watch, warn, began_at)


def _supervise(
    spec: RunSpec, plan: Plan | None, address: str | None, watch: Watch, warn: Warn, began_at: float
) -> None:
    """Start the roles, unless nothing is left to do: the committer has just counted."""
    folder = RunFolder(spec.path)
    if folder.manifest().counts.pending or folder.leftover_segments():
        with local_ray(address), termination_interrupts() as notice:  # in that order: Ray takes SIGTERM for itself
            Supervisor(spec, plan, watch, warn, began_at).supervise(notice)
