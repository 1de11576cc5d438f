"""Items of benchmarks are found however they are set, and other problems are not."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from factory.benchmarks import load_benchmarks, read_items
from factory.canonical import canonical
from factory.decontaminate import Protection, Rule, RuleSet
from factory.fingerprints import (
    KNOWN,
    SHIPPED,
    Item,
    build_fingerprint,
    not_covered,
    read_fingerprint,
    shipped_names,
    write_fingerprint,
)
from jobs.bench.edits import EDITS, edited
from schemas.errors import ConfigError

MADE = Path(__file__).parents[1] / "data" / "benchmark_made.jsonl"
ITEMS = list(read_items(MADE))
FINGERPRINT = build_fingerprint("made", "1", "Apache-2.0", ITEMS)
PROTECTION = Protection([FINGERPRINT])
FILLER = "The weather on the island was mild that year, and nobody could say why the boats stayed in the harbour. "
words = st.lists(
    st.sampled_from(
        [
            "what",
            "is",
            "the",
            "value",
            "of",
            "x",
            "y",
            "plus",
            "3",
            "17",
            "when",
            "lamp",
            "River",
            "$",
            "\\frac",
            ".",
            "?",
            ",",
            "-",
            "é",
            "中",
        ]
    )
)
sentences = words.map(" ".join)


@given(st.text() | sentences, st.sampled_from(RuleSet))
def test_a_protected_text_is_always_found(text: str, rules: RuleSet) -> None:
    assume(len(canonical(text).words))
    protection = Protection([build_fingerprint("one", "1", "x", [Item("i", text)]), FINGERPRINT], rules)
    match = protection.find(text)
    assert match is not None
    assert (match.benchmark, match.item_id) == ("one", "i")


@given(st.text() | sentences)
def test_any_text_gets_an_answer_the_same_each_time(text: str) -> None:
    assert PROTECTION.find(text) == PROTECTION.find(text)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.item_id)
def test_an_item_is_found_inside_a_long_trace(item: Item) -> None:
    match = PROTECTION.find(FILLER * 30 + item.text + "\n\n" + FILLER * 30)
    is_short = len(canonical(item.text).words) < 8  # such a one is found between a few sentences only
    assert (match is not None and match.item_id == item.item_id) or is_short


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.item_id)
def test_an_item_is_found_behind_and_before_a_sentence(item: Item) -> None:
    match = PROTECTION.find(f"Solve the following. {item.text} Give the answer only.")
    assert match is not None
    assert match.item_id == item.item_id


@pytest.mark.parametrize("kind", EDITS)
def test_small_edits_hide_no_item(kind: str) -> None:
    rng = random.Random(3)
    for item in ITEMS:
        for _ in range(5):
            copy = EDITS[kind](item.text, rng)
            match = PROTECTION.find(copy)
            assert match is not None, copy
            assert match.item_id == item.item_id


def test_many_kinds_of_edits_at_once_hide_few() -> None:
    rng = random.Random(4)
    copies = [edited(item.text, rng, most=5)[0] for item in ITEMS for _ in range(20)]
    assert sum(PROTECTION.find(copy) is not None for copy in copies) >= 0.95 * len(copies)


def test_a_problem_with_other_numbers_is_another_problem() -> None:
    def others(text: str) -> str:
        return re.sub(r"\d+", lambda found: str(int(found[0]) * 3 + 2), text)

    numbered = [item for item in ITEMS if len(re.findall(r"\d+", item.text)) >= 3 and "def " not in item.text]
    flagged = [item.item_id for item in numbered if PROTECTION.find(others(item.text)) is not None]
    # One has so many words between its numbers that half of its 8-grams have none: that is a near-copy.
    assert len(flagged) <= len(numbered) // 3


def test_other_problems_are_not_flagged() -> None:
    for text in (
        "Compute $\\binom{12}{7} - \\binom{11}{3}$.",
        "Simplify $\\sqrt{128} + \\sqrt{50}$.",
        "What is the remainder when $3^{100}$ is divided by $7$?",
        "How many positive divisors does 360 have?",
        'def merge(a: list[int], b: list[int]) -> list[int]:\n    """ Merge two sorted lists.\n    """\n',
        FILLER * 50,
        "",
    ):
        assert PROTECTION.find(text) is None


def test_the_strict_rules_take_one_gram() -> None:
    text = "A fair die is rolled six times. What is the probability that no face comes up twice in a row?"
    assert PROTECTION.find(text) is None
    match = Protection([FINGERPRINT], RuleSet.OPEN_R1).find(text)
    assert match is not None
    assert match.rule is Rule.ONE_GRAM


def test_a_match_says_what_was_found_and_how_much_of_it() -> None:
    match = PROTECTION.find(ITEMS[0].text)
    assert match is not None
    assert str(match) == "made (1) item made-01, rule same_text, 1.00 of it"


def test_without_benchmarks_everything_is_clean() -> None:
    assert Protection([]).find(ITEMS[0].text) is None


# Fingerprints.


def test_a_fingerprint_survives_its_file_and_has_no_text_in_it(tmp_path: Path) -> None:
    path = tmp_path / "made.parquet"
    write_fingerprint(FINGERPRINT, path)
    read = read_fingerprint(path)
    assert read.benchmark == FINGERPRINT.benchmark
    assert read.items.equals(FINGERPRINT.items)
    assert [str(field.type) for field in read.items.schema if pa.types.is_string(field.type)] == ["string"]  # the id
    raw = path.read_bytes()
    assert not any(word in raw for word in (b"lighthouse", b"Maren", b"palindromes"))


def test_the_same_items_have_the_same_hashes_everywhere() -> None:
    assert FINGERPRINT.benchmark.sha256 == SHA256


def test_a_fingerprint_that_was_changed_or_is_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.parquet"
    write_fingerprint(FINGERPRINT, path)
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(ConfigError, match="are not those that were written"):
        read_fingerprint(path)
    metadata = {
        key: value.replace(b'"canonical_version": 1', b'"canonical_version": 0')
        for key, value in table.schema.metadata.items()
    }
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(ConfigError, match="build it again"):
        read_fingerprint(path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="is no fingerprint"):
        read_fingerprint(path)


def test_the_shipped_fingerprints_are_small_and_say_what_they_cover() -> None:
    covered = [fingerprint.benchmark for fingerprint in load_benchmarks(["shipped"], "against")]
    counts = {benchmark.name: benchmark.num_items for benchmark in covered}
    assert counts == {"aime-2024": 30, "gsm8k-test": 1319, "humaneval": 164, "math-500": 500}
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.parquet")) < 3e6
    assert not_covered(covered) == ["aime-2025", "gpqa-diamond", "livecodebench", "codeforces"]
    assert set(shipped_names()) <= set(KNOWN)


def test_a_benchmark_may_be_a_file_of_its_items(tmp_path: Path) -> None:
    (made,) = load_benchmarks([str(MADE)], "against")
    assert made.benchmark.name == "benchmark_made"
    assert made.benchmark.sha256 == FINGERPRINT.benchmark.sha256
    parquet = tmp_path / "turns.parquet"
    rows = [{"id": item.item_id, "prompt": [{"role": "user", "content": item.text}]} for item in ITEMS]
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    (turns,) = load_benchmarks([str(parquet)], "against")
    assert turns.benchmark.sha256 == FINGERPRINT.benchmark.sha256


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1}', "has no text in any of problem"),
        ("[1", "is not JSON"),
        ("", "holds no item"),
        ('{"problem": "?"}', "has no word"),
    ],
)
def test_a_file_that_is_no_benchmark_is_named_with_what_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=message):
        load_benchmarks([str(path)], "against")


def test_an_unknown_name_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'math-500'\? there are: shipped, aime-2024"):
        load_benchmarks(["math-50"], "schedule.clean.against")


SHA256 = "67642e2265f49f6fceba0274090370f112486d3dc601afe563b1028e8c3bf7d3"
