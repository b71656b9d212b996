"""EXCEPT, INTERSECT and UNION BY NAME as unions and groups.

Equations, with each row of A marked l = 1, r = 0 and each row of B marked l = 0, r = 1:

    A except B           =  select * from (A union all B) group by * having sum(l) > 0 and sum(r) = 0
    A intersect B        =  select * from (A union all B) group by * having sum(l) > 0 and sum(r) > 0
    A union by name B    =  A union B, each with all columns of both, NULL where it has none of that name

GROUP BY takes NULLs for equal, as EXCEPT and INTERSECT do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from penstock.plan.blocks import Field
from penstock.plan.clauses import Opaque
from penstock.plan.rewrite.made_of import column, derived

Describe = Callable[[exp.Query], tuple[Field, ...]]


def as_group(tree: exp.Except | exp.Intersect, fields: Sequence[Field], describe: Describe) -> exp.Select:
    """EXCEPT or INTERSECT as a group of a union."""
    kind = "EXCEPT" if isinstance(tree, exp.Except) else "INTERSECT"
    if not tree.args.get("distinct"):
        raise Opaque(f"{kind} ALL")
    if tree.args.get("by_name"):
        raise Opaque(f"{kind} BY NAME")
    sides = []
    for side, marks in ((tree.left, (1, 0)), (tree.right, (0, 1))):
        own = _columns_of(side, describe)
        columns = [
            exp.alias_(exp.cast(column("side", o.name), f.type, dialect="duckdb"), f"c{n}", quoted=True)
            for n, (o, f) in enumerate(zip(own, fields, strict=True))
        ]
        columns += [exp.alias_(exp.Literal.number(m), w, quoted=True) for m, w in zip(marks, "lr", strict=True)]
        sides.append(exp.Select(expressions=columns, from_=exp.From(this=derived(_bare(side), "side"))))
    union = exp.Union(this=sides[0], expression=sides[1], distinct=False)
    keys = [column("both", f"c{n}") for n in range(len(fields))]
    in_left, in_right = (exp.Sum(this=column("both", mark)) for mark in "lr")
    zero = exp.Literal.number(0)
    met = exp.EQ(this=in_right, expression=zero) if kind == "EXCEPT" else exp.GT(this=in_right, expression=zero)
    return exp.Select(
        expressions=[exp.alias_(k.copy(), f.name, quoted=True) for k, f in zip(keys, fields, strict=True)],
        from_=exp.From(this=derived(union, "both")),
        group=exp.Group(expressions=[k.copy() for k in keys]),
        having=exp.Having(this=exp.And(this=exp.GT(this=in_left, expression=zero.copy()), expression=met)),
    )


def by_position(tree: exp.Union, fields: Sequence[Field], describe: Describe) -> exp.Union:
    """UNION BY NAME as a union by position."""
    sides = []
    for side in (tree.left, tree.right):
        own = {f.name.lower(): f.name for f in _columns_of(side, describe)}
        columns = [
            exp.alias_(column("side", own[f.name.lower()]) if f.name.lower() in own else _null(f), f.name, quoted=True)
            for f in fields
        ]
        sides.append(exp.Select(expressions=columns, from_=exp.From(this=derived(_bare(side), "side"))))
    return exp.Union(this=sides[0], expression=sides[1], distinct=tree.args.get("distinct"))


def _null(field: Field) -> exp.Expr:
    return exp.cast(exp.Null(), field.type, dialect="duckdb")


def _bare(side: exp.Expr) -> exp.Query:
    inner = side.unnest() if isinstance(side, exp.Subquery) else side
    if not isinstance(inner, exp.Query):
        raise Opaque(f"{type(inner).__name__.lower()} in a set operation")
    return inner.copy()


def _columns_of(side: exp.Expr, describe: Describe) -> tuple[Field, ...]:
    own = describe(_bare(side))
    if len({f.name.lower() for f in own}) != len(own):
        raise Opaque("a branch with two columns of one name")
    return own
