"""Which tables are published: a selection of a run as it is committed now, in a local folder.

Tables that are older than what the run has committed are built again, so that publishing while a run goes on publishes
what there is by then, and publishing after its end all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from factory.build import build_tables
from factory.publish_plan import MANIFEST, read_manifest
from factory.storage import AnyPath, log_folder
from factory.store import RunFolder
from schemas.config import SelectConfig
from schemas.errors import ConfigError
from schemas.manifest import Manifest


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
    if not is_current(tables, run):
        say("the run has committed more since its tables were built; building them again")
        build_tables(path, SelectConfig(**tables["selection"]))
        local = folder if isinstance(folder, Path) else _copy(folder, work / selection)
    return local


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
