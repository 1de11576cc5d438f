"""`factory bench tables`: how fast tables are written, against a bare pyarrow writer, and with how much memory.

A made-up run (traces of 4 to 64 KB of made-up words, eight at a problem, with verdicts of seven checks, in no order)
lies on disk as Arrow. Measured are, each in a process of its own: *ours* and *bare* in turn, a `ShardWriter` and one
`ParquetWriter` with the same settings, which write the same sorted candidates from the same batches (ours hashes files
and rows and cuts shards; both sync; reading the input is not counted); *sort*, the partition, sort and join alone; and
*whole*, all of `write_tables`: seven tables, of which the candidates alone are as large as was asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.derived import Rules, decide
from factory.joining import PROBLEM_COLUMNS, TRACE_COLUMNS, VERDICT_COLUMNS, Joined
from factory.shards import ShardWriter, parquet_settings, row_bytes
from factory.tables import RunContent, write_tables
from schemas.arrow import PROBLEMS, TRACES, VERDICTS, verdicts_to_table
from schemas.config import SelectConfig
from schemas.tables import CANDIDATES
from schemas.verdict import Check, JudgedTrace, MathDetail, Outcome, Reason, TextDetail, Verdict

NUM_SAMPLES: Final = 8
POOL_BYTES: Final = 64 * 2**20  # of text that traces are cut from: far more than zstd looks back
NUM_WORDS: Final = 20_000
TEXT_BYTES: Final = (4_000, 65_000)  # of a trace, the logarithm even between these
BATCH_TRACES: Final = 500  # in a batch of the made run
BATCH_ROWS: Final = 1_000  # of sorted candidates: about a row group of 64 MB
KEEP: Final = 1.04  # bytes of candidates over twice the bytes of texts, about; measured on what is made here
RULES: Final = Rules(config=SelectConfig(), num_first=32_767, digest="0" * 32)
MIB: Final = 2**20


def measure(work: Path, gigabytes: float, pairs: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what was measured; MB are 10^6 bytes of Arrow a second, peaks are MiB of resident memory."""
    say("making the run")
    text_bytes = _make_run(work, gigabytes * 1e9, seed)
    say("sorting its candidates")
    sorted_bytes = _child("prepare", work)["bytes"]
    turns: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    for number in range(pairs):
        for name in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
            say(f"pair {number + 1} of {pairs}: {name}")
            turns[name].append(_child(name, work))
    (work / "sorted.arrow").unlink()
    found: dict[str, Any] = {"bytes of candidates": sorted_bytes, "bytes of texts": text_bytes, "pairs": pairs}
    for name, made in turns.items():
        found[f"{name}, MB/s"] = [round(sorted_bytes / 1e6 / turn["seconds"], 1) for turn in made]
        found[f"{name}, MB per second of CPU"] = [round(sorted_bytes / 1e6 / turn["cpu"], 1) for turn in made]
        found[f"{name}, peak MiB"] = max(round(turn["peak"] / MIB) for turn in made)
    for key, what in (("seconds", "speed of ours / bare"), ("cpu", "the same by CPU time")):
        ratios = [bare[key] / ours[key] for ours, bare in zip(turns["ours"], turns["bare"], strict=True)]
        found |= {what: [round(ratio, 3) for ratio in ratios], f"{what}, median": round(median(ratios), 3)}
    for name in ("sort", "whole"):
        say({"sort": "partition, sort and join alone", "whole": "from the run to all its tables"}[name])
        turn = _child(name, work)
        found |= {f"{name}, s": round(turn["seconds"], 1), f"{name}, s of CPU": round(turn["cpu"], 1)}
        found[f"{name}, MB of candidates/s"] = round(sorted_bytes / 1e6 / turn["seconds"], 1)
        found[f"{name}, peak MiB"] = round(turn["peak"] / MIB)
        found |= {f"{name}, {key}": value for key, value in turn.items() if key.startswith("bytes")}
    return found


# The made run.


def _make_run(work: Path, num_bytes: float, seed: int) -> int:
    """Write problems, traces and verdicts as Arrow streams, traces in no order; return the bytes of the texts."""
    rng = np.random.default_rng(seed)
    pool = _pool(rng)
    low, high = np.log(TEXT_BYTES[0]), np.log(TEXT_BYTES[1])
    mean = (TEXT_BYTES[1] - TEXT_BYTES[0]) / (high - low)
    num_traces = max(NUM_SAMPLES, int(num_bytes / (2 * KEEP) / mean))
    num_problems = -(-num_traces // NUM_SAMPLES)
    order = rng.permutation(num_problems * NUM_SAMPLES)[:num_traces]
    problem_ids = [_id(f"problem {number}") for number in range(num_problems)]
    _write(work / "problems.arrow", _source(PROBLEMS, PROBLEM_COLUMNS), _problems(problem_ids, pool))
    total = 0
    schemas = _source(TRACES, TRACE_COLUMNS), _source(VERDICTS, VERDICT_COLUMNS)
    with (
        pa.OSFile(str(work / "traces.arrow"), "wb") as trace_file,
        pa.OSFile(str(work / "verdicts.arrow"), "wb") as verdict_file,
        pa.ipc.new_stream(trace_file, schemas[0]) as traces,
        pa.ipc.new_stream(verdict_file, schemas[1]) as verdicts,
    ):
        for start in range(0, num_traces, BATCH_TRACES):
            keys = [divmod(int(number), NUM_SAMPLES) for number in order[start : start + BATCH_TRACES]]
            sizes = np.exp(rng.uniform(low, high, len(keys))).astype(np.int64)
            total += int(sizes.sum())
            texts = [
                _cut(pool, int(at), int(size))
                for at, size in zip(rng.integers(0, POOL_BYTES, len(keys)), sizes, strict=True)
            ]
            traces.write_table(_traces(problem_ids, keys, texts))
            verdicts.write_table(_verdicts(problem_ids, keys, rng.choice(3, len(keys), p=[0.6, 0.3, 0.1])))
    return total


def _source(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


def _pool(rng: np.random.Generator) -> str:
    """Return made-up words of which few are frequent, as in a language; zstd brings them to about four tenths."""
    letters = random.Random(int(rng.integers(2**31)))
    words = ["".join(letters.choices("etaoinshrdlucmfwypvbgkqjxz", k=letters.randint(2, 9))) for _ in range(NUM_WORDS)]
    shares = 1 / np.arange(1, NUM_WORDS + 1)
    picked = rng.choice(NUM_WORDS, POOL_BYTES // 5, p=shares / shares.sum())
    return " ".join(map(words.__getitem__, picked.tolist()))[:POOL_BYTES]


def _cut(pool: str, at: int, size: int) -> str:
    at = min(at, len(pool) - size)
    half = at + size * 3 // 4
    return f"<think>\n{pool[at:half]}\n</think>\n\n{pool[half : at + size]} \\boxed{{7}}"


def _id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _problems(ids: list[str], pool: str) -> Iterator[pa.Table]:
    for start in range(0, len(ids), 1_000):
        rows = [
            {
                "problem_id": problem_id,
                "domain": "math",
                "messages": [{"role": "user", "content": pool[(at := 997 * number % (len(pool) - 600)) : at + 400]}],
                "language": "en",
                "source": f"source {number % 5}",
                "source_row_id": str(number),
                "license": "MIT",
                "reference": '{"kind": null, "precision": null, "text": "7", "type": "Answer"}',
                "reference_hash": _id("7"),
                "prompt_sha256": _id(problem_id) * 2,
            }
            for number, problem_id in enumerate(ids[start : start + 1_000], start)
        ]
        yield pa.Table.from_pylist(rows, schema=_source(PROBLEMS, PROBLEM_COLUMNS))


def _trace_id(problem_id: str, index: int) -> str:
    return _id(f"{problem_id} {index}")


def _traces(problem_ids: list[str], keys: list[tuple[int, int]], texts: list[str]) -> pa.Table:
    same = {"fingerprint": _id("run"), "format": "r1", "finish_reason": "stop", "stop_token": "<|im_end|>"}
    same |= {"teacher": "made", "teacher_revision": "1", "engine": "none", "engine_version": "1"}
    columns: dict[str, Any] = {
        "trace_id": [_trace_id(problem_ids[problem], index) for problem, index in keys],
        "problem_id": [problem_ids[problem] for problem, _ in keys],
        "sample_index": [index for _, index in keys],
        "text": texts,
        "finish_detail": [None] * len(keys),
        "num_prompt_tokens": [100] * len(keys),
        "num_completion_tokens": [len(text) // 4 for text in texts],
        "num_reasoning_tokens": [len(text) // 5 for text in texts],
        "seed": [index for _, index in keys],
        "submitted_at": [1_700_000_000_000_000 + problem for problem, _ in keys],
        "finished_at": [1_700_000_100_000_000 + problem for problem, _ in keys],
        **{name: [value] * len(keys) for name, value in same.items()},
    }
    schema = _source(TRACES, TRACE_COLUMNS)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _verdicts(problem_ids: list[str], keys: list[tuple[int, int]], kinds: np.ndarray[Any, Any]) -> pa.Table:
    ids = [problem_ids[problem] for problem, _ in keys]
    made = _KINDS.take(pa.array(kinds))
    made = made.set_column(
        0, made.schema.field(0), pa.array(map(_trace_id, ids, [index for _, index in keys]), pa.string())
    )
    made = made.set_column(1, made.schema.field(1), pa.array(ids, pa.string()))
    return made.select(VERDICT_COLUMNS).cast(_source(VERDICTS, VERDICT_COLUMNS))


def _kinds() -> pa.Table:
    """Return three verdicts: correct, wrong, unreadable."""
    detail = MathDetail(rung="integer", extracted="7", answer_form="7", reference_form="7")
    right = Check(name="math", version="1", outcome=Outcome.CORRECT, detail=detail)
    wrong = Check(name="math", version="1", outcome=Outcome.WRONG_ANSWER, reason=Reason.VALUE_DIFFERS, detail=detail)
    text = TextDetail(
        num_think_chars=9_000,
        num_response_chars=3_000,
        num_words=2_000,
        num_reflections=9,
        think_consistency=0.99,
        response_consistency=1.0,
        compression=0.4,
        tail_compression=0.4,
        longest_paragraph=300,
        num_boxes=1,
        num_chars_after_box=0,
    )
    names = ("format", "language", "repetition", "layout")
    form = [Check(name=name, version="3", outcome=Outcome.READABLE, value=0.5, threshold=0.9) for name in names]
    form.append(Check(name="statistics", version="3", outcome=Outcome.READABLE, detail=text))
    loop = Check(name="loop", version="3", outcome=Outcome.UNREADABLE, reason=Reason.REPETITION_LOOP, start=9, end=99)
    checks = ([right, *form], [wrong, *form], [right, *form, loop])
    verdicts = (Verdict(reference_hash=None, checks=tuple(found)) for found in checks)
    return verdicts_to_table(JudgedTrace(trace_id="", problem_id="", verdict=verdict) for verdict in verdicts)


_KINDS: Final = _kinds()


def _write(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _read(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


# What is measured, each in a process of its own.


def _child(step: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "jobs.bench.writing", step, str(work)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the step {step} failed: {ended.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _prepare(work: Path) -> dict[str, Any]:
    """Write the candidates, sorted, in batches of about a row group."""
    total = 0
    with pa.OSFile(str(work / "sorted.arrow"), "wb") as file, pa.ipc.new_stream(file, CANDIDATES) as writer:
        held: list[pa.Table] = []
        for found in _joined(work):
            held.append(decide(found, RULES).table)
            total += int(row_bytes(held[-1]).sum())
            table = pa.concat_tables(held)
            whole = table.num_rows // BATCH_ROWS * BATCH_ROWS
            for start in range(0, whole, BATCH_ROWS):
                writer.write_table(table.slice(start, BATCH_ROWS).combine_chunks())
            held = [table.slice(whole)]
        writer.write_table(pa.concat_tables(held).combine_chunks())
    return {"bytes": total}


def _joined(work: Path) -> Iterator[pa.Table]:
    tables = (_read(work / f"{name}.arrow") for name in ("problems", "traces", "verdicts"))
    with Joined(work, *tables) as joined:
        yield from joined.tables()


class _Clock:
    """Adds up wall and CPU time of what is measured: that a machine is shared is seen in the first alone."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    def figures(self) -> dict[str, float]:
        """Return both, by name."""
        return {"seconds": self.seconds, "cpu": self.cpu}


def _ours(work: Path) -> dict[str, Any]:
    clock = _Clock()
    writer = ShardWriter(work / "ours" / "candidates", CANDIDATES)
    with ExitStack() as stack:
        stack.enter_context(writer)
        for table in _read(work / "sorted.arrow"):
            with clock:
                writer.write(table)
        with clock:
            stack.close()
    shutil.rmtree(work / "ours")
    return clock.figures() | {"bytes": sum(shard.num_bytes for shard in writer.shards)}


def _bare(work: Path) -> dict[str, Any]:
    clock = _Clock()
    path = work / "bare.parquet"
    writer = pq.ParquetWriter(path, CANDIDATES, **parquet_settings(CANDIDATES))
    for table in _read(work / "sorted.arrow"):
        with clock:
            writer.write_table(table, row_group_size=table.num_rows)
    with clock:
        writer.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())
    size = path.stat().st_size
    path.unlink()
    return clock.figures() | {"bytes": size}


def _sort(work: Path) -> dict[str, Any]:
    clock = _Clock()
    with clock:
        num_rows = sum(table.num_rows for table in _joined(work))
    assert num_rows, "the made run has no traces"
    return clock.figures()


def _whole(work: Path) -> dict[str, Any]:
    problems, traces, verdicts = (_read(work / f"{name}.arrow") for name in ("problems", "traces", "verdicts"))
    content = RunContent(
        problems=problems, traces=traces, verdicts=verdicts, runs=[], fingerprint=_id("run"), verdict_digest="made"
    )
    clock = _Clock()
    with clock:
        written = write_tables(work / "tables", content, SelectConfig())
    manifest = json.loads((work / "tables" / "default" / "manifest.json").read_text())
    splits = [entry for config in manifest["configs"].values() for entry in config["splits"].values()]
    shutil.rmtree(work / "tables")
    return clock.figures() | {
        "bytes of all tables in Arrow": sum(entry["text_bytes"] for entry in splits),
        "bytes of files": sum(file.num_bytes for file in written.files),
    }


def _peak() -> int:
    """Return the most resident memory of this process, in bytes.

    Not ``ru_maxrss``: Linux lets a process begin with the peak of the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    STEPS: Final = {"prepare": _prepare, "ours": _ours, "bare": _bare, "sort": _sort, "whole": _whole}
    measured = STEPS[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.write(json.dumps(measured | {"peak": _peak()}))
