"""What is checked before anything is sent; no Hub is needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.card import Card
from factory.filecheck import KEYS, FileReport, read_report, scan
from factory.publish_journal import PublishJournal
from factory.publish_plan import Allowed, PublishPlan, make_plan
from schemas.errors import ConfigError
from schemas.tables import MAX_ROW_BYTES, SCHEMAS
from tests.selections import describe, make_rows, write_selection

CARD = Card(readme="---\nlicense: mit\n---\n# Data\n", figures={"figures/a.png": b"png"})
SECRET = "hf_" + "aB3dE5gH7jK9mN1pQ2sT4vW6xY8zA0cD2e"


def plan_of(folder: Path, allowed: Allowed | None = None, card: Card = CARD) -> PublishPlan:
    return make_plan(folder, card, PublishJournal(folder.parent / "publish"), allowed or Allowed())


def write(folder: Path, rows: list[dict[str, Any]], config: str = "sft", **options: Any) -> Path:
    write_selection(folder, {config: rows}, **options)
    return folder


def test_a_plan_is_the_manifests_files_the_card_and_checksums_of_all(tmp_path):
    folder = tmp_path / "default"
    write_selection(folder, {"sft": make_rows("sft", 5), "runs": make_rows("runs", 1)}, shards=2)
    plan = plan_of(folder)
    shards = {shard["name"] for shard in json.loads((folder / "manifest.json").read_text())["files"]}
    assert plan.files.keys() == shards | {"README.md", "manifest.json", "SHA256SUMS", "figures/a.png"}
    sums = plan.files["SHA256SUMS"].source
    assert isinstance(sums, bytes)
    for line in sums.decode().splitlines():
        sha256, _, path = line.partition("  ")
        source = plan.files[path].source
        data = source if isinstance(source, bytes) else source.read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
    assert plan.digest == plan_of(folder).digest
    assert plan.digest != plan_of(folder, card=Card(readme=CARD.readme + "more")).digest


def test_whoever_watches_hears_of_every_file(tmp_path):
    write_selection(tmp_path / "default", {"sft": make_rows("sft", 5)}, shards=2)
    heard: list[str] = []
    make_plan(tmp_path / "default", CARD, PublishJournal(tmp_path / "publish"), Allowed(), heard.append)
    names = [f"sft/train-{number:05d}-of-00002.parquet" for number in range(2)]
    assert heard == [f"checking {name} ({number} of 2 files)" for number, name in enumerate(names, start=1)]


@pytest.mark.parametrize("config", SCHEMAS)
def test_every_table_can_be_planned_with_and_without_rows(tmp_path, config):
    plan_of(write(tmp_path / "some", make_rows(config, 3), config))
    plan_of(write(tmp_path / "none", [], config))


# Bad input: each a clear message.


def test_a_column_that_a_user_added_is_named(tmp_path):
    rows = [row | {"note": "mine"} for row in make_rows("sft", 3)]
    schema = SCHEMAS["sft"].append(pa.field("note", pa.string()))
    folder = write(tmp_path / "default", rows, schemas={"sft": schema})
    with pytest.raises(ConfigError, match=r"sft/train-00000-of-00001\.parquet: has 'note'"):
        plan_of(folder)


@pytest.mark.parametrize("change", ["lacks 'teacher'", "is double", "another order"])
def test_a_column_that_is_missing_or_other_is_named(tmp_path, change):
    fields = list(SCHEMAS["sft"])
    if change == "lacks 'teacher'":
        fields = [field for field in fields if field.name != "teacher"]
    elif change == "is double":
        fields = [field.with_type(pa.float64()) if field.name == "num_tokens" else field for field in fields]
    else:
        fields = fields[::-1]
    folder = write(tmp_path / "default", make_rows("sft", 2), schemas={"sft": pa.schema(fields)})
    with pytest.raises(ConfigError, match=change):
        plan_of(folder)


@settings(max_examples=20)
@given(config=st.sampled_from(sorted(SCHEMAS)), at=st.integers(0, 7), shards=st.sampled_from([1, 2, 3]))
def test_an_id_that_comes_twice_is_named_wherever_it_is(tmp_path_factory, config, at, shards):
    rows = make_rows(config, 8)
    rows.insert(at, rows[at])
    folder = write(tmp_path_factory.mktemp("twice") / "default", rows, config, shards=shards)
    with pytest.raises(ConfigError, match=f"{rows[at][KEYS[config][-1]]} comes twice"):
        plan_of(folder)


def test_a_row_out_of_order_is_named(tmp_path):
    rows = make_rows("sft", 4)
    with pytest.raises(ConfigError, match="comes after"):
        plan_of(write(tmp_path / "default", [rows[1], rows[0], *rows[2:]]))


def test_a_row_too_large_for_the_viewer_is_named_and_may_be_allowed(tmp_path):
    rows = make_rows("sft", 4)
    rows[2]["messages"][0]["content"] = "seven " * (MAX_ROW_BYTES // 6)
    folder = write(tmp_path / "default", rows)
    with pytest.raises(ConfigError, match=f"1 rows are larger .* the largest is {rows[2]['trace_id']}"):
        plan_of(folder)
    assert plan_of(folder, Allowed(large_rows=True)).num_large == 1


@pytest.mark.parametrize("what", ["changed", "cut", "gone"])
def test_a_file_that_is_not_what_the_manifest_says_is_named(tmp_path, what):
    folder = write(tmp_path / "default", make_rows("sft", 4))
    path = folder / "sft" / "train-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(data if what == "changed" else data[:-1])
    with pytest.raises(ConfigError, match="train-00000-of-00001"):
        plan_of(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body["files"][0].update(rows=5), "has 4 rows, the manifest says 5"),
        (lambda body: body["configs"]["sft"]["splits"]["train"].update(rows=5), "have 4 rows, the manifest says 5"),
        (lambda body: body.update(version=1), "of version 1"),
        (lambda body: body["configs"].update(mine={"splits": {}}), "names the table 'mine'"),
        (lambda body: body.pop("files"), "lacks files"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(tmp_path, change, words):
    folder = write(tmp_path / "default", make_rows("sft", 4))
    body = json.loads((folder / "manifest.json").read_text())
    change(body)
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(ConfigError, match=words):
        plan_of(folder)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    folder = write(tmp_path / "default", make_rows("sft", 4))
    path = folder / "sft" / "train-00000-of-00001.parquet"
    path.write_bytes(b"not")
    body = json.loads((folder / "manifest.json").read_text())
    body["files"] = [describe(path, folder, 4)]
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(ConfigError, match="no readable Parquet file"):
        plan_of(folder)


# Secrets and personal data.


def test_a_secret_in_a_table_blocks_is_placed_and_never_shown(tmp_path):
    rows = make_rows("sft", 4)
    rows[1]["messages"][1]["content"] = f"my key is {SECRET}, keep it"
    folder = write(tmp_path / "default", rows)
    with pytest.raises(ConfigError) as caught:
        plan_of(folder)
    text = str(caught.value)
    assert "1 × Hugging Face token" in text
    assert f"column messages of {rows[1]['trace_id']}" in text
    assert SECRET[:10] not in text
    assert plan_of(folder, Allowed(secrets=True)).findings.secrets == {"Hugging Face token": 1}
    journal = (folder.parent / "publish" / "journal.jsonl").read_text()
    assert SECRET[:10] not in journal


def test_a_secret_in_the_card_blocks_too(tmp_path):
    folder = write(tmp_path / "default", make_rows("sft", 2))
    with pytest.raises(ConfigError, match=r"README\.md"):
        plan_of(folder, card=Card(readme=f"token: {SECRET}"))


def test_personal_data_is_counted_and_blocks_only_if_that_is_asked_for(tmp_path):
    rows = make_rows("sft", 4)
    rows[3]["reference"] = "write to jane.roe@posteo.net"
    folder = write(tmp_path / "default", rows)
    assert plan_of(folder).findings.personal == {"e-mail address": 1}
    with pytest.raises(ConfigError, match=r"1 × e-mail address.*…@posteo\.net") as caught:
        plan_of(folder, Allowed(personal=False))
    assert "jane" not in str(caught.value)


# What a file says about itself.


@given(st.integers(0, 4), st.sampled_from([1, 2, 5]))
def test_a_secret_is_found_in_the_row_where_it_is_whatever_is_around_it(row, offset):
    turns = [[{"role": "user", "content": f"text {n}"}] * (n % 3) for n in range(10)]
    turns[offset + row if offset + row < 10 else 9] = [{"role": "a", "content": "x"}, {"role": "b", "content": SECRET}]
    column = pa.array(turns, SCHEMAS["sft"].field("messages").type).slice(offset)
    batch = pa.RecordBatch.from_arrays([pa.array(["x"] * len(column)), column], ["id", "messages"])
    (found,) = scan(batch)
    assert (found.row, found.column) == (min(row + offset, 9) - offset, "messages")


def test_a_report_survives_the_journal_and_a_file_is_read_once(tmp_path):
    rows = make_rows("sft", 4)
    rows[0]["reference"] = SECRET
    folder = write(tmp_path / "default", rows)
    path = folder / "sft" / "train-00000-of-00001.parquet"
    report = read_report(path, "x", "sft", MAX_ROW_BYTES)
    assert FileReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    journal = PublishJournal(tmp_path / "j")
    journal.add_report("key", report)
    assert PublishJournal(tmp_path / "j").report_of("key") == report


@settings(max_examples=40)
@given(st.integers(0, 400))
def test_a_torn_journal_is_read_up_to_the_tear_and_goes_on(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    journal = PublishJournal(folder)
    for number in range(3):
        journal.write("verified", revision=f"r{number}", digest="d")
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    kept = path.read_bytes().count(b"}\n") + path.read_bytes().endswith(b"}")
    journal = PublishJournal(folder)
    assert [journal.is_verified(f"r{n}", "d") for n in range(3)] == [n < kept for n in range(3)]
    journal.write("verified", revision="new", digest="d")
    assert PublishJournal(folder).is_verified("new", "d")
    assert PublishJournal(folder).is_verified("r0", "d") == (kept > 0)


def test_page_indices_and_row_groups_do_no_harm(tmp_path):
    rows = make_rows("candidates", 30)
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["candidates"])
    pq.write_table(table, path, row_group_size=4, write_page_index=True, use_content_defined_chunking=True)
    assert read_report(path, "a", "candidates", MAX_ROW_BYTES).rows == 30
