"""Differences of two selections: which traces entered, which left, and why.

Reads two folders of tables side by side. Both are sorted by problem_id and trace_id, so they are merged as streams:
memory holds a batch of four columns of each, whatever their size. Decides nothing; knows no run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa

from factory.published import read_tables_manifest
from factory.storage import AnyPath, find_files, parquet_batches
from schemas.errors import ConfigError, StoreError

ABSENT: Final = "absent"  # the trace was not judged in that selection, or not there; of a setting: not there
ACCEPTED: Final = "accepted"
ROWS_AT_ONCE: Final = 65_536

_COLUMNS: Final = ("problem_id", "trace_id", "is_accepted", "reject_reason")
_FACTS: Final = ("fingerprint", "verdict_digest")  # of a manifest, beside the selection's settings


class Standing(NamedTuple):
    """How one judged trace stands in a selection: ``accepted``, or the reason of its rejection."""

    problem_id: str
    trace_id: str
    word: str


class Change(NamedTuple):
    """How one trace stands in two selections; ``absent`` where one has no decision on it. Unchanged ones too."""

    problem_id: str
    trace_id: str
    before: str
    after: str

    @property
    def kind(self) -> Literal["same", "entered", "left", "reworded"]:
        """What it means for the accepted rows; ``reworded`` is in neither, for different reasons."""
        if self.before == self.after:
            return "same"
        if self.after == ACCEPTED:
            return "entered"
        return "left" if self.before == ACCEPTED else "reworded"


def compare_settings(a: AnyPath, b: AnyPath) -> dict[str, tuple[Any, Any]]:
    """Return what of two selections' settings, verdicts and runs differs, by dotted key: the values of both.

    Raises:
        ConfigError: If a folder holds no selection of this version.
    """
    before, after = (_settings(folder) for folder in (a, b))
    return {
        key: (before.get(key, ABSENT), after.get(key, ABSENT))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    }


def compare(a: AnyPath, b: AnyPath) -> Iterator[Change]:
    """Yield every trace that one of two selections has decided on, by problem and trace.

    Raises:
        ConfigError: If a folder holds no selection.
        StoreError: If a table cannot be read, or is not sorted.
    """
    return merge(_standings(a, _files(a)), _standings(b, _files(b)))


def merge(a: Iterable[Standing], b: Iterable[Standing]) -> Iterator[Change]:
    """Yield the changes from one selection to another, each sorted by problem and trace."""
    olds, news = iter(a), iter(b)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[:2] < new[:2]):
            assert old is not None
            yield Change(old.problem_id, old.trace_id, old.word, ABSENT)
            old = next(olds, None)
        elif old is None or new[:2] < old[:2]:
            yield Change(new.problem_id, new.trace_id, ABSENT, new.word)
            new = next(news, None)
        else:
            yield Change(old.problem_id, old.trace_id, old.word, new.word)
            old, new = next(olds, None), next(news, None)


def _files(folder: AnyPath) -> list[AnyPath]:
    files = find_files(folder / "candidates", "train-*.parquet")
    if not files:
        raise ConfigError(
            f"{folder}: holds no candidates/train-*.parquet; give the folder of a selection, such as "
            "runs/demo/tables/default"
        )
    return files


def _standings(folder: AnyPath, files: Iterable[AnyPath]) -> Iterator[Standing]:
    last = ("", "")
    for path in files:
        try:
            for batch in parquet_batches(path, _COLUMNS, ROWS_AT_ONCE):
                for problem_id, trace_id, is_accepted, reason in zip(
                    *(batch[name].to_pylist() for name in _COLUMNS), strict=True
                ):
                    if last >= (problem_id, trace_id):
                        raise StoreError(
                            f"{path}: trace {trace_id} is not in the order of problem_id and trace_id: an older "
                            f"version wrote {folder}; run `factory select` again"
                        )
                    last = problem_id, trace_id
                    if is_accepted is not None:
                        yield Standing(problem_id, trace_id, ACCEPTED if is_accepted else reason)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise StoreError(
                f"{path}: is no readable table of candidates: {error}; run `factory select` again"
            ) from error


def _settings(folder: AnyPath) -> dict[str, Any]:
    body = read_tables_manifest(folder)
    selection = {key: value for key, value in body["selection"].items() if key != "name"}
    return dict(_flat({"select": selection} | {name: body.get(name, ABSENT) for name in _FACTS}))


def _flat(body: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a mapping of mappings by dotted key."""
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value
