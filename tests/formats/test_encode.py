"""An encoder that stays prepared writes what a fresh one writes, whatever came before."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.formats.encode import Encoder, encode
from tests.examples import examples

START = datetime(2026, 1, 1)
VALUES = st.tuples(
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    st.one_of(st.none(), st.text(max_size=5)),
    st.one_of(st.none(), st.floats()),
    st.one_of(st.none(), st.integers(0, 10**9).map(lambda s: START + timedelta(seconds=s))),
    st.sampled_from(["+I", "-U", "+U", "-D"]),
)
TYPES = (pa.int64(), pa.string(), pa.float64(), pa.timestamp("us"), pa.string())


def table(rows: list[tuple[object, ...]], names: list[str]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in TYPES]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, TYPES, strict=True)]
    return pa.Table.from_arrays(arrays, names=names)


@settings(max_examples=examples(30), deadline=None)
@given(
    st.sampled_from(["changelog", "upsert", "debezium", "json"]),
    st.lists(st.tuples(st.lists(VALUES, max_size=6), st.booleans()), min_size=1, max_size=5),
)
def test_what_came_before_changes_nothing(format: str, epochs: list[tuple[list[tuple[object, ...]], bool]]) -> None:
    encoder = Encoder(format, ("a",))
    try:
        for rows, renamed in epochs:
            changes = table(rows, ["a", "other" if renamed else "b", "c", "d", "_op"])
            expected, found = encode(changes, format, ("a",)), encoder.encode(changes)
            assert found.values.equals(expected.values)
            assert found.keys is not None
            assert found.keys.equals(expected.keys)
    finally:
        encoder.close()


def test_an_epoch_that_cannot_be_encoded_does_not_spoil_the_next() -> None:
    encoder = Encoder("json", ("missing",))
    with pytest.raises(KeyError):
        encoder.encode(pa.table({"a": [1]}))
    found = encoder.encode(pa.table({"missing": [1]}))
    assert found.values.to_pylist() == [b'{"missing":1}']
    encoder.close()
