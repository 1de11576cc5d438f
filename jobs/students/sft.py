"""Fine-tuning: a recipe and a table become a student, in a folder that the same command goes on with.

OUT holds `plan.json` (recipe, base, data, versions: another one is refused), `base/`, `rows/` (what is learnt, as
tokens), `checkpoints/`, `progress.jsonl`, `model/`. All guards run before a training process starts. Nothing here needs
a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml

from factory.benchmarks import load_benchmarks
from factory.decontaminate import Protection
from factory.store import RunLock
from jobs.students.guards import Findings, TableGuards, look, look_at_ids
from jobs.students.launching import launch, launch_config
from jobs.students.packing import check_packing
from jobs.students.prepare_base import pin_base, prepare_base
from jobs.students.recipe import Recipe
from jobs.students.rows import ROWS_SCHEMA, Student, Table, load_student, open_data, open_table
from schemas.errors import ConfigError, CorruptRunError, FingerprintError

TABLES: Final = {"sft": "sft_prompt_completion", "dpo": "preference"}
LIBRARIES: Final = ("trl", "transformers", "torch", "accelerate")

Say = Callable[[str], None]
Writer = Callable[[Table, Student, TableGuards, Path], Findings]
Launcher = Callable[[Recipe, Path, int], None]  # recipe, OUT, and the open file that holds OUT's lock


def check_data(recipe: Recipe, data: str, folder: Path, say: Say) -> Findings:
    """Run the guards of ids on a table and all others on a sample of it; return what they saw.

    The base's tokenizer is prepared in a folder of one's own.

    Raises:
        GuardError: If a guard refuses.
    """
    selection = open_data(data)
    table = full_table(selection, TABLES["sft"])
    student = load_student(prepare_base(recipe, folder / "base", with_weights=False), recipe)
    guards, findings = guards_of(recipe, selection, table.name), Findings()
    look_at_ids(table.ids("trace_id"), guards, findings)
    few: list[dict[str, list[int]]] = []
    for encoded in look(table.rows(is_sample=True), student, guards, findings, is_sample=True):
        if len(few) < 8:
            few.append({"input_ids": encoded.token_ids, "labels": encoded.labels})
    findings.refuse()
    if recipe.train.packing != "none":
        check_packing(recipe, folder / "base", few, say)
    say(describe(findings, recipe))
    return findings


def fine_tune(
    recipe: Recipe, data: str, out: Path, say: Say, launch: Launcher = launch, *, is_shared: bool = False
) -> Path:
    """Return the folder of a fine-tuned student: OUT/model. Run again after any interruption, it goes on.

    Raises:
        GuardError: If a guard refuses the data or the base; nothing is started then.
        FingerprintError: If OUT belongs to another recipe, base, other data or other libraries.
        FactoryError: If training broke off.
    """
    return carry_out("sft", recipe, data, out, write_rows, say, launch, is_shared=is_shared)


def carry_out(
    method: str,
    recipe: Recipe,
    data: str,
    out: Path,
    write: Writer,
    say: Say,
    launch: Launcher = launch,
    *,
    is_shared: bool = False,
) -> Path:
    """Return OUT/model: claim OUT, prepare base and rows where they are missing, and train.

    One that ``is_shared`` is read by other machines: it holds all that they need.
    """
    out, versions = out.resolve(), _versions()
    with RunLock(out) as lock:
        selection = open_data(data)
        table = full_table(selection, TABLES[method])
        asked = recipe.model_dump(mode="json")
        recipe, contents = pin_base(recipe)
        plan = {
            "method": method,
            "recipe": recipe.model_dump(mode="json"),
            "base": contents,
            "data": table.digest,
            "versions": versions,
        }
        if claim(out, plan, asked, say):
            return out / "model"
        base = prepare_base(recipe, out / "base", copies_weights=is_shared)
        if not (out / "rows").exists():
            guards = guards_of(recipe, selection, table.name)
            say(describe(write(table, load_student(base, recipe), guards, out / "rows"), recipe))
        if method == "sft" and recipe.train.packing != "none":
            check_packing(recipe, base, _first_rows(out / "rows"), say)
        if (config := launch_config(recipe, method)) is not None:
            write_whole(out / "launch.yaml", yaml.safe_dump(config))
        try:
            launch(recipe, out, lock.fileno())
        except KeyboardInterrupt:
            say("run the same command again: it goes on from the newest checkpoint")
            raise
    return out / "model"


def claim(out: Path, plan: dict[str, Any], asked: dict[str, Any], say: Say) -> bool:
    """Make OUT that of a plan; return whether it holds the plan's model already.

    One that was begun before plans knew their base is gone on with: it holds the recipe as it was ``asked`` for.

    Raises:
        ConfigError: If it is a folder of something else.
        CorruptRunError: If its plan cannot be read.
        FingerprintError: If it holds rows of another plan; says what differs. Without rows nothing was trained yet.
    """
    path = out / "plan.json"
    try:
        found = json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        raise CorruptRunError(
            f"{path}: cannot be read: {error}; put it back from a copy, or give another --out"
        ) from None
    if (out / "run.yaml").exists() or (found is not None and "method" not in found):
        raise ConfigError(f"--out {out}: holds a run or a proof, and no training; give another folder")
    if found is not None and (out / "rows").exists():
        if "base" not in found:
            plan = {key: value for key, value in plan.items() if key != "base"} | {"recipe": asked}
        if found != plan:
            seen = [f"{key}: {_short(old)} there, {_short(new)} now" for key, old, new in _differences(found, plan)]
            raise FingerprintError(
                f"{out} was begun otherwise: {'; '.join(seen[:5])}. Give another --out, or the same as before"
            )
    elif found != plan:
        for name in ("base", "rows"):
            shutil.rmtree(out / name, ignore_errors=True)
        write_whole(path, json.dumps(plan, indent=1))
    if (out / "model").exists():
        say(f"{out / 'model'} is done; nothing to do")
        return True
    return False


def write_rows(table: Table, student: Student, guards: TableGuards, folder: Path) -> Findings:
    """Write a table as tokens, whole or not at all, if no guard refuses it; return what the guards saw."""
    findings = Findings()
    rows = ((encoded.token_ids, encoded.labels) for encoded in look(table.rows(), student, guards, findings))

    def done() -> dict[str, int]:
        findings.refuse()
        return {"input_ids": findings.num_tokens, "labels": findings.num_learnt}

    write_tokens(rows, ROWS_SCHEMA, folder, done)
    return findings


def write_tokens(
    rows: Iterable[Sequence[list[int]]], schema: pa.Schema, folder: Path, done: Callable[[], dict[str, int]]
) -> None:
    """Write columns of tokens for training, and what ``done`` counts of them in the end; the folder appears whole."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with pa.OSFile(str(part / "train.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        waiting = iter(rows)
        while batch := list(islice(waiting, 256)):
            writer.write_batch(pa.record_batch([list(column) for column in zip(*batch, strict=True)], schema=schema))
    (part / "tokens.json").write_text(json.dumps(done()))
    part.rename(folder)


def describe(findings: Findings, recipe: Recipe) -> str:
    """Return what the guards saw, in words."""
    is_part = findings.num_encoded < findings.num_rows
    rows = (
        f"{findings.num_encoded} of {findings.num_rows} rows, and the ids of all"
        if is_part
        else f"{findings.num_rows} rows"
    )
    return (
        f"guards: {rows}, no fault; {findings.num_too_long} longer than "
        f"{recipe.train.max_length} tokens are dropped; {findings.num_tokens} tokens, {findings.num_learnt} of them "
        f"learnt; the longest row has {findings.longest}"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def full_table(selection: Path, name: str) -> Table:
    """Return a table of a selection that has rows.

    Raises:
        ConfigError: If it has none.
    """
    table = open_table(selection, name)
    if table is None or table.num_rows == 0:
        raise ConfigError(f"--data {selection}: table {name} has no rows: nothing to learn from")
    return table


def guards_of(recipe: Recipe, selection: Path, name: str) -> TableGuards:
    """Return the guards of a table: against the recipe's benchmarks and the selection's validation split."""
    fingerprints = load_benchmarks(recipe.guards.against, "guards.against")
    validation = open_table(selection, name, "validation")
    elsewhere: list[str] = []
    if validation is not None:
        elsewhere = [row["problem_id"] for batch in validation.read(["problem_id"], 4096) for row in batch]
    return TableGuards(Protection(fingerprints), elsewhere)


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in LIBRARIES}
    except PackageNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; it comes with: pip install 'distillation-factory[students]'"
        ) from None


def _first_rows(folder: Path) -> list[dict[str, list[int]]]:
    with pa.memory_map(str(folder / "train.arrow")) as file, pa.ipc.open_stream(file) as reader:
        rows: list[dict[str, list[int]]] = reader.read_next_batch().slice(0, 8).to_pylist()
        return rows


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
    elif old != new:
        yield key, old, new


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
