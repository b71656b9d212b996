"""B1: a step is a sequential fold per key over (time, offset), with timers that fire when the watermark passes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.steps import Change, Step, Timer
from tests.law.law import lawful, rows_of
from tests.law.oracle import difference
from tests.law.world import START

Row = dict[str, Any]


class E(ps.Contract):
    k: int | None
    v: int
    at: datetime


class Out(ps.Contract):
    k: int | None
    what: str
    total: int


@dataclass
class State:
    k: int | None = None
    total: int = 0


QUIET = timedelta(seconds=6)


def watch(state: State | None, changes: list[Change], timers: list[Timer]) -> Step[State]:
    """Sums per key, one row per change; a timer six seconds after each change says that it came, and resets the sum."""
    state = state or State()
    rows: list[Row] = []
    for change in changes:
        value, key = change.row["v"], change.row["k"]
        assert isinstance(value, int)
        assert key is None or isinstance(key, int)
        state = State(key, state.total * 2 + value if change.op == "+I" else state.total - value)
        rows.append({"k": key, "what": change.op, "total": state.total})
    for timer in timers:
        rows.append({"k": state.k, "what": f"timer {timer.at:%H:%M:%S}", "total": state.total})
        state = State(state.k, 0)
    alarms = [Timer(c.time + QUIET) for c in changes]
    if state.total == 0 and timers:
        return Step(None, rows, alarms)
    return Step(state, rows, alarms)


def _pipeline(delay: str = "2 seconds") -> ps.Pipeline:
    pipeline = ps.Pipeline("steps")
    pipeline.stream("e", E, event_time="at", watermark=delay)
    pipeline.step("sums", input="e", key="k", state=State, output=Out, function=watch)
    pipeline.view("per_what", "SELECT k, count(*) AS n FROM sums GROUP BY k")
    return pipeline


_row = st.fixed_dictionaries(
    {
        "k": st.sampled_from([None, 1, 2]),
        "v": st.integers(0, 3),
        "at": st.integers(0, 30).map(lambda n: START + timedelta(seconds=n)),
    }
)


def _oracle(history: list[list[Row]]) -> list[tuple[object, ...]]:
    """Every key on its own, one change or timer after another."""
    found: list[tuple[object, ...]] = []
    totals: dict[object, int | None] = {}
    alarms: dict[object, set[datetime]] = {}
    largest: datetime | None = None
    for rows in history:
        for row in rows:
            largest = max(largest or row["at"], row["at"])
        watermark = largest - timedelta(seconds=2) if largest else None
        for key in {r["k"] for r in rows} | set(alarms):
            mine = sorted((r for r in rows if r["k"] == key), key=lambda r: r["at"])
            pending = alarms.setdefault(key, set())

            def fire(
                before: datetime | None,
                key: object = key,
                pending: set[datetime] = pending,
                watermark: datetime | None = watermark,
            ) -> None:
                while due := [t for t in pending if watermark and t <= watermark and (before is None or t < before)]:
                    first = min(due)
                    pending.discard(first)
                    known = totals.get(key) is not None
                    found.append((key if known else None, f"timer {first:%H:%M:%S}", totals.get(key) or 0))
                    totals[key] = None

            # Rows of one time are one call: their timers are set together, after it.
            for at in sorted({r["at"] for r in mine}):
                fire(at)
                for row in (r for r in mine if r["at"] == at):
                    totals[key] = (totals.get(key) or 0) * 2 + row["v"]
                    found.append((key, "+I", totals[key]))
                pending.add(at + QUIET)
            fire(None)
    return found


@lawful(25)
@given(st.lists(st.lists(_row, max_size=6), min_size=1, max_size=4))
def test_b1_a_step_is_a_sequential_fold(history: list[list[Row]]) -> None:
    with _pipeline().open() as session:
        emitted: list[tuple[object, ...]] = []
        for rows in history:
            session.insert("e", rows)
            emitted += [r[:3] for r in rows_of(session.changes("sums", session.commit()))]
        expected = _oracle(history)
        assert not difference(emitted, expected)
        assert not difference(rows_of(session.read("sums")), expected)
        per_key = {key: sum(e[0] == key for e in expected) for key in {e[0] for e in expected}}
        assert not difference(rows_of(session.read("per_what")), list(per_key.items()))


@lawful(15)
@given(st.lists(_row, max_size=8), st.integers(0, 8))
def test_b1_in_order_rows_fold_alike_whatever_the_epochs(rows: list[Row], cut: int) -> None:
    """With no delay: else a timer between the watermark and the newest row is due by what the epoch reads after it."""
    rows = sorted(rows, key=lambda r: r["at"])
    # All rows of a time are one call, before the timers of that time.
    while 0 < cut < len(rows) and rows[cut - 1]["at"] == rows[cut]["at"]:
        cut += 1
    found = []
    for history in ([rows], [rows[:cut], rows[cut:]]):
        with _pipeline("0 seconds").open() as session:
            for part in history:
                session.insert("e", part)
                session.commit()
            found.append(sorted(map(repr, rows_of(session.read("sums")))))
    assert found[0] == found[1]


def test_b1_retracted_rows_reach_the_step_as_what_they_amount_to() -> None:
    class T(ps.Contract):
        k: int
        v: int
        at: datetime

    seen: list[tuple[str, object]] = []

    def note(state: int | None, changes: list[Change], timers: list[Timer]) -> Step[int]:
        seen.extend((c.op, c.row["v"]) for c in changes)
        return Step(len(seen))

    class N(ps.Contract):
        n: int

    pipeline = ps.Pipeline("retracted")
    pipeline.table("a", T, key="k")
    pipeline.table("b", T, key="k")
    pipeline.view("j", "SELECT a.k, b.v, a.at FROM a JOIN b ON a.k = b.k")
    pipeline.step("noted", input="j", key="k", time="at", state=int, output=N, function=note)
    with pipeline.open() as session:
        session.insert("a", [{"k": 1, "v": 0, "at": START}])
        session.insert("b", [{"k": 1, "v": 5, "at": START}])
        session.commit()
        # Both sides move; the pair (1, 5) goes, (1, 6) comes, and what comes and goes between them is not seen.
        session.insert("a", [{"k": 1, "v": 1, "at": START}])
        session.insert("b", [{"k": 1, "v": 6, "at": START}])
        session.commit()
    assert seen == [("+I", 5), ("-D", 5), ("+I", 6)]


def test_b1_a_row_that_changes_goes_and_comes() -> None:
    """Over a view with a key, which tells its sinks -U and +U, a step sees the same -D and +I as over any other."""
    calls: list[list[tuple[str, object]]] = []

    def note(state: int | None, changes: list[Change], timers: list[Timer]) -> Step[int]:
        calls.append([(c.op, c.row["total"]) for c in changes])
        return Step((state or 0) + len(changes))

    class N(ps.Contract):
        n: int

    pipeline = ps.Pipeline("changed")
    pipeline.stream("e", E, event_time="at", watermark="2 seconds")
    pipeline.view("sums", "SELECT k, date_trunc('day', at) AS day, sum(v) AS total FROM e GROUP BY ALL")
    pipeline.step("noted", input="sums", key="k", time="day", state=int, output=N, function=note)
    with pipeline.open() as session:
        for value in (5, 0, 2):
            session.insert("e", [{"k": 1, "v": value, "at": START}])
            epoch = session.commit()
        assert [c["_op"] for c in session.changes("sums", epoch).to_pylist()] == ["-U", "+U"]
    assert calls == [[("+I", 5)], [("-D", 5), ("+I", 7)]], "the sum that stayed as it was is no change"
