"""The parts of a simulated job that may fail: sources, sinks, their delivery, the clock. Each counts what it is asked
for, and fails where the schedule says, so that the same schedule fails at the same step."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import pyarrow as pa

from penstock.connectors.base import Batch, Guarantee, Sink, Source
from penstock.connectors.clock import ClockSource
from penstock.connectors.log_topic import BEFORE_DROP
from penstock.engines.duckdb.epoch import AFTER_COMMIT, BEFORE_COMMIT
from penstock.errors import ConnectorError
from penstock.runtime.delivery import Delivery
from penstock.storage import failpoints, files
from penstock.verify.simulation.schedule import (
    TORN_COMMIT,
    Crash,
    Fault,
    FullDisk,
    ShortWrite,
    SinkFault,
    SourceFault,
)
from penstock.verify.simulation.world import Crashed, World

TICK_US = 1_000


class Clock:
    """A clock that moves when it is read, and jumps when it is told to; microseconds since 1970."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        self._now_us += TICK_US
        return self._now_us

    def jump(self, by_us: int) -> None:
        self._now_us = max(0, self._now_us + by_us)


class Ticks(ClockSource):
    """A clock source that goes by the simulated clock."""

    def __init__(self, period_us: int, clock: Clock) -> None:
        super().__init__(period_us)
        self._clock = clock

    def wait(self, timeout_s: float) -> None:
        """The simulated clock moves when it is read."""

    def finish(self) -> None:
        """A clock has no end."""

    def _now_us(self) -> int:
        return self._clock.now_us()


class Fired:
    """Which of a start's faults have come to pass, in order."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def note(self, fault: Fault) -> None:
        self.faults.append(fault)


class Driver:
    """Acts at fail points as the faults of one start say. hits: every point passed, with how often.

    before_drop: called before retention takes a segment away.
    """

    def __init__(
        self, world: World, faults: Sequence[Fault], fired: Fired, before_drop: Callable[[], None] = lambda: None
    ) -> None:
        self._before_drop = before_drop
        self._world = world
        self._fired = fired
        self._faults = [f for f in faults if isinstance(f, Crash | FullDisk)]
        self._crash: Crash | None = None
        self.hits: dict[str, int] = {}

    def hit(self, name: str) -> failpoints.Action | None:
        if self._world.crash is not None:
            return None  # the process is gone: what its handlers do is nobody's
        self.hits[name] = count = self.hits.get(name, 0) + 1
        if name == BEFORE_DROP:
            self._before_drop()
        if name == BEFORE_COMMIT:
            self._world.before_commit()
        for fault in self._faults:
            point = AFTER_COMMIT if fault.point == TORN_COMMIT else fault.point
            if point == name and fault.hit == count:
                self._fired.note(fault)
                if isinstance(fault, Crash):
                    self._crash = fault
                    return "kill"
                return "error"
        return None

    def crash(self, name: str) -> NoReturn:
        assert self._crash is not None
        self._world.freeze(self._crash)
        raise Crashed(name)


class FaultySource:
    """A source that gives few rows at a time, and fails at some reads."""

    def __init__(self, source: Source, name: str, most_rows: int, faults: Sequence[Fault], fired: Fired) -> None:
        self._source = source
        self._most_rows = most_rows
        self._faults = [f for f in faults if isinstance(f, SourceFault) and f.source == name]
        self._fired = fired
        self._reads = 0

    def partitions(self) -> list[int]:
        return self._source.partitions()

    def start(self, partition: int) -> int:
        return self._source.start(partition)

    def earliest(self, partition: int) -> int:
        return self._source.earliest(partition)

    def latest(self, partition: int) -> int:
        return self._source.latest(partition)

    def read(self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None) -> Batch | None:
        self._reads += 1
        for fault in self._faults:
            if fault.read == self._reads:
                self._fired.note(fault)
                raise ConnectorError("PS-CONN-002", "simulated: the source does not answer", retryable=True)
        return self._source.read(partition, offset, min(max_rows, self._most_rows), max_bytes, to)

    def wait(self, timeout_s: float) -> None:
        self._source.wait(timeout_s)

    def finish(self) -> None:
        self._source.finish()

    def close(self) -> None:
        self._source.close()


class FaultySink:
    """A sink that fails at some deliveries, before or after it has written."""

    def __init__(self, sink: Sink, name: str, faults: Sequence[Fault], fired: Fired) -> None:
        self._sink = sink
        self._faults = [f for f in faults if isinstance(f, SinkFault) and f.sink == name]
        self._fired = fired
        self._deliveries = 0

    @property
    def guarantee(self) -> Guarantee:
        return self._sink.guarantee

    @guarantee.setter
    def guarantee(self, guarantee: Guarantee) -> None:
        raise AttributeError("a sink's guarantee is its own")

    def delivered(self) -> int:
        return self._sink.delivered()

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        self._deliveries += 1
        due = next((f for f in self._faults if f.delivery == self._deliveries), None)
        if due is None or due.done:
            self._sink.deliver(epoch, changes)
        if due is not None:
            self._fired.note(due)
            raise ConnectorError("PS-CONN-003", "simulated: the sink does not answer", retryable=due.retryable)

    def close(self) -> None:
        self._sink.close()


class OrderedDelivery:
    """A sink's queue whose every step happens in the loop's own order: `held` epochs behind, then one after the other.

    The real thread delivers, but the loop waits for it, so that a schedule has one course of events.
    """

    def __init__(self, delivery: Delivery, held: int) -> None:
        self._delivery = delivery
        self._held = held
        self._queue: deque[tuple[int, pa.Table]] = deque()
        self.name = delivery.name
        self.sink = delivery.sink

    @property
    def guarantee(self) -> Guarantee:
        return self._delivery.guarantee

    @property
    def rows(self) -> int:
        return self._delivery.rows

    @property
    def last_epoch(self) -> int:
        return self._delivery.last_epoch

    @property
    def failure(self) -> BaseException | None:
        return self._delivery.failure

    @property
    def busy_s(self) -> float:
        return self._delivery.busy_s

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def forgettable(self) -> int | None:
        return self._delivery.forgettable()

    def put(self, epoch: int, changes: pa.Table) -> None:
        self._queue.append((epoch, changes))
        self._deliver_down_to(self._held)

    def check(self) -> None:
        self._delivery.check()

    def take_refused(self) -> object:
        return self._delivery.take_refused()

    def flush(self) -> None:
        self._deliver_down_to(0)

    def _deliver_down_to(self, held: int) -> None:
        while len(self._queue) > held:
            self._delivery.put(*self._queue.popleft())
            self._delivery.flush()


@contextlib.contextmanager
def short_writes(faults: Sequence[Fault], fired: Fired) -> Iterator[None]:
    """Within the block appended files take only a part of some writes."""
    due = {f.write: f for f in faults if isinstance(f, ShortWrite)}
    whole: Callable[[files.AppendFile, Sequence[bytes]], int] = files.AppendFile.write
    count = 0
    full = False

    def write(file: files.AppendFile, buffers: Sequence[bytes]) -> int:
        nonlocal count, full
        if full:
            full = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count += 1
        fault = due.get(count)
        data = b"".join(buffers)
        if fault is None or len(data) < 2:
            return whole(file, buffers)
        fired.note(fault)
        full = True
        return whole(file, [data[: len(data) // 2]])

    files.AppendFile.write = write  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        files.AppendFile.write = whole  # type: ignore[assignment, method-assign]
