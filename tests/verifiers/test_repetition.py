"""Loops: exact periods of any length, at the end and inside, sentences in any order, counters; and what is no loop."""

import random
import re
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.verdict import Check, Outcome, Reason
from verifiers.readability import judge_trace
from verifiers.repetition import BarePlaces, periods_ending_at

WORDS = re.findall(
    r"\w+",
    "angle area bound case check circle count digit divide equal even factor figure first found given greater "
    "half known larger least length limit line matrix minus modulo number odd pair part point prime product "
    "proof ratio right root rule second side smaller square step sum table term third total triangle unit "
    "value vertex whole ",
)


def prose(num_chars: int, seed: int) -> str:
    """Return sentences of varied words, as long as asked for."""
    chance = random.Random(seed)

    def sentences() -> object:
        while True:
            words = chance.choices(WORDS, k=chance.randint(6, 14))
            yield f"So the {' '.join(words)} is {chance.randint(2, 999)}.\n"

    text = ""
    for sentence in islice(sentences(), num_chars):
        text += sentence
        if len(text) >= num_chars:
            break
    return text[:num_chars]


def judge(think: str, response: str = "The answer is $\\boxed{4}$.", **more: object) -> Check:
    text = f"<think>\n{think}\n</think>\n\n{response}" if response else f"<think>\n{think}"
    verdict = judge_trace(text, domain=more.pop("domain", "math"), language="en", format="r1", **more)
    return next(check for check in verdict.checks if check.name == "repetition")


@pytest.mark.parametrize("period", [7, 60, 700, 1_300, 4_000, 7_400, 16_900])
def test_a_cut_text_that_ends_in_a_period_of_any_length_is_a_loop(period: int) -> None:
    unit = prose(period, period)
    check = judge(prose(3_000, 1) + unit * max(4, 600 // period), "", finish_reason="length")
    assert check.reason is Reason.REPETITION_LOOP
    assert check.value is not None
    assert check.value >= 3


@pytest.mark.parametrize("period", [40, 400, 2_000])
def test_a_loop_from_which_a_text_recovers_is_a_loop(period: int) -> None:
    text = prose(4_000, 2) + prose(period, 3) * max(6, 2_400 // period) + prose(4_000, 4)
    check = judge(text)
    assert check.reason is Reason.REPETITION_LOOP
    assert check.start is not None
    assert 2_000 < check.start < 6_000


@pytest.mark.parametrize(
    "loop",
    [
        "".join(f"Wait, I look at item {n} once more because of item {n}. " for n in range(120)),
        "6" * 2_000,
        "and so " * 300,
        "这一步需要再检查一次。" * 40,
        "さらに確認します。" * 40,
    ],
    ids=["counter", "digits", "words", "zh", "ja"],
)
def test_kinds_of_loops(loop: str) -> None:
    assert judge(prose(800, 5) + loop).reason is Reason.REPETITION_LOOP


def test_a_loop_in_the_response_is_one() -> None:
    assert judge(prose(500, 6), "So the answer is $\\boxed{4}$.\n" * 40).reason is Reason.REPETITION_LOOP


def test_few_sentences_in_any_order_are_a_loop() -> None:
    chance = random.Random(7)
    sentences = [
        f"Let me check the {word} of the {other} once more." for word, other in zip(WORDS, WORDS[9:], strict=False)
    ][:9]
    assert judge("\n".join(chance.choices(sentences, k=90))).reason is Reason.REPETITION_LOOP


LEGITIMATE = {
    "squares": "\n".join(f"{n}^2 = {n * n}" for n in range(1, 200)),
    "cases": "\n".join(
        f"Case {n}: {n} mod 7 = {n % 7}, so {n} is {'' if n % 7 else 'not '}ruled out." for n in range(90)
    ),
    "truth table": "\n".join(
        f"| {a} | {b} | {c} | {d} | {a & b | c & d} |" for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)
    ),
    "collatz": "\n".join(
        f"{n} is even, half of it is {n // 2}; {n + 1} is odd, thrice it is {3 * n + 3}." for n in range(28, 150, 2)
    ),
    "primes": "\n".join(
        f"For n = {n}: n^2 + n + 41 = {n * n + n + 41}. Is it prime? Let me check. Yes, it is prime." for n in range(39)
    ),
    "queue": "\n".join(
        f"Pop {n} from the queue. Node {n + 2} is not visited yet. Mark it as visited and push it." for n in range(30)
    ),
    "divisors": "\n".join(f"{n} does not divide the number." for n in range(2, 60)),
    "digits": "\n".join(f"The number {n} has no repeated digits." for n in range(12, 80)),
    "a third, long": "1/3 = 0." + "3" * 900,
    "dots": "." * 300,
    "rule across the page": "Above.\n" + "-" * 300 + "\nBelow.",
    "one third": "1/3 = 0." + "3" * 40 + "...",
    "refrain": "\n\n".join(f"{prose(200, n)}\nAnd the river runs on to the sea." for n in range(6)),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_repetition_of_a_working_kind_passes(name: str) -> None:
    check = judge(prose(1_500, 8) + "\n" + LEGITIMATE[name] + "\n" + prose(1_500, 9))
    assert check.outcome is Outcome.READABLE, (check.value, check.threshold)


@given(st.integers(2, 400), st.integers(3, 12), st.integers(0, 10**6))
def test_the_period_of_a_repeated_text_is_found(period: int, repeats: int, seed: int) -> None:
    unit = "".join(random.Random(seed).choices("abcdefgh ", k=period))
    text = unit * repeats
    if len(text) < 200:
        return
    found = max(periods_ending_at(text, len(text), len(text)), key=lambda stretch: stretch.num_chars, default=None)
    if found is None:  # the key does not fit twice: fewer than two periods and a key
        assert len(text) < period + 48 + 1
    else:
        assert text[found.start : found.end - found.period] == text[found.start + found.period : found.end]


def test_the_cost_is_linear() -> None:
    import time

    def seconds(num_chars: int) -> float:
        text = prose(num_chars, 11)
        judge(text)
        start = time.thread_time()
        judge(text)
        return time.thread_time() - start

    assert seconds(800_000) < 30 * seconds(80_000) + 0.5  # ten times the text; noise and caches are allowed for


@pytest.mark.parametrize("repeats", [4, 5, 7])
def test_a_few_repeats_at_the_end_of_a_cut_text_are_a_loop_and_in_a_whole_one_are_not(repeats: int) -> None:
    text = prose(900, 3) + "\n" + "But wait, maybe the addition comes first? No, it does not.\n" * repeats
    assert judge(text + "But wait, may", response="", finish_reason="length").outcome is Outcome.UNREADABLE
    assert judge(text + "So it is settled.").outcome is Outcome.READABLE


@pytest.mark.parametrize("period", [700, 1_500, 4_000])
def test_a_loop_in_which_a_few_numbers_drift_is_found_also_inside(period: int) -> None:
    unit = prose(period, 5)
    numbers = list(re.finditer(r"\d+", unit))

    def with_number(count: int) -> str:
        return unit[: numbers[1].start()] + str(count) + unit[numbers[1].end() :] + "\n"

    text = prose(3_000, 6) + "\n" + "".join(map(with_number, range(10, 18))) + prose(3_000, 7)
    assert judge(text).outcome is Outcome.UNREADABLE


def test_a_case_analysis_with_the_same_verdict_each_time_is_work() -> None:
    cases = [
        f"If he starts with {k} coins, he ends with {8 * k - 7}. This does not match the number." for k in range(80)
    ]
    assert judge("\n".join(cases)).outcome is Outcome.READABLE
    kinds = ["knight", "knave"]
    words = [
        f"Suppose Anna is a {kinds[k & 1]}, Ben is a {kinds[k >> 1 & 1]}, Carl is a {kinds[k >> 2 & 1]}, Dora is a "
        f"{kinds[k >> 3 & 1]}, Emil is a {kinds[k >> 4 & 1]}. Then what Anna says is false, a contradiction."
        for k in range(32)
    ]
    assert judge("\n\n".join(words), domain="logic").outcome is Outcome.READABLE


def test_a_refrain_is_no_loop_where_a_song_is_asked_for() -> None:
    song = "\n\n".join(
        f"{prose(60, k).split(' is ')[0]},\nThe light stays on,\nthe light stays on for you." for k in range(12)
    )
    assert judge("A refrain.", song, domain="writing").outcome is Outcome.READABLE
    assert judge("A refrain.", "The light stays on,\n" * 40, domain="writing").outcome is Outcome.UNREADABLE


def test_what_repeats_in_a_closed_block_of_code_was_meant() -> None:
    block = "```python\nboard = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None],\n" * 15 + "]\n```"
    assert judge("A board.", f"{block}\n\nThat is it.", domain="code").outcome is Outcome.READABLE
    assert judge("A board.", block[:-5], domain="code", finish_reason="length").outcome is Outcome.UNREADABLE


@given(st.text("a b1234567890\né漢٣", min_size=1, max_size=80), st.integers(1, 200))
def test_a_character_is_found_in_the_text_by_its_number_among_those_that_are_no_digits(piece: str, times: int) -> None:
    text = piece * times
    wanted = [place for place, character in enumerate(text) if character not in "0123456789"]
    places = BarePlaces(text)
    for number in range(0, len(wanted), max(1, len(wanted) // 50)):
        assert places.of(number) == wanted[number]
    if wanted:
        assert places.of(len(wanted) - 1) == wanted[-1]
