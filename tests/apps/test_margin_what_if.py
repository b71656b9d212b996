"""What-if: what it says comes true when the order is filled, and asking changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.apps.margin.orders import Order
from penstock.apps.margin.pipeline import build
from penstock.apps.margin.what_if import what_if
from penstock.cli.main import run
from penstock.errors import DataError
from penstock.runtime.session import Session
from tests.apps.test_margin_figures import NOON, decimals, fill

NAMES = count()
GRAPH = build().graph()


@pytest.fixture(scope="module")
def desk() -> Iterator[Session]:
    with build().open() as session:
        session.insert("tick", [{"tick": 1, "at": NOON}])
        prices = {"AAA": "100", "BBB": "7.5", "CCC": "3.25", "DDD": "250.123456"}
        session.insert("prices", [{"symbol": s, "price": Decimal(p), "timestamp": NOON} for s, p in prices.items()])
        session.insert("betas", [{"symbol": "AAA", "beta": Decimal("1.4"), "timestamp": NOON}])
        yield session


def asked(desk: Session, account: str, *orders: str) -> Any:
    return what_if(GRAPH, lambda sql: desk.query(sql).to_pylist(), account, [Order.parse(order) for order in orders])


def standing(desk: Session, account: str) -> str:
    (row,) = desk.query(f"SELECT _ps_state FROM _ps.fold_enforcement WHERE account_id = '{account}'").to_pylist()
    return str(json.loads(row["_ps_state"])["state"])


def told(desk: Session, view: str, account: str) -> dict[str, Any]:
    (row,) = desk.query(f"SELECT * FROM {view} WHERE account_id = '{account}'").to_pylist()
    return dict(row)


HELD = st.dictionaries(st.sampled_from(["AAA", "BBB", "CCC"]), st.integers(-400, 900).filter(bool), max_size=3)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["BUY", "SELL"]),
        st.sampled_from(["AAA", "BBB", "CCC", "DDD"]),
        st.integers(1, 900),
        st.one_of(st.none(), decimals("0", "300", 6)),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@given(held=HELD, cash=decimals("-40000", "90000", 4), orders=ORDERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_it_says_comes_true(
    desk: Session, held: dict[str, int], cash: Decimal, orders: list[tuple[str, str, int, Decimal | None]]
) -> None:
    account = f"A{next(NAMES)}"
    entry = {"account_id": account, "entry_id": account, "amount": cash, "kind": "deposit", "timestamp": NOON}
    desk.insert("cash", [entry])
    desk.insert("fills", [fill(f"{account}{s}", account, s, str(q), "11.5") for s, q in held.items()])
    desk.commit()
    texts = [f"{side} {q} {s}" + (f" @ {price:f}" if price is not None else "") for side, s, q, price in orders]
    found = asked(desk, account, *texts)
    before = told(desk, "margins", account) | told(desk, "standings", account)
    assert vars(found.before) == {name: before[name] for name in vars(found.before)}
    assert standing(desk, account) == found.state
    fills = [
        fill(f"{account}o{n}", account, order.symbol, str(order.quantity), str(order.price))
        for n, order in enumerate(found.orders)
    ]
    desk.insert("fills", fills)
    desk.commit()
    after = told(desk, "margins", account) | told(desk, "standings", account)
    assert vars(found.after) == {name: after[name] for name in vars(found.after)}
    assert found.breach == (after["excess"] < 0)
    assert standing(desk, account) == found.next_state
    assert bool(found.reason) == (found.state != found.next_state)


def test_asking_changes_nothing(desk: Session) -> None:
    desk.insert("fills", [fill("quiet", "QUIET", "AAA", "10", "100")])
    epoch = desk.commit()
    rows = [told(desk, view, "QUIET") for view in ("margin_calculations", "standings", "holdings")]
    first, second = (asked(desk, "QUIET", "BUY 5000 AAA @ 100") for _ in range(2))
    assert first == second
    assert rows == [told(desk, view, "QUIET") for view in ("margin_calculations", "standings", "holdings")]
    assert desk.progress.epoch == epoch


def test_a_holding_without_a_price_fails_closed(desk: Session) -> None:
    desk.insert("fills", [fill("dark", "DARK", "NEVER-QUOTED", "10", "100")])
    desk.commit()
    found = asked(desk, "DARK", "BUY 1 AAA")
    assert (found.before.excess, found.after.excess, found.breach, found.next_state) == (
        None,
        None,
        True,
        "MARGIN_CALL",
    )


@pytest.mark.parametrize(
    ("account", "order", "code"),
    [
        ("NOBODY", "BUY 1 AAA", "PS-DATA-005"),
        ("it's", "BUY 1 AAA", "PS-DATA-005"),
        ("KNOWN", "BUY 1 it's", "PS-DATA-005"),
        ("KNOWN", "BUY 1 XYZ @ 3", "PS-DATA-005"),
        ("KNOWN", "BUY 0 AAA", "PS-DATA-006"),
        ("KNOWN", "BUY -1 AAA", "PS-DATA-006"),
        ("KNOWN", "BUY 1.1234567 AAA", "PS-DATA-006"),
        ("KNOWN", "BUY 1 AAA @ -3", "PS-DATA-006"),
        ("KNOWN", "BUY 1 AAA @ NaN", "PS-DATA-006"),
        ("KNOWN", "BUY 1 AAA @ 1000001", "PS-DATA-006"),
        ("KNOWN", "HOLD 1 AAA", "PS-DATA-006"),
        ("KNOWN", "", "PS-DATA-006"),
    ],
)
def test_what_cannot_be_tried(desk: Session, account: str, order: str, code: str) -> None:
    desk.insert("fills", [fill("known", "KNOWN", "AAA", "10", "100")])
    desk.commit()
    with pytest.raises(DataError) as caught:
        asked(desk, account, order)
    assert caught.value.code == code


@pytest.mark.slow
def test_against_a_running_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["margin", "what-if", "--account", "A000001", "--order", "BUY 1 S00001"]) == 2
    assert "PS-STATE-007" in capsys.readouterr().err
    market = ["--accounts", "3", "--symbols", "4", "--positions", "2", "--duration", "1s", "--fills", "0"]
    assert run(["margin", "simulate", *market]) == 0
    job = subprocess.Popen(
        [sys.executable, "-m", "penstock", "run", "margin", "--for", "60s", "--bind", "cash=log:.penstock/log/cash"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        question = ["margin", "what-if", "--account", "A000001", "--order", "BUY 1000000 S00001", "--output", "json"]
        deadline = time.monotonic() + 50
        capsys.readouterr()
        while run(question) != 0:
            assert time.monotonic() < deadline, capsys.readouterr().err
            time.sleep(0.2)
        assert job.poll() is None, "the job was not running any more"
        live = json.loads(capsys.readouterr().out)
    finally:
        job.terminate()
        job.wait(30)
    assert live["breach"]
    assert live["orders"][0].startswith("BUY 1000000 S00001 @ ")
    assert run(question) == 0
    assert json.loads(capsys.readouterr().out)["after"]["cash"] == live["after"]["cash"]
    assert run([*question[:-2], "--state", ".penstock/state/margin"]) == 0
    assert "BREACH" in capsys.readouterr().out
