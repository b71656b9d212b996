"""The ads job in Polars: a lazy scan of the lines with a schema, one batch, one durable file at the end.

It knows no epochs, watermarks, dead letters or changes. Checks: types (a number in a text's place fails the pattern),
patterns, choices, ranges, times ahead, the reference (the pattern of ad_id follows from its being there). Not checked:
fields that occur twice (the first one counts). A line that is not JSON, or not UTF-8, ends the query with an error:
`ignore_errors` covers values, not lines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from penstock.bench.peers.harness import Row, Work

UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
V4 = rf"{OCTET}(\.{OCTET}){{3}}"
AD_TYPES = ("image", "video", "carousel", "text", "story", "shopping", "collection")
EVENT_TYPES = ("view", "click", "purchase")
TEXTS = ("user_id", "page_id", "ad_id", "ad_type", "event_type", "ip_address")
NUMBERS = ("event_time_ns", "window_id", "campaign_id", "produce_time")
ORIGIN_US = 946_857_600_000_000
MAX_AHEAD_NS = 3_600 * 10**9


class Polars:
    """Its thread pool is what stays between runs."""

    def versions(self) -> Mapping[str, str]:
        import polars as pl

        return {"polars": pl.__version__}

    def prepare(self, work: Work) -> None:
        """The scratch folder is enough."""

    def run(self, work: Work) -> None:
        result = _query(work).collect(engine=work.options["engine"])
        with Path(work.folder, "results.parquet").open("wb") as file:
            result.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())

    def results(self, work: Work) -> Iterable[Row]:
        import polars as pl

        rows: list[Row] = pl.read_parquet(Path(work.folder, "results.parquet")).rows()
        return rows

    def close(self) -> None:
        """There is nothing to close."""


def open_peer(work: Work) -> Polars:
    # Read by Polars when it is imported for the first time.
    os.environ["POLARS_MAX_THREADS"] = str(work.cores)
    return Polars()


def _query(work: Work) -> pl.LazyFrame:
    import polars as pl

    schema = dict.fromkeys(TEXTS, pl.String) | dict.fromkeys(NUMBERS, pl.Int64)
    events = pl.scan_ndjson(Path(work.inputs["events"]), schema=schema, ignore_errors=True)
    campaigns = pl.scan_ndjson(work.inputs["campaigns"], schema={"ad_id": pl.String, "campaign_id": pl.Int64})
    window_us = round(work.window_s * 1e6)
    start_us = ORIGIN_US + (pl.col("event_time_ns") // 1_000 - ORIGIN_US) // window_us * window_us
    sound = events.filter(_checks()).with_columns(window_start_us=start_us)
    keys = ["campaign_id", "window_start_us"]
    counts = [
        pl.len().cast(pl.Int64).alias("count"),
        *((pl.col("event_type") == kind).sum().cast(pl.Int64).alias(f"{kind}s") for kind in EVENT_TYPES),
        pl.col("produce_time").max().alias("max_produce_time"),
    ]
    # Joining a thousand counts per ad instead of the events was tried: no faster.
    return sound.join(campaigns, on=["ad_id", "campaign_id"]).group_by(keys).agg(counts)


def _checks() -> pl.Expr:
    import polars as pl

    address = pl.col("ip_address")
    # A missing field is null, and null in a filter is no.
    return (
        pl.col("user_id").str.contains(UUID)
        & pl.col("page_id").str.contains(UUID)
        & pl.col("ad_type").is_in(AD_TYPES)
        & pl.col("event_type").is_in(EVENT_TYPES)
        & pl.col("event_time_ns").is_between(1, time.time_ns() + MAX_AHEAD_NS)
        & pl.col("window_id").is_not_null()
        & pl.col("campaign_id").is_not_null()
        & (pl.col("produce_time") > 0)
        & (address.str.contains(f"^{V4}$") | address.str.contains(_v6()))
    )


def _v6() -> str:
    group = "[0-9a-fA-F]{1,4}"
    forms = [rf"({group}:){{7}}{group}", rf"({group}:){{1,7}}:", rf":((:{group}){{1,7}}|:)"]
    forms += [rf"({group}:){{{n}}}(:{group}){{1,{7 - n}}}" for n in range(1, 7)]
    forms += [rf"({group}:){{6}}{V4}", rf"::({group}:){{0,5}}{V4}"]
    forms += [rf"({group}:){{{n}}}(:{group}){{0,{5 - n}}}:{V4}" for n in range(1, 6)]
    return f"^({'|'.join(forms)})$"
