"""The journal of a publication: what was done, a line each, on disk before it counts.

The Hub is what is true; the journal saves work (files that were read before, versions that were verified) and is the
record of what happened. It may be lost, torn or copied without harm. Holds no token and no text of the tables.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factory.filecheck import CHECK_VERSION, FileReport


class PublishJournal:
    """Lines of JSON, appended and synced one by one; one process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.jsonl"
        self._reports: dict[str, FileReport] = {}
        self._verified: set[tuple[str, str]] = set()
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a killed process
            return
        match entry:
            case {"event": "read", "version": version, "key": key, "report": report} if version == CHECK_VERSION:
                self._reports[key] = FileReport.from_json(report)
            case {"event": "verified", "revision": revision, "digest": digest}:
                self._verified.add((revision, digest))

    def write(self, event: str, **values: Any) -> None:
        """Append one event; it is on disk when this returns."""
        entry = {"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **values}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # a torn line stays one bad line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def report_of(self, key: str) -> FileReport | None:
        """Return what was found in the file of that key (its sha256 and the limits), if it was read before."""
        return self._reports.get(key)

    def add_report(self, key: str, report: FileReport) -> None:
        """Remember what was found in a file."""
        self.write("read", version=CHECK_VERSION, key=key, report=report.to_json())

    def is_verified(self, revision: str, digest: str) -> bool:
        """Return whether that commit or tag was read back and found to be the version with that digest."""
        return (revision, digest) in self._verified
