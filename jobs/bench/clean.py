"""`factory bench clean`: what decontamination flags and finds, what the audit takes of good problems, how fast and how
well near-duplicates are found, and what a large set needs.

Problems are JSON Lines with ``problem`` (or ``prompt``) and ``answer``; what has no files is left out, and is said so.
Copies are planted by `edits`, documents are made up; another ``seed`` makes others.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from factory.audit import find_defect
from factory.benchmarks import read_items
from factory.canonical import canonical
from factory.decontaminate import Protection, RuleSet
from factory.duplicates import THRESHOLD, find_duplicates
from factory.fingerprints import Item, build_fingerprint
from jobs.bench.edits import EDITS, edited
from schemas.errors import ConfigError
from schemas.problem import Answer, Domain, Message, Problem, QuarantineReason

COPIES: Final = 500
WORDS: Final = 140  # of a made-up document, about 900 characters
VOCABULARY: Final = 20_000
PLANTED: Final = 20  # one document in so many is an edited copy of another
CHUNK: Final = 50_000  # documents made at a time
GOOD: Final = 0.85  # true Jaccard of pairs that must be found ...
REPORTED: Final = 0.75  # ... and of those that may be reported
TARGET_ROWS: Final = 10_000_000

TEXTS: Final = pa.schema([pa.field("text", pa.large_string())])

Rows = list[dict[str, Any]]


def flagged(benchmark: Path, others: Path) -> Rows:
    """Return how many of the other problems are taken for items of the benchmark, by each set of rules."""
    fingerprint = build_fingerprint(benchmark.stem, "file", "unknown", read_items(benchmark))
    items = list(read_items(others))
    rows: Rows = []
    for rules in RuleSet:
        protection = Protection([fingerprint], rules)
        start = time.process_time()
        matches = [protection.find(item.text) for item in items]
        seconds = time.process_time() - start
        counts = Counter(match.rule for match in matches if match is not None)
        rows.append(
            {
                "rules": str(rules),
                "items": fingerprint.benchmark.num_items,
                "problems": len(items),
                "flagged": counts.total(),
                "by rule": ", ".join(f"{count} {rule}" for rule, count in counts.most_common()),
                "us each": seconds * 1e6 / len(items),
                "MB/s": sum(len(item.text) for item in items) / seconds / 1e6,
            }
        )
    return rows


def planted(benchmarks: Sequence[Path], seed: int) -> tuple[Rows, list[str]]:
    """Return how many edited copies of items are found, by kind of edit, and examples of what is missed."""
    rng = random.Random(seed)
    fingerprints = [build_fingerprint(path.stem, "file", "unknown", read_items(path)) for path in benchmarks]
    protection = Protection(fingerprints)
    items = [item for path in benchmarks for item in read_items(path)]
    rows: Rows = []
    missed: list[str] = []
    kinds: dict[str, Callable[[Item], str | None]] = {
        **{kind: _one_kind(kind, rng) for kind in EDITS},
        "one to three kinds": lambda item: edited(item.text, rng, most=3)[0],
        "up to all kinds": lambda item: edited(item.text, rng, most=5)[0],
    }
    for kind, edit in kinds.items():
        tried = found = exact = 0
        for item in rng.sample(items, len(items)):
            copy = edit(item)
            if copy is None:
                continue
            tried += 1
            match = protection.find(copy)
            found += match is not None
            exact += match is not None and match.item_id == item.item_id
            if match is None:
                missed.append(f"{kind}: {item.item_id}: {' '.join(copy.split())[:160]}")
            if tried == COPIES:
                break
        if tried:
            rows.append({"edits": kind, "copies": tried, "found": found / tried, "as that item": exact / tried})
    return rows, missed


def _one_kind(kind: str, rng: random.Random) -> Callable[[Item], str | None]:
    def edit(item: Item) -> str | None:
        copy = EDITS[kind](item.text, rng)
        return None if copy == item.text else copy  # it has nothing that this kind changes

    return edit


def alarms(files: Sequence[Path]) -> tuple[Rows, list[str]]:
    """Return how many problems of good sets the audit would keep aside, by reason, and each of them."""
    rows: Rows = []
    seen: list[str] = []
    for path in files:
        problems = list(_problems(path))
        start = time.process_time()
        defects = [find_defect(problem) for problem in problems]
        seconds = time.process_time() - start
        counts = Counter(defect.reason for defect in defects if defect is not None)
        rows.append(
            {
                "file": path.name,
                "problems": len(problems),
                "kept aside": counts.total(),
                **{str(reason): counts[reason] for reason in AUDITED},
                "us each": seconds * 1e6 / len(problems),
            }
        )
        for problem, defect in zip(problems, defects, strict=True):
            if defect is not None:
                seen.append(f"{path.name} {problem.source_row_id}: {defect.reason}: {defect.detail}")
    return rows, seen


AUDITED: Final = (
    QuarantineReason.UNPARSED_REFERENCE,
    QuarantineReason.MISSING_FIGURE,
    QuarantineReason.NO_FINAL_ANSWER,
    QuarantineReason.SEVERAL_QUESTIONS,
    QuarantineReason.TRUNCATED_STATEMENT,
)


def _problems(path: Path) -> Iterator[Problem]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        text = row.get("problem") or row.get("prompt") or row.get("question")
        if not isinstance(text, str):
            raise ConfigError(f"{path} line {number}: has no text in problem, prompt or question")
        yield Problem(
            domain=Domain.CODE if "prompt" in row else Domain.MATH,
            messages=(Message(role="user", content=text),),
            source=path.stem,
            source_row_id=str(row.get("id", number)),
            reference=Answer(text=str(row["answer"])) if "answer" in row else None,
        )


# Near-duplicates.


def made_documents(count: int, seed: int) -> tuple[pa.ChunkedArray, npt.NDArray[np.int64]]:
    """Return made-up documents, and pairs (copy, original): one in twenty is a copy with one to eight words changed."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(VOCABULARY)], object)
    chunks, pairs = [], []
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        words = rng.integers(0, VOCABULARY, (size, WORDS + WORDS // 4))
        lengths = rng.integers(WORDS - WORDS // 4, WORDS + WORDS // 4, size)
        copies = np.arange(size - size // PLANTED, size)
        originals = rng.integers(0, size - size // PLANTED, len(copies))
        words[copies], lengths[copies] = words[originals], lengths[originals]
        for place in copies:
            changed = rng.integers(0, lengths[place], rng.integers(1, 9))
            words[place, changed] = rng.integers(0, VOCABULARY, len(changed))
        texts = [" ".join(vocabulary[row[:length]]) for row, length in zip(words, lengths, strict=True)]
        chunks.append(pa.array(texts, pa.large_string()))
        pairs.append(np.stack((copies, originals), axis=1) + start)
    return pa.chunked_array(chunks), np.concatenate(pairs)


def duplicates(count: int, seed: int) -> Rows:
    """Return speed, recall and precision on made-up documents, by the true Jaccard of sets of five words."""
    texts, pairs = made_documents(count, seed)
    start = time.process_time()
    found = find_duplicates(texts)
    seconds = time.process_time() - start
    reported = dict(zip(found["row"].to_pylist(), found["representative"].to_pylist(), strict=True))
    plain = texts.to_pylist()
    near = [copy for copy, original in pairs.tolist() if _jaccard(plain[copy], plain[original]) >= GOOD]
    right = sum(_jaccard(plain[row], plain[other]) >= REPORTED for row, other in reported.items())
    return [
        {
            "documents": count,
            "characters each": texts.nbytes / count,
            "documents/s per core": count / seconds,
            f"recall (true >= {GOOD})": sum(copy in reported for copy in near) / max(1, len(near)),
            "of pairs": len(near),
            f"precision (true >= {REPORTED})": right / max(1, len(reported)),
            "of reported": len(reported),
            "threshold": THRESHOLD,
        }
    ]


def _jaccard(left: str, right: str) -> float:
    """Return the similarity in plain Python, so that nothing of what is measured measures itself."""
    one, other = (
        {tuple(words[place : place + 5]) for place in range(len(words) - 4)}
        for words in (left.lower().split(), right.lower().split())
    )
    return len(one & other) / len(one | other)


def budget(count: int, seed: int) -> Rows:
    """Return time and memory for half as many and for so many documents, on disk as Arrow, and what ten million would
    need if both grow as they do from the one to the other.

    Measured in processes of their own. Their memory is the anonymous part: the kernel takes a mapped file back at any
    time.
    """
    rows: Rows = []
    with tempfile.TemporaryDirectory(prefix="factory-clean-") as folder:
        path = Path(folder) / "texts.arrow"
        for size in (count // 2, count):
            _write_documents(path, size, seed)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peak, seconds, cpu_s, found = pool.submit(_measured, str(path)).result()
            rows.append(
                {
                    "documents": size,
                    "duplicates": found,
                    "seconds": seconds,
                    "CPU seconds": cpu_s,
                    "peak GiB": peak / 2**30,
                    "GiB on disk": path.stat().st_size / 2**30,
                }
            )
    half, whole = rows
    steps = (TARGET_ROWS - count) / (count - count // 2)
    foreseen = {
        name: whole[name] + (whole[name] - half[name]) * steps
        for name in ("duplicates", "CPU seconds", "peak GiB", "GiB on disk")
    }
    # Wall time says more of what else the machine does than of this.
    return [*rows, {**foreseen, "documents": TARGET_ROWS, "seconds": None, "duplicates": round(foreseen["duplicates"])}]


def _write_documents(path: Path, count: int, seed: int) -> None:
    with pa.ipc.new_file(str(path), TEXTS) as writer:
        for number, start in enumerate(range(0, count, CHUNK)):
            chunk, _ = made_documents(min(CHUNK, count - start), seed + number)
            writer.write_batch(pa.record_batch([chunk.combine_chunks()], schema=TEXTS))


def _measured(path: str) -> tuple[int, float, float, int]:
    """Return the peak of memory in bytes, wall and CPU seconds, and how many duplicates were found."""
    peak = _anonymous_bytes()
    is_done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(0.02):
            peak = max(peak, _anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    texts = pa.ipc.open_file(pa.memory_map(path)).read_all()["text"]
    found = find_duplicates(texts)
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    is_done.set()
    watcher.join()
    return peak, seconds, cpu_s, len(found)


def _anonymous_bytes() -> int:
    """Return the memory of this process that no file backs (Linux only, elsewhere 0)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def texts_rate(path: Path) -> Rows:
    """Return how fast texts of the length of traces are looked through, in MB/s."""
    protection = Protection([build_fingerprint("items", "file", "unknown", read_items(path))])
    items = list(read_items(path))
    text = "\n\n".join(item.text for item in items)
    text = text[: 2 << 20]
    start = time.process_time()
    canonical(text)
    middle = time.process_time()
    protection.find(text)
    return [
        {
            "characters": len(text),
            "MB/s, canonical form": len(text) / (middle - start) / 1e6,
            "MB/s, all": len(text) / (time.process_time() - middle) / 1e6,
        }
    ]


def measure(
    folder: Path | None, benchmark: str, others: str, documents: int, rows: int, seed: int
) -> tuple[dict[str, Rows], dict[str, list[str]], list[str]]:
    """Return the tables by title, examples by title, and what was left out for want of files."""
    tables: dict[str, Rows] = {}
    examples: dict[str, list[str]] = {}
    left_out: list[str] = []
    files = {} if folder is None else {path.name: path for path in sorted(folder.glob("*.jsonl"))}
    if benchmark in files and others in files:
        tables["other problems taken for items of the benchmark"] = flagged(files[benchmark], files[others])
        tables["long texts"] = texts_rate(files[others])
    else:
        left_out.append(f"{benchmark} against {others}: --problems DIR must hold both")
    protected = [path for name, path in files.items() if name != others]
    if protected:
        tables["edited copies of items"], examples["missed copies"] = planted(protected, seed)
    else:
        left_out.append("edited copies: --problems DIR holds no benchmark")
    if files:
        tables["the audit on good problems"], examples["kept aside by the audit"] = alarms(list(files.values()))
    if documents:
        tables["near-duplicates"] = duplicates(documents, seed)
    if rows:
        tables["a large set; the last row is foreseen"] = budget(rows, seed)
    return tables, examples, left_out
