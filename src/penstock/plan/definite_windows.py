"""Window functions made definite: ties are broken, and what is picked or listed is sorted (semantics V4).

- Functions of a row's position (row_number, lag, lead, ntile) and ROWS frames sort their window by the stated order,
  then by all columns of the row that the query reads.
- Lists and picks over other frames keep their window as it is, for more keys would change who is in the frame; they
  sort what they take by the window's order, then by value.
- rank and its like, and sums over RANGE frames, treat rows that tie alike: nothing is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlglot import exp

from penstock.plan.ordering import Indefinite, add_keys, is_picking, sort_argument

_POSITIONAL = (exp.RowNumber, exp.Lag, exp.Lead, exp.Ntile)
_ALIKE = (exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist)


def complete_windows(select: exp.Select, notes: list[str]) -> None:
    """Make every window function of a SELECT definite, in place.

    Raises:
        Indefinite: one cannot be.
    """
    _inline_names(select)
    windows = [node for node in _own_nodes(select) if isinstance(node, exp.Window)]
    if windows:
        _name_group_keys(select)
    for window in windows:
        _complete(select, window, notes)


def _complete(select: exp.Select, window: exp.Window, notes: list[str]) -> None:
    function = window.this
    while isinstance(function, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        function = function.this
    frame = window.args.get("spec")
    by_rows = frame is not None and frame.args.get("kind") == "ROWS"
    positional = isinstance(function, _POSITIONAL)
    if isinstance(function, exp.Anonymous) and function.name.lower() == "fill":
        raise Indefinite(
            "fill() picks among rows that tie in its order",
            "fill",
            "take the neighbours with lag and lead, and compute the value between them",
        )
    if positional or (by_rows and not isinstance(function, _ALIKE)):
        excluded = frame.text("exclude").upper() if frame is not None and by_rows else ""
        if excluded in ("TIES", "GROUP"):
            raise Indefinite(
                f"a ROWS frame that excludes {excluded} depends on the order of rows that tie",
                "EXCLUDE",
                "use RANGE or GROUPS, or EXCLUDE CURRENT ROW",
            )
        if positional and not by_rows:
            window.set("spec", None)  # A position has no frame, and RANGE would allow one key only.
        order = window.args.get("order") or exp.Order(expressions=[])
        if add_keys(order, _row_keys(select)):
            notes.append("rows that tie in a window are told apart by all columns that the query reads")
        window.set("order", order if order.expressions else None)
    if is_picking(function):
        stated = window.args["order"].expressions if window.args.get("order") else []
        name = sort_argument(function, stated)
        if name:
            notes.append(f"{name} over a window takes its values in the stated order, then by value")


def _row_keys(select: exp.Select) -> list[exp.Expr]:
    """What tells the rows apart that the window functions of a SELECT see: its group keys, else all that it reads."""
    group = select.args.get("group")
    if group is not None:
        return _group_keys(select, group)
    if any(isinstance(n, exp.AggFunc) and _is_plain(n) for n in _own_nodes(select)):
        return []  # Aggregates without keys: there is one row.
    aliases = _aliases(select)
    columns = [n for n in _own_nodes(select) if isinstance(n, exp.Column) and not n.is_star]
    columns += _correlated(select, {alias.lower() for alias in aliases})
    keys: list[exp.Expr] = list({c.sql("duckdb"): c for c in columns}.values())
    if any(isinstance(e, exp.Star) or e.is_star for e in select.expressions):
        keys += [exp.column(exp.to_identifier(alias, quoted=True)) for alias in aliases]
    return keys


def _correlated(select: exp.Select, sources: set[str]) -> Iterator[exp.Column]:
    """The columns of a SELECT's own sources that queries inside its expressions read."""
    own = list(_own_nodes(select))
    for node in [select, *own]:
        for child in node.iter_expressions():
            if not isinstance(child, exp.Query) or isinstance(child, exp.Subquery) or _is_source(child):
                continue
            for inner in child.find_all(exp.Select):
                hidden = {alias.lower() for alias in _aliases(inner)}
                for column in _own_nodes(inner):
                    if isinstance(column, exp.Column) and column.table and column.table.lower() in sources - hidden:
                        yield column


def _is_source(query: exp.Expr) -> bool:
    """Whether a query stands in a FROM clause, where it sees no columns of its neighbours unless it is lateral."""
    holder = query.parent
    while isinstance(holder, exp.Subquery):
        holder = holder.parent
    return isinstance(holder, exp.From | exp.Join | exp.CTE)


def _is_plain(aggregate: exp.Expr) -> bool:
    """An aggregate of the SELECT itself, not the function of a window."""
    node = aggregate.parent
    while isinstance(node, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        node = node.parent
    return not isinstance(node, exp.Window)


def _group_keys(select: exp.Select, group: exp.Group) -> list[exp.Expr]:
    projections = [e.unalias() for e in select.expressions]
    if group.args.get("all"):
        return [p for p in projections if p.find(exp.Column) and not p.find(exp.AggFunc, exp.Window)]
    written = list(group.expressions)
    for part in ("rollup", "cube", "grouping_sets"):
        for sets in group.args.get(part) or []:
            written += sets.expressions
    keys: dict[str, exp.Expr] = {}
    for key in _flattened(written):
        if isinstance(key, exp.Literal) and not key.is_string:
            key = projections[int(key.this) - 1]
        keys[key.sql("duckdb")] = key
    found = list(keys.values())
    if group.find(exp.Rollup, exp.Cube, exp.GroupingSets):
        found.append(exp.Anonymous(this="grouping", expressions=[k.copy() for k in found]))
    return found


def _name_group_keys(select: exp.Select) -> None:
    """GROUP BY ALL takes no columns inside a window, so its keys are written out."""
    group = select.args.get("group")
    if group is None or not group.args.get("all"):
        return
    keys = _group_keys(select, group)
    if keys:
        select.set("group", exp.Group(expressions=[key.copy() for key in keys]))


def _flattened(keys: Sequence[exp.Expr]) -> Iterator[exp.Expr]:
    for key in keys:
        if isinstance(key, exp.Paren):
            yield from _flattened([key.this])
        elif isinstance(key, exp.Tuple | exp.Rollup | exp.Cube | exp.GroupingSets):
            yield from _flattened(key.expressions)
        else:
            yield key


def _aliases(select: exp.Select) -> list[str]:
    places = [select.args["from_"].this] if select.args.get("from_") else []
    places += [join.this for join in select.args.get("joins") or []]
    return [place.alias_or_name for place in places if place.alias_or_name]


def _own_nodes(select: exp.Select) -> Iterator[exp.Expr]:
    """The nodes of a SELECT that are in its own scope: not those of queries inside it."""

    def visit(node: exp.Expr) -> Iterator[exp.Expr]:
        yield node
        for child in node.iter_expressions():
            if isinstance(child, exp.Subquery) or not isinstance(child, exp.Query | exp.CTE):
                yield from visit(child)

    for child in select.iter_expressions():
        if not isinstance(child, exp.Query | exp.With):
            yield from visit(child)


def _inline_names(select: exp.Select) -> None:
    """Write named windows where they are used, so that each can have an order of its own."""
    named = {w.this.name.lower(): w for w in select.args.get("windows") or []}
    if not named:
        return
    for window in named.values():
        _inherit(window, named)
    for window in [node for node in _own_nodes(select) if isinstance(node, exp.Window)]:
        _inherit(window, named)
    select.set("windows", None)


def _inherit(window: exp.Window, named: dict[str, exp.Window]) -> None:
    base = window.args.get("alias")
    if base is None or base.name.lower() not in named:
        return
    window.set("alias", None)
    parent = named[base.name.lower()]
    _inherit(parent, named)
    for part in ("partition_by", "order", "spec"):
        own = parent.args.get(part)
        if not window.args.get(part) and own:
            window.set(part, [e.copy() for e in own] if isinstance(own, list) else own.copy())
