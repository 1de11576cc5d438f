"""Cleaning on the way in: what is kept aside, why, and that the counts hold."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from factory.build import build_tables
from factory.clean import CLEANED, Cleaner, clean_problems, make_cleaner, read_cleaning
from factory.page import build_page
from factory.plan import Plan, make_plan
from factory.sources import Loaded, load_problems, sources_state
from factory.store import RunFolder
from jobs.bench.edits import edited
from jobs.freezing import freeze
from schemas.config import CleanConfig, Columns, FileSource, GymSource, load_config
from schemas.errors import ConfigError, SourceError
from schemas.problem import QuarantineReason
from tests.runs import write_job

MADE = Path(__file__).parents[1] / "data" / "benchmark_made.jsonl"
ROWS = [
    row for line in MADE.read_text(encoding="utf-8").splitlines() if (row := json.loads(line))["answer"] is not None
]
AGAINST_MADE = CleanConfig(against=(str(MADE),))


def source(path: Path, rows: list[dict[str, Any]], **options: Any) -> FileSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(problem="problem", answer="answer")
    return FileSource(kind="jsonl", path=str(path), columns=columns, **options)


def load(cleaner: Cleaner | None, *sources: Any, most: int | None = None) -> Loaded:
    return load_problems(sources, max_problems=most, cleaner=cleaner)


def reasons(loaded: Loaded) -> list[str]:
    return [str(row.reason) for row in loaded.quarantined]


def others(count: int) -> list[dict[str, Any]]:
    question = "A farm has {} goats and twice as many hens. How many legs are there?"
    return [{"problem": question.format(n), "answer": str(8 * n)} for n in range(1, count + 1)]


def test_copies_of_benchmark_items_are_kept_aside_with_their_evidence(tmp_path: Path) -> None:
    rng = random.Random(1)
    copies = [{**row, "problem": edited(row["problem"], rng)[0]} for row in ROWS]
    loaded = load(make_cleaner(AGAINST_MADE), source(tmp_path / "a.jsonl", copies + others(9)))
    assert len(loaded.problems) == 9
    assert set(reasons(loaded)) == {"contaminated"}
    assert [row.evidence.item for row in loaded.quarantined if row.evidence] == [row["id"] for row in ROWS]
    (count,) = loaded.counts
    assert count.rows == count.problems + sum(count.quarantined.values())
    assert loaded.quarantined[0].problem_id is not None


def test_what_was_kept_aside_does_not_count_towards_the_problems_asked_for(tmp_path: Path) -> None:
    loaded = load(make_cleaner(AGAINST_MADE), source(tmp_path / "a.jsonl", ROWS + others(9)), most=9)
    assert len(loaded.problems) == 9


def test_problems_that_differ_in_numbers_are_all_kept(tmp_path: Path) -> None:
    loaded = load(make_cleaner(CleanConfig()), source(tmp_path / "a.jsonl", others(200)))
    assert len(loaded.problems) == 200


def test_one_of_near_copies_is_kept_and_another_takes_the_place_of_the_rest(tmp_path: Path) -> None:
    text = ROWS[8]["problem"]
    text += " It held nothing before, and nobody took anything from it, not even at the end of it all."
    copies = [{"problem": copy, "answer": "21"} for copy in (text, text.replace("Tarek", "Jonas"), f"{text} Please.")]
    cleaner = make_cleaner(CleanConfig(against=()))
    loaded = load(cleaner, source(tmp_path / "a.jsonl", copies + others(3)), most=4)
    assert len(loaded.problems) == 4
    assert reasons(loaded) == ["near_duplicate", "near_duplicate"]
    assert {row.evidence.item for row in loaded.quarantined if row.evidence} == {loaded.problems[0].problem_id}
    (count,) = loaded.counts
    assert count.rows == count.problems + sum(count.quarantined.values()) == 6


def test_near_copies_with_another_reference_are_kept(tmp_path: Path) -> None:
    row = {"problem": ROWS[8]["problem"], "answer": "21"}
    copies = [row, {"problem": row["problem"].replace("slowest", "fastest"), "answer": "24"}]
    assert len(load(make_cleaner(CleanConfig(against=())), source(tmp_path / "a.jsonl", copies)).problems) == 2


def test_one_statement_set_two_ways_with_two_references_is_a_conflict(tmp_path: Path) -> None:
    rows = [
        {"problem": "Find $\\frac{x}{2}$ if $x = 8$.", "answer": "4"},
        {"problem": "Find \\(\\dfrac{x}{2}\\)  if $x=8$.", "answer": "5"},
        {"problem": "Find $\\frac{y}{2}$ if $y = 1$.", "answer": "1/2"},
        {"problem": "Find \\(\\dfrac{y}{2}\\) if $y = 1$.", "answer": "0.5"},
    ]
    loaded = load(make_cleaner(CleanConfig(against=())), source(tmp_path / "a.jsonl", rows))
    assert reasons(loaded) == ["conflicting_references", "conflicting_references", "duplicate"]
    assert [problem.source_row_id for problem in loaded.problems] == ["3"]


def test_broken_statements_are_kept_aside_and_may_be_let_in(tmp_path: Path) -> None:
    rows = [{"problem": "In the figure below, find the length of the", "answer": "3"}, *others(2)]
    broken = source(tmp_path / "a.jsonl", rows)
    assert reasons(load(make_cleaner(CleanConfig()), broken)) == ["truncated_statement"]
    assert reasons(load(make_cleaner(CleanConfig(audit=False)), broken)) == []


def test_generated_problems_are_not_compared_with_one_another() -> None:
    gym = GymSource(kind="reasoning_gym", task="leg_counting", size=40, seed=7)
    assert len(load(make_cleaner(CleanConfig()), gym).problems) == len(load(None, gym).problems)


def test_all_of_it_can_be_switched_off(tmp_path: Path) -> None:
    off = make_cleaner(CleanConfig(against=(), near_duplicates=None, audit=False))
    rows = [*ROWS, {"problem": "As shown in the figure", "answer": "1"}]
    assert reasons(load(off, source(tmp_path / "a.jsonl", rows))) == []


def test_other_benchmarks_or_rules_have_the_sources_read_again(tmp_path: Path) -> None:
    found = [source(tmp_path / "a.jsonl", others(1))]
    some = [CleanConfig(against=()), CleanConfig(rules="open-r1"), CleanConfig(audit=False), AGAINST_MADE]
    configs = [CleanConfig(), *some]
    assert len({sources_state(found, make_cleaner(config)) for config in configs}) == len(configs)
    assert sources_state(found, make_cleaner(CleanConfig())) == sources_state(found, make_cleaner(CleanConfig()))


def test_a_run_on_a_benchmark_says_how_it_is_meant(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"set schedule\.clean\.against to an empty list"):
        load(make_cleaner(AGAINST_MADE), source(tmp_path / "a.jsonl", ROWS))


def test_an_unknown_benchmark_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.clean\.against: 'aime' is neither a file"):
        make_cleaner(CleanConfig(against=("aime",)))


def test_what_is_imported_is_cleaned_the_same_way(tmp_path: Path) -> None:
    problems = load(None, source(tmp_path / "a.jsonl", ROWS + others(3))).problems
    kept, aside = clean_problems([*problems, problems[-1]], make_cleaner(AGAINST_MADE))
    assert [problem.source_row_id for problem in kept] == [str(len(ROWS) + n) for n in (1, 2, 3)]
    reasons_aside = [error.reason for _, error in aside]
    assert reasons_aside == [*[QuarantineReason.CONTAMINATED] * len(ROWS), QuarantineReason.DUPLICATE]


def planned(folder: Path, extra: FileSource, clean: CleanConfig) -> Plan:
    """Return the plan of a job with one more source, and make the folder that a run's lock would make."""
    config = load_config(write_job(folder, num_problems=3))
    schedule = config.schedule.model_copy(update={"clean": clean})
    (folder / "run").mkdir(exist_ok=True)
    return make_plan(config.model_copy(update={"sources": (*config.sources, extra), "schedule": schedule}), {})


def test_a_run_says_what_it_was_cleaned_of_and_what_was_kept_aside(tmp_path: Path) -> None:
    extra = source(tmp_path / "more.jsonl", [*ROWS, {"problem": "In the figure, find $x$.", "answer": "1"}])
    plan = planned(tmp_path, extra, CleanConfig(against=("shipped", str(MADE))))
    path = tmp_path / "run"
    warnings: list[str] = []
    freeze(plan, path, warnings.append)
    found = read_cleaning(path)
    assert [benchmark.name for benchmark in found.covered][-1] == "benchmark_made"
    assert "aime-2025" in found.not_covered
    assert found.dropped == {"contaminated": len(ROWS), "missing_figure": 1}
    assert list(found.dropped_for.values()) == [len(ROWS)]
    assert {row.reason for row in found.evidence} <= CLEANED
    before = RunFolder(path).run_yaml()["clean"]
    freeze(plan, path, warnings.append)  # nothing has changed: nothing is read again, and the record stays
    assert RunFolder(path).run_yaml()["clean"] == before
    assert warnings == []


def test_what_is_let_in_later_is_no_longer_said_to_be_kept_aside(tmp_path: Path) -> None:
    extra = source(tmp_path / "more.jsonl", ROWS)
    freeze(planned(tmp_path, extra, AGAINST_MADE), tmp_path / "run", lambda text: None)
    freeze(planned(tmp_path, extra, CleanConfig(against=())), tmp_path / "run", lambda text: None)
    found = read_cleaning(tmp_path / "run")
    assert (found.covered, found.dropped, found.evidence) == ((), {}, ())


def test_problems_that_a_run_holds_from_before_are_named_when_they_would_be_kept_aside(tmp_path: Path) -> None:
    extra = source(tmp_path / "more.jsonl", ROWS)
    warnings: list[str] = []
    freeze(planned(tmp_path, extra, CleanConfig()), tmp_path / "run", warnings.append)
    assert warnings == []
    freeze(planned(tmp_path, extra, AGAINST_MADE), tmp_path / "run", warnings.append)
    assert f"{len(ROWS)} problems that the run holds from before would be kept aside today" in warnings[0]


def test_the_report_says_what_was_kept_aside_for_what_and_what_was_not_looked_for(tmp_path: Path) -> None:
    plan = planned(tmp_path, source(tmp_path / "more.jsonl", ROWS), CleanConfig(against=(str(MADE),)))
    freeze(plan, tmp_path / "run", lambda text: None)
    build_tables(tmp_path / "run")
    page = build_page(tmp_path / "run")
    section = page[page.index('<h2 id="cleaning">') : page.index('<h2 id="readability">')]
    assert "Not looked for:</strong> aime-2024, aime-2025" in section
    assert all(row["id"] in section for row in ROWS)
    assert "same_text" in section
