"""The clauses of a qualified SELECT as the planner reads them; what it cannot take apart is opaque.

Nothing here guesses: a clause that is not recognised raises `Opaque` with the reason, and the query goes to refresh,
which is always right.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from penstock.plan.blocks import Input, Relation, quote
from penstock.plan.parse import DIALECT, function_names


class Opaque(Exception):
    """This query goes to refresh; the message is the reason that `explain` shows."""


def refuse(select: exp.Select) -> None:
    for part, reason in (
        ("limit", "LIMIT"),
        ("offset", "OFFSET"),
        ("qualify", "QUALIFY"),
        ("windows", "WINDOW"),
        ("laterals", "LATERAL"),
        ("sample", "SAMPLE"),
        ("pivots", "PIVOT"),
        ("with_", "WITH"),
    ):
        if select.args.get(part):
            raise Opaque(reason)
    for node in select.walk():
        if node is select:
            continue
        if isinstance(node, exp.Query | exp.Subquery):
            raise Opaque("a subquery")
        if isinstance(node, exp.Window):
            raise Opaque("a window function")
        if isinstance(node, exp.Explode) and _is_projected(select, node):
            continue
        if isinstance(node, exp.Unnest | exp.Explode | exp.Lateral | exp.Values | exp.TableSample | exp.Pivot):
            raise Opaque("unnest" if isinstance(node, exp.Unnest | exp.Explode) else type(node).__name__.lower())
        if isinstance(node, exp.Anonymous) and node.name.lower() in ("unnest", "grouping", "grouping_id"):
            raise Opaque(node.name.lower())


def _is_projected(select: exp.Select, node: exp.Expr) -> bool:
    """Whether an unnest is in the list of a SELECT without groups: it gives rows for each row on its own."""
    if select.args.get("group") is not None or select.args.get("having") is not None:
        return False
    return any(node is inner for projection in select.expressions for inner in projection.find_all(exp.Explode))


def find_sources(select: exp.Select, relations: Mapping[str, Relation]) -> list[tuple[exp.Table, Input]]:
    from_ = select.args.get("from_")
    if from_ is None:
        raise Opaque("a SELECT without FROM")
    found = [(from_.this, _input(from_.this, relations, "from", None))]
    for join in select.args.get("joins") or []:
        side, kind, method = join.side.upper(), join.kind.upper(), (join.method or "").upper()
        if method or side not in ("", "LEFT") or kind not in ("", "INNER", "CROSS", "OUTER", "SEMI", "ANTI"):
            raise Opaque(" ".join(word for word in (method, side, kind, "JOIN") if word))
        if join.args.get("using"):
            raise Opaque("JOIN ... USING that could not be expanded")
        on = join.args.get("on")
        how = kind.lower() if kind in ("SEMI", "ANTI") else "left" if side == "LEFT" else "inner"
        condition = on.sql(DIALECT) if on is not None else None
        found.append((join.this, _input(join.this, relations, how, condition)))
    aliases = [i.alias.lower() for _, i in found]
    if len(set(aliases)) != len(aliases):
        raise Opaque("two inputs with one alias")
    _refuse_whole_rows(select, [i for _, i in found], relations)
    return found


def _refuse_whole_rows(select: exp.Select, inputs: list[Input], relations: Mapping[str, Relation]) -> None:
    """An alias used as a value is the whole row: a delta's rows have hidden columns, which it would show."""
    names = {c.lower() for i in inputs for c in relations[i.relation.lower()].columns}
    aliases = {i.alias.lower() for i in inputs}
    for column in select.find_all(exp.Column):
        if column.name.lower() in aliases and column.name.lower() not in names:
            raise Opaque("a whole row as a value")
    if select.find(exp.TableColumn) is not None:
        raise Opaque("a whole row as a value")


def _input(table: exp.Expr, relations: Mapping[str, Relation], how: str, on: str | None) -> Input:
    if not isinstance(table, exp.Table) or table.args.get("db") or table.name.lower() not in relations:
        raise Opaque(f"{type(table).__name__.lower()} in FROM")
    if table.args.get("joins") or table.args.get("sample") or table.args.get("pivots"):
        raise Opaque("a nested join")
    alias = table.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        raise Opaque("a column list in an alias")
    relation = relations[table.name.lower()]
    match how:
        case "from":
            return Input(relation.name, table.alias_or_name, "from", None)
        case "left" | "semi" | "anti":
            return Input(relation.name, table.alias_or_name, how, on or "TRUE")
        case _:
            return Input(relation.name, table.alias_or_name, "inner", on or "TRUE")


def is_plain(select: exp.Select, aggregates: frozenset[str]) -> bool:
    """Whether the rows are those of FROM and WHERE, each projected."""
    other = (
        "distinct",
        "group",
        "having",
        "qualify",
        "windows",
        "order",
        "limit",
        "offset",
        "with_",
        "laterals",
        "pivots",
    )
    if any(select.args.get(part) for part in (*other, "sample")):
        return False
    if any(isinstance(e, exp.Star | exp.Columns) or e.is_star for e in select.expressions):
        return False
    return not is_grouped(select, aggregates) and not any(e.find(exp.Window) for e in select.expressions)


def is_grouped(select: exp.Select, aggregates: frozenset[str]) -> bool:
    """Whether its rows are those of groups; without keys, the one row of all rows."""
    if select.args.get("group") is not None or select.args.get("having") is not None:
        return True
    return any(aggregates_in(e, aggregates) for e in select.expressions)


def conditions_of(select: exp.Select) -> tuple[str, ...]:
    where = select.args.get("where")
    if where is None:
        return ()
    parts = where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    return tuple(part.sql(DIALECT) for part in parts)


def having_of(select: exp.Select) -> list[exp.Expr]:
    having = select.args.get("having")
    return [having.this] if having is not None else []


def aggregates_in(expression: exp.Expr, names: frozenset[str]) -> list[exp.Expr]:
    """The outermost aggregate calls in `expression`, each with its FILTER."""
    found: list[exp.Expr] = []

    def visit(node: exp.Expr) -> None:
        if isinstance(node, exp.Query):
            return
        if isinstance(node, exp.Window):
            # the function of a window is no aggregate of a group; what it reads may hold some
            for part in (
                *_function_of(node).iter_expressions(),
                *(p for p in node.iter_expressions() if p is not node.this),
            ):
                visit(part)
            return
        if isinstance(node, exp.Filter):
            found.append(node)
            return
        # AND and OR are functions to the parser, and begin with the text of their first operand.
        called = function_names(node) if isinstance(node, exp.Func) and not isinstance(node, exp.Connector) else set()
        is_aggregate = isinstance(node, exp.AggFunc) or called & names
        if is_aggregate:
            found.append(node)
            return
        for child in node.iter_expressions():
            visit(child)

    visit(expression)
    return found


def _function_of(window: exp.Window) -> exp.Expr:
    function = window.this
    while isinstance(function, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        function = function.this
    assert isinstance(function, exp.Expr)
    return function


def from_clause(sources: list[tuple[exp.Table, Input]], conditions: tuple[str, ...]) -> str:
    """FROM and WHERE as written, over relations by name."""
    parts = ["FROM"]
    for _, source in sources:
        reference = f"{quote(source.relation)} AS {quote(source.alias)}"
        match source.join:
            case "from":
                parts.append(reference)
            case "inner":
                parts.append(f"JOIN {reference} ON {source.on}")
            case _:
                parts.append(f"{source.join.upper()} JOIN {reference} ON {source.on}")
    if conditions:
        parts.append("WHERE " + " AND ".join(f"({c})" for c in conditions))
    return " ".join(parts)
