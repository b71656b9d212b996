"""B3: interval joins against a model in plain Python, while their sides forget what can meet nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationErrors
from penstock.plan.blocks import RecentBlock
from penstock.plan.explain import explain
from penstock.runtime.answers import status
from penstock.runtime.session import Session
from tests.law.law import Fold, lawful, rows_of
from tests.law.oracle import difference
from tests.law.world import START

DELAY = timedelta(seconds=2)
Row = dict[str, Any]
Rows = list[tuple[object, ...]]
Given = list[tuple[str, Row]]


class A(ps.Contract):
    k: int | None
    x: int | None
    at: datetime


class B(ps.Contract):
    k: int | None
    y: int | None
    ts: datetime


def _at(second: int) -> datetime:
    return START + timedelta(seconds=60 + second)


_value = st.sampled_from([None, 1, 2])
_a = st.builds(lambda k, x, n: ("a", {"k": k, "x": x, "at": _at(n)}), _value, _value, st.integers(0, 24))
_b = st.builds(lambda k, y, n: ("b", {"k": k, "y": y, "ts": _at(n)}), _value, _value, st.integers(0, 24))
_histories = st.lists(st.lists(st.one_of(_a, _b), max_size=6), min_size=2, max_size=6)


# -- the model ---------------------------------------------------------------------------------------------------------


def _meet(low: int, high: int) -> Callable[[Row, Row], bool]:
    def meets(a: Row, b: Row) -> bool:
        apart = b["ts"] - a["at"]
        return a["k"] is not None and a["k"] == b["k"] and timedelta(seconds=low) <= apart <= timedelta(seconds=high)

    return meets


def inner(a: list[Row], b: list[Row], meets: Callable[[Row, Row], bool]) -> Rows:
    return [(x["k"], x["x"], y["y"]) for x in a for y in b if meets(x, y)]


def left(a: list[Row], b: list[Row], meets: Callable[[Row, Row], bool]) -> Rows:
    return [(x["k"], x["x"], y) for x in a for y in [r["y"] for r in b if meets(x, r)] or [None]]


def semi(a: list[Row], b: list[Row], meets: Callable[[Row, Row], bool]) -> Rows:
    return [(x["k"], x["x"]) for x in a if any(meets(x, y) for y in b)]


def anti(a: list[Row], b: list[Row], meets: Callable[[Row, Row], bool]) -> Rows:
    return [(x["k"], x["x"]) for x in a if not any(meets(x, y) for y in b)]


def per_ten(a: list[Row], b: list[Row], meets: Callable[[Row, Row], bool]) -> Rows:
    """Groups of ten seconds by the time of `a`: window, rows, matches."""
    starts: dict[datetime, list[object]] = {}
    for row in a:
        second = (row["at"] - START) // timedelta(seconds=10) * 10
        matches = [r["y"] for r in b if meets(row, r)]
        starts.setdefault(START + timedelta(seconds=second), []).extend([True] * len(matches) or [False])
    return [(start, len(found), sum(map(bool, found))) for start, found in starts.items()]


SHOWN = "SELECT a.k, a.x{} FROM a {} b ON a.k = b.k AND {}"
BOUNDS = {
    (0, 4): "b.ts BETWEEN a.at AND a.at + INTERVAL 4 SECONDS",
    (-3, 3): "a.at - b.ts <= INTERVAL 3 SECONDS AND b.ts - INTERVAL 3 SECONDS <= a.at",
    (-6, -2): "a.at >= b.ts + INTERVAL '2 seconds' AND a.at <= b.ts + INTERVAL '6 seconds'",
    (2, 5): "b.ts - a.at BETWEEN INTERVAL 2 SECONDS AND INTERVAL 5 SECONDS",
    (0, 0): "a.at = b.ts",
}
KINDS: dict[str, tuple[Callable[[list[Row], list[Row], Callable[[Row, Row], bool]], Rows], str]] = {
    "inner": (inner, SHOWN.format(", b.y", "JOIN", "{}")),
    "where": (inner, "SELECT a.k, a.x, b.y FROM a, b WHERE a.k = b.k AND {}"),
    "left": (left, SHOWN.format(", b.y", "LEFT JOIN", "{}")),
    "right": (left, "SELECT a.k, a.x, b.y FROM b RIGHT JOIN a ON a.k = b.k AND {}"),
    "semi": (semi, SHOWN.format("", "SEMI JOIN", "{}")),
    "anti": (anti, SHOWN.format("", "ANTI JOIN", "{}")),
}


class _World:
    """What was given, and which of it is on time."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Row, bool]]] = {"a": [], "b": []}
        self._largest: dict[str, datetime] = {}

    def take(self, name: str, row: Row) -> None:
        at = row["at" if name == "a" else "ts"]
        largest = self._largest.get(name)
        self.rows[name].append((row, largest is None or at >= largest - DELAY))
        self._largest[name] = max(at, largest or at)

    def on_time(self, name: str) -> list[Row]:
        return [row for row, timely in self.rows[name] if timely]

    def late(self, name: str) -> int:
        return sum(not timely for _, timely in self.rows[name])

    def apply(self, name: str) -> None:
        self.rows[name] = [(row, True) for row, _ in self.rows[name]]

    @property
    def watermark(self) -> datetime | None:
        return min(self._largest.values()) - DELAY if len(self._largest) == 2 else None


def _pipeline(sql: str, *, horizon: str = "0 seconds", emit: str = "changes") -> ps.Pipeline:
    pipeline = ps.Pipeline("intervals")
    pipeline.stream("a", A, event_time="at", watermark=DELAY, correction_horizon=horizon)
    pipeline.stream("b", B, event_time="ts", watermark=DELAY, correction_horizon=horizon)
    pipeline.view("q", sql, emit=emit)  # type: ignore[arg-type]
    pipeline.sink("out", view="q")
    return pipeline


# -- the law -----------------------------------------------------------------------------------------------------------


@lawful(25)
@given(_histories, st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(BOUNDS)), st.sets(st.integers(0, 5)))
def test_b3_an_interval_join_is_that_of_the_rows_on_time(
    history: list[Given], kind: str, bounds: tuple[int, int], applied: set[int]
) -> None:
    """In memory, where nothing is forgotten and late rows may be applied at any time."""
    model, sql = KINDS[kind]
    world, fold = _World(), Fold()
    with _pipeline(sql.format(BOUNDS[bounds]), horizon="1 day").open() as session:
        for number, given_rows in enumerate(history):
            epoch = _give(session, world, given_rows)
            fold.apply(session.changes("q", epoch), epoch, ())
            assert session.progress.late.get("q", 0) == sum(map(world.late, "ab"))
            for name, counts in status(session._state)["views"].get("q", {}).items():  # type: ignore[attr-defined]
                assert counts["late"] == world.late(name)
                assert counts["rows"] == len(world.rows[name]) == counts["accepted"] + counts["late"]
            _compare(fold, world, model, bounds, rows_of(session.read("q")))
            if number in applied and session.apply_late("a"):
                world.apply("a")
                fold.apply(session.changes("q", epoch + 1), epoch + 1, (), correction=True)
                _compare(fold, world, model, bounds, rows_of(session.read("q")))


@lawful(25)
@given(_histories, st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(BOUNDS)))
def test_b3_what_its_sides_forget_is_never_missed(history: list[Given], kind: str, bounds: tuple[int, int]) -> None:
    """On disk, with no horizon: each epoch ends with forgetting all that may be."""
    model, sql = KINDS[kind]
    world, fold = _World(), Fold()
    with TemporaryDirectory() as folder, _pipeline(sql.format(BOUNDS[bounds])).open(state=folder) as session:
        for given_rows in history:
            epoch = _give(session, world, given_rows)
            fold.apply(session.changes("q", epoch), epoch, ())
            _compare(fold, world, model, bounds)
            session._state.maintain()
            _kept_no_longer(session, world, bounds)


def _give(session: Session, world: _World, given_rows: Given) -> int:
    for name in ("a", "b"):
        rows = [row for of, row in given_rows if of == name]
        session.insert(name, rows)
        for row in rows:
            world.take(name, row)
    return session.commit()


def _compare(fold: Fold, world: _World, model: Any, bounds: tuple[int, int], read: Rows | None = None) -> None:
    expected = model(world.on_time("a"), world.on_time("b"), _meet(*bounds))
    wrong = difference(fold.content(), expected) or (difference(read, expected) if read is not None else "")
    assert not wrong, wrong


def _kept_no_longer(session: Session, world: _World, bounds: tuple[int, int]) -> None:
    """The sides hold the rows whose time the watermark has not passed by what they may meet, and no others."""
    low, high = bounds
    for name, time, seconds in (("a", "at", high), ("b", "ts", max(-low, high - low))):
        kept = session.query(f'SELECT count(*) AS n FROM _ps."t_q$recent_{name}"')["n"][0].as_py()
        mark = world.watermark
        wanted = [r for r in world.on_time(name) if mark is None or r[time] + timedelta(seconds=seconds) >= mark]
        assert kept == len(wanted), (name, kept, wanted)


@pytest.mark.parametrize("kind", ["inner", "left"])
@pytest.mark.parametrize("bounds", [(0, 4), (-6, -2)])
def test_b3_windows_over_an_interval_join_close_when_nothing_they_hold_changes_any_more(
    kind: str, bounds: tuple[int, int]
) -> None:
    window = "time_bucket(INTERVAL 10 SECONDS, a.at)"
    sql = (
        f"SELECT {window} AS w, count(*) AS n, count(b.ts) AS m FROM a {'LEFT ' if kind == 'left' else ''}JOIN b "
        f"ON a.k = b.k AND {BOUNDS[bounds]} GROUP BY 1"
    )
    settled = timedelta(seconds=10 + max(bounds[1], 0))

    @lawful(8)
    @given(_histories)
    def holds(history: list[Given]) -> None:
        world, fold = _World(), Fold()
        with TemporaryDirectory() as folder, _pipeline(sql, emit="final").open(state=folder) as session:
            for given_rows in history:
                epoch = _give(session, world, given_rows)
                fold.apply(session.changes("q", epoch), epoch, ("w",))
                assert {r["_op"] for r in session.changes("q", epoch).to_pylist()} <= {"+I"}, "each window comes once"
                groups = per_ten(world.on_time("a"), world.on_time("b"), _meet(*bounds))
                if kind == "inner":
                    groups = [(w, m, m) for w, _, m in groups if m]
                mark = world.watermark
                closed = [g for g in groups if mark is not None and g[0] + settled <= mark]  # type: ignore[operator]
                wrong = difference(fold.content(), closed)
                assert not wrong, wrong
                session._state.maintain()

    holds()


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_b3_the_state_of_a_week_stays_flat(tmp_path: Path) -> None:
    pipeline = _pipeline(SHOWN.format(", b.y", "LEFT JOIN", BOUNDS[0, 4]), horizon="1 day")
    sizes: list[int] = []
    keys = count()
    with pipeline.open(state=tmp_path) as session:
        tables = [t.name for node in session._state.plan.nodes for t in node.state]
        assert tables == ["t_q$recent_a", "t_q$recent_b"]
        for day in range(8):
            for minute in range(0, 24 * 60, 30):
                at = START + timedelta(days=day, minutes=minute)
                session.insert("a", [{"k": next(keys), "x": 1, "at": at}])
                session.insert("b", [{"k": next(keys), "y": 1, "ts": at}])
            session.commit()
            session._state.maintain()
            total = " + ".join(f'(SELECT count(*) FROM _ps."{name}")' for name in tables)
            sizes.append(int(session.query(f"SELECT {total} AS n").to_pylist()[0]["n"]))
    assert max(sizes[3:]) == min(sizes[3:]) <= 3 * sizes[0], sizes


def _recent(sql: str, *, in_memory: bool = False) -> list[RecentBlock]:
    plan = compile_for_duckdb(_pipeline(sql).graph(), in_memory=in_memory)
    return [n.block for n in plan.nodes if isinstance(n.block, RecentBlock)]


def test_b3_explain_shows_the_bound_and_the_late_rule() -> None:
    plan = compile_for_duckdb(_pipeline(KINDS["inner"][1].format(BOUNDS[0, 4])).graph(), in_memory=False)
    blocks = {b.name: b for report in explain(plan, "q") for b in report.blocks}
    assert blocks["q$recent_a"].strategy == "recent rows"
    assert blocks["q$recent_a"].state == (
        "t_q$recent_a (k, x, at), bound by watermark: a, b, 4s more, then the correction horizon",
    )
    assert "rows of b" in blocks["q$recent_b$rows"].late


def test_b3_a_join_of_a_stream_with_itself_has_two_sides() -> None:
    sql = (
        "SELECT l.k, l.at, r.at AS then_ FROM a l JOIN a r "
        "ON l.k = r.k AND r.at - l.at BETWEEN INTERVAL 1 SECOND AND INTERVAL 3 SECONDS"
    )
    world, fold = _World(), Fold()
    with _pipeline(sql).open() as session:
        for second in (1, 2, 4, 4, 9, 10, 7):
            epoch = _give(session, world, [("a", {"k": 1, "x": None, "at": _at(second)})])
            fold.apply(session.changes("q", epoch), epoch, ())
    rows = world.on_time("a")
    expected = [(1, x["at"], y["at"]) for x in rows for y in rows if 1 <= (y["at"] - x["at"]).total_seconds() <= 3]
    assert not difference(fold.content(), expected)
    assert len(rows) == 6


UNBOUNDED = {
    "one bound": "SELECT a.k, b.y FROM a JOIN b ON a.k = b.k AND b.ts >= a.at",
    "months": "SELECT a.k, b.y FROM a JOIN b ON b.ts BETWEEN a.at AND a.at + INTERVAL 1 MONTH",
    "an outer join bounded by WHERE": (
        "SELECT a.k, b.y FROM a LEFT JOIN b ON a.k = b.k WHERE b.ts BETWEEN a.at AND a.at + INTERVAL 1 DAY"
    ),
    "either of two bounds": "SELECT a.k, b.y FROM a JOIN b ON b.ts BETWEEN a.at AND a.at + INTERVAL 1 DAY OR a.k = b.k",
    "another column": "SELECT a.k, b.y FROM a JOIN b ON b.y BETWEEN a.x AND a.x + 1",
    "EXISTS": "SELECT a.k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.ts = a.at)",
    "a third stream": "SELECT a.k, b.y FROM a JOIN b ON b.ts = a.at JOIN a c ON c.k = a.k",
}


@pytest.mark.parametrize("sql", UNBOUNDED.values(), ids=UNBOUNDED)
def test_b3_what_the_conditions_do_not_bound_is_refused_on_disk(sql: str, tmp_path: Path) -> None:
    assert not _recent(sql, in_memory=True)
    with pytest.raises(DeclarationErrors) as wrong:
        _pipeline(sql).open(state=tmp_path)
    assert {e.code for e in wrong.value.errors} == {"PS-DECL-010"}


def test_b3_a_result_that_is_read_again_must_be_acknowledged(tmp_path: Path) -> None:
    """Its sides forget, so a `max` over it reads what the join itself keeps, which grows."""
    pipeline = _pipeline(KINDS["inner"][1].format(BOUNDS[0, 4]))
    pipeline.view("oldest", "SELECT k, count(DISTINCT y) AS y FROM q GROUP BY k")
    with pytest.raises(DeclarationErrors) as wrong:
        pipeline.open(state=tmp_path)
    (error,) = wrong.value.errors
    assert error.code == "PS-DECL-010"
    assert "interval join" in error.got
