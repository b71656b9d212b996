"""A folder of files: conformance, rolling, and real kills and power losses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penstock.connectors.base import Sink, SinkContext, Url
from penstock.connectors.registry import open_sink
from penstock.storage import unsynced
from tests.connectors.conformance import SinkConformance, context, epoch_changes, expected
from tests.connectors.test_file_sink import Rows, finish, killed_writer, rows_of_csv, rows_of_lines, wanted_of_writer


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read_folder(folder: Path) -> Rows:
    rows: Rows = []
    for path in visible(folder):
        match path.suffix:
            case ".parquet":
                rows += [(row["_op"], row["id"], row["n"]) for row in pq.read_table(path).to_pylist()]
            case ".csv":
                rows += rows_of_csv(path)
            case _:
                rows += rows_of_lines(path)
    return rows


class FolderSinks:
    def __init__(self, folder: Path, format: str, roll: str) -> None:
        self.folder = folder
        self.url = Url("file", f"{folder}/", {"format": format, "roll": roll})

    def open(self, context: SinkContext) -> Sink:
        return open_sink(self.url, context)

    def read(self) -> Rows:
        return read_folder(self.folder)


class TestFolderSink(SinkConformance):
    fail_points = ("folder_sink.spool", "folder_sink.torn", "folder_sink.mark")

    @pytest.fixture(
        params=[("changelog", "0s"), ("changelog", "1h"), ("parquet", "0s"), ("parquet", "1h"), ("csv", "1h")]
    )
    def sinks(self, tmp_path: Path, request: pytest.FixtureRequest) -> FolderSinks:
        return FolderSinks(tmp_path / "new" / "out", *request.param)


POINTS = ("spool", "torn", "mark", "roll", "rolled")
PLANS = [f"folder_sink.{point}@2" for point in POINTS] + ["file.rename@4", "file.renamed@5"]
OPTIONS = ["roll=0s", "roll=1h&roll_bytes=600&format=parquet", "roll=1h&roll_bytes=300"]


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power_loss"])
@pytest.mark.parametrize(
    ("plan", "options"),
    [
        ("folder_sink.torn@2", OPTIONS[1]),
        ("folder_sink.mark@4", OPTIONS[2]),
        ("folder_sink.rolled@2", OPTIONS[0]),
        *(pytest.param(plan, options, marks=pytest.mark.slow) for plan in PLANS for options in OPTIONS),
    ],
)
def test_killed_writers_deliver_every_epoch_once(tmp_path: Path, plan: str, options: str, power: bool) -> None:
    url = f"file:{tmp_path}/out/?{options}"
    records = tmp_path / "records" if power else None
    acknowledged = killed_writer(url, plan, records)
    if records is not None:
        unsynced.drop_unsynced(records)
    sink = open_sink(Url.parse(url), context())
    assert sink.delivered() >= acknowledged
    finish(url)  # closing the sink first would turn its spool into a file, which a restart does not do
    assert sorted(read_folder(tmp_path / "out")) == wanted_of_writer()
    assert not [
        path for path in (tmp_path / "out").iterdir() if path.name.endswith(".tmp") and "penstock" not in path.name
    ]


def test_files_are_rolled_by_size_and_named_by_epochs(tmp_path: Path) -> None:
    sink = open_sink(Url("file", f"{tmp_path}/out/", {"roll": "1h", "roll_bytes": "1000"}), context())
    for epoch in range(10):
        sink.deliver(epoch, epoch_changes(epoch))
    assert 1 < len(visible(tmp_path / "out")) < 10
    sink.close()
    spans = [tuple(map(int, path.name.split("-")[:2])) for path in visible(tmp_path / "out")]
    assert spans[0][0] == 0
    assert spans[-1][1] == 9
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(spans))
    assert sorted(read_folder(tmp_path / "out")) == expected(*range(10))


def test_another_state_or_format_never_overwrites(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for state, format in (("one", "changelog"), ("two", "changelog"), ("two", "parquet")):
        sink = open_sink(Url("file", f"{folder}/", {"roll": "1h", "format": format}), context(state))
        sink.deliver(sink.delivered() + 1, epoch_changes(0))
        # Not closed: the next one finds a spool of another state or format.
    open_sink(Url("file", f"{folder}/", {"format": "csv"}), context("two")).close()
    assert sorted(read_folder(folder)) == sorted(expected(0) * 3)
    assert [path.suffix for path in visible(folder)].count(".parquet") == 1
