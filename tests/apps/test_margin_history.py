"""A market that moves by real daily prices."""

from __future__ import annotations

import gzip
import json
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from penstock.apps.margin.history import History, Replay
from penstock.apps.margin.market import Market
from penstock.cli.main import run
from penstock.errors import DataError

START = datetime(2026, 1, 5, 14, 30)
PRICES = """Ticker,Date,Open,High,Low,Close,Volume,Adj Close
UP,2008-01-02,10,12,9,11,1,11
UP,2008-01-03,11,13,10,12,1,12
UP,2008-01-04,12,14,11,13,1,13
SPLIT,2008-01-02,100,110,90,100,1,50
SPLIT,2008-01-03,100,101,80,90,1,45
SPLIT,2008-01-04,45,46,44,45,1,45
GONE,2008-01-02,1,1,1,1,1,1
"""


@pytest.fixture
def history(tmp_path: Path) -> History:
    path = tmp_path / "prices.csv.gz"
    path.write_bytes(gzip.compress(PRICES.encode()))
    return History.read(path, date(2008, 1, 1), date(2008, 1, 31))


def test_shares_of_all_days_adjusted_for_splits(history: History) -> None:
    assert history.symbols == ("SPLIT", "UP")
    assert [str(day.day) for day in history.days] == ["2008-01-02", "2008-01-03", "2008-01-04"]
    assert history.days[1].prices["SPLIT"] == tuple(map(Decimal, ("50", "50.5", "40", "45")))


def test_prices_come_in_the_order_of_the_day(history: History) -> None:
    market = Replay(history, Market(accounts=2, fills=0, positions=2), START, 2.0)
    opening = [json.loads(record.value) for record in market.opening()]
    assert {row["symbol"]: row["price"] for row in opening if "price" in row and "fill_id" not in row} == {
        "SPLIT": "50.0000",
        "UP": "10.0000",
    }
    records = [*market.second(0), *market.second(1)]
    assert [record.at_s for record in records] == sorted(record.at_s for record in records)
    of = {name: [json.loads(r.value)["price"] for r in records if r.key == name] for name in ("UP", "SPLIT")}
    assert list(map(float, of["UP"])) == [10, 9, 12, 11, 11, 10, 13, 12, 12, 11, 14, 13]
    assert list(map(float, of["SPLIT"])) == [50, 45, 55, 50, 50, 50.5, 40, 45, 45, 44, 46, 45]
    assert market.second(2) == []


@pytest.mark.parametrize("speed", [0.3, 1.0, 7.0])
def test_any_speed_sends_all_of_it(history: History, speed: float) -> None:
    market = Replay(history, Market(accounts=1, fills=0), START, speed)
    sent = [record for second in range(11) for record in market.second(second)]
    assert len(sent) == 3 * 4 * 2
    assert all(0 <= record.at_s < 3 / speed for record in sent)


def test_fills_are_at_the_price_of_their_time(history: History) -> None:
    market = Replay(history, Market(accounts=3, fills=40, positions=1), START, 1.0)
    fills = [json.loads(r.value) for r in market.second(0) if r.topic == "fills"]
    assert len(fills) > 10
    assert {(fill["symbol"], fill["price"]) for fill in fills} <= {("UP", "10.0000"), ("SPLIT", "50.0000")}


def test_days_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv.gz"
    path.write_bytes(gzip.compress(PRICES.encode()))
    with pytest.raises(DataError) as caught:
        History.read(path, date(2020, 1, 1), date(2020, 2, 1))
    assert caught.value.code == "PS-DATA-007"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "bokeh_sampledata", None)
    assert run(["margin", "replay"]) == 2
    assert "pip install 'penstock[demo]'" in capsys.readouterr().err


def test_the_shipped_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History.shipped(date(2008, 9, 1), date(2008, 10, 31))
    assert history.symbols == ("AAPL", "GOOG", "IBM", "MSFT")
    assert len(history.days) == 44
    assert all(0 < beta < 3 for beta in history.betas())
    monkeypatch.chdir(tmp_path)
    days = ["--from", "2008-10-01", "--to", "2008-10-31", "--speed", "50", "--accounts", "3"]
    assert run(["margin", "replay", *days, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["prices"] == 4 + 23 * 4 * 4
