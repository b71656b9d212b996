"""The strict fold of the results topic, and the address pattern of the contract."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.apps import APPLICATIONS
from penstock.apps.ads.counts import Counts
from penstock.apps.ads.pipeline import IP_PATTERN, build
from penstock.apps.ads.results import Fold
from penstock.load import load_pipeline

WINDOW_US = 10_000_000
START_US = 1_790_000_000_000_000


def record(operation: str, count: int, **changes: object) -> dict[str, object]:
    return {
        "campaign_id": 1,
        "window_start": "2026-09-21T14:13:20.000000",
        "window_end": "2026-09-21T14:13:30.000000",
        "count": count,
        "views": count,
        "clicks": 0,
        "purchases": 0,
        "click_through_rate": 0.0 if count else None,
        "max_produce_time": 5,
        "_op": operation,
        "_epoch": 3,
        "_seq": 0,
    } | changes


def fold(*records: dict[str, object]) -> Fold:
    result = Fold()
    for each in records:
        result.apply(each, WINDOW_US)
    return result


def test_updates_replace_and_deletes_remove() -> None:
    result = fold(record("+I", 1), record("-U", 1), record("+U", 2))
    assert result.mistakes == []
    assert result.cells == {(1, START_US): Counts(2, 2, 0, 0, 5)}
    assert result.epoch == 3
    assert fold(record("+I", 1), record("-D", 1)).cells == {}


@pytest.mark.parametrize(
    "records",
    [
        (record("+I", 1), record("+I", 1)),
        (record("-U", 1),),
        (record("+I", 1), record("-U", 2), record("+U", 3)),
        (record("+I", 1, window_end="2026-09-21T14:13:31"),),
        (record("+I", 1, click_through_rate=0.5),),
        (record("!", 1),),
    ],
)
def test_what_does_not_fit_is_a_mistake(records: tuple[dict[str, object], ...]) -> None:
    assert len(fold(*records).mistakes) == 1


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))
def test_every_address_keeps_the_pattern(address: str) -> None:
    assert re.search(IP_PATTERN, address)


@given(st.text("0123456789abcf:.", max_size=24))
def test_the_pattern_says_what_the_standard_library_says(text: str) -> None:
    try:
        ipaddress.ip_address(text)
        valid = True
    except ValueError:
        valid = False
    assert bool(re.search(IP_PATTERN, text)) == valid


@pytest.mark.parametrize("text", ["::", "::1", "1::", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1:2::3.4.5.6", "::1.2.3.4"])
def test_short_forms(text: str) -> None:
    ipaddress.ip_address(text)
    assert re.search(IP_PATTERN, text)


@pytest.mark.parametrize("emit", ["changes", "final"])
def test_the_application_declares_without_mistakes(emit: str) -> None:
    graph = build(emit).graph({"window": "5s"})
    assert [source.name for source in graph.sources] == ["events", "campaigns"]
    assert graph.view("results").emit == emit
    assert load_pipeline("ads").name == "ads"
    assert set(APPLICATIONS) >= {"ads"}


@pytest.mark.parametrize("emit", ["changes", "final"])
def test_the_view_in_a_session(emit: str) -> None:
    event = {
        "user_id": "67d94d03-2099-4f20-b479-952d3abb5561",
        "page_id": "63aeb158-0812-4e17-947b-b981c35cb434",
        "ad_id": "85802815-28c8-4c10-a5fe-ece6a5e35c97",
        "ad_type": "text",
        "event_type": "view",
        "event_time_ns": START_US * 1_000 + 999,
        "window_id": 0,
        "ip_address": "61.109.147.20",
        "campaign_id": 2,
        "produce_time": 7,
    }
    with build(emit).open() as session:
        session.replace("campaigns", [{"ad_id": event["ad_id"], "campaign_id": 2}])
        session.commit()
        later = event["event_time_ns"] + 30 * 10**9
        session.insert("events", [event, event | {"event_type": "click"}, event | {"campaign_id": 3}])
        session.insert("events", [event | {"event_time_ns": later, "event_type": "purchase"}])
        session.commit()
        session.commit()
        rows = sorted(session.read("results").to_pylist(), key=lambda row: row["window_start"])
        letters = session.dead_letters()
    assert len(rows) == (2 if emit == "changes" else 1)
    assert str(rows[0]["window_start"]) == "2026-09-21 14:13:20"
    assert str(rows[0]["window_end"]) == "2026-09-21 14:13:30"
    assert {name: rows[0][name] for name in ("campaign_id", "count", "views", "clicks", "purchases")} == {
        "campaign_id": 2,
        "count": 2,
        "views": 1,
        "clicks": 1,
        "purchases": 0,
    }
    assert (rows[0]["click_through_rate"], rows[0]["max_produce_time"]) == (1.0, 7)
    if emit == "changes":
        assert rows[1]["click_through_rate"] is None
    assert len(letters) == 1
