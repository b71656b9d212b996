"""A changed pipeline on the state that it has: what a run would do, and doing it.

What the state cannot give is read again from the sources, from where the state began to the very offsets at which it
stands, into a state of its own beside it: only the relations that need it, and only records that were accepted. Tables
and references are taken as they are. Then one transaction changes the state (engines/duckdb/change.py). A crash before
it leaves the old state, and what was read beside it is thrown away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from penstock.connectors.base import Batch, RawBatch, Source
from penstock.engines.base import EpochInput, LetterQuery, SourceInput
from penstock.engines.duckdb.change import Found, apply, inspect
from penstock.engines.duckdb.engine import DATABASE, DuckState
from penstock.engines.duckdb.outbox import fetch
from penstock.engines.duckdb.recovery import open_state
from penstock.errors import StateError
from penstock.formats.rows import rows_to_batch
from penstock.pipeline import SourceDecl
from penstock.plan.blocks import SourceBlock, column_list, quote
from penstock.plan.change import Change, needed_again
from penstock.plan.plan import Plan
from penstock.runtime.feed import Feed
from penstock.runtime.recorded import stamped
from penstock.storage import failpoints

READ_AGAIN = failpoints.register("change.read_again", "what a changed plan needs is read again, beside the old state")
_FOLDER = "change"
_ROWS, _BYTES = 250_000, 256 << 20

OpenSource = Callable[[SourceDecl], Source]


@dataclass(frozen=True)
class Again:
    """A stream that must be read again. first, upto: by partition; lost: the earliest offset where it begins later."""

    source: str
    first: Mapping[int, int]
    upto: Mapping[int, int]
    lost: Mapping[int, int]

    @property
    def offsets(self) -> int:
        return sum(self.upto[p] - self.first[p] for p in self.first)


@dataclass(frozen=True)
class Outlook:
    """What a run of a changed pipeline does before it goes on."""

    found: Found
    again: tuple[Again, ...]

    @property
    def change(self) -> Change:
        return self.found.change

    @property
    def asks(self) -> tuple[str, ...]:
        """What is not done without being accepted."""
        lost = self.change.loses
        reads = tuple(f"{a.source} is read again, {a.offsets} offsets" for a in self.again)
        return (*((f"the state of {', '.join(lost)} is deleted",) if lost else ()), *reads)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why it cannot be done at all."""
        gone = tuple(
            f"{a.source} no longer reaches back: partition {p} begins at offset {earliest}, and the state began at "
            f"{a.first[p]}"
            for a in self.again
            for p, earliest in a.lost.items()
        )
        return (*self.change.refused, *gone)

    def lines(self) -> list[str]:
        """For a person."""
        change = self.change
        told = [f"{what:8} {', '.join(names)}" for what in _WORDS if (names := change.views(what))]
        told += [f"contract {name}: {text}" for name, texts in change.contracts.items() for text in texts]
        told += [f"sink     {name} is new: it gets all of {change.new.sinks[name]}" for name in change.sinks_new]
        told += [f"because  {why}" for why in dict.fromkeys(change.again.values())]
        for part in self.again:
            ranges = ", ".join(f"{p}: {part.first[p]} to {part.upto[p]}" for p in part.first)
            told.append(f"read     {part.source} again, offsets {ranges} ({part.offsets})")
        if rows := self.stored_rows:
            told.append(f"cost     {rows} stored rows are read")
        told += [f"asks     {text}" for text in self.asks]
        return told + [f"refused  {text}" for text in self.refused]

    @property
    def stored_rows(self) -> int:
        """The rows of what is built again from what is stored, of each relation once."""
        built = [n for n in self.change.build if n not in self.change.again]
        return sum(count for name, count in self.found.rows.items() if name in self._read_by(built))

    def _read_by(self, built: list[str]) -> set[str]:
        return {i for name in built for i in self.change.new.nodes[name].inputs}

    def check(self, *, accept: bool) -> None:
        """Go on only with what may be done.

        Raises:
            StateError: PS-STATE-004.
        """
        if self.refused:
            raise StateError(
                "PS-STATE-004",
                "the state belongs to another plan, and cannot become this one's",
                expected="changes of views, new nullable columns, wider types",
                got="; ".join(self.refused),
                hint="penstock reset starts again from the sources, with another sink or a new name for it where it "
                "has rows of the old plan; or run with another --state",
            )
        if self.asks and not accept:
            raise StateError(
                "PS-STATE-004",
                "the state belongs to another plan, and becomes this one's only if you accept what that takes",
                expected="--accept-changes",
                got="; ".join(self.asks),
                hint="penstock plan shows all of it",
            )


_WORDS = ("reused", "rebuilt", "added", "dropped")


def outlook(plan: Plan, folder: Path, open_source: OpenSource) -> Outlook | None:
    """What `plan` does to the state in `folder`; None where there is nothing to do.

    Raises:
        StateError: the state cannot be read.
    """
    found = inspect(folder / DATABASE, plan)
    if found is None:
        return None
    return Outlook(found, tuple(_reads(plan, found, open_source)))


def _reads(plan: Plan, found: Found, open_source: OpenSource) -> Iterator[Again]:
    if found.change.refused:
        return
    for declared in _streams(needed_again(plan, found.change)):
        stood = found.progress.sources[declared.name].partitions
        first = {p: x.first_offset for p, x in stood.items() if x.first_offset is not None}
        upto = {p: stood[p].next_offset for p in first}
        source = open_source(declared)
        try:
            earliest = {p: source.earliest(p) for p in first}
        finally:
            source.close()
        lost = {p: e for p, e in earliest.items() if e > first[p] and upto[p] > first[p]}
        yield Again(declared.name, first, upto, lost)


def _streams(plan: Plan) -> list[SourceDecl]:
    return [s.source for s in plan.sources if s.source.kind == "stream" and not s.source.transient]


def carry_out(plan: Plan, folder: Path, ahead: Outlook, formats: Mapping[str, str], open_source: OpenSource) -> None:
    """Change the state. Until the one commit in it, the old state is in force.

    Raises:
        StateError: PS-STATE-004 when accepted records would be refused now, PS-STATE-005 when it cannot be written.
    """
    beside = folder / _FOLDER
    shutil.rmtree(beside, ignore_errors=True)
    try:
        side: Path | None = None
        if ahead.change.again and ahead.found.progress.epoch >= 0:
            beside.mkdir()
            _Reading(plan, folder / DATABASE, beside, ahead, formats, open_source).run()
            side = beside / DATABASE
            failpoints.hit(READ_AGAIN)
        apply(folder / DATABASE, plan, ahead.found, side)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class _Reading:
    """Reading the streams again into a state of its own."""

    def __init__(
        self,
        plan: Plan,
        database: Path,
        beside: Path,
        ahead: Outlook,
        formats: Mapping[str, str],
        open_source: OpenSource,
    ) -> None:
        self._plan = needed_again(plan, ahead.change)
        self._ahead, self._database, self._open_source = ahead, database, open_source
        self._main = ahead.found.progress
        taken = {s.source.name for s in self._plan.sources} - {d.name for d in _streams(self._plan)}
        self._taken = sorted(taken)
        self._state = DuckState(
            self._plan, beside, formats={n: "json" if n in taken else f for n, f in formats.items()}
        )
        self._feeds: list[Feed] = []
        self._excluded: dict[str, dict[int, set[int]]] = {}

    def run(self) -> None:
        try:
            self._given()
            upto = {a.source: a.upto for a in self._ahead.again}
            for declared in _streams(self._plan):
                feed = Feed(declared, self._open_source(declared))
                again = next(a for a in self._ahead.again if a.source == declared.name)
                feed.next_offsets = dict(again.first)
                self._feeds.append(feed)
            for entry in self._segments():
                self._read(entry, upto)
            self._close_windows()
            self._judge()
        finally:
            for feed in self._feeds:
                feed.source.close()
            self._state.close()

    def _given(self) -> None:
        """Tables and references as the old state has them, and which records were refused there."""
        sources: dict[str, SourceInput] = {}
        with open_state(self._database) as connection:
            for name in self._taken:
                block = self._plan.node(name).block
                assert isinstance(block, SourceBlock)
                if name not in self._ahead.change.old.sources:
                    continue
                columns = column_list([c for c, _, _ in self._ahead.change.old.sources[name].columns])
                rows = fetch(connection, f"SELECT {columns} FROM {quote(name)}")
                batch = rows_to_batch(rows, block.source.schema, 0)
                version = self._main.sources[name].version if block.source.kind == "reference" else None
                sources[name] = SourceInput((batch,), {0: (0, batch.next_offset)}, version)
            dead = connection.execute("SELECT source, partition, \"offset\" FROM _ps.dead WHERE status <> 'replayed'")
            for source, partition, offset in dead.fetchall():
                self._excluded.setdefault(source, {}).setdefault(partition, set()).add(offset)
            self._entries = [
                json.loads(e) for (e,) in connection.execute("SELECT entry FROM _ps.journal ORDER BY epoch").fetchall()
            ]
        self._state.run(stamped(EpochInput(0, sources, replay_to=0)))

    def _segments(self) -> Iterator[dict[str, object]]:
        """Journal entries; of those between which nothing but records came the last.

        A watermark does not wait for partitions that nobody knows of: what it closed before one came stays closed.
        """
        last: dict[str, object] | None = None
        for entry in self._entries:
            if last is not None and (
                last.get("advance") or _idle(entry) != _idle(last) or _partitions(entry) != _partitions(last)
            ):
                yield last
            last = entry
        if last is not None:
            yield last

    def _read(self, entry: dict[str, object], upto: Mapping[str, Mapping[int, int]]) -> None:
        """All that had been read when the journal's entry was written."""
        ends = {name: _ends(entry, name, limits) for name, limits in upto.items()}
        idle = {name: part for name, part in _idle(entry).items() if name in upto}
        while True:
            sources: dict[str, SourceInput] = {}
            for feed in self._feeds:
                name = feed.declared.name
                given = feed.read(_ROWS, _BYTES, ends[name])
                excluded = self._excluded.get(name, {})
                batches = tuple(_without(b, excluded.get(b.partition, set())) for b in given.batches)
                known = _partitions(entry).get(name, frozenset())
                offsets = {p: stretch for p, stretch in given.offsets.items() if p in known}
                sources[name] = replace(given, batches=batches, offsets=offsets)
            if not any(e > s for given in sources.values() for s, e in given.offsets.values()):
                break
            self._commit(EpochInput(self._next, sources, idle, at_us=_number(entry["at_us"])))
            for feed in self._feeds:
                feed.taken(sources[feed.declared.name])
        advance = entry.get("advance")
        moved = {n: us for n, us in advance.items() if n in upto} if isinstance(advance, dict) else {}
        self._commit(EpochInput(self._next, {n: SourceInput(advance_us=us) for n, us in moved.items()}, idle))

    @property
    def _next(self) -> int:
        return self._state.progress.epoch + 1

    def _commit(self, given: EpochInput) -> None:
        self._state.run(stamped(replace(given, replay_to=0)))

    def _close_windows(self) -> None:
        """The windows that the old state has closed are closed."""
        sources = {
            feed.declared.name: SourceInput(advance_us=mark)
            for feed in self._feeds
            if (mark := self._main.sources[feed.declared.name].watermark_us) is not None
        }
        if sources:
            self._commit(EpochInput(self._next, sources))

    def _judge(self) -> None:
        """What the old state accepted must be accepted: nothing else says the same of every view."""
        for feed in self._feeds:
            name = feed.declared.name
            counts = self._state.progress.sources[name].counts
            if counts.dead:
                example = self._state.dead_letters(LetterQuery(source=name), limit=1)[0]
                raise StateError(
                    "PS-STATE-004",
                    f"{counts.dead} records of {name} that were accepted break its contract as it is now",
                    expected="a contract that holds for what the state has accepted",
                    got=f"offset {example.offset} of partition {example.partition}: {example.reason}",
                    hint="penstock reset judges all of it again; or loosen the contract",
                )


def _idle(entry: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    sources = entry["sources"]
    assert isinstance(sources, dict)
    return {name: tuple(s["idle"]) for name, s in sources.items()}


def _partitions(entry: Mapping[str, object]) -> dict[str, frozenset[int]]:
    sources = entry["sources"]
    assert isinstance(sources, dict)
    return {name: frozenset(int(p) for p in s.get("partitions", {})) for name, s in sources.items()}


def _ends(entry: Mapping[str, object], name: str, limits: Mapping[int, int]) -> dict[int, int]:
    sources = entry["sources"]
    assert isinstance(sources, dict)
    partitions = sources.get(name, {}).get("partitions", {})
    return {p: min(limit, int(partitions[str(p)][0])) if str(p) in partitions else 0 for p, limit in limits.items()}


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _without(batch: Batch, offsets: set[int]) -> Batch:
    """The batch without records that were refused."""
    if not offsets:
        return batch
    kept = pa.array([o not in offsets for o in batch.offsets.to_pylist()], pa.bool_())
    times = batch.times.filter(kept) if batch.times is not None else None
    if isinstance(batch, RawBatch):
        keys = batch.keys.filter(kept) if batch.keys is not None else None
        return replace(
            batch, values=batch.values.filter(kept), offsets=batch.offsets.filter(kept), keys=keys, times=times
        )
    return replace(batch, table=batch.table.filter(kept), offsets=batch.offsets.filter(kept), times=times)
