"""Views written as Ibis expressions: an expression becomes SQL text when it is declared, and is a view like any other.

The tables of an expression are those that `Pipeline.ibis` gave; it reads nothing else. Ibis runs nothing. Columns are
told to Ibis as nullable even where a contract refuses NULL: it takes the result of `max(where=...)` or `lag()` over a
column that cannot be NULL for one that cannot be NULL either, and then leaves out a `fill_null` over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.errors import DeclarationError, Where

if TYPE_CHECKING:
    from ibis.expr.types import Table as Table

_INSTALL = "pip install 'penstock[ibis]'"


def ibis_table(name: str, columns: Sequence[tuple[str, str]], where: Where) -> Table:
    """The relation as an unbound Ibis table. columns: names and DuckDB types.

    Raises:
        DeclarationError: PS-DECL-018, Ibis is not installed.
    """
    try:
        import ibis
        from ibis.backends.sql.datatypes import DuckDBType
    except ImportError as problem:
        raise DeclarationError(
            "PS-DECL-018",
            f"the Ibis table of {name} cannot be made",
            where=where,
            expected="the package ibis-framework",
            got=str(problem),
            hint=_INSTALL,
        ) from None
    return ibis.table({column: DuckDBType.from_string(kind) for column, kind in columns}, name=name)


def view_sql(name: str, expression: object, tables: Mapping[str, Table], where: Where) -> str:
    """The SQL of the view's expression. tables: those of the pipeline, by name.

    Raises:
        DeclarationError: PS-DECL-003 (it reads another table), PS-DECL-017 (it cannot be a view).
    """
    if type(expression).__module__.partition(".")[0] != "ibis":
        raise _no_view(name, where, "SQL text, or an Ibis table expression", type(expression).__name__)
    import ibis
    from ibis.common.exceptions import IbisError

    if not isinstance(expression, ibis.expr.types.Table):
        kind = type(expression).__name__
        raise _no_view(name, where, "an Ibis table expression", kind, "a column or a scalar is a table by .as_table()")
    for mistake in _mistakes(name, expression, tables, where):
        raise mistake
    try:
        return str(ibis.to_sql(expression, dialect="duckdb"))
    except (IbisError, NotImplementedError, ValueError) as problem:
        raise _no_view(name, where, "an expression that Ibis can write in DuckDB's SQL", str(problem)) from None


def _mistakes(name: str, expression: Table, tables: Mapping[str, Table], where: Where) -> Iterator[DeclarationError]:
    """What the expression holds that a view cannot."""
    import ibis.expr.operations as ops

    known = {table.op() for table in tables.values()}
    told = ops.PhysicalTable, ops.SQLQueryResult, ops.SQLStringView, ops.ScalarParameter, ops.ScalarUDF, ops.AggUDF
    for node in expression.op().find(told):
        if isinstance(node, ops.ScalarParameter):
            yield _no_view(
                name, where, "no parameters", "ibis.param(...)", "a view in SQL can read a parameter, as $name"
            )
        elif isinstance(node, ops.ScalarUDF | ops.AggUDF):
            if node.__input_type__.name != "BUILTIN":
                yield _no_view(
                    name,
                    where,
                    "functions that the engine knows",
                    f"{node.__func_name__}, a function of Ibis",
                    "declare it with @ps.function, and name it to Ibis with @ibis.udf.scalar.builtin",
                )
        elif node not in known:
            yield _other_table(
                name, getattr(node, "name", type(node).__name__), isinstance(node, ops.UnboundTable), where
            )


def _other_table(name: str, table: str, unbound: bool, where: Where) -> DeclarationError:
    return DeclarationError(
        "PS-DECL-003",
        f"view {name}: its expression reads {table}, which is no table of this pipeline",
        where=where,
        expected="tables that pipeline.ibis(...) gave",
        got=f"a table {table} of one's own" if unbound else f"{table}, which holds rows of its own",
        hint=f'pipeline.ibis("{table}")' if unbound else "declare what it holds as a source: pipeline.reference(...)",
    )


def _no_view(name: str, where: Where, expected: str, got: str, hint: str = "") -> DeclarationError:
    return DeclarationError(
        "PS-DECL-017",
        f"view {name}: this expression cannot be a view",
        where=where,
        expected=expected,
        got=got,
        hint=hint,
    )
