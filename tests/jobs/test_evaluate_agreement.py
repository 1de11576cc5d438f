"""Agreement with other harnesses: the same outputs, and every difference named and explained.

``tests/data/harness`` holds what lm-eval 0.4.13 (task minerva_math500) and lighteval 0.13.0 (task math_500) logged for
140 answers of ``math_cases_public.jsonl``, given to them as recorded outputs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.evaluate.agreement import Compared, compare, read_log
from jobs.evaluate.samples import Item, Sample, Stored
from schemas.errors import ConfigError
from schemas.problem import Answer
from schemas.trace import FinishReason
from verifiers.math import judge_answer

DATA = Path(__file__).parents[1] / "data"
CASES = {row["id"]: row for row in map(json.loads, (DATA / "math_cases_public.jsonl").read_text().splitlines())}
LM_EVAL, LIGHTEVAL = DATA / "harness" / "lm_eval.jsonl", DATA / "harness" / "lighteval.parquet"

# Why they differ; both harnesses compare by math-verify. In all of these the case's own label agrees with ours.
BOTH = {
    "mp-0072": "3.2e5 is no LaTeX number to them",
    "mp-0098": "an interval without dollar signs is not read",
    "mp-0109": "lists with dots are compared by their first item",
    "mp-0123": "the base of a numeral is dropped: 204_6 is not 204_5",
    "mp-0131": "a plus-minus is not multiplied out",
    "mp-0141": "an upright i is another symbol",
    "mp-0143": "a complex number in polar form is not evaluated",
    "mp-0150": "the name of a set without braces is not read",
}
ONLY_LM_EVAL = {"mp-0044": "12.5 % against 0.125", "mp-0142": "3 + 4 i against 3+4i, each spelled alone"}
ONLY_LIGHTEVAL = {"mp-0068": "a list that says or", "mp-0136": "two boxes in the reference, of which one is read"}


def stored_cases() -> tuple[Stored, dict[str, str]]:
    """Return the cases that were recorded as an evaluation holds them, judged here, and their texts."""
    items, samples, texts = {}, {}, {}
    for row in map(json.loads, LM_EVAL.read_text().splitlines()):
        case = CASES[row["doc"]["id"]]
        verdict = judge_answer(case["prediction"], case["gold"])
        detail = verdict.checks[0].detail
        items[case["id"]] = Item(
            problem_id=case["id"],
            row_id=case["id"],
            question=f"Case {case['id']}: what is the value?",
            reference=Answer(text=case["gold"]),
        )
        samples[case["id"]] = (
            Sample(
                problem_id=case["id"],
                sample_index=0,
                trace_id=case["id"],
                is_correct=verdict.is_correct,
                outcome=verdict.outcome,
                reason=verdict.checks[0].reason,
                answer=getattr(detail, "extracted", None),
                num_tokens=1,
                finish_reason=FinishReason.STOP,
                unreadable=(),
            ),
        )
        texts[case["id"]] = case["prediction"]
    return (
        Stored(
            items=items,
            samples=samples,
            num_samples=1,
            failed={},
            quarantined={},
            teacher={},
            fingerprint={},
            verifiers="v",
        ),
        texts,
    )


def compared(file: Path, metric: str | None) -> Compared:
    log, odd = read_log(file, metric)
    return compare(*stored_cases(), log.rows, log.metric, odd)


@pytest.mark.parametrize(
    ("file", "metric", "explained"),
    [(LM_EVAL, "math_verify,none", BOTH | ONLY_LM_EVAL), (LIGHTEVAL, None, BOTH | ONLY_LIGHTEVAL)],
)
def test_every_difference_to_another_harness_is_explained(
    file: Path, metric: str | None, explained: dict[str, str]
) -> None:
    found = compared(file, metric)
    assert found.num_compared == 140
    assert {one.row_id for one in found.differences} == set(explained)
    assert all(one.ours is CASES[one.row_id]["expected"] for one in found.differences)
    assert found.left_out == {}


def test_a_log_in_another_order_agrees_the_same_and_strangers_are_counted() -> None:
    log, odd = read_log(LIGHTEVAL, None)
    stored, texts = stored_cases()
    whole = compare(stored, texts, log.rows, log.metric, odd)
    assert compare(stored, texts, log.rows[::-1], log.metric, odd) == whole
    part = compare(stored, texts, [*log.rows[:100], log.rows[0]], log.metric, odd)
    assert part.num_compared == 100
    assert part.left_out == {"outputs that are no sample of the run": 1, "samples of the run that are not logged": 40}


def test_an_output_at_another_question_is_no_sample() -> None:
    log, _ = read_log(LM_EVAL, "math_verify,none")
    other = [one._replace(questions=frozenset({"Another question?"})) for one in log.rows]
    assert compare(*stored_cases(), other, log.metric, {}).num_compared == 0


def test_a_metric_must_be_chosen_where_a_log_has_several(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exact_match,none, math_verify,none"):
        read_log(LM_EVAL, None)
    (tmp_path / "other.jsonl").write_text('{"text": "?"}\n')
    with pytest.raises(ConfigError, match="neither lm-eval nor lighteval"):
        read_log(tmp_path / "other.jsonl", None)


def test_several_outputs_under_one_score_are_left_out(tmp_path: Path) -> None:
    row = {"doc": {"q": "Q?"}, "resps": [["a", "b"]], "filter": "none", "metrics": ["acc"], "acc": 1.0}
    single = {**row, "resps": [["a"]]}
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, (row, single))))
    log, odd = read_log(tmp_path / "log.jsonl", None)
    assert len(log.rows) == 1
    assert odd == {"rows with 2 outputs and one score": 1}
