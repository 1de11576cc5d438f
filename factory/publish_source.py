"""Which tables are published: a selection of a run as it is committed now, in a local folder.

Tables that are older than what the run has committed are built again, so that publishing while a run goes on publishes
what there is by then, and publishing after its end all of it. What is sent is a snapshot: a run that ends, or `factory
select`, puts new tables under the same names at any moment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from factory.build import build_tables
from factory.publish_plan import MANIFEST, read_manifest
from factory.storage import AnyPath, log_folder
from factory.store import RunFolder
from schemas.config import SelectConfig
from schemas.errors import ConfigError, PartialError
from schemas.manifest import Manifest

COUNTS: Final = ("traces", "waiting", "judged", "unjudged")  # what says whether tables are current


def journal_folder(path: AnyPath, repo: str) -> Path:
    """Return where the journal of publishing a run to a repository lies; always a local folder."""
    root = path if isinstance(path, Path) else log_folder(path)
    return root / "publish" / repo.replace("/", "--")


def current_tables(path: AnyPath, selection: str, work: Path, say: Callable[[str], None]) -> Path:
    """Return a local folder with the tables of a selection; those of a run on an object store are copied to ``work``.

    Raises:
        ConfigError: If there is no such selection.
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
    tables = read_manifest(local)
    _require_origin(tables, folder)
    if not is_current(tables, run):
        say("the run has committed more since its tables were built; building them again")
        build_tables(path, SelectConfig(**tables["selection"]))
        local = folder if isinstance(folder, Path) else _copy(folder, work / selection)
    return local


def _require_origin(tables: Mapping[str, Any], folder: AnyPath) -> None:
    """Check that a manifest says what its tables were made from.

    Raises:
        ConfigError: If it does not: it was changed.
    """
    counts = tables.get("counts")
    missing = [key for key in ("selection", "fingerprint", "verdict_digest", "counts") if key not in tables]
    missing += [f"counts.{key}" for key in COUNTS if not isinstance(counts, Mapping) or key not in counts]
    if missing:
        raise ConfigError(f"{folder / MANIFEST}: lacks {', '.join(missing)}; run `factory select` again")


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


def is_current(tables: Mapping[str, Any], run: Manifest) -> bool:
    """Return whether tables hold all that a run has committed."""
    counts = tables["counts"]
    num_traces = sum(shard.rows for shard in run.traces)
    origin = (tables["fingerprint"], tables["verdict_digest"]) == (run.fingerprint, run.verifiers)
    is_judged = (
        not counts["waiting"] or counts["judged"] + counts["unjudged"] >= run.counts.judged + run.counts.unjudged
    )
    return origin and counts["traces"] == num_traces and is_judged


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
