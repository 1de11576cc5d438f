"""Small files of the shapes of published sets of traces, with explicit Arrow schemas; every text is our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEXT = pa.string()


def _turns(role: str, content: str) -> pa.DataType:
    return pa.list_(pa.struct([(role, TEXT), (content, TEXT)]))


def _texts(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, TEXT) for name in names]


SCHEMAS: Mapping[str, pa.Schema] = {
    "openr1_math": pa.schema(
        [
            *_texts("problem", "solution", "answer", "problem_type", "question_type", "source", "uuid"),
            ("is_reasoning_complete", pa.list_(pa.bool_())),
            ("generations", pa.list_(TEXT)),
            ("correctness_math_verify", pa.list_(pa.bool_())),
            ("correctness_llama", pa.list_(pa.bool_())),
            ("finish_reasons", pa.list_(TEXT)),
            ("correctness_count", pa.int64()),
            ("messages", _turns("content", "role")),
        ]
    ),
    "openthoughts": pa.schema([("system", TEXT), ("conversations", _turns("from", "value"))]),
    "openthoughts_metadata": pa.schema(
        _texts(
            "problem",
            "deepseek_reasoning",
            "deepseek_solution",
            "ground_truth_solution",
            "domain",
            "source",
            "test_cases",
            "starter_code",
        )
    ),
    "mixture_of_thoughts": pa.schema(
        [("messages", _turns("content", "role")), ("num_tokens", pa.int64()), ("source", TEXT)]
    ),
    "synthetic1": pa.schema(
        [
            *_texts("response_id", "problem_id", "source", "in_source_id", "hf_dataset_name", "task_type", "prompt"),
            *_texts("gold_standard_solution", "llm_response", "verification_info"),
            ("score", pa.float64()),
            *_texts("verification_result_info", "metadata"),
        ]
    ),
    "openmathreasoning": pa.schema(
        [
            *_texts("expected_answer", "problem_type", "problem_source", "generation_model", "pass_rate_72b_tir"),
            *_texts("problem", "generated_solution", "inference_mode"),
            ("used_in_kaggle", pa.bool_()),
        ]
    ),
}


def thought(number: int, answer: object, note: str = "") -> str:
    """Return a completion in R1's format that answers so."""
    return (
        f"<think>\nThe number is {number}, and one more than that is asked for.{note}\n</think>\n\n"
        f"One more than {number} is \\boxed{{{answer}}}."
    )


def question(number: int) -> str:
    """Return the problem of that number."""
    return f"Farmer Olsen has {number} geese on his pond and buys another one. How many geese has he then?"


def marked(text: str) -> str:
    """Return a completion in OpenThoughts' marks."""
    before, _, after = text.removeprefix("<think>\n").partition("\n</think>\n\n")
    return (
        f"<|begin_of_thought|>\n\n{before}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{after}\n\n<|end_of_solution|>"
    )


def openr1_row(number: int, *answers: int, **more: Any) -> dict[str, Any]:
    """Return a row with a completion for each answer, labelled as it should be."""
    return {
        "problem": question(number),
        "answer": str(number + 1),
        "uuid": f"u-{number}",
        "generations": [thought(number, answer, f" Try {n}.") for n, answer in enumerate(answers)],
        "correctness_math_verify": [answer == number + 1 for answer in answers],
        "is_reasoning_complete": [True] * len(answers),
        "finish_reasons": None,
        **more,
    }


def synthetic_row(number: int, answer: int, **more: Any) -> dict[str, Any]:
    """Return a row of a mathematical task."""
    return {
        "response_id": f"r-{number}-{answer}",
        "problem_id": f"vfm_{number}",
        "task_type": "verifiable_math",
        "prompt": question(number),
        "llm_response": thought(number, answer),
        "verification_info": json.dumps({"ground_truth": str(number + 1)}),
        "score": float(answer == number + 1),
        "metadata": "{}",
        **more,
    }


def openmath_row(number: int, answer: object, **more: Any) -> dict[str, Any]:
    """Return a row of an attempt by chain of thought."""
    return {
        "expected_answer": str(number + 1),
        "problem_type": "has_answer_extracted",
        "generation_model": "QwQ-32B",
        "pass_rate_72b_tir": "n/a",
        "problem": question(number),
        "generated_solution": thought(number, answer),
        "inference_mode": "cot",
        "used_in_kaggle": True,
        **more,
    }


def mixture_row(number: int, source: str = "open-r1/OpenR1-Math-220k") -> dict[str, Any]:
    """Return a row of a conversation without an answer to compare with."""
    turns = [("user", question(number)), ("assistant", thought(number, number + 1))]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "num_tokens": 100 + number, "source": source}


def write(path: Path, rows: Sequence[Mapping[str, Any]], shape: str, row_group_size: int = 7) -> Path:
    """Write rows as the Parquet file of a set; what a row does not say is null."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMAS[shape]), path, row_group_size=row_group_size)
    return path
