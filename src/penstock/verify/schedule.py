"""How one input is cut: into starts of the job, epochs, and kills. All of it follows from one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_EPOCHS = 150
MAX_STARTS = 4
MIN_KILL_S, MAX_KILL_S = 0.3, 1.5


@dataclass(frozen=True)
class Start:
    """One start of the job that is to reach the end of its part. upto: where each partition ends for it.

    kill_at: the fail point of each attempt before the last (`NAME@COUNT`, or `+SECONDS` for a random moment).
    """

    upto: Mapping[str, Mapping[int, int]]
    max_rows: int
    flush: bool
    kill_at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extent:
    """What is there of a source: offsets per partition, from and to."""

    name: str
    ranges: Mapping[int, tuple[int, int]]

    @property
    def size(self) -> int:
        return sum(end - start for start, end in self.ranges.values())


def whole(extents: Sequence[Extent]) -> list[Start]:
    """Everything in one start and epochs as large as they come."""
    return [Start(_upto(extents, 1.0, None), 250_000, flush=True)]


def random_schedule(
    generator: random.Random, extents: Sequence[Extent], rows: int, kills: int, points: Sequence[str]
) -> list[Start]:
    """Starts that cut the input at random, with random epochs, `kills` kills in all.

    Args:
        rows: about how many rows there are (bounds the number of epochs).
        points: names of fail points that such a job passes.
    """
    count = generator.randint(1, MAX_STARTS)
    shares = [*sorted(generator.random() for _ in range(count - 1)), 1.0]
    armed: list[list[str]] = [[] for _ in range(count)]
    for _ in range(kills):
        armed[generator.randrange(count)].append(_kill(generator, points))
    starts = []
    for number, share in enumerate(shares):
        last = number == count - 1
        upto = _upto(extents, share, None if last else generator)
        flush = last or generator.random() < 0.5
        starts.append(Start(upto, _epoch_rows(generator, rows), flush, tuple(armed[number])))
    return starts


def _kill(generator: random.Random, points: Sequence[str]) -> str:
    if not points or generator.random() < 0.15:
        return f"+{generator.uniform(MIN_KILL_S, MAX_KILL_S):.3f}"
    # Mostly early hits: a kill at a hit that never comes is no kill.
    return f"{generator.choice(points)}@{min(1 + int(generator.expovariate(0.5)), 12)}"


def _epoch_rows(generator: random.Random, rows: int) -> int:
    least = max(1, math.ceil(rows / MAX_EPOCHS))
    return max(least, round(math.exp(generator.uniform(math.log(least), math.log(max(rows, least) + 1)))))


def _upto(extents: Sequence[Extent], share: float, generator: random.Random | None) -> dict[str, dict[int, int]]:
    """Each partition ends about at `share` of it: a little earlier or later with a generator, at its end without."""
    found: dict[str, dict[int, int]] = {}
    for extent in extents:
        ends = {}
        for partition, (start, end) in extent.ranges.items():
            here = share if generator is None else min(1.0, max(0.0, share + generator.uniform(-0.2, 0.2)))
            ends[partition] = end if generator is None and share == 1.0 else start + round((end - start) * here)
        found[extent.name] = ends
    return found
