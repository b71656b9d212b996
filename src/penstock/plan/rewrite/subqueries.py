"""Subqueries in expressions as joins with subqueries in FROM.

What stands alone among the conditions of WHERE (EXISTS, IN and their negations) becomes a semi or an anti join
(membership.py); all else becomes a value from a join that leaves every row as it is (values.py). In a grouped SELECT,
subqueries outside of its aggregates see groups:

    select E from F group by G having H  =  select E' from (select G, A from F group by G) where H'

with the aggregates A, and with E', H' over the columns of the group.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.clauses import Opaque, aggregates_in, having_of, is_grouped
from penstock.plan.made import Made
from penstock.plan.rewrite.made_of import column, conjuncts, derived, named, set_where, where_of
from penstock.plan.rewrite.membership import joined_membership
from penstock.plan.rewrite.scopes import aliases_of, fresh, separate
from penstock.plan.rewrite.values import Around, own_subqueries, value_of


def without_subqueries(made: Made, select: exp.Select) -> exp.Select | None:
    """The SELECT with its own subqueries joined; None where it has none. Raises Opaque."""
    if not own_subqueries(select):
        return None
    if any(r.transient for t in select.find_all(exp.Table) if (r := made.relations.get(t.name.lower()))):
        raise Opaque("a subquery over what passes")
    select = select.copy()
    separate(select)
    names = made.binder.aggregates()
    if is_grouped(select, names) and (lifted := _over_groups(select, names)) is not None:
        return lifted
    if select.args.get("from_") is None:
        once = exp.Select(expressions=named([exp.true()]))
        select.set("from_", exp.From(this=derived(once, fresh(select, "once"))))
    _conditions_to_where(select)
    around = Around(made, select, select.copy())
    kept: list[exp.Expr] = []
    for part in where_of(select):
        if not joined_membership(around, part):
            kept.append(part)
    set_where(select, kept)
    for node in own_subqueries(select):
        node.replace(value_of(around, node))
    return select


def _conditions_to_where(select: exp.Select) -> None:
    """Conditions of inner joins that hold subqueries move to WHERE."""
    for join in select.args.get("joins") or []:
        on = join.args.get("on")
        if on is None or on.find(exp.Query) is None:
            continue
        if join.side or join.kind.upper() not in ("", "INNER") or join.method:
            raise Opaque("a subquery in the condition of an outer join")
        parts = conjuncts(on)
        moved = [p for p in parts if p.find(exp.Query) is not None]
        stay = [p for p in parts if p.find(exp.Query) is None]
        set_where(select, [*where_of(select), *moved])
        join.set("on", exp.true() if not stay else _all(stay))


def _all(parts: list[exp.Expr]) -> exp.Expr:
    return exp.and_(*(p.copy() for p in parts))


# -- groups ------------------------------------------------------------------------------------------------------------


def _over_groups(select: exp.Select, names: frozenset[str]) -> exp.Select | None:
    """The subqueries of projections and HAVING over a group; None where all of them are below it."""
    upper = [*select.expressions, *having_of(select)]
    keys = _keys(select, names)
    key_texts = {k.sql() for k in keys}
    if not any(_above(e, names, key_texts) for e in upper):
        return None
    if select.args.get("qualify") or any(e.find(exp.Window) for e in upper):
        raise Opaque("a subquery beside window functions over groups")
    calls = {c.sql(): c for e in upper for c in aggregates_in(e, names)}
    alias = fresh(select, "groups")
    columns = {text: f"c{n}" for n, text in enumerate([*dict.fromkeys(k.sql() for k in keys), *calls])}
    distinct_keys = list({k.sql(): k for k in keys}.values())
    inner = select.copy()
    for part in ("having", "distinct", "order"):
        inner.set(part, None)
    inner.set("expressions", named([*distinct_keys, *calls.values()]) or [exp.alias_(exp.Literal.number(1), "c0")])
    inner.set("group", exp.Group(expressions=[k.copy() for k in distinct_keys]) if select.args.get("group") else None)
    if not calls and not distinct_keys:
        raise Opaque("a subquery over a group of nothing")
    mapped = _Mapped(columns, set(calls), alias)
    outputs = [exp.alias_(mapped(e.unalias(), outer=True), e.alias_or_name, quoted=True) for e in select.expressions]
    outer = exp.Select(expressions=outputs, from_=exp.From(this=derived(inner, alias)))
    if select.args.get("distinct"):
        outer.set("distinct", select.args["distinct"].copy())
    set_where(outer, [p for h in having_of(select) for p in conjuncts(mapped(h, outer=True))])
    if any(
        c.table.lower() in aliases_of(select)
        for part in (*outputs, outer.args.get("where"))
        if part
        for c in part.find_all(exp.Column)
    ):
        raise Opaque("a subquery that reads more of a group than its keys")
    return outer


def _keys(select: exp.Select, names: frozenset[str]) -> list[exp.Expr]:
    group = select.args.get("group")
    if group is None:
        return []
    if any(group.args.get(part) for part in ("grouping_sets", "cube", "rollup", "totals")):
        raise Opaque("subqueries over GROUPING SETS, ROLLUP or CUBE")
    projections = [e.unalias() for e in select.expressions]
    if group.args.get("all"):
        return [p for p in projections if not aggregates_in(p, names) and not isinstance(p, exp.Literal)]
    keys = []
    for key in group.expressions:
        if isinstance(key, exp.Literal) and not key.is_string:
            key = projections[int(key.this) - 1]
        if isinstance(key, exp.Tuple):
            raise Opaque("a tuple in GROUP BY")
        keys.append(key.unnest() if isinstance(key, exp.Paren) else key)
    return keys


def _above(expression: exp.Expr, names: frozenset[str], keys: set[str]) -> bool:
    """Whether a subquery stands in it outside of aggregates and keys."""
    if expression.unalias().sql() in keys:
        return False
    inside = {id(n) for c in aggregates_in(expression, names) for n in c.walk()}
    return any(id(n) not in inside for n in own_subqueries(expression))


class _Mapped:
    """Expressions over a group's input as expressions over its columns; in subqueries, keys alone."""

    def __init__(self, columns: dict[str, str], calls: set[str], alias: str) -> None:
        self._columns, self._calls, self._alias = columns, calls, alias

    def __call__(self, node: exp.Expr, *, outer: bool) -> exp.Expr:
        text = node.sql()
        if text in self._columns and (outer or (text not in self._calls and node.find(exp.Column) is not None)):
            return column(self._alias, self._columns[text])
        node = node.copy()
        inside = outer and not isinstance(node, exp.Query)
        for key, value in list(node.args.items()):
            if isinstance(value, exp.Expr):
                node.set(key, self(value, outer=inside))
            elif isinstance(value, list):
                node.set(key, [self(v, outer=inside) if isinstance(v, exp.Expr) else v for v in value])
        return node
