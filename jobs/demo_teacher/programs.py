"""Small Python tasks for the demo teacher: the question, the reference, the tests, and the completion to learn from.

Beside `families.py` in the flow: what that module is for reasoning-gym, this one is for the kinds of
`program_kinds.py`. Expected values come from running our own references; code that a model wrote is never run here.
`python -m jobs.demo_teacher.programs` writes held-out tasks as a source file for a job.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated, Any

import typer

from jobs.demo_teacher.families import DEMO_SEED, INSTRUCTION, MEASURE_SEED, hash_question
from jobs.demo_teacher.program_kinds import KINDS, NUMBER_WORDS, Kind, fill

MEASURE_SIZE, DEMO_SIZE = 25, 12  # tasks of a kind that are held out, from the seeds that hold families out too
MIN_TESTS, MAX_TESTS = 5, 8
MAX_DRAWS = 200  # of a task's arguments or of a kind's next question, until there is a new one
EXAMPLE_SHARE, MAX_EXAMPLE_CHARS = 0.3, 24  # how many chains look at a test, and the longest arguments looked at

FRAMES = (
    "Write a Python function `$call` that $ask.",
    "Write `$call` in Python. It $ask.",
    "Please define a Python function `$call` which $ask.",
    "Implement `$call` in Python so that it $ask.",
)
OPENERS = ("I need a function $f of $args.", "The function $f takes $args.")
CLOSINGS = ("Here is the function:", "This function does it:", "The function is:")

# What a beginner writes: in the reference, the first is there, in the broken code the second. Some still compile, some
# even still pass; none loops for ever.
SLIPS = (
    (" + ", " - "),
    (" > ", " >= "),
    (" < ", " <= "),
    (" == ", " != "),
    (" != ", " == "),
    (" + 1)", ")"),
    (" += ", " = "),
    ("return ", ""),
    ("):\n", ")\n"),
    ("max(", "min("),
    ("min(", "max("),
    ("sum(", "len("),
    (" = 0", " = 1"),
    ("[::-1]", "[:-1]"),
    (".split()", ""),
    (".lower()", ""),
    ("abs(", "("),
    ("item", "items"),
    ("[", "("),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`entry(*args)` must return `expected`; both are JSON texts, as in `schemas.problem.FunctionTest`."""

    args: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One small programming task with its reference and tests."""

    kind: str
    question: str
    entry: str
    code: str  # the reference
    lines: tuple[str, ...]  # the chain of thought, without an example
    cases: tuple[Case, ...]
    instruction: str = INSTRUCTION  # what the factory appends: nothing under `prompt.template: plain`

    @property
    def user_message(self) -> str:
        """Return the message exactly as the factory sends it."""
        return self.question + self.instruction


@lru_cache(maxsize=4096)
def compile_reference(code: str, entry: str) -> Callable[..., Any]:
    """Return the function that one of our own references defines; never give it code that a model wrote."""
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # ours: filled from program_kinds.py
    function: Callable[..., Any] = namespace[entry]
    return function


def make_cases(kind: Kind, code: str, entry: str, near: int | str, rng: Random) -> tuple[Case, ...]:
    """Return tests with distinct arguments and not all the same result: the edges of the kind, then what is drawn."""
    function = compile_reference(code, entry)
    wanted, cases = rng.randint(MIN_TESTS, MAX_TESTS), dict[str, str]()
    for i in range(MAX_DRAWS):
        arguments = kind.inputs.edges[i] if i < len(kind.inputs.edges) else kind.inputs.draw(rng, near)
        text = json.dumps(arguments)
        cases[text] = json.dumps(function(*json.loads(text)))
        if len(cases) >= wanted and len(set(cases.values())) > 1:
            break
        if len(cases) >= wanted:
            del cases[text]
    return tuple(Case(args=args, expected=expected) for args, expected in cases.items())


def make_task(kind: Kind, seed: int) -> Task:
    """Return the task that a kind makes from a seed."""
    rng = Random(f"{kind.name}-{seed}")
    values: dict[str, object] = {name: rng.choice(allowed) for name, allowed in kind.constants.items()}
    near = values.get("k", 0)
    assert isinstance(near, int | str)
    is_in_words = isinstance(near, int) and "k" in values
    values["word"] = NUMBER_WORDS[int(near)] if is_in_words else ""
    names = rng.choice(kind.inputs.names)
    values |= dict(zip("ab", names, strict=False))
    entry = fill(rng.choice(kind.entries), values)
    call = f"{entry}({', '.join(names)})"
    ask = fill(rng.choice(kind.asks), values)
    body = fill(kind.body, values).replace("\n", "\n    ")
    code = f"def {call}:\n    {body}"
    opener = fill(rng.choice(OPENERS), {"f": entry, "args": " and ".join(names)})
    return Task(
        kind=kind.name,
        question=fill(rng.choice(FRAMES), {"call": call, "ask": ask}),
        entry=entry,
        code=code,
        lines=(opener, *(fill(line, values) for line in kind.plan)),
        cases=make_cases(kind, code, entry, near, rng),
    )


def make_tasks(kind: Kind, *, seed: int, size: int) -> list[Task]:
    """Return tasks of a kind with different questions, in the order of their seeds from `seed` on."""
    tasks: dict[str, Task] = {}
    for i in range(size * MAX_DRAWS):
        if len(tasks) == size:
            break
        task = make_task(kind, seed + i)
        tasks.setdefault(task.question, task)
    return list(tasks.values())


def held_out_tasks() -> frozenset[str]:
    """Return the hashes of every question that is measured or asked by the demo job."""
    sets = [(MEASURE_SEED, MEASURE_SIZE), (DEMO_SEED, DEMO_SIZE)]
    return frozenset(
        hash_question(task.question)
        for kind in KINDS.values()
        for seed, size in sets
        for task in make_tasks(kind, seed=seed, size=size)
    )


def think(task: Task, rng: Random) -> list[str]:
    """Return the chain of thought; some end with one of the tests, worked out."""
    short = [case for case in task.cases if len(case.args) <= MAX_EXAMPLE_CHARS]
    if not short or rng.random() >= EXAMPLE_SHARE:
        return list(task.lines)
    case = rng.choice(short)
    return [*task.lines, f"Example: {task.entry}({case.args[1:-1]}) gives {case.expected}."]


def respond(code: str, rng: Random) -> str:
    """Return a response with the code in a fenced block at its end."""
    return f"{rng.choice(CLOSINGS)}\n\n```python\n{code}\n```"


def break_code(code: str, rng: Random) -> str | None:
    """Return a solution after one slip, or None where no slip fits it."""
    head, body = code.split("\n", 1)
    fitting = [slip for slip in SLIPS if slip[0] in body]
    if not fitting:
        return None
    right, wrong = rng.choice(fitting)
    return f"{head}\n{body.replace(right, wrong, 1)}"


def program_rows(size: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield tasks as rows of a JSON Lines file, one kind after the other and again from the first."""
    per_kind = -(-size // len(KINDS))
    tasks = [make_tasks(kind, seed=seed, size=per_kind) for kind in KINDS.values()]
    in_turn = [row[i] for i in range(per_kind) for row in tasks if i < len(row)]
    for task in in_turn[:size]:
        tests = [{"args": case.args, "expected": case.expected} for case in task.cases]
        task_id = f"{task.kind}/{hash_question(task.question)[:12]}"
        yield {"id": task_id, "question": task.question, "entry": task.entry, "tests": tests}


def main(
    size: Annotated[int, typer.Option(min=1, help="Tasks, spread over all kinds.")] = 3 * len(KINDS),
    seed: Annotated[
        int, typer.Option(help=f"Seed of the tasks; {DEMO_SEED}: held out, for up to {DEMO_SIZE} of a kind.")
    ] = DEMO_SEED,
) -> None:
    """Write small Python tasks with function tests to stdout, as JSON lines.

    Example: python -m jobs.demo_teacher.programs --size 120 --seed 7 > tasks.jsonl
    """
    for row in program_rows(size, seed):
        typer.echo(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
