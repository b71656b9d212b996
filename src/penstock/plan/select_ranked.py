"""A SELECT with window functions, taken apart: what it computes per row or group, and the windows over that.

The query below computes the partition keys (`_ps_k0`...) and every column, group key or aggregate that the windows and
outputs read (`_ps_c0`...); the ranked block is SQL over these. Where all window functions share partition keys, none of
them looks beyond the rows that agree in these, whatever else they partition by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlglot import exp

from penstock.plan.blocks import Field, Order, RankedBlock, Relation, Top, Window, quote
from penstock.plan.clauses import Opaque, aggregates_in
from penstock.plan.closings import fill
from penstock.plan.looking_back import first_order, is_sorted
from penstock.plan.noise import is_noisy
from penstock.plan.parse import DIALECT
from penstock.plan.rewrite.grouping_sets import is_grouping, keys_of_sets

_PLACES = (exp.RowNumber, exp.Rank, exp.DenseRank)
_WRAPPERS = (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)


@dataclass(frozen=True)
class Split:
    """inner: the query below, whose columns are named `_ps_...`; outputs, qualify: over its columns.

    keys: its columns that are the partition keys. order: the one that all windows order by first and look back along,
    with its direction.
    """

    inner: exp.Select
    outputs: tuple[exp.Expr, ...]
    qualify: exp.Expr | None
    keys: tuple[str, ...]
    order: tuple[str, exp.Ordered] | None


def own_windows(select: exp.Select) -> list[exp.Window]:
    """The window functions of the SELECT itself, not of queries inside it."""
    roots = [*select.expressions, *([select.args["qualify"]] if select.args.get("qualify") else [])]
    return [node for root in roots for node in _own(root) if isinstance(node, exp.Window)]


def split_windows(select: exp.Select, aggregates: frozenset[str]) -> Split:
    """Take a SELECT with window functions or QUALIFY apart; raises Opaque."""
    if select.args.get("windows"):
        raise Opaque("WINDOW")
    projections = [e.unalias() for e in select.expressions]
    qualify = select.args["qualify"].this if select.args.get("qualify") else None
    if any(isinstance(e, exp.Columns) or e.is_star for e in projections):
        raise Opaque("its columns cannot be named one by one")
    read = [*projections, *([qualify] if qualify is not None else [])]
    clause = select.args.get("group")
    grouped = clause is not None or any(_plain_aggregates(e, aggregates) for e in read)
    sets = clause if clause is not None and clause.find(exp.GroupingSets, exp.Cube, exp.Rollup) else None
    group = keys_of_sets(sets) if sets is not None else _written_group(select, projections) if grouped else []
    atoms = _Atoms(aggregates if grouped else None, group)
    keys = tuple(atoms.named(key, "k") for key in _common_partition(own_windows(select)))
    first = first_order(own_windows(select)) if not keys else None
    order = (atoms.named(first.this, "o"), first) if first is not None else None
    for key in group:
        atoms.named(key, "c")
    outputs = tuple(atoms.over(p) for p in projections)
    condition = atoms.over(qualify) if qualify is not None else None
    inner = select.copy()
    for part in ("qualify", "order"):
        inner.set(part, None)
    if group and sets is None:
        inner.set("group", exp.Group(expressions=[key.copy() for key in group]))
    inner.set("expressions", [exp.alias_(e, n, quoted=True) for n, e in atoms.columns] or [exp.alias_("1", "_ps_one")])
    return Split(inner, outputs, condition, keys, order)


def ranked_block(name: str, fields: tuple[Field, ...], split: Split, below: Relation) -> RankedBlock:
    """The block of a split SELECT over its query below."""
    if below.transient:
        raise Opaque("window functions over what passes")
    by_name = {f.name: f for f in below.fields}
    keys = tuple(by_name[k] for k in split.keys)
    outputs = tuple(
        (f.name, o.sql(DIALECT) if isinstance(o, exp.Column) else f"CAST({o.sql(DIALECT)} AS {f.type})")
        for f, o in zip(fields, split.outputs, strict=True)
    )
    closed = next((c for c in below.closings if c.column in split.keys and not c.plus), None)
    window = Window(closed.column, fill(closed.end, quote(closed.column)), "", below.streams) if closed else None
    top = _top(split)
    relation = Relation(
        name,
        tuple(replace(f, nullable=_nullable(o, by_name)) for f, o in zip(fields, split.outputs, strict=True)),
        key=_key(fields, split, below, top),
        streams=below.streams,
        closings=tuple(
            replace(c, column=f.name)
            for f, o in zip(fields, split.outputs, strict=True)
            for c in below.closings
            if window is not None and isinstance(o, exp.Column) and o.name == c.column and c.column in split.keys
        ),
    )
    noisy = tuple(f.name for f, o in zip(fields, split.outputs, strict=True) if f.type == "DOUBLE" and is_noisy(o))
    qualify = split.qualify.sql(DIALECT) if split.qualify is not None else None
    order = _order(split, by_name) if top is None else None
    return RankedBlock(relation, below.name, below.fields, keys, outputs, qualify, top, order, window, noisy)


def _order(split: Split, below: dict[str, Field]) -> Order | None:
    if split.order is None or not is_sorted(below[split.order[0]].type):
        return None
    name, ordered = split.order
    return Order(below[name], bool(ordered.args.get("desc")), bool(ordered.args.get("nulls_first")))


def _nullable(output: exp.Expr, below: dict[str, Field]) -> bool:
    return not isinstance(output, exp.Column) or below[output.name].nullable


# -- the query below ---------------------------------------------------------------------------------------------------


class _Atoms:
    """The columns of the query below: what is read as it is, once each, by its SQL.

    aggregates: the names of aggregates in a grouped SELECT, None in one without groups.
    """

    def __init__(self, aggregates: frozenset[str] | None, group: list[exp.Expr]) -> None:
        self._aggregates = aggregates
        self._group = {key.sql(DIALECT) for key in group}
        self._names: dict[str, str] = {}
        self.columns: list[tuple[str, exp.Expr]] = []

    def named(self, expression: exp.Expr, letter: str) -> str:
        sql = expression.sql(DIALECT)
        if sql not in self._names:
            self._names[sql] = f"_ps_{letter}{len(self._names)}"
            self.columns.append((self._names[sql], expression.copy()))
        return self._names[sql]

    def over(self, expression: exp.Expr) -> exp.Expr:
        """The expression over the columns of the query below."""
        found = self._visit(expression.copy())
        if any(not c.name.startswith("_ps_") for c in found.find_all(exp.Column)):
            raise Opaque("a column that is neither grouped nor aggregated")
        return found

    def _visit(self, node: exp.Expr) -> exp.Expr:
        known = node.sql(DIALECT) in self._names and not isinstance(node, exp.Identifier)
        if known or self._is_atom(node):
            return exp.column(exp.to_identifier(self.named(node, "c"), quoted=True))
        return self._within(node)

    def _within(self, node: exp.Expr) -> exp.Expr:
        """The node itself stays: the function of a window is none of the groups' aggregates."""
        for key, value in list(node.args.items()):
            visit = self._function if isinstance(node, exp.Window) and key == "this" else self._visit
            if isinstance(value, exp.Expr):
                node.set(key, visit(value))
            elif isinstance(value, list):
                node.set(key, [self._visit(v) if isinstance(v, exp.Expr) else v for v in value])
        return node

    def _function(self, node: exp.Expr) -> exp.Expr:
        if isinstance(node, _WRAPPERS):
            for key, value in list(node.args.items()):
                if isinstance(value, exp.Expr):
                    node.set(key, self._function(value) if key == "this" else self._visit(value))
            return node
        return self._within(node)

    def _is_atom(self, node: exp.Expr) -> bool:
        if any(isinstance(n, exp.Window) for n in _own(node)):
            return False
        if node.find(exp.Query, exp.Lambda) is not None:
            return True
        if self._aggregates is None:
            return isinstance(node, exp.Column)
        if is_grouping(node):
            return True
        return node.sql(DIALECT) in self._group or aggregates_in(node, self._aggregates)[:1] == [node]


def _own(node: exp.Expr) -> Iterator[exp.Expr]:
    """The node and what is below it, without the queries in it."""
    yield node
    for child in node.iter_expressions():
        if not isinstance(child, exp.Query):
            yield from _own(child)


def _plain_aggregates(expression: exp.Expr, names: frozenset[str]) -> bool:
    """Whether there is an aggregate that is not the function of a window."""
    windows = [n for n in _own(expression) if isinstance(n, exp.Window)]
    functions = {id(_function_of(w)) for w in windows} | {id(w.this) for w in windows}
    for node in _own(expression):
        if id(node) not in functions and aggregates_in(node, names)[:1] == [node] and not isinstance(node, exp.Filter):
            return True
    return False


def _function_of(window: exp.Window) -> exp.Expr:
    function = window.this
    while isinstance(function, _WRAPPERS):
        function = function.this
    return function  # type: ignore[no-any-return]


def _written_group(select: exp.Select, projections: list[exp.Expr]) -> list[exp.Expr]:
    """The group keys, without ordinals: the query below has other columns."""
    group = select.args.get("group")
    if group is None:
        return []
    if group.args.get("all") or group.find(exp.Tuple):
        raise Opaque("window functions over GROUP BY ALL or GROUP BY of tuples")
    keys: dict[str, exp.Expr] = {}
    for written in group.expressions:
        key = written.unnest()
        if isinstance(key, exp.Literal) and not key.is_string:
            key = projections[int(key.this) - 1]
        keys[key.sql(DIALECT)] = key
    return list(keys.values())


def _common_partition(windows: list[exp.Window]) -> list[exp.Expr]:
    """What all windows partition by."""
    sets = [{e.sql(DIALECT): e for e in w.args.get("partition_by") or []} for w in windows]
    return [e for sql, e in sets[0].items() if all(sql in other for other in sets)] if sets else []


# -- top rows ----------------------------------------------------------------------------------------------------------


def _top(split: Split) -> Top | None:
    """The first places that decide alone: the SELECT has one window function, a rank that QUALIFY bounds."""
    if split.qualify is None:
        return None
    roots = [*split.outputs, split.qualify]
    windows = {w.sql(DIALECT): w for root in roots for w in _own(root) if isinstance(w, exp.Window)}
    if len(windows) != 1:
        return None
    sql, window = next(iter(windows.items()))
    if not isinstance(window.this, _PLACES):
        return None
    bounds = [b for part in _conjuncts(split.qualify) if (b := _bound(part, sql)) is not None]
    return Top(sql, max(0, min(bounds))) if bounds else None


def _conjuncts(condition: exp.Expr) -> list[exp.Expr]:
    bare = condition.unnest()
    return [c for part in bare.flatten() for c in _conjuncts(part)] if isinstance(bare, exp.And) else [bare]


def _bound(condition: exp.Expr, place: str) -> int | None:
    """The last place that the condition lets through, None where it bounds none."""
    match condition:
        case exp.Between() if condition.this.sql(DIALECT) == place:
            return _integer(condition.args["high"])
        case exp.LTE() | exp.LT() | exp.EQ() if condition.this.sql(DIALECT) == place:
            found = _integer(condition.expression)
        case exp.GTE() | exp.GT() | exp.EQ() if condition.expression.sql(DIALECT) == place:
            found = _integer(condition.this)
        case _:
            return None
    strict = isinstance(condition, exp.LT | exp.GT)
    return found - 1 if found is not None and strict else found


def _integer(node: exp.Expr) -> int | None:
    text = node.name if isinstance(node, exp.Literal) and not node.is_string else ""
    return int(text) if text.isdigit() else None


def _key(fields: tuple[Field, ...], split: Split, below: Relation, top: Top | None) -> tuple[str, ...]:
    """The partition where it has one row, else the key of the rows below, else partition and row number (V5)."""
    shown = {o.sql(DIALECT): f.name for f, o in zip(fields, split.outputs, strict=True)}
    windows = {w.sql(DIALECT): w for o in split.outputs for w in _own(o) if isinstance(w, exp.Window)}

    def named(columns: tuple[str, ...]) -> tuple[str, ...]:
        quoted = [quote(c) for c in columns]
        return tuple(shown[c] for c in quoted) if columns and all(c in shown for c in quoted) else ()

    if top is not None and top.at_most == 1 and "ROW_NUMBER" in top.place.upper():
        return named(split.keys)
    if found := named(below.key):
        return found
    for sql, window in windows.items():
        partition = [e.sql(DIALECT) for e in window.args.get("partition_by") or []]
        if isinstance(window.this, exp.RowNumber) and sql in shown and all(e in shown for e in partition):
            return (*(shown[e] for e in partition), shown[sql])
    return ()
