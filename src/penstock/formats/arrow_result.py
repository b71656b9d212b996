"""A query's rows as Arrow, at the least cost that each version of DuckDB allows."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa


class ArrowResult:
    """A query's rows, to be had as Arrow or to be discarded."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        # DuckDB 2.0 makes Arrow of what `execute` gives by a second statement, and of what `sql` gives after it has
        # bound the query twice; this is what both of them end in.
        submit = getattr(connection, "_submit", None)
        self._rows: Any = submit(sql, None, "arrow") if submit is not None else connection.execute(sql)
        self._submitted = submit is not None

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(str(column[1]) for column in self._rows.description or ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column[0] for column in self._rows.description or ())

    def table(self) -> pa.Table:
        return self._rows.arrow_table() if self._submitted else self._rows.to_arrow_table()

    def discard(self) -> None:
        if self._submitted:
            self._rows.close()
