"""The market of the margin scenario: a process that trades until it is stopped or killed.

`python -m penstock.verify.crash.margin_producer FOLDER SEED ROUND`. Each round opens a market of its own, so that no
fill comes again; after each durable append the offsets go to the ledger.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from zlib import crc32

from penstock.apps.margin.feeder import TOPICS
from penstock.apps.margin.market import Market, Record, Simulation, Topic
from penstock.connectors.log import LogTopic, LogWriter

ACCOUNTS, SYMBOLS, POSITIONS = 20, 10, 3
TICKS, FILLS = 40.0, 40.0
# The first seconds of each market; the index falls in one of them, so that accounts are called and recover.
CRASH_AT_S, CRASH = 2.0, 0.4


class Trader:
    """Sends one market, second by second."""

    def __init__(self, folder: Path, seed: int, round: int) -> None:
        market = Market(ACCOUNTS, SYMBOLS, TICKS, FILLS, POSITIONS, seed * 10_000 + round, CRASH_AT_S, CRASH)
        self._simulation = Simulation(market, datetime.now(UTC).replace(tzinfo=None))
        self._writers = {topic: LogWriter(LogTopic.open(folder / "log" / topic), fsync="2ms") for topic in TOPICS}
        self._ledger = open(folder / "ledger.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - open until the end
        self._stopped = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Finish what is due, then end."""
        self._stopped = True

    def run(self) -> None:
        """Trade until stopped."""
        self._send(list(self._simulation.opening()))
        began, second = time.monotonic(), 0
        while not self._stopped:
            waiting = self._simulation.second(second)
            while waiting and not self._stopped:
                passed = time.monotonic() - began
                due = [record for record in waiting if record.at_s <= passed]
                self._send(due)
                waiting = waiting[len(due) :]
                time.sleep(0.05)
            second += 1
        for writer in self._writers.values():
            writer.close()

    def _send(self, records: list[Record]) -> None:
        frames: dict[tuple[Topic, int], list[Record]] = {}
        for record in records:
            partition = crc32(record.key.encode()) % self._writers[record.topic].topic.partitions
            frames.setdefault((record.topic, partition), []).append(record)
        for (topic, partition), some in frames.items():
            writer = self._writers[topic]
            first = writer.append(partition, [r.value for r in some], [r.key.encode() for r in some])
            writer.flush(partition)
            self._ledger.write(json.dumps([topic, partition, first + len(some)]) + "\n")
            self._ledger.flush()


def main(arguments: list[str]) -> int:
    """Trade until SIGTERM."""
    trader = Trader(Path(arguments[0]), int(arguments[1]), int(arguments[2]))
    signal.signal(signal.SIGTERM, trader.stop)
    trader.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
