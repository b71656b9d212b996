"""A file as a reference: its whole content is one version, named by its hash (semantics R2).

Replace the file by renaming a complete one over it. A file that changes while it is read is read again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from penstock.connectors.base import Batch, Url, Version
from penstock.connectors.file import batch_of
from penstock.connectors.file_input import open_input, unreadable
from penstock.connectors.registry import source_format
from penstock.connectors.watch import FolderWatch

_TRIES = 3


class FileVersions:
    """The versions of `file:PATH`: JSON lines, CSV or Parquet, also gzip or zstd."""

    OPTIONS = ("format",)

    def __init__(self, path: Path, format: str) -> None:
        self._path = path
        self._format = format
        self._seen: tuple[int, int, int] | None = None
        self._name = ""
        self._watch = FolderWatch([path.parent])

    @classmethod
    def open(cls, url: Url) -> FileVersions:
        """The reference for `file:PATH`. Raises ConnectorError PS-CONN-002 if there is no such file."""
        path = Path(url.path)
        if not path.is_file():
            raise unreadable(path, "no file there")
        return cls(path, source_format(url))

    def poll(self, previous: str | None) -> Version | None:
        """Raises ConnectorError PS-CONN-002 when the file is not there or cannot be read as what it should be."""
        for _ in range(_TRIES):
            state = self._state()
            if state == self._seen and self._name == previous:
                return None
            name = self._hash()
            if name == previous:
                self._seen, self._name = state, name
                return None
            batches = self._read()
            if self._state() == state and self._hash() == name:
                self._seen, self._name = state, name
                return Version(name, batches)
        raise unreadable(self._path, "it keeps changing while it is read; rename a complete file over it")

    def recall(self, version: str) -> Version | None:
        current = self.poll(None)
        return current if current is not None and current.id == version else None

    def wait(self, timeout_s: float) -> None:
        self._watch.wait(timeout_s)

    def close(self) -> None:
        self._watch.close()

    def _state(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path)
        except OSError as problem:
            raise unreadable(self._path, problem) from problem
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _hash(self) -> str:
        try:
            with open(self._path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as problem:
            raise unreadable(self._path, problem) from problem

    def _read(self) -> tuple[Batch, ...]:
        content = open_input(self._path, self._format)
        try:
            batches: list[Batch] = []
            position = content.start()
            while (piece := content.read(position, 1 << 20, 1 << 26, None, whole=True)) is not None:
                batches.append(batch_of(piece, 0))
                position = piece.next_position
            return tuple(batches)
        finally:
            content.close()
