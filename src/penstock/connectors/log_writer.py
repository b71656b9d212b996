"""Appending to the embedded log, from any number of processes at once.

Each append is one system call under the partition's lock: it finds the true end first (another producer may have
written, begun a segment, or died half way: a torn frame is cut), so offsets never have gaps and frames never mix.
Append times never go backwards within a partition, whatever the clock does.

When an append is durable depends on `fsync`: `commit` (when `append` returns), a duration such as `5ms` (a thread
syncs that often; `flush` waits for it) or `none` (only `flush` syncs). After a failed sync the writer refuses to go
on, because the kernel may have dropped the data.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import pyarrow as pa

from penstock.connectors import log_retention, log_topic
from penstock.connectors.log_frame import (
    EMPTY_BODY,
    MARK,
    MAX_FRAME_BYTES,
    MAX_FRAME_RECORDS,
    MAX_RECORD_BYTES,
    Body,
    Fence,
    body_of_arrays,
    body_of_list,
    pack_header,
)
from penstock.connectors.log_reader import PartitionReader, after
from penstock.connectors.log_topic import LogTopic, Position, Segment
from penstock.durations import parse_duration
from penstock.errors import ConnectorError
from penstock.storage import failpoints, files
from penstock.storage.files import AppendFile

BEFORE_APPEND = failpoints.register("log.append", "a frame is about to be written to a log segment")
TORN_APPEND = failpoints.register("log.torn", "half of a frame has been written to a log segment")
AFTER_APPEND = failpoints.register("log.appended", "a frame is written to a log segment, not synced")
BEFORE_SYNC = failpoints.register("log.sync", "a log segment is about to be synced")
AFTER_SYNC = failpoints.register("log.synced", "a log segment is synced, its mark is not written")
BEFORE_CUT = failpoints.register("log.cut", "a torn tail is about to be cut from a log segment")

MAX_BUFFERS = 1_000
_LIST_RECORDS = 1_000
_BINARY_OR_NONE = (pa.BinaryArray, type(None))

Values: TypeAlias = Sequence[bytes | None] | pa.BinaryArray | pa.LargeBinaryArray | pa.ChunkedArray


@dataclass
class _Open:
    """A partition as this writer last saw it."""

    folder: Path
    name: str
    lock: int
    file: AppendFile
    place: Position
    synced: Position | None
    durable_offset: int


class LogWriter:
    """Appends records to a topic. One thread may use it; its own thread syncs, and drops what retention lets go.

    Args:
        topic: the topic. fsync: `commit`, `none` or a duration (default `5ms`).

    Raises ConnectorError: PS-CONN-003 when the disk is full or the folder read-only, PS-CONN-004 when the last
    segment is damaged, PS-CONN-007 for a record beyond 512 MiB, PS-CONN-008 for a wrong `fsync`.

    Example:
        >>> import tempfile
        >>> topic = LogTopic.create(tempfile.mkdtemp() + "/events")
        >>> with LogWriter(topic, fsync="commit") as writer:
        ...     writer.append(0, [b"one", b"two"]), writer.append(0, [b"three"])
        (0, 2)
    """

    def __init__(self, topic: LogTopic, fsync: str = "5ms") -> None:
        self.topic = topic
        self._interval_s = _interval(fsync)
        self._every = fsync == "commit"
        self._open: dict[int, _Open] = {}
        self._mutex = threading.Lock()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._dirty = threading.Event()
        self._thread: threading.Thread | None = None
        if self._interval_s is not None or topic.settings.retention_us is not None:
            self._thread = threading.Thread(target=self._work, name="penstock-log", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(
        self,
        partition: int,
        values: Values,
        keys: Values | None = None,
        *,
        fence: Fence | None = None,
    ) -> int:
        """Append records (None: a tombstone) and return the offset of the first one.

        All records of one call lie next to each other. With a `fence` they must fit one frame, or its seq_from is
        where the call begins and each frame gets its share.
        """
        bodies = list(_bodies(values, keys))
        with self._mutex:
            self._raise_failure()
            base = self._append(partition, bodies, 0, fence)
        if self._every:
            self.flush(partition)
        else:
            self._dirty.set()
        return base

    def end_version(self, partition: int = 0) -> int:
        """Mark that a version of a reference is complete; the offset that the mark takes."""
        with self._mutex:
            self._raise_failure()
            base = self._append(partition, [EMPTY_BODY], MARK, None)
        if self._every:
            self.flush(partition)
        else:
            self._dirty.set()
        return base

    def flush(self, partition: int | None = None) -> None:
        """Return when all that was appended (to one partition, or all) is durable."""
        for number in list(self._open) if partition is None else [partition]:
            self._sync(number)

    def durable_offset(self, partition: int) -> int:
        """All records of this writer below that offset are durable."""
        with self._mutex:
            return self._open[partition].durable_offset if partition in self._open else 0

    def fences(self, partition: int) -> dict[bytes, Fence]:
        """The newest fence of every sink that has delivered to the partition, by fence id."""
        with self._mutex, self._at_end(partition) as state:
            return _fences(self.topic, partition, state.place.base)

    def clear(self, partition: int) -> None:
        """Drop all records of a partition; its offsets go on."""
        with self._mutex, self._at_end(partition) as state:
            if state.place.offset != state.place.base:
                self._roll(partition, state)
            for segment in log_topic.list_segments(state.folder):
                if segment.base < state.place.base:
                    failpoints.hit(log_topic.BEFORE_DROP)
                    files.remove(segment.path)

    def close(self) -> None:
        """Make everything durable and let go of the files."""
        self._stop.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self._failure is None and self._interval_s is not None:
                self.flush()
        finally:
            for state in self._open.values():
                state.file.close()
                os.close(state.lock)
            self._open.clear()
        self._raise_failure()

    @contextlib.contextmanager
    def _at_end(self, partition: int) -> Iterator[_Open]:
        """Under the partition's lock, with its true end known."""
        try:
            state = self._open.get(partition)
            if state is None:
                state = self._open[partition] = _open_partition(self.topic, partition)
            fcntl.flock(state.lock, fcntl.LOCK_EX)
            try:
                self._find_end(partition, state)
                yield state
            finally:
                fcntl.flock(state.lock, fcntl.LOCK_UN)
        except OSError as problem:
            raise unwritable(self.topic.folder(partition), problem) from problem

    def _append(self, partition: int, bodies: list[Body], flags: int, fence: Fence | None) -> int:
        with self._at_end(partition) as state:
            if state.place.position >= self.topic.settings.segment_bytes:
                self._roll(partition, state)
                self._retain(partition, state)
            base = offset = state.place.offset
            now_us = max(time.time_ns() // 1_000, state.place.last_us)
            buffers: list[bytes] = []
            for body, share in _shares(bodies, fence):
                buffers += (pack_header(body, offset, now_us, flags, share), body.data)
                offset += body.count + (1 if flags & MARK else 0)
            if buffers:
                length = self._write(state, buffers)
                state.place = Position(state.place.base, state.place.position + length, offset, now_us)
            return base

    def _write(self, state: _Open, buffers: list[bytes]) -> int:
        start, length = state.place.position, sum(map(len, buffers))
        try:
            failpoints.hit(BEFORE_APPEND)
            if failpoints.active():
                buffers = [failpoints.torn(TORN_APPEND, b"".join(buffers))]
            elif len(buffers) > MAX_BUFFERS:
                buffers = [b"".join(buffers)]
            written = state.file.write(buffers)
            failpoints.torn_kill(TORN_APPEND)
            while written < length:
                written += state.file.write([b"".join(buffers)[written:]])
        except OSError:
            state.file.truncate(start)
            raise
        failpoints.hit(AFTER_APPEND)
        return length

    def _find_end(self, partition: int, state: _Open) -> None:
        """Learn what others have done since, and cut what a killed one has left half written."""
        size, unlinked = state.file.look()
        if unlinked and os.fstat(state.lock).st_nlink == 0:
            raise ConnectorError(
                "PS-CONN-006",
                f"the topic {self.topic.path} was deleted",
                expected="the topic",
                got="no folder",
            )
        if size != state.place.position:
            state.place = _skip_whole_frames(state.file.descriptor, state.place, size)
        following = state.place.offset
        rolled = state.place.base != following and log_topic.segment_exists(state.name, following)
        if rolled or unlinked or size != state.place.position:
            known = None if rolled or unlinked else state.place
            state.file.close()
            state.file, state.place = _open_end(self.topic, partition, known)

    def _roll(self, partition: int, state: _Open) -> None:
        """Begin a new segment; the old one is durable before the new one exists. Fences are carried over."""
        state.file.sync()
        place = state.place
        carried = [
            pack_header(EMPTY_BODY, place.offset, place.last_us, 0, fence)
            for fence in _fences(self.topic, partition, place.base).values()
        ]
        failpoints.hit(log_topic.BEFORE_ROLL)
        segment = log_topic.create_segment(state.folder, place.offset, place.last_us, b"".join(carried))
        state.file.close()
        state.file = AppendFile(segment.path, create=False)
        state.place = Position(place.offset, state.file.size, place.offset, place.last_us)
        state.synced = state.place
        log_topic.write_synced(state.folder, state.place)
        state.durable_offset = state.place.offset

    def retain(self) -> None:
        """Let go of what retention no longer holds, in the partitions that this writer has open."""
        with self._mutex:
            for partition in list(self._open):
                with self._at_end(partition) as state:
                    self._retain(partition, state)

    def _retain(self, partition: int, state: _Open) -> None:
        place = state.place
        segment = Segment(log_topic.segment_path(state.folder, place.base), place.base)
        if place.offset != place.base and log_retention.is_old(self.topic.settings, segment):
            self._roll(partition, state)
        log_retention.drop_expired(self.topic.settings, state.folder)

    def _sync(self, partition: int) -> None:
        with self._mutex:
            self._raise_failure()
            state = self._open.get(partition)
            if state is None or state.synced == state.place:
                return
            place, descriptor = state.place, os.dup(state.file.descriptor)
            path = state.file.path
        try:
            failpoints.hit(BEFORE_SYNC)
            files.sync(descriptor, path)
            failpoints.hit(AFTER_SYNC)
            log_topic.write_synced(state.folder, place)
        except OSError as problem:
            self._failure = problem
            raise unwritable(path, problem) from problem
        finally:
            os.close(descriptor)
        with self._mutex:
            if state.synced is None or (place.base, place.position) > (
                state.synced.base,
                state.synced.position,
            ):
                state.synced = place
            state.durable_offset = max(state.durable_offset, place.offset)

    def _work(self) -> None:
        """Sync what was appended, as often as `fsync` says; look for what retention lets go, also when all is quiet."""
        look_s = log_retention.look_every_s(self.topic.settings)
        looked = time.monotonic()
        try:
            while not self._stop.is_set():
                self._dirty.wait(look_s)
                self._dirty.clear()
                if self._interval_s is not None:
                    self.flush()
                if look_s is not None and time.monotonic() - looked >= look_s:
                    self.retain()
                    looked = time.monotonic()
                self._stop.wait(self._interval_s if self._interval_s is not None else look_s)
        except ConnectorError as problem:
            # The next append, flush or close raises it.
            self._failure = self._failure or problem

    def _raise_failure(self) -> None:
        if isinstance(self._failure, ConnectorError):
            raise self._failure
        if self._failure is not None:
            raise unwritable(self.topic.path, self._failure) from self._failure


def _interval(fsync: str) -> float | None:
    """The group commit's period in seconds; None for `commit` and `none`."""
    if fsync in ("commit", "none"):
        return None
    try:
        return parse_duration(fsync).total_seconds()
    except ValueError:
        raise ConnectorError(
            "PS-CONN-008",
            "fsync is wrong",
            expected="commit, none or a duration such as 5ms",
            got=fsync,
        ) from None


def _open_partition(topic: LogTopic, partition: int) -> _Open:
    folder = topic.existing_folder(partition)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file, place = _open_end(topic, partition, None)
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BaseException:
        os.close(lock)
        raise
    return _Open(folder, str(folder), lock, file, place, None, 0)


def _open_end(topic: LogTopic, partition: int, known: Position | None) -> tuple[AppendFile, Position]:
    """The newest segment opened at its true end; a torn tail is cut. Under the partition's lock."""
    reader = PartitionReader(topic, partition)
    try:
        segment = log_topic.list_segments(topic.folder(partition))[-1]
        place = known or log_topic.read_synced(topic.folder(partition))
        if place is None or place.base != segment.base:
            place = reader.start_of(segment)
        place, size = reader.check_tail(place)
    finally:
        reader.close()
    file = AppendFile(segment.path, create=False)
    if size > place.position:
        failpoints.hit(BEFORE_CUT)
        file.truncate(place.position)
    return file, place


def _skip_whole_frames(descriptor: int, place: Position, size: int) -> Position:
    """The place behind the frames that other writers have appended; a half one is not passed."""
    while place.position < size:
        header = log_topic.read_header(descriptor, place.position)
        if header is None or header.base_offset != place.offset or place.position + header.frame_bytes > size:
            break
        place = after(header, place.position, place.base)
    return place


def _fences(topic: LogTopic, partition: int, base: int) -> dict[bytes, Fence]:
    reader = PartitionReader(topic, partition)
    try:
        segment = Segment(log_topic.segment_path(topic.folder(partition), base), base)
        found = (header.fence for _, header in reader.headers_of(segment))
        return {fence.id: fence for fence in found if fence is not None}
    finally:
        reader.close()


def _bodies(values: Values, keys: Values | None) -> Iterator[Body]:
    """The records cut into bodies of bounded size."""
    if keys is not None and len(keys) != len(values):
        raise ConnectorError(
            "PS-CONN-003",
            "keys and values differ in number",
            expected=f"{len(values)} keys",
            got=f"{len(keys)}",
        )
    if isinstance(values, list) and len(values) <= _LIST_RECORDS and (keys is None or isinstance(keys, list)):
        if not values:
            return
        body = body_of_list(values, keys)
        if len(body.data) <= MAX_FRAME_BYTES:
            yield body
            return
    if isinstance(values, pa.BinaryArray) and len(values) <= MAX_FRAME_RECORDS and isinstance(keys, _BINARY_OR_NONE):
        yield from _split(values, keys)
        return
    names = ["values"] if keys is None else ["values", "keys"]
    columns = [_binary(column) for column in (values, keys) if column is not None]
    for batch in pa.Table.from_arrays(columns, names).to_batches(max_chunksize=MAX_FRAME_RECORDS):
        yield from _split(batch.column(0), batch.column(1) if keys is not None else None)


def _binary(values: Values) -> pa.ChunkedArray:
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        parts = [values[i : i + MAX_FRAME_RECORDS] for i in range(0, len(values), MAX_FRAME_RECORDS)]
        return pa.chunked_array([pa.array(part, pa.binary()) for part in parts], pa.binary())
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    return pa.chunked_array([piece for chunk in chunks for piece in _narrow(chunk)], pa.binary())


def _narrow(array: pa.Array) -> list[pa.BinaryArray]:
    """64-bit offsets made 32-bit, in pieces that fit."""
    if array.type not in (pa.large_binary(), pa.large_string()):
        return [array.cast(pa.binary())]
    return [
        array.slice(i, MAX_FRAME_RECORDS)
        .take(pa.array(range(min(MAX_FRAME_RECORDS, len(array) - i))))
        .cast(pa.binary())
        for i in range(0, len(array), MAX_FRAME_RECORDS)
    ]


def _split(values: pa.BinaryArray, keys: pa.BinaryArray | None) -> Iterator[Body]:
    count = len(values)
    size = _data_bytes(values) + (_data_bytes(keys) if keys is not None else 0)
    if size > MAX_FRAME_BYTES and count > 1:
        half = count // 2
        yield from _split(values[:half], keys[:half] if keys is not None else None)
        yield from _split(values[half:], keys[half:] if keys is not None else None)
    elif size > MAX_RECORD_BYTES:
        raise ConnectorError(
            "PS-CONN-007",
            "a record is too large for the log",
            expected=f"{MAX_RECORD_BYTES} bytes",
            got=f"{size} bytes",
        )
    elif count:
        yield body_of_arrays(values, keys)


def _data_bytes(array: pa.BinaryArray) -> int:
    if not len(array):
        return 0
    ends = memoryview(array.buffers()[1]).cast("i")
    return int(ends[array.offset + len(array)] - ends[array.offset])


def _shares(bodies: list[Body], fence: Fence | None) -> Iterator[tuple[Body, Fence | None]]:
    seq = fence.seq_from if fence else 0
    for number, body in enumerate(bodies, 1):
        last = fence is not None and fence.last and number == len(bodies)
        yield (
            body,
            Fence(fence.id, fence.epoch, seq, seq + body.count, fence.parts, last) if fence else None,
        )
        seq += body.count


def unwritable(path: Path, problem: BaseException) -> ConnectorError:
    """The error for a topic that cannot be written; a full disk is worth another try."""
    return ConnectorError(
        "PS-CONN-003",
        f"{path} cannot be written",
        expected="space on the disk and the right to write",
        got=str(problem),
        hint="free space or change the rights, then run again: nothing that was acknowledged is lost",
        retryable=isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT),
    )
