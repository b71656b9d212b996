"""Where the time of a loop goes, as parts that do not overlap.

Exactly one part is on the clock at any moment: entering a part stops the one around it, leaving it starts that one
again, and what lies in no part is `rest`. So the parts of a lap add up to its whole; none is guessed from others. Only
the thread that switched the stopwatch on is measured. Where nobody measures, a part costs one look-up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Name = Literal[
    "start", "wait", "read", "parse", "check", "merge", "outbox", "commit", "mark", "deliver", "maintain", "rest"
]

_running: ContextVar[Stopwatch | None] = ContextVar("penstock_stopwatch", default=None)


@dataclass(frozen=True)
class Lap:
    """One turn of the loop. parts_ns: by name, those that were entered; their sum is the lap's whole time."""

    rows: int
    parts_ns: Mapping[Name, int]

    @property
    def whole_ns(self) -> int:
        return sum(self.parts_ns.values())


@dataclass
class Stopwatch:
    """Collects laps. switches: how often the clock was read for a part, which is what measuring costs."""

    laps: list[Lap] = field(default_factory=list)
    switches: int = 0
    _parts: dict[Name, int] = field(default_factory=dict)
    _current: Name = "rest"
    _since: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure this thread until the block is left."""
        token = _running.set(self)
        self._since = time.perf_counter_ns()
        try:
            yield
        finally:
            _running.reset(token)

    def switch(self, name: Name) -> Name:
        """Put `name` on the clock; what was on it before."""
        now = time.perf_counter_ns()
        before = self._current
        self._parts[before] = self._parts.get(before, 0) + now - self._since
        self._current, self._since = name, now
        self.switches += 1
        return before

    def lap(self, rows: int) -> None:
        """A turn of the loop has ended."""
        self.switch(self._current)
        self.laps.append(Lap(rows, self._parts))
        self._parts = {}


class part:  # noqa: N801 - reads like a statement: with part("read"):
    """What runs in this block is the named part.

    Example:
        >>> stopwatch = Stopwatch()
        >>> with stopwatch.running(), part("check"), part("parse"):
        ...     pass
        >>> stopwatch.lap(1)
        >>> sorted(stopwatch.laps[0].parts_ns)
        ['check', 'parse', 'rest']
    """

    __slots__ = ("_before", "_name", "_stopwatch")

    def __init__(self, name: Name) -> None:
        self._name: Name = name

    def __enter__(self) -> None:
        self._stopwatch = _running.get()
        if self._stopwatch is not None:
            self._before = self._stopwatch.switch(self._name)

    def __exit__(self, *_: object) -> None:
        if self._stopwatch is not None:
            self._stopwatch.switch(self._before)


def switch_ns(times: int = 20_000) -> float:
    """What entering and leaving a part costs here, by two of its switches: measured, per switch."""
    stopwatch = Stopwatch()
    began = time.perf_counter_ns()
    with stopwatch.running():
        for _ in range(times):
            with part("check"):
                pass
    return (time.perf_counter_ns() - began) / (2 * times)
