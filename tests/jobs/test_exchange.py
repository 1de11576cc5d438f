"""Import and export without judging between them: what is stored, what is set aside, and that it happens once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from factory.importing import find_files, find_format, hash_files, job_body
from factory.plan import Plan, make_plan
from factory.store import RunFolder
from jobs.bench.drill import committed_traces
from jobs.importer import import_run
from schemas.arrow import quarantine_from_table
from schemas.config import override_config, parse_config
from schemas.errors import ConfigError, FingerprintError, SourceError
from schemas.problem import Quarantined
from schemas.trace import Trace
from tests import tracesets
from tests.jobs.test_cli import factory

NO_CLEANING = ("schedule.clean.near_duplicates=null", "schedule.clean.audit=false", "schedule.clean.against=[]")


def plan_of(files: Sequence[Path], *overrides: str, teacher: str = "unknown") -> tuple[Plan, str]:
    """Return the plan that `factory import` makes of files, and their format."""
    paths = find_files([str(file) for file in files])
    found = find_format(paths, "auto")
    body = job_body(
        paths,
        found,
        name="run",
        teacher=teacher,
        revision=hash_files(paths, lambda _: None),
        source=None,
        license_name=None,
    )
    return make_plan(parse_config(override_config(body, overrides), origin="test"), {}), found


def quietly(what: str) -> Any:
    @contextmanager
    def counting() -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    return counting()


def imported(run: Path, files: Sequence[Path], *overrides: str, counting: Any = quietly, **more: Any) -> list[str]:
    """Import files without judging; return what was warned of."""
    told: list[str] = []
    plan, found = plan_of(files, *overrides, **more)
    import_run(plan, found, run, counting, told.append)
    return told


def attempts(run: Path) -> dict[tuple[str, int], Trace]:
    """Return the stored traces by row id of their problem and sample index, each once."""
    folder = RunFolder(run)
    ids = {problem.problem_id: problem.source_row_id for problem, _ in folder.problems(folder.manifest())}
    traces = committed_traces(run)
    found = {(ids[trace.problem_id], trace.sample_index): trace for trace in traces}
    assert len(found) == len(traces)
    return found


def quarantined(run: Path) -> list[Quarantined]:
    folder = RunFolder(run)
    tables = folder.tables_of("quarantine", folder.manifest().quarantine)
    return [row for table in tables for row in quarantine_from_table(table)]


@pytest.fixture
def openr1(tmp_path: Path) -> list[Path]:
    """Return two files: problems with one to three completions, one problem in both files."""
    first = [tracesets.openr1_row(n, *[n + 1, n, n + 1][: 1 + n % 3]) for n in range(12)]
    second = [tracesets.openr1_row(n, n + 1) for n in range(11, 20)]
    return [
        tracesets.write(tmp_path / "a.parquet", first, "openr1_math"),
        tracesets.write(tmp_path / "b.parquet", second, "openr1_math"),
    ]


def test_completions_are_attempts_in_the_order_of_the_files(tmp_path: Path, openr1: list[Path]) -> None:
    run = tmp_path / "run"
    imported(run, openr1, *NO_CLEANING, teacher="deepseek-ai/DeepSeek-R1")
    found = attempts(run)
    expected = {(f"u-{n}", i): text for n in range(12) for i, text in enumerate(_texts(n, 1 + n % 3))}
    expected |= {("u-11", 3): _texts(11, 1)[0]} | {(f"u-{n}", 0): _texts(n, 1)[0] for n in range(12, 20)}
    assert {key: trace.text for key, trace in found.items()} == expected
    assert all(trace.label is (key[1] != 1) for key, trace in found.items())
    assert {trace.teacher for trace in found.values()} == {"deepseek-ai/DeepSeek-R1"}
    assert {trace.num_completion_tokens == len(trace.text.encode()) for trace in found.values()} == {True}
    manifest = RunFolder(run).manifest()
    assert (manifest.num_samples, manifest.counts.generated) == (4, len(expected))
    assert manifest.counts.failed == 20 * 4 - len(expected)
    assert manifest.counts.pending == len(expected), "none is judged yet"
    assert {problem.license for problem, _ in RunFolder(run).problems(manifest)} == {"unknown"}
    revisions = {problem.source_revision for problem, _ in RunFolder(run).problems(manifest)}
    assert revisions == {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in openr1}


def _texts(number: int, count: int) -> list[str]:
    answers = [number + 1, number, number + 1][:count]
    texts: list[str] = tracesets.openr1_row(number, *answers)["generations"]
    return texts


def test_again_changes_nothing(tmp_path: Path, openr1: list[Path]) -> None:
    run = tmp_path / "run"
    imported(run, openr1, *NO_CLEANING)
    before = RunFolder(run).manifest()
    read: list[str] = []

    def counting(what: str) -> Any:
        read.append(what)
        return quietly(what)

    imported(run, reversed(openr1), *NO_CLEANING, counting=counting)  # type: ignore[arg-type]
    after = RunFolder(run).manifest()
    assert (after.traces, after.problems, after.untraced) == (before.traces, before.problems, before.untraced)
    assert read == [], "a run that has all is not read again"


def test_an_import_that_is_interrupted_anywhere_goes_on_and_stores_each_once(tmp_path: Path) -> None:
    rows = [tracesets.openr1_row(n, n + 1, n) for n in range(300)]
    for row in rows:
        row["generations"] = [text + " So it is." * 400 for text in row["generations"]]  # segments of a MiB
    files = [tracesets.write(tmp_path / "a.parquet", rows, "openr1_math", 100)]
    small = (*NO_CLEANING, "store.segment_mb=1")
    whole = tmp_path / "whole"
    imported(whole, files, *small)
    assert len(RunFolder(whole).manifest().traces) == 3
    for stop_at in (0, 1, 2, 3):  # calls of the watch: after 256 rows and the last of each reading
        run, seen = tmp_path / f"run-{stop_at}", Counter[str]()

        def counting(what: str, seen: Counter[str] = seen, stop_at: int = stop_at) -> Any:
            @contextmanager
            def watch() -> Iterator[Callable[[int], None]]:
                def count(done: int) -> None:
                    if seen["calls"] == stop_at:
                        raise KeyboardInterrupt
                    seen["calls"] += 1

                yield count

            return watch()

        with pytest.raises(KeyboardInterrupt):
            imported(run, files, *small, counting=counting)
        imported(run, files, *small)
        assert {k: t.text for k, t in attempts(run).items()} == {k: t.text for k, t in attempts(whole).items()}
        assert not RunFolder(run).leftover_segments()


def test_rows_that_hold_nothing_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = [
        tracesets.synthetic_row(0, 1),
        tracesets.synthetic_row(0, 7),
        tracesets.synthetic_row(1, 2, verification_info="no JSON"),
        tracesets.synthetic_row(2, 3, task_type="llm_judgeable_groundtruth_similarity"),
        tracesets.synthetic_row(3, 4, llm_response=None),
        tracesets.synthetic_row(4, 5, prompt=None),
        tracesets.synthetic_row(5, 6),
        tracesets.synthetic_row(5, 6, verification_info=json.dumps({"ground_truth": "8"})),
        tracesets.synthetic_row(5, 9),
        tracesets.synthetic_row(6, 7, task_type="verifiable_code", verification_info=_tests_in("rust")),
    ]
    run = tmp_path / "run"
    told = imported(run, [tracesets.write(tmp_path / "s.parquet", rows, "synthetic1")], *NO_CLEANING)
    assert {key: trace.label for key, trace in attempts(run).items()} == {("vfm_0", 0): True, ("vfm_0", 1): False}
    found = quarantined(run)
    assert Counter(str(row.reason) for row in found) == {
        "bad_value": 3,
        "unsupported_reference": 2,
        "conflicting_references": 3,
    }
    said = {row.row: row.detail for row in found}
    assert "is not JSON" in said[3]
    assert "judged by a model" in said[4]
    assert "holds no completion" in said[5]
    assert "no verifier can compare" in said[10]
    assert "reference '6', but s.parquet row 8 says '8'" in said[7]
    assert "had a conflict already" in said[9]
    assert len(said) == len(rows) - 2
    assert "quarantined: 3 x bad_value" in told


def _tests_in(language: str) -> str:
    case = {"type": "stdin_stdout", "input": "1", "output": "2"}
    return json.dumps({"language": language, "test_cases": [case]})


def test_problems_are_cleaned_as_those_of_any_run(tmp_path: Path) -> None:
    aime = "Find the number of ordered pairs of positive integers, as is shown in the figure below, with sum 12."
    rows = [tracesets.openmath_row(n, n + 1) for n in range(3)]
    rows += [tracesets.openmath_row(9, 11, problem=aime, expected_answer="11")] * 2
    run = tmp_path / "run"
    imported(run, [tracesets.write(tmp_path / "o.parquet", rows, "openmathreasoning")], "schedule.clean.against=[]")
    (found,) = quarantined(run)
    assert (found.reason, found.row) == ("missing_figure", 4)
    assert "so are 1 more rows" in found.detail
    assert len(attempts(run)) == 3
    assert RunFolder(run).run_yaml()["clean"]["audit"] is True


def test_who_wrote_it_and_how_long_it_is_come_from_the_rows_where_they_say_it(tmp_path: Path) -> None:
    rows = [tracesets.openmath_row(1, 2), tracesets.openmath_row(2, 3, generation_model="n/a")]
    run = tmp_path / "named"
    imported(
        run, [tracesets.write(tmp_path / "o.parquet", rows, "openmathreasoning")], *NO_CLEANING, teacher="somebody"
    )
    assert sorted(trace.teacher for trace in attempts(run).values()) == ["QwQ-32B", "somebody"]
    run = tmp_path / "counted"
    files = [tracesets.write(tmp_path / "m.parquet", [tracesets.mixture_row(4)], "mixture_of_thoughts")]
    imported(run, files, *NO_CLEANING)
    assert [trace.num_completion_tokens for trace in attempts(run).values()] == [104]
    run = tmp_path / "bytes"
    imported(run, files, *NO_CLEANING, "teacher.tokenizer=bytes")
    assert [t.num_completion_tokens == len(t.text.encode()) for t in attempts(run).values()] == [True]


def test_limits_of_the_job_hold(tmp_path: Path, openr1: list[Path]) -> None:
    run = tmp_path / "run"
    told = imported(run, openr1, *NO_CLEANING, "sampling.num_samples=1", "schedule.max_problems=5")
    assert sorted(attempts(run)) == [(f"u-{n}", 0) for n in range(5)]
    assert told == ["4 completions beyond sampling.num_samples=1 are left out"]
    imported(run, openr1, *NO_CLEANING, "sampling.num_samples=3", "schedule.max_problems=5")
    assert len(attempts(run)) == 1 + 2 + 3 + 1 + 2, "a run grows"
    with pytest.raises(ConfigError, match="a run only grows"):
        imported(run, openr1, *NO_CLEANING, "sampling.num_samples=2")


def test_a_problem_beyond_the_limit_stays_out_also_where_a_place_becomes_free(tmp_path: Path) -> None:
    rows = [
        tracesets.synthetic_row(0, 1),
        tracesets.synthetic_row(1, 5),  # beyond the limit: its reference is compared with none
        tracesets.synthetic_row(0, 1, verification_info=json.dumps({"ground_truth": "2"})),  # frees the place
        tracesets.synthetic_row(1, 5, verification_info=json.dumps({"ground_truth": "6"})),
        tracesets.synthetic_row(2, 3),
    ]
    run = tmp_path / "run"
    files = [tracesets.write(tmp_path / "s.parquet", rows, "synthetic1")]
    imported(run, files, *NO_CLEANING, "schedule.max_problems=1")
    assert sorted(attempts(run)) == [("vfm_2", 0)]


def test_other_files_or_another_teacher_are_another_run(tmp_path: Path, openr1: list[Path]) -> None:
    run = tmp_path / "run"
    imported(run, openr1[:1], *NO_CLEANING)
    with pytest.raises(FingerprintError, match=r"teacher\.revision"):
        imported(run, openr1, *NO_CLEANING)
    with pytest.raises(FingerprintError, match=r"teacher\.name"):
        imported(run, openr1[:1], *NO_CLEANING, teacher="another")


def test_where_nothing_is_left_the_first_reason_is_told(tmp_path: Path) -> None:
    rows = [tracesets.openmath_row(n, n + 1, inference_mode="genselect") for n in range(3)]
    with pytest.raises(SourceError, match=r"nothing is left of 3 rows: 3 bad_value; the first: o\.parquet row 1: .*no"):
        imported(tmp_path / "run", [tracesets.write(tmp_path / "o.parquet", rows, "openmathreasoning")])
    empty = tracesets.write(tmp_path / "e.parquet", [], "openmathreasoning")
    with pytest.raises(SourceError, match="nothing is left of 0 rows: no rows"):
        imported(tmp_path / "run", [empty])
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_a_job_of_kind_imported_cannot_be_run(tmp_path: Path, openr1: list[Path]) -> None:
    body = {
        "name": "x",
        "sources": [{"kind": "parquet", "path": str(openr1[0]), "columns": "openr1_math"}],
        "teacher": {"kind": "imported"},
    }
    with pytest.raises(ConfigError, match="factory import"):
        make_plan(parse_config(body, origin="test"), {})


def test_a_run_is_exported_by_the_command(tmp_path: Path, hostile_run: Path) -> None:
    out = tmp_path / "out"
    ended = factory("export", hostile_run, "--format", "axolotl", "--out", out, "--json")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    lines = (out / "sft_train.jsonl").read_text(encoding="utf-8").splitlines()
    table = pq.read_table(hostile_run / "tables/default/sft", columns=["messages"]).to_pylist()
    assert [json.loads(line) for line in lines] == table
    assert next(file for file in body["files"] if file["name"] == "sft_train.jsonl")["rows"] == len(table)
    told = factory("export", hostile_run, "--format", "axolotl", "--out", tmp_path / "other")
    assert "sequence_len" in told.err
    for name in ("README.md", "manifest.json", "sft_train.jsonl"):
        assert (tmp_path / "other" / name).read_bytes() == (out / name).read_bytes()


def test_wrong_use_of_export_and_import_starts_nothing(tmp_path: Path, hostile_run: Path) -> None:
    out = tmp_path / "out"
    wrong = factory("export", hostile_run, "--format", "llama", "--out", out)
    assert (wrong.code, out.exists()) == (2, False)
    assert "none of llamafactory" in wrong.err
    wrong = factory("export", hostile_run, "--selection", "defaults", "--format", "nemo", "--out", out)
    assert wrong.code == 2
    assert "did you mean 'default'" in wrong.err
    wrong = factory("import", tmp_path / "no.parquet", "--run", tmp_path / "run")
    assert (wrong.code, (tmp_path / "run").exists()) == (2, False)
    assert "no such file" in wrong.err
    other = tracesets.write(tmp_path / "m.parquet", [], "mixture_of_thoughts")
    wrong = factory("import", other, "--run", tmp_path / "run", "--format", "openr1_math")
    assert wrong.code == 2
    assert "it fits mixture_of_thoughts: leave --format out" in wrong.err
