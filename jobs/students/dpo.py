"""Preference training of a saved student, from the table `preference`: guards of pairs, and where it starts.

It starts from a folder, never from a model in memory: TRL makes the reference from where a model was loaded, so one
that was just trained in memory would be compared with what it was before. The rest is `sft.carry_out`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from jobs.students.guards import ROW_GUARDS, Findings, TableGuards, look_at_ids
from jobs.students.launching import launch
from jobs.students.prepare_base import prepare_base, read_template
from jobs.students.recipe import Recipe
from jobs.students.rows import Encoded, Row, Student, Table, load_student, only_turn, open_data, row_of
from jobs.students.sft import TABLES, Launcher, Say, carry_out, describe, full_table, guards_of, write_tokens
from schemas.errors import ConfigError, GuardError

PAIRS_SCHEMA: Final = pa.schema([(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")])
_COLUMNS: Final = ("pair_id", "problem_id", "prompt", "chosen", "rejected")


class Pair(NamedTuple):
    """A pair as tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def prefer(
    recipe: Recipe,
    model: Path,
    data: str,
    out: Path,
    say: Say,
    launch: Launcher = launch,
    *,
    is_shared: bool = False,
) -> Path:
    """Return the folder of a student trained on pairs: OUT/model. Run again after any interruption, it goes on.

    Raises:
        GuardError: If a guard refuses the pairs or the model; nothing is started then.
        FingerprintError: If OUT belongs to another recipe, model, other data or other libraries.
        FactoryError: If training broke off.
    """
    return carry_out("dpo", starting_from(recipe, model), data, out, write_pairs, say, launch, is_shared=is_shared)


def check_pairs(recipe: Recipe, model: Path, data: str, folder: Path, say: Say) -> Findings:
    """Run the guards of ids on a table of pairs and all others on a sample of it; return what they saw.

    Raises:
        GuardError: If one refuses.
    """
    recipe, selection = starting_from(recipe, model), open_data(data)
    student = load_student(prepare_base(recipe, folder / "base", with_weights=False), recipe)
    table, findings = full_table(selection, TABLES["dpo"]), Findings()
    guards = guards_of(recipe, selection, table.name)
    look_at_ids(table.ids("pair_id"), guards, findings)
    for _ in look_at_pairs(table, student, guards, findings, is_sample=True):
        pass
    findings.refuse()
    say(describe(findings, recipe))
    return findings


def check_spread(recipe: Recipe) -> None:
    """See that pairs can be spread as the recipe says.

    Raises:
        ConfigError: If it shares the tokens of a row out.
    """
    if recipe.launch.kind == "sequence_parallel":
        raise ConfigError(
            "launch.kind=sequence_parallel: factory dpo cannot share the tokens of a pair out over GPUs; --set "
            "launch.kind=zero3 --set launch.sequence_parallel=1, or fsdp2"
        )


def starting_from(recipe: Recipe, model: Path) -> Recipe:
    """Return the recipe with a saved model as its base.

    Raises:
        ConfigError: If there is no such folder or template, or the recipe shares the tokens of a row out.
        GuardError: If the model was taught with another template.
    """
    check_spread(recipe)
    model = model.expanduser().resolve()
    if not (model / "config.json").is_file():
        near = f"did you mean {model / 'model'}? " if (model / "model" / "config.json").is_file() else ""
        raise ConfigError(f"--model {model}: holds no model; {near}give the folder that `factory sft` wrote: OUT/model")
    template = model / "chat_template.jinja"
    if not template.is_file() or template.read_text(encoding="utf-8") != read_template(recipe.base):
        raise GuardError(
            f"guard question: the chat template of {model} is not the recipe's ({recipe.base.of.template.name}): it "
            "was taught to be asked otherwise; take the recipe that it was fine-tuned with"
        )
    changed = {"model": str(model), "revision": None, "tokenizer": None, "rope_theta": None}
    return recipe.model_copy(update={"base": recipe.base.model_copy(update=changed)})


def write_pairs(table: Table, student: Student, guards: TableGuards, folder: Path) -> Findings:
    """Write pairs as tokens, whole or not at all, if no guard refuses them; return what the guards saw."""
    findings, counts = Findings(), dict.fromkeys(PAIRS_SCHEMA.names, 0)

    def pairs() -> Iterator[Pair]:
        for pair in look_at_pairs(table, student, guards, findings):
            for name, ids in zip(counts, pair, strict=True):
                counts[name] += len(ids)
            yield pair

    def done() -> dict[str, int]:
        findings.refuse()
        return counts

    write_tokens(pairs(), PAIRS_SCHEMA, folder, done)
    return findings


def look_at_pairs(
    table: Table, student: Student, guards: TableGuards, findings: Findings, *, is_sample: bool = False
) -> Iterator[Pair]:
    """Yield the pairs that fit, encoded, and note what is wrong with any; the ids of a sample were looked at before."""
    find = guards.find_item if is_sample else guards.find
    for batch in table.sample(_COLUMNS) if is_sample else table.read(_COLUMNS):
        rows = [(_row(raw, "chosen"), _row(raw, "rejected")) for raw in batch]
        if not is_sample:
            findings.num_rows += len(rows)
        chosen, rejected = (student.encode(side) for side in zip(*rows, strict=True))
        for better, worse in zip(chosen, rejected, strict=True):
            for guard, fault in find(better.row):
                findings.add(guard, better.row, fault)
            if better.row.completion == worse.row.completion:
                findings.add("pairs", better.row, "chosen and rejected are the same text: nothing to prefer")
            findings.num_encoded += 1
            longest = max(len(better.token_ids), len(worse.token_ids))
            findings.longest = max(findings.longest, longest)
            if longest > student.max_length:
                findings.num_too_long += 1
                continue
            yield _pair(better, worse, student, findings)


def _pair(better: Encoded, worse: Encoded, student: Student, findings: Findings) -> Pair:
    for side, encoded in (("chosen", better), ("rejected", worse)):
        for name, guard in ROW_GUARDS.items():
            if (fault := guard(encoded, student)) is not None:
                findings.add(name, encoded.row, f"{side} {fault}")
    num_prompt = len(better.asked_ids)
    pair = Pair(better.asked_ids, better.token_ids[num_prompt:], worse.token_ids[num_prompt:])
    findings.num_tokens += 2 * num_prompt + len(pair.chosen_ids) + len(pair.rejected_ids)
    findings.num_learnt += len(pair.chosen_ids) + len(pair.rejected_ids)
    return pair


def _row(raw: dict[str, Any], side: str) -> Row:
    return row_of(raw, "pair_id", only_turn(raw[side], f"pair {raw['pair_id']}: {side}"))
