"""What an epoch takes from the partitions of a source: fair shares, what others leave, and no question about ends."""

from __future__ import annotations

import pytest

from penstock.connectors.base import RawBatch
from penstock.connectors.memory import MemorySource, MemoryTopic
from penstock.engines.base import SourceInput
from penstock.pipeline import Pipeline
from penstock.runtime.feed import Feed


class Endless(MemorySource):
    """Records come as fast as they are read. whole: it says that a read has given all that was there."""

    def __init__(self, topic: MemoryTopic, *, whole: bool) -> None:
        super().__init__(topic)
        self.topic, self.whole, self.reads = topic, whole, 0

    def read(
        self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None
    ) -> RawBatch | None:
        self.reads += 1
        self.topic.append([b"x"] * 3, partition=partition)
        return super().read(partition, offset, max_rows, max_bytes, to)

    def caught_up(self, partition: int) -> bool:
        return self.whole


class Asked(MemorySource):
    """Remembers which partitions were asked for their end."""

    def __init__(self, topic: MemoryTopic) -> None:
        super().__init__(topic)
        self.asked: list[int] = []

    def latest(self, partition: int) -> int:
        self.asked.append(partition)
        return super().latest(partition)


def feed_of(*lengths: int, batch: int = 7) -> tuple[Feed, Asked]:
    topic = MemoryTopic(len(lengths))
    for partition, length in enumerate(lengths):
        for start in range(0, length, batch):
            topic.append([b"x" * 100] * min(batch, length - start), partition=partition)
    source = Asked(topic)
    (declared,) = Pipeline.from_sql("CREATE STREAM s (id BIGINT NOT NULL)", name="p").graph().sources
    return Feed(declared, source, next_offsets=dict.fromkeys(range(len(lengths)), 0)), source


def taken(given: SourceInput) -> list[int]:
    counts = [0] * len(given.offsets)
    for batch in given.batches:
        counts[batch.partition] += batch.rows
    assert [end - start for start, end in given.offsets.values()] == counts
    return counts


@pytest.mark.parametrize(
    ("lengths", "max_rows", "expected"),
    [
        ((500, 500), 100, [50, 50]),
        ((10, 500), 100, [10, 90]),
        ((0, 10, 500, 500), 100, [0, 10, 45, 45]),
        ((500, 0, 0), 100, [100, 0, 0]),
        ((5, 6), 100, [5, 6]),
        ((500, 500, 500), 100, [33, 33, 33]),
    ],
)
def test_what_one_partition_leaves_the_others_take(
    lengths: tuple[int, ...], max_rows: int, expected: list[int]
) -> None:
    feed, _ = feed_of(*lengths)
    assert taken(feed.read(max_rows, 1 << 20)) == expected


def test_a_bound_of_bytes_is_shared_too() -> None:
    feed, _ = feed_of(500, 500, 3)
    found = taken(feed.read(10_000, 12_000))
    assert found[2] == 3
    assert 30 <= found[0] <= 62
    assert 30 <= found[1] <= 62


def test_only_a_partition_that_has_more_is_asked_for_its_end() -> None:
    feed, source = feed_of(10, 500)
    given = feed.read(100, 1 << 20)
    assert source.asked == [1]
    feed.taken(given)
    assert feed.lag == 410
    given = feed.read(1_000, 1 << 20)
    assert source.asked == [1]
    feed.taken(given)
    assert feed.lag == 0
    assert feed.next_offsets == {0: 10, 1: 500}


def test_an_epoch_does_not_run_after_those_who_write() -> None:
    (declared,) = Pipeline.from_sql("CREATE STREAM s (id BIGINT NOT NULL)", name="p").graph().sources
    for whole, reads, rows in ((True, 2, 6), (False, 34, 102)):
        source = Endless(MemoryTopic(2), whole=whole)
        feed = Feed(declared, source, next_offsets={0: 0, 1: 0})
        found = feed.read(102, 1 << 20)
        assert sum(taken(found)) == rows
        assert source.reads == reads
        # the rest is there for the next epoch, and a drain goes to its marks
        feed.taken(found)
        assert feed.read(1_000, 1 << 20, {0: 90, 1: 0}).offsets[0][1] == 90


def test_a_drain_reads_up_to_its_marks() -> None:
    feed, _ = feed_of(10, 500)
    assert taken(feed.read(1_000, 1 << 20, {0: 4, 1: 0})) == [4, 0]
