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
        self._wal_bytes = -1
        self.crash: Crash | None = None
        self.sinks.mkdir(parents=True)
        self.unsynced.mkdir()

    def before_commit(self) -> None:
        """A transaction is about to be committed: from here on the database's log may be torn."""
        self._wal_bytes = self._wal_size()

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
            undone += self._tear_wal()
        match crash.loss:
            case "unsynced":
                undone += unsynced.drop_unsynced(self.unsynced)
            case "torn":
                undone += unsynced.drop_unsynced(self.unsynced, lambda size: self._draw.randint(0, size))
        return [text.replace(str(self.folder), "") for text in undone]

    def _wal(self) -> Path | None:
        return next(iter(sorted(self.state.glob("*.wal"))), None)

    def _wal_size(self) -> int:
        wal = self._wal()
        return wal.stat().st_size if wal is not None else 0

    def _tear_wal(self) -> list[str]:
        """The commit was under way: a part of what it added to the database's log is there, and never the last byte."""
        wal, before = self._wal(), self._wal_bytes
        if wal is None or before < 0 or wal.stat().st_size <= before:
            return []
        size = wal.stat().st_size
        kept = self._draw.randrange(before, size)
        with open(wal, "r+b") as file:
            file.truncate(kept)
        return [f"{size - kept} bytes of a commit lost"]
