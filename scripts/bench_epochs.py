"""What a small epoch costs in the engine: durable epochs of one row and more, by the views that they touch.

`python scripts/bench_epochs.py [EPOCHS]`. All cases run in turn, so that what else the machine does meets them alike.
`kept` is how small epochs run, `planned` how large ones do; `cpu` is the CPU time of the whole process per epoch.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

import penstock as ps
from penstock.connectors.base import RawBatch
from penstock.engines.base import EpochInput, SourceInput
from penstock.engines.duckdb.engine import SMALL_EPOCH, DuckState, compile_for_duckdb

WARM_UP = 10
SOURCES = """
CREATE STREAM sales (shop BIGINT NOT NULL, kind VARCHAR NOT NULL, amount BIGINT NOT NULL, CHECK (amount >= 0));
CREATE STREAM quiet (shop BIGINT NOT NULL, amount BIGINT NOT NULL);
"""
VIEW = """
CREATE VIEW {name} AS SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS largest,
    count(*) FILTER (WHERE kind = 'refund') AS refunds FROM {source} GROUP BY shop;
CREATE SINK {name}_out FROM {name};
"""


@dataclass
class Case:
    """One pipeline in a state of its own. touched, idle: its views with rows and without."""

    name: str
    rows: int
    touched: int
    idle: int
    small_epoch: int
    walls_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def open(self, folder: Path) -> None:
        views = [VIEW.format(name=f"v{n}", source="sales") for n in range(self.touched)]
        views += [
            VIEW.format(name=f"idle{n}", source="quiet").replace("kind = 'refund'", "amount < 0")
            for n in range(self.idle)
        ]
        graph = ps.Pipeline.from_sql(SOURCES + "".join(views), name="bench").graph()
        self.state = DuckState(compile_for_duckdb(graph, in_memory=False), folder, small_epoch=self.small_epoch)

    def run(self, epoch: int) -> None:
        given = EpochInput(epoch, {"sales": SourceInput((records(epoch, self.rows),), {})}, replay_to=0)
        began, began_cpu = time.perf_counter(), time.process_time()
        result = self.state.run(given)
        if epoch >= WARM_UP:
            self.walls_s.append(time.perf_counter() - began)
            self.cpu_s += time.process_time() - began_cpu
        for sink in result.changes:
            self.state.delivered(sink, epoch)

    def line(self) -> str:
        p50, p99 = np.percentile(self.walls_s, (50, 99)) * 1e3
        return (
            f"{self.name:38} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   cpu {self.cpu_s / len(self.walls_s) * 1e3:7.2f} ms"
        )


def records(epoch: int, count: int) -> RawBatch:
    """Clean events."""
    first = epoch * count
    values = [
        json.dumps({"shop": n % 50, "kind": "refund" if n % 7 == 0 else "sale", "amount": n}, separators=(",", ":"))
        for n in range(first, first + count)
    ]
    binary = pa.chunked_array([pa.array([value.encode() for value in values], pa.binary())])
    return RawBatch(0, binary, pa.chunked_array([pa.array(range(first, first + count), pa.int64())]), first + count)


def main(epochs: int) -> None:
    cases = [
        Case("1 row, planned", 1, 1, 0, 0),
        Case("1 row, kept", 1, 1, 0, SMALL_EPOCH),
        Case("1 row, kept, 10 idle views more", 1, 1, 10, SMALL_EPOCH),
        Case("1 row, kept, 10 touched views", 1, 10, 0, SMALL_EPOCH),
        Case("500 rows, planned", 500, 1, 0, 0),
        Case("500 rows, kept", 500, 1, 0, SMALL_EPOCH),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            place = Path(folder) / str(number)
            place.mkdir()
            case.open(place)
        for epoch in range(WARM_UP + epochs):
            for case in cases:
                case.run(epoch)
        for case in cases:
            case.state.close()
    print(f"DuckDB {duckdb.__version__}, load average {os.getloadavg()[0]:.1f}")
    for case in cases:
        print(case.line())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
