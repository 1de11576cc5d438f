"""Fingerprints of benchmarks: what `decontaminate` needs to recognise their items, as hashes, never as text.

Invariant: a fingerprint says which benchmark and version it is of and how many items it covers; the same items give the
same bytes. Files are Parquet, one row per item. A fingerprint of another canonical form is refused: its hashes would
match nothing, and that would look like a clean set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.canonical import CANONICAL_VERSION, Hashes, canonical, is_number, with_figures
from schemas.errors import ConfigError

GRAM: Final = 8  # words; what containment is counted in. Source: GPT-3 and Llama 3 reports, open-r1
NEAR: Final = 3  # words; what is left of the order of words after many small edits
SHORT: Final = 13  # words; below, grams are too few: the words themselves are compared
HASH_BITS: Final = 40  # kept of a hash: a gram matches one of 10^6 by chance once in 10^6 words
SHIPPED: Final = Path(__file__).parent / "shipped"
# Benchmarks that people train for and measure by: what a report calls not covered when a run is not checked for them.
KNOWN: Final = (
    *("aime-2024", "aime-2025", "math-500", "gsm8k-test", "gpqa-diamond", "humaneval", "livecodebench", "codeforces"),
)
_METADATA: Final = b"benchmark"
_SHIFT: Final = np.uint64(64 - HASH_BITS)
_BASE: Final = 0x9E3779B97F4A7C15  # odd; of the polynomial over the hashes of words
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # splitmix64's

HASHES: Final = pa.list_(pa.uint64())
SCHEMA: Final = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("num_words", pa.int32(), nullable=False),
        pa.field("text", pa.uint64(), nullable=False),  # all words in order
        pa.field("grams", HASHES, nullable=False),  # sorted, each once; so are the next two
        pa.field("near", HASHES, nullable=False),
        pa.field("numbers", HASHES, nullable=False),  # each number, and how often before
        pa.field("words", HASHES, nullable=False),  # of short items only: each word, as often as it comes
    ]
)


class Item(NamedTuple):
    """An item of a benchmark as text, before it is hashed."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What a fingerprint covers."""

    name: str
    version: str
    num_items: int
    license: str
    sha256: str  # of its hashes: two fingerprints that recognise the same have the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A benchmark's items as hashes."""

    benchmark: Benchmark
    items: pa.Table


def mixed(values: Hashes) -> Hashes:
    """Return hashes whose every bit depends on every bit, cut to ``HASH_BITS``."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return (values ^ (values >> np.uint64(31))) >> _SHIFT


def gram_hashes(words: Hashes, size: int) -> Hashes:
    """Return the hash of each run of ``size`` words, in order; empty where there are fewer words."""
    count = len(words) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    base = np.uint64(_BASE)
    for place in range(size):
        total = total * base + words[place : place + count]
    return mixed(total + np.uint64(size))


def sequence_hash(words: Hashes) -> int:
    """Return the hash of all words in order."""
    powers = np.full(len(words), _BASE, np.uint64).cumprod(dtype=np.uint64)
    return int(mixed((words * powers).sum(dtype=np.uint64, keepdims=True) + np.uint64(len(words)))[0])


def counted_hashes(words: Hashes) -> Hashes:
    """Return a hash for each word and how often it came before: sets of them compare as multisets. Sorted."""
    ordered = np.sort(words)
    if not len(ordered):
        return ordered
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    before = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    return np.sort(mixed(ordered * np.uint64(_BASE) + before.astype(np.uint64)))


def build_fingerprint(name: str, version: str, license: str, items: Iterable[Item]) -> Fingerprint:
    """Return the fingerprint of a benchmark's items.

    Raises:
        ConfigError: If there is no item, or one has no word.
    """
    rows = []
    for item in items:
        form = canonical(item.text)
        if len(form.words) < SHORT:  # then the figure is what is asked
            form = with_figures(item.text) or form
        words = form.words
        if not len(words):
            raise ConfigError(f"benchmark {name}: item {item.item_id!r} has no word; leave it out of the file")
        rows.append(
            {
                "item_id": item.item_id,
                "num_words": len(words),
                "text": sequence_hash(words),
                "grams": np.unique(gram_hashes(words, GRAM)),
                "near": np.unique(gram_hashes(form.nameless, NEAR)),
                "numbers": counted_hashes(words[is_number(words)]),
                "words": np.sort(mixed(words)) if len(words) < SHORT else [],
            }
        )
    if not rows:
        raise ConfigError(f"benchmark {name}: the file holds no item")
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return Fingerprint(benchmark=_described(table, name, version, license), items=table)


def _described(table: pa.Table, name: str, version: str, license: str) -> Benchmark:
    sha = hashlib.sha256(f"{CANONICAL_VERSION}".encode())
    for column in ("text", "num_words"):
        sha.update(table[column].to_numpy().astype("<u8").tobytes())
    for column in ("grams", "near", "numbers", "words"):
        values = table[column].combine_chunks()
        sha.update(values.offsets.to_numpy().astype("<i8").tobytes() + values.values.to_numpy().astype("<u8").tobytes())
    return Benchmark(name=name, version=version, num_items=len(table), license=license, sha256=sha.hexdigest())


def write_fingerprint(fingerprint: Fingerprint, path: Path) -> int:
    """Write a fingerprint file; return its size in bytes.

    Raises:
        ConfigError: If it cannot be written.
    """
    found = fingerprint.benchmark
    body = {
        "name": found.name,
        "version": found.version,
        "license": found.license,
        "canonical_version": CANONICAL_VERSION,
        "sha256": found.sha256,
    }
    table = fingerprint.items.replace_schema_metadata({_METADATA: json.dumps(body, sort_keys=True).encode()})
    leaves = [f"{name}.list.element" for name in ("grams", "near", "numbers", "words")]
    try:
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=19,
            use_dictionary=False,
            column_encoding=dict.fromkeys(leaves, "BYTE_STREAM_SPLIT"),  # the bytes that are cut off cost nothing
        )
        return path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; give another file") from error


def read_fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file.

    Raises:
        ConfigError: If it is none, was changed, or is of another canonical form.
    """
    try:
        table = pq.ParquetFile(path).read()
        body: Mapping[str, Any] = json.loads((table.schema.metadata or {})[_METADATA])
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: is no fingerprint of a benchmark: {error!r}; `factory decontaminate --build` makes them"
        ) from error
    if body["canonical_version"] != CANONICAL_VERSION:
        raise ConfigError(
            f"{path}: was made by canonical form {body['canonical_version']}, this factory has {CANONICAL_VERSION}; "
            "build it again from the benchmark's file: `factory decontaminate --build FILE`"
        )
    table = table.replace_schema_metadata(None)
    if not table.schema.equals(SCHEMA):
        raise ConfigError(f"{path}: has columns {', '.join(table.column_names)}; build it again")
    found = _described(table, body["name"], body["version"], body["license"])
    if found.sha256 != body["sha256"]:
        raise ConfigError(f"{path}: its hashes are not those that were written; restore the file or build it again")
    return Fingerprint(benchmark=found, items=table)


def is_fingerprint(path: Path) -> bool:
    """Return whether a file says that it is a fingerprint."""
    try:
        return _METADATA in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def shipped_names() -> list[str]:
    """Return the names of the benchmarks that come with the factory."""
    return sorted(path.stem for path in SHIPPED.glob("*.parquet"))


def not_covered(covered: Sequence[Benchmark]) -> list[str]:
    """Return the known benchmarks that none of these is, by name."""
    names = {benchmark.name for benchmark in covered}
    return [name for name in KNOWN if name not in names]
