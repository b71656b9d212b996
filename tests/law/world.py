"""The sources that every law test reads, what may happen to them, and a model of their contents in plain Python.

Domains are tiny, so that keys collide, rows repeat and groups come and go. The model knows nothing of the engine: it
keeps all records, works out the newest row per key, multisets and lateness one record at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import strategies as st

import penstock as ps
from penstock.contract.model import schema_of
from penstock.runtime.session import Session

START = datetime(2026, 1, 1)
Row = dict[str, Any]


class S(ps.Contract):
    k: int | None
    g: str | None
    v: int | None
    d: Decimal | None = ps.Field(max_digits=9, decimal_places=2)
    f: float | None
    b: bool | None
    at: datetime


class S2(ps.Contract):
    k: int | None
    w: int | None
    at: datetime


class T(ps.Contract):
    k: int
    a: str | None
    n: int | None


class TV(ps.Contract):
    k: int
    ver: int | None
    c: str | None


class M(ps.Contract):
    k: int | None
    x: int | None


class R(ps.Contract):
    k: int | None
    label: str | None


CONTRACTS: dict[str, type[ps.Contract]] = {"s": S, "s2": S2, "t": T, "tv": TV, "m": M, "r": R}
COLUMNS = {name: tuple(schema_of(c).names) for name, c in CONTRACTS.items()}
TYPES = {name: tuple(c.type for c in schema_of(contract).columns) for name, contract in CONTRACTS.items()}
DELAY = {"s": timedelta(seconds=5), "s2": timedelta(seconds=2)}


def declare(pipeline: ps.Pipeline, names: set[str]) -> None:
    """Declare the named sources."""
    for name in ("s", "s2"):
        if name in names:
            pipeline.stream(name, CONTRACTS[name], event_time="at", watermark=DELAY[name], state="unbounded")
    if "t" in names:
        pipeline.table("t", T, key="k")
    if "tv" in names:
        pipeline.table("tv", TV, key="k", version="ver")
    if "m" in names:
        pipeline.table("m", M)
    if "r" in names:
        pipeline.reference("r", R, allow_empty=True)


# -- what may happen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One thing done to a source.

    `insert`, `delete` (one row), `replace` (all rows), `advance` (the watermark, after the rows, to `at`), `flush` (the
    epoch ends the streams), `apply` (late rows, in an epoch of its own after this one).
    """

    source: str
    what: str
    rows: tuple[Row, ...] = ()
    at: datetime = START


small = st.one_of(st.none(), st.integers(0, 2))
word = st.sampled_from([None, "x", "y", "z"])
_ROWS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "s": {
        "k": small,
        "g": word,
        "v": st.sampled_from([None, -2, 0, 1, 1, 3]),
        "d": st.sampled_from([None, Decimal("-1.50"), Decimal("0.00"), Decimal("2.25")]),
        "f": st.sampled_from([None, -0.5, 0.1, 0.2, 1e-3, 7.0]),
        "b": st.sampled_from([None, True, False]),
    },
    "s2": {"k": small, "w": st.sampled_from([None, 0, 1, 5])},
    "t": {"k": st.integers(0, 3), "a": word, "n": small},
    "tv": {"k": st.integers(0, 2), "ver": st.sampled_from([None, 1, 2, 3]), "c": word},
    "m": {"k": small, "x": st.sampled_from([None, 0, 1])},
    "r": {"k": small, "label": word},
}


def _row(source: str, epoch: int) -> st.SearchStrategy[Row]:
    columns = dict(_ROWS[source])
    if source in DELAY:
        seconds = st.integers(-18, 8).map(lambda n: START + timedelta(seconds=60 + epoch * 7 + n))
        columns["at"] = seconds
    return st.fixed_dictionaries(columns)


def _event(source: str, epoch: int) -> st.SearchStrategy[Event]:
    row = _row(source, epoch)
    if source == "r":
        return st.lists(row, max_size=4).map(lambda rows: Event(source, "replace", tuple(rows)))
    inserted = row.map(lambda r: Event(source, "insert", (r,)))
    if source in DELAY:
        return inserted
    return st.one_of(inserted, inserted, row.map(lambda r: Event(source, "delete", (r,))))


def epochs(sources: set[str], *, most: int = 4, also: tuple[str, ...] = ()) -> st.SearchStrategy[list[list[Event]]]:
    """Some epochs of events, each with a few events on the sources. also: what else may happen to stream `s`."""
    names = sorted(sources)

    def one(epoch: int) -> st.SearchStrategy[list[Event]]:
        rows = st.lists(st.one_of([_event(name, epoch) for name in names]), max_size=3 + 4 * len(names))
        if not also:
            return rows
        at = st.integers(-15, 20).map(lambda n: START + timedelta(seconds=60 + epoch * 7 + n))
        extra = st.builds(Event, st.just("s"), st.sampled_from(also), st.just(()), at)
        return st.tuples(rows, st.lists(extra, max_size=2)).map(lambda both: [*both[0], *both[1]])

    return st.integers(1, most).flatmap(lambda n: st.tuples(*[one(e) for e in range(n)]).map(_aimed))


def _aimed(history: Iterable[list[Event]]) -> list[list[Event]]:
    """Most deletes hit a row that is there."""
    world, aimed = World(), []
    for number, events in enumerate(history):
        epoch = []
        for place, event in enumerate(events):
            held = world.content(event.source) if event.what == "delete" else []
            if held and (number + place) % 4:
                event = replace(event, rows=(event.rows[0] | _identity(event, held[(number + 3 * place) % len(held)]),))
            world.take([event])
            epoch.append(event)
        aimed.append(epoch)
    return aimed


def dense(sources: set[str], seed: int) -> list[list[Event]]:
    """A long, busy history: every kind of coming and going is in it."""
    random = Random(seed)
    words = [None, "x", "y", "z"]

    def row(source: str, epoch: int) -> Row:
        at = START + timedelta(seconds=60 + epoch * 7 + random.randint(-18, 8))
        drawn: Row = {
            "k": random.choice([None, 0, 1, 2]),
            "g": random.choice(words),
            "v": random.choice([None, -2, 0, 1, 3]),
        }
        drawn |= {
            "d": random.choice([None, Decimal("-1.50"), Decimal("2.25")]),
            "f": random.choice([None, -0.5, 0.1, 7.0]),
        }
        drawn |= {"b": random.choice([None, True, False]), "at": at, "w": random.choice([None, 0, 5])}
        drawn |= {"a": random.choice(words), "n": random.choice([None, 0, 1]), "ver": random.choice([None, 1, 2, 3])}
        drawn |= {"c": random.choice(words), "x": random.choice([None, 0, 1]), "label": random.choice(words)}
        if source in ("t", "tv"):
            drawn["k"] = random.randint(0, 3)
        return {name: drawn[name] for name in COLUMNS[source]}

    def event(source: str, epoch: int) -> Event:
        if source == "r":
            return Event(source, "replace", tuple(row(source, epoch) for _ in range(random.randint(0, 4))))
        deletes = source not in DELAY and random.random() < 0.45
        return Event(source, "delete" if deletes else "insert", (row(source, epoch),))

    names = sorted(sources)
    return _aimed(
        [[event(n, e) for n in random.choices(names, k=2 + 2 * len(names))] for e in range(6)] if names else [[], []]
    )


def _identity(event: Event, row: Row) -> Row:
    return row if event.source == "m" else {"k": row["k"]}


def give(session: Session, events: list[Event]) -> None:
    """The events of one epoch."""
    for event in events:
        rows = [dict(r) for r in event.rows]
        match event.what:
            case "insert":
                session.insert(event.source, rows)
            case "delete":
                session.delete(event.source, rows)
            case "replace":
                session.replace(event.source, rows)
            case "advance":
                session.advance(event.source, event.at)
            case _:
                pass


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """All that was accepted.

    streams: rows with the watermark before each (None: there was none yet); applied: late rows that are late no more.
    """

    streams: dict[str, list[tuple[Row, datetime | None]]] = field(default_factory=lambda: {"s": [], "s2": []})
    largest: dict[str, datetime] = field(default_factory=dict)
    floor: dict[str, datetime] = field(default_factory=dict)
    keyed: dict[str, list[tuple[str, Row]]] = field(default_factory=lambda: {"t": [], "tv": []})
    multiset: list[Row] = field(default_factory=list)
    reference: list[Row] = field(default_factory=list)
    void_deletes: int = 0
    applied: set[tuple[str, int]] = field(default_factory=set)

    def watermark(self, stream: str) -> datetime | None:
        marks = [self.largest[stream] - DELAY[stream]] if stream in self.largest else []
        marks += [self.floor[stream]] if stream in self.floor else []
        return max(marks, default=None)

    def take(self, events: list[Event]) -> None:
        for event in events:
            for row in event.rows if event.what != "replace" else ():
                self._take_row(event, row)
            if event.what == "replace":
                self.reference = list(event.rows)
        # The last one given for a stream is the one in force.
        for stream, at in {e.source: e.at for e in events if e.what == "advance"}.items():
            self.floor[stream] = max(self.floor.get(stream, at), at)

    def apply_late(self, stream: str) -> None:
        self.applied |= {(stream, number) for number in range(len(self.streams[stream]))}

    def _take_row(self, event: Event, row: Row) -> None:
        if event.source in self.streams:
            self.streams[event.source].append((row, self.watermark(event.source)))
            at = row["at"]
            assert isinstance(at, datetime)
            self.largest[event.source] = max(self.largest.get(event.source, at), at)
        elif event.source in self.keyed:
            self.keyed[event.source].append((event.what, row))
        elif event.what == "insert":
            self.multiset.append(row)
        elif row in self.multiset:
            self.multiset.remove(row)
        else:
            self.void_deletes += 1

    def table(self, name: str) -> list[Row]:
        """The newest row of each key; a version of NULL is older than all others."""
        newest: dict[object, tuple[tuple[int, int], str, Row]] = {}
        for number, (what, row) in enumerate(self.keyed[name]):
            version = row.get("ver")
            rank = (version if isinstance(version, int) else -1, number) if name == "tv" else (0, number)
            if row["k"] not in newest or newest[row["k"]][0] < rank:
                newest[row["k"]] = (rank, what, row)
        return [row for _, what, row in newest.values() if what == "insert"]

    def content(self, name: str) -> list[Row]:
        match name:
            case "s" | "s2":
                return [row for row, _ in self.streams[name]]
            case "m":
                return self.multiset
            case "r":
                return self.reference
            case _:
                return self.table(name)
