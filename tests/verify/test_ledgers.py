"""The accounting is compared record by record, not by sums alone."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from penstock.verify.ledgers import compare_ledgers
from penstock.verify.spec import JobReport, LateSpec, ViewSpec

COUNTS = {"rows": 5, "accepted": 2, "duplicate": 1, "dead": 2}
VIEWS = (ViewSpec("v", "", (), late=(LateSpec("s", "_ps_event", True),)),)
RIGHT = JobReport(3, (("s", 0, 1, "ge"), ("s", 1, 4, "type")), (("v", "s", 0, 2),), {"s": COUNTS})


@pytest.fixture
def oracle() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE dead AS SELECT * FROM (VALUES ('s', 0, 1), ('s', 1, 4)) AS t(source, p, o)")
    connection.execute("CREATE TABLE late AS SELECT * FROM (VALUES ('v', 's', 0, 2)) AS t(view, source, p, o)")
    connection.execute("CREATE TABLE counts (source VARCHAR, what VARCHAR, n BIGINT)")
    connection.executemany("INSERT INTO counts VALUES ('s', ?, ?)", list(COUNTS.items()))
    return connection


def test_equal_ledgers(oracle: duckdb.DuckDBPyConnection) -> None:
    found = compare_ledgers(oracle, RIGHT, VIEWS)
    assert found.difference is None
    assert found.counts == {"s": COUNTS}
    assert found.late == {"v": 1}


def test_a_reference_of_several_versions_is_summed_up_and_not_compared(oracle: duckdb.DuckDBPyConnection) -> None:
    oracle.execute("INSERT INTO counts VALUES ('r', 'versions', 2)")
    found = replace(RIGHT, counts={"s": COUNTS, "r": {"rows": 9, "accepted": 8, "duplicate": 0, "dead": 1}})
    assert compare_ledgers(oracle, found, VIEWS).difference is None
    wrong = replace(RIGHT, counts={"s": COUNTS, "r": {"rows": 9, "accepted": 8, "duplicate": 0, "dead": 0}})
    assert compare_ledgers(oracle, wrong, VIEWS).difference is not None


WRONG = {
    "another record is dead": replace(RIGHT, dead=(("s", 0, 1, "ge"), ("s", 1, 3, "type"))),
    "a dead letter is lost": replace(RIGHT, dead=(("s", 0, 1, "ge"),)),
    "another record is late": replace(RIGHT, late=(("v", "s", 0, 3),)),
    "a late row is lost": replace(RIGHT, late=()),
    "a row is counted twice": replace(RIGHT, counts={"s": COUNTS | {"rows": 6}}),
    "a duplicate is not counted": replace(RIGHT, counts={"s": COUNTS | {"duplicate": 0, "accepted": 3}}),
}


@pytest.mark.parametrize("report", WRONG.values(), ids=WRONG.keys())
def test_unequal_ledgers(oracle: duckdb.DuckDBPyConnection, report: JobReport) -> None:
    assert compare_ledgers(oracle, report, VIEWS).difference is not None


def test_late_rows_behind_a_filter_are_not_compared(oracle: duckdb.DuckDBPyConnection) -> None:
    behind = (replace(VIEWS[0], late=(LateSpec("s", "_ps_event", False),)),)
    assert compare_ledgers(oracle, WRONG["a late row is lost"], behind).difference is None
