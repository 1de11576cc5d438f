"""The teacher's model folder on an engine's own node: there, the right one, and copied to a local disk where asked for.

Comes before an engine loads. Invariant: a copy appears whole under a name that holds its hash, so what is there by that
name is the model, checked at each use; of several engines on a node one copies, the others wait for it. The hash is the
one of the fingerprint (sizes, and samples of the weights): a node that has another model under the same path would mix
two teachers in one run. Never deletes a copy that is whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from factory.storage import sync_folder
from factory.teachers import hash_model_folder
from schemas.config import Teacher, VllmTeacher
from schemas.errors import NodeError

SPARE_BYTES: Final = 1 << 30  # that a copy leaves free on the disk: other things live there, too; guess


def ready_teacher(teacher: Teacher, revision: str) -> Teacher:
    """Return the teacher as this node can load it; ``revision`` is the hash that its model folder has to have.

    Raises:
        NodeError: If the folder is not here or is another one, or cannot be copied.
    """
    if not isinstance(teacher, VllmTeacher) or not teacher.model.startswith("/"):  # a name of the Hub
        return teacher
    folder = Path(teacher.model)
    if teacher.stage_to is not None:
        folder = stage(folder, Path(teacher.stage_to), revision)
    else:
        _check(folder, revision)
    return teacher.model_copy(update={"model": str(folder)})


def stage(source: Path, disk: Path, revision: str) -> Path:
    """Return the copy of a model folder on this node's disk; make it, unless it is there.

    Raises:
        NodeError: If it cannot be made.
    """
    copy = disk / f"{source.name}-{revision}"
    try:
        disk.mkdir(parents=True, exist_ok=True)
        with _lock(disk / f".{copy.name}.lock"):
            if not _is_right(copy, revision):
                _check(source, revision)
                _copy(source, copy, revision)
    except OSError as error:
        raise NodeError(
            f"node {socket.gethostname()}: {source} cannot be copied to {copy} (teacher.stage_to): {error}; mend it, "
            "or stage to another folder"
        ) from error
    return copy


def _copy(source: Path, copy: Path, revision: str) -> None:
    """Copy a folder aside, then rename it whole; this process holds the lock."""
    for left in (copy, *copy.parent.glob(f".{copy.name}.*.tmp")):  # damaged, or of a copier that was killed
        shutil.rmtree(left, ignore_errors=True)
    sizes = _sizes(source)
    needed, free = sum(sizes.values()), shutil.disk_usage(copy.parent).free
    if needed + SPARE_BYTES > free:
        raise NodeError(
            f"node {socket.gethostname()}: {copy.parent} (teacher.stage_to) has {free:,} bytes free, and {source} "
            f"needs {needed:,} beside a spare of {SPARE_BYTES:,}; make room, or stage to another folder"
        )
    aside = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
    shutil.copytree(source, aside)  # what links point to, not the links: a cache of the Hub is made of them
    for path in aside.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if _sizes(aside) != sizes or not _is_right(aside, revision):
        raise NodeError(f"node {socket.gethostname()}: {source} changed while it was copied to {copy}; run again")
    aside.rename(copy)
    sync_folder(copy.parent)


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _is_right(folder: Path, revision: str) -> bool:
    return folder.is_dir() and hash_model_folder(folder) == revision


def _check(folder: Path, revision: str) -> None:
    """Check that the model is on this node.

    Raises:
        NodeError: If not; says what to do.
    """
    where = f"node {socket.gethostname()}: teacher.model={str(folder)!r}"
    if not folder.is_dir():
        raise NodeError(
            f"{where} is no folder there; put it on storage that all nodes share, or copy it to the same path on each "
            "(teacher.stage_to copies from shared storage to local disks)"
        )
    if (found := hash_model_folder(folder)) != revision:
        raise NodeError(
            f"{where} holds another model there (hash {found}) than where the job was started ({revision}); make them "
            "the same, or take the node out"
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
