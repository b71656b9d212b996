"""What the judged records of one source amount to in an epoch, per partition.

`of_rows` (numpy, over rows in memory) and `of_relation` (SQL) give the same; the second is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.engines.duckdb.statements import Statements
from penstock.plan.blocks import quote

_NONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class PartitionStatistics:
    """unknown_fields: accepted records that have some. smallest_us, largest_us: event time of those that have one."""

    partition: int
    rows: int
    accepted: int
    unknown_fields: int
    smallest_us: int | None
    largest_us: int | None


def statistics(statements: Statements, judged: str) -> list[PartitionStatistics]:
    """Of the relation `judged`, in no particular order of partitions."""
    rows = statements.held(judged)
    if rows is not None and rows.schema.field("_ps_at").type == pa.timestamp("us"):
        return of_rows(rows)
    return of_relation(statements, judged)


def of_relation(statements: Statements, judged: str) -> list[PartitionStatistics]:
    """By a query."""
    found = statements.reader.execute(
        f"SELECT _ps_p, count(*), count(*) FILTER (WHERE _ps_ok), count(*) FILTER (WHERE _ps_ok AND _ps_extra), "
        f"epoch_us(min(_ps_at) FILTER (WHERE _ps_ok)), epoch_us(max(_ps_at) FILTER (WHERE _ps_ok)) "
        f"FROM {quote(judged)} GROUP BY _ps_p"
    ).fetchall()
    return [PartitionStatistics(*row) for row in found]


def of_rows(judged: pa.Table) -> list[PartitionStatistics]:
    """From the rows themselves."""
    partitions = judged.column("_ps_p").to_numpy()
    accepted = judged.column("_ps_ok").to_numpy()
    extra = judged.column("_ps_extra").to_numpy()
    at = judged.column("_ps_at")
    timed = accepted & at.is_valid().to_numpy()
    times = at.cast(pa.int64()).fill_null(_NONE).to_numpy()
    found = []
    for partition in np.unique(partitions).tolist():
        mine = partitions == partition
        known = times[mine & timed]
        found.append(
            PartitionStatistics(
                partition,
                int(np.count_nonzero(mine)),
                int(np.count_nonzero(mine & accepted)),
                int(np.count_nonzero(mine & accepted & extra)),
                int(known.min()) if len(known) else None,
                int(known.max()) if len(known) else None,
            )
        )
    return found
