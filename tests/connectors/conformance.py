"""What every source and every sink must hold; one thin test file per connector runs it (design section 6)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa
import pytest

from penstock.connectors.base import Batch, RawBatch, Sink, SinkContext, Source, TypedBatch
from penstock.errors import ConnectorError

Row = tuple[int, bytes]


class SourceHarness(Protocol):
    """How the suite writes what a source is to read. partitions: how many it has."""

    partitions: int

    def write(self, partition: int, values: list[bytes | None]) -> None: ...

    def open(self, start: str = "earliest") -> Source: ...


def rows_of(batch: Batch) -> list[tuple[int, object]]:
    """(offset, record) pairs; the records of a typed batch are the values of its first column."""
    match batch:
        case RawBatch():
            values = batch.values.to_pylist()
        case TypedBatch():
            values = batch.table.column(0).to_pylist()
    offsets = batch.offsets.to_pylist()
    assert len(offsets) == len(values) == batch.rows
    return list(zip(offsets, values, strict=True))


def drain(
    source: Source, partition: int, offset: int, max_rows: int = 1_000, max_bytes: int = 1 << 20, to: int | None = None
) -> tuple[list[tuple[int, object]], int]:
    """All rows from an offset on, and the offset behind them."""
    rows: list[tuple[int, object]] = []
    while (batch := source.read(partition, offset, max_rows, max_bytes, to)) is not None:
        assert batch.partition == partition
        assert batch.rows <= max_rows
        assert batch.next_offset > offset
        rows += rows_of(batch)
        offset = batch.next_offset
    return rows, offset


class SourceConformance:
    """Inherit, and give a fixture `harness`."""

    def values(self, first: int, count: int) -> list[bytes | None]:
        return [b'{"n": %d}' % number for number in range(first, first + count)]

    def seen(self, rows: list[tuple[int, object]]) -> list[object]:
        return [value for _, value in rows]

    def test_nothing_there_is_none(self, harness: SourceHarness) -> None:
        source = harness.open()
        for partition in source.partitions():
            assert source.start(partition) == source.latest(partition)
            assert source.read(partition, source.start(partition), 10, 100) is None
        source.close()

    def test_records_come_in_order_with_ascending_offsets(self, harness: SourceHarness) -> None:
        for partition in range(harness.partitions):
            harness.write(partition, self.values(partition * 100, 30))
        source = harness.open()
        assert source.partitions() == list(range(harness.partitions))
        for partition in source.partitions():
            rows, end = drain(source, partition, source.start(partition))
            assert self.seen(rows) == self.values(partition * 100, 30)
            offsets = [offset for offset, _ in rows]
            assert offsets == sorted(set(offsets))
            assert source.earliest(partition) <= offsets[0]
            assert offsets[-1] < end == source.latest(partition)
        source.close()

    def test_every_offset_can_be_read_again(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 12))
        source = harness.open()
        rows, end = drain(source, 0, source.start(0))
        again = harness.open()
        for number in reversed(range(len(rows))):
            assert drain(again, 0, rows[number][0]) == (rows[number:], end)
        assert drain(again, 0, end) == ([], end)
        source.close()
        again.close()

    @pytest.mark.parametrize(("max_rows", "max_bytes"), [(1, 1 << 20), (5, 1 << 20), (1_000, 1), (1_000, 20), (7, 33)])
    def test_small_reads_give_the_same_records(self, harness: SourceHarness, max_rows: int, max_bytes: int) -> None:
        harness.write(0, self.values(0, 9))
        harness.write(0, self.values(9, 20))
        source = harness.open()
        whole = drain(source, 0, source.start(0))
        assert drain(source, 0, source.start(0), max_rows, max_bytes) == whole
        assert len(whole[0]) == 29
        source.close()

    def test_a_bound_is_respected_at_every_offset(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 8))
        source = harness.open()
        first = source.start(0)
        rows, end = drain(source, 0, first)
        for number, (offset, _) in enumerate(rows):
            assert drain(source, 0, first, to=offset)[0] == rows[:number]
            assert drain(source, 0, offset, to=end) == (rows[number:], end)
        assert source.read(0, first, 10, 1_000, first) is None
        source.close()

    def test_a_record_larger_than_asked_comes_anyway(self, harness: SourceHarness) -> None:
        large = b'{"n": "' + b"x" * 300_000 + b'"}'
        harness.write(0, [large, b'{"n": 1}'])
        source = harness.open()
        rows, _ = drain(source, 0, source.start(0), 1_000, 10)
        assert self.seen(rows) == [large, b'{"n": 1}']
        source.close()

    def test_what_is_written_later_is_seen(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 3))
        source = harness.open()
        first, offset = drain(source, 0, source.start(0))
        harness.write(0, self.values(3, 2))
        second, end = drain(source, 0, offset)
        assert self.seen(first + second) == self.values(0, 5)
        assert end == source.latest(0)
        source.close()

    def test_start_latest_skips_what_is_there(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 3))
        source = harness.open("latest")
        offset = source.start(0)
        assert source.read(0, offset, 10, 1_000) is None
        harness.write(0, self.values(3, 1))
        rows, _ = drain(source, 0, offset)
        assert self.seen(rows) == self.values(3, 1)
        source.close()

    def test_waiting_ends_on_news_and_on_time(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 1))
        source = harness.open()
        _, offset = drain(source, 0, source.start(0))
        source.wait(0.01)
        began = time.monotonic()
        source.wait(0.05)
        assert time.monotonic() - began < 10
        writer = threading.Timer(0.1, harness.write, (0, self.values(1, 1)))
        writer.start()
        began = time.monotonic()
        while source.read(0, offset, 1, 100) is None:
            assert time.monotonic() - began < 150
            source.wait(30)
        assert time.monotonic() - began < 15
        writer.join()
        source.close()

    def test_an_offset_beyond_the_end_is_an_error(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 2))
        source = harness.open()
        with pytest.raises(ConnectorError) as caught:
            source.read(0, source.latest(0) + 1_000, 10, 1_000)
        assert caught.value.code == "PS-CONN-005"
        source.close()


class BrokerConformance(SourceConformance):
    """For sources that store records themselves: tombstones and append times too."""

    def test_tombstones_come_as_nulls(self, harness: SourceHarness) -> None:
        harness.write(0, [b"a", None, b""])
        source = harness.open()
        assert self.seen(drain(source, 0, source.start(0))[0]) == [b"a", None, b""]
        source.close()

    def test_times_ascend(self, harness: SourceHarness) -> None:
        harness.write(0, self.values(0, 2))
        harness.write(0, self.values(2, 2))
        source = harness.open()
        batch = source.read(0, source.start(0), 10, 1_000)
        assert batch is not None
        assert batch.times is not None
        times = batch.times.to_pylist()
        assert times == sorted(times)
        assert len(times) == batch.rows
        source.close()


SCHEMA = pa.schema([("id", pa.int64()), ("n", pa.int64())])


def context(state_id: str = "state-1", key: tuple[str, ...] = ("id",), sink: str = "out") -> SinkContext:
    return SinkContext("test", sink, state_id, SCHEMA, key)


def changes(epoch: int, rows: list[tuple[str, int, int]]) -> pa.Table:
    """A batch of changes from (op, id, n)."""
    return pa.table(
        {
            "id": pa.array([row[1] for row in rows], pa.int64()),
            "n": pa.array([row[2] for row in rows], pa.int64()),
            "_op": pa.array([row[0] for row in rows], pa.string()),
            "_epoch": pa.array([epoch] * len(rows), pa.int64()),
            "_seq": pa.array(range(len(rows)), pa.int64()),
            "_correction": pa.array([False] * len(rows), pa.bool_()),
        }
    )


def epoch_changes(epoch: int, count: int = 5) -> pa.Table:
    """The same changes whenever they are asked for: `count` inserts."""
    return changes(epoch, [("+I", epoch * 1_000 + number, number) for number in range(count)])


class SinkHarness(Protocol):
    """How the suite opens a sink and reads back what it wrote: (op, id, n) per row, in order per partition."""

    def open(self, context: SinkContext) -> Sink: ...

    def read(self) -> list[tuple[str, int, int]]: ...


def expected(*epochs: int, count: int = 5) -> list[tuple[str, int, int]]:
    return sorted(("+I", epoch * 1_000 + number, number) for epoch in epochs for number in range(count))


class SinkConformance:
    """For idempotent sinks: inherit, and give a fixture `sinks` and the names of the sink's fail points."""

    fail_points: tuple[str, ...] = ()

    def test_a_fresh_sink_has_delivered_nothing(self, sinks: SinkHarness) -> None:
        sink = sinks.open(context())
        assert sink.delivered() == -1
        sink.close()

    def test_epochs_are_written_and_remembered(self, sinks: SinkHarness) -> None:
        sink = sinks.open(context())
        for epoch in (0, 1, 4):
            sink.deliver(epoch, epoch_changes(epoch))
            assert sink.delivered() == epoch
        sink.close()
        assert sorted(sinks.read()) == expected(0, 1, 4)
        again = sinks.open(context())
        assert again.delivered() == 4
        again.close()
        assert sorted(sinks.read()) == expected(0, 1, 4)

    def test_delivering_twice_is_delivering_once(self, sinks: SinkHarness) -> None:
        sink = sinks.open(context())
        sink.deliver(0, epoch_changes(0))
        sink.deliver(0, epoch_changes(0))
        sink.close()
        again = sinks.open(context())
        again.deliver(0, epoch_changes(0))
        again.deliver(1, epoch_changes(1))
        again.close()
        assert sorted(sinks.read()) == expected(0, 1)

    def test_rows_keep_their_order(self, sinks: SinkHarness) -> None:
        sink = sinks.open(context())
        sink.deliver(0, changes(0, [("+I", 1, 1), ("+I", 2, 1)]))
        sink.deliver(1, changes(1, [("-U", 1, 1), ("+U", 1, 2), ("-D", 2, 1)]))
        sink.close()
        rows = sinks.read()
        ones = [row for row in rows if row[1] == 1]
        assert ones in ([("+I", 1, 1), ("-U", 1, 1), ("+U", 1, 2)], [("+I", 1, 2)])

    def test_an_empty_epoch_changes_nothing(self, sinks: SinkHarness) -> None:
        sink = sinks.open(context())
        sink.deliver(0, epoch_changes(0))
        sink.deliver(1, epoch_changes(1, 0))
        sink.deliver(1, epoch_changes(1, 0))
        sink.deliver(2, epoch_changes(2))
        sink.close()
        assert sorted(sinks.read()) == expected(0, 2)

    def test_another_state_is_not_taken_for_this_one(self, sinks: SinkHarness) -> None:
        first = sinks.open(context("state-1"))
        first.deliver(3, epoch_changes(3))
        first.close()
        second = sinks.open(context("state-2"))
        assert second.delivered() == -1
        second.deliver(0, epoch_changes(0))
        assert second.delivered() == 0
        second.close()
        assert set(expected(0)) <= set(sinks.read())

    def test_a_failed_write_is_a_clear_error_and_leaves_nothing_half_done(
        self, sinks: SinkHarness, arm: Callable[[str], None]
    ) -> None:
        for point in self.fail_points:
            arm("")
            sink = sinks.open(context(point))
            sink.deliver(0, epoch_changes(0))
            arm(f"{point}@1=error")
            with pytest.raises(ConnectorError) as caught:
                sink.deliver(1, epoch_changes(1))
            assert caught.value.code == "PS-CONN-003"
            arm("")
            sink.deliver(1, epoch_changes(1))
            sink.close()
            again = sinks.open(context(point))
            assert again.delivered() == 1
            again.close()
            assert sorted(sinks.read()) == sorted(self.after_failures(point))

    def after_failures(self, point: str) -> list[tuple[str, int, int]]:
        """What is to be read after the test above has used the fail points up to `point`, each with a fresh state."""
        return expected(0, 1) * (self.fail_points.index(point) + 1)
