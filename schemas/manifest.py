"""Manifests: what a run on disk consists of. What a manifest does not name does not exist.

Numbered, immutable, one committer. Invariant, checked before each is written: every requested attempt is in exactly
one of judged, unjudged, failed, cancelled and pending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from schemas.errors import CorruptRunError, SchemaVersionError

MANIFEST_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One finished file of a run; ``name`` is relative to the run's folder."""

    name: str
    rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Where every requested attempt stands. ``generated`` counts traces, judged or not."""

    requested: int = 0
    generated: int = 0
    judged: int = 0
    unjudged: int = 0
    failed: int = 0
    cancelled: int = 0
    pending: int = 0

    def check(self) -> None:
        """Check the sum and the signs.

        Raises:
            CorruptRunError: If an attempt is lost or counted twice.
        """
        total = self.judged + self.unjudged + self.failed + self.cancelled + self.pending
        fits = self.judged + self.unjudged <= self.generated <= self.requested - self.failed - self.cancelled
        if total != self.requested or min(asdict(self).values()) < 0 or not fits:
            raise CorruptRunError(
                f"the sums do not hold: requested {self.requested} is not judged {self.judged} + unjudged "
                f"{self.unjudged} + failed {self.failed} + cancelled {self.cancelled} + pending {self.pending} "
                f"(generated {self.generated}); this is a bug of the factory, please report it with the manifest"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One state of a run."""

    number: int
    epoch: int  # of the committer that wrote it; a higher one fences it off
    note: str  # why it was written
    created_at: str  # ISO 8601, UTC
    fingerprint: str
    config: Mapping[str, Any]  # the resolved job
    sources_state: str  # of the files behind the sources, when they were read
    num_samples: int  # attempts requested per problem
    verifiers: str  # digest of the verifier versions in use
    counts: Counts
    problems: tuple[Shard, ...] = ()
    quarantine: tuple[Shard, ...] = ()
    traces: tuple[Shard, ...] = ()
    untraced: tuple[Shard, ...] = ()
    verdicts: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    version: int = MANIFEST_VERSION


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as JSON values."""
    return asdict(manifest)


def manifest_from_json(body: Any, *, where: str) -> Manifest:
    """Return the manifest that ``manifest_to_json`` wrote.

    Raises:
        SchemaVersionError: If another version wrote it.
        CorruptRunError: If fields are missing or unknown.
    """
    if not isinstance(body, dict):
        raise CorruptRunError(f"{where}: holds {type(body).__name__}, a manifest is a mapping; restore it from a copy")
    if body.get("version") != MANIFEST_VERSION:
        raise SchemaVersionError(
            f"{where}: is a manifest of version {body.get('version')}, this factory reads version {MANIFEST_VERSION}; "
            "use the version of the factory that wrote the run"
        )
    try:
        shards = {
            key: tuple(Shard(**shard) for shard in body[key])
            for key in ("problems", "quarantine", "traces", "untraced")
        }
        verdicts = {key: tuple(Shard(**shard) for shard in value) for key, value in body["verdicts"].items()}
        return Manifest(**{**body, **shards, "verdicts": verdicts, "counts": Counts(**body["counts"])})
    except (KeyError, TypeError, AttributeError) as error:
        odd = sorted(body.keys() ^ Manifest.__dataclass_fields__.keys())
        detail = f"missing or unknown: {', '.join(odd)}" if odd else str(error)
        raise CorruptRunError(f"{where}: is no manifest ({detail}); restore it from a copy") from error
