"""Where the answer is found, and that finding it is linear."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.verdict import Reason
from verifiers.extract import Extracted, Missing, Origin, extract_answer

BLOCKS = ["\\boxed{", "\\fbox{", "}", "{", "$", "<think>", "</think>", "<answer>", "</answer>", "answer is ", "####"]
texts = st.lists(st.sampled_from([*BLOCKS, "7", " ", "\n", "x", "\\", "and", "\ud800"]), max_size=60).map("".join)


@given(texts | st.text(max_size=200))
def test_any_text_has_an_answer_inside_it_or_a_reason(text: str) -> None:
    for is_block in (False, True):
        found = extract_answer(text, is_block=is_block)
        if isinstance(found, Extracted):
            assert found.text
            assert 0 <= found.start < found.end <= len(text)
        else:
            assert found.reason in (Reason.NO_ANSWER, Reason.EMPTY_BOX, Reason.UNTERMINATED_BOX)


@pytest.mark.parametrize(
    ("text", "answer", "origin"),
    [
        ("so \\boxed{5}.", "5", Origin.BOX),
        ("first \\boxed{5}, but then \\boxed{7}", "7", Origin.BOX),
        ("\\boxed{\\frac{1}{2}} m", "\\frac{1}{2}", Origin.BOX),
        ("\\fbox{42}", "42", Origin.BOX),
        ("\\framebox{42}", "42", Origin.BOX),
        ("$\\boxed 5$", "5", Origin.BOX),
        ("\\boxed{\\boxed{3}}", "3", Origin.BOX),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", Origin.BOX),
        ("\\boxed{1} and \\boxed{2}, \\boxed{3}", "1, 2, 3", Origin.BOX),
        ("\\boxed{840}. Therefore \\boxed{840}", "840", Origin.BOX),
        ("<think>\\boxed{1}</think>\\boxed{2}", "2", Origin.BOX),
        ("hm \\boxed{1}</think>It is \\boxed{2}.", "2", Origin.BOX),
        ("<think>a</think> <answer> 12 </answer>", "12", Origin.ANSWER_TAG),
        ("<think>a</think><answer>It is \\boxed{12}</answer>", "12", Origin.BOX),
        ("The final answer is 12.", "12", Origin.MARKER),
        ("**Answer:** 12", "12", Origin.MARKER),
        ("Final Answer: **73**", "73", Origin.MARKER),
        ("long sum\n#### 1,234", "1,234", Origin.MARKER),
        ("so 3 * 4 = 12\nA: 12", "12", Origin.MARKER),
        ("Answer:\n\\[ x+1 \\]", "x+1", Origin.MARKER),
        ("[2,5)", "[2,5)", Origin.WHOLE),
        ("We know that this means $x = 2$ in the end.", "x = 2", Origin.LAST_MATH),
        ("That leaves Tom with only 12 apples for himself", "12", Origin.LAST_NUMBER),
    ],
)
def test_the_answer_is_found_where_it_is_marked(text: str, answer: str, origin: Origin) -> None:
    found = extract_answer(text)
    assert isinstance(found, Extracted), found
    assert (found.text, found.origin) == (answer, origin)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.NO_ANSWER),
        ("<think>so \\boxed{5}", Reason.NO_ANSWER),
        ("<think>so \\boxed{5}</think>", Reason.NO_ANSWER),
        ("<think>so \\boxed{5}</think>\nDone, as shown above, my friend.", Reason.NO_ANSWER),
        ("\\boxed{5} or rather \\boxed{}", Reason.EMPTY_BOX),
        ("\\boxed{5} or rather \\boxed{6", Reason.UNTERMINATED_BOX),
    ],
)
def test_a_box_in_the_thinking_an_empty_and_a_cut_box_are_no_answer(text: str, reason: Reason) -> None:
    found = extract_answer(text)
    assert isinstance(found, Missing)
    assert found.reason is reason


def test_strict_mode_does_not_guess_the_last_number() -> None:
    text = "That leaves Tom with only 12 apples for himself"
    assert isinstance(extract_answer(text, strict=True), Missing)


def test_a_block_keeps_its_lines() -> None:
    found = extract_answer("Here you are.\nAnswer:\n1 2\n3 4\n", is_block=True)
    assert isinstance(found, Extracted)
    assert found.text == "1 2\n3 4"


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "\\boxed{",
        "\\boxed{1} ",
        "\\boxed ",
        "$x ",
        "\\(a",
        "\\[a",
        "answer: ",
        "final ",
        "1,",
        "9",
        "<answer>",
        "\\",
    ],
)
def test_a_megabyte_takes_a_second_at_most_and_time_grows_linearly(unit: str) -> None:
    def seconds(num_chars: int) -> float:
        text = unit * (num_chars // len(unit))
        start = time.process_time()
        extract_answer(text)
        return time.process_time() - start

    small, large = (min(seconds(num_chars) for _ in range(4)) for num_chars in (100_000, 1_000_000))
    assert large < 10 * small * 4 + 0.2  # quadratic would be 100 times
    assert large < 5  # seconds of CPU: ten times what a slow core takes
