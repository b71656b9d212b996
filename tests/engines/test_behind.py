"""What small epochs have not settled yet is there for whoever looks, after any crash, once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import penstock as ps
from penstock.engines.duckdb import behind as module
from penstock.engines.duckdb import carry, change, redo
from penstock.engines.duckdb.behind import blocks_behind
from penstock.engines.duckdb.engine import DATABASE, DuckState, compile_for_duckdb
from penstock.engines.duckdb.redo import Moved, decoded, encoded
from penstock.errors import StateError
from penstock.runtime.session import Session
from penstock.storage import failpoints

SOURCES = """
CREATE STREAM sales (shop BIGINT NOT NULL, amount BIGINT NOT NULL CHECK (amount >= 0));
CREATE TABLE shops (shop BIGINT PRIMARY KEY, city VARCHAR) WITH (state = 'unbounded');
CREATE VIEW totals AS SELECT shop, count(*) AS n, sum(amount) AS total, max(amount) AS most FROM sales GROUP BY shop;
CREATE VIEW big AS SELECT shop, sum(amount) AS total FROM sales GROUP BY shop HAVING sum(amount) > 15;
CREATE VIEW sizes AS SELECT city, count(*) * 10 AS size FROM shops GROUP BY city;
CREATE VIEW everything AS SELECT count(*) AS n, sum(amount) AS total FROM sales;
CREATE SINK totals_out FROM totals;
CREATE SINK big_out FROM big;
"""
VIEWS = ("totals", "big", "sizes", "everything")


def opened(folder: Path | None, small_epoch: int = 10_000, sql: str = SOURCES) -> Session:
    graph = ps.Pipeline.from_sql(sql, name="behind").graph()
    plan = compile_for_duckdb(graph, in_memory=folder is None)
    return Session(graph, DuckState(plan, folder, collect=True, small_epoch=small_epoch), None)


def step(session: Session, number: int) -> list[object]:
    """One epoch, in which groups come, move and go; its changes."""
    session.insert("sales", [{"shop": (number * n) % 7, "amount": 10 * n} for n in range(number % 4)])
    if number % 2:
        session.insert("shops", [{"shop": number % 5, "city": None if number % 5 == 1 else f"c{number % 3}"}])
    elif number:
        session.delete("shops", [{"shop": (number - 1) % 5}])
    epoch = session.commit()
    return [session.changes(view, epoch).to_pylist() for view in VIEWS]


def contents(session: Session) -> list[object]:
    return [sorted(map(str, session.read(view).to_pylist())) for view in VIEWS]


def outbox(session: Session, sink: str) -> list[dict[str, object]]:
    return [row for _, rows in session._state.outbox(sink, -1) for row in rows.to_pylist()]


def unsettled(session: Session) -> int:
    return session._state._behind._epochs


@contextmanager
def killed(tmp_path: Path, epochs: int) -> Iterator[tuple[Path, Session]]:
    """The files of a state as a kill after so many small epochs leaves them; and what ran large ones instead."""
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    alive.mkdir()
    with opened(None, 0) as other:
        with opened(alive) as session:
            for number in range(epochs):
                assert step(session, number) == step(other, number)
            assert unsettled(session) == epochs
            shutil.copytree(alive, dead)
        yield dead, other


def test_which_blocks_are_behind() -> None:
    sql = SOURCES + (
        "CREATE VIEW above AS SELECT shop FROM totals WHERE n > 1;"
        "CREATE VIEW cities AS SELECT s.city, b.total FROM big b JOIN shops s ON s.shop = b.shop;"
        "CREATE VIEW middle AS SELECT shop, count(*) AS n FROM sales GROUP BY shop;"
        "CREATE VIEW over_middle AS SELECT n FROM middle;"
        "CREATE VIEW medians AS SELECT median(n) AS n FROM over_middle;"
    )
    plan = compile_for_duckdb(ps.Pipeline.from_sql(sql, name="behind").graph(), in_memory=True)
    found = set(blocks_behind(plan))
    # `big` is joined and `middle` is read through a view, in their contents; of `totals` only the delta is read.
    assert {"totals", "sizes", "everything"} <= found
    assert not {"big", "middle", "medians"} & found


def test_after_a_kill_all_is_there(tmp_path: Path) -> None:
    with killed(tmp_path, 9) as (dead, other), opened(dead) as again:
        assert unsettled(again) == 0
        assert again.progress.epoch == other.progress.epoch
        assert contents(again) == contents(other)
        for sink in ("totals_out", "big_out"):
            assert outbox(again, sink) == outbox(other, sink) != []
        for number in range(9, 14):
            assert step(again, number) == step(other, number)


def test_a_settling_that_fails_is_done_again_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(tmp_path, 8) as (dead, other):
        for point in (redo.BEFORE_COMMIT, redo.AFTER_COMMIT):
            monkeypatch.setenv(failpoints.ARM_VARIABLE, f"{point}@1=error")
            failpoints.reload()
            with pytest.raises(StateError, match="written"):
                opened(dead)
            monkeypatch.delenv(failpoints.ARM_VARIABLE)
            failpoints.reload()
        with opened(dead) as again:
            assert contents(again) == contents(other)
            assert outbox(again, "totals_out") == outbox(other, "totals_out")


def test_what_reads_between_epochs_sees_all(tmp_path: Path) -> None:
    reads: list[Callable[[Session], object]] = [
        contents,
        lambda s: sorted(map(str, s.query("SELECT * FROM totals").to_pylist())),
        lambda s: s.query("SELECT count(*) AS n FROM _ps.journal").to_pylist(),
        lambda s: len(s.dead_letters()),
    ]
    with opened(tmp_path) as session, opened(None, 0) as other:
        for number in range(12):
            assert step(session, number) == step(other, number)
            assert unsettled(session) > 0
            read = reads[number % len(reads)]
            assert read(session) == read(other)
            assert unsettled(session) == 0


def test_a_kill_is_seen_by_a_plan_that_has_changed_and_by_a_reset(tmp_path: Path) -> None:
    with killed(tmp_path, 7) as (dead, other):
        changed = SOURCES + "CREATE VIEW more AS SELECT shop FROM sales;"
        shutil.copytree(dead, tmp_path / "second")
        plan = compile_for_duckdb(ps.Pipeline.from_sql(changed, name="behind").graph(), in_memory=False)
        found = change.inspect(dead / DATABASE, plan)
        assert found is not None
        assert found.progress.epoch == other.progress.epoch
        assert found.rows["totals"] == other.read("totals").num_rows
        assert carry.read(tmp_path / "second" / DATABASE) is not None
        with duckdb.connect(str(tmp_path / "second" / DATABASE)) as connection:
            assert connection.execute("SELECT count(*) FROM _ps.redo").fetchall() == [(0,)]


ROOM = [(2, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 3), (2, 100), (4, 7), (0, 2)])]


@pytest.mark.parametrize(("groups", "epochs"), ROOM)
def test_groups_that_do_not_fit_are_looked_up(groups: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_GROUPS", groups)
    monkeypatch.setattr(module, "SETTLE_EPOCHS", epochs)
    with opened(None) as session, opened(None, 0) as other, opened(None, 4) as mixed:
        for number in range(24):
            expected = step(other, number)
            assert step(session, number) == expected
            assert step(mixed, number) == expected
            if number % 12 == 11:
                assert contents(session) == contents(mixed) == contents(other)


def test_a_state_without_redo_rows_is_brought_up_to_date(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        step(session, 3)
        expected = contents(session)
    with duckdb.connect(str(tmp_path / DATABASE)) as connection:
        connection.execute("DROP TABLE _ps.redo")
        connection.execute("UPDATE _ps.meta SET value = '1' WHERE key = 'format'")
    with opened(tmp_path) as session:
        assert contents(session) == expected
        step(session, 5)
        (written,) = session.query("SELECT value FROM _ps.meta WHERE key = 'format'").to_pylist()
        assert written == {"value": "3"}


def test_a_newer_state_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        step(session, 3)
    with duckdb.connect(str(tmp_path / DATABASE)) as connection:
        connection.execute("UPDATE _ps.meta SET value = '4' WHERE key = 'format'")
        connection.execute("INSERT INTO _ps.redo VALUES (9, 'what only a newer one reads')")
    with pytest.raises(StateError, match="newer"):
        opened(tmp_path)


def test_what_is_delivered_never_enters_the_outbox(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        for number in range(6):
            step(session, number)
        session._state.delivered("totals_out", 4)
        kept = {row["_epoch"] for row in outbox(session, "totals_out")}
        assert kept == {5}
        assert {row["_epoch"] for row in outbox(session, "big_out")} == {3}


def test_rows_that_are_delivered_leave_memory(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        for number in range(6):
            step(session, number)
        waiting = session._state._behind._added
        before = len(waiting["o_big_out"])
        session._state.delivered("totals_out", 4)
        assert [epoch for epoch, _ in waiting["o_totals_out"]] == [5]
        assert len(waiting["o_big_out"]) == before > 0


def test_a_group_is_settled_as_it_is_now(tmp_path: Path) -> None:
    """It comes and moves, goes, is settled as gone, and comes again; another goes before it was ever settled."""
    with opened(tmp_path) as session, opened(None, 0) as other:
        for city, settled in [("a", False), ("b", True), ("c", False), ("a", True), ("b", False)]:
            for one in (session, other):
                one.insert("shops", [{"shop": 1, "city": city}])
                one.commit()
            if settled:
                session._state.settle()
                held = session._state._behind._groups["sizes"]
                assert len(held.rows) == 1, "what has gone leaves memory"
                assert not held.behind.any()
                stored = session._state._database.execute("SELECT size FROM sizes").fetchall()
                assert stored == [(10,)]
        assert contents(session) == contents(other)


def test_groups_touched_lately_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_GROUPS", 3)
    with opened(None) as session:
        for shop in range(8):
            session.insert("sales", [{"shop": shop, "amount": 1}])
            session.commit()
        session.insert("sales", [{"shop": 0, "amount": 1}])
        session.commit()
        session._state.settle()
        held = session._state._behind._groups["totals"]
        assert not held.whole
        assert held.rows.column(0).to_pylist() == [4, 5, 6, 7, 0], "the three touched last were kept when it was seven"


def test_an_entry_holds_what_was_moved() -> None:
    words = pa.table({"w": pa.array(["a", None, "a"]).dictionary_encode(), "n": [1, 2, 3]})
    parts = [Moved("t", words, ("w",)), Moved("none", words.slice(0, 0)), Moved("one", words.select(["n"]), ())]
    found = decoded(encoded(parts))
    assert [(part.table, part.keys) for part in found] == [(part.table, part.keys) for part in parts]
    assert [part.rows.to_pylist() for part in found] == [part.rows.to_pylist() for part in parts]
