"""Waiting for files to change: inotify on Linux, else a poll that backs off to 50 ms.

A notification is only a hint that something may be there; a wait may return early, never later than asked.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_NOTICE = struct.Struct("iIII")
_FIRST_POLL_S, _LONGEST_POLL_S = 0.001, 0.05
_SLICE_S = 0.005


class Waiting(Protocol):
    """What can be waited for."""

    def wait(self, timeout_s: float) -> None: ...


@runtime_checkable
class Watched(Waiting, Protocol):
    """What can be waited for together with others."""

    def descriptor(self) -> int:
        """Readable when something may have changed, until `wait` was called; -1 where there is none."""
        ...


def wait_for_any(waiting: Sequence[Waiting], timeout_s: float) -> None:
    """Return when one of them may have news, at the latest after `timeout_s`; sooner where one has no descriptor."""
    descriptors = [each.descriptor() for each in waiting if isinstance(each, Watched)]
    if len(descriptors) < len(waiting) or min(descriptors, default=-1) < 0:
        for each in waiting:
            each.wait(_SLICE_S / len(waiting))
        return
    ready = select.poll()
    for descriptor in descriptors:
        ready.register(descriptor, select.POLLIN)
    changed = {descriptor for descriptor, _ in ready.poll(math.ceil(timeout_s * 1_000))}
    for each, descriptor in zip(waiting, descriptors, strict=True):
        if descriptor in changed:
            each.wait(0)


class FolderWatch:
    """Wakes when a file in one of the folders grows or appears."""

    def __init__(self, folders: Sequence[Path], *, ignored: frozenset[str] = frozenset()) -> None:
        """ignored: names of files whose changes wake nobody."""
        self._folders = list(folders)
        self._ignored = ignored
        self._descriptor = _inotify(self._folders)
        self._seen = self._state() if self._descriptor < 0 else None

    def wait(self, timeout_s: float) -> None:
        """Return when something has changed since the last wait, at the latest after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        if self._descriptor >= 0:
            # Not select(): that fails for descriptors above 1023.
            ready = select.poll()
            ready.register(self._descriptor, select.POLLIN)
            while ready.poll(math.ceil(max(deadline - time.monotonic(), 0) * 1_000)):
                if _changed_names(self._descriptor) - self._ignored:
                    return
            return
        pause = _FIRST_POLL_S
        while (state := self._state()) == self._seen:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_POLL_S)
        self._seen = state

    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _state(self) -> list[tuple[str, int, int]]:
        found = []
        for folder in self._folders:
            if folder.is_dir():
                for entry in os.scandir(folder):
                    if entry.name in self._ignored:
                        continue
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # deleted between listing and looking
                        continue
                    found.append((entry.path, status.st_size, status.st_mtime_ns))
        return sorted(found)


def _inotify(folders: Sequence[Path]) -> int:
    """A descriptor that becomes readable on changes, or -1 where that cannot be had."""
    if not sys.platform.startswith("linux"):
        return -1
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return -1
    for folder in folders:
        if library.inotify_add_watch(descriptor, os.fsencode(folder), _MODIFY | _MOVED_TO | _CREATE) < 0:
            os.close(descriptor)
            return -1
    return int(descriptor)


def _changed_names(descriptor: int) -> set[str]:
    """The names in all notices that are waiting; an overflow of the kernel's queue counts as a name."""
    names: set[str] = set()
    while True:
        try:
            notices = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return names
        position = 0
        while position < len(notices):
            _, _, _, length = _NOTICE.unpack_from(notices, position)
            position += _NOTICE.size
            names.add(os.fsdecode(notices[position : position + length].rstrip(b"\0")))
            position += length
