"""Counts per campaign and window, as producers, job and verifier each find them, and how they are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.apps.ads.generate import EVENT_TYPES

# DuckDB's time_bucket counts from Monday, 2000-01-03.
ORIGIN_US = 946_857_600_000_000

Cell = tuple[int, int]
"""A campaign id, and the start of a window in microseconds since 1970."""


@dataclass(frozen=True)
class Counts:
    """What one campaign saw in one window; max_produce_time_ms is 0 where there is nothing."""

    count: int = 0
    views: int = 0
    clicks: int = 0
    purchases: int = 0
    max_produce_time_ms: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.count + other.count,
            self.views + other.views,
            self.clicks + other.clicks,
            self.purchases + other.purchases,
            max(self.max_produce_time_ms, other.max_produce_time_ms),
        )

    @property
    def click_through_rate(self) -> float | None:
        return self.clicks / self.views if self.views else None


CellCounts = dict[Cell, Counts]


def from_kinds(by_kind: Sequence[int], max_produce_time_ms: int) -> Counts:
    """The counts of a cell from its number of events of each type, in the order of `EVENT_TYPES`."""
    views, clicks, purchases = by_kind
    return Counts(sum(by_kind), views, clicks, purchases, max_produce_time_ms)


@dataclass(frozen=True)
class Difference:
    """A cell for which two counts disagree (None: the cell is not there at all)."""

    cell: Cell
    expected: Counts | None
    got: Counts | None


def window_start_us(event_us: int, window_us: int) -> int:
    """The start of the window that holds a time, as `time_bucket` gives it."""
    return (event_us - ORIGIN_US) // window_us * window_us + ORIGIN_US


def total(cells: Mapping[Cell, Counts]) -> Counts:
    """All cells in one."""
    return sum(cells.values(), Counts())


def add_all(tables: Iterable[Mapping[Cell, Counts]]) -> CellCounts:
    """The cell-wise sum."""
    result: CellCounts = {}
    for table in tables:
        for cell, counts in table.items():
            result[cell] = result.get(cell, Counts()) + counts
    return result


def differences(expected: Mapping[Cell, Counts], got: Mapping[Cell, Counts]) -> list[Difference]:
    """The cells that are not equal, in order of window and campaign."""
    cells = sorted({*expected, *got}, key=lambda cell: (cell[1], cell[0]))
    pairs = ((cell, expected.get(cell), got.get(cell)) for cell in cells)
    return [Difference(cell, wanted, found) for cell, wanted, found in pairs if wanted != found]


def count_events(
    campaigns: NDArray[np.int64],
    event_ns: NDArray[np.int64],
    kinds: NDArray[np.int64],
    produce_time_ms: NDArray[np.int64],
    window_us: int,
) -> CellCounts:
    """The cells of events given as columns; campaigns: ids from 0 up; kinds: index into `EVENT_TYPES`."""
    if not len(campaigns):
        return {}
    indexes = (event_ns // 1_000 - ORIGIN_US) // window_us
    first, width = int(indexes.min()), int(campaigns.max()) + 1
    keys, places = np.unique((indexes - first) * width + campaigns, return_inverse=True)
    size = len(keys)
    by_kind = np.bincount(places * len(EVENT_TYPES) + kinds, minlength=size * len(EVENT_TYPES)).reshape(size, -1)
    newest = np.zeros(size, dtype=np.int64)
    np.maximum.at(newest, places, produce_time_ms)
    return {
        (key % width, (key // width + first) * window_us + ORIGIN_US): from_kinds(by_kind[i].tolist(), int(newest[i]))
        for i, key in enumerate(keys.tolist())
    }
