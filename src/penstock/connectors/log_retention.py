"""Which segments of a log partition may leave, and when a segment must end so that it can.

Whole segments leave, oldest first, once their newest record is older than the topic's retention; so a segment that has
been written to for as long as the retention is followed by a new one. A record leaves at the latest after twice the
retention and one look (`look_every_s`), while a writer is open. Whoever calls holds the partition's lock.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.connectors import log_topic
from penstock.connectors.log_topic import SEGMENT_HEADER, SEGMENT_HEADER_BYTES, Segment, TopicSettings
from penstock.storage import failpoints, files

_LONGEST_LOOK_S, _SHORTEST_LOOK_S = 30.0, 0.02


def look_every_s(settings: TopicSettings) -> float | None:
    """How often an open writer looks, also when nothing is appended; None where nothing leaves by age."""
    if settings.retention_us is None:
        return None
    return min(_LONGEST_LOOK_S, max(_SHORTEST_LOOK_S, settings.retention_us / 4_000_000))


def is_old(settings: TopicSettings, segment: Segment) -> bool:
    """Whether the segment was begun longer ago than the retention."""
    if settings.retention_us is None:
        return False
    begun_us = int(SEGMENT_HEADER.unpack_from(_head(segment))[6])
    return begun_us < _now_us() - settings.retention_us


def drop_expired(settings: TopicSettings, folder: Path) -> None:
    """Delete the oldest whole segments that retention no longer holds; never the newest one."""
    for segment in list(_expired(settings, log_topic.list_segments(folder))):
        failpoints.hit(log_topic.BEFORE_DROP)
        files.remove(segment.path)


def _expired(settings: TopicSettings, segments: list[Segment]) -> Iterator[Segment]:
    held_bytes = sum(segment.size for segment in segments)
    for segment, following in itertools.pairwise(segments):
        newest_us = log_topic.segment_start(following, _head(following)).last_us
        old = settings.retention_us is not None and newest_us < _now_us() - settings.retention_us
        big = settings.retention_bytes is not None and held_bytes - segment.size >= settings.retention_bytes
        if not (old or big):
            return
        held_bytes -= segment.size
        yield segment


def _head(segment: Segment) -> bytes:
    with open(segment.path, "rb") as file:
        return file.read(SEGMENT_HEADER_BYTES)


def _now_us() -> int:
    return time.time_ns() // 1_000
