"""Appending: order, times, sizes, several producers, damage, full disks, and what survives kills and power losses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.connectors.log_frame import MAX_FRAME_RECORDS
from penstock.errors import ConnectorError
from penstock.storage import failpoints, unsynced
from penstock.storage.files import AppendFile


@pytest.fixture
def topic(tmp_path: Path) -> LogTopic:
    return LogTopic.create(tmp_path / "t")


def read_all(topic: LogTopic, partition: int = 0) -> list[bytes | None]:
    source = LogSource(topic)
    try:
        offset, values = source.earliest(partition), []
        while (batch := source.read(partition, offset, 100_000, 1 << 26)) is not None:
            values += batch.values.to_pylist()
            offset = batch.next_offset
        assert offset == source.latest(partition)
        return values
    finally:
        source.close()


def segment(topic: LogTopic) -> Path:
    return sorted((topic.path / "p00000").glob("*.log"))[-1]


@pytest.mark.parametrize("fsync", ["commit", "none", "5ms"])
def test_records_come_back_in_order(topic: LogTopic, fsync: str) -> None:
    with LogWriter(topic, fsync) as writer:
        assert [writer.append(0, [b"a", None]), writer.append(0, [b""]), writer.append(0, [])] == [0, 2, 3]
        writer.flush()
        assert writer.durable_offset(0) == 3
    assert read_all(topic) == [b"a", None, b""]


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()],
    ids=["binary", "large", "text", "large_text"],
)
def test_arrow_arrays_of_any_width_and_slice(topic: LogTopic, kind: pa.DataType) -> None:
    array = pa.array(["skip", "a", None, "ccc", "dd"], kind)
    with LogWriter(topic) as writer:
        writer.append(0, array[1:])
        writer.append(0, pa.chunked_array([array[:0], array[1:2], array[3:]]), pa.array([b"k", None, b""], pa.binary()))
    assert read_all(topic) == [b"a", None, b"ccc", b"dd", b"a", b"ccc", b"dd"]


def test_many_records_are_cut_into_frames_that_fit(topic: LogTopic) -> None:
    rows = MAX_FRAME_RECORDS + 10
    with LogWriter(topic, "none") as writer:
        assert writer.append(0, [b"%d" % number for number in range(rows)]) == 0
        assert writer.append(0, [b"x" * (9 << 20), b"y" * (9 << 20)]) == rows
    values = read_all(topic)
    assert values[:rows] == [b"%d" % number for number in range(rows)]
    assert [len(value or b"") for value in values[rows:]] == [9 << 20, 9 << 20]


def test_a_record_beyond_the_limit_is_refused_and_leaves_nothing(
    topic: LogTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.connectors.log_writer.MAX_RECORD_BYTES", 100)
    monkeypatch.setattr("penstock.connectors.log_writer.MAX_FRAME_BYTES", 50)
    with LogWriter(topic) as writer:
        with pytest.raises(ConnectorError) as caught:
            writer.append(0, [b"ok", b"x" * 200])
        assert caught.value.code == "PS-CONN-007"
    assert read_all(topic) == []


def test_keys_must_match_the_values(topic: LogTopic) -> None:
    with LogWriter(topic) as writer, pytest.raises(ConnectorError, match="differ in number"):
        writer.append(0, [b"a"], [b"k", b"l"])


def test_a_wrong_fsync_is_refused(topic: LogTopic) -> None:
    with pytest.raises(ConnectorError, match="fsync is wrong"):
        LogWriter(topic, "often")


def test_append_times_never_go_backwards(topic: LogTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5_000_000, 3_000_000, 6_000_000])
    with LogWriter(topic, "none") as writer:
        monkeypatch.setattr("penstock.connectors.log_writer.time.time_ns", lambda: next(clock) * 1_000)
        for value in (b"a", b"b", b"c"):
            writer.append(0, [value])
    monkeypatch.undo()
    batch = LogSource(topic).read(0, 0, 10, 1_000)
    assert batch is not None
    assert batch.times is not None
    assert batch.times.cast(pa.int64()).to_pylist() == [5_000_000, 5_000_000, 6_000_000]
    monkeypatch.setattr("penstock.connectors.log_writer.time.time_ns", lambda: 1_000)
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"d"])
    batch = LogSource(topic).read(0, 3, 10, 1_000)
    assert batch is not None
    assert batch.times is not None
    assert batch.times.cast(pa.int64()).to_pylist() == [6_000_000]


def test_a_torn_tail_is_waited_for_then_cut_by_the_next_writer(topic: LogTopic) -> None:
    with LogWriter(topic) as writer:
        writer.append(0, [b"a"])
        whole = segment(topic).read_bytes()
        writer.append(0, [b"bbbbbbbbbbbbbb"])
    full = segment(topic).read_bytes()
    (topic.path / "p00000" / "synced").unlink()
    for length in range(len(whole) + 1, len(full)):
        segment(topic).write_bytes(full[:length])
        assert read_all(topic) == [b"a"]
    with LogWriter(topic) as writer:
        assert writer.append(0, [b"c"]) == 1
    assert read_all(topic) == [b"a", b"c"]


def test_garbage_behind_the_end_is_cut(topic: LogTopic) -> None:
    with LogWriter(topic) as writer:
        writer.append(0, [b"a"])
    with segment(topic).open("ab") as file:
        file.write(bytes(500))
    assert read_all(topic) == [b"a"]
    with LogWriter(topic) as writer:
        assert writer.append(0, [b"b"]) == 1
    assert read_all(topic) == [b"a", b"b"]


@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize("marked", [True, False])
def test_damage_before_right_data_names_file_and_byte(topic: LogTopic, where: str, marked: bool) -> None:
    with LogWriter(topic) as writer:
        writer.append(0, [b"aaaaaaaaa"])
        begin = segment(topic).stat().st_size
        writer.append(0, [b"bbbbbbbbb"])
        writer.append(0, [b"ccccccccc"])
    if not marked:
        (topic.path / "p00000" / "synced").unlink()
    data = bytearray(segment(topic).read_bytes())
    data[begin + (20 if where == "header" else 100)] ^= 1
    segment(topic).write_bytes(data)
    with pytest.raises(ConnectorError, match=rf"\.log, byte {begin}:") as caught:
        read_all(topic)
    assert caught.value.code == "PS-CONN-004"
    (topic.path / "p00000" / "synced").unlink(missing_ok=True)
    with LogWriter(topic) as writer, pytest.raises(ConnectorError) as caught:
        writer.append(0, [b"d"])
    assert caught.value.code == "PS-CONN-004"
    assert segment(topic).read_bytes() == data


def test_a_damaged_last_frame_that_was_durable_is_never_cut(topic: LogTopic) -> None:
    with LogWriter(topic, "commit") as writer:
        writer.append(0, [b"aaaaaaaaa"])
    data = bytearray(segment(topic).read_bytes())
    data[-1 - 8] ^= 1
    segment(topic).write_bytes(data)
    with pytest.raises(ConnectorError) as caught:
        read_all(topic)
    assert caught.value.code == "PS-CONN-004"


def test_a_full_disk_leaves_nothing_half_written(topic: LogTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        monkeypatch.setenv(failpoints.ARM_VARIABLE, "log.append@1=error")
        failpoints.reload()
        with pytest.raises(ConnectorError, match="No space") as caught:
            writer.append(0, [b"b"])
        monkeypatch.undo()
        failpoints.reload()
        assert caught.value.code == "PS-CONN-003"
        assert caught.value.retryable
        assert writer.append(0, [b"b"]) == 1
    assert read_all(topic) == [b"a", b"b"]


def test_a_write_that_ends_half_way_is_taken_back(topic: LogTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        size = segment(topic).stat().st_size
        write = AppendFile.write

        def half(self: AppendFile, buffers: Sequence[bytes]) -> int:
            if self.size > size:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, [b"".join(buffers)[:50]])

        monkeypatch.setattr(AppendFile, "write", half)
        with pytest.raises(ConnectorError, match="No space"):
            writer.append(0, [b"b" * 100])
        assert segment(topic).stat().st_size == size
        monkeypatch.setattr(AppendFile, "write", lambda self, buffers: write(self, [b"".join(buffers)[:50]]))
        assert writer.append(0, [b"c" * 100]) == 1
    assert read_all(topic) == [b"a", b"c" * 100]


def test_after_a_failed_sync_the_writer_refuses_to_go_on(topic: LogTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(topic, "1ms")
    monkeypatch.setenv(failpoints.ARM_VARIABLE, "log.sync@1=error")
    failpoints.reload()
    writer.append(0, [b"a"])
    deadline = time.monotonic() + 5
    while writer._failure is None and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(ConnectorError, match="No space"):
        writer.append(0, [b"b"])
    monkeypatch.undo()
    failpoints.reload()
    with pytest.raises(ConnectorError):
        writer.flush()
    with pytest.raises(ConnectorError):
        writer.close()


PRODUCER = """
import sys
from penstock.connectors.log import LogTopic, LogWriter
name, count = sys.argv[2].encode(), int(sys.argv[3])
with LogWriter(LogTopic.open(sys.argv[1]), sys.argv[4]) as writer:
    for number in range(count):
        writer.append(0, [b"%s-%d-%d" % (name, number, part) for part in range(3)])
        if sys.argv[4] == "commit":
            print(number, flush=True)
"""


def producer(topic: LogTopic, name: str, count: int, fsync: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCER, str(topic.path), name, str(count), fsync],
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        start_new_session=True,
    )


def expected(name: str, count: int) -> list[bytes]:
    return [f"{name}-{number}-{part}".encode() for number in range(count) for part in range(3)]


def test_several_producers_write_one_partition_and_segments_roll(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=20_000)
    running = [producer(topic, name, 400, "5ms") for name in "ab"]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    values = read_all(topic)
    assert len(values) == 2_400
    for name in "ab":
        assert [value for value in values if value and value.startswith(name.encode())] == expected(name, 400)
    assert topic.describe()["details"][0]["segments"] > 3  # type: ignore[index]


WRITER_POINTS = (
    "log.append",
    "log.torn",
    "log.appended",
    "log.sync",
    "log.synced",
    "log.roll",
    "file.write",
    "file.rename",
    "file.renamed",
)
WRITER_KILLS = [
    *(f"{point}@3" for point in WRITER_POINTS),
    *(pytest.param(f"{point}@{count}", marks=pytest.mark.slow) for point in WRITER_POINTS for count in (1, 2, 7)),
]


@pytest.mark.parametrize("plan", WRITER_KILLS)
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power_loss"])
def test_what_a_killed_producer_called_durable_is_there(tmp_path: Path, plan: str, power: bool) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    environment = {failpoints.ARM_VARIABLE: plan}
    if power:
        environment[unsynced.VARIABLE] = str(tmp_path / "unsynced")
    process = producer(topic, "a", 300, "commit", **environment)
    acknowledged = len(process.communicate()[0].split())
    assert process.returncode == -9
    if power:
        unsynced.drop_unsynced(tmp_path / "unsynced")
    values = read_all(topic)
    assert values[: acknowledged * 3] == expected("a", acknowledged)
    assert values == expected("a", len(values) // 3)
    with LogWriter(topic) as writer:
        assert writer.append(0, [b"next"]) == len(values)
    assert read_all(topic) == [*values, b"next"]


def test_a_living_producer_cuts_what_a_killed_one_has_torn(topic: LogTopic) -> None:
    with LogWriter(topic) as writer:
        writer.append(0, [b"first"])
        process = producer(topic, "a", 5, "none", **{failpoints.ARM_VARIABLE: "log.torn@3"})
        process.communicate()
        assert process.returncode == -9
        assert read_all(topic) == [b"first", *expected("a", 2)]
        assert writer.append(0, [b"last"]) == 7
    assert read_all(topic) == [b"first", *expected("a", 2), b"last"]


def test_unsynced_records_that_a_reader_has_seen_survive_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = LogTopic.create(tmp_path / "t")
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "unsynced"))
    writer = LogWriter(topic, "none")
    writer.append(0, [b"seen"])
    assert read_all(topic) == [b"seen"]
    writer.append(0, [b"unseen"])
    writer.close()
    monkeypatch.undo()
    unsynced.drop_unsynced(tmp_path / "unsynced")
    assert read_all(topic) == [b"seen"]


def test_a_segment_with_a_successor_is_durable_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "unsynced"))
    writer = LogWriter(topic, "none")
    for number in range(12):
        writer.append(0, [b"%d" % number + b"x" * 1_000])
    assert writer.durable_offset(0) == 8
    writer.close()
    monkeypatch.undo()
    unsynced.drop_unsynced(tmp_path / "unsynced")
    assert [value and value[:1] for value in read_all(topic)] == [b"%d" % number for number in range(8)]
    with LogWriter(topic) as writer:
        assert writer.append(0, [b"next"]) == 8
