"""The simulated market, sent to topics of the embedded log as its time passes."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

from penstock.apps.margin.market import Record, Simulation, Topic
from penstock.connectors.log import LogTopic, LogWriter

TOPICS: tuple[Topic, ...] = ("fills", "prices", "betas", "cash")
SLICE_S = 0.02


def prepare_topics(folders: Mapping[Topic, str], partitions: int) -> None:
    """Make the topics that are missing; fills and cash have partitions, by account."""
    for topic in TOPICS:
        if not LogTopic.exists(folders[topic]):
            Path(folders[topic]).parent.mkdir(parents=True, exist_ok=True)
            LogTopic.create(folders[topic], partitions if topic in ("fills", "cash") else 1)


def feed(
    market: Callable[[datetime], Simulation],
    folders: Mapping[Topic, str],
    *,
    seconds: float,
    speed: float = 1.0,
) -> dict[str, int]:
    """Send the opening and then `seconds` of market time, `speed` times as fast as they pass; records by topic.

    market: makes the market that begins at a time.

    Market time begins now, or so that it ends now where it is faster than the clock: prices of the future would be
    refused.
    """
    start = datetime.now(UTC).replace(tzinfo=None)
    if speed > 1:
        start -= timedelta(seconds=seconds - seconds / speed)
    simulation = market(start)
    writers = {topic: LogWriter(LogTopic.open(folders[topic])) for topic in TOPICS}
    counts = dict.fromkeys(TOPICS, 0)
    try:
        _send(writers, list(simulation.opening()), counts)
        began, second = time.monotonic(), 0
        while second < seconds:
            records = simulation.second(second)
            position = 0
            while position < len(records):
                upto = (time.monotonic() - began) * speed
                due = bisect_right(records, upto, position, key=lambda record: record.at_s)
                if due == position:
                    time.sleep(SLICE_S)
                    continue
                _send(writers, records[position:due], counts)
                position = due
            second += 1
    finally:
        for writer in writers.values():
            writer.close()
    return {str(topic): count for topic, count in counts.items()}


def _send(writers: Mapping[Topic, LogWriter], records: list[Record], counts: dict[Topic, int]) -> None:
    """Append records, one frame for each topic and partition."""
    frames: dict[tuple[Topic, int], list[Record]] = {}
    for record in records:
        partitions = writers[record.topic].topic.partitions
        frames.setdefault((record.topic, crc32(record.key.encode()) % partitions), []).append(record)
    for (topic, partition), some in frames.items():
        writers[topic].append(partition, [r.value for r in some], [r.key.encode() for r in some])
        counts[topic] += len(some)
