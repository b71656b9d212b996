"""The in-process session: on disk it goes on where it was, and says clearly what it cannot do."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import penstock as ps
from penstock.engines.duckdb import state as state_tables
from penstock.errors import DataError, Error, RunError, StateError
from penstock.runtime.session import Session


class Frame:
    """What pandas and Polars have in common: they hand over Arrow."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


START = datetime(2026, 1, 1)


class Click(ps.Contract):
    user: int = ps.Field(ge=0)
    at: datetime


class User(ps.Contract):
    user: int
    name: str | None


def _pipeline() -> ps.Pipeline:
    pipeline = ps.Pipeline("sessions")
    pipeline.stream("clicks", Click, event_time="at", watermark="2 seconds", unique="user, at", within="1 minute")
    pipeline.table("users", User, key="user")
    pipeline.view("n", "SELECT user, count(*) AS n FROM clicks GROUP BY user")
    pipeline.view("named", "SELECT users.name, n.n FROM n LEFT JOIN users ON n.user = users.user")
    pipeline.view(
        "closed",
        "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, count(*) AS n FROM clicks GROUP BY 1",
        emit="final",
    )
    pipeline.view("top", "SELECT name, n FROM named ORDER BY n DESC, name LIMIT 1")
    pipeline.sink("out", view="named")
    return pipeline


def _click(user: int, seconds: int) -> dict[str, object]:
    return {"user": user, "at": START + timedelta(seconds=seconds)}


EPOCHS: tuple[tuple[list[dict[str, object]], list[dict[str, object]]], ...] = (
    ([_click(1, 0), _click(1, 1), _click(-1, 1)], [{"user": 1, "name": "ann"}]),
    ([_click(2, 14), _click(1, 0)], []),
    ([_click(2, 15), _click(2, 3)], [{"user": 2, "name": "bob"}, {"user": 1, "name": None}]),
    ([_click(3, 40), _click(-7, 41)], []),
)


def _content(session: Session) -> dict[str, list[str]]:
    return {v: sorted(map(repr, session.read(v).to_pylist())) for v in ("n", "named", "closed", "top", "users")}


def _run(session: Session, epoch: int) -> None:
    clicks, users = EPOCHS[epoch]
    session.insert("clicks", clicks)
    session.insert("users", users)
    assert session.commit() == epoch


def test_a_state_that_is_closed_and_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    with _pipeline().open() as memory:
        for epoch in range(len(EPOCHS)):
            _run(memory, epoch)
            with _pipeline().open(state=tmp_path) as session:
                assert session.progress.epoch == epoch - 1
                _run(session, epoch)
                assert _content(session) == _content(memory)
                assert {n: s.counts for n, s in session.progress.sources.items()} == {
                    n: s.counts for n, s in memory.progress.sources.items()
                }
                assert session.progress.late == memory.progress.late == ({"closed": 1} if epoch >= 2 else {})
        # Two broken records, one that came again.
        counts = memory.progress.sources["clicks"].counts
        assert (counts.rows, counts.dead, counts.duplicate) == (9, 2, 1)


def test_e1_every_epoch_leaves_a_journal_entry_that_says_where_it_stands(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path) as session:
        for epoch in range(3):
            _run(session, epoch)
        entries = [
            json.loads(r["entry"]) for r in session.query("SELECT * FROM _ps.journal ORDER BY epoch").to_pylist()
        ]
        state_id = session.progress.state_id
    assert [e["epoch"] for e in entries] == [0, 1, 2]
    assert {e["state_id"] for e in entries} == {state_id}
    assert [e["sources"]["clicks"]["ranges"]["0"] for e in entries] == [[0, 3], [3, 5], [5, 7]]
    assert [e["sources"]["users"]["counts"]["rows"] for e in entries] == [1, 1, 3]
    watermarks = [e["sources"]["clicks"]["watermark_us"] for e in entries]
    origin = (START - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert [w - origin for w in watermarks] == [-1_000_000, 12_000_000, 13_000_000]


def test_progress_read_from_a_journal_is_the_progress_that_was_written(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path) as session:
        for epoch in range(len(EPOCHS)):
            _run(session, epoch)
        engine = session._state
        loaded = state_tables.load_progress(engine._connection, engine.plan, session.progress.state_id)
        assert loaded == session.progress


def test_a_changed_plan_takes_over_what_is_stored_and_is_refused_where_that_does_not_do(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path) as session:
        _run(session, 0)
        _run(session, 1)
    other = _pipeline()
    other.view("names", "SELECT name, count(*) AS n FROM users GROUP BY name")
    with other.open(state=tmp_path) as session:
        assert sum(row["n"] for row in session.read("names").to_pylist()) == len(session.read("users"))
        assert len(session.read("users"))
    other.view("more", "SELECT count(*) AS n FROM clicks")
    with pytest.raises(StateError) as problem:
        other.open(state=tmp_path)
    assert problem.value.code == "PS-STATE-004"
    assert "reset" in problem.value.hint
    # The refusal has let go of the lock.
    with pytest.raises(StateError, match="another plan"):
        _pipeline().open(state=tmp_path)


def test_two_sessions_on_one_state_are_one_too_many(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path):
        with pytest.raises(StateError) as problem:
            _pipeline().open(state=tmp_path)
        assert problem.value.code == "PS-STATE-001"


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path) as session:
        session.insert("clicks", [_click(1, 0)])
    with _pipeline().open(state=tmp_path) as session:
        assert session.progress.epoch == -1
        assert session.read("n").num_rows == 0


def test_an_epoch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Text(ps.Contract):
        k: int
        word: str

    pipeline = ps.Pipeline("failing")
    pipeline.table("words", Text, key="k")
    pipeline.view("numbers", "SELECT k, CAST(word AS BIGINT) AS n FROM words", key="k")
    pipeline.view("total", "SELECT sum(n) AS n FROM numbers")
    with pipeline.open(state=tmp_path) as session:
        session.insert("words", [{"k": 1, "word": "1"}])
        session.commit()
        session.insert("words", [{"k": 1, "word": "two"}])
        with pytest.raises(RunError):
            session.commit()
        assert session.progress.epoch == 0
        assert session.read("total").to_pylist() == [{"n": 1}]
        assert session.query("SELECT max(epoch) AS e FROM _ps.journal").to_pylist() == [{"e": 0}]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: s.insert("nothing", []), "nothing of that name"),
        (lambda s: s.insert("n", []), "nothing of that name"),
        (lambda s: s.delete("clicks", []), "a stream"),
        (lambda s: s.replace("users", []), "a table"),
        (lambda s: s.advance("users", "2026-01-01"), "a table"),
        (lambda s: s.insert("users", "text"), "str"),
        (lambda s: s.insert("users", [1]), "int"),
        (lambda s: s.insert("users", pa.table({"other": [1]})), "other"),
        (lambda s: s.read("nothing"), "nothing"),
        (lambda s: s.changes("users", 0), "users"),
        (lambda s: s.query("DROP TABLE x"), "DROP"),
        (lambda s: s.query("SELECT 1; SELECT 2"), "SELECT 1"),
    ],
)
def test_wrong_use_of_a_session_is_told(call: object, says: str) -> None:
    with _pipeline().open() as session:
        with pytest.raises(Error) as problem:
            call(session)  # type: ignore[operator]
        assert isinstance(problem.value, DataError | RunError)
        assert says in str(problem.value)


def test_rows_come_as_a_data_frame_too() -> None:
    with _pipeline().open() as session:
        session.insert("users", Frame({"user": [1, 2], "name": ["ann", None]}))
        session.commit()
        assert sorted(map(repr, session.read("users").to_pylist())) == [
            "{'user': 1, 'name': 'ann'}",
            "{'user': 2, 'name': None}",
        ]


def test_an_epoch_without_rows_touches_nothing() -> None:
    with _pipeline().open() as session:
        _run(session, 0)
        session.commit()
        assert session.last is not None
        assert session.last.touched == {}
        assert session.changes("n", 1).num_rows == 0
