"""Whole trials as a person types them: our own job, another program, and one that is wrong by a single event."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock.bench.report import read_report
from penstock.cli.main import run

PLAIN = Path(__file__).with_name("plain_job.py").resolve()
QUICK = ["--rate", "500", "--duration", "2s", "--window", "1s", "--report", "report", "--quiet", "2s"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_bench_ads_with_the_shipped_job(capsys: pytest.CaptureFixture[str]) -> None:
    disturbed = [
        "--broken",
        "0.02",
        "--late",
        "0.02",
        "--late-by",
        "30s",
        "--disorder",
        "200ms",
        "--duplicates",
        "0.01",
    ]
    code = run(["bench", "ads", *QUICK, *disturbed, "--arrivals", "mmpp"])
    report = read_report(Path("report.json"))
    assert report.judgement.status in ("right", "void")  # a busy machine cannot measure, but must not lose
    assert code == (0 if report.judgement.status == "right" else 1)
    counts = report.counts
    assert counts["records"] == counts["accepted"] + counts["late"] + counts["dead"] == counts["sent"]
    assert counts["lost"] == counts["doubled"] == counts["not_sent"] == 0
    assert counts["late"] > 5
    assert counts["dead"] > 5
    event = report.latency("event")
    assert event is not None
    assert event.count == counts["accepted"]
    assert 0 < event.p50_ms <= event.p90_ms <= event.p99_ms <= event.max_ms
    assert [series.name for series in report.series] == ["throughput", "latency", "arrivals", "memory", "disk"]
    assert report.settings["arrivals"] == "mmpp"
    assert capsys.readouterr().out.splitlines()[-1] == "report.html"
    assert "<h1>Ad campaigns: mmpp arrivals</h1>" in Path("report.html").read_text()


@pytest.mark.slow
def test_final_results_come_when_windows_close() -> None:
    run(["bench", "ads", *QUICK, "--emit", "final", "--watermark", "100ms", "--arrivals", "uniform"])
    report = read_report(Path("report.json"))
    assert report.judgement.status in ("right", "void"), report.judgement
    assert report.counts["accepted"] == 2_000


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "lost", "doubled"), [("", 0, 0), ("--lose", 1, 0), ("--double", 0, 1)])
def test_another_program_gets_the_same_counts_and_the_same_report(
    fault: str, lost: int, doubled: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["bench", "ads", *QUICK, "--job", f"{sys.executable} {PLAIN} {fault}"])
    report = read_report(Path("report.json"))
    assert (report.counts["lost"], report.counts["doubled"]) == (lost, doubled)
    error = capsys.readouterr().err
    if fault:
        assert code == 1
        assert report.judgement.status == "wrong"
        assert "PS-BENCH-001" in error
        assert "campaign" in error
        assert "window" in error
        return
    assert report.judgement.status in ("right", "void"), report.judgement
    event, least = report.latency("event"), report.latency("event_least")
    assert event is not None
    assert least is not None
    assert event.count == least.count == report.counts["accepted"]
    assert least.p50_ms <= event.p50_ms
    # The same figures again, from the topics alone.
    place = ["--events", "log:.penstock/bench/log/events", "--results", "log:.penstock/bench/log/results"]
    options = ["--ledger", ".penstock/bench/ledger", "--window", "1s", "--report", "again", "--output", "json"]
    run(["ads", "latency", *place, *options])
    assert json.loads(capsys.readouterr().out)["latencies"][0]["bins"] == [list(each) for each in event.bins]


def test_presets_are_defaults_that_typed_options_win_over(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def stop(place, production, plan, *, partitions, **options):  # type: ignore[no-untyped-def]
        seen.append((production.producers, production.load.rate, partitions, production.window_s, production.arrivals))
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.cli.bench.Trial", stop)
    for options in (
        [],
        ["--preset", "high-throughput"],
        ["--preset", "high-throughput", "--rate", "7", "--partitions", "3"],
        ["--preset", "low-latency"],
        ["--arrivals", "uniform", "--preset", "bursty"],
        ["--preset", "bursty"],
    ):
        assert run(["bench", "ads", *options]) == 130
    assert seen == [
        (2, 20_000, 2, 10, "poisson"),
        (4, 50_000, 4, 10, "poisson"),
        (4, 7, 3, 10, "poisson"),
        (2, 20_000, 1, 5, "poisson"),
        (2, 20_000, 2, 10, "uniform"),
        (2, 20_000, 2, 10, "mmpp"),
    ]


def test_another_folder_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    (Path("mine") / "precious").touch()
    assert run(["bench", "ads", "--folder", "mine"]) == 2
    assert (Path("mine") / "precious").exists()


@pytest.mark.slow
def test_memory_stays_flat_and_the_log_follows_its_retention(capsys: pytest.CaptureFixture[str]) -> None:
    run(["bench", "ads", "--rate", "2000", "--duration", "63s", "--window", "1s", "--report", "report", "--quiet", "2s",
         "--retention", "10s", "--profile"])  # fmt: skip
    report = read_report(Path("report.json"))
    assert report.judgement.status in ("right", "void"), report.judgement
    tables = {table.name: table for table in report.tables}
    taken = {str(row[0]): dict(zip(tables["footprint"].columns, row, strict=True)) for row in tables["footprint"].rows}
    assert taken["memory of the job"]["verdict"] == "flat", taken
    assert taken["topic results"]["verdict"] == "flat", taken
    # of what was written in over a minute no more is held than retention allows
    slopes = {name: float(str(each["slope, MB/min"])) for name, each in taken.items()}
    assert slopes["topic results"] < 0.5 * slopes["topic events"]
    assert report.figures["memory_max_mb"] >= report.figures["memory_p50_mb"] > 50
    memory = next(series for series in report.series if series.name == "memory")
    assert len(memory.lines[0].values) >= 62
    *parts, whole = tables["profile"].rows
    assert sum(float(str(row[2])) for row in parts) == pytest.approx(float(str(whole[2])))
    assert "Where the time goes" in capsys.readouterr().out
    page = Path("report.html").read_text()
    assert "Memory of the job" in page
    assert "Where the time goes" in page
