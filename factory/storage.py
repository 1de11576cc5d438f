"""Where a run may lie, and what is done differently on a local folder and on an object store.

The seam below journal, store, committer and tables: whole files, files that are created only if absent, finished
folders, Parquet files to read. Invariant: on both, what one of these functions has written is there whole or not at
all, and is durable when it returns. A local path is a plain ``Path``, and takes the way that it took before there was
another.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from factory.faults import Point, reach
from factory.objects import ObjectPath, RangeReader
from schemas.errors import ConfigError, StorageError

AnyPath = Path | ObjectPath
LAST: Final = "manifest.json"  # of a folder of tables: written last, so that it says that the rest is there


def parse_path(text: str) -> AnyPath:
    """Return the path that a user gave.

    Raises:
        ConfigError: If it is on an object store, and no path there.
    """
    if "://" in text:
        return ObjectPath.parse(text)
    return Path(os.path.normpath(text))  # `a/../b` is b, whether or not there is an a


def path_for_roles(path: AnyPath) -> AnyPath:
    """Return the path of a run as its processes need it: they have other working directories, and wait for a store."""
    return path.resolve() if isinstance(path, Path) else replace(path, is_patient=True)


def find_files(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """Return what matches below a folder, by name."""
    found: list[AnyPath] = [*folder.glob(pattern)]
    return sorted(found, key=str)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that names created or renamed in it survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: AnyPath, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder.

    An object is written so by its store.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        reach(Point.FILE_WRITTEN)
        os.fsync(file.fileno())
        reach(Point.FILE_SYNCED)
    temporary.rename(path)
    reach(Point.FILE_RENAMED)
    sync_folder(path.parent)
    reach(Point.FILE_FOLDER_SYNCED)


def create_manifest(path: AnyPath, data: bytes) -> None:
    """Write a manifest as ``write_atomically`` does, if its name is not taken.

    Raises:
        FileExistsError: If it is.
    """
    if isinstance(path, ObjectPath):
        path.create(data)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    reach(Point.MANIFEST_WRITTEN)
    try:
        os.link(temporary, path)  # fails if the name is there: create-only-if-absent
    finally:
        temporary.unlink(missing_ok=True)
    reach(Point.MANIFEST_LINKED)
    sync_folder(path.parent)
    reach(Point.MANIFEST_FOLDER_SYNCED)


def parquet_source(path: AnyPath) -> Any:
    """Return what pyarrow reads a Parquet file from; of an object it reads the ranges that it needs."""
    return path if isinstance(path, Path) else pa.PythonFile(RangeReader(path), mode="r")


def parquet_batches(path: AnyPath, columns: Sequence[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield columns of a Parquet file in batches of at most so many rows; memory does not grow with the file.

    Row group by row group: a reader over all of them at once keeps about 25 bytes of each row that it has read (pyarrow
    26.0.1, light columns of candidates).
    """
    with pq.ParquetFile(parquet_source(path)) as file:
        for number in range(file.num_row_groups):
            yield from file.iter_batches(num_rows, row_groups=[number], columns=list(columns))


def replace_folder(built: Path, folder: ObjectPath) -> None:
    """Put a finished local folder in the place of one on an object store.

    Objects are replaced one by one: in between, the one that says that the others are there is not.
    """
    old = [name for name in folder.sizes() if name != LAST]
    (folder / LAST).unlink()
    folder.delete_all(old)
    files = sorted(path for path in built.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path == built / LAST):
        target = folder
        for name in path.relative_to(built).parts:
            target /= name
        with path.open("rb") as file:
            target.upload(file)


def log_folder(path: AnyPath) -> Path:
    """Return where the engines of a run write what they print; always a local folder."""
    if isinstance(path, Path):
        return path / "logs"
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"factory-{os.getuid()}" / f"{path.name}-{digest}"


def require_storage(path: AnyPath) -> None:
    """Check that a run can lie there: the store answers, lets us in, and creates an object only if it is absent.

    Raises:
        ConfigError: If not; says what to do.
    """
    if isinstance(path, Path):
        return
    probe = replace(path, is_patient=False) / f"probe-{secrets.token_hex(8)}"
    try:
        _try_twice(probe)
    except StorageError as error:
        raise ConfigError(f"--run {error}; nothing was started") from error


def _try_twice(probe: ObjectPath) -> None:
    probe.create(b"", owner="first")
    try:
        probe.create(b"", owner="second")
    except FileExistsError:
        return
    finally:
        probe.unlink()
    raise ConfigError(
        f"--run {probe.parent}: this store writes over an object that was to be created only if absent (If-None-Match: "
        "* of PutObject), so two processes could write one manifest; use a store, or a version of it, that heeds it"
    )
