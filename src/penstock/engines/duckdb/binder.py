"""Binding over empty relations in a DuckDB of its own, in memory."""

from __future__ import annotations

import atexit
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from queue import Empty, Full, Queue

import duckdb

from penstock.engines.duckdb.connection import connect
from penstock.errors import DeclarationError
from penstock.functions import register
from penstock.graph import FunctionDecl
from penstock.plan.binder import BindProblem
from penstock.plan.blocks import Field, quote

_spare: Queue[duckdb.DuckDBPyConnection] = Queue(1)
_PLACE = re.compile(r"LINE (\d+): (.*)\n(\s*)\^")


def _drop_spare() -> None:
    # DuckDB 2.0 tells of every object that outlives the interpreter, as this one does beside a daemon thread.
    while not _spare.empty():
        _spare.get_nowait().close()


atexit.register(_drop_spare)


class DuckBinder:
    """The planner's view of DuckDB's catalogue.

    Opening a database takes longer (20 ms) than planning many a pipeline, so an emptied one is kept for the next one.
    """

    def __init__(self, functions: Sequence[FunctionDecl] = ()) -> None:
        try:
            self._connection = _spare.get_nowait()
        except Empty:
            self._connection = connect(None, threads=1)
        self._tables: set[str] = set()
        self._functions = tuple(f for f in functions if f.name.lower() not in _catalogue().names)
        register(self._connection, self._functions)

    def add(self, name: str, fields: tuple[Field, ...]) -> None:
        self._tables.add(name)
        columns = ", ".join(f"{quote(f.name)} {f.type}{'' if f.nullable else ' NOT NULL'}" for f in fields)
        self._execute(f"CREATE TABLE {quote(name)} ({columns})")

    def remove(self, name: str) -> None:
        self._execute(f"DROP TABLE IF EXISTS {quote(name)}")

    def describe(self, sql: str) -> tuple[Field, ...]:
        rows = self._execute(f"DESCRIBE {sql}").fetchall()
        return tuple(Field(row[0], row[1]) for row in rows)

    def aggregates(self) -> frozenset[str]:
        return _catalogue().aggregates

    def volatile(self) -> frozenset[str]:
        return _catalogue().volatile

    def exact_rows(self) -> bool:
        return _catalogue().exact_rows

    def close(self) -> None:
        for name in self._tables:
            self.remove(name)
        for declared in self._functions:
            self._connection.remove_function(declared.name)
        try:
            _spare.put_nowait(self._connection)
        except Full:
            self._connection.close()

    def _execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql)
        except duckdb.Error as problem:
            raise _problem(str(problem), sql) from None


@dataclass(frozen=True)
class _Catalogue:
    aggregates: frozenset[str]
    volatile: frozenset[str]
    names: frozenset[str]
    exact_rows: bool


@cache
def _catalogue() -> _Catalogue:
    """Which functions are what, and how rows compare.

    It is the same for every database of a process, and dear to ask for (30 ms on DuckDB 2.0).
    """
    connection = connect(None, threads=1)
    try:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), function_type = 'aggregate', "
            "coalesce(stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY'), false) FROM duckdb_functions()"
        ).fetchall()
        # DuckDB 1.5 says NULL, though 1 is not 2.
        compared = connection.execute("SELECT (1, NULL::INTEGER) IN (SELECT 2, 1)").fetchone()
    finally:
        connection.close()
    return _Catalogue(
        frozenset(name for name, aggregate, _ in rows if aggregate),
        frozenset(name for name, _, volatile in rows if volatile),
        frozenset(name for name, _, _ in rows),
        compared == (False,),
    )


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


def refuse_taken(functions: Sequence[FunctionDecl]) -> None:
    """A function of the pipeline may not be called what a function of DuckDB is called.

    Raises:
        DeclarationError: PS-DECL-002.
    """
    for declared in functions:
        if declared.name.lower() in _catalogue().names:
            raise DeclarationError(
                "PS-DECL-002",
                f"function {declared.name} is one of DuckDB's",
                where=declared.where,
                expected="a name of its own",
                got=declared.name,
                hint=f'@ps.function(name="my_{declared.name}")',
            )
