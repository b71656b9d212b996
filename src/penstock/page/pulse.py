"""How the pipeline is, once a second: the samples of the last minutes, for plots and for pages that stay open.

A job that runs answers from what it has in memory. Of a state that no job holds the tables are read once, and again
when a job has run on it: looking at a page must not keep a job from starting.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, cast

from penstock.errors import Error
from penstock.page.tables import Ask
from penstock.runtime.answers import Answer
from penstock.runtime.control import POINTER, SOCKET
from penstock.runtime.lock import LOCK, StateLock

EVERY_S = 1.0
SIZES_EVERY_S = 5.0
KEPT = 600
_SIZES = (
    "SELECT table_name, estimated_size FROM duckdb_tables() "
    "WHERE schema_name = '_ps' AND database_name = current_database()"
)
_PLOTTED = ("rows_per_s", "lag", "epoch_ms", "behind_s")
_log = logging.getLogger(__name__)


class Pulse:
    """Samples in a thread of its own. `latest` is what a page is told; `history` what it draws."""

    def __init__(self, ask: Ask, folder: Path, *, every_s: float = EVERY_S) -> None:
        self._ask = ask
        self._folder = folder
        self._every_s = every_s
        self._stop = threading.Event()
        self._sizes: dict[str, int] = {}
        self._sized_at = 0.0
        self._stood: object = None
        self.number = 0
        self.latest: dict[str, Any] = {"running": False, "state": "starting"}
        self.history: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._thread = threading.Thread(target=self._beat, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def again(self) -> None:
        """A state without a job was changed from this page: read it anew."""
        self._stood = None

    def _beat(self) -> None:
        while True:
            try:
                self._sample()
            except Error as problem:
                # A job that starts or stops holds its state for a moment: the page says so, and asks again.
                self._tell({**self.latest, "running": False, "state": "unreachable", "problem": problem.to_dict()})
            except Exception:  # noqa: BLE001 - the page goes on, the log has it
                _log.exception("the page's figures could not be read")
            if self._stop.wait(self._every_s):
                return

    def _sample(self) -> None:
        if StateLock.holder(self._folder) is not None:
            self._stood = None
            self._tell(self._with_sizes(self._ask({"do": "pulse"})) | {"state": "running"})
            return
        if self._stood is None or self._stood != self._files():
            found = standing(self._ask({"do": "status"}))
            self._read_sizes()
            self._tell({**found, "sizes": self._sizes, "state": "stopped"})
            self._stood = self._files()

    def _files(self) -> object:
        """Another value when a job has run on the state since."""
        found: list[tuple[str, int, int]] = []
        for path in self._folder.iterdir():
            if path.is_file() and path.name not in (LOCK, SOCKET, POINTER):
                with contextlib.suppress(FileNotFoundError):
                    seen = path.stat()
                    found.append((path.name, seen.st_mtime_ns, seen.st_size))
        return sorted(found)

    def _with_sizes(self, found: Answer) -> Answer:
        if time.monotonic() - self._sized_at >= SIZES_EVERY_S:
            self._read_sizes()
        return {**found, "sizes": self._sizes}

    def _read_sizes(self) -> None:
        rows = cast(list[list[Any]], self._ask({"do": "sql", "query": _SIZES})["rows"])
        self._sizes = {str(name): int(size) for name, size in rows}
        self._sized_at = time.monotonic()

    def _tell(self, found: dict[str, Any]) -> None:
        found["at"] = time.time()
        self.latest = found
        if found.get("running"):
            self.history.append({"at": found["at"], **{name: found.get(name) for name in _PLOTTED}})
        self.number += 1


def standing(status: Answer) -> dict[str, Any]:
    """The status of a state without a job, in the form in which a running job tells its pulse."""
    sources = cast(dict[str, dict[str, Any]], status["sources"])
    return {
        "running": False,
        "epoch": status["epoch"],
        "rows": sum(s["rows"] for s in sources.values()),
        "dead": sum(s["dead"] for s in sources.values()),
        "late": sum(v["late"] for view in cast(dict[str, Any], status["views"]).values() for v in view.values()),
        "watermark": min((s["watermark"] for s in sources.values() if s["watermark"]), default=None),
        "sources": sources,
        "alerts": [],
        "sinks": {},
    }
