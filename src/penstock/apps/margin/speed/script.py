"""The recompute that one would write by hand: DuckDB, one transaction for each tick, durable when it returns.

It knows the default rules as numbers, has no contract, no history and no ladder, and starts from holdings. What it
writes are the same rows, whole tables of them, that the pipeline keeps; `stress_results` and what rests on an account's
past are left out.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.apps.margin.speed.portfolio import Portfolio
from penstock.decimals import DECIMAL_DIV

SHOCKS = ("-0.15", "-0.10", "-0.08", "-0.06", "-0.04", "-0.02", "0", "0.02", "0.04", "0.06", "0.08", "0.10", "0.15")


class Script:
    """Its own database in `folder`."""

    def __init__(self, folder: Path, book: Portfolio) -> None:
        self._connection = connection = duckdb.connect(str(folder / "script.duckdb"))
        connection.execute(f"SET TimeZone = 'UTC'; {DECIMAL_DIV}")
        text = (files(__package__) / "script.sql").read_text(encoding="utf-8")
        self._statements = [statement for statement in text.split(";\n") if statement.strip()]
        for name, rows in (("f", book.fills()), ("c", book.cash()), ("p", book.prices()), ("b", book.betas())):
            connection.register(name, rows)
        connection.execute(
            "CREATE TABLE holdings AS SELECT account_id, symbol, quantity, price AS average_cost, "
            "timestamp AS filled_at FROM f"
        )
        connection.execute(
            "CREATE TABLE balances AS SELECT account_id, sum(amount) AS cash, max(timestamp) AS moved_at FROM ("
            "SELECT account_id, amount, timestamp FROM c UNION ALL SELECT account_id, "
            "CAST(-(CAST(quantity AS DECIMAL(38,6)) * price) AS DECIMAL(20,4)), timestamp FROM f) GROUP BY account_id"
        )
        connection.execute(
            "CREATE TABLE symbols AS SELECT symbol, price, p.timestamp AS priced_at, beta FROM p JOIN b USING (symbol)"
        )
        values = ", ".join(f"({shock}::DECIMAL(10,6))" for shock in SHOCKS)
        connection.execute(f"CREATE TABLE shocks AS FROM (VALUES {values}) s (shock)")
        for name in ("f", "c", "p", "b"):
            connection.unregister(name)

    def tick(self, prices: pa.Table) -> None:
        """Take new prices, and write all positions and margins."""
        connection = self._connection
        connection.register("came", prices)
        connection.execute("BEGIN")
        connection.execute(
            "UPDATE symbols s SET price = came.price, priced_at = came.timestamp FROM came WHERE came.symbol = s.symbol"
        )
        for statement in self._statements:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.unregister("came")

    def rows(self, table: str, columns: str) -> pa.Table:
        """What the last tick wrote, in order."""
        return self._connection.sql(f"SELECT {columns} FROM {table} ORDER BY ALL").to_arrow_table()

    def columns(self, table: str) -> str:
        """The names of its columns."""
        return ", ".join(self._connection.sql(f"FROM {table}").columns)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
