"""Cleaning: which problems are kept aside before a token is spent on them, and the record of what was looked for.

Part of the first step of the flow: `sources` asks for each problem, and once for all of them. Puts together
`decontaminate`, `audit` and `duplicates` by the job's settings (``schedule.clean``). Invariants: a problem that is kept
aside has one reason, with evidence; the record says which benchmarks were looked for, in which version, and which known
ones were not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash

from factory.audit import AUDIT_VERSION, find_defect
from factory.benchmarks import load_benchmarks
from factory.decontaminate import RULES_VERSION, Protection, RuleSet
from factory.duplicates import Sign, find_duplicates, sign_here
from factory.fingerprints import Benchmark, not_covered
from factory.rows import RowError
from factory.storage import AnyPath
from factory.store import RunFolder
from schemas.arrow import quarantine_from_table
from schemas.config import CleanConfig
from schemas.manifest import Manifest
from schemas.problem import Answer, Domain, Evidence, Problem, Quarantined, QuarantineReason, Reference, digest
from verifiers.math import compare_exactly

# LaTeX that changes how a formula looks and never what it says.
_LOOKS: Final = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])|\\[,;:!> ]|\\[()\[\]]|\$|~"
)
_FRACTION: Final = re.compile(r"\\[dtc]frac(?![a-zA-Z])")


class NearDuplicate(NamedTuple):
    """A problem that is nearly the same as an earlier one, which stands for it."""

    problem: Problem
    representative: Problem
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaner:
    """What a job's problems are cleaned of."""

    protection: Protection
    near_duplicates: float | None
    is_audited: bool

    @property
    def state(self) -> str:
        """A digest that changes when other problems might be kept aside."""
        return digest(["cleaner", RULES_VERSION, AUDIT_VERSION, self.record()])

    def record(self) -> dict[str, Any]:
        """Return what is looked for, for the run's folder: benchmarks with versions, those not covered, settings."""
        covered = self.protection.benchmarks
        return {
            "benchmarks": [asdict(benchmark) for benchmark in covered],
            "not_covered": not_covered(covered),
            "rules": str(self.protection.rules),
            "near_duplicates": self.near_duplicates,
            "audit": self.is_audited,
        }

    def find_defect(self, problem: Problem, *, is_generated: bool = False) -> RowError | None:
        """Return why a problem is to be kept aside; None for a good one. Any text gets an answer."""
        if self.protection.benchmarks:
            text = "\n".join(message.content for message in problem.messages)
            if (match := self.protection.find(text)) is not None:
                evidence = Evidence(
                    of=f"{match.benchmark} ({match.version})",
                    item=match.item_id,
                    rule=str(match.rule),
                    share=match.containment,
                )
                return RowError(QuarantineReason.CONTAMINATED, f"is or quotes {match}", evidence)
        if self.is_audited and not is_generated and (defect := find_defect(problem)) is not None:
            return RowError(defect.reason, defect.detail)
        return None

    def spelling(self, problem: Problem) -> int | None:
        """Return a hash that is the same for a statement however it is set; None where setting may matter."""
        if self.near_duplicates is None or problem.domain is Domain.CODE:
            return None
        text = "\0".join(f"{message.role}\1{_without_looks(message.content)}" for message in problem.messages)
        bare = f"{problem.domain}\2" + "".join(text.split()).rstrip(".")
        return xxhash.xxh3_64_intdigest(bare.encode("utf-8", "surrogatepass"))

    def find_near_duplicates(self, problems: Sequence[Problem], sign_batches: Sign = sign_here) -> list[NearDuplicate]:
        """Return the problems that are nearly the same as an earlier one: the words, with the same numbers and
        operators in the same order, and the same reference."""
        if self.near_duplicates is None:
            return []
        texts = [" ".join(_without_looks(message.content) for message in problem.messages) for problem in problems]
        keys = np.array([_reference_key(problem) for problem in problems], np.uint64)
        found = find_duplicates(
            texts, threshold=self.near_duplicates, same_numbers=True, keys=keys, sign_batches=sign_batches
        )
        return [
            NearDuplicate(problems[row["row"]], problems[row["representative"]], round(row["similarity"], 4))
            for row in found.to_pylist()
        ]


def make_cleaner(config: CleanConfig) -> Cleaner:
    """Return the cleaner of a job.

    Raises:
        ConfigError: If a benchmark cannot be read; names it and those that there are.
    """
    fingerprints = load_benchmarks(config.against, "schedule.clean.against")
    return Cleaner(
        protection=Protection(fingerprints, RuleSet(config.rules)),
        near_duplicates=config.near_duplicates,
        is_audited=config.audit,
    )


def clean_problems(
    problems: Iterable[Problem], cleaner: Cleaner
) -> tuple[list[Problem], list[tuple[Problem, RowError]]]:
    """Return the problems that are good, and the others with why each is kept aside: for what is imported."""
    kept: dict[str, Problem] = {}
    aside: list[tuple[Problem, RowError]] = []
    for problem in problems:
        error = cleaner.find_defect(problem)
        if error is None and problem.problem_id in kept:
            error = RowError(QuarantineReason.DUPLICATE, "the same problem came before")
        if error is None:
            kept[problem.problem_id] = problem
        else:
            aside.append((problem, error))
    for near in cleaner.find_near_duplicates(list(kept.values())):
        del kept[near.problem.problem_id]
        evidence = Evidence(of="problems", item=near.representative.problem_id, rule="jaccard", share=near.similarity)
        aside.append((near.problem, RowError(QuarantineReason.NEAR_DUPLICATE, "nearly the same problem", evidence)))
    return list(kept.values()), aside


def agree(one: Reference | None, other: Reference | None) -> bool:
    """Return whether two references say the same, or cannot be told apart for sure."""
    if one == other:
        return True
    if not isinstance(one, Answer) or not isinstance(other, Answer):
        return False
    finding = compare_exactly(one.text, other)
    return finding is None or finding.reason is None


def _without_looks(text: str) -> str:
    return _FRACTION.sub(r"\\frac", _LOOKS.sub(" ", text)) if "\\" in text or "$" in text or "~" in text else text


def _reference_key(problem: Problem) -> int:
    reference = problem.reference
    if isinstance(reference, Answer):
        said = "".join(_without_looks(reference.text).split())
    else:
        said = problem.reference_hash or ""
    return xxhash.xxh3_64_intdigest(f"{problem.domain}\0{said}".encode("utf-8", "surrogatepass"))


CLEANED: Final = frozenset(  # reasons that cleaning gives
    {
        QuarantineReason.CONTAMINATED,
        QuarantineReason.NEAR_DUPLICATE,
        QuarantineReason.UNPARSED_REFERENCE,
        QuarantineReason.MISSING_FIGURE,
        QuarantineReason.NO_FINAL_ANSWER,
        QuarantineReason.SEVERAL_QUESTIONS,
        QuarantineReason.TRUNCATED_STATEMENT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningRecord:
    """What a run's problems were cleaned of, and what was kept aside: what a report and a dataset's card say."""

    covered: tuple[Benchmark, ...]
    not_covered: tuple[str, ...]  # known benchmarks that were not looked for
    rules: str | None  # null: the run was made before there was cleaning
    near_duplicates: float | None
    is_audited: bool
    dropped: Mapping[str, int]  # rows of the sources by reason, of all reasons
    dropped_for: Mapping[str, int]  # of the contaminated: problems by benchmark
    evidence: tuple[Quarantined, ...]  # the rows with evidence, and those of the audit


def read_cleaning(path: AnyPath) -> CleaningRecord:
    """Return what the card of a run says of its cleaning; counted from the run's folder.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = RunFolder(path)
    return cleaning_of(folder, folder.manifest())


def cleaning_of(folder: RunFolder, manifest: Manifest) -> CleaningRecord:
    """Return what the card of a run says of its cleaning, as one manifest has it."""
    record: Mapping[str, Any] = folder.run_yaml().get("clean") or {}
    rows = [
        row for table in folder.tables_of("quarantine", manifest.quarantine) for row in quarantine_from_table(table)
    ]
    covered = tuple(Benchmark(**body) for body in record.get("benchmarks", ()))
    return CleaningRecord(
        covered=covered,
        not_covered=tuple(record.get("not_covered", not_covered(()))),
        rules=record.get("rules"),
        near_duplicates=record.get("near_duplicates"),
        is_audited=record.get("audit", False),
        dropped=dict(Counter(str(row.reason) for row in rows).most_common()),
        dropped_for=dict(
            Counter(
                row.evidence.of
                for row in rows
                if row.reason is QuarantineReason.CONTAMINATED and row.evidence is not None
            ).most_common()
        ),
        evidence=tuple(row for row in rows if row.reason in CLEANED),
    )
