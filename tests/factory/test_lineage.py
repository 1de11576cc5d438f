"""Where a row comes from: its source's revision, the hash of its text, what it was taken for, and by what engines."""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.build import build_tables, state_of
from factory.facts import read_facts
from factory.ledgers import engines_in, ledger_path
from factory.prompts import ByteTokenizer, HfTokenizer
from factory.sections import how_it_was_made
from factory.sources import load_problems
from factory.store import RunFolder
from factory.tables import write_tables
from factory.teachers.vllm import cpu_name
from schemas.arrow import VERSION_KEY
from schemas.config import Columns, DatasetSource, FileSource, GymSource, SelectConfig, Source
from schemas.tables import LOADED, SelectedFor
from tests.factory.test_tables import bytes_of, make_content, read, run_contents
from tests.selections import write_run

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "jobs" / "demo_teacher" / "weights"
QA = Columns(problem="question", answer="answer")
ROWS = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(2)]
ENGINE = {
    **{"dtype": "bfloat16", "quantization": "none", "tensor_parallel_size": 2, "pipeline_parallel_size": 1},
    "host_class": "NVIDIA H200",
}


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def revisions(*sources: Source) -> dict[str, str | None]:
    """Return the revision of each row by its id in the source."""
    loaded = load_problems(sources, max_problems=None)
    return {problem.source_row_id: problem.source_revision for problem in loaded.problems}


# What problems were read from.


def test_a_problem_knows_the_file_that_it_was_read_from(tmp_path):
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    (tmp_path / "a-0.jsonl").write_bytes(lines[0])
    (tmp_path / "a-1.jsonl").write_bytes(lines[1])
    found = revisions(FileSource(kind="jsonl", path=str(tmp_path / "a-*.jsonl"), columns=QA))
    assert found == {f"a-{n}.jsonl:1": sha256(tmp_path / f"a-{n}.jsonl") for n in range(2)}
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[0]))
    assert revisions(FileSource(kind="jsonl", path=str(tmp_path / "b.jsonl.gz"), columns=QA)) == {
        "1": sha256(tmp_path / "b.jsonl.gz")
    }
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    found = revisions(FileSource(kind="parquet", path=str(tmp_path / "c.parquet"), columns=QA))
    assert set(found.values()) == {sha256(tmp_path / "c.parquet")}


def test_a_local_dataset_is_known_by_its_files_and_a_generator_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("")
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]))
    source = DatasetSource(kind="dataset", path=str(folder), columns=QA)
    assert set(revisions(source).values()) == {sha256(folder / "train.jsonl")}, "hidden files are none of it"
    found = revisions(GymSource(kind="reasoning_gym", task="gcd", size=2))
    assert set(found.values()) == {f"reasoning-gym {version('reasoning-gym')}"}


def test_problems_that_an_older_version_froze_have_no_revision(tmp_path):
    run = write_run(tmp_path / "run")
    manifest = RunFolder(run).manifest()
    (shard,) = manifest.problems
    table = pq.read_table(run / shard.name).drop_columns(["source_revision"])
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"problems/1"}), run / shard.name)
    assert {problem.source_revision for problem, _ in RunFolder(run).problems(manifest)} == {None}
    rows = read(build_tables(run).folder, "candidates")
    assert {row["source_revision"] for row in rows} == {None}
    assert {row["source"] for row in rows} == {"tests"}


# What a candidate's own columns give.


@settings(max_examples=25, deadline=None)
@given(run_contents())
def test_a_candidate_says_its_hash_and_which_tables_have_it(tmp_path_factory, parts):
    folder = write_tables(tmp_path_factory.mktemp("any"), make_content(*parts), SelectConfig()).folder
    rows = read(folder, "candidates")
    for row in rows:
        assert row["raw_sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()
        assert row["selected_for"] == [word for word in SelectedFor if word in row["selected_for"]], "in that order"
    found = {word: {row["trace_id"] for row in rows if word in row["selected_for"]} for word in SelectedFor}
    pairs, prompts = read(folder, "preference"), {row["problem_id"] for row in read(folder, "rl_prompts")}
    assert found == {
        SelectedFor.SFT: {row["trace_id"] for row in read(folder, "sft")},
        SelectedFor.PREFERENCE_CHOSEN: {row["chosen_trace_id"] for row in pairs},
        SelectedFor.PREFERENCE_REJECTED: {row["rejected_trace_id"] for row in pairs},
        SelectedFor.RL_PROMPTS: {row["trace_id"] for row in rows if row["problem_id"] in prompts},
        SelectedFor.GRPO_GROUPS: {row["trace_id"] for row in read(folder, "grpo_groups")},
    }


def test_which_tables_are_written_changes_no_candidate(tmp_path):
    run = write_run(tmp_path / "run")
    folder = build_tables(run, SelectConfig(name="some", configs=("sft",))).folder
    assert bytes_of(folder / "candidates") == bytes_of(run / "tables" / "default" / "candidates")
    row = next(row for row in read(folder, "candidates") if row["is_accepted"])
    assert row["selected_for"] == ["sft", "preference_chosen", "rl_prompts", "grpo_groups"]


# What the table of runs knows of teacher and engines.


def note_engines(run: Path, epoch: int, *engines: dict[str, Any]) -> None:
    (run / "logs").mkdir(exist_ok=True)
    body = {"epoch": epoch, "seconds": {"full": 1.0}, "engines": list(engines)}
    ledger_path(run / "logs", epoch).write_text(json.dumps(body))


def test_a_run_says_once_how_its_engines_were_loaded(tmp_path):
    run = write_run(tmp_path / "run")
    assert [(row["engines"], row["tokenizer_sha256"]) for row in read(run / "tables" / "default", "runs")] == [
        (None, None)
    ], "not known"
    folder = RunFolder(run)
    before = state_of(folder, folder.manifest())
    other = ENGINE | {"tensor_parallel_size": 4, "host_class": None}
    note_engines(run, 1, ENGINE)
    note_engines(run, 2, other, ENGINE)
    ledger_path(run / "logs", 3).write_text('{"epoch": 3, "seconds": {"full": 1.0}}')  # of an older version
    (run / "run.yaml").write_text((run / "run.yaml").read_text() + "tokenizer_sha256: abc\n")
    (row,) = read(build_tables(run).folder, "runs")
    assert sorted(row["engines"], key=str) == sorted([ENGINE, other], key=str)
    assert row["tokenizer_sha256"] == "abc"
    assert set(row["engines"][0]) == set(LOADED)
    assert state_of(folder, folder.manifest()) != before, "tables built before are outdated"
    card = "\n".join(how_it_was_made(read_facts(run, "default")))
    assert "sha256 abc" in card
    assert "bfloat16, quantization none, tensor parallel 2, pipeline parallel 1, on NVIDIA H200" in card
    assert "on a device without a name" in card
    note_engines(run, 4, other)
    assert read(build_tables(run).folder, "runs") == [row], "nothing new"


def test_a_tokenizer_is_known_by_its_file():
    assert ByteTokenizer().sha256 is None
    assert f"sha256:{HfTokenizer(str(MODEL)).sha256}" == sha256(MODEL / "tokenizer.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t: a\nmodel name\t: Another\n", "Some CPU @ 2.00GHz"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", None),
        ("model name\t:\n", None),
    ],
)
def test_a_cpu_has_the_name_that_linux_gives_it_or_none(tmp_path, text, name):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_name(tmp_path / "cpuinfo") == name
    assert cpu_name(tmp_path / "none") is None


@given(st.lists(st.sampled_from(["a", "b"])))
def test_the_state_of_a_run_has_no_use_for_the_order_of_its_starts(names):
    ledgers = [{"engines": [{**ENGINE, "host_class": name}]} for name in names]
    found = engines_in(ledgers)
    assert found == engines_in(ledgers[::-1])
    assert (found is None) == (not names)
