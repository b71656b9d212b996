"""Files whose writes survive a power loss once they say so.

Nothing counts as durable before `sync` (file content) and `sync_folder` (names) have returned. All durable writes of
Penstock itself go through this module, so that `penstock.storage.unsynced` can record, for crash tests, what a power
loss would take away.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock.storage import failpoints, unsynced

WRITE_TEMPORARY = failpoints.register("file.write", "a file is about to be written under a temporary name")
BEFORE_RENAME = failpoints.register("file.rename", "a synced temporary file is about to take its final name")
AFTER_RENAME = failpoints.register("file.renamed", "a file has its final name, its folder is not synced yet")

_TEMPORARY_SUFFIX = ".tmp"


def sync(descriptor: int, path: Path) -> None:
    """Return when the content written to `descriptor` so far is durable."""
    length = os.fstat(descriptor).st_size if unsynced.tracking() else 0
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
    if unsynced.tracking():
        unsynced.synced(path, length)


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pending = unsynced.pending(folder) if unsynced.tracking() else ()
        os.fsync(descriptor)
        unsynced.settled(pending)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents durably; one that exists is fine."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses and that listings ignore."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")


def is_temporary(path: Path) -> bool:
    """Whether the name is one that `temporary_name` made."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path` as a whole: after a crash it holds the old content or the new one."""
    temporary = temporary_name(path)
    try:
        failpoints.hit(WRITE_TEMPORARY)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno(), temporary)
        replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def replace(temporary: Path, path: Path) -> None:
    """Give a synced file its final name durably, replacing what had that name."""
    failpoints.hit(BEFORE_RENAME)
    if unsynced.tracking():
        unsynced.renaming(temporary, path)
    os.replace(temporary, path)
    failpoints.hit(AFTER_RENAME)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete `path` durably; one that is gone is fine."""
    if unsynced.tracking():
        unsynced.removing(path)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sync_folder(path.parent)


class AppendFile:
    """A file that only grows, shared by any number of writers that lock among themselves."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
        existed = path.exists()
        self.descriptor = os.open(path, flags, 0o644)
        if unsynced.tracking():
            unsynced.opened(path, os.fstat(self.descriptor).st_size, created=not existed)
        if not existed and create:
            sync_folder(path.parent)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def look(self) -> tuple[int, bool]:
        """The size, and whether the name is gone: somebody has deleted the file."""
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_nlink == 0

    def write(self, buffers: Sequence[bytes]) -> int:
        """Append all buffers in one system call; the number of bytes written, which may be less on a full disk."""
        return os.writev(self.descriptor, buffers)

    def truncate(self, length: int) -> None:
        os.ftruncate(self.descriptor, length)
        if unsynced.tracking():
            unsynced.truncated(self.path, length)

    def sync(self) -> None:
        sync(self.descriptor, self.path)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
