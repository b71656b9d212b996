"""A pipeline opened in process: rows in by hand, one epoch per commit, Arrow out (notebooks and tests).

The session is the same engine as a run, without connectors: what it is given is what a source would have read. Rows get
offsets in the order of insertion, in one partition.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.connectors.base import Batch, Url
from penstock.connectors.registry import open_versions
from penstock.engines.base import EpochInput, EpochResult, LetterQuery, Progress, SourceInput
from penstock.engines.duckdb.change import apply, inspect
from penstock.engines.duckdb.engine import DATABASE, DuckState, compile_for_duckdb
from penstock.errors import DataError, Unsupported
from penstock.formats.rows import rows_to_batch
from penstock.pipeline import Graph, SourceDecl
from penstock.plan.plan import Plan
from penstock.runtime.lock import StateLock

if TYPE_CHECKING:
    from penstock.formats.rows import Rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def open_session(graph: Graph, *, state: str | Path | None, engine: str = "duckdb") -> Session:
    """Compile the pipeline and open its state.

    Raises:
        Unsupported: PS-PLAN-001 for an engine that has no in-process session.
        DeclarationErrors: everything that is wrong with the pipeline.
    """
    if engine != "duckdb":
        raise Unsupported(
            "PS-PLAN-001", "the engine has no in-process session", expected="duckdb", got=engine, where=graph.where
        )
    folder = Path(state) if state is not None else None
    plan = compile_for_duckdb(graph, in_memory=folder is None)
    lock = StateLock.take(folder) if folder is not None else None
    try:
        if folder is not None:
            _change(plan, folder)
        return Session(graph, DuckState(plan, folder, collect=True), lock)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _change(plan: Plan, folder: Path) -> None:
    """Give the views that have changed what is stored; a session has no sources to read again (decision 0022)."""
    found = inspect(folder / DATABASE, plan)
    if found is not None and found.change.keeps and not found.change.loses:
        apply(folder / DATABASE, plan, found)


class Session:
    """An open pipeline. Use it in a `with` block, from one thread.

    Example:
        >>> import penstock as ps
        >>> pipeline = ps.Pipeline.from_sql(
        ...     "CREATE TABLE users (id BIGINT PRIMARY KEY, city VARCHAR NOT NULL);"
        ...     "CREATE VIEW cities AS SELECT city, count(*) AS n FROM users GROUP BY city", name="cities")
        >>> with pipeline.open() as session:
        ...     session.insert("users", [{"id": 1, "city": "Rome"}, {"id": 2, "city": "Rome"}])
        ...     first = session.commit()
        ...     session.delete("users", [{"id": 1}])
        ...     second = session.commit()
        ...     session.changes("cities", second).to_pylist()
        [{'city': 'Rome', 'n': 2, '_op': '-U', '_epoch': 1, '_seq': 0, '_correction': False}, \
{'city': 'Rome', 'n': 1, '_op': '+U', '_epoch': 1, '_seq': 1, '_correction': False}]
    """

    def __init__(self, graph: Graph, state: DuckState, lock: StateLock | None) -> None:
        self._graph = graph
        self._state = state
        self._lock = lock
        self._pending: dict[str, list[Batch]] = {}
        self._advances: dict[str, int] = {}
        self._versions: dict[str, list[Batch]] = {}
        self._next: dict[str, int] = {
            name: p.partitions[0].next_offset if p.partitions else 0 for name, p in state.progress.sources.items()
        }
        self._changes: dict[tuple[str, int], pa.Table] = {}
        self._schemas: dict[str, pa.Schema] = {}
        self._version = 0
        self.last: EpochResult | None = None
        for declared in graph.sources:
            if declared.kind == "reference" and declared.default and not state.progress.sources[declared.name].version:
                self._versions[declared.name] = _default_rows(declared.name, declared.default)

    # -- rows in -------------------------------------------------------------------------------------------------------

    def insert(self, source: str, rows: Rows) -> None:
        """Add rows (dicts, Arrow, pandas or Polars) to a stream or table; they count at the next `commit`.

        A row that breaks the contract becomes a dead letter, not an error.

        Raises:
            DataError: PS-DATA-001 if the source is unknown, is a reference, or the rows have no usable form.
        """
        declared = self._source(source, "stream", "table")
        self._add(declared, rows, None)

    def delete(self, source: str, rows: Rows) -> None:
        """Delete by key from a keyed table (only the key columns are read), or whole rows from a multiset."""
        declared = self._source(source, "table")
        self._add(declared, rows, "-D")

    def replace(self, reference: str, rows: Rows) -> None:
        """Give a reference its next version, as a whole."""
        declared = self._source(reference, "reference")
        self._versions[reference] = [rows_to_batch(rows, declared.schema, 0)]

    def advance(self, source: str, watermark: datetime | str) -> None:
        """Move event time on by hand, after the rows of the next `commit`. Naive times are UTC."""
        declared = self._source(source, "stream")
        if declared.event_time is None or declared.watermark is None:
            raise DataError(
                "PS-DATA-001",
                f"{source} has no watermark to advance",
                expected="a stream with event_time and watermark",
                got=source,
            )
        moment = datetime.fromisoformat(watermark) if isinstance(watermark, str) else watermark
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        self._advances[source] = (moment - _EPOCH) // timedelta(microseconds=1)

    def commit(self, *, flush: bool = False) -> int:
        """Run one epoch over everything given since the last one; its number, from 0.

        flush: treat this as the end of the streams, so that `final` views show open windows as provisional.
        """
        return self._run(flush=flush).epoch

    # -- rows out ------------------------------------------------------------------------------------------------------

    def read(self, view: str) -> pa.Table:
        """A view, or a source, as it stands after the last commit."""
        return self._state.read(view)

    def changes(self, view: str, epoch: int) -> pa.Table:
        """What an epoch of this session changed in a view: its columns, `_op`, `_epoch`, `_seq`, `_correction`."""
        if self._state.plan.view(view) is None:
            raise DataError("PS-DATA-001", f"{view} is not a view", expected=", ".join(self._view_names()), got=view)
        found = self._changes.get((view, epoch))
        return found if found is not None else self._empty(view)

    def query(self, sql: str) -> pa.Table:
        """A read-only SQL query over views and sources."""
        return self._state.query(sql)

    def dead_letters(self, source: str | None = None) -> pa.Table:
        """The records that broke their contract: id, source, partition, offset, rule, field, got, reason, value."""
        letters = self._state.dead_letters(LetterQuery(source=source))
        names = ("id", "source", "partition", "offset", "epoch", "rule", "field", "got", "reason", "value", "status")
        return pa.table({name: pa.array([getattr(x, name) for x in letters], _LETTER_TYPES[name]) for name in names})

    def late_rows(self, source: str) -> pa.Table:
        """The stream's late rows: view, position, window, watermark, and the row's own columns."""
        self._source(source, "stream")
        return self._state.late_rows(source)

    def replay(self, ids: Sequence[str] | None = None) -> int:
        """Judge dead letters again (all by default), in an epoch of its own; how many were asked for."""
        asked = self._state.request_replay(LetterQuery(ids=tuple(ids) if ids is not None else None))
        self._corrections()
        return asked

    def apply_late(self, source: str) -> int:
        """Apply the stream's late rows as corrections, in an epoch of its own; how many were asked for."""
        rows = self.late_rows(source)
        positions = {
            (source, p, o)
            for p, o, s in zip(
                rows["partition"].to_pylist(), rows["offset"].to_pylist(), rows["status"].to_pylist(), strict=True
            )
            if s == "late"
        }
        asked = self._state.request_late(sorted(positions))
        self._corrections()
        return asked

    @property
    def progress(self) -> Progress:
        """Epoch, offsets, watermarks and counts."""
        return self._state.progress

    def close(self) -> None:
        """Close the state. In memory, everything is gone; on disk, what was not committed is."""
        self._state.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _source(self, name: str, *kinds: str) -> SourceDecl:
        declared = self._graph.source(name)
        if declared is None or declared.kind not in kinds:
            raise DataError(
                "PS-DATA-001",
                f"{name} is not a {' or '.join(kinds)}",
                expected=", ".join(s.name for s in self._graph.sources if s.kind in kinds) or f"a declared {kinds[0]}",
                got=f"a {declared.kind}" if declared else "nothing of that name",
                hint="a reference is replaced as a whole: session.replace(name, rows)" if declared else "",
            )
        return declared

    def _add(self, source: SourceDecl, rows: Rows, op: str | None) -> None:
        offset = self._next.get(source.name, 0)
        batch = rows_to_batch(rows, source.schema, offset, op=op)
        self._pending.setdefault(source.name, []).append(batch)
        self._next[source.name] = batch.next_offset

    def _run(self, *, flush: bool = False) -> EpochResult:
        sources: dict[str, SourceInput] = {}
        for declared in self._graph.sources:
            name = declared.name
            if declared.kind == "reference":
                if name in self._versions:
                    self._version += 1
                    version = f"session-{self._state.progress.epoch + 1}-{self._version}"
                    sources[name] = SourceInput(tuple(self._versions[name]), {}, version)
                continue
            start = self._state.progress.sources[name].partitions
            first = start[0].next_offset if start else 0
            sources[name] = SourceInput(
                tuple(self._pending.get(name, ())),
                {0: (first, self._next.get(name, first))},
                advance_us=self._advances.get(name),
            )
        result = self._execute(
            EpochInput(self._state.progress.epoch + 1, sources, flush=flush, replay_to=0, at_us=_now_us())
        )
        self._pending, self._versions, self._advances = {}, {}, {}
        return result

    def _corrections(self) -> None:
        while self._state.replay_pending():
            self._execute(EpochInput(self._state.progress.epoch + 1, at_us=_now_us()))

    def _execute(self, given: EpochInput) -> EpochResult:
        self.last = self._state.run(given)
        for view, table in self._state.collected.items():
            self._changes[view, given.epoch] = table
        return self.last

    def _view_names(self) -> Iterable[str]:
        return [v.name for v in self._state.plan.views]

    def _empty(self, view: str) -> pa.Table:
        known = self._schemas.get(view)
        if known is not None:
            return known.empty_table()
        fields = self._state.schema(view)
        extra = [("_op", pa.string()), ("_epoch", pa.int64()), ("_seq", pa.int64()), ("_correction", pa.bool_())]
        self._schemas[view] = pa.schema([*fields, *(pa.field(n, t) for n, t in extra)])
        return self._schemas[view].empty_table()


_LETTER_TYPES: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "source": pa.string(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "epoch": pa.int64(),
    "rule": pa.string(),
    "field": pa.string(),
    "got": pa.string(),
    "reason": pa.string(),
    "value": pa.binary(),
    "status": pa.string(),
}


def _default_rows(name: str, url: str) -> list[Batch]:
    """What a reference holds until it is replaced."""
    versions = open_versions(Url.parse(url), name)
    try:
        version = versions.poll(None)
        return list(version.batches) if version else []
    finally:
        versions.close()


def _now_us() -> int:
    return time.time_ns() // 1_000
