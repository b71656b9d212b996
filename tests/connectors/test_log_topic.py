"""Topics: made once however many make them, cleared without reusing offsets, described, deleted."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.connectors.log import LogTopic, LogWriter
from penstock.errors import ConnectorError

CREATE = "import sys; from penstock.connectors.log import LogTopic; LogTopic.create(sys.argv[1], 3)"


def detail(topic: LogTopic, partition: int = 0) -> dict[str, int]:
    details = topic.describe()["details"]
    assert isinstance(details, list)
    return details[partition]


def test_two_processes_may_create_one_topic_at_once(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", CREATE, str(tmp_path / "t")]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert LogTopic.open(tmp_path / "t").partitions == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    LogTopic.create(tmp_path / "t", 2)
    with pytest.raises(ConnectorError, match="exists already") as caught:
        LogTopic.create(tmp_path / "t", 3)
    assert caught.value.code == "PS-CONN-006"


def test_a_missing_topic_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match="topics create") as caught:
        LogTopic.open(tmp_path / "t")
    assert caught.value.code == "PS-CONN-006"


@pytest.mark.parametrize(("partitions", "segment_bytes"), [(0, 1 << 20), (5_000, 1 << 20), (1, 10)])
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, partitions: int, segment_bytes: int) -> None:
    with pytest.raises(ConnectorError) as caught:
        LogTopic.create(tmp_path / "t", partitions, segment_bytes=segment_bytes)
    assert caught.value.code == "PS-CONN-008"


def test_a_damaged_topic_file_is_named(tmp_path: Path) -> None:
    LogTopic.create(tmp_path / "t")
    (tmp_path / "t" / "topic.json").write_text("{")
    with pytest.raises(ConnectorError, match=r"topic\.json") as caught:
        LogTopic.open(tmp_path / "t")
    assert caught.value.code == "PS-CONN-004"


def test_clearing_keeps_partitions_and_never_reuses_offsets(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", 2)
    with LogWriter(topic) as writer:
        writer.append(0, [b"a", b"b"])
        topic.clear()
        assert detail(topic)["earliest"] == detail(topic)["latest"] == 2
        assert writer.append(0, [b"c"]) == 2
        topic.clear()
        topic.clear()
        assert writer.append(0, [b"d"]) == 3
    assert detail(topic)["records"] == 1
    assert topic.partitions == 2


def test_describe_counts_segments_and_records(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096)
    with LogWriter(topic) as writer:
        for _ in range(10):
            writer.append(0, [b"x" * 1_000])
    assert detail(topic)["segments"] == 3
    assert detail(topic)["latest"] == topic.latest(0) == 10
    assert detail(topic)["bytes"] == sum(path.stat().st_size for path in (tmp_path / "t" / "p00000").glob("*.log"))


def test_retention_by_size_drops_whole_old_segments(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096, retention_bytes=8_192)
    with LogWriter(topic) as writer:
        for _ in range(40):
            writer.append(0, [b"x" * 1_000])
    assert 0 < topic.earliest(0) < 40
    assert 8_192 <= detail(topic)["bytes"] < 3 * 8_192


def test_retention_by_age_drops_what_is_older(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t", segment_bytes=4_096, retention=timedelta(microseconds=1))
    with LogWriter(topic) as writer:
        for _ in range(20):
            writer.append(0, [b"x" * 1_000])
    assert topic.earliest(0) >= 10
    kept = LogTopic.create(tmp_path / "u", segment_bytes=4_096, retention=timedelta(hours=1))
    with LogWriter(kept) as writer:
        for _ in range(20):
            writer.append(0, [b"x" * 1_000])
    assert kept.earliest(0) == 0


def test_a_deleted_topic_stops_its_writers(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic, "none") as writer:
        writer.append(0, [b"a"])
        topic.delete()
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConnectorError, match="deleted"):
            writer.append(0, [b"b"])


def test_a_partition_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    topic = LogTopic.create(tmp_path / "t")
    with LogWriter(topic) as writer, pytest.raises(ConnectorError, match="no partition 1"):
        writer.append(1, [b"a"])
