"""T3: the rows of closed windows are a stream whose event time is the window's end; windows over them close in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import penstock as ps
from penstock.engines.base import EpochInput, SourceInput
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.errors import DeclarationErrors, Error
from penstock.formats.rows import rows_to_batch
from tests.law.law import Case, View, check, lawful, rows_of
from tests.law.oracle import difference
from tests.law.world import START, epochs

_Q = View(
    "q",
    "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, g, count(*) AS n, sum(v) AS s, "
    "time_bucket(INTERVAL '10 seconds', at) + INTERVAL 10 SECONDS AS e FROM s GROUP BY 1, 2, 5",
    "10s",
    final=True,
)


def _over(name: str, *views: View, below: View = _Q) -> Case:
    return Case(name, (below, *views))


def _minute(name: str, sql: str) -> View:
    return View(name, sql, "1m", final=True)


NESTED = (
    _over(
        "minutes_of_seconds",
        _minute(
            "minutes",
            "SELECT time_bucket(INTERVAL '1 minute', w) AS minute, sum(n) AS n, count(*) AS c FROM q GROUP BY 1",
        ),
        _minute("most", "SELECT date_trunc('minute', w) AS minute, g, max(s) AS s FROM q GROUP BY 1, 2"),
        View("all_of_it", "SELECT sum(n) AS n FROM minutes"),
    ),
    _over(
        "the_same_windows_again",
        View("total", "SELECT w, sum(n) AS n, count(g) AS c FROM q GROUP BY w", "10s", final=True),
        View("most", "SELECT w, max(n) AS n FROM q GROUP BY w HAVING max(n) > 1", "10s", final=True),
    ),
    _over(
        "through_views",
        View("few", "SELECT w AS x, g, n FROM q WHERE n < 3"),
        View("same", "SELECT x, sum(n) AS n FROM few GROUP BY x", "10s", final=True),
        _minute("minutes", "SELECT time_bucket(INTERVAL '1 minute', x) AS minute, sum(n) AS n FROM same GROUP BY 1"),
        _minute(
            "h",
            "WITH c AS (SELECT minute, n FROM minutes WHERE n > 0) SELECT minute, sum(n) AS n FROM c GROUP BY minute",
        ),
    ),
    _over(
        "over_changes",
        _minute("minutes", "SELECT time_bucket(INTERVAL '1 minute', w) AS minute, sum(n) AS n FROM c GROUP BY 1"),
        _minute("d", "SELECT time_bucket(INTERVAL '1 minute', w) AS minute, max(n) AS n FROM c GROUP BY 1"),
        below=View("c", "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, count(*) AS n FROM s GROUP BY 1", "10s"),
    ),
)
JOINED = _over(
    "joined_to_a_table",
    _minute(
        "minutes",
        "SELECT time_bucket(INTERVAL '1 minute', q.w) AS minute, t.a, sum(q.n) AS n FROM q JOIN t ON q.g = t.a "
        "GROUP BY 1, 2",
    ),
    View("w", "SELECT q.w, count(t.a) AS n FROM q LEFT JOIN t ON q.n = t.n GROUP BY q.w", "10s", final=True),
)


def _fast(case: Case) -> object:
    return case if case is NESTED[0] else pytest.param(case, marks=pytest.mark.slow)


@pytest.mark.parametrize("case", [_fast(case) for case in NESTED], ids=str)
def test_t3_windows_over_closed_windows(case: Case) -> None:
    """Watermarks by hand, ends of streams, and late rows that are applied through both levels."""

    @lawful(3)
    @given(epochs(case.sources, also=("advance", "flush", "apply")))
    def holds(history: list[Any]) -> None:
        check(case, history)

    holds()


@lawful(3)
@given(epochs(JOINED.sources, also=("advance", "flush")))
def test_t3_windows_over_closed_windows_that_are_joined_freeze_too(history: list[Any]) -> None:
    check(JOINED, history)


class E(ps.Contract):
    k: int
    at: datetime


def _pipeline(*views: tuple[str, str, str], **options: Any) -> ps.Pipeline:
    pipeline = ps.Pipeline("finals")
    pipeline.stream("s", E, event_time="at", watermark="0 seconds", **options)
    for name, sql, emit in views:
        pipeline.view(name, sql, emit=emit)  # type: ignore[arg-type]
    return pipeline


def _at(second: int) -> datetime:
    return START + timedelta(seconds=second)


FOURS = ("q", "SELECT time_bucket(INTERVAL '4 seconds', at) AS w, k, count(*) AS n FROM s GROUP BY 1, 2", "final")


def test_t3_a_window_closes_when_the_last_window_that_starts_in_it_has_closed() -> None:
    """4 s do not divide 10 s: the window [0, 10) waits for [8, 12), by its ends it does not."""
    pipeline = _pipeline(
        FOURS,
        ("starts", "SELECT time_bucket(INTERVAL '10 seconds', w) AS t, sum(n) AS n FROM q GROUP BY 1", "final"),
        (
            "ends",
            "SELECT time_bucket(INTERVAL '10 seconds', w + INTERVAL '4 seconds') AS t, sum(n) AS n FROM q GROUP BY 1",
            "final",
        ),
    )
    came: dict[tuple[str, int], list[tuple[int, str]]] = {}
    with pipeline.open() as session:
        for second in range(45):
            session.insert("s", [{"k": 1, "at": _at(second)}])
            epoch = session.commit()
            for view in ("starts", "ends"):
                for row in session.changes(view, epoch).to_pylist():
                    start = int((row["t"] - START).total_seconds())
                    came.setdefault((view, start), []).append((second, f"{row['_op']} {row['n']}"))
    assert came == {
        ("starts", 0): [(12, "+I 12")],
        ("starts", 10): [(20, "+I 8")],
        ("starts", 20): [(32, "+I 12")],
        ("starts", 30): [(40, "+I 8")],
        ("ends", 0): [(10, "+I 8")],
        ("ends", 10): [(20, "+I 8")],
        ("ends", 20): [(30, "+I 12")],
        ("ends", 30): [(40, "+I 8")],
    }


def test_t3_a_state_that_is_opened_again_goes_on_where_its_windows_stood(tmp_path: Path) -> None:
    def pipeline() -> ps.Pipeline:
        return _pipeline(
            FOURS, ("m", "SELECT time_bucket(INTERVAL '20 seconds', w) AS m, max(n) AS n FROM q GROUP BY 1", "final")
        )

    seen: list[tuple[Any, ...]] = []
    for second in range(0, 45, 5):
        with pipeline().open(state=tmp_path) as session:
            session.insert("s", [{"k": second % 2, "at": _at(second)}, {"k": 1, "at": _at(second)}])
            seen += [r[:3] for r in rows_of(session.changes("m", session.commit()))]
    assert seen == [(_at(0), 2, "+I"), (_at(20), 2, "+I")]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, max(w) AS w FROM q GROUP BY k",
        "SELECT time_bucket(INTERVAL '1 minute', a.w) AS m, sum(a.n) AS n FROM q AS a JOIN q AS b ON a.w < b.w "
        "GROUP BY 1",
        "SELECT time_bucket(INTERVAL '1 minute', q.w) AS m, count(*) AS n FROM q JOIN s AS a ON q.k = a.k "
        "JOIN s AS b ON q.k = b.k GROUP BY 1",
        "SELECT time_bucket(INTERVAL '1 minute', w + INTERVAL '1 second') AS m, sum(n) AS n FROM q GROUP BY 1",
        "SELECT w, n FROM q",
    ],
)
def test_t3_what_no_watermark_closes_is_refused(sql: str) -> None:
    with pytest.raises(Error) as problem:
        _pipeline(FOURS, ("x", sql, "final"), state="unbounded").open()
    assert "PS-DECL-012" in str(problem.value)


# -- how long closed windows are kept ----------------------------------------------------------------------------------


def _run(state: DuckState, epoch: int, second: int, k: int = 1) -> None:
    row = {"k": k, "at": _at(second)}
    batch = rows_to_batch([row], state.plan.sources[0].source.schema, epoch, 0)
    state.run(EpochInput(epoch, {"s": SourceInput((batch,), {0: (epoch, epoch + 1)})}))


def test_a_window_over_windows_is_computed_from_all_of_them(tmp_path: Path) -> None:
    """The minute's `max` is computed again from windows that are, on their own, beyond the correction horizon."""
    pipeline = _pipeline(
        FOURS,
        ("m", "SELECT time_bucket(INTERVAL '1 minute', w) AS m, max(n) AS n, min(n) AS low FROM q GROUP BY 1", "final"),
        correction_horizon="5 seconds",
    )
    state = DuckState(compile_for_duckdb(pipeline.graph(), in_memory=False), tmp_path, threads=1)
    for epoch, second in enumerate((0, 1, 2, 8, 20, 30, 50, 61, 64, 130)):
        _run(state, epoch, second)
        state.maintain()
        if second in (61, 64):
            assert rows_of(state.read("m")) == [(_at(0), 3, 1)]
    kept = [row[0] for row in rows_of(state.read("q"))]
    state.close()
    assert kept == [_at(64)], "windows of a minute that is beyond the horizon are forgotten"


def test_what_reads_all_windows_again_must_say_that_they_are_kept(tmp_path: Path) -> None:
    longest = ("longest", "SELECT k, max(n) AS n FROM q GROUP BY k")
    with pytest.raises(Error) as problem:
        _pipeline(FOURS, (*longest, "changes")).open(state=tmp_path / "a")
    (error,) = problem.value.errors if isinstance(problem.value, DeclarationErrors) else [problem.value]
    assert error.code == "PS-DECL-010"
    assert "longest is computed again from every closed window of q" in str(error)
    assert "group longest by a window of q too" in error.hint
    pipeline = _pipeline(FOURS, correction_horizon="5 seconds")
    pipeline.view(*longest, state="unbounded")
    state = DuckState(compile_for_duckdb(pipeline.graph(), in_memory=False), tmp_path, threads=1)
    for epoch, second in enumerate((0, 1, 2, 20, 40, 60)):
        _run(state, epoch, second)
        state.maintain()
    assert rows_of(state.read("longest")) == [(1, 3)]
    state.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, sum(n) AS n FROM q GROUP BY k",
        "SELECT a.w, a.n, b.n AS m FROM q AS a JOIN p AS b ON a.w = b.w",
        "SELECT a.w, a.n, b.n AS m FROM q AS a LEFT JOIN p AS b ON a.w = b.w AND a.k = b.n",
        "SELECT w, max(n) AS n FROM q GROUP BY w",
    ],
)
def test_what_takes_windows_once_bounds_them(sql: str, tmp_path: Path) -> None:
    again = ("p", "SELECT time_bucket(INTERVAL '4 seconds', at) AS w, count(*) AS n FROM s GROUP BY 1", "final")
    pipeline = _pipeline(FOURS, again, ("x", sql, "changes"), correction_horizon="5 seconds")
    state = DuckState(compile_for_duckdb(pipeline.graph(), in_memory=False), tmp_path, threads=1)
    for epoch, second in enumerate((0, 1, 8, 20, 40)):
        _run(state, epoch, second)
        state.maintain()
    assert rows_of(state.read("q")) == []
    state.close()


# -- kills -------------------------------------------------------------------------------------------------------------

KILLED = """
from datetime import datetime
import penstock as ps

class Click(ps.Contract):
    user: int
    at: datetime

pipeline = ps.Pipeline("clicks")
pipeline.stream("clicks", Click, event_time="at", watermark="5 seconds")
pipeline.view("q", "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, user, count(*) AS n FROM clicks GROUP BY ALL",
    emit="final")
pipeline.view("m", "SELECT date_trunc('minute', w) AS m, sum(n) AS n, max(n) AS most FROM q GROUP BY ALL",
    emit="final")
pipeline.view("same", "SELECT w, sum(n) AS n FROM q GROUP BY w", emit="final")
"""


@pytest.mark.slow
def test_t3_windows_over_windows_survive_kills(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(KILLED)
    rows = [{"user": n % 3, "at": _at(n - (40 if n % 17 == 0 else 0) + 60).isoformat()} for n in range(300)]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = [sys.executable, "-m", "penstock", "verify", "p.py", "--input", "clicks=file:clicks.jsonl"]
    done = subprocess.run(
        [*command, "--runs", "4", "--kills", "3", "--seed", "5", "--output", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["difference"] is None
    assert set(found["compared"]) == {"q", "m", "same"}
    assert found["late"]["q"] > 5
    assert sum(found["kills"].values()) >= 4


def test_the_frozen_rows_of_two_levels_agree(tmp_path: Path) -> None:
    """What the minute shows is what its windows show, whatever came late in between."""
    pipeline = _pipeline(
        FOURS, ("m", "SELECT time_bucket(INTERVAL '20 seconds', w) AS m, sum(n) AS n FROM q GROUP BY 1", "final")
    )
    with pipeline.open() as session:
        for second in (1, 5, 2, 9, 30, 3, 41, 12, 66):
            session.insert("s", [{"k": 1, "at": _at(second)}])
            session.commit()
        assert not difference(rows_of(session.read("m")), [(_at(0), 3), (_at(20), 1), (_at(40), 1)])
        assert session.apply_late("s") == 3
        changes = session.changes("m", session.progress.epoch).to_pylist()
        assert [(c["m"], c["n"], c["_op"], c["_correction"]) for c in changes] == [
            (_at(0), 3, "-U", True),
            (_at(0), 6, "+U", True),
        ]
