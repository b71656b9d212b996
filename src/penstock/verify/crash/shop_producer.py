"""A producer of the shop's topics: a process that goes on until it is stopped or killed.

`python -m penstock.verify.crash.shop_producer FOLDER SEED ROUND`. After each durable append it writes the offsets to
its ledger: what the ledger says must be in the topic at the end, however often it was killed.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from penstock.connectors.log import LogTopic, LogWriter
from penstock.verify.crash.shop import KINDS

PRODUCTS = 40
NEVER_SOLD = 999
BATCH = 12
PAUSE_S = 0.05
TOPICS = ("orders", "returns", "users", "scratch")


class Producer:
    """Writes all topics in turn. round: how often it was started, so that ids never repeat."""

    def __init__(self, folder: Path, seed: int, round: int) -> None:
        self._random = random.Random(f"{seed}/{round}")
        self._round = round
        self._number = 0
        self._writers = {name: LogWriter(LogTopic.open(folder / "log" / name), fsync="2ms") for name in TOPICS}
        self._ledger = open(folder / "ledger.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - open until the end
        self._stopped = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Finish the batch, then end."""
        self._stopped = True

    def run(self) -> None:
        """Write until stopped."""
        while not self._stopped:
            for name, records in self._batch().items():
                self._write(name, records)
            time.sleep(PAUSE_S)
        for writer in self._writers.values():
            writer.close()

    def _write(self, name: str, records: list[bytes]) -> None:
        writer = self._writers[name]
        partition = self._random.randrange(writer.topic.partitions)
        first = writer.append(partition, records)
        writer.flush(partition)
        self._ledger.write(json.dumps([name, partition, first + len(records)]) + "\n")
        self._ledger.flush()

    def _batch(self) -> dict[str, list[bytes]]:
        orders = [self._order() for _ in range(BATCH)]
        if self._random.random() < 0.3:
            orders.append(self._random.choice(orders))
        return {
            "orders": orders,
            "returns": [self._return() for _ in range(self._random.randint(1, 4))],
            "users": [self._user() for _ in range(self._random.randint(1, 3))],
            "scratch": [b"x" * 400 for _ in range(self._random.randint(1, 6))],
        }

    def _order(self) -> bytes:
        draw = self._random
        self._number += 1
        late = draw.choice((0.0, 0.0, 0.0, 0.5, 1.5, 6.0, 12.0)) if draw.random() < 0.2 else 0.0
        at = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=late)
        record = {
            "id": f"{self._round}-{self._number}",
            "user_id": draw.randrange(30) if draw.random() > 0.02 else -1,
            "product": draw.randrange(PRODUCTS),
            "amount": f"{draw.randrange(1, 99_999) / 100:.2f}",
            "kind": draw.choice(KINDS),
            "at": at.isoformat(timespec="microseconds"),
        }
        return json.dumps(record).encode() if draw.random() > 0.01 else b'{"id": NaN'

    def _return(self) -> bytes:
        product = self._random.randrange(PRODUCTS) if self._random.random() > 0.05 else NEVER_SOLD
        return json.dumps({"product": product, "amount": f"{self._random.randrange(1, 9_999) / 100:.2f}"}).encode()

    def _user(self) -> bytes:
        draw = self._random
        row: dict[str, object] = {
            "user_id": draw.randrange(30),
            "city": draw.choice(("Rome", "Oslo", "Lima", None)),
            "version": time.time_ns() // 1_000_000 - draw.randrange(3_000),
        }
        return json.dumps(row | ({"_op": "-D"} if draw.random() < 0.1 else {})).encode()


def main(arguments: list[str]) -> int:
    """Produce until SIGTERM."""
    producer = Producer(Path(arguments[0]), int(arguments[1]), int(arguments[2]))
    signal.signal(signal.SIGTERM, producer.stop)
    producer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
