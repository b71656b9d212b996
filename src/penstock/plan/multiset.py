"""Applying a weighted delta to stored rows that may repeat.

Invariant: a delta never deletes a row more often than the table holds it.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, column_list, quote, same


def insert_sql(table: str, delta: str, fields: tuple[Field, ...], weighted: bool) -> str:
    """The rows that the delta adds."""
    columns = column_list([f.name for f in fields])
    condition = ' WHERE "_ps_w" > 0' if weighted else ""
    return f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {delta}{condition}"


def delete_sql(table: str, delta: str, fields: tuple[Field, ...]) -> str:
    """Take as many copies of each row away as the delta says."""
    columns = column_list([f.name for f in fields])
    loose = [Field(f.name, f.type) for f in fields]
    partition = ", ".join(f"t.{quote(f.name)}" for f in fields)
    return (
        f"DELETE FROM {table} WHERE rowid IN ("
        f"SELECT r FROM (SELECT t.rowid AS r, row_number() OVER (PARTITION BY {partition} ORDER BY t.rowid) AS n, g.n AS gone "
        f'FROM {table} AS t JOIN (SELECT {columns}, count(*) AS n FROM {delta} WHERE "_ps_w" < 0 GROUP BY ALL) AS g '
        f"ON {same('t', 'g', loose)}) WHERE n <= gone)"
    )


def consolidated_sql(delta: str, fields: tuple[Field, ...]) -> str:
    """The delta's net effect: each row once, with its summed weight, without those that cancel out."""
    columns = column_list([f.name for f in fields])
    return (
        f'SELECT * FROM (SELECT {columns}, sum("_ps_w")::INTEGER AS "_ps_w" FROM {delta} GROUP BY {columns}) '
        f'WHERE "_ps_w" <> 0'
    )
