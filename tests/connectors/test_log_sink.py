"""The log as a sink: conformance, several partitions, any schedule of kills delivers each epoch once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.connectors.base import SinkContext, Url
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.connectors.log_sink import LogSink
from penstock.connectors.registry import open_sink
from penstock.storage import failpoints, unsynced
from tests.connectors.conformance import SinkConformance, changes, context, drain, epoch_changes, expected
from tests.examples import examples


def rows(topic: LogTopic) -> list[tuple[str, int, int]]:
    source = LogSource(topic)
    try:
        found = []
        for partition in source.partitions():
            records, _ = drain(source, partition, source.earliest(partition))
            found += [json.loads(value) for _, value in records]  # type: ignore[arg-type]
        return [(row["_op"], row["id"], row["n"]) for row in found]
    finally:
        source.close()


class LogSinks:
    def __init__(self, path: Path) -> None:
        self.url = Url("log", str(path), {"partitions": "3"})

    def open(self, context: SinkContext) -> LogSink:
        sink = open_sink(self.url, context)
        assert isinstance(sink, LogSink)
        return sink

    def read(self) -> list[tuple[str, int, int]]:
        return rows(LogTopic.open(self.url.path))


class TestLogSink(SinkConformance):
    fail_points = ("log.deliver", "log.append", "log.delivered_part")

    @pytest.fixture
    def sinks(self, tmp_path: Path) -> LogSinks:
        return LogSinks(tmp_path / "out")


def test_two_sinks_of_one_pipeline_may_share_a_topic(tmp_path: Path) -> None:
    sinks = LogSinks(tmp_path / "out")
    one, two = sinks.open(context(sink="one")), sinks.open(context(sink="two"))
    one.deliver(0, epoch_changes(0))
    two.deliver(0, epoch_changes(0))
    assert sinks.open(context(sink="one")).delivered() == 0
    assert sorted(sinks.read()) == sorted(expected(0) * 2)


def test_the_fence_outlives_retention_and_clearing(tmp_path: Path) -> None:
    url = Url("log", str(tmp_path / "t"), {"segment_bytes": "4096", "retention_bytes": "4096"})
    sink = open_sink(url, context())
    sink.deliver(5, epoch_changes(5))
    topic = LogTopic.open(url.path)
    with LogWriter(topic, "none") as writer:
        for _ in range(30):
            writer.append(0, [b"x" * 1_000])
    assert topic.earliest(0) > 0
    assert open_sink(url, context()).delivered() == 5
    topic.clear()
    assert open_sink(url, context()).delivered() == 5
    sink.deliver(6, epoch_changes(6))
    again = open_sink(url, context())
    assert again.delivered() == 6
    again.deliver(6, epoch_changes(6))
    assert sorted(rows(topic)) == expected(6)


KILL_POINTS = ("log.deliver", "log.append", "log.appended", "log.delivered_part", "log.sync", "log.delivered")


class Killed(BaseException):
    """Stands for the end of the process: closing a sink afterwards only gives its descriptors back, as that would."""


@pytest.mark.slow
@settings(max_examples=examples(30), deadline=None)
@given(
    kills=st.lists(st.tuples(st.sampled_from(KILL_POINTS), st.integers(1, 4)), max_size=6),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5),
)
def test_any_schedule_of_kills_delivers_each_epoch_once(
    tmp_path_factory: pytest.TempPathFactory, kills: list[tuple[str, int]], sizes: list[int]
) -> None:
    sinks = LogSinks(tmp_path_factory.mktemp("sink") / "out")
    plan = [None, *kills]
    while plan:
        kill = plan.pop()
        with pytest.MonkeyPatch.context() as patch:
            if kill is not None:
                patch.setenv(failpoints.ARM_VARIABLE, f"{kill[0]}@{kill[1]}")
                patch.setattr(failpoints, "_kill_group", _raise_killed)
            failpoints.reload()
            with contextlib.suppress(Killed), contextlib.closing(sinks.open(context())) as sink:
                first = sink.delivered() + 1
                for epoch in range(first, len(sizes)):
                    sink.deliver(epoch, epoch_changes(epoch, sizes[epoch]))
        failpoints.reload()
    wanted = [row for epoch, size in enumerate(sizes) for row in expected(epoch, count=size)]
    assert sorted(sinks.read()) == sorted(wanted)


def _raise_killed() -> None:
    raise Killed


def test_what_was_delivered_survives_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sinks = LogSinks(tmp_path / "out")
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "unsynced"))
    sink = sinks.open(context())
    sink.deliver(0, epoch_changes(0))
    sink.deliver(1, epoch_changes(1))
    monkeypatch.undo()
    unsynced.drop_unsynced(tmp_path / "unsynced")
    assert sinks.open(context()).delivered() == 1
    assert sorted(sinks.read()) == expected(0, 1)


def test_rows_of_a_key_stay_in_one_partition_in_order(tmp_path: Path) -> None:
    sinks = LogSinks(tmp_path / "out")
    sink = sinks.open(context())
    for epoch in range(20):
        sink.deliver(epoch, changes(epoch, [("+I", key, epoch) for key in range(10)]))
    source = LogSource(LogTopic.open(tmp_path / "out"))
    places: dict[int, set[int]] = {}
    for partition in source.partitions():
        last: dict[int, int] = {}
        for _, value in drain(source, partition, 0)[0]:
            row = json.loads(value)  # type: ignore[arg-type]
            places.setdefault(row["id"], set()).add(partition)
            assert last.get(row["id"], -1) < row["n"]
            last[row["id"]] = row["n"]
    assert all(len(found) == 1 for found in places.values())
    assert len({partition for found in places.values() for partition in found}) == 3


def test_without_a_key_everything_is_in_partition_0_in_order(tmp_path: Path) -> None:
    sinks = LogSinks(tmp_path / "out")
    sink = sinks.open(context(key=()))
    sink.deliver(0, epoch_changes(0, 50))
    assert sinks.read() == expected(0, count=50)


def test_an_upsert_topic_has_keys_and_tombstones(tmp_path: Path) -> None:
    url = Url("log", str(tmp_path / "out"), {"format": "upsert"})
    sink = open_sink(url, context())
    sink.deliver(0, changes(0, [("+I", 1, 1), ("+I", 2, 2)]))
    sink.deliver(1, changes(1, [("-U", 1, 1), ("+U", 1, 5), ("-D", 2, 2)]))
    batch = LogSource(LogTopic.open(tmp_path / "out")).read(0, 0, 10, 1_000)
    assert batch is not None
    assert batch.keys is not None
    pairs = zip(batch.keys.to_pylist(), batch.values.to_pylist(), strict=True)
    seen = [(json.loads(key), value and json.loads(value)) for key, value in pairs]
    assert seen == [
        ({"id": 1}, {"id": 1, "n": 1}),
        ({"id": 2}, {"id": 2, "n": 2}),
        ({"id": 1}, {"id": 1, "n": 5}),
        ({"id": 2}, None),
    ]


def test_a_failed_sync_is_an_error_until_the_sink_is_opened_again(tmp_path: Path, arm: Callable[[str], None]) -> None:
    sinks = LogSinks(tmp_path / "out")
    sink = sinks.open(context())
    arm("log.sync@1=error")
    with pytest.raises(Exception, match="No space"):
        sink.deliver(0, epoch_changes(0))
    arm("")
    with pytest.raises(Exception, match="No space"):
        sink.deliver(0, epoch_changes(0))
    again = sinks.open(context())
    again.deliver(0, epoch_changes(0))
    assert sorted(sinks.read()) == expected(0)
