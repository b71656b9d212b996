"""The control channel: a Unix socket in the state folder, for its owner alone (semantics S3).

Nobody else can open the DuckDB file while the job runs. A client sends one JSON object on a line and gets one back.
Reading is done on a connection of its own, at once; what changes state waits for the gap between two epochs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engines.duckdb.engine import run_query
from penstock.errors import Error, RunError
from penstock.runtime.answers import Answer, answer, asked, instant, refusal, rows_of

if TYPE_CHECKING:
    from penstock.runtime.runner import Runner

SOCKET, POINTER = "control.sock", "control.path"
MAX_PATH_BYTES = 100
TIMEOUT_S = 60.0
# How long a query may still take when the job ends.
LAST_ANSWER_S = 1.0


def socket_path(folder: Path) -> Path:
    """Where the socket of a state folder is: inside it, or where the job says when that name is too long."""
    inside = (folder / SOCKET).absolute()
    if _fits(inside):
        return inside
    try:
        return Path((folder / POINTER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return inside


def _new_socket_path(folder: Path) -> Path:
    """A name for a new socket; what a killed job left is removed."""
    left = socket_path(folder)
    left.unlink(missing_ok=True)
    inside = (folder / SOCKET).absolute()
    if _fits(inside):
        return inside
    with contextlib.suppress(OSError):
        left.parent.rmdir()
    place = Path(tempfile.gettempdir())
    # Made anew, for this user alone: a folder with a name that can be guessed could be somebody else's.
    made = Path(tempfile.mkdtemp(prefix="penstock-", dir=place if _fits(place / ("x" * 40)) else "/tmp"))
    (folder / POINTER).write_text(str(made / SOCKET), encoding="utf-8")
    return made / SOCKET


def _fits(path: Path) -> bool:
    """A Unix socket's name is short: 104 bytes on macOS, 108 on Linux."""
    return len(os.fsencode(path)) <= MAX_PATH_BYTES


@dataclass(frozen=True)
class _Waiting:
    request: Mapping[str, object]
    result: Future[Answer]


class ControlServer:
    """The job's side."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._cursor = runner.state.cursor()
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._folder = runner.target.state
        self.path = _new_socket_path(self._folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The socket is made with the mode that it keeps: there is no moment in which others could connect.
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        finally:
            os.umask(before)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def serve(self, runner: Runner) -> bool:
        """Answer what waited for the gap between two epochs (called in the loop's thread)."""
        served = False
        while True:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return served
            try:
                item.result.set_result(answer(runner.state, item.request))
            except Error as problem:
                item.result.set_result(refusal(problem))
            except Exception as problem:  # noqa: BLE001 - the client gets it; the job goes on
                item.result.set_exception(problem)
            served = True

    def close(self) -> None:
        # A thread that waits in accept() is not woken by close alone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=1.0)
        self.path.unlink(missing_ok=True)
        if self.path.parent != self._folder.absolute():
            self.path.parent.rmdir()
            (self._folder / POINTER).unlink(missing_ok=True)
        self.serve(self._runner)
        # A client may still be asking, in a thread of its own.
        if not _CURSOR_LOCK.acquire(timeout=LAST_ANSWER_S):
            self._cursor.interrupt()
            _CURSOR_LOCK.acquire()
        self._cursor.close()
        _CURSOR_LOCK.release()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(TIMEOUT_S)
            try:
                line = stream.readline()
                request = json.loads(line)
                if not isinstance(request, dict):
                    raise ValueError("a request is a JSON object")
                reply = self._answer(request)
            except Error as problem:
                reply = refusal(problem)
            except (ValueError, KeyError, OSError, TimeoutError) as problem:
                reply = refusal(
                    RunError("PS-RUN-004", "the request failed", got=f"{type(problem).__name__}: {problem}")
                )
            try:
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError:
                # The client has gone; there is nobody to tell.
                return

    def _answer(self, request: Mapping[str, object]) -> Answer:
        match request.get("do"):
            case "sql":
                with _CURSOR_LOCK:
                    self._runner.state.settle(self._cursor)
                    run = functools.partial(run_query, self._cursor)
                    return rows_of(asked(self._runner.plan, run, str(request["query"])))
            case "pulse":
                return self._running() | self._pulse()
            case "stop":
                self._runner.stop()
                return {"stopping": True}
            case _:
                item = _Waiting(request, Future())
                self._waiting.put(item)
                reply = item.result.result(TIMEOUT_S)
                return reply | self._running() if request.get("do") == "status" else reply

    def _running(self) -> Answer:
        snapshot = self._runner.snapshot
        return {
            "running": True,
            "pid": os.getpid(),
            "rows_per_s": round(snapshot.rows_per_s),
            "lag": snapshot.lag,
            "watermark": instant(snapshot.watermark_us),
            "alerts": list(snapshot.alerts),
            "sinks": {
                name: {"delivered_rows": d.rows, "waiting_epochs": d.waiting, "guarantee": d.guarantee.value}
                for name, d in self._runner.deliveries.items()
            },
        }

    def _pulse(self) -> Answer:
        """What the loop has in memory anyway: asked every second, it must cost nothing."""
        snapshot, progress = self._runner.snapshot, self._runner.progress
        lags = {feed.declared.name: feed.lag for feed in self._runner.feeds}
        marks = [s.watermark_us for s in progress.sources.values() if s.watermark_us is not None]
        return {
            "epoch": progress.epoch,
            "rows": sum(s.counts.rows for s in progress.sources.values()),
            "dead": sum(s.counts.dead for s in progress.sources.values()),
            "late": sum(progress.late.values()),
            "epoch_ms": round(snapshot.epoch_s * 1000, 2),
            "behind_s": round(time.time() - min(marks) / 1e6, 3) if marks else None,
            "sources": {
                name: {
                    **vars(stood.counts),
                    "watermark": instant(stood.watermark_us),
                    "version": stood.version,
                    "lag": lags.get(name),
                }
                for name, stood in progress.sources.items()
            },
        }


_CURSOR_LOCK = threading.Lock()


def ask(folder: Path, request: Mapping[str, object]) -> Answer:
    """Send one request to the job that runs on this state.

    Raises:
        RunError: PS-RUN-004 when the job does not answer; or the error that the job answered.
    """
    path = socket_path(folder)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps(dict(request)).encode() + b"\n")
                stream.flush()
                reply = json.loads(stream.readline() or b"null")
    except (OSError, ValueError) as problem:
        raise RunError(
            "PS-RUN-004",
            "the running job cannot be reached",
            expected=f"an answer at {path}",
            got=str(problem),
            hint="the job may be starting or stopping: try again",
            retryable=True,
        ) from None
    if not isinstance(reply, dict):
        raise RunError("PS-RUN-004", "the running job gave no answer", expected="a JSON object", got=repr(reply))
    if "error" in reply:
        told = reply["error"]
        raise RunError(
            told["code"],
            told["message"],
            expected=told["expected"] or "",
            got=told["got"] or "",
            hint=told["hint"] or "",
        )
    return reply
