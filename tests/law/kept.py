"""Databases in memory that are kept, emptied, from one session to the next.

Opening a DuckDB takes 20 ms and its first questions as long again: more than most epochs of a law test. What a session
made is dropped before the next one comes, and a database that cannot be emptied, or that was given functions, is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from penstock.engines.duckdb import engine
from penstock.engines.duckdb.connection import SETTINGS
from penstock.functions import register
from penstock.graph import FunctionDecl
from penstock.plan.blocks import quote


class Kept:
    """The databases: those that wait, and those whose session is open, by the id of its connection."""

    def __init__(self) -> None:
        self._open, self._close = engine.open_state, engine.DuckState.close
        self._waiting: list[duckdb.DuckDBPyConnection] = []
        self._lent: dict[int, duckdb.DuckDBPyConnection] = {}

    def open_state(
        self, path: Path | None, *, threads: int | None = None, memory_limit: str | None = None
    ) -> duckdb.DuckDBPyConnection:
        """In the place of the engine's."""
        if path is not None or memory_limit is not None or threads is None:
            return self._open(path, threads=threads, memory_limit=memory_limit)
        database = self._waiting.pop() if self._waiting else self._open(None, threads=threads)
        connection = database.cursor()
        connection.execute(f"SET threads = {threads}; {SETTINGS}")
        self._lent[id(connection)] = database
        return connection

    def register(self, connection: duckdb.DuckDBPyConnection, functions: Sequence[FunctionDecl]) -> None:
        """In the place of the engine's: functions stay in a database, which is therefore not kept."""
        if functions:
            self._lent.pop(id(connection), None)
        register(connection, functions)

    def close(self, state: engine.DuckState) -> None:
        """In the place of a state's."""
        self._close(state)
        database = self._lent.pop(id(state._database), None)
        if database is not None and _emptied(database):
            self._waiting.append(database)


def _emptied(database: duckdb.DuckDBPyConnection) -> bool:
    """Drop everything; a connection that was left open in a transaction is in the way."""
    try:
        views = database.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        for (name,) in views:
            database.execute(f"DROP VIEW {quote(name)}")
        tables = database.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        for schema, name in tables:
            database.execute(f"DROP TABLE {quote(schema)}.{quote(name)}")
        database.execute("DROP SCHEMA IF EXISTS _ps CASCADE")
    except duckdb.Error:
        database.close()
        return False
    return True


KEPT = Kept()


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions in memory open a database that was open before."""
    monkeypatch.setattr(engine, "open_state", KEPT.open_state)
    monkeypatch.setattr(engine, "register", KEPT.register)
    monkeypatch.setattr(engine.DuckState, "close", lambda state: KEPT.close(state))
