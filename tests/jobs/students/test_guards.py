"""Guards: each refuses its fault, and only its own; data that are good pass all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factory.decontaminate import Protection
from factory.fingerprints import Item, build_fingerprint
from jobs.students.guards import ROW_GUARDS, Findings, TableGuards, look
from jobs.students.prepare_base import prepare_base
from jobs.students.recipe import Recipe, load_recipe
from jobs.students.rows import IGNORED, Encoded, Row, Student, load_student, open_table
from jobs.students.sft import guards_of
from schemas.errors import ConfigError, GuardError
from schemas.tables import SCHEMAS
from tests.jobs.students.conftest import TINY
from tests.student_tables import make_rows, write_table

NO_BENCHMARK = Protection([])


def _rows(count: int = 6) -> list[Row]:
    return [
        Row(
            row_id=row["trace_id"],
            problem_id=row["problem_id"],
            prompt=row["prompt"],
            completion=row["completion"][0]["content"],
        )
        for row in make_rows(count)
    ]


def _faults(rows: list[Row], student: Student, guards: TableGuards | None = None) -> Findings:
    findings = Findings()
    for _ in look([rows], student, guards or TableGuards(NO_BENCHMARK), findings):
        pass
    return findings


def _named(encoded: Encoded, student: Student) -> set[str]:
    return {name for name, guard in ROW_GUARDS.items() if guard(encoded, student) is not None}


def _retaught(student: Student, old: str, new: str) -> Student:
    """Return the student with another template: one piece of its own in other words."""
    text = student.family.template.read_text()
    assert old in text, old
    tokenizer = type(student.tokenizer).from_pretrained(student.tokenizer.name_or_path)
    tokenizer.chat_template = text.replace(old, new)
    return replace(student, tokenizer=tokenizer)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)  # four such texts fit in 512 tokens


@given(question=texts, thinking=texts, answer=texts)
@example(question="", thinking="", answer="")
@example(question="\n", thinking="\n\n ", answer="\n")  # what a tokenizer would join over the boundary
@example(question="e\u0301", thinking="e\u0301 \u212b", answer="\ufeff\u200b")  # Qwen's tokenizers write NFC
def test_any_text_is_learnt_to_the_letter_and_no_guard_cries(
    student: Student, question: str, thinking: str, answer: str
) -> None:
    row = Row(
        row_id="a",
        problem_id="p",
        prompt=[{"role": "system", "content": thinking}, {"role": "user", "content": question}],
        completion=f"<think>\n{thinking}\n</think>\n\n{answer}",
    )
    (encoded,) = student.encode([row])
    if student.family.end in row.completion:
        return
    assert _named(encoded, student) == set()


def test_good_rows_pass_all_guards_and_are_counted(student: Student) -> None:
    found = _faults(_rows(), student)
    found.refuse()
    assert (found.num_rows, found.num_encoded, found.num_too_long, dict(found.faults)) == (6, 6, 0, {})
    assert 0 < found.num_learnt < found.num_tokens


SAID = "message['content'] + '"


@pytest.mark.parametrize(
    ("new", "guards"),
    [
        ("message['content'].split('</think>')[-1] + '", {"completion"}),  # as R1's own template does
        ("message['content'] | trim | replace('\\n\\n', '\\n') + '", {"completion"}),
        ("'<think>\\n' + message['content'] + '", {"completion"}),  # a tag that the text has already
        ("message['content'] + '<|endoftext|>' + '", {"completion"}),
    ],
    ids=["drops the thinking", "trims", "opens a tag twice", "adds another end"],
)
def test_a_template_that_edits_an_answer_is_refused(student: Student, new: str, guards: set[str]) -> None:
    # the assistant's own line, which stands between the marks of generation
    bad = _retaught(student, "{%- generation -%}{{- " + SAID, "{%- generation -%}{{- " + new)
    found = _faults(_rows(), bad)
    assert set(found.faults) == guards
    with pytest.raises(GuardError, match="guard completion: 6 of 6 rows; row trace-00000: would learn "):
        found.refuse()


def test_a_template_that_opens_the_thinking_in_the_prompt_alone_is_refused(student: Student) -> None:
    opening = "assistant\\n' -}}" if student.family.name == "qwen" else "assistant<|end_header_id|>\\n\\n' -}}"
    text = student.family.template.read_text()
    place = text.rindex(opening)
    bad = _retaught(
        student, text[place:], text[place:].replace(opening, opening.replace("' -}}", "<think>\\n\\n' -}}"))
    )
    assert "question" in _faults(_rows(), bad).faults


def test_a_template_that_ends_a_turn_otherwise_is_refused(student: Student) -> None:
    for new in ("<|im_start|>", ""):
        bad = _retaught(student, SAID + student.family.end + "' -}}{%- endgen", SAID + new + "' -}}{%- endgen")
        with pytest.raises(GuardError, match="a student that never ends"):
            _faults(_rows(), bad).refuse()


def test_an_end_inside_an_answer_is_refused(student: Student) -> None:
    row = replace(_rows(1)[0], completion=f"<think>\na{student.family.end}b\n</think>\n\nc")
    assert set(_faults([row], student).faults) == {"end", "control"}


def test_a_text_that_starts_twice_is_refused(student: Student) -> None:
    if student.start_id is None:
        pytest.skip("texts of this family have no token at their start")
    bad = _retaught(student, "{{- '<|begin_of_text|>' -}}", "{{- '<|begin_of_text|><|begin_of_text|>' -}}")
    with pytest.raises(GuardError, match=r"guard start: .* at tokens \[0, 1\], must have it at 0 alone"):
        _faults(_rows(), bad).refuse()
    late = replace(_rows(1)[0], completion="<think>\n<|begin_of_text|>\n</think>\n\nc")
    assert set(_faults([late], student).faults) == {"start", "control"}


@pytest.mark.parametrize("token", ["end", "pad", "others"])
def test_a_text_that_becomes_a_control_token_is_refused(student: Student, token: str) -> None:
    tokens = getattr(student.family, token)
    word = tokens if isinstance(tokens, str) else tokens[0]
    (row,) = _rows(1)
    asked = replace(row, prompt=[{"role": "user", "content": f"What does {word} mean?"}])
    told = replace(row, completion=f"<think>\nIt is {word}.\n</think>\n\nc")
    for bad, where in ((asked, "the turn of user in its prompt"), (told, "its completion")):
        found = _faults([bad], student)
        assert "control" in found.faults
        assert found.first["control"].startswith(f"row trace-00000: {where} holds {word}, which is no text")


def test_every_token_at_which_generation_stops_is_control_and_a_tag_is_text(recipe: Recipe, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = prepare_base(recipe, tmp_path / "base", with_weights=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|eom_id|>", "<think>", "</think>"])
    tokenizer.save_pretrained(base)
    stops, eom = (
        json.loads((base / "generation_config.json").read_text()),
        tokenizer.convert_tokens_to_ids("<|eom_id|>"),
    )
    (base / "generation_config.json").write_text(json.dumps(stops | {"eos_token_id": [stops["eos_token_id"], eom]}))
    student = load_student(base, recipe)
    assert not _faults(_rows(), student).faults
    bad = replace(_rows(1)[0], completion="<think>\n<|eom_id|>\n</think>\n\nc")
    assert set(_faults([bad], student).faults) == {"control"}


@pytest.mark.parametrize(
    ("spoil", "guards"),
    [
        (lambda e: e._replace(labels=list(e.token_ids)), {"prompt"}),
        (
            lambda e: e._replace(labels=[IGNORED] * (len(e.asked_ids) - 1) + e.token_ids[len(e.asked_ids) - 1 :]),
            {"prompt"},
        ),
        (lambda e: e._replace(labels=[IGNORED, *e.labels[:-1]]), {"prompt", "end"}),
        (lambda e: e._replace(labels=[IGNORED] * len(e.labels)), {"prompt", "end", "completion"}),
        (lambda e: e._replace(token_ids=e.token_ids[:-9], labels=e.labels[:-9]), {"end", "completion"}),
        (lambda e: e._replace(labels=[IGNORED if label == e.labels[-1] else label for label in e.labels]), {"end"}),
    ],
    ids=["all is learnt", "a token of the prompt is", "shifted", "nothing is", "cut", "ends masked, as if padding"],
)
def test_labels_that_are_not_the_answer_and_its_end_are_refused(
    student: Student, spoil: Callable[[Encoded], Encoded], guards: set[str]
) -> None:
    for encoded in student.encode(_rows()):
        found = _named(spoil(encoded), student)
        assert guards <= found <= {"completion", "prompt", "end"}


def test_rows_that_are_too_long_are_dropped_and_counted_never_cut(student: Student) -> None:
    rows = _rows()
    long = replace(rows[2], completion=rows[2].completion * 9)
    findings = Findings()
    kept = list(look([[*rows[:2], long, *rows[3:]]], student, TableGuards(NO_BENCHMARK), findings))
    assert [encoded.row.row_id for encoded in kept] == [row.row_id for row in rows if row.row_id != long.row_id]
    assert findings.num_too_long == 1
    assert findings.longest > student.max_length
    assert "length" in _named(student.encode([long])[0], student)
    with pytest.raises(GuardError, match="all 1 rows are longer"):
        _faults([long], student).refuse()


def test_an_id_that_comes_twice_is_refused(student: Student) -> None:
    rows = _rows()
    with pytest.raises(GuardError, match="guard ids: 1 of 7 rows; row trace-00001: its id came before"):
        _faults([*rows, rows[1]], student).refuse()


def test_a_problem_on_both_sides_of_a_split_is_refused(recipe: Recipe, student: Student, tmp_path: Path) -> None:
    rows = make_rows(8)
    write_table(tmp_path, "sft_prompt_completion", rows[:6])
    write_table(tmp_path, "sft_prompt_completion", rows[6:], split="validation")
    good = guards_of(recipe, tmp_path, "sft_prompt_completion")
    assert not _faults(_rows(), student, good).faults
    write_table(tmp_path, "sft_prompt_completion", rows[5:], split="validation")
    bad = guards_of(recipe, tmp_path, "sft_prompt_completion")
    with pytest.raises(GuardError, match="guard splits: 2 of 6 rows; row trace-00004: its problem problem-00002"):
        _faults(_rows(), student, bad).refuse()


def test_a_problem_of_a_benchmark_is_refused_however_it_is_framed(student: Student) -> None:
    item = (
        "A ferry carries nineteen lorries and thirty four cars across the sound, each lorry weighs seven tonnes and "
        "each car two tonnes; how many tonnes does the ferry carry on a crossing at which it is full?"
    )
    fingerprint = build_fingerprint("ferries", "1", "made here", [Item("f-1", item)])
    rows = _rows(4)
    framed = [{"role": "user", "content": f"Solve this:\n{item}\nThink step by step."}]
    bad = [*rows[:3], replace(rows[3], prompt=framed, problem_id="p-9")]
    assert not _faults(rows, student, TableGuards(Protection([fingerprint]))).faults
    with pytest.raises(GuardError, match=r"guard benchmark: 1 of 4 rows; row trace-00003: .* ferries \(1\) item f-1"):
        _faults(bad, student, TableGuards(Protection([fingerprint]))).refuse()


def test_an_item_of_a_benchmark_is_found_behind_a_problem_id_that_came_before(student: Student) -> None:
    item = "How many tonnes does a ferry with nineteen lorries of seven tonnes and thirty four cars of two carry, full?"
    fingerprint = build_fingerprint("ferries", "1", "made here", [Item("f-1", item)])
    rows = _rows(2)
    bad = replace(rows[1], prompt=[{"role": "user", "content": item}])
    assert bad.problem_id == rows[0].problem_id
    assert set(_faults([rows[0], bad], student, TableGuards(Protection([fingerprint]))).faults) == {"benchmark"}


@pytest.mark.parametrize("strategy", ["wrapped", "bfd_split"])
def test_packing_that_cuts_or_mixes_rows_is_no_setting(strategy: str) -> None:
    with pytest.raises(ConfigError, match=rf"train.packing='{strategy}' cuts rows, or lets one see another"):
        load_recipe("tiny-qwen", [f"train.packing={strategy}"])


def test_a_table_without_columns_rows_or_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no table sft_prompt_completion"):
        open_table(tmp_path, "sft_prompt_completion")
    (tmp_path / "tables" / "default").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"did you mean .*tables/default"):
        open_table(tmp_path, "sft_prompt_completion")
    write_table(tmp_path, "sft_prompt_completion", make_rows(4), shards=2)
    table = open_table(tmp_path, "sft_prompt_completion")
    assert table is not None
    assert table.num_rows == 4
    table.files[0].unlink()
    with pytest.raises(Exception, match="has 1 shards of split train, their names say 2"):
        open_table(tmp_path, "sft_prompt_completion")


@pytest.mark.parametrize("roles", [[], ["assistant", "assistant"], ["user"]])
def test_an_answer_that_is_not_one_turn_of_the_assistant_is_named(roles: list[str], tmp_path: Path) -> None:
    (row,) = make_rows(1)
    bad = {**row, "completion": [{"role": role, "content": "x"} for role in roles]}
    table = open_table(write_table(tmp_path, "sft_prompt_completion", [bad]), "sft_prompt_completion")
    assert table is not None
    with pytest.raises(ConfigError, match=r"row trace-00000: completion: holds .*, must be one turn of the assistant"):
        list(table.rows())


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"trace_id": None}, "trace_id"),
        ({"problem_id": None}, "problem_id"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [{"role": "user", "content": None}]}, r"prompt\[0\].content"),
    ],
)
def test_a_value_that_is_null_is_named_with_its_row_and_column(
    change: dict[str, object], column: str, tmp_path: Path
) -> None:
    (row,) = make_rows(1)
    nullable = pa.schema([field.with_nullable(True) for field in SCHEMAS["sft_prompt_completion"]])
    folder = tmp_path / "sft_prompt_completion"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([{**row, **change}], schema=nullable), folder / "train-00000-of-00001.parquet")
    table = open_table(tmp_path, "sft_prompt_completion")
    assert table is not None
    named = f"row {'None' if 'trace_id' in change else 'trace-00000'} "
    with pytest.raises(ConfigError, match=rf"{named}.*: column {column} is null"):
        list(table.rows())


def test_a_template_of_ones_own_has_to_pass_the_same_guards(tmp_path: Path) -> None:
    recipe = load_recipe("tiny-qwen", TINY)
    text = recipe.base.of.template.read_text()
    (tmp_path / "mine.jinja").write_text(text.replace(SAID, "message['content'] | upper + '"))
    recipe = load_recipe("tiny-qwen", [*TINY, f"base.template={tmp_path / 'mine.jinja'}"])
    student = load_student(prepare_base(recipe, tmp_path / "base", with_weights=False), recipe)
    assert set(_faults(_rows(), student).faults) == {"completion", "template"}


TALK = [
    {"role": "user", "content": " What is 1 + 1?\n"},
    {"role": "assistant", "content": "<think>\none and one\n</think>\n\n2"},
    {"role": "user", "content": "\nAnd 2 + 2?"},
]
LOOP = "{%- for message in messages -%}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LOOP, "{{- 'Be helpful.' -}}" + LOOP),
        (LOOP, "{{- strftime_now('%d %b %Y') -}}" + LOOP),
        (SAID, "message['content'] | trim + '"),
        (SAID, "(message['content'] if loop.last or message['role'] != 'user' else '') + '"),
        (SAID, "message['content'].split('</think>')[-1] + '"),
        (LOOP, LOOP + "{%- if loop.first -%}{{- message['content'] -}}{%- endif -%}"),
    ],
    ids=["hidden text", "date", "trims", "drops a question", "drops earlier thinking", "asks twice"],
)
def test_a_template_that_asks_otherwise_than_the_table_is_refused(student: Student, old: str, new: str) -> None:
    row = replace(_rows(1)[0], prompt=TALK)
    assert not _faults([row], student).faults
    assert "template" in _faults([row], _retaught(student, old, new)).faults


def test_a_tokenizer_that_edits_an_answer_is_refused(student: Student) -> None:
    from tokenizers import normalizers

    tokenizer = type(student.tokenizer).from_pretrained(student.tokenizer.name_or_path)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "completion" in _faults(_rows(), replace(student, tokenizer=tokenizer)).faults
