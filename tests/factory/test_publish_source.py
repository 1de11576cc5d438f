"""Which tables are published: those that follow from what the run holds now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.build import build_tables
from factory.committer import Committer
from factory.publish_source import current_tables
from factory.tables import origin_path
from schemas.config import SelectConfig
from schemas.errors import ConfigError
from schemas.problem import Answer
from schemas.verdict import Outcome
from tests.runs import freeze, make_problem, make_trace, make_verdict
from tests.selections import write_run

SELECTIONS = ("default", "short")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of two attempts at each of three problems, with two selections."""
    path = write_run(tmp_path / "run")
    build_tables(path, SelectConfig(name="short", rule="shortest_correct"))
    return path


def tables(run: Path, selection: str = "default") -> dict[str, Any]:
    body: dict[str, Any] = json.loads((run / "tables" / selection / "manifest.json").read_text())
    return body


def rebuilt(run: Path, selection: str = "default") -> bool:
    """Return whether tables were built again to be published."""
    said: list[str] = []
    current_tables(run, selection, run, said.append)
    assert len(said) <= 1
    return bool(said)


def resume(run: Path) -> Committer:
    return Committer(run, verifiers="v1")


def test_tables_of_what_the_run_holds_are_not_built_again(run):
    assert not any(rebuilt(run, name) for name in SELECTIONS)
    resume(run)  # a commit, and nothing new
    assert not any(rebuilt(run, name) for name in SELECTIONS)


def test_a_repaired_reference_leaves_no_old_verdict_in_any_selection(run):
    problem = make_problem(0)
    repaired = replace(problem, reference=Answer(text="another"))
    assert repaired.problem_id == problem.problem_id
    committer = resume(run)
    assert freeze(committer, [repaired], num_samples=2, config=committer.manifest.config) == 1
    assert [rebuilt(run, name) for name in SELECTIONS] == [True, True]  # killed before it judged them
    assert [tables(run, name)["counts"]["waiting"] for name in SELECTIONS] == [2, 2]
    traces = [make_trace(problem.problem_id, attempt) for attempt in range(2)]
    committer.commit(judged=[make_verdict(trace, repaired, Outcome.WRONG_ANSWER) for trace in traces])
    build_tables(run)  # of the job's selection, as a run does at its end
    assert [rebuilt(run, name) for name in SELECTIONS] == [False, True]
    for name in SELECTIONS:
        counts = tables(run, name)["counts"]
        assert (counts["waiting"], counts["outcomes"]) == (0, {"correct": 2, "wrong_answer": 4})
    assert tables(run, "short")["selection"]["rule"] == "shortest_correct"


def test_a_repaired_reference_that_was_judged_before_anybody_looked_is_noticed_too(run):
    """All counts agree with the tables' then."""
    repaired = replace(make_problem(0), reference=Answer(text="another"))
    committer = resume(run)
    freeze(committer, [repaired], num_samples=2, config=committer.manifest.config)
    traces = [make_trace(repaired.problem_id, attempt) for attempt in range(2)]
    outcomes = (Outcome.WRONG_ANSWER, Outcome.CORRECT)
    committer.commit(judged=[make_verdict(t, repaired, outcome) for t, outcome in zip(traces, outcomes, strict=True)])
    before = tables(run)["counts"]
    assert rebuilt(run)
    assert tables(run)["counts"] == before
    assert not rebuilt(run)


def test_tables_that_older_rules_selected_are_built_again(run, monkeypatch):
    monkeypatch.setattr("factory.selection.SELECTION_VERSION", "another")
    assert rebuilt(run)
    assert not rebuilt(run)


def test_tables_that_nobody_noted_the_origin_of_are_built_again_by_their_own_config(run):
    note = Path(str(origin_path(run / "tables", "short")))
    for body in (None, "", "{}", '{"tables_sha256": "0", "state": null}'):
        note.unlink()
        if body is not None:
            note.write_text(body)
        assert rebuilt(run, "short")
        assert not rebuilt(run, "short")
    assert tables(run, "short")["selection"]["rule"] == "shortest_correct"


def test_tables_whose_manifest_was_changed_are_built_again_or_named(run, tmp_path):
    path = run / "tables" / "default" / "manifest.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "counts": {}}))
    assert rebuilt(run)
    assert tables(run) == body
    for changed, words in (({"selection": None}, "lacks selection"), ({"selection": {"rule": "x"}}, "rule")):
        path.write_text(json.dumps({**body, **changed}))
        with pytest.raises(ConfigError, match=words):
            current_tables(run, "default", tmp_path, print)


def test_what_tables_were_built_from_is_noted_beside_them_not_in_them(run):
    """The same rows from other shards are the same bytes."""
    assert "state" not in tables(run)
    names = sorted(path.name for path in (run / "tables" / "default").iterdir() if path.is_file())
    assert names == ["manifest.json"]
