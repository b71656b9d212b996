"""Killed again and again, under load, with the power going off: nothing lost, nothing doubled (semantics P2)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.verify.crash.__main__ import SCENARIOS
from penstock.verify.crash.ads_scenario import Ads
from penstock.verify.crash.harness import AT_RANDOM, MIN_HITS, Crashed, crash
from penstock.verify.crash.margin_scenario import Margin
from penstock.verify.crash.shop_scenario import Shop
from tests import soak

SEED = 20_260_101


def right(crashed: Crashed, kills: int) -> None:
    assert crashed.problems == []
    assert crashed.total == kills
    assert crashed.power_losses > 0


def rewrite(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.slow
def test_p2_twenty_kills_of_the_shop(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SEED)
    crashed = crash(shop, kills=20, seed=SEED)
    right(crashed, 20)
    assert crashed.checked.counts["orders rows"] > 500
    assert crashed.checked.counts["orders duplicate"] > 0
    assert crashed.checked.counts["per_second late"] > 0
    assert crashed.checked.counts["returns accepted"] > 50
    assert all(crashed.hits[point] >= MIN_HITS for point in (*shop.points, *shop.producer_points))
    the_check_bites(shop)


def the_check_bites(shop: Shop) -> None:
    """The same check over outputs that were tampered with: one row lost, one doubled, one changed."""
    finals = shop.folder / "out" / "per_second.jsonl"
    lines = finals.read_text().splitlines()
    for wrong in (lines[:-1], [*lines, lines[-1]], [lines[0].replace('"n":', '"n":1'), *lines[1:]]):
        rewrite(finals, wrong)
        assert shop.check().problems
    rewrite(finals, lines)
    assert not shop.check().problems
    ledger = shop.folder / "ledger.jsonl"
    with ledger.open("a") as file:
        file.write(json.dumps(["orders", 0, 10**9]) + "\n")
    assert any("durable records are gone" in problem for problem in shop.check().problems)


@pytest.mark.slow
def test_p2_kills_of_the_ads_job(tmp_path: Path) -> None:
    ads = Ads(tmp_path, SEED)
    crashed = crash(ads, kills=10, seed=SEED)
    right(crashed, 10)
    assert crashed.checked.counts["accepted"] > 1_000
    assert crashed.checked.counts["late"] > 0


@pytest.mark.soak
@pytest.mark.parametrize(("name", "full"), [("shop", 250), ("ads", 250), ("margin", 60)])
def test_p2_the_full_counts(tmp_path: Path, name: str, full: int) -> None:
    scenario, kills = SCENARIOS[name](tmp_path, soak.SEED), soak.count(full)
    crashed = crash(scenario, kills=kills, seed=soak.SEED)
    soak.record(
        f"kills: {name}",
        crashed.seconds,
        kills=crashed.total,
        power_losses=crashed.power_losses,
        checked=crashed.checked.counts,
        problems=crashed.problems if soak.is_whole() else crashed.checked.problems,
    )
    if not soak.is_whole():
        # So few kills do not pass every fail point.
        assert crashed.checked.problems == ()
        return
    right(crashed, kills)
    if full >= 250:
        assert [point for point in scenario.points if crashed.kills[point] < MIN_HITS] == []
    assert crashed.kills[AT_RANDOM] > 0


@pytest.mark.slow
def test_p2_kills_of_the_margin_job(tmp_path: Path) -> None:
    margin = Margin(tmp_path, SEED)
    crashed = crash(margin, kills=3, seed=SEED)
    assert crashed.checked.problems == ()
    assert crashed.total == 3
    assert crashed.checked.counts["margin_calculations records"] > 20
    assert crashed.checked.counts["enforcement records"] > 0
    sent = margin.folder / "killed" / "margin_calculations.jsonl"
    lines = sent.read_text().splitlines()
    for wrong in (lines[:-1], [*lines, lines[-1]], [lines[0].replace("A0", "A1"), *lines[1:]]):
        rewrite(sent, wrong)
        assert any("margin_calculations" in problem for problem in margin.compare())


@pytest.mark.slow
def test_a_kill_after_the_work_was_done_is_void(tmp_path: Path) -> None:
    """A producer that ends at once leaves no work: the run says so instead of counting such kills."""

    class Idle(Ads):
        points = ("epoch.before_commit",)

        def producer(self, round: int) -> list[str]:
            return [sys.executable, "-c", "pass"]

    found = crash(Idle(tmp_path, SEED), kills=1, seed=SEED, for_s=3.0)
    assert found.total == 0
    assert found.void > 0
    assert any("after the work was done" in problem for problem in found.problems)


def test_the_command_line_says_what_it_takes() -> None:
    command = [sys.executable, "-m", "penstock.verify.crash", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--kills" in done.stdout
    assert "--seed" in done.stdout
