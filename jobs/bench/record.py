"""Records of benchmarks: `--out` of those that measure error rates writes what a card says of the verifiers."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from factory.measured import Errors

ROOT: Final = Path(__file__).parents[2]
JUDGING: Final = ("verifiers", "schemas")  # folders whose change may change a verdict

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.json", help="Record the error rates, with versions and commit, in this file."),
]
Note = Annotated[str, typer.Option(metavar="TEXT", help="With --out: what must be known of the cases.")]


def require_cases(out: Path | None, cases: Path | None) -> None:
    """Check before anything is measured that there are cases to record the error rates of.

    Raises:
        ConfigError: If not.
    """
    if out is not None and cases is None:
        raise ConfigError(f"--out {out}: error rates are of cases in a file; give --cases FILE")


def record(out: Path | None, verifier: str, cases: Path | None, errors: Errors, note: str) -> None:
    """Write what was measured on a file of cases; nothing where no record is asked for.

    Raises:
        ConfigError: If ``out`` holds something else, or cannot be written.
    """
    if out is None or cases is None:
        return
    from factory.measured import PARTS, Measurement, add_measurement
    from verifiers import verifier_versions

    versions = verifier_versions()
    found = Measurement(
        verifier=verifier,
        cases=cases.name,
        cases_sha256=hashlib.sha256(cases.read_bytes()).hexdigest(),
        errors=errors,
        versions={name: versions[name] for name in PARTS[verifier]},
        command=shlex.join(["factory", *(word for word in sys.argv[1:] if word not in ("--note", note))]),
        commit=_commit(),
        date=datetime.now(UTC).date().isoformat(),
        note=note,
    )
    try:
        add_measurement(out, found)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; give another file") from error


def _commit() -> str:
    """Return the commit of this code, with a mark where the verifiers are not as committed."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return commit + ("+changes" if _git("status", "--porcelain", "--", *JUDGING) else "")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
