"""The tables for students follow from the candidates, as their schemas say."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.derived import turns
from factory.selection import split_of
from factory.tables import write_tables
from schemas.arrow import MESSAGES_TYPE
from schemas.config import PreferenceConfig, SelectConfig
from schemas.problem import Answer, Scorer
from schemas.tables import SCHEMAS
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Check, Outcome, Reason
from tests.factory.test_tables import (
    CORRECT,
    UNJUDGED,
    UNREADABLE,
    WRONG,
    digest,
    judged,
    make_content,
    make_problem,
    make_trace,
    read,
    run_contents,
)
from tests.strategies import messages, texts

BAD = Check(name="math", version="1", outcome=Outcome.BAD_REFERENCE, reason=Reason.UNPARSED_REFERENCE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a selection over four problems: attempts of any kind, none right, no reference, a bad reference."""
    first, second = make_problem(6), make_problem(7)
    third, fourth = make_problem(8, reference=None), make_problem(9, reference=Answer(text="??"))
    checks = [(CORRECT,), (CORRECT,), (WRONG,), (UNREADABLE, CORRECT), (UNJUDGED,), (WRONG,)]
    traced = [make_trace(first, n, num_completion_tokens=100 * (n + 1)) for n in range(len(checks))]
    traced.append(make_trace(first, 6, finish_reason=FinishReason.LENGTH, format=TraceFormat.R1_PREFILLED, text="so"))
    said = [judged(trace, *found) for trace, found in zip(traced, checks, strict=False)]
    for problem, found in ((second, WRONG), (third, UNREADABLE), (fourth, BAD)):
        traced.append(make_trace(problem, 0))
        said.append(judged(traced[-1], found))
    config = SelectConfig(max_per_problem=1, system="Think first.", preference=PreferenceConfig(longer=1.5))
    return write_tables(
        tmp_path_factory.mktemp("demo"), make_content([first, second, third, fourth], traced, said), config
    ).folder


def assistant(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": row["text"]}]


def test_messages_are_prompt_and_completion(demo):
    (one,), (other,) = read(demo, "sft"), read(demo, "sft_prompt_completion")
    assert one.pop("messages") == other.pop("prompt") + other.pop("completion")
    assert one == other


def test_pairs_hold_the_texts_of_their_traces(demo):
    by_id = {row["trace_id"]: row for row in read(demo, "candidates")}
    rows = read(demo, "preference")
    assert {row["rule"] for row in rows} == {"long2short_dpo"}
    for row in rows:
        chosen, rejected = by_id[row["chosen_trace_id"]], by_id[row["rejected_trace_id"]]
        assert (row["chosen"], row["rejected"]) == (assistant(chosen), assistant(rejected))
        assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
        assert (row["rejected_outcome"], row["rejected_reason"]) == (rejected["outcome"], rejected["reason"])
        assert (row["chosen_tokens"], row["rejected_tokens"]) == tuple(
            one["num_completion_tokens"] for one in (chosen, rejected)
        )
        assert (chosen["outcome"], chosen["problem_id"]) == ("correct", row["problem_id"])


def test_groups_hold_rewards_and_advantages(demo):
    by_problem = defaultdict(list)
    for row in read(demo, "grpo_groups"):
        by_problem[row["reference"]].append(row)
    assert sorted(by_problem) == ["42", "49"], "nothing to compare: in no group"
    rows = by_problem["42"]
    assert [row["reward"] for row in rows].count(1.0) == 3
    assert {(row["group_size"], row["group_mean"], row["has_variance"]) for row in rows} == {(5, 0.6, True)}
    assert sum(row["advantage"] for row in rows) == pytest.approx(0)
    (alone,) = by_problem["49"]
    assert (alone["advantage"], alone["has_variance"]) == (0.0, False)


def test_prompts_say_how_often_they_were_solved(demo):
    rows = {row["answer"]: row for row in read(demo, "rl_prompts")}
    assert sorted(rows) == ["42", "49"], "no reference, or one that cannot be used: nothing to reward"
    row = rows["42"]
    assert (row["num_true"], row["num_judged"], row["pass_rate"]) == (3, 5, 0.6)
    assert (row["num_attempts"], row["num_unjudged"], row["num_truncated"]) == (7, 1, 1)
    assert row["reward_model"] == {"style": "rule", "ground_truth": "42"}
    assert row["extra_info"] == {"index": row["problem_id"], "source_row_id": "6", "split": "train"}
    assert (row["data_source"], row["ability"], row["answer_kind"]) == ("mine", "math", "answer")


def test_a_scorer_is_a_ground_truth_as_json(tmp_path):
    problem = make_problem(1, reference=Scorer(name="reasoning_gym/sudoku", payload="{}"))
    content = make_content([problem], [make_trace(problem, 0)], [])
    (row,) = read(write_tables(tmp_path, content, SelectConfig()).folder, "rl_prompts")
    assert row["answer_kind"] == "scorer"
    assert json.loads(row["reward_model"]["ground_truth"])["name"] == "reasoning_gym/sudoku"


@settings(max_examples=15, deadline=None)
@given(run_contents(), st.floats(0.01, 0.99))
def test_rows_are_sorted_and_splits_share_no_problem(tmp_path_factory, parts, share):
    config = SelectConfig(validation_share=share)
    folder = write_tables(tmp_path_factory.mktemp("any"), make_content(*parts), config).folder
    ids = {row["trace_id"] for row in read(folder, "candidates")}
    for name in SCHEMAS:
        if name == "runs":
            continue
        own = {"preference": "pair_id", "rl_prompts": "problem_id"}.get(name, "trace_id")
        for path in (folder / name).iterdir():
            rows = pa.parquet.read_table(path).to_pylist()
            keys = [(row["problem_id"], row[own]) for row in rows]
            assert keys == sorted(set(keys))
            split = path.name.partition("-")[0]
            if name != "candidates":
                assert all(split_of(row["problem_id"], share) == split for row in rows)
            assert own != "trace_id" or {row["trace_id"] for row in rows} <= ids
            assert split == "train" or rows


def test_datasets_loads_a_folder_with_both_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    found = [make_problem(number) for number in range(30)]
    traced = [make_trace(problem, 0) for problem in found]
    content = make_content(found, traced, [judged(trace, CORRECT) for trace in traced])
    folder = write_tables(tmp_path, content, SelectConfig(validation_share=0.3)).folder
    splits = json.loads((folder / "manifest.json").read_text())["configs"]["sft"]["splits"]
    for loaded in (
        datasets.load_dataset(str(folder / "sft"), cache_dir=str(tmp_path / "cache")),
        datasets.load_dataset(
            "parquet",
            data_files={split: str(folder / "sft" / f"{split}-*.parquet") for split in splits},
            cache_dir=str(tmp_path / "cache"),
        ),
    ):
        assert {split: digest(rows.data.table) for split, rows in loaded.items()} == {
            split: entry["rows_sha256"] for split, entry in splits.items()
        }
    assert sum(entry["rows"] for entry in splits.values()) == 30


@given(st.lists(st.lists(messages, max_size=3), max_size=5), st.none() | texts, st.data())
def test_turns_are_the_system_turn_the_messages_and_the_completion(conversations, first, data):
    has_last = data.draw(st.booleans())
    last = data.draw(st.lists(texts, min_size=len(conversations), max_size=len(conversations))) if has_last else None
    rows = [[{"role": turn.role, "content": turn.content} for turn in turns_] for turns_ in conversations]
    array = pa.array([[{"role": "x", "content": "y"}], *rows], MESSAGES_TYPE)[1:]
    found = turns(array, first=first, last=None if last is None else pa.array(last, pa.string())).to_pylist()
    system = [] if first is None else [{"role": "system", "content": first}]
    ends = [[]] * len(rows) if last is None else [[{"role": "assistant", "content": text}] for text in last]
    assert found == [[*system, *row, *end] for row, end in zip(rows, ends, strict=True)]
