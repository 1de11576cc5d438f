from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.derived import assistant_content
from factory.joining import SLICE_BYTES, reference_text
from factory.prompts import ByteTokenizer, make_renderer
from factory.rowdigest import RowDigest, digest_of_files, schema_sha256
from factory.tables import RunContent, write_tables
from schemas.arrow import problems_to_table, traces_to_table, verdicts_to_table
from schemas.config import PromptConfig, Quotas, SamplingConfig, SelectConfig, TableName
from schemas.errors import CorruptRunError
from schemas.problem import Answer, Choice, Domain, Message, Problem, Scorer, reference_to_json
from schemas.tables import MAX_ROW_BYTES, SCHEMAS, SFT, RunRow
from schemas.trace import THINK_CLOSE, THINK_OPEN, FinishReason, Trace, TraceFormat
from schemas.verdict import Check, JudgedTrace, MathDetail, Outcome, Reason, Verdict
from tests.strategies import hex_ids, problems, traces, verdicts

ROOT = Path(__file__).parents[2]
RENDERER = make_renderer(PromptConfig(), ByteTokenizer())
RUN = RunRow(
    fingerprint="f" * 32,
    name="demo",
    teacher="scripted",
    teacher_revision="1",
    engine="scripted",
    engine_version="1",
    sampling=SamplingConfig(stop=("END",)).model_dump(),
    prompt_template="{{ problem }}",
    system=None,
    chat_template_sha256=None,
    format="r1",
    verifiers={"math": "1"},
    code_version="0.1.0",
    config="{}",
    started_at_us=1_700_000_000_123_456,
)
CORRECT = Check(name="math", version="1", outcome=Outcome.CORRECT, detail=MathDetail(rung="integer", extracted="42"))
WRONG = replace(CORRECT, outcome=Outcome.WRONG_ANSWER, reason=Reason.VALUE_DIFFERS)
UNREADABLE = Check(name="format", version="2", outcome=Outcome.UNREADABLE, reason=Reason.EMPTY_THINK)
UNJUDGED = Check(name="math", version="1", outcome=Outcome.UNJUDGED, reason=Reason.WORKER_DIED)


def make_problem(number: int, **options: Any) -> Problem:
    question = Message(role="user", content=f"What is {number} * 7?")
    fields = {"domain": Domain.MATH, "messages": (question,), "source": "mine", "license": "MIT"}
    return Problem(**{**fields, "source_row_id": str(number), "reference": Answer(text=str(number * 7)), **options})


def make_trace(problem: Problem, sample_index: int, **options: Any) -> Trace:
    fields = {
        "fingerprint": RUN.fingerprint,
        "problem_id": problem.problem_id,
        "sample_index": sample_index,
        "format": TraceFormat.R1,
        "text": f"<think>\nthought {sample_index}\n</think>\n\nIt is \\boxed{{42}}.",
        "token_ids": (1, 2),
        "finish_reason": FinishReason.STOP,
        "num_prompt_tokens": 5,
        "num_completion_tokens": 20 + sample_index,
        "num_reasoning_tokens": 9,
        "teacher": "scripted",
        "teacher_revision": "1",
        "engine": "scripted",
        "engine_version": "1",
        "engine_id": "engine-0",
        "submitted_at_us": 1_700_000_000_000_001,
        "finished_at_us": 1_700_000_001_000_001,
    }
    return Trace(**{**fields, **options})


def judged(trace: Trace, *checks: Check) -> JudgedTrace:
    verdict = Verdict(reference_hash=None, checks=checks)
    return JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=verdict)


def make_content(found: list[Problem], traced: list[Trace], said: list[JudgedTrace], batch: int = 3) -> RunContent:
    def batches(rows: list[Any]) -> Iterator[list[Any]]:
        return (rows[i : i + batch] for i in range(0, len(rows), batch))

    return RunContent(
        num_first=2,
        problems=(problems_to_table((p, RENDERER.render(p)) for p in part) for part in batches(found)),
        traces=(traces_to_table(part) for part in batches(traced)),
        verdicts=(verdicts_to_table(part) for part in batches(said)),
        runs=[RUN],
        fingerprint=RUN.fingerprint,
        verdict_digest="v1",
    )


def write_demo(root: str) -> None:
    """Write tables of forty problems with eight attempts each, with a validation split, a quota, and spilled rows."""
    found = [make_problem(number) for number in range(40)]
    traced = [
        make_trace(problem, index, num_completion_tokens=20 + 9 * index) for problem in found for index in range(8)
    ]
    said = [judged(trace, (CORRECT, WRONG, UNREADABLE, CORRECT)[trace.sample_index % 4]) for trace in traced]
    config = SelectConfig(validation_share=0.3, quotas=Quotas(total=100), near_duplicates=0.9)
    write_tables(Path(root), make_content(found, traced, said, 50), config, spill_bytes=50_000)


def digest(table: pa.Table) -> str:
    made = RowDigest()
    made.update(table)
    return made.hexdigest()


def read(folder: Path, config: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"{config}/*.parquet")) for row in pq.read_table(path).to_pylist()]


def bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def demo(tmp_path) -> Path:
    """Return the folder of a selection over two problems: five traces judged, one unjudged, one waiting."""
    first, second = make_problem(6), make_problem(7)
    traced = [make_trace(first, i) for i in range(4)] + [make_trace(second, i) for i in range(3)]
    said = [
        judged(traced[0], CORRECT),
        judged(traced[1], CORRECT),
        judged(traced[2], WRONG),
        judged(traced[3], UNREADABLE, CORRECT),
        judged(traced[4], WRONG),
        judged(traced[5], UNJUDGED),
    ]
    config = SelectConfig(max_per_problem=1, system="Think first.")
    return write_tables(tmp_path / "tables", make_content([first, second], traced, said), config).folder


# What the tables hold.


def test_sft_holds_the_accepted_traces_as_conversations(demo):
    (row,) = read(demo, "sft")
    assert row["messages"] == [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": "What is 6 * 7?"},
        {"role": "assistant", "content": "<think>\nthought 0\n</think>\n\nIt is \\boxed{42}."},
    ]
    assert (row["num_tokens"], row["reasoning_tokens"]) == (20, 9)
    assert (row["reference"], row["outcome"], row["checks"]) == ("42", "correct", ["math@1:correct"])
    assert (row["num_true"], row["num_judged"], row["pass_rate"]) == (3, 4, 0.75)
    assert row["pass_rate_unbiased"] == 1.0, "attempts 0 and 1 are the first ones"
    assert (row["source"], row["source_row_id"], row["license"], row["domain"]) == ("mine", "6", "MIT", "math")


def test_candidates_hold_every_trace_with_what_was_found_in_it(demo):
    rows = {(row["reference"], row["sample_index"]): row for row in read(demo, "candidates")}
    assert {key: (row["outcome"], row["is_accepted"], row["reject_reason"]) for key, row in rows.items()} == {
        ("42", 0): ("correct", True, None),
        ("42", 1): ("correct", False, "not_chosen"),
        ("42", 2): ("wrong_answer", False, "value_differs"),
        ("42", 3): ("unreadable", False, "empty_think"),
        ("49", 0): ("wrong_answer", False, "value_differs"),
        ("49", 1): ("unjudged", None, None),
        ("49", 2): (None, None, None),
    }
    row = rows["42", 0]
    assert row["reasoning"] == "\nthought 0\n"
    assert row["response"] == "\n\nIt is \\boxed{42}."
    assert row["checks"][0]["extracted"] == "42"
    assert row["submitted_at"].microsecond == 1
    assert rows["49", 0]["pass_rate"] == 0.0
    assert rows["49", 1]["num_judged"] == 1


def test_runs_say_how_the_traces_were_made(demo):
    (row,) = read(demo, "runs")
    assert row["fingerprint"] == read(demo, "sft")[0]["fingerprint"]
    assert row["sampling"]["stop"] == ["END"]
    assert row["started_at"].microsecond == 123_456


def test_the_manifest_names_every_file_with_its_hash_and_its_sums_hold(demo):
    manifest = json.loads((demo / "manifest.json").read_text())
    assert {file["name"]: file["sha256"] for file in manifest["files"]} == {
        name: sha256 for name, sha256 in bytes_of(demo).items() if name != "manifest.json"
    }
    assert {file["name"].partition("/")[0]: file["rows"] for file in manifest["files"]} == {
        "sft": 1,
        "sft_prompt_completion": 1,
        "preference": 1,
        "rl_prompts": 2,
        "grpo_groups": 5,
        "candidates": 7,
        "runs": 1,
    }
    for name, entry in manifest["configs"].items():
        assert entry["schema_sha256"] == schema_sha256(SCHEMAS[name])
        files = sorted(demo.glob(f"{name}/*"))
        assert entry["splits"]["train"]["rows_sha256"] == digest_of_files(files)
        assert entry["splits"]["train"]["num_bytes"] == sum(file.stat().st_size for file in files)
        assert entry["splits"]["train"]["rows"] == len(read(demo, name))
    counts = manifest["counts"]
    assert counts["judged"] == counts["accepted"] + sum(counts["rejected"].values()) == 5
    assert counts["traces"] == counts["judged"] + counts["unjudged"] + counts["waiting"] == 7
    assert sum(counts["outcomes"].values()) == 6
    assert (counts["problems"], manifest["version"], manifest["num_first"]) == (2, 3, 2)
    assert manifest["oversized"]["rows"] == 0
    assert manifest["fingerprint"] == RUN.fingerprint
    assert manifest["selection"]["max_per_problem"] == 1


def test_datasets_loads_each_table_with_its_schema_and_its_digest(demo, tmp_path):
    datasets = pytest.importorskip("datasets")
    configs = json.loads((demo / "manifest.json").read_text())["configs"]
    for config, entry in configs.items():
        files = str(demo / config / "train-*.parquet")
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.column_names == SCHEMAS[config].names
        assert loaded.features.arrow_schema.types == SCHEMAS[config].types
        assert loaded.to_list() == read(demo, config)
        assert digest(loaded.data.table) == entry["splits"]["train"]["rows_sha256"]
    datasets.concatenate_datasets([loaded, loaded])


def test_nothing_accepted_still_gives_a_file_with_the_schema(tmp_path):
    # `datasets` 5.2 itself refuses a split without rows ("corresponds to no data"); pyarrow and others read it.
    problem = make_problem(1)
    trace = make_trace(problem, 0)
    folder = write_tables(tmp_path, make_content([problem], [trace], [judged(trace, WRONG)]), SelectConfig()).folder
    (path,) = folder.glob("sft/*")
    assert path.name == "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    assert (table.num_rows, table.schema) == (0, SFT)


def test_an_empty_run_gives_empty_tables(tmp_path):
    written = write_tables(tmp_path, replace(make_content([], [], []), runs=[]), SelectConfig())
    assert [file.rows for file in written.files] == [0] * len(SCHEMAS)


# Properties.


@st.composite
def run_contents(draw: st.DrawFn) -> tuple[list[Problem], list[Trace], list[JudgedTrace]]:
    found = draw(st.lists(problems(), max_size=3, unique_by=lambda p: p.problem_id))
    if not found:
        return [], [], []
    ids = st.sampled_from([problem.problem_id for problem in found])
    traced = draw(st.lists(traces(ids, hex_ids), max_size=6, unique_by=lambda t: t.trace_id))
    said = [
        JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=draw(verdicts()))
        for trace in traced
        if draw(st.integers(0, 4))
    ]
    return found, traced, said


@settings(max_examples=12, deadline=None)
@given(run_contents(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_order_the_batches_and_the_memory_change_no_byte(tmp_path_factory, parts, random, batch):
    found, traced, said = parts
    folder = tmp_path_factory.mktemp("bytes")
    config = SelectConfig(rule="shortest_correct")
    one = write_tables(folder / "one", make_content(found, traced, said), config)
    for rows in parts:
        random.shuffle(rows)
    two = write_tables(folder / "two", make_content(found, traced, said, batch), config, spill_bytes=1)
    assert bytes_of(one.folder) == bytes_of(two.folder)


@settings(max_examples=12, deadline=None)
@given(run_contents())
def test_tables_hold_what_the_records_say_sorted_by_id(tmp_path_factory, parts):
    found, traced, said = parts
    written = write_tables(tmp_path_factory.mktemp("rows"), make_content(found, traced, said), SelectConfig())
    rows = read(written.folder, "candidates")
    by_id = {trace.trace_id: trace for trace in traced}
    keys = [(row["problem_id"], row["trace_id"]) for row in rows]
    assert keys == sorted((trace.problem_id, trace_id) for trace_id, trace in by_id.items())
    outcomes = {item.trace_id: (item.verdict.outcome, item.verdict.is_correct) for item in said}
    for row in rows:
        trace = by_id[row["trace_id"]]
        assert (row["text"], row["seed"], row["stop_token"]) == (trace.text, trace.seed, trace.stop_token)
        assert (row["outcome"], row["is_correct"]) == outcomes.get(trace.trace_id, (None, None))
    accepted = [row["trace_id"] for row in rows if row["is_accepted"]]
    assert [row["trace_id"] for row in read(written.folder, "sft")] == accepted
    decided = [row for row in rows if row["is_accepted"] is not None]
    assert (len(decided), len(accepted)) == (written.sums.judged, written.sums.accepted)
    assert Counter(row["reject_reason"] for row in decided if not row["is_accepted"]) == written.sums.rejected
    assert len(decided) + written.num_unjudged + written.num_waiting == written.num_traces == len(traced)


# Completions and references.


@pytest.mark.parametrize(
    ("trace_format", "text", "expected"),
    [
        (TraceFormat.R1, "<think>\na\n</think>\nb", "<think>\na\n</think>\nb"),
        (TraceFormat.R1_PREFILLED, "a\n</think>\nb", "<think>\na\n</think>\nb"),
        (TraceFormat.R1_PREFILLED, "\na\n</think>\nb", "<think>\na\n</think>\nb"),
        (TraceFormat.R1_PREFILLED, "<think>\na\n</think>\nb", "<think>\na\n</think>\nb"),
        (TraceFormat.ZERO, "<think> a </think> <answer> b </answer>", "<think> a </think> <answer> b </answer>"),
        (TraceFormat.PLAIN, "b", "b"),
    ],
)
def test_the_assistant_turn_is_the_completion_with_a_prefilled_tag_put_back(trace_format, text, expected):
    content = assistant_content(text, trace_format)
    assert content == expected
    if trace_format is not TraceFormat.PLAIN:
        assert content.count(THINK_OPEN) == content.count(THINK_CLOSE) == 1


@pytest.mark.parametrize(
    ("reference", "text"),
    [(Answer(text="1/2"), "1/2"), (Choice(letter="B", options=("x", "y")), "B"), (None, None)],
)
def test_a_reference_is_shown_as_people_read_it(reference, text):
    assert reference_text(None if reference is None else json.dumps(reference_to_json(reference))) == text


def test_a_scorer_is_shown_as_json():
    stored = json.dumps(reference_to_json(Scorer(name="reasoning_gym/sudoku", payload="{}")))
    assert json.loads(str(reference_text(stored)))["name"] == "reasoning_gym/sudoku"


def test_the_later_reference_of_a_problem_counts(tmp_path):
    old, new = make_problem(6, reference=Answer(text="41")), make_problem(6)
    written = write_tables(tmp_path, make_content([old, new], [make_trace(new, 0)], []), SelectConfig())
    assert [row["reference"] for row in read(written.folder, "candidates")] == ["42"]


# In place, whole.


def test_a_selection_replaces_the_one_of_its_name_and_leaves_others_and_nothing_else(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    for name, check in (("a", WRONG), ("b", WRONG), ("a", CORRECT)):
        write_tables(tmp_path, make_content([problem], [trace], [judged(trace, check)]), SelectConfig(name=name))
    assert sorted(os.listdir(tmp_path)) == [".a.lock", ".b.lock", "a", "b"]
    assert [len(read(tmp_path / name, "sft")) for name in ("a", "b")] == [1, 0]


def test_a_failure_leaves_the_old_selection_and_no_rest(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    write_tables(tmp_path, make_content([problem], [trace], [judged(trace, CORRECT)]), SelectConfig())
    before = bytes_of(tmp_path)
    with pytest.raises(CorruptRunError, match="which the run does not have"):
        write_tables(tmp_path, make_content([], [trace], []), SelectConfig())
    assert bytes_of(tmp_path) == before


def test_what_killed_builds_left_goes_and_what_others_build_stays(tmp_path):
    for name in (".a.k1_led00.tmp", ".a.b.alive000.tmp", ".ab.alive000.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "problems.rows").write_text("x")
    write_tables(tmp_path, make_content([], [], []), SelectConfig(name="a"))
    assert sorted(os.listdir(tmp_path)) == [".a.b.alive000.tmp", ".a.lock", ".ab.alive000.tmp", "a"]


def test_builds_of_one_selection_at_once_wait_for_one_another(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    at_once, most = [0], [0]

    def slow(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        yield from tables
        at_once[0] -= 1

    def build(_: int) -> None:
        content = make_content([problem], [trace], [judged(trace, CORRECT)])
        write_tables(tmp_path, replace(content, verdicts=slow(iter(content.verdicts))), SelectConfig())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(build, range(4)))
    assert most == [1]
    assert len(read(tmp_path / "default", "sft")) == 1
    assert sorted(os.listdir(tmp_path)) == [".default.lock", "default"]


def test_no_public_column_is_large_or_without_a_type():
    for schema in SCHEMAS.values():
        kinds = str(schema)
        assert "large_" not in kinds
        assert ": null" not in kinds
        assert all(column.nullable for column in schema)


def test_a_selection_can_ask_for_every_table_there_is_and_no_other():
    assert tuple(SCHEMAS) == get_args(TableName)


def test_only_the_tables_that_were_asked_for_are_written_and_the_two_that_all_need(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    content = make_content([problem], [trace], [judged(trace, CORRECT)])
    folder = write_tables(tmp_path, content, SelectConfig(configs=("rl_prompts",))).folder
    assert sorted(os.listdir(folder)) == ["candidates", "manifest.json", "rl_prompts", "runs"]


def test_a_trace_that_comes_twice_is_named_and_nothing_is_changed(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    with pytest.raises(CorruptRunError, match=f"trace {trace.trace_id} comes twice"):
        write_tables(tmp_path, make_content([problem], [trace, trace], []), SelectConfig())
    assert os.listdir(tmp_path) == [".default.lock"]


def test_of_a_verdict_that_comes_twice_the_later_counts(tmp_path):
    problem = make_problem(6)
    trace = make_trace(problem, 0)
    said = [judged(trace, WRONG), judged(trace, UNREADABLE), judged(trace, CORRECT)]
    for spill_bytes in (1, 2**20):
        written = write_tables(
            tmp_path, make_content([problem], [trace], said, 1), SelectConfig(), spill_bytes=spill_bytes
        )
        assert written.outcomes == {"correct": 1}


def test_rows_that_the_viewer_of_the_hub_does_not_show_are_counted_and_named(tmp_path):
    problem = make_problem(6)
    traced = [make_trace(problem, 0), make_trace(problem, 1, text="x" * (MAX_ROW_BYTES + 1))]
    written = write_tables(tmp_path, make_content([problem], traced, []), SelectConfig())
    (row,) = written.oversized
    assert (written.num_oversized, row.config, row.split, row.id) == (1, "candidates", "train", traced[1].trace_id)
    assert row.num_bytes > MAX_ROW_BYTES
    listed = json.loads((written.folder / "manifest.json").read_text())["oversized"]
    assert (listed["rows"], [row["id"] for row in listed["first"]]) == (1, [traced[1].trace_id])


def test_which_rows_are_named_as_too_large_does_not_depend_on_the_pieces_they_come_in(tmp_path):
    found = sorted((make_problem(number) for number in range(12)), key=lambda problem: problem.problem_id)
    text = "<think>\n" + "x" * (SLICE_BYTES // 10) + "\n</think>\n\n\\boxed{1}"
    traced = [make_trace(problem, 0, text=text) for problem in found]
    content = make_content(found, traced, [judged(trace, CORRECT) for trace in traced])
    written = write_tables(tmp_path, content, SelectConfig(configs=("sft",)))
    ids = [trace.trace_id for trace in traced]
    assert [(row.config, row.id) for row in written.oversized] == [
        *(("sft", trace_id) for trace_id in ids),
        *(("candidates", trace_id) for trace_id in ids[:8]),
    ]
    assert written.num_oversized == 24


def test_the_same_run_gives_the_same_bytes_in_any_environment(tmp_path):
    code = "import sys; from tests.factory.test_tables import write_demo; write_demo(sys.argv[1])"
    made = []
    for number, (zone, seed) in enumerate((("UTC", "0"), ("Asia/Kathmandu", "77"))):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        env = {
            **os.environ,
            "TZ": zone,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT),
            "ARROW_NUM_THREADS": str(1 + number),
        }
        subprocess.run([sys.executable, "-c", code, "tables"], cwd=cwd, env=env, check=True, timeout=120)
        made.append(bytes_of(cwd / "tables" / "default"))
    assert made[0] == made[1]
    assert len(made[0]) == len(SCHEMAS) + 1 + 5, "validation files of five tables, and the manifest"


@pytest.mark.parametrize("batch", [1, 7])
def test_of_nearly_equal_correct_traces_of_a_problem_the_shortest_is_chosen_where_asked_for(tmp_path, batch):
    first, second = make_problem(6), make_problem(7)
    long = " ".join(f"step{n}" for n in range(60))
    texts = [f"{long} so {ending}. It is \\boxed{{42}}." for ending in ("it is done at last", "done", "done, I think")]
    traced = [make_trace(first, i, text=text) for i, text in enumerate(texts)]
    traced += [make_trace(first, 3, text="Six times seven. It is \\boxed{42}."), make_trace(second, 0, text=texts[0])]
    content = make_content([first, second], traced, [judged(trace, CORRECT) for trace in traced], batch)
    folder = write_tables(tmp_path, content, SelectConfig(near_duplicates=0.7)).folder
    said = {row["trace_id"]: row["reject_reason"] for row in read(folder, "candidates")}
    reasons = [said[trace.trace_id] for trace in traced]
    assert reasons == ["near_duplicate", None, "near_duplicate", None, None]
