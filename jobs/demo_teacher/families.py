"""The families the demo teacher is trained and measured on: their difficulty, their problems, and what is held out.

A problem that is measured, or that the demo job asks, is never trained on: `train.py` drops every question whose hash
is among `held_out_hashes()`. The configs are part of the model: other difficulties are outside what it has seen.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import reasoning_gym

from jobs.demo_teacher import chains

INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."  # what the factory appends

MEASURE_SEED, MEASURE_SIZE = 1000, 250  # the questions behind measured.json, per family
DEMO_SEED, DEMO_SIZE = 7, 60  # the questions of the demo job, per family
TRAIN_SEED = 1_000_000  # first of the training seeds; reasoning-gym seeds item i with seed + i


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One reasoning-gym dataset at one difficulty."""

    name: str  # as reasoning-gym registers it
    config: dict[str, Any]  # keyword arguments of reasoning_gym.create_dataset
    build_chain: chains.Builder
    closing: str  # the words before the box
    share: float = 1.0  # of the training mix, relative to the other families; more where the model learns slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question of a family, with reasoning-gym's reference."""

    family: str
    question: str  # stripped; the factory's prompt is this and INSTRUCTION
    reference: str  # reasoning-gym's `answer`, untouched
    metadata: dict[str, Any] = field(repr=False)

    @property
    def user_message(self) -> str:
        """Return the message exactly as the factory sends it."""
        return self.question + INSTRUCTION


FAMILIES = {
    family.name: family
    for family in [
        Family(
            name="chain_sum",
            config={"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2},
            build_chain=chains.chain_sum,
            closing="The result is",
        ),
        Family(
            name="basic_arithmetic",
            config={"min_terms": 2, "max_terms": 5, "min_digits": 1, "max_digits": 1},
            build_chain=chains.basic_arithmetic,
            closing="The result is",
            share=1.4,  # the one that it gets wrong most often
        ),
        Family(
            name="gcd",
            config={"min_value": 1, "max_value": 200},
            build_chain=chains.gcd,
            closing="The greatest common divisor is",
        ),
        Family(
            name="lcm",
            config={"min_value": 1, "max_value": 50},
            build_chain=chains.lcm,
            closing="The least common multiple is",
        ),
        Family(
            name="simple_equations",
            config={"min_terms": 2, "max_terms": 3, "min_value": 1, "max_value": 20},
            build_chain=chains.simple_equations,
            closing="The solution is",
        ),
        Family(
            name="leg_counting",
            config={"min_animals": 2, "max_animals": 5, "min_instances": 1, "max_instances": 12},
            build_chain=chains.leg_counting,
            closing="The number of legs is",
        ),
        Family(
            name="fraction_simplification",
            config={"min_value": 1, "max_value": 30, "min_factor": 1, "max_factor": 12},
            build_chain=chains.fraction_simplification,
            closing="In lowest terms this is",
        ),
        Family(
            name="number_sorting",
            config={"min_numbers": 3, "max_numbers": 5, "min_decimals": 0, "max_decimals": 0},
            build_chain=chains.number_sorting,
            closing="The sorted list is",
            share=0.8,  # its prompts are four times as long as the others'
        ),
        Family(
            name="products",
            config={"min_digits": 1, "max_digits": 2},
            build_chain=chains.products,
            closing="The product is",
        ),
        Family(
            name="count_primes",
            config={"min_n": 1, "max_n": 150},
            build_chain=chains.count_primes,
            closing="The number of primes is",
        ),
    ]
}


def make_problems(family: Family, *, seed: int, size: int) -> list[Problem]:
    """Return the problems that reasoning-gym makes from a seed, in its order."""
    return [
        Problem(
            family=family.name,
            question=item["question"].strip(),
            reference=item["answer"],
            metadata=item["metadata"],
        )
        for item in reasoning_gym.create_dataset(family.name, seed=seed, size=size, **family.config)
    ]


def hash_question(question: str) -> str:
    """Return the sha256 of a question in hexadecimal."""
    return hashlib.sha256(question.encode()).hexdigest()


def held_out_hashes() -> frozenset[str]:
    """Return the hashes of every question that is measured or asked by the demo job."""
    sets = [(MEASURE_SEED, MEASURE_SIZE), (DEMO_SEED, DEMO_SIZE)]
    return frozenset(
        hash_question(problem.question)
        for family in FAMILIES.values()
        for seed, size in sets
        for problem in make_problems(family, seed=seed, size=size)
    )


def boxed_form(reference: str) -> str:
    """Return a reference as the teacher writes it in the box: without the dollar signs around LaTeX."""
    return reference.strip().strip("$")
