"""What a dataset's card is made of: what a run and one of its selections say, read once, with its sums checked.

Between the run's folder and `card`. Invariants: all that is said of the run is what one manifest has, so that the same
commits and tables say the same while a run goes on; a sum that does not hold is an error and never a row of a card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from factory.clean import CleaningRecord, cleaning_of
from factory.measured import Measurement, read_measurements
from factory.page import unit_of
from factory.report import Status, committed_status
from factory.samples import NONE, Samples
from factory.storage import AnyPath, find_files, parquet_source
from factory.store import RunFolder
from factory.tally import COLUMNS, Tally, tally
from schemas.config import ReadabilityConfig
from schemas.errors import ConfigError, CorruptRunError, StoreError
from schemas.manifest import Manifest
from schemas.problem import digest
from schemas.readability import ReadabilitySettings
from schemas.tables import TABLES_VERSION
from schemas.verdict import Outcome

ACCEPTED_TABLES: Final = ("sft", "sft_prompt_completion")  # one row for each accepted trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a run and a selection say."""

    selection: Mapping[str, Any]  # its manifest.json
    selection_sha256: str  # of that file
    run: Mapping[str, Any]  # the row of the table ``runs``
    parts: Mapping[str, Any]  # of the run's fingerprint
    manifest: Manifest
    status: Status  # as that manifest has it: without the journal
    cleaning: CleaningRecord
    tally: Tally
    measurements: tuple[Measurement, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved job."""
        return self.manifest.config

    @property
    def counts(self) -> Mapping[str, Any]:
        """The selection's counts."""
        counts: Mapping[str, Any] = self.selection["counts"]
        return counts

    @property
    def unit(self) -> str:
        """What lengths are counted in."""
        return unit_of(self.config["teacher"])

    @property
    def verifiers(self) -> dict[str, str]:
        """The versions of the verifiers by name."""
        return {one["name"]: one["version"] for one in self.run["verifiers"]}

    @property
    def readability(self) -> ReadabilitySettings:
        """How strictly texts were read."""
        return ReadabilityConfig.model_validate(self.config["verify"].get("readability", {})).settings()

    @property
    def are_verifiers_sure(self) -> bool:
        """Whether the verdicts are of these versions: a run that was judged again may name those of its last start."""
        settings = self.readability
        of_defaults = digest(self.verifiers)
        of_settings = digest([self.verifiers, settings.digest()])
        named = of_defaults if settings == ReadabilitySettings() else of_settings
        return bool(self.selection["verdict_digest"] == named)

    @property
    def num_newer(self) -> int:
        """How many traces the run has committed since the tables were built."""
        return self.manifest.counts.generated - int(self.counts["traces"])

    def rows_of(self, config: str) -> int:
        """Return the rows of a table, all its splits together; 0 where it was not asked for."""
        splits = self.selection["configs"].get(config, {"splits": {}})["splits"]
        return sum(split["rows"] for split in splits.values())


def read_facts(path: AnyPath, selection: str) -> Facts:
    """Return what a run and a selection say.

    Raises:
        ConfigError: If the folder holds no run, or the selection's tables are not built.
        StoreError: If its tables cannot be read, or are of another version.
        CorruptRunError: If a sum does not hold.
    """
    folder = RunFolder(path)
    samples = Samples(path, selection)  # says what to do where there are no tables
    body, sha256 = _read_manifest(folder.tables / selection)
    manifest = folder.manifest()  # after the tables, of which it has all; every part of the run is read as it has it
    facts = Facts(
        selection=body,
        selection_sha256=sha256,
        run=_read_run(folder.tables / selection, body["fingerprint"]),
        parts=folder.run_yaml()["fingerprint_parts"],
        manifest=manifest,
        status=committed_status(folder, manifest, selection),
        cleaning=cleaning_of(folder, manifest),
        tally=tally(samples.batches(COLUMNS), folder.tables / selection),
        measurements=tuple(read_measurements()),
    )
    check_sums(facts)
    return facts


def _read_manifest(folder: AnyPath) -> tuple[dict[str, Any], str]:
    path = folder / "manifest.json"
    try:
        data = path.read_bytes()
        body = json.loads(data)
    except FileNotFoundError:
        raise ConfigError(f"{path}: is missing; `factory select` builds the tables again") from None
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read: {error}; run `factory select` again") from error
    version = body.get("version") if isinstance(body, dict) else None
    if version != TABLES_VERSION or not body.keys() >= _KEYS:
        raise StoreError(
            f"{path}: is of version {version}, this factory reads version {TABLES_VERSION} with "
            f"{', '.join(sorted(_KEYS))}; run `factory select` again"
        )
    return body, hashlib.sha256(data).hexdigest()


_KEYS: Final = frozenset(
    {"selection", "selection_digest", "verdict_digest", "fingerprint", "num_first", "counts", "configs", "files"}
)


def _read_run(folder: AnyPath, fingerprint: str) -> dict[str, Any]:
    for path in find_files(folder / "runs", "train-*.parquet"):
        try:
            rows: list[dict[str, Any]] = pq.ParquetFile(parquet_source(path)).read().to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: cannot be read: {error}; run `factory select` again") from error
        for row in rows:
            if row["fingerprint"] == fingerprint:
                return row
    raise StoreError(f"{folder}/runs: has no row of run {fingerprint}; run `factory select` again")


# Sums.


class Step(NamedTuple):
    """A line of the way from attempts to rows; those of level 1 are parts of the line of level 0 above them."""

    level: int
    label: str
    number: int
    reason: str = ""  # of the parts


def check_sums(facts: Facts) -> None:
    """Check that every attempt is somewhere, once, in the run, the selection, and its tables.

    Raises:
        CorruptRunError: If not; says which sum, with both sides.
    """
    facts.manifest.counts.check()
    counts, found = facts.counts, facts.tally
    rejected, outcomes = dict(counts["rejected"]), dict(counts["outcomes"])
    told = {word: count for word, count in found.outcomes.items() if word != NONE}
    sums = {
        "traces = judged + unjudged + waiting": (
            counts["traces"],
            counts["judged"] + counts["unjudged"] + counts["waiting"],
        ),
        "judged = accepted + rejected": (counts["judged"], counts["accepted"] + sum(rejected.values())),
        "judged + unjudged = all outcomes": (counts["judged"] + counts["unjudged"], sum(outcomes.values())),
        "unjudged = that outcome": (counts["unjudged"], outcomes.get(Outcome.UNJUDGED, 0)),
        "rows of candidates = traces": (facts.rows_of("candidates"), counts["traces"]),
        "rows that were read = rows of candidates": (found.num_rows, facts.rows_of("candidates")),
        "accepted rows of candidates = accepted": (sum(found.accepted.values()), counts["accepted"]),
        "rejected rows of candidates, by reason": (dict(found.rejected), rejected),
        "outcomes of candidates": (told, outcomes),
        **{
            f"rows of {name} = accepted": (facts.rows_of(name), counts["accepted"])
            for name in ACCEPTED_TABLES
            if name in facts.selection["configs"]
        },
    }
    for name, (one, other) in sums.items():
        if one != other:
            raise CorruptRunError(f"selection {facts.selection['selection']['name']}: {name}: {one} is not {other}")
    if facts.num_newer < 0 or facts.manifest.fingerprint != facts.selection["fingerprint"]:
        raise CorruptRunError(
            f"selection {facts.selection['selection']['name']}: has {counts['traces']} traces of run "
            f"{facts.selection['fingerprint']}, the run beside it has {facts.manifest.counts.generated} and is "
            f"{facts.manifest.fingerprint}; run `factory select` again"
        )


def funnel(facts: Facts) -> list[Step]:
    """Return the way from requested attempts to rows of each table."""
    run, status, counts = facts.manifest.counts, facts.status, facts.counts
    steps = [Step(0, "requested attempts", run.requested)]
    steps += [Step(1, "failed", *pair) for pair in _reasons(status.failed_reasons)]
    steps += [Step(1, "cancelled", *pair) for pair in _reasons(status.cancelled_reasons)]
    steps += [Step(1, "not made yet", run.requested - run.failed - run.cancelled - run.generated)]
    steps += [Step(0, "generated completions", run.generated)]
    if facts.num_newer:
        steps.append(Step(1, "committed after the tables were built", facts.num_newer))
    steps += [Step(0, "completions in the tables", counts["traces"])]
    steps += [Step(1, "unjudged: our verifiers failed", counts["unjudged"])]
    steps += [Step(1, "not judged yet", counts["waiting"])]
    steps += [Step(0, "judged completions", counts["judged"])]
    steps += [Step(1, "rejected", *pair) for pair in _reasons(counts["rejected"])]
    steps += [Step(0, "accepted completions", counts["accepted"])]
    return [step for step in steps if step.number or step.level == 0]


def _reasons(counts: Mapping[str, int]) -> Iterable[tuple[int, str]]:
    return ((count, reason) for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def check_funnel(steps: Iterable[Step]) -> None:
    """Check that each line of level 0 is the one before it without the parts between.

    Raises:
        CorruptRunError: If not.
    """
    left: int | None = None
    for step in steps:
        if step.level:
            assert left is not None, "a funnel begins with a whole"
            left -= step.number
        elif left not in (None, step.number):
            raise CorruptRunError(f"the way to {step.label}: {left} should be left, there are {step.number}")
        else:
            left = step.number
