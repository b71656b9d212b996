"""The independent recount on records made by hand: lateness per partition and row, and verdicts of any bytes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.apps.ads.counts import total, window_start_us
from penstock.apps.ads.pipeline import RESULTS
from penstock.apps.ads.recount import Recount, judge, recount
from penstock.connectors.log import LogTopic, LogWriter
from penstock.formats.scratch import scratch
from tests.examples import examples

AD = "85802815-28c8-4c10-a5fe-ece6a5e35c97"
MAPPING = {AD: 2}
NOW_S = 1_790_000_000
EVENT = {
    "user_id": "67d94d03-2099-4f20-b479-952d3abb5561",
    "page_id": "63aeb158-0812-4e17-947b-b981c35cb434",
    "ad_id": AD,
    "ad_type": "text",
    "event_type": "view",
    "event_time_ns": NOW_S * 10**9,
    "window_id": 0,
    "ip_address": "61.109.147.20",
    "campaign_id": 2,
    "produce_time": 7,
}


def event_at(seconds: float, **changes: object) -> bytes:
    time_ns = NOW_S * 10**9 + round(seconds * 1e9)
    return json.dumps(EVENT | {"event_time_ns": time_ns} | changes, separators=(",", ":")).encode()


def counted(folder: Path, *partitions: list[bytes]) -> Recount:
    topic = LogTopic.create(folder / "events", len(partitions))
    with LogWriter(topic, fsync="commit") as writer:
        for number, records in enumerate(partitions):
            writer.append(number, records)
    return recount(str(folder / "events"), MAPPING, window_s=10, watermark_s=5, workers=0)


def test_a_row_is_late_when_its_window_ended_at_or_before_the_watermark(tmp_path: Path) -> None:
    # NOW_S is the start of a window. The watermark of 15 s is 10 s, where the first window ends.
    just = counted(tmp_path / "a", [event_at(14.999_999), event_at(9.9), event_at(15), event_at(9.9), event_at(10)])
    assert total(just.accepted).count == 4
    assert total(just.late).count == 1


def test_lateness_is_per_partition(tmp_path: Path) -> None:
    found = counted(tmp_path, [event_at(100)], [event_at(1), event_at(2)])
    assert total(found.late).count == 0


@pytest.mark.parametrize("broken", [event_at(100, ad_type="poster"), event_at(1e9), event_at(100, campaign_id=3)])
def test_a_dead_record_never_moves_the_watermark(tmp_path: Path, broken: bytes) -> None:
    found = counted(tmp_path, [event_at(20), broken, event_at(12)])
    assert (total(found.accepted).count, sum(found.dead.values()), total(found.late).count) == (2, 1, 0)


def test_other_spellings_of_a_sound_record_are_sound() -> None:
    compact = event_at(0)
    spelled = [json.dumps(json.loads(compact), indent=1).encode(), compact.replace(b"text", b"te\\u0078t")]
    spelled.append(json.dumps(dict(reversed(EVENT.items()))).encode())
    spelled.append(compact[:-1] + b',"unknown":[1,{"a":null}]}')
    expected = judge(compact, NOW_S * 10**6, MAPPING)
    assert expected == (AD, NOW_S * 10**9, 2, "view", 7)
    assert [judge(each, NOW_S * 10**6, MAPPING) for each in spelled] == [expected] * 4


@given(st.one_of(st.binary(max_size=60), st.integers(0, 10**6).map(lambda n: _flipped(event_at(0), n))))
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_get_a_verdict_and_both_paths_agree(record: bytes) -> None:
    verdict = judge(record, NOW_S * 10**6, MAPPING)
    # A space at the front is no part of the quick path's expression, and no part of the record's meaning.
    assert judge(b" " + record, NOW_S * 10**6, MAPPING) == verdict


def _flipped(record: bytes, number: int) -> bytes:
    place = number % len(record)
    return record[:place] + bytes([(record[place] + number // len(record)) % 256]) + record[place + 1 :]


def test_the_quick_path_is_quick() -> None:
    record, began = event_at(0), time.perf_counter()
    for _ in range(10_000):
        judge(record, NOW_S * 10**6, MAPPING)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("behind_ns", [1, 37, 500, 999, 1_000, 10**9])
def test_the_job_has_an_event_in_the_same_window_as_the_recount(behind_ns: int) -> None:
    """DuckDB makes of nanoseconds the nearest microsecond, or the one before, as its version has it."""
    at_ns = 1_795_295_850 * 10**9 - behind_ns
    event = f"SELECT 1 AS campaign_id, {at_ns} AS event_time_ns, 'view' AS event_type, 0 AS produce_time"
    query = RESULTS.replace("$window", "INTERVAL 10 SECOND").replace("FROM events", f"FROM ({event})")
    with scratch() as connection:
        ((start_us,),) = connection.execute(f"SELECT epoch_us(window_start) FROM ({query})").fetchall()
    assert start_us == window_start_us(at_ns // 1_000, 10_000_000)
