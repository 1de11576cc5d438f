"""`factory sft` and `dpo` as a user meets them: faults planted in files are refused by name, mistakes explained."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bench.drill import factory_process, wait_until
from jobs.students.prepare_base import prepare_base
from jobs.students.recipe import FAMILIES, load_recipe, shipped_recipes
from schemas.tables import SCHEMAS
from tests.jobs.students.conftest import TINY
from tests.jobs.test_cli import Ended, factory
from tests.student_tables import make_pairs, make_rows, write_table

SFT, DPO = "sft_prompt_completion", "preference"
FERRY = "A ferry carries nineteen lorries of seven tonnes and thirty four cars of two; how many tonnes does it carry?"
SAID = "message['content'] + '"
LOOP = "{%- for message in messages -%}"


def _words(family: str, *changes: str) -> list[str]:
    settings = [*TINY, "guards.against=[]", *changes]
    return ["--recipe", f"tiny-{family}", *(word for change in settings for word in ("--set", change))]


def _check(family: str, data: Path, *changes: str) -> Ended:
    return factory("sft", *_words(family, *changes), "--data", data, "--check-data")


def _said(row: dict[str, Any], text: str, *, side: str = "completion") -> dict[str, Any]:
    return {**row, side: [{"role": "assistant", "content": text}]}


def _asked(row: dict[str, Any], text: str) -> dict[str, Any]:
    return {**row, "prompt": [{"role": "user", "content": text}]}


Spoil = Callable[[list[dict[str, Any]], str], list[dict[str, Any]]]
IN_ROWS: dict[str, Spoil] = {
    "control": lambda rows, family: [_asked(rows[0], f"Say {FAMILIES[family].others[0]}."), *rows[1:]],
    "end": lambda rows, family: [_said(rows[0], f"<think>\na{FAMILIES[family].end}b\n</think>\n\nc"), *rows[1:]],
    "ids": lambda rows, _: [*rows, rows[1]],
    "benchmark": lambda rows, _: [_asked(rows[0], f"Solve this:\n{FERRY}"), *rows[1:]],
}


@pytest.fixture(scope="module", params=["qwen", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ferries(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("benchmark") / "ferries.jsonl"
    path.write_text(json.dumps({"problem": FERRY}))
    return f"guards.against=[{path}]"


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_base(load_recipe(f"tiny-{family}", TINY), tmp_path_factory.mktemp(family) / "model")


def _refused(ended: Ended, guard: str) -> None:
    assert ended.code == 2, ended.err
    assert f"guard {guard}: " in ended.err
    assert "Traceback" not in ended.err
    assert not ended.out


def test_good_data_pass_and_say_what_was_looked_at(family: str, selection: Path, model: Path, ferries: str) -> None:
    ended = _check(family, selection, ferries)
    assert (ended.code, ended.out[:26]) == (0, "guards: 48 rows, no fault;"), ended.err
    pairs = factory("dpo", *_words(family, ferries), "--model", model, "--data", selection, "--check-data")
    assert (pairs.code, pairs.out[:26]) == (0, "guards: 16 rows, no fault;"), pairs.err


@pytest.mark.parametrize("guard", IN_ROWS)
def test_a_fault_in_one_row_of_a_file_is_refused_by_its_guard(
    family: str, guard: str, ferries: str, tmp_path: Path
) -> None:
    data = write_table(tmp_path, SFT, IN_ROWS[guard](make_rows(8), family))
    _refused(_check(family, data, ferries), guard)


@pytest.mark.parametrize("guard", [*IN_ROWS, "pairs"])
def test_a_fault_in_one_pair_of_a_file_is_refused_by_its_guard(
    family: str, guard: str, ferries: str, model: Path, tmp_path: Path
) -> None:
    pairs = make_pairs(6)
    if guard == "pairs":
        pairs[3]["rejected"] = pairs[3]["chosen"]
    elif guard == "end":
        pairs[0] = _said(pairs[0], f"a{FAMILIES[family].end}b", side="rejected")  # the worse side counts, too
    else:
        pairs = IN_ROWS[guard](pairs, family)
    data = write_table(tmp_path, DPO, pairs)
    _refused(factory("dpo", *_words(family, ferries), "--model", model, "--data", data, "--check-data"), guard)


def test_a_problem_on_both_sides_of_a_split_is_refused_for_rows_and_for_pairs(
    family: str, model: Path, tmp_path: Path
) -> None:
    rows, pairs = make_rows(6, per_problem=1), make_pairs(6)
    data = write_table(write_table(tmp_path, SFT, rows), DPO, pairs)
    write_table(write_table(tmp_path, SFT, rows[5:], split="validation"), DPO, pairs[5:], split="validation")
    _refused(_check(family, data), "splits")
    _refused(factory("dpo", *_words(family), "--model", model, "--data", data, "--check-data"), "splits")


@pytest.mark.parametrize(
    ("guard", "old", "new"),
    [
        (
            "completion",
            "{%- generation -%}{{- " + SAID,
            "{%- generation -%}{{- message['content'].split('</think>')[-1] + '",
        ),
        ("completion", "END", "<think>\\n' -}}"),  # opens the thinking, which is then not learnt
        ("template", LOOP, "{{- 'Be helpful.' -}}" + LOOP),
        ("template", LOOP, "{{- strftime_now('%d %b %Y') -}}" + LOOP),
        ("start", "{{- '<|begin_of_text|>' -}}", "{{- '<|begin_of_text|><|begin_of_text|>' -}}"),
        ("end", "LAST", ""),
        ("template", LOOP, LOOP + "{{- raise_exception('Conversation roles must alternate') -}}"),
        ("template", LOOP, LOOP + "{{- message['content'] + 1 -}}"),
        ("template", LOOP, LOOP + "{%- if -%}"),
    ],
    ids=["R1", "prefill", "system text", "date", "two starts", "no end", "raises", "type", "syntax"],
)
def test_a_template_of_ones_own_that_is_wrong_is_refused_by_the_guard_of_its_fault(
    family: str, guard: str, old: str, new: str, selection: Path, tmp_path: Path
) -> None:
    end = FAMILIES[family].end
    text = FAMILIES[family].template.read_text()
    if old == "END":
        place = text.rindex("' -}}")
        text = text[:place] + new + text[place + len("' -}}") :]
    elif old == "LAST":
        text = text.replace(SAID + end + "' -}}{%- endgen", SAID + "' -}}{%- endgen")
    elif old not in text:
        pytest.skip("texts of this family have no token at their start")
    else:
        text = text.replace(old, new)
    path = tmp_path / "mine.jinja"
    path.write_text(text)
    _refused(_check(family, selection, f"base.template={path}"), guard)


def test_rows_that_do_not_fit_and_a_context_that_is_not_there_are_refused(
    family: str, selection: Path, model: Path
) -> None:
    ended = _check(family, selection, "train.max_length=32")
    _refused(ended, "length")
    assert "all 48 rows are longer than train.max_length" in ended.err
    changes = [f"base.model={model}", "base.tokenizer=null", "train.max_length=2048"]
    _refused(_check(family, selection, *changes), "context")


def test_a_student_is_not_taught_pairs_by_another_template(family: str, selection: Path, model: Path) -> None:
    other = {"qwen": "llama", "llama": "qwen"}[family]
    ended = factory("dpo", *_words(other), "--model", model, "--data", selection, "--check-data")
    _refused(ended, "question")
    assert "take the recipe that it was fine-tuned with" in ended.err


# Mistakes.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["sft", "--recipe", "qwen7b"],
            "--recipe qwen7b: neither a file nor a recipe that comes with the factory; did you",
        ),
        (["sft", "--recipe", "tiny-qwen"], "is missing; give RUN/tables/SELECTION, or org/name of a published dataset"),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/none"], "none: no such folder; give RUN/tables/SELECTION"),
        (
            ["sft", "--recipe", "tiny-qwen", "--data", "DIR/file"],
            "file: is a file; give the folder that holds its table",
        ),
        (
            ["sft", "--recipe", "tiny-qwen", "--data", "DIR"],
            "has no table sft_prompt_completion; did you mean DIR/tables/d",
        ),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d/sft"], "; did you mean DIR/tables/d?"),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/empty"], "; it has: no tables."),
        (
            ["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--out", "DIR/file"],
            "file: is a file; give a folder",
        ),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--out", "DIR/run"], "holds a run or a proof"),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--out", "DIR/proof"], "holds a run or a proof"),
        (
            ["dpo", "--recipe", "tiny-qwen", "--data", "DIR/tables/d"],
            "is missing; give what `factory sft` saved: OUT/model",
        ),
        (["dpo", "--recipe", "tiny-qwen", "--model", "DIR"], "is missing; give RUN/tables/SELECTION"),
        (["dpo", "--recipe", "tiny-qwen", "--model", "DIR", "--data", "DIR/tables/d"], "DIR: holds no model; give the"),
        (["dpo", "--recipe", "llama-70b", "--plan"], "launch.kind=sequence_parallel: factory dpo cannot share"),
        (["sft", "--recipe", "qwen-7b", "--set", "train.learning_rte=1", "--plan"], "did you mean 'learning_rate'?"),
        (
            ["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--out", "DIR/torn"],
            "torn/plan.json: cannot be read",
        ),
        (["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--env", "A"], "hands variables on to a cluster"),
        (
            ["sft", "--recipe", "tiny-qwen", "--data", "DIR/tables/d", "--check-data", "--submit", "http://x:1"],
            "checks on this machine; leave out --submit",
        ),
        (
            ["dpo", "--recipe", "tiny-qwen", "--model", "DIR/student", "--data", "DIR/tables/d"],
            "did you mean DIR/student/model? give the folder",
        ),
        (["prove", "miniature", "--report", "--out", "DIR"], "holds no proof yet"),
        (["prove", "three-minutes", "--out", "DIR/file"], "file: is a file; give a folder"),
        (["prove", "three-minutes", "--out", "DIR/training"], "training: holds a training, and no proof"),
        (["prove", "three-minutes", "--report", "--out", "DIR/training"], "training: holds no proof yet"),
        (["prove", "three-minutes", "--report", "--out", "DIR/torn"], "torn/plan.json: cannot be read"),
    ],
)
def test_a_mistake_is_explained(words: list[str], said: str, selection: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("empty", "run", "proof", "training", "torn", "student/model"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "student" / "model" / "config.json").touch()
    (tmp_path / "torn" / "plan.json").write_text("{")
    (tmp_path / "run" / "run.yaml").touch()
    (tmp_path / "proof" / "plan.json").write_text(json.dumps({"name": "x", "arms": {}}))
    (tmp_path / "training" / "plan.json").write_text(json.dumps({"method": "sft"}))
    write_table(write_table(tmp_path / "tables" / "d", SFT, make_rows(2)), "sft", [])
    ended = factory(*(word.replace("DIR", str(tmp_path)) for word in words))
    assert ended.code == (1 if "torn" in said else 2), ended.err  # what was spoilt is no mistake
    assert said.replace("DIR", str(tmp_path)) in " ".join(ended.err.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "arms.c=verifed",
            "arms.c=verifed: did you mean 'verified'? must be one of answers, all, verified, selected; or: ",
        ),
        ("arms.c=DIR/none", "or: --data DIR/none: no such folder; give RUN/tables/SELECTION"),
        ("arms.c=DIR", "or: --data DIR: has no table sft_prompt_completion"),
        ("students.qwen.tokenizer=DIR/none", "base DIR/none: neither a folder, nor to be had from the Hub"),
        ("fresh.benchmark=DIR/none.jsonl", "none.jsonl': is no known benchmark and no file"),
        ("fresh.benchmark=DIR/odd.jsonl", "odd.jsonl: no known benchmark has the columns of its rows (a)"),
    ],
)
def test_what_a_proof_will_read_is_looked_for_before_anything_is_begun(change: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"a": 1}')
    ended = factory("prove", "three-minutes", "--out", tmp_path / "out", "--set", change.replace("DIR", str(tmp_path)))
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert said.replace("DIR", str(tmp_path)) in ended.err
    assert not (tmp_path / "out").exists()


def test_a_machine_without_what_a_recipe_needs_is_told_before_rows_are_encoded(selection: Path, tmp_path: Path) -> None:
    changes = ["--set", "launch.kind=fsdp2"]
    ended = factory("sft", *_words("qwen"), *changes, "--data", selection, "--out", tmp_path / "out")
    assert (ended.code, "needs 1 GPUs on a node, 0 are visible" in ended.err) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_recipe() -> None:
    for command in ("sft", "dpo"):
        shown = factory(command, "--help").out
        assert all(name in shown for name in shipped_recipes())


def test_what_a_base_lacks_is_named_with_its_key(selection: Path, model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for changes, said in (
        ([f"base.model={empty}", "base.tokenizer=null"], f"base.model={empty}: holds nothing that AutoConfig can read"),
        ([f"base.tokenizer={empty}"], f"base.tokenizer={empty}: holds nothing that AutoTokenizer can read"),
        ([f"base.template={empty}/none"], f"base.template={empty}/none: cannot be read"),
    ):
        ended = _check("qwen", selection, *changes)
        assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
        assert said in ended.err
    if model.parent.name.startswith("qwen"):
        words = [*_words("qwen", f"base.template={empty}/none"), "--model", model, "--data", selection, "--check-data"]
        ended = factory("dpo", *words)
        assert (ended.code, f"base.template={empty}/none: cannot be read" in ended.err) == (2, True), ended.err


def _retyped(name: str, column: str, change: pa.DataType | None) -> pa.Schema:
    fields = [field for field in SCHEMAS[name] if field.name != column]
    return pa.schema(fields if change is None else [*fields, pa.field(column, change)])


TURNS_OF_LARGE = pa.large_list(pa.struct([("content", pa.large_string()), ("role", pa.string())]))


@pytest.mark.parametrize(
    ("column", "kind", "said"),
    [
        (
            "completion",
            None,
            "has no column completion; a table sft_prompt_completion has trace_id, problem_id, prompt",
        ),
        ("completion", pa.string(), "column completion is string, must be list<"),
        ("prompt", pa.string(), "column prompt is string, must be list<"),
        ("prompt", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])), "column prompt is list<"),
        ("trace_id", pa.int64(), "column trace_id is int64, must be string"),
        ("completion", TURNS_OF_LARGE, None),
    ],
    ids=["none", "text", "text as prompt", "other turns", "number as id", "large"],
)
def test_a_table_of_another_shape_is_named_before_anything_is_read(
    column: str, kind: pa.DataType | None, said: str | None, tmp_path: Path
) -> None:
    schema = _retyped(SFT, column, kind)
    rows = make_rows(3)
    if kind is not None and said is not None:
        value = {"string": "x", "int64": 3}.get(str(kind), [{"from": "human", "value": "x"}])
        rows = [{**row, column: value} for row in rows]
    (tmp_path / SFT).mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / SFT / "train-00000-of-00001.parquet")
    ended = _check("qwen", tmp_path)
    assert (ended.code, "Traceback" in ended.err) == (0 if said is None else 2, False), ended.err
    assert said is None or said in ended.err


def test_a_shard_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    data = write_table(tmp_path, SFT, make_rows(3))
    shard = data / SFT / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    ended = _check("qwen", data)
    assert (ended.code, "Traceback" in ended.err) == (1, False), ended.err
    assert f"{shard}: cannot be read as Parquet" in ended.err


def test_every_example_of_a_help_names_options_that_there_are() -> None:
    for command in ("sft", "dpo", "prove", "evaluate"):
        shown = " ".join(factory(command, "--help").out.split())
        example = shown.partition("Example: ")[2]
        assert example.startswith(f"factory {command} ")
        for word in example.split():
            assert not word.startswith("--") or shown.count(word) > 1, word


@pytest.mark.slow
def test_a_training_that_is_interrupted_says_so_and_how_it_goes_on(selection: Path, tmp_path: Path) -> None:
    words = [*_words("qwen", "train.max_steps=5000"), "--data", selection, "--out", tmp_path / "out"]
    with factory_process(["sft", *words], tmp_path / "mark") as child:
        wait_until(
            lambda: (tmp_path / "out" / "progress.jsonl").exists() or child.process.poll() is not None, 240, "steps"
        )
        child.process.send_signal(signal.SIGINT)
        assert child.wait(60) == 130, child.said()
        assert "run the same command again: it goes on from the newest checkpoint" in child.said()
        assert child.said().rstrip().endswith("interrupted")


DESIGN = Path(__file__).parents[3] / "jobs" / "students" / "DESIGN.md"


def test_every_failure_that_is_known_has_a_guard_and_a_test_that_plants_it() -> None:
    text = DESIGN.read_text().partition("## Failures")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 12
    sources = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    for failure, _, tests in rows[2:]:
        assert tests, failure
        for named in tests.split("; "):
            module, _, name = named.strip("`").partition("::")
            assert f"def {name}(" in sources[module], named
