"""What a reset takes over from the old state: dead letters and late rows, which are inputs (semantics E3).

They come with status `kept` and epoch -1, for the new state reads its sources again and must not count a record twice.
`settle` gives each its status by what the new state has read of its partition: before the first offset that it read,
the kept copy is the only one, and it can be replayed (`dead`) or applied (`late`); a position that was read again has
its verdict there (`reread`; a late row's kept copy goes). What was not read yet stays `kept`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.engines.base import Progress
from penstock.engines.duckdb import late_rows, letters, redo, state
from penstock.engines.duckdb.connection import connect, first_row
from penstock.engines.duckdb.outbox import fetch
from penstock.engines.duckdb.recovery import unsettled
from penstock.engines.duckdb.state import table
from penstock.errors import StateError
from penstock.functions import register
from penstock.plan import flat
from penstock.plan.blocks import HIDDEN, FlatBlock, Late, Node, column_list, literal, quote
from penstock.plan.late import late_condition
from penstock.plan.plan import Plan

KEPT = "kept"


@dataclass(frozen=True)
class Handed:
    """What an old state hands on. late: stream -> its late rows, as its contract typed them."""

    state_id: str
    dead: pa.Table
    late: Mapping[str, pa.Table]


@dataclass(frozen=True)
class Carried:
    """dead, late: what came along. left: streams whose late rows the new contract does not fit, with their number."""

    dead: int = 0
    late: int = 0
    left: tuple[tuple[str, int], ...] = ()


def read(old: Path) -> Handed | None:
    """What the state file hands on; None where it cannot be read: damaged, not ours, or of a newer Penstock.

    Settles and checkpoints it, so that neither its redo log nor its write-ahead log holds anything that it lacks.

    Raises:
        StateError: PS-STATE-005 when it, or its checkpoint, cannot be written.
    """
    try:
        connection = connect(old)
    except StateError:
        return None
    with connection:
        try:
            moved = unsettled(connection, old)
            if moved:
                _settle(connection, moved, old)
            meta = dict(connection.execute("SELECT key, value FROM _ps.meta").fetchall())
            if int(meta["format"]) > state.FORMAT:
                return None
            names = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = '_ps' AND starts_with(table_name, 'l_')"
            ).fetchall()
            late = {str(name)[2:]: fetch(connection, f"SELECT * FROM {table(name)}") for (name,) in names}
            dead = fetch(connection, f"SELECT {letters.LETTER_COLUMNS} FROM _ps.dead")
        except (duckdb.Error, KeyError):
            return None
        except StateError as problem:
            if problem.code == "PS-STATE-002":
                return None
            raise
        _checkpoint(connection, old)
    return Handed(str(meta["state_id"]), dead, late)


def build(plan: Plan, handed: Handed, new: Path) -> Carried:
    """Write a state of `plan` that has run no epoch, with what was handed on, to the file `new`.

    Raises:
        StateError: PS-STATE-005 when it cannot be written.
    """
    with connect(new) as connection:
        register(connection, plan.graph.functions)
        try:
            connection.execute("BEGIN")
            state.create(connection, plan)
            late_rows.create_late_tables(connection, plan)
            carried = _carry(connection, plan, handed)
            connection.execute("COMMIT")
        except (duckdb.IOException, duckdb.TransactionException) as problem:
            raise _unwritable(new, problem) from problem
        _checkpoint(connection, new)
    return carried


def _settle(connection: duckdb.DuckDBPyConnection, moved: list[list[redo.Moved]], file: Path) -> None:
    try:
        redo.settle(connection, moved, {})
    except (duckdb.IOException, duckdb.TransactionException) as problem:
        raise _unwritable(file, problem) from problem


def _checkpoint(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    try:
        connection.execute("CHECKPOINT")
    except duckdb.Error as problem:
        raise _unwritable(file, problem) from problem


def _unwritable(file: Path, problem: duckdb.Error) -> StateError:
    return StateError(
        "PS-STATE-005",
        "the state cannot be written",
        expected=f"a DuckDB file at {file}",
        got=str(problem).split("\n")[0],
        hint="free some disk space, then do it again: nothing is lost",
        retryable=True,
    )


def _carry(connection: duckdb.DuckDBPyConnection, plan: Plan, handed: Handed) -> Carried:
    _carry_dead(connection, handed)
    late = 0
    left: list[tuple[str, int]] = []
    for stream in dict.fromkeys(rule.stream for rule in plan.late_rules):
        rows = handed.late.get(stream)
        if rows is None or not len(rows):
            continue
        if not _carry_rows(connection, stream, rows):
            left.append((stream, len(rows)))
            continue
        late += len(rows)
        for node, rule in plan.late_blocks:
            if rule.stream == stream and plan.fresh(rule.relation):
                _enter(connection, plan, node, rule)
    return Carried(len(handed.dead), late, tuple(left))


# -- dead letters ------------------------------------------------------------------------------------------------------


def _carry_dead(connection: duckdb.DuckDBPyConnection, handed: Handed) -> None:
    """All of them: one that was replayed is an input like the others, and a decision to drop one stands."""
    found = handed.dead
    # A sink's letters are named by epoch and place in it, and the new state counts epochs from 0.
    ids = [
        _renamed(handed.state_id, id) if source.startswith("sink:") and epoch >= 0 else id
        for id, source, epoch in zip(*(found[n].to_pylist() for n in ("id", "source", "epoch")), strict=True)
    ]
    connection.register("_ps_kept", found.append_column("_ps_id", pa.array(ids, pa.string())))
    connection.execute(
        f"INSERT INTO _ps.dead ({letters.LETTER_COLUMNS}) SELECT {letters.LETTER_COLUMNS} FROM (SELECT * REPLACE "
        "(_ps_id AS id, -1 AS epoch, CASE WHEN status = 'dropped' OR starts_with(source, 'sink:') THEN status "
        f"ELSE '{KEPT}' END AS status) FROM _ps_kept)"
    )
    connection.unregister("_ps_kept")


def _renamed(state_id: str, id: str) -> str:
    return hashlib.sha256(f"{state_id}\0{id}".encode()).hexdigest()[:16]


# -- late rows ---------------------------------------------------------------------------------------------------------


def _carry_rows(connection: duckdb.DuckDBPyConnection, stream: str, rows: pa.Table) -> bool:
    """Store the late rows of a stream; they fit where each column of its contract was there and had its type."""
    stored = table(f"l_{stream}")
    wanted = fetch(connection, f"SELECT * FROM {stored}").schema
    if any(rows.schema.get_field_index(f.name) < 0 or rows.schema.field(f.name).type != f.type for f in wanted):
        return False
    columns = column_list(wanted.names)
    connection.register("_ps_kept", rows)
    connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM _ps_kept")
    connection.unregister("_ps_kept")
    return True


def _enter(connection: duckdb.DuckDBPyConnection, plan: Plan, node: Node, late: Late) -> None:
    """Write into the ledger what was late for this block, as it is declared now."""
    relation = plan.node(late.relation).relation
    kept = table(f"l_{relation.name}")
    row = first_row(connection.execute(f"SELECT count(*) FROM {kept}"))
    if relation.name != late.stream and row and not row[0]:
        columns = column_list([*relation.columns, *HIDDEN])
        connection.execute(f"INSERT INTO {kept} ({columns}) SELECT {columns} FROM {_content(plan, relation.name)} AS r")
    alias = quote(late.alias)
    connection.execute(
        f"INSERT INTO _ps.late SELECT DISTINCT {literal(late.stream)}, {alias}._ps_p, {alias}._ps_o, "
        f"{literal(node.name)}, {literal(plan.owner(node.name))}, {late.window_start}, {late.window_end}, "
        f"{alias}._ps_wm, -1, '{KEPT}' FROM {kept} AS {alias} WHERE {late_condition(late)}"
    )


def _content(plan: Plan, name: str) -> str:
    """The rows of a relation that is made of one stream alone, over the stream's kept late rows."""
    block = plan.node(name).block
    if not isinstance(block, FlatBlock):
        return table(f"l_{name}")
    under = block.from_[0].relation
    return f"({flat.content_sql(block, {under: _content(plan, under)})})"


# -- in the new state --------------------------------------------------------------------------------------------------


def settle(connection: duckdb.DuckDBPyConnection, progress: Progress) -> None:
    """Give what was kept its status, as far as the sources have been read; idempotent, between two epochs."""
    row = first_row(
        connection.execute(
            f"SELECT (SELECT count(*) FROM _ps.dead WHERE status = '{KEPT}') + "
            f"(SELECT count(*) FROM _ps.late WHERE status = '{KEPT}')"
        )
    )
    if row is None or not row[0]:
        return
    for name, source in progress.sources.items():
        for partition, stood in source.partitions.items():
            if stood.first_offset is None:
                continue
            kept = f"status = '{KEPT}' AND source = {literal(name)} AND partition = {partition}"
            before = f'{kept} AND "offset" < {stood.first_offset}'
            read = f'{kept} AND "offset" >= {stood.first_offset} AND "offset" < {stood.next_offset}'
            connection.execute(f"UPDATE _ps.dead SET status = 'dead' WHERE {before}")
            connection.execute(f"UPDATE _ps.dead SET status = 'reread' WHERE {read}")
            connection.execute(f"UPDATE _ps.late SET status = 'late' WHERE {before}")
            connection.execute(f"DELETE FROM _ps.late WHERE {read}")
