"""The detector of hopeless attempts: it finds every loop in good time, and leaves alone what does not go in circles."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.early import KEPT, LOOK_TOKENS, Alarm, Detector, Rules
from schemas.readability import Profile, ReadabilitySettings
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Outcome, Reason
from verifiers.readability import judge_trace

LOOP_TOKENS = 1536


def _rules(format: TraceFormat = TraceFormat.PLAIN, profile: Profile = Profile.R1, **settings: str) -> Rules:
    return Rules(loop_tokens=LOOP_TOKENS, format=format, settings=ReadabilitySettings(profile=profile, **settings))


def _watch(
    token_ids: Sequence[int], text: str = "", rules: Rules | None = None, *, prompt: str = "", language: str = "en"
) -> tuple[Alarm | None, int]:
    """Return the alarm, and after how many tokens it came; what comes is cut as the feeder gets it."""
    detector = Detector(rules or _rules(), language, prompt)
    size = len(token_ids) or len(text) // 4 + 1
    told = 0
    for start in range(0, size, LOOK_TOKENS):
        place = len(text) * (start + LOOK_TOKENS) // size
        alarm = detector.take(token_ids[start : start + LOOK_TOKENS], text[told:place])
        told = place
        if alarm is not None:
            return alarm, start + LOOK_TOKENS
    return None, size


@given(
    st.lists(st.lists(st.integers(-5, 1 << 31), max_size=300), max_size=40),
    st.lists(st.text(max_size=300), max_size=40),
    st.sampled_from(TraceFormat),
    st.sampled_from(["en", "zh", "ja", "xx"]),
)
@example([[0xD800] * 300] * 40, ["\ud800"] * 40, TraceFormat.R1, "en")
@settings(max_examples=60)
def test_nothing_is_raised_on_any_stream(
    tokens: list[list[int]], texts: list[str], format: TraceFormat, language: str
) -> None:
    detector = Detector(_rules(format), language, "Was ist 1 + 1?")
    for token_ids, text in itertools.zip_longest(tokens, texts, fillvalue=()):
        detector.take(token_ids or (), text or "")


@given(st.integers(1, 400), st.integers(0, 3_000), st.integers(2, 150_000), st.integers(0, 1 << 32))
@settings(max_examples=40)
def test_a_loop_of_any_period_is_found_after_five_turns_or_1536_tokens(
    period: int, num_before: int, vocabulary: int, seed: int
) -> None:
    dice = random.Random(seed)
    before = [dice.randrange(vocabulary) for _ in range(num_before)]
    unit = [dice.randrange(vocabulary) for _ in range(period)]
    alarm, num_tokens = _watch(before + unit * (12_000 // period))
    assert alarm is not None
    assert alarm.reason is Reason.REPETITION_LOOP
    # One more turn where the first is not aligned, and the look that it falls into.
    assert num_tokens <= num_before + max(LOOP_TOKENS, 5 * period) + period + 2 * LOOK_TOKENS


@pytest.mark.parametrize("period", [1_500, 4_000, 10_000])
def test_a_loop_of_a_long_period_is_found_in_its_third_turn(period: int) -> None:
    dice = random.Random(period)
    unit = [dice.randrange(100_000) for _ in range(period)]
    alarm, num_tokens = _watch(unit * 4)
    assert alarm is not None
    assert 3 * period <= num_tokens <= max(4_096, 3 * period) + LOOK_TOKENS


@given(st.integers(200, 150_000), st.integers(0, 1 << 32))
@settings(max_examples=20)
def test_what_does_not_repeat_itself_never_ends(vocabulary: int, seed: int) -> None:
    dice = random.Random(seed)
    assert _watch([dice.randrange(vocabulary) for _ in range(20_000)])[0] is None


@given(st.integers(1, 300), st.integers(0, 1 << 32))
@settings(max_examples=40)
def test_one_new_token_in_each_turn_is_no_loop(period: int, seed: int) -> None:
    """Case analysis, long division, sequences: each line brings something new."""
    dice = random.Random(seed)
    unit = [dice.randrange(1_000) for _ in range(period)]
    ids = [token for turn in range(6_000 // (period + 1)) for token in (*unit, 1_000 + turn)]
    assert _watch(ids)[0] is None


def test_the_time_per_token_does_not_grow_and_memory_is_bounded() -> None:
    dice = random.Random(1)
    detector = Detector(_rules(), "en", "")
    ids = [dice.randrange(50_000) for _ in range(LOOK_TOKENS * 1_000)]

    def seconds_of(first: int, last: int) -> float:
        begin = time.thread_time()
        for look in range(first, last):
            assert detector.take(ids[look * LOOK_TOKENS : (look + 1) * LOOK_TOKENS], "") is None
        return time.thread_time() - begin

    early = seconds_of(150, 400)  # what is kept is full
    late = min(seconds_of(first, first + 250) for first in (400, 600, 750))
    assert late < 5 * early
    assert len(detector._tokens) <= KEPT + KEPT // 8 + LOOK_TOKENS


def test_an_endpoint_that_gives_no_tokens_is_looked_at_by_its_characters() -> None:
    said = "So I look at the first case again, and it is the same as it was before. "
    alarm, num_tokens = _watch([], "<think>\n" + said * 400, _rules(TraceFormat.R1))
    assert alarm is not None
    assert alarm.reason is Reason.REPETITION_LOOP
    assert "characters" in alarm.detail
    assert num_tokens <= LOOP_TOKENS + 2 * LOOK_TOKENS


@pytest.mark.parametrize("format", [TraceFormat.R1, TraceFormat.ZERO])
def test_a_text_that_must_begin_with_its_tag_and_does_not_is_ended_at_once(format: TraceFormat) -> None:
    ids = list(range(2_000))
    alarm, num_tokens = _watch(ids, "First I add the numbers. " * 300, _rules(format))
    assert alarm == (Reason.MALFORMED_TAGS, "the text does not begin with <think>")
    assert num_tokens == LOOK_TOKENS
    for text in ("<think>\nFirst. ", "\n\n <think>First. ", "\n" * 40 + "<think>\nFirst, I add. " * 300, ""):
        assert _watch(ids, text, _rules(format))[0] is None
    for other in (TraceFormat.R1_PREFILLED, TraceFormat.PLAIN):
        assert _watch(ids, "First I add the numbers. " * 300, _rules(other))[0] is None


def test_a_tag_may_come_letter_by_letter_and_is_not_asked_for_where_another_engine_began() -> None:
    detector = Detector(_rules(TraceFormat.R1), "en", "")
    assert [detector.take([1], letter) for letter in "\n<think>"] == [None] * 8
    resumed = Detector(_rules(TraceFormat.R1), "en", "")
    resumed.go_on_from(range(500))
    assert resumed.take([1, 2], "and so it goes on") is None


RUSSIAN = "сначала вычислим квадрат этого числа затем сложим обе части и разделим результат на два"


def _russian(num_words: int) -> str:
    return " ".join(random.Random(2).choices(RUSSIAN.split(), k=num_words))


def test_a_thought_that_goes_on_in_a_foreign_script_is_ended() -> None:
    text = "First I add the numbers. " * 20 + _russian(900)
    ids = random.Random(3).choices(range(1_000), k=len(text) // 4)
    alarm, _ = _watch(ids, text)
    assert alarm is not None
    assert alarm.reason is Reason.LANGUAGE_MIXING
    verdict = judge_trace(text, domain="math", language="en", finish_reason=FinishReason.ABORT)
    assert verdict.outcome is Outcome.UNREADABLE


@pytest.mark.parametrize(
    ("text", "prompt", "language", "think_language"),
    [
        ("First I add the numbers. " * 50 + _russian(20), "", "en", None),  # some words
        (_russian(900), "", "ru", None),
        (_russian(900), "", "en", "ru"),  # how this teacher thinks
        (_russian(900), "Translate it into Russian: one and one is two.", "en", None),
        (_russian(900), "Сколько будет два плюс два?", "en", None),
        ("Let α + β ≤ γ, then ∑ α² = π · β² − ∫ γ dγ. " * 20, "", "en", None),
        ("Zuerst zähle ich die Äpfel, dann öffne ich die Tür für die Gäste. " * 20, "", "en", None),
    ],
    ids=["some words", "own", "thinking", "asked for", "in the prompt", "formulas", "latin"],
)
def test_a_script_that_has_its_place_ends_nothing(
    text: str, prompt: str, language: str, think_language: str | None
) -> None:
    settings = {} if think_language is None else {"think_language": think_language}
    ids = random.Random(3).choices(range(1_000), k=len(text) // 4)
    assert _watch(ids, text, _rules(**settings), prompt=prompt, language=language)[0] is None


@pytest.mark.parametrize(
    ("profile", "ended"),
    [
        (Profile.R1, {Reason.REPETITION_LOOP, Reason.LANGUAGE_MIXING, Reason.MALFORMED_TAGS}),
        (Profile.LENIENT, {Reason.REPETITION_LOOP, Reason.MALFORMED_TAGS}),
        (Profile.NONE, set()),
    ],
)
def test_what_a_profile_only_flags_ends_no_attempt(profile: Profile, ended: set[Reason]) -> None:
    ids = random.Random(3).choices(range(1_000), k=1_000)
    streams = [
        ([7] * 4_000, "<think>"),
        (ids, "<think>" + _russian(900)),
        (ids, "I begin without a tag. "),
    ]
    alarms = [_watch(*stream, _rules(TraceFormat.R1, profile))[0] for stream in streams]
    assert {alarm.reason for alarm in alarms if alarm is not None} == ended
