"""The margin application as a user runs it: a simulated market in, files out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock.apps.margin.market import Market, Simulation
from penstock.cli.main import run

START = datetime(2026, 1, 5, 14, 30)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_market_follows_from_its_seed() -> None:
    def made(seed: int) -> list[object]:
        simulation = Simulation(Market(accounts=3, symbols=4, seed=seed, crash_at_s=1), START)
        return [*simulation.opening(), *simulation.second(0), *simulation.second(1)]

    assert made(1) == made(1) != made(2)


def test_a_crash_takes_every_price_down_by_its_beta() -> None:
    quiet, crashed = (
        Simulation(Market(accounts=1, symbols=6, ticks=0, fills=0, seed=3, crash_at_s=at, crash=0.5), START)
        for at in (None, 0)
    )
    opening = {r.key: json.loads(r.value) for r in quiet.opening() if r.topic == "prices"}
    betas = {r.key: float(json.loads(r.value)["beta"]) for r in crashed.opening() if r.topic == "betas"}
    fallen = {r.key: json.loads(r.value) for r in crashed.second(0)}
    assert quiet.second(0) == []
    for symbol, beta in betas.items():
        ratio = float(fallen[symbol]["price"]) / float(opening[symbol]["price"])
        assert ratio == pytest.approx(0.5**beta, rel=0.02)


@pytest.mark.slow
def test_prices_and_betas_of_the_future_are_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ahead = (datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=3)).isoformat()
    names = ("positions", "margin_calculations", "stress_results", "enforcement", "audit")
    bound = [part for name in names for part in ("--bind", f"sink:{name}=file:{name}.jsonl")]
    for name, column in (("fills", ""), ("prices", "price"), ("betas", "beta")):
        row = json.dumps({"symbol": "X", column: "1", "timestamp": ahead}) + "\n" if column else ""
        Path(f"{name}.jsonl").write_text(row)
        bound += ["--bind", f"source:{name}=file:{name}.jsonl"]
    assert run(["run", "margin", "--once", *bound]) == 0
    capsys.readouterr()
    assert run(["dlq", "ls", "margin", "--output", "json"]) == 0
    told = capsys.readouterr().out
    assert told.count('"future"') == 2, told


@pytest.mark.slow
def test_from_a_market_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    market = ["--accounts", "10", "--symbols", "6", "--positions", "3", "--duration", "4s", "--speed", "20"]
    assert run(["margin", "simulate", *market, "--crash-at", "2s", "--crash", "0.6", "--output", "json"]) == 0
    sent = json.loads(capsys.readouterr().out)
    sinks = [part for name in ("margin_calculations", "positions") for part in _snapshot(name)]
    job = ["run", "margin", "--once", "--bind", "sink:enforcement=file:enforcement.jsonl", *sinks]
    assert run([*job, "--bind", "cash=log:.penstock/log/cash"]) == 0
    found = rows(tmp_path / "margin_calculations.jsonl")
    assert len(found) == 10
    assert not any(row["no_cash_source"] or row["stale"] for row in found)
    assert len(rows(tmp_path / "positions.jsonl")) >= 20
    called = {row["account_id"] for row in found if str(row["excess"]).startswith("-")}
    acted = {row["account_id"] for row in rows(tmp_path / "enforcement.jsonl") if row["state"] != "WARNING"}
    assert called
    assert called <= acted
    # without cash the seed's three topics run as they are, and every row says so
    assert run([*job, "--state", "other"]) == 0
    assert all(row["no_cash_source"] for row in rows(tmp_path / "margin_calculations.jsonl"))
    assert sent["cash"] == 10
    capsys.readouterr()


def _snapshot(name: str) -> list[str]:
    return ["--bind", f"sink:{name}=file:{name}.jsonl?mode=snapshot"]
