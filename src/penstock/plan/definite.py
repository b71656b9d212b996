"""Unstated order made definite by the values themselves (semantics V4).

Two batch runs of one query may differ only where it picks or orders rows without saying how. Each such place gets an
order over all that it can see, so that every engine, every epoch split and the oracle give one answer:

- `LIMIT`, `OFFSET`, `DISTINCT ON` and `ARRAY(...)` sort by the stated order, then by all output columns;
- order-dependent aggregates sort their argument's values, after the stated order;
- window functions that number or pick rows break ties by all columns of the row (definite_windows.py);
- an ASOF join meets one row per key and time: the first by all columns.

Rows that agree in all that a query reads are the same to it, so their order says nothing. Where no order can be written
into the query, it is refused (`Indefinite`).
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.definite_windows import complete_windows
from penstock.plan.ordering import Indefinite, add_keys, is_picking, sort_argument


def make_definite(tree: exp.Expr) -> tuple[exp.Expr, tuple[str, ...]]:
    """A copy of the tree with a total order wherever order matters, and a sentence for each place changed.

    Raises:
        Indefinite: a place cannot be given one.
    """
    tree = tree.copy()
    notes: list[str] = []
    for query in list(tree.find_all(exp.Query)):
        if isinstance(query, exp.Subquery):
            continue
        _limit(query, notes)
        _array(query, notes)
        if isinstance(query, exp.Select):
            _distinct_on(query, notes)
            _asof(query, notes)
    for aggregate in list(tree.find_all(exp.AggFunc, exp.Anonymous)):
        _aggregate(aggregate, notes)
    for select in list(tree.find_all(exp.Select)):
        complete_windows(select, notes)
    return tree, tuple(dict.fromkeys(notes))


def _limit(query: exp.Query, notes: list[str]) -> None:
    if query.args.get("limit") is None and query.args.get("offset") is None:
        return
    if query.args.get("order") is None:
        query.set("order", exp.Order(expressions=[exp.Ordered(this=exp.Var(this="ALL"), nulls_first=False)]))
        notes.append("LIMIT without ORDER BY takes the first rows by all columns")
    elif _complete(query):
        notes.append("ties at the LIMIT are broken by all columns")


def _array(query: exp.Query, notes: list[str]) -> None:
    if not isinstance(query.parent, exp.Array):
        return
    if query.args.get("order") is None:
        query.set("order", exp.Order(expressions=[]))
    if _complete(query):
        notes.append("ARRAY(...) takes its rows in the stated order, then by all columns")


def _distinct_on(query: exp.Select, notes: list[str]) -> None:
    distinct = query.args.get("distinct")
    if distinct is None or distinct.args.get("on") is None:
        return
    if query.args.get("order") is None:
        query.set("order", exp.Order(expressions=[]))
    if _complete(query):
        notes.append("DISTINCT ON keeps the first row by the stated order, then by all columns")


def _complete(query: exp.Query) -> bool:
    """Add all output columns to the ORDER BY; whether it was not by all of them already."""
    order = query.args["order"]
    if len(order.expressions) == 1 and order.expressions[0].this.name.upper() == "ALL":
        return False
    if any(isinstance(e, exp.Star) or e.is_star for e in query.selects):
        return add_keys(order, [exp.Columns(this=exp.Star())])
    return add_keys(order, [exp.Literal.number(n) for n in range(1, len(query.selects) + 1)])


def _aggregate(node: exp.Expr, notes: list[str]) -> None:
    holder = node.parent
    while isinstance(holder, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        holder = holder.parent
    if isinstance(holder, exp.Window) or not is_picking(node):
        return
    name = sort_argument(node)
    if name:
        notes.append(f"{name} takes its values in the stated order, then by value")


# -- ASOF --------------------------------------------------------------------------------------------------------------


def _asof(select: exp.Select, notes: list[str]) -> None:
    for join in select.args.get("joins") or []:
        if (join.method or "").upper() != "ASOF":
            continue
        alias = join.this.alias_or_name
        using = [exp.column(exp.to_identifier(u.name, quoted=True), table=alias) for u in join.args.get("using") or []]
        met = using or _met_by(join.args.get("on"), alias)
        if not met:
            raise Indefinite(
                "an ASOF join whose conditions mix both sides picks among rows that tie",
                "ASOF",
                "compare columns of one side with columns of the other: a.key = b.key AND a.at >= b.at",
            )
        inner = exp.Select(
            expressions=[exp.Star()],
            distinct=exp.Distinct(on=exp.Tuple(expressions=met)),
            from_=exp.From(this=join.this.copy()),
            order=exp.Order(expressions=[exp.Ordered(this=exp.Var(this="ALL"), nulls_first=False)]),
        )
        name = exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
        join.set("this", exp.Subquery(this=inner, alias=name))
        notes.append("an ASOF join meets the first row by all columns of those that tie")


def _met_by(condition: exp.Expr | None, alias: str) -> list[exp.Expr]:
    """What the conditions compare of the right side; empty where it cannot be told from the left."""
    found: list[exp.Expr] = []
    if condition is None:
        return found
    whole = condition.unnest()
    for part in whole.flatten() if isinstance(whole, exp.And) else [whole]:
        sides = [part.this, part.expression] if isinstance(part, exp.Predicate | exp.Binary) else []
        mine = [s for s in sides if s is not None and _only(s, alias)]
        if len(sides) != 2 or len(mine) != 1:
            return []
        found.append(mine[0].copy())
    return found


def _only(side: exp.Expr, alias: str) -> bool:
    tables = {column.table.lower() for column in side.find_all(exp.Column)}
    return tables == {alias.lower()}
