"""A correlated subquery by itself: what it computes for all rows around it at once.

Equations, for a subquery Q(t) over places of its own, with t a row around it:

    by equalities    Q(t) = sigma[k = f(t)] Q'                 where Q's only mention of t is `k = f(t)`
    by its domain    Q(t) = sigma[d = t] (D join Q(d))         with D = the distinct values of t that Q(t) mentions

Either way Q' is a query that mentions no row around it, and has key columns by which the rows around it find theirs.
The first is tried first: it reads nothing twice. NULL = NULL is not true in the first, and the same in the second.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.binder import BindProblem
from penstock.plan.blocks import Field
from penstock.plan.clauses import Opaque
from penstock.plan.made import Made
from penstock.plan.parse import DIALECT
from penstock.plan.rewrite.made_of import column, conjunction, derived, named, set_where, where_of
from penstock.plan.rewrite.scopes import aliases_of, free_columns, fresh, places_of
from penstock.plan.select_grouped import INTEGERS


@dataclass(frozen=True)
class Key:
    """`inner` over the subquery's places is to be the same as `outer` over the row around it."""

    inner: exp.Expr
    outer: exp.Expr
    null_safe: bool


@dataclass(frozen=True)
class Correlated:
    """query: with no mention of a row around it (but in what it projects, where that was allowed). keys: of its rows.

    outside: conditions on the row around it alone.
    """

    query: exp.Select
    keys: tuple[Key, ...]
    outside: tuple[exp.Expr, ...]

    def on(self, alias: str) -> exp.Expr:
        """The condition by which a row around it finds its own rows, whose key columns are c0, c1, ... of `alias`."""
        parts: list[exp.Expr] = [*self.outside]
        for number, key in enumerate(self.keys):
            kind = exp.NullSafeEQ if key.null_safe else exp.EQ
            parts.append(kind(this=_operand(key.outer), expression=column(alias, f"c{number}")))
        return conjunction(parts)

    @property
    def alone(self) -> bool:
        """Whether it says the same to every row."""
        return not self.keys and not self.outside


def decorrelate(made: Made, around: exp.Select, query: exp.Select, allowed: frozenset[int] = frozenset()) -> Correlated:
    """The subquery by itself; raises Opaque. allowed: free columns (by id) that may stay."""
    free = {id(c) for c in free_columns(query)}
    if not free:
        return Correlated(query, (), ())
    return _by_equalities(made, around, query, free, allowed) or _by_domain(made, around, query)


def _by_equalities(
    made: Made, around: exp.Select, query: exp.Select, free: set[int], allowed: frozenset[int]
) -> Correlated | None:
    local: list[exp.Expr] = []
    outside: list[exp.Expr] = []
    keys: list[Key] = []
    placed = set(allowed)
    for part in where_of(query):
        columns = [id(c) for c in part.find_all(exp.Column)]
        mentioned = free & set(columns)
        if not mentioned:
            local.append(part)
            continue
        placed |= mentioned
        if part.find(exp.Query) is not None:
            return None
        if mentioned == set(columns):
            outside.append(part)
            continue
        key = _equality(part, free)
        if key is None or not told_apart_alike(made, query, key.inner, around, key.outer):
            return None
        keys.append(key)
    if free - placed:
        return None
    plain = query.copy()
    set_where(plain, local)
    return Correlated(plain, tuple(_without_window(made, plain, key) for key in keys), tuple(outside))


def _equality(part: exp.Expr, free: set[int]) -> Key | None:
    if not isinstance(part, exp.EQ | exp.NullSafeEQ):
        return None
    for inner, outer in ((part.this, part.expression), (part.expression, part.this)):
        mine = {id(c) for c in inner.find_all(exp.Column)}
        theirs = {id(c) for c in outer.find_all(exp.Column)}
        if mine and not mine & free and theirs and theirs <= free:
            return Key(inner, outer, isinstance(part, exp.NullSafeEQ))
    return None


def _without_window(made: Made, query: exp.Select, key: Key) -> Key:
    """A key is a value: grouped by it, no row is late for it (semantics T1)."""
    if key.inner.find(exp.DateBin, exp.DateTrunc, exp.TimestampTrunc) is None:
        return key
    type_ = _type_of(made, query, key.inner)
    if type_ is None:
        raise Opaque("a correlation whose type is not known")
    return Key(exp.cast(key.inner.copy(), type_, dialect=DIALECT), key.outer, key.null_safe)


def _by_domain(made: Made, around: exp.Select, query: exp.Select) -> Correlated:
    if any(query.args.get(part) for part in ("with_", "laterals", "limit", "offset")):
        raise Opaque("a correlated subquery with a CTE, LATERAL or LIMIT")
    if any(j.side.upper() in ("RIGHT", "FULL") or j.method for j in query.args.get("joins") or []):
        raise Opaque("a correlated subquery with a RIGHT, FULL or ASOF JOIN")
    if any(free_columns(p) for p in places_of(query)) or around.args.get("laterals"):
        raise Opaque("a correlated subquery in FROM")
    found: dict[str, exp.Column] = {}
    for node in free_columns(query):
        found.setdefault(node.sql(), node)
    outer = list(found.values())
    if any(c.table.lower() not in aliases_of(around) for c in outer):
        raise Opaque("a subquery correlated with a query further out")
    alias = fresh(around, "domain")
    domain = exp.Select(
        expressions=named(outer),
        distinct=exp.Distinct(),
        from_=around.args["from_"].copy(),
        joins=[j.copy() for j in around.args.get("joins") or []],
    )
    set_where(domain, [p for p in where_of(around) if p.find(exp.Query) is None])
    names = {c.sql(): f"c{n}" for n, c in enumerate(outer)}
    query = query.copy()
    for node in list(query.find_all(exp.Column)):
        if node.sql() in names:
            node.replace(column(alias, names[node.sql()]))
    first = query.args.get("from_")
    joins = [exp.Join(this=first.this, kind="CROSS")] if first is not None else []
    query.set("joins", [*joins, *(query.args.get("joins") or [])])
    query.set("from_", exp.From(this=derived(domain, alias)))
    keys = tuple(Key(column(alias, names[c.sql()]), c, null_safe=not never_null(made, around, c)) for c in outer)
    return Correlated(query, keys, ())


def told_apart_alike(made: Made, one: exp.Select, left: exp.Expr, other: exp.Select, right: exp.Expr) -> bool:
    """Whether values of `left` that are two to a group are never both equal to a value of `right`.

    Of different types they may be: '1' and '01' both equal 1.
    """
    types = [_type_of(made, one, left), _type_of(made, other, right)]
    return None not in types and (types[0] == types[1] or all(t in INTEGERS for t in types))


def _type_of(made: Made, select: exp.Select, value: exp.Expr) -> str | None:
    asked = exp.Select(expressions=[value.copy()])
    if select.args.get("from_") is not None:
        asked.set("from_", select.args["from_"].copy())
    asked.set("joins", [j.copy() for j in select.args.get("joins") or []])
    try:
        return made.binder.describe(asked.sql(DIALECT))[0].type
    except BindProblem:
        return None


def never_null(made: Made, select: exp.Select, value: exp.Expr) -> bool:
    """Whether an expression over the places of a SELECT is certain to have a value."""
    value = value.unnest()
    if isinstance(value, exp.Literal | exp.Boolean):
        return True
    field = _field(made, select, value)
    return field is not None and not field.nullable


def _field(made: Made, select: exp.Select, value: exp.Expr) -> Field | None:
    """The column of a relation that the expression is, where every row has it."""
    if not isinstance(value, exp.Column):
        return None
    joins = select.args.get("joins") or []
    if any(j.side.upper() in ("RIGHT", "FULL") for j in joins):
        return None
    certain = [select.args["from_"].this] if select.args.get("from_") else []
    certain += [j.this for j in joins if not j.side]
    for place in certain:
        if isinstance(place, exp.Table) and place.alias_or_name.lower() == value.table.lower():
            relation = made.relations.get(place.name.lower())
            fields = relation.fields if relation is not None else ()
            return next((f for f in fields if f.name.lower() == value.name.lower()), None)
    return None


def _operand(value: exp.Expr) -> exp.Expr:
    return value.copy() if isinstance(value, exp.Column | exp.Literal | exp.Func) else exp.Paren(this=value.copy())
