from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.config import EarlyAbort, JobConfig, load_config, parse_config
from schemas.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "name": "t",
    "sources": [{"kind": "reasoning_gym", "task": "chain_sum", "size": 2}],
    "teacher": {"kind": "scripted"},
}


def parse(**parts: Any) -> JobConfig:
    return parse_config({**MINIMAL, **parts}, origin="job.yaml")


def message(**parts: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(**parts)
    return str(caught.value)


def job_file(tmp_path: Path, body: Any = None) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(body if isinstance(body, str) else yaml.safe_dump(body or MINIMAL))
    return path


def override_message(tmp_path: Path, override: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(job_file(tmp_path), [override])
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_job_file_resolves_and_is_named_after_its_file(path):
    assert load_config(path).name == path.stem


def test_defaults_fill_what_a_job_does_not_say():
    job = parse()
    assert (job.sampling.num_samples, job.prompt.template, job.select.rule) == (4, "boxed", "all_correct")


def test_a_resolved_job_reads_back_as_the_same_job():
    job = parse(sampling={"num_samples": 8}, select={"rule": "shortest_correct"})
    assert parse_config(job.model_dump(mode="json"), origin="run.yaml") == job


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"samplin": {}}, "job.yaml: samplin: unknown key; did you mean 'sampling'? allowed: name, sources, prompt"),
        (
            {"sampling": {"num_sample": 3}},
            "sampling.num_sample: unknown key; did you mean 'num_samples'? allowed: num_samples",
        ),
        ({"teacher": {"kind": "scripted", "sed": 1}}, "teacher.sed: unknown key; did you mean 'seed'? allowed: kind"),
        (
            {"teacher": {"kind": "vllm", "model": "m", "engine": {"max_num_seq": 1}}},
            "teacher.engine.max_num_seq: unknown key; did you mean 'max_num_seqs'?",
        ),
        (
            {"sources": [MINIMAL["sources"][0], {"kind": "reasoning_gym", "task": "x", "size": 1, "sead": 2}]},
            "sources.1.sead: unknown key; did you mean 'seed'?",
        ),
        (
            {"sources": [{"kind": "jsonl", "path": "a", "columns": {"problem": "q", "anser": "a"}}]},
            "sources.0.columns.anser: unknown key; did you mean 'answer'?",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_and_the_allowed_ones(parts, expected):
    assert expected in message(**parts)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"sampling": {"num_samples": "many"}}, "sampling.num_samples='many' must be a valid integer"),
        ({"sampling": {"num_samples": 0}}, "sampling.num_samples=0 must be greater than or equal to 1"),
        ({"sampling": {"temperature": float("nan")}}, "sampling.temperature=nan must be a finite number"),
        ({"sampling": {"top_p": 1.5}}, "sampling.top_p=1.5 must be less than or equal to 1"),
        ({"select": {"rule": "best"}}, "select.rule='best' must be 'all_correct', 'one_random', 'shortest_correct'"),
        ({"name": "a/b"}, "name='a/b' must be letters, digits"),
        ({"prompt": "boxed"}, "prompt='boxed' must be a mapping of keys to values"),
        ({"sources": []}, "sources"),
        (
            {"sources": [{"kind": "csv", "path": "a"}]},
            "sources.0.kind='csv' must be one of 'jsonl', 'parquet', 'dataset', 'reasoning_gym'",
        ),
        ({"sources": [{"path": "a"}]}, "sources.0.kind: is missing"),
        (
            {"teacher": {"kind": "hf"}},
            "teacher.kind='hf' must be one of 'vllm', 'openai', 'replay', 'imported', 'scripted'",
        ),
        (
            {"teacher": {"kind": "openai", "model": "m", "base_url": "localhost:8000"}},
            "teacher.base_url='localhost:8000' must be a URL such as http://teacher.example:8000/v1",
        ),
        ({"teacher": {"kind": "vllm"}}, "teacher.model: is missing and has no default"),
        ({"store": {"partial_tokens": 0}}, "store.partial_tokens=0 must be greater than or equal to 1"),
        (
            {"schedule": {"time_limit_s": 60}},
            "schedule stop_before_s=60 must be below time_limit_s=60: the run would stop at once",
        ),
        (
            {"schedule": {"adaptive": {"useful": 5}}},
            "schedule.adaptive: useful=5 and min_samples=2 must be <= sampling.num_samples=4",
        ),
        ({"schedule": {"adaptive": {"k": 5}}}, "schedule.adaptive.k: unknown key"),
        ({"sampling": {"min_tokens": 5000}}, "min_tokens=5000 must be <= max_tokens=4096"),
        (
            {"teacher": {"kind": "scripted"}, "sampling": {"min_tokens": 5}},
            "sampling.min_tokens=5 is for teachers of kind vllm; teacher.kind='scripted' does not heed it",
        ),
        (
            {"schedule": {"first_max_tokens": 4096}},
            "job.yaml: schedule.first_max_tokens=4096 must be below sampling.max_tokens=4096",
        ),
        (
            {
                "teacher": {"kind": "openai", "model": "m", "base_url": "http://h/v1"},
                "schedule": {"first_max_tokens": 9},
            },
            "schedule.first_max_tokens=9 needs a teacher that can go on from its own tokens (vllm, scripted); "
            "teacher.kind='openai' would begin anew: leave it out",
        ),
        (
            {"teacher": {"kind": "scripted"}, "sampling": {"thinking_budget": 9}},
            "sampling.thinking_budget=9: teacher.kind='scripted' has no thinking that it could end",
        ),
        ({"sampling": {"max_tokens_by_domain": {"maths": 9}}}, "sampling.max_tokens_by_domain.maths"),
        (
            {"schedule": {"early_abort": {"loop_tokens": 3}}},
            "early_abort.loop_tokens=3 must be greater than or equal to 64",
        ),
        (
            {"sources": [{"kind": "jsonl", "path": "a", "columns": {"problem": "q", "messages": "m"}}]},
            "sources.0.columns give exactly one of `problem` and `messages`",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_key_and_what_is(parts, expected):
    assert expected in message(**parts)


@pytest.mark.parametrize(("value", "expected"), [(True, EarlyAbort()), (False, None), (None, None)])
def test_early_abort_is_switched_by_a_word(value, expected):
    assert (
        parse_config(MINIMAL | {"schedule": {"early_abort": value}}, origin="job.yaml").schedule.early_abort == expected
    )


def test_all_errors_are_listed_each_with_the_file():
    lines = message(sampling={"num_samples": 0, "top_p": 2}, selct={}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("job.yaml: ") for line in lines)


def test_a_missing_part_is_named():
    with pytest.raises(ConfigError, match=r"job\.yaml: teacher: is missing and has no default"):
        parse_config({key: value for key, value in MINIMAL.items() if key != "teacher"}, origin="job.yaml")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a: [1", "is not YAML"),
        ("- a\n- b\n", "holds list, must be a mapping with the keys name, sources"),
        ("", "holds NoneType, must be a mapping"),
    ],
)
def test_a_file_that_is_no_mapping_says_what_it_holds(tmp_path, body, expected):
    path = job_file(tmp_path, body or "\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


def test_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file; give the path of a job file"):
        load_config(tmp_path / "nothing.yaml")


def test_a_folder_or_bytes_in_place_of_a_file_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "b.yaml")


# Overrides.


def test_overrides_are_read_as_yaml_and_reach_into_mappings_and_lists(tmp_path):
    overrides = [
        "sampling.num_samples=8",
        "sources.0.config.max_terms=3",
        "select.rule=shortest_correct",
        "prompt.system=a=b",
    ]
    job = load_config(job_file(tmp_path), overrides)
    assert job.sampling.num_samples == 8
    assert job.sources[0].config == {"max_terms": 3}  # type: ignore[union-attr]
    assert job.select.rule == "shortest_correct"
    assert job.prompt.system == "a=b"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sampling.num_samples", "--set 'sampling.num_samples': must be key=value"),
        ("=3", "--set '=3': must be key=value"),
        ("name.x=3", "--set 'name.x=3': name is not a mapping"),
        ("sources.7.size=3", "--set 'sources.7.size=3': sources.7 is not a mapping or a list with that index"),
        ("sources.x=3", "--set 'sources.x=3': 'x' is no index of a list of 1"),
        ("prompt.system=[", "--set 'prompt.system=[': the value is not YAML"),
        ("sampling.num_sampels=3", "sampling.num_sampels: unknown key; did you mean 'num_samples'?"),
        ("sampling.num_samples=x", "sampling.num_samples='x' must be a valid integer"),
    ],
)
def test_an_override_that_cannot_be_applied_is_shown_as_it_was_given(tmp_path, override, expected):
    assert expected in override_message(tmp_path, override)


@pytest.mark.parametrize(
    "wrong", [{"base_url": "http://me:sesame@host/v1"}, {"base_url": "http://host/v1", "api_key_env": "sk-sesame"}]
)
def test_a_secret_that_stands_where_its_name_belongs_is_refused_and_not_shown(wrong):
    text = message(teacher={"kind": "openai", "model": "m", **wrong})
    assert "teacher." in text
    assert "sesame" not in text


@pytest.mark.parametrize(
    ("publish", "words"),
    [
        ({"repo": "data"}, "publish.repo='data' must be ORG/NAME"),
        ({"repo": "a/b/c"}, "publish.repo"),
        ({"repo": "a/b--c"}, "publish.repo"),
        ({}, "publish.repo: is missing"),
        ({"repo": "a/b", "tag": "v 1"}, "publish.tag"),
        ({"repo": "a/b", "tok": "x"}, "publish.tok: unknown key"),
    ],
)
def test_where_a_job_is_published_is_checked(publish, words):
    assert words in message(publish=publish)


def test_a_token_that_stands_where_its_name_belongs_is_refused_and_not_shown():
    text = message(publish={"repo": "a/b", "token_env": "hf_sesame"})
    assert "publish.token_env" in text
    assert "sesame" not in text
