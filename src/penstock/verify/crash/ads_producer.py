"""The ads application's own producer, one that goes on until it is stopped or killed.

`python -m penstock.verify.crash.ads_producer FOLDER SEED ROUND`. Each round has a ledger of its own: a lower bound of
what is durable, cell by cell. So few records are broken or late that most epochs have none: these are committed by the
redo log.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.job import Workplace
from penstock.apps.ads.producer import Production, produce
from penstock.bench.arrivals import Load
from penstock.verify.crash.ads_scenario import WINDOW_S

RATE = 2_000.0
LONG_S = 86_400.0
DISTURBED = 0.003


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the producer; what it has not settled may or may not be in the topic."""
    raise SystemExit(0)


def main(arguments: list[str]) -> int:
    """Produce until SIGTERM."""
    folder, seed, round = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGTERM, stop)
    production = Production(
        topic=Workplace(folder / "ads").events,
        ledger=str(folder / "ledgers" / str(round)),
        producers=1,
        load=Load(RATE),
        duration_s=LONG_S,
        window_s=WINDOW_S,
        seed=seed * 10_000 + round,
        disturbance=Disturbance(broken=DISTURBED, duplicate=0.0, late=DISTURBED, late_by_s=6.0),
    )
    Path(production.ledger).mkdir(parents=True, exist_ok=True)
    produce(production, 0, time.time_ns())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
