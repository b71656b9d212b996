"""Dead letters, late rows, and their way back (E3, T2, R1 to R3): counts add up, and nothing counts twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DataError
from penstock.runtime.session import Session
from tests.law.law import lawful, rows_of
from tests.law.oracle import difference
from tests.law.world import START


class Page(ps.Contract):
    url: str


class Click(ps.Contract):
    user: int = ps.Field(ge=0)
    url: str
    at: datetime


Row = dict[str, Any]
WINDOW = "time_bucket(INTERVAL '10 seconds', at)"


def _pipeline(**options: object) -> ps.Pipeline:
    pipeline = ps.Pipeline("corrections")
    pipeline.reference("pages", Page, key="url")
    pipeline.stream(
        "clicks",
        Click,
        event_time="at",
        watermark="2 seconds",
        references={"url": "pages.url"},
        state="unbounded",
        **options,  # type: ignore[arg-type]
    )
    pipeline.view("n", "SELECT url, count(*) AS n FROM clicks GROUP BY url")
    pipeline.view("merged", f"SELECT {WINDOW} AS w, count(*) AS n FROM clicks GROUP BY 1")
    pipeline.view("affected", f"SELECT {WINDOW} AS w, count(DISTINCT user) AS n FROM clicks GROUP BY 1")
    pipeline.view("refreshed", f"SELECT {WINDOW} AS w, count(*) AS n FROM clicks GROUP BY 1", strategy="refresh")
    pipeline.view("closed", f"SELECT {WINDOW} AS w, count(*) AS n FROM clicks GROUP BY 1", emit="final")
    pipeline.sink("out", view="n")
    return pipeline


def _click(user: int, url: str, seconds: int) -> Row:
    return {"user": user, "url": url, "at": START + timedelta(seconds=60 + seconds)}


def _adds_up(session: Session) -> None:
    for name, source in session.progress.sources.items():
        counts = source.counts
        assert counts.rows == counts.accepted + counts.duplicate + counts.dead, name
        waiting = [x for x in session.dead_letters(name).to_pylist() if x["status"] == "dead"]
        assert counts.dead == len(waiting), name


_click_rows = st.builds(_click, st.sampled_from([-1, 1, 2]), st.sampled_from(["a", "b", "c"]), st.integers(0, 30))


@pytest.mark.slow
@lawful(15)
@given(
    st.lists(st.lists(_click_rows, max_size=5), min_size=1, max_size=4),
    st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_e3_a_replayed_record_counts_once_however_often_it_is_replayed(
    history: list[list[Row]], versions: list[set[str]], replays: list[bool]
) -> None:
    accepted: list[Row] = []
    dead: list[Row] = []
    with _pipeline().open() as session:
        for rows, pages, replay in zip(history, versions, replays, strict=False):
            session.replace("pages", [{"url": url} for url in sorted(pages)])
            session.insert("clicks", rows)
            session.commit()
            for row in rows:
                (accepted if row["user"] != -1 and row["url"] in pages else dead).append(row)
            for _ in range(2 if replay else 0):
                assert session.replay() == len(dead)
                accepted += [r for r in dead if r["user"] != -1 and r["url"] in pages]
                dead = [r for r in dead if r["user"] == -1 or r["url"] not in pages]
            urls = [r["url"] for r in accepted]
            assert not difference(rows_of(session.read("n")), [(u, urls.count(u)) for u in set(urls)])
            counts = session.progress.sources["clicks"].counts
            assert (counts.accepted, counts.dead) == (len(accepted), len(dead))
            _adds_up(session)


def test_e3_a_letter_replayed_from_a_reopened_state_is_accepted_under_the_new_reference(tmp_path: Path) -> None:
    with _pipeline().open(state=tmp_path) as session:
        session.replace("pages", [{"url": "a"}])
        session.insert("clicks", [_click(1, "a", 0), _click(1, "b", 1), _click(-5, "a", 2)])
        session.commit()
        rules = sorted(x["rule"] for x in session.dead_letters().to_pylist())
        assert rules == ["ge", "references"]
        assert session.replay() == 2
        assert rows_of(session.read("n")) == [("a", 1)]
    with _pipeline().open(state=tmp_path) as session:
        session.replace("pages", [{"url": "a"}, {"url": "b"}])
        session.commit()
        session.replay()
        session.replay()
        assert sorted(rows_of(session.read("n"))) == [("a", 1), ("b", 1)]
        changes = session.changes("n", session.progress.epoch - 1).to_pylist()
        assert [(c["url"], c["_op"], c["_correction"]) for c in changes] == [("b", "+I", True)]
        _adds_up(session)


def test_e3_a_replayed_row_passes_lateness_and_corrects_a_closed_window() -> None:
    with _pipeline().open() as session:
        session.replace("pages", [{"url": "a"}])
        session.insert("clicks", [_click(1, "b", 1), _click(1, "a", 2), _click(1, "a", 40)])
        session.commit()
        assert rows_of(session.read("closed")) == [(START + timedelta(seconds=60), 1)]
        session.replace("pages", [{"url": "a"}, {"url": "b"}])
        session.commit()
        session.replay()
        assert rows_of(session.read("closed")) == [(START + timedelta(seconds=60), 2)]
        changes = session.changes("closed", session.progress.epoch).to_pylist()
        assert [(c["n"], c["_op"], c["_seq"], c["_correction"]) for c in changes] == [
            (1, "-U", 0, True),
            (2, "+U", 1, True),
        ]
        assert session.progress.late == {}


def test_t2_late_rows_are_counted_per_view_and_applied_once_to_every_strategy() -> None:
    with _pipeline().open() as session:
        session.replace("pages", [{"url": "a"}])
        session.insert("clicks", [_click(1, "a", 1), _click(1, "a", 40), _click(2, "a", 3), _click(1, "a", 38)])
        session.commit()
        views = ("merged", "affected", "refreshed", "closed")
        first, last = START + timedelta(seconds=60), START + timedelta(seconds=90)
        assert session.progress.late == dict.fromkeys(views, 1)
        assert sorted(rows_of(session.read("merged"))) == [(first, 1), (last, 1), (last + timedelta(seconds=10), 1)]
        late = session.late_rows("clicks").to_pylist()
        assert {(x["view"], x["offset"], x["user"], x["window_end"]) for x in late} == {
            (v, 2, 2, first + timedelta(seconds=10)) for v in views
        }
        assert session.apply_late("clicks") == 1
        for view in ("merged", "affected", "refreshed"):
            assert (first, 2) in rows_of(session.read(view)), view
        assert rows_of(session.read("closed")) == [(first, 2)]
        assert session.apply_late("clicks") == 0
        assert rows_of(session.read("n")) == [("a", 4)], "a view without windows has no late rows"
        assert {x["status"] for x in session.late_rows("clicks").to_pylist()} == {"applied"}


def test_t2_a_late_row_is_counted_once_however_often_its_join_changes() -> None:
    class User(ps.Contract):
        user: int
        name: str

    pipeline = ps.Pipeline("joined")
    pipeline.stream("clicks", Click, event_time="at", watermark="2 seconds")
    pipeline.table("users", User, key="user")
    pipeline.view("named", "SELECT clicks.at, users.name FROM clicks JOIN users ON clicks.user = users.user")
    pipeline.view("w", f"SELECT {WINDOW} AS w, name, count(*) AS n FROM named GROUP BY 1, 2")
    with pipeline.open() as session:
        session.insert("users", [{"user": 1, "name": "ann"}])
        session.insert("clicks", [_click(1, "a", 40), _click(1, "a", 1)])
        session.commit()
        for name in ("Ann", "ANN"):
            session.insert("users", [{"user": 1, "name": name}])
            session.insert("clicks", [_click(2, "a", 2)])
            session.commit()
            assert rows_of(session.read("w")) == [(START + timedelta(seconds=100), name, 1)]
            assert session.progress.late == {"w": 1}
        assert session.apply_late("clicks") == 1
        assert sorted(rows_of(session.read("w"))) == [
            (START + timedelta(seconds=60), "ANN", 1),
            (START + timedelta(seconds=100), "ANN", 1),
        ]
        session.insert("users", [{"user": 1, "name": "x"}])
        session.commit()
        assert {r[1] for r in rows_of(session.read("w"))} == {"x"}


def test_e3_beyond_the_correction_horizon_late_rows_are_refused() -> None:
    with _pipeline(correction_horizon="20 seconds").open() as session:
        session.replace("pages", [{"url": "a"}])
        session.insert("clicks", [_click(1, "a", 0), _click(1, "a", 100), _click(1, "a", 1)])
        session.commit()
        with pytest.raises(DataError) as problem:
            session.apply_late("clicks")
        assert problem.value.code == "PS-DATA-003"
        assert "backfill" in problem.value.hint
        assert rows_of(session.read("closed")) == [(START + timedelta(seconds=60), 1)]


def test_r2_a_broken_or_empty_reference_keeps_the_old_version() -> None:
    with _pipeline().open() as session:
        session.replace("pages", [{"url": "a"}])
        session.commit()
        for broken in ([], [{"url": "x"}, {"url": None}], [{"url": "x"}, {"url": "x"}]):
            session.replace("pages", broken)
            session.insert("clicks", [_click(1, "a", 0)])
            session.commit()
            assert rows_of(session.read("pages")) == [("a",)]
            assert session.last is not None
            assert len(session.last.alerts) == 1
        assert rows_of(session.read("n")) == [("a", 3)]


def test_r1_a_delete_without_row_is_dead() -> None:
    class Pair(ps.Contract):
        a: int | None
        b: int

    pipeline = ps.Pipeline("multiset")
    pipeline.table("pairs", Pair)
    pipeline.view("n", "SELECT a, count(*) AS n FROM pairs GROUP BY a")
    with pipeline.open() as session:
        session.insert("pairs", [{"a": None, "b": 1}])
        session.delete("pairs", [{"a": None, "b": 1}, {"a": None, "b": 1}])
        session.insert("pairs", [{"a": 1, "b": 1}])
        session.commit()
        assert rows_of(session.read("n")) == [(1, 1)]
        assert [x["rule"] for x in session.dead_letters().to_pylist()] == ["delete_without_row"]
        _adds_up(session)


def test_r1_a_null_key_is_dead_and_a_broken_record_keeps_the_old_row() -> None:
    class User(ps.Contract):
        id: int
        age: int = ps.Field(ge=0)

    pipeline = ps.Pipeline("users")
    pipeline.table("users", User, key="id")
    pipeline.view("ages", "SELECT id, age FROM users")
    with pipeline.open() as session:
        session.insert("users", [{"id": 1, "age": 3}, {"id": None, "age": 4}, {"id": 1, "age": -1}])
        session.commit()
        assert rows_of(session.read("ages")) == [(1, 3)]
        assert sorted(x["rule"] for x in session.dead_letters().to_pylist()) == ["ge", "key_null"]
        _adds_up(session)


def test_e4_change_records_are_numbered_from_0_in_an_order_that_follows_from_the_rows() -> None:
    pipeline = ps.Pipeline("fence")
    pipeline.stream("clicks", Click)
    pipeline.view("n", "SELECT url, count(*) AS n FROM clicks GROUP BY url")
    rows = [_click(1, url, 0) for url in ("b", "a", "c", "a")]
    found = []
    for given_rows in (rows, rows[::-1]):
        with pipeline.open() as session:
            session.insert("clicks", given_rows)
            found.append(rows_of(session.changes("n", session.commit())))
    assert found[0] == found[1]
    assert [(r[0], r[4]) for r in found[0]] == [("a", 0), ("b", 1), ("c", 2)]


def test_a_row_without_event_time_has_no_window_and_is_dead() -> None:
    class Maybe(ps.Contract):
        k: int
        at: datetime | None

    pipeline = ps.Pipeline("maybe")
    pipeline.stream("e", Maybe, event_time="at", watermark="0 seconds")
    pipeline.view("w", f"SELECT {WINDOW} AS w, count(*) AS n FROM e GROUP BY 1")
    moments = [START, START + timedelta(seconds=30), None, START + timedelta(seconds=1)]
    for cut in (0, 2, 3):
        with pipeline.open() as session:
            rows = [{"k": 1, "at": at} for at in moments]
            for part in (rows[:cut], rows[cut:]):
                session.insert("e", part)
                session.commit()
            assert sorted(rows_of(session.read("w"))) == [(START, 1), (START + timedelta(seconds=30), 1)]
            assert [x["rule"] for x in session.dead_letters().to_pylist()] == ["event_time"]
            assert session.progress.late == {"w": 1}
