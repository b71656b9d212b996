"""The views' benchmark: what it draws, what it measures, and that a wrong view is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from penstock.bench.report import this_machine
from penstock.bench.views.changes import Change
from penstock.bench.views.measure import REPEATS, Load, ViewCost, measure
from penstock.bench.views.nexmark import Nexmark
from penstock.bench.views.outcome import views_report
from penstock.bench.views.recompute import Recompute
from penstock.bench.views.suite import SUITES, only, suite
from penstock.bench.views.tpch import Tpch
from penstock.bench.views.tpch_rows import KEYS
from penstock.cli.bench import bench


def keys_of(table: str, rows: pa.Table | None) -> set[tuple[object, ...]]:
    if rows is None:
        return set()
    return set(zip(*(rows[name].to_pylist() for name in KEYS[table]), strict=True))


@pytest.mark.parametrize("table", KEYS)
def test_a_change_inserts_replaces_and_deletes_rows_that_are_there(table: str) -> None:
    tables = Tpch(0.001, seed=3)
    present: set[tuple[object, ...]] = set()
    for change in tables.load([table]):
        present |= keys_of(table, change.rows)
    assert len(present) == tables.rows(table)
    seen = {"new": 0, "replaced": 0, "deleted": 0}
    for size in (1, 1, 1, 6, 15):
        if size > tables.rows(table):
            continue
        change = tables.change(table, size)
        upserted, deleted = keys_of(table, change.rows), keys_of(table, change.deleted)
        assert change.size == size == len(upserted) + len(deleted)
        assert deleted <= present
        assert not upserted & deleted
        seen["new"] += len(upserted - present)
        seen["replaced"] += len(upserted & present)
        seen["deleted"] += len(deleted)
        present = (present - deleted) | upserted
        assert len(present) == tables.rows(table)
    assert all(seen.values()), seen


def test_the_same_seed_draws_the_same() -> None:
    first, second = Tpch(0.001, 5), Tpch(0.001, 5)
    assert [c.rows for c in first.load(KEYS)] == [c.rows for c in second.load(KEYS)]
    assert first.refresh(3) == second.refresh(3)
    assert Nexmark(5).events(200) == Nexmark(5).events(200)
    assert Nexmark(5).events(200) != Nexmark(6).events(200)


def test_the_refresh_functions_keep_orders_and_lines_together() -> None:
    tables = Tpch(0.001, 1)
    lines = {change.source: keys_of(change.source, change.rows) for change in tables.load(["orders", "lineitem"])}
    orders, added = tables.refresh(10)
    gone = {key[0] for key in keys_of("orders", orders.deleted)}
    assert {key for key in lines["lineitem"] if key[0] in gone} == keys_of("lineitem", added.deleted)
    assert {key[0] for key in keys_of("lineitem", added.rows)} == {key[0] for key in keys_of("orders", orders.rows)}


def test_events_come_in_the_order_of_time_and_bids_name_what_is_there() -> None:
    site = Nexmark(1)
    events = {change.source: change.rows for change in site.events(5_000)}
    assert {name: rows.num_rows for name, rows in events.items()} == {"person": 100, "auction": 300, "bid": 4_600}
    for rows in events.values():
        times = rows["dateTime"].cast(pa.int64()).to_numpy()
        assert (np.diff(times) > 0).all()
    assert set(events["bid"]["auction"].to_pylist()) <= set(range(1_000, 1_300))
    assert set(events["bid"]["bidder"].to_pylist()) <= set(range(1_000, 1_101))


def test_the_batch_keeps_the_newest_row_of_a_key() -> None:
    graph = suite("tpch")
    batch = Recompute(only(graph, (), ["region"]).sources, {"names": "SELECT r_name FROM region"})
    rows = {"r_regionkey": [0, 1], "r_name": ["a", "b"], "r_comment": ["", ""]}
    batch.apply(Change("region", pa.table(rows)))
    batch.apply(Change("region", pa.table({**rows, "r_name": ["a", "c"]}), pa.table({"r_regionkey": [0]})))
    batch.run("names")
    assert sorted(batch.content("names")["r_name"].to_pylist()) == ["a", "c"]
    batch.close()


@pytest.fixture(scope="module")
def cost() -> ViewCost:
    return measure(Load("tpch", 0.001, threads=1), "q4")


def test_a_view_is_measured_in_every_size_and_is_its_batch(cost: ViewCost) -> None:
    assert cost.difference == ""
    assert [c.size for c in cost.costs] == list(REPEATS)
    assert cost.source == "lineitem"
    assert cost.strategies
    for each in cost.costs:
        assert each.epochs == REPEATS[each.size]
        assert each.ratio > 0
    assert cost.costs[1].told, "a hundred changed lines change q4"


def test_a_report_of_a_view_that_differs_is_wrong(cost: ViewCost) -> None:
    load, machine = Load("tpch", 0.001), this_machine()
    assert views_report(load, [cost], machine).judgement.status == "right"
    report = views_report(load, [cost, replace(cost, view="q5", difference="1 rows instead of 2")], machine)
    assert report.judgement.status == "wrong"
    (table,) = report.tables
    assert [table.rows[n][0] for n in table.marked] == ["q5"] * len(REPEATS)


def test_the_command_writes_its_report(tmp_path: Path) -> None:
    path = tmp_path / "views"
    arguments = ["views", "q2", "--suite", "nexmark", "--scale", "0.002", "--threads", "1", "--report", str(path)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    assert "1 views are their batch" in result.output
    written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert written["settings"]["suite"] == "nexmark"
    assert CliRunner().invoke(bench, ["views", "q99"]).exit_code == 2


def test_suites_have_the_published_queries() -> None:
    assert [v.name for v in suite("tpch").views] == [f"q{n}" for n in range(1, 23)]
    assert {v.name for v in suite("nexmark").views} == {f"q{n}" for n in range(23)}
    assert SUITES == ("tpch", "nexmark")
