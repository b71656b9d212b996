"""Jobs and oracles as processes of their own, ended by a kill or by themselves.

A job runs in a process group of its own, so that a fail point takes all of it. With `unsynced` set, what had not been
synced when it was killed is taken away before it starts again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import RunError
from penstock.storage import failpoints, unsynced

KILLED = -signal.SIGKILL
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Ended:
    """How a process ended. undone: what the power loss took away, a sentence each."""

    killed: bool
    undone: tuple[str, ...] = ()


def run_module(
    module: str,
    spec: Path,
    *,
    kill_at: str = "",
    kill_after_s: float | None = None,
    unsynced_in: Path | None = None,
    log_hits: Path | None = None,
) -> Ended:
    """Run `python -m module spec`, and wait for its end.

    Args:
        kill_at: fail points to arm, as `PENSTOCK_FAILPOINTS` takes them.
        kill_after_s: kill the process group after that time, wherever it is.
        unsynced_in: the folder that records what is not synced; after a kill that is dropped.

    Raises:
        RunError: PS-RUN-001 when the process fails by itself.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(spec)],
        env=_environment(kill_at, unsynced_in, log_hits),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=kill_after_s if kill_after_s is not None else TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_group(process)
        if kill_after_s is None:
            raise RunError(
                "PS-RUN-001", f"{module} does not end", expected=f"an end within {TIMEOUT_S:g} s", got="still running"
            ) from None
        told = b""
    if process.returncode == KILLED:
        undone = unsynced.drop_unsynced(unsynced_in) if unsynced_in is not None and unsynced_in.exists() else []
        return Ended(True, tuple(undone))
    if process.returncode != 0:
        raise _failed(module, process.returncode, told.decode(errors="replace"))
    return Ended(False)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, at once; returns when it is gone."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        time.sleep(0)
    process.communicate()


def _environment(kill_at: str, unsynced_in: Path | None, log_hits: Path | None) -> Mapping[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    if kill_at:
        environment[failpoints.ARM_VARIABLE] = kill_at
    if log_hits is not None:
        environment[failpoints.LOG_VARIABLE] = str(log_hits)
    if unsynced_in is not None:
        environment[unsynced.VARIABLE] = str(unsynced_in)
    return environment


def _failed(module: str, code: int, told: str) -> RunError:
    last = told.strip().splitlines()[-1:] or [""]
    try:
        error = json.loads(last[0])
    except ValueError:
        error = {}
    if isinstance(error, dict) and "code" in error:
        return RunError(
            str(error["code"]),
            str(error["message"]),
            expected=str(error["expected"] or ""),
            got=str(error["got"] or ""),
            hint=str(error["hint"] or ""),
        )
    return RunError(
        "PS-RUN-001", f"{module} failed", expected="exit code 0", got=f"exit code {code}\n{told.strip()[-2000:]}"
    )
