"""The command line as a user meets it: help that can be copied, errors that help, reports of a finished run."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import typer
import yaml

from factory.store import RunFolder
from jobs.bench.drill import factory_process, processes_of, wait_for_no_process
from jobs.cli import app, main
from tests.runs import write_job

COMMANDS = (
    "run",
    "submit",
    "verify",
    "select",
    "status",
    "explain",
    "browse",
    "report",
    "diff",
    "doctor",
    "decontaminate",
    "export",
    "import",
    "rederive",
    "evaluate",
)


class Ended(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def factory(*arguments: str | Path) -> Ended:
    """Run the command in this process, through the same ``main`` as the installed one."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["factory", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def _small_job(folder: Path, num_problems: int = 12, **parts: object) -> Path:
    sampling = {"num_samples": 2, "max_tokens": 400}
    store = {"segment_s": 1, "commit_interval_s": 1}
    return write_job(folder, num_problems=num_problems, **{"sampling": sampling, "store": store, **parts})


def _edit(job: Path, change: Callable[[dict[str, Any]], object]) -> None:
    body = yaml.safe_load(job.read_text())
    change(body)
    job.write_text(yaml.safe_dump(body, allow_unicode=True))


# Help


GROUP = typer.main.get_command(app)


def test_the_commands_are_those_that_are_promised() -> None:
    assert set(COMMANDS) <= set(GROUP.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_a_line_to_copy_that_parses(name: str) -> None:
    command = GROUP.commands[name]
    ended = factory(name, "--help")
    assert ended.code == 0
    example = ended.out.strip().splitlines()[-1].strip()
    assert example.startswith(f"Example: factory {name}")
    words = shlex.split(example.partition("  (")[0].removeprefix("Example: "))
    assert words[:2] == ["factory", name]
    command.make_context(name, words[2:])  # raises a usage error if it does not parse


# Bad input: exit code 2, a message that says what was seen, what is allowed, and where; nothing is started.

BAD_JOBS: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "misspelt key": (
        lambda job: job["sampling"].update(num_sample=4),
        ["sampling.num_sample", "unknown key", "num_samples"],
    ),
    "misspelt part": (lambda job: job.update(sampler={}), ["sampler", "unknown key", "sampling"]),
    "wrong type": (lambda job: job["sampling"].update(num_samples="many"), ["sampling.num_samples='many'", "integer"]),
    "out of range": (lambda job: job["sampling"].update(num_samples=0), ["sampling.num_samples=0", "1"]),
    "huge": (lambda job: job["sampling"].update(num_samples=10**9), ["sampling.num_samples=1000000000", "32767"]),
    "missing part": (lambda job: job.pop("teacher"), ["teacher", "missing"]),
    "unknown teacher": (lambda job: job["teacher"].update(kind="oracle"), ["teacher.kind='oracle'", "scripted"]),
    "no source": (lambda job: job.update(sources=[]), ["sources", "at least"]),
    "a name that is a path": (lambda job: job.update(name="../x"), ["name='../x'"]),
    "missing source file": (lambda job: job["sources"][0].update(path="no/such.jsonl"), ["no/such.jsonl"]),
    "source that is a folder": (lambda job: job["sources"][0].update(path="."), ["."]),
    "missing column": (
        lambda job: job["sources"][0]["columns"].update(problem="question"),
        ["question", "q"],
    ),
    "model folder that is none": (
        lambda job: job.update(teacher={"kind": "vllm", "model": "./no-such-model"}),
        ["./no-such-model", "no such folder"],
    ),
    "missing template": (lambda job: job.update(prompt={"template": "no/such.jinja"}), ["no/such.jinja"]),
}


@pytest.mark.parametrize("name", BAD_JOBS)
def test_a_bad_job_is_refused_before_anything_starts(tmp_path: Path, name: str) -> None:
    change, words = BAD_JOBS[name]
    job = _small_job(tmp_path)
    _edit(job, change)
    ended = factory("run", job, "--run", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert all(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert RunFolder(tmp_path / "run").find_manifest() is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["no problem"]),
        (b"\n\n", ["no problem"]),
        (b"not json\n{]\n", ["no problem"]),
        (b'{"q": "", "a": "1"}\n', ["no problem"]),
        (b"\xff\xfe\x00q", ["no problem"]),
    ],
    ids=["empty", "blank", "no json", "empty problem", "no text"],
)
def test_a_source_without_a_problem_is_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    job = _small_job(tmp_path)
    (tmp_path / "problems.jsonl").write_bytes(content)
    ended = factory("run", job, "--run", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert all(word in ended.err for word in words), ended.err
    assert "problems.jsonl" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 10], ids=["empty", "cut", "text"])
def test_an_unreadable_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    job = _small_job(tmp_path)
    _edit(job, lambda body: body["sources"][0].update(kind="parquet", path=str(tmp_path / "rows.parquet")))
    ended = factory("run", job, "--run", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert "rows.parquet" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["mapping"]),
        (b"just words", ["mapping"]),
        (b"- a\n- b\n", ["mapping"]),
        (b"name: [unclosed", ["not YAML"]),
        (b"\xff\xfe", ["cannot be read", "not YAML"]),
        (b"name: \x00", ["not YAML"]),
    ],
    ids=["missing", "empty", "text", "list", "no yaml", "no text", "control character"],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    job = tmp_path / "jöb.yaml"
    if content is not None:
        job.write_bytes(content)
    ended = factory("run", job)
    assert ended.code == 2, ended.err
    assert "jöb.yaml" in ended.err
    assert any(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("override", ["nonsense", "sampling.num_samples", "=3", "name.x=1", "sources.7.path=x", "a=[1"])
def test_an_override_that_leads_nowhere_is_refused(tmp_path: Path, override: str) -> None:
    ended = factory("run", _small_job(tmp_path), "--run", tmp_path / "run", "--set", override)
    assert ended.code == 2, ended.err
    assert repr(override) in ended.err or override.partition("=")[0] in ended.err
    assert "Traceback" not in ended.err


def test_a_folder_as_job_file_is_refused(tmp_path: Path) -> None:
    ended = factory("run", tmp_path)
    assert ended.code == 2, ended.err
    assert str(tmp_path) in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["status", "select", "verify"])
@pytest.mark.parametrize("target", ["missing", "empty", "file"])
def test_a_path_that_is_no_run_is_refused(tmp_path: Path, command: str, target: str) -> None:
    path = tmp_path / target
    if target == "empty":
        path.mkdir()
    elif target == "file":
        path.write_text("x")
    ended = factory(command, path)
    assert ended.code == 2, ended.err
    assert str(path) in ended.err
    assert "Traceback" not in ended.err
    assert path.exists() == (target != "missing")


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    ended = factory("run", _small_job(tmp_path), "--run", tmp_path / "run")
    assert ended.code == 2, ended.err
    assert "is a file" in ended.err


def test_dry_run_plans_and_starts_nothing(tmp_path: Path) -> None:
    ended = factory("run", _small_job(tmp_path), "--run", tmp_path / "run", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    assert (body["problems"], body["requests"], body["output_tokens_at_most"]) == (12, 24, 24 * 400)
    assert len(body["fingerprint"]) == 32
    assert not (tmp_path / "run").exists()
    assert factory("run", _small_job(tmp_path), "--dry-run").code == 0


# A finished run, made once


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a job and of its finished run under ``run``."""
    folder = tmp_path_factory.mktemp("finished")
    with factory_process(["run", _small_job(folder), "--run", folder / "run"], folder / "child") as child:
        assert child.wait() == 0, child.said()
        wait_for_no_process(child.mark)
    yield folder
    assert not processes_of(folder / "child")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.ray
def test_the_end_of_a_run_shows_the_funnel_a_sample_and_the_tables(finished: Path) -> None:
    text = (finished / "child.out").read_text()
    for words in ("requested", "generated", "judged", "accepted (selection default)", "<think>", "load_dataset"):
        assert words in text
    sft = sorted((finished / "run" / "tables" / "default" / "sft").glob("train-*.parquet"))
    assert sum(pq.ParquetFile(path).metadata.num_rows for path in sft) > 0


@pytest.mark.ray
def test_a_report_is_one_file_beside_the_run_or_where_it_is_wanted(copied: Path, tmp_path: Path) -> None:
    run, out = copied / "run", tmp_path / "page.html"
    assert factory("report", run).code == 0
    assert factory("report", run, "--out", out).code == 0
    assert (run / "report.html").read_bytes() == out.read_bytes()
    body = json.loads(factory("report", run, "--out", out, "--json").out)
    assert body == {"page": str(out), "num_bytes": out.stat().st_size}
    ended = factory("report", run, "--disagreements")
    assert ended.code == 2
    assert "no trace has a label" in ended.err


@pytest.mark.ray
def test_status_counts_what_was_made(finished: Path) -> None:
    ended = factory("status", finished / "run", "--json")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    counts = body["counts"]
    assert counts["requested"] == counts["generated"] == counts["judged"] == 24
    assert counts["pending"] == 0
    assert sum(body["outcomes"].values()) == 24
    assert body["accepted"] + sum(body["rejected"].values()) == 24
    assert factory("status", finished / "run").code == 0


@pytest.mark.ray
def test_explain_finds_a_trace_and_a_problem_by_the_beginning_of_their_ids(finished: Path) -> None:
    candidates = finished / "run" / "tables" / "default" / "candidates"
    row = pq.read_table(sorted(candidates.glob("*.parquet"))[0]).slice(0, 1).to_pylist()[0]
    by_trace = json.loads(factory("explain", finished / "run", row["trace_id"][:12], "--json").out)
    assert [trace["trace_id"] for trace in by_trace["traces"]] == [row["trace_id"]]
    assert by_trace["problem"]["problem_id"] == row["problem_id"]
    assert by_trace["traces"][0]["selections"]["default"]["is_accepted"] == row["is_accepted"]
    by_problem = json.loads(factory("explain", finished / "run", row["problem_id"], "--json").out)
    assert len(by_problem["traces"]) == 2
    assert factory("explain", finished / "run", row["trace_id"]).code == 0


@pytest.mark.ray
@pytest.mark.parametrize("item_id", ["", "abc", "zzzz", "0" * 32, "é"])
def test_explain_of_an_unknown_id_says_so(finished: Path, item_id: str) -> None:
    ended = factory("explain", finished / "run", item_id)
    assert ended.code == 2, ended.err
    assert repr(item_id) in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.ray
def test_another_selection_is_built_beside_the_first_and_diff_says_what_left_and_why(copied: Path) -> None:
    run = copied / "run"
    ended = factory("select", run, "--set", "select.name=short", "--set", "select.rule=shortest_correct", "--json")
    assert ended.code == 0, ended.err
    tables = run / "tables"
    ended = factory("diff", tables / "default", tables / "short", "--json")
    assert ended.code == 0, ended.err
    settings, *changes, counts = map(json.loads, ended.out.splitlines())
    assert settings == {"settings": {"select.rule": ["all_correct", "shortest_correct"]}}
    accepted = [
        sum(pq.read_table(tables / name / "candidates")["is_accepted"].to_pylist()) for name in ("default", "short")
    ]
    assert (len(changes), counts["in_both"]) == (accepted[0] - accepted[1], accepted[1])
    assert {(line["change"], line["before"], line["after"]) for line in changes} == {("left", "accepted", "not_chosen")}
    same = factory("diff", tables / "short", tables / "short", "--json").out.splitlines()
    assert json.loads(same[0]) == {"settings": {}}
    assert len(same) == 2
    ended = factory("diff", tables / "default", tables / "short")
    assert "select.rule: all_correct -> shortest_correct" in ended.out
    assert f"left: accepted -> not_chosen: {len(changes)}" in ended.out
    assert changes[0]["trace_id"] in ended.out


@pytest.mark.ray
@pytest.mark.parametrize("override", ["sampling.num_samples=9", "select.rule=best", "select.nam=x", "select.name=../x"])
def test_select_takes_its_own_keys_and_values_only(finished: Path, override: str) -> None:
    ended = factory("select", finished / "run", "--set", override)
    assert ended.code == 2, ended.err
    assert override.partition("=")[0] in ended.err


@pytest.mark.ray
def test_diff_of_a_folder_that_is_no_selection_is_refused(finished: Path) -> None:
    ended = factory("diff", finished / "run" / "tables" / "default", finished / "run")
    assert ended.code == 2, ended.err
    assert str(finished / "run") in ended.err


@pytest.mark.ray
def test_another_fingerprint_is_refused_with_the_difference_and_changes_nothing(copied: Path) -> None:
    before = (copied / "run" / "run.yaml").read_bytes()
    ended = factory("run", copied / "job.yaml", "--run", copied / "run", "--set", "sampling.temperature=0.5")
    assert ended.code == 2, ended.err
    assert "sampling.temperature: the run has 1.0, the job says 0.5" in ended.err
    assert (copied / "run" / "run.yaml").read_bytes() == before


@pytest.mark.ray
def test_fewer_attempts_are_refused_and_change_nothing(copied: Path) -> None:
    before = (copied / "run" / "run.yaml").read_bytes()
    ended = factory("run", copied / "job.yaml", "--run", copied / "run", "--set", "sampling.num_samples=1")
    assert ended.code == 2, ended.err
    assert "sampling.num_samples=1" in ended.err
    assert (copied / "run" / "run.yaml").read_bytes() == before


def _again(folder: Path, *more: str) -> dict[str, Any]:
    with factory_process(
        ["run", folder / "job.yaml", "--run", folder / "run", "--json", *more], folder / "c2"
    ) as child:
        assert child.wait() == 0, child.said()
    body: dict[str, Any] = json.loads(child.out.read_text())
    return body


@pytest.mark.ray
def test_a_finished_run_is_extended_by_more_attempts_and_more_problems(copied: Path) -> None:
    before = pq.read_table(copied / "run" / "tables" / "default" / "candidates")["trace_id"].to_pylist()
    _edit(copied / "job.yaml", lambda body: body["sources"][0].update(path=str(copied / "problems.jsonl")))
    with (copied / "problems.jsonl").open("a") as file:
        file.write('{"q": "What is 1000 + 1?", "a": "1001"}\n')
    body = _again(copied, "--set", "sampling.num_samples=3")
    assert body["counts"]["requested"] == body["counts"]["judged"] == 13 * 3
    after = pq.read_table(copied / "run" / "tables" / "default" / "candidates")["trace_id"].to_pylist()
    assert set(before) < set(after)


@pytest.mark.ray
def test_a_repaired_reference_in_the_same_file_is_seen_and_costs_no_trace(copied: Path) -> None:
    _edit(copied / "job.yaml", lambda body: body["sources"][0].update(path=str(copied / "problems.jsonl")))
    lines = (copied / "problems.jsonl").read_text().replace('"a": "8"', '"a": "9"')
    (copied / "problems.jsonl").write_text(lines)
    before = pq.read_table(copied / "run" / "tables" / "default" / "candidates")["trace_id"].to_pylist()
    body = _again(copied)
    assert body["counts"]["requested"] == body["counts"]["judged"] == 24
    after = pq.read_table(copied / "run" / "tables" / "default" / "candidates")["trace_id"].to_pylist()
    assert after == before


@pytest.mark.ray
def test_a_run_goes_on_when_its_source_is_gone_since_its_problems_are_frozen(copied: Path) -> None:
    source = copied.parent / "gone.jsonl"
    shutil.copy(copied / "problems.jsonl", source)
    _edit(copied / "job.yaml", lambda body: body["sources"][0].update(path=str(source)))
    assert _again(copied)["counts"]["judged"] == 24
    source.unlink()
    assert _again(copied)["counts"]["judged"] == 24


@pytest.mark.ray
def test_a_damaged_run_is_named_and_not_called_empty(copied: Path) -> None:
    shard = RunFolder(copied / "run").manifest().traces[0]
    path = copied / "run" / shard.name
    path.write_bytes(path.read_bytes()[:100])
    for command in (["status", copied / "run"], ["run", copied / "job.yaml", "--run", copied / "run"]):
        ended = factory(*command)
        assert ended.code == 1, ended.err
        assert shard.name in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("body", "code"), [("1 / 0", 1), ("sys.exit(3)", 3), ("sys.exit(0)", 0), ("sys.exit('why')", 1)]
)
def test_a_command_that_read_an_object_store_ends_with_its_own_code(body: str, code: int) -> None:
    """It leaves before the interpreter takes itself apart, and what was to be done at the end is done."""
    program = (
        "import atexit, sys, obstore, jobs.cli\n"
        f"def app():\n    atexit.register(print, 'done at the end')\n    {body}\n"
        "jobs.cli.app = app\njobs.cli.command()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (code, "done at the end\n")
