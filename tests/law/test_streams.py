"""Streams with more meaning: retention (R4), unique keys (R3), transient streams, clocks (T5), partitions (T1)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.connectors.base import RawBatch
from penstock.engines.base import EpochInput, SourceInput
from penstock.engines.duckdb.engine import DuckState, compile_for_duckdb
from penstock.formats.rows import rows_to_batch
from tests.law.law import lawful, rows_of
from tests.law.oracle import difference, window_end
from tests.law.world import START, T

Row = dict[str, Any]


class E(ps.Contract):
    id: int | None
    k: int
    v: int | None
    at: datetime


def _at(seconds: int) -> datetime:
    return START + timedelta(seconds=60 + seconds)


_row = st.fixed_dictionaries(
    {
        "id": st.sampled_from([None, 1, 2, 3]),
        "k": st.integers(0, 2),
        "v": st.sampled_from([None, 1, 2]),
        "at": st.integers(0, 40).map(_at),
    }
)
_history = st.lists(st.lists(_row, max_size=6), min_size=1, max_size=4)


# -- retention ---------------------------------------------------------------------------------------------------------


@lawful(12)
@given(_history, st.booleans())
def test_r4_rows_past_their_retention_leave_every_view(history: list[list[Row]], lookup: bool) -> None:
    pipeline = ps.Pipeline("retention")
    pipeline.stream("e", E, event_time="at", watermark="2 seconds", retention="10 seconds")
    pipeline.table("t", T, key="k")
    pipeline.view("per_k", "SELECT k, count(*) AS n, sum(v) AS s FROM e GROUP BY k")
    pipeline.view("top", "SELECT k, max(v) AS v FROM e GROUP BY k")
    pipeline.view("joined", "SELECT e.v, t.a FROM e LEFT JOIN t ON e.k = t.k")
    pipeline.view("kept", "SELECT * FROM joined WHERE v = 1")
    pipeline.view("w", "SELECT time_bucket(INTERVAL '4 seconds', at) AS w, count(*) AS n FROM e GROUP BY 1")
    rows: list[tuple[Row, datetime | None]] = []
    names: dict[int, str] = {}
    largest: datetime | None = None
    with pipeline.open() as session:
        for epoch, given_rows in enumerate(history):
            for row in given_rows:
                rows.append((row, largest - timedelta(seconds=2) if largest else None))
                largest = max(largest or row["at"], row["at"])
            session.insert("e", given_rows)
            if lookup:
                names[epoch % 3] = f"a{epoch}"
                session.insert("t", [{"k": epoch % 3, "a": f"a{epoch}", "n": 0}])
            session.commit()
            cutoff = largest - timedelta(seconds=12) if largest else START
            live = [(r, w) for r, w in rows if r["at"] >= cutoff]
            per_k = {k: [r["v"] for r, _ in live if r["k"] == k] for k in {r["k"] for r, _ in live}}
            assert not difference(
                rows_of(session.read("per_k")),
                [(k, len(vs), sum(v for v in vs if v) if any(vs) else None) for k, vs in per_k.items()],
            )
            assert not difference(
                rows_of(session.read("top")),
                [(k, max((v for v in vs if v is not None), default=None)) for k, vs in per_k.items()],
            )
            joined = [(r["v"], names.get(r["k"])) for r, _ in live]
            assert not difference(rows_of(session.read("joined")), joined)
            assert not difference(rows_of(session.read("kept")), [j for j in joined if j[0] == 1])
            ends = [window_end(r["at"], timedelta(seconds=4)) for r, w in live if not _late(r, w, 4)]
            counted = [(end - timedelta(seconds=4), ends.count(end)) for end in set(ends)]
            assert not difference(rows_of(session.read("w")), counted)
        late = sum(_late(r, w, 4) for r, w in rows)
        assert session.progress.late.get("w", 0) == late, "a row that leaves is not late once more"


def _late(row: Row, watermark: datetime | None, seconds: int) -> bool:
    at = row["at"]
    assert isinstance(at, datetime)
    return watermark is not None and window_end(at, timedelta(seconds=seconds)) <= watermark


# -- unique ------------------------------------------------------------------------------------------------------------


@lawful(20)
@given(_history)
def test_r3_the_first_of_a_unique_key_wins_whatever_the_epochs(history: list[list[Row]]) -> None:
    pipeline = ps.Pipeline("unique")
    pipeline.stream("e", E, event_time="at", watermark="3 seconds", unique=("id", "k"), within="8 seconds")
    pipeline.view("every", "SELECT * FROM e")
    accepted: list[Row] = []
    seen: list[Row] = []
    verdicts = {"duplicate": 0, "key_conflict": 0}
    largest: datetime | None = None
    with pipeline.open() as session:
        for given_rows in history:
            session.insert("e", given_rows)
            session.commit()
            for row in given_rows:
                earlier = [r for r in seen if _repeats(r, row, largest)]
                if not earlier:
                    accepted.append(row)
                    seen.append(row)
                else:
                    verdicts["duplicate" if row in earlier else "key_conflict"] += 1
                largest = max(largest or row["at"], row["at"])
            assert not difference(
                rows_of(session.read("every")), [tuple(r[c] for c in ("id", "k", "v", "at")) for r in accepted]
            )
            counts = session.progress.sources["e"].counts
            assert (counts.duplicate, counts.dead) == (verdicts["duplicate"], verdicts["key_conflict"])
            assert counts.rows == counts.accepted + counts.duplicate + counts.dead
        assert {x["rule"] for x in session.dead_letters().to_pylist()} <= {"key_conflict"}


def _repeats(earlier: Row, row: Row, largest: datetime | None) -> bool:
    within = timedelta(seconds=8)
    watermark = largest - timedelta(seconds=3) if largest else None
    first, at = earlier["at"], row["at"]
    assert isinstance(first, datetime)
    assert isinstance(at, datetime)
    same = (earlier["id"], earlier["k"]) == (row["id"], row["k"])
    return same and abs(at - first) <= within and (watermark is None or first + within > watermark)


# -- transient ---------------------------------------------------------------------------------------------------------


@lawful(12)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=3), st.lists(st.integers(0, 2), max_size=2)), max_size=4)
)
def test_e2_a_request_is_answered_once_against_the_state_of_its_epoch(
    history: list[tuple[list[int], list[int]]],
) -> None:
    class Ask(ps.Contract):
        k: int

    pipeline = ps.Pipeline("requests")
    pipeline.stream("ask", Ask, transient=True)
    pipeline.table("t", T, key="k")
    pipeline.view("names", "SELECT k, a FROM t WHERE a IS NOT NULL")
    pipeline.view("answers", "SELECT ask.k, names.a FROM ask LEFT JOIN names ON ask.k = names.k")
    table: dict[int, str] = {}
    with pipeline.open() as session:
        for number, (asked, updates) in enumerate(history):
            session.insert("ask", [{"k": k} for k in asked])
            for k in updates:
                table[k] = f"v{number}"
                session.insert("t", [{"k": k, "a": f"v{number}", "n": 0}])
            epoch = session.commit()
            answers = rows_of(session.changes("answers", epoch))
            assert {a[2] for a in answers} <= {"+I"}
            assert not difference([a[:2] for a in answers], [(k, table.get(k)) for k in asked])


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_t5_a_clock_is_a_stream_whose_ticks_are_rows() -> None:
    pipeline = ps.Pipeline("stale")
    pipeline.clock("tick", "1 second")
    pipeline.table("t", T, key="k")
    pipeline.view("now", "SELECT max(at) AS at FROM tick")
    pipeline.view("seen", "SELECT now.at, t.k FROM now JOIN t ON t.n IS NOT NULL")
    with pipeline.open() as session:
        session.insert("t", [{"k": 1, "a": "x", "n": 1}])
        for number in range(3):
            session.insert("tick", [{"tick": number, "at": _at(number)}])
            session.commit()
            assert rows_of(session.read("seen")) == [(_at(number), 1)]


# -- partitions --------------------------------------------------------------------------------------------------------


@st.composite
def _partitioned(draw: st.DrawFn) -> tuple[dict[int, list[Row]], list[list[int]]]:
    """Rows per partition, and cuts of each partition into as many epochs."""
    epochs = draw(st.integers(1, 4))
    partitions = {p: draw(st.lists(_row, max_size=8)) for p in range(draw(st.integers(1, 3)))}
    cuts = [
        sorted(draw(st.lists(st.integers(0, len(rows)), min_size=epochs - 1, max_size=epochs - 1)))
        for rows in partitions.values()
    ]
    return partitions, [[0, *c, len(rows)] for c, rows in zip(cuts, partitions.values(), strict=True)]


@lawful(20)
@given(_partitioned())
def test_t1_lateness_does_not_depend_on_how_epochs_are_cut(
    given_rows: tuple[dict[int, list[Row]], list[list[int]]],
) -> None:
    """Two cuts of the same partitions: each row is late or not by its own partition's rows before it."""
    partitions, cuts = given_rows
    once = _counted(partitions, [[0, len(rows)] for rows in partitions.values()])
    assert _counted(partitions, cuts) == once
    late = 0
    for rows in partitions.values():
        largest: datetime | None = None
        for row in rows:
            late += _late(row, largest - timedelta(seconds=3) if largest else None, 10)
            largest = max(largest or row["at"], row["at"])
    assert once[1] == late


def _counted(partitions: dict[int, list[Row]], cuts: list[list[int]]) -> tuple[list[tuple[object, ...]], int]:
    pipeline = ps.Pipeline("parts")
    pipeline.stream("e", E, event_time="at", watermark="3 seconds")
    pipeline.view("w", "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, count(*) AS n FROM e GROUP BY 1")
    graph = pipeline.graph()
    state = DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True, threads=1)
    schema = graph.sources[0].schema
    for epoch in range(len(cuts[0]) - 1):
        batches: list[RawBatch] = []
        offsets = {}
        for partition, rows in partitions.items():
            first, last = cuts[partition][epoch], cuts[partition][epoch + 1]
            offsets[partition] = (first, last)
            if last > first:
                batches.append(rows_to_batch(rows[first:last], schema, first, partition))
        state.run(EpochInput(epoch, {"e": SourceInput(tuple(batches), offsets)}))
    found = sorted(rows_of(state.read("w")))
    late = state.progress.late.get("w", 0)
    state.close()
    return found, late


def test_t1_a_window_closes_when_the_slowest_active_partition_has_passed_it() -> None:
    pipeline = ps.Pipeline("parts")
    pipeline.stream("e", E, event_time="at", watermark="0 seconds")
    pipeline.view(
        "w", "SELECT time_bucket(INTERVAL '10 seconds', at) AS w, count(*) AS n FROM e GROUP BY 1", emit="final"
    )
    graph = pipeline.graph()
    state = DuckState(compile_for_duckdb(graph, in_memory=True), None, collect=True, threads=1)
    schema = graph.sources[0].schema

    def run(
        epoch: int, partition: int, offset: int, seconds: int, idle: tuple[int, ...] = ()
    ) -> list[tuple[object, ...]]:
        row: Row = {"id": 1, "k": 1, "v": 1, "at": _at(seconds)}
        batch = rows_to_batch([row], schema, offset, partition)
        offsets = {0: (0, 0), 1: (0, 0)} | {partition: (offset, offset + 1)}
        state.run(EpochInput(epoch, {"e": SourceInput((batch,), offsets)}, idle={"e": idle}))
        return sorted(rows_of(state.read("w")), key=repr)

    assert run(0, 0, 0, 15) == [], "partition 1 has shown no time yet"
    assert run(1, 1, 0, 5) == [], "partition 1 is within the window"
    assert run(2, 1, 1, 9) == []
    assert run(3, 0, 1, 25, idle=(1,)) == [(_at(0), 2), (_at(10), 1)], "an idle partition leaves the minimum"
    # It wakes with the global watermark (25 s) as its floor: a row at 11 s is late.
    assert run(4, 1, 2, 11) == [(_at(0), 2), (_at(10), 1)]
    assert state.progress.late == {"w": 1}
    state.close()


def test_arrow_rows_are_rows() -> None:
    pipeline = ps.Pipeline("arrow")
    pipeline.stream("e", E)
    pipeline.view("n", "SELECT count(*) AS n FROM e")
    with pipeline.open() as session:
        session.insert("e", pa.table({"id": [1, 2], "k": [1, 1], "v": [None, 2], "at": [_at(0), _at(1)]}))
        session.commit()
        assert rows_of(session.read("n")) == [(2,)]
