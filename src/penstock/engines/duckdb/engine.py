"""The embedded engine: opening a state, running epochs, reading."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.contract.schema import Verdict
from penstock.engines.base import DeadLetter, EpochInput, EpochResult, LetterQuery, Progress
from penstock.engines.duckdb import carry, late_rows, letters, replay, state
from penstock.engines.duckdb.behind import Behind
from penstock.engines.duckdb.binder import DuckBinder, refuse_taken
from penstock.engines.duckdb.broken import Letter
from penstock.engines.duckdb.connection import first_row, thread_count
from penstock.engines.duckdb.epoch import Wanted, run_epoch
from penstock.engines.duckdb.outbox import fetch
from penstock.engines.duckdb.prepared import Prepared
from penstock.engines.duckdb.recovery import open_state
from penstock.engines.duckdb.redo_log import RedoLog
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.statements import Planned
from penstock.engines.duckdb.switch import Switch
from penstock.engines.duckdb.times import from_us
from penstock.errors import DataError, RunError, StateError
from penstock.formats.decode import Decoder, decoder_for
from penstock.functions import failure, register
from penstock.pipeline import Graph
from penstock.plan.blocks import (
    SourceBlock,
    Windowed,
    column_list,
    quote,
)
from penstock.plan.compile import compile_plan
from penstock.plan.plan import Plan
from penstock.plan.pruning import columns_judged, columns_read

_log = logging.getLogger(__name__)

DATABASE = "state.duckdb"
# Rows of an epoch from which a second thread pays, and plans for the rows that are there.
SMALL_EPOCH = 30_000
JOURNAL_ROWS = 200_000
_ALL_LETTERS = LetterQuery()


def compile_for_duckdb(graph: Graph, *, in_memory: bool) -> Plan:
    """The plan that the embedded engine runs."""
    refuse_taken(graph.functions)
    binder = DuckBinder(graph.functions)
    try:
        return compile_plan(graph, binder, in_memory=in_memory)
    finally:
        binder.close()


class DuckState:
    """One opened state and its only writer.

    Args:
        folder: where the state lives, None for memory.
        formats: the record format of each source (default `json`).
        collect: also hand every view's changes to the caller (sessions do).
        small_epoch: epochs of fewer rows run prepared statements, on one thread.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path | None,
        *,
        formats: Mapping[str, str] | None = None,
        collect: bool = False,
        threads: int | None = None,
        memory_limit: str | None = None,
        small_epoch: int = SMALL_EPOCH,
    ) -> None:
        self.plan = plan
        self._small_epoch = small_epoch
        self._folder = folder
        self._database = open_state(folder / DATABASE if folder else None, threads=threads, memory_limit=memory_limit)
        register(self._database, plan.graph.functions)
        self.decoders = {s.source.name: _decoder(s, (formats or {}).get(s.source.name, "json")) for s in plan.sources}
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise
        self._wanted = Wanted(
            {s.name: self._node(s.view) for s in plan.graph.sinks},
            {v.name: v.node for v in plan.views} if collect else {},
            {s.source.name: columns_judged(plan, s) for s in plan.sources},
            {s.source.name: columns_read(plan, s) for s in plan.sources},
            thread_count(self._database),
        )
        self._threads = self._wanted.threads
        self._large, self._small = Planned(self._database), Prepared(self._database)
        self._log = RedoLog(folder / DATABASE, self.progress.state_id) if folder is not None else None
        self._behind = Behind(plan, self._small, self._log)
        # An epoch and a settling exclude each other: who asks for the latter may be another thread.
        self._lock = threading.RLock()
        self.switch = Switch(plan, self._database)
        self.collected: dict[str, pa.Table] = {}
        self._count_requests()
        self._guarded: dict[str, int] = {}
        self._moved_at: dict[str, int] = {}

    def _open(self) -> None:
        connection = self._database
        try:
            if not state.exists(connection):
                connection.execute("BEGIN")
                state.create(connection, self.plan)
                late_rows.create_late_tables(connection, self.plan)
                connection.execute("COMMIT")
            state_id = state.check(connection, self.plan)
            self.progress: Progress = state.load_progress(connection, self.plan, state_id)
        except duckdb.Error as problem:
            raise StateError(
                "PS-STATE-005",
                "the state cannot be read or written",
                expected=f"a state of Penstock in {self._folder}",
                got=str(problem).split("\n")[0],
            ) from None

    def _node(self, view: str) -> str:
        found = self.plan.view(view)
        return found.node if found else view

    # -- epochs --------------------------------------------------------------------------------------------------------

    def run(self, epoch: EpochInput) -> EpochResult:
        """Execute and commit one epoch; on any error nothing of it remains.

        Raises:
            RunError: a query of the pipeline failed (PS-RUN-003), or a function of it (PS-RUN-002).
            StateError: the state cannot be written (disk full, no permission).
        """
        rows = sum(b.rows for source in epoch.sources.values() for b in source.batches)
        with self._lock:
            return self._run(epoch, rows, small=rows < self._small_epoch)

    def _run(self, epoch: EpochInput, rows: int, *, small: bool) -> EpochResult:
        self._use_threads(rows)
        again = self.switch.choose(epoch)
        # What computes groups again reads their tables.
        in_memory = small and not again
        if not in_memory or self._behind.due:
            self.settle()
        if not in_memory:
            self._behind.forget()
        try:
            moved, result, views = run_epoch(
                self._small if small else self._large,
                self.plan,
                self.decoders,
                self.progress,
                epoch,
                self._wanted,
                self._behind.delivered,
                self._guarded,
                again,
                self._behind if in_memory else None,
                self._moved_at,
            )
        except (duckdb.IOException, duckdb.TransactionException) as problem:
            raise _unwritable(problem, "the epoch was rolled back") from problem
        except duckdb.Error as problem:
            raise failure(problem, self.plan.graph) or RunError(
                "PS-RUN-003",
                f"epoch {epoch.epoch} failed and was rolled back",
                got=str(problem).split("\n")[0],
                expected="queries that hold for every row",
                hint="penstock explain shows the SQL of each block",
            ) from problem
        self.switch.learn(epoch, again, result.spent)
        self.progress = moved
        self.collected = views
        if not in_memory:
            self._behind.delivered.clear()
        return result

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """The database with its tables up to date: all that reads or changes them, but an epoch, comes by here."""
        self.settle()
        return self._database

    def settle(self, connection: duckdb.DuckDBPyConnection | None = None) -> None:
        """Bring the tables up to date, by the `connection` of another thread if it asks.

        Raises:
            StateError: the state cannot be written.
        """
        with self._lock:
            if not self._behind.pending:
                return
            try:
                self._behind.settle(connection or self._database)
            except (duckdb.IOException, duckdb.TransactionException, OSError) as problem:
                raise _unwritable(problem, "its epochs are there, its tables are behind") from problem

    def _use_threads(self, rows: int) -> None:
        """Small epochs run on one thread: handing their work to others takes longer than doing it."""
        wanted = 1 if self.plan.light and rows < self._small_epoch else self._wanted.threads
        if wanted != self._threads:
            self._database.execute(f"SET threads = {wanted}")
            self._threads = wanted

    def outbox(self, sink: str, after_epoch: int) -> Iterator[tuple[int, pa.Table]]:
        """Committed changes of epochs after `after_epoch`, by epoch."""
        name = table("o_" + sink)
        epochs = self._connection.execute(
            f"SELECT DISTINCT _epoch FROM {name} WHERE _epoch > {after_epoch} ORDER BY 1"
        ).fetchall()
        for (epoch,) in epochs:
            yield epoch, fetch(self._connection, f"SELECT * FROM {name} WHERE _epoch = {epoch} ORDER BY _seq")

    def delivered(self, sink: str, epoch: int) -> None:
        """The outbox up to `epoch` is dropped with the next large epoch or settling."""
        with self._lock:
            self._behind.forget_delivered(sink, epoch)

    def record_refused(self, sink: str, rows: pa.Table, reason: str) -> None:
        """Keep rows that a sink will never take as dead letters of `sink:NAME`; twice is once."""
        found = [
            Letter(
                -1,
                (int(row["_epoch"]) << 32) | int(row["_seq"]),
                None,
                None,
                json.dumps(row, default=str).encode(),
                Verdict("refused_by_sink", "", "", reason),
            )
            for row in rows.to_pylist()
        ]
        letters.record_dead(self._connection, f"sink:{sink}", found, self.progress.epoch)

    def forget_delivered(self) -> None:
        """Drop what was delivered from the outbox at once (at the end of a run)."""
        connection = self._connection
        for sink, epoch in self._behind.delivered.items():
            connection.execute(f"DELETE FROM {table('o_' + sink)} WHERE _epoch <= {epoch}")
        self._behind.delivered.clear()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, view: str) -> pa.Table:
        """A view's (or kept source's) content now, in no particular order."""
        found = self.plan.view(view)
        name = found.node if found else view
        node = next((n for n in self.plan.nodes if n.name == name), None)
        if node is None:
            raise DataError(
                "PS-DATA-001",
                f"{view} is not declared",
                expected=", ".join([v.name for v in self.plan.views] + [s.source.name for s in self.plan.sources]),
                got=view,
            )
        if node.content == "none":
            raise DataError(
                "PS-DATA-001",
                f"the rows of {view} are not kept",
                expected="a view with state (grouped, distinct, joined to a table, refreshed)",
                got=f"{view}, whose rows pass through",
                hint="read its sink, or open the pipeline in memory",
            )
        return fetch(self._connection, f"SELECT {column_list(node.relation.columns)} FROM {quote(name)}")

    def schema(self, view: str) -> pa.Schema:
        """The columns of a view, which may be kept nowhere and have its changes alone."""
        fields = self.plan.node(self.plan.node_of(view)).relation.fields
        columns = ", ".join(f"NULL::{f.type} AS {quote(f.name)}" for f in fields)
        return fetch(self._database, f"SELECT {columns} LIMIT 0").schema

    def query(self, sql: str) -> pa.Table:
        """A read-only query over views, kept sources and the ledgers (`_ps.dead`, `_ps.late`, `_ps.journal`)."""
        return run_query(self._connection, sql)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same database, for another thread, which is to `settle` before it reads."""
        return self._database.cursor()

    def dead_letters(
        self, which: LetterQuery = _ALL_LETTERS, *, offset: int = 0, limit: int | None = None
    ) -> list[DeadLetter]:
        """Records that broke their contract, oldest epoch first; limit: None for all from `offset` on."""
        carry.settle(self._connection, self.progress)
        return letters.dead_letters(self._connection, which, offset=offset, limit=limit)

    def count_dead_letters(self, which: LetterQuery = _ALL_LETTERS) -> int:
        """How many there are."""
        carry.settle(self._connection, self.progress)
        return letters.count(self._connection, which)

    def late_rows(self, source: str) -> pa.Table:
        """The ledger of late rows of a stream, each with its columns."""
        carry.settle(self._connection, self.progress)
        if source not in {late.stream for late in self.plan.late_rules}:
            return fetch(self._connection, "SELECT * FROM _ps.late WHERE FALSE")
        relation = self.plan.node(source).relation
        columns = column_list(relation.columns, "k")
        return fetch(
            self._connection,
            f'SELECT l.view, l.partition, l."offset", l.window_start, l.window_end, l.watermark, l.epoch, l.status, '
            f"{columns} "
            f"FROM _ps.late AS l JOIN {table('l_' + relation.name)} AS k ON k._ps_p = l.partition AND k._ps_o = "
            f'l."offset" '
            f"WHERE l.source = '{source}' ORDER BY l.epoch, l.partition, l.\"offset\", l.view",
        )

    # -- corrections ---------------------------------------------------------------------------------------------------

    def request_replay(self, which: LetterQuery) -> int:
        """Ask for those that are dead to be judged again; how many requests were written."""
        carry.settle(self._connection, self.progress)
        written = replay.request_letters(self._connection, which)
        self._count_requests()
        return written

    def _request(self, kind: str, positions: Sequence[tuple[str, int, int]]) -> int:
        written = replay.request_positions(self._connection, kind, positions)
        self._count_requests()
        return written

    def request_late(self, positions: Sequence[tuple[str, int, int]]) -> int:
        """Ask for late rows to be applied as corrections.

        Raises:
            DataError: PS-DATA-003 when the state of a row's window is gone.
        """
        for source in {p[0] for p in positions}:
            declared = self.plan.graph.source(source)
            if declared is None:
                continue
            horizon = round(declared.correction_horizon.total_seconds() * 1_000_000)
            gone = set(
                late_rows.beyond_horizon(self._connection, source, self.progress.sources[source].watermark_us, horizon)
            )
            beyond = [p for p in positions if p[0] == source and (p[1], p[2]) in gone]
            if beyond:
                raise DataError(
                    "PS-DATA-003",
                    f"{len(beyond)} late rows of {source} lie beyond the correction horizon",
                    expected=f"windows that closed at most {declared.correction_horizon} ago",
                    got=f"for example offset {beyond[0][2]} of partition {beyond[0][1]}",
                    hint="penstock backfill recomputes a range from the source",
                )
        return self._request("late", positions)

    def restore_requests(self, requests: Sequence[tuple[str, str, int, int]]) -> None:
        """Write the corrections that a journal recorded."""
        for kind in ("dead", "late"):
            positions = [(source, partition, offset) for k, source, partition, offset in requests if k == kind]
            if positions:
                self._request(kind, positions)

    def replay_pending(self) -> bool:
        """Whether a correction epoch is due."""
        return self._requests > self.progress.replay_offset

    def _count_requests(self) -> None:
        row = first_row(self._connection.execute('SELECT coalesce(max("offset"), -1) + 1 FROM _ps.replay'))
        self._requests = int(row[0]) if row else 0

    def drop_letters(self, which: LetterQuery) -> int:
        """Mark those that are dead as dropped."""
        return letters.drop(self._connection, which)

    # -- keeping house -------------------------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Drop what no correction can reach any more, and checkpoint."""
        if self._folder is None:
            return
        with self._lock:
            self._maintain()

    def _maintain(self) -> None:
        connection = self._connection
        self._behind.forget()
        horizons = {
            s.source.name: round(s.source.correction_horizon.total_seconds() * 1_000_000) for s in self.plan.sources
        }
        for node in self.plan.nodes:
            block = node.block
            if isinstance(block, Windowed) and block.window is not None:
                self._forget_closed(block, horizons, node.kept_after)
        for source in (b.source for b in self.plan.sources if b.source.unique and b.source.within):
            watermark = self.progress.sources[source.name].watermark_us
            if watermark is not None and source.within is not None:
                cutoff = watermark - round(source.within.total_seconds() * 1_000_000)
                connection.execute(f"DELETE FROM {table('u_' + source.name)} WHERE _ps_at <= {from_us(cutoff)}")
        connection.execute(f"DELETE FROM _ps.journal WHERE epoch < {self.progress.epoch - JOURNAL_ROWS}")
        connection.execute("CHECKPOINT")

    def _forget_closed(
        self,
        block: Windowed,
        horizons: Mapping[str, int],
        kept_after: tuple[str, ...] | None,
    ) -> None:
        assert block.window is not None
        if kept_after is None:
            return
        marks = [self.progress.sources[s].watermark_us for s in block.window.streams]
        known = [m for m in marks if m is not None]
        if len(known) != len(marks) or not known:
            return
        state.forget_closed(
            self._connection, block, min(known) - max(horizons[s] for s in block.window.streams), kept_after
        )

    def close(self) -> None:
        """Close the database; a state on disk is checkpointed."""
        try:
            self.settle()
        except StateError as problem:
            # Nothing is lost: whoever opens the state next settles it.
            _log.warning("closed without settling: %s", problem)
        self._small.close()
        self._database.close()
        if self._log is not None:
            self._log.close()


def _unwritable(problem: Exception, what: str) -> StateError:
    # There is one writer, so a transaction fails for no other reason than that it cannot be written.
    return StateError(
        "PS-STATE-005",
        f"the state cannot be written; {what}",
        got=str(problem).split("\n")[0],
        hint="free some disk space, then start again: nothing is lost",
        retryable=True,
    )


def _decoder(block: SourceBlock, format: str) -> Decoder:
    source = block.source
    return decoder_for(
        source.schema,
        format,
        event_time=block.relation.event,
        max_ahead=source.max_ahead,
        kind=source.kind,
        key=source.key,
    )


_WRITES = re.compile(
    r"\s*(insert|update|delete|create|drop|alter|attach|detach|copy|export|import|install|load|set|reset|pragma|begin|"
    r"commit|rollback|checkpoint|truncate|call|vacuum|merge)\b",
    re.IGNORECASE,
)


def run_query(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """A single query that only reads.

    Raises:
        RunError: PS-RUN-003, also when it would write.
    """
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or _WRITES.match(sql):
            raise RunError(
                "PS-RUN-003", "the query is refused", expected="one statement that only reads", got=sql.strip()[:80]
            )
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as problem:
        raise RunError("PS-RUN-003", "the query failed", got=str(problem)) from None
