"""Records: they survive Arrow and back, their ids hash what they should, and every ending has one meaning."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from schemas.arrow import (
    PROBLEMS,
    QUARANTINE,
    TRACES,
    UNTRACED,
    VERDICTS,
    VERSION_KEY,
    check_schema,
    problem_from_row,
    problems_to_table,
    prompt_from_row,
    quarantine_from_table,
    quarantine_to_table,
    traces_from_table,
    traces_to_table,
    untraced_from_table,
    untraced_to_table,
    verdicts_from_table,
    verdicts_to_table,
)
from schemas.errors import CorruptRunError, SchemaVersionError
from schemas.manifest import Counts, Manifest, Shard, manifest_from_json, manifest_to_json
from schemas.problem import (
    Answer,
    Domain,
    Message,
    Problem,
    Prompt,
    Quarantined,
    QuarantineReason,
    Reference,
    reference_from_json,
    reference_to_json,
)
from schemas.trace import Trace, Untraced, make_trace_id, split_completion
from schemas.verdict import (
    ANSWER_CHECKS,
    PRECEDENCE,
    READABILITY_REASONS,
    REASON_OUTCOMES,
    Check,
    JudgedTrace,
    Outcome,
    Reason,
    Verdict,
    pass_rate,
    summarize,
)
from tests.strategies import (
    checks,
    counts,
    hex_ids,
    maybe_hashes,
    names,
    problems,
    references,
    sample_indices,
    texts,
    traces,
    verdicts,
    visible_texts,
)

ALL_SCHEMAS = (PROBLEMS, QUARANTINE, TRACES, VERDICTS, UNTRACED)


def _through_parquet(table: pa.Table, schema: pa.Schema) -> pa.Table:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    check_schema(read.schema, schema, where="test")
    return read


# Round trips

prompts = st.builds(Prompt, problem_id=hex_ids, text=texts, sha256=hex_ids, token_ids=st.lists(counts).map(tuple))


@given(st.lists(st.tuples(problems(), prompts), max_size=3))
def test_problems_survive_arrow(pairs: list[tuple[Problem, Prompt]]) -> None:
    pairs = [(problem, replace(prompt, problem_id=problem.problem_id)) for problem, prompt in pairs]
    rows = _through_parquet(problems_to_table(pairs), PROBLEMS).to_pylist()
    assert [(problem_from_row(row), prompt_from_row(row)) for row in rows] == pairs
    assert [row["reference_hash"] for row in rows] == [problem.reference_hash for problem, _ in pairs]


@given(st.lists(traces(), max_size=3))
def test_traces_survive_arrow(written: list[Trace]) -> None:
    table = _through_parquet(traces_to_table(written), TRACES)
    assert list(traces_from_table(table)) == written
    assert table["trace_id"].to_pylist() == [trace.trace_id for trace in written]


@given(st.lists(st.builds(JudgedTrace, trace_id=hex_ids, problem_id=hex_ids, verdict=verdicts()), max_size=3))
def test_verdicts_survive_arrow_and_what_is_written_out_is_what_follows(written: list[JudgedTrace]) -> None:
    table = _through_parquet(verdicts_to_table(written), VERDICTS)
    assert list(verdicts_from_table(table)) == written
    for row, item in zip(table.to_pylist(), written, strict=True):
        summary = summarize(item.verdict.checks)
        assert (row["outcome"], row["reason"], row["is_correct"]) == summary


@given(
    st.lists(
        st.builds(
            Untraced,
            trace_id=hex_ids,
            problem_id=hex_ids,
            sample_index=sample_indices,
            ending=st.sampled_from(["failed", "cancelled"]),
            reason=names,
            detail=texts,
            num_tokens=counts,
        ),
        max_size=3,
    )
)
def test_endings_without_a_trace_survive_arrow(written: list[Untraced]) -> None:
    assert untraced_from_table(_through_parquet(untraced_to_table(written), UNTRACED)) == written


@given(
    st.lists(
        st.builds(
            Quarantined,
            source=texts,
            row=st.integers(0, 2**62),
            reason=st.sampled_from(QuarantineReason),
            detail=texts,
            raw=texts,
            problem_id=maybe_hashes,
        ),
        max_size=3,
    )
)
def test_quarantined_rows_survive_arrow(written: list[Quarantined]) -> None:
    assert quarantine_from_table(_through_parquet(quarantine_to_table(written), QUARANTINE)) == written


@given(references)
def test_references_survive_json_and_equal_ones_alone_have_equal_hashes(reference: Reference) -> None:
    assert reference_from_json(reference_to_json(reference)) == reference


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "Oracle"},
        {"type": "Answer"},
        {"type": "Answer", "text": "1", "unit": "m"},
        {"type": "Tests", "cases": []},
        {"type": "Tests", "cases": [{"type": "Guess"}], "compare": {}, "limits": {}, "language": "python"},
    ],
)
def test_a_reference_of_unknown_shape_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="reference"):
        reference_from_json(body)


shards = st.lists(st.builds(Shard, name=names, rows=counts, num_bytes=counts, sha256=hex_ids), max_size=2).map(tuple)


@given(
    st.builds(
        Manifest,
        number=counts,
        epoch=counts,
        note=texts,
        created_at=texts,
        fingerprint=hex_ids,
        config=st.dictionaries(names, texts),
        sources_state=hex_ids,
        num_samples=counts,
        verifiers=hex_ids,
        counts=st.builds(Counts, requested=counts, pending=counts),
        problems=shards,
        traces=shards,
        verdicts=st.dictionaries(hex_ids, shards, max_size=2),
    )
)
def test_manifests_survive_json(manifest: Manifest) -> None:
    assert manifest_from_json(manifest_to_json(manifest), where="test") == manifest


# Versions


@pytest.mark.parametrize("schema", ALL_SCHEMAS, ids=lambda schema: schema.metadata[VERSION_KEY].decode())
@pytest.mark.parametrize("change", ["newer", "unmarked", "another table", "more columns", "other type"])
def test_a_file_of_another_schema_is_refused_with_the_reason(schema: pa.Schema, change: str) -> None:
    label = schema.metadata[VERSION_KEY].decode()
    name = label.partition("/")[0]
    seen, word = {
        "newer": (schema.with_metadata({VERSION_KEY: f"{name}/99".encode()}), f"{name}/99"),
        "unmarked": (schema.with_metadata(None), "none"),
        "another table": (schema.with_metadata({VERSION_KEY: b"elsewhere/1"}), "elsewhere/1"),
        "more columns": (schema.append(pa.field("guess", pa.string())), "guess"),
        "other type": (schema.set(0, schema.field(0).with_type(pa.int8())), schema.names[0]),
    }[change]
    check_schema(schema, schema, where="fine")
    with pytest.raises(SchemaVersionError, match=rf"(?s)a\.parquet.*{word}"):
        check_schema(seen, schema, where="a.parquet")


def test_a_manifest_of_another_version_is_refused_with_both_versions() -> None:
    with pytest.raises(SchemaVersionError, match=r"7\.json.*version 99.*version 1"):
        manifest_from_json({"version": 99}, where="7.json")


@given(st.lists(st.integers(-2, 5), min_size=7, max_size=7))
@example([4, 4, 1, 1, 1, 0, 1])
def test_counts_are_refused_unless_every_attempt_is_in_one_place(values: list[int]) -> None:
    found = Counts(**dict(zip(Counts.__slots__, values, strict=True)))
    parts = found.judged + found.unjudged + found.failed + found.cancelled + found.pending
    holds = parts == found.requested and min(values) >= 0
    try:
        found.check()
    except CorruptRunError:
        return
    assert holds
    assert found.judged + found.unjudged <= found.generated


# Ids


@given(problems(), references)
def test_a_problem_keeps_its_id_whatever_its_reference(problem: Problem, reference: Reference) -> None:
    other = replace(problem, reference=reference, source="elsewhere", source_row_id="9", license="MIT")
    assert other.problem_id == problem.problem_id
    assert (other.reference_hash == problem.reference_hash) == (other.reference == problem.reference)


spaces = st.text(" \t\n\r\u00a0\u2003", min_size=1, max_size=3)


@given(st.lists(visible_texts, min_size=1, max_size=4), spaces, spaces, st.sampled_from(["NFC", "NFD"]))
def test_a_problem_id_ignores_whitespace_and_unicode_form(words: list[str], one: str, other: str, form: str) -> None:
    first = _problem(" ".join(words))
    second = _problem(one + unicodedata.normalize(form, other.join(words)) + one)
    assert first.problem_id == second.problem_id


@given(visible_texts, visible_texts)
def test_other_words_give_another_problem(first: str, second: str) -> None:
    assume(unicodedata.normalize("NFC", first).split() != unicodedata.normalize("NFC", second).split())
    assert _problem(first).problem_id != _problem(second).problem_id


@given(problems(), st.sampled_from(Domain))
def test_a_problem_id_depends_on_domain_and_roles(problem: Problem, domain: Domain) -> None:
    assert (replace(problem, domain=domain).problem_id == problem.problem_id) == (domain is problem.domain)
    turned = (*problem.messages, Message(role="assistant", content="x"))
    assert replace(problem, messages=turned).problem_id != problem.problem_id


def _problem(text: str) -> Problem:
    return Problem(
        domain=Domain.MATH,
        messages=(Message(role="user", content=text),),
        source="tests",
        source_row_id="1",
        reference=Answer(text="1"),
    )


@given(hex_ids, hex_ids, sample_indices, sample_indices)
def test_trace_ids_differ_by_run_problem_and_attempt(one: str, other: str, first: int, second: int) -> None:
    assert (make_trace_id(one, other, first) == make_trace_id(one, other, second)) == (first == second)
    assert (make_trace_id(one, other, first) == make_trace_id(other, one, first)) == (one == other)


@given(texts)
def test_a_split_completion_is_made_of_its_text(text: str) -> None:
    split = split_completion(text)
    assert split.response in text
    assert split.reasoning is None or split.reasoning in text


# Outcomes and reasons


def test_every_reason_belongs_to_exactly_one_outcome() -> None:
    assert REASON_OUTCOMES.keys() == set(Reason)
    assert set(REASON_OUTCOMES.values()) == set(Outcome) - {Outcome.CORRECT, Outcome.READABLE}
    assert sorted(PRECEDENCE) == sorted(Outcome)
    assert len(READABILITY_REASONS) == 13
    assert {reason for reason, outcome in REASON_OUTCOMES.items() if outcome is Outcome.UNREADABLE} == set(
        READABILITY_REASONS
    )


@given(st.sampled_from(Outcome), st.none() | st.sampled_from(Reason))
def test_a_check_with_a_reason_of_another_outcome_cannot_be_made(outcome: Outcome, reason: Reason | None) -> None:
    if reason is None:
        fits = outcome in (Outcome.CORRECT, Outcome.READABLE)
    else:
        is_flag = outcome is Outcome.READABLE and reason in READABILITY_REASONS
        fits = is_flag or REASON_OUTCOMES[reason] is outcome
    if fits:
        Check(name="math", version="1", outcome=outcome, reason=reason)
    else:
        with pytest.raises(AssertionError):
            Check(name="math", version="1", outcome=outcome, reason=reason)


check_lists = st.lists(checks(), min_size=1, max_size=4)


@given(check_lists, st.randoms(use_true_random=False))
def test_the_first_outcome_of_the_precedence_decides_in_whatever_order(found: list[Check], chance: object) -> None:
    summary = summarize(found)
    outcomes = {check.outcome for check in found}
    assert summary.outcome is next(outcome for outcome in PRECEDENCE if outcome in outcomes)
    reasons = {check.reason for check in found if check.outcome is summary.outcome}
    if summary.outcome is Outcome.READABLE:
        assert summary.reason is None, "a flag is no reason"
    else:
        assert summary.reason in reasons
    chance.shuffle(found)  # type: ignore[attr-defined]
    assert summarize(found).outcome is summary.outcome
    assert summarize(found).is_correct == summary.is_correct


WORDS = {
    Outcome.CORRECT: True,
    Outcome.WRONG_ANSWER: False,
    Outcome.NO_ANSWER: False,
    Outcome.OVER_LIMIT: False,
}


@given(checks().filter(lambda check: check.name in ANSWER_CHECKS), check_lists)
def test_is_correct_is_the_answer_checks_word_whatever_readability_says(answer: Check, others: list[Check]) -> None:
    form = [check for check in others if check.name not in ANSWER_CHECKS]
    assert summarize([*form, answer]).is_correct == WORDS.get(answer.outcome)
    if form:
        assert summarize(form).is_correct is None


def test_a_verdict_without_a_check_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one check"):
        summarize([])
    with pytest.raises(ValueError, match="at least one check"):
        Verdict(reference_hash=None, checks=())


@given(st.lists(st.none() | st.booleans()))
def test_the_pass_rate_counts_only_what_was_said(words: list[bool | None]) -> None:
    rate = pass_rate(words)
    assert (rate is None) == (True not in words and False not in words)
    assert rate is None or rate == words.count(True) / (words.count(True) + words.count(False))
