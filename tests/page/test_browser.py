"""The live page in a real browser: what it shows is what the views hold, and it follows the job by itself."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab
from tests.page.test_page import PIPELINE, click, write

from penstock.cli.main import run
from penstock.connectors.log import LogTopic, LogWriter

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PATIENCE_MS = 60_000
FIRST = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=[*FLAGS, "--disable-component-update"])
        yield made
        made.close()


class Running:
    """A job with its page, in the current folder."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "penstock.cli.main", "run", *options, "--ui", "--ui-port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.told: list[str] = []
        for line in self.process.stderr:
            self.told.append(line)
            found = re.search(r"page at (http://\S+)", line)
            if found:
                self.url = found[1]
                return
        raise AssertionError("".join(self.told))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=60)
        assert self.process.returncode == 128 + signal.SIGTERM, log
        assert "Traceback" not in log


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(browser: Browser, url: str, **context: Any) -> Tab:
    tab = browser.new_context(**context).new_page()
    tab.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    tab.on("pageerror", lambda problem: problems.append(str(problem)))
    tab.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    tab.problems = problems  # type: ignore[attr-defined]
    tab.goto(url)
    return tab


def rows_of(tab: Tab) -> list[list[str]]:
    rows: list[list[str]] = tab.evaluate(
        "[...document.querySelectorAll('main tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    return rows


def test_clicks_are_followed_searched_and_replayed(here: Path, browser: Browser) -> None:
    Path("clicks.sql").write_text(PIPELINE)
    LogTopic.create(Path(".penstock/log/clicks"), 1)
    write([click(user, 60) for user in range(1_000)] + [click(-5, 60)])
    job = Running("clicks.sql")
    try:
        tab = opened(browser, job.url, viewport={"width": 390, "height": 800})
        expect(tab.locator("#state")).to_contain_text("running", timeout=PATIENCE_MS)
        expect(tab.locator(".node.stream")).to_contain_text("1,001 rows", timeout=PATIENCE_MS)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than a phone"
        tab.goto(f"{job.url}#/table/per_user?sort=n&descending=true")
        expect(tab.locator("main tbody tr")).to_have_count(50)
        assert tab.locator("main tbody tr").count() <= 200
        write([click(7, 61), click(7, 62)])
        expect(tab.locator("main tbody tr").first).to_contain_text("it's", timeout=PATIENCE_MS)
        assert rows_of(tab)[0][3] == "3", "the page has followed the commit by itself"
        tab.keyboard.press("/")
        tab.keyboard.type("IT'S")
        expect(tab.locator("main tbody tr")).to_have_count(1, timeout=PATIENCE_MS)
        tab.locator("main tbody tr").first.press("Enter")
        expect(tab.locator("dialog")).to_be_visible()
        tab.keyboard.press("Escape")
        expect(tab.locator("dialog")).to_be_hidden()
        tab.goto(f"{job.url}#/letters")
        expect(tab.locator("#dead")).to_have_text("1", timeout=PATIENCE_MS)
        assert "example.org" not in tab.content()
        tab.locator("main tbody input").first.check()
        tab.get_by_role("button", name="Drop 1").click()
        expect(tab.locator("main")).to_contain_text("None: every record kept its contract", timeout=PATIENCE_MS)
        assert tab.problems == []  # type: ignore[attr-defined]
        job.stop()
        expect(tab.locator("#state")).to_contain_text("page lost", timeout=PATIENCE_MS)
    finally:
        job.process.kill()


def append(topic: str, records: list[dict[str, object]]) -> None:
    folder = Path(f".penstock/log/{topic}")
    made = LogTopic.open(folder) if LogTopic.exists(folder) else LogTopic.create(folder, 1)
    with LogWriter(made, "commit") as writer:
        writer.append(0, [json.dumps(r, default=str).encode() for r in records])


def price(value: str, second: int) -> dict[str, object]:
    return {"symbol": "AAA", "price": value, "timestamp": FIRST + timedelta(seconds=second)}


def test_a_price_shock_moves_an_account_to_a_margin_call(
    here: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    append("prices", [price("100", 0)])
    append("betas", [{"symbol": "AAA", "beta": "1", "timestamp": FIRST}])
    append(
        "cash",
        [
            {"account_id": a, "entry_id": a, "amount": amount, "kind": "deposit", "timestamp": FIRST}
            for a, amount in (("careful", "90000"), ("bold", "50000"))
        ],
    )
    append(
        "fills",
        [
            {
                "fill_id": a,
                "account_id": a,
                "symbol": "AAA",
                "quantity": "1000",
                "price": "100",
                "timestamp": FIRST + timedelta(seconds=1),
            }
            for a in ("careful", "bold")
        ],
    )
    job = Running("margin", "--reveal", "--bind", "cash=log:.penstock/log/cash")
    try:
        tab = opened(
            browser, f"{job.url}#/table/margin_calculations?sort=excess", viewport={"width": 1400, "height": 900}
        )
        rows = tab.locator("main tbody tr.open")
        expect(rows).to_have_count(2, timeout=PATIENCE_MS)
        expect(rows.first).to_contain_text("bold")
        # 1000 at 100 with 50,000 of debt: equity 50,000, required 25% and 10% of 100,000.
        before = excess(tab, "bold")
        assert before == 15_000
        # At 70: equity 20,000; required are 25%, 10% for concentration and 5% for beta, of 70,000: 28,000.
        append("prices", [price("70", 2)])
        expect(rows.first.locator("td.down").first).to_be_visible(timeout=PATIENCE_MS)
        until = time.monotonic() + PATIENCE_MS / 1000
        while excess(tab, "bold") >= 0 and time.monotonic() < until:
            tab.wait_for_timeout(200)
        assert excess(tab, "bold") == -8_000
        shown = dict(zip(["account_id", "excess", "call_amount"], figures(tab, "bold"), strict=True))
        capsys.readouterr()
        query = "SELECT excess, call_amount FROM margin_calculations WHERE account_id = 'bold'"
        assert run(["sql", "margin", query, "--bind", "cash=log:.penstock/log/cash", "--output", "json"]) == 0
        held = json.loads(capsys.readouterr().out)
        assert {k: v.replace(",", "") for k, v in shown.items() if k in held} == held
        rows.first.click()
        dialog = tab.locator("dialog")
        expect(dialog).to_contain_text("positions", timeout=PATIENCE_MS)
        expect(dialog).to_contain_text("stress_results", timeout=PATIENCE_MS)
        expect(dialog).to_contain_text("MARGIN_CALL", timeout=PATIENCE_MS)
        expect(dialog.locator(".bars").first).to_be_visible(timeout=PATIENCE_MS)
        assert tab.problems == []  # type: ignore[attr-defined]
        job.stop()
    finally:
        job.process.kill()


def figures(tab: Tab, account: str) -> list[str]:
    heads: list[str] = tab.evaluate("[...document.querySelectorAll('main thead th')].map(h => h.textContent)")
    row = next(r for r in rows_of(tab) if r[0] == account)
    return [row[heads.index(name)] for name in ("account_id", "excess", "call_amount")]


def excess(tab: Tab, account: str) -> float:
    return float(figures(tab, account)[1].replace(",", ""))
