"""Long texts that repeat themselves for good reason, and loops of any period: made, the same for the same seed.

For `factory bench early`. What a teacher writes when it works through something step by step looks like a loop for a
while: tables, boards, long division, cases, traces of a program. Nobody's traces are copied here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

MIN_CHARS: Final = 6_000
MAX_CHARS: Final = 40_000
VERDICTS: Final = ("impossible", "no solution", "works", "too large", "does not divide", "not prime")


def _cases(dice: random.Random) -> str:
    modulus = dice.randint(5, 60)
    return "\n".join(
        f"Case {n}: if n = {n}, then n^2 + {modulus} = {n * n + modulus}, and {n * n + modulus} mod {modulus} = "
        f"{(n * n) % modulus}: {VERDICTS[n * n % modulus % 6]}."
        for n in range(1, dice.randint(80, 300))
    )


def _cases_in_words(dice: random.Random) -> str:
    names = dice.sample(["Ann", "Ben", "Cy", "Dee", "Eve", "Flo", "Gus", "Hal"], 5)
    lines = []
    for one in names:
        for other in names:
            for third in names:
                if len({one, other, third}) == 3:
                    lines.append(f"Suppose {one} sits first, {other} second and {third} third.")
                    lines.append(f"Then {dice.choice(names)} is next to {dice.choice(names)}, which is not allowed.")
    return "\n".join(lines)


def _table(dice: random.Random) -> str:
    width = dice.randint(3, 8)
    head = "| n | " + " | ".join(f"f_{k}(n)" for k in range(width)) + " |\n|" + "---|" * (width + 1)
    rows = [
        f"| {n} | " + " | ".join(str(n * k % dice.choice((2, 3, 5))) for k in range(width)) + " |"
        for n in range(dice.randint(100, 300))
    ]
    return "\n".join([head, *rows])


def _truth_table(dice: random.Random) -> str:
    size = dice.randint(7, 9)
    return "\n".join(
        "| " + " | ".join("T" if n >> bit & 1 else "F" for bit in range(size)) + " | "
        f"{'T' if n.bit_count() % 2 else 'F'} |"
        for n in range(1 << size)
    )


def _division(dice: random.Random) -> str:
    divisor = dice.choice((7, 13, 17, 19, 23, 29, 47, 61, 97))
    rest, lines = 1, []
    for place in range(1, dice.randint(100, 220)):
        digit, left = divmod(10 * rest, divisor)
        lines.append(f"Digit {place}: bring down a 0: {10 * rest} / {divisor} = {digit}, rest {left}.")
        rest = left
    return "\n".join(lines)


def _remainders(dice: random.Random) -> str:
    base, modulus = dice.randint(2, 9), dice.choice((7, 9, 11, 13))
    value, lines = 1, []
    for power in range(1, dice.randint(150, 400)):
        value = value * base % modulus
        lines.append(f"{base}^{power} = {value} (mod {modulus})")
    return "\n".join(lines)


def _board(dice: random.Random) -> str:
    """A game of life that soon stands still: the same board again and again, a few times only."""
    size = dice.randint(6, 14)
    living = {(dice.randrange(size), dice.randrange(size)) for _ in range(size * 2)}
    boards, seen = [], 0
    for step in range(40):
        rows = [" ".join("X" if (row, col) in living else "." for col in range(size)) for row in range(size)]
        boards.append(f"Step {step}:\n" + "\n".join(rows))
        following = set()
        for row in range(size):
            for col in range(size):
                near = sum((row + r, col + c) in living for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0))
                if near == 3 or (near == 2 and (row, col) in living):
                    following.add((row, col))
        seen += following == living
        living = following
        if seen > 3:
            break
    return "\n\n".join(boards)


def _grid(dice: random.Random) -> str:
    """A grid puzzle's picture: mostly zeros."""
    size = dice.randint(12, 30)
    grid = [[0] * size for _ in range(size)]
    for _ in range(dice.randint(3, 9)):
        grid[dice.randrange(size)][dice.randrange(size)] = dice.randint(1, 9)
    shown = "\n".join(" ".join(map(str, row)) for row in grid)
    return f"The input is\n{shown}\nAfter the step it is\n" + "\n".join(" ".join(map(str, row[::-1])) for row in grid)


def _program_trace(dice: random.Random) -> str:
    left, right = dice.randint(200, 900), dice.randint(3, 9)
    lines: list[str] = []
    while left > 0 and len(lines) < 250:
        lines.append(f"while {left} > 0: left = {left} - {right} = {left - right}; count = {len(lines) + 1}")
        left -= right
    return "\n".join(lines)


def _sequence(dice: random.Random) -> str:
    first, step = dice.randint(1, 9), dice.randint(1, 9)
    return ", ".join(str(first + step * n) for n in range(dice.randint(1_200, 3_000)))


def _sorting(dice: random.Random) -> str:
    numbers = [dice.randint(1, 99) for _ in range(dice.randint(20, 32))]
    lines = []
    for end in range(len(numbers), 1, -1):
        for place in range(end - 1):
            if numbers[place] > numbers[place + 1]:
                numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
        lines.append(f"After the pass: {numbers}")
    return "\n".join(lines)


def _primes(dice: random.Random) -> str:
    begin = dice.randint(2, 500)
    lines = []
    for n in range(begin, begin + dice.randint(120, 260)):
        factor = next((d for d in range(2, n) if n % d == 0), None)
        lines.append(f"{n} is prime." if factor is None else f"{n} = {factor} x {n // factor}, so it is not prime.")
    return "\n".join(lines)


KINDS: Final[tuple[Callable[[random.Random], str], ...]] = (
    _cases,
    _cases_in_words,
    _table,
    _truth_table,
    _division,
    _remainders,
    _board,
    _grid,
    _program_trace,
    _sequence,
    _sorting,
    _primes,
)


def working_texts(count: int, real: Sequence[str], seed: int) -> list[str]:
    """Return so many thoughts, each one to three pieces of work with sentences of the real texts between them."""
    dice = random.Random(seed)
    texts = []
    for turn in range(count):
        parts: list[str] = []
        size = dice.randint(MIN_CHARS, MAX_CHARS)
        while sum(map(len, parts)) < size:
            parts += [dice.choice(real), KINDS[(turn + len(parts)) % len(KINDS)](dice)]
        texts.append("\n\n".join(parts))
    return texts


def joined_texts(count: int, real: Sequence[str], seed: int) -> list[str]:
    """Return so many thoughts, each some real completions one behind the other."""
    dice = random.Random(seed)
    texts = []
    for _ in range(count):
        parts: list[str] = []
        size = dice.randint(MIN_CHARS, MAX_CHARS)
        while sum(map(len, parts)) < size:
            parts.append(dice.choice(real))
        texts.append("\n\n".join(parts))
    return texts
