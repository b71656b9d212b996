"""A process group that can be killed at a fail point or from outside, with a record of what was not synced."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from penstock.errors import RunError
from penstock.storage import failpoints, unsynced

# A program that is told to stop before it has begun ends by the signal itself.
STOPPED = (0, 143, -signal.SIGTERM)
STOP_WITHIN_S = 90.0
DRAIN_WITHIN_S = 900.0


class Group:
    """One start of a program in a process group of its own; its output goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, *, hits: Path, records: Path, armed: str = "") -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environment[failpoints.LOG_VARIABLE] = str(hits)
        environment[unsynced.VARIABLE] = str(records)
        if armed:
            environment[failpoints.ARM_VARIABLE] = armed
        self.armed = armed
        self._log = log
        with log.open("ab") as output:
            output.write(f"--- {armed or 'not armed'}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def killed(self) -> bool:
        """Whether it was ended by a kill.

        Raises:
            RunError: PS-RUN-001, it ended by itself.
        """
        code = self._process.poll()
        if code is None:
            return False
        if code != -signal.SIGKILL:
            raise self._failed(code, "a process that ends by a kill")
        return True

    def kill(self) -> None:
        """End the group at once."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask for a clean stop and wait for it. Raises RunError PS-RUN-001 if that fails."""
        if self.running:
            self._process.terminate()
        code = self._process.wait(STOP_WITHIN_S)
        if code not in STOPPED:
            raise self._failed(code, "a clean stop")

    def wait(self) -> None:
        """Wait for an end by itself. Raises RunError PS-RUN-001 unless the exit code is 0."""
        try:
            code = self._process.wait(DRAIN_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        if code != 0:
            raise self._failed(code, f"exit code 0 within {DRAIN_WITHIN_S:g} s")

    def _failed(self, code: int, expected: str) -> RunError:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])
        return RunError("PS-RUN-001", "a process failed by itself", expected=expected, got=f"exit code {code}\n{tail}")
