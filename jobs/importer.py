"""What `factory import` does before traces are judged: freezes the problems of a published set and stores its traces.

Holds nothing: what is frozen and stored is in the run's folder, and the same command goes on after a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from factory import faults, importing
from factory.clean import make_cleaner
from factory.committer import Committer
from factory.importing import Reader, Watch
from factory.plan import Plan
from factory.state import ENDED
from factory.storage import AnyPath, path_for_roles
from factory.store import RunFolder, check_fingerprint, lock_run
from factory.tracesets import TRACE_SETS
from jobs.freezing import Warn, run_yaml, verdicts_digest, write_run_yaml

Counting = Callable[[str], AbstractContextManager[Watch]]


def import_run(plan: Plan, format_name: str, path: AnyPath, counting: Counting, warn: Warn) -> None:
    """Make the run, or go on with it, up to its last stored completion.

    Raises:
        FingerprintError: If the folder holds a run of other files, or with another teacher.
        SourceError: If a file cannot be read, or nothing is left of it.
        ConfigError: If the run has more attempts per problem than are asked for now.
    """
    faults.begin(faults.Role.COMMITTER)
    path = path_for_roles(path)
    reader = Reader(plan.job, TRACE_SETS[format_name])
    with lock_run(path):
        committer = _freeze(plan, reader, path, counting, warn)
        if committer.state.num_with(ENDED) < len(committer.state.flags):
            with counting("rows stored") as watch:
                stored = importing.store_attempts(reader, committer, plan, watch)
            if stored.num_left_out:
                warn(
                    f"{stored.num_left_out:,} completions beyond sampling.num_samples={committer.state.num_samples} "
                    "are left out"
                )


def _freeze(plan: Plan, reader: Reader, path: AnyPath, counting: Counting, warn: Warn) -> Committer:
    """Return the committer of the run, whose problems are frozen; a run that is there keeps those that it has."""
    folder = RunFolder(path)
    manifest = folder.find_manifest()
    cleaner = make_cleaner(plan.job.schedule.clean)
    if manifest is not None:
        check_fingerprint(folder, plan.fingerprint, plan.fingerprint_parts)
        committer = Committer(path, verifiers=verdicts_digest(plan.job))
        job = importing.frozen_job(plan, manifest.num_samples)
        committer.freeze(replace(job, sources_state=manifest.sources_state), [], [])
        return committer
    with counting("rows read") as watch:
        reading = importing.read_problems(reader, watch)
    importing.clean(reading, cleaner)
    pairs = importing.render(reading, plan)
    for reason, count in reading.reasons.most_common():
        warn(f"quarantined: {count:,} x {reason}")
    job = importing.frozen_job(plan, reading.most_attempts)
    write_run_yaml(run_yaml(plan, cleaner.record()), path)  # before the manifest, which makes it a run that needs one
    committer = Committer(path, verifiers=verdicts_digest(plan.job))
    committer.freeze(job, pairs, reading.quarantined)
    return committer
