"""Recorded error rates of verifiers: counted once, replaced by newer ones, and of the cases that are here."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from factory.measured import (
    PARTS,
    SHIPPED,
    Errors,
    Measurement,
    add_measurement,
    count_errors,
    differences,
    read_measurements,
)
from jobs.cli import app
from schemas.errors import ConfigError
from verifiers import verifier_versions

DATA = Path(__file__).parents[1] / "data"


def test_the_shipped_rates_are_of_the_cases_that_are_here() -> None:
    found = read_measurements(SHIPPED)
    assert {one.verifier for one in found} == {"math", "code", "readability"}
    for one in found:
        assert one.cases_sha256 == hashlib.sha256((DATA / one.cases).read_bytes()).hexdigest(), one.cases
        assert set(one.versions) == set(PARTS[one.verifier]) <= set(verifier_versions())
        assert one.note
        assert re.fullmatch(r"[0-9a-f]{40}", one.commit)


cases = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.none() | st.booleans()), max_size=20)


@given(cases)
def test_every_case_is_counted_once(found: list[tuple[str, bool, bool | None]]) -> None:
    errors = count_errors(found)
    assert errors.num_right + errors.num_wrong == len(found)
    assert errors.num_unjudged == sum(word is None for _, _, word in found)
    assert errors.num_rejected + errors.num_accepted == sum(errors.weak.values())
    assert errors.num_accepted == sum(bool(word) and not is_right for _, is_right, word in found)


def test_measurements_come_back_and_replace_those_of_the_same_cases(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    assert read_measurements(path) == []
    errors = Errors(num_right=3, num_rejected=1, num_wrong=2, num_accepted=0, num_unjudged=0, weak={"a": 1})
    versions = dict.fromkeys(PARTS["math"], "1")
    one = Measurement(
        verifier="math",
        cases="a.jsonl",
        cases_sha256="0",
        errors=errors,
        versions=versions,
        command="factory bench math",
        commit="c",
        date="2026-01-01",
    )
    for found in (one, replace(one, cases="b.jsonl"), replace(one, date="2026-01-02")):
        add_measurement(path, found)
    assert read_measurements(path) == [replace(one, date="2026-01-02"), replace(one, cases="b.jsonl")]
    assert differences(one, versions) == []
    assert differences(one, {**versions, "extract": "2"}) == ["extract 2 (measured: 1)"]
    path.write_text("{}")
    with pytest.raises(ConfigError, match="holds no measurements"):
        read_measurements(path)


def test_a_benchmark_records_its_error_rates(tmp_path: Path) -> None:
    rows = [
        {"gold": "4", "prediction": "\\boxed{4}", "expected": True, "category": "plain"},
        {"gold": "4", "prediction": "\\boxed{5}", "expected": True, "category": "mislabelled"},
        {"reference": "4", "completion": "\\boxed{5}", "is_correct": False, "origin": "made"},
    ]
    file, out = tmp_path / "cases.jsonl", tmp_path / "measured.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["bench", "math", "--cases", str(file), "--rounds", "1", "--out", str(out), "--note", "made up"]
    assert CliRunner().invoke(app, command).exit_code == 0
    (found,) = read_measurements(out)
    assert found.errors == Errors(
        num_right=2, num_rejected=1, num_wrong=1, num_accepted=0, num_unjudged=0, weak={"mislabelled": 1}
    )
    assert (found.cases, found.note) == ("cases.jsonl", "made up")
    assert found.versions == {name: verifier_versions()[name] for name in PARTS["math"]}
