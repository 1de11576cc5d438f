"""Which tables are published: a selection of a run as it is committed now, in a local folder.

Tables that were not built from exactly what the run holds now (problems with their references, traces, verdicts, job),
or not by today's rules of selection, are built again. So publishing while a run goes on publishes what there is by
then, publishing after its end all of it, and a repaired reference leaves no old verdict in any selection. What is sent
is a snapshot: a run that ends, or `factory select`, puts new tables under the same names at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from factory.build import build_tables, state_of
from factory.publish_plan import MANIFEST, read_manifest
from factory.selection import selection_digest
from factory.storage import AnyPath, log_folder
from factory.store import RunFolder
from factory.tables import Origin, read_origin
from schemas.config import SelectConfig, parse_select
from schemas.errors import ConfigError, PartialError
from schemas.manifest import Manifest


def journal_folder(path: AnyPath, repo: str) -> Path:
    """Return where the journal of publishing a run to a repository lies; always a local folder."""
    root = path if isinstance(path, Path) else log_folder(path)
    return root / "publish" / repo.replace("/", "--")


def current_tables(path: AnyPath, selection: str, work: Path, say: Callable[[str], None]) -> Path:
    """Return a local folder with the tables of a selection; those of a run on an object store are copied to ``work``.

    Raises:
        ConfigError: If there is no such selection, or its manifest does not say how it was selected.
    """
    run = RunFolder(path).manifest()
    folder = path / "tables" / selection
    if not (folder / MANIFEST).exists():
        if selection != run.config["select"]["name"]:
            raise ConfigError(
                f"{folder}: there is no such selection; `factory select {path} --set select.name={selection}`"
            )
        say("the run has no tables yet; building them from what is committed")
        build_tables(path)
    local = folder if isinstance(folder, Path) else _copy(folder, work / selection)
    config = _selection(read_manifest(local), folder)
    if not is_current(path, config, local, run):
        say("the tables were not built from what the run holds now; building them again")
        build_tables(path, config)
        local = folder if isinstance(folder, Path) else _copy(folder, work / selection)
    return local


def _selection(tables: Mapping[str, Any], folder: AnyPath) -> SelectConfig:
    """Return the config that tables say they were made by, under the name of the folder where they lie.

    Raises:
        ConfigError: If they say none, or none that can be: the manifest was changed.
    """
    found = tables.get("selection")
    if not isinstance(found, Mapping):
        raise ConfigError(f"{folder / MANIFEST}: lacks selection; run `factory select` again")
    return parse_select({**found, "name": folder.name}, origin=f"{folder / MANIFEST}: selection")


@contextmanager
def snapshot(folder: Path, beside: Path) -> Iterator[Path]:
    """Yield a copy of a selection's folder, in a folder of ``beside``, that goes when the block ends.

    Files are hard links where the file system has them, so it costs no bytes; tables are replaced, never written into.

    Raises:
        PartialError: If the tables are replaced at this moment.
    """
    beside.mkdir(parents=True, exist_ok=True)
    for left in beside.glob("snapshot-*"):
        if not _lives(left.name.split("-")[1]):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    with TemporaryDirectory(prefix=f"snapshot-{os.getpid()}-", dir=beside) as target:
        copy = Path(target) / folder.name
        try:
            _link(folder / MANIFEST, copy / MANIFEST)
        except FileNotFoundError as error:
            raise _replaced(folder) from error
        for shard in read_manifest(copy)["files"]:
            with suppress(FileNotFoundError):  # the plan names it, if the tables are still these
                _link(folder / shard["name"], copy / shard["name"])
        yield copy


def require_same(folder: AnyPath, copy: Path) -> None:
    """Check that a selection's folder holds the tables that a snapshot has: what was read from it since is of them.

    Raises:
        PartialError: If it does not.
    """
    try:
        is_same = (folder / MANIFEST).read_bytes() == (copy / MANIFEST).read_bytes()
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise _replaced(folder)


def _replaced(folder: AnyPath) -> PartialError:
    return PartialError(f"{folder}: the tables were replaced meanwhile; nothing was sent: run the same command again")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or a file of somebody else
        shutil.copyfile(source, target)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        pass
    return True


def is_current(path: AnyPath, config: SelectConfig, local: Path, run: Manifest) -> bool:
    """Return whether the tables in ``local`` are those that would be built now, of that state of the run.

    Tables of which nobody noted what they were built from (they are older than that note) are not.
    """
    body = (local / MANIFEST).read_bytes()
    expected = Origin(hashlib.sha256(body).hexdigest(), state_of(RunFolder(path), run))
    rules = selection_digest(config, {"verdicts": run.verifiers})
    return read_origin(path / "tables", config.name) == expected and json.loads(body)["selection_digest"] == rules


def _copy(folder: Any, target: Path) -> Path:
    for name in folder.sizes():
        source = folder
        for part in name.split("/"):
            source /= part
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file, (target / name).open("wb") as copy:
            while data := file.read(8 * 2**20):
                copy.write(data)
    return target
