"""`--check-data` looks at the ids of all rows, into a sample of them, and reads little more of any table."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.students import rows as rows_module
from jobs.students.dpo import check_pairs
from jobs.students.prepare_base import prepare_base
from jobs.students.recipe import load_recipe
from jobs.students.rows import Table
from jobs.students.sft import check_data
from schemas.errors import GuardError
from tests.jobs.students.conftest import TINY
from tests.student_tables import make_pairs, make_rows, write_table

COLUMNS = ("row_id", "text")
READ, PICKED, GROUPS = 100_000, 10_000, 8  # in place of 240 MB, 12 MB, 64


@pytest.fixture(scope="module", autouse=True)
def _small_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "SAMPLE_READ_BYTES", READ)
        patch.setattr(rows_module, "SAMPLE_BYTES", PICKED)
        patch.setattr(rows_module, "SAMPLE_GROUPS", GROUPS)
        yield


def _table(path: Path, groups: list[list[int]], *, repeats: bool = False) -> Table:
    """Write a table whose rows have texts of so many bytes: noise, or one letter again and again."""
    noise, place = random.Random(1), 0
    with pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in COLUMNS])) as writer:
        for sizes in groups:
            texts = ["x" * size if repeats else noise.randbytes(size // 2).hex() for size in sizes]
            ids = [f"{place + n}" for n in range(len(sizes))]
            writer.write_table(pa.table({"row_id": ids, "text": texts}), row_group_size=max(1, len(sizes)))
            place += len(sizes)
    return Table(name="made", files=(path,))


def _sampled(table: Table) -> list[int]:
    return [int(row["row_id"]) for batch in table.sample(COLUMNS) for row in batch]


@given(
    groups=st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=150), min_size=1, max_size=30),
    repeats=st.booleans(),
)
def test_a_sample_is_bounded_in_order_the_same_each_time_and_all_of_a_small_table(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]], repeats: bool
) -> None:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    table = _table(path, groups, repeats=repeats)
    sizes = [size for group in groups for size in group]
    found = _sampled(table)
    assert found == sorted(set(found)) == _sampled(table)
    assert found[0] == 0 or sum(sizes) > READ // 2
    # a batch is taken whole or not at all, and a row has an id and two offsets beside its text
    batch = 64 * (400 + 16)
    assert sum(sizes[row] for row in found) <= PICKED + min(len(groups), 30) * batch
    if sum(sizes) + 100 * len(sizes) + 1000 * len(groups) < PICKED // max(1, len(groups)):
        assert found == list(range(len(sizes)))


@pytest.mark.parametrize("groups", [1, 5, 200])
def test_a_sample_is_spread_over_the_table(groups: int, tmp_path: Path) -> None:
    table = _table(tmp_path / "t.parquet", [[90] * (1000 // groups)] * groups)
    found = _sampled(table)
    assert 50 <= len(found) <= PICKED // 90
    gaps = [later - earlier for earlier, later in zip([0, *found], [*found, 999], strict=False)]
    assert max(gaps) <= 1000 // 4


@pytest.mark.parametrize("groups", [1, 500])
def test_of_a_large_table_little_is_read(groups: int, tmp_path: Path) -> None:
    counter = Path("/proc/self/io")  # bytes that this process asked files for
    if not counter.is_file():
        pytest.skip("this system does not count what a process reads")
    table = _table(tmp_path / "t.parquet", [[2_000] * (10_000 // groups)] * groups)

    def num_read() -> int:
        return int(counter.read_text().split("rchar: ")[1].split()[0])

    before = num_read()
    assert 1 <= len(_sampled(table)) <= 64
    assert num_read() - before < table.files[0].stat().st_size / 4


def test_a_check_says_how_many_of_how_many_rows_and_finds_an_id_that_comes_twice_in_any(tmp_path: Path) -> None:
    recipe, said = load_recipe("tiny-qwen", TINY), []
    model = prepare_base(recipe, tmp_path / "model")
    rows, pairs = make_rows(300), make_pairs(300)
    folder = write_table(write_table(tmp_path / "good", "sft_prompt_completion", rows), "preference", pairs)
    of_rows = check_data(recipe, str(folder), tmp_path / "a", said.append)
    of_pairs = check_pairs(recipe, model, str(folder), tmp_path / "b", said.append)
    for found, line in zip((of_rows, of_pairs), said, strict=True):
        assert found.num_rows == 300
        assert 10 < found.num_encoded < 100
        assert line.startswith(f"guards: {found.num_encoded} of 300 rows, and the ids of all, no fault; ")
    folder = write_table(tmp_path / "rows", "sft_prompt_completion", [*rows, rows[7], rows[8]])
    with pytest.raises(GuardError, match="guard ids: 2 of 302 rows; row trace-00007: its id came before"):
        check_data(recipe, str(folder), tmp_path / "a", said.append)
    folder = write_table(tmp_path / "pairs", "preference", [*pairs, pairs[7], pairs[8]])
    with pytest.raises(GuardError, match="guard ids: 2 of 302 rows; row pair-00007: its id came before"):
        check_pairs(recipe, model, str(folder), tmp_path / "b", said.append)
    same = [{**pair, "rejected": pair["chosen"]} for pair in pairs]
    folder = write_table(tmp_path / "same", "preference", same)
    with pytest.raises(GuardError, match=f"guard pairs: {of_pairs.num_encoded} of {of_pairs.num_encoded} rows; row"):
        check_pairs(recipe, model, str(folder), tmp_path / "b", said.append)
