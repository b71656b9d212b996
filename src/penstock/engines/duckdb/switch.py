"""Which groups an epoch computes again as a whole, by what either way took before (plan/switching.py, decision 0021).

Nothing is taken for granted: a group is computed again for the first time when moving it by its changes has taken
longer than reading what it is made of can be thought to take, and from then on where that was the shorter way for as
many changed records. The way that lost is tried again now and then, since sizes change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb

from penstock.engines.base import EpochInput
from penstock.plan.plan import Plan
from penstock.plan.switching import Unit, units

# The first epochs of a kind also plan their statements: the shortest of so many counts.
SAMPLES = 3
# A stored row read for less than this is not seen on any machine: what the first try is decided by.
LEAST_ROW_S = 10e-9
LEAST_S = 1e-3
# To go over to the other way has to save so much.
GAIN = 1.1
# Epochs of one kind after which the other way is tried again.
RETRY = 200


@dataclass
class _Way:
    """The last times of one way, in seconds."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    @property
    def shortest(self) -> float | None:
        return min(self.times) if len(self.times) == SAMPLES else None


@dataclass
class _Kind:
    """Epochs of one unit with about as many records: `changes` and `again` are the two ways."""

    changes: _Way = field(default_factory=_Way)
    again: _Way = field(default_factory=_Way)
    since: int = 0


class Switch:
    """The choice for each epoch. It lives in memory: a new process measures anew."""

    def __init__(self, plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
        self.units: Mapping[str, Unit] = units(plan)
        self._connection = connection
        self._kinds: dict[tuple[str, int], _Kind] = {}
        self._sizes: list[tuple[str, int]] = []
        self._epochs = 0

    def choose(self, epoch: EpochInput) -> Mapping[str, Unit]:
        """The units that this epoch computes again."""
        if not self.units or epoch.epoch == 0 or epoch.flush:
            return {}
        self._epochs += 1
        return {name: unit for name, unit in self.units.items() if self._prefers(unit, _records(epoch, unit))}

    def learn(self, epoch: EpochInput, again: Mapping[str, Unit], spent: Mapping[str, float]) -> None:
        """What the epoch took, by block."""
        for name, unit in self.units.items():
            records = _records(epoch, unit)
            seconds = [spent[block] for block in (*unit.own, name) if block in spent]
            if not records or not seconds or epoch.epoch == 0:
                continue
            kind = self._kinds.setdefault((name, records.bit_length()), _Kind())
            way = kind.again if name in again else kind.changes
            way.times.append(sum(seconds))
            kind.since += 1
            if kind.since >= RETRY:
                (kind.changes if name in again else kind.again).times.clear()
                kind.since = 0

    def _prefers(self, unit: Unit, records: int) -> bool:
        kind = self._kinds.get((unit.group, records.bit_length()))
        changes = kind.changes.shortest if kind is not None else None
        if kind is None or changes is None or not records:
            return False
        if not kind.again.times:
            return changes > LEAST_S and changes > LEAST_S + LEAST_ROW_S * self._stored(unit)
        again = kind.again.shortest
        # The first tries plan their statements too.
        return changes > (GAIN * again if again is not None else min(kind.again.times) / 2)

    def _stored(self, unit: Unit) -> int:
        """How many rows are read to compute the unit again, as DuckDB estimates; looked up now and then."""
        if self._epochs >= RETRY or not self._sizes:
            self._epochs = 0
            self._sizes = self._connection.execute(
                "SELECT table_name, estimated_size FROM duckdb_tables() WHERE schema_name = '_ps'"
            ).fetchall()
        return sum(size for name, size in self._sizes if name[2:] in unit.reads)


def _records(epoch: EpochInput, unit: Unit) -> int:
    return sum(b.rows for name in unit.sources if name in epoch.sources for b in epoch.sources[name].batches)
