"""The plan of a proof: arms, students, seeds, steps, problems. Fixed before the first run, and kept in its folder.

Read from YAML with overrides. Another plan in the same folder is refused, so that nothing is changed after it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import Field, field_validator, model_validator

from jobs.students.recipe import Base, Launch, Recipe, Train, read_named
from schemas.config import Part, parse_config

PLANS: Final = Path(__file__).parent / "plans"

# What an arm learns of the run: the answers alone, every trace, those with the right answer, the selection.
Kind = Literal["answers", "all", "verified", "selected"]
KINDS: Final = get_args(Kind)


class Start(Part):
    """What all students of a base begin with: the form of traces, with every digit of them drawn by chance."""

    share: float = Field(default=0.2, gt=0, lt=1)  # of the problems, which no arm then learns from
    steps: int = Field(ge=1)  # of the optimizer


class Fresh(Part):
    """The problems that students are asked."""

    benchmark: Path | None = None  # file, as `factory evaluate --benchmark`; null: problems of the run's own kinds
    problems: int = Field(default=200, ge=1)  # of each of the run's sources of reasoning-gym; asked ones are left out
    seed: int = Field(default=2_000_000, ge=0)  # of these problems
    samples: int = Field(default=1, ge=1)  # attempts at each
    set: tuple[str, ...] = ()  # keys of the evaluation's job, as --set

    @field_validator("set")
    @classmethod
    def _leaves_prompt(cls, overrides: tuple[str, ...]) -> tuple[str, ...]:
        if named := [one for one in overrides if one.startswith("prompt.")]:
            raise ValueError(f"{named[0]}: students are asked as they are trained, with the problem alone")
        return overrides


class EqualTokens(Part):
    """A second look at one seed: as many learnt tokens for every arm as one arm has, in place of as many steps."""

    seed: int
    arm: str


class Plan(Part):
    """One proof."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str
    run: dict[str, Any] | None = None  # job that makes the data, as a job file; null: every arm is a selection's folder
    start: Start | None = None  # null: students begin with their bases as they are
    students: Mapping[str, Base] = Field(min_length=1)
    train: Train  # of every arm; of the start too, but for its steps
    launch: Launch = Launch(kind="cpu")
    seeds: tuple[int, ...] = Field(min_length=1)  # of training: the order of rows
    arms: Mapping[str, str] = Field(min_length=1)  # a Kind, or a selection's folder or published dataset
    compare: tuple[tuple[str, str], ...] = ()  # first minus second
    fresh: Fresh
    equal_tokens: EqualTokens | None = None
    # Standard deviation over problems of the difference of two arms (mean over students and seeds): a guess made
    # before the run, for the difference that can be detected.
    assumed_sd: float = Field(default=0.4, gt=0)
    minutes: float | None = Field(default=None, gt=0)  # that all but the second look may take; for the report alone

    @model_validator(mode="after")
    def _fits_together(self) -> Plan:
        if self.train.max_steps is None:
            raise ValueError("train.max_steps is missing: every arm takes as many steps")
        own = [arm for arm, data in self.arms.items() if data in KINDS]
        if self.run is None and (own or self.start is not None or self.fresh.benchmark is None):
            raise ValueError(
                "without `run` every arm is a folder (RUN/tables/SELECTION) or org/name on the Hub, `start` is null, "
                "and fresh.benchmark is a file"
            )
        named = [arm for pair in self.compare for arm in pair]
        named += [] if self.equal_tokens is None else [self.equal_tokens.arm]
        if unknown := [arm for arm in named if arm not in self.arms]:
            raise ValueError(f"compare, equal_tokens: no arm {unknown[0]!r}; there are {', '.join(self.arms)}")
        if self.equal_tokens is not None and self.equal_tokens.seed not in self.seeds:
            raise ValueError(f"equal_tokens.seed={self.equal_tokens.seed} must be one of seeds={list(self.seeds)}")
        for student in self.students:
            self.recipe(student, seed=0)
        if self.run is not None:
            parse_config(self.job(), origin="run")
        return self

    def job(self) -> dict[str, Any]:
        """Return the job that makes the data, as a job file."""
        return {"name": self.name, **(self.run or {})}

    def recipe(self, student: str, *, seed: int, steps: int | None = None, start: Path | None = None) -> Recipe:
        """Return the recipe of a student: from its base, or from a model folder."""
        base = self.students[student].model_dump(mode="json")
        if start is not None:
            base |= {"model": str(start), "revision": None, "tokenizer": None, "rope_theta": None}
        train = self.train.model_dump(mode="json") | {"seed": seed, "max_steps": steps or self.train.max_steps}
        body = {"name": f"{self.name}-{student}", "evidence": "trained", "base": base, "train": train}
        return Recipe.model_validate(body | {"launch": self.launch.model_dump(mode="json")})


def detectable(num_problems: int, standard_deviation: float) -> float:
    """Return the difference of two arms that is found four times in five at a level of 5 %, two-sided.

    Of the mean of one difference per problem. It knows of problems alone: what another training run of the same arm
    would give comes on top, and is shown by the second interval of the report.

    Source: normal approximation, (1.96 + 0.84) standard errors; Miller 2024, arXiv:2411.00640, section 5.
    """
    return (1.96 + 0.84) * standard_deviation / sqrt(num_problems)


def shipped_plans() -> list[str]:
    """Return the names of the plans that come with the factory."""
    return sorted(path.stem for path in PLANS.glob("*.yaml"))


def load_plan(name: str, overrides: Sequence[str] = ()) -> Plan:
    """Return the plan of a name or file with ``a.b=c`` overrides applied.

    Raises:
        ConfigError: If there is none of the name, the file is no YAML mapping, or a key or value is not allowed.
    """
    return read_named(Plan, "plan", "PLAN", name, PLANS, overrides)
