"""The training samples: a problem, its chain in the `r1` completion format, and now and then a defect on purpose.

Real teachers mix languages, loop, leave a tag open, answer inside the thinking only, or slip in a program; a demo
teacher that never did would leave half of the factory unseen. Invariant: no sample asks a held-out question.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from jobs.demo_teacher.families import FAMILIES, TRAIN_SEED, Family, Problem, boxed_form, hash_question, make_problems
from jobs.demo_teacher.program_kinds import Kind
from jobs.demo_teacher.programs import Task, break_code, make_task, respond, think


class Defect(StrEnum):
    """What is wrong with a completion on purpose. `measure.py` finds the same four by rule."""

    LANGUAGE_MIX = "language_mix"  # a phrase of another script in the reasoning; the answer is still right
    LOOP = "loop"  # one line again and again until the limit
    OPEN_TAG = "open_tag"  # no </think>
    BOX_IN_THINKING = "box_in_thinking"  # the box, or the program, stands before </think>, nothing useful after it


# Guesses that leave each defect visible among a few hundred samples and the pass rate mostly to the arithmetic.
DEFECT_SHARES = {
    Defect.LANGUAGE_MIX: 0.016,
    Defect.LOOP: 0.014,
    Defect.OPEN_TAG: 0.015,
    Defect.BOX_IN_THINKING: 0.015,
}
SLIP_SHARE = 0.09  # of the programs have one slip (guess): the sandbox must have something to find
PLAIN_SHARE = 0.2  # of the program questions come without the words about a box, as `prompt.template: plain` asks them
MIN_LOOP_CHARS, MAX_LOOP_CHARS = 400, 900  # guess: some 250 to 600 tokens, enough to learn not to stop

FOREIGN_PHRASES = [
    "让我们一步一步来。",
    "首先计算这一步。",
    "所以我们得到结果。",
    "接下来继续计算。",
    "等一下,让我再检查一遍。",
    "这一步没有问题。",
    "Давайте посчитаем дальше.",
    "Теперь следующий шаг.",
    "Проверим ещё раз.",
    "Это верно, продолжаем.",
    "次のステップに進みます。",
    "もう一度確認しましょう。",
    "다음 단계로 넘어갑시다.",
    "لنكمل الحساب خطوة بخطوة.",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sample."""

    problem: Problem | Task
    completion: str
    ends: bool  # False: the end token does not follow, the completion goes on as it is
    defect: Defect | None
    has_slip: bool = False  # the program is not the reference


def format_completion(lines: list[str], response: str) -> str:
    """Return a completion in the `r1` format."""
    reasoning = "\n".join(lines)
    return f"<think>\n{reasoning}\n</think>\n\n{response}"


def draw_defect(rng: Random) -> Defect | None:
    """Return a defect as often as its share says, mostly none."""
    (defect,) = rng.choices([None, *DEFECT_SHARES], [1 - sum(DEFECT_SHARES.values()), *DEFECT_SHARES.values()])
    return defect


def write_completion(lines: list[str], response: str, defect: Defect | None, rng: Random) -> str:
    """Return the completion of a chain and a response, with a defect."""
    match defect:
        case Defect.LANGUAGE_MIX:
            where = rng.randint(1, len(lines))
            return format_completion([*lines[:where], rng.choice(FOREIGN_PHRASES), *lines[where:]], response)
        case Defect.LOOP:
            where = rng.randrange(1, len(lines))
            repeats = rng.randint(MIN_LOOP_CHARS, MAX_LOOP_CHARS) // (len(lines[where]) + 1) + 1
            return "\n".join(["<think>", *lines[:where], *[lines[where]] * repeats])
        case Defect.OPEN_TAG:
            return format_completion(lines, response).replace("\n</think>\n\n", "\n")
        case Defect.BOX_IN_THINKING:
            return format_completion([*lines, response], "That is the answer.")
    return format_completion(lines, response)


def make_sample(problem: Problem, rng: Random) -> Sample | None:
    """Return the sample of a problem, or None where the chain does not reach reasoning-gym's reference."""
    family = FAMILIES[problem.family]
    lines, answer = family.build_chain(problem.metadata, rng)
    if answer != boxed_form(problem.reference):
        return None
    closing = family.closing if rng.random() < 0.7 else rng.choice(["The answer is", "So the final answer is"])
    defect = draw_defect(rng)
    completion = write_completion(lines, f"{closing} \\boxed{{{answer}}}.", defect, rng)
    return Sample(problem=problem, completion=completion, ends=defect is not Defect.LOOP, defect=defect)


def make_program_sample(task: Task, rng: Random) -> Sample:
    """Return the sample of a programming task."""
    if rng.random() < PLAIN_SHARE:
        task = replace(task, instruction="")
    broken = break_code(task.code, rng) if rng.random() < SLIP_SHARE else None
    lines, response = think(task, rng), respond(broken or task.code, rng)
    defect = draw_defect(rng)
    return Sample(
        problem=task,
        completion=write_completion(lines, response, defect, rng),
        ends=defect is not Defect.LOOP,
        defect=defect,
        has_slip=broken is not None,
    )


def make_family_samples(
    family: Family, *, size: int, held_out: Collection[str], seed: int = TRAIN_SEED
) -> Iterator[Sample]:
    """Yield at most `size` samples of one family; questions that are held out are left out, not replaced."""
    rng = Random(f"{family.name}-{seed}")
    for problem in make_problems(family, seed=seed, size=size):
        if hash_question(problem.question) not in held_out and (sample := make_sample(problem, rng)) is not None:
            yield sample


def make_kind_samples(kind: Kind, *, size: int, held_out: Collection[str], seed: int = TRAIN_SEED) -> Iterator[Sample]:
    """Yield at most `size` samples of one kind of programs; questions that are held out are left out, not replaced."""
    rng = Random(f"{kind.name}-{seed}")
    for i in range(size):
        task = make_task(kind, seed + i)
        if hash_question(task.question) not in held_out:
            yield make_program_sample(task, rng)
