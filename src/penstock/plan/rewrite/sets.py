"""EXCEPT, INTERSECT and UNION BY NAME as unions and groups.

Equations, with each row of A marked l = 1, r = 0 and each row of B marked l = 0, r = 1:

    A except B           =  select * from (A union all B) group by * having sum(l) > 0 and sum(r) = 0
    A intersect B        =  select * from (A union all B) group by * having sum(l) > 0 and sum(r) > 0
    A except all B       =  each group of (A union all B) with sum(l) > sum(r), sum(l) - sum(r) times
    A intersect all B    =  each group of (A union all B) with both > 0, least(sum(l), sum(r)) times
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
    """EXCEPT or INTERSECT, with or without ALL, as a group of a union."""
    if tree.args.get("by_name"):
        raise Opaque(f"{type(tree).__name__.upper()} BY NAME")
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
    group = exp.Select(
        expressions=[exp.alias_(k.copy(), f"c{n}", quoted=True) for n, k in enumerate(keys)],
        from_=exp.From(this=derived(union, "both")),
        group=exp.Group(expressions=[k.copy() for k in keys]),
    )
    if tree.args.get("distinct"):
        return _each_once(group, tree, fields)
    return _each_so_often(group, tree, fields)


def _each_once(group: exp.Select, tree: exp.Except | exp.Intersect, fields: Sequence[Field]) -> exp.Select:
    """The groups that are in the result, with their names."""
    met = exp.EQ if isinstance(tree, exp.Except) else exp.GT
    zero = exp.Literal.number(0)
    group.having(exp.GT(this=_marked("l"), expression=zero), copy=False)
    group.having(met(this=_marked("r"), expression=zero.copy()), copy=False)
    named = [exp.alias_(k.this, f.name, quoted=True) for k, f in zip(group.expressions, fields, strict=True)]
    group.set("expressions", named)
    return group


def _each_so_often(group: exp.Select, tree: exp.Except | exp.Intersect, fields: Sequence[Field]) -> exp.Select:
    """The groups that are in the result, each repeated."""
    if isinstance(tree, exp.Except):
        times: exp.Expr = exp.Sub(this=_marked("l"), expression=_marked("r"))
    else:
        times = exp.Least(this=_marked("l"), expressions=[_marked("r")])
    group.having(exp.GT(this=times.copy(), expression=exp.Literal.number(0)), copy=False)
    group.select(exp.alias_(exp.cast(times, "BIGINT"), "n", quoted=True), copy=False)
    copies = exp.Explode(this=exp.GenerateSeries(start=exp.Literal.number(1), end=column("met", "n")))
    repeated = exp.Select(
        expressions=[
            *(exp.alias_(column("met", f"c{n}"), f"c{n}", quoted=True) for n in range(len(fields))),
            exp.alias_(copies, "copy", quoted=True),
        ],
        from_=exp.From(this=derived(group, "met")),
    )
    return exp.Select(
        expressions=[exp.alias_(column("each", f"c{n}"), f.name, quoted=True) for n, f in enumerate(fields)],
        from_=exp.From(this=derived(repeated, "each")),
    )


def _marked(mark: str) -> exp.Expr:
    return exp.Sum(this=column("both", mark))


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
