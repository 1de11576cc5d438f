"""What a run begins with: its problems read, cleaned, rendered and frozen, and run.yaml, which says what it is.

Comes before any role is started; on a run that is there it only extends. Holds nothing: what was frozen is in the
manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Final

import pyarrow as pa
import yaml

import verifiers
from factory.actors import sign_over_ray
from factory.clean import CLEANED, make_cleaner
from factory.committer import Committer, FrozenJob
from factory.duplicates import Sign, sign_here
from factory.plan import Plan, versions
from factory.shingles import Signatures
from factory.sources import load_problems, sources_state
from factory.state import FrozenProblems
from factory.storage import AnyPath, write_atomically
from factory.store import RunFolder, check_fingerprint
from jobs.cluster import local_ray
from schemas.config import JobConfig
from schemas.errors import SourceError
from schemas.manifest import Manifest
from schemas.problem import Problem, Prompt, Quarantined, QuarantineReason

SIGNED_HERE: Final = 64  # batches of problems that this process signs by itself: a million, half a minute

Warn = Callable[[str], None]


def signer(address: str | None, num_here: int = SIGNED_HERE) -> Sign:
    """Return what signs problems: this process the first batches, and Ray the rest, where there are more."""

    def sign_batches(batches: Iterator[pa.LargeStringArray]) -> Iterator[Signatures]:
        yield from sign_here(islice(batches, num_here))
        first = next(batches, None)
        if first is not None:
            with local_ray(address):
                yield from sign_over_ray(chain([first], batches))

    return sign_batches


def freeze(plan: Plan, path: AnyPath, warn: Warn, sign_batches: Sign = sign_here) -> None:
    """Create the run or check that it is this job's; freeze its problems, unless the sources are as they were read.

    Raises:
        FingerprintError: If the folder holds a run of another fingerprint.
    """
    folder = RunFolder(path)
    manifest = folder.find_manifest()
    if manifest is not None:
        check_fingerprint(folder, plan.fingerprint, plan.fingerprint_parts)
    cleaner = make_cleaner(plan.job.schedule.clean)
    job = FrozenJob(
        fingerprint=plan.fingerprint,
        config=plan.job.model_dump(mode="json"),
        sources_state=sources_state(plan.job.sources, cleaner),
        num_samples=plan.job.sampling.num_samples,
    )
    pairs: list[tuple[Problem, Prompt]] = []
    quarantined: list[Quarantined] = []
    record = None if manifest is None else folder.run_yaml().get("clean")
    if manifest is None or _asks_for_others(manifest, job):
        try:
            loaded = load_problems(
                plan.job.sources,
                max_problems=plan.job.schedule.max_problems,
                cleaner=cleaner,
                sign_batches=sign_batches,
            )
        except SourceError as error:
            if manifest is None or _has_other_sources(manifest, job):
                raise
            warn(f"the sources cannot be read any more, going on with the problems that the run holds: {error}")
            job = replace(job, sources_state=manifest.sources_state)
        else:
            record = cleaner.record()
            if manifest is not None:
                _warn_of_held(folder, manifest, loaded.quarantined, warn)
            pairs, refused = _render_all(plan, loaded.problems)
            quarantined = [*loaded.quarantined, *refused]
            if plan.recording is not None:
                ids = [problem.problem_id for problem, _ in pairs]
                for line in plan.recording.findings(ids, plan.job.sampling.num_samples):
                    warn(line)
    if manifest is None:
        write_run_yaml(run_yaml(plan, record), path)  # before the manifest, which makes it a run that needs one
    Committer(path, verifiers=verdicts_digest(plan.job)).freeze(job, pairs, quarantined)
    write_run_yaml(run_yaml(plan, record), path)


def _warn_of_held(folder: RunFolder, manifest: Manifest, quarantined: Sequence[Quarantined], warn: Warn) -> None:
    """Say which problems the run holds from before, though they would be kept aside today: a run only grows."""
    held = set(FrozenProblems.load(folder, manifest).ids.to_pylist())
    for reason, count in Counter(row.reason for row in quarantined if row.problem_id in held).items():
        if reason in CLEANED:
            warn(
                f"{count} problems that the run holds from before would be kept aside today ({reason}): a run only "
                "grows; give a new folder by --run to do without them"
            )


def verdicts_digest(job: JobConfig) -> str:
    """Return the name of the verdicts that the verifiers of today give with the job's settings."""
    return verifiers.versions_digest(job.verify.readability.settings())


def _asks_for_others(manifest: Manifest, job: FrozenJob) -> bool:
    """Return whether the job may have other problems than the run, so that its sources have to be read again."""
    return manifest.sources_state != job.sources_state or _has_other_sources(manifest, job)


def _has_other_sources(manifest: Manifest, job: FrozenJob) -> bool:
    then, now = manifest.config, job.config
    most_then, most_now = then["schedule"]["max_problems"], now["schedule"]["max_problems"]
    return bool(then["sources"] != now["sources"] or most_then != most_now)


def _render_all(plan: Plan, problems: Iterable[Problem]) -> tuple[list[tuple[Problem, Prompt]], list[Quarantined]]:
    """Return the problems with their prompts, and those that a template refuses: they never stop a job."""
    pairs: list[tuple[Problem, Prompt]] = []
    refused: list[Quarantined] = []
    for problem in problems:
        try:
            pairs.append((problem, plan.renderer.render(problem)))
        except ValueError as error:
            refused.append(
                Quarantined(
                    source=problem.source,
                    row=int(problem.source_row_id) if problem.source_row_id.isdecimal() else 0,
                    reason=QuarantineReason.UNRENDERABLE,
                    detail=str(error),
                    raw=problem.question[:2000],
                    problem_id=problem.problem_id,
                )
            )
    if not pairs:
        raise SourceError(f"no problem can be rendered as a prompt; the first: {refused[0].detail}")
    return pairs, refused


def run_yaml(plan: Plan, cleaning: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what run.yaml says of a run; ``cleaning`` is what its problems were cleaned of."""
    return {
        "fingerprint": plan.fingerprint,
        "fingerprint_parts": plan.fingerprint_parts,
        "tokenizer_sha256": plan.renderer.tokenizer.sha256,
        "job": plan.job.model_dump(mode="json"),
        "clean": cleaning,
        **versions_now(),
    }


def versions_now() -> dict[str, Any]:
    return {"versions": versions(), "verifiers": verifiers.verifier_versions()}


def write_run_yaml(body: dict[str, Any], path: AnyPath) -> None:
    write_atomically(path / "run.yaml", yaml.safe_dump(body, sort_keys=False, allow_unicode=True).encode())
