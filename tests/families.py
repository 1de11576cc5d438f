"""Tokenizers in the shape of known model families, trained here on a few texts: nothing is downloaded.

What is a family's own is what the tests are about: its special tokens, how it splits text before merging, and which of
its tags are tokens. `<think>` is ordinary text to Qwen2.5 and Llama 3, and a token to DeepSeek's R1 distills.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# How both families cut text into words, in short: letters with what stands before them, digits (at most three together
# in Llama, one by one in Qwen), signs with the line breaks that follow, white space.
_WORDS = r"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What one family's tokenizers have in common."""

    name: str
    special_tokens: tuple[str, ...]
    end: str  # of a turn
    pad: str
    start: str | None = None  # of a text
    digits: int = 1  # at most, in one token
    tags: tuple[str, ...] = ()  # ordinary tokens that stand for a whole tag

    def train_tokenizer(self, texts: Iterable[str], chat_template: str | None) -> PreTrainedTokenizerFast:
        """Return a byte-level BPE tokenizer whose merges come from the texts."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS.format(digits=self.digits)), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=list(self.special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in self.tags])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=self.start,
            eos_token=self.end,
            pad_token=self.pad,
            chat_template=chat_template,
            clean_up_tokenization_spaces=False,
        )


QWEN = Family(
    name="qwen",
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    end="<|im_end|>",
    pad="<|endoftext|>",
)
LLAMA = Family(
    name="llama",
    special_tokens=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|finetune_right_pad_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    start="<|begin_of_text|>",
    end="<|eot_id|>",
    pad="<|finetune_right_pad_id|>",  # never the end token: a mask by pad id would hide every end from the loss
    digits=3,
)
R1 = Family(
    name="r1",
    special_tokens=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    start="<｜begin▁of▁sentence｜>",
    end="<｜end▁of▁sentence｜>",
    pad="<｜end▁of▁sentence｜>",
    tags=("<think>", "</think>"),
)

# As DeepSeek's own template does: the thinking of a turn that is over is left out, and a new one is opened.
R1_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{- message['content'] -}}"
    "{%- elif message['role'] == 'user' -%}{{- '<｜User｜>' + message['content'] -}}"
    "{%- else -%}"
    "{{- '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\\n' -}}{%- endif -%}"
)


def write_r1_tokenizer(folder: Path, texts: Sequence[str]) -> Path:
    """Write the tokenizer files of a teacher like DeepSeek-R1 or its distills, without a model; return the folder."""
    R1.train_tokenizer(texts, R1_TEMPLATE).save_pretrained(folder)
    return folder
