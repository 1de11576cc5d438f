from __future__ import annotations

import gzip
import json
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import rows
from factory.sources import Loaded, load_problems, next_source
from schemas.config import Columns, DatasetSource, FileSource, GymSource, Source
from schemas.errors import SourceError
from schemas.problem import Answer, Choice, Domain, Problem
from tests.strategies import problems, visible_texts

DATA = Path(__file__).parents[1] / "data"
QA = Columns(problem="question", answer="answer")


def jsonl(path: Path, *lines: Any, columns: Columns = QA, **options: Any) -> FileSource:
    """Write a JSONL file and return it as a source; bytes are written as they are."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return FileSource(kind="jsonl", path=str(path), columns=columns, **options)


def load(*sources: Source, max_problems: int | None = None) -> Loaded:
    return load_problems(sources, max_problems=max_problems)


def texts_of(reference_owner: Problem) -> str:
    assert isinstance(reference_owner.reference, Answer)
    return reference_owner.reference.text


def reasons_by_row(loaded: Loaded) -> dict[int, str]:
    return {row.row: str(row.reason) for row in loaded.quarantined}


# Malformed rows.


def test_each_kind_of_malformed_row_is_quarantined_with_its_line_and_reason():
    source = FileSource(kind="jsonl", path=str(DATA / "sources_malformed.jsonl"), columns=QA)
    loaded = load(source)
    expected = json.loads((DATA / "sources_malformed_expected.json").read_text(encoding="utf-8"))
    assert [[row.row, str(row.reason), row.detail] for row in loaded.quarantined] == expected["quarantined"]
    assert [[problem.source_row_id, texts_of(problem)] for problem in loaded.problems] == expected["problems"]


def test_bytes_that_are_no_utf8_name_the_byte(tmp_path):
    loaded = load(jsonl(tmp_path / "a.jsonl", {"question": "Q", "answer": "1"}, b'{"question": "\xff"}'))
    (row,) = loaded.quarantined
    assert (row.row, row.reason) == (2, "unreadable_row")
    assert row.detail == "a.jsonl line 2: is not UTF-8: byte 0xff at byte 15"
    assert row.raw == '{"question": "\\xff"}'


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
near_rows = st.dictionaries(st.sampled_from(["question", "answer", "x"]), json_like, max_size=3)
lines = (
    st.binary(max_size=60)
    | near_rows.map(lambda row: json.dumps(row).encode())
    | near_rows.map(lambda row: json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | near_rows.flatmap(lambda row: st.integers(0, 60).map(lambda cut: json.dumps(row).encode()[:cut]))
)


@settings(max_examples=200, deadline=None)
@given(st.lists(lines, max_size=6))
def test_whatever_the_bytes_every_line_ends_once_and_nothing_but_a_source_error_is_raised(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    good = {"question": "Good?", "answer": "yes"}
    source = jsonl(path, good, *contents)
    num_lines = sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    try:
        loaded = load(source)
    except SourceError:  # another reference for the good row leaves nothing
        return
    (count,) = loaded.counts
    assert count.rows == num_lines == len(loaded.problems) + len(loaded.quarantined)
    assert count.rows == count.problems + sum(count.quarantined.values())
    for row in loaded.quarantined:
        assert len(row.raw) <= 2_000
        (row.detail + row.raw).encode()  # what is stored is text
    for problem in loaded.problems:
        (problem.question + texts_of(problem)).encode()


def test_a_line_longer_than_the_limit_is_quarantined_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 100)
    long = {"question": "x" * 500, "answer": "1"}
    loaded = load(jsonl(tmp_path / "a.jsonl", {"question": "Q", "answer": "1"}, long, {"question": "R", "answer": "2"}))
    assert [problem.question for problem in loaded.problems] == ["Q", "R"]
    assert reasons_by_row(loaded) == {2: "unreadable_row"}


@given(st.lists(problems(), min_size=1, max_size=5, unique_by=lambda problem: problem.problem_id))
@settings(max_examples=40, deadline=None)
def test_messages_come_back_as_they_were_written(tmp_path_factory, originals):
    rows_ = [{"m": [{"role": m.role, "content": m.content} for m in p.messages], "d": p.domain} for p in originals]
    path = tmp_path_factory.mktemp("round") / "a.jsonl"
    loaded = load(jsonl(path, *rows_, columns=Columns(messages="m", domain="d"))) if any_visible(rows_) else None
    if loaded is not None:
        kept = {problem.problem_id for problem in loaded.problems}
        skipped = {int(row.row) - 1 for row in loaded.quarantined}
        assert kept == {p.problem_id for i, p in enumerate(originals) if i not in skipped}
        assert all(reason == "bad_value" for reason in reasons_by_row(loaded).values())


def any_visible(rows_: list[dict[str, Any]]) -> bool:
    """True if a row has text in every turn: an empty turn is quarantined."""
    return any(all(turn["content"].strip() and turn["content"].isprintable() for turn in row["m"]) for row in rows_)


# Values.


@settings(max_examples=50, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.integers())
def test_a_number_in_json_becomes_the_text_of_its_own_digits(tmp_path_factory, number):
    path = tmp_path_factory.mktemp("number") / "a.jsonl"
    (problem,) = load(jsonl(path, f'{{"question": "Q", "answer": {number:f}}}'.encode())).problems
    assert texts_of(problem) == f"{number:f}"


@pytest.mark.parametrize(
    ("literal", "text"), [("1e5", "100000"), ("2.50", "2.50"), ("-1.5E-3", "-0.0015"), ("1e999999", "1e999999")]
)
def test_an_exponent_is_written_out_unless_it_is_huge(tmp_path, literal, text):
    (problem,) = load(jsonl(tmp_path / "a.jsonl", f'{{"question": "Q", "answer": {literal}}}'.encode())).problems
    assert texts_of(problem) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([0.1], pa.float64()), "0.1"),
        (pa.array([3.0], pa.float64()), "3"),
        (pa.array([1e16], pa.float64()), "10000000000000000"),
        (pa.array([2**62], pa.int64()), str(2**62)),
        (pa.array([Decimal("1.50")], pa.decimal128(6, 2)), "1.50"),
        (pa.array(["7"], pa.large_string()), "7"),
        (pa.array(["7"]).dictionary_encode(), "7"),
    ],
)
def test_a_number_in_parquet_becomes_text_without_float_noise(tmp_path, values, text):
    pq.write_table(pa.table({"question": ["Q"], "answer": values}), tmp_path / "a.parquet")
    source = FileSource(kind="parquet", path=str(tmp_path / "a.parquet"), columns=QA)
    (problem,) = load(source).problems
    assert texts_of(problem) == text


def test_options_that_the_question_does_not_show_are_put_below_it(tmp_path):
    columns = Columns(problem="q", letter="l", options="o")
    row = {"q": "Pick.", "o": ["red", 7], "l": "b"}
    shown = {"q": "Pick: (A) red (B) 7", "o": ["red", 7], "l": "A"}
    first, second = load(jsonl(tmp_path / "a.jsonl", row, shown, columns=columns)).problems
    assert first.question == "Pick.\n\nA. red\nB. 7"
    assert first.reference == Choice(letter="B", options=("red", "7"))
    assert second.question == "Pick: (A) red (B) 7"


def test_a_letter_without_an_option_is_quarantined(tmp_path):
    columns = Columns(problem="q", letter="l", options="o")
    rows_ = [{"q": f"Q{i}", "o": ["x", "y"], "l": letter} for i, letter in enumerate(["A", "C", "AB", 1])]
    loaded = load(jsonl(tmp_path / "a.jsonl", *rows_, columns=columns))
    assert [row.detail.partition(": ")[2] for row in loaded.quarantined] == [
        "column 'l': letter='C' has no option: there are 2",
        "column 'l': letter='AB' must be one capital letter A to Z",
        "column 'l': '1' is a number, must be text",
    ]


def test_a_conversation_that_ends_in_the_answer_is_quarantined(tmp_path):
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "42"}]
    columns = Columns(messages="m")
    loaded = load(jsonl(tmp_path / "a.jsonl", {"m": turns}, {"m": turns[:1]}, columns=columns))
    (row,) = loaded.quarantined
    assert row.detail.endswith("column 'm.1.role': 'assistant' must be 'user' in the last turn")


def test_dotted_names_reach_into_structs_and_a_literal_name_with_a_dot_wins(tmp_path):
    columns = Columns(problem="q", answer="a.b")
    nested, literal = {"q": "Q1", "a": {"b": "deep"}}, {"q": "Q2", "a": {"b": "deep"}, "a.b": "flat"}
    loaded = load(jsonl(tmp_path / "a.jsonl", nested, literal, columns=columns))
    assert [texts_of(problem) for problem in loaded.problems] == ["deep", "flat"]


def test_dotted_names_reach_into_parquet_structs_and_a_null_struct_is_a_bad_value(tmp_path):
    pq.write_table(pa.table({"q": ["Q1", "Q2"], "a": [{"b": {"c": 1.5}}, None]}), tmp_path / "a.parquet")
    columns = Columns(problem="q", answer="a.b.c")
    loaded = load(FileSource(kind="parquet", path=str(tmp_path / "a.parquet"), columns=columns))
    assert [texts_of(problem) for problem in loaded.problems] == ["1.5"]
    assert loaded.quarantined[0].detail == "a.parquet row 2: column 'a.b.c': is null, must be text or a number"


def test_what_a_row_says_of_itself_goes_before_what_the_source_says(tmp_path):
    columns = Columns(problem="q", answer="a", id="i", license="l", language="g", domain="d")
    full = {"q": "Q1", "a": "1", "i": 7, "l": "MIT", "g": "de", "d": "STEM"}
    bare = {"q": "Q2", "a": "1", "i": None, "l": "", "g": None}
    wrong = {"q": "Q3", "a": "1", "d": "maths"}
    source = jsonl(tmp_path / "a.jsonl", full, bare, wrong, columns=columns, license="CC0", name="mine")
    loaded = load(source)
    first, second = loaded.problems
    assert (first.source_row_id, first.license, first.language, first.domain) == ("7", "MIT", "de", Domain.STEM)
    assert (second.source_row_id, second.license, second.language, second.domain) == ("2", "CC0", "en", Domain.MATH)
    assert (first.source, second.source) == ("mine", "mine")
    assert "'maths' must be one of math, code" in loaded.quarantined[0].detail


# Duplicates and conflicts.


def test_the_same_problem_with_the_same_reference_is_a_duplicate_even_from_another_source(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", {"question": "What  is it?", "answer": "1"})
    b = jsonl(tmp_path / "b.jsonl", {"question": "What is it?\n", "answer": "1"}, {"question": "R", "answer": "2"})
    loaded = load(a, b)
    (row,) = loaded.quarantined
    assert (row.source, row.row, row.reason) == ("b", 1, "duplicate")
    assert row.detail == "b.jsonl line 1: the same problem and reference as a.jsonl line 1 (a)"
    assert row.problem_id == loaded.problems[0].problem_id
    assert [count.problems for count in loaded.counts] == [1, 1]


def test_the_same_problem_with_another_reference_puts_all_its_rows_aside(tmp_path):
    rows_ = [{"question": "Q", "answer": answer} for answer in ("1", "2", "1")]
    loaded = load(jsonl(tmp_path / "a.jsonl", *rows_, {"question": "R", "answer": "5"}))
    assert [problem.question for problem in loaded.problems] == ["R"]
    assert [(row.row, str(row.reason)) for row in loaded.quarantined] == [
        (row, "conflicting_references") for row in (1, 2, 3)
    ]
    first, second, _ = loaded.quarantined
    assert first.detail == "a.jsonl line 1: reference '1', but a.jsonl line 2 says '2'"
    assert second.detail == "a.jsonl line 2: reference '2', but a.jsonl line 1 (a) says '1'"
    assert '"content": "Q"' in first.raw
    assert loaded.counts[0].quarantined == {"conflicting_references": 3}


# The mix.


weights_lists = st.lists(st.fractions(Fraction(1, 20), Fraction(50), max_denominator=20), min_size=1, max_size=6)


@given(weights_lists, st.integers(1, 120))
def test_every_prefix_of_the_mix_has_each_share_rounded_up_or_down(weights, length):
    counts = [0] * len(weights)
    for n in range(1, length + 1):
        counts[next_source(counts, weights, [True] * len(weights))] += 1
        shares = [n * weight / sum(weights) for weight in weights]
        assert all(abs(count - share) < 1 for count, share in zip(counts, shares, strict=True))


@given(weights_lists, st.data())
def test_an_exhausted_source_leaves_its_share_to_the_others_by_weight(weights, data):
    sizes = data.draw(st.lists(st.integers(0, 20), min_size=len(weights), max_size=len(weights)))
    counts = [0] * len(weights)
    live = [size > 0 for size in sizes]
    while any(live):
        chosen = next_source(counts, weights, live)
        counts[chosen] += 1
        live[chosen] = counts[chosen] < sizes[chosen]
    assert counts == sizes


def test_weights_set_the_shares_of_max_problems(tmp_path):
    sources = [
        jsonl(tmp_path / f"{name}.jsonl", *({"question": f"{name}{i}", "answer": i} for i in range(50)), weight=weight)
        for name, weight in (("a", 3), ("b", 1))
    ]
    loaded = load(*sources, max_problems=20)
    assert Counter(problem.source for problem in loaded.problems) == {"a": 15, "b": 5}
    assert load(*sources, max_problems=20) == loaded
    assert load(*sources, max_problems=40).problems[:20] == loaded.problems


def test_limit_counts_rows_good_or_bad(tmp_path):
    loaded = load(jsonl(tmp_path / "a.jsonl", {"question": "Q", "answer": 1}, b"bad", {"question": "R"}, limit=2))
    assert loaded.counts[0].rows == 2
    assert len(loaded.problems) == len(loaded.quarantined) == 1


# Files.


def test_a_glob_reads_all_its_files_in_order_and_row_ids_tell_them_apart(tmp_path):
    for name in ("b-1", "b-0"):
        jsonl(tmp_path / f"{name}.jsonl", {"question": name, "answer": 1})
    loaded = load(FileSource(kind="jsonl", path=str(tmp_path / "b-*.jsonl"), columns=QA))
    assert [(p.question, p.source, p.source_row_id) for p in loaded.problems] == [
        ("b-0", "b", "b-0.jsonl:1"),
        ("b-1", "b", "b-1.jsonl:1"),
    ]


def test_gzip_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"question": "Q", "answer": 1}\r\n'))
    loaded = load(FileSource(kind="jsonl", path=str(path), columns=QA))
    assert [(problem.question, problem.source) for problem in loaded.problems] == [("Q", "a")]


def test_a_torn_gzip_is_a_source_error(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "Q", "answer": 1}\n' * 5_000)[:-20])
    with pytest.raises(SourceError, match="cannot be read"):
        load(FileSource(kind="jsonl", path=str(path), columns=QA))


def test_parquet_text_that_is_no_utf8_is_an_unreadable_row(tmp_path):
    broken = pa.array([b"\xff\xfe", b"Q"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"question": broken, "answer": ["1", "2"]}), tmp_path / "a.parquet")
    loaded = load(FileSource(kind="parquet", path=str(tmp_path / "a.parquet"), columns=QA))
    assert [problem.question for problem in loaded.problems] == ["Q"]
    assert reasons_by_row(loaded) == {1: "unreadable_row"}


def test_a_local_dataset_is_loaded_with_its_columns_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    rows_ = [{"q": f"Q{i}", "info": {"gold": i}, "other": [i]} for i in range(3)]
    jsonl(folder / "train.jsonl", *rows_)
    columns = Columns(problem="q", answer="info.gold")
    loaded = load(DatasetSource(kind="dataset", path=str(folder), columns=columns))
    assert [(texts_of(p), p.source, p.source_row_id) for p in loaded.problems] == [
        ("0", "mine", "1"),
        ("1", "mine", "2"),
        ("2", "mine", "3"),
    ]


# What cannot be read at all.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "{tmp}/b.jsonl"}, ["sources.0.path=", "b.jsonl': no such file; did you mean 'a.jsonl'?"]),
        ({"path": "{tmp}/*.json"}, ["*.json': no file matches", "working directory"]),
        ({"path": "{tmp}"}, ["is a folder; name its files", "/*.jsonl"]),
        ({"kind": "parquet"}, ["a.jsonl is not readable as Parquet", "change `kind`"]),
        (
            {"columns": Columns(problem="quesiton", answer="answer")},
            ["sources.0.columns.problem='quesiton'", "did you mean 'question'?", "there are: answer, info, info.id"],
        ),
        ({"columns": Columns(problem="question", id="info.idd")}, ["columns.id='info.idd'", "did you mean 'info.id'?"]),
    ],
)
def test_what_cannot_be_read_at_all_says_what_was_seen_and_what_there_is(tmp_path, options, words):
    jsonl(tmp_path / "a.jsonl", {"question": "Q", "answer": 1, "info": {"id": 3}})
    body = {"kind": "jsonl", "path": str(tmp_path / "a.jsonl"), "columns": QA, **options}
    body["path"] = body["path"].replace("{tmp}", str(tmp_path))
    with pytest.raises(SourceError) as caught:
        load(FileSource(**body))
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_column_that_is_not_in_a_parquet_file_is_named_with_the_nearest(tmp_path):
    pq.write_table(pa.table({"question": ["Q"], "meta": [{"answer": 1}]}), tmp_path / "a.parquet")
    source = FileSource(
        kind="parquet", path=str(tmp_path / "a.parquet"), columns=Columns(problem="question", answer="answer")
    )
    with pytest.raises(SourceError, match=r"did you mean 'meta\.answer'\? there are: meta, meta\.answer, question"):
        load(source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "no/such"}, ["no/such", "sources.0: datasets.load_dataset does not load"]),
        ({"split": "tset"}, ["split='tset'", "['train']"]),
        ({"columns": Columns(problem="qq")}, ["columns.problem='qq'", "did you mean 'q'?"]),
    ],
)
def test_a_dataset_that_cannot_be_loaded_says_what_was_asked(tmp_path, monkeypatch, options, words):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = tmp_path / "mine"
    folder.mkdir()
    jsonl(folder / "train.jsonl", {"q": "Q"})
    body = {"kind": "dataset", "path": str(folder), "columns": Columns(problem="q"), **options}
    with pytest.raises(SourceError) as caught:
        load(DatasetSource(**body))
    assert [word for word in words if word not in str(caught.value)] == []


def test_no_problems_left_is_an_error_with_the_counts_by_reason(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", b"bad", {"question": "", "answer": 1}, {"question": "Q", "answer": True})
    with pytest.raises(SourceError) as caught:
        load(source)
    assert "a.jsonl: 3 rows, 2 bad_value, 1 unreadable_row" in str(caught.value)
    assert "the first: a.jsonl line 1: is not JSON" in str(caught.value)


@given(visible_texts)
@settings(max_examples=10, deadline=None)
def test_a_file_without_a_single_row_says_so(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("empty") / "a.jsonl"
    path.write_bytes(b"\n \n")
    with pytest.raises(SourceError, match="no problems are left"):
        load(FileSource(kind="jsonl", path=str(path), columns=QA, name=name))


# reasoning-gym.


def test_reasoning_gym_gives_the_same_problems_each_time_with_ids_that_name_task_seed_and_index():
    source = GymSource(kind="reasoning_gym", task="chain_sum", size=5, seed=7, config={"max_terms": 3})
    loaded = load(source)
    assert load(source) == loaded
    assert [problem.source_row_id for problem in loaded.problems] == [f"chain_sum:7:{i}" for i in range(5)]
    assert {problem.domain for problem in loaded.problems} == {Domain.MATH}
    assert all(problem.question == problem.question.strip() for problem in loaded.problems)
    assert all(isinstance(problem.reference, Answer) for problem in loaded.problems)
    assert loaded.problems[0].license == "Apache-2.0"


@pytest.mark.parametrize(("task", "domain"), [("number_sorting", "math"), ("gcd", "math"), ("knights_knaves", "logic")])
def test_number_tasks_are_mathematics_and_puzzles_are_logic(task, domain):
    assert {problem.domain for problem in load(GymSource(kind="reasoning_gym", task=task, size=3)).problems} == {domain}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "chainsum"}, ["sources.0.task='chainsum'", "did you mean 'chain_sum'?"]),
        ({"config": {"max_term": 3}}, ["config.max_term=3", "did you mean 'max_terms'?", "allow_negation"]),
        ({"config": {"max_terms": 1}}, ["{'max_terms': 1}", "max_terms must be >= min_terms"]),
    ],
)
def test_a_wrong_task_or_setting_is_a_source_error_that_names_the_nearest(options, words):
    with pytest.raises(SourceError) as caught:
        load(GymSource(**{"kind": "reasoning_gym", "task": "chain_sum", "size": 3, **options}))
    assert [word for word in words if word not in str(caught.value)] == []
