"""The log as a source: the conformance suite, and what only the log has (keys, marks, retention, timestamps)."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.connectors import log_reader
from penstock.connectors.base import Url
from penstock.connectors.log import LogSource, LogTopic, LogVersions, LogWriter
from penstock.connectors.log_frame import Header, body_is_right
from penstock.connectors.log_run import LARGE_FRAME_RECORDS
from penstock.connectors.log_topic import Position, read_synced
from penstock.errors import ConnectorError
from tests.connectors.conformance import BrokerConformance, drain
from tests.examples import examples


class LogHarness:
    partitions = 3

    def __init__(self, folder: Path) -> None:
        self.topic = LogTopic.create(folder / "topic", 3)

    def write(self, partition: int, values: list[bytes | None]) -> None:
        with LogWriter(self.topic, "none") as writer:
            writer.append(partition, values)

    def open(self, start: str = "earliest") -> LogSource:
        return LogSource.open(Url("log", str(self.topic.path), {"start": start}))


class TestLogSource(BrokerConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> LogHarness:
        return LogHarness(tmp_path)


def test_many_tiny_frames_make_few_chunks(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic, "none") as writer:
        for number in range(5_000):
            writer.append(0, [b"%d" % number], [b"k"] if number % 3 else None)
        writer.append(0, [b"x"] * 3_000)
    batch = LogSource(topic).read(0, 0, 10_000, 1 << 20)
    assert batch is not None
    assert batch.rows == 8_000
    assert batch.keys is not None
    assert len(batch.values.chunks) <= 5
    assert [len(chunk) for chunk in batch.values.chunks] == [len(chunk) for chunk in batch.offsets.chunks]
    assert min(len(chunk) for chunk in batch.values.chunks[:2]) >= LARGE_FRAME_RECORDS
    assert batch.values.to_pylist()[:5_000] == [b"%d" % number for number in range(5_000)]
    assert batch.keys.to_pylist()[:5_000] == [b"k" if number % 3 else None for number in range(5_000)]
    assert batch.offsets.to_pylist() == list(range(8_000))


@settings(max_examples=examples(40), deadline=None)
@given(
    frames=st.lists(st.lists(st.one_of(st.none(), st.binary(max_size=30)), max_size=5), max_size=12),
    marks=st.sets(st.integers(0, 11)),
    max_rows=st.integers(1, 7),
    max_bytes=st.integers(1, 60),
)
def test_any_frames_and_any_reads_give_all_records(
    tmp_path_factory: pytest.TempPathFactory,
    frames: list[list[bytes | None]],
    marks: set[int],
    max_rows: int,
    max_bytes: int,
) -> None:
    topic = LogTopic.create(tmp_path_factory.mktemp("log") / "t", segment_bytes=4_096)
    wanted, offset = [], 0
    with LogWriter(topic, "none") as writer:
        for number, frame in enumerate(frames):
            assert writer.append(0, frame) == offset
            wanted += [(offset + row, value) for row, value in enumerate(frame)]
            offset += len(frame)
            if number in marks:
                assert writer.end_version(0) == offset
                offset += 1
    source = LogSource(topic)
    assert drain(source, 0, 0, max_rows, max_bytes) == (wanted, offset)
    assert source.latest(0) == offset
    for start, _ in wanted:
        assert drain(source, 0, start) == ([row for row in wanted if row[0] >= start], offset)
    source.close()


def test_what_is_left_of_a_large_frame_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[bytes | None] = [b"%07d" % number for number in range(3 * LARGE_FRAME_RECORDS)]
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic, "none") as writer:
        for start in (0, LARGE_FRAME_RECORDS):
            writer.append(0, values[start : start + (1 + bool(start)) * LARGE_FRAME_RECORDS])
    checked = []

    def check(header: Header, body: pa.Buffer) -> bool:
        checked.append(header.base_offset)
        return body_is_right(header, body)

    monkeypatch.setattr(log_reader, "body_is_right", check)
    source = LogSource(topic)
    read, _ = drain(source, 0, 0, LARGE_FRAME_RECORDS // 3)
    assert [value for _, value in read] == values
    assert checked == [0, LARGE_FRAME_RECORDS]
    # Whoever goes back reads it anew.
    assert drain(source, 0, 5)[0] == read[5:]
    source.close()


class Racing(LogSource):
    """A writer is as fast as whoever reads: each time that one looks whether there is more, there is."""

    writer: LogWriter

    def __init__(self, topic: LogTopic, most: int) -> None:
        super().__init__(topic)
        self.looks = 0
        reader = self._readers[0]
        is_at_end = reader.is_at_end

        def look(place: Position) -> bool:
            self.looks += 1
            if self.looks <= most:
                self.writer.append(0, [b"%d" % self.looks])
            return is_at_end(place)

        reader.is_at_end = look  # type: ignore[method-assign]


@pytest.mark.parametrize("large", [False, True])
def test_what_comes_while_it_is_read_is_for_the_next_read(tmp_path: Path, large: bool) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=1 << 20)
    first: list[bytes | None] = [b"x" * 100] * (LARGE_FRAME_RECORDS if large else 3)
    with LogWriter(topic, "none") as writer:
        source = Racing(topic, 50)
        source.writer = writer
        writer.append(0, first)
        batch = source.read(0, 0, 10_000, 1 << 20)
        assert batch is not None
        # what was written before the first look may come along, and nothing later
        assert len(first) <= batch.rows <= len(first) + 1
        assert source.caught_up(0)
        more = source.read(0, batch.next_offset, 10_000, 1 << 20)
        assert more is not None
        assert source.caught_up(0)
        assert 1 <= more.rows <= 2
        # a drain goes on to the end, which comes after fifty records
        rest = source.read(0, more.next_offset, 10_000, 1 << 20, 1 << 40)
        assert rest is not None
        assert not source.caught_up(0)
        assert batch.rows + more.rows + rest.rows == len(first) + 50
        source.close()


def test_all_segments_that_are_there_are_one_read(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    with LogWriter(topic, "none") as writer:
        for _ in range(20):
            writer.append(0, [b"y" * 1_000])
    source = LogSource(topic)
    batch = source.read(0, 0, 10_000, 1 << 20)
    assert batch is not None
    assert batch.rows == 20
    assert len(list(topic.folder(0).glob("*"))) > 3
    assert source.caught_up(0)
    assert source.read(0, batch.next_offset, 10_000, 1 << 20) is None
    source.close()


class Slow:
    """In place of `files.sync`: waits until it may go on, and remembers what it synced."""

    def __init__(self) -> None:
        self.go, self.synced = threading.Event(), set[str]()
        self.problem: OSError | None = None

    def __call__(self, descriptor: int, path: Path) -> None:
        os.fstat(descriptor)
        assert self.go.wait(20)
        if self.problem is not None:
            raise self.problem
        self.synced.add(path.parent.name)


def test_a_source_that_settles_aside_does_not_wait_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, slow = LogTopic.create(tmp_path / "t", 2, segment_bytes=4_096), Slow()
    with LogWriter(topic, "none") as writer:
        for partition in (0, 1):
            writer.append(partition, [b"a" * 5_000])
            writer.append(partition, [b"b"])
        monkeypatch.setattr("penstock.connectors.log_reader.files.sync", slow)
        source = LogSource(topic)
        source.settle_aside()
        assert [drain(source, partition, 0)[1] for partition in (0, 1)] == [2, 2]
        assert slow.synced == set()
        slow.go.set()
        source.settle()
        assert slow.synced == {"p00000", "p00001"}
        for partition in (0, 1):
            known = read_synced(topic.folder(partition))
            assert known is not None
            assert known.offset == 2
        slow.synced.clear()
        assert drain(source, 0, 0)[1] == 2
        source.settle()
        assert slow.synced == set()
        source.close()


def test_a_sync_aside_that_fails_is_told_when_it_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, slow = LogTopic.create(tmp_path / "t"), Slow()
    slow.go.set()
    slow.problem = OSError("disk")
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        monkeypatch.setattr("penstock.connectors.log_reader.files.sync", slow)
        source = LogSource(topic)
        source.settle_aside()
        assert drain(source, 0, 0)[1] == 1
        with pytest.raises(OSError, match="disk"):
            source.settle()
        assert read_synced(topic.folder(0)) is None
        source.close()


def test_reading_below_the_earliest_offset_is_an_error(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a", b"b"])
        source = LogSource(topic)
        assert drain(source, 0, 0)[1] == 2
        topic.clear()
        writer.append(0, [b"c"])
    assert drain(source, 0, 2)[0] == [(2, b"c")]
    with pytest.raises(ConnectorError, match="at least 2") as caught:
        source.read(0, 1, 10, 100)
    assert caught.value.code == "PS-CONN-005"
    source.close()


def test_a_reader_that_retention_has_overtaken_is_told(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096, retention_bytes=4_096)
    source = LogSource(topic)
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        assert drain(source, 0, 0)[1] == 1
        for _ in range(30):
            writer.append(0, [b"x" * 1_000])
    with pytest.raises(ConnectorError, match="out of range") as caught:
        drain(source, 0, 1)
    assert caught.value.code == "PS-CONN-005"
    source.close()


def test_start_at_a_timestamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    with LogWriter(topic, "none") as writer:
        for second in range(20):
            moment_ns = int(noon.timestamp() + second) * 1_000_000_000
            monkeypatch.setattr("penstock.connectors.log_writer.time.time_ns", lambda moment=moment_ns: moment)
            writer.append(0, [b"x" * 500])
    monkeypatch.undo()

    def start(timestamp: str) -> int:
        source = LogSource.open(Url("log", str(topic.path), {"start": timestamp}))
        try:
            return source.start(0)
        finally:
            source.close()

    assert start("2026-01-01T12:00:07") == 7
    assert start("2026-01-01T12:00:07.5") == 8
    assert start("2026-01-01T13:00:16+01:00") == 16
    assert start("2025-01-01") == 0
    assert start("2027-01-01") == 20
    with pytest.raises(ConnectorError) as caught:
        start("yesterday")
    assert caught.value.code == "PS-CONN-008"


class TestVersions:
    def test_a_version_is_complete_or_invisible(self, tmp_path: Path) -> None:
        topic = LogTopic.create(tmp_path / "t")
        versions = LogVersions.open(Url("log", str(topic.path)))
        with LogWriter(topic, "none") as writer:
            writer.append(0, [b"a", b"b"])
            assert versions.poll(None) is None
            writer.end_version(0)
            first = versions.poll(None)
            assert first is not None
            assert [value for batch in first.batches for value in batch.values.to_pylist()] == [b"a", b"b"]
            writer.append(0, [b"c"])
            assert versions.poll(first.id) is None
            writer.end_version(0)
            writer.append(0, [b"d"])
            second = versions.poll(first.id)
            assert second is not None
            assert second.id != first.id
            assert [value for batch in second.batches for value in batch.values.to_pylist()] == [b"c"]
            writer.end_version(0)
            writer.end_version(0)
            empty = versions.poll(second.id)
            assert empty is not None
            assert empty.batches == ()
            assert versions.recall(first.id) == first
            assert versions.recall(second.id) == second
            assert versions.recall("0") is None
        versions.close()

    def test_all_partitions_must_end_a_version(self, tmp_path: Path) -> None:
        topic = LogTopic.create(tmp_path / "t", 2)
        versions = LogVersions.open(Url("log", str(topic.path)))
        with LogWriter(topic, "none") as writer:
            writer.append(0, [b"a"])
            writer.append(1, [b"b"])
            writer.end_version(0)
            assert versions.poll(None) is None
            writer.end_version(1)
            found = versions.poll(None)
        assert found is not None
        assert sorted(value for batch in found.batches for value in batch.values.to_pylist()) == [b"a", b"b"]
        topic.clear()
        with LogWriter(topic, "none") as writer:
            writer.end_version(0)
            writer.end_version(1)
        with pytest.raises(ConnectorError, match="can no longer be counted"):
            versions.poll(None)
        versions.close()


def test_a_missing_topic_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError) as caught:
        LogSource.open(Url("log", str(tmp_path / "none")))
    assert caught.value.code == "PS-CONN-006"
