"""Adding keys to orders, and which functions take values in an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

DIALECT = "duckdb"
_PICKING = {"first", "last", "any_value", "arbitrary", "first_value", "last_value", "nth_value", "mode"}
_BY_VALUE = {"arg_max", "arg_min", "argmax", "argmin", "max_by", "min_by", "arg_max_null", "arg_min_null"}
_BY_VALUE |= {"arg_max_nulls_last", "arg_min_nulls_last"}
_APPROXIMATE = {"approx_quantile", "approx_top_k"}


@dataclass(frozen=True)
class Indefinite(Exception):
    """A query whose answer depends on an order that cannot be written into it. word: what to point at in its text."""

    message: str
    word: str
    hint: str


def add_keys(order: exp.Order, keys: Sequence[exp.Expr]) -> bool:
    """Sort by these too, where the order does not yet; whether there were any."""
    stated = {o.this.sql(DIALECT) for o in order.expressions}
    fresh = [key for key in keys if key.sql(DIALECT) not in stated]
    for key in fresh:
        order.append("expressions", exp.Ordered(this=key.copy(), nulls_first=False))
    return bool(fresh)


def is_picking(node: exp.Expr) -> bool:
    """Whether the aggregate's result depends on the order of its rows."""
    if isinstance(node, exp.ArrayAgg | exp.GroupConcat):
        return True
    name = node.name.lower() if isinstance(node, exp.Anonymous) else _function_name(node)
    return bool({name, _rendered(node)} & (_PICKING | _BY_VALUE | _APPROXIMATE))


def sort_argument(node: exp.Expr, first: Sequence[exp.Ordered] = ()) -> str:
    """Sort the rows that an aggregate takes by its own order, or else `first`, and then by its first argument.

    The syntax tree keeps an aggregate's ORDER BY on its last argument. Returns the function's name, empty where the
    order was complete already.
    """
    arguments = _arguments(node)
    if not arguments:
        return ""
    value, last = arguments[0], arguments[-1]
    if value is last and isinstance(value, exp.Order):
        value = value.this
    value = value.expressions[-1] if isinstance(value, exp.Distinct) else value
    value = value.copy()
    name = _rendered(node)
    if not isinstance(last, exp.Order):
        stated = [] if isinstance(last, exp.Distinct) else [o.copy() for o in first]
        order = exp.Order(this=last.copy(), expressions=stated)
        last.replace(order)
        return name if add_keys(order, [value]) or stated else ""
    return name if add_keys(last, [value]) else ""


def _rendered(node: exp.Expr) -> str:
    return node.sql(DIALECT).split("(", 1)[0].lower()


def _function_name(node: exp.Expr) -> str:
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def _arguments(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    match node:
        case exp.ArgMax() | exp.ArgMin():
            names = ["this", "expression", "count"]
        case exp.NthValue():
            names = ["this", "offset"]
        case exp.ApproxQuantile():
            names = ["this", "quantile"]
        case exp.ApproxTopK():
            names = ["this", "expression"]
        case _:
            names = ["this"]
    return [argument for name in names if (argument := node.args.get(name)) is not None]
