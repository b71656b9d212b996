"""One SELECT through the rewrites, the first that applies; its result goes through them again."""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.made import Made
from penstock.plan.rewrite.asof import without_asof
from penstock.plan.rewrite.grouping_sets import as_union
from penstock.plan.rewrite.lateral import without_lateral
from penstock.plan.rewrite.outer import without_right_joins
from penstock.plan.rewrite.scopes import separate
from penstock.plan.rewrite.subqueries import without_subqueries


def rewrite_select(made: Made, select: exp.Select) -> exp.Query | None:
    """An equal query over subqueries in FROM; None where no rewrite applies. Raises Opaque."""
    select = select.copy()
    separate(select)
    return (
        without_right_joins(select)
        or without_lateral(made, select)
        or without_asof(made, select)
        or as_union(made, select)
        or without_subqueries(made, select)
    )
