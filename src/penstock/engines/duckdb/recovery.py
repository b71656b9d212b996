"""Opening a state file: what its small epochs have left to settle is settled first, without a plan."""

from __future__ import annotations

from pathlib import Path

import duckdb

from penstock.engines.duckdb import redo, redo_log
from penstock.engines.duckdb.connection import connect, first_row
from penstock.engines.duckdb.redo import Moved, decoded
from penstock.errors import StateError
from penstock.storage import failpoints

_WITHOUT_ROWS = 1


def open_state(
    path: Path | None, *, threads: int | None = None, memory_limit: str | None = None, beside: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection to a state file (as `connect` makes it), in which nothing is left to settle.

    Raises:
        StateError: as `connect`, PS-STATE-002 when the redo log is not what the state goes on with, and PS-STATE-005
            when what is left cannot be settled.
    """
    connection = connect(path, threads=threads, memory_limit=memory_limit, beside=beside)
    try:
        recover(connection, path)
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


def recover(connection: duckdb.DuckDBPyConnection, path: Path | None) -> None:
    """Settle what an opened state has left to settle. path: its file, None in memory."""
    epochs = unsettled(connection, path)
    if epochs:
        redo.settle(connection, epochs, {})
        failpoints.hit(redo.AFTER_COMMIT)
        if path is not None:
            redo_log.clear(path)


def unsettled(connection: duckdb.DuckDBPyConnection, path: Path | None) -> list[list[Moved]]:
    """What epochs moved that is not in the tables yet; none in a file that is no state, or of a newer format.

    Raises:
        StateError: PS-STATE-002 when the redo log is another state's, or epochs between it and the tables are lost.
    """
    found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = '_ps'").fetchall()
    names = {name for (name,) in found}
    meta = dict(connection.execute("SELECT key, value FROM _ps.meta").fetchall()) if "meta" in names else {}
    written = int(meta.get("format", 0))
    if written > redo.FORMAT:
        return []
    records = redo_log.read(path) if path is not None else []
    if not written:
        if records and path is not None:
            raise redo_log.damaged(redo_log.redo_path(path), "the state file is gone", "a log, and no state")
        return []
    if written < redo.FORMAT:
        _bring_up_to_date(connection, written)
    if written == _WITHOUT_ROWS:
        return []
    rows = connection.execute("SELECT epoch, entry FROM _ps.redo ORDER BY epoch").fetchall()
    last = first_row(connection.execute("SELECT coalesce(max(epoch), -1) FROM _ps.journal"))
    return _in_order(path, meta["state_id"], last[0] if last else -1, records, {e: bytes(entry) for e, entry in rows})


def _bring_up_to_date(connection: duckdb.DuckDBPyConnection, written: int) -> None:
    connection.execute("BEGIN")
    if written == _WITHOUT_ROWS:
        connection.execute(redo.TABLE)
    connection.execute(f"UPDATE _ps.meta SET value = '{redo.FORMAT}' WHERE key = 'format'")
    connection.execute("COMMIT")


def _in_order(
    path: Path | None, state_id: str, settled: int, records: list[redo_log.Record], rows: dict[int, bytes]
) -> list[list[Moved]]:
    """The entries of both kinds after the epoch `settled`, where none between them is missing."""
    others = {record.state_id for record in records} - {state_id}
    if path is not None and others:
        raise redo_log.damaged(
            redo_log.redo_path(path), f"the redo log is not that of {path.name}", f"that of state {others.pop()}"
        )
    logged = {record.epoch: record for record in records if record.epoch > settled}
    entries, last = [], settled
    for epoch in sorted({*logged, *rows}):
        record = logged.get(epoch)
        # A row does not say what it follows. Epochs are counted one by one, but for the first one of a replay.
        after = record.after if record is not None else epoch - 1 if last >= 0 else last
        if path is not None and after > last:
            raise redo_log.damaged(
                redo_log.redo_path(path),
                "the state file and its redo log do not go together: committed epochs are lost",
                f"epoch {epoch}, which follows epoch {after}, after epoch {last}",
            )
        entries.append(decoded(record.entry if record is not None else rows[epoch]))
        last = epoch
    return entries
