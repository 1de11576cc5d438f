"""Measure the demo teacher on held-out problems with real vLLM, and write what was found beside the weights.

Pass and defect rates here come from this module's own small rules, not from the factory's verifiers: they say what the
model does, and the factory's tests may then hold the verifiers against them. No answer is ever evaluated, and a program
only in the factory's own sandbox (`verifiers.code`).
"""

import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from jobs.demo_teacher import programs
from jobs.demo_teacher.card import measured_table, programs_table, write_card
from jobs.demo_teacher.corpus import Defect
from jobs.demo_teacher.families import FAMILIES, MEASURE_SEED, MEASURE_SIZE, Problem, boxed_form, make_problems
from jobs.demo_teacher.program_kinds import KINDS
from jobs.demo_teacher.programs import Task, make_tasks
from jobs.demo_teacher.train import WEIGHTS
from schemas.problem import FunctionTest, Limits
from schemas.verdict import Outcome
from verifiers.code import find_code, judge_program

MAX_TOKENS = 512  # of a completion; the longest right ones have some 280
LIMITS = Limits(cpu_time_s=2.0, wall_time_s=10.0, memory_mb=256)  # of a program; right ones need milliseconds
LOOP_REPEATS = 5  # equal lines in a row; no right chain has two
NORMAL_Z = 1.959964  # two-sided 95 %


class Interval(NamedTuple):
    """A 95 % confidence interval of a rate."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One completion of the model, as vLLM gave it."""

    problem: Problem | Task
    completion: str
    num_tokens: int
    finish_reason: str | None


def wilson_interval(num_passed: int, num_attempts: int) -> Interval:
    """Return the Wilson score interval of a pass rate.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    rate, z2 = num_passed / num_attempts, NORMAL_Z**2
    centre = (rate + z2 / (2 * num_attempts)) / (1 + z2 / num_attempts)
    spread = rate * (1 - rate) / num_attempts + z2 / (4 * num_attempts**2)
    half = NORMAL_Z * math.sqrt(spread) / (1 + z2 / num_attempts)
    return Interval(centre - half, centre + half)


def last_box(text: str) -> str | None:
    r"""Return the content of the last \boxed{} with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end]
    return None


def last_program(text: str) -> str | None:
    """Return the last fenced Python block of a thought or of a response, or None."""
    part = text.rpartition("<think>")[2]
    found = find_code(part, "python")
    return None if found is None else part[slice(*found)].removesuffix("\n")


@lru_cache(maxsize=16_384)
def passes_tests(program: str, task: Task) -> bool:
    """Return whether a program returns what every test of a task expects; it runs in the factory's sandbox."""
    tests = [FunctionTest(entry=task.entry, args=case.args, expected=case.expected) for case in task.cases]
    return judge_program(program, tests, limits=LIMITS).outcome is Outcome.CORRECT


def list_values(text: str) -> list[float] | None:
    """Return the numbers of a list such as ['1.0', '-2.5'], or None if it is no such list."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    items = [item.strip().strip("'\"") for item in text[1:-1].split(",")]
    if not all(re.fullmatch(r"-?\d+(\.\d+)?", item) for item in items):
        return None
    return [float(item) for item in items]


def last_answer(text: str, problem: Problem | Task) -> str | None:
    """Return what a text gives as its answer to a problem: a program, or the content of a box; None if nothing."""
    return last_program(text) if isinstance(problem, Task) else last_box(text)


def is_passed(attempt: Attempt) -> bool:
    """Return whether the last box after the thinking holds the reference, or the last program passes its tests."""
    problem = attempt.problem
    _, closed, response = attempt.completion.partition("</think>")
    answer = last_answer(response, problem) if closed else None
    if answer is None:
        return False
    if isinstance(problem, Task):
        return passes_tests(answer, problem)
    answer, reference = "".join(boxed_form(answer).split()), "".join(boxed_form(problem.reference).split())
    values = list_values(reference)
    return answer == reference or (values is not None and list_values(answer) == values)


def defects_of(attempt: Attempt) -> set[Defect]:
    """Return the defects that simple rules see in a completion."""
    found = set()
    reasoning, closed, response = attempt.completion.partition("</think>")
    letters = (character for character in attempt.completion if character.isalpha())
    if any(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters):
        found.add(Defect.LANGUAGE_MIX)
    lines = attempt.completion.split("\n")
    runs = zip(*(lines[i:] for i in range(LOOP_REPEATS)), strict=False)
    is_cut = attempt.finish_reason == "length"
    if is_cut and any(len(set(run)) == 1 for run in runs):
        found.add(Defect.LOOP)
    if not closed and not is_cut:
        found.add(Defect.OPEN_TAG)
    answers = [last_answer(text, attempt.problem) for text in (reasoning, response)]
    if closed and answers[0] is not None and answers[1] is None:
        found.add(Defect.BOX_IN_THINKING)
    return found


def generate(weights: Path, problems: Sequence[Problem | Task], seed: int) -> list[Attempt]:
    """Return one completion for each problem, sampled by vLLM at temperature 1."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; read at import
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import LLM, SamplingParams  # late: takes seconds, and is an extra

    llm = LLM(str(weights), enforce_eager=True, dtype="bfloat16", max_model_len=4096, max_num_seqs=256, seed=seed)
    try:
        outputs = llm.chat(
            [[{"role": "user", "content": problem.user_message}] for problem in problems],
            SamplingParams(temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS),
        )
    finally:
        llm.llm_engine.engine_core.shutdown()
    return [
        Attempt(
            problem=problem,
            completion=output.outputs[0].text,
            num_tokens=len(output.outputs[0].token_ids),
            finish_reason=output.outputs[0].finish_reason,
        )
        for problem, output in zip(problems, outputs, strict=True)
    ]


def summarize(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the counts and rates of some attempts."""
    num_attempts = len(attempts)
    num_passed = sum(map(is_passed, attempts))
    defects = Counter(defect for attempt in attempts for defect in defects_of(attempt))
    return {
        "num_problems": num_attempts,
        "num_passed": num_passed,
        "pass_rate": num_passed / num_attempts,
        "pass_rate_95": wilson_interval(num_passed, num_attempts),
        "mean_tokens": sum(attempt.num_tokens for attempt in attempts) / num_attempts,
        "at_token_limit": sum(attempt.finish_reason == "length" for attempt in attempts) / num_attempts,
        "defects": {defect.value: defects[defect] / num_attempts for defect in Defect},
    }


def group(attempts: Sequence[Attempt]) -> Mapping[str, list[Attempt]]:
    """Return the attempts by family or kind."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        problem = attempt.problem
        groups.setdefault(problem.kind if isinstance(problem, Task) else problem.family, []).append(attempt)
    return groups


def main(
    weights: Annotated[Path, typer.Option(help="Model directory.")] = WEIGHTS,
    size: Annotated[int, typer.Option(min=1, help="Problems per family, from the first held-out one.")] = MEASURE_SIZE,
    tasks: Annotated[
        int, typer.Option(min=1, help="Programming tasks per kind, from the first held-out one.")
    ] = programs.MEASURE_SIZE,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; the problems' seed is fixed.")] = 0,
    show: Annotated[int, typer.Option(min=0, help="Failed completions per family or kind to print.")] = 0,
) -> None:
    """Measure pass and defect rates by family and kind; write measured.json and the model card's tables.

    Example: python -m jobs.demo_teacher.measure --size 250 --tasks 25
    """
    problems = [
        problem
        for family in FAMILIES.values()
        for problem in make_problems(family, seed=MEASURE_SEED, size=MEASURE_SIZE)[:size]
    ]
    to_program = [
        task
        for kind in KINDS.values()
        for task in make_tasks(kind, seed=MEASURE_SEED, size=programs.MEASURE_SIZE)[:tasks]
    ]
    attempts = generate(weights, [*problems, *to_program], seed)
    answered, programmed = attempts[: len(problems)], attempts[len(problems) :]
    by_family, by_kind = group(answered), group(programmed)
    measured = {
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": MAX_TOKENS, "seed": seed, "dtype": "bfloat16"},
        "problems": {"seed": MEASURE_SEED, "size": MEASURE_SIZE, "programs_size": programs.MEASURE_SIZE},
        "families": {name: {"config": FAMILIES[name].config, **summarize(items)} for name, items in by_family.items()},
        "overall": summarize(answered),
        "programs": {
            "kinds": {name: summarize(items) for name, items in by_kind.items()},
            "overall": summarize(programmed),
        },
    }
    (weights / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    write_card(weights, measured)
    typer.echo(f"{measured_table(measured)}\n\n{programs_table(measured)}")
    for items in [*by_family.values(), *by_kind.values()]:
        for item in [item for item in items if not is_passed(item)][:show]:
            problem = item.problem
            reference = problem.code if isinstance(problem, Task) else problem.reference
            typer.echo(f"\n--- {problem.question}\n{item.completion}\n=> {reference}")


if __name__ == "__main__":
    typer.run(main)
