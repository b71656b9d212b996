"""The high-water mark: the last committed epoch, fsynced outside of the database (design section 4).

DuckDB cannot report that it lost the tail of its log. The mark can: a database that stands behind it has lost commits
that others may have seen, and a start stops. Invariant: the mark is durable before an epoch's changes leave the outbox.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import google_crc32c

from penstock.errors import StateError
from penstock.storage import failpoints, files

BEFORE_MARK = failpoints.register("mark.before", "an epoch is committed, its mark is not written")
AFTER_MARK = failpoints.register("mark.after", "an epoch's mark is durable, nothing of it is delivered")

_RECORD = struct.Struct("<8s16sqI")
_MAGIC = b"PSMARK01"
_ROLL_BYTES = 1 << 20


class HighWaterMark:
    """An append-only file of fixed records; the last whole one counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "mark"
        self.state_id, self.epoch = _last(self._path)
        self._file = files.AppendFile(self._path)
        remainder = self._file.size % _RECORD.size
        if remainder:
            self._file.truncate(self._file.size - remainder)

    def check(self, state_id: str, epoch: int) -> None:
        """Compare with the database.

        Raises:
            StateError: PS-STATE-002 when the database is behind, or is another one.
        """
        if self.epoch < 0 and not self.state_id:
            return
        if self.state_id != state_id:
            raise StateError(
                "PS-STATE-002",
                "the state is not the one that the high-water mark belongs to",
                expected=f"state_id {self.state_id} at epoch {self.epoch} or later",
                got=f"state_id {state_id} at epoch {epoch}",
                hint="put the right state file back; or penstock reset, which starts again from the sources",
            )
        if epoch < self.epoch:
            raise StateError(
                "PS-STATE-002",
                "the state is behind its high-water mark: committed epochs are lost",
                expected=f"epoch {self.epoch} or later",
                got=f"epoch {epoch}",
                hint="restore the newest copy of the state; or penstock reset, which starts again from the sources",
            )

    def write(self, state_id: str, epoch: int) -> None:
        """Make the epoch the mark, durably."""
        body = _MAGIC + bytes.fromhex(state_id) + struct.pack("<q", epoch)
        record = body + struct.pack("<I", google_crc32c.value(body))
        try:
            self._append(record)
        except OSError as problem:
            raise StateError(
                "PS-STATE-005",
                "the high-water mark cannot be written",
                expected=f"{len(record)} free bytes in {self._path.parent}",
                got=problem.strerror or str(problem),
                hint="free some disk space, then start again: nothing is lost",
                retryable=True,
            ) from problem
        self.state_id, self.epoch = state_id, epoch
        failpoints.hit(AFTER_MARK)

    def _append(self, record: bytes) -> None:
        failpoints.hit(BEFORE_MARK)
        if self._file.size >= _ROLL_BYTES:
            self._file.close()
            files.write_atomic(self._path, record)
            self._file = files.AppendFile(self._path)
            return
        written = self._file.write([record])
        if written != len(record):
            self._file.truncate(self._file.size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _last(path: Path) -> tuple[str, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "", -1
    for start in range(len(data) // _RECORD.size * _RECORD.size - _RECORD.size, -1, -_RECORD.size):
        record = data[start : start + _RECORD.size]
        magic, state_id, epoch, crc = _RECORD.unpack(record)
        if magic == _MAGIC and crc == google_crc32c.value(record[:-4]):
            return state_id.hex(), epoch
    if data:
        raise StateError(
            "PS-STATE-002",
            "the high-water mark is damaged",
            expected="a record that Penstock wrote",
            got=f"{len(data)} bytes of something else in {path}",
            hint="restore the newest copy of the state folder; or penstock reset, which starts again from the sources",
        )
    return "", -1
