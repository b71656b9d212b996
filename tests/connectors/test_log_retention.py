"""What retention by age lets go while nothing is written, and what it never touches."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.connectors import log_retention
from penstock.connectors.base import SinkContext, Url
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.connectors.log_retention import look_every_s
from penstock.connectors.registry import open_sink
from penstock.errors import ConnectorError
from tests.connectors.conformance import context, epoch_changes

HOUR_US = 3_600_000_000


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much later it is for retention, in microseconds."""
    added = [0]
    monkeypatch.setattr(log_retention, "_now_us", lambda: time.time_ns() // 1_000 + added[0])
    return added


def held(topic: LogTopic) -> tuple[int, int]:
    source = LogSource(topic)
    try:
        return source.earliest(0), source.latest(0)
    finally:
        source.close()


def segments(topic: LogTopic) -> int:
    return len(list(topic.folder(0).glob("*.log")))


def test_old_records_leave_though_nothing_is_written(tmp_path: Path, later: list[int]) -> None:
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(hours=1))
    with LogWriter(topic, fsync="commit") as writer:
        writer.append(0, [b"a", b"b"])
        writer.retain()
        assert (held(topic), segments(topic)) == ((0, 2), 1)
        later[0] = HOUR_US + 1_000_000
        writer.retain()
        assert (held(topic), segments(topic)) == ((2, 2), 1)
        # There is nothing in the new segment: looking again makes no other one.
        later[0] *= 3
        writer.retain()
        assert segments(topic) == 1
        assert writer.append(0, [b"c"]) == 2
    assert held(topic) == (2, 3)


def test_a_segment_that_is_written_to_for_long_is_followed_by_a_new_one(tmp_path: Path, later: list[int]) -> None:
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(hours=1))
    with LogWriter(topic, fsync="commit") as writer:
        writer.append(0, [b"a"])
        # The segment is old, and so is its record by now; the next one is not.
        later[0] = HOUR_US // 2
        writer.append(0, [b"b"])
        writer.retain()
        assert segments(topic) == 1
        later[0] = HOUR_US + 1_000_000
        writer.retain()
        assert held(topic) == (2, 2)


def test_young_records_stay_in_an_old_segment_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(hours=1))
    with LogWriter(topic, fsync="commit") as writer:
        writer.append(0, [b"a"])
        monkeypatch.setattr(log_retention, "is_old", lambda settings, segment: True)
        writer.retain()
    assert (held(topic), segments(topic)) == ((0, 1), 2)


def test_without_retention_by_age_nothing_ends(tmp_path: Path, later: list[int]) -> None:
    topic = LogTopic.create(tmp_path / "t", retention_bytes=1)
    with LogWriter(topic, fsync="commit") as writer:
        writer.append(0, [b"a"])
        later[0] = 1_000 * HOUR_US
        writer.retain()
    assert (held(topic), segments(topic)) == ((0, 1), 1)
    assert look_every_s(topic.settings) is None


@pytest.mark.parametrize("fsync", ["commit", "none", "5ms"])
def test_an_open_writer_looks_by_itself(tmp_path: Path, fsync: str) -> None:
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(milliseconds=100))
    with LogWriter(topic, fsync=fsync) as writer:
        writer.append(0, [b"a"])
        deadline = time.monotonic() + 30
        while held(topic)[0] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert writer.append(0, [b"b"]) == 1


def test_looking_while_others_write_loses_nothing_that_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments end at every look, and all records are still there, in order."""
    monkeypatch.setattr(log_retention, "is_old", lambda settings, segment: True)
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(hours=1))
    with LogWriter(topic, fsync="commit") as looking, LogWriter(topic, fsync="none") as writing:
        looking.append(0, [b"0"])

        enough = threading.Event()
        written = 1

        def write() -> None:
            nonlocal written
            while not enough.is_set():
                writing.append(0, [str(written).encode()])
                written += 1

        thread = threading.Thread(target=write)
        thread.start()
        looks = 0
        # A look ends a segment that has records; so many of them have met the other writer.
        while segments(topic) < 10:
            looking.retain()
            looks += 1
            assert thread.is_alive()
        enough.set()
        thread.join()
        writing.flush()
    source, offset, found = LogSource(topic), 0, []
    while (batch := source.read(0, offset, 1_000, 1 << 20)) is not None:
        found += batch.values.to_pylist()
        offset = batch.next_offset
    source.close()
    assert looks >= 9
    assert found == [str(number).encode() for number in range(written)]


def test_what_a_sink_has_delivered_is_known_after_all_records_have_left(tmp_path: Path, later: list[int]) -> None:
    url = Url("log", str(tmp_path / "t"), {"retention": "1h"})
    known: SinkContext = context()
    sink = open_sink(url, known)
    sink.deliver(7, epoch_changes(7, 3))
    sink.close()
    later[0] = 2 * HOUR_US
    topic = LogTopic.open(tmp_path / "t")
    with LogWriter(topic, fsync="commit") as writer:
        writer.fences(0)
        writer.retain()
    assert held(topic) == (3, 3)
    again = open_sink(url, known)
    assert again.delivered() == 7
    again.close()


def test_a_topic_that_is_deleted_meanwhile_is_told(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", retention=timedelta(hours=1))
    with LogWriter(topic, fsync="commit") as writer:
        writer.append(0, [b"a"])
        shutil.rmtree(tmp_path / "t")
        with pytest.raises(ConnectorError, match="PS-CONN-006"):
            writer.retain()
