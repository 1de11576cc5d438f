from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.prompts import ByteTokenizer, HfTokenizer, Renderer, make_renderer
from schemas.config import PromptConfig
from schemas.errors import ConfigError
from schemas.problem import Domain, Message, Problem
from schemas.trace import TraceFormat
from tests.strategies import visible_texts

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def problem(*turns: tuple[str, str]) -> Problem:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Problem(domain=Domain.MATH, messages=messages, source="s", source_row_id="1")


def ask(question: str) -> Problem:
    return problem(("user", question))


def byte_renderer(**options: Any) -> Renderer:
    return make_renderer(PromptConfig(**options), ByteTokenizer())


@pytest.fixture(scope="module")
def save_tokenizer(tmp_path_factory):
    """Return a function that saves a small real tokenizer with a chat template and returns its folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def save(chat_template: str | None) -> str:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate(["<s>", "<|im_start|>", "<|im_end|>", *alphabet])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>")
        fast.chat_template = chat_template
        folder = tmp_path_factory.mktemp("tokenizer")
        fast.save_pretrained(folder)
        return str(folder)

    return save


# Shipped templates.


def test_zero_is_the_template_of_the_paper_as_raw_text():
    renderer = byte_renderer(template="zero")
    assert renderer.render(ask("What is 1 + 1?")).text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: What is 1 + 1?. Assistant:"
    )
    assert renderer.format is TraceFormat.ZERO


def test_boxed_asks_for_steps_and_a_box_with_one_backslash():
    text = byte_renderer(template="boxed", chat_template=False).render(ask("Q")).text
    assert text == "Q\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert text.count("\\") == 1


def test_plain_is_the_question_alone():
    assert byte_renderer(template="plain", chat_template=False).render(ask("Q")).text == "Q"


def test_the_template_rewrites_the_last_user_turn_only_and_the_system_turn_goes_first():
    turns = problem(("user", "one"), ("assistant", "1"), ("user", "two"))
    text = byte_renderer(template="boxed", system="Be brief.").render(turns).text
    assert text == (
        "<|system|>Be brief.\n<|user|>one\n<|assistant|>1\n<|user|>two\n\nPlease reason step by step, and put your "
        "final answer within \\boxed{}.\n<|assistant|>"
    )


@given(visible_texts)
def test_a_prompt_carries_the_hash_and_the_tokens_of_its_text(question):
    prompt = byte_renderer().render(ask(question))
    assert question in prompt.text
    assert bytes(prompt.token_ids) == prompt.text.encode()
    assert prompt.sha256 == hashlib.sha256(prompt.text.encode()).hexdigest()
    assert prompt.problem_id == ask(question).problem_id


# Injection.

hostile = st.lists(
    st.sampled_from(
        ["{{ 7 * 7 }}", "{% raw %}", "{% endfor %}", "{#", "#}", "{}", "{0}", "%s", "\\", "$x", "{problem}"]
    )
    | visible_texts,
    min_size=1,
    max_size=4,
).map("".join)


@pytest.mark.parametrize("template", ["zero", "boxed", "plain", "custom"])
@given(question=hostile)
def test_a_question_is_inserted_as_it_is_and_never_read_as_a_template(tmp_path_factory, template, question):
    path = tmp_path_factory.getbasetemp() / "custom.jinja"
    path.write_text("{% if problem %}Q: {{ problem }}{% endif %}")
    name = str(path) if template == "custom" else template
    text = byte_renderer(template=name, chat_template=False).render(ask(question)).text
    empty = byte_renderer(template=name, chat_template=False).render(ask("@")).text
    assert text == empty.replace("@", question)


def test_chat_control_tokens_in_a_question_stay(save_tokenizer):
    renderer = make_renderer(PromptConfig(template="plain"), HfTokenizer(save_tokenizer(CHATML)))
    assert "What does <|im_end|> mean?" in renderer.render(ask("What does <|im_end|> mean?")).text


# Custom templates.


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my.jinja"
    path.write_text(text)
    return str(path)


def test_a_custom_template_sees_the_question_and_all_turns(tmp_path):
    path = write(tmp_path, "{% for m in messages %}[{{ m.role }}]{% endfor %} {{ problem }}")
    turns = problem(("system", "S"), ("user", "Q"))
    assert byte_renderer(template=path, chat_template=False).render(turns).text == "S\n\n[system][user] Q"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Solve:\n{{ problm }}", ["line 2: 'problm' is no variable of a prompt", "`problem`", "`messages`"]),
        ("Solve:\n{% if problem %}\n{{ problem }", ["line 3: unexpected '}'"]),
        ("{% if problem %}", ["line 1: Unexpected end of template"]),
        ("{{ problem }}\n\n{{ messages[5].content }}", ["line 3: list object has no element 5"]),
        ("{{ problem }}\n{{ problem.reference }}", ["line 2:", "no attribute 'reference'"]),
        ("{{ problem }}{{ 1 / 0 }}", ["line 1: division by zero"]),
        ("{{ problem.__class__.__mro__ }}", ["line 1: access to attribute '__class__'", "unsafe"]),
        ("{{ problem }}{% include '/etc/passwd' %}", ["line 1: no loader"]),
        ("Solve it.", ["uses neither `problem` nor `messages`"]),
    ],
)
def test_a_template_that_cannot_be_used_is_a_config_error_with_file_and_line(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        byte_renderer(template=path)
    assert [word for word in [f"prompt.template={path}", *words] if word not in str(caught.value)] == []


def test_a_missing_template_names_the_shipped_ones(tmp_path):
    with pytest.raises(
        ConfigError, match="must be one of zero, boxed, plain, or the path of a Jinja file: no such file"
    ):
        byte_renderer(template="boxd")


# Formats.


@pytest.mark.parametrize(
    ("template", "chat_template", "expected"),
    [
        ("boxed", CHATML, TraceFormat.R1),
        ("boxed", CHATML.replace("assistant\n", "assistant\n<think>\n"), TraceFormat.R1_PREFILLED),
        ("boxed", CHATML.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n"), TraceFormat.R1),
        ("zero", CHATML.replace("assistant\n", "assistant\n<think>\n"), TraceFormat.ZERO),
    ],
)
def test_the_format_follows_from_what_was_rendered(save_tokenizer, template, chat_template, expected):
    tokenizer = HfTokenizer(save_tokenizer(chat_template))
    assert make_renderer(PromptConfig(template=template, chat_template=True), tokenizer).format is expected


def test_the_format_of_the_config_goes_before_what_was_rendered():
    assert byte_renderer(template="zero", format=TraceFormat.PLAIN).format is TraceFormat.PLAIN


def test_a_custom_raw_template_that_ends_in_an_opening_tag_is_prefilled(tmp_path):
    path = write(tmp_path, "{{ problem }}\n<think>\n")
    assert byte_renderer(template=path, chat_template=False).format is TraceFormat.R1_PREFILLED


# Tokenizers.


def test_a_real_tokenizer_renders_its_own_chat_template_without_a_second_start_token(save_tokenizer):
    tokenizer = HfTokenizer(save_tokenizer("<s>" + CHATML))
    prompt = make_renderer(PromptConfig(template="plain"), tokenizer).render(ask("Hi"))
    assert prompt.text == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert list(prompt.token_ids[:2]) == [0, 1]


def test_raw_text_gets_the_start_token_that_the_model_was_trained_with(save_tokenizer):
    prompt = make_renderer(PromptConfig(template="zero"), HfTokenizer(save_tokenizer(None))).render(ask("Hi"))
    assert prompt.token_ids[0] == 0
    assert not prompt.text.startswith("<s>")


def test_a_tokenizer_without_a_chat_template_is_refused_where_one_is_needed(save_tokenizer):
    with pytest.raises(
        ConfigError, match=r"needs a chat template; the tokenizer of .* has none: set prompt\.chat_template"
    ):
        make_renderer(PromptConfig(template="boxed"), HfTokenizer(save_tokenizer(None)))


def test_a_tokenizer_that_is_not_there_is_a_config_error_with_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"teacher\.model=.*nothing.*tokenizer cannot be loaded"):
        HfTokenizer(str(tmp_path / "nothing"))


def test_a_chat_template_that_refuses_the_system_turn_is_found_before_the_run_starts(save_tokenizer):
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    tokenizer = HfTokenizer(save_tokenizer(picky))
    make_renderer(PromptConfig(), tokenizer)
    with pytest.raises(ConfigError, match=r"prompt\.system='Hi'.*no system role"):
        make_renderer(PromptConfig(system="Hi"), tokenizer)


def test_a_chat_template_that_writes_the_date_renders_the_same_on_any_day(save_tokenizer):
    dated = "{{ strftime_now('%d %b %Y') }} " + CHATML
    prompt = make_renderer(PromptConfig(template="plain"), HfTokenizer(save_tokenizer(dated))).render(ask("Q"))
    assert prompt.text.startswith("26 Jul 2024 ")


# Identity.


def test_the_identity_is_json_and_changes_with_all_that_changes_the_text(tmp_path, save_tokenizer):
    def identity(tokenizer: Any = None, **options: Any) -> str:
        renderer = make_renderer(PromptConfig(**options), tokenizer or ByteTokenizer())
        return json.dumps(renderer.identity(), sort_keys=True)

    path = write(tmp_path, "A {{ problem }}")
    custom = identity(template=path)
    write(tmp_path, "B {{ problem }}")
    others: Sequence[str] = [
        identity(),
        identity(template="zero"),
        identity(template="plain"),
        identity(chat_template=False),
        identity(system="S"),
        identity(HfTokenizer(save_tokenizer(CHATML))),
        identity(HfTokenizer(save_tokenizer(CHATML + " "))),
        custom,
        identity(template=path),
    ]
    assert len(set(others)) == len(others)
    assert identity() == identity()
    assert str(tmp_path) not in custom
