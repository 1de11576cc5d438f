"""What the readability checks found in a run: counts, values, evidence, histograms, and thresholds for its teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.build import build_tables
from factory.calibrate import as_yaml, calibrate
from factory.page import build_page
from factory.readings import binned, evidence_text, read_readings, value_bins
from factory.samples import Samples
from factory.store import RunFolder
from schemas.config import parse_config
from schemas.errors import ConfigError
from schemas.readability import DEFAULTS
from schemas.verdict import JudgedTrace, TextDetail
from tests.hostile import JOB
from tests.jobs.test_cli import factory
from tests.runs import make_problem, make_trace, start_run, write_segment
from verifiers import judge

NUM_PROBLEMS, NUM_SAMPLES = 40, 4
CONFIG = parse_config(JOB, origin="test").model_dump(mode="json")
THOUGHTS = (
    "We add {a} and {b}, and the sum of these is what the question is asking for.",  # fine
    "We add {a} and {b}. Теперь осталось только сложить эти числа.",  # two languages
    "We add {a} and {b}. " + "Let me think about it again. " * 30,  # a loop
    "We add {a} and {b}. The next line is long. " + " ".join(f"{n} and {n * n}," for n in range(300)),  # a wall
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose traces have one defect each, or none; of the last problem none is readable."""
    path = tmp_path_factory.mktemp("readings") / "run"
    problems = [make_problem(number, "7") for number in range(NUM_PROBLEMS)]
    committer = start_run(path, problems, num_samples=NUM_SAMPLES, config=CONFIG)
    traces = []
    for number, problem in enumerate(problems):
        for index in range(NUM_SAMPLES):
            kind = index if number < NUM_PROBLEMS - 1 else 1 + index % 2
            thought = THOUGHTS[kind].format(a=number, b=index)
            text = f"<think>\n{thought}\n</think>\n\nThe answer is $\\boxed{{7}}$."
            traces.append(make_trace(problem.problem_id, index, text=text))
    by_id = {problem.problem_id: problem for problem in problems}
    judged = [
        JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=judge(by_id[trace.problem_id], trace))
        for trace in traces
    ]
    committer.commit(segments=[write_segment(path / "journal", traces, sequence=1)], judged=judged)
    build_tables(path)
    return path


def test_counts_are_those_of_the_verdicts(run: Path) -> None:
    readings = read_readings(Samples(run, "default"))
    assert readings.num_judged == NUM_PROBLEMS * NUM_SAMPLES
    assert (readings.num_problems, readings.num_all_unreadable) == (NUM_PROBLEMS, 1)
    found = {reason: (one.num_deciding, one.num_flags) for reason, one in readings.reasons.items()}
    assert found["language_mixing"] == (NUM_PROBLEMS + 1, 0)
    assert found["repetition_loop"][0] == NUM_PROBLEMS + 1
    assert found["long_paragraph"][0] == NUM_PROBLEMS - 1
    assert set(readings.statistics) == set(TextDetail.__slots__)
    assert all(len(values) == readings.num_judged for values in readings.statistics.values())


def test_evidence_shows_the_defect(run: Path) -> None:
    samples = Samples(run, "default")
    found = read_readings(samples).reasons["language_mixing"]
    assert len(found.samples) == 10
    for one in found.samples:
        assert "Теперь" in evidence_text(samples.row(one.row)["text"], one)
    assert sum(count for _, count in value_bins(found)) == len(found.values)


def test_every_value_falls_into_one_bin() -> None:
    assert [found.counts["all"] for found in binned([0, 5, 10, 11, 99], (0, 10, 20))] == [2, 2, 1]


def test_the_page_has_reasons_samples_and_histograms(run: Path) -> None:
    page = build_page(run)
    assert "1 have no readable attempt at all" in page
    assert "language_mixing: 10 samples with their evidence" in page
    assert "the threshold max_paragraph_chars is 3000" in page
    assert page.count("<svg") == 5


def test_statistics_of_every_trace_are_in_the_candidates(run: Path) -> None:
    (file,) = (run / "tables/default/candidates").glob("*.parquet")
    for checks in pq.read_table(file, columns=["checks"])["checks"].to_pylist():
        (text,) = [check["text"] for check in checks if check["text"] is not None]
        assert text["num_words"] > 5
        assert 0 <= text["think_consistency"] <= 1


def test_calibration_proposes_what_a_job_file_takes(run: Path) -> None:
    found = calibrate(run, "default", DEFAULTS)
    assert found.num_traces == NUM_PROBLEMS * NUM_SAMPLES
    assert found.thresholds["max_paragraph_chars"] > found.quantiles["longest_paragraph"]["p99"]
    lines = as_yaml(found)
    assert f"max_paragraph_chars: {found.thresholds['max_paragraph_chars']:g}" in lines
    ended = factory("calibrate", run, "--json")
    assert json.loads(ended.out)["thresholds"] == found.thresholds


def test_calibration_of_too_few_traces_is_refused(tmp_path: Path) -> None:
    start_run(tmp_path / "run", [make_problem(0, "7")], num_samples=1, config=CONFIG)
    build_tables(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"0 traces with a right answer.*at least 100"):
        calibrate(tmp_path / "run", "default", DEFAULTS)


def test_the_settings_of_a_job_are_read_and_a_wrong_threshold_is_named() -> None:
    job = {
        "name": "x",
        "sources": [{"kind": "reasoning_gym", "task": "chain_sum", "size": 1}],
        "teacher": {"kind": "scripted"},
        "verify": {"readability": {"think_language": "en", "thresholds": {"max_paragraph_chars": 8000}}},
    }
    settings = parse_config(job, origin="job").verify.readability.settings()
    assert (settings.think_language, settings.thresholds.max_paragraph_chars) == ("en", 8_000)
    job["verify"] = {"readability": {"thresholds": {"max_paragraph": 8000}}}
    with pytest.raises(ConfigError, match=r"'max_paragraph' is no threshold; did you mean 'max_paragraph_chars'"):
        parse_config(job, origin="job")


def test_verdicts_of_the_version_before_are_read(run: Path) -> None:
    folder = RunFolder(run)
    manifest = folder.manifest()
    (shard,) = manifest.verdicts[manifest.verifiers]
    file = run / shard.name
    table = pq.read_table(file)
    rows = table.to_pylist()
    for row in rows:
        row["checks"] = [{k: v for k, v in check.items() if k != "text"} for check in row["checks"]]
    checks = table.schema.field("checks").type.value_type
    old = pa.list_(pa.struct([field for field in checks if field.name != "text"]))
    schema = pa.schema([f.with_type(old) if f.name == "checks" else f for f in table.schema])
    metadata = {key: value.replace(b"verdicts/2", b"verdicts/1") for key, value in table.schema.metadata.items()}
    kept = file.read_bytes()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), file)
    try:
        (read,) = folder.tables_of("verdicts", [shard])
        assert {check["text"] for row in read.to_pylist() for check in row["checks"]} == {None}
    finally:
        file.write_bytes(kept)
