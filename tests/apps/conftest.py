"""Small loads with a clock that does not wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.producer import Production
from penstock.bench.arrivals import Load
from penstock.connectors.log import LogTopic

BASE_NS = 1_790_000_000 * 10**9


@dataclass
class FakeClock:
    """Time that moves when somebody sleeps, and a little whenever it is asked."""

    now_ns: int
    step_ns: int = 20_000
    sleeps: list[float] = field(default_factory=list)

    def __call__(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.sleeps.append(seconds)
        self.now_ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(BASE_NS - 100_000_000)


def production_in(
    folder: Path, disturbance: Disturbance | None = None, partitions: int = 2, **changes: object
) -> Production:
    """A load of about 6,000 events of two producers over 3 seconds, with its topic made."""
    topic = folder / "log" / "events"
    LogTopic.create(topic, partitions)
    settings: dict[str, object] = {"load": Load(1_000), "duration_s": 3.0, "window_s": 1.0, "seed": 5, "fsync": "none"}
    return Production(
        topic=str(topic),
        ledger=str(folder / "ledger"),
        disturbance=disturbance or Disturbance(),
        **(settings | changes),  # type: ignore[arg-type]
    )
