"""The ads pipeline: events checked against their contract and the campaigns, counted per campaign and window.

The view uses counts and a maximum only, so that a window's state is one row per campaign, however many events it saw.
Times are whole microseconds, rounded down: of a TIMESTAMP_NS DuckDB 2.0 makes the nearest one, which may lie in the
next window, and 1.5 does not.
"""

from __future__ import annotations

from typing import Literal

from penstock.contract.model import Contract, Field
from penstock.contract.patterns import IP, UUID
from penstock.pipeline import Emit, Pipeline

IP_PATTERN = IP


class AdEvent(Contract):
    """One event of the topic `events`. Ids are text, for parsing them to UUIDs would halve the speed."""

    user_id: str = Field(pattern=UUID, pii=True)
    page_id: str = Field(pattern=UUID)
    ad_id: str = Field(pattern=UUID)
    ad_type: Literal["image", "video", "carousel", "text", "story", "shopping", "collection"]
    event_type: Literal["view", "click", "purchase"]
    event_time_ns: int = Field(gt=0)
    window_id: int
    ip_address: str = Field(pattern=IP_PATTERN, pii=True)
    campaign_id: int
    produce_time: int = Field(gt=0)


class AdCampaign(Contract):
    """Which campaign an ad belongs to."""

    ad_id: str = Field(pattern=UUID)
    campaign_id: int


RESULTS = """
SELECT
    campaign_id,
    time_bucket($window, make_timestamp(event_time_ns // 1000)) AS window_start,
    time_bucket($window, make_timestamp(event_time_ns // 1000)) + $window AS window_end,
    count(*) AS count,
    count(*) FILTER (WHERE event_type = 'view') AS views,
    count(*) FILTER (WHERE event_type = 'click') AS clicks,
    count(*) FILTER (WHERE event_type = 'purchase') AS purchases,
    CAST(count(*) FILTER (WHERE event_type = 'click') AS DOUBLE)
        / nullif(count(*) FILTER (WHERE event_type = 'view'), 0) AS click_through_rate,
    max(produce_time) AS max_produce_time
FROM events
GROUP BY campaign_id, time_bucket($window, make_timestamp(event_time_ns // 1000))
"""


def build(emit: Emit = "changes") -> Pipeline:
    """The pipeline; `emit="final"` gives each window once, when the watermark has closed it."""
    ads = Pipeline("ads")
    ads.parameter("window", "10 seconds", type="interval", help="length of the windows")
    ads.parameter("watermark", "5 seconds", type="interval", help="how long a window waits for late events")
    ads.stream(
        "events",
        AdEvent,
        event_time="make_timestamp(event_time_ns // 1000)",
        watermark="$watermark",
        references={"ad_id, campaign_id": "campaigns.(ad_id, campaign_id)"},
    )
    ads.reference("campaigns", AdCampaign, key="ad_id")
    ads.view("results", RESULTS, emit=emit)
    ads.sink("results", view="results")
    return ads


pipeline = build()
pipeline_final = build(emit="final")
