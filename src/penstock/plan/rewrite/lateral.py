"""LATERAL and unnest in FROM, where a row's own columns or equalities decide what it meets.

    FROM A, unnest(f(A)) AS u(v)                        =  FROM (SELECT A.*, unnest(f(A)) AS v FROM A)
    FROM A LEFT JOIN unnest(f(A)) AS u(v) ON TRUE       =  the same of [NULL], where f(A) has no element
    FROM A, LATERAL (SELECT g(A) AS y WHERE p(A)) AS l  =  FROM A WHERE p(A), with g(A) for l.y
    FROM A, LATERAL (SELECT b FROM B WHERE B.k = A.k AND p(B) ORDER BY o LIMIT n) AS l
      =  FROM A JOIN (SELECT b, B.k FROM B WHERE p(B) QUALIFY row_number() OVER (PARTITION BY B.k ORDER BY o) <= n) AS l
           ON l.k = A.k

The rows of B that one row of A meets are those of one key (B.k and A.k have one type, or '1' and '01' would both equal
1), so their number within the key is their number there; a LEFT JOIN LATERAL ... ON TRUE is a left join.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from penstock.plan.clauses import Opaque
from penstock.plan.made import Made
from penstock.plan.rewrite.correlation import told_apart_alike
from penstock.plan.rewrite.made_of import column, conjunction, conjuncts

_LATER = ("expressions", "where", "group", "having", "qualify", "order", "distinct")


def without_lateral(made: Made, select: exp.Select) -> exp.Select | None:
    """The SELECT without its first LATERAL or unnest, None where it has none; raises Opaque."""
    for number, join in enumerate(select.args.get("joins") or []):
        if isinstance(join.this, exp.Unnest | exp.Lateral):
            select = select.copy()
            _rewrite(made, select, select.args["joins"][number], number)
            return select
    return None


def _rewrite(made: Made, select: exp.Select, join: exp.Join, number: int) -> None:
    if join.method or join.side.upper() not in ("", "LEFT") or join.kind.upper() not in ("", "INNER", "CROSS", "OUTER"):
        raise Opaque("LATERAL in a join of another kind")
    place, alias = join.this, join.this.args.get("alias")
    source = place.this if isinstance(place, exp.Lateral) else place
    on = join.args.get("on")
    always = on is None or (isinstance(on, exp.Boolean) and on.this)
    # ORDER BY names outputs.
    bare = [c for c in select.find_all(exp.Column) if not c.table and c.find_ancestor(exp.Order) is None]
    if bare or alias is None or not alias.name:
        raise Opaque("LATERAL whose columns cannot be told apart")
    if join.side and not always:
        raise Opaque("a LEFT JOIN LATERAL with a condition")
    if on is not None and not always:
        select.where(on.copy(), copy=False)
    if isinstance(source, exp.Unnest):
        _unnest(select, number, source, alias, outer=bool(join.side))
        return
    inner = source.this if isinstance(source, exp.Subquery) else None
    if not isinstance(inner, exp.Select) or alias.args.get("columns"):
        raise Opaque("lateral")
    if inner.args.get("from_") is None:
        if join.side:
            raise Opaque("a LEFT JOIN LATERAL without FROM")
        _inline(select, number, inner, alias.name)
    else:
        _decorrelate(made, select, join, inner.copy())


# -- rows of one row ---------------------------------------------------------------------------------------------------


def _unnest(select: exp.Select, number: int, source: exp.Unnest, alias: exp.TableAlias, *, outer: bool) -> None:
    names = [c.name for c in alias.args.get("columns") or []] or ["unnest"]
    if len(source.expressions) != 1 or len(names) != 1 or source.args.get("offset"):
        raise Opaque("unnest of several lists, or with ordinality")
    elements = source.expressions[0]
    if outer:
        filled = exp.Array(expressions=[exp.Null()])
        some = exp.GT(this=exp.Anonymous(this="len", expressions=[elements.copy()]), expression=exp.Literal.number(0))
        elements = exp.Case(ifs=[exp.If(this=some, true=elements.copy())], default=filled)
    place = f"_ps_unnested{number}"
    before = {p.alias_or_name.lower() for p in _places(select)[: number + 1]}
    columns: dict[str, exp.Expr] = {}

    def moved(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column):
            return node
        if node.table.lower() == alias.name.lower() and node.name.lower() == names[0].lower():
            return column(place, "_ps_element")
        if node.table.lower() not in before:
            return node
        name = f"_ps_u{list(columns).index(node.sql())}" if node.sql() in columns else f"_ps_u{len(columns)}"
        columns.setdefault(node.sql(), node.copy())
        return column(place, name)

    joins = select.args["joins"]
    for key in _LATER:
        _transform(select, key, moved)
    later = [j.transform(moved) for j in joins[number + 1 :]]
    listed = [exp.alias_(c, f"_ps_u{n}", quoted=True) for n, c in enumerate(columns.values())]
    below = exp.Select(
        expressions=[*listed, exp.alias_(exp.Explode(this=elements.copy()), "_ps_element", quoted=True)],
        from_=select.args["from_"].copy(),
        joins=[j.copy() for j in joins[:number]],
    )
    named = exp.TableAlias(this=exp.to_identifier(place, quoted=True))
    select.set("from_", exp.From(this=exp.Subquery(this=below, alias=named)))
    select.set("joins", later)


def _inline(select: exp.Select, number: int, inner: exp.Select, alias: str) -> None:
    plain = not any(inner.args.get(p) for p in ("group", "having", "qualify", "limit", "offset", "distinct", "joins"))
    if not plain or inner.find(exp.AggFunc, exp.Window, exp.Explode) is not None:
        raise Opaque("lateral")
    values = {e.alias_or_name.lower(): e.unalias() for e in inner.expressions}

    def value(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and node.table.lower() == alias.lower() and node.name.lower() in values:
            return exp.paren(values[node.name.lower()].copy())
        return node

    if inner.args.get("where"):
        select.where(inner.args["where"].this.copy(), copy=False)
    joins = select.args["joins"]
    for key in _LATER:
        _transform(select, key, value)
    select.set("joins", [*joins[:number], *(j.transform(value) for j in joins[number + 1 :])])


def _transform(select: exp.Select, key: str, change: Callable[[exp.Expr], exp.Expr]) -> None:
    part = select.args.get(key)
    if isinstance(part, list):
        select.set(key, [p.transform(change) for p in part])
    elif isinstance(part, exp.Expr):
        select.set(key, part.transform(change))


# -- rows of another relation ------------------------------------------------------------------------------------------


def _decorrelate(made: Made, around: exp.Select, join: exp.Join, inner: exp.Select) -> None:
    alias = join.this.args["alias"]
    own = {p.alias_or_name.lower() for p in _places(inner)}
    unfit = ("group", "having", "qualify", "distinct", "offset", "with_")
    if any(inner.args.get(p) for p in unfit) or inner.find(exp.AggFunc, exp.Window, exp.Explode) is not None:
        raise Opaque("a correlated LATERAL with groups, windows or an OFFSET")
    pairs: list[tuple[exp.Expr, exp.Expr]] = []
    rest: list[exp.Expr] = []
    for part in conjuncts(inner.args["where"].this) if inner.args.get("where") else []:
        pair = _pair(part, own)
        if pair is not None:
            pairs.append(pair)
        else:
            rest.append(part)
    inner.set("where", exp.Where(this=conjunction(rest)) if rest else None)
    order, limit = inner.args.get("order"), inner.args.get("limit")
    inner.set("order", None)
    inner.set("limit", None)
    if {c.table.lower() for c in inner.find_all(exp.Column)} - own or not pairs:
        raise Opaque("a LATERAL that is not correlated by equalities alone")
    if limit is not None:
        if not all(told_apart_alike(made, inner, mine, around, outer) for mine, outer in pairs):
            raise Opaque("a LATERAL that compares different types")
        inner.set("qualify", exp.Qualify(this=_first(inner, [mine for mine, _ in pairs], order, limit)))
    keys = [exp.alias_(mine.copy(), f"_ps_j{n}", quoted=True) for n, (mine, _) in enumerate(pairs)]
    inner.set("expressions", [*inner.expressions, *keys])
    met = [exp.EQ(this=column(alias.name, f"_ps_j{n}"), expression=outer) for n, (_, outer) in enumerate(pairs)]
    join.set("this", exp.Subquery(this=inner, alias=alias.copy()))
    join.set("kind", None)
    join.set("on", exp.and_(*met))


def _pair(part: exp.Expr, own: set[str]) -> tuple[exp.Expr, exp.Expr] | None:
    """An equality of an expression of the inner rows and one of the outer row."""
    if not isinstance(part, exp.EQ):
        return None
    for mine, other in ((part.this, part.expression), (part.expression, part.this)):
        inside, outside = ({c.table.lower() for c in side.find_all(exp.Column)} for side in (mine, other))
        if inside and inside <= own and outside and not outside & own:
            return mine, other
    return None


def _first(inner: exp.Select, keys: list[exp.Expr], order: exp.Expr | None, limit: exp.Expr) -> exp.Expr:
    number = limit.args.get("expression")
    if not isinstance(limit, exp.Limit) or limit.args.get("limit_options") or not isinstance(number, exp.Literal):
        raise Opaque("a LATERAL with a LIMIT that is not a number")
    values = [e.unalias() for e in inner.expressions]
    names = {e.alias_or_name.lower(): e.unalias() for e in inner.expressions}
    sorted_by: list[exp.Ordered] = []
    for key in order.expressions if order is not None else []:
        bare = isinstance(key.this, exp.Column) and not key.this.table
        if key.this.name.upper() == "ALL" and not isinstance(key.this, exp.Literal):
            found = values
        elif isinstance(key.this, exp.Literal) and not key.this.is_string:
            found = [values[int(key.this.this) - 1]]
        else:
            found = [names[key.this.name.lower()]] if bare and key.this.name.lower() in names else [key.this]
        for expression in found:
            copy = key.copy()
            copy.set("this", expression.copy())
            sorted_by.append(copy)
    window = exp.Window(
        this=exp.RowNumber(),
        partition_by=[k.copy() for k in keys],
        order=exp.Order(expressions=sorted_by),
        over="OVER",
    )
    return exp.LTE(this=window, expression=number.copy())


def _places(select: exp.Select) -> list[exp.Expr]:
    places = [select.args["from_"].this] if select.args.get("from_") else []
    return places + [join.this for join in select.args.get("joins") or []]
