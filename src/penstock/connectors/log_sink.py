"""The embedded log as sink: `log:FOLDER?format=changelog&partitions=1`.

A delivery is idempotent: every frame carries the fence (state and sink, epoch, sequence; semantics E4). What an
earlier attempt has written of an epoch is found from the tails and left out, partition by partition; the fence also
says how many partitions an epoch touches, so that a half delivered epoch is known as such.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.connectors.base import Guarantee, SinkContext, Url
from penstock.connectors.log_frame import Fence
from penstock.connectors.log_topic import DEFAULT_SEGMENT_BYTES, LogTopic
from penstock.connectors.log_writer import LogWriter, unwritable
from penstock.connectors.options import duration_option, number_option
from penstock.connectors.partitioning import partition_for
from penstock.formats.encode import Encoder
from penstock.storage import failpoints

BEFORE_DELIVER = failpoints.register("log.deliver", "an epoch is about to be written to a log topic")
PART_DELIVERED = failpoints.register("log.delivered_part", "an epoch is in one partition of a log topic, not synced")
AFTER_DELIVER = failpoints.register("log.delivered", "an epoch is in a log topic durably, not yet acknowledged")


class LogSink:
    """Writes changes to a topic, each epoch once in each partition."""

    OPTIONS = ("format", "partitions", "retention", "retention_bytes", "segment_bytes")
    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, topic: LogTopic, context: SinkContext, *, format: str = "changelog") -> None:
        self._topic = topic
        self._encoder = Encoder(format, context.key)
        self._id = hashlib.sha256(f"{context.state_id}/{context.sink}".encode()).digest()[:16]
        self._writer = LogWriter(topic, fsync="none")
        self._done: dict[int, Fence] = {}
        try:
            for partition in range(topic.partitions):
                fence = self._writer.fences(partition).get(self._id)
                if fence is not None:
                    self._done[partition] = fence
            self._writer.flush()
        except BaseException:
            self.close()
            raise
        self._delivered = self._last_whole()

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> LogSink:
        """The sink for `log:FOLDER`; the topic is created if there is none."""
        if LogTopic.exists(url.path) and "partitions" not in url.options:
            topic = LogTopic.open(url.path)
        else:
            topic = topic_settings(url).create(Path(url.path), number_option(url, "partitions") or 1)
        return cls(topic, context, format=url.options.get("format", "changelog"))

    def delivered(self) -> int:
        return self._delivered

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        if epoch <= self._delivered:
            return
        try:
            self._deliver(epoch, changes)
        except OSError as problem:
            raise unwritable(self._topic.path, problem) from problem
        self._delivered = epoch
        failpoints.hit(AFTER_DELIVER)

    def close(self) -> None:
        self._encoder.close()
        self._writer.close()

    def _last_whole(self) -> int:
        """From the tails: the newest epoch if all its parts are there, else the one before."""
        if not self._done:
            return -1
        newest = max(fence.epoch for fence in self._done.values())
        parts = [fence for fence in self._done.values() if fence.epoch == newest]
        whole = len(parts) == parts[0].parts and all(fence.last for fence in parts)
        return newest if whole else newest - 1

    def _deliver(self, epoch: int, changes: pa.Table) -> None:
        failpoints.hit(BEFORE_DELIVER)
        encoded = self._encoder.encode(changes)
        shares = _by_partition(encoded.keys, len(encoded.values), self._topic.partitions)
        for partition, rows in shares.items():
            self._deliver_part(epoch, partition, len(shares), encoded.values, encoded.keys, rows)
            failpoints.hit(PART_DELIVERED)
        self._writer.flush()

    def _deliver_part(
        self,
        epoch: int,
        partition: int,
        parts: int,
        values: pa.BinaryArray,
        keys: pa.BinaryArray | None,
        rows: pa.Int64Array | None,
    ) -> None:
        if rows is not None:
            values = values.take(rows)
            keys = keys.take(rows) if keys is not None else None
        done = self._done.get(partition)
        first = 0
        if done is not None and done.epoch > epoch:
            return
        if done is not None and done.epoch == epoch:
            first = done.seq_to
        if first >= len(values):
            return
        fence = Fence(self._id, epoch, first, len(values), parts, True)
        self._writer.append(
            partition,
            values[first:],
            keys[first:] if keys is not None else None,
            fence=fence,
        )
        self._done[partition] = fence


def _by_partition(keys: pa.BinaryArray | None, rows: int, partitions: int) -> dict[int, pa.Int64Array | None]:
    """Which rows go where, as indices; None: all. Without a key everything goes to partition 0, in order."""
    if not rows:
        return {}
    if keys is None or partitions == 1:
        return {0: None}
    dictionary = keys.dictionary_encode()
    target = np.array(
        [partition_for(key, partitions) for key in dictionary.dictionary.to_pylist()],
        np.int32,
    )
    if keys.null_count:
        indices = dictionary.indices.fill_null(len(target)).to_numpy()
        target = np.append(target, 0).astype(np.int32)
    else:
        indices = dictionary.indices.to_numpy()
    chosen = target[indices]
    return {int(number): pa.array(np.flatnonzero(chosen == number)) for number in np.unique(chosen)}


@dataclass(frozen=True)
class TopicOptions:
    """What a URL says of a topic that is yet to be created."""

    retention: timedelta | None
    retention_bytes: int | None
    segment_bytes: int

    def create(self, path: Path, partitions: int) -> LogTopic:
        """Make the topic, or open it if it is there."""
        return LogTopic.create(
            path,
            partitions,
            retention=self.retention,
            retention_bytes=self.retention_bytes,
            segment_bytes=self.segment_bytes,
        )


def topic_settings(url: Url) -> TopicOptions:
    """Retention and segment size from a URL. Raises ConnectorError PS-CONN-008 if they are wrong."""
    retention = duration_option(url, "retention")
    segment_bytes = number_option(url, "segment_bytes") or DEFAULT_SEGMENT_BYTES
    return TopicOptions(retention, number_option(url, "retention_bytes"), segment_bytes)
