"""The ads job in Flink SQL: a local mini cluster in streaming mode over the lines, with checkpoints.

A window's row is written once, when the watermark has closed it. Checks: patterns, choices, ranges, times ahead, the
reference, missing fields and null. Not checked: a number written as a text, and a fraction where an integer belongs
(the JSON format of Flink converts both), fields that occur twice (the first one counts), text after the end of the
object. Records that fail are left out: there are no dead letters.

The reference is lists of constants: as a table it would be a join that keeps every event in its state. The pattern of
ad_id follows from its being in the reference.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyflink.table import TableEnvironment

    from penstock.bench.peers.harness import Row, Work

# Java looks up one property faster than three ranges.
HEX = r"\p{XDigit}"
UUID = rf"^{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}$"
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
V4 = rf"{OCTET}(?:\.{OCTET}){{3}}"
AD_TYPES = ("image", "video", "carousel", "text", "story", "shopping", "collection")
EVENT_TYPES = ("view", "click", "purchase")
ORIGIN_US = 946_857_600_000_000
MAX_AHEAD_NS = 3_600 * 10**9
OWN_OPTIONS = ("jvm",)


class Flink:
    """One Java process for all runs; every run starts a mini cluster in it."""

    def __init__(self, work: Work) -> None:
        from pyflink.table import EnvironmentSettings, TableEnvironment

        self._settings = EnvironmentSettings
        self._environment = TableEnvironment

    def versions(self) -> Mapping[str, str]:
        from pyflink.java_gateway import get_gateway

        java = get_gateway().jvm.System.getProperty("java.version")
        return {"flink": version("apache-flink"), "java": str(java)}

    def prepare(self, work: Work) -> None:
        """The scratch folder is enough."""

    def run(self, work: Work) -> None:
        environment = self._environment.create(self._settings.in_streaming_mode())
        options = {name: value for name, value in work.options.items() if name not in OWN_OPTIONS}
        options["execution.checkpointing.dir"] = Path(work.folder, "checkpoints").as_uri()
        options["table.local-time-zone"] = "UTC"
        for name, value in options.items():
            environment.get_config().set(name, value)
        _declare(environment, work)
        environment.execute_sql(_insert(work)).wait()

    def results(self, work: Work) -> Iterable[Row]:
        for file in sorted(Path(work.folder, "results").glob("part-*")):
            for line in file.read_text(encoding="utf-8").splitlines():
                yield tuple(json.loads(line).values())

    def close(self) -> None:
        """The Java process ends with this one."""


def open_peer(work: Work) -> Flink:
    if "jvm" in work.options:
        os.environ["JVM_ARGS"] = work.options["jvm"]
    return Flink(work)


def _declare(environment: TableEnvironment, work: Work) -> None:
    environment.execute_sql(
        f"""
        CREATE TABLE events (
            user_id STRING, page_id STRING, ad_id STRING, ad_type STRING, event_type STRING, event_time_ns BIGINT,
            window_id BIGINT, ip_address STRING, campaign_id BIGINT, produce_time BIGINT,
            event_at AS TO_TIMESTAMP_LTZ(event_time_ns / 1000000, 3),
            WATERMARK FOR event_at AS event_at - INTERVAL '{work.watermark_s:g}' SECOND
        ) WITH ('connector' = 'filesystem', 'path' = '{Path(work.inputs["events"]).as_uri()}', 'format' = 'json',
                'json.ignore-parse-errors' = 'true')
        """
    )
    columns = ("campaign_id", "window_start_us", "count", "views", "clicks", "purchases", "max_produce_time")
    environment.execute_sql(
        f"""
        CREATE TABLE results ({", ".join(f"`{name}` BIGINT" for name in columns)})
        WITH ('connector' = 'filesystem', 'path' = '{Path(work.folder, "results").as_uri()}', 'format' = 'json')
        """
    )


def _insert(work: Work) -> str:
    kinds = ", ".join(f"COUNT(*) FILTER (WHERE event_type = '{kind}')" for kind in EVENT_TYPES)
    seconds = f"{work.window_s:g}"
    start = "CAST(TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', window_start) AS BIGINT) * 1000000"
    # Windows count from ORIGIN_US, as time_bucket of the other engines does.
    shift = f"{ORIGIN_US / 1e6 % work.window_s:g}"
    window = f"TUMBLE(TABLE sound, DESCRIPTOR(event_at), INTERVAL '{seconds}' SECOND, INTERVAL '{shift}' SECOND)"
    return f"""
        INSERT INTO results
        WITH sound AS (SELECT * FROM events WHERE {_checks(work)})
        SELECT campaign_id, {start},
            COUNT(*), {kinds}, MAX(produce_time)
        FROM {window}
        GROUP BY campaign_id, window_start, window_end
    """


def _checks(work: Work) -> str:
    ads: dict[int, list[str]] = {}
    for line in Path(work.inputs["campaigns"]).read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        ads.setdefault(pair["campaign_id"], []).append(f"'{pair['ad_id']}'")
    belongs = " ".join(f"WHEN {campaign} THEN ad_id IN ({', '.join(known)})" for campaign, known in ads.items())
    # A missing field and a broken line are null, and null in a filter is no.
    return f"""
        event_time_ns BETWEEN 1 AND {time.time_ns() + MAX_AHEAD_NS} AND produce_time > 0
        AND window_id IS NOT NULL AND campaign_id IS NOT NULL
        AND ad_type IN {AD_TYPES} AND event_type IN {EVENT_TYPES}
        AND REGEXP(user_id, '{UUID}') AND REGEXP(page_id, '{UUID}')
        AND CASE WHEN LOCATE(':', ip_address) > 0 THEN REGEXP(ip_address, '{_v6()}')
                 ELSE REGEXP(ip_address, '^{V4}$') END
        AND CASE campaign_id {belongs} ELSE FALSE END
    """


def _v6() -> str:
    group = f"{HEX}{{1,4}}"
    forms = [rf"(?:{group}:){{7}}{group}", rf"(?:{group}:){{1,7}}:", rf":(?:(?::{group}){{1,7}}|:)"]
    forms += [rf"(?:{group}:){{{n}}}(?::{group}){{1,{7 - n}}}" for n in range(1, 7)]
    forms += [rf"(?:{group}:){{6}}{V4}", rf"::(?:{group}:){{0,5}}{V4}"]
    forms += [rf"(?:{group}:){{{n}}}(?::{group}){{0,{5 - n}}}:{V4}" for n in range(1, 6)]
    return f"^(?:{'|'.join(forms)})$"
