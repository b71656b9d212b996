"""The statements of small epochs, kept from epoch to epoch.

Planning a statement takes DuckDB a hundred times as long as running it over a handful of rows. So in small epochs all
temporary relations are Arrow tables, each handed to DuckDB under a name that stays; then a query over such relations
alone can be prepared once and for all. Invariants:

- A prepared statement reads no table. (In DuckDB 1.5 a prepared statement that reads a table may give wrong rows after
  the table has changed, for its statistics were planned in; DuckDB 2.0 plans it anew each time, so that nothing is
  saved. What Python hands over has no statistics, in both.) Whether one does is told by its words, where it contains no
  name of any table or view; DuckDB is asked where it does, for an alias or a column may have such a name.
- A text is prepared when it comes the second time: one that holds numbers of its epoch never does.
- Values pass through Arrow unchanged. A type that Arrow does not carry as it is is cast back by a view
  (`_RESTORED`); rows with any other type stay a temporary table, and all that reads it is planned.
- A transaction begins with the first statement that may change a table. Without one, what registers and reads rows
  stands alone: an epoch that changes no table is no transaction of DuckDB.
- After an epoch that failed nothing is kept: DuckDB has taken back what was registered since BEGIN.

The connection is one of its own on the same database, so that names never meet those of the large epochs.
"""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from penstock.engines.duckdb.connection import SETTINGS, first_row
from penstock.formats.arrow_result import ArrowResult
from penstock.plan.blocks import quote

# Texts that are remembered; a plan has tens of them.
REMEMBERED = 1_000
# Rows of a reference that are joined in memory; with more, looking them up in the table takes less time.
KEPT_ROWS = 20_000
_WORD = re.compile(r"\w+")
# Types that come back from Arrow as another type which holds the same values.
_RESTORED = re.compile(r"HUGEINT|UUID|JSON|ENUM\(.*\)")
# Types that Arrow changes, inside of others too (an interval's microseconds become nanoseconds).
_CHANGED = re.compile(r"HUGEINT|UUID|JSON|ENUM|INTERVAL|TIME WITH TIME ZONE|BIT|VARIANT|UNION|GEOMETRY|BIGNUM|ANY|NULL")


class Held:
    """What DuckDB reads under one registered name: the rows that are there now."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


@dataclass
class _Text:
    """One SQL text that has come before.

    run: the text; once it is `ready`, perhaps `EXECUTE` of what is prepared under the name `prepared`. statement: the
    same, parsed. types: of a query's columns, once it was run; carried: whether it can be held as Arrow.
    """

    run: str
    statement: duckdb.Statement | None = None
    ready: bool = False
    prepared: str = ""
    types: tuple[str, ...] = ()
    carried: bool = False


class Prepared:
    """Statements and relations that last. See the module."""

    in_parts = True

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._database = connection
        self._start()

    def _start(self) -> None:
        self._connection = self._database.cursor()
        self._connection.execute(SETTINGS)
        self.changing = False
        self._held: dict[str, Held] = {}
        self._tables: set[str] = set()
        self._kept: dict[str, tuple[object, bool]] = {}
        self._texts: OrderedDict[str, _Text] = OrderedDict()
        self.texts: dict[tuple[str, ...], str] = {}
        self._count = 0

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        if not self.changing:
            self._connection.execute("BEGIN")
            self.changing = True
        return self._connection

    @property
    def reader(self) -> duckdb.DuckDBPyConnection:
        return self._connection

    def begin(self) -> None:
        """Nothing to do: `connection` begins."""

    def commit(self) -> None:
        if self.changing:
            self._connection.execute("COMMIT")
            self.changing = False

    def roll_back(self) -> None:
        # A failed COMMIT has rolled back already; the first error is the one to tell.
        with contextlib.suppress(duckdb.Error):
            if self.changing:
                self._connection.execute("ROLLBACK")
        self._connection.close()
        self._start()

    def close(self) -> None:
        self._connection.close()

    # -- relations -----------------------------------------------------------------------------------------------------

    def store(self, name: str, sql: str) -> int:
        if name in self._tables:
            return self._store_table(name, sql)
        text = self._text(sql)
        result = ArrowResult(self._connection, text.run)
        if not text.types:
            text.types, text.carried = result.types, carried(result.types) and distinct(result.names)
        if not text.carried:
            result.discard()
            return self._store_table(name, sql)
        rows = result.table()
        self.hold(name, rows, text.types)
        return len(rows)

    def _store_table(self, name: str, sql: str) -> int:
        if name not in self._tables:
            self._drop(name)
            self._tables.add(name)
        row = first_row(self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {quote(name)} AS {sql}"))
        return int(row[0]) if row else 0

    def keep(self, name: str, sql: str, version: object) -> str:
        known = self._kept.get(name)
        if known is None or known[0] != version:
            (count,) = self._connection.execute(f"SELECT count(*) FROM ({sql})").fetchall()[0]
            if count <= KEPT_ROWS:
                self.store(name, sql)
            known = self._kept[name] = (version, count <= KEPT_ROWS)
        return quote(name) if known[1] else f"({sql})"

    def add(self, name: str, sql: str) -> int:
        if name in self._tables:
            return self.write(f"INSERT INTO {quote(name)} {sql}")
        rows = self.fetch(sql)
        held = self._held[name]
        held.rows = pa.concat_tables([held.rows, rows.cast(held.rows.schema)])
        return len(rows)

    def give(self, name: str, rows: pa.Table) -> None:
        self.hold(name, rows, ())

    def take(self, name: str) -> None:
        held = self._held[name]
        held.rows = held.rows.schema.empty_table()

    def held(self, name: str) -> pa.Table | None:
        found = self._held.get(name)
        return found.rows if found else None

    def hold(self, name: str, rows: pa.Table, types: tuple[str, ...]) -> None:
        """`give`, of rows that Arrow may carry as other types than these."""
        held = self._held.get(name)
        if held is not None and held.rows.schema.equals(rows.schema):
            held.rows = rows
            return
        self._drop(name)
        held = self._held[name] = Held(rows)
        if not any(_RESTORED.fullmatch(kind) for kind in types):
            self._connection.register(name, held)
            return
        self._connection.register(_raw(name), held)
        columns = ", ".join(
            f"CAST({quote(field)} AS {kind}) AS {quote(field)}" if _RESTORED.fullmatch(kind) else quote(field)
            for field, kind in zip(rows.column_names, types, strict=True)
        )
        self._connection.execute(f"CREATE TEMP VIEW {quote(name)} AS SELECT {columns} FROM {quote(_raw(name))}")

    def _drop(self, name: str) -> None:
        if self._held.pop(name, None) is None:
            return
        # DuckDB does not see that what it has planned over the old rows is out of date
        for sql, text in self._texts.items():
            if name in sql:
                self._forget(text)
        self._connection.execute(f"DROP VIEW IF EXISTS temp.{quote(name)}")
        self._connection.execute(f"DROP VIEW IF EXISTS temp.{quote(_raw(name))}")

    # -- statements ----------------------------------------------------------------------------------------------------

    def write(self, sql: str) -> int:
        text = self._text(sql)
        if text.statement is None:
            (text.statement,) = self._connection.extract_statements(text.run)
        row = first_row(self.connection.execute(text.statement))
        return int(row[0]) if row else 0

    def fetch(self, sql: str) -> pa.Table:
        return ArrowResult(self._connection, self._text(sql).run).table()

    def _text(self, sql: str) -> _Text:
        text = self._texts.get(sql)
        if text is None:
            text = self._texts[sql] = _Text(sql)
            if len(self._texts) > REMEMBERED:
                self._forget(self._texts.popitem(last=False)[1])
        elif not text.ready:
            self._make_ready(text, sql)
        return text

    def _make_ready(self, text: _Text, sql: str) -> None:
        """Parse it once, as `EXECUTE` of a prepared statement where it reads no table."""
        run = sql
        target = _INSERT.match(sql)
        if (target or sql.startswith("SELECT")) and not self._reads_table(sql[target.end() :] if target else sql):
            self._count += 1
            text.prepared = f"_ps_q{self._count}"
            self._connection.execute(f"PREPARE {text.prepared} AS {sql}")
            run = f"EXECUTE {text.prepared}"
        text.run, text.statement, text.ready = run, None, True

    def _forget(self, text: _Text) -> None:
        if text.prepared:
            self._connection.execute(f"DEALLOCATE {text.prepared}")
        text.prepared, text.ready, text.statement = "", False, None

    def _reads_table(self, sql: str) -> bool:
        names = self._connection.execute(
            "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() "
            "WHERE NOT internal AND NOT temporary"
        ).fetchall()
        lower = sql.lower()
        words = set(_WORD.findall(lower))
        taken = {name.lower() for (name,) in names}
        named = any(name in words if _WORD.fullmatch(name) else name in lower for name in taken)
        # DuckDB looks through views, down to the tables. It does so without types, and fails where a RANGE frame adds
        # an interval to a column.
        return named and (_RANGE_FRAME.search(sql) is not None or bool(self._connection.get_table_names(sql)))


_RANGE_FRAME = re.compile(r"\bRANGE\s+BETWEEN\b", re.IGNORECASE)
_INSERT = re.compile(r'INSERT INTO _ps\."(?:[^"]|"")+"(?: \([^()]*\))? (?=SELECT)')


def _raw(name: str) -> str:
    return f"{name}_raw"


def carried(types: tuple[str, ...]) -> bool:
    """Whether rows of these types come back from Arrow as they were."""
    return not any(_CHANGED.search(kind) and not _RESTORED.fullmatch(kind) for kind in types)


def unchanged(types: tuple[str, ...]) -> bool:
    """Whether Arrow has these types as DuckDB has them."""
    return not any(_CHANGED.search(kind) for kind in types)


def distinct(names: tuple[str, ...]) -> bool:
    """Whether no two columns have one name. (A table of DuckDB would give the second another one, Arrow does not.)"""
    return len({name.lower() for name in names}) == len(names)
