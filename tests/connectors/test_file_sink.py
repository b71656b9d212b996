"""Appended files: conformance, sidecar, and real kills and power losses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.connectors.base import Sink, SinkContext, Url
from penstock.connectors.registry import open_sink
from penstock.errors import ConnectorError
from penstock.storage import failpoints, unsynced
from tests.connectors.conformance import SinkConformance, changes, context, epoch_changes, expected

Rows = list[tuple[str, int, int]]

WRITER_PROGRAM = """
import sys
from penstock.connectors.base import Url
from penstock.connectors.registry import open_sink
from tests.connectors.conformance import context, epoch_changes
sink = open_sink(Url.parse(sys.argv[1]), context())
for epoch in range(max(sink.delivered() + 1, int(sys.argv[2])), 12):
    sink.deliver(epoch, epoch_changes(epoch, epoch % 4))
    print(epoch, flush=True)
sink.close()
"""


def finish(url: str) -> None:
    """Deliver what is missing of epochs 0 to 11."""
    sink = open_sink(Url.parse(url), context())
    for epoch in range(sink.delivered() + 1, 12):
        sink.deliver(epoch, epoch_changes(epoch, epoch % 4))
    sink.close()


def killed_writer(url: str, plan: str, records: Path | None, *, first: int = 0) -> int:
    """Deliver epochs `first` to 11 in a process that is killed; the last epoch that it acknowledged, -1 for none."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, str(Path(root) / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {failpoints.ARM_VARIABLE: plan, "PYTHONPATH": path}
    if records is not None:
        environment[unsynced.VARIABLE] = str(records)
    done = subprocess.run(
        [sys.executable, "-c", WRITER_PROGRAM, url, str(first)],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == -9
    return max(map(int, done.stdout.split()), default=-1)


def wanted_of_writer(last: int = 11) -> Rows:
    return sorted(row for epoch in range(last + 1) for row in expected(epoch, count=epoch % 4))


def rows_of_lines(path: Path) -> Rows:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(row.get("_op", "+I"), row["id"], row["n"]) for row in rows]


def rows_of_csv(path: Path) -> Rows:
    with path.open(newline="") as file:
        return [(row.get("_op", "+I"), int(row["id"]), int(row["n"])) for row in csv.DictReader(file)]


class AppendSinks:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, context: SinkContext) -> Sink:
        return open_sink(Url("file", str(self.path)), context)

    def read(self) -> Rows:
        return rows_of_csv(self.path) if self.path.suffix == ".csv" else rows_of_lines(self.path)


POINTS = ("file_sink.write", "file_sink.torn", "file_sink.sync", "file_sink.mark", "file_sink.marked")


class TestAppendedLines(SinkConformance):
    fail_points = POINTS[:4]

    @pytest.fixture
    def sinks(self, tmp_path: Path) -> AppendSinks:
        return AppendSinks(tmp_path / "new" / "out.jsonl")


class TestAppendedCsv(SinkConformance):
    fail_points = POINTS[:4]

    @pytest.fixture
    def sinks(self, tmp_path: Path) -> AppendSinks:
        return AppendSinks(tmp_path / "out.csv")


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power_loss"])
@pytest.mark.parametrize(
    "plan",
    [
        "file_sink.torn@3",
        "file_sink.mark@3",
        "file_sink.mark@1",
        *(
            pytest.param(f"{point}@3", marks=pytest.mark.slow)
            for point in (
                "file_sink.write",
                "file_sink.sync",
                "file_sink.marked",
                "file.write",
                "file.rename",
                "file.renamed",
            )
        ),
    ],
)
def test_killed_writers_deliver_every_epoch_once(tmp_path: Path, plan: str, power: bool) -> None:
    url = f"file:{tmp_path}/out.jsonl"
    records = tmp_path / "records" if power else None
    acknowledged = killed_writer(url, plan, records)
    if records is not None:
        unsynced.drop_unsynced(records)
    sink = open_sink(Url.parse(url), context())
    assert sink.delivered() >= acknowledged
    assert sorted(rows_of_lines(tmp_path / "out.jsonl")) == wanted_of_writer(sink.delivered())
    sink.close()
    finish(url)
    assert sorted(rows_of_lines(tmp_path / "out.jsonl")) == wanted_of_writer()


@pytest.mark.parametrize("point", ["torn", "sync", "mark"])
def test_half_of_the_first_epoch_is_not_taken_for_what_was_there_before(tmp_path: Path, point: str) -> None:
    """The first epoch that has rows is the first one of all: nothing was delivered before it."""
    assert killed_writer(f"file:{tmp_path}/out.jsonl", f"file_sink.{point}@1", None, first=3) == -1
    sink = open_sink(Url.parse(f"file:{tmp_path}/out.jsonl"), context())
    assert sink.delivered() == -1
    sink.deliver(3, epoch_changes(3, 3))
    sink.close()
    assert rows_of_lines(tmp_path / "out.jsonl") == expected(3, count=3)


def test_another_state_appends_behind_what_is_there(tmp_path: Path) -> None:
    sinks = AppendSinks(tmp_path / "out.jsonl")
    first = sinks.open(context("one"))
    first.deliver(0, epoch_changes(0))
    first.close()
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(b'{"torn')
    second = sinks.open(context("two"))
    second.deliver(0, epoch_changes(0, 2))
    second.close()
    assert sinks.read() == expected(0) + expected(0, count=2)


def test_an_output_that_was_cut_by_others_is_an_error(tmp_path: Path) -> None:
    sinks = AppendSinks(tmp_path / "out.jsonl")
    sink = sinks.open(context())
    sink.deliver(0, epoch_changes(0))
    sink.close()
    (tmp_path / "out.jsonl").unlink()
    with pytest.raises(ConnectorError, match="shorter than what was delivered") as caught:
        sinks.open(context())
    assert caught.value.code == "PS-CONN-003"


def test_a_damaged_sidecar_is_named(tmp_path: Path) -> None:
    (tmp_path / ".out.jsonl.penstock").write_text("{}")
    with pytest.raises(ConnectorError, match=r"\.out\.jsonl\.penstock"):
        AppendSinks(tmp_path / "out.jsonl").open(context())


@pytest.mark.parametrize(
    "url",
    [
        "out.jsonl?mode=often",
        "out.jsonl?roll=1s",
        "out.jsonl?format=upsert",
        "out.jsonl?format=nonsense",
        "out/?roll=soon",
        "out/?roll_bytes=none",
        "out.txt?mode=snapshot",
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        open_sink(Url.parse(f"file:{tmp_path}/{url}"), context())
    assert caught.value.code == "PS-CONN-008"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectorError) as caught:
        open_sink(Url.parse(f"file:{tmp_path}/file/out.jsonl"), context())
    assert caught.value.code == "PS-CONN-003"


def test_retractions_are_written_as_they_come(tmp_path: Path) -> None:
    sinks = AppendSinks(tmp_path / "out.jsonl")
    sink = sinks.open(context())
    sink.deliver(0, changes(0, [("+I", 1, 1), ("-U", 1, 1), ("+U", 1, 2), ("-D", 1, 2)]))
    sink.close()
    assert sinks.read() == [("+I", 1, 1), ("-U", 1, 1), ("+U", 1, 2), ("-D", 1, 2)]
