"""Binding over empty relations in a DuckDB of its own, in memory."""

from __future__ import annotations

import re

import duckdb

from penstock.engines.duckdb.connection import connect
from penstock.plan.binder import BindProblem
from penstock.plan.blocks import Field, quote

_PLACE = re.compile(r"LINE (\d+): (.*)\n(\s*)\^")


class DuckBinder:
    """The planner's view of DuckDB's catalogue."""

    def __init__(self) -> None:
        self._connection = connect(None)

    def add(self, name: str, fields: tuple[Field, ...]) -> None:
        columns = ", ".join(f"{quote(f.name)} {f.type}{'' if f.nullable else ' NOT NULL'}" for f in fields)
        self._execute(f"CREATE TABLE {quote(name)} ({columns})")

    def remove(self, name: str) -> None:
        self._execute(f"DROP TABLE IF EXISTS {quote(name)}")

    def describe(self, sql: str) -> tuple[Field, ...]:
        rows = self._execute(f"DESCRIBE {sql}").fetchall()
        return tuple(Field(row[0], row[1]) for row in rows)

    def aggregates(self) -> frozenset[str]:
        return self._functions("function_type = 'aggregate'")

    def volatile(self) -> frozenset[str]:
        return self._functions("stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')")

    def close(self) -> None:
        self._connection.close()

    def _functions(self, condition: str) -> frozenset[str]:
        query = f"SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE {condition}"
        return frozenset(row[0] for row in self._execute(query).fetchall())

    def _execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql)
        except duckdb.Error as problem:
            raise _problem(str(problem), sql) from None


def _problem(text: str, sql: str) -> BindProblem:
    message = text.split("\n\nLINE ")[0].strip()
    match = _PLACE.search(text)
    if match is None:
        return BindProblem(message)
    line, shown, indent = int(match[1]), match[2], len(match[3])
    column = indent - len(f"LINE {line}: ") + 1
    # DuckDB shortens long lines with "..."; the caret then counts from the cut.
    lines = sql.splitlines()
    if shown.startswith("...") and 0 < line <= len(lines):
        found = lines[line - 1].find(shown.strip(".")[:20])
        column = max(found + column - 3, 1)
    if line == 1:
        column -= len("DESCRIBE ")
    return BindProblem(message, line, max(column, 1))
