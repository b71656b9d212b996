"""The ladder as a consumer of what the margin job writes: the same steps as in the pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.connectors.log import LogTopic, LogWriter
from tests.apps.test_margin_enforcer import row

STEP = ("account_id", "episode", "previous_state", "state", "reason", "amount", "at")


@pytest.mark.slow
def test_the_steps_are_those_of_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    market = ["--accounts", "30", "--symbols", "6", "--positions", "3", "--duration", "4s", "--speed", "4"]
    job = [
        "run",
        "margin",
        "--once",
        "--bind",
        "sink:enforcement=file:e.jsonl",
        "--bind",
        "cash=log:.penstock/log/cash",
    ]
    printed = []
    for crash in ("0.3", "0.6"):
        assert run(["margin", "simulate", *market, "--crash-at", "2s", "--crash", crash, "--seed", crash[-1]]) == 0
        assert run(job) == 0
        capsys.readouterr()
        for _ in range(2):
            assert run(["margin", "enforce", "--once"]) == 0
            printed += [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    actions = [json.loads(line) for line in Path("e.jsonl").read_text().splitlines()]
    wanted = [tuple(action[name] for name in STEP) for action in actions]
    assert {action["state"] for action in actions} >= {"WARNING", "MARGIN_CALL", "LIQUIDATION"}
    assert sorted(tuple(action[name] for name in STEP) for action in printed) == sorted(wanted)


def test_a_record_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").mkdir()
    writer = LogWriter(LogTopic.create("log/m", 1))
    writer.append(0, [json.dumps(row("A", 0, "-1", 0)).encode(), b"{}"])
    writer.close()
    for printed in (1, 0):
        assert run(["margin", "enforce", "--once", "--topic", "log:log/m"]) == 1
        told = capsys.readouterr()
        assert len(told.out.splitlines()) == printed
        assert "partition 0 offset 1: KeyError" in told.err
