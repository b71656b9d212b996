"""The audit trail as a sink: conformance, kills and power losses, the same bytes from the same changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.connectors.audit_check import check_trail
from penstock.connectors.base import Sink, SinkContext, Url
from penstock.connectors.registry import open_sink
from penstock.errors import ConnectorError
from penstock.storage import failpoints, unsynced
from tests.connectors.conformance import SinkConformance, context, epoch_changes, expected
from tests.connectors.test_file_sink import Rows, wanted_of_writer

NOON = datetime(2026, 1, 5, 12)
AT = pa.field("at", pa.timestamp("us"))


def timed(changes: pa.Table) -> pa.Table:
    """With a time for each row: two rows of an hour, the third again of the one before."""
    ids = changes["id"].to_pylist()
    times = [NOON + timedelta(hours=(n // 1_000) // 2 - (n % 1_000 == 2)) for n in ids]
    return changes.append_column(AT, pa.array(times, AT.type))


class TimedSink:
    """An audit sink that is given changes without a time."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.guarantee = sink.guarantee

    def delivered(self) -> int:
        return self.sink.delivered()

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        self.sink.deliver(epoch, timed(changes))

    def close(self) -> None:
        self.sink.close()


def open_audit(url: str, given: SinkContext | None = None) -> TimedSink:
    given = given or context()
    return TimedSink(open_sink(Url.parse(url), replace(given, columns=given.columns.append(AT))))


def read_trail(folder: Path) -> Rows:
    lines = [line for path in sorted(folder.glob("year=*/*/*/*/*.jsonl")) for line in path.read_bytes().splitlines()]
    records = [json.loads(line)["record"] for line in lines]
    return [(record["_op"], record["id"], record["n"]) for record in records]


class AuditSinks:
    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self.url = f"audit:{folder}?{options}"

    def open(self, context: SinkContext) -> Sink:
        return open_audit(self.url, context)

    def read(self) -> Rows:
        assert check_trail(self.folder).findings == ()
        return read_trail(self.folder)


class TestAuditSink(SinkConformance):
    fail_points = ("audit.append", "audit.torn", "audit.head")

    @pytest.fixture(params=["time=at", "by=id&partitions=3"])
    def sinks(self, tmp_path: Path, request: pytest.FixtureRequest) -> AuditSinks:
        return AuditSinks(tmp_path / "new" / "trail", request.param)


def deliver_all(url: str) -> None:
    """Deliver what is missing of epochs 0 to 11, and say so."""
    sink = open_audit(url)
    for epoch in range(sink.delivered() + 1, 12):
        sink.deliver(epoch, epoch_changes(epoch, epoch % 4))
        sys.stdout.write(f"{epoch}\n")
        sys.stdout.flush()
    sink.close()


PROGRAM = "import sys; from tests.connectors.test_audit_sink import deliver_all; deliver_all(sys.argv[1])"
PLANS = ("audit.append@2", "audit.torn@3", "audit.torn@7", "audit.head@1", "audit.head@6", "file.rename@9")


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power_loss"])
@pytest.mark.parametrize("plan", PLANS)
def test_killed_writers_give_the_trail_of_an_undisturbed_one(tmp_path: Path, plan: str, power: bool) -> None:
    url = f"audit:{tmp_path}/trail?by=id&partitions=2"
    root = Path(__file__).parents[2]
    environment = os.environ | {failpoints.ARM_VARIABLE: plan, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    records = tmp_path / "records"
    if power:
        environment[unsynced.VARIABLE] = str(records)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == -9
    if power:
        unsynced.drop_unsynced(records)
    sink = open_audit(url)
    assert sink.delivered() >= max((int(n) for n in done.stdout.split() if int(n) % 4), default=-1)
    sink.close()
    deliver_all(url)
    assert sorted(read_trail(tmp_path / "trail")) == wanted_of_writer()
    assert check_trail(tmp_path / "trail").findings == ()
    deliver_all(f"audit:{tmp_path}/undisturbed?by=id&partitions=2")
    assert content(tmp_path / "trail") == content(tmp_path / "undisturbed")


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the lock: the state has the same name in both, so the heads agree too."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if not path.name.endswith(".tmp")}


def test_the_same_changes_cut_otherwise_give_the_same_bytes(tmp_path: Path) -> None:
    every = [epoch_changes(epoch, 3) for epoch in range(6)]
    for name, cuts in (("one", [range(6)]), ("many", [[0], [1, 2], [3], [4, 5]])):
        sink = open_audit(f"audit:{tmp_path}/{name}?by=id&partitions=2", context(f"state of {name}"))
        for epoch, cut in enumerate(cuts):
            sink.deliver(epoch, pa.concat_tables([every[n] for n in cut]))
        sink.close()
    one, many = content(tmp_path / "one"), content(tmp_path / "many")
    assert one.pop("head.json") != many.pop("head.json")
    assert one == many
    assert len(one) > 6


def test_what_somebody_else_has_appended_stops_the_sink_and_is_not_cut(tmp_path: Path) -> None:
    url = f"audit:{tmp_path}/trail"
    sink = open_audit(url)
    sink.deliver(0, epoch_changes(0))
    sink.close()
    path = max((tmp_path / "trail").glob("year=*/*/*/*/*.jsonl"))
    path.write_bytes(path.read_bytes() + b"{}\n")
    again = open_audit(url)
    with pytest.raises(ConnectorError, match="not as it was left") as caught:
        again.deliver(1, epoch_changes(1))
    assert caught.value.code == "PS-CONN-003"
    again.close()
    assert path.read_bytes().endswith(b"{}\n")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    sink = open_audit(f"audit:{tmp_path}/trail")
    with pytest.raises(ConnectorError, match="another process writes"):
        open_audit(f"audit:{tmp_path}/trail")
    sink.close()
    open_audit(f"audit:{tmp_path}/trail").close()


@pytest.mark.parametrize(
    "options",
    ["by=nobody", "partitions=2", "by=id&partitions=101", "time=id", "key_env=PENSTOCK_NOT_SET", "format=csv"],
)
def test_wrong_options(tmp_path: Path, options: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        open_audit(f"audit:{tmp_path}/trail?{options}")
    assert caught.value.code == "PS-CONN-008"


def test_a_trail_stays_as_it_was_made(tmp_path: Path) -> None:
    open_audit(f"audit:{tmp_path}/trail?by=id&partitions=2").close()
    with pytest.raises(ConnectorError, match="another trail"):
        open_audit(f"audit:{tmp_path}/trail?by=id&partitions=3")


def test_a_view_without_a_time_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match="time"):
        open_sink(Url.parse(f"audit:{tmp_path}/trail"), context())


def test_a_signed_head_is_taken_with_its_key_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_KEY", "one")
    url = f"audit:{tmp_path}/trail?key_env=DESK_KEY"
    sink = open_audit(url)
    sink.deliver(0, epoch_changes(0))
    sink.close()
    open_audit(url).close()
    assert sorted(read_trail(tmp_path / "trail")) == expected(0)
    monkeypatch.setenv("DESK_KEY", "another")
    with pytest.raises(ConnectorError, match="damaged"):
        open_audit(url)
