"""The demo teacher's tokenizer: byte-level BPE in which every digit is a token of its own, with a ChatML template.

Single digits let a small model line numbers up; bytes let it read any text. `<think>` and `</think>` are tokens but not
special ones, so they survive `skip_special_tokens`.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

END, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = [PAD, "<|im_start|>", END]
THINK_TOKENS = ["<think>", "</think>"]
VOCABULARY_SIZE = 1792  # 256 bytes, 5 tokens above, the rest merges: the corpus is mostly boilerplate and digits
MAX_TOKEN_CHARS = 16
MIN_PAIR_COUNT = 20  # in the texts that a vocabulary is extended for (guess): a rarer pair is no word of theirs
CONTEXT = 4096  # tokens

CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)


def train_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Return a tokenizer whose merges come from the texts.

    transformers 5 loads the tokenizer of any `qwen2` model as `Qwen2Tokenizer`, whatever the folder says, and that
    class brings its own pre-tokenizer and NFC. So the merges are learned with just these, and the result is read back
    by that class: what training sees is what `AutoTokenizer` and vLLM will see.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(THINK_TOKENS),
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_TOKEN_CHARS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in THINK_TOKENS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        return Qwen2Tokenizer.from_pretrained(folder)


def extend_tokenizer(tokenizer: Qwen2Tokenizer, texts: Iterable[str], num_new: int) -> Qwen2Tokenizer:
    """Return the tokenizer with at most `num_new` tokens more, learned from the texts; the old ones keep their ids.

    The new merges come after the old ones, so a text is first split as before, and then joined further.
    """
    backend = tokenizer.backend_tokenizer
    counts = Counter(piece for text in texts for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    words = {word: [token.value for token in backend.model.tokenize(word)] for word in counts}
    state = json.loads(backend.to_str())
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    vocabulary |= {
        token["content"]: token["id"] for token in state["added_tokens"]
    }  # else the new ids would meet theirs
    size = len(vocabulary) + num_new
    while len(vocabulary) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, tokens in words.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[word] if len("".join(pair)) <= MAX_TOKEN_CHARS else 0
        best, count = max(pairs.items(), key=lambda item: (item[1], item[0]), default=(("", ""), 0))
        if count < MIN_PAIR_COUNT:
            break
        merges.append(list(best))
        vocabulary.setdefault("".join(best), len(vocabulary))
        words = {word: join_pair(tokens, best) for word, tokens in words.items()}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state))
        return Qwen2Tokenizer.from_pretrained(folder)


def join_pair(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the tokens of a word after a merge, from the left."""
    joined: list[str] = []
    for token in tokens:
        if joined and (joined[-1], token) == pair:
            joined[-1] += token
        else:
            joined.append(token)
    return joined
