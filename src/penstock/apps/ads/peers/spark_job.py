"""The ads job in Spark: structured streaming over the lines, with a checkpoint, `availableNow`.

A window's row is written when it changes (`update`), as Penstock's `emit = changes` does. Checks: types, patterns,
choices, ranges, times ahead, the reference (the pattern of ad_id follows from its being there). Not checked: fields
that occur twice (the last one counts), text after the end of the object. Records that fail are left out: there are no
dead letters.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from penstock.bench.peers.harness import Row, Work

# Java looks up one property faster than three ranges.
HEX = r"\p{XDigit}"
UUID = rf"^{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}$"
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
V4 = rf"{OCTET}(?:\.{OCTET}){{3}}"
AD_TYPES = ("image", "video", "carousel", "text", "story", "shopping", "collection")
EVENT_TYPES = ("view", "click", "purchase")
SCHEMA = (
    "user_id STRING, page_id STRING, ad_id STRING, ad_type STRING, event_type STRING, event_time_ns BIGINT,"
    " window_id BIGINT, ip_address STRING, campaign_id BIGINT, produce_time BIGINT"
)
ORIGIN_US = 946_857_600_000_000
MAX_AHEAD_NS = 3_600 * 10**9
SESSION = "spark."
"""Options of a session begin so; all others are the job's own."""


class Spark:
    """One session for all runs: later ones find the classes loaded and the code compiled."""

    def __init__(self, work: Work) -> None:
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master(f"local[{work.cores}]").appName("ads")
        for name, value in work.options.items():
            if name.startswith(SESSION):
                builder = builder.config(name, value)
        self._session: SparkSession = builder.getOrCreate()

    def versions(self) -> Mapping[str, str]:
        java = self._session._jvm.java.lang.System.getProperty("java.version")
        return {"spark": self._session.version, "java": str(java)}

    def prepare(self, work: Work) -> None:
        """The scratch folder is enough."""

    def run(self, work: Work) -> None:
        folder = Path(work.folder)

        def write(batch: DataFrame, number: int) -> None:
            # A batch that is run again after a failure replaces what it has written.
            batch.coalesce(1).write.mode("overwrite").json(str(folder / "results" / f"{number:09}"))

        query = (
            _results(self._session, work)
            .writeStream.outputMode("update")
            .option("checkpointLocation", str(folder / "checkpoint"))
            .trigger(availableNow=True)
            .foreachBatch(write)
            .start()
        )
        query.awaitTermination()

    def results(self, work: Work) -> Iterable[Row]:
        newest: dict[tuple[int, int], Row] = {}
        for file in sorted(Path(work.folder, "results").glob("*/part-*.json")):
            for line in file.read_text(encoding="utf-8").splitlines():
                row = tuple(json.loads(line).values())
                newest[row[0], row[1]] = row
        return newest.values()

    def close(self) -> None:
        self._session.stop()


def open_peer(work: Work) -> Spark:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return Spark(work)


def _results(session: SparkSession, work: Work) -> DataFrame:
    from pyspark.sql import functions as f

    seconds = f"{work.window_s:g} seconds"
    events = session.readStream.schema(SCHEMA).json(work.inputs["events"])
    campaigns = session.read.schema("ad_id STRING, campaign_id BIGINT").json(work.inputs["campaigns"])
    if work.options["broadcast"] == "true":
        campaigns = f.broadcast(campaigns)
    sound = (
        events.where(_checks())
        .withColumn("at", f.expr("timestamp_micros(event_time_ns div 1000)"))
        .withWatermark("at", f"{work.watermark_s:g} seconds")
        .join(campaigns, ["ad_id", "campaign_id"])
    )
    # Windows count from ORIGIN_US, as time_bucket of the other engines does.
    shift = f"{ORIGIN_US % round(work.window_s * 1e6)} microseconds"
    kinds = [f.count(f.when(f.col("event_type") == kind, 1)).alias(f"{kind}s") for kind in EVENT_TYPES]
    return (
        sound.groupBy("campaign_id", f.window("at", seconds, startTime=shift))
        .agg(f.count("*").alias("count"), *kinds, f.max("produce_time").alias("max_produce_time"))
        .select(
            "campaign_id",
            f.expr("unix_micros(window.start)").alias("window_start_us"),
            *("count", *(f"{kind}s" for kind in EVENT_TYPES), "max_produce_time"),
        )
    )


def _checks() -> Column:
    from pyspark.sql import functions as f

    address = f.col("ip_address")
    # A value of another type, a missing field and a broken line are null, and null in a filter is no.
    return (
        f.col("event_time_ns").between(1, time.time_ns() + MAX_AHEAD_NS)
        & (f.col("produce_time") > 0)
        & f.col("window_id").isNotNull()
        & f.col("campaign_id").isNotNull()
        & f.col("ad_type").isin(*AD_TYPES)
        & f.col("event_type").isin(*EVENT_TYPES)
        & f.col("user_id").rlike(UUID)
        & f.col("page_id").rlike(UUID)
        & f.when(address.contains(":"), address.rlike(_v6())).otherwise(address.rlike(f"^{V4}$"))
    )


def _v6() -> str:
    group = f"{HEX}{{1,4}}"
    forms = [rf"(?:{group}:){{7}}{group}", rf"(?:{group}:){{1,7}}:", rf":(?:(?::{group}){{1,7}}|:)"]
    forms += [rf"(?:{group}:){{{n}}}(?::{group}){{1,{7 - n}}}" for n in range(1, 7)]
    forms += [rf"(?:{group}:){{6}}{V4}", rf"::(?:{group}:){{0,5}}{V4}"]
    forms += [rf"(?:{group}:){{{n}}}(?::{group}){{0,{5 - n}}}:{V4}" for n in range(1, 6)]
    return f"^(?:{'|'.join(forms)})$"
