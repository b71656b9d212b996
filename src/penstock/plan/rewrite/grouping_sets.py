"""GROUPING SETS, ROLLUP and CUBE as a union of groups.

Equation, over the sets S of keys that the clause stands for:

    select E from F group by grouping sets (S1, ..., Sn)  =  union all over S of  (select E(S) from F group by S)

with E(S) the outputs in which a key outside of S is NULL and grouping(k) says whether k is outside. ROLLUP (a, b) is
the sets (a, b), (a), (); CUBE all subsets; several of them side by side their product. The empty set has its one row
also over nothing. Where F is a join it is computed once. No key counts as a window of event time: the set without it
holds every row, and so do the others.
"""

from __future__ import annotations

from itertools import chain, combinations, product

from sqlglot import exp

from penstock.plan.blocks import Field
from penstock.plan.clauses import Opaque, aggregates_in, having_of
from penstock.plan.made import Made
from penstock.plan.parse import DIALECT, function_names
from penstock.plan.rewrite.made_of import identifier, named, replace_columns
from penstock.plan.rewrite.scopes import fresh

Keys = list[exp.Expr]


def as_union(made: Made, select: exp.Select) -> exp.Query | None:
    """The union of the groups; None where the SELECT has plain groups, or more to do after them."""
    group = select.args.get("group")
    later = any(select.args.get(p) for p in ("distinct", "qualify")) or any(
        e.find(exp.Window) for e in select.expressions
    )
    if group is None or later or not any(_is_sets(e) for e in group.expressions):
        return None
    if group.args.get("all") or group.args.get("totals") or select.args.get("from_") is None:
        raise Opaque("GROUPING SETS, ROLLUP or CUBE of this form")
    if any(e.find(exp.Query) for e in (*select.expressions, group)):
        raise Opaque("subqueries over GROUPING SETS, ROLLUP or CUBE")
    base, with_ = _base(select)
    projections = [e.unalias() for e in base.expressions]
    sets = [[_resolved(k, projections) for k in keys] for keys in _sets(base.args["group"])]
    keys = list({k.sql(): k for k in chain(*sets)}.values())
    fields = made.binder.describe(_asked(select, keys if with_ is None else _original(select)))
    types = {k.sql(): f for k, f in zip(keys, fields, strict=True)}
    branches = [_branch(base, chosen, types, made.binder.aggregates()) for chosen in sets]
    union: exp.Query = branches[0]
    for branch in branches[1:]:
        union = exp.Union(this=union, expression=branch, distinct=False)
    if with_ is not None:
        union.set("with_", with_)
    return union


def keys_of_sets(group: exp.Group) -> Keys:
    """The keys of all its sets, each once; raises Opaque where one is a number."""
    keys = list({k.sql(): k for chosen in _sets(group) for k in chosen}.values())
    if any(isinstance(k, exp.Literal) for k in keys) or group.args.get("all"):
        raise Opaque("window functions over GROUPING SETS, ROLLUP or CUBE of numbers")
    return keys


def is_grouping(node: exp.Expr) -> bool:
    """Whether the node says which keys are outside of a set."""
    return isinstance(node, exp.Func) and bool(function_names(node) & {"grouping", "grouping_id"})


def _asked(select: exp.Select, keys: Keys) -> str:
    """A query for the types of the keys."""
    asked = exp.Select(expressions=named(keys), from_=select.args["from_"].copy())
    asked.set("joins", [j.copy() for j in select.args.get("joins") or []])
    return asked.sql(DIALECT)


def _original(select: exp.Select) -> Keys:
    projections = [e.unalias() for e in select.expressions]
    found = [_resolved(k, projections) for keys in _sets(select.args["group"]) for k in keys]
    return list({k.sql(): k for k in found}.values())


def _base(select: exp.Select) -> tuple[exp.Select, exp.With | None]:
    """The SELECT over one place, and the CTE that computes it where it was a join."""
    base = select.copy()
    if not select.args.get("joins"):
        return base, None
    alias = fresh(select, "rows")
    read = {c.sql(): c for part in ("expressions", "group", "having") for c in _columns(select, part)}
    names = {sql: (alias, f"c{n}") for n, sql in enumerate(read)}
    inner = select.copy()
    for part in ("group", "having"):
        inner.set(part, None)
    inner.set("expressions", named(list(read.values()) or [exp.true()]))
    for part in ("joins", "where"):
        base.set(part, None)
    base.set("from_", exp.From(this=exp.Table(this=identifier(alias))))
    replace_columns(base, names)
    return base, exp.With(expressions=[exp.CTE(this=inner, alias=exp.TableAlias(this=identifier(alias)))])


def _columns(select: exp.Select, part: str) -> list[exp.Column]:
    value = select.args.get(part)
    roots = value if isinstance(value, list) else [value] if value is not None else []
    return [c for root in roots for c in root.find_all(exp.Column) if c.table]


def _sets(group: exp.Group) -> list[Keys]:
    """The sets of keys that the clause stands for."""
    parts = [_sets_of(e) if _is_sets(e) else [_members(e)] for e in group.expressions]
    whole = [list(chain(*chosen)) for chosen in product(*parts)]
    return [list({k.sql(): k for k in keys}.values()) for keys in whole]


def _sets_of(clause: exp.Expr) -> list[Keys]:
    members = [_members(e) for e in clause.expressions]
    match clause:
        case exp.Rollup():
            return [list(chain(*members[:n])) for n in range(len(members), -1, -1)]
        case exp.Cube():
            sizes = range(len(members), -1, -1)
            return [list(chain(*chosen)) for size in sizes for chosen in combinations(members, size)]
        case exp.GroupingSets():
            return [s for e in clause.expressions for s in (_sets_of(e) if _is_sets(e) else [_members(e)])]
        case _:
            raise Opaque("GROUPING SETS, ROLLUP or CUBE of this form")


def _is_sets(clause: exp.Expr) -> bool:
    return isinstance(clause, exp.Rollup | exp.Cube | exp.GroupingSets)


def _members(element: exp.Expr) -> Keys:
    if isinstance(element, exp.Tuple):
        return [e.unnest() for e in element.expressions]
    return [element.unnest()]


def _resolved(key: exp.Expr, projections: Keys) -> exp.Expr:
    if isinstance(key, exp.Literal) and not key.is_string:
        return projections[int(key.this) - 1]
    return key


def _branch(base: exp.Select, chosen: Keys, types: dict[str, Field], aggregates: frozenset[str]) -> exp.Select:
    grouped = {k.sql(): _value(k, types[k.sql()].type) for k in chosen}

    def of_set(node: exp.Expr) -> exp.Expr:
        sql = node.sql()
        if sql in types:
            return grouped[sql].copy() if sql in grouped else exp.cast(exp.Null(), types[sql].type, dialect=DIALECT)
        if is_grouping(node):
            asked = list(node.iter_expressions())
            bits = "".join("0" if e.sql() in grouped else "1" for e in asked)
            return exp.cast(exp.Literal.number(int(bits, 2)), "BIGINT")
        if aggregates_in(node, aggregates)[:1] == [node]:
            return node.copy()
        made = node.copy()
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                made.set(key, of_set(value))
            elif isinstance(value, list):
                made.set(key, [of_set(v) if isinstance(v, exp.Expr) else v for v in value])
        return made

    branch = base.copy()
    outputs = [exp.alias_(of_set(e.unalias()), e.alias_or_name, quoted=True) for e in base.expressions]
    branch.set("expressions", outputs)
    conditions = [of_set(h) for h in having_of(base)]
    branch.set("group", exp.Group(expressions=[g.copy() for g in grouped.values()]) if grouped else None)
    if not grouped and not any(aggregates_in(e, aggregates) for e in [*outputs, *conditions]):
        # its one row, though nothing is counted
        conditions.append(exp.GTE(this=exp.Count(this=exp.Star()), expression=exp.Literal.number(0)))
    branch.set("having", exp.Having(this=exp.and_(*conditions)) if conditions else None)
    return branch


def _value(key: exp.Expr, type_: str) -> exp.Expr:
    """A key that is no window (semantics T1): its value alone."""
    if key.find(exp.DateBin, exp.DateTrunc, exp.TimestampTrunc) is None:
        return key.copy()
    return exp.cast(key.copy(), type_, dialect=DIALECT)
