"""What happens in one schedule: inputs, starts and faults. All of it follows from one seed, before anything runs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SinkKind = Literal["file", "log", "retained", "folder", "snapshot"]
SINK_KINDS: tuple[SinkKind, ...] = ("file", "log", "retained", "folder", "snapshot")
# The rows that there are in the end, the same in another order, or a part of them where the answer bears that.
ReferenceVersion = Literal["last", "shuffled", "earlier"]
REFERENCE_VERSIONS: tuple[ReferenceVersion, ...] = ("last", "last", "shuffled", "earlier")
Loss = Literal["nothing", "unsynced", "torn"]
MAX_STARTS = 5
MAX_EPOCHS = 5
HOUR_US = 3_600_000_000
TORN_COMMIT = "epoch.torn_commit"


@dataclass(frozen=True)
class Crash:
    """The process ends at the `hit`-th hit of a fail point. loss: what of the unsynced writes is gone afterwards."""

    point: str
    hit: int
    loss: Loss

    def __str__(self) -> str:
        what = {"nothing": "", "unsynced": ", unsynced writes lost", "torn": ", unsynced writes torn"}[self.loss]
        return f"crash at {self.point}, hit {self.hit}{what}"


@dataclass(frozen=True)
class FullDisk:
    """At the `hit`-th hit of a fail point the disk is full, for once."""

    point: str
    hit: int

    def __str__(self) -> str:
        return f"disk full at {self.point}, hit {self.hit}"


@dataclass(frozen=True)
class ShortWrite:
    """The `write`-th write to an appended file takes half of its bytes, the next one none: the disk is full."""

    write: int

    def __str__(self) -> str:
        return f"half of write {self.write}, then disk full"


@dataclass(frozen=True)
class SinkFault:
    """At the `delivery`-th delivery a sink fails, before anything is written or when all is.

    retryable: it asks to be tried again; else the job stops.
    """

    sink: str
    delivery: int
    done: bool
    retryable: bool

    def __str__(self) -> str:
        when = "after" if self.done else "before"
        return f"sink {self.sink} fails {when} delivery {self.delivery}" + (" (retryable)" if self.retryable else "")


@dataclass(frozen=True)
class SourceFault:
    """The `read`-th read of a source fails."""

    source: str
    read: int

    def __str__(self) -> str:
        return f"source {self.source} fails at read {self.read}"


Fault = Crash | FullDisk | ShortWrite | SinkFault | SourceFault


@dataclass(frozen=True)
class PlannedStart:
    """One start of the job.

    upto: the share of each source that is there by then. max_rows: of an epoch. reads_of: a read gives at most so many
    rows. held: epochs that slow sinks are behind. clock_jump_us: how far the clock is moved before it. idle: a
    partition that is read to its end is idle at once (else none ever is). references: which version of each is there.
    """

    upto: float
    max_rows: int
    flush: bool
    reads_of: int
    held: int
    clock_jump_us: int
    faults: tuple[Fault, ...]
    idle: bool = False
    references: ReferenceVersion = "last"

    def __str__(self) -> str:
        parts = [f"up to {self.upto:.0%} of the input", f"epochs of {self.max_rows} rows", f"reads of {self.reads_of}"]
        parts += ["without flush"] if not self.flush else []
        parts += [f"sinks behind by {self.held}"] if self.held else []
        parts += [f"clock {self.clock_jump_us / 1e6:+,.0f} s"] if self.clock_jump_us else []
        parts += ["silent partitions are idle"] if self.idle else []
        parts += [f"{self.references} references"] if self.references != "last" else []
        return "; ".join([*parts, *map(str, self.faults)])


@dataclass(frozen=True)
class Schedule:
    """Everything that a seed decides. case: which input; partitions: of each source; sinks: the kind of each view's.

    skew: how far each partition is behind the one before it, until the last start reads all.
    """

    seed: int
    case: int
    partitions: int
    event_step_us: int
    duplicates: float
    sinks: Mapping[str, SinkKind]
    starts: tuple[PlannedStart, ...]
    skew: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What schedules are drawn for. points: per kind of sink the fail points that the job passes, with how often; rows:
    about how many there are."""

    cases: int
    views: Sequence[str]
    sources: Sequence[str]
    points: Mapping[SinkKind, Mapping[str, int]]
    rows: int

    def passed(self, kinds: Iterable[SinkKind]) -> dict[str, int]:
        """The fail points that a job with such sinks passes, with how often about."""
        found: dict[str, int] = {}
        for kind in kinds:
            for point, count in self.points.get(kind, {}).items():
                found[point] = max(found.get(point, 0), count)
        return dict(sorted(found.items()))


def draw_schedule(seed: int, scene: Scene) -> Schedule:
    """The schedule of a seed. The same seed and scene give the same one."""
    draw = random.Random(f"penstock/{seed}")
    count = draw.randint(1, MAX_STARTS)
    shares = [*sorted(round(draw.random(), 3) for _ in range(count - 1)), 1.0]
    sinks: dict[str, SinkKind] = {view: draw.choice(SINK_KINDS) for view in scene.views}
    points = scene.passed(sinks.values())
    return Schedule(
        seed,
        draw.randrange(scene.cases),
        draw.choice((1, 1, 2, 3)),
        draw.choice((10_000, 100_000, 1_000_000, 10_000_000, 60_000_000)),
        draw.choice((0.0, 0.0, 0.1, 0.3)),
        sinks,
        tuple(_start(draw, scene, points, share) for share in shares),
        draw.choice((0.0, 0.0, 1.0, 3.0)),
    )


def calm(seed: int, scene: Scene, case: int, sinks: Mapping[str, SinkKind]) -> Schedule:
    """One start without faults."""
    start = PlannedStart(1.0, max(1, math.ceil(scene.rows / 6)), True, 1 << 20, 0, 0, ())
    return Schedule(seed, case, 2, 1_000_000, 0.1, sinks, (start,))


def _start(draw: random.Random, scene: Scene, points: Mapping[str, int], share: float) -> PlannedStart:
    faults = tuple(_fault(draw, scene, points) for _ in range(draw.choice((0, 1, 1, 2, 2, 3))))
    least = max(1, math.ceil(scene.rows / MAX_EPOCHS))
    max_rows = max(least, round(math.exp(draw.uniform(0, math.log(scene.rows + 2)))))
    jump = draw.choice((0, 0, 0, 1, -1)) * draw.choice((1_000_000, 90_000_000, 2 * HOUR_US, 48 * HOUR_US))
    held = draw.choice((0, 0, 0, 1, 3))
    flush = share == 1.0 or draw.random() < 0.5
    reads_of, idle = draw.choice((1 << 20, 1 << 20, 7, 3)), draw.random() < 0.4
    # The batch reads the versions that are there in the end.
    references = draw.choice(REFERENCE_VERSIONS) if share < 1.0 else "last"
    return PlannedStart(share, max_rows, flush, reads_of, held, jump, faults, idle, references)


def _fault(draw: random.Random, scene: Scene, points: Mapping[str, int]) -> Fault:
    kind = draw.random()
    torn = [point for point in points if point.endswith(".torn")]
    if kind < 0.1 and torn:
        # Half of a write is there after it: what cleans up is passed by no other fault.
        point = draw.choice(torn)
        return Crash(point, _hit(draw, points[point]), "nothing")
    if kind < 0.6 or not (points and scene.views and scene.sources):
        point = draw.choice([*points, TORN_COMMIT])
        often = points.get(point, 8)
        return Crash(point, _hit(draw, often), draw.choice(("nothing", "unsynced", "torn")))
    if kind < 0.72:
        point = draw.choice(list(points))
        return FullDisk(point, _hit(draw, points[point]))
    if kind < 0.78:
        return ShortWrite(_hit(draw, 12))
    if kind < 0.93:
        return SinkFault(draw.choice(scene.views), _hit(draw, 6), draw.random() < 0.5, draw.random() < 0.4)
    return SourceFault(draw.choice(scene.sources), _hit(draw, 8))


def _hit(draw: random.Random, often: int) -> int:
    # Mostly early: a fault at a hit that never comes is none.
    return min(1 + int(draw.expovariate(0.5)), max(1, often))
