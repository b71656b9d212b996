"""The part of a disk that a simulated job writes to, and what a crash leaves of it.

At a crash the folder is copied as it stands at that moment: what the dying job's handlers do afterwards is lost, as it
would be with the process. Of what had not been synced, nothing, all, or a random part of each file's last bytes goes.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from penstock.storage import unsynced
from penstock.verify.simulation.schedule import TORN_COMMIT, Crash


class Crashed(BaseException):
    """The simulated process has ended. Nothing but the simulation catches it."""


class World:
    """state/, sinks/ and the record of what is not synced, below one folder whose path never changes."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.sinks = folder / "sinks"
        self.unsynced = folder / "unsynced"
        self._frozen = folder.with_name(f"{folder.name}.crash")
        self._draw = draw
        self._logged: dict[Path, int] = {}
        self.crash: Crash | None = None
        self.sinks.mkdir(parents=True)
        self.unsynced.mkdir()

    def before_commit(self) -> None:
        """An epoch is about to be committed: from here on the log that it goes into may be torn."""
        self._logged = {log: log.stat().st_size for log in self._logs()}

    def freeze(self, crash: Crash) -> None:
        """The disk as it is now is what the crash leaves."""
        if self.crash is not None:
            return
        self.crash = crash
        shutil.copytree(self.folder, self._frozen)

    def restore(self) -> list[str]:
        """After the job's handlers have run: the disk as the crash left it, and what was lost, a sentence each."""
        crash = self.crash
        if crash is None:
            return []
        shutil.rmtree(self.folder)
        self._frozen.rename(self.folder)
        self.crash = None
        undone: list[str] = []
        if crash.point == TORN_COMMIT:
            undone += self._tear_logs()
        match crash.loss:
            case "unsynced":
                undone += unsynced.drop_unsynced(self.unsynced)
            case "torn":
                undone += unsynced.drop_unsynced(self.unsynced, lambda size: self._draw.randint(0, size))
        return [text.replace(str(self.folder), "") for text in undone]

    def _logs(self) -> list[Path]:
        """What a commit goes into: the database's log and the redo log."""
        return sorted([*self.state.glob("*.wal"), *self.state.glob("*.redo")])

    def _tear_logs(self) -> list[str]:
        """The commit was under way: a part of what it added to a log is there, and never the last byte."""
        undone = []
        for log in self._logs():
            before, size = self._logged.get(log, 0), log.stat().st_size
            if size > before:
                kept = self._draw.randrange(before, size)
                with open(log, "r+b") as file:
                    file.truncate(kept)
                undone.append(f"{log.name}: {size - kept} bytes of a commit lost")
        return undone
