"""The view as a file: always the fold of what was delivered, never half of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.connectors.base import Sink, SinkContext, Url
from penstock.connectors.registry import open_sink
from penstock.storage import unsynced
from tests.connectors.conformance import SinkConformance, changes, context, epoch_changes, expected
from tests.connectors.test_file_sink import Rows, finish, killed_writer, rows_of_csv, rows_of_lines, wanted_of_writer
from tests.examples import examples


class SnapshotSinks:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, context: SinkContext) -> Sink:
        return open_sink(Url("file", str(self.path), {"mode": "snapshot"}), context)

    def read(self) -> Rows:
        match self.path.suffix:
            case ".parquet":
                return [("+I", row["id"], row["n"]) for row in pq.read_table(self.path).to_pylist()]
            case ".csv":
                return rows_of_csv(self.path)
            case _:
                return rows_of_lines(self.path)


class TestSnapshot(SinkConformance):
    fail_points = ("snapshot_sink.content", "snapshot_sink.visible", "file.rename")

    @pytest.fixture(params=["out.csv", "out.jsonl", "out.parquet"])
    def sinks(self, tmp_path: Path, request: pytest.FixtureRequest) -> SnapshotSinks:
        return SnapshotSinks(tmp_path / request.param)

    def after_failures(self, point: str) -> Rows:
        return expected(0, 1)  # another state's table is replaced, not added to


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power_loss"])
@pytest.mark.parametrize(
    "plan",
    [
        "snapshot_sink.visible@3",
        *(
            pytest.param(plan, marks=pytest.mark.slow)
            for plan in ("snapshot_sink.content@3", "snapshot_sink.done@3", "file.renamed@5", "file.renamed@6")
        ),
    ],
)
def test_killed_writers_leave_the_view_as_of_some_epoch(tmp_path: Path, plan: str, power: bool) -> None:
    url = f"file:{tmp_path}/out.csv?mode=snapshot"
    records = tmp_path / "records" if power else None
    acknowledged = killed_writer(url, plan, records)
    if records is not None:
        unsynced.drop_unsynced(records)
    wholes = [wanted_of_writer(epoch) for epoch in range(12)]
    assert sorted(rows_of_csv(tmp_path / "out.csv")) in wholes
    sink = open_sink(Url.parse(url), context())
    assert sink.delivered() >= acknowledged
    assert sorted(rows_of_csv(tmp_path / "out.csv")) == wanted_of_writer(sink.delivered())
    finish(url)
    assert sorted(rows_of_csv(tmp_path / "out.csv")) == wanted_of_writer()


@settings(max_examples=examples(30), deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12),
    removed=st.sets(st.integers(0, 11)),
    epochs=st.integers(1, 4),
)
def test_without_a_key_it_is_a_multiset(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]], removed: set[int], epochs: int
) -> None:
    sinks = SnapshotSinks(tmp_path_factory.mktemp("snapshot") / "out.parquet")
    sequence = [("+I", *row) for row in rows]
    sequence += [("-D", *row) for number, row in enumerate(rows) if number in removed]
    for epoch in range(epochs):
        sink = sinks.open(context(key=()))
        share = sequence[epoch * len(sequence) // epochs : (epoch + 1) * len(sequence) // epochs]
        sink.deliver(epoch, changes(epoch, share))
        sink.close()
    left = sorted(("+I", *row) for number, row in enumerate(rows) if number not in removed)
    assert sorted(sinks.read()) == left


def test_a_keyed_view_keeps_the_newest_row(tmp_path: Path) -> None:
    sinks = SnapshotSinks(tmp_path / "out.csv")
    sink = sinks.open(context())
    sink.deliver(0, changes(0, [("+I", 2, 1), ("+I", 1, 1)]))
    sink.deliver(1, changes(1, [("-U", 1, 1), ("+U", 1, 7), ("-D", 2, 1), ("+I", 3, 0)]))
    assert sinks.read() == [("+I", 1, 7), ("+I", 3, 0)]


def test_nan_and_nested_cells_can_be_taken_away_again(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.float64()), ("l", pa.list_(pa.struct([("a", pa.int64())])))])
    sink = open_sink(
        Url("file", str(tmp_path / "out.parquet"), {"mode": "snapshot"}), SinkContext("p", "s", "state", schema, ())
    )
    cells = {"x": [float("nan"), None], "l": [[{"a": 1}], None]}
    for epoch, sign in enumerate(("+I", "-D")):
        table = pa.table(cells, schema=schema)
        for name, value in (("_op", sign), ("_epoch", epoch)):
            table = table.append_column(name, pa.array([value, value]))
        sink.deliver(epoch, table)
        assert len(pq.read_table(tmp_path / "out.parquet")) == (2 if sign == "+I" else 0)


def test_a_visible_file_that_somebody_changed_is_made_anew(tmp_path: Path) -> None:
    sinks = SnapshotSinks(tmp_path / "out.csv")
    sink = sinks.open(context())
    sink.deliver(0, epoch_changes(0))
    (tmp_path / "out.csv").write_text("nonsense")
    sinks.open(context())
    assert sorted(sinks.read()) == expected(0)
