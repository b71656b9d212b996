"""The commands of the ads application, each run as a person would type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.connectors.log import LogTopic, LogWriter


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_topics_are_created_described_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "create", "events", "log:elsewhere/other", "--partitions", "3"]) == 0
    assert "3 partitions" in said(capsys)
    with LogWriter(LogTopic.open(".penstock/log/events"), fsync="commit") as writer:
        writer.append(1, [b"one", b"two"])
    assert run(["topics", "describe", "events", "--output", "json"]) == 0
    facts = json.loads(said(capsys))["events"]
    assert [part["latest"] for part in facts["details"]] == [0, 2, 0]
    assert run(["topics", "clear", "events"]) == 0
    said(capsys)
    assert run(["topics", "describe", "events", "--output", "json"]) == 0
    cleared = json.loads(said(capsys))["events"]
    assert cleared["partitions"] == 3
    assert [part["records"] for part in cleared["details"]] == [0, 0, 0]
    assert (Path("elsewhere") / "other").is_dir()


def test_missing_topics_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "describe", "nothing"]) == 2
    assert "PS-CONN-006" in capsys.readouterr().err


def test_produce_makes_topics_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["--producers", "1", "--rate", "500", "--duration", "1s", "--arrivals", "uniform", "--output", "json"]
    assert run(["ads", "produce", *load]) == 0
    facts = json.loads(said(capsys))
    assert (facts["durable"], facts["sound"], facts["failed"]) == (500, 500, 0)
    assert run(["ads", "produce", *load, "--backlog", "2000"]) == 0
    assert json.loads(said(capsys))["durable"] == 2000
    assert LogTopic.open(".penstock/log/events").partitions == 2
    assert run(["ads", "mapping"]) == 0
    assert "are there already" in said(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--arrivals", "sometimes"],
        ["--rate", "0"],
        ["--window", "soon"],
        ["--broken", "2"],
        ["--topic", "memory:events"],
    ],
)
def test_wrong_loads_are_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ads", "produce", "--duration", "1s", *arguments]) in (1, 2)
    assert "PS-BENCH" in (error := capsys.readouterr().err) or "duration" in error


def test_a_demo_leaves_other_folders_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    (Path("mine") / "precious").touch()
    assert run(["demo", "--folder", "mine"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (Path("mine") / "precious").exists()


@pytest.mark.slow
def test_demo_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--rate", "2000", "--duration", "3s", "--window", "1s", "--late-by", "30s"]
    assert run(["demo", *quick, "--broken", "0.02", "--late", "0.02", "--output", "json"]) == 0
    report = json.loads(said(capsys))
    assert report["judgement"]["status"] in ("right", "void")
    counts = report["counts"]
    assert counts["lost"] == counts["doubled"] == 0
    assert counts["dead"] > 50
    assert counts["late"] > 50
    assert counts["records"] == counts["accepted"] + counts["late"] + counts["dead"]
    assert [path.suffix for path in sorted(Path(".penstock/reports").iterdir())] == [".html", ".json"]
    place = [f"log:.penstock/demo/log/{name}" for name in ("events", "results")]
    check = ["ads", "check", "--events", place[0], "--results", place[1], "--ledger", ".penstock/demo/ledger"]
    assert run([*check, "--window", "1s"]) == 0
    with LogWriter(LogTopic.open(".penstock/demo/log/events"), fsync="commit") as writer:
        source = Path(".penstock/demo/log/events/p00000")
        assert source.is_dir()
        writer.append(0, [_a_sound_record()])
    assert run([*check, "--window", "1s"]) == 1
    assert "lost 1" in said(capsys)


def _a_sound_record() -> bytes:
    from penstock.connectors.log import LogSource

    source = LogSource(LogTopic.open(".penstock/demo/log/events"))
    records = source.read(1, source.latest(1) - 20, 20, 1 << 20)
    source.close()
    assert records is not None
    last = records.values.to_pylist()[-1]
    assert isinstance(last, bytes)
    return last


@pytest.mark.slow
def test_bench_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "ads", "--backlog", "20000", "--repeat", "2", "--singles", "20", "--output", "json"]) == 0
    figures = json.loads(said(capsys))["figures"]
    assert figures["events"] == pytest.approx(20_000, rel=0.1)
    for name in ("cold_events_per_s", "warm_events_per_s", "single_row_epoch_p50_ms", "start_to_end_s"):
        assert figures[name] > 0
