"""Where the time of a run went, epoch by epoch: collected by an observer, summed up as plain data.

The parts are those of the loop's own thread (observe/timing.py) and add up to the whole run. Sinks have threads of
their own: their time runs beside the loop, and stands apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import get_args

from penstock.engines.base import EpochResult
from penstock.observe.timing import Name, Stopwatch, switch_ns
from penstock.runtime.runner import Runner
from penstock.storage.files import write_atomic

PARTS: tuple[Name, ...] = get_args(Name)
FORMAT = "penstock-profile"


@dataclass(frozen=True)
class PartTime:
    """One part. epoch_p50_ms: of the epochs that had rows, 0 for those that did not enter it."""

    total_s: float
    epoch_p50_ms: float


@dataclass(frozen=True)
class Profile:
    """A run. parts: in the order of the loop; their totals add up to `whole_s`.

    epochs: those with rows. epoch_p50_ms: their time without waiting. profiling_s: what measuring itself cost, part of
    the above: the number of switches times what one was measured to cost. beside_s: the threads of the sinks.
    """

    rows: int
    epochs: int
    whole_s: float
    epoch_p50_ms: float
    parts: Mapping[Name, PartTime]
    profiling_s: float
    beside_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def busy_s(self) -> float:
        """The whole without waiting for records."""
        waited = self.parts.get("wait")
        return self.whole_s - (waited.total_s if waited is not None else 0.0)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())


def read_profile(path: Path) -> Profile:
    """What `Profile.write` wrote."""
    data = json.loads(path.read_bytes())
    del data["format"]
    parts = {name: PartTime(**part) for name, part in data.pop("parts").items()}
    return Profile(parts=parts, **data)


class Profiler:
    """Observes one run. `profile` is there when the run has ended."""

    def __init__(self) -> None:
        self._stopwatch = Stopwatch()
        self._running = ExitStack()
        self.profile: Profile | None = None

    def started(self, runner: Runner) -> None:
        self._running.enter_context(self._stopwatch.running())

    def epoch(self, runner: Runner, result: EpochResult) -> None:
        self._stopwatch.lap(result.rows_in)

    def alert(self, runner: Runner, message: str) -> None:
        """Alerts are the run's business."""

    def stopped(self, runner: Runner, error: BaseException | None) -> None:
        self._stopwatch.lap(0)
        self._running.close()
        self.profile = summed(self._stopwatch, {name: d.busy_s for name, d in runner.deliveries.items()})


def summed(stopwatch: Stopwatch, beside_s: Mapping[str, float]) -> Profile:
    """The laps of a stopwatch as one profile."""
    laps = stopwatch.laps
    full = [lap for lap in laps if lap.rows]

    def part(name: Name) -> PartTime:
        total = sum(lap.parts_ns.get(name, 0) for lap in laps)
        return PartTime(total / 1e9, median([lap.parts_ns.get(name, 0) for lap in full] or [0]) / 1e6)

    entered = {name for lap in laps for name in lap.parts_ns}
    return Profile(
        sum(lap.rows for lap in laps),
        len(full),
        sum(lap.whole_ns for lap in laps) / 1e9,
        median([lap.whole_ns - lap.parts_ns.get("wait", 0) for lap in full] or [0]) / 1e6,
        {name: part(name) for name in PARTS if name in entered},
        stopwatch.switches * switch_ns() / 1e9,
        dict(beside_s),
    )
