"""Producer processes: an open-loop load whose schedule does not depend on how fast it can be sent.

When an event is due is computed ahead, from the arrival process alone, and is its event time; a producer that falls
behind sends late, and says so, but never moves the schedule. A send holds only events that are due, and each of them
carries the time of that send. What is durable is counted into the ledger, never what was only handed over.

The thread that sends does nothing else: events are rendered ahead and ledgers are written by two other threads, for
whatever holds up a send would be measured as lag.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.apps.ads.counts import CellCounts, add_all, count_events
from penstock.apps.ads.faults import FAULTS, Disturbance
from penstock.apps.ads.generate import SOUND, Block, Renderer
from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.mapping import ADS_PER_CAMPAIGN, CAMPAIGNS, create_ad_campaign_mappings
from penstock.apps.ads.timeline import ScheduleWriter
from penstock.bench.arrivals import NS_PER_SECOND, Load, Offsets, arrival_process
from penstock.bench.latency import LatencyHistogram
from penstock.connectors.log import LogTopic, LogWriter
from penstock.errors import ConnectorError

PACED_BLOCK = 2_048
BACKLOG_BLOCK = 65_536
BACKLOG_SETTLE = 8
BLOCKS_AHEAD = 8
REPORT_EVERY_NS = 250_000_000
LEDGER_EVERY_NS = 1_000_000_000
RETRIES = 5


@dataclass(frozen=True)
class Production:
    """A whole load, the same for all its producers.

    topic, ledger: folders of the topic and of the ledgers. load: what each producer sends per second. total: stop
    each producer after that many events (None: after duration_s). linger_ms: the shortest time between two sends of
    one producer, so that a send is worth its system call. fsync: as `LogWriter` takes it.
    """

    topic: str
    ledger: str
    producers: int = 2
    load: Load = field(default_factory=lambda: Load(20_000))
    arrivals: str = "poisson"
    duration_s: float = 60.0
    total: int | None = None
    window_s: float = 10.0
    campaigns: int = CAMPAIGNS
    ads_per_campaign: int = ADS_PER_CAMPAIGN
    seed: int = 20_000
    fsync: str = "5ms"
    linger_ms: float = 1.0
    disturbance: Disturbance = field(default_factory=Disturbance)

    @property
    def expected_events(self) -> float:
        """About how many events all producers will send."""
        each = self.load.rate * self.duration_s
        return self.producers * (each if self.total is None else min(each, self.total))


@dataclass(frozen=True)
class Progress:
    """How far one producer is."""

    producer: int
    sent: int
    failed: int
    lag_us: int


def produce(
    production: Production,
    index: int,
    base_ns: int,
    report: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], int] = time.time_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Ledger:
    """Send one producer's events as they fall due from `base_ns` (ns since 1970) on; its ledger at the end.

    `report` hears of the progress about twice a second. Other `clock` and `sleep` (seconds) make it run in tests.
    """
    ahead = _Ahead(_blocks(production, index, base_ns, PACED_BLOCK))
    sender = _Sender(production, index, keeps_schedule=True)
    linger_ns = int(production.linger_ms * 1e6)
    try:
        block, position, next_send, next_report, next_ledger = ahead.next(), 0, 0, 0, clock() + LEDGER_EVERY_NS
        while block is not None:
            now = clock()
            next_due = max(int(block.due_ns[position]), next_send)
            if next_due <= now:
                due = int(np.searchsorted(block.due_ns, now, side="right"))
                sender.send(block, position, due, now)
                position, next_send = due, now + linger_ns
                if position == block.rows:
                    block, position = ahead.next(), 0
            elif now >= next_ledger:
                next_ledger = now + LEDGER_EVERY_NS
                sender.settle_soon()
            elif now >= next_report:
                next_report = now + REPORT_EVERY_NS
                report(sender.progress())
            else:
                sleep((next_due - now) / 1e9)
        ledger = sender.finish()
        report(sender.progress())
        return ledger
    finally:
        ahead.close()
        sender.close()


def write_backlog(
    production: Production, index: int, base_ns: int, report: Callable[[Progress], None] = lambda progress: None
) -> Ledger:
    """Append one producer's events as fast as they can be made; each is stamped with its own due time."""
    sender = _Sender(production, index, keeps_schedule=False)
    try:
        for number, block in enumerate(_blocks(production, index, base_ns, BACKLOG_BLOCK), 1):
            sender.send(block, 0, block.rows, int(block.due_ns[-1]))
            if number % BACKLOG_SETTLE == 0:
                sender.flush()
                sender.settle()
                report(sender.progress())
        ledger = sender.finish()
        report(sender.progress())
        return ledger
    finally:
        sender.close()


class _Ahead:
    """Blocks rendered before they are due, by a thread of its own, in their order."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._thread = ThreadPoolExecutor(1, "penstock-render")
        self._ready = deque(self._thread.submit(next, blocks, None) for _ in range(BLOCKS_AHEAD))

    def next(self) -> Block | None:
        """The next block; waits for it if it has to. None at the end."""
        self._ready.append(self._thread.submit(next, self._blocks, None))
        return self._ready.popleft().result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Sent:
    """A slice of a block that was appended; durable when its partition is durable up to `next_offset`."""

    block: Block
    start: int
    stop: int
    produce_time_ms: int
    partition: int
    next_offset: int


class _Sender:
    """Appends slices of blocks, and accounts for them once they are durable."""

    def __init__(self, production: Production, index: int, *, keeps_schedule: bool) -> None:
        self._production = production
        self._index = index
        topic = LogTopic.open(production.topic)
        self._partitions = topic.partitions
        self._writer = LogWriter(topic, fsync=production.fsync)
        self._sends = index
        self._pending: deque[_Sent] = deque()
        self._thread = ThreadPoolExecutor(1, "penstock-ledger")
        self._settling: Future[Ledger] | None = None
        self._sound: CellCounts = {}
        self._broken: Counter[str] = Counter()
        self._lag = LatencyHistogram()
        self._lags: deque[tuple[NDArray[np.int64], int]] = deque()
        self._last_lag_us = 0
        self._scheduled = self._durable = self._failed = self._retries = 0
        self._folder = Path(production.ledger)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._schedule = ScheduleWriter(self._folder, index) if keeps_schedule else None

    def send(self, block: Block, start: int, stop: int, now_ns: int) -> None:
        """Stamp and append the events of a block from `start` to `stop` to the next partition."""
        produce_time_ms = now_ns // 1_000_000
        block.stamp(start, stop, produce_time_ms)
        self._scheduled += stop - start
        due_ns = block.due_ns[start:stop]
        self._lags.append((due_ns, now_ns))
        self._last_lag_us = (now_ns - int(due_ns[0])) // 1_000
        partition = self._sends % self._partitions
        self._sends += 1
        offset = self._append(partition, block, start, stop)
        if offset is None:
            self._failed += stop - start
        else:
            self._pending.append(_Sent(block, start, stop, produce_time_ms, partition, offset + stop - start))

    def flush(self) -> None:
        """Wait until all that was appended is durable."""
        self._writer.flush()

    def finish(self) -> Ledger:
        """The exact ledger, after all that was appended is durable."""
        self.flush()
        if self._settling is not None:
            self._settling.result()
        return self.settle(last=True)

    def settle_soon(self) -> None:
        """Let the other thread settle, unless it still does; what went wrong there is raised here."""
        if self._settling is not None:
            if not self._settling.done():
                return
            self._settling.result()
        self._settling = self._thread.submit(self.settle)

    def settle(self, *, last: bool = False) -> Ledger:
        """Account for what is durable by now, and write the ledger; never by two threads at once."""
        lags = [self._lags.popleft() for _ in range(len(self._lags))]
        if lags:
            self._lag.add(np.concatenate([now_ns - due_ns for due_ns, now_ns in lags]) // 1_000)
        durable = [self._writer.durable_offset(partition) for partition in range(self._partitions)]
        done = []
        # The sending thread only adds at the other end. One partition may be durable further than another: what waits
        # behind it is settled the next time.
        while self._pending and self._pending[0].next_offset <= durable[self._pending[0].partition]:
            done.append(self._pending.popleft())
        self._durable += sum(sent.stop - sent.start for sent in done)
        self._sound = add_all([self._sound, _count_sound(done, self._production.window_s)])
        for sent in done:
            if self._schedule is not None:
                first = sent.next_offset - (sent.stop - sent.start)
                self._schedule.add(sent.partition, first, sent.block.due_ns[sent.start : sent.stop])
            faults = sent.block.faults[sent.start : sent.stop]
            self._broken.update(FAULTS[fault].name for fault in faults[faults != SOUND].tolist())
        ledger = Ledger(
            self._index,
            self._production.seed,
            last and not self._pending,
            self._scheduled,
            self._durable,
            self._failed,
            self._retries,
            self._sound,
            dict(self._broken),
            self._lag.to_dict(),
        )
        ledger.write(self._folder)
        return ledger

    def progress(self) -> Progress:
        return Progress(self._index, self._scheduled - self._failed, self._failed, self._last_lag_us)

    def close(self) -> None:
        self._thread.shutdown()
        if self._schedule is not None:
            self._schedule.close()
        self._writer.close()

    def _append(self, partition: int, block: Block, start: int, stop: int) -> int | None:
        """The offset of the first record, None if the topic did not take them.

        An append takes either all of its records or none, so that it can be repeated.
        """
        for attempt in range(RETRIES + 1):
            try:
                return self._writer.append(partition, block.values(start, stop))
            except ConnectorError as error:
                if not error.retryable:
                    raise
                self._retries += 1
                time.sleep(0.01 * 2**attempt)
        return None


def _blocks(production: Production, index: int, base_ns: int, size: int) -> Iterator[Block]:
    """The producer's events in order, rendered when they are asked for."""
    arrivals_rng, content_rng = _generators(production, index)
    renderer = Renderer(
        create_ad_campaign_mappings(production.campaigns, production.ads_per_campaign),
        content_rng,
        base_ns=base_ns,
        window_ns=round(production.window_s * 1e9),
        disturbance=production.disturbance,
    )
    process = arrival_process(production.arrivals)(production.load, arrivals_rng)
    for due_ns in _due_times(process, production, base_ns, size):
        yield renderer.render(due_ns)


def _generators(production: Production, index: int) -> tuple[np.random.Generator, np.random.Generator]:
    """A generator for the arrivals and one for the contents; no two producers share either."""
    children = np.random.SeedSequence(production.seed).spawn(production.producers)[index].spawn(2)
    return np.random.default_rng(children[0]), np.random.default_rng(children[1])


def _due_times(
    process: Iterator[Offsets], production: Production, base_ns: int, size: int
) -> Iterator[NDArray[np.int64]]:
    end_ns = round(production.duration_s * 1e9)
    left = production.total
    held: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for second_ns in range(0, end_ns, NS_PER_SECOND):
        offsets = next(process) + second_ns
        offsets = offsets[offsets < end_ns][:left]
        left = None if left is None else left - len(offsets)
        held = np.concatenate([held, base_ns + offsets])
        # A backlog waits for full blocks; a paced producer needs each second's events before it begins.
        whole = len(held) // size * size if size == BACKLOG_BLOCK else len(held)
        for start in range(0, whole, size):
            yield held[start : min(start + size, whole)]
        held = held[whole:]
    if len(held):
        yield held


def _count_sound(done: list[_Sent], window_s: float) -> CellCounts:
    """The cells of the sound records among what was sent."""
    if not done:
        return {}
    sound = [(sent, np.flatnonzero(sent.block.faults[sent.start : sent.stop] == SOUND) + sent.start) for sent in done]
    return count_events(
        np.concatenate([sent.block.campaigns[rows] for sent, rows in sound]),
        np.concatenate([sent.block.event_ns[rows] for sent, rows in sound]),
        np.concatenate([sent.block.kinds[rows] for sent, rows in sound]),
        np.concatenate([np.full(len(rows), sent.produce_time_ms, dtype=np.int64) for sent, rows in sound]),
        round(window_s * 1e6),
    )
