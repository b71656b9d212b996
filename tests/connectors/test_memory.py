"""Topics, references and sinks in memory hold what durable ones do."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.connectors.base import SinkContext
from penstock.connectors.memory import MemorySink, MemorySource, MemoryStore, MemoryTopic, MemoryVersions
from tests.connectors.conformance import BrokerConformance, SinkConformance, drain


class MemoryHarness:
    partitions = 2

    def __init__(self) -> None:
        self.topic = MemoryTopic(2)
        self.clock = 0

    def write(self, partition: int, values: list[bytes | None]) -> None:
        self.clock += 1
        self.topic.append(values, partition=partition, time_us=self.clock)

    def open(self, start: str = "earliest") -> MemorySource:
        return MemorySource(self.topic, start=start)


class TestMemorySource(BrokerConformance):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


class MemorySinks:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.contexts: list[SinkContext] = []

    def open(self, context: SinkContext) -> MemorySink:
        if context not in self.contexts:
            self.contexts.append(context)
        return self.store.open(context)

    def read(self) -> list[tuple[str, int, int]]:
        return [
            (row["_op"], row["id"], row["n"])
            for context in self.contexts
            for table in self.store.epochs(context.state_id, context.sink).values()
            for row in table.to_pylist()
        ]


class TestMemorySink(SinkConformance):
    @pytest.fixture
    def sinks(self) -> MemorySinks:
        return MemorySinks()


def test_typed_rows_are_sliced_like_bytes() -> None:
    topic = MemoryTopic()
    topic.append_table(pa.table({"n": [1, 2, 3]}))
    topic.append([b"x"])
    source = MemorySource(topic)
    assert drain(source, 0, 1) == ([(1, 2), (2, 3), (3, b"x")], 4)
    assert drain(source, 0, 0, 2, to=3)[0] == [(0, 1), (1, 2), (2, 3)]


def test_a_published_version_replaces_the_last() -> None:
    versions = MemoryVersions()
    assert versions.poll(None) is None
    topic = MemoryTopic()
    topic.append([b"a"])
    batch = MemorySource(topic).read(0, 0, 1, 1)
    assert batch is not None
    name = versions.publish([batch])
    first = versions.poll(None)
    assert first is not None
    assert (first.id, first.batches) == (name, (batch,))
    assert versions.poll(name) is None
    versions.publish([])
    second = versions.poll(name)
    assert second is not None
    assert second.batches == ()
