"""A topic of the embedded log: a folder with one folder per partition, each a chain of segment files.

    topic.json                       partitions, segment size, retention (never changed after creation)
    p00000/00000000000000000000.log  a segment, named by the offset of its first record
    p00000/lock                      held (flock) by whoever changes the partition
    p00000/synced                    how far the newest segment is known to be durable (a hint: may be behind)

Offsets are never used again: clearing a topic moves its earliest offset up to its latest. A segment that has a
successor is durable as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from penstock.connectors.log_frame import HEADER_BYTES, Header, unpack_header
from penstock.errors import ConnectorError
from penstock.storage import failpoints, files

FORMAT = "penstock-log"
FORMAT_VERSION = 1
SEGMENT_MAGIC = b"PENSTLOG"
SEGMENT_HEADER = struct.Struct("<8sHHIqqq")
SEGMENT_HEADER_BYTES = 64
DEFAULT_SEGMENT_BYTES = 256 << 20
_SYNCED = struct.Struct("<qqqqI")

BEFORE_ROLL = failpoints.register("log.roll", "a log partition is about to begin a new segment")
BEFORE_DROP = failpoints.register("log.drop", "a log segment is about to be deleted by retention or clearing")


@dataclass(frozen=True)
class TopicSettings:
    """What topic.json says. retention_us, retention_bytes: older or more whole segments leave; None keeps all."""

    partitions: int
    segment_bytes: int
    retention_us: int | None
    retention_bytes: int | None


@dataclass(frozen=True)
class Segment:
    """One file of the chain. base: the offset of its first record."""

    path: Path
    base: int

    @property
    def size(self) -> int:
        return self.path.stat().st_size


class Position(NamedTuple):
    """A place between two frames: byte `position` of the segment `base`, where `offset` comes next (a named tuple: one
    is made per frame, and frames may be tiny).

    last_us: the append time of the frame before it.
    """

    base: int
    position: int
    offset: int
    last_us: int


def segment_path(folder: Path, base: int) -> Path:
    return folder / f"{base:020d}.log"


def segment_exists(folder: str, base: int) -> bool:
    """Whether there is a segment `base` (called for every append: a path is not worth its making)."""
    return os.access(f"{folder}/{base:020d}.log", os.F_OK)


def list_segments(folder: Path) -> list[Segment]:
    """The segments of a partition in offset order."""
    found = [Segment(folder / name, int(name[:-4])) for name in os.listdir(folder) if name.endswith(".log")]
    return sorted(
        (segment for segment in found if not files.is_temporary(segment.path)),
        key=lambda s: s.base,
    )


def create_segment(folder: Path, base: int, last_us: int, carried: bytes = b"") -> Segment:
    """A segment without records, durable under its name. carried: frames that hold the fences so far."""
    head = SEGMENT_HEADER.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, 0, base, last_us, time.time_ns() // 1_000)
    head = head.ljust(SEGMENT_HEADER_BYTES - 4, b"\0")
    path = segment_path(folder, base)
    files.write_atomic(path, head + google_crc32c.value(head).to_bytes(4, "little") + carried)
    return Segment(path, base)


def segment_start(segment: Segment, head: bytes) -> Position:
    """The place of a segment's first frame, from the first 64 bytes of the file."""
    if len(head) >= SEGMENT_HEADER_BYTES and head[:8] == SEGMENT_MAGIC:
        right = google_crc32c.value(head[: SEGMENT_HEADER_BYTES - 4]) == int.from_bytes(
            head[SEGMENT_HEADER_BYTES - 4 : SEGMENT_HEADER_BYTES], "little"
        )
        fields = SEGMENT_HEADER.unpack_from(head)
        if right and fields[1] > FORMAT_VERSION:
            raise damaged(
                segment.path,
                0,
                f"segment version {FORMAT_VERSION}",
                f"version {fields[1]}",
            )
        if right and fields[4] == segment.base:
            return Position(segment.base, SEGMENT_HEADER_BYTES, segment.base, int(fields[5]))
    raise damaged(segment.path, 0, "the header of a log segment", f"{head[:8]!r}")


def read_synced(folder: Path) -> Position | None:
    """The place up to which the partition is known to be durable."""
    try:
        descriptor = os.open(f"{folder}/synced", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        data = os.read(descriptor, _SYNCED.size + 1)
    finally:
        os.close(descriptor)
    if len(data) != _SYNCED.size:
        return None
    base, position, offset, last_us, crc = _SYNCED.unpack(data)
    if google_crc32c.value(data[:-4]) != crc:
        return None
    return Position(base, position, offset, last_us)


def write_synced(folder: Path, place: Position) -> None:
    """Record that everything before `place` is durable. Not synced itself: being behind is harmless."""
    data = _SYNCED.pack(place.base, place.position, place.offset, place.last_us, 0)[:-4]
    descriptor = os.open(f"{folder}/synced", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data + google_crc32c.value(data).to_bytes(4, "little"), 0)
    finally:
        os.close(descriptor)


def damaged(path: Path, position: int, expected: str, got: str) -> ConnectorError:
    return ConnectorError(
        "PS-CONN-004",
        f"{path}, byte {position}: the log segment is damaged",
        expected=expected,
        got=got,
        hint="restore the file from a copy, or clear the topic if its records are not needed",
    )


def find_header_after(descriptor: int, position: int, end: int, offset: int) -> int | None:
    """The byte of the next right frame header in [position, end) that holds `offset` or later; None if none is."""
    step = 4 << 20
    while position < end:
        block = os.pread(descriptor, min(step, end - position) + HEADER_BYTES, position)
        found = block.find(b"PSF1")
        while found >= 0:
            header = unpack_header(block, found) if (position + found) % 8 == 0 else None
            if header is not None and header.base_offset >= offset:
                return position + found
            found = block.find(b"PSF1", found + 1)
        position += step
    return None


def read_header(descriptor: int, position: int) -> Header | None:
    """The frame header at a byte of an open segment, None if there is no whole, right one."""
    return unpack_header(os.pread(descriptor, HEADER_BYTES, position))


class LogTopic:
    """A topic: made, opened, described, cleared and deleted here; read by `LogReader`, written by `LogWriter`.

    Example:
        >>> import tempfile
        >>> topic = LogTopic.create(tempfile.mkdtemp() + "/events", partitions=2)
        >>> topic.describe()["partitions"]
        2
    """

    def __init__(self, path: Path, settings: TopicSettings) -> None:
        self.path = path
        self.settings = settings

    @property
    def partitions(self) -> int:
        return self.settings.partitions

    def folder(self, partition: int) -> Path:
        return self.path / f"p{partition:05d}"

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        return (Path(path) / "topic.json").exists()

    @classmethod
    def create(
        cls,
        path: str | Path,
        partitions: int = 1,
        *,
        retention: timedelta | None = None,
        retention_bytes: int | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> LogTopic:
        """Make a topic, durably; one that exists with as many partitions is opened.

        Raises ConnectorError PS-CONN-006 if it exists with another number of partitions, PS-CONN-008 for sizes that
        make no sense, PS-CONN-003 if the folder cannot be written.
        """
        path = Path(path)
        if not 1 <= partitions <= 4_096 or segment_bytes < 4_096:
            raise ConnectorError(
                "PS-CONN-008",
                "the settings of a topic are wrong",
                expected="1 to 4096 partitions and segments of at least 4096 bytes",
                got=f"{partitions} partitions, {segment_bytes} bytes",
            )
        retention_us = None if retention is None else round(retention.total_seconds() * 1_000_000)
        settings = TopicSettings(partitions, segment_bytes, retention_us, retention_bytes)
        try:
            if not cls.exists(path):
                _make_topic(path, settings)
        except OSError as problem:
            raise ConnectorError(
                "PS-CONN-003",
                f"the topic {path} cannot be created",
                expected="a folder to write in",
                got=str(problem),
            ) from problem
        topic = cls.open(path)
        if topic.partitions != partitions:
            raise ConnectorError(
                "PS-CONN-006",
                f"the topic {path} exists already",
                expected=f"{partitions} partitions",
                got=f"{topic.partitions}",
                hint="delete it first, or leave the number of partitions as it is",
            )
        return topic

    @classmethod
    def open(cls, path: str | Path) -> LogTopic:
        """The topic at `path`. Raises ConnectorError PS-CONN-006 if there is none, PS-CONN-004 if it is damaged."""
        path = Path(path)
        try:
            content = json.loads((path / "topic.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise ConnectorError(
                "PS-CONN-006",
                f"there is no topic at {path}",
                expected="a folder with topic.json",
                got="nothing" if not path.exists() else "something else",
                hint=f"penstock topics create log:{path}",
            ) from None
        except (OSError, ValueError) as problem:
            raise damaged(path / "topic.json", 0, "the settings of a topic", str(problem)) from problem
        if content.get("format") != FORMAT or content.get("version") != FORMAT_VERSION:
            got = f"{content.get('format')} {content.get('version')}"
            raise damaged(path / "topic.json", 0, f"{FORMAT} version {FORMAT_VERSION}", got)
        return cls(path, TopicSettings(**content["settings"]))

    def clear(self) -> None:
        """Drop all records. Partitions and offsets stay: the earliest offset becomes the latest."""
        from penstock.connectors.log_writer import LogWriter

        with LogWriter(self, fsync="none") as writer:
            for partition in range(self.partitions):
                writer.clear(partition)

    def delete(self) -> None:
        """Remove the topic with all its records."""
        doomed = self.path.with_name(f".{self.path.name}.{os.getpid()}.deleted")
        os.rename(self.path, doomed)
        files.sync_folder(self.path.parent)
        shutil.rmtree(doomed)

    def earliest(self, partition: int) -> int:
        """The first offset still held."""
        segments = list_segments(self.existing_folder(partition))
        if not segments:
            raise damaged(self.folder(partition), 0, "a log segment", "none")
        return segments[0].base

    def latest(self, partition: int) -> int:
        """The offset after the last whole record."""
        from penstock.connectors.log_reader import PartitionReader

        reader = PartitionReader(self, partition)
        try:
            return reader.end().offset
        finally:
            reader.close()

    def describe(self) -> dict[str, object]:
        """partitions, retention and segment size; per partition: earliest, latest, records, bytes, segments."""
        details = []
        for partition in range(self.partitions):
            segments = list_segments(self.existing_folder(partition))
            earliest, latest = segments[0].base, self.latest(partition)
            details.append(
                {
                    "partition": partition,
                    "earliest": earliest,
                    "latest": latest,
                    "records": latest - earliest,
                    "bytes": sum(segment.size for segment in segments),
                    "segments": len(segments),
                }
            )
        return {"path": str(self.path), **asdict(self.settings), "details": details}

    def existing_folder(self, partition: int) -> Path:
        """The folder of a partition. Raises ConnectorError PS-CONN-006 if there is none of that number."""
        folder = self.folder(partition)
        if not 0 <= partition < self.partitions or not folder.is_dir():
            raise ConnectorError(
                "PS-CONN-006",
                f"the topic {self.path} has no partition {partition}",
                expected=f"0 to {self.partitions - 1}",
                got=str(partition),
            )
        return folder


def _make_topic(path: Path, settings: TopicSettings) -> None:
    """Built aside and renamed as a whole, so that of two processes at once one wins and the other sees its topic."""
    files.make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{time.time_ns()}.draft")
    draft.mkdir()
    try:
        for partition in range(settings.partitions):
            folder = draft / f"p{partition:05d}"
            folder.mkdir()
            create_segment(folder, 0, 0)
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "settings": asdict(settings),
        }
        files.write_atomic(draft / "topic.json", json.dumps(content, indent=1).encode())
        files.sync_folder(draft)
        try:
            os.rename(draft, path)
        except OSError:
            if not LogTopic.exists(path):
                raise
        files.sync_folder(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
