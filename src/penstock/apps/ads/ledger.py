"""What a producer knows to be durable in the topic, counted by itself: the first of the two independent counts.

A ledger only holds what was appended and flushed before it was written, so that after a producer was killed it is a
lower bound, cell by cell; `complete` says that the producer came to its end and the ledger is exact.
"""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

from penstock.apps.ads.counts import CellCounts, Counts, add_all
from penstock.errors import RunError
from penstock.storage.files import write_atomic

FORMAT = 1


@dataclass(frozen=True)
class Ledger:
    """One producer's account.

    durable: records in the topic for certain, sound and broken. failed: records given up after retries. sound: the
    counts of the sound ones. broken: the number of broken ones by way. lag_us: intended to actual send, as
    `LatencyHistogram.to_dict` gives it.
    """

    producer: int
    seed: int
    complete: bool = False
    scheduled: int = 0
    durable: int = 0
    failed: int = 0
    retries: int = 0
    sound: CellCounts = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    lag_us: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace this producer's file in `folder`, durably."""
        cells = [[*cell, *astuple(counts)] for cell, counts in sorted(self.sound.items())]
        data = {"format": FORMAT} | asdict(self) | {"sound": cells}
        write_atomic(folder / f"producer-{self.producer}.json", json.dumps(data).encode())


def read_ledgers(folder: Path) -> list[Ledger]:
    """All ledgers of a run, by producer.

    Raises:
        RunError: PS-BENCH-004, a file is not a ledger of this format.
    """
    return sorted((_read(path) for path in folder.glob("producer-*.json")), key=lambda ledger: ledger.producer)


def sound_counts(ledgers: list[Ledger]) -> CellCounts:
    """The cells of all ledgers together."""
    return add_all(ledger.sound for ledger in ledgers)


def _read(path: Path) -> Ledger:
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        cells = {(row[0], row[1]): Counts(*row[2:]) for row in data.pop("sound")}
        return Ledger(**data, sound=cells)
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise RunError(
            "PS-BENCH-004",
            f"{path} is not a ledger",
            expected=f"the JSON that a producer writes, format {FORMAT}",
            got=str(problem),
        ) from problem
