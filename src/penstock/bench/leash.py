"""No process of a benchmark outlives it, not even when it is killed: then nobody is left to end the others.

A process that Python has spawned watches its parent by itself (`follow_parent`). Any other program, with all that it
has started, is watched by a shell that reads from a pipe (`Leash`): the system closes the pipe when whoever holds its
other end is gone, however it went.
"""

from __future__ import annotations

import os
import subprocess
import threading
from multiprocessing import parent_process

# The shell waits for the end of the pipe; nothing is ever written to it.
_WATCH = 'read -r _; kill -s KILL -- "-$1"'


def follow_parent() -> None:
    """To be called in a process that multiprocessing has started: it ends when its parent has ended."""
    threading.Thread(target=_end_with_parent, name="follow-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Leash:
    """Kills a process group as soon as this process is gone, until it is let go."""

    def __init__(self, group: int) -> None:
        command = ["/bin/sh", "-c", _WATCH, "sh", str(group)]
        self._shell = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def let_go(self) -> None:
        """The group has ended, and its number may soon be another's. Twice is once."""
        # Killed before the pipe is closed, so that it does not see that end.
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
