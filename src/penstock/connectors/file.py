"""Files as streams and tables: `file:events.jsonl`, `file:people.csv.gz`, `file:landing/`.

A single file is one partition whose offsets are bytes (rows for Parquet); it may grow, and its last line waits for
its end. A folder is one partition too: its files are read one after the other in the order in which they were first
seen (new ones by name). That order is kept in `.penstock-order` inside the folder, or where `order=` says, so that
offsets (file number x 2^40 + position) mean the same after a restart, whatever arrives later under whatever name.

Options: `format` (by suffix: csv, parquet, else json), `start` (earliest or latest); for folders `order` and `settle`
(default 1s: a file that has not changed for so long is taken as complete; writers should rename files into place).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.connectors.base import Batch, RawBatch, Source, TypedBatch, Url
from penstock.connectors.file_input import FileInput, Piece, open_input, unreadable
from penstock.connectors.registry import source_format
from penstock.connectors.watch import FolderWatch
from penstock.durations import parse_duration
from penstock.errors import ConnectorError
from penstock.storage import files

ORDER_FILE = ".penstock-order"
POSITION_BITS = 40
_IGNORED_PREFIXES = (".", "_")
_IGNORED_SUFFIXES = (".tmp", ".part", ".crc")


class FileSources:
    """Opens a file or a folder as a source."""

    OPTIONS = ("format", "start", "order", "settle")

    @classmethod
    def open(cls, url: Url) -> Source:
        """The source for `file:PATH`. Raises ConnectorError PS-CONN-002 if there is no such file or folder."""
        path = Path(url.path)
        start = url.options.get("start", "earliest")
        if start not in ("earliest", "latest"):
            raise ConnectorError(
                "PS-CONN-008",
                "the option start is wrong",
                expected="earliest or latest (files have no append times)",
                got=start,
            )
        if not path.exists():
            raise unreadable(path, "nothing there")
        if not path.is_dir():
            return FileSource(path, source_format(url), start=start)
        try:
            settle_s = parse_duration(url.options.get("settle", "1s")).total_seconds()
        except ValueError as problem:
            raise ConnectorError(
                "PS-CONN-008", "the option settle is wrong", expected="a duration such as 1s", got=str(problem)
            ) from None
        order = Path(url.options.get("order", path / ORDER_FILE))
        return FolderSource(path, url.options.get("format"), start=start, settle_s=settle_s, order=order)


class FileSource:
    """One file, followed as it grows."""

    def __init__(self, path: Path, format: str, *, start: str = "earliest") -> None:
        self._path = path
        self._input = open_input(path, format)
        self._start = start
        self._whole = False
        self._watch = FolderWatch([path.parent])

    def partitions(self) -> list[int]:
        return [0]

    def start(self, partition: int) -> int:
        return self.latest(partition) if self._start == "latest" else self.earliest(partition)

    def earliest(self, partition: int) -> int:
        return self._input.start()

    def latest(self, partition: int) -> int:
        return self._input.end(whole=self._whole)

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        self._check_name()
        piece = self._input.read(offset, max_rows, max_bytes, to, whole=self._whole)
        return batch_of(piece, 0) if piece is not None else None

    def wait(self, timeout_s: float) -> None:
        self._watch.wait(timeout_s)

    def finish(self) -> None:
        """Take the last line as whole."""
        self._whole = True

    def close(self) -> None:
        self._watch.close()
        self._input.close()

    def _check_name(self) -> None:
        if not self._path.exists():
            raise unreadable(self._path, "it was deleted while it was read")


@dataclass(frozen=True)
class _Taken:
    """A file of a folder that was complete. size: its bytes then; a later change is an error, never a loss."""

    name: str
    size: int


class FolderSource:
    """The files of a folder, in the order in which they were first seen."""

    def __init__(
        self, folder: Path, format: str | None, *, start: str = "earliest", settle_s: float = 1.0, order: Path
    ) -> None:
        self._folder = folder
        self._format = format
        self._settle_s = settle_s
        self._order = order
        self._taken: list[_Taken] = []
        self._open: tuple[int, FileInput] | None = None
        self._whole = False
        self._watch = FolderWatch([folder])
        self._waiting = False
        self._look()
        self._first = self.latest(0) if start == "latest" else self.earliest(0)

    def partitions(self) -> list[int]:
        return [0]

    def start(self, partition: int) -> int:
        return self._first

    def earliest(self, partition: int) -> int:
        present = (number for number, taken in enumerate(self._taken) if (self._folder / taken.name).exists())
        return next(present, len(self._taken)) << POSITION_BITS

    def latest(self, partition: int) -> int:
        self._look()
        if not self._taken:
            return 0
        number = len(self._taken) - 1
        if not (self._folder / self._taken[number].name).exists():
            return (number + 1) << POSITION_BITS
        return (number << POSITION_BITS) + self._input(number).end(whole=True)

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        if to is not None and to <= offset:
            return None
        number, position = offset >> POSITION_BITS, offset & ((1 << POSITION_BITS) - 1)
        if number >= len(self._taken):
            self._look()
        if number > len(self._taken) or (number == len(self._taken) and position):
            raise ConnectorError(
                "PS-CONN-005",
                f"{self._folder}: offset {offset} is out of range",
                expected=f"one of {len(self._taken)} files",
                got=f"file number {number}",
                hint=f"{self._order} was deleted or replaced: it gives offsets their meaning",
            )
        while number < len(self._taken):
            base = number << POSITION_BITS
            limit = None if to is None else min(to - base, (1 << POSITION_BITS) - 1)
            if limit is not None and limit <= 0:
                return None
            piece = self._read_file(number, position, max_rows, max_bytes, limit)
            if piece is not None:
                return batch_of(piece, base)
            number, position = number + 1, 0
            if number >= len(self._taken):
                self._look()
        end = self.latest(partition)
        if end <= offset or (to is not None and to < end):
            return None
        # Files without a record, or deleted ones, are passed.
        nothing = pa.chunked_array([], pa.binary())
        return RawBatch(0, nothing, pa.chunked_array([], pa.int64()), end)

    def wait(self, timeout_s: float) -> None:
        # A file that has yet to settle gives no further notice: look again when it may have.
        self._watch.wait(min(timeout_s, max(self._settle_s, 0.01)) if self._waiting else timeout_s)

    def finish(self) -> None:
        """Take all files that are there as complete."""
        self._whole = True
        self._look()

    def close(self) -> None:
        self._watch.close()
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _read_file(self, number: int, position: int, max_rows: int, max_bytes: int, limit: int | None) -> Piece | None:
        taken = self._taken[number]
        path = self._folder / taken.name
        try:
            size = path.stat().st_size
        except OSError as problem:
            if position:  # it was deleted after it was read, as far as can be known from here
                return None
            raise unreadable(path, problem) from problem
        if size != taken.size:
            raise unreadable(
                path, f"it has changed from {taken.size} to {size} bytes since it was complete; rename files into place"
            )
        return self._input(number).read(position, max_rows, max_bytes, limit, whole=True)

    def _input(self, number: int) -> FileInput:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            path = self._folder / self._taken[number].name
            format = self._format or source_format(Url("file", path.name))
            self._open = number, open_input(path, format)
        return self._open[1]

    def _look(self) -> None:
        """Learn which files others have taken, and take those that are complete now."""
        self._taken = _read_order(self._order)
        known = {taken.name for taken in self._taken}
        found, self._waiting = [], False
        for entry in sorted(os.scandir(self._folder), key=lambda entry: entry.name):
            if entry.name in known or _ignored(entry.name) or not entry.is_file():
                continue
            status = entry.stat()
            if self._whole or time.time() - status.st_mtime >= self._settle_s:
                found.append(_Taken(entry.name, status.st_size))
            else:
                self._waiting = True
        if found:
            self._taken = _extend_order(self._order, found)


def batch_of(piece: Piece, base: int) -> Batch:
    """A piece of a file as a batch of partition 0, its positions moved up by `base`."""
    offsets = pa.chunked_array([pa.array(piece.positions + np.int64(base), pa.int64())])
    if isinstance(piece.data, pa.Table):
        return TypedBatch(0, piece.data, offsets, piece.next_position + base)
    values = pa.chunked_array([piece.data], pa.binary())
    return RawBatch(0, values, offsets, piece.next_position + base, header=piece.header)


def _ignored(name: str) -> bool:
    return name.startswith(_IGNORED_PREFIXES) or name.endswith(_IGNORED_SUFFIXES)


def _read_order(path: Path) -> list[_Taken]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    # A last line without its end was being written when the power went: nobody has read by it yet.
    return [_Taken(*json.loads(line)) for line in lines if line.endswith("\n")]


def _extend_order(path: Path, found: list[_Taken]) -> list[_Taken]:
    """Append newly complete files, unless another process has done so meanwhile; the whole order."""
    try:
        file = files.AppendFile(path)
    except OSError as problem:
        raise ConnectorError(
            "PS-CONN-002",
            f"{path}: the order of the files cannot be kept",
            expected="a folder to write in",
            got=str(problem),
            hint="give another place with ?order=PATH",
        ) from problem
    try:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX)
        taken = _read_order(path)
        known = {entry.name for entry in taken}
        new = [entry for entry in found if entry.name not in known]
        whole = sum(len(_order_line(entry)) for entry in taken)
        if file.size > whole:
            file.truncate(whole)
        if new:
            file.write([b"".join(map(_order_line, new))])
        file.sync()
        return taken + new
    finally:
        file.close()


def _order_line(entry: _Taken) -> bytes:
    return json.dumps([entry.name, entry.size]).encode() + b"\n"
