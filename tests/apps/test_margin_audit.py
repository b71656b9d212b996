"""The margin job's audit trail: it holds every action, and the journal gives it again byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli.main import run

TRAIL = "?by=account_id&partitions=3"


def trail(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("part-*")}


def job(audit: str, *options: str) -> int:
    names = ("positions", "margin_calculations", "stress_results")
    others = [part for name in names for part in ("--bind", f"sink:{name}=file:{audit}-{name}.jsonl")]
    bound = ["--bind", "cash=log:.penstock/log/cash", "--bind", f"audit=audit:{audit}{TRAIL}", *others]
    return run(["run", "margin", "--bind", f"sink:enforcement=file:{audit}.jsonl", *bound, *options])


@pytest.mark.slow
def test_the_journal_gives_the_trail_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    market = ["--accounts", "20", "--symbols", "5", "--positions", "2", "--duration", "2s", "--crash-at", "1s"]
    assert run(["margin", "simulate", *market, "--crash", "0.5"]) == 0
    assert job("first", "--once") == 0
    assert run(["margin", "simulate", *market, "--seed", "8", "--crash", "0.1"]) == 0
    assert job("first", "--once") == 0
    assert run(["audit", "verify", "first"]) == 0
    records = [
        json.loads(line)["record"] for content in trail(tmp_path / "first").values() for line in content.splitlines()
    ]
    actions = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    wanted = [{k: v for k, v in row.items() if k not in ("_epoch", "_seq", "_correction")} for row in actions]
    assert len(wanted) > 5
    assert sorted(map(str, records)) == sorted(str(dict(sorted(row.items()))) for row in wanted)
    assert run(["state", "journal", "margin", "--to", "journal.jsonl"]) == 0
    assert job("second", "--journal", "journal.jsonl", "--state", "second-state") == 0
    assert trail(tmp_path / "first") == trail(tmp_path / "second")
    capsys.readouterr()
