"""Fault points: where a drill has a process kill itself in the middle of a step that must survive it.

The environment variable ``FACTORY_FAULTS`` names a folder; a file in it, named ROLE.POINT, arms a point. The first
process of that role that reaches it, for the n-th time if the file holds a number, renames the file and ends itself
with SIGKILL: so each file kills one process, once. Points may be armed while a run goes on. Without the variable a
point costs a look at a global, and nothing here ever catches, delays or repairs anything.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError

VARIABLE: Final = "FACTORY_FAULTS"
HIT_SUFFIX: Final = ".hit"  # of a file whose point was reached


class Role(StrEnum):
    """Processes that can be told to die."""

    DRIVER = "driver"
    COMMITTER = "committer"
    ENGINE = "engine"


class Point(StrEnum):
    """Steps of the journal and of the commit protocol; a process dies right after the step. Closed list."""

    SEGMENT_CREATED = "segment_created"  # with its header, synced
    TRACE_APPENDED = "trace_appended"  # in memory only
    FRAMES_WRITTEN = "frames_written"  # not yet synced
    FRAMES_SYNCED = "frames_synced"
    SEGMENT_CLOSED = "segment_closed"
    COMMIT_BEGUN = "commit_begun"
    FILE_WRITTEN = "file_written"  # a shard or run.yaml, under its temporary name
    FILE_SYNCED = "file_synced"
    FILE_RENAMED = "file_renamed"
    FILE_FOLDER_SYNCED = "file_folder_synced"
    MANIFEST_WRITTEN = "manifest_written"  # and synced, under its temporary name
    MANIFEST_LINKED = "manifest_linked"
    MANIFEST_FOLDER_SYNCED = "manifest_folder_synced"
    SEGMENT_DELETED = "segment_deleted"  # the first of a commit


_FILE: Final = (Point.FILE_WRITTEN, Point.FILE_SYNCED, Point.FILE_RENAMED, Point.FILE_FOLDER_SYNCED)
_MANIFEST: Final = (Point.MANIFEST_WRITTEN, Point.MANIFEST_LINKED, Point.MANIFEST_FOLDER_SYNCED)
POINTS: Final[dict[Role, tuple[Point, ...]]] = {
    # Before and after its run.yaml and its claim appear; the steps between are the committer's too.
    Role.DRIVER: (Point.FILE_SYNCED, Point.FILE_RENAMED, Point.MANIFEST_WRITTEN, Point.MANIFEST_LINKED),
    Role.COMMITTER: (Point.COMMIT_BEGUN, *_FILE, *_MANIFEST, Point.SEGMENT_DELETED),
    Role.ENGINE: (
        Point.SEGMENT_CREATED,
        Point.TRACE_APPENDED,
        Point.FRAMES_WRITTEN,
        Point.FRAMES_SYNCED,
        Point.SEGMENT_CLOSED,
    ),
}
NAMES: Final = tuple(f"{role}.{point}" for role, points in POINTS.items() for point in points)


@dataclass(slots=True)
class _Watch:
    role: Role
    folder: Path
    reached: Counter[Path] = field(default_factory=Counter)  # by armed file, since this process first saw it

    def reach(self, point: Point) -> None:
        armed = self.folder / f"{self.role}.{point}"
        try:
            nth = int(armed.read_text() or 1)
        except FileNotFoundError:
            self.reached.pop(armed, None)
            return
        self.reached[armed] += 1
        if self.reached[armed] < nth:
            return
        try:
            armed.rename(hit_file(armed))
        except FileNotFoundError:  # another process took it
            return
        os.kill(os.getpid(), signal.SIGKILL)


_watch: _Watch | None = None  # of this process


def begin(role: Role) -> None:
    """Say which role this process has; from now on it dies where it is told to.

    Raises:
        ConfigError: If the folder arms a point that there is not.
    """
    global _watch
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    if not Path(folder).is_dir():
        raise ConfigError(f"{VARIABLE}={folder}: no such folder; make it, or unset the variable")
    for path in Path(folder).iterdir():
        if path.suffix != HIT_SUFFIX and path.name not in NAMES:
            raise ConfigError(f"{path}: arms no known point; there are: {', '.join(NAMES)}")
    _watch = _Watch(role, Path(folder))


def reach(point: Point) -> None:
    """Die here, if that is wanted."""
    if _watch is not None:
        _watch.reach(point)


def arm(folder: Path, name: str, nth: int = 1) -> Path:
    """Have the first process die that reaches the point ``name`` for the n-th time; return the file that says so.

    Raises:
        ValueError: If there is no such point.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is no point; there are: {', '.join(NAMES)}")
    path, aside = folder / name, folder / f"{name}.new{HIT_SUFFIX}"
    hit_file(path).unlink(missing_ok=True)
    aside.write_text(str(nth))
    aside.rename(path)  # whole at once: processes look at any moment
    return path


def hit_file(armed: Path) -> Path:
    """Return the name that an armed file gets when its point is reached."""
    return armed.with_name(armed.name + HIT_SUFFIX)
