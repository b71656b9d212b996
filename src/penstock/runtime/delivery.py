"""Handing committed epochs to sinks.

Each sink has a thread and a bounded queue: a slow sink fills its own queue, and then the loop waits, which pauses the
sources; the other sinks go on. What could not be delivered stays in the outbox and is delivered after the next start.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from penstock.connectors.base import Guarantee, RowsRefused, Sink
from penstock.errors import ConnectorError, Error
from penstock.storage import failpoints

BEFORE_DELIVER = failpoints.register("sink.before", "an epoch's mark is durable, it is about to be delivered")
AFTER_DELIVER = failpoints.register("sink.after", "an epoch is delivered, the outbox still has it")

QUEUED_EPOCHS = 16
# Delivered epochs that may stay in the outbox, while they have fewer rows than this.
KEPT_EPOCHS = 32
KEPT_ROWS = 10_000
RETRIES = 8
FIRST_PAUSE_S = 0.05


@dataclass(frozen=True)
class _Item:
    epoch: int
    changes: pa.Table | None


@dataclass(frozen=True)
class Refused:
    """Rows of an epoch that a sink will never take."""

    epoch: int
    rows: pa.Table
    reason: str


class Delivery:
    """One sink's queue and thread."""

    def __init__(self, name: str, sink: Sink, on_error: Literal["stop", "dead"] = "stop") -> None:
        self.name = name
        self.sink = sink
        self._on_error = on_error
        self._refused: queue.SimpleQueue[Refused] = queue.SimpleQueue()
        self.rows = 0
        # of the thread, beside the loop
        self.busy_s = 0.0
        self.last_epoch = -1
        self._forgotten, self._forgotten_rows = -1, 0
        self.failure: BaseException | None = None
        self._queue: queue.Queue[_Item | None] = queue.Queue(QUEUED_EPOCHS)
        self._thread = threading.Thread(target=self._work, name=f"sink-{name}", daemon=True)
        self._thread.start()

    @property
    def guarantee(self) -> Guarantee:
        return self.sink.guarantee

    def forgettable(self) -> int | None:
        """The epoch up to which the outbox may drop its rows; None where that can wait.

        A sink that knows what it has is not given it again, so dropping may wait until it is worth a statement.
        """
        # The thread counts the rows first, so these are never more than what `last` stands for and one epoch beyond.
        last, rows = self.last_epoch, self.rows
        if last <= self._forgotten:
            return None
        few = last - self._forgotten < KEPT_EPOCHS and rows - self._forgotten_rows < KEPT_ROWS
        if few and self.guarantee is not Guarantee.AT_LEAST_ONCE:
            return None
        self._forgotten, self._forgotten_rows = last, rows
        return last

    @property
    def waiting(self) -> int:
        """Epochs that are committed but not delivered."""
        return self._queue.unfinished_tasks

    def put(self, epoch: int, changes: pa.Table) -> None:
        """Queue an epoch; blocks while the queue is full (this is what slows the sources down)."""
        while True:
            self.check()
            try:
                self._queue.put(_Item(epoch, changes), timeout=0.2)
                return
            except queue.Full:
                continue

    def check(self) -> None:
        """Raise what stopped the sink."""
        if self.failure is not None:
            raise self.failure

    def take_refused(self) -> list[Refused]:
        """The rows that the sink refused since the last call; call it before trusting `last_epoch`."""
        return [self._refused.get() for _ in range(self._refused.qsize())]

    def flush(self) -> None:
        """Wait until everything queued is delivered; raise what stopped it."""
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks and self.failure is None:
                self._queue.all_tasks_done.wait(0.05)
        self.check()

    def close(self) -> None:
        """Stop the thread after what is queued, and close the sink."""
        self._queue.put(None)
        self._thread.join()
        self.sink.close()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.failure is None and item.changes is not None:
                began = time.perf_counter()
                try:
                    self._deliver(item.epoch, item.changes)
                except BaseException as problem:  # noqa: BLE001 - the loop raises it in its own thread
                    self.failure = problem
                self.busy_s += time.perf_counter() - began
            self._queue.task_done()
        self._queue.task_done()

    def _deliver(self, epoch: int, changes: pa.Table) -> None:
        attempt = -1
        while True:
            attempt += 1
            failpoints.hit(BEFORE_DELIVER)
            try:
                self.sink.deliver(epoch, changes)
                break
            except RowsRefused as problem:
                if self._on_error != "dead" or not problem.rows:
                    raise
                self._refused.put(Refused(epoch, changes.take(list(problem.rows)), problem.reason))
                gone = set(problem.rows)
                changes = changes.take([n for n in range(len(changes)) if n not in gone])
            except Error as problem:
                if not problem.retryable or attempt == RETRIES:
                    raise
                # Full jitter: several jobs that wait for one broker do not come back at once.
                time.sleep(random.uniform(0, FIRST_PAUSE_S * 2**attempt))
            except OSError as problem:
                raise ConnectorError(
                    "PS-CONN-003",
                    f"sink {self.name} cannot be written",
                    expected="a sink that can be written",
                    got=str(problem),
                ) from problem
        self.rows += len(changes)
        self.last_epoch = epoch
        failpoints.hit(AFTER_DELIVER)
