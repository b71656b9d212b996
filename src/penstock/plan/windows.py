"""Which expressions are windows of event time.

A hopping window's rows come once for each window that holds them: `hop_starts` gives the starts.
`time_bucket(INTERVAL, event time)` and `date_trunc(unit, event time)` are monotone in event time, so that the watermark
closes them in order. Anything else is no window, and then no row is late and nothing closes.
"""

from __future__ import annotations

from sqlglot import exp

from penstock.plan.parse import DIALECT

_UNITS = {"second", "minute", "hour", "day", "week", "month", "quarter", "year"}


def find_window(key: exp.Expr, event: exp.Expr) -> str | None:
    """The window's length as SQL if `key` is a window of `event`, else None."""
    if isinstance(key, exp.DateBin) and isinstance(key.this, exp.Interval):
        return key.this.sql(DIALECT) if _same(key.expression, event) else None
    if isinstance(key, exp.DateTrunc | exp.TimestampTrunc):
        unit = (key.text("unit") or "").lower()
        return f"INTERVAL '1 {unit}'" if unit in _UNITS and _same(key.this, event) else None
    return None


def hop_starts(at: str, size: str, slide: str) -> str:
    """The starts of the windows of `size`, one every `slide`, that hold the time `at`: one row each."""
    first = f"time_bucket({slide}, {at} - {size}) + {slide}"
    return f"unnest(generate_series({first}, time_bucket({slide}, {at}), {slide}))"


def find_hop(projection: exp.Expr, event: exp.Expr) -> tuple[str, str] | None:
    """Size and slide as SQL if the projection gives the starts of hopping windows of `event`, else None."""
    series = projection.this if isinstance(projection, exp.Explode) else None
    if not isinstance(series, exp.GenerateSeries) or not isinstance(series.args.get("step"), exp.Interval):
        return None
    sizes = [n.expression.sql(DIALECT) for n in series.args["start"].find_all(exp.Sub)]
    slide = series.args["step"].sql(DIALECT)
    for size in sizes:
        wanted: exp.Expr = exp.maybe_parse(f"SELECT {hop_starts(event.sql(DIALECT), size, slide)}", dialect=DIALECT)
        if _same(projection, wanted.expressions[0]):
            return size, slide
    return None


def end_of_event(key: exp.Expr, event: exp.Expr, length: str) -> str:
    """The window's end as SQL over a column `_ps_event` in place of the event time."""
    return f"{over_placeholder(key, event)} + {length}"


def over_placeholder(key: exp.Expr, event: exp.Expr) -> str:
    """The window's start as SQL over a column `_ps_event` in place of the event time."""
    placeholder = exp.column(exp.to_identifier("_ps_event"))
    wanted = event.sql(DIALECT).lower()
    return key.transform(lambda node: placeholder if node.sql(DIALECT).lower() == wanted else node).sql(DIALECT)


def _same(argument: exp.Expr, event: exp.Expr) -> bool:
    return argument == event or argument.sql(DIALECT).lower() == event.sql(DIALECT).lower()
