"""The ladder as a Lambda function: MSK events, partial failures, and the zip in a clean process."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from penstock.apps.margin.enforcer import Enforcer
from penstock.apps.margin.ladder_store import SqliteLadder
from penstock.apps.margin.lambda_handler import configured, handle, limits_from
from penstock.cli.main import run
from tests.apps.test_margin_enforcer import row

TOPIC = "margin_calculations"


def text(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def message(partition: int, offset: int, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "topic": TOPIC,
        "partition": partition,
        "offset": offset,
        "timestamp": 1767614400000,
        "timestampType": "CREATE_TIME",
        "key": text({"account_id": record["account_id"]}),
        "value": text(record),
        "headers": [],
    }


def event(*messages: dict[str, Any]) -> dict[str, Any]:
    records: dict[str, list[dict[str, Any]]] = {}
    for one in messages:
        records.setdefault(f"{one['topic']}-{one['partition']}", []).append(one)
    return {"eventSource": "aws:kafka", "eventSourceArn": "arn:aws:kafka:x", "records": records}


@pytest.fixture
def ladder(tmp_path: Path) -> SqliteLadder:
    return SqliteLadder(tmp_path / "ladder.sqlite")


def test_a_batch(ladder: SqliteLadder) -> None:
    given = event(
        message(0, 7, row("A", 0, "-1", 0)),
        message(1, 3, row("B", 0, "4000", 0)),
        message(0, 8, row("A", 1, "4000", 1)),
    )
    for _ in range(2):
        assert handle(given, Enforcer(ladder, ladder)) == {"batchItemFailures": []}
    assert [(a["account_id"], a["state"]) for a in ladder.actions()] == [("A", "MARGIN_CALL"), ("A", "ACTIVE")]
    causes = json.loads(json.loads(ladder.actions()[0]["causes"])["inputs"])
    assert (causes["topic"], causes["partition"], causes["offset"]) == (TOPIC, 0, 7)


@pytest.mark.parametrize(
    "broken",
    [
        {"value": "%%%"},
        {"value": base64.b64encode(b"{").decode()},
        {"value": text({"account_id": "A"})},
        {"key": text({"account_id": "somebody else"})},
    ],
)
def test_a_failing_record_ends_its_partition_and_no_other(ladder: SqliteLadder, broken: dict[str, str]) -> None:
    given = event(
        message(0, 1, row("A", 0, "-1", 0)),
        message(0, 2, row("A", 1, "4000", 1)) | broken,
        message(0, 3, row("C", 0, "-1", 1)),
        message(1, 9, row("B", 0, "-1", 0)),
    )
    failed = handle(given, Enforcer(ladder, ladder))
    assert failed == {"batchItemFailures": [{"itemIdentifier": {"partition": f"{TOPIC}-0", "offset": 2}}]}
    assert [a["account_id"] for a in ladder.actions()] == ["A", "B"]


def test_tombstones_are_no_rows(ladder: SqliteLadder) -> None:
    given = event(message(0, 1, row("A", 0, "-1", 0)) | {"value": None})
    assert handle(given, Enforcer(ladder, ladder)) == {"batchItemFailures": []}
    assert ladder.actions() == []


def test_a_schedule_ends_the_grace(ladder: SqliteLadder) -> None:
    handle(event(message(0, 1, row("A", 0, "-1", 0))), Enforcer(ladder, ladder))
    handle({"detail-type": "Scheduled Event", "time": "2026-01-05T12:29:59Z"}, Enforcer(ladder, ladder))
    assert len(ladder.actions()) == 1
    handle({"detail-type": "Scheduled Event", "time": "2026-01-05T12:30:00Z"}, Enforcer(ladder, ladder))
    assert [a["state"] for a in ladder.actions()] == ["MARGIN_CALL", "RESTRICTED"]
    with pytest.raises(ValueError, match="neither"):
        handle({"Records": []}, Enforcer(ladder, ladder))


def test_settings() -> None:
    limits = limits_from({"PENSTOCK_GRACE_MINUTES": "10", "PENSTOCK_WARNING_SHARE": "0.1"})
    assert (limits.grace.total_seconds(), str(limits.warning_share), str(limits.liquidation_share)) == (
        600,
        "0.1",
        "0.5",
    )
    with pytest.raises(ValueError, match="PENSTOCK_LADDER"):
        configured(())


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from penstock.apps.margin.lambda_handler import handler
for event in json.load(sys.stdin):
    print(json.dumps(handler(event, None)))
foreign = [m for m in sys.modules if m.split(".")[0] in ("duckdb", "pydantic", "pyarrow", "numpy", "click")]
assert not foreign, foreign
import penstock
assert penstock.__file__.startswith(sys.argv[1]), penstock.__file__
"""


def test_the_zip_in_a_clean_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "out" / "ladder.zip"
    assert run(["margin", "package-lambda", "--to", str(archive)]) == 0
    told = capsys.readouterr().out
    assert "penstock.apps.margin.lambda_handler.handler" in told
    first = archive.read_bytes()
    assert run(["margin", "package-lambda", "--to", str(archive)]) == 0
    assert archive.read_bytes() == first
    assert len(first) < 100_000
    with zipfile.ZipFile(archive) as unpacked:
        assert all(name.startswith("penstock/") for name in unpacked.namelist())
    events = [event(message(0, 1, row("A", 0, "-1", 0))), event(message(0, 1, row("A", 0, "-1", 0)) | {"value": "%"})]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(archive)],
        input=json.dumps(events),
        env={"PENSTOCK_LADDER": f"sqlite:{tmp_path / 'ladder.sqlite'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(answer["batchItemFailures"]) for answer in answers] == [0, 1]
    ladder = SqliteLadder(tmp_path / "ladder.sqlite")
    assert [a["state"] for a in ladder.actions()] == ["MARGIN_CALL"]
    ladder.close()
