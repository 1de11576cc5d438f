"""Hypothesis strategies for the shared records: whatever they allow, and no more."""

from __future__ import annotations

from hypothesis import strategies as st

from schemas.problem import (
    COMPARE_MODES,
    Answer,
    AssertTest,
    Choice,
    Compare,
    Domain,
    FunctionTest,
    Limits,
    Message,
    Problem,
    Reference,
    Scorer,
    StdinTest,
    Tests,
)
from schemas.trace import FinishReason, Partial, Trace, TraceFormat
from schemas.verdict import (
    ANSWER_CHECKS,
    READABILITY_REASONS,
    REASON_OUTCOMES,
    Check,
    CodeDetail,
    Detail,
    MathDetail,
    Outcome,
    Reason,
    Summary,
    Verdict,
    summarize,
)

# Text that UTF-8 can write: lone surrogates are the one thing that is not.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
visible_texts = st.tuples(texts, st.sampled_from("aZ7?é中")).map("".join)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
hex_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
maybe_hashes: st.SearchStrategy[str | None] = st.none() | hex_ids
sample_indices = st.integers(0, 32_766)  # int16 in Arrow
finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.floats(min_value=0, max_value=1e9)
counts = st.integers(min_value=0, max_value=2**31 - 1)
times_us = st.integers(min_value=0, max_value=4_102_444_800_000_000)  # up to the year 2100

answers = st.builds(
    Answer,
    text=visible_texts,
    kind=st.none() | st.sampled_from(["integer", "rational", "text"]),
    precision=st.none() | st.floats(min_value=1e-12, max_value=1.0),
)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    options = tuple(draw(st.lists(visible_texts, max_size=26)))
    last = len(options) - 1 if options else 25
    return Choice(letter=chr(ord("A") + draw(st.integers(0, last))), options=options)


test_cases = (
    st.builds(StdinTest, input=texts, expected=texts)
    | st.builds(FunctionTest, entry=names, args=st.just("[1]"), expected=texts)
    | st.builds(AssertTest, entry=names, source=texts)
)
compares = st.sampled_from(COMPARE_MODES).flatmap(
    lambda mode: st.builds(
        Compare,
        mode=st.just(mode),
        abs_tol=sizes,
        rel_tol=sizes,
        checker=visible_texts if mode == "checker" else st.none(),
    )
)
limits = st.builds(Limits, cpu_time_s=sizes, wall_time_s=sizes, memory_mb=counts, output_mb=counts)
tests = st.builds(
    Tests,
    cases=st.lists(test_cases, max_size=3).map(tuple),
    compare=compares,
    limits=limits,
    language=st.sampled_from(["python", "cpp"]),
)
scorers = st.builds(Scorer, name=names.map("reasoning_gym/{}".format), payload=texts)
references: st.SearchStrategy[Reference] = answers | choices() | tests | scorers
maybe_references: st.SearchStrategy[Reference | None] = st.none() | references

messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts)
user_messages = st.builds(Message, role=st.just("user"), content=visible_texts)
conversations = st.tuples(st.lists(messages, max_size=3), user_messages).map(lambda parts: (*parts[0], parts[1]))


def problems(
    messages: st.SearchStrategy[tuple[Message, ...]] = conversations,
    references: st.SearchStrategy[Reference | None] = maybe_references,
) -> st.SearchStrategy[Problem]:
    """Return problems, with or without a reference."""
    return st.builds(
        Problem,
        domain=st.sampled_from(Domain),
        messages=messages,
        language=st.sampled_from(["en", "de", "zh"]),
        source=visible_texts,
        source_row_id=texts,
        source_revision=st.none() | visible_texts,
        license=st.sampled_from(["unknown", "MIT"]),
        reference=references,
    )


completions = texts | st.tuples(texts, texts).map(lambda parts: f"<think>\n{parts[0]}\n</think>\n\n{parts[1]}")


def traces(
    problem_ids: st.SearchStrategy[str] = hex_ids,
    fingerprints: st.SearchStrategy[str] = hex_ids,
    sample_indices: st.SearchStrategy[int] = sample_indices,
) -> st.SearchStrategy[Trace]:
    """Return traces of any format and ending."""
    return st.builds(
        Trace,
        fingerprint=fingerprints,
        problem_id=problem_ids,
        sample_index=sample_indices,
        format=st.sampled_from(TraceFormat),
        text=completions,
        token_ids=st.lists(counts, max_size=4).map(tuple),
        finish_reason=st.sampled_from(FinishReason),
        finish_detail=st.none() | texts,
        stop_token=st.none() | texts,
        num_prompt_tokens=counts,
        num_completion_tokens=counts,
        num_reasoning_tokens=st.none() | counts,
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        teacher=visible_texts,
        teacher_revision=texts,
        engine=names,
        engine_version=names,
        engine_id=names,
        submitted_at_us=times_us,
        first_token_at_us=st.none() | times_us,
        finished_at_us=times_us,
        resumed_at=st.lists(counts, max_size=2).map(tuple),
    )


partials = st.builds(
    Partial,
    problem_id=hex_ids,
    sample_index=sample_indices,
    offset=counts,
    token_ids=st.lists(counts, max_size=4).map(tuple),
    resumed_at=st.lists(counts, max_size=2).map(tuple),
)

details: st.SearchStrategy[Detail | None] = (
    st.none()
    | st.builds(
        MathDetail,
        rung=names,
        extracted=st.none() | texts,
        answer_form=st.none() | texts,
        reference_form=st.none() | texts,
    )
    | st.builds(
        CodeDetail,
        tier=st.sampled_from("ABCD"),
        tests_run=counts,
        tests_passed=counts,
        cpu_ms=sizes,
        peak_mb=sizes,
    )
)
# Outcome and reason as `Check` allows them: passed, failed for a reason, or passed with a flag.
endings = (
    st.sampled_from([(Outcome.CORRECT, None), (Outcome.READABLE, None)])
    | st.sampled_from([(outcome, reason) for reason, outcome in REASON_OUTCOMES.items()])
    | st.sampled_from([(Outcome.READABLE, reason) for reason in sorted(READABILITY_REASONS)])
)


@st.composite
def checks(draw: st.DrawFn) -> Check:
    outcome, reason = draw(endings)
    return Check(
        name=draw(st.sampled_from(sorted(ANSWER_CHECKS)) | names),
        version=draw(names),
        outcome=outcome,
        reason=reason,
        start=draw(st.none() | counts),
        end=draw(st.none() | counts),
        value=draw(st.none() | finite),
        threshold=draw(st.none() | finite),
        ms=draw(sizes),
        detail=draw(details),
    )


def verdicts(reference_hashes: st.SearchStrategy[str | None] = maybe_hashes) -> st.SearchStrategy[Verdict]:
    """Return verdicts of one to four checks, whatever they say."""
    return st.builds(
        Verdict, reference_hash=reference_hashes, checks=st.lists(checks(), min_size=1, max_size=4).map(tuple)
    )


def _summary(found: list[tuple[str, tuple[Outcome, Reason | None]]]) -> Summary:
    return summarize([Check(name=name, version="1", outcome=ending[0], reason=ending[1]) for name, ending in found])


# Outcome, reason and is_correct as they follow from some checks; far cheaper to draw than a verdict.
summaries = st.lists(st.tuples(st.sampled_from(["math", "format"]), endings), min_size=1, max_size=2).map(_summary)
