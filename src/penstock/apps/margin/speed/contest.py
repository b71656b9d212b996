"""The pipeline, the script and the arrays over the same ticks, in turn; all must have the same rows after each of them.

The pipeline's state is durable, and so is the script's database. A tick's time is that of its epoch: contract, views,
steps, change records and the commit. The pipeline writes `stress_results` too, and follows the ladder; the
script's rows are all positions and margins. The arrays store nothing.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.apps.margin.pipeline import build
from penstock.apps.margin.speed.arrays import Arrays
from penstock.apps.margin.speed.curve import Latencies, latencies
from penstock.apps.margin.speed.portfolio import OPENING, Portfolio, Size
from penstock.apps.margin.speed.script import Script
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.plan.plan import Plan
from penstock.runtime.session import Session

VIEWS = ("positions", "margin_calculations")
# Ticks that are not measured, before those of the first size and of any: statements are kept from the second one on,
# what rests is held a little later.
WARM_UP, SETTLING = 7, 1
BATCH = 200_000


@dataclass(frozen=True)
class Duration:
    """How long something took; CPU of all threads."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class TickCost:
    """Ticks of one size, medians. changes: change records of an epoch, of all sinks."""

    symbols: int
    ticks: int
    changes: int
    pipeline: Duration
    script: Duration
    arrays: Duration

    @property
    def ratio(self) -> float:
        return self.pipeline.wall_ms / self.script.wall_ms

    @property
    def cpu_ratio(self) -> float:
        return self.pipeline.cpu_ms / self.script.cpu_ms


@dataclass(frozen=True)
class Result:
    """difference: the first thing in which the three disagree, empty where nothing is. state_mb: of its folder.

    load, reopen: from nothing to all positions, and from the saved state to a session. peak_mb: of this process, in
    which all three are.
    """

    load: Duration
    reopen: Duration
    clock: Duration
    costs: tuple[TickCost, ...]
    curve: tuple[Latencies, ...]
    loaded_mb: int
    peak_mb: int
    state_mb: int
    difference: str


@dataclass(frozen=True)
class Load:
    """ticks: measured of each size. rates: ticks per second of the latency curve, each for so many seconds."""

    ticks: int
    rates: tuple[int, ...] = ()
    seconds: float = 10.0


def contest(size: Size, folder: Path, load: Load, say: Callable[[str], None]) -> Result:
    """Load a portfolio into an empty folder, reopen it, and let prices of 1, 100 and all symbols tick."""
    contest = _Contest(size, folder, say)
    try:
        return contest.run(load)
    finally:
        contest.close()


class _Contest:
    def __init__(self, size: Size, folder: Path, say: Callable[[str], None]) -> None:
        self._say = say
        self._book = Portfolio(size)
        self._state = folder / "state"
        self._state.mkdir(parents=True)
        self._graph = build().graph()
        self._plan: Plan = compile_for_duckdb(self._graph, in_memory=False)
        self._session = self._open()
        self._script = Script(folder, self._book)
        self._arrays = Arrays(self._book)
        self._seconds = 0
        self._warm = False

    def close(self) -> None:
        self._session.close()
        self._script.close()

    def run(self, load: Load) -> Result:
        loading = _timed(self._load)
        loaded_mb = _peak_mb()
        self._say(f"loaded {self._book.size.positions:,} positions in {loading.wall_ms / 1e3:.1f} s")
        self._session.close()
        reopen = _timed(self._reopen)
        difference, costs = "", []
        for symbols in sorted({min(n, self._book.size.symbols) for n in (1, 100, self._book.size.symbols)}):
            cost, wrong = self._ticks(symbols, load.ticks)
            costs.append(cost)
            difference = difference or wrong
            self._say(
                f"{symbols:,} symbols: {cost.pipeline.wall_ms:.0f} ms ({cost.pipeline.cpu_ms:.0f} ms of CPU), script "
                f"{cost.script.wall_ms:.0f} ({cost.script.cpu_ms:.0f}), arrays {cost.arrays.wall_ms:.0f}"
            )
        curve = tuple(latencies(self._session, self._book, rate, load.seconds) for rate in load.rates)
        if curve:
            self._script.tick(self._book.prices())
            self._arrays.tick()
            difference = difference or self._difference()
        clock = _median([_timed(self._clock) for _ in range(3)])
        size = sum(file.stat().st_size for file in self._state.iterdir())
        return Result(loading, reopen, clock, tuple(costs), curve, loaded_mb, _peak_mb(), size // 2**20, difference)

    def _open(self) -> Session:
        return Session(self._graph, DuckState(self._plan, self._state), None)

    def _reopen(self) -> None:
        self._session = self._open()

    def _load(self) -> None:
        book = self._book
        self._session.insert("tick", [{"tick": 0, "at": OPENING}])
        for name, rows in (("betas", book.betas()), ("prices", book.prices()), ("cash", book.cash())):
            self._session.insert(name, rows)
        self._session.commit()
        fills = book.fills()
        for start in range(0, fills.num_rows, BATCH):
            self._session.insert("fills", fills.slice(start, BATCH))
            self._session.commit()

    def _clock(self) -> None:
        """A second passes, in which no price ticks."""
        self._seconds += 1
        self._session.insert("tick", [{"tick": self._seconds, "at": OPENING}])
        self._session.commit()

    def _ticks(self, symbols: int, ticks: int) -> tuple[TickCost, str]:
        sides: Mapping[str, list[Duration]] = {"pipeline": [], "script": [], "arrays": []}
        changes = []
        settling = SETTLING if self._warm else WARM_UP
        for number in range(settling + ticks):
            prices = self._book.tick(symbols)
            self._session.insert("prices", prices)
            took = {
                "pipeline": _timed(lambda: self._session.commit()),
                "script": _timed(lambda rows=prices: self._script.tick(rows)),  # type: ignore[misc]
                "arrays": _timed(self._arrays.tick),
            }
            if number >= settling:
                changes.append(self._changes())
                for side, duration in took.items():
                    sides[side].append(duration)
        self._warm = True
        median = {side: _median(durations) for side, durations in sides.items()}
        cost = TickCost(symbols, ticks, round(statistics.median(changes)), **median)
        return cost, self._difference()

    def _changes(self) -> int:
        last = self._session.last
        return sum(rows.num_rows for rows in last.changes.values()) if last else 0

    def _difference(self) -> str:
        arrays = {"positions": self._arrays.positions(), "margin_calculations": self._arrays.margins()}
        for view in VIEWS:
            columns = self._script.columns(view)
            mine = self._session.query(f"SELECT {columns} FROM {view} ORDER BY ALL")
            for side, theirs in (("script", self._script.rows(view, columns)), ("arrays", arrays[view])):
                if wrong := difference(mine, theirs):
                    return f"{view}, pipeline and {side}: {wrong}"
        return ""


def difference(mine: pa.Table, theirs: pa.Table) -> str:
    """What tells two tables of the same columns apart, as values; empty where nothing does."""
    columns = ", ".join(mine.column_names)
    with duckdb.connect() as connection:
        connection.register("mine", mine)
        connection.register("theirs", theirs)
        if mine.num_rows != theirs.num_rows:
            return f"{mine.num_rows} rows and {theirs.num_rows}"
        first, second = (f"SELECT {columns} FROM {side}" for side in ("mine", "theirs"))
        only = connection.execute(f"{first} EXCEPT ALL {second} ORDER BY ALL LIMIT 1").fetchall()
        other = connection.execute(f"{second} EXCEPT ALL {first} ORDER BY ALL LIMIT 1").fetchall()
    return f"{only[0]} and {other[0]}" if only else ""


def _timed(work: Callable[[], object]) -> Duration:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Duration(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))


def _median(durations: Sequence[Duration]) -> Duration:
    return Duration(statistics.median(d.wall_ms for d in durations), statistics.median(d.cpu_ms for d in durations))


def _peak_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1 if sys.platform != "darwin" else 1024) // 1024)
