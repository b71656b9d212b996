"""Records are cut alike however a file is read, and CSV as the csv module cuts it."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.file_records import csv_ends, cut, line_ends


def csv_by_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """Records found when the data arrives in pieces, each time cutting what is whole so far."""
    found: list[bytes] = []
    start, end = 0, 0
    for size in [*sizes, len(data)]:
        end = min(len(data), end + size)
        records = cut(data[start:end], csv_ends(data[start:end], whole=False))
        found += records.values.to_pylist()
        start += records.end
    records = cut(data[start:], csv_ends(data[start:], whole=True))
    return found + records.values.to_pylist()


@given(st.lists(st.lists(st.text(alphabet='ab",\n ', max_size=6), min_size=2, max_size=3), max_size=8))
def test_csv_records_are_those_of_the_csv_module(rows: list[list[str]]) -> None:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerows(rows)
    data = output.getvalue().encode()
    records = cut(data, csv_ends(data, whole=False))
    assert records.end == len(data)
    parsed = [next(csv.reader(io.StringIO(value.decode(), newline=""))) for value in records.values.to_pylist()]
    assert parsed == list(csv.reader(io.StringIO(output.getvalue(), newline="")))


@given(st.text(alphabet='ab",\n\r', max_size=60), st.lists(st.integers(1, 9), max_size=8))
def test_any_bytes_cut_in_any_pieces_give_the_same_records(text: str, sizes: list[int]) -> None:
    data = text.encode()
    assert csv_by_pieces(data, sizes) == csv_by_pieces(data, [])


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), max_size=20))
def test_lines_lose_their_ends_and_blank_ones_vanish(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    records = cut(data, line_ends(data))
    wanted = [line[:-1] if line.endswith(b"\r") else line for line in lines]
    assert records.values.to_pylist() == [line for line in wanted if line]
    records.values.validate(full=True)
    for start, value in zip(records.starts.tolist(), records.values.to_pylist(), strict=True):
        assert data[start : start + len(value)] == value
