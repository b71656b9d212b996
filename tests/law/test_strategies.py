"""P5: the golden page of strategies is what the planner does, and refresh is the exception."""

from __future__ import annotations

import pytest

from tests.law.strategies import PAGE, page, regressed


@pytest.mark.slow
def test_the_page_of_strategies_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.law.strategies"


def test_a_query_that_goes_back_to_refresh_is_seen() -> None:
    before = "| a | a | append | x |\n| b | b | refresh | y |\n"
    after = "| a | a | refresh | x |\n| b | b | refresh | y |\n| c | c | refresh | z |\n"
    assert regressed(before, after) == ["a"]


def test_most_blocks_run_incrementally() -> None:
    strategies = [line.split("|")[3].strip() for line in PAGE.read_text(encoding="utf-8").splitlines()[8:]]
    assert set(strategies) >= {"append", "merge", "refresh"}
    assert strategies.count("refresh") / len(strategies) < 0.25
