"""The redo rows of small epochs: what an epoch has written, before it stands in the tables.

A small epoch commits one row of `_ps.redo`, which holds all that it moved: a table's name and rows each. Later, many
epochs at once, these are brought into the tables (*settled*) in one transaction that also removes the redo rows.
Invariants:

- What a state holds is its tables with the redo rows applied in the order of their epochs; settling does not change it.
- A redo row says all that is needed to apply it: no plan is, so that whoever opens a state file settles it first
  (`open_state`; `recover` for who opened it otherwise).
- Rows are applied once: the transaction that applies them deletes them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from penstock.engines.duckdb.connection import connect, first_row
from penstock.errors import StateError
from penstock.plan.blocks import column_list, quote
from penstock.storage import failpoints

BEFORE_COMMIT = failpoints.register("settle.before_commit", "redo rows are applied, nothing of that is committed")
AFTER_COMMIT = failpoints.register("settle.after_commit", "redo rows are applied and committed")

TABLE = "CREATE TABLE _ps.redo (epoch BIGINT, entry BLOB)"
# Of replacing rows: whether the row is there afterwards (else it is only taken away).
STAYS = "_ps_stays"
# The format of states; those of an earlier one had no redo rows.
FORMAT = 2
_WITHOUT = "1"
_ROWS, _PLACE = "_ps_redo_rows", "_ps_redo_place"


@dataclass(frozen=True)
class Moved:
    """Rows for one state table. keys: they take the place of the stored rows with these (None: they are added)."""

    table: str
    rows: pa.Table
    keys: tuple[str, ...] | None = None


def encoded(parts: Sequence[Moved]) -> bytes:
    """What an epoch moved: a line of JSON that names the tables, then the schema and the rows of each in Arrow IPC."""
    heads, bodies = [], []
    for part in parts:
        rows = _plain(part.rows).combine_chunks()
        schema = rows.schema.serialize()
        batches = [batch.serialize() for batch in rows.to_batches()]
        heads.append({"table": part.table, "keys": part.keys, "bytes": [schema.size, *(b.size for b in batches)]})
        bodies += [schema, *batches]
    return b"".join([json.dumps(heads).encode(), b"\n", *bodies])


def _plain(rows: pa.Table) -> pa.Table:
    """Without dictionaries, which are no part of a batch: a table's own type makes them again."""
    if not any(pa.types.is_dictionary(kind) for kind in rows.schema.types):
        return rows
    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in rows.schema]
    return rows.cast(pa.schema(fields))


def decoded(entry: bytes) -> list[Moved]:
    """The reverse."""
    head, _, rest = entry.partition(b"\n")
    parts, start = [], 0
    for part in json.loads(head):
        bodies = []
        for size in part["bytes"]:
            bodies.append(pa.py_buffer(rest[start : start + size]))
            start += size
        schema = pa.ipc.read_schema(bodies[0])
        rows = pa.Table.from_batches([pa.ipc.read_record_batch(body, schema) for body in bodies[1:]], schema)
        parts.append(Moved(part["table"], rows, None if part["keys"] is None else tuple(part["keys"])))
    return parts


def entry_row(epoch: int, entry: bytes, kind: pa.DataType) -> pa.Table:
    """An epoch and its bytes or text as a row. (For values of Python, pyarrow looks for libraries, each time.)"""
    ends = pa.py_buffer(np.array([0, len(entry)], dtype=np.int32))
    value = pa.Array.from_buffers(kind, 1, [None, ends, pa.py_buffer(entry)])
    return pa.Table.from_arrays([pa.array(np.array([epoch])), value], names=["epoch", "entry"])


def apply(connection: duckdb.DuckDBPyConnection, epochs: Sequence[Sequence[Moved]]) -> None:
    """Bring into the tables what these epochs moved, oldest first, and delete all redo rows; in a transaction."""
    by_table: dict[str, list[Moved]] = {}
    for parts in epochs:
        for part in parts:
            by_table.setdefault(part.table, []).append(part)
    for name, parts in by_table.items():
        rows = pa.concat_tables([p.rows.cast(parts[0].rows.schema) for p in parts])
        _apply(connection, name, rows, parts[0].keys)
    connection.execute("DELETE FROM _ps.redo")


def _apply(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, keys: tuple[str, ...] | None) -> None:
    stored = f"_ps.{quote(name)}"
    types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {stored}").fetchall()}
    typed = ", ".join(f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in types.items())
    columns = column_list(list(types))
    connection.register(_ROWS, rows.append_column(_PLACE, pa.array(np.arange(len(rows)))))
    if keys is None:
        connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {typed} FROM {_ROWS} ORDER BY {_PLACE}")
    else:
        over = f"PARTITION BY {column_list(list(keys))} " if keys else ""
        last = (
            f"SELECT {columns}, {STAYS} FROM (SELECT {typed}, {STAYS}, {_PLACE} FROM {_ROWS}) "
            f"QUALIFY row_number() OVER ({over}ORDER BY {_PLACE} DESC) = 1"
        )
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _ps_redo_last AS {last}")
        match = " AND ".join(f"s.{quote(k)} IS NOT DISTINCT FROM t.{quote(k)}" for k in keys) or "TRUE"
        connection.execute(f"DELETE FROM {stored} AS s USING _ps_redo_last AS t WHERE {match}")
        connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM _ps_redo_last WHERE {STAYS}")
        connection.execute("DROP TABLE _ps_redo_last")
    connection.unregister(_ROWS)


def settle(
    connection: duckdb.DuckDBPyConnection, epochs: Sequence[Sequence[Moved]], delivered: Mapping[str, int]
) -> None:
    """`apply` in a transaction of its own. delivered: per outbox, up to which epoch its rows are not needed."""
    connection.execute("BEGIN")
    try:
        apply(connection, epochs)
        for outbox, epoch in delivered.items():
            connection.execute(f"DELETE FROM _ps.{quote(outbox)} WHERE _epoch <= {epoch}")
        failpoints.hit(BEFORE_COMMIT)
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT has rolled back already; the first error is the one to tell.
        with contextlib.suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise


def open_state(
    path: Path | None, *, threads: int | None = None, memory_limit: str | None = None, beside: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection to a state file (as `connect` makes it), in which nothing is left to settle.

    Raises:
        StateError: as `connect`, and PS-STATE-005 when what is left cannot be settled.
    """
    connection = connect(path, threads=threads, memory_limit=memory_limit, beside=beside)
    try:
        recover(connection)
    except (duckdb.Error, OSError) as problem:
        connection.close()
        raise StateError(
            "PS-STATE-005",
            "the state cannot be read or written",
            expected=f"a state of Penstock at {path}",
            got=str(problem).split("\n")[0],
            hint="if the disk is full, free some space, then start again: nothing is lost",
            retryable=isinstance(problem, duckdb.IOException | OSError),
        ) from problem
    except BaseException:
        connection.close()
        raise
    return connection


def recover(connection: duckdb.DuckDBPyConnection) -> None:
    """Settle what an opened state file has left to settle."""
    epochs = unsettled(connection)
    if epochs:
        settle(connection, epochs, {})
        failpoints.hit(AFTER_COMMIT)


def unsettled(connection: duckdb.DuckDBPyConnection) -> list[list[Moved]]:
    """What epochs moved that is not in the tables yet; none in a file that is no state, or of a newer format."""
    found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = '_ps'").fetchall()
    names = {name for (name,) in found}
    if "meta" not in names:
        return []
    written = first_row(connection.execute("SELECT value FROM _ps.meta WHERE key = 'format'"))
    if written is not None and written[0] == _WITHOUT and "redo" not in names:
        connection.execute("BEGIN")
        connection.execute(TABLE)
        connection.execute(f"UPDATE _ps.meta SET value = '{FORMAT}' WHERE key = 'format'")
        connection.execute("COMMIT")
    if written is None or int(written[0]) > FORMAT or written[0] == _WITHOUT:
        return []
    rows = connection.execute("SELECT entry FROM _ps.redo ORDER BY epoch").fetchall()
    return [decoded(bytes(entry)) for (entry,) in rows]
