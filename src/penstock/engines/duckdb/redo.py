"""Redo entries of small epochs: what an epoch has written, before it stands in the tables.

A small epoch commits one entry, which holds all that it moved: a table's name and rows each. It is a record of the redo
log (redo_log.py) or, where the epoch changes tables as well, a row of `_ps.redo` in their transaction. Later, many
epochs at once, these are brought into the tables (*settled*) in one transaction. Invariants:

- What a state holds is its tables with the entries applied in the order of their epochs; settling does not change it.
- An entry says all that is needed to apply it: no plan is, so that whoever opens a state settles it first
  (recovery.py).
- Entries are applied once: the transaction that applies them brings their epochs into `_ps.journal`, and deletes the
  rows. Records of epochs that are in the journal are settled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from penstock.plan.blocks import column_list, quote
from penstock.storage import failpoints

BEFORE_COMMIT = failpoints.register("settle.before_commit", "redo rows are applied, nothing of that is committed")
AFTER_COMMIT = failpoints.register("settle.after_commit", "redo rows are applied and committed")

TABLE = "CREATE TABLE _ps.redo (epoch BIGINT, entry BLOB)"
# Of replacing rows: whether the row is there afterwards (else it is only taken away).
STAYS = "_ps_stays"
# The format of states. Those of the first one had no redo rows, those of the second no redo log.
FORMAT = 3
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
        rows = pa.concat_tables([p.rows.cast(parts[0].rows.schema) for p in parts]).combine_chunks()
        connection.register(_ROWS, rows.append_column(_PLACE, pa.array(np.arange(len(rows)))))
        _apply(connection, name, parts[0].keys, once=len(parts) == 1)
        connection.unregister(_ROWS)
    connection.execute("DELETE FROM _ps.redo")


def _apply(connection: duckdb.DuckDBPyConnection, name: str, keys: tuple[str, ...] | None, *, once: bool) -> None:
    """once: each row is there once, as in what one epoch moved."""
    stored = f"_ps.{quote(name)}"
    types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {stored}").fetchall()}
    typed = ", ".join(f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in types.items())
    columns = column_list(list(types))
    if keys is None:
        connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {typed} FROM {_ROWS} ORDER BY {_PLACE}")
        return
    moved = f"SELECT {typed}, {STAYS}, {_PLACE} FROM {_ROWS}"
    if not once:
        over = f"PARTITION BY {column_list(list(keys))} " if keys else ""
        moved = f"FROM ({moved}) QUALIFY row_number() OVER ({over}ORDER BY {_PLACE} DESC) = 1"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _ps_redo_last AS {moved}")
    match = " AND ".join(f"s.{quote(k)} IS NOT DISTINCT FROM t.{quote(k)}" for k in keys) or "TRUE"
    connection.execute(f"DELETE FROM {stored} AS s USING _ps_redo_last AS t WHERE {match}")
    connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM _ps_redo_last WHERE {STAYS}")
    connection.execute("DROP TABLE _ps_redo_last")


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
