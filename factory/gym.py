"""Problems of reasoning-gym, made by its generators.

Part of the first step of the flow. Importing reasoning-gym takes seconds: it happens when a job asks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from typing import Any, Final

from factory.columns import read_text
from factory.rows import Row, RowError, nearest
from schemas.config import GymSource
from schemas.errors import SourceError
from schemas.problem import Domain, Message, Problem, QuarantineReason
from verifiers.logic import reference_for

MATH_FOLDERS: Final = frozenset({"algebra", "arithmetic", "geometry", "probability"})  # of reasoning_gym
MATH_TASKS: Final = frozenset(  # number tasks that reasoning_gym keeps in other folders
    {"base_conversion", "count_primes", "number_filtering", "number_sequence", "number_sorting"}
)
# What a generator, or its check of settings, raises on odd settings; none of it is documented.
GYM_ERRORS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def gym_rows(source: GymSource, label: str) -> Iterator[Row]:
    """Return ``size`` generated entries as rows.

    Raises:
        SourceError: If there is no such task, or it does not take the settings.
    """
    return _generate(_create(source, label), source)


def gym_problem(row: Row, source: GymSource, name: str) -> Problem:
    """Return the problem of a generated entry; ``name`` becomes its source.

    Raises:
        RowError: If no reference can be made of the entry.
    """
    entry = dict(row.body or {})
    question = read_text(entry.get("question"), "question").strip()
    try:
        reference = reference_for(source.task, entry)
    except (ValueError, TypeError, LookupError) as error:
        raise RowError(QuarantineReason.BAD_VALUE, f"no reference can be made of the entry: {error}") from None
    return Problem(
        domain=_domain(source.task),
        messages=(Message(role="user", content=question),),
        language=source.language,
        source=name,
        source_row_id=row.row_id,
        source_revision=row.revision,
        license=source.license,
        reference=reference,
    )


def _generate(dataset: Any, source: GymSource) -> Iterator[Row]:
    revision = f"reasoning-gym {version('reasoning-gym')}"
    for i in range(source.size):
        row_id = f"{source.task}:{source.seed}:{i}"
        body, defect = None, ""
        try:
            body = dataset[i]
        except GYM_ERRORS as error:
            defect = f"the generator failed: {type(error).__name__}: {error}"
        yield Row(i + 1, row_id, row_id, "", body, defect, revision)


def _create(source: GymSource, label: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of cellpylib, when it is compiled for the first time
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    if source.task not in DATASETS:
        raise SourceError(
            f"{label}.task={source.task!r}: reasoning-gym has no such task; {nearest(source.task, DATASETS)}"
            f"there are: {', '.join(sorted(DATASETS))}"
        )
    allowed = [item.name for item in fields(DATASETS[source.task][1]) if item.name not in ("seed", "size")]
    for key, value in source.config.items():
        if key not in allowed:
            raise SourceError(
                f"{label}.config.{key}={value!r}: {source.task} has no such setting; {nearest(key, allowed)}"
                f"there are: {', '.join(allowed)}"
            )
    try:
        return reasoning_gym.create_dataset(source.task, size=source.size, seed=source.seed, **source.config)
    except GYM_ERRORS as error:
        raise SourceError(
            f"{label}.config={source.config!r}: {source.task} does not take these settings: {error}; change them"
        ) from error


def _domain(task: str) -> Domain:
    from reasoning_gym.factory import DATASETS

    folder = DATASETS[task][0].__module__.split(".")[1]
    return Domain.MATH if folder in MATH_FOLDERS or task in MATH_TASKS else Domain.LOGIC
