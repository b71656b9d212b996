"""What judging a record costs: CPU time per ad event, for a lenient parse, the strict statement and the kernel.

`python scripts/bench_judging.py [RECORDS]`. One thread, clean compact JSON, the best of several runs, in turn. Every
line ends in the same aggregate, and fails if a record is not accepted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from penstock.apps.ads.generate import Renderer
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.pipeline import pipeline
from penstock.connectors.base import RawBatch
from penstock.formats.compiled import loader
from penstock.formats.decode import Decoder, decoder_for

WINDOW_NS = 10 * 10**9
START_NS = 1_700_000_000_000_000_000
CHUNK = 20_000
READ = ("ad_id", "event_type", "event_time_ns", "campaign_id", "produce_time")
AGGREGATE = (
    "SELECT count(*) FILTER (WHERE {ok}), max(ad_id), max(event_type), sum(campaign_id), max(produce_time) FROM {rows}"
)
REPEATS = 5


def records(count: int) -> RawBatch:
    """Clean events, a prime number of nanoseconds apart."""
    renderer = Renderer(create_ad_campaign_mappings(), np.random.default_rng(1), base_ns=START_NS, window_ns=WINDOW_NS)
    values = renderer.render(START_NS + np.arange(count) * 49_999).values(0, count)
    chunks = [values.slice(start, CHUNK) for start in range(0, count, CHUNK)]
    times = pa.repeat(pa.scalar(START_NS // 1000 + 60_000_000, pa.int64()), count).cast(pa.timestamp("us"))
    return RawBatch(
        0, pa.chunked_array(chunks), pa.chunked_array([pa.array(range(count))]), count, None, pa.chunked_array([times])
    )


def lenient(*, checked: bool) -> str:
    """DuckDB's own parse, without any rule."""
    names = json.dumps(dict.fromkeys(READ, "VARCHAR") | dict.fromkeys(READ[2:], "BIGINT"))
    parse = f"from_json(_ps_v, '{names}')"
    parse = f"CASE WHEN json_valid(_ps_v) THEN {parse} END" if checked else parse
    return f"(SELECT unnest({parse}) FROM raw)"


def proven(judge: Decoder, batch: RawBatch, connection: duckdb.DuckDBPyConnection) -> str:
    """The kernel, and what SQL adds to it."""
    split = judge.prove([batch], columns=READ, threads=1)
    assert split is not None, "the extra fast is not installed"
    connection.register("proven", split.proven)
    return f"({judge.select_proven('proven', guarded=False, columns=READ)})"


def measure(count: int) -> list[tuple[str, float]]:
    """Nanoseconds of CPU per record, by line."""
    source = next(s for s in pipeline.graph().sources if s.name == "events")
    judge = decoder_for(source.schema, "json", event_time=source.event_time, max_ahead=source.max_ahead)
    batch = records(count)
    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    connection.register("raw", judge.stage([batch]))
    loader.load()
    lines: Sequence[tuple[str, str, Callable[[], str]]] = [
        ("lenient `from_json`", "true", lambda: lenient(checked=False)),
        ("lenient, `json_valid` first", "true", lambda: lenient(checked=True)),
        ("strict statement, unguarded", "_ps_ok", lambda: f"({judge.select('raw', guarded=False, columns=READ)})"),
        ("strict statement, guarded", "_ps_ok", lambda: f"({judge.select('raw', guarded=True, columns=READ)})"),
        ("strict, by the kernel", "_ps_ok", lambda: proven(judge, batch, connection)),
    ]
    best = {name: float("inf") for name, _, _ in lines}
    for _ in range(REPEATS):
        for name, ok, rows in lines:
            began = time.process_time()
            found = connection.execute(AGGREGATE.format(ok=ok, rows=rows())).fetchall()[0][0]
            best[name] = min(best[name], (time.process_time() - began) / count * 1e9)
            if found != count:
                raise SystemExit(f"{name}: {found} of {count} records accepted")
    return list(best.items())


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    found = measure(count)
    base = found[0][1]
    print(f"DuckDB {duckdb.__version__}, {count:,} records, best of {REPEATS}\n")
    print("| statement | ns per record | share of the lenient speed |\n|---|---|---|")
    for name, cost in found:
        print(f"| {name} | {cost:.0f} | {base / cost:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
