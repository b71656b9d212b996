"""Producers, their ledgers and the recount of the topic: what was sent is what is there, also after a kill."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.apps.ads import producer as producing
from penstock.apps.ads.counts import Counts, differences, total
from penstock.apps.ads.faults import FAULTS, Disturbance
from penstock.apps.ads.fleet import Fleet
from penstock.apps.ads.ledger import Ledger, read_ledgers, sound_counts
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.producer import Production, produce, write_backlog
from penstock.apps.ads.recount import Recount, judge, recount
from penstock.apps.ads.results import Fold
from penstock.apps.ads.verdict import compare
from penstock.bench.arrivals import Load
from penstock.bench.latency import LatencyHistogram
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.errors import ConnectorError, RunError
from tests.apps.conftest import BASE_NS, FakeClock, production_in

MAPPING = create_ad_campaign_mappings()


def counted(production: Production, watermark_s: float = 5.0) -> Recount:
    return recount(production.topic, MAPPING, window_s=production.window_s, watermark_s=watermark_s, workers=0)


def stamps(production: Production) -> list[tuple[int, int]]:
    """Event time and produce time of every record, in milliseconds, partition by partition."""
    source = LogSource(LogTopic.open(production.topic))
    values = []
    for partition in source.partitions():
        batch = source.read(partition, 0, 1 << 20, 1 << 30)
        values += batch.values.to_pylist() if batch is not None else []
    source.close()
    events = [judge(value, BASE_NS // 1_000, MAPPING) for value in values]
    return [(event[1] // 1_000_000, event[4]) for event in events if isinstance(event, tuple)]


def test_ledger_and_topic_agree_and_nothing_is_sent_early(tmp_path: Path, clock: FakeClock) -> None:
    production = production_in(tmp_path)
    ledgers = [produce(production, 0, BASE_NS, clock=clock, sleep=clock.sleep)]
    ledgers += [produce(production, 1, BASE_NS, clock=FakeClock(BASE_NS - 10**8), sleep=clock.sleep)]
    found = counted(production)
    assert [ledger.complete for ledger in ledgers] == [True, True]
    assert sum(ledger.durable for ledger in ledgers) == found.records == pytest.approx(6_000, abs=300)
    assert differences(sound_counts(ledgers), found.sound) == []
    assert differences(sound_counts(read_ledgers(Path(production.ledger))), found.accepted) == []
    assert found.dead == {}
    assert all(0 <= produced - event <= 200 for event, produced in stamps(production))


def test_a_send_holds_only_what_is_due_and_says_how_late_it_was(tmp_path: Path, clock: FakeClock) -> None:
    production = production_in(tmp_path, producers=1, arrivals="uniform", load=Load(100), linger_ms=1.0)
    ledger = produce(production, 0, BASE_NS, clock=clock, sleep=clock.sleep)
    lag = LatencyHistogram.from_dict(ledger.lag_us)
    assert ledger.durable == lag.count == 300
    # Uniform arrivals of 100 a second are 10 ms apart: a producer that keeps up sends each by itself.
    assert lag.largest < 2_000
    assert len({produced for _, produced in stamps(production)}) >= 299


def test_a_producer_that_was_held_up_sends_late_and_keeps_the_schedule(tmp_path: Path) -> None:
    held = FakeClock(BASE_NS + 2 * 10**9)
    production = production_in(tmp_path, producers=1, arrivals="uniform", load=Load(100))
    ledger = produce(production, 0, BASE_NS, clock=held, sleep=held.sleep)
    lag = LatencyHistogram.from_dict(ledger.lag_us)
    assert ledger.durable == 300
    assert lag.largest == pytest.approx(2_000_000, rel=0.02)
    assert {event for event, _ in stamps(production)} == {BASE_NS // 1_000_000 + 10 * i for i in range(300)}


def test_total_ends_a_producer(tmp_path: Path, clock: FakeClock) -> None:
    production = production_in(tmp_path, producers=1, total=123)
    assert produce(production, 0, BASE_NS, clock=clock, sleep=clock.sleep).durable == 123
    assert counted(production).records == 123


def test_producers_do_not_share_their_randomness(tmp_path: Path) -> None:
    production = production_in(tmp_path, load=Load(500), duration_s=4.0)
    counts = [
        [len(next(process)) for _ in range(50)]
        for process in (
            producing.arrival_process("poisson")(production.load, producing._generators(production, index)[0])
            for index in range(2)
        )
    ]
    assert abs(np.corrcoef(counts)[0, 1]) < 0.4
    assert counts[0] != counts[1]


@pytest.mark.parametrize("fsync", ["none", "commit", "5ms"])
def test_disturbed_backlog_is_accounted_for(tmp_path: Path, fsync: str) -> None:
    disturbance = Disturbance(broken=0.05, duplicate=0.03, late=0.05, late_by_s=60)
    production = production_in(tmp_path, disturbance, load=Load(2_000), fsync=fsync)
    # What lies in the future is judged by the append time, so this load ends now.
    base_ns = time.time_ns() // 10**9 * 10**9 - 3 * 10**9
    ledgers = [write_backlog(production, index, base_ns) for index in range(2)]
    found = counted(production)
    rule_of = {fault.name: fault.rule for fault in FAULTS}
    expected: dict[str, int] = {}
    for ledger in ledgers:
        for name, count in ledger.broken.items():
            expected[rule_of[name]] = expected.get(rule_of[name], 0) + count
    assert found.dead == expected
    assert found.records == sum(ledger.durable for ledger in ledgers)
    assert differences(sound_counts(ledgers), found.sound) == []
    # The first sound event of a partition meets no watermark yet, so up to two late ones may be in time.
    assert total(found.late).count == pytest.approx(0.05 * 0.95 * found.records, rel=0.2)
    assert total(found.accepted).count + total(found.late).count + sum(found.dead.values()) == found.records


class _Refusing(LogWriter):
    """Refuses the first appends, then all is well."""

    refusals = 0

    def append(self, partition, values, keys=None, *, fence=None):  # type: ignore[no-untyped-def]
        if _Refusing.refusals > 0:
            _Refusing.refusals -= 1
            raise ConnectorError("PS-CONN-003", "refused", retryable=True)
        return super().append(partition, values, keys, fence=fence)


@pytest.mark.parametrize(("refusals", "lost"), [(3, 0), (producing.RETRIES + 1, 1)])
def test_refused_sends_are_repeated_then_counted(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, refusals: int, lost: int
) -> None:
    monkeypatch.setattr(producing, "LogWriter", _Refusing)
    monkeypatch.setattr(producing.time, "sleep", lambda seconds: None)
    _Refusing.refusals = refusals
    production = production_in(tmp_path, producers=1, arrivals="uniform", load=Load(100))
    ledger = produce(production, 0, BASE_NS, clock=clock, sleep=clock.sleep)
    assert (ledger.retries, ledger.failed, ledger.durable) == (refusals, lost, 300 - lost)
    assert differences(ledger.sound, counted(production).sound) == []


def test_a_killed_producer_left_what_it_had_counted(tmp_path: Path) -> None:
    production = production_in(tmp_path, producers=2, load=Load(4_000), duration_s=60.0, fsync="5ms")
    with Fleet(production) as fleet:
        fleet.begin()
        deadline = time.monotonic() + 30
        while (not any(each.durable for each in read_ledgers_of(production))) and time.monotonic() < deadline:
            fleet.poll(0.05)
        os.kill(fleet.process_ids[0], signal.SIGKILL)
        with pytest.raises(RunError, match="PS-BENCH-004"):
            _poll_to_the_end(fleet)
    ledgers = read_ledgers_of(production)
    found = counted(production)
    assert not ledgers[0].complete
    assert 0 < ledgers[0].durable <= found.records
    verdict = compare(ledgers, found, Fold(dict(found.accepted)))
    assert verdict.right, verdict.to_dict()


def _poll_to_the_end(fleet: Fleet) -> None:
    while fleet.poll(0.5):
        pass


def read_ledgers_of(production: Production) -> list[Ledger]:
    return read_ledgers(Path(production.ledger))


@pytest.mark.slow
def test_a_fleet_runs_to_its_end(tmp_path: Path) -> None:
    production = production_in(tmp_path, load=Load(500), duration_s=1.0)
    with Fleet(production) as fleet:
        ledgers = fleet.run()
    assert [ledger.complete for ledger in ledgers] == [True, True]
    assert differences(sound_counts(ledgers), counted(production).accepted) == []


def test_one_lost_and_one_doubled_event_are_seen(tmp_path: Path, clock: FakeClock) -> None:
    production = production_in(tmp_path, producers=1)
    ledger = produce(production, 0, BASE_NS, clock=clock, sleep=clock.sleep)
    found = counted(production)
    first, second = sorted(found.accepted)[:2]
    assert compare([ledger], found, Fold(dict(found.accepted))).right
    moved = dict(found.accepted)
    moved[first] = replace(moved[first], count=moved[first].count - 1)
    moved[second] = replace(moved[second], count=moved[second].count + 1)
    verdict = compare([ledger], found, Fold(moved))
    assert (verdict.right, verdict.lost, verdict.doubled) == (False, 1, 1)
    missing = {cell: counts for cell, counts in found.accepted.items() if cell != first}
    assert compare([ledger], found, Fold(missing)).lost == found.accepted[first].count
    extra = Fold({**found.accepted, (99, 0): Counts(1, 1)})
    assert compare([ledger], found, extra).doubled == 1
    unsent = replace(ledger, sound={**ledger.sound, (99, 0): Counts(1, 1)})
    assert not compare([unsent], found, Fold(dict(found.accepted))).right
    assert not compare([replace(ledger, broken={"null": 1})], found, Fold(dict(found.accepted))).right


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "producer-0.json").write_text('{"format": 1, "sound": [[1]]}')
    with pytest.raises(RunError, match="PS-BENCH-004"):
        read_ledgers(tmp_path)
