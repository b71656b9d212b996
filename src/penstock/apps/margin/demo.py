"""Everything of the margin application together: a market, the job, its topics and its audit trail, in one folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from penstock.apps.margin.feeder import TOPICS, feed, prepare_topics
from penstock.apps.margin.market import Simulation
from penstock.bench.folders import emptied
from penstock.errors import RunError
from penstock.runtime.control import ask

SINKS = ("positions", "margin_calculations", "stress_results", "enforcement")
MARK = ".penstock-margin-demo"
PARTITIONS = 2
STOP_TIMEOUT_S = 120.0
POLL_S = 0.2


class Demo:
    """A workplace. It has one job at a time, which ends with the `with` block that runs it."""

    def __init__(self, folder: Path) -> None:
        """Raises FileExistsError when the folder has something in it that is not a demo's."""
        emptied(folder, MARK, "margin demo")
        self.folder = folder
        self.state = folder / "state"
        self.audit = folder / "audit"
        self._topics = {topic: str(folder / "log" / topic) for topic in TOPICS}
        prepare_topics(self._topics, PARTITIONS)

    def feed(self, market: Callable[[datetime], Simulation], seconds: float) -> dict[str, int]:
        """Send the market; records by topic."""
        return feed(market, self._topics, seconds=seconds)

    @contextmanager
    def job(self, options: Sequence[str] = ()) -> Iterator[None]:
        """The job beside what is done in the block; it is asked to stop at the end.

        Raises:
            RunError: PS-RUN-001 when it failed; its log is in the folder.
        """
        with (self.folder / "job.log").open("ab") as log:
            process = subprocess.Popen([*self._command(), *options], stdout=log, stderr=log)
        try:
            self._await_start(process)
            yield
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_TIMEOUT_S)
        if code not in (0, 128 + signal.SIGTERM):
            self._failed(code)

    def drain(self) -> None:
        """Run the job over what is left. Raises as `job`."""
        with (self.folder / "job.log").open("ab") as log:
            code = subprocess.run([*self._command(), "--once"], stdout=log, stderr=log, check=False).returncode
        if code:
            self._failed(code)

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the job answers, or has ended."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                ask(self.state, {"do": "status"})
            except RunError:
                time.sleep(POLL_S)  # it is starting
            else:
                return

    def _command(self) -> list[str]:
        bound = {f"source:{name}": f"log:{path}" for name, path in self._topics.items()}
        bound |= {f"sink:{name}": f"log:{self.folder / 'log' / name}" for name in SINKS}
        bound["sink:audit"] = f"audit:{self.audit}?by=account_id&partitions=4"
        binds = [part for name, url in bound.items() for part in ("--bind", f"{name}={url}")]
        return [sys.executable, "-m", "penstock", "run", "margin", "--state", str(self.state), *binds]

    def _failed(self, code: int) -> None:
        raise RunError(
            "PS-RUN-001",
            "the margin job failed",
            expected="exit code 0",
            got=str(code),
            hint=f"its log is {self.folder / 'job.log'}",
        )
