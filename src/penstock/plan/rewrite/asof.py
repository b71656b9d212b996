"""ASOF joins as joins to intervals: each row of the right side holds until the next one of its key.

    A ASOF JOIN B ON A.k = B.k AND A.t >= B.t
      =  A JOIN (SELECT *, lead(t) OVER (PARTITION BY k ORDER BY t) AS next FROM B) AS B
           ON A.k = B.k AND A.t >= B.t AND (A.t < next OR next IS NULL)

and the same for a LEFT one; for <= it is `lag`, and the row holds since the one before it. The right side has one row
for each key and time (plan/definite.py), so the order of a key's rows is total. A NULL time comes last and meets
nothing. A right row that comes or goes so moves itself and one neighbour, and meets the left rows of two intervals.
What is compared has one type on both sides: '1' and '01' are two keys on the right, and both equal 1 on the left.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.blocks import Relation
from penstock.plan.clauses import Opaque
from penstock.plan.made import Made
from penstock.plan.rewrite.correlation import told_apart_alike
from penstock.plan.rewrite.made_of import column

NEIGHBOUR = "_ps_neighbour"
_TURNED: dict[type[exp.Expr], type[exp.Expr]] = {exp.GTE: exp.LTE, exp.GT: exp.LT, exp.LTE: exp.GTE, exp.LT: exp.GT}
_WITHIN: dict[type[exp.Expr], type[exp.Expr]] = {exp.GTE: exp.LT, exp.GT: exp.LTE, exp.LTE: exp.GT, exp.LT: exp.GTE}


def without_asof(made: Made, select: exp.Select) -> exp.Select | None:
    """The SELECT with plain joins, None where it has no ASOF join; raises Opaque."""
    if not any((join.method or "").upper() == "ASOF" for join in select.args.get("joins") or []):
        return None
    rewritten = select.copy()
    for join in rewritten.args["joins"]:
        if (join.method or "").upper() == "ASOF":
            _rewrite(made, select, join)
    return rewritten


def _rewrite(made: Made, around: exp.Select, join: exp.Join) -> None:
    table, on = join.this, join.args.get("on")
    relation = made.relations.get(table.name.lower()) if isinstance(table, exp.Table) else None
    if relation is None or on is None or join.side.upper() not in ("", "LEFT"):
        raise Opaque("an ASOF JOIN whose right side cannot be named")
    alias = table.alias_or_name
    condition = on.unnest()
    keys: list[exp.Expr] = []
    orders: list[exp.Expr] = []
    for part in condition.flatten() if isinstance(condition, exp.And) else [condition]:
        part = _right_last(part.unnest(), alias)
        (keys if isinstance(part, exp.EQ) else orders).append(part)
    if len(orders) != 1 or type(orders[0]) not in _WITHIN:
        raise Opaque("an ASOF JOIN without one inequality")
    if not all(told_apart_alike(made, around, p.expression, around, p.this) for p in (*keys, *orders)):
        raise Opaque("an ASOF JOIN that compares different types")
    order = orders[0]
    join.set("this", _with_neighbour(table, relation, alias, [k.expression for k in keys], order))
    neighbour = column(alias, NEIGHBOUR)
    within = _WITHIN[type(order)](this=order.this.copy(), expression=neighbour)
    open_end = exp.Is(this=neighbour.copy(), expression=exp.Null())
    join.set("method", None)
    join.set("on", exp.and_(*(k.copy() for k in keys), order.copy(), exp.paren(exp.or_(within, open_end))))


def _right_last(part: exp.Expr, alias: str) -> exp.Expr:
    """The comparison with the right side's expression as its second operand."""
    if not isinstance(part, exp.EQ | exp.GTE | exp.GT | exp.LTE | exp.LT):
        raise Opaque("an ASOF JOIN with other conditions than comparisons")
    sides = (part.this, part.expression)
    mine = [{c.table.lower() for c in side.find_all(exp.Column)} == {alias.lower()} for side in sides]
    if mine == [False, True]:
        return part
    if mine != [True, False]:
        raise Opaque("an ASOF JOIN whose conditions mix both sides")
    return _TURNED.get(type(part), exp.EQ)(this=part.expression.copy(), expression=part.this.copy())


def _with_neighbour(
    table: exp.Table, relation: Relation, alias: str, keys: list[exp.Expr], order: exp.Expr
) -> exp.Subquery:
    """The right side, each row with the time of the next (or last) row of its key."""
    time = order.expression
    function = exp.Lead if isinstance(order, exp.GTE | exp.GT) else exp.Lag
    neighbour = exp.Window(
        this=function(this=time.copy()),
        partition_by=[k.copy() for k in keys],
        order=exp.Order(expressions=[exp.Ordered(this=time.copy(), nulls_first=False)]),
        over="OVER",
    )
    columns = [exp.alias_(column(alias, c.lower()), c, quoted=True) for c in relation.columns]
    inner = exp.Select(
        expressions=[*columns, exp.alias_(neighbour, NEIGHBOUR, quoted=True)], from_=exp.From(this=table.copy())
    )
    return exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
