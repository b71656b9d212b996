"""One file as a sequence of records: text lines (plain or compressed) or Parquet rows.

Positions are bytes of the decompressed text, or rows of a Parquet file; the same position always names the same
record. What a file holds behind its last line end is not a record until `whole` says that nothing follows.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.connectors.file_records import BYTE_ORDER_MARK, csv_ends, cut, line_ends
from penstock.errors import ConnectorError

_FIRST_READ_BYTES = 64 << 10
_LONGEST_READ_BYTES = 64 << 20
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Piece:
    """Some consecutive records. positions: where each one lies; next_position: where to read on."""

    data: pa.BinaryArray | pa.Table
    positions: npt.NDArray[np.int64]
    next_position: int
    header: tuple[str, ...] = ()


class FileInput(Protocol):
    """The records of one open file."""

    def start(self) -> int:
        """The position of the first record."""
        ...

    def end(self, *, whole: bool) -> int:
        """The position behind the last record that can be read now."""
        ...

    def read(self, position: int, max_rows: int, max_bytes: int, to: int | None, *, whole: bool) -> Piece | None:
        """Records from `position` on that begin below `to`; None when there is none yet."""
        ...

    def close(self) -> None: ...


def open_input(path: Path, format: str) -> FileInput:
    """The records of a file, by its format (`parquet`, `csv`, else lines) and suffix (`.gz`, `.zst`)."""
    try:
        if format == "parquet":
            return ParquetInput(path)
        compression = _COMPRESSIONS.get(path.suffix.lower())
        content = CompressedBytes(path, compression) if compression else PlainBytes(path)
        return TextInput(content, is_csv=format == "csv")
    except (OSError, pa.ArrowException) as problem:
        raise unreadable(path, problem) from problem


def unreadable(path: Path, problem: object) -> ConnectorError:
    return ConnectorError(
        "PS-CONN-002",
        f"{path} cannot be read",
        expected="a file that exists, is whole and may be read",
        got=str(problem),
    )


class Content(Protocol):
    """The bytes of a file by position."""

    path: Path

    def bytes_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of what is there."""
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class PlainBytes:
    """A file as it lies on the disk; it may grow. A file that shrinks or is replaced is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._largest = 0

    def bytes_at(self, position: int, length: int) -> bytes:
        self._check()
        parts = []
        while length > 0 and (part := os.pread(self._descriptor, length, position)):
            parts.append(part)
            position += len(part)
            length -= len(part)
        return b"".join(parts)

    def size(self) -> int:
        self._check()
        return self._largest

    def close(self) -> None:
        os.close(self._descriptor)

    def _check(self) -> None:
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0:
            raise unreadable(self.path, "it was deleted or replaced while it was read")
        if status.st_size < self._largest:
            raise unreadable(self.path, f"it was cut from {self._largest} to {status.st_size} bytes while it was read")
        self._largest = status.st_size


class CompressedBytes:
    """A gzip or zstd file, decompressed from its beginning on; going back begins anew."""

    def __init__(self, path: Path, compression: str) -> None:
        self.path = path
        self._compression = compression
        self._size: int | None = None
        self._window, self._window_start = b"", 0
        self._stream = self._opened()

    def bytes_at(self, position: int, length: int) -> bytes:
        if position < self._window_start:
            self._stream.close()
            self._window, self._window_start = b"", 0
            self._stream = self._opened()
        parts, held = [self._window], len(self._window)
        while self._window_start + held < position + length and (block := self._next_block()):
            parts.append(block)
            held += len(block)
            while self._window_start + len(parts[0]) <= position and len(parts) > 1:
                self._window_start += len(parts[0])
                held -= len(parts.pop(0))
        self._window = b"".join(parts)
        first = max(position - self._window_start, 0)
        return self._window[first : first + length]

    def size(self) -> int:
        if self._size is None:
            other = CompressedBytes(self.path, self._compression)
            try:
                self._size = 0
                while block := other._next_block():
                    self._size += len(block)
            finally:
                other.close()
        return self._size

    def close(self) -> None:
        self._stream.close()

    def _opened(self) -> pa.CompressedInputStream:
        return pa.CompressedInputStream(pa.OSFile(str(self.path), "rb"), self._compression)

    def _next_block(self) -> bytes:
        try:
            return bytes(self._stream.read(1 << 20))
        except (OSError, EOFError) as problem:
            raise unreadable(self.path, problem) from problem


class TextInput:
    """JSON lines or CSV records."""

    def __init__(self, content: Content, *, is_csv: bool) -> None:
        self._content = content
        self._is_csv = is_csv
        self._header: tuple[tuple[str, ...], int] | None = None
        self._known_end = -1
        self._after_mark = -1

    def start(self) -> int:
        header = self._read_header(self._first(), whole=False) if self._is_csv else None
        return header[1] if header else self._first()

    def end(self, *, whole: bool) -> int:
        size = self._content.size()
        if whole:
            return size
        if self._is_csv and self._known_end < 0:
            self._known_end = self.start()
        if self._is_csv:
            while (piece := self.read(self._known_end, 1 << 30, _LONGEST_READ_BYTES, None, whole=False)) is not None:
                self._known_end = piece.next_position
            return self._known_end
        return self._last_line_end(size)

    def read(self, position: int, max_rows: int, max_bytes: int, to: int | None, *, whole: bool) -> Piece | None:
        self._check_position(position)
        asked = position
        header: tuple[str, ...] = ()
        if self._is_csv:
            found = self._read_header(self._first(), whole=whole)
            if found is None:
                return None
            header, after_header = found
            position = max(position, after_header)
        position = max(position, self._first())
        if to is not None and to <= position:
            return None
        length = max(_FIRST_READ_BYTES, min(max_bytes, _LONGEST_READ_BYTES))
        while True:
            data = self._content.bytes_at(position, length)
            at_end = len(data) < length
            ends = self._ends(data, whole=whole and at_end)
            if len(ends) or at_end:
                break
            length *= 4
        if not len(ends) and position == asked:
            return None
        return self._piece(data, ends, position, max_rows, max_bytes, to, header)

    def close(self) -> None:
        self._content.close()

    def _piece(
        self,
        data: bytes,
        ends: npt.NDArray[np.int64],
        position: int,
        max_rows: int,
        max_bytes: int,
        to: int | None,
        header: tuple[str, ...],
    ) -> Piece | None:
        count = min(len(ends), max(max_rows, 1), max(1, int(np.searchsorted(ends, max_bytes, side="right"))))
        if to is not None:
            count = min(count, int(np.searchsorted(ends, to - position, side="left")) + 1)
        records = cut(data, ends[:count])
        return Piece(records.values, records.starts + position, position + records.end, header)

    def _ends(self, data: bytes, *, whole: bool) -> npt.NDArray[np.int64]:
        ends = csv_ends(data, whole=whole) if self._is_csv else line_ends(data)
        if whole and data and (not len(ends) or ends[-1] < len(data)):
            ends = np.append(ends, len(data))
        return ends

    def _first(self) -> int:
        if self._after_mark < 0:
            head = self._content.bytes_at(0, len(BYTE_ORDER_MARK))
            if len(head) < len(BYTE_ORDER_MARK):
                return 0
            self._after_mark = len(BYTE_ORDER_MARK) if head == BYTE_ORDER_MARK else 0
        return self._after_mark

    def _read_header(self, first: int, *, whole: bool) -> tuple[tuple[str, ...], int] | None:
        if self._header is None:
            length = _FIRST_READ_BYTES
            while True:
                data = self._content.bytes_at(first, length)
                ends = self._ends(data, whole=whole and len(data) < length)
                if len(ends) or len(data) < length:
                    break
                length *= 4
            if not len(ends):
                return None
            text = data[: int(ends[0])].decode("utf-8", errors="replace")
            names = next(csv.reader([text]), [])
            self._header = tuple(name.strip() for name in names), first + int(ends[0])
        return self._header

    def _check_position(self, position: int) -> None:
        """A position taken from an earlier run must still lie between two records."""
        size = self._content.size() if isinstance(self._content, PlainBytes) else None
        if size is not None and position > size:
            raise ConnectorError(
                "PS-CONN-005",
                f"{self._content.path} is shorter than what was read of it",
                expected=f"at least {position} bytes",
                got=f"{size} bytes",
                hint="the file was replaced or cut; files that are read from offsets may only grow",
            )
        if position <= len(BYTE_ORDER_MARK):
            return
        around = self._content.bytes_at(position - 1, 2)
        if around[:1] != b"\n" and around[1:] not in (b"", b"\n", b"\r"):
            raise unreadable(
                self._content.path, f"byte {position} is no longer where a record begins: the file was changed"
            )

    def _last_line_end(self, size: int) -> int:
        end, step = size, _FIRST_READ_BYTES
        while end > 0:
            begin = max(0, end - step)
            found = self._content.bytes_at(begin, end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end, step = begin, step * 4
        return 0


class ParquetInput:
    """The rows of a Parquet file, which is whole or unreadable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetFile(path, memory_map=False)
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._group_starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self._group: tuple[int, pa.Table] | None = None

    def start(self) -> int:
        return 0

    def end(self, *, whole: bool) -> int:
        return int(self._group_starts[-1])

    def read(self, position: int, max_rows: int, max_bytes: int, to: int | None, *, whole: bool) -> Piece | None:
        total = self.end(whole=whole)
        if not 0 <= position <= total:
            raise ConnectorError(
                "PS-CONN-005",
                f"{self.path}: row {position} is out of range",
                expected=f"0 to {total}",
                got=str(position),
            )
        if position >= min(total, total if to is None else to):
            return None
        number = int(np.searchsorted(self._group_starts, position, side="right")) - 1
        group = self._read_group(number)
        first = position - int(self._group_starts[number])
        rows = min(max(max_rows, 1), len(group) - first, total if to is None else to - position)
        row_bytes = max(1, group.nbytes // max(1, len(group)))
        rows = min(rows, max(1, max_bytes // row_bytes))
        positions = np.arange(position, position + rows, dtype=np.int64)
        return Piece(group.slice(first, rows), positions, position + rows)

    def close(self) -> None:
        self._file.close()

    def _read_group(self, number: int) -> pa.Table:
        if self._group is None or self._group[0] != number:
            try:
                self._group = number, self._file.read_row_group(number)
            except (OSError, pa.ArrowException) as problem:
                raise unreadable(self.path, problem) from problem
        return self._group[1]
