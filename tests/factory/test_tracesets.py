"""Published sets: what a row of each shape holds, that any row gives it or a reason, and that texts are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.columns import column_problem
from factory.importing import find_files, find_format
from factory.rows import NumberLiteral, Row, RowError
from factory.tracesets import TRACE_SETS, Attempt, tagged
from schemas.config import FileSource
from schemas.errors import ConfigError, SourceError
from schemas.problem import Answer, Domain, FunctionTest, Problem, QuarantineReason, StdinTest, Tests
from schemas.trace import FinishReason, split_completion
from tests import tracesets

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def problem_of(name: str, body: dict[str, Any]) -> Problem:
    source = FileSource.model_validate({"kind": "parquet", "path": "x.parquet", "columns": name})
    return column_problem(Row(1, "row 1", "1", "", body), source, name)


def attempts_of(name: str, body: dict[str, Any]) -> list[Attempt]:
    return TRACE_SETS[name].attempts(body)


def bodies(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return rows that have a set's columns, filled with anything, also inside JSON."""
    columns = sorted({*TRACE_SETS[name].optional, *(column for shape in TRACE_SETS[name].shapes for column in shape)})
    said = st.sampled_from(["verifiable_math", "verifiable_code", "user", "assistant", "code", "math", "genselect"])
    turns = st.lists(st.fixed_dictionaries({"role": said | values, "content": words | values}), max_size=3)
    return st.fixed_dictionaries({}, optional=dict.fromkeys(columns, values | said | turns | values.map(json.dumps)))


@pytest.mark.parametrize("name", TRACE_SETS)
@settings(max_examples=50)
@given(data=st.data())
def test_any_row_gives_a_problem_and_texts_or_a_reason(name: str, data: st.DataObject) -> None:
    body = data.draw(bodies(name))
    for read in (problem_of, attempts_of):
        try:
            found = read(name, body)
        except RowError:
            continue
        if isinstance(found, list):
            assert all(isinstance(attempt.text, str) for attempt in found)
        else:
            assert found.question


def test_openr1_gives_each_generation_with_its_own_label_and_end() -> None:
    row = tracesets.openr1_row(1, 2, 3, 2, 5)
    row |= {
        "generations": [*row["generations"][:2], None, *row["generations"][2:]],
        "correctness_math_verify": [True, False, None, True],  # too short by one
        "finish_reasons": ["stop", "length", None, None],
        "is_reasoning_complete": [True, True, False, False],
    }
    found = attempts_of("openr1_math", row)
    assert [attempt.text for attempt in found] == [text for text in row["generations"] if text is not None]
    assert [attempt.label for attempt in found] == [True, False, True, None]
    stop, length = FinishReason.STOP, FinishReason.LENGTH
    assert [attempt.finish_reason for attempt in found] == [stop, length, length, stop]
    assert problem_of("openr1_math", row).reference == Answer(text="2")
    assert problem_of("openr1_math", row).source_row_id == "u-1"


@given(words, words)
@example("a <|end_of_thought|> inside", "b")
def test_marks_become_tags_and_nothing_else_changes(thought: str, solution: str) -> None:
    text = f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{solution}\n\n"
    text += "<|end_of_solution|>"
    found = tagged(text)
    if "<|" not in thought + solution:
        assert found == f"<think>\n{thought.strip(chr(10))}\n</think>\n\n{solution.strip(chr(10))}"
        assert split_completion(found).response.strip("\n") == solution.strip("\n") or "</think>" in solution
    assert tagged(found) == found


@pytest.mark.parametrize(
    "text",
    ["", "plain", "<think>\nhm\n</think>\n\nso", "<|begin_of_thought|> cut", "said before <|begin_of_thought|>a"],
)
def test_a_text_without_all_marks_stays_as_it_is(text: str) -> None:
    assert tagged(text) == text


def test_openthoughts_has_two_configs() -> None:
    text = tracesets.thought(1, 2)
    turns = [{"from": "user", "value": tracesets.question(1)}, {"from": "assistant", "value": tracesets.marked(text)}]
    row: dict[str, Any] = {"system": "Think.", "conversations": turns}
    assert attempts_of("openthoughts", row) == [Attempt(text)]
    problem = problem_of("openthoughts", row)
    assert [message.role for message in problem.messages] == ["user"], "the system turn is the student's"
    assert (problem.reference, problem.domain, problem.license) == (None, Domain.QA, "Apache-2.0")

    metadata: dict[str, Any] = {
        "problem": tracesets.question(1),
        "deepseek_reasoning": "One more.\n",
        "deepseek_solution": "\n\nSo \\boxed{2}.",
        "ground_truth_solution": r"First \boxed{7}, then \boxed{2}.",
        "domain": "math",
        "test_cases": None,
        "starter_code": None,
    }
    assert attempts_of("openthoughts", metadata) == [Attempt("<think>\nOne more.\n</think>\n\nSo \\boxed{2}.")]
    assert problem_of("openthoughts", metadata).reference == Answer(text="2")
    assert problem_of("openthoughts", metadata | {"domain": "physics"}).domain is Domain.STEM
    assert problem_of("openthoughts", metadata | {"ground_truth_solution": None}).reference is None
    code = metadata | {"domain": "code", "test_cases": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})}
    reference = problem_of("openthoughts", code).reference
    assert isinstance(reference, Tests)
    assert reference.cases == (StdinTest(input="1\n", expected="2\n"),)
    with pytest.raises(RowError, match="not JSON"):
        problem_of("openthoughts", code | {"test_cases": "{'inputs': []}"})


def test_mixture_of_thoughts_is_of_the_domain_that_its_source_says() -> None:
    row = tracesets.mixture_row(4)
    assert attempts_of("mixture_of_thoughts", row) == [Attempt(tracesets.thought(4, 5), num_tokens=104)]
    sources = {"open-r1/codeforces-cots": Domain.CODE, "nvidia/Llama-Nemotron-Post-Training-Dataset": Domain.STEM}
    for source, domain in {**sources, "somebody/else": Domain.QA, "open-r1/OpenR1-Math-220k": Domain.MATH}.items():
        assert problem_of("mixture_of_thoughts", row | {"source": source}).domain is domain
    with pytest.raises(RowError, match="end with the assistant"):
        problem_of("mixture_of_thoughts", {"messages": row["messages"][:1]})


def test_synthetic1_has_its_references_in_json() -> None:
    row = tracesets.synthetic_row(1, 2)
    assert problem_of("synthetic1", row).reference == Answer(text="2")
    assert problem_of("synthetic1", row).source_row_id == "vfm_1"
    cases = [{"type": "function_call", "fn_name": "add", "input": [1, [2]], "output": {"a": 1}}]
    info = {"language": "python", "test_cases": cases}
    code = row | {"task_type": "verifiable_code", "verification_info": json.dumps(info)}
    reference = problem_of("synthetic1", code).reference
    assert isinstance(reference, Tests)
    assert reference.cases == (FunctionTest(entry="add", args="[1, [2]]", expected='{"a": 1}'),)
    stdin = {"language": "cpp", "test_cases": [{"type": "stdin_stdout", "input": "1\n", "output": "2\n"}]}
    reference = problem_of("synthetic1", code | {"verification_info": json.dumps(stdin)}).reference
    assert isinstance(reference, Tests)
    assert (reference.language, reference.cases) == ("cpp", (StdinTest(input="1\n", expected="2\n"),))


@pytest.mark.parametrize(
    ("score", "label"),
    [("1.0", True), ("0.0", False), ("0.75", False), ("nan", None), (None, None), ("much", None)],
)
def test_a_score_is_a_label_only_where_all_was_right(score: str | None, label: bool | None) -> None:
    given_score = None if score is None else NumberLiteral(score)
    assert attempts_of("synthetic1", tracesets.synthetic_row(1, 2, score=given_score))[0].label is label


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task_type": "llm_judgeable_groundtruth_similarity"}, QuarantineReason.UNSUPPORTED_REFERENCE),
        ({"task_type": "code_output_prediction"}, QuarantineReason.UNSUPPORTED_REFERENCE),
        ({"verification_info": "{'ground_truth': '2'}"}, QuarantineReason.BAD_VALUE),
        ({"verification_info": "[" * 100_000}, QuarantineReason.BAD_VALUE),
        ({"verification_info": '{"ground_truth": "\\ud800"}'}, QuarantineReason.BAD_VALUE),
        ({"verification_info": '{"ground_truth": ["2"]}'}, QuarantineReason.BAD_VALUE),
        ({"verification_info": None}, QuarantineReason.BAD_VALUE),
        (
            {"task_type": "verifiable_code", "verification_info": '{"test_cases": [{"type": "function_call"}]}'},
            QuarantineReason.BAD_VALUE,
        ),
    ],
)
def test_what_cannot_be_judged_says_why(changed: dict[str, Any], reason: QuarantineReason) -> None:
    with pytest.raises(RowError) as raised:
        problem_of("synthetic1", tracesets.synthetic_row(1, 2, **changed))
    assert raised.value.reason is reason


def test_openmathreasoning_names_who_wrote_it_and_leaves_out_what_is_no_attempt() -> None:
    row = tracesets.openmath_row(1, 2)
    assert attempts_of("openmathreasoning", row) == [Attempt(row["generated_solution"], teacher="QwQ-32B")]
    assert problem_of("openmathreasoning", row).license == "CC-BY-4.0"
    for nobody in ("n/a", "", None):
        assert attempts_of("openmathreasoning", row | {"generation_model": nobody})[0].teacher is None
    assert problem_of("openmathreasoning", row | {"expected_answer": "n/a"}).reference is None
    assert attempts_of("openmathreasoning", row | {"generated_solution": "n/a"}) == []
    with pytest.raises(RowError, match="no attempt"):
        problem_of("openmathreasoning", row | {"inference_mode": "genselect"})


@pytest.mark.parametrize("shape", tracesets.SCHEMAS)
def test_the_format_of_a_file_is_seen(tmp_path: Path, shape: str) -> None:
    path = tracesets.write(tmp_path / "a.parquet", [], shape)
    assert find_format([path], "auto") == shape.removesuffix("_metadata")


def test_a_file_of_no_format_or_of_another_says_what_it_has(tmp_path: Path) -> None:
    openr1 = tracesets.write(tmp_path / "a.parquet", [], "openr1_math")
    mixture = tracesets.write(tmp_path / "b.parquet", [], "mixture_of_thoughts")
    with pytest.raises(SourceError, match=r"lacks prompt, llm_response.*uuid; it fits openr1_math"):
        find_format([openr1], "synthetic1")
    with pytest.raises(SourceError, match="several formats"):
        find_format([openr1, mixture], "auto")
    with pytest.raises(ConfigError, match="did you mean 'openthoughts'"):
        find_format([openr1], "openthought")
    other = tmp_path / "c.parquet"
    pq.write_table(pq.read_table(openr1).select(["problem", "answer", "generations"]), other)
    with pytest.raises(SourceError, match=r"no file of format openr1_math: it lacks uuid; .*nearest"):
        find_format([other], "auto")
    other.write_text("no Parquet")
    with pytest.raises(SourceError, match="not readable as Parquet"):
        find_format([other], "auto")
    with pytest.raises(SourceError, match=r"no such file; did you mean 'a\.parquet'"):
        find_files([str(tmp_path / "aa.parquet")])
    with pytest.raises(SourceError, match="is a folder"):
        find_files([str(tmp_path)])


def test_files_come_once_and_in_one_order(tmp_path: Path) -> None:
    a, b = (tracesets.write(tmp_path / f"{name}.parquet", [], "openr1_math") for name in "ab")
    same = tmp_path / "c.parquet"
    same.symlink_to(a)
    assert find_files([str(b), str(a), str(b)]) == find_files([str(a), str(b)]) == [a, b]
    assert len(find_files([str(a), str(same)])) == 1
