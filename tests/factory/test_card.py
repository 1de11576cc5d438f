"""The card of a run: each figure is the run's, names of others stay text, the Hub's libraries read it, bytes repeat."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Features, load_dataset
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from factory.build import build_tables
from factory.card import Card, build_card
from factory.clean import cleaning_of, make_cleaner
from factory.committer import FrozenJob
from factory.facts import check_funnel, funnel, read_facts
from factory.figures import length_histogram, rate_histogram
from factory.frontmatter import LICENSES, block, default_config, license_of, loadable, size_of, source_datasets
from factory.ledgers import ledger_path
from factory.report import committed_status, read_status
from factory.samples import Samples
from factory.store import RunFolder
from factory.tally import COLUMNS, Length, Origin, Rate, Tally, tally
from jobs.cli import app
from schemas.config import CleanConfig, parse_config
from schemas.errors import ConfigError, CorruptRunError, StoreError
from schemas.problem import Domain, Evidence, Quarantined, QuarantineReason
from schemas.tables import SCHEMAS
from schemas.verdict import Check, JudgedTrace, Outcome, Reason, Verdict
from tests.factory.test_markdown import PARSER, nasty
from tests.hostile import HOSTILE
from tests.runs import FINGERPRINT, make_problem, make_prompt, make_trace, make_verdict, start_run, write_segment

DATA = Path(__file__).parents[1] / "data"
NUM_PROBLEMS, NUM_SAMPLES = 12, 4
NAMES = ("plain source", f"source | {HOSTILE}\n# heading\n---\nlicense: mit", "- [x](http://evil.example) `</td>`")
LICENCES = ("Apache-2.0", "*my* license: [none] | <b>", "unknown")
TEACHER = f"t | {HOSTILE}\n# heading"
SYSTEM = "Answer.\n````\n```\n# no heading\n---\n<script>"
JOB = {
    "name": "card-tests",
    "sources": [{"kind": "reasoning_gym", "task": "gcd", "size": 1}],
    "teacher": {"kind": "scripted"},
    "sampling": {"num_samples": NUM_SAMPLES},
    "select": {"system": SYSTEM},
}
ENDS = (
    (Outcome.CORRECT, None),
    (Outcome.WRONG_ANSWER, Reason.VALUE_DIFFERS),
    (Outcome.CORRECT, None),
    (Outcome.UNREADABLE, Reason.REPETITION_LOOP),
    (Outcome.UNJUDGED, Reason.WORKER_DIED),
)


def write_run(path: Path) -> None:
    """Write a run of problems of two domains and three sources with hostile names; two attempts are pending."""
    problems = [
        replace(
            make_problem(n),
            domain=Domain.MATH if n % 3 else Domain.LOGIC,
            source=NAMES[n % 3],
            license=LICENCES[n % 3],
        )
        for n in range(NUM_PROBLEMS)
    ]
    config = parse_config(JOB, origin="test").model_dump(mode="json")
    committer = start_run(path, problems, num_samples=NUM_SAMPLES, config=config)
    traces, judged = [], []
    for place, problem in enumerate(problems):
        for attempt in range(NUM_SAMPLES - (place < 2)):
            outcome, reason = ENDS[(place * 3 + attempt) % len(ENDS)]
            made = make_trace(problem.problem_id, attempt, text=f"<think>\n{HOSTILE}\n</think>\n\n\\boxed{{{attempt}}}")
            trace = replace(made, num_completion_tokens=10 * (1 + place) + attempt, teacher=TEACHER)
            verdict = Verdict(
                reference_hash=problem.reference_hash,
                checks=(Check(name="math", version="2", outcome=outcome, reason=reason),),
            )
            traces.append(trace)
            judged.append(JudgedTrace(trace_id=trace.trace_id, problem_id=trace.problem_id, verdict=verdict))
    committer.commit(segments=[write_segment(path / "journal", traces, sequence=1)], judged=judged)
    build_tables(path)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "run"
    write_run(path)
    return path


@pytest.fixture(scope="module")
def card(run_path: Path) -> Card:
    return build_card(run_path, "default", repo="org/name")


# What the Hub's libraries read.


def test_the_card_is_what_the_hubs_libraries_take(card: Card) -> None:
    parsed = DatasetCard(card.readme)  # refuses metadata that it does not know, and text that is no mapping
    assert parsed.data.license == "other"
    assert parsed.data.license_name == "several-licenses"
    assert parsed.data.language == ["en"]
    assert {"math", "logic", "synthetic"} <= set(parsed.data.tags)
    assert parsed.data.size_categories == ["n<1K"]
    configs = MetadataConfigs.from_dataset_card_data(parsed.data)
    assert {"sft", "sft_prompt_completion", "candidates", "runs"} <= set(configs) <= set(SCHEMAS)
    assert configs.get_default_config_name() == "sft"
    assert "license: mit" not in yaml.safe_dump(parsed.data.to_dict())  # of the name of a source


def test_features_and_sizes_of_the_card_are_those_of_the_files(run_path: Path, card: Card) -> None:
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard(card.readme).data)
    counts = {name: pq.read_table(run_path / "tables" / "default" / name).num_rows for name in SCHEMAS}
    assert set(infos) == {name for name, count in counts.items() if count}  # `datasets` cannot load an empty one
    for name, info in infos.items():
        files = sorted((run_path / "tables" / "default" / name).glob("*.parquet"))
        assert info.features == Features.from_arrow_schema(pq.read_schema(files[0]))
        assert info.download_size == sum(path.stat().st_size for path in files)
        assert info.splits["train"].num_examples == sum(pq.read_metadata(path).num_rows for path in files)


@pytest.mark.parametrize("name", ["sft", "candidates", "runs"])
def test_a_folder_with_its_card_loads_by_the_names_of_the_tables(
    run_path: Path, card: Card, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run_path / "tables" / "default", folder)
    (folder / "README.md").write_text(card.readme, encoding="utf-8")
    loaded = load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == Features.from_arrow_schema(SCHEMAS[name])
    table = pq.read_table(folder / name)
    assert loaded.num_rows == table.num_rows > 0


@given(st.dictionaries(st.sampled_from(["pretty_name", "license_name", "extra"]), nasty, min_size=1), nasty)
def test_any_name_in_the_metadata_comes_back_and_leaves_the_text_alone(names: dict[str, str], text: str) -> None:
    from factory.visible import visible

    names = {key: visible(value).encode("utf-8", "replace").decode() for key, value in names.items()}
    whole = f"{block(names)}\nbody {text}"
    assert DatasetCard(whole).data.to_dict() == {key: value for key, value in names.items() if value is not None}
    head, _, body = whole.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(head) == names
    assert body == f"\nbody {text}"


@given(st.lists(st.sampled_from(sorted(LICENSES)) | nasty, max_size=3))
def test_the_licence_is_one_that_the_hub_knows_or_other_with_a_name(names: list[str]) -> None:
    found = license_of(names)
    assert found["license"] in LICENSES | {"other"}
    assert (found["license"] == "other") == ("license_name" in found)
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", found.get("license_name", "a"))


def test_licences_are_read_however_they_are_spelt() -> None:
    assert license_of(["Apache-2.0", "apache-2.0", " APACHE 2.0"]) == {"license": "apache-2.0"}
    assert license_of(["MIT", "Apache-2.0"])["license"] == "other"
    assert license_of(["My License!"]) == {"license": "other", "license_name": "my-license"}


def test_sizes_and_sources_in_the_hubs_words() -> None:
    assert [size_of(count) for count in (0, 999, 1_000, 99_999, 10**6, 10**13)] == [
        *("n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "n>1T")
    ]
    rows = [
        {"kind": "reasoning_gym"},
        {"kind": "dataset", "path": "org/name", "revision": "main"},
        {"kind": "dataset", "path": "data/folder", "revision": None},
        {"kind": "jsonl", "path": "x.jsonl"},
    ]
    assert source_datasets(rows) == ["org/name", "original"]


# What the text says.


def test_names_and_prompts_of_others_stay_text(card: Card) -> None:
    body = card.readme.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    flat = [one for token in tokens for one in (token.children or [token])]
    assert not [token for token in flat if token.type.startswith(("html", "link"))]
    assert {token.attrs["src"] for token in flat if token.type == "image"} == set(card.figures)
    places = [place for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert [tokens[place + 1].content for place in places] == [
        *(
            "card-tests",
            "How to load",
            "How it was made",
            "From attempts to rows",
            "What the verifiers found",
            "How often they err",
        ),
        *("Pass rates and lengths", "Contamination and duplicates", "What it cost", "Sources and licences", "Limits"),
        *("How to build it again", "Checksums"),
    ]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert yaml.safe_load(fences[2])["system"] == SYSTEM  # after how to load, and the prompt
    assert "\x1b" not in card.readme
    assert "\u202e" not in card.readme


def _cells(readme: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, as they are shown."""
    tokens = PARSER.parse(readme[readme.index(heading) :])
    rows: list[list[str]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_close":
            return rows[1:]
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            rows[-1].append("".join(one.content for one in tokens[place + 1].children or ()))
    return rows


def test_the_funnel_is_that_of_the_run_and_its_tables(run_path: Path, card: Card) -> None:
    steps = {(row[0], row[1]): int(row[2].replace(",", "")) for row in _cells(card.readme, "## From attempts")}
    status = read_status(run_path)
    assert steps["requested attempts", ""] == status.counts.requested == NUM_PROBLEMS * NUM_SAMPLES
    assert steps["… not made yet", ""] == status.counts.pending == 2
    assert steps["generated completions", ""] == status.counts.generated
    assert steps["judged completions", ""] == status.counts.judged
    assert steps["accepted completions", ""] == status.accepted
    rejected = {reason: count for (step, reason), count in steps.items() if step == "… rejected"}
    assert rejected == dict(status.rejected)
    for name in SCHEMAS:
        assert f"`{name}` {pq.read_table(run_path / 'tables' / 'default' / name).num_rows:,}" in card.readme


def test_sources_tokens_and_licences_are_those_of_the_candidates(run_path: Path, card: Card) -> None:
    rows = pq.read_table(run_path / "tables" / "default" / "candidates").to_pylist()
    shown = _cells(card.readme, "## Sources")
    assert sorted(int(row[4]) for row in shown) == sorted(Counter(row["source"] for row in rows).values())
    assert sum(int(row[5]) for row in shown) == sum(bool(row["is_accepted"]) for row in rows)
    assert sum(int(row[3]) for row in shown) == NUM_PROBLEMS
    costs = {row[0]: row for row in _cells(card.readme, "## What it cost")}
    assert int(costs["all"][1].replace(",", "")) == sum(row["num_completion_tokens"] for row in rows)
    for domain in ("math", "logic"):
        tokens = sum(row["num_completion_tokens"] for row in rows if row["domain"] == domain)
        assert int(costs[domain][1].replace(",", "")) == tokens


def test_what_the_run_does_not_say_is_said_to_be_unknown(card: Card) -> None:
    assert "The run has no record of cleaning" in card.readme
    assert "The run is not finished: engine time, and what was lost with an engine, are not stated" in card.readme
    assert "made up by a script" in card.readme
    assert "2 attempts are pending" in card.readme
    assert "they were made by other versions or settings" in card.readme  # this run's verdicts have a made-up digest
    assert "Not measured for the versions of this run: math" in card.readme


def test_a_validation_split_is_in_the_metadata_and_in_every_sum(run_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_path, path)
    folder = path / "tables" / "default"
    body = json.loads((folder / "manifest.json").read_text())
    for name in ("sft", "sft_prompt_completion"):
        sizes = body["configs"][name]["splits"]["train"]
        body["configs"][name]["splits"] = {
            "train": {**sizes, "rows": sizes["rows"] - 3},
            "validation": {**sizes, "rows": 3},
        }
    (folder / "manifest.json").write_text(json.dumps(body))
    readme = build_card(path, "default").readme
    (config,) = (one for one in DatasetCard(readme).data.to_dict()["configs"] if one["config_name"] == "sft")
    assert config["default"] is True
    assert config["data_files"][1] == {"split": "validation", "path": "sft/validation-*.parquet"}
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard(readme).data)
    assert infos["sft"].splits["validation"].num_examples == 3
    assert "sft_validation = load_dataset(" in readme


def test_a_run_without_a_completion_has_a_card_and_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = parse_config(JOB, origin="test").model_dump(mode="json")
    start_run(path, [make_problem(1)], num_samples=NUM_SAMPLES, config=config)
    build_tables(path)
    found = build_card(path, "default")
    assert found.figures == {}
    assert DatasetCard(found.readme).data.license == "unknown"
    assert "0 accepted completions out of 0" in found.readme
    assert [one["config_name"] for one in DatasetCard(found.readme).data.to_dict()["configs"]] == ["runs"]


def test_cleaning_cost_and_adaptive_sampling_are_said_as_the_run_has_them(tmp_path: Path) -> None:
    path = tmp_path / "run"
    cut = {"first_max_tokens": 100, "continue_cut": "unsolved"}
    job = {**JOB, "schedule": {"adaptive": {"useful": 1, "min_samples": 2}, **cut}, "select": {"near_duplicates": 0.9}}
    config = parse_config(job, origin="test").model_dump(mode="json")
    problem = make_problem(1)
    committer = start_run(path, [], num_samples=NUM_SAMPLES, config=config)
    body = yaml.safe_load((path / "run.yaml").read_text())
    (path / "run.yaml").write_text(yaml.safe_dump({**body, "clean": make_cleaner(CleanConfig()).record()}))
    evidence = Evidence(of="gsm8k-test (Cobbe et al. 2021)", item="7", rule="equal", share=1.0)
    dropped = [
        Quarantined(source="s", row=row, reason=reason, detail="d", raw="r", evidence=found)
        for row, (reason, found) in enumerate(
            [*[(QuarantineReason.CONTAMINATED, evidence)] * 3, (QuarantineReason.NEAR_DUPLICATE, None)]
        )
    ]
    frozen = FrozenJob(fingerprint=FINGERPRINT, config=config, sources_state="changed", num_samples=NUM_SAMPLES)
    committer.freeze(frozen, [(problem, make_prompt(problem))], dropped)
    traces = [make_trace(problem.problem_id, attempt) for attempt in range(NUM_SAMPLES)]
    judged = [make_verdict(trace, problem) for trace in traces]
    committer.commit(segments=[write_segment(path / "journal", traces, sequence=1)], judged=judged)
    (path / "logs").mkdir(exist_ok=True)
    tokens = sum(trace.num_completion_tokens for trace in traces)
    ledger = {"seconds": {"full": 3_000.0, "loading": 600.0}, "num_tokens": tokens + 5, "num_gpus": 2}
    ledger_path(path / "logs", 1).write_text(json.dumps(ledger))
    build_tables(path)
    readme = build_card(path, "default").readme
    hits = {row[0]: int(row[3]) for row in _cells(readme, "## Contamination")}
    assert hits == {"aime-2024": 0, "gsm8k-test": 3, "humaneval": 0, "math-500": 0}
    assert "Known benchmarks that were not looked for: aime-2025, gpqa-diamond, livecodebench, codeforces." in readme
    assert "same numbers and reference) set aside: 1." in readme
    assert "Nearly equal completions of one problem (from 0.9 on) rejected" in readme
    accepted = read_status(path).accepted
    assert accepted
    costs = {row[0]: row[1:] for row in _cells(readme, "## What it cost")}
    assert costs["all"][3:] == ["2", f"{7_200 / accepted:,.0f}"]  # GPU-hours, and GPU-seconds for each
    assert "GPU time is all time of all starts" in readme
    assert "5 more were lost" in readme
    ledger_path(path / "logs", 1).unlink()
    assert "The run has no record of engine time" in build_card(path, "default").readme
    assert "counts only the first 2 attempts" in readme
    assert "until 1 useful ones, 2 at least" in readme
    assert "went on only at problems without an accepted answer" in readme


def test_a_recorded_set_states_no_sampling_and_no_cost(tmp_path: Path) -> None:
    path = tmp_path / "run"
    teacher = {"kind": "replay", "path": "x.jsonl", "columns": {"problem": "q", "completion": "c"}}
    job = {**JOB, "teacher": teacher, "prompt": {"template": "plain", "format": "r1"}}
    problem = make_problem(1)
    config = parse_config(job, origin="test").model_dump(mode="json")
    committer = start_run(path, [problem], num_samples=2, config=config)
    traces = [replace(make_trace(problem.problem_id, n), teacher=f"model {n}") for n in range(2)]
    judged = [make_verdict(trace, problem) for trace in traces]
    committer.commit(segments=[write_segment(path / "journal", traces, sequence=1)], judged=judged)
    build_tables(path)
    readme = build_card(path, "default").readme
    shown = dict(_cells(readme, "## How it was made"))
    assert not {"sampling", "seed", "chat template", "adaptive sampling", "ended early"} & set(shown)
    assert (shown["completions of model 0"], shown["completions of model 1"]) == ("1", "1")
    assert "that 2 teachers gave" in readme
    assert "look at the licence of model 0 and of model 1." in readme
    assert "This run generated nothing" in readme
    assert "How the completions were sampled is not known." in readme
    assert "seconds" not in readme


def test_the_first_table_with_rows_is_the_default_where_sft_has_none() -> None:
    some, none = {"splits": {"train": {"rows": 1}, "validation": {"rows": 0}}}, {"splits": {"train": {"rows": 0}}}
    selection = {"configs": {"runs": some, "sft": none, "grpo_groups": some, "candidates": some}}
    assert default_config(selection) == "grpo_groups"
    assert loadable(selection)["grpo_groups"] == {"train": {"rows": 1}}


# Sums.


@pytest.mark.parametrize("key", ["traces", "judged", "accepted", "unjudged", "waiting"])
def test_a_sum_that_does_not_hold_gives_no_card(run_path: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_path, path)
    manifest = path / "tables" / "default" / "manifest.json"
    body = json.loads(manifest.read_text())
    body["counts"][key] += 1
    manifest.write_text(json.dumps(body))
    with pytest.raises(CorruptRunError, match=r"is not"):
        build_card(path, "default")


def test_traces_that_came_after_the_tables_are_said(run_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_path, path)
    config = parse_config(JOB, origin="test").model_dump(mode="json")
    committer = start_run(path, [], num_samples=NUM_SAMPLES, config=config)
    trace = make_trace(make_problem(1).problem_id, NUM_SAMPLES - 1)
    committer.commit(segments=[write_segment(path / "journal", [trace], sequence=2)], judged=[])
    facts = read_facts(path, "default")
    assert facts.num_newer == 1
    check_funnel(funnel(facts))
    assert "| … committed after the tables were built |  | 1 |" in build_card(path, "default").readme


def test_what_a_run_has_not_committed_changes_no_byte(run_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_path, path)
    before = build_card(path, "default")
    trace = make_trace(make_problem(1).problem_id, NUM_SAMPLES - 1)
    write_segment(path / "journal", [trace], sequence=2)
    (path / "logs").mkdir(exist_ok=True)
    ledger_path(path / "logs", 1).write_text(json.dumps({"seconds": {"full": 9.0}, "num_tokens": 10**9, "num_gpus": 1}))
    assert read_status(path).costs.whole.device_s == 9.0
    assert build_card(path, "default") == before


def test_what_is_said_of_a_manifest_stays_whatever_is_committed_later(run_path: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(run_path, folder.path)
    manifest = folder.manifest()
    before = committed_status(folder, manifest, "default"), cleaning_of(folder, manifest)
    config = parse_config(JOB, origin="test").model_dump(mode="json")
    committer = start_run(folder.path, [], num_samples=NUM_SAMPLES, config=config)
    trace = make_trace(make_problem(1).problem_id, NUM_SAMPLES - 1)
    committer.commit(segments=[write_segment(folder.journal, [trace], sequence=2)], judged=[])
    assert (committed_status(folder, manifest, "default"), cleaning_of(folder, manifest)) == before


def test_tables_that_are_missing_or_of_another_version_are_named(run_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--selection takes one of default"):
        build_card(run_path, "short")
    path = tmp_path / "run"
    shutil.copytree(run_path, path)
    manifest = path / "tables" / "default" / "manifest.json"
    body = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**body, "version": 1}))
    with pytest.raises(StoreError, match=r"is of version 1.*factory select"):
        build_card(path, "default")
    manifest.unlink()
    with pytest.raises(ConfigError, match="factory select"):
        build_card(path, "default")


def test_the_tally_is_what_counting_row_by_row_gives(run_path: Path) -> None:
    folder = run_path / "tables" / "default"
    found = tally(Samples(run_path, "default").batches(COLUMNS), folder)
    rows = pq.read_table(folder / "candidates").to_pylist()
    assert found.num_rows == len(rows)
    assert found.rows == Counter(Origin(row["domain"], row["source"], row["license"]) for row in rows)
    assert found.lengths == Counter(
        Length(row["domain"], bool(row["is_accepted"]), row["num_completion_tokens"]) for row in rows
    )
    problems = {row["problem_id"]: row for row in rows}
    assert found.rates == Counter(Rate(row["domain"], row["num_true"], row["num_judged"]) for row in problems.values())
    assert sum(found.findings.values()) == sum(len(row["checks"]) for row in rows)
    table = pq.ParquetFile(next((folder / "candidates").glob("*.parquet"))).read(columns=COLUMNS)
    with pytest.raises(StoreError, match="not sorted"):
        tally([table.slice(len(table) - 1), table.slice(0, 1)], folder)


# Bytes.


@pytest.mark.slow
def test_the_same_folders_give_the_same_bytes_anywhere(run_path: Path, tmp_path: Path) -> None:
    """In another folder, time zone, hash seed and working directory, with another configuration of matplotlib."""
    path, elsewhere = tmp_path / "a" / "moved", tmp_path / "b"
    shutil.copytree(run_path, path)
    elsewhere.mkdir()
    (elsewhere / "matplotlibrc").write_text("font.size: 30\nfont.family: monospace\nsavefig.dpi: 17\n")
    program = "import sys; from jobs.cli import main; sys.argv[0] = 'factory'; main()"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "17", "PYTHONPATH": str(root), "LC_ALL": "C"}
    command = [sys.executable, "-c", program, "card", str(path), "--out", str(elsewhere / "out")]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True, capture_output=True, timeout=300)
    here = build_card(run_path, "default")
    assert (elsewhere / "out" / "README.md").read_text(encoding="utf-8") == here.readme
    assert {f"figures/{file.name}" for file in (elsewhere / "out" / "figures").iterdir()} == set(here.figures)
    for name, data in here.figures.items():
        assert (elsewhere / "out" / name).read_bytes() == data


def test_images_hold_no_word_of_machine_program_or_date(card: Card) -> None:
    assert set(card.figures) == {"figures/pass-rates.png", "figures/lengths.png"}
    for data in card.figures.values():
        assert data.startswith(b"\x89PNG")
        for chunk in (b"tEXt", b"zTXt", b"iTXt", b"tIME"):
            assert chunk not in data


@given(st.integers(1, 5), st.integers(1, 9))
def test_panels_of_domains_hold_what_that_of_all_holds(num_domains: int, count: int) -> None:
    found = Tally()
    for place in range(num_domains):
        name = f"domain {place}"
        found.rows[Origin(name, "s", "l")] = count
        found.rates[Rate(name, place, num_domains)] = count
        found.lengths[Length(name, place % 2 == 0, 100 * place)] = count
    for histogram in (rate_histogram(found), length_histogram(found, "tokens")):
        totals = [sum(sum(one.counts.values()) for one in bins) for bins in histogram.panels.values()]
        assert sum(totals) == num_domains * count * (2 if num_domains > 1 else 1)
        assert len({len(bins) for bins in histogram.panels.values()}) == 1


# The command.


def test_the_command_prints_the_card_or_writes_it(run_path: Path, card: Card, tmp_path: Path) -> None:
    runner = CliRunner()
    printed = runner.invoke(app, ["card", str(run_path), "--repo", "org/name"])
    assert printed.exit_code == 0
    assert printed.stdout == card.readme
    written = runner.invoke(app, ["card", str(run_path), "--repo", "org/name", "--out", str(tmp_path / "o"), "--json"])
    files: dict[str, Any] = json.loads(written.stdout)["files"]
    assert set(files) == {"README.md", *card.figures}
    assert (tmp_path / "o" / "README.md").read_text(encoding="utf-8") == card.readme
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*: cannot be written: Not a directory; give another folder"):
        runner.invoke(app, ["card", str(run_path), "--out", str(tmp_path / "file" / "x")], catch_exceptions=False)
