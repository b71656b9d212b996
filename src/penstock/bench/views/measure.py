"""What an epoch of one view costs, against computing the view again and comparing, alternated in one process.

Both sides hold the same rows in memory with the same number of threads. An epoch's time is all of it: parsing and
judging the changed rows, moving state, the changes that go out, the commit. The batch gets its rows for nothing; its
time is the query, what differs from the last content, and storing that. At the end both hold the same rows, or the
figures do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import duckdb

from penstock.bench.views.changes import Change
from penstock.bench.views.nexmark import Nexmark
from penstock.bench.views.recompute import Recompute
from penstock.bench.views.suite import only, suite
from penstock.bench.views.tpch import Tpch
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.graph import Graph
from penstock.plan.plan import Plan
from penstock.runtime.session import Session
from penstock.verify.fold import close

NEXMARK_EVENTS = 1_000_000
# Epochs of a size that are not measured: statements are planned, and the engine sees which way is shorter.
WARM_UP = 6
REPEATS = {"1 row": 9, "100 rows": 5, "0.1%": 3}


@dataclass(frozen=True)
class Load:
    """What is measured. factor: TPC-H's scale factor, and millions of Nexmark events. threads: None for all."""

    suite: str
    factor: float
    seed: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Duration:
    """How long something took."""

    wall_ms: float
    cpu_ms: float


def _median(durations: Sequence[Duration]) -> Duration:
    return Duration(statistics.median(d.wall_ms for d in durations), statistics.median(d.cpu_ms for d in durations))


class _Clock:
    """Measures what happens between its making and `read`."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Duration:
        return Duration(1e3 * (time.perf_counter() - self._wall), 1e3 * (time.process_time() - self._cpu))


@dataclass(frozen=True)
class EpochCost:
    """Epochs of one size, medians. rows: how many changed in each; told: in how many of `epochs` the view changed.

    cpu: of this process, all threads; on a busy machine it is the one to look at.
    """

    size: str
    rows: int
    epochs: int
    told: int
    epoch: Duration
    recompute: Duration

    @property
    def ratio(self) -> float:
        return self.epoch.wall_ms / self.recompute.wall_ms

    @property
    def cpu_ratio(self) -> float:
        return self.epoch.cpu_ms / self.recompute.cpu_ms


@dataclass(frozen=True)
class ViewCost:
    """One view. strategies: of each block, inputs first. difference: empty where both sides agree at the end."""

    view: str
    source: str
    source_rows: int
    strategies: tuple[str, ...]
    costs: tuple[EpochCost, ...]
    difference: str


def measure(load: Load, view: str) -> ViewCost:
    """Load the sources that the view reads, then change the largest of them in epochs of each size."""
    plan = compile_for_duckdb(only(suite(load.suite), [view]), in_memory=True)
    read = [s.source.name for s in plan.sources if any(s.source.name in n.block.inputs for n in plan.nodes)]
    graph = only(suite(load.suite), [view], read)
    return _Contest(load, graph, view).run()


class _Contest:
    """One view on both sides."""

    def __init__(self, load: Load, graph: Graph, view: str) -> None:
        self._view = view
        self._plan: Plan = compile_for_duckdb(graph, in_memory=True)
        planned = self._plan.view(view)
        assert planned is not None
        self._kinds = {s.name: s.kind for s in graph.sources}
        self._session = Session(graph, DuckState(self._plan, None, collect=True, threads=load.threads), None)
        self._batch = Recompute(graph.sources, {view: planned.oracle}, load.threads)
        self._load: Callable[[], Iterable[Sequence[Change]]]
        if load.suite == "tpch":
            tables = Tpch(load.factor, load.seed)
            self._load = lambda: ([change] for change in tables.load(self._kinds))
            self._driver = max(self._kinds, key=tables.rows)
            self._driver_rows = tables.rows(self._driver)
            self._change: Callable[[int], Sequence[Change]] = lambda rows: [tables.change(self._driver, rows)]
        else:
            site = Nexmark(load.seed)
            events = round(load.factor * NEXMARK_EVENTS)
            self._load = lambda: self._site(site, events)
            self._driver = "bid" if "bid" in self._kinds else "auction"
            self._driver_rows = events
            self._change = lambda rows: self._events(site, rows)

    def _site(self, site: Nexmark, events: int) -> Iterable[Sequence[Change]]:
        if "side_input" in self._kinds:
            yield [site.side_input()]
        for start in range(0, events, 250_000):
            yield self._known(site.events(min(250_000, events - start)))

    def _events(self, site: Nexmark, rows: int) -> Sequence[Change]:
        if rows == 1 and self._driver == "bid":
            return [site.bids(1)]
        # Of few events none may be an auction; a whole cycle has three.
        return self._known(site.events(max(rows, 1 if self._driver == "bid" else 50)))

    def _known(self, changes: Iterable[Change]) -> list[Change]:
        return [c for c in changes if c.source in self._kinds]

    def run(self) -> ViewCost:
        try:
            for changes in self._load():
                self._epoch(changes)
            self._batch.run(self._view)
            sizes = {"1 row": 1, "100 rows": 100, "0.1%": max(1, self._driver_rows // 1_000)}
            costs = tuple(self._costs(size, rows) for size, rows in sizes.items())
            strategies = tuple(f"{n.name}: {n.strategy}" for n in self._plan.nodes if n.strategy != "input")
            return ViewCost(self._view, self._driver, self._driver_rows, strategies, costs, self._difference())
        finally:
            self._session.close()
            self._batch.close()

    def _costs(self, size: str, rows: int) -> EpochCost:
        epochs, batches, told = [], [], 0
        for _ in range(WARM_UP):
            self._epoch(self._change(rows))
        for _ in range(REPEATS[size]):
            took, changed = self._epoch(self._change(rows))
            epochs.append(took)
            told += changed
            clock = _Clock()
            self._batch.run(self._view)
            batches.append(clock.read())
        return EpochCost(size, rows, len(epochs), told, _median(epochs), _median(batches))

    def _epoch(self, changes: Iterable[Change]) -> tuple[Duration, bool]:
        for change in changes:
            self._give(change)
            self._batch.apply(change)
        clock = _Clock()
        epoch = self._session.commit()
        return clock.read(), self._session.changes(self._view, epoch).num_rows > 0

    def _give(self, change: Change) -> None:
        if self._kinds[change.source] == "reference" and change.rows is not None:
            self._session.replace(change.source, change.rows)
            return
        if change.deleted is not None:
            self._session.delete(change.source, change.deleted)
        if change.rows is not None:
            self._session.insert(change.source, change.rows)

    def _difference(self) -> str:
        with duckdb.connect() as connection:
            sides = []
            for table in (self._session.read(self._view), self._batch.content(self._view)):
                connection.register("side", table)
                sides.append(connection.execute("FROM side ORDER BY ALL").fetchall())
                connection.unregister("side")
        mine, theirs = sides
        if len(mine) != len(theirs):
            return f"{len(mine)} rows instead of {len(theirs)}"
        wrong = [pair for pair in zip(mine, theirs, strict=True) if not all(map(close, *pair))]
        return f"{wrong[0][0]} instead of {wrong[0][1]}" if wrong else ""
