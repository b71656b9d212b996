"""RIGHT and FULL JOIN as LEFT JOINs.

Equations, with L all that stands to the left:

    L right join R on c  =  R left join L on c
    L full join R on c   =  (L left join R on c)  union all  (R anti join L on c, with NULLs for L's columns)

Where L is more than one place it becomes a subquery with a column for each that is read. The places of a FULL JOIN can
be read nowhere else, so that the union stands for both of them.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.clauses import Opaque
from penstock.plan.rewrite.made_of import derived, identifier, named, replace_columns
from penstock.plan.rewrite.scopes import fresh, places_of


def without_right_joins(select: exp.Select) -> exp.Select | None:
    """The SELECT with its first RIGHT or FULL JOIN rewritten; None where there is none."""
    joins = select.args.get("joins") or []
    at = next((n for n, j in enumerate(joins) if j.side.upper() in ("RIGHT", "FULL") and not j.method), None)
    if at is None:
        return None
    select = select.copy()
    joins = select.args["joins"]
    join = joins[at]
    if join.args.get("using") or join.args.get("on") is None or select.args.get("laterals"):
        raise Opaque(f"{join.side.upper()} JOIN without ON")
    if join.args["on"].find(exp.Query) is not None or not isinstance(join.this, exp.Table):
        raise Opaque(f"{join.side.upper()} JOIN of or on a subquery")
    left = _left_side(select, at)
    on = join.args["on"]
    if join.side.upper() == "RIGHT":
        select.set("from_", exp.From(this=join.this))
        select.set("joins", [exp.Join(this=left, side="LEFT", on=on), *joins[at + 1 :]])
        return select
    both = [p.alias_or_name for p in (left, join.this)]
    mine = [_read_outside(select, [join], {alias.lower()}) for alias in both]
    if not mine[0] and not mine[1]:
        raise Opaque("FULL JOIN of which nothing is read")
    alias = fresh(select, "full")
    names = {c.sql(): f"c{n}" for n, c in enumerate([*mine[0], *mine[1]])}
    outer = exp.Select(
        expressions=[exp.alias_(c.copy(), names[c.sql()], quoted=True) for c in [*mine[0], *mine[1]]],
        from_=exp.From(this=left.copy()),
        joins=[exp.Join(this=join.this.copy(), side="LEFT", on=on.copy())],
    )
    alone = exp.Select(
        expressions=[
            *(exp.alias_(exp.Null(), names[c.sql()], quoted=True) for c in mine[0]),
            *(exp.alias_(c.copy(), names[c.sql()], quoted=True) for c in mine[1]),
        ],
        from_=exp.From(this=join.this.copy()),
        joins=[exp.Join(this=left.copy(), kind="ANTI", on=on.copy())],
    )
    union = exp.Union(this=outer, expression=alone, distinct=False)
    if isinstance(left, exp.Subquery):
        # read twice, computed once
        cte = exp.CTE(this=left.this.copy(), alias=exp.TableAlias(this=identifier(left.alias)))
        union.set("with_", exp.With(expressions=[cte]))
        for place in [p for p in union.find_all(exp.Subquery) if p.alias == left.alias]:
            place.replace(exp.Table(this=identifier(left.alias)))
    replace_columns(select, {sql: (alias, name) for sql, name in names.items()})
    select.set("from_", exp.From(this=derived(union, alias)))
    select.set("joins", joins[at + 1 :])
    return select


def _left_side(select: exp.Select, at: int) -> exp.Expr:
    """All that stands to the left of a join, as one place."""
    joins = select.args["joins"]
    if at == 0:
        place = select.args["from_"].this
        assert isinstance(place, exp.Expr)
        return place
    inner = {p.alias_or_name.lower() for p in places_of(select)[: at + 1]}
    columns = _read_outside(select, joins[:at], inner)
    alias = fresh(select, "left")
    names = {c.sql(): f"c{n}" for n, c in enumerate(columns)}
    body = exp.Select(
        expressions=named(columns or [exp.Literal.number(1)]),
        from_=select.args["from_"].copy(),
        joins=[j.copy() for j in joins[:at]],
    )
    replace_columns(select, {sql: (alias, name) for sql, name in names.items()})
    return derived(body, alias)


def _read_outside(select: exp.Select, joins: list[exp.Expr], aliases: set[str]) -> list[exp.Expr]:
    """The columns of these places that are read elsewhere than in these joins, each once."""
    inside = {id(c) for join in joins for c in join.find_all(exp.Column)}
    found: dict[str, exp.Expr] = {}
    for node in select.find_all(exp.Column):
        if node.table.lower() in aliases and id(node) not in inside:
            found.setdefault(node.sql(), node)
    return list(found.values())
