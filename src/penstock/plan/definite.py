"""Unstated order made definite by the values themselves (semantics V4).

Two batch runs of one query may differ only where it picks or orders rows without saying how. Each such place gets an
order over all that it can see, so that every engine, every epoch split and the oracle give one answer:

- `LIMIT` and `OFFSET` sort by the stated order, then by all output columns;
- order-dependent aggregates sort their argument's values, after the stated order;
- window functions that number or pick rows break ties by all columns of the row.
"""

from __future__ import annotations

from sqlglot import exp

_PICKING = {"first", "last", "any_value", "arbitrary", "first_value", "last_value", "mode"}
_BY_VALUE = {"arg_max", "arg_min", "argmax", "argmin", "max_by", "min_by", "arg_max_null", "arg_min_null"}
_NUMBERING = (exp.RowNumber, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue, exp.Ntile)


def make_definite(tree: exp.Expr) -> tuple[exp.Expr, tuple[str, ...]]:
    """A copy of the tree with a total order wherever order matters, and a sentence for each place changed."""
    tree = tree.copy()
    notes: list[str] = []
    for query in list(tree.find_all(exp.Query)):
        if isinstance(query, exp.Subquery):
            continue
        _limit(query, notes)
        if isinstance(query, exp.Select):
            _distinct_on(query, notes)
    for aggregate in list(tree.find_all(exp.AggFunc, exp.Anonymous)):
        _aggregate(aggregate, notes)
    for window in list(tree.find_all(exp.Window)):
        _window(window, notes)
    return tree, tuple(dict.fromkeys(notes))


def _limit(query: exp.Query, notes: list[str]) -> None:
    if query.args.get("limit") is None and query.args.get("offset") is None:
        return
    order = query.args.get("order")
    if order is None:
        query.set("order", exp.Order(expressions=[exp.Ordered(this=exp.Var(this="ALL"), nulls_first=False)]))
        notes.append("LIMIT without ORDER BY takes the first rows by all columns")
        return
    if len(order.expressions) == 1 and order.expressions[0].this.name.upper() == "ALL":
        return
    positions = _output_positions(query)
    if positions is None:
        return
    stated = {o.this.sql() for o in order.expressions}
    for position in positions:
        if str(position) not in stated:
            order.append("expressions", exp.Ordered(this=exp.Literal.number(position), nulls_first=False))
    notes.append("ties at the LIMIT are broken by all columns")


def _output_positions(query: exp.Query) -> list[int] | None:
    if any(isinstance(e, exp.Star) or e.is_star for e in query.selects):
        return None
    return list(range(1, len(query.selects) + 1))


def _distinct_on(query: exp.Select, notes: list[str]) -> None:
    distinct = query.args.get("distinct")
    if distinct is None or distinct.args.get("on") is None:
        return
    positions = _output_positions(query)
    order = query.args.get("order") or exp.Order(expressions=[])
    if positions is None:
        return
    for position in positions:
        order.append("expressions", exp.Ordered(this=exp.Literal.number(position), nulls_first=False))
    query.set("order", order)
    notes.append("DISTINCT ON keeps the first row by the stated order, then by all columns")


def _aggregate(node: exp.Expr, notes: list[str]) -> None:
    if isinstance(node.parent, exp.Window) or (
        isinstance(node.parent, exp.Filter) and isinstance(node.parent.parent, exp.Window)
    ):
        return
    name = node.name.lower() if isinstance(node, exp.Anonymous) else _function_name(node)
    rendered = node.sql("duckdb").split("(", 1)[0].lower()
    lists = isinstance(node, exp.ArrayAgg | exp.GroupConcat)
    if lists or {name, rendered} & (_PICKING | _BY_VALUE):
        _sort_argument(node, notes, rendered)


def _function_name(node: exp.Expr) -> str:
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def _sort_argument(node: exp.Expr, notes: list[str], name: str) -> None:
    """Append the first argument's value to the aggregate's ORDER BY, which the syntax tree keeps on its last one."""
    arguments = _arguments(node)
    if not arguments:
        return
    first, last = arguments[0], arguments[-1]
    if first is last and isinstance(first, exp.Order):
        first = first.this
    value = first.expressions[-1] if isinstance(first, exp.Distinct) else first
    key = exp.Ordered(this=value.copy(), nulls_first=False)
    if not isinstance(last, exp.Order):
        last.replace(exp.Order(this=last.copy(), expressions=[key]))
    elif value.sql("duckdb") not in {o.this.sql("duckdb") for o in last.expressions}:
        last.append("expressions", key)
    else:
        return
    notes.append(f"{name} takes its values in the stated order, then by value")


def _arguments(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    if isinstance(node, exp.ArgMax | exp.ArgMin):
        return [a for a in (node.this, node.expression, node.args.get("count")) if a is not None]
    return [node.this] if node.this is not None else []


def _window(window: exp.Window, notes: list[str]) -> None:
    function = window.this.this if isinstance(window.this, exp.Filter | exp.IgnoreNulls) else window.this
    frame = window.args.get("spec")
    by_rows = frame is not None and frame.args.get("kind") == "ROWS"
    if not (isinstance(function, _NUMBERING) or by_rows):
        return
    select = window.find_ancestor(exp.Select)
    if select is None:
        return
    columns = list(dict.fromkeys(c.sql("duckdb") for c in select.find_all(exp.Column) if not c.is_star))
    order = window.args.get("order") or exp.Order(expressions=[])
    stated = {o.this.sql("duckdb") for o in order.expressions}
    for column in columns:
        if column not in stated:
            order.append("expressions", exp.Ordered(this=exp.maybe_parse(column, dialect="duckdb"), nulls_first=False))
    window.set("order", order)
    notes.append("rows that tie in a window are told apart by all columns that the query reads")
