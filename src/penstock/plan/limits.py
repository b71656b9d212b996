"""LIMIT and DISTINCT ON as ranks: the rows of a query, numbered in its order, of which the first ones stay.

    Q ORDER BY o LIMIT n OFFSET m  =  Q, and of it the rows with m < row_number() OVER (ORDER BY o) <= m + n
    SELECT DISTINCT ON (d) ... ORDER BY o  =  the rows with row_number() OVER (PARTITION BY d ORDER BY o) = 1

The order is total by then (plan/definite.py). What is ordered by and is no output is a hidden column of the query below
(`_ps_h0`...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.binder import Binder
from penstock.plan.blocks import Field, Relation
from penstock.plan.clauses import Opaque
from penstock.plan.parse import DIALECT


@dataclass(frozen=True)
class Ranking:
    """below: the query without its limit; of its rows stay those whose number is in (after, upto], None: to the end.

    partition, order: over the columns of `below`; columns: its outputs that are the result's, in order.
    """

    below: exp.Query
    partition: tuple[exp.Expr, ...]
    order: tuple[exp.Ordered, ...]
    after: int
    upto: int | None

    def over(self, name: str, fields: Sequence[Field]) -> exp.Select:
        """The query over the block of `below`, which is called `name`."""
        number: exp.Expr = exp.Window(
            this=exp.RowNumber(),
            partition_by=[p.copy() for p in self.partition],
            order=exp.Order(expressions=[o.copy() for o in self.order]),
            over="OVER",
        )
        bounds: list[exp.Expr] = (
            [] if self.upto is None else [exp.LTE(this=number, expression=exp.Literal.number(self.upto))]
        )
        if self.after or not bounds:
            bounds.append(exp.GT(this=number.copy(), expression=exp.Literal.number(self.after)))
        source = exp.Table(
            this=exp.to_identifier(name, quoted=True),
            alias=exp.TableAlias(this=exp.to_identifier(_ALIAS, quoted=True)),
        )
        return exp.Select(
            expressions=[exp.alias_(_column(f.name), f.name, quoted=True) for f in fields],
            from_=exp.From(this=source),
            qualify=exp.Qualify(this=exp.and_(*bounds)),
        )


_ALIAS = "q"


def is_limited(tree: exp.Query) -> bool:
    return bool(tree.args.get("limit") or tree.args.get("offset"))


def is_distinct_on(tree: exp.Query) -> bool:
    distinct = tree.args.get("distinct")
    return isinstance(distinct, exp.Distinct) and distinct.args.get("on") is not None


def named(tree: exp.Select, relations: Mapping[str, Relation]) -> exp.Select:
    """The SELECT with the columns of its only input in place of a lone star, where they are known."""
    if len(tree.expressions) != 1 or tree.expressions[0] != exp.Star() or tree.args.get("joins"):
        return tree
    place = tree.args["from_"].this if tree.args.get("from_") else None
    if place is None or place.args.get("pivots") or not place.alias_or_name:
        return tree
    if isinstance(place, exp.Table) and place.name.lower() in relations:
        names = list(relations[place.name.lower()].columns)
    elif isinstance(place, exp.Subquery) and isinstance(place.this, exp.Select) and not place.this.is_star:
        names = place.this.named_selects
    else:
        return tree
    table = exp.to_identifier(place.alias_or_name, quoted=True)
    tree = tree.copy()
    columns = [exp.column(exp.to_identifier(n.lower(), quoted=True), table=table.copy()) for n in names]
    tree.set("expressions", [exp.alias_(c, n, quoted=True) for c, n in zip(columns, names, strict=True)])
    return tree


def limit_as_rank(tree: exp.Query, fields: tuple[Field, ...], binder: Binder) -> Ranking:
    """A query with LIMIT or OFFSET as a ranking; raises Opaque."""
    after = _count(tree.args.get("offset"))
    upto = after + _count(tree.args["limit"]) if tree.args.get("limit") else None
    below = tree.copy()
    # The order says which rows DISTINCT ON keeps, too.
    for part in ("limit", "offset", *(() if is_distinct_on(tree) else ("order",))):
        below.set(part, None)
    hidden = _Hidden(below, fields, binder)
    order = _order(tree, hidden, fields)
    return Ranking(hidden.query(), (), order, after, upto)


def distinct_on_as_rank(tree: exp.Select, fields: tuple[Field, ...], binder: Binder) -> Ranking:
    """A SELECT DISTINCT ON as a ranking; raises Opaque."""
    on = tree.args["distinct"].args["on"]
    below = tree.copy()
    for part in ("distinct", "order"):
        below.set(part, None)
    hidden = _Hidden(below, fields, binder)
    partition = tuple(hidden.column(e) for e in (on.expressions if isinstance(on, exp.Tuple) else [on]))
    order = _order(tree, hidden, fields)
    return Ranking(hidden.query(), partition, order, 0, 1)


def _count(part: exp.Expr | None) -> int:
    if part is None:
        return 0
    options = part.args.get("limit_options")
    if options is not None and (options.args.get("percent") or options.args.get("with_ties")):
        raise Opaque("LIMIT of a share, or WITH TIES")
    number = part.args.get("count") if isinstance(part, exp.Fetch) else part.args.get("expression")
    if part.args.get("expressions") or not isinstance(number, exp.Literal) or not number.name.isdigit():
        raise Opaque("a LIMIT that is not a number")
    return int(number.name)


def _order(tree: exp.Query, hidden: _Hidden, fields: tuple[Field, ...]) -> tuple[exp.Ordered, ...]:
    order = tree.args.get("order")
    found: list[exp.Ordered] = []
    for key in order.expressions if order is not None else []:
        whole = isinstance(key.this, exp.Var | exp.Column) and key.this.name.upper() == "ALL"
        for expression in [_column(f.name) for f in fields] if whole else [hidden.column(key.this)]:
            copy = key.copy()
            copy.set("this", expression)
            found.append(copy)
    return tuple(found)


class _Hidden:
    """The query below, with a column more for each thing that is ordered by and is no output."""

    def __init__(self, below: exp.Query, fields: tuple[Field, ...], binder: Binder) -> None:
        self._below, self._fields, self._binder = below, fields, binder
        self._more: list[exp.Expr] = []

    def query(self) -> exp.Query:
        if self._more:
            self._below.set("expressions", [*self._below.expressions, *self._more])
        return self._below

    def column(self, key: exp.Expr) -> exp.Expr:
        """A key of ORDER BY as a column of the query below."""
        outputs = {f.name.lower(): n for n, f in enumerate(self._fields)}
        if isinstance(key, exp.Literal) and not key.is_string:
            return _column(self._fields[int(key.this) - 1].name)
        if isinstance(key, exp.Column) and not key.table and key.name.lower() in outputs:
            return _column(key.name)
        if not isinstance(self._below, exp.Select) or self._below.args.get("distinct") is not None:
            raise Opaque("an ORDER BY that is no column of the result")
        projections = [e.unalias() for e in self._below.expressions]
        if len(projections) != len(self._fields):
            raise Opaque("its columns cannot be named one by one")
        if key in projections:
            return _column(self._fields[projections.index(key)].name)

        inputs = self._inputs() if any(not c.table for c in key.find_all(exp.Column)) else set()

        def resolve(node: exp.Expr) -> exp.Expr:
            # Inside an expression, an input's column goes before an alias.
            alias = isinstance(node, exp.Column) and not node.table and node.name.lower() in outputs.keys() - inputs
            return exp.paren(projections[outputs[node.name.lower()]].copy()) if alias else node

        name = f"_ps_h{len(self._more)}"
        self._more.append(exp.alias_(key.copy().transform(resolve), name, quoted=True))
        return _column(name)

    def _inputs(self) -> set[str]:
        """The columns that the SELECT reads from."""
        parts = {part: self._below.args.get(part) for part in ("with_", "from_", "joins")}
        every = exp.Select(expressions=[exp.Star()], **{k: v for k, v in parts.items() if v}).copy()
        return {f.name.lower() for f in self._binder.describe(every.sql(DIALECT))}


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name.lower(), quoted=True), table=exp.to_identifier(_ALIAS, quoted=True))
