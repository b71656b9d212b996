"""The benchmark of the margin monitor, at a tiny size: the three sides agree, and where they do not it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from penstock.apps.margin.speed.arrays import Arrays, quotient
from penstock.apps.margin.speed.contest import Load, contest, difference
from penstock.apps.margin.speed.portfolio import Portfolio, Size
from penstock.apps.margin.speed.script import Script
from penstock.cli.bench import bench

TINY = Size(accounts=20, symbols=12, positions=80, seed=3)


def quiet(_: str) -> None:
    """Says nothing."""


@pytest.mark.slow
def test_the_command_compares_all_three_and_writes_its_report(tmp_path: Path) -> None:
    path = tmp_path / "margin"
    sizes = ["--accounts", "20", "--symbols", "12", "--positions", "80", "--ticks", "1", "--seed", "3", "--rate", "50"]
    arguments = ["margin", *sizes, "--duration", "0.2", "--folder", str(tmp_path / "run"), "--report", str(path)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    assert "all rows of 80 positions are equal" in result.output
    written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert [row[0] for row in written["tables"][0]["rows"]] == [1, 12]
    assert written["tables"][1]["rows"][0][:2] == [50, 10]
    assert CliRunner().invoke(bench, ["margin", "--accounts", "5", "--positions", "4"]).exit_code == 2


@pytest.mark.slow
def test_a_wrong_figure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cheaper(self: Arrays, *_: Any) -> Any:
        return np.full(len(self._cash), 1)

    monkeypatch.setattr(Arrays, "_worst_equity", cheaper)
    result = contest(TINY, tmp_path / "run", Load(ticks=1), quiet)
    assert result.difference.startswith("margin_calculations, pipeline and arrays: ")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_script_and_arrays_agree_over_wide_moves(tmp_path: Path, seed: int) -> None:
    """Prices fall and rise by half, so that tiers, add-ons, minimum and negative equity are met."""
    book = Portfolio(Size(accounts=60, symbols=15, positions=240, seed=seed))
    script, arrays = Script(tmp_path, book), Arrays(book)
    random = np.random.default_rng(seed)
    try:
        for _ in range(3):
            book.price_cents = np.maximum(book.price_cents * random.uniform(0.5, 1.5, 15), 1).astype(np.int64)
            script.tick(book.tick(15))
            arrays.tick()
            for view, theirs in (("positions", arrays.positions()), ("margin_calculations", arrays.margins())):
                assert difference(script.rows(view, script.columns(view)), theirs) == ""
    finally:
        script.close()


def test_tables_that_differ_in_one_value_or_in_their_number_of_rows_are_told_apart() -> None:
    one, other = pa.table({"a": [1, 2], "b": ["x", "y"]}), pa.table({"a": [1, 2], "b": ["x", "z"]})
    assert difference(one, one) == ""
    assert difference(one, other) == "(2, 'y') and (2, 'z')"
    assert difference(one, one.slice(1)) == "2 rows and 1"


@pytest.mark.parametrize("places", [0, 3, 6, 10])
def test_quotients_are_rounded_half_away_from_zero(places: int) -> None:
    dividends, divisors = np.array([1, -1, 7, -7, 10**9, 5, 0]), np.array([3, 8, -2, 16, 7, 10**12, 9])
    found = quotient(dividends, divisors, places)
    for dividend, divisor, value in zip(dividends.tolist(), divisors.tolist(), found.tolist(), strict=True):
        units = 2 * abs(dividend) * 10**places + abs(divisor)
        expected = units // (2 * abs(divisor))
        assert abs(value) == expected
        assert value == 0 or (value < 0) == ((dividend < 0) != (divisor < 0))


def test_a_portfolio_follows_from_its_seed_and_holds_a_symbol_once() -> None:
    first, second = Portfolio(TINY), Portfolio(TINY)
    assert first.fills() == second.fills()
    assert first.tick(3) == second.tick(3)
    held = list(zip(first.account.tolist(), first.symbol.tolist(), strict=True))
    assert len(set(held)) == len(held) == TINY.positions
    assert len(np.unique(first.popular(500))) > 3
