"""What is packed into a frame comes out of it, and a changed byte is always seen."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.log_frame import (
    HEADER_BYTES,
    Fence,
    arrays_of_body,
    body_is_right,
    body_of_arrays,
    body_of_list,
    pack_header,
    unpack_header,
)
from penstock.errors import ConnectorError

cells = st.one_of(st.none(), st.binary(max_size=12))
records = st.lists(st.tuples(cells, cells), min_size=1, max_size=40)


@given(records, st.booleans(), st.integers(0, 3))
def test_lists_and_arrays_make_the_same_body_and_come_back(
    rows: list[tuple[bytes | None, bytes | None]], keyed: bool, skip: int
) -> None:
    values, keys = [value for value, _ in rows], [key for _, key in rows]
    padding = [b"pad", None, b"xy"][:skip]
    array = pa.array(padding + values, pa.binary())[skip:]
    key_array = pa.array(padding + keys, pa.binary())[skip:]
    one = body_of_list(values, keys if keyed else None)
    assert one == body_of_arrays(array, key_array if keyed else None)
    assert len(one.data) % 8 == 0
    header = unpack_header(pack_header(one, 7, 99))
    assert header is not None
    assert (header.base_offset, header.append_us, header.next_offset) == (7, 99, 7 + len(rows))
    body = pa.py_buffer(one.data)
    assert body_is_right(header, body)
    got_values, got_keys = arrays_of_body(header, body)
    got_values.validate(full=True)
    assert got_values.to_pylist() == values
    assert (got_keys.to_pylist() if got_keys is not None else None) == (keys if keyed else None)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_every_flipped_bit_is_seen(value: bytes, data: st.DataObject) -> None:
    body = body_of_list([value], None)
    frame = bytearray(pack_header(body, 3, 4) + body.data)
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    header = unpack_header(bytes(frame))
    assert header is None or not body_is_right(header, pa.py_buffer(bytes(frame[HEADER_BYTES:])))


def test_a_fence_comes_back() -> None:
    fence = Fence(b"0123456789abcdef", 5, 10, 12, 3, True)
    header = unpack_header(pack_header(body_of_list([b"a", b"b"], None), 0, 0, 0, fence))
    assert header is not None
    assert header.fence == fence


def test_a_frame_of_a_newer_version_is_neither_skipped_nor_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.connectors.log_frame.VERSION", 2)
    newer = pack_header(body_of_list([b"a"], None), 0, 0)
    monkeypatch.undo()
    with pytest.raises(ConnectorError, match="another version"):
        unpack_header(newer)
