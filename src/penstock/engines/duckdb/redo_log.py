"""The redo log: the file beside a state in which small epochs become durable.

An epoch that changes no table appends one record, and the sync of that record is its commit. Invariants:

- A record is durable before the next one is written. So what is not whole can only be the last one, whose epoch nobody
  was told of; a record that is not whole before one that is means that the file is damaged.
- A record names the state, its epoch and the epoch before it. Those up to the last epoch in the state's tables are
  settled: they are passed over, whether the file has been cut since or not.
- The others go on where the tables stand, without a gap (engines/duckdb/recovery.py sees to it). Anything else is
  another state's file, or one that has lost something, and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from penstock.errors import StateError
from penstock.storage import failpoints, files

TORN = failpoints.register("redo.torn", "half of an epoch's redo record is written")
BEFORE_SYNC = failpoints.register("redo.sync", "an epoch's redo record is written, and not synced")

# Magic, state_id, epoch, the epoch before, length of the entry, and the checksum of all that and the entry.
_HEAD = struct.Struct("<8s16sqqQ")
_CHECK = struct.Struct("<I")
_MAGIC = b"PSREDO01"


def redo_path(database: Path) -> Path:
    """The log of a state file."""
    return database.with_name(f"{database.name}.redo")


@dataclass(frozen=True)
class Record:
    """What one epoch has moved (`redo.encoded`). after: the epoch before it."""

    state_id: str
    epoch: int
    after: int
    entry: bytes


class RedoLog:
    """The log of an open state. Whoever opens a state settles what the log holds, so that it begins empty."""

    def __init__(self, database: Path, state_id: str) -> None:
        self._path = redo_path(database)
        self._state_id = state_id
        self._file: files.AppendFile | None = None
        self._problem: OSError | None = None

    def append(self, epoch: int, after: int, entry: bytes) -> None:
        """Make an epoch durable.

        Raises:
            StateError: PS-STATE-005, the record cannot be written; the epoch is none.
        """
        record = _encoded(Record(self._state_id, epoch, after, entry))
        try:
            # What became of a record that could not be synced, or not be taken back, only a new start can tell.
            if self._problem is not None:
                raise self._problem
            self._append(record)
        except OSError as problem:
            raise StateError(
                "PS-STATE-005",
                "the state cannot be written; the epoch was rolled back",
                expected=f"{len(record)} free bytes in {self._path.parent}",
                got=problem.strerror or str(problem),
                hint="free some disk space, then start again: nothing is lost",
                retryable=True,
            ) from problem

    def _append(self, record: bytes) -> None:
        if self._file is None:
            self._file = files.AppendFile(self._path)
            # what it still holds is settled
            self._cut(self._file, 0)
        before = self._file.size
        given = failpoints.torn(TORN, record)
        try:
            written = self._file.write([given])
        except OSError:
            self._cut(self._file, before)
            raise
        failpoints.torn_kill(TORN)
        if written != len(record):
            self._cut(self._file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            failpoints.hit(BEFORE_SYNC)
            self._file.sync()
        except OSError as problem:
            self._problem = problem
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise

    def _cut(self, file: files.AppendFile, length: int) -> None:
        try:
            if file.size > length:
                file.truncate(length)
        except OSError as problem:
            self._problem = problem
            raise

    def settled(self) -> None:
        """All that was appended is in the tables. (A power loss may bring it back; then it is passed over.)"""
        if self._file is not None:
            self._cut(self._file, 0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _encoded(record: Record) -> bytes:
    head = _HEAD.pack(_MAGIC, bytes.fromhex(record.state_id), record.epoch, record.after, len(record.entry))
    check = google_crc32c.extend(google_crc32c.value(head), record.entry)
    return b"".join([head, _CHECK.pack(check), record.entry])


def read(database: Path) -> list[Record]:
    """The whole records in the log of a state file, oldest first.

    Raises:
        StateError: PS-STATE-002 when there are some behind one that is not whole.
    """
    path = redo_path(database)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    found: list[Record] = []
    start = 0
    while (record := _record(data, start)) is not None and (not found or record.epoch > found[-1].epoch):
        found.append(record)
        start += _HEAD.size + _CHECK.size + len(record.entry)
    last = found[-1].epoch if found else -1
    if any(record.epoch > last for record in _records_behind(data, start)):
        raise damaged(path, "the redo log is damaged", f"whole records up to epoch {last}, damage, more records")
    return found


def _records_behind(data: bytes, start: int) -> Iterator[Record]:
    """The whole records anywhere behind one that is not whole."""
    while (start := data.find(_MAGIC, start + 1)) >= 0:
        if (record := _record(data, start)) is not None:
            yield record


def _record(data: bytes, start: int) -> Record | None:
    end = start + _HEAD.size + _CHECK.size
    if end > len(data):
        return None
    head = data[start : start + _HEAD.size]
    magic, state_id, epoch, after, length = _HEAD.unpack(head)
    if magic != _MAGIC or end + length > len(data):
        return None
    entry = data[end : end + length]
    (check,) = _CHECK.unpack_from(data, start + _HEAD.size)
    if check != google_crc32c.extend(google_crc32c.value(head), entry):
        return None
    return Record(state_id.hex(), epoch, after, entry)


def damaged(path: Path, message: str, got: str) -> StateError:
    return StateError(
        "PS-STATE-002",
        message,
        expected=f"in {path} the epochs that follow those in the state file",
        got=got,
        hint="restore the newest copy of the state folder; or penstock reset, which starts again from the sources",
    )


def clear(database: Path) -> None:
    """Cut the log of a state file that is settled; see `RedoLog.settled`."""
    path = redo_path(database)
    if path.exists() and path.stat().st_size:
        file = files.AppendFile(path)
        try:
            file.truncate(0)
        finally:
            file.close()
