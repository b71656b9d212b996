"""Applying a weighted delta to stored rows that may repeat.

Invariant: weights are +1 and -1, and the delta's net effect never deletes a row more often than the table holds it. The
terms of a join may add and take the same row, in any order: so insert first, then delete.
"""

from __future__ import annotations

from penstock.plan.blocks import Field, column_list, quote, same


def delete_by_row_id(table: str, row: str, relation: str) -> str:
    """Delete the rows whose ids are in the column `row` of `relation` (SQL; it holds no NULL).

    The sums keep DuckDB 2.0 from pushing a filter on the row id into the scan, which over rows that were inserted in
    the same transaction reads and destroys memory that is not theirs (decision 0025).
    """
    return f"DELETE FROM {table} WHERE rowid + 1 IN (SELECT {row} + 1 FROM {relation})"


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
    doomed = (
        f"(SELECT t.rowid AS _ps_r, row_number() OVER (PARTITION BY {partition} ORDER BY t.rowid) AS _ps_n, "
        f"g._ps_gone "
        f'FROM {table} AS t JOIN (SELECT {columns}, count(*) AS _ps_gone FROM {delta} WHERE "_ps_w" < 0 GROUP BY '
        f"ALL) AS g "
        f"ON {same('t', 'g', loose)}) WHERE _ps_n <= _ps_gone"
    )
    return delete_by_row_id(table, "_ps_r", doomed)


def consolidated_sql(delta: str, fields: tuple[Field, ...]) -> str:
    """The delta's net effect: each row once, with its summed weight, without those that cancel out."""
    columns = column_list([f.name for f in fields])
    return (
        f'SELECT * FROM (SELECT {columns}, sum("_ps_w")::INTEGER AS "_ps_w" FROM {delta} GROUP BY {columns}) '
        f'WHERE "_ps_w" <> 0'
    )
