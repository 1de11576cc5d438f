"""The digest of rows says what a table says, whatever carries it."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.rowdigest import RowDigest, digest_of_files, schema_sha256

INNER = pa.struct([("name", pa.string()), ("value", pa.float64()), ("is_odd", pa.bool_())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("number", pa.int32()),
        ("seen_at", pa.timestamp("us", tz="UTC")),
        ("words", pa.list_(pa.string())),
        ("inner", INNER),
        ("checks", pa.list_(INNER)),
    ]
)
LARGE_INNER = pa.struct([("name", pa.large_string()), ("value", pa.float64()), ("is_odd", pa.bool_())])
LARGE = pa.schema(
    [
        ("id", pa.large_string()),
        ("number", pa.int32()),
        ("seen_at", pa.timestamp("us", tz="UTC")),
        ("words", pa.large_list(pa.large_string())),
        ("inner", LARGE_INNER),
        ("checks", pa.large_list(LARGE_INNER)),
    ]
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
inners = st.fixed_dictionaries(
    {
        "name": st.none() | texts,
        "value": st.none()
        | st.floats(allow_nan=False).map(lambda value: value + 0.0),  # 0.0 and -0.0 are equal to Arrow
        "is_odd": st.none() | st.booleans(),
    }
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.none() | texts,
            "number": st.none() | st.integers(-(2**31), 2**31 - 1),
            "seen_at": st.none() | st.integers(0, 2**50),
            "words": st.none() | st.lists(st.none() | texts, max_size=3),
            "inner": st.none() | inners,
            "checks": st.none() | st.lists(st.none() | inners, max_size=3),
        }
    ),
    max_size=8,
)


def digest(*tables: pa.Table) -> str:
    made = RowDigest()
    for table in tables:
        made.update(table)
    return made.hexdigest()


@settings(max_examples=60, deadline=None)
@given(rows, st.lists(st.integers(0, 8), max_size=4))
def test_batches_slices_and_offsets_make_no_difference(values, cuts):
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    expected = digest(table)
    ends = sorted({min(cut, len(values)) for cut in cuts} | {0, len(values)})
    parts = [table.slice(start, end - start) for start, end in pairwise(ends)]
    assert digest(table.slice(0, 0), *parts) == expected
    assert digest(*(batch for part in parts for batch in part.to_batches()), table.slice(0, 0)) == expected
    assert digest(pa.Table.from_pylist(values, schema=LARGE)) == expected
    padded = pa.concat_tables([table, table]).combine_chunks()
    assert digest(padded.slice(len(values))) == expected, "what lies before a slice is not part of it"


@settings(max_examples=60, deadline=None)
@given(rows, rows)
def test_other_rows_have_another_digest(some, others):
    one, other = (pa.Table.from_pylist(values, schema=SCHEMA) for values in (some, others))
    assert (digest(one) == digest(other)) == one.equals(other)


def test_what_lies_below_a_null_is_not_seen():
    hidden = pa.StructArray.from_arrays(
        [pa.array(["secret", "b"]), pa.array([1.0, 2.0]), pa.array([True, False])],
        fields=list(INNER),
        mask=pa.array([True, False]),
    )
    plain = pa.array([None, {"name": "b", "value": 2.0, "is_odd": False}], INNER)
    assert digest(pa.table({"a": hidden})) == digest(pa.table({"a": plain}))


def test_order_names_types_and_borders_between_values_are_seen():
    tables = [
        pa.table({"a": ["ab", "c"]}),
        pa.table({"a": ["a", "bc"]}),
        pa.table({"a": ["c", "ab"]}),
        pa.table({"b": ["ab", "c"]}),
        pa.table({"a": ["ab", "c", None]}),
        pa.table({"a": ["ab", "c", ""]}),
        pa.table({"a": [["a", "b"], ["c"]]}),
        pa.table({"a": [["a"], ["b", "c"]]}),
        pa.table({"a": pa.array([], pa.int32())}),
        pa.table({"a": pa.array([], pa.int64())}),
    ]
    assert len({digest(table) for table in tables}) == len(tables)


def test_codecs_row_groups_and_dictionaries_make_no_difference(tmp_path):
    table = pa.table({"id": [str(n) for n in range(50)], "kind": ["a", "b"] * 25, "number": list(range(50))})
    one, two, three = (tmp_path / f"{n}.parquet" for n in range(3))
    pq.write_table(table, one)
    pq.write_table(table.slice(0, 30), two, compression="zstd", row_group_size=7, use_dictionary=False)
    pq.write_table(table.slice(30), three, compression="gzip")
    assert digest_of_files([one]) == digest_of_files([two, three]) == digest(table)
    encoded = table.set_column(1, "kind", table["kind"].dictionary_encode())
    assert digest(encoded) == digest(table)
    assert digest_of_files([two, three], ["kind"]) == digest(table.select(["kind"]))
    assert schema_sha256(encoded.schema) == schema_sha256(table.schema)


def test_other_columns_in_between_are_refused():
    with pytest.raises(ValueError, match="one digest is of one table"):
        digest(pa.table({"a": [1]}), pa.table({"a": ["1"]}))
    with pytest.raises(ValueError, match=r"column 'a'.*has no place in a published table"):
        digest(pa.table({"a": [b"1"]}))
