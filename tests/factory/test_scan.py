"""Published datasets: rows that quote a benchmark are found wherever the quote lies, the rest is copied as it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.benchmarks import load_benchmarks
from factory.decontaminate import Protection
from factory.scan import DROPPED, scan_files
from schemas.errors import ConfigError
from tests.jobs.test_cli import factory

MADE = Path(__file__).parents[1] / "data" / "benchmark_made.jsonl"
ITEM = json.loads(MADE.read_text(encoding="utf-8").splitlines()[0])
PROTECTION = Protection(load_benchmarks([str(MADE)], "against"))
CLEAN = [
    {
        "id": f"c{n}",
        "messages": [{"role": "user", "content": f"What is {n} + {n}?"}, {"role": "assistant", "content": str(2 * n)}],
    }
    for n in range(5)
]
QUOTING = {
    "id": "q",
    "messages": [
        {"role": "user", "content": "Tell me of a problem."},
        {"role": "assistant", "content": f"<think>I recall one. {ITEM['problem']} That was hard.</think>"},
    ],
}


def test_a_trace_that_quotes_an_item_is_found_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row) for row in [*CLEAN, QUOTING]] + ["no json", ""]
    path.write_text("\n".join(lines) + "\n")
    scan = scan_files([path], PROTECTION, out=tmp_path / "out")
    (row,) = scan.dropped
    assert (row.row, row.row_id, row.column) == (6, "q", "messages.1.content")
    assert row.match is not None
    assert row.match.item_id == ITEM["id"]
    kept = (tmp_path / "out" / "a.jsonl").read_text().split("\n")
    assert kept == [*lines[:5], *lines[6:], ""]
    (evidence,) = (json.loads(line) for line in (tmp_path / "out" / DROPPED).read_text().splitlines())
    assert evidence["rule"] == row.match.rule


def test_parquet_keeps_its_schema_and_the_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([*CLEAN, QUOTING, *CLEAN]).replace_schema_metadata({"made": "here"})
    pq.write_table(table, path)
    scan = scan_files([path], PROTECTION, out=tmp_path / "out")
    assert [row.row for row in scan.dropped] == [6]
    written = pq.read_table(tmp_path / "out" / "a.parquet")
    assert written.to_pylist() == CLEAN + CLEAN
    assert written.schema.equals(table.schema)
    assert written.schema.metadata[b"made"] == b"here"


def test_near_duplicates_of_questions_go_over_files_and_compression(tmp_path: Path) -> None:
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    text = "On market days the ferry carries 48 carts and 120 people to the island. How many wheels is that in 3 trips?"
    one.write_text(json.dumps({"problem": text}) + "\n")
    with gzip.open(other, "wt") as file:
        for changed in (text.replace("market", "some"), text.replace("48", "49"), text + " Answer briefly."):
            file.write(json.dumps({"problem": changed}) + "\n")
    scan = scan_files([one, other], PROTECTION, near_duplicates=0.7, out=tmp_path / "out")
    assert [(row.file, row.row, row.like_file, row.like_row) for row in scan.dropped] == [
        (str(other), 1, str(one), 1),
        (str(other), 3, str(one), 1),
    ]
    with gzip.open(tmp_path / "out" / "b.jsonl.gz", "rt") as file:
        assert [json.loads(line)["problem"] for line in file] == [text.replace("48", "49")]


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ConfigError, match="give another folder"):
        scan_files([path], PROTECTION, out=tmp_path)


# The command.


def test_the_command_says_by_its_exit_code_whether_rows_have_to_go(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*CLEAN, QUOTING]))
    ended = factory("decontaminate", path, "--against", MADE)
    assert ended.code == 1
    assert "benchmark_made" in ended.out
    assert "row 6 (q), messages.1.content" in ended.out
    assert "not looked for: aime-2024, aime-2025" in ended.out
    assert factory("decontaminate", path, "--against", MADE, "--out", tmp_path / "out").code == 0
    assert factory("decontaminate", tmp_path / "out" / "a.jsonl", "--against", MADE).code == 0
    body = json.loads(factory("decontaminate", path, "--against", "shipped", "--against", MADE, "--json").out)
    assert [row["item_id"] for row in body["dropped"]] == [ITEM["id"]]
    assert len(body["covered"]) == 5


def test_the_command_makes_a_fingerprint_that_it_takes(tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    ended = factory("decontaminate", "--build", MADE, "--name", "aime-2025", "--version", "1", "--out", out, "--json")
    assert json.loads(ended.out)["num_items"] == 16
    ended = factory("decontaminate", MADE, "--against", out, "--json")
    assert ended.code == 1
    body = json.loads(ended.out)
    assert len(body["dropped"]) == 16
    assert "aime-2025" not in body["not_covered"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give files to look at"),
        (["nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        ([MADE, "--against", "gsm8k"], "did you mean 'gsm8k-test'"),
        ([MADE, "--rules", "strict"], "must be one of default, open-r1"),
        ([MADE, "--column", "txt"], "no row has it"),
        (["--build", MADE, "--name", "a"], "needs --name, --version and --out"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(arguments: list[str | Path], message: str) -> None:
    ended = factory("decontaminate", *arguments)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
