"""One SELECT through the rewrites, the first that applies; its result goes through them again."""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.made import Made
from penstock.plan.rewrite.outer import without_right_joins


def rewrite_select(made: Made, select: exp.Select) -> exp.Query | None:
    """An equal query over subqueries in FROM; None where no rewrite applies. Raises Opaque."""
    if (found := without_right_joins(select)) is not None:
        return found
    return None
