"""Pieces that rewrites put queries together from: subqueries in FROM, and columns that move into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp


def identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def column(alias: str, name: str) -> exp.Column:
    return exp.column(identifier(name), table=identifier(alias))


def derived(query: exp.Query, alias: str) -> exp.Subquery:
    """The query as a place of a FROM clause."""
    return exp.Subquery(this=query, alias=exp.TableAlias(this=identifier(alias)))


def named(expressions: Sequence[exp.Expr], first: int = 0, word: str = "c") -> list[exp.Expr]:
    """The expressions as columns c0, c1, ..."""
    return [exp.alias_(e.copy(), f"{word}{n}", quoted=True) for n, e in enumerate(expressions, first)]


def conjunction(parts: Sequence[exp.Expr]) -> exp.Expr:
    """All of the parts; TRUE where there is none."""
    made = [exp.Paren(this=p.copy()) if isinstance(p, exp.Or) else p.copy() for p in parts]
    if not made:
        return exp.true()
    whole = made[0]
    for part in made[1:]:
        whole = exp.And(this=whole, expression=part)
    return whole


def conjuncts(condition: exp.Expr | None) -> list[exp.Expr]:
    """The parts of a condition that must all hold."""
    if condition is None:
        return []
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        return [part for side in (condition.this, condition.expression) for part in conjuncts(side)]
    return [condition]


def where_of(select: exp.Select) -> list[exp.Expr]:
    where = select.args.get("where")
    return conjuncts(where.this) if where is not None else []


def set_where(select: exp.Select, parts: Sequence[exp.Expr]) -> None:
    select.set("where", exp.Where(this=conjunction(parts)) if parts else None)


def add_join(select: exp.Select, place: exp.Expr, on: exp.Expr, *, side: str = "", kind: str = "") -> None:
    """One more join at the end of the FROM clause; the first place where there is none yet."""
    joins = [*(select.args.get("joins") or [])]
    select.set("joins", [*joins, exp.Join(this=place, side=side or None, kind=kind or None, on=on)])


def replace_columns(tree: exp.Expr, places: Mapping[str, tuple[str, str]]) -> None:
    """Columns (by their SQL) read from another place: alias and name. Output names stay."""
    for node in list(tree.find_all(exp.Column)):
        if node.sql() in places:
            node.replace(column(*places[node.sql()]))
