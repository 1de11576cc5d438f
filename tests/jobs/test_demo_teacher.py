"""The demo teacher: its chains compute, its tokenizer reads anything, its weights are what the card says."""

import json
import re
import unicodedata
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from jobs.demo_teacher.card import CARD, measured_table
from jobs.demo_teacher.corpus import DEFECT_SHARES, Defect, make_family_samples, make_sample
from jobs.demo_teacher.families import (
    DEMO_SEED,
    DEMO_SIZE,
    FAMILIES,
    MEASURE_SEED,
    MEASURE_SIZE,
    Problem,
    boxed_form,
    hash_question,
    held_out_hashes,
    make_problems,
)
from jobs.demo_teacher.measure import Attempt, defects_of, is_passed, last_box, wilson_interval
from jobs.demo_teacher.tokenizer import train_tokenizer
from jobs.demo_teacher.train import WEIGHTS

MAX_WEIGHTS_BYTES = 10_000_000
MEASURED = json.loads((WEIGHTS / "measured.json").read_text())


@cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(WEIGHTS)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer()


def attempt(completion: str, problem: Problem, finish_reason: str = "stop") -> Attempt:
    return Attempt(problem=problem, completion=completion, num_tokens=1, finish_reason=finish_reason)


@pytest.mark.parametrize("name", FAMILIES)
def test_chain_ends_in_the_reference(name: str) -> None:
    for problem in make_problems(FAMILIES[name], seed=31, size=50):
        assert FAMILIES[name].build_chain(problem.metadata, Random(0)).answer == boxed_form(problem.reference)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_equation_of_a_chain_holds(name: str) -> None:
    number = r"(-?\d+(?:\.\d+)?)"
    equation = re.compile(rf"{number} ?([-+*/]) ?{number} ?= ?{number}")
    for problem in make_problems(FAMILIES[name], seed=31, size=50):
        for line in FAMILIES[name].build_chain(problem.metadata, Random(0)).lines:
            for a, operator, b, c in equation.findall(line):
                x, y = float(a), float(b)
                value = {"+": x + y, "-": x - y, "*": x * y, "/": x // (y or 1)}[operator]
                assert value == pytest.approx(float(c)), line


@pytest.mark.parametrize("name", FAMILIES)
def test_training_never_asks_a_held_out_question(name: str) -> None:
    held_out = held_out_hashes()
    for seed, size in [(MEASURE_SEED, MEASURE_SIZE), (DEMO_SEED, DEMO_SIZE)]:
        assert all(hash_question(p.question) in held_out for p in make_problems(FAMILIES[name], seed=seed, size=size))
    # the very seeds that made the held-out questions: all that comes out must be something else
    for seed in (MEASURE_SEED, DEMO_SEED):
        samples = make_family_samples(FAMILIES[name], size=400, held_out=held_out, seed=seed)
        assert all(hash_question(sample.problem.question) not in held_out for sample in samples)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_sample_passes_unless_its_defect_hides_the_answer(name: str) -> None:
    rng = Random(0)
    seen = set()
    for problem in make_problems(FAMILIES[name], seed=31, size=400):
        sample = make_sample(problem, rng)
        if sample is None:  # the odd problem without one answer, such as `0 = 0`
            continue
        made = attempt(sample.completion, problem, "stop" if sample.ends else "length")
        assert is_passed(made) == (sample.defect in (None, Defect.LANGUAGE_MIX))
        assert defects_of(made) == ({sample.defect} - {None})
        seen.add(sample.defect)
    assert None in seen


def test_every_defect_is_in_the_training_mix() -> None:
    rng = Random(0)
    problems = make_problems(FAMILIES["gcd"], seed=31, size=2000)
    samples = [sample for problem in problems if (sample := make_sample(problem, rng))]
    for defect, share in DEFECT_SHARES.items():
        assert sum(sample.defect is defect for sample in samples) / len(samples) == pytest.approx(share, abs=0.012)


def test_chat_template_is_chatml_without_a_default_system_text(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "<think>\n2\n</think>\n\n2"}]
    render = tokenizer.apply_chat_template
    prompt = "<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"
    assert render(messages[:1], tokenize=False, add_generation_prompt=True) == prompt
    assert render(messages, tokenize=False) == f"{prompt}<think>\n2\n</think>\n\n2<|im_end|>\n"
    system = [{"role": "system", "content": " be brief\n"}, *messages[:1]]
    assert render(system, tokenize=False).startswith("<|im_start|>system\n be brief\n<|im_end|>\n<|im_start|>user\n")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_tokenizer_up_to_nfc(text: str) -> None:
    decoded = load_tokenizer().decode(load_tokenizer()(text)["input_ids"])
    assert decoded == unicodedata.normalize("NFC", text)  # Qwen2Tokenizer brings NFC; NFC text comes back as it was


@given(st.integers(min_value=0))
def test_each_digit_is_one_token(number: int) -> None:
    assert load_tokenizer().tokenize(str(number)) == list(str(number))


def test_auto_tokenizer_splits_text_as_training_did(tokenizer: PreTrainedTokenizerBase) -> None:
    # AutoTokenizer swaps the class of any qwen2 tokenizer, and with it the pre-tokenizer that training saw
    retrained = train_tokenizer(["a: 12 * 3 = 36, b"] * 2)
    assert type(retrained) is type(tokenizer)
    for text in ["12 * 3 = 36, so: x", "3*x=9\n", "['-1.0', '2.5']"]:
        pieces = [model.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text) for model in (retrained, tokenizer)]
        assert pieces[0] == pieces[1]


def test_think_tags_survive_skip_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("<think>\n1\n</think>\n\n1<|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\n1\n</think>\n\n1"
    assert len(tokenizer("</think>")["input_ids"]) == 1


def test_weights_load_and_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= MAX_WEIGHTS_BYTES
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.config.max_position_embeddings >= 4096
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    assert len(tokenizer) == model.config.vocab_size
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_measured_rates_lie_where_a_demo_needs_them() -> None:
    assert MEASURED["families"].keys() == FAMILIES.keys()
    assert len(FAMILIES) >= 8
    for name, found in MEASURED["families"].items():
        assert found["num_problems"] >= 200, name
        assert 0.3 <= found["pass_rate"] <= 0.9, name
        assert found["config"] == FAMILIES[name].config, "measured at another difficulty: run measure.py again"
    for defect, rate in MEASURED["overall"]["defects"].items():
        assert 0.005 <= rate <= 0.05, defect


def test_model_card_holds_the_measured_table() -> None:
    assert measured_table(MEASURED) in CARD.read_text()


@pytest.mark.parametrize(
    ("completion", "passed"),
    [
        ("<think>\n1\n</think>\n\nIt is \\boxed{ 4 }.", True),
        ("<think>\n1\n</think>\n\nIt is \\boxed{$4$}.", True),
        ("<think>\n1\n</think>\n\nFirst \\boxed{5}, no, \\boxed{4}.", True),
        ("<think>\n1\n</think>\n\nIt is \\boxed{5}.", False),
        ("<think>\n1\n</think>\n\nIt is \\boxed{4", False),
        ("<think>\n\\boxed{4}\n</think>\n\nThat is the answer.", False),
        ("<think>\n1\nIt is \\boxed{4}.", False),
        ("<think>\n1\n</think>\n\nIt is \\boxed{2 + 2}.", False),
        ("", False),
    ],
)
def test_only_the_reference_in_the_last_box_after_the_thinking_passes(completion: str, passed: bool) -> None:
    problem = Problem(family="gcd", question="", reference="4", metadata={})
    assert is_passed(attempt(completion, problem)) is passed


def test_lists_are_compared_by_value() -> None:
    problem = Problem(family="number_sorting", question="", reference="['-1.0', '2.5']", metadata={})
    assert is_passed(attempt("</think>\\boxed{[-1.0, 2.50]}", problem))
    assert not is_passed(attempt("</think>\\boxed{['2.5', '-1.0']}", problem))


@given(st.text(alphabet="\\boxed{} 1"))
def test_last_box_never_raises(text: str) -> None:
    assert last_box(text) is None or "\\boxed{" in text


def test_wilson_interval_of_a_known_case() -> None:
    # Brown, Cai and DasGupta 2001 give the formula; the values were worked out by hand for 8 of 10
    low, high = wilson_interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
