"""Random sources, what happens to them, and their contents in plain Python.

A source has a few columns of any type, small domains, NULLs and duplicates. Doubles are halves and quarters, so that
their sums are exact in any order: what differs is a mistake, never rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from hypothesis import strategies as st

Tag = Literal["I", "N", "T", "B", "F", "D", "S", "L"]
Kind = Literal["table", "multiset", "stream", "reference"]
Row = dict[str, object]
TYPES: dict[Tag, str] = {
    "I": "BIGINT",
    "N": "DECIMAL(9,2)",
    "T": "VARCHAR",
    "B": "BOOLEAN",
    "F": "DOUBLE",
    "D": "DATE",
    "S": "TIMESTAMP",
    "L": "BIGINT[]",
}
DOMAINS: dict[Tag, tuple[object, ...]] = {
    "I": (0, 1, 2, 3, -1),
    "N": (Decimal("0.00"), Decimal("1.50"), Decimal("-2.25")),
    "T": ("x", "y", "", "Xy"),
    "B": (True, False),
    "F": (0.0, 0.5, -1.25, 3.0),
    "D": (date(2026, 1, 1), date(2026, 1, 31), date(2026, 2, 28)),
    "S": (datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 7), datetime(2026, 1, 2, 3, 4, 5, 678)),
    "L": ([], [1], [1, None, 2]),
}


@dataclass(frozen=True)
class Source:
    """A declared source; a keyed table has the key `k`."""

    name: str
    kind: Kind
    columns: tuple[tuple[str, Tag], ...]

    @property
    def sql(self) -> str:
        columns = ", ".join(
            f"{name} {TYPES[tag]}{' PRIMARY KEY' if name == 'k' and self.kind == 'table' else ''}"
            for name, tag in self.columns
        )
        match self.kind:
            case "table" | "multiset":
                return f"CREATE TABLE {self.name} ({columns});"
            case "stream":
                return f"CREATE STREAM {self.name} ({columns}) WITH (state = 'unbounded');"
            case "reference":
                return f"CREATE REFERENCE {self.name} ({columns}) WITH (allow_empty = true);"


@dataclass(frozen=True)
class Event:
    """Something done to one source. A delete takes the row at `place` of those that are there, if any."""

    source: str
    what: Literal["insert", "delete", "replace"]
    rows: tuple[Row, ...] = ()
    place: int = 0


@dataclass
class Contents:
    """The rows of every source."""

    sources: tuple[Source, ...]
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def take(self, event: Event) -> tuple[Row, ...]:
        """Move the contents; the rows that the event brings or takes away."""
        source = next(s for s in self.sources if s.name == event.source)
        held = self.rows.setdefault(event.source, [])
        match event.what:
            case "replace":
                self.rows[event.source] = list(event.rows)
                return event.rows
            case "delete":
                return (held.pop(event.place % len(held)),) if held else ()
            case "insert":
                for row in event.rows:
                    if source.kind == "table":
                        held[:] = [r for r in held if r["k"] != row["k"]]
                    held.append(row)
                return event.rows


# -- drawing -----------------------------------------------------------------------------------------------------------


def _value(tag: Tag, *, null: bool = True) -> st.SearchStrategy[object]:
    values = st.sampled_from(DOMAINS[tag])
    return st.one_of(values, values, values, st.none()) if null else values


def row(source: Source) -> st.SearchStrategy[Row]:
    """A row of the source."""
    return st.fixed_dictionaries(
        {name: _value(tag, null=name != "k" or source.kind != "table") for name, tag in source.columns}
    )


@st.composite
def sources(draw: st.DrawFn) -> tuple[Source, ...]:
    """One to three sources, the first of them one that can lose rows."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        kinds: tuple[Kind, ...] = ("multiset", "table") if number == 0 else ("multiset", "table", "stream", "reference")
        kind = draw(st.sampled_from(kinds))
        tags: list[Tag] = draw(st.lists(st.sampled_from(tuple(TYPES)), min_size=1, max_size=4))
        columns: list[tuple[str, Tag]] = [("k", "I"), *((f"{t.lower()}{n}", t) for n, t in enumerate(tags))]
        found.append(Source(f"s{number}", kind, tuple(columns)))
    return tuple(found)


def _event(source: Source) -> st.SearchStrategy[Event]:
    rows = row(source)
    if source.kind == "reference":
        return st.lists(rows, max_size=4).map(lambda r: Event(source.name, "replace", tuple(r)))
    inserted = st.lists(rows, min_size=1, max_size=3).map(lambda r: Event(source.name, "insert", tuple(r)))
    if source.kind == "stream":
        return inserted
    return st.one_of(inserted, st.integers(0, 9).map(lambda n: Event(source.name, "delete", place=n)))


def epochs(declared: tuple[Source, ...]) -> st.SearchStrategy[list[list[Event]]]:
    """A full first epoch, then a few small ones."""
    event = st.one_of([_event(source) for source in declared])
    return st.tuples(st.lists(event, max_size=8), st.lists(st.lists(event, max_size=4), min_size=1, max_size=4)).map(
        lambda both: [both[0], *both[1]]
    )
