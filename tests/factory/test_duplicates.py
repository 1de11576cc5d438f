"""Near-duplicates: found by what is truly shared, kept ones stand for them, batches change nothing."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.duplicates import DUPLICATES, LikeTraces, find_duplicates
from factory.shingles import batch_words, shingles, sign
from jobs.bench.clean import duplicates

WORDS = [f"{left}{right}" for left in ("ka", "lo", "mi", "ru", "te") for right in ("ban", "dor", "fin", "gul", "sam")]
words = st.lists(st.sampled_from(WORDS[:6]), max_size=12).map(" ".join)
sets_of_texts = st.lists(words | st.text(max_size=12), max_size=10)


def shingle_set(text: str) -> set[tuple[str, ...]]:
    found = text.split()
    return {tuple(found[place : place + 5]) for place in range(max(1, len(found) - 4))} if found else set()


def jaccard(one: str, other: str) -> float:
    left, right = shingle_set(one), shingle_set(other)
    return len(left & right) / len(left | right) if left or right else 0.0


def made(count: int, seed: int, length: int = 60) -> list[str]:
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 12))) for _ in range(4_000)]
    return [" ".join(rng.choices(vocabulary, k=length)) for _ in range(count)]


@given(st.lists(words, max_size=12), st.sampled_from([0.5, 0.8, 1.0]))
def test_what_is_reported_is_as_similar_as_it_says_to_an_earlier_kept_text(texts: list[str], threshold: float) -> None:
    found = find_duplicates(texts, threshold=threshold)
    assert found.schema.equals(DUPLICATES)
    rows = set(found["row"].to_pylist())
    for near in found.to_pylist():
        assert near["representative"] < near["row"]
        assert near["representative"] not in rows
        assert near["similarity"] >= threshold
        assert near["similarity"] == pytest.approx(jaccard(texts[near["row"]], texts[near["representative"]]), abs=1e-6)


@given(sets_of_texts)
def test_equal_texts_leave_the_first_of_them(texts: list[str]) -> None:
    found = find_duplicates(texts + texts, threshold=1.0)
    reported = set(found["row"].to_pylist())
    with_words = {
        place for place, text in enumerate(texts) if len(batch_words(pa.array([text], pa.large_string())).hashes)
    }
    assert {place + len(texts) for place in with_words} <= reported


@given(sets_of_texts, st.integers(1, 4))
def test_chunks_and_batches_change_no_hash_and_no_answer(texts: list[str], size: int) -> None:
    whole = pa.array(texts, pa.large_string())
    parts = [whole.slice(start, size) for start in range(0, len(whole), size)]
    for kind in range(3):
        together = sign(whole)[kind]
        apart = [sign(part)[kind] for part in parts]
        assert np.array_equal(together, np.concatenate(apart) if apart else together)
    chunked = pa.chunked_array(parts, pa.large_string())
    assert find_duplicates(chunked).equals(find_duplicates(texts))


@given(st.text(max_size=80))
def test_words_are_those_that_a_reader_sees(text: str) -> None:
    lowered = "".join(char.lower() if char.isascii() else char for char in text)
    expected: list[str] = []
    run = ""
    for char in lowered + " ":
        if not char.isascii() or char.isalnum():
            run += char
            continue
        if run:
            expected.append(run)
        run = ""
        if char in "+-*/=<>^!":
            expected.append(char)
    found = batch_words(pa.array([text], pa.large_string()))
    assert len(found.hashes) == len(expected)
    by_word = dict(zip(expected, found.hashes.tolist(), strict=True))
    assert [by_word[word] for word in expected] == found.hashes.tolist()
    assert len(set(by_word.values())) == len(by_word)


def test_hashes_are_the_same_in_every_process_and_on_every_platform() -> None:
    signed = sign(pa.array(["Maren climbs 214 steps every morning."], pa.large_string()))
    assert [int(signed.bands[0, 0]), int(signed.words[0]), int(signed.fixed[0])] == HASHES


def test_planted_copies_are_found_and_others_are_not() -> None:
    (row,) = duplicates(4_000, seed=5)
    assert row["recall (true >= 0.85)"] >= 0.95
    assert row["precision (true >= 0.75)"] == 1.0
    assert row["of pairs"] > 20


def test_a_hundred_thousand_equal_texts_are_one_and_their_copies() -> None:
    text = made(1, 1)[0]
    found = find_duplicates([text] * 100_000)
    assert len(found) == 99_999
    assert set(found["representative"].to_pylist()) == {0}


def test_a_large_cluster_of_slightly_different_texts_costs_few_comparisons() -> None:
    start = made(1, 2, length=200)[0].split()
    rng = random.Random(3)
    texts = []
    for number in range(5_000):
        changed = list(start)
        changed[rng.randrange(len(changed))] = f"other{number}"
        texts.append(" ".join(changed))
    found = find_duplicates(texts)
    assert len(found) > 4_900
    assert all(jaccard(texts[near["row"]], texts[near["representative"]]) >= 0.8 for near in found.to_pylist()[::50])


def test_a_chain_of_near_copies_does_not_take_its_ends_along() -> None:
    rng = random.Random(1)
    text = made(1, 7, length=80)[0].split()
    chain = [" ".join(text)]
    for number in range(12):
        text[rng.randrange(len(text))] = f"new{number}"
        chain.append(" ".join(text))
    for near in find_duplicates(chain).to_pylist():
        assert jaccard(chain[near["row"]], chain[near["representative"]]) >= 0.8
    assert jaccard(chain[0], chain[-1]) < 0.8


def test_a_problem_with_another_number_or_operator_is_another_problem() -> None:
    text = " ".join(made(1, 9)) + " so that 14 apples + 3 pears"
    others = [
        text.replace("14", "15"),
        text.replace("+", "-"),
        text.replace("14", "3").replace(" 3 pears", " 14 pears"),
    ]
    assert len(find_duplicates([text, *others])) == 3
    assert len(find_duplicates([text, *others], same_numbers=True)) == 0
    assert find_duplicates([text, text.upper(), *others], same_numbers=True)["row"].to_pylist() == [1]


def test_only_texts_with_the_same_key_are_compared() -> None:
    text = made(1, 11)[0]
    keys = np.array([1, 2, 1], np.uint64)
    assert find_duplicates([text] * 3, keys=keys).to_pylist() == [{"row": 2, "representative": 0, "similarity": 1.0}]


def test_texts_without_words_and_nulls_are_duplicates_of_nothing() -> None:
    assert len(find_duplicates(["", None, "...", "", "?"])) == 0
    assert len(find_duplicates([])) == 0


def test_of_like_traces_of_a_problem_the_shortest_is_kept() -> None:
    text, other = made(2, 13)
    like = LikeTraces(0.85)
    like.add(["p", "p", "q", "p"], ["longer", "other", "elsewhere", "short"], [f"{text} indeed", other, text, text])
    assert like.found() == {"longer": "short"}


@given(st.text(max_size=60))
@settings(max_examples=50)
def test_a_short_text_has_one_shingle_of_all_its_words(text: str) -> None:
    found = batch_words(pa.array([text], pa.large_string()))
    hashes, offsets = shingles(found)
    count = len(found.hashes)
    assert len(hashes) == offsets[-1] == (max(1, count - 4) if count else 0)


@pytest.mark.ray
def test_signatures_made_over_ray_are_those_made_here() -> None:
    from factory.actors import sign_over_ray
    from jobs.cluster import local_ray
    from jobs.freezing import signer

    texts = made(3_000, 17) + made(300, 17)
    column = pa.chunked_array([pa.array(texts[:1_700], pa.large_string()), pa.array(texts[1_700:], pa.large_string())])
    with local_ray():
        assert find_duplicates(column, sign_batches=sign_over_ray).equals(find_duplicates(column))
    assert find_duplicates(column, sign_batches=signer(None, num_here=1)).equals(find_duplicates(column))


HASHES = [7881810011048149128, 5433391873922024581, 5972551775946705207]
