"""Keyed tables in epochs of one record, of a few and of many: the stored rows are those of a dictionary."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Any

import pytest

import penstock as ps
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.formats import decode
from penstock.formats.compiled import SWITCH, Loader
from penstock.formats.few_records import MOST_RECORDS
from penstock.plan import keyed
from penstock.runtime.session import Session

KEYS: dict[str, list[object]] = {
    "VARCHAR": ["", "it's", 'a "b"', "é", "x; --", "NULL", "1"],
    "BIGINT": [0, -1, 7, 2**62, -(2**63), 10, 11],
    "DATE": [date(2026, 1, day) for day in range(1, 8)],
    "DOUBLE": [0.0, -0.5, 1e-300, 1.5, 2.5, 3.5, 1e300],
    "UTINYINT": [0, 1, 2, 3, 4, 5, 255],
}
TABLE = """
CREATE TABLE t (k {kind}, n INTEGER, v BIGINT, unread VARCHAR, PRIMARY KEY (k, n)) {options};
CREATE VIEW v AS SELECT k, n, v FROM t;
"""


@pytest.mark.parametrize("small_epoch", [0, 10_000])
@pytest.mark.parametrize("kind", list(KEYS))
def test_the_stored_rows_are_those_of_a_dictionary(kind: str, small_epoch: int) -> None:
    graph = ps.Pipeline.from_sql(TABLE.format(kind=kind, options=""), name="p").graph()
    random, model = Random(7), dict[tuple[object, int], tuple[int, str]]()
    told: dict[tuple[object, int], int] = {}
    state = DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True, small_epoch=small_epoch)
    with Session(graph, state, None) as session:
        for records in (1, 1, 30, 1, 3, 0, 60, 1, 1, 2, 40, 1, 1, 1):
            for _ in range(records):
                key = (random.choice(KEYS[kind]), random.randrange(3))
                named: dict[str, Any] = {"k": key[0], "n": key[1]}
                if random.random() < 0.3:
                    session.delete("t", [named])
                    model.pop(key, None)
                else:
                    model[key] = (random.randrange(3), random.choice("ab"))
                    session.insert("t", [named | {"v": model[key][0], "unread": model[key][1]}])
            epoch = session.commit()
            stored = {(r["k"], r["n"]): (r["v"], r["unread"]) for r in session.read("t").to_pylist()}
            assert stored == model
            for row in session.changes("v", epoch).to_pylist():
                if row["_op"] in ("-U", "-D"):
                    assert told.pop((row["k"], row["n"])) == row["v"]
                else:
                    told[row["k"], row["n"]] = row["v"]
            assert told == {key: value for key, (value, _) in model.items()}


@pytest.mark.parametrize("alike", [1, 3, 20])
def test_keys_that_share_columns(alike: int) -> None:
    """The stored rows are found by one column of the key, and those that share no more than it stay."""
    graph = ps.Pipeline.from_sql(TABLE.format(kind="BIGINT", options=""), name="p").graph()
    random, model = Random(alike), dict[tuple[int, int], int]()
    state = DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True)
    with Session(graph, state, None) as session:
        for round in range(12):
            keys = {(key, random.randrange(6)) for key in random.sample(range(120), 20) for _ in range(alike)}
            going = {key for key in sorted(keys) if random.random() < 0.3}
            session.delete("t", [{"k": k, "n": n} for k, n in going])
            session.insert("t", [{"k": k, "n": n, "v": round, "unread": "a"} for k, n in keys - going])
            session.commit()
            model = {key: v for key, v in model.items() if key not in keys} | dict.fromkeys(keys - going, round)
            for name in ("t", "v"):
                rows = session.read(name).to_pylist()
                assert sorted((r["k"], r["n"], r["v"]) for r in rows) == sorted((*k, v) for k, v in model.items())


def test_stored_rows_are_found_by_the_key_column_with_most_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two records both columns of the key may have two values: which one tells more is the table's to say."""
    used: list[str] = []
    stored_sql = keyed.stored_sql

    def noted(*given: Any, **named: Any) -> str:
        used.append(given[-1])
        return stored_sql(*given, **named)

    monkeypatch.setattr(keyed, "stored_sql", noted)
    with ps.Pipeline.from_sql(TABLE.format(kind="VARCHAR", options=""), name="p").open() as session:

        def commit(keys: list[tuple[str, int]]) -> str:
            session.insert("t", [{"k": k, "n": n, "v": 1, "unread": "a"} for k, n in keys])
            session.commit()
            return used[-1]

        commit([(kind, n) for kind in "ab" for n in range(500)])
        assert commit([("a", 1), ("b", 2)]) == "n"
        assert commit([(kind, 7) for kind in "abcdefghi"]) == ""
        assert session.query("SELECT count(*) AS n, count(DISTINCT (k, n)) AS d FROM t").to_pylist() == [
            {"n": 1007, "d": 1007}
        ]


def test_deletes_that_the_kernel_doubts_are_judged_beside_what_it_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than are judged one by one; with one that is broken among those that are doubted, and without."""
    monkeypatch.setenv(SWITCH, "now")
    monkeypatch.setattr(decode, "loader", Loader())
    graph = ps.Pipeline.from_sql(TABLE.format(kind="DATE", options=""), name="p").graph()
    model: dict[tuple[object, int], int] = {}
    state = DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True)
    with Session(graph, state, None) as session:
        for round in range(3):
            rows = [{"k": date(2026, 1, 1), "n": n, "v": n + round, "unread": "a"} for n in range(2 * MOST_RECORDS)]
            gone = [{"k": date(2026, 1, 1), "n": n} for n in range(round, MOST_RECORDS, 7)]
            session.insert("t", rows)
            session.delete("t", gone)
            if round == 1:
                session.insert("t", [{"k": None, "n": 1}])
            session.commit()
            model = {(r["k"], r["n"]): r["v"] for r in rows if {"k": r["k"], "n": r["n"]} not in gone}
            assert {(r["k"], r["n"]): r["v"] for r in session.read("t").to_pylist()} == model
            assert session.progress.sources["t"].counts.dead == (1 if round else 0)


def test_an_older_record_alone_moves_nothing() -> None:
    sql = TABLE.format(kind="VARCHAR", options="WITH (version = 'v')")
    with ps.Pipeline.from_sql(sql, name="p").open() as session:
        row: dict[str, object] = {"k": "it's", "n": 1, "v": 5, "unread": "new"}
        session.insert("t", [row])
        session.commit()
        session.insert("t", [row | {"v": 4, "unread": "old"}])
        assert session.changes("v", session.commit()).num_rows == 0
        assert session.read("t").column("unread").to_pylist() == ["new"]
        session.insert("t", [row | {"v": 6, "unread": "newer"}])
        assert session.changes("v", session.commit()).column("_op").to_pylist() == ["-U", "+U"]
        assert session.query("SELECT count(*) AS n FROM _ps.t_t").to_pylist() == [{"n": 1}]


def test_one_record_of_types_that_arrow_changes() -> None:
    sql = """
    CREATE TABLE t (k BIGINT PRIMARY KEY, u UUID, h HUGEINT, p INTERVAL, e VARCHAR);
    CREATE VIEW v AS SELECT k, u, h, p FROM t;
    CREATE VIEW n AS SELECT u, h, count(*) AS n FROM t GROUP BY u, h;
    """
    with ps.Pipeline.from_sql(sql, name="p").open() as session:
        row: dict[str, object] = {"k": 1, "u": "12345678-1234-1234-1234-123456789abc", "h": 10**37, "p": "P1DT1.5S"}
        for change in ({}, {"h": -(10**37) - 1}, {"p": "PT2S"}, {"u": None}, {"e": "unread"}):
            row |= change
            session.insert("t", [row])
            epoch = session.commit()
            assert session.changes("v", epoch).num_rows == (1 if not change else 0 if "e" in change else 2)
            (read,) = session.query("SELECT k, u::VARCHAR AS u, h::VARCHAR AS h, p::VARCHAR AS p FROM v").to_pylist()
            (group,) = session.query("SELECT u::VARCHAR AS u, h::VARCHAR AS h, n FROM n").to_pylist()
            assert (read["u"], read["h"]) == (group["u"], group["h"]) == (row["u"], str(row["h"]))
            assert read["p"] == {"P1DT1.5S": "24:00:01.5", "PT2S": "00:00:02"}[str(row["p"])]
