"""Subqueries whose value is read: scalar ones, ARRAY, EXISTS and IN under OR, NOT, CASE or in SELECT, ANY and ALL.

Equations, with Q' and its keys as correlation.py makes them, k its keys and t the row around it:

    scalar (select A from ...)      t left join (select k, A from Q' group by k): A, with its value over nothing
    (select ... order by O limit 1) the scalar (select first(... order by O) from ...)
    array (select X order by O)     coalesce(the scalar (select list(X order by O) ...), [])
    exists Q                        t left join (select distinct k, true as m from Q'): m is not null
    x in Q                          t left join (select distinct k, y, true as m from Q') on x = y: m, then
                                    t left join (select k, count(*), count(y) from Q' group by k):
                                    no row: false; x is null, or a NULL among the rows: null; else false
    (x, z) in Q                     exists Q where x = y and z = w: true; exists Q where each is equal or NULL: null;
                                    else false
    x > any Q, x > all Q            min(y) or max(y) in the same way

A scalar subquery that is no aggregate is joined where a key of its relation is fixed: it has one row at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from penstock.plan.clauses import Opaque, aggregates_in, is_grouped, is_plain
from penstock.plan.made import Made
from penstock.plan.parse import DIALECT
from penstock.plan.rewrite.correlation import Correlated, Key, decorrelate, never_null, told_apart_alike
from penstock.plan.rewrite.made_of import add_join, column, derived, named, where_of
from penstock.plan.rewrite.scopes import free_columns, fresh

# Aggregates that are NULL over no row at all. count is 0; others are not known to this rewrite.
_NULL_OVER_NOTHING = (
    exp.Sum,
    exp.Avg,
    exp.Min,
    exp.Max,
    exp.CountIf,
    exp.LogicalAnd,
    exp.LogicalOr,
    exp.ArrayAgg,
    exp.GroupConcat,
    exp.ArgMax,
    exp.ArgMin,
    exp.First,
    exp.Last,
    exp.AnyValue,
    exp.Median,
    exp.StddevPop,
    exp.StddevSamp,
    exp.Stddev,
    exp.Variance,
    exp.VariancePop,
)


@dataclass(frozen=True)
class Around:
    """The SELECT that subqueries are joined to, and how it was before any was."""

    made: Made
    select: exp.Select
    before: exp.Select

    def join(self, query: exp.Query, word: str, found: Correlated, *, side: str = "", kind: str = "") -> str:
        """Join a subquery with key columns c0, c1, ...; its alias."""
        alias = fresh(self.select, word)
        add_join(self.select, derived(query, alias), found.on(alias), side=side, kind=kind)
        return alias

    def decorrelated(self, query: exp.Select, allowed: frozenset[int] = frozenset()) -> Correlated:
        return decorrelate(self.made, self.before, query, allowed)

    @property
    def aggregates(self) -> frozenset[str]:
        return self.made.binder.aggregates()


def own_subqueries(root: exp.Expr) -> list[exp.Expr]:
    """The expressions with a subquery in the root's own expressions, outermost only, left to right."""
    found: list[exp.Expr] = []

    def visit(node: exp.Expr) -> None:
        if isinstance(node, exp.From | exp.With | exp.Lateral):
            return
        if isinstance(node, exp.Join):
            if node.args.get("on") is not None:
                visit(node.args["on"])
            return
        if _is_subquery(node):
            found.append(node)
            return
        for child in node.iter_expressions():
            visit(child)

    if isinstance(root, exp.Select):
        for child in root.iter_expressions():
            visit(child)
    else:
        visit(root)
    return found


def _is_subquery(node: exp.Expr) -> bool:
    if isinstance(node, exp.In):
        return node.args.get("query") is not None
    if isinstance(node, exp.Array):
        return len(node.expressions) == 1 and isinstance(node.expressions[0], exp.Query)
    if isinstance(node, exp.Binary) and isinstance(node.expression, exp.Any | exp.All):
        return isinstance(node.expression.this, exp.Query)
    return isinstance(node, exp.Exists | exp.Query)


def value_of(around: Around, node: exp.Expr) -> exp.Expr:
    """The node's value over the SELECT with what it needs joined to it; raises Opaque."""
    if isinstance(node, exp.Exists):
        return _exists(around, body(node.this))
    if isinstance(node, exp.Array):
        return _array(around, body(node.expressions[0]))
    if isinstance(node, exp.In):
        left = node.this.unnest()
        if isinstance(left, exp.Tuple):
            return _row_member(around, [_left(around, e) for e in left.copy().expressions], body(node.args["query"]))
        return _member(around, _left(around, node.this), body(node.args["query"]))
    if isinstance(node, exp.Binary):
        return _compared(around, node)
    return scalar(around, body(node))


def body(query: exp.Expr) -> exp.Query:
    """The query without parentheses."""
    while isinstance(query, exp.Subquery) and not any(query.args.get(p) for p in ("with_", "limit", "offset", "order")):
        query = query.this
    if not isinstance(query, exp.Query):
        raise Opaque(f"{type(query).__name__.lower()} as a subquery")
    return query


def _left(around: Around, value: exp.Expr) -> exp.Expr:
    """What is compared with the rows of a subquery, itself without subqueries."""
    if isinstance(value.unnest(), exp.Tuple):
        raise Opaque("several columns compared with a subquery as a value")
    if _is_subquery(value):
        return value_of(around, value)
    for node in own_subqueries(value):
        node.replace(value_of(around, node))
    return value


def _simple(query: exp.Query) -> exp.Select:
    if not isinstance(query, exp.Select):
        if free_columns(query):
            raise Opaque("a correlated set operation")
        raise Opaque("a set operation as a value")
    return query


# -- scalar ------------------------------------------------------------------------------------------------------------


def scalar(around: Around, query: exp.Query) -> exp.Expr:
    """The value of a scalar subquery, NULL where it has no row."""
    select = _simple(query)
    if len(select.expressions) != 1:
        raise Opaque("a scalar subquery of several columns")
    one = _limit_of(select) == 1 and not select.args.get("offset")
    if _is_total(around, select):
        return _total(around, select)
    if one and free_columns(select):
        return _total(around, _first(select))
    if not free_columns(select) and one:
        alone = select.copy()
        alone.set("expressions", named([select.expressions[0].unalias()]))
        return column(around.join(alone, "scalar", Correlated(alone, (), ()), side="LEFT"), "c0")
    return _looked_up(around, select)


def _limit_of(select: exp.Select) -> int | None:
    limit = select.args.get("limit")
    if limit is None or not isinstance(limit.expression, exp.Literal) or limit.expression.is_string:
        return None
    return int(limit.expression.this)


def _is_total(around: Around, select: exp.Select) -> bool:
    """Whether it aggregates all of its rows into one."""
    other = ("group", "qualify", "windows", "with_", "laterals", "offset")
    if any(select.args.get(part) for part in other) or any(e.find(exp.Window) for e in select.expressions):
        return False
    if select.args.get("limit") and not _limit_of(select):
        return False
    return is_grouped(select, around.aggregates)


def _total(around: Around, select: exp.Select) -> exp.Expr:
    having = select.args.get("having")
    read = [select.expressions[0].unalias(), *([having.this] if having is not None else [])]
    calls = [c for e in read for c in aggregates_in(e, around.aggregates)]
    inside = {id(n) for c in calls for n in c.walk()}
    outside = frozenset(id(c) for e in read for c in e.find_all(exp.Column) if id(c) not in inside)
    if any(own_subqueries(e) for e in read):
        raise Opaque("a subquery in what a scalar subquery projects")
    found = around.decorrelated(select, outside)
    # The calls of the decorrelated query, in the same order: their columns may have moved.
    moved = [found.query.expressions[0].unalias()]
    moved += [found.query.args["having"].this] if having is not None else []
    own = [c for e in moved for c in aggregates_in(e, around.aggregates)]
    body_ = found.query.copy()
    for part in ("having", "order", "distinct", "limit"):
        body_.set(part, None)
    keys = [k.inner for k in found.keys]
    body_.set("expressions", [*named(keys), *named(own, word="v")])
    body_.set("group", exp.Group(expressions=[k.copy() for k in keys]) if keys else None)
    alias = around.join(body_, "scalar", found, side="" if found.alone else "LEFT")
    values = [e.copy() for e in read]
    number = 0
    for place, value in enumerate(values):
        for call in aggregates_in(value, around.aggregates):
            result = _over_nothing(call, column(alias, f"v{number}"), alone=found.alone)
            number += 1
            if call is value:
                values[place] = result
            else:
                call.replace(result)
    if having is None:
        return exp.Paren(this=values[0])
    return exp.Case(ifs=[exp.If(this=values[1], true=values[0])])


def _over_nothing(call: exp.Expr, value: exp.Expr, *, alone: bool) -> exp.Expr:
    """The aggregate's value, where there may be no row for it."""
    bare = call.this if isinstance(call, exp.Filter) else call
    if alone or isinstance(bare, _NULL_OVER_NOTHING):
        return value
    if isinstance(bare, exp.Count):
        return exp.Coalesce(this=value, expressions=[exp.Literal.number(0)])
    raise Opaque(f"a correlated subquery of {bare.sql(DIALECT).split('(')[0].lower()}")


def _first(select: exp.Select) -> exp.Select:
    """ORDER BY ... LIMIT 1 as an aggregate."""
    if any(select.args.get(p) for p in ("group", "having", "distinct", "qualify", "windows", "with_", "laterals")):
        raise Opaque("a correlated subquery with LIMIT over groups")
    total = select.copy()
    value = total.expressions[0].unalias()
    total.set("expressions", [exp.First(this=_ordered(total, value))])
    total.set("limit", None)
    total.set("order", None)
    return total


def _ordered(select: exp.Select, value: exp.Expr) -> exp.Expr:
    """The value in the order of the query."""
    order = select.args.get("order")
    if order is None:
        raise Opaque("a subquery whose order is not known")
    terms = []
    for term in order.expressions:
        by = term.this
        named_so = (
            isinstance(by, exp.Column)
            and not by.table
            and by.name.lower() == select.expressions[0].alias_or_name.lower()
        )
        if named_so or by.name.upper() == "ALL" or (isinstance(by, exp.Literal) and not by.is_string):
            by = value
        elif isinstance(by, exp.Column) and not by.table:
            raise Opaque("a subquery ordered by a name of its own")
        terms.append(exp.Ordered(this=by.copy(), desc=term.args.get("desc"), nulls_first=term.args.get("nulls_first")))
    return exp.Order(this=value.copy(), expressions=terms)


def _looked_up(around: Around, select: exp.Select) -> exp.Expr:
    """A scalar subquery that finds its row by a key."""
    if not is_plain(select, around.aggregates):
        raise Opaque("a scalar subquery that may have more than one row")
    found = around.decorrelated(select)
    fixed = {k.inner.sql() for k in found.keys}
    for part in where_of(found.query):
        if isinstance(part, exp.EQ):
            sides = ((part.this, part.expression), (part.expression, part.this))
            fixed |= {mine.sql() for mine, other in sides if other.find(exp.Column) is None}
    place = found.query.args["from_"].this if found.query.args.get("from_") else None
    relation = around.made.relations.get(place.name.lower()) if isinstance(place, exp.Table) else None
    if relation is None or place is None or found.query.args.get("joins") or not relation.key:
        raise Opaque("a scalar subquery that may have more than one row")
    if any(column(place.alias_or_name, k.lower()).sql() not in {f.lower() for f in fixed} for k in relation.key):
        raise Opaque("a scalar subquery that may have more than one row")
    row = found.query.copy()
    row.set("expressions", [*named([k.inner for k in found.keys]), *named([select.expressions[0].unalias()], word="v")])
    return column(around.join(row, "scalar", found, side="LEFT"), "v0")


def _array(around: Around, query: exp.Query) -> exp.Expr:
    select = _simple(query)
    if (
        len(select.expressions) != 1
        or any(
            select.args.get(p)
            for p in ("group", "having", "distinct", "qualify", "windows", "with_", "laterals", "limit", "offset")
        )
        or is_grouped(select, around.aggregates)
    ):
        raise Opaque("ARRAY of a subquery that is more than a list")
    listed = select.copy()
    value = listed.expressions[0].unalias()
    listed.set("expressions", [exp.ArrayAgg(this=_ordered(listed, value))])
    listed.set("order", None)
    return exp.Coalesce(this=_total(around, listed), expressions=[exp.Array(expressions=[])])


# -- EXISTS and IN -----------------------------------------------------------------------------------------------------


def _exists(around: Around, query: exp.Query) -> exp.Expr:
    if not isinstance(query, exp.Select):
        query = wrapped(around, query)
    if _is_total(around, query):
        having = query.args.get("having")
        if having is None:
            return exp.true()
        held = query.copy()
        held.set("expressions", [having.this.copy()])
        held.set("having", None)
        return exp.Is(this=_total(around, held), expression=exp.true())
    rows, found = _rows(around, query, ())
    rows.set("distinct", exp.Distinct())
    rows.set("expressions", [*rows.expressions, exp.alias_(exp.true(), "m", quoted=True)])
    alias = around.join(rows, "exists", found, side="LEFT")
    return exp.Paren(this=exp.Not(this=exp.Is(this=column(alias, "m"), expression=exp.Null())))


def _member(around: Around, value: exp.Expr, query: exp.Query) -> exp.Expr:
    """`value IN query`, with NULL where it is not known."""
    if not isinstance(query, exp.Select):
        query = wrapped(around, query)
    if len(query.expressions) != 1:
        raise Opaque("IN of several columns as a value")
    if _is_total(around, query) and not query.args.get("having"):
        return exp.Paren(this=exp.EQ(this=value, expression=scalar(around, query)))
    rows, found = _rows(around, query, (query.expressions[0].unalias(),))
    if not told_apart_alike(around.made, rows, rows.expressions[-1].unalias(), around.before, value):
        raise Opaque("IN as a value between two types")
    met = rows.copy()
    met.set("distinct", exp.Distinct())
    met.set("expressions", [*named([e.unalias() for e in rows.expressions]), exp.alias_(exp.true(), "m", quoted=True)])
    by_value = replace(found, keys=(*found.keys, Key(exp.Null(), value, null_safe=False)))
    mark = column(around.join(met, "in", by_value, side="LEFT"), "m")
    count, present = _summary(around, rows, found, [])
    return _decided(mark, value, count, present)


def _row_member(around: Around, values: list[exp.Expr], query: exp.Query) -> exp.Expr:
    """`(value, ...) IN query`: TRUE where a row equals it, NULL where one might."""
    if not isinstance(query, exp.Select) or not is_plain(query, around.aggregates):
        query = wrapped(around, query)
    if len(query.expressions) != len(values):
        raise Opaque("IN of other columns")
    outputs = [e.unalias() for e in query.expressions]
    equal = [
        exp.EQ(this=exp.Paren(this=x.copy()), expression=exp.Paren(this=y.copy()))
        for x, y in zip(values, outputs, strict=True)
    ]
    known = [
        never_null(around.made, around.before, x) and never_null(around.made, query, y)
        for x, y in zip(values, outputs, strict=True)
    ]
    certain = _exists(around, query.copy().where(*(e.copy() for e in equal)))
    if all(known):
        return certain
    if not around.made.binder.exact_rows():
        raise Opaque("IN of several columns that may be NULL, as this DuckDB answers it")
    maybe = [e if k else or_unknown(e) for e, k in zip(equal, known, strict=True)]
    ifs = [
        exp.If(this=certain, true=exp.true()),
        exp.If(this=_exists(around, query.copy().where(*maybe)), true=exp.Null()),
    ]
    return exp.Paren(this=exp.Case(ifs=ifs, default=exp.false()))


def or_unknown(equal: exp.EQ) -> exp.Expr:
    """The equality, or that a side of it is NULL."""
    holes = [exp.Is(this=side.copy(), expression=exp.Null()) for side in (equal.this, equal.expression)]
    return exp.Paren(this=exp.or_(equal.copy(), *holes))


def _decided(certain: exp.Expr, value: exp.Expr, rows: exp.Expr, present: exp.Expr) -> exp.Expr:
    """TRUE where it is certain, FALSE over no row, NULL where a NULL leaves it open."""
    none = exp.EQ(
        this=exp.Coalesce(this=rows.copy(), expressions=[exp.Literal.number(0)]), expression=exp.Literal.number(0)
    )
    missing = exp.Is(this=exp.Paren(this=value.copy()), expression=exp.Null())
    hole = exp.GT(this=rows.copy(), expression=present.copy())
    ifs = [
        exp.If(this=certain, true=exp.true()),
        exp.If(this=none, true=exp.false()),
        exp.If(this=exp.Or(this=missing, expression=hole), true=exp.Null()),
    ]
    return exp.Case(ifs=ifs, default=exp.false())


def _compared(around: Around, node: exp.Binary) -> exp.Expr:
    """`value op ANY (query)` and `value op ALL (query)`."""
    value, quantified = _left(around, node.this), node.expression
    query = body(quantified.this)
    every = isinstance(quantified, exp.All)
    if isinstance(node, exp.EQ) and not every:
        return _member(around, value, query)
    if isinstance(node, exp.NEQ) and every:
        return exp.Not(this=exp.Paren(this=_member(around, value, query)))
    if not isinstance(query, exp.Select):
        query = wrapped(around, query)
    if len(query.expressions) != 1 or not isinstance(node, exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
        raise Opaque("a comparison with ANY or ALL of a subquery")
    rows, found = _rows(around, query, (query.expressions[0].unalias(),))
    low, high = exp.Min, exp.Max
    count, present, least, most = _summary(around, rows, found, [low, high])
    holds = [type(node)(this=exp.Paren(this=value.copy()), expression=side) for side in (least, most)]
    # The comparison with every value is the one with both ends, that with some value the one with either.
    if every:
        # all = not any not
        fails = exp.Not(this=exp.Paren(this=exp.And(this=holds[0], expression=holds[1])))
        return exp.Not(this=exp.Paren(this=_decided(fails, value, count, present)))
    return _decided(exp.Or(this=holds[0], expression=holds[1]), value, count, present)


def _summary(around: Around, rows: exp.Select, found: Correlated, ends: list[type[exp.AggFunc]]) -> list[exp.Expr]:
    """Of the rows of each key: how many, how many that are not NULL, and the ends of what they hold."""
    inner = fresh(around.select, "rows")
    value = column(inner, "v0")
    keys = [column(inner, f"c{n}") for n in range(len(found.keys))]
    calls: list[exp.Expr] = [exp.Count(this=exp.Star()), exp.Count(this=value)]
    calls += [end(this=value.copy()) for end in ends]
    counted = exp.Select(
        expressions=[*named(keys), *named(calls, word="v")],
        from_=exp.From(this=derived(rows.copy(), inner)),
        group=exp.Group(expressions=[k.copy() for k in keys]) if keys else None,
    )
    alias = around.join(counted, "rows_of", found, side="" if found.alone else "LEFT")
    return [column(alias, f"v{n}") for n in range(len(calls))]


def _rows(around: Around, query: exp.Select, values: tuple[exp.Expr, ...]) -> tuple[exp.Select, Correlated]:
    """The subquery's rows by themselves: keys c0, c1, ... and values v0, ..."""
    if query.args.get("limit") or query.args.get("offset"):
        if not values and _limit_of(query) and not query.args.get("offset"):
            query = query.copy()
            query.set("limit", None)
        elif free_columns(query):
            raise Opaque("a correlated subquery with LIMIT")
        else:
            query = wrapped(around, query)
            values = tuple(query.expressions[: len(values)])
    if free_columns(query) and any(query.args.get(p) for p in ("qualify", "windows", "with_", "laterals")):
        raise Opaque("a correlated subquery with window functions")
    if not free_columns(query) and any(query.args.get(p) for p in ("qualify", "windows", "with_", "laterals")):
        query = wrapped(around, query)
    found = around.decorrelated(query)
    picked = found.query.copy()
    kept = [e.unalias() for e in picked.expressions[: len(values)]]
    keys = [k.inner for k in found.keys]
    picked.set("expressions", [*named(keys), *named(kept, word="v")])
    for part in ("order", "distinct"):
        picked.set(part, None)
    group = picked.args.get("group")
    if group is None:
        if is_grouped(found.query, around.aggregates):
            raise Opaque("a correlated subquery of one group with HAVING")
        return picked, found
    if group.args.get("all") or any(isinstance(e, exp.Literal | exp.Tuple) for e in group.expressions):
        raise Opaque("a subquery with GROUP BY ALL or by number")
    picked.set("group", exp.Group(expressions=[*(k.copy() for k in keys), *(e.copy() for e in group.expressions)]))
    if not picked.expressions:
        picked.set("expressions", [exp.alias_(exp.true(), "c_", quoted=True)])
    alias = fresh(around.select, "groups")
    columns = [column(alias, f"c{n}") for n in range(len(keys))]
    return exp.Select(
        expressions=[*named(columns), *named([column(alias, f"v{n}") for n in range(len(kept))], word="v")],
        from_=exp.From(this=derived(picked, alias)),
    ), found


def wrapped(around: Around, query: exp.Query) -> exp.Select:
    """A query that is correlated with nothing, as a plain SELECT over it."""
    if free_columns(query):
        raise Opaque("a correlated set operation")
    fields = around.made.binder.describe(query.sql(DIALECT))
    if len({f.name.lower() for f in fields}) != len(fields):
        raise Opaque("a subquery with two columns of one name")
    alias = fresh(around.select, "set")
    return exp.Select(
        expressions=[column(alias, f.name) for f in fields], from_=exp.From(this=derived(query.copy(), alias))
    )
