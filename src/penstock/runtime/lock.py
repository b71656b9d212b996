"""One writer per state: an advisory lock on a file in the state folder that names the holder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from penstock.errors import StateError

# Who only looks at a state (status, a page) holds it for a moment.
PATIENCE_S = 0.5
LOCK = "lock"


class StateLock:
    """Held until `release`, or until the process ends, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> StateLock:
        """Lock the state folder, making it if it is not there.

        Raises:
            StateError: PS-STATE-001 when another process holds it, PS-STATE-005 when the folder cannot be written.
        """
        path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StateError(
                "PS-STATE-005",
                "the state folder cannot be written",
                expected=f"a folder that this user may write: {folder}",
                got=problem.strerror or str(problem),
                hint="choose another folder with --state",
            ) from None
        if not _locked(descriptor):
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StateError(
                "PS-STATE-001",
                f"the state is locked by pid {holder}",
                expected="one job per state",
                got=f"{folder} in use",
                hint="stop that job, or run with another --state",
                retryable=True,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(path, descriptor)

    @staticmethod
    def holder(folder: Path) -> int | None:
        """The pid of the process that holds the lock, None when nobody does."""
        try:
            descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
            return int(text) if text.isdigit() else -1
        finally:
            os.close(descriptor)
        return None

    def release(self) -> None:
        """Let the next one in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _locked(descriptor: int) -> bool:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        else:
            return True
