"""The `sft` table of a real run, as Qwen and Llama students learn from it with TRL: all of the thinking, no other word.

The students are random and tiny, and so is what they can say: what is asserted is what they are taught (the labels),
that they learn it (the loss), and that they will know where to stop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from jobs.bench.drill import factory_process
from tests.families import LLAMA, QWEN, Family

if TYPE_CHECKING:
    from trl import SFTTrainer

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TEMPLATES = Path(__file__).parents[2] / "jobs" / "students" / "templates"
NUM_PROBLEMS, NUM_SAMPLES = 16, 2
MAX_LENGTH = 512  # tokens; the longest row has about half
STEPS, BATCH = 20, 8
IGNORED = -100  # the label that PyTorch's cross entropy leaves out

# An inner quotation of the tags' names, an indented line, signs of more than one byte, blank lines: what a template or
# a tokenizer that touches the text would change.
COMPLETION = (
    "<think>\nI am asked for {a} + {b}, so I add the numbers: first {a}, then {b} more.\n\n"
    "    {a}\n  + {b}\n  = {c}\n\nCheck:  {c} − {b} = {a}, and {c} ≥ {a}. The sum “{c}” is right.\n</think>\n\n"
    "The sum of ${a}$ and ${b}$ is\n\n$$\\boxed{{{c}}}$$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A family, and how its students are taught."""

    family: Family
    model: str  # name of its configuration in transformers
    template: Path


QWEN_STUDENT = Student(family=QWEN, model="qwen2", template=TEMPLATES / "chatml_think.jinja")
LLAMA_STUDENT = Student(family=LLAMA, model="llama", template=TEMPLATES / "llama3_think.jinja")
STUDENTS = pytest.mark.parametrize("student", [QWEN_STUDENT, LLAMA_STUDENT], ids=lambda student: student.family.name)


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of the `factory` command over recorded completions."""
    folder = tmp_path_factory.mktemp("students")
    recording = folder / "recording.jsonl"
    with recording.open("w", encoding="utf-8") as file:
        for n in range(NUM_PROBLEMS * NUM_SAMPLES):
            a, b = 17 + n // NUM_SAMPLES, 25 + 3 * (n // NUM_SAMPLES)
            text = COMPLETION.format(a=a, b=b, c=a + b) + "." * (n % NUM_SAMPLES)
            row = {"q": f"What is {a} + {b}?", "a": str(a + b), "completion": text}
            file.write(json.dumps(row) + "\n")
    job = {
        "name": "students",
        "sources": [{"kind": "jsonl", "path": str(recording), "columns": {"problem": "q", "answer": "a"}}],
        "prompt": {"template": "plain", "format": "r1"},
        "teacher": {"kind": "replay", "columns": {"problem": "q", "completion": "completion"}},
        "store": {"segment_s": 1, "commit_interval_s": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    with factory_process(["run", folder / "job.yaml", "--run", folder / "run"], folder / "mark") as child:
        assert child.wait() == 0, child.said()
    return folder / "run"


@pytest.fixture(scope="module")
def rows(run: Path) -> list[list[dict[str, str]]]:
    """Return the turns of every row of the `sft` table, as `datasets` gives them."""
    return list(_load(run)["messages"])


def _load(run: Path) -> Any:
    from datasets import load_dataset

    files = str(run / "tables" / "default" / "sft" / "train-*.parquet")
    return load_dataset("parquet", data_files=files, split="train", cache_dir=str(run.parent / "cache"))


def _trainer(student: Student, run: Path, folder: Path, *, template: Path | None = None, **settings: Any) -> SFTTrainer:
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(0)
    data = _load(run)
    texts = [turn["content"] for turns in data["messages"] for turn in turns]
    tokenizer = student.family.train_tokenizer(texts, chat_template=None)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        student.model,
        **size,
        vocab_size=len(tokenizer),
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
    )
    arguments = {
        "assistant_only_loss": True,
        "max_length": MAX_LENGTH,
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",  # a batch's rows are then those of the table, in its order
        "gradient_checkpointing": False,
        **settings,
    }
    return SFTTrainer(
        model=AutoModelForCausalLM.from_config(config),
        args=SFTConfig(
            output_dir=str(folder),
            chat_template_path=str(template or student.template),
            eos_token=student.family.end,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )


def _label_faults(trainer: SFTTrainer, rows: Sequence[Sequence[dict[str, str]]], family: Family) -> list[str]:
    """Return what is wrong with the labels of every row, read from the batches that the model is given."""
    tokenizer = trainer.processing_class
    batches = list(islice(trainer.get_train_dataloader(), -(-len(rows) // BATCH)))
    labels_R = [labels for batch in batches for labels in batch["labels"].tolist()]
    ids_R = [ids for batch in batches for ids in batch["input_ids"].tolist()]
    assert len(labels_R) == len(ids_R) == len(rows)
    faults = []
    for row, (turns, labels, ids) in enumerate(zip(rows, labels_R, ids_R, strict=True)):
        places = [place for place, label in enumerate(labels) if label != IGNORED]
        if any(after != before + 1 for before, after in pairwise(places)):
            faults.append(f"row {row}: what is learnt is not one piece")
        if any(labels[place] != ids[place] for place in places):
            faults.append(f"row {row}: a label is not the token at its place")
        expected, learnt = turns[-1]["content"] + family.end, tokenizer.decode([labels[place] for place in places])
        if learnt != expected:
            faults.append(f"row {row}: learns {learnt!r}, must learn {expected!r}")
        if family.start is not None and ids.count(tokenizer.bos_token_id) != 1:
            faults.append(f"row {row}: has {ids.count(tokenizer.bos_token_id)} tokens that start a text, must have one")
    return faults


@STUDENTS
def test_a_student_learns_the_whole_thinking_and_the_end_and_its_loss_falls(
    student: Student, run: Path, rows: list[list[dict[str, str]]], tmp_path: Path
) -> None:
    assert len(rows) == NUM_PROBLEMS * NUM_SAMPLES
    for turns in rows:
        assert [turn["role"] for turn in turns] == ["user", "assistant"]
        assert turns[-1]["content"].startswith("<think>\n")
        assert turns[-1]["content"].count("</think>") == 1
    trainer = _trainer(student, run, tmp_path)
    assert _label_faults(trainer, rows, student.family) == []

    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS

    assert mean(losses[-5:]) < 0.75 * mean(losses[:5]), losses
    end_id = trainer.processing_class.convert_tokens_to_ids(student.family.end)
    ends = trainer.model.generation_config.eos_token_id
    assert end_id in (ends if isinstance(ends, list) else [ends])
    assert trainer.processing_class.pad_token_id != end_id


@STUDENTS
def test_the_question_is_put_to_a_student_as_it_was_in_training(
    student: Student, run: Path, rows: list[list[dict[str, str]]], tmp_path: Path
) -> None:
    tokenizer = student.family.train_tokenizer(
        [turn["content"] for turns in rows for turn in turns], student.template.read_text()
    )
    answer = {"role": "assistant", "content": rows[1][-1]["content"]}
    more = [{"role": "user", "content": "  And twice that?\n"}, answer]
    for turns in (rows[0], [{"role": "system", "content": "Be brief."}, *rows[0], *more]):
        asked = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        assert whole.startswith(asked + turns[-1]["content"] + student.family.end)
        assert all(turn["content"] in whole for turn in turns)  # thinking of earlier turns too
        text = whole
        contents = sorted((turn["content"] for turn in turns), key=len, reverse=True)  # one may begin like another
        for part in (*student.family.special_tokens, *contents):
            text = text.replace(part, "")
        assert set(text.split()) <= {"system", "user", "assistant"}  # nothing hidden, no date


DROPS_THINKING = "{{- message['content'].split('</think>')[-1] + end -}}"
TRIMS = "{{- message['content'] | trim | replace('\\n\\n', '\\n') + end -}}"
ENDS_OUTSIDE = "{{- message['content'] -}}"


def _spoiled(student: Student, said: str, folder: Path) -> Path:
    """Write a template of the family that says the assistant's turn as in ``said``; return its path."""
    good = "{{- message['content'] + '" + student.family.end + "' -}}{%- endgeneration -%}"
    text = student.template.read_text()
    assert text.count(good) == 1
    after = "" if "end" in said else "{{- '" + student.family.end + "' -}}"
    bad = said.replace("+ end", f"+ '{student.family.end}'") + "{%- endgeneration -%}" + after
    (folder / "spoiled.jinja").write_text(text.replace(good, bad))
    return folder / "spoiled.jinja"


@STUDENTS
@pytest.mark.parametrize(
    ("said", "settings"),
    [
        (DROPS_THINKING, {}),
        (TRIMS, {}),
        (ENDS_OUTSIDE, {}),
        (None, {"assistant_only_loss": False}),
        (None, {"max_length": 64}),
    ],
    ids=["drops the thinking, as R1's own", "trims", "end not learnt", "prompt in the loss", "cut"],
)
def test_the_same_check_finds_what_a_bad_template_or_setting_does(
    student: Student,
    said: str | None,
    settings: dict[str, Any],
    run: Path,
    rows: list[list[dict[str, str]]],
    tmp_path: Path,
) -> None:
    template = None if said is None else _spoiled(student, said, tmp_path)
    trainer = _trainer(student, run, tmp_path, template=template, **settings)
    faults = _label_faults(trainer, rows, student.family)
    assert len(faults) == len(rows), faults[:3]
    assert all("must learn '<think>" in fault for fault in faults)
    if said == DROPS_THINKING:
        assert not any("think>" in fault.partition("must learn")[0] for fault in faults)
