"""The latency calculator over topics made by hand, with figures worked out by hand (exact decimals, no numpy)."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from penstock.apps.ads.calculator import Calculation, Calculator, Sight, calculate
from penstock.apps.ads.generate import EVENT_TYPES
from penstock.apps.ads.job import Workplace
from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.report import ads_report, judge
from penstock.apps.ads.timeline import ScheduleWriter
from penstock.apps.ads.trial import Outcome, ended
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import this_machine
from penstock.connectors import log_writer
from penstock.connectors.log import LogTopic, LogWriter
from penstock.errors import RunError

# A window of 10 s of DuckDB's time_bucket begins here: 1,790,000,000 s after 1970 is a multiple of 10.
START_MS = 1_790_000_000_000
START = "2026-09-21T14:13:20"
END = "2026-09-21T14:13:30"
MAPPING = create_ad_campaign_mappings()
ADS = {campaign: ad for ad, campaign in MAPPING.items()}


class Bench:
    """Topics in a folder whose append times are set by hand (milliseconds after the window's start)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, partitions: int) -> None:
        self.place = Workplace(folder)
        self._now_ms = Decimal(0)
        monkeypatch.setattr(log_writer.time, "time_ns", lambda: int((START_MS + self._now_ms) * 1_000_000))
        LogTopic.create(self.place.events, partitions)
        LogTopic.create(self.place.results, 1)
        Path(self.place.ledger).mkdir(parents=True)
        self._sent: list[tuple[int, str]] = []

    def event(self, partition: int, intended_ms: str, sent_ms: int, kind: str = "view", campaign: int = 1) -> None:
        """Append one event; `intended_ms` is its event time."""
        self._now_ms = Decimal(sent_ms)
        record = {
            "user_id": "0b6ef4a3-7a55-4f7c-9e5b-8d4b3b1f0a11",
            "page_id": "1b6ef4a3-7a55-4f7c-9e5b-8d4b3b1f0a11",
            "ad_id": ADS[campaign],
            "ad_type": "image",
            "event_type": kind,
            "event_time_ns": int((START_MS + Decimal(intended_ms)) * 1_000_000),
            "window_id": 0,
            "ip_address": "10.0.0.1",
            "campaign_id": campaign,
            "produce_time": START_MS + sent_ms,
        }
        self._append(self.place.events, partition, record)

    def result(
        self, written_ms: str, views: int, clicks: int, newest_ms: int, campaign: int = 1, **changes: object
    ) -> None:
        """Append one row of results, as a program without retractions writes it."""
        self._now_ms = Decimal(written_ms)
        record = {
            "campaign_id": campaign,
            "window_start": START,
            "window_end": END,
            "count": views + clicks,
            "views": views,
            "clicks": clicks,
            "purchases": 0,
            "click_through_rate": clicks / views if views else None,
            "max_produce_time": START_MS + newest_ms,
        }
        self._append(self.place.results, 0, record | changes)

    def sight(self) -> Sight:
        place = self.place
        return Sight(place.events, place.results, place.ledger, 10.0, 5.0, 10, 100)

    def calculate(self, monkeypatch: pytest.MonkeyPatch) -> Calculation:
        monkeypatch.setattr("penstock.apps.ads.calculator.recount_in_time", _in_this_process())
        return calculate(self.sight())

    def _append(self, topic: str, partition: int, record: dict[str, object]) -> None:
        with LogWriter(LogTopic.open(topic), fsync="none") as writer:
            writer.append(partition, [json.dumps(record, separators=(",", ":")).encode()])


def _in_this_process() -> Callable[..., object]:
    from penstock.apps.ads.recount import recount_in_time

    return lambda *arguments, **options: recount_in_time(*arguments, **options, workers=0)


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch, partitions=1)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch, partitions=2)


def four_events(bench: Bench) -> None:
    """Meant for 1000.25, 2000.5, 2500 and 9990 ms; results at 1010 (one event), 2600.75 (three) and 10020 (four)."""
    bench.event(0, "1000.25", 1001)
    bench.event(0, "2000.5", 2001, "click")
    bench.event(0, "2500", 2502)
    bench.result("1010", 1, 0, 1001)
    bench.result("2600.75", 2, 1, 2502)
    bench.event(0, "9990", 9990)
    bench.result("10020", 3, 1, 9990)


def test_event_and_window_latency_by_hand(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    four_events(one)
    found = one.calculate(monkeypatch)
    measured = found.measured
    assert found.verdict.right, found.verdict.reasons()
    # 1010 - 1000.25, 2600.75 - 2000.5, 2600.75 - 2500, 10020 - 9990, in microseconds
    expected = [Decimal("9.75"), Decimal("600.25"), Decimal("100.75"), Decimal("30")]
    assert Decimal(str(measured.event_mean_us)) / 1000 == sum(expected) / 4
    assert measured.event.count == 4
    assert measured.event.largest == 600_250
    assert measured.event.total == 740_750 == measured.event_least.total
    # The histogram names the upper edge of a bucket: at most 1/128 above.
    assert 30_000 <= measured.event.percentile(50) <= 30_000 * 129 / 128
    # written 10020, newest send 9990, end of the window 10000
    assert (measured.since_send.largest, measured.since_close.largest) == (30_000, 20_000)
    assert (measured.since_send.count, measured.since_close.count) == (1, 1)
    assert [window.start_us for window in measured.windows] == [START_MS * 1_000]
    assert measured.windows[0].event.to_dict() == measured.event.to_dict()


def test_series_by_hand(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    four_events(one)
    throughput, latency, arrivals = one.calculate(monkeypatch).measured.series
    sent, counted = throughput.lines
    # Steps begin at the first intended time, 1000.25 ms: [1000.25, 2000.25), [2000.25, 3000.25), ... [10000.25, ...
    assert sent.values == (1, 2, 0, 0, 0, 0, 0, 0, 1, 0)
    assert counted.values == (1, 2, 0, 0, 0, 0, 0, 0, 0, 1)
    p50, _, p99 = latency.lines
    assert p50.values == (9.75, 100.75, None, None, None, None, None, None, 30.0, None)
    assert p99.values[1] == 600.25
    assert arrivals.step_s == 0.1
    assert [sum(value or 0 for value in line.values) / 10 for line in arrivals.lines] == [4, 4]


def test_partitions_read_in_any_order_are_bounded(two: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views sent in the same millisecond to two partitions: one result holds one of them, nobody knows which."""
    two.event(0, "100", 120)
    two.event(1, "110", 120)
    two.result("130", 1, 0, 120)
    two.result("150", 2, 0, 120)
    measured = two.calculate(monkeypatch).measured
    # Either 30 and 40 (the first partition first) or 50 and 20: 70 in sum in both cases.
    assert measured.event_mean_us == 35_000
    assert measured.event.total == 50_000 + 40_000
    assert measured.event_least.total == 30_000 + 20_000


def test_the_newest_send_and_the_type_say_which_it_was(two: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    two.event(0, "100", 120, "click")
    two.event(1, "110", 121, "view")
    two.result("130", 1, 0, 121)
    two.result("150", 1, 1, 121)
    measured = two.calculate(monkeypatch).measured
    assert measured.event.total == measured.event_least.total == 20_000 + 50_000


def test_the_schedule_is_believed_before_the_event_time(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disordered event carries an event time of 3 s before it was meant to be sent."""
    one.event(0, "1000", 4001)
    one.event(0, "4100", 4101)
    schedule = ScheduleWriter(Path(one.place.ledger), 0)
    schedule.add(0, 0, np.array([(START_MS + 4_000) * 1_000_000]))
    schedule.close()
    one.result("4200", 2, 0, 4101)
    assert one.calculate(monkeypatch).measured.event.total == 200_000 + 100_000


def test_late_events_have_no_latency_and_are_counted(two: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watermark of partition 0 is 15.1 s - 5 s when its second event comes: the window is closed. Not so in 1."""
    two.event(0, "15100", 15100, campaign=2)
    two.event(0, "2000", 15101)
    two.event(1, "3000", 15101)
    two.result("15200", 1, 0, 15101)
    later = {"window_start": END, "window_end": "2026-09-21T14:13:40"}
    two.result("15300", 1, 0, 15100, campaign=2, **later)
    found = two.calculate(monkeypatch)
    assert found.verdict.right, found.verdict.reasons()
    assert found.verdict.late == 1
    assert found.measured.event.count == 2
    assert found.measured.event.total == found.measured.event_least.total == 12_200_000 + 200_000
    report = ads_report(outcome_of(found), {}, "By hand")
    assert [row[:6] for row in report.tables[0].rows] == [("14:13:20", 1, 1, 0, 0, 1), ("14:13:30", 1, 1, 0, 0, 0)]


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"views": 2, "clicks": 1, "newest_ms": 2502}, "4 events expected, 3 found"),
        ({"views": 4, "clicks": 1, "newest_ms": 9990}, "4 events expected, 5 found"),
    ],
)
def test_one_lost_or_doubled_event_is_named_by_its_cell(
    one: Bench, monkeypatch: pytest.MonkeyPatch, last: dict[str, int], words: str
) -> None:
    four_events(one)
    one.result("10030", **last)  # type: ignore[arg-type]
    judgement = judge(outcome_of(one.calculate(monkeypatch)))
    assert judgement.status == "wrong"
    assert judgement.reasons[0] == f"job: campaign 1, window 2026-09-21 14:13:20: {words}"


def test_a_count_that_was_wrong_only_on_the_way_is_found(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one.event(0, "1000", 1000)
    one.event(0, "2000", 2000, "click")
    one.result("2010", 2, 0, 2000)
    one.result("2020", 1, 1, 2000)
    found = one.calculate(monkeypatch)
    assert (found.verdict.lost, found.verdict.doubled, found.verdict.right) == (0, 0, False)
    assert "1 results that no events explain" in found.verdict.reasons()[0]


def test_what_is_no_result_is_a_mistake(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    four_events(one)
    one.result("10040", 3, 1, 9990, campaign_id="one")
    assert "not a result" in one.calculate(monkeypatch).verdict.reasons()[0]


def outcome_of(calculation: Calculation, lag_us: int = 0, failed: int = 0) -> Outcome:
    """The outcome with a lag of the producers as given."""
    lag = LatencyHistogram()
    lag.add(np.full(100, lag_us))
    ledger = Ledger(0, 1, complete=True, failed=failed, lag_us=lag.to_dict())
    with_lag = Calculation(
        [ledger], calculation.counted, calculation.results, calculation.verdict, calculation.measured
    )
    return ended(this_machine(), with_lag, load_s=1.0)


@pytest.mark.parametrize(("lag_us", "status"), [(59_000, "right"), (61_500, "void")])
def test_a_lag_above_a_tenth_of_the_p90_is_void(
    one: Bench, monkeypatch: pytest.MonkeyPatch, lag_us: int, status: str
) -> None:
    four_events(one)
    found = one.calculate(monkeypatch)  # its P90 is 600.25 ms
    judgement = judge(outcome_of(found, lag_us))
    assert judgement.status == status
    assert ("the producers lagged" in "".join(judgement.reasons)) == (status == "void")


def test_events_that_were_not_sent_make_a_run_void(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    four_events(one)
    judgement = judge(outcome_of(one.calculate(monkeypatch), failed=2))
    assert judgement.status == "void"
    assert judgement.reasons == ("2 events could not be sent.",)


def test_the_sum_of_many_times_does_not_overflow(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """6,000 times of 1.79e15 microseconds are more than 64 bits hold."""
    with LogWriter(LogTopic.open(one.place.events), fsync="none") as writer:
        one.event(0, "1000", 1000)
        from penstock.connectors.log import LogSource

        source = LogSource(LogTopic.open(one.place.events))
        batch = source.read(0, 0, 1, 1 << 20)
        source.close()
        assert batch is not None
        writer.append(0, batch.values.to_pylist() * 5_999)
    one.result("1100", 6_000, 0, 1000)
    assert one.calculate(monkeypatch).measured.event_mean_us == 100_000


def test_the_calculator_as_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, partitions=1)
    four_events(bench)
    with Calculator(bench.sight()) as calculator:
        calculator.wait_until_ready(60)
        calculator.recount()
        while not calculator.poll().complete:
            pass
        found = calculator.finish()
    assert found.measured.event.total == 740_750
    assert found.results.history == {}
    assert found.results.cells[1, START_MS * 1_000].count == 4
    assert len(EVENT_TYPES) == 3


def test_a_calculator_that_fails_says_why(tmp_path: Path) -> None:
    sight = Sight(str(tmp_path / "none"), str(tmp_path / "none"), str(tmp_path), 10.0, 5.0, 10, 100)
    with Calculator(sight) as calculator, pytest.raises(RunError, match="PS-BENCH-004"):
        calculator.wait_until_ready(60)


def test_leaving_a_calculator_early_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, partitions=1)
    calculator = Calculator(bench.sight())
    calculator.wait_until_ready(60)
    with pytest.raises(KeyError), calculator:
        raise KeyError
    assert not calculator._process.is_alive()
    assert calculator._process.exitcode == 143
