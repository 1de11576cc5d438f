"""Reads a published version as anybody would, with ``load_dataset`` and an empty cache, and digests its rows.

``read_back`` starts a process for it: caches of `huggingface_hub` and `datasets` are where the environment said when
they were imported. The child streams, so that a version of any size needs no disk; it ends with its parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from factory.rowdigest import RowDigest

BATCH_ROWS: Final = 256


class Rows(NamedTuple):
    """What a split holds."""

    rows: int
    rows_sha256: str


def read_back(
    repo: str, revision: str, configs: Iterable[str], token: str | None
) -> Mapping[str, Mapping[str, Rows]] | str:
    """Return rows and digest of every split of every table, or the last words of the process where it failed."""
    asked = json.dumps([repo, revision, list(configs)])
    with TemporaryDirectory(prefix="factory-readback-") as home:
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN", "HF_DATASETS_OFFLINE"):
            environment.pop(name, None)
        if token is not None:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-m", "factory.readback", asked]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        ) as child:
            try:
                out, err = _drain(child)
            finally:
                child.kill()
    if child.returncode != 0 or not out:
        return err.strip()[-1000:] or f"exit code {child.returncode}"
    found = json.loads(out)
    return {name: {split: Rows(*rows) for split, rows in splits.items()} for name, splits in found.items()}


def _drain(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what the child wrote. Its stdin stays open: that is how it knows that we live."""
    assert child.stdout is not None
    assert child.stderr is not None
    errors: list[str] = []
    stderr = child.stderr
    thread = threading.Thread(target=lambda: errors.append(stderr.read()))
    thread.start()
    out = child.stdout.read()
    thread.join()
    child.wait()
    return out, "".join(errors)


def _read(repo: str, revision: str, configs: Iterable[str]) -> dict[str, dict[str, Rows]]:
    from datasets import load_dataset

    found: dict[str, dict[str, Rows]] = {}
    for config in configs:
        splits: Mapping[str, Any] = load_dataset(repo, config, revision=revision, streaming=True)
        found[config] = {}
        for split, rows in splits.items():
            digest, count = RowDigest(), 0
            if rows.features is not None:  # a table without rows has a digest, too
                digest.update(rows.features.arrow_schema.empty_table())
            for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
                digest.update(table)
                count += table.num_rows
            found[config][str(split)] = Rows(count, digest.hexdigest())
    return found


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout.write(json.dumps(_read(*json.loads(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # datasets prints an ignored exception at exit after streaming Parquet
