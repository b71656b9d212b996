"""How the statements of an epoch are run: what a block asks for, and the plain way to do it.

A block names its temporary relations and says what they hold; whether that is a table of DuckDB or rows in memory is
settled here (large epochs) and in `prepared` (small ones). The rows are the same either way.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

import duckdb
import pyarrow as pa

from penstock.engines.duckdb.connection import first_row
from penstock.plan.blocks import quote


class Statements(Protocol):
    """One connection and the temporary relations on it, which last for an epoch."""

    in_parts: bool
    """Whether what reads tables is better apart from what computes."""
    texts: dict[tuple[str, ...], str]
    """SQL texts that were made before, by what they depend on."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """For what may change tables: in the epoch's transaction, which this begins where it has not begun."""
        ...

    @property
    def reader(self) -> duckdb.DuckDBPyConnection:
        """The same connection, for what changes no table."""
        ...

    @property
    def changing(self) -> bool:
        """Whether the epoch's transaction has begun: it may have changed tables."""
        ...

    def begin(self) -> None:
        """An epoch begins; its transaction does so at the latest when a table is changed."""
        ...

    def commit(self) -> None:
        """Commit the transaction, if it has begun."""
        ...

    def roll_back(self) -> None:
        """Nothing of the epoch is to be, and nothing of it is relied on."""
        ...

    def store(self, name: str, sql: str) -> int:
        """Make (or replace) the temporary relation `name` from a query; the number of its rows."""
        ...

    def keep(self, name: str, sql: str, version: object) -> str:
        """What to read for a query whose rows change with `version` alone; it may be kept as relation `name`."""
        ...

    def add(self, name: str, sql: str) -> int:
        """Add a query's rows to a relation that `store` has made."""
        ...

    def give(self, name: str, rows: pa.Table) -> None:
        """Make (or replace) the temporary relation `name` from rows in memory."""
        ...

    def take(self, name: str) -> None:
        """What was given is not read any more."""
        ...

    def held(self, name: str) -> pa.Table | None:
        """The rows of a relation, where they are in memory."""
        ...

    def write(self, sql: str) -> int:
        """Run a statement that changes a stored table; the number of rows that it changed."""
        ...

    def fetch(self, sql: str) -> pa.Table:
        """A query's rows."""
        ...


class Planned:
    """Every statement is planned for the rows that are there: for large epochs, whose rows cost more than plans."""

    in_parts = False
    changing = True

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = self.reader = connection
        self.texts: dict[tuple[str, ...], str] = {}

    def begin(self) -> None:
        self.connection.execute("BEGIN")

    def commit(self) -> None:
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        # A failed COMMIT has rolled back already; the first error is the one to tell.
        with contextlib.suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")

    def store(self, name: str, sql: str) -> int:
        return self.write(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {sql}")

    def keep(self, name: str, sql: str, version: object) -> str:
        return f"({sql})"

    def add(self, name: str, sql: str) -> int:
        return self.write(f"INSERT INTO {quote(name)} {sql}")

    def give(self, name: str, rows: pa.Table) -> None:
        self.connection.register(name, rows)

    def take(self, name: str) -> None:
        self.connection.unregister(name)

    def held(self, name: str) -> pa.Table | None:
        return None

    def write(self, sql: str) -> int:
        row = first_row(self.connection.execute(sql))
        return int(row[0]) if row else 0

    def fetch(self, sql: str) -> pa.Table:
        return self.connection.sql(sql).to_arrow_table()
