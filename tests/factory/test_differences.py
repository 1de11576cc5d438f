"""Differences of selections: every decision of both sides is accounted for once, read from tables on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from factory.derived import judged_groups
from factory.differences import Change, Standing, compare, compare_settings, merge
from factory.light import LIGHT_COLUMNS, Likeness, compare_texts
from factory.selection import Candidate, choose
from schemas.config import SelectConfig
from schemas.errors import ConfigError, StoreError
from schemas.tables import TABLES_VERSION
from tests.candidates import configs, correct, grouped, many, wrong


def standings(found: list[Candidate], config: SelectConfig) -> list[Standing]:
    words = [
        Standing(group[0].problem_id, d.trace_id, d.reason or "accepted")
        for group in grouped(found)
        for d in choose(group, config)
    ]
    return sorted(words)


@given(many, many, configs(bounded=False), configs(bounded=False))
def test_every_decision_of_both_sides_is_in_one_change(found_a, found_b, config_a, config_b):
    a, b = standings(found_a, config_a), standings(found_b, config_b)
    changes = list(merge(a, b))
    assert [Standing(c.problem_id, c.trace_id, c.before) for c in changes if c.before != "absent"] == a
    assert [Standing(c.problem_id, c.trace_id, c.after) for c in changes if c.after != "absent"] == b
    keys = [change[:2] for change in changes]
    assert keys == sorted(set(keys))
    kinds = Counter(change.kind for change in changes)
    in_both = sum(change.kind == "same" and change.after == "accepted" for change in changes)
    assert in_both + kinds["left"] == sum(one.word == "accepted" for one in a)
    assert in_both + kinds["entered"] == sum(one.word == "accepted" for one in b)
    assert {(c.problem_id, c.trace_id, c.after, c.before) for c in changes} == set(map(tuple, merge(b, a)))


KINDS = {"sample_index": pa.int32(), "num_completion_tokens": pa.int32(), "is_correct": pa.bool_()}
LIGHT = pa.schema([(name, KINDS.get(name, pa.string())) for name in LIGHT_COLUMNS])
TABLE = pa.schema([*LIGHT, ("is_accepted", pa.bool_()), ("reject_reason", pa.string()), ("text", pa.string())])


def _light(candidate: Candidate) -> dict[str, object]:
    return {name: getattr(candidate, name) for name in LIGHT_COLUMNS}


def write_selection(folder: Path, groups: Sequence[list[Candidate]], config: SelectConfig) -> Path:
    """Write what a comparison reads: the sorted table of candidates, in files of two rows, and a manifest."""
    rows = []
    for group in groups:
        decisions = {d.trace_id: d for d in choose(group, config)}
        for c in group:
            row = {**_light(c), "is_accepted": None, "reject_reason": None, "text": "x"}
            if (d := decisions.get(c.trace_id)) is not None:
                row |= {"is_accepted": d.is_accepted, "reject_reason": d.reason}
            rows.append(row)
    rows.sort(key=lambda row: (row["problem_id"], row["trace_id"]))
    (folder / "candidates").mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), 2)):
        table = pa.Table.from_pylist(rows[start : start + 2], schema=TABLE)
        pq.write_table(table, folder / "candidates" / f"train-{number:05d}-of-00009.parquet")
    body = {
        "version": TABLES_VERSION,
        "selection": config.model_dump(mode="json"),
        **{"selection_digest": "s", "verdict_digest": "v", "fingerprint": "f", "num_first": 1, "pyarrow": "1"},
        **{"configs": {}, "files": []},
    }
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


GROUPS = [
    [correct("a", problem_id="p", tokens=9), correct("b", problem_id="p", tokens=5), wrong("c", problem_id="p")],
    [correct("d", problem_id="q"), wrong("e", problem_id="q")._replace(outcome="unjudged", reason="worker_died")],
]


def test_two_folders_say_what_left_and_why_and_what_in_their_settings_differs(tmp_path):
    a = write_selection(tmp_path / "a", GROUPS, SelectConfig())
    b = write_selection(tmp_path / "b", GROUPS, SelectConfig(name="b", rule="shortest_correct", quotas={"total": 9}))
    assert compare_settings(a, b) == {
        "select.rule": ("all_correct", "shortest_correct"),
        "select.quotas.total": (None, 9),
    }
    assert list(compare(a, b)) == [
        Change("p", "a", "accepted", "not_chosen"),
        Change("p", "b", "accepted", "accepted"),
        Change("p", "c", "value_differs", "value_differs"),
        Change("q", "d", "accepted", "accepted"),
    ]
    assert [change.kind for change in compare(b, a)] == ["entered", "same", "same", "same"]


def test_what_is_no_selection_is_not_sorted_or_cannot_be_read_is_named(tmp_path):
    good = write_selection(tmp_path / "good", GROUPS, SelectConfig())
    with pytest.raises(ConfigError, match=r"none: holds no manifest\.json"):
        compare_settings(good, tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none: holds no candidates/train"):
        compare(good, tmp_path / "none")
    other = tmp_path / "other" / "manifest.json"
    other.parent.mkdir()
    for body in ('{"version": 1, "kind": "export"}', f'{{"version": {TABLES_VERSION}}}', "[]", "{"):
        other.write_text(body)
        with pytest.raises(ConfigError, match=r"other/manifest\.json: (is no manifest of tables|cannot be read)"):
            compare_settings(good, other.parent)
    files = sorted((good / "candidates").iterdir())
    files[0].rename(files[1].with_name("train-00007-of-00009.parquet"))
    with pytest.raises(StoreError, match="is not in the order of problem_id and trace_id"):
        list(compare(good, good))
    files[1].write_bytes(b"PAR1 is not enough")
    with pytest.raises(StoreError, match="no readable table of candidates"):
        list(compare(good, good))


# Light columns.


@given(many)
def test_groups_come_back_from_a_table_without_those_that_wait_for_a_verdict(found):
    found = sorted((c._replace(like=None) for c in found), key=lambda c: c.problem_id)
    waiting = {**correct("waiting", problem_id="s")._asdict(), "outcome": None, "is_correct": None}
    rows = [*map(_light, found), {name: waiting[name] for name in LIGHT_COLUMNS}]
    table = pa.Table.from_pylist(rows, schema=LIGHT)
    assert judged_groups(table, SelectConfig()) == [*grouped(found), []]


TEXTS = pa.table(
    {
        "problem_id": ["p", "p", "p", "q"],
        "trace_id": ["a", "b", "c", "d"],
        "outcome": ["correct", "correct", "wrong_answer", "correct"],
        "text": ["one two three four five six seven", "one two three four five six seven eight", "x", "y"],
    }
)


def test_texts_are_compared_where_a_config_asks_for_it_and_only_those_of_correct_traces():
    assert compare_texts(TEXTS.drop_columns(["text"]), SelectConfig()) == Likeness()
    assert compare_texts(TEXTS, SelectConfig(near_duplicates=0.3)).like == {"b": "a"}
    found = compare_texts(TEXTS, SelectConfig(rule="k_diverse"))
    assert (found.like, found.signatures.keys()) == ({}, {"a", "b", "d"})
    shares = [np.frombuffer(found.signatures[name], np.uint32) for name in "ab"]
    assert (shares[0] == shares[1]).mean() == pytest.approx(0.75, abs=0.15)  # 3 shingles of 4
