"""A dataset follows from its candidates; whatever was changed in it is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from factory.rederive import rederive
from factory.rowdigest import digest_of_files
from factory.tables import write_tables
from schemas.config import SelectConfig
from schemas.errors import ConfigError, StoreError
from schemas.tables import SCHEMAS
from tests.factory.test_tables import bytes_of, make_content, read, run_contents, write_demo
from tests.jobs.test_cli import factory


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a selection over forty problems, with a validation split, quotas and near-duplicates."""
    folder = tmp_path_factory.mktemp("published")
    write_demo(str(folder))
    return folder / "default"


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """Return a copy that may be changed."""
    return shutil.copytree(published, tmp_path / "copy")


def change(folder: Path, name: str, edit: Callable[[pa.Table], pa.Table], *, in_manifest: bool = False) -> None:
    """Change the rows of a table, perhaps with a manifest that names the changed file."""
    (path,) = folder.glob(f"{name}-*.parquet")
    pq.write_table(edit(pq.read_table(path)), path)
    if in_manifest:
        body = json.loads((folder / "manifest.json").read_text())
        data = bytes_of(folder)
        for file in body["files"]:
            file |= {"sha256": data[file["name"]], "num_bytes": (folder / file["name"]).stat().st_size}
        (folder / "manifest.json").write_text(json.dumps(body))


def put(table: pa.Table, row: int, column: str, value: Any) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def test_what_was_built_follows_from_its_candidates_to_the_byte(published):
    found = rederive(published, with_bytes=True)
    assert found.differences == ()
    assert {(one.config, one.has_same_rows, one.has_same_bytes) for one in found.splits} == {
        (name, True, None if name == "runs" else True) for name in SCHEMAS
    }
    for one in found.splits:
        assert one.rows_sha256 == digest_of_files(sorted((published / one.config).glob(f"{one.split}-*")))
        assert one.rows > 0
    assert sum(one.split == "validation" for one in found.splits) == 5


@settings(max_examples=10, deadline=None)
@given(run_contents())
def test_tables_of_any_run_follow_from_their_candidates(tmp_path_factory, parts):
    config = SelectConfig(rule="difficulty_balanced", validation_share=0.5, system="Think.")
    written = write_tables(tmp_path_factory.mktemp("any"), make_content(*parts), config)
    assert rederive(written.folder, with_bytes=True).differences == ()


def test_problems_that_row_groups_cut_stay_whole(published, copy):
    (path,) = (copy / "candidates").glob("*.parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=3)
    (difference,) = rederive(copy).differences
    assert "candidates/train-00000-of-00001.parquet: has" in difference.message, "the bytes alone are others"


@pytest.mark.parametrize("in_manifest", [False, True])
@pytest.mark.parametrize(
    ("name", "column", "value"),
    [("sft/train", "num_true", 77), ("preference/train", "rule", "mine"), ("grpo_groups/validation", "advantage", 0.5)],
)
def test_a_changed_value_is_named_by_id_and_column(copy, name, column, value, in_manifest):
    config, _, split = name.partition("/")
    change(copy, name, lambda table: put(table, 3, column, value), in_manifest=in_manifest)
    differences = rederive(copy).differences
    (found,) = [one for one in differences if one.id]
    assert (found.config, found.split, found.column) == (config, split, column)
    assert any("sha256" in one.message for one in differences) == (not in_manifest)


def test_decisions_that_the_config_does_not_give_are_named(copy):
    def accept(table: pa.Table) -> pa.Table:
        row = table["is_accepted"].to_pylist().index(False)
        return put(put(table, row, "is_accepted", True), row, "reject_reason", None)

    change(copy, "candidates/train", accept, in_manifest=True)
    (found,) = [one for one in rederive(copy).differences if one.id]
    assert (found.config, found.column) == ("candidates", "is_accepted")


def test_a_text_that_was_changed_is_not_that_of_its_hash(copy):
    change(copy, "candidates/train", lambda table: put(table, 0, "text", "another"), in_manifest=True)
    (found,) = [one for one in rederive(copy).differences if one.config == "candidates" and one.id]
    assert found.column == "raw_sha256"


def test_a_candidate_that_was_changed_shows_in_what_follows(copy):
    change(copy, "candidates/train", lambda table: put(table, 0, "is_correct", None), in_manifest=True)
    assert {one.config for one in rederive(copy).differences} >= {"candidates", "grpo_groups", "rl_prompts"}


def test_rows_that_are_missing_or_too_many_are_named(copy):
    ids = [row["trace_id"] for row in read(copy, "sft") if row]
    change(copy, "sft/train", lambda table: table.slice(0, table.num_rows - 1), in_manifest=True)
    change(
        copy,
        "sft_prompt_completion/train",
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
        in_manifest=True,
    )
    messages = {one.config: (one.id, one.message) for one in rederive(copy).differences}
    assert messages["sft"][0] in ids
    assert "follows from the candidates and is not there" in messages["sft"][1]
    assert "is there and does not follow" in messages["sft_prompt_completion"][1]


def test_a_column_that_a_user_added_is_named(copy):
    added = pa.array(["mine"] * pq.read_metadata(next((copy / "sft").glob("train-*"))).num_rows)
    change(copy, "sft/train", lambda table: table.append_column("mine", added), in_manifest=True)
    (found,) = rederive(copy).differences
    assert (found.config, found.column) == ("sft", "mine")
    assert "is none of this table's" in found.message


def test_files_that_are_missing_or_added_are_named(copy):
    (gone,) = (copy / "rl_prompts").glob("train-*")
    shutil.copy(gone, copy / "sft" / "extra.parquet")
    gone.unlink()
    messages = [one.message for one in rederive(copy).differences]
    assert any("sft/extra.parquet: is not in the manifest" in message for message in messages)
    assert any("rl_prompts/train-00000-of-00001.parquet: is in the manifest and not there" in one for one in messages)


def test_another_config_in_the_manifest_gives_other_rows(copy):
    body = json.loads((copy / "manifest.json").read_text())
    body["selection"] |= {"quotas": {"total": 7}}
    (copy / "manifest.json").write_text(json.dumps(body))
    differences = rederive(copy).differences
    assert differences[0].config == "manifest"
    assert {one.column for one in differences} >= {"is_accepted"}


def test_candidates_out_of_order_or_twice_are_refused(copy):
    change(copy, "candidates/train", lambda table: table.take(pa.array([1, 0, *range(2, table.num_rows)])))
    with pytest.raises(StoreError, match="stands behind"):
        rederive(copy)
    change(copy, "candidates/train", lambda table: pa.concat_tables([table.slice(1, 1), table.slice(1)]))
    with pytest.raises(StoreError, match="comes twice"):
        rederive(copy)


def test_a_torn_file_is_named(copy):
    (path,) = (copy / "sft").glob("train-*")
    path.write_bytes(path.read_bytes()[:-10])
    assert any("sft/train-00000-of-00001.parquet: cannot be read" in one.message for one in rederive(copy).differences)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "holds no manifest.json"),
        ("{", "cannot be read"),
        ('{"version": 1}', r"is no manifest of tables of version 3 \(version 1\)"),
        ('{"version": 3, "selection": {}}', "lacks configs, files, num_first"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, body, message):
    if body is not None:
        (tmp_path / "manifest.json").write_text(body)
    with pytest.raises(ConfigError, match=message):
        rederive(tmp_path)


def test_the_command_says_what_it_compared(copy, tmp_path):
    ended = factory("rederive", copy, "--bytes")
    assert ended.code == 0
    assert "sft/train" in ended.out
    assert "files byte for byte" in ended.out
    change(copy, "sft/train", lambda table: put(table, 0, "domain", "\x1b[31mred"))
    ended = factory("rederive", copy)
    assert ended.code == 1
    assert "column 'domain' is not what follows from the candidates" in ended.out
    ended = factory("rederive", copy, "--json")
    assert (ended.code, {one["config"] for one in json.loads(ended.out)["differences"]}) == (1, {"sft"})
    assert factory("rederive", tmp_path).code == 2
