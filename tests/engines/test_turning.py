"""Outer, semi and anti joins: who gains a first match or loses the last one is looked for only where that can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import duckdb
import pytest

import penstock as ps
from penstock.plan import flat
from penstock.plan.blocks import Field, FlatBlock, Input, Relation
from penstock.runtime.session import Session
from tests.engines.test_skipping import Counting

TABLES = """
CREATE TABLE l (k BIGINT PRIMARY KEY, a BIGINT);
CREATE TABLE r (k BIGINT PRIMARY KEY, a BIGINT, v BIGINT);
CREATE TABLE other (k BIGINT PRIMARY KEY, v BIGINT);
"""
VIEWS = {
    "by_key": "SELECT l.k, r.v FROM l LEFT JOIN r ON r.k = l.k",
    "by_column": "SELECT l.k, r.v FROM l LEFT JOIN r ON r.a = l.a",
    "by_more": "SELECT l.k, r.k AS x FROM l LEFT JOIN r ON r.a = l.a AND r.v > l.a",
    "with_product": "SELECT l.k, r.k AS x FROM l LEFT JOIN r ON r.a * 2 = l.a * 2 AND r.v <> 3",
    "among": "SELECT k FROM l WHERE EXISTS (SELECT 1 FROM r WHERE r.a = l.a AND r.v > l.a)",
    "not_among": "SELECT k FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.a = l.a AND r.v > l.a)",
    "twice": "SELECT x.k, y.v, z.v AS w FROM r x LEFT JOIN r y ON y.a = x.k LEFT JOIN r z ON z.k = x.a",
    "three": "SELECT l.k, r.v, o.v AS w FROM l LEFT JOIN r ON r.k = l.k LEFT JOIN other o ON o.k = r.a",
    # r.a has the name of a column that ON reads, and is not read itself.
    "of_one_name": "SELECT l.k, r.k AS x FROM l LEFT JOIN r ON r.k = l.a",
}
# Each of these takes a match away or brings one, although every key has as many rows as before.
HISTORY: Sequence[Sequence[dict[str, Any]]] = (
    [{"k": 1, "a": 1, "v": 5}, {"k": 2, "a": 2, "v": 6}],
    [{"k": 1, "a": 2, "v": 5}],
    [{"k": 2, "a": 1, "v": 6}, {"k": 1, "a": 1, "v": -1}],
    [{"k": 1, "a": 1, "v": 3}, {"k": 2, "a": 2, "v": -6}],
    [{"k": 1, "a": None, "v": 7}, {"k": 2, "a": None, "v": 7}],
    [{"k": 1, "a": 2, "v": 7}, {"k": 2, "a": 1, "v": None}],
    [{"k": 1, "a": 1, "v": 8}, {"k": 2, "a": 2, "v": 8}],
    [{"k": 1, "a": 1, "v": -8}, {"k": 2, "a": 2, "v": 3}],
    [{"k": 1, "a": 1, "v": 8}, {"k": 2, "a": 2, "v": -3}],
)


def opened(views: dict[str, str]) -> Session:
    sql = TABLES + "".join(f"CREATE VIEW {name} AS {text};" for name, text in views.items())
    return ps.Pipeline.from_sql(sql, name="p").open()


@pytest.mark.parametrize("view", VIEWS)
def test_updates_that_move_matches_keep_the_law(view: str) -> None:
    told: Counter[tuple[Any, ...]] = Counter()
    with opened({view: VIEWS[view]}) as session:
        session.insert("l", [{"k": k, "a": a} for k, a in ((1, 1), (2, 2), (3, None), (4, 4))])
        session.insert("other", [{"k": 1, "v": 1}])
        _tell(session, view, told)
        for rows in HISTORY:
            session.insert("r", list(rows))
            _tell(session, view, told)
            with duckdb.connect() as batch:
                for name in ("l", "r", "other"):
                    batch.register(name, session.read(name))
                assert told == Counter(batch.execute(VIEWS[view]).fetchall()), rows


def _tell(session: Session, view: str, told: Counter[tuple[Any, ...]]) -> None:
    """Fold an epoch's changes into what was told before."""
    for row in session.changes(view, session.commit()).to_pylist():
        values = tuple(value for name, value in row.items() if not name.startswith("_"))
        told[values] += 1 if row["_op"].startswith("+") else -1
        assert told[values] >= 0
    told += Counter()


def test_no_one_is_looked_for_where_every_match_stays() -> None:
    with opened({"by_key": VIEWS["by_key"]}) as session:
        session.insert("l", [{"k": k, "a": k} for k in range(5)])
        session.insert("r", [{"k": k, "a": k, "v": 0} for k in range(4)])
        session.commit()

        def looked_for(rows: list[dict[str, Any]]) -> int:
            statements = session._state._small
            counting = Counting(statements._connection)
            statements._connection = counting  # type: ignore[assignment]
            session.insert("r", rows)
            session.commit()
            statements._connection = counting._connection
            return sum("SEMI JOIN" in sql and "count(*)" in sql for sql in counting.statements)

        assert looked_for([{"k": 4, "a": 4, "v": 1}]) == 1
        assert looked_for([{"k": 4, "a": 3, "v": 2}, {"k": 1, "a": 1, "v": 2}]) == 0


def test_what_a_condition_reads_of_the_place() -> None:
    def columns(on: str, kind: str = "BIGINT") -> tuple[str, ...] | None:
        fields = (Field("k", "BIGINT"), Field("v", kind), Field("w", "BIGINT"))
        inputs = (Input("l", "l"), Input("r", "r", "left", on))
        block = FlatBlock(Relation("j", fields, append_only=False), inputs, ())
        return flat.turning_columns(block, "r", fields).get(1)

    assert columns('"r"."k" = "l"."k"') == ("k",)
    assert columns('"r"."k" = "l"."k" AND "r"."v" > 0') == ("k", "v")
    # Columns of others that have the same name only make the test stricter.
    assert columns('"r"."k" = "l"."w"') == ("k", "w")
    # An expression may tell values apart that compare as equal.
    assert columns('"r"."v" = "l"."v"', "DOUBLE") is None
    assert columns('"r"."v" = "l"."v"', "VARCHAR[]") is None
    # A row as one value, or all of its columns, names none of them.
    assert columns('"r" IS NOT NULL') is None
    assert columns('hash("r".*) = "l"."k"') is None
