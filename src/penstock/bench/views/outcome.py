"""The costs of a suite's views as a report: one row per view and size, and geometric means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from penstock.bench.report import Judgement, Machine, Report, Table, now
from penstock.bench.views.measure import REPEATS, Load, ViewCost

COLUMNS = (
    *("view", "size", "rows", "told", "epoch ms", "recompute ms", "ratio", "epoch CPU ms", "recompute CPU ms"),
    *("CPU ratio", "strategies"),
)
NOTE = (
    "told: epochs in which the view changed. ratio: an epoch with so many changed rows, over computing the view again "
    "and comparing; below 1 the incremental view is cheaper."
)


def geometric_mean(values: Iterable[float]) -> float:
    """The root of the product of positive values; 0 of none.

    Example:
        >>> round(geometric_mean([0.5, 2.0]), 9)
        1.0
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else 0.0


def views_report(load: Load, costs: Sequence[ViewCost], machine: Machine) -> Report:
    """The report; it is wrong where a view differs from its batch."""
    wrong = tuple(f"{cost.view}: {cost.difference}" for cost in costs if cost.difference)
    headline = f"{len(wrong)} views differ from their batch" if wrong else f"{len(costs)} views are their batch"
    rows = [
        (
            *(cost.view, each.size, each.rows, f"{each.told}/{each.epochs}", each.epoch.wall_ms),
            *(each.recompute.wall_ms, each.ratio, each.epoch.cpu_ms, each.recompute.cpu_ms, each.cpu_ratio),
            ", ".join(cost.strategies),
        )
        for cost in costs
        for each in cost.costs
    ]
    marked = tuple(n for n, row in enumerate(rows) if any(reason.startswith(f"{row[0]}:") for reason in wrong))
    return Report(
        f"incremental views of {load.suite}",
        now(),
        Judgement("wrong" if wrong else "right", headline, wrong),
        machine,
        {"suite": load.suite, "scale": load.factor, "seed": load.seed, "threads": load.threads},
        figures=_figures(costs),
        tables=(Table("views", "epochs against the recompute", COLUMNS, tuple(rows), marked, NOTE),),
    )


def _figures(costs: Sequence[ViewCost]) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in REPEATS:
        name = size.replace("0.1%", "permille").replace(" ", "_")
        of_size = [each for cost in costs for each in cost.costs if each.size == size]
        touched = [each for each in of_size if each.told]
        found[f"ratio_{name}"] = geometric_mean(each.ratio for each in of_size)
        found[f"cpu_ratio_{name}"] = geometric_mean(each.cpu_ratio for each in of_size)
        found[f"cpu_ratio_{name}_told"] = geometric_mean(each.cpu_ratio for each in touched)
        found[f"worst_cpu_ratio_{name}"] = max((each.cpu_ratio for each in of_size), default=0.0)
    return found
