"""Deltas that take back what they bring: three histories, each of which a fault once survived by chance."""

from __future__ import annotations

from datetime import datetime, timedelta

import penstock as ps

START = datetime(2026, 1, 1)


class Keyed(ps.Contract):
    k: int
    v: int


class Event(ps.Contract):
    k: int
    at: datetime


def test_a_row_that_a_join_brings_and_takes_in_one_epoch_is_not_kept() -> None:
    pipeline = ps.Pipeline("p")
    for name in ("a", "b", "c"):
        pipeline.table(name, Keyed, key="k")
    pipeline.view("j", "SELECT a.k, b.v FROM a JOIN b ON a.k = b.k")
    pipeline.view("w", "SELECT j.k, j.v, c.v AS x FROM j JOIN c ON j.k = c.k")
    with pipeline.open() as session:
        session.insert("a", [{"k": 1, "v": 0}])
        session.insert("b", [{"k": 1, "v": 5}])
        session.insert("c", [{"k": 1, "v": 9}])
        session.commit()
        # `a` takes and brings (1, 5), `b` takes it again: the delta names it three times.
        session.insert("a", [{"k": 1, "v": 1}])
        session.insert("b", [{"k": 1, "v": 6}])
        session.commit()
        assert session.read("j").to_pylist() == [{"k": 1, "v": 6}]
        session.insert("c", [{"k": 1, "v": 8}])
        session.commit()
        assert session.read("w").to_pylist() == [{"k": 1, "v": 6, "x": 8}]


def test_t3_a_table_that_moves_after_a_window_has_closed_changes_nothing_there() -> None:
    pipeline = ps.Pipeline("p")
    pipeline.stream("e", Event, event_time="at", watermark="5 seconds", state="unbounded")
    pipeline.table("t", Keyed, key="k")
    pipeline.view(
        "v",
        "SELECT time_bucket(INTERVAL '1 minute', e.at) AS m, sum(t.v)::BIGINT AS n FROM e JOIN t ON e.k = t.k "
        "GROUP BY 1",
        emit="final",
    )
    with pipeline.open() as session:
        session.insert("t", [{"k": 1, "v": 5}])
        session.insert("e", [{"k": 1, "at": START}, {"k": 1, "at": START + timedelta(minutes=2)}])
        closed = session.commit()
        shown = [{"m": START, "n": 5}]
        assert [r["n"] for r in session.changes("v", closed).to_pylist()] == [5]
        session.insert("t", [{"k": 1, "v": 7}])
        moved = session.commit()
        assert session.changes("v", moved).num_rows == 0
        assert session.read("v").to_pylist() == shown
        # The next window closes by what the table holds then.
        session.advance("e", START + timedelta(minutes=5))
        assert [r["n"] for r in session.changes("v", session.commit()).to_pylist()] == [7]


def test_groups_that_swap_what_they_show_change_nothing_where_their_keys_are_not_shown() -> None:
    class Member(ps.Contract):
        id: int
        k: int

    pipeline = ps.Pipeline("p")
    pipeline.table("t", Member, key="id")
    pipeline.view("sizes", "SELECT count(*) AS n FROM t GROUP BY k")
    with pipeline.open() as session:
        session.insert("t", [{"id": 1, "k": 1}, {"id": 2, "k": 2}, {"id": 3, "k": 2}])
        session.commit()
        session.insert("t", [{"id": 3, "k": 1}])
        moved = session.commit()
        assert session.changes("sizes", moved).num_rows == 0
        assert sorted(r["n"] for r in session.read("sizes").to_pylist()) == [1, 2]
