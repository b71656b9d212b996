"""What a benchmark has started ends when it is killed, and nothing is killed in its stead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.apps.ads.job import JobProcess
from penstock.bench.leash import Leash

JOB = """
import time
from pathlib import Path
from penstock.apps.ads.job import JobProcess
JobProcess(["/bin/sh", "-c", "sleep 600 & echo $$ $!; wait"], Path({log!r}))
time.sleep(600)
"""
WORKER = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from penstock.bench.leash import follow_parent
pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=follow_parent)
Path({log!r}).write_text(str(pool.submit(os.getpid).result()) + "\\n")
time.sleep(600)
"""


def is_alive(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def come_true(what: str, within_s: float = 60.0) -> Iterator[None]:
    """To be gone through until it is left; fails when that takes too long."""
    deadline = time.monotonic() + within_s
    while True:
        assert time.monotonic() < deadline, what
        yield
        time.sleep(0.02)


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("program", [JOB, WORKER], ids=["job", "worker"])
def test_what_a_killed_benchmark_has_started_ends(tmp_path: Path, program: str) -> None:
    log = tmp_path / "pids"
    with started(program.format(log=str(log))) as parent:
        for _ in come_true("it has started"):
            if log.exists() and log.read_text().endswith("\n"):
                break
        children = [int(word) for word in log.read_text().split()]
        assert all(map(is_alive, children))
        parent.send_signal(signal.SIGKILL)
        for _ in come_true("all have ended"):
            if not any(map(is_alive, children)):
                break


def test_a_job_that_has_ended_is_watched_no_longer(tmp_path: Path) -> None:
    job = JobProcess(["/bin/sh", "-c", "exit 0"], tmp_path / "log")
    job.wait()
    assert job._leash._shell.returncode is not None
    job.kill()


def test_what_is_let_go_lives_on() -> None:
    process = subprocess.Popen(["/bin/sh", "-c", "sleep 600"], start_new_session=True)
    try:
        Leash(process.pid).let_go()
        time.sleep(0.3)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
