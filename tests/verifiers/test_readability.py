"""The format check: four layouts, tags in code, empty thoughts, missing and several answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Outcome, Reason, Verdict
from verifiers.readability import judge_trace

DATA = Path(__file__).parents[1] / "data"
FORMAT_REASONS = {
    "truncated",
    "malformed_tags",
    "empty_think",
    "missing_answer",
    "answer_only_in_think",
    "multiple_answers",
}
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "readability_cases_public.jsonl").read_text(encoding="utf-8").splitlines()
]


def judge(text: str, layout: str | None = "r1", **more: Any) -> Verdict:
    return judge_trace(text, domain=more.pop("domain", "math"), language="en", format=layout, **more)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["expected"] in {*FORMAT_REASONS, "accept"}], ids=lambda row: row["id"]
)
def test_the_public_format_cases_are_judged_as_expected(row: dict[str, Any]) -> None:
    verdict = judge_trace(
        row["trace"],
        problem=row["problem"],
        domain=row["domain"],
        language=row["target_language"],
        format=row["style"],
    )
    assert (verdict.reason or "accept") == row["expected"]


tags = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "```\n", "`", "\n", " ", "7 is it", "\\boxed{"]
)


@given(st.lists(tags | st.text(max_size=5), max_size=25).map("".join), st.sampled_from([*TraceFormat, None]))
def test_any_text_gets_a_verdict_with_its_place_inside_the_text(text: str, layout: TraceFormat | None) -> None:
    for domain in ("math", "chat"):
        check = judge(text, layout, domain=domain).checks[0]
        assert check.outcome in (Outcome.READABLE, Outcome.UNREADABLE)
        if check.start is not None:
            assert 0 <= check.start <= len(text)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("<think>six sevens are 42</think>\\boxed{42}", "r1"),
        ("\n<think>\nsix sevens\n</think>\n\nIt is 42.", "r1"),
        ("six sevens</think>It is 42.", "r1_prefilled"),
        ("<think>six sevens</think> <answer>42</answer>\n", "zero"),
        ("It is 42.", "plain"),
        ("<think>the tag `</think>` ends it</think>It is `</think>`, 8 characters.", "r1"),
        ("<think>like so:\n```\n<think></think>\n```\nright</think>It is 42.", "r1"),
        ("<think>cases</think>(a) \\boxed{1}\n(b) \\boxed{2}", "r1"),
        ("<think>7*8=56.</think>56", "r1"),
        ("<think>parity of n</think>The function is $f$, **odd**.", "r1"),
    ],
)
def test_a_well_formed_trace_is_readable(text: str, layout: str) -> None:
    assert judge(text, layout).outcome is Outcome.READABLE, judge(text, layout)


@pytest.mark.parametrize(
    ("text", "layout", "reason"),
    [
        ("<think>six sevens", "r1", Reason.TRUNCATED),
        ("six sevens and", "r1_prefilled", Reason.TRUNCATED),
        ("<think>six sevens</think><answer>4", "zero", Reason.TRUNCATED),
        ("<think>six sevens</think>so \\boxed{4", "r1", Reason.TRUNCATED),
        ("six sevens</think>It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("<think>six sevens</think>It is 42.", "plain", Reason.MALFORMED_TAGS),
        ("<think>six sevens</think>It is 42.", "r1_prefilled", Reason.MALFORMED_TAGS),
        ("<Think>six sevens</Think>It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("<thinking>six sevens</thinking>It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("[think]six sevens[/think]It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("Sure! <think>six sevens</think>It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("<think>six</think><think>sevens</think>It is 42.", "r1", Reason.MALFORMED_TAGS),
        ("<think>six sevens</think><answer>42</answer> Bye.", "zero", Reason.MALFORMED_TAGS),
        ("<think>six sevens</think>So <answer>42</answer>", "zero", Reason.MALFORMED_TAGS),
        ("<think> \n</think>It is 42.", "r1", Reason.EMPTY_THINK),
        ("<think>...</think>It is 42.", "r1", Reason.EMPTY_THINK),
        ("<think>N/A</think>It is 42.", "r1", Reason.EMPTY_THINK),
        ("<think>six sevens</think>", "r1", Reason.MISSING_ANSWER),
        ("<think>six sevens</think><answer> </answer>", "zero", Reason.MISSING_ANSWER),
        ("<think>six sevens: \\boxed{42}</think>I have shown it above.", "r1", Reason.ANSWER_ONLY_IN_THINK),
        ("<think>six sevens</think><answer>42</answer><answer>43</answer>", "zero", Reason.MULTIPLE_ANSWERS),
        ("<think>six sevens</think>\\boxed{42}, or maybe \\boxed{43}", "r1", Reason.MULTIPLE_ANSWERS),
    ],
)
def test_each_defect_has_its_reason(text: str, layout: str, reason: Reason) -> None:
    assert judge(text, layout).reason is reason


def test_the_engines_word_decides_truncation() -> None:
    good = "<think>six sevens</think>It is 42."
    assert judge(good, finish_reason=FinishReason.LENGTH).reason is Reason.TRUNCATED
    assert judge(good, finish_reason="repetition").reason is Reason.REPETITION_LOOP
    assert judge(good, finish_reason="stop").outcome is Outcome.READABLE


def test_without_a_format_a_prefilled_tag_is_never_assumed() -> None:
    assert judge("six sevens</think>It is 42.", None).reason is Reason.MALFORMED_TAGS
    assert judge("It is 42.", None).outcome is Outcome.READABLE
    assert judge("<think>six sevens</think><answer>42</answer>", None).outcome is Outcome.READABLE


def test_a_bad_argument_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="r2"):
        judge("x", "r2")
