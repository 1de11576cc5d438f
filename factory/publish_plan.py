"""The plan of a publication: which files make up a version, and whether they may be published.

Before anything is sent. A version is the files of a selection as its manifest names them, the manifest, the card with
its figures, and ``SHA256SUMS`` of them all, whose own sha256 is the version's digest: it says later which files in a
repository are ours. Everything here is a function of local files; the Hub is not asked.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from factory.card import Card
from factory.filecheck import KEYS, FileReport, Place, read_report, require_after
from factory.publish_journal import PublishJournal
from factory.secretscan import find_in_text
from schemas.errors import ConfigError
from schemas.tables import MAX_ROW_BYTES, SCHEMAS, TABLES_VERSION

SUMS: Final = "SHA256SUMS"
CARD: Final = "README.md"
MANIFEST: Final = "manifest.json"
FIGURES: Final = "figures"
MAX_FILE_BYTES: Final = 50 * 10**9  # the Hub's hard limit of one file (hub-docs, repositories-recommendations)
MAX_FOLDER_FILES: Final = 10_000  # and of the files in one folder


@dataclass(frozen=True)
class PlannedFile:
    """One file of a version; ``source`` is a local file, or the bytes themselves."""

    path: str  # in the repository
    source: Path | bytes
    num_bytes: int
    sha256: str

    @cached_property
    def git_oid(self) -> str:
        """What git calls the content; the Hub states it, and no sha256, of files that it does not keep apart."""
        found = hashlib.sha1(b"blob %d\0" % self.num_bytes, usedforsecurity=False)
        found.update(self.source if isinstance(self.source, bytes) else self.source.read_bytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the scan of all texts found, by kind: in how many values, since one text is in several tables."""

    secrets: Mapping[str, int] = field(default_factory=dict)
    personal: Mapping[str, int] = field(default_factory=dict)
    places: tuple[tuple[str, Place], ...] = ()  # file, place


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPlan:
    """A version. ``digest`` is that of its SHA256SUMS."""

    files: Mapping[str, PlannedFile]  # by path, sums included
    digest: str
    configs: Mapping[str, Mapping[str, Any]]  # of the manifest: schema, splits, rows, rows_sha256
    findings: Findings
    num_large: int  # rows above the viewer's limit

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.num_bytes for file in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a user lets pass."""

    large_rows: bool = False
    secrets: bool = False
    personal: bool = True


def make_plan(
    folder: Path, card: Card, journal: PublishJournal, allowed: Allowed, watch: Callable[[str], None] = lambda _: None
) -> PublishPlan:
    """Return the plan of publishing a selection's folder with its card; ``watch`` hears of each file before it is read.

    Raises:
        ConfigError: If a file is not what the manifest says, the tables are not as in schemas/tables.py, or something
            is found that is not allowed.
    """
    manifest = read_manifest(folder)
    shards: dict[str, Mapping[str, Any]] = {shard["name"]: shard for shard in manifest["files"]}
    _require_known(shards, manifest["configs"])
    reports: dict[str, FileReport] = {}
    files: list[PlannedFile] = []
    for number, name in enumerate(sorted(shards), start=1):
        watch(f"checking {name} ({number:,} of {len(shards):,} files)")
        files.append(_shard_file(folder / name, shards[name]))
        reports[name] = _report(folder / name, shards[name], journal)
    _require_rows(manifest, shards, reports)
    text = {CARD: card.readme.encode(), MANIFEST: (folder / MANIFEST).read_bytes(), **card.figures}
    files += [_text_file(name, data) for name, data in text.items()]
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path)).encode()
    files.append(_text_file(SUMS, sums))
    plan = PublishPlan(
        files={file.path: file for file in sorted(files, key=lambda file: file.path)},
        digest=hashlib.sha256(sums).hexdigest(),
        configs=manifest["configs"],
        findings=_findings(reports, {name: text[name] for name in (CARD, MANIFEST)}),
        num_large=sum(report.num_large for report in reports.values()),
    )
    _require_allowed(plan, reports, allowed)
    return plan


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a selection's folder.

    Raises:
        ConfigError: If there is none, or none that can be published.
    """
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder}: holds no {MANIFEST}; give a run with tables (`factory select RUN`)") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is no manifest of tables: {error}; run `factory select` again") from error
    if not isinstance(body, dict) or body.get("version") != TABLES_VERSION:
        seen = body.get("version") if isinstance(body, dict) else type(body).__name__
        raise ConfigError(
            f"{path}: is of version {seen}, this factory publishes version {TABLES_VERSION}; run `factory select` again"
        )
    missing = [key for key in ("files", "configs", "selection_digest") if key not in body]
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}; run `factory select` again")
    return body


def _require_known(shards: Iterable[str], configs: Mapping[str, Any]) -> None:
    for config in configs:
        if config not in SCHEMAS:
            raise ConfigError(f"{MANIFEST}: names the table {config!r}; there are {', '.join(SCHEMAS)}")
    folders = Counter(name.partition("/")[0] for name in shards)
    for folder, count in folders.items():
        if folder not in configs:
            raise ConfigError(
                f"{MANIFEST}: names a file in {folder}/, which is no table of it; run `factory select` again"
            )
        if count > MAX_FOLDER_FILES:
            raise ConfigError(f"{folder}/ has {count:,} files; the Hub takes {MAX_FOLDER_FILES:,} in one folder")


def _shard_file(path: Path, shard: Mapping[str, Any]) -> PlannedFile:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = path.stat().st_size
    except FileNotFoundError:
        raise ConfigError(f"{shard['name']}: is missing, the manifest names it; run `factory select` again") from None
    if (num_bytes, sha256) != (shard["num_bytes"], shard["sha256"]):
        raise ConfigError(
            f"{shard['name']}: has {num_bytes:,} bytes and sha256 {sha256[:12]}…, the manifest says "
            f"{shard['num_bytes']:,} and {shard['sha256'][:12]}…: it was changed after it was written; run "
            "`factory select` again"
        )
    if num_bytes > MAX_FILE_BYTES:
        raise ConfigError(f"{shard['name']}: has {num_bytes:,} bytes; the Hub takes files up to {MAX_FILE_BYTES:,}")
    return PlannedFile(path=shard["name"], source=path, num_bytes=num_bytes, sha256=sha256)


def _text_file(name: str, data: bytes) -> PlannedFile:
    return PlannedFile(path=name, source=data, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _report(path: Path, shard: Mapping[str, Any], journal: PublishJournal) -> FileReport:
    config = shard["name"].partition("/")[0]
    key = f"{config}/{shard['sha256']}/{MAX_ROW_BYTES}"
    report = journal.report_of(key)
    if report is None:
        report = read_report(path, shard["name"], config, MAX_ROW_BYTES)
        journal.add_report(key, report)
    return report


def _require_rows(
    manifest: Mapping[str, Any], shards: Mapping[str, Mapping[str, Any]], reports: Mapping[str, FileReport]
) -> None:
    """Check rows against the manifest, and that ids go on from file to file."""
    for config, body in manifest["configs"].items():
        for split, said in body["splits"].items():
            names = [name for name in sorted(shards) if name.startswith(f"{config}/{split}-")]
            rows, last = 0, None
            for name in names:
                report = reports[name]
                if report.rows != shards[name]["rows"]:
                    raise ConfigError(
                        f"{name}: has {report.rows:,} rows, the manifest says {shards[name]['rows']:,}; run `factory "
                        "select` again"
                    )
                if report.first_key is not None and report.last_key is not None:
                    require_after(last, tuple(report.first_key), name, config)
                    last = tuple(report.last_key)
                rows += report.rows
            if rows != said["rows"]:
                raise ConfigError(
                    f"{config}, split {split}: its files have {rows:,} rows, the manifest says {said['rows']:,}; run "
                    "`factory select` again"
                )
        assert config in KEYS


def _findings(reports: Mapping[str, FileReport], texts: Mapping[str, bytes]) -> Findings:
    secrets: Counter[str] = Counter()
    personal: Counter[str] = Counter()
    places = [(name, place) for name, report in reports.items() for place in report.places]
    for report in reports.values():
        secrets.update(report.secrets)
        personal.update(report.personal)
    for name, data in texts.items():
        for hit in find_in_text(data.decode("utf-8", "replace")):
            (secrets if hit.is_secret else personal)[hit.kind] += 1
            places.append((name, Place(*hit, "", "")))
    return Findings(secrets=dict(secrets), personal=dict(personal), places=tuple(places))


def _require_allowed(plan: PublishPlan, reports: Mapping[str, FileReport], allowed: Allowed) -> None:
    found = plan.findings
    if found.secrets and not allowed.secrets:
        raise ConfigError(
            f"secrets: {_counted(found.secrets)}. {_places(found, is_secret=True)}. Take them out (a problem can be "
            "dropped, a job's settings can name an environment variable), or publish with --allow-secrets if they are "
            "none"
        )
    if found.personal and not allowed.personal:
        raise ConfigError(f"personal data: {_counted(found.personal)}. {_places(found, is_secret=False)}")
    if plan.num_large and not allowed.large_rows:
        name, report = max(reports.items(), key=lambda item: item[1].largest_row_bytes)
        raise ConfigError(
            f"{plan.num_large:,} rows are larger than {MAX_ROW_BYTES:,} bytes, which the Hub's viewer does not show; "
            f"the largest is {report.largest_row_id} in {name} with {report.largest_row_bytes:,}. Publish with "
            "--allow-large-rows, or select shorter ones"
        )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {kind}" for kind, count in sorted(counts.items()))


def _places(found: Findings, *, is_secret: bool) -> str:
    shown = [
        f"{place.kind} {place.shown} in {name}" + (f", column {place.column} of {place.row_id}" if place.column else "")
        for name, place in found.places
        if place.is_secret == is_secret
    ]
    return "; ".join(dict.fromkeys(shown[:5])) + (f"; and {len(shown) - 5:,} more" if len(shown) > 5 else "")
