"""Metrics: each run its own, served as text, a port in use is a clear error."""

from __future__ import annotations

from urllib.request import urlopen

import pytest

from penstock.errors import RunError
from penstock.observe.metrics import Metrics, SourceCounts


def test_rows_add_up_and_are_served() -> None:
    metrics = Metrics("p")
    for _ in range(2):
        metrics.source("s", SourceCounts(rows_in=10, accepted=6, duplicate=1, dead=2, late=1))
    metrics.sink("out", 4)
    metrics.epoch(7, rows=10, duration_s=0.5, commit_s=0.01)
    metrics.computed_again("v")
    metrics.lag("s", 3)
    metrics.watermark("s", 1_500_000)
    metrics.state_size(4096)
    metrics.error("PS-RUN-001")
    with metrics.serve(0) as server, urlopen(server.url) as answer:
        lines = set(answer.read().decode().splitlines())
    assert {
        'penstock_rows_in_total{pipeline="p",source="s"} 20.0',
        'penstock_rows_accepted_total{pipeline="p",source="s"} 12.0',
        'penstock_rows_duplicate_total{pipeline="p",source="s"} 2.0',
        'penstock_rows_dead_total{pipeline="p",source="s"} 4.0',
        'penstock_rows_late_total{pipeline="p",source="s"} 2.0',
        'penstock_rows_out_total{pipeline="p",sink="out"} 4.0',
        'penstock_epoch{pipeline="p"} 7.0',
        'penstock_epoch_duration_seconds_count{pipeline="p"} 1.0',
        'penstock_commit_duration_seconds_sum{pipeline="p"} 0.01',
        'penstock_throughput_rows_per_second{pipeline="p"} 20.0',
        'penstock_views_computed_again_total{pipeline="p",view="v"} 1.0',
        'penstock_lag_rows{pipeline="p",source="s"} 3.0',
        'penstock_watermark_seconds{pipeline="p",source="s"} 1.5',
        'penstock_state_bytes{pipeline="p"} 4096.0',
        'penstock_errors_total{code="PS-RUN-001",pipeline="p"} 1.0',
    } <= lines


def test_two_runs_in_one_process_do_not_share_counts() -> None:
    first, second = Metrics("p"), Metrics("p")
    first.sink("out", 4)
    assert 'sink="out"' not in second.text()


def test_a_port_in_use_is_a_clear_error() -> None:
    with Metrics("a").serve(0) as server, pytest.raises(RunError, match=r"PS-RUN-005[\s\S]*is in use"):
        Metrics("b").serve(server.port)


def test_a_port_that_is_none() -> None:
    with pytest.raises(RunError, match="PS-RUN-005"):
        Metrics("a").serve(70_000)
