"""Two reports are compared where they are of the same thing, and refused with the reason where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from penstock.bench.compare import compare_reports
from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import Judgement, Latency, Report, this_machine
from penstock.cli.bench_compare import compare
from penstock.errors import DeclarationError


def made(latency_us: int = 1_000, rate: float = 100.0, status: str = "right", **settings: object) -> Report:
    histogram = LatencyHistogram()
    histogram.add(np.full(10, latency_us, np.int64))
    return Report(
        "t",
        "2026-01-01T00:00:00Z",
        Judgement(status, "h"),  # type: ignore[arg-type]
        this_machine(),
        {"rate_per_s": 5, **settings},  # type: ignore[dict-item]
        {},
        {"records_per_s": rate, "epochs": 3.0, "memory_mb": 0.0},
        (Latency.of("record", "R", "d", histogram),),
    )


def test_more_is_better_for_rates_and_less_for_latencies_and_memory() -> None:
    found = compare_reports(made(), made(2_000, 200.0))
    verdicts = {each.name: each.verdict for each in found.figures}
    assert verdicts["record_p99_ms"] == "worse"
    assert verdicts["records_per_s"] == "better"
    assert verdicts["epochs"] == ""
    assert verdicts["memory_mb"] == "same"
    assert {each.name: each.ratio for each in found.figures}["record_p50_ms"] == pytest.approx(2, rel=0.02)
    assert found.verdict.startswith("mixed")
    assert found.obstacles == ()
    assert compare_reports(made(), made(500)).verdict.startswith("the second is better")
    assert compare_reports(made(), made(1_050)).verdict == "the same"
    assert compare_reports(made(), made(1_050), tolerance=0.01).verdict.startswith("the second is worse")


def test_other_settings_machines_and_void_runs_are_obstacles() -> None:
    assert compare_reports(made(), made(seed=4)).obstacles == ("setting seed: None and 4",)
    bigger = replace(this_machine(), cores=999)
    assert "machine cores" in compare_reports(made(), replace(made(), machine=bigger)).obstacles[0]
    assert "second report is void" in compare_reports(made(), made(status="void")).obstacles[0]
    newer = replace(this_machine(), packages={"duckdb": "9.9"})
    found = compare_reports(made(), replace(made(), machine=newer))
    assert found.obstacles == ()
    assert any(note.startswith("duckdb: ") for note in found.notes)


def test_the_command_refuses_and_can_be_forced(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    made().write_json(first)
    made(900, seed=4).write_json(second)
    refused = CliRunner().invoke(compare, [str(first), str(second)])
    assert isinstance(refused.exception, DeclarationError)
    assert "setting seed" in str(refused.exception)
    forced = CliRunner().invoke(compare, [str(first), str(second), "--force"])
    assert forced.exit_code == 0, forced.output
    assert "not the same: setting seed" in forced.output
    same = CliRunner().invoke(compare, [str(first), str(first), "--output", "json"])
    assert '"verdict": "the same"' in same.output
