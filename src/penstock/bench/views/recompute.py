"""The batch: the same sources as plain tables of a DuckDB of their own, each view computed again as a whole.

It knows nothing of the planner but the text of the queries. It is what the incremental views are compared with, rows
and time alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb
import pyarrow as pa

from penstock.bench.views.changes import Change
from penstock.graph import SourceDecl


class Recompute:
    """All sources and the last content of each view.

    Args:
        queries: the SQL of each view, in an order in which each reads only what is before it.
        threads: of the database (None: its own choice).
    """

    def __init__(self, sources: Iterable[SourceDecl], queries: Mapping[str, str], threads: int | None = None) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": threads} if threads else {})
        self._connection.execute("SET TimeZone = 'UTC'")
        self._sources = {source.name: source for source in sources}
        self._queries = queries
        for source in self._sources.values():
            columns = ", ".join(f"{_quoted(c.name)} {c.type}" for c in source.schema.columns)
            self._connection.execute(f"CREATE TABLE {_quoted(source.name)} ({columns})")
        for view, sql in queries.items():
            self._connection.execute(f"CREATE TABLE {_quoted(view)} AS SELECT * FROM ({sql}) LIMIT 0")

    def apply(self, change: Change) -> None:
        """Move a source: rows with a key that is there replace it."""
        source = self._sources[change.source]
        name = _quoted(change.source)
        for gone in (change.deleted, change.rows if source.key and source.kind == "table" else None):
            if gone is not None:
                self._connection.register("gone", gone)
                same = " AND ".join(f"{name}.{_quoted(k)} = gone.{_quoted(k)}" for k in source.key)
                self._connection.execute(f"DELETE FROM {name} USING gone WHERE {same}")
                self._connection.unregister("gone")
        if source.kind == "reference":
            self._connection.execute(f"DELETE FROM {name}")
        if change.rows is not None:
            self._connection.register("came", change.rows)
            self._connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM came")
            self._connection.unregister("came")

    def run(self, view: str) -> None:
        """Compute a view again, and what differs from its last content."""
        name = _quoted(view)
        self._connection.execute("BEGIN")
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE now AS {self._queries[view]}")
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE changed AS (SELECT '-' AS op, * FROM (FROM {name} EXCEPT ALL FROM now)) "
            f"UNION ALL (SELECT '+', * FROM (FROM now EXCEPT ALL FROM {name}))"
        )
        self._connection.execute(f"DELETE FROM {name}")
        self._connection.execute(f"INSERT INTO {name} FROM now")
        self._connection.execute("COMMIT")
        self._connection.sql("FROM changed").to_arrow_table()

    def content(self, view: str) -> pa.Table:
        """The rows that the last run gave."""
        return self._connection.sql(f"FROM {_quoted(view)}").to_arrow_table()

    def close(self) -> None:
        """Everything is gone."""
        self._connection.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
