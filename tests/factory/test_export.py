"""Exports: what a trainer reads is what was stored, the same each time, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.export import Exported, export_selection, put_in_place, selection_folder
from factory.layouts import LAYOUTS, json_line
from schemas.errors import ConfigError, StoreError
from tests.smalltables import preference_row, rl_row, sft_row, turn, write_selection

HOSTILE = (
    "<think>\nline\r\nends \u2028 and \u2029 and \x85 and \x0b\x0c\x1c\n</think>\n\n",
    '{"role": "system"} {{ messages }} {% raw %} ${HOME} `id` <|im_end|> </s>',
    "\x00 nul, \ufeff mark, \U0001f600 face, e\u0301, \u202e turned",
    "  kept blanks \n\n",
    "- yaml: [no]\n# comment\n---\n",
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def export(folder: Path, format_name: str, out: Path) -> Exported:
    return export_selection(folder, format_name, out, lambda _: None)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of JSON Lines, cut as a careless reader cuts them."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def selection(tmp_path: Path) -> Path:
    """Return a selection with hostile texts in all tables that are exported."""
    sft = [sft_row(f"Question {n}? {text}", text + str(n)) for n, text in enumerate(HOSTILE)]
    pairs = [preference_row(f"Question? {text}", text, text + " worse") for text in HOSTILE]
    prompts = [rl_row(f"Question? {text}", text) for text in HOSTILE]
    tables = {
        "sft": {"train": sft, "validation": sft[:2]},
        "preference": {"train": pairs, "validation": []},
        "rl_prompts": {"train": [*prompts, rl_row("Prove it.", None)], "validation": prompts[:1]},
    }
    return write_selection(tmp_path / "selection", tables)


# How each trainer comes from its files to (turns before, completion); by the sources named in `layouts`.


def _from_messages(row: Mapping[str, Any]) -> tuple[list[str], str]:
    *before, last = row["messages"]
    assert last["role"] == "assistant"
    return [turn["content"] for turn in before], last["content"]


def _llamafactory(out: Path) -> list[tuple[list[str], str]]:
    info = json.loads((out / "dataset_info.json").read_text())["sft"]
    assert info["formatting"] == "sharegpt"
    read = datasets.load_dataset("json", data_files=str(out / info["file_name"]), split="train")
    found = []
    for row in read:
        turns = row[info["columns"]["messages"]]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        before = [row[info["columns"]["system"]]] if row[info["columns"]["system"]] else []
        found.append(([*before, *(turn["value"] for turn in turns[:-1])], turns[-1]["value"]))
    return found


def _axolotl(out: Path) -> list[tuple[list[str], str]]:
    (entry,) = yaml.safe_load((out / "axolotl_sft.yaml").read_text())["datasets"]
    assert (entry["type"], entry["roles_to_train"]) == ("chat_template", ["assistant"])
    read = datasets.load_dataset(entry["ds_type"], data_files=str(out / entry["path"]), split=entry["split"])
    return [_from_messages({"messages": row[entry["field_messages"]]}) for row in read]


def _verl(out: Path) -> list[tuple[list[str], str]]:
    read = datasets.load_dataset("parquet", data_files=str(out / "sft_train.parquet"), split="train")
    return [_from_messages(row) for row in read]


def _nemo(out: Path) -> list[tuple[list[str], str]]:
    read = datasets.load_dataset("json", data_files=str(out / "sft_train.jsonl"), split="train")
    return [([row["input"]], row["output"]) for row in read]


def _openai(out: Path) -> list[tuple[list[str], str]]:
    return [_from_messages(row) for row in lines(out / "sft_train.jsonl")]


READERS: Mapping[str, Callable[[Path], list[tuple[list[str], str]]]] = {
    "llamafactory": _llamafactory,
    "axolotl": _axolotl,
    "verl": _verl,
    "nemo": _nemo,
    "openai": _openai,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_trainer_reads_every_completion_to_the_letter(
    tmp_path: Path, selection: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export(selection, name, tmp_path / "out")
    expected = [([f"Question {n}? {text}"], text + str(n)) for n, text in enumerate(HOSTILE)]
    assert READERS[name](tmp_path / "out") == expected


@given(texts, texts)
@example("\u2028\u2029\x85", "\r\n\x1e")
def test_a_line_of_json_is_one_line_to_any_reader(one: str, other: str) -> None:
    line = json_line({"a": one, "b": [other]}).decode()
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {"a": one, "b": [other]}


@settings(max_examples=15)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_any_text_comes_through_every_layout(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [sft_row(question, completion) for question, completion in pairs]
    write_selection(folder / "s", {"sft": {"train": rows}})
    for name in LAYOUTS:
        export(folder / "s", name, folder / name)
    assert [(row["input"], row["output"]) for row in lines(folder / "nemo/sft_train.jsonl")] == pairs
    for name in ("axolotl", "openai"):
        found = [_from_messages(row) for row in lines(folder / name / "sft_train.jsonl")]
        assert found == [([question], completion) for question, completion in pairs]
    shared = [row["conversations"] for row in lines(folder / "llamafactory/sft_train.jsonl")]
    assert [(row[0]["value"], row[1]["value"]) for row in shared] == pairs
    read = pq.read_table(folder / "verl/sft_train.parquet").to_pylist()
    assert [row["messages"] for row in read] == [row["messages"] for row in rows]


def test_pairs_keep_their_sides(tmp_path: Path, selection: Path) -> None:
    for name in ("llamafactory", "axolotl", "nemo", "openai"):
        export(selection, name, tmp_path / name)
    worse = [text + " worse" for text in HOSTILE]
    for name in ("llamafactory", "axolotl"):
        rows = lines(tmp_path / name / "preference_train.jsonl")
        key = {"llamafactory": "value", "axolotl": "content"}[name]
        assert [row["chosen"][key] for row in rows] == list(HOSTILE)
        assert [row["rejected"][key] for row in rows] == worse
    rows = lines(tmp_path / "nemo/preference_train.jsonl")
    assert [[c["completion"][0]["content"] for c in row["completions"]] for row in rows] == [
        [text, text + " worse"] for text in HOSTILE
    ]
    assert {tuple(c["rank"] for c in row["completions"]) for row in rows} == {(0, 1)}
    rows = lines(tmp_path / "openai/preference_train.jsonl")
    assert [row["preferred_output"][0]["content"] for row in rows] == list(HOSTILE)
    assert [row["non_preferred_output"][0]["content"] for row in rows] == worse
    info = json.loads((tmp_path / "llamafactory/dataset_info.json").read_text())
    assert info["preference"]["ranking"] is True
    assert set(info) == {"sft", "sft_validation", "preference"}
    assert yaml.safe_load((tmp_path / "axolotl/axolotl_preference.yaml").read_text())["rl"] == "dpo"


def test_verl_gets_prompts_with_something_to_reward_by(tmp_path: Path, selection: Path) -> None:
    exported = export(selection, "verl", tmp_path / "out")
    read = pq.read_table(tmp_path / "out/rl_train.parquet")
    assert read.column_names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert [row["reward_model"]["ground_truth"] for row in read.to_pylist()] == list(HOSTILE)
    assert exported.left_out == {"rl_prompts": {"no reference to reward by": 1}}
    assert pq.read_table(tmp_path / "out/rl_validation.parquet").num_rows == 1
    assert any("Left out of rl_prompts: 1 rows" in hint for hint in exported.hints)


def test_rows_that_a_layout_has_no_place_for_are_counted(tmp_path: Path) -> None:
    rows = [
        sft_row("a", "1"),
        sft_row("b", "2", turn("system", "Be brief.")),
        sft_row("c", "3", turn("user", "hello"), turn("assistant", "hi")),
        sft_row("d", "4", turn("user", "no answer between")),
    ]
    folder = write_selection(tmp_path / "s", {"sft": {"train": rows}})
    left = {name: export(folder, name, tmp_path / name).left_out for name in LAYOUTS}
    assert left["llamafactory"] == {"sft": {"turns do not alternate between user and assistant": 1}}
    assert sum(left["nemo"]["sft"].values()) == 3
    assert left["axolotl"] == left["openai"] == left["verl"] == {}
    shared = lines(tmp_path / "llamafactory/sft_train.jsonl")
    assert [row["system"] for row in shared] == ["", "Be brief.", ""]
    said = lines(tmp_path / "openai/sft_train.jsonl")[2]["messages"]
    assert [turn.get("weight") for turn in said] == [None, 0, None, None], "not a completion of the teacher's"


def test_the_manifest_counts_and_hashes_what_is_there(tmp_path: Path, selection: Path) -> None:
    for name in LAYOUTS:
        out = tmp_path / name
        export(selection, name, out)
        body = json.loads((out / "manifest.json").read_text())
        assert {path.name for path in out.iterdir()} == {"manifest.json", *(file["name"] for file in body["files"])}
        for file in body["files"]:
            data = (out / file["name"]).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["num_bytes"])
        rows = {file["name"]: file["rows"] for file in body["files"] if file["rows"]}
        assert next(count for key, count in rows.items() if key.startswith("sft_train")) == len(HOSTILE)
        assert next(count for key, count in rows.items() if key.startswith("sft_validation")) == 2
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


SCRIPT = """
import sys
from pathlib import Path
from factory.export import export_selection
for name in ("llamafactory", "verl"):
    export_selection(Path(sys.argv[1]), name, Path(sys.argv[2]) / name, lambda _: None)
"""


def test_the_same_tables_give_the_same_bytes_in_any_environment(tmp_path: Path, selection: Path) -> None:
    found = []
    for number, zone in enumerate(("Asia/Tokyo", "America/New_York")):
        folder = tmp_path / f"cwd-{number}"
        folder.mkdir()
        environment = {
            "TZ": zone,
            "PYTHONHASHSEED": str(number),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "LC_ALL": "C",
        }
        arguments = [sys.executable, "-c", SCRIPT, str(selection), str(folder)]
        subprocess.run(arguments, env=environment, cwd=folder, check=True, timeout=120)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert found[0] == found[1]


def test_a_folder_with_other_files_is_refused_and_a_former_export_replaced(tmp_path: Path, selection: Path) -> None:
    out = tmp_path / "out"
    export(selection, "nemo", out)
    before = (out / "sft_train.jsonl").read_bytes()
    export(selection, "openai", out)
    export(selection, "nemo", out)
    assert (out / "sft_train.jsonl").read_bytes() == before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other files \(notes\.txt\)"):
        export(selection, "nemo", out)
    assert (out / "notes.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        export(selection, "nemo", file)
    (tmp_path / "empty").mkdir()
    killed = tmp_path / ".empty.abc.export.tmp"
    killed.mkdir()
    export(selection, "nemo", tmp_path / "empty")
    assert not killed.exists()


def test_the_current_folder_is_refused_before_any_work_and_one_in_it_is_written(
    tmp_path: Path, selection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="is the folder that you are in"):
        export(selection, "nemo", Path())
    for _ in range(2):
        assert export(selection, "nemo", Path("out")).folder == tmp_path / "here" / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "selection"]


def test_a_former_export_stays_where_the_new_one_cannot_take_its_place(tmp_path: Path, selection: Path) -> None:
    out = tmp_path / "out"
    export(selection, "nemo", out)
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "lost", out, tmp_path / "aside")
    assert (out / "sft_train.jsonl").is_file()
    assert not (tmp_path / "aside").exists()


def test_a_selection_that_is_not_as_its_manifest_says_leaves_nothing_behind(tmp_path: Path, selection: Path) -> None:
    out = tmp_path / "out"
    first, second = sorted((selection / "sft").glob("train-*"))
    kept = tmp_path / "kept.parquet"
    shutil.move(second, kept)
    with pytest.raises(StoreError, match=r"sft/train-00001-of-00002\.parquet: is in the manifest and not there"):
        export(selection, "nemo", out)
    shutil.copy(first, second)
    with pytest.raises(StoreError, match=r"sft/train-00001-of-00002\.parquet: has .* the manifest says"):
        export(selection, "nemo", out)
    shutil.copy(kept, second)
    body = json.loads((selection / "manifest.json").read_text())
    table = pq.read_table(second)
    pq.write_table(table.set_column(0, table.schema.names[0], pa.array([1, 2])), second)
    entry = next(file for file in body["files"] if file["name"] == f"sft/{second.name}")
    entry |= {"num_bytes": second.stat().st_size, "sha256": hashlib.sha256(second.read_bytes()).hexdigest()}
    (selection / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(StoreError, match=r"parquet: column 'trace_id' is int64, not string"):
        export(selection, "nemo", out)
    (selection / "manifest.json").write_text(json.dumps({**body, "version": 1}))
    with pytest.raises(ConfigError, match="no manifest of tables of version"):
        export(selection, "nemo", out)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_a_copy_without_the_tables_that_a_layout_does_not_take_is_enough(tmp_path: Path, selection: Path) -> None:
    whole = export(selection, "openai", tmp_path / "whole")
    shutil.rmtree(selection / "rl_prompts")
    assert export(selection, "openai", tmp_path / "part").files == whole.files
    with pytest.raises(StoreError, match=r"rl_prompts/train-00000-.*: is in the manifest and not there"):
        export(selection, "verl", tmp_path / "verl")


def test_errors_name_what_there_is(tmp_path: Path, selection: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of llamafactory, .*; did you mean 'axolotl'\?"):
        export(selection, "axolot", tmp_path / "out")
    rows = [sft_row("a", "1", turn("system", "Be brief."))]
    folder = write_selection(tmp_path / "s", {"sft": {"train": rows}})
    with pytest.raises(ConfigError, match=r"no row is left .*no place for a system turn.*preference: not written"):
        export(folder, "nemo", tmp_path / "out")
    assert selection_folder(selection, None) == selection
    with pytest.raises(ConfigError, match="holds no run"):
        selection_folder(tmp_path, None)
