"""Chains of thought that really compute: one builder per family of `families.py`.

A builder reads the numbers of a problem, works the answer out line by line in steps small enough for a model of a few
million parameters, and never looks at the reference. `corpus.py` wraps the lines in tags; nothing here knows of tags.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import Any, NamedTuple


class Chain(NamedTuple):
    """The worked solution of one problem."""

    lines: list[str]
    answer: str  # as it stands in the box


Metadata = dict[str, Any]  # what reasoning-gym says about one problem; its keys differ by family
Builder = Callable[[Metadata, Random], Chain]

LEGS_BY_ANIMAL = {
    animal: legs
    for legs, animals in {
        0: "snake,sea slug,jellyfish,flatworm,leech",
        2: "chicken,bird,human,duck",
        4: "dog,cat,cow,horse,lion,elephant,giraffe,tiger,deer,sheep",
        5: "starfish",
        6: "insect,ant,butterfly,beetle,bee,wasp,grasshopper,cricket,cockroach,praying mantis,firefly",
        8: "spider,scorpion",
        10: "crab,lobster,shrimp",
        14: "woodlouse",
    }.items()
    for animal in animals.split(",")
}


def split_by_place(number: int) -> list[int]:
    """Return the non-zero decimal places of a number, largest first: 407 gives [400, 7], 0 gives [0]."""
    digits = str(number)
    places = [int(digit) * 10 ** (len(digits) - i - 1) for i, digit in enumerate(digits)]
    return [place for place in places if place] or [0]


def multiply(a: int, b: int) -> str:
    """Return one line that multiplies: by the places of `b`, then one addition at a time."""
    sign = "-" if (a < 0) != (b < 0) and a * b else ""
    x, y = abs(a), abs(b)
    if len(split_by_place(y)) > 1 and len(split_by_place(x)) == 1:
        x, y = y, x  # the round number goes last: one product instead of several
    places = split_by_place(y)
    if len(places) == 1:
        return f"{a}*{b}={sign}{x * y}"
    steps = [f"{x}*{place}={x * place}" for place in places]
    total = x * places[0]
    for place in places[1:]:
        steps.append(f"{total}+{x * place}={total + x * place}")
        total += x * place
    return f"{'; '.join(steps)}; {a}*{b}={sign}{total}"


def divide(number: int, divisor: int) -> str:
    """Return one line of long division of two positive integers whose quotient is whole."""
    quotient = number // divisor
    steps, rest = [], number
    places = split_by_place(quotient)
    for place in places:
        steps.append(f"{divisor}*{place}={divisor * place}")
        if place != places[-1]:
            steps.append(f"{rest}-{divisor * place}={rest - divisor * place}")
        rest -= divisor * place
    return f"{'; '.join(steps)}; {number}/{divisor}={quotient}"


def euclid(a: int, b: int) -> tuple[list[str], int]:
    """Return the lines of Euclid's algorithm and the greatest common divisor of two positive integers."""
    lines = []
    a, b = max(a, b), min(a, b)
    while b:
        quotient, rest = divmod(a, b)
        if quotient == 1:
            lines.append(f"{a} and {b}: {a}-{b}={rest}")
        elif rest == 0:
            lines.append(f"{a} and {b}: {quotient}*{b}={a}, nothing is left")
        else:
            lines.append(f"{a} and {b}: {quotient}*{b}={a - rest}, {a}-{a - rest}={rest}")
        a, b = b, rest
    return lines, a


def reduce_once(parts: list[str]) -> list[str]:
    """Return an expression after its next operation.

    The innermost brackets come first, in them products and quotients, from left to right. `/` is the integer quotient,
    as reasoning-gym means it.
    """
    start, stop = 0, len(parts)
    openings = [i for i, part in enumerate(parts) if part in ("(", "-(")]
    if openings:
        start = openings[-1] + 1
        stop = parts.index(")", start)
    inner = parts[start:stop]
    if len(inner) > 1:
        i = next((i for i in range(1, len(inner), 2) if inner[i] in "*/"), 1)
        a, operator, b = int(inner[i - 1]), inner[i], int(inner[i + 1])
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[operator]
        inner = [*inner[: i - 1], str(result), *inner[i + 2 :]]
    if openings and len(inner) == 1:
        value = -int(inner[0]) if parts[start - 1] == "-(" else int(inner[0])
        return [*parts[: start - 1], str(value), *parts[stop + 1 :]]
    return [*parts[:start], *inner, *parts[stop:]]


def rewrite(parts: list[str]) -> list[str]:
    """Return an expression and what is left of it after each operation, one line each.

    The whole rest is written again every time: copying is easy for a small model, keeping its place is not.
    """
    lines = [" ".join(parts)]
    while len(parts) > 1:
        parts = reduce_once(parts)
        lines.append(f"= {' '.join(parts)}")
    return lines


def chain_sum(metadata: Metadata, rng: Random) -> Chain:
    """Add and subtract from left to right."""
    lines = rewrite(metadata["expression"].split())
    opener = rng.choice(["I go from left to right.", "I add up step by step."])
    return Chain([opener, *lines], lines[-1].removeprefix("= "))


def basic_arithmetic(metadata: Metadata, rng: Random) -> Chain:
    """Work out one operation after the other, innermost brackets first."""
    lines = rewrite(metadata["expression"].split())
    opener = rng.choice(["Brackets first, then products, then sums.", "I take one operation at a time."])
    return Chain([opener, *lines], lines[-1].removeprefix("= "))


def gcd(metadata: Metadata, rng: Random) -> Chain:
    """Euclid's algorithm on two numbers."""
    a, b = metadata["numbers"]
    lines, divisor = euclid(a, b)
    opener = rng.choice(["I use Euclid's algorithm.", "Let me subtract multiples until nothing is left."])
    return Chain([opener, *lines, f"The last divisor is {divisor}."], str(divisor))


def lcm(metadata: Metadata, rng: Random) -> Chain:
    """Euclid's algorithm, then one number divided by the common divisor, times the other."""
    a, b = metadata["numbers"]
    lines, divisor = euclid(a, b)
    opener = rng.choice(["First the greatest common divisor.", "I find the common divisor first."])
    lines = [opener, *lines, f"The common divisor is {divisor}."]
    if divisor > 1:
        lines.append(divide(a, divisor))
    lines.append(multiply(a // divisor, b))
    return Chain(lines, str(a // divisor * b))


def simple_equations(metadata: Metadata, rng: Random) -> Chain:
    """Bring the constant to the right, make both sides positive, divide."""
    variable = metadata["variable"]
    left, right_text = metadata["equation"].replace(" ", "").split("=")
    coefficient, constant, right = 0, 0, int(right_text)
    for sign, factor, name, number in re.findall(r"([+-]?)(?:(\d+)\*)?(?:([a-z])|(\d+))", left):
        value = int(factor or 1) if name else int(number)
        value = -value if sign == "-" else value
        coefficient, constant = (value, constant) if name else (coefficient, value)
    lines = [rng.choice(["I want the variable alone.", "Let me solve this."]), metadata["equation"]]
    if not coefficient:  # reasoning-gym now and then asks `0 = 0`; its reference is then arbitrary
        return Chain([*lines, "Every number solves this."], "0")
    if constant:
        verb, operator = ("Subtract", "-") if constant > 0 else ("Add", "+")
        moved = f"{right}{operator}{abs(constant)}={right - constant}"
        lines.append(f"{verb} {abs(constant)} on both sides: {moved}")
        right -= constant
    if coefficient < 0:
        coefficient, right = -coefficient, -right
        lines.append("Change the sign on both sides.")
    lines.append(f"{coefficient}*{variable} = {right}")
    if coefficient != 1:
        lines.append(divide(right, coefficient))
    return Chain(lines, str(right // coefficient))


def leg_counting(metadata: Metadata, rng: Random) -> Chain:
    """Legs of each kind of animal, with a running total."""
    lines = [rng.choice(["I count the legs of each kind.", "Let me go through the animals."])]
    total = 0
    for animal, count in metadata["animals"].items():
        legs = LEGS_BY_ANIMAL[animal]
        line = f"{count} {animal}{'s' if count > 1 else ''}: {count}*{legs}={count * legs}"
        lines.append(f"{line}, {total}+{count * legs}={total + count * legs}")
        total += count * legs
    return Chain(lines, str(total))


def fraction_simplification(metadata: Metadata, rng: Random) -> Chain:
    """Euclid's algorithm, then both numbers divided by the common divisor."""
    numerator, denominator = metadata["numerator"], metadata["denominator"]
    lines, divisor = euclid(numerator, denominator)
    opener = rng.choice(["I look for the greatest common divisor.", "What divides both numbers?"])
    lines = [opener, *lines, f"The common divisor is {divisor}."]
    if divisor > 1:
        lines += [divide(numerator, divisor), divide(denominator, divisor)]
    lowest = Fraction(numerator, denominator)
    a, b = lowest.numerator, lowest.denominator
    style = metadata["style"].removeprefix("latex_")
    return Chain(lines, f"\\{style}{{{a}}}{{{b}}}" if style.endswith("frac") else f"{a}/{b}")


def number_sorting(metadata: Metadata, rng: Random) -> Chain:
    """Take the smallest (or largest) of what is left, again and again."""
    left = list(metadata["original_numbers"])
    is_ascending = metadata["direction"] == "ascending"
    word = "smallest" if is_ascending else "largest"
    lines = [rng.choice([f"I take the {word} number each time.", f"Which number is the {word}?"])]
    ordered = []
    while left:
        best = min(left, key=float) if is_ascending else max(left, key=float)
        lines.append(f"Of {', '.join(left)} it is {best}")
        left.remove(best)
        ordered.append(best)
    return Chain(lines, str(ordered))


def products(metadata: Metadata, rng: Random) -> Chain:
    """Multiply two numbers by the places of the second."""
    a, b = (int(number) for number in metadata["expression"].split(" * "))
    opener = rng.choice(["I split the second number by its digits.", "Let me multiply place by place."])
    return Chain([opener, *multiply(a, b).split("; ")], str(a * b))


def is_prime(number: int) -> bool:
    """Return whether a number is prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def count_primes(metadata: Metadata, rng: Random) -> Chain:
    """Name and number every prime of the interval."""
    start, end = metadata["start"], metadata["end"]
    found = [number for number in range(start, end + 1) if is_prime(number)]
    opener = rng.choice([f"I list the primes from {start} to {end}.", f"Primes from {start} to {end}, numbered."])
    counted = ", ".join(f"({i}) {number}" for i, number in enumerate(found, 1))
    return Chain([opener, counted or "There is none.", f"That makes {len(found)}."], str(len(found)))
