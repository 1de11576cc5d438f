"""The format check: four layouts, tags in code, empty thoughts, missing and several answers."""

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.readability import Thresholds
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import READABILITY_REASONS, Outcome, Reason, Verdict
from verifiers import garbled
from verifiers.readability import judge_trace
from verifiers.view import fence_starts

DATA = Path(__file__).parents[1] / "data"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "readability_cases_public.jsonl").read_text(encoding="utf-8").splitlines()
]


def judge(text: str, layout: str | None = "r1", **more: Any) -> Verdict:
    return judge_trace(text, domain=more.pop("domain", "math"), language="en", format=layout, **more)


def judge_row(row: dict[str, Any]) -> Verdict:
    return judge_trace(
        row["trace"],
        problem=row["problem"],
        domain=row["domain"],
        language=row["target_language"],
        think_language=row.get("think_language"),
        format=row["style"],
        finish_reason=row.get("finish_reason"),
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_public_cases_are_judged_as_expected(row: dict[str, Any]) -> None:
    assert (judge_row(row).reason or "accept") == row["expected"]


def test_the_blind_cases_are_judged_as_expected() -> None:
    rows = [json.loads(line) for line in (DATA / "readability_cases_blind.jsonl").read_text("utf-8").splitlines()]
    wrong = {row["id"]: said for row in rows if (said := judge_row(row).reason or "accept") != row["expected"]}
    assert not wrong
    assert {row["expected"] for row in rows} == {"accept", *READABILITY_REASONS}


# Of the cases that their authors wrote last, these are not judged as a reader does: chatter without an answer outside
# mathematics, an answer tag in another language, raw tokens among words, a counter in words, a list that is cut, and
# "the two numbers" where one of them is asked for.
KNOWN_WRONG = {"b13-0042", "b15-0070", "fr9-0007", "fr9-0122", "fr9-0181", "fr9-0227", "fs9-0073"}


def test_the_newest_blind_cases_are_judged_as_expected_but_for_those_that_are_known() -> None:
    rows = [json.loads(line) for line in (DATA / "readability_cases_fresh.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 1635
    wrong = {row["id"] for row in rows if (judge_row(row).reason or "accept") != row["expected"]}
    assert wrong == KNOWN_WRONG


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("Done! The answer is given above.", Reason.ANSWER_ONLY_IN_THINK),
        ("Die Antwort steht schon oben.", Reason.ANSWER_ONLY_IN_THINK),
        ("答案就在上面。", Reason.ANSWER_ONLY_IN_THINK),
        ("I counted the odd terms. See the work above for it.", Reason.ANSWER_ONLY_IN_THINK),
        ("It is $\\boxed{\\ }$.", Reason.ANSWER_ONLY_IN_THINK),
        ("It is $\\boxed{\\quad}$.", Reason.ANSWER_ONLY_IN_THINK),
        ("It is $\\boxed{\\text{odd}}$.", None),
        ("The answer is odd, as shown above.", None),
        ("It is even, since the sum above is.", None),
        ("由上述推导，答案是偶数。", None),
    ],
)
def test_an_answer_that_is_said_to_stand_above_is_none_in_the_response(response: str, reason: Reason | None) -> None:
    text = f"<think>\nThe sum has an even number of odd terms.\n\n$\\boxed{{even}}$\n</think>\n\n{response}"
    language = {"D": "de", "答": "zh", "由": "zh"}.get(response[0], "en")
    said = judge_trace(text, problem="Is it odd?", domain="math", language=language, think_language="en", format="r1")
    assert said.reason is reason


RAW = "gpZeYOl8eSAjD/WYxXqpPLh8acYJKZ4JMbqLM7KNi4PsHzfc8zRxBEG/Ft3Pg+H8MSmLC+t1AH9SDBeL7Ox8NRehaLUVTDGdw1" * 2


@pytest.mark.parametrize(
    ("problem", "said", "reason"),
    [
        ("What is 2 + 3?", RAW, Reason.GARBLED),
        ("What is 2 + 3?", RAW[:150], None),
        ("What is 2 + 3?", f"It stands at https://example.org/{RAW}", None),
        ("What is 2 + 3?", "0123456789" * 30, None),
        ("What is 2 + 3?", "ACGT" * 60, None),
        ("What is 2 + 3?", "f3a9b2c4" * 40, None),
        ("How long is this base64 text?", RAW, None),
        (f"How long is {RAW}?", RAW, None),
    ],
)
def test_a_long_row_of_letters_and_digits_of_all_kinds_is_wreckage(
    problem: str, said: str, reason: Reason | None
) -> None:
    text = f"<think>\nTwo and three make five.\n\n{said}\n\nSo it is five.\n</think>\n\nIt is $\\boxed{{5}}$."
    assert judge_trace(text, problem=problem, domain="math", language="en", format="r1").reason is reason


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("There are $\\boxed{22}$. Actually the answer is $\\boxed{23}$.", Reason.MULTIPLE_ANSWERS),
        ("**Answer 1:** $\\boxed{19}$\n\n**Answer 2:** $\\boxed{22}$\n\nI'm not sure.", Reason.MULTIPLE_ANSWERS),
        ("**Answer 1:** $\\boxed{19}$\n\n**Answer 2:** $\\boxed{22}$", None),
        ("There are $\\boxed{22}$. Actually, that is $\\boxed{22}$ again.", None),
    ],
)
def test_a_second_box_that_takes_back_the_first_is_another_answer(response: str, reason: Reason | None) -> None:
    text = f"<think>\nThat is easy enough to see.\n</think>\n\n{response}"
    assert judge_trace(text, problem="How many?", domain="math", language="en", format="r1").reason is reason


def test_a_misspelt_answer_tag_is_malformed_and_no_cut() -> None:
    text = "<think>\nThree and a half times six.\n</think>\n<answer>\n21\n</anwser>"
    assert judge_trace(text, problem="How many?", domain="math", language="en").reason is Reason.MALFORMED_TAGS


WORDS = [
    *(
        "rope",
        "arrow",
        "ladder",
        "because",
        "left",
        "they",
        "seven",
        "second",
        "brief",
        "marble",
        "copper",
        "the",
        "spoon",
    ),
    *("blanket", "garden", "thought", "velvet", "hardly", "anyway", "cold", "whistle", "tomato", "running", "quick"),
    *("distant", "cloud", "engine", "slowly", "river", "candle", "button", "barrel", "lifted", "folding", "paper"),
]


def salad(num_sentences: int) -> str:
    chance = random.Random(3)
    sentences = (chance.choices(WORDS, k=chance.randint(5, 12)) for _ in range(num_sentences))
    return " ".join(" ".join(words).capitalize() + chance.choice(".;.") for words in sentences)


def test_sentences_of_words_that_nothing_holds_together_are_garbled_unless_the_problem_gave_them() -> None:
    text = f"<think>\nLet me see what is asked.\n\n{salad(30)}\n</think>\n\nThe answer is $\\boxed{{5}}$."
    assert judge(text, TraceFormat.R1).reason is Reason.GARBLED
    given = judge_trace(text, problem=f"Sort these words: {salad(30)}", domain="math", language="en", format="r1")
    assert given.reason is not Reason.GARBLED


tags = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<THINK>", "```\n", "`", "\n", " ", "7 is it", "\\boxed{"]
)


@given(st.lists(tags | st.text(max_size=5), max_size=25).map("".join), st.sampled_from([*TraceFormat, None]))
def test_any_text_gets_a_verdict_with_its_place_inside_the_text(text: str, layout: TraceFormat | None) -> None:
    for domain in ("math", "chat"):
        for check in judge(text, layout, domain=domain).checks:
            assert check.outcome in (Outcome.READABLE, Outcome.UNREADABLE)
            if check.start is not None and check.end is not None:
                assert 0 <= check.start <= check.end <= len(text)


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
        ("<think>carpet</think>It costs $\\$$105 for $14\\times 5$ feet, that is $\\$1.50$ each.", "r1"),
    ],
)
def test_a_well_formed_trace_is_readable(text: str, layout: str) -> None:
    verdict = judge(text, layout, domain="qa")  # a fenced block is no defect there
    assert verdict.outcome is Outcome.READABLE, verdict.reason


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


def test_a_thai_response_that_ends_in_a_letter_is_whole() -> None:
    text = "<think>\nหาร 43 ด้วย 6 ได้ 7 เศษ 1\n</think>\n\nการทำสวนต้องใช้ความอดทน"  # Thai has no full stop
    assert judge_trace(text, domain="math", language="th", format="r1").reason is Reason.MISSING_ANSWER


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


HOSTILE = {
    "one letter": "a" * 1_000_000,
    "one line break": "\n" * 1_000_000,
    "one dollar": "$" * 1_000_000,
    "backslashes": "\\" * 1_000_000,
    "opening tags": "<think>" * 140_000,
    "both tags": "<think></think>" * 66_000,
    "back-ticks": "`a" * 500_000,
    "quotes": '"a ' * 330_000,
    "emphasis": "*a " * 330_000,
    "boxes": "\\boxed{" * 140_000,
    "combining marks": "a" + "\u0301" * 1_000_000,
    "right to left": "\u202eabc " * 200_000,
    "null bytes": "\0" * 1_000_000,
    "lone surrogates": "\ud800" * 1_000_000,
    "Han": "这" * 1_000_000,
    "two scripts": "a这" * 500_000,
    "words of another language": "der und nicht " * 70_000,
    "words of none": "xq zvb wkt " * 90_000,
    "environments": "\\begin{a}" * 110_000,
    "brackets": "([{" * 330_000,
    "spaced signs": "! ? ; " * 160_000,
    "control tokens": "<|im_end|>" * 100_000,
    "addresses": "también 12\n" + ("." * 99 + "@") * 9_000,
    "one long word": "también 12\n" + "a@" * 400_000,
    "a word without an end": "我们" + "a" * 900_000,
    "many turns": "12\n" + "Q: a\n" * 150_000,
    "quoted words": '"好好" ' * 200_000,
    "tokens in code": "`<|user|>` " * 90_000,
    "code and Han": "`a` 好" * 200_000,
    "open quotes": "también 12\n" + "‘" * 900_000 + "好好",
    "spread words": "one \n two \n three \n four \n five \n six \n " * 20_000,
    "fences": "```" * 330_000,
    "lines of fences": "```\n" * 250_000,
    "words with accents": "été à la " * 110_000,
    "different words": " ".join(f"mot{n}é" for n in range(100_000)),
    "pieces of other languages": "a, en, y no; me la. " * 50_000,
    "numbers": "".join(f"{n} " for n in range(160_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_gets_a_verdict_in_time(name: str) -> None:
    for layout in ("r1", "plain"):
        text = HOSTILE[name] if layout == "plain" else f"<think>{HOSTILE[name]}</think>{HOSTILE[name][:1_000]}"
        start = time.thread_time()
        verdict = judge(text, layout)
        assert time.thread_time() - start < 8  # a second on a quiet machine: this is for what grows with the square
        assert verdict.outcome in (Outcome.READABLE, Outcome.UNREADABLE)


@given(
    st.lists(st.sampled_from(["```", "~~~", "`", "~", "\n", " ", "\t", "a", "  \n"]), max_size=14).map("".join),
    st.data(),
)
def test_a_fence_is_found_at_the_beginning_of_a_line_alone(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    fence = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)
    assert fence_starts(text, start) == [match.start() for match in fence.finditer(text, start)]


@pytest.mark.parametrize(
    ("language", "thought", "reason"),
    [
        ("zh", "我们" + "再检查一遍结果".encode("gbk").decode("latin-1") + "。", Reason.GARBLED),
        ("ar", "نضرب العددين. " + "لا أخطئ في الأعداد".encode().decode("cp1252", "ignore"), Reason.GARBLED),
        ("ru", "Проверим. " + "Теперь проверим решение".encode("koi8-r").decode("cp1251"), Reason.GARBLED),
        ("ru", "В клетке есть мРНК и тРНК, а мтДНК мы не считаем.", None),
        ("en", "The keys.\n" + "aGVsbG8gd29ybGQ1aGVsbG8gd29ybGQ1aGVsbG8gd29ybGQ1aGVsbG8gd29y\n" * 4, Reason.GARBLED),
        ("fr", "Élève, « été » : ½ · ½ = ¼, à l'âge où l'on naît.", None),
        ("fr", "Les lettres accentuées sont àâäéèêëîïôöùûü.", None),
        ("en", "Differentiating both products gives f' g' sums again.", None),
        ("en", "Wo men zai jian cha yi bian, zhe ge da an shi zheng que de.", Reason.LANGUAGE_MIXING),
        ("en", "Teper' vsyo ponyatno, ostalos' tol'ko zapisat' otvet.", Reason.LANGUAGE_MIXING),
        ("en", "The students' and the teachers' marks, the pupils' too, are all even.", None),
    ],
)
def test_other_encodings_and_romanised_sentences_are_seen(language: str, thought: str, reason: Reason | None) -> None:
    text = f"<think>\n6 · 7 = 42.\n\n{thought}\n</think>\n\n$\\boxed{{42}}$"
    assert judge_trace(text, domain="math", language=language, format="r1").reason is reason


@pytest.mark.parametrize(
    ("language", "between", "reason"),
    [
        ("en", "unless it is", Reason.MULTIPLE_ANSWERS),
        ("en", "unless $a = 0$; then it is", None),
        ("fr", "à moins que ce ne soit plutôt", Reason.MULTIPLE_ANSWERS),
        ("de", ", es sei denn $a = 0$, dann", None),
    ],
)
def test_a_condition_between_two_boxes_is_no_hedge(language: str, between: str, reason: Reason | None) -> None:
    text = f"<think>\n6 · 7 = 42.\n</think>\n\n$\\boxed{{42}}$ {between} $\\boxed{{0}}$."
    assert judge_trace(text, domain="math", language=language, format="r1").reason is reason


def test_a_word_of_the_problems_script_may_be_named_in_a_thought_in_english() -> None:
    def reason(thought: str) -> Reason | None:
        text = f"<think>\n{thought}\n</think>\n\nกรุงแคนเบอร์รา"
        problem = "เมืองหลวงของออสเตรเลียคือเมืองอะไร"
        verdict = judge_trace(text, problem=problem, domain="qa", language="th", think_language="en", format="r1")
        return verdict.reason

    assert reason("The capital is Canberra. In Thai it is written แคนเบอร์รา, I think.") is None
    assert reason("The capital is Canberra. ฉันคิดว่าคำตอบนี้ถูกต้องแล้วและไม่ต้องตรวจสอบอีก") is Reason.LANGUAGE_MIXING


@given(st.text(alphabet="ÂÃâÐÑàéïÎÏØÙÚÛРСвГђ°©€™\u0080œ x", max_size=12))
def test_the_quick_patterns_of_broken_encodings_miss_nothing(text: str) -> None:
    if garbled.MOJIBAKE.search(text):
        assert garbled.MOJIBAKE_PAIR.search(text)
    if garbled.READ_AS_1251.search(text):
        assert garbled.READ_AS_1251_PAIR.search(text)


def test_a_profile_turns_findings_into_flags() -> None:
    text = "<think>six sevens: давайте посчитаем</think>It is \\boxed{42}."
    assert judge(text).reason is Reason.LANGUAGE_MIXING
    for profile in ("lenient", "none"):
        verdict = judge(text, profile=profile)
        assert verdict.outcome is Outcome.READABLE
        assert [check.reason for check in verdict.checks if check.reason] == [Reason.LANGUAGE_MIXING]


def test_all_findings_are_kept_and_the_first_that_rejects_decides() -> None:
    text = "<think>\n" + "Давайте посчитаем ещё раз. " * 200 + "\n</think>\n```\nx = 1\n```\n"
    verdict = judge(text)
    reasons = [check.reason for check in verdict.checks if check.outcome is Outcome.UNREADABLE]
    assert verdict.reason is reasons[0] is Reason.REPETITION_LOOP
    assert {Reason.LANGUAGE_MIXING, Reason.LONG_PARAGRAPH, Reason.CODE_BLOCK_IN_MATH} <= set(reasons)
    paragraph = next(check for check in verdict.checks if check.reason is Reason.LONG_PARAGRAPH)
    assert paragraph.value is not None
    assert paragraph.threshold is not None
    assert paragraph.value > paragraph.threshold == Thresholds().max_paragraph_chars


def test_a_threshold_of_the_teachers_own_counts() -> None:
    text = f"<think>\n{' '.join(f'{n} * {n} = {n * n}.' for n in range(400))}\n</think>It is 42."
    assert judge(text).reason is Reason.LONG_PARAGRAPH
    assert judge(text, thresholds=Thresholds(max_paragraph_chars=8_000)).reason is None
