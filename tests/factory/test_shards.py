"""Rows through buckets and into files: whole, in order, and the same bytes whatever way they came."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.buckets import NUM_PARTS, Buckets, group_starts, ranges
from factory.joining import whole_groups
from factory.rowdigest import digest_of_files
from factory.shards import ShardWriter, row_bytes
from schemas.errors import CorruptRunError
from tests.strategies import hex_ids

SCHEMA = pa.schema([("problem_id", pa.string()), ("words", pa.list_(pa.string())), ("number", pa.int32())])


def make(ids: list[str]) -> pa.Table:
    rows = [{"problem_id": one, "words": [one[:3], None] * (n % 3), "number": n or None} for n, one in enumerate(ids)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(folder: Path, tables: list[pa.Table], **options: int) -> dict[str, str]:
    with ShardWriter(folder / "sft", SCHEMA, **options) as writer:
        for table in tables:
            writer.write(table)
    files = {path.name: path for path in sorted((folder / "sft").iterdir())}
    assert {f"sft/{name}": hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == {
        shard.name: shard.sha256 for shard in writer.shards
    }
    assert [path.stat().st_size for path in files.values()] == [shard.num_bytes for shard in writer.shards]
    assert writer.rows_sha256 == digest_of_files(files.values())
    assert writer.text_bytes == sum(int(row_bytes(table).sum()) for table in tables)
    return {shard.name: shard.sha256 for shard in writer.shards}


@given(st.lists(hex_ids, max_size=60), st.lists(st.integers(0, 60), max_size=5), st.integers(60, 3_000))
@settings(max_examples=25, deadline=None)
def test_what_is_written_depends_on_the_rows_alone(tmp_path_factory, ids, cuts, row_group_bytes):
    table = make(ids)
    options = {"row_group_bytes": row_group_bytes, "row_group_rows": 11, "shard_bytes": 6_000, "piece_bytes": 200}
    whole = write(tmp_path_factory.mktemp("whole"), [table], **options)
    ends = sorted({min(cut, len(ids)) for cut in cuts} | {0, len(ids)})
    parts = [table.slice(start, end - start) for start, end in pairwise(ends)]
    assert write(tmp_path_factory.mktemp("parts"), parts, **options) == whole


def test_row_groups_and_files_are_cut_by_bytes_and_hold_the_same_schema(tmp_path):
    schema = pa.schema([("trace_id", pa.string()), ("text", pa.string())])
    rows = [{"trace_id": f"{i:032x}", "text": "x" * 60} for i in range(25)]  # a hundred bytes each
    with ShardWriter(tmp_path / "sft", schema, row_group_bytes=399, shard_bytes=400) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    paths = sorted((tmp_path / "sft").iterdir())
    assert [path.name for path in paths] == [f"train-{i:05d}-of-0000{len(paths)}.parquet" for i in range(len(paths))]
    assert len(paths) > 2
    metadata = [pq.ParquetFile(path).metadata for path in paths]
    sizes = [one.row_group(group).num_rows for one in metadata for group in range(one.num_row_groups)]
    assert sizes == [3] * 8 + [1]
    assert [row for path in paths for row in pq.read_table(path).to_pylist()] == rows
    assert all(pq.read_schema(path).equals(schema) for path in paths)
    assert [shard.rows for shard in writer.shards] == [one.num_rows for one in metadata]
    assert metadata[0].row_group(0).column(1).compression == "ZSTD"
    assert metadata[0].row_group(0).column(1).has_offset_index


def test_a_row_larger_than_a_row_group_has_one_of_its_own(tmp_path):
    schema = pa.schema([("text", pa.string())])
    table = pa.table({"text": ["a", "b" * 500, "c", "d"]}, schema=schema)
    with ShardWriter(tmp_path / "sft", schema, row_group_bytes=100) as writer:
        writer.write(table)
    metadata = pq.ParquetFile(tmp_path / writer.shards[0].name).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [1, 1, 2]


def test_a_table_with_other_columns_is_refused_by_name(tmp_path):
    with ShardWriter(tmp_path / "sft", SCHEMA) as writer:
        odd = make([]).append_column("extra", pa.array([], pa.int8())).drop_columns(["words"])
        with pytest.raises(ValueError, match="sft: columns unknown extra; missing words"):
            writer.write(odd)
        with pytest.raises(ValueError, match="of another type number"):
            writer.write(make([]).set_column(2, "number", pa.array([], pa.int64())))


def test_only_texts_of_few_values_have_dictionaries(tmp_path):
    schema = pa.schema([("text", pa.string()), ("turns", pa.list_(pa.struct([("role", pa.string())])))])
    rows = [{"text": "same", "turns": [{"role": "user"}]}] * 9
    with ShardWriter(tmp_path / "sft", schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    group = pq.ParquetFile(tmp_path / writer.shards[0].name).metadata.row_group(0)
    assert [group.column(n).has_dictionary_page for n in range(2)] == [False, True]


@given(st.lists(st.lists(hex_ids, max_size=9), max_size=9), st.integers(1, 3_000), st.integers(1, 3_000))
@settings(max_examples=30, deadline=None)
def test_rows_come_out_by_problem_whether_or_not_they_went_through_a_file(tmp_path_factory, tables, spill, most):
    with Buckets(tmp_path_factory.mktemp("spill"), "rows", SCHEMA, spill_bytes=spill) as buckets:
        for ids in tables:
            buckets.add(make(ids))
        buckets.close()
        parts = ranges(buckets.num_bytes, most)
        assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
        assert parts[-1][1] == NUM_PARTS
        read = [buckets.read(first, last) for first, last in parts]
        assert [table.to_pylist() for table in read] == [buckets.read(*part).to_pylist() for part in parts]
    ids = [[row["problem_id"][:3] for row in table.to_pylist()] for table in read]
    for earlier, later in pairwise(ids):
        assert not earlier or not later or max(earlier) < min(later)
    came = [row for part in tables for row in make(part).to_pylist()]
    out = [row for table in read for row in table.to_pylist()]
    order = sorted(came, key=lambda row: row["problem_id"])
    assert sorted(out, key=lambda row: row["problem_id"]) == order, "stable: those of one problem as they came"


def test_what_is_no_id_is_named(tmp_path):
    with Buckets(tmp_path, "rows", SCHEMA) as buckets:
        buckets.add(make(["ab0", "AB0"]))
        with pytest.raises(CorruptRunError, match="problem_id 'AB0' is no id"):
            buckets.close()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=12), st.integers(1, 40))
def test_cuts_are_between_problems(groups, most):
    ids = pa.array([f"{number:04d}" for number, (size, _) in enumerate(groups) for _ in range(size)], pa.string())
    sizes = np.array([size for number, size in groups for _ in range(number)], np.int64)
    starts = group_starts(ids)
    cuts = list(whole_groups(starts, sizes, most))
    assert [start for start, _ in cuts] == [0, *(end for _, end in cuts[:-1])][: len(cuts)]
    assert (cuts[-1][1] if cuts else 0) == len(ids)
    for start, end in cuts:
        assert start in starts
        assert sizes[start:end].sum() <= most or sum(start <= one < end for one in starts) == 1


def test_bytes_of_a_row_do_not_depend_on_its_neighbours():
    table = make([f"{n:032x}" for n in range(20)])
    sizes = row_bytes(table).tolist()
    assert [int(row_bytes(table.slice(n, 1))[0]) for n in range(20)] == sizes
    assert row_bytes(table.slice(7)).tolist() == sizes[7:]
