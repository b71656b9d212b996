"""T6: hopping and session windows against a model in plain Python, whatever the epochs, late rows and corrections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DeclarationErrors
from tests.law.law import Fold, lawful, rows_of
from tests.law.oracle import difference
from tests.law.world import START, T

SIZE, SLIDE, GAP, DELAY = (timedelta(seconds=n) for n in (10, 4, 5, 3))
HOP = (
    "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM e "
    "GROUP BY hop(at, INTERVAL 10 SECONDS, INTERVAL 4 SECONDS), k"
)
SESSION = (
    "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM e GROUP BY session(at, INTERVAL 5 SECONDS), k"
)
Row = dict[str, Any]
Rows = list[tuple[object, ...]]


class E(ps.Contract):
    k: int | None
    v: int | None
    at: datetime


_row = st.fixed_dictionaries(
    {
        "k": st.sampled_from([None, 1, 2]),
        "v": st.sampled_from([None, 1, 2]),
        "at": st.integers(0, 30).map(lambda n: START + timedelta(seconds=60 + n)),
    }
)
_histories = st.lists(st.lists(_row, max_size=6), min_size=1, max_size=5)


# -- the model ---------------------------------------------------------------------------------------------------------


def _starts(at: datetime) -> list[datetime]:
    """The starts of the hopping windows that hold a time, from DuckDB's origin."""
    origin = datetime(2000, 1, 3)
    last = origin + (at - origin) // SLIDE * SLIDE
    return [last - n * SLIDE for n in range(10) if last - n * SLIDE + SIZE > at]


def hops(rows: list[tuple[Row, datetime | None]]) -> Rows:
    """The groups of all rows, each with the watermark before it (None: it is late for nothing)."""
    groups: dict[tuple[object, ...], list[int | None]] = {}
    for row, before in rows:
        for start in _starts(row["at"]):
            if before is None or start + SIZE > before:
                groups.setdefault((start, start + SIZE, row["k"]), []).append(row["v"])
    return [(*key, len(vs), _sum(vs)) for key, vs in groups.items()]


def sessions(rows: list[tuple[Row, datetime | None]]) -> Rows:
    found: Rows = []
    for k in {row["k"] for row, _ in rows}:
        mine = sorted((r for r, before in rows if r["k"] == k and _on_time(r, before)), key=lambda r: r["at"])
        chain: list[Row] = []
        for row in [*mine, None]:
            if chain and (row is None or row["at"] - chain[-1]["at"] >= GAP):
                found.append((k, chain[0]["at"], chain[-1]["at"] + GAP, len(chain), _sum([r["v"] for r in chain])))
                chain = []
            if row is not None:
                chain.append(row)
    return found


def _on_time(row: Row, before: datetime | None) -> bool:
    return before is None or row["at"] >= before


def _sum(values: list[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def late(model: Callable[[list[tuple[Row, datetime | None]]], Rows], row: Row, before: datetime | None) -> int:
    """For how many windows the row is late."""
    if before is None:
        return 0
    return sum(s + SIZE <= before for s in _starts(row["at"])) if model is hops else int(row["at"] < before)


MODELS = {"hop": (HOP, hops, 1), "session": (SESSION, sessions, 2)}


# -- the law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("emit", ["changes", "final"])
def test_t6_windows_are_those_of_the_rows_on_time(kind: str, emit: str) -> None:
    @lawful(20)
    @given(_histories, st.sets(st.integers(0, 4)))
    def holds(history: list[list[Row]], applied: set[int]) -> None:
        _check(kind, emit, history, applied if emit == "changes" else set())

    holds()


def _check(kind: str, emit: str, history: list[list[Row]], applied: set[int]) -> None:
    sql, model, end = MODELS[kind]
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark=DELAY)
    pipeline.view("w", sql, emit=emit)  # type: ignore[arg-type]
    rows: list[tuple[Row, datetime | None]] = []
    largest: datetime | None = None
    fold, shown = Fold(), 0
    with pipeline.open() as session:
        view = session._state.plan.view("w")
        assert view is not None
        for number, given_rows in enumerate(history):
            for row in given_rows:
                rows.append((row, largest - DELAY if largest else None))
                largest = max(largest or row["at"], row["at"])
            session.insert("e", given_rows)
            epoch = session.commit()
            fold.apply(session.changes("w", epoch), epoch, view.key)
            assert session.progress.late.get("w", 0) == sum(late(model, r, b) for r, b in rows)
            _compare(session, fold, _closed(model(rows), end, largest, emit))
            if number in applied and session.apply_late("e"):
                rows = [(row, None) for row, _ in rows]
                fold.apply(session.changes("w", epoch + 1), epoch + 1, view.key, correction=True)
                _compare(session, fold, model(rows))
            shown += len(fold.content())


def _closed(rows: Rows, end: int, largest: datetime | None, emit: str) -> Rows:
    if emit == "changes":
        return rows
    return [r for r in rows if largest is not None and r[end] <= largest - DELAY]  # type: ignore[operator]


def _compare(session: Any, fold: Fold, expected: Rows) -> None:
    wrong = difference(rows_of(session.read("w")), expected)
    assert not wrong, wrong
    wrong = difference(fold.content(), expected)
    assert not wrong, wrong


def test_t6_a_row_may_be_late_for_some_of_its_windows_only() -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark="0 seconds")
    pipeline.view("w", HOP, emit="final")
    with pipeline.open() as session:
        session.insert("e", [{"k": 1, "v": 1, "at": START + timedelta(seconds=n)} for n in (13, 9)])
        session.commit()
        assert session.progress.late == {"w": 1}, "at 9 s it is in [4, 14) and [8, 18), and [0, 10) has closed"


def test_t6_a_row_that_is_between_two_sessions_joins_them_and_its_going_parts_them() -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.table("t", T, key="k")
    sql = "SELECT window_start AS b, window_end AS e, count(*) AS n FROM t "
    when = "make_timestamp(k::BIGINT * 1000000)"
    pipeline.view("w", sql + f"GROUP BY session({when}, INTERVAL 4 SECONDS)")
    with pipeline.open() as session:
        session.insert("t", [{"k": k, "a": None, "n": None} for k in (0, 6)])
        session.commit()
        assert [r[2] for r in rows_of(session.read("w"))] == [1, 1]
        session.insert("t", [{"k": 3, "a": None, "n": None}])
        session.commit()
        assert [r[2] for r in rows_of(session.read("w"))] == [3]
        session.delete("t", [{"k": 3}])
        session.commit()
        assert [r[2] for r in rows_of(session.read("w"))] == [1, 1]


def test_t6_windows_keep_their_joins_filters_and_having() -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark=DELAY, state="unbounded")
    pipeline.table("t", T, key="k")
    pipeline.view(
        "w",
        "SELECT window_start, t.a AS name, count(*) AS n, max(v) + 1 AS m FROM e JOIN t ON e.k = t.k WHERE v > 0 "
        "GROUP BY hop(e.at, INTERVAL '10 seconds', INTERVAL '5 seconds'), 2 HAVING count(*) > 1",
    )
    pipeline.view(
        "x",
        "SELECT window_start, t.a AS name, count(*) AS n FROM e JOIN t ON e.k = t.k WHERE v > 0 "
        "GROUP BY session(e.at, INTERVAL '10 seconds'), name HAVING count(*) > 1",
    )
    with pipeline.open() as session:
        session.insert("t", [{"k": 1, "a": "one", "n": 0}])
        session.insert("e", [{"k": 1, "v": v, "at": START + timedelta(seconds=v)} for v in (0, 1, 2, 6)])
        session.commit()
        assert not difference(
            rows_of(session.read("w")),
            [(START - timedelta(seconds=5), "one", 2, 3), (START, "one", 3, 7)],
        )
        assert rows_of(session.read("x")) == [(START + timedelta(seconds=1), "one", 3)]


def test_t6_windows_over_closed_sessions_and_hops_close_in_turn() -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark="0 seconds")
    pipeline.view("sessions", SESSION, emit="final")
    pipeline.view("hops", HOP, emit="final")
    ended = "SELECT time_bucket(INTERVAL '1 minute', window_end) AS m, count(*) AS n FROM sessions GROUP BY 1"
    started = "SELECT time_bucket(INTERVAL '20 seconds', window_start) AS m, sum(n) AS n FROM hops GROUP BY 1"
    pipeline.view("minutes", ended, emit="final")
    pipeline.view("twenties", started, emit="final")
    with pipeline.open() as session:
        for second in (1, 3, 20, 61, 90):
            session.insert("e", [{"k": 1, "v": 1, "at": START + timedelta(seconds=second)}])
            session.commit()
        assert rows_of(session.read("minutes")) == [(START, 2)]
        assert sum((Counter({r[0]: r[1] for r in rows_of(session.read("twenties"))})).values()) > 0


def test_v5_a_session_that_grows_is_a_row_that_changes() -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark=DELAY)
    pipeline.view("w", SESSION)
    pipeline.view("starts", "SELECT k, window_start FROM e GROUP BY session(at, INTERVAL 5 SECONDS), k")
    with pipeline.open() as session:
        for second, ops in ((10, ["+I"]), (12, ["-U", "+U"]), (18, ["+I"]), (15, ["-U", "+U", "-D"])):
            session.insert("e", [{"k": 1, "v": 1, "at": START + timedelta(seconds=second)}])
            epoch = session.commit()
            assert session.changes("w", epoch).column("_op").to_pylist() == ops
            told = [op for op in ops if op[1] != "U"]
            assert session.changes("starts", epoch).column("_op").to_pylist() == told


@pytest.mark.parametrize("kind", ["tumbling", "hop", "session", "top"])
@pytest.mark.parametrize("emit", ["changes", "final"])
def test_t6_the_state_of_a_week_stays_flat(kind: str, emit: str, tmp_path: Path) -> None:
    """Windows of an hour or so, a horizon of a day: from the third day on, no table grows."""
    counted = "SELECT time_bucket(INTERVAL '1 hour', at) AS w, k, count(*) AS n FROM e GROUP BY 1, 2"
    sql = {
        "tumbling": counted,
        "hop": "SELECT window_start, k, count(*) AS n FROM e GROUP BY hop(at, INTERVAL 2 HOURS, INTERVAL 1 HOUR), k",
        "session": "SELECT window_start, k, count(*) AS n FROM e GROUP BY session(at, INTERVAL 45 MINUTES), k",
        "top": counted + " QUALIFY row_number() OVER (PARTITION BY w ORDER BY n) = 1",
    }[kind]
    pipeline = ps.Pipeline("week")
    pipeline.stream("e", E, event_time="at", watermark="1 minute")
    pipeline.view("w", sql, emit=emit)  # type: ignore[arg-type]
    sizes: list[int] = []
    with pipeline.open(state=tmp_path) as session:
        tables = [t.name for node in session._state.plan.nodes for t in node.state]
        assert tables
        for day in range(8):
            times = [START + timedelta(days=day, hours=h, minutes=m) for h in range(0, 24, 2) for m in (0, 30)]
            session.insert("e", [{"k": k, "v": 1, "at": at} for at in times for k in (1, 2)])
            session.commit()
            session._state.maintain()
            count = " + ".join(f'(SELECT count(*) FROM _ps."{name}")' for name in tables)
            sizes.append(int(session.query(f"SELECT {count} AS n").to_pylist()[0]["n"]))
    assert sizes[0] > 0
    assert max(sizes[3:]) == min(sizes[3:]) <= 3 * sizes[0], sizes


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT hop(at, INTERVAL 2 SECONDS, INTERVAL 1 SECOND) AS w FROM e",
        "SELECT count(*) AS n FROM e GROUP BY hop(at, INTERVAL 2 SECONDS)",
        "SELECT count(*) AS n FROM e GROUP BY session(at, INTERVAL 1 MONTH)",
        "SELECT count(*) AS n FROM e GROUP BY session(at, INTERVAL 1 DAY), hop(at, INTERVAL 2 DAYS, INTERVAL 1 DAY)",
    ],
)
def test_a_window_that_does_not_say_what_it_must_is_refused(sql: str) -> None:
    pipeline = ps.Pipeline("windows")
    pipeline.stream("e", E, event_time="at", watermark=DELAY)
    pipeline.view("w", sql)
    with pytest.raises(DeclarationErrors) as wrong:
        pipeline.open()
    assert [e.code for e in wrong.value.errors] == ["PS-DECL-016"]
