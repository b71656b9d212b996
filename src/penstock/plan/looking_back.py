"""Window functions that never look at later rows: what comes before the first row that moves stays as it is.

Running sums, ranks, row numbers and `lag` over one order depend on the rows before them and on those that tie. `lead`,
`ntile`, shares of all rows and frames that reach forward do not stop there.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.parse import DIALECT

_AHEAD = (exp.Lead, exp.Ntile, exp.PercentRank, exp.CumeDist, exp.Anonymous)
_WRAPPERS = (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)
# Types whose `<` is their order, NULLs apart.
_SORTED = (
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIME", "UUID"),
)


def first_order(windows: list[exp.Window]) -> exp.Ordered | None:
    """What all the windows order by first; None where they do not agree, or one of them looks ahead."""
    if not windows or any(_looks_ahead(w) for w in windows):
        return None
    first: exp.Ordered = windows[0].args["order"].expressions[0]
    return first if all(_way(w.args["order"].expressions[0]) == _way(first) for w in windows) else None


def is_sorted(type: str) -> bool:
    """Whether values of the type can be compared as they are sorted."""
    bare = type.startswith(("DECIMAL(", "TIMESTAMP")) or type in _SORTED
    return bare and not type.endswith("]")


def _looks_ahead(window: exp.Window) -> bool:
    order = window.args.get("order")
    if order is None or not order.expressions:
        return True
    function = window.this
    while isinstance(function, _WRAPPERS):
        function = function.this
    if isinstance(function, _AHEAD) or not isinstance(function, exp.AggFunc | exp.RowNumber):
        return True
    if isinstance(function, exp.Lag) and not _is_number(function.args.get("offset") or exp.Literal.number(1)):
        return True
    frame = window.args.get("spec")
    if frame is None or frame.args.get("end") in (None, "CURRENT ROW"):
        return frame is not None and frame.text("start_side") == "FOLLOWING"
    return frame.text("end_side") != "PRECEDING" or not _is_number(frame.args["end"])


def _is_number(node: object) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string


def _way(ordered: exp.Ordered) -> tuple[str, bool, bool]:
    return ordered.this.sql(DIALECT), bool(ordered.args.get("desc")), bool(ordered.args.get("nulls_first"))
