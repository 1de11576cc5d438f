"""Layouts: how a row of a table looks to a trainer, the settings by which the trainer finds it, and its traps.

Pure functions on plain values, for `export`. Invariant: the text of every turn goes through to the letter; a row that a
layout has no place for gives a ``LeftOut`` with the reason, never a row that says something else.

Sources: LLaMA-Factory `data/README.md` and `src/llamafactory/data/converter.py`; axolotl `docs/dataset-formats` and
`docs/rlhf.qmd`; verl `verl/utils/dataset/rl_dataset.py` and `multiturn_sft_dataset.py`; NeMo RL `docs/guides/sft.md`,
`dpo.md` and their dataset classes; OpenAI's guides on supervised and direct-preference fine-tuning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from schemas.tables import PREFERENCE, RL_PROMPTS, SFT

Row = Mapping[str, Any]
Files = Mapping[str, Mapping[str, str]]  # name of the file by table and split; those that were written

VALIDATION: Final = "validation"
# Line ends to `str.splitlines` and to editors, though not to JSON: escaped, so that a line stays a line.
_LINE_ENDS: Final = {ord(char): f"\\u{ord(char):04x}" for char in "\u0085\u2028\u2029"}


class LeftOut(Exception):
    """A row that the layout has no place for; its text is the reason, one of a few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What becomes of one table."""

    table: str  # as in `schemas/tables.py`
    stem: str  # of the file's name: STEM_train.jsonl
    columns: tuple[str, ...]  # that are read
    to_row: Callable[[Row], Row]  # raises LeftOut
    schema: pa.Schema | None = None  # of a Parquet file; null: JSON Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A trainer's files."""

    parts: tuple[Part, ...]
    settings: Callable[[Files], Mapping[str, str]]  # more files, by name
    hints: tuple[str, ...]  # what goes wrong silently, one line each


def json_line(row: Row) -> bytes:
    """Return a row as one line of JSON in UTF-8, which no reader takes for two."""
    return (json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS) + "\n").encode()


# Turns.


def _turn(turn: Row) -> dict[str, str]:
    return {"role": str(turn["role"]), "content": str(turn["content"])}


def _turns(turns: Sequence[Row]) -> list[dict[str, str]]:
    return [_turn(turn) for turn in turns]


def _one(turns: Sequence[Row]) -> dict[str, str]:
    assert len(turns) == 1, "a completion is one turn"
    return _turn(turns[0])


def _split_system(turns: Sequence[Row]) -> tuple[str, list[Row]]:
    """Return the text of a leading system turn, and the other turns."""
    if turns and turns[0]["role"] == "system":
        return str(turns[0]["content"]), list(turns[1:])
    return "", list(turns)


# LLaMA-Factory: ShareGPT.

_SHAREGPT: Final = {"user": "human", "assistant": "gpt"}


def _sharegpt(turns: Sequence[Row]) -> dict[str, Any]:
    """Turns must alternate, or the trainer skips the example with no more than a warning."""
    system, rest = _split_system(turns)
    for place, turn in enumerate(rest):
        if turn["role"] != ("user", "assistant")[place % 2]:
            raise LeftOut("turns do not alternate between user and assistant")
    said = [{"from": _SHAREGPT[turn["role"]], "value": str(turn["content"])} for turn in rest]
    return {"system": system, "conversations": said}


def _sharegpt_sft(row: Row) -> Row:
    return _sharegpt(row["messages"])


def _sharegpt_preference(row: Row) -> Row:
    sides = {name: {"from": "gpt", "value": _one(row[name])["content"]} for name in ("chosen", "rejected")}
    return {**_sharegpt(row["prompt"]), **sides}


def _dataset_info(files: Files) -> Mapping[str, str]:
    columns = {"messages": "conversations", "system": "system"}
    found: dict[str, Any] = {}
    for table, splits in files.items():
        for split, name in splits.items():
            key = table if split != VALIDATION else f"{table}_{VALIDATION}"
            found[key] = {"file_name": name, "formatting": "sharegpt", "columns": columns}
            if table == "preference":
                both = {"chosen": "chosen", "rejected": "rejected"}
                found[key] |= {"ranking": True, "columns": {**columns, **both}}
    return {"dataset_info.json": json.dumps(found, indent=2) + "\n"}


# axolotl: messages, and the blocks of its configuration.


def _messages_sft(row: Row) -> Row:
    return {"messages": _turns(row["messages"])}


def _messages_preference(row: Row) -> Row:
    return {"messages": _turns(row["prompt"]), "chosen": _one(row["chosen"]), "rejected": _one(row["rejected"])}


_AXOLOTL_SFT: Final = """    type: chat_template
    field_messages: messages
    message_property_mappings: {role: role, content: content}
    roles_to_train: [assistant]
    train_on_eos: turn
"""
_AXOLOTL_DPO: Final = """    type: chat_template.default
    field_messages: messages
    field_chosen: chosen
    field_rejected: rejected
    message_property_mappings: {role: role, content: content}
    roles: {user: [user], assistant: [assistant], system: [system]}
"""


def _axolotl_yaml(files: Files) -> Mapping[str, str]:
    found = {}
    for table, block in (("sft", _AXOLOTL_SFT), ("preference", _AXOLOTL_DPO)):
        if table not in files:
            continue
        lines = ["# Into your axolotl configuration; put the path of this folder in front of the names.\n"]
        lines += ["rl: dpo\n"] if table == "preference" else []
        for split, key in (("train", "datasets"), (VALIDATION, "test_datasets")):
            if split in files[table]:
                lines.append(f"{key}:\n  - path: {files[table][split]}\n    ds_type: json\n    split: train\n{block}")
        found[f"axolotl_{table}.yaml"] = "".join(lines)
    return found


# verl: Parquet.

VERL_RL: Final = pa.schema(
    [RL_PROMPTS.field(name) for name in ("data_source", "prompt", "ability", "reward_model", "extra_info")]
)
VERL_SFT: Final = pa.schema([SFT.field("messages")])


def _verl_rl(row: Row) -> Row:
    if row["reward_model"] is None or row["reward_model"]["ground_truth"] is None:
        raise LeftOut("no reference to reward by")
    return row


# NeMo: input and output, and ranked completions.


def _input_output(row: Row) -> Row:
    *asked, answered = row["messages"]
    if len(asked) != 1:
        raise LeftOut("input and output have no place for a system turn or for several turns")
    return {"input": str(asked[0]["content"]), "output": str(answered["content"])}


def _ranked(row: Row) -> Row:
    completions = [{"rank": rank, "completion": _turns(row[name])} for rank, name in enumerate(("chosen", "rejected"))]
    return {"context": _turns(row["prompt"]), "completions": completions}


# OpenAI.


def _openai_sft(row: Row) -> Row:
    """Only the last turn is a completion of the teacher's: earlier ones of an assistant are not to be learnt."""
    turns: list[dict[str, Any]] = [dict(turn) for turn in _turns(row["messages"])]
    for turn in turns[:-1]:
        if turn["role"] == "assistant":
            turn["weight"] = 0
    return {"messages": turns}


def _openai_preference(row: Row) -> Row:
    return {
        "input": {"messages": _turns(row["prompt"])},
        "preferred_output": _turns(row["chosen"]),
        "non_preferred_output": _turns(row["rejected"]),
    }


def _no_settings(files: Files) -> Mapping[str, str]:
    return {}


def _sft(to_row: Callable[[Row], Row], schema: pa.Schema | None = None) -> Part:
    return Part(table="sft", stem="sft", columns=("messages", "num_tokens"), to_row=to_row, schema=schema)


def _preference(to_row: Callable[[Row], Row]) -> Part:
    columns = ("prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens")
    assert set(columns) <= set(PREFERENCE.names)
    return Part(table="preference", stem="preference", columns=columns, to_row=to_row)


LAYOUTS: Final[Mapping[str, Layout]] = {
    "llamafactory": Layout(
        parts=(_sft(_sharegpt_sft), _preference(_sharegpt_preference)),
        settings=_dataset_info,
        hints=(
            "dataset_dir: this folder; dataset: sft; eval_dataset: sft_validation, where there is one.",
            "cutoff_len is 2048 unless you set it, and longer rows are cut without a word: set it above the longest.",
            "A reasoning template (deepseekr1, qwen3, ...) takes the thinking out of earlier turns and puts an empty "
            "one before an answer without: use a plain one (qwen, llama3), whose completions begin with <think>.",
            "packing: true mixes rows that see one another; neat_packing: true keeps them apart.",
            "mask_history: true, where rows have earlier turns of an assistant: else these are learnt too.",
        ),
    ),
    "axolotl": Layout(
        parts=(_sft(_messages_sft), _preference(_messages_preference)),
        settings=_axolotl_yaml,
        hints=(
            "Copy axolotl_sft.yaml (for DPO axolotl_preference.yaml) into your configuration.",
            "sequence_len must be above the longest row: longer ones are dropped or cut, by sequence_len_overflow.",
            "chat_template: a template that strips or rewrites <think> (R1's, Qwen3's) loses the reasoning: give one "
            "that keeps every turn to the letter, such as jobs/students/templates, by chat_template_jinja.",
            "eos_token under special_tokens must be what the template ends a turn with, or the student never stops.",
            "roles_to_train: [assistant] learns earlier turns of an assistant too, where rows have some.",
        ),
    ),
    "verl": Layout(
        parts=(
            Part(table="rl_prompts", stem="rl", columns=tuple(VERL_RL.names), to_row=_verl_rl, schema=VERL_RL),
            _sft(_messages_sft, VERL_SFT),
        ),
        settings=_no_settings,
        hints=(
            "data.train_files: rl_train.parquet (GRPO, PPO), or sft_train.parquet with data.messages_key=messages.",
            "verl's own reward knows a few names of data_source: for others give custom_reward_function.path, such as "
            "one that calls verifiers.math.judge_answer(solution, ground_truth).",
            "The ground_truth of programs is the tests as JSON (schemas/problem.py), not verl's own layout of tests.",
            "max_prompt_length and the max_length of SFT are 1024 unless you set them; SFT stops at a longer row "
            "(truncation: error).",
            "SFT renders each message by itself: a template that strips <think> loses the reasoning.",
        ),
    ),
    "nemo": Layout(
        parts=(_sft(_input_output), _preference(_ranked)),
        settings=_no_settings,
        hints=(
            "NeMo RL: train_data_path: sft_train.jsonl, with input_key: input and output_key: output (the defaults).",
            "`input` is the question without any template: the tokenizer's is put around it. With "
            "tokenizer.chat_template: null nothing is, and the student sees no mark between question and answer.",
            "A template that strips <think> (R1's, Qwen3's) loses the reasoning.",
            "Rows with a system turn have no place in input and output: build a selection without select.system.",
        ),
    ),
    "openai": Layout(
        parts=(_sft(_openai_sft), _preference(_openai_preference)),
        settings=_no_settings,
        hints=(
            "At least 10 lines are needed; the validation file goes in as validation_file.",
            "Lines above the model's limit of training tokens are cut or refused; see the longest below.",
            "<think> blocks are learnt as plain text of the answer: hosted reasoning models have their own.",
        ),
    ),
}
