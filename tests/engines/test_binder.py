"""A binder sees what was given to it, and nothing of the binders before it."""

from __future__ import annotations

import pytest

from penstock.engines.duckdb.binder import DuckBinder
from penstock.plan.binder import BindProblem
from penstock.plan.blocks import Field


def test_nothing_is_left_for_the_next_binder() -> None:
    first = DuckBinder()
    first.add("clicks", (Field("a", "BIGINT"),))
    with pytest.raises(BindProblem):
        first.describe("SELECT b FROM clicks")
    first.close()
    second = DuckBinder()
    with pytest.raises(BindProblem, match="clicks"):
        second.describe("SELECT a FROM clicks")
    second.add("clicks", (Field("b", "VARCHAR"),))
    assert [field.name for field in second.describe("SELECT * FROM clicks")] == ["b"]
    second.close()


def test_binders_beside_each_other_do_not_meet() -> None:
    first, second = DuckBinder(), DuckBinder()
    first.add("clicks", (Field("a", "BIGINT"),))
    with pytest.raises(BindProblem, match="clicks"):
        second.describe("SELECT a FROM clicks")
    first.close()
    second.close()
    assert "count" in DuckBinder().aggregates()
