"""A filter over ranks goes into the query that ranks, so that rows beyond it are never made.

    SELECT ... FROM (SELECT ..., w OVER (...) AS n FROM t) AS q WHERE q.n <= k AND rest
      =  SELECT ... FROM (SELECT ..., w OVER (...) AS n FROM t QUALIFY n <= k) AS q WHERE rest

QUALIFY is judged after the windows, as the outer WHERE is, so this holds for any condition on the inner query's columns
alone. A CTE that is read once is such an inner query. Columns that the outer query does not read are left out.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.select_ranked import own_windows


def fused(tree: exp.Query) -> exp.Query:
    """The qualified query with filters over the ranks of inner queries inside these."""
    if not isinstance(tree, exp.Select):
        return tree
    tree = tree.copy()
    _inline_ctes(tree)
    for subquery in _places(tree):
        if isinstance(subquery, exp.Subquery) and isinstance(subquery.this, exp.Select) and _ranks(subquery.this):
            _push(tree, subquery, subquery.this)
    return tree


def _ranks(select: exp.Select) -> bool:
    plain = not any(select.args.get(part) for part in ("limit", "offset", "distinct", "windows", "with_"))
    return plain and bool(own_windows(select))


def _places(tree: exp.Select) -> list[exp.Expr]:
    """The places of the FROM clause whose rows are never filled up with NULLs."""
    places = [tree.args["from_"].this] if tree.args.get("from_") else []
    for join in tree.args.get("joins") or []:
        side, kind = join.side.upper(), join.kind.upper()
        if join.method or side not in ("", "LEFT") or kind not in ("", "INNER", "CROSS", "OUTER"):
            return []
        if not side:
            places.append(join.this)
    return places


def _inline_ctes(tree: exp.Select) -> None:
    with_ = tree.args.get("with_")
    if with_ is None or with_.args.get("recursive"):
        return
    for cte in list(with_.expressions):
        if not isinstance(cte.this, exp.Select) or not _ranks(cte.this) or cte.args.get("materialized"):
            continue
        if cte.args["alias"].args.get("columns"):
            continue
        read = [t for t in tree.find_all(exp.Table) if t.name.lower() == cte.alias.lower()]
        if len(read) != 1 or not any(read[0] is place for place in _places(tree)):
            continue
        if any(other is not cte and other.alias.lower() == cte.alias.lower() for other in tree.find_all(exp.CTE)):
            continue
        # What it reads itself may be a CTE before it, which stays.
        alias = exp.TableAlias(this=exp.to_identifier(read[0].alias_or_name, quoted=True))
        read[0].replace(exp.Subquery(this=cte.this.copy(), alias=alias))
        cte.pop()
    if not with_.expressions:
        tree.set("with_", None)


def _push(tree: exp.Select, subquery: exp.Subquery, inner: exp.Select) -> None:
    alias = subquery.alias.lower()
    outputs = {e.alias_or_name.lower(): e.unalias() for e in inner.expressions}
    where = tree.args.get("where")
    if where is None or not alias or len(outputs) != len(inner.expressions):
        return
    condition = where.this.unnest()
    stay: list[exp.Expr] = []
    for part in condition.flatten() if isinstance(condition, exp.And) else [condition]:
        columns = list(part.find_all(exp.Column))
        mine = columns and all(c.table.lower() == alias and c.name.lower() in outputs for c in columns)
        ranks = any(outputs.get(c.name.lower(), part).find(exp.Window) is not None for c in columns)
        if not mine or not ranks or part.find(exp.Query) is not None:
            stay.append(part)
            continue
        inside = part.copy().transform(lambda n: outputs[n.name.lower()].copy() if isinstance(n, exp.Column) else n)
        before = inner.args.get("qualify")
        inner.set("qualify", exp.Qualify(this=exp.and_(before.this, inside) if before else inside))
    tree.set("where", exp.Where(this=exp.and_(*stay)) if stay else None)
    _leave_out(tree, subquery, inner)


def _leave_out(tree: exp.Select, subquery: exp.Subquery, inner: exp.Select) -> None:
    """Ranks that nobody reads would move with every row before them."""
    columns = [c for c in tree.find_all(exp.Column) if c.find_ancestor(exp.Subquery) is not subquery]
    if any(c.is_star or not c.table for c in columns) or tree.find(exp.Star) is not None:
        return
    read = {c.name.lower() for c in columns if c.table.lower() == subquery.alias.lower()}
    kept = [e for e in inner.expressions if e.alias_or_name.lower() in read]
    if kept:
        inner.set("expressions", kept)
