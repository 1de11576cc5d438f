"""Recordings: which completions are found, in which order, and what is said of those that cannot be replayed."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.plan import make_plan
from factory.teachers import Completion, Request, teacher_identity
from factory.teachers.replay import Recording, ReplayEngine, open_recording
from schemas.config import ReplayTeacher, parse_config
from schemas.errors import ConfigError, NotRecordedError, SourceError
from schemas.problem import Domain, Message, Problem
from schemas.trace import FinishReason

COLUMNS = {"problem": "q", "completion": "text"}


def teacher_of(path: Path, **more: Any) -> ReplayTeacher:
    columns = {**COLUMNS, **more.pop("columns", {})}
    body = {"kind": "replay", "path": str(path), "columns": columns, "domains": ["math"], **more}
    return ReplayTeacher.model_validate(body)


def problem_id(question: str) -> str:
    messages = (Message(role="user", content=question),)
    return Problem(domain=Domain.MATH, messages=messages, source="", source_row_id="").problem_id


def write(path: Path, rows: Sequence[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=3)
    else:
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def replayed(teacher: ReplayTeacher, question: str, count: int) -> list[Completion | BaseException]:
    """Return what the first attempts at a question give."""

    async def live() -> list[Completion | BaseException]:
        engine = ReplayEngine(teacher)
        await engine.start()
        requests = [
            Request(
                request_id=str(n), problem_id=problem_id(question), sample_index=n, prompt_text="", prompt_token_ids=()
            )
            for n in range(count)
        ]
        return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)

    return asyncio.run(live())


def texts(found: Sequence[Completion | BaseException]) -> list[str | None]:
    return [item.text if isinstance(item, Completion) else None for item in found]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_attempts_come_in_the_order_of_the_file_and_end_with_it(tmp_path: Path, suffix: str) -> None:
    rows = [{"q": f"question {n % 3}", "text": f"attempt {n // 3} at {n % 3}"} for n in range(12)]
    teacher = teacher_of(write(tmp_path / f"r{suffix}", rows))
    for number in range(3):
        found = replayed(teacher, f"question {number}", 5)
        assert texts(found) == [f"attempt {n} at {number}" for n in range(4)] + [None]
        assert isinstance(found[4], NotRecordedError)
        assert "the recording has 4" in str(found[4])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_of_completions_are_attempts_with_their_own_labels(tmp_path: Path, suffix: str) -> None:
    row = {
        "q": "question",
        "text": ["first", None, "third"],
        "ok": [True, True, False],
        "ended": ["stop", "stop", "length"],
        "n": [11, 0, 33],
        "read": ["1", "", None],
    }
    columns = {"label": "ok", "finish_reason": "ended", "num_tokens": "n", "label_answer": "read"}
    teacher = teacher_of(write(tmp_path / f"r{suffix}", [row]), columns=columns)
    first, third, rest = replayed(teacher, "question", 3)
    assert isinstance(first, Completion)
    assert isinstance(third, Completion)
    assert (first.text, first.label, first.label_answer, first.num_tokens) == ("first", True, "1", 11)
    assert (third.text, third.label, third.label_answer, third.num_tokens) == ("third", False, None, 33)
    assert (first.finish_reason, third.finish_reason) == (FinishReason.STOP, FinishReason.LENGTH)
    assert isinstance(rest, NotRecordedError)
    assert open_recording(teacher).skipped == {"a completion that is null": 1}


def test_columns_may_lie_inside_structs_and_questions_be_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "question"}]
    row = {"turns": turns, "out": {"text": "answer", "thoughts": "hm"}}
    columns = {"problem": None, "messages": "turns", "completion": "out.text", "reasoning": "out.thoughts"}
    for suffix in (".jsonl", ".parquet"):
        teacher = teacher_of(write(tmp_path / f"r{suffix}", [row]), columns=columns)
        assert texts(replayed(teacher, "question", 1)) == ["<think>\nhm\n</think>\n\nanswer"]


def test_white_space_in_a_question_makes_no_difference_and_a_word_does(tmp_path: Path) -> None:
    teacher = teacher_of(write(tmp_path / "r.jsonl", [{"q": " What  is\nit? ", "text": "x"}]))
    assert texts(replayed(teacher, "What is it?", 1)) == ["x"]
    assert texts(replayed(teacher, "What was it?", 1)) == [None]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_is_replayed_to_the_letter(tmp_path_factory: pytest.TempPathFactory, recorded: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for suffix in (".jsonl", ".parquet"):
        teacher = teacher_of(write(folder / f"r{suffix}", [{"q": "question", "text": text} for text in recorded]))
        assert texts(replayed(teacher, "question", len(recorded))) == recorded


def test_rows_that_are_none_are_counted_by_what_is_wrong(tmp_path: Path) -> None:
    rows = [
        {"q": "question", "text": "good"},
        "no json",
        {"q": "", "text": "asks nothing"},
        {"q": 7, "text": "asks a number"},
        {"text": "asks nothing either"},
        {"q": "question", "text": 7},
        {"q": "question", "text": ""},
    ]
    recording = open_recording(teacher_of(write(tmp_path / "r.jsonl", rows)))
    assert recording.num_completions == 2, "an empty completion is one: its teacher said nothing"
    assert recording.skipped == {
        "a row that cannot be read": 1,
        "a row without a question": 3,
        "a completion that is no text": 1,
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"r{suffix}", [{"question": "q", "completion": "x"}])
    with pytest.raises(SourceError) as error:
        open_recording(teacher_of(path, columns={"problem": "questions"}))
    assert "teacher.columns.problem='questions'" in str(error.value)
    assert "did you mean 'question'?" in str(error.value)
    assert "teacher.columns.completion='text'" in str(error.value)


def test_the_same_attempt_twice_counts_once_and_one_id_for_two_texts_is_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "q": "question", "text": "x"}, {"id": "b", "q": "question", "text": "y"}]
    teacher = teacher_of(write(tmp_path / "r.jsonl", [*rows, rows[0]]), columns={"id": "id"})
    assert texts(replayed(teacher, "question", 3)) == ["x", "y", None]
    assert open_recording(teacher).skipped == {"the same attempt again": 1}
    write(tmp_path / "r.jsonl", [*rows, {"id": "a", "q": "question", "text": "z"}])
    with pytest.raises(SourceError, match=r"teacher.columns.id='id': .*'a' \(r.jsonl row 3\)"):
        open_recording(teacher)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no completion"),
        (b"\x00\xff\xfe", "none of its first rows can be read; the first: is not UTF-8"),
        (b"problem,completion\nWhat?,42\n", "CSV and JSON arrays must be converted"),
        (b'[{"problem": "What?", "completion": "42"}]', "CSV and JSON arrays must be converted"),
        (gzip.compress(b'{"problem": "What?", "completion": "42"}\n', mtime=0), "unpack it"),
        (None, "no such file"),
    ],
)
def test_a_recording_that_is_none_is_said_so(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(SourceError, match=expected):
        open_recording(teacher_of(tmp_path / "r.jsonl"))


def test_a_column_that_the_first_rows_leave_out_is_found_further_down(tmp_path: Path) -> None:
    rows = [{"q": "What?"}, *({"q": "What?", "text": f"It is {n}."} for n in range(3))]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_recording(teacher_of(tmp_path / "r.jsonl")).num_completions == 3


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match=r"r\.parquet is not readable as Parquet"):
        open_recording(teacher_of(tmp_path / "r.parquet"))


@pytest.mark.parametrize(
    ("value", "label"), [(True, True), ("Correct", True), (1, True), (0.0, False), ("false", False), ("maybe", None)]
)
def test_labels_are_read_in_the_words_that_publishers_use(tmp_path: Path, value: object, label: bool | None) -> None:
    path = write(tmp_path / "r.jsonl", [{"q": "question", "text": "x", "ok": value}])
    (found,) = replayed(teacher_of(path, columns={"label": "ok"}), "question", 1)
    assert isinstance(found, Completion)
    assert found.label is label


def test_another_file_or_another_mapping_is_another_teacher(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"q": "question", "text": "x", "other": "y"}])
    before = teacher_identity(teacher_of(path))
    assert teacher_identity(teacher_of(path)) == before
    assert teacher_identity(teacher_of(path, columns={"completion": "other"})) != before
    write(path, [{"q": "question", "text": "xx", "other": "y"}])
    assert teacher_identity(teacher_of(path)) != before


# What a plan makes of it.


def job(path: Path, **parts: Any) -> Any:
    body = {
        "name": "j",
        "sources": [{"kind": "jsonl", "path": str(path), "columns": {"problem": "q"}}],
        "prompt": {"template": "plain", "format": "plain"},
        "teacher": {"kind": "replay", "columns": COLUMNS},
        **parts,
    }
    return parse_config(body, origin="job.yaml")


def test_a_plan_takes_path_domains_and_the_number_of_attempts_from_the_rest(tmp_path: Path) -> None:
    rows = [{"q": "question", "text": str(n)} for n in range(5)] + [{"q": "another", "text": "x"}]
    path = write(tmp_path / "r.jsonl", rows)
    plan = make_plan(job(path), {})
    assert isinstance(plan.teacher, ReplayTeacher)
    assert (plan.teacher.path, plan.teacher.domains) == (str(path), (Domain.MATH,))
    assert plan.job.sampling.num_samples == 5
    assert make_plan(job(path, sampling={"num_samples": 2}), {}).job.sampling.num_samples == 2


@pytest.mark.parametrize("given_parts", [{}, {"template": "plain"}, {"format": "plain"}])
def test_how_a_recording_was_asked_for_must_be_stated(tmp_path: Path, given_parts: dict[str, str]) -> None:
    path = write(tmp_path / "r.jsonl", [{"q": "question", "text": "x"}])
    missing = "format" if "template" in given_parts else "template"
    with pytest.raises(ConfigError, match=f"prompt.{missing}: is missing"):
        make_plan(job(path, prompt=given_parts), {})


def test_findings_say_what_is_left_out_and_refuse_a_recording_of_something_else(tmp_path: Path) -> None:
    rows = [{"q": "question", "text": str(n)} for n in range(5)] + [{"q": "another", "text": "x"}]
    recording: Recording = open_recording(teacher_of(write(tmp_path / "r.jsonl", rows), tokenizer="bytes"))
    lines = "\n".join(recording.findings([problem_id("question"), problem_id("a third")], 3))
    assert "2 x completions beyond sampling.num_samples=3" in lines
    assert "1 x completions answer no problem" in lines
    assert "1 x problems have no recorded completion" in lines
    assert "counted as bytes" in lines
    with pytest.raises(SourceError, match="none of its 6 completions"):
        recording.findings([problem_id("of something else")], 3)
