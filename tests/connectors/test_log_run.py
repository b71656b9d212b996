"""Runs of small frames against the plain reader: the same records and errors, whatever happened to the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.connectors import log_run
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.connectors.log_frame import Fence, arrays_of_body
from penstock.connectors.log_reader import PartitionReader
from penstock.errors import ConnectorError
from tests.connectors.conformance import drain
from tests.examples import examples

Row = tuple[int, bytes | None, bytes | None, int]
Frame = tuple[int, bool, bool, list[bytes | None]]

values = st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=6)
frames = st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.booleans(), values), max_size=25)


def write(topic: LogTopic, wanted: list[Frame]) -> None:
    """Frames of two producers in turn as each says; with keys, ending a version, or fenced."""
    with LogWriter(topic, "none") as one, LogWriter(topic, "none") as two:
        for number, (producer, keyed, marked, records) in enumerate(wanted):
            writer = (one, two)[producer]
            keys = [b"k%d" % place if place % 3 else None for place in range(len(records))] if keyed else None
            fence = Fence(b"f" * 16, number, 0, len(records), 1, True) if keyed and not marked else None
            writer.append(0, records, keys, fence=fence)
            if marked:
                writer.end_version(0)
        one.flush()


def plainly(topic: LogTopic) -> tuple[list[Row], int, str]:
    """All rows, frame by frame; the offset where they end, and the code of the error that ends them."""
    reader, rows, end = PartitionReader(topic, 0), [], 0
    try:
        for frame in reader.frames(reader.seek(reader.earliest())):
            found, keys = arrays_of_body(frame.header, frame.body)
            for place, value in enumerate(found.to_pylist()):
                key = keys[place].as_py() if keys is not None else None
                rows.append((frame.header.base_offset + place, value, key, frame.header.append_us))
            end = frame.header.next_offset
        return rows, end, ""
    except ConnectorError as problem:
        return rows, end, problem.code
    finally:
        reader.close()


def in_runs(topic: LogTopic, max_rows: int, max_bytes: int) -> tuple[list[Row], int, str]:
    """The same from the source."""
    source, rows, offset = LogSource(topic), [], 0
    try:
        while (batch := source.read(0, offset, max_rows, max_bytes)) is not None:
            assert batch.times is not None
            keys = batch.keys.to_pylist() if batch.keys is not None else [None] * batch.rows
            times = batch.times.cast("int64").to_pylist()
            rows += list(zip(batch.offsets.to_pylist(), batch.values.to_pylist(), keys, times, strict=True))
            assert batch.rows <= max_rows
            offset = batch.next_offset
        return rows, offset, ""
    except ConnectorError as problem:
        return rows, offset, problem.code
    finally:
        source.close()


def agree(topic: LogTopic, max_rows: int, max_bytes: int) -> None:
    """The same records and the same error; what lies before damage may be kept back with it."""
    rows, end, code = in_runs(topic, max_rows, max_bytes)
    plain_rows, plain_end, plain_code = plainly(topic)
    assert code == plain_code
    assert rows == (plain_rows[: len(rows)] if code else plain_rows)
    assert end <= plain_end if code else end == plain_end


def harm(topic: LogTopic, where: float, how: str) -> None:
    """Cut the newest segment, change a byte of it, or add some; nobody has said that it was durable."""
    path = sorted((topic.path / "p00000").glob("*.log"))[-1]
    (topic.path / "p00000" / "synced").unlink(missing_ok=True)
    data = bytearray(path.read_bytes())
    place = 64 + int((len(data) - 64) * where)
    match how:
        case "cut":
            del data[place:]
        case "change" if place < len(data):
            data[place] ^= 0x41
        case "garbage":
            data += b"PSF1" + bytes(200)
    path.write_bytes(bytes(data))


@settings(max_examples=examples(80), deadline=None)
@given(
    frames,
    st.sampled_from(["", "cut", "change", "garbage"]),
    st.floats(0, 0.999),
    st.sampled_from([4_096, 1 << 20]),
    st.integers(1, 9),
    st.sampled_from([10, 1 << 20]),
)
@example([(0, False, False, [b"a"]), (1, True, False, [b"b", None])], "change", 0.3, 4_096, 9, 1 << 20)
def test_the_source_gives_what_the_plain_reader_gives(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: list[Frame],
    how: str,
    where: float,
    segment_bytes: int,
    max_rows: int,
    max_bytes: int,
) -> None:
    topic = LogTopic.create(tmp_path_factory.mktemp("log") / "t", segment_bytes=segment_bytes)
    write(topic, wanted)
    harm(topic, where, how)
    agree(topic, max_rows, max_bytes)


def test_large_frames_among_small_ones_are_chunks_of_their_own(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    large = [b"%d" % number for number in range(log_run.LARGE_FRAME_RECORDS)]
    with LogWriter(topic, "none") as writer:
        for records in ([b"a"], large, [b"b"], [b"c" * 2_000_000], [b"d"], large):
            writer.append(0, records)
    assert in_runs(topic, 100_000, 1 << 30) == plainly(topic)
    batch = LogSource(topic).read(0, 0, 100_000, 1 << 30)
    assert batch is not None
    assert [len(chunk) for chunk in batch.values.chunks][:2] == [1, len(large)]


def test_a_run_stops_before_what_is_not_whole() -> None:
    assert log_run.run_of(b"", 0, 10).headers == []
    assert log_run.run_of(bytes(200), 0, 10).headers == []


@pytest.mark.slow
def test_every_changed_byte_and_every_cut_is_seen_as_the_plain_reader_sees_it(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic, "none") as writer:
        for records in ([b"aaaaaaaa", b"b"], [b"cc"], [b"d", b"e", b"f"]):
            writer.append(0, records)
        writer.flush()
    (topic.path / "p00000" / "synced").unlink()
    path = next((topic.path / "p00000").glob("*.log"))
    right = path.read_bytes()
    for place in range(64, len(right)):
        for data in (right[:place], right[:place] + bytes([right[place] ^ 0x10]) + right[place + 1 :]):
            path.write_bytes(data)
            agree(topic, 100, 1 << 20)
    path.write_bytes(right)
    assert in_runs(topic, 100, 1 << 20)[1] == 6


def test_a_reader_learns_of_segments_that_begin_and_leave_while_it_waits(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    source = LogSource(topic)
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        batch = source.read(0, 0, 10, 1 << 20)
        assert batch is not None
        assert source.read(0, 1, 10, 1 << 20) is None
        assert source.latest(0) == 1
        writer.append(0, [b"b" * 5_000])
        writer.append(0, [b"c"])
        assert source.latest(0) == 3
        offset = 1
        while (batch := source.read(0, offset, 10, 1 << 20)) is not None:
            offset = batch.next_offset
        assert offset == 3
        writer.append(0, [b"d" * 5_000])
        writer.clear(0)
        assert drain(source, 0, 3) == ([(3, b"d" * 5_000)], 4)
        writer.append(0, [b"e" * 5_000])
        assert drain(source, 0, 4) == ([(4, b"e" * 5_000)], 5)
        for _ in range(2):
            writer.append(0, [b"f" * 5_000])
            writer.clear(0)
        with pytest.raises(ConnectorError) as caught:
            drain(source, 0, 5)
        assert caught.value.code == "PS-CONN-005"
    source.close()
